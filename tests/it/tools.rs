//! The tools as a user runs them: beside a serving hitlog, without one, after a kill; on damage and on foreign
//! directories.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use rusqlite::Connection;
use serde_json::{Value, json};

use harness::{Client, Daemon, command, event_with, tool, wait_until, work_dir};

const ROWS_MAX: [&str; 2] = ["--segment-rows-max", "60"];
const BATCH: usize = 20;
const DAY_MS: i64 = 24 * 60 * 60 * 1_000;
const TIME: i64 = 1_769_630_400_000;

/// What a tool printed, which found that all is well.
fn fine(data: &Path, arguments: &[&str]) -> String {
    let ran = tool(data, arguments);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{arguments:?}: {}", ran.out);
    ran.out
}

fn events(data: &Path, arguments: &[&str]) -> Vec<Value> {
    let out = fine(data, &[&["export"], arguments].concat());
    out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn post(daemon: &Daemon, events: Vec<Value>) {
    let response = daemon.client().post("/api/v1/events/batch", json!({ "events": events }).to_string());
    assert_eq!(response.status, 201, "{}", response.text());
}

/// Everything that an event can carry.
fn varied(code: &str, number: usize) -> Value {
    let properties = [
        json!(null),
        json!({}),
        json!({"n": [0, -1, 1.5, -0.0, 1e300, 5e-324, u64::MAX, i64::MIN, 0.1], "deep": {"a": [{"b": null}]}}),
        json!({"text": "\u{0}\u{1f}\"\\\n grüße 🦀 \u{2028}", "": "", "=1+1": "=1+1"}),
    ];
    let kind = ["pageview", "click", "custom"][number % 3];
    let changes = json!({
        "eventType": kind,
        "url": format!("https://example.com/?q=\"{number}\",'grüße'"),
        "referrer": if number.is_multiple_of(2) { json!("https://a.example/,") } else { json!(null) },
        "sessionId": format!("=s{}", number / 4), "visitorId": format!("v{}", number / 8),
        "deviceType": if number.is_multiple_of(5) { json!("mobile") } else { json!(null) },
        "browser": if number.is_multiple_of(7) { json!("@\"Größe\", 🦀") } else { json!(null) },
        "timestamp": TIME + (number as i64 * 7_919 % 40) * DAY_MS / 4,
        "properties": properties[number % 4],
    });
    event_with(code, changes)
}

/// Sends as many batches of varied events to each website in turn.
fn fill(daemon: &Daemon, codes: &[String], batches: usize) {
    for batch in 0..batches {
        wait_until("the next segment is prepared", || (daemon.segments("prepared") == 1).then_some(()));
        let first = batch * BATCH;
        post(daemon, (first..first + BATCH).map(|number| varied(&codes[number % codes.len()], number)).collect());
    }
}

/// A stopped hitlog's directory: three websites, three sealed segments and a part of a fourth.
fn filled(data: &Path) -> Vec<String> {
    let daemon = Daemon::start_in(data, &ROWS_MAX);
    let codes: Vec<String> = ["a.example", "b.example", "c.example"].map(|domain| daemon.register(domain)).into();
    fill(&daemon, &codes, 10);
    daemon.wait_until_sealed();
    daemon.stop();
    codes
}

fn all_files(data: &Path) -> BTreeMap<PathBuf, u64> {
    let entries = [data.to_owned(), data.join("segments")].into_iter().flat_map(|folder| fs::read_dir(folder).unwrap());
    let entries = entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    entries.map(|path| (path.clone(), fs::metadata(&path).unwrap().len())).collect()
}

fn sealed(data: &Path, number: usize) -> PathBuf {
    data.join(format!("segments/{number:012}.g2.db"))
}

fn without_ids(mut events: Vec<Value>) -> Vec<Value> {
    for event in &mut events {
        assert!(event.as_object_mut().unwrap().remove("id").is_some());
    }
    events
}

#[test]
fn segments_and_stats_beside_a_daemon_after_a_stop_and_after_a_kill() {
    let work = work_dir();
    let data = work.path().join("data");
    let mut daemon = Daemon::start_in(&data, &ROWS_MAX);
    let codes = [daemon.register("a.example"), daemon.register("b.example")];
    fill(&daemon, &codes, 10);
    daemon.wait_until_sealed();
    let look = || {
        let table = fine(&data, &["segments"]);
        assert!(table.lines().all(|line| line.chars().count() <= 100), "{table}");
        assert_eq!(table.matches("sealed").count(), 3, "{table}");
        let listing: Value = serde_json::from_str(&fine(&data, &["segments", "--json"])).unwrap();
        let mut stats: Value = serde_json::from_str(&fine(&data, &["stats", "--json", "--days", "3"])).unwrap();
        let text = fine(&data, &["stats"]);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert_eq!(listing["total"]["events"], 200, "{listing:#}");
        assert_eq!(listing["total"]["first"], "2026-01-28T20:00:00.000Z");
        assert_eq!(listing["segments"][0]["state"], "sealed");
        assert_eq!(listing["segments"][3]["state"], "active");
        assert_eq!(listing["segments"][3]["events"], 20);
        assert_eq!(stats["events"], json!({"pageview": 67, "click": 67, "custom": 66, "total": 200}));
        assert_eq!((&stats["oldest"], &stats["websites"]), (&listing["total"]["first"], &json!(2)));
        assert_eq!(stats["newest"], listing["total"]["last"]);
        assert_eq!((stats["days"].as_array().unwrap().len(), &stats["daysWithEvents"]), (3, &json!(11)));
        assert_eq!(fine(&data, &["check"]).lines().last(), Some("5 segments, 200 events: nothing is wrong"));
        assert_eq!(events(&data, &[]).len(), 200);
        // What the write-ahead log takes comes and goes.
        assert!(stats.as_object_mut().unwrap().remove("segmentBytes").unwrap().as_u64() > Some(100_000));
        stats
    };
    let beside = look();
    daemon.crash();
    assert_eq!(look(), beside);
    let daemon = Daemon::start_in(&data, &ROWS_MAX);
    daemon.stop();
    let files = all_files(&data);
    assert_eq!(look(), beside);
    assert_eq!(all_files(&data), files, "tools leave nothing behind");
    // What was counted by day when it was sealed is the same when it is counted now.
    for number in 1..=3 {
        Connection::open(sealed(&data, number)).unwrap().execute_batch("DROP TABLE Daily").unwrap();
    }
    assert_eq!(look()["days"], beside["days"]);
    let of_one: Value = serde_json::from_str(&fine(&data, &["stats", "--json", "--website", "a.example"])).unwrap();
    assert_eq!((&of_one["events"]["total"], &of_one["websites"]), (&json!(100), &json!(1)));
    let sum = |of: &Value| of["days"].as_array().unwrap().iter().map(|day| day["total"].as_u64().unwrap()).sum::<u64>();
    assert_eq!(sum(&of_one), 100);
    assert_eq!(tool(&data, &["stats", "--website", "nobody"]).code, 2);
}

#[test]
fn check_finds_what_was_changed() {
    let work = work_dir();
    let data = work.path().join("data");
    filled(&data);
    assert!(fine(&data, &["check"]).ends_with("5 segments, 200 events: nothing is wrong\n"));
    fs::write(data.join("segments/notes.txt"), "").unwrap();
    assert!(fine(&data, &["check"]).contains("notes.txt: not one of the catalog's files"));
    let (file, good) = (sealed(&data, 2), work.path().join("good"));
    fs::copy(&file, &good).unwrap();
    for (sql, wanted) in [
        ("UPDATE Summary SET count = count + 1 WHERE eventType = 'click'", "its counts do not add up"),
        ("UPDATE Summary SET lastCreatedAt = 0 WHERE eventType = 'click'", "lastCreatedAt of (web-"),
        ("UPDATE Summary SET fencePosts = zeroblob(16) WHERE eventType = 'click'", "fencePosts of (web-"),
        ("DELETE FROM Summary WHERE eventType = 'custom'", "its counts do not add up"),
        ("UPDATE Daily SET count = 7 WHERE day = (SELECT min(day) FROM Daily)", "table Daily: count of (web-"),
        ("UPDATE Whole SET firstSequence = 1", "table Whole: firstSequence of (1)"),
        ("UPDATE Whole SET filter = zeroblob(length(filter))", "its filter is not what was written"),
        ("DELETE FROM Event WHERE id = 70", "count of (web-"),
        ("UPDATE Event SET id = 1 WHERE id = 61", "it begins with event 1, but one before it ends with 60"),
        ("PRAGMA user_version = 99", "start the newer hitlog"),
    ] {
        Connection::open(&file).unwrap().execute_batch(sql).unwrap();
        let ran = tool(&data, &["check"]);
        assert!(ran.code == 1 && ran.out.contains(wanted), "{sql}: {}{}", ran.out, ran.err);
        assert!(ran.out.contains("000000000002.g2.db: ") && ran.out.contains("from a backup"), "{sql}: {}", ran.out);
        fs::copy(&good, &file).unwrap();
    }
    assert_eq!(tool(&data, &["check"]).code, 0);
    // A page of an index, one of the rows, the head, and the whole file.
    for (from, bytes, wanted) in [(3 * 16_384, 4_096, ""), (16_384, 16_384, ""), (0, 100, "not a database")] {
        overwrite(&file, from, bytes);
        let ran = tool(&data, &["check"]);
        assert!(ran.code == 1 && ran.out.contains(wanted), "{from}: {}{}", ran.out, ran.err);
        assert!(ran.out.contains("000000000002.g2.db: "), "{from}: {}", ran.out);
        fs::copy(&good, &file).unwrap();
    }
    fs::remove_file(&file).unwrap();
    let ran = tool(&data, &["check"]);
    assert!(ran.code == 1 && ran.out.contains("it is listed and not there"), "{}", ran.out);
    assert!(fine(&data, &["segments"]).contains("missing"));
    assert!(tool(&data, &["export"]).err.contains("restore the file from a backup"));
}

/// What is not as it was sealed is in no export and no backup without a word.
#[test]
fn exports_and_backups_of_what_was_changed() {
    let work = work_dir();
    let data = work.path().join("data");
    filled(&data);
    let (file, good) = (sealed(&data, 2), work.path().join("good"));
    fs::copy(&file, &good).unwrap();
    let mut backups = 0;
    let mut look = |what: &str, is_in_summary: bool| {
        let export = tool(&data, &["export"]);
        assert!(export.code == 1 && export.err.contains("000000000002.g2.db"), "{what}: {}", export.err);
        if is_in_summary {
            let listed = fine(&data, &["segments"]);
            assert!(listed.contains("damaged: it"), "{what}: {listed}");
            backups += 1;
            let to = work.path().join(format!("backup-{backups}"));
            let backup = tool(&data, &["backup", to.to_str().unwrap()]);
            assert!(backup.code == 1 && backup.out.contains("damaged, and so in the backup"), "{what}: {}", backup.out);
            let daemon = Daemon::start_in(&to, &[]);
            assert_eq!(daemon.segments("damaged"), 1, "{what}");
            daemon.stop();
        }
        fs::remove_file(&file).unwrap();
        fs::copy(&good, &file).unwrap();
    };
    for (sql, is_in_summary) in [
        ("UPDATE Summary SET count = count + 1 WHERE eventType = 'click'", true),
        ("UPDATE Summary SET lastCreatedAt = 0 WHERE eventType = 'click'", true),
        ("UPDATE Whole SET firstSequence = 1", true),
        ("UPDATE Identity SET number = 3", true),
        ("DELETE FROM Event WHERE id = 70", false),
    ] {
        Connection::open(&file).unwrap().execute_batch(sql).unwrap();
        look(sql, is_in_summary);
    }
    fs::copy(sealed(&data, 3), &file).unwrap();
    look("another segment", true);
    // The rows' first page.
    overwrite(&file, 16_384, 16_384);
    look("overwritten", false);
    fine(&data, &["export"]);
    let to = work.path().join("sound");
    fine(&data, &["backup", to.to_str().unwrap()]);
    let copy = Connection::open(to.join("catalog.db")).unwrap();
    let count = |sql: &str| copy.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(count("SELECT count(digest) FROM Segment"), 3, "what was noted goes with the copy");
    assert_eq!(count("SELECT count(*) FROM Leftover"), 0);
}

fn overwrite(file: &Path, from: u64, bytes: usize) {
    let mut file = OpenOptions::new().write(true).open(file).unwrap();
    file.seek(SeekFrom::Start(from)).unwrap();
    file.write_all(&vec![0xa5; bytes]).unwrap();
}

#[test]
fn exported_imported_and_exported_again_is_equal_but_for_ids() {
    let work = work_dir();
    let (data, copy) = (work.path().join("data"), work.path().join("copy"));
    let codes = filled(&data);
    let first = events(&data, &[]);
    assert_eq!(first.len(), 200);
    assert_eq!(first[3]["properties"]["text"], "\u{0}\u{1f}\"\\\n grüße 🦀 \u{2028}");
    assert_eq!(first[0]["trackingCode"], codes[0]);
    let file = work.path().join("events.ndjson");
    let lines = fine(&data, &["export"]);
    fs::write(&file, &lines).unwrap();
    let out = fine(&copy, &["import", file.to_str().unwrap(), "--segment-rows-max", "60"]);
    assert_eq!(out, "200 events imported, and 3 websites registered\n");
    let (again, text) = (events(&copy, &[]), fine(&copy, &["export"]));
    let ids = |events: &[Value]| events.iter().map(|event| event["id"].clone()).collect::<Vec<_>>();
    assert_ne!(ids(&first)[0], ids(&again)[0]);
    assert_eq!(without_ids(again), without_ids(first));
    // As bytes, too: numbers are not written another way.
    let rest = |text: &str| text.lines().map(|line| line.split_once(',').unwrap().1.to_owned()).collect::<Vec<_>>();
    assert_eq!(rest(&text), rest(&lines));
    // A daemon serves it, and the ids of the export lead to their events.
    let daemon = Daemon::start_in(&copy, &ROWS_MAX);
    daemon.wait_until_sealed();
    let mut event = events(&copy, &["--website", "b.example"]).swap_remove(7);
    let response = daemon.client().get(&format!("/api/v1/events/{}", event["id"].as_str().unwrap())).json();
    for member in ["trackingCode", "domain"] {
        event.as_object_mut().unwrap().remove(member);
    }
    assert_eq!(response, event);
    let page = daemon.client().get(&format!("/api/v1/events?trackingCode={}&limit=1", codes[2])).json();
    assert_eq!(page["pagination"]["total"], 66);
    daemon.stop();
    assert_eq!(tool(&copy, &["check"]).code, 0);
}

#[test]
fn csv_has_the_same_cells() {
    let work = work_dir();
    let data = work.path().join("data");
    filled(&data);
    let (lines, csv) = (events(&data, &[]), fine(&data, &["export", "--format", "csv"]));
    let rows = parse_csv(&csv);
    let members = "id,websiteId,eventType,url,referrer,sessionId,visitorId,deviceType,browser,os,location,properties,\
                   createdAt,trackingCode,domain";
    assert_eq!(rows[0].join(","), members);
    assert_eq!(rows.len(), 201);
    for (row, line) in rows[1..].iter().zip(&lines) {
        for (cell, member) in row.iter().zip(&rows[0]) {
            let value = match &line[member] {
                Value::Null => String::new(),
                Value::String(text) if text.starts_with(['=', '@']) => format!("'{text}"),
                Value::String(text) => text.clone(),
                properties => {
                    assert_eq!(&serde_json::from_str::<Value>(cell).unwrap(), properties);
                    continue;
                }
            };
            assert_eq!(*cell, value, "{member}");
        }
    }
}

/// RFC 4180.
fn parse_csv(text: &str) -> Vec<Vec<String>> {
    let (mut rows, mut row, mut cell, mut quoted) = (Vec::new(), Vec::new(), String::new(), false);
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match (letter, quoted) {
            ('"', true) if letters.peek() == Some(&'"') => cell.extend(letters.next()),
            ('"', _) => quoted = !quoted,
            (',', false) => row.push(std::mem::take(&mut cell)),
            ('\n', false) => {
                row.push(std::mem::take(&mut cell));
                rows.push(std::mem::take(&mut row));
            }
            (letter, _) => cell.push(letter),
        }
    }
    assert!(cell.is_empty() && row.is_empty() && !quoted);
    rows
}

