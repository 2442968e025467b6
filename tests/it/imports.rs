//! Imports as a user runs them: from files, pipes and whatever else, of lines that change meanwhile, of websites; and
//! the commands that people are told to run, run.

use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    fs::{self, File, OpenOptions},
    io::{Read, Write},
    os::unix::{ffi::OsStrExt, fs::FileExt, net::UnixListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use harness::{Daemon, Ran, binary, command, event_with, tool, wait_until, work_dir};

/// So many lines that an import is under way for some time.
pub(crate) const MANY: usize = 150_000;

pub(crate) fn line(website: &str, number: usize) -> String {
    let line = json!({
        "websiteId": format!("web-{website}"), "trackingCode": format!("pm-{website}-1"),
        "domain": format!("{website}.example"), "eventType": "pageview", "url": "https://a.example/",
        "sessionId": format!("s{number}"), "visitorId": "v", "createdAt": "2026-01-28T20:00:00.000Z"
    });
    format!("{line}\n")
}

pub(crate) fn lines(count: usize) -> String {
    (0..count).map(|number| line("a", number)).collect()
}

/// What came of a command, with whatever bytes it had for arguments.
pub(crate) fn ran(mut command: Command) -> Ran {
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
}

/// A line of a shell that finds hitlog by its name, from a folder where nothing is.
pub(crate) fn shell(program: &str, script: &str) -> Command {
    let path = format!("{}:{}", binary().parent().unwrap().display(), std::env::var("PATH").unwrap());
    let mut command = Command::new(program);
    command.args(["-c", script]).current_dir("/").env("PATH", path).stdin(Stdio::null());
    command
}

pub(crate) fn fine(ran: &Ran) -> &str {
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{}", ran.out);
    &ran.out
}

pub(crate) fn sessions(data: &Path, arguments: &[&str]) -> Vec<String> {
    let exported = tool(data, &[&["export"], arguments].concat());
    let session = |line: &str| serde_json::from_str::<Value>(line).unwrap()["sessionId"].as_str().unwrap().to_owned();
    fine(&exported).lines().map(session).collect()
}

pub(crate) fn numbers(upto: usize) -> Vec<String> {
    (0..upto).map(|number| format!("s{number}")).collect()
}

/// The command behind these words, up to the end of the text.
pub(crate) fn told<'a>(text: &'a str, lead: &str) -> &'a str {
    text.split_once(lead).unwrap_or_else(|| panic!("{lead}: {text}")).1.trim_end_matches('\n')
}

