//! What went wrong on the way to a session, told to the person.

use super::{Want, Whom};
use crate::{
    at::{AtSign, client::AtError, fault::Code},
    cli::{Failure, exit},
    np::{
        ping::Heartbeat,
        request::AnswerError,
        session::{NO_ADMIT, NO_ADMIT_DEVICE, NO_ENCRYPT, SessionError},
    },
    session::{bridge::BridgeError, launch},
};

/// An atServer's refusal, told as what it means for this peer.
pub fn about(error: AtError, who: &AtSign) -> Failure {
    let code = match &error {
        AtError::Refused(fault) => fault.code,
        _ => None,
    };
    match code {
        Some(Code::NoAtServer) => Failure::new(exit::UNKNOWN, format!("there is no atSign {who}"))
            .hint("is it spelled right, and is this the right atDirectory (--root)?"),
        Some(Code::Handshake | Code::Blocked) => Failure::new(
            exit::DEVICE_REFUSED,
            format!("{who}'s atServer does not let you in"),
        )
        .hint("its owner may have blocked your atSign, or allowed others only"),
        _ => error.into(),
    }
}

/// A peer that cannot do what the session must have; names the flags that do without.
pub(super) fn too_old(error: SessionError, daemon: Option<&Heartbeat>) -> Failure {
    let lacks_both = daemon.is_some_and(|daemon| {
        let can = daemon.features;
        !can.relay_auth && !can.relay_encryption
    });
    // One at a time would be a riddle: whoever lacks one of them lacks both before 5.0.
    let without = match (&error, lacks_both) {
        (
            SessionError::Lacks {
                without: Some(_), ..
            },
            true,
        ) => Some(format!(
            "{NO_ENCRYPT} {NO_ADMIT_DEVICE}, and through an old rendezvous {NO_ADMIT}"
        )),
        _ => error.without().map(str::to_owned),
    };
    let hint = match without {
        Some(flags) => format!("update the older program; or with less protection: {flags}"),
        None => "update the older program".to_owned(),
    };
    Failure::new(exit::DEVICE_REFUSED, error.to_string()).hint(hint)
}

pub(super) fn untrusted(error: &dyn std::fmt::Display) -> Failure {
    Failure::new(exit::NOT_TRUSTWORTHY, error.to_string())
}

pub(super) fn refused(error: &AnswerError, whom: &Whom, want: Want<'_>) -> Failure {
    let AnswerError::Refused(why) = error else {
        return untrusted(error);
    };
    refusal(error, why, whom, want).classic("Received error response from the device daemon")
}

fn refusal(error: &AnswerError, why: &str, whom: &Whom, want: Want<'_>) -> Failure {
    let message = error.to_string();
    if launch::is_service_failure(why) {
        Failure::new(exit::SERVICE, message)
            .hint("is sshd running there? the daemon's --sshd-port must be its port")
    } else if ["No permissions for", "is not permitted", "based on POLICY"]
        .iter()
        .any(|words| why.contains(words))
    {
        Failure::new(exit::DEVICE_REFUSED, message)
            .hint("the device asks a policy; whoever runs it can see why: noports policy check")
    } else if why.contains("does not permit") || why.contains("--permit-open") {
        let what = match want {
            Want::Ssh(_) => String::new(),
            Want::Tunnel { target, .. } => format!(" {target}"),
        };
        Failure::new(exit::DEVICE_REFUSED, message).hint(format!(
            "start the daemon on {} with --permit-open{what}",
            whom.device
        ))
    } else {
        Failure::new(exit::DEVICE_REFUSED, message)
    }
}

/// A bridge that fell, told to the person.
pub fn broken(error: &BridgeError) -> Failure {
    let failure = Failure::new(exit::RENDEZVOUS, error.to_string());
    match error.hint() {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}
