//! Local programs at a port of ours.

use std::{
    collections::VecDeque,
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use async_std::{
    net::{TcpListener, TcpStream},
    task,
};

use futures_lite::future;
use rustix::process::geteuid;

use crate::{
    net::dial::tune,
    pipe::join::reset,
    sys::{process::descriptors_left, sockets::owners_of_peers},
};

/// Between two attempts to take somebody in.
const BREATH: Duration = Duration::from_millis(200);
/// So many are let in, or sent away, at once: where the kernel has only tables, with one look at these.
const AT_ONCE: usize = 64;

/// Who may come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Guests {
    /// Processes of our own user, and of root, on this machine.
    Own,
    /// Every user of this machine.
    Shared,
    /// Whoever reaches the address, which was put where others do.
    Anybody,
}

/// Local programs that want to the other side, in order of arrival.
#[derive(Debug)]
pub struct Visitors {
    listener: TcpListener,
    guests: Guests,
    waiting: VecDeque<TcpStream>,
    /// It has been said that nobody can be let in; not again before somebody is.
    pub(super) complained: bool,
}

impl Visitors {
    /// Whoever connects to this listener; if that is where only this machine reaches it, only our own user.
    ///
    /// # Errors
    /// When the listener has no address.
    pub fn of(listener: TcpListener) -> io::Result<Self> {
        let guests = if is_here(listener.local_addr()?.ip()) {
            Guests::Own
        } else {
            Guests::Anybody
        };
        Ok(Self {
            listener,
            guests,
            waiting: VecDeque::new(),
            complained: false,
        })
    }

    /// Where they come to.
    ///
    /// # Errors
    /// When the listener has no address any more.
    pub fn at(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Whether other users of this machine may come in, too.
    #[must_use]
    pub fn shared(self, shared: bool) -> Self {
        let guests = match self.guests {
            Guests::Own if shared => Guests::Shared,
            guests => guests,
        };
        Self { guests, ..self }
    }

    /// The next one. Dropping the future loses nobody.
    pub async fn next(&mut self) -> TcpStream {
        loop {
            if let Some(visitor) = self.waiting.pop_front() {
                return visitor;
            }
            match self.listener.accept().await {
                Ok((tcp, from)) => self.arrive(tcp, from).await,
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    self.complain(&error.to_string());
                    task::sleep(BREATH).await;
                }
            }
        }
    }

    /// This one, and all that have come until now.
    async fn arrive(&mut self, tcp: TcpStream, from: SocketAddr) {
        let mut arrived = vec![(tcp, from)];
        while arrived.len() < AT_ONCE
            && let Some(Ok(one)) = future::poll_once(self.listener.accept()).await
        {
            arrived.push(one);
        }
        // The connections that stand, and those on their way, need what is left.
        if descriptors_left() == 0 {
            arrived.iter().for_each(|(tcp, _)| reset(tcp));
            return self.complain("too few descriptors are left");
        }
        for ((tcp, from), owner) in with_owners(arrived, self.guests) {
            match refusal(self.guests, from.ip(), owner) {
                None => {
                    let _ = tune(&tcp);
                    self.waiting.push_back(tcp);
                }
                Some(why) => {
                    reset(&tcp);
                    self.complain(&why);
                }
            }
        }
    }

    /// Once, and not for each of a thousand.
    pub(super) fn complain(&mut self, why: &str) {
        if !std::mem::replace(&mut self.complained, true) {
            log::warn!("refused=connection reason={why:?}");
        }
    }

    /// This one is to come again, behind those put back before: nothing of it has been read yet.
    pub fn put_back(&mut self, visitor: TcpStream) {
        self.waiting.push_back(visitor);
    }
}

/// Whose they are, where that matters: asked at once, while the kernel still knows it of one that has been closed already.
fn with_owners(
    arrived: Vec<(TcpStream, SocketAddr)>,
    guests: Guests,
) -> Vec<((TcpStream, SocketAddr), Option<u32>)> {
    let mut owners = vec![None; arrived.len()];
    if guests == Guests::Own {
        let ends =
            |(tcp, from): &(TcpStream, SocketAddr)| (tcp.local_addr().unwrap_or(*from), *from);
        let ends: Vec<_> = arrived.iter().map(ends).collect();
        owners = owners_of_peers(&ends);
    }
    arrived.into_iter().zip(owners).collect()
}

/// Why somebody from there, of that user, does not come in.
fn refusal(guests: Guests, from: IpAddr, owner: Option<u32>) -> Option<String> {
    const ROOT: u32 = 0; // may do all we may
    match (guests, owner) {
        (Guests::Anybody, _) => None,
        _ if !is_here(from) => Some(format!("{from} is not this machine")),
        (Guests::Shared, _) => None,
        (Guests::Own, Some(owner)) if owner == geteuid().as_raw() || owner == ROOT => None,
        (Guests::Own, Some(owner)) => Some(format!(
            "it is user {owner}'s, and not ours (noports tunnel --shared lets all users of this machine in)"
        )),
        (Guests::Own, None) => Some(
            "it was closed at once, and whose it was is not known any more (noports tunnel --shared lets in all users of \
             this machine, unasked)"
                .to_owned(),
        ),
    }
}

