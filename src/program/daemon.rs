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
//! | [`allow`] | who reaches its atServer at all |
//! | [`args`] | the command line |
//! | [`budgets`] | what others may use up: the table |
//! | [`request`] | a request, from its text to its answer |
//! | [`publish`] | what it says of itself |
//! | [`live`] | live sessions: their places, their ends; those that were there before |
//! | [`known`] | the sessions of the last minutes |
//! | [`acted`] | requests that were acted on, also before a restart |
//! | [`source`] | where a client's ssh sessions come from, to sshd |
//!
//! ssh keys that are let in, of people for good and of sessions for seconds, are a matter of [`classic::keyring`](crate::classic::keyring),
//! logging in to clients before 4.0 of [`classic::reverse`](crate::classic::reverse).
//!
//! Each session has a process of its own, so a daemon that restarts, is upgraded or crashes leaves
//! running sessions alone, and finds them again by their control sockets.
//!
//! A daemon whose keys were revoked, or have expired, says so in its log and asks again every two minutes, so
//! `noports enroll unrevoke` brings it back without anybody going there; started by hand it ends with exit code 6. It
//! publishes its user name for managers only, so others say `noports client --user NAME`. A request longer than 64 KiB is
//! passed over.
//!
//! To sshd, sessions come from 127.0.0.1; to one of OpenSSH 9.8 and later each client's come from an address of its own,
//! `127.x.y.z` with an x from 1 up, the same every time: its `source=` in the log. So `from="127.0.0.1"` in
//! `authorized_keys`, `AllowUsers u@127.0.0.1`, `Match Address 127.0.0.1` and fail2ban's `ignoreip` have to say `127.0.0.0/8`
//! there; or `--client-source off` leaves all at 127.0.0.1, and then `PerSourcePenaltyExemptList 127.0.0.1` in `sshd_config`
//! keeps one person's wrong key from shutting out all. Where the address cannot be had (not Linux, sshd at `::1` only) a
//! line in the log says so. An ssh inside another (clients before 5.3) comes from sshd itself, so from 127.0.0.1.

use std::{future::Future, sync::Arc, time::Instant};

use async_std::{future::timeout, task};
use futures_lite::future;
use log::{debug, error, info, warn};

use crate::{
    at::{AtSign, Notification, client::Network, directory::Root, keyfile::AtKeys, pins::Pins},
    budget::{Budget, Claim},
    classic::keyring::{Keyring, KeyringGuard},
    cli::Failure,
    net::{
        dial::resolve,
        network::{Nearness, NearnessSet},
    },
    np::{
        NAMESPACE,
        ids::Nonce,
        permit::Permit,
        policy,
        sshkey::{self, KeyFate, PublicKeyLine},
    },
    secret::Secret,
    session::{
        authorise::{Doorman, Verdict},
        ignored, online,
    },
    sys::authorized_keys::AuthorizedKeys,
    text::{endpoint::Endpoint, json::Object},
};

pub use crate::classic::keyring::{KeyOptions, TemporaryKeyRule};
pub use args::{main, verify};
pub use options::{DaemonOptions, Ssh};
pub use source::ClientSource;

use acted::ActedRequests;
use budgets::{STARTING, STARTING_OF_ONE, TURN};
use publish::Pings;
use request::RequestWord;
use source::ClientSources;
use state::Daemon;

pub(crate) use args::Args;

mod acted;
mod allow;
mod args;
mod budgets;
mod known;
mod live;
mod options;
mod publish;
mod request;
mod source;
mod state;

