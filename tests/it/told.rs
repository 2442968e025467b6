//! What people are told once something has ended or cannot be done: the commands in it do what is said when they are
//! run as they stand, from another folder and without the environment, and what is done is never told as not done.

use std::{
    ffi::OsStr,
    fs::{self, FileTimes, OpenOptions, Permissions},
    os::unix::{ffi::OsStrExt, fs::PermissionsExt, net::UnixListener},
    path::Path,
    process::Stdio,
    time::UNIX_EPOCH,
};

use serde_json::json;

use crate::imports::{MANY, fine, line, lines, numbers, ran, sessions, shell, signal, told, wait_for_groups};
use harness::{Daemon, Ran, command, event_with, tool, work_dir};

const TOKEN: &str = "0123456789abcdef-secret";

/// Whoever types at it sends nothing. The other side of a terminal is a terminal, too.
fn terminal() -> Stdio {
    OpenOptions::new().read(true).write(true).open("/dev/ptmx").unwrap().into()
}

/// Lines into a command that somebody was told.
fn send(lines: &Path, into: &str) -> Ran {
    ran(shell("sh", &format!("cat '{}' | {into}", lines.display())))
}

#[test]
fn what_to_send_lines_into_leaves_out_and_directs_the_same() {
    let work = work_dir();
    let (data, file, socket) = (work.path().join("data"), work.path().join("lines"), work.path().join("socket"));
    fs::write(&file, lines(5)).unwrap();
    let _listener = UnixListener::bind(&socket).unwrap();
    fs::write(work.path().join("others"), line("b", 0)).unwrap();
    fine(&tool(&data, &["import", work.path().join("others").to_str().unwrap()]));
    for (number, (source, stdin)) in
        [("-", terminal()), (socket.to_str().unwrap(), Stdio::null())].into_iter().enumerate()
    {
        let mut import = command(&["import", "--website=B.example", "--skip", "3", source]);
        import.stdin(stdin).arg("--data-dir").arg(&data);
        let refused = ran(import);
        let into = told(&refused.err, "into: ");
        assert!(fine(&send(&file, into)).starts_with("2 events imported\n"), "{into}");
        let stored = sessions(&data, &["--website", "b.example"]);
        assert_eq!(stored[1 + 2 * number..], ["s3", "s4"], "{into}");
        assert_eq!(sessions(&data, &[]), stored, "{into}");
    }
}

/// The modes of all files below a folder.
fn modes(folder: &Path) -> Vec<(String, u32)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let (path, of) = (entry.path(), entry.metadata().unwrap());
        if of.is_dir() {
            found.extend(modes(&path));
        } else {
            found.push((path.display().to_string(), of.permissions().mode() & 0o777));
        }
    }
    found
}

#[test]
fn what_came_from_the_environment_is_told_but_no_token() {
    let work = work_dir();
    let (data, file) = (work.path().join("data"), work.path().join("lines"));
    fs::write(&file, lines(MANY)).unwrap();
    let mut import = command(&["import", "lines"]);
    import.current_dir(work.path()).env("HITLOG_DATA_DIR", "data").env("HITLOG_SCRATCH_DIR", "scr");
    import.env("HITLOG_FILE_ACCESS", "group").env("HITLOG_DURABILITY", "normal").env("HITLOG_WAL_BYTES_MAX", "9MiB");
    import.env("HITLOG_TOKEN", TOKEN).env("HITLOG_LISTEN", "127.0.0.1:7");
    let import = import.spawn().unwrap();
    wait_for_groups(&data);
    signal(&import, "INT");
    let error = String::from_utf8(import.wait_with_output().unwrap().stderr).unwrap();
    let go_on = told(&error, "Go on with: ");
    let scratch = format!("--scratch-dir={}", work.path().join("scr").display());
    for part in ["--file-access=group", "--durability=normal", "--wal-bytes-max=9MiB", &scratch] {
        assert!(go_on.contains(part), "{part}: {go_on}");
    }
    assert!(!error.contains(TOKEN) && !go_on.contains("listen"), "{error}");
    fine(&ran(shell("sh", go_on)));
    assert_eq!(sessions(&data, &[]), numbers(MANY));
    let owners: Vec<_> = modes(&data).into_iter().filter(|(_, mode)| mode & 0o040 == 0).collect();
    assert!(owners.is_empty(), "not for the group: {owners:?}");
}

