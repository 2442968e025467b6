//! What keeps ClickHouse from taking events until somebody has done something: hitlog says what, goes on taking events in,
//! loses none, and goes on when it is done.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::Path,
    thread,
    time::Duration,
};

use harness::{
    Certificate, ClickHouse, Daemon, TlsFront, event_with,
    port::HeldPort,
    proxy::{Fault, Proxy},
    shipped, side_by_side, wait_until, work_dir,
};
use serde_json::{Value, json};

use crate::ship::{assert_same, send, serve, ship};

/// Of every user who has one.
const PASSWORD: &str = "geheim-7f3a";
/// What hitlog's user may do, in a database of its own.
const GRANTS: [&str; 7] = [
    "GRANT SELECT, INSERT, ALTER DELETE, CREATE TABLE ON web.events",
    "GRANT SELECT, INSERT, CREATE TABLE ON web.events_nodes",
    "GRANT SELECT ON system.processes",
    "GRANT SELECT ON system.parts",
    "GRANT SELECT ON system.mutations",
    "GRANT TABLE ENGINE ON MergeTree",
    "GRANT TABLE ENGINE ON ReplacingMergeTree",
];

/// `GET /api/v1/shipping`
fn shipping(daemon: &Daemon) -> Value {
    daemon.client().get("/api/v1/shipping").json()
}

/// Waits until hitlog pauses, for a reason with these words in it. It is told wherever people look, keeps nothing from
/// being taken in, and no password is in it. Returns the reason.
fn wait_until_paused(daemon: &Daemon, code: &str, words: &[&str]) -> String {
    let reason = wait_until(&format!("it pauses: {words:?}"), || {
        let reason = shipping(daemon)["paused"]["message"].as_str()?.to_owned();
        words.iter().all(|word| reason.contains(word)).then_some(reason)
    });
    let (exit, said) = ship(daemon, &["status"]);
    assert!(exit == 1 && words.iter().all(|word| said.contains(word)), "{exit} {said}");
    assert_eq!(daemon.metrics()["hitlog_ship_paused"], 1.0);
    daemon.wait_for_log("shipping pauses: ");
    let mut client = daemon.client();
    assert_eq!(client.get("/readyz").status, 200);
    assert_eq!(client.post("/api/v1/events", event_with(code, json!({})).to_string()).status, 201);
    assert_no_password(daemon);
    reason
}

/// In nothing that people see.
fn assert_no_password(daemon: &Daemon) {
    let metrics = daemon.client().get("/metrics").text();
    for text in [daemon.log(), shipping(daemon).to_string(), ship(daemon, &["status"]).1, metrics] {
        assert!(!text.contains(PASSWORD) && !text.contains("wrong-"), "{text}");
    }
}

/// Goes on, and ships all that there is.
fn resume(daemon: &Daemon, arguments: &[&str]) {
    ship(daemon, &[&["resume"], arguments].concat());
    shipped::wait_until_shipped(daemon);
    let shipping = shipping(daemon);
    assert_eq!((&shipping["paused"], &shipping["lastError"]), (&Value::Null, &Value::Null));
    assert_eq!((ship(daemon, &["status"]).0, daemon.metrics()["hitlog_ship_paused"]), (0, 0.0));
}

/// The statement that a reason names.
fn statement(reason: &str) -> &str {
    let begin = ["ALTER TABLE ", "CREATE "].iter().filter_map(|word| reason.find(word)).min().expect("a statement");
    let rest = &reason[begin..];
    let end = ["; ", " (make the table anew"].iter().filter_map(|end| rest.find(end)).min();
    &rest[..end.unwrap_or(rest.len())]
}

fn flag(name: &str, path: &Path) -> String {
    format!("--{name}={}", path.display())
}

