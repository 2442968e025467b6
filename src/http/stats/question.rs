//! What a question about numbers asks for, from its query string.

use crate::{
    calendar::{Compare, IntervalChoice, Moment, Period, Range, Zone},
    event::Faults,
    http::parameters::{lost_plus, tracking_code_of},
    store::{Dimension, Filter, ListOrder, ListPage, Listed},
};

/// Most filters of a question: each is looked for among all values of every segment.
const FILTERS_MAX: usize = 20;
/// The longest filter, in bytes: four times as long as a value can be.
const FILTER_BYTES_MAX: usize = 4_096;

/// Rows of a list where no number is given, and the most of them.
const LIMIT: usize = 10;
const LIMIT_MAX: u64 = 1_000;
/// Most rows before those that are shown: as many as are told apart.
const OFFSET_MAX: u64 = 200_000;
/// The longest name of a property, in bytes.
const PROPERTY_BYTES_MAX: usize = 256;

/// What kind of answer is asked for, and with it which parameters there are.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind<'a> {
    Totals,
    Series,
    /// The list of what has this name.
    Top(&'a str),
    Live,
    Goals,
}

impl Kind<'_> {
    fn has(self, parameter: &str) -> bool {
        match parameter {
            "period" | "from" | "to" | "timezone" => !matches!(self, Self::Live),
            "compare" => matches!(self, Self::Totals | Self::Series),
            "interval" => matches!(self, Self::Series),
            "limit" | "offset" | "order" => matches!(self, Self::Top(_)),
            "exact" => !matches!(self, Self::Live),
            _ => true,
        }
    }

    fn number(self) -> u8 {
        match self {
            Self::Totals => 0,
            Self::Series => 1,
            Self::Top(_) => 2,
            Self::Live => 3,
            Self::Goals => 4,
        }
    }
}

/// A question about numbers.
#[derive(Debug, Clone)]
pub(super) struct StatsQuery {
    pub(super) tracking_code: String,
    /// The number of its kind.
    pub(super) kind: u8,
    /// If it names one.
    pub(super) zone: Option<Zone>,
    pub(super) when: When,
    pub(super) compare: Compare,
    pub(super) filters: Vec<Filter>,
    pub(super) with_bots: bool,
    pub(super) is_exact: bool,
    pub(super) interval: IntervalChoice,
    /// Which list is asked for, and which of its rows.
    pub(super) listed: Listed,
    pub(super) page: ListPage,
}

/// What time is asked about.
#[derive(Debug, Clone, Copy)]
pub(super) enum When {
    Period(Period),
    Between(Moment, Moment),
}

impl When {
    /// Whether the range depends on when the website's first event happened.
    pub(super) fn needs_first_event(self) -> bool {
        matches!(self, Self::Period(Period::All))
    }

    /// The range, now. `first_event` is when the website's first event happened, which a period may depend on.
    pub(super) fn range(self, zone: &Zone, now_ms: i64, first_event: Option<i64>) -> Result<Range, Faults> {
        match self {
            Self::Period(period) => Ok(Range::of_period(period, zone, now_ms, first_event)),
            Self::Between(from, to) => Range::between(from, to, zone).map_err(|expected| {
                let mut faults = Faults::default();
                faults.add("from", expected);
                faults
            }),
        }
    }
}

/// The parameters that are given at most once, in the order in which faults are told.
const NAMES: [&str; 12] = [
    "trackingCode",
    "period",
    "from",
    "to",
    "timezone",
    "compare",
    "bots",
    "exact",
    "interval",
    "limit",
    "offset",
    "order",
];

