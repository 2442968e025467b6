//! Erasures, as the target follows them.
//!
//! In order: when everything up to an erasure's mark is there, its events are masked, which takes them out of every
//! answer at once. What is masked is taken out of the files later, many erasures at a time, because that rewrites them;
//! an erasure is done when no file is left that may hold its events.

use std::time::Duration;

use super::{flight::Line, server::condition, target::Distributed, trouble::Trouble};
use crate::{
    clock::now_ms,
    store::{ShipChange, ShipErasure, ShipErasureState},
};

/// Erasures whose events are taken out of the files at once.
const AT_ONCE_MAX: usize = 100;
/// How often it is looked whether old files are gone.
const OLD_PARTS_POLL: Duration = Duration::from_secs(2);

/// Follows erasures until there is nothing to do now. Returns whether anything was done.
pub(super) async fn follow(line: &Line, gather: Duration) -> Result<bool, Trouble> {
    settle(line).await?;
    if let Some(erasure) = next_to_mask(line) {
        mask(line, &erasure).await?;
        return Ok(true);
    }
    let masked = due_to_take_out(line, gather);
    if masked.is_empty() {
        return Ok(false);
    }
    take_out(line, &masked).await?;
    Ok(true)
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

/// The first erasure whose events are all at the target.
fn next_to_mask(line: &Line) -> Option<ShipErasure> {
    let durable = line.shipping.durable();
    line.shipping.look(|state| {
        let shipped = state.shipped_up_to();
        let is_due = |of: &&ShipErasure| {
            of.state == ShipErasureState::Waiting && of.up_to.is_some_and(|up_to| up_to.min(durable) <= shipped)
        };
        state.erasures.values().find(is_due).cloned()
    })
}

/// What is masked, if the oldest of it has waited for long enough.
fn due_to_take_out(line: &Line, gather: Duration) -> Vec<ShipErasure> {
    let now = now_ms();
    line.shipping.look(|state| {
        let masked = state.erasures.values().filter(|of| of.state == ShipErasureState::Masked);
        let masked: Vec<_> = masked.take(AT_ONCE_MAX).cloned().collect();
        let has_waited = |of: &ShipErasure| u128::from(now.abs_diff(of.changed_at)) >= gather.as_millis();
        if masked.iter().any(has_waited) { masked } else { Vec::new() }
    })
}

/// The table that rows are stored in, and on which cluster.
fn place(line: &Line) -> (String, String, Option<Distributed>) {
    match line.about.distributed() {
        Some(to) => (format!("{}.{}", to.database, to.table), format!("ON CLUSTER '{}'", to.cluster), Some(to)),
        None => (line.server.events(), String::new(), None),
    }
}

fn nodes(line: &Line) -> Vec<u32> {
    line.shipping.look(|state| state.nodes.iter().map(|node| node.node).collect())
}

async fn mask(line: &Line, erasure: &ShipErasure) -> Result<(), Trouble> {
    let (table, on_cluster, _) = place(line);
    line.server.mask(&table, &on_cluster, &condition(erasure, &nodes(line))).await?;
    let (id, up_to, state) = (&erasure.id, erasure.up_to, ShipErasureState::Masked);
    line.shipping.note(|| ShipChange::Erasure { id: id.clone(), up_to, state }).await?;
    tracing::info!(erasure = %erasure.id, "what is to be erased is in no answer of the target's any more");
    Ok(())
}

async fn take_out(line: &Line, masked: &[ShipErasure]) -> Result<(), Trouble> {
    let (table, on_cluster, distributed) = place(line);
    let nodes = nodes(line);
    let conditions: Vec<_> = masked.iter().map(|erasure| condition(erasure, &nodes)).collect();
    line.server.take_out(&table, &on_cluster, &conditions.join(" OR ")).await?;
    let (database, name) = table.split_once('.').unwrap_or_default();
    let cluster = distributed.as_ref().map(|to| to.cluster.as_str());
    let since = line.server.now(cluster).await?;
    while line.server.old_parts((database, name), cluster, since).await? > 0 {
        tokio::time::sleep(OLD_PARTS_POLL).await;
    }
    for erasure in masked {
        let (id, up_to, state) = (&erasure.id, erasure.up_to, ShipErasureState::Done);
        line.shipping.note(|| ShipChange::Erasure { id: id.clone(), up_to, state }).await?;
        tracing::info!(erasure = %erasure.id, "nothing is left at the target of what was to be erased");
    }
    Ok(())
}
