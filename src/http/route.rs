//! Which request goes where, and what every request has in common: Host, access, CORS, the clock.

use std::sync::atomic::Ordering;

use hyper::{
    Method as HttpMethod, Request, StatusCode, Version,
    body::Incoming,
    header::{ALLOW, CONNECTION, HOST, HeaderValue, TRANSFER_ENCODING},
    http::request::Parts,
};
use tokio::time::Instant;

use super::{
    auth::Role,
    body::{InboundBody, Rest},
    context::Context,
    cors, erasures, ingest, ops, query,
    response::{ErrorCode, Response, error, invalid},
    websites,
};
use crate::{
    event::Faults,
    metrics::{Method, Route, StatusClass},
};

/// A request that has been handled.
pub(super) struct Handled {
    pub(super) response: Response,
    /// Whether bytes of the request may still come.
    pub(super) rest: Rest,
    pub(super) at: Instant,
}

/// Answers a request that came at `started`. Never fails: whatever goes wrong is a response too.
pub(super) async fn handle(context: &Context, request: Request<Incoming>, started: Instant) -> Handled {
    let (head, incoming) = request.into_parts();
    let mut body = InboundBody::new(incoming, &head.headers, started);
    let (route, id) = resolve(head.uri.path());
    let mut response = match check_host(&head).and_then(|()| check_coding(&head)) {
        Ok(()) => dispatch(context, route, id, &head, &mut body).await,
        Err(refusal) => refusal,
    };
    if echoes_origin(context, route, &head.method) {
        cors::echo_origin(&head.headers, &mut response);
    }
    let ends_here = context.stopping.load(Ordering::Acquire) || body.has_doubtful_end();
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

/// The route of a path, and the id in it (empty where there is none).
fn resolve(path: &str) -> (Route, &str) {
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

async fn dispatch(context: &Context, route: Route, id: &str, head: &Parts, body: &mut InboundBody) -> Response {
    // HEAD is GET without the body, which hyper leaves out.
    let method = if head.method == HttpMethod::HEAD { &HttpMethod::GET } else { &head.method };
    let allow = allowed_methods(route);
    if !allow.split(", ").any(|allowed| allowed == method.as_str()) {
        return refuse_method(route, allow);
    }
    if let Some(needed) = needed_role(route, method)
        && let Err(refusal) = context.tokens.check(&head.headers, needed)
    {
        return refusal;
    }
    match (route, method) {
        (Route::Events | Route::Batch | Route::Event, &HttpMethod::OPTIONS) => cors::preflight(allow),
        (Route::Events, &HttpMethod::POST) => ingest::event(context, &head.headers, body).await,
        (Route::Batch, _) => ingest::batch(context, &head.headers, body).await,
        (Route::Events, _) => query::get_all(context, head.uri.query().unwrap_or_default()).await,
        (Route::Event, _) => query::get(context, id).await,
        (Route::Websites, &HttpMethod::POST) => websites::create(context, &head.headers, body).await,
        (Route::Websites, _) => websites::get_all(context),
        (Route::Website, &HttpMethod::PUT) => websites::update(context, id, &head.headers, body).await,
        (Route::Website, &HttpMethod::DELETE) => websites::delete(context, id).await,
        (Route::Website, _) => websites::get(context, id),
        (Route::Visitor, _) => erasures::erase_visitor(context, id, head.uri.query().unwrap_or_default()).await,
        (Route::Erasure, _) => erasures::get(context, id),
        (Route::Live, _) => ops::live(),
        (Route::Ready, _) => ops::ready(context),
        (Route::Metrics, _) => ops::metrics(context),
        (Route::Description, _) => ops::description(),
        (Route::Unknown, _) => refuse_method(route, allow),
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

fn refuse_method(route: Route, allow: &'static str) -> Response {
    if route == Route::Unknown {
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

/// Routes for events echo the origin, except for reads while no token is set: otherwise any page in the browser of
/// whoever runs hitlog on their own machine could read its events.
fn echoes_origin(context: &Context, route: Route, method: &HttpMethod) -> bool {
    matches!(route, Route::Events | Route::Batch | Route::Event)
        && (!context.tokens.is_protected_mode() || !matches!(*method, HttpMethod::GET | HttpMethod::HEAD))
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
            ("/api/v1/events/", Route::Unknown, ""),
            ("/api/v1/events/a/b", Route::Unknown, ""),
            ("/api/v1/websites/web-1", Route::Website, "web-1"),
            ("/api/v1/visitors/a%2Fb", Route::Visitor, "a%2Fb"),
            ("/api/v1/erasures/era-1", Route::Erasure, "era-1"),
            ("/health", Route::Ready, ""),
            ("/", Route::Unknown, ""),
            ("*", Route::Unknown, ""),
        ] {
            assert_eq!(resolve(path), (route, id), "{path}");
        }
    }
}
