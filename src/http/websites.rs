//! Registering, reading, changing and forgetting websites.

use std::{borrow::Cow, sync::Arc};

use hyper::StatusCode;
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::{
    activity::Activity,
    asked::Asked,
    body::Bodies,
    chunks::{CHUNK_BYTES, CHUNK_WAIT, Chunk, Cut, More},
    cursor::Cursors,
    errors::{ErrorCode, body_error, catalog_error, error, invalid, members},
    memory::SharedMemory,
    obstacles::Obstacles,
    options::RequestLimits,
    parameters::{number, parameters},
    parts::EdgeParts,
    response::{Response, chunked_json, held_bytes, json_bytes, json_of, overloaded_by_answers},
};
use crate::{
    budget::OverBudget,
    domain::Domain,
    event::Faults,
    queue::Queue,
    store::{Catalog, NewWebsite, Website, WebsiteChange, Websites},
    website::{WebsiteJson, check_description, check_name},
};

/// Keeps the websites.
pub(super) struct WebsiteRoutes {
    limits: RequestLimits,
    bodies: Arc<Bodies>,
    answers: SharedMemory,
    /// Says how long to wait where there is no memory for a body.
    queue: Queue,
    websites: Arc<Websites>,
    catalog: Catalog,
    cursors: Cursors,
    obstacles: Arc<Obstacles>,
}

impl WebsiteRoutes {
    pub(super) fn new(parts: &EdgeParts) -> Self {
        Self {
            limits: parts.limits,
            bodies: Arc::clone(&parts.bodies),
            answers: parts.answers.clone(),
            queue: parts.queue.clone(),
            websites: Arc::clone(&parts.websites),
            catalog: parts.catalog.clone(),
            cursors: parts.cursors.clone(),
            obstacles: Arc::clone(&parts.obstacles),
        }
    }

    /// `POST /api/v1/websites`
    pub(super) async fn create(&self, asked: Asked<'_>) -> Response {
        let members = match self.read_members(asked).await {
            Ok(members) => members,
            Err(refusal) => return refusal,
        };
        let new = match check_new(&members, &self.limits) {
            Ok(new) => new,
            Err(faults) => return invalid("Invalid website data", &faults),
        };
        match self.catalog.create_website(new).await {
            Ok(website) => {
                self.obstacles.changed();
                json_of(StatusCode::CREATED, &WebsiteJson::from(&*website))
            }
            Err(failure) => catalog_error(&failure, &self.obstacles),
        }
    }

    /// `GET /api/v1/websites`: a page of them, the newest first.
    pub(super) async fn list(&self, asked: Asked<'_>) -> Response {
        let ListQuery { limit, cursor } = match ListQuery::parse(asked.query(), &self.limits) {
            Ok(query) => query,
            Err(faults) => return invalid("Invalid query", &faults),
        };
        let after = match cursor.as_deref().map(|text| self.cursors.decode_website(text)) {
            None => None,
            Some(Some(place)) => Some(place),
            Some(None) => {
                let faults = Faults::of_field("cursor", "Expected pagination.next of a page of this listing");
                return invalid("Invalid query", &faults);
            }
        };
        let page = self.websites.page(after.as_ref(), usize::try_from(limit).unwrap_or(usize::MAX));
        let last = page.websites.last().filter(|_| page.has_more);
        let next = last.map(|website| self.cursors.encode_website(&website.age()));
        let end = WebsitesEnd { total: page.total, pagination: Pagination { total: page.total, limit, next } };
        let rest = RestOfWebsites {
            websites: page.websites.into(),
            written: 0,
            end: members(&end),
            answers: self.answers.clone(),
            activity: Arc::clone(asked.body.activity()),
        };
        match rest.next_chunk().await {
            Ok(chunk) => chunked_json(StatusCode::OK, chunk),
            Err(OverBudget) => overloaded_by_answers(),
        }
    }

