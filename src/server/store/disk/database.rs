//! The database in its file: opened, opened again after a disk error, made smaller, written anew.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use log::{error, info};
use redb::{
    Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, Table, TableDefinition,
};

use crate::{
    server::{
        count::Count,
        store::{
            error::StoreError,
            quota, rows,
            tx::{Changes, EachRow, Rows},
        },
    },
    sys::panics,
};

/// Version of the row layout in this file.
pub(in crate::server::store) const SCHEMA: u64 = 1;
/// Memory that the database may use for pages, bytes. What it does not keep, the system's page cache has.
const CACHE: usize = 8 << 20;
/// What must have been removed before the file is made smaller, in bytes, and as a part of the file. What is left is
/// moved, so this bounds the work by what those who removed something had written before.
const SLACK: u64 = 64 << 20;
/// See [`SLACK`].
const SLACK_PART: u64 = 4;
/// The room that must be left is no more than this part of a disk, so that a router's is not full while it is empty.
const ROOM_PART: u64 = 8;
/// Name of the store, in the data folder.
pub(in crate::server::store) const FILE: &str = "atserver.redb";
pub(in crate::server::store) const ROWS: TableDefinition<'_, &[u8], &[u8]> =
    TableDefinition::new("rows");

/// The database. After a disk error nothing more can be written to an open one: it is opened anew, which finds the
/// last commit.
pub(super) struct DatabaseFile {
    /// None when it could not be opened again yet.
    open: RwLock<Option<Database>>,
    pub path: PathBuf,
    /// `None`: not looked at.
    room: Option<u64>,
    pub commits: Count,
    pub transactions: Count,
    pub failures: Count,
    /// Bytes removed since the file was last made smaller, or opened.
    removed: AtomicU64,
    /// How often somebody has looked, or written.
    uses: AtomicU64,
}

/// Tells when pages in memory are of no use any more: after many uses there are few. A database gives them back only when it
/// is closed.
#[derive(Debug)]
pub(super) struct PageCacheAge {
    looked: Instant,
    /// Uses until then, and until the memory was last empty.
    uses: u64,
    pub(super) emptied: u64,
}

/// Between two looks at whether the memory is used.
pub(super) const REST: Duration = Duration::from_secs(20);
/// In this time no more uses are few.
const FEW_USES: u64 = 400;
/// So many have filled it.
const MANY_USES: u64 = 1000;

impl PageCacheAge {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            looked: now,
            uses: 0,
            emptied: 0,
        }
    }

    /// Whether it is to be emptied now, after so many uses.
    fn is_over(&mut self, uses: u64, now: Instant) -> bool {
        if now.saturating_duration_since(self.looked) < REST {
            return false;
        }
        let since = uses - std::mem::replace(&mut self.uses, uses);
        self.looked = now;
        since <= FEW_USES && uses - self.emptied >= MANY_USES
    }
}

impl DatabaseFile {
    /// Opens it; `room` is what must be left on the disk, if anybody is to look.
    pub(super) fn open(path: &Path, room: Option<u64>) -> Result<Self, StoreError> {
        let database = open_database(path)?;
        check_schema(&database, path)?;
        Ok(Self {
            open: RwLock::new(Some(database)),
            path: path.to_owned(),
            room,
            commits: Count::default(),
            transactions: Count::default(),
            failures: Count::default(),
            removed: AtomicU64::new(0),
            uses: AtomicU64::new(0),
        })
    }

    pub(super) fn with<T, E: From<StoreError>>(
        &self,
        look: impl FnOnce(&Database) -> Result<T, E>,
    ) -> Result<T, E> {
        self.uses.fetch_add(1, Ordering::Relaxed);
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        match &*open {
            Some(database) => look(database),
            None => Err(StoreError::Disk("it cannot be opened again yet".into()).into()),
        }
    }

    /// Opens it anew; waits for the readers.
    pub(super) fn reopen(&self) {
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        self.reopen_locked(&mut open);
    }

    fn reopen_locked(&self, open: &mut Option<Database>) {
        *open = None;
        match open_database(&self.path) {
            Ok(database) => *open = Some(database),
            Err(why) => error!("store={} reopen={why}", self.path.display()),
        }
    }

    /// Empties the memory for pages after a burst, by opening the database anew: a matter of milliseconds. Not while somebody
    /// reads, who would keep all others waiting, nor where the disk is full, for it may not open then.
    pub(super) fn rest(&self, age: &mut PageCacheAge, now: Instant) {
        let uses = self.uses.load(Ordering::Relaxed);
        if !age.is_over(uses, now) || !self.has_room(0) {
            return;
        }
        if let Ok(mut open) = self.open.try_write() {
            age.emptied = uses;
            self.reopen_locked(&mut open);
        }
    }

