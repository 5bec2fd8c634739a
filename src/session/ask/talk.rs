//! Our half of a conversation by notifications: questions, and the answers to them in whatever order.

use std::time::{Duration, Instant};

use async_std::future::timeout;
use log::{debug, warn};

use super::{
    refusals,
    wanted::{Want, Whom},
};
use crate::{
    at::{
        AtSign,
        client::{Client, Event, Subscription},
    },
    cli::{Failure, exit},
    np::{
        Message,
        ids::{DeviceName, Nonce},
        ping::Heartbeat,
        session::{Awaited, Offer},
    },
    session::online,
};

/// An unanswered question is asked once more after this part of the wait, where asking twice does no harm.
const ASK_AGAIN: f64 = 0.3;
/// How long an answer that we can do without may take, when the others are there.
const GRACE: Duration = Duration::from_secs(2);

/// A conversation about one session.
pub(super) struct Talk {
    pub at: Client,
    pub inbox: Subscription,
    pub offer: Offer,
    pub patience: Duration,
    /// Which starts of the device's daemon have answered.
    pub runs: Vec<Nonce>,
}

/// Something to ask.
pub(super) struct Question {
    /// In these words; several are sent one after the other.
    pub messages: Vec<Message>,
    /// What comes back.
    pub awaited: Awaited,
    /// Whether we can do without.
    pub needed: bool,
    /// When it is asked once more, from the first time on, if nothing has come back. Never, if asking twice
    /// could do a thing twice.
    pub again: Vec<Duration>,
}

/// Why a question has no answer.
pub(super) enum Missing {
    Silent(Awaited),
    NoPorts(String),
    Connection,
}

impl Question {
    /// One that must be answered, and is asked once.
    pub(super) fn new(message: Message, awaited: Awaited) -> Self {
        Self {
            messages: vec![message],
            awaited,
            needed: true,
            again: Vec::new(),
        }
    }

    /// The same, asked again at these times.
    pub(super) fn again(mut self, after: impl IntoIterator<Item = Duration>) -> Self {
        self.again = after.into_iter().collect();
        self
    }
}

impl Talk {
    /// When a question is asked once more that may be asked twice.
    pub(super) fn later(&self) -> Duration {
        self.patience.mul_f64(ASK_AGAIN)
    }

    /// Waits for one answer to each question, in their order; asks again what stays unanswered and may be asked
    /// twice. Only answers that are not needed can be missing then.
    pub(super) async fn wait(
        &mut self,
        questions: &[Question],
    ) -> Result<Vec<Option<String>>, Missing> {
        let mut answers: Vec<Option<String>> = vec![None; questions.len()];
        let begun = Instant::now();
        for (until, again) in self.steps(questions) {
            let patience = until.saturating_sub(begun.elapsed());
            let needed = |question: &Question| question.needed;
            match timeout(patience, self.collect(questions, &mut answers, needed)).await {
                Ok(Ok(())) => {
                    let all = self.collect(questions, &mut answers, |_| true);
                    return match timeout(GRACE, all).await {
                        Ok(Err(missing)) => Err(missing),
                        _ => Ok(answers),
                    };
                }
                Ok(Err(missing)) => return Err(missing),
                Err(_) => {}
            }
            if let Some(at) = again.filter(|&at| answers[at].is_none()) {
                self.ask_again(&questions[at]).await;
            }
        }
        let silent = questions.iter().zip(&answers);
        let silent = silent.filter(|(question, answer)| question.needed && answer.is_none());
        let first = silent.map(|(question, _)| question.awaited).next();
        Err(Missing::Silent(first.unwrap_or(Awaited::Answer)))
    }

    /// Until when is waited, and which question is asked again then; at last, the end.
    fn steps(&self, questions: &[Question]) -> Vec<(Duration, Option<usize>)> {
        let again = questions.iter().enumerate().flat_map(|(at, question)| {
            let after = question.again.iter();
            after.map(move |after| (*after, Some(at)))
        });
        let mut steps: Vec<_> = again.filter(|(after, _)| *after < self.patience).collect();
        steps.sort_unstable();
        steps.push((self.patience, None));
        steps
    }

    async fn ask_again(&self, question: &Question) {
        for message in &question.messages {
            debug!("session={} again={}", self.offer.id(), message.entity);
            self.at.doubt(&message.to);
            online::send_or_log(&self.at, message).await;
        }
    }

