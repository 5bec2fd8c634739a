//! What a daemon is told: who may open what, through which device.

use std::{path::PathBuf, time::Duration};

use super::source::ClientSource;
#[cfg(feature = "held")]
use crate::classic::habits::DaemonHabits;
use crate::session::ask::Requirement;
use crate::{
    at::{
        AtSign,
        pins::{Fingerprint, NamedKeys},
    },
    classic::keyring::{KeyOptions, TemporaryKeyRule},
    np::{ids::DeviceName, permit::Permit},
    session::authorise::Consult,
    text::endpoint::Endpoint,
};

/// Who may open what, through which daemon.
#[derive(Clone, Debug)]
pub struct DaemonOptions {
    /// Name of this device.
    pub device: DeviceName,
    /// Who may open sessions.
    pub managers: Vec<AtSign>,
    /// Whom to ask about everybody else.
    pub consult: Option<Consult>,
    /// What they may open.
    pub permit: Permit,
    /// Where the device's sshd listens.
    pub sshd: Endpoint,
    /// Others of this name are meant to be.
    pub shared_name: bool,
    /// From where its clients come, to it.
    pub client_source: ClientSource,
    /// Publish nothing.
    pub hide: bool,
    /// What is done with ssh keys, and for older clients.
    pub ssh: Ssh,
    /// Nobody may do without encryption or without the login at the rendezvous.
    pub require_protection: bool,
    /// What else nobody may do without.
    pub require: Option<Requirement>,
    /// Within this a connection to the atServer that has died in silence is replaced.
    pub proof: Duration,
    /// The generation that it is held to.
    #[cfg(feature = "held")]
    pub habits: DaemonHabits,
    /// The executable that a session's bridge is started from.
    pub program: PathBuf,
    /// The folder for what must outlive the daemon, if there is one.
    pub memory: Option<PathBuf>,
    /// The folder of its bridges' control sockets, if there are to be any.
    pub bridges: Option<PathBuf>,
    /// Nobody else is let in by its atServer, besides managers, policy and these rendezvous.
    pub only_managers: Option<Vec<AtSign>>,
    /// Keys of managers that were named with them.
    pub pins: NamedKeys,
    /// Keys that may take the place of those that are remembered.
    pub recovery: Vec<Fingerprint>,
    /// A rendezvous may be at any address, also an inner one.
    pub allow_inner: bool,
    /// Bridges confine themselves.
    pub sandbox: bool,
    /// Live sessions at a time.
    pub max_sessions: u64,
}

impl DaemonOptions {
    /// The file in which this daemon keeps that.
    pub(super) fn memory_of(&self, me: &AtSign, what: &str) -> Option<PathBuf> {
        let folder = self.memory.as_ref()?;
        Some(folder.join(format!("{}{me}.{what}", self.device)))
    }
}

/// What is done with ssh keys, and for older clients.
#[derive(Clone, Debug, Default)]
pub struct Ssh {
    /// Clients may let their public keys in, behind these options.
    pub accept_keys: Option<KeyOptions>,
    /// When a session brings a temporary key along.
    pub temporary_keys: TemporaryKeyRule,
    /// Further options of such a key.
    pub temporary_options: KeyOptions,
    /// The device logs in to clients that ask for it.
    pub reverse: bool,
    /// The old form of request is answered with a bare word.
    pub bare_answers: bool,
    /// The file with the keys that sshd lets in, if it is not the user's own.
    pub file: Option<PathBuf>,
}
