//! What values a setting takes: how the text of one is read, and how that is said.
//!
//! Each kind reads to a type of its own, so that a setting of another kind than its field does not compile; and only
//! numbers have bounds. A text that cannot be read gives the words that tell what was expected.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    thread,
    time::Duration,
};

use ipnet::IpNet;
use url::Url;

use super::tokens::{Role, Token};

pub(super) const KIB: u64 = 1 << 10;
pub(super) const MIB: u64 = 1 << 20;
pub(super) const GIB: u64 = 1 << 30;
const DAY_SECONDS: f64 = 24.0 * 60.0 * 60.0;
/// The longest name.
const NAME_BYTES_MAX: usize = 128;

/// What is said of a setting's values.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// A text, and what it is called in `--help`.
    Text(&'static str),
    /// The path of a file or of a directory, and what it is called in `--help`. A relative one begins in the folder
    /// that the process runs in, wherever it is written.
    Path(&'static str),
    /// A text that is never shown, and what it is called in `--help`.
    Secret(&'static str),
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A number in this unit, from the least to the greatest.
    Number {
        /// What the number counts.
        unit: Unit,
        /// The least value.
        min: f64,
        /// The greatest value.
        max: f64,
    },
}

/// What a number counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Whole things.
    Count,
    /// Bytes; KiB, MiB or GiB may follow.
    Bytes,
    /// Seconds, with fractions.
    Seconds,
    /// Days, with fractions.
    Days,
}

impl Kind {
    /// A number's kind. A bound that is mistyped does not compile.
    const fn number(unit: Unit, min: f64, max: f64) -> Self {
        assert!(min < max);
        Self::Number { unit, min, max }
    }

    /// What a value is called in `--help`.
    pub fn value_name(self) -> String {
        match self {
            Self::Text(name) | Self::Path(name) | Self::Secret(name) => name.into(),
            Self::Choice(words) => words.join("|"),
            Self::Number { unit, .. } => match unit {
                Unit::Count => "COUNT".into(),
                Unit::Bytes => "BYTES".into(),
                Unit::Seconds => "SECONDS".into(),
                Unit::Days => "DAYS".into(),
            },
        }
    }
}

/// A whole number from the first to the second.
pub(super) struct Count(pub(super) u64, pub(super) u64);

impl Count {
    pub(super) const fn kind(&self) -> Kind {
        Kind::number(Unit::Count, self.0 as f64, self.1 as f64)
    }

    pub(super) fn read<T: TryFrom<u64>>(&self, text: &str) -> Result<T, String> {
        whole_number(text.trim().parse().ok(), self.0, self.1, "a whole number")
    }
}

/// A number of bytes from the first to the second.
pub(super) struct Bytes(pub(super) u64, pub(super) u64);

impl Bytes {
    pub(super) const fn kind(&self) -> Kind {
        Kind::number(Unit::Bytes, self.0 as f64, self.1 as f64)
    }

    pub(super) fn read<T: TryFrom<u64>>(&self, text: &str) -> Result<T, String> {
        whole_number(parse_bytes(text), self.0, self.1, "a number of bytes")
    }
}

/// A power of two of bytes, from the first to the second.
pub(super) struct PowerOfTwo(pub(super) u32, pub(super) u32);

impl PowerOfTwo {
    pub(super) const fn kind(&self) -> Kind {
        Kind::number(Unit::Bytes, self.0 as f64, self.1 as f64)
    }

    pub(super) fn read(&self, text: &str) -> Result<u32, String> {
        let bytes: u32 = Bytes(self.0.into(), self.1.into()).read(text)?;
        if bytes.is_power_of_two() { Ok(bytes) } else { Err("expected a power of two".into()) }
    }
}

/// A number of threads from 0 to the bound; 0 is one for each core but one.
pub(super) struct CoresButOne(pub(super) u64);

impl CoresButOne {
    pub(super) const fn kind(&self) -> Kind {
        Count(0, self.0).kind()
    }

    pub(super) fn read(&self, text: &str) -> Result<usize, String> {
        Ok(match Count(0, self.0).read(text)? {
            0 => thread::available_parallelism().map_or(1, |cores| (cores.get() - 1).max(1)),
            threads => threads,
        })
    }
}

/// A number of seconds, with fractions, from the first to the second.
pub(super) struct Seconds(pub(super) f64, pub(super) f64);

impl Seconds {
    pub(super) const fn kind(&self) -> Kind {
        Kind::number(Unit::Seconds, self.0, self.1)
    }

    pub(super) fn read(&self, text: &str) -> Result<Duration, String> {
        number(text, self.0, self.1, "a number of seconds").map(Duration::from_secs_f64)
    }
}

/// A number of days, with fractions, from 0 to the bound; 0 is for ever.
pub(super) struct DaysOrEver(pub(super) f64);

impl DaysOrEver {
    pub(super) const fn kind(&self) -> Kind {
        Kind::number(Unit::Days, 0.0, self.0)
    }

    pub(super) fn read(&self, text: &str) -> Result<Option<Duration>, String> {
        let days = number(text, 0.0, self.0, "a number of days")?;
        Ok((days > 0.0).then(|| Duration::from_secs_f64(days * DAY_SECONDS)))
    }
}

/// One of these words, and what each means.
pub(super) struct Choice<T: 'static> {
    pub(super) words: &'static [&'static str],
    pub(super) values: &'static [T],
}

