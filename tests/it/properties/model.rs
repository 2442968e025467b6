//! The contract's table "One event" and its rules of a batch, written a second time.

use std::collections::BTreeSet;

use hitlog::event::Rules;

use super::json::{self, Json, Reading};

const NAMES: [&str; 12] = [
    "trackingCode",
    "eventType",
    "url",
    "referrer",
    "sessionId",
    "visitorId",
    "deviceType",
    "browser",
    "os",
    "location",
    "timestamp",
    "properties",
];
const REQUIRED: [&str; 5] = ["trackingCode", "eventType", "url", "sessionId", "visitorId"];
/// The last millisecond of the year 9999.
const TIMESTAMP_MAX: i128 = 253_402_300_799_999;

/// A rule that a control can take away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    Read(Reading),
    Object,
    Twice,
    Required,
    Code,
    CodeLength,
    EventType,
    DeviceType,
    Control,
    UrlBytes,
    UrlAbsolute,
    UrlScheme,
    EmptyReferrer,
    IdEmpty,
    IdBytes,
    LabelChars,
    TimeNumber,
    TimeFrom,
    TimeTo,
    TimeAhead,
    TimeAge,
    PropertiesObject,
    PropertiesBytes,
    PropertiesDepth,
    UnknownCodeFirst,
    EventsTwice,
    EventsMax,
    EventsEmpty,
}

/// An event as it is stored.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stored {
    pub website: String,
    /// By the names of the contract; absent ones are absent.
    pub texts: Vec<(&'static str, String)>,
    pub properties: Option<Json>,
    pub properties_bytes: usize,
    pub created_at: i64,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Refusal {
    Malformed,
    /// Whether the form is at fault, and which fields.
    Invalid(bool, BTreeSet<String>),
    Unknown,
}

/// Stored and refused items in their order, and how many clocks were corrected; or why the whole is refused.
pub type Verdict = Result<(Vec<Stored>, Vec<(usize, Refusal)>, u64), Refusal>;

pub struct Model<'a> {
    pub rules: &'a Rules,
    pub now: i64,
    /// Tracking codes and websites.
    pub websites: &'a [(&'a str, &'a str)],
    pub off: Option<Rule>,
}

/// An event that is being judged.
#[derive(Default)]
struct Judged {
    code: Option<String>,
    stored: Stored,
    form: bool,
    faults: BTreeSet<String>,
    clock_corrected: bool,
    too_deep: bool,
}

pub fn invalid_field(name: &str) -> Refusal {
    Refusal::Invalid(false, BTreeSet::from([name.to_owned()]))
}

