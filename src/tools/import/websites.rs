//! To which website each line's event goes, and what becomes of the websites that lines tell of.
//!
//! An event goes to the website with the line's `websiteId`; if there is none, to the one with its `trackingCode`; if
//! there is none either, a website is registered as it was where the line was exported: by a line of its own as far as
//! there is one, before the event's or after it, and else with its domain for a name. A website that is here stays as
//! it is, so that what was changed here since an export is not changed back; but one of which only events told, and
//! that nobody has changed, is filled in by its line. One that could not be told apart from another by its code or its
//! domain is refused. A tracking code that a website here had, and that is still valid, is as good as its own; exports
//! have the one of now only.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use crate::{
    clock::now_ms,
    domain::{Domain, is_of_older_rules},
    event::{Gpc, HostsPolicy, Intake, is_tracking_code},
    store::{Aim, Goal, Website, offline::CatalogContents},
};

/// Longest id of a website that is taken over, in bytes; those that hitlog makes have 16.
const ID_BYTES_MAX: usize = 64;
/// Most websites that one import registers or leaves out, so that lines that are no export, each with a website of its
/// own, end in a message and not in the memory of the machine.
const WEBSITES_MAX: usize = 100_000;
/// Most bytes of what is said of the websites that one import registers, for the same reason: an older hitlog took
/// domains of any length.
const TEXT_BYTES_MAX: usize = 64 << 20;
/// How many answers to "where does this line go" are kept, and the longest question; all others are asked again.
const KNOWN_MAX: usize = 100_000;
const KNOWN_BYTES_MAX: usize = 1_024;

/// The websites that lines go to.
pub(super) struct Destinations<'a> {
    catalog: Option<&'a CatalogContents>,
    /// Where all lines go, if somebody said so.
    forced: Option<u32>,
    /// The websites, by number. They take whatever comes: it was stored once, and nobody is there to be told.
    intakes: Vec<Arc<Intake>>,
    numbers: HashMap<Arc<str>, u32>,
    /// The websites that are here or are to be registered, by id.
    websites: HashMap<Arc<str>, Known>,
    by_code: HashMap<Arc<str>, Arc<str>>,
    by_domain: HashMap<String, Arc<str>>,
    /// The ids of those that are to be registered, in the order in which they come.
    planned: Vec<Arc<str>>,
    /// The bytes of what those are called.
    planned_bytes: usize,
    /// Those that lines tell of and that are here already; whether they are otherwise here.
    stay: BTreeMap<Arc<str>, bool>,
    /// Those that lines tell of and that are left out, because all events go to one website.
    left_out: HashSet<Arc<str>>,
    /// The websites of some of the lines so far, by what the lines name.
    known: HashMap<String, u32>,
    /// What the line at hand names, in the form of a key of `known`.
    key: String,
}

/// A website that is here, or is to be registered.
struct Known {
    tracking_code: Arc<str>,
    domain: String,
    told: Told,
}

/// What is known of a website beside its code and its domain.
enum Told {
    /// It is registered here.
    Here(Arc<Website>),
    /// It is to be registered, as a line of its own has it.
    ByLine(Website),
    /// It is to be registered, and only events tell of it so far.
    ByEvents,
    /// It is registered here as events told of it, and is to be filled in, as a line of its own has it.
    FilledIn(Website),
}

impl<'a> Destinations<'a> {
    pub(super) fn new(catalog: Option<&'a CatalogContents>, forced: Option<Arc<str>>) -> Self {
        let mut targets = Self {
            catalog,
            forced: None,
            intakes: Vec::new(),
            numbers: HashMap::new(),
            websites: HashMap::new(),
            by_code: HashMap::new(),
            by_domain: HashMap::new(),
            planned: Vec::new(),
            planned_bytes: 0,
            stay: BTreeMap::new(),
            left_out: HashSet::new(),
            known: HashMap::new(),
            key: String::new(),
        };
        targets.forced = forced.map(|id| targets.number(&id));
        for here in catalog.into_iter().flat_map(CatalogContents::websites) {
            let (code, domain) = (Arc::clone(&here.tracking_code), here.domain.clone());
            targets.know(&here.id, Known { tracking_code: code, domain, told: Told::Here(Arc::clone(here)) });
        }
        for (code, id) in catalog.into_iter().flat_map(CatalogContents::earlier_codes) {
            targets.by_code.entry(Arc::clone(code)).or_insert_with(|| Arc::clone(id));
        }
        targets
    }