#[test]
fn a_table_that_is_gone_is_told_and_restored_or_made_anew() {
    let Some(clickhouse) = ClickHouse::start() else { return };
    let work = work_dir();
    let data = work.path().join("data");
    let proxy = Proxy::start(&clickhouse.address());
    let daemon = serve(&data, &proxy.url(), &["--ship-rows-max=100", "--segment-rows-max=400"]);
    let code = daemon.register("ship.example");
    send(&daemon, &code, 0, 350);
    shipped::wait_until_shipped(&daemon);

    proxy.refuse(true);
    send(&daemon, &code, 350, 350);
    wait_until("it waits", || (shipping(&daemon)["state"] == "waiting").then_some(()));
    clickhouse.query("RENAME TABLE default.events TO default.kept");
    proxy.refuse(false);
    wait_until_paused(&daemon, &code, &["default.events", "gone", "restore the table", "--from-start"]);
    // Whoever only has it go on gets no new table.
    let looks = proxy.requests();
    ship(&daemon, &["resume"]);
    proxy.wait_for_requests(looks + 1);
    thread::sleep(Duration::from_millis(500));
    assert_eq!(clickhouse.query("EXISTS default.events"), "0");
    wait_until_paused(&daemon, &code, &["default.events", "gone"]);
    clickhouse.query("RENAME TABLE default.kept TO default.events");
    resume(&daemon, &[]);
    assert_same(&clickhouse, &[(0, &data)]);

    // Without what was shipped to it; asked for while nobody answers.
    proxy.refuse(true);
    send(&daemon, &code, 700, 100);
    wait_until("it waits", || (shipping(&daemon)["state"] == "waiting").then_some(()));
    clickhouse.query("DROP TABLE default.events SYNC");
    ship(&daemon, &["resume", "--from-start"]);
    let looked_at = || shipping(&daemon)["lastError"]["at"].clone();
    let before = looked_at();
    wait_until("it has looked, in vain", || (looked_at() != before).then_some(()));
    proxy.refuse(false);
    shipped::wait_until_shipped(&daemon);
    assert_same(&clickhouse, &[(0, &data)]);
    daemon.stop();
}

#[test]
fn a_window_that_somebody_makes_smaller_loses_nothing() {
    let Some(clickhouse) = ClickHouse::start() else { return };
    let work = work_dir();
    let data = work.path().join("data");
    let proxy = Proxy::start(&clickhouse.address());
    let daemon = serve(&data, &proxy.url(), &["--ship-rows-max=100"]);
    let code = daemon.register("ship.example");
    send(&daemon, &code, 0, 100);
    shipped::wait_until_shipped(&daemon);
    clickhouse.query("SYSTEM STOP MERGES default.events");
    clickhouse.query("ALTER TABLE default.events MODIFY SETTING non_replicated_deduplication_window = 3");
    let count = || clickhouse.query("SELECT count() FROM default.events").parse::<usize>().unwrap();

    // It is there, and hitlog looks before it sends it again.
    proxy.next_with("INSERT", 1, Fault::SwallowAnswer);
    send(&daemon, &code, 100, 500);
    shipped::wait_until_shipped(&daemon);
    assert_eq!(count(), 600);
    assert_same(&clickhouse, &[(0, &data)]);

    // Nothing can know that it comes late, when it has been sent under another token: the engine joins the two.
    proxy.next_with("INSERT", 1, Fault::Hold);
    send(&daemon, &code, 600, 500);
    shipped::wait_until_shipped(&daemon);
    proxy.release();
    assert_eq!((count(), daemon.metrics()["hitlog_ship_epochs_total"]), (1_200, 1.0));
    let once = "SELECT count(), uniqExact(seq) FROM default.events FINAL";
    assert_eq!(clickhouse.query(once), "1100\t1100");
    clickhouse.query("SYSTEM START MERGES default.events");
    clickhouse.query("OPTIMIZE TABLE default.events FINAL");
    assert_same(&clickhouse, &[(0, &data)]);
    assert_eq!(ship(&daemon, &["verify", "--deep"]).0, 0);

    // At the next look at the table it is told, and mended as told.
    ship(&daemon, &["resume"]);
    let reason = wait_until_paused(&daemon, &code, &["remembers too few inserts"]);
    clickhouse.query(statement(&reason));
    resume(&daemon, &[]);
    assert_same(&clickhouse, &[(0, &data)]);
    daemon.stop();
}

#[test]
fn too_many_parts_are_waited_for() {
    let Some(clickhouse) = ClickHouse::start() else { return };
    let work = work_dir();
    let data = work.path().join("data");
    let daemon = serve(&data, &clickhouse.url(), &["--ship-rows-max=50"]);
    let code = daemon.register("ship.example");
    send(&daemon, &code, 0, 50);
    shipped::wait_until_shipped(&daemon);
    clickhouse.query("SYSTEM STOP MERGES default.events");
    clickhouse.query("ALTER TABLE default.events MODIFY SETTING parts_to_throw_insert = 5, parts_to_delay_insert = 5");
    send(&daemon, &code, 50, 500);
    let status = wait_until("the server refuses", || {
        Some(ship(&daemon, &["status"])).filter(|(_, said)| said.contains("error 252"))
    });
    assert!(!status.1.contains("paused") && daemon.metrics()["hitlog_ship_paused"] == 0.0, "{status:?}");
    let attempts = || {
        let metrics = daemon.metrics();
        metrics.iter().filter(|(name, _)| name.starts_with("hitlog_ship_attempts_total")).map(|(_, n)| n).sum::<f64>()
    };
    let before = attempts();
    wait_until("it tries again", || (attempts() >= before + 2.0).then_some(()));
    clickhouse.query("SYSTEM START MERGES default.events");
    shipped::wait_until_shipped(&daemon);
    assert_same(&clickhouse, &[(0, &data)]);
    daemon.stop();
}

