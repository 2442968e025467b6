//! Does hitlog stay as it is when it runs for long? Mixed load with rolls, seals, retention, erasures and reads, and
//! after it the slopes of memory, descriptors, threads and write-ahead log, and the law of conservation.
//!
//! `cargo bench --bench soak [-- MINUTES]`: thirty if not said; exits non-zero if anything grows. `scripts/soak` runs
//! it. Takes 2 GB of disk, however long, because retention removes what is older than two minutes.

use std::{
    fs,
    process::ExitCode,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use harness::{Client, Daemon, event_with, traffic};

const BATCH: usize = 200;
const DAY_MS: u64 = 24 * 60 * 60 * 1_000;
/// Events are sent with times that leave them this long until they expire.
const KEPT: Duration = Duration::from_secs(120);
const FLAGS: [&str; 9] = [
    "--retention-days=1",
    "--retention-grace-seconds=10",
    "--segment-rows-max=100000",
    "--warm-connections-max=16",
    "--idle-timeout-seconds=5",
    "--head-timeout-seconds=2",
    "--group-events-max=2000",
    "--log-level=warn",
    "--wal-checkpoint-bytes=4MiB",
];
/// Pauses that leave the machine some air: a soak is about time, not about speed.
const BATCH_PAUSE: Duration = Duration::from_millis(20);
const PAUSE: Duration = Duration::from_millis(2);
/// Below this the sizes have not become steady.
const MINUTES_MIN: f64 = 8.0;
const LOOK: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    control();
    let minutes: f64 = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(30.0);
    let duration = Duration::from_secs_f64(minutes * 60.0);
    let daemon = Daemon::start(&FLAGS);
    let code = daemon.register("soak.example");
    let (stop, next) = (AtomicBool::new(false), AtomicUsize::new(0));
    let work: [fn(&Work); 8] = [batches, batches, singles, singles, read, wrong, come_and_go, erase];
    let samples = thread::scope(|scope| {
        for role in work {
            let work = Work { daemon: &daemon, code: &code, stop: &stop, next: &next };
            scope.spawn(move || role(&work));
        }
        let samples = watch(&daemon, duration);
        stop.store(true, Ordering::Relaxed);
        samples
    });
    let (received, committed) = daemon.assert_conserved();
    let metrics = daemon.metrics();
    println!("{minutes} minutes, {received:.0} events received, {committed:.0} committed; the counters add up");
    for name in ["hitlog_segment_rolls_total", "hitlog_seal_duration_seconds_count", "hitlog_segments_removed_total"] {
        println!("{name} {}", metrics.get(name).copied().unwrap_or_default());
    }
    let grows = report(&samples);
    daemon.stop();
    if minutes < MINUTES_MIN {
        println!("too short to judge: everything grows at first");
        return ExitCode::SUCCESS;
    }
    if grows { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// What everybody who works on the daemon has.
struct Work<'a> {
    daemon: &'a Daemon,
    code: &'a str,
    stop: &'a AtomicBool,
    /// The number of the next event.
    next: &'a AtomicUsize,
}

impl Work<'_> {
    /// Does something again and again until the end, with a pause after each.
    fn repeat(&self, pause: Duration, mut act: impl FnMut(&mut Client)) {
        let mut client = self.daemon.client();
        while !self.stop.load(Ordering::Relaxed) {
            act(&mut client);
            thread::sleep(pause);
        }
    }
}

/// A time that expires soon.
fn old_time() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    now - DAY_MS + KEPT.as_millis() as u64
}

fn batches(work: &Work) {
    let mut batches = traffic::Batches::timed(work.code, BATCH);
    work.repeat(BATCH_PAUSE, |client| {
        let (first, time) = (work.next.fetch_add(BATCH, Ordering::Relaxed), old_time());
        let answer = client.post("/api/v1/events/batch", batches.batch_with(first, |_| time, |_| None));
        assert!(matches!(answer.status, 201 | 503), "{}", answer.text());
    });
}

fn singles(work: &Work) {
    work.repeat(PAUSE, |client| {
        let number = work.next.fetch_add(1, Ordering::Relaxed);
        let event = traffic::event(work.code, number).replacen('{', &format!("{{\"timestamp\":{},", old_time()), 1);
        let answer = client.post("/api/v1/events", event);
        assert!(matches!(answer.status, 201 | 503), "{}", answer.text());
    });
}

fn read(work: &Work) {
    let mut round = 0;
    work.repeat(BATCH_PAUSE, |client| {
        round += 1;
        let number = work.next.load(Ordering::Relaxed);
        let code = work.code;
        let path = match round % 5 {
            0 => format!("/api/v1/events?trackingCode={code}&limit=100"),
            1 => format!("/api/v1/events?trackingCode={code}&eventType=click&limit=100&offset={}", number / 10),
            2 => format!("/api/v1/events?trackingCode={code}&sessionId={}", traffic::session(number / 2)),
            3 => "/metrics".to_owned(),
            _ => "/api/v1/websites".to_owned(),
        };
        let answer = client.get(&path);
        assert!(matches!(answer.status, 200 | 503), "{path}: {}", answer.text());
    });
}

/// Requests that are refused, in every way that takes memory for a while.
fn wrong(work: &Work) {
    let too_large = vec![b'x'; 100 * 1024];
    let mut round = 0;
    work.repeat(BATCH_PAUSE, |client| {
        round += 1;
        let (body, status) = match round % 3 {
            0 => (b"{\"trackingCode\": 1, \"properties\": [}".to_vec(), 400),
            1 => (event_with(work.code, json!({"url": "javascript:1"})).to_string().into_bytes(), 400),
            _ => (too_large.clone(), 413),
        };
        assert_eq!(client.post("/api/v1/events", &body).status, status);
    });
}

