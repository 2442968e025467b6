//! Builds the rooms in order, owns every handle, and drains them in order.
//!
//! The order of the start: data directory (locked), store (recovered), writer, edge. The order of the stop follows
//! from the channels: the edge answers what it took in and drops its ends of the queue, the readers and the catalog;
//! each of these finishes what waits and ends. No flag has to agree with another.

use std::{io, path::PathBuf, sync::Arc, thread::JoinHandle, time::Duration};

use tokio::{net::TcpListener, sync::mpsc, task, time};

use crate::{
    clock::now_ms,
    config::{self, Config, Durability, FileAccess, ShipCompression, contract},
    event::Rules,
    event_id::EventIds,
    http::{
        self, Aliases, Bodies, BodyLimits, ConnectionLimits, Connections, Cursors, EdgeParts, Heavy, RequestLimits,
        Role, SharedMemory, ShipTo, Tokens,
    },
    metrics::{self, BuildInfo, Metrics},
    queue,
    ship::{self, ShipOptions, ShipStop},
    store::{
        self, DataDir, DirectoryLost, ErasureOptions, IdOptions, LogOptions, NumbersOptions, OpenError, ReadOptions,
        SegmentOptions, Shipping, SqliteBuild, Store, StoreOptions, TailOptions,
    },
    visitor::{Countries, CountriesError, VisitorIds},
    website::WebsiteLimits,
    writer::{self, GroupLimits},
};

/// Why the daemon could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store could not be opened.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The metrics could not be registered.
    #[error("cannot register the metrics: {0}")]
    Metrics(#[from] metrics_exporter_prometheus::BuildError),
    /// The database of countries is not good.
    #[error("cannot use geoip_database {}: {error}. Name another file, or none", path.display())]
    Countries {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: CountriesError,
    },
    /// A thread could not be started.
    #[error("cannot start a thread: {0}; raise the limit on processes and threads (ulimit -u)")]
    Thread(#[from] io::Error),
}

/// Why the daemon did not stop in order.
#[derive(Debug, thiserror::Error)]
pub enum StopError {
    /// The storage failed: what the last requests wrote is in doubt until the next start.
    #[error("{0}; hitlog has stopped, and what was answered 201 is stored. Look at the disk, then start it again")]
    Storage(String),
    /// The data directory was moved or replaced while hitlog served from it.
    #[error(
        "{0}. hitlog has stopped, and has written nothing to what is there now. What was answered 201 is in the files \
         that hitlog had open, wherever they are: put them back where they were, and start hitlog again; if they were \
         deleted, start from a backup"
    )]
    Lost(DirectoryLost),
    /// Requests were still unanswered at the drain limit.
    #[error(
        "not all requests were answered within drain_timeout_seconds. The store is closed; if this goes on, raise \
         drain_timeout_seconds"
    )]
    Unanswered,
    /// The store was still busy after as long again.
    #[error(
        "the store could not be closed within drain_timeout_seconds. What was answered 201 is stored, and the next \
         start closes it; if this goes on, raise drain_timeout_seconds"
    )]
    DrainTimeout,
}

/// How the writer, or another thread that holds data, ended.
enum Ended {
    Writer(Result<(), String>),
    Store(String),
}

/// How long a stop waits once the storage has failed: only for the answers that say so.
const FAILED_DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// The daemon, its store open and its threads running, not yet listening.
pub struct App {
    edge: EdgeParts,
    /// Ends what is shipped, when it is dropped.
    stops_shipping: Option<ShipStop>,
    drain_timeout: Duration,
    metrics: Arc<Metrics>,
    ended: mpsc::UnboundedReceiver<Ended>,
    threads: Vec<JoinHandle<()>>,
    // Last: the lock is given up when everything that touches the directory is gone.
    directory: DataDir,
}

