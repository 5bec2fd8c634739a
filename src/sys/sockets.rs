//! What a process listens on, and whether a peer still answers, read from the kernel's tables.

use std::{collections::HashSet, fs, io, time::Duration};

use async_std::net::TcpStream;

/// TCP ports on which a process listens, on any address, in ascending order.
///
/// # Errors
/// When the process has ended, or belongs to somebody else, or the system keeps no such tables.
pub fn listening_ports(pid: u32) -> io::Result<Vec<u16>> {
    let mut own = HashSet::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        // A descriptor may be closed while we look.
        let Ok(target) = fs::read_link(entry?.path()) else {
            continue;
        };
        let target = target.to_string_lossy().into_owned();
        if let Some(inode) = target
            .strip_prefix("socket:[")
            .and_then(|rest| rest.strip_suffix(']'))
        {
            own.insert(inode.to_owned());
        }
    }
    let mut ports: Vec<u16> = Vec::new();
    for table in ["tcp", "tcp6"] {
        // A machine without IPv6 has no second table.
        let text = fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
        ports.extend(
            text.lines()
                .skip(1)
                .filter_map(listener)
                .filter(|(_, inode)| own.contains(*inode))
                .map(|l| l.0),
        );
    }
    ports.sort_unstable();
    ports.dedup();
    Ok(ports)
}

/// (port, inode) of a line of the kernel's table, if it is a listener.
fn listener(line: &str) -> Option<(u16, &str)> {
    const LISTEN: &str = "0A";
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
    let port = u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()?;
    (*state == LISTEN).then_some((port, inode))
}

/// How often it is looked whether a peer still answers.
pub const LOOK: Duration = Duration::from_secs(5);
/// So many probes or repetitions without an answer are told: one may be lost.
const LOST: u64 = 2;

/// Whether the peer of this connection has left two probes, or two repetitions of what was sent, without an answer.
/// `false` where the system keeps no such tables.
pub fn unanswered(tcp: &TcpStream) -> bool {
    let (Ok(own), Ok(peer)) = (tcp.local_addr(), tcp.peer_addr()) else {
        return false;
    };
    let table = if own.is_ipv4() { "tcp" } else { "tcp6" };
    let text = fs::read_to_string(format!("/proc/self/net/{table}")).unwrap_or_default();
    let ports = (own.port(), peer.port());
    let lost = |line| lost(line, ports);
    text.lines()
        .skip(1)
        .filter_map(lost)
        .any(|lost| lost >= LOST)
}

/// How much a connection between these ports has in vain sent again.
fn lost(line: &str, (own, peer): (u16, u16)) -> Option<u64> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let port = |at: usize| u16::from_str_radix(fields.get(at)?.rsplit_once(':')?.1, 16).ok();
    if (port(1)?, port(2)?) != (own, peer) {
        return None;
    }
    let again = u64::from_str_radix(fields.get(6)?, 16).ok()?;
    let probes: u64 = fields.get(8)?.parse().ok()?;
    Some(again.max(probes))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn listeners_are_seen_and_connections_are_not() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let out = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        let ports = listening_ports(std::process::id()).unwrap();
        assert!(
            ports.contains(&port) && !ports.contains(&out.local_addr().unwrap().port()),
            "{ports:?}"
        );
        drop(listener);
        assert!(!listening_ports(std::process::id()).unwrap().contains(&port));
    }

    #[test]
    fn a_process_that_is_not_there_is_an_error() {
        assert!(listening_ports(u32::MAX).is_err());
    }

    #[test]
    fn two_lost_probes_or_repetitions_are_told_and_not_those_of_others() {
        let line = |again, probes| {
            format!(
                "  1: 0100007F:1F90 0200007F:01BB 01 00000000:00000000 02:000002D0 {again} 0 {probes} 7 2 x"
            )
        };
        for (line, ports, want) in [
            (line("00000000", 0), (8080, 443), Some(0)),
            (line("0000000a", 0), (8080, 443), Some(10)),
            (line("00000000", 2), (8080, 443), Some(2)),
            (line("00000000", 2), (8080, 444), None),
            ("sl local_address".to_owned(), (8080, 443), None),
        ] {
            assert_eq!(lost(&line, ports), want, "{line}");
        }
    }
}
