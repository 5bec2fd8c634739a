//! A server's data folder: where it is, and what is in it beside the store.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use crate::{
    cli::Failure,
    server::authority::{CA_FILE, KEY_FILE, NEXT_KEY_FILE},
    sys::{
        file::{NamedFile, SMALL},
        paths,
    },
};

/// What a backup holds beside the store.
pub(super) const FILES: [&str; 3] = [KEY_FILE, NEXT_KEY_FILE, CA_FILE];

/// The flag, else `NOPORTS_DATA`, else the place that fits the user.
pub(super) fn data_folder(flag: Option<PathBuf>) -> Result<PathBuf, Failure> {
    let named = std::env::var_os("NOPORTS_DATA").filter(|value| !value.is_empty());
    let folder = match flag.or_else(|| named.map(PathBuf::from)) {
        Some(folder) => folder,
        None if rustix::process::geteuid().is_root() => "/var/lib/noports/atserver".into(),
        None => {
            let home = paths::home()
                .ok_or_else(|| Failure::misuse("no home folder for the data").hint("--data DIR"))?;
            home.join(".local/share/noports/atserver")
        }
    };
    // Whole, because its files are named to people who may stand in another folder.
    std::path::absolute(&folder)
        .map_err(|why| Failure::misuse(format!("cannot use {}: {why}", folder.display())))
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
