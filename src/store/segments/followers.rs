//! Who follows the events of which website: the writer tells them of every group that has any of theirs, and nobody
//! else is woken.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use parking_lot::RwLock;
use tokio::sync::watch;

use super::columns::RowKeys;

/// All who follow a website's events.
#[derive(Debug, Default)]
pub(crate) struct Followers {
    /// How many there are; looked at with every group, which the lock would be too dear for while there is none.
    count: AtomicUsize,
    by_site: RwLock<HashMap<u32, Arc<Followed>>>,
}

/// A website whose events are followed.
#[derive(Debug)]
struct Followed {
    site: u32,
    /// How many follow it.
    followers: AtomicUsize,
    /// How often a group had events of it.
    groups: watch::Sender<u64>,
    /// It is among those whose followers are about to be woken.
    is_pending: AtomicBool,
}

/// One who follows the events of a website. Dropped, it does so no longer.
#[derive(Debug)]
pub(crate) struct Following {
    all: Arc<Followers>,
    followed: Arc<Followed>,
    groups: watch::Receiver<u64>,
}

/// Websites that events have come for, whose followers are to be woken.
#[derive(Debug, Default)]
pub(crate) struct Woken(Vec<Arc<Followed>>);

impl Followers {
    /// Follows the events of the website with this number, from now on.
    pub(crate) fn follow(self: &Arc<Self>, site: u32) -> Following {
        let mut by_site = self.by_site.write();
        let followed = by_site.entry(site).or_insert_with(|| {
            let (followers, groups) = (AtomicUsize::new(0), watch::Sender::new(0));
            Arc::new(Followed { site, followers, groups, is_pending: AtomicBool::new(false) })
        });
        followed.followers.fetch_add(1, Ordering::Relaxed);
        // Before the lock is given back: the writer looks at it first.
        self.count.fetch_add(1, Ordering::SeqCst);
        let (followed, groups) = (Arc::clone(followed), followed.groups.subscribe());
        Following { all: Arc::clone(self), followed, groups }
    }

    /// The websites that rows of a group are of and that somebody follows, unless their followers are about to be woken
    /// already.
    pub(crate) fn of_group(&self, rows: &[RowKeys]) -> Woken {
        let mut woken = Woken::default();
        if self.count.load(Ordering::SeqCst) == 0 {
            return woken;
        }
        let by_site = self.by_site.read();
        let mut last = None;
        for site in rows.iter().map(|row| row.stream.site()) {
            if last.replace(site) == Some(site) {
                continue;
            }
            let Some(followed) = by_site.get(&site) else { continue };
            if !followed.is_pending.swap(true, Ordering::AcqRel) {
                woken.0.push(Arc::clone(followed));
            }
        }
        woken
    }
}

impl Woken {
    /// Whether there is nobody to be woken.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many are to be woken.
    pub(crate) fn followers(&self) -> usize {
        self.0.iter().map(|followed| followed.followers.load(Ordering::Relaxed)).sum()
    }

    /// Wakes them.
    pub(crate) fn wake(self) {
        for followed in self.0 {
            // First, so that what comes while they are being woken wakes them again.
            followed.is_pending.store(false, Ordering::Release);
            followed.groups.send_modify(|groups| *groups += 1);
        }
    }
}

impl Following {
    /// Waits until events have come that were not there when this was last waited for, or when it was begun to follow.
    pub(crate) async fn more(&mut self) {
        // The sender is there as long as it is followed.
        let _ = self.groups.changed().await;
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let mut by_site = self.all.by_site.write();
        self.all.count.fetch_sub(1, Ordering::SeqCst);
        if self.followed.followers.fetch_sub(1, Ordering::Relaxed) > 1 {
            return;
        }
        if let Entry::Occupied(entry) = by_site.entry(self.followed.site) {
            entry.remove();
        }
    }
}
