//! Fragments as bytes: some thousand of them are a block, which is read and gone through as a whole.
//!
//! A block has two parts. **Keys** say whose each fragment is, when it begins and ends and how many events it has: they
//! are all that is needed to find the fragments that go on in another segment. **Hits** are the events. What an event
//! is filed under is written as a difference to the event before it: most events of a visit share most of it.

use super::{
    bytes::{Damaged, Reader, pack, put, put_bytes, put_signed, unpack},
    hit::{FragmentKey, Hit, Kind},
    visitors::u64_of,
};

/// Most fragments of a block.
pub(crate) const FRAGMENTS_MAX: usize = 4_096;
/// Events of a block, unless one fragment has more.
const HITS_MAX: usize = 64 * 1_024;

/// Fragments, in the order of their first events.
#[derive(Debug, Default, Clone)]
pub(crate) struct Fragments {
    keys: Vec<FragmentKey>,
    /// First and last `createdAt`.
    times: Vec<(i64, i64)>,
    /// Where the hits of each begin; one more than there are fragments.
    starts: Vec<u32>,
    /// Empty where only the keys were read.
    hits: Vec<Hit>,
}

/// A fragment that is being written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fragment<'a> {
    pub(crate) key: FragmentKey,
    /// In the order of time; never empty.
    pub(crate) hits: &'a [Hit],
}

