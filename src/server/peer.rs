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
    io,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use async_std::future::timeout;
use futures_lite::{AsyncReadExt, AsyncWriteExt, future::poll_once};

use crate::{
    at::{
        AtKey, AtSign, Metadata, Replies, Reply, Verb, auth,
        client::{AtError, Network},
        crypto::KeyPair,
        directory,
        fault::{Code, Fault},
        reply::{Mode, WireError},
        verb::{Notify, Subject},
    },
    net::{
        dial::{Endpoint, dial},
        tls::{TlsError, TlsStream},
    },
};

use proofs::Proofs;

use super::{
    delivery::learn_key,
    listen::now,
    pool::Pool,
    session::{Errand, Fetched, Outbound, Proof, RemoteQuery, parse_all},
    store::{Store, StoreError, notes::Note, register::Home},
};

/// How long the signature for one `pol` can be looked up, in milliseconds.
const PROOF_LIFE: u64 = 60_000;
/// Most connections to other servers at a time.
const MAX_OUTBOUND: usize = 200;

/// How long a caller's own server may take in all to prove the caller.
const PROOF_TIME: Duration = Duration::from_secs(3);

/// Other servers, and how to find them.
pub struct PeerServers {
    network: Network,
    store: Store,
    within: Duration,
    /// The connections there are, idle ones too.
    open: Arc<Outbound>,
    idle: Pool<PeerConnection>,
    proofs: Proofs,
}

/// Why another server could not be asked.
#[derive(Debug, thiserror::Error)]
enum PeerError {
    #[error(transparent)]
    Directory(#[from] AtError),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0}")]
    Refused(Fault),
    #[error("{0} did not let us in")]
    Handshake(AtSign),
    #[error("too many connections to other servers")]
    TooMany,
    #[error("it was silent within the last minute")]
    SilentLately,
    #[error("no answer in time")]
    TimedOut(#[from] async_std::future::TimeoutError),
}

impl PeerError {
    /// The other side has gone, in one way or another: not an answer.
    fn is_a_closed_connection(&self) -> bool {
        matches!(
            self,
            Self::Io(_) | Self::Tls(_) | Self::Wire(_) | Self::TimedOut(_)
        )
    }
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
        let signature = link.data(&format!("lookup:{}", proof.signature_at)).await?;
        let key = link.data(&format!("lookup:{}", proof.key_at)).await?;
        link.close().await;
        Ok((signature, key))
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
            let mut link = self.dial(&me.who, &errand.of).await?;
            let answer = link.data(&line).await;
            link.close().await;
            answer
        };
        match asked.await {
            Ok(data) => Fetched::Data(data),
            Err(PeerError::Refused(fault)) => Fetched::Fault(fault),
            Err(PeerError::Directory(AtError::Unknown { .. })) => Fetched::Unknown,
            Err(why) => {
                log::info!("peer={} fetch={why}", errand.of);
                Fetched::Unreachable
            }
        }
    }

    /// Delivers notes in order; says of the first ones whether they arrived, or will never be taken. The rest waits.
    pub async fn deliver(&self, me: &Home, to: &AtSign, notes: &[Note]) -> Vec<bool> {
        let mut sent = Vec::new();
        let attempt = async {
            if let Some((mut link, born)) = self.met(&me.who, to).await {
                match link.hand_over(notes, &mut sent).await {
                    Ok(()) => return Ok((link, born)),
                    Err(why) if !why.is_a_closed_connection() => return Err(why),
                    Err(_) => {}
                }
            }
            let mut link = self.introduce(me, to).await?;
            link.hand_over(notes, &mut sent).await?;
            Ok((link, Instant::now()))
        };
        match attempt.await {
            Ok((link, born)) => self.idle.keep(&me.who, to, link, born, Instant::now()),
            Err(why) => log::info!("from={} peer={to} sent={} reason={why}", me.who, sent.len()),
        }
        sent
    }

    /// Asks once, on a connection that knows us.
    async fn ask_as(&self, me: &Home, to: &AtSign, line: &str) -> Result<String, PeerError> {
        let (mut link, mut born) = match self.met(&me.who, to).await {
            Some(met) => met,
            None => (self.introduce(me, to).await?, Instant::now()),
        };
        let mut answer = link.data(line).await;
        if link.is_old
            && answer
                .as_ref()
                .is_err_and(PeerError::is_a_closed_connection)
        {
            (link, born) = (self.introduce(me, to).await?, Instant::now());
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
            if poll_once(link.stream.read(&mut [0; 1])).await.is_none() {
                link.is_old = true;
                return Some((link, born));
            }
        }
    }

    /// Connects without saying who we are.
    async fn dial(&self, me: &AtSign, to: &AtSign) -> Result<PeerConnection, PeerError> {
        let place = self.place(me)?;
        self.link(to, self.within, Some(place)).await
    }

    async fn link(
        &self,
        to: &AtSign,
        within: Duration,
        place: Option<OutboundSlot>,
    ) -> Result<PeerConnection, PeerError> {
        let (at, from_memory) =
            directory::locate(&self.network.root, &self.network.tls, to).await?;
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
        Ok(PeerConnection {
            stream: connected?,
            replies: Replies::new(Mode::Request),
            within,
            is_old: false,
            _place: place,
        })
    }

    async fn connect(&self, at: &Endpoint, within: Duration) -> Result<TlsStream, PeerError> {
        let tcp = dial(at, within).await?;
        Ok(self.network.tls.connect(&at.host, tcp, within).await?)
    }

