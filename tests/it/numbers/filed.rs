//! What an event and a visit are filed under.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    fault::{Fault, Rules},
    oracle::{Event, Website},
};

/// What belongs to an event.
pub const OF_EVENT: [&str; 3] = ["page", "hostname", "event"];
/// What says where visits began, if it is asked for.
pub const OF_PAGES: [&str; 2] = ["page", "hostname"];
/// What belongs to a visit.
pub const OF_VISIT: [&str; 13] = [
    "entryPage",
    "exitPage",
    "referrer",
    "source",
    "utmSource",
    "utmMedium",
    "utmCampaign",
    "utmContent",
    "utmTerm",
    "browser",
    "os",
    "deviceType",
    "location",
];
/// Where the name of an event stands, the first first.
pub const NAME_KEYS: [&str; 6] = ["name", "event", "eventName", "event_name", "action", "buttonId"];
/// Hosts that events may come from, without `www.`, and the source that each is. Whatever else there is to know of
/// names and registrable domains is nothing that this file could know better.
pub const SOURCES: [(&str, &str); 7] = [
    ("google.de", "Google"),
    ("google.com", "Google"),
    ("news.example.org", "example.org"),
    ("example.org", "example.org"),
    ("example.net", "example.net"),
    ("blog.example.com", "example.com"),
    ("a.b.example.co.uk", "example.co.uk"),
];
/// What stands before the name of a property where the values of one are asked for.
pub const PROPERTY: &str = "property:";
const VALUE_BYTES_MAX: usize = 1_024;

/// A URL with `://`, in its parts.
#[derive(Debug, PartialEq, Eq)]
struct Address<'a> {
    host: String,
    path: &'a str,
    query: &'a str,
    fragment: &'a str,
}

impl<'a> Address<'a> {
    fn split(url: &'a str, rules: Rules) -> Self {
        let (_, rest) = url.split_once("://").expect("the URLs of these tests have ://");
        let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let host = authority.rsplit('@').next().unwrap_or_default();
        let host = match rules.lack(Fault::PortsStay) {
            true => host,
            false => host.split(':').next().unwrap_or_default(),
        };
        let host = if rules.lack(Fault::HostsKeepTheirCase) { host.to_owned() } else { host.to_lowercase() };
        Self { host, path, query, fragment }
    }

    /// What stands first in the query under this name.
    fn parameter(&self, name: &str, rules: Rules) -> Option<String> {
        let mut values = self.query.split('&').filter_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (unescaped(key, rules) == name).then(|| unescaped(value, rules))
        });
        if rules.lack(Fault::LastOfAQueryCounts) { values.next_back() } else { values.next() }
    }
}

fn unescaped(text: &str, rules: Rules) -> String {
    let bytes = text.as_bytes();
    let (mut out, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let code = bytes.get(at + 1..at + 3).and_then(|code| std::str::from_utf8(code).ok());
        let code = code.filter(|code| code.bytes().all(|digit| digit.is_ascii_hexdigit()));
        match (bytes[at], code.and_then(|code| u8::from_str_radix(code, 16).ok())) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 2;
            }
            (b'+', _) if !rules.lack(Fault::PlusIsPlus) => out.push(b' '),
            (byte, _) => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// A value as it counts: none if it is empty, and not longer than it may be.
fn value(text: Option<String>, rules: Rules) -> Option<String> {
    let mut text = text.filter(|text| !text.is_empty() || rules.lack(Fault::EmptyIsAValue))?;
    if !rules.lack(Fault::LongValuesStay) {
        let end = (0..=VALUE_BYTES_MAX.min(text.len())).rev().find(|&end| text.is_char_boundary(end));
        text.truncate(end.unwrap_or_default());
    }
    Some(text)
}

/// The name of an event; none of a page view.
pub fn event_name(event: &Event) -> Option<String> {
    event_name_by(event, NAME_KEYS.iter())
}

fn event_name_by<'a>(event: &Event, mut keys: impl Iterator<Item = &'a &'a str>) -> Option<String> {
    if event.is_view() {
        return None;
    }
    let name = keys.find_map(|key| event.properties[*key].as_str().filter(|name| !name.is_empty()));
    Some(name.unwrap_or(event.kind).to_owned())
}

/// A host as it is compared with others: without port and `www.`.
fn bare(host: &str) -> &str {
    let host = host.split(':').next().unwrap_or_default();
    host.strip_prefix("www.").unwrap_or(host)
}

/// The different hosts of a website.
fn own_hosts(website: &Website) -> BTreeSet<&str> {
    website.hosts.iter().chain([&website.domain]).map(|host| bare(host)).collect()
}

fn page(website: &Website, event: &Event, rules: Rules) -> String {
    let address = Address::split(&event.url, rules);
    let mut hosts = own_hosts(website);
    match rules.0 {
        Some(Fault::DomainIsNoHost) => hosts = website.hosts.iter().map(|host| bare(host)).collect(),
        Some(Fault::WwwIsAnotherHost) => hosts.extend(website.hosts.iter().map(|host| &**host)),
        _ => {}
    }
    let host = if hosts.len() > 1 { &*address.host } else { "" };
    let path = if address.path.is_empty() { "/" } else { address.path };
    let fragment = address.fragment;
    let is_route = fragment.starts_with('/') || fragment.starts_with("!/");
    let stays = match rules.0 {
        Some(Fault::FragmentsAreDropped) => false,
        Some(Fault::AllFragmentsStay) => !fragment.is_empty(),
        _ => is_route,
    };
    if !stays {
        return format!("{host}{path}");
    }
    let route = match rules.lack(Fault::FragmentsKeepTheirQuery) {
        true => fragment,
        false => fragment.split('?').next().unwrap_or_default(),
    };
    format!("{host}{path}#{route}")
}

