//! The side of a device that has keys: list, approve, deny, revoke, unrevoke, delete.

use std::{
    io::{self, BufRead, IsTerminal, Write},
    sync::Arc,
};

use async_std::task;
use regex_lite::Regex;

use crate::{
    at::{
        Verb,
        client::{AtError, Client},
        enrolment::{self, Enrollment},
        fault::Code,
    },
    cli::{self, Console, Failure},
};

use super::{Decide, Manager, auto, show, told::Told};

/// For keys that were enrolled without the right to decide.
pub(super) const NOT_MANAGER: &str =
    "these keys may not manage enrolments; those of the first device may";
/// Longest answer to a question that is read, in bytes.
const MAX_ANSWER: u64 = 100;

/// What is done with an enrolment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    List,
    Approve,
    Auto,
    Deny,
    Revoke,
    Unrevoke,
    Delete,
}

/// (word, action, states it applies to, what has become of it)
const ACTIONS: [(&str, Action, &[&str], &str); 7] = [
    ("list", Action::List, &[], ""),
    ("approve", Action::Approve, &["pending"], "approved"),
    ("auto", Action::Auto, &["pending"], "approved"),
    ("deny", Action::Deny, &["pending"], "denied"),
    ("revoke", Action::Revoke, &["approved"], "revoked"),
    ("unrevoke", Action::Unrevoke, &["revoked"], "approved"),
    ("delete", Action::Delete, &["denied", "revoked"], "deleted"),
];

impl Action {
    /// By its word on the command line.
    pub fn named(word: &str) -> Option<Self> {
        ACTIONS.iter().find(|row| row.0 == word).map(|row| row.1)
    }

    pub(super) fn word(self) -> &'static str {
        ACTIONS[self as usize].0
    }

    fn applies_to(self) -> &'static [&'static str] {
        ACTIONS[self as usize].2
    }

    pub(super) fn done(self) -> &'static str {
        ACTIONS[self as usize].3
    }
}

/// Which enrolments are meant.
pub(super) struct Choice {
    which: Option<String>,
    app: Option<Regex>,
    device: Option<Regex>,
}

impl Choice {
    fn new(args: &Decide) -> Result<Self, Failure> {
        let regex = |text: &Option<String>| {
            let regex = text.as_deref().map(Regex::new).transpose();
            regex.map_err(|why| Failure::misuse(format!("no regular expression: {why}")))
        };
        let which = args.which.join(" ");
        Ok(Self {
            which: Some(which.trim().to_owned()).filter(|which| !which.is_empty()),
            app: regex(&args.app)?,
            device: regex(&args.device)?,
        })
    }

    fn is_open(&self) -> bool {
        self.which.is_none() && self.app.is_none() && self.device.is_none()
    }

    pub(super) fn fits(&self, one: &Enrollment) -> bool {
        let which = self.which.as_deref();
        let name =
            |regex: &Option<Regex>, text: &str| regex.as_ref().is_none_or(|r| r.is_match(text));
        which.is_none_or(|which| show::is_meant(which, &one.id))
            && name(&self.app, &one.app)
            && name(&self.device, &one.device)
    }

    /// Nothing was picked.
    fn none(&self, action: Action) -> Failure {
        match self.which {
            None => Failure::plain(format!(
                "there is no {} enrolment that fits",
                action.applies_to().join(" or ")
            )),
            Some(_) => Failure::plain("there is no enrolment with this id or code")
                .hint("noports enroll list tells which there are"),
        }
    }

    /// Those an action is to be done with; perhaps none.
    fn pick(&self, action: Action, all: Vec<Enrollment>) -> Result<Vec<Enrollment>, Failure> {
        let can = |one: &Enrollment| action.applies_to().contains(&one.status.as_str());
        let found: Vec<_> = all.into_iter().filter(|one| self.fits(one)).collect();
        if self.which.is_none() {
            let found: Vec<_> = found.into_iter().filter(can).collect();
            // Without any choice made, only where there is none.
            return match found.len() {
                2.. if self.is_open() => {
                    Err(Failure::misuse("there are several: say which").hint(codes(&found)))
                }
                _ => Ok(found),
            };
        }
        match &found[..] {
            [] => Ok(found),
            [one] if can(one) => Ok(found),
            [one] => Err(Failure::plain(format!(
                "the enrolment {} is {}: only {} ones can be {}",
                show::code(&one.id),
                one.status,
                action.applies_to().join(" or "),
                action.done()
            ))),
            _ => {
                Err(Failure::misuse("several enrolments have this code").hint("give the whole id"))
            }
        }
    }
}

fn codes(of: &[Enrollment]) -> String {
    let one = |one: &Enrollment| format!("{} ({})", show::code(&one.id), show::shown(&one.device));
    of.iter().map(one).collect::<Vec<_>>().join(", ")
}

