use std::path::Path;

use rusqlite::Connection;

use super::{catalog_file::WAL_DUE_BYTES, *};
use crate::{
    domain::Domain,
    event::{Gpc, HostsPolicy},
    event_id::{Epoch, Epochs},
    store::{
        format::{DataDir, file, room::Room},
        tests::{metrics, options},
    },
};

fn open(path: &Path) -> (DataDir, CatalogFile) {
    let directory = DataDir::open(path).unwrap();
    let catalog = CatalogFile::open(&directory, Room::Enough).unwrap();
    (directory, catalog)
}

fn memory(directory: &DataDir) -> InMemory {
    let segments = Arc::new(Segments::new(directory.clone(), options(10).segments, Arc::clone(&metrics().store)));
    let erasures = Arc::new(Erasures::new(crossbeam_channel::bounded(1).0, Arc::clone(&metrics().store)));
    InMemory { segments, erasures, shipped: Arc::default(), erasures_max: 1 }
}

fn new(name: &str, domain: &str) -> NewWebsite {
    NewWebsite::named(name, domain)
}

fn refused<T>(result: Result<T, ChangeError>) -> CatalogError {
    match result {
        Err(ChangeError::Refused(error)) => error,
        Err(ChangeError::Fatal(error)) => panic!("{error}"),
        Ok(_) => panic!("not refused"),
    }
}

#[test]
fn websites_outlive_the_process() {
    let work = tempfile::tempdir().unwrap();
    let (directory, mut catalog) = open(work.path());
    let first = catalog.create(new("First", "first.example")).unwrap_or_else(|_| panic!());
    let second = catalog.create(new("Second", "second.example")).unwrap_or_else(|_| panic!());
    assert_eq!(refused(catalog.create(new("Third", "first.example"))), CatalogError::DomainTaken);
    let goals = [
        Goal { name: "A".into(), aim: Aim::Event("a\"".into()) },
        Goal { name: "B".into(), aim: Aim::Page("/b*".into()) },
    ];
    let change = WebsiteChange {
        description: Some(Some("d".into())),
        timezone: Some(Some("Europe/Berlin".into())),
        hosts: Some(["www.second.example".to_owned()].into()),
        hosts_policy: Some(HostsPolicy::Refuse),
        gpc: Some(Gpc::Anonymous),
        goals: Some(goals.into()),
        ..WebsiteChange::default()
    };
    let changed = catalog.update(&second.id, change).unwrap_or_else(|_| panic!());
    assert_eq!((&changed.name, &changed.tracking_code), (&second.name, &second.tracking_code));
    assert_eq!((changed.timezone.as_deref(), changed.hosts.len(), changed.goals.len()), (Some("Europe/Berlin"), 1, 2));
    let taken = WebsiteChange { domain: Some(Domain::parse("first.example").unwrap()), ..WebsiteChange::default() };
    assert_eq!(refused(catalog.update(&second.id, taken)), CatalogError::DomainTaken);
    let memory = memory(&directory);
    let (_, erasure) = catalog.delete(&first.id, &memory).unwrap_or_else(|_| panic!());
    assert_eq!(refused(catalog.delete(&first.id, &memory)), CatalogError::NotFound);
    assert_eq!(refused(catalog.delete(&second.id, &memory)), CatalogError::ErasuresFull, "one erasure is the most");
    let again = catalog.create(new("First again", "first.example")).unwrap_or_else(|_| panic!());
    let epochs = catalog.epochs().clone();
    drop((catalog, directory, memory));

    let (_directory, catalog) = open(work.path());
    assert_eq!(*catalog.epochs(), epochs);
    let websites = catalog.websites();
    assert_eq!(websites.len(), 2);
    assert_eq!(websites.get(&second.id), Some(changed));
    assert_eq!(websites.id_of_code(&again.tracking_code, 0).as_ref(), Some(&again.id));
    assert_eq!(websites.id_of_code(&first.tracking_code, 0), None);
    assert_eq!(websites.newest_first()[0].id, again.id);
    let pending = catalog.erasures().unwrap();
    assert_eq!(pending.iter().map(|pending| &*pending.id).collect::<Vec<_>>(), [&*erasure]);
}

