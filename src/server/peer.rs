//! Speaks to atServers elsewhere, as the server of one of our atSigns.
//!
//! ```text
//!   A: @alice's server (here)                    B: @bob's server
//!      lookup:all:publickey@bob ──▶              ◀── data:{…}           kept as cached:public:publickey@bob
//!      from:@alice ──▶                           ◀── data:proof:_S@alice:C
//!      [public:_S@alice] = signature over C
//!      pol ──▶                                   asks A, without login: lookup:_S@alice, lookup:signing_publickey@alice
//!                                                ◀── @alice@
//!      notify:… | lookup:all:… | scan ──▶        ◀── data:…
//! ```
//!
//! What has introduced itself is kept for a while and used again (`pool.rs`). The other server may have closed it
//! meanwhile: then everything is said once more, on a new connection. A notification that had arrived already is known
//! there by its id.
//!
//! Who asks us to ask (`pol`) has not logged in: those connections are counted apart (`proofs`), so that strangers take
//! none of what our own atSigns need.
//!
//! Source: at_server:packages/at_secondary_server/lib/src/connection/outbound.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_std::future::timeout;

use crate::{
    at::{
        AtSign, auth,
        client::{AtError, Network},
        crypto::KeyPair,
        directory,
    },
    budget::{Hold, Usage},
    net::{dial::dial, recent::Recent, tls::TlsStream},
    text::endpoint::Endpoint,
};

use connection::{PeerConnection, PeerError};
pub(super) use proofs::LIMITS as PROOFS;
#[cfg(test)]
pub(super) use proofs::{OF_CALLER, OF_NETWORK};
use proofs::{PROOF_TIME, Proofs};

use super::{
    clock::now,
    delivery::learn_key,
    pool::Pool,
    session::{Errand, Fetched, Outbound, OutgoingParty, Proof, RemoteQuery, parse_all},
    store::{Store, StoreError, notes::Note, register::Home},
};

/// How long the signature for one `pol` can be looked up, in milliseconds.
const PROOF_LIFE: u64 = 60_000;

/// Why a connection is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Wish {
    /// The owner asks for something, and waits.
    Owners,
    /// Something is to be delivered.
    Delivery,
}

/// Other servers, and how to find them.
pub struct PeerServers {
    network: Network,
    store: Store,
    within: Duration,
    /// The connections there are, idle ones too.
    open: Arc<Outbound>,
    idle: Pool<PeerConnection>,
    proofs: Proofs,
    /// Of whose deliveries and questions that failed the log has told.
    told: Mutex<Recent<(AtSign, Wish)>>,
}

impl PeerServers {
    /// `within` is how long another server may take for an answer.
    pub fn new(network: Network, store: Store, within: Duration, open: Arc<Outbound>) -> Self {
        Self {
            network,
            store,
            within,
            open,
            idle: Pool::default(),
            proofs: Proofs::default(),
            told: Mutex::new(Recent::new(Duration::from_secs(60), 1024)),
        }
    }

    /// Closes what has not been used for too long.
    pub fn tidy(&self) {
        self.idle.tidy(Instant::now());
    }

    /// Closes what speaks for an atSign that lives here no more.
    pub fn part(&self, who: &AtSign) {
        self.idle.part(who);
    }

    /// What the caller's own server shows to prove that it is the caller: signature and signing key. Whoever asks
    /// for this has not logged in, so it has connections of its own, few for each.
    pub async fn proof(&self, proof: &Proof, from: IpAddr) -> Option<(String, String)> {
        let caller = &proof.caller;
        if self.proofs.is_silent(caller) {
            return None;
        }
        let asked = async {
            let _place = self.proofs.place(caller, from).await?;
            if self.proofs.is_silent(caller) {
                return Err(PeerError::SilentLately);
            }
            let asked = timeout(PROOF_TIME, self.ask_proof(proof)).await;
            asked.unwrap_or_else(|late| Err(late.into()))
        };
        let outcome = asked.await;
        if let Err(why) = &outcome {
            self.proofs.failed(caller, why);
        }
        outcome.ok()
    }

