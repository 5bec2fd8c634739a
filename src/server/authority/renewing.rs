//! A server certificate that never gets old.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use super::{Authority, certificate::SLOW_CLOCKS, error::AuthorityError};
use crate::net::tls::{Acceptor, ServerCertificate};

/// A certificate that is this old is renewed by whoever connects next.
pub(super) const RENEWED_AFTER: Duration = Duration::from_secs(365 * 24 * 3600);

/// After a failed renewal, the next attempt waits this long.
const PATIENCE: Duration = Duration::from_secs(3600);

/// A certificate that is made anew when it is old. Making one takes less than a handshake.
pub(super) struct Renewing {
    authority: Authority,
    names: Vec<String>,
    now: Mutex<CurrentCertificate>,
}

struct CurrentCertificate {
    shown: ServerCertificate,
    at: SystemTime,
    /// When the last attempt to make another failed.
    failed: Option<SystemTime>,
}

impl Authority {
    /// Ready to accept connections for these names, with a certificate that is renewed in time.
    ///
    /// # Errors
    /// As [`Self::leaf`].
    pub fn acceptor(self, names: &[String]) -> Result<Acceptor, AuthorityError> {
        let renewing = Renewing::new(self, names, SystemTime::now())?;
        Ok(Acceptor::showing(move || renewing.at(SystemTime::now())))
    }
}

impl Renewing {
    pub(super) fn new(
        authority: Authority,
        names: &[String],
        now: SystemTime,
    ) -> Result<Self, AuthorityError> {
        let made = CurrentCertificate {
            shown: authority.leaf_at(names, now)?.shown()?,
            at: now,
            failed: None,
        };
        Ok(Self {
            authority,
            names: names.to_vec(),
            now: Mutex::new(made),
        })
    }

    /// What is shown at this time.
    pub(super) fn at(&self, now: SystemTime) -> ServerCertificate {
        let mut made = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        // A clock that was set back may stand before the certificate's first day.
        let is_recent = |at: SystemTime, most: Duration| match now.duration_since(at) {
            Ok(age) => age < most,
            Err(ahead) => ahead.duration() < SLOW_CLOCKS,
        };
        let waits = made.failed.is_some_and(|at| is_recent(at, PATIENCE));
        if is_recent(made.at, RENEWED_AFTER) || waits {
            return made.shown.clone();
        }
        let leaf = self.authority.leaf_at(&self.names, now);
        match leaf.and_then(|leaf| leaf.shown()) {
            Ok(shown) => {
                log::info!("certificate=renewed");
                (made.shown, made.at, made.failed) = (shown, now, None);
            }
            Err(why) => {
                log::warn!("certificate=kept reason={why}");
                made.failed = Some(now);
            }
        }
        made.shown.clone()
    }
}
