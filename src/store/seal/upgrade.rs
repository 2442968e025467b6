//! Which segment gets its rollups next: one of an older hitlog, or one whose own cannot be read.

use std::sync::Arc;

use super::rewrite::Rewriter;
use crate::store::segments::Segment;

/// The oldest sealed segment that has no rollups: it serves as it is, so this comes behind everything else, and only
/// where it leaves room.
pub(super) fn next(rewriter: &Rewriter, is_delayed: impl Fn(i64) -> bool) -> Option<Arc<Segment>> {
    let view = rewriter.segments.view();
    let is_old = |segment: &&Arc<Segment>| segment.summary().is_some_and(|summary| !summary.has_rollups());
    let mut old = view.segments.iter().filter(is_old);
    old.find(|segment| !is_delayed(segment.number) && rewriter.has_room(segment)).map(Arc::clone)
}
