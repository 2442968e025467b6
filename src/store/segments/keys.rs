//! Small names for what rows are looked up by: a place in a listing, a website's events of one type, a fingerprint.

use std::{collections::HashMap, sync::Arc};

use parking_lot::RwLock;

use crate::event::EventType;

/// A place in a listing. Listings run from the highest key to the lowest: newest `createdAt` first, ties by arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) created_at: i64,
    pub(crate) sequence: u64,
}

impl Key {
    /// Higher than every key of an event, and lower.
    pub(crate) const MAX: Self = Self { created_at: i64::MAX, sequence: u64::MAX };
    pub(crate) const MIN: Self = Self { created_at: i64::MIN, sequence: 0 };
}

/// The events of one website and one type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Stream(pub(crate) u32);

impl Stream {
    /// A stream of the website with this number, by the name of its type.
    pub(crate) fn new(site: u32, event_type: &[u8]) -> Self {
        let kind = EventType::ALL.iter().position(|kind| kind.as_str().as_bytes() == event_type).unwrap_or(3);
        Self::of_kind(site, kind as u32)
    }

    /// A stream of the website with this number, by the place of its type among all, from 0 to 3.
    pub(crate) fn of_kind(site: u32, kind: u32) -> Self {
        Self(site << 2 | kind)
    }

    /// The place of its type among all.
    pub(crate) fn kind(self) -> u32 {
        self.0 & 3
    }

    /// The website's number.
    pub(crate) fn site(self) -> u32 {
        self.0 >> 2
    }
}

/// A number for each website that has ever had an event, for as long as the process lives.
#[derive(Debug, Default)]
pub(crate) struct Sites(RwLock<Numbered>);

#[derive(Debug, Default)]
struct Numbered {
    numbers: HashMap<Arc<[u8]>, u32>,
    /// By number.
    ids: Vec<Arc<[u8]>>,
}

impl Sites {
    /// The number of a website, given to it now if it has none.
    pub(crate) fn number(&self, website_id: &[u8]) -> u32 {
        if let Some(number) = self.find(website_id) {
            return number;
        }
        let mut numbered = self.0.write();
        // Somebody may have been faster.
        if let Some(number) = numbered.numbers.get(website_id) {
            return *number;
        }
        let (id, number): (Arc<[u8]>, _) = (website_id.into(), numbered.ids.len() as u32);
        numbered.ids.push(Arc::clone(&id));
        numbered.numbers.insert(id, number);
        number
    }

    /// The number of a website; `None` means that it has no event anywhere.
    pub(crate) fn find(&self, website_id: &[u8]) -> Option<u32> {
        self.0.read().numbers.get(website_id).copied()
    }

    /// The id of the website with this number; empty if there is none.
    pub(crate) fn id(&self, number: u32) -> Arc<[u8]> {
        self.0.read().ids.get(number as usize).map_or_else(|| [].into(), Arc::clone)
    }
}

/// What is kept in memory of the hash of a session or visitor.
pub(crate) fn fingerprint(hash: u64) -> u32 {
    hash as u32
}
