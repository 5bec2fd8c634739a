//! Looking up others' keys on connections of their own, for services that do it on behalf of strangers.
//!
//! ```text
//!   our atServer asks the other's, and meanwhile that connection carries nothing else
//!
//!   key of @bob, for @alice ─▶ was @bob's server silent within the last minute? ─ yes ─▶ an error at once
//!                              │ no
//!                              ▼
//!                one of 4 places: 2 for one asker, 2 for all together whose last questions met silence
//!                              │                                    all taken: a line, not a long one, for 3 s
//!                              ▼
//!                a connection that is there, or a new one ─▶ 3 s ─▶ the key, or silence that is remembered
//! ```
//! That it does not let us in is an answer: `SHUT_OUT`.
//! So one silent server costs whoever asks for it 3 s in a minute, and nobody else anything; and those who ask for
//! many silent ones share two places, while two are left for everybody else. Whose own server was silent did not choose
//! that; but a server may have many names, so those on a host where another one was silent share the same two. Programs that ask for themselves use the
//! command connection: it saves them a login.

use std::{
    fmt::{self, Display, Formatter},
    sync::{Arc, Mutex as StdMutex, MutexGuard, OnceLock, PoisonError, Weak},
    time::{Duration, Instant},
};

use async_std::{
    future::timeout,
    task::{sleep, spawn},
};

use crate::{
    at::{
        atsign::AtSign,
        error::AtError,
        fault::{Code, Fault},
        reply::Reply,
        verb::Verb,
    },
    budget::{Budget, Claim, Limits},
    net::recent::Recent,
};

use super::{
    link::{self, Link, LinkError},
    worker::Commands,
};

/// Connections, and who waits for one.
const LIMITS: Limits = Limits::new("key_lookups", 4).with_line(64, 8);
/// Places of one asker.
const OF_ONE: u64 = 2;
/// Places of all together whose questions met silence within [`MEMORY`].
const OF_SUSPECTS: u64 = 2;
/// How long silence is remembered.
const MEMORY: Duration = Duration::from_secs(60);
/// How long it is remembered that another atServer does not let us in: that costs nobody any waiting, and its owner may
/// be about to change it.
const SHUT_OUT: Duration = Duration::from_secs(5);
/// Most atSigns that are remembered, of either kind.
const MAX_REMEMBERED: usize = 1024;
/// For its farewell.
const GOODBYE: Duration = Duration::from_secs(1);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Asker {
    One(AtSign),
    Suspects,
}

impl Display for Asker {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(asker) => write!(f, "{asker}"),
            Self::Suspects => f.write_str("suspects"),
        }
    }
}

/// The command connection, and where questions about others go in a service.
pub(super) struct LookupRouter {
    pub commands: Commands,
    /// There for services.
    pub apart: OnceLock<Arc<Lookups>>,
}

impl LookupRouter {
    /// Asks for something of `of`, because of `asker`.
    pub(super) async fn look_up(
        &self,
        asker: &AtSign,
        of: &AtSign,
        verb: &Verb,
    ) -> Result<String, AtError> {
        match self.apart.get() {
            Some(lookups) => lookups.ask(&self.commands, asker, of, verb).await,
            None => self.commands.run(verb).await,
        }
    }
}

/// The connections, and what is remembered.
pub(super) struct Lookups {
    places: Budget<Asker>,
    memory: StdMutex<PeerFailures>,
    idle: StdMutex<IdleLinks>,
}

struct PeerFailures {
    /// Whose atServer was silent.
    silent: Recent<AtSign>,
    /// On which hosts.
    hosts: Recent<String>,
    /// Who asked for such a one.
    suspects: Recent<AtSign>,
    /// Whose atServer does not let us in.
    shut: Recent<AtSign>,
}

#[derive(Default)]
struct IdleLinks {
    links: Vec<(Link, Instant)>,
    /// Somebody closes what is old.
    tended: bool,
}

impl IdleLinks {
    /// One that was used since then. The others may be dead, and their silence would be taken for that of somebody's server.
    fn pop(&mut self, since: Option<Instant>) -> Option<Link> {
        let is_sound = |used: Instant| since.is_none_or(|since| used > since);
        self.links.retain(|(_, used)| is_sound(*used));
        self.links.pop().map(|(link, _)| link)
    }
}

impl Lookups {
    pub(super) fn new() -> Arc<Self> {
        let recent = || Recent::new(MEMORY, MAX_REMEMBERED);
        Arc::new(Self {
            places: Budget::new(LIMITS),
            memory: StdMutex::new(PeerFailures {
                silent: recent(),
                hosts: Recent::new(MEMORY, MAX_REMEMBERED),
                suspects: recent(),
                shut: Recent::new(SHUT_OUT, MAX_REMEMBERED),
            }),
            idle: StdMutex::default(),
        })
    }