#[test]
fn a_start_that_is_told_finds_what_the_file_names() {
    let work = work_dir();
    let (data, segment) = (work.path().join("data"), work.path().join("data/segments/000000000001.db"));
    let send_one = |daemon: &Daemon, code: &str| {
        assert_eq!(daemon.client().post("/api/v1/events", event_with(code, json!({})).to_string()).status, 201);
    };
    let daemon = Daemon::start_in(&data, &[]);
    let code = daemon.register("a.example");
    send_one(&daemon, &code);
    daemon.stop();
    let older = fs::read(&segment).unwrap();
    let daemon = Daemon::start_in(&data, &[]);
    send_one(&daemon, &code);
    daemon.stop();
    fs::write(work.path().join("tok"), format!("{TOKEN}\n")).unwrap();
    fs::write(work.path().join("c.toml"), "scratch_dir = \"scr\"\ntoken_file = \"tok\"\nreaders = 2\n").unwrap();
    fs::write(&segment, &older).unwrap();
    let start = |arguments: &[&str]| {
        let mut started = command(arguments);
        started.args(["--config=c.toml", "--data-dir=data"]).current_dir(work.path());
        started.stdin(fs::File::open(work.path().join("tok")).unwrap());
        started.env("HITLOG_LISTEN", "127.0.0.1:0").env("HITLOG_LOG_FORMAT", "text");
        let refused = ran(started);
        assert_eq!(refused.code, 1, "{}{}", refused.out, refused.err);
        let text = format!("{}{}", refused.out, refused.err);
        text.split('`').find(|part| part.contains("serve --restored")).unwrap_or_else(|| panic!("{text}")).to_owned()
    };
    let told = start(&["check"]);
    assert_eq!(told, start(&["serve"]), "whoever tells it");
    // Nobody starts it open who does not know that its tokens are not in there.
    for (given, flag) in [("--read-token=0123456789abcdef", "read-token"), ("--token-file=/dev/fd/0", "token-file")] {
        let told = start(&["serve", given]);
        assert!(told.ends_with(&format!(" # with --{flag} again, which is not shown")), "{told}");
        assert!(!told.contains("0123456789abcdef") && !told.contains("/dev/fd"), "{told}");
    }
    let token_file = format!("--token-file={}", work.path().join("tok").display());
    assert!(told.contains(&token_file) && !told.contains("--readers"), "{told}");
    let mut started = shell("sh", &format!("exec {told}"));
    let daemon = Daemon::spawn(started.stdout(Stdio::piped()).stderr(Stdio::piped()), &data);
    assert_eq!(daemon.client().get("/api/v1/websites").status, 401, "it has its tokens");
    assert!(work.path().join("scr").is_dir() && !Path::new("/scr").exists());
}

#[test]
fn settings_from_a_pipe_are_told_as_flags() {
    let work = work_dir();
    let (data, file) = (work.path().join("data"), work.path().join("lines"));
    fs::write(&file, lines(3)).unwrap();
    let settings = work.path().join("c.toml");
    let text = format!("token = \"{TOKEN}\"\nfile_access = \"group\"\nsegment_rows_max = 77\nscratch_dir = \"scr\"\n");
    fs::write(&settings, text).unwrap();
    let (settings, here) = (settings.display(), work.path().display());
    for (number, given) in
        [format!("--config <(cat {settings})"), format!("--config /dev/fd/3 3< {settings}"), "--config fifo".into()]
            .into_iter()
            .enumerate()
    {
        let data = data.with_extension(number.to_string());
        let lead = if number == 2 { "mkfifo fifo; cat c.toml > fifo &" } else { ":;" };
        let script = format!("cd {here}; {lead} exec hitlog import - {given} --data-dir {}", data.display());
        let mut import = shell("bash", &script);
        import.stdin(terminal());
        let refused = ran(import);
        let into = told(&refused.err, "into: ");
        assert!(!into.contains("--config") && !refused.err.contains(TOKEN), "{into}");
        assert!(into.contains("--segment-rows-max=77") && into.contains("/scr "), "{into}");
        assert!(fine(&send(&file, into)).starts_with("3 events imported"), "{into}");
        assert!(modes(&data).iter().all(|(_, mode)| mode & 0o040 != 0), "{into}");
    }
}

