//! What a handler is asked, and what it gives back.

use std::pin::Pin;

use hyper::http::request::Parts;

use super::{
    body::{Bodies, BodyBytes, BodyError, InboundBody},
    response::Response,
};

/// A request that has come as far as its handler: what the table of routes says of it has been checked.
pub(super) struct Asked<'a> {
    pub(super) head: &'a Parts,
    /// The id in the path. Empty where the route has none, and where it was no UTF-8: that is the id of nothing, too.
    pub(super) id: &'a str,
    pub(super) body: &'a mut InboundBody,
    /// The largest body that the route takes, in bytes.
    pub(super) body_bytes_max: usize,
}

/// What a handler gives back. In a box: the handlers differ in size, and the future of every request would be as large
/// as that of the largest, and be moved as a whole.
pub(super) type Answering<'a> = Pin<Box<dyn Future<Output = Response> + Send + 'a>>;

impl Asked<'_> {
    /// The query string; empty where there is none.
    pub(super) fn query(&self) -> &str {
        self.head.uri.query().unwrap_or_default()
    }

    /// Reads and unpacks the body, with `spare` bytes of room behind it.
    pub(super) async fn read_body(&mut self, spare: usize, bodies: &Bodies) -> Result<BodyBytes, BodyError> {
        self.body.read(&self.head.headers, self.body_bytes_max, spare, bodies).await
    }
}
