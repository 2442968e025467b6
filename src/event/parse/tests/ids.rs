//! What events are known by when they are sent again.

use super::*;
use crate::event::{IdHash, IdHasher};

fn hasher() -> IdHasher {
    IdHasher::new(b"0123456789abcdef")
}

fn arrival(key: Option<&str>) -> Arrival {
    Arrival { idempotency_key: key.map(Into::into), ids: Some(hasher()), ..Arrival::at(NOW) }
}

fn hashes(items: &[Value], key: Option<&str>) -> Vec<Option<IdHash>> {
    let body = json!({"events": items}).to_string();
    let batch = parse_batch(body.into_bytes(), &RULES, &arrival(key), intake).unwrap();
    let hashes = batch.events.id_hashes();
    assert!(hashes.is_empty() || hashes.len() == batch.events.len());
    hashes.to_vec()
}

fn of_id(id: &str) -> Option<IdHash> {
    Some(hasher().of_id("web-123", id))
}

#[test]
fn an_event_without_a_name_takes_no_memory_for_one() {
    let items = [event_with(json!({})), event_with(json!({"eventId": null})), json!({"eventId": "refused"})];
    assert_eq!(hashes(&items, None), []);
    let (events, _) = parse_event(items[0].to_string().into_bytes(), &RULES, &arrival(None), intake).unwrap();
    assert_eq!(events.id_hashes.capacity(), 0);
    // Nobody asks for names where nothing hashes them.
    let named = event_with(json!({"eventId": "a"})).to_string();
    assert_eq!(parse(named.as_bytes()).unwrap().0.id_hashes(), []);
}

#[test]
fn each_event_has_its_own_name_or_its_key_s() {
    let plain = event_with(json!({}));
    let named = event_with(json!({"eventId": "a"}));
    let (null, refused) = (event_with(json!({"eventId": null})), json!({}));
    let items = [plain, named, refused, null];
    assert_eq!(hashes(&items, None), [None, of_id("a"), None]);
    assert_eq!(hashes(&items, Some("key")), [of_id("key/0"), of_id("a"), of_id("key/3")], "those refused count");
    let (events, _) = parse_event(items[0].to_string().into_bytes(), &RULES, &arrival(Some("key")), intake).unwrap();
    assert_eq!(events.id_hashes(), [of_id("key/0")]);
}

#[test]
fn a_name_is_what_its_text_says() {
    let written = event_with(json!({"eventId": "é/\"🦀"})).to_string();
    let escaped = written.replace("é/", r"\u00e9\/").replace('🦀', r"\ud83e\udd80");
    for body in [format!("\u{feff}{written}"), escaped] {
        let (events, warnings) = parse_event(body.into_bytes(), &RULES, &arrival(None), intake).unwrap();
        assert_eq!((events.id_hashes(), warnings), (&[of_id("é/\"🦀")][..], Warnings::default()));
    }
    let cut = written.replace('🦀', r"\ud83e");
    // Repaired it would be the name of every event whose name was cut there.
    let refusal = parse_event(cut.into_bytes(), &RULES, &arrival(None), intake).unwrap_err();
    assert!(matches!(&refusal, Rejection::Invalid(faults) if format!("{faults:?}").contains("eventId")), "{refusal:?}");
}

#[test]
fn a_name_given_twice_is_refused_whatever_it_says() {
    let event = event_with(json!({"eventId": "a", "os": 1})).to_string();
    for second in [r#""a""#, r#""b""#, "null", "1e999"] {
        let body = event.replacen('{', &format!(r#"{{"eventId":{second},"#), 1);
        let batch = parse_batch(format!(r#"{{"events":[{body}]}}"#).into(), &RULES, &arrival(None), intake).unwrap();
        let Rejection::Invalid(faults) = &batch.refused[0].1 else { panic!("{:?}", batch.refused) };
        let mut fields: Vec<_> = faults.fields.iter().map(|(field, _)| *field).collect();
        fields.sort_unstable();
        assert_eq!(fields, ["eventId", "os"], "{second}");
    }
}
