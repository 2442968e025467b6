//! What all questions share: what is known of each website, and what was read of sealed segments.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use parking_lot::{Mutex, MutexGuard};

use super::{
    cache::Cache,
    question::{NumbersQuestion, NumbersReply, Span},
    scene::{Piece, Scene},
    sealed::Kept,
    sealed_sums::add_sealed,
    site::{Progress, Site},
    spans::{Quarters, Sums},
    sum::Sign,
};
use crate::{
    clock::now_ms,
    metrics::{ReadRefused, StoreMetrics},
    store::{
        error::ReadError,
        options::NumbersOptions,
        priority::Aside,
        read::snapshot::Snapshot,
        rollup::{Own, first_whole_quarter},
        segments::{Content, ReaderInterrupt, Segment, Segments, WatchState},
    },
};

/// How long an answer waits for events that were not counted yet.
const WAIT_MAX: Duration = Duration::from_millis(200);
/// How long a question waits for another one about the same website: it holds a reader meanwhile.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(2);
/// How long what is known of a website's newest events is kept after the last question.
const IDLE_MAX: Duration = Duration::from_secs(300);
/// How often it is looked whether something is kept for longer than that.
const SWEEP: Duration = Duration::from_secs(60);
/// How long the thread that reads behind a question may do so at once.
const READ_BEHIND_MAX: Duration = Duration::from_secs(60);
/// For how long it keeps a website to itself, while questions wait.
const READ_BEHIND_STEP: Duration = Duration::from_millis(50);

/// What is kept between questions, of all websites together up to a number of bytes.
pub(super) struct Shared {
    sites: Mutex<HashMap<Arc<str>, Arc<Entry>>>,
    pub(super) cache: Cache,
    pub(super) options: NumbersOptions,
    metrics: Arc<StoreMetrics>,
}

/// What is known of a website.
pub(super) struct Entry {
    site: Mutex<Site>,
    bytes: AtomicUsize,
    asked_at: Mutex<Instant>,
}

/// What a website has, at the moment of a snapshot.
pub(super) struct Pieces {
    pub(super) sealed: Vec<Piece>,
    pub(super) open: Vec<(Arc<Segment>, u64)>,
}

impl Shared {
    pub(super) fn new(options: NumbersOptions, metrics: Arc<StoreMetrics>) -> Self {
        Self { sites: Mutex::default(), cache: Cache::default(), options, metrics }
    }

    pub(super) fn ask(
        &self,
        snapshot: &Snapshot<'_>,
        question: &NumbersQuestion,
        lists: &[Vec<Span>],
    ) -> Result<Vec<NumbersReply>, ReadError> {
        let as_of = now_ms();
        let expired_before = first_whole_quarter(snapshot.expired_before);
        let mut sums: Vec<Sums> = lists.iter().map(|spans| Sums::new(spans, expired_before)).collect();
        let entry = self.entry(&question.website_id);
        let pieces = pieces(snapshot, &question.website_id);
        let scene = self.scene(snapshot, question, &pieces, expired_before);
        let mut site = lock(&entry, snapshot)?;
        let progress = site.catch_up(&scene);
        let added = match &progress {
            Ok(_) => sums.iter_mut().try_for_each(|sums| site.add_to(&scene, &question.asked, sums)),
            Err(_) => Ok(()),
        };
        self.note_bytes(&entry, &site);
        drop(site);
        let Progress { is_complete, as_of: behind_as_of } = progress?;
        added?;
        let mut replies = Vec::with_capacity(lists.len());
        for mut sums in sums {
            add_sealed(&scene, question, &mut sums, self.options.exact_visits_max)?;
            let (spans, visitors_error) = sums.end();
            let as_of = if is_complete { as_of } else { behind_as_of.min(as_of) };
            replies.push(NumbersReply { spans, as_of, is_complete, visitors_error });
        }
        self.bound();
        Ok(replies)
    }

    /// Answers for one span.
    pub(super) fn ask_one(
        &self,
        snapshot: &Snapshot<'_>,
        question: &NumbersQuestion,
        span: Span,
    ) -> Result<NumbersReply, ReadError> {
        // There is one reply for each list of spans.
        let reply = self.ask(snapshot, question, &[vec![span]])?.pop();
        reply.ok_or(ReadError::Refused(ReadRefused::Keys))
    }

    pub(super) fn first_event(&self, snapshot: &Snapshot<'_>, website_id: &Arc<str>) -> Result<Option<i64>, ReadError> {
        let expired_before = first_whole_quarter(snapshot.expired_before);
        let question = NumbersQuestion::new(Arc::clone(website_id), Own::default(), Vec::new());
        let pieces = pieces(snapshot, website_id);
        let scene = self.scene(snapshot, &question, &pieces, expired_before);
        let mut found = Quarters::default();
        let entry = self.entry(website_id);
        let mut site = lock(&entry, snapshot)?;
        site.catch_up(&scene)?;
        site.quarters(&scene, &question.asked, &mut found)?;
        drop(site);
        for piece in &pieces.sealed {
            found.add(&scene.open(piece)?.rollup.answer, Sign::Plus);
        }
        Ok(found.first(expired_before))
    }

