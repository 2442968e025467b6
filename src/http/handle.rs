//! What every request has in common: Host, access, CORS, the memory of its answer, the clock.

use std::{borrow::Cow, sync::Arc, time::Duration};

use hyper::{
    Method as HttpMethod, StatusCode, Version,
    header::{ALLOW, CONNECTION, HOST, HeaderValue, ORIGIN, TRANSFER_ENCODING},
    http::request::Parts,
};
use percent_encoding::percent_decode_str;
use tokio::time::Instant;

use super::{
    access,
    aliases::Aliases,
    asked::Asked,
    auth::Tokens,
    body::{Bodies, InboundBody, Rest},
    cors,
    errors::{ErrorCode, error, invalid},
    handlers::Handlers,
    memory::{Holding, SMALL_BYTES_MAX, SharedMemory},
    options::RequestLimits,
    parts::EdgeParts,
    response::{Body, Content, Response, count, overloaded_by_answers},
    route::{self, AnswerMemory, Found, Route, Who},
    stop::Stop,
};
use crate::{
    event::Faults,
    metrics::{Method, RequestMetrics, StatusClass},
};

/// Answers requests.
pub(super) struct Edge {
    handlers: Handlers,
    limits: RequestLimits,
    aliases: Aliases,
    answer_timeout: Duration,
    tokens: Arc<Tokens>,
    answers: SharedMemory,
    ops_answers: SharedMemory,
    requests: RequestMetrics,
    pub(super) bodies: Arc<Bodies>,
    pub(super) stop: Arc<Stop>,
}

/// A request that has been handled.
pub(super) struct Handled {
    pub(super) response: hyper::Response<Body>,
    /// Whether bytes of the request may still come.
    pub(super) rest: Rest,
    pub(super) at: Instant,
}

impl Edge {
    pub(super) fn new(parts: EdgeParts) -> Self {
        let stop = Arc::new(Stop::new());
        Self {
            handlers: Handlers::new(&parts, &stop),
            limits: parts.limits,
            aliases: parts.aliases,
            answer_timeout: parts.connections.limits().answer_timeout,
            tokens: parts.tokens,
            answers: parts.answers,
            ops_answers: parts.ops_answers,
            requests: parts.requests,
            bodies: parts.bodies,
            stop,
        }
    }

