//! Lists of events that are hidden until they are erased, where there are more than memory may hold: damaged ones are
//! made anew and never show what they hide, and what is asked of others never meets them.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use harness::{Client, Daemon, Tampering, event_with, wait_until, work_dir};

fn send(client: &mut Client, events: &[Value]) -> Vec<String> {
    let response = client.post("/api/v1/events/batch", json!({ "events": events }).to_string());
    assert_eq!(response.status, 201, "{}", response.text());
    let events = response.json();
    events["events"].as_array().unwrap().iter().map(|event| event["id"].as_str().unwrap().to_owned()).collect()
}

fn erase(client: &mut Client, code: &str, visitor: &str) -> u16 {
    client.send("DELETE", &format!("/api/v1/visitors/{visitor}?trackingCode={code}"), &[], b"").status
}

fn lists(data: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(data.join("segments")).unwrap().map(|entry| entry.unwrap().path());
    let mut lists: Vec<_> = entries.filter(|path| path.to_str().unwrap().contains(".hidden-")).collect();
    lists.sort();
    lists
}

/// A folder stands where the sealer wants to rewrite this segment, so that what it holds stays on the disk.
fn keep_from_rewriting(data: &Path, segment: usize) {
    fs::create_dir_all(data.join(format!("segments/{segment:012}.building/x"))).unwrap();
}

/// Asks until there is an answer, which may take as many questions as there are lists; returns the total.
fn total(client: &mut Client, code: &str, rest: &str) -> u64 {
    for _ in 0..12 {
        let response = client.get(&format!("/api/v1/events?trackingCode={code}{rest}"));
        match response.status {
            503 => assert!(response.header("retry-after").is_some(), "{}", response.text()),
            200 => return response.json()["pagination"]["total"].as_u64().unwrap(),
            status => panic!("{status}: {}", response.text()),
        }
    }
    panic!("no answer to {rest}");
}

#[test]
fn a_list_that_cannot_be_read_is_made_anew() {
    let work = work_dir();
    let data = work.path().join("data");
    // What has the name of a list and is none stays, and no list gets its name.
    let no_list = data.join("segments/000000000001.hidden-0/x");
    let daemon = Daemon::start_in(&data, &["--segment-rows-max", "120", "--hidden-events-max", "10"]);
    (1..=2).for_each(|segment| keep_from_rewriting(&data, segment));
    fs::create_dir_all(&no_list).unwrap();
    let (code, other) = (daemon.register("example.com"), daemon.register("example.org"));
    let mut client = daemon.client();
    let mut hidden = Vec::new();
    for _ in 0..3 {
        let of = |visitor: &str| event_with(&code, json!({"visitorId": visitor}));
        let events: Vec<_> = (0..20).flat_map(|_| [of("many"), of("some"), event_with(&other, json!({}))]).collect();
        hidden.extend(send(&mut client, &events).into_iter().step_by(3));
        wait_until("the next segment is ready", || (daemon.segments("prepared") == 1).then_some(()));
    }
    assert_eq!(erase(&mut client, &code, "many"), 202);
    assert_eq!(lists(&data).len() - 1, 2, "a list for each segment: {:?}", lists(&data));
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 4] = [
        ("changed", |list| {
            let mut bytes = fs::read(list).unwrap();
            bytes[0] ^= 1;
            fs::write(list, bytes).unwrap();
        }),
        ("cut", |list| fs::File::options().write(true).open(list).unwrap().set_len(10).unwrap()),
        ("gone", |list| fs::remove_file(list).unwrap()),
        ("another's", |list| fs::write(list, "no list").unwrap()),
    ];
    let mut some = 60;
    for (what, damage) in damages {
        let files = || lists(&data).into_iter().filter(|path| path.is_file());
        files().for_each(|list| damage(&list));
        // What is asked of another website does not meet them.
        let of_other = client.get(&format!("/api/v1/events?trackingCode={other}&limit=100"));
        assert_eq!((of_other.status, of_other.json()["pagination"]["total"].as_u64()), (200, Some(60)), "{what}");
        for (at, rest) in ["&visitorId=many", "&limit=100", "&visitorId=some", "&limit=1&offset=40"].iter().enumerate()
        {
            let wanted = if at == 0 { 0 } else { some };
            assert_eq!(total(&mut client, &code, rest), wanted, "{what}: {rest}");
            if at == 0 {
                files().for_each(|list| damage(&list));
            }
        }
        files().for_each(|list| damage(&list));
        let event = client.get(&format!("/api/v1/events/{}", hidden[0]));
        assert!([404, 503].contains(&event.status), "{what}: {}", event.text());
        // An erasure that finds one damaged counts no event twice.
        files().for_each(|list| damage(&list));
        send(&mut client, &[event_with(&code, json!({"visitorId": what}))]);
        assert_eq!(total(&mut client, &code, "&limit=100"), some + 1);
        files().for_each(|list| damage(&list));
        wait_until("it is erased", || (erase(&mut client, &code, what) == 202).then_some(()));
        assert_eq!(total(&mut client, &code, "&limit=100"), some, "{what}");
    }
    // Its disk can't be read: what is made anew is somewhere else.
    let files: Vec<_> = lists(&data).into_iter().filter(|path| path.is_file()).collect();
    let failing = Tampering::with_files(&daemon, "pread64:error=EIO", &files);
    assert_eq!(total(&mut client, &code, "&limit=100"), some);
    drop(failing);
    // One visitor more, of whom the list has none.
    assert_eq!(erase(&mut client, &code, "some"), 202);
    some = 0;
    assert_eq!(total(&mut client, &code, "&limit=100"), some);
    assert!(daemon.log().contains("is made anew from their segment"), "{}", daemon.log());
    assert!(no_list.exists());
    daemon.stop();
}

