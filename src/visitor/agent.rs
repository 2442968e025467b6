//! What a user agent tells of device, browser and operating system: by the expressions of the ua-parser project
//! (<https://github.com/ua-parser/uap-core>), and by the client hints that Chromium sends unasked
//! (<https://wicg.github.io/ua-client-hints/>), which tell a browser that calls itself Chrome.
//!
//! The names are those that people use, the same for a browser on a telephone and on a desktop.

use std::{borrow::Cow, sync::OnceLock};

use ua_parser::{Regexes, os, user_agent};

use crate::event::DeviceType;

/// The longest user agent that is looked at, in bytes: real ones have some 150, and those within apps up to 500. Of a
/// longer one nothing is told. Looking at one takes some 5 microseconds; at one of this length that was made up for it,
/// a fifth of a millisecond.
pub const AGENT_BYTES_MAX: usize = 512;
/// The longest name that is told, in characters, as for one that a client says.
const NAME_CHARS_MAX: usize = 100;

/// The expressions for browsers and operating systems: `regexes.yaml` of uap-core (Apache-2.0) as the source of the
/// crate ua-parser 0.2.2 has it, as JSON and without those for devices, of which hitlog tells three kinds only.
const EXPRESSIONS: &str = include_str!("agents.json");

/// The texts of the headers that tell of a user agent; `None` where one is absent or no text.
#[derive(Debug, Clone, Copy, Default)]
pub struct AgentTexts<'a> {
    /// `User-Agent`
    pub agent: Option<&'a str>,
    /// `Sec-CH-UA`: a list of brands.
    pub brands: Option<&'a str>,
    /// `Sec-CH-UA-Mobile`: `?1` or `?0`.
    pub mobile: Option<&'a str>,
    /// `Sec-CH-UA-Platform`: a name in quotes.
    pub platform: Option<&'a str>,
}

/// What is known of a user agent; what is not is `None`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Agent<'a> {
    /// The kind of device.
    pub device_type: Option<DeviceType>,
    /// The browser, such as Firefox.
    pub browser: Option<Cow<'a, str>>,
    /// The operating system, such as Windows.
    pub os: Option<Cow<'a, str>>,
}

/// The expressions, ready to be used. They take 11 MiB, and some 60 ms to make: they are made when the first event
/// needs them.
struct Extractors {
    browsers: user_agent::Extractor<'static>,
    systems: os::Extractor<'static>,
}

static EXTRACTORS: OnceLock<Option<Extractors>> = OnceLock::new();

fn extractors() -> Option<&'static Extractors> {
    EXTRACTORS.get_or_init(build).as_ref()
}

/// `None` if an expression is none, which a test rules out.
fn build() -> Option<Extractors> {
    let expressions: Regexes<'static> = serde_json::from_str(EXPRESSIONS).ok()?;
    let browsers = user_agent::Builder::new().push_all(expressions.user_agent_parsers).ok()?.build().ok()?;
    let systems = os::Builder::new().push_all(expressions.os_parsers).ok()?.build().ok()?;
    Some(Extractors { browsers, systems })
}

impl<'a> Agent<'a> {
    /// What these headers tell.
    pub fn of(texts: AgentTexts<'a>) -> Self {
        let agent = texts.agent.filter(|agent| agent.len() <= AGENT_BYTES_MAX).unwrap_or_default();
        let (mut browser, mut os) = (None, None);
        if let Some(extractors) = extractors().filter(|_| !agent.is_empty()) {
            browser = extractors.browsers.extract(agent).map(|found| browser_name(found.family));
            os = extractors.systems.extract(agent).map(|found| os_name(found.os));
        }
        if let Some(brand) = texts.brands.and_then(brand) {
            browser = Some(brand.into());
        }
        if let Some(platform) = texts.platform.and_then(platform) {
            os = Some(platform.into());
        }
        let device_type = device(agent, texts.mobile == Some("?1"), os.as_deref());
        Self { device_type, browser: browser.filter(is_name), os: os.filter(is_name) }
    }
}

/// Whether a name may stand in an event.
#[expect(clippy::ptr_arg, reason = "it is a predicate on what an option holds")]
fn is_name(name: &Cow<'_, str>) -> bool {
    !name.is_empty()
        && name.len() <= NAME_CHARS_MAX * 4
        && name.chars().count() <= NAME_CHARS_MAX
        && !name.chars().any(char::is_control)
        && name != "Other"
}