    fn memory(&self) -> MutexGuard<'_, PeerFailures> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn idle(&self) -> MutexGuard<'_, IdleLinks> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for something of `of`, because of `asker`.
    pub(super) async fn ask(
        self: &Arc<Self>,
        commands: &Commands,
        asker: &AtSign,
        of: &AtSign,
        verb: &Verb,
    ) -> Result<String, AtError> {
        let within = commands.timing().lookup;
        self.recall(of)?;
        let is_suspect = self.is_suspect(asker) || self.is_on_a_silent_host(commands, of).await;
        let claim = Self::claim(asker, is_suspect);
        let waiting = timeout(within, self.places.wait(claim)).await;
        let Ok(Some(place)) = waiting else {
            return Err(AtError::NoKeyNow(of.clone(), "too many keys are asked for"));
        };
        // Whoever was first may have found out meanwhile.
        self.recall(of)?;
        let outcome = self.ask_somewhere(commands, verb, within).await;
        let silent = match &outcome {
            Err(AtError::Refused(fault)) => is_silence(fault),
            Err(AtError::Silent(_)) => answers(commands, within).await,
            _ => false,
        };
        drop(place);
        let host = if silent {
            host_of(commands, of).await
        } else {
            None
        };
        let mut memory = self.memory();
        if silent {
            if let Some(host) = host {
                memory.hosts.add(&host, Instant::now());
            }
            memory.silent.add(of, Instant::now());
            // Whose own server is silent for a while did not choose that; whoever names others' did.
            if asker != of {
                memory.suspects.add(asker, Instant::now());
            }
            return Err(silence(of));
        }
        if matches!(&outcome, Err(AtError::Refused(fault)) if is_shut(fault)) {
            memory.shut.add(of, Instant::now());
            return Err(AtError::ShutOut(of.clone()));
        }
        // A good answer forgives nothing: whoever asks for silent ones can ask for a good one in between.
        outcome
    }

    fn recall(&self, of: &AtSign) -> Result<(), AtError> {
        let (memory, now) = (self.memory(), Instant::now());
        if memory.silent.has(of, now) {
            return Err(silence(of));
        }
        if memory.shut.has(of, now) {
            return Err(AtError::ShutOut(of.clone()));
        }
        Ok(())
    }

    /// Whether somebody else's atServer there was silent within the last minute. As long as none was, nobody is asked.
    async fn is_on_a_silent_host(&self, commands: &Commands, of: &AtSign) -> bool {
        if !self.memory().hosts.any(Instant::now()) {
            return false;
        }
        let host = host_of(commands, of).await;
        host.is_some_and(|host| self.memory().hosts.has(&host, Instant::now()))
    }

    /// Whether its last questions met silence.
    pub(super) fn is_suspect(&self, asker: &AtSign) -> bool {
        self.memory().suspects.has(asker, Instant::now())
    }

    fn claim(asker: &AtSign, is_suspect: bool) -> Claim<Asker> {
        let claim = Claim::of(Asker::One(asker.clone()), OF_ONE);
        if is_suspect {
            claim.and(Asker::Suspects, OF_SUSPECTS)
        } else {
            claim
        }
    }

    /// On a connection that is there; where it has ended meanwhile, or there is none, on a new one.
    async fn ask_somewhere(
        self: &Arc<Self>,
        commands: &Commands,
        verb: &Verb,
        within: Duration,
    ) -> Result<String, AtError> {
        let line = link::command(verb)?;
        let used = self.idle().pop(commands.logins.alarm.last_rung());
        let earlier = match used {
            Some(mut link) => Some((link.ask_line(&line, within).await, link)),
            None => None,
        };
        let (reply, link) = match earlier {
            Some((Err(LinkError::Lost(_)), _)) | None => {
                let mut link = commands.logins.log_in().await?;
                (link.ask_line(&line, within).await, link)
            }
            Some(answered) => answered,
        };
        if !matches!(&reply, Ok(Reply::Error(fault)) if fault.closes_connection()) {
            self.keep(link, commands.timing().idle);
        }
        link::judge(reply, commands.atsign())
    }

    fn keep(self: &Arc<Self>, mut link: Link, life: Duration) {
        if !link.is_usable() {
            return;
        }
        let mut idle = self.idle();
        idle.links.push((link, Instant::now()));
        if !idle.tended {
            idle.tended = true;
            spawn(tend(Arc::downgrade(self), life));
        }
    }

    /// Takes out what nobody needed for so long; `None`: there is nothing left to tend.
    fn old(&self, life: Duration) -> Option<Vec<Link>> {
        let mut idle = self.idle();
        let links = std::mem::take(&mut idle.links);
        let (old, young): (Vec<_>, Vec<_>) = links
            .into_iter()
            .partition(|(_, since)| since.elapsed() >= life);
        idle.links = young;
        if old.is_empty() && idle.links.is_empty() {
            idle.tended = false;
            return None;
        }
        Some(old.into_iter().map(|(link, _)| link).collect())
    }
}

/// Closes connections that nobody needs, until there are none.
async fn tend(lookups: Weak<Lookups>, life: Duration) {
    loop {
        sleep(life).await;
        let Some(old) = lookups.upgrade().and_then(|lookups| lookups.old(life)) else {
            return;
        };
        for link in old {
            link.close(GOODBYE).await;
        }
    }
}

async fn host_of(commands: &Commands, who: &AtSign) -> Option<String> {
    let transport = Arc::clone(&commands.logins.transport);
    let asking = transport.host_of(who.clone());
    timeout(commands.timing().lookup, asking).await.ok()?
}

fn silence(of: &AtSign) -> AtError {
    AtError::NoKeyNow(of.clone(), "that atSign's atServer does not answer")
}

/// Our own atServer says that the other one does not answer.
fn is_silence(fault: &Fault) -> bool {
    matches!(
        fault.code,
        Some(Code::UnableToConnect | Code::Timeout | Code::Socket)
    )
}

/// The other one answered, and does not let us in.
fn is_shut(fault: &Fault) -> bool {
    matches!(fault.code, Some(Code::Handshake | Code::Blocked))
}

/// Whether our own atServer is well: then the silence was the other's.
async fn answers(commands: &Commands, within: Duration) -> bool {
    let noop = Verb::Noop { millis: 0 };
    matches!(timeout(within, commands.run(&noop)).await, Ok(Ok(_)))
}
