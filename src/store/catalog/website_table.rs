//! The catalog's table of websites.

use std::{collections::HashMap, sync::Arc};

use rusqlite::{Connection, Row, params, types::Type};
use serde::{Serialize, de::DeserializeOwned};

use super::websites::{Goal, RetiredCode, Website, Websites};
use crate::{
    domain::Domain,
    event::{Gpc, HostsPolicy},
};

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
    /// What becomes of events of pages of other hosts.
    pub hosts_policy: HostsPolicy,
    /// What becomes of events of visitors who send `Sec-GPC: 1`.
    pub gpc: Gpc,
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
            hosts_policy: HostsPolicy::default(),
            gpc: Gpc::default(),
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
    /// What becomes of events of pages of other hosts from now on.
    pub hosts_policy: Option<HostsPolicy>,
    /// What becomes of events of visitors who send `Sec-GPC: 1` from now on.
    pub gpc: Option<Gpc>,
    /// What its visitors are to do from now on.
    pub goals: Option<Arc<[Goal]>>,
}

/// Every website, with the codes that it had and that are noted.
pub(crate) fn read_websites(connection: &Connection) -> rusqlite::Result<Websites> {
    let websites = Websites::default();
    // An older hitlog knew none of the last five, or only three.
    let has_goals = connection.column_exists(None, "Website", "goals")?;
    let newer = if has_goals { "timezone, hosts, goals" } else { "NULL, '[]', '[]'" };
    let has_policies = connection.column_exists(None, "Website", "gpc")?;
    let newest = if has_policies { "hostsPolicy, gpc" } else { "'warn', 'ignore'" };
    let select = format!(
        "SELECT id, trackingCode, name, domain, description, createdAt, updatedAt, {newer}, {newest} FROM Website"
    );
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
            hosts_policy: read_word(row, 10, HostsPolicy::from_word)?,
            gpc: read_word(row, 11, Gpc::from_word)?,
        })
    };
    let mut retired = read_retired(connection)?;
    for website in statement.query_map([], read)? {
        let website = website?;
        let retired = retired.remove(&*website.id).unwrap_or_default();
        websites.renew(website, retired);
    }
    Ok(websites)
}

/// The codes that websites had, by the ids of the websites.
fn read_retired(connection: &Connection) -> rusqlite::Result<HashMap<String, Vec<RetiredCode>>> {
    let mut retired: HashMap<String, Vec<RetiredCode>> = HashMap::new();
    if !connection.table_exists(None, "RetiredCode")? {
        return Ok(retired);
    }
    let mut select = connection.prepare("SELECT websiteId, code, validUntil FROM RetiredCode ORDER BY validUntil")?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let code = RetiredCode { code: row.get(1)?, valid_until: row.get(2)? };
        retired.entry(row.get(0)?).or_default().push(code);
    }
    Ok(retired)
}

/// Adds a website.
pub(super) fn insert(connection: &Connection, website: &Website) -> rusqlite::Result<()> {
    let insert = "INSERT INTO Website(id, trackingCode, name, domain, description, createdAt, updatedAt, timezone,
                                      hosts, goals, hostsPolicy, gpc)
                  VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";
    let Website { id, tracking_code, name, domain, description, created_at, updated_at, timezone, .. } = website;
    let (hosts, goals) = (list_text(&website.hosts)?, list_text(&website.goals)?);
    let (hosts_policy, gpc) = (website.hosts_policy.as_str(), website.gpc.as_str());
    connection.execute(
        insert,
        params![
            id,
            tracking_code,
            name,
            domain,
            description,
            created_at,
            updated_at,
            timezone,
            hosts,
            goals,
            hosts_policy,
            gpc
        ],
    )?;
    Ok(())
}

/// Gives a website all values but its id and its code anew.
pub(super) fn update(connection: &Connection, website: &Website) -> rusqlite::Result<()> {
    let update =
        "UPDATE Website SET (name, domain, description, createdAt, updatedAt, timezone, hosts, goals, hostsPolicy,
                  gpc) = (?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11) WHERE id = ?1";
    let Website { id, name, domain, description, created_at, updated_at, timezone, .. } = website;
    let (hosts, goals) = (list_text(&website.hosts)?, list_text(&website.goals)?);
    let (hosts_policy, gpc) = (website.hosts_policy.as_str(), website.gpc.as_str());
    connection.execute(
        update,
        params![id, name, domain, description, created_at, updated_at, timezone, hosts, goals, hosts_policy, gpc],
    )?;
    Ok(())
}

/// Gives a website its code anew, and the time of its last change.
pub(super) fn update_code(connection: &Connection, website: &Website) -> rusqlite::Result<()> {
    let Website { id, tracking_code, updated_at, .. } = website;
    let update = "UPDATE Website SET (trackingCode, updatedAt) = (?2, ?3) WHERE id = ?1";
    connection.execute(update, params![id, tracking_code, updated_at])?;
    Ok(())
}

/// Notes which codes a website had, in the place of what was noted before.
pub(super) fn replace_retired(connection: &Connection, id: &str, codes: &[RetiredCode]) -> rusqlite::Result<()> {
    connection.execute("DELETE FROM RetiredCode WHERE websiteId = ?1", [id])?;
    let mut insert = connection.prepare("INSERT INTO RetiredCode(code, websiteId, validUntil) VALUES(?1, ?2, ?3)")?;
    for RetiredCode { code, valid_until } in codes {
        insert.execute(params![code, id, valid_until])?;
    }
    Ok(())
}

/// Removes the codes that are not valid any more at this time, in milliseconds since 1970, UTC.
pub(super) fn remove_retired(connection: &Connection, now: i64) -> rusqlite::Result<()> {
    connection.execute("DELETE FROM RetiredCode WHERE validUntil <= ?1", [now])?;
    Ok(())
}

/// Removes a website, and the codes that it had. To be called within a transaction.
pub(super) fn remove(connection: &Connection, id: &str) -> rusqlite::Result<()> {
    connection.execute("DELETE FROM Website WHERE id = ?1", [id])?;
    connection.execute("DELETE FROM RetiredCode WHERE websiteId = ?1", [id])?;
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

/// A word that a column may have.
fn read_word<T>(row: &Row<'_>, column: usize, of_word: fn(&str) -> Option<T>) -> rusqlite::Result<T> {
    let word = row.get_ref(column)?.as_str()?;
    let unknown = || rusqlite::Error::FromSqlConversionFailure(column, Type::Text, format!("unknown: {word}").into());
    of_word(word).ok_or_else(unknown)
}
