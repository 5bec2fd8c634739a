//! The service: hears questions, answers them by the rules of the moment.
//!
//! Only daemons are answered that `--daemon` names, or without it the rules: to others it is silent, before anything of theirs
//! is decrypted, and a line in the log is all that they cost. A daemon's first key that is seen is remembered, or the one
//! that `--daemon @kitchen#FINGERPRINT` names: with another one it gets no answer, until somebody says `noports trust`.
//!
//! | budget | in all | of one | who gives way |
//! | --- | --- | --- | --- |
//! | `questions`: in work, of daemons that are answered | 512 | 64 | nobody; daemons ask again |

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use async_std::{
    channel::{self, Receiver, Sender},
    task,
};
use futures_lite::future;
use log::{debug, error, info, warn};

use crate::{
    at::{
        AtKey, AtSign, Notification, Verb,
        client::{AtError, Client, Network},
        keyfile::AtKeys,
        metadata::Metadata,
        pins::{FirstSight, NamedKeys, Pins},
        verb::Operation,
    },
    budget::{Budget, Claim, Limits},
    cli::Failure,
    np::policy::{
        self, AuthCheck,
        rpc::{self, RequestId},
        rules::{Decision, Rules},
    },
    session::{ignored, online},
    sys::signal::HangUps,
    text::json::Object,
};

use super::source::{FileStamp, RuleSource, is_rule, own_news, read_rules};

/// Questions that may be in work at the same time, of all daemons and of one; more are dropped, and daemons
/// ask again.
const QUESTIONS: Limits = Limits::new("questions", 512);
const QUESTIONS_OF_ONE: u64 = 64;
/// Life of a lock, in milliseconds: daemons ask again after four seconds.
const LOCK_TTL: u64 = 3000;
/// Life of a log notification, in milliseconds.
const LOG_TTL: u64 = 3_600_000;

/// What to serve.
#[derive(Clone, Debug)]
pub(super) struct PolicyOptions {
    /// Where the rules are.
    pub source: RuleSource,
    /// Who is answered; empty: those that the rules name. A daemon learns only about its own devices.
    pub daemons: Vec<AtSign>,
    /// Keys that count whatever atServers tell.
    pub pins: NamedKeys,
    /// Where other keys are remembered.
    pub memory: Option<PathBuf>,
    /// Notify ourselves of each decision.
    pub publish_log: bool,
    /// There may be another process with this atSign: one of us answers.
    pub shared: bool,
    /// Within this a connection to the atServer that has died in silence is replaced.
    pub proof: Duration,
}

/// Serves until the connection has ended for good. `ready` is called once, with a JSON line, when questions
/// are heard.
///
/// # Errors
/// When trying again cannot help, and when there are no rules to begin with.
pub(super) async fn serve(
    network: Network,
    keys: Arc<AtKeys>,
    options: PolicyOptions,
    hang_ups: HangUps,
    ready: impl FnOnce(&str),
) -> Result<(), Failure> {
    if let RuleSource::File(file) = &options.source {
        read_rules(file).await?; // before anything is dialled
    }
    let watch = format!("{}|{}", policy::WATCH_RPC, own_news(&keys.atsign));
    let (at, inbox) = online::log_in(&network, &keys, &watch, options.proof).await?;
    let (news, told) = channel::bounded(1);
    let look = options.source.look().await;
    let rules = options.source.read_first(&at).await?;
    let pins = Pins::new(options.memory.clone(), options.pins.clone());
    if let Err(why) = pins.can_remember().await {
        warn!(
            "keys_of_others=in_memory reason=\"{why}\": after each start daemons' first keys count"
        );
    }
    at.heed(pins.clone(), None);
    info!("ready as={} groups={}", at.atsign(), rules.groups.len());
    let policy = PolicyService(Arc::new(PolicyState {
        at,
        pins,
        rules: Mutex::new(Arc::new(rules)),
        options,
        questions: Budget::new(QUESTIONS),
        news,
    }));
    let owner = policy.0.at.atsign().as_str();
    ready(&Object::event("ready").text("as", owner).end());
    let reload = async {
        policy.reload_for_ever(look, told, hang_ups).await;
        Ok(())
    };
    future::or(online::listen(inbox, |note| policy.hear(note)), reload).await
}

