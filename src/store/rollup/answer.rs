//! What a piece answers to a question: sums and visitors of each quarter of an hour.
//!
//! Quarters are those of UTC. Since 1973 every zone's offset is a multiple of a quarter of an hour (but for
//! Pacific/Kiritimati's before 1980), so they add up to the hours and days of all of them.

use std::collections::{BTreeMap, HashMap, btree_map::Entry};

use super::{
    bytes::{Damaged, Reader, put},
    counts::Counts,
    hit::Hit,
    visit::{Sink, Visit},
    visitors::Visitors,
};

/// A quarter of an hour, in milliseconds.
pub(crate) const QUARTER_MS: i64 = 15 * 60 * 1_000;
/// Visitors of a quarter that are kept of an answer that is thinned: the error of a quarter is 4.4 % at the most.
pub(crate) const THINNED_VISITORS: usize = 512;

/// Sums and visitors of the quarters of an hour that have any, by their number since 1970.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) quarters: BTreeMap<u32, Quarter>,
}

/// A quarter of an hour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Quarter {
    pub(crate) counts: Counts,
    pub(crate) visitors: Visitors,
}

/// The number of the quarter that a time is in.
pub(crate) fn quarter_of(at: i64) -> u32 {
    u32::try_from(at.div_euclid(QUARTER_MS)).unwrap_or(if at < 0 { 0 } else { u32::MAX })
}

/// Where the first quarter of an hour begins that has not expired at all.
pub(crate) fn first_whole_quarter(expired_before: i64) -> i64 {
    if expired_before <= 0 { i64::MIN } else { (expired_before + QUARTER_MS - 1) / QUARTER_MS * QUARTER_MS }
}

impl Answer {
    /// Leaves some of the visitors of each quarter, from which their number can be estimated.
    pub(crate) fn thin(&mut self) {
        self.quarters.values_mut().for_each(|quarter| quarter.visitors.thin(THINNED_VISITORS));
    }

    /// Adds what another part of the same piece answers, thinned as little as this.
    pub(crate) fn add(&mut self, other: Self) {
        for (number, quarter) in other.quarters {
            match self.quarters.entry(number) {
                Entry::Vacant(entry) => drop(entry.insert(quarter)),
                Entry::Occupied(mut entry) => {
                    let own = entry.get_mut();
                    own.counts += quarter.counts;
                    own.visitors.add(&quarter.visitors);
                }
            }
        }
    }

    /// Whether it has no more visitors than [`thin`](Self::thin) leaves.
    pub(crate) fn is_thinned(&self) -> bool {
        self.quarters.values().all(|quarter| quarter.visitors.different() <= THINNED_VISITORS)
    }

    /// Whether it has every visitor.
    pub(crate) fn is_whole(&self) -> bool {
        self.quarters.values().all(|quarter| quarter.visitors.threshold == u64::MAX)
    }

    /// The memory that it takes, in bytes.
    pub(crate) fn memory_bytes(&self) -> usize {
        let of = |quarter: &Quarter| size_of::<Quarter>() + 16 + quarter.visitors.memory_bytes();
        self.quarters.values().map(of).sum()
    }

    /// As bytes.
    pub(crate) fn write(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        put(&mut bytes, self.quarters.len() as u64);
        let mut before = 0;
        for (number, quarter) in &self.quarters {
            put(&mut bytes, u64::from(number - before));
            before = *number;
            quarter.counts.write(&mut bytes);
            quarter.visitors.write(&mut bytes);
        }
        bytes
    }

    /// Reads what [`write`](Self::write) has written.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, Damaged> {
        let mut reader = Reader(bytes);
        let mut quarters = BTreeMap::new();
        let mut number = 0_u32;
        for _ in 0..reader.number()? {
            number = number.checked_add(reader.small()?).ok_or(Damaged)?;
            let counts = Counts::read(&mut reader)?;
            quarters.insert(number, Quarter { counts, visitors: Visitors::read(&mut reader)? });
        }
        reader.end()?;
        Ok(Self { quarters })
    }
}

/// Makes an answer of events and visits.
#[derive(Debug, Default)]
pub(crate) struct Collector {
    places: HashMap<u32, usize>,
    quarters: Vec<(u32, Counts, Vec<u64>)>,
    /// The quarter that was used last, and its place.
    last: Option<(u32, usize)>,
    /// The quarter in which the visitor of this run was noted last.
    noted: Option<u32>,
}

impl Collector {
    fn place(&mut self, at: i64) -> (u32, usize) {
        let quarter = quarter_of(at);
        if let Some(last) = self.last.filter(|(last, _)| *last == quarter) {
            return last;
        }
        let next = self.quarters.len();
        let place = *self.places.entry(quarter).or_insert(next);
        if place == next {
            self.quarters.push((quarter, Counts::default(), Vec::new()));
        }
        self.last = Some((quarter, place));
        (quarter, place)
    }

    /// The answer.
    pub(crate) fn end(self) -> Answer {
        let quarter = |(number, counts, hashes)| (number, Quarter { counts, visitors: Visitors::all(hashes) });
        Answer { quarters: self.quarters.into_iter().map(quarter).collect() }
    }
}

impl Sink for Collector {
    fn begin_run(&mut self, _: &[Hit], _: Option<&Hit>) {
        self.noted = None;
    }

    fn event(&mut self, visitor: u64, hit: &Hit) {
        let (quarter, place) = self.place(hit.at);
        let (_, counts, visitors) = &mut self.quarters[place];
        counts.add_event(hit);
        if self.noted != Some(quarter) {
            visitors.push(visitor);
            self.noted = Some(quarter);
        }
    }

    fn visit(&mut self, visit: &Visit) {
        let (_, place) = self.place(visit.begun_at);
        self.quarters[place].1.add_visit(visit);
    }
}
