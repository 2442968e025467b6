//! Nothing is lost and nothing counted twice, whatever becomes of the server and the network.

use std::{
    thread,
    time::{Duration, Instant},
};

use harness::{Daemon, command, port::HeldPort, wait_until, work_dir};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    driver::Browser,
    site::Answer,
    world::{HOST, SETTLED, World, tag, texts},
};

/// A hitlog that comes back on the port and the data that it had.
struct Lasting {
    port: HeldPort,
    work: TempDir,
}

impl Lasting {
    fn new() -> Self {
        Self { port: HeldPort::take(), work: work_dir() }
    }

    fn start(&self) -> Daemon {
        let data = self.work.path().join("data");
        let address = self.port.address();
        Daemon::spawn(&mut command(&["serve", "--listen", &address, "--data-dir", data.to_str().unwrap()]), &data)
    }
}

/// A world whose hitlog lasts, with a page that is loaded and counted.
fn lasting_world() -> Option<(World, Lasting, String)> {
    let browser = Browser::start()?;
    let lasting = Lasting::new();
    let mut world = World::with(browser);
    world.daemon = lasting.start();
    let (code, url) = world.counted("/lasting", "", "");
    world.browser.go(&url);
    world.wait_for(&code, 1);
    Some((world, lasting, code))
}

/// Each name once.
fn assert_names(events: &[Value], expected: &[String]) {
    let mut names = texts(events, "/properties/name");
    names.retain(|name| !name.is_empty());
    names.sort();
    let mut expected = expected.to_vec();
    expected.sort();
    assert_eq!(names, expected);
}

#[test]
fn a_server_that_is_down_for_ten_seconds_costs_nothing() {
    let Some((mut world, lasting, code)) = lasting_world() else { return };
    world.daemon.crash();
    let names: Vec<_> = (0..12).map(|number| format!("e{number}")).collect();
    for (number, name) in names.iter().enumerate() {
        world.browser.run(&format!("hitlog.track('{name}'); history.pushState({{}}, '', '/down/{number}')"));
        thread::sleep(Duration::from_millis(830));
    }
    world.daemon = lasting.start();
    // A view of the load, twelve names and twelve routes.
    let events = world.settled(&code, 25);
    assert_names(&events, &names);
    let mut urls = texts(&events, "/url");
    urls.dedup();
    assert_eq!(urls.len(), 13);
    // What was told while it was down says when it happened, and not when it arrived.
    let times = texts(&events, "/createdAt");
    assert!(times.windows(2).all(|pair| pair[0] <= pair[1]), "{times:?}");
}

#[test]
fn a_server_that_is_killed_under_load_costs_nothing() {
    let Some((mut world, lasting, code)) = lasting_world() else { return };
    world.browser.run(
        "let number = 0;
         const timer = setInterval(() => {
           hitlog.track('e' + number); hitlog.flush();
           if (++number == 120) { clearInterval(timer); window.isDone = true }
         }, 80)",
    );
    for _ in 0..3 {
        thread::sleep(Duration::from_millis(1_500));
        world.daemon.crash();
        world.daemon = lasting.start();
    }
    world.browser.wait_for("window.isDone");
    let events = world.settled(&code, 121);
    let names: Vec<_> = (0..120).map(|number| format!("e{number}")).collect();
    assert_names(&events, &names);
}

