//! Files that hitlog's user may not use: told as what they are, never as damage.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::Path,
    process::{Command, Stdio},
};

use harness::{Daemon, checker::Load, command, mount::is_root, work_dir};

const NOBODY: u32 = 65_534;

fn give(path: &Path, user: u32, mode: u32) {
    chown(path, Some(user), Some(user)).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Everything in a data directory to its user.
fn give_all(folder: &Path) {
    give(folder, NOBODY, 0o700);
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() { give_all(&entry.path()) } else { give(&entry.path(), NOBODY, 0o600) }
    }
}

fn as_nobody(arguments: &[&str]) -> Command {
    let hitlog = command(arguments);
    let mut nobody = Command::new("setpriv");
    nobody.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(hitlog.get_program());
    nobody.args(hitlog.get_args()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    nobody
}

#[test]
fn what_may_not_be_used_is_told_as_that() {
    let work = work_dir();
    fs::set_permissions(work.path(), fs::Permissions::from_mode(0o755)).unwrap();
    if !is_root() || as_nobody(&["--version"]).output().is_ok_and(|ran| !ran.status.success()) {
        println!("skipped: only root can take files from another user");
        return;
    }
    let data = work.path().join("data");
    let mut daemon = Daemon::start_in(&data, &["--segment-rows-max=100"]);
    let code = daemon.register("example.com");
    let load = Load::start(&daemon.address, &code, 2);
    load.wait_for_answers(100);
    load.finish();
    daemon.wait_until_sealed();
    daemon.crash();
    let listed = fs::read_dir(data.join("segments")).unwrap().map(|entry| entry.unwrap().file_name());
    let listed: Vec<String> = listed.map(|name| name.into_string().unwrap()).collect();
    let of = |end: &str| listed.iter().filter(|name| name.ends_with(end)).max().cloned().unwrap();
    let serve = ["serve", "--listen=127.0.0.1:0", "--data-dir", data.to_str().unwrap()];
    let check = ["check", "--data-dir", data.to_str().unwrap()];
    let told = |arguments: &[&str]| {
        let ran = as_nobody(arguments).output().unwrap();
        let told = [ran.stdout, ran.stderr].concat();
        (ran.status.code(), String::from_utf8(told).unwrap())
    };
    for (path, mode) in [
        (data.clone(), 0o700),
        (data.join("catalog.db"), 0o600),
        (data.join("catalog.db"), 0o644),
        (data.join("catalog.db-wal"), 0o600),
        (data.join("segments"), 0o700),
        (data.join("segments").join(of(".g2.db")), 0o600),
        (data.join("segments").join(of(".db-wal").trim_end_matches("-wal")), 0o600),
        (data.join("segments").join(of(".db-wal").trim_end_matches("-wal")), 0o644),
        (data.join("segments").join(of(".db-wal")), 0o600),
        (data.join("scratch"), 0o600),
    ] {
        give_all(&data);
        give(&path, 0, mode);
        let (code, told_by_serve) = told(&serve);
        assert!(code == Some(1) && told_by_serve.contains("chown"), "{path:?} {mode:o}: {code:?} {told_by_serve}");
        let (code, told_by_check) = told(&check);
        // Who only reads minds less.
        assert!(code == Some(0) || told_by_check.contains("chown"), "{path:?} {mode:o}: {code:?} {told_by_check}");
        for told in [told_by_serve, told_by_check] {
            assert!(!told.contains("damage") && !told.contains("backup"), "{path:?} {mode:o}: {told}");
        }
    }
    give_all(&data);
    let daemon = Daemon::spawn(&mut as_nobody(&serve), &data);
    daemon.wait_until_sealed();
    daemon.stop();
}
