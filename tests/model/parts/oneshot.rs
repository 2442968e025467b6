//! tokio's oneshot channel: what is sent is received once; whoever waits is woken by the value, or by the sender's
//! going without one.

use core::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
};
use real::sync::{
    Arc,
    atomic::Ordering::{AcqRel, Acquire, Relaxed, Release},
};

use super::{Fault, Steps, has_ended, panic::is_lost, planted};

#[derive(Debug)]
pub struct RecvError;

struct State<T> {
    value: Option<T>,
    is_done: bool,
    has_receiver: bool,
    waiter: Option<Waker>,
}

impl<T> State<T> {
    fn finish(&mut self) -> Option<Waker> {
        self.is_done = true;
        let waiter = self.waiter.take();
        assert!(waiter.is_none() || !has_ended(), "the writer said that it ended, and somebody still waited");
        waiter
    }
}

pub fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let state = State { value: None, is_done: false, has_receiver: true, waiter: None };
    let state = Arc::new(Steps::new(state));
    (Sender(Some(Arc::clone(&state))), Receiver(state))
}

/// Empty once it has sent.
pub struct Sender<T>(Option<Arc<Steps<State<T>>>>);

impl<T> Sender<T> {
    pub fn send(mut self, value: T) -> Result<(), T> {
        let Some(state) = self.0.take() else { return Err(value) };
        let ordering = if planted(Fault::AnswerIsRelaxed) { Relaxed } else { Release };
        let waiter = state.step(ordering, |state| {
            if !state.has_receiver {
                return Err(value);
            }
            state.value = Some(value);
            Ok(state.finish())
        })?;
        if let Some(waiter) = waiter {
            waiter.wake();
        }
        Ok(())
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let Some(state) = self.0.take().filter(|_| !is_lost()) else { return };
        if let Some(waiter) = state.step(Release, State::finish).filter(|_| !planted(Fault::DropIsSilent)) {
            waiter.wake();
        }
    }
}

pub struct Receiver<T>(Arc<Steps<State<T>>>);

impl<T> Future for Receiver<T> {
    type Output = Result<T, RecvError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.step(Acquire, |state| {
            if state.is_done {
                return Poll::Ready(state.value.take().ok_or(RecvError));
            }
            state.waiter = Some(context.waker().clone());
            Poll::Pending
        })
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let value = self.0.step(AcqRel, |state| {
            state.has_receiver = false;
            state.waiter = None;
            state.value.take()
        });
        drop(value);
    }
}
