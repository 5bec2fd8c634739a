//! Whom to act as and whom to trust: flags, the environment behind them, the keys folder.

use std::path::{Path, PathBuf};

use super::keystore;
use crate::{
    at::{
        AtSign,
        client::Network,
        directory::{DEFAULT_ROOT, Root},
        key,
        keyfile::AtKeys,
    },
    net::tls::Connector,
    sys::paths,
};

use super::{Failure, Phrases, exit};

/// The atDirectory and the authorities to trust: flags, else `NOPORTS_ROOT` and `NOPORTS_CA` (files
/// separated by `:`), else the public directory and the bundled authorities.
///
/// # Errors
/// [`exit::MISUSE`] when the address or a file cannot be read.
pub fn network(root: Option<&str>, ca: &[String]) -> Result<Network, Failure> {
    network_in(&environment, root, ca)
}

/// The keys to act with, of `as_` or else `NOPORTS_AS`. `keys` is a file, or a folder of files; else
/// `NOPORTS_KEYS`, else `~/.atsign/keys`. In a folder: the file of that atSign, or the only one there is.
///
/// # Errors
/// [`exit::MISUSE`] when the text is no atSign; [`exit::KEYS`] with what was looked for and where.
pub(super) fn own_keys(
    as_: Option<&str>,
    keys: Option<&Path>,
    phrases: &Phrases,
) -> Result<AtKeys, Failure> {
    let as_ = acting_as_in(&environment, as_)?;
    identity_in(&environment, as_.as_ref(), keys, phrases)
}

/// An atSign that can have keys. Letters such as `é` are allowed in an atSign and not in the name of a key, so no atServer
/// can store anything for it.
///
/// # Errors
/// [`exit::MISUSE`]: it is none, or cannot.
pub fn with_keys(typed: &str) -> Result<AtSign, Failure> {
    let who: AtSign = typed.parse()?;
    if key::can_own(&who) {
        return Ok(who);
    }
    let text = format!("{who} cannot be the owner of a key");
    Err(Failure::misuse(text).hint("use letters from a to z, digits, - , _ and emoji"))
}

/// Where an atSign's key file is, or will be: `keys` (a file, or a folder: it exists, or ends in `/`), else
/// `NOPORTS_KEYS`, else `~/.atsign/keys/@alice_key.atKeys`.
///
/// # Errors
/// [`exit::KEYS`] when there is no home folder to look in.
pub fn key_file(who: &AtSign, keys: Option<&Path>) -> Result<PathBuf, Failure> {
    key_file_in(&environment, who, keys)
}

/// The process' environment; tests bring their own.
type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

pub(super) fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn network_in(env: Environment, root: Option<&str>, ca: &[String]) -> Result<Network, Failure> {
    let text = root
        .map(str::to_owned)
        .or_else(|| env("NOPORTS_ROOT"))
        .unwrap_or_else(|| DEFAULT_ROOT.to_owned());
    let root: Root = text.parse().map_err(|why: String| {
        Failure::misuse(format!("invalid atDirectory {text:?}: {why}"))
            .hint("--root localhost:6400")
    })?;
    let files = authorities(env, ca);
    Ok(Network {
        root,
        tls: Connector::new(&files)?,
    })
}

fn authorities(env: Environment, ca: &[String]) -> Vec<PathBuf> {
    if !ca.is_empty() {
        return ca.iter().map(PathBuf::from).collect();
    }
    env("NOPORTS_CA")
        .map(|list| {
            std::env::split_paths(&list)
                .filter(|p| !p.as_os_str().is_empty())
                .collect()
        })
        .unwrap_or_default()
}

fn acting_as_in(env: Environment, flag: Option<&str>) -> Result<Option<AtSign>, Failure> {
    let text = flag.map(str::to_owned).or_else(|| env("NOPORTS_AS"));
    Ok(text.map(|text| text.parse()).transpose()?)
}

