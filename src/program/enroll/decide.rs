//! The side of a device that has keys: list, approve, deny, revoke, unrevoke, delete.

use std::{
    io::{self, IsTerminal},
    process::ExitCode,
};

use argh::{ArgsInfo, FromArgs};
use log::LevelFilter;

use crate::{
    at::{AtSign, client::Client, enrolment::Enrollment},
    cli::{self, Console, Failure, Progress, flags},
    program::confirm::is_wanted,
    text::number::count,
};

use super::{
    action::Action,
    auto,
    grant::GrantLimit,
    manage::{NOT_MANAGER, act, listed, sees_itself_only},
    results::Results,
    selection::{NameFilter, PatternReach, Selection, codes, command},
    show,
};

flags! {
    /// Manage the enrolments of an atSign, from a device that has keys.
    ///
    /// Give the id of an enrolment, or the short id that the new device shows. approve asks you first. Without asking,
    /// nothing beyond --grant is granted: * and __manage give access to the whole atSign.
    #[derive(FromArgs, ArgsInfo, Debug)]
    #[argh(
        example = "noports enroll list @alice --status pending",
        example = "noports enroll approve @alice c3a9-f7d2",
        example = "noports enroll revoke @alice --device pi"
    )]
    pub(crate) struct Args {
        /// your atSign
        #[argh(positional)]
        atsign: String,
        /// id or short id of an enrolment
        #[argh(positional)]
        which: Vec<String>,
        /// enrolments of the device with exactly this name
        #[argh(option, arg_name = "name")]
        device: Option<String>,
        /// enrolments of the program with exactly this name
        #[argh(option, arg_name = "name")]
        app: Option<String>,
        /// enrolments of devices whose whole name matches
        #[argh(option, arg_name = "regex")]
        device_pattern: Option<String>,
        /// enrolments of programs whose whole name matches
        #[argh(option, arg_name = "regex")]
        app_pattern: Option<String>,
        /// list: only enrolments in this state: pending, approved, denied, revoked or expired
        #[argh(option, arg_name = "state", from_str_fn(state))]
        status: Option<String>,
        /// approve: do not ask; deny, revoke, unrevoke, delete: allow several at once
        #[argh(switch)]
        yes: bool,
        /// auto, and approve --yes: the most to grant without asking (default: sshnp:rw,sshrvd:rw)
        #[argh(option, arg_name = "list", default = "show::NAMESPACES.to_owned()")]
        grant: String,
        /// auto: end after this many approvals (default: 1)
        #[argh(option, arg_name = "number", default = "1", from_str_fn(count))]
        limit: usize,
        /// auto: also approve requests that are pending already
        #[argh(switch)]
        existing: bool,
        /// revoke: allow your own enrolment too, which ends your access
        #[argh(switch)]
        force: bool,
        account,
    }
}

/// Runs the program for a device that has keys.
pub(super) fn main(console: Console, action: Action, words: &[&str]) -> ExitCode {
    let story = async |console: &Console, args| run(console, action, &args).await;
    console.start(words, LevelFilter::Warn, 1, story)
}

async fn run(console: &Console, action: Action, args: &Args) -> Result<(), Failure> {
    let classic = console.given().classic;
    let selection = selection(args, classic)?;
    let unseen = grant_limit(action, args, &selection, classic)?;
    let careless = matches!(action, Action::Approve) && args.yes || action == Action::Auto;
    let must_choose = careless || !matches!(action, Action::List | Action::Approve);
    if must_choose && selection.is_open() {
        let list = format!("noports enroll list {}", args.atsign);
        let states = action.applies_to().first();
        let hint = states.map_or(list.clone(), |state| format!("{list} --status {state}"));
        let why = format!("{}: no enrolment given; its id is listed", action.word());
        return Err(Failure::misuse(why).hint(hint));
    }
    let phrases = console.phrases(args.passphrase_file.as_deref())?;
    let who: AtSign = args.atsign.parse()?;
    let (network, keys) = args.account().load_with(Some(who.as_str()), &phrases)?;
    let mut progress = Progress::new(args.quiet);
    let at = Client::login(&network, keys).await?;
    progress.done(format_args!("logged in as {who}"));
    let results = Results {
        console,
        json: args.json,
    };
    match action {
        Action::List => list(&at, &selection, args, &results).await,
        Action::Auto => {
            let (existing, most) = (args.existing, args.limit);
            auto::run(
                &progress, &at, &selection, &unseen, existing, most, &results,
            )
            .await
        }
        _ => decide(&at, action, &selection, &unseen, args, &results).await,
    }
}

const STATES: [&str; 5] = ["pending", "approved", "denied", "revoked", "expired"];

