//! The routes of the dashboard project that the API guide belongs to, so that its client works with hitlog as it is:
//! its paths and shapes, whole numbers as it rounds them, and hitlog's numbers in them (`docs/numbers.md`).

mod asking;
mod lists;
mod metrics;
mod pageviews;
mod question;

use std::sync::Arc;

use hyper::StatusCode;

use self::{
    asking::Asking,
    question::{DashboardQuery, WebsiteName},
};
use super::{
    asked::Asked,
    errors::{ErrorCode, error, invalid, read_error},
    parts::EdgeParts,
    response::{Response, json},
    stats::with_tag,
};
use crate::{
    clock::now_ms,
    store::{Numbers, NumbersQuestion, ReadError, Readers, Website, Websites},
    website,
};

/// Answers what the dashboard project's client asks.
pub(super) struct DashboardRoutes {
    readers: Readers,
    numbers: Numbers,
    websites: Arc<Websites>,
}

/// Makes an answer as JSON.
type Answer = fn(&Asking<'_>) -> Result<Vec<u8>, ReadError>;

impl DashboardRoutes {
    pub(super) fn new(parts: &EdgeParts) -> Self {
        Self { readers: parts.readers.clone(), numbers: parts.numbers.clone(), websites: Arc::clone(&parts.websites) }
    }

    /// `GET /api/v1/dashboard/metrics`
    pub(super) async fn metrics(&self, asked: Asked<'_>) -> Response {
        self.answer(&asked, metrics::answer).await
    }

    /// `GET /api/v1/dashboard/pageviews`
    pub(super) async fn pageviews(&self, asked: Asked<'_>) -> Response {
        self.answer(&asked, pageviews::answer).await
    }

    /// `GET /api/v1/dashboard/top-pages`
    pub(super) async fn top_pages(&self, asked: Asked<'_>) -> Response {
        self.answer(&asked, lists::top_pages).await
    }

    /// `GET /api/v1/dashboard/referrers`
    pub(super) async fn referrers(&self, asked: Asked<'_>) -> Response {
        self.answer(&asked, lists::referrers).await
    }

    /// `GET /api/v1/dashboard/devices`
    pub(super) async fn devices(&self, asked: Asked<'_>) -> Response {
        self.answer(&asked, lists::devices).await
    }

    /// `GET /api/v1/dashboard/locations`
    pub(super) async fn locations(&self, asked: Asked<'_>) -> Response {
        self.answer(&asked, lists::locations).await
    }

    async fn answer(&self, asked: &Asked<'_>, answer: Answer) -> Response {
        let DashboardQuery { website, days, limit } = match DashboardQuery::parse(asked.query()) {
            Ok(query) => query,
            Err(faults) => return invalid("Invalid query", &faults),
        };
        let website = match self.website(&website) {
            Ok(website) => website,
            Err(refusal) => return refusal,
        };
        let (numbers, now_ms) = (self.numbers.clone(), now_ms());
        let answered = self.readers.ask(move |snapshot| {
            let question = NumbersQuestion::new(Arc::clone(&website.id), website::own(&website), Vec::new());
            let (numbers, website_id) = (&numbers, &*website.id);
            answer(&Asking { numbers, snapshot, question, website_id, days, limit, now_ms })
        });
        match answered.await {
            // The range ends now: the next moment has another answer, and there is nothing to know it by.
            Ok(body) => with_tag(json(StatusCode::OK, body), None),
            Err(failure) => read_error(&failure),
        }
    }

    fn website(&self, name: &WebsiteName) -> Result<Arc<Website>, Response> {
        let (website, message) = match name {
            WebsiteName::Id(id) => (self.websites.get(id), "Website not found"),
            WebsiteName::TrackingCode(code) => {
                let id = self.websites.id_of_code(code, now_ms());
                (id.and_then(|id| self.websites.get(&id)), "Website with this tracking code not found")
            }
        };
        website.ok_or_else(|| error(ErrorCode::NotFound, message))
    }
}
