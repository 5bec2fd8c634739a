//! What a process listens on, read from the kernel's tables.

use std::{collections::HashSet, fs, io};

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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn listeners_are_seen_and_connections_are_not() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let out = TcpStream::connect(("127.0.0.1", port)).unwrap();
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
}
