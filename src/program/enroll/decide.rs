//! The side of a device that has keys: list, approve, deny, revoke, unrevoke, delete.

use std::{
    collections::BTreeMap,
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
pub(super) enum Action {
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
    pub(super) fn named(word: &str) -> Option<Self> {
        ACTIONS.iter().find(|row| row.0 == word).map(|row| row.1)
    }

    pub(super) fn word(self) -> &'static str {
        ACTIONS[self as usize].0
    }

    fn applies_to(self) -> &'static [&'static str] {
        ACTIONS[self as usize].2
    }

    /// The state it leads to.
    pub(super) fn done(self) -> &'static str {
        ACTIONS[self as usize].3
    }

    /// The same for people: there are two ways to get approved.
    pub(super) fn past(self) -> &'static str {
        match self {
            Self::Unrevoke => "unrevoked",
            _ => self.done(),
        }
    }
}

/// Which names are meant.
#[derive(Debug)]
enum Name {
    Any,
    /// The whole name. Servers tell capitals from small letters in it, so we do.
    Whole(String),
    Pattern(Regex),
}

impl Name {
    /// From the flag for a name and the one for a pattern.
    fn new(
        what: &str,
        whole: Option<&str>,
        pattern: Option<&str>,
        how: Fit,
    ) -> Result<Self, Failure> {
        match (whole, pattern) {
            (None, None) => Ok(Self::Any),
            (Some(name), None) => Ok(Self::Whole(show::parse_name(what, name)?)),
            (None, Some(text)) => Ok(Self::Pattern(how.compile(text)?)),
            (Some(_), Some(_)) => Err(Failure::misuse(format!(
                "a name of the {what} or a pattern, not both"
            ))),
        }
    }

    fn fits(&self, name: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Whole(whole) => whole == name,
            Self::Pattern(pattern) => pattern.is_match(name),
        }
    }

    fn is_any(&self) -> bool {
        matches!(self, Self::Any)
    }

    fn is_whole(&self) -> bool {
        matches!(self, Self::Whole(_))
    }
}

/// What a pattern has to fit.
#[derive(Clone, Copy)]
enum Fit {
    Whole,
    /// Any part of it, as with the classic program.
    Part,
}

impl Fit {
    fn compile(self, text: &str) -> Result<Regex, Failure> {
        let bad = |why| Failure::misuse(format!("no regular expression: {why}"));
        // By itself first: what closes the group around it is no expression.
        let part = Regex::new(text).map_err(bad)?;
        match self {
            Self::Part => Ok(part),
            Self::Whole => Regex::new(&format!("^(?:{text})$")).map_err(bad),
        }
    }
}

/// Which enrolments are meant.
pub(super) struct Choice {
    which: Option<String>,
    app: Name,
    device: Name,
}

impl Choice {
    fn new(args: &Decide, classic: bool) -> Result<Self, Failure> {
        let how = if classic { Fit::Part } else { Fit::Whole };
        let name = |what, whole: &Option<String>, pattern: &Option<String>| {
            Name::new(what, whole.as_deref(), pattern.as_deref(), how)
        };
        let which = args.which.join(" ");
        Ok(Self {
            which: Some(which.trim().to_owned()).filter(|which| !which.is_empty()),
            app: name("program", &args.app, &args.app_pattern)?,
            device: name("device", &args.device, &args.device_pattern)?,
        })
    }

    fn is_open(&self) -> bool {
        self.which.is_none() && self.app.is_any() && self.device.is_any()
    }

    pub(super) fn fits(&self, one: &Enrollment) -> bool {
        let which = self.which.as_deref();
        which.is_none_or(|which| show::is_meant(which, &one.id))
            && self.app.fits(&one.app)
            && self.device.fits(&one.device)
    }

