//! Pages of events on their way, each held by the connection of its client: where others lack memory, that connection
//! may have to give way.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::activity::{Activity, Held};
use crate::store::PageBuffer;

/// The bytes of a page, which count as held for the client of `activity` until they are sent.
pub(super) fn held_page(page: PageBuffer, kind: Held, activity: &Arc<Activity>) -> Bytes {
    HeldPage::bytes(page, kind, activity, None)
}

/// The same, and what ends when they are.
pub(super) fn leaving_page(page: PageBuffer, kind: Held, activity: &Arc<Activity>) -> (Bytes, Leaving) {
    let (sender, leaving) = oneshot::channel();
    (HeldPage::bytes(page, kind, activity, Some(sender)), leaving)
}

/// Ends, as if by an error, when a page has been sent.
pub(super) type Leaving = oneshot::Receiver<()>;

struct HeldPage {
    page: PageBuffer,
    kind: Held,
    activity: Arc<Activity>,
    /// Tells by its own end that this is gone.
    _leaving: Option<oneshot::Sender<()>>,
}

impl HeldPage {
    fn bytes(page: PageBuffer, kind: Held, activity: &Arc<Activity>, leaving: Option<oneshot::Sender<()>>) -> Bytes {
        activity.holds(kind, 0, page.len());
        Bytes::from_owner(Self { page, kind, activity: Arc::clone(activity), _leaving: leaving })
    }
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