pub async fn run(console: &Console, action: Action, args: Decide) -> Result<(), Failure> {
    let choice = Choice::new(&args)?;
    let careless = matches!(action, Action::Approve) && args.yes || action == Action::Auto;
    let must_choose = careless || !matches!(action, Action::List | Action::Approve);
    if must_choose && choice.is_open() {
        return Err(Failure::misuse(format!("{} which one?", action.word()))
            .hint("its id or code; or --app and --device for all that fit"));
    }
    let phrases = console.phrases(args.passphrase_file.as_deref())?;
    let mut manager = Manager::new(&args.atsign, args.account(), &phrases, args.quiet)?;
    let who = manager.keys.atsign.clone();
    let at = Client::login(&manager.network, Arc::clone(&manager.keys)).await?;
    manager.progress.done(format_args!("logged in as {who}"));
    let told = Told {
        json: args.json,
        classic: console.given().classic,
    };
    match action {
        Action::List => list(&at, &choice, &args, told).await?,
        Action::Auto => auto::run(&manager.progress, &at, &choice, &args, told).await?,
        _ => {
            let picked = choice.pick(action, listed(&at, None).await?)?;
            if choice.which.is_none() {
                told.found(picked.len());
            }
            if picked.is_empty() {
                return nothing(choice.none(action), told);
            }
            for one in picked {
                if action == Action::Approve && !args.yes {
                    confirm(&one, who.as_str())?;
                }
                act(&at, action, &one, args.force).await?;
                told.done(action, &one);
            }
        }
    }
    Ok(())
}

async fn list(at: &Client, choice: &Choice, args: &Decide, told: Told) -> Result<(), Failure> {
    let all = listed(at, args.status.as_deref()).await?;
    // `at_activate fetch`
    if told.classic && choice.which.is_some() {
        let Some(one) = all.iter().find(|one| choice.fits(one)) else {
            return nothing(choice.none(Action::List), told);
        };
        told.fetched(one);
    } else {
        told.list(&all, choice);
    }
    Ok(())
}

/// To the classic program this was no failure; scripts try again until something is there.
fn nothing(failure: Failure, told: Told) -> Result<(), Failure> {
    if !told.classic {
        return Err(failure);
    }
    cli::print_err("No matching enrollment(s) found");
    Ok(())
}

/// The enrolments of one state, or all.
pub(super) async fn listed(at: &Client, status: Option<&str>) -> Result<Vec<Enrollment>, Failure> {
    let answer = at.run(&enrolment::list(status)).await?;
    enrolment::parse_list(&answer)
        .ok_or_else(|| Failure::plain("the atServer's list of enrolments cannot be read"))
}

/// Does it.
pub(super) async fn act(
    at: &Client,
    action: Action,
    one: &Enrollment,
    force: bool,
) -> Result<(), Failure> {
    let verb = match action {
        Action::Approve | Action::Auto => approval(at, one).await?,
        Action::Deny => enrolment::deny(&one.id),
        Action::Revoke => enrolment::revoke(&one.id, force),
        Action::Unrevoke => enrolment::unrevoke(&one.id),
        _ => enrolment::delete(&one.id),
    };
    at.run(&verb).await.map(drop).map_err(refused)
}

/// Shows what will be granted, and asks.
fn confirm(one: &Enrollment, who: &str) -> Result<(), Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::misuse("approving needs somebody to say yes")
            .hint("on a terminal; or --yes, when you know what is asked for"));
    }
    cli::print_err(&details(one));
    let mut err = io::stderr().lock();
    let _ = err
        .write_all(b"  grant this? [y/N] ")
        .and_then(|()| err.flush());
    let mut answer = String::new();
    let read = io::Read::take(io::stdin().lock(), MAX_ANSWER).read_line(&mut answer);
    match (read, answer.trim()) {
        (Ok(_), "y" | "Y" | "yes") => Ok(()),
        _ => Err(Failure::plain("not approved").hint(format!(
            "the request goes on waiting; noports enroll deny {who} {} refuses it",
            show::code(&one.id)
        ))),
    }
}

fn details(one: &Enrollment) -> String {
    let mut text = format!(
        "  app         {}\n  device      {}\n  namespaces  {}\n  code        {}  (does the device show the same?)",
        show::shown(&one.app),
        show::shown(&one.device),
        show::namespaces(&one.namespaces),
        show::code(&one.id)
    );
    if let Some(warning) = show::warning(one) {
        text += &format!("\n  careful:    {warning}");
    }
    text
}