impl App {
    /// Opens the store and starts the threads behind the edge. `is_restored` says that the data directory is a copy
    /// which was not made by `hitlog backup`.
    pub fn start(config: &Config, is_restored: bool) -> Result<Self, StartError> {
        store::check_sqlite_version()?;
        let sqlite_build = store::sqlite_build()?;
        let metrics = Arc::new(Metrics::new(&BuildInfo {
            version: env!("CARGO_PKG_VERSION"),
            sqlite: store::sqlite_version(),
            sqlite_build: sqlite_build.as_str(),
            durability: config.durability.as_str(),
        })?);
        let countries = Arc::new(read_countries(config)?);
        let directory = DataDir::open(&config.data_dir)?;
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            sqlite = store::sqlite_version(),
            durability = config.durability.as_str(),
            file_system = directory.file_system(),
            data_dir = %directory.path().display(),
            "hitlog opens its store"
        );
        warn_of_build(&sqlite_build);
        let (ended_sender, ended) = mpsc::unbounded_channel();
        let failed = ended_sender.clone();
        let on_failure: store::OnFailure = Arc::new(move |reason| drop(failed.send(Ended::Store(reason))));
        let options = StoreOptions { is_restored, ..store_options(config) };
        let store = Store::open(&directory, &options, &metrics.store, on_failure)?;
        let Store { log, readers, numbers, tails, known_ids, catalog, eraser, shipping, websites, epochs, .. } = store;
        let mut threads = store.threads;
        let (stops_shipping, ship_thread) = spawn_shipping(config, &shipping, &metrics)?;
        threads.extend(ship_thread);
        let (queue, requests) = queue::bounded(queue_limits(config), Arc::clone(&metrics.events));
        let group = GroupLimits { events_max: config.group_events_max, bytes_max: config.group_bytes_max };
        threads.push(writer::spawn(log, requests, group, Arc::clone(&metrics.writer), move |outcome| {
            let _ = ended_sender.send(Ended::Writer(outcome));
        })?);
        let (heavy, body_threads) = Heavy::spawn(config.body_threads)?;
        threads.extend(body_threads);
        let connections = Connections::new(connection_limits(config), config.trusted_proxies.clone());
        let body_memory = SharedMemory::of_bodies(config.body_bytes_max, config.small_body_bytes, &connections);
        let ops_bytes_max = config.ops_answer_bytes_max;
        let edge = EdgeParts {
            rules: rules(config),
            limits: request_limits(config),
            aliases: Aliases { tracker: config.tracker_path.clone(), events: config.events_path_alias.clone() },
            bodies: Arc::new(Bodies::new(body_limits(config), body_memory, heavy, config.batch_bytes_max)),
            answers: SharedMemory::of_answers(config.answer_bytes_max, config.small_answer_bytes, &connections),
            ops_answers: SharedMemory::of_answers(ops_bytes_max, ops_bytes_max / 4, &connections),
            connections,
            queue,
            websites,
            catalog,
            eraser,
            readers,
            numbers,
            tails,
            shipping,
            ship_to: ship_to(config),
            known_ids,
            visitor_ids: Arc::new(VisitorIds::open(&directory, config.visitors_seen_max, now_ms())),
            countries,
            ids: EventIds::of(&epochs),
            cursors: Cursors::new(&epochs),
            obstacles: Arc::default(),
            directory: directory.clone(),
            tokens: Arc::new(Tokens::new(config.tokens.iter().map(role_and_token))),
            requests: metrics.of_requests(&http::route_labels(), &http::ingest_labels()),
            metrics: Arc::clone(&metrics),
        };
        let drain_timeout = config.drain_timeout_seconds;
        Ok(Self { edge, stops_shipping, drain_timeout, metrics, ended, threads, directory })
    }

    /// What the daemon counts.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// What puts other tokens in the place of those that are valid, while the daemon serves.
    pub fn token_change(&self) -> impl Fn(&[config::Token]) + Send + use<> {
        let tokens = Arc::clone(&self.edge.tokens);
        move |new| tokens.replace(new.iter().map(role_and_token))
    }

    /// What reads the database of countries anew, while the daemon serves; `None` where there is none. The one before
    /// stays if the file is not good.
    pub fn countries_change(&self, config: &Config) -> Option<impl Fn() -> Result<(), CountriesError> + Send + use<>> {
        let (path, countries) = (config.geoip_database.clone()?, Arc::clone(&self.edge.countries));
        Some(move || countries.read(&path))
    }

    /// Serves until `shutdown`, then drains; or until the storage fails, then says so. Returns `Ok` only if every
    /// request that was taken in was answered, however much of the answer its client read, and the store was closed.
    pub async fn serve(mut self, listener: TcpListener, shutdown: impl Future<Output = ()>) -> Result<(), StopError> {
        let upkeep = tokio::spawn(upkeep(Arc::clone(&self.metrics), Arc::clone(&self.edge.visitor_ids)));
        let drain_timeout = self.drain_timeout;
        let mut failure = None;
        let stop = async {
            tokio::select! {
                () = shutdown => {
                    tracing::info!("stopping: answering what was taken in");
                    drain_timeout
                }
                reason = storage_failure(&mut self.ended) => {
                    tracing::error!(reason, "the storage failed; stopping");
                    failure = Some(reason);
                    FAILED_DRAIN_TIMEOUT.min(drain_timeout)
                }
            }
        };
        let cut_off = http::serve(listener, self.edge, stop).await;
        // What is on its way is in the catalog, and the next start looks for it there.
        drop(self.stops_shipping);
        upkeep.abort();
        if cut_off.unanswered > 0 {
            tracing::error!(
                requests = cut_off.unanswered,
                "requests could not be answered within drain_timeout_seconds and were cut off: their clients cannot \
                 tell whether they are stored"
            );
        }
        if cut_off.slow > 0 {
            tracing::warn!(
                clients = cut_off.slow,
                "clients that had not sent a body or not read an answer within drain_timeout_seconds were cut off"
            );
        }
        if let Some(reason) = failure {
            return Err(self.directory.lost().cloned().map_or(StopError::Storage(reason), StopError::Lost));
        }
        // The edge has dropped its ends by now; the writer commits what is queued, closes the log and ends.
        match time::timeout(drain_timeout, storage_end(&mut self.ended)).await {
            Ok(Ok(())) => {}
            Ok(Err(reason)) => {
                return Err(self.directory.lost().cloned().map_or(StopError::Storage(reason), StopError::Lost));
            }
            Err(_) => return Err(StopError::DrainTimeout),
        }
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a thread panicked while it stopped");
            }
        }
        drop(self.directory);
        if cut_off.unanswered > 0 {
            return Err(StopError::Unanswered);
        }
        tracing::info!("stopped: every event taken in was answered, and the store is closed");
        Ok(())
    }
}

