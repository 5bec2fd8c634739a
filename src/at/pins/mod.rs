//! The keys of others are remembered: the first one that is seen, or the one that was named.
//!
//! ```text
//!   a key of @bob ─▶ named on the command line? ─ yes ─▶ it is this one, or it is refused
//!                    │ no
//!                    ├─ remembered ───────────────────▶ it is this one, or it is refused: noports trust @bob
//!                    └─ never seen ───────────────────▶ remembered from now on, if it has signed something
//!   refused, and its fingerprint was given for recovery ▶ it is the one from now on, if it has signed something
//! ```
//! Nothing that a rendezvous says is signed, and a client remembers a device's key before it asks, so that it asks nobody else:
//! these two are remembered when they are first seen.
//!
//! Keys are told by atServers, so whoever runs one could tell another key. Remembered keys are a file of lines,
//! `@bob <fingerprint> <note>…`, in the folder for what must outlive a program; all programs of a user share it. Each change
//! writes it anew under another name, and the disk has it before it takes the old one's place. A running program reads it again
//! when it has changed, so what a person says with `noports trust` counts from the next request on. Where it cannot be written the
//! memory has them, which is said: from a start on the first key that is seen counts. Where it is there and cannot be read,
//! or others can write it, nobody's key is believed.
//!
//! | budget | in all | of one | who gives way |
//! | --- | --- | --- | --- |
//! | keys that are remembered | 10000 | 1 | nobody: further ones are believed without |
//! | of them, of clients that a policy let in | 1000 | 1 | the one that was remembered first |
//! | notes: what a peer could do | 1 MiB | 2048 | the new one, which is said |

use std::{
    collections::{BTreeSet, HashMap},
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use async_std::task::spawn_blocking;
use log::{info, warn};

use crate::at::{AtSign, crypto::PublicKey};

pub use error::PinError;
use file::{FileVersion, KnownKeysFile};
pub use fingerprint::{Fingerprint, NamedKeys, all_named, named};
use known::{GUEST, KnownKey, KnownKeys, add_notes, make_room_for_guest};

mod error;
mod file;
mod fingerprint;
mod known;
#[cfg(test)]
mod tests;

/// Most keys that are remembered; further ones are believed without.
const MOST: usize = 10_000;

/// What becomes of a key that was never seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstSight {
    /// It is remembered.
    Remember,
    /// Likewise, as one of many that a policy let in.
    Guest,
    /// Nothing: it has not signed anything yet.
    Pass,
}

/// Keys of others; cheap to clone.
#[derive(Clone, Debug)]
pub struct Pins(Arc<PinState>);

#[derive(Debug)]
struct PinState {
    file: KnownKeysFile,
    named: HashMap<AtSign, Fingerprint>,
    recovery: Vec<Fingerprint>,
    seen: Mutex<HashMap<AtSign, Seen>>,
}

/// What a program knows of somebody's key without reading the file again.
#[derive(Clone, Debug)]
struct Seen {
    key: Fingerprint,
    /// The file as it was then: another program, or a person, may have changed it since.
    file: Option<FileVersion>,
    /// It stands in that file; else only here.
    is_written: bool,
    is_guest: bool,
}

impl Pins {
    /// With what is remembered in this folder, and these keys that count in any case.
    pub fn new(folder: Option<PathBuf>, named: Vec<(AtSign, Fingerprint)>) -> Self {
        Self::with_recovery(folder, named, Vec::new())
    }

    /// The same; a key with one of these fingerprints may take another one's place.
    pub fn with_recovery(
        folder: Option<PathBuf>,
        named: Vec<(AtSign, Fingerprint)>,
        recovery: Vec<Fingerprint>,
    ) -> Self {
        Self(Arc::new(PinState {
            file: KnownKeysFile::in_folder(folder),
            named: named.into_iter().collect(),
            recovery,
            seen: Mutex::default(),
        }))
    }

    fn seen(&self) -> MutexGuard<'_, HashMap<AtSign, Seen>> {
        self.0.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether keys can be remembered beyond this run; said at the start of a service.
    ///
    /// # Errors
    /// Why not.
    pub async fn can_remember(&self) -> io::Result<()> {
        let pins = self.clone();
        spawn_blocking(move || pins.0.file.change(|_| ())).await
    }

