//! The contract's table "One event" and its rules of a batch, written a second time.

use std::{collections::BTreeSet, hash::Hasher};

use hitlog::event::{
    Rules,
    WarningCode::{
        self, ReferrerDropped, TextRepaired, TimestampAhead, TimestampBefore2000, TimestampLooksLikeSeconds,
    },
};

use siphasher::sip128::{Hasher128, SipHasher24};

use super::json::{self, Json, Reading};

const NAMES: [&str; 13] = [
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
    "eventId",
];
const REQUIRED: [&str; 5] = ["trackingCode", "eventType", "url", "sessionId", "visitorId"];
/// The first millisecond of the year 2000.
const YEAR_2000: i128 = 946_684_800_000;
/// The last millisecond of the year 9999.
const TIMESTAMP_MAX: i128 = 253_402_300_799_999;

/// The key of a store, under which names are hashed.
pub const NAME_KEY: &[u8; 16] = b"0123456789abcdef";

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
    UrlSlashes,
    EmptyReferrer,
    ReferrerDropped,
    IdEmpty,
    IdBytes,
    LabelChars,
    TimeNumber,
    TimeFrom,
    TimeTo,
    TimeAhead,
    TimeAge,
    TimeNull,
    TimeSeconds,
    TimeBefore2000,
    PropertiesObject,
    PropertiesBytes,
    OwnName,
    NameWhole,
    NameOfWebsite,
    KeyName,
    KeyIndex,
    UnknownCodeFirst,
    ItemExcess,
    ItemBytes,
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
    /// What it is known by when it is sent again.
    pub id_hash: Option<u128>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Refusal {
    Malformed,
    /// Whether the form is at fault, and which fields.
    Invalid(bool, BTreeSet<String>),
    Unknown,
}

/// What is odd about an item: its index, the member, and the kind.
pub type Oddity = (usize, &'static str, WarningCode);

/// Stored and refused items in their order, and what is odd about the stored ones; or why the whole is refused.
pub type Verdict = Result<(Vec<Stored>, Vec<(usize, Refusal)>, Vec<Oddity>), Refusal>;

pub struct Model<'a> {
    pub rules: &'a Rules,
    pub now: i64,
    /// Tracking codes and websites.
    pub websites: &'a [(&'a str, &'a str)],
    /// The key of the request, if it has one.
    pub key: Option<&'a str>,
    pub off: Option<Rule>,
}

/// An event that is being judged.
#[derive(Default)]
struct Judged {
    code: Option<String>,
    name: Option<String>,
    stored: Stored,
    form: bool,
    faults: BTreeSet<String>,
    timestamp: Option<WarningCode>,
    referrer_dropped: bool,
    repaired: Vec<&'static str>,
}

impl Judged {
    /// What is odd, in hitlog's order.
    fn oddities(&self, index: usize) -> impl Iterator<Item = Oddity> {
        let repaired = self.repaired.iter().filter(|name| !(self.referrer_dropped && **name == "referrer"));
        repaired
            .map(move |name| (index, *name, TextRepaired))
            .chain(self.referrer_dropped.then_some((index, "referrer", ReferrerDropped)))
            .chain(self.timestamp.map(|code| (index, "timestamp", code)))
    }
}

pub fn invalid_field(name: &str) -> Refusal {
    Refusal::Invalid(false, BTreeSet::from([name.to_owned()]))
}

