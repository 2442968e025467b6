//! Under which number a data directory ships, whatever becomes of it; and erasures, which follow what was shipped.

use std::fs;

use harness::{ClickHouse, shipped, tool, wait_until, work_dir};

use crate::{
    ship::{assert_same, paused, plain_target, send, serve, ship},
    ship_page::statements,
};

#[test]
fn two_with_one_number_are_told_apart_before_anything_is_sent() {
    let Some(clickhouse) = ClickHouse::start() else { return };
    let work = work_dir();
    let [one, two] = ["one", "two"].map(|name| work.path().join(name));
    let first = serve(&one, &clickhouse.url(), &["--node=1"]);
    let code = first.register("one.example");
    send(&first, &code, 0, 100);
    shipped::wait_until_shipped(&first);
    let second = serve(&two, &clickhouse.url(), &["--node=1"]);
    let code = second.register("two.example");
    send(&second, &code, 100, 100);
    let said = paused(&second);
    assert!(said.contains("another hitlog ships as node 1"), "{said}");
    assert_eq!(clickhouse.query("SELECT count() FROM default.events").trim(), "100");
    assert_eq!(second.client().get("/readyz").status, 200);
    second.stop();
    let second = serve(&two, &clickhouse.url(), &["--node=2"]);
    shipped::wait_until_shipped(&second);
    assert_same(&clickhouse, &[(1, &one), (2, &two)]);
    // A directory keeps its number.
    second.stop();
    let second = serve(&two, &clickhouse.url(), &["--node=3"]);
    let said = paused(&second);
    assert!(said.contains("ships as node 2"), "{said}");
    second.stop();
    first.stop();
    // A number that was given back, and of which nothing is there, may be another's.
    let give_back = statements()["give-back"].replace("hitlog.", "default.");
    clickhouse.query("ALTER TABLE default.events DELETE WHERE node = 1 SETTINGS mutations_sync = 2");
    clickhouse.query(&give_back);
    let three = work.path().join("three");
    let third = serve(&three, &clickhouse.url(), &["--node=1"]);
    let code = third.register("three.example");
    send(&third, &code, 200, 100);
    shipped::wait_until_shipped(&third);
    assert_same(&clickhouse, &[(1, &three), (2, &two)]);
    third.stop();
}

#[test]
fn a_start_from_a_backup_sends_nothing_again_that_its_first_life_has_sent() {
    let Some((mut clickhouse, work, _)) = plain_target() else { return };
    let [first, backup] = ["first", "backup"].map(|name| work.path().join(name));
    let flags = ["--node=7", "--ship-rows-max=90", "--segment-rows-max=250"];
    let mut daemon = serve(&first, &clickhouse.url(), &flags);
    let code = daemon.register("ship.example");
    send(&daemon, &code, 0, 600);
    shipped::wait_until_shipped(&daemon);
    clickhouse.kill();
    send(&daemon, &code, 600, 400);
    let made = tool(&first, &["backup", backup.to_str().unwrap()]);
    assert_eq!(made.code, 0, "{}", made.err);
    // Its life after the backup: what is in the backup and not shipped is shipped, cut as it comes, and more.
    send(&daemon, &code, 1_000, 200);
    clickhouse.start_again();
    shipped::wait_until_shipped(&daemon);
    assert_same(&clickhouse, &[(7, &first)]);
    daemon.crash();

    let restored = serve(&backup, &clickhouse.url(), &["--node=7", "--ship-rows-max=130", "--segment-rows-max=250"]);
    send(&restored, &code, 2_000, 300);
    shipped::wait_until_shipped(&restored);
    let (begun, now) = (shipped::here(&first), shipped::here(&backup));
    let mut there = shipped::there(&clickhouse, "default.events");
    assert!(there.values().all(|rows| rows.len() == 1), "something is there twice");
    for (sequence, fields) in &begun {
        assert_eq!(there.remove(&(7, *sequence)), Some(vec![fields.clone()]), "{sequence}");
    }
    let own: Vec<_> = now.iter().filter(|(sequence, fields)| begun.get(sequence) != Some(fields)).collect();
    assert_eq!((own.len(), there.len()), (300, 300));
    for (sequence, fields) in own {
        assert_eq!(there.remove(&(65_536 + 7, *sequence)), Some(vec![fields.clone()]), "{sequence}");
    }
    let (exit, said) = ship(&restored, &["verify", "--deep"]);
    assert!(exit == 0 && said.contains("1,300 events"), "{said}");
    // What the first life has shipped after the backup is erased with the rest.
    let of_visitor = "SELECT count() FROM default.events WHERE visitor = 'v5'";
    assert_ne!(clickhouse.query(of_visitor).trim(), "0");
    let erased = restored.client().send("DELETE", &format!("/api/v1/visitors/v5?trackingCode={code}"), &[], b"");
    assert_eq!(erased.status, 202);
    wait_until("all of it is masked", || (clickhouse.query(of_visitor).trim() == "0").then_some(()));
    // The first one is not to go on.
    let original = serve(&first, &clickhouse.url(), &flags);
    let said = paused(&original);
    assert!(said.contains("copy of this data directory") && said.contains("serve --restored"), "{said}");
    send(&original, &code, 3_000, 30);
    original.stop();
    // Unless it is said that there is another: then both do, and what came in before that has its old number.
    let original = serve(&first, &clickhouse.url(), &[&flags[..], &["--restored"]].concat());
    send(&original, &code, 4_000, 20);
    send(&restored, &code, 5_000, 40);
    [&original, &restored].into_iter().for_each(shipped::wait_until_shipped);
    let after = ["node = 7 AND seq > 1200", "node = 131079", "node = 65543 AND seq > 1300"];
    let counted = after.map(|of| clickhouse.query(&format!("SELECT count() FROM default.events WHERE {of}")));
    assert_eq!(counted.each_ref().map(|count| count.trim()), ["30", "20", "40"]);
    original.stop();
    restored.stop();
}