impl Fragments {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    /// The memory that they take, in bytes.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.keys.capacity() * (size_of::<FragmentKey>() + size_of::<(i64, i64)>() + 4)
            + self.hits.capacity() * size_of::<Hit>()
    }

    /// Whose a fragment is.
    pub(crate) fn key(&self, at: usize) -> FragmentKey {
        self.keys[at]
    }

    /// First and last `createdAt` of a fragment.
    pub(crate) fn times(&self, at: usize) -> (i64, i64) {
        self.times[at]
    }

    /// The events of a fragment, in the order of time.
    pub(crate) fn hits(&self, at: usize) -> &[Hit] {
        &self.hits[self.starts[at] as usize..self.starts[at + 1] as usize]
    }

    /// Reads keys.
    pub(crate) fn read_keys(packed: &[u8]) -> Result<Self, Damaged> {
        let mut outer = Reader(packed);
        let ids = outer.bytes()?;
        let unpacked = unpack(outer.0)?;
        let mut reader = Reader(&unpacked);
        let mut fragments = Self { starts: vec![0], ..Self::default() };
        let (mut at, mut hits) = (0_i64, 0_u32);
        for id in ids.chunks_exact(12) {
            let session = u64_of(&id[8..]) as u32;
            fragments.keys.push(FragmentKey { visitor: u64_of(&id[..8]), session });
            at = at.checked_add(reader.signed()?).ok_or(Damaged)?;
            let lasts = i64::try_from(reader.number()?).map_err(|_| Damaged)?;
            fragments.times.push((at, at.checked_add(lasts).ok_or(Damaged)?));
            hits = hits.checked_add(reader.small()?).ok_or(Damaged)?;
            fragments.starts.push(hits);
        }
        reader.end()?;
        if ids.len().is_multiple_of(12) { Ok(fragments) } else { Err(Damaged) }
    }

    /// Reads the events of fragments of which the keys were read, and of what they are filed under what is needed.
    pub(crate) fn read_hits(&mut self, packed: &[u8], needed: Needed) -> Result<(), Damaged> {
        self.hits = self.decode(packed, needed, |_| true)?;
        Ok(())
    }

    /// The same of some of the fragments only, the numbers of which are in order; what is read is theirs.
    pub(crate) fn read_some(&self, packed: &[u8], wanted: &[usize]) -> Result<Self, Damaged> {
        let hits = self.decode(packed, Needed::ALL, |at| wanted.binary_search(&at).is_ok())?;
        let lens = wanted.iter().map(|at| self.starts[at + 1] - self.starts[*at]);
        let ends = lens.scan(0, |end, len| {
            *end += len;
            Some(*end)
        });
        Ok(Self {
            keys: wanted.iter().map(|at| self.keys[*at]).collect(),
            times: wanted.iter().map(|at| self.times[*at]).collect(),
            starts: std::iter::once(0).chain(ends).collect(),
            hits,
        })
    }

    /// The events of those fragments that are wanted.
    fn decode(
        &self,
        packed: &[u8],
        needed: Needed,
        is_wanted: impl Fn(usize) -> bool + Copy,
    ) -> Result<Vec<Hit>, Damaged> {
        let unpacked = unpack(packed)?;
        let mut outer = Reader(&unpacked);
        let mut columns = [Reader(&[]); COLUMNS];
        for column in &mut columns {
            *column = Reader(outer.bytes()?);
        }
        outer.end()?;
        let count = self.starts.last().copied().unwrap_or_default() as usize;
        // Every event has a byte in the columns of kinds and flags, so no more room is taken than was read.
        let (kinds, flags) = (columns[KIND].0, columns[FLAGS].0);
        if kinds.len() != count || flags.len() != count {
            return Err(Damaged);
        }
        let mut hits = self.decode_times(&mut columns[TIME], is_wanted)?;
        let mut rest = hits.as_mut_slice();
        for (at, (from, to)) in self.bounds().enumerate() {
            if !is_wanted(at) {
                let engagements = kinds[from..to].iter().filter(|kind| Kind(**kind).is_engagement());
                columns[ENGAGED].skip(engagements.count())?;
                continue;
            }
            let (these, after) = rest.split_at_mut(to - from);
            for (hit, (kind, flags)) in these.iter_mut().zip(kinds[from..to].iter().zip(&flags[from..to])) {
                (hit.kind, hit.flags) = (Kind(*kind), *flags);
                if hit.kind.is_engagement() {
                    hit.engaged_ms = columns[ENGAGED].small()?;
                }
            }
            rest = after;
        }
        columns[ENGAGED].end()?;
        for (at, field) in FIELDS.into_iter().enumerate() {
            if needed.0 & 1 << at != 0 {
                self.decode_filed(&mut columns[FILED + at], is_wanted, &mut hits, field)?;
            }
        }
        Ok(hits)
    }

    /// Where the events of each fragment begin and end.
    fn bounds(&self) -> impl Iterator<Item = (usize, usize)> {
        self.starts.windows(2).map(|bounds| (bounds[0] as usize, bounds[1] as usize))
    }

    fn decode_times(&self, column: &mut Reader<'_>, is_wanted: impl Fn(usize) -> bool) -> Result<Vec<Hit>, Damaged> {
        let wanted = self.bounds().enumerate().filter(|(at, _)| is_wanted(*at)).map(|(_, (from, to))| to - from);
        let mut hits = Vec::with_capacity(wanted.sum());
        for (number, ((from, to), (first, last))) in self.bounds().zip(&self.times).enumerate() {
            if !is_wanted(number) {
                column.skip((to - from).saturating_sub(2))?;
                continue;
            }
            let mut at = *first;
            for place in from..to {
                if place > from && place + 1 < to {
                    let later = i64::try_from(column.number()?).map_err(|_| Damaged)?;
                    at = at.checked_add(later).ok_or(Damaged)?;
                } else if place > from {
                    at = at.max(*last);
                }
                if at > *last {
                    return Err(Damaged);
                }
                hits.push(Hit::at(at, place as u32));
            }
        }
        column.end()?;
        Ok(hits)
    }

    fn decode_filed(
        &self,
        column: &mut Reader<'_>,
        is_wanted: impl Fn(usize) -> bool,
        hits: &mut [Hit],
        field: fn(&mut Hit) -> &mut u32,
    ) -> Result<(), Damaged> {
        let mut rest = hits;
        for (at, (from, to)) in self.bounds().enumerate() {
            if !is_wanted(at) {
                column.skip(to - from)?;
                continue;
            }
            let (these, after) = rest.split_at_mut(to - from);
            let mut before = 0;
            for hit in these {
                before = match column.small()? {
                    0 => before,
                    1 => Hit::TOO_MANY,
                    other => other - 2,
                };
                *field(hit) = before;
            }
            rest = after;
        }
        column.end()
    }
}