    async fn ask_proof(&self, proof: &Proof) -> Result<(String, String), PeerError> {
        let mut link = self.link(&proof.caller, PROOF_TIME, None).await?;
        let signature = link
            .short_data(&format!("lookup:{}", proof.signature_at))
            .await?;
        let key = link.short_data(&format!("lookup:{}", proof.key_at)).await?;
        link.close().await;
        Ok((signature, key))
    }

    /// What the connections for proofs were used for.
    pub fn proofs_usage(&self) -> Usage {
        self.proofs.usage()
    }

    /// Asks for a value, or a list of keys.
    pub async fn fetch(&self, me: &Home, errand: &Errand) -> Fetched {
        let (line, pol) = match &errand.question {
            RemoteQuery::Public { key } => (format!("lookup:all:{key}"), false),
            RemoteQuery::Shared { key } => (format!("lookup:all:{key}"), true),
            RemoteQuery::Scan { regex: None } => ("scan".to_owned(), true),
            RemoteQuery::Scan { regex: Some(regex) } => (format!("scan {regex}"), true),
        };
        let asked = async {
            if pol {
                return self.ask_as(me, &errand.of, &line).await;
            }
            let mut link = self.dial(&me.who, &errand.of, Wish::Owners).await?;
            let is_key = line.starts_with("lookup:all:publickey@");
            let answer = if is_key {
                link.short_data(&line).await
            } else {
                link.data(&line).await
            };
            link.close().await;
            answer
        };
        match asked.await {
            Ok(data) => Fetched::Data(data),
            Err(PeerError::Refused(fault)) => Fetched::Fault(fault),
            Err(PeerError::Directory(AtError::Unknown { .. })) => Fetched::Unknown,
            Err(why) => {
                self.log_failure(&me.who, &errand.of, Wish::Owners, &why);
                Fetched::Unreachable
            }
        }
    }

    /// Delivers notes in order; says of the first ones whether they arrived, or will never be taken. The rest waits.
    /// Also whether anybody of this name is known at all.
    pub async fn deliver(&self, me: &Home, to: &AtSign, notes: &[Note]) -> (Vec<bool>, bool) {
        let mut sent = Vec::new();
        let attempt = async {
            if let Some((mut link, born)) = self.met(&me.who, to).await {
                match link.hand_over(notes, &mut sent).await {
                    Ok(()) => return Ok((link, born)),
                    Err(why) if !why.is_a_closed_connection() => return Err(why),
                    Err(_) => {}
                }
            }
            let mut link = self.introduce(me, to, Wish::Delivery).await?;
            link.hand_over(notes, &mut sent).await?;
            Ok((link, Instant::now()))
        };
        let mut known = true;
        match attempt.await {
            Ok((link, born)) => self.idle.keep(&me.who, to, link, born, Instant::now()),
            Err(why) => {
                known = !matches!(why, PeerError::Directory(AtError::Unknown { .. }));
                self.log_failure(&me.who, to, Wish::Delivery, &why);
            }
        }
        (sent, known)
    }

