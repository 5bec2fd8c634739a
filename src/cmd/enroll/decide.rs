//! The side of a device that has keys: list, approve, deny, revoke, unrevoke, delete.

use std::{
    collections::HashSet,
    io::{self, BufRead, IsTerminal, Write},
    time::Duration,
};

use async_std::task;
use miniserde::json;
use regex_lite::Regex;

use crate::{
    at::{
        Verb,
        client::{AtError, Link},
        enroll::{self, Enrollment},
        fault::Code,
    },
    cmd::common::{self, Failure, Given},
};

use super::{Decide, Manager, show};

/// Between two looks for requests to approve without asking.
const LOOK: Duration = Duration::from_secs(3);
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

    fn word(self) -> &'static str {
        ACTIONS[self as usize].0
    }

    fn applies_to(self) -> &'static [&'static str] {
        ACTIONS[self as usize].2
    }

    fn done(self) -> &'static str {
        ACTIONS[self as usize].3
    }
}

/// Which enrolments are meant.
struct Choice {
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

    fn fits(&self, one: &Enrollment) -> bool {
        let which = self.which.as_deref();
        let name =
            |regex: &Option<Regex>, text: &str| regex.as_ref().is_none_or(|r| r.is_match(text));
        which.is_none_or(|which| show::is_meant(which, &one.id))
            && name(&self.app, &one.app)
            && name(&self.device, &one.device)
    }

    /// Those an action is to be done with.
    fn pick(&self, action: Action, all: Vec<Enrollment>) -> Result<Vec<Enrollment>, Failure> {
        let can = |one: &Enrollment| action.applies_to().contains(&one.status.as_str());
        let found: Vec<_> = all.into_iter().filter(|one| self.fits(one)).collect();
        if self.which.is_none() {
            let found: Vec<_> = found.into_iter().filter(can).collect();
            return match found.len() {
                0 => Err(Failure::plain(format!(
                    "there is no {} enrolment that fits",
                    action.applies_to().join(" or ")
                ))),
                // Without any choice made, only where there is none.
                2.. if self.is_open() => {
                    Err(Failure::misuse("there are several: say which").hint(codes(&found)))
                }
                _ => Ok(found),
            };
        }
        match &found[..] {
            [] => Err(Failure::plain("there is no enrolment with this id or code")
                .hint("noports enroll list tells which there are")),
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

pub async fn run(action: Action, args: Decide, given: Given) -> Result<(), Failure> {
    let choice = Choice::new(&args)?;
    let careless = matches!(action, Action::Approve) && args.yes || action == Action::Auto;
    let must_choose = careless || !matches!(action, Action::List | Action::Approve);
    if must_choose && choice.is_open() {
        return Err(Failure::misuse(format!("{} which one?", action.word()))
            .hint("its id or code; or --app and --device for all that fit"));
    }
    let phrases = given.phrases(args.passphrase_file.as_deref())?;
    let network = (args.root.as_deref(), &args.ca[..]);
    let keys = args.keys.as_deref();
    let mut manager = Manager::new(&args.atsign, keys, &phrases, network, args.quiet)?;
    let who = manager.keys.atsign.clone();
    let mut link = open(&manager).await?;
    manager.progress.done(format_args!("logged in as {who}"));
    match action {
        Action::List => list(&mut link, &choice, &args).await,
        Action::Auto => auto(&mut manager, link, &choice, &args).await,
        _ => {
            let all = all(&mut link).await?;
            for one in choice.pick(action, all)? {
                if action == Action::Approve && !args.yes {
                    confirm(&one, who.as_str())?;
                }
                act(&manager, &mut link, action, &one, &args).await?;
            }
            Ok(())
        }
    }
}

async fn open(manager: &Manager) -> Result<Link, Failure> {
    let mut link = Link::open(&manager.network, &manager.keys.atsign).await?;
    link.login(&manager.keys).await?;
    Ok(link)
}

async fn all(link: &mut Link) -> Result<Vec<Enrollment>, Failure> {
    let answer = link.ask(&enroll::list(None)).await?;
    enroll::parse_list(&answer)
        .ok_or_else(|| Failure::plain("the atServer's list of enrolments cannot be read"))
}

#[derive(miniserde::Serialize)]
struct Listed<'a> {
    event: &'a str,
    id: &'a str,
    code: &'a str,
    status: &'a str,
    app: &'a str,
    device: &'a str,
    namespaces: &'a std::collections::BTreeMap<String, String>,
}

fn line(event: &str, one: &Enrollment, status: &str) -> String {
    json::to_string(&Listed {
        event,
        id: &one.id,
        code: &show::code(&one.id),
        status,
        app: &one.app,
        device: &one.device,
        namespaces: &one.namespaces,
    })
}

async fn list(link: &mut Link, choice: &Choice, args: &Decide) -> Result<(), Failure> {
    let answer = link.ask(&enroll::list(args.status.as_deref())).await?;
    let all = enroll::parse_list(&answer)
        .ok_or_else(|| Failure::plain("the atServer's list of enrolments cannot be read"))?;
    let all = all.into_iter().filter(|one| choice.fits(one));
    if args.json {
        all.for_each(|one| common::print_out(&line("enrolment", &one, &one.status)));
        return Ok(());
    }
    common::print_out(&row(
        "Enrollment ID",
        "Status",
        "App",
        "Device",
        "Namespaces",
    ));
    for one in all {
        common::print_out(&row(
            &one.id,
            &show::shown(&one.status),
            &show::shown(&one.app),
            &show::shown(&one.device),
            &show::namespaces(&one.namespaces),
        ));
    }
    Ok(())
}

fn row(id: &str, status: &str, app: &str, device: &str, namespaces: &str) -> String {
    format!("{id:<36}  {status:<8}  {app:<12}  {device:<20}  {namespaces}")
}

/// Shows what will be granted, and asks.
fn confirm(one: &Enrollment, who: &str) -> Result<(), Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::misuse("approving needs somebody to say yes")
            .hint("on a terminal; or --yes, when you know what is asked for"));
    }
    common::print_err(&details(one));
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

