//! Keys for decrypting what others sent, and how often a sender may make us try.
//!
//! ```text
//!   sharedKeyEnc in the metadata ───────────────────────────────┐
//!   or  llookup:cached:@me:shared_key@from, lookup:shared_key@from ┴─▶ known? ─▶ RSA, one at a time ─▶ AES key
//! ```
//! Decrypting RSA takes a time that depends a little on the key, and a sender chooses what we decrypt
//! (RUSTSEC-2023-0071). So each cipher text is decrypted once, a sender has few of them per hour, and all
//! failures look the same.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex as StdMutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use async_std::sync::Mutex;
use log::{debug, warn};

use crate::at::{
    atsign::AtSign,
    crypto::{AesKey, CryptoError},
    error::AtError,
    key::AtKey,
    keyfile::AtKeys,
    share,
    verb::{Detail, Verb},
};

use super::{
    lookups::LookupRouter,
    sharing::{found, unwrap},
};

/// Different cipher texts of one sender that are decrypted within [`WINDOW`].
const MAX_NEW: usize = 5;
/// What [`MAX_NEW`] is counted over.
const WINDOW: Duration = Duration::from_secs(60 * 60);
/// Opened keys that are remembered per sender.
const MAX_KEYS: usize = 16;
/// Senders that are remembered.
const MAX_SENDERS: usize = 4096;
/// Length of an encrypted key: base64 of 256 bytes.
const WRAPPED: usize = 344;

#[derive(Default)]
pub(super) struct KeyOpener {
    senders: StdMutex<HashMap<AtSign, SenderKeys>>,
    /// Held while RSA works.
    turn: Mutex<()>,
}

#[derive(Default)]
struct SenderKeys {
    /// Cipher text and what was in it; `None`: it could not be opened.
    keys: VecDeque<(String, Option<AesKey>)>,
    /// When new ones were opened.
    new: VecDeque<Instant>,
    /// The cipher text that the look-ups gave.
    looked_up: Option<String>,
    /// When it was last asked about.
    used: Option<Instant>,
    /// A key of it was opened that was not known.
    has_news: bool,
}

impl SenderKeys {
    fn known(&self, wrapped: &str) -> Option<Result<AesKey, CryptoError>> {
        let (_, key) = self.keys.iter().find(|(known, _)| known == wrapped)?;
        Some(key.clone().ok_or(CryptoError::Decrypt))
    }

    /// Whether one more cipher text may be opened now.
    fn admit(&mut self, now: Instant) -> bool {
        self.expire(now);
        let admitted = self.new.len() < MAX_NEW;
        if admitted {
            self.new.push_back(now);
        }
        admitted
    }

    fn expire(&mut self, now: Instant) {
        self.new
            .retain(|&then| now.saturating_duration_since(then) < WINDOW);
    }

    /// Whether one of its keys could be opened.
    fn has_success(&self) -> bool {
        self.keys.iter().any(|(_, key)| key.is_some())
    }

    fn learn(&mut self, wrapped: String, key: Option<AesKey>) {
        self.keys.push_back((wrapped, key));
        if self.keys.len() > MAX_KEYS {
            self.keys.pop_front();
        }
    }
}

impl KeyOpener {
    fn senders(&self) -> MutexGuard<'_, HashMap<AtSign, SenderKeys>> {
        self.senders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Works with what is known of a sender. Where there is no room for another one the one gives way that was not asked
    /// about for longest, of those first that never sent anything that could be opened.
    fn with<T>(&self, from: &AtSign, work: impl FnOnce(&mut SenderKeys) -> T) -> T {
        let (mut senders, now) = (self.senders(), Instant::now());
        if senders.len() >= MAX_SENDERS && !senders.contains_key(from) {
            senders.retain(|_, sender| {
                sender.expire(now);
                !sender.new.is_empty()
            });
        }
        if senders.len() >= MAX_SENDERS && !senders.contains_key(from) {
            let order = |sender: &SenderKeys| (sender.has_success(), sender.used);
            let first = senders.iter().min_by_key(|(_, sender)| order(sender));
            if let Some(first) = first.map(|(who, _)| who.clone()) {
                senders.remove(&first);
            }
        }
        let sender = senders.entry(from.clone()).or_default();
        sender.used = Some(now);
        work(sender)
    }

    /// Whether a key of this sender was opened since the last question that was not known before.
    pub(super) fn has_news(&self, from: &AtSign) -> bool {
        let mut senders = self.senders();
        let sender = senders.get_mut(from);
        sender.is_some_and(|sender| std::mem::take(&mut sender.has_news))
    }

    async fn key(
        &self,
        keys: &Arc<AtKeys>,
        from: &AtSign,
        wrapped: &str,
    ) -> Result<AesKey, CryptoError> {
        if wrapped.len() != WRAPPED {
            return Err(CryptoError::Decrypt);
        }
        // What is known needs no turn: others' RSA takes as long as it takes.
        if let Some(known) = self.with(from, |sender| sender.known(wrapped)) {
            return known;
        }
        let _turn = self.turn.lock().await; // also: the second of two equal ones finds it known
        let known = self.with(from, |sender| {
            let known = sender.known(wrapped);
            if known.is_none() && !sender.admit(Instant::now()) {
                warn!("from={from} more than {MAX_NEW} different keys within an hour; refused");
                return Some(Err(CryptoError::Decrypt));
            }
            known
        });
        if let Some(known) = known {
            return known;
        }
        let opened = unwrap(keys, wrapped.to_owned()).await;
        let learnt = opened.as_ref().ok().cloned();
        self.with(from, |sender| {
            sender.has_news |= learnt.is_some();
            sender.learn(wrapped.to_owned(), learnt);
        });
        opened
    }