#[test]
fn export_shows_what_was_asked_for_and_what_an_answer_would_show() {
    let work = work_dir();
    let data = work.path().join("data");
    let codes = filled(&data);
    let all = events(&data, &[]);
    let id = all[1]["websiteId"].as_str().unwrap().to_owned();
    let time = |event: &Value| event["createdAt"].as_str().unwrap().to_owned();
    let (from, to) = ("2026-01-30T00:00:00Z", "2026-02-02T01:00:00+01:00");
    for (arguments, wanted) in [
        (vec!["--website", &id], "websiteId"),
        (vec!["--website", &codes[1]], "websiteId"),
        (vec!["--website", "B.example"], "websiteId"),
        (vec!["--type", "custom"], "custom"),
        (vec!["--from", from, "--to", to], "time"),
        (vec!["--from", from, "--to", to, "--type", "click", "--website", &id], "all"),
        (vec!["--from", "9999-01-01T00:00:00Z"], "none"),
    ] {
        let is_wanted = |event: &&Value| {
            let of_site = event["websiteId"] == *id;
            let of_type = event["eventType"] == "custom";
            let of_time = time(event).as_str() >= "2026-01-30" && time(event).as_str() < "2026-02-02";
            match wanted {
                "websiteId" => of_site,
                "custom" => of_type,
                "time" => of_time,
                "all" => of_site && of_time && event["eventType"] == "click",
                _ => false,
            }
        };
        let expected: Vec<_> = all.iter().filter(is_wanted).cloned().collect();
        assert!(wanted == "none" || !expected.is_empty());
        assert_eq!(events(&data, &arguments), expected, "{arguments:?}");
    }
    for arguments in [["--type", "hover"], ["--from", "yesterday"], ["--to", "2026-01-28"], ["--website", "nobody"]] {
        let ran = tool(&data, &[&["export"][..], &arguments].concat());
        assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{}", ran.err);
        assert!(ran.err.contains(arguments[1]), "{}", ran.err);
    }
    // A visitor whose erasure has not reached every segment, and a website that was deleted.
    let visitor = all[9]["visitorId"].as_str().unwrap();
    let catalog = Connection::open(data.join("catalog.db")).unwrap();
    catalog
        .execute(
            "INSERT INTO Erasure VALUES('era-1', ?1, ?2, 10, 0, NULL, 0, 0)",
            [all[9]["websiteId"].as_str().unwrap(), visitor],
        )
        .unwrap();
    drop(catalog);
    let is_kept = |(at, event): &(usize, &Value)| {
        !(event["websiteId"] == all[9]["websiteId"] && event["visitorId"] == visitor && *at < 10)
    };
    let mut expected: Vec<_> = all.iter().enumerate().filter(is_kept).map(|(_, event)| event.clone()).collect();
    assert_eq!(expected.len(), 199);
    assert_eq!(events(&data, &[]), expected);
    let daemon = Daemon::start_in(&data, &ROWS_MAX);
    assert_eq!(daemon.client().send("DELETE", &format!("/api/v1/websites/{id}"), &[], b"").status, 200);
    expected.retain(|event| event["websiteId"] != *id);
    assert_eq!(expected.len(), 199 - 67);
    assert_eq!(events(&data, &[]), expected);
    wait_until("all is erased", || (daemon.metrics()["hitlog_erasures_pending"] == 0.0).then_some(()));
    assert_eq!(events(&data, &[]), expected);
    let stats: Value = serde_json::from_str(&fine(&data, &["stats", "--json"])).unwrap();
    assert_eq!((&stats["websites"], &stats["events"]["total"]), (&json!(2), &json!(132)));
    daemon.stop();
}