#[test]
fn one_event_that_is_refused_is_put_aside_and_all_others_arrive() {
    let Some(clickhouse) = ClickHouse::start() else { return };
    let work = work_dir();
    let data = work.path().join("data");
    let daemon = serve(&data, &clickhouse.url(), &["--ship-rows-max=100", "--ship-dead-max=2"]);
    let code = daemon.register("ship.example");
    send(&daemon, &code, 0, 10);
    shipped::wait_until_shipped(&daemon);
    clickhouse.query("ALTER TABLE default.events ADD CONSTRAINT fine CHECK url NOT LIKE 'https://bad.example/%'");
    let bad = |number: usize| {
        let url = format!("https://bad.example/{number}");
        assert_eq!(
            daemon.client().post("/api/v1/events", event_with(&code, json!({"url": url})).to_string()).status,
            201
        );
    };
    let events = {
        let ok = |number: usize| event_with(&code, json!({"url": format!("https://good.example/{number}")}));
        let mut events: Vec<Value> = (0..60).map(ok).collect();
        events[37]["url"] = json!("https://bad.example/0");
        json!({ "events": events }).to_string()
    };
    assert_eq!(daemon.client().post("/api/v1/events/batch", &events).status, 201);
    send(&daemon, &code, 10, 200);
    wait_until("it is put aside", || (daemon.metrics()["hitlog_ship_dead_events"] == 1.0).then_some(()));
    shipped::wait_until_shipped(&daemon);
    assert_eq!(daemon.metrics()["hitlog_ship_paused"], 0.0);
    let found = shipped::differences(&clickhouse, "default.events", &[(0, &data)]);
    assert_eq!(found, ["lost: 0/48"]);
    let (exit, said) = ship(&daemon, &["dead"]);
    assert!(exit == 1 && said.contains("error 469") && said.contains("fine"), "{exit} {said}");
    assert_eq!(ship(&daemon, &["status"]).0, 1);

    // What the target said quotes the event, so an erasure takes it away: whoever was erased may be in it.
    assert!(said.contains("bad.example/0"), "{said}");
    let erase = format!("/api/v1/visitors/somebody?trackingCode={code}");
    assert_eq!(daemon.client().send("DELETE", &erase, &[], b"").status, 202);
    let (_, said) = ship(&daemon, &["dead"]);
    assert!(said.contains("words are gone") && !said.contains("bad.example"), "{said}");
    ship(&daemon, &["resume", "--dead"]);
    wait_until("it is refused again", || ship(&daemon, &["dead"]).1.contains("error 469").then_some(()));

    // More of them than somebody has said: it pauses, and none is lost.
    (1..=2).for_each(bad);
    wait_until_paused(&daemon, &code, &["refused 3 events", "hitlog ship dead", "--dead"]);
    assert_eq!(ship(&daemon, &["dead"]).1.matches("error 469").count(), 3);
    clickhouse.query("ALTER TABLE default.events DROP CONSTRAINT fine");
    resume(&daemon, &["--dead"]);
    assert_same(&clickhouse, &[(0, &data)]);
    assert_eq!((ship(&daemon, &["dead"]).0, daemon.metrics()["hitlog_ship_dead_events"]), (0, 0.0));
    assert_eq!(ship(&daemon, &["verify", "--deep"]).0, 0);
    daemon.stop();
}

/// A ClickHouse with a user who has these rights, and the database that they are for.
fn with_user(grants: &[&str]) -> Option<ClickHouse> {
    let clickhouse = ClickHouse::with(|options| {
        options.user("shipper", PASSWORD, grants);
    })?;
    clickhouse.query("CREATE DATABASE web");
    Some(clickhouse)
}