    /// Once a minute for each of ours: for what it sends, and for what it asks.
    fn log_failure(&self, me: &AtSign, to: &AtSign, wish: Wish, why: &PeerError) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_new(&(me.clone(), wish), Instant::now()) {
            log::info!("from={me} peer={to} reason=\"{why}\" quiet=60s");
        }
    }

    /// Asks once, on a connection that knows us.
    async fn ask_as(&self, me: &Home, to: &AtSign, line: &str) -> Result<String, PeerError> {
        let (mut link, mut born) = match self.met(&me.who, to).await {
            Some(met) => met,
            None => (self.introduce(me, to, Wish::Owners).await?, Instant::now()),
        };
        let mut answer = link.data(line).await;
        if link.is_old
            && answer
                .as_ref()
                .is_err_and(PeerError::is_a_closed_connection)
        {
            (link, born) = (self.introduce(me, to, Wish::Owners).await?, Instant::now());
            answer = link.data(line).await;
        }
        // After a refusal the other server may show another prompt: that connection is not kept.
        if answer.is_ok() {
            self.idle.keep(&me.who, to, link, born, Instant::now());
        }
        answer
    }

    /// A connection that is there already, and on which nothing has come meanwhile: not even its end.
    async fn met(&self, me: &AtSign, to: &AtSign) -> Option<(PeerConnection, Instant)> {
        loop {
            let (mut link, born) = self.idle.take(me, to, Instant::now())?;
            if link.is_quiet().await {
                link.is_old = true;
                return Some((link, born));
            }
        }
    }

    /// Connects without saying who we are.
    async fn dial(
        &self,
        me: &AtSign,
        to: &AtSign,
        wish: Wish,
    ) -> Result<PeerConnection, PeerError> {
        self.link(to, self.within, Some((me, wish))).await
    }

    async fn link(
        &self,
        to: &AtSign,
        within: Duration,
        asker: Option<(&AtSign, Wish)>,
    ) -> Result<PeerConnection, PeerError> {
        let (at, from_memory) =
            directory::locate(&self.network.root, &self.network.tls, to).await?;
        let place = match asker {
            Some((me, wish)) => Some(self.place(me, &at.host, wish)?),
            None => None,
        };
        let connected = match self.connect(&at, within).await {
            Err(_) if from_memory => {
                // It may have moved.
                directory::forget(&self.network.root, to);
                let (at, _) = directory::locate(&self.network.root, &self.network.tls, to).await?;
                self.connect(&at, within).await
            }
            connected => connected,
        };
        if connected.is_err() {
            directory::forget(&self.network.root, to);
        }
        Ok(PeerConnection::new(connected?, within, place))
    }

    async fn connect(&self, at: &Endpoint, within: Duration) -> Result<TlsStream, PeerError> {
        let tcp = dial(at, within).await?;
        Ok(self.network.tls.connect(&at.host, tcp, within).await?)
    }

    /// Idle connections make room for one that is needed.
    fn place(&self, me: &AtSign, host: &str, wish: Wish) -> Result<Hold<OutgoingParty>, PeerError> {
        loop {
            if let Some(place) = self.open.enter(me, host, wish == Wish::Owners) {
                return Ok(place);
            }
            if !self.idle.evict(me) {
                return Err(PeerError::TooMany);
            }
        }
    }

    /// Connects and proves that we are `me`.
    async fn introduce(
        &self,
        me: &Home,
        to: &AtSign,
        wish: Wish,
    ) -> Result<PeerConnection, PeerError> {
        let mut link = self.dial(&me.who, to, wish).await?;
        // Servers do this at every meeting, and so learn of new keys. It may well have none yet.
        match link.short_data(&format!("lookup:all:publickey{to}")).await {
            Ok(found) => self.learn(me, to, &found).await?,
            Err(PeerError::Refused(_)) => {}
            Err(why) => return Err(why),
        }
        let answer = link.data(&auth::ask(&me.who).to_string()).await?;
        self.prove(me, to, answer).await?;
        link.pol(&me.who).await?;
        Ok(link)
    }

    async fn learn(&self, me: &Home, who: &AtSign, found: &str) -> Result<(), PeerError> {
        let Some(record) = parse_all(found, now()) else {
            return Ok(());
        };
        let (me, who, now) = (me.clone(), who.clone(), now());
        let learnt = self
            .store
            .write(move |tx| learn_key(tx, &me, &who, record.clone(), now));
        Ok(learnt.await?)
    }

    /// Shows the world that we are the one who was challenged with `answer`.
    async fn prove(&self, me: &Home, to: &AtSign, answer: String) -> Result<(), PeerError> {
        let (home, to, now) = (me.clone(), to.clone(), now());
        let proven = self.store.write(move |tx| {
            let name = format!("{0}:signing_privatekey{0}", home.who);
            let stored = home.record(tx, &name)?.ok_or(StoreError::Row)?;
            let signing = KeyPair::parse(&stored.value).map_err(|_| StoreError::Row)?;
            let (key, signature) = auth::prove_to_peer(&home.who, &signing, &answer)
                .map_err(|_| PeerError::Handshake(to.clone()))?;
            let put = home.put_plain(tx, &key.to_string(), &signature, Some(PROOF_LIFE), now);
            Ok::<_, PeerError>(put?)
        });
        proven.await
    }
}

mod connection;
mod proofs;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
