//! crossbeam's unbounded channel with one receiver, as far as its documentation goes: first in, first out; a send
//! happens before its receive; whoever sends after the receiver is gone gets the message back, and what was queued is
//! dropped with it; whoever receives after the last sender is gone gets what is queued, and then an error.

use core::mem::take;
use real::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::Ordering::{AcqRel, Acquire, Release},
    },
    vec::Vec,
};

use super::{Fault, Steps, meet, planted};

pub struct SendError<T>(pub T);

#[derive(Debug, PartialEq, Eq)]
pub enum TryRecvError {
    Empty,
    Disconnected,
}

struct State<T> {
    queued: VecDeque<T>,
    senders: usize,
    has_receiver: bool,
}

impl<T> State<T> {
    fn take(&mut self) -> Result<T, TryRecvError> {
        let next = if planted(Fault::ChannelIsAStack) { self.queued.pop_back() } else { self.queued.pop_front() };
        next.ok_or(if self.senders == 0 { TryRecvError::Disconnected } else { TryRecvError::Empty })
    }
}

pub fn unbounded<T>() -> (Sender<T>, Receiver<T>) {
    let state = State { queued: VecDeque::new(), senders: 1, has_receiver: true };
    let state = Arc::new(Steps::new(state));
    (Sender(Arc::clone(&state)), Receiver(state))
}

pub struct Sender<T>(Arc<Steps<State<T>>>);

impl<T> Sender<T> {
    pub fn send(&self, message: T) -> Result<(), SendError<T>> {
        self.0.step(Release, |state| {
            if !state.has_receiver {
                meet("sent to nobody");
                return Err(SendError(message));
            }
            state.queued.push_back(message);
            Ok(())
        })
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        // There is a sender before and after.
        self.0.change(|state| state.senders += 1);
        Self(Arc::clone(&self.0))
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.0.step(Release, |state| state.senders -= 1);
    }
}

pub struct Receiver<T>(Arc<Steps<State<T>>>);

impl<T> Receiver<T> {
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        self.0.step(Acquire, State::take)
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let queued = self.0.step(AcqRel, |state| {
            state.has_receiver = false;
            if planted(Fault::ChannelKeepsRequests) { VecDeque::new() } else { take(&mut state.queued) }
        });
        if !queued.is_empty() {
            meet("dropped with the channel");
        }
        drop(Vec::from(queued));
    }
}
