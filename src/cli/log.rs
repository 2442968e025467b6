//! The daemon's log: lines go through memory to a thread that writes them to standard error.
//!
//! Whoever logs never waits. Standard error may be a full disk, a pipe whose reader is gone or one that nobody reads:
//! what it does not take, or not in time, is dropped and counted. Memory is bounded, and so is the wait at the end of
//! the process.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    io::{self, IsTerminal, Write},
    panic,
    sync::{Arc, OnceLock},
    thread,
    time::{Duration, Instant},
};

use metrics::Counter;
use parking_lot::{Condvar, Mutex};

use super::output::is_json;
use crate::{
    config::Config,
    metrics::{LineOutcome, LogMetrics},
};

/// How long the end of the process waits for the last lines.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(300);
/// Until standard error is tried again, where it is set never to wait.
const BLOCKED_POLL: Duration = Duration::from_millis(10);

/// The log of this process; there is one, as there is one standard error.
static LOG: OnceLock<Arc<Log>> = OnceLock::new();

/// Sends the log to standard error: text on a terminal, JSON otherwise, unless the configuration says which. Panics go
/// to the log as well.
pub(super) fn start(config: &Config) -> io::Result<()> {
    let log = Arc::new(Log::new(config.log_bytes_max));
    let of_thread = Arc::clone(&log);
    thread::Builder::new().name("log".into()).spawn(move || of_thread.write_to(io::stderr()))?;
    let writer = Arc::clone(LOG.get_or_init(|| log));
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(config.log_level)
        // It would tell of a line that was not written by eprintln!, which panics.
        .log_internal_errors(false)
        .with_writer(move || Line(Arc::clone(&writer)));
    if is_json(config) {
        subscriber.json().flatten_event(true).init();
    } else {
        subscriber.with_ansi(io::stderr().is_terminal()).init();
    }
    // std's own hook writes to standard error itself, and waits for it.
    panic::set_hook(Box::new(log_panic));
    Ok(())
}

/// Whether lines go to the log.
pub(super) fn is_started() -> bool {
    LOG.get().is_some()
}

/// Counts the lines that there were, and those that will be.
pub(super) fn count(metrics: &LogMetrics) {
    if let Some(log) = LOG.get() {
        let mut queued = log.queued.lock();
        queued.counters =
            Some([LineOutcome::Written, LineOutcome::Dropped].map(|outcome| metrics.lines(outcome).clone()));
        queued.count();
    }
}

/// Waits until everything is written, but not for long.
pub(super) fn flush() {
    if let Some(log) = LOG.get() {
        log.flush(Instant::now() + FLUSH_TIMEOUT);
    }
}

fn log_panic(panic: &panic::PanicHookInfo<'_>) {
    let thread = thread::current();
    let thread = thread.name().unwrap_or("without a name");
    let location = panic.location().map(ToString::to_string).unwrap_or_default();
    let payload = panic.payload();
    let message =
        payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(|text| &**text));
    let message = message.unwrap_or("a value that is no text");
    // Empty unless RUST_BACKTRACE asks for it.
    let backtrace = Backtrace::capture();
    match backtrace.status() {
        BacktraceStatus::Captured => tracing::error!(thread, location, message, %backtrace, "a thread panicked"),
        _ => tracing::error!(thread, location, message, "a thread panicked"),
    }
}

struct Log {
    queued: Mutex<Queued>,
    /// There are lines to write.
    filled: Condvar,
    /// Everything is written.
    emptied: Condvar,
    bytes_max: usize,
}

#[derive(Default)]
struct Queued {
    lines: Vec<u8>,
    /// Bytes that the thread is writing at the moment.
    writing_bytes: usize,
    written_lines: u64,
    dropped_lines: u64,
    /// Of lines that were written, and of those that were dropped.
    counters: Option<[Counter; 2]>,
}

impl Queued {
    fn drop_lines(&mut self, count: u64) {
        self.dropped_lines += count;
        self.count();
    }

    fn count(&self) {
        if let Some([written, dropped]) = &self.counters {
            written.absolute(self.written_lines);
            dropped.absolute(self.dropped_lines);
        }
    }
}

impl Log {
    fn new(bytes_max: usize) -> Self {
        Self { queued: Mutex::default(), filled: Condvar::new(), emptied: Condvar::new(), bytes_max }
    }

    /// Takes a line in, or drops it.
    fn push(&self, line: &[u8]) {
        let mut queued = self.queued.lock();
        if queued.lines.len() + queued.writing_bytes + line.len() > self.bytes_max {
            queued.drop_lines(1);
            return;
        }
        queued.lines.extend_from_slice(line);
        self.filled.notify_one();
    }

