//! Visitors whose ids are left to hitlog: whose address counts, what is told of it, and that it is kept nowhere.

mod mmdb;

use std::{
    fs,
    path::{Path, PathBuf},
};

use harness::{Client, Daemon, event_with, tool, wait_until, work_dir};
use mmdb::database;
use serde_json::{Value, json};

const EVENTS: &str = "/api/v1/events";
const FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:133.0) Gecko/20100101 Firefox/133.0";

fn left(code: &str) -> Value {
    event_with(code, json!({"sessionId": "server", "visitorId": "server"}))
}

/// Sends an event with these headers, and gives it back as it is stored.
fn send(client: &mut Client, event: &Value, headers: &[(&str, &str)]) -> Value {
    let sent = client.send("POST", EVENTS, headers, event.to_string().as_bytes());
    assert_eq!(sent.status, 201, "{}", sent.text());
    client.get(&format!("{EVENTS}/{}", sent.json()["id"].as_str().unwrap())).json()
}

fn id_of(event: &Value) -> String {
    let id = event["visitorId"].as_str().unwrap().to_owned();
    assert!(id.len() == 32 && id.bytes().all(|digit| b"0123456789abcdef".contains(&digit)), "{event}");
    assert_eq!(event["sessionId"], event["visitorId"]);
    id
}

#[test]
fn an_id_is_of_whoever_asks_and_nobody_can_forge_it() {
    let daemon = Daemon::start(&["--trusted-proxies", "127.0.0.1,10.0.0.0/8"]);
    let code = daemon.register("a.example");
    let mut client = daemon.client();
    let agent = ("user-agent", FIREFOX);
    let mut of = |headers: &[(&str, &str)]| id_of(&send(&mut client, &left(&code), &[&[agent], headers].concat()));
    let id = of(&[("x-forwarded-for", "198.51.100.1")]);
    for headers in [
        // What stands further left, its sender has made up.
        [("x-forwarded-for", "203.0.113.9, 198.51.100.1")],
        [("x-forwarded-for", "198.51.100.1, 10.1.2.3")],
        [("forwarded", "for=203.0.113.9, for=198.51.100.1;proto=https")],
        [("forwarded", "for=\"198.51.100.1:4711\"")],
    ] {
        assert_eq!(of(&headers), id, "{headers:?}");
    }
    assert_ne!(of(&[("x-forwarded-for", "198.51.100.1, 203.0.113.9")]), id);
    assert_ne!(of(&[]), id);
    let other = daemon.register("b.example");
    let headers = [agent, ("x-forwarded-for", "198.51.100.1")];
    assert_ne!(id_of(&send(&mut daemon.client(), &left(&other), &headers)), id, "each website has its own");
    assert_ne!(id_of(&send(&mut daemon.client(), &left(&code), &headers[1..])), id, "another agent");
    daemon.stop();

    // Whom nobody trusts may say what it likes.
    let daemon = Daemon::start(&[]);
    let code = daemon.register("a.example");
    let mut client = daemon.client();
    let mut of = |headers: &[(&str, &str)]| id_of(&send(&mut client, &left(&code), &[&[agent], headers].concat()));
    let id = of(&[]);
    assert_eq!(of(&[("x-forwarded-for", "198.51.100.1")]), id);
    assert_eq!(of(&[("forwarded", "for=198.51.100.1")]), id);
    daemon.stop();
}

