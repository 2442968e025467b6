//! What is sent of a website, checked: all faults are told at once, each with its place.

use std::{borrow::Cow, collections::HashSet, sync::Arc};

use serde_json::value::RawValue;

use super::members::{Members, elements, members_of, text};
use crate::{
    calendar::Zone,
    domain::Domain,
    event::{Faults, Gpc, HostsPolicy},
    store::{Aim, Goal, WebsiteChange},
};

/// What a website may be like; values and reasons stand in the configuration.
#[derive(Debug, Clone, Copy)]
pub struct WebsiteLimits {
    /// Longest name of a website, and of a goal, in characters.
    pub name_chars_max: usize,
    /// Longest description, in characters.
    pub description_chars_max: usize,
    /// Most hosts.
    pub hosts_max: usize,
    /// Most goals.
    pub goals_max: usize,
    /// Longest event and longest page of a goal, in bytes.
    pub goal_bytes_max: usize,
}

#[cfg(test)]
impl WebsiteLimits {
    /// The contract's.
    pub(crate) const OF_TESTS: Self = Self {
        name_chars_max: 255,
        description_chars_max: 1_000,
        hosts_max: 100,
        goals_max: 100,
        goal_bytes_max: 1_024,
    };
}

/// Checks what is sent, and adds its faults to those that there are; what has one is as if absent. The domain is left
/// out: whether a website may keep one that breaks the rules is known to whoever asks.
pub fn check_change(sent: &Members<'_>, limits: &WebsiteLimits, faults: &mut Faults) -> WebsiteChange {
    let [name, _, description, timezone, hosts, goals, hosts_policy, gpc] = *sent;
    let check_name = |text: &str| check_name(text, limits.name_chars_max);
    let name = name.map(|raw| checked(raw, check_name));
    let check_description = |text: &str| check_description(text, limits.description_chars_max);
    let description = description.map(|raw| checked_or_null(raw, check_description));
    let timezone = timezone.map(|raw| checked_or_null(raw, check_timezone));
    let hosts_policy = hosts_policy.map(|raw| checked_word(raw, HostsPolicy::WORDS, HostsPolicy::from_word));
    let gpc = gpc.map(|raw| checked_word(raw, Gpc::WORDS, Gpc::from_word));
    WebsiteChange {
        name: name.and_then(|checked| noted("name", checked, faults)),
        domain: None,
        description: description.and_then(|checked| noted("description", checked, faults)),
        timezone: timezone.and_then(|checked| noted("timezone", checked, faults)),
        hosts: hosts.and_then(|raw| check_hosts(raw, limits, faults)),
        hosts_policy: hosts_policy.and_then(|checked| noted("hostsPolicy", checked, faults)),
        gpc: gpc.and_then(|checked| noted("gpc", checked, faults)),
        goals: goals.and_then(|raw| check_goals(raw, limits, faults)),
    }
}

/// What is without fault; a fault is added to the others.
fn noted<T>(field: &'static str, checked: Result<T, Cow<'static, str>>, faults: &mut Faults) -> Option<T> {
    checked.map_err(|fault| faults.add(field, fault)).ok()
}

fn checked<T, F: Into<Cow<'static, str>>>(
    raw: &RawValue,
    check: impl FnOnce(&str) -> Result<T, F>,
) -> Result<T, Cow<'static, str>> {
    check(&text(raw)?).map_err(Into::into)
}

fn checked_or_null<T, F: Into<Cow<'static, str>>>(
    raw: &RawValue,
    check: impl FnOnce(&str) -> Result<T, F>,
) -> Result<Option<T>, Cow<'static, str>> {
    match raw.get().as_bytes().first() {
        Some(b'"') => checked(raw, check).map(Some),
        Some(b'n') => Ok(None),
        _ => Err("Expected a string or null".into()),
    }
}

/// One of some words; null says what nothing does.
fn checked_word<T: Default>(
    raw: &RawValue,
    words: &[&str],
    of_word: fn(&str) -> Option<T>,
) -> Result<T, Cow<'static, str>> {
    let word = match raw.get() {
        "null" => return Ok(T::default()),
        _ => text(raw).ok(),
    };
    let expected = || format!("Expected one of: {}, or null", words.join(", ")).into();
    word.and_then(|word| of_word(&word)).ok_or_else(expected)
}

