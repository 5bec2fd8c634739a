//! One connection to an atServer: one command at a time, no reconnecting.
//!
//! ```text
//!   ask(line) ──write──▶ atServer        a reply that comes too late must not be taken for the next one's,
//!             ◀─Replies─                 so after any failure the link is dead for good
//! ```

use std::{
    future::{pending, ready},
    io,
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use async_std::{future::timeout, net::TcpStream, task::sleep};
use futures_lite::{
    AsyncReadExt, AsyncWriteExt,
    future::{Boxed, or},
};

use crate::{
    at::{
        atsign::AtSign,
        auth,
        directory::{self, Network, Root},
        error::AtError,
        keyfile::AtKeys,
        reply::{Mode, Replies, Reply, WireError},
        verb::Verb,
    },
    net::{
        Duplex,
        dial::{dial, resolve},
    },
    secret::Secret,
    text::{duration::in_words, endpoint::Endpoint},
};

use super::{
    alarm::{Alarm, Bell},
    barred::Barred,
    timing::Timing,
};

/// Read at a time.
const READ: usize = 4096;

pub(super) type Stream = Box<dyn Duplex + Send>;

/// A connection on which nothing was said yet, and its ends where it has addresses.
pub(super) struct Connected {
    pub stream: Stream,
    pub ends: Option<Ends>,
}

/// The two addresses of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    pub local: SocketAddr,
    pub peer: SocketAddr,
}

impl Ends {
    pub(super) fn of(tcp: &TcpStream) -> Option<Self> {
        let (local, peer) = (tcp.local_addr().ok()?, tcp.peer_addr().ok()?);
        Some(Self { local, peer })
    }
}

/// Makes connections to one atSign's atServer; not a word has been said on them yet.
pub(super) trait Transport: Send + Sync + 'static {
    fn connect(self: Arc<Self>) -> Boxed<Result<Connected, AtError>>;
    /// The last connection led to another atSign's server.
    fn doubt(&self) {}
    /// The host of somebody's atServer, if that can be known.
    fn host_of(self: Arc<Self>, _who: AtSign) -> Boxed<Option<String>> {
        Box::pin(ready(None))
    }
    /// Ends when a new connection would lead to another address than this one, and somebody listens there; else never.
    fn elsewhere(self: Arc<Self>, _peer: SocketAddr) -> Boxed<()> {
        Box::pin(pending())
    }
}

/// By directory, TCP and TLS.
pub(super) struct NetworkTransport {
    network: Network,
    who: AtSign,
    timing: Timing,
}

impl Transport for NetworkTransport {
    fn connect(self: Arc<Self>) -> Boxed<Result<Connected, AtError>> {
        Box::pin(async move { self.find_and_connect().await })
    }

    fn elsewhere(self: Arc<Self>, peer: SocketAddr) -> Boxed<()> {
        Box::pin(async move {
            if !self.has_moved(peer).await {
                pending::<()>().await;
            }
        })
    }

    fn host_of(self: Arc<Self>, who: AtSign) -> Boxed<Option<String>> {
        Box::pin(async move {
            let Network { root, tls } = &self.network;
            // Behind a proxy all have its address.
            let Root::Directory(_) = root else {
                return None;
            };
            let found = directory::locate(root, tls, &who).await;
            found.ok().map(|(at, _)| at.host)
        })
    }

    fn doubt(&self) {
        directory::forget(&self.network.root, &self.who);
    }
}

impl NetworkTransport {
    pub(super) fn new(network: &Network, who: &AtSign, timing: Timing) -> Self {
        Self {
            network: network.clone(),
            who: who.clone(),
            timing,
        }
    }

    /// Whether the name leads elsewhere than there, and somebody answers.
    pub(super) async fn has_moved(&self, from: SocketAddr) -> bool {
        let Network { root, tls } = &self.network;
        let Ok((at, _)) = directory::locate(root, tls, &self.who).await else {
            return false;
        };
        let is_same = |one: &SocketAddr| one.ip().to_canonical() == from.ip().to_canonical();
        match resolve(&at).await {
            Ok(found) if !found.iter().any(is_same) => dial(&at, self.timing.connect).await.is_ok(),
            _ => false,
        }
    }

    /// Whether the directory, asked because an address from memory does not answer soon, names another by now.
    async fn is_outdated(&self, at: &Endpoint) -> bool {
        sleep(self.timing.doubt).await;
        let Network { root, tls } = &self.network;
        let found = directory::find(root, tls, &self.who).await;
        matches!(found, Ok(Some(now)) if now != *at)
    }

