//! The domain of a website: one rule for what it may be, and one constructor. Pure, and knows nobody.
//!
//! A domain is where a website's pages are: a host by the WHATWG URL Standard's rules for special schemes, and its port
//! unless that is 80 or 443. The port stays because two servers of one machine, `localhost:3000` and `localhost:8080`,
//! are two websites. An address is taken only as the Standard writes it: `12345` would become 0.0.48.57, which is
//! nobody's website.

use url::Host;

/// Longest text that a domain is looked for in, in bytes: that of a page's URL.
const TEXT_BYTES_MAX: usize = 4_096;
/// Longest host name, in bytes, as DNS has it.
const NAME_BYTES_MAX: usize = 253;
/// Longest label of a host name, in bytes, as DNS has it.
const LABEL_BYTES_MAX: usize = 63;
/// Ports that say nothing about which website is meant.
const PORTS_OF_THE_WEB: [u16; 2] = [80, 443];

/// What is no host at all.
const NO_HOST: &str = "Expected a host name such as example.com, or a URL such as https://example.com";

/// The domain of a website, in lower case and ASCII.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Domain(String);

impl Domain {
    /// The domain that a host name, with or without its port, or a URL names; or why there is none in it.
    ///
    /// A domain's own text is always the same domain again.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let authority = authority(text)?;
        let url = url::Url::parse(&format!("http://{authority}")).map_err(|_| NO_HOST)?;
        let host = match url.host() {
            None => return Err(NO_HOST),
            Some(Host::Domain(name)) => checked_name(name)?.to_owned(),
            Some(address) => {
                let address = address.to_string();
                if address != host_part(authority) {
                    return Err("An IP address is taken only in its usual form, such as 192.0.2.1 or [2001:db8::1]");
                }
                address
            }
        };
        Ok(Self(match url.port().filter(|port| !PORTS_OF_THE_WEB.contains(port)) {
            Some(port) => format!("{host}:{port}"),
            None => host,
        }))
    }

    /// As it is stored and shown.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// As it is stored and shown.
    pub fn into_string(self) -> String {
        self.0
    }
}

/// Whether an older hitlog may have kept this text as a domain. It took any host that has a form, with empty labels,
/// with a dot at its end, of any length, or escaped for a scheme that hitlog does not know; such websites stay valid.
pub fn is_of_older_rules(text: &str) -> bool {
    let url = url::Url::parse(&format!("any://{text}"));
    let is_host = url.is_ok_and(|url| url.host_str() == Some(text));
    is_host && !text.is_empty() && !text.bytes().any(|byte| byte.is_ascii_uppercase())
}

/// Host and port, of a host name or of a URL.
fn authority(text: &str) -> Result<&str, &'static str> {
    if text.len() > TEXT_BYTES_MAX {
        return Err("Expected at most 4096 bytes");
    }
    // A URL's parser would pass over line feeds and tabs, and over spaces at the ends.
    if text.chars().any(char::is_control) {
        return Err("Control characters are not taken");
    }
    let authority = match text.split_once("://") {
        Some((scheme, rest)) if is_scheme(scheme) => rest.split(['/', '?', '#', '\\']).next().unwrap_or_default(),
        Some(_) => return Err(NO_HOST),
        None if text.contains(['/', '?', '#', '@', '\\']) => return Err(NO_HOST),
        None => text,
    };
    // What ends with a colon has lost its port, or is "https://https://…".
    if authority.is_empty() || authority.ends_with(':') || authority.contains(char::is_whitespace) {
        return Err(NO_HOST);
    }
    Ok(authority)
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

/// The host of an authority as it was typed, without a dot at its end.
fn host_part(authority: &str) -> &str {
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let end = host.find(']').map_or_else(|| host.find(':'), |bracket| Some(bracket + 1));
    let host = end.map_or(host, |end| &host[..end]);
    host.strip_suffix('.').unwrap_or(host)
}