    pub(super) fn scene<'a>(
        &'a self,
        snapshot: &'a Snapshot<'a>,
        question: &'a NumbersQuestion,
        pieces: &'a Pieces,
        expired_before: i64,
    ) -> Scene<'a> {
        Scene {
            snapshot,
            kept: self.kept(),
            website_id: &question.website_id,
            sealed: &pieces.sealed,
            open: &pieces.open,
            expired_before,
            wait_max: WAIT_MAX,
            bytes_max: self.options.bytes_max / 2,
        }
    }

    fn kept(&self) -> Kept<'_> {
        Kept { cache: &self.cache, bytes_max: self.options.bytes_max.saturating_sub(self.site_bytes()) }
    }

    fn site_bytes(&self) -> usize {
        self.sites.lock().values().map(|entry| entry.bytes.load(Ordering::Relaxed)).sum()
    }

    pub(super) fn entry(&self, website_id: &Arc<str>) -> Arc<Entry> {
        let mut sites = self.sites.lock();
        let new = || Arc::new(Entry { site: Mutex::default(), bytes: 0.into(), asked_at: Mutex::new(Instant::now()) });
        let entry = Arc::clone(sites.entry(Arc::clone(website_id)).or_insert_with(new));
        *entry.asked_at.lock() = Instant::now();
        entry
    }

    pub(super) fn note_bytes(&self, entry: &Entry, site: &Site) {
        entry.bytes.store(site.memory_bytes(), Ordering::Relaxed);
    }

    /// Gives up what was not asked for lately, where there is more than there may be.
    pub(super) fn bound(&self) {
        let bytes_max = self.options.bytes_max;
        let mut by_use: Vec<_> = {
            let sites = self.sites.lock();
            sites.iter().map(|(id, entry)| (*entry.asked_at.lock(), Arc::clone(id))).collect()
        };
        by_use.sort_unstable();
        let newest = by_use.pop();
        for (_, id) in by_use {
            if self.site_bytes() <= bytes_max / 2 {
                break;
            }
            self.sites.lock().remove(&id);
        }
        drop(newest);
        let site_bytes = self.site_bytes();
        self.cache.shrink(bytes_max.saturating_sub(site_bytes));
        self.metrics.numbers_bytes.set((site_bytes + self.cache.bytes()) as f64);
    }

    /// Reads what questions could not wait for, and forgets what nobody has asked for lately.
    pub(super) fn read_behind(
        &self,
        segments: &Arc<Segments>,
        interrupt: &ReaderInterrupt,
        orders: &Receiver<Arc<str>>,
    ) {
        let mut aside = Aside::default();
        loop {
            match orders.recv_timeout(SWEEP) {
                Ok(website_id) => {
                    if let Err(error) = self.read_website(segments, interrupt, &website_id, &mut aside) {
                        tracing::debug!(%error, "numbers could not be read ahead; the next question tries again");
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.sites.lock().retain(|_, entry| entry.asked_at.lock().elapsed() < IDLE_MAX);
            let view = segments.view();
            self.cache.retain(|of| view.segment(of.number).is_some_and(|now| now.generation == of.generation));
            self.bound();
        }
    }

    fn read_website(
        &self,
        segments: &Arc<Segments>,
        interrupt: &ReaderInterrupt,
        website_id: &Arc<str>,
        aside: &mut Aside,
    ) -> Result<(), ReadError> {
        let deadline = Instant::now() + READ_BEHIND_MAX;
        let Some(entry) = self.sites.lock().get(website_id).map(Arc::clone) else { return Ok(()) };
        while Instant::now() < deadline {
            aside.look(segments.newest_arrival());
            let limits = WatchState::new(deadline, interrupt.count());
            let snapshot = Snapshot::new(segments, interrupt.clone(), limits, i64::MIN, 0);
            let pieces = pieces(&snapshot, website_id);
            let scene = Scene {
                snapshot: &snapshot,
                kept: self.kept(),
                website_id,
                sealed: &pieces.sealed,
                open: &pieces.open,
                expired_before: i64::MIN,
                wait_max: READ_BEHIND_STEP,
                bytes_max: self.options.bytes_max / 2,
            };
            let mut site = entry.site.lock();
            if !site.is_behind() {
                break;
            }
            let before = site.memory_bytes();
            let progress = site.read_tallies(&scene)?;
            self.note_bytes(&entry, &site);
            if progress.is_complete || site.memory_bytes() == before {
                break;
            }
            drop(site);
            // Whoever waits for it goes first.
            thread::yield_now();
        }
        Ok(())
    }
}

/// A website to oneself, as soon as nobody else has it; not for ever.
pub(super) fn lock<'a>(entry: &'a Entry, snapshot: &Snapshot<'_>) -> Result<MutexGuard<'a, Site>, ReadError> {
    let wait_max = snapshot.time_left().min(LOCK_WAIT_MAX);
    entry.site.try_lock_for(wait_max).ok_or(ReadError::Refused(ReadRefused::PoolFull))
}

/// What a website has at the moment of a snapshot.
pub(super) fn pieces(snapshot: &Snapshot<'_>, website_id: &str) -> Pieces {
    let mut pieces = Pieces { sealed: Vec::new(), open: Vec::new() };
    let Some(site) = snapshot.site(website_id) else { return pieces };
    for segment in snapshot.segments() {
        match &segment.content {
            Content::Sealed(summary) if summary.has_rollups() => {
                let piece = |times| Piece { segment: Arc::clone(segment), times };
                pieces.sealed.extend(summary.times_of_site(site).map(piece));
            }
            Content::Sealed(summary) if !summary.holds_site(site) => {}
            Content::Open(open) if !open.holds_site(site) => {}
            _ => pieces.open.extend(snapshot.span(segment).map(|(_, last)| (Arc::clone(segment), last))),
        }
    }
    pieces
}
