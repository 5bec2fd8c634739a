//! Which socket of one end belongs to which socket of the other.
//!
//! ```text
//!   both ends number theirs       neither does                one does
//!   A  0 1 2 3                    A  oldest, next …           A  0 1 2 3
//!      │ │ ╲╱                        │       │                   │ │ │ │
//!   B  0 1 3 2                    B  oldest, next …           B  first, second, third, fourth
//! ```
//!
//! Upstream only knows the order of arrival. There, a socket that dies before it has said who it is shifts
//! all behind it by one, and each is joined with a neighbour. Numbers end that: the control sockets are 0,
//! and line *n* of the control channel is about the sockets *n*, so both ends count the same without another
//! word. Where only one end numbers, the other's sockets have the number of their arrival.
//!
//! Keys decide whose bytes are whose, not numbers. But who can say a number can keep its owner out, so they are proved
//! where all know how ([`super::proof`]): there only a later try takes a number back. A number that was joined once is
//! never joined again.
//! A socket whose counterpart does not come is given up after [`COUNTERPART_TIME`].

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

/// How long a socket waits for its counterpart. The other end tries for twenty-five seconds, and its last
/// attempt may take ten.
pub const COUNTERPART_TIME: Duration = Duration::from_secs(35);
/// Sockets of one end that may wait at a time, if it does not number them; more wait in the kernel, in order.
pub const MAX_WAITING: usize = 64;
/// The same where it does. As they come in any order, all that one end can have must find room: else those that
/// belong together could keep each other out.
pub const MAX_NUMBERED: usize = 1100;

/// The end a socket comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Dialer {
    Client,
    Daemon,
}

impl std::fmt::Display for Dialer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Client => "client",
            Self::Daemon => "daemon",
        })
    }
}

/// The sockets of one session that wait.
#[derive(Debug)]
pub struct Pairs<S> {
    clients: WaitingSockets<S>,
    daemons: WaitingSockets<S>,
    joined: Numbers,
}

/// Numbers that are used up.
#[derive(Debug, Default)]
struct Numbers {
    /// All before this one.
    before: u64,
    /// And these, from it on.
    also: BTreeSet<u64>,
}

/// Numbers that are remembered one by one. More make all before the first of them old: its end has long counted on.
const MAX_APART: usize = 1024;

impl Numbers {
    fn have(&self, number: u64) -> bool {
        number < self.before || self.also.contains(&number)
    }

    fn add(&mut self, number: u64) {
        self.also.insert(number);
        while self.also.first() == Some(&self.before) || self.also.len() > MAX_APART {
            if let Some(first) = self.also.pop_first() {
                self.before = first.saturating_add(1);
            }
        }
    }
}

#[derive(Debug)]
struct WaitingSockets<S> {
    /// This end numbers its sockets.
    numbers: bool,
    /// How many have come.
    arrived: u64,
    /// By number, said or of arrival.
    sockets: BTreeMap<u64, Waiting<S>>,
}

#[derive(Debug)]
struct Waiting<S> {
    socket: S,
    since: Instant,
    /// Which try it is, if that is proved.
    attempt: Option<u64>,
}

/// What becomes of a socket that came.
#[derive(Debug, PartialEq, Eq)]
pub enum Pairing<S> {
    /// Both are there.
    Pair {
        /// From the client's end.
        client: S,
        /// From the daemon's.
        daemon: S,
    },
    /// Its counterpart has not come yet.
    Waits,
    /// It has the number of one that waited already, which is given up: the same end has tried again.
    Replaces(S),
    /// This one is given up: its number was joined already, or waits in a later try.
    Old(S),
}

impl<S> WaitingSockets<S> {
    /// Whether a socket with this number is later than the one that waits with it. Without proofs nobody can tell.
    fn may_take(&self, number: u64, attempt: Option<u64>) -> bool {
        let waiting = self.sockets.get(&number);
        let proved = waiting.and_then(|one| one.attempt);
        proved.is_none_or(|before| attempt.is_some_and(|now| now > before))
    }
}

impl<S> Default for Pairs<S> {
    fn default() -> Self {
        let none = || WaitingSockets {
            numbers: false,
            arrived: 0,
            sockets: BTreeMap::new(),
        };
        Self {
            clients: none(),
            daemons: none(),
            joined: Numbers::default(),
        }
    }
}

