//! Key files on disk: where they are, reading them, and writing them so that a crash leaves the old or the new
//! file but never half of one. What is in them is [`crate::at::keyfile`]'s matter.
//!
//! ```text
//!   $HOME/.atsign/keys/@alice_key.atKeys        folder 0700, file 0600 from its first moment
//!   save: temporary file beside it ─▶ fsync ─▶ rename ─▶ fsync of the folder
//! ```

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use log::warn;
use rustix::process::geteuid;

use crate::{
    at::{
        AtSign,
        keyfile::{AtKeys, KeyFileError},
        passphrase,
    },
    secret::Secret,
    sys::{
        file::{NamedFile, Writers},
        paths,
        ssh::shell_line,
    },
};

use super::draft::DraftKeyFile;

/// Largest file that is read, in bytes; key files have about 8 kB.
const MAX_FILE: u64 = 256 * 1024;
/// Behind the atSign in a key file's name.
const SUFFIX: &str = "_key.atKeys";

/// Why a key file cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum KeyStoreError {
    #[error("there is no key file {path}")]
    NotFound { path: PathBuf, instead: String },
    #[error("cannot read the key file {path}: {source}")]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{path}: {source}")]
    Content { path: PathBuf, source: KeyFileError },
    #[error("cannot write the key file {path}: {source}")]
    Unwritable { path: PathBuf, source: io::Error },
    #[error("there are several key files in {folder}: {names}")]
    Several { folder: PathBuf, names: String },
}

impl KeyStoreError {
    /// What to try next.
    pub fn hint(&self) -> String {
        let text = match self {
            Self::NotFound { instead, .. } => return instead.clone(),
            Self::Content {
                source: KeyFileError::Others(owner),
                path,
            } => {
                let path = path.display().to_string();
                return format!("--as {}", shell_line(&[owner.as_str(), "--keys", &path]));
            }
            Self::Unreadable { source, .. } if source.kind() == io::ErrorKind::InvalidData => {
                "is this the .atKeys file that activation or enrolment wrote?"
            }
            Self::Unreadable { .. } => "does the file belong to the user that runs this program?",
            Self::Content { source, .. } => source.hint(),
            Self::Unwritable { .. } => "is the folder writable, and is there space left?",
            Self::Several { names, .. } => {
                let first = names.split(',').next().unwrap_or_default();
                return format!("--as {first}");
            }
        };
        text.to_owned()
    }
}

/// How an atSign gets a key file here.
pub(super) fn make_keys(who: &str) -> String {
    format!("noports enroll {who}; for the first keys of an atSign: noports activate {who}")
}

/// The only key file in a folder: the default identity. `None`: there is none.
///
/// # Errors
/// `Several`, or `Unreadable` for a folder that exists.
pub fn only_identity(folder: &Path) -> Result<Option<(AtSign, PathBuf)>, KeyStoreError> {
    let unreadable = |source| KeyStoreError::Unreadable {
        path: folder.to_owned(),
        source,
    };
    let entries = match fs::read_dir(folder) {
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(unreadable)?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(unreadable)?.path();
        found.extend(owner(&path).map(|who| (who, path)));
    }
    if found.len() < 2 {
        return Ok(found.pop());
    }
    found.sort();
    let names: Vec<_> = found.iter().map(|(who, _)| who.as_str()).collect();
    Err(KeyStoreError::Several {
        folder: folder.to_owned(),
        names: names.join(", "),
    })
}

/// A file's name in small letters.
fn small(file: &Path) -> String {
    let name = file.file_name().unwrap_or_default();
    name.to_string_lossy().to_lowercase()
}

/// What to do where this atSign has no key file.
fn instead(path: &Path, who: &AtSign) -> String {
    if DraftKeyFile::of(path).path.exists() {
        return format!("noports activate {who} goes on where it was cut off");
    }
    if DraftKeyFile::asked(path).path.exists() {
        return format!("noports enroll {who} goes on with what it has asked for");
    }
    let folder = path.parent().filter(|folder| *folder != Path::new(""));
    match first(folder.unwrap_or(Path::new(".")), |file| is_like(file, who)) {
        Some(near) => format!("--keys {}", shell_line(&[near])),
        None => make_keys(who.as_str()),
    }
}

