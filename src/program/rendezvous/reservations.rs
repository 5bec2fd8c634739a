//! Which sessions have their ports, and which had them a while ago. No I/O.
//!
//! A session that is over is remembered, so that a request that comes twice opens no ports for nobody: as a few bytes of one
//! row. Anything of its own would stand between what thousands of sessions have left behind, and none of that memory
//! could be given back.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher, RandomState},
    time::{Duration, Instant},
};

use crate::{
    at::AtSign,
    np::{Message, ids::SessionId},
};

/// How long the id of a session that is over is remembered. Notifications live a minute.
const REMEMBER_FOR: Duration = Duration::from_secs(90);
/// Between two answers to the same request, and how many there are at most: who lost one asks again a few times.
const ANSWER_AGAIN: Duration = Duration::from_secs(1);
const MAX_ANSWERS: u32 = 8;
/// Where less than this part of a map is used it is made smaller.
const USED_PART: usize = 8;

/// A session that has its ports, or is about to.
struct Reservation {
    client: AtSign,
    /// Once there is one.
    answer: Option<Message>,
    /// When it was sent last, and how often.
    answered: Option<Instant>,
    answers: u32,
}

impl Reservation {
    /// The answer, where it is time to send it again.
    fn again(&mut self, now: Instant) -> Option<Message> {
        let answer = self.answer.clone()?;
        let is_soon = |last: Instant| now.saturating_duration_since(last) < ANSWER_AGAIN;
        if self.answers >= MAX_ANSWERS || self.answered.is_some_and(is_soon) {
            return None;
        }
        (self.answered, self.answers) = (Some(now), self.answers + 1);
        Some(answer)
    }
}

/// A session that had its ports.
struct EndedSession {
    session: SessionId,
    /// What tells whether it was this one's.
    client: u64,
    when: Instant,
}

/// What is known of a session that somebody asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum KnownSession {
    /// Nothing.
    New,
    /// The same one asks again; with the answer, where it is time to send it again.
    Repeated(Option<Message>),
    /// It is somebody else's.
    Taken,
}

/// The sessions of a rendezvous.
#[derive(Default)]
pub(super) struct Reservations {
    live: HashMap<SessionId, Reservation>,
    /// The oldest first.
    ended: VecDeque<EndedSession>,
    hasher: RandomState,
}

impl Reservations {
    /// What is known of this session. `most` are remembered, those that have ended with them.
    pub(super) fn known(
        &mut self,
        session: SessionId,
        client: &AtSign,
        most: usize,
        now: Instant,
    ) -> KnownSession {
        self.forget(most, now);
        let (is_theirs, answer) = if let Some(live) = self.live.get_mut(&session) {
            let is_theirs = live.client == *client;
            (is_theirs, is_theirs.then(|| live.again(now)).flatten())
        } else if let Some(ended) = self.ended.iter().find(|one| one.session == session) {
            (ended.client == self.hasher.hash_one(client), None)
        } else {
            return KnownSession::New;
        };
        if is_theirs {
            KnownSession::Repeated(answer)
        } else {
            KnownSession::Taken
        }
    }

    /// It is about to have ports.
    pub(super) fn reserve(&mut self, session: SessionId, client: &AtSign) {
        let new = Reservation {
            client: client.clone(),
            answer: None,
            answered: None,
            answers: 0,
        };
        self.live.insert(session, new);
    }

    /// What its client is told, now for the first time.
    pub(super) fn answered(&mut self, session: SessionId, answer: &Message, now: Instant) {
        if let Some(live) = self.live.get_mut(&session) {
            (live.answer, live.answered) = (Some(answer.clone()), Some(now));
        }
    }

    /// It is over.
    pub(super) fn end(&mut self, session: SessionId, now: Instant) {
        if let Some(live) = self.live.remove(&session) {
            self.ended.push_back(EndedSession {
                session,
                client: self.hasher.hash_one(&live.client),
                when: now,
            });
        }
        if self.live.len() < self.live.capacity() / USED_PART {
            self.live.shrink_to(2 * self.live.len());
        }
    }

    fn forget(&mut self, most: usize, now: Instant) {
        let is_old = |one: &EndedSession| now.saturating_duration_since(one.when) >= REMEMBER_FOR;
        let old = self.ended.iter().take_while(|one| is_old(one)).count();
        let too_many = (self.live.len() + self.ended.len()).saturating_sub(most);
        self.ended.drain(..old.max(too_many.min(self.ended.len())));
        if self.ended.len() < self.ended.capacity() / USED_PART {
            self.ended.shrink_to(2 * self.ended.len());
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn at(name: &str) -> AtSign {
        name.parse().unwrap()
    }

    #[test]
    fn a_request_that_comes_twice_has_the_same_answer_and_after_the_session_none() {
        let (mut all, start) = (Reservations::default(), Instant::now());
        let (session, alice, eve) = (SessionId::random(), at("@alice"), at("@eve"));
        let know = |all: &mut Reservations, who, after| {
            all.known(session, who, 10, start + Duration::from_millis(after))
        };
        assert_eq!(know(&mut all, &alice, 0), KnownSession::New);
        all.reserve(session, &alice);
        assert_eq!(know(&mut all, &alice, 0), KnownSession::Repeated(None));
        let answer = Message {
            to: alice.clone(),
            entity: "x".to_owned(),
            text: "y".to_owned(),
        };
        all.answered(session, &answer, start);
        assert_eq!(know(&mut all, &alice, 999), KnownSession::Repeated(None));
        for (after, want) in [(1000, true), (1001, false), (2000, true)] {
            let want = KnownSession::Repeated(want.then(|| answer.clone()));
            assert_eq!(know(&mut all, &alice, after), want, "{after}");
        }
        assert_eq!(know(&mut all, &eve, 5000), KnownSession::Taken);
        all.end(session, start);
        assert_eq!(know(&mut all, &alice, 89_999), KnownSession::Repeated(None));
        assert_eq!(know(&mut all, &eve, 89_999), KnownSession::Taken);
        assert_eq!(know(&mut all, &eve, 90_000), KnownSession::New);
    }

    /// Each kept the text of its atSign for 90 s, and so a page of the memory that its session had used.
    #[test]
    fn sessions_that_have_ended_hold_a_few_bytes_each_and_at_last_none() {
        const MANY: usize = 4096;
        let (mut all, now, alice) = (Reservations::default(), Instant::now(), at("@alice"));
        let sessions: Vec<_> = (0..MANY).map(|_| SessionId::random()).collect();
        sessions.iter().for_each(|one| all.reserve(*one, &alice));
        sessions.iter().for_each(|one| all.end(*one, now));
        assert!(
            all.live.capacity() <= 2 * USED_PART,
            "{}",
            all.live.capacity()
        );
        assert!(!std::mem::needs_drop::<EndedSession>() && size_of::<EndedSession>() <= 40);
        assert_eq!(all.ended.len(), MANY);
        // With others in their place no more than there may be.
        all.known(SessionId::random(), &alice, 100, now);
        assert_eq!(all.ended.len(), 100);
        let later = now + REMEMBER_FOR;
        assert_eq!(
            all.known(sessions[MANY - 1], &alice, MANY, later),
            KnownSession::New
        );
        assert_eq!((all.ended.len(), all.ended.capacity()), (0, 0));
    }
}