    /// An address from memory gets a second chance with a fresh one: servers move.
    async fn find_and_connect(&self) -> Result<Connected, AtError> {
        loop {
            let Network { root, tls } = &self.network;
            let (at, from_memory) = directory::locate(root, tls, &self.who).await?;
            let dialled = dial(&at, self.timing.connect);
            let given_up = async {
                match from_memory && self.is_outdated(&at).await {
                    true => Err(io::Error::other(
                        "the atDirectory names another address now",
                    )),
                    false => pending().await,
                }
            };
            let why = match or(dialled, given_up).await {
                Ok(tcp) => {
                    let ends = Ends::of(&tcp);
                    match tls.connect(&at.host, tcp, self.timing.connect).await {
                        Ok(stream) => {
                            let stream = Box::new(stream);
                            return Ok(Connected { stream, ends });
                        }
                        Err(source) => AtError::Tls {
                            what: format!("{}'s atServer at {at}", self.who),
                            source,
                        },
                    }
                }
                Err(why) => AtError::Unreachable {
                    who: self.who.clone(),
                    at: at.to_string(),
                    why: why.to_string(),
                },
            };
            directory::forget(root, &self.who);
            if !from_memory {
                return Err(why);
            }
        }
    }
}

/// What a client's connections need to log in.
#[derive(Clone)]
pub(super) struct LoginContext {
    pub transport: Arc<dyn Transport>,
    pub keys: Arc<AtKeys>,
    pub timing: Timing,
    pub barred: Arc<Barred>,
    pub alarm: Arc<Alarm>,
}

impl LoginContext {
    /// Connects and logs in, unless these keys were refused for good a moment ago.
    pub(super) async fn log_in(&self) -> Result<Link, AtError> {
        self.log_in_reading(None).await
    }

    /// As [`Self::log_in`], and tells the server how long the lines are that are read here.
    pub(super) async fn log_in_reading(&self, limit: Option<usize>) -> Result<Link, AtError> {
        self.barred.check(&self.keys.atsign)?;
        let connected = Arc::clone(&self.transport).connect().await?;
        let mut link = Link::new(connected, self.keys.atsign.clone(), &self.timing);
        link.limit = limit;
        let outcome = link.login(&self.keys).await;
        if let Err(AtError::Auth(auth::AuthError::WrongServer(_))) = &outcome {
            self.transport.doubt();
        }
        self.barred.note(&outcome, self.timing.barred);
        outcome.map(|()| link)
    }

    /// While a proof is waited for: ends when there is no use in waiting any longer. One that is not answered soon looks
    /// whether the server has moved: the old address is not waited for when somebody answers at the new one. It also tells
    /// the client's other connections, unless it was told by one: on a slow line they would tell each other for ever.
    pub(super) async fn hopeless(
        &self,
        ends: Option<Ends>,
        tell: Option<&Bell>,
        within: Duration,
    ) -> LinkError {
        let silent = async {
            sleep(within).await;
            LinkError::Silent(within)
        };
        let moved = async {
            sleep(self.timing.doubt).await;
            if let Some(bell) = tell {
                bell.ring_others(self.timing.proof);
            }
            match ends {
                Some(ends) => Arc::clone(&self.transport).elsewhere(ends.peer).await,
                None => pending().await,
            }
            LinkError::Moved
        };
        or(silent, moved).await
    }
}

/// One connection to an atServer, for what needs no more than that: activation, enrolment, a single question.
/// [`super::Client`] is the one that lives long.
pub struct Link {
    who: AtSign,
    stream: Stream,
    pub(super) ends: Option<Ends>,
    replies: Replies,
    timing: Timing,
    /// Something went wrong: what comes now may answer an older command.
    dead: bool,
    /// The server has said its last word.
    ended: bool,
    /// To be told at the login: the longest line that is read here.
    limit: Option<usize>,
    read: Box<[u8; READ]>,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Link({})", self.who)
    }
}

impl Link {
    /// Finds the atServer and connects; does not log in.
    ///
    /// # Errors
    /// Names who could not be reached.
    pub async fn connect(network: &Network, who: &AtSign) -> Result<Self, AtError> {
        Self::connect_with(network, who, Timing::default()).await
    }

    /// As [`Link::connect`], with other deadlines.
    ///
    /// # Errors
    /// As [`Link::connect`].
    pub async fn connect_with(
        network: &Network,
        who: &AtSign,
        timing: Timing,
    ) -> Result<Self, AtError> {
        let transport = NetworkTransport::new(network, who, timing);
        let stream = transport.find_and_connect().await?;
        Ok(Self::new(stream, who.clone(), &timing))
    }

