//! What the server counts.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows.
#[derive(Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    pub(super) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What has happened since the start.
#[derive(Default)]
pub(super) struct Meter {
    pub accepted: Count,
    pub handshakes_failed: Count,
    pub commands: Count,
    pub logins: Count,
    pub logins_failed: Count,
    pub pushed: Count,
}
