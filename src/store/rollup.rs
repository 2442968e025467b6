//! Numbers of a run of events: page views, visits, visitors and what they are filed under.
//!
//! What a question is answered from. A sealed segment keeps it in its file, made when the segment is sealed: of every
//! website the sums of each quarter of an hour, and all events once more in a form that is small and fast to go
//! through, as **fragments**: the events of one session and visitor between two pauses, as far as they are in this
//! segment. A visit that goes on in another segment is put together from its fragments when it is asked for, so no
//! file depends on another. What a word means is in `docs/numbers.md`.
//!
//! Pure but for reading and writing its tables. It must not know which segments there are, nor what is hidden in them.

mod answer;
mod attributes;
mod block;
mod build;
mod bytes;
mod counts;
mod dictionary;
mod dimension;
mod file;
mod filter;
mod hit;
mod list;
mod lists;
mod memory;
mod pattern;
mod source;
mod visit;
mod visitors;
mod write;

pub(crate) use self::{
    answer::{Answer, Collector, QUARTER_MS, Quarter, first_whole_quarter, quarter_of},
    attributes::property,
    block::{FRAGMENTS_MAX, Fragments, Needed},
    bytes::Damaged,
    dictionary::{Dictionaries, Values},
    file::{BlockEntry, Rollup, RollupError, read_block, read_keys, read_some},
    filter::Filters,
    hit::{FragmentKey, Hit, PAUSE_MAX_MS},
    list::{Group, Grouping, KeptGroup, List, ListKind, Lister, OTHER},
    memory::MemoryPiece,
    visit::{Evaluation, Selection, Sink, Visit},
    visitors::{Visitors, high},
    write::{Made, make, verify, write},
};
pub use self::{
    counts::Counts,
    dimension::{Dimension, Own},
    filter::Filter,
};

#[cfg(test)]
mod tests;
