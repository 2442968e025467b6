//! What lies on the disk is what docs/format.md says: its tables, and its files read by that page alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    hash::Hasher,
    path::Path,
};

use aes::{
    Aes128,
    cipher::{BlockCipherDecrypt, KeyInit},
};
use aes_siv::siv::Aes128Siv;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use rusqlite::Connection;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use siphasher::sip128::{Hasher128, SipHasher24};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::papers::Paper;
use harness::{Daemon, event_with, wait_until, work_dir};

const PAGE: &str = "docs/format.md";
const ROWS_MAX: &str = "--segment-rows-max=3000";

/// Sends events of two websites, of all types and with times that do not rise; returns their code.
fn send(daemon: &Daemon, count: usize) -> String {
    let codes = ["one.example", "two.example"].map(|domain| daemon.register(domain));
    let event = |at: usize| {
        let event_type = ["pageview", "click", "custom"][at % 3];
        let time = 1_700_000_000_000_u64 + (at as u64 * 7_919) % 100_000;
        let changes = json!({
            "eventType": event_type, "sessionId": format!("s{}", at % 300), "visitorId": format!("v{}", at % 200),
            "timestamp": time
        });
        event_with(&codes[usize::from(at.is_multiple_of(7))], changes)
    };
    for first in (0..count).step_by(500) {
        let events: Vec<Value> = (first..count.min(first + 500)).map(event).collect();
        let response = daemon.client().post("/api/v1/events/batch", json!({ "events": events }).to_string());
        assert_eq!(response.status, 201, "{}", response.text());
        wait_until("the next segment is prepared", || (daemon.segments("prepared") == 1).then_some(()));
    }
    codes[0].clone()
}

fn open(path: &Path) -> Connection {
    Connection::open(path).unwrap()
}

/// Every row of a question, a text each.
fn rows(connection: &Connection, sql: &str) -> Vec<String> {
    let mut select = connection.prepare(sql).unwrap();
    let columns = select.column_count();
    let row = |row: &rusqlite::Row<'_>| {
        let values = (0..columns).map(|column| Ok(format!("{:?}", row.get::<_, rusqlite::types::Value>(column)?)));
        Ok(values.collect::<rusqlite::Result<Vec<_>>>()?.join(" "))
    };
    select.query_map([], row).unwrap().map(Result::unwrap).collect()
}

/// What is asked of each table and index.
const SHAPES: [&str; 4] = [
    "SELECT name, type, \"notnull\", dflt_value, pk FROM pragma_table_info('{}')",
    "SELECT name FROM pragma_index_info('{}')",
    "SELECT wr, strict FROM pragma_table_list('{}')",
    "SELECT origin, group_concat(of.name) FROM pragma_index_list('{}') AS list, pragma_index_info(list.name) AS of
     WHERE \"unique\" GROUP BY list.name",
];

/// What tables and indexes there are: their columns, what they refuse, and of which kind they are.
fn shape(connection: &Connection) -> BTreeMap<String, Vec<String>> {
    let mut shape = BTreeMap::new();
    let names = "SELECT name, coalesce(sql, '') FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%'";
    let mut select = connection.prepare(names).unwrap();
    let named = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    for (name, sql) in named.map(|row: rusqlite::Result<(String, String)>| row.unwrap()) {
        let mut told: Vec<_> = SHAPES.iter().flat_map(|ask| rows(connection, &ask.replace("{}", &name))).collect();
        let checks = sql.split("CHECK (").skip(1);
        told.extend(checks.map(|rest| rest.split([')', '\n']).next().unwrap().to_owned()));
        shape.insert(name, told);
    }
    shape
}

/// What the page's blocks with these names make.
fn told(blocks: &[&str]) -> BTreeMap<String, Vec<String>> {
    let connection = Connection::open_in_memory().unwrap();
    let page = Paper::of(PAGE);
    for block in blocks {
        let named = page.blocks.iter().find(|(info, _)| *info == format!("sql {block}"));
        connection.execute_batch(&named.unwrap_or_else(|| panic!("there is no block {block}")).1).unwrap();
    }
    shape(&connection)
}