    /// `GET /api/v1/websites/:id`
    pub(super) async fn get(&self, asked: Asked<'_>) -> Response {
        match self.websites.get(asked.id) {
            Some(website) => json_of(StatusCode::OK, &WebsiteJson::from(&*website)),
            None => error(ErrorCode::NotFound, "Website not found"),
        }
    }

    /// `PUT /api/v1/websites/:id`: changes what it names.
    pub(super) async fn update(&self, asked: Asked<'_>) -> Response {
        let id = asked.id;
        let members = match self.read_members(asked).await {
            Ok(members) => members,
            Err(refusal) => return refusal,
        };
        let current = self.websites.get(id);
        let current_domain = current.as_ref().map(|website| website.domain.as_str());
        let change = match check_change(&members, current_domain, &self.limits) {
            Ok(change) => change,
            Err(faults) => return invalid("Invalid website data", &faults),
        };
        match self.catalog.update_website(id.to_owned(), change).await {
            Ok(website) => {
                self.obstacles.changed();
                json_of(StatusCode::OK, &WebsiteJson::from(&*website))
            }
            Err(failure) => catalog_error(&failure, &self.obstacles),
        }
    }

    /// `DELETE /api/v1/websites/:id`
    pub(super) async fn delete(&self, asked: Asked<'_>) -> Response {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Deleted {
            success: bool,
            message: String,
            erasure_id: String,
        }
        match self.catalog.delete_website(asked.id.to_owned()).await {
            Ok((website, erasure)) => {
                self.obstacles.erased();
                let message = format!("Website \"{}\" deleted; its events are in no answer any more", website.name);
                json_of(StatusCode::OK, &Deleted { success: true, message, erasure_id: erasure.to_string() })
            }
            Err(failure) => catalog_error(&failure, &self.obstacles),
        }
    }

    async fn read_members(&self, mut asked: Asked<'_>) -> Result<Map<String, Value>, Response> {
        let bytes = asked
            .read_body(0, &self.bodies)
            .await
            .map_err(|failure| body_error(&failure, self.queue.retry_after()))?
            .into_parts()
            .0;
        // A byte-order mark is passed over.
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
        match serde_json::from_slice(bytes) {
            Ok(Value::Object(members)) => Ok(members),
            Ok(_) => Err(invalid("Invalid website data", &Faults::of_form("Expected an object"))),
            Err(fault) => {
                let lines_before: usize = bytes
                    .split_inclusive(|byte| *byte == b'\n')
                    .take(fault.line().saturating_sub(1))
                    .map(<[u8]>::len)
                    .sum();
                let byte = lines_before + fault.column();
                Err(error(ErrorCode::MalformedJson, &format!("Invalid JSON near byte {byte}: {fault}")))
            }
        }
    }
}

/// What follows the websites in their listing.
#[derive(Serialize)]
struct WebsitesEnd {
    total: usize,
    pagination: Pagination,
}

#[derive(Serialize)]
struct Pagination {
    total: usize,
    limit: u64,
    next: Option<String>,
}

/// What is still to be written of a listing of websites: as they were when it was asked for.
#[derive(Clone)]
struct RestOfWebsites {
    websites: Arc<[Arc<Website>]>,
    written: usize,
    /// The members behind the websites.
    end: Vec<u8>,
    answers: SharedMemory,
    activity: Arc<Activity>,
}

