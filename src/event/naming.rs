//! The names under which the members of an event come.

use super::field::Field;

/// Under which names the members of an event come, and which of them there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Naming {
    /// The interface's own.
    Own,
    /// The short ones of the dashboard project's beacon, whose events are page views.
    Beacon,
}

/// A beacon's members, and what they are called otherwise. `eventId` has no short name: the dashboard project does not
/// know it.
const BEACON: [(&str, Field); 7] = [
    ("code", Field::TrackingCode),
    ("sid", Field::SessionId),
    ("vid", Field::VisitorId),
    ("url", Field::Url),
    ("ref", Field::Referrer),
    ("t", Field::Timestamp),
    ("eventId", Field::EventId),
];
const REQUIRED_OF_BEACON: [Field; 4] = [Field::TrackingCode, Field::SessionId, Field::VisitorId, Field::Url];

impl Naming {
    /// The member that has this name, if one has.
    pub(super) fn field(self, name: &str) -> Option<Field> {
        match self {
            Self::Own => Field::from_name(name),
            Self::Beacon => BEACON.iter().find(|(short, _)| *short == name).map(|(_, field)| *field),
        }
    }

    pub(super) fn name(self, field: Field) -> &'static str {
        match self {
            Self::Own => field.name(),
            Self::Beacon => BEACON.iter().find(|(_, of)| *of == field).map_or(field.name(), |(short, _)| short),
        }
    }

    pub(super) fn required(self) -> &'static [Field] {
        match self {
            Self::Own => &Field::REQUIRED,
            Self::Beacon => &REQUIRED_OF_BEACON,
        }
    }

    /// Whether a time may be a text, too.
    pub(super) fn takes_times_as_text(self) -> bool {
        self == Self::Beacon
    }
}