/// The service; cheap to clone.
#[derive(Clone)]
struct PolicyService(Arc<PolicyState>);

struct PolicyState {
    at: Client,
    /// Keys of daemons.
    pins: Pins,
    rules: Mutex<Arc<Rules>>,
    options: PolicyOptions,
    questions: Budget<AtSign>,
    /// "The records have changed."
    news: Sender<()>,
}

impl PolicyService {
    fn hear(&self, note: Notification) {
        if note.is_text || note.is_stats() {
            return;
        }
        if is_rule(note.entity()) && note.from == *self.0.at.atsign() {
            let _ = self.0.news.try_send(());
        } else if let Some(id) = rpc::asked(note.entity()) {
            self.take(note, id);
        }
    }

    fn take(&self, note: Notification, id: RequestId) {
        let inner = &self.0;
        let from = &note.from;
        let known = match inner.options.daemons.as_slice() {
            [] => self.rules().name_daemon(from),
            daemons => daemons.contains(from),
        };
        if !known || note.operation != Operation::Update {
            return ignored::note(from, format_args!("rpc={id} reason=not_a_daemon_of_ours"));
        }
        let claim = Claim::of(from.clone(), QUESTIONS_OF_ONE);
        let Some(question) = inner.questions.take(claim, Instant::now()) else {
            return;
        };
        let policy = self.clone();
        task::spawn(async move {
            policy.answer(&note, id).await;
            drop(question);
        });
    }

