//! How far events are shipped elsewhere, for whoever runs hitlog; and having it go on.

use std::sync::Arc;

use hyper::StatusCode;
use serde::Serialize;

use super::{
    asked::Asked,
    errors::{ErrorCode, catalog_error, error, invalid},
    obstacles::Obstacles,
    options::ShipTo,
    parameters::parameters,
    parts::EdgeParts,
    response::{Response, json_of},
};
use crate::{
    clock::now_ms,
    event::{Faults, time::time_text},
    event_id::EventIds,
    store::{Resume, ShipErasureState, ShipRange, ShipState, Shipping, VerifyDifference, VerifyWork},
};

/// Most ranges on their way that are shown.
const OPEN_SHOWN_MAX: usize = 100;
/// What is told of a pause while it is found out whether its reason is gone.
const TRIES: &str = "being tried again; the reason was: ";
/// Most refused events that are shown.
const DEAD_SHOWN_MAX: usize = 1_000;

/// Shipping as the API shows it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ShippingJson {
    state: &'static str,
    /// Where to, as configured.
    configured_url: Option<String>,
    configured_table: Option<String>,
    /// Where what was shipped so far has gone.
    url: Option<String>,
    table: Option<String>,
    node: Option<u32>,
    instance: Option<String>,
    lag_events: u64,
    lag_seconds: f64,
    /// Everything up to this sequence is confirmed.
    confirmed_sequence: u64,
    confirmed_events: u64,
    open_ranges: Vec<RangeJson>,
    dead_events: u64,
    lost_ranges: u64,
    erasures_waiting: usize,
    erasures_masked: usize,
    paused: Option<TroubleJson>,
    last_error: Option<TroubleJson>,
    last_verify: Option<LastVerifyJson>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RangeJson {
    first_sequence: u64,
    last_sequence: u64,
    events: u64,
    epoch: u32,
    attempts: u32,
    begun_at: Option<String>,
}

#[derive(Serialize)]
struct TroubleJson {
    message: String,
    at: String,
}

#[derive(Serialize)]
struct LastVerifyJson {
    differences: u64,
    at: String,
}

/// A comparison as the API shows it.
#[derive(Serialize, Default)]
#[serde(rename_all = "camelCase")]
struct VerifyJson {
    state: &'static str,
    message: Option<String>,
    is_deep: bool,
    ranges: u64,
    events: u64,
    differences: u64,
    erasures_waiting: u64,
    told: Vec<DifferenceJson>,
    ended_at: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DifferenceJson {
    node: u32,
    first_sequence: u64,
    last_sequence: u64,
    events_here: u64,
    events_there: u64,
    /// These four are null of a difference that was not looked into.
    missing: Option<SequencesJson>,
    extra: Option<SequencesJson>,
    doubled: Option<SequencesJson>,
    changed: Option<SequencesJson>,
}

#[derive(Serialize)]
struct SequencesJson {
    count: u64,
    first: Vec<u64>,
}

impl VerifyJson {
    fn new(work: Option<&VerifyWork>) -> Self {
        let in_state = |state| Self { state, ..Self::default() };
        match work {
            None => in_state("none"),
            Some(VerifyWork::Asked(_) | VerifyWork::Running(_)) => in_state("running"),
            Some(VerifyWork::Failed(why)) => Self { message: Some(why.clone()), ..in_state("failed") },
            Some(VerifyWork::Done(found)) => Self {
                is_deep: found.is_deep,
                ranges: found.ranges,
                events: found.rows,
                differences: found.differences,
                erasures_waiting: found.erasures_waiting,
                told: found.told.iter().map(DifferenceJson::new).collect(),
                ended_at: Some(time_text(found.ended_at)),
                ..in_state("done")
            },
        }
    }
}

impl DifferenceJson {
    fn new(of: &VerifyDifference) -> Self {
        let some = |(count, first): &(u64, Vec<u64>)| {
            of.is_looked_into.then(|| SequencesJson { count: *count, first: first.clone() })
        };
        Self {
            node: of.node,
            first_sequence: of.first,
            last_sequence: of.last,
            events_here: of.here,
            events_there: of.there,
            missing: some(&of.missing),
            extra: some(&of.extra),
            doubled: some(&of.doubled),
            changed: some(&of.changed),
        }
    }
}

#[derive(Serialize)]
struct DeadJson {
    events: Vec<DeadEventJson>,
    total: usize,
}

#[derive(Serialize)]
struct DeadEventJson {
    id: String,
    sequence: u64,
    error: String,
    since: String,
}

impl ShippingJson {
    fn new(state: &ShipState, durable: u64, to: Option<&ShipTo>) -> Self {
        let now = &state.now;
        let trouble = |(at, message): (i64, String)| TroubleJson { message, at: time_text(at) };
        let lag_ms = now.behind_since.map_or(0, |since| (now_ms() - since).max(0));
        let node = state.nodes.last();
        Self {
            state: match now {
                now if !now.is_on => "off",
                now if now.paused.is_some() => "paused",
                now if now.last_error.is_some() => "waiting",
                _ => "shipping",
            },
            configured_url: to.map(|to| to.url.clone()),
            configured_table: to.map(|to| to.table.clone()),
            url: state.target.as_ref().map(|target| target.url.clone()),
            table: state.target.as_ref().map(|target| format!("{}.{}", target.database, target.table)),
            node: node.map(|node| node.node),
            instance: node.map(|node| node.instance.clone()),
            lag_events: state.behind(durable),
            lag_seconds: lag_ms as f64 / 1_000.0,
            confirmed_sequence: state.shipped_up_to(),
            confirmed_events: state.events,
            open_ranges: state.open.values().take(OPEN_SHOWN_MAX).map(RangeJson::new).collect(),
            dead_events: state.dead,
            lost_ranges: state.lost,
            erasures_waiting: state.erasures_in(ShipErasureState::Waiting),
            erasures_masked: state.erasures_in(ShipErasureState::Masked),
            paused: now.paused.as_ref().map(|pause| trouble((pause.since, pause.reason.clone()))),
            last_error: now.last_error.clone().map(trouble),
            last_verify: state.verified.map(|(at, differences)| LastVerifyJson { differences, at: time_text(at) }),
        }
    }
}

impl RangeJson {
    fn new(range: &ShipRange) -> Self {
        Self {
            first_sequence: range.first,
            last_sequence: range.last,
            events: range.rows,
            epoch: range.epoch,
            attempts: range.attempts,
            begun_at: range.begun_at.map(time_text),
        }
    }
}

/// Tells how far shipping is, and has it go on.
pub(super) struct ShippingRoutes {
    shipping: Shipping,
    ids: EventIds,
    obstacles: Arc<Obstacles>,
    to: Option<ShipTo>,
}

impl ShippingRoutes {
    pub(super) fn new(parts: &EdgeParts) -> Self {
        let (shipping, ids) = (parts.shipping.clone(), parts.ids.clone());
        Self { shipping, ids, obstacles: Arc::clone(&parts.obstacles), to: parts.ship_to.clone() }
    }

