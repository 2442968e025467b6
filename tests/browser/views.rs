//! What is a page view, and what is none.

use std::{
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::world::{SETTLED, World, is_made_by_hitlog, paths, texts};

const ENGAGEMENT: &str = r#"data-engagement="on""#;

/// Has a page tell the site that all of its scripts have run, the tracker included.
const TELLS: &str = "<script>addEventListener('load', () => fetch('/ran' + location.pathname))</script>";

#[test]
fn first_view_has_the_referrer_and_later_ones_of_the_page_have_not() {
    let Some(world) = World::start() else { return };
    let (code, url) = world.counted("/first", "", "");
    world.page("/from", "", &format!(r#"<a id="link" href="{url}?utm_source=news&x=1#part">on</a>"#));
    world.browser.go(&format!("{}/from", world.site.url("news.example")));
    world.browser.click("#link", 0);
    world.browser.wait_for("location.pathname == '/first' && window.hitlog");
    world.wait_for(&code, 1);
    // A router may change an address more than once in a moment.
    world.browser.run("history.pushState({}, '', '/second'); history.pushState({}, '', '/second?page=2')");
    let events = world.settled(&code, 2);
    assert_eq!(paths(&events), ["/first?utm_source=news&x=1", "/second?page=2"]);
    assert_eq!(texts(&events, "/referrer"), [format!("{}/", world.site.url("news.example")), String::new()]);
    assert_eq!(texts(&events, "/eventType"), ["pageview", "pageview"]);
    assert_eq!(texts(&events, "/properties/title"), ["A page", "A page"]);
    // Who it is, and with what, hitlog says.
    let visitors = texts(&events, "/visitorId");
    assert!(is_made_by_hitlog(&visitors[0]) && visitors[0] == visitors[1], "{visitors:?}");
    assert_eq!(texts(&events, "/sessionId"), visitors);
    for (member, wanted) in [("/deviceType", "desktop"), ("/browser", "Chrome"), ("/os", "Linux"), ("/location", "")] {
        assert_eq!(texts(&events, member), [wanted, wanted]);
    }
}

#[test]
fn routes_of_a_page_are_page_views_and_the_same_address_again_is_none() {
    let Some(world) = World::start() else { return };
    let (code, url) = world.counted("/app", "", "");
    world.browser.go(&format!("{url}#part"));
    let mut expected = vec!["/app"];
    world.wait_for(&code, 1);
    for (script, path) in [
        ("history.pushState({}, '', '/b')", Some("/b")),
        ("history.pushState({}, '', '/b')", None),
        ("history.replaceState({a: 1}, '', '/b#part')", None),
        ("history.replaceState({}, '', '/c')", Some("/c")),
        ("location.hash = '#part'", None),
        ("location.hash = '#/route'", Some("/c#/route")),
        ("location.hash = '#!/route?x=1'", Some("/c#!/route?x=1")),
        ("history.back()", Some("/c#/route")),
        ("history.go(-2)", Some("/c")),
    ] {
        world.browser.run(script);
        expected.extend(path);
        if path.is_none() {
            thread::sleep(Duration::from_millis(300));
        }
        assert_eq!(paths(&world.wait_for(&code, expected.len())), expected, "{script}");
    }
    assert_eq!(paths(&world.settled(&code, expected.len())), expected);
    // Without it only loads count, and `view` does.
    let (code, url) = world.counted("/off", r#"data-spa="off""#, "");
    world.browser.go(&url);
    world.browser.run("history.pushState({}, '', '/off/a')");
    thread::sleep(Duration::from_millis(300));
    world.browser.run("hitlog.view(); hitlog.view()");
    assert_eq!(paths(&world.settled(&code, 2)), ["/off", "/off/a"]);
    let (code, url) = world.counted("/auto", r#"data-auto="off" data-status="404""#, "");
    world.browser.go(&url);
    thread::sleep(Duration::from_millis(300));
    world.browser.run("history.pushState({}, '', '/auto/a'); hitlog.view()");
    let events = world.settled(&code, 1);
    assert_eq!(paths(&events), ["/auto/a"]);
    assert_eq!(texts(&events, "/properties/status"), ["404"]);
}

#[test]
fn a_page_that_comes_back_from_the_cache_is_a_view_again() {
    let Some(world) = World::start() else { return };
    let (code, url) = world.counted("/back", "", "");
    world.browser.go(&url);
    world.browser.run("addEventListener('pageshow', event => { window.wasKept = event.persisted })");
    world.wait_for(&code, 1);
    world.browser.go(&world.page("/away", "", ""));
    world.browser.back();
    world.browser.wait_for("location.pathname == '/back'");
    world.browser.wait_for("window.wasKept");
    let events = world.settled(&code, 2);
    assert_eq!(paths(&events), ["/back", "/back"]);
}

#[test]
fn what_is_rendered_ahead_counts_when_it_is_shown_and_only_then() {
    let Some(world) = World::start() else { return };
    let (never, never_url) = world.counted("/never", "", TELLS);
    let (shown, shown_url) = world.counted("/shown", "", TELLS);
    let rules = json!({"prerender": [{"source": "list", "urls": [never_url, shown_url], "eagerness": "immediate"}]});
    let body = format!(r#"<a id="link" href="{shown_url}">on</a><script type="speculationrules">{rules}</script>"#);
    world.browser.go(&world.page("/start", "", &body));
    for path in ["/ran/never", "/ran/shown"] {
        harness::wait_until("it is rendered ahead", || (!world.site.asked(path).is_empty()).then_some(()));
    }
    thread::sleep(SETTLED);
    assert_eq!((world.events(&never).len(), world.events(&shown).len()), (0, 0));
    world.browser.click("#link", 0);
    world.browser.wait_for("location.pathname == '/shown'");
    // It is the page that was rendered ahead that is shown.
    let start = "performance.getEntriesByType('navigation')[0].activationStart";
    assert!(world.browser.run(&format!("return {start}")).as_f64().unwrap() > 0.0);
    assert_eq!(world.site.asked("/shown").len(), 1);
    world.settled(&shown, 1);
    assert_eq!(world.events(&never).len(), 0);
}

#[test]
fn a_tab_in_the_background_counts_when_it_is_shown() {
    let Some(world) = World::start() else { return };
    let (code, url) = world.counted("/behind", "", TELLS);
    world.browser.go(&world.page("/before", "", ""));
    let first = world.browser.tab();
    world.browser.devtools("Target.createTarget", json!({"url": url, "background": true}));
    harness::wait_until("it is loaded", || (!world.site.asked("/ran/behind").is_empty()).then_some(()));
    thread::sleep(SETTLED);
    assert_eq!(world.events(&code).len(), 0);
    let tab = world.browser.tabs().into_iter().find(|tab| *tab != first).unwrap();
    world.browser.show(&tab);
    world.settled(&code, 1);
}

#[test]
fn engagement_is_told_when_the_page_is_left() {
    let Some(world) = World::start() else { return };
    let first = world.browser.tab();
    let engaged = |events: &[Value]| -> Vec<(i64, i64)> {
        let told = events.iter().filter(|event| event["properties"]["name"] == "$engagement");
        told.map(|event| &event["properties"])
            .map(|properties| (properties["engagedMs"].as_i64().unwrap(), properties["scrollPct"].as_i64().unwrap()))
            .collect()
    };
    // No more than has passed: how much more than it waits here is the machine's doing.
    let most = |since: Instant| i64::try_from(since.elapsed().as_millis()).unwrap();
    // Closed after 1.5 s, scrolled to the end.
    let since = Instant::now();
    let (code, url) = world.counted("/closed", ENGAGEMENT, "");
    world.browser.open_tab();
    world.browser.go(&url);
    world.browser.run("scrollTo(0, 9999)");
    thread::sleep(Duration::from_millis(1_500));
    world.browser.close_tab();
    let most_ms = most(since);
    world.browser.speak_with(&first);
    let events = world.settled(&code, 2);
    assert!(matches!(engaged(&events)[..], [(1_400.., 100)]), "{events:#?}");
    assert!(engaged(&events)[0].0 <= most_ms, "{events:#?}");
    assert_eq!(paths(&events), ["/closed", "/closed"]);
    // A route of 1.2 s and one that is left at once, which has none.
    let (code, url) = world.counted("/routes", ENGAGEMENT, "");
    world.browser.go(&url);
    thread::sleep(Duration::from_millis(1_200));
    world.browser.run("history.pushState({}, '', '/routes/b')");
    world.wait_for(&code, 2);
    world
        .browser
        .run("setTimeout(() => history.pushState({}, '', '/routes/c')); setTimeout(() => { location = '/' }, 50)");
    let events = world.wait_for(&code, 4);
    let (first_route, told) = (&events[..2], engaged(&events));
    assert!(matches!(told[0], (1_150.., 0..=99)), "{events:#?}");
    assert_eq!(paths(first_route), ["/routes", "/routes"]);
    // Hidden, shown and left: what is hidden does not count, and nothing is told twice.
    let (code, url) = world.counted("/hidden", ENGAGEMENT, "");
    let since = Instant::now();
    world.browser.go(&url);
    thread::sleep(Duration::from_millis(1_200));
    let other = world.browser.open_tab();
    world.wait_for(&code, 2);
    let hidden = Instant::now();
    thread::sleep(Duration::from_millis(2_000));
    let hidden_ms = most(hidden);
    world.browser.close_tab();
    world.browser.speak_with(&first);
    world.browser.show(&first);
    assert!(!world.browser.tabs().contains(&other));
    world.browser.wait_for("!document.hidden");
    thread::sleep(Duration::from_millis(1_200));
    world.browser.go("about:blank");
    let most_ms = most(since) - hidden_ms;
    let told = engaged(&world.settled(&code, 3));
    assert!(matches!(told[..], [(1_150.., _), (1_150.., _)]), "{told:?}");
    assert!(told[0].0 + told[1].0 <= most_ms, "{told:?}, at most {most_ms} ms");
}
