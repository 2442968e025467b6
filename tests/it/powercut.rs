//! Power cuts on a real file system: ext4 on a loop device throws away, under load, what was not synced, as a loss of
//! power does, and is mounted again.
//!
//! `HITLOG_POWERCUT_ROUNDS` says how many cuts; `scripts/powercut ROUNDS` sets it. Needs root.

use std::{fs, thread, time::Duration};

use harness::{
    Daemon,
    checker::{Load, Sents, event_ids, forgive_lost_tail, hold, random_below, rounds, walk},
    mount::{Mount, is_root, run},
    work_dir,
};

/// Small logs and segments, so that cuts also fall into checkpoints and resets of the log, rolls and seals.
const FLAGS: [&str; 2] = ["--wal-checkpoint-bytes=256KiB", "--segment-rows-max=4000"];
const CLIENTS: usize = 8;
const DISK_BYTES: u64 = 512 * 1024 * 1024;

#[test]
fn cut_at_random_moments_full_keeps_what_it_acknowledged() {
    cut_and_check("full", rounds("HITLOG_POWERCUT_ROUNDS", 5));
}

#[test]
fn cut_at_random_moments_normal_loses_a_tail() {
    let lost = cut_and_check("normal", rounds("HITLOG_POWERCUT_ROUNDS", 5));
    assert!(!is_root() || lost > 0, "a power cut that loses nothing under `normal` is none");
}

/// Returns how many acknowledged requests were lost, which only `normal` may.
fn cut_and_check(durability: &str, rounds: usize) -> usize {
    if !is_root() {
        println!("skipped: only root can mount a disk and cut its power; run scripts/powercut as root");
        return 0;
    }
    let work = work_dir();
    let (device, folder) = (work.path().join("disk"), work.path().join("mounted"));
    fs::File::create(&device).and_then(|file| file.set_len(DISK_BYTES)).unwrap();
    fs::create_dir(&folder).unwrap();
    run("mkfs.ext4", &["-q", "-F", device.to_str().unwrap()]);
    let mount = || Mount::new(&["-o", "loop", device.to_str().unwrap()], &folder);
    let data = folder.join("data");
    let flags = [&FLAGS[..], &["--durability", durability]].concat();
    let (mut floor, mut requests, mut lost) = (0, 0, 0);
    let mut kept: Vec<(String, Sents)> = Vec::new();
    let mut mounted = mount();
    // A cut may come just after a sync of everything, several times in a row.
    let loses_none_by_luck = |round: usize, lost: usize| durability == "normal" && lost == 0 && round < rounds + 20;
    for round in 0.. {
        if round >= rounds && !loses_none_by_luck(round, lost) {
            break;
        }
        let mut daemon = Daemon::start_in(&data, &flags);
        let code = daemon.register(&format!("round-{round}.example"));
        let load = Load::start(&daemon.address, &code, CLIENTS);
        load.wait_for_answers(100);
        thread::sleep(Duration::from_millis(random_below(500)));
        // A loss of power stops the process, too. The ioctl alone does not: a sync that it meets half-way may return 0
        // though what it was to write down of the file's extents is lost, and hitlog would believe that.
        daemon.freeze();
        mounted.cut_power();
        daemon.crash();
        let mut sents = load.finish();
        drop(mounted);
        mounted = mount();
        let daemon = Daemon::start_in(&data, &flags);
        let (found, ids) = (walk(&daemon, &code).unwrap(), event_ids(&data));
        requests += sents.len();
        if durability == "normal" {
            lost += forgive_lost_tail(&mut sents, &found, &ids);
        }
        floor = hold(&sents, &found, &ids, floor).unwrap_or_else(|fault| panic!("round {round}: {fault}"));
        kept.push((code, sents));
        daemon.stop();
    }
    // What survived a cut survives the later ones.
    let daemon = Daemon::start_in(&data, &flags);
    for (code, sents) in &kept {
        hold(sents, &walk(&daemon, code).unwrap(), &event_ids(&data), 0).unwrap_or_else(|fault| panic!("{fault}"));
    }
    daemon.stop();
    println!("{durability}: {} power cuts, {requests} requests, {lost} acknowledged ones lost", kept.len());
    lost
}
