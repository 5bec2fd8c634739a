//! Who holds what of a budget: what fits, who makes room, who is next.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap, VecDeque},
    time::{Duration, Instant},
};

use async_std::channel::Sender;
use log::warn;

use super::{Claim, Hold, Limits, Party, Rank, Share, Stays};

/// Between two log lines about one budget.
pub(super) const TELL_EVERY: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Ledger<P: Party> {
    pub(super) used: u64,
    /// The part of it that is held by others than [`Rank::Known`].
    pub(super) by_strangers: u64,
    /// Holders that were told to leave and have not left yet.
    pub(super) leaving: u64,
    pub(super) by: HashMap<P, u64>,
    /// By number: the oldest first.
    pub(super) holdings: BTreeMap<u64, Holding<P>>,
    pub(super) next: u64,
    /// By their rounds, then the oldest first.
    pub(super) line: VecDeque<Waiter<P>>,
    /// The latest of those that had their turn.
    pub(super) round: u64,
    pub(super) refused: u64,
    pub(super) evicted: u64,
    /// When the log was last told, and what was counted then.
    pub(super) told: Option<(Instant, u64, u64)>,
}

#[derive(Debug)]
pub(super) struct Holding<P> {
    pub(super) claim: Claim<P>,
    pub(super) since: Instant,
    /// Of one that can give way, and has not: dropped to tell it.
    pub(super) stays: Option<Stays>,
    /// It has been told: nothing is counted for it any more.
    pub(super) gave_way: bool,
}

#[derive(Debug)]
pub(super) struct Waiter<P: Party> {
    pub(super) claim: Claim<P>,
    /// Everybody in the line has a turn in each.
    round: u64,
    pub(super) call: Sender<Hold<P>>,
}

/// What became of a claim that may have needed room.
pub(super) struct Room {
    pub(super) fits: bool,
    /// Dropped to tell those that give way: not under the lock, for whoever leaves comes back here.
    pub(super) leave: Vec<Stays>,
    pub(super) news: Option<String>,
}

impl Room {
    pub(super) fn tell(self) {
        drop(self.leave);
        tell(self.news);
    }
}

/// Why a claim does not fit.
pub(super) enum Obstacle<P> {
    /// This party has its share.
    Share(P),
    /// What strangers may have together is used.
    Strangers,
    /// All is used.
    Total,
}

impl<P: Party> Ledger<P> {
    pub(super) fn new() -> Self {
        Self {
            used: 0,
            by_strangers: 0,
            leaving: 0,
            by: HashMap::new(),
            holdings: BTreeMap::new(),
            next: 0,
            line: VecDeque::new(),
            round: 0,
            refused: 0,
            evicted: 0,
            told: None,
        }
    }

    pub(super) fn used_by(&self, party: &P) -> u64 {
        self.by.get(party).copied().unwrap_or_default()
    }

    pub(super) fn biggest(&self) -> Option<(P, u64)> {
        let biggest = self.by.iter().max_by_key(|(_, has)| **has)?;
        Some((biggest.0.clone(), *biggest.1))
    }

    pub(super) fn obstacle(&self, claim: &Claim<P>, limits: &Limits) -> Option<Obstacle<P>> {
        let fits = |used: u64, most| used.saturating_add(claim.amount) <= most;
        let full = |(party, most): &&Share<P>| !fits(self.used_by(party), *most);
        // Who makes room for the smallest makes it for the others, too.
        let narrowest = claim
            .shares
            .iter()
            .filter(full)
            .min_by_key(|(_, most)| most);
        if let Some((party, _)) = narrowest {
            Some(Obstacle::Share(party.clone()))
        } else if !fits(self.used, limits.total) {
            Some(Obstacle::Total)
        } else {
            let for_strangers = limits.total.saturating_sub(limits.reserve);
            let full = claim.rank < Rank::Known && !fits(self.by_strangers, for_strangers);
            full.then_some(Obstacle::Strangers)
        }
    }

