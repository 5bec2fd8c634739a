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
    action::Action,
    grant::GrantLimit,
    manage::{NOT_MANAGER, act, listed, sees_itself_only},
    results::Results,
    selection::Selection,
    show,
};

/// Between two looks when nothing is heard.
const LOOK: Duration = Duration::from_secs(30);
/// Between two looks at a server that tells nothing of requests.
const LOOK_ONLY: Duration = Duration::from_secs(3);

/// Approves until there have been enough.
pub(super) async fn run(
    progress: &Progress,
    at: &Client,
    selection: &Selection,
    unseen: &GrantLimit,
    existing: bool,
    most: usize,
    results: &Results<'_>,
) -> Result<(), Failure> {
    // Before the first look, so that nothing comes between the two.
    let mut bell = RequestBell::subscribe(at).await?;
    let mut passed: HashSet<String> = HashSet::new();
    let all = listed(at, None).await?;
    // Such keys are shown their own enrolment only, and would wait for ever.
    if sees_itself_only(at, &all) {
        return Err(Failure::plain("these keys cannot see requests").hint(NOT_MANAGER));
    }
    if !existing {
        passed.extend(all.into_iter().map(|one| one.id));
    }
    progress.note("waiting for requests that match");
    let mut done = 0;
    while done < most {
        for one in look(at).await? {
            let is_new = passed.insert(one.id.clone());
            if done == most || !is_new || !selection.fits(&one) {
                continue;
            }
            if let Err(failure) = unseen.admits(&one) {
                let hint = failure.hint.as_deref().unwrap_or_default();
                progress.note(format_args!("not approved: {failure}; {hint}"));
                continue;
            }
            match act(at, Action::Auto, &one, false).await {
                Ok(()) => {
                    results.done(Action::Auto, &one);
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
        if done < most {
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

/// Tells when to look.
struct RequestBell(Option<Subscription>);

impl RequestBell {
    async fn subscribe(at: &Client) -> Result<Self, Failure> {
        match at.subscribe_to_requests().await {
            Ok(heard) => Ok(Self(Some(heard))),
            // A server that knows no such monitor is asked more often instead.
            Err(AtError::Refused(fault)) if fault.code != Some(Code::Unauthenticated) => {
                info!("listening=no reason={:?}", fault.to_string());
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