/// What to do where no file of a folder has a key file's name.
pub(super) fn instead_of_any(folder: &Path) -> String {
    match first(folder, |file| small(file).contains(".atkeys")) {
        Some(near) => format!("--as @you --keys {}", shell_line(&[near])),
        None => make_keys("@you"),
    }
}

/// The first such file of a folder.
fn first(folder: &Path, fits: impl Fn(&Path) -> bool) -> Option<PathBuf> {
    let entries = fs::read_dir(folder).ok()?.flatten();
    entries
        .map(|entry| entry.path())
        .filter(|file| fits(file))
        .min()
}

/// A file that may be an atSign's under another name: `@me_key (1).atKeys`, `@Me_key.atkeys`, `me.atKeys`, `@me_key.atKeys.txt`.
fn is_like(file: &Path, who: &AtSign) -> bool {
    let name = small(file);
    let is_others = owner(file).is_some_and(|of| of != *who);
    let goes_on = |c: char| c.is_alphanumeric() || "_-".contains(c);
    let stands_alone = |(at, bare): (usize, &str)| {
        let behind = &name[at + bare.len()..];
        !name[..at].ends_with(goes_on)
            && (behind.starts_with("_key") || !behind.starts_with(goes_on))
    };
    !is_others && name.contains("key") && name.match_indices(who.bare()).any(stands_alone)
}

/// Whose keys a file holds, by its name: `@alice_key.atKeys` → `@alice`.
pub fn owner(path: &Path) -> Option<AtSign> {
    let name = path.file_name()?.to_str()?;
    let who = name.strip_suffix(SUFFIX)?;
    who.strip_prefix('@').and_then(|_| who.parse().ok())
}

/// Reads a key file that is not protected.
#[cfg(test)]
pub fn load(path: &Path, who: &AtSign) -> Result<AtKeys, KeyStoreError> {
    parse(path, who, &text_of(path, who)?)
}

/// Reads a key file. Warns when others on this machine may read it too.
/// One that is protected is opened with `phrase`, which is only called for such a file.
///
/// # Errors
/// `NotFound`, `Unreadable`, `Content` for what is wrong inside, and those of `phrase`.
pub fn unlock<E: From<KeyStoreError>>(
    path: &Path,
    who: &AtSign,
    phrase: impl FnOnce() -> Result<Secret<String>, E>,
) -> Result<AtKeys, E> {
    Ok(unlock_file(path, who, phrase)?.keys)
}

/// A key file, opened.
#[derive(Debug)]
pub struct KeyFile {
    /// What is in it.
    pub keys: AtKeys,
    /// Its text without protection, to the letter: programs may keep more in it than is known here.
    pub text: Secret<String>,
    /// Whether it was protected.
    pub protected: bool,
}

/// Opens a key file as [`unlock`] does, and keeps its text.
///
/// # Errors
/// Those of [`unlock`].
pub fn unlock_file<E: From<KeyStoreError>>(
    path: &Path,
    who: &AtSign,
    phrase: impl FnOnce() -> Result<Secret<String>, E>,
) -> Result<KeyFile, E> {
    let text = text_of(path, who)?;
    match parse(path, who, &text) {
        Err(KeyStoreError::Content {
            source: KeyFileError::PassPhrase,
            ..
        }) => {}
        plain => {
            return Ok(KeyFile {
                keys: plain?,
                text,
                protected: false,
            });
        }
    }
    let text = passphrase::unprotect(text.reveal(), &phrase()?).map_err(|source| {
        KeyStoreError::Content {
            path: path.to_owned(),
            source,
        }
    })?;
    Ok(KeyFile {
        keys: parse(path, who, &text)?,
        text,
        protected: true,
    })
}

fn text_of(path: &Path, who: &AtSign) -> Result<Secret<String>, KeyStoreError> {
    read(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => KeyStoreError::NotFound {
            path: path.to_owned(),
            instead: instead(path, who),
        },
        _ => KeyStoreError::Unreadable {
            path: path.to_owned(),
            source,
        },
    })
}

