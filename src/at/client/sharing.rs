//! Keys for encrypting to others: found, made, remembered.
//!
//! What first contact costs, in round trips to our own atServer (it asks the other's when it must):
//!
//! ```text
//!   known already   none                                      then 1 for notify
//!   stored          llookup own copy ┐
//!                   llookup theirs   ├ queued together         3, then 1 for notify
//!                   plookup publickey┘                         5, when that was the old one, before their keys changed
//!   never met       the same 3, then delete theirs, update own,
//!                   llookup own (another program may have been quicker), update theirs        7, then 1
//! ```
//! A command connection carries one command at a time, so "queued together" saves our own pauses, not the server's.
//!
//! Theirs carries the checksum of the key that it is encrypted to: whoever has new keys gets a new shared key, at the latest
//! when what we remember is too old; sooner where something says so ([`PeerKeyCache::doubt`]).

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex as StdMutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use async_std::{
    channel::{Receiver, Sender, bounded},
    sync::Mutex,
    task::spawn_blocking,
};
use futures_lite::future::zip;
use log::info;

use crate::at::{
    atsign::AtSign,
    crypto::{self, AesKey, CryptoError, PublicKey},
    error::AtError,
    key::AtKey,
    keyfile::AtKeys,
    share::{self, SharedKey},
    verb::{Detail, Verb},
};

use super::{Stored, lookups::LookupRouter, worker::Commands};

/// How many atSigns are remembered; the one that was asked about longest ago gives way.
const MAX_PEERS: usize = 1024;

/// One atSign we have to do with. Whoever looks its keys up holds the lock, so that two callers never make two keys.
#[derive(Default)]
struct PeerKeys {
    shared: Mutex<Option<(Arc<SharedKey>, Instant)>>,
    public: StdMutex<PublicSide>,
    /// Held while somebody asks for the public key.
    asking: Mutex<()>,
}

#[derive(Default)]
struct PublicSide {
    key: Option<(PublicKey, Instant)>,
    /// They may have new keys.
    is_doubted: bool,
    /// When their own atServer was asked.
    asked: VecDeque<Instant>,
}

impl PublicSide {
    /// Whether their own atServer may be asked once more: their bad signatures must not keep us asking.
    fn may_ask(&mut self, now: Instant) -> bool {
        self.asked
            .retain(|then| now.saturating_duration_since(*then) < MINUTE);
        let may = self.asked.len() < ASKED_OF_ONE;
        if may {
            self.asked.push_back(now);
        }
        may
    }
}

impl PeerKeys {
    fn public(&self) -> MutexGuard<'_, PublicSide> {
        self.public.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remembered(&self) -> Option<PublicKey> {
        let public = self.public();
        let (key, _) = public
            .key
            .as_ref()
            .filter(|(_, at)| at.elapsed() < PUBLIC)?;
        Some(key.clone())
    }

    /// Whether this is the key that was seen last.
    fn is_latest(&self, key: &PublicKey) -> bool {
        let public = self.public();
        public.key.as_ref().is_none_or(|(latest, _)| latest == key)
    }
}

/// How old a public key may be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Freshness {
    /// What we remember will do.
    Remembered,
    /// Ask our own atServer, which keeps a copy.
    Refresh,
    /// Ask the other's atServer.
    Source,
}

/// How long public keys are remembered: short, as a key that was replaced should soon be worth nothing.
const PUBLIC: Duration = Duration::from_secs(10 * 60);
/// How often one atSign's own atServer is asked for its public key within [`MINUTE`]; then what is known, or what our own
/// atServer knows, has to do.
const ASKED_OF_ONE: usize = 6;
const MINUTE: Duration = Duration::from_secs(60);
/// How many with new keys are told of, where nobody has asked yet.
const MAX_RENEWED: usize = 16;

struct Peer {
    keys: Arc<PeerKeys>,
    /// When it was last asked about.
    used: Instant,
}

pub(super) struct PeerKeyCache {
    peers: StdMutex<HashMap<AtSign, Peer>>,
    /// Who has got a new shared key, because of new keys.
    pub renewed: (Sender<AtSign>, Receiver<AtSign>),
}

impl Default for PeerKeyCache {
    fn default() -> Self {
        Self {
            peers: StdMutex::default(),
            renewed: bounded(MAX_RENEWED),
        }
    }
}

