//! Outbound connections: every address, one deadline.
//!
//! ```text
//!   name ─resolve─▶ [v6a, v4a, v6b, …]      0 ms   v6a ──────────── silent ───▶
//!                                         250 ms        v4a ──▶ answers: taken, the others are dropped
//!   '────────────────────────────── one deadline ───────────────────────────────────────────────'
//! ```

use std::{
    collections::VecDeque,
    future::{Future, pending, poll_fn},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::Pin,
    task::Poll,
    time::Duration,
};

use async_io::{Async, Timer};
use async_std::{
    future::timeout,
    net::{TcpStream, ToSocketAddrs},
};
use futures_lite::future::or;
use rustix::{io::Errno, net::sockopt, process::geteuid};
use socket2::{Domain, Socket, Type};

use crate::sys::sockets::listeners_of_localhost;
use crate::text::duration::in_words;
use crate::text::endpoint::Endpoint;

/// Connects to the first address that answers, trying the next one after a short head start. No delay, keep-alive on.
///
/// # Errors
/// The first address' error, unless this machine only lacks its family, or `TimedOut`; the text names the address or
/// the endpoint.
pub async fn dial(to: &Endpoint, within: Duration) -> io::Result<TcpStream> {
    dial_where(to, within, |_| true).await
}

/// [`dial`], to a service: `localhost` has two addresses, and where two users listen on the same port of them, only root's
/// or our own is the service that is meant. One at 127.0.0.1 is reached from `source`.
///
/// # Errors
/// As [`dial`]; `PermissionDenied` where neither is.
pub async fn dial_service(
    to: &Endpoint,
    source: Option<Ipv4Addr>,
    within: Duration,
) -> io::Result<TcpStream> {
    let listeners = if is_localhost(&to.host) {
        listeners_of_localhost(to.port)
    } else {
        [None; 2]
    };
    let us = geteuid().as_raw();
    match meant(listeners, us) {
        [true, true] => dial_from(to, source, within, |_| true).await,
        [false, false] => {
            let text = format!(
                "two users listen on port {port} of this device, at 127.0.0.1 and at [::1]: name the address, as in 127.0.0.1:{port}",
                port = to.port
            );
            Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
        }
        [v4, v6] => dial_from(to, source, within, |at| if at.is_ipv4() { v4 } else { v6 }).await,
    }
}

/// Which of the two is meant, by the users who listen there.
fn meant(listeners: [Option<u32>; 2], us: u32) -> [bool; 2] {
    match listeners {
        [Some(v4), Some(v6)] if v4 != v6 => [v4, v6].map(|user| user == 0 || user == us),
        _ => [true, true],
    }
}

/// The same, at addresses that are `fit` only: whatever a name leads to.
///
/// # Errors
/// As [`dial`]; `PermissionDenied` when no address is.
pub async fn dial_where(
    to: &Endpoint,
    within: Duration,
    fit: impl Fn(IpAddr) -> bool,
) -> io::Result<TcpStream> {
    dial_from(to, None, within, fit).await
}

async fn dial_from(
    to: &Endpoint,
    source: Option<Ipv4Addr>,
    within: Duration,
    fit: impl Fn(IpAddr) -> bool,
) -> io::Result<TcpStream> {
    let connected = async {
        let (fit, unfit): (VecDeque<_>, VecDeque<_>) =
            resolve(to).await?.into_iter().partition(|at| fit(at.ip()));
        match unfit.front() {
            Some(at) if fit.is_empty() => Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!("{} is an inner address", at.ip()),
            )),
            _ => race(fit, to, source).await,
        }
    };
    let Ok(outcome) = timeout(within, connected).await else {
        let text = format!("no answer from {to} within {}", in_words(within));
        return Err(io::Error::new(io::ErrorKind::TimedOut, text));
    };
    let tcp = outcome?;
    tune(&tcp)?;
    Ok(tcp)
}

/// What every socket of ours gets, dialled or accepted, so that both ends of a session do the same: small writes leave
/// at once, and a peer that says nothing is given up after [`SILENCE`].
///
/// TCP cannot tell a peer that is dead from one that cannot be reached for a while, so nothing ends before that. Who wants
/// to know sooner, and what was sent into a stall to arrive soon after it, takes [`super::stall::watch`].
///
/// # Errors
/// What the system says; a socket that has been reset already may refuse.
pub fn tune(tcp: &TcpStream) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let keep_alive = socket2::TcpKeepalive::new()
        .with_time(KEEP_ALIVE_IDLE)
        .with_interval(KEEP_ALIVE_INTERVAL);
    socket2::SockRef::from(tcp).set_tcp_keepalive(&keep_alive)?;
    sockopt::set_tcp_keepcnt(tcp, KEEP_ALIVE_PROBES)?;
    sockopt::set_tcp_user_timeout(tcp, SILENCE.as_millis() as u32)?;
    Ok(())
}