    /// Nothing was picked of these.
    fn none(&self, action: Action, all: &[Enrollment]) -> Failure {
        let named = self.device.is_whole() || self.app.is_whole();
        let others: Vec<_> = all.iter().filter(|one| named && self.fits(one)).collect();
        if let (None, [first, ..]) = (&self.which, &others[..]) {
            let state = |one: &&Enrollment| {
                let already = if one.status == action.done() {
                    " already"
                } else {
                    ""
                };
                format!(
                    "{} is {}{already}",
                    show::shown(&one.device),
                    show::shown(&one.status)
                )
            };
            let states: Vec<_> = others.iter().map(state).collect();
            return Failure::plain(states.join(", ")).hint(if first.status == action.done() {
                "there is nothing to do".to_owned()
            } else {
                format!(
                    "only {} ones can be {}",
                    action.applies_to().join(" or "),
                    action.past()
                )
            });
        }
        match self.which {
            None => Failure::plain(format!(
                "there is no {} enrolment that fits",
                action.applies_to().join(" or ")
            ))
            .hint(
                "names are taken whole; for patterns there are --device-pattern and --app-pattern",
            ),
            Some(_) => Failure::plain("there is no enrolment with this id or code")
                .hint("noports enroll list tells which there are"),
        }
    }

    /// Those an action is to be done with; perhaps none.
    fn pick(&self, action: Action, all: &[Enrollment]) -> Result<Vec<Enrollment>, Failure> {
        let can = |one: &Enrollment| action.applies_to().contains(&one.status.as_str());
        let found: Vec<_> = all.iter().filter(|one| self.fits(one)).cloned().collect();
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
                action.past()
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

pub(super) async fn run(console: &Console, action: Action, args: Decide) -> Result<(), Failure> {
    let classic = console.given().classic;
    let choice = Choice::new(&args, classic)?;
    let limit = Limit::new(action, &args, &choice, classic)?;
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
        Action::List => list(&at, &choice, &args, told).await,
        Action::Auto => auto::run(&manager.progress, &at, &choice, &limit, &args, told).await,
        _ => {
            let all = listed(&at, None).await?;
            let picked = choice.pick(action, &all)?;
            if choice.which.is_none() {
                told.found(picked.len());
            }
            if picked.is_empty() {
                let failure = if sees_itself_only(&at, &all) {
                    Failure::plain(NOT_MANAGER)
                } else {
                    choice.none(action, &all)
                };
                return nothing(failure, told);
            }
            if action != Action::Approve
                && picked.len() > 1
                && !args.yes
                && !console.given().classic
            {
                return Err(
                    Failure::misuse("several fit: say which, or --yes for all of them")
                        .hint(codes(&picked)),
                );
            }
            decide(&at, action, &picked, &limit, &args, told).await
        }
    }
}

/// Does it with all that were picked, but for those that ask for too much.
async fn decide(
    at: &Client,
    action: Action,
    picked: &[Enrollment],
    limit: &Limit,
    args: &Decide,
    told: Told,
) -> Result<(), Failure> {
    let mut left = None;
    for one in picked {
        if action == Action::Approve {
            if let Err(failure) = limit.admits(one) {
                if let Some(earlier) = left.replace(failure) {
                    cli::print_err(&format!("noports enroll approve: {earlier}"));
                }
                continue;
            }
            if !args.yes {
                confirm(one, at.atsign().as_str())?;
            }
        }
        act(at, action, one, args.force).await?;
        told.done(action, one);
    }
    left.map_or(Ok(()), Err)
}

/// What may be granted without anybody looking.
pub(super) enum Limit {
    /// Somebody looks at each and says yes; or named the very one, as with the classic program.
    Nothing,
    /// No more than this.
    Most(BTreeMap<String, String>),
    /// Anything that does not reach all of the atSign: the classic program is for others' namespaces, too.
    Ordinary,
}

impl Limit {
    fn new(action: Action, args: &Decide, choice: &Choice, classic: bool) -> Result<Self, Failure> {
        let looks = action == Action::Approve && !args.yes;
        Ok(match (classic, looks) {
            (false, false) => Self::Most(show::parse_namespaces(&args.grant)?),
            (true, _) if choice.which.is_none() => Self::Ordinary,
            _ => Self::Nothing,
        })
    }