impl RestOfWebsites {
    /// Writes a chunk, in memory that is counted before it is taken. An error says that there is none to be had.
    async fn next_chunk(mut self) -> Result<Chunk, OverBudget> {
        const BEGIN: &[u8] = b"{\"websites\":[";
        let (first, mut bytes) = (self.written, BEGIN.len() + self.end.len() + 2);
        while self.written < self.websites.len() && bytes < CHUNK_BYTES {
            bytes += json_bytes(&WebsiteJson::from(&*self.websites[self.written])) + 1;
            self.written += 1;
        }
        let mut held = self.answers.hold();
        held.grow_in_time(bytes).await?;
        held.is_held_by(&self.activity);
        let mut out = Vec::with_capacity(bytes);
        if first == 0 {
            out.extend_from_slice(BEGIN);
        }
        for (number, website) in self.websites[..self.written].iter().enumerate().skip(first) {
            if number > 0 {
                out.push(b',');
            }
            // What cannot be written has taken no bytes when they were counted, either.
            if let Err(failure) = serde_json::to_writer(&mut out, &WebsiteJson::from(&**website)) {
                tracing::error!(%failure, "a website could not be written as JSON");
            }
        }
        let is_last = self.written == self.websites.len();
        if is_last {
            out.push(b']');
            out.extend_from_slice(&self.end);
            out.push(b'}');
        }
        Ok(Chunk { bytes: held_bytes(out, held), more: (!is_last).then(|| self.more()) })
    }

    fn more(self) -> More {
        Box::pin(async move {
            let until = Instant::now() + CHUNK_WAIT;
            loop {
                match self.clone().next_chunk().await {
                    Ok(chunk) => return Ok(chunk),
                    Err(OverBudget) if Instant::now() < until => {}
                    Err(OverBudget) => {
                        return Err(Cut("the answers that wait for their clients take too much memory".into()));
                    }
                }
            }
        })
    }
}

/// What the query string of the listing asks for.
#[derive(Debug, PartialEq, Eq)]
struct ListQuery {
    limit: u64,
    /// As sent, not decrypted yet.
    cursor: Option<String>,
}

impl ListQuery {
    fn parse(query: &str, limits: &RequestLimits) -> Result<Self, Faults> {
        let mut faults = Faults::default();
        let [limit, cursor] = parameters(query, ["limit", "cursor"], &mut faults);
        let limit = number("limit", limit, 1, &mut faults).unwrap_or(limits.page_websites_default);
        if faults.is_empty() { Ok(Self { limit: limit.min(limits.page_websites_max), cursor }) } else { Err(faults) }
    }
}

/// Checks the members of a new website; unknown ones are ignored.
fn check_new(members: &Map<String, Value>, limits: &RequestLimits) -> Result<NewWebsite, Faults> {
    let mut faults = Faults::default();
    for field in ["name", "domain"] {
        if !members.contains_key(field) {
            faults.add(field, "Required");
        }
    }
    let name = text(members, "name", &mut faults, |text| check_name(text, limits.website_name_chars_max));
    let domain = text(members, "domain", &mut faults, Domain::parse);
    let description = description(members, limits.website_description_chars_max, &mut faults).flatten();
    match (name, domain) {
        (Some(name), Some(domain)) if faults.is_empty() => Ok(NewWebsite { name, domain, description }),
        _ => Err(faults),
    }
}

/// Checks what is to change of a website; unknown members are ignored. The domain that it has may be said again: it may
/// be one of an older hitlog, and none by today's rules.
fn check_change(
    members: &Map<String, Value>,
    current_domain: Option<&str>,
    limits: &RequestLimits,
) -> Result<WebsiteChange, Faults> {
    let mut faults = Faults::default();
    let name = text(members, "name", &mut faults, |text| check_name(text, limits.website_name_chars_max));
    let is_same = current_domain.is_some_and(|domain| members.get("domain").is_some_and(|new| new == domain));
    let domain = if is_same { None } else { text(members, "domain", &mut faults, Domain::parse) };
    let description = description(members, limits.website_description_chars_max, &mut faults);
    if faults.is_empty() { Ok(WebsiteChange { name, domain, description }) } else { Err(faults) }
}

/// The checked text of a member; `None` if it is absent or has a fault.
fn text<T, F: Into<Cow<'static, str>>>(
    members: &Map<String, Value>,
    field: &'static str,
    faults: &mut Faults,
    check: impl FnOnce(&str) -> Result<T, F>,
) -> Option<T> {
    let fault = match members.get(field)? {
        Value::String(text) => match check(text) {
            Ok(value) => return Some(value),
            Err(fault) => fault.into(),
        },
        _ => "Expected a string".into(),
    };
    faults.add(field, fault);
    None
}