impl StatsQuery {
    /// Reads a query string; everything that is wrong with it is told at once.
    pub(super) fn parse(query: &str, kind: Kind<'_>) -> Result<Self, Faults> {
        let mut faults = Faults::default();
        let (values, filters) = read(query, kind, &mut faults);
        let [tracking_code, period, from, to, timezone, compare, bots, exact, interval, limit, offset, order] = values;
        let tracking_code = tracking_code_of(tracking_code, &mut faults);
        let listed = listed(kind, &mut faults);
        let zone = timezone.map(|name| zone_of(&name, &mut faults));
        let when = when(period, from, to, zone.as_ref(), &mut faults);
        let compare = choice("compare", compare, "none, previous, year", Compare::from_name, &mut faults);
        let with_bots = choice("bots", bots, "exclude, include", with_bots, &mut faults);
        let is_exact = choice("exact", exact, "true, false", is_true, &mut faults);
        let interval =
            choice("interval", interval, "auto, hour, day, week, month", IntervalChoice::from_name, &mut faults);
        let limit = bounded("limit", limit, (1, LIMIT_MAX), &mut faults);
        let offset = bounded("offset", offset, (0, OFFSET_MAX), &mut faults);
        let order = choice("order", order, "visitors, visits, pageviews, events", ListOrder::from_name, &mut faults);
        let when = match when {
            Some(when) if faults.is_empty() => when,
            _ => return Err(faults),
        };
        let (order, offset) = (order.unwrap_or(ListOrder::Visitors), offset.unwrap_or(0));
        Ok(Self {
            tracking_code,
            kind: kind.number(),
            zone,
            when,
            compare: compare.unwrap_or(Compare::None),
            filters,
            with_bots: with_bots.unwrap_or(false),
            is_exact: is_exact.unwrap_or(false),
            interval: interval.unwrap_or(IntervalChoice::Auto),
            listed,
            page: ListPage { order, offset, limit: limit.unwrap_or(LIMIT) },
        })
    }
}

/// The values of the parameters, and the filters.
fn read(query: &str, kind: Kind<'_>, faults: &mut Faults) -> ([Option<String>; NAMES.len()], Vec<Filter>) {
    let mut values: [Option<String>; NAMES.len()] = Default::default();
    let mut filters = Vec::new();
    let mut filter_count = 0;
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        if let Some(dimension) = Dimension::from_name(&name) {
            filter_count += 1;
            if value.len() > FILTER_BYTES_MAX {
                faults.add(dimension.as_str(), format!("Expected at most {FILTER_BYTES_MAX} bytes"));
            } else if filters.len() < FILTERS_MAX {
                filters.push(Filter::new(dimension, &value));
            }
        } else if let Some(at) = NAMES.iter().position(|known| *known == name)
            && kind.has(NAMES[at])
            && !value.is_empty()
            && values[at].replace(value.into_owned()).is_some()
        {
            faults.add(NAMES[at], "Given more than once");
        }
    }
    if filter_count > FILTERS_MAX {
        faults.add("filters", format!("Expected at most {FILTERS_MAX} of them, received {filter_count}"));
    }
    (values, filters)
}

/// What a list is to be of.
fn listed(kind: Kind<'_>, faults: &mut Faults) -> Listed {
    let Kind::Top(name) = kind else { return Listed::Dimension(Dimension::Page) };
    let property = name.strip_prefix("property:");
    if let Some(property) = property.filter(|name| (1..=PROPERTY_BYTES_MAX).contains(&name.len())) {
        return Listed::Property(property.into());
    }
    if property.is_some() {
        faults.add("dimension", format!("Expected a property's name of 1 to {PROPERTY_BYTES_MAX} bytes"));
    }
    let dimension = Dimension::from_name(name);
    if dimension.is_none() && property.is_none() {
        let names = Dimension::ALL.map(Dimension::as_str).join(", ");
        faults.add("dimension", format!("Expected one of: {names}, or property: and a property's name"));
    }
    Listed::Dimension(dimension.unwrap_or(Dimension::Page))
}

pub(crate) fn bounded(
    field: &'static str,
    text: Option<String>,
    (min, max): (u64, u64),
    faults: &mut Faults,
) -> Option<usize> {
    let text = text?;
    let value = text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten();
    let value = value.filter(|value| (min..=max).contains(value));
    if value.is_none() {
        faults.add(field, format!("Expected a whole number from {min} to {max}"));
    }
    usize::try_from(value?).ok()
}

fn with_bots(text: &str) -> Option<bool> {
    [("exclude", false), ("include", true)].into_iter().find(|(name, _)| *name == text).map(|(_, value)| value)
}

fn is_true(text: &str) -> Option<bool> {
    text.parse().ok()
}

