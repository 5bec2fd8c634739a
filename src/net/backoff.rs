//! Growing pauses between attempts. No clock here: the caller sleeps.

use std::time::Duration;

/// Doubles from `first` to `most`; each pause is shortened by up to a half at random, so that a fleet does not return at once.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    next: Duration,
}

impl Backoff {
    /// Starts at `first`.
    pub fn new(_first: Duration, _most: Duration) -> Self {
        todo!()
    }
    /// The next pause. `jitter` is random in 0.0..1.0.
    pub fn pause(&mut self, _jitter: f64) -> Duration {
        todo!()
    }
    /// After success.
    pub fn reset(&mut self) {
        self.next = self.first;
        let _ = self.most;
    }
}
