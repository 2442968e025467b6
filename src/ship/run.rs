//! The thread that ships: what it does next.
//!
//! A session begins with a look at the target, sends first what is in the catalog and then what comes after it, at most
//! two ranges at a time, and ends when somebody has to do something. Then it begins anew when it is asked to, or by
//! itself now and then.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io::Read,
    path::Path,
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::{
    check::{self, Registered},
    client::{Client, Patience, Target},
    erase::{self, Following},
    flight::{Flight, Landed, Line},
    options::ShipOptions,
    plan,
    reading::{self, Builders, Cut, Limits},
    server::Server,
    trouble::Trouble,
    verify, wait,
};
use crate::{
    clock::now_ms,
    metrics::ShipMetrics,
    store::{Pause, Run, ShipChange, ShipRange, Shipping, VerifyWork},
};

/// Ranges on their way at once: while the server writes one, the next is read and sent.
const FLIGHTS_MAX: usize = 2;
/// How often it is looked, in a pause, whether what stood in the way is gone.
const PAUSE_LOOK: Duration = Duration::from_secs(300);
/// How often it is looked, while nothing is sent, whether events wait.
const BEHIND_LOOK: Duration = Duration::from_secs(1);

/// Most bytes that are read of a file with a password.
const PASSWORD_BYTES_MAX: u64 = 4_096;

/// The one who ships.
pub(super) struct Ship {
    shipping: Shipping,
    options: ShipOptions,
    metrics: Arc<ShipMetrics>,
    builders: Arc<Builders>,
    registered: Registered,
}

/// What a session has under way.
struct Session {
    line: Arc<Line>,
    /// Ranges of the catalog that are not on their way yet.
    waiting: VecDeque<ShipRange>,
    flights: JoinSet<Result<(u64, Landed), Trouble>>,
    masking: Following,
    removing: Following,
    verifying: JoinSet<()>,
    /// What was confirmed, and is noted with the next range.
    confirmed: Vec<u64>,
    /// Nothing more is cut before this time.
    cut_at: Instant,
}

impl Ship {
    pub(super) fn new(shipping: Shipping, options: ShipOptions, metrics: Arc<ShipMetrics>) -> Self {
        Self { shipping, options, metrics, builders: Arc::default(), registered: Registered::default() }
    }

    /// Ships until hitlog stops, or its storage has failed.
    pub(super) async fn run(&self) {
        let mut failed = 0;
        self.look_at_rest().await;
        loop {
            let begun = Instant::now();
            let Err(trouble) = self.session().await;
            self.end_verify(&trouble);
            if begun.elapsed() > PAUSE_LOOK {
                failed = 0;
            }
            match trouble {
                Trouble::End(why) => {
                    tracing::debug!("shipping ends: {why}");
                    return;
                }
                Trouble::Again | Trouble::Gone => {}
                Trouble::Pause(reason) => self.pause(reason).await,
                Trouble::Wait(why) | Trouble::Data(why) => {
                    failed += 1;
                    wait::tell(&self.shipping, &why);
                    self.rest(plan::pause(failed, rand::random())).await;
                }
            }
        }
    }

    /// Finds out since when events wait that are in no range yet: from before this start, perhaps.
    async fn look_at_rest(&self) {
        let after = self.shipping.look(|state| state.cut_up_to);
        let first_arrival = self.shipping.read(move |snapshot| reading::first_arrival(snapshot, after)).await;
        if let Ok(Some(first_arrival)) = first_arrival {
            self.shipping.tell(|state| state.now.rest_since = Some(first_arrival));
        }
    }

    async fn pause(&self, reason: String) {
        let is_new = self.shipping.tell(|state| {
            let is_new = state.now.paused.as_ref().is_none_or(|paused| paused.reason != reason);
            if is_new {
                state.now.paused = Some(Pause { reason: reason.clone(), since: now_ms() });
            }
            is_new
        });
        if is_new {
            tracing::error!(
                "shipping pauses: {reason}. Events are taken in as before, and wait on the disk. It is looked again \
                 every five minutes, and at once by `hitlog ship resume`"
            );
        }
        self.rest(PAUSE_LOOK).await;
    }