impl<T: Copy> Choice<T> {
    pub(super) const fn kind(&self) -> Kind {
        assert!(self.words.len() == self.values.len());
        Kind::Choice(self.words)
    }

    pub(super) fn read(&self, text: &str) -> Result<T, String> {
        let mut known = self.words.iter().zip(self.values);
        let chosen = known.find(|(word, _)| **word == text).map(|(_, value)| *value);
        chosen.ok_or_else(|| format!("expected one of: {}", self.words.join(", ")))
    }
}

/// An IP address and a port.
pub(super) struct Address;

impl Address {
    pub(super) const fn kind(&self) -> Kind {
        Kind::Text("ADDRESS:PORT")
    }

    pub(super) fn read(&self, text: &str) -> Result<SocketAddr, String> {
        let numeric = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
        numeric
            .as_deref()
            .unwrap_or(text)
            .parse()
            .map_err(|_| "expected an IP address and a port, such as 127.0.0.1:3000 or [::1]:3000".into())
    }
}

/// Networks, with commas between them. An address alone is the network of that address.
pub(super) struct Networks;

impl Networks {
    pub(super) const fn kind(&self) -> Kind {
        Kind::Text("CIDR,...")
    }

    pub(super) fn read(&self, text: &str) -> Result<Vec<IpNet>, String> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let network = |part: &str| part.parse().ok().or_else(|| Some(IpNet::from(part.parse::<IpAddr>().ok()?)));
        // As addresses are looked at: one of IPv4 that is written as one of IPv6 is of IPv4.
        let canonical = |network: IpNet| match network {
            IpNet::V6(six) if six.prefix_len() >= 96 => six
                .addr()
                .to_ipv4_mapped()
                .and_then(|address| IpNet::new(address.into(), six.prefix_len() - 96).ok())
                .unwrap_or(network),
            _ => network,
        };
        let networks: Option<Vec<_>> = parts.map(|part| network(part).map(canonical)).collect();
        networks.ok_or_else(|| "expected networks such as 10.0.0.0/8 or addresses, with commas between them".into())
    }
}

/// The URL of a server, which may be left out.
pub(super) struct ServerUrl;

impl ServerUrl {
    pub(super) const fn kind(&self) -> Kind {
        Kind::Text("URL")
    }

    pub(super) fn read(&self, text: &str) -> Result<Option<String>, String> {
        if text.is_empty() {
            return Ok(None);
        }
        let url = Url::parse(text).ok().filter(|url| ["http", "https"].contains(&url.scheme()) && url.has_host());
        let url = url.ok_or("expected a URL such as https://clickhouse.example.com:8443")?;
        if !url.username().is_empty() || url.password().is_some() {
            let what = "a user and a password do not belong in it: ship_user and ship_password_file are for them";
            return Err(what.into());
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err("expected a URL without ? and #".into());
        }
        Ok(Some(url.as_str().trim_end_matches('/').to_owned()))
    }
}

/// A URL as it may be shown: without the user and the password that somebody has put into it, and without what comes
/// behind `?` or `#`, where ClickHouse takes a password, too. Of what is no URL, or is read as another than was meant,
/// nobody knows where the password ends.
pub(super) fn url_without_secrets(text: &str) -> String {
    let may_hide = |text: &str| ["@", "%40", "?", "#"].iter().any(|mark| text.contains(mark));
    if !may_hide(text) {
        return text.to_owned();
    }
    let hidden = || "(hidden)".to_owned();
    let Ok(mut url) = Url::parse(text) else { return hidden() };
    let rest = [Some(url.path()), url.query(), url.fragment()];
    let is_torn = rest.into_iter().flatten().any(|part| part.contains('@') || part.contains("%40"));
    if is_torn || !url.has_host() || url.set_username("").is_err() || url.set_password(None).is_err() {
        return hidden();
    }
    url.set_query(None);
    url.set_fragment(None);
    url.into()
}

