//! The keys of others are remembered: the first one that is seen, or the one that was named.
//!
//! ```text
//!   a key of @bob ─▶ named on the command line? ─ yes ─▶ it is this one, or it is refused
//!                    │ no
//!                    ├─ remembered ───────────────────▶ it is this one, or it is refused: noports trust @bob
//!                    └─ never seen ───────────────────▶ remembered from now on, if it has signed something
//!   refused, and its fingerprint was given for recovery ▶ it is the one from now on, if it has signed something
//! ```
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
    collections::{BTreeMap, BTreeSet, HashMap},
    env, fmt, fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    str::FromStr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use async_std::task::spawn_blocking;
use log::{info, warn};

use crate::{
    at::{
        AtSign,
        crypto::{PublicKey, from_base64},
    },
    sys::{
        file::{self, Writers},
        paths,
    },
};

/// Most keys that are remembered; further ones are believed without.
const MOST: usize = 10_000;
/// Of them of clients that a policy let in: of these there may be any number.
const MOST_GUESTS: usize = 1000;
/// Most notes about one atSign: two for each of 1,024 devices.
const MOST_NOTES: usize = 2 * 1024;
/// All notes together, in bytes: ten fleets of that size.
const MAX_NOTES: usize = 1024 * 1024;
/// Room for all keys, whose atSigns have 55 characters of up to four bytes, and for all notes.
const MAX_FILE: u64 = (MOST * 300 + MAX_NOTES) as u64;
/// The file's name.
const FILE: &str = "known_keys";
/// Only this user's.
const MODE: u32 = 0o600;
/// Length of a digest.
const DIGEST: usize = 32;
/// A note about a client that a policy let in; behind it stands since when it is known, in seconds.
const GUEST: &str = "guest=";

/// What stands for a public key: base64 of a SHA-256, 43 characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint(String);

impl Fingerprint {
    /// Of this key, in whatever way it was written.
    pub fn of(key: &PublicKey) -> Self {
        Self(key.fingerprint().trim_end_matches('=').to_owned())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Fingerprint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match from_base64(&format!("{text}=")) {
            Ok(digest) if digest.len() == DIGEST => Ok(Self(text.to_owned())),
            _ => Err(format!(
                "{text:?} is no fingerprint of a key: it has 43 characters, and `noports trust show @you` tells it"
            )),
        }
    }
}

/// `@bob`, or `@bob#fingerprint`.
///
/// # Errors
/// In words for who typed it.
pub fn named(word: &str) -> Result<(AtSign, Option<Fingerprint>), String> {
    let (name, fingerprint) = match word.split_once('#') {
        Some((name, fingerprint)) => (name, Some(fingerprint.parse()?)),
        None => (word, None),
    };
    let name = name.parse::<AtSign>().map_err(|bad| bad.to_string())?;
    Ok((name, fingerprint))
}

/// What is remembered of an atSign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its key.
    pub key: Fingerprint,
    /// What else; words without blanks.
    pub notes: BTreeSet<String>,
}

impl Known {
    /// A key about which nothing else is known.
    fn of(key: Fingerprint) -> Self {
        let notes = BTreeSet::new();
        Self { key, notes }
    }

    fn guest_since(&self) -> Option<u64> {
        let mut since = self
            .notes
            .iter()
            .filter_map(|note| note.strip_prefix(GUEST));
        since.next().map(|since| since.parse().unwrap_or(0))
    }

    /// With the blanks before them.
    fn bytes_of_notes(&self) -> usize {
        self.notes.iter().map(|note| note.len() + 1).sum()
    }

    /// A guest no more: it does not give way to others.
    fn stay(&mut self) {
        self.notes.retain(|note| !note.starts_with(GUEST));
    }
}

impl FromStr for Known {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut words = text.split_whitespace();
        Ok(Self {
            key: words.next().unwrap_or_default().parse()?,
            notes: words.map(str::to_owned).collect(),
        })
    }
}

impl fmt::Display for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.key.fmt(f)?;
        self.notes.iter().try_for_each(|note| write!(f, " {note}"))
    }
}

