//! Who sent an event, where its client leaves that to hitlog: ids of the day, and what address and user agent tell.

use std::{net::IpAddr, sync::Arc};

use hyper::{
    HeaderMap,
    header::{HeaderName, USER_AGENT},
};

use super::{client_address::client_address, connections::Connections, parts::EdgeParts};
use crate::{
    clock::now_ms,
    event::{SenderFacts, ValidEvents},
    visitor::{Agent, AgentTexts, Countries, Country, Sender, VisitorIds},
};

/// Says who sent events.
pub(super) struct Senders {
    connections: Arc<Connections>,
    ids: Arc<VisitorIds>,
    countries: Arc<Countries>,
}

const BRANDS: HeaderName = HeaderName::from_static("sec-ch-ua");
const MOBILE: HeaderName = HeaderName::from_static("sec-ch-ua-mobile");
const PLATFORM: HeaderName = HeaderName::from_static("sec-ch-ua-platform");

/// What a browser sends for who wants that nobody is told of them, <https://www.w3.org/TR/gpc/>.
const GPC: HeaderName = HeaderName::from_static("sec-gpc");

/// What stands for the visitor and the session of a request that must not tell whose it is: nobody's, and only once.
/// `None` where nobody asks for that.
pub(super) fn anonymous_id(headers: &HeaderMap) -> Option<Arc<str>> {
    let is_asked = headers.get_all(GPC).iter().any(|value| value == "1");
    is_asked.then(|| format!("{:032x}", rand::random::<u128>()).into())
}

impl Senders {
    pub(super) fn new(parts: &EdgeParts) -> Self {
        Self {
            connections: Arc::clone(&parts.connections),
            ids: Arc::clone(&parts.visitor_ids),
            countries: Arc::clone(&parts.countries),
        }
    }

    /// Says of these events what their client leaves to hitlog, if it leaves anything.
    pub(super) fn fill_in(&self, events: &mut ValidEvents, peer: IpAddr, headers: &HeaderMap) {
        if !events.are_left_to_server() {
            return;
        }
        let address = client_address(peer, headers, |address| self.connections.trusts(address));
        let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        let agent = Agent::of(AgentTexts {
            agent: text(USER_AGENT),
            brands: text(BRANDS),
            mobile: text(MOBILE),
            platform: text(PLATFORM),
        });
        let country = self.countries.of(address);
        let facts = SenderFacts {
            device_type: agent.device_type,
            browser: agent.browser.as_deref(),
            os: agent.os.as_deref(),
            location: country.as_ref().map(Country::as_str),
        };
        let agent = headers.get(USER_AGENT).map_or(&b""[..], |agent| agent.as_bytes());
        let now_ms = now_ms();
        events.fill_in(&facts, |website_id| self.ids.id(website_id, Sender { address, agent }, now_ms));
    }
}
