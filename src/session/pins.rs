//! The keys of others are remembered: the first one that is seen, or the one that was named.
//!
//! ```text
//!   a key of @bob ─▶ named on the command line? ─ yes ─▶ it is this one, or it is refused
//!                    │ no
//!                    ├─ remembered ───────────────────▶ it is this one, or it is refused: noports trust @bob
//!                    └─ never seen ───────────────────▶ remembered from now on
//! ```
//! Keys are told by atServers, so whoever runs one could tell another key. Remembered keys are a file of lines,
//! `@bob <fingerprint>`, in the folder for what must outlive a program; all programs of a user share it. Each change writes
//! it anew under another name, and the disk has it before it takes the old one's place. Where it cannot be written the
//! memory has them, which is said: from a start on the first key that is seen counts. Where it is there and cannot be read
//! nobody's key is believed.

use std::{
    collections::{BTreeMap, HashMap},
    fmt, io,
    path::PathBuf,
    str::FromStr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_std::task::spawn_blocking;
use log::{info, warn};

use crate::{
    at::{
        AtSign,
        crypto::{PublicKey, from_base64},
    },
    sys::{file, paths},
};

/// Most keys that are remembered; further ones are believed without.
const MOST: usize = 10_000;
/// Room for all of them: an atSign, a blank, a fingerprint and a line end each.
const MAX_FILE: u64 = MOST as u64 * 128;
/// The file's name.
const FILE: &str = "known_keys";
/// Only this user's.
const MODE: u32 = 0o600;
/// Length of a digest.
const DIGEST: usize = 32;

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
                "{text:?} is no fingerprint of a key: it has 43 characters, and `noports trust @you` tells it"
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
    seen: Mutex<HashMap<AtSign, Fingerprint>>,
}

impl Pins {
    /// With what is remembered in this folder, and these keys that count in any case.
    pub fn new(folder: Option<PathBuf>, named: Vec<(AtSign, Fingerprint)>) -> Self {
        Self(Arc::new(Inner {
            file: folder.map(|folder| folder.join(FILE)),
            named: named.into_iter().collect(),
            seen: Mutex::default(),
        }))
    }

    fn seen(&self) -> MutexGuard<'_, HashMap<AtSign, Fingerprint>> {
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

    /// Whether this is the key of that atSign; one that was never seen is, from now on.
    ///
    /// # Errors
    /// See [`PinError`].
    pub async fn check(&self, who: &AtSign, key: &PublicKey) -> Result<(), PinError> {
        let now = Fingerprint::of(key);
        if let Some(named) = self.0.named.get(who) {
            return self.same(who, named.clone(), now, true);
        }
        let seen = self.seen().get(who).cloned();
        if seen.as_ref() == Some(&now) {
            return Ok(());
        }
        // Somebody at the console may have said that the new one is right.
        let (pins, them) = (self.clone(), who.clone());
        let read = spawn_blocking(move || pins.read()).await;
        // What was remembered and cannot be read now may be another key than this one.
        let read = read.map_err(|why| PinError::Unreadable(why.to_string()))?;
        let known = match read.get(who) {
            Some(known) => known.clone(),
            None => {
                let (pins, new) = (self.clone(), now.clone());
                let remembered = spawn_blocking(move || pins.remember(&them, &new)).await;
                remembered.unwrap_or_else(|why| {
                    warn!("key_of={who} fingerprint={now} remembered=in_memory reason=\"{why}\"");
                    seen.unwrap_or_else(|| now.clone())
                })
            }
        };
        self.seen().insert(who.clone(), known.clone());
        self.same(who, known, now, false)
    }

    fn same(
        &self,
        who: &AtSign,
        known: Fingerprint,
        now: Fingerprint,
        is_named: bool,
    ) -> Result<(), PinError> {
        if known == now {
            return Ok(());
        }
        let who = who.clone();
        Err(PinError::Changed {
            who,
            known,
            now,
            is_named,
        })
    }