#[test]
fn codes_are_as_the_contract_says() {
    let work = tempfile::tempdir().unwrap();
    let (_directory, mut catalog) = open(work.path());
    let website = catalog.create(new("A", "a.example")).unwrap_or_else(|_| panic!());
    let parts: Vec<_> = website.tracking_code.split('-').collect();
    assert_eq!((parts[0], parts[1].len(), parts[2].len(), parts.len()), ("pm", 6, 13, 3));
    assert!(parts[1].bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()));
    assert!(parts[2].bytes().all(|byte| byte.is_ascii_digit()));
}

fn renewed(catalog: &mut CatalogFile, id: &str, valid_ms: i64) -> Renewed {
    let renewal = CodeRenewal { valid_ms, retired_max: 3 };
    catalog.renew_code(id, renewal).unwrap_or_else(|_| panic!("not renewed"))
}

/// How many codes are noted that websites had.
fn noted(catalog: &CatalogFile) -> i64 {
    catalog.connection.query_row("SELECT count(*) FROM RetiredCode", [], |row| row.get(0)).unwrap()
}

#[test]
fn a_website_gets_a_new_code_and_keeps_the_old_one_for_a_while() {
    const HOUR: i64 = 3_600_000;
    let work = tempfile::tempdir().unwrap();
    let (directory, mut catalog) = open(work.path());
    let website = catalog.create(new("First", "first.example")).unwrap_or_else(|_| panic!());
    let other = catalog.create(new("Other", "other.example")).unwrap_or_else(|_| panic!());
    let first = renewed(&mut catalog, &website.id, HOUR);
    assert_eq!(first.previous_code, website.tracking_code);
    assert!(first.previous_valid_until >= now_ms() + HOUR - 60_000 && first.website.updated_at >= website.updated_at);
    let second = renewed(&mut catalog, &website.id, 2 * HOUR);
    assert_eq!((&second.previous_code, second.website.age()), (&first.website.tracking_code, website.age()));
    // A change of the website takes no code from it.
    let change = WebsiteChange { name: Some("Renamed".into()), ..WebsiteChange::default() };
    catalog.update(&website.id, change).unwrap_or_else(|_| panic!());
    let third = renewed(&mut catalog, &website.id, 3 * HOUR);
    let codes = [&website.tracking_code, &second.previous_code, &third.previous_code, &third.website.tracking_code];
    let refused = refused(catalog.renew_code(&website.id, CodeRenewal { valid_ms: 1, retired_max: 3 }));
    assert_eq!(refused, CatalogError::CodesFull(first.previous_valid_until), "three are the most");
    let found = |catalog: &CatalogFile, now: i64| {
        let websites = catalog.websites();
        codes.map(|code| websites.id_of_code(code, now).is_some_and(|id| id == website.id))
    };
    let now = now_ms();
    assert_eq!((found(&catalog, now), noted(&catalog)), ([true; 4], 3));
    drop((directory, catalog));

    let (directory, mut catalog) = open(work.path());
    assert_eq!(found(&catalog, now), [true; 4], "a start knows them");
    assert_eq!(found(&catalog, first.previous_valid_until), [false, true, true, true]);
    assert_eq!(found(&catalog, now + 100 * HOUR), [false, false, false, true]);
    assert_eq!(catalog.websites().get(&website.id).unwrap().name, "Renamed");
    // What ends at once takes nobody's place, and what has ended is forgotten.
    let last = renewed(&mut catalog, &website.id, 0);
    let is_known = |catalog: &CatalogFile, code: &str| catalog.websites().id_of_code(code, now_ms()).is_some();
    assert!(!is_known(&catalog, &last.previous_code) && is_known(&catalog, &last.website.tracking_code));
    let expire = "UPDATE RetiredCode SET validUntil = 5 WHERE code = ?1";
    catalog.connection.execute(expire, [&website.tracking_code]).unwrap();
    drop((directory, catalog));
    let (directory, mut catalog) = open(work.path());
    assert_eq!((noted(&catalog), is_known(&catalog, &website.tracking_code)), (2, false));
    renewed(&mut catalog, &other.id, HOUR);
    assert_eq!(noted(&catalog), 3);
    let memory = memory(&directory);
    catalog.delete(&website.id, &memory).unwrap_or_else(|_| panic!());
    assert_eq!((noted(&catalog), is_known(&catalog, &second.previous_code)), (1, false));
    assert!(is_known(&catalog, &other.tracking_code), "another's stay");
}

