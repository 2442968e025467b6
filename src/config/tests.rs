use std::fs;

use super::*;

fn raw(file: &str, flags: &[(&str, &str)]) -> RawSettings {
    let mut raw = RawSettings::default();
    assert_eq!(raw.read_file(file), Vec::<String>::new());
    for (name, value) in flags {
        raw.set(Setting::find(name).unwrap().key, *value, Layer::Flag);
    }
    raw
}

fn environment(raw: &mut RawSettings, variables: &[(&str, &str)]) -> Environment {
    raw.read_environment(variables.iter().map(|(name, value)| (name.into(), value.into())))
}

#[test]
fn the_defaults_are_good() {
    let config = Config::check(&RawSettings::default()).unwrap();
    assert_eq!(config.listen.to_string(), "127.0.0.1:3000");
    assert_eq!(config.durability, Durability::Full);
    assert_eq!(config.batch_bytes_max, 4 << 20);
    assert!(config.is_protected_mode());
}

#[test]
fn the_example_names_every_setting_with_its_default() {
    let example = include_str!("../../config/hitlog.toml");
    let uncommented: String = example
        .lines()
        .filter_map(|line| line.strip_prefix("#").filter(|line| !line.starts_with([' ', '#']) && line.contains(" = ")))
        .flat_map(|line| [line, "\n"])
        .collect();
    let example = raw(&uncommented, &[]);
    for setting in SETTINGS {
        let value = example.get(setting.key);
        assert_eq!(value.layer, Layer::File, "{} is missing in config/hitlog.toml", setting.name);
        assert_eq!(value.text, setting.default, "{}", setting.name);
    }
    let filled: String =
        uncommented.lines().filter(|line| !line.ends_with("\"\"")).flat_map(|line| [line, "\n"]).collect();
    assert!(Config::check(&raw(&filled, &[])).is_ok());
    assert!(raw(include_str!("../../config/hitlog.toml"), &[]).show().lines().all(|line| line.ends_with("# default")));
}

#[test]
fn later_layers_go_before_earlier_ones() {
    let mut settings = raw("readers = 2\nlisten = \"127.0.0.1:1\"", &[("readers", "4")]);
    let found = environment(
        &mut settings,
        &[("HITLOG_READERS", "3"), ("HITLOG_LISTEN", "127.0.0.1:2"), ("HITLOG_TYPO", "x"), ("HOME", "/")],
    );
    assert_eq!(found.unknown, ["HITLOG_TYPO"]);
    let config = Config::check(&settings).unwrap();
    assert_eq!((config.readers, config.listen.port()), (4, 2));
    assert!(settings.show().contains("readers = 4 # flag\n"));
    assert!(settings.show().contains("listen = \"127.0.0.1:2\" # environment\n"));
}

#[test]
fn what_is_shown_can_be_read_back() {
    for given in [
        &[("queue_bytes_max", "32MiB"), ("read_timeout_seconds", "2.5"), ("log_level", "debug")][..],
        &[("readers", "007"), ("event_bytes_max", "065536"), ("read_timeout_seconds", ".5")],
        &[("readers", "+7"), ("idle_timeout_seconds", "1."), ("read_timeout_seconds", "00.5")],
        &[("idle_timeout_seconds", "1e1")],
    ] {
        let settings = raw("", given);
        let again = raw(&settings.show(), &[]);
        let read = |raw: &RawSettings| format!("{:?}", Config::check(raw).unwrap());
        assert_eq!(read(&settings), read(&again), "{given:?}");
    }
}

#[test]
fn a_bad_value_is_told_with_key_value_and_limit() {
    for (name, value, words) in [
        ("listen", "3000", "IP address and a port"),
        ("listen", "example.com:80", "IP address and a port"),
        ("durability", "none", "full, normal"),
        ("readers", "0", "from 1 to 256"),
        ("readers", "many", "from 1 to 256"),
        ("readers", "-1", "from 1 to 256"),
        ("readers", "1KiB", "from 1 to 256"),
        ("queue_bytes_max", "1TiB", "bytes from"),
        ("queue_bytes_max", "99999999999999999999GiB", "bytes from"),
        ("idle_timeout_seconds", "nan", "seconds from"),
        ("idle_timeout_seconds", "-1", "seconds from"),
        ("segment_page_bytes", "5000", "power of two"),
        ("token", "short", "16 bytes"),
        ("token", "0123456789 abcdef", "16 bytes"),
        ("metrics_token", "short", "16 bytes"),
        ("read_token", "\"0123456789abcdef", "a quote is part of the token"),
        ("token", "metrics:0123456789abcdef", "in token_file only"),
        ("token_file", "/nonexistent/tokens", "cannot be read"),
        ("token_file", "/", "cannot be read"),
        ("token_file", "/dev/zero", "more than"),
        ("log_level", "loud", "expected one of"),
    ] {
        let error = Config::check(&raw("", &[(name, value)])).unwrap_err().to_string();
        assert!(error.starts_with(name) && error.contains(words) && error.contains("(flag)"), "{name}: {error}");
        let hidden = ["token", "metrics_token", "read_token"].contains(&name);
        assert_eq!(error.contains(value), !hidden, "{error}");
    }
}

