//! Registering, reading, changing and forgetting websites.

use std::sync::Arc;

use hyper::StatusCode;
use serde::Serialize;
use serde_json::value::RawValue;
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
    event::{Faults, time::time_text},
    queue::Queue,
    store::{Catalog, CodeRenewal, NewWebsite, Renewed, Website, WebsiteChange, Websites},
    website::{Members, WEBSITE_MEMBERS, WebsiteJson, WebsiteLimits, check_change, members_of, text},
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
        let new = match self.read(asked, |sent| check_new(sent, &self.limits.website)).await {
            Ok(new) => new,
            Err(refusal) => return refusal,
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
        let check = |sent: &Members<'_>| {
            let current = self.websites.get(id);
            check_changed(sent, current.as_ref().map(|website| website.domain.as_str()), &self.limits.website)
        };
        let change = match self.read(asked, check).await {
            Ok(change) => change,
            Err(refusal) => return refusal,
        };
        match self.catalog.update_website(id.to_owned(), change).await {
            Ok(website) => {
                self.obstacles.changed();
                json_of(StatusCode::OK, &WebsiteJson::from(&*website))
            }
            Err(failure) => catalog_error(&failure, &self.obstacles),
        }
    }

    /// `POST /api/v1/websites/:id/tracking-code`: gives it a new one, and keeps the one that it has for a while.
    pub(super) async fn renew_code(&self, asked: Asked<'_>) -> Response {
        /// The website as it is shown, and the code that it had.
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct RenewedJson<'a> {
            #[serde(flatten)]
            website: WebsiteJson<'a>,
            previous_tracking_code: &'a str,
            previous_tracking_code_valid_until: String,
        }
        let (id, limits) = (asked.id, &self.limits);
        let check = |[seconds]: &[Option<&RawValue>; 1]| check_valid_seconds(*seconds, limits);
        let valid_seconds = match self.read_members(asked, ["previousValidSeconds"], "{}", check).await {
            Ok(seconds) => seconds,
            Err(refusal) => return refusal,
        };
        let renewal = CodeRenewal { valid_ms: valid_seconds * 1_000, retired_max: limits.retired_codes_max };
        match self.catalog.renew_code(id.to_owned(), renewal).await {
            Ok(Renewed { website, previous_code, previous_valid_until }) => {
                self.obstacles.changed();
                let renewed = RenewedJson {
                    website: WebsiteJson::from(&*website),
                    previous_tracking_code: &previous_code,
                    previous_tracking_code_valid_until: time_text(previous_valid_until),
                };
                json_of(StatusCode::OK, &renewed)
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

    /// Reads a body about a website, and what its members make; or says what is wrong with them.
    async fn read<T>(
        &self,
        asked: Asked<'_>,
        check: impl FnOnce(&Members<'_>) -> Result<T, Faults> + Send,
    ) -> Result<T, Response> {
        self.read_members(asked, WEBSITE_MEMBERS, "", check).await
    }

    /// Reads the members of a body that have these names; one of nothing is as `nothing`. The body is gone when what
    /// they make is known: a change may wait for others.
    async fn read_members<const N: usize, T>(
        &self,
        mut asked: Asked<'_>,
        names: [&'static str; N],
        nothing: &'static str,
        check: impl FnOnce(&[Option<&RawValue>; N]) -> Result<T, Faults> + Send,
    ) -> Result<T, Response> {
        let body = asked.read_body(0, &self.bodies).await;
        let (bytes, _holding) = body.map_err(|failure| body_error(&failure, self.queue.retry_after()))?.into_parts();
        // A byte-order mark is passed over.
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
        let is_nothing = !nothing.is_empty() && bytes.trim_ascii().is_empty();
        let bytes = if is_nothing { nothing.as_bytes() } else { bytes };
        let object: &RawValue = serde_json::from_slice(bytes).map_err(|fault| malformed(bytes, &fault))?;
        let checked = members_of(object, names).map_err(Faults::of_form).and_then(|sent| check(&sent));
        checked.map_err(|faults| invalid("Invalid website data", &faults))
    }
}

/// What is told of a body that is no JSON.
fn malformed(body: &[u8], fault: &serde_json::Error) -> Response {
    let lines = body.split_inclusive(|byte| *byte == b'\n');
    let lines_before: usize = lines.take(fault.line().saturating_sub(1)).map(<[u8]>::len).sum();
    let byte = lines_before + fault.column();
    error(ErrorCode::MalformedJson, &format!("Invalid JSON near byte {byte}: {fault}"))
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
            let more = json_bytes(&WebsiteJson::from(&*self.websites[self.written])) + 1;
            // One may take a chunk and a half. The least memory that answers may have is that of two chunks.
            if self.written > first && bytes + more > 2 * CHUNK_BYTES {
                break;
            }
            bytes += more;
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
fn check_new(sent: &Members<'_>, limits: &WebsiteLimits) -> Result<NewWebsite, Faults> {
    let mut faults = Faults::default();
    // The first two: its name and its domain.
    for (field, member) in WEBSITE_MEMBERS.into_iter().zip(sent).take(2) {
        if member.is_none() {
            faults.add(field, "Required");
        }
    }
    let change = check_change(sent, limits, &mut faults);
    let domain = check_domain(sent, None, &mut faults);
    match (change.name, domain) {
        (Some(name), Some(domain)) if faults.is_empty() => Ok(NewWebsite {
            name,
            domain,
            description: change.description.flatten(),
            timezone: change.timezone.flatten(),
            hosts: change.hosts.unwrap_or_default(),
            hosts_policy: change.hosts_policy.unwrap_or_default(),
            gpc: change.gpc.unwrap_or_default(),
            goals: change.goals.unwrap_or_default(),
        }),
        _ => Err(faults),
    }
}

/// For how many seconds a code that is replaced is to stay valid; null is as nothing.
fn check_valid_seconds(sent: Option<&RawValue>, limits: &RequestLimits) -> Result<i64, Faults> {
    let max = limits.code_valid_seconds_max;
    let seconds = match sent.map(RawValue::get).filter(|sent| *sent != "null") {
        None => Some(limits.code_valid_seconds_default),
        // 60.0 and 6e1 are whole, too; no number up to the limit is too long for a double.
        Some(text) => {
            text.parse::<f64>().ok().filter(|number| (0.0..=max as f64).contains(number)).and_then(|number| {
                let is_number = text.starts_with(|first: char| first.is_ascii_digit() || first == '-');
                (is_number && number.fract() == 0.0).then_some(number as u64)
            })
        }
    };
    let seconds = seconds.and_then(|seconds| i64::try_from(seconds).ok());
    seconds.ok_or_else(|| Faults::of_field("previousValidSeconds", format!("Expected a whole number from 0 to {max}")))
}

/// Checks what is to change of a website; unknown members are ignored.
fn check_changed(
    sent: &Members<'_>,
    current_domain: Option<&str>,
    limits: &WebsiteLimits,
) -> Result<WebsiteChange, Faults> {
    let mut faults = Faults::default();
    let change = check_change(sent, limits, &mut faults);
    let domain = check_domain(sent, current_domain, &mut faults);
    if faults.is_empty() { Ok(WebsiteChange { domain, ..change }) } else { Err(faults) }
}

/// The domain, if it is to be another; `None` if it is absent or has a fault. The one that a website has may be said
/// again: it may be one of an older hitlog, and none by today's rules.
fn check_domain([_, domain, ..]: &Members<'_>, current: Option<&str>, faults: &mut Faults) -> Option<Domain> {
    let domain = text((*domain)?).and_then(|text| {
        let is_same = current.is_some_and(|current| current == text);
        if is_same { Ok(None) } else { Domain::parse(&text).map(Some) }
    });
    domain.map_err(|fault| faults.add("domain", fault)).ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent_of(json: &str) -> Members<'_> {
        members_of(serde_json::from_str(json).unwrap(), WEBSITE_MEMBERS).unwrap()
    }

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
            let sent = format!(r#"{{"domain": "{domain}"}}"#);
            let change = check_changed(&sent_of(&sent), current, &WebsiteLimits::OF_TESTS);
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
    fn how_long_a_code_that_is_replaced_stays_valid() {
        let checked = |sent: Option<&str>| {
            let raw = sent.map(|sent| serde_json::from_str::<&RawValue>(sent).unwrap());
            check_valid_seconds(raw, &RequestLimits::OF_TESTS).map_err(|faults| faults.fields[0].0)
        };
        for (sent, wanted) in [
            (None, 2_592_000),
            (Some("null"), 2_592_000),
            (Some("0"), 0),
            (Some("-0"), 0),
            (Some("1"), 1),
            (Some("60.0"), 60),
            (Some("6e1"), 60),
            (Some("31622400"), 31_622_400),
        ] {
            assert_eq!(checked(sent), Ok(wanted), "{sent:?}");
        }
        for sent in ["-1", "0.5", "31622401", "1e300", "1e999", "\"60\"", "true", "[]", "{}", "\"inf\""] {
            assert_eq!(checked(Some(sent)), Err("previousValidSeconds"), "{sent}");
        }
    }

    #[test]
    fn members_of_a_website() {
        let faults = |text: &str, is_new| {
            let checked = if is_new {
                check_new(&sent_of(text), &WebsiteLimits::OF_TESTS).map(|_| ())
            } else {
                check_changed(&sent_of(text), None, &WebsiteLimits::OF_TESTS).map(|_| ())
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
            (r#"{"name": null, "domain": 1, "description": []}"#, false, Err(vec!["name", "description", "domain"])),
            (r#"{"name": ""}"#, false, Err(vec!["name"])),
            (r#"{"name": "a\u0000"}"#, false, Err(vec!["name"])),
            (r#"{"name": "A", "domain": "a.b", "hostsPolicy": "refuse", "gpc": null}"#, true, Ok(())),
            (r#"{"hostsPolicy": "no", "gpc": 1}"#, false, Err(vec!["hostsPolicy", "gpc"])),
        ] {
            assert_eq!(faults(text, is_new), wanted, "{text}");
        }
    }
}
