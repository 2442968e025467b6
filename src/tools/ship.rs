//! `hitlog ship`: how far a running hitlog has shipped its events, whether they are all there, and what is in the way.
//!
//! Asks over HTTP. Owns the words for people; `--json` prints what hitlog answers.

use std::time::{Duration, Instant};

use hyper::header::CONTENT_TYPE;
use indicatif::HumanCount;
use serde::Deserialize;
use serde_json::Value;
use tokio::{runtime, time::sleep};

use super::{
    Outcome, ToolError,
    client::{Client, ClientError},
    print, print_json,
    table::{Align, Table, pluralize, printable},
};

/// Where hitlog tells how far it is.
const STATUS_PATH: &str = "/api/v1/shipping";
/// The longest answer.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How often it is looked whether a comparison has ended.
const VERIFY_POLL: Duration = Duration::from_millis(200);
/// How long what comes of being asked to go on is waited for.
const RESUME_WAITS: Duration = Duration::from_secs(15);
/// How far the target may be behind, while something goes wrong, before somebody should look.
const LAG_SECONDS_MAX: f64 = 600.0;

/// What is asked of shipping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShipAction {
    /// How far it is.
    Status,
    /// Whether all that was confirmed is there; of all that is in the events, if this is true.
    Verify(bool),
    /// To go on.
    Resume {
        /// With the events that the target has refused.
        dead: bool,
        /// From the beginning of all that is kept.
        from_start: bool,
    },
    /// Which events the target refuses.
    Dead,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    state: String,
    configured_url: Option<String>,
    configured_table: Option<String>,
    url: Option<String>,
    table: Option<String>,
    node: Option<u32>,
    lag_events: u64,
    lag_seconds: f64,
    confirmed_events: u64,
    open_ranges: Vec<OpenRange>,
    dead_events: u64,
    lost_ranges: u64,
    erasures_waiting: u64,
    erasures_masked: u64,
    paused: Option<Said>,
    last_error: Option<Said>,
    last_verify: Option<LastVerify>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OpenRange {
    first_sequence: u64,
    last_sequence: u64,
    events: u64,
    attempts: u32,
    begun_at: Option<String>,
}

#[derive(Deserialize)]
struct Said {
    message: String,
    at: String,
}