/// Tells what it costs that SQLite was compiled in another way than hitlog wants it.
fn warn_of_build(sqlite: &SqliteBuild) {
    if let Some(shortcomings) = sqlite.shortcomings() {
        tracing::warn!(
            "SQLite was compiled without the flags in .cargo/config.toml. Everything is stored as safely, and takes \
             longer: {shortcomings}. Build hitlog where cargo reads that file: within its folder, or there with `cargo \
             install --path . --locked`"
        );
    }
}

/// Waits for the storage to fail.
async fn storage_failure(ended: &mut mpsc::UnboundedReceiver<Ended>) -> String {
    match ended.recv().await {
        Some(Ended::Writer(Err(reason)) | Ended::Store(reason)) => reason,
        // The writer ends without an error only when the queue is closed, and the edge still holds the queue open.
        Some(Ended::Writer(Ok(()))) | None => "the writer ended although nobody had asked it to".into(),
    }
}

/// Waits for the writer to end.
async fn storage_end(ended: &mut mpsc::UnboundedReceiver<Ended>) -> Result<(), String> {
    match ended.recv().await {
        Some(Ended::Writer(outcome)) => outcome,
        Some(Ended::Store(reason)) => Err(reason),
        None => Err("the writer ended and did not say why".into()),
    }
}

async fn upkeep(metrics: Arc<Metrics>, visitor_ids: Arc<VisitorIds>) {
    let mut interval = time::interval(metrics::UPKEEP_INTERVAL);
    loop {
        interval.tick().await;
        metrics.upkeep();
        let visitor_ids = Arc::clone(&visitor_ids);
        // It may wait for the disk.
        let _ = task::spawn_blocking(move || visitor_ids.keep(now_ms())).await;
    }
}

/// The database of countries, if one is configured.
fn read_countries(config: &Config) -> Result<Countries, StartError> {
    let countries = Countries::default();
    if let Some(path) = &config.geoip_database {
        countries.read(path).map_err(|error| StartError::Countries { path: path.clone(), error })?;
    }
    Ok(countries)
}

