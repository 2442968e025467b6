//! Websites: what a domain may be, and the pages of their list.

use std::collections::BTreeSet;

use harness::{Client, Daemon, Response};
use serde_json::{Value, json};

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
