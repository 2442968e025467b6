//! Who is connected, and who gives way when something runs short.
//!
//! Owns the slots for connections and hyper's buffers for those that have a request under way. Nobody is bounded while
//! there is enough for all. When there is not, the connection that is of least use ends: one that waits for a request,
//! the longest first; then one whose client sends or reads so slowly that it holds what others need. Near the last slot
//! a single client address may not hold more than its share.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;
use parking_lot::Mutex;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout},
};

use super::{
    activity::{Activity, Held, Need},
    options::ConnectionLimits,
};

/// From this part of all slots on a client address is held to its share, in percent.
const CROWDED_PERCENT: usize = 90;
/// When connections or buffers run short, as many give way at once, at most.
const YIELDING_MAX: usize = 64;
/// How long after a look for connections that give way the next one is taken, at most: each passes over all of them.
/// Whoever needs something in between is told what the last one found.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// The connections that are open.
pub struct Connections {
    limits: ConnectionLimits,
    trusted: Vec<IpNet>,
    slots: Arc<Semaphore>,
    buffers: Arc<Semaphore>,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    next: u64,
    /// How many of all have been bidden give way.
    ending: usize,
    all: HashMap<u64, (Arc<Activity>, IpAddr)>,
    by_address: HashMap<IpAddr, usize>,
    looks: [Option<Look>; Look::KINDS],
}

/// A connection's place among all.
pub(super) struct Place {
    connections: Arc<Connections>,
    number: u64,
    address: IpAddr,
    _slot: OwnedSemaphorePermit,
}

impl Connections {
    /// None yet. Addresses within `trusted` are proxies that speak for many clients, and have no share.
    pub fn new(limits: ConnectionLimits, trusted: Vec<IpNet>) -> Arc<Self> {
        Arc::new(Self {
            slots: Arc::new(Semaphore::new(limits.connections_max)),
            buffers: Arc::new(Semaphore::new(limits.active_connections_max)),
            limits,
            trusted,
            open: Mutex::default(),
        })
    }

    pub(super) fn limits(&self) -> &ConnectionLimits {
        &self.limits
    }

    /// Whether so many are open that those without a request give their buffers back.
    pub(super) fn is_crowded(&self) -> bool {
        // Idle ones never hold all buffers: those that come would wait for them.
        let warm_max = self.limits.warm_connections_max.min(self.limits.active_connections_max / 2);
        self.limits.connections_max - self.slots.available_permits() > warm_max
    }

    /// Waits for a slot, which whoever waits longest for a request gives up if there is no other.
    pub(super) async fn slot(&self) -> OwnedSemaphorePermit {
        loop {
            if let Some(slot) = self.try_slot() {
                return slot;
            }
            self.end_some(Need::Slot, None);
            // The slots are never closed, so one always comes.
            if let Ok(Ok(slot)) = timeout(LOOK_AGAIN, Arc::clone(&self.slots).acquire_owned()).await {
                return slot;
            }
        }
    }

