//! A copy of everything in one file, taken while the server runs; and back again.
//!
//! ```text
//!   store ── one snapshot ──▶ FILE: rows, files beside the store (the authority), a sum over both
//!   FILE ── sum checked, every atSign found ──▶ DIR/atserver.redb; what was there stays as *.before-restore
//! ```

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use ring::digest::{Context, SHA256};

use crate::{
    at::AtSign,
    sys::{
        file::{NamedFile, Writers},
        panics,
    },
};

use super::{
    disk::{
        self, LOCK, Store,
        database::{FILE, OnDisk, ROWS, RowTable, SCHEMA, failed, put, write_new},
    },
    error::StoreError,
    register, rows,
    tx::Rows,
};

/// Name of the store in a data folder.
pub const STORE: &str = FILE;
const FILES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("files");
/// The sum's name among the files.
const SUM: &str = "sum";
/// Behind all rows.
const END: &[u8] = &[u8::MAX];

/// What was copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copied {
    /// Who is in it.
    pub atsigns: Vec<AtSign>,
    /// Rows.
    pub rows: u64,
}

fn unusable(path: &Path) -> impl Fn(io::Error) -> StoreError + '_ {
    |why| StoreError::Folder(path.to_owned(), Arc::new(why))
}

/// Copies the store as it is at this moment, and these small files (name, content), into a new file.
///
/// # Errors
/// When the file is there already or cannot be written; then there is none.
pub fn write(
    store: &Store,
    to: &Path,
    files: &BTreeMap<String, Vec<u8>>,
) -> Result<Copied, StoreError> {
    refuse_existing(to)?;
    let draft = beside(to, &format!("{}.new", std::process::id()));
    let _ = fs::remove_file(&draft);
    let done = store.read_now(|tx| {
        let mut sum = Sum::new();
        let mut count = 0;
        write_new(&draft, |transaction| {
            count = copy(
                tx,
                &mut transaction.open_table(ROWS).map_err(failed)?,
                &mut sum,
            )?;
            let mut table = transaction.open_table(FILES).map_err(failed)?;
            for (name, content) in files {
                sum.add(name.as_bytes(), content);
                table
                    .insert(name.as_str(), content.as_slice())
                    .map_err(failed)?;
            }
            table
                .insert(SUM, sum.end().as_ref())
                .map(drop)
                .map_err(failed)
        })?;
        let all = register::all(tx)?;
        Ok(Copied {
            atsigns: all.into_iter().map(|entry| entry.home.who).collect(),
            rows: count,
        })
    });
    let done = done.and_then(|copied| name(&draft, to).map(|()| copied));
    let _ = fs::remove_file(&draft);
    done
}

/// Nothing is written over.
///
/// # Errors
/// When there is something of that name.
pub fn refuse_existing(to: &Path) -> Result<(), StoreError> {
    match fs::symlink_metadata(to) {
        Ok(_) => Err(StoreError::Exists(to.to_owned())),
        Err(_) => Ok(()),
    }
}

/// Gives a backup that was made elsewhere its name, on another disk by copying it.
///
/// # Errors
/// When the file is there already or cannot be written; then there is none.
pub fn bring(made: &Path, to: &Path) -> Result<(), StoreError> {
    match fs::hard_link(made, to) {
        Ok(()) => sync_folder_of(to),
        Err(why) if why.kind() == io::ErrorKind::AlreadyExists => {
            Err(StoreError::Exists(to.to_owned()))
        }
        Err(_) => {
            let draft = beside(to, &format!("{}.new", std::process::id()));
            let _ = fs::remove_file(&draft);
            let copied = copy_file(made, &draft).map_err(unusable(to));
            let done = copied.and_then(|()| name(&draft, to));
            let _ = fs::remove_file(&draft);
            done
        }
    }
}

fn copy_file(from: &Path, to: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut copy = options.write(true).create_new(true).mode(0o600).open(to)?;
    io::copy(&mut File::open(from)?, &mut copy)?;
    copy.sync_all()
}

/// Not a rename: that would replace a file made meanwhile.
fn name(draft: &Path, to: &Path) -> Result<(), StoreError> {
    fs::hard_link(draft, to).map_err(unusable(to))?;
    sync_folder_of(to)
}

/// Makes the store, and the files, of this folder what they were at the backup. Of the files only those of these
/// names are taken.
///
/// # Errors
/// When a server runs there, when the folder is not empty and `force` is not given, or when the backup is damaged:
/// then nothing has been changed.
pub fn restore(
    from: &Path,
    folder: &Path,
    names: &[&str],
    force: bool,
) -> Result<Copied, StoreError> {
    let new = folder.ancestors().take_while(|above| !above.exists());
    let new: Vec<&Path> = new.collect();
    let done = restore_into(from, folder, names, force);
    if done.is_err() && !new.is_empty() {
        let _ = fs::remove_file(folder.join(LOCK));
        // Only those that are empty go.
        for folder in new {
            let _ = fs::remove_dir(folder);
        }
    }
    done
}

