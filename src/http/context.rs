//! What the routes work with.

use std::sync::{Arc, atomic::AtomicBool};

use super::{
    auth::Tokens, body::Bodies, connections::Connections, cursor::Cursors, memory::SharedMemory, obstacles::Obstacles,
    options::RequestLimits,
};
use crate::{
    event::Rules,
    event_id::EventIds,
    metrics::Metrics,
    queue::Queue,
    store::{Catalog, DataDir, Eraser, Readers, Websites},
};

/// What the routes work with. Dropping it closes the queue, the readers and the catalog, which is how they learn
/// that no more will come.
pub struct Context {
    /// The rules of an event.
    pub rules: Rules,
    /// The limits of what clients ask for.
    pub limits: RequestLimits,
    /// The connections that are open.
    pub connections: Arc<Connections>,
    /// How bodies are read.
    pub bodies: Bodies,
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
    /// Public ids.
    pub ids: EventIds,
    /// Places in listings, as clients see them.
    pub cursors: Cursors,
    /// What keeps changes from being made at the moment.
    pub obstacles: Obstacles,
    /// Where everything is kept, as long as it is there.
    pub directory: DataDir,
    /// Who may do what.
    pub tokens: Arc<Tokens>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Set when a stop begins: connections close after the response that they are at.
    pub stopping: AtomicBool,
}
