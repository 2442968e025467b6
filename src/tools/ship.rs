//! `hitlog ship`: how far a running hitlog has shipped its events, whether they are all there, and what is in the way.
//!
//! Asks over HTTP. Owns the words for people; `--json` prints what hitlog answers.

use std::time::Duration;

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

/// The longest answer.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How often it is looked whether a comparison has ended.
const VERIFY_POLL: Duration = Duration::from_millis(200);

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
}

#[derive(Deserialize)]
struct Dead {
    events: Vec<DeadEvent>,
    total: u64,
}

#[derive(Deserialize)]
struct DeadEvent {
    id: String,
    error: String,
    since: String,
}

/// Asks, and prints what there is to say. `Ok(false)` where somebody should do something.
pub fn run(client: &Client, action: ShipAction, json: bool) -> Outcome {
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| ToolError::Remote(format!("cannot start the runtime: {error}")))?;
    runtime.block_on(async {
        match action {
            ShipAction::Status => status(&get(client, "/api/v1/shipping").await?, json),
            ShipAction::Resume { dead, from_start } => {
                let path = format!("/api/v1/shipping/resume?dead={dead}&fromStart={from_start}");
                status(&read(client, client.post(&path, "application/json").await).await?, json)
            }
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

fn status(value: &Value, json: bool) -> Outcome {
    let status: Status = parsed(value)?;
    let is_well = status.paused.is_none() && status.dead_events == 0 && status.lost_ranges == 0;
    if json {
        print_json(value)?;
    } else {
        print(status.text().as_bytes())?;
    }
    Ok(is_well)
}

impl Status {
    fn text(&self) -> String {
        let mut lines = Vec::new();
        let mut line = |name: &str, value: String| lines.push(format!("{name:<12} {}", printable(&value)));
        line("state", self.state.clone());
        if let (Some(url), Some(table), Some(node)) = (&self.url, &self.table, self.node) {
            line("to", format!("{table} at {url}, as node {node}"));
        }
        let confirmed = pluralize(self.confirmed_events, "event");
        line("confirmed", confirmed);
        line("behind", format!("{}, {:.1} s", pluralize(self.lag_events, "event"), self.lag_seconds));
        for range in &self.open_ranges {
            let since = range.begun_at.as_ref().map_or_else(String::new, |at| format!(", since {at}"));
            let OpenRange { first_sequence, last_sequence, events, attempts, .. } = range;
            let tries = pluralize((*attempts).into(), "attempt");
            let events = pluralize(*events, "event");
            line("on its way", format!("sequences {first_sequence} to {last_sequence}, {events}, {tries}{since}"));
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
    let mut table = Table::new(&[("event", Align::Left), ("refused", Align::Left), ("why", Align::Left)]);
    for event in &dead.events {
        table.row([event.id.clone(), event.since.clone(), printable(&event.error).into_owned()]);
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
        if !self.told.is_empty() {
            let heads =
                [("node", Align::Right), ("sequences", Align::Left), ("here", Align::Right), ("there", Align::Right)];
            let mut table = Table::new(&heads);
            for of in &self.told {
                let span = format!("{} to {}", of.first_sequence, of.last_sequence);
                let counts = [of.events_here, of.events_there].map(|count| HumanCount(count).to_string());
                table.row([of.node.to_string(), span].into_iter().chain(counts));
            }
            text.push_str(&table.render());
        }
        if self.erasures_waiting > 0 {
            text.push_str(&format!(
                "{} not followed there yet: what they are of is there and not here\n",
                pluralize(self.erasures_waiting, "erasure")
            ));
        }
        text
    }
}