#[test]
fn passwords_and_rights_are_told_and_mended() {
    let Some(mut clickhouse) = with_user(&GRANTS) else { return };
    let work = work_dir();
    let (data, password) = (work.path().join("data"), work.path().join("password"));
    fs::write(&password, "wrong-8c1b\n").unwrap();
    let flags = ["--ship-user=shipper", "--ship-database=web", &flag("ship-password-file", &password)];
    let daemon = serve(&data, &clickhouse.url(), &flags);
    let code = daemon.register("ship.example");
    send(&daemon, &code, 0, 100);
    wait_until_paused(&daemon, &code, &["error 516", "password"]);
    fs::remove_file(&password).unwrap();
    ship(&daemon, &["resume"]);
    wait_until_paused(&daemon, &code, &["ship_password_file", "cannot be read"]);
    fs::write(&password, format!("{PASSWORD}\n")).unwrap();
    resume(&daemon, &[]);
    let assert_same = |clickhouse: &ClickHouse| {
        let found = shipped::differences(clickhouse, "web.events", &[(0, &data)]);
        assert!(found.is_empty(), "{} differences, such as {:?}", found.len(), found.first());
    };
    assert_same(&clickhouse);

    // The server keeps what its users may do for as long as it runs.
    let mut with_grants = |grants: &[&str], reason: &[&str]| {
        clickhouse.stop();
        clickhouse.choose(|options| {
            options.user("shipper", PASSWORD, grants);
        });
        clickhouse.start_again();
        send(&daemon, &code, 0, 50);
        if reason.is_empty() {
            resume(&daemon, &[]);
            assert_same(&clickhouse);
        } else {
            wait_until_paused(&daemon, &code, reason);
        }
    };
    with_grants(&["GRANT SELECT ON web.events", GRANTS[1], GRANTS[2]], &["error 497", "grant the user"]);
    with_grants(&GRANTS, &[]);
    // Who may do nothing does not even see that there is a table.
    with_grants(&[GRANTS[2]], &["web.events", "no rights", "Grant those again"]);
    with_grants(&GRANTS, &[]);
    daemon.stop();
}

#[test]
fn a_user_without_rights_is_told_before_anything_is_there() {
    let Some(mut clickhouse) = with_user(&[]) else { return };
    let work = work_dir();
    let (data, password) = (work.path().join("data"), work.path().join("password"));
    fs::write(&password, PASSWORD).unwrap();
    let flags = ["--ship-user=shipper", "--ship-database=web", &flag("ship-password-file", &password)];
    let daemon = serve(&data, &clickhouse.url(), &flags);
    let code = daemon.register("ship.example");
    send(&daemon, &code, 0, 100);
    wait_until_paused(&daemon, &code, &["no database web", "grant the user"]);
    clickhouse.stop();
    clickhouse.choose(|options| {
        options.user("shipper", PASSWORD, &GRANTS);
    });
    clickhouse.start_again();
    resume(&daemon, &[]);
    assert_eq!(shipped::differences(&clickhouse, "web.events", &[(0, &data)]), Vec::<String>::new());
    assert_no_password(&daemon);
    daemon.stop();
}

#[test]
fn certificates_that_are_not_good_are_told() {
    let Some(clickhouse) = with_user(&GRANTS) else { return };
    let clickhouse = &clickhouse;
    let good = TlsFront::start(clickhouse, Certificate::Valid);
    let stranger = concat!(env!("CARGO_MANIFEST_DIR"), "/src/ship/client/tests/stranger.pem");
    let table = [
        (Certificate::Expired, "has expired: renew it"),
        (Certificate::OtherName, "is not for the name localhost"),
        // Of another authority than the file has, which has the same name.
        (Certificate::Valid, "signed with another key than the issuer's"),
    ];
    side_by_side(table.into_iter().enumerate(), |(node, (certificate, words))| {
        let work = work_dir();
        let [data, password, ca] = ["data", "password", "ca.pem"].map(|name| work.path().join(name));
        fs::write(&password, PASSWORD).unwrap();
        let front = TlsFront::start(clickhouse, certificate);
        let trusted = if certificate == Certificate::Valid { &good } else { &front };
        fs::copy(&trusted.ca_file, &ca).unwrap();
        let [node_flag, password, ca_flag] =
            [format!("--node={node}"), flag("ship-password-file", &password), flag("ship-ca-file", &ca)];
        let flags = ["--ship-user=shipper", "--ship-database=web", &node_flag, &password, &ca_flag];
        let mut daemon = serve(&data, &front.url(), &flags);
        let code = daemon.register("ship.example");
        send(&daemon, &code, 0, 100);
        wait_until_paused(&daemon, &code, &[words]);
        if certificate == Certificate::Valid {
            fs::write(&ca, "nothing").unwrap();
            ship(&daemon, &["resume"]);
            wait_until_paused(&daemon, &code, &["ca.pem", "has no certificate"]);
            // One that has nothing to do with it.
            fs::copy(stranger, &ca).unwrap();
            ship(&daemon, &["resume"]);
            wait_until_paused(&daemon, &code, &["of an issuer that is not trusted"]);
            fs::copy(&front.ca_file, &ca).unwrap();
        } else {
            // The server gets a good one: here, of another front.
            daemon.stop();
            fs::copy(&good.ca_file, &ca).unwrap();
            daemon = serve(&data, &good.url(), &flags);
        }
        resume(&daemon, &[]);
        let table = format!("(SELECT * FROM web.events WHERE node = {node})");
        assert_eq!(shipped::differences(clickhouse, &table, &[(node as u32, &data)]), Vec::<String>::new());
        assert_no_password(&daemon);
        daemon.stop();
    });
}

