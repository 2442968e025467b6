//! Random questions about some events, and how they are asked.

use jiff::{Timestamp, civil::Date};

use super::{
    calendar::{Interval, Range, Zone},
    dice::Dice,
    filed::{self, OF_EVENT, OF_VISIT, PROPERTY},
    filters::escaped,
    lists::ORDERS,
    oracle::{Oracle, QUARTER_MS},
    traffic::PROPERTIES,
};

const ZONES: [&str; 8] = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Asia/Kathmandu",
    "Asia/Tehran",
    "Pacific/Chatham",
    "Australia/Lord_Howe",
    "America/St_Johns",
];
const PERIODS: [&str; 12] =
    ["today", "yesterday", "24h", "7d", "28d", "30d", "91d", "month", "lastmonth", "year", "12mo", "all"];
/// None of the events is a bot's, and there are so few that all are counted one by one.
const IDLE: [Option<(&str, &str)>; 5] =
    [None, None, Some(("bots", "include")), Some(("exact", "true")), Some(("exact", "false"))];
const DAY_MS: i64 = 24 * 60 * 60 * 1_000;
/// A head of a request may have 16 KiB.
const PATH_BYTES_MAX: usize = 12_000;

/// The range that is asked for.
#[derive(Debug, Clone, Copy)]
pub enum Asked {
    Milliseconds(i64, i64),
    Rfc3339(i64, i64),
    /// The second is the last day.
    Dates(Date, Date),
    Period(&'static str),
}

/// What is to be known of the range.
#[derive(Debug, Clone)]
pub enum Kind {
    Totals,
    Series,
    Top(Top),
    Goals,
}

/// Which rows of which list.
#[derive(Debug, Clone)]
pub struct Top {
    /// One of the names, or `property:` and that of a property.
    pub name: String,
    pub order: Option<&'static str>,
    pub limit: Option<usize>,
    pub offset: Option<usize>,
}

#[derive(Debug, Clone)]
pub struct Question {
    pub website: usize,
    pub kind: Kind,
    pub range: Asked,
    pub zone: Option<&'static str>,
    pub interval: Option<&'static str>,
    pub compare: Option<&'static str>,
    pub filters: Vec<(String, String)>,
    /// A parameter that changes nothing here.
    pub idle: Option<(&'static str, &'static str)>,
}

impl Question {
    /// What is asked in a URL.
    pub fn path(&self, code: &str) -> String {
        let route = match &self.kind {
            Kind::Totals => "/api/v1/stats".to_owned(),
            Kind::Series => "/api/v1/stats/series".to_owned(),
            Kind::Goals => "/api/v1/stats/goals".to_owned(),
            // A `+` is one in a path.
            Kind::Top(top) => format!("/api/v1/stats/top/{}", encoded(&top.name).replace('+', "%20")),
        };
        let mut path = format!("{route}?trackingCode={code}");
        let mut add = |name: &str, value: &str| path.push_str(&format!("&{name}={}", encoded(value)));
        match self.range {
            Asked::Milliseconds(from, to) => {
                add("from", &from.to_string());
                add("to", &to.to_string());
            }
            Asked::Rfc3339(from, to) => {
                add("from", &text_of(from));
                add("to", &text_of(to));
            }
            Asked::Dates(first, last) => {
                add("from", &first.to_string());
                add("to", &last.to_string());
            }
            Asked::Period(name) => add("period", name),
        }
        let others = [("timezone", self.zone), ("interval", self.interval), ("compare", self.compare)];
        let others = others.into_iter().filter_map(|(name, value)| Some((name, value?)));
        others.chain(self.idle).for_each(|(name, value)| add(name, value));
        if let Kind::Top(Top { order, limit, offset, .. }) = &self.kind {
            let numbers =
                [("limit", limit), ("offset", offset)].map(|(name, number)| (name, number.map(|n| n.to_string())));
            order.iter().for_each(|order| add("order", order));
            numbers
                .iter()
                .filter_map(|(name, number)| Some((name, number.as_ref()?)))
                .for_each(|(name, number)| add(name, number));
        }
        for (name, value) in &self.filters {
            add(name, value);
        }
        path
    }

    pub fn zone_name(&self) -> &'static str {
        self.zone.unwrap_or("UTC")
    }

    /// The range that is meant; none where only the answer can tell.
    pub fn range(&self, zone: &Zone, now: i64, first_at: Option<i64>) -> Option<Range> {
        match self.range {
            Asked::Milliseconds(from, to) | Asked::Rfc3339(from, to) => Some((from, to)),
            Asked::Dates(first, last) => Some(zone.days(first, last)),
            Asked::Period(name) => zone.period(name, now, first_at),
        }
    }

    /// What a series of this range is cut into; none where docs/numbers.md does not say.
    pub fn interval(&self, (from, to): Range) -> Option<Interval> {
        Some(match self.interval {
            Some("hour") => Interval::Hour,
            Some("day") => Interval::Day,
            Some("week") => Interval::Week,
            Some("month") => Interval::Month,
            _ if to - from < DAY_MS * 19 / 10 => Interval::Hour,
            _ if to - from > 3 * DAY_MS && to - from < 90 * DAY_MS => Interval::Day,
            _ if to - from > 95 * DAY_MS => Interval::Month,
            _ => return None,
        })
    }
}

pub fn text_of(at: i64) -> String {
    format!("{:.3}", Timestamp::from_millisecond(at).unwrap())
}

