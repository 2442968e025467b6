//! Registering, reading, changing and forgetting websites.

use hyper::{HeaderMap, StatusCode};
use serde::Serialize;
use serde_json::{Map, Value};

use super::{
    body::InboundBody,
    context::Context,
    ingest::body_error,
    options::RequestLimits,
    response::{ErrorCode, Response, catalog_error, error, invalid, json_of},
};
use crate::{
    event::{Faults, time::time_text},
    store::{NewWebsite, Website, WebsiteChange},
};

/// A website as the API shows it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WebsiteJson<'a> {
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

/// `POST /api/v1/websites`
pub(super) async fn create(context: &Context, headers: &HeaderMap, body: &mut InboundBody) -> Response {
    let change = match read_change(context, headers, body, true).await {
        Ok(change) => change,
        Err(refusal) => return refusal,
    };
    let new = NewWebsite {
        name: change.name.unwrap_or_default(),
        domain: change.domain.unwrap_or_default(),
        description: change.description.flatten(),
    };
    match context.catalog.create_website(new).await {
        Ok(website) => json_of(StatusCode::CREATED, &WebsiteJson::from(&*website)),
        Err(failure) => catalog_error(&failure),
    }
}

/// `GET /api/v1/websites`
pub(super) fn get_all(context: &Context) -> Response {
    #[derive(Serialize)]
    struct AllWebsites<'a> {
        websites: Vec<WebsiteJson<'a>>,
        total: usize,
    }
    let all = context.websites.newest_first();
    let websites: Vec<_> = all.iter().map(|website| WebsiteJson::from(&**website)).collect();
    json_of(StatusCode::OK, &AllWebsites { total: websites.len(), websites })
}

/// `GET /api/v1/websites/:id`
pub(super) fn get(context: &Context, id: &str) -> Response {
    match context.websites.get(id) {
        Some(website) => json_of(StatusCode::OK, &WebsiteJson::from(&*website)),
        None => error(ErrorCode::NotFound, "Website not found"),
    }
}

/// `PUT /api/v1/websites/:id`: changes what it names.
pub(super) async fn update(context: &Context, id: &str, headers: &HeaderMap, body: &mut InboundBody) -> Response {
    let change = match read_change(context, headers, body, false).await {
        Ok(change) => change,
        Err(refusal) => return refusal,
    };
    match context.catalog.update_website(id.to_owned(), change).await {
        Ok(website) => json_of(StatusCode::OK, &WebsiteJson::from(&*website)),
        Err(failure) => catalog_error(&failure),
    }
}

/// `DELETE /api/v1/websites/:id`
pub(super) async fn delete(context: &Context, id: &str) -> Response {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Deleted {
        success: bool,
        message: String,
        erasure_id: String,
    }
    match context.catalog.delete_website(id.to_owned()).await {
        Ok((website, erasure)) => {
            let message = format!("Website \"{}\" deleted; its events are in no answer any more", website.name);
            json_of(StatusCode::OK, &Deleted { success: true, message, erasure_id: erasure.to_string() })
        }
        Err(failure) => catalog_error(&failure),
    }
}

async fn read_change(
    context: &Context,
    headers: &HeaderMap,
    body: &mut InboundBody,
    is_new: bool,
) -> Result<WebsiteChange, Response> {
    let bytes = body
        .read(headers, context.limits.website_bytes_max, 0, &context.bodies)
        .await
        .map_err(|failure| body_error(context, &failure))?
        .into_parts()
        .0;
    let value = serde_json::from_slice(&bytes)
        .map_err(|fault| error(ErrorCode::MalformedJson, &format!("Invalid JSON: {fault}")))?;
    let Value::Object(members) = value else {
        return Err(invalid("Invalid website data", &Faults::of_form("Expected an object")));
    };
    check(&members, is_new, &context.limits).map_err(|faults| invalid("Invalid website data", &faults))
}

