//! Start and stop: arguments, exit codes, the lock, the ready line, signals, metrics.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use harness::{Daemon, Tampering, command, event_with, tool, wait_until, work_dir};
use serde_json::json;

struct Run {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

fn run(arguments: &[&str]) -> Run {
    run_command(&mut command(arguments))
}

fn run_command(command: &mut Command) -> Run {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Run { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
}

#[test]
fn the_command_line_helps() {
    for (arguments, code, words) in [
        (&["--version"][..], 0, "hitlog 0."),
        (&["--help"], 0, "serve"),
        (&["serve", "--help"], 0, "HITLOG_QUEUE_EVENTS_MAX"),
        (&[], 2, "Usage"),
        (&["fly"], 2, "fly"),
        (&["serve", "--fast"], 2, "--fast"),
        (&["config", "check"], 0, "good"),
        (&["config", "show", "--readers", "2"], 0, "readers = 2 # flag"),
    ] {
        let run = run(arguments);
        assert_eq!(run.code, Some(code), "{arguments:?}: {}", run.stderr);
        assert!(
            format!("{}{}", run.stdout, run.stderr).contains(words),
            "{arguments:?}: {} {}",
            run.stdout,
            run.stderr
        );
    }
}

#[test]
fn a_bad_setting_is_told_before_anything_is_touched() {
    let work = work_dir();
    let data = work.path().join("data");
    let file = work.path().join("bad.toml");
    fs::write(&file, "reader = 1\n").unwrap();
    let data_flag = format!("--data-dir={}", data.display());
    let file_flag = format!("--config={}", file.display());
    for (arguments, words) in [
        (&["--listen=0.0.0.0:0"][..], "Set a token"),
        (&["--listen=3000"], "listen"),
        (&["--readers=0", "--durability=none"], "durability"),
        (&[file_flag.as_str()], "no such setting"),
        (&["--config=/nonexistent"], "cannot be read"),
        (&["--token=short"], "16 bytes"),
        (&["--token="], "token = (hidden) (flag): the value is empty"),
        (&["--durability="], "is empty"),
        (&["--config="], "is empty"),
    ] {
        let arguments = [&["serve", &data_flag], arguments].concat();
        let run = run(&arguments);
        assert_eq!(run.code, Some(2), "{arguments:?}: {}", run.stderr);
        assert!(run.stderr.contains(words), "{arguments:?}: {}", run.stderr);
        assert_eq!(run.stdout, "");
        assert!(!data.exists(), "{arguments:?}");
    }
}

#[test]
fn the_environment_and_the_file_are_read() {
    let work = work_dir();
    let file = work.path().join("hitlog.toml");
    fs::write(&file, "readers = 3\nqueue_bytes_max = \"32MiB\"\n").unwrap();
    let mut show = command(&["config", "show"]);
    show.env("HITLOG_CONFIG", &file).env("HITLOG_READERS", "5");
    let run = run_command(&mut show);
    assert!(run.stdout.contains("readers = 5 # environment"), "{}", run.stdout);
    assert!(run.stdout.contains("queue_bytes_max = \"32MiB\" # file"), "{}", run.stdout);
    let data = work.path().join("data");
    let mut serve = command(&["serve", "--listen=127.0.0.1:0", "--data-dir", data.to_str().unwrap()]);
    let daemon = Daemon::spawn(serve.env("HITLOG_TYPO", "1"), &data);
    assert!(daemon.log().contains("HITLOG_TYPO"), "an unknown variable is warned of: {}", daemon.log());
    daemon.stop();
}

#[test]
fn a_data_directory_has_one_daemon() {
    let mut first = Daemon::start(&[]);
    let data = first.data().to_str().unwrap().to_owned();
    let second = run(&["serve", "--listen=127.0.0.1:0", "--data-dir", &data]);
    assert_eq!((second.code, second.stdout.as_str()), (Some(1), ""));
    assert!(second.stderr.contains("in use by another hitlog"), "{}", second.stderr);
    assert_eq!(first.client().get("/readyz").status, 200);
    first.crash();
    Daemon::start_in(first.data(), &[]).stop();
}

#[test]
fn a_directory_that_cannot_be_used_is_told_and_left_alone() {
    let work = work_dir();
    let foreign = work.path().join("foreign");
    fs::create_dir(&foreign).unwrap();
    fs::write(foreign.join("holiday.jpg"), "x").unwrap();
    let damaged = work.path().join("damaged");
    fs::create_dir(&damaged).unwrap();
    fs::write(damaged.join("catalog.db"), "no database".repeat(100)).unwrap();
    let newer = work.path().join("newer");
    Daemon::start_in(&newer, &[]).stop();
    rusqlite::Connection::open(newer.join("segments/000000000001.db"))
        .unwrap()
        .pragma_update(None, "user_version", 99)
        .unwrap();
    // The catalog is lost, or the segment is: what is left must not be touched.
    let lost = |name: &str, file: &str| {
        let path = work.path().join(name);
        let daemon = Daemon::start_in(&path, &[]);
        let code = daemon.register("example.com");
        assert_eq!(daemon.client().post("/api/v1/events", harness::traffic::event(&code, 1)).status, 201);
        daemon.stop();
        fs::remove_file(path.join(file)).unwrap();
        path
    };
    let no_catalog = lost("no-catalog", "catalog.db");
    let no_segment = lost("no-segment", "segments/000000000001.db");
    let emptied = lost("emptied", "segments/000000000001.db");
    fs::write(emptied.join("segments/000000000001.db"), "").unwrap();
    // What a copy leaves for which there was no room.
    let empty_catalog = lost("empty-catalog", "catalog.db");
    fs::write(empty_catalog.join("catalog.db"), "").unwrap();
    let empty_with_log = work.path().join("empty-with-log");
    fs::create_dir(&empty_with_log).unwrap();
    fs::write(empty_with_log.join("catalog.db"), "").unwrap();
    fs::write(empty_with_log.join("catalog.db-wal"), "websites").unwrap();
    let missing = work.path().join("not-mounted/data");
    for (path, words) in [
        (&foreign, "no catalog.db of hitlog's"),
        (&damaged, "catalog.db"),
        (&newer, "format version 99"),
        (&missing, "not-mounted"),
        (&no_catalog, "has events but no catalog.db"),
        (&empty_catalog, "or an empty one"),
        (&empty_with_log, "or an empty one"),
        (&no_segment, "000000000001.db"),
        (&emptied, "it is empty"),
    ] {
        let before = contents(path);
        let run = run(&["serve", "--listen=127.0.0.1:0", "--data-dir", path.to_str().unwrap()]);
        assert_eq!((run.code, run.stdout.as_str()), (Some(1), ""), "{}", path.display());
        assert!(run.stderr.contains(words), "{}: {}", path.display(), run.stderr);
        assert!(contents(path) == before, "something was written in {}", path.display());
    }
    assert!(!missing.exists());
    let kept = rusqlite::Connection::open(no_catalog.join("segments/000000000001.db")).unwrap();
    assert_eq!(kept.query_row("SELECT count(*) FROM Event", [], |row| row.get::<_, i64>(0)).unwrap(), 1);
}

/// Every file below a folder, by name; but for the lock, which whoever tries to start takes.
fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = fs::read_dir(folder).map(|entries| entries.map(|entry| entry.unwrap().path()).collect::<Vec<_>>());
    let mut found = BTreeMap::new();
    for path in entries.unwrap_or_default() {
        if path.is_dir() {
            found.extend(contents(&path));
        } else if !path.ends_with("lock") {
            let content = fs::read(&path).unwrap();
            found.insert(path, content);
        }
    }
    found
}

#[test]
fn a_taken_port_is_told() {
    let daemon = Daemon::start(&[]);
    let work = work_dir();
    let data = work.path().join("data");
    let run = run(&["serve", "--listen", &daemon.address, "--data-dir", data.to_str().unwrap()]);
    assert_eq!(run.code, Some(1));
    assert!(run.stderr.contains("cannot listen on"), "{}", run.stderr);
    daemon.stop();
}

#[test]
fn the_log_says_what_runs() {
    let daemon = Daemon::start(&["--log-format", "text"]);
    for words in ["version=", "sqlite=\"3.", "durability=\"full\"", "file_system=", "data_dir=", "no token"] {
        daemon.wait_for_log(words);
    }
    daemon.stop();
}

#[test]
fn a_drain_that_takes_too_long_is_an_error() {
    let mut daemon = Daemon::start(&["--drain-timeout-seconds=0.5"]);
    let code = daemon.register("a.example");
    let body = event_with(&code, json!({})).to_string();
    let _stalled_disk = Tampering::with(&daemon, "fdatasync:delay_enter=3000000");
    let mut client = daemon.client();
    let length = body.len();
    let head = format!("POST /api/v1/events HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n");
    client.write((head + &body).as_bytes()).unwrap();
    wait_until("it is under way", || (daemon.metrics()["hitlog_events_in_flight"] == 1.0).then_some(()));
    daemon.signal("TERM");
    assert_eq!(daemon.wait().code(), Some(1));
    daemon.wait_for_log("drain_timeout_seconds");
}

#[test]
fn what_comes_when_the_time_of_a_stop_is_over_is_not_begun() {
    for _ in 0..3 {
        let mut daemon = Daemon::start(&["--drain-timeout-seconds=0.5"]);
        let code = daemon.register("a.example");
        let body = event_with(&code, json!({})).to_string();
        let length = body.len();
        let request = format!("POST /api/v1/events HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n{body}");
        let (half, rest) = request.split_at(30);
        let mut client = daemon.client();
        client.write(half.as_bytes()).unwrap();
        wait_until("it has come", || (daemon.metrics()["hitlog_connections"] == 2.0).then_some(()));
        daemon.signal("TERM");
        thread::sleep(Duration::from_millis(200));
        daemon.signal("STOP");
        thread::sleep(Duration::from_millis(800));
        client.write(rest.as_bytes()).unwrap();
        daemon.signal("CONT");
        let is_answered = client.read_response(false).is_some_and(|answer| answer.status == 201);
        let stopped_in_order = daemon.wait().success();
        let stored = tool(daemon.data(), &["export"]).out.lines().count();
        assert!(is_answered || stored == 0 || !stopped_in_order, "{stored} stored, and not a word of it");
    }
}

#[test]
fn a_client_that_is_slow_makes_no_stop_fail() {
    let mut daemon = Daemon::start(&["--drain-timeout-seconds=0.5"]);
    let mut client = daemon.client();
    client.write(b"POST /api/v1/events HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n{").unwrap();
    wait_until("the request is under way", || (daemon.metrics()["hitlog_connections"] == 2.0).then_some(()));
    daemon.signal("TERM");
    assert_eq!(daemon.wait().code(), Some(0));
    daemon.wait_for_log("had not sent a body");
    daemon.wait_for_log("the store is closed");
}

#[test]
fn metrics_pass_promtool() {
    let daemon = Daemon::start(&[]);
    let code = daemon.register("example.com");
    let mut client = daemon.client();
    client.post("/api/v1/events/batch", harness::traffic::batch(&code, 100));
    client.post("/api/v1/events", "{");
    client.get(&format!("/api/v1/events?trackingCode={code}"));
    client.get("/nowhere");
    let text = client.get("/metrics").text();
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("promtool is needed: apt-get install prometheus");
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let complaints = [output.stdout, output.stderr].concat();
    assert!(output.status.success() && complaints.is_empty(), "{}", String::from_utf8_lossy(&complaints));
    for line in text.lines() {
        let name = line.trim_start_matches("# HELP ").trim_start_matches("# TYPE ");
        assert!(name.is_empty() || name.starts_with("hitlog_") || name.starts_with("process_"), "{line}");
    }
    for name in [
        "hitlog_events_received_total 101",
        "hitlog_events_committed_total 100",
        "hitlog_events_rejected_total{reason=\"malformed_json\"} 1",
        "hitlog_group_events_bucket{le=\"100\"} 1",
        "hitlog_commit_duration_seconds_count 1",
        "hitlog_durable_sequence 100",
        "hitlog_http_request_duration_seconds_count{route=\"/api/v1/events/batch\",method=\"POST\",code=\"2xx\"} 1",
        "hitlog_http_request_duration_seconds_count{route=\"unknown\",method=\"GET\",code=\"4xx\"} 1",
        "hitlog_read_duration_seconds_count 1",
        "hitlog_build_info{",
        "process_resident_memory_bytes ",
    ] {
        assert!(text.contains(name), "{name} is missing in {text}");
    }
    let sum = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok()).unwrap();
    let syncs_before = sum("hitlog_sync_duration_seconds_count");
    for number in 0..5 {
        assert_eq!(client.post("/api/v1/events", harness::traffic::event(&code, number)).status, 201);
    }
    let syncs = daemon.metrics()["hitlog_sync_duration_seconds_count"];
    assert!(syncs >= syncs_before + 5.0, "every commit's sync is timed: {syncs_before}, then {syncs}");
    daemon.stop();
}
