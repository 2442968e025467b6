//! Hashes of ids, stable between versions: sealed segments keep filters and rollups of them.

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The 64-bit hash of a session's id.
pub(crate) fn session_hash(session_id: &[u8]) -> u64 {
    xxh3_64_with_seed(session_id, 0)
}

/// The 64-bit hash of a visitor's id: different from that of an equal session id.
pub(crate) fn visitor_hash(visitor_id: &[u8]) -> u64 {
    xxh3_64_with_seed(visitor_id, 1)
}