    pub(super) fn enter(&mut self, claim: Claim<P>, stays: Option<Stays>, since: Instant) -> u64 {
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

    pub(super) fn count(&mut self, claim: &Claim<P>) {
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
    pub(super) fn leave(&mut self, number: u64) -> Option<Holding<P>> {
        let holding = self.holdings.get(&number).filter(|one| !one.gave_way)?;
        let claim = holding.claim.clone();
        self.uncount(&claim);
        self.holdings.remove(&number)
    }

    /// Takes from others until the claim fits, or there is nobody left to take from.
    pub(super) fn make_room(&mut self, claim: &Claim<P>, limits: &Limits, now: Instant) -> Room {
        let mut leave = Vec::new();
        let mut obstacle = self.obstacle(claim, limits);
        while let Some(why) = &obstacle {
            let next = self.next_to_leave(claim, why, limits, now);
            if next.is_empty() {
                break;
            }
            leave.extend(next.into_iter().filter_map(|number| self.give_way(number)));
            obstacle = self.obstacle(claim, limits);
        }
        let fits = obstacle.is_none();
        self.refused += u64::from(!fits);
        let quiet = fits && leave.is_empty();
        let news = if quiet {
            None
        } else {
            self.news(limits, claim, now)
        };
        Room { fits, leave, news }
    }

    /// Who makes room for this claim. Where many could, more leave at a time than needed: a flood costs one look at all
    /// of them in a while.
    fn next_to_leave(
        &self,
        claim: &Claim<P>,
        why: &Obstacle<P>,
        limits: &Limits,
        now: Instant,
    ) -> Vec<u64> {
        let helps = |one: &Holding<P>| match why {
            Obstacle::Share(_) if claim.modest => false,
            Obstacle::Share(full) => one.claim.shares.iter().any(|(party, _)| party == full),
            Obstacle::Strangers => one.claim.rank < Rank::Known,
            Obstacle::Total => true,
        };
        let leaves = |one: &Holding<P>| {
            let soft = one.stays.is_some() && !one.claim.firm;
            soft && one.claim.rank <= claim.rank && helps(one)
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
        let may_leave = (limits.total / 64 + 8).saturating_sub(self.leaving);
        let many = order.len().div_ceil(64);
        order.truncate(many.min(usize::try_from(may_leave).unwrap_or(usize::MAX)));
        order.into_iter().map(|(_, number)| number).collect()
    }

    /// It holds nothing any more, and is in the list only until it has really left.
    fn give_way(&mut self, number: u64) -> Option<Stays> {
        let mut holding = self.leave(number)?;
        let stays = holding.stays.take();
        holding.gave_way = true;
        self.holdings.insert(number, holding);
        self.evicted += 1;
        self.leaving += 1;
        stays
    }

    /// Puts it in the line, behind one of each other party at most but for those of its own. `false`: there is no room.
    pub(super) fn stand_in_line(
        &mut self,
        claim: &Claim<P>,
        call: &Sender<Hold<P>>,
        limits: &Limits,
    ) -> bool {
        // Those that gave up stand in nobody's way.
        self.line.retain(|one| !one.call.is_closed());
        let own = self
            .line
            .iter()
            .filter(|one| one.claim.party() == claim.party());
        let (same, last) = (own.clone().count(), own.map(|one| one.round).max());
        let has_room = self.line.len() < limits.waiting || self.shorten(same);
        if same >= limits.waiting_of_one || !has_room {
            return false;
        }
        // Who has something already has had its turn in this one.
        let holds = claim.party().is_some_and(|who| self.by.contains_key(who));
        let next = self.round + u64::from(holds);
        let round = last.map_or(next, |last| next.max(last + 1));
        let at = self.line.partition_point(|one| one.round <= round);
        let waiter = Waiter {
            claim: claim.clone(),
            round,
            call: call.clone(),
        };
        self.line.insert(at, waiter);
        true
    }

    /// Of a full line: the newest of whoever has most in it leaves, for one who has fewer. `false`: nobody has more.
    fn shorten(&mut self, fewer: usize) -> bool {
        let mut by: HashMap<Option<&P>, (usize, usize)> = HashMap::new();
        for (at, one) in self.line.iter().enumerate() {
            let (count, last) = by.entry(one.claim.party()).or_default();
            (*count, *last) = (*count + 1, at);
        }
        let most = by.into_values().max_by_key(|(count, _)| *count);
        let Some((_, last)) = most.filter(|(count, _)| *count > fewer + 1) else {
            return false;
        };
        self.refused += 1;
        self.line.remove(last).is_some()
    }

    /// The first in the line that fits, with what it waited for.
    pub(super) fn next(&mut self, limits: &Limits) -> Option<(u64, Sender<Hold<P>>)> {
        let fits =
            |one: &Waiter<P>| !one.call.is_closed() && self.obstacle(&one.claim, limits).is_none();
        let at = self.line.iter().position(fits)?;
        let next = self.line.remove(at)?;
        self.round = self.round.max(next.round);
        let number = self.enter(next.claim, None, Instant::now());
        Some((number, next.call))
    }

    /// The line for the log, if it is time for one: whose claim made it, and who has most.
    pub(super) fn news(
        &mut self,
        limits: &Limits,
        claim: &Claim<P>,
        now: Instant,
    ) -> Option<String> {
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
        if let Some((party, has)) = self.biggest() {
            line += &format!(" biggest={party} has={has}");
        }
        Some(line)
    }
}

pub(super) fn tell(news: Option<String>) {
    if let Some(news) = news {
        warn!("{news}");
    }
}
