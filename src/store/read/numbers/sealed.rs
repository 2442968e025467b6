//! What a sealed segment has of a website, from its file or from what was read of it before.

use std::sync::Arc;

use super::{
    cache::{Cache, CacheKey, Generation},
    question::{Asked, Listing, Span},
};
use crate::{
    metrics::ReadRefused,
    store::{
        error::ReadError,
        read::snapshot::Snapshot,
        rollup::{
            Answer, BlockEntry, Collector, Damaged, Dictionaries, Evaluation, Fragments, Grouping, KeptGroup, List,
            ListKind, Lister, Needed, OTHER, Rollup, RollupError, Selection, Sink, Values, read_block, read_keys,
            read_some,
        },
        segments::{Segment, Summary},
    },
};

/// A sealed segment, for one website.
#[derive(Clone)]
pub(super) struct Sealed {
    pub(super) segment: Arc<Segment>,
    pub(super) rollup: Arc<Rollup>,
    website_id: Arc<str>,
}

/// Where things that were read are kept.
#[derive(Clone, Copy)]
pub(super) struct Kept<'a> {
    pub(super) cache: &'a Cache,
    pub(super) bytes_max: usize,
}

impl Kept<'_> {
    fn or<T: Send + Sync + 'static>(
        self,
        key: CacheKey,
        bytes: impl Fn(&T) -> usize,
        make: impl FnOnce() -> Result<T, ReadError>,
    ) -> Result<Arc<T>, ReadError> {
        if let Some(value) = self.cache.get(&key) {
            return Ok(value);
        }
        let value = Arc::new(make()?);
        self.cache.put(key, &value, bytes(&value), self.bytes_max);
        Ok(value)
    }
}

impl Sealed {
    /// Opens it.
    pub(super) fn open(
        snapshot: &Snapshot<'_>,
        kept: Kept<'_>,
        segment: &Arc<Segment>,
        website_id: &Arc<str>,
    ) -> Result<Self, ReadError> {
        let key = CacheKey::Rollup(Generation::of(segment), Arc::clone(website_id));
        let rollup = kept.or(key, Rollup::memory_bytes, || {
            snapshot.on(segment, |connection| {
                let found = Rollup::read(connection, website_id).and_then(|found| Ok(found.ok_or(Damaged)?));
                checked(segment, found)
            })
        })?;
        Ok(Self { segment: Arc::clone(segment), rollup, website_id: Arc::clone(website_id) })
    }

    pub(super) fn generation(&self) -> Generation {
        Generation::of(&self.segment)
    }

    pub(super) fn dictionaries(&self, snapshot: &Snapshot<'_>, kept: Kept<'_>) -> Result<Arc<Dictionaries>, ReadError> {
        let key = CacheKey::Dictionaries(self.generation(), Arc::clone(&self.website_id));
        kept.or(key, Dictionaries::memory_bytes, || {
            snapshot.on(&self.segment, |connection| {
                checked(&self.segment, Rollup::read_dictionaries(connection, &self.website_id))
            })
        })
    }

    /// The blocks that have something in a span, with their numbers.
    pub(super) fn blocks(&self, span: Span) -> impl Iterator<Item = (u32, &BlockEntry)> {
        let blocks = self.rollup.blocks.iter().zip(0..).map(|(block, number)| (number, block));
        blocks.filter(move |(_, block)| block.times.0 < span.to && span.from <= block.times.1)
    }

    pub(super) fn keys(
        &self,
        snapshot: &Snapshot<'_>,
        kept: Kept<'_>,
        block: &BlockEntry,
    ) -> Result<Arc<Fragments>, ReadError> {
        kept.or(CacheKey::Keys(self.generation(), block.id), Fragments::memory_bytes, || {
            snapshot.on(&self.segment, |connection| checked(&self.segment, read_keys(connection, block)))
        })
    }

    pub(super) fn block(
        &self,
        snapshot: &Snapshot<'_>,
        kept: Kept<'_>,
        block: &BlockEntry,
    ) -> Result<Arc<Fragments>, ReadError> {
        kept.or(CacheKey::Block(self.generation(), block.id), Fragments::memory_bytes, || {
            self.read(snapshot, block, Needed::ALL)
        })
    }

    /// Reads some of a block's fragments anew: those with these numbers, which are in order.
    pub(super) fn read_some(
        &self,
        snapshot: &Snapshot<'_>,
        block: &BlockEntry,
        keys: &Fragments,
        wanted: &[usize],
    ) -> Result<Fragments, ReadError> {
        snapshot.on(&self.segment, |connection| checked(&self.segment, read_some(connection, block, keys, wanted)))
    }

    /// Reads a block anew.
    pub(super) fn read(
        &self,
        snapshot: &Snapshot<'_>,
        block: &BlockEntry,
        needed: Needed,
    ) -> Result<Fragments, ReadError> {
        snapshot.on(&self.segment, |connection| checked(&self.segment, read_block(connection, block, needed)))
    }

    /// What it answers with some of the visitors of each quarter, if that is known without going through its events.
    pub(super) fn known(&self, kept: Kept<'_>, asked: &Asked) -> Option<Arc<Answer>> {
        if asked.filters.is_empty() && (!asked.with_unwanted || self.rollup.unwanted == 0) {
            return Some(Arc::clone(&self.rollup.answer));
        }
        kept.cache.get(&self.answer_key(asked, false)).or_else(|| kept.cache.get(&self.answer_key(asked, true)))
    }

    /// What it answers with every visitor.
    pub(super) fn answer(
        &self,
        snapshot: &Snapshot<'_>,
        kept: Kept<'_>,
        asked: &Asked,
    ) -> Result<Arc<Answer>, ReadError> {
        kept.or(self.answer_key(asked, true), Answer::memory_bytes, || {
            let mut collector = Collector::default();
            self.run(snapshot, kept, asked, self.rollup.blocks.iter(), &mut collector)?;
            Ok(collector.end())
        })
    }

