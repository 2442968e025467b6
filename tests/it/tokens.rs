//! Who may do what, and what becomes of a setting that cannot be read: nothing is open that was meant to be closed.

use std::{
    ffi::OsStr,
    fs,
    os::unix::ffi::OsStrExt,
    path::Path,
    process::{Command, Output},
};

use harness::{Client, Daemon, command, wait_until, work_dir};

use crate::routes::described;

const METRICS: &str = "metrics-0123456789abcdef";
const READ: &str = "read-0123456789abcdef";
const ADMIN: &str = "admin-0123456789abcdef";

fn status(client: &mut Client, method: &str, path: &str, token: &str) -> u16 {
    let bearer = format!("Bearer {token}");
    let headers = if token.is_empty() { vec![] } else { vec![("authorization", bearer.as_str())] };
    let response = client.send(method, path, &headers, b"");
    match response.status {
        _ if method == "HEAD" => {}
        401 => assert_eq!((response.error().as_str(), token.is_empty()), ("UNAUTHORIZED", token.is_empty())),
        403 => {
            assert_eq!(response.error(), "FORBIDDEN");
            let message = response.json()["message"].as_str().unwrap().to_owned();
            let role = token.split('-').next().unwrap();
            assert!(message.ends_with(&format!("the role of this one is {role}")), "{message}");
        }
        _ => {}
    }
    response.status
}

