//! Ships the log's events to ClickHouse, each exactly once, on a thread of its own.
//!
//! A range of sequences is fixed in the catalog before its first byte is sent, and sent byte for byte the same until
//! the target has confirmed it; the log is the buffer, and nothing leaves it before. docs/clickhouse.md is for whoever
//! runs it. In reading order: `run` decides what is next, `check` looks at the target, `reading` cuts ranges, `flight`
//! sends one, `erase` has the target follow erasures, `verify` compares; `plan`, `target` and `node` decide, `wait`
//! waits for the target, `server` and [`client`] ask, [`block`] is what is sent.
//!
//! Must not know `http` or `writer`: what comes in goes first, and never waits for what goes out.

pub mod block;
mod check;
pub mod client;
mod erase;
mod flight;
mod node;
mod options;
mod plan;
mod reading;
mod run;
mod server;
mod target;
mod trouble;
mod verify;
mod wait;

use std::{
    io,
    sync::Arc,
    thread::{self, JoinHandle},
};

use tokio::{runtime, sync::oneshot};

pub use self::options::ShipOptions;
use self::run::Ship;
use crate::{metrics::ShipMetrics, store::Shipping};

/// Ends the thread when it is dropped: what is on its way is in doubt then, and is looked for at the next start.
pub struct ShipStop(#[expect(dead_code, reason = "dropping it is the signal")] oneshot::Sender<()>);

/// Starts the thread.
pub fn spawn(
    shipping: Shipping,
    options: ShipOptions,
    metrics: Arc<ShipMetrics>,
) -> io::Result<(ShipStop, JoinHandle<()>)> {
    let runtime = runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    let (stop, stopped) = oneshot::channel();
    let thread = thread::Builder::new().name("ship".into()).spawn(move || {
        Shipping::lower_priority();
        let ship = Ship::new(shipping, options, metrics);
        runtime.block_on(async {
            tokio::select! {
                () = ship.run() => {}
                // Nobody ever sends anything: it is dropped.
                _ = stopped => {}
            }
        });
        // A name that is being looked for can't be given up, and nobody waits for it.
        runtime.shutdown_background();
    })?;
    Ok((ShipStop(stop), thread))
}
