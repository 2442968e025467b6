//! What it costs the page, and what is lost when a tab is closed at once. Alone on the machine, as both are measured.

use std::time::Duration;

use harness::turn;
use serde_json::{Value, json};

use crate::{driver::Browser, world::World};

/// At most, by the issue.
const LOST_MAX: usize = 2;
const MAIN_THREAD_MAX: Duration = Duration::from_millis(5);

#[test]
fn of_200_tabs_that_are_closed_at_once_two_may_be_lost() {
    let _alone = turn::alone();
    let Some(world) = World::start() else { return };
    let (code, url) = world.counted("/close", "", "");
    let first = world.browser.tab();
    for number in 0..200 {
        world.browser.open_tab();
        world.browser.go(&format!("{url}?n={number}"));
        world.browser.close_tab();
        world.browser.speak_with(&first);
    }
    std::thread::sleep(Duration::from_secs(3));
    let mut urls: Vec<_> = world.events(&code).iter().map(|event| event["url"].to_string()).collect();
    let sent = urls.len();
    urls.sort();
    urls.dedup();
    assert_eq!(urls.len(), sent, "none twice");
    println!("closed at once: {} of 200 page views lost", 200 - sent);
    assert!(200 - sent <= LOST_MAX, "{} of 200 are lost", 200 - sent);
}

#[test]
fn a_load_costs_the_main_thread_five_milliseconds_at_most() {
    let _alone = turn::alone();
    let Some(browser) = Browser::start_with(json!({
        "perfLoggingPrefs": {"enableNetwork": false, "enablePage": false,
            "traceCategories": "devtools.timeline"}
    })) else {
        return;
    };
    let world = World::with(browser);
    let mut loads = Vec::new();
    for number in 0..10 {
        let (code, url) = world.counted(&format!("/cost/{number}"), "", "");
        world.browser.log("performance");
        world.browser.go(&url);
        world.wait_for(&code, 1);
        loads.push(main_thread_time(&world.browser.log("performance")));
    }
    loads.sort();
    println!("main thread at load, of ten loads: {loads:?}");
    // The middle one: the first ones find nothing warm.
    assert!(loads[5] > Duration::ZERO && loads[5] <= MAIN_THREAD_MAX, "{loads:?}");
}

/// The time on a processor of everything on the main thread that Chromium's trace puts down to the tracker's script:
/// running it, which includes compiling it, and the calls of its functions later, those at leaving the page before
/// included. Not the time on the clock, in which others have the processor.
fn main_thread_time(log: &[String]) -> Duration {
    let mut micros = 0;
    for line in log {
        let entry: Value = serde_json::from_str(line).unwrap();
        let event = &entry["message"]["params"];
        let is_tracker = event["args"]["data"]["url"].as_str().is_some_and(|url| url.ends_with("/tracker.js"));
        if is_tracker && ["EvaluateScript", "FunctionCall"].contains(&event["name"].as_str().unwrap_or("")) {
            micros += event["tdur"].as_u64().unwrap_or(0);
        }
    }
    Duration::from_micros(micros)
}
