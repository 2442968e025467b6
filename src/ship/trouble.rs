//! Why something did not work, as it matters for what is done next.

use super::client::{Class, Failure, class};
use crate::store::{CatalogError, ReadError};

/// Why something did not work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Trouble {
    /// It may work later, by itself.
    #[error("{0}")]
    Wait(String),
    /// Somebody has to do something.
    #[error("{0}")]
    Pause(String),
    /// The server does not take these events.
    #[error("{0}")]
    Data(String),
    /// The events are not here any more.
    #[error("their segment is damaged, or was given up")]
    Gone,
    /// Somebody has asked for a new beginning.
    #[error("begun anew")]
    Again,
    /// hitlog's own storage has failed, or hitlog stops: nothing more is done.
    #[error("{0}")]
    End(String),
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        let words = failure.to_string();
        match class(&failure) {
            Class::Retry => Self::Wait(words),
            Class::Pause => Self::Pause(words),
            Class::Data => Self::Data(words),
        }
    }
}

impl From<CatalogError> for Trouble {
    fn from(error: CatalogError) -> Self {
        match error {
            CatalogError::Unknown => Self::End("hitlog's own catalog could not be written".into()),
            error => Self::Wait(format!("hitlog's own catalog could not be written: {error}")),
        }
    }
}

impl From<ReadError> for Trouble {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Stopped => Self::End("hitlog stops".into()),
            error => Self::Wait(format!("events could not be read: {error}")),
        }
    }
}
