//! The command-line tools for whoever keeps hitlog's data: list, check, back up, export, import, count, repair.
//!
//! Owns what people and programs see of them: tables, lines of JSON and CSV, progress bars, and the words of errors.
//! Most only read, and may run while hitlog serves; the import and the repairs have the data directory to themselves.
//! Must not know SQLite or the configuration: the store reads and writes, and each tool is given its own few options.

pub mod backup;
pub mod check;
pub mod export;
pub mod export_websites;
pub mod import;
mod progress;
pub mod quarantine;
pub mod segments;
pub mod stats;
mod table;
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
    /// The import was refused or cut short.
    #[error("{0}")]
    Import(String),
}

/// Writes to standard output.
fn print(bytes: &[u8]) -> Result<(), ToolError> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => ToolError::OutputClosed,
        _ => ToolError::Output(error),
    })
}

/// Writes a value as JSON to standard output.
fn print_json(value: &impl serde::Serialize) -> Result<(), ToolError> {
    let mut out = serde_json::to_vec_pretty(value).map_err(|error| ToolError::Output(error.into()))?;
    out.push(b'\n');
    print(&out)
}