/// Checks a name that people see; the limit is in characters.
fn check_name(text: &str, chars_max: usize) -> Result<String, String> {
    if !(1..=chars_max).contains(&text.chars().count()) {
        return Err(format!("Expected 1 to {chars_max} characters"));
    }
    if text.chars().any(char::is_control) {
        return Err("Control characters are not taken".into());
    }
    Ok(text.to_owned())
}

/// Checks what people wrote about it; the limit is in characters.
fn check_description(text: &str, chars_max: usize) -> Result<String, String> {
    if text.chars().count() > chars_max {
        return Err(format!("At most {chars_max} characters"));
    }
    Ok(text.to_owned())
}

/// The name of a time zone, as IANA writes it.
fn check_timezone(text: &str) -> Result<String, &'static str> {
    let zone = Zone::find(text).ok_or("Unknown time zone; expected an IANA name such as Europe/Berlin")?;
    Ok(zone.name().to_owned())
}

/// The elements of an array; null has none.
fn list<'a>(
    field: &'static str,
    raw: &'a RawValue,
    elements_max: usize,
    faults: &mut Faults,
) -> Option<Vec<&'a RawValue>> {
    if raw.get() == "null" {
        return Some(Vec::new());
    }
    noted(field, elements(raw, elements_max), faults)
}

/// The hosts, each once and in their order.
fn check_hosts(raw: &RawValue, limits: &WebsiteLimits, faults: &mut Faults) -> Option<Arc<[String]>> {
    let (mut hosts, mut is_good) = (Vec::new(), true);
    for (at, raw) in list("hosts", raw, limits.hosts_max, faults)?.into_iter().enumerate() {
        match checked(raw, Domain::parse).map(Domain::into_string) {
            Ok(host) if hosts.contains(&host) => {}
            Ok(host) => hosts.push(host),
            Err(fault) => {
                faults.add_at(format!("hosts[{at}]"), fault);
                is_good = false;
            }
        }
    }
    is_good.then(|| hosts.into())
}

fn check_goals(raw: &RawValue, limits: &WebsiteLimits, faults: &mut Faults) -> Option<Arc<[Goal]>> {
    let list = list("goals", raw, limits.goals_max, faults)?;
    let (count, mut names) = (list.len(), HashSet::new());
    let goals = list.into_iter().enumerate().filter_map(|(at, raw)| {
        let place = format!("goals[{at}]");
        match members_of(raw, ["name", "event", "page"]) {
            Ok(sent) => check_goal(&place, sent, limits, &mut names, faults),
            Err(fault) => {
                faults.add_at(place, fault);
                None
            }
        }
    });
    let goals: Vec<_> = goals.collect();
    (goals.len() == count).then(|| goals.into())
}

/// A goal, if it is without fault. `names` are those of the goals before it.
fn check_goal(
    place: &str,
    [name, event, page]: [Option<&RawValue>; 3],
    limits: &WebsiteLimits,
    names: &mut HashSet<String>,
    faults: &mut Faults,
) -> Option<Goal> {
    let mut of = |member: &str, checked: Result<String, Cow<'static, str>>| {
        checked.map_err(|fault| faults.add_at(format!("{place}.{member}"), fault)).ok()
    };
    let name =
        name.ok_or(Cow::from("Required")).and_then(|raw| checked(raw, |text| check_name(text, limits.name_chars_max)));
    let name = name
        .and_then(|name| if names.insert(name.clone()) { Ok(name) } else { Err("Another goal has this name".into()) });
    let name = of("name", name);
    let is_given = |raw: &&RawValue| raw.get() != "null";
    let (event, page) = (event.filter(is_given), page.filter(is_given));
    let is_one = event.is_some() != page.is_some();
    let check_event = |text: &str| check_goal_text(text, limits.goal_bytes_max);
    let event = event.and_then(|raw| of("event", checked(raw, check_event)));
    let page = page.and_then(|raw| of("page", checked(raw, |text| check_page(text, limits.goal_bytes_max))));
    if !is_one {
        faults.add_at(place, "Expected either an event or a page");
        return None;
    }
    let aim = event.map(Aim::Event).or(page.map(Aim::Page));
    Some(Goal { name: name?, aim: aim? })
}

