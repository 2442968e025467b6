//! From the log to what is sent: where a range ends, and its block.
//!
//! A range is of one segment, one node and one month of arrival: then its block is one part at the target, which has
//! all of it or nothing. A block is made again from the same rows, byte for byte.

use std::ops::ControlFlow;

use bytes::Bytes;
use parking_lot::Mutex;

use super::{
    block::{Block, BlockBuilder, sent_time_ms},
    client::compress,
    plan::{is_in, month},
};
use crate::store::{Next, OfHidden, ReadError, Run, ShipRange, Snapshot};

/// How large a range may become.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) rows_max: u64,
    pub(super) bytes_max: usize,
    /// Whether what is sent is compressed.
    pub(super) is_zstd: bool,
}

/// The memory of blocks, which serves one after the other.
#[derive(Debug, Default)]
pub(super) struct Builders(Mutex<Vec<BlockBuilder>>);

impl Builders {
    pub(super) fn take(&self) -> BlockBuilder {
        self.0.lock().pop().unwrap_or_default()
    }

    fn give_back(&self, builder: BlockBuilder) {
        self.0.lock().push(builder);
    }

    /// Takes the memory of a payload back, which is not sent any more.
    pub(super) fn take_back(&self, payload: Payload) {
        let Payload { mut builder, block, body, .. } = payload;
        drop(body);
        builder.take_back(block);
        self.give_back(builder);
    }
}

/// What is sent for a range.
#[derive(Debug)]
pub(super) struct Payload {
    builder: BlockBuilder,
    /// Empty where the body is compressed.
    block: Block,
    pub(super) body: Vec<Bytes>,
    pub(super) is_zstd: bool,
    pub(super) rows: u64,
    /// Of the block, before it is compressed.
    pub(super) bytes: u64,
    pub(super) hash: [u8; 16],
}

impl Payload {
    fn of(mut builder: BlockBuilder, is_zstd: bool) -> Result<Self, ReadError> {
        let mut block = builder.finish();
        let (rows, bytes, hash) = (block.rows() as u64, block.len() as u64, block.hash());
        let mut body = block.chunks().to_vec();
        if is_zstd {
            let compressed = compress(&body).map_err(|error| ReadError::Keys(Box::new(error)))?;
            drop(body);
            builder.take_back(std::mem::take(&mut block));
            body = vec![compressed];
        }
        Ok(Self { builder, block, body, is_zstd, rows, bytes, hash })
    }

    /// A range with this block.
    pub(super) fn of_range(&self, range: ShipRange) -> ShipRange {
        ShipRange { rows: self.rows, bytes: self.bytes, hash: self.hash, ..range }
    }
}

/// What comes next in the log.
pub(super) enum Cut {
    /// Nothing yet.
    Nothing,
    /// No events up to this sequence.
    Empty(u64),
    /// Events that can't be read any more.
    Lost(Run),
    /// A range, when its first and its last event arrived, and what is sent for it.
    Range(Run, (i64, i64), Box<Payload>),
}

/// Cuts the next range, of what comes after a sequence and is shipped under one node: up to `last`.
pub(super) fn cut(
    snapshot: &Snapshot<'_>,
    (after, last): (u64, u64),
    node: u32,
    limits: Limits,
    builders: &Builders,
) -> Result<Cut, ReadError> {
    let mut run = match snapshot.next_run(after) {
        Next::Nothing => return Ok(Cut::Nothing),
        Next::Lost(run) => return Ok(Cut::Lost(Run { last: run.last.min(last), ..run })),
        Next::Rows(run) => Run { last: run.last.min(last), ..run },
    };
    let mut builder = builders.take();
    let mut first: Option<(i64, i64)> = None;
    let (mut up_to, mut last_arrival) = (run.last, 0);
    let read = snapshot.read_run(run, OfHidden::LeftOut, |sequence, row| {
        let (arrived_at, its_month) = *first.get_or_insert((row.received_at, month(row.received_at)));
        if month(row.received_at) != its_month && row.received_at != arrived_at {
            up_to = sequence - 1;
            return Ok(ControlFlow::Break(()));
        }
        builder.push(node, sequence, row);
        last_arrival = row.received_at;
        if builder.rows() as u64 >= limits.rows_max || builder.bytes() >= limits.bytes_max {
            up_to = sequence;
            return Ok(ControlFlow::Break(()));
        }
        Ok(ControlFlow::Continue(()))
    });
    run.last = up_to;
    match (read, first) {
        (Ok(_), Some((arrived_at, _))) => {
            Ok(Cut::Range(run, (arrived_at, last_arrival), Box::new(Payload::of(builder, limits.is_zstd)?)))
        }
        (outcome, _) => {
            // What is in it is of no use any more.
            let block = builder.finish();
            builder.take_back(block);
            builders.give_back(builder);
            outcome.map(|_| Cut::Empty(run.last))
        }
    }
}

/// When the first event after a sequence arrived, in milliseconds since 1970, UTC; `None` if there is none to be read.
pub(super) fn first_arrival(snapshot: &Snapshot<'_>, after: u64) -> Result<Option<i64>, ReadError> {
    let Next::Rows(run) = snapshot.next_run(after) else { return Ok(None) };
    let mut found = None;
    snapshot.read_run(run, OfHidden::LeftOut, |_, row| {
        found = Some(row.received_at);
        Ok(ControlFlow::Break(()))
    })?;
    Ok(found)
}

/// When each event of a range arrived, as it is told to the target: by sequence, in milliseconds since 1970, UTC.
pub(super) fn arrivals(snapshot: &Snapshot<'_>, range: &ShipRange) -> Result<Vec<(u64, i64)>, ReadError> {
    let run = Run { segment: range.segment, first: range.first, last: range.last };
    let mut found = Vec::new();
    snapshot.read_run(run, OfHidden::LeftOut, |sequence, row| {
        found.push((sequence, sent_time_ms(row.received_at)));
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(found)
}

/// Makes the block of a range again: of those of its sequences that are in `only`, if that is given. The second value
/// is every sequence of the range that there is. `None` if its segment is damaged, or was given up.
pub(super) fn remake(
    snapshot: &Snapshot<'_>,
    range: &ShipRange,
    only: Option<&[(u64, u64)]>,
    of_hidden: OfHidden,
    is_zstd: bool,
    builders: &Builders,
) -> Result<Option<(Payload, Vec<u64>)>, ReadError> {
    let run = Run { segment: range.segment, first: range.first, last: range.last };
    let mut builder = builders.take();
    let mut sequences = Vec::new();
    let is_there = snapshot.read_run(run, of_hidden, |sequence, row| {
        sequences.push(sequence);
        if only.is_none_or(|runs| is_in(runs, sequence)) {
            builder.push(range.node, sequence, row);
        }
        Ok(ControlFlow::Continue(()))
    })?;
    let payload = Payload::of(builder, is_zstd)?;
    // One that is not there, and neither damaged nor given up, has had all of its events erased.
    if !is_there && snapshot.is_lost(range.segment) {
        builders.take_back(payload);
        return Ok(None);
    }
    Ok(Some((payload, sequences)))
}
