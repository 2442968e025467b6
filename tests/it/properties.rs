//! Whatever bytes come in: hitlog takes and refuses exactly what the contract says, answers in well-formed HTTP, and
//! goes on.
//!
//! Each target makes near-valid inputs by a grammar, damages some of them, and compares what hitlog does with a model
//! of the contract that is written here a second time. It runs for `HITLOG_PROPERTY_SECONDS`, or 6 seconds, with seeds
//! of its own each time; what fails is made as small as it goes and printed. Beside each target runs its control: the
//! same comparison with one rule of the model off, or with a fault planted in the answer, must fail in its time. One
//! rule after the other, this shows that the inputs reach every rule and that the comparison sees it. What reaches a
//! rule with few bytes is kept in `properties/corpus`; each run begins with it and builds on it.

mod answers;
mod corpus;
mod cursors;
mod edge;
mod event_text;
mod ids;
mod json;
mod json_text;
mod listing;
mod model;
mod mutation;
mod parse;
mod query;
mod query_model;
mod requests;
mod runner;