#[test]
fn what_is_missing_or_of_another_type_is_mended_by_what_is_said() {
    let Some(clickhouse) = ClickHouse::start() else { return };
    let work = work_dir();
    let data = work.path().join("data");
    let daemon = serve(&data, &clickhouse.url(), &["--ship-database=web", "--ship-table=visits"]);
    let code = daemon.register("ship.example");
    send(&daemon, &code, 0, 100);
    // At the start.
    let reason = wait_until_paused(&daemon, &code, &["CREATE DATABASE web"]);
    clickhouse.query(statement(&reason));
    resume(&daemon, &[]);
    // While it ships: an insert finds it, or the next look at the table does.
    let mut sent = 100;
    for (change, words) in [
        ("DROP COLUMN os", "ADD COLUMN os"),
        ("MODIFY COLUMN location UInt16", "MODIFY COLUMN location"),
        ("MODIFY COLUMN flags String", "MODIFY COLUMN flags"),
        ("MODIFY SETTING non_replicated_deduplication_window = 9999", "MODIFY SETTING"),
    ] {
        // Neither the texts that are there nor those that come are numbers.
        clickhouse.query("TRUNCATE TABLE web.visits");
        clickhouse.query(&format!("ALTER TABLE web.visits {change}"));
        send(&daemon, &code, sent, 100);
        sent += 100;
        if words == "MODIFY SETTING" || words.ends_with("flags") {
            ship(&daemon, &["resume"]);
        }
        let reason = wait_until_paused(&daemon, &code, &[words]);
        assert_eq!(daemon.metrics()["hitlog_ship_dead_events"], 0.0);
        clickhouse.query(statement(&reason));
        resume(&daemon, &[]);
        let there = clickhouse.query("SELECT count(), uniqExact(seq) FROM web.visits");
        let (count, distinct) = there.split_once('\t').unwrap();
        assert!(count == distinct && count.parse::<usize>().unwrap() >= 100, "{change}: {there}");
    }
    daemon.stop();
}

/// A server that says to whoever asks that it is of a version.
fn fake_server(version: &'static str) -> (HeldPort, thread::JoinHandle<()>) {
    let port = HeldPort::take();
    let listener = port.listen();
    let answering = thread::spawn(move || {
        // Until the test's last word, which is no request.
        for client in listener.incoming().map_while(Result::ok) {
            let mut client = BufReader::new(client);
            let (mut line, mut length) = (String::new(), None);
            while client.read_line(&mut line).is_ok_and(|read| read > 2) {
                let told = line.to_ascii_lowercase().trim().strip_prefix("content-length:").map(str::to_owned);
                length = told.map(|length| length.trim().parse().unwrap()).or(length);
                line.clear();
            }
            let Some(length) = length else { return };
            client.read_exact(&mut vec![0; length]).unwrap();
            let body = format!("{version}\t\\N\n");
            let answer =
                format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            client.get_mut().write_all(answer.as_bytes()).unwrap();
        }
    });
    (port, answering)
}

#[test]
fn an_old_server_is_refused_with_words() {
    let (port, answering) = fake_server("18.16.1");
    let daemon = Daemon::start(&[&format!("--ship-url=http://{}", port.address())]);
    let code = daemon.register("ship.example");
    wait_until_paused(&daemon, &code, &["ClickHouse 18.16.1", "23.8 and later", "Take a newer one"]);
    daemon.stop();
    TcpStream::connect(port.address()).unwrap().write_all(b"\r\n").unwrap();
    answering.join().unwrap();
}
