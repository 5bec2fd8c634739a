//! Speaks to atServers. One task owns each connection; callers send it work and wait with a deadline.
//!
//! ```text
//!   Client ──verb──▶ [worker task] ⇄ own atServer        one command at a time, reconnects, repeats a look-up once
//!   Subscription ◀── [monitor task] ⇄ own atServer       noop after 7.6 s; silent for 4 s more ⇒ reconnect with jittered back-off
//! ```
//! Until the first command can be sent: TCP, TLS, `from`, `pkam`, one round trip each (two for TLS 1.2),
//! and before that the directory's TCP, TLS, greeting and answer. What encrypting to somebody costs stands
//! in `sharing`; a monitor needs its own login and one round trip for its proof.
//!
//! * `alarm` — tells all that they may be dead. `link` — one connection. `worker`, `monitor` (with `lines`) — the tasks. `sharing`, `opening` — keys for and from others.
//! * `lookups` — connections on which a service looks up others' keys. `barred` — keys that were taken back. `timing` — how long it waits.
//! * Dropping the last [`Client`] ends all tasks; dropping a [`Subscription`] ends its own.

mod alarm;
mod barred;
mod lines;
mod link;
mod lookups;
mod monitor;
mod opening;
mod sharing;
mod timing;
mod worker;

#[cfg(test)]
mod tests;

use std::sync::{Arc, OnceLock};

use async_std::channel::{Receiver, Sender, bounded};
use futures_lite::future::zip;
use miniserde::{
    Deserialize,
    json::{self, Object, Value},
};

use super::{
    atsign::AtSign,
    crypto::PublicKey,
    key::AtKey,
    keyfile::AtKeys,
    metadata::{Item, Metadata},
    notification::Notification,
    pins::{FirstSight, Pins},
    reply::MAX_LINE,
    share,
    verb::{Detail, Notify, Operation, Subject, Verb},
};

pub use super::{
    crypto::jitter,
    directory::Network,
    error::{AtError, RESTART},
};
pub use link::Link;
pub use monitor::{Event, Subscription};
pub use timing::{PROOF, Timing};

use barred::Barred;
use link::{LoginContext, NetworkTransport, Transport};
use lookups::{LookupRouter, Lookups};
use monitor::Monitor;
use opening::KeyOpener;
use sharing::{Freshness, PeerKeyCache};
use worker::Commands;

/// Under which keys enrolment requests are told.
const REQUESTS: &str = r"\.new\.enrollments\.__manage@";
/// Longest line about such a request, in bytes: what a stranger may say in one command, each byte escaped.
const MAX_REQUEST: usize = 6 * 32 * 1024;

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

/// Makes the connections of one client.
struct Connections {
    logins: LoginContext,
    /// Its end is every task's.
    _gate: Sender<()>,
    stop: Receiver<()>,
}

struct Inner {
    connections: Connections,
    router: LookupRouter,
    peers: PeerKeyCache,
    opener: KeyOpener,
    /// Whose keys are believed, and for whom that does not count.
    pins: OnceLock<(Pins, Option<AtSign>)>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Client({})", self.atsign())
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

    /// As [`Client::login`], with other deadlines.
    ///
    /// # Errors
    /// As [`Client::login`].
    pub async fn login_with(
        network: &Network,
        keys: Arc<AtKeys>,
        timing: Timing,
    ) -> Result<Self, AtError> {
        let transport = NetworkTransport::new(network, &keys.atsign, timing);
        Self::login_over(Arc::new(transport), keys, timing).await
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
        timing: Timing,
    ) -> Result<(Self, Subscription), AtError> {
        let transport = NetworkTransport::new(network, &keys.atsign, timing);
        let connections = Connections::new(Arc::new(transport), keys, timing);
        let (subscription, went) = connections.listen(regex, false, limit);
        let (client, live) = zip(Self::login_on(connections), went.recv()).await;
        // A login that fails ends the monitor, too; its own reason is the better one.
        let client = client?;
        live.unwrap_or(Err(AtError::Closed))?;
        Ok((client, subscription))
    }

