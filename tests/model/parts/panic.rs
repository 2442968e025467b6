//! `std::panic`, which tells the writer's panic, planned by the model, from loom's verdict on a schedule.

use core::{any::Any, cell::Cell, panic::UnwindSafe};
pub use real::panic::AssertUnwindSafe;
use real::{boxed::Box, panic::resume_unwind, thread};

real::thread_local! {
    static PLANNED: Cell<bool> = const { Cell::new(false) };
}

/// Panics as a part of the model, without a message on stderr for each of the schedules.
pub fn panic_as_planned() -> ! {
    PLANNED.set(true);
    resume_unwind(Box::new("as planned"))
}

/// Whether loom has given up on this execution and only unwinds. Then nothing may ask it for a turn any more.
pub fn is_lost() -> bool {
    thread::panicking() && !PLANNED.get()
}

/// Catches what is planned; a verdict goes on its way.
pub fn catch_unwind<R>(run: impl FnOnce() -> R + UnwindSafe) -> Result<R, Box<dyn Any + Send>> {
    let outcome = real::panic::catch_unwind(run);
    match outcome {
        Err(verdict) if !PLANNED.take() => resume_unwind(verdict),
        outcome => outcome,
    }
}
