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

use crate::{Daemon, wait_until};

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
        // strace says so after the first thread; the others' states tell when they are all traced.
        wait_until("every thread is traced", || {
            let tasks = fs::read_dir(format!("/proc/{process}/task")).ok()?;
            let traced = |status: String| !status.contains("TracerPid:\t0\n");
            tasks
                .map_while(Result::ok)
                .all(|task| fs::read_to_string(task.path().join("status")).is_ok_and(traced))
                .then_some(())
        });
        Self(strace)
    }
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
