//! Looks, twice a second, whether the data directory is where it was opened; and, more seldom, what is in it.

use std::{
    thread::{self, JoinHandle},
    time::Duration,
};

use crossbeam_channel::{RecvTimeoutError, Sender};

use super::storage::Storage;
use crate::store::{
    error::{OnFailure, OpenError},
    format::DataDir,
};

/// The pause between two looks, each of which takes some microseconds.
pub(crate) const WATCH_PAUSE: Duration = Duration::from_millis(500);

/// The thread that looks.
pub(crate) struct Watch {
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

impl Watch {
    /// Starts the thread. It calls `on_failure` with the reason, and ends, when the directory is lost.
    pub(crate) fn spawn(directory: DataDir, mut storage: Storage, on_failure: OnFailure) -> Result<Self, OpenError> {
        let (stop, stopped) = crossbeam_channel::bounded::<()>(0);
        let look = move || {
            storage.look_if_due();
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(WATCH_PAUSE) {
                if let Err(lost) = directory.mend_lock() {
                    on_failure(lost.to_string());
                    return;
                }
                storage.look_if_due();
            }
        };
        let thread = thread::Builder::new().name("watch".into()).spawn(look).map_err(OpenError::Thread)?;
        Ok(Self { stop, thread })
    }

    /// Ends the thread.
    pub(crate) fn stop(self) {
        drop(self.stop);
        if self.thread.join().is_err() {
            tracing::error!("the watch over the data directory panicked");
        }
    }
}
