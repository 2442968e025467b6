//! Bytes in, valid events or a rejection out.
//!
//! Owns the rules of one event (which members it has, which values they take) and the form that a valid event
//! keeps for the rest of its way: one buffer per request, the one its body was read into, and ranges of it.
//! Pure: no clock, no I/O, no knowledge of HTTP, the queue or the store. Nothing later validates again.

mod anonymous;
mod arrival;
mod body;
mod field;
mod fields;
mod id_hash;
mod intake;
pub mod json;
mod naming;
mod parse;
mod record;
mod rejection;
mod rules;
mod scan;
mod tape;
pub mod time;
mod values;
mod warning;
mod web_url;

pub use anonymous::NAME_KEYS;
pub use arrival::Arrival;
pub use id_hash::{IdHash, IdHasher, LookedUp, Original, Repeat};
pub use intake::{Gpc, HostsPolicy, Intake, bare_host};
pub use naming::Naming;
pub use parse::{ParsedBatch, parse_batch, parse_event, parse_named_event};
pub use record::{DeviceType, EventFlags, EventRow, EventType, GpcCounts, SERVER_ID_BYTES, SenderFacts, ValidEvents};
pub use rejection::{Faults, GPC_REFUSED, Rejection};
pub use rules::Rules;
pub use tape::BODY_PADDING;
pub use values::is_tracking_code;
pub use warning::{Warning, WarningCode, Warnings};
