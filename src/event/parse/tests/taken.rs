//! What a website takes: the hosts of its pages, and visitors who send `Sec-GPC: 1`.

use super::*;
use crate::event::{Gpc, GpcCounts, HostsPolicy, IdHasher};

/// What stands for whoever sent the request.
const NOBODY: &str = "0123456789abcdef0123456789abcdef";

/// The websites by their codes: each of the policies, each with a host beside its domain, and one without any.
fn taking(code: &str) -> Option<Arc<Intake>> {
    let hosts = ["b.example".to_owned()];
    let of = |id: &str, hosts: &[String], policy, gpc| {
        Some(Arc::new(Intake::new(id.into(), "a.example", hosts, policy, gpc)))
    };
    match code {
        "pm-warn" => of("web-warn", &hosts, HostsPolicy::Warn, Gpc::Ignore),
        "pm-bare" => of("web-bare", &[], HostsPolicy::Warn, Gpc::Anonymous),
        "pm-refuse" => of("web-refuse", &hosts, HostsPolicy::Refuse, Gpc::Anonymous),
        "pm-drop" => of("web-drop", &hosts, HostsPolicy::Refuse, Gpc::Drop),
        _ => None,
    }
}

fn arrival(has_gpc: bool) -> Arrival {
    let ids = Some(IdHasher::new(b"0123456789abcdef"));
    Arrival { gpc: has_gpc.then(|| NOBODY.into()), ids, ..Arrival::at(NOW) }
}

