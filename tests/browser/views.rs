//! What is a page view, and what is none.

use std::thread;

use serde_json::json;

use crate::world::{HOST, SETTLED, World, paths, texts};

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
    assert_eq!(texts(&events, "/sessionId"), ["server", "server"]);
    assert_eq!(texts(&events, "/visitorId"), ["server", "server"]);
}
