//! Blocks against ClickHouse's own, and read back.

mod decoder;

use proptest::prelude::*;

use self::decoder::{Decoded, decode};
use super::*;

const TYPES: [&str; 3] = ["pageview", "click", "custom"];

/// An event of which most is absent.
fn bare(site: &str) -> EventRow<'_> {
    EventRow {
        website_id: site.as_bytes(),
        event_type: b"click",
        url: b"",
        referrer: None,
        session_id: b"",
        visitor_id: b"",
        device_type: None,
        browser: None,
        os: None,
        location: None,
        properties: None,
        created_at: 0,
        received_at: 0,
    }
}

fn block_of<'a>(builder: &mut BlockBuilder, rows: impl IntoIterator<Item = (u32, u64, EventRow<'a>)>) -> Block {
    for (node, seq, row) in rows {
        builder.push(node, seq, &row);
    }
    builder.finish()
}

fn bytes_of(block: &Block) -> Vec<u8> {
    let bytes = block.chunks().concat();
    assert_eq!(bytes.len(), block.len());
    bytes
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The block that ClickHouse 26.7 answers over HTTP to:
///
/// ```sql
/// SELECT * FROM VALUES('site LowCardinality(String), type Enum8(\'pageview\' = 1, \'click\' = 2, \'custom\' = 3),
///     created_at DateTime64(3, \'UTC\'), received_at DateTime64(3, \'UTC\'), node UInt32, seq UInt64, visitor String,
///     session String, url String, properties String, referrer LowCardinality(String), device LowCardinality(String),
///     browser LowCardinality(String), os LowCardinality(String), location LowCardinality(String), flags UInt8',
///   ('site-b', 'pageview', '2026-01-28 20:00:00.001', '2026-01-28 20:00:00.002', 0, 1, 'v1', 's1',
///     'https://b.example/', '', '', '', '', '', '', 0),
///   ('site-a', 'click', '1970-01-01 00:00:00.000', '2026-01-28 20:00:00.003', 7, 18446744073709551615, 'v\02', 's2',
///     concat('https://a.example/', repeat('a', 282)), '{"a":"\\u0000"}', 'https://r.example/1', 'mobile', 'Firefox',
///     'Linux', 'Österreich', 0),
///   ('site-b', 'custom', '2299-12-31 23:59:59.999', '2026-01-28 20:00:00.003', 4294967295, 300, '\0', '', '😀', '{}',
///     'https://r.example/2', 'desktop', 'Firefox', '', 'Japan', 0),
///   ('site-b', 'pageview', '2026-01-28 20:00:00.000', '2026-01-28 20:00:00.003', 0, 301, 'v1', 's1', 'x', '',
///     'https://r.example/1', 'mobile', '', 'Linux\0', 'Österreich', 0))
/// FORMAT Native
/// ```
const GOLDEN: &str = include_str!("tests/golden.hex");

#[test]
fn a_block_is_what_clickhouse_writes_itself() {
    let long = format!("https://a.example/{}", "a".repeat(282));
    let text = |text: &'static str| Some(text.as_bytes());
    let (first_ms, received_at) = (1_769_630_400_001, 1_769_630_400_003);
    let common = EventRow { session_id: b"s1", visitor_id: b"v1", received_at, ..bare("site-b") };
    let rows = [
        EventRow {
            event_type: b"pageview",
            url: b"https://b.example/",
            created_at: first_ms,
            received_at: first_ms + 1,
            ..common
        },
        EventRow {
            website_id: b"site-a",
            url: long.as_bytes(),
            referrer: text("https://r.example/1"),
            session_id: b"s2",
            visitor_id: b"v\x002",
            device_type: text("mobile"),
            browser: text("Firefox"),
            os: text("Linux"),
            location: text("Österreich"),
            properties: text(r#"{"a":"\u0000"}"#),
            ..common
        },
        EventRow {
            event_type: b"custom",
            url: "😀".as_bytes(),
            referrer: text("https://r.example/2"),
            session_id: b"",
            visitor_id: b"\0",
            device_type: text("desktop"),
            browser: text("Firefox"),
            location: text("Japan"),
            properties: text("{}"),
            // The end of the year 9999, which becomes the end of 2299.
            created_at: 253_402_300_799_999,
            ..common
        },
        EventRow {
            event_type: b"pageview",
            url: b"x",
            referrer: text("https://r.example/1"),
            device_type: text("mobile"),
            os: text("Linux\0"),
            location: text("Österreich"),
            created_at: first_ms - 1,
            ..common
        },
    ];
    let keys = [(0, 1), (7, u64::MAX), (u32::MAX, 300), (0, 301)];
    let block =
        block_of(&mut BlockBuilder::new(), keys.into_iter().zip(rows).map(|((node, seq), row)| (node, seq, row)));
    assert_eq!(hex(&bytes_of(&block)), GOLDEN.replace('\n', ""));
    // What `xxh128sum` says of the same bytes.
    assert_eq!(hex(&block.hash()), "04e7ec5e6611494586ea8907c6af6994");
}

/// One to four bytes an index, as ClickHouse 26.7 chooses for:
///
/// ```sql
/// SELECT toLowCardinality(toString(number)) AS site, CAST('click' AS Enum8('pageview' = 1, 'click' = 2, 'custom' = 3))
///     AS type, toDateTime64(number, 3, 'UTC') AS created_at, created_at AS received_at, toUInt32(0) AS node,
///     number AS seq, '' AS visitor, '' AS session, '' AS url, '' AS properties, toLowCardinality('') AS referrer,
///     referrer AS device, referrer AS browser, referrer AS os, referrer AS location, toUInt8(0) AS flags
/// FROM numbers(254) SETTINGS max_block_size = 100000 FORMAT Native
/// ```
#[test]
fn an_index_is_as_wide_as_clickhouse_makes_it() {
    let mut builder = BlockBuilder::new();
    for (count, len, hash) in [
        (254, 11_659, "f571c1c8c086b216be30e3f1d675817e"),
        (255, 11_958, "b0dbb6dbddb2d4e916c5f83d91713ce5"),
        (65_534, 3_069_582, "e24fbfeae74af8ca53efdc58b57a8ae5"),
        (65_535, 3_200_699, "7e56b47b80d73bfac07e190b44d40e99"),
    ] {
        for seq in 0_u64..count {
            let (site, time) = (seq.to_string(), seq.cast_signed() * 1_000);
            builder.push(0, seq, &EventRow { created_at: time, received_at: time, ..bare(&site) });
        }
        assert_eq!(builder.bytes(), len);
        let block = builder.finish();
        assert_eq!((block.len(), &*hex(&block.hash())), (len, hash), "{count}");
        builder.take_back(block);
    }
}

#[test]
fn no_rows_are_no_bytes() {
    let mut builder = BlockBuilder::new();
    for _ in 0..2 {
        assert_eq!((builder.rows(), builder.bytes()), (0, 0));
        let empty = builder.finish();
        assert!(empty.is_empty() && empty.rows() == 0 && empty.chunks().is_empty());
        let block = block_of(&mut builder, [(0, 1, bare("a"))]);
        assert!(!block.is_empty() && block.rows() == 1);
        builder.take_back(block);
    }
}

#[test]
fn many_different_texts_are_right_and_their_memory_is_let_go() {
    let texts: Vec<_> = (0..100_000).map(|number| format!("https://site-{number}.example/")).collect();
    let rows =
        || (0..).zip(&texts).map(|(seq, text)| (0, seq, EventRow { referrer: Some(text.as_bytes()), ..bare("a") }));
    let mut builder = BlockBuilder::new();
    let block = block_of(&mut builder, rows());
    let decoded = decode(&bytes_of(&block));
    assert!(decoded.iter().map(|row| &*row.words[0]).eq(texts.iter().map(String::as_bytes)));
    let referrer = &builder.dictionaries[1];
    assert!(referrer.kept_bytes() <= 1024 * 1024, "{}", referrer.kept_bytes());
    assert_eq!(block_of(&mut builder, rows()).hash(), block.hash());
}

#[test]
fn memory_serves_the_next_block() {
    let mut builder = BlockBuilder::new();
    let rows = || (0..1_000).map(|seq| (0, seq, bare("a")));
    let places = |block: &Block| block.chunks().iter().map(|chunk| chunk.as_ptr()).collect::<Vec<_>>();
    let first = block_of(&mut builder, rows());
    let first_places = places(&first);
    // Given back in the middle of the next one, it serves the one after that.
    builder.push(0, 1, &bare("b"));
    builder.take_back(first);
    let second = builder.finish();
    let third = block_of(&mut builder, rows());
    assert_eq!(places(&third), first_places);
    // Somebody still holds it.
    let (held, bytes) = (third.clone(), bytes_of(&third));
    builder.take_back(third);
    assert!(builder.spare.iter().all(|buffer| buffer.capacity() == 0), "a copy is no memory that was given back");
    builder.take_back(second);
    let fourth = block_of(&mut builder, rows());
    assert!(places(&fourth).iter().all(|place| !first_places.contains(place)));
    assert_eq!((bytes_of(&held), bytes_of(&fourth)), (bytes.clone(), bytes));
}

#[test]
fn a_builder_keeps_no_more_than_its_bound() {
    let url = "u".repeat(1024 * 1024);
    let row = EventRow { url: url.as_bytes(), ..bare("a") };
    let mut builder = BlockBuilder::new();
    let block = block_of(&mut builder, (0..KEPT_BYTES_MAX as u64 / (1024 * 1024) + 1).map(|seq| (0, seq, row)));
    builder.take_back(block);
    let kept: usize = builder.spare.iter().map(Vec::capacity).sum();
    assert!(kept > 0 && kept <= KEPT_BYTES_MAX, "{kept}");
}

#[test]
fn times_are_those_that_clickhouse_has() {
    for (time, sent) in [
        (i64::MIN, -2_208_988_800_000),
        (-2_208_988_800_001, -2_208_988_800_000),
        (-1, -1),
        (10_413_791_999_999, 10_413_791_999_999),
        (10_413_792_000_000, 10_413_791_999_999),
        (253_402_300_799_999, 10_413_791_999_999),
    ] {
        assert_eq!(sent_time_ms(time), sent);
        let row = EventRow { created_at: time, received_at: time, ..bare("a") };
        let block = block_of(&mut BlockBuilder::new(), [(0, 1, row)]);
        let [row] = &*decode(&bytes_of(&block)) else { panic!("one row") };
        assert_eq!((row.created_at, row.received_at), (sent, sent));
    }
}

/// Texts of which many come again, and some are long.
fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => prop::sample::select(vec!["", "a", "b", "\0", "ä"]).prop_map(str::to_owned),
        4 => ".{0,12}",
        1 => (prop::sample::select(vec![127, 128, 240, 241, 16_383, 16_384]), "[a-c]").prop_map(|(len, text)| text.repeat(len)),
    ]
}

