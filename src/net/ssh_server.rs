//! What an ssh server of this machine says it is: its greeting, `SSH-2.0-OpenSSH_9.2p1 …`.

use std::{
    io::Read,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use async_std::task;
use socket2::{Domain, Socket, Type};

use super::dial::resolve;
use crate::text::endpoint::Endpoint;

/// Longest wait for it, however slowly it comes.
const WITHIN: Duration = Duration::from_secs(2);
/// Longest greeting that is looked at, in bytes.
const MAX_GREETING: usize = 255;
/// A wait of nothing would be one for ever.
const SHORTEST: Duration = Duration::from_millis(1);
/// What stands in the place of a greeting for an address that is shut out.
const SHUT_OUT: &str = "Not allowed at this time";
/// (major, minor), of the first OpenSSH that shuts out addresses for failed logins.
const PENALTIES: (u32, u32) = (9, 8);

/// A server, with its version: (major, minor), of dropbear (year, number).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum SshServer {
    OpenSsh(u32, u32),
    Dropbear(u32, u32),
    /// One that says something else.
    Other,
}

impl SshServer {
    /// By its greeting.
    pub fn parse(greeting: &str) -> Self {
        let version = |name: &str| {
            let version = greeting.strip_prefix("SSH-2.0-")?.strip_prefix(name)?;
            let mut numbers = version.split(|c: char| !c.is_ascii_digit());
            let mut number = || numbers.next()?.parse::<u32>().ok();
            Some((number()?, number()?))
        };
        match (version("OpenSSH_"), version("dropbear_")) {
            (Some((major, minor)), _) => Self::OpenSsh(major, minor),
            (_, Some((year, number))) => Self::Dropbear(year, number),
            _ if greeting.starts_with(SHUT_OUT) => Self::OpenSsh(PENALTIES.0, PENALTIES.1),
            _ => Self::Other,
        }
    }

    /// Whether it shuts out addresses from which logins fail.
    pub fn has_penalties(self) -> bool {
        matches!(self, Self::OpenSsh(major, minor) if (major, minor) >= PENALTIES)
    }

    /// The server at this place, and at which address it is; `None` if it is not there. One at 127.0.0.1 is asked `from`
    /// another address than its clients' where that can be, so that it does not mix us up. Blocks.
    pub fn ask(sshd: &Endpoint, from: Option<Ipv4Addr>) -> Option<(Self, IpAddr)> {
        let found = task::block_on(resolve(sshd)).ok()?;
        found.into_iter().find_map(|at| {
            let tcp = connect(at, from)?;
            Some((Self::parse(&greeting(tcp).unwrap_or_default()), at.ip()))
        })
    }
}

fn connect(at: SocketAddr, from: Option<Ipv4Addr>) -> Option<TcpStream> {
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, None).ok()?;
    if let (true, Some(from)) = (at.ip() == Ipv4Addr::LOCALHOST, from) {
        let _ = socket.bind(&SocketAddr::from((from, 0)).into());
    }
    socket.connect_timeout(&at.into(), WITHIN).ok()?;
    Some(socket.into())
}

fn greeting(mut tcp: TcpStream) -> Option<String> {
    let until = Instant::now() + WITHIN;
    let (mut text, mut chunk) = (Vec::new(), [0; 64]);
    while text.len() < MAX_GREETING && !text.contains(&b'\n') {
        let left = until.checked_duration_since(Instant::now())?;
        tcp.set_read_timeout(Some(left.max(SHORTEST))).ok()?;
        match tcp.read(&mut chunk).ok()? {
            0 => break,
            got => text.extend_from_slice(&chunk[..got]),
        }
    }
    // Dropbear goes on at once, with what is no text.
    let line = text.split(|byte| *byte == b'\n').next()?;
    String::from_utf8(line.to_owned()).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{io::Write, net::TcpListener, thread};

    use super::*;

    #[test]
    fn servers_are_known_by_their_greetings() {
        for (greeting, want) in [
            (
                "SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3",
                SshServer::OpenSsh(9, 2),
            ),
            ("SSH-2.0-OpenSSH_10.0", SshServer::OpenSsh(10, 0)),
            ("SSH-2.0-OpenSSH_7.6p1", SshServer::OpenSsh(7, 6)),
            ("SSH-2.0-OpenSSH_6.10", SshServer::OpenSsh(6, 10)),
            ("SSH-2.0-OpenSSH_for_Windows_9.5", SshServer::Other),
            ("SSH-2.0-OpenSSH_", SshServer::Other),
            ("SSH-2.0-OpenSSH_99999999999.1", SshServer::Other),
            ("SSH-2.0-dropbear_2022.83", SshServer::Dropbear(2022, 83)),
            ("SSH-2.0-dropbear", SshServer::Other),
            ("Not allowed at this time\r\n", SshServer::OpenSsh(9, 8)),
            ("HTTP/1.1 400 Bad Request", SshServer::Other),
            ("", SshServer::Other),
        ] {
            let server = SshServer::parse(greeting);
            assert_eq!(server, want, "{greeting:?}");
            let counts = matches!(want, SshServer::OpenSsh(9..=10, 0 | 8));
            assert_eq!(server.has_penalties(), counts, "{greeting:?}");
        }
    }

    #[test]
    fn whoever_greets_strangely_or_not_at_all_is_no_known_server() {
        let source = Ipv4Addr::new(127, 3, 2, 1);
        for (said, want) in [
            (&b"SSH-2.0-OpenSSH_9.9\r\n"[..], SshServer::OpenSsh(9, 9)),
            (
                b"SSH-2.0-dropbear_2022.83\r\n\x00\x00\x01\xcc\x05\x14\xff",
                SshServer::Dropbear(2022, 83),
            ),
            (b"\xff\xfe\n", SshServer::Other),
            (b"", SshServer::Other),
            (&[b'x'; 1000], SshServer::Other),
        ] {
            for listener in ["127.0.0.1:0", "[::1]:0"]
                .map(TcpListener::bind)
                .into_iter()
                .flatten()
            {
                let at = listener.local_addr().unwrap();
                let sshd = Endpoint::parse(&at.to_string(), None).unwrap();
                let speaking = thread::spawn(move || {
                    let (mut tcp, from) = listener.accept().unwrap();
                    let _ = tcp.write_all(said);
                    from.ip()
                });
                let heard = SshServer::ask(&sshd, Some(source));
                assert_eq!(heard, Some((want, at.ip())), "{said:?}");
                let from = speaking.join().unwrap();
                let is_ours = cfg!(target_os = "linux") && at.is_ipv4();
                assert_eq!(from == IpAddr::from(source), is_ours);
            }
        }
    }
}
