//! ○ What devices and rendezvous say when they refuse, in our words.
//!
//! ```text
//!   Daemon does not permit connections to nas:22     the device permits no connections to nas:22
//!   anything else                                    the device refused, in its own words: "…"
//! ```
//! The words on the wire are those of the classic programs, and programs of all generations compare them; only what a
//! person reads differs. Called by a classic name a program repeats them as they are.
//!
//! Source: noports:packages/dart/noports_core/lib/src/sshnpd/sshnpd_impl.dart (texts).

use crate::session::{authorise::NO_ANSWER, launch};

/// How it begins and what stands behind the part that differs; and what that is for a person, with `{}` in its place.
type RefusalText = (&'static str, &'static str, &'static str);

const OF_DEVICES: &[RefusalText] = &[
    (DAEMON_LIST, "", "the device permits no connections to {}"),
    (
        "Connection to ",
        " denied based on daemon --permit-open",
        "the device permits no connections to {}",
    ),
    (
        "Client is not permitted connections to ",
        "",
        "the device's policy permits you no connections to {}",
    ),
    (
        "Connection to ",
        " denied based on POLICY --permit-open",
        "the device's policy permits you no connections to {}",
    ),
    (
        "No permissions for ",
        " at ",
        "the device's policy permits {} nothing",
    ),
    (
        "Signature not verified: ",
        "",
        "the device cannot tell whether it is you: {}",
    ),
    (
        "the key of ",
        "",
        "the device knows another key of yours: the key of {}",
    ),
    (
        launch::NO_SERVICE,
        "",
        "the device cannot reach the service: {}",
    ),
    (
        launch::NO_BRIDGE,
        "",
        "the device could not meet you at the rendezvous: {}",
    ),
    (
        "Failed to start up the daemon side of the sshrv socket tunnel : ",
        "",
        "the device could not meet you at the rendezvous: {}",
    ),
    ("The policy ", "", "the policy {}"),
    (
        "Failed to forward remote port ",
        USE_ANOTHER,
        "the device could not open port {} here",
    ),
    (
        "Failed to open socket to ",
        USE_ANOTHER,
        "the device cannot connect to {}",
    ),
    (
        "Failed to authenticate as ",
        USE_ANOTHER,
        "the device could not log in here as {}",
    ),
    (
        "Failed to authenticate: no private key has come",
        "",
        "the device got no key to log in with",
    ),
    (
        "Failed to establish connection - timed out",
        "",
        "the device could not connect to this machine in time",
    ),
    (
        "Failed to establish connection - exit code ",
        USE_ANOTHER,
        "the device could not connect to this machine: ssh ended there with {}",
    ),
    (
        "Remote SSH Client failure : ",
        "",
        "ssh failed on the device: {}",
    ),
    (
        UNPROTECTED,
        "",
        "the device takes only sessions that are encrypted and logged in to",
    ),
];

const OF_RENDEZVOUS: &[RefusalText] = &[
    (
        LOGIN,
        "",
        "lets nobody in who does not log in, on both ends",
    ),
    (FULL, "", "has as many sessions as it takes"),
    (NO_PORTS, "", "has no ports left"),
    ("the session id is taken", "", "has a session of this name"),
    (
        "Client requested port 443 but this relay is not bound to port 443",
        "",
        "does not serve port 443",
    ),
];

/// Without it the same beginning means something else.
const DENIED: &str = " denied based on ";
const DAEMON_LIST: &str = "Daemon does not permit connections to ";
const UNPROTECTED: &str = "this device does not do sessions without encryption and login";
/// Advice of the classic daemon, which is not ours.
const USE_ANOTHER: &str = " (use --local-port";
const LOGIN: &str = "both ends have to log in here";
const FULL: &str = "too many sessions at a time";
const NO_PORTS: &str = "no ports can be opened";

/// What a device means, for a person.
pub(super) fn of_device(why: &str) -> String {
    let known = in_our_words(OF_DEVICES, why);
    known.unwrap_or_else(|| format!("the device refused, in its own words: {why:?}"))
}

/// What a rendezvous of this name means.
pub(super) fn of_rendezvous(via: &str, why: &str) -> String {
    match in_our_words(OF_RENDEZVOUS, why) {
        Some(known) => format!("the rendezvous {via} {known}"),
        None => format!("the rendezvous {via} refused, in its own words: {why:?}"),
    }
}

/// What helps, where nothing but the words is needed to know it.
pub(super) fn hint(why: &str) -> Option<&'static str> {
    match why {
        UNPROTECTED | LOGIN => {
            Some("leave out --no-encrypt, --no-admit-client and --no-admit-device")
        }
        FULL | NO_PORTS => Some("try again later, or choose another one: --via @rendezvous"),
        _ if why.starts_with("Failed to forward remote port ") => {
            Some("--local-port PORT, with a port that is free here")
        }
        _ if why.starts_with("Failed to authenticate as ") => {
            Some("does sshd run on this machine, and may that user log in with a key?")
        }
        _ if why.starts_with("Failed to open socket to ") => {
            Some("is there a network on the device, and is outbound TCP to that port allowed?")
        }
        _ if why.starts_with("Signature not verified: ") => Some(
            "are your keys the latest ones? those that another device got may have taken their place",
        ),
        _ if why.starts_with("The policy ") && why.contains(NO_ANSWER) => Some(
            "does it run? noports policy serve, where it lives; then try again, the device asks anew",
        ),
        _ => None,
    }
}