    fn now(&self) -> ShippingJson {
        ShippingJson::new(&self.shipping.state(), self.shipping.durable(), self.to.as_ref())
    }

    /// `GET /api/v1/shipping`
    pub(super) async fn get(&self, _: Asked<'_>) -> Response {
        json_of(StatusCode::OK, &self.now())
    }

    /// `GET /api/v1/shipping/dead`
    pub(super) async fn dead(&self, _: Asked<'_>) -> Response {
        let dead = match self.shipping.dead().await {
            Ok(dead) => dead,
            Err(failure) => return catalog_error(&failure, &self.obstacles),
        };
        let total = dead.len();
        let event = |(sequence, error, since): (u64, String, i64)| DeadEventJson {
            id: String::from_utf8_lossy(&self.ids.encode(sequence)).into_owned(),
            sequence,
            error,
            since: time_text(since),
        };
        let events = dead.into_iter().take(DEAD_SHOWN_MAX).map(event).collect();
        json_of(StatusCode::OK, &DeadJson { events, total })
    }

    /// `GET /api/v1/shipping/verify`
    pub(super) async fn verified(&self, _: Asked<'_>) -> Response {
        json_of(StatusCode::OK, &self.shipping.look(|state| VerifyJson::new(state.now.verify.as_ref())))
    }

    /// `POST /api/v1/shipping/verify?deep=true`
    pub(super) async fn verify(&self, asked: Asked<'_>) -> Response {
        let mut faults = Faults::default();
        let [deep] = parameters(asked.query(), ["deep"], &mut faults);
        let deep = flag("deep", deep.as_deref(), &mut faults);
        if !faults.is_empty() {
            return invalid("Invalid query", &faults);
        }
        if !self.shipping.look(|state| state.now.is_on) {
            return nothing_is_shipped();
        }
        self.shipping.tell(|state| {
            // One that is under way is as good.
            if !matches!(state.now.verify, Some(VerifyWork::Asked(_) | VerifyWork::Running(_))) {
                state.now.verify = Some(VerifyWork::Asked(deep));
            }
        });
        self.shipping.wake();
        json_of(StatusCode::ACCEPTED, &self.shipping.look(|state| VerifyJson::new(state.now.verify.as_ref())))
    }

    /// `POST /api/v1/shipping/resume?dead=true&fromStart=true`
    pub(super) async fn resume(&self, asked: Asked<'_>) -> Response {
        let mut faults = Faults::default();
        let [dead, from_start] = parameters(asked.query(), ["dead", "fromStart"], &mut faults);
        let dead = flag("dead", dead.as_deref(), &mut faults);
        let from_start = flag("fromStart", from_start.as_deref(), &mut faults);
        if !faults.is_empty() {
            return invalid("Invalid query", &faults);
        }
        if !self.shipping.look(|state| state.now.is_on) {
            return nothing_is_shipped();
        }
        if dead && let Err(failure) = self.shipping.retry_dead().await {
            return catalog_error(&failure, &self.obstacles);
        }
        let resume = if from_start { Resume::FromStart } else { Resume::GoOn };
        self.shipping.tell(|state| {
            // Of two, the one that asks for more.
            if state.now.resume != Some(Resume::FromStart) {
                state.now.resume = Some(resume);
            }
            // What comes of it is then another pause, with a time of its own, even for the same reason.
            if let Some(pause) = state.now.paused.as_mut().filter(|pause| !pause.reason.starts_with(TRIES)) {
                pause.reason = format!("{TRIES}{}", pause.reason);
            }
        });
        self.shipping.wake();
        json_of(StatusCode::ACCEPTED, &self.now())
    }
}

fn flag(name: &'static str, value: Option<&str>, faults: &mut Faults) -> bool {
    match value {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => {
            faults.add(name, "Expected true or false");
            false
        }
    }
}

fn nothing_is_shipped() -> Response {
    error(ErrorCode::NotFound, "Nothing is shipped: ship_url is not set")
}
