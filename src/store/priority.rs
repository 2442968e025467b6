//! How much of the processors a thread of the store asks for.

use std::time::{Duration, Instant};

use rustix::{
    io,
    process::getpid,
    thread::{CpuSet, sched_getaffinity, sched_setaffinity},
};

use crate::clock::now_ms;

/// How long after one event the next is waited for, in milliseconds: at ten a second some take longer than that, and
/// below that hardly any reads and events meet.
const NEXT_EVENT_MS: i64 = 100;
/// How often a thread looks at most.
const LOOK: Duration = Duration::from_millis(100);

/// Has the calling thread give way to others, as `nice` does. Once lowered, a priority cannot be raised again without
/// privileges.
pub(super) fn lower_priority(niceness: i32) {
    // Linux takes the calling thread for "process 0".
    if let Err(error) = rustix::process::setpriority_process(None, niceness) {
        tracing::debug!(%error, "a thread keeps its priority");
    }
}

/// Has a thread that can wait leave one of the processors to others while events come in.
///
/// A low priority alone does not do: a thread that wakes and has had a little more than its share so far waits for the
/// next tick of Linux's scheduler, whatever runs instead of it; and that is up to 4 ms away. An event needs several
/// such wakings, of the edge and the writer in turn.
#[derive(Default)]
pub(super) struct Aside {
    looked_at: Option<Instant>,
}

impl Aside {
    /// Has the calling thread step aside or back; with the time at which the newest event arrived, in milliseconds
    /// since 1970, UTC.
    pub(super) fn look(&mut self, newest_arrival: i64) {
        if self.looked_at.is_some_and(|looked_at| looked_at.elapsed() < LOOK) {
            return;
        }
        self.looked_at = Some(Instant::now());
        if let Err(error) = use_processors(are_coming_in(newest_arrival, now_ms())) {
            tracing::debug!(%error, "a thread stays on its processors");
        }
    }
}

/// Whether the next event is to be expected at once. A clock that was set back says nothing.
fn are_coming_in(newest_arrival: i64, now: i64) -> bool {
    (0..NEXT_EVENT_MS).contains(&now.saturating_sub(newest_arrival))
}

/// Has the calling thread use all processors that the process may use, or all but one.
fn use_processors(leaves_one: bool) -> io::Result<()> {
    // Those of the first thread, which never leaves one: they may be changed from outside at any time.
    let all = sched_getaffinity(Some(getpid()))?;
    let wanted = if leaves_one { but_one(all) } else { all };
    if sched_getaffinity(None)? == wanted { Ok(()) } else { sched_setaffinity(None, &wanted) }
}

/// All but the first, if there are several.
fn but_one(all: CpuSet) -> CpuSet {
    let mut rest = all;
    if let Some(first) = (0..CpuSet::MAX_CPU).find(|processor| all.is_set(*processor)) {
        rest.unset(first);
    }
    if rest.count() == 0 { all } else { rest }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn set(processors: &[usize]) -> CpuSet {
        let mut set = CpuSet::new();
        processors.iter().for_each(|processor| set.set(*processor));
        set
    }

    #[test]
    fn one_processor_is_left_if_there_are_several() {
        for (all, rest) in [(&[0, 1][..], &[1][..]), (&[5], &[5]), (&[3, 4, 900], &[4, 900]), (&[], &[])] {
            assert_eq!(but_one(set(all)), set(rest), "{all:?}");
        }
    }

    #[test]
    fn events_come_in_while_the_newest_is_of_a_moment_ago() {
        let now = 1_000_000;
        for (newest_arrival, come_in) in
            [(now, true), (now - 99, true), (now - 100, false), (i64::MIN, false), (now + 1, false), (i64::MAX, false)]
        {
            assert_eq!(are_coming_in(newest_arrival, now), come_in, "{newest_arrival}");
        }
    }

    #[test]
    fn a_thread_steps_aside_and_back() {
        let all = sched_getaffinity(None).unwrap();
        let own = thread::spawn(|| {
            [true, false, true].map(|leaves_one| {
                use_processors(leaves_one).unwrap();
                sched_getaffinity(None).unwrap()
            })
        });
        assert_eq!(own.join().unwrap(), [but_one(all), all, but_one(all)]);
        assert_eq!(sched_getaffinity(None).unwrap(), all, "the others stay where they are");
    }
}
