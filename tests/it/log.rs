//! The log never harms the service: whatever becomes of standard error and standard output, hitlog serves, stores and
//! stops in order.

use std::{
    fs::{self, OpenOptions},
    io::{BufRead, BufReader, ErrorKind, PipeReader, PipeWriter, Write, pipe},
    process::{Command, Stdio},
};

use harness::{Client, Daemon, command, traffic, wait_until, work_dir};
use rustix::fs::{OFlags, fcntl_setfl};

/// A pipe that takes not one byte more.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = pipe().unwrap();
    fcntl_setfl(&writer, OFlags::NONBLOCK).unwrap();
    let filled = std::iter::repeat_with(|| writer.write(&[b'x'; 512])).find_map(Result::err).unwrap();
    assert_eq!(filled.kind(), ErrorKind::WouldBlock);
    fcntl_setfl(&writer, OFlags::empty()).unwrap();
    (reader, writer)
}

fn serve(data: &str) -> Command {
    // Room for a few lines, so that the test need not log for long.
    command(&["serve", "--listen=127.0.0.1:0", "--data-dir", data, "--log-bytes-max=4KiB"])
}

/// Serves with this standard error, logging all the while, and stops in order.
fn serve_with(stderr: impl Into<Stdio>) {
    let work = work_dir();
    let data = work.path().join("data");
    let mut daemon = Daemon::spawn(serve(data.to_str().unwrap()).stderr(stderr), &data);
    let code = daemon.register("example.com");
    let mut stored = 0;
    wait_until("lines are dropped", || {
        // Each logs a line.
        daemon.signal("HUP");
        assert_eq!(daemon.client().post("/api/v1/events", traffic::event(&code, stored)).status, 201);
        stored += 1;
        (daemon.metrics()["hitlog_log_lines_total{outcome=\"dropped\"}"] > 0.0).then_some(())
    });
    assert_eq!(daemon.client().get("/readyz").status, 200);
    // The drain waits for a request, and logs.
    let mut client = daemon.client();
    let event = traffic::event(&code, stored);
    let head = format!("POST /api/v1/events HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", event.len());
    client.write(head.as_bytes()).unwrap();
    wait_until("the request is under way", || (daemon.metrics()["hitlog_connections"] == 2.0).then_some(()));
    daemon.signal("TERM");
    wait_until("hitlog is stopping", || Client::try_connect(&daemon.address).is_none().then_some(()));
    client.write(event.as_bytes()).unwrap();
    assert_eq!(client.read_response(false).unwrap().status, 201);
    assert_eq!(daemon.wait().code(), Some(0));
    let again = Daemon::start_in(&data, &[]);
    assert_eq!(again.metrics()["hitlog_durable_sequence"], (stored + 1) as f64);
    again.stop();
}

#[test]
fn standard_error_is_a_full_disk() {
    serve_with(OpenOptions::new().write(true).open("/dev/full").unwrap());
}

#[test]
fn nobody_reads_standard_error_any_more() {
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    serve_with(writer);
}

#[test]
fn nobody_ever_reads_standard_error() {
    let (reader, writer) = full_pipe();
    serve_with(writer);
    drop(reader);
}

#[test]
fn a_pipe_that_is_set_never_to_wait() {
    let (reader, writer) = full_pipe();
    fcntl_setfl(&writer, OFlags::NONBLOCK).unwrap();
    serve_with(writer);
    drop(reader);
}

#[test]
fn what_was_dropped_is_told_as_soon_as_somebody_reads() {
    let work = work_dir();
    let data = work.path().join("data");
    let (reader, writer) = full_pipe();
    let daemon = Daemon::spawn(serve(data.to_str().unwrap()).stderr(writer), &data);
    wait_until("lines are dropped", || {
        daemon.signal("HUP");
        (daemon.metrics()["hitlog_log_lines_total{outcome=\"dropped\"}"] > 0.0).then_some(())
    });
    let lines = BufReader::new(reader).lines().map(Result::unwrap);
    let told = lines.map(|line| line.trim_start_matches('x').to_owned()).find(|line| line.contains("did not take"));
    let told: serde_json::Value = serde_json::from_str(&told.unwrap()).unwrap();
    assert!(told["lines"].as_u64() > Some(0), "{told}");
    daemon.stop();
}

#[test]
fn the_ready_line_waits_alone() {
    let (closed, nobody) = pipe().unwrap();
    drop(closed);
    let (reader, full) = full_pipe();
    let no_space = OpenOptions::new().write(true).open("/dev/full").unwrap();
    for stdout in [Stdio::from(nobody), full.into(), no_space.into()] {
        let work = work_dir();
        let data = work.path().join("data");
        let mut process = serve(data.to_str().unwrap()).stdout(stdout).spawn().unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines().map(Result::unwrap);
        let line = lines.find(|line| line.contains("hitlog listens")).expect("the log tells the address, too");
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        let address = line["address"].as_str().unwrap();
        assert_eq!(Client::connect(address).get("/readyz").status, 200);
        let killed = Command::new("kill").arg(process.id().to_string()).status().unwrap();
        assert!(killed.success());
        assert!(process.wait().unwrap().success());
    }
    drop(reader);
}

#[test]
fn the_last_words_keep_nobody_from_the_end() {
    let work = work_dir();
    fs::write(work.path().join("holiday.jpg"), "x").unwrap();
    for (flag, code) in [("--readers=0", 2), ("--readers=1", 1)] {
        let (reader, writer) = full_pipe();
        let data = work.path().to_str().unwrap();
        let mut process = serve(data).arg(flag).stderr(writer).spawn().unwrap();
        let status = wait_until("it ends", || process.try_wait().unwrap());
        assert_eq!(status.code(), Some(code), "{flag}");
        drop(reader);
    }
}
