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

use crossbeam_channel::{Receiver, Sender, TryRecvError};
use tokio::sync::oneshot;

/// One step; whether it was the last.
type Work = Box<dyn FnMut() -> bool + Send>;

/// The threads for such work. What waits for them is bounded by the memory of bodies, of which each has some. Dropping
/// it ends them once everything is done.
pub struct Heavy {
    work: Sender<Work>,
}

impl Heavy {
    /// Starts the threads.
    pub fn spawn(threads: usize) -> io::Result<(Self, Vec<JoinHandle<()>>)> {
        let (work, receiver) = crossbeam_channel::unbounded();
        let start = |number| {
            let receiver = Receiver::clone(&receiver);
            thread::Builder::new().name(format!("bodies-{number}")).spawn(move || take_turns(&receiver))
        };
        Ok((Self { work }, (0..threads).map(start).collect::<Result<_, _>>()?))
    }

    /// Runs `step` until it returns something. `None` if it panicked.
    pub(super) async fn run<T: Send + 'static>(
        &self,
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
        self.work.send(work).ok()?;
        result.await.ok()
    }
}

fn take_turns(new: &Receiver<Work>) {
    let mut begun: VecDeque<Work> = VecDeque::new();
    loop {
        let newcomer = match new.try_recv() {
            Ok(work) => Some(work),
            Err(TryRecvError::Empty) if begun.is_empty() => match new.recv() {
                Ok(work) => Some(work),
                Err(_) => return,
            },
            Err(TryRecvError::Disconnected) if begun.is_empty() => return,
            Err(_) => None,
        };
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
        let large = heavy.run(move || {
            let _ = begun.send(());
            stopped.try_recv().ok()
        });
        let small = async {
            has_begun.recv().unwrap();
            let answer = heavy.run(|| Some(7)).await;
            stop.send(()).unwrap();
            answer
        };
        assert_eq!(tokio::join!(large, small), (Some(()), Some(7)));
        assert_eq!(heavy.run::<()>(|| panic!("as planned")).await, None);
        assert_eq!(heavy.run(|| Some(1)).await, Some(1), "the thread goes on");
        drop(heavy);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}
