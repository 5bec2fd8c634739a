//! What went wrong on the way to a session, told to the person.

use super::{
    refusals,
    wanted::{Want, Whom},
};
use crate::{
    at::{AtSign, client::AtError, fault::Code},
    cli::{Failure, exit},
    np::{
        permit::Permit,
        ping::Heartbeat,
        request::AnswerError,
        session::{NO_ADMIT, NO_ADMIT_DEVICE, NO_ENCRYPT, SessionError},
    },
    session::{bridge::BridgeError, launch},
    sys::ssh::shell_line,
};

/// An atServer's refusal, told as what it means for this peer.
pub fn about(error: AtError, who: &AtSign) -> Failure {
    let code = match &error {
        AtError::Refused(fault) => fault.code,
        _ => None,
    };
    match code {
        Some(Code::NoAtServer) => Failure::new(exit::UNKNOWN, format!("there is no atSign {who}"))
            .hint("check the spelling, and the atDirectory (--root)"),
        Some(Code::Handshake | Code::Blocked) => Failure::new(
            exit::DEVICE_REFUSED,
            format!("{who}'s atServer does not let you in"),
        )
        .hint(format!(
            "its owner can let you in: noports access show {who}"
        )),
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
        Some(flags) => format!("update the older program; or accept less protection: {flags}"),
        None => "update the older program".to_owned(),
    };
    Failure::new(exit::DEVICE_REFUSED, error.to_string()).hint(hint)
}

pub(super) fn untrusted(error: &dyn std::fmt::Display) -> Failure {
    Failure::new(exit::NOT_TRUSTWORTHY, error.to_string())
}

/// Who was refused, and what is known of the device.
pub(super) struct RefusedRequest<'a> {
    pub(super) client: &'a AtSign,
    pub(super) whom: &'a Whom,
    pub(super) want: Want<'a>,
    /// What the daemon lets people open, if it has said so.
    pub(super) services: Option<&'a [String]>,
}

pub(super) fn refused(error: &AnswerError, request: &RefusedRequest<'_>) -> Failure {
    let AnswerError::Refused(why) = error else {
        return untrusted(error);
    };
    let classic = format!("Received error response from the device daemon\n  {error}");
    refusal(why, request).classic_alone(classic)
}

