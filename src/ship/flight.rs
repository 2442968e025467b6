//! One range on its way, until the target has confirmed it.
//!
//! It is in the catalog before its first byte leaves, and its block is the same at every attempt. Whenever it is not
//! known whether an attempt has arrived, nothing is sent before it is known that none is still running, and what is
//! there already.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use super::{
    check, node,
    plan::{self, Doubt},
    reading::{self, Builders, Limits, Payload},
    server::{Insert, Present, Server},
    target::{About, gone},
    trouble::Trouble,
    wait,
};
use crate::{
    clock::now_ms,
    metrics::{ShipMetrics, ShipOutcome},
    store::{OfHidden, RangeEnd, ShipChange, ShipRange, Shipping},
};

/// How many letters of an instance's name a token has.
const INSTANCE_SHOWN: usize = 12;
/// How often the server must have refused the data of a range before it is believed: a body that something on the way
/// has cut is refused in the same words.
const REFUSED_MAX: u32 = 3;
/// For how long a look at who holds a number counts: whoever takes one over waits for longer than this and a connection
/// may take together, so that what was sent by then is all that there will be.
const HELD_LOOK: Duration = Duration::from_secs(5);

/// What all ranges on their way share.
pub(super) struct Line {
    pub(super) shipping: Shipping,
    pub(super) server: Server,
    pub(super) limits: Limits,
    pub(super) builders: Arc<Builders>,
    pub(super) metrics: Arc<ShipMetrics>,
    /// Part of the name of every attempt, so that those of an earlier run have others.
    pub(super) run_id: u32,
    /// What the target was when it was last looked at.
    pub(super) about: About,
    /// When its number was registered, as the server writes it.
    pub(super) registered_at: String,
    /// When it was last looked whether this directory holds the numbers that it ships under.
    pub(super) held_at: Mutex<Instant>,
}

/// A range on its way.
pub(super) struct Flight {
    pub(super) range: ShipRange,
    /// What is sent, if it is in memory.
    pub(super) payload: Option<Payload>,
    /// Whether an attempt may have arrived.
    pub(super) is_in_doubt: bool,
}

/// What has become of a range.
#[derive(Debug)]
pub(super) enum Landed {
    /// All of it is there.
    Confirmed,
    /// It is sent in two parts.
    Split(Vec<ShipRange>),
    /// The target refuses its one event.
    Dead,
    /// Its segment is damaged: it can't be sent any more.
    Lost,
}

/// What a step has led to.
enum Step {
    Confirmed,
    /// Another block takes the place of the one before, and is to be sent.
    Remade,
    /// Other ranges take its place.
    Split(Vec<ShipRange>),
}

impl Line {
    /// Sends a range, again and again if need be.
    pub(super) async fn fly(&self, mut flight: Flight) -> Result<(u64, Landed), Trouble> {
        let (mut failed, mut refused) = (0, 0);
        let landed = loop {
            let step = match &flight.payload {
                Some(payload) if !flight.is_in_doubt => {
                    self.send(&flight.range, payload).await.map(|()| Step::Confirmed)
                }
                _ => self.settle(&mut flight).await,
            };
            flight.is_in_doubt = !matches!(step, Ok(Step::Remade));
            let why = match step {
                Ok(Step::Confirmed) => break Landed::Confirmed,
                Ok(Step::Remade) => continue,
                Ok(Step::Split(parts)) => break Landed::Split(parts),
                Err(Trouble::Data(why)) if refused + 1 >= refusals_max(&flight.range) => {
                    break self.give_up(&mut flight, why).await?;
                }
                Err(Trouble::Data(why)) => {
                    refused += 1;
                    why
                }
                Err(Trouble::Wait(why)) => why,
                Err(Trouble::Gone) => break self.lose(&flight).await?,
                Err(other) => return Err(other),
            };
            failed += 1;
            wait::tell(&self.shipping, &why);
            sleep(plan::pause(failed, rand::random())).await;
        };
        flight.payload.take().into_iter().for_each(|payload| self.builders.take_back(payload));
        Ok((flight.range.first, landed))
    }