fn parse(path: &Path, who: &AtSign, text: &Secret<String>) -> Result<AtKeys, KeyStoreError> {
    AtKeys::parse(who, text.reveal()).map_err(|source| KeyStoreError::Content {
        path: path.to_owned(),
        source,
    })
}

fn read(path: &Path) -> io::Result<Secret<String>> {
    let file = NamedFile::open_safe(path, Writers::Group)?;
    let (mode, owner, shown) = (file.about().mode(), file.about().uid(), path.display());
    if file.about().is_file() && mode & 0o077 != 0 {
        warn!(
            "keys={shown} mode={:03o} other users can read the keys; fix it with chmod 600",
            mode & 0o777
        );
    }
    // Only root gets as far as this with another user's.
    if file.about().is_file() && ![0, geteuid().as_raw()].contains(&owner) {
        warn!("keys={shown} owner={owner} that user can change what this program logs in with");
    }
    file.text(MAX_FILE).map(Secret::new)
}

/// Writes a key file with mode 0600, in one step as seen from outside, protected where there is a phrase.
/// Makes its folder when missing.
///
/// # Errors
/// `Unwritable`.
pub fn save(
    keys: &AtKeys,
    path: &Path,
    phrase: Option<&Secret<String>>,
) -> Result<(), KeyStoreError> {
    save_text(keys.print(), path, phrase)
}

