//! What a process listens on, and how connections do. The kernel is asked for one connection; where it cannot be, and for
//! what listens, its tables are read, which are as long as the machine has sockets.

use std::{
    collections::{HashMap, HashSet},
    fs,
    io::{self, BufRead, BufReader},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::Duration,
};

#[cfg(target_os = "linux")]
mod asked;
#[cfg(target_os = "linux")]
pub use asked::Kernel;

/// No other system has one that can be asked.
#[cfg(not(target_os = "linux"))]
#[derive(Debug)]
pub enum Kernel {}

#[cfg(not(target_os = "linux"))]
impl Kernel {
    /// Never.
    pub fn open() -> Option<Self> {
        None
    }

    /// Of nobody.
    pub fn course(&mut self, _own: SocketAddr, _peer: SocketAddr) -> Option<Course> {
        match *self {}
    }
}

/// This machine's own address: 127.0.0.1, and where that leads nowhere but `::1` does, that.
pub fn loopback() -> IpAddr {
    let [v4, v6] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    if leads_here(v6) && !leads_here(v4) {
        v6
    } else {
        v4
    }
}

/// Whether this address of the machine can be reached. Where the loopback interface is down, 127.0.0.1 can be listened on.
pub fn leads_here(own: IpAddr) -> bool {
    let socket = UdpSocket::bind((own, 0));
    socket.is_ok_and(|socket| socket.connect((own, ANY_PORT)).is_ok())
}

/// Nothing is sent there.
const ANY_PORT: u16 = 9;

/// A connection can be missed in a table that changes while it is read.
const LOOKS: usize = 3;

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

/// How a TCP connection of this machine does, as the kernel says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Course {
    /// Bytes that the peer has not acknowledged yet.
    pub outstanding: u64,
    /// When these are sent again, if nothing comes before.
    pub due: Option<Duration>,
    /// How long is waited between the latest two times; twice as long next.
    pub pause: Duration,
    /// How often something was sent, again or as a probe, without an answer.
    pub in_vain: u64,
    /// The user whose process made it; `None` when that is not known any more, because it has been closed.
    pub owner: Option<u32>,
}

/// How the table names a connection.
pub fn name_of(own: SocketAddr, peer: SocketAddr) -> String {
    [own, peer]
        .map(|at| format!("{}:{:04X}", hex(at.ip()), at.port()))
        .join(" ")
}

/// Words of 32 bits, as this machine holds them in memory.
fn hex(ip: IpAddr) -> String {
    let bytes = match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let words = bytes
        .as_chunks::<4>()
        .0
        .iter()
        .map(|word| u32::from_ne_bytes(*word));
    words.map(|word| format!("{word:08X}")).collect()
}

/// All connections of this machine, with their names, and how many there were. None where the system keeps no such tables.
pub fn each_course(mut see: impl FnMut(&str, Course)) -> u32 {
    let mut count = 0;
    for table in ["tcp", "tcp6"] {
        let Ok(file) = fs::File::open(format!("/proc/self/net/{table}")) else {
            continue;
        };
        // Line by line: a large server's table has megabytes.
        let mut lines = BufReader::new(file);
        let mut line = String::new();
        while lines.read_line(&mut line).is_ok_and(|got| got > 0) {
            if let Some((name, course)) = course(&line) {
                see(name, course);
                count += 1;
            }
            line.clear();
        }
    }
    count
}

/// Who has the other ends of these connections, which are on this machine as well: for each its own address and its peer's.
pub fn owners_of_peers(connections: &[(SocketAddr, SocketAddr)]) -> Vec<Option<u32>> {
    let Some(mut kernel) = Kernel::open() else {
        return owners_in_tables(connections);
    };
    let ends = connections.iter();
    ends.map(|(own, peer)| kernel.course(*peer, *own)?.owner)
        .collect()
}

/// One look at the tables for all of them, and more for those that were missed.
fn owners_in_tables(connections: &[(SocketAddr, SocketAddr)]) -> Vec<Option<u32>> {
    let mut seen = vec![None; connections.len()];
    let mut wanted = HashMap::new();
    for (at, (own, peer)) in connections.iter().enumerate() {
        // A peer's socket may be one for both families.
        for as_seen in [SocketAddr::to_owned, mapped] {
            wanted.insert(name_of(as_seen(peer), as_seen(own)), at);
        }
    }
    for _ in 0..LOOKS {
        each_course(|name, course| {
            if let Some(at) = wanted.get(name) {
                seen[*at] = Some(course.owner);
            }
        });
        if seen.iter().all(Option::is_some) {
            break;
        }
    }
    seen.into_iter().map(Option::flatten).collect()
}

/// The users who listen on this port of `127.0.0.1` and of `::1`, where the system says so.
pub fn listeners_of_localhost(port: u16) -> [Option<u32>; 2] {
    let own: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    let own = own.map(|ip| SocketAddr::new(ip, port));
    match Kernel::open() {
        Some(mut kernel) => own.map(|at| kernel.listener(at)),
        None => listeners_in_tables(own),
    }
}

fn listeners_in_tables(own: [SocketAddr; 2]) -> [Option<u32>; 2] {
    let any: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    let name = |at: SocketAddr, family: usize| name_of(at, SocketAddr::new(any[family], 0));
    let all = |family: usize| SocketAddr::new(any[family], own[family].port());
    let names = [0, 1].map(|family| [name(all(family), family), name(own[family], family)]);
    // Whoever listens at the address itself gets what comes there.
    let mut found = [[None; 2]; 2];
    each_course(|seen, course| {
        for (names, found) in names.iter().zip(&mut found) {
            if let Some(at) = names.iter().position(|name| name == seen) {
                found[at] = course.owner;
            }
        }
    });
    found.map(|[any, own]| own.or(any))
}

