//! Compares the target's events with those here: of every range that is confirmed how many there are, and sums by which
//! one that is missing, doubled or changed shows.
//!
//! One question to the server for each node, and a pass over the segments here, a segment at a time. What is being
//! shipped meanwhile is in no confirmed range, or was confirmed after the list was made, and is left out.

use std::{collections::BTreeMap, hash::Hasher, ops::ControlFlow};

use siphasher::sip::SipHasher24;

use super::{block::sent_time_ms, flight::Line, server::Server, trouble::Trouble};
use crate::{
    clock::now_ms,
    event::EventRow,
    store::{OfHidden, ReadError, Run, ShipChange, ShipErasureState, ShipRange, Snapshot, Verify, VerifyDifference},
};

/// Most differences that are told one by one.
const DIFFERENCES_TOLD_MAX: usize = 100;
/// Ranges that are asked for at once.
const RANGES_AT_ONCE: usize = 2_000;
/// The longest line of an answer, in bytes.
const LINE_BYTES_MAX: usize = 128;

/// What is compared of a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Sums {
    rows: u64,
    /// Of the hashes of the sequences.
    sequences: u64,
    /// Of the hashes of all that is in the rows; 0 where that is not compared.
    contents: u64,
}

/// Compares, and tells what was found. `is_deep` compares what is in the events, not only which there are.
pub(super) async fn verify(line: &Line, is_deep: bool) -> Result<Verify, Trouble> {
    let ranges = line.shipping.confirmed().await?;
    let erasures_waiting = line.shipping.look(|state| state.erasures_in(ShipErasureState::Waiting) as u64);
    let mut found = Verify { is_deep, erasures_waiting, ..Verify::default() };
    for some in by_node(&ranges).values().flat_map(|ranges| ranges.chunks(RANGES_AT_ONCE)) {
        let there = sums_there(&line.server, some, is_deep).await?;
        for range in some {
            // What has left the disk since the list was made can't be compared any more.
            let Some(here) = sums_here(line, range, is_deep).await? else { continue };
            let there = there.get(&range.first).copied().unwrap_or_default();
            found.ranges += 1;
            found.rows += here.rows;
            if here == there {
                continue;
            }
            found.differences += 1;
            if found.told.len() < DIFFERENCES_TOLD_MAX {
                found.told.push(VerifyDifference {
                    node: range.node,
                    first: range.first,
                    last: range.last,
                    here: here.rows,
                    there: there.rows,
                });
            }
        }
    }
    found.ended_at = now_ms();
    let differences = found.differences;
    line.shipping.note(|| ShipChange::Verified { differences }).await?;
    Ok(found)
}

fn by_node(ranges: &[ShipRange]) -> BTreeMap<u32, Vec<ShipRange>> {
    let mut nodes: BTreeMap<u32, Vec<ShipRange>> = BTreeMap::new();
    for range in ranges {
        nodes.entry(range.node).or_default().push(range.clone());
    }
    nodes
}

async fn sums_there(server: &Server, ranges: &[ShipRange], is_deep: bool) -> Result<BTreeMap<u64, Sums>, Trouble> {
    let (Some(first), Some(last)) = (ranges.first(), ranges.last()) else { return Ok(BTreeMap::new()) };
    // What is behind a range and before the next one begins with a number that no range has.
    let bounds = ranges.iter().flat_map(|range| [range.first, range.last + 1]);
    let mut bounds: Vec<_> = bounds.map(|bound| format!("toUInt64({bound})")).collect();
    bounds.dedup();
    let contents = if is_deep { format!("sum(sipHash64({CONTENTS}))") } else { "toUInt64(0)".into() };
    let sql = format!(
        "SELECT roundDown(seq, [{}]) AS first, count(), sum(sipHash64(seq)), {contents} FROM {} WHERE node = {} AND \
         seq BETWEEN {} AND {} GROUP BY first FORMAT TSV",
        bounds.join(","),
        server.events(),
        first.node,
        first.first,
        last.last
    );
    let text = server.text_within(&sql, 2 * ranges.len() * LINE_BYTES_MAX + LINE_BYTES_MAX).await?;
    let line = |line: &str| {
        let mut numbers = line.split('\t').map(|number| number.parse::<u64>().ok());
        let mut next = || numbers.next().flatten();
        Some((next()?, Sums { rows: next()?, sequences: next()?, contents: next()? }))
    };
    Ok(text.lines().filter_map(line).collect())
}

/// Everything that an event has at the target, as one text. Behind what may have any length stands its length, so that
/// no two events have the same one.
const CONTENTS: &str = "concat(site, '\\n', toString(type), '\\n', \
                        toString(toUnixTimestamp64Milli(created_at)), '\\n', \
                        toString(toUnixTimestamp64Milli(received_at)), '\\n', toString(seq), '\\n', visitor, '\\n', \
                        toString(length(visitor)), '\\n', session, '\\n', toString(length(session)), '\\n', url, \
                        '\\n', toString(length(url)), '\\n', properties, '\\n', toString(length(properties)), '\\n', \
                        referrer, '\\n', toString(length(referrer)), '\\n', device, '\\n', browser, '\\n', \
                        toString(length(browser)), '\\n', os, '\\n', toString(length(os)), '\\n', location)";

async fn sums_here(line: &Line, range: &ShipRange, is_deep: bool) -> Result<Option<Sums>, Trouble> {
    let run = Run { segment: range.segment, first: range.first, last: range.last };
    Ok(line.shipping.read(move |snapshot| sum(snapshot, run, is_deep)).await?)
}

fn sum(snapshot: &Snapshot<'_>, run: Run, is_deep: bool) -> Result<Option<Sums>, ReadError> {
    let (mut sums, mut text) = (Sums::default(), Vec::new());
    let is_there = snapshot.read_run(run, OfHidden::LeftOut, |sequence, row| {
        sums.rows += 1;
        sums.sequences = sums.sequences.wrapping_add(hash(&sequence.to_le_bytes()));
        if is_deep {
            write_contents(&mut text, sequence, row);
            sums.contents = sums.contents.wrapping_add(hash(&text));
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(is_there.then_some(sums))
}

/// ClickHouse's `sipHash64` of a text, or of a number's bytes.
fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = SipHasher24::new_with_keys(0, 0);
    hasher.write(bytes);
    hasher.finish()
}

fn write_contents(out: &mut Vec<u8>, sequence: u64, row: &EventRow<'_>) {
    out.clear();
    let mut number = itoa::Buffer::new();
    let mut field = |value: &[u8], has_length: bool| {
        out.extend_from_slice(value);
        out.push(b'\n');
        if has_length {
            out.extend_from_slice(number.format(value.len()).as_bytes());
            out.push(b'\n');
        }
    };
    let mut time = itoa::Buffer::new();
    field(row.website_id, false);
    field(row.event_type, false);
    field(time.format(sent_time_ms(row.created_at)).as_bytes(), false);
    field(time.format(sent_time_ms(row.received_at)).as_bytes(), false);
    field(time.format(sequence).as_bytes(), false);
    for text in [Some(row.visitor_id), Some(row.session_id), Some(row.url), row.properties, row.referrer] {
        field(text.unwrap_or_default(), true);
    }
    field(row.device_type.unwrap_or_default(), false);
    field(row.browser.unwrap_or_default(), true);
    field(row.os.unwrap_or_default(), true);
    out.extend_from_slice(row.location.unwrap_or_default());
}
