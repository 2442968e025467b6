//! `hitlog export --websites`: every website as a line of JSON, as the API shows it, on standard output.

use std::path::PathBuf;

use super::{Outcome, ToolError, print, stats::find_website};
use crate::{store::offline::OfflineDir, website::WebsiteJson};

/// Which websites to export.
#[derive(Debug)]
pub struct ExportWebsitesOptions {
    /// Where they are registered.
    pub data_dir: PathBuf,
    /// The only one that is exported: its id, tracking code or domain.
    pub website: Option<String>,
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
        serde_json::to_writer(&mut out, &WebsiteJson::from(&**website))
            .map_err(|error| ToolError::Output(error.into()))?;
        out.push(b'\n');
    }
    print(&out)?;
    Ok(true)
}
