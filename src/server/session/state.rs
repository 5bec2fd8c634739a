//! What a connection is at the moment: who is there, and what they may do.

use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::{
    at::{AtSign, fault::Code},
    server::{
        enrolment::{Grant, Need, own_data},
        passcode::{Guesses, Throttle},
        refusal::{Refusal, refuse},
        store::register::Home,
    },
};

use super::visits::{Attendance, Outbound};

/// Longest command before login, in bytes: an enrolment request with all the keys it may carry.
pub const MAX_LINE_STRANGER: usize = 32 * 1024;
/// Longest command after login, in bytes.
pub const MAX_LINE: usize = crate::at::reply::MAX_LINE;

/// What connections without an enrolment are called in keys.
const NO_ENROLLMENT: &str = "primary";

/// Who is on the other end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Who {
    /// Not known yet.
    #[default]
    Stranger,
    /// The atSign itself. A grant when it came with an enrolment; none means everything is allowed.
    Owner(Option<Grant>),
    /// Another atSign, proven by `pol`.
    Peer(AtSign),
}

/// What the listener may give a connection, by who is on the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionStanding<'a> {
    /// Anybody.
    Stranger,
    /// A device that has asked for an enrolment on this connection, and waits for the answer.
    Enrolling,
    /// Another atSign, which has proved who it is.
    Visitor(&'a AtSign),
    /// The atSign itself.
    Owner,
}

/// One connection's state.
#[derive(Clone, Debug)]
pub struct Session {
    pub(super) home: Home,
    /// `_<uuid>`: part of every challenge.
    pub(super) id: String,
    pub(super) who: Who,
    /// Logged in by `cram`, which lets the first enrolment approve itself.
    pub(super) by_cram: bool,
    /// The client announced a version that wants errors as JSON.
    pub(super) json_errors: bool,
    /// The longest line that its monitor is to be sent, as the client told.
    pub(super) longest_line: Option<usize>,
    pub(super) challenge: Option<Challenge>,
    /// In monitor mode replies carry no prompt: it would stick to the next notification.
    pub(super) watching: bool,
    /// When this connection asked for enrolments, milliseconds since 1970.
    pub(super) requests: Vec<u64>,
    /// One of them waits to be approved.
    pub(super) enrolling: bool,
    /// Where it comes from, if that is known.
    pub(super) from: Option<IpAddr>,
    /// What this command is to the limit of guesses.
    pub(super) guess: Guess,
    /// What this command leaves in the facts, once it is committed.
    pub(super) traces: Vec<Trace>,
    /// When its last line came, milliseconds since 1970: the time of the command under way.
    pub(super) now: u64,
    pub(super) facts: Arc<Facts>,
}

/// What a command is to the limit of wrong passcodes of an address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Guess {
    /// It guesses none.
    #[default]
    None,
    /// It was counted as a wrong one before it ran, so that many at the same time are no way around the limit.
    Counted,
    /// Its address has had all it may have.
    TooMany,
}

/// What a command leaves in the facts that all connections share.
#[derive(Clone, Debug)]
pub(super) enum Trace {
    /// Somebody came, at this time.
    Came(u64),
    /// The owner logged in with a key, at this time.
    LoggedIn(u64),
    /// Another atSign proved who it is.
    Proved(AtSign),
    /// A key was looked up.
    LookedUp(String),
    /// A passcode was wrong, at this time.
    WrongPasscode(u64),
}

/// What the last `from` asked for.
#[derive(Clone, Debug)]
pub(super) struct Challenge {
    pub(super) who: AtSign,
    /// The part behind the colon.
    pub(super) nonce: String,
    /// What `cram` and `pkam` sign.
    pub(super) text: String,
    /// Milliseconds since 1970.
    pub(super) until: u64,
}

/// What all connections of one atSign share. No command changes it before it is committed.
#[derive(Debug, Default)]
pub struct Facts {
    /// When the server started, milliseconds since 1970.
    pub started: u64,
    /// How many connections there are.
    pub connections: AtomicUsize,
    /// Slows down whoever guesses passcodes.
    pub throttle: Mutex<Throttle>,
    /// Shuts out addresses that guess passcodes.
    pub guesses: Mutex<Guesses>,
    /// Connections to other servers, of all atSigns of this process.
    pub outbound: Arc<Outbound>,
    /// Who is here, and who came.
    pub seen: Attendance,
}