/// Whatever is no letter or digit as %XX, and some of the spaces as `+`.
pub fn encoded(text: &str) -> String {
    let mut out = String::new();
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => out.push(byte.into()),
            b' ' if at % 2 == 0 => out.push('+'),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// A question whose answer has something to count, as a rule.
pub fn question(dice: &mut Dice, oracle: &Oracle, now: i64) -> Question {
    loop {
        let website = dice.below(oracle.websites.len());
        let zone = (!dice.once_in(4)).then(|| *dice.pick(&ZONES));
        let range = asked(dice, oracle, zone.unwrap_or("UTC"), now);
        let kind = match dice.below(7) {
            0 | 1 => Kind::Totals,
            2 => Kind::Series,
            3 => Kind::Goals,
            _ => Kind::Top(top(dice)),
        };
        let interval = if matches!(kind, Kind::Series) { interval(dice, range) } else { None };
        let compares = [None, None, Some("none"), Some("previous"), Some("year")];
        let question = Question {
            website,
            range,
            zone,
            interval,
            compare: if matches!(kind, Kind::Top(_) | Kind::Goals) { None } else { *dice.pick(&compares) },
            filters: filters(dice, oracle, website),
            idle: *dice.pick(&IDLE),
            kind,
        };
        if question.path("").len() <= PATH_BYTES_MAX {
            return question;
        }
    }
}

fn asked(dice: &mut Dice, oracle: &Oracle, zone: &str, now: i64) -> Asked {
    let some_time = |dice: &mut Dice| {
        let times = oracle.events.iter().map(|event| event.created_at).filter(|&at| at <= now);
        times.clone().nth(dice.below(times.count().max(1))).unwrap_or(now - DAY_MS)
    };
    let (one, other) = (some_time(dice), some_time(dice));
    let (mut from, mut to) = (one.min(other), one.max(other) + 1);
    match dice.below(8) {
        0 => return Asked::Period(PERIODS[dice.below(PERIODS.len())]),
        1 | 2 => {
            let zone = Zone::named(zone);
            return Asked::Dates(zone.date(from), zone.date(to - 1));
        }
        3 => to = from + dice.between(1, 3 * 60 * 60 * 1_000),
        4 | 5 => {
            from -= from.rem_euclid(QUARTER_MS);
            to += QUARTER_MS - to.rem_euclid(QUARTER_MS);
        }
        6 => {
            from += dice.between(-1, 1);
            to = to.max(from + 1) - 1 + dice.between(0, 2);
        }
        _ => {}
    }
    to = to.max(from + 1);
    if dice.once_in(3) { Asked::Rfc3339(from, to) } else { Asked::Milliseconds(from, to) }
}

/// An interval of which there are not too many in the range.
fn interval(dice: &mut Dice, range: Asked) -> Option<&'static str> {
    let days = match range {
        Asked::Milliseconds(from, to) | Asked::Rfc3339(from, to) => (to - from) / DAY_MS,
        Asked::Dates(first, last) => first.until(last).unwrap().get_days().into(),
        Asked::Period("91d" | "year" | "12mo" | "all") => 1_000,
        Asked::Period(_) => 31,
    };
    match days {
        0..40 => {
            *dice.pick(&[None, Some("auto"), Some("hour"), Some("hour"), Some("day"), Some("week"), Some("month")])
        }
        40..1_900 => *dice.pick(&[Some("day"), Some("week"), Some("month"), None]),
        _ => Some("month"),
    }
}

/// Some rows of the list of any name, or of a property.
fn top(dice: &mut Dice) -> Top {
    let name = match dice.below(4) {
        0 => format!("{PROPERTY}{}", dice.pick(&PROPERTIES)),
        1 => (*dice.pick(&OF_EVENT)).to_owned(),
        _ => (*dice.pick(&OF_VISIT)).to_owned(),
    };
    let order = if dice.once_in(2) { None } else { Some(*dice.pick(&ORDERS)) };
    let limits = [None, None, Some(1), Some(3), Some(1_000), Some(1_000)];
    let offsets = [None, None, None, Some(0), Some(1), Some(5), Some(200_000)];
    Top { name, order, limit: *dice.pick(&limits), offset: *dice.pick(&offsets) }
}

pub fn filters(dice: &mut Dice, oracle: &Oracle, website: usize) -> Vec<(String, String)> {
    let mut filters = Vec::new();
    let names = *dice.pick(&[0, 0, 1, 1, 1, 2, 3]);
    for _ in 0..names {
        let name = match dice.once_in(2) {
            true => *dice.pick(&OF_EVENT),
            false => *dice.pick(&OF_VISIT),
        };
        let times = *dice.pick(&[1, 1, 1, 2, 3]);
        for _ in 0..times {
            filters.push((name.to_owned(), filter(dice, oracle, website, name)));
        }
    }
    dice.shuffle(&mut filters);
    filters
}

/// What a filter of this name says: a value that there is, as it is, in part, or not.
fn filter(dice: &mut Dice, oracle: &Oracle, website: usize, name: &str) -> String {
    let site = &oracle.websites[website];
    // Some event that has one, if that is soon found.
    let mut some_events = (0..10).map(|_| &oracle.events[dice.below(oracle.events.len())]);
    let value = some_events.find_map(|event| filed::of_alone(site, event, name)).unwrap_or_default();
    let letters: Vec<char> = value.chars().collect();
    let part = |from: usize, to: usize| escaped(&letters[from..to].iter().collect::<String>());
    let cut = dice.below(letters.len() + 1);
    let cuts = (cut, cut + dice.below(letters.len() - cut + 1));
    let text = match dice.below(10) {
        0 => part(0, cut) + "*",
        1 => format!("*{}", part(cut, letters.len())),
        2 => format!("{}*{}", part(0, cuts.0), part(cuts.1, letters.len())),
        3 => format!("*{}*", part(cuts.0, cuts.1)),
        4 => (*dice.pick(&["", "*", "**", "nothing at all", "\\*", "\\!"])).to_owned(),
        _ => part(0, letters.len()),
    };
    if dice.once_in(3) { format!("!{text}") } else { text }
}