#[test]
fn a_folder_with_a_name_that_no_setting_takes_is_gone_to() {
    let work = work_dir();
    let file = work.path().join("lines");
    fs::write(&file, lines(3)).unwrap();
    fs::write(work.path().join("c.toml"), "scratch_dir = \"../scr\"\n").unwrap();
    for name in [&b"caf\xe9"[..], b"two\nlines", b"ends\n", b"it's \xff\n\xfe", b"space "] {
        let folder = work.path().join(OsStr::from_bytes(name));
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, Permissions::from_mode(0o700)).unwrap();
        for (number, program) in ["sh", "bash"].into_iter().enumerate() {
            let mut import = command(&["import", "-", "--config=../c.toml", "--data-dir=."]);
            import.current_dir(&folder).stdin(terminal());
            let refused = ran(import);
            let into = told(&refused.err, "into: ");
            let sent = ran(shell(program, &format!("cat '{}' | {into}", file.display())));
            assert!(fine(&sent).starts_with("3 events imported"), "{name:?}: {into}");
            assert!(folder.join("catalog.db").exists() && work.path().join("scr").exists(), "{into}");
            let mut export = command(&["export", "--data-dir=."]);
            export.current_dir(&folder);
            assert_eq!(fine(&ran(export)).lines().count(), 3 * (number + 1), "{into}");
        }
    }
}

#[test]
fn an_import_whose_file_was_replaced_tells_no_command_that_would_leave_out_lines_of_the_other() {
    let text = lines(MANY);
    type Change<'a> = &'a dyn Fn(&Path);
    let replace: Change<'_> = &|file| {
        let other = file.with_extension("other");
        fs::write(&other, lines(MANY)).unwrap();
        fs::rename(other, file).unwrap();
    };
    let take_away: Change<'_> = &|file| fs::rename(file, file.with_extension("away")).unwrap();
    let touch: Change<'_> = &|file| {
        let file = OpenOptions::new().write(true).open(file).unwrap();
        file.set_times(FileTimes::new().set_modified(UNIX_EPOCH)).unwrap();
    };
    for (what, change, is_other) in [("replace", replace, true), ("away", take_away, true), ("touch", touch, false)] {
        let work = work_dir();
        let (file, data) = (work.path().join("lines"), work.path().join("data"));
        fs::write(&file, &text).unwrap();
        let import =
            command(&["import", file.to_str().unwrap(), "--data-dir", data.to_str().unwrap()]).spawn().unwrap();
        wait_for_groups(&data);
        // Held still, so that it does not end meanwhile.
        signal(&import, "STOP");
        change(&file);
        signal(&import, "INT");
        signal(&import, "CONT");
        let error = String::from_utf8(import.wait_with_output().unwrap().stderr).unwrap();
        let stored = sessions(&data, &[]).len();
        assert!(stored < MANY && error.contains(&format!("The first {stored} lines are imported")), "{what}: {error}");
        if is_other {
            assert!(error.contains("is another file by now, or gone") && !error.contains("hitlog import"), "{error}");
            assert!(error.trim_end().ends_with(&format!("with --skip {stored}")), "{what}: {error}");
        } else {
            assert!(error.contains("was written to meanwhile: see that"), "{what}: {error}");
            fine(&ran(shell("sh", told(&error, "Go on with: "))));
            assert_eq!(sessions(&data, &[]), numbers(MANY), "{what}");
        }
    }
}

/// What a command does whose standard output is on a full disk.
fn on_full_disk(arguments: &[&str], data: &Path) -> Ran {
    let mut full = command(arguments);
    if !arguments.starts_with(&["config"]) && !arguments[0].starts_with("--") {
        full.arg("--data-dir").arg(data);
    }
    full.stdout(OpenOptions::new().write(true).open("/dev/full").unwrap());
    ran(full)
}

/// What a command does whose standard output nobody reads any more.
fn on_closed_pipe(arguments: &[&str], data: &Path) -> Ran {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut closed = command(arguments);
    if !arguments.starts_with(&["config"]) && !arguments[0].starts_with("--") {
        closed.arg("--data-dir").arg(data);
    }
    closed.stdout(writer);
    ran(closed)
}

