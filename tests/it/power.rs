//! A loss of power at any moment: what the disk was told by a run of the real binary is replayed up to that moment,
//! what no sync had made durable is lost, reordered or torn, and hitlog is started on what is left.

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use harness::{
    Daemon,
    checker::{Load, Outcome, Sents, event_ids, forgive_lost_tail, hold, random_below, walk},
    command,
    disk::{Call, Image, Loss, What, calls, image, traced, write_image},
    wait_until, work_dir,
};
use hitlog::event_id::EventIds;
use rand::{SeedableRng, rngs::SmallRng};
use tempfile::TempDir;

use crate::tail::{lines, tail};

/// Small pages, logs and segments, so that a short run has checkpoints, new beginnings of the log, rolls and seals.
const FLAGS: [&str; 3] = ["--segment-page-bytes=4096", "--wal-checkpoint-bytes=64KiB", "--segment-rows-max=700"];
const CLIENTS: usize = 4;
const REQUESTS: usize = 120;

/// A run, what it did to the disk, and what it answered.
struct Run {
    work: TempDir,
    calls: Vec<Call>,
    code: String,
    sents: Sents,
    ids: EventIds,
    /// The line of the trace at which each event's id began its way to the client.
    told_at: HashMap<String, usize>,
    /// The line at which the website's code did.
    begun_at: usize,
}

fn record(durability: &str) -> Run {
    let work = work_dir();
    let (data, trace) = (work.path().join("data"), work.path().join("trace"));
    let mut arguments = vec!["serve", "--listen", "127.0.0.1:0", "--durability", durability, "--data-dir"];
    arguments.push(data.to_str().unwrap());
    arguments.extend(FLAGS);
    let mut daemon = Daemon::spawn(&mut traced(&command(&arguments), &trace), &data);
    let code = daemon.register("example.com");
    // What is shown to who follows events is told to them, before or after it is to who has sent them.
    let tails = [tail(&daemon, &code, ""), lines(&daemon, &code, "")];
    let tails = tails.map(|mut tail| thread::spawn(move || while tail.told().is_some() {}));
    let load = Load::start(&daemon.address, &code, CLIENTS);
    load.wait_for_answers(REQUESTS);
    let sents = load.finish();
    daemon.wait_until_sealed();
    daemon.signal("TERM");
    assert!(daemon.wait().success());
    tails.into_iter().for_each(|tail| tail.join().unwrap());
    let text = wait_until("strace has written everything", || {
        let text = fs::read_to_string(&trace).ok()?;
        let ended =
            |line: &str| line.starts_with(&format!("{} ", daemon.pid())) && line.ends_with("+++ exited with 0 +++");
        text.lines().next_back().is_some_and(ended).then_some(text)
    });
    let calls = calls(&text);
    let mut told_at = HashMap::new();
    let (mut begun_at, mut shown_first, mut shown) = (None, 0, BTreeSet::new());
    for call in &calls {
        let What::Response(response) = &call.what else { continue };
        let response = String::from_utf8_lossy(response);
        let is_of_tail = response.contains("event: event") || response.contains("\"position\"");
        for (at, marker) in response.match_indices(r#""id":"c"#) {
            let id = response[at + marker.len() - 1..].split('"').next().unwrap();
            shown_first += usize::from(is_of_tail && !told_at.contains_key(id));
            told_at.entry(id.to_owned()).or_insert(call.began);
            shown.extend(is_of_tail.then(|| id.to_owned()));
        }
        begun_at = begun_at.or_else(|| response.contains(&code).then_some(call.began));
    }
    // Who comes first is for the machine to decide: one that shows what is not durable yet shows it first.
    println!("{shown_first} of {} events were shown to others first", told_at.len());
    assert_eq!(shown.len(), told_at.len(), "some events were not shown to others");
    let ids = event_ids(&data);
    Run { work, calls, code, sents, ids, told_at, begun_at: begun_at.expect("the website was registered") }
}

fn is_log_of_segment(path: &Path) -> bool {
    has_suffix(path, "-wal") && path.parent().is_some_and(|folder| folder.ends_with("segments"))
}

fn has_suffix(path: &Path, suffix: &str) -> bool {
    path.to_string_lossy().ends_with(suffix)
}

impl Run {
    /// The run must have done what a loss of power may fall into.
    fn assert_eventful(&self) {
        let count = |is_it: &dyn Fn(&What) -> bool| self.calls.iter().filter(|call| is_it(&call.what)).count();
        let is_write = |what: &What, suffix: &str, at: Option<usize>| match what {
            What::Write { path, offset, .. } => has_suffix(path, suffix) && at.is_none_or(|at| *offset == at),
            _ => false,
        };
        let seals = count(&|what| matches!(what, What::Rename { .. }));
        let new_logs = count(&|what| is_write(what, "-wal", Some(0)));
        let written = self.calls.iter().filter(|call| is_write(&call.what, "-wal", None));
        let logs: BTreeSet<_> = written.filter_map(|call| call.what.path()).collect();
        let checkpointed_pages = count(&|what| is_write(what, "001.db", None));
        assert!(seals >= 2, "{seals} seals");
        assert!(new_logs > logs.len() + 2, "{new_logs} beginnings of {} write-ahead logs", logs.len());
        assert!(checkpointed_pages > 30, "{checkpointed_pages} pages checkpointed");
        assert!(self.sents.values().any(|sent| sent.outcome == Outcome::Refused));
    }