/// A browser by the name that people know.
fn browser_name(family: Cow<'_, str>) -> Cow<'_, str> {
    match &*family {
        "Mobile Safari" | "Mobile Safari UI/WKWebView" => "Safari".into(),
        "Chrome Mobile" | "Chrome Mobile iOS" | "Chrome Mobile WebView" | "HeadlessChrome" => "Chrome".into(),
        "Firefox Mobile" | "Firefox iOS" | "Firefox (Shiretoko)" => "Firefox".into(),
        "Edge Mobile" => "Edge".into(),
        "Opera Mobile" | "Opera Mini" | "Opera Tablet" | "Opera Touch" => "Opera".into(),
        "IE" | "IE Mobile" => "Internet Explorer".into(),
        "DuckDuckGo Mobile" => "DuckDuckGo".into(),
        "Yandex Browser" => "Yandex".into(),
        "Brave Mobile" => "Brave".into(),
        _ => family,
    }
}

/// An operating system by the name that people know; the distributions of Linux are one.
fn os_name(name: Cow<'_, str>) -> Cow<'_, str> {
    match &*name {
        "Mac OS X" | "Mac OS" => "macOS".into(),
        "Ubuntu" | "Debian" | "Fedora" | "Red Hat" | "CentOS" | "SUSE" | "Linux Mint" | "Arch Linux" | "Gentoo"
        | "Slackware" | "Mandriva" => "Linux".into(),
        _ => name,
    }
}

/// The browser among the brands of a `Sec-CH-UA` that is no plain Chrome or Chromium, if there is one: a user agent of
/// these may say nothing but Chrome.
fn brand(list: &str) -> Option<&'static str> {
    const BRANDS: [(&str, &str); 8] = [
        ("\"Brave\"", "Brave"),
        ("\"Microsoft Edge\"", "Edge"),
        ("\"Opera\"", "Opera"),
        ("\"Opera GX\"", "Opera"),
        ("\"Vivaldi\"", "Vivaldi"),
        ("\"Samsung Internet\"", "Samsung Internet"),
        ("\"YaBrowser\"", "Yandex"),
        ("\"DuckDuckGo\"", "DuckDuckGo"),
    ];
    BRANDS.iter().find(|(brand, _)| list.contains(brand)).map(|(_, name)| *name)
}

/// The operating system of a `Sec-CH-UA-Platform`, by the same name as a user agent's.
fn platform(quoted: &str) -> Option<&'static str> {
    match quoted.trim().trim_matches('"') {
        "Windows" => Some("Windows"),
        "macOS" => Some("macOS"),
        "Linux" => Some("Linux"),
        "Android" => Some("Android"),
        "iOS" => Some("iOS"),
        "Chrome OS" | "Chromium OS" => Some("Chrome OS"),
        _ => None,
    }
}

