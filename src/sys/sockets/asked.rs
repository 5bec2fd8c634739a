//! One TCP connection, asked of the kernel by its two ends: that costs the same however many others there are.
//!
//! ```text
//!   asked     header 16 │ inet_diag_req_v2 56: family, protocol, what is to be told, both ends
//!   answered  header 16 │ inet_diag_msg 72: state, timer, both ends, queues, user, inode │ attributes: tcp_info
//!             header 16 │ error 4 …: there is none
//! ```
//! The kernel answers while it is asked, so nobody waits. See sock_diag(7). A kernel without it, and a sandbox around us
//! that keeps it away, leave the tables.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::OwnedFd,
    sync::OnceLock,
    time::Duration,
};

use rustix::{
    io::Errno,
    net::{
        AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType,
        netlink::{self, SocketAddrNetlink},
        recv, sendto, socket_with,
    },
    system::uname,
};

use super::Course;

/// The kernel, which is asked.
#[derive(Debug)]
pub struct Kernel {
    socket: OwnedFd,
    /// Of the latest question.
    number: u32,
}

/// Room for an answer: 116 bytes and a `tcp_info` that grows with the kernel, of 280 bytes by now.
const ANSWER: usize = 2048;
const HEADER: usize = 16;
/// Of a message behind its header, where the attributes begin.
const ATTRIBUTES: usize = 72;

/// Kinds of messages.
const DONE: u16 = 3;
const BY_FAMILY: u16 = 20;

/// What is wanted of the kernel: an answer; all that there are.
const REQUEST: u16 = 0x001;
const ALL: u16 = 0x300;

const TCP: u8 = 6;
/// The attribute with a `tcp_info`, and how it is asked for.
const INFO: u16 = 2;
const WITH_INFO: u8 = 1 << (INFO - 1);
const LISTENS: u8 = 10;
/// In place of a number that only the kernel knows.
const ANY: [u8; 8] = [0xff; 8];

/// Timers: to send again, and to forget what has ended.
const AGAIN: u8 = 1;
const FORGET: u8 = 3;

impl Kernel {
    /// `None` where it cannot be asked.
    pub fn open() -> Option<Self> {
        static ANSWERS: OnceLock<bool> = OnceLock::new();
        let mut kernel = Self::connect()?;
        if !ANSWERS.get_or_init(|| kernel.answers()) {
            return None;
        }
        Some(kernel)
    }

    fn connect() -> Option<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let kind = Some(netlink::SOCK_DIAG);
        let socket = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, kind);
        let socket = socket.ok()?;
        Some(Self { socket, number: 0 })
    }

    /// Whether it knows of TCP: asked for all connections in none of the states, it says that these were all.
    fn answers(&mut self) -> bool {
        let nowhere = SocketAddr::from(([0; 4], 0));
        let none = question(nowhere, nowhere, 0);
        let answer = self.ask(REQUEST | ALL, &none);
        answer.is_some_and(|(kind, said)| kind == DONE && word(&said, 0).is_none_or(|e| e == 0))
    }

    /// How the connection with these ends does, if there is one.
    pub fn course(&mut self, own: SocketAddr, peer: SocketAddr) -> Option<Course> {
        let (kind, said) = self.ask(REQUEST, &question(own, peer, u32::MAX))?;
        if kind == BY_FAMILY {
            course(&said)
        } else {
            None
        }
    }

    /// Who listens where a connection to this address would come, whether at the address itself or at all.
    pub fn listener(&mut self, at: SocketAddr) -> Option<u32> {
        let nobody = SocketAddr::new(unspecified(at.ip()), 0);
        let (kind, said) = self.ask(REQUEST, &question(at, nobody, u32::MAX))?;
        let listens = kind == BY_FAMILY && said.get(1) == Some(&LISTENS);
        word(&said, 64).filter(|_| listens)
    }

    /// The kind of the answer, and what is behind its header.
    fn ask(&mut self, flags: u16, question: &[u8]) -> Option<(u16, Vec<u8>)> {
        self.number = self.number.wrapping_add(1);
        let length = (HEADER + question.len()) as u32;
        let mut message = length.to_ne_bytes().to_vec();
        message.extend(BY_FAMILY.to_ne_bytes());
        message.extend(flags.to_ne_bytes());
        message.extend(self.number.to_ne_bytes());
        message.extend(0_u32.to_ne_bytes());
        message.extend(question);
        let kernel = SocketAddrNetlink::new(0, 0);
        sendto(&self.socket, &message, SendFlags::empty(), &kernel).ok()?;
        let mut answer = [0; ANSWER];
        loop {
            let got = match recv(&self.socket, &mut answer, RecvFlags::empty()) {
                Ok((got, _)) => got,
                Err(Errno::INTR) => continue,
                Err(_) => return None,
            };
            let answer = &answer[..got];
            // Another one is the end of what was asked before.
            if word(answer, 8) == Some(self.number) {
                let end = word(answer, 0)? as usize;
                let said = answer.get(HEADER..end)?;
                return Some((half(answer, 4)?, said.to_vec()));
            }
        }
    }
}

