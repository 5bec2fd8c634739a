//! May this atSign use the device? The daemon's list says so, else the policy that it asks.
//!
//! ```text
//!   on the list, or the policy itself ───────────────▶ yes, anything the daemon permits
//!   no policy ───────────────────────────────────────▶ a stranger: silence
//!   asked in the last seconds ───────────────────────▶ the same answer
//!   else: request ─▶ policy ─▶ ack, success ─────────▶ yes with what may be opened, or no with the reason
//!                    silence: once more, then ───────▶ no; whoever comes after that is asked about anew
//! ```
//! Only the policy's own messages are decrypted, and only while a question of ours is open.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_std::{
    channel::{self, Receiver, Sender},
    future::timeout,
    task,
};
use futures_lite::future;
use log::{info, warn};

use super::online;
use crate::{
    at::{
        AtSign, Notification,
        client::Client,
        crypto,
        pins::{FirstSight, Pins},
    },
    np::{
        Message,
        ids::DeviceName,
        permit::Permit,
        policy::{
            self, AuthCheck, DeviceGroup,
            rpc::{self, RequestId, ResponseType, RpcResponse},
        },
    },
    session::ignored,
    text::duration::in_words,
};

/// How long a policy has to answer.
const DEADLINE: Duration = Duration::from_secs(10);
/// A question without an answer is asked once more after this.
pub(crate) const ASK_AGAIN: Duration = Duration::from_secs(4);
/// How long an answer holds.
const ANSWER_HOLDS: Duration = Duration::from_secs(15);
/// How long the lack of one holds: the policy may be back at any time. Those that waited for it share it.
const SILENCE_HOLDS: Duration = Duration::ZERO;
/// Clients whose answers are known or awaited at the same time.
const MAX_CLIENTS: usize = 1024;
/// Messages that may wait for a policy's answer at the same time; of all clients, and of one.
const MAX_WAITING: usize = 256;
const MAX_WAITING_OF_ONE: usize = 8;
/// Life of a sign of life on its way, in milliseconds.
const HEARTBEAT_TTL: u64 = 300_000;
/// Answers to one question that are looked at.
const MAX_REPLIES: usize = 8;
/// How often one client is told the same no; from then on it meets silence until the answer is asked for anew.
const MAX_TOLD: usize = 20;
/// Longest reason that is passed on, in characters.
const MAX_REASON: usize = 300;

/// What is said of a policy that is silent.
pub(crate) const NO_ANSWER: &str = "did not answer the device";

/// What becomes of somebody's message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is served; nothing but this may be opened.
    Allowed(Permit),
    /// It is answered with a no, and why.
    Denied(String),
    /// It is not answered at all, and why, for the log.
    Ignored(&'static str),
}

/// As fields for the log.
impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Allowed(permit) => write!(f, "allowed permit={permit}"),
            Self::Denied(why) => write!(f, "denied reason={why:?}"),
            Self::Ignored(reason) => write!(f, "ignored reason={reason}"),
        }
    }
}

/// Whom to ask about those who are not on the list.
#[derive(Clone, Debug)]
pub struct Consult {
    /// The policy's atSign.
    pub policy: AtSign,
    /// The group this device says it is in.
    pub group: DeviceGroup,
}

/// The daemon's doorman; cheap to clone.
#[derive(Clone)]
pub struct Doorman(Arc<Inner>);

struct Inner {
    at: Client,
    device: DeviceName,
    managers: Vec<AtSign>,
    consult: Option<Consult>,
    pins: Pins,
    state: Mutex<Inquiries>,
}

#[derive(Default)]
struct Inquiries {
    clients: HashMap<AtSign, ClientState>,
    questions: HashMap<RequestId, Sender<RpcResponse>>,
    waiting: usize,
}

/// What is known about one client. The lock is held while the policy is asked, so that messages that come
/// together ask once.
#[derive(Default)]
struct ClientState {
    answer: Arc<async_std::sync::Mutex<Option<KnownVerdict>>>,
    waiting: usize,
    until: Option<Instant>,
}

struct KnownVerdict {
    verdict: Verdict,
    since: Instant,
    until: Instant,
    told: usize,
}

impl KnownVerdict {
    /// Whether it is the answer for a message that came then.
    fn answers(&self, came: Instant) -> bool {
        Instant::now() < self.until || came < self.since
    }

