//! Erasures, as the target follows them.
//!
//! In order: when everything up to an erasure's mark is there, its events are masked, which takes them out of every
//! answer at once. What is masked is taken out of the files later, many erasures at a time, because that rewrites them;
//! an erasure is done when no file is left that may hold its events.

use std::{
    future::{Future, pending},
    sync::Arc,
    time::Duration,
};

use tokio::{task::JoinSet, time::Instant};

use super::{
    flight::Line,
    server::{Place, condition},
    trouble::Trouble,
    wait::{self, Wait},
};
use crate::{
    clock::now_ms,
    store::{ShipChange, ShipErasure, ShipErasureState, Shipping},
};

/// Erasures that one statement is of.
const AT_ONCE_MAX: usize = 100;
/// How often it is looked whether the target has ended something.
const POLL: Duration = Duration::from_secs(2);

/// How long it is waited after something has failed.
const FAILED_PAUSE: Duration = Duration::from_secs(30);

/// One of the two things that are done for erasures, each for itself: files are rewritten for minutes, and what is new
/// must be masked meanwhile.
pub(super) struct Following {
    work: JoinSet<Result<bool, Trouble>>,
    /// When it is looked next whether there is anything to do.
    at: Instant,
}

impl Following {
    pub(super) fn new() -> Self {
        Self { work: JoinSet::new(), at: Instant::now() }
    }

    /// Begins, if it is time and nothing is under way; and looks again after the interval.
    pub(super) fn begin<W>(&mut self, interval: Duration, work: impl FnOnce() -> W)
    where
        W: Future<Output = Result<bool, Trouble>> + Send + 'static,
    {
        if self.work.is_empty() && Instant::now() >= self.at {
            self.at = Instant::now() + interval;
            self.work.spawn(work());
        }
    }

    /// When to look again; `None` while something is under way.
    pub(super) fn due(&self) -> Option<Instant> {
        self.work.is_empty().then_some(self.at)
    }

    /// Waits until what is under way has ended: for ever, if nothing is. What keeps an erasure from being followed
    /// keeps nothing from being shipped.
    pub(super) async fn ended(&mut self, shipping: &Shipping) -> Result<(), Trouble> {
        let Some(ended) = self.work.join_next().await else { return pending().await };
        let why = match ended {
            Ok(Ok(has_done)) => {
                if has_done {
                    self.at = Instant::now();
                }
                return Ok(());
            }
            Ok(Err(Trouble::Wait(why) | Trouble::Pause(why) | Trouble::Data(why))) => why,
            Ok(Err(end)) => return Err(end),
            Err(error) => error.to_string(),
        };
        self.at = Instant::now() + FAILED_PAUSE;
        wait::tell(shipping, &format!("an erasure could not be followed yet: {why}"));
        Ok(())
    }
}

/// Masks the erasures whose events are all at the target. Returns whether there were any.
pub(super) async fn mask_due(line: Arc<Line>) -> Result<bool, Trouble> {
    settle(&line).await?;
    let due = next_to_mask(&line);
    if !due.is_empty() {
        mask(&line, &due).await?;
    }
    Ok(!due.is_empty())
}

/// Takes what was masked out of the files, if the oldest of it has waited for so long. Returns whether it has.
pub(super) async fn take_out_due(line: Arc<Line>, gather: Duration) -> Result<bool, Trouble> {
    let due = due_to_take_out(&line, gather);
    if !due.is_empty() {
        take_out(&line, &due).await?;
    }
    Ok(!due.is_empty())
}

/// Notes up to where the events of deleted websites reach, once no more of them can come in.
async fn settle(line: &Line) -> Result<(), Trouble> {
    let open: Vec<_> = line.shipping.look(|state| {
        let of = state.erasures.values();
        of.filter(|of| of.state == ShipErasureState::Waiting && of.up_to.is_none()).map(|of| of.id.clone()).collect()
    });
    for id in open {
        if line.shipping.is_settled(&id) {
            let up_to = Some(line.shipping.durable());
            let state = ShipErasureState::Waiting;
            line.shipping.note(|| ShipChange::Erasure { id: id.clone(), up_to, state }).await?;
        }
    }
    Ok(())
}

