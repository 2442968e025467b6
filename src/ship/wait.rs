//! Waiting for the target, and telling what went wrong or is waited for.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{server::Server, trouble::Trouble};
use crate::{clock::now_ms, store::Shipping};

/// How soon, and how late, what goes wrong is told in the log once more: in other words, and in the same.
const TOLD_MIN_MS: u64 = 30 * 1_000;
const TOLD_AGAIN_MS: u64 = 60 * 60 * 1_000;
/// Most warnings that are told, each once.
const WARNED_MAX: usize = 100;
/// How long it takes until it is told what is waited for.
const LONG: Duration = Duration::from_secs(600);
/// How often it is looked whether an attempt still runs.
const RUNNING_POLL: Duration = Duration::from_millis(500);

/// Tells what went wrong. The log has it once, and once an hour as long as it lasts: it is tried every few seconds.
pub(super) fn tell(shipping: &Shipping, why: &str) {
    let now = now_ms();
    let is_news = shipping.tell(|state| {
        state.now.last_error = Some((now, why.to_owned()));
        let is_news = state
            .now
            .logged
            .as_ref()
            .is_none_or(|(at, words)| now.abs_diff(*at) >= if words == why { TOLD_AGAIN_MS } else { TOLD_MIN_MS });
        if is_news {
            state.now.logged = Some((now, why.to_owned()));
        }
        is_news
    });
    if is_news {
        tracing::warn!("shipping: {why}. It is tried again; what is not shipped stays here");
    }
}

/// Warns of something that lasts: once, however often it is looked at.
pub(super) fn warn_once(shipping: &Shipping, warning: String) {
    let line = format!("shipping: {warning}");
    if shipping.tell(|state| state.now.warned.len() < WARNED_MAX && state.now.warned.insert(warning)) {
        tracing::warn!("{line}");
    }
}

/// Waits for the target, and tells so if that takes long: once, as hours may be usual there.
pub(super) struct Wait<'a> {
    shipping: &'a Shipping,
    begun: Instant,
    was_told: bool,
}

impl<'a> Wait<'a> {
    pub(super) fn new(shipping: &'a Shipping) -> Self {
        Self { shipping, begun: Instant::now(), was_told: false }
    }

    /// Waits until it is time to look again. What is waited for is told when that has taken long.
    pub(super) async fn go_on(&mut self, pause: Duration, what: impl FnOnce() -> String) {
        if !self.was_told && self.begun.elapsed() >= LONG {
            self.was_told = true;
            tell(self.shipping, &format!("{}, for ten minutes by now", what()));
        }
        sleep(pause).await;
    }
}

/// Waits until no attempts run whose names begin so.
pub(super) async fn for_attempts(
    shipping: &Shipping,
    server: &Server,
    prefix: &str,
    cluster: Option<&str>,
) -> Result<(), Trouble> {
    let mut wait = Wait::new(shipping);
    while server.running(prefix, cluster).await? > 0 {
        let what = || {
            format!(
                "an insert still runs at the target (system.processes there: its query_id begins with {prefix}), and \
                 nothing of its range is sent meanwhile"
            )
        };
        wait.go_on(RUNNING_POLL, what).await;
    }
    Ok(())
}