fn role_and_token(token: &config::Token) -> (Role, &str) {
    let role = match token.role {
        config::Role::Metrics => Role::Metrics,
        config::Role::Read => Role::Read,
        config::Role::Admin => Role::Admin,
    };
    (role, token.secret.reveal())
}

/// The rules of an event, as configured.
pub fn rules(config: &Config) -> Rules {
    Rules {
        url_bytes_max: contract::URL_BYTES_MAX,
        any_bare_scheme: false,
        id_bytes_max: contract::ID_BYTES_MAX,
        text_chars_max: contract::TEXT_CHARS_MAX,
        properties_bytes_max: contract::PROPERTIES_BYTES_MAX,
        properties_depth_max: contract::PROPERTIES_DEPTH_MAX,
        timestamp_ahead_max_ms: i64::try_from(config.timestamp_ahead_max_seconds.as_millis()).unwrap_or(i64::MAX),
        timestamp_age_max_ms: config
            .retention_days
            .map_or(i64::MAX, |age| i64::try_from(age.as_millis()).unwrap_or(i64::MAX)),
        batch_events_max: config.batch_events_max,
        item_bytes_max: config.event_bytes_max.max(contract::ITEM_BYTES_MAX),
        warnings_told_max: contract::WARNINGS_TOLD_MAX,
    }
}

/// What a website may be like, whoever registers it.
pub(crate) const WEBSITE_LIMITS: WebsiteLimits = WebsiteLimits {
    name_chars_max: contract::WEBSITE_NAME_CHARS_MAX,
    description_chars_max: contract::WEBSITE_DESCRIPTION_CHARS_MAX,
    hosts_max: contract::WEBSITE_HOSTS_MAX,
    goals_max: contract::WEBSITE_GOALS_MAX,
    goal_bytes_max: contract::GOAL_BYTES_MAX,
};

fn request_limits(config: &Config) -> RequestLimits {
    RequestLimits {
        event_bytes_max: config.event_bytes_max,
        batch_bytes_max: config.batch_bytes_max,
        errors_detailed_max: contract::ERRORS_DETAILED_MAX,
        id_bytes_max: contract::ID_BYTES_MAX,
        website_bytes_max: contract::WEBSITE_BODY_BYTES_MAX,
        website: WEBSITE_LIMITS,
        code_valid_seconds_default: contract::CODE_VALID_SECONDS_DEFAULT,
        code_valid_seconds_max: contract::CODE_VALID_SECONDS_MAX,
        retired_codes_max: contract::RETIRED_CODES_MAX,
        page_events_default: contract::PAGE_EVENTS_DEFAULT,
        page_events_max: contract::PAGE_EVENTS_MAX,
        page_websites_default: contract::PAGE_WEBSITES_DEFAULT,
        page_websites_max: contract::PAGE_WEBSITES_MAX,
    }
}

fn body_limits(config: &Config) -> BodyLimits {
    BodyLimits {
        stall_timeout: config.body_stall_timeout_seconds,
        timeout: config.body_timeout_seconds,
        bytes_per_second_min: config.bytes_per_second_min,
        unpack_bytes_max: config.unpack_bytes_max,
        discard_bytes_max: contract::DISCARD_BYTES_MAX,
        discard_time_max: contract::DISCARD_TIME_MAX,
    }
}

fn connection_limits(config: &Config) -> ConnectionLimits {
    ConnectionLimits {
        connections_max: config.connections_max,
        active_connections_max: config.active_connections_max,
        address_share_percent: config.address_share_percent,
        bytes_per_second_min: config.bytes_per_second_min,
        warm_connections_max: config.warm_connections_max,
        head_bytes_max: config.head_bytes_max,
        head_timeout: config.head_timeout_seconds,
        idle_timeout: config.idle_timeout_seconds,
        write_stall_timeout: config.body_stall_timeout_seconds,
        answer_timeout: config.answer_timeout_seconds,
    }
}

