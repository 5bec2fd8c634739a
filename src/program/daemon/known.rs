//! The sessions of the last minutes: a request that comes twice acts once, and gets the same answer.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use crate::{
    at::AtSign,
    np::{Message, ids::SessionId},
};

/// Answers that are kept, so that a repeated request gets the same one and acts only once.
pub(super) const REMEMBERED: usize = 1024;
/// How long a repeated request gets its answer again. Notifications live a minute.
const REMEMBER_FOR: Duration = Duration::from_secs(180);

/// The sessions of the last minutes.
#[derive(Default)]
pub(super) struct RecentSessions {
    sessions: HashMap<SessionId, (AtSign, Option<Message>)>,
    order: VecDeque<(Instant, SessionId)>,
}

/// What is known about a session id.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum EarlierRequest {
    /// Nothing: it is ours to open.
    New,
    /// It is being opened.
    InWork,
    /// It has its answer.
    Answered(Message),
    /// SessionRequest for before, by somebody else.
    Foreign,
}

impl RecentSessions {
    /// Looks a session up, and remembers it from now on.
    pub(super) fn seen(&mut self, session: SessionId, from: &AtSign) -> EarlierRequest {
        self.forget(Instant::now());
        match self.sessions.get(&session) {
            Some((owner, _)) if owner != from => EarlierRequest::Foreign,
            Some((_, None)) => EarlierRequest::InWork,
            Some((_, Some(answer))) => EarlierRequest::Answered(answer.clone()),
            None => {
                self.make_room();
                self.sessions.insert(session, (from.clone(), None));
                self.order.push_back((Instant::now(), session));
                EarlierRequest::New
            }
        }
    }

    /// Keeps the answer, for whoever asks again.
    pub(super) fn answered(&mut self, session: SessionId, answer: Message) {
        if let Some((_, slot)) = self.sessions.get_mut(&session) {
            *slot = Some(answer);
        }
    }

    fn forget(&mut self, now: Instant) {
        while let Some((when, session)) = self.order.front().copied() {
            if now.duration_since(when) < REMEMBER_FOR {
                break;
            }
            self.order.pop_front();
            self.sessions.remove(&session);
        }
    }

    /// Where all places are taken, the oldest of whoever has most gives way: nobody's many requests push out the answer
    /// that somebody else is about to ask for again.
    fn make_room(&mut self) {
        if self.order.len() < REMEMBERED {
            return;
        }
        let owner = |session: &SessionId| self.sessions.get(session).map(|(owner, _)| owner);
        let mut counts: HashMap<&AtSign, usize> = HashMap::new();
        for (_, session) in &self.order {
            if let Some(owner) = owner(session) {
                *counts.entry(owner).or_default() += 1;
            }
        }
        let biggest = counts.into_iter().max_by_key(|(_, count)| *count);
        let biggest = biggest.map(|(who, _)| who);
        let oldest = self.order.iter().position(|row| owner(&row.1) == biggest);
        if let Some((_, session)) = oldest.and_then(|at| self.order.remove(at)) {
            self.sessions.remove(&session);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crate::np::request;
    use crate::program::daemon::known::*;

    #[test]
    fn a_session_is_opened_once_however_often_it_is_asked_for() {
        let (mut known, session) = (RecentSessions::default(), SessionId::random());
        let (alice, mallory): (AtSign, AtSign) =
            ("@alice".parse().unwrap(), "@mallory".parse().unwrap());
        assert_eq!(known.seen(session, &alice), EarlierRequest::New);
        assert_eq!(known.seen(session, &alice), EarlierRequest::InWork);
        let answer = request::refuse(session, "no", &alice, &"d".parse().unwrap());
        known.answered(session, answer.clone());
        assert_eq!(
            known.seen(session, &alice),
            EarlierRequest::Answered(answer)
        );
        assert_eq!(known.seen(session, &mallory), EarlierRequest::Foreign);
        known.forget(Instant::now() + REMEMBER_FOR);
        assert_eq!(known.seen(session, &alice), EarlierRequest::New);
    }

    #[test]
    fn memory_is_bounded() {
        let (mut known, alice) = (RecentSessions::default(), "@alice".parse().unwrap());
        for _ in 0..3 * REMEMBERED {
            known.seen(SessionId::random(), &alice);
        }
        assert!(
            known.sessions.len() <= REMEMBERED,
            "{}",
            known.sessions.len()
        );
    }

    #[test]
    fn a_flood_of_one_manager_costs_another_none_of_its_answers() {
        let mut known = RecentSessions::default();
        let (alice, bob): (AtSign, AtSign) = ("@alice".parse().unwrap(), "@bob".parse().unwrap());
        let session = SessionId::random();
        known.seen(session, &alice);
        for _ in 0..3 * REMEMBERED {
            known.seen(SessionId::random(), &bob);
        }
        assert_eq!(known.seen(session, &alice), EarlierRequest::InWork);
        assert_eq!(known.order.len(), REMEMBERED);
        assert_eq!(known.sessions.len(), REMEMBERED);
    }
}
