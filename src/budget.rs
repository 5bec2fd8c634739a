//! What others may use up: a total, a share for each party, a part that strangers never get, and who gives way. No I/O.
//!
//! ```text
//!   Claim { alice ≤ 8, 192.0.2.0 ≤ 16; rank; amount } ─▶ within the shares and the total?
//!        ├─ yes ───────────────────────────▶ a Hold; what it holds comes back when it is dropped
//!        ├─ no, wait() ─▶ in line, oldest first; whoever fits goes before who does not
//!        └─ no, take_evicting() ─▶ the lowest rank, of it the biggest user, of his the oldest, gives way
//! ```
//! Who is refused or gives way is counted, and told once a minute with the name of the one who had most.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap, VecDeque},
    fmt::Display,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use async_std::channel::{Receiver, Sender, bounded};
use log::warn;

#[cfg(test)]
mod tests;

/// Between two log lines about one budget.
const TELL_EVERY: Duration = Duration::from_secs(60);

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
}

impl<P> Claim<P> {
    /// One, for this party, that may hold `most`.
    pub fn of(party: P, most: u64) -> Self {
        Self {
            shares: vec![(party, most)],
            amount: 1,
            rank: Rank::default(),
        }
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
pub struct Budget<P: Party> {
    ledger: Arc<Mutex<Ledger<P>>>,
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

/// Closed when the holder has to give way. What it held is somebody else's already.
pub type MustLeave = Receiver<()>;

#[derive(Debug)]
struct Ledger<P: Party> {
    used: u64,
    /// The part of it that is held by others than [`Rank::Known`].
    by_strangers: u64,
    /// Holders that were told to leave and have not left yet.
    leaving: u64,
    by: HashMap<P, u64>,
    /// By number: the oldest first.
    holdings: BTreeMap<u64, Holding<P>>,
    next: u64,
    line: VecDeque<Waiter<P>>,
    refused: u64,
    evicted: u64,
    /// When the log was last told, and what was counted then.
    told: Option<(Instant, u64, u64)>,
}

#[derive(Debug)]
struct Holding<P> {
    claim: Claim<P>,
    since: Instant,
    /// Of one that can give way: dropped to tell it.
    stays: Option<Sender<()>>,
    /// It has been told: nothing is counted for it any more.
    gave_way: bool,
}

#[derive(Debug)]
struct Waiter<P: Party> {
    claim: Claim<P>,
    call: Sender<Hold<P>>,
}

impl<P: Party> Clone for Budget<P> {
    fn clone(&self) -> Self {
        Self {
            ledger: self.ledger.clone(),
            limits: self.limits,
        }
    }
}

impl<P: Party> Budget<P> {
    /// Nothing is used.
    pub fn new(limits: Limits) -> Self {
        Self {
            ledger: Arc::new(Mutex::new(Ledger::new())),
            limits,
        }
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger<P>> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is claimed, if it is there now.
    pub fn take(&self, claim: Claim<P>, now: Instant) -> Option<Hold<P>> {
        let mut ledger = self.ledger();
        if ledger.obstacle(&claim, &self.limits).is_none() {
            let number = ledger.enter(claim, None, now);
            return Some(self.hold(number));
        }
        ledger.refused += 1;
        let news = ledger.news(&self.limits, &claim, now);
        drop(ledger);
        tell(news);
        None
    }

    /// What is claimed; where it is not there, somebody gives way who is no better known. `None`: there is nobody.
    pub fn take_evicting(&self, claim: Claim<P>, now: Instant) -> Option<(Hold<P>, MustLeave)> {
        let (stays, must_leave) = bounded(1);
        let mut ledger = self.ledger();
        let mut news = None;
        let leave = ledger.make_room(&claim, &self.limits, now);
        if !leave.is_empty() {
            news = ledger.news(&self.limits, &claim, now);
        }
        let fits = ledger.obstacle(&claim, &self.limits).is_none();
        let number = if fits {
            Some(ledger.enter(claim, Some(stays), now))
        } else {
            ledger.refused += 1;
            news = news.or_else(|| ledger.news(&self.limits, &claim, now));
            None
        };
        // The lock is let go before anybody is told: who leaves comes back here.
        drop(ledger);
        drop(leave);
        tell(news);
        Some((self.hold(number?), must_leave))
    }

    /// What is claimed, when its turn comes. `None`: too many wait already.
    pub async fn wait(&self, claim: Claim<P>) -> Option<Hold<P>> {
        let (call, called) = bounded(1);
        {
            let mut ledger = self.ledger();
            if ledger.obstacle(&claim, &self.limits).is_none() {
                let number = ledger.enter(claim, None, Instant::now());
                return Some(self.hold(number));
            }
            if !ledger.may_wait(&claim, &self.limits) {
                ledger.refused += 1;
                let news = ledger.news(&self.limits, &claim, Instant::now());
                drop(ledger);
                tell(news);
                return None;
            }
            ledger.line.push_back(Waiter { claim, call });
        }
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
            let next = self.ledger().next(&self.limits);
            let Some((number, call)) = next else {
                return;
            };
            // One that gave up meanwhile: it is free again, and the next one's.
            drop(call.try_send(self.hold(number)));
        }
    }
}

fn tell(news: Option<String>) {
    if let Some(news) = news {
        warn!("{news}");
    }
}

impl<P: Party> Hold<P> {
    /// The holder is known now, or somebody else: counts it so. `false`: that is too much, or it has given way already;
    /// then nothing changes.
    pub fn change(&self, claim: Claim<P>, now: Instant) -> bool {
        let limits = &self.of.limits;
        let mut ledger = self.of.ledger();
        let Some(old) = ledger.leave(self.number) else {
            return false;
        };
        let fits = ledger.obstacle(&claim, limits).is_none();
        let news = (!fits).then(|| {
            ledger.refused += 1;
            ledger.news(limits, &claim, now)
        });
        let claim = if fits { claim } else { old.claim };
        ledger.count(&claim);
        let holding = Holding { claim, ..old };
        ledger.holdings.insert(self.number, holding);
        drop(ledger);
        tell(news.flatten());
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

/// Why a claim does not fit.
enum Obstacle<P> {
    /// This party has its share.
    Share(P),
    /// What strangers may have together is used.
    Strangers,
    /// All is used.
    Total,
}

impl<P: Party> Ledger<P> {
    fn new() -> Self {
        Self {
            used: 0,
            by_strangers: 0,
            leaving: 0,
            by: HashMap::new(),
            holdings: BTreeMap::new(),
            next: 0,
            line: VecDeque::new(),
            refused: 0,
            evicted: 0,
            told: None,
        }
    }

    fn used_by(&self, party: &P) -> u64 {
        self.by.get(party).copied().unwrap_or_default()
    }

    fn obstacle(&self, claim: &Claim<P>, limits: &Limits) -> Option<Obstacle<P>> {
        let fits = |used: u64, most| used.saturating_add(claim.amount) <= most;
        let full = |(party, most): &&Share<P>| !fits(self.used_by(party), *most);
        if let Some((party, _)) = claim.shares.iter().find(full) {
            Some(Obstacle::Share(party.clone()))
        } else if !fits(self.used, limits.total) {
            Some(Obstacle::Total)
        } else {
            let for_strangers = limits.total.saturating_sub(limits.reserve);
            let full = claim.rank < Rank::Known && !fits(self.by_strangers, for_strangers);
            full.then_some(Obstacle::Strangers)
        }
    }

    fn enter(&mut self, claim: Claim<P>, stays: Option<Sender<()>>, since: Instant) -> u64 {
        self.count(&claim);
        self.next += 1;
        let holding = Holding {
            claim,
            since,
            stays,
            gave_way: false,
        };
        self.holdings.insert(self.next, holding);
        self.next
    }

    fn count(&mut self, claim: &Claim<P>) {
        self.used += claim.amount;
        if claim.rank < Rank::Known {
            self.by_strangers += claim.amount;
        }
        for (party, _) in &claim.shares {
            *self.by.entry(party.clone()).or_default() += claim.amount;
        }
    }

    fn uncount(&mut self, claim: &Claim<P>) {
        self.used -= claim.amount;
        if claim.rank < Rank::Known {
            self.by_strangers -= claim.amount;
        }
        for (party, _) in &claim.shares {
            match self.by.get_mut(party) {
                Some(used) if *used > claim.amount => *used -= claim.amount,
                _ => drop(self.by.remove(party)),
            }
        }
    }

    /// Gives back what it holds. `None`: it has given way already.
    fn leave(&mut self, number: u64) -> Option<Holding<P>> {
        let holding = self.holdings.get(&number).filter(|one| !one.gave_way)?;
        let claim = holding.claim.clone();
        self.uncount(&claim);
        self.holdings.remove(&number)
    }

    /// Takes from others until the claim fits, or there is nobody left to take from; whom to tell.
    ///
    /// Where many hold something, more leave at a time than needed: a flood costs one look at all of them in a while.
    fn make_room(&mut self, claim: &Claim<P>, limits: &Limits, now: Instant) -> Vec<Sender<()>> {
        let mut told = Vec::new();
        while let Some(obstacle) = self.obstacle(claim, limits) {
            let order = self.order_of_leaving(claim, &obstacle, limits, now);
            let mut all = order.len().div_ceil(64);
            let room = limits.total / 64 + 8;
            all = all.min(usize::try_from(room.saturating_sub(self.leaving)).unwrap_or(usize::MAX));
            if all == 0 {
                break;
            }
            let next = order.into_iter().take(all);
            told.extend(next.filter_map(|number| self.give_way(number)));
        }
        told
    }

    /// Who could make room for this claim, the first to leave first.
    fn order_of_leaving(
        &self,
        claim: &Claim<P>,
        why: &Obstacle<P>,
        limits: &Limits,
        now: Instant,
    ) -> Vec<u64> {
        let helps = |one: &Holding<P>| match why {
            Obstacle::Share(full) => one.claim.shares.iter().any(|(party, _)| party == full),
            Obstacle::Strangers => one.claim.rank < Rank::Known,
            Obstacle::Total => true,
        };
        let leaves = |one: &Holding<P>| {
            one.stays.is_some() && !one.gave_way && one.claim.rank <= claim.rank && helps(one)
        };
        let rank = |one: &Holding<P>| {
            let is_new = now.saturating_duration_since(one.since) < limits.chance;
            let first = one.claim.shares.first();
            let has = first.map_or(0, |(party, _)| self.used_by(party));
            (one.claim.rank, is_new, Reverse(has))
        };
        let holdings = self.holdings.iter().filter(|(_, one)| leaves(one));
        let mut order: Vec<_> = holdings.map(|(number, one)| (rank(one), *number)).collect();
        order.sort_unstable();
        order.into_iter().map(|(_, number)| number).collect()
    }

    /// It holds nothing any more, and is in the list only until it has really left.
    fn give_way(&mut self, number: u64) -> Option<Sender<()>> {
        let mut holding = self.leave(number)?;
        let stays = holding.stays.take();
        holding.gave_way = true;
        self.holdings.insert(number, holding);
        self.evicted += 1;
        self.leaving += 1;
        stays
    }

    fn may_wait(&mut self, claim: &Claim<P>, limits: &Limits) -> bool {
        // Those that gave up stand in nobody's way.
        self.line.retain(|one| !one.call.is_closed());
        let first = |claim: &Claim<P>| claim.shares.first().map(|(party, _)| party.clone());
        let same = self
            .line
            .iter()
            .filter(|one| first(&one.claim) == first(claim))
            .count();
        self.line.len() < limits.waiting && same < limits.waiting_of_one
    }

    /// The oldest in the line that fits, with what it waited for.
    fn next(&mut self, limits: &Limits) -> Option<(u64, Sender<Hold<P>>)> {
        let fits =
            |one: &Waiter<P>| !one.call.is_closed() && self.obstacle(&one.claim, limits).is_none();
        let at = self.line.iter().position(fits)?;
        let next = self.line.remove(at)?;
        let number = self.enter(next.claim, None, Instant::now());
        Some((number, next.call))
    }

    /// The line for the log, if it is time for one: whose claim made it, and who has most.
    fn news(&mut self, limits: &Limits, claim: &Claim<P>, now: Instant) -> Option<String> {
        let (at, refused, evicted) = self.told.unwrap_or((now, 0, 0));
        if self.told.is_some() && now.saturating_duration_since(at) < TELL_EVERY {
            return None;
        }
        let (refused, evicted) = (self.refused - refused, self.evicted - evicted);
        self.told = Some((now, self.refused, self.evicted));
        let Limits { name, total, .. } = limits;
        let mut line = format!(
            "budget={name} refused={refused} evicted={evicted} used={} of={total}",
            self.used
        );
        if let Some((party, most)) = claim.shares.first() {
            line += &format!(" from={party} has={} of_its={most}", self.used_by(party));
        }
        if let Some((party, has)) = self.by.iter().max_by_key(|(_, has)| **has) {
            line += &format!(" biggest={party} has={has}");
        }
        Some(line)
    }
}