/// Serves until the connection has ended for good. `ready` is called once, with a JSON line, when requests are heard.
///
/// # Errors
/// When trying again cannot help.
pub async fn serve(
    network: Network,
    keys: Arc<AtKeys>,
    options: DaemonOptions,
    ready: impl FnOnce(&str),
) -> Result<(), Failure> {
    let mut watch = format!(r"\.{}\.{NAMESPACE}@", options.device);
    if options.consult.is_some() {
        watch = format!("{watch}|{}", policy::WATCH_RPC);
    }
    let (keyring, _closing) = keyring(&options.ssh, &options.sshd).await;
    let (at, inbox) = online::log_in(&network, &keys, &watch, options.proof).await?;
    let acted = ActedRequests::open(options.memory_of(at.atsign(), "acted")).await;
    let pins = Pins::with_recovery(
        options.memory.clone(),
        options.pins.clone(),
        options.recovery.clone(),
    );
    at.heed(pins.clone(), None);
    say_who_is_not_pinned(&pins, &options).await;
    let (device, managers) = (options.device.clone(), options.managers.clone());
    let nearness = if options.allow_inner {
        None
    } else {
        Some(nearness_of(&network.root).await)
    };
    let secret = keys.self_key.reveal();
    let sources = match options.client_source {
        ClientSource::Auto => Some(ClientSources::new(secret, &options.sshd)),
        ClientSource::Off => None,
    };
    if let Some(sources) = sources.clone() {
        task::spawn(sources.ask());
    }
    let daemon = Daemon {
        doorman: Doorman::new(
            at.clone(),
            device,
            managers,
            options.consult.clone(),
            pins.clone(),
        ),
        pins,
        at,
        known: Arc::default(),
        acted,
        run: Nonce::random(),
        namesakes: Arc::default(),
        slots: Arc::default(),
        starting: Budget::new(STARTING),
        sessions: Budget::new(budgets::sessions(options.max_sessions)),
        options: Arc::new(options),
        pings: Pings::default(),
        nearness,
        keyring,
        sources,
    };
    daemon.find_sessions().await;
    ready(&daemon.announce());
    // No tasks of their own: they end with us, and with them the last of the daemon's connections.
    let publishing = async {
        let telling = future::zip(daemon.publish_for_ever(), daemon.show_for_ever());
        let telling = future::zip(telling, daemon.look_for_namesakes());
        let telling = future::zip(telling, daemon.tell_unknown_names());
        future::zip(telling, daemon.allow_only_ours()).await;
        future::pending().await
    };
    let listening = online::listen(inbox, |note| daemon.hear(note));
    future::or(listening, publishing).await
}

/// At a start, where keys cannot be remembered: whose first key counts each time.
async fn say_who_is_not_pinned(pins: &Pins, options: &DaemonOptions) {
    let Err(why) = pins.can_remember().await else {
        return;
    };
    if let Err(unreadable) = pins.read() {
        return error!("keys_of_others=unreadable reason=\"{unreadable}\": nobody is let in");
    }
    let policy = options.consult.as_ref().map(|consult| &consult.policy);
    let all = options.managers.iter().chain(policy);
    let first: Vec<_> = all.filter(|who| pins.named(who).is_none()).collect();
    if let [example, ..] = first.as_slice() {
        let first: Vec<_> = first.iter().map(|who| who.as_str()).collect();
        warn!(
            "keys_of_others=in_memory of={} reason=\"{why}\": after each start their first key counts; name managers' \
             keys: --manager {example}#FINGERPRINT",
            first.join(",")
        );
    }
}

/// How near the atDirectory is: whoever is sent there may be sent as near by others, to each kind of address that it has.
/// Unknown counts as far away.
async fn nearness_of(root: &Root) -> NearnessSet {
    let (Root::Directory(at) | Root::Proxy(at)) = root;
    let found = resolve(at).await.unwrap_or_default();
    let near: NearnessSet = found.iter().map(|at| Nearness::of(at.ip())).collect();
    if near.is_empty() {
        return [Nearness::World].into_iter().collect();
    }
    near
}