    /// The number of the website that a line's event goes to, planned if need be.
    pub(super) fn of_line(
        &mut self,
        id: Option<&str>,
        tracking_code: Option<&str>,
        domain: Option<&str>,
    ) -> Result<u32, String> {
        if let Some(forced) = self.forced {
            return Ok(forced);
        }
        self.key.clear();
        for text in [id, tracking_code, domain] {
            // Absent is not the same as empty.
            self.key.extend(text.map_or(["\u{1}", ""], |text| [text, "\u{0}"]));
        }
        if let Some(number) = self.known.get(&self.key) {
            return Ok(*number);
        }
        let found = self.find(id, tracking_code).map_or_else(|| self.plan(id, tracking_code, domain), Ok)?;
        let number = self.number(&found);
        if self.key.len() <= KNOWN_BYTES_MAX {
            if self.known.len() >= KNOWN_MAX {
                self.known.clear();
            }
            self.known.insert(self.key.clone(), number);
        }
        Ok(number)
    }

    /// Takes in what a line of its own says of a website. The same line again changes nothing.
    pub(super) fn add(&mut self, website: Website) -> Result<(), String> {
        check_names("id", &website.id, &website.tracking_code)?;
        if self.forced.is_some() {
            if self.left_out.len() >= WEBSITES_MAX && !self.left_out.contains(&website.id) {
                return Err(too_many());
            }
            self.left_out.insert(website.id);
            return Ok(());
        }
        let domain = imported_domain(&website.domain).map_err(|fault| format!("domain: {fault}"))?.into_owned();
        let website = Website { domain, ..website };
        let id = Arc::clone(&website.id);
        let Some(known) = self.websites.get(&id) else {
            self.check_new(&id, &website.tracking_code, &website.domain, None)?;
            self.resize_planned(0, bytes_of(&website))?;
            self.planned.push(Arc::clone(&id));
            let (code, domain) = (Arc::clone(&website.tracking_code), website.domain.clone());
            self.know(&id, Known { tracking_code: code, domain, told: Told::ByLine(website) });
            return Ok(());
        };
        if known.tracking_code != website.tracking_code {
            if self.by_code.get(&website.tracking_code) == Some(&id) {
                // It got a new one here since the export.
                self.stay.insert(id, true);
                return Ok(());
            }
            return Err(format!(
                "the website {id} has the tracking code {}, and {} here: if it got a new one since, leave this line \
                 out, since events find it by their websiteId; else they are two websites, and the id of one must be \
                 changed",
                website.tracking_code, known.tracking_code
            ));
        }
        match &known.told {
            Told::Here(here) if is_of_events_only(here) && here.domain == website.domain && **here != website => {
                return self.fill_in(&id, website);
            }
            Told::Here(here) => {
                let differs = **here != website;
                self.stay.insert(id, differs);
                return Ok(());
            }
            // Of two exports in one stream the later counts.
            Told::ByLine(before) | Told::FilledIn(before) if before.updated_at >= website.updated_at => return Ok(()),
            Told::FilledIn(before) if before.domain == website.domain => return self.fill_in(&id, website),
            Told::FilledIn(_) => {
                self.stay.insert(id, true);
                return Ok(());
            }
            Told::ByLine(_) | Told::ByEvents => {}
        }
        let (before, bytes) = (known.domain.clone(), known.bytes(&id));
        if before != website.domain {
            self.check_domain(&id, &website.domain, None)?;
        }
        self.resize_planned(bytes, bytes_of(&website))?;
        if before != website.domain {
            self.by_domain.remove(&before);
            self.by_domain.insert(website.domain.clone(), Arc::clone(&id));
        }
        if let Some(known) = self.websites.get_mut(&id) {
            known.domain.clone_from(&website.domain);
            known.told = Told::ByLine(website);
        }
        Ok(())
    }

