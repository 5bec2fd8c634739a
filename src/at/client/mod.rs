//! Speaks to atServers. One task owns each connection; callers send it work and wait with a deadline.
//!
//! ```text
//!   Client ──verb──▶ [worker task] ⇄ own atServer        one command at a time, reconnects, repeats a lost look-up once
//!   Subscription ◀── [monitor task] ⇄ own atServer       noop every 15 s; silent for 30 s ⇒ reconnect with jittered back-off
//! ```
//! Until the first command can be sent: TCP, TLS, `from`, `pkam`, one round trip each (two for TLS 1.2),
//! and before that the directory's TCP, TLS, greeting and answer. What encrypting to somebody costs stands
//! in `sharing`; a monitor needs its own login and one round trip for its proof.
//!
//! * `link` — one connection. `worker`, `monitor` — the tasks. `sharing`, `opening` — keys for and from others.
//! * `lookups` — connections on which a service looks up others' keys. `barred` — keys that were taken back.
//! * Dropping the last [`Client`] ends all tasks; dropping a [`Subscription`] ends its own.

mod barred;
mod error;
mod link;
mod lookups;
mod monitor;
mod opening;
mod sharing;
mod timing;
mod worker;

#[cfg(test)]
mod tests;

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use async_std::{
    channel::{Receiver, Sender, bounded},
    future::timeout,
    task::spawn,
};
use futures_lite::future::zip;
use miniserde::{
    Deserialize,
    json::{self, Object, Value},
};

use crate::net::tls::Connector;

use super::{
    atsign::AtSign,
    crypto::{self, PublicKey},
    directory::Root,
    key::AtKey,
    keyfile::AtKeys,
    metadata::{Item, Metadata},
    notification::Notification,
    reply::MAX_LINE,
    share,
    verb::{Detail, Notify, Operation, Subject, Verb},
};

pub use error::AtError;
pub use link::Link;
pub use monitor::{Event, Pulse, Subscription};
pub use timing::Timing;

use barred::Barred;
use link::{LoginContext, NetworkTransport, Transport};
use lookups::Lookups;
use monitor::{DeliveredIds, Monitor, PassedOver, TornLines};
use sharing::Freshness;
use worker::{QueuedCommand, Worker};

/// More than a call's own deadline, so that the worker's better reason arrives first.
const GRACE: Duration = Duration::from_secs(1);
/// Under which keys enrolment requests are told.
const REQUESTS: &str = r"\.new\.enrollments\.__manage@";
/// Longest line about such a request, in bytes: what a stranger may say in one command, each byte escaped.
const MAX_REQUEST: usize = 6 * 32 * 1024;

/// How to reach the atProtocol.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Network {
    pub root: Root,
    pub tls: Connector,
}

/// One notification to send; the text is encrypted for `to`.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Outgoing {
    pub to: AtSign,
    /// Entity with namespace: `ping.dev1.sshnp`.
    pub entity: String,
    pub text: String,
    /// `ttl` of the value and `ttln` of the notification, ms.
    pub ttl: Option<u64>,
    pub ttln: u64,
    /// Further items (`ttr`, `ccd`).
    pub metadata: Metadata,
}

/// A logged-in atSign. Cheap to clone; all clones share the connections.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

/// What all connections of one client share.
struct Connections {
    keys: Arc<AtKeys>,
    reach: Arc<dyn Transport>,
    timing: Timing,
    barred: Arc<Barred>,
    /// Its end is every task's.
    _gate: Sender<()>,
    stop: Receiver<()>,
}

struct Inner {
    base: Connections,
    jobs: Sender<QueuedCommand>,
    peers: sharing::PeerKeyCache,
    /// There for services.
    lookups: OnceLock<Arc<Lookups>>,
    opener: opening::KeyOpener,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Client({})", self.0.base.keys.atsign)
    }
}

impl Client {
    /// Finds the atServer, connects, logs in with PKAM.
    ///
    /// # Errors
    /// Names who could not be reached or who refused.
    pub async fn login(network: &Network, keys: Arc<AtKeys>) -> Result<Self, AtError> {
        Self::login_with(network, keys, Timing::default()).await
    }

    /// The same with other deadlines.
    ///
    /// # Errors
    /// As [`Client::login`].
    pub async fn login_with(
        network: &Network,
        keys: Arc<AtKeys>,
        timing: Timing,
    ) -> Result<Self, AtError> {
        let reach = NetworkTransport {
            network: network.clone(),
            who: keys.atsign.clone(),
            timing,
        };
        Self::login_over(Arc::new(reach), keys, timing).await
    }

