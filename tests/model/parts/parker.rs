//! crossbeam's parker: whoever is unparked while awake does not sleep the next time.

use real::{
    sync::{
        Arc,
        atomic::Ordering::{AcqRel, Release},
    },
    time::Duration,
};

use super::{Fault, Steps, clock, panic::is_lost, planted};

#[derive(Default)]
struct State {
    has_token: bool,
    sleeper: Option<loom::thread::Thread>,
}

#[derive(Default)]
pub struct Parker(Unparker);

#[derive(Clone)]
pub struct Unparker(Arc<Steps<State>>);

impl Default for Unparker {
    fn default() -> Self {
        Self(Arc::new(Steps::new(State::default())))
    }
}

impl Parker {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn unparker(&self) -> &Unparker {
        &self.0
    }

    pub fn park(&self) {
        let Unparker(state) = &self.0;
        let is_awake = || {
            state.step(AcqRel, |state| {
                state.sleeper = (!state.has_token).then(loom::thread::current);
                core::mem::take(&mut state.has_token)
            })
        };
        while !is_awake() {
            loom::thread::park();
        }
    }

    /// Any timeout may end before the next unparking: to sleep and then be woken is to have begun later.
    pub fn park_timeout(&self, timeout: Duration) {
        let is_awake = self.0.0.step(AcqRel, |state| core::mem::take(&mut state.has_token));
        if !is_awake {
            clock::pass(timeout);
        }
    }
}

impl Unparker {
    pub fn unpark(&self) {
        let sleeper = self.0.step(Release, |state| {
            let sleeper = state.sleeper.take();
            state.has_token = sleeper.is_some() || !planted(Fault::ParkerForgets);
            sleeper
        });
        if let Some(sleeper) = sleeper.filter(|_| !is_lost()) {
            sleeper.unpark();
        }
    }
}