impl PeerKeyCache {
    fn peers(&self) -> MutexGuard<'_, HashMap<AtSign, Peer>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, who: &AtSign) -> Arc<PeerKeys> {
        let (mut peers, now) = (self.peers(), Instant::now());
        if peers.len() >= MAX_PEERS && !peers.contains_key(who) {
            // Whoever is being looked up holds a lock that the next one has to meet.
            let order = |peer: &Peer| (Arc::strong_count(&peer.keys) > 1, peer.used);
            let first = peers.iter().min_by_key(|(_, peer)| order(peer));
            if let Some(first) = first.map(|(who, _)| who.clone()) {
                peers.remove(&first);
            }
        }
        let peer = peers.entry(who.clone()).or_insert_with(|| Peer {
            keys: Arc::default(),
            used: now,
        });
        peer.used = now;
        Arc::clone(&peer.keys)
    }

    /// This atSign may have new keys: before anything else is encrypted to it, its own atServer is asked.
    pub(super) fn doubt(&self, who: &AtSign) {
        if let Some(peer) = self.peers().get(who) {
            peer.keys.public().is_doubted = true;
        }
    }

    /// As if its public key had been found so long ago that it does no more.
    #[cfg(test)]
    pub(super) fn let_expire(&self, who: &AtSign) {
        if let Some((_, since)) = &mut self.get(who).public().key
            && let Some(long_ago) = since.checked_sub(PUBLIC)
        {
            *since = long_ago;
        }
    }

    /// The key for this atSign: remembered, stored, or new.
    pub(super) async fn shared_key(
        &self,
        router: &LookupRouter,
        with: &AtSign,
    ) -> Result<Arc<SharedKey>, AtError> {
        let peer = self.get(with);
        let mut slot = peer.shared.lock().await;
        if slot.is_some() && peer.public().is_doubted {
            let asked = self.public_key(router, with, with, Freshness::Source).await;
            // Whoever cannot be asked now is doubted on.
            peer.public().is_doubted = asked.is_err();
        }
        if let Some((key, since)) = &*slot
            && since.elapsed() < router.commands.timing().remember
            && peer.is_latest(&key.holder)
        {
            return Ok(Arc::clone(key));
        }
        let key = Arc::new(self.find_or_make(router, with).await?);
        if let Some((before, _)) = &*slot
            && before.holder != key.holder
        {
            info!(
                "atsign={} with={with} they have a new public key",
                router.commands.atsign()
            );
            let _ = self.renewed.0.try_send(with.clone());
        }
        *slot = Some((Arc::clone(&key), Instant::now()));
        Ok(key)
    }

    async fn find_or_make(
        &self,
        router: &LookupRouter,
        with: &AtSign,
    ) -> Result<SharedKey, AtError> {
        let (commands, me) = (&router.commands, router.commands.atsign());
        let public = async |freshness| {
            let public = self.public_key(router, with, with, freshness).await?;
            public.ok_or_else(|| AtError::NoPublicKey(with.clone()))
        };
        let (own, (theirs, holder)) = zip(
            look_up_own(commands, share::own_copy(me, with), Detail::Value),
            zip(
                look_up_own(commands, share::their_copy(me, with), Detail::All),
                public(Freshness::Refresh),
            ),
        )
        .await;
        let (own, theirs, mut holder) = (own?, theirs?, holder?);
        let theirs = theirs.as_deref().map(Stored::parse).transpose()?.flatten();
        let made_for = theirs.as_ref().and_then(Stored::checksum);
        let is_for_another =
            |holder: &PublicKey| made_for.is_some_and(|it| it != holder.checksum());
        // Either of both may be the old one.
        if is_for_another(&holder) {
            holder = public(Freshness::Source).await?;
        }
        let stored = match own.filter(|_| !is_for_another(&holder)) {
            Some(wrapped) => unwrap_own(commands, wrapped).await?,
            None => None,
        };
        let is_known = made_for.is_some();
        let (key, theirs) = match stored {
            Some(key) => (key, theirs),
            None => (make(commands, with).await?, None),
        };
        let wrapped = match theirs {
            Some(theirs) if is_known => theirs.value,
            // Whoever stored it without saying for whom may have meant a key that is gone by now.
            theirs => {
                let wrapped = share::wrap(&key, &holder)?;
                let store = share::store_their_copy(me, with, wrapped.clone(), &holder);
                match (commands.run(&store).await, theirs) {
                    (Ok(_), _) => wrapped,
                    (Err(AtError::Refused(_)), Some(theirs)) => theirs.value,
                    (Err(why), _) => return Err(why),
                }
            }
        };
        Ok(SharedKey {
            key,
            wrapped,
            holder,
        })
    }

    /// `asker`: because of whom.
    pub(super) async fn public_key(
        &self,
        router: &LookupRouter,
        asker: &AtSign,
        of: &AtSign,
        freshness: Freshness,
    ) -> Result<Option<PublicKey>, AtError> {
        if of == router.commands.atsign() {
            return Ok(Some(router.commands.keys().encryption.public().clone()));
        }
        let peer = self.get(of);
        let is_too_often = freshness == Freshness::Source && !peer.public().may_ask(Instant::now());
        let freshness = if is_too_often {
            Freshness::Remembered
        } else {
            freshness
        };
        if freshness != Freshness::Remembered {
            return look_up(router, asker, of, freshness, &peer).await;
        }
        // Those that want the same key ask once.
        let _turn = peer.asking.lock().await;
        match peer.remembered() {
            Some(key) => Ok(Some(key)),
            None => look_up(router, asker, of, freshness, &peer).await,
        }
    }
}

