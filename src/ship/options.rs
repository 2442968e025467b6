//! How events are shipped.

use std::{path::PathBuf, time::Duration};

/// How events are shipped; values and reasons stand in the configuration.
#[derive(Debug, Clone)]
pub struct ShipOptions {
    /// The server's URL.
    pub url: String,
    /// The user there.
    pub user: String,
    /// The file with that user's password.
    pub password_file: Option<PathBuf>,
    /// The database there.
    pub database: String,
    /// The table there.
    pub table: String,
    /// Who may vouch for the server, in the place of those that the system trusts.
    pub ca_file: Option<PathBuf>,
    /// Whether blocks are compressed; `None`: unless the server is on this machine.
    pub is_zstd: Option<bool>,
    /// The number of this hitlog among those that ship to one table.
    pub node: u32,
    /// Most events of a range.
    pub rows_max: u64,
    /// Most bytes of a range.
    pub bytes_max: usize,
    /// How often what has come in is shipped.
    pub interval: Duration,
    /// The longest that an insert may take.
    pub timeout: Duration,
    /// Events that the target may refuse before shipping pauses.
    pub dead_max: u64,
    /// How long erasures are gathered before they are taken out of the target's files.
    pub erasure_gather: Duration,
}
