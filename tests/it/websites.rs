//! Websites: what a domain may be, their zone, hosts and goals, and the pages of their list.

use std::{collections::BTreeSet, path::Path};

use harness::{Client, Daemon, Response, tool, work_dir};
use rusqlite::Connection;
use serde_json::{Value, json};

use crate::imports::fine;

fn register(client: &mut Client, domain: &str) -> Response {
    client.post("/api/v1/websites", json!({"name": "A", "domain": domain}).to_string())
}

#[test]
fn domains_have_one_rule() {
    let daemon = Daemon::start(&[]);
    let mut client = daemon.client();
    for domain in [
        &"x".repeat(60_000),
        "a..b",
        "*",
        "a\"b.de",
        "a.de,b.de",
        "12345",
        "0x7f.1",
        "[0:0:0:0:0:0:0:1]",
        &format!("{}.de", "x".repeat(64)),
        &"abc.".repeat(64),
    ] {
        let refused = register(&mut client, domain);
        assert_eq!((refused.status, refused.error().as_str()), (400, "VALIDATION_ERROR"), "{domain:.50}");
        assert!(refused.json()["details"]["fieldErrors"]["domain"].is_array());
    }
    for (sent, stored) in [
        ("app://münchen.test", "xn--mnchen-3ya.test"),
        ("Example.com.", "example.com"),
        ("localhost:3000", "localhost:3000"),
        ("http://localhost:8080/x", "localhost:8080"),
        ("localhost", "localhost"),
        ("[::1]", "[::1]"),
        ("https://192.0.2.1:8443", "192.0.2.1:8443"),
    ] {
        let created = register(&mut client, sent);
        assert_eq!((created.status, &created.json()["domain"]), (201, &json!(stored)), "{sent}: {}", created.text());
        assert_eq!(register(&mut client, stored).status, 409, "{stored}");
    }
    for again in ["https://example.com/", "EXAMPLE.com:443", "http://example.com:80/", "xn--mnchen-3ya.test"] {
        assert_eq!(register(&mut client, again).status, 409, "{again}");
    }
    daemon.stop();
}

/// A website with all that may be said of it.
fn whole(domain: &str) -> Value {
    json!({
        "name": "Shop", "domain": domain, "description": "d", "timezone": "europe/berlin",
        "hosts": ["www.Shop.example", "https://shop.example/x", "WWW.shop.example.", "localhost:3000"],
        "hostsPolicy": "refuse", "gpc": "anonymous",
        "goals": [{"name": "Signup", "event": "signup", "other": 1}, {"page": "/docs/*", "event": null, "name": "Docs"}]
    })
}

/// The members of [`whole`] as they are answered.
fn said() -> Value {
    json!([
        "d",
        "Europe/Berlin",
        ["www.shop.example", "shop.example", "localhost:3000"],
        [{"name": "Signup", "event": "signup", "page": null}, {"name": "Docs", "event": null, "page": "/docs/*"}],
        "refuse",
        "anonymous"
    ])
}

fn said_of(website: &Value) -> Value {
    json!(["description", "timezone", "hosts", "goals", "hostsPolicy", "gpc"].map(|member| &website[member]))
}

