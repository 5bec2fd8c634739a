//! The line of `authorized_keys` that lets a key in for one session, to carry another ssh and for nothing else.
//!
//! A line with an option that the sshd does not know lets nobody in, so each gets what it understands:
//!
//! | sshd | options |
//! | --- | --- |
//! | all | `command="echo …;sleep 20"`: nothing is run but this; `PermitOpen`: forwarding to the sshd here only |
//! | OpenSSH from 7.2 | `restrict,port-forwarding,pty`: nothing else, also of what later versions invent; clients insist on a terminal (`ssh -tt`) |
//! | OpenSSH from 7.7 | `expiry-time="20261130"`: a line that a crash leaves behind dies by itself |
//! | dropbear from 2022.82 | `no-agent-forwarding,no-X11-forwarding` |
//! | older dropbear | none: it cannot keep a key to one port |
//! | others | `no-agent-forwarding,no-X11-forwarding,no-user-rc`: known to every OpenSSH that is still about |
//!
//! A line without an expiry goes with the session, else at the next start.
//!
//! Source: noports:packages/sshnoports/lib/sshnp/sshnp_impl.dart at v3.4.2 and
//! noports:packages/dart/noports_core/lib/src/sshnpd/sshnpd_impl.dart (the command, the limits, the 20 s).

use std::{
    io,
    time::{Duration, SystemTime},
};

use crate::{net::ssh_server::SshServer, text::calendar::utc};

/// Without quotes in it: dropbear ends a quoted blank at the first one, escaped or not.
const COMMAND: &str = r#"command="echo ssh session complete;sleep 20""#;
/// The day on which a line expires begins so long after it was written: at the beginning of a day in a time zone that we
/// do not know, so later than any session lasts and sooner than three days.
const EXPIRES_AFTER: Duration = Duration::from_secs(48 * 3600);

/// `options type key`: let in for forwarding to the sshd on `port`, and for nothing else; what that is, if it says so.
///
/// # Errors
/// `Unsupported` for an sshd that would let it do more.
pub(super) fn line(
    port: u16,
    sshd: Option<SshServer>,
    options: &str,
    public: &str,
) -> io::Result<String> {
    let limits = match sshd {
        Some(SshServer::OpenSsh(major, minor)) if (major, minor) >= (7, 2) => {
            "restrict,port-forwarding,pty"
        }
        Some(SshServer::Dropbear(year, number)) if (year, number) < (2022, 82) => {
            let why = format!(
                "dropbear {year}.{number} cannot keep a key to one port (2022.82 and later can)"
            );
            return Err(io::Error::new(io::ErrorKind::Unsupported, why));
        }
        Some(SshServer::Dropbear(..)) => "no-agent-forwarding,no-X11-forwarding",
        _ => "no-agent-forwarding,no-X11-forwarding,no-user-rc",
    };
    let mut line = format!(r#"{COMMAND},{limits},PermitOpen="localhost:{port}""#);
    if matches!(sshd, Some(SshServer::OpenSsh(major, minor)) if (major, minor) >= (7, 7)) {
        let day = utc(SystemTime::now() + EXPIRES_AFTER);
        let digits: String = day.chars().filter(char::is_ascii_digit).take(8).collect();
        line += &format!(r#",expiry-time="{digits}""#);
    }
    let comma = if options.is_empty() { "" } else { "," };
    Ok(format!("{line}{comma}{options} {public}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crate::classic::temporary::*;

    /// Dropbear and old versions of OpenSSH ignored the whole line for one option that they do not know.
    #[test]
    fn the_line_of_a_temporary_key_has_only_options_that_its_sshd_knows() {
        let old = "no-agent-forwarding,no-X11-forwarding,no-user-rc";
        let new = "restrict,port-forwarding,pty";
        let opens = r#",PermitOpen="localhost:2222""#;
        for (sshd, options, limits, expires) in [
            (None, "", old, false),
            (Some(SshServer::Other), "no-pty", old, false),
            (Some(SshServer::OpenSsh(6, 10)), "", old, false),
            (Some(SshServer::OpenSsh(7, 1)), "", old, false),
            (Some(SshServer::OpenSsh(7, 2)), "", new, false),
            (Some(SshServer::OpenSsh(7, 6)), "pty", new, false),
            (Some(SshServer::OpenSsh(7, 7)), "", new, true),
            (Some(SshServer::OpenSsh(10, 0)), "pty", new, true),
            (
                Some(SshServer::Dropbear(2022, 83)),
                "",
                "no-agent-forwarding,no-X11-forwarding",
                false,
            ),
        ] {
            let line = line(2222, sshd, options, "ssh-ed25519 AAAA").unwrap();
            let begin = format!("{COMMAND},{limits}{opens}");
            let rest = line
                .strip_prefix(&begin)
                .unwrap_or_else(|| panic!("{line}"));
            let rest = match rest.strip_prefix(",expiry-time=\"20") {
                Some(rest) if expires => &rest[7..],
                _ => rest,
            };
            let comma = if options.is_empty() { "" } else { "," };
            assert_eq!(rest, format!("{comma}{options} ssh-ed25519 AAAA"), "{line}");
        }
    }

    #[test]
    fn a_key_that_would_open_more_than_the_sshd_is_not_let_in() {
        let old = line(
            22,
            Some(SshServer::Dropbear(2020, 81)),
            "",
            "ssh-ed25519 AAAA",
        );
        assert!(old.unwrap_err().to_string().contains("2020.81"));
    }
}
