//! To which website each line's event goes.
//!
//! To the one with the line's `websiteId`; if there is none, to the one with its `trackingCode`; if there is none
//! either, a website is registered as it was where the line was exported.

use std::{borrow::Cow, collections::HashMap, sync::Arc};

use crate::{
    clock::now_ms,
    domain::{Domain, is_of_older_rules},
    event::is_tracking_code,
    store::{Website, offline::CatalogContents},
};

/// Longest id of a website that is taken over, in bytes; those that hitlog makes have 16.
const ID_BYTES_MAX: usize = 64;

/// The websites that lines go to.
pub(super) struct Destinations<'a> {
    catalog: Option<&'a CatalogContents>,
    /// Where all lines go, if somebody said so.
    forced: Option<u32>,
    /// The ids of the websites, by number.
    ids: Vec<Arc<str>>,
    numbers: HashMap<Arc<str>, u32>,
    /// The websites that are to be registered.
    planned: Vec<Planned>,
    /// The websites of the lines so far, by what the lines name.
    known: HashMap<String, u32>,
    /// What the line at hand names, in the form of a key of `known`.
    key: String,
}

struct Planned {
    id: Arc<str>,
    tracking_code: String,
    domain: String,
}

impl<'a> Destinations<'a> {
    pub(super) fn new(catalog: Option<&'a CatalogContents>, forced: Option<Arc<str>>) -> Self {
        let mut targets = Self {
            catalog,
            forced: None,
            ids: Vec::new(),
            numbers: HashMap::new(),
            planned: Vec::new(),
            known: HashMap::new(),
            key: String::new(),
        };
        targets.forced = forced.map(|id| targets.number(&id));
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
        self.known.insert(self.key.clone(), number);
        Ok(number)
    }

    /// The id of the website with this number.
    pub(super) fn id(&self, number: usize) -> Option<Arc<str>> {
        self.ids.get(number).map(Arc::clone)
    }

    /// The websites that are to be registered, in the order in which they come in the file.
    pub(super) fn planned(&self) -> Vec<Website> {
        let newest =
            self.catalog.into_iter().flat_map(CatalogContents::websites).map(|website| website.created_at).max();
        let now = now_ms().max(newest.map_or(0, |newest| newest + 1));
        let website = |(created_at, planned): (i64, &Planned)| Website {
            id: Arc::clone(&planned.id),
            tracking_code: planned.tracking_code.as_str().into(),
            name: planned.domain.clone(),
            domain: planned.domain.clone(),
            description: None,
            created_at,
            updated_at: created_at,
        };
        // Each is later than the previous one, so that "newest first" is an order.
        (now..).zip(&self.planned).map(website).collect()
    }

    fn number(&mut self, id: &Arc<str>) -> u32 {
        let next = self.ids.len() as u32;
        *self.numbers.entry(Arc::clone(id)).or_insert_with(|| {
            self.ids.push(Arc::clone(id));
            next
        })
    }

    /// A website that is there, or planned.
    fn find(&self, id: Option<&str>, tracking_code: Option<&str>) -> Option<Arc<str>> {
        let by_id = |id: &str| {
            let known = self.catalog.and_then(|catalog| catalog.website(id.as_bytes())).map(|website| &website.id);
            known.or_else(|| self.planned.iter().map(|planned| &planned.id).find(|planned| ***planned == *id))
        };
        let by_code = |code: &str| {
            let mut known = self.catalog.into_iter().flat_map(CatalogContents::websites);
            let known = known.find(|website| *website.tracking_code == *code).map(|website| &website.id);
            let planned = || self.planned.iter().find(|planned| planned.tracking_code == code);
            known.or_else(|| planned().map(|planned| &planned.id))
        };
        id.and_then(by_id).or_else(|| tracking_code.and_then(by_code)).map(Arc::clone)
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
        if !(1..=ID_BYTES_MAX).contains(&id.len()) || id.chars().any(char::is_control) {
            return Err(format!("websiteId: Expected 1 to {ID_BYTES_MAX} bytes without control characters"));
        }
        if !is_tracking_code(tracking_code) {
            return Err("trackingCode: Invalid tracking code format".into());
        }
        let domain = imported_domain(domain).map_err(|fault| format!("domain: {fault}"))?;
        let domain = &*domain;
        if self.catalog.is_some_and(|catalog| catalog.is_being_erased(id)) {
            return Err(format!(
                "the website {id} was deleted here and its events are being erased, which would take these with them; \
                 let hitlog serve until that is done, or: {ELSEWHERE}"
            ));
        }
        let mut known = self.catalog.into_iter().flat_map(CatalogContents::websites);
        let taken = known.find(|website| website.domain == domain).map(|website| &website.id);
        let taken = taken.or_else(|| self.planned.iter().find(|of| of.domain == domain).map(|of| &of.id));
        if let Some(taken) = taken {
            return Err(format!(
                "its website {id} is not here, and its domain {domain} belongs to the website {taken}; \
                 --website {taken} puts every event into that one"
            ));
        }
        let id: Arc<str> = id.into();
        self.planned.push(Planned { id: Arc::clone(&id), tracking_code: tracking_code.into(), domain: domain.into() });
        Ok(id)
    }
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

    #[test]
    fn where_lines_go() {
        let mut targets = Destinations::new(None, None);
        let line = |targets: &mut Destinations<'_>, id, code, domain| targets.of_line(id, code, domain);
        let (a, b) = (Some("web-a"), Some("web-b"));
        assert_eq!(line(&mut targets, a, Some("pm-a"), Some("a.example")), Ok(0));
        assert_eq!(line(&mut targets, a, None, None), Ok(0), "by its id alone");
        assert_eq!(line(&mut targets, b, Some("pm-a"), None), Ok(0), "by its code alone");
        assert_eq!(line(&mut targets, b, Some("pm-b"), Some("b.example")), Ok(1));
        assert_eq!(targets.id(1).as_deref(), b);
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
        assert_eq!(forced.id(0).as_deref(), Some("web-z"));
    }
}
