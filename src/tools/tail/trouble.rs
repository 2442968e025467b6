//! What stands in the way of a tail: what passes by itself, what passes once it went well before, and what does not.

use std::time::{Duration, Instant};

use hyper::StatusCode;

use super::line::LineFault;
use crate::tools::{
    ToolError,
    client::{Client, ClientError, Refusal},
};

/// The first wait before another try, and the longest that is not asked for.
const WAIT_MIN: Duration = Duration::from_millis(500);
const WAIT_MAX: Duration = Duration::from_secs(10);
/// The longest wait that hitlog, or what stands before it, may ask for.
const ASKED_WAIT_MAX: Duration = Duration::from_secs(300);

/// Why there is nothing to follow at the moment.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Asked for, and will pass: to try again is right even the first time.
    Busy { what: String, wait: Option<Duration> },
    /// The connection, or what is behind it, is gone. It comes back if it was there once; else the address is wrong.
    Gone(String),
    /// No other try could do better.
    Final(ToolError),
}

impl From<ToolError> for Trouble {
    fn from(error: ToolError) -> Self {
        Self::Final(error)
    }
}

impl From<LineFault> for Trouble {
    fn from(fault: LineFault) -> Self {
        Self::Final(ToolError::Remote(format!(
            "what came is {fault}. Is what listens there hitlog, and of this version?"
        )))
    }
}

impl Trouble {
    /// What follows from an error of the client's.
    pub(super) fn of_client(client: &Client, error: &ClientError) -> Self {
        let base = client.base();
        match error {
            ClientError::Request(_) | ClientError::TooLong(_) => {
                Self::Final(ToolError::Remote(format!("{base}: {error}; is it hitlog that listens there?")))
            }
            _ => Self::Gone(format!("{base}: {error}")),
        }
    }

    /// What follows from an answer that is no success.
    pub(super) fn of_refusal(client: &Client, refusal: Refusal) -> Self {
        let Refusal { status, retry_after, text, .. } = refusal;
        let what = format!("{} {text}", client.base());
        match status {
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
                Self::Busy { what, wait: retry_after.map(|wait| wait.min(ASKED_WAIT_MAX)) }
            }
            StatusCode::INTERNAL_SERVER_ERROR
            | StatusCode::BAD_GATEWAY
            | StatusCode::GATEWAY_TIMEOUT
            | StatusCode::REQUEST_TIMEOUT => Self::Gone(what),
            StatusCode::BAD_REQUEST => Self::Final(ToolError::Arguments(what)),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Self::Final(ToolError::Remote(format!(
                "{what}. A token that reads is taken from HITLOG_READ_TOKEN, --read-token or token_file"
            ))),
            _ => Self::Final(ToolError::Remote(what)),
        }
    }
}

/// Waits between tries, and tells once of each time that it has to.
pub(super) struct Outage {
    tell: fn(&str),
    was_connected: bool,
    /// When it began, if it is one.
    since: Option<Instant>,
    tries: u32,
}

impl Outage {
    pub(super) fn new(tell: fn(&str)) -> Self {
        Self { tell, was_connected: false, since: None, tries: 0 }
    }

    /// It is over, or there was none.
    pub(super) fn end(&mut self) {
        self.was_connected = true;
        if let Some(since) = self.since.take() {
            let seconds = since.elapsed().as_secs_f64();
            (self.tell)(&format!("hitlog: connected again after {seconds:.1} s; going on where it was"));
        }
    }

    /// Something came: whatever goes wrong next is something else.
    pub(super) fn forget_tries(&mut self) {
        self.tries = 0;
    }

    /// Waits as long as it is right to; or gives back what no wait helps against.
    pub(super) async fn sit_out(&mut self, trouble: Trouble) -> Result<(), ToolError> {
        let (what, asked) = match trouble {
            Trouble::Busy { what, wait } => (what, wait),
            Trouble::Gone(what) if self.was_connected => (what, None),
            Trouble::Gone(what) => {
                return Err(ToolError::Remote(format!(
                    "{what}. Is hitlog running there? Start it, or say with --url where it listens"
                )));
            }
            Trouble::Final(error) => return Err(error),
        };
        if self.since.is_none() {
            self.since = Some(Instant::now());
            (self.tell)(&format!("hitlog: {what}; trying again until it answers"));
        }
        // What is asked for may be no time at all.
        let wait = asked.unwrap_or_default().max(wait(self.tries, rand::random()));
        self.tries = self.tries.saturating_add(1);
        tokio::time::sleep(wait).await;
        Ok(())
    }
}

/// How long to wait after so many tries in vain. `chance`, from 0 to 1, takes up to half of it away, so that those who
/// were cut off at once don't come back at once.
fn wait(tries: u32, chance: f64) -> Duration {
    let whole = WAIT_MIN.saturating_mul(1_u32.checked_shl(tries).unwrap_or(u32::MAX)).min(WAIT_MAX);
    whole.mul_f64(1.0 - chance / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::client::{BaseUrl, Patience};

    #[test]
    fn waits_double_up_to_their_limit() {
        for (tries, seconds) in
            [(0, 0.5), (1, 1.0), (2, 2.0), (3, 4.0), (4, 8.0), (5, 10.0), (31, 10.0), (u32::MAX, 10.0)]
        {
            assert_eq!(wait(tries, 0.0).as_secs_f64(), seconds, "{tries}");
            assert_eq!(wait(tries, 1.0).as_secs_f64(), seconds / 2.0, "{tries}");
        }
    }

    #[test]
    fn what_follows_from_an_answer() {
        let client = Client::new(BaseUrl::parse("localhost").unwrap(), None, Patience::default());
        for (status, follows) in [
            (503, "Busy"),
            (429, "Busy"),
            (500, "Gone"),
            (502, "Gone"),
            (504, "Gone"),
            (400, "Final(Arguments"),
            (401, "Final(Remote"),
            (403, "Final(Remote"),
            (404, "Final(Remote"),
            (406, "Final(Remote"),
            (302, "Final(Remote"),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let refusal = Refusal {
                status,
                retry_after: Some(Duration::from_secs(1_000_000)),
                text: "says no".into(),
                is_in_known_words: true,
            };
            let trouble = Trouble::of_refusal(&client, refusal);
            assert!(format!("{trouble:?}").starts_with(follows), "{status}: {trouble:?}");
            if let Trouble::Busy { wait, .. } = trouble {
                assert_eq!(wait, Some(ASKED_WAIT_MAX));
            }
        }
    }

    #[tokio::test]
    async fn only_what_was_there_is_waited_for() {
        let mut outage = Outage::new(|_| {});
        assert!(outage.sit_out(Trouble::Gone("gone".into())).await.is_err());
        assert!(outage.sit_out(Trouble::Busy { what: "busy".into(), wait: Some(Duration::ZERO) }).await.is_ok());
        outage.end();
        assert!(outage.sit_out(Trouble::Gone("gone".into())).await.is_ok());
        assert!(outage.sit_out(Trouble::Final(ToolError::OutputClosed)).await.is_err());
    }
}