#[test]
fn every_route_needs_its_role() {
    let work = work_dir();
    let file = work.path().join("tokens");
    fs::write(&file, format!("# for the pages\nread:{READ}\r\n")).unwrap();
    let flags = [
        "--token",
        ADMIN,
        "--metrics-token",
        METRICS,
        &format!("--token-file={}", file.display()),
        "--log-level=trace",
    ];
    let mut daemon = Daemon::start_in(&work.path().join("data"), &flags);
    let mut client = daemon.client();
    // Whether no token, metrics, read and admin get in.
    let asked = [
        ("POST", "/api/v1/events", [true, true, true, true]),
        ("OPTIONS", "/api/v1/events", [true, true, true, true]),
        ("POST", "/api/v1/events/batch", [true, true, true, true]),
        ("OPTIONS", "/api/v1/events/batch", [true, true, true, true]),
        ("POST", "/api/v1/track", [true, true, true, true]),
        ("OPTIONS", "/api/v1/track", [true, true, true, true]),
        ("OPTIONS", "/api/v1/events/tail", [true, true, true, true]),
        ("OPTIONS", "/api/v1/events/c1", [true, true, true, true]),
        ("GET", "/livez", [true, true, true, true]),
        ("GET", "/readyz", [true, true, true, true]),
        ("HEAD", "/health", [true, true, true, true]),
        ("GET", "/openapi.yaml", [true, true, true, true]),
        ("GET", "/.well-known/gpc.json", [true, true, true, true]),
        ("GET", "/pixel.gif", [true, true, true, true]),
        ("GET", "/tracker.js", [true, true, true, true]),
        ("GET", "/tracker.v1.js", [true, true, true, true]),
        ("GET", "/tracker.mjs", [true, true, true, true]),
        ("GET", "/tracker.d.ts", [true, true, true, true]),
        ("GET", "/nothing/here", [true, true, true, true]),
        ("GET", "/metrics", [false, true, false, true]),
        ("HEAD", "/metrics", [false, true, false, true]),
        ("GET", "/api/v1/events?trackingCode=pm-abc123-1704067200000", [false, false, true, true]),
        ("HEAD", "/api/v1/events", [false, false, true, true]),
        ("GET", "/api/v1/events/tail", [false, false, true, true]),
        ("HEAD", "/api/v1/events/tail", [false, false, true, true]),
        ("GET", "/api/v1/events/c1", [false, false, true, true]),
        ("HEAD", "/api/v1/events/c1", [false, false, true, true]),
        ("GET", "/api/v1/stats?trackingCode=pm-abc123-1704067200000", [false, false, true, true]),
        ("HEAD", "/api/v1/stats", [false, false, true, true]),
        ("OPTIONS", "/api/v1/stats", [true, true, true, true]),
        ("GET", "/api/v1/stats/series", [false, false, true, true]),
        ("HEAD", "/api/v1/stats/series", [false, false, true, true]),
        ("OPTIONS", "/api/v1/stats/series", [true, true, true, true]),
        ("GET", "/api/v1/dashboard/metrics?websiteId=web-1", [false, false, true, true]),
        ("GET", "/api/v1/dashboard/pageviews?websiteId=web-1", [false, false, true, true]),
        ("GET", "/api/v1/dashboard/top-pages?websiteId=web-1", [false, false, true, true]),
        ("GET", "/api/v1/dashboard/referrers?websiteId=web-1", [false, false, true, true]),
        ("GET", "/api/v1/dashboard/devices?websiteId=web-1", [false, false, true, true]),
        ("GET", "/api/v1/dashboard/locations?websiteId=web-1", [false, false, true, true]),
        ("HEAD", "/api/v1/dashboard/metrics", [false, false, true, true]),
        ("GET", "/api/v1/stats/top/page", [false, false, true, true]),
        ("HEAD", "/api/v1/stats/top/page", [false, false, true, true]),
        ("OPTIONS", "/api/v1/stats/top/page", [true, true, true, true]),
        ("GET", "/api/v1/stats/live", [false, false, true, true]),
        ("HEAD", "/api/v1/stats/live", [false, false, true, true]),
        ("OPTIONS", "/api/v1/stats/live", [true, true, true, true]),
        ("GET", "/api/v1/stats/goals", [false, false, true, true]),
        ("HEAD", "/api/v1/stats/goals", [false, false, true, true]),
        ("OPTIONS", "/api/v1/stats/goals", [true, true, true, true]),
        ("GET", "/api/v1/websites", [false, false, true, true]),
        ("HEAD", "/api/v1/websites", [false, false, true, true]),
        ("GET", "/api/v1/websites/web-1", [false, false, true, true]),
        ("HEAD", "/api/v1/websites/web-1", [false, false, true, true]),
        ("GET", "/api/v1/erasures/era-1", [false, false, true, true]),
        ("GET", "/api/v1/shipping", [false, false, false, true]),
        ("GET", "/api/v1/shipping/dead", [false, false, false, true]),
        ("POST", "/api/v1/shipping/resume", [false, false, false, true]),
        ("GET", "/api/v1/shipping/verify", [false, false, false, true]),
        ("POST", "/api/v1/shipping/verify", [false, false, false, true]),
        ("POST", "/api/v1/websites", [false, false, false, true]),
        ("PUT", "/api/v1/websites/web-1", [false, false, false, true]),
        ("POST", "/api/v1/websites/web-1/tracking-code", [false, false, false, true]),
        ("DELETE", "/api/v1/websites/web-1", [false, false, false, true]),
        ("DELETE", "/api/v1/visitors/v1?trackingCode=pm-abc123-1704067200000", [false, false, false, true]),
    ];
    for route in described() {
        let is_asked = asked.iter().any(|(method, path, _)| *method == route.method && route.leads(path));
        assert!(is_asked || route.path == "/health", "{route:?} is not tried");
    }
    for (method, path, passes) in asked {
        for (token, passes) in ["", METRICS, READ, ADMIN].into_iter().zip(passes) {
            let status = status(&mut client, method, path, token);
            let refused = if token.is_empty() { 401 } else { 403 };
            assert_eq!(status == refused, !passes, "{method} {path} with {token:?}: {status}");
            assert!(status != 401 || token.is_empty(), "{method} {path} with {token:?}");
        }
    }
    daemon.signal("TERM");
    assert!(daemon.wait().success());
    for token in [METRICS, READ, ADMIN] {
        assert!(!daemon.log().contains(token), "{}", daemon.log());
    }
}