    fn fill_in(&mut self, id: &str, website: Website) -> Result<(), String> {
        let before = self.websites.get(id).map_or(0, |known| match &known.told {
            Told::FilledIn(before) => bytes_of(before),
            _ => 0,
        });
        self.resize_planned(before, bytes_of(&website))?;
        if let Some(known) = self.websites.get_mut(id) {
            known.told = Told::FilledIn(website);
        }
        Ok(())
    }

    /// The website with this number.
    pub(super) fn intake(&self, number: usize) -> Option<Arc<Intake>> {
        self.intakes.get(number).map(Arc::clone)
    }

    /// The websites that are to be registered, in the order in which they come in the lines.
    pub(super) fn planned(&self) -> Vec<Website> {
        let registered = |known: &Known| match &known.told {
            Told::Here(website) => website.created_at,
            Told::ByLine(website) | Told::FilledIn(website) => website.created_at,
            Told::ByEvents => i64::MIN,
        };
        let newest = self.websites.values().map(registered).max().unwrap_or(i64::MIN);
        // Each is later than the previous one, so that "newest first" is an order.
        let mut next = now_ms().max(newest.saturating_add(1));
        let website = |id: &Arc<str>| match self.websites.get(id) {
            None | Some(Known { told: Told::Here(_) | Told::FilledIn(_), .. }) => None,
            Some(Known { told: Told::ByLine(website), .. }) => Some(website.clone()),
            Some(Known { tracking_code, domain, told: Told::ByEvents }) => {
                let created_at = next;
                next += 1;
                Some(Website {
                    id: Arc::clone(id),
                    tracking_code: Arc::clone(tracking_code),
                    name: domain.clone(),
                    domain: domain.clone(),
                    description: None,
                    timezone: None,
                    hosts: Arc::default(),
                    hosts_policy: HostsPolicy::default(),
                    gpc: Gpc::default(),
                    goals: Arc::default(),
                    created_at,
                    updated_at: created_at,
                })
            }
        };
        self.planned.iter().filter_map(website).collect()
    }

    /// The websites that are here and are to be filled in, in the order of their ids.
    pub(super) fn filled_in(&self) -> Vec<Website> {
        let filled_in = |known: &Known| match &known.told {
            Told::FilledIn(website) => Some(website.clone()),
            _ => None,
        };
        let mut websites: Vec<_> = self.websites.values().filter_map(filled_in).collect();
        websites.sort_by(|one, other| one.id.cmp(&other.id));
        websites
    }

    /// The ids of those that lines tell of and that are here already, each with whether it is otherwise here.
    pub(super) fn stay(&self) -> &BTreeMap<Arc<str>, bool> {
        &self.stay
    }

    /// How many lines' websites are left out, because all events go to one.
    pub(super) fn left_out(&self) -> usize {
        self.left_out.len()
    }

    fn number(&mut self, id: &Arc<str>) -> u32 {
        let next = self.intakes.len() as u32;
        *self.numbers.entry(Arc::clone(id)).or_insert_with(|| {
            self.intakes.push(Intake::of_anything(Arc::clone(id)));
            next
        })
    }

    /// Notes that so many bytes of what planned websites are called take the place of so many.
    fn resize_planned(&mut self, before: usize, after: usize) -> Result<(), String> {
        let bytes = self.planned_bytes.saturating_sub(before) + after;
        if bytes > TEXT_BYTES_MAX {
            return Err(too_many());
        }
        self.planned_bytes = bytes;
        Ok(())
    }

    fn know(&mut self, id: &Arc<str>, known: Known) {
        self.by_code.insert(Arc::clone(&known.tracking_code), Arc::clone(id));
        self.by_domain.insert(known.domain.clone(), Arc::clone(id));
        self.websites.insert(Arc::clone(id), known);
    }