fn choice<T>(
    field: &'static str,
    text: Option<String>,
    expected: &str,
    of_name: impl FnOnce(&str) -> Option<T>,
    faults: &mut Faults,
) -> Option<T> {
    let text = text?;
    let value = of_name(&text);
    if value.is_none() {
        faults.add(field, format!("Expected one of: {expected}"));
    }
    value
}

fn zone_of(name: &str, faults: &mut Faults) -> Zone {
    Zone::find(name).unwrap_or_else(|| {
        faults.add("timezone", "Unknown time zone; expected an IANA name such as Europe/Berlin");
        Zone::utc()
    })
}

fn when(
    period: Option<String>,
    from: Option<String>,
    to: Option<String>,
    zone: Option<&Zone>,
    faults: &mut Faults,
) -> Option<When> {
    let names = Period::ALL.map(Period::as_str).join(", ");
    let has_period = period.is_some();
    let period = choice("period", period, &names, Period::from_name, faults);
    let mut moment = |field, text: Option<String>| {
        let text = text?;
        let moment = Moment::parse(&text);
        if let Err(expected) = moment {
            faults.add(field, lost_plus(&text).unwrap_or(expected));
        }
        Some(moment.ok())
    };
    let (from, to) = (moment("from", from), moment("to", to));
    match (has_period, from, to) {
        (_, None, None) if has_period => period.map(When::Period),
        (_, None, None) => Some(When::Period(Period::Days7)),
        (true, ..) => {
            faults.add("period", "A range is either a period, or from and to; leave one of the two out");
            None
        }
        (_, None, _) => {
            faults.add("from", "Required with to");
            None
        }
        (_, _, None) => {
            faults.add("to", "Required with from");
            None
        }
        (_, Some(from), Some(to)) => {
            let (from, to) = (from?, to?);
            // Where the website says which zone it is in, that is looked at once it is known.
            let utc = Zone::utc();
            if let Err(expected) = Range::between(from, to, zone.unwrap_or(&utc)) {
                faults.add("from", expected);
            }
            Some(When::Between(from, to))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_told_at_once() {
        for (query, faulty) in [
            ("trackingCode=pm-x", &[][..]),
            ("trackingCode=pm-x&period=12mo&timezone=Europe/Berlin&compare=year&bots=include&exact=true", &[]),
            ("trackingCode=pm-x&from=2026-11-01&to=2026-11-01&interval=week&page=&page=!/a", &[]),
            ("trackingCode=pm-x&period=&interval=nonsense&unknown=1", &[]),
            ("", &["trackingCode"]),
            (
                "period=8d&timezone=../../etc&compare=last&bots=maybe&exact=1",
                &["trackingCode", "timezone", "period", "compare", "bots", "exact"],
            ),
            ("trackingCode=pm-x&period=7d&from=2026-11-01&to=2026-11-02", &["period"]),
            ("trackingCode=pm-x&from=2026-11-01", &["to"]),
            ("trackingCode=pm-x&to=2026-11-01", &["from"]),
            ("trackingCode=pm-x&from=2026-11-02&to=2026-11-01", &["from"]),
            ("trackingCode=pm-x&from=x&to=y", &["from", "to"]),
            ("trackingCode=pm-x&trackingCode=pm-y", &["trackingCode"]),
        ] {
            let found = StatsQuery::parse(query, Kind::Totals).map(drop);
            let fields =
                found.map_or_else(|faults| faults.fields.iter().map(|(field, _)| *field).collect(), |()| vec![]);
            assert_eq!(fields, faulty, "{query}");
        }
        assert!(StatsQuery::parse("trackingCode=pm-x&interval=nonsense", Kind::Series).is_err());
    }

    #[test]
    fn filters_are_bounded() {
        let many = format!("trackingCode=pm-x{}", "&page=/a".repeat(FILTERS_MAX));
        assert_eq!(StatsQuery::parse(&many, Kind::Totals).unwrap().filters.len(), FILTERS_MAX);
        assert!(StatsQuery::parse(&format!("{many}&os=x"), Kind::Totals).is_err());
        let long = |bytes| format!("trackingCode=pm-x&page={}", "a".repeat(bytes));
        assert!(StatsQuery::parse(&long(FILTER_BYTES_MAX), Kind::Totals).is_ok());
        assert!(StatsQuery::parse(&long(FILTER_BYTES_MAX + 1), Kind::Totals).is_err());
    }
}