    /// Does not wait for the greeting `@`: it goes the way of all prompts, and waiting would cost a round trip.
    pub(super) fn new(connected: Connected, who: AtSign, timing: &Timing) -> Self {
        let Connected { stream, ends } = connected;
        Self {
            who,
            stream,
            ends,
            replies: Replies::new(Mode::Request),
            timing: *timing,
            dead: false,
            ended: false,
            limit: None,
            read: Box::new([0; READ]),
        }
    }

    /// Logs in with PKAM.
    ///
    /// # Errors
    /// `Login` with the server's fault; `Auth` when this is another atSign's server.
    pub async fn login(&mut self, keys: &AtKeys) -> Result<(), AtError> {
        self.log_in_by(|challenge| auth::prove(keys, challenge))
            .await
    }

    /// Logs in with the secret of an atSign that has not been activated yet.
    ///
    /// # Errors
    /// As [`Link::login`].
    pub async fn login_by_secret(&mut self, secret: &Secret<String>) -> Result<(), AtError> {
        let who = self.who.clone();
        self.log_in_by(|challenge| auth::prove_by_secret(&who, secret.reveal(), challenge))
            .await
    }

    async fn log_in_by(
        &mut self,
        prove: impl FnOnce(&str) -> Result<Verb, auth::AuthError>,
    ) -> Result<(), AtError> {
        let within = self.timing.login;
        let who = self.who.clone();
        let refused = |reply: Reply| match reply {
            Reply::Data(text) => Ok(text),
            Reply::Error(fault) => Err(AtError::Login {
                who: who.clone(),
                fault,
            }),
            _ => Err(AtError::Protocol(
                "the atServer answered a login with something else".to_owned(),
            )),
        };
        let dialog = async {
            let challenge = refused(self.challenge().await?)?;
            let proof = prove(&challenge)?.to_string();
            let answer = refused(self.exchange(&proof).await?)?;
            if answer == auth::SUCCESS {
                return Ok(());
            }
            Err(AtError::Protocol(format!(
                "the atServer answered a login with {} bytes that are not {}",
                answer.len(),
                auth::SUCCESS
            )))
        };
        let outcome = timeout(within, dialog).await;
        outcome.unwrap_or(Err(AtError::Silent(within)))
    }

    async fn challenge(&mut self) -> Result<Reply, AtError> {
        if let Some(limit) = self.limit {
            let ask = auth::ask_with_limit(&self.who, limit).to_string();
            match self.exchange(&ask).await? {
                // It knows no more than the plain command, or wants something else in the JSON.
                Reply::Error(fault) if !fault.closes_connection() => {}
                reply => return Ok(reply),
            }
        }
        self.exchange(&auth::ask(&self.who).to_string()).await
    }

    /// For the login, whose deadline covers all its commands.
    async fn exchange(&mut self, line: &str) -> Result<Reply, AtError> {
        let within = self.timing.login;
        let reply = self.ask_line(line, within).await;
        reply.map_err(|broken| broken.into_error(&self.who))
    }

    /// Sends one command, waits for its answer: the text behind `data:`.
    ///
    /// # Errors
    /// `Refused` with the server's fault; after `Silent` and `Lost` the link is of no further use.
    pub async fn ask(&mut self, verb: &Verb) -> Result<String, AtError> {
        let line = command(verb)?;
        let within = self.timing.reply;
        let reply = self.ask_line(&line, within).await;
        self.dead |= !matches!(&reply, Ok(Reply::Data(_) | Reply::Error(_)));
        judge(reply, &self.who)
    }

    pub(super) async fn ask_line(
        &mut self,
        line: &str,
        within: Duration,
    ) -> Result<Reply, LinkError> {
        if !self.is_usable() {
            return Err(LinkError::Lost("it is out of step".to_owned()));
        }
        // Dead until the answer is here, also when nobody waits for this future any more.
        self.dead = true;
        let exchange = async {
            self.write(line).await?;
            loop {
                if let Some(reply) = self.pop()? {
                    return Ok(reply);
                }
                if !self.fill().await? {
                    return self.last_words();
                }
            }
        };
        let outcome = in_time(within, exchange).await;
        self.dead = outcome.is_err();
        outcome
    }

    /// Whether another command may be sent.
    pub(super) fn is_usable(&mut self) -> bool {
        let in_step = matches!(self.replies.pop(), Ok(None)) && !self.replies.is_partial();
        self.dead |= self.ended || !in_step;
        !self.dead
    }

