//! A model of the queue's protocol: every request has exactly one answer, and the right one, in all schedules.
//!
//! `src/queue.rs` and `src/writer.rs` are compiled here as they are, over other parts: this crate calls itself `std`,
//! `tokio`, `crossbeam_channel` and `crossbeam_utils`, and what the two take from there is in `parts`. For that it has
//! to be a crate of its own, beside `tests/it`; nothing of SQLite is linked into it. loom then runs a scenario once for
//! each schedule of its threads up to a number of preemptions, and for each older value that a relaxed load may be
//! shown. The log is modelled, too: it commits, is full, fails or panics as the scenario says.
//!
//! What is not modelled: the inside of the channels and of the parker, which are taken at their documentation's word. A
//! receiver that looks finds all that was sent before it looks.

extern crate self as crossbeam_channel;
extern crate self as crossbeam_utils;
extern crate self as std;
extern crate self as tokio;
extern crate std as real;

mod parts;

// The roots of the paths that the sources name.
pub use core::{any, future, mem, pin, task};
pub use parts::{
    channel::{Receiver, SendError, Sender, TryRecvError, unbounded},
    clock as time, metrics, panic,
};
pub use product::{queue, writer};
pub use real::io;

pub mod sync {
    pub use crate::parts::{
        atomic, oneshot,
        parker::{Parker, Unparker},
    };
    pub use real::sync::Arc;
}

pub mod thread {
    pub use loom::thread::{Builder, JoinHandle};
}

pub mod event {
    pub use crate::parts::store::{Repeat, ValidEvents};
}

pub mod store {
    pub use crate::parts::store::{AppendError, Appended, Log};
}

#[path = "../../src"]
#[allow(dead_code, reason = "the model has no use for all of it")]
mod product {
    pub mod queue;
    pub mod writer;
}

use parts::{
    Fault,
    scenario::{
        Manner::{AtOnce, Closes, GoesAway, OneByOne},
        Scenario, check, explore,
    },
    store::Append::{Commits, Fails, Full, Panics},
};

/// What the scenarios differ from.
const ROOMY: Scenario = Scenario {
    name: "",
    room: (100, 100),
    group_events_max: 100,
    edges: &[],
    appends: &[],
    probes: &[],
    stays_down: false,
    looks: false,
    repeats: false,
    preemptions: 2,
    comes_to: &["stored", "ended in order"],
};

const TWO_EDGES: Scenario =
    Scenario { name: "two edges", edges: &[(AtOnce, &[1]), (AtOnce, &[2])], preemptions: 3, ..ROOMY };
const SMALL_GROUPS: Scenario = Scenario {
    name: "small groups",
    group_events_max: 2,
    edges: &[(AtOnce, &[1, 2, 1]), (OneByOne, &[1, 1])],
    ..ROOMY
};
const CLIENT_LEAVES: Scenario =
    Scenario { name: "a client leaves", edges: &[(GoesAway, &[1, 1]), (AtOnce, &[1])], preemptions: 3, ..ROOMY };
const CLOSES: Scenario =
    Scenario { name: "the queue is closed", edges: &[(Closes, &[1]), (Closes, &[1, 1]), (Closes, &[1])], ..ROOMY };

/// The first event of every request is the same one, sent again: while the first is queued, in its group, or after it.
const REPEATS: Scenario = Scenario {
    name: "repeats",
    repeats: true,
    edges: &[(OneByOne, &[1, 1]), (AtOnce, &[2, 1])],
    comes_to: &["stored", "stored already", "ended in order"],
    ..ROOMY
};
const REPEATS_IN_SMALL_GROUPS: Scenario = Scenario {
    name: "repeats in small groups",
    group_events_max: 1,
    edges: &[(AtOnce, &[1, 1]), (GoesAway, &[1])],
    ..REPEATS
};
const REPEATS_AT_A_FULL_DISK: Scenario = Scenario {
    name: "repeats at a full disk",
    edges: &[(OneByOne, &[1, 1]), (AtOnce, &[1])],
    appends: &[Full],
    comes_to: &["stored", "stored already", "failed: storage full", "refused: storage full", "ended in order"],
    ..REPEATS
};

const FULL_OF_EVENTS: Scenario = Scenario {
    name: "full of events",
    room: (2, 100),
    edges: &[(Closes, &[1]), (Closes, &[2]), (Closes, &[1])],
    comes_to: &["stored", "refused: queue full", "ended in order"],
    ..ROOMY
};
const FULL_OF_BYTES: Scenario = Scenario {
    name: "full of bytes",
    room: (100, 1),
    edges: &[(AtOnce, &[1]), (AtOnce, &[1])],
    preemptions: 3,
    ..FULL_OF_EVENTS
};

const COMMIT_FAILS: Scenario = Scenario {
    name: "a commit fails",
    edges: &[(OneByOne, &[1, 1]), (AtOnce, &[1, 1])],
    appends: &[Commits, Fails],
    stays_down: true,
    comes_to: &[
        "stored",
        "failed: unknown",
        "refused: stopping",
        "sent to nobody",
        "dropped with the channel",
        "ended by a failure",
    ],
    ..ROOMY
};
const WRITER_PANICS: Scenario = Scenario {
    name: "the writer panics",
    appends: &[Commits, Panics],
    // A panic drops the group, and so tells it, before the writer's end can say that it stops.
    stays_down: false,
    comes_to: &[
        "stored",
        "failed: unknown",
        "refused: stopping",
        "sent to nobody",
        "dropped with the channel",
        "ended by a panic",
    ],
    ..COMMIT_FAILS
};
const THREE_EDGES_FAIL: Scenario = Scenario {
    name: "a commit fails three edges",
    edges: &[(AtOnce, &[1]), (AtOnce, &[1]), (OneByOne, &[1, 1])],
    preemptions: 1,
    ..COMMIT_FAILS
};