    fn tell(&mut self) -> Verdict {
        self.told += 1;
        match &self.verdict {
            Verdict::Denied(_) if self.told > MAX_TOLD => Verdict::Ignored("denied_too_often"),
            verdict => verdict.clone(),
        }
    }
}

impl Doorman {
    /// A doorman with this list, who asks that policy about everybody else.
    pub fn new(
        at: Client,
        device: DeviceName,
        managers: Vec<AtSign>,
        consult: Option<Consult>,
        pins: Pins,
    ) -> Self {
        Self(Arc::new(Inner {
            at,
            device,
            managers,
            consult,
            pins,
            state: Mutex::default(),
        }))
    }

    /// Takes the policy's answers out of what a daemon hears; `true` when this was one.
    pub fn takes(&self, note: &Notification) -> bool {
        let Some((kind, id)) = rpc::answered(note.entity()) else {
            return false;
        };
        let policy = self.0.consult.as_ref().map(|consult| &consult.policy);
        let question = self.0.state().questions.get(&id).cloned();
        match question {
            Some(waiting) if policy == Some(&note.from) => {
                let (doorman, note) = (self.clone(), note.clone());
                task::spawn(async move { doorman.read(kind, id, &note, &waiting).await });
            }
            _ => ignored::note(&note.from, format_args!("rpc={id} reason=not_asked")),
        }
        true
    }

    async fn read(
        &self,
        kind: ResponseType,
        id: RequestId,
        note: &Notification,
        waiting: &Sender<RpcResponse>,
    ) {
        let text = match self.0.at.decrypt(note).await {
            Ok(text) => text.unwrap_or_default(),
            Err(error) => {
                let why = error.to_string();
                return ignored::note(&note.from, format_args!("rpc={id} reason={why:?}"));
            }
        };
        match RpcResponse::parse(kind, id, &text) {
            Ok(reply) => drop(waiting.try_send(reply)),
            Err(why) => {
                let why = why.to_string();
                ignored::note(&note.from, format_args!("rpc={id} reason={why:?}"));
            }
        }
    }

    /// Judges a sender, without asking anybody if that can be.
    pub async fn authorise(&self, from: &AtSign) -> Verdict {
        let Some(consult) = &self.0.consult else {
            return if self.0.managers.contains(from) {
                anything()
            } else {
                Verdict::Ignored("not_a_manager")
            };
        };
        if self.0.managers.contains(from) || consult.policy == *from {
            return anything();
        }
        let came = Instant::now();
        let Some(turn) = WaitingPlace::take(&self.0, from) else {
            return Verdict::Ignored("too_many_waiting");
        };
        let mut held = turn.answer.lock().await;
        if let Some(known) = held.as_mut().filter(|known| known.answers(came)) {
            return known.tell();
        }
        let (verdict, holds) = self.0.ask(consult, from).await;
        let since = Instant::now();
        let until = since + holds;
        if let Some(known) = self.0.state().clients.get_mut(from) {
            known.until = Some(until);
        }
        let known = held.insert(KnownVerdict {
            verdict,
            since,
            until,
            told: 0,
        });
        known.tell()
    }

    /// Tells the policy that this device is there.
    pub async fn show(&self, heartbeat: &crate::np::ping::Heartbeat) {
        let Some(consult) = &self.0.consult else {
            return;
        };
        let message = policy::heartbeat(&consult.policy, &self.0.device, heartbeat);
        self.0.send(&message, HEARTBEAT_TTL).await;
    }
}

fn anything() -> Verdict {
    Verdict::Allowed(Permit::anything())
}

/// A place among those that wait for the policy; given back when dropped.
struct WaitingPlace<'a> {
    inner: &'a Inner,
    from: &'a AtSign,
    answer: Arc<async_std::sync::Mutex<Option<KnownVerdict>>>,
}

