//! ○ What a daemon's managers, and who may use it by a policy, may use up.
//!
//! | budget | in all | of one | who gives way |
//! | --- | --- | --- | --- |
//! | `sessions`: bridges that live | by memory, or `--max-sessions` | 3 of 4 | a tunnel without a word for 60 s, of whoever has most |
//! | `starting`: requests in work | 64 | 16 | nobody; 256 wait for 20 s, 48 of one |
//! | `pings`: senders that are answered | 64 | 1 | nobody; an answer each 250 ms |
//! | `temporary_keys`: ssh keys of sessions | 64 | 48 | nobody |
//! | requests that were acted on | 64000 | | the oldest of whoever has most |
//! | answers that are kept for who asks again | 1024 | | the oldest of whoever has most |

use std::time::Duration;

use crate::budget::Limits;

/// Live sessions, unless --max-sessions says otherwise: a bridge is a process of about 0.7 MB, and half of the memory is
/// for other things.
const OF_A_BRIDGE: u64 = 2 << 20;
const FEWEST: u64 = 8;
const MOST: u64 = 4096;
/// A tunnel has this time to say its first word before it gives way to others.
pub(super) const FIRST_WORD: Duration = Duration::from_secs(60);

/// Requests that may be in work at the same time, and of one sender; so many more wait for their turn.
pub(super) const STARTING: Limits = Limits::new("starting", 64).with_line(256, 48);
pub(super) const STARTING_OF_ONE: u64 = 16;
/// How long a request may wait for its turn: about as long as its client does.
pub(super) const TURN: Duration = Duration::from_secs(20);

/// Senders whose pings are being answered.
pub(super) const PINGS: Limits = Limits::new("pings", 64);
pub(super) const PINGS_OF_ONE: u64 = 1;
/// Between two answers to one sender: all its programs hear each of them.
pub(super) const PING_PAUSE: Duration = Duration::from_millis(250);

/// So many live sessions fit into this memory.
pub(super) fn fitting(memory: u64) -> u64 {
    (memory / OF_A_BRIDGE).clamp(FEWEST, MOST)
}

/// Live sessions.
pub(super) fn sessions(total: u64) -> Limits {
    Limits::new("sessions", total)
}

/// Of them one manager's: never all.
pub(super) fn sessions_of_one(total: u64) -> u64 {
    (total - total / 4).max(1)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{
        classic::keyring,
        program::daemon::{acted, known},
    };

    #[test]
    fn the_table_says_what_the_constants_are() {
        let header = include_str!("budgets.rs");
        let row = |name: &str| {
            let mut rows = header.lines().filter(|line| line.contains(name));
            let cells = rows.next().unwrap().split('|').map(str::trim);
            cells.skip(2).take(3).collect::<Vec<_>>()
        };
        let pings = format!("nobody; an answer each {} ms", PING_PAUSE.as_millis());
        let waiting = format!(
            "nobody; {} wait for {} s, {} of one",
            STARTING.waiting,
            TURN.as_secs(),
            STARTING.waiting_of_one
        );
        for (limits, of_one, gives_way) in [
            (STARTING, STARTING_OF_ONE, waiting.as_str()),
            (PINGS, PINGS_OF_ONE, pings.as_str()),
            (keyring::KEYS, keyring::KEYS_OF_ONE, "nobody"),
        ] {
            let want = [
                limits.total.to_string(),
                of_one.to_string(),
                gives_way.to_owned(),
            ];
            assert_eq!(row(&format!("`{}`", limits.name)), want);
        }
        assert_eq!(
            row("requests that were acted on")[0],
            acted::MOST.to_string()
        );
        assert_eq!(
            row("answers that are kept")[0],
            known::REMEMBERED.to_string()
        );
        assert_eq!(sessions_of_one(100), 75);
        let silent = format!("a tunnel without a word for {} s", FIRST_WORD.as_secs());
        let row = row("`sessions`");
        assert!(row[1] == "3 of 4" && row[2].starts_with(&silent), "{row:?}");
    }

    #[test]
    fn sessions_fit_into_half_of_the_memory_and_one_manager_never_has_all() {
        for (megabytes, want) in [(8, 8), (64, 32), (128, 64), (1024, 512), (1 << 20, 4096)] {
            assert_eq!(fitting(megabytes << 20), want, "{megabytes}");
        }
        for (total, of_one) in [(1, 1), (4, 3), (8, 6), (4096, 3072)] {
            assert_eq!(sessions_of_one(total), of_one);
        }
    }
}