const COLUMNS: usize = 9;
const TIME: usize = 0;
const KIND: usize = 1;
const FLAGS: usize = 2;
const ENGAGED: usize = 3;
/// The first of the five columns of what an event is filed under.
const FILED: usize = 4;

/// Those five.
const FIELDS: [fn(&mut Hit) -> &mut u32; 5] = [
    |hit| &mut hit.page,
    |hit| &mut hit.name,
    |hit| &mut hit.acquisition,
    |hit| &mut hit.client,
    |hit| &mut hit.location,
];

/// What of an event's files is needed: a bit for each of page, name, acquisition, client, location.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Needed(pub(crate) u8);

impl Needed {
    /// Everything.
    pub(crate) const ALL: Self = Self(0b1_1111);
    /// Nothing.
    pub(crate) const NONE: Self = Self(0);

    /// What the one or the other needs.
    pub(crate) fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Where a block of these fragments ends.
pub(crate) fn block_len(hits: impl Iterator<Item = usize>) -> usize {
    let mut sum = 0;
    let fitting = hits.take(FRAGMENTS_MAX).take_while(|hits| {
        sum += hits;
        sum <= HITS_MAX
    });
    fitting.count().max(1)
}

/// Keys and hits of these fragments, as bytes.
pub(crate) fn write(fragments: &[Fragment<'_>]) -> std::io::Result<(Vec<u8>, Vec<u8>)> {
    let (mut ids, mut keys) = (Vec::with_capacity(fragments.len() * 12), Vec::new());
    let mut columns: [Vec<u8>; COLUMNS] = Default::default();
    let mut before = 0;
    for Fragment { key, hits } in fragments {
        let (first, last) = (hits[0].at, hits[hits.len() - 1].at);
        ids.extend_from_slice(&key.visitor.to_le_bytes());
        ids.extend_from_slice(&key.session.to_le_bytes());
        put_signed(&mut keys, first - before);
        put(&mut keys, (last - first).cast_unsigned());
        put(&mut keys, hits.len() as u64);
        before = first;
        let mut previous = Hit::at(first, 0);
        for (place, hit) in hits.iter().enumerate() {
            if place > 0 && place + 1 < hits.len() {
                put(&mut columns[TIME], (hit.at - previous.at).cast_unsigned());
            }
            write_attributes(&mut columns, hit, &previous);
            previous = *hit;
        }
    }
    let mut packed_keys = Vec::new();
    put_bytes(&mut packed_keys, &ids);
    packed_keys.extend_from_slice(&pack(&keys)?);
    let mut hits = Vec::new();
    columns.iter().for_each(|column| put_bytes(&mut hits, column));
    Ok((packed_keys, pack(&hits)?))
}

fn write_attributes(columns: &mut [Vec<u8>; COLUMNS], hit: &Hit, previous: &Hit) {
    columns[KIND].push(hit.kind.0);
    columns[FLAGS].push(hit.flags);
    if hit.kind.is_engagement() {
        put(&mut columns[ENGAGED], u64::from(hit.engaged_ms));
    }
    let filed = |hit: &Hit| [hit.page, hit.name, hit.acquisition, hit.client, hit.location];
    for ((number, before), column) in filed(hit).into_iter().zip(filed(previous)).zip(&mut columns[FILED..]) {
        match number {
            number if number == before => column.push(0),
            Hit::TOO_MANY => column.push(1),
            number => put(column, u64::from(number) + 2),
        }
    }
}