impl<'a> WaitingPlace<'a> {
    fn take(inner: &'a Inner, from: &'a AtSign) -> Option<Self> {
        let mut state = inner.state();
        if state.waiting >= MAX_WAITING {
            return None;
        }
        if state.clients.len() >= MAX_CLIENTS && !state.clients.contains_key(from) {
            state.forget(Instant::now());
            if state.clients.len() >= MAX_CLIENTS {
                return None;
            }
        }
        let known = state.clients.entry(from.clone()).or_default();
        if known.waiting >= MAX_WAITING_OF_ONE {
            return None;
        }
        known.waiting += 1;
        let answer = known.answer.clone();
        state.waiting += 1;
        Some(Self {
            inner,
            from,
            answer,
        })
    }
}

impl Drop for WaitingPlace<'_> {
    fn drop(&mut self) {
        let mut state = self.inner.state();
        state.waiting -= 1;
        if let Some(known) = state.clients.get_mut(self.from) {
            known.waiting -= 1;
        }
    }
}

impl Inquiries {
    /// Forgets clients nobody waits for and whose answers hold no longer.
    fn forget(&mut self, now: Instant) {
        self.clients
            .retain(|_, known| known.waiting > 0 || known.until.is_some_and(|until| now < until));
    }
}

/// An open question; closed when dropped.
struct OpenQuestion<'a> {
    inner: &'a Inner,
    id: RequestId,
    replies: Receiver<RpcResponse>,
}

impl Drop for OpenQuestion<'_> {
    fn drop(&mut self) {
        self.inner.state().questions.remove(&self.id);
    }
}

impl Inner {
    fn state(&self) -> std::sync::MutexGuard<'_, Inquiries> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin_question(&self) -> Option<OpenQuestion<'_>> {
        let id = RequestId::from_random(crypto::random().ok()?);
        let (send, replies) = channel::bounded(MAX_REPLIES);
        self.state().questions.insert(id, send);
        Some(OpenQuestion {
            inner: self,
            id,
            replies,
        })
    }

    /// Asks, and says for how long the outcome holds.
    async fn ask(&self, consult: &Consult, client: &AtSign) -> (Verdict, Duration) {
        let policy = &consult.policy;
        if let Err(why) = self.knows(policy).await {
            return (Verdict::Denied(why), SILENCE_HOLDS);
        }
        let Some(open) = self.begin_question() else {
            let why = "The device cannot ask its policy".to_owned();
            return (Verdict::Denied(why), SILENCE_HOLDS);
        };
        let question = AuthCheck {
            client: client.clone(),
            daemon: self.at.atsign().clone(),
            device: self.device.clone(),
            group: consult.group.clone(),
        };
        let key = &self.at.keys().encryption;
        let message = rpc::ask(policy, open.id, &question, Some(key));
        let asking = async {
            self.send(&message, rpc::RPC_TTL).await;
            task::sleep(ASK_AGAIN).await;
            self.at.doubt(policy);
            self.send(&message, rpc::RPC_TTL).await;
            future::pending().await
        };
        let reply = timeout(DEADLINE, future::or(answer(&open.replies), asking)).await;
        let has_line = ignored::has_line(&format!("verdicts client={client}"), ignored::FEW);
        match reply {
            Ok(reply) => {
                let verdict = judge(reply, policy);
                if has_line {
                    info!(
                        "policy={policy} rpc={} client={client} verdict={verdict}",
                        open.id
                    );
                }
                (verdict, ANSWER_HOLDS)
            }
            Err(_) => {
                if has_line {
                    warn!(
                        "policy={policy} rpc={} client={client} verdict=none reason=\"no answer within {}\"",
                        open.id,
                        in_words(DEADLINE)
                    );
                }
                let why = format!(
                    "The policy {policy} {NO_ANSWER} within {} s",
                    DEADLINE.as_secs()
                );
                (Verdict::Denied(why), SILENCE_HOLDS)
            }
        }
    }

    /// Whether the policy's key is the one that it always was. Its answers are not signed, so this keeps our questions from
    /// others' eyes, and no more.
    async fn knows(&self, policy: &AtSign) -> Result<(), String> {
        // One that cannot be looked up is asked in vain, and told so by its silence.
        let Ok(Some(key)) = self.at.public_key(policy).await else {
            return Ok(());
        };
        let checked = self.pins.check(policy, &key, FirstSight::Remember).await;
        checked.map_err(|changed| {
            let hint = changed.hint();
            warn!(
                "policy={policy} reason={:?} hint={hint:?}",
                changed.to_string()
            );
            format!("{changed}; at this device, {hint}")
        })
    }

