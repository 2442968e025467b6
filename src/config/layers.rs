//! The layers that give settings their values: defaults, file, environment, flags. Nothing is checked here but that a
//! value is one.

use std::{collections::BTreeMap, ffi::OsString, fmt};

use super::{
    kinds::Kind,
    settings::{Key, SETTINGS, Setting, VARIABLE_PREFIX},
};

/// Not a setting of the table, because it says where the table's values are.
const CONFIG_VARIABLE: &str = "HITLOG_CONFIG";

/// Where a value comes from. A later layer overrides an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Layer {
    /// Nobody gave a value.
    Default,
    /// The TOML file.
    File,
    /// An environment variable.
    Environment,
    /// A flag.
    Flag,
}

impl fmt::Display for Layer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Default => "default",
            Self::File => "file",
            Self::Environment => "environment",
            Self::Flag => "flag",
        })
    }
}

/// A value as text, and the layer that it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawValue {
    /// The value as it was given.
    pub text: String,
    /// Where it was given.
    pub layer: Layer,
}

/// What was found in the environment beside the values of settings.
#[derive(Debug, Default)]
pub struct Environment {
    /// The file that `HITLOG_CONFIG` names.
    pub config: Option<String>,
    /// Names that begin as ours do and belong to no setting.
    pub unknown: Vec<String>,
    /// What cannot be read.
    pub problems: Vec<String>,
}

/// Whether Kubernetes makes such a variable, which it does for each service: of a service `hitlog` the names begin with
/// `HITLOG_PORT` and `HITLOG_SERVICE_`, and those of a service `hitlog-main` with `HITLOG_MAIN_PORT` and so on. What
/// looks only half like that, as `HITLOG_PORT=3000` does, somebody has written by hand.
fn is_of_kubernetes(name: &str, value: &str) -> bool {
    const PROTOCOLS: [&str; 3] = ["TCP", "UDP", "SCTP"];
    let is_protocol = |text: &str| PROTOCOLS.iter().any(|protocol| protocol.eq_ignore_ascii_case(text));
    if name.starts_with("HITLOG_SERVICE_") || name.starts_with("HITLOG_PORT_") {
        return true;
    }
    if name.ends_with("_SERVICE_HOST") || name.ends_with("_SERVICE_PORT") || name.contains("_SERVICE_PORT_") {
        return true;
    }
    if name.ends_with("_PORT") && value.split_once("://").is_some_and(|(protocol, _)| is_protocol(protocol)) {
        return true;
    }
    // HITLOG_MAIN_PORT_3000_TCP, and with _PROTO, _PORT and _ADDR behind it.
    let Some((_, port)) = name.split_once("_PORT_") else { return false };
    let mut parts = port.split('_');
    let is_number = parts.next().is_some_and(|part| part.parse::<u16>().is_ok());
    is_number && parts.next().is_some_and(is_protocol)
}

/// The values that were given, unchecked.
#[derive(Debug, Clone, Default)]
pub struct RawSettings {
    values: BTreeMap<Key, RawValue>,
}

impl RawSettings {
    /// Sets a value, unless a later layer has one.
    pub fn set(&mut self, key: Key, text: impl Into<String>, layer: Layer) {
        let value = RawValue { text: text.into(), layer };
        match self.values.get(&key) {
            Some(known) if known.layer > layer => {}
            _ => drop(self.values.insert(key, value)),
        }
    }

    /// The value in force.
    pub fn get(&self, key: Key) -> RawValue {
        let default = || RawValue { text: key.setting().default.to_owned(), layer: Layer::Default };
        self.values.get(&key).cloned().unwrap_or_else(default)
    }

    /// Takes away values that are no values at all, and tells of them. An empty one is not the same as none: where a
    /// token was meant, nobody would be asked for one.
    pub(super) fn set_unreadable_aside(&mut self) -> (Vec<Key>, Vec<String>) {
        let unreadable = |(key, value): (&Key, &RawValue)| Some((*key, unreadable(&value.text)?));
        let found: Vec<_> = self.values.iter().filter_map(unreadable).collect();
        let problems = found.iter().map(|(key, what)| self.problem(*key, what)).collect();
        let keys: Vec<_> = found.into_iter().map(|(key, _)| key).collect();
        keys.iter().for_each(|key| self.set_aside(*key));
        (keys, problems)
    }

    /// Leaves a setting as though nobody had given a value.
    pub(super) fn set_aside(&mut self, key: Key) {
        self.values.remove(&key);
    }

    /// What is wrong with a setting, with its value and where that comes from.
    pub(super) fn problem(&self, key: Key, what: &str) -> String {
        let (setting, value) = (key.setting(), self.get(key));
        // Its line ends would tear the message apart.
        let shown = setting.shown(&value.text).replace(char::is_control, "\u{fffd}");
        format!("{} = {shown} ({}): {what}", setting.name, value.layer)
    }