/// Starts the thread that ships, if anything is shipped.
fn spawn_shipping(
    config: &Config,
    shipping: &Shipping,
    metrics: &Metrics,
) -> io::Result<(Option<ShipStop>, Option<JoinHandle<()>>)> {
    let spawn = |options| ship::spawn(shipping.clone(), options, Arc::clone(&metrics.ship));
    Ok(ship_options(config).map(spawn).transpose()?.unzip())
}

/// Where events are shipped to, if they are.
fn ship_to(config: &Config) -> Option<ShipTo> {
    let table = format!("{}.{}", config.ship_database, config.ship_table);
    config.ship_url.clone().map(|url| ShipTo { url, table })
}

/// How events are shipped, if they are.
fn ship_options(config: &Config) -> Option<ShipOptions> {
    let url = config.ship_url.clone()?;
    Some(ShipOptions {
        is_zstd: match config.ship_compression {
            ShipCompression::Auto => None,
            ShipCompression::Zstd => Some(true),
            ShipCompression::None => Some(false),
        },
        url,
        user: config.ship_user.clone(),
        password_file: config.ship_password_file.clone(),
        database: config.ship_database.clone(),
        table: config.ship_table.clone(),
        ca_file: config.ship_ca_file.clone(),
        node: config.node,
        rows_max: config.ship_rows_max,
        bytes_max: config.ship_bytes_max,
        interval: config.ship_interval_seconds,
        timeout: config.ship_timeout_seconds,
        dead_max: config.ship_dead_max,
        erasure_gather: config.ship_erasure_seconds,
    })
}

fn queue_limits(config: &Config) -> queue::Limits {
    queue::Limits { events_max: config.queue_events_max, bytes_max: config.queue_bytes_max }
}

/// Has what the process makes from now on be readable for whom the configuration says.
pub fn restrict_files(config: &Config) {
    store::set_file_access(match config.file_access {
        FileAccess::Owner => store::FileAccess::Owner,
        FileAccess::Group => store::FileAccess::Group,
    });
}

/// How the store works, as configured.
pub fn store_options(config: &Config) -> StoreOptions {
    StoreOptions {
        is_shipping: config.ship_url.is_some(),
        ship_held_bytes_max: Some(config.ship_held_bytes_max).filter(|bytes| *bytes > 0),
        log: LogOptions {
            durability: match config.durability {
                Durability::Full => store::Durability::Full,
                Durability::Normal => store::Durability::Normal,
            },
            page_bytes: config.segment_page_bytes,
            cache_bytes: config.writer_cache_bytes,
            wal_checkpoint_bytes: config.wal_checkpoint_bytes,
            wal_bytes_max: config.wal_bytes_max,
            segment_rows_max: config.segment_rows_max,
            segment_age_max: config.segment_age_max_seconds,
        },
        read: ReadOptions {
            readers: config.readers,
            waiting_max: config.reads_waiting_max,
            deadline: config.read_timeout_seconds,
            answer_bytes_max: config.read_bytes_max,
            retention: config.retention_days,
        },
        numbers: NumbersOptions { bytes_max: config.rollup_bytes_max, exact_visits_max: config.stats_exact_visits_max },
        tail: TailOptions { tails_max: tails_max(config), bytes_max: config.tail_bytes_max },
        ids: id_options(config),
        erasures: ErasureOptions { erasures_max: config.erasures_max, hidden_events_max: config.hidden_events_max },
        segments: SegmentOptions {
            unsealed_rows_max: config.unsealed_rows_max,
            filter_bytes_max: config.filter_bytes_max,
            connections_max: config.segment_connections_max,
        },
        seal_cache_bytes: config.seal_cache_bytes,
        retention_grace: config.retention_grace_seconds,
        is_restored: false,
        scratch_dir: config.scratch_dir.clone(),
        reserve_bytes: config.reserve_bytes,
    }
}

/// Each has a connection with buffers, and requests of all kinds need some, too.
pub(crate) fn tails_max(config: &Config) -> usize {
    config.tails_max.min(config.active_connections_max / 2)
}

fn id_options(config: &Config) -> IdOptions {
    /// Two are there at the most while all is well: one that fills, and one that is laid down.
    const TABLE_SHARE: usize = 48;
    let bytes_max = config.dedup_bytes_max;
    IdOptions { window: config.dedup_window_seconds, bytes_max, table_bytes: bytes_max / TABLE_SHARE }
}