    /// Logs in and subscribes at the same time, on two connections: for programs that cannot say anything
    /// before they can hear the answer. Returns once both stand. A notification whose line is longer than `limit`
    /// bytes is passed over.
    ///
    /// # Errors
    /// As [`Client::login`] and [`Client::subscribe`].
    pub async fn login_and_subscribe(
        network: &Network,
        keys: Arc<AtKeys>,
        regex: &str,
        limit: usize,
    ) -> Result<(Self, Subscription), AtError> {
        let timing = Timing::default();
        let reach: Arc<dyn Transport> = Arc::new(NetworkTransport {
            network: network.clone(),
            who: keys.atsign.clone(),
            timing,
        });
        let base = Connections::new(reach, keys, timing);
        let (subscription, went) = base.listen(regex, false, limit);
        let (client, live) = zip(Self::login_on(base), went.recv()).await;
        // A login that fails ends the monitor, too; its own reason is the better one.
        let client = client?;
        live.unwrap_or(Err(AtError::Closed))?;
        Ok((client, subscription))
    }

    async fn login_over(
        reach: Arc<dyn Transport>,
        keys: Arc<AtKeys>,
        timing: Timing,
    ) -> Result<Self, AtError> {
        Self::login_on(Connections::new(reach, keys, timing)).await
    }

    async fn login_on(base: Connections) -> Result<Self, AtError> {
        let link = base.log_in().await?;
        let (jobs, work) = bounded(worker::QUEUE);
        spawn(Worker::new(base.logins(), work, link).run());
        Ok(Self(Arc::new(Inner {
            base,
            jobs,
            peers: sharing::PeerKeyCache::default(),
            lookups: OnceLock::new(),
            opener: opening::KeyOpener::default(),
        })))
    }

    /// Our atSign.
    pub fn atsign(&self) -> &AtSign {
        &self.0.base.keys.atsign
    }

    /// Our keys.
    pub fn keys(&self) -> &Arc<AtKeys> {
        &self.0.base.keys
    }

    fn timing(&self) -> &Timing {
        &self.0.base.timing
    }

    fn peers(&self) -> &sharing::PeerKeyCache {
        &self.0.peers
    }

    /// From now on others' keys are looked up on connections of their own: for a service that does so on behalf of
    /// strangers, who must not hold one another up.
    pub fn serve_others(&self) {
        self.0.lookups.get_or_init(Lookups::new);
    }

    /// Asks for something of `of`, because of `asker`.
    async fn look_up(&self, asker: &AtSign, of: &AtSign, verb: &Verb) -> Result<String, AtError> {
        match self.0.lookups.get() {
            Some(lookups) => lookups.ask(self, asker, of, verb).await,
            None => self.run(verb).await,
        }
    }

    fn opener(&self) -> &opening::KeyOpener {
        &self.0.opener
    }

    /// Sends one command, waits for its answer: the text behind `data:`. Logins and `monitor` cannot be sent this way.
    ///
    /// # Errors
    /// `Refused` with the server's fault; `Silent` after the deadline; `Lost` when the connection ended before the
    /// answer, unless the command could be repeated.
    pub async fn run(&self, verb: &Verb) -> Result<String, AtError> {
        if worker::is_private(verb) {
            return Err(AtError::Protocol(
                "this command needs a connection of its own".to_owned(),
            ));
        }
        let call = self.timing().call;
        let (answer, answered) = bounded(1);
        let job = QueuedCommand {
            line: link::command(verb)?,
            repeatable: worker::is_repeatable(verb),
            until: Instant::now() + call,
            answer,
        };
        let done = async {
            self.0.jobs.send(job).await.map_err(|_| AtError::Closed)?;
            answered.recv().await.map_err(|_| AtError::Closed)?
        };
        let outcome = timeout(call + GRACE, done).await;
        outcome.unwrap_or(Err(AtError::Silent(call)))
    }

    /// Somebody's public encryption key, at most some minutes old. `Ok(None)`: the atSign exists but has none.
    ///
    /// # Errors
    /// As [`Client::run`].
    pub async fn public_key(&self, of: &AtSign) -> Result<Option<PublicKey>, AtError> {
        self.public_key_for(of, of).await
    }

    /// The same because of what `asker` wants: a service has a limited number of such questions for each.
    ///
    /// # Errors
    /// As [`Client::run`].
    pub async fn public_key_for(
        &self,
        asker: &AtSign,
        of: &AtSign,
    ) -> Result<Option<PublicKey>, AtError> {
        sharing::public_key(self, asker, of, Freshness::Remembered).await
    }

    /// The same, asked from the other's own atServer: for when a signature does not fit the key we know.
    ///
    /// # Errors
    /// As [`Client::run`].
    pub async fn public_key_afresh(&self, of: &AtSign) -> Result<Option<PublicKey>, AtError> {
        sharing::public_key(self, of, of, Freshness::Source).await
    }

