//! Settings: from flags, environment and file to a checked [`Config`].
//!
//! Every setting lives in the table of `settings.rs`, with its default, unit and reason; the limits that clients are
//! written against, which are no settings, in `contract.rs`; small limits of one room beside its code. The whole
//! configuration is checked before a disk or a port is touched. Knows no other room: [`crate::app`] hands each room its
//! own few values.

pub mod contract;
mod kinds;
mod layers;
mod settings;
mod tokens;

pub use kinds::{Kind, Unit};
pub use layers::{Environment, Layer, RawSettings, RawValue};
use settings::Readings;
pub use settings::{Config, Durability, FileAccess, Key, LogFormat, SETTINGS, Setting, ShipCompression};
pub use tokens::{Role, Secret, Token, TokenSources};

/// What matters only to whoever serves.
const OF_SERVING: &[Key] = &[Key::listen, Key::token, Key::metrics_token, Key::read_token, Key::token_file];

/// All that is wrong with the configuration, each with the setting, its value and where it came from.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct ConfigError(pub Vec<String>);

impl Config {
    /// Checks all settings at once.
    pub fn check(raw: &RawSettings) -> Result<Self, ConfigError> {
        Self::check_all(raw, true)
    }

    fn check_all(raw: &RawSettings, is_serving: bool) -> Result<Self, ConfigError> {
        let mut raw = raw.clone();
        let (mut faulty, mut problems) = raw.set_unreadable_aside();
        let mut tell = |key, what: &str| {
            faulty.push(key);
            problems.push(raw.problem(key, what));
        };
        let mut readings = Readings::of(|key| raw.get(key).text, &mut tell);
        let sources = token_sources(&readings);
        let tokens = sources.read().unwrap_or_else(|faults| {
            let key = if sources.file().is_some() { Key::token_file } else { Key::token };
            faults.iter().for_each(|fault| tell(key, fault));
            Vec::new()
        });
        if !problems.is_empty() {
            // What the others contradict is told at once, too.
            faulty.iter().for_each(|key| raw.set_aside(*key));
            readings = Readings::of(|key| raw.get(key).text, |_, _| {});
        }
        let config = readings.complete(tokens, sources);
        problems.extend(config.iter().flat_map(|config| config.contradictions(&faulty, is_serving)));
        config.filter(|_| problems.is_empty()).ok_or(ConfigError(problems))
    }

    /// Checks the settings for what does not serve: it neither listens nor asks for a token, and may not be allowed to
    /// read the file of the tokens.
    pub fn check_for_tool(raw: &RawSettings) -> Result<Self, ConfigError> {
        let mut raw = raw.clone();
        // What is no value at all, nobody can have meant, whoever reads it.
        let (unreadable, _) = raw.clone().set_unreadable_aside();
        OF_SERVING.iter().filter(|key| !unreadable.contains(key)).for_each(|key| raw.set_aside(*key));
        Self::check(&raw)
    }

    /// Checks the settings for what asks a running hitlog: they tell where that listens and which token reads. A token
    /// that stands beside the file of them is enough, which not everybody may read who may read events. Whether there
    /// has to be one, the hitlog that is asked says.
    pub fn check_for_client(raw: &RawSettings) -> Result<Self, ConfigError> {
        let mut raw = raw.clone();
        let (unreadable, _) = raw.clone().set_unreadable_aside();
        let is_given = |key: &Key| raw.get(*key).layer != Layer::Default;
        if [Key::token, Key::read_token].iter().any(is_given) && !unreadable.contains(&Key::token_file) {
            raw.set_aside(Key::token_file);
        }
        Self::check_all(&raw, false)
    }

    /// The token to read events with: one that may do no more than that, if there is one.
    pub fn reading_token(&self) -> Option<&Secret> {
        let of = |role| self.tokens.iter().find(|token| token.role == role);
        of(Role::Read).or_else(|| of(Role::Admin)).map(|token| &token.secret)
    }

    /// The token for what only an admin may do, if there is one.
    pub fn admin_token(&self) -> Option<&Secret> {
        self.tokens.iter().find(|token| token.role == Role::Admin).map(|token| &token.secret)
    }

    /// Whether requests that would need a token are taken without one, from this machine only.
    pub fn is_protected_mode(&self) -> bool {
        self.tokens.is_empty()
    }

    /// What no two settings can say together; nothing of those that are faulty, whose values nobody knows.
    fn contradictions(&self, faulty: &[Key], is_serving: bool) -> Vec<String> {
        let mut found = Vec::new();
        let is_known = |keys: &[Key]| !keys.iter().any(|key| faulty.contains(key));
        if is_serving && self.is_protected_mode() && !self.listen.ip().is_loopback() && is_known(OF_SERVING) {
            found.push(format!(
                "listen = {}: without a token hitlog listens on this machine only (127.0.0.1 or [::1]), because \
                 anybody who reaches it could read every event. Set a token (16 bytes or more) with --token, \
                 HITLOG_TOKEN or token_file, or listen on 127.0.0.1",
                self.listen
            ));
        }
        if let (Some(tracker), Some(events)) = (&self.tracker_path, &self.events_path_alias)
            && [events.clone(), format!("{events}/batch")].contains(tracker)
        {
            found.push(format!(
                "tracker_path = {tracker}: that is where events_path_alias = {events} takes events; choose another"
            ));
        }
        // Told as it stands here, so that no name can be another than the value's.
        macro_rules! at_most {
            ($small:ident $(* $factor:literal)? <= $large:ident $(- $part:ident)?) => {
                let value = (self.$small as u64)$(.saturating_mul($factor))?;
                let limit = (self.$large as u64)$(.saturating_sub(self.$part as u64))?;
                if value > limit && is_known(&[Key::$small, Key::$large $(, Key::$part)?]) {
                    let small = concat!(stringify!($small) $(, " * ", $factor)?);
                    let large = concat!(stringify!($large) $(, " - ", stringify!($part))?);
                    found.push(format!(
                        "{small} = {value} is more than {large} = {limit}; lower the one or raise the other"
                    ));
                }
            };
        }
        // A batch that can never enter the queue would be answered "try again later" for ever.
        at_most!(batch_events_max <= queue_events_max);
        at_most!(small_body_bytes * 2 <= body_bytes_max);
        at_most!(small_answer_bytes * 2 <= answer_bytes_max);
        at_most!(event_bytes_max * 2 <= body_bytes_max - small_body_bytes);
        at_most!(batch_bytes_max * 3 <= body_bytes_max - small_body_bytes);
        at_most!(warm_connections_max <= active_connections_max);
        at_most!(batch_bytes_max * 2 <= queue_bytes_max);
        at_most!(wal_checkpoint_bytes <= wal_bytes_max);
        // The ids of a group are in memory at once, and must not push those of others out.
        at_most!(batch_events_max * 512 <= dedup_bytes_max);
        at_most!(group_events_max * 512 <= dedup_bytes_max);
        found
    }
}

/// Where the tokens come from: the settings that give one each, and the file.
fn token_sources(readings: &Readings) -> TokenSources {
    let given = [&readings.token, &readings.metrics_token, &readings.read_token];
    let file = readings.token_file.clone().flatten();
    TokenSources::new(given.into_iter().flatten().flatten().cloned().collect(), file)
}

#[cfg(test)]
mod tests;