#[test]
fn a_newer_or_foreign_catalog_is_refused() {
    let work = tempfile::tempdir().unwrap();
    drop(open(work.path()));
    let path = work.path().join("catalog.db");
    let set = |pragma: &str, value: i64| {
        Connection::open(&path).unwrap().pragma_update(None, pragma, value).unwrap();
    };
    set("user_version", 99);
    let directory = DataDir::open(work.path()).unwrap();
    assert!(matches!(CatalogFile::open(&directory, Room::Enough), Err(OpenError::Newer { found: 99, .. })));
    set("user_version", 1);
    set("application_id", 5);
    assert!(matches!(CatalogFile::open(&directory, Room::Enough), Err(OpenError::NotOurs { .. })));
    std::fs::write(&path, "not a database at all, but longer than a header".repeat(9)).unwrap();
    assert!(matches!(CatalogFile::open(&directory, Room::Enough), Err(OpenError::Sqlite { .. })));
}

#[test]
fn the_write_ahead_log_stays_short() {
    let work = tempfile::tempdir().unwrap();
    let (directory, mut catalog) = open(work.path());
    catalog.connection.pragma_update(None, "synchronous", "OFF").unwrap();
    let log = || file::bytes(&file::with_suffix(&directory.catalog_path(), "-wal"));
    let mut longest = 0;
    for number in 0..1_000 {
        catalog.create(new("Test", &format!("{number}.example"))).unwrap_or_else(|_| panic!());
        catalog.checkpoint_if_due().unwrap();
        longest = longest.max(log());
    }
    assert!((WAL_DUE_BYTES..WAL_DUE_BYTES + 100_000).contains(&longest), "{longest}");
    assert!(log() < longest, "it has begun anew");
}

#[test]
fn an_older_catalog_has_one_epoch_and_its_backup_begins_another() {
    let work = tempfile::tempdir().unwrap();
    let path = work.path().join("catalog.db");
    let mut older = Connection::open(&path).unwrap();
    schema::CATALOG_MIGRATIONS.to_version(&mut older, 2).unwrap();
    older.pragma_update(None, "application_id", schema::APPLICATION_ID).unwrap();
    older.execute("INSERT INTO Log VALUES(1, 40, 7, ?1)", [[9_u8; 16]]).unwrap();
    let first = Epoch { first_sequence: 0, node: 7, key: [9; 16] };
    let epochs_of = |epochs: &Epochs| epochs.with_ends().map(|(epoch, _)| epoch).collect::<Vec<_>>();
    assert_eq!(epochs_of(&read_epochs(&older).unwrap()), [first]);
    mark_backup(&older, 5).unwrap();
    drop(older);

    let (directory, mut catalog) = open(work.path());
    assert_eq!((epochs_of(catalog.epochs()), catalog.sequence_floor()), (vec![first], 40));
    catalog.begin_epoch_of_copy(false, 41).unwrap();
    let second = epochs_of(catalog.epochs())[1];
    assert_eq!((epochs_of(catalog.epochs())[0], second.first_sequence), (first, 41));
    assert_ne!(second.key, first.key);
    catalog.begin_epoch_of_copy(false, 45).unwrap();
    assert_eq!(epochs_of(catalog.epochs()), [first, second], "the mark is gone");
    // Said at each start, it begins an epoch each time; but none that has no sequence stays.
    for _ in 0..3 {
        catalog.begin_epoch_of_copy(true, 45).unwrap();
    }
    let third = epochs_of(catalog.epochs())[2];
    assert_eq!((epochs_of(catalog.epochs()), third.first_sequence), (vec![first, second, third], 45));
    drop((directory, catalog));
    let (_directory, catalog) = open(work.path());
    assert_eq!(epochs_of(catalog.epochs()), [first, second, third]);
}

