//! What the daemon says of itself: to whoever pings, to its managers as records, to its policy.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use async_std::task;
use futures_lite::future;
use log::{debug, error, warn};

use super::{
    budgets::{PING_PAUSE, PINGS, PINGS_OF_ONE},
    state::Daemon,
};
use crate::{
    at::{
        AtKey, AtSign, Notification, Verb,
        client::AtError,
        metadata::Metadata,
        pins::{FirstSight, PinError},
    },
    budget::{Budget, Claim, Hold},
    np::{
        Message, NAMESPACE,
        ids::Nonce,
        ping::{self, Heartbeat},
    },
    session::{ignored, online},
    sys,
};

/// How often the policy is told that the device is there.
const SHOW_EVERY: Duration = Duration::from_secs(300);
/// How often the device record is published again.
const RECORD_EVERY: Duration = Duration::from_secs(3600);
/// When what could not be published is tried again.
const PUBLISH_AGAIN: Duration = Duration::from_secs(30);
/// How often it is looked whether a manager's new key is believed by now: whoever trusts it then tries again at once.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// Life of the device record, in milliseconds (30 days).
const RECORD_TTL: u64 = 30 * 24 * 3600 * 1000;

/// Starts of other daemons of our name that are remembered; the oldest gives way.
const NAMESAKES: usize = 64;
/// How often those that are known are asked whether they are still there.
const ASK_NAMESAKES: Duration = Duration::from_secs(600);
/// After so long without an answer one has ended: a question or two may be lost.
const NAMESAKE_LEFT: Duration = Duration::from_secs(25 * 60);

/// Other daemons of our atSign and name, by their starts, and when each was heard last.
#[derive(Debug, Default)]
pub(super) struct Namesakes(Vec<(Nonce, Instant)>);

impl Namesakes {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn contains(&self, run: &Nonce) -> bool {
        self.0.iter().any(|(known, _)| known == run)
    }

    /// Remembers it; whether it is a new one.
    fn heard(&mut self, run: &Nonce, now: Instant) -> bool {
        let known = self.0.iter().position(|(known, _)| known == run);
        if let Some(known) = known.or((self.0.len() == NAMESAKES).then_some(0)) {
            self.0.remove(known);
        }
        self.0.push((run.clone(), now));
        known.is_none()
    }

    fn forget_silent(&mut self, now: Instant) {
        let is_there = |last| now.saturating_duration_since(last) < NAMESAKE_LEFT;
        self.0.retain(|(_, last)| is_there(*last));
    }
}

/// Senders whose pings are being answered.
#[derive(Clone)]
pub(super) struct Pings {
    places: Budget<AtSign>,
    in_work: Arc<Mutex<PingsInWork>>,
}

/// By sender: its place, and the latest ping that has come meanwhile.
type PingsInWork = HashMap<AtSign, (Hold<AtSign>, Option<LatePing>)>;
/// A ping, and whether its sender may use this device.
type LatePing = (Notification, bool);

impl Default for Pings {
    fn default() -> Self {
        Self {
            places: Budget::new(PINGS),
            in_work: Arc::default(),
        }
    }
}

impl Daemon {
    fn heartbeat(&self) -> Heartbeat {
        let mut ours = Heartbeat::ours(&self.options.device, self.options.permit.services());
        ours.others = !self.namesakes().is_empty();
        ours.shared = self.options.shared_name;
        ours.features.public_keys = self.options.ssh.accept_keys.is_some();
        if let Some(consult) = &self.options.consult {
            ours.group = consult.group.to_string();
        }
        #[cfg(feature = "held")]
        let ours = self.options.habits.say(ours);
        ours
    }

    fn heartbeat_message(&self, to: &AtSign, heartbeat: &Heartbeat) -> Message {
        Message {
            text: self.text(heartbeat),
            ..ping::answer(to, &self.options.device, heartbeat)
        }
    }

    fn text(&self, heartbeat: &Heartbeat) -> String {
        #[cfg(feature = "held")]
        return self.options.habits.print(heartbeat);
        #[cfg(not(feature = "held"))]
        heartbeat.print()
    }

    /// A ping. Of one sender at most one is being answered, and one answer later serves all that came meanwhile: each is
    /// heard by all programs of that atSign.
    pub(super) fn answer_pings(&self, note: Notification, allowed: bool) {
        let from = note.from.clone();
        {
            let mut pings = self.pings();
            if let Some((_, more)) = pings.get_mut(&from) {
                *more = Some((note, allowed));
                return;
            }
            let claim = Claim::of(from.clone(), PINGS_OF_ONE);
            let Some(place) = self.pings.places.take(claim, Instant::now()) else {
                return;
            };
            pings.insert(from.clone(), (place, None));
        }
        let daemon = self.clone();
        task::spawn(async move {
            let mut next = Some((note, allowed));
            while let Some((note, allowed)) = next {
                daemon.answer_ping(note, allowed).await;
                task::sleep(PING_PAUSE).await;
                next = daemon.next_ping(&from);
            }
        });
    }

