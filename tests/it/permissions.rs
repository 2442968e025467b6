//! Who may read the files, and whose they are when root makes them.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::json;

use harness::{Daemon, binary, command, event_with, mount::is_root, wait_until, work_dir};

const ROWS_MAX: &str = "--segment-rows-max=60";
/// A user that every system has.
const NOBODY: u32 = 65_534;

/// Every file and directory below a folder, with the mode.
fn modes(folder: &Path) -> Vec<(PathBuf, u32)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        found.push((path.clone(), fs::metadata(&path).unwrap().mode() & 0o7777));
        if path.is_dir() {
            found.extend(modes(&path));
        }
    }
    found
}

fn assert_modes(folder: &Path, file: u32, directory: u32) {
    for (path, mode) in modes(folder) {
        let wanted = if path.is_dir() { directory } else { file };
        assert_eq!(format!("{mode:o}"), format!("{wanted:o}"), "{}", path.display());
    }
}

/// Starts hitlog as somebody whose umask takes nothing away.
fn start_open(data: &Path, flags: &[&str]) -> Daemon {
    let arguments = ["serve", "--listen", "127.0.0.1:0", ROWS_MAX, "--data-dir", data.to_str().unwrap()];
    let hitlog = command(&[&arguments[..], flags].concat());
    let mut shell = Command::new("sh");
    shell.args(["-c", "umask 000; exec \"$0\" \"$@\""]).arg(hitlog.get_program()).args(hitlog.get_args());
    serve(without_settings(&mut shell), data)
}

/// A command that hitlog's own settings of the environment do not reach.
fn without_settings(command: &mut Command) -> &mut Command {
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("HITLOG_")) {
        command.env_remove(name);
    }
    command
}

fn serve(command: &mut Command, data: &Path) -> Daemon {
    Daemon::spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()), data)
}

/// Fills a segment, and a part of the next.
fn fill(daemon: &Daemon, code: &str) {
    let sealed = daemon.segments("sealed");
    for _ in 0..2 {
        let events = vec![event_with(code, json!({})); 35];
        let response = daemon.client().post("/api/v1/events/batch", json!({ "events": events }).to_string());
        assert_eq!(response.status, 201, "{}", response.text());
    }
    wait_until("a segment is sealed", || (daemon.segments("sealed") > sealed).then_some(()));
    daemon.wait_until_sealed();
}

#[test]
fn files_are_their_owners_alone_whatever_the_umask() {
    let work = work_dir();
    let data = work.path().join("data");
    fs::create_dir(&data).unwrap();
    fs::set_permissions(&data, Permissions::from_mode(0o755)).unwrap();
    let daemon = start_open(&data, &[]);
    let code = daemon.register("example.com");
    fill(&daemon, &code);
    let lock = data.join("lock");
    assert!(modes(&data).len() > 8, "there are logs beside the databases: {:?}", modes(&data));
    assert_modes(&data, 0o600, 0o700);
    daemon.wait_for_log(&format!("chmod 700 {}", data.display()));
    fs::remove_file(&lock).unwrap();
    wait_until("the lock is made anew", || lock.exists().then_some(()));
    assert_modes(&data, 0o600, 0o700);
    daemon.stop();
    // What an older hitlog has made is restricted at a start.
    for (path, _) in modes(&data) {
        let mode = if path.is_dir() { 0o755 } else { 0o644 };
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    }
    fs::write(data.join("note"), "not hitlog's").unwrap();
    fs::set_permissions(data.join("note"), Permissions::from_mode(0o644)).unwrap();
    start_open(&data, &[]).stop();
    assert_eq!(fs::metadata(data.join("note")).unwrap().mode() & 0o777, 0o644);
    fs::remove_file(data.join("note")).unwrap();
    assert_modes(&data, 0o600, 0o700);
    // The group may read them where the settings say so, and not longer.
    fs::set_permissions(&data, Permissions::from_mode(0o700)).unwrap();
    let daemon = start_open(&data, &["--file-access=group", "--log-level=info"]);
    fill(&daemon, &code);
    assert_modes(&data, 0o640, 0o750);
    assert_eq!(fs::metadata(&data).unwrap().mode() & 0o777, 0o750, "the group can get there");
    daemon.wait_for_log("may read it from now on: its mode is 750");
    assert!(!daemon.log().contains("chmod"), "{}", daemon.log());
    daemon.stop();
    if is_root() {
        std::os::unix::fs::chown(&data, Some(NOBODY), None).unwrap();
        fs::set_permissions(&data, Permissions::from_mode(0o700)).unwrap();
        let daemon = start_open(&data, &["--file-access=group"]);
        daemon.wait_for_log(&format!("chmod 750 {}", data.display()));
        daemon.stop();
        assert_eq!(fs::metadata(&data).unwrap().mode() & 0o777, 0o700, "what is another's is left to them");
        std::os::unix::fs::chown(&data, Some(0), None).unwrap();
    }
    start_open(&data, &[]).stop();
    assert_modes(&data, 0o600, 0o700);
    let new = work.path().join("new");
    start_open(&new, &[]).stop();
    assert_eq!(fs::metadata(&new).unwrap().mode() & 0o777, 0o700);
}

