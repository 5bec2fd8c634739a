//! Which address both ends are told to dial, where nobody says: the one from which this machine reaches the
//! atProtocol.
//!
//! That is right on a machine with a public address of its own. Behind address translation it is an inside
//! address, which only neighbours can dial: then the operator has to say the outside one, and hears so.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use crate::{
    at::directory::Root,
    cli::Failure,
    net::dial::{dial, resolve},
};

/// The local address from which the directory answers; where it does not, that of the route towards it.
///
/// A route alone shows little: the kernel believes whoever says on the wire that he is a router, and an address of his is
/// one that nobody reaches.
///
/// # Errors
/// When its name cannot be resolved, or no route leads there.
pub(super) async fn discover(root: &Root) -> Result<IpAddr, Failure> {
    let (Root::Directory(at) | Root::Proxy(at)) = root;
    if let Ok(tcp) = dial(at, ANSWER).await
        && let Ok(own) = tcp.local_addr()
    {
        return Ok(own.ip().to_canonical());
    }
    let failed = |error: io::Error| {
        Failure::plain(format!("cannot find this machine's address: {error}"))
            .hint("--host rv.example.org")
    };
    let routes = resolve(at).await.map_err(failed)?.into_iter().map(route);
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for found in routes {
        match found {
            Ok(address) => return Ok(address),
            Err(error) => last = error,
        }
    }
    Err(failed(last))
}

/// For the directory to answer.
const ANSWER: Duration = Duration::from_secs(5);

/// "Connecting" a datagram socket only asks the kernel which way it would go.
fn route(to: SocketAddr) -> io::Result<IpAddr> {
    let any: IpAddr = match to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(to)?;
    Ok(socket.local_addr()?.ip().to_canonical())
}

/// Whether only neighbours can dial this address.
pub(super) fn is_inside(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let shared = v4.octets()[0] == 100 && v4.octets()[1] & 0xc0 == 64;
            v4.is_private() || v4.is_link_local() || shared
        }
        IpAddr::V6(v6) => v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use async_std::task::block_on;

    use crate::program::rendezvous::address::*;

    #[test]
    fn a_directory_on_localhost_is_found_without_a_resolver() {
        for root in ["localhost:64", "some.localhost:64", "LOCALHOST.:64"] {
            let found = block_on(discover(&root.parse().unwrap())).unwrap();
            assert_eq!(found, Ipv4Addr::LOCALHOST, "{root}");
        }
    }

    #[test]
    fn an_address_over_which_nothing_answers_is_not_told() {
        for host in ["127.0.0.1", "::1"] {
            let Ok(listener) = std::net::TcpListener::bind((host, 0)) else {
                continue; // no IPv6 here
            };
            // There is a route to either.
            let root = format!("localhost:{}", listener.local_addr().unwrap().port());
            let found = block_on(discover(&root.parse().unwrap())).unwrap();
            assert_eq!(found, host.parse::<IpAddr>().unwrap());
        }
    }

    #[test]
    fn a_directory_on_this_machine_is_reached_from_loopback() {
        for root in ["127.0.0.1:64", "localhost:64", "proxy:127.0.0.1:8443"] {
            let found = block_on(discover(&root.parse().unwrap())).unwrap();
            assert!(found.is_loopback(), "{root}: {found}");
        }
        let unknown = block_on(discover(&"no-such-name.invalid:64".parse().unwrap()));
        let failure = unknown.unwrap_err();
        assert!(
            failure.to_string().contains("this machine's address"),
            "{failure}"
        );
    }

    #[test]
    fn inside_addresses_are_known_as_such() {
        for (address, inside) in [
            ("10.1.2.3", true),
            ("172.16.0.1", true),
            ("192.168.1.1", true),
            ("169.254.0.1", true),
            ("100.64.0.1", true),
            ("100.128.0.1", false),
            ("127.0.0.1", false),
            ("192.0.2.7", false),
            ("fd00::1", true),
            ("fe80::1", true),
            ("2001:db8::1", false),
        ] {
            assert_eq!(is_inside(address.parse().unwrap()), inside, "{address}");
        }
    }
}