    /// Makes sure that nobody has taken over the number of a range, as a hitlog that was started from a copy does, and
    /// that the table is what it was: it may have been changed so that it takes rows and keeps other ones.
    async fn hold(&self, range: &ShipRange) -> Result<(), Trouble> {
        if self.held_at.lock().elapsed() < HELD_LOOK {
            return Ok(());
        }
        let looked_at = Instant::now();
        let claims = self.server.claims().await?;
        let Some(newest) = self.shipping.look(|state| state.nodes.last().cloned()) else { return Ok(()) };
        node::hold(&claims, range.node, &newest, &self.registered_at)?;
        if self.server.about().await? != self.about {
            return Err(Trouble::Again);
        }
        check::columns(&self.server).await?;
        *self.held_at.lock() = looked_at;
        Ok(())
    }

    /// What the token of every block of a range begins with, and the name of every attempt. The number may have been
    /// another directory's, or this one's before all was looked for anew: a target remembers tokens for longer than
    /// rows, so it has a part of the name under which the number is registered now.
    fn prefix(&self, range: &ShipRange) -> String {
        let instance = self.shipping.look(|state| state.nodes.last().map(|node| node.instance.clone()));
        let instance = instance.unwrap_or_default();
        let named = instance.get(..INSTANCE_SHOWN).unwrap_or(&instance);
        format!("{}{named}-{}-{}-", node::attempts(range.node), range.first, range.last)
    }

    /// Sends the block. Only where it is known that it is not there, or that the target knows it again.
    async fn send(&self, range: &ShipRange, payload: &Payload) -> Result<(), Trouble> {
        // What was erased since the range was cut may be all of it.
        if payload.rows == 0 {
            return Ok(());
        }
        self.hold(range).await?;
        let token = format!("{}{}", self.prefix(range), range.epoch);
        let insert = Insert {
            query_id: format!("{token}-{}-{:08x}", range.attempts, self.run_id),
            token,
            body: payload.body.clone(),
            is_zstd: payload.is_zstd,
            about: &self.about,
            rows: payload.rows,
            range: &format!("sequences {} to {} of node {}", range.first, range.last, range.node),
        };
        let begun = Instant::now();
        let sent = self.server.insert(insert).await;
        let outcome = match &sent {
            Ok(()) => ShipOutcome::Stored,
            Err(Trouble::Data(_) | Trouble::Pause(_)) => ShipOutcome::Refused,
            Err(_) => ShipOutcome::Unknown,
        };
        self.metrics.attempts(outcome).increment(1);
        self.metrics.insert_seconds.record(begun.elapsed().as_secs_f64());
        sent
    }

    /// Finds out what has become of earlier attempts, and does what is left to do.
    async fn settle(&self, flight: &mut Flight) -> Result<Step, Trouble> {
        let about = self.server.about().await?;
        if !about.has_table() {
            return Err(Trouble::Pause(gone(&self.server.events())));
        }
        // Columns that somebody has changed refuse every event, in words of many kinds.
        check::columns(&self.server).await?;
        let distributed = about.distributed();
        let cluster = distributed.as_ref().map(|to| to.cluster.as_str());
        let is_inherited = self.shipping.look(|state| state.is_inherited(flight.range.first));
        // The original has cut its ranges in another way.
        let attempts = if is_inherited { node::attempts(flight.range.node) } else { self.prefix(&flight.range) };
        wait::for_attempts(&self.shipping, &self.server, &attempts, cluster).await?;
        if is_inherited && let Some(parts) = self.renumber(&flight.range, &about).await? {
            return Ok(Step::Split(parts));
        }
        let (are_same_bytes, sequences) = self.remake(flight).await?;
        let range = &flight.range;
        let window = match &distributed {
            Some(to) => self.server.about_shards(to, &about.version).await?.iter().map(About::window).min(),
            None => Some(about.window()),
        };
        let doubt = Doubt {
            age_ms: range.begun_at.map(|begun| now_ms().abs_diff(begun)),
            is_same_version: range.version.as_ref().is_none_or(|version| *version == about.version),
            window: window.unwrap_or(0),
            are_same_bytes,
            is_inherited,
        };
        if let Some(payload) = flight.payload.as_ref().filter(|_| doubt.is_known_by_token()) {
            let first = range.first;
            self.shipping.note(|| ShipChange::Tried { first, version: about.version.clone() }).await?;
            flight.range.attempts += 1;
            flight.range.begun_at.get_or_insert(now_ms());
            flight.range.version.get_or_insert_with(|| about.version.clone());
            self.send(&flight.range, payload).await?;
        }
        let present = self.present(&flight.range, &about).await?;
        let missing = plan::missing(&sequences, &present.sequences);
        if missing.is_empty() {
            return Ok(Step::Confirmed);
        }
        self.begin_epoch(flight, missing, &about.version).await?;
        Ok(Step::Remade)
    }