/// A range of ten events, of a segment that has its number.
fn range(first: u64) -> ShipRange {
    let unsent = ShipRange::unsent(first.cast_signed(), (first, first + 9), 1);
    ShipRange { rows: 10, bytes: 1_000, first_arrival: 1, attempts: 1, begun_at: Some(1), ..unsent }
}

fn begun() -> ShipChange {
    let target = ShipTarget { url: "u".into(), database: "d".into(), table: "t".into(), begun_at: 1 };
    ShipChange::Begun(target, ShipNode { first_sequence: 0, node: 1, instance: "a".into() })
}

#[test]
fn a_range_whose_segment_has_left_the_disk_stays_lost_whatever_comes_of_its_attempts() {
    let work = tempfile::tempdir().unwrap();
    let (directory, mut catalog) = open(work.path());
    let memory = memory(&directory);
    let mut change = |change| catalog.change_shipping(&change, &memory).unwrap_or_else(|_| panic!("{change:?}"));
    change(begun());
    for first in [1, 11] {
        change(ShipChange::Cut { confirmed: Vec::new(), opened: Some(range(first)), cut_up_to: first + 9 });
    }
    ship_table::drop_segment(&catalog.connection, 1, Some((1, 10))).unwrap();
    let mut change = |change| catalog.change_shipping(&change, &memory).unwrap_or_else(|_| panic!("{change:?}"));
    change(ShipChange::Remade { first: 1, with: vec![range(1)] });
    change(ShipChange::Ended { first: 1, end: RangeEnd::Dead(1), note: "no".into() });
    change(ShipChange::Cut { confirmed: vec![1, 11], opened: None, cut_up_to: 20 });
    let state = memory.shipped.state();
    assert_eq!((state.lost, state.dead, state.events, state.open.len()), (1, 0, 10, 0));
    // The segment behind it is damaged: what is lost of both begins with the same sequence.
    ship_table::drop_segment(&catalog.connection, 21, Some((21, 30))).unwrap();
    let lost = ShipRange { last: 40, ..range(21) };
    catalog.change_shipping(&ShipChange::Lost(lost, "gone".into()), &memory).unwrap_or_else(|_| panic!());
    let state = memory.shipped.state();
    assert_eq!((state.lost, state.cut_up_to), (2, 40));
}

#[test]
fn erasures_that_are_under_way_when_shipping_begins_are_the_targets_too() {
    let work = tempfile::tempdir().unwrap();
    let (directory, mut catalog) = open(work.path());
    let memory = memory(&directory);
    let website = catalog.create(new("First", "first.example")).unwrap_or_else(|_| panic!());
    catalog.delete(&website.id, &memory).unwrap_or_else(|_| panic!());
    assert_eq!(memory.shipped.state().erasures.len(), 0);
    catalog.change_shipping(&begun(), &memory).unwrap_or_else(|_| panic!());
    let erasures = memory.shipped.state().erasures;
    assert_eq!(erasures.values().map(|of| of.website_id.clone()).collect::<Vec<_>>(), [website.id.to_string()]);
}

