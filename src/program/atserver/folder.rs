//! A server's data folder: where it is, and what is in it beside the store.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use crate::{
    cli::{Console, Failure, near::nearest},
    server::{
        authority::{CA_FILE, KEY_FILE, NEXT_KEY_FILE},
        store::backup::STORE,
    },
    sys::{
        file::{NamedFile, SMALL},
        paths,
        ssh::shell_line,
    },
};

use super::last_time;

/// Where data is without `--data`: root's, and below the home folder of others.
const OF_MACHINE: &str = "/var/lib/noports/atserver";
const OF_USER: &str = ".local/share/noports/atserver";

/// What a backup holds beside the store.
pub(super) const FILES: [&str; 4] = [KEY_FILE, NEXT_KEY_FILE, CA_FILE, last_time::FILE];

/// The flag, else `NOPORTS_DATA`, else the place that fits the user.
pub(super) fn data_folder(flag: Option<PathBuf>) -> Result<PathBuf, Failure> {
    let named = std::env::var_os("NOPORTS_DATA").filter(|value| !value.is_empty());
    let folder = match flag.or_else(|| named.map(PathBuf::from)) {
        Some(folder) => folder,
        None if rustix::process::geteuid().is_root() => OF_MACHINE.into(),
        None => {
            let home = paths::home()
                .ok_or_else(|| Failure::misuse("no home folder for the data").hint("--data DIR"))?;
            home.join(OF_USER)
        }
    };
    // Whole, because its files are named to people who may stand in another folder.
    std::path::absolute(&folder)
        .map_err(|why| Failure::misuse(format!("cannot use {}: {why}", folder.display())))
}

/// The same where there is data already. A word that was mistyped makes no second house: only `serve` does.
pub(super) fn known_folder(console: &Console, flag: Option<PathBuf>) -> Result<PathBuf, Failure> {
    let data = data_folder(flag)?;
    if has_data(&data) {
        return Ok(data);
    }
    let text = format!("there is no data of an atServer in {}", data.display());
    let hint = match elsewhere(&data) {
        Some(near) => console.again(&["--data", &near.display().to_string()]),
        None => format!("a new one begins with: {}", with_folder("serve", &data)),
    };
    Err(Failure::plain(text).hint(hint))
}

pub(super) fn has_data(folder: &Path) -> bool {
    folder.join(STORE).exists()
}

/// Where data is that may be meant: in a folder with nearly this name, in one of those that are taken without `--data`, or in
/// `atserver` where somebody stands.
pub(super) fn elsewhere(data: &Path) -> Option<PathBuf> {
    let name = |path: &Path| Some(path.file_name()?.to_str()?.to_owned());
    let parent = data.parent()?;
    let beside = fs::read_dir(parent).into_iter().flatten().flatten();
    let beside: Vec<PathBuf> = beside
        .map(|entry| entry.path())
        .filter(|path| has_data(path))
        .collect();
    let names: Vec<String> = beside.iter().filter_map(|path| name(path)).collect();
    let near = name(data).and_then(|typed| {
        let near = nearest(&typed, names.iter().map(String::as_str));
        near.first().map(|near| parent.join(near))
    });
    let usual = [
        std::env::var_os("NOPORTS_DATA").map(PathBuf::from),
        paths::home().map(|home| home.join(OF_USER)),
        Some(OF_MACHINE.into()),
        std::env::current_dir()
            .ok()
            .map(|here| here.join("atserver")),
    ];
    let usual = usual.into_iter().flatten();
    near.into_iter()
        .chain(usual)
        .find(|path| path != data && has_data(path))
}

/// `noports atserver add @you --data DIR`
pub(super) fn with_folder(words: &str, data: &Path) -> String {
    let folder = shell_line(&[data.display().to_string()]);
    format!("noports atserver {words} --data {folder}")
}

/// The small files of a data folder.
pub(super) fn beside_store(data: &Path) -> Result<BTreeMap<String, Vec<u8>>, Failure> {
    let mut files = BTreeMap::new();
    for name in FILES {
        let path = data.join(name);
        let read = NamedFile::open(&path).and_then(|file| file.bytes(SMALL));
        match read {
            Ok(content) => drop(files.insert(name.to_owned(), content)),
            Err(why) if why.kind() == io::ErrorKind::NotFound => {}
            Err(why) => {
                let text = format!("cannot read {}: {why}", path.display());
                return Err(Failure::plain(text));
            }
        }
    }
    Ok(files)
}