#[test]
fn what_is_left_is_filled_in_and_what_is_said_stays() {
    let daemon = Daemon::start(&[]);
    let code = daemon.register("a.example");
    let mut client = daemon.client();
    let headers = [("user-agent", FIREFOX), ("sec-ch-ua-platform", "\"macOS\"")];
    let event = send(&mut client, &left(&code), &headers);
    let told = |event: &Value| json!([event["deviceType"], event["browser"], event["os"], event["location"]]);
    assert_eq!(told(&event), json!(["desktop", "Firefox", "macOS", null]));
    let id = id_of(&event);

    let mut said = left(&code);
    (said["browser"], said["location"]) = (json!("Mine"), json!("Here"));
    assert_eq!(told(&send(&mut client, &said, &headers)), json!(["desktop", "Mine", "macOS", "Here"]));
    // Whoever says who they are is asked nothing.
    let own = send(&mut client, &event_with(&code, json!({})), &headers);
    assert_eq!((told(&own), &own["visitorId"]), (json!([null, null, null, null]), &json!("v")));
    let half = send(&mut client, &event_with(&code, json!({"visitorId": "server"})), &headers);
    assert_eq!((half["sessionId"].as_str(), half["visitorId"].as_str()), (Some("s"), Some(&*id)));

    let batch = json!({"events": [left(&code), event_with(&code, json!({})), left(&code)]}).to_string();
    assert_eq!(client.send("POST", "/api/v1/events/batch", &headers, batch.as_bytes()).status, 201);
    let listed = client.get(&format!("{EVENTS}?trackingCode={code}&visitorId={id}&limit=100")).json();
    assert_eq!(listed["events"].as_array().unwrap().len(), 5);
    let beacon = json!({"code": code, "sid": "server", "vid": "server", "url": "https://a.example/"}).to_string();
    assert_eq!(client.send("POST", "/api/v1/track", &headers, beacon.as_bytes()).status, 204);
    let listed = client.get(&format!("{EVENTS}?trackingCode={code}&visitorId={id}")).json();
    assert_eq!(listed["pagination"]["total"], 6);
    assert_eq!(daemon.metrics()["hitlog_events_identified_total"], 6.0);
    daemon.assert_conserved();
    daemon.stop();
}

#[test]
fn an_event_sent_again_is_the_first_one() {
    let daemon = Daemon::start(&["--trusted-proxies", "127.0.0.1"]);
    let code = daemon.register("a.example");
    let mut client = daemon.client();
    let mut event = left(&code);
    event["eventId"] = json!("e1");
    let first = send(&mut client, &event, &[("x-forwarded-for", "198.51.100.1")]);
    // From another network, as when somebody leaves the house.
    let again = send(&mut client, &event, &[("x-forwarded-for", "198.51.100.2")]);
    assert_eq!(first["id"], again["id"]);
    let listed = client.get(&format!("{EVENTS}?trackingCode={code}")).json();
    assert_eq!((&listed["pagination"]["total"], &listed["events"][0]["visitorId"]), (&json!(1), &first["visitorId"]));
    daemon.stop();
}

/// Every file under a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn holds(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

#[test]
fn the_address_is_on_no_disk_in_no_log_and_in_no_answer() {
    const ADDRESS: &str = "198.51.100.73";
    const ADDRESS_6: &str = "2001:db8:5e:77::9a";
    let work = work_dir();
    let (data, backup, out) = (work.path().join("data"), work.path().join("backup"), work.path().join("out.jsonl"));
    let flags = ["--trusted-proxies", "127.0.0.1", "--log-level", "trace", "--segment-rows-max", "1000"];
    let daemon = Daemon::start_in(&data, &flags);
    let code = daemon.register("a.example");
    let mut client = daemon.client();
    let mut answers = Vec::new();
    for at in 0..1_200 {
        let header = [("x-forwarded-for", if at % 2 == 0 { ADDRESS } else { ADDRESS_6 }), ("user-agent", "Cafebabe/1")];
        let path = if at % 3 == 0 { "/api/v1/track" } else { EVENTS };
        let event = if at % 3 == 0 {
            json!({"code": code, "sid": "server", "vid": "server", "url": "https://a.example/"})
        } else {
            left(&code)
        };
        answers.push(client.send("POST", path, &header, event.to_string().as_bytes()).text());
    }
    let header = [("x-forwarded-for", ADDRESS)];
    for path in ["/pixel.gif?code=pm-nobody", &format!("/pixel.gif?code={code}&url=https://a.example/"), "/nothing"] {
        answers.push(client.send("GET", path, &header, b"").text());
    }
    answers.push(client.send("POST", EVENTS, &header, b"{").text());
    daemon.wait_until_sealed();
    answers.push(client.get(&format!("{EVENTS}?trackingCode={code}&limit=1000")).text());
    answers.push(daemon.client().get("/metrics").text());
    let target = backup.to_str().unwrap();
    let made = tool(&data, &["backup", target]);
    assert_eq!(made.code, 0, "{}", made.err);
    let salts = fs::read(data.join("salts")).unwrap();
    let secret = &salts[16..48];
    assert!(secret.iter().any(|byte| *byte != 0));
    let log = daemon.log();
    daemon.stop();
    let exported = tool(&data, &["export"]);
    assert_eq!(exported.code, 0, "{}", exported.err);
    fs::write(&out, exported.out).unwrap();

    let v6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0x5e, 0, 0x77, 0, 0, 0, 0, 0, 0, 0, 0x9a];
    let mapped = [&[0; 10][..], &[0xff, 0xff, 198, 51, 100, 73]].concat();
    let traces = [ADDRESS.as_bytes(), &[198, 51, 100, 73], &mapped, ADDRESS_6.as_bytes(), &v6, b"Cafebabe"];
    let mut seen = 0;
    for path in files(work.path()) {
        let bytes = fs::read(&path).unwrap();
        seen += usize::from(holds(&bytes, b"a.example"));
        for trace in traces {
            // Four bytes come about by chance in hashes; in a text they don't.
            let is_chance = trace.len() == 4 && !path.ends_with("salts");
            assert!(is_chance || !holds(&bytes, trace), "{}: {trace:?}", path.display());
        }
        assert!(path == data.join("salts") || !holds(&bytes, secret), "{} has a salt", path.display());
    }
    assert!(seen >= 4, "active and sealed segments, the backup's and the export: {seen}");
    assert!(!files(&backup).iter().any(|path| path.ends_with("salts")));
    for text in answers.iter().chain([&log]) {
        for trace in [ADDRESS, ADDRESS_6, "Cafebabe"] {
            assert!(!text.contains(trace), "{text:.300}");
        }
    }
}