#[test]
fn a_token_of_a_lesser_role_closes_everything_else() {
    let mut daemon = Daemon::start(&["--metrics-token", METRICS]);
    daemon.wait_for_log("no token has the role admin");
    let mut client = daemon.client();
    for (path, token, wanted) in [
        ("/api/v1/websites", "", 401),
        ("/api/v1/websites", "unknown-0123456789abcdef", 401),
        ("/metrics", "", 401),
        ("/metrics", METRICS, 200),
        ("/api/v1/websites", METRICS, 403),
    ] {
        let bearer = format!("Bearer {token}");
        let headers = if token.is_empty() { vec![] } else { vec![("authorization", bearer.as_str())] };
        assert_eq!(client.send("GET", path, &headers, b"").status, wanted, "{path} {token:?}");
    }
    daemon.signal("TERM");
    assert!(daemon.wait().success());
}

#[test]
fn tokens_are_changed_without_a_restart() {
    const NEW: &str = "admin-fedcba9876543210";
    let work = work_dir();
    let file = work.path().join("tokens");
    fs::write(&file, format!("{ADMIN}\nmetrics:{METRICS}\n")).unwrap();
    let flags = ["--read-token", READ, "--log-level=trace", &format!("--token-file={}", file.display())];
    let mut daemon = Daemon::start_in(&work.path().join("data"), &flags);
    let mut client = daemon.client();
    let mut statuses = |path: &str| {
        [ADMIN, NEW, READ, METRICS]
            .map(|token| client.send("GET", path, &[("authorization", &format!("Bearer {token}"))], b"").status)
    };
    assert_eq!(statuses("/api/v1/websites"), [200, 401, 200, 403]);

    // A bad file changes nothing, whatever is wrong with it; neither does one that is gone.
    let times_told = |words: &str| daemon.log().matches(words).count();
    let bad_files = [
        &b""[..],
        b"# none\n",
        b"short\n",
        b"read:admin-fedcba9876543210\nadmin-fedcba9876543210\n",
        b"reader:admin-fedcba9876543210\n",
        b"admin-fedcba9876543210\n\xff\xfe\n",
        // The role of read_token, which stays as it is, is another.
        b"admin-fedcba9876543210\nread-0123456789abcdef\n",
    ];
    for (already, bad) in bad_files.into_iter().map(Some).chain([None]).enumerate() {
        match bad {
            Some(bad) => fs::write(&file, bad).unwrap(),
            None => fs::remove_file(&file).unwrap(),
        }
        daemon.signal("HUP");
        wait_until("the error is told", || (times_told("token_file is not good") > already).then_some(()));
        assert_eq!(statuses("/api/v1/websites"), [200, 401, 200, 403], "{bad:?}");
        assert_eq!(statuses("/metrics"), [200, 401, 403, 200], "{bad:?}");
    }

    fs::write(&file, format!("admin:{NEW}\n")).unwrap();
    daemon.signal("HUP");
    daemon.wait_for_log("token_file was read anew");
    assert_eq!(statuses("/api/v1/websites"), [401, 200, 200, 401]);
    assert_eq!(statuses("/metrics"), [401, 200, 403, 401]);
    daemon.signal("TERM");
    assert!(daemon.wait().success());
    for secret in [ADMIN, NEW, READ, METRICS] {
        assert!(!daemon.log().contains(secret), "{}", daemon.log());
    }
}

/// Runs a command with a variable, and a data directory that is not there.
fn run_with(arguments: &[&str], data: &Path, variable: (&OsStr, &OsStr)) -> (Output, String) {
    let mut command = command(arguments);
    command.env("HITLOG_DATA_DIR", data).env("HITLOG_LISTEN", "127.0.0.1:0").env(variable.0, variable.1);
    let mut child = command.spawn().unwrap();
    wait_until("it ends", || child.try_wait().unwrap());
    let output = child.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    (output, told)
}

