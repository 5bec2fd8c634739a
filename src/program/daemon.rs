//! `noports daemon`: waits on a device for sessions. Listens on nothing.
//!
//! ```text
//!   monitor ──notification──▶ is the sender on the list? ──no──▶ a line in the log, silence;
//!                                   │ yes                        with a policy: what it says
//!                     ping ◀────────┤────────▶ ssh_request, npt_request: judge ──no──▶ the reason,
//!                  heartbeat                     │ yes                                 to the client
//!                                                ▼
//!                             a bridge process: local service ⇄ rendezvous
//!                                                │ it is up
//!                                                ▼
//!                                 answer with the session's keys
//! ```
//!
//! | file | what |
//! | --- | --- |
//! | [`args`] | the command line |
//! | [`session`] | a request, from its text to its answer |
//! | [`publish`] | what it says of itself |
//! | [`known`] | the sessions of the last minutes |
//!
//! ssh keys that are let in, of people for good and of sessions for seconds, are a matter of [`classic::keyring`](crate::classic::keyring),
//! logging in to clients before 4.0 of [`classic::reverse`](crate::classic::reverse).
//!
//! Each session has a process of its own, so a daemon that restarts, is upgraded or crashes leaves
//! running sessions alone.
//!
//! A daemon whose keys were revoked, or have expired, says so in its log and asks again every two minutes, so
//! `noports enroll unrevoke` brings it back without anybody going there; started by hand it ends with exit code 6. It
//! publishes its user name for managers only, so others say `noports client --user NAME`. A request longer than 64 KiB is
//! passed over.

use std::{
    future::Future,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
    time::Instant,
};

use async_std::task;
use futures_lite::future;
use log::{debug, error, info};

#[cfg(feature = "held")]
use crate::classic::habits::DaemonHabits;
use crate::{
    at::{
        AtSign, Notification,
        client::{Client, Network},
        keyfile::AtKeys,
        verb::Operation,
    },
    classic::{
        keyring::{Keyring, KeyringGuard},
        reverse::device::KeySlots,
    },
    cli::Failure,
    np::{
        NAMESPACE,
        ids::DeviceName,
        permit::Permit,
        policy,
        request::{SshRequest, TunnelRequest},
        sshkey::{self, PublicKeyLine},
    },
    secret::Secret,
    session::{
        authorise::{Consult, Doorman, Verdict},
        ignored,
        in_work::InWork,
        online,
    },
    sys::authorized_keys::AuthorizedKeys,
    text::json::Object,
};

pub use crate::classic::keyring::{KeyOptions, TemporaryKeyRule};
pub use args::{main, verify};

use known::RecentSessions;
use session::RequestWord;

pub(crate) use args::Args;

mod args;
mod known;
mod publish;
mod session;

/// Messages that may be worked on at the same time, and of one sender; more wait for no one and are dropped.
const MAX_STARTING: usize = 64;
const MAX_STARTING_OF_ONE: usize = 48;

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
    /// Port of the local sshd.
    pub sshd_port: u16,
    /// Publish nothing.
    pub hide: bool,
    /// What is done with ssh keys, and for older clients.
    pub ssh: Ssh,
    /// Nobody may do without encryption or without the login at the rendezvous.
    pub require_protection: bool,
    /// Within this a connection to the atServer that has died in silence is replaced.
    pub proof: Duration,
    /// The generation that it is held to.
    #[cfg(feature = "held")]
    pub habits: DaemonHabits,
    /// The executable that a session's bridge is started from.
    pub program: PathBuf,
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

/// Serves until the connection has ended for good. `ready` is called once, with a JSON line, when requests are heard.
///
/// # Errors
/// When trying again cannot help.
pub async fn serve(
    network: Network,
    keys: Arc<AtKeys>,
    policy: DaemonOptions,
    ready: impl FnOnce(&str),
) -> Result<(), Failure> {
    let mut watch = format!(r"\.{}\.{NAMESPACE}@", policy.device);
    if policy.consult.is_some() {
        watch = format!("{watch}|{}", policy::WATCH_RPC);
    }
    let (keyring, _closing) = keyring(&policy.ssh, policy.sshd_port).await;
    let (at, inbox) = online::log_in(&network, &keys, &watch, policy.proof).await?;
    let (device, managers) = (policy.device.clone(), policy.managers.clone());
    let daemon = Daemon {
        doorman: Doorman::new(at.clone(), device, managers, policy.consult.clone()),
        at,
        policy: Arc::new(policy),
        known: Arc::default(),
        slots: Arc::default(),
        in_work: InWork::new(MAX_STARTING, MAX_STARTING_OF_ONE),
        keyring,
    };
    ready(&daemon.announce());
    // No tasks of their own: they end with us, and with them the last of the daemon's connections.
    let publishing = async {
        future::zip(daemon.publish_for_ever(), daemon.show_for_ever()).await;
        future::pending().await
    };
    let listening = online::listen(inbox, |note| daemon.hear(note));
    future::or(listening, publishing).await
}

/// The ssh keys of this machine's user, without what an earlier run left behind.
async fn keyring(ssh: &Ssh, sshd_port: u16) -> (Keyring, KeyringGuard) {
    let file = match &ssh.file {
        Some(path) => Some(AuthorizedKeys::at(path)),
        None => AuthorizedKeys::of_this_user().ok(),
    };
    Keyring::start(file, sshd_port, ssh.temporary_options.clone()).await
}

/// The daemon; cheap to clone.
#[derive(Clone)]
struct Daemon {
    at: Client,
    doorman: Doorman,
    policy: Arc<DaemonOptions>,
    known: Arc<Mutex<RecentSessions>>,
    /// Private keys that wait for the request that uses them.
    slots: Arc<Mutex<KeySlots>>,
    in_work: InWork,
    keyring: Keyring,
}