    /// A slot, if one is free.
    pub(super) fn try_slot(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.slots).try_acquire_owned().ok()
    }

    /// Waits until every connection has ended.
    pub(super) async fn all_ended(&self) {
        let everybody = u32::try_from(self.limits.connections_max).unwrap_or(u32::MAX);
        let _ = self.slots.acquire_many(everybody).await;
    }

    /// Waits for hyper's buffers, which whoever sends or reads slowest gives up if there are no others.
    pub(super) async fn buffers(self: Arc<Self>) -> Option<OwnedSemaphorePermit> {
        // One place in the line, however often it looks around.
        let mut buffers = pin!(Arc::clone(&self.buffers).acquire_owned());
        loop {
            self.end_some(Need::Buffers, None);
            // Many may wait at once, and each look serves them all.
            if let Ok(buffers) = timeout(LOOK_AGAIN * 5, &mut buffers).await {
                return buffers.ok();
            }
        }
    }

    /// Hyper's buffers, if they are to be had at once.
    pub(super) fn try_buffers(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.buffers).try_acquire_owned().ok()
    }

    /// Takes a connection in. `None` if its client address holds its share and nothing of it can be given up.
    pub(super) fn admit(
        self: &Arc<Self>,
        peer: IpAddr,
        slot: OwnedSemaphorePermit,
        activity: &Arc<Activity>,
    ) -> Option<Place> {
        let address = client_of(peer);
        let mut open = self.open.lock();
        let staying = open.all.len() - open.ending;
        let crowded = staying * 100 >= self.limits.connections_max * CROWDED_PERCENT;
        let share = (self.limits.connections_max * self.limits.address_share_percent / 100).max(1);
        let held = open.by_address.get(&address).copied().unwrap_or_default();
        if crowded && held >= share && !self.trusts(peer) {
            // One in, one out.
            let found = open.look(&self.limits, Look::ADDRESS, Need::Slot, |_, of| of == address);
            if found == 0 {
                return None;
            }
        }
        let number = open.next;
        open.next += 1;
        open.all.insert(number, (Arc::clone(activity), address));
        *open.by_address.entry(address).or_default() += 1;
        drop(open);
        Some(Place { connections: Arc::clone(self), number, address, _slot: slot })
    }

    /// Whether a peer is a proxy that speaks for many clients.
    pub(super) fn trusts(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.trusted.iter().any(|network| network.contains(&peer))
    }

    /// Bids those connections give way that others need least, except the one who asks. Returns how many; or how many
    /// did at the last look, if that was only a moment ago.
    pub(super) fn end_some(&self, need: Need, asking: Option<&Arc<Activity>>) -> usize {
        let is_other = |other: &Arc<Activity>, _| asking.is_none_or(|asking| !Arc::ptr_eq(asking, other));
        self.open.lock().look(&self.limits, Look::of(need), need, is_other)
    }
}

/// When connections were last looked at for one need, and how many were bidden give way.
#[derive(Clone, Copy)]
struct Look {
    at: Instant,
    found: usize,
}

impl Look {
    const SLOT: usize = Held::KINDS;
    const BUFFERS: usize = Self::SLOT + 1;
    /// The one for connections of a single client address.
    const ADDRESS: usize = Self::BUFFERS + 1;
    const KINDS: usize = Self::ADDRESS + 1;

    fn of(need: Need) -> usize {
        match need {
            Need::Bytes(kind) => kind as usize,
            Need::Slot => Self::SLOT,
            Need::Buffers => Self::BUFFERS,
        }
    }
}

impl Open {
    /// Bids some of the connections give way that are in question, unless that was done a moment ago.
    fn look(
        &mut self,
        limits: &ConnectionLimits,
        kind: usize,
        need: Need,
        in_question: impl Fn(&Arc<Activity>, IpAddr) -> bool,
    ) -> usize {
        let now = Instant::now();
        // A look at one takes a tenth of a microsecond. While some are on their way out there is no need for more.
        let dear = Duration::from_micros(self.all.len() as u64);
        let pause = if self.ending > 0 { LOOK_AGAIN } else { LOOK_AGAIN.min(dear) };
        if let Some(last) = self.looks[kind].filter(|last| now.saturating_duration_since(last.at) < pause) {
            return last.found;
        }
        let found = self.end_some(limits, need, in_question);
        self.looks[kind] = Some(Look { at: now, found });
        found
    }

    /// Bids some of the connections give way that are in question, and returns how many. Several at once, so that not
    /// every newcomer looks at all connections.
    fn end_some(
        &mut self,
        limits: &ConnectionLimits,
        need: Need,
        asked_about: impl Fn(&Arc<Activity>, IpAddr) -> bool,
    ) -> usize {
        let now = Instant::now();
        let in_question = self.all.values().filter(|(other, address)| asked_about(other, *address));
        let mut found: Vec<_> = in_question.filter_map(|(other, _)| Some((other.yields(need, now)?, other))).collect();
        let count = match need {
            // Those who hold most for least are few, and each gives back much.
            Need::Bytes(_) => 1 + found.len() / 8,
            Need::Slot => 1 + (limits.connections_max / 64).min(YIELDING_MAX),
            Need::Buffers => 1 + (limits.active_connections_max / 64).min(YIELDING_MAX),
        };
        let count = count.min(found.len());
        if count < found.len() {
            found.select_nth_unstable_by_key(count, |(worth, _)| std::cmp::Reverse(*worth));
        }
        found[..count].iter().for_each(|(_, activity)| activity.end());
        // One that has just come will give way, if it still waits then: whoever asks is not to be turned away for it.
        let is_spared =
            |(other, address): &(Arc<Activity>, IpAddr)| asked_about(other, *address) && other.has_just_come(now);
        let will_give_way = found.is_empty() && need == Need::Slot && self.all.values().any(is_spared);
        self.ending += count;
        count.max(usize::from(will_give_way))
    }
}

