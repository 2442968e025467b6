//! What is odd and stored all the same.

use super::*;

#[test]
fn timestamps_are_stored_as_said_and_told_when_odd() {
    use WarningCode::{TimestampAhead, TimestampBefore2000, TimestampLooksLikeSeconds};
    const YEAR_2000_S: i64 = 946_684_800;
    let ahead_max = NOW + 86_400_000;
    for (sent, stored, odd) in [
        (json!(null), NOW, None),
        (json!(NOW), NOW, None),
        (json!(ahead_max), ahead_max, None),
        (json!(ahead_max + 1), NOW, Some(TimestampAhead)),
        (json!(TIMESTAMP_MAX_MS), NOW, Some(TimestampAhead)),
        (json!(1_769_630_400), 1_769_630_400, Some(TimestampLooksLikeSeconds)),
        (json!(1_769_630_400.75), 1_769_630_400, Some(TimestampLooksLikeSeconds)),
        (json!(YEAR_2000_S), YEAR_2000_S, Some(TimestampLooksLikeSeconds)),
        (json!(YEAR_2000_S - 1), YEAR_2000_S - 1, Some(TimestampBefore2000)),
        (json!(ahead_max / 1_000), ahead_max / 1_000, Some(TimestampLooksLikeSeconds)),
        (json!(ahead_max / 1_000 + 1), ahead_max / 1_000 + 1, Some(TimestampBefore2000)),
        (json!(0), 0, Some(TimestampBefore2000)),
        (json!(YEAR_2000_S * 1_000 - 1), YEAR_2000_S * 1_000 - 1, Some(TimestampBefore2000)),
        (json!(YEAR_2000_S * 1_000), YEAR_2000_S * 1_000, None),
    ] {
        let (events, warnings) = parse(event_with(json!({"timestamp": sent})).to_string().as_bytes()).unwrap();
        let told: Vec<_> = odd.into_iter().map(|code| ("timestamp", code)).collect();
        assert_eq!((events.rows().next().unwrap().created_at, codes(&warnings)), (stored, told), "{sent}");
    }
}

#[test]
fn seconds_that_have_expired_are_told_to_be_seconds() {
    let rules = Rules { timestamp_age_max_ms: 86_400_000, ..RULES };
    for (timestamp, is_seconds) in [(NOW / 1_000, true), (NOW - 86_400_001, false)] {
        let body = event_with(json!({"timestamp": timestamp})).to_string().into_bytes();
        let refusal = parse_event(body, &rules, &Arrival::at(NOW), intake).unwrap_err();
        assert_eq!(format!("{refusal:?}").contains("looks like seconds"), is_seconds, "{refusal:?}");
    }
}

#[test]
fn a_referrer_never_costs_the_event() {
    let at_limit = format!("https://example.com/{}", "a".repeat(4_096 - 20));
    for (sent, is_kept) in [
        (json!("https://example.com/"), true),
        (json!("android-app:com.example"), true),
        (json!(at_limit), true),
        (json!(format!("{at_limit}a")), false),
        (json!("null"), false),
        (json!("undefined"), false),
        (json!("google.com"), false),
        (json!("(direct)"), false),
        (json!(" "), false),
        (json!("localhost:3000/"), false),
        (json!("https://example.com/\n"), false),
        (json!("javascript:alert(1)"), false),
        (json!("data:text/html,x"), false),
        (json!(1), false),
        (json!(true), false),
        (json!(["https://example.com/"]), false),
        (json!({"url": "https://example.com/"}), false),
    ] {
        let (events, warnings) = parse(event_with(json!({"referrer": sent})).to_string().as_bytes()).unwrap();
        let told = if is_kept { vec![] } else { vec![("referrer", WarningCode::ReferrerDropped)] };
        assert_eq!(codes(&warnings), told, "{sent}");
        let kept = events.rows().next().unwrap().referrer.map(<[u8]>::to_vec);
        assert_eq!(kept, sent.as_str().filter(|_| is_kept).map(|text| text.as_bytes().to_vec()), "{sent}");
    }
    for nothing in [json!(""), json!(null)] {
        let (_, warnings) = parse(event_with(json!({"referrer": nothing})).to_string().as_bytes()).unwrap();
        assert_eq!(warnings, Warnings::default());
    }
}

