//! What all of a daemon's tasks share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{
    acted::ActedRequests,
    known::RecentSessions,
    options::DaemonOptions,
    publish::{Namesakes, Pings},
    source::ClientSources,
};
use crate::{
    at::{AtSign, Notification, client::Client, pins::Pins, verb::Operation},
    budget::Budget,
    classic::{keyring::Keyring, reverse::device::KeySlots},
    net::network::NearnessSet,
    np::{NAMESPACE, ids::Nonce},
    session::authorise::Doorman,
};

/// The daemon; cheap to clone.
#[derive(Clone)]
pub(super) struct Daemon {
    pub at: Client,
    pub doorman: Doorman,
    pub options: Arc<DaemonOptions>,
    pub known: Arc<Mutex<RecentSessions>>,
    pub acted: ActedRequests,
    /// Which start this is: requests are signed for it.
    pub run: Nonce,
    /// Other daemons of our atSign and name.
    pub namesakes: Arc<Mutex<Namesakes>>,
    /// Private keys that wait for the request that uses them.
    pub slots: Arc<Mutex<KeySlots>>,
    pub starting: Budget<AtSign>,
    pub sessions: Budget<AtSign>,
    pub pings: Pings,
    pub keyring: Keyring,
    /// Where clients come from, to sshd.
    pub sources: Option<ClientSources>,
    pub pins: Pins,
    /// A rendezvous may be where somebody may be sent whose directory is so near; else anywhere.
    pub nearness: Option<NearnessSet>,
}

impl Daemon {
    /// The first part of `<word>.<device>.sshnp`, if the notification is for this device.
    pub(super) fn word<'a>(&self, note: &'a Notification) -> Option<&'a str> {
        if note.operation != Operation::Update || note.is_text || note.is_stats() {
            return None;
        }
        let rest = note
            .entity()
            .strip_suffix(&format!(".{}.{NAMESPACE}", self.options.device))?;
        (!rest.contains('.')).then_some(rest)
    }

    pub(super) fn known(&self) -> MutexGuard<'_, RecentSessions> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn namesakes(&self) -> MutexGuard<'_, Namesakes> {
        self.namesakes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn slots(&self) -> MutexGuard<'_, KeySlots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
