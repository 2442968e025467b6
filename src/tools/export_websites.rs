//! `hitlog export --websites`: every website as a line of JSON, as the API shows it, on standard output.

use std::path::PathBuf;

use serde::Serialize;

use super::{Outcome, ToolError, print, stats::find_website};
use crate::{
    event::time::time_text,
    store::{Website, offline::OfflineDir},
};

/// Which websites to export.
#[derive(Debug)]
pub struct ExportWebsitesOptions {
    /// Where they are registered.
    pub data_dir: PathBuf,
    /// The only one that is exported: its id, tracking code or domain.
    pub website: Option<String>,
}

/// A website as the API shows it, and as an import takes it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WebsiteLine<'a> {
    id: &'a str,
    tracking_code: &'a str,
    name: &'a str,
    domain: &'a str,
    description: Option<&'a str>,
    created_at: String,
    updated_at: String,
}

impl<'a> From<&'a Website> for WebsiteLine<'a> {
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

/// Writes the websites, the oldest first.
pub fn run(options: &ExportWebsitesOptions) -> Outcome {
    let catalog = OfflineDir::open(&options.data_dir)?.catalog()?;
    let mut websites: Vec<_> = match options.website.as_deref() {
        Some(text) => vec![find_website(&catalog, text)?],
        None => catalog.websites().collect(),
    };
    websites.sort_by_key(|website| website.age());
    let mut out = Vec::new();
    for website in websites {
        serde_json::to_writer(&mut out, &WebsiteLine::from(&**website))
            .map_err(|error| ToolError::Output(error.into()))?;
        out.push(b'\n');
    }
    print(&out)?;
    Ok(true)
}
