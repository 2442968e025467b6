//! Whose turn it is on the machine. Tests run side by side, as many at a time as .cargo/config.toml says; one that
//! measures how long something takes runs alone.

use std::{
    cell::RefCell,
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    thread,
};

static MACHINE: RwLock<()> = RwLock::new(());

thread_local! {
    static TURN: RefCell<Turn> = const { RefCell::new(Turn::None) };
}

/// What a test's thread has taken.
enum Turn {
    None,
    Shared(#[expect(dead_code, reason = "held until the thread ends")] RwLockReadGuard<'static, ()>),
    Alone,
}

/// Waits until no test runs alone, and lets none do so until the test that calls has ended, which is when its thread
/// does. Whatever starts a process or makes files calls it.
pub fn share() {
    // A thread that a test has started has no name, and its test has a turn already.
    if thread::current().name().is_some() && TURN.with_borrow(|turn| matches!(turn, Turn::None)) {
        let shared = MACHINE.read().unwrap_or_else(PoisonError::into_inner);
        TURN.set(Turn::Shared(shared));
    }
}

/// Waits until no other test has a turn, and lets none have one until this is dropped.
pub fn alone() -> Alone {
    // One test after the other may run in this thread, and then the one before has left its share.
    TURN.set(Turn::None);
    let machine = MACHINE.write().unwrap_or_else(PoisonError::into_inner);
    TURN.set(Turn::Alone);
    Alone { _machine: machine }
}

/// The machine, for one test.
pub struct Alone {
    _machine: RwLockWriteGuard<'static, ()>,
}

impl Drop for Alone {
    fn drop(&mut self) {
        TURN.set(Turn::None);
    }
}
