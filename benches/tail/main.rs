//! What does it take to follow events, and how soon are they seen?
//!
//! `cargo bench --bench tail [-- SECONDS [EVENTS [TAILS]]]`: how long events come in while their way to a tail is timed
//! (10), how many are stored for tails that read from the start (400,000), and how many tails are idle (1,000), which are
//! watched for seven times SECONDS. Takes some minutes, and EVENTS times 0.6 KB of disk.

use std::{
    collections::HashMap,
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    process::Stdio,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use harness::{Daemon, command, measure::cpu_seconds, traffic};

/// Events a second while the way to a tail is timed, in requests of so many.
const RATE: usize = 10_000;
const OF_REQUEST: usize = 10;
const BATCH: usize = 500;
const READ_BYTES: usize = 256 * 1024;
/// What one of many tails reads at the most, so that all of them together do not take long.
const EVENTS_OF_ALL_TAILS: usize = 4_000_000;

fn main() {
    let numbers: Vec<usize> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let number = |at: usize, default| numbers.get(at).copied().unwrap_or(default);
    let (seconds, events, idle) = (number(0, 10), number(1, 400_000).next_multiple_of(BATCH), number(2, 1_000));
    // A connection takes a descriptor here and one in the server, which inherits the limit.
    if let Err(error) = harness::raise_descriptors(0) {
        eprintln!("the limit on open files stays as it is: {error}");
    }
    for tails in [1, 16, 256] {
        latency(seconds as f64, tails);
    }
    throughput(events);
    memory(idle, seconds as u64);
}

/// Begins to follow a website's events as lines, and reads the head of the answer.
fn follow(daemon: &Daemon, code: &str, after: &str) -> TcpStream {
    let mut stream = TcpStream::connect(&daemon.address).unwrap();
    let request = format!(
        "GET /api/v1/events/tail?trackingCode={code}&after={after} HTTP/1.1\r\nHost: localhost\r\n\
         Accept: application/x-ndjson\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&head));
    stream
}

/// The time from 201 to an event's line at one tail, while so many follow.
fn latency(seconds: f64, tails: usize) {
    let daemon = Daemon::start(&["--log-level", "warn"]);
    let code = daemon.register("example.com");
    let (answered, seen) = (Mutex::new(HashMap::new()), Mutex::new(HashMap::new()));
    let is_over = AtomicBool::new(false);
    let taken_in = AtomicUsize::new(0);
    let streams: Vec<TcpStream> = (0..tails).map(|_| follow(&daemon, &code, "")).collect();
    thread::scope(|scope| {
        for (at, mut stream) in streams.into_iter().enumerate() {
            stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
            let (is_over, seen) = (&is_over, &seen);
            scope.spawn(move || {
                let (mut buffer, mut line) = (vec![0; READ_BYTES], Vec::new());
                while !is_over.load(Ordering::Relaxed) {
                    let Ok(read) = stream.read(&mut buffer) else { continue };
                    if at == 0 {
                        note_probes(&buffer[..read], &mut line, &mut seen.lock().unwrap());
                    }
                }
            });
        }
        scope.spawn(|| probe(&daemon, &code, &is_over, &answered));
        scope.spawn(|| load(&daemon, &code, &is_over, &taken_in));
        thread::sleep(Duration::from_secs_f64(seconds));
        is_over.store(true, Ordering::Relaxed);
    });
    let (answered, seen) = (answered.into_inner().unwrap(), seen.into_inner().unwrap());
    let mut times: Vec<f64> = answered
        .iter()
        .filter_map(|(number, at): (&usize, &Instant)| {
            let seen: &Instant = seen.get(number)?;
            Some(seen.saturating_duration_since(*at).as_secs_f64() * 1e3)
        })
        .collect();
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times.get((times.len().saturating_sub(1) as f64 * share) as usize).copied().unwrap_or(0.0);
    println!(
        "{tails} tails, {:.0} events/s come in: {} events timed, {} not seen by the end; from 201 to the line p50 {:.2} \
         ms, p99 {:.2} ms, the longest {:.2} ms",
        taken_in.load(Ordering::Relaxed) as f64 / seconds,
        times.len(),
        answered.len() - times.len(),
        at(0.5),
        at(0.99),
        at(1.0)
    );
    daemon.stop();
}

/// Sends an event every few milliseconds, and notes when it is answered.
fn probe(daemon: &Daemon, code: &str, is_over: &AtomicBool, answered: &Mutex<HashMap<usize, Instant>>) {
    let mut client = daemon.client();
    for number in 0.. {
        if is_over.load(Ordering::Relaxed) {
            return;
        }
        let event = format!(
            r#"{{"trackingCode":"{code}","eventType":"custom","url":"https://example.com/","sessionId":"s",
                "visitorId":"probe-{number}"}}"#
        );
        let answer = client.post("/api/v1/events", event);
        answered.lock().unwrap().insert(number, Instant::now());
        assert_eq!(answer.status, 201, "{}", answer.text());
        thread::sleep(Duration::from_millis(4));
    }
}

/// Has events come in at the rate.
fn load(daemon: &Daemon, code: &str, is_over: &AtomicBool, taken_in: &AtomicUsize) {
    let (mut client, mut batches) = (daemon.client(), traffic::Batches::new(code, OF_REQUEST));
    let begun = Instant::now();
    for request in 0.. {
        if is_over.load(Ordering::Relaxed) {
            return;
        }
        let due = Duration::from_secs_f64((request * OF_REQUEST) as f64 / RATE as f64);
        thread::sleep(due.saturating_sub(begun.elapsed()));
        let answer = client.post("/api/v1/events/batch", batches.from(request * OF_REQUEST));
        assert_eq!(answer.status, 201, "{}", answer.text());
        taken_in.fetch_add(OF_REQUEST, Ordering::Relaxed);
    }
}

