//! Sockets at the rendezvous: connected, and with our admission line on its way.

use std::{
    io,
    net::Ipv4Addr,
    sync::Arc,
    time::{Duration, Instant},
};

use async_std::{future::timeout, net::TcpStream, task};
use futures_lite::AsyncWriteExt;

use super::{error::BridgeError, live::Live};
use crate::{
    at::client::jitter,
    net::{backoff::Backoff, dial::dial_where, network::NearnessSet},
    np::{
        admit,
        far_end::FarEnd,
        pairs::{COUNTERPART_TIME, Dialer},
    },
    pipe::{cipher::Side, join::Changes},
    secret::Secret,
    sys::process::descriptors_left,
};

/// For one connection, from resolving its name to sending the first line.
pub(super) const DIAL: Duration = Duration::from_secs(10);
/// How long one of many sockets is tried again. The last attempt may take [`DIAL`] longer, and its counterpart
/// should still be there.
const PATIENCE: Duration = Duration::from_secs(25);
const _: () = assert!(PATIENCE.as_secs() + DIAL.as_secs() <= COUNTERPART_TIME.as_secs());
/// Between two attempts.
const BREATH: Duration = Duration::from_millis(200);
/// The same after some of them.
const LONGEST_BREATH: Duration = Duration::from_secs(2);

/// Dials the far end of one session, as often as the session needs it.
#[derive(Debug)]
pub(super) struct Dialler {
    pub(super) far: FarEnd,
    /// How long one of many sockets is tried again.
    pub(super) patience: Duration,
    /// What others see of the session.
    pub(super) live: Arc<Live>,
    /// Where the far end may be, if not anywhere.
    pub(super) nearness: Option<NearnessSet>,
    /// From where a service of this machine is dialled, if from a certain address.
    pub(super) source: Option<Ipv4Addr>,
}

impl Dialler {
    pub(super) fn new(far: FarEnd) -> Self {
        Self {
            far,
            patience: PATIENCE,
            live: Arc::default(),
            nearness: None,
            source: None,
        }
    }

    /// The same for a session that is seen by others.
    pub(super) fn watched_by(self, live: Arc<Live>) -> Self {
        Self { live, ..self }
    }

    /// Nowhere else than somebody may be sent whose directory is so near.
    pub(super) fn nowhere_nearer(self, nearness: Option<NearnessSet>) -> Self {
        Self { nearness, ..self }
    }

    /// A service of this machine is dialled from there.
    pub(super) fn dialling_from(self, source: Option<Ipv4Addr>) -> Self {
        Self { source, ..self }
    }

    /// The one socket of a session.
    pub(super) async fn connect(&self) -> Result<TcpStream, BridgeError> {
        if self.far.socket_key.is_some() {
            // Who has a key proves all of its sockets.
            return self.connect_as(0, 0).await;
        }
        self.connect_with(self.far.admission.as_ref()).await
    }

    /// One of many sockets, 0 being the control socket: the rendezvous is told its number, if it takes numbers.
    /// The further tries of the same one count up from 0.
    pub(super) async fn connect_as(
        &self,
        number: u64,
        attempt: u64,
    ) -> Result<TcpStream, BridgeError> {
        let Some(line) = self.far.admission.as_ref().filter(|_| self.takes_numbers()) else {
            return self.connect_with(self.far.admission.as_ref()).await;
        };
        let end = match self.far.side {
            Side::Client => Dialer::Client,
            Side::Device => Dialer::Daemon,
        };
        let line = match &self.far.socket_key {
            Some(key) => admit::proved(line.reveal(), key, end, number, attempt),
            None => admit::numbered(line.reveal(), number),
        };
        self.connect_with(Some(&Secret::new(line))).await
    }

    /// [`Self::connect_as`], again and again while its counterpart waits. Not without descriptors: those who try
    /// hold what they wait for.
    pub(super) async fn connect_patiently(&self, number: u64) -> Result<TcpStream, BridgeError> {
        let until = Instant::now() + self.patience;
        let mut backoff = Backoff::new(BREATH, LONGEST_BREATH);
        let mut attempt = 0;
        loop {
            let error = match self.connect_as(number, attempt).await {
                Ok(remote) => return Ok(remote),
                Err(error) => error,
            };
            let pause = backoff.pause(jitter());
            if Instant::now() + pause > until || descriptors_left() == 0 {
                return Err(error);
            }
            log::info!(
                "connection={number} again_in={:.1}s reason={:?}",
                pause.as_secs_f64(),
                error.to_string()
            );
            task::sleep(pause).await;
            attempt += 1;
        }
    }

    /// Whether sockets find their counterparts in whatever order they come.
    pub(super) fn takes_numbers(&self) -> bool {
        let line = self.far.admission.as_ref();
        line.is_some_and(|line| admit::takes_numbers(line.reveal()))
    }

    /// What is to be done with the bytes of a session that has one connection, if it has keys.
    pub(super) fn changes(&self) -> Option<Changes> {
        let keys = self.far.keys.as_ref();
        keys.map(|keys| keys.changes(self.far.side))
    }

    async fn connect_with(&self, line: Option<&Secret<String>>) -> Result<TcpStream, BridgeError> {
        let failed = |source: io::Error| BridgeError::Rendezvous {
            at: self.far.rendezvous.clone(),
            source: match source.kind() {
                io::ErrorKind::PermissionDenied => io::Error::other(format!(
                    "{source}, and the atDirectory is not at one (noports daemon --allow-inner goes there all the same)"
                )),
                _ => source,
            },
        };
        let fit = |at| self.nearness.is_none_or(|near| near.admits(at));
        let dialled = dial_where(&self.far.rendezvous, DIAL, fit);
        let mut remote = dialled.await.map_err(failed)?;
        if let Some(line) = line {
            let line = Secret::new(format!("{}\n", line.reveal()).into_bytes());
            let sent = timeout(DIAL, remote.write_all(line.reveal())).await;
            sent.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
                .map_err(failed)?;
        }
        Ok(remote)
    }
}