impl Model<'_> {
    fn holds(&self, rule: Rule) -> bool {
        self.off != Some(rule)
    }

    fn read(&self, body: &[u8]) -> Result<Json, Refusal> {
        let off = self.off.and_then(|rule| if let Rule::Read(reading) = rule { Some(reading) } else { None });
        // Above the properties of a batch stand three: the body, its array, the event.
        json::read(body, 3 + self.rules.properties_depth_max, off).ok_or(Refusal::Malformed)
    }

    fn website(&self, code: &str) -> Option<String> {
        self.websites.iter().find(|(known, _)| *known == code).map(|(_, website)| (*website).to_owned())
    }

    /// What becomes of the body of one event.
    pub fn event(&self, body: &[u8]) -> Verdict {
        let judged = self.judge(&self.read(body)?);
        if judged.too_deep {
            return Err(Refusal::Malformed);
        }
        if judged.form || !judged.faults.is_empty() {
            return Err(Refusal::Invalid(judged.form, judged.faults));
        }
        let website = self.website(&judged.code.unwrap_or_default()).ok_or(Refusal::Unknown)?;
        Ok((vec![Stored { website, ..judged.stored }], Vec::new(), judged.clock_corrected.into()))
    }

    /// What becomes of the body of a batch.
    pub fn batch(&self, body: &[u8]) -> Verdict {
        let body = self.read(body)?;
        let Json::Object(members) = &body else { return Err(Refusal::Invalid(true, BTreeSet::new())) };
        let mut named = members.iter().filter(|(name, _)| name == "events");
        let items = match (named.next(), named.next()) {
            (_, Some(_)) if self.holds(Rule::EventsTwice) => return Err(invalid_field("events")),
            (Some((_, Json::Array(items))), _) => items,
            _ => return Err(invalid_field("events")),
        };
        if items.is_empty() && self.holds(Rule::EventsEmpty)
            || items.len() > self.rules.batch_events_max && self.holds(Rule::EventsMax)
        {
            return Err(invalid_field("events"));
        }
        let (mut stored, mut refused, mut corrected) = (Vec::new(), Vec::new(), 0);
        for (index, item) in items.iter().enumerate() {
            let judged = self.judge(item);
            if judged.too_deep {
                return Err(Refusal::Malformed);
            }
            let website = judged.code.as_deref().map(|code| self.website(code));
            let is_valid = !judged.form && judged.faults.is_empty();
            match website {
                Some(None) if is_valid || self.holds(Rule::UnknownCodeFirst) => refused.push((index, Refusal::Unknown)),
                Some(Some(website)) if is_valid => {
                    corrected += u64::from(judged.clock_corrected);
                    stored.push(Stored { website, ..judged.stored });
                }
                _ => refused.push((index, Refusal::Invalid(judged.form, judged.faults))),
            }
        }
        Ok((stored, refused, corrected))
    }

    fn judge(&self, event: &Json) -> Judged {
        let mut judged = Judged::default();
        judged.stored.created_at = self.now;
        let Json::Object(members) = event else {
            judged.form = self.holds(Rule::Object);
            return judged;
        };
        for name in NAMES {
            let mut values = members.iter().filter(|(key, _)| key == name).map(|(_, value)| value);
            let verdict = match values.next() {
                None => !(REQUIRED.contains(&name) && self.holds(Rule::Required)),
                // Of two the first counts, and the second is a fault.
                Some(value) => {
                    let is_valid = self.field(name, value, &mut judged);
                    is_valid && (values.next().is_none() || !self.holds(Rule::Twice))
                }
            };
            if !verdict {
                judged.faults.insert(name.to_owned());
            }
        }
        judged
    }

    /// Whether `value` is one that the field takes; puts it where it is stored.
    fn field(&self, name: &'static str, value: &Json, judged: &mut Judged) -> bool {
        match (name, value) {
            ("timestamp", value) => self.timestamp(value, judged),
            ("properties", Json::Object(_)) => {
                judged.too_deep = value.depth() > self.rules.properties_depth_max && self.holds(Rule::PropertiesDepth);
                judged.stored.properties_bytes = value.compact_bytes();
                judged.stored.properties = Some(value.clone());
                judged.stored.properties_bytes <= self.rules.properties_bytes_max || !self.holds(Rule::PropertiesBytes)
            }
            ("properties", value) => *value == Json::Null || !self.holds(Rule::PropertiesObject),
            (_, Json::Null) => !REQUIRED.contains(&name),
            (_, Json::Text(text)) => {
                if name == "trackingCode" {
                    judged.code = Some(text.clone());
                    return self.is_code(text);
                }
                if name == "referrer" && text.is_empty() && self.holds(Rule::EmptyReferrer) {
                    return true;
                }
                judged.stored.texts.push((name, text.clone()));
                self.text(name, text)
            }
            _ => false,
        }
    }

    fn is_code(&self, text: &str) -> bool {
        let is_long = text.len() > 64 && self.holds(Rule::CodeLength);
        let letters = text.strip_prefix("pm-").unwrap_or_default();
        let is_formed =
            !letters.is_empty() && letters.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '-');
        !is_long && (is_formed || !self.holds(Rule::Code))
    }

    fn text(&self, name: &str, text: &str) -> bool {
        if text.chars().any(|letter| letter <= '\u{1f}' || letter == '\u{7f}') && self.holds(Rule::Control) {
            return false;
        }
        match name {
            "eventType" => ["pageview", "click", "custom"].contains(&text) || !self.holds(Rule::EventType),
            "deviceType" => ["mobile", "tablet", "desktop"].contains(&text) || !self.holds(Rule::DeviceType),
            "url" | "referrer" => self.url(text),
            "sessionId" | "visitorId" => {
                (!text.is_empty() || !self.holds(Rule::IdEmpty))
                    && (text.len() <= self.rules.id_bytes_max || !self.holds(Rule::IdBytes))
            }
            // Off, it counts bytes.
            _ if !self.holds(Rule::LabelChars) => text.len() <= self.rules.text_chars_max,
            _ => text.chars().count() <= self.rules.text_chars_max,
        }
    }

    fn url(&self, text: &str) -> bool {
        if text.len() > self.rules.url_bytes_max && self.holds(Rule::UrlBytes) {
            return false;
        }
        match url::Url::parse(text) {
            Ok(url) => !["javascript", "data", "blob"].contains(&url.scheme()) || !self.holds(Rule::UrlScheme),
            Err(_) => !self.holds(Rule::UrlAbsolute),
        }
    }

    fn timestamp(&self, value: &Json, judged: &mut Judged) -> bool {
        let at = match value {
            Json::Whole(number) => *number,
            // The fraction is dropped, but half a millisecond before 1970 is before 1970.
            Json::Double(number) if *number < 0.0 => number.floor() as i128,
            Json::Double(number) => number.trunc() as i128,
            _ => return !self.holds(Rule::TimeNumber),
        };
        if at < 0 && self.holds(Rule::TimeFrom) || at > TIMESTAMP_MAX && self.holds(Rule::TimeTo) {
            return false;
        }
        let now = i128::from(self.now);
        if now - at > self.rules.timestamp_age_max_ms.into() && self.holds(Rule::TimeAge) {
            return false;
        }
        if at - now > self.rules.timestamp_ahead_max_ms.into() && self.holds(Rule::TimeAhead) {
            judged.clock_corrected = true;
        } else {
            judged.stored.created_at = at as i64;
        }
        true
    }
}