fn restore_into(
    from: &Path,
    folder: &Path,
    names: &[&str],
    force: bool,
) -> Result<Copied, StoreError> {
    let _lock = disk::lock(folder)?;
    if !force && !is_empty(folder)? {
        return Err(StoreError::NotEmpty(folder.to_owned()));
    }
    let target = folder.join(FILE);
    let draft = beside(&target, "restored");
    let _ = fs::remove_file(&draft);
    let read = panics::caught(|| read(from, &draft));
    let bad = |why: String| StoreError::BadBackup(from.to_owned(), why);
    let read = read.unwrap_or_else(|| Err(bad("its pages make no sense".into())));
    let (copied, files) = read.inspect_err(|_| drop(fs::remove_file(&draft)))?;
    for (name, content) in &files {
        if names.contains(&name.as_str()) {
            replace(&folder.join(name), content)?;
        }
    }
    keep_old(&target)?;
    fs::rename(&draft, &target).map_err(unusable(&target))?;
    sync_folder_of(&target)?;
    Ok(copied)
}

/// Copies a backup's rows into a new store, and checks it on the way.
fn read(from: &Path, draft: &Path) -> Result<(Copied, BTreeMap<String, Vec<u8>>), StoreError> {
    let bad = |why: &str| StoreError::BadBackup(from.to_owned(), why.to_owned());
    NamedFile::open_safe(from, Writers::Group)
        .and_then(NamedFile::into_whole_file)
        .map_err(|why| match why.kind() {
            io::ErrorKind::InvalidData => bad(&why.to_string()),
            _ => unusable(from)(why),
        })?;
    let backup = Database::builder()
        .open_read_only(from)
        .map_err(|why| bad(&why.to_string()))?;
    let snapshot = backup.begin_read().map_err(failed)?;
    let source = OnDisk(
        snapshot
            .open_table(ROWS)
            .map_err(|why| bad(&why.to_string()))?,
    );
    match source.get(&[rows::SCHEMA])?.and_then(|v| rows::number(&v)) {
        Some(SCHEMA) => {}
        Some(_) => return Err(StoreError::Newer(from.to_owned())),
        None => return Err(bad("it has no version")),
    }
    let mut sum = Sum::new();
    let mut count = 0;
    write_new(draft, |transaction| {
        count = copy(
            &source,
            &mut transaction.open_table(ROWS).map_err(failed)?,
            &mut sum,
        )?;
        Ok(())
    })?;
    let kept = snapshot
        .open_table(FILES)
        .map_err(|why| bad(&why.to_string()))?;
    let mut files = BTreeMap::new();
    let mut expected = Vec::new();
    for row in kept.iter().map_err(failed)? {
        let (name, content) = row.map_err(failed)?;
        let content = content.value().to_vec();
        match name.value() {
            SUM => expected = content,
            name => {
                sum.add(name.as_bytes(), &content);
                files.insert(name.to_owned(), content);
            }
        }
    }
    if sum.end().as_ref() != expected {
        return Err(bad("it was changed or damaged"));
    }
    let all = register::all(&source)?;
    let copied = Copied {
        atsigns: all.into_iter().map(|entry| entry.home.who).collect(),
        rows: count,
    };
    Ok((copied, files))
}

/// Copies all rows; returns how many.
fn copy(from: &dyn Rows, to: &mut RowTable<'_>, sum: &mut Sum) -> Result<u64, StoreError> {
    let mut count = 0;
    from.visit(&[], END, &mut |key, value| {
        sum.add(key, value);
        count += 1;
        put(to, key, value)?;
        Ok(true)
    })?;
    Ok(count)
}

/// Over keys and values, each with its length.
struct Sum(Context);

impl Sum {
    fn new() -> Self {
        Self(Context::new(&SHA256))
    }

    fn add(&mut self, key: &[u8], value: &[u8]) {
        for part in [key, value] {
            self.0.update(&(part.len() as u64).to_be_bytes());
            self.0.update(part);
        }
    }

    fn end(&self) -> ring::digest::Digest {
        self.0.clone().finish()
    }
}

fn beside(path: &Path, what: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or(OsStr::new("backup")).to_owned();
    name.push(".");
    name.push(what);
    path.with_file_name(name)
}

