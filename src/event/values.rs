//! The values that the members of an event take, one check for each kind.

use std::borrow::Cow;

use simd_json::{Node, StaticNode};

use super::{naming::Naming, rules::Rules, tape::kind_of, time::parse_time, warning::WarningCode, web_url};

/// What is wrong with a value, in words for its sender.
pub(super) type Fault = Cow<'static, str>;

/// `9999-12-31T23:59:59.999Z`, the last moment that RFC 3339 can write.
pub(super) const TIMESTAMP_MAX_MS: i64 = 253_402_300_799_999;
/// `2000-01-01T00:00:00Z`: nobody measured clicks before.
const YEAR_2000_MS: i64 = 946_684_800_000;

/// `pm-` followed by letters, digits and `-`, 4 to 64 characters in all.
pub fn is_tracking_code(text: &str) -> bool {
    text.strip_prefix("pm-").is_some_and(|rest| {
        (1..=61).contains(&rest.len()) && rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    })
}

pub(super) fn check_controls(text: &str) -> Result<(), Fault> {
    // The compiler vectorises a loop that never ends early.
    if text.bytes().fold(false, |found, byte| found | (byte < 0x20) | (byte == 0x7f)) {
        return Err("Control characters are not taken".into());
    }
    Ok(())
}

pub(super) fn check_url(text: &str, rules: &Rules) -> Result<(), Fault> {
    if text.len() > rules.url_bytes_max {
        return Err(format!("At most {} bytes, received {}", rules.url_bytes_max, text.len()).into());
    }
    web_url::fault(text, rules.any_bare_scheme).map_or(Ok(()), Err)
}

pub(super) fn check_id(text: &str, rules: &Rules) -> Result<(), Fault> {
    match text.len() {
        0 => Err("Must not be empty".into()),
        len if len > rules.id_bytes_max => Err(format!("At most {} bytes, received {len}", rules.id_bytes_max).into()),
        _ => Ok(()),
    }
}

pub(super) fn check_label(text: &str, rules: &Rules) -> Result<(), Fault> {
    // A text has at most as many characters as bytes, so the count is needed for long ones only.
    if text.len() > rules.text_chars_max && text.chars().count() > rules.text_chars_max {
        return Err(format!("At most {} characters", rules.text_chars_max).into());
    }
    Ok(())
}

/// What is wrong with an event that is no object.
pub(super) fn expected_object(kind: &str) -> Fault {
    format!("Expected an object, received {kind}").into()
}

pub(super) fn expected(what: &str, node: Node<'_>) -> Fault {
    format!("Expected {what}, received {}", kind_of(node)).into()
}

/// Reads a timestamp: when the event happened, and what is odd about that.
pub(super) fn read_timestamp(
    naming: Naming,
    node: Node<'_>,
    received_at: i64,
    rules: &Rules,
) -> Result<(i64, Option<WarningCode>), Fault> {
    let milliseconds = match node {
        Node::Static(StaticNode::Null) => return Ok((received_at, None)),
        Node::Static(StaticNode::I64(number)) => Some(number),
        Node::Static(StaticNode::U64(number)) => i64::try_from(number).ok(),
        // A cast from a double saturates; what saturates is out of range anyway. -0.5 is not "from 0".
        Node::Static(StaticNode::F64(number)) => (number >= 0.0).then_some(number as i64),
        Node::String(text) if naming.takes_times_as_text() => {
            Some(parse_time(text).ok_or("Expected RFC 3339 such as 2026-01-28T20:00:00Z, or milliseconds since 1970")?)
        }
        other if naming.takes_times_as_text() => {
            return Err(expected("a number of milliseconds since 1970, or RFC 3339", other));
        }
        other => return Err(expected("a number of milliseconds since 1970", other)),
    };
    let Some(timestamp) = milliseconds.filter(|at| (0..=TIMESTAMP_MAX_MS).contains(at)) else {
        return Err("Expected milliseconds since 1970, from 0 to the end of the year 9999".into());
    };
    let ahead_max = received_at.saturating_add(rules.timestamp_ahead_max_ms);
    let looks_like_seconds = timestamp < YEAR_2000_MS && (YEAR_2000_MS..=ahead_max).contains(&(timestamp * 1_000));
    if received_at - timestamp > rules.timestamp_age_max_ms {
        let days = rules.timestamp_age_max_ms as f64 / (24.0 * 60.0 * 60.0 * 1_000.0);
        let hint = if looks_like_seconds { "; it looks like seconds, and milliseconds are expected" } else { "" };
        return Err(format!("Older than events are kept here, which is {days} days{hint}").into());
    }
    Ok(match timestamp {
        _ if timestamp > ahead_max => (received_at, Some(WarningCode::TimestampAhead)),
        _ if looks_like_seconds => (timestamp, Some(WarningCode::TimestampLooksLikeSeconds)),
        ..YEAR_2000_MS => (timestamp, Some(WarningCode::TimestampBefore2000)),
        _ => (timestamp, None),
    })
}