/// Notes when the probes among these lines were seen.
fn note_probes(bytes: &[u8], line: &mut Vec<u8>, seen: &mut HashMap<usize, Instant>) {
    let now = Instant::now();
    for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
        line.extend_from_slice(piece);
        if !line.ends_with(b"\n") {
            continue;
        }
        const MARK: &[u8] = b"\"visitorId\":\"probe-";
        if let Some(at) = line.windows(MARK.len()).position(|part| part == MARK) {
            let digits = line[at + MARK.len()..].iter().take_while(|byte| byte.is_ascii_digit());
            let number = digits.fold(0, |number, digit| number * 10 + usize::from(digit - b'0'));
            seen.insert(number, now);
        }
        line.clear();
    }
}

/// Events a second that tails deliver from the start on, and those of an export of the same.
fn throughput(events: usize) {
    let work = harness::work_dir();
    let data = work.path().join("data");
    let rows_max = (events / 2).to_string();
    let daemon = Daemon::start_in(&data, &["--segment-rows-max", &rows_max, "--log-level", "warn"]);
    let code = daemon.register("example.com");
    let (mut client, mut batches) = (daemon.client(), traffic::Batches::new(&code, BATCH));
    for at in (0..events).step_by(BATCH) {
        assert_eq!(client.post("/api/v1/events/batch", batches.from(at)).status, 201);
    }
    daemon.wait_until_sealed();
    for tails in [1, 16, 256] {
        let wanted = events.min(EVENTS_OF_ALL_TAILS / tails);
        let begun = Instant::now();
        thread::scope(|scope| {
            for _ in 0..tails {
                scope.spawn(|| read_lines(follow(&daemon, &code, "start"), wanted));
            }
        });
        let rate = (tails * wanted) as f64 / begun.elapsed().as_secs_f64();
        println!("{tails} tails from the start, {wanted} events each: {rate:.0} events/s");
    }
    daemon.stop();
    let rate = export(&data, events);
    println!("an export of them: {rate:.0} events/s");
}

fn export(data: &Path, events: usize) -> f64 {
    let begun = Instant::now();
    let mut export = command(&["export", "--data-dir", data.to_str().unwrap()]);
    let mut export = export.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = 0;
    let mut buffer = vec![0; READ_BYTES];
    let mut out = export.stdout.take().unwrap();
    while let Ok(read @ 1..) = out.read(&mut buffer) {
        lines += count_lines(&buffer[..read]);
    }
    assert!(export.wait().unwrap().success() && lines == events, "{lines} of {events}");
    events as f64 / begun.elapsed().as_secs_f64()
}

fn read_lines(mut stream: TcpStream, wanted: usize) {
    let (mut buffer, mut lines) = (vec![0; READ_BYTES], 0);
    while lines < wanted {
        let read = stream.read(&mut buffer).unwrap();
        assert!(read > 0, "it ended after {lines} lines");
        lines += count_lines(&buffer[..read]);
    }
}

/// Of ends of lines within objects: those of chunks stand alone.
fn count_lines(bytes: &[u8]) -> usize {
    bytes.windows(2).filter(|two| two == b"}\n").count()
}

/// What idle tails take.
fn memory(tails: usize, seconds: u64) {
    let daemon = Daemon::start(&["--log-level", "warn"]);
    let (code, other) = (daemon.register("example.com"), daemon.register("example.org"));
    let resident = || harness::measure::memory_mib(&daemon, "VmRSS:");
    // What a first request and a first event take is not the tails'.
    let mut client = daemon.client();
    let mut batches = traffic::Batches::new(&other, OF_REQUEST);
    assert_eq!(client.post("/api/v1/events/batch", batches.from(0)).status, 201);
    drop(follow(&daemon, &code, ""));
    let before = resident();
    let streams: Vec<TcpStream> = (0..tails).map(|_| follow(&daemon, &code, "")).collect();
    let after = resident();
    let cpu = || cpu_seconds(daemon.pid());
    let measure = |what: &str, seconds: u64| {
        let begun = cpu();
        thread::sleep(Duration::from_secs(seconds));
        println!("  {what}: {:.2} ms of processor time a second", (cpu() - begun) * 1e3 / seconds as f64);
    };
    println!("{} idle tails: resident {before} MiB before, {after} MiB with them", streams.len());
    // By default longer than between two heartbeats.
    measure("nothing comes in", 3 * seconds);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| load(&daemon, &other, &is_over, &AtomicUsize::new(0)));
        measure("10,000 events/s of another website, with them", 2 * seconds);
        is_over.store(true, Ordering::Relaxed);
    });
    println!("  resident {} MiB at the end", resident());
    drop(streams);
    is_over.store(false, Ordering::Relaxed);
    let lone = Daemon::start(&["--log-level", "warn"]);
    let code = lone.register("example.org");
    thread::scope(|scope| {
        scope.spawn(|| load(&lone, &code, &is_over, &AtomicUsize::new(0)));
        let begun = cpu_seconds(lone.pid());
        thread::sleep(Duration::from_secs(2 * seconds));
        let taken = (cpu_seconds(lone.pid()) - begun) * 1e3 / (2 * seconds) as f64;
        println!("  the same without them: {taken:.2} ms");
        is_over.store(true, Ordering::Relaxed);
    });
    lone.stop();
    daemon.stop();
}