    /// Idle connections make room for one that is needed.
    fn place(&self, me: &AtSign) -> Result<OutboundSlot, PeerError> {
        while !self.open.enter(me, MAX_OUTBOUND) {
            if !self.idle.evict() {
                return Err(PeerError::TooMany);
            }
        }
        Ok(OutboundSlot {
            open: self.open.clone(),
            me: me.clone(),
        })
    }

    /// Connects and proves that we are `me`.
    async fn introduce(&self, me: &Home, to: &AtSign) -> Result<PeerConnection, PeerError> {
        let mut link = self.dial(&me.who, to).await?;
        // Servers do this at every meeting, and so learn of new keys. It may well have none yet.
        match link.data(&format!("lookup:all:publickey{to}")).await {
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
            let signing = home.record(tx, &name)?.ok_or(StoreError::Row)?;
            let signing = KeyPair::parse(&signing.value).map_err(|_| StoreError::Row)?;
            let (key, signature) = auth::prove_to_peer(&home.who, &signing, &answer)
                .map_err(|_| PeerError::Handshake(to.clone()))?;
            let put = home.put_plain(tx, &key.to_string(), &signature, Some(PROOF_LIFE), now);
            Ok::<_, PeerError>(put?)
        });
        proven.await
    }
}

/// A connection's place among [`MAX_OUTBOUND`].
struct OutboundSlot {
    open: Arc<Outbound>,
    me: AtSign,
}

impl Drop for OutboundSlot {
    fn drop(&mut self) {
        self.open.leave(&self.me);
    }
}

/// One connection to another server.
struct PeerConnection {
    stream: TlsStream,
    replies: Replies,
    within: Duration,
    /// Used before: the other side may have closed it without our knowing yet.
    is_old: bool,
    _place: Option<OutboundSlot>,
}

impl PeerConnection {
    /// Delivers those that have not been yet, in order. One that is too long for the other server, or that no command
    /// can carry, stays so: it is not tried again, and does not stop those behind it.
    async fn hand_over(&mut self, notes: &[Note], sent: &mut Vec<bool>) -> Result<(), PeerError> {
        for note in notes.iter().skip(sent.len()) {
            let Some(line) = command(note).and_then(|command| command.line().ok()) else {
                let (from, to) = (&note.from, &note.to);
                log::warn!("from={from} to={to} reason=\"no command can carry it\"");
                sent.push(false);
                continue;
            };
            let too_long = |fault: &Fault| fault.code == Some(Code::BufferLimit);
            match self.data(&line).await {
                Ok(_) => sent.push(true),
                Err(PeerError::Refused(fault)) if too_long(&fault) => sent.push(false),
                Err(why) => return Err(why),
            }
        }
        Ok(())
    }

    /// Sends a command, returns the text behind `data:`.
    async fn data(&mut self, line: &str) -> Result<String, PeerError> {
        match self.ask(line).await? {
            Reply::Data(text) => Ok(text),
            Reply::Error(fault) => Err(PeerError::Refused(fault)),
            _ => Err(WireError::Unknown.into()),
        }
    }

    /// Sends `pol` and waits for the prompt that says who we are.
    async fn pol(&mut self, me: &AtSign) -> Result<(), PeerError> {
        self.replies.expect_prompt();
        match self.ask(&Verb::Pol.to_string()).await? {
            Reply::Prompt(prompt) if prompt.trim_matches('@') == me.bare() => Ok(()),
            Reply::Error(fault) => Err(PeerError::Refused(fault)),
            _ => Err(PeerError::Handshake(me.clone())),
        }
    }

    async fn ask(&mut self, line: &str) -> Result<Reply, PeerError> {
        let within = self.within;
        timeout(within, self.exchange(line)).await?
    }

    async fn exchange(&mut self, line: &str) -> Result<Reply, PeerError> {
        self.stream
            .write_all(format!("{line}\n").as_bytes())
            .await?;
        self.stream.flush().await?;
        let mut buffer = [0; 4096];
        loop {
            if let Some(reply) = self.replies.pop()? {
                return Ok(reply);
            }
            let read = self.stream.read(&mut buffer).await?;
            if read == 0 {
                return match self.replies.finish()? {
                    Some(reply) => Ok(reply),
                    None => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                };
            }
            self.replies.push(&buffer[..read]);
        }
    }

    async fn close(mut self) {
        let _ = timeout(Duration::from_secs(1), self.stream.close()).await;
    }
}

/// The command that hands a note to the recipient's server, in the order that servers of 2024 read. `None`: its key is
/// none.
fn command(note: &Note) -> Option<Verb> {
    let subject = if note.is_text {
        let to = note.to.clone();
        let text = note.key.strip_prefix(to.as_str())?.strip_prefix(':')?;
        let text = text.to_owned();
        Subject::Text { to, text }
    } else {
        let key = AtKey::parse_as_written(&note.key).ok()?;
        Subject::Key { to: None, key }
    };
    let metadata = Metadata {
        is_encrypted: Some(note.is_encrypted),
        ..note.meta.to_command()
    };
    Some(Verb::Notify(Box::new(Notify {
        id: Some(note.id.clone()),
        operation: Some(note.operation),
        priority: None,
        strategy: None,
        latest_n: None,
        notifier: Some(note.notifier.clone()),
        ttln: Some(note.ttln),
        message_type: true,
        metadata,
        subject,
        value: note.value.clone(),
    })))
}

mod proofs;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