#[test]
fn a_pipe_that_closes_is_a_quiet_end() {
    let work = work_dir();
    let data = work.path().join("data");
    let daemon = Daemon::start_in(&data, &[]);
    let code = daemon.register("a.example");
    for batch in 0..20 {
        post(&daemon, (0..500).map(|number| varied(&code, batch * 500 + number)).collect());
    }
    let mut export = command(&["export", "--data-dir", data.to_str().unwrap()]).stdout(Stdio::piped()).spawn().unwrap();
    let mut some = [0; 100];
    export.stdout.take().unwrap().read_exact(&mut some).unwrap();
    let output = export.wait_with_output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
    daemon.stop();
}

#[test]
fn import_refuses_what_it_cannot_do() {
    let work = work_dir();
    let (data, new) = (work.path().join("data"), work.path().join("new"));
    filled(&data);
    let lines = fine(&data, &["export"]);
    let file = work.path().join("events.ndjson");
    let import = |data: &Path, lines: &str, arguments: &[&str]| {
        fs::write(&file, lines).unwrap();
        tool(data, &[&["import", file.to_str().unwrap()], arguments].concat())
    };
    let good = lines.lines().next().unwrap();
    let with = |from: &str, to: &str| {
        assert!(good.contains(from), "{good}");
        format!("{good}\n\n{}\n", good.replacen(from, to, 1))
    };
    for (lines, wanted) in [
        (format!("{good}\n{{\"a\":\n"), "line 2: not a line of an export"),
        (format!("{good}\n[]\n"), "line 2: not a line of an export"),
        (with("\"eventType\":\"pageview\"", "\"eventType\":\"hover\""), "line 3: eventType"),
        (with("\"sessionId\":\"=s0\"", "\"sessionId\":null"), "line 3: sessionId"),
        (with("\"createdAt\":\"2026", "\"createdAt\":\"year 2026"), "line 3: createdAt"),
        (with("\"createdAt\":\"2026", "\"createdAt\":\"1926"), "line 3: createdAt"),
        (with("\"properties\":null", "\"properties\":{\"n\":1e999}"), "line 3: "),
        (
            with("\"properties\":null", &format!("\"properties\":{{\"n\":{}{}}}", "[".repeat(50), "]".repeat(50))),
            "line 3: ",
        ),
        (with("\"domain\":\"a.example\"", "\"domain\":\"no host\""), ""),
        (with("\"websiteId\":\"web-", "\"websiteId\":7,\"x\":\"web-"), "line 3: websiteId"),
        (format!("{good}\n{}\n", "x".repeat(2 << 20)), "line 2: longer than"),
    ] {
        let ran = import(&new, &lines, &[]);
        if wanted.is_empty() {
            // The website is known from the line before.
            assert_eq!(
                (ran.code, ran.out.as_str()),
                (0, "2 events imported, and 1 website registered\n"),
                "{}",
                ran.err
            );
            fs::remove_dir_all(&new).unwrap();
            continue;
        }
        assert!(ran.code == 1 && ran.err.contains(wanted), "{wanted}: {}{}", ran.out, ran.err);
        assert!(!new.exists(), "nothing is made for lines that are not good");
        let before = events(&data, &[]);
        assert_eq!(import(&data, &lines, &[]).code, 1);
        assert_eq!(events(&data, &[]), before);
    }
    // A domain that another website has.
    let other = lines
        .replace("\"websiteId\":\"web-", "\"websiteId\":\"web-x")
        .replace("\"trackingCode\":\"pm-", "\"trackingCode\":\"pm-x");
    let ran = import(&data, &other, &[]);
    assert!(ran.code == 1 && ran.err.contains("domain a.example belongs to the website web-"), "{}", ran.err);
    let ran = import(&data, &other, &["--website", "b.example", "--skip", "150"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "50 events imported\n"), "{}", ran.err);
    assert_eq!(events(&data, &["--website", "b.example"]).len(), 67 + 50);
    assert_eq!(import(&data, &other, &["--website", "nobody"]).code, 2);
    let daemon = Daemon::start_in(&data, &ROWS_MAX);
    let ran = import(&data, &lines, &[]);
    assert!(ran.code == 1 && ran.err.contains("is in use by another hitlog"), "{}", ran.err);
    // A website that was deleted here, and whose events are still being erased.
    let id = serde_json::from_str::<Value>(good).unwrap()["websiteId"].as_str().unwrap().to_owned();
    daemon.stop();
    let catalog = Connection::open(data.join("catalog.db")).unwrap();
    catalog.execute("DELETE FROM Website WHERE id = ?1", [&id]).unwrap();
    let erasure = "INSERT INTO Erasure VALUES('era-1', ?1, NULL, NULL, 0, NULL, 0, 0)";
    catalog.execute(erasure, [&id]).unwrap();
    drop(catalog);
    let ran = import(&data, &lines, &[]);
    assert!(ran.code == 1 && ran.err.contains("are being erased"), "{}", ran.err);
}

