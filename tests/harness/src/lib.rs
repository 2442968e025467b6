//! What tests and benches share: the real binary, a client that says exactly what it is told to, disks that fail, a
//! real ClickHouse and a proxy that fails before it, the checker, and whose turn it is on the machine.

pub mod checker;
pub mod clickhouse;
mod client;
mod daemon;
pub mod disk;
pub mod followed;
pub mod indexed_table;
pub mod measure;
pub mod mount;
pub mod named;
pub mod nginx;
pub mod port;
pub mod proxy;
pub mod raw_append;
pub mod shipped;
mod tail;
mod tampering;
mod tls_front;
pub mod traffic;
pub mod turn;

use std::{
    thread,
    time::{Duration, Instant},
};

pub use clickhouse::ClickHouse;
pub use client::{Client, Response};
pub use daemon::{Daemon, Ran, binary, command, scratch_dir, tool, work_dir};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::Value;
pub use tail::{Tail, Told};
pub use tampering::Tampering;
pub use tls_front::{Certificate, TlsFront};

/// How long anything may take that is not itself about time. On a machine shared with others a disk was seen to stand
/// still for more than a minute, and that is no fault of what is tested.
pub const TIMEOUT: Duration = Duration::from_secs(240);

/// Runs the parts of a test that mostly waits, each in a thread of its own.
pub fn side_by_side<P: Send, T: Send>(parts: impl IntoIterator<Item = P>, run: impl Fn(P) -> T + Sync) -> Vec<T> {
    // Here and not in the threads, which have no name: while they run, no test may count on being alone.
    turn::share();
    let run = &run;
    thread::scope(|scope| {
        let threads: Vec<_> = parts.into_iter().map(|part| scope.spawn(move || run(part))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// Lets this process open so many files, or says why it may not.
pub fn raise_descriptors(files: u64) -> Result<(), String> {
    let limit = getrlimit(Resource::Nofile);
    if limit.maximum.is_some_and(|maximum| maximum < files) {
        return Err(format!("the limit on open files is {limit:?}, and {files} are needed (ulimit -Hn)"));
    }
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).map_err(|error| error.to_string())
}

/// Looks again and again until `look` finds something.
pub fn wait_until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(started.elapsed() < TIMEOUT, "waited too long until {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// An event of JSON with some members changed; `null` takes a member away.
pub fn event_with(code: &str, changes: Value) -> Value {
    let mut event = serde_json::json!({
        "trackingCode": code, "eventType": "pageview", "url": "https://example.com/", "sessionId": "s", "visitorId": "v"
    });
    for (name, value) in changes.as_object().unwrap() {
        event[name] = value.clone();
    }
    event
}
