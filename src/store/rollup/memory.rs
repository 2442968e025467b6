//! A piece in memory: events of one website, as they come in or are read.

use hashbrown::HashTable;

use super::{
    attributes::{Action, action},
    dictionary::Dictionaries,
    hit::{FragmentKey, Hit, Kind},
    visit::{Evaluation, Sink},
};
use crate::{
    event::EventRow,
    store::format::hash::{session_hash, visitor_hash},
};

const NONE: u32 = u32::MAX;

/// Events in the order in which they came in, chained by session and visitor.
#[derive(Debug, Clone, Default)]
pub(crate) struct MemoryPiece {
    pub(crate) dictionaries: Dictionaries,
    hits: Vec<Hit>,
    /// For each hit the next one of its chain.
    next: Vec<u32>,
    chains: Vec<Chain>,
    places: HashTable<u32>,
    scratch: Vec<u8>,
}

/// The events of one session and visitor.
#[derive(Debug, Clone, Copy)]
struct Chain {
    key: FragmentKey,
    first: u32,
    last: u32,
}

impl MemoryPiece {
    /// Adds an event; `order` rises from one to the next.
    pub(crate) fn add_row(&mut self, row: &EventRow<'_>, flags: i64, order: u32) {
        let flags = (flags & Hit::STORED_FLAGS) as u8;
        let Action { kind, name, engaged_ms } = action(row);
        let mut hit = Hit { engaged_ms, kind, flags, ..Hit::at(row.created_at, order) };
        self.dictionaries.file(row, &name, &mut hit, &mut self.scratch);
        let key =
            FragmentKey { visitor: visitor_hash(row.visitor_id), session: (session_hash(row.session_id) >> 32) as u32 };
        self.add(key, hit);
    }

    /// Adds events of another piece.
    pub(crate) fn add_of(&mut self, from: &Dictionaries, key: FragmentKey, hits: impl IntoIterator<Item = Hit>) {
        let mut before = None;
        for hit in hits {
            let translated = self.dictionaries.translate(from, hit, before);
            before = Some((hit, translated));
            self.add(key, translated);
        }
    }

    fn add(&mut self, key: FragmentKey, hit: Hit) {
        let at = self.hits.len() as u32;
        self.hits.push(hit);
        self.next.push(NONE);
        let chains = &mut self.chains;
        let hash = hash(key);
        if let Some(place) = self.places.find(hash, |place| chains[*place as usize].key == key) {
            let chain = &mut chains[*place as usize];
            self.next[chain.last as usize] = at;
            chain.last = at;
            return;
        }
        let place = chains.len() as u32;
        chains.push(Chain { key, first: at, last: at });
        self.places.insert_unique(hash, place, |place| self::hash(chains[*place as usize].key));
    }

    /// How many events there are.
    pub(crate) fn len(&self) -> usize {
        self.hits.len()
    }

    /// How many events are flagged.
    pub(crate) fn unwanted(&self) -> u64 {
        self.hits.iter().filter(|hit| hit.flags & Hit::UNWANTED != 0).count() as u64
    }

    /// First and last `createdAt`; `None` without events.
    pub(crate) fn times(&self) -> Option<(i64, i64)> {
        let (first, rest) = self.hits.split_first()?;
        Some(rest.iter().fold((first.at, first.at), |(first, last), hit| (first.min(hit.at), last.max(hit.at))))
    }

    /// How many chains there are: sessions of visitors.
    pub(crate) fn chains(&self) -> usize {
        self.chains.len()
    }

    /// The number of the chain with this key.
    pub(crate) fn chain(&self, key: FragmentKey) -> Option<usize> {
        self.places.find(hash(key), |place| self.chains[*place as usize].key == key).map(|place| *place as usize)
    }

    /// The key of a chain.
    pub(crate) fn key(&self, chain: usize) -> FragmentKey {
        self.chains[chain].key
    }

    /// The places of the events of a chain, as they were added.
    pub(crate) fn places(&self, chain: usize) -> impl Iterator<Item = usize> {
        self.places_from(self.chains[chain].first as usize)
    }

    /// The places of the events of a chain from one of them on.
    pub(crate) fn places_from(&self, place: usize) -> impl Iterator<Item = usize> {
        let mut at = place as u32;
        std::iter::from_fn(move || {
            let place = at as usize;
            at = *self.next.get(place)?;
            Some(place)
        })
    }

    /// The event at a place.
    pub(crate) fn hit(&self, place: usize) -> &Hit {
        &self.hits[place]
    }

    /// The events of a chain, as they were added.
    pub(crate) fn hits(&self, chain: usize) -> impl Iterator<Item = &Hit> {
        self.places(chain).map(|place| &self.hits[place])
    }

    /// The events of a chain in the order of time.
    pub(crate) fn sorted(&self, chain: usize, hits: &mut Vec<Hit>) {
        hits.clear();
        hits.extend(self.hits(chain));
        hits.sort_by_key(Hit::place);
    }

    /// Puts the events of a chain into the order of time, for good, and copies them.
    pub(crate) fn sort(&mut self, chain: usize, hits: &mut Vec<Hit>) {
        hits.clear();
        hits.extend(self.hits(chain));
        if hits.is_sorted_by_key(Hit::place) {
            return;
        }
        hits.sort_by_key(Hit::place);
        let places: Vec<usize> = self.places(chain).collect();
        places.into_iter().zip(hits.iter()).for_each(|(place, hit)| self.hits[place] = *hit);
    }

    /// The memory that it takes, in bytes.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.hits.capacity() * (size_of::<Hit>() + 4)
            + self.chains.capacity() * size_of::<Chain>()
            + self.places.capacity() * 5
            + self.dictionaries.memory_bytes()
    }

    /// Goes through all chains; `prepare` may change the events of one, or leave none, before they are looked at.
    pub(crate) fn run(
        &self,
        evaluation: &Evaluation<'_>,
        mut prepare: impl FnMut(FragmentKey, &mut Vec<Hit>),
        sink: &mut impl Sink,
    ) {
        let (mut hits, mut scratch) = (Vec::new(), Vec::new());
        for chain in 0..self.chains.len() {
            self.sorted(chain, &mut hits);
            let key = self.key(chain);
            prepare(key, &mut hits);
            evaluation.run(key, &hits, &mut scratch, sink);
        }
    }
}

impl Hit {
    /// An event of which nothing but its place is known.
    pub(crate) fn at(at: i64, order: u32) -> Self {
        Self {
            at,
            order,
            page: 0,
            name: 0,
            acquisition: 0,
            client: 0,
            location: 0,
            engaged_ms: 0,
            kind: Kind(0),
            flags: 0,
        }
    }
}

fn hash(key: FragmentKey) -> u64 {
    // A visitor's hash is one already; several sessions of one must not meet.
    key.visitor ^ u64::from(key.session).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