/// Pages lead past very many hidden events, wherever they stand.
#[test]
fn pages_around_very_many_hidden_events() {
    for is_sealed in [true, false] {
        let work = work_dir();
        let data = work.path().join("data");
        let daemon = Daemon::start_in(&data, &["--segment-rows-max", "2000", "--hidden-events-max", "10"]);
        let code = daemon.register("example.com");
        let mut client = daemon.client();
        let hide = || keep_from_rewriting(&data, 1);
        if !is_sealed {
            hide();
        }
        // Runs of hidden events at either end, in between, and one by one; times do not follow the order of arrival.
        let is_hidden = |at: u64| matches!(at, 0..500 | 700..1_400 | 1_900..) || at.is_multiple_of(2);
        let event = |at: u64| {
            let visitor = if is_hidden(at) { "many" } else { "other" };
            let changes =
                json!({"visitorId": visitor, "timestamp": 1_700_000_000_000 + at, "sessionId": format!("s{at}")});
            event_with(&code, changes)
        };
        for batch in 0..20 {
            send(&mut client, &(0..100).map(|at| event((at * 20 + batch * 7) % 20 + at * 20)).collect::<Vec<_>>());
        }
        send(&mut client, &[event_with(&code, json!({"visitorId": "many"}))]);
        match is_sealed {
            true => {
                daemon.wait_until_sealed();
                hide();
            }
            false => wait_until("it is full", || (daemon.segments("unsealed") == 1).then_some(())),
        }
        assert_eq!(erase(&mut client, &code, "many"), 202);
        let shown: Vec<_> = (0..2_000).rev().filter(|at| !is_hidden(*at)).map(|at| format!("s{at}")).collect();
        let mut page = |rest: &str| {
            let page = client.get(&format!("/api/v1/events?trackingCode={code}{rest}"));
            assert_eq!(page.status, 200, "{}", page.text());
            let page = page.json();
            let name = |event: &Value| event["sessionId"].as_str().unwrap().to_owned();
            let events: Vec<_> = page["events"].as_array().unwrap().iter().map(name).collect();
            assert_eq!(page["pagination"]["total"], shown.len(), "{rest}");
            (events, page["pagination"]["next"].as_str().map(str::to_owned))
        };
        for limit in [7, 100, 1_000] {
            let (mut seen, mut next) = (Vec::new(), Some(String::new()));
            while let Some(cursor) = next {
                let from = if cursor.is_empty() { String::new() } else { format!("&cursor={cursor}") };
                let (events, after) = page(&format!("&limit={limit}{from}"));
                seen.extend(events);
                next = after;
            }
            assert_eq!(seen, shown, "sealed: {is_sealed}, pages of {limit}");
        }
        for offset in (0..shown.len()).step_by(37) {
            let (events, _) = page(&format!("&limit=5&offset={offset}"));
            assert_eq!(events, shown[offset..(offset + 5).min(shown.len())], "sealed: {is_sealed}, from {offset}");
        }
        let of_time = page_of_times(&mut daemon.client(), &code);
        let wanted: BTreeSet<_> = (600..1_500).filter(|at| !is_hidden(*at)).map(|at| format!("s{at}")).collect();
        assert_eq!(of_time, wanted, "sealed: {is_sealed}");
        daemon.stop();
    }
}

/// The sessions of the events of some of the time.
fn page_of_times(client: &mut Client, code: &str) -> BTreeSet<String> {
    let (from, to) = (1_700_000_000_600_u64, 1_700_000_001_500_u64);
    let page = client.get(&format!("/api/v1/events?trackingCode={code}&limit=1000&from={from}&to={to}")).json();
    let events = page["events"].as_array().unwrap_or_else(|| panic!("{page}")).clone();
    events.iter().map(|event| event["sessionId"].as_str().unwrap().to_owned()).collect()
}