/// Connections that go in the middle of a request, and some that never say anything.
fn come_and_go(work: &Work) {
    let mut silent = Vec::new();
    work.repeat(PAUSE, |_| {
        let mut client = work.daemon.client();
        client.write(b"POST /api/v1/events HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n{").unwrap();
        silent.push(work.daemon.client());
        if silent.len() > 200 {
            silent.clear();
        }
    });
}

fn erase(work: &Work) {
    // Its pauses are longer than a connection may be idle.
    work.repeat(Duration::from_secs(10), |_| {
        let number = work.next.load(Ordering::Relaxed) / 2;
        let path = format!("/api/v1/visitors/{}?trackingCode={}", traffic::visitor(number), work.code);
        let answer = work.daemon.client().send("DELETE", &path, &[], b"");
        assert!(matches!(answer.status, 202 | 503), "{}", answer.text());
    });
}

/// What is looked at, each with what it may grow by in an hour, in its own unit and as a share of its mean.
const WATCHED: [(&str, f64, f64); 4] = [
    ("resident memory, MiB", 4.0, 0.05),
    ("open files", 4.0, 0.05),
    ("threads", 1.0, 0.05),
    ("write-ahead log, MiB", 4.0, 0.05),
];

/// What was seen at one moment: seconds since the begin, and the figures of [`WATCHED`].
type Sample = (f64, [f64; WATCHED.len()]);

fn watch(daemon: &Daemon, duration: Duration) -> Vec<Sample> {
    let bar = ProgressBar::new(duration.as_secs());
    bar.set_style(ProgressStyle::with_template("{bar:30} {elapsed} of {len} s {msg}").unwrap());
    let (started, mut samples) = (Instant::now(), Vec::new());
    while started.elapsed() < duration {
        thread::sleep(LOOK.min(duration / 20));
        let figures = look(daemon);
        bar.set_position(started.elapsed().as_secs());
        bar.set_message(format!("{figures:.0?}"));
        samples.push((started.elapsed().as_secs_f64(), figures));
    }
    bar.finish_and_clear();
    samples
}

fn look(daemon: &Daemon) -> [f64; WATCHED.len()] {
    let process = format!("/proc/{}", daemon.pid());
    let count = |folder: &str| fs::read_dir(format!("{process}/{folder}")).unwrap().count() as f64;
    let status = fs::read_to_string(format!("{process}/status")).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kib: f64 = resident.trim().trim_end_matches(" kB").parse().unwrap();
    let segments = fs::read_dir(daemon.data().join("segments")).unwrap().map_while(Result::ok);
    let logs = segments.filter(|file| file.path().extension().is_some_and(|extension| extension == "db-wal"));
    // A file may go between the listing and the look.
    let bytes: u64 = logs.filter_map(|file| file.metadata().ok()).map(|metadata| metadata.len()).sum();
    [kib / 1024.0, count("fd"), count("task"), bytes as f64 / 1024.0 / 1024.0]
}

/// Prints the slopes of the second half, when everything has its steady size, and says whether one is too steep.
fn report(samples: &[Sample]) -> bool {
    let steady = &samples[samples.len() / 2..];
    println!("{:24} {:>8} {:>8} {:>8} {:>14}", "in the second half", "least", "mean", "most", "slope an hour");
    let mut grows = false;
    for (at, (name, by, share)) in WATCHED.into_iter().enumerate() {
        let points: Vec<(f64, f64)> = steady.iter().map(|(seconds, figures)| (*seconds, figures[at])).collect();
        let (slope, error, mean) = slope(&points);
        let least = points.iter().map(|(_, figure)| *figure).fold(f64::INFINITY, f64::min);
        let most = points.iter().map(|(_, figure)| *figure).fold(0.0, f64::max);
        let is_steep = is_steep(&points, by, share);
        let verdict = if is_steep { "  GROWS" } else { "" };
        println!("{name:24} {least:8.1} {mean:8.1} {most:8.1} {slope:+8.1} ± {error:.1}{verdict}");
        grows |= is_steep;
    }
    grows
}

/// Whether points grow by more in an hour than allowed, beyond the noise: three standard errors are 1 in 700.
fn is_steep(points: &[(f64, f64)], by: f64, share: f64) -> bool {
    let (slope, error, mean) = slope(points);
    slope - 3.0 * error > by.max(mean * share)
}

/// The judgement is judged first: a leak of 20 MiB an hour under noise of 8 MiB is seen in a quarter of an hour, and the
/// noise alone is not.
fn control() {
    let noise = |second: usize| 8.0 * ((second * 7_919 % 101) as f64 / 101.0 - 0.5);
    let points = |leak: f64| -> Vec<(f64, f64)> {
        (0..900).map(|second| (second as f64, 100.0 + noise(second) + leak * second as f64 / 3_600.0)).collect()
    };
    let (_, by, share) = WATCHED[0];
    assert!(is_steep(&points(20.0), by, share), "a leak is not seen");
    assert!(!is_steep(&points(0.0), by, share), "noise is taken for a leak");
}

/// The least-squares slope of points an hour, its standard error, and the mean.
///
/// The error is that of a tenth of the points: memory that is taken and given back over some seconds makes
/// neighbours alike, and alike they tell less.
fn slope(points: &[(f64, f64)]) -> (f64, f64, f64) {
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (mean_x, mean_y) = (mean(|(x, _)| *x), mean(|(_, y)| *y));
    let spread: f64 = points.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
    let slope = points.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum::<f64>() / spread;
    let left: f64 = points.iter().map(|(x, y)| (y - mean_y - slope * (x - mean_x)).powi(2)).sum();
    let error = (left / (count - 2.0).max(1.0) / spread * 10.0).sqrt();
    (slope * 3_600.0, error * 3_600.0, mean_y)
}
