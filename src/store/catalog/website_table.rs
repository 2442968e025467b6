//! The catalog's table of websites.

use rusqlite::{Connection, Row};

use super::websites::{Website, Websites};
use crate::domain::Domain;

/// A website to register; its values have been checked.
#[derive(Debug)]
pub struct NewWebsite {
    /// The name that people see.
    pub name: String,
    /// Where its pages are.
    pub domain: Domain,
    /// What people wrote about it, if anything.
    pub description: Option<String>,
}

/// What to change of a website; `None` leaves a value as it is.
#[derive(Debug, Default)]
pub struct WebsiteChange {
    /// The new name.
    pub name: Option<String>,
    /// Where its pages are from now on.
    pub domain: Option<Domain>,
    /// The new description, which may be none.
    pub description: Option<Option<String>>,
}

/// Every website.
pub(crate) fn read_websites(connection: &Connection) -> rusqlite::Result<Websites> {
    let websites = Websites::default();
    let mut statement =
        connection.prepare("SELECT id, trackingCode, name, domain, description, createdAt, updatedAt FROM Website")?;
    let read = |row: &Row<'_>| {
        Ok(Website {
            id: row.get(0)?,
            tracking_code: row.get(1)?,
            name: row.get(2)?,
            domain: row.get(3)?,
            description: row.get(4)?,
            created_at: row.get(5)?,
            updated_at: row.get(6)?,
        })
    };
    for website in statement.query_map([], read)? {
        websites.insert(website?);
    }
    Ok(websites)
}
