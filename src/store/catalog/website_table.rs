//! The catalog's table of websites.

use std::sync::Arc;

use rusqlite::{Connection, Row, params, types::Type};
use serde::{Serialize, de::DeserializeOwned};

use super::websites::{Goal, Website, Websites};
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
    /// The zone of its days and hours, if people said one, as IANA writes it.
    pub timezone: Option<String>,
    /// The hosts that are its own, beside its domain.
    pub hosts: Arc<[String]>,
    /// What its visitors are to do.
    pub goals: Arc<[Goal]>,
}

#[cfg(test)]
impl NewWebsite {
    /// One of which only the name and the domain are said.
    pub(in crate::store) fn named(name: &str, domain: &str) -> Self {
        Self {
            name: name.into(),
            domain: Domain::parse(domain).unwrap(),
            description: None,
            timezone: None,
            hosts: Arc::default(),
            goals: Arc::default(),
        }
    }
}

/// What to change of a website; `None` leaves a value as it is.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct WebsiteChange {
    /// The new name.
    pub name: Option<String>,
    /// Where its pages are from now on.
    pub domain: Option<Domain>,
    /// The new description, which may be none.
    pub description: Option<Option<String>>,
    /// The new time zone, which may be none.
    pub timezone: Option<Option<String>>,
    /// The hosts that are its own from now on.
    pub hosts: Option<Arc<[String]>>,
    /// What its visitors are to do from now on.
    pub goals: Option<Arc<[Goal]>>,
}

/// Every website.
pub(crate) fn read_websites(connection: &Connection) -> rusqlite::Result<Websites> {
    let websites = Websites::default();
    // An older hitlog knew none of the last three.
    let has_goals = connection.column_exists(None, "Website", "goals")?;
    let newer = if has_goals { "timezone, hosts, goals" } else { "NULL, '[]', '[]'" };
    let select =
        format!("SELECT id, trackingCode, name, domain, description, createdAt, updatedAt, {newer} FROM Website");
    let mut statement = connection.prepare(&select)?;
    let read = |row: &Row<'_>| {
        Ok(Website {
            id: row.get(0)?,
            tracking_code: row.get(1)?,
            name: row.get(2)?,
            domain: row.get(3)?,
            description: row.get(4)?,
            created_at: row.get(5)?,
            updated_at: row.get(6)?,
            timezone: row.get(7)?,
            hosts: read_list(row, 8)?,
            goals: read_list(row, 9)?,
        })
    };
    for website in statement.query_map([], read)? {
        websites.insert(website?);
    }
    Ok(websites)
}

/// Adds a website.
pub(super) fn insert(connection: &Connection, website: &Website) -> rusqlite::Result<()> {
    let insert = "INSERT INTO Website(id, trackingCode, name, domain, description, createdAt, updatedAt, timezone,
                                      hosts, goals)
                  VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
    let Website { id, tracking_code, name, domain, description, created_at, updated_at, timezone, hosts, goals } =
        website;
    let (hosts, goals) = (list_text(hosts)?, list_text(goals)?);
    connection.execute(
        insert,
        params![id, tracking_code, name, domain, description, created_at, updated_at, timezone, hosts, goals],
    )?;
    Ok(())
}

/// Gives a website all values but its id and its code anew.
pub(super) fn update(connection: &Connection, website: &Website) -> rusqlite::Result<()> {
    let update = "UPDATE Website SET (name, domain, description, createdAt, updatedAt, timezone, hosts, goals)
                  = (?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) WHERE id = ?1";
    let Website { id, name, domain, description, created_at, updated_at, timezone, hosts, goals, .. } = website;
    let (hosts, goals) = (list_text(hosts)?, list_text(goals)?);
    connection
        .execute(update, params![id, name, domain, description, created_at, updated_at, timezone, hosts, goals])?;
    Ok(())
}

/// Removes a website.
pub(super) fn remove(connection: &Connection, id: &str) -> rusqlite::Result<()> {
    connection.execute("DELETE FROM Website WHERE id = ?1", [id])?;
    Ok(())
}

/// A list as its column has it: an array of JSON.
fn list_text<T: Serialize>(list: &[T]) -> rusqlite::Result<String> {
    serde_json::to_string(list).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}

fn read_list<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<Arc<[T]>> {
    let list: Vec<T> = serde_json::from_str(row.get_ref(column)?.as_str()?)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(column, Type::Text, error.into()))?;
    Ok(list.into())
}
