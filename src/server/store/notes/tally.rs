//! ○ How many notifications there are, counted without reading more than their heads.

use super::note::{DeliveryStatus, Head, NoteKind};

/// How many notifications there are of each kind, incoming and outgoing ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Tally {
    pub total: u64,
    pub sent: u64,
    pub received: u64,
    pub delivered: u64,
    pub errored: u64,
    pub queued: u64,
    pub updates: u64,
    pub deletes: u64,
    pub keys: u64,
    pub texts: u64,
}

impl Tally {
    pub(super) fn add(&mut self, head: &Head) {
        self.total += 1;
        match head.kind {
            NoteKind::Sent => self.sent += 1,
            NoteKind::Received => self.received += 1,
            NoteKind::Own => {}
        }
        *match head.status {
            DeliveryStatus::Delivered => &mut self.delivered,
            DeliveryStatus::Errored => &mut self.errored,
            DeliveryStatus::Queued => &mut self.queued,
        } += 1;
        *if head.update {
            &mut self.updates
        } else {
            &mut self.deletes
        } += 1;
        *if head.text {
            &mut self.texts
        } else {
            &mut self.keys
        } += 1;
    }
}
