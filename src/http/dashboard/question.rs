//! What the dashboard project's client asks for, from its query string. Pure.

use crate::{
    event::Faults,
    http::{parameters::parameters, stats::bounded},
};

/// Days of the range where nothing is said, and the most of them: ten years.
const DAYS: i64 = 7;
const DAYS_MAX: u64 = 3_660;
/// Rows of a list where nothing is said, and the most of them.
const LIMIT: usize = 10;
const LIMIT_MAX: u64 = 1_000;

/// By what a website is named.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum WebsiteName {
    Id(String),
    TrackingCode(String),
}

/// A question, of whichever route.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct DashboardQuery {
    pub(super) website: WebsiteName,
    /// Of 24 hours, up to now.
    pub(super) days: i64,
    /// Most rows, where a list is asked for.
    pub(super) limit: usize,
}

impl DashboardQuery {
    /// Reads a query string; everything that is wrong with it is told at once.
    pub(super) fn parse(query: &str) -> Result<Self, Faults> {
        let mut faults = Faults::default();
        let names = ["websiteId", "trackingCode", "days", "limit"];
        let [id, tracking_code, days, limit] = parameters(query, names, &mut faults);
        let website = match (id, tracking_code) {
            (Some(id), None) => Some(WebsiteName::Id(id)),
            (None, Some(code)) => Some(WebsiteName::TrackingCode(code)),
            (None, None) => {
                faults.add("websiteId", "Required, or trackingCode in its place");
                None
            }
            (Some(_), Some(_)) => {
                faults.add("trackingCode", "websiteId names the website already; leave one of the two out");
                None
            }
        };
        let days = bounded("days", days, (1, DAYS_MAX), &mut faults).map_or(DAYS, |days| days as i64);
        let limit = bounded("limit", limit, (1, LIMIT_MAX), &mut faults).unwrap_or(LIMIT);
        match website {
            Some(website) if faults.is_empty() => Ok(Self { website, days, limit }),
            _ => Err(faults),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_asked() {
        let of = |website, days, limit| Ok(DashboardQuery { website, days, limit });
        let id = || WebsiteName::Id("web-1".into());
        for (query, wanted) in [
            ("websiteId=web-1", of(id(), 7, 10)),
            ("websiteId=web-1&trackingCode=&days=&limit=&other=x", of(id(), 7, 10)),
            ("trackingCode=pm-x&days=1&limit=1", of(WebsiteName::TrackingCode("pm-x".into()), 1, 1)),
            ("websiteId=web-1&days=3660&limit=1000", of(id(), 3_660, 1_000)),
            ("", Err(&["websiteId"][..])),
            ("websiteId=web-1&trackingCode=pm-x", Err(&["trackingCode"])),
            ("websiteId=web-1&websiteId=web-1", Err(&["websiteId"])),
            ("days=0&limit=0", Err(&["websiteId", "days", "limit"])),
            ("websiteId=web-1&days=3661&limit=1001", Err(&["days", "limit"])),
            ("websiteId=web-1&days=-7&limit=ten", Err(&["days", "limit"])),
        ] {
            let found = DashboardQuery::parse(query);
            let found = found.map_err(|faults| faults.fields.iter().map(|(field, _)| *field).collect::<Vec<_>>());
            assert_eq!(found, wanted.map_err(<[&str]>::to_vec), "{query}");
        }
    }
}