#[test]
fn what_root_makes_belongs_to_the_owner_of_the_directory() {
    let work = work_dir();
    // Whoever may not go into the folders of this build can't be the service.
    fs::set_permissions(work.path(), Permissions::from_mode(0o755)).unwrap();
    let as_nobody = |program: &Path| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(program);
        command
    };
    if !is_root() || !as_nobody(&binary()).arg("--version").output().is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: it needs root, and a build that everybody may run");
        return;
    }
    let path = |name: &str| work.path().join(name);
    let make = |name: &str| {
        fs::create_dir(path(name)).unwrap();
        std::os::unix::fs::chown(path(name), Some(NOBODY), Some(NOBODY)).unwrap();
        path(name)
    };
    let serve = |data: &Path| {
        let mut command = as_nobody(&binary());
        command.args(["serve", "--listen=127.0.0.1:0", ROWS_MAX, "--data-dir"]).arg(data);
        serve(without_settings(&mut command), data)
    };
    let tool = |arguments: &[&str], data: &Path| {
        let output = command(&[arguments, &["--data-dir", data.to_str().unwrap()]].concat()).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    let assert_nobodys = |folder: &Path| {
        for (path, _) in modes(folder) {
            let found = fs::metadata(&path).unwrap();
            assert_eq!((found.uid(), found.gid()), (NOBODY, NOBODY), "{}", path.display());
        }
    };
    let total = |daemon: &Daemon, code: &str| {
        let page = daemon.client().get(&format!("/api/v1/events?trackingCode={code}")).json();
        page["pagination"]["total"].as_u64().unwrap()
    };
    let (data, empty, backup) = (make("data"), make("empty"), path("backup"));
    let daemon = serve(&data);
    let code = daemon.register("example.com");
    fill(&daemon, &code);
    daemon.stop();
    // An import that rolls and seals; and one that makes everything.
    fs::write(path("export"), tool(&["export"], &data)).unwrap();
    fs::set_permissions(path("export"), Permissions::from_mode(0o600)).unwrap();
    for (data, events) in [(&data, 140), (&empty, 70)] {
        tool(&["import", ROWS_MAX, path("export").to_str().unwrap()], data);
        assert_nobodys(data);
        let daemon = serve(data);
        assert_eq!(total(&daemon, &code), events);
        fill(&daemon, &code);
        daemon.stop();
    }
    // A backup belongs to whom the original does, links or not.
    tool(&["backup", backup.to_str().unwrap()], &data);
    assert_eq!(fs::metadata(&backup).unwrap().uid(), NOBODY);
    assert_nobodys(&backup);
    let daemon = serve(&backup);
    assert_eq!(total(&daemon, &code), 210);
    daemon.stop();
}