/// Writes a key file with this text, whatever is in it beside the keys.
///
/// # Errors
/// As [`save`]; the file is what it was then.
pub fn save_text(
    text: Secret<String>,
    path: &Path,
    phrase: Option<&Secret<String>>,
) -> Result<(), KeyStoreError> {
    let text = match phrase {
        Some(phrase) => passphrase::protect(text.reveal(), phrase).map(Secret::new),
        None => Ok(text),
    };
    let folder = path.parent().filter(|folder| *folder != Path::new(""));
    folder
        .map_or(Ok(()), paths::private_folder)
        .and_then(|()| text.map_err(io::Error::other))
        .and_then(|text| paths::atomic_write(path, text.reveal().as_bytes(), 0o600))
        .map_err(|source| KeyStoreError::Unwritable {
            path: path.to_owned(),
            source,
        })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crate::at::vectors::{atsign, keys};
    use crate::cli::keystore::*;
    use crate::testing::Folder;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    #[test]
    fn a_saved_file_is_private_and_reads_back() {
        let folder = Folder::new();
        let keys = keys("apkam_file");
        let path = folder
            .0
            .join("new/keys")
            .join(AtKeys::file_name(&keys.atsign));
        save(&keys, &path, None).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let parent = path.parent().unwrap();
        assert_eq!(fs::metadata(parent).unwrap().mode() & 0o777, 0o700);
        assert_eq!(names(parent), ["@alice_key.atKeys"]);
        let read = load(&path, &keys.atsign).unwrap();
        assert_eq!(read.print(), keys.print());
        let only = only_identity(parent).unwrap();
        assert_eq!(only, Some((keys.atsign, path)));
    }

    #[test]
    fn a_protected_file_opens_with_its_phrase_only() {
        let folder = Folder::new();
        let keys = keys("apkam_file");
        let path = folder.0.join("keys");
        let phrase = |text: &str| Secret::new(text.to_owned());
        let asked = |text: &str| Ok::<_, KeyStoreError>(phrase(text));
        save(&keys, &path, Some(&phrase("a b"))).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(!text.contains("aesPkam"), "{text}");
        let read = unlock(&path, &keys.atsign, || asked("a b")).unwrap();
        assert_eq!(read.print(), keys.print());
        let wrong = unlock(&path, &keys.atsign, || asked("a  b")).unwrap_err();
        assert!(wrong.to_string().ends_with("does not open the key file"));
        let without = load(&path, &keys.atsign).unwrap_err();
        assert!(without.to_string().ends_with("protected by a pass phrase"));
        save(&keys, &path, None).unwrap();
        let plain = unlock(&path, &keys.atsign, || -> Result<_, KeyStoreError> {
            panic!("a plain file needs no phrase")
        });
        assert!(plain.is_ok());
    }

    #[test]
    fn what_cannot_be_read_says_why() {
        let folder = Folder::new();
        let path = folder.0.join("@alice_key.atKeys");
        let missing = load(&path, &atsign("@alice")).unwrap_err();
        assert!(
            matches!(missing, KeyStoreError::NotFound { .. }),
            "{missing}"
        );
        let whole = keys("legacy_file").print();
        for (bytes, expected) in [
            (&b""[..], "it is empty"),
            (
                &whole.reveal().as_bytes()[..1000],
                "it is cut off before its end",
            ),
            (b"\xff\xff", "it is not text"),
        ] {
            fs::write(&path, bytes).unwrap();
            let why = load(&path, &atsign("@alice")).unwrap_err();
            assert!(why.to_string().ends_with(expected), "{why}");
        }
        fs::write(&path, vec![b' '; MAX_FILE as usize + 1]).unwrap();
        let big = load(&path, &atsign("@alice")).unwrap_err();
        assert!(matches!(big, KeyStoreError::Unreadable { .. }), "{big}");
    }

    #[test]
    fn the_default_identity_is_the_only_key_file() {
        let folder = Folder::new();
        assert_eq!(only_identity(&folder.0.join("none")).unwrap(), None);
        for name in ["notes.txt", "_key.atKeys", "@_key.atKeys", "bob_key.atKeys"] {
            fs::write(folder.0.join(name), "").unwrap();
        }
        assert_eq!(only_identity(&folder.0).unwrap(), None);
        fs::write(folder.0.join("@alice_key.atKeys"), "").unwrap();
        let (who, _) = only_identity(&folder.0).unwrap().unwrap();
        assert_eq!(who, atsign("@alice"));
        fs::write(folder.0.join("@bob_key.atKeys"), "").unwrap();
        let several = only_identity(&folder.0).unwrap_err();
        assert!(matches!(several, KeyStoreError::Several { .. }));
    }

    /// Somebody whose file had been downloaded twice was told to activate once more.
    #[test]
    fn a_key_file_under_nearly_its_name_is_named() {
        for (file, near) in [
            ("@me_key (1).atKeys", true),
            ("@me_key(2).atKeys", true),
            ("@Me_key.atKeys", true),
            ("me_key.atKeys", true),
            ("@me.atKeys", true),
            ("@me_key.atkeys", true),
            ("@me_key.atKeys.txt", true),
            ("@me_key.atKeys.bak", true),
            ("Copy of @me_key.atKeys", true),
            ("@me_key", true),
            ("@mena_key.atKeys", false),
            ("@me_two_key.atKeys", false),
            ("@me-too_key (1).atKeys", false),
            ("@home_key.atKeys", false),
            ("@you_key (1).atKeys", false),
            ("me.txt", false),
        ] {
            let folder = Folder::new();
            fs::write(folder.path(file), "").unwrap();
            let path = folder.path("@me_key.atKeys");
            let missing = load(&path, &atsign("@me")).unwrap_err();
            let want = if near {
                format!("--keys {}", shell_line(&[folder.path(file)]))
            } else {
                make_keys("@me")
            };
            assert_eq!(missing.hint(), want, "{file}");
        }
        for (draft, want) in [
            ("@me_key.atKeys.new", "noports activate @me goes on"),
            ("@me_key.atKeys.asked", "noports enroll @me goes on"),
        ] {
            let folder = Folder::new();
            fs::write(folder.path(draft), "").unwrap();
            let missing = load(&folder.path("@me_key.atKeys"), &atsign("@me")).unwrap_err();
            assert!(
                missing.hint().starts_with(want),
                "{draft}: {}",
                missing.hint()
            );
        }
    }

    #[test]
    fn keys_of_another_atsign_are_named_with_the_way_to_use_them() {
        let folder = Folder::new();
        let keys = keys("legacy_file");
        let path = folder.path("@bob key");
        save(&keys, &path, None).unwrap();
        let others = load(&path, &atsign("@bob")).unwrap_err();
        let name = path.display().to_string();
        assert_eq!(
            others.to_string(),
            format!("{name}: these are the keys of @alice")
        );
        assert_eq!(others.hint(), format!("--as @alice --keys '{name}'"));
    }
}
