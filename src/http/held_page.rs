//! Pages of events on their way, each held by the connection of its client: where others lack memory, that connection
//! may have to give way.

use std::sync::Arc;

use bytes::Bytes;

use super::activity::{Activity, Held};
use crate::store::PageBuffer;

/// The bytes of a page, which count as held for the client of `activity` until they are sent.
pub(super) fn held_page(page: PageBuffer, kind: Held, activity: &Arc<Activity>) -> Bytes {
    activity.holds(kind, 0, page.len());
    Bytes::from_owner(HeldPage { page, kind, activity: Arc::clone(activity) })
}

struct HeldPage {
    page: PageBuffer,
    kind: Held,
    activity: Arc<Activity>,
}

impl AsRef<[u8]> for HeldPage {
    fn as_ref(&self) -> &[u8] {
        self.page.as_ref()
    }
}

impl Drop for HeldPage {
    fn drop(&mut self) {
        self.activity.holds(self.kind, self.page.len(), 0);
    }
}