    async fn send(&self, message: &Message, ttl: u64) {
        online::send_living(&self.at, message, ttl).await;
    }
}

/// The first reply that says more than "heard".
async fn answer(replies: &Receiver<RpcResponse>) -> RpcResponse {
    while let Ok(reply) = replies.recv().await {
        if reply != RpcResponse::Ack {
            return reply;
        }
    }
    future::pending().await
}

fn judge(reply: RpcResponse, policy: &AtSign) -> Verdict {
    match reply {
        RpcResponse::Answer(answer) if answer.authorized => Verdict::Allowed(answer.permit()),
        RpcResponse::Answer(answer) => Verdict::Denied(reason(answer.message, policy)),
        RpcResponse::Refused(why) => Verdict::Denied(reason(why, policy)),
        RpcResponse::Ack => Verdict::Denied(reason(None, policy)),
    }
}

/// The policy's words, as far as they may be shown to people.
fn reason(words: Option<String>, policy: &AtSign) -> String {
    let words: String = words
        .unwrap_or_default()
        .chars()
        .filter(|c| !c.is_control())
        .take(MAX_REASON)
        .collect();
    match words.trim().trim_start_matches('{') {
        "" => format!("The policy {policy} does not allow it"),
        words => words.to_owned(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crate::np::policy::AuthAnswer;
    use crate::session::authorise::*;

    #[test]
    fn a_reply_becomes_a_verdict() {
        let policy: AtSign = "@p".parse().unwrap();
        let said = |authorized, message: Option<&str>, permit: &[&str]| {
            RpcResponse::Answer(AuthAnswer {
                authorized,
                message: message.map(str::to_owned),
                permit_open: permit.iter().map(|&w| w.to_owned()).collect(),
            })
        };
        let denied = |why: &str| Verdict::Denied(why.to_owned());
        for (reply, want) in [
            (
                said(true, None, &["localhost:22", "x"]),
                Verdict::Allowed("localhost:22".parse().unwrap()),
            ),
            (
                said(true, Some("yes"), &[]),
                Verdict::Allowed("".parse().unwrap()),
            ),
            (
                said(false, Some("No permissions"), &["*:*"]),
                denied("No permissions"),
            ),
            (
                said(false, None, &[]),
                denied("The policy @p does not allow it"),
            ),
            (
                said(false, Some(" {{ "), &[]),
                denied("The policy @p does not allow it"),
            ),
            (
                said(false, Some("{\"status\"\n:1}"), &[]),
                denied("\"status\":1}"),
            ),
            (RpcResponse::Refused(Some("ill".into())), denied("ill")),
            (
                RpcResponse::Refused(None),
                denied("The policy @p does not allow it"),
            ),
        ] {
            assert_eq!(judge(reply.clone(), &policy), want, "{reply:?}");
        }
        let long = judge(said(false, Some(&"x".repeat(9999)), &[]), &policy);
        assert_eq!(long, denied(&"x".repeat(MAX_REASON)));
    }

    #[test]
    fn a_no_is_told_so_many_times_and_a_yes_always() {
        let held = |verdict| KnownVerdict {
            since: Instant::now(),
            verdict,
            until: Instant::now(),
            told: 0,
        };
        let mut no = held(Verdict::Denied("no".into()));
        let mut yes = held(anything());
        for _ in 0..MAX_TOLD {
            assert_eq!(no.tell(), Verdict::Denied("no".into()));
            yes.tell();
        }
        assert_eq!(no.tell(), Verdict::Ignored("denied_too_often"));
        assert_eq!(yes.tell(), anything());
    }

    #[test]
    fn old_answers_are_forgotten_and_awaited_ones_kept() {
        let now = Instant::now();
        let mut state = Inquiries::default();
        for (name, waiting, until) in [
            ("@awaited", 1, None),
            ("@holds", 0, Some(now + ANSWER_HOLDS)),
            ("@old", 0, Some(now)),
            ("@never_answered", 0, None),
        ] {
            let known = ClientState {
                waiting,
                until,
                ..ClientState::default()
            };
            state.clients.insert(name.parse().unwrap(), known);
        }
        state.forget(now);
        let mut left: Vec<_> = state.clients.keys().map(AtSign::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["@awaited", "@holds"]);
    }
}