/// The ssh keys of this machine's user, without what an earlier run left behind.
async fn keyring(ssh: &Ssh, sshd: &Endpoint) -> (Keyring, KeyringGuard) {
    let file = match &ssh.file {
        Some(path) => Some(AuthorizedKeys::at(path)),
        None => AuthorizedKeys::of_this_user().ok(),
    };
    Keyring::start(file, sshd.clone(), ssh.temporary_options.clone()).await
}

impl Daemon {
    fn announce(&self) -> String {
        let (at, p) = (self.at.atsign(), &self.options);
        let pinned = |who: &AtSign| match self.pins.named(who) {
            Some(key) => format!("{who}#{key}"),
            None => who.to_string(),
        };
        let managers: Vec<_> = p.managers.iter().map(pinned).collect();
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
        if self.doorman.takes(&note) || self.word(&note).is_none() || self.hears_namesake(&note) {
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
        let ssh = &self.options.ssh;
        match word {
            #[cfg(feature = "held")]
            _ if !self.options.habits.hears(word) => ignored("held_to_its_time"),
            "ping" => self.answer_pings(note, permit.is_ok()),
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

    /// In a task of its own, when it is its sender's turn, unless too many wait.
    fn work<F>(&self, from: &AtSign, what: impl FnOnce(Self) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let claim = Claim::of(from.clone(), STARTING_OF_ONE);
        let (starting, work) = (self.starting.clone(), what(self.clone()));
        task::spawn(async move {
            // Whoever waited longer has given up by now.
            let turn = timeout(TURN, starting.wait(claim)).await;
            if let Ok(Some(_turn)) = turn {
                work.await;
            }
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

    /// A public key that is to be let in for good: a way to the same sshd, so only for who may open that. The client is told
    /// what became of it.
    async fn accept_key(self, note: Notification, permit: Result<Permit, String>) {
        let from = &note.from;
        let ignore =
            |why: &str| ignored::note(from, format_args!("word=sshpublickey reason={why:?}"));
        let text = self.at.decrypt(&note).await.ok().flatten();
        let key = match PublicKeyLine::parse(&text.unwrap_or_default()) {
            Ok(key) => key,
            Err(why) => return ignore(&why.to_string()),
        };
        let allowed = permit.and_then(|permit| self.judge(None, &permit).map(drop));
        let fate = match allowed {
            Ok(()) => self.add_key(from, &key).await,
            Err(why) => {
                ignore(&why);
                KeyFate::Lost(why)
            }
        };
        let told = key.told(&fate, from, &self.options.device);
        online::send_or_log(&self.at, &told).await;
    }

    async fn add_key(&self, from: &AtSign, key: &PublicKeyLine) -> KeyFate {
        let Some(options) = &self.options.ssh.accept_keys else {
            return KeyFate::Lost("no keys are accepted".to_owned());
        };
        let added = self.keyring.add(key, options).await;
        let has_line = ignored::has_line(&format!("public_keys from={from}"), ignored::FEW);
        match added {
            Ok(is_new) => {
                let fate = if is_new {
                    ("added", KeyFate::Added)
                } else {
                    ("known", KeyFate::Known)
                };
                if has_line {
                    info!("public_key={} from={from}", fate.0);
                }
                fate.1
            }
            Err(error) => {
                if has_line {
                    error!("public_key=lost from={from} reason={:?}", error.to_string());
                }
                KeyFate::Lost(error.to_string())
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use async_std::task::block_on;

    use super::*;

    #[test]
    fn a_directory_is_as_near_as_its_addresses() {
        for (root, nearness) in [
            ("localhost:64", Nearness::Host),
            ("127.0.0.1:64", Nearness::Host),
            ("proxy:10.1.2.3:443", Nearness::Site),
            ("198.51.100.7:64", Nearness::World),
            ("no-such-name.invalid:64", Nearness::World),
        ] {
            let found = block_on(nearness_of(&root.parse().unwrap()));
            assert_eq!(found, [nearness].into_iter().collect(), "{root}");
        }
    }
}
