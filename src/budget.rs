//! What others may use up: a total, a share for each party, a part that strangers never get, and who gives way. No I/O.
//!
//! ```text
//!   Claim { alice ≤ 8, 192.0.2.0 ≤ 16; rank; amount } ─▶ within the shares and the total?
//!        ├─ yes ───────────────────────────▶ a Hold; what it holds comes back when it is dropped
//!        ├─ no, wait() ─▶ in line: one of each party, then the next of each; whoever fits goes before who does not
//!        └─ no, take_evicting() ─▶ the lowest rank, of it the biggest user, of his the oldest, gives way
//! ```
//! Who is refused or gives way is counted, and told once a minute with the name of the one who had most.

use std::{
    fmt::Display,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use async_std::channel::bounded;

use ledger::{Holding, Ledger, tell};

mod ledger;
#[cfg(test)]
mod tests;

/// How much there is, for the whole life of a budget.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// What the log and the metrics call it, such as `connections`.
    pub name: &'static str,
    /// All there is.
    pub total: u64,
    /// The part of it that only [`Rank::Known`] may take.
    pub reserve: u64,
    /// Most that wait for some of it.
    pub waiting: usize,
    /// Most of them for the same party, the first of the shares.
    pub waiting_of_one: usize,
    /// Who has held something for less than this gives way last of its rank.
    pub chance: Duration,
}

impl Limits {
    /// A total, and nothing else.
    pub const fn new(name: &'static str, total: u64) -> Self {
        Self {
            name,
            total,
            reserve: 0,
            waiting: 0,
            waiting_of_one: 0,
            chance: Duration::ZERO,
        }
    }

    /// With a part that strangers never get.
    pub const fn with_reserve(mut self, reserve: u64) -> Self {
        self.reserve = reserve;
        self
    }

    /// With a line for those that wait, and how many of one party may stand in it.
    pub const fn with_line(mut self, waiting: usize, waiting_of_one: usize) -> Self {
        self.waiting = waiting;
        self.waiting_of_one = waiting_of_one;
        self
    }

    /// With a time in which nobody gives way for others of the same rank.
    pub const fn with_chance(mut self, chance: Duration) -> Self {
        self.chance = chance;
        self
    }
}

/// How well somebody is known: the lower gives way to the higher.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// Anybody.
    #[default]
    Stranger,
    /// Comes from where somebody known comes from.
    Neighbour,
    /// Has proved who it is, and is expected.
    Known,
}

/// A party, and the most it may hold at a time.
pub type Share<P> = (P, u64);

/// What somebody wants of a budget.
#[derive(Clone, Debug)]
pub struct Claim<P> {
    shares: Vec<Share<P>>,
    amount: u64,
    rank: Rank,
    firm: bool,
    modest: bool,
}

impl<P> Claim<P> {
    /// One, for this party, that may hold `most`.
    pub fn of(party: P, most: u64) -> Self {
        Self::of_nobody().and(party, most)
    }

    /// One of the total, for nobody in particular.
    pub fn of_nobody() -> Self {
        Self {
            shares: Vec::new(),
            amount: 1,
            rank: Rank::default(),
            firm: false,
            modest: false,
        }
    }

    /// Whose turn it is: the first of its shares'.
    fn party(&self) -> Option<&P> {
        self.shares.first().map(|(party, _)| party)
    }

    /// It counts against this share, too.
    pub fn and(mut self, party: P, most: u64) -> Self {
        self.shares.push((party, most));
        self
    }

    /// As much as this.
    pub fn amount(mut self, amount: u64) -> Self {
        self.amount = amount;
        self
    }

    /// By somebody who is known so well.
    pub fn rank(mut self, rank: Rank) -> Self {
        self.rank = rank;
        self
    }

    /// Where one of its shares is full it is refused: what the same party holds already is worth as much.
    pub fn modest(mut self) -> Self {
        self.modest = true;
        self
    }

    /// Its holder never gives way.
    pub fn firm(mut self) -> Self {
        self.firm = true;
        self
    }
}

/// What a budget has been used for, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Held now.
    pub used: u64,
    /// Refused since the start.
    pub refused: u64,
    /// Had to give way since the start.
    pub evicted: u64,
}

/// One budget; cheap to clone.
#[derive(Debug)]
pub struct Budget<P: Party>(Arc<Shared<P>>);

/// What all clones of a budget have in common; in one place, so that a [`Hold`] is two words.
#[derive(Debug)]
struct Shared<P: Party> {
    ledger: Mutex<Ledger<P>>,
    limits: Limits,
}

/// Whom a budget tells apart, such as an atSign or a network; its text goes to the log.
pub trait Party: Clone + Eq + Hash + Display {}
impl<P: Clone + Eq + Hash + Display> Party for P {}

/// What somebody holds; given back when dropped.
#[derive(Debug)]
pub struct Hold<P: Party> {
    of: Budget<P>,
    number: u64,
}

/// Tells that the holder has to give way. What it held is somebody else's already.
///
/// A lock that the ledger keeps as long as one may stay: 32 bytes, where a channel has 768, and every connection has one.
#[derive(Clone, Debug)]
pub struct MustLeave(Arc<async_std::sync::Mutex<()>>);