const DISK_FULL: Scenario = Scenario {
    name: "the disk is full for a while",
    edges: &[(OneByOne, &[1, 1]), (AtOnce, &[1])],
    appends: &[Full],
    probes: &[Full],
    comes_to: &["stored", "failed: storage full", "refused: storage full", "ended in order"],
    ..ROOMY
};
const DISK_FAILS: Scenario = Scenario {
    name: "the disk is full and then fails",
    appends: &[Full, Full, Full],
    probes: &[Fails],
    stays_down: true,
    preemptions: 1,
    comes_to: &[
        "failed: storage full",
        "failed: unknown",
        "refused: storage full",
        "refused: stopping",
        "sent to nobody",
        "dropped with the channel",
        "ended by a failure",
        "ended in order",
    ],
    ..DISK_FULL
};

/// Whoever is alone knows how much there must be in the queue after each answer.
const ALONE: Scenario = Scenario { name: "alone", edges: &[(AtOnce, &[1, 2])], looks: true, preemptions: 4, ..ROOMY };
const ALONE_AT_A_FAILURE: Scenario = Scenario {
    name: "alone at a failure",
    appends: &[Fails],
    comes_to: &[
        "failed: unknown",
        "refused: stopping",
        "sent to nobody",
        "dropped with the channel",
        "ended by a failure",
    ],
    ..ALONE
};
const ALONE_AT_A_PANIC: Scenario = Scenario {
    name: "alone at a panic",
    appends: &[Panics],
    comes_to: &[
        "failed: unknown",
        "refused: stopping",
        "sent to nobody",
        "dropped with the channel",
        "ended by a panic",
    ],
    ..ALONE
};
const ALONE_AT_A_FULL_DISK: Scenario =
    Scenario { name: "alone at a full disk", appends: &[Full], comes_to: DISK_FULL.comes_to, ..ALONE };

#[test]
fn all_is_stored_in_order() {
    [&TWO_EDGES, &SMALL_GROUPS, &CLIENT_LEAVES, &CLOSES].into_iter().for_each(check);
}

#[test]
fn what_is_sent_again_is_one_event_with_one_answer() {
    [&REPEATS, &REPEATS_IN_SMALL_GROUPS, &REPEATS_AT_A_FULL_DISK].into_iter().for_each(check);
}

#[test]
fn a_full_queue_refuses_and_takes_no_more_than_fits() {
    [&FULL_OF_EVENTS, &FULL_OF_BYTES].into_iter().for_each(check);
}

#[test]
fn when_the_writer_ends_nobody_waits_for_ever() {
    [&COMMIT_FAILS, &WRITER_PANICS, &THREE_EDGES_FAIL].into_iter().for_each(check);
}

#[test]
fn a_full_disk_refuses_until_there_is_room() {
    [&DISK_FULL, &DISK_FAILS].into_iter().for_each(check);
}

#[test]
fn what_is_answered_is_no_more_in_the_queue() {
    [&ALONE, &ALONE_AT_A_FAILURE, &ALONE_AT_A_PANIC, &ALONE_AT_A_FULL_DISK].into_iter().for_each(check);
}

/// Each planted fault is found: otherwise the model would prove nothing.
#[test]
fn planted_faults_are_found() {
    for (fault, scenario, verdict) in [
        (Fault::ChannelKeepsRequests, &COMMIT_FAILS, "deadlock"),
        (Fault::ChannelKeepsRequests, &WRITER_PANICS, "deadlock"),
        (Fault::ParkerForgets, &TWO_EDGES, "deadlock"),
        (Fault::DropIsSilent, &COMMIT_FAILS, "deadlock"),
        (Fault::ChannelIsAStack, &SMALL_GROUPS, "the sequences are not in the order of the requests"),
        (Fault::AnswerIsRelaxed, &ALONE, "a request is answered, and still counted as in the queue"),
        (Fault::RoomLooksFree, &FULL_OF_EVENTS, "more is let in than there is room"),
        (Fault::RoomLooksFree, &FULL_OF_BYTES, "more is let in than there is room"),
        (Fault::AdditionIsTorn, &TWO_EDGES, "more room is given back than is taken"),
        (Fault::LogMiscounts, &TWO_EDGES, "a receipt that the log knows nothing of"),
        (Fault::LogForgetsItsGroup, &REPEATS, "one event is stored twice"),
        (Fault::LogKnowsBeforeCommit, &REPEATS_AT_A_FULL_DISK, "a repeat of what is not stored"),
    ] {
        let outcome = real::panic::catch_unwind(|| explore(scenario, fault));
        let panic = outcome.expect_err(scenario.name);
        let message = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        assert!(message.unwrap().contains(verdict), "{fault:?} in {}: {message:?}", scenario.name);
    }
}