#[test]
fn every_bad_value_is_told_at_once() {
    let bad = [("readers", "0"), ("durability", "x"), ("token", "short"), ("token_file", "/"), ("listen", "\"x\"")];
    let error = Config::check(&raw("", &bad)).unwrap_err();
    for (name, _) in bad {
        assert_eq!(error.0.iter().filter(|problem| problem.starts_with(&format!("{name} = "))).count(), 1, "{error}");
    }
    assert_eq!(error.0.len(), bad.len(), "{error}");
    let contradicted = [("readers", "0"), ("warm_connections_max", "5000"), ("listen", "0.0.0.0:80")];
    let error = Config::check(&raw("", &contradicted)).unwrap_err();
    assert_eq!(error.0.len(), 3, "{error}");
    // Nobody knows what a value should have been that cannot be read.
    let unknown = [("active_connections_max", "0"), ("warm_connections_max", "5000"), ("token_file", "/")];
    let error = Config::check(&raw("", &[&unknown[..], &[("listen", "0.0.0.0:80")]].concat())).unwrap_err();
    assert_eq!(error.0.len(), 2, "{error}");
}

#[test]
fn what_does_not_serve_needs_no_token() {
    let serving = [("listen", "0.0.0.0:80"), ("token_file", "/nonexistent/tokens"), ("readers", "7")];
    assert!(Config::check(&raw("", &serving)).is_err());
    let config = Config::check_for_tool(&raw("", &serving)).unwrap();
    assert_eq!((config.readers, config.tokens.len()), (7, 0));
    assert!(Config::check_for_tool(&raw("", &[("readers", "0")])).is_err());
}

#[test]
fn what_asks_a_running_hitlog_takes_the_least_token_that_reads() {
    const ADMIN: &str = "0123456789abcdef-admin";
    const READ: &str = "0123456789abcdef-read";
    const METRICS: &str = "0123456789abcdef-metrics";
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens");
    fs::write(&file, format!("{ADMIN}\nmetrics:{METRICS}\nread:{READ}\n")).unwrap();
    let file = file.to_str().unwrap();
    for (flags, token) in [
        (&[][..], None),
        (&[("listen", "0.0.0.0:80")], None),
        (&[("metrics_token", METRICS)], None),
        (&[("token", ADMIN), ("metrics_token", METRICS)], Some(ADMIN)),
        (&[("token", ADMIN), ("read_token", READ)], Some(READ)),
        (&[("token_file", file)], Some(READ)),
        (&[("token_file", "/nonexistent/tokens"), ("read_token", READ)], Some(READ)),
        (&[("token_file", "/nonexistent/tokens"), ("token", ADMIN)], Some(ADMIN)),
    ] {
        let config = Config::check_for_client(&raw("", flags)).unwrap();
        assert_eq!(config.reading_token().map(Secret::reveal), token, "{flags:?}");
    }
    for (flags, word) in [
        (&[("token_file", "/nonexistent/tokens")][..], "cannot be read"),
        (&[("token_file", ""), ("read_token", READ)], "is empty"),
        (&[("read_token", "short")], "16 bytes"),
        (&[("readers", "0")], "from 1 to 256"),
    ] {
        let error = Config::check_for_client(&raw("", flags)).unwrap_err().to_string();
        assert!(error.contains(word), "{flags:?}: {error}");
    }
}

#[test]
fn the_table_stands_in_the_order_of_its_keys() {
    for setting in SETTINGS {
        assert_eq!((setting.key.setting().key, setting.key.setting().name), (setting.key, setting.name));
        assert_eq!(format!("{:?}", setting.key), setting.name);
    }
}