impl<S> Pairs<S> {
    /// One more socket, with the number it says; `attempt`: it has proved to be this try of that number.
    pub fn arrive_proved(
        &mut self,
        end: Dialer,
        said: Option<u64>,
        attempt: Option<u64>,
        socket: S,
        now: Instant,
    ) -> Pairing<S> {
        let (own, other) = match end {
            Dialer::Client => (&mut self.clients, &mut self.daemons),
            Dialer::Daemon => (&mut self.daemons, &mut self.clients),
        };
        if said.is_some_and(|number| self.joined.have(number) || !own.may_take(number, attempt)) {
            return Pairing::Old(socket);
        }
        own.numbers |= said.is_some();
        let number = said.unwrap_or(own.arrived);
        own.arrived += 1;
        let by_number = own.numbers || other.numbers;
        let counterpart = if by_number {
            other.sockets.remove(&number)
        } else {
            other.sockets.pop_first().map(|(_, oldest)| oldest)
        };
        let Some(counterpart) = counterpart else {
            let waiting = Waiting {
                socket,
                since: now,
                attempt,
            };
            return match own.sockets.insert(number, waiting) {
                Some(old) => Pairing::Replaces(old.socket),
                None => Pairing::Waits,
            };
        };
        if by_number {
            self.joined.add(number);
        }
        let counterpart = counterpart.socket;
        let (client, daemon) = match end {
            Dialer::Client => (socket, counterpart),
            Dialer::Daemon => (counterpart, socket),
        };
        Pairing::Pair { client, daemon }
    }

    /// Whether no more of this end may wait.
    pub fn is_full(&self, end: Dialer) -> bool {
        let own = match end {
            Dialer::Client => &self.clients,
            Dialer::Daemon => &self.daemons,
        };
        let most = if own.numbers {
            MAX_NUMBERED
        } else {
            MAX_WAITING
        };
        own.sockets.len() >= most
    }

    /// When the next one is given up.
    pub fn next_due(&self) -> Option<Instant> {
        let all = self
            .clients
            .sockets
            .values()
            .chain(self.daemons.sockets.values());
        all.map(|one| one.since + COUNTERPART_TIME).min()
    }

