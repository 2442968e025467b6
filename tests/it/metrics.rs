//! `/metrics` as a Prometheus server and an operator see it: packed, and with what tells of the disk, of segments that
//! wait, of backups and of the process.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{SystemTime, UNIX_EPOCH},
};

use flate2::read::GzDecoder;
use harness::{
    Daemon, command,
    mount::{Mount, is_root},
    tool, traffic, wait_until, work_dir,
};

fn now_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

/// The names of metrics in a scrape, without their values.
fn names(text: &str) -> Vec<&str> {
    text.lines().filter_map(|line| line.rsplit_once(' ')).map(|(name, _)| name).collect()
}

#[test]
fn metrics_are_packed_for_whoever_asks() {
    let daemon = Daemon::start(&[]);
    let mut client = daemon.client();
    let plain = client.get("/metrics");
    assert_eq!((plain.header("content-encoding"), plain.header("vary")), (None, Some("accept-encoding")));
    for asked in ["gzip", "br;q=1, gzip;q=0.8", "*"] {
        let packed = client.send("GET", "/metrics", &[("accept-encoding", asked)], b"");
        assert_eq!(packed.header("content-encoding"), Some("gzip"), "{asked}");
        assert_eq!(packed.header("vary"), Some("accept-encoding"));
        assert_eq!(packed.header("content-type"), plain.header("content-type"));
        assert!(packed.body.len() < plain.body.len() / 4, "{} of {}", packed.body.len(), plain.body.len());
        let mut text = String::new();
        GzDecoder::new(&*packed.body).read_to_string(&mut text).unwrap();
        let sorted = |text: &str| {
            let mut names: Vec<_> = names(text).into_iter().map(str::to_owned).collect();
            names.sort_unstable();
            names
        };
        assert!(sorted(&text).iter().filter(|name| name.starts_with("hitlog_http_request")).count() > 20);
        let without_own = |text: &str| {
            sorted(text).into_iter().filter(|name| !name.contains("route=\"/metrics\"")).collect::<Vec<_>>()
        };
        assert_eq!(without_own(&text), without_own(&plain.text()));
        let head = client.send("HEAD", "/metrics", &[("accept-encoding", asked)], b"");
        assert_eq!((head.status, head.header("content-encoding")), (200, Some("gzip")));
        let length =
            |response: &harness::Response| response.header("content-length").unwrap().parse::<usize>().unwrap();
        assert!(length(&head) < plain.body.len() / 4 && head.body.is_empty());
    }
    for asked in ["gzip;q=0", "identity, gzip;q=0.5", "br"] {
        let response = client.send("GET", "/metrics", &[("accept-encoding", asked)], b"");
        assert_eq!((response.header("content-encoding"), response.body[0]), (None, b'#'), "{asked}");
    }
    daemon.stop();
}

#[test]
fn the_process_is_told_of_in_fractions_and_limits_where_there_are_some() {
    const ADDRESS_SPACE_KIB: u64 = 64 << 20;
    let work = work_dir();
    let data = work.path().join("data");
    let hitlog = command(&["serve", "--listen", "127.0.0.1:0", "--data-dir", data.to_str().unwrap()]);
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("ulimit -v {ADDRESS_SPACE_KIB}; exec \"$0\" \"$@\"")]);
    shell.arg(hitlog.get_program()).args(hitlog.get_args());
    shell.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let limited = Daemon::spawn(&mut shell, &data);
    let limit = limited.metrics()["process_virtual_memory_max_bytes"];
    assert_eq!(limit, (ADDRESS_SPACE_KIB << 10) as f64);
    limited.stop();

    let daemon = Daemon::start(&[]);
    let first = daemon.metrics();
    assert!(!first.contains_key("process_virtual_memory_max_bytes"), "there is no limit");
    let since = now_seconds() - first["process_start_time_seconds"];
    assert!((-2.0..60.0).contains(&since), "it started {since} s ago");
    let build = first.keys().find(|name| name.starts_with("hitlog_build_info{")).unwrap();
    assert!(build.contains("sqlite_build=\"as_wanted\""), "{build}");
    assert!(!daemon.log().contains("SQLite was compiled without"), "{}", daemon.log());
    let mut before = first["process_cpu_seconds_total"];
    for _ in 0..3 {
        let now = daemon.metrics()["process_cpu_seconds_total"];
        assert!(now > before && now < before + 1.0, "every scrape takes a little: {before}, then {now}");
        before = now;
    }
    daemon.stop();
}

