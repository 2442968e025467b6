//! Whether events are stored already, for whoever is about to queue them.

use std::sync::Arc;

use super::{Readers, snapshot::Snapshot};
use crate::{
    event::{IdHash, IdHasher, LookedUp, Repeat, ValidEvents},
    store::{
        error::ReadError,
        ids::{IdSet, Ids},
    },
};

/// Knows the events of the last while by what their clients call them.
#[derive(Clone)]
pub struct KnownIds {
    hasher: IdHasher,
    ids: Arc<Ids>,
}

impl KnownIds {
    pub(crate) fn new(hash_key: &[u8; 16], ids: Arc<Ids>) -> Self {
        Self { hasher: IdHasher::new(hash_key), ids }
    }

    /// What hashes names, with the key of this data directory.
    pub fn hasher(&self) -> IdHasher {
        self.hasher
    }

    /// Looks for the events of a request among those that are stored: in memory, and where that does not tell, as for
    /// what is stored and for one in thousands of others, on the disk, by way of the readers. What comes in meanwhile,
    /// and the newest events, the writer looks for.
    pub async fn look_up(&self, readers: &Readers, events: &ValidEvents) -> Result<LookedUp, ReadError> {
        let set = self.ids.set();
        let ids = events.id_hashes().iter().enumerate().filter_map(|(index, hash)| Some((index, (*hash)?)));
        let (mut repeats, perhaps) = set.look_for(ids.collect());
        let seen = set.number;
        if !perhaps.is_empty() {
            let ids = Arc::clone(&self.ids);
            repeats.extend(readers.ask(move |snapshot| find_in_runs(snapshot, &ids, &set, &perhaps)).await?);
        }
        repeats.sort_unstable_by_key(|repeat| repeat.index);
        Ok(LookedUp { seen, repeats })
    }
}

fn find_in_runs(
    snapshot: &Snapshot<'_>,
    ids: &Ids,
    set: &IdSet,
    perhaps: &[(usize, IdHash)],
) -> Result<Vec<Repeat>, ReadError> {
    let mut repeats = Vec::new();
    for &(index, hash) in perhaps {
        snapshot.check_limits()?;
        let found = ids.find_in_runs(set, hash)?;
        repeats.extend(found.map(|original| Repeat { index, original }));
    }
    Ok(repeats)
}
