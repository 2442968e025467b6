//! hitlog takes web-analytics events over HTTP, answers 201 only when they are durable, and lets people read them
//! back. One process; SQLite is inside.
//!
//! # The path of an event
//!
//! 1. [`http`] reads the body, under a limit, into one buffer.
//! 2. [`event`] parses and validates it: bytes in, valid events or a rejection out.
//! 3. [`queue`] takes the request in, or refuses at once; it never waits.
//! 4. [`writer`] takes what already waits and has [`store`] commit it as one group.
//! 5. COMMIT returns; every waiter gets its receipt, together with its buffer.
//! 6. [`http`] writes the answer from the two, with public ids by [`event_id`].
//!
//! # What always holds
//!
//! - No answer before COMMIT. The events of a request are committed together or not at all.
//! - `received = committed + replayed + rejected + shed + unknown + in_flight`, in events, whenever nothing moves.
//! - Every buffer, queue, wait and page has a bound: a setting or a part of the contract with clients, both in
//!   [`config`], or, of what is small and of one room, a constant beside the code.
//! - A sequence is given once. After a storage error that leaves the disk in doubt nothing more is written.
//!
//! # The rooms, in reading order
//!
//! [`cli`] is where a process begins, [`app`] builds the rooms, [`config`] says how; then along the path: [`http`],
//! [`event`], [`queue`], [`writer`], [`store`], [`event_id`]; and [`ship`], which takes the log elsewhere. [`metrics`],
//! [`clock`], [`calendar`], [`numbers`], [`budget`], [`domain`], [`website`], [`visitor`], [`web`], [`command`] and
//! `allocator` serve whoever needs them, and beside the path stand the [`tools`] of the command line. Who may know whom
//! is held by `tests/it/architecture.rs`.

// Of what is shipped more is asked than of tests and benches.
#![warn(missing_docs, unreachable_pub)]
#![warn(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]
#![warn(clippy::needless_pass_by_value)]

mod allocator;
pub mod app;
pub mod budget;
pub mod calendar;
pub mod cli;
pub mod clock;
pub mod command;
pub mod config;
pub mod domain;
pub mod event;
pub mod event_id;
pub mod http;
pub mod metrics;
pub mod numbers;
pub mod queue;
pub mod ship;
pub mod store;
pub mod tools;
pub mod visitor;
pub mod web;
pub mod website;
pub mod writer;