#[test]
fn what_is_done_and_cannot_be_told_is_told_elsewhere() {
    let work = work_dir();
    let (data, file, to) = (work.path().join("data"), work.path().join("lines"), work.path().join("backup"));
    fs::write(&file, lines(3)).unwrap();
    let full = on_full_disk(&["import", file.to_str().unwrap()], &data);
    assert_eq!(full.code, 1, "{}", full.err);
    for words in
        ["it is done, but standard output could not be", "3 events imported", "Do not import these lines again"]
    {
        assert!(full.err.contains(words), "{}", full.err);
    }
    assert_eq!(sessions(&data, &[]), numbers(3));
    let full = on_full_disk(&["backup", to.to_str().unwrap()], &data);
    assert!(full.code == 1 && full.err.contains("it is done, but"), "{}", full.err);
    assert_eq!(sessions(&to, &[]), numbers(3));
    // What only reads has done nothing else.
    for arguments in [&["export"][..], &["stats"], &["segments"], &["check"], &["config", "show"], &["config", "check"]]
    {
        let full = on_full_disk(arguments, &data);
        assert_eq!(full.code, 1, "{arguments:?}: {}", full.err);
        assert!(full.err.contains("cannot write to standard output: "), "{arguments:?}: {}", full.err);
        assert_eq!(fine(&on_closed_pipe(arguments, &data)), "", "{arguments:?}");
    }
    for arguments in [["--help"], ["--version"]] {
        let full = on_full_disk(&arguments, &data);
        assert!(full.code == 1 && full.err.contains("cannot write to standard output: "), "{}", full.err);
        fine(&on_closed_pipe(&arguments, &data));
    }
}

#[test]
fn what_goes_for_good_goes_only_when_it_is_told() {
    let work = work_dir();
    let data = work.path().join("data");
    let daemon = Daemon::start_in(&data, &["--segment-rows-max", "20"]);
    let code = daemon.register("a.example");
    let batch: Vec<_> = (0..20).map(|_| event_with(&code, json!({}))).collect();
    for _ in 0..2 {
        assert_eq!(daemon.client().post("/api/v1/events/batch", json!({ "events": batch }).to_string()).status, 201);
        daemon.wait_until_sealed();
    }
    daemon.stop();
    let sealed = data.join("segments/000000000001.g2.db");
    let mut bytes = fs::read(&sealed).unwrap();
    bytes[..100].fill(0xa5);
    fs::write(&sealed, bytes).unwrap();
    // A fault is one, whoever reads of it.
    let checked = on_closed_pipe(&["check"], &data);
    assert_eq!((checked.code, checked.err.as_str()), (1, ""));
    let give_up = ["segments", "write-off", "1", "--yes"];
    for refused in [on_full_disk(&give_up, &data), on_closed_pipe(&give_up, &data)] {
        assert!(refused.code == 1 && refused.err.contains("nothing was changed, because "), "{}", refused.err);
        assert!(sealed.exists());
    }
    assert_eq!(tool(&data, &give_up).code, 0);
    let discard = ["quarantine", "discard", "1", "--yes"];
    for refused in [on_full_disk(&discard, &data), on_closed_pipe(&discard, &data)] {
        assert!(refused.code == 1 && refused.err.contains("nothing was changed, because "), "{}", refused.err);
        assert!(data.join("quarantine/000000000001.g2.db").exists());
    }
    assert!(fine(&tool(&data, &discard)).ends_with("It is removed.\n"));
}

#[test]
fn an_export_takes_the_retention_that_it_heeds() {
    let work = work_dir();
    let (data, file) = (work.path().join("data"), work.path().join("lines"));
    let day = line("a", 1);
    // Some of a time that is long past, some of one that may be to come.
    fs::write(&file, format!("{day}{}", day.replace("2026-01-28", "2099-01-28"))).unwrap();
    fine(&tool(&data, &["import", file.to_str().unwrap()]));
    let export = |arguments: &[&str]| fine(&tool(&data, &[&["export"], arguments].concat())).lines().count();
    assert_eq!((export(&[]), export(&["--retention-days=0"]), export(&["--retention-days", "1"])), (2, 2, 1));
    let help = ran(command(&["export", "--help"]));
    assert!(fine(&help).contains("--retention-days"), "{}", help.out);
    let refused = tool(&data, &["segments", "--retention-days", "1"]);
    assert_eq!(refused.code, 2, "it lists what is stored: {}", refused.out);
}
