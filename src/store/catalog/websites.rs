//! The websites in memory: what the edge asks for every event, without a look at the disk.
//!
//! The catalog's thread is the only one that changes it, after its COMMIT; everybody else reads.

use std::{collections::HashMap, sync::Arc};

use parking_lot::RwLock;

/// A registered website.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Website {
    /// The id by which the API and the events name it.
    pub id: Arc<str>,
    /// The code that its trackers send.
    pub tracking_code: Arc<str>,
    /// The name that people see.
    pub name: String,
    /// The host, in lower case; no two websites have the same.
    pub domain: String,
    /// What people wrote about it, if anything.
    pub description: Option<String>,
    /// When it was registered, in milliseconds since 1970, UTC.
    pub created_at: i64,
    /// When it last changed, in milliseconds since 1970, UTC.
    pub updated_at: i64,
}

/// Every registered website.
#[derive(Debug, Default)]
pub struct Websites(RwLock<Maps>);

#[derive(Debug, Default)]
struct Maps {
    by_id: HashMap<Arc<str>, Arc<Website>>,
    id_by_code: HashMap<Arc<str>, Arc<str>>,
}

impl Websites {
    /// The id of the website with this tracking code.
    pub fn id_of_code(&self, tracking_code: &str) -> Option<Arc<str>> {
        self.0.read().id_by_code.get(tracking_code).map(Arc::clone)
    }

    /// The website with this id.
    pub fn get(&self, id: &str) -> Option<Arc<Website>> {
        self.0.read().by_id.get(id).map(Arc::clone)
    }

    /// Every website, the newest first.
    pub fn newest_first(&self) -> Vec<Arc<Website>> {
        let mut all: Vec<_> = self.0.read().by_id.values().map(Arc::clone).collect();
        all.sort_by(|a, b| (b.created_at, &b.tracking_code).cmp(&(a.created_at, &a.tracking_code)));
        all
    }

    /// When the newest was registered, in milliseconds since 1970, UTC; 0 if there is none.
    pub(crate) fn newest_created_at(&self) -> i64 {
        self.0.read().by_id.values().map(|website| website.created_at).max().unwrap_or(0)
    }

    /// The number of websites.
    pub fn len(&self) -> usize {
        self.0.read().by_id.len()
    }

    /// Whether no website is registered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn insert(&self, website: Website) -> Arc<Website> {
        let website = Arc::new(website);
        let mut maps = self.0.write();
        maps.id_by_code.insert(Arc::clone(&website.tracking_code), Arc::clone(&website.id));
        maps.by_id.insert(Arc::clone(&website.id), Arc::clone(&website));
        website
    }

    pub(crate) fn remove(&self, id: &str) {
        let mut maps = self.0.write();
        if let Some(website) = maps.by_id.remove(id) {
            maps.id_by_code.remove(&website.tracking_code);
        }
    }
}
