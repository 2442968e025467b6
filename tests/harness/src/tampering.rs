//! System calls that fail or stall.

use std::{
    ffi::OsStr,
    fs,
    io::{BufRead, BufReader, Read},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::Daemon;

/// How often strace is started anew, and how long it is waited each time, where it has passed a thread over.
const ATTACH_TRIES: usize = 4;
const ATTACH_TIMEOUT: Duration = Duration::from_secs(10);

/// strace on a running process, changing what system calls return; detaches when dropped.
pub struct Tampering(Child);

impl Tampering {
    pub fn with(daemon: &Daemon, inject: &str) -> Self {
        Self::with_files(daemon, inject, &[])
    }

    /// Changes what calls on these files only return; on all if there are none.
    pub fn with_files(daemon: &Daemon, inject: &str, files: &[PathBuf]) -> Self {
        Self::of_process(daemon.pid(), inject, files)
    }

    /// The same of any process.
    pub fn of_process(process: u32, inject: &str, files: &[PathBuf]) -> Self {
        // A thread that another one starts while strace attaches to both may be passed over.
        let mut attached = (0..ATTACH_TRIES).map(|_| Self::attach(process, inject, files));
        attached.find(|_| traces_all(process)).expect("strace attaches to every thread")
    }

    fn attach(process: u32, inject: &str, files: &[PathBuf]) -> Self {
        let call = inject.split(':').next().unwrap();
        let mut strace = Command::new("strace")
            .args(["-f", "-o", "/dev/null", "-e", &format!("trace={call}"), "-e", &format!("inject={inject}")])
            .args(files.iter().flat_map(|file| [OsStr::new("-P"), file.as_os_str()]))
            .arg("-p")
            .arg(process.to_string())
            .stderr(Stdio::piped())
            .spawn()
            .expect("strace is needed: apt-get install strace");
        let (mut line, mut stderr) = (String::new(), BufReader::new(strace.stderr.take().unwrap()));
        stderr.read_line(&mut line).unwrap();
        assert!(line.contains("attached"), "{line}");
        // It writes a line for each new thread, and would die of a pipe that nobody reads.
        thread::spawn(move || stderr.read_to_string(&mut String::new()));
        Self(strace)
    }
}

/// Waits until every thread of a process is traced: strace says that it has attached after the first. Returns whether
/// they are.
fn traces_all(process: u32) -> bool {
    let started = Instant::now();
    let is_traced = |status: String| !status.contains("TracerPid:\t0\n");
    while started.elapsed() < ATTACH_TIMEOUT {
        let are_all = fs::read_dir(format!("/proc/{process}/task")).is_ok_and(|tasks| {
            let mut tasks = tasks.map_while(Result::ok);
            tasks.all(|task| fs::read_to_string(task.path().join("status")).is_ok_and(is_traced))
        });
        if are_all {
            return true;
        }
        thread::sleep(Duration::from_millis(5));
    }
    false
}

impl Drop for Tampering {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-INT", &self.0.id().to_string()]).status();
        // Interrupted while its tracee dies, strace may wait for the first thread, which waits for strace.
        let asked_at = Instant::now();
        while self.0.try_wait().is_ok_and(|status| status.is_none()) {
            if asked_at.elapsed() > Duration::from_secs(2) {
                let _ = self.0.kill();
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}