#[test]
fn tables_are_those_of_the_papers() {
    let work = work_dir();
    let data = work.path().join("data");
    let daemon = Daemon::start_in(&data, &[ROWS_MAX]);
    send(&daemon, 3_500);
    daemon.wait_until_sealed();
    daemon.stop();
    let (catalog, sealed, active) =
        (data.join("catalog.db"), data.join("segments/000000000001.g2.db"), data.join("segments/000000000002.db"));
    assert_eq!(shape(&open(&active)), told(&["segment"]));
    assert_eq!(shape(&open(&sealed)), told(&["segment", "sealed"]));
    assert_eq!(shape(&open(&catalog)), told(&["catalog"]));
    assert_ne!(told(&["segment"]), told(&["segment", "sealed"]), "shapes differ");
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE)).unwrap();
    let number = |path: &Path, at: usize| u32::from_be_bytes(fs::read(path).unwrap()[at..at + 4].try_into().unwrap());
    for path in [&catalog, &sealed, &active] {
        assert!(page.contains(&format!("`application_id`: `{:#x}`", number(path, 68))), "{}", path.display());
    }
    let versions =
        format!("`user_version`: {} in a segment, {} in the catalog", number(&active, 60), number(&catalog, 60));
    assert!(page.contains(&versions) && number(&sealed, 60) == number(&active, 60), "{versions}");
    let log_versions = |path: &Path| fs::read(path).unwrap()[18..20].to_vec();
    assert_eq!([log_versions(&sealed), log_versions(&active), log_versions(&catalog)], [[1, 1], [2, 2], [2, 2]]);
}

/// Numbers of 8 bytes, one after the other.
struct Numbers<'a>(&'a [u8]);

impl Numbers<'_> {
    fn bytes(&mut self, count: usize) -> &[u8] {
        let (bytes, rest) = self.0.split_at(count);
        self.0 = rest;
        bytes
    }

    fn next(&mut self) -> u64 {
        u64::from_le_bytes(self.bytes(8).try_into().unwrap())
    }

    fn next_32(&mut self) -> u32 {
        u32::from_le_bytes(self.bytes(4).try_into().unwrap())
    }

    /// Some fingerprints: where they are, how many, and every 1,024th.
    fn fingerprints(&mut self) -> (usize, usize, Vec<u32>) {
        let (at, count) = (self.next() as usize, self.next() as usize);
        (at, count, (0..count.div_ceil(1_024)).map(|_| self.next_32()).collect())
    }
}

/// A row as its segment has it: sequence, website, type, time, session, visitor.
type Row = (u64, String, u64, i64, String, String);

fn read_rows(segment: &Path) -> Vec<Row> {
    let connection = open(segment);
    let mut select = connection
        .prepare("SELECT id, websiteId, eventType, createdAt, sessionId, visitorId FROM Event ORDER BY id")
        .unwrap();
    let rows = select.query_map([], |row| {
        let kind = ["pageview", "click", "custom"].iter().position(|kind| row.get_ref(2).unwrap() == (*kind).into());
        Ok((row.get::<_, i64>(0)? as u64, row.get(1)?, kind.unwrap() as u64, row.get(3)?, row.get(4)?, row.get(5)?))
    });
    rows.unwrap().map(Result::unwrap).collect()
}

/// The parts of a file of blocks: the data and the header.
fn parts(file: &[u8]) -> (&[u8], &[u8]) {
    let (rest, tail) = file.split_at(file.len() - 32);
    let mut tail = Numbers(tail);
    assert_eq!(tail.bytes(8), b"hitlblk1");
    let (data, header, hash) = (tail.next() as usize, tail.next() as usize, tail.next());
    assert_eq!(xxh3_64(&file[data..file.len() - 8]), hash);
    let (data, rest) = rest.split_at(data);
    let (header, hashes) = rest.split_at(header);
    let mut hashes = Numbers(hashes);
    assert!(data.chunks(16_384).all(|block| xxh3_64(block) == hashes.next()) && hashes.0.is_empty());
    (data, header)
}

