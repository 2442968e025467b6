//! Who is counted, and what is known of whom.

use std::{thread, time::Duration};

use serde_json::{Value, json};

use crate::world::{SETTLED, World, is_made_by_hitlog, paths, texts};

const GPC: &str = "Object.defineProperty(Navigator.prototype, 'globalPrivacyControl', {get: () => true})";
const DNT: &str = "Object.defineProperty(Navigator.prototype, 'doNotTrack', {get: () => '1'})";

/// What lies in the browser for the page.
fn stored(world: &World) -> Value {
    world.browser.run("return [document.cookie, Object.keys(localStorage), Object.keys(sessionStorage)]")
}

#[test]
fn who_asks_not_to_be_tracked_is_counted_without_being_known() {
    let Some(world) = World::start() else { return };
    let both = format!("{GPC}; {DNT}");
    for (signal, names) in [(GPC, &["gpc"][..]), (DNT, &["dnt"]), (&both, &["gpc", "dnt"])] {
        let name = names.join("-and-");
        let all = |value: &str| names.iter().map(|name| format!("data-{name}=\"{value}\" ")).collect::<String>();
        let added = world.browser.before_pages(signal);
        let (code, url) = world.counted(&format!("/{name}"), r#"data-ids="visitor" data-engagement="on""#, "");
        world.browser.go(&url);
        thread::sleep(Duration::from_millis(1_200));
        world.browser.run("hitlog.track('order', {value: 9})");
        assert_eq!(stored(&world), json!(["", [], []]));
        world.browser.go("about:blank");
        let events = world.settled(&code, 2);
        assert_eq!(events[0]["properties"], json!({}));
        assert_eq!(events[1]["properties"], json!({"name": "order"}));
        // Each event has ids of its own.
        assert_eq!(events[0]["sessionId"], events[0]["visitorId"]);
        assert_ne!(events[0]["sessionId"], events[1]["sessionId"]);
        assert!(!is_made_by_hitlog(events[0]["sessionId"].as_str().unwrap()));
        let (dropped, url) = world.counted(&format!("/{name}-drop"), &all("drop"), "");
        world.browser.go(&url);
        let (ignored, url) = world.counted(&format!("/{name}-ignore"), &all("ignore"), "");
        world.browser.go(&url);
        let events = world.settled(&ignored, 1);
        assert!(is_made_by_hitlog(events[0]["sessionId"].as_str().unwrap()));
        assert_eq!(events[0]["properties"]["title"], "A page");
        assert_eq!(world.events(&dropped).len(), 0);
        world.browser.no_more_before_pages(&added);
    }
}

#[test]
fn nothing_is_stored_unless_the_site_asks_for_it() {
    let Some(world) = World::start() else { return };
    let (code, url) = world.counted("/none", "", "");
    world.browser.go(&url);
    world.browser.run("hitlog.track('a'); history.pushState({}, '', '/none/b'); hitlog.flush()");
    world.wait_for(&code, 3);
    world.browser.go(&url);
    world.wait_for(&code, 4);
    assert_eq!(stored(&world), json!(["", [], []]));
    // An id of the tab's.
    let (code, url) = world.counted("/session", r#"data-ids="session""#, "");
    world.browser.go(&url);
    world.browser.go(&url);
    let events = world.settled(&code, 2);
    assert_eq!(stored(&world)[1], json!([]));
    let session = texts(&events, "/sessionId");
    assert_eq!(session[0], session[1]);
    assert_eq!(session, texts(&events, "/visitorId"));
    // After half an hour it is another one.
    world.browser.run(
        "const [id] = sessionStorage['hitlog.session'].split(',');
         sessionStorage['hitlog.session'] = id + ',' + (Date.now() - 1801e3)",
    );
    world.browser.run("hitlog.track('later'); hitlog.flush()");
    assert_ne!(texts(&world.wait_for(&code, 3), "/sessionId")[2], session[0]);
    // An id of the browser's, over tabs.
    let (code, url) = world.counted("/visitor", r#"data-ids="visitor""#, "");
    world.browser.go(&url);
    world.browser.open_tab();
    world.browser.go(&url);
    let events = world.settled(&code, 2);
    let (sessions, visitors) = (texts(&events, "/sessionId"), texts(&events, "/visitorId"));
    assert_ne!(sessions[0], sessions[1]);
    assert_eq!(visitors[0], visitors[1]);
    // Where a browser refuses to store, the server finds the ids.
    world.browser.before_pages(
        "for (const name of ['localStorage', 'sessionStorage']) \
         Object.defineProperty(window, name, {get() { throw new DOMException('no', 'SecurityError') }})",
    );
    world.browser.go(&url);
    assert!(is_made_by_hitlog(&texts(&world.settled(&code, 3), "/visitorId")[2]));
}

#[test]
fn who_is_not_to_be_counted_is_not() {
    let Some(world) = World::start() else { return };
    let mut silent = Vec::new();
    // On this machine, unless it is asked for.
    for host in ["localhost", "127.0.0.1", "a.localhost"] {
        let (code, _) = world.counted("/local", "", "");
        world.browser.go(&format!("{}/local", world.site.url(host)));
        silent.push(code);
        let (code, _) = world.counted("/local-on", "data-local", "");
        world.browser.go(&format!("{}/local-on", world.site.url(host)));
        world.wait_for(&code, 1);
    }
    // Hosts, a share of the loads, robots.
    let (listed, url) = world.counted("/hosts", r#"data-domains="a.example, shop.example""#, "");
    world.browser.go(&url);
    for attributes in [r#"data-domains="a.example,b.example""#, r#"data-sample="0""#] {
        let (code, url) = world.counted("/silent", attributes, "");
        world.browser.go(&url);
        world.browser.run("hitlog.track('a'); hitlog.view(); hitlog.flush()");
        silent.push(code);
    }
    let (code, url) = world.counted("/robot", "data-local", "");
    world.browser.devtools("Emulation.setAutomationOverride", json!({"enabled": true}));
    world.browser.go(&url);
    assert_eq!(world.browser.run("return navigator.webdriver"), true);
    silent.push(code);
    world.browser.devtools("Emulation.setAutomationOverride", json!({"enabled": false}));
    world.wait_for(&listed, 1);
    thread::sleep(SETTLED);
    for code in silent {
        assert_eq!(world.events(&code).len(), 0);
    }
    // Who has opted out, from then on and on every page, until they opt in.
    let (code, url) = world.counted("/out", "", "");
    world.browser.go(&url);
    world.wait_for(&code, 1);
    world.browser.run("hitlog.track('dropped'); hitlog.optOut(true); hitlog.track('no')");
    world.browser.go(&url);
    thread::sleep(SETTLED);
    world.browser.run("hitlog.optOut(false)");
    assert_eq!(stored(&world), json!(["", [], []]));
    world.browser.go(&url);
    world.settled(&code, 2);
}

#[test]
fn of_the_query_only_what_the_site_names_is_sent() {
    let Some(world) = World::start() else { return };
    let query = "?a=1&utm_source=x&token=secret&ref=y&b=2&source=z#/r?token=secret&utm_id=7";
    for (attribute, sent) in [
        ("", query),
        (r#"data-query="keep""#, query),
        (r#"data-query="drop""#, "?utm_source=x&ref=y&source=z#/r?utm_id=7"),
        (r#"data-query="b, c[]""#, "?utm_source=x&ref=y&b=2&source=z#/r?utm_id=7"),
    ] {
        let (code, url) = world.counted("/query", attribute, "");
        world.browser.go(&format!("{url}{query}"));
        assert_eq!(paths(&world.wait_for(&code, 1)), [format!("/query{sent}")], "{attribute}");
        world.browser.go("about:blank");
    }
    // Nor by the referrer, which has the query of a page of the same site.
    let (code, url) = world.counted("/query", r#"data-query="drop""#, "");
    world.browser.go(&world.page("/before", "", &format!(r#"<a id="link" href="{url}">on</a>"#)));
    world.browser.run("history.replaceState({}, '', '?token=secret')");
    world.browser.click("#link", 0);
    let referrer = texts(&world.wait_for(&code, 1), "/referrer");
    assert_eq!(referrer, [format!("{}/before", world.site.url("shop.example"))]);
}