#[test]
fn a_number_may_have_every_value_within_its_bounds_and_no_other() {
    let is_read = |setting: &Setting, number: f64| {
        let flags = [(setting.name, &*number.to_string())];
        let problems = Config::check(&raw("", &flags)).err().map_or(Vec::new(), |error| error.0);
        // A bound may contradict another setting's default, which is told only of values that can be read.
        !problems.iter().any(|problem| problem.contains("expected"))
    };
    let mut counted = 0;
    for setting in SETTINGS {
        let Kind::Number { unit, min, max } = setting.kind else { continue };
        counted += 1;
        let beside = if matches!(unit, Unit::Count | Unit::Bytes) { 1.0 } else { min / 2.0 };
        assert!(is_read(setting, min) && is_read(setting, max), "{}", setting.name);
        assert!(min == 0.0 || !is_read(setting, min - beside), "{}", setting.name);
        assert!(!is_read(setting, max + 1.0), "{}", setting.name);
    }
    assert!(counted > 40);
}

#[test]
fn settings_that_contradict_each_other() {
    for (flags, words) in [
        (&[("listen", "0.0.0.0:3000")][..], "Set a token"),
        (&[("listen", "[::]:3000")], "Set a token"),
        (&[("batch_events_max", "1000"), ("queue_events_max", "999")], "queue_events_max"),
        (&[("batch_bytes_max", "40MiB")], "body_bytes_max"),
        (&[("wal_checkpoint_bytes", "1GiB")], "wal_bytes_max"),
        (
            &[("small_body_bytes", "32MiB")],
            "small_body_bytes * 2 = 67108864 is more than body_bytes_max = 33554432; lower the one or raise the other",
        ),
        (
            &[("small_body_bytes", "1GiB")],
            "batch_bytes_max * 3 = 12582912 is more than body_bytes_max - small_body_bytes = 0; lower the one or raise",
        ),
    ] {
        let error = Config::check(&raw("", flags)).unwrap_err().to_string();
        assert!(error.contains(words), "{flags:?}: {error}");
    }
    let open = raw("", &[("listen", "0.0.0.0:3000"), ("token", "0123456789abcdef")]);
    assert!(Config::check(&open).is_ok());
}

#[test]
fn no_setting_takes_a_value_that_nobody_can_have_meant() {
    for setting in SETTINGS {
        for (value, words) in [
            ("", "is empty"),
            (" ", "is empty"),
            ("\"x\"", "the quotes are part of the value"),
            ("'0123456789abcdef'", "the quotes are part of the value"),
            ("\"\"", "the quotes are part of the value"),
            ("data\r", "a control character"),
            (" data", "a space before or after"),
        ] {
            let error = Config::check(&raw("", &[(setting.name, value)])).unwrap_err();
            let [problem] = &error.0[..] else { panic!("{} = {value:?}: {error}", setting.name) };
            assert!(problem.starts_with(setting.name) && problem.contains(words), "{problem}");
            assert!(!problem.contains("0123456789abcdef") || !setting.is_secret(), "{problem}");
            let variable = setting.variable();
            let mut settings = RawSettings::default();
            assert!(environment(&mut settings, &[(&variable, value)]).unknown.is_empty());
            let error = Config::check(&settings).unwrap_err().to_string();
            assert!(error.contains("(environment)") && error.contains(words), "{error}");
        }
        let error = Config::check(&raw(&format!("{} = \"\"", setting.name), &[])).unwrap_err().to_string();
        assert!(error.contains("(file)") && error.contains("is empty"), "{error}");
    }
}

#[test]
fn a_variable_that_is_no_text_is_told() {
    use std::{ffi::OsString, os::unix::ffi::OsStringExt};
    let bytes = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
    for (name, value, is_told) in [
        (bytes(b"HITLOG_TOKEN"), bytes(b"0123456789abcdef\xff"), true),
        (bytes(b"HITLOG_CONFIG"), bytes(b"/etc/\xff"), true),
        (bytes(b"HITLOG_TOK\xff"), bytes(b"0123456789abcdef"), true),
        (bytes(b"HITLOG_OTHER"), bytes(b"\xff"), true),
        (bytes(b"LANG"), bytes(b"\xff"), false),
        (bytes(b"\xffHITLOG_TOKEN"), bytes(b"x"), false),
    ] {
        let problems = RawSettings::default().read_environment([(name, value)].into_iter()).problems;
        assert_eq!(problems.len(), usize::from(is_told), "{problems:?}");
        assert!(problems.iter().all(|problem| problem.contains("not text in UTF-8") && !problem.contains("0123")));
    }
}