#[test]
fn an_import_that_is_interrupted_says_how_to_go_on() {
    const COPIES: usize = 1_000;
    let work = work_dir();
    let (data, new) = (work.path().join("data"), work.path().join("new"));
    filled(&data);
    let file = work.path().join("events.ndjson");
    fs::write(&file, fine(&data, &["export"]).repeat(COPIES)).unwrap();
    let arguments = ["import", file.to_str().unwrap(), "--data-dir", new.to_str().unwrap()];
    let import = command(&arguments).spawn().unwrap();
    let wal = new.join("segments/000000000001.db-wal");
    wait_until("some groups are stored", || fs::metadata(&wal).is_ok_and(|file| file.len() > 1_000_000).then_some(()));
    assert!(std::process::Command::new("kill").args(["-INT", &import.id().to_string()]).status().unwrap().success());
    let output = import.wait_with_output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    let skip = error.split("--skip ").nth(1).unwrap().split(' ').next().unwrap();
    let stored: usize = skip.parse().unwrap();
    assert!(stored > 0 && stored < COPIES * 200, "{error}");
    assert_eq!(fine(&new, &["export"]).lines().count(), stored);
    fine(&new, &["import", file.to_str().unwrap(), "--skip", skip]);
    assert_eq!(fine(&new, &["export"]).lines().count(), COPIES * 200);
}

