//! The name of where a visitor comes from.

use std::borrow::Cow;

/// Names of referrers: a host is one of these if it is the name itself or ends in a dot and it. One that ends in a dot
/// stands for every country's.
const NAMES: [(&str, &str); 45] = [
    ("google.", "Google"),
    ("bing.com", "Bing"),
    ("duckduckgo.com", "DuckDuckGo"),
    ("yahoo.", "Yahoo"),
    ("yandex.", "Yandex"),
    ("ya.ru", "Yandex"),
    ("baidu.com", "Baidu"),
    ("ecosia.org", "Ecosia"),
    ("startpage.com", "Startpage"),
    ("qwant.com", "Qwant"),
    ("search.brave.com", "Brave"),
    ("kagi.com", "Kagi"),
    ("naver.com", "Naver"),
    ("seznam.cz", "Seznam"),
    ("perplexity.ai", "Perplexity"),
    ("chatgpt.com", "ChatGPT"),
    ("openai.com", "ChatGPT"),
    ("claude.ai", "Claude"),
    ("copilot.microsoft.com", "Copilot"),
    ("facebook.com", "Facebook"),
    ("fb.me", "Facebook"),
    ("com.facebook.katana", "Facebook"),
    ("instagram.com", "Instagram"),
    ("threads.net", "Threads"),
    ("threads.com", "Threads"),
    ("twitter.com", "X"),
    ("x.com", "X"),
    ("t.co", "X"),
    ("linkedin.com", "LinkedIn"),
    ("lnkd.in", "LinkedIn"),
    ("com.linkedin.android", "LinkedIn"),
    ("reddit.com", "Reddit"),
    ("youtube.com", "YouTube"),
    ("youtu.be", "YouTube"),
    ("pinterest.", "Pinterest"),
    ("tiktok.com", "TikTok"),
    ("whatsapp.com", "WhatsApp"),
    ("t.me", "Telegram"),
    ("org.telegram.messenger", "Telegram"),
    ("news.ycombinator.com", "Hacker News"),
    ("github.com", "GitHub"),
    ("wikipedia.org", "Wikipedia"),
    ("mastodon.social", "Mastodon"),
    ("bsky.app", "Bluesky"),
    ("com.google.android.googlequicksearchbox", "Google"),
];

/// What a page view's query and referrer say; empty is nothing. `named` is `source` or `ref` of the query.
pub(super) fn source_of<'a>(utm_source: &'a [u8], named: &'a [u8], referrer: &'a [u8]) -> Cow<'a, [u8]> {
    if !utm_source.is_empty() {
        return utm_source.into();
    }
    if !named.is_empty() {
        return named.into();
    }
    let Ok(host) = std::str::from_utf8(referrer) else { return referrer.into() };
    if let Some((_, name)) = NAMES.iter().find(|(of, _)| is_of(host, of)) {
        return name.as_bytes().into();
    }
    // An address or a single name has no registrable domain; it is its own name.
    psl::domain_str(host).map_or(referrer, str::as_bytes).into()
}

fn is_of(host: &str, of: &str) -> bool {
    let Some(name) = of.strip_suffix('.') else {
        return host.strip_suffix(of).is_some_and(|before| before.is_empty() || before.ends_with('.'));
    };
    // The registrable domain is the name and a public suffix.
    psl::domain_str(host).and_then(|domain| domain.strip_prefix(name)).is_some_and(|suffix| suffix.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_has_the_name_that_people_know() {
        for (utm, named, referrer, source) in [
            ("news", "x", "google.com", "news"),
            ("", "x", "google.com", "x"),
            ("", "", "google.com", "Google"),
            ("", "", "google.co.uk", "Google"),
            ("", "", "images.google.de", "Google"),
            ("", "", "notgoogle.com", "notgoogle.com"),
            ("", "", "google.example.com", "example.com"),
            ("", "", "m.facebook.com", "Facebook"),
            ("", "", "docs.x.com", "X"),
            ("", "", "netflix.com", "netflix.com"),
            ("", "", "blog.example.co.uk", "example.co.uk"),
            ("", "", "localhost", "localhost"),
            ("", "", "[::1]", "[::1]"),
            ("", "", "", ""),
        ] {
            let of = source_of(utm.as_bytes(), named.as_bytes(), referrer.as_bytes());
            assert_eq!(std::str::from_utf8(&of).unwrap(), source, "{referrer}");
        }
    }
}
