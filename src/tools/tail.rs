//! `hitlog tail`: the events of a website as they come in, from a running hitlog.
//!
//! It is read as lines of JSON and goes on by itself after whatever cuts it, behind the last line that was printed; so
//! nothing is shown twice and nothing left out. Lines of events go to standard output, everything else that there is to
//! say to whoever started it. Memory is bounded by the longest line: what is not printed yet is not read.

mod bookmark;
mod line;
mod show;
mod trouble;
mod website;

use std::{ffi::OsString, io, sync::Arc, time::Duration};

use hyper::{
    StatusCode,
    header::{CONTENT_TYPE, HeaderName},
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

pub use self::bookmark::Bookmark;
use self::{
    bookmark::Page,
    line::{Gap, Line, Lines},
    trouble::{Outage, Trouble},
    website::Site,
};
use super::{
    Outcome, ToolError,
    client::{Answer, Client, Refusal},
    table::printable,
};
use crate::command::flag;

const NDJSON: &str = "application/x-ndjson";
/// Says which position the answer begins behind.
const POSITION: HeaderName = HeaderName::from_static("hitlog-position");
/// How often to look whether somebody reads what is printed.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// What to follow, and how.
#[derive(Debug)]
pub struct TailOptions {
    /// Asks the hitlog.
    pub client: Client,
    /// Its URL, if somebody has typed one, for the command that goes on.
    pub url: Option<String>,
    /// The website's id, tracking code or domain; without one there must be a single website.
    pub website: Option<String>,
    /// The only type of events that is shown.
    pub event_type: Option<String>,
    /// The position to begin behind, or `start`; without one only what comes in from now on is shown.
    pub after: Option<String>,
    /// Prints the lines as they come, for programs.
    pub json: bool,
    /// Tells what is no event.
    pub tell: fn(&str),
    /// Where it is, for whoever ends the process.
    pub bookmark: Arc<Bookmark>,
}

/// Prints events until something ends it that no further try could help against.
pub fn run(options: &TailOptions) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
    let runtime = runtime.map_err(|error| ToolError::Remote(format!("cannot start the runtime: {error}")))?;
    let ended = runtime.block_on(async {
        tokio::select! {
            ended = follow(options) => ended,
            () = nobody_reads() => Err(ToolError::OutputClosed),
        }
    });
    // A search for an address may take longer than anybody wants to wait.
    runtime.shutdown_background();
    ended.map_err(|error| match (error, options.bookmark.command()) {
        (ToolError::OutputClosed, _) => ToolError::OutputClosed,
        (error, Some(go_on)) => ToolError::CutShort { error: Box::new(error), go_on },
        (error, None) => error,
    })
}

async fn follow(options: &TailOptions) -> Outcome {
    let mut outage = Outage::new(options.tell);
    let site = loop {
        match website::choose(&options.client, options.website.as_deref()).await {
            Ok(site) => break site,
            Err(trouble) => outage.sit_out(trouble).await?,
        }
    };
    let mut follower = Follower { options, site, outage };
    loop {
        let trouble = match follower.connect().await {
            Ok(answer) => follower.read(answer).await,
            Err(trouble) => trouble,
        };
        follower.outage.sit_out(trouble).await?;
    }
}

struct Follower<'a> {
    options: &'a TailOptions,
    site: Site,
    outage: Outage,
}

