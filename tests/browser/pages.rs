//! Pages as they are: with a strict policy, with scripts that change what browsers have, by https, with a wrong tag.

use std::thread;

use harness::{Certificate, TlsFront};
use serde_json::json;

use crate::{
    site::Answer,
    world::{HOST, SETTLED, World, tag, texts},
};

#[test]
fn a_strict_policy_needs_two_lines() {
    let Some(world) = World::start() else { return };
    let code = world.website();
    let stats = world.hitlog_at("stats.example");
    let policy = format!("default-src 'none'; script-src {stats}; connect-src {stats}");
    let page = Answer::page(&world.tag(&code, "")).header("content-security-policy", &policy);
    world.site.put("/strict", page);
    world.browser.go(&format!("{}/strict", world.site.url(HOST)));
    world.browser.wait_for("window.hitlog");
    world.browser.run("hitlog.track('a')");
    // The last one by a beacon, which is held to the policy, too.
    world.wait_for(&code, 2);
    world.browser.run("hitlog.track('b')");
    world.browser.go("about:blank");
    assert_eq!(texts(&world.settled(&code, 3), "/properties/name"), ["", "a", "b"]);
}

#[test]
fn the_frozen_version_runs_by_its_integrity_and_no_other_does() {
    let Some(world) = World::start() else { return };
    let frozen = include_str!("../../src/web/frozen.txt");
    let integrity = frozen.lines().find_map(|line| line.strip_prefix("tracker.v1.js ")).unwrap();
    for (path, integrity, count) in
        [("/sri", integrity, 1), ("/sri-wrong", &integrity.replace("sha384-", "sha384-A"), 0)]
    {
        let code = world.website();
        let attributes = format!(r#"crossorigin="anonymous" integrity="{integrity}""#);
        let tag = tag(&world.tracker("tracker.v1.js"), &code, &attributes);
        world.browser.go(&world.page(path, &tag, ""));
        assert_eq!(world.browser.run("return Boolean(window.hitlog)"), count == 1);
        world.settled(&code, count);
    }
}

#[test]
fn scripts_that_change_fetch_neither_break_it_nor_have_it_send_twice() {
    let Some(world) = World::start() else { return };
    // As tracing scripts do: a header more, by either way to say it, and a look at the answer.
    let tracing = "<script>{ const original = window.fetch; window.fetch = async (input, init) => {
        const request = new Request(input, init);
        request.headers.set('traceparent', '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01');
        const response = await original(request); await response.clone().text(); return response } }</script>";
    let throwing = "<script>window.fetch = () => { throw new Error('broken') }</script>";
    let rejecting = "<script>{ const original = window.fetch;
        window.fetch = async (...values) => { await original(...values); throw new Error('lost') } }</script>";
    let nothing =
        "<script>{ const original = window.fetch; window.fetch = (...values) => { original(...values) } }</script>";
    for (path, before, after, by_beacon) in [
        ("/tracing", tracing, "", false),
        ("/throwing", throwing, "", true),
        ("/rejecting", rejecting, "", false),
        ("/nothing", nothing, "", false),
        ("/later", "", throwing, false),
    ] {
        let code = world.website();
        // What comes after the tag runs before it, too, if the tag is not at once.
        let tag = world.tag(&code, "").replace("defer ", "");
        world.browser.go(&world.page(path, &format!("{tag}{after}"), before));
        if !by_beacon {
            world.wait_for(&code, 1);
        }
        world.browser.run("hitlog.track('a')");
        world.browser.go("about:blank");
        assert_eq!(texts(&world.settled(&code, 2), "/properties/name"), ["", "a"], "{path}");
    }
}

#[test]
fn pages_by_https_are_counted_and_those_by_http_have_no_random_uuid() {
    let Some(world) = World::start() else { return };
    let front = TlsFront::before(&world.site.url("127.0.0.1"), Certificate::Valid);
    let hitlog = TlsFront::before(&world.hitlog_at("127.0.0.1"), Certificate::Valid);
    let (code, url) = world.counted("/plain", "", "");
    world.browser.go(&url);
    assert_eq!(world.browser.run("return isSecureContext || 'randomUUID' in crypto"), false);
    world.settled(&code, 1);
    let code = world.website();
    let secure = format!("https://{HOST}:{}", front.port);
    let tag = tag(&format!("https://stats.example:{}/tracker.js", hitlog.port), &code, "");
    world.page("/secure", &tag, "");
    world.browser.go(&format!("{secure}/secure"));
    assert_eq!(world.browser.run("return isSecureContext"), true);
    assert_eq!(texts(&world.settled(&code, 1), "/url"), [format!("{secure}/secure")]);
}

#[test]
fn a_wrong_tag_says_so_once_and_sends_nothing_more() {
    let Some(world) = World::start() else { return };
    let no_code = world.tag("", "").replace("data-code=\"\"", "");
    for (path, tag, received) in [
        ("/unknown", world.tag("pm-unknown-1", ""), 1.0),
        ("/malformed", world.tag("wrong", ""), 1.0),
        ("/none", no_code, 0.0),
    ] {
        world.browser.console();
        let before = world.daemon.assert_conserved().0;
        world.browser.go(&world.page(path, &tag, ""));
        thread::sleep(SETTLED);
        world.browser.run("hitlog.track('a'); hitlog.view(); hitlog.flush(); history.pushState({}, '', '/x')");
        thread::sleep(SETTLED);
        world.browser.go("about:blank");
        let told = world.browser.console();
        let told: Vec<_> = told.iter().filter(|line| !line.contains("favicon")).collect();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].contains("hitlog: NOT_FOUND"), "{told:?}");
        assert_eq!(world.daemon.assert_conserved().0 - before, received, "{path}");
    }
    // A right one says nothing, unless it is asked to.
    let (code, url) = world.counted("/right", "", "");
    world.browser.go(&url);
    world.settled(&code, 1);
    assert!(!world.browser.console().iter().any(|line| line.contains("hitlog")));
    let (code, url) = world.counted("/debug", "data-debug", "");
    world.browser.go(&url);
    world.settled(&code, 1);
    assert!(world.browser.console().iter().any(|line| line.contains(&code)));
}

#[test]
fn the_module_does_the_same() {
    let Some(world) = World::start() else { return };
    let code = world.website();
    let options = json!({"code": code, "api": world.api(), "query": "drop", "outbound": false, "status": 404});
    let script = format!(
        "<script type=module>import init, {{ init as same }} from '{}';
         window.tracker = init({options}); window.isSame = init === same</script>",
        world.tracker("tracker.mjs")
    );
    let url = world.page("/module", &script, r#"<a id="out" href="https://other.example/" download>out</a>"#);
    world.browser.go(&format!("{url}?a=1"));
    world.browser.wait_for("window.isSame");
    world.browser.run("document.querySelector('#out').onclick = event => event.preventDefault()");
    world.browser.click("#out", 0);
    world.browser.run("tracker.track('a')");
    let events = world.settled(&code, 3);
    assert_eq!(texts(&events, "/properties/name"), ["", "download", "a"]);
    assert_eq!(texts(&events, "/properties/status"), ["404", "", ""]);
    assert!(events[0]["url"].as_str().unwrap().ends_with("/module"));
}
