//! Which website is followed: that which somebody names, or the only one.

use serde::Deserialize;

use super::trouble::Trouble;
use crate::{
    domain::Domain,
    tools::{
        ToolError,
        client::Client,
        table::{Align, Table, printable, shorten},
    },
};

/// Websites of a page: all that they may have, at their longest, fits into the bound on the page.
const PAGE_WEBSITES: usize = 20;
const PAGE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Most websites that are shown to choose from, and most characters of a domain.
const SHOWN_MAX: usize = 20;
const DOMAIN_CHARS_MAX: usize = 60;

/// A website as the API lists it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Site {
    id: String,
    pub(super) tracking_code: String,
    pub(super) domain: String,
}

#[derive(Deserialize)]
struct PageJson {
    websites: Vec<Site>,
    total: u64,
    pagination: PaginationJson,
}

#[derive(Deserialize)]
struct PaginationJson {
    next: Option<String>,
}

/// What the pages have told so far.
#[derive(Debug, Default)]
struct Search {
    /// The one that is meant, unless another is called exactly so.
    found: Option<Site>,
    /// The first ones.
    shown: Vec<Site>,
    total: u64,
}

impl Search {
    /// Looks through a page; the website if it is called exactly so.
    fn look(&mut self, page: PageJson, name: &str, domain: Option<&str>) -> Option<Site> {
        self.total = page.total;
        for site in page.websites {
            // As it stands first: the domain of an older hitlog may be none by today's rules.
            if [&site.id, &site.tracking_code, &site.domain].contains(&&name.to_owned()) {
                return Some(site);
            }
            if domain == Some(&*site.domain) {
                self.found = Some(site);
            } else if self.shown.len() < SHOWN_MAX {
                self.shown.push(site);
            }
        }
        None
    }

    /// The websites that there are, a line each.
    fn list(&self) -> String {
        let mut table = Table::new(&[("", Align::Left), ("", Align::Left), ("", Align::Left)]);
        for site in &self.shown {
            let domain = shorten(&printable(&site.domain), DOMAIN_CHARS_MAX);
            table.row([String::new(), domain, shorten(&printable(&site.tracking_code), DOMAIN_CHARS_MAX)]);
        }
        let lines = table.render();
        let mut lines = lines.trim_end().trim_start_matches('\n').to_owned();
        let more = self.total.saturating_sub(self.shown.len() as u64);
        if more > 0 {
            lines.push_str(&format!("\n  and {more} more, which GET /api/v1/websites lists"));
        }
        lines
    }
}

/// Asks for the website with this id, tracking code or domain; without a name, for the only one.
pub(super) async fn choose(client: &Client, name: Option<&str>) -> Result<Site, Trouble> {
    let domain = name.and_then(|name| Domain::parse(name).ok()).map(Domain::into_string);
    let mut search = Search::default();
    let mut next = None;
    loop {
        let page = page(client, next.as_deref()).await?;
        next = page.pagination.next.clone().filter(|_| !page.websites.is_empty());
        let Some(name) = name else {
            search.total = page.total;
            search.shown = page.websites;
            break;
        };
        if let Some(site) = search.look(page, name, domain.as_deref()) {
            return Ok(site);
        }
        if next.is_none() {
            break;
        }
    }
    decide(client, search, name)
}

fn decide(client: &Client, mut search: Search, name: Option<&str>) -> Result<Site, Trouble> {
    if let Some(site) = search.found {
        return Ok(site);
    }
    if search.total == 0 && search.shown.is_empty() {
        return Err(Trouble::Final(ToolError::Remote(format!(
            "no website is registered yet at {0}. Register one with POST {0}/api/v1/websites and a body such as \
             {{\"name\":\"My site\",\"domain\":\"example.com\"}}",
            client.base()
        ))));
    }
    let said = match name {
        None if search.total == 1 && search.shown.len() == 1 => return Ok(search.shown.swap_remove(0)),
        None => "there are several websites; choose one with --website".to_owned(),
        Some(name) => format!("no website has the id, tracking code or domain {}; there are", printable(name)),
    };
    search.shown.truncate(SHOWN_MAX);
    Err(Trouble::Final(ToolError::Arguments(format!("{said}:\n{}", search.list()))))
}

async fn page(client: &Client, cursor: Option<&str>) -> Result<PageJson, Trouble> {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.append_pair("limit", &PAGE_WEBSITES.to_string());
    if let Some(cursor) = cursor {
        query.append_pair("cursor", cursor);
    }
    let path = format!("/api/v1/websites?{}", query.finish());
    let of_client = |error| Trouble::of_client(client, &error);
    let mut answer = client.get(&path, "application/json").await.map_err(of_client)?;
    if !answer.status().is_success() {
        return Err(Trouble::of_refusal(client, answer.refusal().await));
    }
    let body = answer.read(PAGE_BYTES_MAX).await.map_err(of_client)?;
    serde_json::from_slice(&body).map_err(|error| {
        Trouble::Final(ToolError::Remote(format!(
            "{}{path} gives no list of websites ({error}): is it hitlog that listens there?",
            client.base()
        )))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::client::{BaseUrl, Patience};

    fn site(number: usize, domain: &str) -> Site {
        Site { id: format!("id-{number}"), tracking_code: format!("pm-{number:04}"), domain: domain.into() }
    }

    fn search(sites: Vec<Site>, name: &str) -> Result<Site, Trouble> {
        let client = Client::new(BaseUrl::parse("localhost").unwrap(), None, Patience::default());
        let mut search = Search::default();
        let page = PageJson { total: sites.len() as u64, websites: sites, pagination: PaginationJson { next: None } };
        let domain = Domain::parse(name).ok().map(Domain::into_string);
        match search.look(page, name, domain.as_deref()) {
            Some(site) => Ok(site),
            None => decide(&client, search, Some(name)),
        }
    }

    #[test]
    fn a_website_is_named_in_any_way() {
        let sites = || vec![site(1, "a.example"), site(2, "b.example:8080"), site(3, "xn--bcher-kva.example")];
        for (name, number) in [
            ("id-1", 1),
            ("pm-0002", 2),
            ("a.example", 1),
            ("A.Example.", 1),
            ("https://a.example/path", 1),
            ("http://b.example:8080/", 2),
            ("b\u{fc}cher.example", 3),
        ] {
            assert_eq!(search(sites(), name).unwrap().id, format!("id-{number}"), "{name}");
        }
        // Who is called exactly so goes before who is meant by it, wherever they stand.
        let older = || vec![site(1, "a.example"), site(2, "a.example.")];
        assert_eq!(search(older(), "a.example.").unwrap().id, "id-2");
    }

    #[test]
    fn who_is_not_there_is_told_who_is() {
        let sites: Vec<_> = (0..25).map(|number| site(number, &format!("site-{number}.example"))).collect();
        let Err(Trouble::Final(ToolError::Arguments(said))) = search(sites, "c.example\u{1b}") else { panic!() };
        let lines: Vec<_> = said.lines().collect();
        assert!(lines[0].ends_with("domain c.example\u{fffd}; there are:"), "{said}");
        assert_eq!((lines[1], lines.len()), ("  site-0.example   pm-0000", 1 + SHOWN_MAX + 1), "{said}");
        assert!(lines[21].starts_with("  and 5 more"), "{said}");
    }
}
