//! Whoever follows events sees each that is stored, once and in order, whatever happens beside it.
//!
//! `HITLOG_TAIL_SECONDS` says how long the longest of these tests sends events; a minute if it is not set.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash, Hasher},
    mem,
    net::SocketAddr,
    path::Path,
    slice, thread,
    time::{Duration, Instant},
};

use harness::{
    Daemon, TIMEOUT, Tail, Told,
    checker::{event_ids, random_below, rounds, walk},
    followed::{Asker, Ends, Erased, House, NamedEvent, TYPES, Told as Sent, erase, write},
    work_dir,
};
use hitlog::event_id::EventIds;
use serde_json::Value;
use socket2::{Domain, Socket, Type};

/// Small segments, logs and groups, so that there are many rolls, seals and checkpoints.
const FLAGS: [&str; 3] = ["--segment-rows-max=400", "--wal-checkpoint-bytes=128KiB", "--group-events-max=64"];
const WRITERS: usize = 8;
/// So fast a slow one reads.
const SLOW_BYTES_PER_SECOND: f64 = 1_024.0;
/// So long after the last event was sent everybody must have seen it.
const CATCH_UP: Duration = Duration::from_secs(90);

/// How somebody reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    Steady,
    Slow,
    /// Drops its connection again and again.
    Dropping,
}

/// One who follows a website's events.
#[derive(Debug, Clone, Copy)]
struct Reader {
    site: usize,
    /// One type's only.
    of: Option<usize>,
    is_lines: bool,
    /// With everything, or from now on.
    from_start: bool,
    manner: Manner,
}

#[rustfmt::skip]
const READERS: [Reader; 14] = [
    Reader { site: 0, of: None, is_lines: false, from_start: false, manner: Manner::Steady },
    Reader { site: 0, of: None, is_lines: true, from_start: false, manner: Manner::Steady },
    Reader { site: 0, of: None, is_lines: false, from_start: true, manner: Manner::Steady },
    Reader { site: 1, of: None, is_lines: true, from_start: true, manner: Manner::Steady },
    Reader { site: 2, of: None, is_lines: false, from_start: false, manner: Manner::Steady },
    Reader { site: 2, of: None, is_lines: true, from_start: true, manner: Manner::Steady },
    Reader { site: 0, of: Some(1), is_lines: false, from_start: true, manner: Manner::Steady },
    Reader { site: 1, of: Some(2), is_lines: true, from_start: false, manner: Manner::Steady },
    Reader { site: 0, of: None, is_lines: false, from_start: false, manner: Manner::Slow },
    Reader { site: 0, of: None, is_lines: true, from_start: true, manner: Manner::Dropping },
    Reader { site: 1, of: None, is_lines: false, from_start: false, manner: Manner::Dropping },
    Reader { site: 2, of: Some(0), is_lines: false, from_start: true, manner: Manner::Dropping },
    Reader { site: 3, of: None, is_lines: false, from_start: false, manner: Manner::Steady },
    Reader { site: 3, of: None, is_lines: true, from_start: true, manner: Manner::Steady },
];

/// An event that was seen.
#[derive(Debug, Clone)]
struct Seen {
    id: String,
    digest: u64,
    at: Instant,
    /// When the connection was asked for.
    asked_at: Instant,
}

/// What somebody has read.
#[derive(Debug, Default, Clone)]
struct Read {
    seen: Vec<Seen>,
    /// The position behind the last of them.
    position: String,
    /// Of whoever reads from now on: the ids of an event that was stored before, and of one that was stored after it
    /// had begun.
    around: Option<[String; 2]>,
    connections: usize,
    heartbeats: usize,
    sent: Sent,
}

fn digest(event: &Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    event.to_string().hash(&mut hasher);
    hasher.finish()
}

/// The name of the last event of a type.
fn last_name(of: usize) -> String {
    format!("last-{of}")
}

/// Why somebody reads no further.
enum Over {
    /// It has seen the last event.
    Seen,
    /// The connection is gone: hitlog is, or it was dropped.
    Gone,
}

