//! What a device that may manage enrolments asks of the atServer.

use std::sync::Arc;

use async_std::task;

use crate::{
    at::{
        Verb,
        client::{AtError, Client},
        enrolment::{self, Enrollment},
        fault::Code,
    },
    cli::Failure,
};

use super::{action::Action, seen};

/// For keys that were enrolled without the right to decide.
pub(super) const NOT_MANAGER: &str =
    "these keys may not manage enrolments; use the device on which the atSign was activated";

/// The enrolments of one state, or all.
pub(super) async fn listed(at: &Client, status: Option<&str>) -> Result<Vec<Enrollment>, Failure> {
    let answer = at.run(&enrolment::list(status)).await?;
    let listed = enrolment::parse_list(&answer)
        .ok_or_else(|| Failure::plain("the atServer's list of enrolments cannot be read"))?;
    seen::keep(at.atsign(), status, &listed);
    Ok(listed)
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
    at.run(&verb).await.map(drop).map_err(refused)?;
    seen::forget(at.atsign(), &one.id);
    Ok(())
}

/// Whether our keys were enrolled without the right to decide: then of all enrolments they see their own.
pub(super) fn sees_itself_only(at: &Client, all: &[Enrollment]) -> bool {
    let ours = at.keys().enrollment_id.as_ref();
    let ours = all.iter().find(|one| Some(&one.id) == ours);
    ours.is_some_and(|ours| !ours.namespaces.contains_key("__manage"))
}

/// Hands our keys over, encrypted for the applicant.
async fn approval(at: &Client, one: &Enrollment) -> Result<Verb, Failure> {
    let wrapped = one.wrapped.clone().ok_or_else(|| {
        Failure::plain("this request has no key to encrypt for, so it cannot be approved here")
    })?;
    let (keys, id) = (Arc::clone(at.keys()), one.id.clone());
    let verb = task::spawn_blocking(move || enrolment::approve(&keys, &id, &wrapped)).await;
    verb.map_err(|_| {
        Failure::plain("the key in this request cannot be opened: it was made for another atSign")
            .hint("deny it, and have the device ask again")
    })
}

pub(super) fn refused(error: AtError) -> Failure {
    let (code, too_late) = match &error {
        // `Cannot approve a approved enrollment. Only pending enrollments can be approved`
        AtError::Refused(fault) => (fault.code, fault.text.contains("enrollments can be ")),
        _ => (None, false),
    };
    let failure = Failure::from(error);
    match code {
        _ if too_late => Failure::plain("somebody else has just decided about this enrolment"),
        Some(Code::Unauthorized) => failure.hint(NOT_MANAGER),
        Some(Code::SelfRevoke) => Failure::plain("this would revoke your own keys")
            .hint("add --force if you want this device to lose its access"),
        _ => failure,
    }
}
