//! The line of `authorized_keys` that lets a key in for one session.
//!
//! ```text
//!   command="echo …;sleep 20"      nothing is run but this: the connection is for forwarding
//!   no-…                           no agent, no X11, no file of the user's
//!   PermitOpen="localhost:22"      and only to the sshd here
//!   expiry-time="20261130"         where sshd knows that: a line that a crash leaves behind dies by itself
//! ```
//!
//! Source: noports:packages/sshnoports/lib/sshnp/sshnp_impl.dart at v3.4.2 and
//! noports:packages/dart/noports_core/lib/src/sshnpd/sshnpd_impl.dart (the command, the limits, the 20 s).

use std::{
    io::Read,
    net::TcpStream,
    time::{Duration, Instant, SystemTime},
};

use async_std::task;

use crate::{
    net::dial::resolve,
    text::{calendar::utc, endpoint::Endpoint},
};

/// Known to every sshd that is still about.
const MAY: &str = r#"command="echo \"ssh session complete\";sleep 20",no-agent-forwarding,no-X11-forwarding,no-user-rc"#;
/// The day on which a line expires begins so long after it was written: at the beginning of a day in a time zone that we
/// do not know, so later than any session lasts and sooner than three days.
const EXPIRES_AFTER: Duration = Duration::from_secs(48 * 3600);
/// The first OpenSSH with expiry times, (major, minor). An older one refuses a whole line with an option that it does not
/// know.
const KNOWS_EXPIRY: (u32, u32) = (7, 7);
/// Longest wait for sshd to say what it is, however slowly it speaks.
const GREETING: Duration = Duration::from_secs(2);
/// Longest greeting that is looked at, in bytes.
const MAX_GREETING: usize = 255;
/// A wait of nothing would be one for ever.
const SHORTEST: Duration = Duration::from_millis(1);

/// `options type key`: let in for forwarding to the sshd on `port`, and for nothing else.
pub(super) fn line(port: u16, expiry: Option<SystemTime>, options: &str, public: &str) -> String {
    let expiry = expiry.map_or(String::new(), |day| {
        let digits: String = utc(day).chars().filter(char::is_ascii_digit).collect();
        format!(r#",expiry-time="{}""#, digits.get(..8).unwrap_or_default())
    });
    let comma = if options.is_empty() { "" } else { "," };
    format!(r#"{MAY},PermitOpen="localhost:{port}"{expiry}{comma}{options} {public}"#)
}

/// The day on which a line of now ends by itself.
pub(super) fn expiry() -> SystemTime {
    SystemTime::now() + EXPIRES_AFTER
}

/// Whether this sshd knows expiry times, by its greeting; `None` if there is none. Blocks.
pub(super) fn sshd_knows_expiry(sshd: &Endpoint) -> Option<bool> {
    greeting(sshd).map(|greeting| knows_expiry(&greeting))
}

/// How the sshd there greets, `SSH-2.0-OpenSSH_9.2p1 …`; nothing if it is silent or not there.
fn greeting(sshd: &Endpoint) -> Option<String> {
    let found = task::block_on(resolve(sshd)).ok()?;
    let dial = |at| TcpStream::connect_timeout(at, GREETING).ok();
    let mut tcp = found.iter().find_map(dial)?;
    let until = Instant::now() + GREETING;
    let (mut text, mut chunk) = (Vec::new(), [0; 64]);
    while text.len() < MAX_GREETING && !text.contains(&b'\n') {
        let left = until.checked_duration_since(Instant::now())?;
        tcp.set_read_timeout(Some(left.max(SHORTEST))).ok()?;
        match tcp.read(&mut chunk).ok()? {
            0 => break,
            got => text.extend_from_slice(&chunk[..got]),
        }
    }
    String::from_utf8(text).ok()
}

fn knows_expiry(greeting: &str) -> bool {
    let Some(version) = greeting.strip_prefix("SSH-2.0-OpenSSH_") else {
        return false;
    };
    let mut numbers = version.split(|c: char| !c.is_ascii_digit());
    let mut number = || numbers.next().and_then(|text| text.parse::<u32>().ok());
    matches!((number(), number()), (Some(major), Some(minor)) if (major, minor) >= KNOWS_EXPIRY)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{io::Write, net::TcpListener, thread};

    use crate::classic::temporary::*;

    #[test]
    fn the_line_of_a_temporary_key_is_pinned() {
        let may = r#"command="echo \"ssh session complete\";sleep 20",no-agent-forwarding,no-X11-forwarding,no-user-rc"#;
        let day = Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_910_400));
        for (expiry, options, want) in [
            (None, "", ""),
            (None, "no-pty", ",no-pty"),
            (day, "", r#",expiry-time="20261129""#),
            (day, "no-pty", r#",expiry-time="20261129",no-pty"#),
        ] {
            assert_eq!(
                line(2222, expiry, options, "ssh-ed25519 AAAA"),
                format!(r#"{may},PermitOpen="localhost:2222"{want} ssh-ed25519 AAAA"#)
            );
        }
    }

    #[test]
    fn a_line_expires_by_itself_where_sshd_knows_that() {
        for (greeting, knows) in [
            ("SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3", true),
            ("SSH-2.0-OpenSSH_10.0", true),
            ("SSH-2.0-OpenSSH_7.7", true),
            ("SSH-2.0-OpenSSH_7.6p1", false),
            ("SSH-2.0-OpenSSH_6.10", false),
            ("SSH-2.0-OpenSSH_for_Windows_9.5", false),
            ("SSH-2.0-OpenSSH_", false),
            ("SSH-2.0-OpenSSH_99999999999.1", false),
            ("SSH-2.0-dropbear_2024.86", false),
            ("HTTP/1.1 400 Bad Request", false),
            ("", false),
        ] {
            assert_eq!(knows_expiry(greeting), knows, "{greeting:?}");
        }
    }

    #[test]
    fn whoever_greets_strangely_or_not_at_all_gets_a_line_without_expiry() {
        let own = ["127.0.0.1:0", "[::1]:0"].map(TcpListener::bind);
        for (said, knows) in [
            (&b"SSH-2.0-OpenSSH_9.9\r\n"[..], Some(true)),
            (b"SSH-2.0-OpenSSH_7.4\r\n", Some(false)),
            (b"\xff\xfe\n", None),
            (b"", Some(false)),
            (&[b'x'; 1000], Some(false)),
        ] {
            // One that listens on one of the two only, where there is IPv6.
            for listener in own.iter().flatten() {
                let port = listener.local_addr().unwrap().port();
                let sshd = Endpoint::parse("localhost", Some(port)).unwrap();
                thread::scope(|scope| {
                    scope.spawn(|| {
                        let (mut tcp, _) = listener.accept().unwrap();
                        let _ = tcp.write_all(said);
                    });
                    assert_eq!(sshd_knows_expiry(&sshd), knows, "{said:?}");
                });
            }
        }
    }
}