#[test]
fn variables_that_kubernetes_makes_are_passed_over() {
    for (name, value, is_known) in [
        ("HITLOG_PORT", "tcp://10.0.0.11:3000", true),
        ("HITLOG_PORT_3000_TCP", "tcp://10.0.0.11:3000", true),
        ("HITLOG_PORT_3000_TCP_PROTO", "tcp", true),
        ("HITLOG_PORT_3000_TCP_PORT", "3000", true),
        ("HITLOG_PORT_3000_TCP_ADDR", "10.0.0.11", true),
        ("HITLOG_SERVICE_HOST", "10.0.0.11", true),
        ("HITLOG_SERVICE_PORT", "3000", true),
        ("HITLOG_SERVICE_PORT_HTTP", "3000", true),
        ("HITLOG_MAIN_SERVICE_HOST", "10.0.0.11", true),
        ("HITLOG_MAIN_SERVICE_PORT_HTTP", "3000", true),
        ("HITLOG_MAIN_PORT", "udp://10.0.0.11:3000", true),
        ("HITLOG_MAIN_PORT_3000_TCP_ADDR", "10.0.0.11", true),
        ("HITLOG_PORT", "3000", false),
        ("HITLOG_LISTEN_PORT", "3000", false),
        ("HITLOG_SEGMENT_PORT_MAX", "3000", false),
        ("HITLOG_TOKENS", "0123456789abcdef", false),
        ("HITLOG_", "", false),
    ] {
        let unknown = environment(&mut RawSettings::default(), &[(name, value)]).unknown;
        assert_eq!(unknown.is_empty(), is_known, "{name}={value}");
    }
}

/// What a file of tokens gives beside `--token aaaaaaaaaaaaaaaa`.
fn tokens_of(file: impl AsRef<[u8]>) -> Result<Vec<(Role, String)>, String> {
    let path = tempfile::NamedTempFile::new().unwrap();
    fs::write(path.path(), file).unwrap();
    let flags = [("token_file", path.path().to_str().unwrap()), ("token", "aaaaaaaaaaaaaaaa")];
    let config = Config::check(&raw("", &flags)).map_err(|error| error.to_string())?;
    assert!(!format!("{config:?}").contains("0123456789abcdef"), "tokens are never printed");
    Ok(config.tokens.iter().map(|token| (token.role, token.secret.reveal().to_owned())).collect())
}

#[test]
fn a_file_of_tokens() {
    use Role::{Admin, Metrics, Read};
    let of = |rest: &[(Role, &str)]| -> Result<Vec<_>, String> {
        Ok([(Admin, "aaaaaaaaaaaaaaaa")].iter().chain(rest).map(|(role, token)| (*role, (*token).to_owned())).collect())
    };
    let (a, b) = ("0123456789abcdef", "fedcba9876543210");
    for (file, tokens) in [
        (format!("# old\n{a}\n\n  {b}  \n"), of(&[(Admin, a), (Admin, b)])),
        (format!("metrics:{a}\nread: {b}"), of(&[(Metrics, a), (Read, b)])),
        (format!("admin:a:{a}"), of(&[(Admin, "a:0123456789abcdef")])),
        (format!("\u{feff}{a}\r\nread:{b}\r\n"), of(&[(Admin, a), (Read, b)])),
        (format!("{a}\n{a}\naaaaaaaaaaaaaaaa"), of(&[(Admin, a)])),
    ] {
        assert_eq!(tokens_of(&file), tokens, "{file}");
    }
}