    /// A website that is there, or planned.
    fn find(&self, id: Option<&str>, tracking_code: Option<&str>) -> Option<Arc<str>> {
        let by_id = id.and_then(|id| self.websites.get_key_value(id)).map(|(id, _)| id);
        by_id.or_else(|| tracking_code.and_then(|code| self.by_code.get(code))).map(Arc::clone)
    }

    fn plan(
        &mut self,
        id: Option<&str>,
        tracking_code: Option<&str>,
        domain: Option<&str>,
    ) -> Result<Arc<str>, String> {
        const ELSEWHERE: &str = "--website ID puts every event into one website that is here";
        let (Some(id), Some(tracking_code), Some(domain)) = (id, tracking_code, domain) else {
            return Err(format!(
                "its website is not here, and without websiteId, trackingCode and domain it cannot be registered; \
                 {ELSEWHERE}"
            ));
        };
        let domain = imported_domain(domain).map_err(|fault| format!("domain: {fault}"))?;
        self.check_new(id, tracking_code, &domain, Some(ELSEWHERE))?;
        let id: Arc<str> = id.into();
        let known = Known { tracking_code: tracking_code.into(), domain: domain.into(), told: Told::ByEvents };
        self.resize_planned(0, known.bytes(&id))?;
        self.planned.push(Arc::clone(&id));
        self.know(&id, known);
        Ok(id)
    }

    /// Why no website can be registered like this. `of_event`: what else can be done with an event.
    fn check_new(&self, id: &str, tracking_code: &str, domain: &str, of_event: Option<&str>) -> Result<(), String> {
        check_names(if of_event.is_some() { "websiteId" } else { "id" }, id, tracking_code)?;
        if self.planned.len() >= WEBSITES_MAX {
            return Err(too_many());
        }
        if let Some(taken) = self.by_code.get(tracking_code) {
            return Err(format!(
                "the tracking code {tracking_code} of the website {id} belongs to the website {taken}"
            ));
        }
        if self.catalog.is_some_and(|catalog| catalog.is_being_erased(id)) {
            let or = of_event.map(|elsewhere| format!(", or: {elsewhere}")).unwrap_or_default();
            return Err(format!(
                "the website {id} was deleted here and its events are being erased, which would take these with them; \
                 let hitlog serve until that is done{or}"
            ));
        }
        self.check_domain(id, domain, of_event)
    }

    fn check_domain(&self, id: &str, domain: &str, of_event: Option<&str>) -> Result<(), String> {
        let Some(taken) = self.by_domain.get(domain).filter(|taken| ***taken != *id) else { return Ok(()) };
        Err(match of_event {
            Some(_) => format!(
                "its website {id} is not here, and its domain {domain} belongs to the website {taken}; \
                 --website {taken} puts every event into that one"
            ),
            None => format!(
                "the website {id} is not here, and its domain {domain} belongs to the website {taken}: change the \
                 domain of one of them first"
            ),
        })
    }
}

impl Known {
    /// The bytes of what it is called, if it has this id.
    fn bytes(&self, id: &str) -> usize {
        match &self.told {
            Told::Here(website) => bytes_of(website),
            Told::ByLine(website) | Told::FilledIn(website) => bytes_of(website),
            Told::ByEvents => id.len() + self.tracking_code.len() + self.domain.len(),
        }
    }
}

/// Whether a website is as an import registers one of which only events tell, and nobody has changed it since. One that
/// somebody registered was named by them; its code ends with the time of that.
fn is_of_events_only(here: &Website) -> bool {
    let is_registered_by_somebody = here.tracking_code.ends_with(&format!("-{:013}", here.created_at));
    let is_described =
        here.description.is_some() || here.timezone.is_some() || !here.hosts.is_empty() || !here.goals.is_empty();
    let has_words = here.hosts_policy != HostsPolicy::default() || here.gpc != Gpc::default();
    let is_unchanged = !is_described && !has_words && here.updated_at == here.created_at;
    here.name == here.domain && is_unchanged && !is_registered_by_somebody
}