    /// What was answered before line `cut`: later answers nobody has seen.
    fn sents_at(&self, cut: usize) -> Sents {
        let mut sents = self.sents.clone();
        for sent in sents.values_mut() {
            if let Outcome::Stored(ids) = &sent.outcome
                && !ids.iter().all(|id| self.told_at.get(id).is_some_and(|at| *at < cut))
            {
                sent.outcome = Outcome::Unknown;
            }
        }
        sents
    }

    /// Starts hitlog on an image and holds what it has against what was answered before line `cut`. Where the tail may
    /// be lost, returns how many acknowledged requests were.
    fn check(&self, files: &Image, cut: usize, tail_may_be_lost: bool) -> Result<usize, String> {
        let work = work_dir();
        let data = work.path().join("data");
        write_image(files, self.work.path(), work.path());
        let daemon = Daemon::start_in(&data, &[]);
        if cut <= self.begun_at {
            // Nobody has been told anything: the first start was cut short, and this one is as good as the first.
            daemon.register("another.example");
            return Ok(0);
        }
        let found = walk(&daemon, &self.code)?;
        let mut sents = self.sents_at(cut);
        let lost = if tail_may_be_lost { forgive_lost_tail(&mut sents, &found, &self.ids) } else { 0 };
        hold(&sents, &found, &self.ids, 0).map(|_| lost)
    }

    fn image(&self, cut: usize, loss: Loss<'_>) -> Image {
        image(self.calls.iter(), self.work.path(), cut, loss)
    }

    /// Cuts the run at every boundary of a sync and at lines between, and checks what is left. The end of a sync that
    /// does not count yet is when most has been answered that needs it.
    /// Returns how many images there were, and how many acknowledged requests the worst of them had lost.
    fn cut_everywhere(&self, tail_may_be_lost: bool) -> (usize, usize) {
        let seed = random_below(1 << 32);
        let mut random = SmallRng::seed_from_u64(seed);
        let end = self.calls.last().unwrap().ended + 1;
        let boundaries = self.calls.iter().filter(|call| matches!(call.what, What::Sync(_)));
        let boundaries = boundaries.flat_map(|call| [call.ended, call.ended + 1]).chain([end]);
        // Images with everything lost that was not durable, and images with some of it.
        let (mut bare, mut images): (Vec<(usize, Image)>, Vec<_>) = Default::default();
        for cut in boundaries {
            let files = self.image(cut, Loss::Everything);
            match bare.last_mut() {
                // Of the moments that leave the same files the last has the most answers: it is the hardest to satisfy.
                Some((at, before)) if *before == files => *at = cut,
                _ => bare.push((cut, files)),
            }
            images.push((cut, self.image(cut, Loss::Random(&mut random))));
        }
        images.extend(bare);
        for _ in 0..50 {
            let cut = random_below(end as u64) as usize;
            images.push((cut, self.image(cut, Loss::Random(&mut random))));
        }
        let (next, worst) = (AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while let Some((cut, files)) = images.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let _place = Place(*cut, seed);
                        let lost = self.check(files, *cut, tail_may_be_lost).unwrap_or_else(|fault| panic!("{fault}"));
                        worst.fetch_max(lost, Ordering::Relaxed);
                    }
                });
            }
        });
        (images.len(), worst.into_inner())
    }
}

/// Says where a check failed.
struct Place(usize, u64);

impl Drop for Place {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("the power was cut before line {} of the trace, the losses drawn from seed {}", self.0, self.1);
        }
    }
}

#[test]
fn full_loses_no_acknowledged_event() {
    let run = record("full");
    run.assert_eventful();
    let (images, _) = run.cut_everywhere(false);
    println!("{images} images of a disk");

    // The check sees a disk that lies: one that forgets the syncs of segments' write-ahead logs, or of their names.
    type Lie = (fn(&Path) -> bool, &'static str);
    let lies: [Lie; 2] = [(is_log_of_segment, "was acknowledged"), (|path| path.ends_with("segments"), "not ready")];
    for (is_forgotten, fault) in lies {
        let is_kept = |call: &&Call| !matches!(&call.what, What::Sync(path) if is_forgotten(path));
        let told = run.told_at.values().max().unwrap() + 1;
        let files = image(run.calls.iter().filter(is_kept), run.work.path(), told, Loss::Everything);
        // Without its segments it does not even start, which panics.
        let checked = catch_unwind(AssertUnwindSafe(|| run.check(&files, told, false)));
        let found = checked.unwrap_or_else(|panic| Err(panic.downcast_ref::<String>().cloned().unwrap_or_default()));
        assert!(found.as_ref().is_err_and(|found| found.contains(fault)), "a disk that lies: {found:?}");
    }
}

#[test]
fn normal_loses_a_tail_at_most_and_never_tears() {
    let run = record("normal");
    run.assert_eventful();
    let (images, lost) = run.cut_everywhere(true);
    println!("{images} images of a disk, up to {lost} acknowledged requests lost");
    assert!(lost > 0, "a loss of power that loses nothing under `normal` is none");
}