    /// Those whose counterpart has not come in time, and those that are lost, with their numbers.
    pub fn give_up(&mut self, now: Instant, lost: impl Fn(&S) -> bool) -> Vec<(Dialer, u64, S)> {
        let mut over = Vec::new();
        for (end, waiting) in [
            (Dialer::Client, &mut self.clients),
            (Dialer::Daemon, &mut self.daemons),
        ] {
            let late = |(_, one): &(&u64, &Waiting<S>)| {
                one.since + COUNTERPART_TIME <= now || lost(&one.socket)
            };
            let gone: Vec<u64> = waiting
                .sockets
                .iter()
                .filter(late)
                .map(|(n, _)| *n)
                .collect();
            for number in gone {
                let gone = waiting.sockets.remove(&number);
                over.extend(gone.map(|one| (end, number, one.socket)));
            }
        }
        over
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    impl<S> Pairs<S> {
        fn arrive(
            &mut self,
            end: Dialer,
            said: Option<u64>,
            socket: S,
            now: Instant,
        ) -> Pairing<S> {
            self.arrive_proved(end, said, None, socket, now)
        }
    }

    /// (end, what it says, its name)
    type Arrival = (Dialer, Option<u64>, &'static str);

    const A: Dialer = Dialer::Client;
    const B: Dialer = Dialer::Daemon;

    fn pairs(arrivals: &[Arrival]) -> Vec<(&'static str, &'static str)> {
        let (mut table, now) = (Pairs::default(), Instant::now());
        let met = arrivals
            .iter()
            .map(|&(end, said, name)| table.arrive(end, said, name, now));
        met.filter_map(|met| match met {
            Pairing::Pair { client, daemon } => Some((client, daemon)),
            _ => None,
        })
        .collect()
    }

    #[test]
    fn a_socket_that_never_came_shifts_nobody_where_an_end_numbers() {
        let n = Some;
        for (what, arrivals, want) in [
            (
                "in order, both number",
                vec![
                    (A, n(0), "a0"),
                    (B, n(0), "b0"),
                    (A, n(1), "a1"),
                    (B, n(1), "b1"),
                ],
                vec![("a0", "b0"), ("a1", "b1")],
            ),
            (
                "a1 dies",
                vec![
                    (A, n(0), "a0"),
                    (B, n(0), "b0"),
                    (B, n(1), "b1"),
                    (A, n(2), "a2"),
                    (B, n(2), "b2"),
                ],
                vec![("a0", "b0"), ("a2", "b2")],
            ),
            (
                "out of order",
                vec![
                    (A, n(2), "a2"),
                    (A, n(1), "a1"),
                    (B, n(1), "b1"),
                    (B, n(2), "b2"),
                ],
                vec![("a1", "b1"), ("a2", "b2")],
            ),
            (
                "an old daemon's have the number of their arrival; a1 dies",
                vec![
                    (B, None, "b0"),
                    (A, n(0), "a0"),
                    (B, None, "b1"),
                    (A, n(2), "a2"),
                    (B, None, "b2"),
                ],
                vec![("a0", "b0"), ("a2", "b2")],
            ),
            (
                "an old client's, too",
                vec![
                    (A, None, "a0"),
                    (B, n(0), "b0"),
                    (A, None, "a1"),
                    (A, None, "a2"),
                    (B, n(2), "b2"),
                ],
                vec![("a0", "b0"), ("a2", "b2")],
            ),
            (
                "neither numbers: the oldest with the oldest, as ever",
                vec![
                    (A, None, "a0"),
                    (A, None, "a1"),
                    (B, None, "b0"),
                    (B, None, "b1"),
                ],
                vec![("a0", "b0"), ("a1", "b1")],
            ),
        ] {
            assert_eq!(pairs(&arrivals), want, "{what}");
        }
    }

    #[test]
    fn whoever_tries_again_takes_its_own_place() {
        let (mut table, now) = (Pairs::default(), Instant::now());
        assert_eq!(table.arrive(A, Some(1), "first", now), Pairing::Waits);
        assert_eq!(
            table.arrive(A, Some(1), "second", now),
            Pairing::Replaces("first")
        );
        let pair = Pairing::Pair {
            client: "second",
            daemon: "b",
        };
        assert_eq!(table.arrive(B, Some(1), "b", now), pair);
    }

    #[test]
    fn a_number_is_joined_once_and_only_a_later_try_takes_it_back() {
        let (mut table, now) = (Pairs::default(), Instant::now());
        let mut client =
            |number, attempt, name| table.arrive_proved(A, Some(number), attempt, name, now);
        assert_eq!(client(1, Some(3), "third"), Pairing::Waits);
        for (attempt, name) in [(Some(2), "second"), (Some(3), "again"), (None, "unproved")] {
            assert_eq!(client(1, attempt, name), Pairing::Old(name));
        }
        assert_eq!(client(1, Some(4), "fourth"), Pairing::Replaces("third"));
        let pair = Pairing::Pair {
            client: "fourth",
            daemon: "b",
        };
        assert_eq!(table.arrive(B, Some(1), "b", now), pair);
        for end in [A, B] {
            let again = table.arrive_proved(end, Some(1), Some(9), "joined", now);
            assert_eq!(again, Pairing::Old("joined"));
        }
    }

    #[test]
    fn used_numbers_are_remembered_in_little_room() {
        let mut numbers = Numbers::default();
        (0..5000).for_each(|number| numbers.add(number));
        assert_eq!((numbers.before, numbers.also.len()), (5000, 0));
        // One is left out, and many come after it.
        (5001..9000).for_each(|number| numbers.add(number));
        assert!(numbers.also.len() <= MAX_APART);
        assert!(
            (0..5000)
                .chain(5001..9000)
                .all(|number| numbers.have(number))
        );
        numbers.add(u64::MAX);
        assert!(numbers.have(u64::MAX) && !numbers.have(10_000));
    }

    #[test]
    fn whose_counterpart_does_not_come_is_given_up_and_not_before() {
        let (mut table, start) = (Pairs::default(), Instant::now());
        let later = start + Duration::from_secs(5);
        table.arrive(A, Some(3), "a3", start);
        table.arrive(B, Some(4), "b4", later);
        assert_eq!(table.next_due(), Some(start + COUNTERPART_TIME));
        let before = start + COUNTERPART_TIME - Duration::from_millis(1);
        assert_eq!(table.give_up(before, |_| false), []);
        assert_eq!(
            table.give_up(start + COUNTERPART_TIME, |_| false),
            [(A, 3, "a3")]
        );
        assert_eq!(table.next_due(), Some(later + COUNTERPART_TIME));
        assert_eq!(
            table.give_up(later + COUNTERPART_TIME, |_| false),
            [(B, 4, "b4")]
        );
        assert_eq!(table.next_due(), None);
        // Too late is too late: nobody is joined with what is gone.
        assert_eq!(table.arrive(B, Some(3), "b3", later), Pairing::Waits);
    }

    #[test]
    fn few_may_wait_and_of_numbered_ones_as_many_as_a_bridge_has() {
        for (numbered, most) in [(false, MAX_WAITING), (true, MAX_NUMBERED)] {
            let (mut table, now) = (Pairs::default(), Instant::now());
            let number = |n: usize| numbered.then_some(n as u64);
            for n in 0..most {
                assert!(!table.is_full(A), "{numbered} {n}");
                table.arrive(A, number(n), n, now);
            }
            assert!(table.is_full(A) && !table.is_full(B));
            table.arrive(B, number(0), 0, now);
            assert!(!table.is_full(A));
        }
    }

    proptest! {
        /// Any sockets may be missing, and come in any order: whoever is joined is joined with its own number.
        #[test]
        fn nobody_is_ever_joined_with_a_neighbour(
            order in Just((0..40u64).flat_map(|n| [(A, n), (B, n)]).collect::<Vec<_>>()).prop_shuffle(),
            dead in prop::collection::vec(0usize..80, 0..10),
        ) {
            let (mut table, now) = (Pairs::default(), Instant::now());
            let mut joined = 0;
            let alive = order.iter().enumerate().filter(|(at, _)| !dead.contains(at));
            for (_, &(end, number)) in alive {
                if let Pairing::Pair { client, daemon } = table.arrive(end, Some(number), number, now) {
                    prop_assert_eq!(client, daemon);
                    joined += 1;
                }
            }
            prop_assert!(joined >= 40 - dead.len());
        }
    }
}
