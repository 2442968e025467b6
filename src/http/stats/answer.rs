//! Numbers as answers show them.

use serde::Serialize;

use crate::{
    event::time::time_text,
    store::{NumbersReply, Website},
};

/// A website, as it stands above its numbers.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct OfWebsite {
    id: String,
    tracking_code: String,
    domain: String,
}

impl From<&Website> for OfWebsite {
    fn from(website: &Website) -> Self {
        let Website { id, tracking_code, domain, .. } = website;
        Self { id: id.to_string(), tracking_code: tracking_code.to_string(), domain: domain.clone() }
    }
}

/// What the numbers are worth.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Meta {
    as_of: String,
    complete: bool,
    visitors: &'static str,
    visitors_error: f64,
}

impl Meta {
    /// Of one answer, or of several together.
    pub(crate) fn of<'a>(replies: impl Iterator<Item = &'a NumbersReply>) -> Self {
        let (mut as_of, mut complete, mut error) = (i64::MAX, true, None);
        for reply in replies {
            as_of = as_of.min(reply.as_of);
            complete &= reply.is_complete;
            error = error.max(reply.visitors_error.map(|error| (error * 10_000.0).ceil() as u64));
        }
        Self {
            as_of: time_text(as_of.max(0)),
            complete,
            visitors: if error.is_some() { "estimated" } else { "exact" },
            visitors_error: error.unwrap_or(0) as f64 / 10_000.0,
        }
    }

    /// The same where more is estimated: the error is the largest of all.
    pub(crate) fn with_errors(mut self, errors: impl Iterator<Item = Option<f64>>) -> Self {
        for error in errors.flatten() {
            self.visitors = "estimated";
            self.visitors_error = self.visitors_error.max((error * 10_000.0).ceil() / 10_000.0);
        }
        self
    }
}