impl Facts {
    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// This session's connection begins.
    pub fn enter(&self, session: &str, now: u64) {
        self.connections.fetch_add(1, Ordering::Relaxed);
        self.seen.enter(session, now);
    }

    /// It ends.
    pub fn leave(&self, session: &str) {
        self.seen.present().remove(session);
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Session {
    /// A new connection to this atSign's server.
    pub fn new(home: Home, facts: Arc<Facts>) -> Self {
        Self {
            home,
            id: format!("_{}", uuid::Uuid::new_v4()),
            who: Who::Stranger,
            by_cram: false,
            json_errors: false,
            longest_line: None,
            challenge: None,
            watching: false,
            requests: Vec::new(),
            enrolling: false,
            from: None,
            guess: Guess::None,
            traces: Vec::new(),
            now: 0,
            facts,
        }
    }

    /// This session, with the address that its connection comes from.
    #[must_use]
    pub fn coming_from(self, address: IpAddr) -> Self {
        Self {
            from: Some(address),
            ..self
        }
    }

    /// `_<uuid>`
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whether somebody has proven who they are.
    pub fn is_known(&self) -> bool {
        self.who != Who::Stranger
    }

    /// What the listener may give it.
    pub fn standing(&self) -> SessionStanding<'_> {
        match &self.who {
            Who::Owner(_) => SessionStanding::Owner,
            Who::Peer(caller) => SessionStanding::Visitor(caller),
            Who::Stranger if self.enrolling => SessionStanding::Enrolling,
            Who::Stranger => SessionStanding::Stranger,
        }
    }

    /// The enrolment this connection lives by.
    pub fn enrollment(&self) -> Option<&str> {
        self.grant().map(|grant| grant.id.as_str())
    }

    /// Who the last `from` said it is.
    pub fn claims(&self) -> Option<&AtSign> {
        self.challenge.as_ref().map(|challenge| &challenge.who)
    }

    /// Longest line to accept now, in bytes.
    pub fn max_line(&self) -> usize {
        if self.is_known() {
            MAX_LINE
        } else {
            MAX_LINE_STRANGER
        }
    }

    pub(super) fn grant(&self) -> Option<&Grant> {
        match &self.who {
            Who::Owner(grant) => grant.as_ref(),
            _ => None,
        }
    }

    pub(super) fn bare_prompt(&self) -> String {
        if self.watching {
            String::new()
        } else {
            "@".into()
        }
    }

    pub(super) fn prompt(&self) -> String {
        match &self.who {
            _ if self.watching => String::new(),
            Who::Stranger => "@".into(),
            Who::Owner(_) => format!("{}@", self.home.who),
            Who::Peer(caller) => format!("{caller}@"),
        }
    }

    /// Lets only the owner pass.
    pub(super) fn owner(&self) -> Result<Option<&Grant>, Refusal> {
        match &self.who {
            Who::Owner(grant) => Ok(grant.as_ref()),
            _ => Err(refuse(
                Code::Unauthenticated,
                "Command cannot be executed without auth",
            )),
        }
    }

    /// Lets the owner pass if the enrolment, if any, may do this to the key.
    pub(super) fn owner_of(&self, key: &str, verb: &str, need: Need) -> Result<(), Refusal> {
        let grant = self.owner()?;
        let id = grant.map_or(NO_ENROLLMENT, |grant| grant.id.as_str());
        let covered = grant.is_none_or(|grant| grant.covers(key, need));
        let own = match own_data(key) {
            Some((whose, letter)) if need == Need::Write => whose == id && letter == "a",
            _ => true,
        };
        if covered && own {
            return Ok(());
        }
        let text =
            format!("Connection with enrollment ID {id} is not authorized to {verb} key: {key}");
        Err(refuse(Code::Unauthorized, text))
    }
}