#[test]
fn lines_come_from_wherever_they_can_be_read() {
    let work = work_dir();
    let (file, fifo) = (work.path().join("lines"), work.path().join("fifo"));
    fs::write(&file, lines(300)).unwrap();
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let feed = format!("cat {} > {} &", file.display(), fifo.display());
    let file = file.display();
    for (number, (lead, source, tail)) in [
        ("", format!("{file}"), String::new()),
        ("", "-".into(), format!("< {file}")),
        ("", "/dev/stdin".into(), format!("< {file}")),
        ("cat FILE |", "-".into(), String::new()),
        ("cat FILE |", "/dev/stdin".into(), String::new()),
        ("cat FILE |", "/proc/self/fd/0".into(), String::new()),
        ("", format!("<(cat {file})"), String::new()),
        (&feed, fifo.display().to_string(), String::new()),
        ("(head -n 100 FILE; sleep 0.3; tail -n +101 FILE) |", "-".into(), String::new()),
    ]
    .into_iter()
    .enumerate()
    {
        let lead = lead.replace("FILE", &file.to_string());
        let data = work.path().join(format!("data-{number}"));
        // Once into a directory that is new, once into one that is there.
        for round in 1..=2 {
            let script = format!("{lead} hitlog import --data-dir {} {source} {tail}", data.display());
            let imported = ran(shell("bash", &script));
            assert!(fine(&imported).starts_with("300 events imported"), "{script}: {}", imported.out);
            assert_eq!(sessions(&data, &[]).len(), 300 * round, "{script}");
        }
        let left: Vec<_> = fs::read_dir(data.join("scratch")).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
    }
    let expected: BTreeSet<OsString> = (0..9).map(|number| format!("data-{number}").into()).collect();
    let mut found: BTreeSet<_> = fs::read_dir(work.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    found.retain(|name| name != "lines" && name != "fifo");
    assert_eq!(found, expected, "nothing is left beside the data");
    // What stood before the first line that is left to read is not read again.
    let data = work.path().join("rest");
    let script = format!("(read line; hitlog import --data-dir {} -) < {file}", data.display());
    let rest = ran(shell("sh", &script));
    let count = fine(&rest).split(' ').next().unwrap().parse::<usize>().unwrap();
    assert_eq!(sessions(&data, &[]).len(), count);
}

#[test]
fn what_cannot_be_read_is_refused_with_what_to_do() {
    let work = work_dir();
    let (socket, data) = (work.path().join("socket"), work.path().join("data"));
    let _listener = UnixListener::bind(&socket).unwrap();
    let import = |file: &OsStr, stdin: Stdio| {
        let mut import = command(&["import", "--data-dir", data.to_str().unwrap()]);
        import.arg(file).stdin(stdin);
        ran(import)
    };
    // The other side of a terminal is a terminal, too.
    let terminal = || Stdio::from(OpenOptions::new().read(true).write(true).open("/dev/ptmx").unwrap());
    let folder = || Stdio::from(File::open(work.path()).unwrap());
    for (file, stdin, code, wanted) in [
        (work.path().as_os_str(), Stdio::null(), 2, "is a directory; name a file"),
        (OsStr::new("-"), folder(), 2, "standard input is a directory"),
        (OsStr::new("-"), terminal(), 2, "standard input is a terminal; name a file"),
        (OsStr::new("/dev/zero"), Stdio::null(), 2, "neither a file nor a pipe"),
        (socket.as_os_str(), Stdio::null(), 1, "is a socket"),
        (OsStr::new("/not/there"), Stdio::null(), 1, "cannot read /not/there: No such file"),
    ] {
        let refused = import(file, stdin);
        assert!(refused.code == code && refused.err.contains(wanted), "{file:?}: {} {}", refused.code, refused.err);
    }
    // A website that nobody can look up, as nothing is there.
    let elsewhere = command(&["import", "/dev/null", "--website", "x", "--data-dir", data.to_str().unwrap()]);
    let refused = ran(elsewhere);
    assert!(refused.code == 2 && refused.err.contains("there is nothing in "), "{}", refused.err);
    assert!(!refused.err.contains('`') && !data.exists(), "{}", refused.err);
    // A bad line from a pipe: nothing is made, and nothing is left.
    let script = format!("(echo '{{}}'; echo x) | hitlog import --data-dir {} -", data.display());
    let refused = ran(shell("sh", &script));
    assert!(refused.code == 1 && refused.err.contains("standard input: nothing was imported"), "{}", refused.err);
    assert!(
        refused.err.contains("line 1: ") && refused.err.contains("line 2: not a line of an export"),
        "{}",
        refused.err
    );
    assert_eq!(fs::read_dir(work.path()).unwrap().count(), 1, "the socket");
    let refused = tool(&data, &["import", "/dev/null", "--skip", "5"]);
    assert!(refused.code == 2 && refused.err.contains("has only 0 lines"), "{}", refused.err);
}

#[test]
fn nothing_at_all_is_no_success_unless_a_file_is_named() {
    let work = work_dir();
    let (data, empty) = (work.path().join("data"), work.path().join("empty"));
    fs::write(&empty, "").unwrap();
    let import = |script: &str| {
        let script = script.replace("IMPORT", &format!("hitlog import --data-dir {}", data.display()));
        ran(shell("bash", &script.replace("EMPTY", empty.to_str().unwrap())))
    };
    for script in [
        "hitlog export --data-dir /not/there 2> /dev/null | IMPORT -",
        "true | IMPORT /dev/stdin",
        "IMPORT - <&-",
        "IMPORT - < /dev/null",
        "IMPORT - < EMPTY",
        "IMPORT /dev/stdin < EMPTY",
        "IMPORT /dev/fd/3 3< EMPTY",
        "IMPORT <(false)",
    ] {
        let refused = import(script);
        assert!(refused.code == 1 && refused.err.contains("nothing came from "), "{script}: {}", refused.err);
        assert!(!data.exists(), "{script}");
    }
    for script in ["IMPORT EMPTY", "IMPORT /dev/null", "echo | IMPORT -"] {
        assert_eq!(fine(&import(script)), "0 events imported\n", "{script}");
    }
}

#[test]
fn a_pipe_that_does_not_wait_is_waited_for() {
    let work = work_dir();
    let data = work.path().join("data");
    let (reader, mut writer) = std::io::pipe().unwrap();
    rustix::fs::fcntl_setfl(&reader, rustix::fs::OFlags::NONBLOCK).unwrap();
    let mut import = command(&["import", "-", "--data-dir", data.to_str().unwrap()]);
    let import = import.stdin(reader).spawn().unwrap();
    for number in 0..3 {
        thread::sleep(Duration::from_millis(100));
        writer.write_all(line("a", number).as_bytes()).unwrap();
    }
    drop(writer);
    let output = import.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(sessions(&data, &[]), numbers(3));
}

#[test]
fn a_pipe_that_nobody_writes_into_is_left_by_a_signal() {
    let work = work_dir();
    let data = work.path().join("data");
    let mut import = command(&["import", "-", "--data-dir", data.to_str().unwrap()]);
    let mut import = import.stdin(Stdio::piped()).spawn().unwrap();
    let mut pipe = import.stdin.take().unwrap();
    pipe.write_all(line("a", 1).as_bytes()).unwrap();
    thread::sleep(Duration::from_millis(300));
    assert!(import.try_wait().unwrap().is_none());
    signal(&import, "INT");
    let output = import.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("interrupted; nothing was imported"));
    assert_eq!(fs::read_dir(work.path()).unwrap().count(), 0, "nothing is left");
}

