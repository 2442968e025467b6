//! Signals, from the first line of `main` to the last.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use harness::{Client, Daemon, command, traffic, wait_until, work_dir};
use rusqlite::Connection;

/// A client in the middle of a request, which a drain waits for; with what is missing of it.
fn under_way(daemon: &Daemon) -> (Client, String) {
    let event = traffic::event(&daemon.register("example.com"), 1);
    let mut client = daemon.client();
    let head = format!("POST /api/v1/events HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", event.len());
    client.write(head.as_bytes()).unwrap();
    wait_until("the request is under way", || (daemon.metrics()["hitlog_connections"] == 2.0).then_some(()));
    (client, event)
}

/// Sends signals without a pause between them.
fn signals(daemon: &Daemon, names: &[&str]) {
    let kill = |name: &&str| format!("kill -{name} {};", daemon.pid());
    let script: String = names.iter().map(kill).collect();
    assert!(Command::new("sh").args(["-c", &script]).status().unwrap().success());
}

#[test]
fn two_stops_within_a_second_are_one() {
    for names in [&["INT"][..], &["TERM", "TERM"], &["INT", "TERM", "INT"], &["TERM", "HUP", "HUP"]] {
        let mut daemon = Daemon::start(&[]);
        let (mut client, event) = under_way(&daemon);
        signals(&daemon, names);
        daemon.wait_for_log("stopping");
        client.write(event.as_bytes()).unwrap();
        assert_eq!(client.read_response(false).unwrap().status, 201, "{names:?}");
        assert_eq!(daemon.wait().code(), Some(0), "{names:?}");
    }
}

#[test]
fn a_later_signal_is_an_end() {
    let mut daemon = Daemon::start(&[]);
    let (_client, _) = under_way(&daemon);
    daemon.signal("TERM");
    daemon.wait_for_log("stopping");
    thread::sleep(Duration::from_millis(1_100));
    daemon.signal("INT");
    assert_eq!(daemon.wait().code(), Some(1));
    daemon.wait_for_log("a second signal");
}

#[test]
fn a_hangup_ends_nothing() {
    let daemon = Daemon::start(&[]);
    let (mut client, event) = under_way(&daemon);
    signals(&daemon, &["HUP", "HUP", "HUP"]);
    daemon.wait_for_log("there is none: nothing has changed");
    client.write(event.as_bytes()).unwrap();
    assert_eq!(client.read_response(false).unwrap().status, 201);
    daemon.stop();
}

/// A data directory after a crash, whose recovery takes as long as the connection reads.
fn crashed(data: &Path) -> Connection {
    let mut daemon = Daemon::start_in(data, &[]);
    let code = daemon.register("crashed.example");
    assert_eq!(daemon.client().post("/api/v1/events", traffic::event(&code, 1)).status, 201);
    daemon.crash();
    let reader = Connection::open(data.join("segments/000000000001.db")).unwrap();
    reader.execute_batch("BEGIN").unwrap();
    reader.query_row("SELECT count(*) FROM Event", [], |_| Ok(())).unwrap();
    reader
}

fn serve(data: &Path) -> Child {
    command(&["serve", "--listen=127.0.0.1:0", "--data-dir", data.to_str().unwrap()]).spawn().unwrap()
}

/// Reads standard error until these words stand there.
fn wait_for_words(child: &mut Child, words: &str) {
    let lines = BufReader::new(child.stderr.as_mut().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line.contains(words)), "{words}");
}