/// By atSign.
type KnownKeys = BTreeMap<AtSign, Known>;

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

/// Why a key is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PinError {
    /// It is another one than before.
    #[error("the key of {who} is another one than before: {now} instead of {known}")]
    Changed {
        /// Whose.
        who: AtSign,
        /// The one that is believed.
        known: Fingerprint,
        /// The one that its atServer tells now.
        now: Fingerprint,
        /// The believed one stands on the command line.
        is_named: bool,
    },
    /// There are remembered keys, and nobody can tell which.
    #[error("the keys that are remembered cannot be read: {0}")]
    Unreadable(String),
}

impl PinError {
    /// The way back.
    pub fn hint(&self) -> String {
        match self {
            Self::Changed {
                who,
                now,
                is_named: true,
                ..
            } => format!("if {who} has new keys, name {who}#{now} instead"),
            Self::Changed { who, now, .. } => format!(
                "if {who} has new keys and says that this is one of them: noports trust {who} --fingerprint {now}"
            ),
            Self::Unreadable(_) => {
                "mend that file, or remove it: then the first key that is seen counts".to_owned()
            }
        }
    }
}

/// Keys of others; cheap to clone.
#[derive(Clone, Debug)]
pub struct Pins(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    file: Option<PathBuf>,
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

/// Tells whether a file is still the same one, and nobody has written it. No program of ours writes it in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileVersion {
    device: u64,
    inode: u64,
    size: u64,
    /// Of its content, and of its owner and mode: seconds and nanoseconds.
    changed: [(i64, i64); 2],
}