#[test]
fn laid_keys_are_read_as_the_papers_say() {
    let work = work_dir();
    let data = work.path().join("data");
    let daemon = Daemon::start_in(&data, &[ROWS_MAX]);
    // The sealer finds something in its way.
    fs::create_dir_all(data.join("segments/000000000001.building/x")).unwrap();
    send(&daemon, 3_500);
    let keys = data.join("segments/000000000001.db-keys");
    wait_until("keys are laid down", || keys.exists().then_some(()));
    daemon.stop();
    let (file, rows) = (fs::read(keys).unwrap(), read_rows(&data.join("segments/000000000001.db")));
    let (data, header) = parts(&file);
    let (first, last) = (rows[0].0, rows.last().unwrap().0);
    let mut header = Numbers(header);
    assert_eq!([1, 1, first, last], [(); 4].map(|()| header.next()));
    let (sample, posts_at, posts_end) = (header.next(), header.next() as usize, header.next() as usize);
    let fingerprint = |seed: u64, id: &str| xxh3_64_with_seed(id.as_bytes(), seed) as u32;
    for seed in 0..2 {
        let (at, count, posts) = header.fingerprints();
        let mut entries = Numbers(&data[at..at + 8 * count]);
        let entries: Vec<_> = (0..count).map(|_| (entries.next_32(), entries.next_32())).collect();
        let of = |row: &Row| (fingerprint(seed, if seed == 0 { &row.4 } else { &row.5 }), (row.0 - first) as u32);
        let wanted: BTreeSet<_> = rows.iter().map(of).collect();
        assert_eq!(entries, wanted.into_iter().collect::<Vec<_>>());
        assert_eq!(posts, entries.iter().step_by(1_024).map(|(of, _)| *of).collect::<Vec<_>>());
    }
    let (mut keys_of_all, mut posts) = (BTreeSet::new(), Vec::new());
    while !header.0.is_empty() {
        let (kind, length) = (header.next(), header.next() as usize);
        let website = String::from_utf8(header.bytes(length).to_vec()).unwrap();
        let (at, count) = (header.next() as usize, header.next() as usize);
        let times = (header.next().cast_signed(), header.next().cast_signed());
        let mut entries = Numbers(&data[at..at + 12 * count]);
        let keys: Vec<_> = (0..count).map(|_| (entries.next().cast_signed(), entries.next_32())).collect();
        assert!(keys.is_sorted() && times == (keys[0].0, keys[count - 1].0));
        posts.extend(keys.iter().step_by(1_024).copied());
        keys_of_all.extend(keys.into_iter().map(|(time, row)| (first + u64::from(row), website.clone(), kind, time)));
    }
    assert!(
        keys_of_all.iter().eq(&rows.iter().map(|row| (row.0, row.1.clone(), row.2, row.3)).collect::<BTreeSet<_>>())
    );
    let mut of_posts = Numbers(&data[posts_at..posts_end]);
    assert_eq!(posts, posts.iter().map(|_| (of_posts.next().cast_signed(), of_posts.next_32())).collect::<Vec<_>>());
    let step = ((last - first) / 64).max(1);
    let mut sampled = Vec::new();
    for (sequence, _, kind, time, session, visitor) in
        rows.iter().filter(|of| (of.0 - first).is_multiple_of(step) || of.0 == last)
    {
        sampled.extend(sequence.to_le_bytes().iter().chain(&time.to_le_bytes()).chain(&(*kind as u32).to_le_bytes()));
        sampled.extend(fingerprint(0, session).to_le_bytes().iter().chain(&fingerprint(1, visitor).to_le_bytes()));
    }
    assert_eq!(xxh3_64(&sampled), sample);
}