/// Hands our keys over, encrypted for the applicant.
async fn approval(at: &Client, one: &Enrollment) -> Result<Verb, Failure> {
    let wrapped = one.wrapped.clone().ok_or_else(|| {
        Failure::plain("this request brought no key to encrypt with; it cannot be approved here")
    })?;
    let (keys, id) = (Arc::clone(at.keys()), one.id.clone());
    let verb = task::spawn_blocking(move || enrolment::approve(&keys, &id, &wrapped)).await;
    verb.map_err(|_| {
        Failure::plain("the key in this request cannot be opened: it was not made for this atSign")
            .hint("deny it, and have the device ask again")
    })
}

fn refused(error: AtError) -> Failure {
    let code = match &error {
        AtError::Refused(fault) => fault.code,
        _ => None,
    };
    let failure = Failure::from(error);
    match code {
        Some(Code::Unauthorized) => failure.hint(NOT_MANAGER),
        Some(Code::SelfRevoke) => Failure::plain("these keys are the ones to be revoked")
            .hint("with --force this device loses its own access"),
        _ => failure,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crate::program::enroll::decide::*;

    #[test]
    fn the_table_is_in_the_order_of_the_actions() {
        for (at, (word, action, ..)) in ACTIONS.iter().enumerate() {
            assert_eq!(*action as usize, at, "{word}");
            assert_eq!(Action::named(word), Some(*action));
        }
        assert_eq!(Action::named("@alice"), None);
    }

    fn one(id: &str, device: &str, status: &str) -> Enrollment {
        Enrollment {
            id: id.into(),
            app: "noports".into(),
            device: device.into(),
            namespaces: show::parse_namespaces(show::NAMESPACES).unwrap(),
            status: status.into(),
            wrapped: None,
        }
    }

    fn choice(which: &str, device: &str) -> Choice {
        let device = Some(device).filter(|text| !text.is_empty());
        Choice {
            which: Some(which.to_owned()).filter(|text| !text.is_empty()),
            app: None,
            device: device.map(|text| Regex::new(text).unwrap()),
        }
    }

    #[test]
    fn only_what_is_meant_and_can_be_is_done() {
        let all = || {
            vec![
                one("aaaa1111-0000", "dev1", "pending"),
                one("aaaa1111-2222", "dev2", "approved"),
                one("bbbb2222-0000", "dev3", "pending"),
                one("cccc3333-0000", "pi", "revoked"),
            ]
        };
        for (which, device, action, want) in [
            ("bbbb-2222", "", Action::Approve, Ok("dev3")),
            ("bbbb2222-0000", "", Action::Deny, Ok("dev3")),
            ("cccc-3333", "", Action::Delete, Ok("pi")),
            ("cccc-3333", "", Action::Unrevoke, Ok("pi")),
            ("", "dev", Action::Approve, Ok("dev1 dev3")),
            ("", "dev", Action::Revoke, Ok("dev2")),
            ("", "", Action::Revoke, Ok("dev2")),
            ("", "", Action::Approve, Err("there are several")),
            (
                "",
                "nobody",
                Action::Approve,
                Err("no pending enrolment that fits"),
            ),
            (
                "aaaa-1111",
                "",
                Action::Approve,
                Err("several enrolments have this code"),
            ),
            (
                "dddd-4444",
                "",
                Action::Approve,
                Err("no enrolment with this id"),
            ),
            (
                "cccc-3333",
                "",
                Action::Approve,
                Err("is revoked: only pending ones can be approved"),
            ),
        ] {
            let choice = choice(which, device);
            let picked = choice.pick(action, all());
            let picked = picked.and_then(|picked| match picked.is_empty() {
                true => Err(choice.none(action)),
                false => Ok(picked),
            });
            let names = picked.map(|picked| {
                picked
                    .iter()
                    .map(|one| one.device.clone())
                    .collect::<Vec<_>>()
                    .join(" ")
            });
            match (names, want) {
                (Ok(names), Ok(want)) => assert_eq!(names, want, "{which} {device} {action:?}"),
                (Err(failure), Err(want)) => assert!(failure.message.contains(want), "{failure}"),
                (got, want) => panic!("{which} {device} {action:?}: {got:?} instead of {want:?}"),
            }
        }
    }

    #[test]
    fn an_approver_sees_everything_that_will_be_granted() {
        let mut request = one("c3a9f7d2-0000", "dev\x1b1", "pending");
        assert_eq!(
            details(&request),
            "  app         noports\n  device      dev\u{fffd}1\n  namespaces  sshnp:rw, sshrvd:rw\n  code        c3a9-f7d2  (does the device show the same?)"
        );
        request.namespaces.insert("__manage".into(), "rw".into());
        assert!(
            details(&request).ends_with("careful:    it could approve and revoke other devices")
        );
    }
}