#[test]
fn readiness_is_a_metric() {
    let daemon = Daemon::start(&[]);
    let code = daemon.register("example.com");
    let is_ready = || {
        let ready = daemon.metrics()["hitlog_ready"];
        assert_eq!(daemon.client().get("/readyz").status, if ready == 1.0 { 200 } else { 503 });
        ready == 1.0
    };
    assert!(is_ready());
    let limit_files = |bytes: &str| {
        let (pid, limit) = (format!("--pid={}", daemon.pid()), format!("--fsize={bytes}"));
        assert!(Command::new("prlimit").args([pid, limit]).status().unwrap().success());
    };
    limit_files("4096:unlimited");
    let refused = daemon.client().post("/api/v1/events/batch", traffic::batch(&code, 1_000));
    assert_eq!((refused.status, refused.error().as_str()), (503, "STORAGE_FULL"));
    assert_eq!(daemon.metrics()["hitlog_ready"], 0.0);
    assert_eq!(daemon.client().get("/readyz").status, 503);
    limit_files("unlimited");
    wait_until("it is ready again", || (daemon.metrics()["hitlog_ready"] == 1.0).then_some(()));
    assert!(is_ready());
    daemon.stop();
}

/// What a seal of a segment without indexes must find free: twice its file and its write-ahead log.
fn seal_needed(data: &Path, number: usize) -> f64 {
    let bytes =
        |end: &str| fs::metadata(data.join(format!("segments/{number:012}.db{end}"))).map_or(0, |file| file.len());
    2.0 * (bytes("") + bytes("-wal")) as f64
}

/// The bytes of the files of a segment, of any generation.
fn bytes_of(data: &Path, number: usize) -> f64 {
    let entries = fs::read_dir(data.join("segments")).unwrap().map(|entry| entry.unwrap());
    let of_number = entries.filter(|entry| entry.file_name().to_str().unwrap().starts_with(&format!("{number:012}.")));
    of_number
        .filter_map(|entry| entry.metadata().ok())
        .filter(fs::Metadata::is_file)
        .map(|file| file.len() as f64)
        .sum()
}

