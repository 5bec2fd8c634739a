//! `otp`: passcodes of devices that have no key yet, and those who guess them.

use std::time::Duration;

use crate::{
    at::{Verb, fault::Code, verb::EnrollOperation},
    secret::same,
    server::{
        passcode::{self, Throttle},
        refusal::{Refusal, refuse},
        store::Tx,
    },
};

use super::{
    enroll_params::wrong,
    outcome::{CommandAnswer, Handled},
    state::{Guess, Session, Trace, Who},
};

impl Session {
    /// Whoever is logged in needs no passcode, and so guesses none. Of any other a request is taken for a wrong one
    /// until it has proven right.
    pub(super) fn guess(&self, verb: &Verb, now: u64) -> Guess {
        let asks = matches!(verb, Verb::Enroll { operation, .. } if *operation == EnrollOperation::Request);
        let stranger = asks && !matches!(self.who, Who::Owner(_));
        match (self.from.filter(|_| stranger), self.facts.guesses.lock()) {
            (Some(from), Ok(mut guesses)) if guesses.may_try(from, now) => {
                guesses.wrong(from, now);
                Guess::Counted
            }
            (Some(_), Ok(_)) => Guess::TooMany,
            _ => Guess::None,
        }
    }

    /// How long whoever guessed wrong waits to hear of it.
    pub(super) fn pause(&self, now: u64) -> Duration {
        let seconds = match self.facts.throttle.lock() {
            Ok(mut throttle) => throttle.wrong(now),
            Err(_) => Throttle::MOST,
        };
        Duration::from_secs(seconds)
    }

    /// Takes a passcode: the standing one stays, any other is used up.
    pub(super) fn use_passcode(&mut self, tx: &mut Tx<'_>, code: &str) -> Result<(), Refusal> {
        let key = passcode::standing_key(&self.home);
        let standing = self.home.live(tx, &key, self.now)?;
        let code = code.to_lowercase();
        if standing.is_some_and(|known| same(known.value.as_bytes(), code.as_bytes())) {
            return Ok(());
        }
        let fits = (6..=64).contains(&code.len()) && code.chars().all(char::is_alphanumeric);
        let key = passcode::key_of(&self.home, &code);
        if fits && self.home.live(tx, &key, self.now)?.is_some() {
            self.home.erase(tx, &key)?;
            return Ok(());
        }
        self.traces.push(Trace::WrongPasscode(self.now));
        Err(wrong("invalid otp. Cannot process enroll request"))
    }

    pub(super) fn otp_get(&mut self, tx: &mut Tx<'_>, ttl: Option<u64>) -> Handled {
        self.managing("otp:get")?;
        let code = passcode::make(|| tx.draw().ok())
            .ok_or_else(|| refuse(Code::Internal, "the system gave no random bytes"))?;
        let key = passcode::key_of(&self.home, &code);
        let life = ttl.filter(|ttl| *ttl > 0).unwrap_or(passcode::OTP_LIFE);
        self.home.put_plain(tx, &key, "otp", Some(life), self.now)?;
        Ok(CommandAnswer::Data(code))
    }

    pub(super) fn otp_put(&mut self, tx: &mut Tx<'_>, code: &str, ttl: Option<u64>) -> Handled {
        self.managing("otp:put")?;
        if !(6..=64).contains(&code.len()) {
            return Err(wrong("a passcode has 6 to 64 characters"));
        }
        let key = passcode::standing_key(&self.home);
        self.home
            .put_plain(tx, &key, &code.to_lowercase(), ttl, self.now)?;
        Ok(CommandAnswer::Data("ok".into()))
    }

    fn managing(&self, verb: &str) -> Result<(), Refusal> {
        match self.owner()? {
            Some(grant) if !grant.manages() => Err(refuse(
                Code::Unauthorized,
                format!("enrollment {} is not authorized to use {verb}", grant.id),
            )),
            _ => Ok(()),
        }
    }
}
