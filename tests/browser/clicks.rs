//! What visitors do on a page, and what the page itself tells.

use std::{thread, time::Duration};

use serde_json::json;

use crate::world::{SETTLED, World, texts};

const LINKS: &str = r##"
    <a id="out" href="https://other.example/a?x=1#part"><b>out</b></a>
    <a id="in" href="#here">in</a>
    <a id="file" href="/files/report.PDF?v=2">file</a>
    <a id="named" download href="/files/none">named</a>
    <a id="mail" href="mailto:a@other.example">mail</a>
    <button id="hit" data-hit="Sign up" data-hit-plan="pro" data-hit-seats-max="3"><b id="within">sign up</b></button>
    <div id="host"></div>
    <script>
      addEventListener('click', event => event.preventDefault());
      document.body.addEventListener('click', event => event.stopPropagation());
      document.querySelector('#out').addEventListener('click', event => event.preventDefault());
      document.querySelectorAll('a').forEach(a => a.addEventListener('click', event => event.preventDefault()));
      host.attachShadow({mode: 'open'}).innerHTML = `<a style="display:block;height:40px"
        href="https://deep.example/">deep</a>`;
      host.shadowRoot.firstChild.addEventListener('click', event => event.preventDefault());
    </script>"##;

#[test]
fn clicks_on_links_files_and_what_has_a_name_are_told() {
    let Some(world) = World::start() else { return };
    let (code, url) = world.counted("/links", "", LINKS);
    world.browser.go(&url);
    for selector in ["#out", "#in", "#file", "#named", "#mail", "#within", "#host"] {
        world.browser.click(selector, 0);
    }
    // The middle button opens a tab, the right one a menu.
    world.browser.click("#out", 1);
    world.browser.click("#out", 2);
    let mut events = world.settled(&code, 7);
    events.sort_by_key(|event| event["createdAt"].as_str().unwrap().to_owned());
    let files = format!("{}/files", world.site.url(crate::world::HOST));
    let told: Vec<_> =
        events.iter().skip(1).map(|event| (event["eventType"].as_str().unwrap(), &event["properties"])).collect();
    let out = json!({"name": "outbound", "href": "https://other.example/a?x=1"});
    assert_eq!(
        told,
        [
            ("click", &out),
            ("click", &json!({"name": "download", "href": format!("{files}/report.PDF?v=2")})),
            ("click", &json!({"name": "download", "href": format!("{files}/none")})),
            ("custom", &json!({"name": "Sign up", "plan": "pro", "seats-max": "3"})),
            ("click", &json!({"name": "outbound", "href": "https://deep.example/"})),
            ("click", &out),
        ]
    );
    // Links and files can be left out; what has a name is the page's own wish.
    let off = r#"data-outbound="off" data-downloads="off""#;
    let (code, url) = world.counted("/links-off", off, LINKS);
    world.browser.go(&url);
    for selector in ["#out", "#file", "#named", "#hit"] {
        world.browser.click(selector, 0);
    }
    assert_eq!(texts(&world.settled(&code, 2), "/properties/name"), ["", "Sign up"]);
}

#[test]
fn the_page_tells_by_the_api() {
    let Some(world) = World::start() else { return };
    let (code, url) = world.counted("/api", "", "");
    world.browser.go(&url);
    world.wait_for(&code, 1);
    world.browser.run(
        "const circle = {}; circle.circle = circle;
         hitlog.track('Order', {value: 9.5, name: 'not this'});
         hitlog.track('circle', circle); hitlog.track('long', {text: 'ß'.repeat(20000)});
         PivotMetrics.track('click', {buttonId: 'buy'}); PivotMetrics.track('pageview');
         hitlog.flush()",
    );
    let mut events = world.settled(&code, 5);
    events.sort_by_key(|event| event["properties"].to_string());
    let told: Vec<_> =
        events.iter().map(|event| (event["eventType"].as_str().unwrap(), &event["properties"])).collect();
    assert_eq!(
        told,
        [
            ("click", &json!({"buttonId": "buy"})),
            ("custom", &json!({"name": "Order", "value": 9.5})),
            ("custom", &json!({"name": "circle"})),
            ("custom", &json!({"name": "long"})),
            ("pageview", &json!({"title": "A page"})),
        ]
    );
    // The site sees every event before, may change it, and may keep it.
    let code = world.website();
    let hook = "<script>window.hitlogBefore = event => event.properties.name == 'secret' ? null :
        ({...event, url: event.url.replace('/users/7', '/users/ID')})</script>";
    world.browser.go(&world.page("/users/7", &world.tag(&code, ""), hook));
    world.browser.run("hitlog.track('secret'); hitlog.track('known'); hitlog.flush()");
    let events = world.settled(&code, 2);
    assert_eq!(texts(&events, "/properties/name"), ["", "known"]);
    assert!(texts(&events, "/url").iter().all(|url| url.ends_with("/users/ID")), "{events:#?}");
}

#[test]
fn long_addresses_are_cut_and_a_queue_of_64_kib_arrives_when_the_page_is_left() {
    let Some(world) = World::start() else { return };
    let (code, url) = world.counted("/long", "", "");
    world.browser.go(&format!("{url}?utm_source=a&x={}", "y".repeat(6_000)));
    let sent = texts(&world.wait_for(&code, 1), "/url");
    assert_eq!(sent[0].len(), 4_096);
    assert!(sent[0].starts_with(&format!("{url}?utm_source=a&x=yyy")));
    // 64 KiB in 64 events, left in the same moment.
    let (code, url) = world.counted("/full", "", "");
    world.browser.go(&url);
    world.wait_for(&code, 1);
    world.browser.run(
        "for (let number = 0; number < 64; number++) hitlog.track('e' + number, {text: 'x'.repeat(620)});
         location.href = '/long-away'",
    );
    let events = world.settled(&code, 65);
    let mut names = texts(&events, "/properties/name");
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 65);
}

#[test]
fn two_trackers_on_a_page_count_once_each() {
    let Some(world) = World::start() else { return };
    let [one, two] = [world.website(), world.website()];
    let tags = [&one, &two, &one].map(|code| world.tag(code, "")).concat();
    world.browser.go(&world.page("/two", &tags, LINKS));
    world.browser.run("hitlog.track('both')");
    world.browser.click("#out", 0);
    world.browser.run("history.pushState({}, '', '/two/b')");
    thread::sleep(SETTLED + Duration::from_millis(100));
    for code in [one, two] {
        let mut names = texts(&world.events(&code), "/properties/name");
        names.sort();
        assert_eq!(names, ["", "", "both", "outbound"]);
    }
}