/// The description, which may be null; `None` if it is absent or has a fault.
fn description(members: &Map<String, Value>, chars_max: usize, faults: &mut Faults) -> Option<Option<String>> {
    let fault = match members.get("description")? {
        Value::Null => return Some(None),
        Value::String(text) => match check_description(text, chars_max) {
            Ok(text) => return Some(Some(text)),
            Err(fault) => fault,
        },
        _ => "Expected a string or null".into(),
    };
    faults.add("description", fault);
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_listing_may_ask() {
        let query = |limit, cursor: Option<&str>| ListQuery { limit, cursor: cursor.map(str::to_owned) };
        for (text, wanted) in [
            ("", Ok(query(100, None))),
            ("limit=&cursor=&other=1", Ok(query(100, None))),
            ("limit=1&cursor=x", Ok(query(1, Some("x")))),
            ("limit=1000", Ok(query(1_000, None))),
            ("limit=1001", Ok(query(1_000, None))),
            ("limit=9223372036854775807", Ok(query(1_000, None))),
            ("limit=0", Err(vec!["limit"])),
            ("limit=-1&cursor=x&cursor=x", Err(vec!["cursor", "limit"])),
            ("limit=1&limit=1", Err(vec!["limit"])),
        ] {
            let found = ListQuery::parse(text, &RequestLimits::OF_TESTS);
            let found = found.map_err(|faults| faults.fields.iter().map(|(field, _)| *field).collect::<Vec<_>>());
            assert_eq!(found, wanted, "{text}");
        }
    }

    #[test]
    fn a_website_may_keep_the_domain_that_it_has() {
        let change = |domain: &str, current| {
            let members = Map::from_iter([("domain".to_owned(), Value::from(domain))]);
            let change = check_change(&members, current, &RequestLimits::OF_TESTS);
            change.map(|change| change.domain.map(Domain::into_string)).map_err(|_| ())
        };
        for (domain, current, wanted) in [
            ("a..b", None, Err(())),
            ("a..b", Some("other.example"), Err(())),
            ("a..b", Some("a..b"), Ok(None)),
            ("New.example", Some("a..b"), Ok(Some("new.example".to_owned()))),
        ] {
            assert_eq!(change(domain, current), wanted, "{domain} {current:?}");
        }
    }

    #[test]
    fn members_of_a_website() {
        let faults = |text: &str, is_new| {
            let members: Map<String, Value> = serde_json::from_str(text).unwrap();
            let checked = if is_new {
                check_new(&members, &RequestLimits::OF_TESTS).map(|_| ())
            } else {
                check_change(&members, None, &RequestLimits::OF_TESTS).map(|_| ())
            };
            checked.map_err(|faults| faults.fields.iter().map(|(field, _)| *field).collect::<Vec<_>>())
        };
        let long =
            format!(r#"{{"name": "{}", "domain": "a.b", "description": "{}"}}"#, "n".repeat(256), "d".repeat(1001));
        let longest =
            format!(r#"{{"name": "{}", "domain": "a.b", "description": "{}"}}"#, "ñ".repeat(255), "d".repeat(1000));
        for (text, is_new, wanted) in [
            (r#"{"name": "A", "domain": "a.b"}"#, true, Ok(())),
            (r#"{"name": "A", "domain": "a.b", "description": null, "other": 1}"#, true, Ok(())),
            (&longest, true, Ok(())),
            ("{}", true, Err(vec!["name", "domain"])),
            ("{}", false, Ok(())),
            (&long, true, Err(vec!["name", "description"])),
            (r#"{"name": null, "domain": 1, "description": []}"#, false, Err(vec!["name", "domain", "description"])),
            (r#"{"name": ""}"#, false, Err(vec!["name"])),
            (r#"{"name": "a\u0000"}"#, false, Err(vec!["name"])),
        ] {
            assert_eq!(faults(text, is_new), wanted, "{text}");
        }
    }
}
