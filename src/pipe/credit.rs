//! ○ How much may be on its way on one stream: what the other end still takes, and what we let it send.
//!
//! ```text
//!   they send ──▶ window: on its way, or held here ──▶ local program        eaten: what that has taken
//!                   ▲                                        │
//!                   └── CREDIT, when half of it is eaten ◀───┘
//! ```
//! A window begins at [`FIRST_CREDIT`] and doubles each time half of it is eaten, up to [`SMALL`]. From there on only where
//! that took no longer than two round trips, for then the stream waits for credit; and not where the round trip has become
//! twice as long as the way itself, for then the line is full, and whoever has little to say would wait behind what is in it.
//! All windows of a session grow out of one budget ([`BUDGET`]), each to no more than half of what it has and what is left: so
//! readers that stand still hold some of it and never all, and the others go on.

use std::time::{Duration, Instant};

use super::frame::{BadFrame, FIRST_CREDIT, MAX_CREDIT};

/// What the windows of one session have grown by, together, in bytes: with it what may be held for local programs that take
/// nothing.
pub const BUDGET: u32 = 1024 * 1024;
/// Up to here a window grows for whoever sends at all: many small ones would cost more than they hold.
const SMALL: u32 = 64 * 1024;
/// Between two measurements while bytes come.
const MEASURE_EVERY: Duration = Duration::from_secs(1);
/// Shorter round trips are the machine's own haste.
const SHORTEST: Duration = Duration::from_micros(200);

/// What is left for windows to grow, and whether it is any use.
#[derive(Clone, Copy, Debug)]
pub struct Growth {
    left: u32,
    round_trip: Option<RoundTrip>,
}

#[derive(Clone, Copy, Debug)]
struct RoundTrip {
    /// The shortest that was seen lately: the way itself.
    shortest: Duration,
    /// The latest: with what waits in line there.
    latest: Duration,
    at: Instant,
}

impl Growth {
    /// So much is left.
    #[cfg(test)]
    pub(crate) fn left(&self) -> u32 {
        self.left
    }

    /// Whether the round trip is to be measured again.
    pub fn is_stale(&self, now: Instant) -> bool {
        let round_trip = self.round_trip.as_ref();
        round_trip.is_none_or(|known| now.duration_since(known.at) >= MEASURE_EVERY)
    }

    /// A question was answered after so long.
    pub fn measured(&mut self, round_trip: Duration, now: Instant) {
        // A way that has become longer is believed by and by.
        let before = self
            .round_trip
            .map(|known| known.shortest + known.shortest / 8);
        self.round_trip = Some(RoundTrip {
            shortest: before.map_or(round_trip, |before| before.min(round_trip)),
            latest: round_trip,
            at: now,
        });
    }

    /// Whether a stream that has used up half of its window so fast waits for credit. Not when the line is full already:
    /// then a larger window makes a longer queue, and nothing faster.
    fn helps(&self, size: u32, half_took: Duration) -> bool {
        match self.round_trip {
            _ if size < SMALL => true,
            None => false,
            Some(known) => {
                let latest = known.latest.max(SHORTEST);
                half_took < 2 * latest && latest <= 2 * known.shortest.max(SHORTEST)
            }
        }
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
        let is_waited_for = growth.helps(self.size, now.duration_since(self.credited));
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

    const WAY: Duration = Duration::from_millis(40);

    /// One whose way is known, and nothing waits in line there.
    fn measured(now: Instant) -> Growth {
        let mut growth = Growth::default();
        growth.measured(WAY, now);
        growth
    }

    fn eat_all(window: &mut Window, now: Instant, growth: &mut Growth) -> Option<u32> {
        let bytes = window.open as usize;
        window.come(bytes).unwrap();
        window.eat(bytes, now, growth)
    }

    #[test]
    fn a_window_grows_while_it_is_waited_for_and_gives_all_back() {
        let now = Instant::now();
        let (mut window, mut growth) = (Window::new(now), measured(now));
        for turn in 0..20 {
            assert!(eat_all(&mut window, now + turn * WAY, &mut growth).is_some());
        }
        assert_eq!(window.size, (BUDGET + FIRST_CREDIT) / 2);
        let grown = window.size;
        let later = now + 100 * WAY;
        assert_eq!(eat_all(&mut window, later, &mut growth), Some(grown));
        assert_eq!(window.size, grown, "nobody waited for it");
        window.give_back(&mut growth);
        assert_eq!(growth.left, BUDGET);
    }

    #[test]
    fn a_small_window_grows_for_whoever_sends_and_a_larger_one_not_into_a_line_that_is_full() {
        let now = Instant::now();
        let (mut window, mut growth) = (Window::new(now), Growth::default());
        assert!(growth.is_stale(now));
        // However slowly it is eaten, and before the way is known.
        for turn in 0..20 {
            eat_all(&mut window, now + turn * MEASURE_EVERY, &mut growth);
        }
        assert_eq!(window.size, SMALL);
        let later = now + 20 * MEASURE_EVERY;
        growth.measured(WAY, later);
        growth.measured(3 * WAY, later);
        assert!(!growth.is_stale(later) && growth.is_stale(later + MEASURE_EVERY));
        eat_all(&mut window, later, &mut growth);
        eat_all(&mut window, later, &mut growth);
        assert_eq!(window.size, SMALL, "the line is full");
        // A longer way is believed by and by.
        for _ in 0..20 {
            growth.measured(3 * WAY, later);
        }
        eat_all(&mut window, later, &mut growth);
        assert_eq!(window.size, 2 * SMALL);
    }

    #[test]
    fn readers_that_stand_still_never_hold_all_of_it() {
        let now = Instant::now();
        let mut growth = measured(now);
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