    /// Keeps less of an answer with every visitor.
    pub(super) fn thin(&self, kept: Kept<'_>, asked: &Asked, answer: &Arc<Answer>) -> Arc<Answer> {
        if answer.is_thinned() {
            return Arc::clone(answer);
        }
        let mut thinned = Answer::clone(answer);
        thinned.thin();
        let thinned = Arc::new(thinned);
        kept.cache.put(self.answer_key(asked, false), &thinned, thinned.memory_bytes(), kept.bytes_max);
        thinned
    }

    /// Hands on the groups of the list that its file has, each with its value, `None` for those that are not told
    /// apart; returns whether there is one that will do.
    pub(super) fn for_each_kept(
        &self,
        snapshot: &Snapshot<'_>,
        kept: Kept<'_>,
        Listing { asked, dimension, .. }: Listing<'_>,
        mut each: impl FnMut(Option<&[u8]>, KeptGroup<'_>),
    ) -> Result<bool, ReadError> {
        if !asked.filters.is_empty() || (asked.with_unwanted && self.rollup.unwanted > 0) {
            return Ok(false);
        }
        let dictionaries = self.dictionaries(snapshot, kept)?;
        let mut values = Values::unlimited();
        let grouping = Grouping::shown(dimension, &dictionaries, asked.filters.own(), &mut values);
        let grouping = checked(&self.segment, grouping.map_err(RollupError::from))?;
        let kind = ListKind::of(dimension, asked.filters.own(), &grouping);
        let found = snapshot.on(&self.segment, |connection| {
            let read = Rollup::read_list(connection, &self.website_id, kind, |list| {
                list.for_each(|number, group| {
                    let value = grouping.group(number);
                    each((value != OTHER).then(|| values.get(value)), group);
                })
            });
            checked(&self.segment, read)
        })?;
        Ok(found.is_some())
    }

    /// The list of what lies in its span; thinned unless it is to be exact.
    pub(super) fn list(
        &self,
        snapshot: &Snapshot<'_>,
        kept: Kept<'_>,
        listing: Listing<'_>,
        is_exact: bool,
    ) -> Result<Arc<List>, ReadError> {
        let key = |is_exact| CacheKey::List(self.generation(), Arc::clone(&self.website_id), listing.id(), is_exact);
        kept.or(key(is_exact), List::memory_bytes, || {
            let Listing { asked, dimension, span } = listing;
            let dictionaries = self.dictionaries(snapshot, kept)?;
            let lister = Lister::new(dimension, &dictionaries, asked.filters.own(), listing.times());
            let mut lister = checked(&self.segment, lister.map_err(RollupError::from))?;
            let blocks = self.blocks(span).map(|(_, block)| block);
            let needed = lister.needed();
            self.run_with(snapshot, kept, asked, (blocks, needed), &mut lister)?;
            let mut list = lister.end();
            if !is_exact {
                list.thin();
            }
            Ok(list)
        })
    }

    fn answer_key(&self, asked: &Asked, is_exact: bool) -> CacheKey {
        CacheKey::Answer(self.generation(), Arc::clone(&self.website_id), asked.id(), is_exact)
    }

    /// Has a sink go through the events of some blocks, as though its fragments were all there is.
    pub(super) fn run<'a>(
        &self,
        snapshot: &Snapshot<'_>,
        kept: Kept<'_>,
        asked: &Asked,
        blocks: impl Iterator<Item = &'a BlockEntry>,
        sink: &mut impl Sink,
    ) -> Result<(), ReadError> {
        self.run_with(snapshot, kept, asked, (blocks, Needed::NONE), sink)
    }

    /// The same, for a sink that needs some of what events are filed under.
    fn run_with<'a>(
        &self,
        snapshot: &Snapshot<'_>,
        kept: Kept<'_>,
        asked: &Asked,
        (blocks, needed): (impl Iterator<Item = &'a BlockEntry>, Needed),
        sink: &mut impl Sink,
    ) -> Result<(), ReadError> {
        let dictionaries = self.dictionaries(snapshot, kept)?;
        let matcher = checked(&self.segment, asked.filters.look_up(&dictionaries).map_err(RollupError::from))?;
        let selection = Selection { with_unwanted: asked.with_unwanted, expired_before: i64::MIN };
        let evaluation = Evaluation { selection, matcher: &matcher };
        let mut scratch = Vec::new();
        for block in blocks {
            let fragments = self.read(snapshot, block, matcher.needed().and(needed))?;
            for at in 0..fragments.len() {
                evaluation.run(fragments.key(at), fragments.hits(at), &mut scratch, sink);
            }
        }
        Ok(())
    }
}

/// What was read of a segment's rollups. Those that cannot be read are made anew from the rows, which serve meanwhile;
/// as the question looks at the segments of one moment, it must be asked again.
fn checked<T>(segment: &Segment, result: Result<T, RollupError>) -> Result<T, ReadError> {
    match result {
        Ok(read) => Ok(read),
        Err(RollupError::Sqlite(error)) if !matches!(error, rusqlite::Error::QueryReturnedNoRows) => Err(error.into()),
        Err(error) => {
            tracing::error!(
                segment = segment.number, %error,
                "the rollups of a segment cannot be read: numbers are counted from its events, and rollups made anew \
                 from these. Look at the disk of this machine"
            );
            segment.summary().into_iter().for_each(Summary::note_bad_rollups);
            Err(ReadError::Refused(ReadRefused::Keys))
        }
    }
}
