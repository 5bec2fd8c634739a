//! Asking other servers on behalf of who has not logged in: how many at a time, and whom not again for a minute.

use std::{
    fmt::{self, Display, Formatter},
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use async_std::future::timeout;

use crate::{
    at::AtSign,
    budget::{Budget, Claim, Hold, Limits, Usage},
    net::{network::network_of, recent::Recent},
};

use super::connection::PeerError;

/// How long a caller's own server may take in all to prove the caller.
pub(super) const PROOF_TIME: Duration = Duration::from_secs(3);
/// Connections of this process for proofs. Whoever comes when all are taken waits, not for long and in a line that
/// has an end.
pub(in crate::server) const LIMITS: Limits = Limits::new("proofs", 32).with_line(256, 8);
/// For one caller from one network, so that nobody can take the caller's places from elsewhere; and for all callers
/// from one network, behind which may be a server with many atSigns.
pub(in crate::server) const OF_CALLER: u64 = 2;
pub(in crate::server) const OF_NETWORK: u64 = 8;
/// A caller whose server was silent, or not there, is not asked about again for so long.
const MEMORY: Duration = Duration::from_secs(60);
/// Most callers that are remembered.
const MAX_REMEMBERED: usize = 1024;
/// Log lines about proofs within [`MEMORY`].
const MAX_LINES: u32 = 20;

/// Whose share of the places a proof takes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum ProofParty {
    Caller(AtSign, IpAddr),
    Network(IpAddr),
}

impl Display for ProofParty {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Caller(caller, network) => write!(f, "{caller},{network}"),
            Self::Network(network) => write!(f, "{network}"),
        }
    }
}

pub(super) struct Proofs {
    places: Budget<ProofParty>,
    silent: Mutex<Recent<AtSign>>,
    lines: Mutex<LogQuota>,
}

impl Default for Proofs {
    fn default() -> Self {
        Self {
            places: Budget::new(LIMITS),
            silent: Mutex::new(Recent::new(MEMORY, MAX_REMEMBERED)),
            lines: Mutex::default(),
        }
    }
}

impl Proofs {
    /// A place for asking, when there is one in time.
    pub(super) async fn place(
        &self,
        caller: &AtSign,
        from: IpAddr,
    ) -> Result<Hold<ProofParty>, PeerError> {
        let network = network_of(from);
        let who = ProofParty::Caller(caller.clone(), network);
        let claim = Claim::of(who, OF_CALLER).and(ProofParty::Network(network), OF_NETWORK);
        timeout(PROOF_TIME, self.places.wait(claim))
            .await?
            .ok_or(PeerError::TooMany)
    }

    pub(super) fn usage(&self) -> Usage {
        self.places.usage()
    }

    fn silent(&self) -> MutexGuard<'_, Recent<AtSign>> {
        self.silent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this caller's server did not answer lately.
    pub(super) fn is_silent(&self, caller: &AtSign) -> bool {
        self.silent().has(caller, Instant::now())
    }

    /// It could not be proven. Only silence is remembered: anybody can call himself by another's name, and then
    /// that one's server answers that it has no such proof.
    pub(super) fn failed(&self, caller: &AtSign, why: &PeerError) {
        let now = Instant::now();
        if !matches!(
            why,
            PeerError::Refused(_) | PeerError::TooMany | PeerError::SilentLately
        ) {
            self.silent().add(caller, now);
        }
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.admit(now) {
            log::info!("peer={caller} proof={why}");
        }
    }
}

/// How many lines there were since when.
#[derive(Default)]
struct LogQuota(Option<(Instant, u32)>);

impl LogQuota {
    /// Whether there may be one more. The first one after a while says how many there were not.
    fn admit(&mut self, now: Instant) -> bool {
        match &mut self.0 {
            Some((since, count)) if now.saturating_duration_since(*since) < MEMORY => {
                *count = count.saturating_add(1);
                *count <= MAX_LINES
            }
            earlier => {
                let left_out = earlier.map_or(0, |(_, count)| count.saturating_sub(MAX_LINES));
                if left_out > 0 {
                    log::info!("proofs failed={left_out} more, of which nothing was said");
                }
                *earlier = Some((now, 1));
                true
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io;

    use super::*;
    use crate::at::fault::{Code, Fault};

    #[test]
    fn a_silent_caller_is_remembered_and_a_name_that_somebody_else_used_is_not() {
        let proofs = Proofs::default();
        let (tar, bob): (AtSign, AtSign) = ("@tar".parse().unwrap(), "@bob".parse().unwrap());
        proofs.failed(&tar, &io::Error::from(io::ErrorKind::TimedOut).into());
        proofs.failed(
            &bob,
            &PeerError::Refused(Fault::new(Code::KeyNotFound, "no")),
        );
        proofs.failed(&bob, &PeerError::TooMany);
        assert!(proofs.is_silent(&tar) && !proofs.is_silent(&bob));
    }

    #[test]
    fn the_log_of_proofs_is_short_however_many_fail() {
        let (mut lines, now) = (LogQuota::default(), Instant::now());
        let told = (0..1000).filter(|_| lines.admit(now)).count();
        assert_eq!(told, MAX_LINES as usize);
        assert!(lines.admit(now + MEMORY));
    }
}