#[test]
fn what_is_left_over_is_sent_by_the_next_page_each_to_its_own_website() {
    let Some((mut world, lasting, _)) = lasting_world() else { return };
    let codes = [world.website(), world.website()];
    let tags = codes.each_ref().map(|code| world.tag(code, r#"data-ids="session""#)).concat();
    let url = world.page("/left", &tags, "");
    let bare = world.page("/bare", "", "");
    world.browser.go(&url);
    codes.iter().for_each(|code| drop(world.wait_for(code, 1)));
    world.daemon.crash();
    world.browser.run("hitlog.track('left')");
    // Its beacon finds nobody.
    world.browser.go(&bare);
    world.daemon = lasting.start();
    world.browser.go(&url);
    for code in &codes {
        let events = world.settled(code, 3);
        assert_names(&events, &["left".to_owned()]);
        let sessions = texts(&events, "/sessionId");
        assert!(sessions.iter().all(|session| *session == sessions[0]), "{sessions:?}");
    }
}

#[test]
fn without_a_network_it_waits_for_one() {
    let Some(world) = World::start() else { return };
    let (code, url) = world.counted("/offline", "", "");
    world.browser.go(&url);
    world.wait_for(&code, 1);
    let offline = |offline: bool| {
        let conditions = json!({"offline": offline, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1});
        world.browser.devtools("Network.enable", json!({}));
        world.browser.devtools("Network.emulateNetworkConditions", conditions);
        world.browser.wait_for(&format!("navigator.onLine == {}", !offline));
    };
    offline(true);
    let names: Vec<_> = (0..10).map(|number| format!("e{number}")).collect();
    for name in &names {
        world.browser.run(&format!("hitlog.track('{name}'); hitlog.flush()"));
        thread::sleep(Duration::from_secs(1));
    }
    assert_eq!(world.events(&code).len(), 1);
    let back = Instant::now();
    offline(false);
    world.wait_for(&code, 11);
    // Woken, and not by the next try, which may be eight seconds away.
    assert!(back.elapsed() < Duration::from_secs(3), "{:?}", back.elapsed());
    assert_names(&world.settled(&code, 11), &names);
}

#[test]
fn a_server_says_how_long_to_wait() {
    let Some(world) = World::start() else { return };
    let answer = |status: u16| {
        Answer::of("application/json", "{}")
            .status(status)
            .header("access-control-allow-origin", "*")
            .header("access-control-expose-headers", "retry-after")
    };
    for (status, path) in [(503, "/busy"), (429, "/often")] {
        let api = format!("{path}/batch");
        world.site.put_all(&api, vec![answer(status).header("retry-after", "4"), answer(201)]);
        let elsewhere = format!(r#"data-api="{}{path}""#, world.site.url("stats.example"));
        let tag = tag(&world.tracker("tracker.js"), "pm-busy", &elsewhere);
        world.browser.go(&world.page(&format!("{path}/page"), &tag, ""));
        wait_until("it is sent", || (!world.site.asked(&api).is_empty()).then_some(()));
        let refused = Instant::now();
        // Neither a new event nor a wish brings it forward.
        world.browser.run("hitlog.track('more'); hitlog.flush()");
        wait_until("it is sent again", || (world.site.asked(&api).len() >= 2).then_some(()));
        assert!(refused.elapsed() > Duration::from_millis(3_700), "{:?}", refused.elapsed());
        thread::sleep(SETTLED);
        let bodies: Vec<Value> =
            world.site.asked(&api).iter().map(|(_, body)| serde_json::from_str(body).unwrap()).collect();
        assert_eq!(bodies.len(), 2);
        assert_eq!(bodies[0]["events"][0], bodies[1]["events"][0], "the same on every try");
        assert_eq!(bodies[1]["events"].as_array().unwrap().len(), 2);
        world.browser.go("about:blank");
    }
    // What is wrong stays wrong: 400 is not tried again.
    world.site.put("/wrong/batch", answer(400));
    let elsewhere = format!(r#"data-api="{}/wrong""#, world.site.url("stats.example"));
    world.browser.go(&world.page("/wrong", &tag(&world.tracker("tracker.js"), "pm-wrong", &elsewhere), ""));
    wait_until("it is sent", || (!world.site.asked("/wrong/batch").is_empty()).then_some(()));
    thread::sleep(SETTLED);
    assert_eq!(world.site.asked("/wrong/batch").len(), 1);
    // And no request asked first whether it may, or had a cookie.
    assert!(world.site.asked("/wrong/batch")[0].0.starts_with("POST "));
    assert!(world.site.url(HOST).starts_with("http:"));
}