    /// Encrypts and stores a value for another atSign: `@with:entity@me`.
    ///
    /// # Errors
    /// As [`Client::run`].
    pub async fn put_shared(
        &self,
        with: &AtSign,
        entity: &str,
        text: &str,
        metadata: Metadata,
    ) -> Result<(), AtError> {
        let key = sharing::shared_key(self, with).await?;
        let (value, metadata) = share::seal(&key, text, metadata)?;
        let update = Verb::Update {
            key: AtKey::shared(with, entity, self.atsign()),
            metadata,
            value,
        };
        self.run(&update).await.map(drop)
    }

    /// Looks up and decrypts what another atSign stored for us: `@me:entity@from`. `None`: there is nothing.
    ///
    /// # Errors
    /// As [`Client::run`].
    pub async fn get_shared(&self, from: &AtSign, entity: &str) -> Result<Option<String>, AtError> {
        let found = self.look_up_shared(from, entity, false).await?;
        Ok(found.map(|(text, _)| text))
    }

    /// The same from the other's own atServer, past all caches; and when it was written, as that server says.
    ///
    /// # Errors
    /// As [`Client::run`].
    pub async fn get_shared_afresh(
        &self,
        from: &AtSign,
        entity: &str,
    ) -> Result<Option<(String, Option<String>)>, AtError> {
        self.look_up_shared(from, entity, true).await
    }

    async fn look_up_shared(
        &self,
        from: &AtSign,
        entity: &str,
        bypass_cache: bool,
    ) -> Result<Option<(String, Option<String>)>, AtError> {
        let verb = Verb::Lookup {
            key: AtKey::own(entity, from),
            detail: Detail::All,
            bypass_cache,
        };
        let Some(answer) = sharing::found(self.run(&verb).await)? else {
            return Ok(None);
        };
        let Some(found) = Stored::parse(&answer)? else {
            return Ok(None);
        };
        match opening::open(self, from, &found.value, found.iv(), found.wrapped()).await {
            Ok(text) => Ok(Some((text, found.updated_at))),
            Err(AtError::Crypto(_)) if found.may_be_plain() => {
                Ok(Some((found.value, found.updated_at)))
            }
            Err(why) => Err(why),
        }
    }

    /// Reads and decrypts a value of our own, for nobody else: `entity@me`. `None`: there is nothing.
    ///
    /// # Errors
    /// As [`Client::run`].
    pub async fn get_own(&self, entity: &str) -> Result<Option<String>, AtError> {
        let verb = Verb::Llookup {
            key: AtKey::own(entity, self.atsign()),
            detail: Detail::All,
        };
        let Some(answer) = sharing::found(self.run(&verb).await)? else {
            return Ok(None);
        };
        let Some(found) = Stored::parse(&answer)? else {
            return Ok(None);
        };
        match share::open(&self.keys().self_key, &found.value, found.iv()) {
            Ok(text) => Ok(Some(text)),
            Err(_) if found.may_be_plain() => Ok(Some(found.value)),
            Err(why) => Err(why.into()),
        }
    }

    /// Encrypts and sends; returns the id once our own server has it.
    ///
    /// # Errors
    /// As [`Client::run`].
    pub async fn notify(&self, note: &Outgoing) -> Result<String, AtError> {
        let key = sharing::shared_key(self, &note.to).await?;
        let metadata = Metadata {
            ttl: note.ttl.or(note.metadata.ttl),
            ..note.metadata.clone()
        };
        let (value, metadata) = share::seal(&key, &note.text, metadata)?;
        let notify = Notify {
            id: Some(uuid::Uuid::new_v4().to_string()),
            operation: Some(Operation::Update),
            priority: Some("low".to_owned()),
            strategy: Some("all".to_owned()),
            latest_n: Some(1),
            notifier: Some("SYSTEM".to_owned()),
            ttln: Some(note.ttln),
            message_type: true,
            metadata,
            subject: Subject::Key {
                to: None,
                key: AtKey::shared(&note.to, &note.entity, self.atsign()),
            },
            value: Some(value),
        };
        self.run(&Verb::Notify(Box::new(notify))).await
    }

    /// Makes sure a shared key with this atSign exists.
    #[cfg(test)]
    async fn prepare(&self, with: &AtSign) -> Result<(), AtError> {
        sharing::shared_key(self, with).await.map(drop)
    }

    /// Decrypts a notification's value. Call only for senders that passed the allow list.
    /// Plain values are returned as they are; `None` for delete and touch.
    ///
    /// # Errors
    /// One answer for all failures.
    pub async fn open(&self, note: &Notification) -> Result<Option<String>, AtError> {
        let Some(value) = &note.value else {
            return Ok(None);
        };
        if !note.is_encrypted || note.is_text {
            return Ok(Some(value.clone()));
        }
        let iv = note.iv_nonce.as_deref();
        let wrapped = note.shared_key_enc.as_deref();
        let opened = opening::open(self, &note.from, value, iv, wrapped).await;
        opened.map(Some)
    }