    /// Makes the file smaller when much of it is free: a database only ever gives back what is free at its end, so a
    /// single row there holds everything. Nothing is lost where this stops halfway. Waits for the readers, and they for
    /// it; it is done where the store's own writer has nothing else to do.
    pub(super) fn compact(&self) {
        let size = fs::metadata(&self.path).map_or(0, |found| found.len());
        let removed = self.removed.load(Ordering::Relaxed);
        if removed < SLACK.max(size / SLACK_PART) {
            return;
        }
        self.removed.store(0, Ordering::Relaxed);
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        let Some(database) = open.as_mut() else {
            return;
        };
        let done = panics::caught(|| database.compact());
        drop(open);
        let left = fs::metadata(&self.path).map_or(0, |found| found.len());
        match done {
            Some(Ok(_)) => info!("store=compacted bytes={size} left={left}"),
            Some(Err(why)) => {
                error!("store=not_compacted reason={why}");
                self.reopen();
            }
            None => {
                error!("store=not_compacted");
                self.reopen();
            }
        }
    }

    pub(super) fn is_open(&self) -> bool {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        open.is_some()
    }

    /// Whether so many bytes more can be written, twice: a tree is written beside the old one.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        let Some(room) = self.room else {
            return true;
        };
        let folder = self.path.parent().unwrap_or(Path::new("."));
        match rustix::fs::statvfs(folder) {
            Ok(found) => {
                let free = found.f_bavail.saturating_mul(found.f_frsize);
                let whole = found.f_blocks.saturating_mul(found.f_frsize);
                let room = room.min(whole / ROOM_PART);
                free >= room.saturating_add(2 * bytes as u64)
            }
            Err(_) => true,
        }
    }
}

pub(super) fn apply(
    file: &DatabaseFile,
    table: &mut Table<'_, &'static [u8], &'static [u8]>,
    changes: Changes,
) -> Result<usize, StoreError> {
    let (mut bytes, mut removed) = (0, 0);
    let mut grown = BTreeMap::<u32, i64>::new();
    for (key, change) in &changes {
        let old = match change {
            Some(value) => table.insert(key.as_slice(), value.as_slice()),
            None => table.remove(key.as_slice()),
        };
        let old = old.map_err(failed)?.map(|old| old.value().len());
        removed += old.unwrap_or_default();
        let new = change.as_ref().map(Vec::len);
        bytes += new.map_or(0, |value| key.len() + value);
        if let Some(number) = rows::owned_by(key) {
            let whole = |value: Option<usize>| signed(value.map_or(0, |value| key.len() + value));
            *grown.entry(number).or_default() += whole(new) - whole(old);
        }
    }
    for (number, more) in grown {
        weigh(table, number, more)?;
    }
    file.removed.fetch_add(removed as u64, Ordering::Relaxed);
    Ok(bytes)
}

/// Keeps count of the bytes of one atSign, where a count was begun.
fn weigh(
    table: &mut Table<'_, &'static [u8], &'static [u8]>,
    number: u32,
    more: i64,
) -> Result<(), StoreError> {
    let row = rows::key(rows::COUNTER, number, &[quota::USED.as_bytes()]);
    let was = table.get(row.as_slice()).map_err(failed)?;
    let was = was.and_then(|was| rows::number(was.value()));
    if let Some(was) = was.filter(|_| more != 0) {
        let is = was.saturating_add_signed(more).to_be_bytes();
        table
            .insert(row.as_slice(), is.as_slice())
            .map_err(failed)?;
    }
    Ok(())
}

fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

pub(in crate::server::store) struct OnDisk<T>(pub(in crate::server::store) T);

impl<T: ReadableTable<&'static [u8], &'static [u8]>> Rows for OnDisk<T> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let found = self.0.get(key).map_err(failed)?;
        Ok(found.map(|row| row.value().to_vec()))
    }
    fn visit(&self, from: &[u8], until: &[u8], each: &mut EachRow<'_>) -> Result<(), StoreError> {
        if from < until {
            for row in self.0.range(from..until).map_err(failed)? {
                let (key, value) = row.map_err(failed)?;
                if !each(key.value(), value.value())? {
                    break;
                }
            }
        }
        Ok(())
    }
}

pub(in crate::server::store) fn failed(why: impl std::fmt::Display) -> StoreError {
    StoreError::Disk(why.to_string())
}