    /// The key that the command line names for this atSign.
    pub fn named(&self, who: &AtSign) -> Option<&Fingerprint> {
        self.0.named.get(who)
    }

    /// Whether this is the key of that atSign, and what becomes of it if none was ever seen.
    ///
    /// # Errors
    /// See [`PinError`].
    pub async fn check(
        &self,
        who: &AtSign,
        key: &PublicKey,
        first: FirstSight,
    ) -> Result<(), PinError> {
        let now = Fingerprint::of(key);
        if let Some(named) = self.named(who) {
            let is_recovery = self.0.recovery.contains(&now);
            return same(who, named, &now, true)
                .or_else(|why| is_recovery.then_some(()).ok_or(why));
        }
        let (pins, them, new) = (self.clone(), who.clone(), now.clone());
        let known = spawn_blocking(move || pins.known(&them, &new, first)).await;
        // What was remembered and cannot be read now may be another key than this one.
        let known = known.map_err(|why| PinError::Unreadable(why.to_string()))?;
        known.map_or(Ok(()), |known| same(who, &known, &now, false))
    }

    /// Whether a key of this atSign was named, or is remembered: somebody who was known before.
    ///
    /// # Errors
    /// See [`PinError::Unreadable`].
    pub async fn knows(&self, who: &AtSign) -> Result<bool, PinError> {
        if self.named(who).is_some() {
            return Ok(true);
        }
        let (pins, them) = (self.clone(), who.clone());
        let known = spawn_blocking(move || {
            let version = pins.0.file.version()?;
            io::Result::Ok(pins.believed(&them, version)?.is_some())
        });
        known
            .await
            .map_err(|why| PinError::Unreadable(why.to_string()))
    }

    /// The key that counts, now that this one is told. `None`: none does yet.
    fn known(
        &self,
        who: &AtSign,
        now: &Fingerprint,
        first: FirstSight,
    ) -> io::Result<Option<Fingerprint>> {
        // Somebody at the console may have said meanwhile whose key counts.
        let version = self.0.file.version()?;
        let seen = self.seen().get(who).cloned();
        let is_promoted = |is_guest: bool| is_guest && first == FirstSight::Remember;
        if seen.is_some_and(|seen| {
            seen.key == *now && seen.file == version && !is_promoted(seen.is_guest)
        }) {
            return Ok(Some(now.clone()));
        }
        let is_recovery = self.0.recovery.contains(now);
        let known = match (self.believed(who, version)?, first) {
            (Some(known), _) if known.key == *now && is_promoted(known.is_guest) => {
                self.remember_here(who, now, first, version)
            }
            (Some(known), _) if known.key == *now || !is_recovery => known,
            (_, FirstSight::Pass) => return Ok(None),
            (Some(before), _) => {
                let before = before.key;
                warn!("key_of={who} fingerprint={now} before={before} believed=by_recovery");
                self.replace(who, now);
                return Ok(Some(now.clone()));
            }
            (None, first) => self.remember_here(who, now, first, version),
        };
        let key = known.key.clone();
        self.keep(who, known);
        Ok(Some(key))
    }

    /// Whose key counts: by the file, unless it could not be written when we had something to say.
    fn believed(&self, who: &AtSign, version: Option<FileVersion>) -> io::Result<Option<Seen>> {
        let seen = self.seen().get(who).cloned();
        let in_memory = seen.filter(|seen| !seen.is_written);
        let in_file = self.0.file.read()?.remove(who).map(|known| Seen {
            is_guest: known.guest_since().is_some(),
            key: known.key,
            file: version,
            is_written: true,
        });
        let is_newer = in_memory.as_ref().is_some_and(|seen| seen.file == version);
        Ok(if is_newer {
            in_memory
        } else {
            in_file.or(in_memory)
        })
    }

    /// In the file, or where that cannot be written here.
    fn remember_here(
        &self,
        who: &AtSign,
        key: &Fingerprint,
        first: FirstSight,
        file: Option<FileVersion>,
    ) -> Seen {
        let remembered = self.remember(who, key, first);
        if let Err(why) = &remembered {
            warn!("key_of={who} fingerprint={key} remembered=in_memory reason=\"{why}\"");
        }
        Seen {
            is_written: remembered.is_ok(),
            key: remembered.unwrap_or_else(|_| key.clone()),
            // If it was written that is another one now, and is read once more.
            file,
            is_guest: first == FirstSight::Guest,
        }
    }

