//! Settings as flags, and the configuration that a command runs with.

use std::{fs, process::ExitCode};

use clap::{Arg, ArgMatches};

use super::output::{EXIT_BAD_SETTING, fail};
use crate::config::{Config, ConfigError, Layer, RawSettings, SETTINGS};

/// The flags of the settings that are wanted, and of the file that all of them may come from.
pub(super) fn settings(is_wanted: impl Fn(&str) -> bool) -> Vec<Arg> {
    let file = Arg::new("config")
        .long("config")
        .value_name("FILE")
        .help("A TOML file of settings; config/hitlog.toml is a commented example [env: HITLOG_CONFIG]");
    SETTINGS.iter().filter(|setting| is_wanted(setting.name)).fold(vec![file], |mut flags, setting| {
        let default =
            if setting.default.is_empty() { String::new() } else { format!(" [default: {}]", setting.default) };
        let help = format!("{}{default} [env: {}]", setting.help, setting.variable());
        flags.push(Arg::new(setting.name).long(setting.flag()).value_name(setting.value_name()).help(help));
        flags
    })
}

/// Reads and checks the settings, then runs `run`.
pub(super) fn with_config(
    arguments: &ArgMatches,
    run: impl FnOnce(Config, &RawSettings, &[String]) -> ExitCode,
) -> ExitCode {
    let mut warnings = Vec::new();
    let checked = read_settings(arguments, &mut warnings).and_then(|raw| Ok((Config::check(&raw)?, raw)));
    match checked {
        Ok((config, raw)) => run(config, &raw, &warnings),
        Err(error) => {
            fail(&format!("hitlog: the configuration is not good:\n{error}"));
            ExitCode::from(EXIT_BAD_SETTING)
        }
    }
}

fn read_settings(arguments: &ArgMatches, warnings: &mut Vec<String>) -> Result<RawSettings, ConfigError> {
    let mut raw = RawSettings::default();
    let file = arguments.get_one::<String>("config").cloned().or_else(|| std::env::var("HITLOG_CONFIG").ok());
    if let Some(file) = file {
        let text = fs::read_to_string(&file)
            .map_err(|error| ConfigError(vec![format!("{file}: the file cannot be read: {error}")]))?;
        raw.read_file(&text)
            .map_err(|problems| ConfigError(problems.iter().map(|problem| format!("{file}: {problem}")).collect()))?;
    }
    let variables =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    for name in raw.read_environment(variables) {
        warnings.push(format!(
            "the environment variable {name} is not a setting of hitlog; `hitlog config show` lists them"
        ));
    }
    for setting in SETTINGS {
        // The tools show only the flags that matter to them.
        if let Ok(Some(value)) = arguments.try_get_one::<String>(setting.name) {
            raw.set(setting, value, Layer::Flag);
        }
    }
    Ok(raw)
}