/// Where key files are, and whether that is a folder of them.
fn keys_path(env: Environment, keys: Option<&Path>) -> Result<(PathBuf, bool), Failure> {
    let named = keys.map(Path::to_owned);
    if let Some(path) = named.or_else(|| env("NOPORTS_KEYS").map(PathBuf::from)) {
        // One that is still to be made is known by its end.
        let is_folder = path.is_dir() || path.as_os_str().as_encoded_bytes().ends_with(b"/");
        return Ok((path, is_folder));
    }
    let nowhere = || {
        Failure::new(exit::KEYS, "no home folder, so no place for key files").hint("--keys FILE")
    };
    let home = env("HOME").map(PathBuf::from).or_else(paths::home);
    Ok((home.ok_or_else(nowhere)?.join(".atsign/keys"), true))
}

fn key_file_in(env: Environment, who: &AtSign, keys: Option<&Path>) -> Result<PathBuf, Failure> {
    let (path, is_folder) = keys_path(env, keys)?;
    Ok(if is_folder {
        path.join(AtKeys::file_name(who))
    } else {
        path
    })
}

fn identity_in(
    env: Environment,
    as_: Option<&AtSign>,
    keys: Option<&Path>,
    phrases: &Phrases,
) -> Result<AtKeys, Failure> {
    let from_env = acting_as_in(env, None)?;
    let as_ = as_.or(from_env.as_ref());
    let (path, is_folder) = keys_path(env, keys)?;
    let (who, file) = if is_folder {
        choose(&path, as_)?
    } else {
        (owner_of(&path, as_)?, path)
    };
    keystore::unlock(&file, &who, || phrases.for_reading(&file))
}

/// Whose keys a file holds: as told, else as its name says.
fn owner_of(file: &Path, as_: Option<&AtSign>) -> Result<AtSign, Failure> {
    as_.cloned()
        .or_else(|| keystore::owner(file))
        .ok_or_else(|| {
            if !file.exists() {
                let why = format!("there is no key file {}", file.display());
                return Failure::new(exit::KEYS, why).hint(keystore::make_keys("@you"));
            }
            Failure::misuse(format!(
                "{} does not say which atSign it belongs to",
                file.display()
            ))
            .hint("--as @you")
        })
}