    /// Sends a line without waiting for an answer.
    pub(super) async fn send(&mut self, line: &str, within: Duration) -> Result<(), LinkError> {
        let outcome = in_time(within, self.write(line)).await;
        self.dead |= outcome.is_err();
        outcome
    }

    async fn write(&mut self, line: &str) -> Result<(), LinkError> {
        self.stream
            .write_all(format!("{line}\n").as_bytes())
            .await?;
        Ok(self.stream.flush().await?)
    }

    /// Waits for bytes; false at the end of the stream. Nothing is lost when the wait is given up.
    pub(super) async fn fill(&mut self) -> Result<bool, LinkError> {
        let count = self.stream.read(&mut self.read[..]).await?;
        self.replies.push(&self.read[..count]);
        self.ended |= count == 0;
        Ok(!self.ended)
    }

    /// A server that is full, or will not have us, says so and closes, without a prompt.
    fn last_words(&mut self) -> Result<Reply, LinkError> {
        let words = self.replies.finish()?;
        words.ok_or_else(|| LinkError::Lost("it was closed".to_owned()))
    }

    pub(super) fn pop(&mut self) -> Result<Option<Reply>, LinkError> {
        Ok(self.replies.pop()?)
    }

    pub(super) fn is_partial(&self) -> bool {
        self.replies.is_partial()
    }

    /// Bytes so far of a line that is being passed over.
    pub(super) fn skipping(&self) -> Option<u64> {
        self.replies.skipping()
    }

    /// From now on a line end finishes everything, and lines of more than `limit` bytes are passed over.
    pub(super) fn becomes_monitor(&mut self, limit: usize) {
        self.replies.set_mode(Mode::Monitor);
        self.replies.set_limit(limit);
    }

    /// While nothing is asked: ends when the connection does, or when something comes that nobody asked for.
    pub(super) async fn watch(&mut self) -> LinkError {
        loop {
            match self.pop() {
                Ok(None) => {}
                Ok(Some(Reply::Error(fault))) => return LinkError::Lost(fault.to_string()),
                Ok(Some(_)) => return LinkError::Lost("it is out of step".to_owned()),
                Err(broken) => return broken,
            }
            match self.fill().await {
                Ok(true) => {}
                Ok(false) => return LinkError::Lost("it was closed".to_owned()),
                Err(broken) => return broken,
            }
        }
    }

    /// Says goodbye, as far as that is possible within the time.
    pub(super) async fn close(mut self, within: Duration) {
        let _ = timeout(within, self.stream.close()).await;
    }
}

/// The line of a command that one may send on a connection used for others too.
pub(super) fn command(verb: &Verb) -> Result<String, AtError> {
    verb.line()
        .map_err(|why| AtError::Protocol(why.to_string()))
}

/// Silence is a failure, too.
async fn in_time<T>(
    within: Duration,
    work: impl Future<Output = Result<T, LinkError>>,
) -> Result<T, LinkError> {
    let outcome = timeout(within, work).await;
    outcome.unwrap_or(Err(LinkError::Silent(within)))
}

/// The text behind `data:`, or why there is none.
pub(super) fn judge(reply: Result<Reply, LinkError>, who: &AtSign) -> Result<String, AtError> {
    match reply {
        Ok(Reply::Data(text)) => Ok(text),
        Ok(Reply::Error(fault)) => Err(AtError::Refused(fault)),
        Ok(_) => Err(AtError::Protocol(
            "the atServer answered with something else".to_owned(),
        )),
        Err(broken) => Err(broken.into_error(who)),
    }
}

/// Why a connection is of no further use.
#[derive(Debug)]
pub(super) enum LinkError {
    Lost(String),
    Silent(Duration),
    /// Its server's name leads elsewhere, and somebody answers there.
    Moved,
}

impl LinkError {
    pub(super) fn into_error(self, who: &AtSign) -> AtError {
        match self {
            Self::Lost(why) => AtError::Lost {
                who: who.clone(),
                why,
            },
            Self::Silent(after) => AtError::Silent(after),
            Self::Moved => AtError::Lost {
                who: who.clone(),
                why: self.to_string(),
            },
        }
    }
}

impl From<WireError> for LinkError {
    fn from(why: WireError) -> Self {
        Self::Lost(why.to_string())
    }
}

impl From<std::io::Error> for LinkError {
    fn from(why: std::io::Error) -> Self {
        Self::Lost(why.to_string())
    }
}

impl std::fmt::Display for LinkError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Lost(why) => f.write_str(why),
            Self::Silent(after) => write!(f, "silent for {}", in_words(*after)),
            Self::Moved => f.write_str("the server's name leads elsewhere now"),
        }
    }
}
