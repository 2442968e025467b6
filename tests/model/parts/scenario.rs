//! A scenario: who hands in what, what the log makes of it, and what it comes to in all of its schedules.

use real::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::{
    Fault,
    store::{Append, EVENT_BYTES, Log},
    world::World,
};
use crate::{
    queue::{Limits, Request, bounded},
    writer::{self, GroupLimits},
};

/// A thread that hands in requests, each with so many events.
pub type Edge = (Manner, &'static [usize]);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Hands all in, then waits for the answers.
    AtOnce,
    /// Waits for each answer before the next request.
    OneByOne,
    /// Hands all in, closes its end of the queue, then waits for the answers.
    Closes,
    /// Hands all in, and waits for nothing.
    GoesAway,
}

pub struct Scenario {
    pub name: &'static str,
    /// The queue has room for so many events, and for so many requests of one event.
    pub room: (usize, usize),
    /// A group has so many events at most, unless it is one request.
    pub group_events_max: usize,
    /// The last one is the thread that the others come from.
    pub edges: &'static [Edge],
    pub appends: &'static [Append],
    pub probes: &'static [Append],
    /// From the first failure that is told, the queue says that it takes nothing.
    pub stays_down: bool,
    /// Every edge looks at the depth when it has its answers, and at the metrics as they change.
    pub looks: bool,
    /// The first event of every request has the name of all the others'.
    pub repeats: bool,
    /// Preemptions in a schedule at most.
    pub preemptions: usize,
    /// What it comes to: this in some of the schedules, and nothing else in any.
    pub comes_to: &'static [&'static str],
}

/// One execution of one schedule.
fn run(scenario: &'static Scenario) {
    super::begin();
    let world = Arc::new(World::new(scenario));
    let (events_max, requests_max) = scenario.room;
    let limits = Limits { events_max, bytes_max: requests_max * (EVENT_BYTES + size_of::<Request>()) };
    let log = Log {
        limits,
        appends: scenario.appends.iter().copied().collect(),
        probes: scenario.probes.iter().copied().collect(),
        next_sequence: 1,
        named: None,
        stored: Arc::clone(&world.stored),
    };
    let (queue, requests) = bounded(limits, Arc::clone(&world.metrics));
    let group = GroupLimits { events_max: scenario.group_events_max, bytes_max: usize::MAX };
    let ended = |outcome: Result<(), String>| {
        super::set_ended();
        super::meet(match outcome.as_ref().map_err(String::as_str) {
            Ok(()) => "ended in order",
            Err("failed as planned") => "ended by a failure",
            Err("the writer panicked: as planned") => "ended by a panic",
            other => panic!("the writer ended with {other:?}"),
        });
    };
    let writer = writer::spawn(log, requests, group, Arc::default(), ended).unwrap();
    let manners = || scenario.edges.iter().map(|(manner, _)| *manner);
    // Where the edges close the queue, one of them shall be the last to do so.
    let keeper = manners().all(|manner| manner != Manner::Closes).then(|| queue.clone());
    let last = scenario.edges.len() - 1;
    let others: Vec<_> = (0..last)
        .map(|at| {
            let (world, queue) = (Arc::clone(&world), queue.clone());
            loom::thread::spawn(move || world.edge(at, queue))
        })
        .collect();
    world.edge(last, queue);
    for other in others {
        other.join().unwrap();
    }
    if let Some(queue) = keeper.filter(|_| manners().all(|manner| manner != Manner::GoesAway)) {
        let depth = queue.depth();
        assert_eq!((depth.events, depth.bytes), (0, 0), "what is left in the queue when all is answered");
    }
    writer.join().unwrap();
    world.settle();
}

/// Runs all schedules of a scenario, and returns how many there are.
pub fn explore(scenario: &'static Scenario, fault: Fault) -> usize {
    super::plant(fault, scenario.looks);
    let explored = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&explored);
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(scenario.preemptions);
    builder.check(move || {
        count.fetch_add(1, Ordering::Relaxed);
        run(scenario);
    });
    explored.load(Ordering::Relaxed)
}

/// Runs all schedules of a scenario, and holds that it comes to what it says.
pub fn check(scenario: &'static Scenario) {
    let started = real::time::Instant::now();
    let explored = explore(scenario, Fault::None);
    println!("{}: {explored} schedules in {:.1?}", scenario.name, started.elapsed());
    assert_eq!(super::met(), BTreeSet::from_iter(scenario.comes_to.iter().copied()), "{}", scenario.name);
}
