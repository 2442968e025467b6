//! Bodies of requests: read under a limit whatever the headers say, in time, unpacked, and within a memory that all
//! connections share.

mod decode;
mod memory;
mod read;

pub(super) use memory::{BodyBytes, BodyError};
pub use read::{Bodies, BodyLimits};
pub(super) use read::{InboundBody, Rest};
