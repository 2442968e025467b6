//! Compares the target's events with those here: of every range that is confirmed how many there are, and sums by which
//! one that is missing, doubled or changed shows.
//!
//! Questions to the server for some ranges of a node at a time, and a pass over the segments here, some events at a
//! time, so that shipping's own reads come between. Erasures may come between the two readings: what differs is read
//! once more before it counts, and then sequence by sequence, so that it is told which differ. What is being shipped
//! meanwhile is in no confirmed range, or was confirmed after the list was made, and is left out.

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
/// Most ranges that are asked for at once.
const RANGES_AT_ONCE: usize = 2_000;
/// Most events that are asked for at once, if that is not less than a range: the server has to answer in time.
const ROWS_AT_ONCE: u64 = 20_000_000;
/// The same where contents are compared.
const DEEP_ROWS_AT_ONCE: u64 = 2_000_000;
/// Most sequences of one read here.
const READ_SEQUENCES_MAX: u64 = 1_000_000;
/// Most sequences that are compared one by one at once.
const PIECE_SEQUENCES_MAX: u64 = 100_000;
/// Most sequences of which that is done in one comparison.
const LOOKED_INTO_MAX: u64 = 20_000_000;
/// How many sequences of a kind are told.
const SEQUENCES_TOLD_MAX: usize = 5;
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
    let waiting = || line.shipping.look(|state| state.erasures_in(ShipErasureState::Waiting) as u64);
    let mut found = Verify { is_deep, erasures_waiting: waiting(), ..Verify::default() };
    let rows_max = if is_deep { DEEP_ROWS_AT_ONCE } else { ROWS_AT_ONCE };
    let mut may_look_into = LOOKED_INTO_MAX;
    for some in by_node(&ranges).values().flat_map(|ranges| questions(ranges, rows_max)) {
        let there = sums_there(&line.server, some, is_deep).await?;
        for range in some {
            // What has left the disk since the list was made can't be compared any more.
            let Some(here) = sums_here(line, range, is_deep).await? else { continue };
            found.ranges += 1;
            found.rows += here.rows;
            if here == there.get(&range.first).copied().unwrap_or_default() {
                continue;
            }
            let Some(difference) = look_again(line, range, is_deep, &mut may_look_into).await? else { continue };
            found.differences += 1;
            if found.told.len() < DIFFERENCES_TOLD_MAX {
                found.told.push(difference);
            }
        }
    }
    found.erasures_waiting = found.erasures_waiting.max(waiting());
    found.ended_at = now_ms();
    let differences = found.differences;
    line.shipping.note(|| ShipChange::Verified { differences }).await?;
    Ok(found)
}

/// Reads a range that differs once more, there and then here, and finds out what differs; `None`: nothing does now.
/// So many sequences may still be looked into.
async fn look_again(
    line: &Line,
    range: &ShipRange,
    is_deep: bool,
    may_look_into: &mut u64,
) -> Result<Option<VerifyDifference>, Trouble> {
    let there = sums_there(&line.server, std::slice::from_ref(range), is_deep).await?;
    let there = there.get(&range.first).copied().unwrap_or_default();
    let Some(here) = sums_here(line, range, is_deep).await?.filter(|here| *here != there) else { return Ok(None) };
    let mut difference = VerifyDifference {
        node: range.node,
        first: range.first,
        last: range.last,
        here: here.rows,
        there: there.rows,
        ..VerifyDifference::default()
    };
    let sequences = range.last - range.first + 1;
    if sequences > *may_look_into {
        return Ok(Some(difference));
    }
    *may_look_into -= sequences;
    difference.is_looked_into = true;
    for piece in pieces(range, PIECE_SEQUENCES_MAX) {
        let there = rows_there(&line.server, &piece, is_deep).await?;
        let Some(here) = rows_here(line, &piece, is_deep).await? else { return Ok(None) };
        compare(&mut difference, &here, &there);
    }
    let VerifyDifference { missing, extra, doubled, changed, .. } = &difference;
    let is_one = [missing, extra, doubled, changed].iter().any(|(count, _)| *count > 0);
    Ok(is_one.then_some(difference))
}

/// Adds what differs in a piece of a range: here each sequence has the hash of its contents, there how often it is
/// there, too.
fn compare(difference: &mut VerifyDifference, here: &BTreeMap<u64, u64>, there: &BTreeMap<u64, (u64, u64)>) {
    let add = |(count, first): &mut (u64, Vec<u64>), sequence: u64| {
        *count += 1;
        if first.len() < SEQUENCES_TOLD_MAX {
            first.push(sequence);
        }
    };
    for (sequence, hash) in here {
        match there.get(sequence) {
            None => add(&mut difference.missing, *sequence),
            Some((1, other)) if hash != other => add(&mut difference.changed, *sequence),
            Some(_) => {}
        }
    }
    for (sequence, (rows, _)) in there {
        if !here.contains_key(sequence) {
            add(&mut difference.extra, *sequence);
        }
        if *rows > 1 {
            add(&mut difference.doubled, *sequence);
        }
    }
}

/// Ranges that are asked for at once: at least one, and no more than so many events.
fn questions(ranges: &[ShipRange], rows_max: u64) -> Vec<&[ShipRange]> {
    let (mut found, mut begin, mut rows) = (Vec::new(), 0, 0);
    for (at, range) in ranges.iter().enumerate() {
        if at > begin && (at - begin >= RANGES_AT_ONCE || rows + range.rows > rows_max) {
            found.push(&ranges[begin..at]);
            (begin, rows) = (at, 0);
        }
        rows += range.rows;
    }
    if begin < ranges.len() {
        found.push(&ranges[begin..]);
    }
    found
}