    /// Answers a request that came at `started`. Never fails: whatever goes wrong is a response too.
    pub(super) async fn handle(&self, head: &Parts, mut body: InboundBody, started: Instant) -> Handled {
        let activity = Arc::clone(body.activity());
        let path = self.aliases.resolve(head.uri.path());
        let found = route::find(path);
        let mut put_aside = None;
        let response = match check_host(head).and_then(|()| check_coding(head)) {
            Ok(()) => self.dispatch(&found, head, &mut body, &mut put_aside).await,
            Err(refusal) => refusal,
        };
        let response = match response.body().uncounted() {
            None => response,
            // In a box, so that those whose memory is counted, as that of an event's answer is, take no room for it.
            Some(bytes) => Box::pin(count(response, bytes, put_aside, self.memory_of(found.route), &activity)).await,
        };
        let mut response = response.map(Content::into_body);
        if found.route.may_pages_read(&head.method, path) {
            cors::allow_page(head.headers.get(ORIGIN), response.headers_mut());
        }
        let ends_here = self.stop.has_begun() || activity.is_ended() || body.has_doubtful_end();
        if ends_here || response.status() == StatusCode::REQUEST_TIMEOUT {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        let rest = body.rest().await;
        // What is still to come of the request is not told from the next one once this answer has ended.
        if matches!((response.body(), &rest), (Body::Chunks(_), Rest::Unread(_))) {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        // Of an answer to HEAD hyper sends the head alone.
        if let (Body::Chunks(chunks), true) = (response.body_mut(), head.method != HttpMethod::HEAD) {
            chunks.begin(&activity, self.answer_timeout);
            // HTTP/1.0 knows no chunks: the connection's end is the answer's.
            if head.version == Version::HTTP_10 {
                activity.ends_with_its_answer();
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
        }
        // Else hyper would add that it is kept to what says that it ends.
        if head.version == Version::HTTP_10 && response.headers().contains_key(CONNECTION) {
            *response.version_mut() = Version::HTTP_10;
        }
        let at = Instant::now();
        let seconds = at.duration_since(started).as_secs_f64();
        let class = class_label(response.status());
        self.requests.seconds(found.label, method_label(&head.method), class).record(seconds);
        Handled { response, rest, at }
    }

    fn memory_of(&self, route: &Route) -> &SharedMemory {
        match route.memory {
            AnswerMemory::Shared => &self.answers,
            AnswerMemory::Ops => &self.ops_answers,
        }
    }

    async fn dispatch(
        &self,
        found: &Found<'_>,
        head: &Parts,
        body: &mut InboundBody,
        put_aside: &mut Option<Holding>,
    ) -> Response {
        let Some(method) = found.route.method(&head.method) else { return answer_without_handler(found.route, head) };
        if let Who::Holder(role) = method.who
            && let Err(refusal) = access::check(&self.tokens, head, role)
        {
            return refusal;
        }
        if method.changes {
            let held = put_aside.insert(self.memory_of(found.route).hold());
            if held.grow_in_time(SMALL_BYTES_MAX).await.is_err() {
                return overloaded_by_answers();
            }
        }
        // What is no UTF-8 is the id of nothing, as no id at all is.
        let id = match found.id {
            "" => Cow::Borrowed(""),
            id => percent_decode_str(id).decode_utf8().unwrap_or_default(),
        };
        let body_bytes_max = (method.body_bytes_max)(&self.limits);
        (method.handler)(&self.handlers, Asked { head, id: &id, body, body_bytes_max }).await
    }
}

/// hyper takes requests without a Host and with two. RFC 9112, section 3.2, does not, and proxies disagree about which
/// of two counts.
fn check_host(head: &Parts) -> Result<(), Response> {
    let hosts = head.headers.get_all(HOST).iter().count();
    if hosts == 1 || (hosts == 0 && head.version == Version::HTTP_10) {
        return Ok(());
    }
    Err(refuse_head(&format!("A request has exactly one Host header; this one has {hosts}")))
}

/// hyper takes any list of codings that ends in `chunked`, and undoes that one; a proxy that does not know the list may
/// see the end of the request elsewhere.
fn check_coding(head: &Parts) -> Result<(), Response> {
    let mut codings = head.headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => Ok(()),
        (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(()),
        _ => Err(refuse_head("Transfer-Encoding may be chunked and nothing else")),
    }
}

/// Nobody knows where such a request ends, so it is the last of its connection.
fn refuse_head(message: &str) -> Response {
    let mut response = invalid(message, &Faults::of_form(message.to_owned()));
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Answers what no handler does: preflights, methods that the route does not take, and paths without a route.
fn answer_without_handler(route: &Route, head: &Parts) -> Response {
    let is_preflight = route.has_preflights() && head.method == HttpMethod::OPTIONS;
    // Without an answer to its preflight a browser would not tell a page that there is nothing here.
    let is_lost_preflight = route.is_nowhere()
        && route.may_pages_read(&head.method, head.uri.path())
        && cors::is_preflight(&head.method, &head.headers);
    if is_preflight || is_lost_preflight {
        return cors::preflight(&route.allow(), &route.methods_of_pages(), &head.headers);
    }
    if route.is_nowhere() {
        return error(ErrorCode::NotFound, "There is nothing at this path; the routes begin with /api/v1/");
    }
    let allow = route.allow();
    let mut response = error(ErrorCode::MethodNotAllowed, &format!("This path takes {allow}"));
    if let Ok(allow) = HeaderValue::try_from(allow) {
        response.headers_mut().insert(ALLOW, allow);
    }
    response
}

fn method_label(method: &HttpMethod) -> Method {
    match *method {
        HttpMethod::GET => Method::Get,
        HttpMethod::HEAD => Method::Head,
        HttpMethod::POST => Method::Post,
        HttpMethod::PUT => Method::Put,
        HttpMethod::DELETE => Method::Delete,
        HttpMethod::OPTIONS => Method::Options,
        _ => Method::Other,
    }
}

fn class_label(status: StatusCode) -> StatusClass {
    match status.as_u16() {
        0..300 => StatusClass::Success,
        300..400 => StatusClass::Redirect,
        400..500 => StatusClass::Client,
        _ => StatusClass::Server,
    }
}