#[test]
fn foreign_directories_are_left_alone() {
    let work = work_dir();
    fs::write(work.path().join("holiday.jpg"), "x").unwrap();
    let missing = work.path().join("missing");
    for tool_name in [&["segments"][..], &["check"], &["backup", "to"], &["export"], &["stats"]] {
        for (data, wanted) in [(work.path(), "has no catalog.db of hitlog's"), (&missing, "there is no data directory")]
        {
            let ran = tool(data, tool_name);
            assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{tool_name:?}");
            assert!(ran.err.contains(wanted) && ran.err.contains("--data-dir"), "{}", ran.err);
        }
    }
    assert!(!missing.exists() && !work.path().join("to").exists());
    assert_eq!(fs::read_dir(work.path()).unwrap().count(), 1);
}

/// Batches whose events carry their number, sent until told to stop, and the numbers that were acknowledged.
struct Load {
    stop: AtomicBool,
    acknowledged: Mutex<Vec<usize>>,
}

/// Ends the load also when an assertion beside it fails, which would wait for it otherwise.
struct StopLoad<'a>(&'a Load);

impl Drop for StopLoad<'_> {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Relaxed);
    }
}

impl Load {
    fn run(&self, daemon: &Daemon, code: &str, first: usize) {
        let mut client = daemon.client();
        for batch in first.. {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            let session = format!("batch-{batch}");
            let event = |at: usize| event_with(code, json!({"sessionId": session, "visitorId": format!("v{at}")}));
            let events: Vec<_> = (0..BATCH).map(event).collect();
            let response = client.post("/api/v1/events/batch", json!({ "events": events }).to_string());
            assert_eq!(response.status, 201, "{}", response.text());
            self.acknowledged.lock().unwrap().push(batch);
        }
    }