fn choose(folder: &Path, as_: Option<&AtSign>) -> Result<(AtSign, PathBuf), Failure> {
    if let Some(who) = as_ {
        return Ok((who.clone(), folder.join(AtKeys::file_name(who))));
    }
    keystore::only_identity(folder)?.ok_or_else(|| {
        let none = format!("there is no key file in {}", folder.display());
        Failure::new(exit::KEYS, none).hint(keystore::instead_of_any(folder))
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;

    use crate::{cli::account::*, testing::Folder};

    /// A folder with these (empty) files.
    fn with(files: &[&str]) -> Folder {
        let folder = Folder::new();
        for file in files {
            fs::write(folder.path(file), "").unwrap();
        }
        folder
    }

    fn at(text: &str) -> AtSign {
        text.parse().unwrap()
    }

    #[test]
    fn the_only_key_file_is_the_default_identity() {
        /// Files in the folder, `--as`; whose keys are taken, or what is told instead.
        type Row<'a> = (&'a [&'a str], Option<&'a str>, Result<&'a str, &'a str>);
        let rows: &[Row] = &[
            (&["@a_key.atKeys"], None, Ok("@a")),
            (
                &["@a_key.atKeys", "notes.txt", "@b_key.atKeys.new"],
                None,
                Ok("@a"),
            ),
            (&["@a_key.atKeys", "@b_key.atKeys"], Some("@b"), Ok("@b")),
            (&[], Some("@c"), Ok("@c")),
            (&[], None, Err("no key file")),
            (
                &["@a_key.atKeys", "@b_key.atKeys"],
                None,
                Err("several key files"),
            ),
        ];
        for (files, as_, want) in rows {
            let folder = with(files);
            let got = choose(&folder.0, as_.map(at).as_ref());
            match (got, want) {
                (Ok((who, file)), Ok(want)) => {
                    assert_eq!(who, at(want), "{files:?}");
                    assert_eq!(file, folder.0.join(AtKeys::file_name(&who)), "{files:?}");
                }
                (Err(failure), Err(want)) => {
                    assert!(failure.message.contains(want), "{files:?}: {failure}");
                    assert_eq!(failure.code, exit::KEYS, "{files:?}");
                    assert!(failure.hint.is_some(), "{files:?}");
                }
                (got, want) => panic!("{files:?}: {got:?} instead of {want:?}"),
            }
        }
    }

    #[test]
    fn a_flag_wins_over_the_environment() {
        let env = |name: &str| match name {
            "NOPORTS_ROOT" => Some("from.env:6400".to_owned()),
            "NOPORTS_AS" => Some("@env".to_owned()),
            "NOPORTS_CA" => Some("/a/ca.pem:/b/ca.pem".to_owned()),
            _ => None,
        };
        let none = |_: &str| None;
        for (root, want) in [(None, "from.env:6400"), (Some("flag:1"), "flag:1")] {
            let network = network_in(
                &|name| env(name).filter(|_| name != "NOPORTS_CA"),
                root,
                &[],
            );
            assert_eq!(network.unwrap().root.to_string(), want);
        }
        assert_eq!(
            network_in(&none, None, &[]).unwrap().root.to_string(),
            DEFAULT_ROOT
        );
        assert_eq!(acting_as_in(&env, None).unwrap(), Some(at("@env")));
        assert_eq!(acting_as_in(&env, Some("Flag")).unwrap(), Some(at("@flag")));
        assert_eq!(acting_as_in(&none, None).unwrap(), None);
        assert_eq!(authorities(&env, &[]).len(), 2);
        assert_eq!(authorities(&env, &["x".into()]), [PathBuf::from("x")]);
    }

    #[test]
    fn bad_input_is_misuse_with_a_word_of_advice() {
        let none = |_: &str| None;
        let bad_root = network_in(&none, Some("a:b:c"), &[]).unwrap_err();
        let no_ca = network_in(&none, None, &["/no/such/file".into()]).unwrap_err();
        let bad_name = acting_as_in(&none, Some("a b")).unwrap_err();
        for failure in [bad_root, no_ca, bad_name] {
            assert_eq!(failure.code, exit::MISUSE, "{failure}");
        }
    }

    #[test]
    fn key_files_are_found_or_missed_by_name() {
        let folder = with(&["odd.json", "@a_key.atKeys"]);
        let home = folder.0.display().to_string();
        let env = |name: &str| (name == "HOME").then(|| home.clone());
        let alice = at("@alice");
        let standard = folder.0.join(".atsign/keys/@alice_key.atKeys");
        assert_eq!(key_file_in(&env, &alice, None).unwrap(), standard);
        let file = folder.0.join("some.file");
        assert_eq!(key_file_in(&env, &alice, Some(&file)).unwrap(), file);
        let inside = folder.0.join("@alice_key.atKeys");
        assert_eq!(key_file_in(&env, &alice, Some(&folder.0)).unwrap(), inside);

        let none = Phrases::default();
        let missing = identity_in(&env, Some(&alice), None, &none).unwrap_err();
        assert!(
            missing.message.contains(".atsign/keys/@alice_key"),
            "{missing}"
        );
        let empty = identity_in(&env, None, Some(&folder.0), &none).unwrap_err();
        assert!(empty.message.contains("@a_key.atKeys"), "{empty}");
        assert_eq!((missing.code, empty.code), (exit::KEYS, exit::KEYS));
        let whose = identity_in(&env, None, Some(&folder.0.join("odd.json")), &none).unwrap_err();
        assert!(whose.message.contains("which atSign"), "{whose}");
    }
}