/// Checks the members of a website, new or changed; unknown ones are ignored.
fn check(members: &Map<String, Value>, is_new: bool, limits: &RequestLimits) -> Result<WebsiteChange, Faults> {
    let mut faults = Faults::default();
    let mut change = WebsiteChange::default();
    for (field, slot) in [("name", &mut change.name), ("domain", &mut change.domain)] {
        let checked = match members.get(field) {
            None if is_new => Err("Required".to_owned()),
            None => continue,
            Some(Value::String(text)) if field == "name" => check_name(text, limits.website_name_chars_max),
            Some(Value::String(text)) => host_of(text),
            Some(_) => Err("Expected a string".to_owned()),
        };
        match checked {
            Ok(text) => *slot = Some(text),
            Err(fault) => faults.add(field, fault),
        }
    }
    let description_chars_max = limits.website_description_chars_max;
    change.description = match members.get("description") {
        None => None,
        Some(Value::Null) => Some(None),
        Some(Value::String(text)) if text.chars().count() <= description_chars_max => Some(Some(text.clone())),
        Some(Value::String(_)) => {
            faults.add("description", format!("At most {description_chars_max} characters"));
            None
        }
        Some(_) => {
            faults.add("description", "Expected a string or null");
            None
        }
    };
    if faults.is_empty() { Ok(change) } else { Err(faults) }
}

fn check_name(text: &str, chars_max: usize) -> Result<String, String> {
    if !(1..=chars_max).contains(&text.chars().count()) {
        return Err(format!("Expected 1 to {chars_max} characters"));
    }
    refuse_controls(text)?;
    Ok(text.to_owned())
}

fn refuse_controls(text: &str) -> Result<(), String> {
    if text.chars().any(char::is_control) { Err("Control characters are not taken".into()) } else { Ok(()) }
}

/// The host of a host name or a URL, in lower case and ASCII.
fn host_of(text: &str) -> Result<String, String> {
    // A URL's parser would pass over line feeds and tabs.
    refuse_controls(text)?;
    let parsed = if text.contains("://") {
        url::Url::parse(text)
    } else if text.contains(['/', '?', '#', '@', '\\']) || text.trim() != text {
        return Err(format!("Expected a host name such as example.com, or a URL, received \"{text}\""));
    } else {
        url::Url::parse(&format!("http://{text}"))
    };
    parsed
        .ok()
        .and_then(|url| url.host_str().map(str::to_ascii_lowercase))
        .filter(|host| !host.is_empty())
        .ok_or_else(|| "Expected a host name such as example.com, or a URL such as https://example.com".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_are_hosts() {
        for (text, host) in [
            ("example.com", Some("example.com")),
            ("Example.COM", Some("example.com")),
            ("https://www.example.com/path?x", Some("www.example.com")),
            ("localhost:3000", Some("localhost")),
            ("bücher.example", Some("xn--bcher-kva.example")),
            ("192.168.0.1", Some("192.168.0.1")),
            ("[::1]", Some("[::1]")),
            ("", None),
            (" ", None),
            ("exa mple.com", None),
            ("example.com/path", None),
            ("user@example.com", None),
            ("https://", None),
            ("file:///x", None),
            ("exam\nple.com", None),
            ("https://exam\tple.com/", None),
        ] {
            assert_eq!(host_of(text).ok().as_deref(), host, "{text}");
        }
    }

    #[test]
    fn members_of_a_website() {
        let faults = |text: &str, is_new| {
            let members: Map<String, Value> = serde_json::from_str(text).unwrap();
            check(&members, is_new, &RequestLimits::OF_TESTS)
                .map(|_| ())
                .map_err(|faults| faults.fields.iter().map(|(field, _)| *field).collect::<Vec<_>>())
        };
        let long =
            format!(r#"{{"name": "{}", "domain": "a.b", "description": "{}"}}"#, "n".repeat(256), "d".repeat(1001));
        let longest =
            format!(r#"{{"name": "{}", "domain": "a.b", "description": "{}"}}"#, "ñ".repeat(255), "d".repeat(1000));
        for (text, is_new, wanted) in [
            (r#"{"name": "A", "domain": "a.b"}"#, true, Ok(())),
            (r#"{"name": "A", "domain": "a.b", "description": null, "other": 1}"#, true, Ok(())),
            (&longest, true, Ok(())),
            ("{}", true, Err(vec!["name", "domain"])),
            ("{}", false, Ok(())),
            (&long, true, Err(vec!["name", "description"])),
            (r#"{"name": null, "domain": 1, "description": []}"#, false, Err(vec!["name", "domain", "description"])),
            (r#"{"name": ""}"#, false, Err(vec!["name"])),
            (r#"{"name": "a\u0000"}"#, false, Err(vec!["name"])),
        ] {
            assert_eq!(faults(text, is_new), wanted, "{text}");
        }
    }
}
