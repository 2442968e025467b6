//! What a question about numbers asks for, from its query string.

use crate::{
    calendar::{Compare, IntervalChoice, Moment, Period, Range, Zone},
    event::Faults,
    http::parameters::{lost_plus, tracking_code_of},
    store::{Dimension, Filter},
};

/// Most filters of a question: each is looked for among all values of every segment.
const FILTERS_MAX: usize = 20;
/// The longest filter, in bytes: four times as long as a value can be.
const FILTER_BYTES_MAX: usize = 4_096;

/// A question about numbers.
#[derive(Debug, Clone)]
pub(super) struct StatsQuery {
    pub(super) tracking_code: String,
    pub(super) zone: Zone,
    pub(super) when: When,
    pub(super) compare: Compare,
    pub(super) filters: Vec<Filter>,
    pub(super) with_bots: bool,
    pub(super) is_exact: bool,
    pub(super) interval: IntervalChoice,
}

/// What time is asked about.
#[derive(Debug, Clone, Copy)]
pub(super) enum When {
    Period(Period),
    Between(Range),
}

impl When {
    /// Whether the range depends on when the website's first event happened.
    pub(super) fn needs_first_event(self) -> bool {
        matches!(self, Self::Period(Period::All))
    }

    /// The range, now. `first_event` is when the website's first event happened, which a period may depend on.
    pub(super) fn range(self, zone: &Zone, now_ms: i64, first_event: Option<i64>) -> Range {
        match self {
            Self::Period(period) => Range::of_period(period, zone, now_ms, first_event),
            Self::Between(range) => range,
        }
    }
}

/// The parameters that are given at most once, in the order in which faults are told.
const NAMES: [&str; 9] = ["trackingCode", "period", "from", "to", "timezone", "compare", "bots", "exact", "interval"];

impl StatsQuery {
    /// Reads a query string; everything that is wrong with it is told at once. `has_interval` says whether the route
    /// makes series.
    pub(super) fn parse(query: &str, has_interval: bool) -> Result<Self, Faults> {
        let mut faults = Faults::default();
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
                && !value.is_empty()
                && values[at].replace(value.into_owned()).is_some()
            {
                faults.add(NAMES[at], "Given more than once");
            }
        }
        if filter_count > FILTERS_MAX {
            faults.add("filters", format!("Expected at most {FILTERS_MAX} of them, received {filter_count}"));
        }
        let [tracking_code, period, from, to, timezone, compare, bots, exact, interval] = values;
        let tracking_code = tracking_code_of(tracking_code, &mut faults);
        let zone = zone_of(timezone, &mut faults);
        let when = when(period, from, to, &zone, &mut faults);
        let compare = choice("compare", compare, "none, previous, year", Compare::from_name, &mut faults);
        let with_bots = choice("bots", bots, "exclude, include", with_bots, &mut faults);
        let is_exact = choice("exact", exact, "true, false", is_true, &mut faults);
        let interval = interval.filter(|_| has_interval);
        let interval =
            choice("interval", interval, "auto, hour, day, week, month", IntervalChoice::from_name, &mut faults);
        let when = match when {
            Some(when) if faults.is_empty() => when,
            _ => return Err(faults),
        };
        Ok(Self {
            tracking_code,
            zone,
            when,
            compare: compare.unwrap_or(Compare::None),
            filters,
            with_bots: with_bots.unwrap_or(false),
            is_exact: is_exact.unwrap_or(false),
            interval: interval.unwrap_or(IntervalChoice::Auto),
        })
    }
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

fn zone_of(name: Option<String>, faults: &mut Faults) -> Zone {
    let Some(name) = name else { return Zone::utc() };
    Zone::find(&name).unwrap_or_else(|| {
        faults.add("timezone", "Unknown time zone; expected an IANA name such as Europe/Berlin");
        Zone::utc()
    })
}

fn when(
    period: Option<String>,
    from: Option<String>,
    to: Option<String>,
    zone: &Zone,
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
        (_, Some(from), Some(to)) => match Range::between(from?, to?, zone) {
            Ok(range) => Some(When::Between(range)),
            Err(expected) => {
                faults.add("from", expected);
                None
            }
        },
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
            let found = StatsQuery::parse(query, false).map(drop);
            let fields =
                found.map_or_else(|faults| faults.fields.iter().map(|(field, _)| *field).collect(), |()| vec![]);
            assert_eq!(fields, faulty, "{query}");
        }
        assert!(StatsQuery::parse("trackingCode=pm-x&interval=nonsense", true).is_err());
    }

    #[test]
    fn filters_are_bounded() {
        let many = format!("trackingCode=pm-x{}", "&page=/a".repeat(FILTERS_MAX));
        assert_eq!(StatsQuery::parse(&many, false).unwrap().filters.len(), FILTERS_MAX);
        assert!(StatsQuery::parse(&format!("{many}&os=x"), false).is_err());
        let long = |bytes| format!("trackingCode=pm-x&page={}", "a".repeat(bytes));
        assert!(StatsQuery::parse(&long(FILTER_BYTES_MAX), false).is_ok());
        assert!(StatsQuery::parse(&long(FILTER_BYTES_MAX + 1), false).is_err());
    }
}
