//! A real ClickHouse, as `scripts/setup` has fetched it: started in a folder and on ports of a test's own, killed,
//! started again on the same.
//!
//! It is `clickhouse local` that listens, so it differs from a server that an operator runs: `default` needs no
//! password and cannot have one, users and rights are read at its start only, there is no `query_log`, no Replicated
//! table, no `ON CLUSTER` and no TLS (`TlsFront` has that). In `system.processes` stands one query of its own, whose
//! user is ''.

mod options;

use std::{
    env,
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

pub use self::options::Options;
use crate::{Client, port::HeldPort, scratch_dir, wait_until, work_dir};

/// A code of an exception that ClickHouse has not: it did not answer.
pub const NO_ANSWER: u32 = 0;

/// The files of its data directory that tell what went wrong.
const LOGS: [&str; 2] = ["output.log", "server.log"];
/// How much of the end of each is shown.
const LOG_SHOWN_BYTES: usize = 20_000;

pub struct ClickHouse {
    /// `None` while it does not run.
    process: Option<Child>,
    http: HeldPort,
    tcp: HeldPort,
    options: Options,
    work: TempDir,
}

impl ClickHouse {
    /// Starts one without more users or settings. `None`, and it says so, where `scripts/setup` could not fetch it.
    pub fn start() -> Option<Self> {
        Self::with(|_| {})
    }

    /// Starts one with users, clusters or settings; `None` as [`start`](Self::start).
    pub fn with(choose: impl FnOnce(&mut Options)) -> Option<Self> {
        if !program().join("clickhouse").exists() {
            let missing = format!("there is no ClickHouse in {}: run scripts/setup", program().display());
            assert!(env::var_os("CI").is_none_or(|ci| ci.is_empty()), "{missing}");
            // Not by a macro, whose words nobody sees of a test that passes.
            let test = thread::current().name().unwrap_or("a test").to_owned();
            let _ = writeln!(std::io::stderr(), "SKIPPED: {test}: {missing}");
            return None;
        }
        let mut options = Options::default();
        choose(&mut options);
        let work = work_dir();
        let mut started = Self { process: None, http: HeldPort::take(), tcp: HeldPort::take(), options, work };
        started.start_again();
        Some(started)
    }

    /// Changes users, clusters or settings; they count from the next start on.
    pub fn choose(&mut self, choose: impl FnOnce(&mut Options)) {
        choose(&mut self.options);
    }

    /// Starts it on the same data and ports, and waits until it answers. It must not be running.
    pub fn start_again(&mut self) {
        assert!(self.process.is_none(), "it runs: kill or stop it first");
        self.options.write(self.data(), self.tcp.number());
        let output = File::options().create(true).append(true).open(self.data().join(LOGS[0])).unwrap();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/clickhouse");
        let process = Command::new(script)
            .arg("run")
            .args([program().as_path(), self.data()])
            .args([self.http_port(), self.tcp_port()].map(|port| port.to_string()))
            .env("CLICKHOUSE_PARENT", std::process::id().to_string())
            .env("CLICKHOUSE_MEMORY_BYTES", self.options.memory_bytes.to_string())
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap();
        self.process = Some(process);
        self.wait_until_it_answers();
    }

    fn wait_until_it_answers(&mut self) {
        /// The first start after an installation reads half a gigabyte from the disk.
        const START_MAX: Duration = Duration::from_secs(180);
        let started = Instant::now();
        while self.try_query("SELECT 1").is_err() {
            let ended = self.process.as_mut().unwrap().try_wait().unwrap();
            // Dropped while a thread panics, it shows its logs.
            assert!(ended.is_none(), "ClickHouse ended: {ended:?}");
            assert!(started.elapsed() < START_MAX, "ClickHouse does not answer");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Kills it as a crash would, and waits for its end.
    pub fn kill(&mut self) {
        self.end("KILL");
    }

    /// Asks it to end, and waits for its end. This one ends at once, in the middle of what it does.
    pub fn stop(&mut self) {
        self.end("TERM");
    }

    fn end(&mut self, signal: &str) {
        self.signal(signal);
        self.wait();
    }

    /// Waits until something has ended it.
    pub fn wait(&mut self) {
        let mut process = self.process.take().unwrap();
        wait_until("ClickHouse ends", || process.try_wait().unwrap());
    }

    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("it runs").id()
    }

    /// Sends a signal: `STOP` has it stand still, `CONT` go on.
    pub fn signal(&self, signal: &str) {
        let process = self.pid().to_string();
        let status = Command::new("kill").args([&format!("-{signal}"), &process]).status().unwrap();
        assert!(status.success());
    }

    pub fn http_port(&self) -> u16 {
        self.http.number()
    }

    /// The port of the native protocol, by which servers of a cluster speak with each other.
    pub fn tcp_port(&self) -> u16 {
        self.tcp.number()
    }

    /// Where it speaks HTTP: `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        self.http.address()
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    pub fn data(&self) -> &Path {
        self.work.path()
    }

    /// Runs a query and returns what it answers, without the last line's end.
    pub fn query(&self, query: &str) -> String {
        self.try_query(query).unwrap_or_else(|(code, text)| panic!("{query}\n{code}: {text}"))
    }

    /// Runs a query; fails with the exception's code, or [`NO_ANSWER`], and its text.
    pub fn try_query(&self, query: &str) -> Result<String, (u32, String)> {
        self.try_query_as("default", "", query)
    }

    /// Runs a query of another user.
    pub fn try_query_as(&self, user: &str, password: &str, query: &str) -> Result<String, (u32, String)> {
        let headers = [("x-clickhouse-user", user), ("x-clickhouse-key", password)];
        // Only when all is done, so that no exception comes behind a 200.
        let response = Client::try_connect(&self.address())
            .and_then(|mut client| client.try_send("POST", "/?wait_end_of_query=1", &headers, query.as_bytes()))
            .ok_or_else(|| (NO_ANSWER, format!("{} does not answer", self.address())))?;
        let text = response.text().trim_end().to_owned();
        match response.header("x-clickhouse-exception-code") {
            Some(code) => Err((code.parse().unwrap(), text)),
            None if response.status == 200 => Ok(text),
            None => panic!("{}: {text}", response.status),
        }
    }

    /// The end of what it has logged.
    pub fn log(&self) -> String {
        let end_of = |name| {
            let text = fs::read(self.data().join(name)).unwrap_or_default();
            let shown = String::from_utf8_lossy(&text[text.len().saturating_sub(LOG_SHOWN_BYTES)..]).into_owned();
            format!("--- {name}\n{shown}")
        };
        LOGS.map(end_of).join("\n")
    }
}

impl Drop for ClickHouse {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
        if thread::panicking() {
            eprintln!("{}", self.log());
        }
    }
}

/// Where `scripts/setup` puts it.
fn program() -> PathBuf {
    scratch_dir().parent().unwrap().join("clickhouse")
}