    /// Tells once of two daemons that both are this device.
    fn hear_run(&mut self, from: &AtSign, text: &str) {
        let Ok(said) = Heartbeat::parse(text) else {
            return;
        };
        let Some(run) = said.run.filter(|run| !self.runs.contains(run)) else {
            return;
        };
        self.runs.push(run);
        if self.runs.len() == 2 && !said.shared {
            let device = said.device;
            warn!(
                "two daemons answer as {device}{from}; this session is with the first: stop one of them, or give it a name \
                 of its own (--device there); if it is intended: --shared-name there"
            );
        }
    }

    /// Until all questions that `count` are answered.
    async fn collect(
        &mut self,
        questions: &[Question],
        answers: &mut [Option<String>],
        count: impl Fn(&Question) -> bool,
    ) -> Result<(), Missing> {
        let open = |answers: &[Option<String>]| {
            let mut all = questions.iter().zip(answers);
            all.any(|(question, answer)| count(question) && answer.is_none())
        };
        while open(answers) {
            let note = match self.inbox.next().await.ok_or(Missing::Connection)? {
                Event::Note(note) => note,
                other => {
                    debug!("monitor={other}");
                    continue;
                }
            };
            // Only what an awaited sender sent under an awaited key is ever decrypted.
            let Some(kind) = self.offer.recognise(&note.from, note.entity()) else {
                continue;
            };
            let text = match self.at.decrypt(&note).await {
                Ok(text) => text.unwrap_or_default(),
                Err(error) => {
                    debug!(
                        "from={} entity={} reason={:?}",
                        note.from,
                        note.entity(),
                        error.to_string()
                    );
                    continue;
                }
            };
            if kind == Awaited::NoPorts {
                return Err(Missing::NoPorts(text));
            }
            if kind == Awaited::Heartbeat {
                self.hear_run(&note.from, &text);
            }
            if let Some(i) = questions.iter().position(|asked| asked.awaited == kind) {
                answers[i].get_or_insert(text);
            }
        }
        Ok(())
    }
}

impl Missing {
    pub(super) fn explain(self, whom: &Whom, want: Want) -> Failure {
        let (to, device, via) = (&whom.to, &whom.device, &whom.via);
        let waited = whom.patience.as_secs();
        match self {
            Self::Silent(Awaited::Ports | Awaited::NoPorts) => Failure::new(
                exit::RENDEZVOUS,
                format!("the rendezvous {via} did not answer within {waited} s"),
            )
            .hint(silent_rendezvous(whom))
            .classic(format!(
                "TimeoutException: Connection timeout to srvd {via} service"
            )),
            Self::Silent(awaited) => {
                let why = format!("{device}{to} did not answer within {waited} s");
                let unnamed = if device.as_str() == DeviceName::DEFAULT {
                    "\"default\" is the name where none is given; "
                } else {
                    ""
                };
                Failure::new(exit::DEVICE_SILENT, why).hint(format!(
                    "{unnamed}check that its daemon runs, with this --device name, and lists your atSign as a manager; \
                     which there are: noports devices --to {to}",
                ))
                .classic(silence(awaited, want))
            }
            Self::NoPorts(why) => {
                let why: String = why.chars().filter(|c| !c.is_control()).take(300).collect();
                let failure = Failure::new(
                    exit::RENDEZVOUS,
                    refusals::of_rendezvous(via.as_str(), &why),
                )
                .classic_alone(format!("the rendezvous {via} refused: {why}"));
                match refusals::hint(&why) {
                    Some(hint) => failure.hint(hint),
                    None => failure,
                }
            }
            Self::Connection => Failure::new(
                exit::UNREACHABLE,
                "the connection to your atServer was lost",
            )
            .hint("check the network and try again"),
        }
    }
}

/// A rendezvous before 5.0 does not understand who wants its ports checked, and answers nobody.
fn silent_rendezvous(whom: &Whom) -> String {
    let mut hint =
        "check that it runs and serves your atSign; or choose another with --via".to_owned();
    let terms = whom.terms;
    if terms.admit_client || terms.admit_device {
        hint += "; one older than NoPorts 5.0 needs --no-admit-client --no-admit-device";
    }
    hint
}

/// How the classic clients say that a device is silent.
fn silence(awaited: Awaited, want: Want) -> &'static str {
    match (awaited, want) {
        (Awaited::Heartbeat, Want::Tunnel { .. }) => {
            "TimeoutException: Ping to NoPorts daemon timed out"
        }
        (Awaited::Heartbeat, _) => "TimeoutException: Daemon feature check timed out",
        _ => "No response from the device daemon",
    }
}