#[test]
fn ids_are_read_as_the_papers_say() {
    let work = work_dir();
    let data = work.path().join("data");
    let daemon = Daemon::start_in(&data, &[]);
    let code = daemon.register("one.example");
    let event = |at: usize| event_with(&code, json!({ "eventId": format!("name-{at}"), "timestamp": 1_000 + at }));
    for first in (0..1_500).step_by(500) {
        let events: Vec<Value> = (first..first + 500).map(event).collect();
        let answer = daemon.client().post("/api/v1/events/batch", json!({ "events": events }).to_string());
        assert_eq!(answer.status, 201);
    }
    let website = daemon.client().get("/api/v1/websites").json()["websites"][0]["id"].as_str().unwrap().to_owned();
    daemon.stop();
    let key: [u8; 16] =
        open(&data.join("catalog.db")).query_row("SELECT idHashKey FROM Log", [], |row| row.get(0)).unwrap();
    let hash_of = |name: &str| {
        let mut hasher = SipHasher24::new_with_key(&key);
        hasher.write(format!("{website}\n{name}").as_bytes());
        hasher.finish128().as_u128()
    };
    let rows = open(&data.join("segments/000000000001.db"))
        .prepare("SELECT id, eventIdHash, createdAt FROM Event ORDER BY id")
        .unwrap()
        .query_map([], |row| {
            Ok((u128::from_be_bytes(row.get(1)?), row.get::<_, i64>(0)? as u64, row.get::<_, i64>(2)?))
        })
        .unwrap()
        .map(Result::unwrap)
        .collect::<Vec<_>>();
    for (at, (hash, ..)) in rows.iter().enumerate() {
        assert_eq!(*hash, hash_of(&format!("name-{at}")));
    }
    let file = fs::read(data.join("ids/00000000000000000001-00000000000000001500.ids")).unwrap();
    let (data, header) = parts(&file);
    let mut header = Numbers(header);
    assert_eq!([1, 1, 1_500], [(); 3].map(|()| header.next()));
    assert!(header.next() > 1_700_000_000_000, "when the newest arrived");
    assert_eq!([0, 0, 1_500, 3], [(); 4].map(|()| header.next()));
    let posts: Vec<_> = (0..3).map(|_| header.next()).collect();
    let filters: Vec<_> = (0..header.next()).map(|_| header.next()..header.next()).collect();
    assert!(header.0.is_empty());
    let mut entries = Numbers(&data[..32 * 1_500]);
    let mut entry = || (u128::from(entries.next()) << 64 | u128::from(entries.next()), entries.next(), entries.next());
    let found: Vec<_> = (0..1_500).map(|_| entry()).map(|(hash, id, time)| (hash, id, time.cast_signed())).collect();
    assert!(found.iter().eq(&rows.into_iter().collect::<BTreeSet<_>>()));
    assert_eq!(posts, found.iter().step_by(512).map(|(hash, ..)| (hash >> 64) as u64).collect::<Vec<_>>());
    // So few ids have no filter.
    assert_eq!((filters, data.len()), (Vec::new(), 32 * 1_500));
}

#[test]
fn ids_and_cursors_are_made_as_the_papers_say() {
    let work = work_dir();
    let data = work.path().join("data");
    let daemon = Daemon::start_in(&data, &[]);
    let code = send(&daemon, 20);
    let page = daemon.client().get(&format!("/api/v1/events?trackingCode={code}&limit=2")).json();
    daemon.stop();
    let key: [u8; 16] =
        open(&data.join("catalog.db")).query_row("SELECT idKey FROM Epoch", [], |row| row.get(0)).unwrap();
    let rows = read_rows(&data.join("segments/000000000001.db"));
    let shown = &page["events"][1];
    let digits = shown["id"].as_str().unwrap().strip_prefix('c').unwrap();
    assert_eq!(digits.len(), 25);
    let mut block = u128::from_str_radix(&digits[1..], 36).unwrap();
    block += 36_u128.pow(24).wrapping_mul(u128::from_str_radix(&digits[..1], 36).unwrap());
    let mut block = block.to_be_bytes().into();
    Aes128::new(&key.into()).decrypt_block(&mut block);
    let block: [u8; 16] = block.into();
    let sequence = u64::from_be_bytes(block[4..12].try_into().unwrap());
    assert_eq!((&block[..4], &block[12..]), (&[0; 4][..], &[0; 4][..]));
    let row = rows.iter().find(|row| row.0 == sequence).unwrap();
    assert_eq!(shown["sessionId"], *row.4);
    let sealed = BASE64_URL_SAFE_NO_PAD.decode(page["pagination"]["next"].as_str().unwrap()).unwrap();
    let key: [u8; 32] = Sha256::new().chain_update("hitlog cursor").chain_update(key).finalize().into();
    let listing = [row.1.as_bytes(), b"", b"", b"", &i64::MIN.to_be_bytes(), &i64::MAX.to_be_bytes()];
    let plain = Aes128Siv::new(&key.into()).decrypt(listing, &sealed).unwrap();
    assert_eq!(sealed.len(), 16 + plain.len());
    let wanted = [row.3 as u64, sequence, rows.last().unwrap().0, 2].map(u64::to_be_bytes).concat();
    assert_eq!(plain, wanted);
}