fn is_empty(folder: &Path) -> Result<bool, StoreError> {
    for entry in fs::read_dir(folder).map_err(unusable(folder))? {
        let name = entry.map_err(unusable(folder))?.file_name();
        if name != LOCK {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What was there stays, under another name.
fn keep_old(path: &Path) -> Result<(), StoreError> {
    match fs::rename(path, beside(path, "before-restore")) {
        Err(why) if why.kind() != io::ErrorKind::NotFound => Err(unusable(path)(why)),
        _ => Ok(()),
    }
}

fn replace(path: &Path, content: &[u8]) -> Result<(), StoreError> {
    if fs::read(path).is_ok_and(|old| old == content) {
        return Ok(());
    }
    keep_old(path)?;
    let draft = beside(path, "restored");
    let _ = fs::remove_file(&draft);
    // Certificates are for everybody to read, keys are not.
    let mode = match path.extension() {
        Some(kind) if kind == "pem" => 0o644,
        _ => 0o600,
    };
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&draft)
        .and_then(|mut file| {
            file.write_all(content)?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&draft, path))
        .map_err(unusable(path))
}

fn sync_folder_of(path: &Path) -> Result<(), StoreError> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(unusable(folder))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use async_std::task::block_on;

    use super::*;
    use crate::{server::store::register::Home, testing::Folder};

    const NAMES: [&str; 1] = ["ca.key"];

    fn store(folder: &Path) -> Store {
        Store::open(folder, |_| {}).unwrap()
    }

    fn write_value(store: &Store, value: &str) {
        let value = value.to_owned();
        block_on(store.write(move |tx| {
            let who: AtSign = "@alice".parse().unwrap();
            let home = match register::find(tx, &who)? {
                Some(entry) => entry.home,
                None => register::add(tx, &who, 1, 1)?,
            };
            home.put_plain(tx, "x.ns@alice", &value, None, 1)
        }))
        .unwrap_or_else(|why: StoreError| panic!("{why}"));
    }

    fn value(folder: &Path) -> String {
        let home = Home {
            number: 1,
            who: "@alice".parse().unwrap(),
        };
        let store = store(folder);
        let read = store.read_now(|tx| home.live(tx, "x.ns@alice", 2));
        block_on(store.close());
        read.unwrap().unwrap().value
    }

    #[test]
    fn a_backup_is_the_store_of_its_moment_and_is_restored_beside_the_old_one() {
        let (data, other) = (Folder::new(), Folder::new());
        let file = other.0.join("backup");
        let running = store(&data.0);
        write_value(&running, "then");
        let files = BTreeMap::from([
            ("ca.key".to_owned(), b"k".to_vec()),
            ("../x".into(), vec![1]),
        ]);
        let copied = write(&running, &file, &files).unwrap();
        assert_eq!(copied.atsigns, ["@alice".parse().unwrap()]);
        write_value(&running, "later");
        assert!(matches!(
            write(&running, &file, &files),
            Err(StoreError::Exists(_))
        ));
        let refused = restore(&file, &data.0, &NAMES, true);
        assert!(matches!(refused, Err(StoreError::InUse(_))), "{refused:?}");
        block_on(running.close());
        let refused = restore(&file, &data.0, &NAMES, false);
        assert!(
            matches!(refused, Err(StoreError::NotEmpty(_))),
            "{refused:?}"
        );
        assert_eq!(value(&data.0), "later");
        assert_eq!(restore(&file, &data.0, &NAMES, true).unwrap(), copied);
        assert_eq!(value(&data.0), "then");
        assert_eq!(fs::read(data.0.join("ca.key")).unwrap(), b"k");
        assert!(data.0.join("atserver.redb.before-restore").exists());
        let fresh = other.0.join("fresh");
        assert_eq!(restore(&file, &fresh, &NAMES, false).unwrap(), copied);
        assert_eq!(value(&fresh), "then");
    }

    #[test]
    fn a_damaged_backup_changes_nothing_wherever_the_damage_is() {
        let (data, other) = (Folder::new(), Folder::new());
        let file = other.0.join("backup");
        let running = store(&data.0);
        write_value(&running, &"v".repeat(3000));
        write(&running, &file, &BTreeMap::new()).unwrap();
        write_value(&running, "kept");
        block_on(running.close());
        let whole = fs::read(&file).unwrap();
        let at = whole.windows(100).position(|w| w == [b'v'; 100]).unwrap();
        for (what, bytes) in [
            ("empty", Vec::new()),
            ("no backup", b"hello".repeat(1000)),
            ("cut", whole[..whole.len() / 3].to_vec()),
            ("a bit of a value", {
                let mut bytes = whole.clone();
                bytes[at + 50] ^= 1;
                bytes
            }),
        ] {
            fs::write(&file, bytes).unwrap();
            let refused = restore(&file, &data.0, &NAMES, true);
            assert!(refused.is_err(), "{what}: {refused:?}");
            assert_eq!(value(&data.0), "kept", "{what}");
        }
    }
}
