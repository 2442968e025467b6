//! Where a ClickHouse answers over HTTP, and as whom it is asked.
//!
//! Whoever is told where that is sees no password: it is in no `Debug` and in no URL.

use std::{
    fmt,
    net::IpAddr,
    path::{Path, PathBuf},
};

use hyper::header::HeaderValue;
use url::{Host, Url};

/// Whom ClickHouse takes for somebody who names no user.
const USER_DEFAULT: &str = "default";

/// A ClickHouse, as the settings name it.
#[derive(Debug, Clone)]
pub struct Target {
    is_tls: bool,
    /// To connect to; an IPv6 address without its brackets.
    host: String,
    port: u16,
    /// As `Host` has it.
    authority: String,
    /// What a proxy has put before ClickHouse's only path, without a slash at its end.
    prefix: String,
    /// What goes in headers. `Debug` does not show the password.
    user: HeaderValue,
    password: Option<HeaderValue>,
    /// Whose certificates alone are trusted.
    ca_file: Option<PathBuf>,
}

impl Target {
    /// Reads what somebody has set; or says what to set instead.
    pub fn parse(
        url: &str,
        user: Option<&str>,
        password: Option<&str>,
        ca_file: Option<PathBuf>,
    ) -> Result<Self, String> {
        // Without the text itself, which may have a password in it.
        let url = Url::parse(url).map_err(|error| {
            format!("expected a URL such as http://127.0.0.1:8123 or https://clickhouse.example:8443: {error}")
        })?;
        let is_tls = match url.scheme() {
            "http" => false,
            "https" => true,
            _ => return Err("expected a URL that begins with http:// or https://: hitlog ships over HTTP".into()),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err("a user or a password is no part of the URL, which is shown in logs: each has a setting of \
                        its own"
                .into());
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(
                "expected no \"?\" and no \"#\" in the URL: the database has a setting of its own, and hitlog \
                        chooses ClickHouse's settings itself"
                    .into(),
            );
        }
        let host = match url.host() {
            Some(Host::Ipv6(address)) => address.to_string(),
            Some(host) => host.to_string(),
            None => return Err("the URL names no host".into()),
        };
        let port = url.port_or_known_default().unwrap_or_default();
        if port == 0 {
            return Err("nothing listens on port 0: ClickHouse's own are 8123 for http and 8443 for https".into());
        }
        if ca_file.is_some() && !is_tls {
            return Err("a file of certificates is for an https:// URL, and this one is http://".into());
        }
        let shown = url.host_str().unwrap_or_default();
        let authority = url.port().map_or_else(|| shown.to_owned(), |port| format!("{shown}:{port}"));
        let user = header("user", user.unwrap_or(USER_DEFAULT))?;
        let password = password.map(|password| header("password", password)).transpose()?.map(|mut password| {
            password.set_sensitive(true);
            password
        });
        let prefix = url.path().trim_end_matches('/').to_owned();
        Ok(Self { is_tls, host, port, authority, prefix, user, password, ca_file })
    }

    /// Whether it is on this machine, where packing costs more than it saves.
    pub fn is_loopback(&self) -> bool {
        let is_local = |address: IpAddr| address.to_canonical().is_loopback();
        self.host == "localhost" || self.host.parse().is_ok_and(is_local)
    }

    /// Whether a password crosses a network that others may listen to.
    pub fn shows_its_password(&self) -> bool {
        self.password.is_some() && !self.is_tls && !self.is_loopback()
    }

    pub(super) fn is_tls(&self) -> bool {
        self.is_tls
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn authority(&self) -> &str {
        &self.authority
    }

    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    pub(super) fn user(&self) -> &HeaderValue {
        &self.user
    }

    pub(super) fn password(&self) -> Option<&HeaderValue> {
        self.password.as_ref()
    }

    pub(super) fn ca_file(&self) -> Option<&Path> {
        self.ca_file.as_deref()
    }
}

/// A text as a header's value, unless it would arrive as another.
fn header(what: &str, text: &str) -> Result<HeaderValue, String> {
    if text.trim_matches([' ', '\t']) != text {
        return Err(format!("the {what} begins or ends with a space, which HTTP does not carry"));
    }
    HeaderValue::from_bytes(text.as_bytes())
        .map_err(|_| format!("the {what} has a character in it that HTTP does not carry, such as an end of a line"))
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}://{}{}", if self.is_tls { "https" } else { "http" }, self.authority, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<Target, String> {
        Target::parse(url, None, None, None)
    }

    #[test]
    fn where_a_clickhouse_answers() {
        for (text, shown, host, port, is_loopback) in [
            ("http://127.0.0.1:8123", "http://127.0.0.1:8123", "127.0.0.1", 8_123, true),
            ("http://localhost:8123/", "http://localhost:8123", "localhost", 8_123, true),
            ("http://[::1]:8123", "http://[::1]:8123", "::1", 8_123, true),
            ("http://[::ffff:127.0.0.1]:8123", "http://[::ffff:7f00:1]:8123", "::ffff:127.0.0.1", 8_123, true),
            ("HTTPS://Click.Example", "https://click.example", "click.example", 443, false),
            ("http://192.0.2.1/", "http://192.0.2.1", "192.0.2.1", 80, false),
            ("https://click.example:8443/a b//", "https://click.example:8443/a%20b", "click.example", 8_443, false),
        ] {
            let target = parse(text).unwrap();
            assert_eq!((&*target.to_string(), &*target.host, target.port), (shown, host, port), "{text}");
            assert_eq!(target.is_loopback(), is_loopback, "{text}");
        }
    }

    #[test]
    fn what_is_no_place_of_a_clickhouse() {
        for (text, words) in [
            ("127.0.0.1:8123", "expected a URL"),
            ("clickhouse:8123", "begins with http://"),
            ("clickhouse://a:9000", "begins with http://"),
            ("http://", "expected a URL"),
            ("", "expected a URL"),
            ("http://user:secret@a", "a setting of its own"),
            ("http://user:secret@a:99999", "expected a URL"),
            ("http://a/?database=b", "no \"?\""),
            ("http://a/#b", "no \"?\""),
            ("http://a:0", "port 0"),
        ] {
            let said = parse(text).unwrap_err();
            assert!(said.contains(words) && !said.contains("secret"), "{text}: {said}");
        }
        let said = Target::parse("http://a", None, None, Some("ca.pem".into())).unwrap_err();
        assert!(said.contains("https://"), "{said}");
    }

    #[test]
    fn users_and_passwords() {
        for (user, password, words) in [
            ("a", "secret\n", "the password has a character"),
            ("a", " secret", "the password begins or ends"),
            ("a\0", "secret", "the user has a character"),
            ("a\t", "secret", "the user begins or ends"),
        ] {
            let said = Target::parse("http://a", Some(user), Some(password), None).unwrap_err();
            assert!(said.contains(words) && !said.contains("secret"), "{said}");
        }
        for (url, password, is_shown) in [
            ("http://192.0.2.1", Some("geheim ü"), true),
            ("https://192.0.2.1", Some("geheim ü"), false),
            ("http://localhost", Some("geheim ü"), false),
            ("http://192.0.2.1", None, false),
        ] {
            let target = Target::parse(url, Some("hit log"), password, None).unwrap();
            assert_eq!(target.shows_its_password(), is_shown, "{url}");
            assert!(!format!("{target:?} {target}").contains("geheim"), "{target:?}");
        }
        assert_eq!(parse("http://a").unwrap().user, USER_DEFAULT);
    }
}
