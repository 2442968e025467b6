//! What browsers are given: the tracker as it is served, the picture that counts, other paths, and `hitlog tracker`.

use std::io::Read;

use flate2::read::GzDecoder;
use harness::{Client, Daemon, tool, work_dir};
use serde_json::json;

const TRACKER: &str = "/tracker.js";

#[test]
fn the_tracker_is_served_in_the_coding_that_a_browser_likes() {
    let daemon = Daemon::start(&["--tracker-path", "/js/app.js"]);
    let mut client = daemon.client();
    let plain = client.get(TRACKER);
    assert!(plain.status == 200 && plain.text().contains("hitlog"), "{}", plain.text());
    assert_eq!(plain.header("content-type"), Some("text/javascript; charset=utf-8"));
    assert_eq!(plain.header("cache-control"), Some("public, max-age=86400, stale-while-revalidate=604800"));
    assert_eq!(plain.header("vary"), Some("accept-encoding"));
    assert_eq!(plain.header("access-control-allow-origin"), Some("*"));
    assert_eq!(plain.header("cross-origin-resource-policy"), Some("cross-origin"));
    assert_eq!(plain.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(plain.header("content-encoding"), None);
    let mut tags = vec![plain.header("etag").unwrap().to_owned()];
    for (accepts, coding) in [
        ("gzip, deflate, br, zstd", "br"),
        ("gzip", "gzip"),
        ("br;q=0.5, gzip", "gzip"),
        ("br;q=0, gzip;q=0.1", "gzip"),
        ("*", "br"),
    ] {
        let packed = client.send("GET", TRACKER, &[("accept-encoding", accepts)], b"");
        assert_eq!(packed.header("content-encoding"), Some(coding), "{accepts}");
        let mut text = String::new();
        match coding {
            "br" => brotli::Decompressor::new(&packed.body[..], 4_096).read_to_string(&mut text).unwrap(),
            _ => GzDecoder::new(&packed.body[..]).read_to_string(&mut text).unwrap(),
        };
        assert_eq!(text, plain.text(), "{accepts}");
        tags.push(packed.header("etag").unwrap().to_owned());
    }
    assert_eq!(tags.iter().collect::<std::collections::BTreeSet<_>>().len(), 3, "{tags:?}");
    for (known, status) in
        [(tags[0].as_str(), 304), ("*", 304), (&format!("\"x\", W/{}", tags[0]), 304), (tags[1].as_str(), 200)]
    {
        let asked = client.send("GET", TRACKER, &[("if-none-match", known)], b"");
        assert_eq!(asked.status, status, "{known}");
        assert_eq!(asked.header("etag"), Some(&*tags[0]));
        assert_eq!(asked.body.is_empty(), status == 304);
    }
    assert_eq!(client.get("/js/app.js").text(), plain.text());
    assert_eq!(client.send("HEAD", TRACKER, &[], b"").header("content-length"), Some(&*plain.body.len().to_string()));
    let frozen = client.get("/tracker.v1.js");
    assert_eq!(frozen.header("cache-control"), Some("public, max-age=31536000, immutable"));
    let module = client.get("/tracker.mjs");
    assert_eq!((module.status, module.header("content-type")), (200, Some("text/javascript; charset=utf-8")));
    assert_eq!(client.get("/tracker.d.ts").status, 200);
    daemon.stop();
}

#[test]
fn a_picture_counts_page_views() {
    let daemon = Daemon::start(&[]);
    let code = daemon.register("a.example");
    let mut client = daemon.client();
    let page = ("referer", "https://a.example/from-the-head");
    let shown = client.send("GET", &format!("/pixel.gif?code={code}"), &[page], b"");
    assert_eq!((shown.status, shown.body.len(), &shown.body[..6]), (200, 43, &b"GIF89a"[..]));
    assert_eq!(shown.header("content-type"), Some("image/gif"));
    assert_eq!(shown.header("cache-control"), Some("no-store"));
    assert_eq!(shown.header("cross-origin-resource-policy"), Some("cross-origin"));
    let query = format!("/pixel.gif?code={code}&url=https%3A%2F%2Fa.example%2Fsaid&ref=https://b.example/&eventId=e1");
    for _ in 0..2 {
        assert_eq!(client.send("GET", &query, &[page], b"").status, 200);
    }
    // Nobody has seen it.
    assert_eq!(client.send("HEAD", &query.replace("e1", "e2"), &[page], b"").status, 200);
    for (path, status, field) in [
        ("/pixel.gif".to_owned(), 400, "code"),
        (format!("/pixel.gif?code={code}"), 400, "url"),
        (format!("/pixel.gif?code={code}&url=/x"), 400, "url"),
        (format!("/pixel.gif?code={code}&url=https://a.example/&t=yesterday"), 400, "t"),
        (format!("/pixel.gif?code={code}&code={code}&url=https://a.example/"), 400, "code"),
        ("/pixel.gif?code=pm-nobody&url=https://a.example/".to_owned(), 404, ""),
        // What is no UTF-8 is refused, and no id becomes another.
        (format!("/pixel.gif?code={code}&url=https://a.example/&eventId=%ff"), 400, ""),
        (format!("/pixel.gif?code={code}&url=https://a.example/&eventId={}", "x".repeat(129)), 400, "eventId"),
    ] {
        let refused = client.get(&path);
        assert_eq!(refused.status, status, "{path}: {}", refused.text());
        assert!(field.is_empty() || refused.json()["details"]["fieldErrors"][field].is_array(), "{}", refused.text());
    }
    let listed = client.get(&format!("/api/v1/events?trackingCode={code}")).json();
    let events = listed["events"].as_array().unwrap();
    let mut urls: Vec<_> = events.iter().map(|event| event["url"].as_str().unwrap()).collect();
    urls.sort_unstable();
    assert_eq!(urls, ["https://a.example/from-the-head", "https://a.example/said"]);
    assert!(events.iter().all(|event| event["visitorId"].as_str().unwrap().len() == 32), "{listed}");
    assert_eq!(daemon.metrics()["hitlog_events_received_total"], 11.0);
    daemon.assert_conserved();
    daemon.stop();
}

#[test]
fn events_may_go_to_a_path_of_ones_own() {
    let daemon = Daemon::start(&["--events-path-alias", "/hello"]);
    let code = daemon.register("a.example");
    let mut client = daemon.client();
    let event = harness::event_with(&code, json!({}));
    let origin = [("origin", "https://a.example")];
    let sent = client.send("POST", "/hello", &origin, event.to_string().as_bytes());
    assert_eq!((sent.status, sent.header("access-control-allow-origin")), (201, Some("https://a.example")));
    let batch = json!({"events": [event]}).to_string();
    assert_eq!(client.send("POST", "/hello/batch", &origin, batch.as_bytes()).status, 201);
    let refused = client.send("POST", "/hello/batch", &origin, b"{");
    assert_eq!((refused.status, refused.header("access-control-allow-origin")), (400, Some("https://a.example")));
    let preflight = [("origin", "https://a.example"), ("access-control-request-method", "POST")];
    assert_eq!(client.send("OPTIONS", "/hello", &preflight, b"").status, 204);
    assert_eq!(client.post("/api/v1/events", harness::event_with(&code, json!({})).to_string()).status, 201);
    assert_eq!(client.get("/hello/tail").status, 404);
    daemon.stop();
    for (tracker, events) in [("/a", "/a"), ("/a/batch", "/a")] {
        let work = work_dir();
        let flags = ["serve", "--tracker-path", tracker, "--events-path-alias", events];
        let refused = tool(&work.path().join("data"), &flags);
        assert!(refused.code == 2 && refused.err.contains("events_path_alias"), "{}", refused.err);
    }
    for path in ["/api/v1/x", "x", "/a b", "/", "/a/", "//a", "/a/../b", "/metrics", "/tracker.js"] {
        let work = work_dir();
        let refused = tool(&work.path().join("data"), &["serve", "--tracker-path", path]);
        assert_eq!(refused.code, 2, "{path}: {}", refused.err);
    }
}

#[test]
fn the_tool_prints_the_tag() {
    let daemon = Daemon::start(&[]);
    let code = daemon.register("a.example");
    let data = daemon.data().to_owned();
    let printed = tool(&data, &["tracker", "--url", "https://stats.example.com"]);
    assert_eq!(printed.code, 0, "{}", printed.err);
    let tag = format!("<script defer src=\"https://stats.example.com/tracker.js\" data-code=\"{code}\"></script>");
    assert!(printed.out.contains(&tag), "{}", printed.out);
    let told = tool(&data, &["tracker", "--json", "--website", "a.example", "--url", "https://stats.example.com"]);
    let told: serde_json::Value = serde_json::from_str(&told.out).unwrap();
    assert_eq!(told["tag"], json!(tag));
    let policy = told["contentSecurityPolicy"].as_str().unwrap();
    assert!(policy.contains("script-src https://stats.example.com; connect-src https://stats.example.com"), "{policy}");
    // The integrity is of what is served.
    let served: Vec<u8> = Client::connect(&daemon.address).get("/tracker.v1.js").body;
    assert_eq!(told["integrity"], json!(integrity(&served)));
    assert!(told["frozenTag"].as_str().unwrap().contains("/tracker.v1.js"), "{told}");

    daemon.register("b.example");
    let unclear = tool(&data, &["tracker"]);
    assert!(unclear.code == 2 && unclear.err.contains("--website"), "{}", unclear.err);
    for (website, url, words) in [
        ("nobody.example", "https://a.example", "no website"),
        ("a.example", "stats.example.com", "--url"),
        ("a.example", "https://me:secret@a.example", "--url"),
        ("a.example", "https://a.example/?x", "--url"),
    ] {
        let refused = tool(&data, &["tracker", "--website", website, "--url", url]);
        assert!(refused.code == 2 && refused.err.contains(words), "{}", refused.err);
    }
    let everywhere = tool(&data, &["tracker", "--website", "a.example", "--listen", "0.0.0.0:3000"]);
    assert!(everywhere.code == 2 && everywhere.err.contains("--url"), "{}", everywhere.err);
    daemon.stop();
}

/// By another implementation than hitlog's.
fn integrity(bytes: &[u8]) -> String {
    use std::{
        io::Write,
        process::{Command, Stdio},
    };
    let shell = "openssl dgst -sha384 -binary | openssl base64 -A";
    let mut sums = Command::new("sh").args(["-c", shell]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    sums.stdin.take().unwrap().write_all(bytes).unwrap();
    format!("sha384-{}", String::from_utf8(sums.wait_with_output().unwrap().stdout).unwrap())
}