    fn acknowledged(&self) -> Vec<usize> {
        self.acknowledged.lock().unwrap().clone()
    }
}

/// Every batch is there once and whole, and of those that were acknowledged none is missing.
fn check_batches(events: &[Value], acknowledged: &[usize]) {
    let mut batches: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for event in events {
        let text = |name: &str| event[name].as_str().unwrap();
        batches.entry(text("sessionId")).or_default().push(text("visitorId"));
    }
    for (batch, visitors) in &mut batches {
        visitors.sort_unstable();
        visitors.dedup();
        assert_eq!(visitors.len(), BATCH, "{batch} is torn");
    }
    assert_eq!(events.len(), batches.len() * BATCH, "an event is there twice");
    for number in acknowledged {
        assert!(batches.contains_key(format!("batch-{number}").as_str()), "batch {number} is lost");
    }
}

#[test]
fn a_backup_beside_a_busy_daemon_is_a_place_in_its_log() {
    let daemon = Daemon::start(&["--segment-rows-max", "400", "--log-level", "warn"]);
    let code = daemon.register("a.example");
    let load = Load { stop: AtomicBool::new(false), acknowledged: Mutex::default() };
    let backups = work_dir();
    thread::scope(|scope| {
        scope.spawn(|| load.run(&daemon, &code, 0));
        let _stop = StopLoad(&load);
        for round in 0..8 {
            wait_until("some segments more", || {
                (daemon.metrics()["hitlog_segment_rolls_total"] > f64::from(round * 3)).then_some(())
            });
            let before = load.acknowledged();
            let to = backups.path().join(round.to_string());
            fine(daemon.data(), &["backup", to.to_str().unwrap()]);
            let exported = events(daemon.data(), &[]);
            check_batches(&exported, &before);
            // The tools read a backup like any data directory, and the order of arrival is the same.
            let copied = events(&to, &[]);
            check_batches(&copied, &before);
            assert_eq!(copied[..], exported[..copied.len()], "the backup is the beginning of what came later");
            assert_eq!(tool(&to, &["check"]).code, 0);
            assert!(fine(daemon.data(), &["check"]).contains("nothing is wrong"));
        }
    });
    for round in [0, 7] {
        let to = backups.path().join(round.to_string());
        let copied = events(&to, &[]);
        let restored = Daemon::start_in(&to, &["--segment-rows-max", "400"]);
        let page = restored.client().get(&format!("/api/v1/events?trackingCode={code}&limit=1")).json();
        assert_eq!(page["pagination"]["total"], copied.len());
        for event in copied.iter().step_by(97) {
            let path = format!("/api/v1/events/{}", event["id"].as_str().unwrap());
            let (of_backup, of_original) = (restored.client().get(&path), daemon.client().get(&path));
            assert_eq!((of_backup.status, of_backup.json()), (200, of_original.json()));
        }
        let more = Load { stop: AtomicBool::new(false), acknowledged: Mutex::default() };
        thread::scope(|scope| {
            scope.spawn(|| more.run(&restored, &code, 1_000_000));
            let _stop = StopLoad(&more);
            wait_until("it takes events", || (more.acknowledged().len() > 50).then_some(()));
        });
        restored.wait_until_sealed();
        check_batches(&events(&to, &[]), &more.acknowledged());
        restored.stop();
    }
    daemon.stop();
}

