//! What a website takes: of which hosts its pages are, and what becomes of events whose visitors send `Sec-GPC: 1`.
//!
//! Made once, when a website is registered or changed, and looked at for every event: so hosts are written here as they
//! are compared, and of a website that asks for no check there are none. Pure.

use std::{borrow::Cow, sync::Arc};

use super::{rejection::Rejection, web_url};

/// What is said of a page's host, in words for its sender.
type Words = Cow<'static, str>;

/// Defines what a website says in a word, the first one where it says nothing.
macro_rules! word {
    (
        $(#[$doc:meta])*
        $name:ident {
            $(#[$first_doc:meta])* $first:ident = $first_text:literal,
            $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)+
        }
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub enum $name {
            $(#[$first_doc])* #[default] $first,
            $($(#[$variant_doc])* $variant,)+
        }

        impl $name {
            /// Every word, for messages.
            pub const WORDS: &'static [&'static str] = &[$first_text, $($text),+];

            /// The word on the wire and in the catalog.
            pub fn as_str(self) -> &'static str {
                match self {
                    Self::$first => $first_text,
                    $(Self::$variant => $text,)+
                }
            }

            /// What this word says, if anything.
            pub fn from_word(word: &str) -> Option<Self> {
                match word {
                    $first_text => Some(Self::$first),
                    $($text => Some(Self::$variant),)+
                    _ => None,
                }
            }
        }
    };
}

word! {
    /// What becomes of an event whose page is of none of its website's hosts.
    HostsPolicy {
        /// It is stored, and its client is told, if the website names hosts beside its domain.
        Warn = "warn",
        /// It is refused.
        Refuse = "refuse",
    }
}

word! {
    /// What becomes of an event whose visitor sends `Sec-GPC: 1`.
    Gpc {
        /// It is stored as it is.
        Ignore = "ignore",
        /// It is stored without what would tell who the visitor is.
        Anonymous = "anonymous",
        /// It is refused.
        Drop = "drop",
    }
}

/// What a website takes.
#[derive(Debug)]
pub struct Intake {
    /// The website's id.
    pub website_id: Arc<str>,
    /// Its own hosts, as they are compared: empty where none is looked at.
    hosts: Box<[Box<str>]>,
    hosts_policy: HostsPolicy,
    gpc: Gpc,
}

impl Intake {
    /// Of a website with this domain, which has these hosts beside it.
    pub fn new(website_id: Arc<str>, domain: &str, hosts: &[String], hosts_policy: HostsPolicy, gpc: Gpc) -> Self {
        let is_looked_at = hosts_policy == HostsPolicy::Refuse || !hosts.is_empty();
        let mut own: Vec<Box<str>> = Vec::new();
        for host in [domain].into_iter().chain(hosts.iter().map(String::as_str)).filter(|_| is_looked_at) {
            let host = web_url::comparable_host(bare_host(host));
            if !own.contains(&host) {
                own.push(host);
            }
        }
        Self { website_id, hosts: own.into(), hosts_policy, gpc }
    }

    /// Of a website that takes whatever comes, as tools and tests do.
    pub fn of_anything(website_id: impl Into<Arc<str>>) -> Arc<Self> {
        Arc::new(Self::new(website_id.into(), "", &[], HostsPolicy::default(), Gpc::default()))
    }

    /// What becomes of events whose visitors send `Sec-GPC: 1`.
    pub(super) fn gpc(&self) -> Gpc {
        self.gpc
    }

    /// Looks at the page of an event, which is a URL that is taken: what is odd about its host, or why it is refused.
    /// `field` is what the member is called.
    pub(super) fn check_host(&self, url: &str, field: &'static str) -> Result<Option<Words>, Rejection> {
        if self.hosts.is_empty() {
            return Ok(None);
        }
        let host = web_url::host(url);
        if host.as_deref().is_some_and(|host| self.has(host)) {
            return Ok(None);
        }
        let named = host.map(|host| web_url::echo(&host.to_ascii_lowercase()));
        match self.hosts_policy {
            HostsPolicy::Warn => Ok(Some(warning(named.as_deref()))),
            HostsPolicy::Refuse => Err(Rejection::other_host(field, fault(named.as_deref()))),
        }
    }

    fn has(&self, host: &str) -> bool {
        let host = web_url::without_www(host);
        // There are a hundred at the most, and nearly always it is the first.
        self.hosts.iter().any(|own| own.eq_ignore_ascii_case(host))
    }
}

fn warning(host: Option<&str>) -> Words {
    match host {
        Some(host) => format!(
            "Stored, although the host {host} is not one of this website's hosts; if it is its own, add it to `hosts`"
        )
        .into(),
        None => "Stored, although it has no host, and so none of this website's hosts".into(),
    }
}

fn fault(host: Option<&str>) -> Words {
    match host {
        Some(host) => format!(
            "The host {host} is not one of this website's hosts; if it is its own, add it to the website's `hosts`"
        )
        .into(),
        None => "It has no host, and this website takes events of its own hosts only".into(),
    }
}

/// The host of a website as it stands among its domain and its hosts, without its port: pages are told apart by their
/// hosts alone.
pub fn bare_host(host: &str) -> &str {
    // The colons of an address of IPv6 stand in brackets.
    let (name, port) = host.rsplit_once(':').unwrap_or((host, ""));
    if port.ends_with(']') { host } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::rejection::Faults;

    fn intake(domain: &str, hosts: &[&str], hosts_policy: HostsPolicy) -> Intake {
        let hosts: Vec<_> = hosts.iter().map(|host| (*host).to_owned()).collect();
        Intake::new("web-1".into(), domain, &hosts, hosts_policy, Gpc::Ignore)
    }

    /// Whether the page is of one of the website's own hosts.
    fn is_own(intake: &Intake, url: &str) -> bool {
        intake.check_host(url, "url").is_ok_and(|odd| odd.is_none())
    }

    #[test]
    fn hosts_have_no_ports() {
        for (host, name) in
            [("a.example", "a.example"), ("a.example:80", "a.example"), ("[::1]", "[::1]"), ("[::1]:80", "[::1]")]
        {
            assert_eq!(bare_host(host), name);
        }
    }

    #[test]
    fn hosts_are_compared_as_the_standard_writes_them() {
        let domains =
            ["www.shop.example:8443", "xn--bcher-kva.example", "[2001:db8::1]:3000", "192.0.2.1", "b.example."];
        let hosts = ["localhost:3000", "a_b.example", "com.example.app"];
        for (url, domain) in [
            ("https://shop.example/", 0),
            ("http://SHOP.example", 0),
            ("https://WWW.Shop.Example:8443/x?y#z", 0),
            ("https://www.shop.example./x", 0),
            ("https://user:secret@shop.example:1/", 0),
            ("https://sh%6Fp.example/", 0),
            (" https://shop.example/ ", 0),
            ("https:\\\\shop.example\\x", 0),
            ("wss://shop.example/", 0),
            ("app://Shop.example/", 0),
            ("https://bücher.example/", 1),
            ("https://BÜCHER。example/", 1),
            ("https://www.bücher.example/", 1),
            ("https://xn--bcher-kva.example/", 1),
            ("app://bücher.example/", 1),
            ("https://[2001:DB8:0::1]/", 2),
            ("https://[2001:db8::1]:3000/", 2),
            ("http://192.0.2.1:80/", 3),
            ("http://0xc0000201/", 3),
            ("https://B.example", 4),
        ] {
            for (at, of) in domains.iter().enumerate() {
                assert_eq!(is_own(&intake(of, &[], HostsPolicy::Refuse), url), at == domain, "{url} of {of}");
                assert_eq!(is_own(&intake("x.example", &[of], HostsPolicy::Warn), url), at == domain, "{url} of {of}");
            }
            assert!(!is_own(&intake("x.example", &hosts, HostsPolicy::Refuse), url), "{url}");
        }
        for url in ["http://localhost/", "http://a_b.example/", "android-app://com.example.app/x", "http://x.example"] {
            assert!(is_own(&intake("x.example", &hosts, HostsPolicy::Refuse), url), "{url}");
        }
        for url in
            ["https://shop.example.evil/", "https://evilshop.example/", "https://sub.shop.example/", "https://www/"]
        {
            assert!(!is_own(&intake(domains[0], &[], HostsPolicy::Refuse), url), "{url}");
        }
        for url in ["file:///home/x.html", "about:blank", "android-app:com.example.app", "mailto:a@x.example"] {
            assert!(!is_own(&intake("x.example", &hosts, HostsPolicy::Refuse), url), "{url}");
        }
    }

    #[test]
    fn what_is_odd_is_told_and_what_is_refused_is_a_fault_of_the_url() {
        let (other, none) = ("https://Other.example/", "about:blank");
        // Whoever names no hosts beside the domain is not warned.
        let plain = intake("a.example", &[], HostsPolicy::Warn);
        assert_eq!((plain.check_host(other, "url"), plain.check_host(none, "url")), (Ok(None), Ok(None)));
        assert_eq!(plain.hosts.len(), 0, "nothing is kept for nothing");
        let warns = intake("a.example", &["www.a.example", "b.example"], HostsPolicy::Warn);
        assert_eq!(warns.hosts.len(), 2, "www. aside, two are one");
        let told = warns.check_host(other, "url").unwrap().unwrap();
        assert!(told.contains("the host other.example is not one of this website's hosts"), "{told}");
        assert!(warns.check_host(none, "url").unwrap().unwrap().contains("no host"));
        let refuses = intake("a.example", &[], HostsPolicy::Refuse);
        for (url, words) in [(other, "The host other.example is not one of this website's hosts"), (none, "no host")] {
            let Err(Rejection::OtherHost(Faults { fields, .. })) = refuses.check_host(url, "url") else {
                panic!("{url} is taken")
            };
            assert!(fields[0].0 == "url" && fields[0].1[0].contains(words), "{fields:?}");
        }
        let long = format!("https://{}.example/", ["x".repeat(60).as_str(); 4].join("."));
        let Err(Rejection::OtherHost(faults)) = refuses.check_host(&long, "url") else { panic!("it is taken") };
        assert!(faults.fields[0].1[0].chars().count() < 200, "{faults:?}");
    }

    #[test]
    fn words_are_read_as_they_are_written() {
        for word in HostsPolicy::WORDS {
            assert_eq!(HostsPolicy::from_word(word).map(HostsPolicy::as_str), Some(*word));
        }
        for word in Gpc::WORDS {
            assert_eq!(Gpc::from_word(word).map(Gpc::as_str), Some(*word));
        }
        assert_eq!((HostsPolicy::default().as_str(), Gpc::default().as_str()), ("warn", "ignore"));
        assert_eq!((HostsPolicy::from_word("Warn"), Gpc::from_word("")), (None, None));
    }
}
