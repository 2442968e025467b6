//! Expired segments that stay because their events are not shipped yet.

use std::{collections::BTreeSet, sync::Arc};

use crate::{
    command::hitlog,
    metrics::StoreMetrics,
    store::{catalog::Shipped, format::file, segments::Segment},
};

/// Which of the segments that are due to go stay, the oldest of them first. They may take so many bytes; `None`: as
/// many as they are.
pub(super) fn held_for_shipping<'a>(
    due: impl Iterator<Item = &'a Arc<Segment>>,
    shipped: &Shipped,
    bytes_max: Option<u64>,
    metrics: &StoreMetrics,
) -> BTreeSet<i64> {
    let may_go = |segment: &Segment| segment.sequences().is_none_or(|(_, last)| shipped.may_go(segment.number, last));
    let held: Vec<_> = due.filter(|segment| !may_go(segment)).collect();
    let bytes = |segment: &Segment| file::bytes(&segment.path);
    let mut held_bytes: u64 = held.iter().map(|segment| bytes(segment)).sum();
    let mut staying: BTreeSet<i64> = held.iter().map(|segment| segment.number).collect();
    for segment in held {
        if bytes_max.is_none_or(|most| held_bytes <= most) {
            break;
        }
        tracing::error!(
            segment = segment.number,
            rows = segment.summary().map_or(0, |summary| summary.facts.rows),
            held_bytes,
            "an expired segment leaves the disk before it was shipped: more than ship_held_bytes_max of them wait. \
             `{}` tells why nothing is shipped",
            hitlog(["ship", "status"])
        );
        held_bytes = held_bytes.saturating_sub(bytes(segment));
        staying.remove(&segment.number);
    }
    metrics.ship_held_bytes.set(held_bytes as f64);
    shipped.change(|state| state.now.holds_expired = !staying.is_empty());
    staying
}