/// Makes a whole new store beside the final name, then moves it there: a file under the final name is complete.
pub(super) fn create(folder: &Path, path: &Path) -> Result<(), StoreError> {
    let unusable = |e: io::Error| StoreError::Folder(path.to_owned(), Arc::new(e));
    let new = folder.join(format!("{FILE}.new"));
    let _ = fs::remove_file(&new);
    let first = (vec![rows::SCHEMA], SCHEMA.to_be_bytes().to_vec());
    write_new(&new, |transaction| {
        let mut table = transaction.open_table(ROWS).map_err(failed)?;
        put(&mut table, &first.0, &first.1)
    })?;
    fs::rename(&new, path).map_err(unusable)?;
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(unusable)
}

pub(in crate::server::store) type RowTable<'a> = Table<'a, &'static [u8], &'static [u8]>;

pub(in crate::server::store) fn put(
    table: &mut RowTable<'_>,
    key: &[u8],
    value: &[u8],
) -> Result<(), StoreError> {
    table.insert(key, value).map(drop).map_err(failed)
}

/// Writes a new database file, readable by its user only, in one transaction.
pub(in crate::server::store) fn write_new(
    path: &Path,
    fill: impl FnOnce(&redb::WriteTransaction) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let file = OpenOptions::new()
        .create_new(true)
        .read(true)
        .write(true)
        .mode(0o600)
        .open(path)
        .map_err(|e| StoreError::Folder(path.to_owned(), Arc::new(e)))?;
    let backend = redb::backends::FileBackend::new(file).map_err(failed)?;
    let database = Database::builder()
        .set_cache_size(CACHE)
        .create_with_backend(backend)
        .map_err(failed)?;
    let transaction = database.begin_write().map_err(failed)?;
    fill(&transaction)?;
    transaction.commit().map_err(failed)
}

fn open_database(path: &Path) -> Result<Database, StoreError> {
    let damaged = |why: String| StoreError::Damaged(path.to_owned(), why);
    // An empty file would be taken for a new store; ours are never empty.
    let size = fs::metadata(path).map_err(|e| StoreError::Folder(path.to_owned(), Arc::new(e)))?;
    if size.len() == 0 {
        return Err(damaged("the file is empty".into()));
    }
    let opened = panics::caught(|| Database::builder().set_cache_size(CACHE).open(path))
        .ok_or_else(|| senseless(path))?;
    match opened {
        Ok(database) => Ok(database),
        Err(DatabaseError::DatabaseAlreadyOpen) => Err(StoreError::InUse(path.to_owned())),
        Err(DatabaseError::UpgradeRequired(_)) => Err(StoreError::Newer(path.to_owned())),
        Err(DatabaseError::Storage(StorageError::Io(e)))
            if e.kind() != io::ErrorKind::InvalidData
                && e.kind() != io::ErrorKind::UnexpectedEof =>
        {
            Err(StoreError::Folder(path.to_owned(), Arc::new(e)))
        }
        Err(why) => Err(damaged(why.to_string())),
    }
}

/// Damaged pages make the database panic.
pub(super) fn senseless(path: &Path) -> StoreError {
    StoreError::Damaged(path.to_owned(), "its pages make no sense".into())
}

fn check_schema(database: &Database, path: &Path) -> Result<(), StoreError> {
    let damaged = |why: String| StoreError::Damaged(path.to_owned(), why);
    let found = || -> Result<Option<Vec<u8>>, StoreError> {
        let snapshot = database.begin_read().map_err(failed)?;
        OnDisk(snapshot.open_table(ROWS).map_err(failed)?).get(&[rows::SCHEMA])
    };
    match found().map_err(|why| damaged(why.to_string()))? {
        Some(version) => match rows::number(&version) {
            Some(SCHEMA) => Ok(()),
            Some(_) => Err(StoreError::Newer(path.to_owned())),
            None => Err(damaged("no version".into())),
        },
        None => Err(damaged("no version".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_given_back_once_after_a_burst_and_never_for_a_few_uses() {
        let start = Instant::now();
        let mut age = PageCacheAge::new(start);
        let mut is_over = |uses, after: u32| {
            let over = age.is_over(uses, start + after * REST);
            if over {
                age.emptied = uses;
            }
            over
        };
        assert!(!is_over(5000, 0), "it is looked at now and then");
        assert!(!is_over(5000, 1), "it was used just now");
        assert!(is_over(5000 + FEW_USES, 2));
        assert!(!is_over(5000 + FEW_USES, 3), "it is empty");
        let later = 5000 + FEW_USES + MANY_USES;
        assert!(!is_over(later - FEW_USES, 4) && !is_over(later - 1, 5));
        assert!(is_over(later, 6));
    }
}