impl Follower<'_> {
    /// Asks for what comes behind the place where it is.
    async fn connect(&mut self) -> Result<Answer, Trouble> {
        let TailOptions { client, bookmark, .. } = self.options;
        let place = bookmark.position();
        let after = place.as_deref().or(self.options.after.as_deref());
        let path = self.path(after);
        let answer = client.get(&path, NDJSON).await.map_err(|error| Trouble::of_client(client, &error))?;
        if !answer.status().is_success() {
            let refusal = answer.refusal().await;
            return Err(if place.is_some() {
                self.refused_again(refusal)
            } else {
                Trouble::of_refusal(client, refusal)
            });
        }
        let kind = answer.header(CONTENT_TYPE).unwrap_or("nothing of a known type");
        let begins_after = answer.header(POSITION);
        let (true, Some(begins_after)) = (kind.starts_with(NDJSON), begins_after) else {
            return Err(Trouble::Final(ToolError::Remote(format!(
                "{} answers with {}, which is no tail of hitlog's: is it hitlog that listens there, and of this \
                 version?",
                client.base(),
                printable(kind)
            ))));
        };
        if place.is_none() {
            bookmark.begin(self.words(), begins_after);
        }
        self.outage.end();
        Ok(answer)
    }

    /// What follows from a refusal after all went well before. Whoever started it has given no bad argument.
    fn refused_again(&self, refusal: Refusal) -> Trouble {
        if !refusal.is_in_known_words && refusal.status.is_client_error() {
            // Of a proxy, which may lead elsewhere for a while.
            return Trouble::Gone(format!("{} {}", self.options.client.base(), refusal.text));
        }
        let is_bad_place = refusal.status == StatusCode::BAD_REQUEST;
        if is_bad_place || refusal.status == StatusCode::NOT_FOUND {
            // To go on from there would be refused, too.
            self.options.bookmark.close();
        }
        match Trouble::of_refusal(&self.options.client, refusal) {
            Trouble::Final(error) if is_bad_place => Trouble::Final(ToolError::Remote(format!(
                "{error}. The place where it was is not known there any more: give --after=start for all that is kept, \
                 or no --after for what comes in from now on"
            ))),
            other => other,
        }
    }

    fn path(&self, after: Option<&str>) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.append_pair("trackingCode", &self.site.tracking_code);
        let others = [("eventType", self.options.event_type.as_deref()), ("after", after)];
        query.extend_pairs(others.into_iter().filter_map(|(name, value)| Some((name, value?))));
        format!("/api/v1/events/tail?{}", query.finish())
    }

    /// The words of the command that goes on, without the position. The website is always named: another may be there
    /// by then.
    fn words(&self) -> Vec<OsString> {
        let TailOptions { url, website, event_type, json, .. } = self.options;
        let website = website.as_deref().unwrap_or(&self.site.tracking_code);
        let mut words = vec!["tail".into(), flag("website", website)];
        words.extend(event_type.iter().map(|event_type| flag("type", event_type)));
        words.extend(json.then(|| "--json".into()));
        words.extend(url.iter().map(|url| flag("url", url)));
        words
    }

    /// Prints what comes, until nothing does.
    async fn read(&mut self, mut answer: Answer) -> Trouble {
        let client = &self.options.client;
        let mut lines = Lines::default();
        loop {
            let bytes = match answer.next_bytes().await {
                Ok(Some(bytes)) => bytes,
                Ok(None) => return Trouble::Gone(format!("{} has ended the connection", client.base())),
                Err(error) => return Trouble::of_client(client, &error),
            };
            self.outage.forget_tries();
            let mut page = Page::new(&self.options.bookmark);
            let taken = lines.push(&bytes, |line| self.take(line, &mut page));
            // What came before a fault is as good as ever.
            if let Err(trouble) = page.print().map_err(Trouble::from).and(taken) {
                return trouble;
            }
        }
    }

    /// Takes a line in. A goodbye is trouble, too.
    fn take(&self, text: &[u8], page: &mut Page<'_>) -> Result<(), Trouble> {
        let TailOptions { json, tell, bookmark, .. } = self.options;
        let as_it_came = || [text, b"\n"].concat();
        match Line::parse(text)? {
            Line::Heartbeat => {}
            Line::Event { position, .. } if *json => page.add(&as_it_came(), &position)?,
            Line::Event { position, event } => page.add(&show::line(&event), &position)?,
            Line::Gap { position, .. } if *json => page.add(&as_it_came(), &position)?,
            Line::Gap { position, gap } => {
                page.print()?;
                tell(&format!("hitlog: {}", in_words(&gap)));
                bookmark.move_to(&position);
            }
            Line::Bye { position, reason } => {
                page.print()?;
                bookmark.move_to(&position);
                return Err(self.goodbye(&reason));
            }
        }
        Ok(())
    }

    fn goodbye(&self, reason: &str) -> Trouble {
        let base = self.options.client.base();
        match reason {
            "deleted" => {}
            // The next answer says more.
            "token" => return Trouble::Gone(format!("{base} takes the token no more")),
            _ => return Trouble::Gone(format!("{base} stops")),
        }
        self.options.bookmark.close();
        let domain = printable(&self.site.domain);
        Trouble::Final(ToolError::Remote(format!("the website {domain} was deleted, and its events with it")))
    }
}

fn in_words(gap: &Gap<'_>) -> String {
    let why = match &*gap.reason {
        "retention" => "they were past their retention".to_owned(),
        "damage" => "their segment is damaged, which `hitlog check` tells more of".to_owned(),
        other => printable(other).into_owned(),
    };
    format!("events from {} to {} are not there any more: {why}", printable(&gap.from), printable(&gap.to))
}

/// Waits until nobody reads standard output any more. Without a look, that would be known only when there is something
/// to print.
async fn nobody_reads() {
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        let stdout = io::stdout();
        let mut output = [PollFd::new(&stdout, PollFlags::empty())];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        if poll(&mut output, Some(&at_once)).is_ok() && output[0].revents().contains(PollFlags::ERR) {
            return;
        }
    }
}
