//! What clients call their events, for as long as one may be sent again: the ids of the last while, each as a hash.
//!
//! The truth is in the rows of the events. What is here can be made anew from them, but for what was erased or has
//! expired since: so it is known by an id whether its event is stored exactly when it is. The newest ids are in a table
//! of the writer's (`table`); full tables are laid down as sorted runs (`run`), which are merged (`merge`) by a thread
//! (`keeper`); who looks for an id does so in the set of one moment (`known`). Must not know segments.

mod filter;
mod keeper;
mod known;
mod merge;
mod paths;
mod run;
mod table;

pub(crate) use self::{
    keeper::{IdKeeper, Remake},
    known::{Found, IdSet, Ids, new_table},
    merge::merge,
    paths::{remove_runs, runs},
    run::{Age, Forgotten, IdRun, Span, UNFINISHED, lay_down, open_new},
    table::{Entry, IdTable},
};

#[cfg(test)]
mod tests;
