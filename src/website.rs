//! A website in the words of people and of the interface: one rule for its name and one for its description, wherever
//! it is registered, changed or imported, and one form for answers and exports. Pure; where its pages are is the
//! business of `domain`.

use serde::Serialize;

use crate::{
    event::time::time_text,
    store::{Own, Website},
};

/// A website as the API shows it, which is how an export writes it and an import takes it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WebsiteJson<'a> {
    id: &'a str,
    tracking_code: &'a str,
    name: &'a str,
    domain: &'a str,
    description: Option<&'a str>,
    created_at: String,
    updated_at: String,
}

impl<'a> From<&'a Website> for WebsiteJson<'a> {
    fn from(website: &'a Website) -> Self {
        Self {
            id: &website.id,
            tracking_code: &website.tracking_code,
            name: &website.name,
            domain: &website.domain,
            description: website.description.as_deref(),
            created_at: time_text(website.created_at),
            updated_at: time_text(website.updated_at),
        }
    }
}

/// What the website is to referrers and pages: its own hosts are its domain and those that it names, `www.` aside.
pub fn own(website: &Website) -> Own {
    let hosts = [&website.domain].into_iter();
    let mut hosts: Vec<String> = hosts.map(|host| host.strip_prefix("www.").unwrap_or(host).to_owned()).collect();
    hosts.sort_unstable();
    hosts.dedup();
    Own { has_several: hosts.len() > 1, hosts: hosts.into() }
}

/// Checks the name that people see; the limit is in characters.
pub fn check_name(text: &str, chars_max: usize) -> Result<String, String> {
    if !(1..=chars_max).contains(&text.chars().count()) {
        return Err(format!("Expected 1 to {chars_max} characters"));
    }
    if text.chars().any(char::is_control) {
        return Err("Control characters are not taken".into());
    }
    Ok(text.to_owned())
}

/// Checks what people wrote about it; the limit is in characters.
pub fn check_description(text: &str, chars_max: usize) -> Result<String, String> {
    if text.chars().count() > chars_max {
        return Err(format!("At most {chars_max} characters"));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_descriptions() {
        for (text, is_name, is_description) in [
            ("", false, true),
            ("a", true, true),
            ("\u{f1}\u{f1}\u{f1}", true, true),
            ("four", false, false),
            ("a\nb", false, true),
        ] {
            assert_eq!(check_name(text, 3).is_ok(), is_name, "{text:?}");
            assert_eq!(check_description(text, 3).is_ok(), is_description, "{text:?}");
        }
    }
}