#[test]
fn the_disk_and_the_segments_on_it() {
    let work = work_dir();
    let data = work.path().join("data");
    let flags = ["--segment-rows-max", "100"];
    let daemon = Daemon::start_in(&data, &flags);
    let code = daemon.register("example.com");
    let metrics = wait_until("the disk was looked at", || {
        Some(daemon.metrics()).filter(|metrics| metrics["hitlog_segment_bytes{state=\"prepared\"}"] > 0.0)
    });
    let (free, size) = (metrics["hitlog_storage_free_bytes"], metrics["hitlog_storage_size_bytes"]);
    let of = rustix::fs::statvfs(&data).unwrap();
    assert_eq!(size, (of.f_blocks * of.f_frsize) as f64);
    let free_now = (of.f_bfree * of.f_frsize) as f64;
    assert!(free > 0.0 && free < size && (free - free_now).abs() < size / 4.0, "{free} or {free_now} of {size}");
    assert_eq!(metrics["hitlog_oldest_unsealed_timestamp_seconds"], 0.0, "nothing waits");
    assert!(metrics["hitlog_segment_bytes{state=\"active\"}"] > 0.0);
    let needed = metrics["hitlog_seal_needed_bytes"];
    assert!(needed > 0.0 && needed == seal_needed(&data, 1), "of the active segment as it is: {needed}");

    // Where a new generation of the first segment is to be built there is something else.
    let in_the_way: PathBuf = data.join("segments/000000000001.building");
    fs::create_dir(&in_the_way).unwrap();
    let before = now_seconds();
    for _ in 0..2 {
        assert_eq!(daemon.client().post("/api/v1/events/batch", traffic::batch(&code, 100)).status, 201);
        wait_until("it has rolled", || (daemon.metrics()["hitlog_segments{state=\"prepared\"}"] == 1.0).then_some(()));
    }
    let metrics = wait_until("sealing has failed, and what is there was looked at", || {
        Some(daemon.metrics()).filter(|metrics| {
            metrics["hitlog_seals_total{outcome=\"failed\"}"] >= 1.0
                && metrics["hitlog_seals_total{outcome=\"ok\"}"] == 1.0
                && metrics["hitlog_segment_bytes{state=\"unsealed\"}"] == bytes_of(&data, 1)
                && metrics["hitlog_segment_bytes{state=\"sealed\"}"] == bytes_of(&data, 2)
                && metrics["hitlog_seal_needed_bytes"] == seal_needed(&data, 1).max(seal_needed(&data, 3))
        })
    });
    assert!(seal_needed(&data, 1) > seal_needed(&data, 3), "the one that waits is the larger one");
    let since = metrics["hitlog_oldest_unsealed_timestamp_seconds"];
    assert!((before - 0.1..now_seconds()).contains(&since), "full at {since}, begun at {before}");
    daemon.stop();

    // A start knows it from the events, however young it makes the file, and so does the next one.
    for _ in 0..2 {
        let file = fs::File::options().write(true).open(data.join("segments/000000000001.db")).unwrap();
        file.set_modified(SystemTime::now()).unwrap();
        let mut daemon = Daemon::start_in(&data, &flags);
        let again = daemon.metrics()["hitlog_oldest_unsealed_timestamp_seconds"];
        assert!((before - 0.1..=since).contains(&again), "full at {again}, before at {since}");
        daemon.crash();
    }
    fs::remove_dir(&in_the_way).unwrap();
    // And where no reserve is asked for none is missing.
    let daemon = Daemon::start_in(&data, &[&flags[..], &["--reserve-bytes", "0"]].concat());
    assert_eq!(daemon.metrics()["hitlog_reserve_standing"], 1.0);
    wait_until("all is sealed", || {
        let metrics = daemon.metrics();
        (metrics["hitlog_oldest_unsealed_timestamp_seconds"] == 0.0
            && metrics["hitlog_segment_bytes{state=\"unsealed\"}"] == 0.0
            && metrics["hitlog_segment_bytes{state=\"sealed\"}"] == bytes_of(&data, 1) + bytes_of(&data, 2))
        .then_some(())
    });
    daemon.stop();
}

#[test]
fn a_seal_without_room_is_foretold() {
    if !is_root() {
        println!("skipped: only root can mount a small disk");
        return;
    }
    let work = work_dir();
    let disk = Mount::in_memory(64, work.path());
    let (data, ballast) = (work.path().join("data"), work.path().join("ballast"));
    let flags = ["--segment-rows-max", "10000"];
    let daemon = Daemon::start_in(&data, &flags);
    let code = daemon.register("example.com");
    // Where a new generation is to be built there is something else.
    let in_the_way = data.join("segments/000000000001.building");
    fs::create_dir(&in_the_way).unwrap();
    for _ in 0..10 {
        assert_eq!(daemon.client().post("/api/v1/events/batch", traffic::batch(&code, 1_000)).status, 201);
    }
    wait_until("sealing has failed", || {
        (daemon.metrics()["hitlog_seals_total{outcome=\"failed\"}"] >= 1.0).then_some(())
    });
    daemon.stop();
    fs::remove_dir(&in_the_way).unwrap();

    let needed = seal_needed(&data, 1);
    let of = rustix::fs::statvfs(&data).unwrap();
    let too_much = (of.f_bfree * of.f_frsize) as f64 - needed + 65_536.0;
    fs::write(&ballast, vec![1; too_much as usize]).unwrap();
    let daemon = Daemon::start_in(&data, &flags);
    daemon.wait_for_log(&format!("it takes up to {needed} bytes"));
    let metrics = daemon.metrics();
    assert_eq!(metrics["hitlog_seal_needed_bytes"], needed);
    assert!(metrics["hitlog_storage_free_bytes"] < needed, "{}", metrics["hitlog_storage_free_bytes"]);
    assert_eq!(metrics["hitlog_reserve_standing"], 1.0, "events are taken");
    daemon.stop();

    fs::remove_file(&ballast).unwrap();
    let daemon = Daemon::start_in(&data, &flags);
    daemon.wait_until_sealed();
    wait_until("there is room", || {
        let metrics = daemon.metrics();
        (metrics["hitlog_seal_needed_bytes"] < needed && metrics["hitlog_storage_free_bytes"] > needed).then_some(())
    });
    daemon.stop();
    drop(disk);
}