/// A name, of any letters, and what it is called in `--help`.
pub(super) struct Name(pub(super) &'static str);

impl Name {
    pub(super) const fn kind(&self) -> Kind {
        Kind::Text(self.0)
    }

    pub(super) fn read(&self, text: &str) -> Result<String, String> {
        let is_fit =
            (1..=NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(|byte| (0x21..0x7f).contains(&byte));
        if is_fit { Ok(text.into()) } else { Err("expected 1 to 128 characters of ASCII without spaces".into()) }
    }
}

/// A name that SQL takes as it is, and what it is called in `--help`.
pub(super) struct Identifier(pub(super) &'static str);

impl Identifier {
    pub(super) const fn kind(&self) -> Kind {
        Kind::Text(self.0)
    }

    pub(super) fn read(&self, text: &str) -> Result<String, String> {
        let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let begins = text.bytes().next().is_some_and(|first| !first.is_ascii_digit());
        let is_fit = begins && text.len() <= NAME_BYTES_MAX && text.bytes().all(is_letter);
        if is_fit {
            Ok(text.into())
        } else {
            Err("expected letters of ASCII, digits and _, a letter or _ first".into())
        }
    }
}

/// A path of URLs of hitlog's, which may be left out.
pub(super) struct UrlPath;

/// What hitlog's own paths begin with.
const OWN_PATHS: [&str; 9] =
    ["/api", "/.well-known", "/livez", "/readyz", "/health", "/metrics", "/openapi.yaml", "/pixel.gif", "/tracker"];

impl UrlPath {
    pub(super) const fn kind(&self) -> Kind {
        Kind::Text("PATH")
    }

    pub(super) fn read(&self, text: &str) -> Result<Option<String>, String> {
        let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        let is_part = |part: &str| !part.is_empty() && ![".", ".."].contains(&part) && part.bytes().all(is_letter);
        let mut parts = text.split('/');
        match text {
            "" => Ok(None),
            _ if parts.next() != Some("") || !parts.all(is_part) || text.len() > NAME_BYTES_MAX => Err(format!(
                "expected a path such as /js/app.js: letters, digits, -._~, at most {NAME_BYTES_MAX} characters"
            )),
            _ if OWN_PATHS.iter().any(|own| text.starts_with(own)) => {
                Err(format!("expected a path that begins with none of hitlog's own: {}", OWN_PATHS.join(", ")))
            }
            _ => Ok(Some(text.to_owned())),
        }
    }
}

/// The path of a file or of a directory, and what it is called in `--help`.
pub(super) struct Path(pub(super) &'static str);

impl Path {
    pub(super) const fn kind(&self) -> Kind {
        Kind::Path(self.0)
    }

    pub(super) fn read(&self, text: &str) -> Result<PathBuf, String> {
        Ok(PathBuf::from(text))
    }
}

/// A path that may be left out.
pub(super) struct OptionalPath(pub(super) &'static str);

impl OptionalPath {
    pub(super) const fn kind(&self) -> Kind {
        Kind::Path(self.0)
    }

    pub(super) fn read(&self, text: &str) -> Result<Option<PathBuf>, String> {
        Ok((!text.is_empty()).then(|| PathBuf::from(text)))
    }
}

/// A bearer token of this role, which may be left out.
pub(super) struct BearerToken(pub(super) Role);

impl BearerToken {
    pub(super) const fn kind(&self) -> Kind {
        Kind::Secret("TOKEN")
    }

    pub(super) fn read(&self, text: &str) -> Result<Option<Token>, String> {
        if text.is_empty() { Ok(None) } else { Token::of_setting(self.0, text).map(Some) }
    }
}

/// The number, if it is one within the bounds.
fn whole_number<T: TryFrom<u64>>(number: Option<u64>, min: u64, max: u64, what: &str) -> Result<T, String> {
    let given = number.filter(|number| (min..=max).contains(number));
    given.and_then(|number| T::try_from(number).ok()).ok_or_else(|| format!("expected {what} from {min} to {max}"))
}

fn number(text: &str, min: f64, max: f64, what: &str) -> Result<f64, String> {
    let given = text.trim().parse().ok().filter(|number| (min..=max).contains(number));
    given.ok_or_else(|| format!("expected {what} from {min} to {max}"))
}

/// Reads a whole number, which a unit of bytes may follow.
fn parse_bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let (digits, factor) = [("KiB", KIB), ("MiB", MIB), ("GiB", GIB)]
        .into_iter()
        .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?.trim_end(), factor)))
        .unwrap_or((text, 1));
    digits.parse::<u64>().ok()?.checked_mul(factor)
}
