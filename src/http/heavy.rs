//! Work that takes long leaves the threads that serve others: bodies that are large, packed or as they are.
//!
//! Work that is cut into steps takes turns: after each step of what has begun, something new gets its first one, so
//! that small work is not kept waiting by large.

use std::{
    collections::VecDeque,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    thread::{self, JoinHandle},
};

use crossbeam_channel::{Receiver, Sender};
use tokio::sync::oneshot;

/// One step; whether it was the last.
type Work = Box<dyn FnMut() -> bool + Send>;

/// The threads for such work. What waits for them is bounded by the memory of bodies, of which each has some. Dropping
/// it ends them once everything is done.
pub struct Heavy {
    first: Sender<Work>,
    last: Sender<Work>,
}

/// When work gets its first step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// As soon as the step at hand is done.
    First,
    /// When nothing else is to be done.
    Last,
}

impl Heavy {
    /// Starts the threads.
    pub fn spawn(threads: usize) -> io::Result<(Self, Vec<JoinHandle<()>>)> {
        let (first, new) = crossbeam_channel::unbounded();
        let (last, later) = crossbeam_channel::unbounded();
        let start = |number| {
            let (new, later) = (Receiver::clone(&new), Receiver::clone(&later));
            thread::Builder::new().name(format!("bodies-{number}")).spawn(move || take_turns(&new, &later))
        };
        Ok((Self { first, last }, (0..threads).map(start).collect::<Result<_, _>>()?))
    }

    /// Runs `step` until it returns something. `None` if it panicked.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        turn: Turn,
        mut step: impl FnMut() -> Option<T> + Send + 'static,
    ) -> Option<T> {
        let (sender, result) = oneshot::channel();
        let mut sender = Some(sender);
        let work: Work = Box::new(move || {
            // Whoever waited may be gone.
            if sender.as_ref().is_none_or(oneshot::Sender::is_closed) {
                return true;
            }
            let Some(result) = step() else { return false };
            if let Some(sender) = sender.take() {
                let _ = sender.send(result);
            }
            true
        });
        let line = if turn == Turn::First { &self.first } else { &self.last };
        line.send(work).ok()?;
        result.await.ok()
    }
}

fn take_turns(new: &Receiver<Work>, later: &Receiver<Work>) {
    let mut begun: VecDeque<Work> = VecDeque::new();
    loop {
        let mut newcomer = new.try_recv().ok();
        if newcomer.is_none() && begun.is_empty() {
            newcomer = later.try_recv().ok();
        }
        if newcomer.is_none() && begun.is_empty() {
            // Both lines end together.
            let next = crossbeam_channel::select! {
                recv(new) -> work => work,
                recv(later) -> work => work,
            };
            newcomer = match next.or_else(|_| new.try_recv()).or_else(|_| later.try_recv()) {
                Ok(work) => Some(work),
                Err(_) => return,
            };
        }
        for mut work in [newcomer, begun.pop_front()].into_iter().flatten() {
            match catch_unwind(AssertUnwindSafe(&mut work)) {
                Ok(true) => {}
                Ok(false) => begun.push_back(work),
                // Whoever waits for it hears that its work is gone.
                Err(_) => tracing::error!("reading a body panicked"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[tokio::test]
    async fn small_work_is_not_kept_waiting_by_large() {
        let (heavy, threads) = Heavy::spawn(1).unwrap();
        let (begun, has_begun) = mpsc::channel();
        let (stop, stopped) = mpsc::channel();
        let large = heavy.run(Turn::First, move || {
            let _ = begun.send(());
            stopped.try_recv().ok()
        });
        let small = async {
            has_begun.recv().unwrap();
            let answer = heavy.run(Turn::First, || Some(7)).await;
            stop.send(()).unwrap();
            answer
        };
        assert_eq!(tokio::join!(large, small), (Some(()), Some(7)));
        assert_eq!(heavy.run::<()>(Turn::First, || panic!("as planned")).await, None);
        assert_eq!(heavy.run(Turn::Last, || Some(1)).await, Some(1), "the thread goes on");
        drop(heavy);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}