#[test]
fn ids_outlast_a_kill_and_the_file_of_salts_is_its_owners() {
    use std::os::unix::fs::PermissionsExt;

    let work = work_dir();
    let data = work.path().join("data");
    let mut daemon = Daemon::start_in(&data, &[]);
    let code = daemon.register("a.example");
    let id = id_of(&send(&mut daemon.client(), &left(&code), &[]));
    daemon.crash();
    let salts = data.join("salts");
    assert_eq!(fs::metadata(&salts).unwrap().permissions().mode() & 0o777, 0o600);
    let before = fs::read(&salts).unwrap();
    let mut daemon = Daemon::start_in(&data, &[]);
    // At midnight, UTC, it may be another day by now.
    if fs::read(&salts).unwrap() == before {
        assert_eq!(id_of(&send(&mut daemon.client(), &left(&code), &[])), id);
    }
    daemon.crash();
    // A damaged file costs the ids of the day, and nothing else.
    fs::write(&salts, b"not what it was").unwrap();
    let daemon = Daemon::start_in(&data, &[]);
    assert_ne!(id_of(&send(&mut daemon.client(), &left(&code), &[])), id);
    daemon.stop();
    fs::remove_file(&salts).unwrap();
    fs::create_dir(&salts).unwrap();
    let daemon = Daemon::start_in(&data, &[]);
    daemon.wait_for_log("the file `salts` cannot be opened");
    id_of(&send(&mut daemon.client(), &left(&code), &[]));
    daemon.stop();
}

