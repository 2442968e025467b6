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

use crate::event::{Gpc, HostsPolicy, Intake};

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
    /// What becomes of events of pages of other hosts.
    pub hosts_policy: HostsPolicy,
    /// What becomes of events of visitors who send `Sec-GPC: 1`.
    pub gpc: Gpc,
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

/// A tracking code that a website had, and that is as good as its own for some time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RetiredCode {
    pub(crate) code: Arc<str>,
    /// The first moment when it is not, in milliseconds since 1970, UTC.
    pub(crate) valid_until: i64,
}

/// Every registered website.
#[derive(Debug, Default)]
pub struct Websites(RwLock<Maps>);

#[derive(Debug, Default)]
struct Maps {
    by_id: HashMap<Arc<str>, Arc<Website>>,
    by_code: HashMap<Arc<str>, OfCode>,
    /// The codes that websites had, by their ids. Of most there is none.
    retired: HashMap<Arc<str>, Vec<RetiredCode>>,
    /// The oldest first. Kept in order, so that a page costs what it shows, however many websites there are.
    by_age: BTreeMap<WebsiteAge, Arc<Website>>,
}

/// What a tracking code leads to.
#[derive(Debug)]
struct OfCode {
    intake: Arc<Intake>,
    /// The first moment when it leads nowhere, in milliseconds since 1970, UTC.
    valid_until: i64,
}

/// The place of a website in the order of their registration, which never changes: when it was registered, and its id.
pub type WebsiteAge = (i64, Arc<str>);

impl Website {
    /// Its place in the order of their registration.
    pub fn age(&self) -> WebsiteAge {
        (self.created_at, Arc::clone(&self.id))
    }