#[test]
fn what_is_there_and_cannot_be_read_is_an_error_of_every_command() {
    let work = work_dir();
    let data = work.path().join("data");
    let file = work.path().join("utf16.toml");
    fs::write(&file, b"\xff\xfet\x00o\x00k\x00e\x00n\x00").unwrap();
    for (name, value, words) in [
        (
            &b"HITLOG_TOKEN"[..],
            &b"0123456789abcdef\xff"[..],
            "HITLOG_TOKEN (environment): its name or its value is not text",
        ),
        (b"HITLOG_TOK\xffN", b"0123456789abcdef", "is not text in UTF-8"),
        (b"HITLOG_CONFIG", b"/tmp/\xff", "HITLOG_CONFIG (environment)"),
        (b"HITLOG_CONFIG", b"", "is empty"),
        (b"HITLOG_CONFIG", file.as_os_str().as_bytes(), "cannot be read"),
        (b"HITLOG_TOKEN", b"", "token = (hidden) (environment): the value is empty"),
        (b"HITLOG_TOKEN_FILE", b"", "token_file =  (environment): the value is empty"),
        (b"HITLOG_READ_TOKEN", b"\"0123456789abcdef\"", "the quotes are part of the value"),
        (b"HITLOG_METRICS_TOKEN", b"'0123456789abcdef'", "the quotes are part of the value"),
        (b"HITLOG_LISTEN", b"\"127.0.0.1:3000\"", "the quotes are part of the value"),
        (b"HITLOG_TOKEN", b"0123456789abcdef\r", "a control character"),
        (b"HITLOG_DATA_DIR", b"", "data_dir =  (environment): the value is empty"),
        (b"HITLOG_DATA_DIR", b"\"data\"", "the quotes are part of the value"),
    ] {
        for arguments in [&["serve"][..], &["config", "check"], &["config", "show"], &["stats"]] {
            let (output, told) = run_with(arguments, &data, (OsStr::from_bytes(name), OsStr::from_bytes(value)));
            assert_eq!(output.status.code(), Some(2), "{arguments:?} {words}: {told}");
            assert!(told.contains(words) && !told.contains("0123456789abcdef"), "{arguments:?} {words}: {told}");
            assert!(output.stdout.is_empty() && !data.exists(), "{arguments:?} {words}");
        }
    }
}

#[test]
fn a_variable_that_is_no_setting_is_told() {
    let work = work_dir();
    let data = work.path().join("data");
    Daemon::start_in(&data, &[]).stop();
    let unknown = (OsStr::new("HITLOG_TOKENS"), OsStr::new("0123456789abcdef"));
    for (arguments, code) in [(&["config", "check"][..], 2), (&["config", "show"], 0), (&["stats"], 0), (&["check"], 0)]
    {
        let (output, told) = run_with(arguments, &data, unknown);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {told}");
        assert!(told.contains("HITLOG_TOKENS is not a setting"), "{arguments:?}: {told}");
    }
    // What Kubernetes makes for a service of this name is nobody's mistake.
    let mut check = command(&["config", "check"]);
    check.env("HITLOG_PORT", "tcp://10.0.0.11:3000").env("HITLOG_PORT_3000_TCP_ADDR", "10.0.0.11");
    check.env("HITLOG_SERVICE_HOST", "10.0.0.11").env("HITLOG_SERVICE_PORT_HTTP", "3000");
    let output = check.output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
    // One that is written by hand is.
    let mut check = command(&["config", "check"]);
    assert_eq!(check.env("HITLOG_PORT", "3000").output().unwrap().status.code(), Some(2));
}

#[test]
fn everything_that_is_wrong_is_told_at_once() {
    let work = work_dir();
    let (file, tokens) = (work.path().join("hitlog.toml"), work.path().join("tokens"));
    fs::write(&file, "reader = 1\nreaders = 0\n[http]\nport = 1\n").unwrap();
    fs::write(&tokens, "short\nreed:0123456789abcdef\n").unwrap();
    let told = |command: &mut Command| {
        let output =
            command.env("HITLOG_CONFIG", &file).env("HITLOG_TYPO", "1").env("HITLOG_LISTEN", "").output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8(output.stderr).unwrap()
    };
    for arguments in [["config", "check"], ["config", "show"]] {
        let told = told(command(&arguments).args(["--durability=none", "--token-file", tokens.to_str().unwrap()]));
        for words in [
            "reader: ",
            "http: ",
            "readers = 0 (file)",
            "HITLOG_TYPO",
            "listen = ",
            "durability = none",
            "line 1: ",
            "line 2: ",
        ] {
            assert!(told.contains(words), "{words} is missing in {told}");
        }
    }
}
