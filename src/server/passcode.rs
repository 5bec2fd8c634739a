//! Passcodes: what a new device shows that has no key yet, and what slows down those who guess. No I/O.

use std::{collections::HashMap, net::IpAddr};

use super::store::register::Home;
use crate::net::network::network_of;

/// Life of a one-time passcode that does not say, in milliseconds.
pub const OTP_LIFE: u64 = 5 * 60 * 1000;

/// Makes a passcode for one enrolment: six characters that people can tell apart, at least one of them a digit.
/// `random` gives bytes; `None` when it has none.
pub fn make(mut random: impl FnMut() -> Option<[u8; 32]>) -> Option<String> {
    const LETTERS: &[u8] = b"123456789ABCDEFGHIJKLMNPQRSTUVWXYZ";
    // Bytes from here on would make some characters likelier than others.
    let fair = 256 / LETTERS.len() * LETTERS.len();
    loop {
        let bytes = random()?;
        let code: String = bytes
            .iter()
            .map(|byte| usize::from(*byte))
            .filter(|byte| *byte < fair)
            .take(6)
            .map(|byte| char::from(LETTERS[byte % LETTERS.len()]))
            .collect();
        if code.len() == 6 && code.contains(|c: char| c.is_ascii_digit()) {
            return Some(code);
        }
    }
}

/// Where a passcode is kept.
pub fn key_of(home: &Home, code: &str) -> String {
    format!("private:{}.__otp{}", code.to_lowercase(), home.who)
}

/// Where the passcode that may be used many times is kept.
pub fn standing_key(home: &Home) -> String {
    key_of(home, "spp")
}

/// Slows guessing of passcodes down: 1, 2, 3, 5, 8 … s after each wrong one, forgotten after a quiet minute.
#[derive(Debug, Default)]
pub struct Throttle {
    last: u64,
    next: u64,
    /// Milliseconds since 1970 of the last wrong one.
    at: u64,
}

impl Throttle {
    /// Longest pause, in seconds; as long a quiet time forgets everything.
    pub const MOST: u64 = 55;

    /// A wrong one: how many seconds to wait before saying so.
    pub fn wrong(&mut self, now: u64) -> u64 {
        if now.saturating_sub(self.at) >= Self::MOST * 1000 {
            (self.last, self.next) = (1, 1);
        }
        self.at = now;
        let pause = self.next.min(Self::MOST);
        if self.next < Self::MOST {
            (self.last, self.next) = (self.next, self.last + self.next);
        }
        pause
    }
}

/// Shuts out addresses that guess: however many connections they open, they have so many wrong passcodes an hour.
#[derive(Debug, Default)]
pub struct Guesses(HashMap<IpAddr, (u32, u64)>);

impl Guesses {
    /// Wrong passcodes of one address in an hour. A whole site may share one.
    pub const MOST: u32 = 20;
    const HOUR: u64 = 3600 * 1000;
    /// Most addresses remembered.
    const REMEMBERED: usize = 10_000;

    /// Whether this address may try another. `now` in milliseconds since 1970.
    pub fn may_try(&self, from: IpAddr, now: u64) -> bool {
        let known = self.0.get(&network_of(from));
        known.is_none_or(|(wrong, since)| *wrong < Self::MOST || Self::is_over(*since, now))
    }

    /// A wrong one.
    pub fn wrong(&mut self, from: IpAddr, now: u64) {
        if self.0.len() >= Self::REMEMBERED {
            self.0.retain(|_, (_, since)| !Self::is_over(*since, now));
        }
        let full = self.0.len() >= Self::REMEMBERED;
        let from = network_of(from);
        if full && !self.0.contains_key(&from) {
            return;
        }
        let (wrong, since) = self.0.entry(from).or_insert((0, now));
        if Self::is_over(*since, now) {
            (*wrong, *since) = (0, now);
        }
        *wrong += 1;
    }

    /// One that was counted was none.
    pub fn take_back(&mut self, from: IpAddr) {
        let from = network_of(from);
        if let Some((wrong, _)) = self.0.get_mut(&from) {
            *wrong = wrong.saturating_sub(1);
            if *wrong == 0 {
                self.0.remove(&from);
            }
        }
    }

    /// A clock that went back must not shut anybody out for longer.
    fn is_over(since: u64, now: u64) -> bool {
        now < since || now - since >= Self::HOUR
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn passcodes_are_legible_and_random_bytes_are_used_fairly() {
        let mut seed = 0u8;
        for _ in 0..100 {
            let code = make(|| {
                seed = seed.wrapping_add(37);
                Some(std::array::from_fn(|i| {
                    seed.wrapping_mul(31).wrapping_add(i as u8 * 7)
                }))
            })
            .unwrap();
            assert_eq!(code.len(), 6);
            assert!(!code.contains(['0', 'O']), "{code}");
            assert!(code.contains(|c: char| c.is_ascii_digit()), "{code}");
        }
        assert_eq!(make(|| None), None);
    }

    #[test]
    fn an_address_that_guesses_is_shut_out_for_an_hour_and_its_neighbours_are_not() {
        let mut guesses = Guesses::default();
        let at = |text: &str| text.parse::<IpAddr>().unwrap();
        let (one, other, v6) = (at("192.0.2.1"), at("192.0.2.2"), at("2001:db8::1"));
        for n in 0..u64::from(Guesses::MOST) {
            assert!(guesses.may_try(one, n), "{n}");
            guesses.wrong(one, n);
            guesses.wrong(v6, n);
        }
        assert!(!guesses.may_try(one, 100));
        assert!(!guesses.may_try(at("::ffff:192.0.2.1"), 100));
        assert!(guesses.may_try(other, 100));
        assert!(!guesses.may_try(at("2001:db8::2"), 100), "the same site");
        assert!(guesses.may_try(at("2001:db8:0:1::1"), 100));
        assert!(guesses.may_try(one, 3_600_000));
        for n in 0..2 * Guesses::REMEMBERED as u32 {
            guesses.wrong(IpAddr::V4(n.into()), 200);
        }
        assert!(guesses.0.len() <= Guesses::REMEMBERED);
    }

    #[test]
    fn guesses_get_slower_and_a_quiet_minute_forgives() {
        let mut throttle = Throttle::default();
        let pauses: Vec<u64> = (0..11).map(|_| throttle.wrong(1_000_000)).collect();
        assert_eq!(pauses, [1, 2, 3, 5, 8, 13, 21, 34, 55, 55, 55]);
        assert_eq!(throttle.wrong(1_055_000), 1);
    }
}