    async fn login_over(
        transport: Arc<dyn Transport>,
        keys: Arc<AtKeys>,
        timing: Timing,
    ) -> Result<Self, AtError> {
        Self::login_on(Connections::new(transport, keys, timing)).await
    }

    async fn login_on(connections: Connections) -> Result<Self, AtError> {
        let link = connections.logins.log_in().await?;
        let commands = Commands::start(connections.logins.clone(), link);
        Ok(Self(Arc::new(Inner {
            connections,
            router: LookupRouter {
                commands,
                apart: OnceLock::new(),
            },
            peers: PeerKeyCache::default(),
            opener: KeyOpener::default(),
            pins: OnceLock::new(),
        })))
    }

    /// Our atSign.
    pub fn atsign(&self) -> &AtSign {
        &self.keys().atsign
    }

    /// Our keys.
    pub fn keys(&self) -> &Arc<AtKeys> {
        &self.0.connections.logins.keys
    }

    /// For a service, which lives long and does things on behalf of strangers, who must not hold one another up. From now on
    /// others' keys are looked up on connections of their own, and it is watched whether our own still can be alive.
    pub fn serve_others(&self) {
        self.0.router.apart.get_or_init(|| {
            let logins = &self.0.connections.logins;
            logins.alarm.watch(self.atsign(), logins.timing.prompt);
            Lookups::new()
        });
    }

    /// From now on nothing is encrypted to a key that these pins refuse, but for this one: whoever calls tells its changed
    /// key in another way.
    pub fn heed(&self, pins: Pins, but: Option<&AtSign>) {
        self.0.pins.get_or_init(|| (pins, but.cloned()));
    }

    /// Sends one command, waits for its answer: the text behind `data:`. Logins and `monitor` cannot be sent this way.
    ///
    /// # Errors
    /// `Refused` with the server's fault; `Silent` after the deadline; `Lost` when the connection ended before the
    /// answer, unless the command could be repeated.
    pub async fn run(&self, verb: &Verb) -> Result<String, AtError> {
        self.0.router.commands.run(verb).await
    }

    async fn shared_key(&self, with: &AtSign) -> Result<Arc<share::SharedKey>, AtError> {
        let key = self.0.peers.shared_key(&self.0.router, with).await?;
        if let Some((pins, but)) = self.0.pins.get()
            && but.as_ref() != Some(with)
        {
            pins.check(with, &key.holder, FirstSight::Pass).await?;
        }
        Ok(key)
    }

    /// An atSign for which a new shared key was made, because it has new keys.
    pub async fn renewed(&self) -> AtSign {
        let renewed = self.0.peers.renewed.1.recv().await;
        // The other end is kept beside it.
        renewed.unwrap_or_else(|_| self.atsign().clone())
    }

    async fn look_up_key(
        &self,
        asker: &AtSign,
        of: &AtSign,
        freshness: Freshness,
    ) -> Result<Option<PublicKey>, AtError> {
        let router = &self.0.router;
        self.0.peers.public_key(router, asker, of, freshness).await
    }

    /// Somebody's public encryption key, at most some minutes old. `Ok(None)`: the atSign exists but has none.
    ///
    /// # Errors
    /// As [`Client::run`].
    pub async fn public_key(&self, of: &AtSign) -> Result<Option<PublicKey>, AtError> {
        self.public_key_for(of, of).await
    }

    /// As [`Client::public_key`], because of what `asker` wants: a service has a limited number of such questions for each.
    ///
    /// # Errors
    /// As [`Client::run`].
    pub async fn public_key_for(
        &self,
        asker: &AtSign,
        of: &AtSign,
    ) -> Result<Option<PublicKey>, AtError> {
        self.look_up_key(asker, of, Freshness::Remembered).await
    }

    /// As [`Client::public_key_for`], asked from the other's own atServer: for when a signature does not fit the key we know.
    /// That it does a few times a minute for each.
    ///
    /// # Errors
    /// As [`Client::run`].
    pub async fn public_key_afresh(
        &self,
        asker: &AtSign,
        of: &AtSign,
    ) -> Result<Option<PublicKey>, AtError> {
        self.look_up_key(asker, of, Freshness::Source).await
    }