#[test]
fn the_last_backup_is_told() {
    let work = work_dir();
    let data = work.path().join("data");
    let daemon = Daemon::start_in(&data, &[]);
    let code = daemon.register("example.com");
    assert_eq!(daemon.client().post("/api/v1/events", traffic::event(&code, 1)).status, 201);
    let last_backup = || daemon.metrics()["hitlog_last_backup_timestamp_seconds"];
    assert_eq!(last_backup(), 0.0);
    let path = |name: &str| work.path().join(name).to_str().unwrap().to_owned();
    let before = now_seconds();
    let ran = tool(&data, &["backup", &path("first")]);
    assert_eq!((ran.code, ran.out.contains("could not be told")), (0, false), "{}{}", ran.out, ran.err);
    let ended = now_seconds();
    let first = wait_until("the daemon has seen it", || Some(last_backup()).filter(|last| *last > 0.0));
    assert!((before - 0.001..ended).contains(&first), "{before}, {first}, {ended}");
    assert!(!Path::new(&path("first")).join("last-backup").exists(), "it is of the original");

    // What the mark cannot replace: the backup is as good.
    fs::remove_file(data.join("last-backup")).unwrap();
    fs::create_dir(data.join("last-backup")).unwrap();
    let ran = tool(&data, &["backup", &path("second")]);
    assert!(ran.code == 0 && ran.out.contains("could not be told of it"), "{}{}", ran.out, ran.err);
    wait_until("there is no mark any more", || (last_backup() == 0.0).then_some(()));
    fs::remove_dir(data.join("last-backup")).unwrap();
    daemon.stop();

    // Nor does one of a directory that nobody can write to fail.
    if is_root() {
        let read_only = work.path().join("read-only");
        fs::create_dir(&read_only).unwrap();
        let mount = Mount::new(&["--bind", data.to_str().unwrap()], &read_only);
        mount.change("bind,ro");
        let ran = tool(&read_only, &["backup", &path("third")]);
        assert!(ran.code == 0 && ran.out.contains("could not be told of it"), "{}{}", ran.out, ran.err);
        drop(mount);
    }
    assert_eq!(tool(&data, &["check"]).code, 0);
    // Where the catalog is lost, what is said does not depend on it.
    assert_eq!(tool(&data, &["backup", &path("fourth")]).code, 0);
    assert!(data.join("last-backup").is_file());
    fs::rename(data.join("catalog.db"), work.path().join("catalog.db")).unwrap();
    let refused = command(&["serve", "--listen=127.0.0.1:0", "--data-dir", data.to_str().unwrap()]).output().unwrap();
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(1) && told.contains("has events but no catalog.db"), "{told}");
}

#[test]
fn a_backup_that_lacks_something_is_none() {
    let work = work_dir();
    let data = work.path().join("data");
    let daemon = Daemon::start_in(&data, &["--segment-rows-max", "10"]);
    let code = daemon.register("example.com");
    assert_eq!(daemon.client().post("/api/v1/events/batch", traffic::batch(&code, 10)).status, 201);
    wait_until("it is sealed", || (daemon.metrics()["hitlog_seals_total{outcome=\"ok\"}"] == 1.0).then_some(()));
    fs::rename(data.join("segments/000000000001.g2.db"), work.path().join("away.db")).unwrap();
    let ran = tool(&data, &["backup", work.path().join("backup").to_str().unwrap()]);
    assert_ne!(ran.code, 0, "{}{}", ran.out, ran.err);
    assert!(!data.join("last-backup").exists(), "{}", ran.out);
    fs::rename(work.path().join("away.db"), data.join("segments/000000000001.g2.db")).unwrap();
    daemon.stop();
}