    /// Starts a monitor with this regex; returns once it is live. It lives until dropped, through any number of
    /// reconnections; a notification id is delivered once. With `own` also what the server tells its own owner; then a
    /// line above [`MAX_REQUEST`] is passed over, else one that no reply could hold.
    ///
    /// # Errors
    /// When the first connection fails.
    pub async fn subscribe(&self, regex: &str, own: bool) -> Result<Subscription, AtError> {
        let limit = if own { MAX_REQUEST } else { MAX_LINE };
        let (subscription, went) = self.0.base.listen(regex, own, limit);
        went.recv().await.unwrap_or(Err(AtError::Closed))?;
        Ok(subscription)
    }

    /// [`Client::subscribe`] to the requests of devices that want keys of our atSign. They come to keys that may
    /// decide about them; others hear nothing.
    ///
    /// # Errors
    /// When the first connection fails.
    pub async fn subscribe_to_requests(&self) -> Result<Subscription, AtError> {
        self.subscribe(REQUESTS, true).await
    }
}

impl Connections {
    fn new(reach: Arc<dyn Transport>, keys: Arc<AtKeys>, timing: Timing) -> Self {
        let (gate, stop) = bounded(1);
        Self {
            keys,
            reach,
            timing,
            barred: Arc::default(),
            _gate: gate,
            stop,
        }
    }

    fn logins(&self) -> LoginContext {
        LoginContext {
            reach: Arc::clone(&self.reach),
            keys: Arc::clone(&self.keys),
            timing: self.timing,
            barred: Arc::clone(&self.barred),
        }
    }

    async fn log_in(&self) -> Result<Link, AtError> {
        self.logins().log_in().await
    }

    /// Starts a monitor's task; the second half tells how its first attempt went.
    fn listen(
        &self,
        regex: &str,
        own: bool,
        limit: usize,
    ) -> (Subscription, Receiver<Result<(), AtError>>) {
        let (events, heard) = bounded(monitor::QUEUE);
        let (live, went) = bounded(1);
        let (alive, dropped) = bounded(1);
        let pulse = Pulse::new();
        let monitor = Monitor {
            logins: self.logins(),
            keys: Arc::clone(&self.keys),
            timing: self.timing,
            regex: regex.to_owned(),
            own,
            limit,
            events,
            pulse: pulse.clone(),
            seen: DeliveredIds::new(),
            last: None,
            torn: TornLines::default(),
            passed_over: PassedOver::default(),
        };
        spawn(monitor.run(live, [dropped, self.stop.clone()]));
        let subscription = Subscription {
            events: heard,
            pulse,
            _alive: alive,
        };
        (subscription, went)
    }
}

/// A value that was looked up, and what is said about it.
struct Stored {
    value: String,
    metadata: Metadata,
    updated_at: Option<String>,
}

impl Stored {
    /// Reads `{"key":…,"data":…,"metaData":{…}}`. `None`: there is no value.
    fn parse(answer: &str) -> Result<Option<Self>, AtError> {
        #[derive(Deserialize)]
        struct All {
            data: Option<String>,
            #[serde(rename = "metaData")]
            meta_data: Option<Object>,
        }
        let all: All = json::from_str(answer)
            .map_err(|_| AtError::Protocol("a looked-up value that cannot be read".to_owned()))?;
        let Some(value) = all.data.filter(|text| text != "null") else {
            return Ok(None);
        };
        let members = all.meta_data.unwrap_or_default();
        Ok(Some(Self {
            value,
            metadata: Metadata::of_json(&members),
            updated_at: match members.get("updatedAt") {
                Some(Value::String(text)) => Some(text.clone()),
                _ => None,
            },
        }))
    }

    /// Base64 of the IV, where there is one.
    fn iv(&self) -> Option<&str> {
        self.metadata.iv_nonce.as_ref().and_then(Item::value)
    }

    /// The shared key that came with it.
    fn wrapped(&self) -> Option<&str> {
        self.metadata.shared_key_enc.as_ref().and_then(Item::value)
    }

    /// Old programs do not say whether they encrypted.
    fn may_be_plain(&self) -> bool {
        self.metadata.is_encrypted != Some(true)
    }
}

/// At random in 0.0..1.0, for back-off; no secret.
pub fn jitter() -> f64 {
    crypto::random::<4>().map_or(0.5, |bytes| {
        f64::from(u32::from_le_bytes(bytes)) / (f64::from(u32::MAX) + 1.0)
    })
}
