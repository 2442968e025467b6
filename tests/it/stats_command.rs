//! `hitlog stats --period` shows what `GET /api/v1/stats` answers, beside a running hitlog, after a crash and after a
//! stop.

use harness::{Daemon, event_with, tool, wait_until, work_dir};
use serde_json::{Value, json};

const HOUR_MS: i64 = 3_600_000;

fn now_ms() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64
}

/// Sends events of some days up to an hour ago, each visitor's with pauses of less and of more than half an hour.
fn send(daemon: &Daemon, code: &str, events: i64) {
    let until = now_ms() - HOUR_MS;
    for first in (0..events).step_by(50) {
        let event = |at: i64| {
            let visitor = at * 7 % 11;
            let changes = json!({
                "timestamp": until - (events - at) * 7 * 60_000, "sessionId": format!("s{visitor}"),
                "visitorId": format!("v{visitor}"), "url": format!("https://example.com/{}?utm_source=news", at % 5),
                "eventType": if at % 4 == 1 { "custom" } else { "pageview" },
                "properties": {"name": format!("did-{}", at % 3)},
                "location": if at % 2 == 0 { json!("DE") } else { json!(null) },
            });
            event_with(code, changes)
        };
        let batch = json!({"events": (first..(first + 50).min(events)).map(event).collect::<Vec<_>>()}).to_string();
        assert_eq!(daemon.client().post("/api/v1/events/batch", batch).status, 201);
        wait_until("the next segment is prepared", || (daemon.segments("prepared") == 1).then_some(()));
    }
}

/// What is asked, as the command and as the routes have it.
const QUESTIONS: [(&[&str], &str); 4] = [
    (&["--period=7d"], "period=7d"),
    (&["--period=all", "--timezone=Asia/Kathmandu"], "period=all&timezone=Asia/Kathmandu"),
    (&["--filter=page=/1", "--filter=page=/2", "--filter=event=!"], "page=/1&page=/2&event=!"),
    (&["--period=30d", "--filter=location=", "--bots"], "period=30d&location=&bots=include"),
];
const DIMENSIONS: [&str; 4] = ["page", "event", "exitPage", "location"];

/// What the routes answer.
fn answered(daemon: &Daemon, code: &str) -> Vec<Value> {
    let mut answers = Vec::new();
    for (_, query) in QUESTIONS {
        let ask = |route: &str| {
            let path = format!("/api/v1/stats{route}?trackingCode={code}&{query}");
            let answer = daemon.client().get(&path).json();
            assert_eq!(answer["meta"]["complete"], true, "{path}: {answer}");
            answer
        };
        let (totals, series) = (ask(""), ask("/series"));
        for dimension in DIMENSIONS {
            let top = ask(&format!("/top/{dimension}"));
            answers.push(json!([
                totals["range"],
                totals["metrics"],
                series["interval"],
                series["series"],
                top["rows"],
                top["pagination"]["total"]
            ]));
        }
    }
    answers
}

/// What the command prints.
fn printed(data: &std::path::Path, website: &[&str]) -> Vec<Value> {
    let mut answers = Vec::new();
    for (arguments, _) in QUESTIONS {
        for dimension in DIMENSIONS {
            let top = format!("--top={dimension}");
            let all = [&["stats", "--json", &top], arguments, website].concat();
            let ran = tool(data, &all);
            assert_eq!(ran.code, 0, "{}", ran.err);
            let printed: Value = serde_json::from_str(&ran.out).unwrap();
            assert_eq!(printed["meta"]["visitors"], "exact");
            answers.push(json!([
                printed["range"],
                printed["metrics"],
                printed["interval"],
                printed["series"],
                printed["top"]["rows"],
                printed["top"]["total"]
            ]));
        }
    }
    answers
}

#[test]
fn it_shows_what_the_routes_answer() {
    let work = work_dir();
    let data = work.path().join("data");
    let flags = ["--segment-rows-max=60"];
    let mut daemon = Daemon::start_in(&data, &flags);
    let code = daemon.register("example.com");
    send(&daemon, &code, 330);
    daemon.wait_until_sealed();
    let before = answered(&daemon, &code);
    assert_eq!(before[0][1]["visitors"], 11, "{}", before[0][1]);
    assert_eq!(printed(&data, &[]), before);
    // An erasure counts from its answer on, whichever files it has reached.
    assert_eq!(
        daemon.client().send("DELETE", &format!("/api/v1/visitors/v3?trackingCode={code}"), &[], b"").status,
        202
    );
    let erased = printed(&data, &[]);
    assert_eq!((erased[0][1]["visitors"].as_u64(), &erased), (Some(10), &answered(&daemon, &code)));
    daemon.crash();
    assert_eq!(printed(&data, &[]), erased);
    daemon = Daemon::start_in(&data, &flags);
    let other = daemon.register("other.example");
    send(&daemon, &other, 50);
    daemon.wait_until_sealed();
    assert_eq!(printed(&data, &["--website", "example.com"]), erased);
    assert_eq!(printed(&data, &["--website", &other])[0][1]["visitors"], 11);
    daemon.stop();
    assert_eq!(printed(&data, &["--website", "example.com"]), erased);
}

#[test]
fn it_draws_for_people_and_says_what_it_does_not_know() {
    let work = work_dir();
    let data = work.path().join("data");
    let daemon = Daemon::start_in(&data, &[]);
    let refused = |arguments: &[&str], why: &str| {
        let ran = tool(&data, &[&["stats"], arguments].concat());
        assert!(ran.code == 2 && ran.err.contains(why), "{arguments:?}: {}", ran.err);
    };
    refused(&["--period=7d"], "no website is registered here yet");
    let code = daemon.register("example.com");
    send(&daemon, &code, 60);
    let text = tool(&data, &["stats", "--period=7d", "--top=page", "--limit=2", "--timezone=Europe/Berlin"]).out;
    for part in ["example.com, 7d, from 20", "(Europe/Berlin)", "bounce rate", "visitors", "█", "/0", "and 3 more"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(text.lines().skip(1).all(|line| line.chars().count() <= 90), "{text}");
    refused(&["--period=8d"], "possible values");
    refused(&["--timezone=Mars/Olympus"], "name one of IANA's");
    refused(&["--filter=nothing=1"], "expected NAME=VALUE");
    refused(&["--top=page", "--days=3"], "cannot be used with");
    daemon.register("other.example");
    refused(&["--top=page"], "say which one with --website");
    daemon.stop();
}