/// Whether a name means this machine, whatever anybody else says of it (RFC 6761, 6.3).
pub fn is_localhost(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    let last = host.rsplit('.').next().unwrap_or(host);
    last.eq_ignore_ascii_case("localhost")
}

/// The addresses of a host, in the order in which they are to be tried.
///
/// # Errors
/// What the resolver says, in one line that names the host.
pub async fn resolve(to: &Endpoint) -> io::Result<VecDeque<SocketAddr>> {
    if let Ok(literal) = to.host.parse::<IpAddr>() {
        return Ok(VecDeque::from([SocketAddr::new(literal, to.port)]));
    }
    // No resolver is asked: neither a file nor a name server may lead it elsewhere, and it works without both.
    if is_localhost(&to.host) {
        let both: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        return Ok(both.map(|ip| SocketAddr::new(ip, to.port)).into());
    }
    let found = (to.host.as_str(), to.port).to_socket_addrs().await;
    let found = found.map_err(|error| {
        // The runtime says in its own text what we say, too; the system's stands behind it.
        let inner = error.get_ref().and_then(|inner| inner.source());
        let why = inner.map_or_else(|| error.to_string(), ToString::to_string);
        io::Error::new(error.kind(), format!("cannot resolve {}: {why}", to.host))
    })?;
    Ok(alternate(found.take(MAX_ADDRESSES).collect()))
}

/// Families in turn, the resolver's first choice first, so that one dead family costs one head start.
fn alternate(found: Vec<SocketAddr>) -> VecDeque<SocketAddr> {
    let first_is_v6 = found.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) = found
        .into_iter()
        .partition(|addr| addr.is_ipv6() == first_is_v6);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut turns = VecDeque::new();
    loop {
        let pair = [first.next(), second.next()];
        if pair == [None, None] {
            return turns;
        }
        turns.extend(pair.into_iter().flatten());
    }
}

type Attempt = Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>>;

async fn race(
    mut waiting: VecDeque<SocketAddr>,
    to: &Endpoint,
    source: Option<Ipv4Addr>,
) -> io::Result<TcpStream> {
    let mut running: Vec<Attempt> = Vec::new();
    let none = format!("{to} has no address");
    let mut told = io::Error::new(NO_ADDRESS, none);
    loop {
        if let Some(addr) = waiting.pop_front() {
            running.push(Box::pin(attempt(addr, source)));
        } else if running.is_empty() {
            return Err(told);
        }
        let head_start = async {
            if waiting.is_empty() {
                pending::<()>().await;
            }
            Timer::after(HEAD_START).await;
            None
        };
        match or(async { Some(first_of(&mut running).await) }, head_start).await {
            Some(Ok(tcp)) => return Ok(tcp),
            // That there is no such family here is no news once an address has answered.
            Some(Err(error)) if told.kind() == NO_ADDRESS || no_family(&told) => told = error,
            Some(Err(_)) => {}
            None => {}
        }
    }
}

fn no_family(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::AddrNotAvailable | io::ErrorKind::NetworkUnreachable
    )
}

async fn attempt(addr: SocketAddr, source: Option<Ipv4Addr>) -> io::Result<TcpStream> {
    let from = source.filter(|_| addr.ip() == Ipv4Addr::LOCALHOST);
    let bound = from.map(bound).transpose().unwrap_or_else(|why| {
        log::warn!("source={source:?} refused reason=\"{why}\"");
        None
    });
    let connected = match bound {
        Some(socket) => connect_bound(socket, addr).await,
        // Where the address cannot be had, another one does as well.
        None => TcpStream::connect(addr).await,
    };
    connected.map_err(|error| io::Error::new(error.kind(), format!("{addr}: {error}")))
}

/// A socket that comes from this address.
///
/// # Errors
/// Where it cannot be had.
pub fn bound(source: Ipv4Addr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from((source, 0)).into())?;
    Ok(socket)
}