    /// Decrypts a value. `wrapped` is the key that came with it, if one did.
    pub(super) async fn decrypt(
        &self,
        router: &LookupRouter,
        from: &AtSign,
        value: &str,
        iv: Option<&str>,
        wrapped: Option<&str>,
    ) -> Result<String, AtError> {
        let attempt = async |wrapped: &str| {
            let key = self.key(router.commands.keys(), from, wrapped).await?;
            share::decrypt(&key, value, iv)
        };
        if let Some(wrapped) = wrapped.filter(|&text| text != "null") {
            return Ok(attempt(wrapped).await?);
        }
        let wrapped = self.look_up(router, from).await?;
        if let Ok(text) = attempt(&wrapped).await {
            return Ok(text);
        }
        debug!("from={from} the stored key does not fit; asking for it again");
        let wrapped = self.ask_source(router, from).await?;
        Ok(attempt(&wrapped).await?)
    }

    /// Where a sender's key is when it did not come along.
    async fn look_up(&self, router: &LookupRouter, from: &AtSign) -> Result<String, AtError> {
        if let Some(known) = self.with(from, |sender| sender.looked_up.clone()) {
            return Ok(known);
        }
        let cached = Verb::Llookup {
            key: share::their_copy(from, router.commands.atsign()).cached(),
            detail: Detail::Value,
        };
        match found(router.commands.run(&cached).await)? {
            Some(wrapped) => Ok(self.remember(from, wrapped)),
            None => self.ask(router, from, false).await,
        }
    }

    /// As [`Self::look_up`], past all copies and past what we remember.
    async fn ask_source(&self, router: &LookupRouter, from: &AtSign) -> Result<String, AtError> {
        self.with(from, |sender| sender.looked_up = None);
        self.ask(router, from, true).await
    }

    async fn ask(
        &self,
        router: &LookupRouter,
        from: &AtSign,
        bypass_cache: bool,
    ) -> Result<String, AtError> {
        let verb = Verb::Lookup {
            key: AtKey::own("shared_key", from),
            detail: Detail::Value,
            bypass_cache,
        };
        match found(router.look_up(from, from, &verb).await)? {
            Some(wrapped) => Ok(self.remember(from, wrapped)),
            None => Err(AtError::Crypto(CryptoError::Decrypt)),
        }
    }

    fn remember(&self, from: &AtSign, wrapped: String) -> String {
        let copy = wrapped.clone();
        self.with(from, |sender| sender.looked_up = Some(copy));
        wrapped
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use async_std::task::block_on;

    use super::*;
    use crate::at::vectors::{atsign, keys};

    #[test]
    fn a_sender_has_five_new_keys_an_hour() {
        let mut sender = SenderKeys::default();
        let start = Instant::now();
        for count in 0..MAX_NEW {
            assert!(sender.admit(start), "{count}");
        }
        assert!(!sender.admit(start + WINDOW - Duration::from_secs(1)));
        assert!(sender.admit(start + WINDOW));
    }

    #[test]
    fn a_crowd_of_new_senders_keeps_nobody_out_and_pushes_nobody_out_who_is_well_known() {
        let keys = Arc::new(keys("legacy_file"));
        let opener = KeyOpener::default();
        let public = keys.encryption.public();
        let good = public
            .wrap(&crate::at::crypto::to_base64(&[1; 32]))
            .unwrap();
        block_on(async {
            assert!(opener.key(&keys, &atsign("@friend"), &good).await.is_ok());
            for n in 0..2 * MAX_SENDERS {
                let admitted = |sender: &mut SenderKeys| {
                    assert!(sender.admit(Instant::now()));
                    sender.learn(format!("{n}"), None);
                };
                opener.with(&atsign(&format!("@crowd{n}")), admitted);
            }
            assert_eq!(opener.senders().len(), MAX_SENDERS);
            assert!(opener.senders().contains_key(&atsign("@friend")));
            // RSA may be busy with others.
            let _turn = opener.turn.lock().await;
            assert!(opener.key(&keys, &atsign("@friend"), &good).await.is_ok());
            drop(_turn);
            assert!(opener.key(&keys, &atsign("@late"), &good).await.is_ok());
        });
    }

    #[test]
    fn each_cipher_text_counts_once_and_failures_count_too() {
        let keys = Arc::new(keys("legacy_file"));
        let (opener, bob) = (KeyOpener::default(), atsign("@bob"));
        let public = keys.encryption.public();
        let good = public
            .wrap(&crate::at::crypto::to_base64(&[1; 32]))
            .unwrap();
        let bad: Vec<String> = (0..MAX_NEW)
            .map(|_| public.wrap("no key").unwrap())
            .collect();
        block_on(async {
            for _ in 0..2 * MAX_NEW {
                let key = opener.key(&keys, &bob, &good).await.unwrap();
                assert_eq!(key.reveal(), &[1; 32]);
            }
            for wrapped in bad.iter().chain(&bad) {
                assert_eq!(
                    opener.key(&keys, &bob, wrapped).await,
                    Err(CryptoError::Decrypt)
                );
            }
            // One of the five was refused without a try; the good one is still known.
            assert_eq!(opener.with(&bob, |sender| sender.keys.len()), MAX_NEW);
            assert!(opener.key(&keys, &bob, &good).await.is_ok());
            let fresh = public
                .wrap(&crate::at::crypto::to_base64(&[2; 32]))
                .unwrap();
            assert!(opener.key(&keys, &bob, &fresh).await.is_err());
            assert!(opener.key(&keys, &atsign("@carol"), &fresh).await.is_ok());
        });
    }
}