#[test]
fn a_backup_of_a_stopped_and_of_a_killed_hitlog() {
    let work = work_dir();
    let data = work.path().join("data");
    filled(&data);
    let daemon_events = events(&data, &[]);
    let backup = |name: &str| {
        let to = work.path().join(name);
        let out = fine(&data, &["backup", to.to_str().unwrap()]);
        assert!(out.starts_with("3 segments linked"), "{out}");
        assert_eq!(fs::read_dir(to.join("segments")).unwrap().count(), 5);
        assert_eq!(tool(&to, &["check"]).code, 0);
        to
    };
    let files = all_files(&data);
    let stopped = backup("stopped");
    let mut left = all_files(&data);
    assert!(left.remove(&data.join("last-backup")).is_some(), "a backup leaves its mark behind");
    assert_eq!(left, files, "and nothing else");
    assert_eq!(events(&stopped, &[]), daemon_events);
    let mut daemon = Daemon::start_in(&data, &ROWS_MAX);
    let code = daemon.register("d.example");
    post(&daemon, (0..BATCH).map(|number| varied(&code, number)).collect());
    daemon.crash();
    let killed = backup("killed");
    assert_eq!(events(&killed, &[]).len(), 220);
    let restored = Daemon::start_in(&killed, &ROWS_MAX);
    let page = restored.client().get(&format!("/api/v1/events?trackingCode={code}&limit=1")).json();
    assert_eq!(page["pagination"]["total"], 20);
    restored.stop();
    // Not into anything that is there, and nothing that is missing is passed over in silence.
    let ran = tool(&data, &["backup", killed.to_str().unwrap()]);
    assert!(ran.code == 1 && ran.err.contains("is not empty"), "{}", ran.err);
    fs::remove_file(sealed(&data, 1)).unwrap();
    let ran = tool(&data, &["backup", work.path().join("part").to_str().unwrap()]);
    assert!(ran.code == 1 && ran.out.contains("000000000001.g2.db: listed and not there"), "{}{}", ran.out, ran.err);
    // What an interrupted backup leaves is no data directory.
    let part = work.path().join("part");
    fs::rename(part.join("catalog.db"), part.join("catalog.db.unfinished")).unwrap();
    let output = command(&["serve", "--data-dir", part.to_str().unwrap()]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("is not empty and has no catalog.db"));
}