#[derive(Deserialize)]
struct LastVerify {
    differences: u64,
    at: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Verified {
    state: String,
    message: Option<String>,
    is_deep: bool,
    ranges: u64,
    events: u64,
    differences: u64,
    erasures_waiting: u64,
    told: Vec<Difference>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Difference {
    node: u32,
    first_sequence: u64,
    last_sequence: u64,
    events_here: u64,
    events_there: u64,
    missing: Option<Sequences>,
    extra: Option<Sequences>,
    doubled: Option<Sequences>,
    changed: Option<Sequences>,
}

#[derive(Deserialize)]
struct Sequences {
    count: u64,
    first: Vec<u64>,
}

#[derive(Deserialize)]
struct Dead {
    events: Vec<DeadEvent>,
    total: u64,
}

#[derive(Deserialize)]
struct DeadEvent {
    id: String,
    sequence: u64,
    error: String,
    since: String,
}

/// Asks, and prints what there is to say. `Ok(false)` where somebody should do something.
pub fn run(client: &Client, action: ShipAction, json: bool) -> Outcome {
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| ToolError::Remote(format!("cannot start the runtime: {error}")))?;
    runtime.block_on(async {
        match action {
            ShipAction::Status => {
                let value = get(client, STATUS_PATH).await?;
                let status: Status = parsed(&value)?;
                status.show(&value, json)?;
                Ok(status.is_well())
            }
            ShipAction::Resume { dead, from_start } => resume(client, dead, from_start, json).await,
            ShipAction::Dead => dead(&get(client, "/api/v1/shipping/dead").await?, json),
            ShipAction::Verify(is_deep) => verify(client, is_deep, json).await,
        }
    })
}

async fn get(client: &Client, path: &str) -> Result<Value, ToolError> {
    read(client, client.get(path, "application/json").await).await
}

async fn read(client: &Client, answer: Result<super::client::Answer, ClientError>) -> Result<Value, ToolError> {
    let base = client.base().to_string();
    let remote = |error: ClientError| ToolError::Remote(format!("{base}: {error}; does hitlog run there?"));
    let mut answer = answer.map_err(remote)?;
    if !answer.status().is_success() {
        return Err(ToolError::Remote(format!("{base} {}", answer.refusal().await.text)));
    }
    let is_json = answer.header(CONTENT_TYPE).is_some_and(|kind| kind.starts_with("application/json"));
    let bytes = answer.read(ANSWER_BYTES_MAX).await.map_err(remote)?;
    let value = serde_json::from_slice(&bytes).ok().filter(|_| is_json);
    value.ok_or_else(|| ToolError::Remote(format!("{base} answers in words that are not hitlog's")))
}

fn parsed<T: for<'a> Deserialize<'a>>(value: &Value) -> Result<T, ToolError> {
    T::deserialize(value)
        .map_err(|error| ToolError::Remote(format!("the hitlog that runs is of another version: {error}")))
}

/// Asks to go on, and waits for what comes of it. `Ok(true)` where it goes on.
async fn resume(client: &Client, dead: bool, from_start: bool, json: bool) -> Outcome {
    let before: Status = parsed(&get(client, STATUS_PATH).await?)?;
    let path = format!("/api/v1/shipping/resume?dead={dead}&fromStart={from_start}");
    let mut value = read(client, client.post(&path, "application/json").await).await?;
    let begun = Instant::now();
    loop {
        sleep(VERIFY_POLL).await;
        value = get(client, STATUS_PATH).await.unwrap_or(value);
        let status: Status = parsed(&value)?;
        if status.is_settled_since(&before, dead) || begun.elapsed() >= RESUME_WAITS {
            status.show(&value, json)?;
            return Ok(status.goes_on() && !(dead && status.dead_events > 0));
        }
    }
}

impl Status {
    fn show(&self, value: &Value, json: bool) -> Result<(), ToolError> {
        if json { print_json(value) } else { print(self.text().as_bytes()) }
    }

    /// Whether nobody has to do anything.
    fn is_well(&self) -> bool {
        let is_away = self.last_error.is_some() && self.lag_seconds > LAG_SECONDS_MAX;
        let differs = self.last_verify.as_ref().is_some_and(|last| last.differences > 0);
        let forgets_erasures = self.state == "off" && self.erasures_waiting > 0;
        let is_clean = self.paused.is_none() && self.dead_events == 0 && self.lost_ranges == 0;
        is_clean && !is_away && !differs && !forgets_erasures
    }

    fn goes_on(&self) -> bool {
        self.state == "shipping"
    }

    /// Whether it is known what has come of being asked to go on: a new pause, a new error, or that it goes on; with
    /// refused events, once they are sent or refused again.
    fn is_settled_since(&self, before: &Self, dead: bool) -> bool {
        let is_new = |now: &Option<Said>, before: &Option<Said>| {
            now.as_ref().map(|said| &said.at) != before.as_ref().map(|said| &said.at)
        };
        let has_new_error = is_new(&self.last_error, &before.last_error);
        if self.paused.is_some() {
            return has_new_error || is_new(&self.paused, &before.paused);
        }
        if self.last_error.is_some() {
            return has_new_error;
        }
        !dead || self.dead_events > 0 || self.open_ranges.is_empty()
    }

    /// Where to, as it is configured; and where it went so far, if that was elsewhere.
    fn to(&self) -> Vec<(&'static str, String)> {
        let of =
            |url: &Option<String>, table: &Option<String>| Some(format!("{} at {}", table.as_ref()?, url.as_ref()?));
        let node = self.node.map_or_else(String::new, |node| format!(", as node {node}"));
        let configured = of(&self.configured_url, &self.configured_table);
        let so_far = of(&self.url, &self.table).filter(|so_far| configured.as_ref() != Some(so_far));
        let to = configured.map(|to| ("to", if so_far.is_none() { to + &node } else { to }));
        let so_far = so_far.map(|so_far| ("elsewhere", format!("shipped so far to {so_far}{node}")));
        to.into_iter().chain(so_far).collect()
    }

