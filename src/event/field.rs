//! The members that an event may have.

/// A member of an event, in the order of the guide. The discriminant is its bit in a [`FieldSet`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    TrackingCode,
    EventType,
    Url,
    Referrer,
    SessionId,
    VisitorId,
    DeviceType,
    Browser,
    Os,
    Location,
    Timestamp,
    Properties,
    EventId,
}

/// Some of the members of an event.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct FieldSet(u16);

impl Field {
    pub(super) const ALL: [Self; 13] = [
        Self::TrackingCode,
        Self::EventType,
        Self::Url,
        Self::Referrer,
        Self::SessionId,
        Self::VisitorId,
        Self::DeviceType,
        Self::Browser,
        Self::Os,
        Self::Location,
        Self::Timestamp,
        Self::Properties,
        Self::EventId,
    ];
    pub(super) const REQUIRED: [Self; 5] =
        [Self::TrackingCode, Self::EventType, Self::Url, Self::SessionId, Self::VisitorId];

    pub(super) fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "trackingCode" => Self::TrackingCode,
            "eventType" => Self::EventType,
            "url" => Self::Url,
            "referrer" => Self::Referrer,
            "sessionId" => Self::SessionId,
            "visitorId" => Self::VisitorId,
            "deviceType" => Self::DeviceType,
            "browser" => Self::Browser,
            "os" => Self::Os,
            "location" => Self::Location,
            "timestamp" => Self::Timestamp,
            "properties" => Self::Properties,
            "eventId" => Self::EventId,
            _ => return None,
        })
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::TrackingCode => "trackingCode",
            Self::EventType => "eventType",
            Self::Url => "url",
            Self::Referrer => "referrer",
            Self::SessionId => "sessionId",
            Self::VisitorId => "visitorId",
            Self::DeviceType => "deviceType",
            Self::Browser => "browser",
            Self::Os => "os",
            Self::Location => "location",
            Self::Timestamp => "timestamp",
            Self::Properties => "properties",
            Self::EventId => "eventId",
        }
    }
}

impl FieldSet {
    pub(super) fn contains(self, field: Field) -> bool {
        self.0 & 1 << field as u16 != 0
    }

    /// Adds `field`; `false` if it was there already.
    pub(super) fn insert(&mut self, field: Field) -> bool {
        let is_new = !self.contains(field);
        self.0 |= 1 << field as u16;
        is_new
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }
}