/// The oldest erasures whose events are all at the target.
fn next_to_mask(line: &Line) -> Vec<ShipErasure> {
    let durable = line.shipping.durable();
    line.shipping.look(|state| {
        let shipped = state.shipped_up_to();
        let is_due = |of: &&ShipErasure| {
            of.state == ShipErasureState::Waiting && of.up_to.is_some_and(|up_to| up_to.min(durable) <= shipped)
        };
        oldest(state.erasures.values().filter(is_due))
    })
}

/// What is masked, if the oldest of it has waited for long enough.
fn due_to_take_out(line: &Line, gather: Duration) -> Vec<ShipErasure> {
    let now = now_ms();
    let masked =
        line.shipping.look(|state| oldest(state.erasures.values().filter(|of| of.state == ShipErasureState::Masked)));
    let has_waited = |of: &ShipErasure| u128::from(now.abs_diff(of.changed_at)) >= gather.as_millis();
    if masked.first().is_some_and(has_waited) { masked } else { Vec::new() }
}

/// Those that have waited longest, as many as one statement takes.
fn oldest<'a>(erasures: impl Iterator<Item = &'a ShipErasure>) -> Vec<ShipErasure> {
    let mut erasures: Vec<_> = erasures.collect();
    erasures.sort_by_key(|of| of.changed_at);
    erasures.into_iter().take(AT_ONCE_MAX).cloned().collect()
}

/// Where rows are stored: of a distributed table on each server of its cluster.
fn place(line: &Line) -> Place {
    let (database, table) = line.server.names();
    match line.about.distributed() {
        Some(to) => Place { database: to.database, table: to.table, cluster: Some(to.cluster) },
        None => Place { database: database.to_owned(), table: table.to_owned(), cluster: None },
    }
}

/// Which rows these erasures are of.
fn rows_of(line: &Line, erasures: &[ShipErasure]) -> String {
    let nodes = line.shipping.look(|state| state.nodes.clone());
    let conditions: Vec<_> = erasures.iter().map(|erasure| condition(erasure, &nodes)).collect();
    conditions.join(" OR ")
}

/// Waits until the target has ended what it was told before: a statement of which no answer came still runs, and one
/// more would only stand behind it.
async fn calm(line: &Line, place: &Place, is_mask: bool) -> Result<(), Trouble> {
    let mut wait = Wait::new(&line.shipping);
    loop {
        let (unfinished, why) = line.server.mutations(place, is_mask).await?;
        if unfinished == 0 {
            return Ok(());
        }
        if !why.is_empty() {
            return Err(Trouble::Wait(format!(
                "a mutation of {}.{} fails at the target (system.mutations there): {why}",
                place.database, place.table
            )));
        }
        let Place { database, table, .. } = place;
        wait.go_on(POLL, || format!("erasures wait for a mutation of {database}.{table} (system.mutations there)"))
            .await;
    }
}

async fn mask(line: &Line, due: &[ShipErasure]) -> Result<(), Trouble> {
    let place = place(line);
    calm(line, &place, true).await?;
    line.server.mask(&place, &rows_of(line, due), &line.about).await?;
    note(line, due, ShipErasureState::Masked, "what is to be erased is in no answer of the target's any more").await
}

async fn take_out(line: &Line, masked: &[ShipErasure]) -> Result<(), Trouble> {
    let place = place(line);
    calm(line, &place, false).await?;
    line.server.take_out(&place, &rows_of(line, masked)).await?;
    let since = line.server.now(place.cluster.as_deref()).await?;
    let mut wait = Wait::new(&line.shipping);
    while line.server.old_parts(&place, since).await? > 0 {
        let Place { database, table, .. } = &place;
        wait.go_on(POLL, || {
            format!("erasures wait for old parts of {database}.{table} to be removed (system.parts there)")
        })
        .await;
    }
    note(line, masked, ShipErasureState::Done, "nothing is left at the target of what was to be erased").await
}

async fn note(line: &Line, erasures: &[ShipErasure], state: ShipErasureState, told: &str) -> Result<(), Trouble> {
    for ShipErasure { id, up_to, .. } in erasures {
        line.shipping.note(|| ShipChange::Erasure { id: id.clone(), up_to: *up_to, state }).await?;
        tracing::info!(erasure = %id, "{told}");
    }
    Ok(())
}