async fn connect_bound(socket: Socket, addr: SocketAddr) -> io::Result<TcpStream> {
    match socket.connect(&addr.into()) {
        Err(error) if Errno::from_io_error(&error) == Some(Errno::INPROGRESS) => {}
        other => other?,
    }
    let tcp = Async::new_nonblocking(std::net::TcpStream::from(socket))?;
    tcp.writable().await?;
    match tcp.get_ref().take_error()? {
        Some(error) => Err(error),
        None => Ok(tcp.into_inner()?.into()),
    }
}

/// Waits for whichever ends first, and takes it off the list.
async fn first_of(running: &mut Vec<Attempt>) -> io::Result<TcpStream> {
    poll_fn(|cx| {
        for at in 0..running.len() {
            if let Poll::Ready(outcome) = running[at].as_mut().poll(cx) {
                drop(running.swap_remove(at));
                return Poll::Ready(outcome);
            }
        }
        Poll::Pending
    })
    .await
}

/// The error of a name that leads nowhere.
const NO_ADDRESS: io::ErrorKind = io::ErrorKind::NotFound;
/// Addresses tried for one name.
const MAX_ADDRESSES: usize = 16;
/// What an address gets before the next one is tried beside it (RFC 8305 recommends 250 ms).
const HEAD_START: Duration = Duration::from_millis(250);
/// Quiet time before the first keep-alive probe; shorter than the usual limits of NAT tables.
const KEEP_ALIVE_IDLE: Duration = Duration::from_secs(20);
/// Between unanswered probes.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// A peer that has not acknowledged anything for so long is given up, whether there was something to send or not. Twice
/// the longest stall that a session is to survive, and some.
pub(super) const SILENCE: Duration = Duration::from_secs(300);
const KEEP_ALIVE_PROBES: u32 =
    ((SILENCE.as_secs() - KEEP_ALIVE_IDLE.as_secs()) / KEEP_ALIVE_INTERVAL.as_secs()) as u32;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use async_std::task::block_on;

    use super::*;
    use crate::testing::deaf;

    const SOON: Duration = Duration::from_secs(10);

    #[test]
    fn a_name_that_is_not_found_is_told_once_and_in_words() {
        let to = Endpoint::parse("no-such-host.invalid:64", None).unwrap();
        let said = block_on(resolve(&to)).unwrap_err().to_string();
        assert!(
            said.starts_with("cannot resolve no-such-host.invalid: "),
            "{said}"
        );
        assert_eq!(said.matches("no-such-host").count(), 1, "{said}");
        assert!(!said.contains(['(', '`', '"']), "{said}");
    }

    #[test]
    fn families_take_turns() {
        let parse = |list: &[&str]| list.iter().map(|a| a.parse().unwrap()).collect::<Vec<_>>();
        let found = parse(&["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1", "2.2.2.2:1"]);
        let turns = parse(&["[::1]:1", "1.1.1.1:1", "[::2]:1", "2.2.2.2:1", "[::3]:1"]);
        assert_eq!(alternate(found), turns);
        assert!(alternate(Vec::new()).is_empty());
    }

    #[test]
    fn localhost_is_this_machine_without_a_resolver() {
        for (host, here) in [
            ("localhost", true),
            ("LocalHost", true),
            ("localhost.", true),
            ("foo.localhost", true),
            ("a.b.LOCALHOST.", true),
            ("localhost..", false),
            ("notlocalhost", false),
            ("localhost.example", false),
            (".", false),
        ] {
            assert_eq!(is_localhost(host), here, "{host}");
        }
        // A name that no resolver would find.
        for host in ["localhost.", "nobody-has-this-name.LocalHost"] {
            let to = Endpoint::parse(host, Some(7)).unwrap();
            let found = block_on(resolve(&to)).unwrap();
            let want: [SocketAddr; 2] = ["127.0.0.1:7", "[::1]:7"].map(|a| a.parse().unwrap());
            assert_eq!(found, want, "{host}");
        }
    }

    #[test]
    fn another_users_listener_on_the_other_localhost_is_not_the_service() {
        for (listeners, want) in [
            ([None, None], [true, true]),
            ([Some(33), None], [true, true]),
            ([None, Some(33)], [true, true]),
            ([Some(33), Some(33)], [true, true]),
            ([Some(33), Some(0)], [false, true]),
            ([Some(0), Some(33)], [true, false]),
            ([Some(33), Some(7)], [false, true]),
            ([Some(7), Some(0)], [true, true]),
            ([Some(33), Some(34)], [false, false]),
        ] {
            assert_eq!(meant(listeners, 7), want, "{listeners:?}");
        }
        // Who listens is seen in the kernel's tables.
        let us = geteuid().as_raw();
        for (bound, want) in [
            ("127.0.0.1:0", [Some(us), None]),
            ("0.0.0.0:0", [Some(us), None]),
            ("[::1]:0", [None, Some(us)]),
        ] {
            let Ok(listener) = std::net::TcpListener::bind(bound) else {
                continue; // no IPv6 here
            };
            let port = listener.local_addr().unwrap().port();
            let seen = listeners_of_localhost(port);
            // Somebody may have the same port of the other family.
            for (seen, want) in seen.into_iter().zip(want) {
                assert!(want.is_none() || seen == want, "{bound}: {seen:?}");
            }
        }
    }

    #[test]
    fn localhost_is_reached_on_whichever_address_listens() {
        let socket = |v6| {
            socket2::Socket::new(
                socket2::Domain::for_address(v6),
                socket2::Type::STREAM,
                None,
            )
        };
        let port = |port| ["127.0.0.1", "::1"].map(|ip| SocketAddr::new(ip.parse().unwrap(), port));
        for listening in [0, 1] {
            let Ok(listener) = std::net::TcpListener::bind(port(0)[listening]) else {
                continue; // no IPv6 here
            };
            let at = listener.local_addr().unwrap();
            // The other address of this port is kept by somebody who does not listen.
            let other = port(at.port())[1 - listening];
            let kept = socket(other).and_then(|socket| socket.bind(&other.into()).map(|()| socket));
            if listening == 1 && kept.is_err() {
                continue; // another program has it
            }
            let to = Endpoint::parse("localhost", Some(at.port())).unwrap();
            let tcp = block_on(dial(&to, SOON)).unwrap();
            assert_eq!(tcp.peer_addr().unwrap(), at);
        }
    }

    #[test]
    fn a_dead_first_address_costs_a_head_start_only() {
        block_on(async {
            let (dead, _kept) = deaf();
            let listener = async_std::net::TcpListener::bind("127.0.0.1:0")
                .await
                .unwrap();
            let alive = listener.local_addr().unwrap();
            let to = Endpoint::parse("many.example:1", None).unwrap();
            let begun = std::time::Instant::now();
            let tcp = race(VecDeque::from([dead, alive]), &to, None)
                .await
                .unwrap();
            assert_eq!(tcp.peer_addr().unwrap(), alive);
            assert!(begun.elapsed() >= HEAD_START);
        });
    }

    #[test]
    fn a_refusing_address_hands_over_at_once_and_the_first_error_is_told() {
        block_on(async {
            let closed = std::net::TcpListener::bind("127.0.0.1:0")
                .unwrap()
                .local_addr()
                .unwrap();
            let to = Endpoint::parse("many.example:1", None).unwrap();
            let error = race(VecDeque::from([closed, closed]), &to, None)
                .await
                .unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
            assert!(error.to_string().contains(&closed.to_string()), "{error}");
            let error = race(VecDeque::new(), &to, None).await.unwrap_err();
            assert_eq!(error.to_string(), "many.example:1 has no address");
        });
    }

    #[test]
    fn silence_ends_at_the_one_deadline() {
        let (dead, _kept) = deaf();
        let to = dead.to_string().parse().unwrap();
        let error = block_on(dial(&to, Duration::from_millis(50))).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(error.to_string().contains(&to.to_string()), "{error}");
    }

    #[test]
    fn a_dialled_socket_survives_a_stall_of_two_minutes_and_has_no_delay() {
        block_on(async {
            let listener = async_std::net::TcpListener::bind("127.0.0.1:0")
                .await
                .unwrap();
            let port = listener.local_addr().unwrap().port();
            let to = Endpoint::parse("localhost", Some(port)).unwrap();
            let tcp = dial(&to, SOON).await.unwrap();
            assert!(tcp.nodelay().unwrap());
            assert!(socket2::SockRef::from(&tcp).keepalive().unwrap());
            let silence = sockopt::tcp_user_timeout(&tcp).unwrap();
            assert_eq!(u128::from(silence), SILENCE.as_millis());
            let (idle, every) = (
                sockopt::tcp_keepidle(&tcp).unwrap(),
                sockopt::tcp_keepintvl(&tcp).unwrap(),
            );
            // Two probes are lost within a minute, all of them after more than twice two.
            assert!(idle + 2 * every + 2 * super::super::stall::LOOK < Duration::from_secs(60));
            let all = idle + every * sockopt::tcp_keepcnt(&tcp).unwrap();
            assert_eq!(all, SILENCE);
            assert!(SILENCE > 2 * Duration::from_secs(120));
        });
    }
}
