//! Keys for encrypting to others: found, made, remembered.
//!
//! What first contact costs, in round trips to our own atServer (it asks the other's when it must):
//!
//! ```text
//!   known already   none                                      then 1 for notify
//!   stored          llookup own copy ┐
//!                   llookup theirs   ├ queued together         3, then 1 for notify
//!                   plookup publickey┘
//!   never met       the same 3, then delete theirs, update own,
//!                   llookup own (another program may have been quicker), update theirs        7, then 1
//! ```
//! A command connection carries one command at a time, so "queued together" saves our own pauses, not the server's.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex as StdMutex, PoisonError},
    time::{Duration, Instant},
};

use async_std::{sync::Mutex, task::spawn_blocking};
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

use super::{lookups::LookupRouter, worker::Commands};

/// How many atSigns are remembered.
const MAX_PEERS: usize = 1024;

/// One atSign we have to do with. Whoever looks its keys up holds the lock, so that two callers never make two keys.
#[derive(Default)]
struct PeerKeys {
    shared: Mutex<Option<(Arc<SharedKey>, Instant)>>,
    public: StdMutex<Option<(PublicKey, Instant)>>,
    /// Held while somebody asks for the public key.
    asking: Mutex<()>,
}

impl PeerKeys {
    fn remembered(&self) -> Option<PublicKey> {
        let public = self.public.lock().unwrap_or_else(PoisonError::into_inner);
        let (key, _) = public.as_ref().filter(|(_, at)| at.elapsed() < PUBLIC)?;
        Some(key.clone())
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

#[derive(Default)]
pub(super) struct PeerKeyCache(StdMutex<HashMap<AtSign, Arc<PeerKeys>>>);

impl PeerKeyCache {
    fn get(&self, who: &AtSign) -> Arc<PeerKeys> {
        let mut peers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if peers.len() >= MAX_PEERS && !peers.contains_key(who) {
            peers.clear();
        }
        Arc::clone(peers.entry(who.clone()).or_default())
    }

    /// The key for this atSign: remembered, stored, or new.
    pub(super) async fn shared_key(
        &self,
        router: &LookupRouter,
        with: &AtSign,
    ) -> Result<Arc<SharedKey>, AtError> {
        let peer = self.get(with);
        let mut slot = peer.shared.lock().await;
        if let Some((key, since)) = &*slot
            && since.elapsed() < router.commands.timing().remember
        {
            return Ok(Arc::clone(key));
        }
        let before = slot.as_ref().map(|(key, _)| key.checksum.clone());
        let key = Arc::new(self.find_or_make(router, with, before).await?);
        *slot = Some((Arc::clone(&key), Instant::now()));
        Ok(key)
    }

    async fn find_or_make(
        &self,
        router: &LookupRouter,
        with: &AtSign,
        before: Option<String>,
    ) -> Result<SharedKey, AtError> {
        let me = router.commands.atsign();
        let (own, (theirs, public)) = zip(
            look_up_own(&router.commands, share::own_copy(me, with)),
            zip(
                look_up_own(&router.commands, share::their_copy(me, with)),
                self.public_key(router, with, with, Freshness::Refresh),
            ),
        )
        .await;
        let (own, theirs) = (own?, theirs?);
        let public = public?.ok_or_else(|| AtError::NoPublicKey(with.clone()))?;
        let checksum = public.checksum();
        // Their keys are new since we last looked: what is stored is encrypted to the old ones.
        let stale = before.is_some_and(|before| before != checksum);
        let stored = match own.filter(|_| !stale) {
            Some(wrapped) => unwrap_own(&router.commands, wrapped).await?,
            None => None,
        };
        let (key, theirs) = match stored {
            Some(key) => (key, theirs),
            None => (make(&router.commands, with).await?, None),
        };
        let wrapped = match theirs {
            Some(wrapped) => wrapped,
            None => {
                let wrapped = share::wrap(&key, &public)?;
                let store = share::store_their_copy(me, with, wrapped.clone());
                router.commands.run(&store).await?;
                wrapped
            }
        };
        Ok(SharedKey {
            key,
            wrapped,
            checksum,
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
    *peer.public.lock().unwrap_or_else(PoisonError::into_inner) =
        Some((key.clone(), Instant::now()));
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
    match look_up_own(commands, share::own_copy(me, with)).await? {
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

async fn look_up_own(commands: &Commands, key: AtKey) -> Result<Option<String>, AtError> {
    let verb = Verb::Llookup {
        key,
        detail: Detail::Value,
    };
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