impl Model<'_> {
    fn holds(&self, rule: Rule) -> bool {
        self.off != Some(rule)
    }

    fn reading_off(&self) -> Option<Reading> {
        self.off.and_then(|rule| if let Rule::Read(reading) = rule { Some(reading) } else { None })
    }

    fn website(&self, code: &str) -> Option<String> {
        self.websites.iter().find(|(known, _)| *known == code).map(|(_, website)| (*website).to_owned())
    }

    /// SipHash-2-4 of the website's id, a line feed and the name: the event's own, or else the one that the key of its
    /// request gives it.
    fn id_hash(&self, own: Option<&str>, index: usize, website: &str) -> Option<u128> {
        let own = own.filter(|_| self.holds(Rule::OwnName)).map(str::to_owned);
        let key = self.key.filter(|_| self.holds(Rule::KeyName));
        let name = own.or_else(|| Some(format!("{}/{index}", key?)))?;
        let website = if self.holds(Rule::NameOfWebsite) { website } else { "" };
        let mut hasher = SipHasher24::new_with_key(NAME_KEY);
        hasher.write(format!("{website}\n{name}").as_bytes());
        Some(hasher.finish128().as_u128())
    }

    /// What becomes of the body of one event.
    pub fn event(&self, body: &[u8]) -> Verdict {
        // What is in excess anywhere is a fault of the body.
        let depth_max = 1 + self.rules.properties_depth_max;
        json::read(body, depth_max, self.reading_off()).ok_or(Refusal::Malformed)?;
        let judged = self.judge(&json::whole(body, self.reading_off()).ok_or(Refusal::Malformed)?);
        if judged.form || !judged.faults.is_empty() {
            return Err(Refusal::Invalid(judged.form, judged.faults));
        }
        let website = self.website(judged.code.as_deref().unwrap_or_default()).ok_or(Refusal::Unknown)?;
        let oddities = judged.oddities(0).collect();
        let id_hash = self.id_hash(judged.name.as_deref(), 0, &website);
        Ok((vec![Stored { website, id_hash, ..judged.stored }], Vec::new(), oddities))
    }

    /// What becomes of the body of a batch.
    pub fn batch(&self, body: &[u8]) -> Verdict {
        let text = json::whole(body, self.reading_off()).ok_or(Refusal::Malformed)?;
        if !self.holds(Rule::ItemExcess) {
            // Off, the excess of an item is a fault of the body.
            json::read(body, 3 + self.rules.properties_depth_max, None).ok_or(Refusal::Malformed)?;
        }
        let Some(members) = json::members(&text) else { return Err(Refusal::Invalid(true, BTreeSet::new())) };
        let mut named = members.iter().filter(|(name, _)| name == "events").map(|(_, value)| *value);
        let items = match (named.next(), named.next()) {
            (_, Some(_)) if self.holds(Rule::EventsTwice) => None,
            (value, _) => value.filter(|value| value.starts_with('[')).and_then(json::items),
        };
        let items = items.ok_or_else(|| invalid_field("events"))?;
        if items.is_empty() && self.holds(Rule::EventsEmpty)
            || items.len() > self.rules.batch_events_max && self.holds(Rule::EventsMax)
        {
            return Err(invalid_field("events"));
        }
        let (mut stored, mut refused, mut oddities) = (Vec::new(), Vec::new(), Vec::new());
        for (index, item) in items.iter().enumerate() {
            let mut judged = self.judge(item);
            if item.starts_with('{') && item.len() > self.rules.item_bytes_max && self.holds(Rule::ItemBytes) {
                judged = Judged { form: true, code: judged.code, ..Judged::default() };
            }
            let website = judged.code.as_deref().map(|code| self.website(code));
            let is_valid = !judged.form && judged.faults.is_empty();
            match website {
                Some(None) if is_valid || self.holds(Rule::UnknownCodeFirst) => refused.push((index, Refusal::Unknown)),
                Some(Some(website)) if is_valid => {
                    oddities.extend(judged.oddities(index));
                    let index = if self.holds(Rule::KeyIndex) { index } else { stored.len() };
                    let id_hash = self.id_hash(judged.name.as_deref(), index, &website);
                    stored.push(Stored { website, id_hash, ..judged.stored });
                }
                _ => refused.push((index, Refusal::Invalid(judged.form, judged.faults))),
            }
        }
        Ok((stored, refused, oddities))
    }

    fn judge(&self, event: &str) -> Judged {
        let mut judged = Judged::default();
        judged.stored.created_at = self.now;
        let Some(members) = json::members(event) else {
            judged.form = self.holds(Rule::Object);
            return judged;
        };
        let value = |text| json::value(text, self.rules.properties_depth_max, self.reading_off());
        judged.form = members.iter().any(|(name, text)| !NAMES.contains(&name.as_str()) && value(text).is_none());
        for name in NAMES {
            let mut values = members.iter().filter(|(key, _)| key == name).map(|(_, text)| value(text));
            let verdict = match values.next() {
                None => !(REQUIRED.contains(&name) && self.holds(Rule::Required)),
                // Of two the first counts, and the second is a fault.
                Some(value) => {
                    let is_valid = match value {
                        Some(mut value) => {
                            let is_repaired = value.repair();
                            if is_repaired {
                                judged.repaired.push(name);
                            }
                            // Two ids must not become one.
                            let is_whole = !(is_repaired && name == "eventId" && self.holds(Rule::NameWhole));
                            self.field(name, &value, &mut judged) && is_whole
                        }
                        // In excess: dropped as any other referrer, or a fault.
                        None => {
                            judged.referrer_dropped |= name == "referrer";
                            name == "referrer" && self.holds(Rule::ReferrerDropped)
                        }
                    };
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
            ("timestamp", Json::Null) if self.holds(Rule::TimeNull) => true,
            ("timestamp", value) => self.timestamp(value, judged),
            ("properties", Json::Object(_)) => {
                judged.stored.properties_bytes = value.compact_bytes();
                judged.stored.properties = Some(value.clone());
                judged.stored.properties_bytes <= self.rules.properties_bytes_max || !self.holds(Rule::PropertiesBytes)
            }
            ("properties", value) => *value == Json::Null || !self.holds(Rule::PropertiesObject),
            (_, Json::Null) => !REQUIRED.contains(&name),
            ("referrer", value) => {
                let is_empty = *value == Json::Text(String::new()) && self.holds(Rule::EmptyReferrer);
                match value {
                    Json::Text(text) if self.text(name, text) => judged.stored.texts.push((name, text.clone())),
                    _ => judged.referrer_dropped = !is_empty,
                }
                !judged.referrer_dropped || self.holds(Rule::ReferrerDropped)
            }
            (_, Json::Text(text)) => {
                if name == "trackingCode" {
                    judged.code = Some(text.clone());
                    return self.is_code(text);
                }
                if name == "eventId" {
                    judged.name = Some(text.clone());
                } else {
                    judged.stored.texts.push((name, text.clone()));
                }
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
            "sessionId" | "visitorId" | "eventId" => {
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
        let Ok(url) = url::Url::parse(text) else { return !self.holds(Rule::UrlAbsolute) };
        if ["javascript", "data", "blob"].contains(&url.scheme()) {
            return !self.holds(Rule::UrlScheme);
        }
        // Schemes have no slashes in them, so the first ones tell.
        let before = text.split('/').next().unwrap_or_default();
        let is_scheme =
            before.trim_start().strip_suffix(':').is_some_and(|name| name.eq_ignore_ascii_case(url.scheme()));
        let may_be_bare = ["about", "android-app", "ios-app", "mailto", "tel", "file"].contains(&url.scheme());
        is_scheme && text[before.len()..].starts_with("//") || may_be_bare || !self.holds(Rule::UrlSlashes)
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
        if now.saturating_sub(at) > self.rules.timestamp_age_max_ms.into() && self.holds(Rule::TimeAge) {
            return false;
        }
        let ahead_max = now + i128::from(self.rules.timestamp_ahead_max_ms);
        if at > ahead_max && self.holds(Rule::TimeAhead) {
            judged.timestamp = Some(TimestampAhead);
            return true;
        }
        judged.stored.created_at = at as i64;
        if at < YEAR_2000 && self.holds(Rule::TimeBefore2000) {
            let in_ms = at.saturating_mul(1_000);
            let is_seconds = YEAR_2000 <= in_ms && in_ms <= ahead_max && self.holds(Rule::TimeSeconds);
            judged.timestamp = Some(if is_seconds { TimestampLooksLikeSeconds } else { TimestampBefore2000 });
        }
        true
    }
}
