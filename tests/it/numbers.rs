//! `GET /api/v1/stats`, its series, lists, goals and what is live count what docs/numbers.md says, to the digit.
//!
//! The real daemon with tiny segments takes random events, which are sealed, erased, expired, and left by crashes; an
//! oracle that was written from that page alone has them in one list. Both are asked the same random questions.
//! `HITLOG_NUMBERS_SEED` repeats what failed.

mod by_hand;
mod calendar;
mod compare;
mod compare_lists;
mod dice;
mod driven;
mod estimated;
mod fault;
mod filed;
mod filters;
mod goals;
mod lists;
mod lists_by_hand;
mod live;
mod oracle;
mod planted;
mod planted_lists;
mod questions;
mod site;
mod traffic;
mod zones;
