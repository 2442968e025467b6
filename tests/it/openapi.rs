//! The description at `/openapi.yaml` says what hitlog answers, and hitlog takes and refuses what it says: schemathesis
//! tries what the description allows and what it does not, on every route, with all of its checks but for one that is
//! narrowed in `openapi/hooks.py`.
//!
//! What a schema can't say is left out of the tries, here and in `openapi/hooks.py`, and nothing else:
//! - lengths count bytes and a schema's count characters, so texts are ASCII;
//! - an empty parameter is as if absent, whatever it takes when there is something in it;
//! - `cursor` and `offset` exclude each other, and so do a website's `websiteId` and `trackingCode`; a cursor belongs to
//!   one listing and a position to one website, `from` must not be after `to`;
//! - a website's zone is one that there is, and no two of its goals have the same name;
//! - a website that refuses pages of other hosts takes none that is made up: `taken.rs` tries those;
//! - a head that is not HTTP never reaches a route (`smuggling.rs` tries those);
//! - an answer without an end is never read to it: of events that are followed only the head is asked for (HEAD).

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use harness::{Daemon, work_dir};
use serde_json::Value;

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// Tries a description on a hitlog that wants a token.
fn try_description(description: &Path, daemon: &Daemon, website: &Value, flags: &[&str]) -> Output {
    let installed = concat!(env!("CARGO_MANIFEST_DIR"), "/target/tools/bin/schemathesis");
    let program = if Path::new(installed).exists() { installed } else { "schemathesis" };
    Command::new(program)
        .args(["run", description.to_str().unwrap(), "--url", &format!("http://{}", daemon.address)])
        .args(["--header", &format!("Authorization: Bearer {TOKEN}"), "--checks", "all", "--no-color"])
        // `openapi/hooks.py` has one in its place that knows an id from another name.
        .args(["--exclude-checks", "ensure_resource_availability"])
        .args(["--exclude-operation-id", "followEvents"])
        .args(["--generation-codec", "ascii", "--generation-database", "none", "--no-shrink"])
        .args(flags)
        .env("SCHEMATHESIS_HOOKS", "hooks")
        .env("PYTHONPATH", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/openapi"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("TRACKING_CODE", website["trackingCode"].as_str().unwrap())
        .env("WEBSITE_ID", website["id"].as_str().unwrap())
        .current_dir(description.parent().unwrap())
        .output()
        .expect("schemathesis is needed: pip install schemathesis")
}

#[test]
fn hitlog_answers_as_described() {
    let work = work_dir();
    let mut daemon = Daemon::start_in(&work.path().join("data"), &["--token", TOKEN]);
    let mut client = daemon.client();
    let served = client.get("/openapi.yaml");
    assert_eq!((served.status, served.header("content-type")), (200, Some("application/yaml")));
    let authorization = ("authorization", &*format!("Bearer {TOKEN}"));
    // Over a connection of its own: one would be idle for longer than hitlog keeps it.
    let register = |domain: &str| {
        let body = format!(r#"{{"name":"A","domain":"{domain}"}}"#);
        let website = daemon.client().send(
            "POST",
            "/api/v1/websites",
            &[authorization, ("content-type", "application/json")],
            body.as_bytes(),
        );
        website.json()
    };
    let website = register("a.example");
    let description = work.path().join("openapi.yaml");
    fs::write(&description, &served.body).unwrap();

    let tried = try_description(&description, &daemon, &website, &["--max-examples", "40"]);
    let report = String::from_utf8_lossy(&tried.stdout);
    assert!(tried.status.success(), "{report}\n{}", String::from_utf8_lossy(&tried.stderr));

    // It got far enough in to see something.
    let metrics = daemon.client().send("GET", "/metrics", &[authorization], b"").text();
    let sample = |name: &str| -> f64 {
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().parse().unwrap()
    };
    // Many of the events that it makes up have one id.
    let stored = sample("hitlog_events_committed_total ") + sample("hitlog_events_replayed_total ");
    assert!(stored > 100.0, "{stored}: {report}");

    // And it sees what is there to be seen: a description that says something else does not pass.
    let text = String::from_utf8(served.body).unwrap();
    for (said, other, operation, fault) in [
        ("required: [total, limit, offset, next]", "required: [absent]", "listEvents", "violates schema"),
        ("'201':", "'200':", "sendEvent", "Undocumented status code"),
    ] {
        let doctored = text.replace(said, other);
        assert_ne!(doctored, text, "{said} is not there");
        fs::write(&description, doctored).unwrap();
        let website = register(&format!("{}.example", operation.to_lowercase()));
        let flags = ["--include-operation-id", operation, "--phases", "examples,coverage,fuzzing"];
        let tried = try_description(&description, &daemon, &website, &flags);
        let report = String::from_utf8_lossy(&tried.stdout);
        assert!(!tried.status.success() && report.contains(fault), "{operation} with {other}: {report}");
    }
    daemon.signal("TERM");
    assert!(daemon.wait().success());
}