fn unspecified(like: IpAddr) -> IpAddr {
    if like.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    }
}

/// For a connection in one of these states.
fn question(own: SocketAddr, peer: SocketAddr, states: u32) -> Vec<u8> {
    // The kernel finds a socket for both families by its IPv4 addresses.
    let ends = [own, peer].map(|end| (end.ip().to_canonical(), end.port()));
    let family = if ends[0].0.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    // The interface, where addresses are those of one wire.
    let interface = match own {
        SocketAddr::V6(own) => own.scope_id(),
        SocketAddr::V4(_) => 0,
    };
    let mut question = vec![family.as_raw() as u8, TCP, WITH_INFO, 0];
    question.extend(states.to_ne_bytes());
    question.extend(ends.iter().flat_map(|(_, port)| port.to_be_bytes()));
    question.extend(ends.iter().flat_map(|(ip, _)| sixteen(*ip)));
    question.extend(interface.to_ne_bytes());
    question.extend(ANY);
    question
}

/// An address in its field.
fn sixteen(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(v4) => {
            let mut field = [0; 16];
            field[..4].copy_from_slice(&v4.octets());
            field
        }
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// What the kernel said of a connection; nothing of a port on which somebody listens.
fn course(said: &[u8]) -> Option<Course> {
    let (state, timer) = (*said.get(1)?, *said.get(2)?);
    if state == LISTENS {
        return None;
    }
    let millis = |at| word(said, at).map(|count| Duration::from_millis(count.into()));
    let (expires, queued) = (millis(52)?, word(said, 60)?);
    let (uid, inode) = (word(said, 64)?, word(said, 68)?);
    let info = info(said).unwrap_or_default();
    let count = |at| info.get(at).copied().map_or(0, u64::from);
    Some(Course {
        outstanding: queued.into(),
        due: (timer == AGAIN).then_some(expires),
        pause: Duration::from_micros(word(info, 8).unwrap_or(0).into()),
        in_vain: count(2).max(count(3)),
        owner: owner(uid, inode, timer),
    })
}

/// The `tcp_info` of an answer. What has ended has none.
fn info(said: &[u8]) -> Option<&[u8]> {
    const NAME: usize = 4;
    let mut rest = said.get(ATTRIBUTES..)?;
    loop {
        let (length, kind) = (usize::from(half(rest, 0)?), half(rest, 2)?);
        let value = rest.get(NAME..length)?;
        if kind == INFO {
            return Some(value);
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
}

/// Whose it is. No process has it any more, without an inode; the kernel remembers whose it was until the other end has
/// heard of that, and before Linux 6.17 it says 0 at once.
fn owner(uid: u32, inode: u32, timer: u8) -> Option<u32> {
    let is_known = inode != 0 || (timer != FORGET && (uid != 0 || closed_are_known()));
    is_known.then_some(uid)
}

fn closed_are_known() -> bool {
    is_since_6_17(&uname().release().to_string_lossy())
}

fn is_since_6_17(release: &str) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut number = || numbers.next()?.parse::<u32>().ok();
    (number(), number()) >= (Some(6), Some(17))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let field = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*field))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    let field = bytes.get(at..)?.first_chunk()?;
    Some(u16::from_ne_bytes(*field))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{
        io::Write,
        net::{TcpListener, TcpStream},
        time::Instant,
    };

    use super::*;
    use crate::sys::sockets::{each_course, name_of};

    /// A connection at this address, and the listener's end of it.
    fn pair(ip: &str) -> Option<(TcpStream, TcpStream, SocketAddr)> {
        let listener = TcpListener::bind((ip, 0)).ok()?; // or no IPv6 here
        let at = listener.local_addr().unwrap();
        let tcp = TcpStream::connect(at).unwrap();
        Some((tcp, listener.accept().unwrap().0, at))
    }

    #[test]
    fn the_kernel_says_of_one_connection_what_its_table_says() {
        let Some(mut kernel) = Kernel::open() else {
            return; // this kernel, or the sandbox around us, has only tables
        };
        for ip in ["127.0.0.1", "::1"] {
            let Some((mut tcp, peer, at)) = pair(ip) else {
                continue;
            };
            let own = tcp.local_addr().unwrap();
            let rests = kernel.course(own, at).unwrap();
            let me = rustix::process::geteuid().as_raw();
            assert_eq!((rests.outstanding, rests.owner), (0, Some(me)));
            // As much as nobody reads: what is left stays unanswered.
            tcp.set_nonblocking(true).unwrap();
            while tcp.write(&[0; 65536]).is_ok() {}
            let mut both = || {
                let asked = kernel.course(own, at).unwrap();
                let mut read = None;
                each_course(|name, course| {
                    if name == name_of(own, at) {
                        read = Some(course);
                    }
                });
                (asked, read.unwrap())
            };
            // Some of it is still on its way to where nobody reads it.
            let until = Instant::now() + Duration::from_secs(10);
            let (asked, read) = loop {
                let (asked, read) = both();
                if asked.outstanding == read.outstanding {
                    break (asked, read);
                }
                assert!(Instant::now() < until, "{asked:?} {read:?}");
            };
            assert!(asked.outstanding > 0);
            assert_eq!(asked.owner, read.owner);
            let tick = Duration::from_millis(20);
            assert!(
                asked.pause.abs_diff(read.pause) <= tick,
                "{asked:?} {read:?}"
            );
            drop(peer);
        }
    }

    #[test]
    fn who_listens_is_no_connection_and_who_is_not_there_is_nobody() {
        let Some(mut kernel) = Kernel::open() else {
            return;
        };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let nobody = SocketAddr::from(([127, 0, 0, 9], 9));
        assert_eq!(kernel.course(at, nobody), None);
        assert_eq!(kernel.course(nobody, at), None);
        // Of the families together there is none either.
        assert_eq!(kernel.course(at, SocketAddr::from(([0; 16], 9))), None);
        let tcp = TcpStream::connect(at).unwrap();
        assert!(kernel.course(tcp.local_addr().unwrap(), at).is_some());
    }

    /// Who sends and closes at once was nobody, and what he had sent was lost.
    #[test]
    fn whose_a_connection_was_is_known_when_it_has_just_been_closed() {
        /// The kernel remembers for 40 ms, in which a busy machine may not let us ask.
        const ATTEMPTS: usize = 50;
        let Some(mut kernel) = Kernel::open() else {
            return;
        };
        let mut owner_of_closed = || {
            let (mut tcp, _peer, at) = pair("127.0.0.1").unwrap();
            let own = tcp.local_addr().unwrap();
            tcp.write_all(b"x").unwrap();
            drop(tcp);
            kernel.course(own, at).unwrap().owner
        };
        let found = (0..ATTEMPTS).find_map(|_| owner_of_closed());
        let me = rustix::process::geteuid().as_raw();
        assert_eq!(found, closed_are_known().then_some(me));
        for (release, expected) in [
            ("6.17.0-5-generic", true),
            ("7.0.1", true),
            ("10.1", true),
            ("6.16.12", false),
            ("5.20", false),
            ("6", false),
            ("", false),
        ] {
            assert_eq!(is_since_6_17(release), expected, "{release}");
        }
    }

    fn answer(timer: u8, uid: u32, inode: u32) -> Vec<u8> {
        let mut said = vec![2, 1, timer, 0];
        said.resize(52, 0);
        for number in [1230, 7, 16, uid, inode] {
            said.extend(u32::to_ne_bytes(number));
        }
        // An attribute with one byte, padded; then the one that counts.
        said.extend([5_u16.to_ne_bytes(), 8_u16.to_ne_bytes()].concat());
        said.extend([1, 0, 0, 0]);
        said.extend([16_u16.to_ne_bytes(), INFO.to_ne_bytes()].concat());
        said.extend([1, 0, 3, 2, 0, 0, 0, 0]);
        said.extend(6_400_000_u32.to_ne_bytes());
        said
    }

    #[test]
    fn an_answer_is_read_and_one_that_is_cut_off_does_no_harm() {
        let said = answer(AGAIN, 1000, 31);
        let whole = Course {
            outstanding: 16,
            due: Some(Duration::from_millis(1230)),
            pause: Duration::from_millis(6400),
            in_vain: 3,
            owner: Some(1000),
        };
        assert_eq!(course(&said), Some(whole));
        for end in 0..said.len() {
            let part = course(&said[..end]);
            assert_eq!(part.is_some(), end >= ATTRIBUTES, "{end}");
        }
        // Attributes without a length, and with one too long, end there.
        for length in [0_u16, 3, u16::MAX] {
            let mut wrong = said.clone();
            wrong[ATTRIBUTES..ATTRIBUTES + 2].copy_from_slice(&length.to_ne_bytes());
            assert_eq!(course(&wrong).unwrap().in_vain, 0);
        }
        let mut listens = said.clone();
        listens[1] = LISTENS;
        assert_eq!(course(&listens), None);
    }

    #[test]
    fn what_has_ended_is_nobodys() {
        let owner = |timer, uid, inode| course(&answer(timer, uid, inode)).unwrap().owner;
        assert_eq!(owner(AGAIN, 0, 31), Some(0));
        assert_eq!(owner(AGAIN, 1000, 0), Some(1000));
        assert_eq!(owner(FORGET, 0, 0), None);
        assert_eq!(owner(FORGET, 1000, 0), None);
        assert_eq!(owner(AGAIN, 0, 0), closed_are_known().then_some(0));
    }
}