    /// What it takes.
    fn intake(&self) -> Intake {
        Intake::new(Arc::clone(&self.id), &self.domain, &self.hosts, self.hosts_policy, self.gpc)
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
    /// What the website takes that has this tracking code, or had it and may be called by it at this time, in
    /// milliseconds since 1970, UTC.
    pub fn intake_of_code(&self, tracking_code: &str, now_ms: i64) -> Option<Arc<Intake>> {
        let maps = self.0.read();
        let of_code = maps.by_code.get(tracking_code).filter(|of_code| now_ms < of_code.valid_until)?;
        Some(Arc::clone(&of_code.intake))
    }

    /// The id of the website with this tracking code, as [`Websites::intake_of_code`] finds it.
    pub fn id_of_code(&self, tracking_code: &str, now_ms: i64) -> Option<Arc<str>> {
        let maps = self.0.read();
        let of_code = maps.by_code.get(tracking_code).filter(|of_code| now_ms < of_code.valid_until)?;
        Some(Arc::clone(&of_code.intake.website_id))
    }

    /// Whether a website has this tracking code, or had it and it is noted.
    pub(crate) fn has_code(&self, tracking_code: &str) -> bool {
        self.0.read().by_code.contains_key(tracking_code)
    }

    /// The codes that websites had and may be called by at this time, in milliseconds since 1970, UTC, each with the id
    /// of its website.
    pub(crate) fn earlier_codes(&self, now_ms: i64) -> Vec<(Arc<str>, Arc<str>)> {
        let maps = self.0.read();
        let of_website = maps.retired.iter().flat_map(|(id, codes)| codes.iter().map(move |code| (id, code)));
        let valid = of_website.filter(|(_, code)| now_ms < code.valid_until);
        valid.map(|(id, code)| (Arc::clone(&code.code), Arc::clone(id))).collect()
    }

    /// The codes that this website had and that are noted.
    pub(crate) fn retired_codes(&self, id: &str) -> Vec<RetiredCode> {
        self.0.read().retired.get(id).cloned().unwrap_or_default()
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

    /// Puts a website in the place of the one with its id, if there is one. The codes that it had stay.
    pub(crate) fn insert(&self, website: Website) -> Arc<Website> {
        // Before the lock, which everybody who sends events waits for.
        let intake = Arc::new(website.intake());
        let mut maps = self.0.write();
        let retired = maps.remove(&website.id);
        maps.insert(Arc::new(website), &intake, retired)
    }

    /// The same with the codes that it had, in the place of those that were noted.
    pub(crate) fn renew(&self, website: Website, retired: Vec<RetiredCode>) -> Arc<Website> {
        let intake = Arc::new(website.intake());
        let mut maps = self.0.write();
        maps.remove(&website.id);
        maps.insert(Arc::new(website), &intake, retired)
    }

    pub(crate) fn remove(&self, id: &str) {
        self.0.write().remove(id);
    }
}

impl Maps {
    fn insert(&mut self, website: Arc<Website>, intake: &Arc<Intake>, retired: Vec<RetiredCode>) -> Arc<Website> {
        let codes = retired.iter().map(|retired| (&retired.code, retired.valid_until));
        // Its own comes last, and stays whatever it had before.
        for (code, valid_until) in codes.chain([(&website.tracking_code, i64::MAX)]) {
            // What is another's own by now, which an import can make of it, stays that.
            let is_own = |of_code: &OfCode| of_code.valid_until == i64::MAX;
            if valid_until < i64::MAX && self.by_code.get(code).is_some_and(is_own) {
                continue;
            }
            self.by_code.insert(Arc::clone(code), OfCode { intake: Arc::clone(intake), valid_until });
        }
        if !retired.is_empty() {
            self.retired.insert(Arc::clone(&website.id), retired);
        }
        self.by_age.insert(website.age(), Arc::clone(&website));
        self.by_id.insert(Arc::clone(&website.id), Arc::clone(&website));
        website
    }

    /// Removes a website and all that leads to it. Gives back the codes that it had.
    fn remove(&mut self, id: &str) -> Vec<RetiredCode> {
        let retired = self.retired.remove(id).unwrap_or_default();
        if let Some(website) = self.by_id.remove(id) {
            self.by_age.remove(&website.age());
            for code in retired.iter().map(|retired| &retired.code).chain([&website.tracking_code]) {
                if self.by_code.get(code).is_some_and(|of_code| *of_code.intake.website_id == *id) {
                    self.by_code.remove(code);
                }
            }
        }
        retired
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
            hosts_policy: HostsPolicy::default(),
            gpc: Gpc::default(),
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

    /// Whose code it is at this time.
    fn id_at(websites: &Websites, code: &str, now_ms: i64) -> Option<String> {
        let id = websites.id_of_code(code, now_ms).map(|id| id.to_string());
        let intake = websites.intake_of_code(code, now_ms);
        assert_eq!(intake.map(|intake| intake.website_id.to_string()), id, "{code} at {now_ms}");
        id
    }

    #[test]
    fn a_code_that_a_website_had_is_its_own_for_a_while() {
        let websites = Websites::default();
        websites.insert(website(1));
        let retired = |code: &str, valid_until| RetiredCode { code: code.into(), valid_until };
        let renewed = Website { tracking_code: "pm-new".into(), ..website(1) };
        websites.renew(renewed.clone(), vec![retired("pm-older", 50), retired("pm-1", 100)]);
        let one = Some("web-1".to_owned());
        for (code, now_ms, wanted) in [
            ("pm-new", 0, &one),
            ("pm-new", i64::MAX - 1, &one),
            ("pm-1", 99, &one),
            ("pm-1", 100, &None),
            ("pm-older", 49, &one),
            ("pm-older", 50, &None),
            ("pm-other", 0, &None),
        ] {
            assert_eq!(id_at(&websites, code, now_ms), *wanted, "{code} at {now_ms}");
        }
        // What changes of the website changes for whoever calls it by another code, too.
        let intake = || ["pm-new", "pm-1", "pm-older"].map(|code| websites.intake_of_code(code, 0).unwrap());
        let before = intake();
        assert!(before.iter().all(|one| Arc::ptr_eq(one, &before[0])));
        websites.insert(Website { gpc: Gpc::Drop, created_at: 7, ..renewed });
        let after = intake();
        assert!(after.iter().all(|one| Arc::ptr_eq(one, &after[0]) && !Arc::ptr_eq(one, &before[0])));
        assert_eq!((websites.len(), websites.newest_first().len(), websites.retired_codes("web-1").len()), (1, 1, 2));
        assert!(websites.has_code("pm-1") && websites.has_code("pm-new") && !websites.has_code("pm-other"));
        let earlier = |now_ms| {
            let mut codes: Vec<_> = websites.earlier_codes(now_ms).into_iter().map(|(code, _)| code).collect();
            codes.sort_unstable();
            codes.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(
            (earlier(49), earlier(50), earlier(100)),
            (vec!["pm-1".into(), "pm-older".into()], vec!["pm-1".into()], vec![])
        );
        // Another's own code, which an import has made of it, stays that.
        websites.insert(Website { tracking_code: "pm-older".into(), ..website(2) });
        websites.insert(Website { name: "changed".into(), ..website(1) });
        assert_eq!(id_at(&websites, "pm-older", 0).as_deref(), Some("web-2"));
        websites.remove("web-2");
        websites.remove("web-1");
        assert!(["pm-new", "pm-1", "pm-older"].iter().all(|code| !websites.has_code(code)));
        assert_eq!((websites.len(), websites.retired_codes("web-1")), (0, vec![]));
    }
}
