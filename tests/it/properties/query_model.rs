//! What the query string of a listing means, written a second time.

use std::collections::BTreeSet;

use super::listing::Filter;

/// A rule that a control can take away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    Plus,
    Percent,
    Twice,
    CodeRequired,
    CodeKnown,
    EventType,
    Empty,
    IdBytes,
    LimitZero,
    LimitMax,
    Digits,
    Range,
    Order,
    CursorOrOffset,
    CursorChecked,
    TimeOffset,
    TimeCeiling,
    TimeDate,
}

/// What is asked for, or why it is refused.
#[derive(Debug, PartialEq)]
pub enum Wanted {
    Page { filter: Filter, passed: u64, limit: u64 },
    Invalid(BTreeSet<&'static str>),
    NotFound,
}

pub struct QueryModel<'a> {
    pub codes: &'a [String],
    pub off: Option<Rule>,
}

const NAMES: [&str; 9] =
    ["trackingCode", "eventType", "sessionId", "visitorId", "from", "to", "limit", "offset", "cursor"];

impl QueryModel<'_> {
    fn holds(&self, rule: Rule) -> bool {
        self.off != Some(rule)
    }

    pub fn wanted(&self, query: &[u8]) -> Wanted {
        let mut faults = BTreeSet::new();
        let pairs: Vec<(String, String)> =
            query.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()).map(|pair| self.pair(pair)).collect();
        let is_given = |value: &str| !value.is_empty() || !self.holds(Rule::Empty);
        let [code, event_type, session, visitor, from, to, limit, offset, cursor] = NAMES.map(|name| {
            let mut values =
                pairs.iter().filter(|(key, value)| key == name && is_given(value)).map(|(_, value)| value.as_str());
            if values.clone().count() > 1 && self.holds(Rule::Twice) {
                faults.insert(name);
            }
            values.next_back()
        });
        let mut require = |is_valid: bool, name: &'static str| {
            if !is_valid {
                faults.insert(name);
            }
        };
        require(code.is_some_and(|code| !code.is_empty()) || !self.holds(Rule::CodeRequired), "trackingCode");
        let types = ["pageview", "click", "custom"];
        require(event_type.is_none_or(|name| types.contains(&name)) || !self.holds(Rule::EventType), "eventType");
        for (id, name) in [(session, "sessionId"), (visitor, "visitorId")] {
            require(id.is_none_or(|id| id.len() <= 128 || !self.holds(Rule::IdBytes)), name);
        }
        let (from_time, to_time) = (from.map(|text| self.time(text)), to.map(|text| self.time(text)));
        require(from_time != Some(None), "from");
        require(to_time != Some(None), "to");
        let (from, to) = (from_time.flatten(), to_time.flatten());
        require(from.zip(to).is_none_or(|(from, to)| from <= to) || !self.holds(Rule::Order), "to");
        let limit = limit
            .map_or(Some(100), |text| self.number(text))
            .filter(|limit| *limit > 0 || !self.holds(Rule::LimitZero));
        require(limit.is_some(), "limit");
        let passed = offset.map_or(Some(0), |text| self.number(text));
        require(passed.is_some(), "offset");
        require(cursor.is_none() || offset.is_none() || !self.holds(Rule::CursorOrOffset), "offset");
        if !faults.is_empty() {
            return Wanted::Invalid(faults);
        }
        let website = self.codes.iter().position(|known| Some(known.as_str()) == code);
        let website = match website {
            None if self.holds(Rule::CodeKnown) => return Wanted::NotFound,
            website => website.unwrap_or(0),
        };
        // No cursor here is one that hitlog has given.
        if cursor.is_some() && self.holds(Rule::CursorChecked) {
            return Wanted::Invalid(BTreeSet::from(["cursor"]));
        }
        let owned = |text: Option<&str>| text.map(str::to_owned);
        let filter = Filter {
            website,
            event_type: owned(event_type),
            session: owned(session),
            visitor: owned(visitor),
            from,
            to,
        };
        let limit = limit.unwrap_or(100).min(if self.holds(Rule::LimitMax) { 1_000 } else { u64::MAX });
        Wanted::Page { filter, passed: passed.unwrap_or(0), limit }
    }

    fn pair(&self, pair: &[u8]) -> (String, String) {
        let equals = pair.iter().position(|byte| *byte == b'=');
        let (name, value) = equals.map_or((pair, &b""[..]), |at| (&pair[..at], &pair[at + 1..]));
        (self.decoded(name), self.decoded(value))
    }

    fn decoded(&self, text: &[u8]) -> String {
        let mut bytes = Vec::new();
        let mut rest = text;
        while let [first, tail @ ..] = rest {
            rest = tail;
            let digit = |at: usize| tail.get(at).and_then(|byte| char::from(*byte).to_digit(16));
            match (first, digit(0), digit(1)) {
                (b'%', Some(high), Some(low)) if self.holds(Rule::Percent) => {
                    bytes.push((high * 16 + low) as u8);
                    rest = &tail[2..];
                }
                (b'+', _, _) if self.holds(Rule::Plus) => bytes.push(b' '),
                _ => bytes.push(*first),
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn number(&self, text: &str) -> Option<u64> {
        let digits = if self.holds(Rule::Digits) { text } else { text.trim_start_matches('+').trim() };
        let significant = digits.trim_start_matches('0');
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) || significant.len() > 19 {
            return None;
        }
        let number = if significant.is_empty() { 0 } else { significant.parse().ok()? };
        (number <= i64::MAX.cast_unsigned() || !self.holds(Rule::Range)).then_some(number)
    }

    /// Milliseconds since 1970: digits, or RFC 3339, where the rest of a millisecond counts as one. A fraction has nine
    /// digits at most, and a leap second is taken for the one before it.
    fn time(&self, text: &str) -> Option<i64> {
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            return text.parse().ok();
        }
        let bytes = text.as_bytes();
        let digits = |at: usize, count: usize| -> Option<i64> {
            let digits = bytes.get(at..at + count)?;
            digits.iter().all(u8::is_ascii_digit).then(|| std::str::from_utf8(digits).unwrap().parse().unwrap())
        };
        let is = |at: usize, letters: &[u8]| bytes.get(at).is_some_and(|byte| letters.contains(byte));
        let (year, month, day) = (digits(0, 4)?, digits(5, 2)?, digits(8, 2)?);
        let (hour, minute, second) = (digits(11, 2)?, digits(14, 2)?, digits(17, 2)?);
        let is_formed = is(4, b"-") && is(7, b"-") && is(10, b"Tt") && is(13, b":") && is(16, b":");
        let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let days = match month {
            2 if self.holds(Rule::TimeDate) => 28 + i64::from(is_leap),
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        let is_time =
            (1..=12).contains(&month) && (1..=days).contains(&day) && hour < 24 && minute < 60 && second <= 60;
        if !is_formed || !is_time {
            return None;
        }
        let rest = &text[19..];
        let fraction_end = if let Some(digits) = rest.strip_prefix('.') {
            digits.find(|letter: char| !letter.is_ascii_digit()).filter(|count| *count > 0)? + 1
        } else {
            0
        };
        let (fraction, zone) = rest.split_at(fraction_end);
        if fraction.len() > 1 + 9 {
            return None;
        }
        let fraction = format!("{:0<4}", fraction.trim_start_matches('.'));
        let up = fraction[3..].bytes().any(|digit| digit != b'0') && self.holds(Rule::TimeCeiling);
        let milliseconds: i64 = fraction[..3].parse::<i64>().unwrap() + i64::from(up);
        let minutes = if zone == "Z" || zone == "z" { 0 } else { offset_minutes(zone)? };
        let minutes = if self.holds(Rule::TimeOffset) { minutes } else { 0 };
        // Days since 1970, from March on, so that the leap day is the last of its year.
        let (years, months) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
        let leap_days = years.div_euclid(4) - years.div_euclid(100) + years.div_euclid(400);
        let days = years * 365 + leap_days + (months * 153 + 2) / 5 + day - 1 - 719_468;
        Some((((days * 24 + hour) * 60 + minute - minutes) * 60 + second.min(59)) * 1_000 + milliseconds)
    }
}

/// `+hh:mm` or `-hh:mm`
fn offset_minutes(zone: &str) -> Option<i64> {
    let (sign, rest) = if let Some(rest) = zone.strip_prefix('+') { (1, rest) } else { (-1, zone.strip_prefix('-')?) };
    let (hours, minutes) = rest.split_once(':')?;
    let number = |text: &str, max: i64| -> Option<i64> {
        let is_two_digits = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        is_two_digits.then(|| text.parse().unwrap()).filter(|number| *number <= max)
    };
    Some(sign * (number(hours, 23)? * 60 + number(minutes, 59)?))
}