#[test]
fn what_comes_from_a_pipe_needs_room() {
    let work = work_dir();
    let data = work.path().join("data");
    for (arguments, folder) in [("--scratch-dir /not/mounted/x", "/not/mounted/x"), ("--scratch-dir /proc", "/proc")] {
        let script = format!("echo x | hitlog import - {arguments} --data-dir {}", data.display());
        let refused = ran(shell("sh", &script));
        assert!(refused.code == 1 && refused.err.contains(folder), "{}", refused.err);
        assert!(refused.err.contains("Nothing was imported; --scratch-dir may name"), "{}", refused.err);
    }
    // With so much to be kept free there is too little.
    let script = format!("echo x | HITLOG_RESERVE_BYTES=1GiB hitlog import - --data-dir {}", data.display());
    let free = free_bytes(work.path());
    let refused = ran(shell("sh", &script));
    assert!(free > 1 << 30 || refused.err.contains("there is no room"), "{}", refused.err);
}

/// The bytes that are free where a folder is.
fn free_bytes(folder: &Path) -> u64 {
    let of = rustix::fs::statvfs(folder).unwrap();
    of.f_bavail * of.f_frsize
}

pub(crate) fn signal(process: &Child, signal: &str) {
    let sent = Command::new("kill").args([&format!("-{signal}"), &process.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

/// Waits until an import has stored some groups; the data directory was new.
pub(crate) fn wait_for_groups(data: &Path) {
    let wal = data.join("segments/000000000001.db-wal");
    wait_until("some groups are stored", || fs::metadata(&wal).is_ok_and(|file| file.len() > 1_000_000).then_some(()));
}

#[test]
fn lines_that_change_after_they_were_checked_are_not_imported() {
    let text = lines(MANY);
    let (last, middle) = (line("a", MANY - 1).len(), text.len() / 2);
    type Change<'a> = &'a dyn Fn(&File);
    let grow: Change<'_> = &|file| file.write_all_at(line("a", MANY).as_bytes(), text.len() as u64).unwrap();
    let truncate: Change<'_> = &|file| file.set_len(middle as u64).unwrap();
    let shorten: Change<'_> = &|file| file.set_len((text.len() - last) as u64).unwrap();
    // The session of the last line, still good JSON.
    let place = text.rfind("\"sessionId\":\"s").unwrap() + 14;
    let rewrite: Change<'_> = &|file| file.write_all_at(b"7", place as u64).unwrap();
    for (what, change) in [("grow", grow), ("truncate", truncate), ("shorten", shorten), ("rewrite", rewrite)] {
        let work = work_dir();
        let (file, data) = (work.path().join("lines"), work.path().join("data"));
        fs::write(&file, &text).unwrap();
        let import = command(&["import", file.to_str().unwrap(), "--data-dir", data.to_str().unwrap()]).spawn();
        wait_for_groups(&data);
        change(&OpenOptions::new().write(true).open(&file).unwrap());
        let output = import.unwrap().wait_with_output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{what}: {error}");
        assert!(error.contains("was changed after it was checked. Its first "), "{what}: {error}");
        let stored = sessions(&data, &[]);
        assert!(!stored.is_empty() && stored.len() < MANY, "{what}: {}", stored.len());
        assert_eq!(stored, numbers(stored.len()), "{what}: what is imported is what was checked");
        assert!(error.contains(&format!("first {} lines", stored.len())), "{what}: {error}");
        fs::write(&file, &text).unwrap();
        fine(&ran(shell("sh", told(&error, "Go on with: "))));
        assert_eq!(sessions(&data, &[]), numbers(MANY), "{what}");
    }
}

#[test]
fn lines_that_are_written_to_while_they_are_checked_are_not_imported() {
    let work = work_dir();
    let (file, data) = (work.path().join("lines"), work.path().join("data"));
    fs::write(&file, lines(MANY)).unwrap();
    let import = command(&["import", file.to_str().unwrap(), "--data-dir", data.to_str().unwrap()]).spawn().unwrap();
    let mut written = OpenOptions::new().append(true).open(&file).unwrap();
    let began = Instant::now();
    while !data.exists() && began.elapsed() < Duration::from_millis(500) {
        written.write_all(line("a", 7).as_bytes()).unwrap();
        thread::sleep(Duration::from_millis(1));
    }
    let output = import.wait_with_output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && error.contains("and nothing was imported"), "{error}");
    assert!(!data.exists() || sessions(&data, &[]).is_empty(), "{error}");
}

/// Follows the command that an import prints when it is interrupted, until there is none.
#[test]
fn an_interrupted_import_goes_on_where_it_was_with_the_command_that_it_printed() {
    let work = work_dir();
    let odd = |name: &[u8]| work.path().join(OsStr::from_bytes(name));
    // A folder with words and signs for a name, a file whose name is no text; both named from the folder that they are in.
    let (data, file) = (odd(b"it's $HOME; \"data\""), odd(b"-lines\n\xff\xe9 `x`"));
    fs::write(&file, lines(MANY)).unwrap();
    fs::write(work.path().join("others"), line("b", 0)).unwrap();
    fine(&tool(&data, &["import", work.path().join("others").to_str().unwrap()]));
    let settings = work.path().join("some settings.toml");
    fs::write(&settings, "segment_rows_max = 50000\n").unwrap();
    let mut import = command(&["import", "--website=https://B.example/x", "--durability=normal"]);
    import.arg("--config=some settings.toml").arg("--data-dir").arg(data.file_name().unwrap());
    import.arg(OsStr::from_bytes(b"./-lines\n\xff\xe9 `x`")).current_dir(work.path());
    let mut runs = 0;
    let mut import = import.spawn().unwrap();
    loop {
        let before = runs;
        let segments = data.join("segments");
        wait_until("some groups are stored", || {
            let is_large = |entry: fs::DirEntry| {
                let name = entry.file_name().into_string().unwrap();
                name.ends_with("-wal") && entry.metadata().is_ok_and(|found| found.len() > 1_000_000)
            };
            let entries = fs::read_dir(&segments).ok()?;
            (entries.flatten().any(is_large) || import.try_wait().unwrap().is_some()).then_some(())
        });
        if import.try_wait().unwrap().is_none() {
            signal(&import, "INT");
        }
        let output = import.wait_with_output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        if output.status.code() == Some(0) {
            break;
        }
        let go_on = told(&error, "Go on with: ");
        for part in ["--durability=normal", "--website=https://B.example/x", "/some settings.toml'", "--data-dir="] {
            assert!(go_on.contains(part), "{part}: {go_on}");
        }
        // The last time nobody interrupts it.
        runs += 1;
        assert!(runs > before && runs < 50);
        if runs == 2 {
            assert!(fine(&ran(shell("sh", go_on))).contains("imported"));
            break;
        }
        import = shell("sh", &format!("exec {go_on}")).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    }
    assert!(runs > 0, "it was interrupted");
    let all = [vec!["s0".to_owned()], numbers(MANY)].concat();
    assert_eq!(sessions(&data, &["--website", "b.example"]), all);
    assert_eq!(sessions(&data, &[]), all, "nothing went anywhere else");
}

#[test]
fn an_interrupted_import_from_a_pipe_says_what_to_send_again() {
    let work = work_dir();
    let (file, link) = (work.path().join("lines"), work.path().join("link"));
    fs::write(&file, lines(MANY)).unwrap();
    std::os::unix::fs::symlink("/dev/stdin", &link).unwrap();
    // What a shell redirects is no more to be found by the next command than what comes from a pipe.
    for (number, (source, is_pipe)) in
        [("-", true), ("/dev/fd/0", false), (link.to_str().unwrap(), false)].into_iter().enumerate()
    {
        let data = work.path().join(format!("data dir {number}"));
        let mut import = command(&["import", source, "--data-dir", data.to_str().unwrap()]);
        let mut cat = is_pipe.then(|| Command::new("cat").arg(&file).stdout(Stdio::piped()).spawn().unwrap());
        let stdin = match &mut cat {
            Some(cat) => Stdio::from(cat.stdout.take().unwrap()),
            None => Stdio::from(File::open(&file).unwrap()),
        };
        let import = import.stdin(stdin).spawn().unwrap();
        wait_for_groups(&data);
        cat.iter_mut().for_each(|cat| assert!(cat.wait().unwrap().success()));
        signal(&import, "INT");
        let error = String::from_utf8(import.wait_with_output().unwrap().stderr).unwrap();
        let stored = sessions(&data, &[]).len();
        assert!(stored < MANY && error.contains(&format!("The first {stored} lines are imported")), "{error}");
        let go_on = told(&error, "Send the same lines again, from the first one on, into: ");
        fine(&ran(shell("sh", &format!("cat {} | {go_on}", file.display()))));
        assert_eq!(sessions(&data, &[]), numbers(MANY), "{source}");
        fs::remove_dir_all(&data).unwrap();
    }
}

fn websites(data: &Path) -> Vec<Value> {
    let exported = tool(data, &["export", "--websites"]);
    fine(&exported).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A daemon that is stopped again, with websites of which one has no events.
fn with_websites(data: &Path) -> Vec<Value> {
    let daemon = Daemon::start_in(data, &[]);
    let mut client = daemon.client();
    let mut registered = Vec::new();
    for (name, domain, description) in [
        ("Büro \"A\" 🦀", "https://münchen.example/x", json!("Zeile 1\nZeile 2")),
        ("No events", "b.example", json!(null)),
        ("Third", "localhost:3000", json!("")),
    ] {
        let body = json!({"name": name, "domain": domain, "description": description}).to_string();
        registered.push(client.post("/api/v1/websites", body).json());
    }
    thread::sleep(Duration::from_millis(5));
    let path = format!("/api/v1/websites/{}", registered[2]["id"].as_str().unwrap());
    let change = json!({
        "name": "Renamed", "timezone": "Europe/Berlin", "hosts": ["localhost:3001", "c.example"],
        "hostsPolicy": "refuse", "gpc": "anonymous",
        "goals": [{"name": "Büro", "event": "\"a\"\u{1}"}, {"name": "Docs", "page": "/docs/*\\*"}]
    });
    registered[2] = client.put(&path, change.to_string()).json();
    assert_eq!(registered[2]["goals"][1], json!({"name": "Docs", "event": null, "page": "/docs/*\\*"}));
    assert_ne!(registered[2]["createdAt"], registered[2]["updatedAt"]);
    for at in [0, 2] {
        let code = registered[at]["trackingCode"].as_str().unwrap();
        // Of a host that the third website has: it refuses others.
        let event = event_with(code, json!({"url": "http://c.example/", "properties": {"name": "an event's"}}));
        assert_eq!(client.post("/api/v1/events", event.to_string()).status, 201);
    }
    daemon.stop();
    registered
}

#[test]
fn websites_and_events_make_an_equal_copy() {
    let work = work_dir();
    let at = |name: &str| work.path().join(name);
    let data = at("data");
    let registered = with_websites(&data);
    assert_eq!(websites(&data), registered, "as the API shows them, the oldest first");
    let only = tool(&data, &["export", "--websites", "--website", "MÜNCHEN.example"]);
    assert_eq!(serde_json::from_str::<Value>(fine(&only)).unwrap(), registered[0]);
    for arguments in [["--format", "csv"], ["--from", "0"], ["--to", "0"], ["--type", "click"]] {
        assert_eq!(tool(&data, &[&["export", "--websites"], &arguments[..]].concat()).code, 2, "{arguments:?}");
    }
    let (sites, events) = (format!("hitlog export --websites --data-dir {}", data.display()), "");
    let events = format!("{events}hitlog export --data-dir {}", data.display());
    // Together in either order, and one after the other.
    for (name, script) in [
        ("first", format!("({sites}; {events}) | hitlog import - --data-dir COPY")),
        ("last", format!("({events}; {sites}) | hitlog import - --data-dir COPY")),
        ("alone", format!("{sites} | hitlog import - --data-dir COPY && {events} | hitlog import - --data-dir COPY")),
    ] {
        let copy = at(name);
        let made = ran(shell("sh", &script.replace("COPY", copy.to_str().unwrap())));
        assert!(fine(&made).contains("3 websites registered"), "{script}: {}", made.out);
        assert_eq!(websites(&copy), registered, "{script}");
        assert_eq!(sessions(&copy, &[]).len(), 2, "{script}");
        // Again it does no harm.
        let again = format!("{sites} | hitlog import - --data-dir {}", copy.display());
        let again = ran(shell("sh", &again));
        assert_eq!(fine(&again), "0 events imported\nhere already, and left as they are: 3 websites\n");
        assert_eq!(websites(&copy), registered);
    }
    let copy = at("after");
    let import = |lines: &str| ran(shell("sh", &format!("{lines} | hitlog import - --data-dir {}", copy.display())));
    assert_eq!(fine(&import(&events)), "2 events imported, and 2 websites registered\n");
    assert!(websites(&copy).iter().all(|website| website["name"] == website["domain"]), "events know no more");
    let named = import(&sites);
    assert!(fine(&named).contains("named now as the lines have them: 2 websites\n"), "{}", named.out);
    assert_eq!(websites(&copy), registered);
    assert_eq!(fine(&import(&sites)), "0 events imported\nhere already, and left as they are: 3 websites\n");
    let daemon = Daemon::start_in(&copy, &[]);
    let body = r#"{"name": "Named here"}"#;
    let renamed = daemon.client().put(&format!("/api/v1/websites/{}", registered[0]["id"].as_str().unwrap()), body);
    assert_eq!(renamed.status, 200);
    daemon.stop();
    assert!(fine(&import(&sites)).contains("with another name"));
    assert_eq!(websites(&copy)[0]["name"], "Named here");
    let daemon = Daemon::start_in(&at("first"), &[]);
    let mut shown = daemon.client().get("/api/v1/websites").json()["websites"].as_array().unwrap().clone();
    shown.reverse();
    assert_eq!(shown, registered);
    daemon.stop();
}

#[test]
fn a_website_that_is_here_stays_and_one_that_conflicts_is_refused() {
    let work = work_dir();
    let (data, file) = (work.path().join("data"), work.path().join("lines"));
    let registered = with_websites(&data);
    let import = |line: &Value, more: &[&str]| {
        fs::write(&file, format!("{line}\n")).unwrap();
        tool(&data, &[&["import", file.to_str().unwrap()], more].concat())
    };
    let with = |changes: Value| {
        let mut line = registered[0].clone();
        for (member, value) in changes.as_object().unwrap() {
            line[member] = value.clone();
        }
        line
    };
    let id = registered[0]["id"].as_str().unwrap();
    let here = import(&with(json!({"name": "Other", "updatedAt": "2026-01-01T00:00:00Z"})), &[]);
    assert!(fine(&here).contains(&format!("than in the lines: {id}")), "{}", here.out);
    let left_out = import(&with(json!({"id": "web-new"})), &["--website", "HTTPS://B.example"]);
    assert!(fine(&left_out).contains("left out, because --website says"), "{}", left_out.out);
    for (changes, wanted) in [
        (json!({"trackingCode": "pm-other-1"}), "they are two websites"),
        (json!({"id": "web-new"}), "belongs to the website web-"),
        (json!({"id": "web-new", "trackingCode": "pm-new-1"}), "its domain xn--mnchen-3ya.example belongs to"),
        (json!({"id": "web-new", "name": ""}), "line 1: name: Expected 1 to 255 characters"),
        (json!({"id": "web-new", "description": "d".repeat(1_001)}), "description: At most 1000"),
        (json!({"id": "web-new", "description": 7}), "description: Expected a string"),
        (json!({"id": "web-new", "timezone": "Europe/Bonn"}), "line 1: timezone: Unknown time zone"),
        (json!({"id": "web-new", "hosts": ["a.example", "no host"]}), "line 1: hosts[1]: Expected a host name"),
        (json!({"id": "web-new", "goals": [{"name": "A"}]}), "line 1: goals[0]: Expected either an event or a page"),
        (json!({"id": "web-new", "hostsPolicy": "no"}), "line 1: hostsPolicy: Expected one of: warn, refuse, or null"),
        (json!({"id": "web-new", "gpc": 7}), "line 1: gpc: Expected one of: ignore, anonymous, drop, or null"),
        (json!({"id": "web-new", "createdAt": "9999-01-01T00:00:00Z"}), "createdAt: It is too far ahead"),
        (json!({"id": "web-new", "createdAt": "1960-01-01T00:00:00Z"}), "createdAt: Expected a time"),
        (json!({"id": 7}), "id: Expected a string"),
        (json!({"id": null}), "id: Required"),
        (json!({"domain": "no host", "id": "web-new", "trackingCode": "pm-new-1"}), "domain: "),
    ] {
        let refused = import(&with(changes.clone()), &[]);
        assert!(refused.code == 1 && refused.err.contains(wanted), "{changes}: {}{}", refused.out, refused.err);
    }
    assert_eq!(websites(&data), registered);
}

#[test]
fn a_website_is_named_as_the_api_takes_it() {
    let work = work_dir();
    let data = work.path().join("data");
    with_websites(&data);
    let lines = work.path().join("lines");
    fs::write(&lines, line("x", 9)).unwrap();
    for (number, website) in
        ["münchen.example", "MÜNCHEN.Example", "https://münchen.example/path?q", "xn--mnchen-3ya.example"]
            .into_iter()
            .enumerate()
    {
        assert_eq!(sessions(&data, &["--website", website]).len(), 1 + number, "{website}");
        let stats = tool(&data, &["stats", "--json", "--website", website]);
        assert_eq!(serde_json::from_str::<Value>(fine(&stats)).unwrap()["websites"], 1, "{website}");
        fine(&tool(&data, &["import", lines.to_str().unwrap(), "--website", website]));
    }
}

/// A line may not be longer than this, in bytes.
const LINE_BYTES_MAX: usize = 1 << 20;

#[test]
fn no_line_is_cut_and_none_is_dropped_because_it_is_long() {
    let work = work_dir();
    let (file, data) = (work.path().join("lines"), work.path().join("data"));
    let event = line("a", 1).trim_end().to_owned();
    let blanks = |count: usize| " ".repeat(count);
    let (too_long, longest) = ("line 1: longer than 1048576 bytes", blanks(LINE_BYTES_MAX - event.len()));
    for (text, wanted) in [
        (format!("{}{event}\n", blanks(LINE_BYTES_MAX + 50)), too_long),
        (format!("{event}{}GARBAGE\n", blanks(LINE_BYTES_MAX)), too_long),
        (format!("{event}{}", blanks(LINE_BYTES_MAX)), too_long),
        (format!("{}\n{event}\n", blanks(LINE_BYTES_MAX + 1)), too_long),
        (format!("\u{feff}{event}{longest} \r\n"), too_long),
        (format!("{event}{longest}GARBAGE\n{event}\n"), too_long),
        (format!("{event}{longest}\n{event}\u{feff}\n"), "line 2: not a line of an export"),
        (format!("{event}\n\u{feff}{event}\n"), "line 2: not a line of an export"),
        // Whatever ends a line, and a mark before the first one, are no part of it.
        (format!("{event}{longest}\n"), ""),
        (format!("{event}{longest}"), ""),
        (format!("\u{feff}{longest}{event}\r\n"), ""),
        (format!("\u{feff}{}\r\n{event}\r\n", blanks(LINE_BYTES_MAX)), ""),
    ] {
        fs::write(&file, &text).unwrap();
        let imported = tool(&data, &["import", file.to_str().unwrap()]);
        let told = format!("{}...: {}{}", &text[..9], imported.out, imported.err);
        if wanted.is_empty() {
            assert!(fine(&imported).starts_with("1 event imported"), "{told}");
            fs::remove_dir_all(&data).unwrap();
        } else {
            assert!(imported.code == 1 && imported.err.contains(wanted) && !data.exists(), "{told}");
        }
    }
}

/// What other tools print, run as it stands.
#[test]
fn what_tools_print_can_be_run() {
    let work = work_dir();
    let data: PathBuf = work.path().join("a data's \"dir\"");
    let to = work.path().join("back'up $HOME");
    let daemon = Daemon::start_in(&data, &["--segment-rows-max", "20"]);
    let code = daemon.register("a.example");
    let batch: Vec<_> = (0..20).map(|_| event_with(&code, json!({}))).collect();
    for _ in 0..2 {
        let response = daemon.client().post("/api/v1/events/batch", json!({ "events": batch }).to_string());
        assert_eq!(response.status, 201);
        daemon.wait_until_sealed();
    }
    daemon.stop();
    let mut backup = command(&["backup", "--data-dir", data.file_name().unwrap().to_str().unwrap()]);
    backup.arg(to.file_name().unwrap()).current_dir(work.path());
    let copied = ran(backup);
    let start = told(fine(&copied), "Start from it with: ").split("\nA linked segment").next().unwrap().to_owned();
    let mut start = shell("sh", &format!("exec {start} --listen 127.0.0.1:0"));
    let daemon = Daemon::spawn(start.stdout(Stdio::piped()).stderr(Stdio::piped()), &to);
    assert_eq!(daemon.client().get(&format!("/api/v1/events?trackingCode={code}")).json()["pagination"]["total"], 40);
    daemon.stop();
    // A segment that is damaged, given up into the quarantine, and removed from there.
    let sealed = data.join("segments/000000000001.g2.db");
    let mut bytes = Vec::new();
    File::open(&sealed).unwrap().read_to_end(&mut bytes).unwrap();
    bytes[..100].fill(0xa5);
    fs::write(&sealed, bytes).unwrap();
    let asked = tool(&data, &["segments", "write-off", "1"]);
    assert_eq!(asked.code, 1, "{}", asked.err);
    let gone = ran(shell("sh", told(&asked.out, "That is: ")));
    assert!(fine(&gone).contains("is written off"), "{}", gone.out);
    let listed = ran(shell("sh", told(&tool(&data, &["segments"]).out, "in quarantine: `").split('`').next().unwrap()));
    assert!(fine(&listed).contains("000000000001.g2.db"), "{}", listed.out);
    let look = told(&listed.out, "for good with it: ").lines().next().unwrap().to_owned();
    let look = ran(shell("sh", &look));
    assert_eq!(look.code, 1, "{}", look.err);
    assert!(fine(&ran(shell("sh", told(&look.out, "That is: ")))).contains("It is removed"));
    let checked = tool(&data, &["check"]);
    assert!(fine(&checked).ends_with("nothing is wrong\n"), "{}", checked.out);
    // On a terminal: the lines are to come from wherever they are, and not out of this very directory.
    let terminal = OpenOptions::new().read(true).write(true).open("/dev/ptmx").unwrap();
    let mut import = command(&["import", "-", "--data-dir", data.to_str().unwrap()]);
    import.stdin(Stdio::from(terminal));
    let refused = ran(import);
    let into = told(&refused.err, "send the lines into: ");
    assert!(!refused.err.contains("export"), "{}", refused.err);
    let file = work.path().join("lines");
    fs::write(&file, line("c", 1)).unwrap();
    // How many went with the segment depends on when it was followed by the next.
    let before = sessions(&data, &[]).len();
    let imported = ran(shell("sh", &format!("cat '{}' | {into}", file.display())));
    assert!(fine(&imported).starts_with("1 event imported"), "{}", imported.out);
    assert_eq!(sessions(&data, &[]).len(), before + 1, "not doubled, and not elsewhere");
    let unknown = tool(&data, &["stats", "--website", "nobody"]);
    assert!(fine(&ran(shell("sh", told(&unknown.err, "nobody; `").split('`').next().unwrap()))).contains(&code));
}
