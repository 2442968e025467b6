//! `hitlog tracker`: the tag of a website, and what its pages have to allow.

use std::path::PathBuf;

use serde::Serialize;
use url::{Position, Url};

use super::{Outcome, ToolError, numbers::website_of, print, print_json};
use crate::{
    store::offline::OfflineDir,
    web::{PIXEL_PATH, TRACKER, TRACKER_V1},
};

/// Of which website, and how it is reached.
#[derive(Debug)]
pub struct TrackerOptions {
    /// Where the websites are.
    pub data_dir: PathBuf,
    /// Whose: an id, tracking code or domain. Needed where there is more than one website.
    pub website: Option<String>,
    /// Where browsers reach hitlog.
    pub url: String,
    /// Another path of the tracker, if there is one.
    pub tracker_path: Option<String>,
    /// Another path that events are sent to, if there is one.
    pub events_path: Option<String>,
    /// Prints JSON, for programs.
    pub json: bool,
}

/// What a site's pages need.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Needs {
    tag: String,
    /// The same, of a tracker that never changes.
    frozen_tag: String,
    integrity: String,
    content_security_policy: String,
    pixel: String,
}

impl Needs {
    fn of(code: &str, base: &Url, options: &TrackerOptions) -> Self {
        let origin = base.origin().ascii_serialization();
        // Where hitlog stands behind a proxy, its paths may begin with something else.
        let prefix = base[..Position::AfterPath].trim_end_matches('/');
        let tracker = format!("{prefix}{}", options.tracker_path.as_deref().unwrap_or(TRACKER.path));
        let is_usual = options.events_path.is_none() && prefix == origin;
        let events = format!("{prefix}{}", options.events_path.as_deref().unwrap_or("/api/v1/events"));
        let api = if is_usual { String::new() } else { format!(" data-api=\"{events}\"") };
        let integrity = TRACKER_V1.integrity();
        Self {
            tag: format!("<script defer src=\"{tracker}\" data-code=\"{code}\"{api}></script>"),
            frozen_tag: format!(
                "<script defer src=\"{prefix}{}\" integrity=\"{integrity}\" crossorigin=\"anonymous\" \
                 data-code=\"{code}\"{api}></script>",
                TRACKER_V1.path
            ),
            integrity,
            content_security_policy: format!("script-src {origin}; connect-src {origin}; img-src {origin}"),
            pixel: format!(
                "<noscript><img src=\"{prefix}{PIXEL_PATH}?code={code}\" alt=\"\" width=\"1\" height=\"1\" \
                 referrerpolicy=\"no-referrer-when-downgrade\"></noscript>"
            ),
        }
    }
}

/// Prints what the pages of a website need.
pub fn run(options: &TrackerOptions) -> Outcome {
    let base = Url::parse(&options.url).ok().filter(|url| ["http", "https"].contains(&url.scheme()) && url.has_host());
    let is_plain = |url: &Url| url.query().is_none() && url.fragment().is_none() && !url.as_str().contains('@');
    let base = base.filter(is_plain).ok_or_else(|| {
        ToolError::Arguments(format!("--url is {:?}; expected a URL such as https://stats.example.com", options.url))
    })?;
    let catalog = OfflineDir::open(&options.data_dir)?.catalog()?;
    let website = website_of(&catalog, options.website.as_deref())?;
    let needs = Needs::of(&website.tracking_code, &base, options);
    if options.json {
        print_json(&needs)?;
        return Ok(true);
    }
    let Needs { tag, frozen_tag, content_security_policy, pixel, .. } = needs;
    let text = format!(
        "Put this into every page of {}:\n\n{tag}\n\nOr this, a tracker that never changes, whose integrity browsers \
         check:\n\n{frozen_tag}\n\nIf the site has a Content-Security-Policy, it has to \
         allow:\n\n{content_security_policy}\n\nFor visitors without JavaScript, in the body of \
         pages:\n\n{pixel}\n",
        website.domain
    );
    print(text.as_bytes())?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needs(url: &str, tracker_path: Option<&str>, events_path: Option<&str>) -> Needs {
        let options = TrackerOptions {
            data_dir: PathBuf::new(),
            website: None,
            url: url.into(),
            tracker_path: tracker_path.map(str::to_owned),
            events_path: events_path.map(str::to_owned),
            json: false,
        };
        Needs::of("pm-1", &Url::parse(url).unwrap(), &options)
    }

    #[test]
    fn the_tag_says_where_it_comes_from_and_no_more_than_it_has_to() {
        for (url, tracker, events, tag, policy) in [
            (
                "https://stats.example.com/",
                None,
                None,
                r#"<script defer src="https://stats.example.com/tracker.js" data-code="pm-1"></script>"#,
                "https://stats.example.com",
            ),
            (
                "http://127.0.0.1:3000",
                Some("/js/app.js"),
                Some("/hello"),
                "<script defer src=\"http://127.0.0.1:3000/js/app.js\" data-code=\"pm-1\" \
                 data-api=\"http://127.0.0.1:3000/hello\"></script>",
                "http://127.0.0.1:3000",
            ),
            (
                "https://example.com/stats/",
                None,
                None,
                "<script defer src=\"https://example.com/stats/tracker.js\" data-code=\"pm-1\" \
                 data-api=\"https://example.com/stats/api/v1/events\"></script>",
                "https://example.com",
            ),
        ] {
            let found = needs(url, tracker, events);
            assert_eq!(found.tag, tag);
            assert_eq!(
                found.content_security_policy,
                format!("script-src {policy}; connect-src {policy}; img-src {policy}")
            );
            assert!(found.frozen_tag.contains(&format!("integrity=\"{}\"", found.integrity)), "{}", found.frozen_tag);
        }
    }
}