fn kill(child: &Child, signal: &str) {
    let killed = Command::new("kill").args([&format!("-{signal}"), &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
}

#[test]
fn a_stop_during_recovery_is_at_once_and_in_order() {
    let work = work_dir();
    for signal in ["TERM", "INT"] {
        let data = work.path().join(signal);
        let reader = crashed(&data);
        let mut child = serve(&data);
        wait_for_words(&mut child, "waiting for another program");
        let asked_at = Instant::now();
        kill(&child, signal);
        let status = wait_until("it ends", || child.try_wait().unwrap());
        assert_eq!(status.code(), Some(0), "{signal}");
        // A second, by the contract.
        assert!(asked_at.elapsed() < Duration::from_secs(1), "{:?}", asked_at.elapsed());
        drop(reader);
        let daemon = Daemon::start_in(&data, &[]);
        assert_eq!(daemon.metrics()["hitlog_durable_sequence"], 1.0);
        daemon.stop();
    }
}

#[test]
fn a_hangup_during_recovery_ends_nothing() {
    let work = work_dir();
    let data = work.path().join("data");
    let reader = crashed(&data);
    let mut child = serve(&data);
    wait_for_words(&mut child, "waiting for another program");
    kill(&child, "HUP");
    drop(reader);
    wait_for_words(&mut child, "there is none: nothing has changed");
    kill(&child, "TERM");
    assert_eq!(wait_until("it ends", || child.try_wait().unwrap()).code(), Some(0));
}

#[test]
fn a_stop_at_any_moment_of_a_start_is_in_order() {
    let work = work_dir();
    let data = work.path().join("data");
    let mut orderly = 0;
    for millis in 0..30 {
        let mut child = serve(&data);
        thread::sleep(Duration::from_millis(millis));
        kill(&child, "TERM");
        let status = wait_until("it ends", || child.try_wait().unwrap());
        // Before `main` the system itself ends it.
        assert!(status.code() == Some(0) || status.signal() == Some(15), "after {millis} ms: {status}");
        orderly += u64::from(status.code() == Some(0));
    }
    assert!(orderly > 0, "main was never reached");
    Daemon::start_in(&data, &[]).stop();
}

/// A data directory with events, and all of them as lines.
fn exported(data: &Path) -> Vec<u8> {
    let daemon = Daemon::start_in(data, &[]);
    let code = daemon.register("example.com");
    assert_eq!(daemon.client().post("/api/v1/events/batch", traffic::batch(&code, 1_000)).status, 201);
    daemon.stop();
    command(&["export", "--data-dir", data.to_str().unwrap()]).output().unwrap().stdout
}

#[test]
fn a_tool_that_only_reads_ends_by_the_signal() {
    let work = work_dir();
    let data = work.path().join("data");
    assert!(exported(&data).len() > 65_536, "a pipe does not hold them");
    for (signal, number) in [("TERM", 15), ("INT", 2), ("HUP", 1)] {
        let mut export = command(&["export", "--data-dir", data.to_str().unwrap()]).spawn().unwrap();
        // Nobody reads the rest of what it writes.
        export.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        kill(&export, signal);
        assert_eq!(wait_until("it ends", || export.try_wait().unwrap()).signal(), Some(number), "{signal}");
    }
}

#[test]
fn an_import_that_recovers_ends_at_once_and_heeds_nohup() {
    let work = work_dir();
    let file = work.path().join("events.ndjson");
    fs::write(&file, exported(&work.path().join("from"))).unwrap();
    let data = work.path().join("data");
    let reader = crashed(&data);
    let import = |program: &[&str]| {
        let mut arguments = vec!["import", file.to_str().unwrap(), "--data-dir", data.to_str().unwrap()];
        let hitlog = command(&[]).get_program().to_owned();
        let mut command = command(&[]);
        if let [program] = program {
            arguments.insert(0, hitlog.to_str().unwrap());
            command = Command::new(program);
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        }
        let child = command.args(arguments).spawn().unwrap();
        wait_until("it recovers", || {
            let open = fs::read_dir(format!("/proc/{}/fd", child.id())).ok()?;
            let mut open = open.filter_map(|file| fs::read_link(file.ok()?.path()).ok());
            open.any(|file| file.ends_with("segments/000000000001.db-wal")).then_some(())
        });
        child
    };
    for signal in ["HUP", "INT", "TERM"] {
        let child = import(&[]);
        kill(&child, signal);
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{signal}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "hitlog: interrupted; nothing was imported\n");
    }
    let child = import(&["nohup"]);
    kill(&child, "HUP");
    reader.execute_batch("COMMIT").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