/// The value of a property, whatever the type of its event is.
fn property(event: &Event, name: &str, rules: Rules) -> Option<String> {
    let of_actions_only = rules.lack(Fault::ViewsHaveNoProperties);
    match event.properties.get(name).filter(|_| !of_actions_only || !event.is_view())? {
        Value::String(text) => Some(text.clone()),
        number @ Value::Number(_) if !rules.lack(Fault::NumbersAreNoProperties) => Some(number.to_string()),
        Value::Bool(is_true) if !rules.lack(Fault::TruthIsNoProperty) => Some(is_true.to_string()),
        other if rules.lack(Fault::AnythingIsAProperty) => Some(other.to_string()),
        _ => None,
    }
}

/// What an event has under one of the names of [`OF_EVENT`], or as a property.
pub fn of_event(website: &Website, event: &Event, name: &str, rules: Rules) -> Option<String> {
    if let Some(name) = name.strip_prefix(PROPERTY) {
        return value(property(event, name, rules), rules);
    }
    let text = match name {
        "hostname" => Some(Address::split(&event.url, rules).host),
        "page" => Some(page(website, event, rules)),
        "event" if rules.lack(Fault::NamesInAnotherOrder) => event_name_by(event, NAME_KEYS.iter().rev()),
        "event" => event_name(event),
        _ => panic!("{name} is nothing that an event has"),
    };
    value(text, rules)
}

/// What a visit, or a run of events that is none, has under one of the names of [`OF_VISIT`].
pub fn of_visit(website: &Website, run: &[&Event], name: &str, rules: Rules) -> Option<String> {
    let mut views = run.iter().copied().filter(|event| event.is_view());
    let last_view = views.clone().next_back();
    let first_view = views.next();
    let client = match rules.lack(Fault::ClientOfTheFirstView) {
        true => first_view.unwrap_or(run[0]),
        false => run[0],
    };
    match name {
        "browser" => return value(client.browser.clone(), rules),
        "os" => return value(client.os.clone(), rules),
        "deviceType" => return value(client.device_type.clone(), rules),
        "location" => return value(client.location.clone(), rules),
        _ => {}
    }
    let (first_view, last_view) = (first_view?, last_view?);
    let acquired = if rules.lack(Fault::AcquisitionOfTheLastView) { last_view } else { first_view };
    let parameter = |name: &str| value(Address::split(&acquired.url, rules).parameter(name, rules), rules);
    let text = match name {
        "entryPage" => Some(page(website, first_view, rules)),
        "exitPage" if rules.lack(Fault::ExitIsEntry) => Some(page(website, first_view, rules)),
        "exitPage" => Some(page(website, last_view, rules)),
        "referrer" => referrer(website, acquired, rules),
        "source" if rules.lack(Fault::SourceOfReferrerOnly) => referrer(website, acquired, rules).map(source_of),
        "source" => parameter("utm_source")
            .or_else(|| parameter("source"))
            .or_else(|| parameter("ref"))
            .or_else(|| referrer(website, acquired, rules).map(source_of)),
        "utmSource" => parameter("utm_source"),
        "utmMedium" => parameter("utm_medium"),
        "utmCampaign" => parameter("utm_campaign"),
        "utmContent" => parameter("utm_content"),
        "utmTerm" => parameter("utm_term"),
        _ => panic!("{name} is nothing that a visit has"),
    };
    value(text, rules)
}

/// The host that a page view came from, unless that is the website's own.
fn referrer(website: &Website, view: &Event, rules: Rules) -> Option<String> {
    let host = Address::split(view.referrer.as_deref()?, rules).host;
    let mut own = own_hosts(website);
    if rules.lack(Fault::HostsAreStrangers) {
        own = BTreeSet::from([bare(&website.domain)]);
    }
    let bare = host.strip_prefix("www.").unwrap_or(&host);
    if own.contains(bare) && !rules.lack(Fault::OwnReferrersStay) {
        return None;
    }
    Some(if rules.lack(Fault::WwwStays) { host } else { bare.to_owned() })
}

fn source_of(host: String) -> String {
    let known = SOURCES.iter().find(|(known, _)| host.strip_prefix("www.").unwrap_or(&host) == *known);
    // Only where a rule is taken away, a host may come here that is not in the list.
    known.map_or(host.clone(), |(_, source)| (*source).to_owned())
}

/// What an event has under a name, by itself; for those who want a value that there is.
pub fn of_alone(website: &Website, event: &Event, name: &str) -> Option<String> {
    let rules = Rules::default();
    if OF_EVENT.contains(&name) {
        return of_event(website, event, name, rules);
    }
    of_visit(website, &[event], name, rules)
}
