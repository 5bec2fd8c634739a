//! Keys that the atServer will not have any more: revoked, denied, expired. Asking again every few seconds does not
//! change that. But somebody may give them back, so the connections of one client together ask once in a while.

use std::{
    sync::{Mutex as StdMutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::at::{atsign::AtSign, error::AtError, fault::Fault};

/// What the atServer said last about our keys, as far as that was final.
#[derive(Default)]
pub(super) struct Barred(StdMutex<Option<(Instant, Fault)>>);

impl Barred {
    fn said(&self) -> MutexGuard<'_, Option<(Instant, Fault)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long nobody needs to ask.
    pub(super) fn left(&self) -> Duration {
        let said = self.said();
        let until = said.as_ref().map(|(until, _)| *until);
        until.map_or(Duration::ZERO, |until| {
            until.saturating_duration_since(Instant::now())
        })
    }

    /// Whether to ask now; else the answer of last time.
    pub(super) fn check(&self, who: &AtSign) -> Result<(), AtError> {
        match &*self.said() {
            Some((until, fault)) if Instant::now() < *until => Err(AtError::Login {
                who: who.clone(),
                fault: fault.clone(),
            }),
            _ => Ok(()),
        }
    }

    /// A login came out like this; after a final no there is none for as long as `pause`.
    pub(super) fn note<T>(&self, outcome: &Result<T, AtError>, pause: Duration) {
        match outcome {
            Err(AtError::Login { fault, .. }) if fault.ends_enrolment() => {
                *self.said() = Some((Instant::now() + pause, fault.clone()));
            }
            Ok(_) => *self.said() = None,
            Err(_) => {}
        }
    }
}