    /// One question: heard, decided, answered.
    async fn answer(&self, note: &Notification, id: RequestId) {
        let (at, from) = (&self.0.at, &note.from);
        let text = match at.decrypt(note).await {
            Ok(text) => text.unwrap_or_default(),
            Err(error) => {
                let why = error.to_string();
                return ignored::note(from, format_args!("rpc={id} reason={why:?}"));
            }
        };
        let question = match AuthCheck::parse(from, id, &text) {
            Ok(question) => question,
            Err(why) => {
                let why = why.to_string();
                ignored::refused(from, format_args!("rpc={id} reason={why:?}"));
                return self.send(&rpc::nack(from, id, &why), rpc::RPC_TTL).await;
            }
        };
        if let Err(why) = self.check_key_of(from, &text).await {
            return ignored::refused(from, format_args!("rpc={id} reason={why:?}"));
        }
        if self.0.options.shared && !self.is_ours(id).await {
            return debug!("left from={from} rpc={id} to=another_process");
        }
        self.send(&rpc::ack(from, id), rpc::RPC_TTL).await;
        let decision = self.rules().decide(&question);
        log_decision(id, &question, &decision);
        let answer = rpc::answer(from, id, &decision.answer);
        self.send(&answer, rpc::RPC_TTL).await;
        if self.0.options.publish_log {
            let millis = SystemTime::now().duration_since(UNIX_EPOCH);
            let millis = millis.map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX));
            let message = rpc::log(at.atsign(), millis, id, &question, &decision.answer);
            self.send(&message, LOG_TTL).await;
        }
    }

    /// Whoever tells another key than before for this daemon could read who may use it, and when. The key that has signed this
    /// question is remembered; classic daemons sign none.
    async fn check_key_of(&self, daemon: &AtSign, question: &str) -> Result<(), String> {
        let found = self.0.at.public_key(daemon).await;
        let key = found.map_err(|why| why.to_string())?;
        let key = key.ok_or_else(|| format!("{daemon} has no public key"))?;
        let first = if rpc::is_signed(question, &key) {
            FirstSight::Remember
        } else {
            FirstSight::Pass
        };
        let checked = self.0.pins.check(daemon, &key, first).await;
        checked.map_err(|changed| format!("{changed} ({})", changed.hint()))
    }

    /// Of several processes with one atSign, the one that writes this record answers. Nobody can write it again before it
    /// has expired, which is sooner than a daemon without an answer asks again: whoever is left then is the one.
    async fn is_ours(&self, id: RequestId) -> bool {
        let at = &self.0.at;
        let lock = Verb::Update {
            key: AtKey::own(&rpc::lock(id), at.atsign()),
            metadata: Metadata {
                ttl: Some(LOCK_TTL),
                immutable: Some(true),
                ..Metadata::default()
            },
            value: "lock".to_owned(),
        };
        match at.run(&lock).await {
            Ok(_) => true,
            Err(AtError::Refused(fault)) if fault.text.contains("immutable") => false,
            // Two answers are better than none.
            Err(error) => {
                warn!("rpc={id} lock=failed reason={:?}", error.to_string());
                true
            }
        }
    }

    async fn send(&self, message: &crate::np::Message, ttl: u64) {
        online::send_living(&self.0.at, message, ttl).await;
    }

    fn rules(&self) -> Arc<Rules> {
        let rules = self.0.rules.lock().unwrap_or_else(PoisonError::into_inner);
        rules.clone()
    }

    /// Reads the rules again when they have changed, or when somebody says so. Rules that cannot be read
    /// change nothing: the old ones stay.
    async fn reload_for_ever(
        &self,
        mut seen: Option<FileStamp>,
        told: Receiver<()>,
        mut hang_ups: HangUps,
    ) {
        let source = &self.0.options.source;
        loop {
            let by = wait(source, &told, &mut hang_ups).await;
            let now = source.look().await;
            if by == "clock" && now.is_some() && now == seen {
                continue;
            }
            seen = now;
            match source.read(&self.0.at).await {
                Ok(rules) => self.replace(rules, by),
                Err(why) => error!("rules=kept by={by} reason={:?}", why.message),
            }
        }
    }

    fn replace(&self, rules: Rules, by: &str) {
        let mut known = self.0.rules.lock().unwrap_or_else(PoisonError::into_inner);
        if **known != rules {
            *known = Arc::new(rules);
            info!("rules=new by={by} groups={}", known.groups.len());
        } else if by != "clock" {
            info!("rules=same by={by} groups={}", known.groups.len());
        }
    }
}

/// Waits for a reason to look at the rules; says which.
async fn wait(source: &RuleSource, told: &Receiver<()>, hang_ups: &mut HangUps) -> &'static str {
    let clock = async {
        task::sleep(source.pause()).await;
        "clock"
    };
    let news = async {
        match told.recv().await {
            Ok(()) => "news",
            Err(_) => future::pending().await,
        }
    };
    let signal = async {
        hang_ups.next().await;
        "signal"
    };
    future::or(signal, future::or(news, clock)).await
}

fn log_decision(id: RequestId, q: &AuthCheck, decision: &Decision) {
    let answer = &decision.answer;
    info!(
        "decision rpc={id} client={} daemon={} device={} group={:?} authorized={} permit={} rule={} groups={:?} reason={:?}",
        q.client,
        q.daemon,
        q.device,
        q.group.as_str(),
        answer.authorized,
        answer.permit_open.join(","),
        decision.by.map_or("none", |by| by.word()),
        decision.groups.join(","),
        decision.why,
    );
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::session::authorise::ASK_AGAIN;

    #[test]
    fn the_table_says_what_the_constants_are() {
        let row = format!("| {} | {QUESTIONS_OF_ONE} |", QUESTIONS.total);
        let header = include_str!("serve.rs");
        assert!(
            header
                .lines()
                .any(|line| line.starts_with("//! | `questions`") && line.contains(&row))
        );
    }

    #[test]
    fn a_lock_is_gone_when_a_daemon_asks_again() {
        assert!(u128::from(LOCK_TTL) + 500 < ASK_AGAIN.as_millis());
    }
}
