//! ○ How much may be on its way on one stream: what the other end still takes, and what we let it send.
//!
//! ```text
//!   they send ──▶ window: on its way, or held here ──▶ local program        eaten: what that has taken
//!                   ▲                                        │
//!                   └── CREDIT, when half of it is eaten ◀───┘
//! ```
//! A window begins at [`FIRST_CREDIT`] and doubles where half of it is eaten within two round trips, for then it is what
//! the stream waits for. All windows of a session grow out of one budget ([`BUDGET`]), each to no more than half of what it
//! has and what is left: so readers that stand still hold some of it and never all, and the others go on.

use std::time::{Duration, Instant};

use super::frame::{BadFrame, FIRST_CREDIT, MAX_CREDIT};

/// What the windows of one session have grown by, together, in bytes: with it what may be held for local programs that take
/// nothing.
pub const BUDGET: u32 = 1024 * 1024;
/// Assumed before one has been measured.
const ROUND_TRIP: Duration = Duration::from_millis(1);

/// What is left for windows to grow.
#[derive(Clone, Copy, Debug)]
pub struct Growth {
    left: u32,
    /// The shortest that was seen lately; what waits in line makes it longer, and is not to count.
    round_trip: Option<Duration>,
}

impl Growth {
    /// So much is left.
    #[cfg(test)]
    pub(crate) fn left(&self) -> u32 {
        self.left
    }

    /// The shortest one, if one was measured.
    #[cfg(test)]
    pub(crate) fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    /// A question was answered after so long.
    pub fn measured(&mut self, round_trip: Duration) {
        let longest = self.round_trip.map_or(round_trip, |before| 2 * before);
        self.round_trip = Some(round_trip.min(longest));
    }
}

impl Default for Growth {
    fn default() -> Self {
        Self {
            left: BUDGET,
            round_trip: None,
        }
    }
}

/// What the other end takes of one stream.
#[derive(Clone, Copy, Debug)]
pub struct Credit(u32);

impl Default for Credit {
    fn default() -> Self {
        Self(FIRST_CREDIT)
    }
}

impl Credit {
    /// So many bytes may be sent.
    pub fn left(self) -> usize {
        self.0 as usize
    }

    /// They are sent.
    pub fn spend(&mut self, bytes: usize) {
        self.0 -= u32::try_from(bytes).unwrap_or(u32::MAX).min(self.0);
    }

    /// CREDIT has come.
    ///
    /// # Errors
    /// When it comes to more than [`MAX_CREDIT`].
    pub fn add(&mut self, more: u32) -> Result<(), BadFrame> {
        self.0 = self
            .0
            .checked_add(more)
            .filter(|&sum| sum <= MAX_CREDIT)
            .ok_or(BadFrame)?;
        Ok(())
    }
}

/// What we let the other end send on one stream.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    size: u32,
    /// Of it, what has not come yet.
    open: u32,
    /// Eaten since the last CREDIT.
    eaten: u32,
    credited: Instant,
}

impl Window {
    /// Of a new stream.
    pub fn new(now: Instant) -> Self {
        Self {
            size: FIRST_CREDIT,
            open: FIRST_CREDIT,
            eaten: 0,
            credited: now,
        }
    }

    /// So many bytes have come.
    ///
    /// # Errors
    /// When that is more than was allowed.
    pub fn come(&mut self, bytes: usize) -> Result<(), BadFrame> {
        let bytes = u32::try_from(bytes).map_err(|_| BadFrame)?;
        self.open = self.open.checked_sub(bytes).ok_or(BadFrame)?;
        Ok(())
    }

    /// The local program has taken so many of them. Returns the CREDIT that is due.
    pub fn eat(&mut self, bytes: usize, now: Instant, growth: &mut Growth) -> Option<u32> {
        self.eaten += u32::try_from(bytes).unwrap_or(u32::MAX);
        if self.eaten < self.size / 2 {
            return None;
        }
        let is_waited_for =
            now.duration_since(self.credited) < 2 * growth.round_trip.unwrap_or(ROUND_TRIP);
        let share = (self.size + growth.left) / 2;
        let more = if is_waited_for {
            self.size.min(share.saturating_sub(self.size))
        } else {
            0
        };
        growth.left -= more;
        self.size += more;
        let credit = std::mem::take(&mut self.eaten) + more;
        self.open += credit;
        self.credited = now;
        Some(credit)
    }

    /// The stream is over.
    pub fn give_back(self, growth: &mut Growth) {
        growth.left += self.size - FIRST_CREDIT;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_window_grows_while_it_is_waited_for_and_gives_all_back() {
        let (now, mut growth) = (Instant::now(), Growth::default());
        let mut window = Window::new(now);
        for _ in 0..20 {
            let bytes = window.open as usize;
            window.come(bytes).unwrap();
            assert!(window.eat(bytes, now, &mut growth).is_some());
        }
        assert_eq!(window.size, (BUDGET + FIRST_CREDIT) / 2);
        let grown = window.size;
        let later = now + Duration::from_secs(1);
        window.come(window.open as usize).unwrap();
        assert_eq!(window.eat(grown as usize, later, &mut growth), Some(grown));
        assert_eq!(
            (window.size, window.open),
            (grown, grown),
            "nobody waited for it"
        );
        window.give_back(&mut growth);
        assert_eq!(growth.left, BUDGET);
    }

    #[test]
    fn readers_that_stand_still_never_hold_all_of_it() {
        let (now, mut growth) = (Instant::now(), Growth::default());
        for _ in 0..5 {
            let mut window = Window::new(now);
            for _ in 0..20 {
                let bytes = window.open as usize;
                window.come(bytes).unwrap();
                window.eat(bytes, now, &mut growth);
            }
            window.come(window.open as usize).unwrap();
            assert!(
                window.size > FIRST_CREDIT,
                "each comes to more than the first credit"
            );
        }
        assert!(growth.left > 0);
    }

    #[test]
    fn more_than_was_allowed_is_refused_in_both_directions() {
        let mut window = Window::new(Instant::now());
        assert_eq!(window.come(FIRST_CREDIT as usize + 1), Err(BadFrame));
        assert_eq!(window.come(FIRST_CREDIT as usize), Ok(()));
        assert_eq!(window.come(1), Err(BadFrame));
        let mut credit = Credit::default();
        assert_eq!(credit.add(MAX_CREDIT), Err(BadFrame));
        assert_eq!(credit.add(MAX_CREDIT - FIRST_CREDIT), Ok(()));
        credit.spend(usize::MAX);
        assert_eq!(credit.left(), 0);
    }
}