fn exported(data: &Path) -> Vec<Value> {
    fine(&tool(data, &["export", "--websites"])).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_website_has_a_zone_hosts_and_goals() {
    let work = work_dir();
    let data = work.path().join("data");
    let daemon = Daemon::start_in(&data, &[]);
    let mut client = daemon.client();
    let nothing = json!([null, null, [], [], "warn", "ignore"]);
    let plain = register(&mut client, "plain.example").json();
    assert_eq!(said_of(&plain), nothing);
    let created = client.post("/api/v1/websites", whole("a.example").to_string());
    assert_eq!((created.status, said_of(&created.json())), (201, said()), "{}", created.text());
    let path = format!("/api/v1/websites/{}", created.json()["id"].as_str().unwrap());
    assert_eq!(client.get(&path).json(), created.json());
    assert_eq!(client.get("/api/v1/websites").json()["websites"], json!([created.json(), plain]));

    // What is absent stays; null, or an empty list, takes away; and what was answered can be sent again.
    let mut wanted = said();
    for (change, member, value) in [
        (json!({"name": "Renamed"}), 0, json!("d")),
        (json!({"timezone": null}), 1, json!(null)),
        (json!({"timezone": "utc"}), 1, json!("UTC")),
        (json!({"hosts": []}), 2, json!([])),
        (json!({"goals": [{"name": "A", "page": "\\!x"}]}), 3, json!([{"name": "A", "event": null, "page": "\\!x"}])),
        (json!({"goals": null}), 3, json!([])),
        (json!({"hosts": ["b.example"]}), 2, json!(["b.example"])),
        (json!({"hosts": null, "description": null}), 2, json!([])),
        (json!({"description": "d"}), 0, json!("d")),
        (json!({"hostsPolicy": null}), 4, json!("warn")),
        (json!({"hostsPolicy": "refuse"}), 4, json!("refuse")),
        (json!({"gpc": "drop"}), 5, json!("drop")),
        (json!({"gpc": null}), 5, json!("ignore")),
        (json!({"gpc": "ignore", "hostsPolicy": "warn"}), 4, json!("warn")),
        (created.json(), 0, json!("d")),
    ] {
        wanted[member] = value;
        if change["id"].is_string() {
            wanted = said();
        }
        if change.get("description") == Some(&Value::Null) {
            wanted[0] = Value::Null;
        }
        let changed = client.put(&path, change.to_string());
        assert_eq!((changed.status, said_of(&changed.json())), (200, wanted.clone()), "{change}");
    }
    let (before, path) = (client.get("/api/v1/websites").json(), path.as_str());
    daemon.stop();

    let mut daemon = Daemon::start_in(&data, &[]);
    assert_eq!(daemon.client().get("/api/v1/websites").json(), before, "a start reads them");
    let goals = json!({"goals": [{"name": "Kept", "event": "kept"}]});
    assert_eq!(daemon.client().put(path, goals.to_string()).status, 200);
    daemon.crash();
    let daemon = Daemon::start_in(&data, &[]);
    let kept = daemon.client().get(path).json();
    assert_eq!(kept["goals"], json!([{"name": "Kept", "event": "kept", "page": null}]), "after a kill");
    let backup = work.path().join("backup");
    assert_eq!(tool(&data, &["backup", backup.to_str().unwrap()]).code, 0);
    daemon.stop();
    assert_eq!(exported(&data)[1], kept);
    assert_eq!(exported(&backup), exported(&data));
}

#[test]
fn all_faults_of_a_website_are_told_with_their_places() {
    let daemon = Daemon::start(&[]);
    let mut client = daemon.client();
    let id = register(&mut client, "a.example").json()["id"].as_str().unwrap().to_owned();
    let sent = json!({
        "name": "", "domain": "no host", "hostsPolicy": "Refuse", "gpc": true, "timezone": "Europe/Bonn",
        "hosts": ["a.example", "not a host", 7],
        "goals": [
            {"name": "A", "event": "a"},
            {"name": "A", "page": "!/x"},
            {"event": "x".repeat(1_025), "name": null},
            {"name": "n".repeat(256)},
            {"name": "C", "event": "c", "page": "/c"},
            "D"
        ]
    });
    let wanted = json!({
        "name": ["Expected 1 to 255 characters"],
        "domain": ["Expected a host name such as example.com, or a URL such as https://example.com"],
        "timezone": ["Unknown time zone; expected an IANA name such as Europe/Berlin"],
        "hostsPolicy": ["Expected one of: warn, refuse, or null"],
        "gpc": ["Expected one of: ignore, anonymous, drop, or null"],
        "hosts[1]": ["Expected a host name such as example.com, or a URL such as https://example.com"],
        "hosts[2]": ["Expected a string"],
        "goals[1].name": ["Another goal has this name"],
        "goals[1].page": ["A goal cannot be all pages but some; write \\! for a page that begins with \"!\""],
        "goals[2].name": ["Expected a string"],
        "goals[2].event": ["Expected 1 to 1024 bytes"],
        "goals[3].name": ["Expected 1 to 255 characters"],
        "goals[3]": ["Expected either an event or a page"],
        "goals[4]": ["Expected either an event or a page"],
        "goals[5]": ["Expected an object"]
    });
    let path = format!("/api/v1/websites/{id}");
    for refused in [client.post("/api/v1/websites", sent.to_string()), client.put(&path, sent.to_string())] {
        assert_eq!((refused.status, refused.error().as_str()), (400, "VALIDATION_ERROR"));
        assert_eq!(refused.json()["details"]["fieldErrors"], wanted);
    }
    let hosts = |count: usize| (0..count).map(|number| format!("{number}.example")).collect::<Vec<_>>();
    let goals = |count: usize| (0..count).map(|at| json!({"name": at.to_string(), "event": "a"})).collect::<Vec<_>>();
    assert_eq!(client.put(&path, json!({"hosts": hosts(100), "goals": goals(100)}).to_string()).status, 200);
    let refused = client.put(&path, json!({"hosts": hosts(101), "goals": goals(101)}).to_string()).json();
    let wanted = json!({"hosts": ["Expected at most 100"], "goals": ["Expected at most 100"]});
    assert_eq!(refused["details"]["fieldErrors"], wanted);
    assert_eq!(client.get(&path).json()["goals"].as_array().unwrap().len(), 100, "what is refused changes nothing");
    for (body, error) in [("", "MALFORMED_JSON"), ("{\"goals\": [}", "MALFORMED_JSON"), ("[]", "VALIDATION_ERROR")] {
        let refused = client.put(&path, body);
        assert_eq!((refused.status, refused.error().as_str()), (400, error), "{body}");
    }
    daemon.stop();
}

/// The limits fit together: with the least memory that may be set, and as lines of an export.
#[test]
fn websites_with_as_much_as_may_be_said() {
    let work = work_dir();
    let at = |name: &str| work.path().join(name);
    let least = ["body-bytes-max=2MiB", "small-body-bytes=1MiB", "answer-bytes-max=2MiB", "small-answer-bytes=1MiB"];
    let mut flags = least.map(|flag| format!("--{flag}")).to_vec();
    flags.push("--batch-bytes-max=256KiB".into());
    let flags: Vec<_> = flags.iter().map(String::as_str).collect();
    let daemon = Daemon::start_in(&at("data"), &flags);
    let mut client = daemon.client();
    let goal =
        |number: usize| json!({"name": format!("{number:0>5}{}", "\u{10348}".repeat(250)), "page": "\"".repeat(1_024)});
    let label = "x".repeat(60);
    let host = |number: usize| format!("{number:0>3}.{label}.{label}.{label}.{label}");
    let mut made = Vec::new();
    for number in 0..3 {
        let website = json!({
            "name": "\u{10348}".repeat(255), "domain": host(number), "description": "\u{10348}".repeat(1_000),
            "timezone": "America/Argentina/ComodRivadavia",
            "hosts": (0..100).map(host).collect::<Vec<_>>(), "goals": (0..100).map(goal).collect::<Vec<_>>()
        });
        let created = client.post("/api/v1/websites", website.to_string());
        assert_eq!(created.status, 201, "{}", created.text());
        let (created, path) = (created.json(), format!("/api/v1/websites/{}", created.json()["id"].as_str().unwrap()));
        assert_eq!(
            (&created["hosts"], &created["goals"][99]["page"]),
            (&website["hosts"], &website["goals"][99]["page"])
        );
        assert_eq!(client.get(&path).json(), created);
        made.insert(0, created);
    }
    assert_eq!(client.get("/api/v1/websites").json()["websites"], json!(made));
    let path = format!("/api/v1/websites/{}", made[0]["id"].as_str().unwrap());
    for (bytes, status) in [(512 * 1_024, 200), (512 * 1_024 + 1, 413)] {
        assert_eq!(client.put(&path, format!("{{}}{}", " ".repeat(bytes - 2))).status, status, "{bytes}");
    }
    daemon.stop();
    let lines = tool(&at("data"), &["export", "--websites"]).out;
    assert!(lines.lines().all(|line| line.len() > 300_000), "they are long");
    std::fs::write(at("lines"), lines).unwrap();
    fine(&tool(&at("copy"), &["import", at("lines").to_str().unwrap()]));
    assert_eq!(exported(&at("copy")), exported(&at("data")));
}

/// The catalog of version 6 knew no zones, hosts and goals, that of version 7 nothing of what a website takes: tools
/// read them as they are, and a start brings them up to date.
#[test]
fn a_catalog_of_an_older_hitlog_is_taken_over() {
    let work = work_dir();
    let data = work.path().join("data");
    let daemon = Daemon::start_in(&data, &[]);
    let mut client = daemon.client();
    let plain = register(&mut client, "plain.example").json();
    let website = client.post("/api/v1/websites", whole("a.example").to_string()).json();
    daemon.stop();
    let catalog = || Connection::open(data.join("catalog.db")).unwrap();
    let version = || catalog().query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(version(), 8);
    let mut bare = website.clone();
    let older = "ALTER TABLE Website DROP COLUMN hostsPolicy; ALTER TABLE Website DROP COLUMN gpc;
                 DROP TABLE RetiredCode; PRAGMA user_version = 7;";
    catalog().execute_batch(older).unwrap();
    (bare["hostsPolicy"], bare["gpc"]) = (json!("warn"), json!("ignore"));
    assert_eq!((exported(&data), version()), (vec![plain.clone(), bare.clone()], 7));
    let older = "ALTER TABLE Website DROP COLUMN timezone; ALTER TABLE Website DROP COLUMN hosts;
                 ALTER TABLE Website DROP COLUMN goals; PRAGMA user_version = 6;";
    catalog().execute_batch(older).unwrap();
    for (member, value) in [("timezone", json!(null)), ("hosts", json!([])), ("goals", json!([]))] {
        bare[member] = value;
    }
    assert_eq!((exported(&data), version()), (vec![plain.clone(), bare.clone()], 6));
    let daemon = Daemon::start_in(&data, &[]);
    let mut client = daemon.client();
    assert_eq!(client.get("/api/v1/websites").json()["websites"], json!([bare, plain]));
    let path = format!("/api/v1/websites/{}", website["id"].as_str().unwrap());
    assert_eq!(said_of(&client.put(&path, whole("a.example").to_string()).json()), said());
    daemon.stop();
    assert_eq!((said_of(&exported(&data)[1]), version()), (said(), 8));
}

#[test]
fn websites_come_in_pages() {
    const COUNT: usize = 1_005;
    let daemon = Daemon::start(&["--durability=normal"]);
    let mut client = daemon.client();
    let mut ids = Vec::new();
    for number in 0..COUNT {
        let created = register(&mut client, &format!("site-{number}.example"));
        assert_eq!(created.status, 201);
        ids.push(created.json()["id"].as_str().unwrap().to_owned());
    }
    let mut page = |query: &str| -> (Vec<String>, Value) {
        let page = client.get(&format!("/api/v1/websites{query}"));
        assert_eq!(page.status, 200, "{query}: {}", page.text());
        let page = page.json();
        let ids = page["websites"].as_array().unwrap().iter().map(|website| website["id"].as_str().unwrap().to_owned());
        assert_eq!(page["total"], page["pagination"]["total"]);
        (ids.collect(), page["pagination"].clone())
    };
    let newest_first: Vec<_> = ids.iter().rev().cloned().collect();
    for (query, count, limit) in [
        ("", 100, 100),
        ("?limit=&cursor=", 100, 100),
        ("?limit=7", 7, 7),
        ("?limit=1000", 1_000, 1_000),
        ("?limit=5000", 1_000, 1_000),
    ] {
        let (found, pagination) = page(query);
        assert_eq!((&found[..], &pagination["limit"]), (&newest_first[..count], &json!(limit)), "{query}");
        assert_eq!(pagination["total"], COUNT);
    }
    // From page to page, while some go that have been shown, some that have not, and the very one that a page ends with.
    let (mut seen, mut cursor, mut pages) = (Vec::new(), String::new(), 0);
    let mut gone = BTreeSet::new();
    loop {
        let (found, pagination) = page(&format!("?limit=100{cursor}"));
        let last = found.last().unwrap().clone();
        seen.extend(found);
        pages += 1;
        let Some(next) = pagination["next"].as_str() else { break };
        cursor = format!("&cursor={next}");
        for id in [last, ids[pages * 3].clone()] {
            assert_eq!(daemon.client().send("DELETE", &format!("/api/v1/websites/{id}"), &[], b"").status, 200);
            gone.insert(id);
        }
        assert_eq!(register(&mut daemon.client(), &format!("new-{pages}.example")).status, 201);
    }
    let is_unseen_gone = |id: &String| gone.contains(id) && !seen.contains(id);
    let wanted: Vec<_> = newest_first.iter().filter(|id| !is_unseen_gone(id)).cloned().collect();
    assert_eq!((seen.len(), &seen), (wanted.len(), &wanted), "each once, in order");
    assert!(pages >= 10 && gone.len() == 2 * (pages - 1));
    for query in ["?limit=0", "?limit=-1", "?limit=x", "?limit=1&limit=1", "?cursor=x", &format!("?{cursor}x")] {
        let refused = daemon.client().get(&format!("/api/v1/websites{query}"));
        assert_eq!((refused.status, refused.error().as_str()), (400, "VALIDATION_ERROR"), "{query}");
    }
    daemon.stop();
}
