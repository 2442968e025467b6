//! A website in the words of people and of the interface: one rule for its name, its description, its time zone, its
//! hosts, its goals and what it takes, wherever it is registered, changed or imported, and one form for answers and
//! exports. Pure; where its pages are is the business of `domain`.

mod change;
mod members;

pub use change::{WebsiteLimits, check_change};
pub use members::{Members, WEBSITE_MEMBERS, members_of, text};
use serde::Serialize;

use crate::{
    calendar::Zone,
    event::{bare_host, time::time_text},
    store::{Aim, Goal, Own, Website},
};

/// A website as the API shows it, which is how an export writes it and an import takes it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WebsiteJson<'a> {
    id: &'a str,
    tracking_code: &'a str,
    name: &'a str,
    domain: &'a str,
    description: Option<&'a str>,
    timezone: Option<&'a str>,
    hosts: &'a [String],
    hosts_policy: &'static str,
    gpc: &'static str,
    goals: Vec<GoalJson<'a>>,
    created_at: String,
    updated_at: String,
}

/// A goal as the API shows it: what it is not about is null.
#[derive(Serialize)]
struct GoalJson<'a> {
    name: &'a str,
    event: Option<&'a str>,
    page: Option<&'a str>,
}

impl<'a> From<&'a Website> for WebsiteJson<'a> {
    fn from(website: &'a Website) -> Self {
        Self {
            id: &website.id,
            tracking_code: &website.tracking_code,
            name: &website.name,
            domain: &website.domain,
            description: website.description.as_deref(),
            timezone: website.timezone.as_deref(),
            hosts: &website.hosts,
            hosts_policy: website.hosts_policy.as_str(),
            gpc: website.gpc.as_str(),
            goals: website.goals.iter().map(GoalJson::from).collect(),
            created_at: time_text(website.created_at),
            updated_at: time_text(website.updated_at),
        }
    }
}

impl<'a> From<&'a Goal> for GoalJson<'a> {
    fn from(Goal { name, aim }: &'a Goal) -> Self {
        match aim {
            Aim::Event(event) => Self { name, event: Some(event), page: None },
            Aim::Page(page) => Self { name, event: None, page: Some(page) },
        }
    }
}

/// What the website is to referrers and pages: its own hosts are its domain and those that it names, `www.` aside.
pub fn own(website: &Website) -> Own {
    let hosts = website.hosts.iter().chain([&website.domain]).map(|host| bare_host(host));
    let mut hosts: Vec<String> = hosts.map(|host| host.strip_prefix("www.").unwrap_or(host).to_owned()).collect();
    hosts.sort_unstable();
    hosts.dedup();
    Own { has_several: hosts.len() > 1, hosts: hosts.into() }
}

/// The zone of its days and hours, where nobody names one.
pub fn zone(website: &Website) -> Zone {
    website.timezone.as_deref().and_then(Zone::find).unwrap_or_else(Zone::utc)
}