fn state(text: &str) -> Result<String, String> {
    let known = STATES.contains(&text).then(|| text.to_owned());
    known.ok_or_else(|| format!("{text:?} is none of {}", STATES.join(", ")))
}

fn selection(args: &Args, classic: bool) -> Result<Selection, Failure> {
    let reach = if classic {
        PatternReach::Part
    } else {
        PatternReach::Whole
    };
    let filter = |what, whole: &Option<String>, pattern: &Option<String>| {
        NameFilter::new(what, whole.as_deref(), pattern.as_deref(), reach)
    };
    let which = args.which.join(" ");
    Ok(Selection {
        which: Some(which.trim().to_owned()).filter(|which| !which.is_empty()),
        app: filter("program", &args.app, &args.app_pattern)?,
        device: filter("device", &args.device, &args.device_pattern)?,
    })
}

fn grant_limit(
    action: Action,
    args: &Args,
    selection: &Selection,
    classic: bool,
) -> Result<GrantLimit, Failure> {
    let looks = action == Action::Approve && !args.yes;
    Ok(if !classic && !looks {
        GrantLimit::Most(show::parse_namespaces(&args.grant)?)
    } else if classic && selection.which.is_none() {
        GrantLimit::Ordinary
    } else {
        GrantLimit::Nothing
    })
}

/// Does it with all that are meant, but for those that ask for too much.
async fn decide(
    at: &Client,
    action: Action,
    selection: &Selection,
    unseen: &GrantLimit,
    args: &Args,
    results: &Results<'_>,
) -> Result<(), Failure> {
    let all = listed(at, None).await?;
    let picked = selection.pick(action, &all, at.atsign())?;
    if selection.which.is_none() {
        results.found(picked.len());
    }
    if picked.is_empty() {
        let failure = if sees_itself_only(at, &all) {
            Failure::plain(NOT_MANAGER)
        } else {
            selection.none(action, &all, at.atsign())
        };
        return nothing(failure, results);
    }
    if action != Action::Approve && picked.len() > 1 && !args.yes && !results.is_classic() {
        return Err(Failure::misuse(format!(
            "several match: choose one, or give --yes for all of {}",
            codes(&picked)
        ))
        .hint(command(action, at.atsign(), &picked)));
    }
    let mut left = None;
    for one in &picked {
        if action == Action::Approve {
            if let Err(failure) = unseen.admits(one) {
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
        results.done(action, one);
    }
    left.map_or(Ok(()), Err)
}

async fn list(
    at: &Client,
    selection: &Selection,
    args: &Args,
    results: &Results<'_>,
) -> Result<(), Failure> {
    let all = listed(at, args.status.as_deref()).await?;
    // `at_activate fetch`
    if results.is_classic() && selection.which.is_some() {
        let Some(one) = all.iter().find(|one| selection.fits(one)) else {
            return nothing(selection.none(Action::List, &all, at.atsign()), results);
        };
        results.fetched(one);
    } else {
        results.list(&all, selection);
    }
    Ok(())
}

/// To the classic program this was no failure; scripts try again until something is there.
fn nothing(failure: Failure, results: &Results) -> Result<(), Failure> {
    if !results.is_classic() {
        return Err(failure);
    }
    cli::print_err("No matching enrollment(s) found");
    Ok(())
}

/// Shows what will be granted, and asks.
fn confirm(one: &Enrollment, who: &str) -> Result<(), Failure> {
    cli::print_err(&details(one));
    if !io::stdin().is_terminal() {
        let code = show::code(&one.id);
        return Err(
            Failure::misuse("approving needs a confirmation: run it in a terminal").hint(format!(
                "to grant this without being asked: noports enroll approve {who} {code} --yes"
            )),
        );
    }
    if is_wanted("grant this?") {
        return Ok(());
    }
    Err(Failure::plain("not approved").hint(format!(
        "the request stays open; to refuse it: noports enroll deny {who} {}",
        show::code(&one.id)
    )))
}

fn details(one: &Enrollment) -> String {
    let mut text = format!(
        "  app         {}\n  device      {}\n  namespaces  {}\n  short id    {}  (does the device show the same?)",
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crate::program::enroll::{decide::*, selection::tests::one};

    #[test]
    fn an_approver_sees_everything_that_will_be_granted() {
        let mut request = one("c3a9f7d2-0000", "dev\x1b1", "pending");
        assert_eq!(
            details(&request),
            "  app         noports\n  device      \"dev\\u{1b}1\"\n  namespaces  sshnp:rw, sshrvd:rw\n  short id    c3a9-f7d2  (does the device show the same?)"
        );
        request.namespaces.insert("__manage".into(), "rw".into());
        assert!(
            details(&request).ends_with("careful:    it could approve and revoke other devices")
        );
    }
}