/// An event with one member more, as its raw text; wherever it stands among the others.
fn events_with_member(member: &str) -> [String; 2] {
    let event = event_with(json!({"referrer": "https://r.example/"})).to_string();
    let last = format!("{},{member}}}", event.strip_suffix('}').unwrap());
    [event.replacen('{', &format!("{{{member},"), 1), last]
}

#[test]
fn half_surrogate_pairs_are_stored_as_the_replacement_and_told() {
    for (member, field, kept) in [
        (r#""os":"a\ud83d""#, Some("os"), None),
        (r#""os":"\ude00b\n""#, None, None),
        (r#""os":"\ud83d\ude00""#, None, None),
        (r#""os":"\\ud83d""#, None, None),
        (r#""\u006fs":"\ud83d""#, Some("os"), None),
        (r#""location":"\ud83d\ud83d x""#, Some("location"), None),
        (r#""unknown":"\ud83d""#, None, None),
        (r#""un\ud83dknown":{"a":["\ud83d"]}"#, None, None),
        (r#""properties":{"a":"\ud83d\u0041"}"#, Some("properties"), Some("{\"a\":\"\u{fffd}A\"}")),
        (r#""properties":{"\udc00":[{"b":1}]}"#, Some("properties"), Some("{\"\u{fffd}\":[{\"b\":1}]}")),
        (
            r#""properties":{"a":[1,["x","\uD800"]],"c":2}"#,
            Some("properties"),
            Some("{\"a\":[1,[\"x\",\"\u{fffd}\"]],\"c\":2}"),
        ),
        (r#""properties":{"a":1},"x":"\ud800""#, None, Some("{\"a\":1}")),
    ] {
        for body in events_with_member(member) {
            if member.contains("\\n") {
                assert_eq!(field_faults(parse(body.as_bytes())), ["os"], "{body}");
                continue;
            }
            let (events, warnings) = parse(body.as_bytes()).unwrap();
            let told: Vec<_> = field.into_iter().map(|field| (field, WarningCode::TextRepaired)).collect();
            assert_eq!(codes(&warnings), told, "{body}");
            let row = events.rows().next().unwrap();
            assert_eq!(row.properties, kept.map(str::as_bytes), "{body}");
            let text = [row.os, row.location].into_iter().flatten().next().unwrap_or_default();
            assert_eq!(text.windows(3).any(|bytes| bytes == "\u{fffd}".as_bytes()), field.is_some() && kept.is_none());
        }
    }
}

#[test]
fn a_repaired_url_is_kept_and_a_dropped_referrer_is_told_once() {
    let body = event_with(json!({"url": "https://a.b/X", "referrer": "X", "sessionId": "X"})).to_string();
    let (_, warnings) = parse(body.replace('X', "\\ud800").as_bytes()).unwrap();
    let repaired = WarningCode::TextRepaired;
    let told = [("url", repaired), ("sessionId", repaired), ("referrer", WarningCode::ReferrerDropped)];
    assert_eq!(codes(&warnings), told);
}

#[test]
fn a_batch_tells_by_index_as_much_as_it_may_and_counts_all() {
    let odd = event_with(json!({"timestamp": 5, "referrer": "x"}));
    let refused = event_with(json!({"timestamp": 5, "referrer": "x", "url": 1}));
    let body = json!({"events": [event_with(json!({})), odd, refused, odd]}).to_string();
    let rules = Rules { warnings_told_max: 3, ..RULES };
    let batch = parse_batch(body.into_bytes(), &rules, &Arrival::at(NOW), intake).unwrap();
    let told: Vec<_> = batch.warnings.told().iter().map(|warning| (warning.index, warning.field)).collect();
    assert_eq!(told, [(1, "referrer"), (1, "timestamp"), (3, "referrer")]);
    let counts: Vec<_> = batch.warnings.counts().collect();
    assert_eq!(counts, [(WarningCode::TimestampBefore2000, 2), (WarningCode::ReferrerDropped, 2)]);
    assert_eq!(batch.warnings.untold(), 1);
}
