//! Fence posts: every 1,024th of many sorted keys, so that the rank of a key is a bisection and one short look.

use super::keys::Key;

/// Keys between two fence posts: what a rank walks at most.
pub(crate) const FENCE_ENTRIES: u64 = 1_024;

/// What fence posts know of a rank: how many keys are lower than or equal to one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RankBounds {
    pub(crate) least: u64,
    pub(crate) most: u64,
    /// A post at or below the key, and how many keys stand before it.
    pub(crate) walk_from: Option<(Key, u64)>,
}

impl RankBounds {
    /// Of a key among `count` keys with these posts.
    pub(crate) fn new(posts: &[Key], count: u64, key: Key) -> Self {
        match posts.partition_point(|post| *post <= key) as u64 {
            0 => Self { least: 0, most: 0, walk_from: None },
            passed => Self {
                least: (passed - 1) * FENCE_ENTRIES + 1,
                most: (passed * FENCE_ENTRIES).min(count),
                walk_from: Some((posts[passed as usize - 1], (passed - 1) * FENCE_ENTRIES)),
            },
        }
    }
}
