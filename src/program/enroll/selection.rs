//! Which enrolments somebody means: by id or code, by names, by patterns.

use regex_lite::Regex;

use crate::{
    at::{AtSign, enrolment::Enrollment},
    cli::Failure,
};

use super::{action::Action, show};

/// Which names are meant.
#[derive(Debug)]
pub(super) enum NameFilter {
    Any,
    /// The whole name. Servers tell capitals from small letters in it, so we do.
    Whole(String),
    Pattern(Regex),
}

impl NameFilter {
    /// From the flag for a name and the one for a pattern.
    pub(super) fn new(
        what: &str,
        whole: Option<&str>,
        pattern: Option<&str>,
        reach: PatternReach,
    ) -> Result<Self, Failure> {
        match (whole, pattern) {
            (None, None) => Ok(Self::Any),
            (Some(name), None) => Ok(Self::Whole(show::parse_name(what, name)?)),
            (None, Some(text)) => Ok(Self::Pattern(reach.compile(text)?)),
            (Some(_), Some(_)) => Err(Failure::misuse(format!(
                "give a name of the {what} or a pattern, not both"
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

/// How much of a name a pattern has to fit.
#[derive(Clone, Copy)]
pub(super) enum PatternReach {
    Whole,
    /// Any part of it, as with the classic program.
    Part,
}

impl PatternReach {
    fn compile(self, text: &str) -> Result<Regex, Failure> {
        let bad = |why| Failure::misuse(format!("not a regular expression: {why}"));
        // By itself first: what closes the group around it is no expression.
        let part = Regex::new(text).map_err(bad)?;
        match self {
            Self::Part => Ok(part),
            Self::Whole => Regex::new(&format!("^(?:{text})$")).map_err(bad),
        }
    }
}

/// Which enrolments are meant.
pub(super) struct Selection {
    /// Its id or short id.
    pub which: Option<String>,
    /// The program's name.
    pub app: NameFilter,
    /// The device's.
    pub device: NameFilter,
}

impl Selection {
    pub(super) fn is_open(&self) -> bool {
        self.which.is_none() && self.app.is_any() && self.device.is_any()
    }

    pub(super) fn fits(&self, one: &Enrollment) -> bool {
        let which = self.which.as_deref();
        which.is_none_or(|which| show::is_meant(which, &one.id))
            && self.app.fits(&one.app)
            && self.device.fits(&one.device)
    }

    /// Nothing was picked of these.
    pub(super) fn none(&self, action: Action, all: &[Enrollment], who: &AtSign) -> Failure {
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
                "there is no {} enrolment that matches",
                action.applies_to().join(" or ")
            ))
            .hint("names must match exactly; for patterns: --device-pattern and --app-pattern"),
            Some(_) => Failure::plain("there is no enrolment with this id")
                .hint(format!("noports enroll list {who}")),
        }
    }

    /// Those an action is to be done with; perhaps none.
    pub(super) fn pick(
        &self,
        action: Action,
        all: &[Enrollment],
        who: &AtSign,
    ) -> Result<Vec<Enrollment>, Failure> {
        let can = |one: &Enrollment| action.applies_to().contains(&one.status.as_str());
        let found: Vec<_> = all.iter().filter(|one| self.fits(one)).cloned().collect();
        if self.which.is_none() {
            let found: Vec<_> = found.into_iter().filter(can).collect();
            // Without any choice made, only where there is none.
            return match found.len() {
                2.. if self.is_open() => {
                    let why = format!(
                        "there are several requests: choose one of {}",
                        codes(&found)
                    );
                    Err(Failure::misuse(why).hint(command(action, who, &found)))
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
                let ids: Vec<_> = found.iter().map(|one| one.id.as_str()).collect();
                let why = format!("several enrolments have this short id: {}", ids.join(", "));
                let whole = format!("noports enroll {} {who} {}", action.word(), ids[0]);
                Err(Failure::misuse(why).hint(whole))
            }
        }
    }
}

/// What does it with the first of these.
pub(super) fn command(action: Action, who: &AtSign, of: &[Enrollment]) -> String {
    let code = of.first().map_or(String::new(), |one| show::code(&one.id));
    format!("noports enroll {} {who} {code}", action.word())
}

/// Short ids, each with its device.
pub(super) fn codes(of: &[Enrollment]) -> String {
    let one = |one: &Enrollment| format!("{} ({})", show::code(&one.id), show::shown(&one.device));
    of.iter().map(one).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use crate::program::enroll::selection::*;

    pub(in crate::program::enroll) fn one(id: &str, device: &str, status: &str) -> Enrollment {
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
    fn choice(which: &str, device: &str) -> Selection {
        let pattern = device
            .strip_prefix('/')
            .and_then(|rest| rest.strip_suffix('/'));
        let whole = Some(device).filter(|text| !text.is_empty() && pattern.is_none());
        Selection {
            which: Some(which.to_owned()).filter(|text| !text.is_empty()),
            app: NameFilter::Any,
            device: NameFilter::new("device", whole, pattern, PatternReach::Whole).unwrap(),
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
            ("", "", Action::Approve, Err("there are several requests")),
            (
                "",
                "nobody",
                Action::Approve,
                Err("no pending enrolment that matches"),
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
                Err("no approved enrolment that matches"),
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
                Err("several enrolments have this short id"),
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
            let picked = choice.pick(action, &all(), &"@alice".parse().unwrap());
            let picked = picked.and_then(|picked| {
                if picked.is_empty() {
                    Err(choice.none(action, &all(), &"@alice".parse().unwrap()))
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
                NameFilter::new("device", None, Some(bad), PatternReach::Whole).is_err(),
                "{bad}"
            );
        }
        assert!(NameFilter::new("device", Some(" "), None, PatternReach::Whole).is_err());
        assert!(NameFilter::new("device", Some("a"), Some("a"), PatternReach::Whole).is_err());
        // `--drx`
        let part = NameFilter::new("device", None, Some("kitchen"), PatternReach::Part).unwrap();
        assert!(part.fits("evilkitchen"));
    }
}
