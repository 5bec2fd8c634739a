//! What the unit tests of several rooms need.
#![allow(clippy::unwrap_used)]

use std::{fs, future::Future, net::SocketAddr, path::PathBuf, time::Duration};

use async_std::{
    future::timeout,
    net::{TcpListener, TcpStream},
    task::block_on,
};
use futures_lite::future::zip;
use miniserde::json;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use crate::{
    net::tls::{Acceptor, Connector},
    pipe::{
        cipher::{SessionKeys, StreamKey},
        keys::TransportKeys,
        record::{RecordKeys, Suite},
    },
    secret::Secret,
    text::endpoint::Endpoint,
};

pub(crate) use support::{Disk, Folder, at_a_pace, named_pipe, until};

#[path = "../tests/world/support.rs"]
mod support;

/// Far more than anything here takes.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// Ends the test instead of hanging it.
pub(crate) fn soon<T>(work: impl Future<Output = T>) -> T {
    block_on(in_time(work))
}

/// The same inside a story.
pub(crate) async fn in_time<T>(work: impl Future<Output = T>) -> T {
    timeout(SOON, work).await.expect("finished in time")
}

/// Somebody who listens on a free port.
pub(crate) async fn listen() -> (TcpListener, Endpoint) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap().to_string().parse().unwrap();
    (listener, at)
}

/// Both ends of a connection: who dialled, who accepted.
pub(crate) async fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (dialled, accepted) = zip(
        TcpStream::connect(listener.local_addr().unwrap()),
        listener.accept(),
    )
    .await;
    (dialled.unwrap(), accepted.unwrap().0)
}

/// The known answers of the data plane.
pub(crate) struct Vectors(json::Value);

impl Vectors {
    pub(crate) fn of_data_plane() -> Self {
        Self(json::from_str(include_str!("../tests/vectors/data-plane.json")).unwrap())
    }

    /// What stands at the end of this path; a number is a place in a list.
    pub(crate) fn at(&self, path: &[&str]) -> &json::Value {
        path.iter().fold(&self.0, |at, step| match at {
            json::Value::Object(members) => &members[*step],
            json::Value::Array(list) => &list[step.parse::<usize>().unwrap()],
            other => panic!("{step} in {other:?}"),
        })
    }

    pub(crate) fn text(&self, path: &[&str]) -> &str {
        match self.at(path) {
            json::Value::String(text) => text,
            other => panic!("{path:?}: {other:?}"),
        }
    }

    /// Bytes that stand there in hex.
    pub(crate) fn bytes(&self, path: &[&str]) -> Vec<u8> {
        let text = self.text(path);
        let digits = |at| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
        (0..text.len()).step_by(2).map(digits).collect()
    }
}

/// Keys of one direction.
pub(crate) fn stream_key(first: u8) -> StreamKey {
    StreamKey {
        key: Secret::new([first; 32]),
        iv: [first + 1; 16],
    }
}

/// None, one key stream for both directions, one for each.
pub(crate) fn key_streams() -> [Option<SessionKeys>; 3] {
    let with = |to_client| {
        Some(SessionKeys {
            to_device: stream_key(1),
            to_client,
        })
    };
    [None, with(None), with(Some(stream_key(7)))]
}

/// These, and those of records.
pub(crate) fn every_kind_of_keys() -> [Option<TransportKeys>; 4] {
    let [none, single, twin] = key_streams().map(|keys| keys.map(TransportKeys::Stream));
    let records = RecordKeys {
        suite: Suite::fastest(),
        to_device: Secret::new([1; 32]),
        to_client: Secret::new([7; 32]),
    };
    [none, single, twin, Some(TransportKeys::Records(records))]
}

/// A private authority, its file, and acceptors with certificates it signed.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    pub file: PathBuf,
    _folder: Folder,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "test authority");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = Folder::new();
        let file = folder.path("ca.pem");
        fs::write(&file, issuer.pem()).unwrap();
        Self {
            issuer,
            file,
            _folder: folder,
        }
    }

    /// Certificate and key, in PEM form.
    pub(crate) fn certificate(
        &self,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> (String, String) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    pub(crate) fn acceptor(&self, names: &[&str]) -> Acceptor {
        let (chain, key) = self.certificate(names, |_| ());
        Acceptor::from_pem(&chain, &key).unwrap()
    }

    pub(crate) fn connector(&self) -> Connector {
        Connector::new(&[&self.file]).unwrap()
    }
}

/// A listener whose queue is full: connecting to it hangs, as with a dead route.
pub(crate) fn deaf() -> (SocketAddr, Vec<socket2::Socket>) {
    let socket = || socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let listener = socket().unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    listener.bind(&any.into()).unwrap();
    listener.listen(0).unwrap();
    let addr = listener.local_addr().unwrap();
    let mut kept = vec![listener];
    for _ in 0..8 {
        let filler = socket().unwrap();
        filler.set_nonblocking(true).unwrap();
        let _ = filler.connect(&addr);
        kept.push(filler);
    }
    (addr.as_socket().unwrap(), kept)
}
