//! What comes of a line: for the client, for the store, and for the listener.

use std::time::Duration;

use crate::{
    at::{Verb, verb::Config},
    server::refusal::Refusal,
};

use super::{
    errand::{Errand, Proof},
    state::Session,
    view::MonitorView,
};

/// What a handler answers.
pub(super) enum CommandAnswer {
    /// `data:<text>`
    Data(String),
    /// `data: <text>`: two verbs have a blank there.
    Spaced(String),
    /// The prompt alone.
    Prompt,
    /// Nothing yet, or nothing at all.
    Next(FollowUp),
    /// As `Data`, then close after this long.
    Last(String, Duration),
}

/// What a command comes to. It counts only when what it wrote is committed: then [`Session::accept`] it.
#[derive(Debug)]
pub struct UncommittedOutcome {
    pub(super) session: Session,
    pub(super) outcome: CommandOutcome,
}

/// What to do with a line.
#[derive(Debug)]
pub enum LineAction {
    /// Nothing but this.
    Done(CommandOutcome),
    /// Call [`Session::run`] in a transaction.
    Run(StoreCommand),
}

/// A command that needs the store.
#[derive(Debug)]
pub struct StoreCommand(pub(super) Box<Verb>);

impl StoreCommand {
    /// Whether the transaction must be able to write.
    pub fn writes(&self) -> bool {
        match &*self.0 {
            Verb::Update { .. }
            | Verb::UpdateMeta { .. }
            | Verb::UpdateJson { .. }
            | Verb::Delete { .. }
            | Verb::ForceDelete { .. }
            | Verb::Notify(_)
            | Verb::NotifyRemove { .. }
            | Verb::NotifyAll { .. }
            | Verb::Batch { .. }
            | Verb::Enroll { .. }
            | Verb::OtpGet { .. }
            | Verb::OtpPut { .. } => true,
            Verb::Config(config) => matches!(config, Config::Add(..) | Config::Remove(..)),
            Verb::Keys(keys) => keys.operation != "get",
            _ => false,
        }
    }

    /// Starts a monitor: what comes in must be caught from before the transaction on.
    pub fn watches(&self) -> bool {
        matches!(*self.0, Verb::Monitor { .. })
    }

    /// A login attempt for whom [`Session::claims`]: made to wait after too many failures.
    pub fn proves(&self) -> bool {
        matches!(*self.0, Verb::Cram { .. } | Verb::Pkam { .. })
    }
}

/// What came of a line.
#[derive(Debug, Default)]
pub struct CommandOutcome {
    /// To be sent in one write; may be empty.
    pub reply: Vec<u8>,
    /// Wait this long before sending.
    pub delay: Duration,
    /// Close afterwards.
    pub close: bool,
    /// Close after this long (a revoked enrolment's own connection).
    pub close_in: Option<Duration>,
    /// What came of a login attempt.
    pub login: Option<Login>,
    /// What the listener has to do.
    pub next: FollowUp,
}

/// What came of a login attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Login {
    /// It is the owner.
    Good,
    /// A guess, as far as anybody can tell.
    Wrong,
    /// The right key of an enrolment that is pending, denied, revoked or expired: no guess.
    Barred,
}

/// Work for the listener.
#[derive(Debug, Default)]
pub enum FollowUp {
    /// Nothing.
    #[default]
    Nothing,
    /// Replay, then pass on what comes in.
    Watch(Box<MonitorView>),
    /// Ask another atServer for two values, then call [`Session::proven`].
    Prove(Box<Proof>),
    /// Ask another atServer for a value, then call [`Session::fetched`].
    Fetch(Box<Errand>),
}

pub(super) type Handled = Result<CommandAnswer, Refusal>;

pub(super) fn success() -> Handled {
    Ok(CommandAnswer::Data("success".into()))
}