    /// This key from now on, unless another program has remembered one meanwhile.
    fn remember(&self, who: &AtSign, key: &Fingerprint) -> io::Result<Fingerprint> {
        let mut known = key.clone();
        self.change(|all| {
            if all.len() < MOST || all.contains_key(who) {
                known = all.entry(who.clone()).or_insert(known.clone()).clone();
            }
        })?;
        info!("key_of={who} fingerprint={known} remembered=yes");
        Ok(known)
    }

    /// From now on this is the key of that atSign; the one before it, if there was one.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn trust(&self, who: &AtSign, key: &Fingerprint) -> io::Result<Option<Fingerprint>> {
        let mut before = None;
        self.change(|all| before = all.insert(who.clone(), key.clone()))?;
        Ok(before)
    }

    /// All that are remembered.
    ///
    /// # Errors
    /// When there is a file that cannot be read.
    pub fn read(&self) -> io::Result<BTreeMap<AtSign, Fingerprint>> {
        let Some(file) = &self.0.file else {
            return Ok(BTreeMap::new());
        };
        let text = match file::text_now(file, MAX_FILE) {
            Err(missing) if is_missing(&missing) => String::new(),
            read => read?,
        };
        let bad = |line: &str| {
            let text = format!("{}: {line:?} is no key", file.display());
            io::Error::new(io::ErrorKind::InvalidData, text)
        };
        let lines = text.lines().filter(|line| !line.trim().is_empty());
        let pairs = lines.map(|line| {
            let (who, key) = line.split_once(' ').ok_or_else(|| bad(line))?;
            let who = who.parse().map_err(|_| bad(line))?;
            Ok((who, key.trim().parse().map_err(|_| bad(line))?))
        });
        pairs.collect()
    }

    /// One program at a time: two that change it at once would each forget what the other one wrote.
    fn change(&self, change: impl FnOnce(&mut BTreeMap<AtSign, Fingerprint>)) -> io::Result<()> {
        let none = || io::Error::new(io::ErrorKind::NotFound, "there is no folder for them");
        let file = self.0.file.as_ref().ok_or_else(none)?;
        if let Some(folder) = file.parent() {
            paths::private_folder(folder)?;
        }
        let lock = paths::open_lock(&file.with_extension("lock"))?;
        paths::lock_soon(&lock)?;
        let before = self.read()?;
        let mut all = before.clone();
        change(&mut all);
        if all == before {
            return Ok(());
        }
        let lines = all.iter().map(|(who, key)| format!("{who} {key}\n"));
        paths::atomic_write(file, lines.collect::<String>().as_bytes(), MODE)
    }
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
            assert_eq!(running.check(&bob(), &first).await, Ok(()));
            assert_eq!(running.check(&bob(), &first).await, Ok(()));
            for pins in [running.clone(), pins()] {
                let changed = pins.check(&bob(), &second).await.unwrap_err();
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
            assert_eq!(running.check(&bob(), &second).await, Ok(()));
            assert!(running.check(&bob(), &first).await.is_err());
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
            assert_eq!(pins.check(&bob(), &first).await, Ok(()));
            let pins = Pins::new(Some(folder.path("state")), named);
            assert_eq!(pins.check(&bob(), &second).await, Ok(()));
            let changed = pins.check(&bob(), &first).await.unwrap_err();
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
                assert_eq!(pins.check(&bob(), &first).await, Ok(()));
                assert!(pins.check(&bob(), &second).await.is_err());
                assert_eq!(pins.check(&bob(), &first).await, Ok(()));
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
                        pins.remember(&who, key).unwrap();
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
                let got = pins.check(&"@bob".parse().unwrap(), &key).await;
                assert!(
                    matches!(got, Err(PinError::Unreadable(_))),
                    "{text:?}: {got:?}"
                );
            }
        });
    }
}
