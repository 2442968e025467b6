//! How close does hitlog come to the limits of this machine? Events over HTTP against a bare hyper server that reads
//! the same body and answers one of the same size; batches against raw SQLite appending the same rows.
//!
//! `cargo bench --bench load [-- SECONDS [ROUNDS]]`. Needs `wrk`. The two sides of each ratio run in turn, so that a
//! noisy machine disturbs both; the median of the rounds counts.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, StatusCode, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;

#[path = "../tests/support/raw_append.rs"]
mod raw_append;
#[path = "../tests/support/traffic.rs"]
mod traffic;

const BATCH_EVENTS: usize = 500;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let [mode, answer] = &arguments[..]
        && mode == "bare-hyper"
    {
        return bare_hyper(fs::read(answer).unwrap());
    }
    let number = |at: usize, default: usize| arguments.get(at).map_or(default, |text| text.parse().unwrap());
    run(number(0, 8), number(1, 3));
}

fn run(seconds: usize, rounds: usize) {
    let work = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let hitlog = Server::hitlog(&work.path().join("data"));
    let idle = hitlog.resident_mib();
    let code = hitlog.register();
    let event = traffic::event(&code, 0);
    let batch = traffic::batch(&code, BATCH_EVENTS);
    let answer = hitlog.post("/api/v1/events", &event);
    fs::write(work.path().join("answer"), answer).unwrap();
    let bare = Server::bare_hyper(&work.path().join("answer"));

    println!("{seconds} s a run, median of {rounds}; durability full; idle {idle} MiB resident\n");
    println!("{:<34} {:>12} {:>12} {:>7}  {:>9} {:>9}", "", "hitlog/s", "limit/s", "ratio", "p50 ms", "p99 ms");
    for connections in [16, 64, 256] {
        let side = |server: &Server| wrk(server, work.path(), "/api/v1/events", &event, connections, seconds);
        let pairs: Vec<_> = (0..rounds).map(|_| (side(&hitlog), side(&bare))).collect();
        report(&format!("single events, {connections} connections"), 1, &pairs);
    }
    for connections in [4, 16, 64] {
        let pairs: Vec<_> = (0..rounds)
            .map(|round| {
                let ours = wrk(&hitlog, work.path(), "/api/v1/events/batch", &batch, connections, seconds);
                let raw = raw_append::run(
                    &work.path().join(format!("raw-{connections}-{round}.db")),
                    BATCH_EVENTS,
                    seconds as f64,
                );
                (ours, Load { requests_per_second: raw / BATCH_EVENTS as f64, p50: 0.0, p99: 0.0 })
            })
            .collect();
        report(&format!("batches of {BATCH_EVENTS}, {connections} connections"), BATCH_EVENTS, &pairs);
    }
    println!("\npeak {} MiB resident", hitlog.peak_mib());
}

fn report(name: &str, events: usize, pairs: &[(Load, Load)]) {
    let median = |value: &dyn Fn(&(Load, Load)) -> f64| {
        let mut values: Vec<f64> = pairs.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    println!(
        "{name:<34} {:>12.0} {:>12.0} {:>7.2}  {:>9.2} {:>9.2}",
        median(&|(ours, _)| ours.requests_per_second * events as f64),
        median(&|(_, limit)| limit.requests_per_second * events as f64),
        median(&|(ours, limit)| ours.requests_per_second / limit.requests_per_second),
        median(&|(ours, _)| ours.p50),
        median(&|(ours, _)| ours.p99),
    );
}

struct Load {
    requests_per_second: f64,
    p50: f64,
    p99: f64,
}

/// Posts one body over and over. wrk reports latencies in microseconds through its script.
fn wrk(server: &Server, work: &Path, path: &str, body: &str, connections: usize, seconds: usize) -> Load {
    let script = work.join("post.lua");
    let lua = format!(
        "wrk.method = \"POST\"\nwrk.body = [==[{body}]==]\nwrk.headers[\"Content-Type\"] = \"application/json\"\n\
         function done(summary, latency, requests)\n\
           local failed = summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout\n\
           print(string.format(\"RESULT %f %d %f %f\", summary.requests * 1e6 / summary.duration, failed, latency:percentile(50), latency:percentile(99)))\n\
         end\n"
    );
    fs::write(&script, lua).unwrap();
    let output = Command::new("wrk")
        .args(["-t1", &format!("-c{connections}"), &format!("-d{seconds}s"), "-s"])
        .arg(&script)
        .arg(format!("http://{}{path}", server.address))
        .output()
        .expect("wrk is needed: apt-get install wrk");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find_map(|line| line.strip_prefix("RESULT ")).unwrap_or_else(|| panic!("{text}"));
    let numbers: Vec<f64> = line.split(' ').map(|number| number.parse().unwrap()).collect();
    assert_eq!(numbers[1], 0.0, "requests failed: {text}");
    Load { requests_per_second: numbers[0], p50: numbers[2] / 1e3, p99: numbers[3] / 1e3 }
}

/// A server in a process of its own; ended when dropped.
struct Server {
    process: Child,
    address: String,
}

impl Server {
    fn hitlog(data: &Path) -> Self {
        Self::start(
            Command::new(env!("CARGO_BIN_EXE_hitlog"))
                .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
                .arg(data),
        )
    }

    fn bare_hyper(answer: &Path) -> Self {
        Self::start(Command::new(std::env::current_exe().unwrap()).arg("bare-hyper").arg(answer))
    }

    fn start(command: &mut Command) -> Self {
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().rsplit('/').next().unwrap().to_owned();
        Self { process, address }
    }

    fn post(&self, path: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let length = body.len();
        let request =
            format!("POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
        answer.split_once("\r\n\r\n").unwrap().1.to_owned()
    }

    fn register(&self) -> String {
        let website = self.post("/api/v1/websites", r#"{"name":"Load","domain":"example.com"}"#);
        serde_json::from_str::<serde_json::Value>(&website).unwrap()["trackingCode"].as_str().unwrap().to_owned()
    }

    fn status_mib(&self, key: &str) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(key)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() / 1024
    }

    fn resident_mib(&self) -> usize {
        self.status_mib("VmRSS")
    }

    fn peak_mib(&self) -> usize {
        self.status_mib("VmHWM")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// hyper and nothing else: reads the body, answers the given bytes. The same runtime and settings as hitlog's edge.
fn bare_hyper(answer: Vec<u8>) {
    let answer = Bytes::from(answer);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build().unwrap();
    runtime.block_on(async move {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!("bare hyper listening on http://{}", listener.local_addr().unwrap());
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