fn in_our_words(rows: &[RefusalText], why: &str) -> Option<String> {
    rows.iter().find_map(|(before, behind, ours)| {
        let rest = why.strip_prefix(before)?;
        let part = match rest.split_once(behind).filter(|_| !behind.is_empty()) {
            Some((part, _)) => part,
            None if behind.starts_with(DENIED) => return None,
            None => rest,
        };
        Some(ours.replace("{}", part.trim()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_devices_of_all_generations_say_is_told_in_our_words() {
        for (why, want) in [
            (
                "Daemon does not permit connections to localhost:22",
                "the device permits no connections to localhost:22",
            ),
            (
                "Connection to nas:80 denied based on daemon --permit-open [localhost:22]",
                "the device permits no connections to nas:80",
            ),
            (
                "Connection to nas:80 denied based on POLICY --permit-open []",
                "the device's policy permits you no connections to nas:80",
            ),
            (
                "No permissions for @alice at dev1",
                "the device's policy permits @alice nothing",
            ),
            (
                "No permissions for @alice",
                "the device's policy permits @alice nothing",
            ),
            (
                "Connection to nas:80 was lost",
                "the device refused, in its own words: \"Connection to nas:80 was lost\"",
            ),
            (
                "Failed to start up the daemon side of the srv socket tunnel : on the device: Connection refused",
                "the device cannot reach the service: Connection refused",
            ),
            (
                "Failed to start up the daemon side of the sshrv socket tunnel : it ended",
                "the device could not meet you at the rendezvous: it ended",
            ),
            (
                "Failed to forward remote port 8022 (use --local-port to specify unused port)",
                "the device could not open port 8022 here",
            ),
            (
                "Failed to authenticate as me@host",
                "the device could not log in here as me@host",
            ),
            (
                "bad \"weather\"",
                "the device refused, in its own words: \"bad \\\"weather\\\"\"",
            ),
            ("", "the device refused, in its own words: \"\""),
        ] {
            assert_eq!(of_device(why), want, "{why}");
        }
        for (why, want) in [
            (
                LOGIN,
                "the rendezvous @rv lets nobody in who does not log in, on both ends",
            ),
            ("no", "the rendezvous @rv refused, in its own words: \"no\""),
        ] {
            assert_eq!(of_rendezvous("@rv", why), want, "{why}");
        }
    }
}