#[test]
fn a_start_waits_for_a_program_that_reads() {
    let work = work_dir();
    let data = work.path().join("data");
    let mut daemon = Daemon::start_in(&data, &[]);
    let code = daemon.register("a.example");
    post(&daemon, (0..BATCH).map(|number| varied(&code, number)).collect());
    daemon.crash();
    let reader = Connection::open(data.join("segments/000000000001.db")).unwrap();
    let count = || reader.query_row("SELECT count(*) FROM Event", [], |row| row.get::<_, i64>(0)).unwrap();
    reader.execute_batch("BEGIN").unwrap();
    assert_eq!(count(), 20);
    let mut daemon = None;
    thread::scope(|scope| {
        let start = scope.spawn(|| Daemon::start_in(&data, &[]));
        // Longer than SQLite itself waits.
        thread::sleep(Duration::from_secs(6));
        assert!(!start.is_finished());
        reader.execute_batch("COMMIT").unwrap();
        daemon = Some(start.join().unwrap());
    });
    let daemon = daemon.unwrap();
    daemon.wait_for_log("waiting for another program");
    assert!(Client::try_connect(&daemon.address).is_some());
    daemon.stop();
}

#[test]
fn domains_of_an_older_hitlog_come_through_export_and_import() {
    let work = work_dir();
    let (data, copy, file) = (work.path().join("data"), work.path().join("copy"), work.path().join("lines"));
    let odd = ["a..b", "a.example.", "*", "a\"b.de", "m%c3%bcnchen.test", "0.0.48.57", &"x".repeat(60_000)];
    let daemon = Daemon::start_in(&data, &[]);
    let plain: Vec<String> = (0..odd.len()).map(|number| format!("site-{number}.example")).collect();
    let mut codes: Vec<String> = plain.iter().map(|domain| daemon.register(domain)).collect();
    codes.extend(["a.example", "localhost:3000", "localhost:8080"].map(|domain| daemon.register(domain)));
    daemon.stop();
    let catalog = Connection::open(data.join("catalog.db")).unwrap();
    for (domain, plain) in odd.iter().zip(&plain) {
        assert_eq!(catalog.execute("UPDATE Website SET domain = ?1 WHERE domain = ?2", [*domain, plain]).unwrap(), 1);
    }
    drop(catalog);
    // They stay as they are, in every respect.
    let daemon = Daemon::start_in(&data, &[]);
    post(&daemon, codes.iter().map(|code| event_with(code, json!({"timestamp": TIME}))).collect());
    let mut client = daemon.client();
    let websites = client.get("/api/v1/websites").json();
    let website = websites["websites"].as_array().unwrap().iter().find(|website| website["domain"] == "a..b").unwrap();
    let path = format!("/api/v1/websites/{}", website["id"].as_str().unwrap());
    let renamed = client.put(&path, json!({"name": "Renamed", "domain": "a..b"}).to_string());
    assert_eq!((renamed.status, &renamed.json()["domain"]), (200, &json!("a..b")), "{}", renamed.text());
    assert_eq!(client.put(&path, r#"{"domain": "b..a"}"#).status, 400);
    daemon.stop();

    let lines = fine(&data, &["export"]);
    fs::write(&file, &lines).unwrap();
    let ran = tool(&copy, &["import", file.to_str().unwrap()]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "10 events imported, and 10 websites registered\n"), "{}", ran.err);
    let of = |data: &Path| -> Vec<Value> {
        events(data, &[]).into_iter().map(|event| json!([event["websiteId"], event["domain"]])).collect()
    };
    assert_eq!(of(&copy), of(&data), "each website with its own domain");
    // By the domain as it is stored, and by any way to write it.
    for (website, domain) in [
        ("a..b", "a..b"),
        ("a.example.", "a.example."),
        ("a.example", "a.example"),
        ("HTTPS://A.example/x", "a.example"),
        ("localhost:8080", "localhost:8080"),
        ("http://localhost:3000/", "localhost:3000"),
    ] {
        let found = events(&copy, &["--website", website]);
        assert_eq!(found.iter().map(|event| &event["domain"]).collect::<Vec<_>>(), [domain], "{website}");
    }
}

#[test]
fn addresses_that_an_older_hitlog_took_come_through_an_import() {
    let work = work_dir();
    let (data, copy, file) = (work.path().join("data"), work.path().join("copy"), work.path().join("lines"));
    let daemon = Daemon::start_in(&data, &[]);
    let code = daemon.register("a.example");
    let referred = json!({"timestamp": TIME, "url": "https://a.example/", "referrer": "https://b.example/"});
    post(&daemon, vec![event_with(&code, referred)]);
    assert_eq!(
        daemon.client().post("/api/v1/events", event_with(&code, json!({"url": "app:page"})).to_string()).status,
        400
    );
    daemon.stop();
    let lines =
        fine(&data, &["export"]).replace("https://a.example/", "app:page").replace("https://b.example/", "app:start");
    fs::write(&file, lines).unwrap();
    let ran = tool(&copy, &["import", file.to_str().unwrap()]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let imported = events(&copy, &[]);
    assert_eq!((&imported[0]["url"], &imported[0]["referrer"]), (&json!("app:page"), &json!("app:start")));
}
