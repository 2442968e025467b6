//! What several benches measure with.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{Client, Daemon, traffic};

pub const BATCH: usize = 500;
pub const WRITERS: usize = 4;

pub fn send(client: &mut Client, body: &[u8]) {
    let response = client.post("/api/v1/events/batch", body);
    assert_eq!(response.status, 201, "{}", response.text());
}

/// Stores so many events, a multiple of a batch, as fast as a few clients send them.
pub fn store(daemon: &Daemon, code: &str, events: usize) {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..WRITERS {
            scope.spawn(|| {
                let (mut client, mut batches) = (daemon.client(), traffic::Batches::new(code, BATCH));
                loop {
                    let first = next.fetch_add(BATCH, Ordering::Relaxed);
                    if first >= events {
                        return;
                    }
                    send(&mut client, batches.from(first));
                }
            });
        }
    });
}

/// When each request was meant to be sent, in seconds, and its latency in milliseconds.
pub struct Latencies(pub Vec<(f64, f64)>);

impl Latencies {
    pub fn at(&self, share: f64) -> f64 {
        let mut sorted: Vec<f64> = self.0.iter().map(|(_, latency)| *latency).collect();
        sorted.sort_by(f64::total_cmp);
        sorted.get(((sorted.len() as f64 * share) as usize).min(sorted.len().saturating_sub(1))).copied().unwrap_or(0.0)
    }
}

pub fn timed(client: &mut Client, path: &str) -> f64 {
    let begun = Instant::now();
    let response = client.get(path);
    let elapsed = begun.elapsed().as_secs_f64() * 1e3;
    assert_eq!(response.status, 200, "{path}: {}", response.text());
    elapsed
}

/// Batches at fixed times, whatever the answers take; a latency counts from when its batch was meant to be sent.
pub struct Paced {
    pub stop: Arc<AtomicBool>,
    rate: f64,
    first: usize,
}

impl Paced {
    pub fn new(rate: f64, first: usize) -> Self {
        Self { stop: Arc::default(), rate, first }
    }

    pub fn run(&self, daemon: &Daemon, code: &str) -> Latencies {
        let (started, interval) = (Instant::now(), Duration::from_secs_f64(BATCH as f64 / self.rate));
        let next = AtomicUsize::new(0);
        let latencies = thread::scope(|scope| {
            let senders: Vec<_> = (0..WRITERS)
                .map(|_| {
                    scope.spawn(|| {
                        let (mut client, mut latencies) = (daemon.client(), Vec::new());
                        let mut batches = traffic::Batches::new(code, BATCH);
                        while !self.stop.load(Ordering::Relaxed) {
                            let at = next.fetch_add(1, Ordering::Relaxed);
                            let due = started + interval * at as u32;
                            let body = batches.from(self.first + at * BATCH);
                            thread::sleep(due.saturating_duration_since(Instant::now()));
                            send(&mut client, body);
                            latencies.push(((due - started).as_secs_f64(), due.elapsed().as_secs_f64() * 1e3));
                        }
                        latencies
                    })
                })
                .collect();
            senders.into_iter().flat_map(|sender| sender.join().unwrap()).collect()
        });
        Latencies(latencies)
    }
}

pub fn memory_mib(daemon: &Daemon, key: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with(key)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

/// Seconds of processor time that a process has taken so far, all its threads together.
pub fn cpu_seconds(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let ticks = |at: usize| fields.split_whitespace().nth(at).unwrap().parse::<f64>().unwrap();
    (ticks(11) + ticks(12)) / rustix::param::clock_ticks_per_second() as f64
}