fn any_row() -> impl Strategy<Value = Decoded> {
    let keys = (any::<u32>(), any::<u64>());
    let times = (TIMES_MS, TIMES_MS);
    let bytes = || any_text().prop_map(String::into_bytes);
    let texts = prop::array::uniform4(bytes());
    let words = prop::array::uniform5(bytes());
    (keys, times, bytes(), 1..=3_u8, texts, words).prop_map(
        |((node, seq), (created_at, received_at), site, kind, texts, words)| Decoded {
            site,
            kind,
            created_at,
            received_at,
            node,
            seq,
            texts,
            words,
            flags: 0,
        },
    )
}

/// The event of which a block has this.
fn event(row: &Decoded) -> (u32, u64, EventRow<'_>) {
    let [visitor_id, session_id, url, properties] = row.texts.each_ref().map(Vec::as_slice);
    // What is absent and what is empty is sent alike.
    let [referrer, device_type, browser, os, location] =
        row.words.each_ref().map(|text| (!text.is_empty()).then_some(text.as_slice()));
    let event = EventRow {
        website_id: &row.site,
        event_type: TYPES[usize::from(row.kind) - 1].as_bytes(),
        url,
        referrer,
        session_id,
        visitor_id,
        device_type,
        browser,
        os,
        location,
        properties: Some(properties),
        created_at: row.created_at,
        received_at: row.received_at,
    };
    (row.node, row.seq, event)
}

proptest! {
    /// Whatever is stored, a block has it, in blocks that share their memory, and is as long as was said.
    #[test]
    fn a_block_has_what_was_pushed(blocks in prop::collection::vec(prop::collection::vec(any_row(), 0..40), 1..4)) {
        let mut builder = BlockBuilder::new();
        for rows in blocks {
            for row in &rows {
                let (node, seq, row) = event(row);
                builder.push(node, seq, &row);
            }
            let (len, count) = (builder.bytes(), builder.rows());
            let block = builder.finish();
            prop_assert_eq!((block.len(), block.rows(), count), (len, rows.len(), rows.len()));
            if !rows.is_empty() {
                prop_assert_eq!(&decode(&bytes_of(&block)), &rows);
            }
            let again = block_of(&mut BlockBuilder::new(), rows.iter().map(event));
            prop_assert_eq!((bytes_of(&again), again.hash()), (bytes_of(&block), block.hash()));
            builder.take_back(block);
        }
    }
}
