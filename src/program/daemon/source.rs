//! From which loopback address a client's ssh sessions come.
//!
//! To an sshd all sessions come from this machine, and OpenSSH 9.8 and later shuts an address out for minutes when logins
//! from there fail (`PerSourcePenalties`): one person's wrong key would shut out everybody. So each client has an address
//! of its own there, `127.x.y.z`, the same every time; others cannot tell which, for a key of this device is in it.

use std::{
    net::Ipv4Addr,
    str::FromStr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use async_std::{future::timeout, task};
use log::warn;
use ring::hmac;

use crate::{
    at::AtSign,
    net::{dial, ssh_server::SshServer},
    text::endpoint::Endpoint,
};

/// How long is believed what sshd said it was; it may be upgraded.
const BELIEVED: Duration = Duration::from_secs(600);

/// No session waits longer for a name.
const RESOLVED_WITHIN: Duration = Duration::from_secs(1);

/// Whether clients have addresses of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientSource {
    /// Where sshd counts by them.
    #[default]
    Auto,
    /// Never.
    Off,
}

impl FromStr for ClientSource {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match word {
            "auto" => Ok(Self::Auto),
            "off" => Ok(Self::Off),
            _ => Err("auto or off".to_owned()),
        }
    }
}

/// Addresses of clients, for one sshd; cheap to clone.
#[derive(Clone)]
pub(super) struct ClientSources(Arc<Inner>);

struct Inner {
    key: hmac::Key,
    sshd: Endpoint,
    found: Mutex<Found>,
}

#[derive(Clone, Copy, Default)]
struct Found {
    /// Whether sshd counts by addresses that we can have.
    counts: bool,
    /// When it was asked.
    asked: Option<Instant>,
}

impl ClientSources {
    /// With a secret that stays the same.
    pub(super) fn new(secret: &[u8], sshd: &Endpoint) -> Self {
        Self(Arc::new(Inner {
            key: hmac::Key::new(hmac::HMAC_SHA256, secret),
            sshd: sshd.clone(),
            found: Mutex::default(),
        }))
    }

    /// Where this client's connections to the target come from, if not from where all do. No session waits for sshd: it was
    /// asked at the start, and now and then while the last answer counts.
    pub(super) async fn of(&self, client: &AtSign, target: &Endpoint) -> Option<Ipv4Addr> {
        if target.port != self.0.sshd.port {
            return None;
        }
        let found = *self.found();
        if found.asked.is_none_or(|asked| asked.elapsed() > BELIEVED) {
            task::spawn(self.clone().ask());
        }
        (found.counts && leads_here(target).await).then(|| self.address(client.as_str()))
    }

    /// Asks sshd what it is, from an address that no client has. One that is not there is asked again.
    pub(super) async fn ask(self) {
        self.found().asked = Some(Instant::now());
        if !leads_here(&self.0.sshd).await {
            return;
        }
        let (ours, sshd) = (self.address(""), self.0.sshd.clone());
        let asked = task::spawn_blocking(move || SshServer::ask(&sshd, Some(ours)));
        let Some((server, at)) = asked.await else {
            self.found().asked = None;
            return;
        };
        let obstacle = match dial::bound(ours) {
            _ if at.is_ipv6() => Some(format!("sshd listens at {at} only")),
            Ok(_) => None,
            Err(why) => Some(format!("{ours}: {why}")),
        };
        if let (true, Some(why)) = (server.has_penalties(), &obstacle) {
            warn!(
                "client_source=none reason=\"{why}\" hint=\"all sessions come from one address, and this sshd shuts that out \
                 when logins fail: see PerSourcePenalties in sshd_config(5)\""
            );
        }
        self.found().counts = server.has_penalties() && obstacle.is_none();
    }

    /// None that a system uses itself: 127.0.0.1, 127.0.1.1, 127.0.0.53.
    fn address(&self, client: &str) -> Ipv4Addr {
        let tag = hmac::sign(&self.0.key, format!("client source {client}").as_bytes());
        let byte = |at: usize| tag.as_ref().get(at).copied().unwrap_or_default();
        Ipv4Addr::new(127, 1 + byte(0) % 254, byte(1), 1 + byte(2) % 254)
    }