/// Whether somebody comes from this machine.
pub(super) fn is_here(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{net::Ipv4Addr, os::unix::process::CommandExt, path::Path, process::Command};

    use async_std::{future::timeout, task::block_on};
    use futures_lite::AsyncReadExt;

    use super::*;
    use crate::sys::sockets::Kernel;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const THERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

    #[test]
    fn only_our_own_user_and_root_come_in_unless_the_port_is_shared() {
        let me = geteuid().as_raw();
        let enters = |guests, from, owner| refusal(guests, from, owner).is_none();
        for (owner, own) in [
            (Some(me), true),
            (Some(0), true),
            (Some(me + 1), false),
            (None, false),
        ] {
            assert_eq!(enters(Guests::Own, HERE, owner), own, "{owner:?}");
            assert!(enters(Guests::Shared, HERE, owner));
            assert!(!enters(Guests::Own, THERE, owner) && !enters(Guests::Shared, THERE, owner));
            assert!(enters(Guests::Anybody, THERE, owner));
        }
    }

    /// What they had sent was lost.
    #[test]
    fn own_programs_that_send_and_close_at_once_are_let_in_where_the_kernel_remembers_them() {
        /// It does for 40 ms, in which a busy machine may not let us ask.
        const ATTEMPTS: usize = 50;
        use std::io::Write;
        block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let at = listener.local_addr().unwrap();
            let mut visitors = Visitors::of(listener).unwrap();
            let (mut is_remembered, mut came) = (false, None);
            for _ in 0..ATTEMPTS {
                let mut tcp = std::net::TcpStream::connect(at).unwrap();
                let from = tcp.local_addr().unwrap();
                tcp.write_all(b"own").unwrap();
                drop(tcp);
                is_remembered |= owners_of_peers(&[(at, from)])[0].is_some();
                came = timeout(Duration::from_millis(200), visitors.next())
                    .await
                    .ok();
                if came.is_some() {
                    break;
                }
            }
            assert_eq!(came.is_some(), is_remembered);
            if let Some(mut tcp) = came {
                let mut said = Vec::new();
                tcp.read_to_end(&mut said).await.unwrap();
                assert_eq!(said, b"own");
            }
        });
    }

    /// For each that had been closed again, the kernel's tables were read three times.
    #[test]
    fn who_has_gone_again_costs_no_look_at_the_tables() {
        if !Path::new("/proc/thread-self/io").exists() || Kernel::open().is_none() {
            return;
        }
        let read_until_now = || {
            let said = std::fs::read_to_string("/proc/thread-self/io").unwrap();
            let count = said.lines().find_map(|line| line.strip_prefix("rchar: "));
            count.unwrap().parse::<usize>().unwrap()
        };
        block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let at = listener.local_addr().unwrap();
            let (mut arrived, mut others) = (Vec::new(), Vec::new());
            for _ in 0..AT_ONCE {
                others.push(TcpStream::connect(at).await.unwrap());
                others.push(listener.accept().await.unwrap().0);
                let gone = TcpStream::connect(at).await.unwrap();
                arrived.push(listener.accept().await.unwrap());
                reset(&gone);
            }
            let before = read_until_now();
            let owners = with_owners(arrived, Guests::Own);
            // A line of a table has more than 100 bytes, and the others have two each.
            assert!(read_until_now() - before < 100 * AT_ONCE);
            assert!(owners.iter().all(|(_, owner)| owner.is_none()));
        });
    }

    /// Another user of the machine used up the one connection of a session that somebody else had opened.
    #[test]
    fn another_user_does_not_take_the_place_of_our_own() {
        if !geteuid().is_root() {
            return; // only root can be somebody else
        }
        block_on(async {
            for shared in [false, true] {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let port = listener.local_addr().unwrap().port();
                let mut visitors = Visitors::of(listener).unwrap().shared(shared);
                let connects =
                    format!("exec 3<>/dev/tcp/127.0.0.1/{port}; echo theirs >&3; cat <&3");
                let mut other = Command::new("bash")
                    .args(["-c", &connects])
                    .current_dir("/")
                    .uid(65534)
                    .spawn()
                    .unwrap();
                let first = timeout(Duration::from_secs(5), visitors.next()).await;
                if shared {
                    let mut said = [0; 6];
                    first.unwrap().read_exact(&mut said).await.unwrap();
                    assert_eq!(&said, b"theirs");
                } else {
                    assert!(first.is_err() && visitors.complained);
                    let ours = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                    let came = visitors.next().await;
                    assert_eq!(came.peer_addr().unwrap(), ours.local_addr().unwrap());
                }
                drop(visitors);
                let _ = other.kill();
                other.wait().unwrap();
            }
        });
    }
}