/// A range in parts of no more than so many sequences.
fn pieces(range: &ShipRange, sequences_max: u64) -> Vec<ShipRange> {
    let mut found = Vec::new();
    let mut first = range.first;
    while first <= range.last {
        let last = range.last.min(first + sequences_max - 1);
        found.push(ShipRange { first, last, ..range.clone() });
        first = last + 1;
    }
    found
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
    let sums = |[first, rows, sequences, contents]: [u64; 4]| (first, Sums { rows, sequences, contents });
    Ok(text.lines().filter_map(numbers).map(sums).collect())
}

/// The numbers of a line of an answer; `None` if it has not so many.
fn numbers<const COUNT: usize>(line: &str) -> Option<[u64; COUNT]> {
    let numbers = line.split('\t').map_while(|number| number.parse().ok()).take(COUNT);
    numbers.collect::<Vec<_>>().try_into().ok()
}

/// Every sequence of a range that is there, with how often it is, and the hash of its contents if that is compared.
async fn rows_there(server: &Server, range: &ShipRange, is_deep: bool) -> Result<BTreeMap<u64, (u64, u64)>, Trouble> {
    let contents = if is_deep { format!("any(sipHash64({CONTENTS}))") } else { "toUInt64(0)".into() };
    let sql = format!(
        "SELECT seq, count(), {contents} FROM {} WHERE node = {} AND seq BETWEEN {} AND {} GROUP BY seq FORMAT TSV",
        server.events(),
        range.node,
        range.first,
        range.last
    );
    let sequences = usize::try_from(range.last - range.first + 1).unwrap_or(usize::MAX);
    let text = server.text_within(&sql, sequences.saturating_mul(LINE_BYTES_MAX)).await?;
    Ok(text.lines().filter_map(numbers).map(|[sequence, count, contents]| (sequence, (count, contents))).collect())
}

/// Every sequence of a range that is here, with the hash of its contents if that is compared.
async fn rows_here(line: &Line, range: &ShipRange, is_deep: bool) -> Result<Option<BTreeMap<u64, u64>>, Trouble> {
    let run = Run { segment: range.segment, first: range.first, last: range.last };
    let read = move |snapshot: &Snapshot<'_>| {
        let (mut rows, mut text) = (BTreeMap::new(), Vec::new());
        let is_there = snapshot.read_run(run, OfHidden::LeftOut, |sequence, row| {
            let contents = if is_deep {
                write_contents(&mut text, sequence, row);
                hash(&text)
            } else {
                0
            };
            rows.insert(sequence, contents);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(is_there.then_some(rows))
    };
    Ok(line.shipping.read(read).await?)
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
    let mut sums = Sums::default();
    for ShipRange { segment, first, last, .. } in pieces(range, READ_SEQUENCES_MAX) {
        let run = Run { segment, first, last };
        let Some(of_piece) = line.shipping.read(move |snapshot| sum(snapshot, run, is_deep)).await? else {
            return Ok(None);
        };
        sums.rows += of_piece.rows;
        sums.sequences = sums.sequences.wrapping_add(of_piece.sequences);
        sums.contents = sums.contents.wrapping_add(of_piece.contents);
    }
    Ok(Some(sums))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: u64, last: u64) -> ShipRange {
        ShipRange { rows: last - first + 1, ..ShipRange::unsent(1, (first, last), 1) }
    }

    #[test]
    fn a_question_is_of_few_enough_ranges_and_events_and_of_one_range_at_least() {
        let lengths = |ranges: &[ShipRange], rows_max| -> Vec<usize> {
            questions(ranges, rows_max).iter().map(|ranges| ranges.len()).collect()
        };
        assert!(lengths(&[], 10).is_empty());
        let ranges = [range(1, 4), range(5, 10), range(11, 11), range(12, 40), range(41, 42)];
        assert_eq!(lengths(&ranges, 10), [2, 1, 1, 1]);
        assert_eq!(lengths(&ranges, 1), [1; 5]);
        let many: Vec<_> = (1..=4_001).map(|sequence| range(sequence, sequence)).collect();
        assert_eq!(lengths(&many, u64::MAX), [2_000, 2_000, 1]);
    }

    #[test]
    fn the_parts_of_a_range_are_all_of_it_once() {
        let spans = |of: &ShipRange, max| -> Vec<_> { pieces(of, max).iter().map(|of| (of.first, of.last)).collect() };
        assert_eq!(spans(&range(1, 25), 10), [(1, 10), (11, 20), (21, 25)]);
        assert_eq!(spans(&range(7, 16), 10), [(7, 16)]);
        assert_eq!(spans(&range(7, 7), 1), [(7, 7)]);
    }

    #[test]
    fn of_each_kind_of_difference_the_first_sequences_are_told() {
        let here = (1..=20).map(|sequence| (sequence, 100 + sequence)).collect();
        let mut there: BTreeMap<_, _> = (9..=21).map(|sequence| (sequence, (1, 100 + sequence))).collect();
        there.insert(14, (2, 0));
        there.insert(15, (1, 0));
        let mut found = VerifyDifference::default();
        compare(&mut found, &here, &there);
        assert_eq!(found.missing, (8, vec![1, 2, 3, 4, 5]));
        assert_eq!((found.extra, found.doubled, found.changed), ((1, vec![21]), (1, vec![14]), (1, vec![15])));
    }
}