fn refusal(why: &str, request: &RefusedRequest<'_>) -> Failure {
    let message = refusals::of_device(why);
    if launch::is_service_failure(why) {
        Failure::new(exit::SERVICE, message)
            .hint("check that sshd runs there, and listens where the daemon's --sshd-host and --sshd-port say")
    } else if ["No permissions for", "is not permitted", "based on POLICY"]
        .iter()
        .any(|words| why.contains(words))
    {
        Failure::new(exit::DEVICE_REFUSED, message).hint(ask_the_policy(why, request))
    } else if why.contains("does not permit") || why.contains("--permit-open") {
        Failure::new(exit::DEVICE_REFUSED, message).hint(permit_more(why, request))
    } else {
        let failure = Failure::new(exit::DEVICE_REFUSED, message);
        match refusals::hint(why) {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

fn ask_the_policy(why: &str, request: &RefusedRequest<'_>) -> String {
    let open = wanted(why, request).map_or(String::new(), |target| {
        format!(" --open {}", shell_line(&[target]))
    });
    let (client, whom) = (request.client, request.whom);
    let names = shell_line(&[client.as_str(), whom.to.as_str(), whom.device.as_str()]);
    format!(
        "the device asks a policy; whoever runs it can see why: noports policy check {names}{open} --rules FILE"
    )
}

/// The flag takes the place of the whole list, so what is in it by now has to be said again.
fn permit_more(why: &str, request: &RefusedRequest<'_>) -> String {
    let device = &request.whom.device;
    let before = listed(why).or_else(|| request.services.and_then(|list| permit(&list.join(","))));
    let target = wanted(why, request);
    let target_text = target.as_deref().unwrap_or("the port");
    match (before, &target) {
        (Some(before), Some(target)) => {
            let mut all = before.services();
            all.push(target.clone());
            let list = shell_line(&[all.join(",")]);
            format!("start the daemon on {device} with --permit-open {list}")
        }
        _ => format!(
            "add {target_text} to the list after --permit-open of the daemon on {device}; the flag replaces the \
             whole list, so keep the rest"
        ),
    }
}

/// What was to be opened, as a pattern.
fn wanted(why: &str, request: &RefusedRequest<'_>) -> Option<String> {
    let text = match request.want {
        Want::Tunnel { target, .. } => target.to_string(),
        // The daemon alone knows its sshd's port.
        Want::Ssh(_) => why.rsplit_once(" connections to ")?.1.trim().to_owned(),
    };
    let [only] = <[String; 1]>::try_from(permit(&text)?.services()).ok()?;
    Some(only)
}

/// The list that the refusal carries.
fn listed(why: &str) -> Option<Permit> {
    let (_, list) = why.split_once("--permit-open [")?;
    permit(list.trim_end().strip_suffix(']')?)
}

/// A list from another machine, if it is one: it becomes part of a command.
fn permit(list: &str) -> Option<Permit> {
    list.parse::<Permit>().ok()
}

/// A bridge process that fell, told to the person.
pub fn broken_off(why: &str) -> Failure {
    Failure::told(exit::RENDEZVOUS, &why, BridgeError::hint_of(why))
}

/// A bridge that fell, told to the person.
pub fn broken(error: &BridgeError) -> Failure {
    Failure::told(exit::RENDEZVOUS, error, error.hint())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{session::ask::Details, text::endpoint::Endpoint};

    fn hint(why: &str, target: Option<&str>, services: Option<&[&str]>) -> String {
        let whom = Whom::parse(
            "@device",
            Some("dev1"),
            Some("@rv"),
            std::time::Duration::from_secs(1),
        )
        .unwrap();
        let target = target.map(|text| Endpoint::parse(text, None).unwrap());
        let want = match &target {
            Some(target) => Want::Tunnel {
                target,
                timeout: Duration::ZERO,
            },
            None => Want::Ssh(Details::default()),
        };
        let services: Option<Vec<String>> =
            services.map(|list| list.iter().map(|word| (*word).to_owned()).collect());
        let request = RefusedRequest {
            client: &"@alice".parse().unwrap(),
            whom: &whom,
            want,
            services: services.as_deref(),
        };
        let failure = refused(&AnswerError::Refused(why.to_owned()), &request);
        failure.hint.unwrap_or_default()
    }

    #[test]
    fn the_hint_for_a_forbidden_port_keeps_what_was_permitted() {
        let denied = |list: &str| {
            format!("Connection to localhost:99 denied based on daemon --permit-open [{list}]")
        };
        let ssh = "Daemon does not permit connections to localhost:2222";
        let start = "start the daemon on dev1 with --permit-open";
        let by_hand = |what: &str| {
            format!(
                "add {what} to the list after --permit-open of the daemon on dev1; the flag replaces the whole list, \
                 so keep the rest"
            )
        };
        let of_dart: &[&str] = &["localhost:22", "localhost:3389"];
        for (why, target, services, want) in [
            (
                denied("localhost:22, localhost:3389"),
                Some("localhost:99"),
                None,
                format!("{start} localhost:22,localhost:3389,localhost:99"),
            ),
            // A shell must not look for files of such a name.
            (
                denied("*:22, [::1]:80"),
                Some("nas:99"),
                None,
                format!("{start} '*:22,[::1]:80,nas:99'"),
            ),
            (denied(""), Some("nas:99"), None, format!("{start} nas:99")),
            (
                ssh.to_owned(),
                None,
                Some(of_dart),
                format!("{start} localhost:22,localhost:3389,localhost:2222"),
            ),
            // Nothing is known of the list, or it is none (a C daemon says so).
            (ssh.to_owned(), None, None, by_hand("localhost:2222")),
            (
                ssh.to_owned(),
                None,
                Some(&["localhost:0"]),
                by_hand("localhost:2222"),
            ),
            (
                denied("localhost:22; rm -r ~"),
                Some("nas:99"),
                None,
                by_hand("nas:99"),
            ),
            (
                "Daemon does not permit connections to $(x)".to_owned(),
                None,
                Some(of_dart),
                by_hand("the port"),
            ),
            (
                "not by --permit-open".to_owned(),
                Some("nas:99"),
                Some(of_dart),
                format!("{start} localhost:22,localhost:3389,nas:99"),
            ),
        ] {
            assert_eq!(hint(&why, target, services), want, "{why}");
        }
    }

    #[test]
    fn the_hint_for_a_policys_no_is_a_whole_command() {
        let check = "the device asks a policy; whoever runs it can see why: noports policy check @alice @device dev1";
        let list = "Connection to nas:80 denied based on POLICY --permit-open [localhost:1]";
        let ssh = "Client is not permitted connections to localhost:22";
        let none = "No permissions for @alice at dev1";
        for (why, target, open) in [
            (list, Some("nas:80"), " --open nas:80"),
            (ssh, None, " --open localhost:22"),
            (none, None, ""),
            ("Client is not permitted connections to `x`", None, ""),
        ] {
            let want = format!("{check}{open} --rules FILE");
            assert_eq!(hint(why, target, None), want, "{why}");
        }
    }
}
