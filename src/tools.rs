//! The command-line tools for whoever keeps hitlog's data: list, check, back up, export, import, count, repair; and
//! what asks a running hitlog over HTTP: tail, ship.
//!
//! Owns what people and programs see of them: tables, lines of JSON and CSV, progress bars, and the words of errors.
//! Most only read, and may run while hitlog serves; the import and the repairs have the data directory to themselves.
//! Must not know SQLite or the configuration: the store reads and writes, and each tool is given its own few options.

pub mod backup;
pub mod check;
pub mod client;
pub mod export;
pub mod export_websites;
pub mod import;
pub mod numbers;
mod progress;
pub mod quarantine;
pub mod segments;
pub mod ship;
pub mod stats;
mod table;
pub mod tail;
pub mod tracker;
pub mod write_off;

use std::io::{self, Write};

use crate::store::{OpenError, offline::OfflineError, repair::RepairError};

/// `Ok(true)` if all is well, `Ok(false)` if a tool has done its work and found damage.
pub type Outcome = Result<bool, ToolError>;

/// Why a tool could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// What was asked for makes no sense here.
    #[error("{0}")]
    Arguments(String),
    /// The data directory could not be read.
    #[error(transparent)]
    Offline(#[from] OfflineError),
    /// The store could not be opened for writing.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// A segment could not be written off, or a file in quarantine not be dealt with.
    #[error(transparent)]
    Repair(#[from] RepairError),
    /// Standard output could not be written.
    #[error("cannot write to standard output: {0}")]
    Output(io::Error),
    /// Whoever read standard output has seen enough.
    #[error("nobody reads standard output any more")]
    OutputClosed,
    /// The work is done, and standard output did not take what there is to tell of it.
    #[error("it is done, but standard output could not be written ({error}). What it was to say:\n{text}")]
    Untold {
        /// Why.
        error: io::Error,
        /// What was to be told, and what follows from it.
        text: String,
    },
    /// What was to go could not be told before, and so nothing was done.
    #[error("nothing was changed, because standard output could not be written, which says what goes: {0}")]
    Unannounced(io::Error),
    /// A running hitlog cannot be reached, or says no.
    #[error("{0}")]
    Remote(String),
    /// What can be gone on with was cut short.
    #[error("{error}\nGo on with: {go_on}")]
    CutShort {
        /// Why.
        error: Box<Self>,
        /// The command that goes on.
        go_on: String,
    },
    /// The import was refused or cut short.
    #[error("{0}")]
    Import(String),
}

/// Writes to standard output.
pub fn print(bytes: &[u8]) -> Result<(), ToolError> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => ToolError::OutputClosed,
        _ => ToolError::Output(error),
    })
}

/// Tells of work that is done, whoever reads of it: a failure must not look as though it were not, and have it done
/// once more. `then` is what follows from the work for whoever could not be told.
fn tell_done(text: &str, then: &str) -> Result<(), ToolError> {
    match unless_closed(print(text.as_bytes())) {
        Err(ToolError::Output(error)) => {
            Err(ToolError::Untold { error, text: format!("{text}{then}").trim_end().to_owned() })
        }
        told => told,
    }
}

/// Tells what goes with work that cannot be undone, which is not begun if that can't be told.
fn announce(text: &str) -> Result<(), ToolError> {
    print(text.as_bytes()).map_err(|error| match error {
        ToolError::Output(error) => ToolError::Unannounced(error),
        ToolError::OutputClosed => ToolError::Unannounced(io::ErrorKind::BrokenPipe.into()),
        other => other,
    })
}

/// Passes over that nobody reads any more, where the exit code says more than that.
fn unless_closed(printed: Result<(), ToolError>) -> Result<(), ToolError> {
    match printed {
        Err(ToolError::OutputClosed) => Ok(()),
        printed => printed,
    }
}

/// Writes a value as JSON to standard output.
fn print_json(value: &impl serde::Serialize) -> Result<(), ToolError> {
    let mut out = serde_json::to_vec_pretty(value).map_err(|error| ToolError::Output(error.into()))?;
    out.push(b'\n');
    print(&out)
}