/// As a socket for both families has it.
fn mapped(at: &SocketAddr) -> SocketAddr {
    let ip = match at.ip() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().into(),
        v6 => v6.to_canonical(),
    };
    SocketAddr::new(ip, at.port())
}

/// One line of the table: which connection, and how it does.
fn course(line: &str) -> Option<(&str, Course)> {
    /// Of a table's numbers in a second (USER_HZ).
    const TICKS: u64 = 100;
    /// The kernel waits to send again.
    const AGAIN: &str = "01";
    let (_, rest) = line.split_once(": ")?;
    let end = rest.match_indices(' ').nth(1)?.0;
    let (name, rest) = rest.split_at(end);
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let number = |text: &str| u64::from_str_radix(text, 16).ok();
    let ticks = |count: u64| Duration::from_millis(count * 1000 / TICKS);
    let (timer, due) = fields.get(2)?.split_once(':')?;
    let pause: u64 = fields.get(9).map_or(Ok(0), |pause| pause.parse()).ok()?;
    let (again, probes) = (number(fields.get(3)?)?, fields.get(5)?.parse().ok()?);
    let (uid, inode) = (fields.get(4)?.parse().ok()?, fields.get(6)?);
    let course = Course {
        owner: (*inode != "0").then_some(uid),
        outstanding: number(fields.get(1)?.split_once(':')?.0)?,
        due: (timer == AGAIN).then_some(ticks(number(due)?)),
        pause: ticks(pause),
        in_vain: again.max(probes),
    };
    Some((name, course))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{
        net::TcpListener,
        time::{Duration, Instant},
    };

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
    fn who_listens_at_localhost_is_asked_for_and_read_with_the_same_answer() {
        let me = Some(rustix::process::geteuid().as_raw());
        for (bound, mine) in [("127.0.0.1:0", 0), ("0.0.0.0:0", 0), ("[::1]:0", 1)] {
            let Ok(listener) = TcpListener::bind(bound) else {
                continue; // no IPv6 here
            };
            let port = listener.local_addr().unwrap().port();
            let own = ["127.0.0.1", "::1"].map(|ip| SocketAddr::new(ip.parse().unwrap(), port));
            assert_eq!(listeners_in_tables(own)[mine], me, "{bound}");
            if let Some(mut kernel) = Kernel::open() {
                assert_eq!(kernel.listener(own[mine]), me, "{bound}");
            }
        }
    }

    #[test]
    fn a_process_that_is_not_there_is_an_error() {
        assert!(listening_ports(u32::MAX).is_err());
    }

    #[test]
    fn a_line_of_the_table_is_read() {
        let said = |line| course(line).map(|(name, course)| (name.to_owned(), course));
        let name = "0100007F:1F90 0200007F:01BB";
        let sent = format!(
            "  1: {name} 01 00000010:00000000 01:0000007B 0000000A  1000        0 31 2 0 640 4 30 1 2"
        );
        let course = Course {
            outstanding: 16,
            due: Some(Duration::from_millis(1230)),
            pause: Duration::from_millis(6400),
            in_vain: 10,
            owner: Some(1000),
        };
        assert_eq!(said(&sent), Some((name.to_owned(), course)));
        let probed = format!(
            "  1: {name} 01 00000000:00000000 02:000002D0 00000000     0        2 0 2 0 20 4 30 1 2"
        );
        let course = Course {
            pause: Duration::from_millis(200),
            in_vain: 2,
            ..Course::default()
        };
        assert_eq!(said(&probed), Some((name.to_owned(), course)));
        for line in [
            "",
            "  sl  local_address rem_address   st",
            "  1: x y",
            "  1: x y 01 z",
        ] {
            assert_eq!(said(line), None, "{line}");
        }
    }

    #[test]
    fn a_connection_of_ours_is_found_by_name() {
        for ip in ["127.0.0.1", "::1"] {
            let Ok(listener) = TcpListener::bind((ip, 0)) else {
                continue; // no IPv6 here
            };
            let tcp = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let name = name_of(tcp.local_addr().unwrap(), tcp.peer_addr().unwrap());
            let mut found = None;
            each_course(|one, course| {
                if one == name {
                    found = Some(course.in_vain);
                }
            });
            assert_eq!(found, Some(0), "{name}");
        }
    }

    #[test]
    fn the_owner_of_the_other_end_is_known_whatever_family_its_socket_has() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let mut kept = Vec::new();
        let mut connections = Vec::new();
        for to in [at, mapped(&at)] {
            let Ok(tcp) = std::net::TcpStream::connect(to) else {
                continue; // no IPv6 here
            };
            let (_, peer) = listener
                .accept()
                .map(|(tcp, peer)| (kept.push(tcp), peer))
                .unwrap();
            connections.push((at, peer));
            kept.push(tcp);
        }
        let me = rustix::process::geteuid().as_raw();
        for owners_of in [owners_of_peers, owners_in_tables] {
            let owners = owners_of(&connections);
            assert!(owners.iter().all(|owner| *owner == Some(me)), "{owners:?}");
        }
        // Both ends are closed, which takes the kernel a moment; there never was one.
        drop(kept);
        for owners_of in [owners_of_peers, owners_in_tables] {
            let until = Instant::now() + Duration::from_secs(10);
            while owners_of(&[connections[0], (at, at)]) != [None, None] {
                assert!(Instant::now() < until, "{connections:?}");
                std::thread::yield_now();
            }
        }
    }
}