fn item(code: &str, url: &str) -> Value {
    let properties = json!({"email": "a@b.example", "event": "signup"});
    event_with(json!({"trackingCode": code, "url": url, "eventId": url, "properties": properties}))
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn parse_items(items: &[Value], has_gpc: bool) -> ParsedBatch {
    let body = json!({ "events": items }).to_string();
    parse_batch(body.into_bytes(), &RULES, &arrival(has_gpc), taking).unwrap()
}

#[test]
fn a_page_of_another_host_is_told_or_refused() {
    let items = [
        item("pm-warn", "https://www.b.example/"),
        item("pm-warn", "https://c.example/"),
        item("pm-refuse", "https://a.example/"),
        item("pm-refuse", "https://c.example/"),
        item("pm-bare", "https://c.example/"),
        item("pm-refuse", "about:blank"),
        item("pm-drop", "https://b.example/"),
        event_with(json!({"trackingCode": "pm-refuse", "url": "https://c.example/", "sessionId": 7})),
    ];
    let batch = parse_items(&items, false);
    let stored: Vec<_> = batch.events.rows().map(|row| row.url).collect();
    let wanted = [0, 1, 2, 4, 6].map(|at: usize| items[at]["url"].as_str().unwrap().as_bytes());
    assert_eq!(stored, wanted);
    assert_eq!((batch.events.gpc(), batch.events.id_hashes().len()), (GpcCounts::default(), 5));
    let told: Vec<_> = batch.warnings.told().iter().map(|told| (told.index, told.field, told.code)).collect();
    assert_eq!(told, [(1, "url", WarningCode::HostNotListed)]);
    let refused: Vec<_> = batch.refused.iter().map(|(index, refusal)| (*index, refusal)).collect();
    for ((index, refusal), (wanted, words)) in refused[..2].iter().zip([(3, "c.example"), (5, "no host")]) {
        let Rejection::OtherHost(faults) = refusal else { panic!("{refusal:?}") };
        assert!(*index == wanted && faults.fields[0].1[0].contains(words), "{index}: {faults:?}");
    }
    assert!(matches!(refused[2], (7, Rejection::Invalid(_))), "{:?}: other faults come first", refused[2]);
    // Alone, and of a beacon, it is the same.
    let alone = |item: &Value| parse_event(item.to_string().into_bytes(), &RULES, &arrival(false), taking);
    assert_eq!(codes(&alone(&items[1]).unwrap().1), [("url", WarningCode::HostNotListed)]);
    assert!(matches!(alone(&items[3]), Err(Rejection::OtherHost(_))));
    let beacon = json!({"code": "pm-refuse", "sid": "s", "vid": "v", "url": "https://c.example/"}).to_string();
    let beacon = parse_named_event(Naming::Beacon, beacon.into_bytes(), &RULES, &arrival(false), taking);
    assert!(matches!(beacon, Err(Rejection::OtherHost(_))));
}

#[test]
fn who_asks_not_to_be_tracked_is_taken_as_the_website_says() {
    let items = [
        item("pm-warn", "https://a.example/1"),
        item("pm-bare", "https://a.example/2"),
        item("pm-drop", "https://a.example/3"),
        item("pm-refuse", "https://c.example/4"),
        event_with(json!({"trackingCode": "pm-refuse", "url": "https://a.example/5", "properties": {"plan": "pro"}})),
        event_with(json!({"trackingCode": "pm-warn", "url": "https://a.example/6", "properties": {"plan": "pro"}})),
    ];
    let batch = parse_items(&items, true);
    assert_eq!(batch.events.gpc(), GpcCounts { ignored: 2, anonymized: 2 });
    let refused: Vec<_> = batch.refused.iter().map(|(index, refusal)| (*index, refusal == &Rejection::Gpc)).collect();
    assert_eq!(refused, [(2, true), (3, false)]);
    let (name, plan) = (r#"{"event":"signup"}"#, r#"{"plan":"pro"}"#);
    let whole = items[0]["properties"].to_string();
    let wanted = [
        ("s", "v", Some(whole.as_str())),
        (NOBODY, NOBODY, Some(name)),
        (NOBODY, NOBODY, None),
        ("s", "v", Some(plan)),
    ];
    let rows: Vec<_> = batch.events.rows().collect();
    assert_eq!(rows.len(), wanted.len());
    for (row, (session, visitor, properties)) in rows.iter().zip(wanted) {
        let found = (text(row.session_id), text(row.visitor_id), row.properties.map(text));
        assert_eq!((found.0, found.1), (session, visitor), "{}", text(row.url));
        let json = |text: Option<&str>| text.map(|text| serde_json::from_str::<Value>(text).unwrap());
        assert_eq!(json(found.2), json(properties), "{}", text(row.url));
    }
    // It is known by what it is called as ever.
    let without = parse_items(&items, false);
    let hash_of = |batch: &ParsedBatch, url: &str| {
        let at = batch.events.rows().position(|row| text(row.url) == url).unwrap();
        batch.events.id_hashes()[at]
    };
    for url in ["https://a.example/1", "https://a.example/2"] {
        assert!(hash_of(&batch, url).is_some() && hash_of(&batch, url) == hash_of(&without, url), "{url}");
    }
    assert_eq!(without.events.gpc(), GpcCounts::default());
}

#[test]
fn one_event_is_taken_as_one_of_many() {
    let alone = |code: &str| {
        let body = item(code, "https://a.example/").to_string().replace("@", r"\u0040");
        parse_event(body.into_bytes(), &RULES, &arrival(true), taking)
    };
    let (events, warnings) = alone("pm-bare").unwrap();
    let row = events.rows().next().unwrap();
    assert_eq!((row.session_id, row.visitor_id), (NOBODY.as_bytes(), NOBODY.as_bytes()));
    assert_eq!((row.properties, row.url), (Some(&br#"{"event":"signup"}"#[..]), &b"https://a.example/"[..]));
    assert_eq!((events.gpc(), warnings), (GpcCounts { ignored: 0, anonymized: 1 }, Warnings::default()));
    assert_eq!(alone("pm-drop").unwrap_err(), Rejection::Gpc);
    assert_eq!(alone("pm-warn").unwrap().0.gpc(), GpcCounts { ignored: 1, anonymized: 0 });
    // An event that is refused for something else counts as nothing of this.
    let invalid = event_with(json!({"trackingCode": "pm-drop", "sessionId": ""})).to_string();
    assert!(matches!(parse_event(invalid.into_bytes(), &RULES, &arrival(true), taking), Err(Rejection::Invalid(_))));
}