async fn act(
    manager: &Manager,
    link: &mut Link,
    action: Action,
    one: &Enrollment,
    args: &Decide,
) -> Result<(), Failure> {
    let verb = match action {
        Action::Approve | Action::Auto => approval(manager, one).await?,
        Action::Deny => enroll::deny(&one.id),
        Action::Revoke => enroll::revoke(&one.id, args.force),
        Action::Unrevoke => enroll::unrevoke(&one.id),
        _ => enroll::delete(&one.id),
    };
    link.ask(&verb).await.map_err(refused)?;
    let done = action.done();
    common::print_out(&match args.json {
        true => line(done, one, done),
        false => format!("{done} {}", one.id),
    });
    Ok(())
}

/// Hands our keys over, encrypted for the applicant.
async fn approval(manager: &Manager, one: &Enrollment) -> Result<Verb, Failure> {
    let wrapped = one.wrapped.clone().ok_or_else(|| {
        Failure::plain("this request brought no key to encrypt with; it cannot be approved here")
    })?;
    let (keys, id) = (manager.keys.clone(), one.id.clone());
    let verb = task::spawn_blocking(move || enroll::approve(&keys, &id, &wrapped)).await;
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
        Some(Code::Unauthorized) => {
            failure.hint("these keys may not manage enrolments; those of the first device may")
        }
        Some(Code::SelfRevoke) => Failure::plain("these keys are the ones to be revoked")
            .hint("with --force this device loses its own access"),
        _ => failure,
    }
}

/// Approves what comes and fits, until there have been enough.
async fn auto(
    manager: &mut Manager,
    mut link: Link,
    choice: &Choice,
    args: &Decide,
) -> Result<(), Failure> {
    let mut done = 0;
    let mut passed: HashSet<String> = HashSet::new();
    if !args.existing {
        passed.extend(all(&mut link).await?.into_iter().map(|one| one.id));
    }
    manager.progress.note("waiting for requests that fit");
    loop {
        let waiting = match link.ask(&enroll::list(Some("pending"))).await {
            Ok(answer) => enroll::parse_list(&answer).unwrap_or_default(),
            Err(error) if error.may_pass() => {
                log::info!("waiting error={error:?}");
                Vec::new()
            }
            Err(error) => return Err(error.into()),
        };
        for one in waiting {
            if passed.insert(one.id.clone()) && choice.fits(&one) {
                act(manager, &mut link, Action::Auto, &one, args).await?;
                done += 1;
            }
            if done >= args.limit {
                return Ok(());
            }
        }
        task::sleep(LOOK).await;
        if !link.is_good() {
            link = open(manager).await?;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

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
            let picked = choice(which, device).pick(action, all());
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