    /// Gives the events of an inherited range another number from that event on in whose place the target has another
    /// one: this directory was put back from a copy, and went on under its number before anybody said so. Returns the
    /// ranges that take its place, if there is such an event.
    async fn renumber(&self, range: &ShipRange, about: &About) -> Result<Option<Vec<ShipRange>>, Trouble> {
        let newest = self.shipping.look(|state| state.nodes.last().map_or(range.node, |newest| newest.node));
        if range.node == newest {
            return Ok(None);
        }
        let there = self.server.arrivals(range.node, (range.first, range.last), about).await?;
        if there.is_empty() {
            return Ok(None);
        }
        let of_range = range.clone();
        let here = self.shipping.read(move |snapshot| reading::arrivals(snapshot, &of_range)).await?;
        let is_other = |(sequence, at): &(u64, i64)| there.get(sequence).is_some_and(|there| there != at);
        let Some((from, _)) = here.into_iter().find(is_other) else { return Ok(None) };
        let mut parts = Vec::new();
        if from > range.first {
            parts.push(self.part(range, (range.first, from - 1), range.missing.as_deref()).await?);
        }
        let other = ShipRange { node: newest, ..range.clone() };
        parts.push(self.part(&other, (from, range.last), range.missing.as_deref()).await?);
        tracing::error!(
            node = range.node,
            first = from,
            last = range.last,
            sent_as = newest,
            "the target has other events under these numbers: what was taken in here before `--restored` was said gets \
             the number of what came in afterwards"
        );
        let first = range.first;
        self.shipping.note(|| ShipChange::Remade { first, with: parts.clone() }).await?;
        Ok(Some(parts))
    }

    async fn present(&self, range: &ShipRange, about: &About) -> Result<Present, Trouble> {
        let span = (range.first, range.last);
        let present = self.server.present(range.node, span, range.rows, about).await?;
        if present.doubled > 0 {
            self.metrics.doubled.increment(present.doubled);
            tracing::error!(
                node = range.node,
                first = range.first,
                last = range.last,
                rows = present.doubled,
                "the target has events more than once. Its merges join them where the engine is ReplacingMergeTree; \
                 `hitlog ship verify` tells whether they have"
            );
        }
        Ok(present)
    }

    /// Has the events that are missing be sent as a block of its own: the target must not take it for the one before,
    /// of which it may have forgotten a part or remember a part.
    async fn begin_epoch(&self, flight: &mut Flight, missing: Vec<(u64, u64)>, version: &str) -> Result<(), Trouble> {
        let before = flight.range.clone();
        let only = Some(missing);
        let (payload, sequences) = self.read(&before, only.clone(), OfHidden::LeftOut, flight.payload.take()).await?;
        let is_part = payload.rows < sequences.len() as u64;
        // Of what comes from before a new beginning nobody expected that it is there.
        if !self.shipping.look(|state| state.is_inherited(before.first)) {
            tracing::warn!(
                node = before.node,
                first = before.first,
                last = before.last,
                rows = sequences.len(),
                sent_again = payload.rows,
                "a range that was in doubt is sent again, as far as its events are not there"
            );
        }
        flight.range = ShipRange {
            epoch: before.epoch + 1,
            missing: only.filter(|_| is_part),
            attempts: 1,
            begun_at: Some(now_ms()),
            version: Some(version.to_owned()),
            ..payload.of_range(before)
        };
        flight.payload = Some(payload);
        let (first, with) = (flight.range.first, flight.range.clone());
        self.shipping.note(|| ShipChange::Remade { first, with: vec![with.clone()] }).await?;
        self.metrics.epochs.increment(1);
        Ok(())
    }

    /// Makes the block again, if it is still the very one that was noted. Returns whether it is, and every sequence of
    /// the range that there is.
    async fn remake(&self, flight: &mut Flight) -> Result<(bool, Vec<u64>), Trouble> {
        let range = &flight.range;
        let mut before = flight.payload.take();
        let mut shown = None;
        // What was hidden since the range was cut was in it.
        for of_hidden in [OfHidden::LeftOut, OfHidden::Read] {
            let (payload, sequences) = self.read(range, range.missing.clone(), of_hidden, before.take()).await?;
            if payload.hash == range.hash {
                flight.payload = Some(payload);
                return Ok((true, sequences));
            }
            before = Some(payload);
            shown.get_or_insert(sequences);
        }
        before.into_iter().for_each(|payload| self.builders.take_back(payload));
        Ok((false, shown.unwrap_or_default()))
    }

