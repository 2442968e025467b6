//! Settings as flags, the configuration that a command runs with, and the arguments that several commands have.

use std::{
    env,
    ffi::OsString,
    fs::{self, File},
    io::Read,
    path::Path,
    process::ExitCode,
};

use clap::{Arg, ArgAction, ArgMatches};

use super::output::{EXIT_BAD_SETTING, fail};
use crate::{
    command::{self, Given, GivenSetting},
    config::{Config, ConfigError, Environment, Key, Layer, RawSettings, SETTINGS, Setting, contract},
};

/// The settings that a tool heeds that only reads, and changes nothing in the data directory.
pub(super) const READING: &[Key] = &[Key::data_dir];
/// The settings that a tool heeds that makes files.
pub(super) const WRITING: &[Key] = &[Key::data_dir, Key::file_access];
/// Said of a tool that only reads.
pub(super) const MAY_RUN: &str = "May run while hitlog serves.";

/// The flags of the settings that are wanted, and of the file that all of them may come from.
pub(super) fn settings(is_wanted: impl Fn(Key) -> bool) -> Vec<Arg> {
    let file = Arg::new("config")
        .long("config")
        .value_name("FILE")
        .help("A TOML file of settings; config/hitlog.toml is a commented example [env: HITLOG_CONFIG]");
    SETTINGS.iter().filter(|setting| is_wanted(setting.key)).fold(vec![file], |mut flags, setting| {
        let flag = Arg::new(setting.name).long(setting.flag()).value_name(setting.kind.value_name());
        let flag = flag.help(help(setting, setting.help));
        // A number below nought is out of the bounds, and is told so.
        flags.push(flag.allow_negative_numbers(true));
        flags
    })
}

/// What is said of a setting's flag: this, its default, and its variable.
pub(super) fn help(setting: &Setting, what: &str) -> String {
    let default = if setting.default.is_empty() { String::new() } else { format!(" [default: {}]", setting.default) };
    format!("{what}{default} [env: {}]", setting.variable())
}

/// The flags of these settings.
pub(super) fn shown(keys: &[Key]) -> Vec<Arg> {
    settings(|key| keys.contains(&key))
}

/// The flags of these settings, before a subcommand or after it.
pub(super) fn shown_everywhere(keys: &[Key]) -> Vec<Arg> {
    shown(keys).into_iter().map(|flag| flag.global(true)).collect()
}

/// A flag with a value.
pub(super) fn flag(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value).help(help)
}

/// The flag that confirms what cannot be undone.
pub(super) fn yes(help: &'static str) -> Arg {
    Arg::new("yes").long("yes").action(ArgAction::SetTrue).help(help)
}

/// The flag for whom the output is.
pub(super) fn json() -> Arg {
    Arg::new("json").long("json").action(ArgAction::SetTrue).help("Print JSON, for programs: all numbers exact")
}

/// The flag that names a website.
pub(super) fn website() -> Arg {
    flag("website", "WEBSITE", "Of this website only: its id, tracking code or domain, which may be a URL")
}

/// The text that was given for an argument.
pub(super) fn text(arguments: &ArgMatches, name: &str) -> Option<String> {
    arguments.get_one::<String>(name).cloned()
}

/// Reads the settings and has `check` check them, then runs `run` with them and with what there is to warn of.
pub(super) fn with_config(
    arguments: &ArgMatches,
    check: impl FnOnce(&RawSettings) -> Result<Config, ConfigError>,
    run: impl FnOnce(Config, &RawSettings, &[String]) -> ExitCode,
) -> ExitCode {
    let GivenSettings { raw, file, mut problems, warnings } = read_settings(arguments);
    let checked = check(&raw).map_err(|ConfigError(of_values)| problems.extend(of_values));
    match checked {
        Ok(config) if problems.is_empty() => {
            command::keep(given(&raw, file, &config));
            run(config, &raw, &warnings)
        }
        _ => {
            // All at once, so that nobody has to come back for the next one.
            problems.extend(warnings);
            fail(&format!("hitlog: the configuration is not good:\n{}", ConfigError(problems)));
            ExitCode::from(EXIT_BAD_SETTING)
        }
    }
}