async fn look_up(
    router: &LookupRouter,
    asker: &AtSign,
    of: &AtSign,
    freshness: Freshness,
    peer: &PeerKeys,
) -> Result<Option<PublicKey>, AtError> {
    let verb = Verb::Plookup {
        key: AtKey::own("publickey", of),
        detail: Detail::Value,
        bypass_cache: freshness == Freshness::Source,
    };
    let Some(text) = found(router.look_up(asker, of, &verb).await)? else {
        return Ok(None);
    };
    let key = PublicKey::parse(text.trim())?;
    peer.public().key = Some((key.clone(), Instant::now()));
    Ok(Some(key))
}

/// Stores a new key under our own copy's name; returns what stands there afterwards.
async fn make(commands: &Commands, with: &AtSign) -> Result<AesKey, AtError> {
    let me = commands.atsign();
    info!("atsign={me} with={with} a new shared key");
    let old = Verb::Delete {
        key: share::their_copy(me, with),
        priority: None,
    };
    commands.run(&old).await?;
    let key = crypto::new_aes_key()?;
    let wrapped = share::wrap(&key, commands.keys().encryption.public())?;
    commands
        .run(&share::store_own_copy(me, with, wrapped.clone()))
        .await?;
    match look_up_own(commands, share::own_copy(me, with), Detail::Value).await? {
        Some(stored) if stored != wrapped => unwrap_own(commands, stored)
            .await?
            .ok_or(AtError::Crypto(CryptoError::Decrypt)),
        _ => Ok(key),
    }
}

/// Our own copy, decrypted. `None`: it was made for a key pair that we have no more.
async fn unwrap_own(commands: &Commands, wrapped: String) -> Result<Option<AesKey>, AtError> {
    Ok(unwrap(commands.keys(), wrapped).await.ok())
}

/// RSA off the executor: on a small device it would stop everything else.
pub(super) async fn unwrap(keys: &Arc<AtKeys>, wrapped: String) -> Result<AesKey, CryptoError> {
    let keys = Arc::clone(keys);
    spawn_blocking(move || share::unwrap(&keys.encryption, &wrapped)).await
}

async fn look_up_own(
    commands: &Commands,
    key: AtKey,
    detail: Detail,
) -> Result<Option<String>, AtError> {
    let verb = Verb::Llookup { key, detail };
    found(commands.run(&verb).await)
}

/// A look-up that found nothing is no error.
pub(super) fn found(answer: Result<String, AtError>) -> Result<Option<String>, AtError> {
    match answer {
        Ok(text) if text.trim() == "null" => Ok(None),
        Ok(text) => Ok(Some(text)),
        Err(AtError::Refused(fault)) if fault.is_key_not_found() => Ok(None),
        Err(why) => Err(why),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// All were forgotten at once, and with them how often whose atServer had been asked, and who was doubted.
    #[test]
    fn where_there_is_no_room_the_peer_that_was_asked_about_longest_ago_gives_way() {
        let cache = PeerKeyCache::default();
        let atsign = |n: usize| format!("@p{n}").parse::<AtSign>().unwrap();
        let (busy, held) = (atsign(0), atsign(1));
        let in_use = cache.get(&held);
        for _ in 0..ASKED_OF_ONE {
            assert!(cache.get(&busy).public().may_ask(Instant::now()));
        }
        cache.doubt(&busy);
        for n in 2..3 * MAX_PEERS {
            cache.get(&atsign(n));
            let public = cache.get(&busy);
            let mut public = public.public();
            assert!(public.is_doubted && !public.may_ask(Instant::now()));
        }
        assert!(Arc::ptr_eq(&in_use, &cache.get(&held)));
        let peers = cache.peers();
        assert_eq!(peers.len(), MAX_PEERS);
        let kept = |n| peers.contains_key(&atsign(n));
        assert!(!kept(2) && kept(3 * MAX_PEERS - 1));
    }
}