fn bytes_of(Website { id, tracking_code, name, domain, description, timezone, hosts, goals, .. }: &Website) -> usize {
    let said = [description, timezone].into_iter().flatten().map(String::len).sum::<usize>();
    let hosts = hosts.iter().map(|host| size_of::<String>() + host.len()).sum::<usize>();
    let goals = goals
        .iter()
        .map(|Goal { name, aim: Aim::Event(text) | Aim::Page(text) }| size_of::<Goal>() + name.len() + text.len());
    id.len() + tracking_code.len() + name.len() + domain.len() + said + hosts + goals.sum::<usize>()
}

/// Why no website can have this id, which is this member of its line, or this tracking code.
fn check_names(member: &str, id: &str, tracking_code: &str) -> Result<(), String> {
    if !(1..=ID_BYTES_MAX).contains(&id.len()) || id.chars().any(char::is_control) {
        return Err(format!("{member}: Expected 1 to {ID_BYTES_MAX} bytes without control characters"));
    }
    if !is_tracking_code(tracking_code) {
        return Err("trackingCode: Invalid tracking code format".into());
    }
    Ok(())
}

fn too_many() -> String {
    format!(
        "the lines tell of more than {WEBSITES_MAX} websites, or of names, domains and goals of more than \
         {TEXT_BYTES_MAX} bytes; split them into several files, and import these one after the other"
    )
}