#[test]
fn countries_come_from_a_database_that_sighup_reads_anew() {
    let work = work_dir();
    let path = work.path().join("countries.mmdb");
    fs::write(&path, database(&[("198.51.100.0/24", "NO"), ("203.0.113.0/25", "DE")])).unwrap();
    let flags = ["--trusted-proxies", "127.0.0.1", "--geoip-database", path.to_str().unwrap()];
    let daemon = Daemon::start_in(&work.path().join("data"), &flags);
    let code = daemon.register("a.example");
    let mut client = daemon.client();
    let mut of = |address: &str| send(&mut client, &left(&code), &[("x-forwarded-for", address)])["location"].clone();
    for (address, country) in [
        ("198.51.100.7", json!("NO")),
        ("::ffff:198.51.100.7", json!("NO")),
        ("203.0.113.127", json!("DE")),
        ("203.0.113.128", json!(null)),
        ("192.0.2.1", json!(null)),
        ("2001:db8::1", json!(null)),
    ] {
        assert_eq!(of(address), country, "{address}");
    }
    fs::write(&path, database(&[("198.51.100.0/24", "SE")])).unwrap();
    daemon.signal("HUP");
    wait_until("the database is read anew", || (of("198.51.100.7") == json!("SE")).then_some(()));
    fs::write(&path, "no database").unwrap();
    daemon.signal("HUP");
    daemon.wait_for_log("geoip_database is not good");
    assert_eq!(of("198.51.100.7"), json!("SE"), "the one before stays");
    daemon.stop();

    for (bytes, words) in [
        (b"no database".to_vec(), "no database in MaxMind's format"),
        (database(&[("198.51.100.0/24", "not a code")]), "it names no countries"),
    ] {
        fs::write(&path, bytes).unwrap();
        let refused = tool(&work.path().join("data"), &["serve", "--geoip-database", path.to_str().unwrap()]);
        assert_eq!(refused.code, 1, "{}", refused.err);
        assert!(refused.err.contains(words) && refused.err.contains("countries.mmdb"), "{}", refused.err);
    }
    let missing = work.path().join("missing.mmdb");
    let refused = tool(&work.path().join("data"), &["serve", "--geoip-database", missing.to_str().unwrap()]);
    assert!(refused.code == 1 && refused.err.contains("missing.mmdb"), "{}", refused.err);
}

#[test]
fn whoever_asks_to_be_left_alone_is_told_nothing_of() {
    let daemon = Daemon::start(&["--trusted-proxies", "127.0.0.1"]);
    let mut client = daemon.client();
    let website = json!({"name": "A", "domain": "a.example", "gpc": "anonymous"}).to_string();
    let code = client.post("/api/v1/websites", website).json()["trackingCode"].as_str().unwrap().to_owned();
    let headers = [("sec-gpc", "1"), ("x-forwarded-for", "198.51.100.1"), ("user-agent", FIREFOX)];
    let first = send(&mut client, &left(&code), &headers);
    let second = send(&mut client, &left(&code), &headers);
    assert_ne!(id_of(&first), id_of(&second), "of each request another");
    assert_eq!((&first["browser"], &first["os"], &first["location"]), (&json!(null), &json!(null), &json!(null)));
    assert_eq!(
        id_of(&send(&mut client, &left(&code), &headers[1..])),
        id_of(&send(&mut client, &left(&code), &headers[1..]))
    );
    daemon.stop();
}

#[test]
fn an_id_is_told_to_nobody_who_may_not_read_events() {
    let token = "read-0123456789abcdef";
    let daemon = Daemon::start(&["--read-token", token, "--token", "admin-0123456789abcdef"]);
    let bearer = |token: &str| format!("Bearer {token}");
    let admin = bearer("admin-0123456789abcdef");
    let website = json!({"name": "A", "domain": "a.example"}).to_string();
    let headers = [("authorization", admin.as_str()), ("content-type", "application/json")];
    let made = daemon.client().send("POST", "/api/v1/websites", &headers, website.as_bytes());
    let code = made.json()["trackingCode"].as_str().unwrap().to_owned();
    // As a page of any site may.
    let origin = ("origin", "https://anybody.example");
    let sent = |headers: &[(&str, &str)], event: &Value| {
        let sent = daemon.client().send("POST", EVENTS, headers, event.to_string().as_bytes());
        assert_eq!(sent.status, 201, "{}", sent.text());
        sent.json()
    };
    let told = sent(&[origin], &left(&code));
    assert_eq!((&told["visitorId"], &told["sessionId"]), (&json!("server"), &json!("server")));
    let own = sent(&[origin], &event_with(&code, json!({"visitorId": "server"})));
    assert_eq!((&own["visitorId"], &own["sessionId"]), (&json!("server"), &json!("s")));
    let id = id_of(&sent(&[("authorization", &bearer(token))], &left(&code)));
    let asked = [("authorization", admin.as_str())];
    let stored = daemon.client().send("GET", &format!("{EVENTS}/{}", told["id"].as_str().unwrap()), &asked, b"");
    assert_eq!(id_of(&stored.json()), id);
}