    /// Where there is no room, what stands in the file is read each time.
    fn keep(&self, who: &AtSign, known: Seen) {
        let mut seen = self.seen();
        if seen.len() >= MOST && !seen.contains_key(who) {
            seen.retain(|_, other| !other.is_written);
        }
        if seen.len() < MOST || seen.contains_key(who) {
            seen.insert(who.clone(), known);
        }
    }

    /// This key from now on, unless another program has remembered one meanwhile.
    fn remember(
        &self,
        who: &AtSign,
        key: &Fingerprint,
        first: FirstSight,
    ) -> io::Result<Fingerprint> {
        let mut new = KnownKey::of(key.clone());
        if first == FirstSight::Guest {
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            let now = now.unwrap_or_default().as_secs();
            new.notes.insert(format!("{GUEST}{now}"));
        }
        let mut known = key.clone();
        self.0.file.change(|all| {
            if first == FirstSight::Guest && !all.contains_key(who) {
                make_room_for_guest(all);
            }
            if all.len() < MOST || all.contains_key(who) {
                let entry = all.entry(who.clone()).or_insert(new);
                if first == FirstSight::Remember && entry.key == *key {
                    entry.stay();
                }
                known = entry.key.clone();
            }
        })?;
        info!("key_of={who} fingerprint={known} remembered=yes");
        Ok(known)
    }

    /// From now on this is the key of that atSign, also where it cannot be written.
    pub async fn believe(&self, who: &AtSign, key: &Fingerprint) {
        let (pins, them, new) = (self.clone(), who.clone(), key.clone());
        spawn_blocking(move || pins.replace(&them, &new)).await;
    }

    fn replace(&self, who: &AtSign, key: &Fingerprint) {
        let file = self.0.file.version().unwrap_or_default();
        let trusted = self.trust(who, key);
        if let Err(why) = &trusted {
            warn!("key_of={who} fingerprint={key} remembered=in_memory reason=\"{why}\"");
        }
        let known = Seen {
            key: key.clone(),
            file,
            is_written: trusted.is_ok(),
            is_guest: false,
        };
        self.keep(who, known);
    }

    /// From now on this is the key of that atSign; the one before it, if there was one. What it could do is forgotten: that
    /// may have been another program.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn trust(&self, who: &AtSign, key: &Fingerprint) -> io::Result<Option<Fingerprint>> {
        let mut before = None;
        self.0
            .file
            .change(|all| before = all.insert(who.clone(), KnownKey::of(key.clone())))?;
        Ok(before.map(|known| known.key))
    }

    /// Forgets a key; which it was.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn forget(&self, who: &AtSign) -> io::Result<Option<Fingerprint>> {
        let mut before = None;
        self.0.file.change(|all| before = all.remove(who))?;
        Ok(before.map(|known| known.key))
    }

    /// What is noted of this atSign, and from now on these as well, if its key is remembered. Where that cannot be read or
    /// written it is as if nothing were; where there is no room for new ones, those that are there stay.
    pub async fn note(&self, who: &AtSign, new: Vec<String>) -> BTreeSet<String> {
        let (pins, who) = (self.clone(), who.clone());
        let noting = spawn_blocking(move || {
            let known = pins.0.file.read()?.remove(&who);
            let notes = known.map(|known| known.notes).unwrap_or_default();
            if !new.iter().all(|note| notes.contains(note)) {
                let mut are_kept = true;
                pins.0
                    .file
                    .change(|all| are_kept = add_notes(all, &who, new))?;
                if !are_kept {
                    warn!(
                        "notes_of={who} kept=no reason=\"there are too many: what it can do now may be taken away unseen\""
                    );
                }
            }
            io::Result::Ok(notes)
        });
        noting.await.unwrap_or_default()
    }

    /// All that are remembered.
    ///
    /// # Errors
    /// When there is a file that cannot be read, or that others can write.
    pub fn read(&self) -> io::Result<KnownKeys> {
        self.0.file.read()
    }
}

fn same(
    who: &AtSign,
    known: &Fingerprint,
    now: &Fingerprint,
    is_named: bool,
) -> Result<(), PinError> {
    if known == now {
        return Ok(());
    }
    Err(PinError::Changed {
        who: who.clone(),
        known: known.clone(),
        now: now.clone(),
        is_named,
    })
}