/// The kind of device, as far as it is one of three: a television or a watch is none of them.
fn device(agent: &str, says_mobile: bool, os: Option<&str>) -> Option<DeviceType> {
    let has = |word: &str| agent.contains(word);
    let is_television = ["TV", "BRAVIA", "AFT", "Web0S", "Tizen 2", "Roku"].into_iter().any(has);
    let is_tablet = has("iPad")
        || has("Tablet")
        || has("PlayBook")
        || (has("Kindle") || has("Silk/")) && !has("Mobile")
        || has("Android") && !has("Mobile") && !says_mobile;
    let is_mobile = says_mobile || ["Mobi", "iPhone", "iPod", "Android", "Windows Phone"].into_iter().any(has);
    let is_desktop = matches!(os, Some("Windows" | "macOS" | "Linux" | "Chrome OS" | "FreeBSD" | "OpenBSD"));
    match () {
        () if is_television => None,
        () if is_tablet => Some(DeviceType::Tablet),
        () if is_mobile => Some(DeviceType::Mobile),
        () if is_desktop => Some(DeviceType::Desktop),
        () => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(texts: AgentTexts<'_>) -> (Option<&'static str>, String, String) {
        let agent = Agent::of(texts);
        let text = |name: Option<Cow<'_, str>>| name.map_or("-".into(), Cow::into_owned);
        (agent.device_type.map(DeviceType::as_str), text(agent.browser), text(agent.os))
    }

    #[test]
    fn user_agents_of_these_days() {
        const WEBKIT: &str = "AppleWebKit/537.36 (KHTML, like Gecko)";
        for (agent, device, browser, os) in [
            (
                "Mozilla/5.0 (Windows NT 10.0; Win64; x64) W Chrome/131.0.0.0 Safari/537.36",
                "desktop",
                "Chrome",
                "Windows",
            ),
            (
                "Mozilla/5.0 (Windows NT 10.0; Win64; x64) W Chrome/131.0.0.0 Safari/537.36 Edg/131.0.0.0",
                "desktop",
                "Edge",
                "Windows",
            ),
            (
                "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.1 \
                 Safari/605.1.15",
                "desktop",
                "Safari",
                "macOS",
            ),
            (
                "Mozilla/5.0 (X11; Ubuntu; Linux x86_64; rv:133.0) Gecko/20100101 Firefox/133.0",
                "desktop",
                "Firefox",
                "Linux",
            ),
            (
                "Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) W Chrome/131.0.0.0 Safari/537.36",
                "desktop",
                "Chrome",
                "Chrome OS",
            ),
            (
                "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) \
                 Version/17.5 Mobile/15E148 Safari/604.1",
                "mobile",
                "Safari",
                "iOS",
            ),
            (
                "Mozilla/5.0 (iPad; CPU OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) CriOS/131.0 \
                 Mobile/15E148 Safari/604.1",
                "tablet",
                "Chrome",
                "iOS",
            ),
            (
                "Mozilla/5.0 (Linux; Android 10; K) W Chrome/131.0.0.0 Mobile Safari/537.36",
                "mobile",
                "Chrome",
                "Android",
            ),
            ("Mozilla/5.0 (Linux; Android 10; K) W Chrome/131.0.0.0 Safari/537.36", "tablet", "Chrome", "Android"),
            (
                "Mozilla/5.0 (Linux; Android 13; SM-S901B) W SamsungBrowser/23.0 Chrome/115.0.0.0 Mobile Safari/537.36",
                "mobile",
                "Samsung Internet",
                "Android",
            ),
            ("Mozilla/5.0 (Android 14; Mobile; rv:133.0) Gecko/133.0 Firefox/133.0", "mobile", "Firefox", "Android"),
            ("Mozilla/5.0 (Linux; Android 9; BRAVIA 4K) W Chrome/120.0.0.0 Safari/537.36", "-", "Chrome", "Android"),
            ("curl/8.5.0", "-", "curl", "-"),
            ("Somebody's own", "-", "-", "-"),
            ("", "-", "-", "-"),
        ] {
            let agent = agent.replace(" W ", &format!(" {WEBKIT} "));
            let (kind, found, system) = told(AgentTexts { agent: Some(&agent), ..AgentTexts::default() });
            assert_eq!((kind.unwrap_or("-"), &*found, &*system), (device, browser, os), "{agent}");
        }
    }

    #[test]
    fn hints_tell_more_than_the_agent() {
        let agent =
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36";
        let brands = "\"Brave\";v=\"131\", \"Chromium\";v=\"131\", \"Not_A Brand\";v=\"24\"";
        for (brands, mobile, platform, wanted) in [
            (None, None, None, ("desktop", "Chrome", "Linux")),
            (Some(brands), Some("?0"), Some("\"macOS\""), ("desktop", "Brave", "macOS")),
            (Some("\"Google Chrome\";v=\"131\""), Some("?1"), Some("\"Android\""), ("mobile", "Chrome", "Android")),
            (Some("\u{e9}"), Some("yes"), Some("\"Haiku\""), ("desktop", "Chrome", "Linux")),
        ] {
            let found = told(AgentTexts { agent: Some(agent), brands, mobile, platform });
            assert_eq!((found.0.unwrap_or("-"), &*found.1, &*found.2), wanted, "{brands:?}");
        }
    }

    #[test]
    fn what_is_too_long_tells_nothing() {
        let agent = |len: usize| format!("{}Chrome/131.0.0.0", "x".repeat(len - 16));
        let (longest, long) = (agent(AGENT_BYTES_MAX), agent(AGENT_BYTES_MAX + 1));
        let of = |agent: &str| told(AgentTexts { agent: Some(agent), ..AgentTexts::default() }).1;
        assert_eq!((&*of(&longest), &*of(&long)), ("Chrome", "-"));
    }
}
