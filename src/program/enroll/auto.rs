//! Approving what comes and fits: listens for requests, and looks now and then whether one was missed.
//!
//! ```text
//!   monitor:selfNotifications …__manage@ ──▶ something came ─┐
//!   every 30 s, and after a lost connection ─────────────────┴─▶ enroll:list pending ─▶ those that fit ─▶ approve
//! ```
//! A notification only says when to look; what is granted is what the server lists.

use std::{collections::HashSet, time::Duration};

use async_std::{future::timeout, task};
use log::info;

use crate::{
    at::{
        client::{AtError, Client, Event, Subscription},
        enrolment::Enrollment,
        fault::Code,
    },
    cli::{Failure, Progress, exit},
};

use super::{
    Decide,
    decide::{Action, Choice, Limit, NOT_MANAGER, act, listed},
    show,
    told::Told,
};

/// Between two looks when nothing is heard.
const LOOK: Duration = Duration::from_secs(30);
/// The same where the server tells nothing of requests.
const LOOK_ONLY: Duration = Duration::from_secs(3);

/// Approves until there have been enough.
pub(super) async fn run(
    progress: &Progress,
    at: &Client,
    choice: &Choice,
    limit: &Limit,
    args: &Decide,
    told: Told,
) -> Result<(), Failure> {
    // Before the first look, so that nothing comes between the two.
    let mut bell = Bell::hang(at).await?;
    let mut passed: HashSet<String> = HashSet::new();
    let all = listed(at, None).await?;
    may_manage(at, &all)?;
    if !args.existing {
        passed.extend(all.into_iter().map(|one| one.id));
    }
    progress.note("waiting for requests that fit");
    let mut done = 0;
    while done < args.limit {
        for one in look(at).await? {
            let is_new = passed.insert(one.id.clone());
            if done == args.limit || !is_new || !choice.fits(&one) {
                continue;
            }
            if let Err(failure) = limit.admits(&one) {
                let hint = failure.hint.as_deref().unwrap_or_default();
                progress.note(format_args!("not approved: {failure}; {hint}"));
                continue;
            }
            match act(at, Action::Auto, &one, false).await {
                Ok(()) => {
                    told.done(Action::Auto, &one);
                    done += 1;
                }
                // It is still there when the server is back.
                Err(failure) if failure.code == exit::UNREACHABLE => {
                    passed.remove(&one.id);
                }
                // One request that cannot be granted is no reason to leave the others waiting.
                Err(failure) => progress.note(format_args!(
                    "{} ({}) is not approved: {failure}",
                    show::code(&one.id),
                    show::shown(&one.device)
                )),
            }
        }
        if done < args.limit {
            bell.wait().await;
        }
    }
    Ok(())
}

/// What waits. A server that is away for a while has nothing.
async fn look(at: &Client) -> Result<Vec<Enrollment>, Failure> {
    match listed(at, Some("pending")).await {
        Err(failure) if failure.code == exit::UNREACHABLE => {
            info!("waiting reason={:?}", failure.message);
            Ok(Vec::new())
        }
        listed => listed,
    }
}

/// Keys that were enrolled without the right to decide are shown their own enrolment only, and would wait for ever.
fn may_manage(at: &Client, all: &[Enrollment]) -> Result<(), Failure> {
    let ours = at.keys().enrollment_id.as_deref();
    let own = all.iter().find(|one| Some(one.id.as_str()) == ours);
    if own.is_none_or(|own| own.namespaces.contains_key("__manage")) {
        Ok(())
    } else {
        Err(Failure::plain("these keys are told of no requests").hint(NOT_MANAGER))
    }
}

/// Tells when to look.
struct Bell(Option<Subscription>);

impl Bell {
    async fn hang(at: &Client) -> Result<Self, Failure> {
        match at.subscribe_to_requests().await {
            Ok(heard) => Ok(Self(Some(heard))),
            // A server that knows no such monitor is asked more often instead.
            Err(AtError::Refused(fault)) if fault.code != Some(Code::Unauthenticated) => {
                info!("listening=no reason={fault}");
                Ok(Self(None))
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn wait(&mut self) {
        let Some(heard) = &mut self.0 else {
            return task::sleep(LOOK_ONLY).await;
        };
        let rung = async {
            loop {
                match heard.next().await {
                    Some(Event::Lost(_)) => {}
                    Some(Event::Note(_) | Event::Back) => return true,
                    None => return false,
                }
            }
        };
        if timeout(LOOK, rung).await == Ok(false) {
            self.0 = None;
        }
    }
}