impl Place {
    /// All connections, of which this is one.
    pub(super) fn connections(&self) -> &Arc<Connections> {
        &self.connections
    }
}

/// Whom an address stands for: in IPv6 a client has a whole /64.
fn client_of(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address => address,
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.connections.open.lock();
        let gone = open.all.remove(&self.number);
        open.ending -= usize::from(gone.is_some_and(|(activity, _)| activity.is_ended()));
        if let Some(held) = open.by_address.get_mut(&self.address) {
            *held -= 1;
            if *held == 0 {
                open.by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::activity::{JUST_COME, Phase};

    fn connections(max: usize, share_percent: usize, trusted: &[&str]) -> Arc<Connections> {
        let limits = ConnectionLimits {
            connections_max: max,
            address_share_percent: share_percent,
            ..ConnectionLimits::OF_TESTS
        };
        Connections::new(limits, trusted.iter().map(|network| network.parse().unwrap()).collect())
    }

    fn open(connections: &Arc<Connections>, peer: &str) -> Option<(Arc<Activity>, Place)> {
        let activity = Arc::new(Activity::new(std::net::Ipv4Addr::LOCALHOST.into()));
        let slot = connections.try_slot().unwrap();
        Some((Arc::clone(&activity), connections.admit(peer.parse().unwrap(), slot, &activity)?))
    }

    #[test]
    fn near_the_last_slot_an_address_has_a_share() {
        let connections = connections(20, 50, &["10.0.0.0/8"]);
        let crowd: Vec<_> = (0..18).map(|_| open(&connections, "192.0.2.1").unwrap()).collect();
        assert!(crowd.iter().all(|(activity, _)| !activity.is_ended()), "below nine tenths nobody is bounded");
        std::thread::sleep(JUST_COME);
        let (_, one_more) = open(&connections, "::ffff:192.0.2.1").unwrap();
        let ended = || crowd.iter().filter(|(activity, _)| activity.is_ended()).count();
        assert_eq!(ended(), 1, "one in, one out");
        drop(one_more);
        let _other = open(&connections, "192.0.2.2").unwrap();
        assert_eq!(ended(), 1, "others are let in");
        for (activity, _) in &crowd {
            activity.enter(Phase::Handling, Instant::now());
        }
        std::thread::sleep(LOOK_AGAIN);
        assert!(open(&connections, "192.0.2.1").is_none(), "nothing can be given up");
        drop(crowd);
        let trusted: Vec<_> = (0..19).map(|_| open(&connections, "10.1.2.3").unwrap()).collect();
        assert!(trusted.iter().all(|(activity, _)| !activity.is_ended()));
    }

    #[test]
    fn an_address_of_ipv6_is_its_network() {
        assert_eq!(client_of("2001:db8:1:2:3:4:5:6".parse().unwrap()), "2001:db8:1:2::".parse::<IpAddr>().unwrap());
        assert_eq!(client_of("::ffff:192.0.2.1".parse().unwrap()), "192.0.2.1".parse::<IpAddr>().unwrap());
    }

    #[tokio::test]
    async fn whoever_waits_longest_gives_up_its_slot() {
        let connections = connections(4, 100, &[]);
        let mut crowd = Vec::new();
        for _ in 0..4 {
            crowd.push(open(&connections, "192.0.2.1").unwrap());
        }
        std::thread::sleep(JUST_COME);
        crowd[0].0.enter(Phase::Handling, Instant::now());
        assert_eq!(connections.end_some(Need::Slot, None), 1);
        assert_eq!(
            crowd.iter().map(|(activity, _)| activity.is_ended()).collect::<Vec<_>>(),
            [false, true, false, false]
        );
        drop(crowd);
        connections.all_ended().await;
    }
}
