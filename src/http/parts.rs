//! What the edge is built from.

use std::sync::Arc;

use super::{
    aliases::Aliases,
    auth::Tokens,
    body::Bodies,
    connections::Connections,
    cursor::Cursors,
    memory::SharedMemory,
    obstacles::Obstacles,
    options::{RequestLimits, ShipTo},
};
use crate::{
    event::Rules,
    event_id::EventIds,
    metrics::{Metrics, RequestMetrics},
    queue::Queue,
    store::{Catalog, DataDir, Eraser, KnownIds, Numbers, Readers, Shipping, Tails, Websites},
    visitor::{Countries, VisitorIds},
};

/// What the edge is built from. Each file of handlers takes what it uses out of it, and nobody holds all of it. When
/// the last of them is dropped the queue, the readers and the catalog are closed, which is how they learn that no more
/// will come.
pub struct EdgeParts {
    /// The rules of an event.
    pub rules: Rules,
    /// The limits of what clients ask for.
    pub limits: RequestLimits,
    /// Other paths of some routes.
    pub aliases: Aliases,
    /// The connections that are open.
    pub connections: Arc<Connections>,
    /// How bodies are read.
    pub bodies: Arc<Bodies>,
    /// The memory of answers on their way out.
    pub answers: SharedMemory,
    /// The memory of those that tell whether hitlog is well.
    pub ops_answers: SharedMemory,
    /// Where events go.
    pub queue: Queue,
    /// The websites in memory.
    pub websites: Arc<Websites>,
    /// Where websites are changed.
    pub catalog: Catalog,
    /// Who erases events.
    pub eraser: Eraser,
    /// Who reads events back.
    pub readers: Readers,
    /// Who answers questions about numbers.
    pub numbers: Numbers,
    /// Who follows them.
    pub tails: Tails,
    /// How far events are shipped elsewhere.
    pub shipping: Shipping,
    /// Where to, as configured; `None`: nothing is shipped.
    pub ship_to: Option<ShipTo>,
    /// Who knows which events are stored already.
    pub known_ids: KnownIds,
    /// Who makes the ids of visitors that are left to hitlog.
    pub visitor_ids: Arc<VisitorIds>,
    /// The countries of addresses.
    pub countries: Arc<Countries>,
    /// Public ids.
    pub ids: EventIds,
    /// Places in listings, as clients see them.
    pub cursors: Cursors,
    /// What keeps changes from being made at the moment.
    pub obstacles: Arc<Obstacles>,
    /// Where everything is kept, as long as it is there.
    pub directory: DataDir,
    /// Who may do what.
    pub tokens: Arc<Tokens>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// How long requests take, by [`route_labels`](super::route_labels).
    pub requests: RequestMetrics,
}