    /// The latest of those that came while others were answered; when there is none, nobody is at it any more.
    fn next_ping(&self, from: &AtSign) -> Option<LatePing> {
        let mut pings = self.pings();
        let next = pings.get_mut(from).and_then(|(_, more)| more.take());
        if next.is_none() {
            pings.remove(from);
        }
        next
    }

    fn pings(&self) -> MutexGuard<'_, PingsInWork> {
        let waiting = self.pings.in_work.lock();
        waiting.unwrap_or_else(PoisonError::into_inner)
    }

    /// Whoever is denied, or has another key than before, learns that the device is there, so that its client goes on to
    /// ask, and hears why not; but not what others may open.
    async fn answer_ping(&self, note: Notification, allowed: bool) {
        let nothing = || {
            let nothing = Heartbeat {
                services: Vec::new(),
                run: Some(self.run.clone()),
                ..self.heartbeat()
            };
            self.heartbeat_message(&note.from, &nothing)
        };
        let refusal = |_: &PinError| nothing();
        if !allowed {
            return online::send_or_refuse(&self.at, &nothing(), refusal).await;
        }
        match self.at.decrypt(&note).await {
            Ok(Some(text)) if text == ping::PING => {
                let heartbeat = Heartbeat {
                    run: Some(self.run.clone()),
                    ..self.heartbeat()
                };
                let answer = self.heartbeat_message(&note.from, &heartbeat);
                online::send_or_refuse(&self.at, &answer, refusal).await;
            }
            other => ignored::note(
                &note.from,
                format_args!("word=ping reason={:?}", online::unread(other)),
            ),
        }
    }

    /// Is another daemon of this atSign and name there? A request that is signed for its run is its own. What others of the same
    /// atSign answer comes to all of them. Asked at a start, and then as long as there is one: it may have ended.
    pub(super) async fn look_for_namesakes(&self) {
        let ping = ping::ask(self.at.atsign(), &self.options.device);
        online::send_or_log(&self.at, &ping).await;
        loop {
            task::sleep(ASK_NAMESAKES).await;
            self.namesakes().forget_silent(Instant::now());
            if !self.namesakes().is_empty() {
                online::send_or_log(&self.at, &ping).await;
            }
        }
    }

    /// What daemons of our own atSign and name ask and answer each other; whether it was that.
    pub(super) fn hears_namesake(&self, note: &Notification) -> bool {
        let us = self.at.atsign();
        if note.from != *us {
            return false;
        }
        match self.word(note) {
            Some("heartbeat") => {
                let (daemon, note) = (self.clone(), note.clone());
                task::spawn(async move { daemon.tell_namesake(&note).await });
                true
            }
            // Where our own atSign is a manager, it may be a client.
            Some("ping") if !self.options.managers.contains(us) => {
                self.answer_pings(note.clone(), false);
                true
            }
            _ => false,
        }
    }

    /// Our own answer is among those that are heard.
    async fn tell_namesake(&self, note: &Notification) {
        let text = self.at.decrypt(note).await.ok().flatten();
        let said = text.and_then(|text| Heartbeat::parse(&text).ok());
        if let Some(run) = said.and_then(|said| said.run)
            && self.is_new_namesake(&run)
        {
            let device = format!("{}{}", self.options.device, self.at.atsign());
            warn!(
                "device={device} run={} other_run={} reason=\"another daemon of this atSign and name is running\" \
                 hint=\"a client meets the one that is quicker: stop one, or give it a name of its own with --device; if it \
                 is intended, say --shared-name to both\"",
                self.run.as_str(),
                run.as_str()
            );
        }
    }

    /// Whether it is to be told.
    fn is_new_namesake(&self, run: &Nonce) -> bool {
        let is_new = *run != self.run && self.namesakes().heard(run, Instant::now());
        is_new && !self.options.shared_name
    }

    /// A sign of life for the policy, now and every few minutes.
    pub(super) async fn show_for_ever(&self) {
        while self.options.consult.is_some() {
            self.doorman.show(&self.heartbeat()).await;
            task::sleep(SHOW_EVERY).await;
        }
    }

    /// User name and device record, now, every hour, when a manager has new keys, and once those are believed; what cannot
    /// be published is tried again.
    pub(super) async fn publish_for_ever(&self) {
        loop {
            let done = self.publish().await;
            let pause = if done.is_complete {
                RECORD_EVERY
            } else {
                PUBLISH_AGAIN
            };
            let renewed =
                async { while !self.options.managers.contains(&self.at.renewed().await) {} };
            let news = future::or(renewed, self.until_believed(&done.refused));
            future::or(task::sleep(pause), news).await;
        }
    }

    /// Until the key of one of these is believed: somebody has trusted it here, or another manager vouched for it.
    async fn until_believed(&self, refused: &[AtSign]) {
        while !refused.is_empty() {
            task::sleep(LOOK_AGAIN).await;
            for who in refused {
                if let Ok(Some(key)) = self.at.public_key(who).await
                    && self.pins.check(who, &key, FirstSight::Pass).await.is_ok()
                {
                    return;
                }
            }
        }
        future::pending().await
    }

    /// For each manager: what cannot be published for one is no other's loss.
    async fn publish(&self) -> Published {
        let mut done = Published {
            refused: Vec::new(),
            is_complete: true,
        };
        for manager in &self.options.managers {
            match self.publish_for(manager).await {
                Ok(()) => {}
                Err(AtError::Pin(changed)) => {
                    let (reason, hint) = (changed.to_string(), changed.hint());
                    warn!("not_published for={manager} reason={reason:?} hint={hint:?}");
                    done.refused.push(manager.clone());
                }
                Err(why) => {
                    done.is_complete = false;
                    if online::is_no_atsign(&why) {
                        // Told at the start.
                        debug!("not_published for={manager} reason={:?}", why.to_string());
                    } else {
                        error!("not_published for={manager} reason={:?}", why.to_string());
                    }
                }
            }
        }
        done
    }

    async fn publish_for(&self, manager: &AtSign) -> Result<(), AtError> {
        let device = &self.options.device;
        let (name, info) = (
            format!("username.{device}.{NAMESPACE}"),
            format!("device_info.{device}.{NAMESPACE}"),
        );
        if self.options.hide {
            for entity in [&name, &info] {
                let key = AtKey::shared(manager, entity, self.at.atsign());
                let priority = None;
                self.at.run(&Verb::Delete { key, priority }).await?;
            }
            return Ok(());
        }
        let metadata = Metadata {
            ttr: Some(-1),
            ccd: Some(true),
            ..Metadata::default()
        };
        if let Some(user) = sys::user::name() {
            let put = self.at.put_shared(manager, &name, &user, metadata.clone());
            put.await?;
        }
        let metadata = Metadata {
            ttl: Some(RECORD_TTL),
            ..metadata
        };
        let text = self.text(&self.heartbeat());
        self.at.put_shared(manager, &info, &text, metadata).await
    }

    /// At a start: names that the atDirectory does not know. They may be made later, so the daemon goes on.
    pub(super) async fn tell_unknown_names(&self) {
        let policy = self.options.consult.as_ref().map(|consult| &consult.policy);
        let rendezvous = self.options.only_managers.iter().flatten();
        let managers = self.options.managers.iter().map(|who| ("manager", who));
        let policy = policy.into_iter().map(|who| ("policy", who));
        let others = policy.chain(rendezvous.map(|who| ("rendezvous", who)));
        for (role, who) in managers.chain(others) {
            if let Err(why) = self.at.public_key(who).await
                && online::is_no_atsign(&why)
            {
                warn!(
                    "{role}={who} reason=\"there is no atSign {who}\" hint=\"check the spelling of --{role}, and the \
                     atDirectory (--root); until it is there, nobody comes in as {who}\""
                );
            }
        }
    }
}

/// What came of publishing.
struct Published {
    /// For them nothing: their keys are others than before.
    refused: Vec<AtSign>,
    /// Nothing else failed.
    is_complete: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namesake_that_answers_no_more_is_forgotten() {
        let (mut known, start) = (Namesakes::default(), Instant::now());
        let (one, other) = (Nonce::random(), Nonce::random());
        assert!(known.heard(&one, start) && known.heard(&other, start));
        // Asked twice, and only one of them answers.
        for asked in 1..=2 {
            let now = start + ASK_NAMESAKES * asked;
            assert!(!known.heard(&other, now), "it is told once");
            known.forget_silent(now);
            assert!(known.contains(&one), "an answer may be lost");
        }
        known.forget_silent(start + ASK_NAMESAKES * 3);
        assert!(!known.contains(&one) && known.contains(&other));
        assert!(known.heard(&one, start + ASK_NAMESAKES * 3), "it is back");
        known.forget_silent(start + ASK_NAMESAKES * 9);
        assert!(known.is_empty());
        for _ in 0..2 * NAMESAKES {
            known.heard(&Nonce::random(), start);
        }
        assert_eq!(known.0.len(), NAMESAKES);
    }
}