    /// Whether this may be granted; what is said against it.
    pub(super) fn admits(&self, one: &Enrollment) -> Result<(), Failure> {
        let (far, hint) = match self {
            Self::Nothing => return Ok(()),
            Self::Most(most) => (
                beyond(one, most),
                "look at it and approve it by its code without --yes; or name it: --grant"
                    .to_owned(),
            ),
            Self::Ordinary => {
                let far = |name: &str| matches!(name, "*" | "__manage");
                let asked = one.namespaces.iter().filter(|(name, _)| far(name));
                let asked = asked.map(|(name, right)| (name.clone(), right.clone()));
                (
                    asked.collect(),
                    format!("to grant it all the same: approve -i {}", one.id),
                )
            }
        };
        if far.is_empty() {
            return Ok(());
        }
        Err(Failure::plain(format!(
            "{} ({} on {}) asks for {}, which is not granted unseen",
            show::code(&one.id),
            show::shown(&one.app),
            show::shown(&one.device),
            show::namespaces(&far)
        ))
        .hint(hint))
    }
}

/// What of a request is more than this. `*` is everything but deciding about others.
fn beyond(one: &Enrollment, most: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let allows = |name: &str, right: &str| {
        let granted = most.get(name).or_else(|| {
            let all = most.get("*");
            all.filter(|_| name != "__manage")
        });
        granted
            .is_some_and(|most| matches!((most.as_str(), right), ("rw", "r" | "rw") | ("r", "r")))
    };
    let asked = one.namespaces.iter();
    asked
        .filter(|(name, right)| !allows(name, right))
        .map(|(name, right)| (name.clone(), right.clone()))
        .collect()
}

async fn list(at: &Client, choice: &Choice, args: &Decide, told: Told) -> Result<(), Failure> {
    let all = listed(at, args.status.as_deref()).await?;
    // `at_activate fetch`
    if told.classic && choice.which.is_some() {
        let Some(one) = all.iter().find(|one| choice.fits(one)) else {
            return nothing(choice.none(Action::List, &all), told);
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

/// Whether our keys were enrolled without the right to decide: then of all enrolments they see their own.
fn sees_itself_only(at: &Client, all: &[Enrollment]) -> bool {
    let ours = at.keys().enrollment_id.as_ref();
    let ours = all.iter().find(|one| Some(&one.id) == ours);
    ours.is_some_and(|ours| !ours.namespaces.contains_key("__manage"))
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

    /// A device between slashes is a pattern.
    fn choice(which: &str, device: &str) -> Choice {
        let pattern = device
            .strip_prefix('/')
            .and_then(|rest| rest.strip_suffix('/'));
        let whole = Some(device).filter(|text| !text.is_empty() && pattern.is_none());
        Choice {
            which: Some(which.to_owned()).filter(|text| !text.is_empty()),
            app: Name::Any,
            device: Name::new("device", whole, pattern, Fit::Whole).unwrap(),
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
            ("", "/dev./", Action::Approve, Ok("dev1 dev3")),
            ("", "dev2", Action::Revoke, Ok("dev2")),
            ("", "", Action::Revoke, Ok("dev2")),
            ("", "", Action::Approve, Err("there are several")),
            (
                "",
                "nobody",
                Action::Approve,
                Err("no pending enrolment that fits"),
            ),
            ("", "dev2", Action::Approve, Err("dev2 is approved already")),
            ("", "pi", Action::Revoke, Err("pi is revoked already")),
            (
                "",
                "dev2",
                Action::Unrevoke,
                Err("dev2 is approved already"),
            ),
            ("", "dev1", Action::Revoke, Err("dev1 is pending")),
            ("", "dev2", Action::Delete, Err("dev2 is approved")),
            (
                "",
                "/pi/",
                Action::Revoke,
                Err("no approved enrolment that fits"),
            ),
            (
                "bbbb-2222",
                "",
                Action::Unrevoke,
                Err("only revoked ones can be unrevoked"),
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
            let picked = choice.pick(action, &all());
            let picked = picked.and_then(|picked| {
                if picked.is_empty() {
                    Err(choice.none(action, &all()))
                } else {
                    Ok(picked)
                }
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
    fn a_name_is_the_whole_name_and_a_pattern_fits_all_of_it() {
        for (device, name, want) in [
            ("kitchen", "kitchen", true),
            ("kitchen", "evilkitchen", false),
            ("kitchen", "kitchen2", false),
            ("kitchen", "Kitchen", false),
            ("kitchen", "kitchen ", false),
            ("kitchen", "", false),
            (" kitchen ", "kitchen", true),
            ("k.tchen", "kitchen", false),
            ("k.tchen", "k.tchen", true),
            (".*", "kitchen", false),
            ("^kitchen$", "kitchen", false),
            ("a|kitchen", "kitchen", false),
            ("/k.tchen/", "kitchen", true),
            ("/kitchen/", "evilkitchen", false),
            ("/kitchen/", "kitchen2", false),
            ("/a|kitchen/", "evilkitchen", false),
            ("/kitchen|a/", "kitchen2", false),
            ("/(?m)kitchen/", "evil\nkitchen", false),
            ("/kitchen/", "kitchen\n", false),
            ("/.*kitchen/", "evilkitchen", true),
            ("/^kitchen$/", "kitchen", true),
        ] {
            let fits = choice("", device).fits(&one("aaaa1111-0000", name, "pending"));
            assert_eq!(fits, want, "{device} {name:?}");
        }
        for bad in ["(", "a)|(b", "(?x)a #"] {
            assert!(
                Name::new("device", None, Some(bad), Fit::Whole).is_err(),
                "{bad}"
            );
        }
        assert!(Name::new("device", Some(" "), None, Fit::Whole).is_err());
        assert!(Name::new("device", Some("a"), Some("a"), Fit::Whole).is_err());
        // `--drx`
        let part = Name::new("device", None, Some("kitchen"), Fit::Part).unwrap();
        assert!(part.fits("evilkitchen"));
    }

    #[test]
    fn nothing_beyond_what_was_named_is_granted_unseen() {
        let named = |text: &str| Limit::Most(show::parse_namespaces(text).unwrap());
        for (limit, asked, want) in [
            (named(show::NAMESPACES), "sshnp:rw,sshrvd:rw", true),
            (named(show::NAMESPACES), "sshrvd:r, sshnp:rw,sshnp:r", true),
            (named(show::NAMESPACES), "*:rw", false),
            (named(show::NAMESPACES), "*:r", false),
            (named(show::NAMESPACES), "sshnp:rw,__manage:r", false),
            (named(show::NAMESPACES), "sshnp:rw,SSHRVD:rw", false),
            (named(show::NAMESPACES), "sshnp:rw,sshnp.x:r", false),
            (named("sshnp:r"), "sshnp:rw", false),
            (named("*:rw"), "sshnp:rw,x:r,*:rw", true),
            (named("*:r"), "x:rw", false),
            (named("*:rw"), "__manage:r", false),
            (named("*:rw,__manage:rw"), "__manage:rw", true),
            (Limit::Ordinary, "buzz:rw", true),
            (Limit::Ordinary, "buzz:rw,__manage:r", false),
            (Limit::Ordinary, "*:r", false),
            (Limit::Nothing, "*:rw,__manage:rw", true),
        ] {
            let mut request = one("aaaa1111-0000", "pi", "pending");
            request.namespaces = show::parse_namespaces(asked).unwrap();
            assert_eq!(limit.admits(&request).is_ok(), want, "{asked}");
        }
        // Rights that nobody knows are no less than others.
        let mut request = one("aaaa1111-0000", "pi", "pending");
        request.namespaces.insert("sshnp".into(), "rwx".into());
        let failure = named(show::NAMESPACES).admits(&request).unwrap_err();
        assert_eq!(
            failure.message,
            "aaaa-1111 (noports on pi) asks for sshnp:rwx, which is not granted unseen"
        );
    }

    #[test]
    fn an_approver_sees_everything_that_will_be_granted() {
        let mut request = one("c3a9f7d2-0000", "dev\x1b1", "pending");
        assert_eq!(
            details(&request),
            "  app         noports\n  device      \"dev\\u{1b}1\"\n  namespaces  sshnp:rw, sshrvd:rw\n  code        c3a9-f7d2  (does the device show the same?)"
        );
        request.namespaces.insert("__manage".into(), "rw".into());
        assert!(
            details(&request).ends_with("careful:    it could approve and revoke other devices")
        );
    }
}
