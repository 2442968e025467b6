use super::*;

fn raw(file: &str, flags: &[(&str, &str)]) -> RawSettings {
    let mut raw = RawSettings::default();
    raw.read_file(file).unwrap();
    for (name, value) in flags {
        raw.set(settings::find(name).unwrap(), *value, Layer::Flag);
    }
    raw
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
        let value = example.get(setting.name);
        assert_eq!(value.layer, Layer::File, "{} is missing in config/hitlog.toml", setting.name);
        assert_eq!(value.text, setting.default, "{}", setting.name);
    }
    assert!(Config::check(&example).is_ok());
    assert!(raw(include_str!("../../config/hitlog.toml"), &[]).show().lines().all(|line| line.ends_with("# default")));
}

#[test]
fn later_layers_go_before_earlier_ones() {
    let mut settings = raw("readers = 2\nlisten = \"127.0.0.1:1\"", &[("readers", "4")]);
    let unknown = settings.read_environment(
        [("HITLOG_READERS", "3"), ("HITLOG_LISTEN", "127.0.0.1:2"), ("HITLOG_TYPO", "x"), ("HOME", "/")]
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned())),
    );
    assert_eq!(unknown, ["HITLOG_TYPO"]);
    let config = Config::check(&settings).unwrap();
    assert_eq!((config.readers, config.listen.port()), (4, 2));
    assert!(settings.show().contains("readers = 4 # flag\n"));
    assert!(settings.show().contains("listen = \"127.0.0.1:2\" # environment\n"));
}

#[test]
fn what_is_shown_can_be_read_back() {
    let settings = raw("", &[("queue_bytes_max", "32MiB"), ("read_timeout_seconds", "2.5"), ("log_level", "debug")]);
    let again = raw(&settings.show(), &[]);
    for setting in SETTINGS {
        assert_eq!(settings.get(setting.name).text, again.get(setting.name).text);
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
        ("queue_bytes_max", "1TiB", "bytes from"),
        ("queue_bytes_max", "99999999999999999999GiB", "bytes from"),
        ("idle_timeout_seconds", "nan", "seconds from"),
        ("idle_timeout_seconds", "-1", "seconds from"),
        ("segment_page_bytes", "5000", "power of two"),
        ("token", "short", "16 bytes"),
        ("token", "0123456789 abcdef", "16 bytes"),
        ("token_file", "/nonexistent/tokens", "cannot be read"),
        ("log_level", "loud", "expected one of"),
    ] {
        let error = Config::check(&raw("", &[(name, value)])).unwrap_err().to_string();
        assert!(error.starts_with(name) && error.contains(words) && error.contains("(flag)"), "{name}: {error}");
        let hidden = name == "token";
        assert_eq!(error.contains(value), !hidden, "{error}");
    }
}

#[test]
fn every_bad_value_is_told_at_once() {
    let error = Config::check(&raw("", &[("readers", "0"), ("durability", "x")])).unwrap_err();
    assert_eq!(error.0.len(), 2);
}

#[test]
fn settings_that_contradict_each_other() {
    for (flags, words) in [
        (&[("listen", "0.0.0.0:3000")][..], "Set a token"),
        (&[("listen", "[::]:3000")], "Set a token"),
        (&[("batch_events_max", "1000"), ("queue_events_max", "999")], "queue_events_max"),
        (&[("batch_bytes_max", "40MiB")], "body_bytes_max"),
        (&[("wal_checkpoint_bytes", "1GiB")], "wal_bytes_max"),
    ] {
        let error = Config::check(&raw("", flags)).unwrap_err().to_string();
        assert!(error.contains(words), "{flags:?}: {error}");
    }
    let open = raw("", &[("listen", "0.0.0.0:3000"), ("token", "0123456789abcdef")]);
    assert!(Config::check(&open).is_ok());
}

#[test]
fn a_file_of_tokens() {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), "# old\n0123456789abcdef\n\n  fedcba9876543210  \n").unwrap();
    let path = file.path().to_str().unwrap();
    let config = Config::check(&raw("", &[("token_file", path), ("token", "aaaaaaaaaaaaaaaa")])).unwrap();
    let tokens: Vec<_> = config.tokens.iter().map(Secret::reveal).collect();
    assert_eq!(tokens, ["aaaaaaaaaaaaaaaa", "0123456789abcdef", "fedcba9876543210"]);
    assert!(!format!("{config:?}").contains("0123456789abcdef"), "tokens are never printed");
    fs::write(file.path(), "# none\n").unwrap();
    assert!(Config::check(&raw("", &[("token_file", path)])).is_err());
}

#[test]
fn a_file_with_an_unknown_key_or_a_section_is_refused() {
    for (file, words) in [
        ("reader = 2", "no such setting"),
        ("[http]\nport = 1", "no such setting"),
        ("readers = [1]", "expected"),
        ("readers", "TOML"),
    ] {
        let problems = RawSettings::default().read_file(file).unwrap_err().join("\n");
        assert!(problems.contains(words), "{file}: {problems}");
    }
}
