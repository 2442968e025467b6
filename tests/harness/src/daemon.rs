//! The real binary: where it is, and one that runs.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use tempfile::TempDir;

use crate::{Client, TIMEOUT, turn, wait_until};

/// The hitlog that cargo built together with the running test or bench, and so of the same profile: it is beside the
/// folder with their executables.
pub fn binary() -> PathBuf {
    // A newer cargo says where; the executable may also be run by hand.
    if let Some(path) = std::env::var_os("CARGO_BIN_EXE_hitlog") {
        return path.into();
    }
    let executable = std::env::current_exe().unwrap();
    let binary = executable.ancestors().nth(2).unwrap().join("hitlog");
    assert!(binary.exists(), "there is no {}: start tests and benches through cargo", binary.display());
    binary
}

/// Where tests and benches keep their files: on the disk that the build is on.
pub fn scratch_dir() -> PathBuf {
    let folder = binary().ancestors().nth(2).unwrap().join("tmp");
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// A folder for a test.
pub fn work_dir() -> TempDir {
    turn::share();
    tempfile::tempdir_in(scratch_dir()).unwrap()
}

/// The command that starts hitlog, without the environment's own settings.
pub fn command(arguments: &[&str]) -> Command {
    command_of(&binary(), arguments)
}

/// What a tool of hitlog's did.
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

/// Runs a tool on a data directory to its end.
pub fn tool(data: &Path, arguments: &[&str]) -> Ran {
    let output = command(&[arguments, &["--data-dir", data.to_str().unwrap()]].concat()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
}

/// The command that starts another build of hitlog, without the environment's own settings.
fn command_of(binary: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("HITLOG_")) {
        command.env_remove(name);
    }
    command
}

/// A running hitlog in a data directory of its own.
pub struct Daemon {
    process: Child,
    pub address: String,
    data: PathBuf,
    _work: Option<Arc<TempDir>>,
    log: Arc<Mutex<String>>,
    /// Who reads it, until the process ends.
    log_reader: Option<thread::JoinHandle<()>>,
}

impl Daemon {
    /// Starts hitlog in a new data directory.
    pub fn start(flags: &[&str]) -> Self {
        Self::start_of(&binary(), flags)
    }

    /// Starts another build of hitlog in a new data directory.
    pub fn start_of(binary: &Path, flags: &[&str]) -> Self {
        let work = Arc::new(work_dir());
        let data = work.path().join("data");
        let mut daemon = Self::serve(binary, &data, flags);
        daemon._work = Some(work);
        daemon
    }

    /// Starts hitlog in a given data directory.
    pub fn start_in(data: &Path, flags: &[&str]) -> Self {
        Self::serve(&binary(), data, flags)
    }

    fn serve(binary: &Path, data: &Path, flags: &[&str]) -> Self {
        let mut arguments = vec!["serve", "--listen", "127.0.0.1:0", "--data-dir", data.to_str().unwrap()];
        arguments.extend(flags);
        Self::spawn(&mut command_of(binary, &arguments), data)
    }

    /// Waits for the ready line of a hitlog that `command` starts.
    pub fn spawn(command: &mut Command, data: &Path) -> Self {
        turn::share();
        // A disk that stands still for a while is no fault; a flag still says otherwise.
        command.env("HITLOG_DRAIN_TIMEOUT_SECONDS", (TIMEOUT * 3 / 4).as_secs().to_string());
        let mut process = command.spawn().unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        // Unless the test has put something else there.
        let log_reader = process.stderr.take().map(|stderr| {
            let lines = Arc::clone(&log);
            thread::spawn(move || {
                for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                    let mut log = lines.lock().unwrap();
                    log.push_str(&line);
                    log.push('\n');
                }
            })
        });
        let mut ready = String::new();
        let mut stdout = BufReader::new(process.stdout.take().unwrap());
        stdout.read_line(&mut ready).unwrap();
        let Some(address) = ready.trim_end().strip_prefix("hitlog listening on http://") else {
            let status = process.wait();
            panic!("not ready: {ready:?}, {status:?}, {}", log.lock().unwrap());
        };
        // Anything more on standard output would be a surprise; keep the pipe open so that it is not an error.
        thread::spawn(move || {
            let mut rest = String::new();
            stdout.read_to_string(&mut rest).unwrap();
            assert_eq!(rest, "", "only one line goes to standard output");
        });
        Self { process, address: address.to_owned(), data: data.to_owned(), _work: None, log, log_reader }
    }

    pub fn data(&self) -> &Path {
        &self.data
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// What stands on standard error so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Waits until these words stand on standard error, which is read a little after it is written.
    pub fn wait_for_log(&self, words: &str) {
        wait_until(words, || self.log().contains(words).then_some(()));
    }

    pub fn client(&self) -> Client {
        Client::connect(&self.address)
    }

    /// Registers a website and returns its tracking code.
    pub fn register(&self, domain: &str) -> String {
        let body = format!(r#"{{"name":"Test","domain":"{domain}"}}"#);
        let response = self.client().post("/api/v1/websites", body);
        assert_eq!(response.status, 201, "{}", response.text());
        response.json()["trackingCode"].as_str().unwrap().to_owned()
    }

    /// Every sample of `/metrics` by its name and labels.
    pub fn metrics(&self) -> BTreeMap<String, f64> {
        self.try_metrics().expect("hitlog answers")
    }

    /// Every sample of `/metrics` by its name and labels; `None` if hitlog is gone.
    pub fn try_metrics(&self) -> Option<BTreeMap<String, f64>> {
        let response = Client::try_connect(&self.address)?.try_send("GET", "/metrics", &[], b"")?;
        assert_eq!(response.status, 200, "{}", response.text());
        let text = response.text();
        let samples = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        let samples = samples.map(|line| line.rsplit_once(' ').unwrap());
        Some(samples.map(|(name, value)| (name.to_owned(), value.parse().unwrap())).collect())
    }

    /// Segments in this state.
    pub fn segments(&self, state: &str) -> usize {
        self.metrics()[&format!("hitlog_segments{{state=\"{state}\"}}")] as usize
    }

    /// Waits until every full segment has its indexes and the next segment stands ready.
    pub fn wait_until_sealed(&self) {
        wait_until("everything is sealed", || {
            (self.segments("unsealed") == 0 && self.segments("prepared") == 1).then_some(())
        });
    }

    /// Waits until nothing is in flight, then holds the law of conservation; returns (received, committed).
    pub fn assert_conserved(&self) -> (f64, f64) {
        let metrics = wait_until("nothing is in flight", || {
            Some(self.metrics()).filter(|metrics| metrics["hitlog_events_in_flight"] == 0.0)
        });
        let sum = |prefix: &str| -> f64 {
            metrics.iter().filter(|(name, _)| name.starts_with(prefix)).map(|(_, value)| value).sum()
        };
        let (received, committed) = (sum("hitlog_events_received_total"), sum("hitlog_events_committed_total"));
        let (rejected, shed) = (sum("hitlog_events_rejected_total"), sum("hitlog_events_shed_total"));
        let (replayed, unknown) = (sum("hitlog_events_replayed_total"), sum("hitlog_events_unknown_total"));
        assert_eq!(
            received,
            committed + replayed + rejected + shed + unknown,
            "received = committed {committed} + replayed {replayed} + rejected {rejected} + shed {shed} + unknown {unknown}"
        );
        (received, committed)
    }

    pub fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([&format!("-{signal}"), &self.pid().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Kills the process as a crash would, and waits for its end.
    pub fn crash(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        self.read_the_last_lines();
    }

    /// Stops the process between two instructions: no thread comes back from the system any more.
    pub fn freeze(&self) {
        self.signal("STOP");
        wait_until("every thread stands still", || {
            let tasks = fs::read_dir(format!("/proc/{}/task", self.pid())).ok()?;
            // Stopped, or within a call that cannot be interrupted, from which it returns to the stop.
            let is_still = |status: String| status.contains("State:\tT") || status.contains("State:\tD");
            tasks
                .map_while(Result::ok)
                .all(|task| fs::read_to_string(task.path().join("status")).is_ok_and(is_still))
                .then_some(())
        });
    }

    /// Waits for the process to end by itself.
    pub fn wait(&mut self) -> ExitStatus {
        let status = wait_until("the process ends", || self.process.try_wait().unwrap());
        self.read_the_last_lines();
        status
    }

    /// Waits until all that an ended process has logged is read.
    fn read_the_last_lines(&mut self) {
        if let Some(reader) = self.log_reader.take() {
            reader.join().unwrap();
        }
    }

    /// The law of conservation, then an orderly stop.
    pub fn stop(mut self) {
        self.assert_conserved();
        self.signal("TERM");
        let status = self.wait();
        assert!(status.success(), "{status}: {}", self.log());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.process.try_wait().is_ok_and(|status| status.is_none()) {
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
        if thread::panicking() {
            eprintln!("{}", self.log());
        }
    }
}
