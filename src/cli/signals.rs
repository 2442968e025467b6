//! Signals: heard before anything else is done, acted upon by a thread of their own.
//!
//! What SIGTERM, SIGINT and SIGHUP do depends on what the process is at, so whoever begins something else says so. The
//! thread waits for nobody: a stop is heard while a disk stalls, a log is full or the store recovers.

use std::{
    fs, io, process, thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2},
    iterator,
    low_level::emulate_default_handler,
};

use super::{
    log,
    output::{EXIT_FAILURE, fail},
};

/// What arrives within this time of the first stop is the same stop: `timeout` and shells send a signal to a process
/// and then to its group.
const SAME_STOP: Duration = Duration::from_secs(1);

/// What a signal does.
pub(super) enum Reaction {
    /// What it does where nobody listens: it ends the process.
    Usual,
    /// The same, after the last words of whoever has something to say: where to go on, for one.
    TellAndEnd(Box<dyn Fn() + Send>),
    /// A daemon that takes nothing in yet: a stop ends it in good order, at once. It may be anywhere in its recovery,
    /// which any crash may cut short and the next start begins anew; the lock on the data directory is the kernel's and
    /// ends with the process. SIGHUP waits until there is something to reload.
    Leave,
    /// The work that is under way ends in order; a second stop ends the process.
    Tell {
        /// Asks for the end of the work.
        stop: Box<dyn Fn() + Send>,
        /// Does what SIGHUP is for; if nothing, it is a stop.
        hangup: Option<Box<dyn Fn() + Send>>,
    },
}

/// Linux's number of the signal that a process gets when a file grows over its limit.
const SIGXFSZ: i32 = 25;

/// Who listens for signals.
pub(super) struct Signals(&'static Mutex<State>);

struct State {
    reaction: Reaction,
    /// When the first stop was asked for.
    stop_asked_at: Option<Instant>,
    hangup_waits: bool,
}

impl Signals {
    /// Begins to listen. A daemon heeds every signal; other commands leave alone what whoever started them has told the
    /// system to ignore, as `nohup` does.
    pub(super) fn listen(is_daemon: bool) -> io::Result<Self> {
        let ignored = if is_daemon { 0 } else { ignored_signals() };
        // A limit on the size of files must not end anything: the write itself tells of it then. And what others take
        // for "turn the log" or "say how you are" must not end a daemon.
        let borne = if is_daemon { &[SIGXFSZ, SIGUSR1, SIGUSR2][..] } else { &[SIGXFSZ] };
        let heeded = [SIGTERM, SIGINT, SIGHUP]
            .into_iter()
            .chain(borne.iter().copied())
            .filter(|signal| ignored >> (signal - 1) & 1 == 0);
        let mut arriving = iterator::Signals::new(heeded)?;
        let reaction = if is_daemon { Reaction::Leave } else { Reaction::Usual };
        // For the rest of the process, as the thread that looks at it.
        let state: &'static Mutex<State> =
            Box::leak(Box::new(Mutex::new(State { reaction, stop_asked_at: None, hangup_waits: false })));
        thread::Builder::new().name("signals".into()).spawn(move || {
            for signal in &mut arriving {
                state.lock().act(signal);
            }
        })?;
        Ok(Self(state))
    }

    /// Says what signals do from now on.
    pub(super) fn react(&self, reaction: Reaction) {
        let mut state = self.0.lock();
        state.reaction = reaction;
        if std::mem::take(&mut state.hangup_waits) {
            state.act(SIGHUP);
        }
    }
}

impl State {
    fn act(&mut self, signal: i32) {
        if ![SIGTERM, SIGINT, SIGHUP].contains(&signal) {
            return;
        }
        let is_hangup = signal == SIGHUP;
        match &self.reaction {
            Reaction::Usual => {
                let _ = emulate_default_handler(signal);
            }
            Reaction::TellAndEnd(tell) => {
                tell();
                let _ = emulate_default_handler(signal);
            }
            Reaction::Leave if is_hangup => self.hangup_waits = true,
            Reaction::Leave => {
                tracing::info!("stopped before anything was taken in");
                exit(0);
            }
            Reaction::Tell { hangup: Some(hangup), .. } if is_hangup => hangup(),
            Reaction::Tell { stop, .. } => match stop_after(self.stop_asked_at.map(|at| at.elapsed())) {
                Stop::InOrder => {
                    self.stop_asked_at = Some(Instant::now());
                    stop();
                }
                Stop::Already => {}
                Stop::AtOnce if log::is_started() => {
                    tracing::error!("a second signal: exiting at once, requests under way are not answered");
                    exit(EXIT_FAILURE);
                }
                Stop::AtOnce => {
                    fail("hitlog: a second signal: ended at once");
                    exit(EXIT_FAILURE);
                }
            },
        }
    }
}

/// What a stop does.
#[derive(Debug, PartialEq, Eq)]
enum Stop {
    InOrder,
    Already,
    AtOnce,
}

/// What a stop does that comes so long after the first.
fn stop_after(first: Option<Duration>) -> Stop {
    match first {
        None => Stop::InOrder,
        Some(age) if age < SAME_STOP => Stop::Already,
        Some(_) => Stop::AtOnce,
    }
}

fn exit(code: u8) -> ! {
    log::flush();
    process::exit(code.into())
}

/// The signals that the system ignores for this process, the first in the lowest bit.
fn ignored_signals() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_stops_within_a_second_are_one() {
        for (first_ms, stop) in [
            (None, Stop::InOrder),
            (Some(0), Stop::Already),
            (Some(999), Stop::Already),
            (Some(1_000), Stop::AtOnce),
            (Some(60_000), Stop::AtOnce),
        ] {
            assert_eq!(stop_after(first_ms.map(Duration::from_millis)), stop, "{first_ms:?}");
        }
    }
}
