//! Sorting where no temporary directory of the system's can be written, as on a read-only root.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
};

use harness::{Daemon, command, mount::is_root, traffic::Batches, wait_until, work_dir};

/// `hitlog` where every folder that SQLite would think of by itself may only be read. Its data are in `/mnt`, which is
/// `work` by another name.
fn on_read_only_root(arguments: &[&str], work: &Path) -> Command {
    const READ_ONLY: &str = "mount --bind \"$1\" /mnt && shift && for at in /tmp /var/tmp /usr/tmp; do \
                             if [ -d $at ]; then mount --bind $at $at && mount -o remount,bind,ro $at || exit 99; fi; \
                             done; cd /proc && exec \"$@\"";
    let hitlog = command(arguments);
    let mut unshared = Command::new("unshare");
    unshared.args(["-m", "sh", "-c", READ_ONLY, "sh"]).arg(work).arg(hitlog.get_program()).args(hitlog.get_args());
    unshared.env("SQLITE_TMPDIR", "/nowhere").env("TMPDIR", "/nowhere");
    unshared.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    unshared
}

#[test]
fn a_segment_is_sealed_on_a_read_only_root() {
    const BATCHES: usize = 40;
    if !is_root() {
        println!("skipped: only root can make a root that may only be read");
        return;
    }
    let work = work_dir();
    let data = work.path().join("data");
    // Keys of tens of thousands of events do not fit into the least memory for sorting.
    let flags = ["--seal-cache-bytes=1MiB", "--segment-page-bytes=4096", "--segment-rows-max=40000"];
    let serve = [&["serve", "--listen", "127.0.0.1:0", "--data-dir", "/mnt/data"][..], &flags].concat();
    let daemon = Daemon::spawn(&mut on_read_only_root(&serve, work.path()), &data);
    let code = daemon.register("example.com");
    let (mut client, mut batches) = (daemon.client(), Batches::new(&code, 1_000));
    for batch in 0..BATCHES {
        assert_eq!(client.post("/api/v1/events/batch", batches.from(batch * 1_000)).status, 201);
    }
    // The last answer may come before the roll.
    wait_until("they are sealed", || {
        let metrics = daemon.metrics();
        assert_eq!(metrics["hitlog_seals_total{outcome=\"failed\"}"], 0.0, "{}", daemon.log());
        (metrics["hitlog_events_sealed_total"] == 40_000.0).then_some(())
    });
    daemon.stop();
    let scratch = data.join("scratch");
    assert_eq!(fs::metadata(&scratch).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(fs::read_dir(&scratch).unwrap().count(), 0);

    // The tools that only read need no such folder, and leave none.
    for tool in [&["check"][..], &["stats"], &["segments"], &["export"], &["backup", "/mnt/backup"]] {
        let ran = on_read_only_root(&[tool, &["--data-dir", "/mnt/data"]].concat(), work.path()).output().unwrap();
        assert!(ran.status.success(), "{tool:?}: {}", String::from_utf8_lossy(&ran.stderr));
    }
    assert!(!work.path().join("backup/scratch").exists());
}

#[test]
fn scratch_is_where_a_setting_says() {
    let work = work_dir();
    let (data, scratch) = (work.path().join("data"), work.path().join("elsewhere"));
    fs::create_dir(&scratch).unwrap();
    fs::write(scratch.join("etilqs_left"), "by a crash").unwrap();
    fs::write(scratch.join("mine"), "not hitlog's").unwrap();
    let daemon = Daemon::start_in(&data, &["--scratch-dir", scratch.to_str().unwrap()]);
    assert!(!scratch.join("etilqs_left").exists() && scratch.join("mine").exists() && !data.join("scratch").exists());
    daemon.stop();
    let serve = ["serve", "--listen=127.0.0.1:0", "--data-dir", data.to_str().unwrap(), "--scratch-dir=/not/mounted/x"];
    let refused = command(&serve).output().unwrap();
    let told = String::from_utf8(refused.stderr).unwrap();
    assert!(refused.status.code() == Some(1) && told.contains("/not/mounted/x"), "{told}");
}