    fn text(&self) -> String {
        let mut lines = Vec::new();
        let mut line = |name: &str, value: String| lines.push(format!("{name:<12} {}", printable(&value)));
        line("state", self.state.clone());
        self.to().into_iter().for_each(|(name, value)| line(name, value));
        let confirmed = pluralize(self.confirmed_events, "event");
        line("confirmed", confirmed);
        line("behind", format!("{}, {:.1} s", pluralize(self.lag_events, "event"), self.lag_seconds));
        for range in &self.open_ranges {
            let since = range.begun_at.as_ref().map_or_else(String::new, |at| format!(", since {at}"));
            let OpenRange { first_sequence, last_sequence, events, attempts, .. } = range;
            let tries = pluralize((*attempts).into(), "attempt");
            let events = pluralize(*events, "event");
            let name = if self.goes_on() { "on its way" } else { "to be sent" };
            line(name, format!("sequences {first_sequence} to {last_sequence}, {events}, {tries}{since}"));
        }
        if self.erasures_waiting + self.erasures_masked > 0 {
            line("erasures", format!("{} waiting, {} masked there", self.erasures_waiting, self.erasures_masked));
        }
        if self.dead_events > 0 {
            line("refused", format!("{}: `hitlog ship dead`", pluralize(self.dead_events, "event")));
        }
        if self.lost_ranges > 0 {
            line("lost", format!("{}: hitlog's log says which", pluralize(self.lost_ranges, "range")));
        }
        match &self.last_verify {
            Some(LastVerify { differences, at }) => {
                line("compared", format!("{at}: {}", pluralize(*differences, "difference")));
            }
            None => line("compared", "never: `hitlog ship verify`".into()),
        }
        if let Some(Said { message, at }) = &self.paused {
            line("paused", format!("since {at}: {message}"));
        }
        if let Some(Said { message, at }) = &self.last_error {
            line("last error", format!("{at}: {message}"));
        }
        lines.join("\n") + "\n"
    }
}

fn dead(value: &Value, json: bool) -> Outcome {
    let dead: Dead = parsed(value)?;
    if json {
        print_json(value)?;
        return Ok(dead.total == 0);
    }
    let mut table = Table::new(&[
        ("event", Align::Left),
        ("sequence", Align::Right),
        ("refused", Align::Left),
        ("why", Align::Left),
    ]);
    for event in &dead.events {
        let error = printable(&event.error).into_owned();
        table.row([event.id.clone(), event.sequence.to_string(), event.since.clone(), error]);
    }
    let shown = dead.events.len() as u64;
    let rest =
        if shown < dead.total { format!("and {} more\n", HumanCount(dead.total - shown)) } else { String::new() };
    let text = if dead.total == 0 { "the target refuses no event\n".into() } else { table.render() + &rest };
    print(text.as_bytes())?;
    Ok(dead.total == 0)
}

async fn verify(client: &Client, is_deep: bool, json: bool) -> Outcome {
    let path = format!("/api/v1/shipping/verify?deep={is_deep}");
    let mut value = read(client, client.post(&path, "application/json").await).await?;
    let found = loop {
        let found: Verified = parsed(&value)?;
        if found.state != "running" {
            break found;
        }
        sleep(VERIFY_POLL).await;
        value = get(client, "/api/v1/shipping/verify").await?;
    };
    if json {
        print_json(&value)?;
    } else {
        print(found.text().as_bytes())?;
    }
    Ok(found.state == "done" && found.differences == 0)
}

impl Verified {
    fn text(&self) -> String {
        if self.state != "done" {
            let why = self.message.as_deref().unwrap_or("hitlog was started anew meanwhile; ask once more");
            return format!("not compared: {}\n", printable(why));
        }
        let what = if self.is_deep { ", with all that is in them" } else { "" };
        let mut text = format!(
            "{} in {} compared{what}: {}\n",
            pluralize(self.events, "event"),
            pluralize(self.ranges, "range"),
            if self.differences == 0 {
                "all are there, once".into()
            } else {
                pluralize(self.differences, "difference")
            }
        );
        let is_of_one = self.told.iter().all(|of| of.node == self.told[0].node);
        for of in &self.told {
            let node = if is_of_one { String::new() } else { format!("node {}, ", of.node) };
            text.push_str(&format!("{node}{}\n", of.text()));
        }
        let untold = self.differences.saturating_sub(self.told.len() as u64);
        if untold > 0 {
            text.push_str(&format!("and {} more\n", HumanCount(untold)));
        }
        if self.erasures_waiting > 0 {
            text.push_str(&format!(
                "{} not followed there yet: what they are of is there and not here\n",
                pluralize(self.erasures_waiting, "erasure")
            ));
        }
        if self.differences > 0 {
            text.push_str("what to do next: see \"When verify finds differences\" in docs/clickhouse.md\n");
        }
        text
    }
}

impl Difference {
    fn text(&self) -> String {
        let kinds = [
            ("missing", &self.missing),
            ("there and not here", &self.extra),
            ("twice", &self.doubled),
            ("changed", &self.changed),
        ];
        let kind = |(name, of): (&str, &Option<Sequences>)| {
            let Sequences { count, first } = of.as_ref().filter(|of| of.count > 0)?;
            let more = if first.len() as u64 == *count { "" } else { ", ..." };
            let first: Vec<_> = first.iter().map(ToString::to_string).collect();
            Some(format!("{} {name} ({}{more})", HumanCount(*count), first.join(", ")))
        };
        let mut what: Vec<_> = kinds.into_iter().filter_map(kind).collect();
        if what.is_empty() {
            what.push(format!("{} here, {} there", HumanCount(self.events_here), HumanCount(self.events_there)));
        }
        format!("{} to {}: {}", self.first_sequence, self.last_sequence, what.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn status(changes: &Value) -> Status {
        let mut value = json!({
            "state": "shipping", "configuredUrl": "http://new", "configuredTable": "d.e", "url": "http://new",
            "table": "d.e", "node": 7, "lagEvents": 0, "lagSeconds": 0.0, "confirmedEvents": 1, "openRanges": [],
            "deadEvents": 0, "lostRanges": 0, "erasuresWaiting": 0, "erasuresMasked": 0, "paused": null,
            "lastError": null, "lastVerify": {"differences": 0, "at": "then"},
        });
        for (name, change) in changes.as_object().unwrap() {
            value[name] = change.clone();
        }
        parsed(&value).unwrap()
    }

    #[test]
    fn somebody_should_act_where_nothing_mends_itself() {
        let said = json!({"message": "no", "at": "then"});
        for (changes, is_well) in [
            (json!({}), true),
            (json!({"paused": said}), false),
            (json!({"deadEvents": 1}), false),
            (json!({"lostRanges": 1}), false),
            (json!({"lastVerify": {"differences": 1, "at": "then"}}), false),
            (json!({"state": "waiting", "lastError": said, "lagSeconds": 599.0}), true),
            (json!({"state": "waiting", "lastError": said, "lagSeconds": 601.0}), false),
            (json!({"lagSeconds": 601.0}), true),
            (json!({"erasuresWaiting": 1}), true),
            (json!({"state": "off", "erasuresWaiting": 1}), false),
        ] {
            assert_eq!(status(&changes).is_well(), is_well, "{changes}");
        }
    }

    #[test]
    fn the_target_is_told_as_configured_and_where_it_was() {
        let check = |changes: Value, told: &[&str], untold: &str| {
            let text = status(&changes).text();
            assert!(told.iter().all(|part| text.contains(part)) && !text.contains(untold), "{changes}: {text}");
        };
        check(json!({}), &["to           d.e at http://new, as node 7\n"], "elsewhere");
        check(json!({"url": null, "table": null, "node": null}), &["d.e at http://new\n"], "elsewhere");
        check(
            json!({"url": "http://old"}),
            &["d.e at http://new\n", "shipped so far to d.e at http://old, as node 7\n"],
            "!",
        );
        let range = json!([{"firstSequence": 1, "lastSequence": 2, "events": 2, "attempts": 1, "begunAt": null}]);
        check(json!({"openRanges": range}), &["on its way   sequences 1 to 2"], "to be sent");
        check(json!({"openRanges": range, "state": "paused"}), &["to be sent   sequences 1 to 2"], "on its way");
    }
}