    async fn read(
        &self,
        range: &ShipRange,
        only: Option<Vec<(u64, u64)>>,
        of_hidden: OfHidden,
        before: Option<Payload>,
    ) -> Result<(Payload, Vec<u64>), Trouble> {
        before.into_iter().for_each(|payload| self.builders.take_back(payload));
        let (range, is_zstd, builders) = (range.clone(), self.limits.is_zstd, Arc::clone(&self.builders));
        let read = self
            .shipping
            .read(move |snapshot| reading::remake(snapshot, &range, only.as_deref(), of_hidden, is_zstd, &builders));
        read.await?.ok_or(Trouble::Gone)
    }

    /// The segment of a range is damaged, or was given up.
    async fn lose(&self, flight: &Flight) -> Result<Landed, Trouble> {
        let (first, note) = (flight.range.first, Trouble::Gone.to_string());
        tracing::error!(first, last = flight.range.last, "shipping: events can't be shipped any more: {note}");
        self.shipping.note(|| ShipChange::Ended { first, end: RangeEnd::Lost, note: note.clone() }).await?;
        Ok(Landed::Lost)
    }

    /// The server refuses the data of a range: it is halved until one event is left, which is put aside.
    async fn give_up(&self, flight: &mut Flight, why: String) -> Result<Landed, Trouble> {
        let (_, sequences) = self.remake(flight).await?;
        let range = &flight.range;
        let present = self.present(range, &self.about).await?;
        let missing = plan::missing(&sequences, &present.sequences);
        let left: Vec<u64> = sequences.iter().copied().filter(|one| plan::is_in(&missing, *one)).collect();
        let first = range.first;
        match left.as_slice() {
            // Views behind the table come after it, and what fails there is answered as if it were the table's.
            [] if !sequences.is_empty() => Err(Trouble::Pause(format!(
                "sequences {first} to {} are at the target, and it refuses them all the same: a view behind {} fails. \
                 Mend or drop the view, then `hitlog ship resume` has it filled: {why}",
                range.last,
                self.server.events()
            ))),
            [] => Ok(Landed::Confirmed),
            [sequence] => {
                let end = RangeEnd::Dead(*sequence);
                tracing::error!(sequence, "shipping: the target refuses an event, which is put aside: {why}");
                self.shipping.note(|| ShipChange::Ended { first, end, note: why.clone() }).await?;
                Ok(Landed::Dead)
            }
            [..] => {
                let middle = left[left.len() / 2];
                let only = (left.len() < sequences.len()).then_some(missing);
                let mut halves = Vec::new();
                for (first, last) in [(range.first, middle - 1), (middle, range.last)] {
                    halves.push(self.part(range, (first, last), only.as_deref()).await?);
                }
                self.shipping.note(|| ShipChange::Remade { first, with: halves.clone() }).await?;
                Ok(Landed::Split(halves))
            }
        }
    }

    /// A part of a range as a range of its own, which was never sent; of its events those in `only`, if that is given.
    async fn part(
        &self,
        range: &ShipRange,
        (first, last): (u64, u64),
        only: Option<&[(u64, u64)]>,
    ) -> Result<ShipRange, Trouble> {
        let cut = |run: &(u64, u64)| (run.0.max(first), run.1.min(last));
        let missing = only.map(|runs| runs.iter().map(cut).filter(|(first, last)| first <= last).collect::<Vec<_>>());
        let part = ShipRange { first, last, missing, ..range.clone() };
        let (payload, _) = self.read(&part, part.missing.clone(), OfHidden::LeftOut, None).await?;
        let part = payload.of_range(part);
        self.builders.take_back(payload);
        Ok(ShipRange { epoch: range.epoch + 1, attempts: 0, begun_at: None, version: None, ..part })
    }
}

/// How often a range must have been refused before it is halved, or its one event put aside. A half is of one that was
/// refused often enough, and to halve it again is no loss.
fn refusals_max(range: &ShipRange) -> u32 {
    if range.rows > 1 && range.epoch > 0 { 1 } else { REFUSED_MAX }
}