impl Reader {
    /// Reads until it has seen the last event, from wherever it was whenever its connection is gone.
    fn follow(&self, house: &House) -> Read {
        let (mut read, mut place) = (Read::default(), None::<(usize, String)>);
        loop {
            let asked_at = Instant::now();
            let opened = match &place {
                None if !self.from_start => self.begin_now(house, &mut read),
                _ => self.open(house, place.as_ref().map(|(_, place)| &**place)),
            };
            let Some((start, mut tail)) = opened else {
                thread::sleep(Duration::from_millis(5));
                continue;
            };
            read.connections += 1;
            // Within one start: it is not promised that the next one writes a place in the same letters.
            if let Some((_, place)) = place.as_ref().filter(|(told_by, _)| *told_by == start) {
                assert_eq!(tail.begins_after(), place, "it begins where it was to");
            }
            let mut position = tail.begins_after().to_owned();
            let over = self.read(house, start, &mut tail, asked_at, &mut position, &mut read);
            if matches!(over, Over::Seen) {
                return Read { position, ..read };
            }
            place = Some((start, position));
        }
    }

    /// Asks for a tail after a position, or for all. `None` if it did not come to that.
    fn open(&self, house: &House, after: Option<&str>) -> Option<(usize, Tail)> {
        self.ask(house, after.or(self.from_start.then_some("start")))
    }

    /// Asks for a tail from now on, between two events.
    fn begin_now(&self, house: &House, read: &mut Read) -> Option<(usize, Tail)> {
        let mut asker = Asker::new(house);
        let number = random_below(1 << 60);
        let mut store = |which: &str| {
            let event = NamedEvent::new(format!("{which}-{number}"), self.site, self.of.unwrap_or(0));
            let id = asker.store(slice::from_ref(&event)).0.remove(0);
            read.sent.stored.insert(event.name, (self.site, id.clone()));
            id
        };
        let before = store("before");
        let opened = self.ask(house, None)?;
        let after = store("after");
        read.around = Some([before, after]);
        Some(opened)
    }

    fn ask(&self, house: &House, after: Option<&str>) -> Option<(usize, Tail)> {
        let (start, address) = house.find();
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        if self.manner == Manner::Slow && !house.is_over() {
            // The least there is, so that little is on its way to it.
            socket.set_recv_buffer_size(1).unwrap();
        }
        socket.connect(&address.parse::<SocketAddr>().unwrap().into()).ok()?;
        socket.set_read_timeout(Some(TIMEOUT)).unwrap();
        let mut query = format!("trackingCode={}", house.codes[self.site]);
        self.of.into_iter().for_each(|of| query.push_str(&format!("&eventType={}", TYPES[of])));
        let accept = if self.is_lines { "application/x-ndjson" } else { "text/event-stream" };
        let mut headers = vec![("accept", accept)];
        match after {
            // As browsers do, which ask for the first address again.
            Some(position) if !self.is_lines && position != "start" => {
                query.push_str("&after=start");
                headers.push(("last-event-id", position));
            }
            Some(position) => query.push_str(&format!("&after={position}")),
            None => {}
        }
        match Tail::try_ask(socket.into(), "1.1", &query, &headers)? {
            Ok(tail) => Some((start, tail)),
            Err(refusal) => {
                assert!(!house.is_there(start), "{self:?}: {}", refusal.text());
                None
            }
        }
    }

    /// Reads on until it is over with this connection.
    fn read(
        &self,
        house: &House,
        start: usize,
        tail: &mut Tail,
        asked_at: Instant,
        position: &mut String,
        read: &mut Read,
    ) -> Over {
        let is_over = house.is_over();
        loop {
            let count = read.seen.len();
            assert!(house.over_for() < CATCH_UP, "{self:?} does not come to the end, after {count} events");
            let told = match tail.try_told() {
                Ok(Some(told)) => told,
                end => {
                    assert!(!house.is_there(start), "{self:?} is cut off by a hitlog that runs: {end:?}");
                    return Over::Gone;
                }
            };
            let Told { kind, position: behind, data } = told;
            behind.into_iter().for_each(|behind| *position = behind);
            match &*kind {
                "head" => continue,
                "heartbeat" => {
                    read.heartbeats += 1;
                    continue;
                }
                "event" => {}
                "bye" => {
                    assert!(!house.is_there(start) && data["reason"] == "stop", "{self:?}: {data}");
                    continue;
                }
                _ => panic!("{self:?} is told of a {kind}: {data}"),
            }
            let at = Instant::now();
            let id = data["id"].as_str().unwrap().to_owned();
            read.seen.push(Seen { id, digest: digest(&data), at, asked_at });
            if data["url"].as_str().unwrap().ends_with(&format!("/{}", last_name(self.of.unwrap_or(0)))) {
                return Over::Seen;
            }
            match self.manner {
                // Now it hurries.
                Manner::Slow if !is_over && house.is_over() => return Over::Gone,
                Manner::Slow if !is_over => {
                    let bytes = data.to_string().len() as f64;
                    thread::sleep(Duration::from_secs_f64(bytes / SLOW_BYTES_PER_SECOND));
                }
                Manner::Dropping if random_below(60) == 0 => return Over::Gone,
                _ => {}
            }
        }
    }
}

