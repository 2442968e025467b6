//! The websites in memory: what the edge asks for every event, without a look at the disk.
//!
//! The catalog's thread is the only one that changes it, after its COMMIT; everybody else reads.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound,
    sync::Arc,
};

use parking_lot::RwLock;
use serde::{Deserialize, Serialize};

/// A registered website.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Website {
    /// The id by which the API and the events name it.
    pub id: Arc<str>,
    /// The code that its trackers send.
    pub tracking_code: Arc<str>,
    /// The name that people see.
    pub name: String,
    /// Where its pages are, in lower case; no two websites have the same. One that an older hitlog registered may break
    /// the rules of `Domain`.
    pub domain: String,
    /// What people wrote about it, if anything.
    pub description: Option<String>,
    /// The zone of its days and hours, if people said one, as IANA writes it.
    pub timezone: Option<String>,
    /// The hosts that are its own, beside its domain: each once, by the rules of `Domain`, in the order in which people
    /// named them.
    pub hosts: Arc<[String]>,
    /// What its visitors are to do; no two have the same name.
    pub goals: Arc<[Goal]>,
    /// When it was registered, in milliseconds since 1970, UTC.
    pub created_at: i64,
    /// When it last changed, in milliseconds since 1970, UTC.
    pub updated_at: i64,
}

/// What visitors of a website are to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Goal {
    /// The name that people see.
    pub name: String,
    /// What has to happen for it.
    #[serde(flatten)]
    pub aim: Aim,
}

/// What has to happen for a goal. The names are those of the catalog.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Aim {
    /// An event with this name.
    #[serde(rename = "event")]
    Event(String),
    /// A page view that fits this pattern, which is not negated.
    #[serde(rename = "page")]
    Page(String),
}

/// Every registered website.
#[derive(Debug, Default)]
pub struct Websites(RwLock<Maps>);

#[derive(Debug, Default)]
struct Maps {
    by_id: HashMap<Arc<str>, Arc<Website>>,
    id_by_code: HashMap<Arc<str>, Arc<str>>,
    /// The oldest first. Kept in order, so that a page costs what it shows, however many websites there are.
    by_age: BTreeMap<WebsiteAge, Arc<Website>>,
}

/// The place of a website in the order of their registration, which never changes: when it was registered, and its
/// tracking code.
pub type WebsiteAge = (i64, Arc<str>);

impl Website {
    /// Its place in the order of their registration.
    pub fn age(&self) -> WebsiteAge {
        (self.created_at, Arc::clone(&self.tracking_code))
    }
}

/// Some websites, the newest first.
#[derive(Debug)]
pub struct WebsitePage {
    /// The websites of the page.
    pub websites: Vec<Arc<Website>>,
    /// How many there are on all pages.
    pub total: usize,
    /// Whether older ones follow.
    pub has_more: bool,
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
        self.0.read().by_age.values().rev().map(Arc::clone).collect()
    }

    /// At most `limit` websites, the newest first: from the newest of all on, or from the next older one than `after`,
    /// which may be gone by now.
    pub fn page(&self, after: Option<&WebsiteAge>, limit: usize) -> WebsitePage {
        let maps = self.0.read();
        let end = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut older = maps.by_age.range::<WebsiteAge, _>((Bound::Unbounded, end)).rev();
        let websites = older.by_ref().take(limit).map(|(_, website)| Arc::clone(website)).collect();
        WebsitePage { websites, total: maps.by_id.len(), has_more: older.next().is_some() }
    }

    /// When the newest was registered, in milliseconds since 1970, UTC; 0 if there is none.
    pub(crate) fn newest_created_at(&self) -> i64 {
        self.0.read().by_age.last_key_value().map_or(0, |((created_at, _), _)| *created_at)
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
        maps.by_age.insert(website.age(), Arc::clone(&website));
        maps.by_id.insert(Arc::clone(&website.id), Arc::clone(&website));
        website
    }

    pub(crate) fn remove(&self, id: &str) {
        let mut maps = self.0.write();
        if let Some(website) = maps.by_id.remove(id) {
            maps.id_by_code.remove(&website.tracking_code);
            maps.by_age.remove(&website.age());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn website(number: i64) -> Website {
        Website {
            id: format!("web-{number}").into(),
            tracking_code: format!("pm-{number}").into(),
            name: String::new(),
            domain: format!("{number}.example"),
            description: None,
            timezone: None,
            hosts: Arc::default(),
            goals: Arc::default(),
            // In pairs of the same age.
            created_at: number / 2,
            updated_at: 0,
        }
    }

    #[test]
    fn pages_stay_in_order_while_websites_come_and_go() {
        let websites = Websites::default();
        for number in [3, 0, 5, 1, 4, 2] {
            websites.insert(website(number));
        }
        let ids = |page: &WebsitePage| page.websites.iter().map(|website| website.id.to_string()).collect::<Vec<_>>();
        let first = websites.page(None, 2);
        assert_eq!((ids(&first), first.total, first.has_more), (vec!["web-5".into(), "web-4".into()], 6, true));
        let place = first.websites.last().unwrap().age();
        websites.remove("web-4");
        websites.remove("web-2");
        websites.insert(website(6));
        websites.insert(Website { name: "changed".into(), ..website(1) });
        let second = websites.page(Some(&place), 2);
        assert_eq!((ids(&second), second.total, second.has_more), (vec!["web-3".into(), "web-1".into()], 5, true));
        assert_eq!(second.websites[1].name, "changed");
        let last = websites.page(Some(&second.websites[1].age()), 2);
        assert_eq!((ids(&last), last.has_more), (vec!["web-0".into()], false));
        assert_eq!(ids(&websites.page(Some(&last.websites[0].age()), 2)), Vec::<String>::new());
        let all: Vec<_> = websites.newest_first().iter().map(|website| website.id.to_string()).collect();
        assert_eq!(all, ["web-6", "web-5", "web-3", "web-1", "web-0"]);
        assert_eq!(websites.newest_created_at(), 3);
    }
}