#[test]
fn a_bad_file_of_tokens_is_told_by_its_lines_and_without_a_token() {
    let many: String = (0..contract::TOKENS_MAX).map(|number| format!("{number:016}\n")).collect();
    for (file, words) in [
        (&b""[..], "holds no token"),
        (b"# none\n\r\n", "holds no token"),
        (b"# one\nshort", "line 2: expected 16 bytes"),
        (b"read:short", "line 1: expected 16 bytes"),
        (b"0123456789abcdef gh", "line 1: expected 16 bytes"),
        (b"\"0123456789abcdef\"", "line 1: a quote"),
        (b"reader:0123456789abcdef", "line 1: what stands before the colon is no role"),
        (b"0123456789abcdef:x", "line 1: what stands before the colon is no role"),
        (b"Read:0123456789abcdef", "line 1: what stands before the colon is no role"),
        (b"read:0123456789abcdef\n0123456789abcdef", "line 2: the same token is given for the role read and"),
        (b"metrics:aaaaaaaaaaaaaaaa", "line 1: the same token is given for the role admin and for the role metrics"),
        (b"0123456789abcdef\xff", "not text in UTF-8"),
        (b"\xff\xfe0\x001\x002\x00", "not text in UTF-8"),
        (many.as_bytes(), "1000 are the most"),
    ] {
        let error = tokens_of(file).unwrap_err();
        assert!(error.starts_with("token_file = ") && error.contains(words), "{words}: {error}");
        assert!(!error.contains("0123456789abcdef"), "{error}");
    }
    let both = [("token", "0123456789abcdef"), ("read_token", "0123456789abcdef")];
    let error = Config::check(&raw("", &both)).unwrap_err().to_string();
    assert!(error.contains("the same token") && !error.contains("0123456789abcdef"), "{error}");
}

#[test]
fn a_token_of_any_role_ends_protected_mode() {
    for name in ["token", "metrics_token", "read_token"] {
        let config = Config::check(&raw("", &[(name, "0123456789abcdef")])).unwrap();
        assert!(!config.is_protected_mode());
        assert_eq!(config.token_sources.read().unwrap(), config.tokens);
    }
}

#[test]
fn a_file_with_an_unknown_key_or_a_section_is_refused() {
    for (file, words) in [
        ("reader = 2", "no such setting"),
        ("[http]\nport = 1", "no such setting"),
        ("readers = [1]", "expected"),
        ("token = 0x1234567890abcdef1", "line 1: not TOML: expected a value"),
        ("token = 0x1234567890abcde", "token: expected a text; put the value into quotes"),
        ("metrics_token = 1234567890123456", "metrics_token: expected a text"),
        ("data_dir = 5", "data_dir: expected a text"),
        ("token_file = 1.50", "token_file: expected a text"),
        ("scratch_dir = 2026-01-01", "scratch_dir: expected a text"),
        ("trusted_proxies = 10.0", "trusted_proxies: expected a text"),
        ("durability = true", "durability: expected a text"),
        ("readers", "line 1: not TOML"),
        ("readers = 2\ntoken = 0123456789abcdef", "line 2: not TOML"),
    ] {
        let problems = RawSettings::default().read_file(file).join("\n");
        let is_token_told = problems.contains("0123456789abcdef") || problems.contains("20988295476718395121");
        assert!(problems.contains(words) && !is_token_told, "{file}: {problems}");
    }
    assert_eq!(raw("\u{feff}readers = 2\r\n", &[]).get(Key::readers).text, "2", "a byte-order mark is skipped");
}

#[test]
fn a_url_is_shown_without_what_may_be_a_secret() {
    let shown = |url: &str| Key::ship_url.setting().shown(url);
    for (url, told) in [
        ("https://click.example:8443/behind", "https://click.example:8443/behind"),
        ("ftp://click.example", "ftp://click.example"),
        ("http://user:S3CRET@click.example:8123", "http://click.example:8123/"),
        ("http://S3CRET@click.example", "http://click.example/"),
        ("http://click.example/?user=me&password=S3CRET", "http://click.example/"),
        ("clickhouse://user:S3CRET@click.example/db", "clickhouse://click.example/db"),
    ] {
        assert_eq!(shown(url), told);
    }
    // Read as another than was meant, or not at all.
    for url in [
        "http://user:12/S3CRET@host",
        "http://user:12?S3CRET@host",
        "http://user:12#S3CRET@host",
        "http://user:S3CRET@host:99999",
        "user:S3CRET@host:8123",
        "http://user:S3CRET%40host",
    ] {
        assert_eq!(shown(url), "(hidden)", "{url}");
    }
}

#[test]
fn what_does_nothing_is_told() {
    let of = |flags: &[(&str, &str)]| raw("", flags).without_effect();
    assert!(of(&[]).is_empty() && of(&[("node", "0"), ("ship_table", "events")]).is_empty());
    assert_eq!(of(&[("node", "1"), ("ship_user", "me")]).len(), 2);
    let with = |url| of(&[("ship_url", url), ("node", "1"), ("ship_ca_file", "/ca.pem")]);
    assert!(with("https://host:8443").is_empty());
    assert!(with("http://host:8123")[0].contains("https://"));
}