/// The domain to register for a line's. One that an older hitlog may have kept stays as it is: to refuse it would
/// refuse the whole export, and to write it anew could make two websites one.
fn imported_domain(text: &str) -> Result<Cow<'_, str>, &'static str> {
    if is_of_older_rules(text) {
        return Ok(text.into());
    }
    Domain::parse(text).map(|domain| domain.into_string().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn website(number: i64, domain: &str) -> Website {
        Website {
            id: format!("web-{number}").into(),
            tracking_code: format!("pm-{number:04}").into(),
            name: format!("Name {number}"),
            domain: domain.into(),
            description: Some("Words".into()),
            timezone: Some("Europe/Berlin".into()),
            hosts: Arc::default(),
            hosts_policy: HostsPolicy::default(),
            gpc: Gpc::default(),
            goals: Arc::default(),
            created_at: number,
            updated_at: number,
        }
    }

    #[test]
    fn websites_that_lines_tell_of() {
        let mut targets = Destinations::new(None, None);
        // Events first: the line that comes later says what it is called.
        assert_eq!(targets.of_line(Some("web-2"), Some("pm-0002"), Some("old.example")), Ok(0));
        for line in [website(1, "a.example"), website(2, "B.example"), website(1, "a.example")] {
            assert_eq!(targets.add(line), Ok(()));
        }
        assert_eq!(targets.of_line(Some("web-1"), None, None), Ok(1));
        assert_eq!(targets.planned(), [website(2, "b.example"), website(1, "a.example")]);
        // Of two exports the later, whichever comes first; a domain that was given up is free.
        let later = Website { name: "Later".into(), domain: "old.example".into(), updated_at: 9, ..website(1, "") };
        for line in [later.clone(), website(1, "a.example"), website(3, "a.example")] {
            assert_eq!(targets.add(line), Ok(()));
        }
        assert_eq!(targets.planned(), [website(2, "b.example"), later, website(3, "a.example")]);
        for (line, wanted) in [
            (Website { tracking_code: "pm-other".into(), ..website(1, "a.example") }, "they are two websites"),
            (Website { tracking_code: "pm-0001".into(), ..website(4, "d.example") }, "belongs to the website web-1"),
            (website(4, "b.example"), "belongs to the website web-2"),
            (Website { domain: "b.example".into(), updated_at: 99, ..website(3, "") }, "belongs to the website web-2"),
            (website(4, "no host"), "domain"),
            (Website { tracking_code: "x".into(), ..website(4, "d.example") }, "trackingCode"),
            (Website { id: "".into(), ..website(4, "d.example") }, "id: Expected"),
        ] {
            let error = targets.add(line).unwrap_err();
            assert!(error.contains(wanted), "{error}");
        }
        assert_eq!(targets.planned().len(), 3);
        let mut forced = Destinations::new(None, Some("web-z".into()));
        assert_eq!((forced.add(website(1, "a.example")), forced.planned().len(), forced.left_out()), (Ok(()), 0, 1));
        // What only events tell of is younger than what lines say.
        let future = now_ms() + 1_000_000;
        let mut targets = Destinations::new(None, None);
        targets.add(Website { created_at: future, ..website(1, "a.example") }).unwrap();
        targets.of_line(Some("web-2"), Some("pm-0002"), Some("b.example")).unwrap();
        assert_eq!(targets.planned()[1].created_at, future + 1);
    }

    #[test]
    fn what_only_events_told_of_is_filled_in_unless_somebody_has_changed_it() {
        let of_events =
            Website { name: "a.example".into(), description: None, timezone: None, ..website(9, "a.example") };
        let line = Website { id: "web-9".into(), tracking_code: "pm-0009".into(), ..website(3, "a.example") };
        let later = Website { name: "Later".into(), updated_at: 5, ..line.clone() };
        let goal = Goal { name: "Signup".into(), aim: Aim::Event("signup".into()) };
        let with = |here: &Website, lines: &[&Website]| {
            let mut targets = Destinations::new(None, None);
            let (code, domain) = (Arc::clone(&here.tracking_code), here.domain.clone());
            let told = Told::Here(Arc::new(here.clone()));
            targets.know(&here.id, Known { tracking_code: code, domain, told });
            lines.iter().for_each(|line| assert_eq!(targets.add((*line).clone()), Ok(())));
            assert_eq!(targets.planned(), []);
            let differs = targets.stay().values().copied().collect::<Vec<_>>();
            (targets.filled_in(), differs)
        };
        assert_eq!(with(&of_events, &[&line]), (vec![line.clone()], vec![]));
        assert_eq!(with(&of_events, &[&line, &later, &line]), (vec![later.clone()], vec![]), "the later counts");
        assert_eq!(with(&of_events, &[&of_events]), (vec![], vec![false]), "it is so already");
        for changed in [
            Website { name: "Named".into(), ..of_events.clone() },
            Website { description: Some(String::new()), ..of_events.clone() },
            Website { timezone: Some("UTC".into()), ..of_events.clone() },
            Website { hosts: ["www.a.example".to_owned()].into(), ..of_events.clone() },
            Website { goals: [goal.clone()].into(), ..of_events.clone() },
            Website { hosts_policy: HostsPolicy::Refuse, ..of_events.clone() },
            Website { gpc: Gpc::Drop, ..of_events.clone() },
            Website { updated_at: 10, ..of_events.clone() },
            Website { domain: "b.example".into(), name: "b.example".into(), ..of_events.clone() },
        ] {
            assert_eq!(with(&changed, &[&line]), (vec![], vec![true]), "{changed:?}");
        }
        let of_somebody = Website { tracking_code: "pm-abcdef-0000000000009".into(), ..of_events };
        let line = Website { tracking_code: Arc::clone(&of_somebody.tracking_code), ..line };
        assert_eq!(with(&of_somebody, &[&line]), (vec![], vec![true]));
    }

    #[test]
    fn what_is_kept_of_websites_is_bounded() {
        let domain = "d".repeat(1 << 20);
        let mut targets = Destinations::new(None, None);
        let long = |number: usize| Website { domain: format!("{number}.{domain}"), ..website(number as i64, "") };
        let most = TEXT_BYTES_MAX >> 20;
        let told: Vec<_> = (0..=most).map(|number| targets.add(long(number))).collect();
        assert!(told[..most - 1].iter().all(Result::is_ok) && told[most].is_err(), "{:?}", told[most]);
        // What takes the place of something as long has its room.
        assert_eq!(targets.add(Website { updated_at: i64::MAX, ..long(7) }), Ok(()));
        assert_eq!(targets.add(Website { domain: "a.example".into(), updated_at: i64::MAX, ..long(8) }), Ok(()));
        assert_eq!(targets.add(long(most - 1)), Ok(()));

        let (mut targets, mut forced) = (Destinations::new(None, None), Destinations::new(None, Some("web-z".into())));
        for number in 0..WEBSITES_MAX {
            let (id, code) = (format!("web-{number}"), format!("pm-{number}"));
            assert_eq!(targets.of_line(Some(&id), Some(&code), Some(&id)), Ok(number as u32));
            // Each names its website in a way of its own.
            assert_eq!(targets.of_line(Some(&id), Some(&code), Some(&code)), Ok(number as u32));
            assert!(targets.known.len() <= KNOWN_MAX);
            forced.add(website(number as i64, "a.example")).unwrap();
        }
        let refused = targets.of_line(Some("web-x"), Some("pm-x"), Some("x.example"));
        assert!(refused.as_ref().is_err_and(|told| told.contains("split them into several files")), "{refused:?}");
        assert!(targets.add(website(-1, "x.example")).is_err() && forced.add(website(-1, "x.example")).is_err());
        assert_eq!(forced.add(website(7, "a.example")), Ok(()), "it is one of them");
        let (kept, text) = (targets.known.len(), "x".repeat(KNOWN_BYTES_MAX));
        assert_eq!(targets.of_line(Some("web-7"), None, Some(&text)), Ok(7));
        assert_eq!(targets.known.len(), kept, "a long question is not kept");
        assert_eq!(targets.planned().len(), WEBSITES_MAX);
    }

    #[test]
    fn where_lines_go() {
        let mut targets = Destinations::new(None, None);
        let line = |targets: &mut Destinations<'_>, id, code, domain| targets.of_line(id, code, domain);
        let (a, b) = (Some("web-a"), Some("web-b"));
        assert_eq!(line(&mut targets, a, Some("pm-a"), Some("a.example")), Ok(0));
        assert_eq!(line(&mut targets, a, None, None), Ok(0), "by its id alone");
        assert_eq!(line(&mut targets, b, Some("pm-a"), None), Ok(0), "by its code alone");
        assert_eq!(line(&mut targets, b, Some("pm-b"), Some("b.example")), Ok(1));
        let id = |targets: &Destinations<'_>, number| targets.intake(number).map(|of| of.website_id.to_string());
        assert_eq!(id(&targets, 1).as_deref(), b);
        assert_eq!(
            targets.planned().iter().map(|website| website.name.clone()).collect::<Vec<_>>(),
            ["a.example", "b.example"]
        );
        for (id, code, domain, wanted) in [
            (Some("web-c"), None, None, "cannot be registered"),
            (Some("web-c"), Some("pm-c"), Some("a.example"), "belongs to the website web-a"),
            (Some("web-c"), Some("c"), Some("c.example"), "trackingCode"),
            (Some("web-c"), Some("pm-c"), Some("c.example/x"), "domain"),
            (Some("web-c"), Some("pm-c"), Some("no host"), "domain"),
            (Some("web-c"), Some("pm-c"), Some("HTTP://A.example/x"), "belongs to the website web-a"),
            (Some("web-\n"), Some("pm-c"), Some("c.example"), "websiteId"),
        ] {
            let error = targets.of_line(id, code, domain).unwrap_err();
            assert!(error.contains(wanted), "{error}");
        }
        // What an older hitlog kept stays as it is; what people write is a domain like any other.
        for (number, (domain, registered)) in [
            ("b.example.", "b.example."),
            ("a..b", "a..b"),
            ("*", "*"),
            ("m%c3%bcnchen.test", "m%c3%bcnchen.test"),
            ("0.0.48.57", "0.0.48.57"),
            ("localhost:3000", "localhost:3000"),
            ("localhost:8080", "localhost:8080"),
            ("https://München.test/x", "xn--mnchen-3ya.test"),
        ]
        .into_iter()
        .enumerate()
        {
            let (id, code) = (format!("web-{number}"), format!("pm-{number}"));
            assert!(targets.of_line(Some(&id), Some(&code), Some(domain)).is_ok(), "{domain}");
            assert_eq!(targets.planned().last().unwrap().domain, registered);
        }
        let mut forced = Destinations::new(None, Some("web-z".into()));
        assert_eq!(forced.of_line(None, None, None), Ok(0));
        assert_eq!(id(&forced, 0).as_deref(), Some("web-z"));
    }
}
