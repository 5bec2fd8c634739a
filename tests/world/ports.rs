//! The two ends of a session at a rendezvous, played by hand: asking for ports, and what to say on them.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::Arc,
    time::Duration,
};

use noports::{
    at::{
        AtSign,
        client::{Client, Event, Network, Outgoing, Subscription},
        keyfile::AtKeys,
    },
    np::{
        Message,
        admit::{self, Admission},
        ids::{Nonce, SessionId},
        pairs::Dialer,
        ports::{self, Logins, Ports, PortsRequest},
        proof::SocketKey,
    },
};

use super::{ALICE, DEVICE, NAME, RENDEZVOUS, World};

/// A message as a notification that lives for a minute.
pub fn outgoing(message: Message) -> Outgoing {
    Outgoing {
        to: message.to,
        entity: message.entity,
        text: message.text,
        ttl: None,
        ttln: 60_000,
        metadata: Default::default(),
    }
}

/// Somebody, such as alice, asking the rendezvous.
pub struct Asker {
    at: Client,
    inbox: Subscription,
    keys: [Arc<AtKeys>; 2],
    client: AtSign,
    daemon: AtSign,
}

impl Asker {
    pub async fn start(world: &World) -> Self {
        Self::start_as(world, ALICE).await
    }

    /// Somebody else.
    pub async fn start_as(world: &World, who: &str) -> Self {
        let keys = [world.keys(who), world.keys(DEVICE)];
        Self::start_with(&world.network, keys).await
    }

    /// Somebody who has the keys of both ends.
    pub async fn start_with(network: &Network, keys: [Arc<AtKeys>; 2]) -> Self {
        let at = Client::login(network, keys[0].clone()).await.unwrap();
        let inbox = at.subscribe(r"\.sshrvd@", false).await.unwrap();
        Self {
            at,
            inbox,
            client: keys[0].atsign.clone(),
            daemon: keys[1].atsign.clone(),
            keys,
        }
    }

    pub async fn send(&self, message: Message) {
        let note = outgoing(message);
        self.at.notify(&note).await.unwrap();
    }

    /// (key, text) of the next word from the rendezvous.
    pub async fn heard(&mut self) -> (String, String) {
        loop {
            let next = async_std::future::timeout(Duration::from_secs(20), self.inbox.next());
            let Some(Event::Note(note)) = next.await.expect("an answer in time") else {
                continue;
            };
            if note.from.as_str() == RENDEZVOUS {
                let text = self.at.decrypt(&note).await.unwrap().unwrap();
                return (note.entity().to_owned(), text);
            }
        }
    }

    /// The old way: a session id alone.
    pub async fn ask_bare(&mut self) -> (SessionId, String) {
        let session = SessionId::random();
        let (to, device) = (RENDEZVOUS.parse().unwrap(), NAME.parse().unwrap());
        self.send(ports::bare_request(&to, &device, session)).await;
        let (entity, text) = self.heard().await;
        assert_eq!(entity, ports::answer_entity(session));
        (session, text)
    }

    pub fn request(&self, logins: Logins) -> PortsRequest {
        PortsRequest {
            session: SessionId::random(),
            client: self.client.clone(),
            daemon: self.daemon.clone(),
            nonce: Nonce::random(),
            logins,
            socket_key: None,
        }
    }

    /// Ports for a session in which these ends log in, as before sockets were proved.
    pub async fn ask(&mut self, logins: Logins) -> Granted {
        self.ask_for(self.request(logins)).await
    }

    /// Ports for a session in which both ends log in, and prove which of their sockets each is.
    pub async fn ask_to_prove(&mut self) -> Granted {
        let request = PortsRequest {
            socket_key: Some(SocketKey::random().unwrap()),
            ..self.request(Logins::BOTH)
        };
        self.ask_for(request).await
    }

    async fn ask_for(&mut self, request: PortsRequest) -> Granted {
        let (to, device) = (RENDEZVOUS.parse().unwrap(), NAME.parse().unwrap());
        self.send(request.message(&to, &device)).await;
        let (entity, text) = self.heard().await;
        assert_eq!(entity, ports::answer_entity(request.session), "{text}");
        let ports = Ports::parse(&text).unwrap();
        let admission = Admission {
            session: request.session,
            client_nonce: request.nonce,
            rendezvous_nonce: ports.nonce.clone().unwrap(),
        };
        let line = |keys: usize| admission.line(&self.keys[keys].encryption).unwrap();
        Granted {
            lines: [line(0), line(1)],
            key: request.socket_key,
            ports,
        }
    }
}

/// Two ports, and what gets one in.
pub struct Granted {
    pub ports: Ports,
    lines: [String; 2],
    key: Option<SocketKey>,
}

impl Granted {
    /// The client's socket with this number, logged in.
    pub fn client(&self, number: Option<u64>) -> TcpStream {
        said(self.ports.client, &self.client_line(number))
    }

    /// What the client's socket has to say, with its line end.
    pub fn client_line(&self, number: Option<u64>) -> String {
        self.line(Dialer::Client, number, 0)
    }

    /// The daemon's.
    pub fn daemon(&self, number: Option<u64>) -> TcpStream {
        said(self.ports.daemon, &self.line(Dialer::Daemon, number, 0))
    }

    /// What this try of this socket has to say.
    pub fn line(&self, end: Dialer, number: Option<u64>, attempt: u64) -> String {
        let line = &self.lines[usize::from(end == Dialer::Daemon)];
        let line = match (number, &self.key) {
            (Some(number), Some(key)) => admit::proved(line, key, end, number, attempt),
            (Some(number), None) => admit::numbered(line, number),
            (None, _) => line.clone(),
        };
        line + "\n"
    }

    /// The same without a proof: what a stranger makes of a line that was seen.
    pub fn replayed(&self, end: Dialer, number: u64) -> String {
        admit::numbered(&self.lines[usize::from(end == Dialer::Daemon)], number) + "\n"
    }
}

/// A socket on which this has been said.
pub fn said(port: u16, text: &str) -> TcpStream {
    let mut tcp = TcpStream::connect(("127.0.0.1", port)).unwrap();
    tcp.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    tcp.write_all(text.as_bytes()).unwrap();
    tcp
}

/// These two are joined: what one says, the other hears, and nothing before it.
pub fn joined(what: &str, one: &TcpStream, other: &TcpStream) {
    for (mut from, mut to, word) in [(one, other, "up"), (other, one, "down")] {
        from.write_all(word.as_bytes()).unwrap();
        let mut heard = vec![0; word.len()];
        if let Err(error) = to.read_exact(&mut heard) {
            panic!("{what}: {word}: {error}");
        }
        assert_eq!(heard, word.as_bytes(), "{what}");
    }
}