/// An event that is stored, as the listing has it.
#[derive(Debug, Clone)]
struct Stored {
    sequence: u64,
    id: String,
    digest: u64,
    of: usize,
}

/// The events of each website, in the order of their sequences.
fn stored(daemon: &Daemon, codes: &[String], ids: &EventIds) -> Vec<Vec<Stored>> {
    let of_website = |code: &String| {
        let of_event = |event: Value| {
            let id = event["id"].as_str().unwrap().to_owned();
            let of = TYPES.iter().position(|of| event["eventType"] == *of).unwrap();
            Stored { sequence: ids.decode(&id).unwrap(), id, digest: digest(&event), of }
        };
        let mut stored: Vec<Stored> = walk(daemon, code).unwrap().into_iter().map(of_event).collect();
        stored.sort_by_key(|stored| stored.sequence);
        stored
    };
    codes.iter().map(of_website).collect()
}

/// Holds what somebody has seen against what is stored: exactly that is what it has seen, in the order of sequence, and
/// of what was erased what it was shown before.
fn check(
    reader: &Reader,
    read: &Read,
    stored: &[Vec<Stored>],
    erased: &[Erased],
    ids: &EventIds,
) -> Result<(), String> {
    let sequence = |id: &str| ids.decode(id).unwrap();
    let is_wanted = |site: usize, of: usize| site == reader.site && reader.of.is_none_or(|wanted| wanted == of);
    let gone: BTreeMap<u64, &Erased> =
        erased.iter().filter(|of| is_wanted(of.site, of.of)).map(|of| (sequence(&of.id), of)).collect();
    let seen: Vec<(u64, &Seen)> = read.seen.iter().map(|seen| (sequence(&seen.id), seen)).collect();
    if let Some(pair) = seen.windows(2).find(|pair| pair[0].0 >= pair[1].0) {
        return Err(format!("not in order, or twice: {pair:?}"));
    }
    let mut kept = seen.iter().filter(|(sequence, _)| !gone.contains_key(sequence)).peekable();
    let begin = match &read.around {
        None => 0,
        Some(around) => {
            let [before, after] = around.each_ref().map(|id| sequence(id));
            let first = kept.peek().map_or(u64::MAX, |(first, _)| *first);
            if first <= before || first > after {
                return Err(format!("begins with {first}, and not between {before} and {after}"));
            }
            first
        }
    };
    for of in stored[reader.site].iter().filter(|of| is_wanted(reader.site, of.of) && of.sequence >= begin) {
        match kept.next() {
            Some((sequence, seen)) if (*sequence, seen.digest) == (of.sequence, of.digest) => {}
            other => return Err(format!("stored is {of:?}, seen {other:?}")),
        }
    }
    if let Some(other) = kept.next() {
        return Err(format!("not stored, and seen: {other:?}"));
    }
    for (sequence, of) in gone.range(begin..) {
        match seen.binary_search_by_key(sequence, |(sequence, _)| *sequence) {
            Ok(at) if seen[at].1.asked_at > of.done_at => {
                return Err(format!("{sequence} is shown to one who asks after it was erased"));
            }
            // Whoever was shown a later one before anybody asked to erase this one has been shown this one.
            Err(at) if seen.get(at).is_some_and(|(_, next)| next.at < of.asked_at) => {
                return Err(format!("{sequence} is passed by, and was erased later"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Stops hitlog and starts it again, now and then by a kill, as long as events are to be sent. Returns how often.
fn restart(house: &House, daemon: &mut Daemon, data: &Path, lasts: Duration) -> usize {
    let ends_at = Instant::now() + lasts;
    for restarts in 0.. {
        // Once in a while it lives long enough for heartbeats.
        let pause = Duration::from_millis(if restarts % 10 == 9 { 17_000 } else { 1_000 + random_below(3_000) });
        thread::sleep(pause.min(ends_at.saturating_duration_since(Instant::now())));
        if Instant::now() >= ends_at {
            return restarts;
        }
        house.leave();
        if restarts % 2 == 0 {
            daemon.crash();
        } else {
            daemon.signal("TERM");
            let status = daemon.wait();
            assert!(status.success(), "{status}: {}", daemon.log());
        }
        *daemon = Daemon::start_in(data, &FLAGS);
        house.come(daemon);
    }
    unreachable!("it is over at some time");
}

/// What was sent, what each reader has read, and the positions of the last event of each website and type.
fn run(house: &House, daemon: &mut Daemon, data: &Path, lasts: Duration) -> (Sent, Vec<Read>, [Vec<String>; 4]) {
    thread::scope(|scope| {
        let ends = Ends(house);
        let mut senders: Vec<_> = (0..WRITERS).map(|writer| scope.spawn(move || write(house, writer))).collect();
        senders.push(scope.spawn(|| erase(house)));
        let readers = READERS.each_ref().map(|reader| {
            // Those who begin with everything find sealed segments.
            let first = if reader.from_start { lasts / 4 } else { Duration::ZERO };
            let wait = first + Duration::from_millis(random_below(lasts.as_millis() as u64 / 4));
            scope.spawn(move || {
                thread::sleep(wait);
                reader.follow(house)
            })
        });
        let restarts = restart(house, daemon, data, lasts);
        drop(ends);
        let mut sent = Sent::default();
        senders.into_iter().for_each(|sender| sent.extend(sender.join().unwrap()));
        let mut asker = Asker::new(house);
        let positions = [0, 1, 2, 3].map(|site| {
            // The last of all is of the first type, which ends those who follow every type.
            let mut last = |of| {
                let event = NamedEvent::new(last_name(of), site, of);
                let (ids, position) = asker.store(slice::from_ref(&event));
                sent.stored.insert(format!("{site}/{}", event.name), (site, ids[0].clone()));
                position
            };
            let mut positions: Vec<String> = [2, 1, 0].map(&mut last).into();
            positions.reverse();
            positions
        });
        let mut reads: Vec<Read> = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
        reads.iter_mut().for_each(|read| sent.extend(mem::take(&mut read.sent)));
        println!("{restarts} restarts");
        (sent, reads, positions)
    })
}

#[test]
fn beside_writers_rolls_seals_erasures_kills_and_stops() {
    let lasts = Duration::from_secs(rounds("HITLOG_TAIL_SECONDS", 60) as u64);
    let work = work_dir();
    let data = work.path().join("data");
    let mut daemon = Daemon::start_in(&data, &FLAGS);
    // Nobody sends anything to the last one but what the test itself does.
    let domains = ["busy.example", "second.example", "rare.example", "quiet.example"];
    let codes = domains.map(|domain| daemon.register(domain));
    let house = House::new(&daemon, codes.into());
    let (sent, reads, positions) = run(&house, &mut daemon, &data, lasts);
    let ids = event_ids(&data);
    let all = stored(&daemon, &house.codes, &ids);
    let holds = |reader: &Reader, read: &Read| {
        if let Err(fault) = check(reader, read, &all, &sent.erased, &ids) {
            panic!("{reader:?}: {fault}");
        }
    };
    for (reader, read) in READERS.iter().zip(&reads) {
        holds(reader, read);
        // Who sent the last event was told the same.
        assert_eq!(read.position, positions[reader.site][reader.of.unwrap_or(0)], "{reader:?}");
    }
    // What was acknowledged is stored, and nothing else is but what nobody knows of.
    for (site, of_website) in all.iter().enumerate() {
        let acknowledged: BTreeSet<&str> =
            sent.stored.values().filter(|(of, _)| *of == site).map(|(_, id)| &**id).collect();
        let found: BTreeSet<&str> = of_website.iter().map(|of| &*of.id).collect();
        assert_eq!(acknowledged.difference(&found).next(), None, "acknowledged, and not stored");
        assert!(found.difference(&acknowledged).count() <= sent.in_doubt.len());
    }
    // Whoever comes later is shown the same, whatever has become of the segments.
    for _ in 0..2 {
        daemon.wait_until_sealed();
        for site in 0..4 {
            let reader = Reader { site, of: None, is_lines: site == 0, from_start: true, manner: Manner::Steady };
            let read = reader.follow(&house);
            assert_eq!(read.connections, 1);
            holds(&reader, &read);
            let was_erased = |seen: &Seen| sent.erased.iter().any(|erased| erased.id == seen.id);
            assert!(!read.seen.iter().any(was_erased), "{reader:?}: shown after it was erased");
        }
        house.leave();
        daemon.stop();
        daemon = Daemon::start_in(&data, &FLAGS);
        house.come(&daemon);
    }
    let connections: Vec<usize> = reads.iter().map(|read| read.connections).collect();
    let segments = daemon.segments("sealed");
    let heartbeats: usize = reads.iter().map(|read| read.heartbeats).sum();
    println!(
        "{heartbeats} heartbeats, {} events acknowledged, {} in doubt, {} repeats, {} erased, {segments} segments, connections {connections:?}",
        sent.stored.len(),
        sent.in_doubt.len(),
        sent.repeats,
        sent.erased.len()
    );
    assert!(segments > 10 && !sent.erased.is_empty() && sent.repeats > 0 && connections[9] > 10);
    daemon.stop();
}

/// The check itself is checked: it finds each fault that it is there for.
#[test]
fn the_check_finds_what_it_is_there_for() {
    let ids = EventIds::new(0, [7; 16]);
    let id = |sequence: u64| String::from_utf8_lossy(&ids.encode(sequence)).into_owned();
    let start = Instant::now();
    let at = |seconds: u64| start + Duration::from_secs(seconds);
    // The fifth is erased after a minute, when all have been seen, one in a second.
    let (asked_at, done_at) = (at(60), at(70));
    let erased = [Erased { id: id(5), site: 0, of: 0, asked_at, done_at }];
    let of_sequence = |sequence| Stored { sequence, id: id(sequence), digest: sequence, of: 0 };
    let stored = [(1..=9).filter(|sequence| *sequence != 5).map(of_sequence).collect()];
    let seen = |sequence| Seen { id: id(sequence), digest: sequence, at: at(sequence), asked_at: start };
    let whole = Read { seen: (1..=9).map(seen).collect(), ..Read::default() };
    let reader = Reader { from_start: true, ..READERS[2] };
    let fault = |change: &dyn Fn(&mut Read)| {
        let mut read = whole.clone();
        change(&mut read);
        check(&reader, &read, &stored, &erased, &ids).err().unwrap_or_default()
    };
    let around = |before, after| Some([id(before), id(after)]);
    assert_eq!(fault(&|_| ()), "");
    assert_eq!(fault(&|read| (read.around, _) = (around(3, 4), read.seen.drain(..3).count())), "");
    assert_eq!(fault(&|read| (read.around, _) = (around(2, 4), read.seen.drain(..3).count())), "");
    let later = |read: &mut Read| read.seen.iter_mut().for_each(|seen| (seen.at, seen.asked_at) = (at(99), at(80)));
    type Change<'a> = &'a dyn Fn(&mut Read);
    let faults: [(&str, Change<'_>); 10] = [
        ("stored is", &|read| drop(read.seen.remove(2))),
        ("stored is", &|read| drop(read.seen.pop())),
        ("stored is", &|read| read.seen[2].digest = 0),
        ("not in order", &|read| read.seen.insert(2, seen(2))),
        ("not in order", &|read| read.seen.swap(2, 3)),
        ("not stored", &|read| read.seen.push(seen(10))),
        ("is passed by", &|read| drop(read.seen.remove(4))),
        ("shown to one who asks after", &later),
        ("begins with 1", &|read| read.around = around(1, 2)),
        ("begins with 4", &|read| (read.around, _) = (around(2, 3), read.seen.drain(..3).count())),
    ];
    for (message, change) in faults {
        let found = fault(change);
        assert!(found.contains(message), "{message}: {found}");
    }
    let erased_unseen = |read: &mut Read| {
        later(read);
        read.seen.remove(4);
    };
    assert_eq!(fault(&erased_unseen), "", "it was erased before");
}