/// A host name that DNS could carry. The Standard leaves lengths, empty labels and most marks to others.
fn checked_name(name: &str) -> Result<&str, &'static str> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let is_letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_';
    if name.len() > NAME_BYTES_MAX {
        return Err("Expected a host name of at most 253 bytes");
    }
    for label in name.split('.') {
        if label.is_empty() {
            return Err("Expected a host name without empty labels, such as example.com");
        }
        if label.len() > LABEL_BYTES_MAX {
            return Err("Expected a host name whose labels have at most 63 bytes");
        }
        if !label.bytes().all(is_letter) {
            return Err("Expected a host name of letters, digits, \"-\", \"_\" and dots, such as example.com");
        }
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn domains_are_hosts_with_their_port() {
        let label = "x".repeat(63);
        let longest = format!("{label}.{label}.{label}.{}", &label[..61]);
        for (text, domain) in [
            ("example.com", "example.com"),
            ("Example.COM", "example.com"),
            ("example.com.", "example.com"),
            ("localhost", "localhost"),
            ("a_b.example", "a_b.example"),
            ("https://www.example.com/path?x", "www.example.com"),
            ("https://user:secret@example.com:8443?x", "example.com:8443"),
            ("HTTPS://example.com#x", "example.com"),
            ("http://example.com\\x", "example.com"),
            ("localhost:3000", "localhost:3000"),
            ("localhost:08080", "localhost:8080"),
            ("example.com:80", "example.com"),
            ("example.com:443", "example.com"),
            ("http://example.com:443/", "example.com"),
            ("https://example.com:80/", "example.com"),
            ("ftp://example.com:21/", "example.com:21"),
            ("bücher.example", "xn--bcher-kva.example"),
            ("BÜCHER.example", "xn--bcher-kva.example"),
            ("münchen。test", "xn--mnchen-3ya.test"),
            ("app://münchen.test", "xn--mnchen-3ya.test"),
            ("ex%61mple.com", "example.com"),
            ("192.168.0.1", "192.168.0.1"),
            ("192.168.0.1.", "192.168.0.1"),
            ("http://192.168.0.1:8080/", "192.168.0.1:8080"),
            ("[::1]", "[::1]"),
            ("http://u@[2001:db8::1]:3000/", "[2001:db8::1]:3000"),
            (&longest, &longest),
        ] {
            let parsed = Domain::parse(text);
            assert_eq!(parsed.as_ref().map(Domain::as_str), Ok(domain), "{text}");
            assert_eq!(Domain::parse(domain), parsed, "{text}: a domain is itself");
        }
    }

    #[test]
    fn what_is_no_domain() {
        let (long_label, long_name) = ("x".repeat(64), format!("{}.de", "x.".repeat(126)));
        let (huge, huge_url) = ("x".repeat(60_000), format!("https://example.com/{}", "x".repeat(5_000)));
        for text in [
            "",
            " ",
            ".",
            "..",
            "a..b",
            ".a",
            "a..",
            "exa mple.com",
            " example.com",
            "example.com ",
            "*",
            "*.example.com",
            "a\"b.de",
            "a.de,b.de",
            "a;b",
            "a'b",
            "a(b)",
            "a{b}",
            "a&b",
            "a=b",
            "a+b",
            "a~b",
            "a$b",
            "a!b",
            "a`b",
            "%2A.de",
            "a%2Fb",
            "a%20b",
            "a\u{a0}b",
            "example.com/path",
            "user@example.com",
            "https://",
            "https:///example.com",
            "file:///x",
            "://a",
            "1a://b",
            "ä://b",
            "exam\nple.com",
            "https://exam\tple.com/",
            "https://a.b/\n",
            "12345",
            "0x7f.1",
            "1.2.3",
            "127.1",
            "010.0.0.1",
            "1.2.3.4.5",
            "１.2.3.4",
            "256.1.1.1",
            "%31.2.3.4",
            "[0:0:0:0:0:0:0:1]",
            "[::ABCD]",
            "[::1",
            "::1",
            "[::1]x",
            "[::ffff:127.0.0.1]",
            "localhost:",
            "localhost:x",
            "localhost:65536",
            "https://https://example.com",
            "xn--",
            "xn--a",
            "\u{ad}",
            "a.\u{ad}.b",
            &long_label,
            &long_name,
            &huge,
            &huge_url,
        ] {
            assert!(Domain::parse(text).is_err(), "{text}: {:?}", Domain::parse(text));
        }
    }

    #[test]
    fn what_an_older_hitlog_kept() {
        for (text, is_kept) in [
            ("example.com", true),
            ("example.com.", true),
            ("a..b", true),
            ("*", true),
            ("a\"b.de", true),
            ("a.de,b.de", true),
            ("m%c3%bcnchen.test", true),
            ("0.0.48.57", true),
            ("[::1]", true),
            (&*"x".repeat(60_000), true),
            ("", false),
            ("Example.com", false),
            ("no host", false),
            ("c.example/x", false),
            ("a:80", false),
            ("münchen.test", false),
            ("a\n", false),
        ] {
            assert_eq!(is_of_older_rules(text), is_kept, "{text:.50}");
        }
    }

    proptest! {
        #[test]
        fn a_domain_is_itself_and_within_its_bounds(
            text in "([a-zA-Z]{1,5}://)?([a-zA-Z0-9.:@%*xn\\[\\]_-]|ü|ß|。|\u{ad}|١){0,30}(:[0-9]{1,6})?(/.{0,3})?"
        ) {
            if let Ok(domain) = Domain::parse(&text) {
                prop_assert_eq!(Domain::parse(domain.as_str()), Ok(domain.clone()));
                prop_assert!(domain.as_str().is_ascii() && domain.as_str().len() <= NAME_BYTES_MAX + 6);
                prop_assert!(!domain.as_str().contains("..") && !domain.as_str().ends_with('.'));
            }
        }
    }
}
