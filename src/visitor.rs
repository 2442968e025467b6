//! What hitlog says of visitors who say nothing of themselves: an id that lasts a day, and what address and user agent
//! tell of device and country.
//!
//! Owns the salts, and the only place where a visitor's address is used: nothing here keeps it, logs it or hands it on,
//! and once the salt of a day is gone nobody can tell whose ids were made with it. Must not know HTTP: it is given an
//! address and the texts of a few headers.

mod agent;
mod country;
mod ids;
mod salts;
mod seen;

pub use agent::{AGENT_BYTES_MAX, Agent, AgentTexts};
pub use country::{Countries, CountriesError, Country};
pub use ids::{Sender, VisitorIds};