    /// Waits for so long, or until somebody wants something. When events come in meanwhile is noted.
    async fn rest(&self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.shipping.behind_since();
            tokio::select! {
                () = sleep_until(end.min(Instant::now() + BEHIND_LOOK)) => {}
                () = self.shipping.woken() => return,
            }
        }
    }

    async fn session(&self) -> Result<std::convert::Infallible, Trouble> {
        let (server, limits) = self.server()?;
        let held_at = Instant::now();
        let (about, registered_at) = check::check(&self.shipping, &self.options, &server, &self.registered).await?;
        self.look_at_dead()?;
        // What went wrong before is over, even where there is nothing left to ship.
        self.goes_on();
        let line = Line {
            shipping: self.shipping.clone(),
            server,
            limits,
            builders: Arc::clone(&self.builders),
            metrics: Arc::clone(&self.metrics),
            run_id: rand::random(),
            about,
            registered_at,
            held_at: Mutex::new(held_at),
        };
        self.reopen_lost(&line).await?;
        let waiting = self.shipping.look(|state| state.open.values().cloned().collect());
        let mut session = Session {
            line: Arc::new(line),
            waiting,
            flights: JoinSet::new(),
            masking: Following::new(),
            removing: Following::new(),
            verifying: JoinSet::new(),
            confirmed: Vec::new(),
            cut_at: Instant::now(),
        };
        loop {
            match self.step(&mut session).await {
                Ok(()) => {}
                Err(Trouble::Pause(words)) => return Err(Trouble::Pause(reason(&session.line, words).await)),
                Err(other) => return Err(other),
            }
        }
    }

    /// Tells that nothing is in the way any more, if something was.
    fn goes_on(&self) {
        let was_told = self.shipping.tell(|state| {
            state.now.last_error = None;
            (state.now.paused.take(), state.now.logged.take()) != (None, None)
        });
        if was_told {
            tracing::info!("shipping goes on");
        }
    }

    /// The server as it is configured, and how large and in which form it is sent ranges.
    fn server(&self) -> Result<(Server, Limits), Trouble> {
        let ShipOptions { url, user, password_file, database, table, ca_file, timeout, .. } = &self.options;
        let password = password_file.as_deref().map(read_password).transpose().map_err(Trouble::Pause)?;
        let target = Target::parse(url, Some(user), password.as_deref(), ca_file.clone()).map_err(Trouble::Pause)?;
        if target.shows_its_password() {
            let warning = "the password goes over the network without encryption: give ship_url with https";
            wait::warn_once(&self.shipping, warning.into());
        }
        let ShipOptions { rows_max, bytes_max, is_zstd, .. } = self.options;
        let limits = Limits { rows_max, bytes_max, is_zstd: is_zstd.unwrap_or(!target.is_loopback()) };
        let client = Client::new(target, Patience::default()).map_err(Trouble::Pause)?;
        Ok((Server::new(client, database, table, *timeout), limits))
    }

    /// Sends what can be sent, then waits until something has happened.
    async fn step(&self, session: &mut Session) -> Result<(), Trouble> {
        self.launch(session).await?;
        if !session.confirmed.is_empty() {
            let cut_up_to = self.shipping.look(|state| state.cut_up_to);
            self.note_cut(session, None, cut_up_to).await?;
        }
        let Session { line, masking, removing, .. } = session;
        let interval = self.options.interval;
        masking.begin(interval, || erase::mask_due(Arc::clone(line)));
        removing.begin(interval, || erase::take_out_due(Arc::clone(line), self.options.erasure_gather));
        self.verify(session);
        self.shipping.behind_since();
        let cut_at = (session.flights.len() < FLIGHTS_MAX).then_some(session.cut_at);
        let next = [cut_at, session.masking.due(), session.removing.due()].into_iter().flatten().min();
        tokio::select! {
            landed = session.flights.join_next(), if !session.flights.is_empty() => match landed {
                Some(Ok(landed)) => self.land(session, landed?)?,
                Some(Err(error)) => return Err(Trouble::Wait(format!("a range could not be sent: {error}"))),
                None => {}
            },
            masked = session.masking.ended(&self.shipping) => masked?,
            removed = session.removing.ended(&self.shipping) => removed?,
            () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
            () = self.shipping.woken() => {
                if self.shipping.look(|state| state.now.resume.is_some()) {
                    return Err(Trouble::Again);
                }
            }
        }
        Ok(())
    }

    /// Begins a comparison, if somebody has asked for one and none is under way.
    fn verify(&self, session: &mut Session) {
        if let Some(Err(error)) = session.verifying.try_join_next() {
            self.end_verify(&Trouble::Wait(format!("the comparison has failed: {error}")));
        }
        let is_deep = match self.shipping.look(|state| state.now.verify.clone()) {
            Some(VerifyWork::Asked(is_deep)) if session.verifying.is_empty() => is_deep,
            _ => return,
        };
        self.shipping.tell(|state| state.now.verify = Some(VerifyWork::Running(is_deep)));
        let line = Arc::clone(&session.line);
        session.verifying.spawn(async move {
            let work = match verify::verify(&line, is_deep).await {
                Ok(found) => VerifyWork::Done(found),
                Err(trouble) => VerifyWork::Failed(trouble.to_string()),
            };
            line.shipping.tell(|state| state.now.verify = Some(work));
        });
    }

    /// Tells whoever waits for a comparison that there is none; or begins it anew, where the session does.
    fn end_verify(&self, why: &Trouble) {
        self.shipping.tell(|state| {
            if let Some(VerifyWork::Asked(is_deep) | VerifyWork::Running(is_deep)) = state.now.verify {
                state.now.verify = Some(match why {
                    Trouble::Again => VerifyWork::Asked(is_deep),
                    why => VerifyWork::Failed(why.to_string()),
                });
            }
        });
    }

    /// Has as many ranges be on their way as may be.
    async fn launch(&self, session: &mut Session) -> Result<(), Trouble> {
        while session.flights.len() < FLIGHTS_MAX {
            if let Some(range) = session.waiting.pop_front() {
                // An attempt of an earlier session, or of an earlier run, may have arrived.
                let flight = Flight { range, payload: None, is_in_doubt: true };
                self.begin(session, flight);
                continue;
            }
            if Instant::now() < session.cut_at {
                return Ok(());
            }
            if let Some(flight) = self.cut(session).await? {
                self.begin(session, flight);
            }
        }
        Ok(())
    }

    fn begin(&self, session: &mut Session, flight: Flight) {
        let line = Arc::clone(&session.line);
        session.flights.spawn(async move { line.fly(flight).await });
    }

    /// Cuts the next range, and notes it with what was confirmed.
    async fn cut(&self, session: &mut Session) -> Result<Option<Flight>, Trouble> {
        let (after, node, last, is_inherited) = self.shipping.look(|state| {
            let after = state.cut_up_to;
            let node = state.node_of(after + 1).map_or(0, |node| node.node);
            let next = state.nodes.iter().map(|node| node.first_sequence).find(|first| *first > after + 1);
            (after, node, next.map_or(u64::MAX >> 1, |first| first - 1), state.is_inherited(after + 1))
        });
        let (limits, durable) = (session.line.limits, self.shipping.durable());
        match self.read_cut(&session.line, (after, last), node).await? {
            Cut::Nothing => {
                session.cut_at = Instant::now() + self.options.interval;
                Ok(None)
            }
            Cut::Empty(up_to) => {
                self.note_cut(session, None, up_to).await?;
                Ok(None)
            }
            Cut::Lost(run) => {
                let note = Trouble::Gone.to_string();
                let range = unsent(run, node);
                tracing::error!(first = run.first, last = run.last, "shipping: events can't be shipped: {note}");
                self.shipping.note(|| ShipChange::Lost(range.clone(), note.clone())).await?;
                Ok(None)
            }
            Cut::Range(run, (first_arrival, last_arrival), payload) => {
                let range = ShipRange {
                    first_arrival,
                    attempts: u32::from(!is_inherited),
                    begun_at: (!is_inherited).then(now_ms),
                    version: (!is_inherited).then(|| session.line.about.version.clone()),
                    ..payload.of_range(unsent(run, node))
                };
                if payload.rows < limits.rows_max && payload.bytes < limits.bytes_max as u64 && run.last >= durable {
                    session.cut_at = Instant::now() + self.options.interval;
                }
                self.note_cut(session, Some(range.clone()), run.last).await?;
                self.shipping.tell(|state| state.now.rest_since = Some(last_arrival));
                Ok(Some(Flight { range, payload: Some(*payload), is_in_doubt: is_inherited }))
            }
        }
    }

    /// Cuts the next range after a sequence, up to another, of one node.
    async fn read_cut(&self, line: &Line, span: (u64, u64), node: u32) -> Result<Cut, Trouble> {
        let (limits, builders) = (line.limits, Arc::clone(&line.builders));
        Ok(self.shipping.read(move |snapshot| reading::cut(snapshot, span, node, limits, &builders)).await?)
    }

    /// Takes ranges up again that were lost, and whose segments are here again.
    async fn reopen_lost(&self, line: &Line) -> Result<(), Trouble> {
        for lost in self.shipping.lost().await? {
            match self.found_of(line, &lost).await {
                Ok((with, _)) if with.is_empty() => {}
                Ok((with, rest)) => {
                    let (first, last) = (lost.first, lost.last);
                    tracing::info!(first, last, "events that were lost are here again: shipping them");
                    let change = || ShipChange::Found { first: lost.first, with: with.clone(), lost: rest.clone() };
                    self.shipping.note(change).await?;
                }
                // The others need not wait for this one.
                Err(Trouble::Wait(why)) => wait::tell(&self.shipping, &why),
                Err(other) => return Err(other),
            }
        }
        Ok(())
    }

    /// What of a lost range is here again, as ranges, and what is not.
    async fn found_of(&self, line: &Line, lost: &ShipRange) -> Result<(Vec<ShipRange>, Vec<ShipRange>), Trouble> {
        let (mut after, mut with, mut rest) = (lost.first - 1, Vec::new(), Vec::new());
        while after < lost.last {
            let node = self.shipping.look(|state| state.node_of(after + 1).map_or(0, |node| node.node));
            match self.read_cut(line, (after, lost.last), node).await? {
                Cut::Nothing => {
                    // Of a segment that is not known: it is behind all that are here.
                    rest.push(ShipRange::unsent(0, (after + 1, lost.last), node));
                    after = lost.last;
                }
                Cut::Lost(run) => {
                    after = run.last;
                    rest.push(unsent(run, node));
                }
                Cut::Empty(up_to) => after = up_to,
                Cut::Range(run, (first_arrival, _), payload) => {
                    after = run.last;
                    // Some of it may have arrived before it was lost, so it counts as sent long ago.
                    with.push(ShipRange {
                        epoch: lost.epoch + 1,
                        first_arrival,
                        begun_at: Some(0),
                        ..payload.of_range(unsent(run, node))
                    });
                    line.builders.take_back(*payload);
                }
            }
        }
        Ok((with, rest))
    }

    /// Notes what was confirmed and what comes next, in one transaction.
    async fn note_cut(&self, session: &mut Session, opened: Option<ShipRange>, cut_up_to: u64) -> Result<(), Trouble> {
        let confirmed = std::mem::take(&mut session.confirmed);
        let (events, bytes) = self.shipping.look(|state| {
            let of = confirmed.iter().filter_map(|first| state.open.get(first));
            of.fold((0, 0), |(events, bytes), range| (events + range.rows, bytes + range.bytes))
        });
        let change = || ShipChange::Cut { confirmed: confirmed.clone(), opened: opened.clone(), cut_up_to };
        self.shipping.note(change).await?;
        self.metrics.events.increment(events);
        self.metrics.bytes.increment(bytes);
        Ok(())
    }

    fn land(&self, session: &mut Session, (first, landed): (u64, Landed)) -> Result<(), Trouble> {
        self.goes_on();
        match landed {
            Landed::Confirmed => session.confirmed.push(first),
            // Before all others, so that few are open however many events are refused.
            Landed::Split(halves) => halves.into_iter().rev().for_each(|half| session.waiting.push_front(half)),
            Landed::Lost => {}
            Landed::Dead => self.look_at_dead()?,
        }
        Ok(())
    }

    /// Pauses where the target refuses more events than somebody has allowed.
    fn look_at_dead(&self) -> Result<(), Trouble> {
        let dead = self.shipping.look(|state| state.dead);
        if dead <= self.options.dead_max {
            return Ok(());
        }
        Err(Trouble::Pause(format!(
            "the target has refused {dead} events, each by itself: `hitlog ship dead` shows why. Mend that, then \
             `hitlog ship resume --dead` sends them again, or raise ship_dead_max"
        )))
    }
}

/// Why nothing is sent: the server's words say what it does not take, and a look at the table says what mends it.
async fn reason(line: &Line, words: String) -> String {
    match check::look(&line.shipping, &line.server).await {
        Err(Trouble::Pause(reason)) => reason,
        _ => words,
    }
}

/// A range of which nothing is sent yet.
fn unsent(Run { segment, first, last }: Run, node: u32) -> ShipRange {
    ShipRange::unsent(segment, (first, last), node)
}

/// The first line of the file with the password.
fn read_password(path: &Path) -> Result<String, String> {
    let path_shown = path.display();
    // Of a pipe nobody knows when there is anything to read.
    match fs::metadata(path) {
        Ok(of) if !of.is_file() => return Err(format!("ship_password_file {path_shown} is no file: name one")),
        Ok(_) | Err(_) => {}
    }
    let read = File::open(path).and_then(|file| {
        let mut text = String::new();
        file.take(PASSWORD_BYTES_MAX).read_to_string(&mut text).map(|_| text)
    });
    let text = read.map_err(|error| {
        format!("ship_password_file {path_shown} cannot be read: {error}. Let hitlog's user read it")
    })?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}
