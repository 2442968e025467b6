//! Whether the sequences of a segment are between those of its neighbours.

use crate::store::offline::{CatalogContents, Holdings, OfflineDir};

/// The segments with lower numbers hold lower sequences, those with higher ones higher.
pub(super) fn check_neighbours(
    files: &OfflineDir,
    catalog: &CatalogContents,
    number: i64,
    (first, last): (u64, u64),
) -> Result<(), String> {
    for other in catalog.segments_in_use().filter(|other| other.number != number) {
        let held = match other.facts {
            Some(facts) => Some((facts.first_sequence, facts.last_sequence)),
            None => Holdings::read(&files.path_of(&other)).ok().and_then(|holdings| holdings.sequences),
        };
        let Some((other_first, other_last)) = held else { continue };
        let is_in_order = if other.number < number { other_last < first } else { last < other_first };
        if !is_in_order {
            return Err(format!(
                "it holds sequences {first} to {last} of segment {number}, and segment {} is listed with {other_first} \
                 to {other_last}",
                other.number
            ));
        }
    }
    Ok(())
}