#[test]
fn the_words_of_a_refusal_go_with_an_erasure_and_what_is_tried_again_counts_as_sent_long_ago() {
    let work = tempfile::tempdir().unwrap();
    let (directory, mut catalog) = open(work.path());
    let memory = memory(&directory);
    let website = catalog.create(new("First", "first.example")).unwrap_or_else(|_| panic!());
    for change in [
        begun(),
        ShipChange::Cut { confirmed: Vec::new(), opened: Some(range(1)), cut_up_to: 10 },
        ShipChange::Ended { first: 1, end: RangeEnd::Dead(1), note: "url = 'https://somebody'".into() },
    ] {
        catalog.change_shipping(&change, &memory).unwrap_or_else(|_| panic!());
    }
    let words = |catalog: &CatalogFile| {
        let sql = "SELECT error FROM ShipDead UNION ALL SELECT note FROM ShipRange WHERE note IS NOT NULL";
        let mut select = catalog.connection.prepare(sql).unwrap();
        select.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect::<Vec<String>>()
    };
    assert_eq!(words(&catalog).len(), 2);
    catalog.delete(&website.id, &memory).unwrap_or_else(|_| panic!());
    assert!(words(&catalog).iter().all(|words| words.contains("words are gone")), "{:?}", words(&catalog));
    catalog.change_shipping(&ShipChange::Retried, &memory).unwrap_or_else(|_| panic!());
    assert_eq!(memory.shipped.state().open[&1].begun_at, Some(0));
}

#[test]
fn what_was_lost_holds_its_segment_and_comes_back_in_part() {
    let work = tempfile::tempdir().unwrap();
    let (directory, mut catalog) = open(work.path());
    let memory = memory(&directory);
    memory.shipped.change(|state| state.now.is_on = true);
    let mut change = |change| catalog.change_shipping(&change, &memory).unwrap_or_else(|_| panic!("{change:?}"));
    change(begun());
    change(ShipChange::Lost(ShipRange::unsent(5, (1, 30), 1), "gone".into()));
    let may_go = |segment, last| memory.shipped.may_go(segment, last);
    assert_eq!((may_go(5, 10), may_go(6, 20)), (false, true), "its file may come back");
    let (with, lost) = (vec![range(1)], vec![ShipRange::unsent(6, (11, 30), 1)]);
    change(ShipChange::Found { first: 1, with, lost });
    let state = memory.shipped.state();
    assert_eq!((state.open.len(), state.lost, state.lost_segments.into_iter().collect()), (1, 1, vec![6]));
    assert_eq!((may_go(5, 10), may_go(6, 20)), (false, false), "one is on its way, one still lost");
    // What has expired can't come back, and holds nothing.
    ship_table::drop_segment(&catalog.connection, 1, Some((1, 10))).unwrap();
    let mut change = |change| catalog.change_shipping(&change, &memory).unwrap_or_else(|_| panic!("{change:?}"));
    change(ShipChange::Found { first: 1, with: vec![range(1)], lost: Vec::new() });
    assert_eq!((memory.shipped.state().open.len(), memory.shipped.state().lost), (0, 2));
}

#[test]
fn a_new_beginning_forgets_what_was_shipped_and_takes_another_node_for_what_comes() {
    let work = tempfile::tempdir().unwrap();
    let (directory, mut catalog) = open(work.path());
    let memory = memory(&directory);
    for change in [
        begun(),
        ShipChange::Cut { confirmed: Vec::new(), opened: Some(range(1)), cut_up_to: 10 },
        ShipChange::Cut { confirmed: vec![1], opened: Some(range(11)), cut_up_to: 20 },
        ShipChange::Verified { differences: 3 },
        ShipChange::Anew(31),
    ] {
        catalog.change_shipping(&change, &memory).unwrap_or_else(|_| panic!());
    }
    let state = memory.shipped.state();
    assert_eq!((state.cut_up_to, state.events, state.open.len(), state.verified), (0, 0, 0, None));
    let nodes: Vec<_> = state.nodes.iter().map(|node| (node.first_sequence, node.instance.as_str())).collect();
    assert_eq!(nodes, [(0, "a"), (31, "")]);
    assert!(state.target.is_some() && state.is_inherited(30) && !state.is_inherited(31));
    assert_eq!(catalog.connection.query_row("SELECT count(*) FROM ShipRange", [], |row| row.get::<_, i64>(0)), Ok(0));
}