    /// Somebody is silent, and may have new keys: what is sent next is encrypted to those that its own atServer tells.
    pub fn doubt(&self, who: &AtSign) {
        self.0.peers.doubt(who);
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
        let key = self.shared_key(with).await?;
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

    /// As [`Client::get_shared`], from the other's own atServer, past all caches; and when it was written, as that server
    /// says.
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
        let (iv, wrapped) = (found.iv(), found.wrapped());
        match self.open(from, &found.value, iv, wrapped).await {
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
        match share::decrypt(&self.keys().self_key, &found.value, found.iv()) {
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
        let key = self.shared_key(&note.to).await?;
        self.notify_with(&key, note).await
    }

    /// The same, whatever key the receiver has: for telling that it is refused.
    ///
    /// # Errors
    /// As [`Client::run`].
    pub async fn notify_anybody(&self, note: &Outgoing) -> Result<String, AtError> {
        let key = self.0.peers.shared_key(&self.0.router, &note.to).await?;
        self.notify_with(&key, note).await
    }

    async fn notify_with(
        &self,
        key: &share::SharedKey,
        note: &Outgoing,
    ) -> Result<String, AtError> {
        let metadata = Metadata {
            ttl: note.ttl.or(note.metadata.ttl),
            ..note.metadata.clone()
        };
        let (value, metadata) = share::seal(key, &note.text, metadata)?;
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
        self.shared_key(with).await.map(drop)
    }

    /// Decrypts a notification's value. Call only for senders that passed the allow list.
    /// Plain values are returned as they are; `None` for delete and touch.
    ///
    /// # Errors
    /// One answer for all failures.
    pub async fn decrypt(&self, note: &Notification) -> Result<Option<String>, AtError> {
        let Some(value) = &note.value else {
            return Ok(None);
        };
        if !note.is_encrypted || note.is_text {
            return Ok(Some(value.clone()));
        }
        let iv = note.iv_nonce.as_deref();
        let wrapped = note.shared_key_enc.as_deref();
        self.open(&note.from, value, iv, wrapped).await.map(Some)
    }

    async fn open(
        &self,
        from: &AtSign,
        value: &str,
        iv: Option<&str>,
        wrapped: Option<&str>,
    ) -> Result<String, AtError> {
        let Inner {
            router,
            opener,
            peers,
            ..
        } = &*self.0;
        let opened = opener.decrypt(router, from, value, iv, wrapped).await;
        // Whoever has new keys has made a new shared key, too.
        if opener.has_news(from) {
            peers.doubt(from);
        }
        opened
    }

    /// Starts a monitor with this regex; returns once it is live. It lives until dropped, through any number of
    /// reconnections; a notification id is delivered once. With `own` also what the server tells its own owner; then a
    /// line above [`MAX_REQUEST`] is passed over, else one that no reply could hold.
    ///
    /// # Errors
    /// When the first connection fails.
    pub async fn subscribe(&self, regex: &str, own: bool) -> Result<Subscription, AtError> {
        let limit = if own { MAX_REQUEST } else { MAX_LINE };
        let (subscription, went) = self.0.connections.listen(regex, own, limit);
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
    fn new(transport: Arc<dyn Transport>, keys: Arc<AtKeys>, timing: Timing) -> Self {
        let (gate, stop) = bounded(1);
        Self {
            logins: LoginContext {
                transport,
                keys,
                timing,
                barred: Arc::<Barred>::default(),
                alarm: Arc::default(),
            },
            _gate: gate,
            stop,
        }
    }

    fn listen(
        &self,
        regex: &str,
        own: bool,
        limit: usize,
    ) -> (Subscription, Receiver<Result<(), AtError>>) {
        Monitor::start(self.logins.clone(), self.stop.clone(), regex, own, limit)
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

    /// Of the public key that it was encrypted to, where its writer said so.
    fn checksum(&self) -> Option<&str> {
        self.metadata.pub_key_cs.as_ref().and_then(Item::value)
    }

    /// Old programs do not say whether they encrypted.
    fn may_be_plain(&self) -> bool {
        self.metadata.is_encrypted != Some(true)
    }
}