#[test]
fn what_is_erased_is_erased_there_as_well() {
    // It looks for old files every half a minute or so, which is longer than a test waits.
    const SOON: &str = "<merge_tree><cleanup_delay_period>1</cleanup_delay_period>\
                        <max_cleanup_delay_period>1</max_cleanup_delay_period>\
                        <cleanup_delay_period_random_add>0</cleanup_delay_period_random_add></merge_tree>";
    let Some(clickhouse) = ClickHouse::with(|options| {
        options.config(SOON);
    }) else {
        return;
    };
    let work = work_dir();
    let data = work.path().join("data");
    let flags = ["--ship-erasure-seconds=0", "--segment-rows-max=300"];
    let daemon = serve(&data, &clickhouse.url(), &flags);
    let [code, other] = ["ship.example", "other.example"].map(|domain| daemon.register(domain));
    send(&daemon, &code, 0, 970);
    send(&daemon, &other, 970, 500);
    shipped::wait_until_shipped(&daemon);
    let mut client = daemon.client();
    let count = |condition: &str| {
        let sql = format!("SELECT count() FROM default.events WHERE {condition}");
        clickhouse.query(&sql).trim().parse::<u64>().unwrap()
    };
    let of_visitor = count("visitor = 'v5'");
    assert!(of_visitor > 10);
    let erased = client.send("DELETE", &format!("/api/v1/visitors/v5?trackingCode={code}"), &[], b"");
    assert_eq!((erased.status, erased.json()["target"]["state"].as_str()), (202, Some("waiting")));
    let place = erased.header("location").unwrap().to_owned();
    // A visitor of the same name that another website has stays.
    wait_until("it is masked there", || (count("visitor = 'v5'") == of_visitor - 10).then_some(()));
    let done = wait_until("it is done there", || {
        let erasure = client.get(&place).json();
        (erasure["target"]["state"] == "done").then_some(erasure)
    });
    assert_eq!(done["rows"], 10, "{done}");
    assert_eq!(count("visitor = 'v5'"), of_visitor - 10);
    assert_eq!(ship(&daemon, &["verify", "--deep"]).0, 0);

    // A website that is deleted, with events on their way.
    let websites = client.get("/api/v1/websites").json();
    let website = websites["websites"].as_array().unwrap().iter().find(|of| of["trackingCode"] == other.as_str());
    let id = website.unwrap()["id"].as_str().unwrap().to_owned();
    send(&daemon, &other, 1_470, 300);
    let deleted = client.send("DELETE", &format!("/api/v1/websites/{id}"), &[], b"");
    assert_eq!(deleted.status, 200);
    send(&daemon, &code, 2_000, 100);
    let place = format!("/api/v1/erasures/{}", deleted.json()["erasureId"].as_str().unwrap());
    wait_until("it is done there", || (client.get(&place).json()["target"]["state"] == "done").then_some(()));
    assert_eq!(count(&format!("site = '{id}'")), 0);
    shipped::wait_until_shipped(&daemon);
    wait_until("it is done here", || (client.get(&place).json()["state"] == "done").then_some(()));
    assert_same(&clickhouse, &[(0, &data)]);
    assert_eq!(ship(&daemon, &["verify", "--deep"]).0, 0);
    // Of who was erased nothing stays in the catalog.
    daemon.stop();
    for file in ["catalog.db", "catalog.db-wal"] {
        let bytes = fs::read(data.join(file)).unwrap_or_default();
        assert!(!bytes.windows(id.len()).any(|window| window == id.as_bytes()), "{file}");
    }
}
