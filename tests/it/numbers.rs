//! `GET /api/v1/stats` and `/api/v1/stats/series` count what docs/numbers.md says, to the digit.
//!
//! The real daemon with tiny segments takes random events, which are sealed, erased, expired, and left by crashes; an
//! oracle that was written from that page alone has them in one list. Both are asked the same random questions.
//! `HITLOG_NUMBERS_SEED` repeats what failed.

mod by_hand;
mod calendar;
mod compare;
mod dice;
mod driven;
mod fault;
mod filed;
mod filters;
mod oracle;
mod planted;
mod questions;
mod site;
mod traffic;
mod zones;