fn check_goal_text(text: &str, bytes_max: usize) -> Result<String, String> {
    if !(1..=bytes_max).contains(&text.len()) {
        return Err(format!("Expected 1 to {bytes_max} bytes"));
    }
    Ok(text.to_owned())
}

/// Checks a pattern of pages. A goal that all pages but some reach would be reached by everybody.
fn check_page(text: &str, bytes_max: usize) -> Result<String, String> {
    if text.starts_with('!') {
        return Err("A goal cannot be all pages but some; write \\! for a page that begins with \"!\"".into());
    }
    check_goal_text(text, bytes_max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::website::WEBSITE_MEMBERS;

    /// What is made of this JSON, and the places of its faults.
    fn change(json: &str) -> (WebsiteChange, Vec<String>) {
        let mut faults = Faults::default();
        let sent = members_of(serde_json::from_str(json).unwrap(), WEBSITE_MEMBERS).unwrap();
        let change = check_change(&sent, &WebsiteLimits::OF_TESTS, &mut faults);
        let fields = faults.fields.iter().map(|(field, _)| (*field).to_owned());
        (change, fields.chain(faults.places.iter().map(|(place, _)| place.clone())).collect())
    }

    #[test]
    fn names_and_descriptions() {
        for (text, is_name, is_description) in [
            ("", false, true),
            ("a", true, true),
            ("\u{f1}\u{f1}\u{f1}", true, true),
            ("four", false, false),
            ("a\nb", false, true),
        ] {
            assert_eq!(check_name(text, 3).is_ok(), is_name, "{text:?}");
            assert_eq!(check_description(text, 3).is_ok(), is_description, "{text:?}");
        }
    }

    #[test]
    fn what_is_absent_stays_and_what_is_null_goes() {
        assert_eq!(change(r#"{"other": [1e999, "\ud800"]}"#), (WebsiteChange::default(), vec![]));
        let emptied = WebsiteChange {
            description: Some(None),
            timezone: Some(None),
            hosts: Some([].into()),
            hosts_policy: Some(HostsPolicy::Warn),
            gpc: Some(Gpc::Ignore),
            goals: Some([].into()),
            ..WebsiteChange::default()
        };
        let null = r#"{"description": null, "timezone": null, "hosts": null, "goals": null,
                       "hostsPolicy": null, "gpc": null}"#;
        assert_eq!(change(null), (emptied, vec![]));
        let (emptied, faults) = change(r#"{"hosts": [], "goals": []}"#);
        assert_eq!(
            (emptied.hosts.as_deref(), emptied.goals.as_deref(), faults),
            (Some(&[][..]), Some(&[][..]), vec![])
        );
    }

    #[test]
    fn zones_are_written_as_iana_does() {
        for (text, wanted) in [
            ("Europe/Berlin", Some("Europe/Berlin")),
            ("europe/BERLIN", Some("Europe/Berlin")),
            ("utc", Some("UTC")),
            ("", None),
            ("Europe/Bonn", None),
            ("+02:00", None),
        ] {
            let (change, faults) = change(&format!(r#"{{"timezone": "{text}"}}"#));
            assert_eq!(change.timezone.flatten().as_deref(), wanted, "{text}");
            assert_eq!(faults.is_empty(), wanted.is_some(), "{text}: {faults:?}");
        }
    }

    #[test]
    fn hosts_are_domains_each_once() {
        let hosts = |count: usize| {
            let hosts = (0..count).map(|number| format!("\"{number}.example\""));
            change(&format!(r#"{{"hosts": [{}]}}"#, hosts.collect::<Vec<_>>().join(","))).1
        };
        let sent = r#"{"hosts": ["B.example", "www.a.example", "https://b.EXAMPLE/x", "localhost:3000", "a.example"]}"#;
        let (found, faults) = change(sent);
        let wanted = ["b.example", "www.a.example", "localhost:3000", "a.example"];
        assert_eq!((found.hosts.as_deref(), faults), (Some(&wanted.map(str::to_owned)[..]), vec![]));
        assert_eq!((hosts(100), hosts(101)), (vec![], vec!["hosts".to_owned()]));
        for (sent, wanted) in [
            (r#"["a.example", "*", "b.example", null]"#, vec!["hosts[1]", "hosts[3]"]),
            (r#""a.example""#, vec!["hosts"]),
            ("{}", vec!["hosts"]),
        ] {
            let (change, faults) = change(&format!(r#"{{"hosts": {sent}}}"#));
            assert_eq!((change.hosts, faults), (None, wanted.into_iter().map(str::to_owned).collect()), "{sent}");
        }
    }

    #[test]
    fn what_it_takes_is_said_in_words() {
        for (json, policy, gpc) in [
            (r#"{"hostsPolicy": "warn", "gpc": "ignore"}"#, Some(HostsPolicy::Warn), Some(Gpc::Ignore)),
            (r#"{"hostsPolicy": "refuse", "gpc": "anonymous"}"#, Some(HostsPolicy::Refuse), Some(Gpc::Anonymous)),
            (r#"{"gpc": "\u0064rop"}"#, None, Some(Gpc::Drop)),
        ] {
            let (change, faults) = change(json);
            assert_eq!((change.hosts_policy, change.gpc, faults), (policy, gpc, vec![]), "{json}");
        }
        for value in [r#""""#, r#""Warn""#, r#""drop it""#, r#""\ud800""#, "true", "0", "[]", "{}"] {
            let mut faults = Faults::default();
            let json = format!(r#"{{"hostsPolicy": {value}, "gpc": {value}}}"#);
            let sent = members_of(serde_json::from_str(&json).unwrap(), WEBSITE_MEMBERS).unwrap();
            let change = check_change(&sent, &WebsiteLimits::OF_TESTS, &mut faults);
            assert_eq!((change.hosts_policy, change.gpc), (None, None), "{value}");
            let wanted = [
                ("hostsPolicy", vec!["Expected one of: warn, refuse, or null".into()]),
                ("gpc", vec!["Expected one of: ignore, anonymous, drop, or null".into()]),
            ];
            assert_eq!(faults.fields, wanted, "{value}");
        }
    }

    #[test]
    fn goals_are_an_event_or_a_page() {
        let sent = r#"{"goals": [{"name": "Signup", "event": "signup", "page": null, "other": 1},
                                 {"page": "\\!\\*/docs/*", "name": "signup"}]}"#;
        let goal = |name: &str, aim| Goal { name: name.into(), aim };
        let wanted = [goal("Signup", Aim::Event("signup".into())), goal("signup", Aim::Page("\\!\\*/docs/*".into()))];
        let (found, faults) = change(sent);
        assert_eq!((found.goals.as_deref(), faults), (Some(&wanted[..]), vec![]));
        let (longest, long) = ("\u{f1}".repeat(512), "\u{f1}".repeat(513));
        let many = |count: usize| {
            let goals = (0..count).map(|number| format!(r#"{{"name": "{number}", "event": "a"}}"#));
            format!("[{}]", goals.collect::<Vec<_>>().join(","))
        };
        for (sent, wanted) in [
            (format!(r#"[{{"name": "{}", "page": "{longest}"}}]"#, "n".repeat(255)), vec![]),
            (
                format!(r#"[{{"name": "{}", "page": "{long}"}}, {{"name": "", "event": ""}}]"#, "n".repeat(256)),
                vec!["goals[0].name", "goals[0].page", "goals[1].name", "goals[1].event"],
            ),
            (many(100), vec![]),
            (many(101), vec!["goals"]),
            (r#"[{"name": "A"}, {"name": "B", "event": "b", "page": "/b"}]"#.into(), vec!["goals[0]", "goals[1]"]),
            (r#"[{"name": "A", "event": "a"}, {"name": "A", "event": "b"}]"#.into(), vec!["goals[1].name"]),
            (
                r#"[{"event": "a"}, {"name": "a\n", "event": 7}]"#.into(),
                vec!["goals[0].name", "goals[1].name", "goals[1].event"],
            ),
            (r#"[{"name": "A", "page": "!/x"}, 7, null]"#.into(), vec!["goals[0].page", "goals[1]", "goals[2]"]),
            (r#"{"name": "A", "event": "a"}"#.into(), vec!["goals"]),
        ] {
            let (change, faults) = change(&format!(r#"{{"goals": {sent}}}"#));
            assert_eq!(faults, wanted, "{sent:.100}");
            assert_eq!(change.goals.is_some(), wanted.is_empty(), "{sent:.100}");
        }
    }
}
