//! Which request goes where, and what every request has in common: Host, access, CORS, the clock.

use std::{
    borrow::Cow,
    sync::{Arc, atomic::Ordering},
};

use hyper::{
    Method as HttpMethod, Request, StatusCode, Version,
    body::Incoming,
    header::{ALLOW, CONNECTION, HOST, HeaderValue, ORIGIN, TRANSFER_ENCODING},
    http::request::Parts,
};
use percent_encoding::percent_decode_str;
use tokio::time::Instant;

use super::{
    activity::Activity,
    auth::{self, Role},
    body::{InboundBody, Rest},
    context::Context,
    cors, erasures, ingest,
    memory::{Holding, SMALL_BYTES_MAX, SharedMemory},
    ops,
    protected::{self, Distrust},
    query,
    response::{Body, ErrorCode, Response, count, error, invalid, overloaded_by_answers},
    websites,
};
use crate::{
    event::Faults,
    metrics::{Method, Route, StatusClass},
};

/// A request that has been handled.
pub(super) struct Handled {
    pub(super) response: hyper::Response<Body>,
    /// Whether bytes of the request may still come.
    pub(super) rest: Rest,
    pub(super) at: Instant,
}

/// Answers a request that came at `started`. Never fails: whatever goes wrong is a response too.
pub(super) async fn handle(
    context: &Context,
    activity: &Arc<Activity>,
    request: Request<Incoming>,
    started: Instant,
) -> Handled {
    let (head, incoming) = request.into_parts();
    let mut body = InboundBody::new(incoming, &head.headers, activity, started);
    let (route, id) = resolve(head.uri.path());
    // What is no UTF-8 is the id of nothing, as no id at all is.
    let id = if id.is_empty() { Cow::default() } else { percent_decode_str(id).decode_utf8().unwrap_or_default() };
    let memory = answer_memory(context, route);
    let mut put_aside = None;
    let response = match check_host(&head).and_then(|()| check_coding(&head)) {
        Ok(()) => dispatch(context, route, &id, &head, &mut body, &mut put_aside).await,
        Err(refusal) => refusal,
    };
    let response =
        if response.body().is_counted() { response } else { count(response, put_aside, memory, activity).await };
    let mut response = response.map(|content| Body::new(content.into_bytes()));
    if is_for_pages(route, &head) {
        cors::allow_page(head.headers.get(ORIGIN), response.headers_mut());
    }
    let ends_here = context.stopping.load(Ordering::Acquire) || activity.is_ended() || body.has_doubtful_end();
    if ends_here || response.status() == StatusCode::REQUEST_TIMEOUT {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    let rest = body.rest().await;
    let at = Instant::now();
    let seconds = at.duration_since(started).as_secs_f64();
    let class = match response.status().as_u16() {
        0..300 => StatusClass::Success,
        300..400 => StatusClass::Redirect,
        400..500 => StatusClass::Client,
        _ => StatusClass::Server,
    };
    context.metrics.requests.seconds(route, method_label(&head.method), class).record(seconds);
    Handled { response, rest, at }
}

/// The memory that answers of a route are counted in: what watches hitlog gets its answers whatever others do.
fn answer_memory(context: &Context, route: Route) -> &SharedMemory {
    match route {
        Route::Live | Route::Ready | Route::Metrics => &context.ops_answers,
        _ => &context.answers,
    }
}

/// Whether a request changes what is known of websites and visitors. The memory of its answer is put aside before,
/// since afterwards nothing can be refused. Events see to that themselves.
fn changes(route: Route, method: &HttpMethod) -> bool {
    matches!(route, Route::Websites | Route::Website | Route::Visitor) && *method != HttpMethod::GET
}

/// The route of a path, and the id in it, escaped as it is sent (empty where there is none). A slash at the end is as
/// none.
fn resolve(path: &str) -> (Route, &str) {
    let path = path.strip_suffix('/').unwrap_or(path);
    let plain = match path {
        "/api/v1/events" => Route::Events,
        "/api/v1/events/batch" => Route::Batch,
        "/api/v1/websites" => Route::Websites,
        "/livez" => Route::Live,
        "/readyz" | "/health" => Route::Ready,
        "/metrics" => Route::Metrics,
        "/openapi.yaml" => Route::Description,
        _ => Route::Unknown,
    };
    if plain != Route::Unknown {
        return (plain, "");
    }
    for (prefix, route) in [
        ("/api/v1/events/", Route::Event),
        ("/api/v1/websites/", Route::Website),
        ("/api/v1/visitors/", Route::Visitor),
        ("/api/v1/erasures/", Route::Erasure),
    ] {
        if let Some(id) = path.strip_prefix(prefix).filter(|id| !id.is_empty() && !id.contains('/')) {
            return (route, id);
        }
    }
    (Route::Unknown, "")
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

async fn dispatch(
    context: &Context,
    route: Route,
    id: &str,
    head: &Parts,
    body: &mut InboundBody,
    put_aside: &mut Option<Holding>,
) -> Response {
    // HEAD is GET without the body, which hyper leaves out.
    let method = if head.method == HttpMethod::HEAD { &HttpMethod::GET } else { &head.method };
    let allow = allowed_methods(route);
    if !allow.split(", ").any(|allowed| allowed == method.as_str()) {
        return refuse_method(route, allow, head);
    }
    if let Some(needed) = needed_role(route, method)
        && let Err(refusal) = context.tokens.check(&head.headers, needed)
    {
        return refusal;
    }
    if needed_role(route, method).is_some()
        && let Err(refusal) = check_trust(context, head)
    {
        return refusal;
    }
    if changes(route, method) {
        let held = put_aside.insert(context.answers.hold());
        if held.grow_in_time(SMALL_BYTES_MAX).await.is_err() {
            return overloaded_by_answers();
        }
    }
    match (route, method) {
        (Route::Events | Route::Batch | Route::Event, &HttpMethod::OPTIONS) => cors::preflight(allow, &head.headers),
        (Route::Events, &HttpMethod::POST) => ingest::event(context, &head.headers, body).await,
        (Route::Batch, _) => ingest::batch(context, &head.headers, body).await,
        (Route::Events, _) => query::get_all(context, head.uri.query().unwrap_or_default()).await,
        (Route::Event, _) => query::get(context, id).await,
        (Route::Websites, &HttpMethod::POST) => websites::create(context, &head.headers, body).await,
        (Route::Websites, _) => websites::get_all(context, head.uri.query().unwrap_or_default(), body.activity()).await,
        (Route::Website, &HttpMethod::PUT) => websites::update(context, id, &head.headers, body).await,
        (Route::Website, &HttpMethod::DELETE) => websites::delete(context, id).await,
        (Route::Website, _) => websites::get(context, id),
        (Route::Visitor, _) => erasures::erase_visitor(context, id, head.uri.query().unwrap_or_default()).await,
        (Route::Erasure, _) => erasures::get(context, id),
        (Route::Live, _) => ops::live(),
        (Route::Ready, _) => ops::ready(context),
        (Route::Metrics, _) => ops::metrics(context, &head.headers),
        (Route::Description, _) => ops::description(),
        (Route::Unknown, _) => refuse_method(route, allow, head),
    }
}

fn allowed_methods(route: Route) -> &'static str {
    match route {
        Route::Events => "GET, HEAD, POST, OPTIONS",
        Route::Batch => "POST, OPTIONS",
        Route::Event => "GET, HEAD, OPTIONS",
        Route::Websites => "GET, HEAD, POST",
        Route::Website => "GET, HEAD, PUT, DELETE",
        Route::Visitor => "DELETE",
        Route::Erasure => "GET, HEAD",
        Route::Live | Route::Ready | Route::Metrics | Route::Description => "GET, HEAD",
        Route::Unknown => "",
    }
}

/// Refuses, on a route that needs a token, what does not show that it was meant for this hitlog.
fn check_trust(context: &Context, head: &Parts) -> Result<(), Response> {
    // Where there are tokens, whoever has come this far has sent one.
    let trust = if context.tokens.is_protected_mode() { protected::check(head) } else { Ok(()) };
    let (code, message) = match trust {
        Err(Distrust::Host) => (
            ErrorCode::Unauthorized,
            "hitlog has no token and so serves this machine only, by the names localhost, 127.0.0.1 and [::1]; for \
             other names in Host set a token (--token, HITLOG_TOKEN or token_file)",
        ),
        Err(Distrust::Page) => (
            ErrorCode::ForbiddenOrigin,
            "A page of another site may send events and nothing else (see Sec-Fetch-Site or Origin); to let one in, \
             set a token (--token, HITLOG_TOKEN or token_file) and send it",
        ),
        Ok(()) if protected::has_foreign_body(&head.headers) => {
            (ErrorCode::UnsupportedEncoding, "The body has to be JSON and say so: Content-Type: application/json")
        }
        Ok(()) => return Ok(()),
    };
    Err(if code == ErrorCode::Unauthorized { auth::refuse(message) } else { error(code, message) })
}

fn refuse_method(route: Route, allow: &'static str, head: &Parts) -> Response {
    if route == Route::Unknown {
        // Without an answer to its preflight a browser would not tell a page that there is nothing here.
        if is_for_pages(route, head) && cors::is_preflight(&head.method, &head.headers) {
            return cors::preflight(allow, &head.headers);
        }
        return error(ErrorCode::NotFound, "There is nothing at this path; the routes begin with /api/v1/");
    }
    let mut response = error(ErrorCode::MethodNotAllowed, &format!("This path takes {allow}"));
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    response
}

/// The role that a request needs. Sending events, preflights, health and the description are for everybody.
fn needed_role(route: Route, method: &HttpMethod) -> Option<Role> {
    let is_read = method == HttpMethod::GET;
    match route {
        Route::Events => is_read.then_some(Role::Read),
        Route::Event => (method != HttpMethod::OPTIONS).then_some(Role::Read),
        // Whoever reads events and numbers needs to know of which websites, and until when they are being erased.
        Route::Websites | Route::Website | Route::Erasure if is_read => Some(Role::Read),
        Route::Websites | Route::Website | Route::Erasure | Route::Visitor => Some(Role::Admin),
        Route::Metrics => Some(Role::Metrics),
        Route::Batch | Route::Live | Route::Ready | Route::Description | Route::Unknown => None,
    }
}

/// Whether a page of any site may read the response: on the paths of events, unless it would be of a read. Reads are
/// for whoever has a token, and no page of another site is.
fn is_for_pages(route: Route, head: &Parts) -> bool {
    let is_read = matches!(head.method, HttpMethod::GET | HttpMethod::HEAD);
    cors::is_event_path(head.uri.path()) && (!is_read || matches!(route, Route::Batch | Route::Unknown))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        for (path, route, id) in [
            ("/api/v1/events", Route::Events, ""),
            ("/api/v1/events/batch", Route::Batch, ""),
            ("/api/v1/events/c123", Route::Event, "c123"),
            ("/api/v1/events/", Route::Events, ""),
            ("/api/v1/events/batch/", Route::Batch, ""),
            ("/api/v1/events/c123/", Route::Event, "c123"),
            ("/api/v1/events//", Route::Unknown, ""),
            ("/api/v1/events/c123//", Route::Unknown, ""),
            ("/api/v1/websites/web-1/", Route::Website, "web-1"),
            ("/health/", Route::Ready, ""),
            ("/livez/", Route::Live, ""),
            ("/api/v1/events/a/b", Route::Unknown, ""),
            ("/api/v1/websites/web-1", Route::Website, "web-1"),
            ("/api/v1/visitors/a%2Fb", Route::Visitor, "a%2Fb"),
            ("/api/v1/erasures/era-1", Route::Erasure, "era-1"),
            ("/health", Route::Ready, ""),
            ("/", Route::Unknown, ""),
            ("//", Route::Unknown, ""),
            ("", Route::Unknown, ""),
            ("*", Route::Unknown, ""),
        ] {
            assert_eq!(resolve(path), (route, id), "{path}");
        }
    }
}
