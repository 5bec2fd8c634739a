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
    pub fn new(first: Duration, most: Duration) -> Self {
        let first = first.min(most);
        Self {
            first,
            most,
            next: first,
        }
    }

    /// The next pause. `jitter` is random in 0.0..1.0; anything else counts as the nearer end.
    pub fn pause(&mut self, jitter: f64) -> Duration {
        let whole = self.next;
        self.next = whole.saturating_mul(2).min(self.most);
        let jitter = if jitter.is_nan() { 0.0 } else { jitter };
        whole.mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 2.0)
    }

    /// After success: the next pause is the first one again.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn pauses_double_up_to_the_longest_and_start_again_after_success() {
        let mut backoff = Backoff::new(SECOND, 5 * SECOND);
        let pauses: Vec<u64> = (0..5).map(|_| backoff.pause(0.0).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 5, 5]);
        backoff.reset();
        assert_eq!(backoff.pause(0.0), SECOND);
    }

    #[test]
    fn jitter_takes_away_at_most_a_half() {
        for (jitter, millis) in [
            (0.0, 1000),
            (0.5, 750),
            (1.0, 500),
            (7.0, 500),
            (-3.0, 1000),
            (f64::NAN, 1000),
        ] {
            let pause = Backoff::new(SECOND, SECOND).pause(jitter);
            assert_eq!(pause, Duration::from_millis(millis), "{jitter}");
        }
    }

    #[test]
    fn a_first_pause_beyond_the_longest_is_cut() {
        assert_eq!(Backoff::new(9 * SECOND, SECOND).pause(0.0), SECOND);
    }
}