/// As long as this is there, the holder may stay.
type Stays = async_std::sync::MutexGuardArc<()>;

impl MustLeave {
    fn new() -> (Stays, Self) {
        let lock = Arc::new(async_std::sync::Mutex::new(()));
        // Nobody else has it yet, so this waits for nobody.
        (lock.lock_arc_blocking(), Self(lock))
    }

    /// Ends when the holder has to give way.
    pub async fn told(&self) {
        drop(self.0.lock().await);
    }

    /// Whether it has.
    pub fn is_told(&self) -> bool {
        self.0.try_lock().is_some()
    }
}

impl<P: Party> Clone for Budget<P> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<P: Party> Budget<P> {
    /// Nothing is used.
    pub fn new(limits: Limits) -> Self {
        Self(Arc::new(Shared {
            ledger: Mutex::new(Ledger::new()),
            limits,
        }))
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger<P>> {
        self.0.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is claimed, if it is there now.
    pub fn take(&self, claim: Claim<P>, now: Instant) -> Option<Hold<P>> {
        let mut ledger = self.ledger();
        if ledger.obstacle(&claim, &self.0.limits).is_none() {
            let number = ledger.enter(claim, None, now);
            return Some(self.hold(number));
        }
        ledger.refused += 1;
        let news = ledger.news(&self.0.limits, &claim, now);
        drop(ledger);
        tell(news);
        None
    }

    /// What is claimed; where it is not there, somebody gives way who is no better known. `None`: there is nobody.
    pub fn take_evicting(&self, claim: Claim<P>, now: Instant) -> Option<(Hold<P>, MustLeave)> {
        let (stays, must_leave) = MustLeave::new();
        let mut ledger = self.ledger();
        let room = ledger.make_room(&claim, &self.0.limits, now);
        let number = room.fits.then(|| ledger.enter(claim, Some(stays), now));
        drop(ledger);
        room.tell();
        Some((self.hold(number?), must_leave))
    }

    /// What somebody holds already, whether it fits or not.
    pub fn found(&self, claim: Claim<P>, now: Instant) -> (Hold<P>, MustLeave) {
        let (stays, must_leave) = MustLeave::new();
        let number = self.ledger().enter(claim, Some(stays), now);
        (self.hold(number), must_leave)
    }

    /// What is claimed, when its turn comes. `None`: too many wait already, or one of a party with fewer took the place.
    pub async fn wait(&self, claim: Claim<P>) -> Option<Hold<P>> {
        let (call, called) = bounded(1);
        {
            let mut ledger = self.ledger();
            if ledger.obstacle(&claim, &self.0.limits).is_none() {
                let number = ledger.enter(claim, None, Instant::now());
                return Some(self.hold(number));
            }
            if !ledger.stand_in_line(&claim, &call, &self.0.limits) {
                ledger.refused += 1;
                let news = ledger.news(&self.0.limits, &claim, Instant::now());
                drop(ledger);
                tell(news);
                return None;
            }
        }
        drop(call);
        called.recv().await.ok()
    }

    /// What it has been used for.
    pub fn usage(&self) -> Usage {
        let ledger = self.ledger();
        Usage {
            used: ledger.used,
            refused: ledger.refused,
            evicted: ledger.evicted,
        }
    }

    /// Who holds most, and how much: for a log.
    pub fn biggest(&self) -> Option<(P, u64)> {
        self.ledger().biggest()
    }

    /// What this party holds.
    pub fn used_by(&self, party: &P) -> u64 {
        self.ledger().used_by(party)
    }

    fn hold(&self, number: u64) -> Hold<P> {
        Hold {
            of: self.clone(),
            number,
        }
    }

    /// Gives what is free to those that wait.
    fn call(&self) {
        loop {
            // The lock is let go before anybody is called: what nobody takes comes back here.
            let next = self.ledger().next(&self.0.limits);
            let Some((number, call)) = next else {
                return;
            };
            // One that gave up meanwhile: it is free again, and the next one's.
            drop(call.try_send(self.hold(number)));
        }
    }
}

impl<P: Party> Hold<P> {
    /// The holder is known now, or somebody else: counts it so; others may have to give way for it. `false`: there is
    /// no room, or it has given way itself; then nothing changes.
    pub fn change(&self, claim: Claim<P>, now: Instant) -> bool {
        let mut ledger = self.of.ledger();
        let Some(old) = ledger.leave(self.number) else {
            return false;
        };
        let room = ledger.make_room(&claim, &self.of.0.limits, now);
        let fits = room.fits;
        let claim = if fits { claim } else { old.claim };
        ledger.count(&claim);
        let holding = Holding { claim, ..old };
        ledger.holdings.insert(self.number, holding);
        drop(ledger);
        room.tell();
        self.of.call();
        fits
    }
}

impl<P: Party> Drop for Hold<P> {
    fn drop(&mut self) {
        let mut ledger = self.of.ledger();
        if ledger.leave(self.number).is_none() && ledger.holdings.remove(&self.number).is_some() {
            ledger.leaving -= 1;
        }
        drop(ledger);
        self.of.call();
    }
}
