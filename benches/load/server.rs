//! What is loaded: hitlog, and a bare hyper server; and what their processes take for it.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::Instant,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, StatusCode, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;

use super::{generator::Load, results::Row};
use harness::{Daemon, measure::cpu_seconds};

/// The argument that turns this program into the bare server.
pub const BARE_HYPER: &str = "bare-hyper";

/// A bare hyper server in a process of its own; ended when dropped.
pub struct Bare {
    process: Child,
    pub address: String,
}

impl Bare {
    /// Answers what stands in the file `answer`.
    pub fn start(answer: &Path, threads: usize) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .arg(BARE_HYPER)
            .arg(answer)
            .arg(threads.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { process, address: line.trim().to_owned() }
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// hyper and nothing else: reads the body, answers the given bytes, under hitlog's limits on tokio's usual runtime.
pub fn run_bare(answer: Vec<u8>, threads: usize) {
    let answer = Bytes::from(answer);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build().unwrap();
    runtime.block_on(async move {
        let listener = tokio::net::TcpSocket::new_v4().unwrap();
        listener.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = listener.listen(4_096).unwrap();
        println!("{}", listener.local_addr().unwrap());
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            let answer = answer.clone();
            tokio::spawn(async move {
                let service = service_fn(move |request: Request<Incoming>| {
                    let answer = answer.clone();
                    async move {
                        let body = request.into_body().collect().await?.to_bytes();
                        assert!(!body.is_empty());
                        let mut response = Response::new(Full::new(answer));
                        *response.status_mut() = StatusCode::CREATED;
                        response.headers_mut().insert("content-type", "application/json".parse().unwrap());
                        Ok::<_, hyper::Error>(response)
                    }
                });
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
}

/// A line of `/proc/PID/status`, in MiB: `VmRSS` now, `VmHWM` at the peak.
pub fn memory_mib(pid: u32, key: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(key)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

/// What hitlog's counters and process said at the beginning of a measurement.
pub struct Meter {
    started: Instant,
    cpu_seconds: f64,
    committed: f64,
    syncs: f64,
    groups: f64,
}

impl Meter {
    pub fn start(daemon: &Daemon) -> Self {
        let metrics = daemon.metrics();
        Self {
            started: Instant::now(),
            cpu_seconds: cpu_seconds(daemon.pid()),
            committed: metrics["hitlog_events_committed_total"],
            syncs: metrics["hitlog_sync_duration_seconds_count"],
            groups: metrics["hitlog_group_events_count"],
        }
    }

    /// A line of the table for what was loaded since.
    pub fn row(&self, daemon: &Daemon, load: &Load) -> Row {
        let cpu = cpu_seconds(daemon.pid()) - self.cpu_seconds;
        let metrics = daemon.metrics();
        let seconds = self.started.elapsed().as_secs_f64();
        let committed = metrics["hitlog_events_committed_total"] - self.committed;
        let latency = load.percentiles();
        Row {
            rate: committed / load.seconds,
            p50_ms: latency.p50,
            p99_ms: latency.p99,
            p999_ms: latency.p999,
            cpu_us_per_event: Some(cpu * 1e6 / committed),
            peak_rss_mib: Some(memory_mib(daemon.pid(), "VmHWM")),
            disk_bytes_per_event: Some(
                directory_bytes(daemon.data()) as f64 / metrics["hitlog_events_committed_total"],
            ),
            syncs_per_second: Some((metrics["hitlog_sync_duration_seconds_count"] - self.syncs) / seconds),
            mean_group: Some(committed / (metrics["hitlog_group_events_count"] - self.groups)),
            refused: load.refused,
            ..Row::default()
        }
    }
}

/// The bytes of all files, as far as they are there: hitlog may be replacing some.
pub fn directory_bytes(path: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(path) else { return 0 };
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => directory_bytes(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    });
    sizes.sum()
}