impl FileVersion {
    fn of(about: &fs::Metadata) -> Self {
        Self {
            device: about.dev(),
            inode: about.ino(),
            size: about.size(),
            changed: [
                (about.mtime(), about.mtime_nsec()),
                (about.ctime(), about.ctime_nsec()),
            ],
        }
    }
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
        Self(Arc::new(Inner {
            file: folder.map(|folder| folder.join(FILE)),
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
        spawn_blocking(move || pins.change(|_| ())).await
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
            let version = pins.version()?;
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
        let version = self.version()?;
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
        let in_file = self.read()?.remove(who).map(|known| Seen {
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

    /// The file as it is now; `None`: there is none.
    fn version(&self) -> io::Result<Option<FileVersion>> {
        let Some(file) = &self.0.file else {
            return Ok(None);
        };
        match ours(file) {
            Ok(about) => Ok(Some(FileVersion::of(&about))),
            Err(missing) if is_missing(&missing) => Ok(None),
            Err(why) => Err(with_path(file, &why)),
        }
    }

    /// This key from now on, unless another program has remembered one meanwhile.
    fn remember(
        &self,
        who: &AtSign,
        key: &Fingerprint,
        first: FirstSight,
    ) -> io::Result<Fingerprint> {
        let mut new = Known::of(key.clone());
        if first == FirstSight::Guest {
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            let now = now.unwrap_or_default().as_secs();
            new.notes.insert(format!("{GUEST}{now}"));
        }
        let mut known = key.clone();
        self.change(|all| {
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
        let file = self.version().unwrap_or_default();
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
        self.change(|all| before = all.insert(who.clone(), Known::of(key.clone())))?;
        Ok(before.map(|known| known.key))
    }

    /// Forgets a key; which it was.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn forget(&self, who: &AtSign) -> io::Result<Option<Fingerprint>> {
        let mut before = None;
        self.change(|all| before = all.remove(who))?;
        Ok(before.map(|known| known.key))
    }

    /// What is noted of this atSign, and from now on these as well, if its key is remembered. Where that cannot be read or
    /// written it is as if nothing were; where there is no room for new ones, those that are there stay.
    pub async fn note(&self, who: &AtSign, new: Vec<String>) -> BTreeSet<String> {
        let (pins, who) = (self.clone(), who.clone());
        let noting = spawn_blocking(move || {
            let known = pins.read()?.remove(&who);
            let notes = known.map(|known| known.notes).unwrap_or_default();
            if !new.iter().all(|note| notes.contains(note)) {
                let mut are_kept = true;
                pins.change(|all| are_kept = add_notes(all, &who, new))?;
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
        let Some(file) = &self.0.file else {
            return Ok(BTreeMap::new());
        };
        let read = ours(file).and_then(|_| file::text_now(file, MAX_FILE));
        let text = match read {
            Err(missing) if is_missing(&missing) => String::new(),
            read => read.map_err(|why| with_path(file, &why))?,
        };
        let bad = |line: &str| {
            let text = format!("{}: {line:?} is no key", file.display());
            io::Error::new(io::ErrorKind::InvalidData, text)
        };
        let lines = text.lines().filter(|line| !line.trim().is_empty());
        let pairs = lines.map(|line| {
            let (who, known) = line.split_once(' ').ok_or_else(|| bad(line))?;
            let who = who.parse().map_err(|_| bad(line))?;
            Ok((who, known.parse().map_err(|_| bad(line))?))
        });
        pairs.collect()
    }

    /// One program at a time: two that change it at once would each forget what the other one wrote.
    fn change(&self, change: impl FnOnce(&mut KnownKeys)) -> io::Result<()> {
        let none = || io::Error::new(io::ErrorKind::NotFound, "there is no folder for them");
        let file = self.0.file.as_ref().ok_or_else(none)?;
        if let Some(folder) = file.parent() {
            paths::private_folder(folder).map_err(|why| with_path(folder, &why))?;
        }
        let beside = file.with_extension("lock");
        let lock = paths::open_lock(&beside);
        let locked = lock.and_then(|lock| paths::lock_soon(&lock).map(|()| lock));
        let _lock = locked.map_err(|why| with_path(&beside, &why))?;
        let before = self.read()?;
        let mut all = before.clone();
        change(&mut all);
        if all == before {
            return Ok(());
        }
        let lines = all.iter().map(|(who, known)| format!("{who} {known}\n"));
        let text = lines.collect::<String>();
        if text.len() as u64 > MAX_FILE {
            return Err(io::Error::other(format!("{} is full", file.display())));
        }
        paths::atomic_write(file, text.as_bytes(), MODE)
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

/// As many as there is room for; whether that was all. Of whom no key is known, nothing is noted.
fn add_notes(all: &mut KnownKeys, who: &AtSign, new: Vec<String>) -> bool {
    let mut bytes: usize = all.values().map(Known::bytes_of_notes).sum();
    let Some(known) = all.get_mut(who) else {
        return true;
    };
    let mut are_kept = true;
    for note in new.into_iter().filter(|note| !note.starts_with(GUEST)) {
        if known.notes.contains(&note) {
            continue;
        }
        if known.notes.len() >= MOST_NOTES || bytes + note.len() >= MAX_NOTES {
            are_kept = false;
            continue;
        }
        bytes += note.len() + 1;
        known.notes.insert(note);
    }
    are_kept
}

/// Takes out the guests that were remembered first.
fn make_room_for_guest(all: &mut KnownKeys) {
    let since = |(who, known): (&AtSign, &Known)| Some((known.guest_since()?, who.clone()));
    let mut guests: Vec<_> = all.iter().filter_map(since).collect();
    guests.sort();
    let too_many = (guests.len() + 1).saturating_sub(MOST_GUESTS);
    for (_, who) in guests.into_iter().take(too_many) {
        all.remove(&who);
    }
}

/// Whoever can write a file, or replace it in its folder, decides whose key is believed.
fn ours(file: &Path) -> io::Result<fs::Metadata> {
    file.parent()
        .map_or(Ok(()), |folder| only_ours(folder).map(drop))?;
    only_ours(file)
}

fn only_ours(path: &Path) -> io::Result<fs::Metadata> {
    let about = match fs::metadata(path) {
        // What it leads to may come back: it is not as if nothing had been remembered.
        Err(why) if path.is_symlink() => {
            let text = format!("{} leads nowhere: {why}", path.display());
            return Err(io::Error::other(text));
        }
        about => about?,
    };
    file::refuse_others(path, &about, Writers::Nobody).map_err(|why| {
        let text = format!("{}: {why}", path.display());
        io::Error::new(why.kind(), text)
    })?;
    Ok(about)
}

/// Names what the system does not name, and who named it.
fn with_path(path: &Path, why: &io::Error) -> io::Error {
    let (mut text, path) = (why.to_string(), path.display().to_string());
    if !text.contains(&path) {
        text = format!("{path}: {text}");
    }
    if let Some(folder) = env::var_os(paths::MEMORY).filter(|folder| !folder.is_empty()) {
        text = format!("{}={}: {text}", paths::MEMORY, folder.display());
    }
    io::Error::new(why.kind(), text)
}

/// There is no such file, or no folder for it.
fn is_missing(why: &io::Error) -> bool {
    matches!(
        why.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;

    use std::os::unix::fs::PermissionsExt;

    use async_std::task::block_on;

    use super::*;
    use crate::{at::vectors::keys, testing::Folder};

    const REMEMBER: FirstSight = FirstSight::Remember;

    fn bob() -> AtSign {
        "@bob".parse().unwrap()
    }

    fn key(name: &str) -> PublicKey {
        keys(name).encryption.public().clone()
    }

    /// Two different keys.
    fn two() -> [PublicKey; 2] {
        let pair = crate::at::crypto::KeyPair::generate().unwrap();
        [key("legacy_file"), pair.public().clone()]
    }

    #[test]
    fn the_first_key_counts_also_after_a_restart_and_another_one_is_refused_until_it_is_trusted() {
        let folder = Folder::new();
        let [first, second] = two();
        let pins = || Pins::new(Some(folder.path("state")), Vec::new());
        block_on(async {
            let running = pins();
            assert_eq!(running.check(&bob(), &first, REMEMBER).await, Ok(()));
            assert_eq!(running.check(&bob(), &first, REMEMBER).await, Ok(()));
            for pins in [running.clone(), pins()] {
                let changed = pins.check(&bob(), &second, REMEMBER).await.unwrap_err();
                let (known, now) = (Fingerprint::of(&first), Fingerprint::of(&second));
                let want =
                    format!("the key of @bob is another one than before: {now} instead of {known}");
                assert_eq!(changed.to_string(), want);
                let way = format!(
                    "noports trust @bob --fingerprint {}",
                    Fingerprint::of(&second)
                );
                assert!(changed.hint().ends_with(&way), "{}", changed.hint());
            }
            let before = pins().trust(&bob(), &Fingerprint::of(&second));
            assert_eq!(before.unwrap(), Some(Fingerprint::of(&first)));
            // Without a restart.
            assert_eq!(running.check(&bob(), &second, REMEMBER).await, Ok(()));
            assert!(running.check(&bob(), &first, REMEMBER).await.is_err());
        });
        let file = folder.path("state/known_keys");
        let mode = fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let want = format!("@bob {}\n", Fingerprint::of(&second));
        assert_eq!(fs::read_to_string(&file).unwrap(), want);
    }

    #[test]
    fn a_key_that_was_named_counts_whatever_is_remembered() {
        let folder = Folder::new();
        let [first, second] = two();
        let named = vec![(bob(), Fingerprint::of(&second))];
        block_on(async {
            let pins = Pins::new(Some(folder.path("state")), Vec::new());
            assert_eq!(pins.check(&bob(), &first, REMEMBER).await, Ok(()));
            let pins = Pins::new(Some(folder.path("state")), named);
            assert_eq!(pins.check(&bob(), &second, REMEMBER).await, Ok(()));
            let changed = pins.check(&bob(), &first, REMEMBER).await.unwrap_err();
            assert!(matches!(changed, PinError::Changed { is_named: true, .. }));
            assert!(changed.hint().contains("@bob#"));
        });
    }

    #[test]
    fn where_nothing_can_be_written_the_memory_counts() {
        let folder = Folder::new();
        let [first, second] = two();
        fs::write(folder.path("none"), "").unwrap();
        block_on(async {
            for at in [None, Some(folder.path("none"))] {
                let pins = Pins::new(at, Vec::new());
                assert!(pins.can_remember().await.is_err());
                assert_eq!(pins.check(&bob(), &first, REMEMBER).await, Ok(()));
                assert!(pins.check(&bob(), &second, REMEMBER).await.is_err());
                assert_eq!(pins.check(&bob(), &first, REMEMBER).await, Ok(()));
            }
        });
    }

    #[test]
    fn programs_that_remember_at_once_lose_nothing() {
        let folder = Folder::new();
        let key = Fingerprint::of(&two()[0]);
        std::thread::scope(|scope| {
            for n in 0..8 {
                let (pins, key) = (Pins::new(Some(folder.path("s")), Vec::new()), &key);
                scope.spawn(move || {
                    for m in 0..5 {
                        let who = format!("@p{n}_{m}").parse().unwrap();
                        pins.remember(&who, key, REMEMBER).unwrap();
                    }
                });
            }
        });
        let pins = Pins::new(Some(folder.path("s")), Vec::new());
        assert_eq!(pins.read().unwrap().len(), 40);
    }

    #[test]
    fn a_word_names_an_atsign_with_or_without_a_fingerprint() {
        let print = Fingerprint::of(&two()[0]).to_string();
        assert_eq!(print.len(), 43);
        assert_eq!(named("bob"), Ok((bob(), None)));
        let both = named(&format!("@bob#{print}")).unwrap();
        assert_eq!(both, (bob(), Some(print.parse().unwrap())));
        let short = format!("@bob#{}", &print[1..]);
        for bad in ["@bob#", "@bob#x", &*short, "@b!", "#", &format!("#{print}")] {
            assert!(named(bad).is_err(), "{bad}");
        }
    }

    /// It was made anew through a link: whatever the link led to was empty then.
    #[test]
    fn a_link_in_the_locks_place_is_not_followed_and_a_pipe_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let other = folder.path().join("other");
        fs::write(&other, "theirs").unwrap();
        let lock = folder.path().join(FILE).with_extension("lock");
        std::os::unix::fs::symlink(&other, &lock).unwrap();
        let pins = Pins::new(Some(folder.path().to_owned()), Vec::new());
        let who = "@bob".parse().unwrap();
        let key: Fingerprint = "A".repeat(43).parse().unwrap();
        assert!(pins.trust(&who, &key).is_err());
        assert_eq!(fs::read_to_string(&other).unwrap(), "theirs");
        fs::remove_file(&lock).unwrap();
        let made = std::process::Command::new("mkfifo")
            .arg(folder.path().join(FILE))
            .status();
        assert!(made.unwrap().success());
        assert!(pins.read().is_err() && pins.trust(&who, &key).is_err());
    }

    /// One bad line, and whatever key came next was believed.
    #[test]
    fn keys_that_cannot_be_read_are_no_reason_to_believe_others() {
        block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let [key, _] = two();
            for text in ["x\n", "@bob something\n", "@bob \n"] {
                fs::write(folder.path().join(FILE), text).unwrap();
                let pins = Pins::new(Some(folder.path().to_owned()), Vec::new());
                let got = pins.check(&bob(), &key, REMEMBER).await;
                assert!(
                    matches!(got, Err(PinError::Unreadable(_))),
                    "{text:?}: {got:?}"
                );
            }
        });
    }

    #[test]
    fn the_table_says_what_the_constants_are() {
        let header = include_str!("pins.rs");
        for row in [
            format!("//! | keys that are remembered | {MOST} | 1 |"),
            format!("//! | of them, of clients that a policy let in | {MOST_GUESTS} | 1 |"),
            format!(
                "//! | notes: what a peer could do | {} MiB | {MOST_NOTES} |",
                MAX_NOTES >> 20
            ),
        ] {
            assert!(header.lines().any(|line| line.starts_with(&row)), "{row}");
        }
    }

    /// They were not remembered at all.
    #[test]
    fn clients_of_a_policy_are_remembered_and_a_crowd_of_them_pushes_no_manager_out() {
        let folder = Folder::new();
        let [first, second] = two();
        let pins = || Pins::new(Some(folder.path("s")), Vec::new());
        block_on(async {
            let guest = FirstSight::Guest;
            assert_eq!(pins().check(&bob(), &first, guest).await, Ok(()));
            assert!(pins().check(&bob(), &second, guest).await.is_err());
            let carol = "@carol".parse().unwrap();
            assert_eq!(pins().check(&carol, &first, REMEMBER).await, Ok(()));
        });
        let print = Fingerprint::of(&first);
        let crowd = (0..MOST_GUESTS).map(|n| format!("@g{n} {print} guest={n}\n"));
        let file = folder.path("s/known_keys");
        let text = fs::read_to_string(&file).unwrap() + &crowd.collect::<String>();
        paths::atomic_write(&file, text.as_bytes(), MODE).unwrap();
        let late = "@late".parse().unwrap();
        pins().remember(&late, &print, FirstSight::Guest).unwrap();
        let known = pins().read().unwrap();
        let has = |who: &str| known.contains_key(&who.parse().unwrap());
        assert!(has("@carol") && has("@bob") && has("@late") && has("@g2"));
        assert!(!has("@g0") && !has("@g1"));
        assert_eq!(known.len(), MOST_GUESTS + 1);
    }

    /// They were believed, whoever had written them.
    #[test]
    fn keys_that_others_can_write_are_refused_by_name() {
        let folder = Folder::new();
        let [first, _] = two();
        let pins = || Pins::new(Some(folder.path("s")), Vec::new());
        let file = folder.path("s/known_keys");
        block_on(async {
            assert_eq!(pins().check(&bob(), &first, REMEMBER).await, Ok(()));
            for (what, good) in [(&file, 0o600), (&folder.path("s"), 0o700)] {
                for bad in [0o020, 0o002, 0o022] {
                    let mode = |mode| fs::set_permissions(what, fs::Permissions::from_mode(mode));
                    mode(good | bad).unwrap();
                    let got = pins().check(&bob(), &first, REMEMBER).await;
                    let Err(PinError::Unreadable(why)) = got else {
                        panic!("{bad:o}: {got:?}");
                    };
                    let want = format!("others can write it: chmod go-w {}", what.display());
                    assert!(why.ends_with(&want), "{why}");
                    assert!(pins().trust(&bob(), &Fingerprint::of(&first)).is_err());
                    mode(good).unwrap();
                }
            }
        });
    }

    #[test]
    fn a_key_that_was_given_for_recovery_takes_the_place_of_the_one_before() {
        let folder = Folder::new();
        let [first, second] = two();
        fs::write(folder.path("none"), "").unwrap();
        block_on(async {
            for at in [folder.path("s"), folder.path("none")] {
                let recovery = vec![Fingerprint::of(&second)];
                let pins = Pins::with_recovery(Some(at), Vec::new(), recovery);
                assert_eq!(pins.check(&bob(), &first, REMEMBER).await, Ok(()));
                // Nothing is signed with it yet: it may be told, and takes no place.
                assert_eq!(pins.check(&bob(), &second, FirstSight::Pass).await, Ok(()));
                assert_eq!(pins.check(&bob(), &first, REMEMBER).await, Ok(()));
                assert_eq!(pins.check(&bob(), &second, REMEMBER).await, Ok(()));
                assert!(pins.check(&bob(), &first, REMEMBER).await.is_err());
                let named = vec![(bob(), Fingerprint::of(&first))];
                let recovery = vec![Fingerprint::of(&second)];
                let pins = Pins::with_recovery(None, named, recovery);
                assert_eq!(pins.check(&bob(), &second, REMEMBER).await, Ok(()));
                assert_eq!(pins.check(&bob(), &first, REMEMBER).await, Ok(()));
            }
        });
    }

    #[test]
    fn what_is_only_heeded_is_not_remembered_and_what_is_forgotten_counts_no_more() {
        let folder = Folder::new();
        let [first, second] = two();
        let pins = Pins::new(Some(folder.path("s")), Vec::new());
        block_on(async {
            for key in [&first, &second] {
                assert_eq!(pins.check(&bob(), key, FirstSight::Pass).await, Ok(()));
            }
            assert_eq!(pins.check(&bob(), &first, REMEMBER).await, Ok(()));
            assert!(pins.check(&bob(), &second, FirstSight::Pass).await.is_err());
            assert_eq!(pins.forget(&bob()).unwrap(), Some(Fingerprint::of(&first)));
            assert_eq!(pins.forget(&bob()).unwrap(), None);
            // Without a restart.
            assert_eq!(pins.check(&bob(), &second, REMEMBER).await, Ok(()));
        });
    }

    #[test]
    fn what_a_peer_could_do_is_noted_until_it_is_trusted_anew_and_its_notes_are_bounded() {
        let folder = Folder::new();
        let [first, _] = two();
        let pins = || Pins::new(Some(folder.path("s")), Vec::new());
        let note = |what: &str| vec![what.to_owned()];
        block_on(async {
            // Of whom no key is known, nothing is noted.
            assert!(pins().note(&bob(), note("a=1")).await.is_empty());
            assert_eq!(pins().check(&bob(), &first, REMEMBER).await, Ok(()));
            assert!(pins().note(&bob(), note("a=1")).await.is_empty());
            assert!(pins().note(&bob(), Vec::new()).await.contains("a=1"));
            let many: Vec<_> = (0..2 * MOST_NOTES).map(|n| format!("b={n}")).collect();
            pins().note(&bob(), many).await;
            let notes = pins().note(&bob(), Vec::new()).await;
            assert!(notes.contains("a=1") && notes.len() == MOST_NOTES);
            pins().trust(&bob(), &Fingerprint::of(&first)).unwrap();
            assert!(pins().note(&bob(), Vec::new()).await.is_empty());
        });
    }

    /// The shortcut for a key that had been seen never looked at the file: the old key got in until the new one came.
    #[test]
    fn what_a_person_says_counts_at_once_in_a_program_that_runs() {
        let folder = Folder::new();
        let [first, second] = two();
        let pins = || Pins::new(Some(folder.path("s")), Vec::new());
        let file = folder.path("s/known_keys");
        block_on(async {
            let running = pins();
            let check = async |key| running.check(&bob(), key, REMEMBER).await;
            assert_eq!(check(&first).await, Ok(()));
            pins().trust(&bob(), &Fingerprint::of(&second)).unwrap();
            assert!(check(&first).await.is_err());
            assert_eq!(check(&second).await, Ok(()));
            // Forgotten: the next one counts, whichever it is, also for what is sent to it.
            pins().forget(&bob()).unwrap();
            assert_eq!(
                running.check(&bob(), &first, FirstSight::Pass).await,
                Ok(())
            );
            assert_eq!(check(&first).await, Ok(()));
            assert!(check(&second).await.is_err());
            // An editor's change, of the same length.
            let text = fs::read_to_string(&file).unwrap();
            let [old, new] = [&first, &second].map(|key| Fingerprint::of(key).to_string());
            paths::atomic_write(&file, text.replace(&old, &new).as_bytes(), MODE).unwrap();
            assert!(check(&first).await.is_err());
            // The whole file is removed, spoilt, or opened to others.
            fs::remove_file(&file).unwrap();
            assert_eq!(check(&first).await, Ok(()));
            fs::set_permissions(&file, fs::Permissions::from_mode(0o620)).unwrap();
            assert!(matches!(check(&first).await, Err(PinError::Unreadable(_))));
            paths::atomic_write(&file, b"x\n", MODE).unwrap();
            assert!(matches!(check(&first).await, Err(PinError::Unreadable(_))));
        });
    }

    /// A key that could not be written gave way to the one before as soon as that came again.
    #[test]
    fn where_the_file_cannot_be_written_what_was_said_last_counts_until_somebody_changes_the_file()
    {
        let folder = Folder::new();
        let [first, second] = two();
        let pins = Pins::new(Some(folder.path("s")), Vec::new());
        let file = folder.path("s/known_keys");
        block_on(async {
            assert_eq!(pins.check(&bob(), &first, REMEMBER).await, Ok(()));
            // A lock that is a folder: nothing is written any more.
            let lock = file.with_extension("lock");
            fs::remove_file(&lock).unwrap();
            fs::create_dir(&lock).unwrap();
            pins.believe(&bob(), &Fingerprint::of(&second)).await;
            assert!(pins.check(&bob(), &first, REMEMBER).await.is_err());
            assert_eq!(pins.check(&bob(), &second, REMEMBER).await, Ok(()));
            let text = fs::read(&file).unwrap();
            paths::atomic_write(&file, &text, MODE).unwrap();
            assert_eq!(pins.check(&bob(), &first, REMEMBER).await, Ok(()));
        });
    }

    /// A thousand guests of a policy pushed a manager out who had been one of them.
    #[test]
    fn a_guest_who_is_made_a_manager_is_a_guest_no_more() {
        let folder = Folder::new();
        let [first, second] = two();
        let pins = || Pins::new(Some(folder.path("s")), Vec::new());
        let is_guest = || pins().read().unwrap()[&bob()].guest_since().is_some();
        block_on(async {
            let running = pins();
            for (pins, first_sight, guest) in [
                (&running, FirstSight::Guest, true),
                (&running, FirstSight::Pass, true),
                (&pins(), FirstSight::Guest, true),
                (&running, REMEMBER, false),
                (&pins(), FirstSight::Guest, false),
            ] {
                assert_eq!(pins.check(&bob(), &first, first_sight).await, Ok(()));
                assert_eq!(is_guest(), guest, "{first_sight:?}");
            }
            // Not by another key than the guest's.
            pins().forget(&bob()).unwrap();
            assert_eq!(
                running.check(&bob(), &first, FirstSight::Guest).await,
                Ok(())
            );
            assert!(pins().check(&bob(), &second, REMEMBER).await.is_err());
            assert!(is_guest());
        });
    }

    /// The last one by the alphabet gave way: of a fleet, what was noted of some devices, or that it is a guest.
    #[test]
    fn the_notes_of_a_fleet_stay_and_the_new_one_is_not_noted() {
        let folder = Folder::new();
        let print = Fingerprint::of(&two()[0]);
        let pins = Pins::new(Some(folder.path("s")), Vec::new());
        let fleet = |devices| -> Vec<String> {
            let both = |n| [format!("signed-time=d{n}"), format!("twin-keys=d{n}")];
            (0..devices).flat_map(both).collect()
        };
        block_on(async {
            pins.remember(&bob(), &print, FirstSight::Guest).unwrap();
            pins.note(&bob(), fleet(1023)).await;
            pins.note(&bob(), fleet(1024)).await;
            pins.note(&bob(), vec!["a=1".to_owned(), "guest=1".to_owned()])
                .await;
            let known = pins.read().unwrap()[&bob()].clone();
            assert!(fleet(1023).iter().all(|note| known.notes.contains(note)));
            assert!(!known.notes.contains("a=1"));
            assert!(known.guest_since().is_some_and(|since| since > 1));
            // Of everybody together no more than fits beside the keys.
            for n in 0..7 {
                let who: AtSign = format!("@p{n}").parse().unwrap();
                pins.remember(&who, &print, REMEMBER).unwrap();
                let long = |m| format!("{m}={}", "x".repeat(90));
                pins.note(&who, (0..MOST_NOTES).map(long).collect()).await;
            }
            let all = pins.read().unwrap();
            let bytes: usize = all.values().map(Known::bytes_of_notes).sum();
            assert!(bytes <= MAX_NOTES && bytes > MAX_NOTES - 100, "{bytes}");
            assert_eq!(all[&bob()], known);
            assert_eq!(all.len(), 8);
        });
    }
}