    fn found(&self) -> MutexGuard<'_, Found> {
        self.0.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether that leads to 127.0.0.1, as the bridge will find it: names and old spellings (127.1) are the resolver's business.
async fn leads_here(to: &Endpoint) -> bool {
    let found = timeout(RESOLVED_WITHIN, dial::resolve(to)).await;
    let first = found.ok().and_then(|found| Some(found.ok()?.front()?.ip()));
    first.is_some_and(dial::is_here)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{
        collections::HashSet,
        io::Write,
        net::{IpAddr, TcpListener},
        thread,
    };

    use async_std::task::block_on;

    use super::*;
    use crate::testing::until;

    /// A stand-in for an sshd that greets so, once; where it was asked from.
    fn greets(listener: TcpListener, said: &'static str) -> thread::JoinHandle<IpAddr> {
        thread::spawn(move || {
            let (mut tcp, from) = listener.accept().unwrap();
            tcp.write_all(said.as_bytes()).unwrap();
            from.ip()
        })
    }

    #[test]
    fn each_client_has_an_address_of_its_own_where_sshd_counts_by_it() {
        let alice: AtSign = "@alice".parse().unwrap();
        for (said, counts) in [
            ("SSH-2.0-OpenSSH_9.8\r\n", true),
            ("SSH-2.0-OpenSSH_10.0p2 Debian-7\r\n", true),
            ("Not allowed at this time\r\n", true),
            ("SSH-2.0-OpenSSH_9.7p1\r\n", false),
            ("SSH-2.0-dropbear_2024.86\r\n", false),
            ("", false),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = listener.local_addr().unwrap().port();
            let to = |host: &str, port| Endpoint::parse(host, Some(port)).unwrap();
            let sources = ClientSources::new(b"device", &to("localhost", port));
            let asked = greets(listener, said);
            block_on(sources.clone().ask());
            for (host, port) in [
                ("nas.invalid", port),
                ("localhost", port ^ 1),
                ("127.0.0.2", port),
            ] {
                assert_eq!(
                    block_on(sources.of(&alice, &to(host, port))),
                    None,
                    "{host}"
                );
            }
            for host in [
                "localhost",
                "127.0.0.1",
                "LocalHost.",
                "127.1",
                "0x7f.1",
                "2130706433",
                "0",
                "0177.0.0.1",
                "0.0.0.0",
                "::ffff:127.0.0.1",
            ] {
                let one = block_on(sources.of(&alice, &to(host, port)));
                let want = counts && cfg!(target_os = "linux");
                assert_eq!(one, want.then(|| sources.address("@alice")), "{said}");
            }
            assert_ne!(asked.join().unwrap(), sources.address("@alice"));
        }
    }

    #[test]
    fn an_sshd_that_is_not_there_yet_is_asked_again() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = Endpoint::parse(&listener.local_addr().unwrap().to_string(), None).unwrap();
        drop(listener);
        let sources = ClientSources::new(b"device", &to);
        block_on(sources.clone().ask());
        assert!(sources.found().asked.is_none());
        let listener = TcpListener::bind((to.host.as_str(), to.port)).unwrap();
        let asked = greets(listener, "SSH-2.0-OpenSSH_9.9\r\n");
        let alice: AtSign = "@alice".parse().unwrap();
        assert_eq!(block_on(sources.of(&alice, &to)), None);
        asked.join().unwrap();
        block_on(until("sshd has been asked", || {
            block_on(sources.of(&alice, &to)).is_some() || !cfg!(target_os = "linux")
        }));
    }

    #[test]
    fn addresses_stay_the_same_and_differ_by_client_and_device() {
        let [mine, again] = [22, 2222].map(|port| {
            let sshd = Endpoint::parse("localhost", Some(port)).unwrap();
            ClientSources::new(b"device", &sshd)
        });
        let theirs = ClientSources::new(b"other", &mine.0.sshd);
        let mut all = HashSet::new();
        for n in 0..100 {
            let client = format!("@client{n}");
            let address = mine.address(&client);
            assert_eq!(address, again.address(&client));
            assert_ne!(address, theirs.address(&client));
            let [loopback, second, _, last] = address.octets();
            assert!(loopback == 127 && second > 0 && !matches!(last, 0 | 255));
            all.insert(address);
        }
        assert_eq!(all.len(), 100);
    }
}
