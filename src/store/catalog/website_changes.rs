//! What the catalog's thread does with websites: registers and changes them, and gives them new tracking codes. (They
//! are deleted where erasures are begun.)

use std::sync::Arc;

use rand::RngExt;

use super::{
    catalog_file::CatalogFile,
    change_error::ChangeError,
    website_table::{self, NewWebsite, WebsiteChange},
    websites::{RetiredCode, Website},
};
use crate::{clock::now_ms, domain::Domain, store::error::CatalogError};

/// What becomes of the tracking code that a website has, when it gets a new one.
#[derive(Debug, Clone, Copy)]
pub struct CodeRenewal {
    /// For how long the code of now stays valid, in milliseconds; 0: it ends at once.
    pub valid_ms: i64,
    /// Most earlier codes of a website that are valid at once.
    pub retired_max: usize,
}

/// A website that got a new tracking code.
#[derive(Debug)]
pub struct Renewed {
    /// The website, with its new code.
    pub website: Arc<Website>,
    /// The code that it had.
    pub previous_code: Arc<str>,
    /// Until when that is valid, in milliseconds since 1970, UTC.
    pub previous_valid_until: i64,
}

impl CatalogFile {
    pub(super) fn create(&mut self, new: NewWebsite) -> Result<Arc<Website>, ChangeError> {
        // Later than every other website's, so that "newest first" is an order even within a millisecond.
        let now = now_ms().max(self.websites.newest_created_at() + 1);
        let website = Website {
            id: format!("web-{}", random_letters(12)).into(),
            tracking_code: self.new_code(now),
            name: new.name,
            domain: new.domain.into_string(),
            description: new.description,
            timezone: new.timezone,
            hosts: new.hosts,
            hosts_policy: new.hosts_policy,
            gpc: new.gpc,
            goals: new.goals,
            created_at: now,
            updated_at: now,
        };
        self.insert(website)
    }

    pub(super) fn insert(&mut self, website: Website) -> Result<Arc<Website>, ChangeError> {
        website_table::insert(&self.connection, &website)?;
        Ok(self.websites.insert(website))
    }

    pub(super) fn fill_in(&mut self, website: Website) -> Result<Arc<Website>, ChangeError> {
        self.find(&website.id)?;
        website_table::update(&self.connection, &website)?;
        Ok(self.websites.insert(website))
    }

    pub(super) fn update(&mut self, id: &str, change: WebsiteChange) -> Result<Arc<Website>, ChangeError> {
        let mut website = self.find(id)?;
        website.name = change.name.unwrap_or(website.name);
        website.domain = change.domain.map_or(website.domain, Domain::into_string);
        website.description = change.description.unwrap_or(website.description);
        website.timezone = change.timezone.unwrap_or(website.timezone);
        website.hosts = change.hosts.unwrap_or(website.hosts);
        website.hosts_policy = change.hosts_policy.unwrap_or(website.hosts_policy);
        website.gpc = change.gpc.unwrap_or(website.gpc);
        website.goals = change.goals.unwrap_or(website.goals);
        website.updated_at = now_ms().max(website.created_at);
        website_table::update(&self.connection, &website)?;
        Ok(self.websites.insert(website))
    }

    /// Gives a website a new tracking code, and keeps the one that it has for a while.
    pub(super) fn renew_code(&mut self, id: &str, renewal: CodeRenewal) -> Result<Renewed, ChangeError> {
        let now = now_ms();
        let mut website = self.find(id)?;
        let mut retired = self.websites.retired_codes(id);
        retired.retain(|retired| now < retired.valid_until);
        let previous_valid_until = now.saturating_add(renewal.valid_ms);
        let previous_code = std::mem::replace(&mut website.tracking_code, self.new_code(now));
        if renewal.valid_ms > 0 {
            let next_end = retired.iter().map(|retired| retired.valid_until).min();
            if let Some(next_end) = next_end.filter(|_| retired.len() >= renewal.retired_max) {
                return Err(ChangeError::Refused(CatalogError::CodesFull(next_end)));
            }
            retired.push(RetiredCode { code: Arc::clone(&previous_code), valid_until: previous_valid_until });
        }
        website.updated_at = now.max(website.created_at);
        let transaction = self.connection.transaction()?;
        website_table::update_code(&transaction, &website)?;
        website_table::replace_retired(&transaction, id, &retired)?;
        website_table::remove_retired(&transaction, now)?;
        transaction.commit()?;
        let website = self.websites.renew(website, retired);
        Ok(Renewed { website, previous_code, previous_valid_until })
    }

    pub(super) fn find(&self, id: &str) -> Result<Website, ChangeError> {
        self.websites.get(id).map(Arc::unwrap_or_clone).ok_or(ChangeError::Refused(CatalogError::NotFound))
    }

    /// A tracking code that no website has or had until lately: trackers still send those.
    fn new_code(&self, now: i64) -> Arc<str> {
        loop {
            let code = format!("pm-{}-{now:013}", random_letters(6));
            // Two of one millisecond are the same once in two thousand million times, and never twice in turn.
            if !self.websites.has_code(&code) {
                return code.into();
            }
        }
    }
}

/// Letters of a to z and 0 to 9, from the system's secure generator.
pub(super) fn random_letters(count: usize) -> String {
    const LETTERS: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let mut random = rand::rng();
    (0..count).map(|_| char::from(LETTERS[random.random_range(0..LETTERS.len())])).collect()
}