    /// Writes what comes, for ever.
    fn write_to(&self, mut out: impl Write) {
        let (mut batch, mut is_within_line, mut told_lines) = (Vec::new(), false, 0);
        loop {
            let mut queued = self.queued.lock();
            queued.writing_bytes = 0;
            if queued.lines.is_empty() {
                self.emptied.notify_all();
                self.filled.wait_while(&mut queued, |queued| queued.lines.is_empty());
            }
            batch.clear();
            std::mem::swap(&mut batch, &mut queued.lines);
            queued.writing_bytes = batch.len();
            let dropped_lines = queued.dropped_lines;
            drop(queued);
            // A line that was cut short must not swallow the next one.
            if is_within_line && write(&mut out, b"\n") == 1 {
                is_within_line = false;
            }
            let written = write(&mut out, &batch);
            if let Some(last) = batch[..written].last() {
                is_within_line = *last != b'\n';
            }
            let lines = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
            let lost = lines(&batch[written..]);
            let mut queued = self.queued.lock();
            queued.written_lines += lines(&batch[..written]);
            queued.drop_lines(lost);
            drop(queued);
            if lost == 0 && dropped_lines > told_lines {
                tracing::warn!(lines = dropped_lines - told_lines, "standard error did not take log lines in time");
                told_lines = dropped_lines;
            }
        }
    }

    /// Waits until everything is written, or until the deadline.
    fn flush(&self, deadline: Instant) {
        let is_busy = |queued: &mut Queued| !queued.lines.is_empty() || queued.writing_bytes > 0;
        self.emptied.wait_while_until(&mut self.queued.lock(), is_busy, deadline);
    }
}

/// Writes as much as is taken, and returns how much that was.
fn write(out: &mut impl Write, bytes: &[u8]) -> usize {
    let mut written = 0;
    while written < bytes.len() {
        match out.write(&bytes[written..]) {
            Ok(0) => break,
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(BLOCKED_POLL),
            Err(_) => break,
        }
    }
    written
}

/// Takes a line from tracing, which writes each whole.
struct Line(Arc<Log>);

impl Write for Line {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

    /// Standard error that takes a write only when it is allowed to: `Some` a number of bytes, `None` an error.
    struct Gated {
        allowed: Receiver<Option<usize>>,
        written: Sender<Vec<u8>>,
    }

    impl Write for Gated {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let Ok(Some(count)) = self.allowed.recv() else { return Err(io::ErrorKind::StorageFull.into()) };
            let count = count.min(bytes.len());
            self.written.send(bytes[..count].to_vec()).unwrap();
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn start(bytes_max: usize) -> (Arc<Log>, Sender<Option<usize>>, Receiver<Vec<u8>>) {
        let log = Arc::new(Log::new(bytes_max));
        let ((allow, allowed), (sender, written)) = (bounded(0), unbounded());
        let of_thread = Arc::clone(&log);
        thread::spawn(move || of_thread.write_to(Gated { allowed, written: sender }));
        (log, allow, written)
    }

    fn dropped(log: &Log) -> u64 {
        log.queued.lock().dropped_lines
    }

    #[test]
    fn nobody_waits_for_a_log_that_nobody_reads() {
        let (log, allow, written) = start(10);
        log.push(b"one\n");
        // Being written, it still counts.
        while log.queued.lock().writing_bytes == 0 {
            thread::yield_now();
        }
        for line in [&b"two\n"[..], b"three\n", b"4\n", b"5\n"] {
            log.push(line);
        }
        assert_eq!(dropped(&log), 2, "three and 5 found no room");
        log.flush(Instant::now());
        allow.send(Some(100)).unwrap();
        allow.send(Some(100)).unwrap();
        assert_eq!([written.recv().unwrap(), written.recv().unwrap()].concat(), b"one\ntwo\n4\n");
        log.flush(Instant::now() + Duration::from_secs(10));
        assert_eq!(log.queued.lock().written_lines, 3);
        assert!(log.queued.lock().lines.is_empty());
    }

    #[test]
    fn what_is_not_taken_is_counted_and_cuts_no_other_line() {
        let (log, allow, written) = start(1_000);
        log.push(b"first\n");
        // Three bytes are taken, then the disk is full.
        allow.send(Some(3)).unwrap();
        allow.send(None).unwrap();
        log.flush(Instant::now() + Duration::from_secs(10));
        assert_eq!(dropped(&log), 1);
        log.push(b"second\n");
        for _ in 0..2 {
            allow.send(Some(100)).unwrap();
        }
        log.flush(Instant::now() + Duration::from_secs(10));
        assert_eq!(written.try_iter().collect::<Vec<_>>().concat(), b"fir\nsecond\n");
        assert_eq!(dropped(&log), 1);
        assert_eq!(log.queued.lock().written_lines, 1);
    }

    #[test]
    fn a_panic_goes_to_the_log() {
        let log = Arc::new(Log::new(10_000));
        let lines = Arc::clone(&log);
        let subscriber = tracing_subscriber::fmt().json().with_writer(move || Line(Arc::clone(&lines))).finish();
        // Other tests may panic meanwhile, and theirs is not to be swallowed.
        let before = Arc::new(panic::take_hook());
        let others = Arc::clone(&before);
        panic::set_hook(Box::new(move |panic| match thread::current().name() {
            Some("planted") => log_panic(panic),
            _ => others(panic),
        }));
        let panics = move || tracing::subscriber::with_default(subscriber, || panic!("a {} fault", "planted"));
        let ended = thread::Builder::new().name("planted".into()).spawn(panics).unwrap().join();
        panic::set_hook(Box::new(move |panic| before(panic)));
        assert!(ended.is_err());
        let told = String::from_utf8(log.queued.lock().lines.clone()).unwrap();
        for words in ["a thread panicked", "a planted fault", "src/cli/log.rs:", "\"planted\""] {
            assert!(told.contains(words), "{words} is missing in {told}");
        }
    }
}