/// What commands that people are told to run must say again. A variable may be that of this process alone, and a
/// relative path in the file leads elsewhere from another folder.
fn given(raw: &RawSettings, file: Option<String>, config: &Config) -> Given {
    let file = file.filter(|file| is_there_again(Path::new(file)));
    let is_lost = |setting: &&Setting| {
        let value = raw.get(setting.key);
        match value.layer {
            Layer::Default => false,
            Layer::File => file.is_none() || (setting.is_path() && Path::new(&value.text).is_relative()),
            Layer::Environment | Layer::Flag => true,
        }
    };
    let is_told = |setting: &Setting| !setting.is_secret() && !is_path_of_descriptor(raw, setting);
    let (told, untold): (Vec<_>, Vec<_>) =
        SETTINGS.iter().filter(|setting| setting.key != Key::data_dir).filter(is_lost).partition(|of| is_told(of));
    let again = |setting: &Setting| GivenSetting {
        flag: setting.flag(),
        value: raw.get(setting.key).text.into(),
        is_path: setting.is_path(),
    };
    Given {
        settings: told.into_iter().map(again).collect(),
        untold: untold.into_iter().map(Setting::flag).collect(),
        data_dir: config.data_dir.clone().into_os_string(),
        config: file.map(OsString::from),
    }
}

/// Whether a setting is a path that leads to a descriptor of this process.
fn is_path_of_descriptor(raw: &RawSettings, setting: &Setting) -> bool {
    setting.is_path() && command::is_descriptor(Path::new(&raw.get(setting.key).text))
}

/// Whether another command finds the same in a file. What a pipe gave is gone.
fn is_there_again(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|found| found.is_file()) && !command::is_descriptor(file)
}

/// What flags, environment and file say.
struct GivenSettings {
    raw: RawSettings,
    /// The file, if there is one.
    file: Option<String>,
    /// What cannot be read.
    problems: Vec<String>,
    /// What is there and belongs to nothing.
    warnings: Vec<String>,
}

fn read_settings(arguments: &ArgMatches) -> GivenSettings {
    let mut raw = RawSettings::default();
    let Environment { config, unknown, mut problems } = raw.read_environment(env::vars_os());
    let file = arguments.get_one::<String>("config").cloned().or(config);
    if let Some(file) = &file {
        match read_file(file) {
            Ok(text) => {
                let of_file = raw.read_file(&text);
                problems.extend(of_file.iter().map(|problem| format!("{file}: {problem}")));
            }
            Err(problem) => problems.push(problem),
        }
    }
    for setting in SETTINGS {
        // The tools show only the flags that matter to them.
        if let Ok(Some(value)) = arguments.try_get_one::<String>(setting.name) {
            raw.set(setting.key, value, Layer::Flag);
        }
    }
    let warning =
        |name| format!("the environment variable {name} is not a setting of hitlog; `hitlog serve --help` lists them");
    GivenSettings { raw, file, problems, warnings: unknown.iter().map(warning).collect() }
}

fn read_file(file: &str) -> Result<String, String> {
    if file.is_empty() {
        return Err("config: the name of the file is empty; give one, or leave --config and HITLOG_CONFIG out".into());
    }
    let mut text = String::new();
    let read =
        File::open(file).and_then(|file| file.take(contract::CONFIG_FILE_BYTES_MAX + 1).read_to_string(&mut text));
    match read {
        Ok(count) if count as u64 <= contract::CONFIG_FILE_BYTES_MAX => Ok(text),
        Ok(_) => Err(format!("{file}: the file has more than {} bytes", contract::CONFIG_FILE_BYTES_MAX)),
        Err(error) => Err(format!("{file}: the file cannot be read: {error}")),
    }
}