    /// What is set and does nothing, because of what another setting says.
    pub fn without_effect(&self) -> Vec<String> {
        let differs = |setting: &&Setting| self.get(setting.key).text != setting.default;
        let url = self.get(Key::ship_url).text;
        if url.is_empty() {
            let is_of_shipping = |setting: &&Setting| setting.name.starts_with("ship_") || setting.key == Key::node;
            let idle = |setting: &Setting| {
                format!("{} does nothing: ship_url is not set, so nothing is shipped", setting.name)
            };
            return SETTINGS.iter().filter(is_of_shipping).filter(differs).map(idle).collect();
        }
        let is_plain = url.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("http:"));
        let ca_file = Some(Key::ship_ca_file.setting()).filter(|setting| is_plain && differs(setting));
        let idle =
            |_| "ship_ca_file is for a ship_url that begins with https://, and this one begins with http://".into();
        ca_file.map(idle).into_iter().collect()
    }

    /// Takes the values of a TOML file, which is flat and has no key that is not a setting; returns what is wrong with
    /// the others.
    pub fn read_file(&mut self, toml: &str) -> Vec<String> {
        let toml = toml.strip_prefix('\u{feff}').unwrap_or(toml);
        let table = match toml.parse::<toml::Table>() {
            Ok(table) => table,
            // The line itself may hold a token, so only its number is told, and nothing that quotes it.
            Err(error) => {
                let before = toml.get(..error.span().map_or(0, |span| span.start)).unwrap_or_default();
                let line = before.matches('\n').count() + 1;
                let what = error.message().replace('\n', ", ");
                let what = if what.contains('`') { "expected a value of TOML; a text stands in quotes" } else { &what };
                return vec![format!("line {line}: not TOML: {what}")];
            }
        };
        let mut problems = Vec::new();
        for (key, value) in &table {
            let Some(setting) = Setting::find(key) else {
                problems.push(format!("{key}: there is no such setting; `hitlog serve --help` lists them all"));
                continue;
            };
            match (value, setting.kind) {
                (toml::Value::String(text), _) => self.set(setting.key, text, Layer::File),
                (toml::Value::Integer(number), Kind::Number { .. }) => {
                    self.set(setting.key, number.to_string(), Layer::File);
                }
                (toml::Value::Float(number), Kind::Number { .. }) => {
                    self.set(setting.key, number.to_string(), Layer::File);
                }
                (_, Kind::Number { .. }) => problems.push(format!("{key}: expected a text or a number")),
                // Written anew, a number would be another text: 0x10 would become 16.
                _ => problems.push(format!("{key}: expected a text; put the value into quotes")),
            }
        }
        problems
    }

    /// Takes the values of environment variables whose names begin as ours do.
    pub fn read_environment(&mut self, variables: impl Iterator<Item = (OsString, OsString)>) -> Environment {
        let mut found = Environment::default();
        let is_ours = |name: &OsString| name.as_encoded_bytes().starts_with(VARIABLE_PREFIX.as_bytes());
        for (name, value) in variables.filter(|(name, _)| is_ours(name)) {
            // Passed over, a token that is no text would leave everything open.
            let (Some(name), Some(value)) = (name.to_str(), value.to_str()) else {
                let name = name.to_string_lossy();
                found.problems.push(format!("{name} (environment): its name or its value is not text in UTF-8"));
                continue;
            };
            match SETTINGS.iter().find(|setting| setting.variable() == name) {
                Some(setting) => self.set(setting.key, value, Layer::Environment),
                None if name == CONFIG_VARIABLE => found.config = Some(value.to_owned()),
                None if is_of_kubernetes(name, value) => {}
                None => found.unknown.push(name.to_owned()),
            }
        }
        found
    }

    /// All settings as a file that could be read back, with where each value comes from. Secrets stay hidden.
    pub fn show(&self) -> String {
        let line = |setting: &Setting| {
            let RawValue { text, layer } = self.get(setting.key);
            // Read back, an empty value would be one that was given.
            let lead = if text.is_empty() { "#" } else { "" };
            let value = match text.parse::<f64>() {
                // Not every number that is taken is one of TOML's: 007 and .5 are none.
                Ok(_) if matches!(setting.kind, Kind::Number { .. }) && is_toml(&text) => text,
                _ if setting.is_secret() && !text.is_empty() => "\"(hidden)\"".into(),
                _ => toml::Value::String(text).to_string(),
            };
            format!("{lead}{} = {value} # {layer}\n", setting.name)
        };
        SETTINGS.iter().map(line).collect()
    }
}

fn is_toml(value: &str) -> bool {
    format!("key = {value}").parse::<toml::Table>().is_ok()
}

/// What makes a value one that nobody can have meant, whatever its setting.
fn unreadable(text: &str) -> Option<&'static str> {
    let inner = text.trim();
    let is_quoted = |quote: char| inner.len() > 1 && inner.starts_with(quote) && inner.ends_with(quote);
    if inner.is_empty() {
        Some("the value is empty; give one, or leave the setting out")
    } else if text.contains(char::is_control) {
        Some("there is a control character in the value, such as the line end of a file from Windows")
    } else if is_quoted('"') || is_quoted('\'') {
        Some("the quotes are part of the value, as `docker --env-file` keeps them; take them away")
    } else if inner.len() < text.len() {
        Some("there is a space before or after the value; take it away")
    } else {
        None
    }
}
