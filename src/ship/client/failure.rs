//! Why a request was not answered as it should be, what that says of the request, and what to do about it.

use super::codes::{self, Class};

/// Most characters that are shown of what the other side says.
const SAID_CHARS_MAX: usize = 500;

/// Why there is no answer that counts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// ClickHouse says what is wrong.
    #[error("ClickHouse answers error {code}: {message}{}", codes::advice(*.code))]
    Server {
        /// Its number of the error.
        code: i32,
        /// In its words, on one line.
        message: String,
        /// HTTP's number, which may be 200.
        status: u16,
    },
    /// Something answers that gives no number of ClickHouse's.
    #[error("answers {status}, in words that are not ClickHouse's{}: {message}", status_advice(*.status))]
    Status {
        /// HTTP's number.
        status: u16,
        /// What it says, on one line.
        message: String,
    },
    /// There is no connection, or it was cut.
    #[error("{message}")]
    Network {
        /// For people.
        message: String,
        /// Something of the request may have arrived.
        is_sent: bool,
    },
    /// The other side does not show a certificate that is trusted, or speaks no TLS. For people: what to do.
    #[error("{0}")]
    Tls(String),
    /// It took longer than it may.
    #[error("{message}")]
    Timeout {
        /// For people.
        message: String,
        /// Something of the request may have arrived.
        is_sent: bool,
    },
    /// The answer can't be read, is too long, or the request can't be put.
    #[error("{message}")]
    Protocol {
        /// For people.
        message: String,
        /// Something of the request may have arrived.
        is_sent: bool,
    },
}

impl Failure {
    /// Whether the request may have had an effect, or may still have one. An error that ClickHouse answers with says
    /// that there is none, but for those that interrupt an insert (memory, time, another replica): a part of each
    /// partition is whole or absent, and some may be there. A view behind the table fails after the table has the
    /// rows, whatever the error: so whoever cuts a range anew counts first.
    pub fn is_in_doubt(&self) -> bool {
        match self {
            Self::Server { code, .. } => class(self) == Class::Retry && !codes::is_of_the_door(*code),
            Self::Status { .. } => true,
            Self::Tls(_) => false,
            Self::Network { is_sent, .. } | Self::Timeout { is_sent, .. } | Self::Protocol { is_sent, .. } => *is_sent,
        }
    }

    /// Whether it is known to pass, or what to do is known. Otherwise a person should hear of it soon.
    pub fn is_known(&self) -> bool {
        match self {
            Self::Server { code, .. } => codes::rule(*code).is_some(),
            Self::Network { .. } | Self::Timeout { .. } | Self::Tls(_) => true,
            Self::Status { .. } | Self::Protocol { .. } => false,
        }
    }
}

/// What follows from a failure.
pub fn class(failure: &Failure) -> Class {
    match failure {
        Failure::Server { code, .. } => codes::rule(*code).map_or(Class::Retry, |rule| rule.class),
        // Too busy, too early, or a proxy without its ClickHouse; all else is how something is set up.
        Failure::Status { status: 408 | 425 | 429 | 500.., .. } => Class::Retry,
        Failure::Status { .. } => Class::Pause,
        // A certificate is renewed there, without a word here.
        Failure::Network { .. } | Failure::Tls(_) | Failure::Timeout { .. } | Failure::Protocol { .. } => Class::Retry,
    }
}

fn status_advice(status: u16) -> &'static str {
    match status {
        300..400 => " (no redirection is followed: set the URL to where it points)",
        401 | 403 | 407 => " (is there a proxy in front of it that wants to know who asks?)",
        404 | 405 => " (is the URL ClickHouse's, with its port for HTTP, and is the path right?)",
        413 => " (a proxy in front of it takes no body of this size: let it take 64 MiB)",
        414 => " (a proxy in front of it takes no URL of this length: let it take 16 KiB)",
        400 => " (is it ClickHouse's port for HTTP?)",
        _ => "",
    }
}

/// What the other side says, on one line, as far as people read, and without what would do something to a terminal.
pub(super) fn one_line(said: &[u8]) -> String {
    let said = String::from_utf8_lossy(&said[..said.len().min(8 * SAID_CHARS_MAX)]);
    let acts = |char: char| {
        char.is_control()
            || matches!(char, '\u{61c}' | '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let words: Vec<_> =
        said.split(|char: char| char.is_whitespace() || acts(char)).filter(|word| !word.is_empty()).collect();
    let line = words.join(" ");
    match line.char_indices().nth(SAID_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(code: i32) -> Failure {
        Failure::Server { code, message: "words".into(), status: 500 }
    }

    #[test]
    fn what_follows_from_a_failure() {
        let network = |is_sent| Failure::Network { message: "cut".into(), is_sent };
        let status = |status| Failure::Status { status, message: "words".into() };
        for (failure, follows, is_in_doubt, is_known, words) in [
            (server(60), Class::Pause, false, true, "ClickHouse answers error 60: words (create"),
            (server(516), Class::Pause, false, true, "password"),
            (server(115), Class::Pause, false, true, "version"),
            (server(117), Class::Data, false, true, "error 117: words"),
            (server(202), Class::Retry, false, true, "error 202: words"),
            (server(241), Class::Retry, true, true, "error 241: words"),
            (server(319), Class::Retry, true, true, "error 319: words"),
            (server(9_999), Class::Retry, true, false, "error 9999: words"),
            (network(false), Class::Retry, false, true, "cut"),
            (network(true), Class::Retry, true, true, "cut"),
            (Failure::Tls("no".into()), Class::Retry, false, true, "no"),
            (status(413), Class::Pause, true, false, "64 MiB"),
            (status(302), Class::Pause, true, false, "redirection"),
            (status(502), Class::Retry, true, false, "answers 502"),
            (status(429), Class::Retry, true, false, "answers 429"),
        ] {
            assert_eq!(
                (class(&failure), failure.is_in_doubt(), failure.is_known()),
                (follows, is_in_doubt, is_known),
                "{failure:?}"
            );
            assert!(failure.to_string().contains(words), "{failure}");
        }
    }

    #[test]
    fn what_is_said_stays_on_a_line() {
        for (said, line) in [
            (&b" a\r\n\tb "[..], "a b".to_owned()),
            (b"a\x1b[2Jb\xff", "a [2Jb\u{fffd}".to_owned()),
            ("a\u{202e}b".as_bytes(), "a b".to_owned()),
            ("ä".repeat(600).as_bytes(), "ä".repeat(500) + "…"),
            ("a".repeat(100_000).as_bytes(), "a".repeat(500) + "…"),
            (b"", String::new()),
        ] {
            assert_eq!(one_line(said), line);
        }
    }
}