impl Daemon {
    fn announce(&self) -> String {
        let (at, p) = (self.at.atsign(), &self.policy);
        let managers: Vec<_> = p.managers.iter().map(AtSign::as_str).collect();
        info!(
            "ready as={at} device={} managers={} policy={} permit={}",
            p.device,
            managers.join(","),
            p.consult.as_ref().map_or("none", |c| c.policy.as_str()),
            p.permit
        );
        Object::event("ready")
            .text("as", at.as_str())
            .text("device", p.device.as_str())
            .end()
    }

    /// One notification. Never blocks: whatever takes time gets a task of its own.
    fn hear(&self, note: Notification) {
        if self.doorman.takes(&note) || self.word(&note).is_none() {
            return;
        }
        let daemon = self.clone();
        task::spawn(async move {
            let verdict = daemon.doorman.authorise(&note.from).await;
            daemon.act(note, verdict);
        });
    }

    fn act(&self, note: Notification, verdict: Verdict) {
        let Some(word) = self.word(&note) else { return };
        let ignored =
            |reason: &str| ignored::note(&note.from, format_args!("word={word} reason={reason}"));
        let permit = match verdict {
            Verdict::Allowed(permit) => Ok(permit),
            Verdict::Denied(why) => Err(why),
            Verdict::Ignored(reason) => return ignored(reason),
        };
        let ssh = &self.policy.ssh;
        match word {
            #[cfg(feature = "held")]
            _ if !self.policy.habits.hears(word) => ignored("held_to_its_time"),
            "ping" => drop(task::spawn(self.clone().answer_ping(note, permit.is_ok()))),
            "ssh_request" => self.start(note, RequestWord::Ssh, permit),
            "npt_request" => self.start(note, RequestWord::Tunnel, permit),
            "sshd" if ssh.reverse => self.start(note, RequestWord::Reverse, permit),
            "privatekey" if ssh.reverse => self.work(&note.from.clone(), |daemon| async move {
                daemon.keep_private_key(note, permit).await;
            }),
            "sshpublickey" if ssh.accept_keys.is_some() => {
                self.work(&note.from.clone(), |daemon| async move {
                    daemon.accept_key(note, permit).await;
                })
            }
            "sshd" | "privatekey" => ignored("no_reverse_ssh"),
            "sshpublickey" => ignored("no_public_keys"),
            _ => ignored("unknown_word"),
        }
    }

    fn start(&self, note: Notification, word: RequestWord, permit: Result<Permit, String>) {
        self.work(&note.from.clone(), |daemon| async move {
            match permit {
                Ok(permit) => daemon.serve(note, word, &permit).await,
                Err(why) => daemon.deny(note, word, &why).await,
            }
        });
    }

    /// In a task of its own, unless there are too many.
    fn work<F>(&self, from: &AtSign, what: impl FnOnce(Self) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let Some(working) = self.in_work.begin(from) else {
            return;
        };
        let work = what(self.clone());
        task::spawn(async move {
            work.await;
            drop(working);
        });
    }

    /// A private key for a request that is about to come from the same sender.
    async fn keep_private_key(self, note: Notification, permit: Result<Permit, String>) {
        let from = &note.from;
        let text = self.at.decrypt(&note).await.ok().flatten().map(Secret::new);
        let key = text.map(|text| sshkey::private_key(text.reveal()));
        let kept = match (permit, key) {
            (Err(_), _) => "denied",
            (_, Some(Ok(key))) => {
                if self.slots().put(from, key, Instant::now()) {
                    return debug!("private_key=kept from={from}");
                }
                "too_many_keys"
            }
            (_, Some(Err(_)) | None) => "no_key",
        };
        ignored::note(from, format_args!("word=privatekey reason={kept}"));
    }

    /// A public key that is to be let in for good: a way to the same sshd, so only for who may open that.
    async fn accept_key(self, note: Notification, permit: Result<Permit, String>) {
        let from = &note.from;
        let ignored =
            |why: &str| ignored::note(from, format_args!("word=sshpublickey reason={why:?}"));
        let allowed = permit.and_then(|permit| self.judge(None, &permit).map(drop));
        if let Err(why) = allowed {
            return ignored(&why);
        }
        let text = self
            .at
            .decrypt(&note)
            .await
            .ok()
            .flatten()
            .unwrap_or_default();
        let key = match PublicKeyLine::parse(&text) {
            Ok(key) => key,
            Err(why) => return ignored(&why.to_string()),
        };
        let Some(options) = &self.policy.ssh.accept_keys else {
            return;
        };
        match self.keyring.add(&key, options).await {
            Ok(true) => info!("public_key=added from={from}"),
            Ok(false) => info!("public_key=known from={from}"),
            Err(error) => error!("public_key=lost from={from} reason={:?}", error.to_string()),
        }
    }

    /// The first part of `<word>.<device>.sshnp`, if the notification is for this device.
    fn word<'a>(&self, note: &'a Notification) -> Option<&'a str> {
        if note.operation != Operation::Update || note.is_text || note.is_stats() {
            return None;
        }
        let rest = note
            .entity()
            .strip_suffix(&format!(".{}.{NAMESPACE}", self.policy.device))?;
        (!rest.contains('.')).then_some(rest)
    }

    fn known(&self) -> MutexGuard<'_, RecentSessions> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn slots(&self) -> MutexGuard<'_, KeySlots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a client may ask for, at a rendezvous.
enum SessionRequest {
    Ssh(SshRequest),
    Tunnel(TunnelRequest),
}
