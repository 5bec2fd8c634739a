//! The store on disk: redb in one file, private to its user, locked against a second process.

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

use std::{
    fs::{self, File, OpenOptions},
    future::Future,
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
};

use async_std::channel;
use log::{error, info, warn};
use redb::{
    Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, Table, TableDefinition,
};

use super::{
    Changes, CommitEvent, Rows, StoreError, Tx,
    attempt::{Access, Backend, Chance, until_committed},
    rows,
};

/// Version of the row layout in this file.
pub(super) const SCHEMA: u64 = 1;
/// Most transactions of one commit: bounds how long the first of them waits.
const MAX_BATCH: usize = 256;
/// Most changed bytes of one commit, for the same reason.
const MAX_BATCH_BYTES: usize = 16 << 20;
/// Transactions waiting for the writer; above this, callers wait in line.
const QUEUE: usize = 1024;
/// Memory that the database may use for pages, bytes.
const CACHE: usize = 32 << 20;
/// Room that must be left on the disk before anything is written, bytes. Running out in the middle of a commit
/// would lose nothing either, but the file would have to be opened again.
const ROOM: u64 = 4 << 20;
/// What must have been removed before the file is made smaller, in bytes, and as a part of the file. What is left is
/// moved, so this bounds the work by what those who removed something had written before.
const SLACK: u64 = 64 << 20;
/// See [`SLACK`].
const SLACK_PART: u64 = 4;
/// Name of the store, in the data folder.
pub const FILE: &str = "atserver.redb";
/// Name of the file that is locked while the store is open.
pub const LOCK: &str = "lock";
pub(super) const ROWS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("rows");

/// Hears of every event, on the writer's thread.
type EventSink = Box<dyn FnMut(CommitEvent) + Send>;

/// The store. Cheap to clone; the last clone to go closes it, which takes a moment: see [`Store::close`].
#[derive(Clone)]
pub struct Store(Arc<Inner>);

/// Dropped in this order: once the writer hears that there are no more jobs, it alone holds the database. So it is
/// the writer that closes it, and nobody waits for the disk in a drop, which may run on the executor.
struct Inner {
    slot: Arc<DatabaseFile>,
    jobs: mpsc::SyncSender<WriteJob>,
    /// Nothing comes through; the writer holds the other end until the store is closed.
    closed: channel::Receiver<()>,
}

/// What the writer holds as long as the store is open. Dropped in this order.
struct OpenStore {
    slot: Arc<DatabaseFile>,
    _lock: File,
    /// Goes last: whoever listens at the other end hears that the store is closed.
    _closed: channel::Sender<()>,
}

/// The database. After a disk error nothing more can be written to an open one: it is opened anew, which finds the
/// last commit.
struct DatabaseFile {
    /// None when it could not be opened again yet.
    open: RwLock<Option<Database>>,
    file: PathBuf,
    /// `None`: not looked at.
    room: Option<u64>,
    counts: [AtomicU64; 3],
    /// Bytes removed since the file was last made smaller, or opened.
    removed: AtomicU64,
}

/// What the store has done since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreTotals {
    /// Durable commits.
    pub commits: u64,
    /// Transactions in them.
    pub transactions: u64,
    /// Transactions that could not be kept.
    pub failures: u64,
}

impl DatabaseFile {
    fn with<T, E: From<StoreError>>(
        &self,
        look: impl FnOnce(&Database) -> Result<T, E>,
    ) -> Result<T, E> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        match &*open {
            Some(database) => look(database),
            None => Err(StoreError::Disk("it cannot be opened again yet".into()).into()),
        }
    }

    /// Opens it anew; waits for the readers.
    fn reopen(&self) {
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        *open = None;
        match open_database(&self.file) {
            Ok(database) => *open = Some(database),
            Err(why) => error!("store={} reopen={why}", self.file.display()),
        }
    }

    /// Makes the file smaller when much of it is free: a database only ever gives back what is free at its end, so a
    /// single row there holds everything. Nothing is lost where this stops halfway. Waits for the readers, and they for
    /// it; it is done where the store's own writer has nothing else to do.
    fn compact(&self) {
        let size = fs::metadata(&self.file).map_or(0, |found| found.len());
        let removed = self.removed.load(Ordering::Relaxed);
        if removed < SLACK.max(size / SLACK_PART) {
            return;
        }
        self.removed.store(0, Ordering::Relaxed);
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        let Some(database) = open.as_mut() else {
            return;
        };
        let done = catch_unwind(AssertUnwindSafe(|| database.compact()));
        drop(open);
        let left = fs::metadata(&self.file).map_or(0, |found| found.len());
        match done {
            Ok(Ok(_)) => info!("store=compacted bytes={size} left={left}"),
            Ok(Err(why)) => {
                error!("store=not_compacted reason={why}");
                self.reopen();
            }
            Err(_) => {
                error!("store=not_compacted");
                self.reopen();
            }
        }
    }

    fn is_open(&self) -> bool {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        open.is_some()
    }

    /// Whether so many bytes more can be written, twice: a tree is written beside the old one.
    fn has_room(&self, bytes: usize) -> bool {
        let Some(room) = self.room else {
            return true;
        };
        let folder = self.file.parent().unwrap_or(Path::new("."));
        match rustix::fs::statvfs(folder) {
            Ok(found) => {
                let free = found.f_bavail.saturating_mul(found.f_frsize);
                free >= room.saturating_add(2 * bytes as u64)
            }
            Err(_) => true,
        }
    }

    fn count(&self, which: usize, by: usize) {
        self.counts[which].fetch_add(by as u64, Ordering::Relaxed);
    }
}

/// One command on its way through the writer thread.
type WriteJob = Box<dyn FnOnce(&mut dyn Backend) -> Unacknowledged + Send>;

/// What is to be told once the batch is durable, and to the command's caller in any case.
struct Unacknowledged {
    events: Vec<CommitEvent>,
    answer: Box<dyn FnOnce(Result<(), StoreError>) + Send>,
}

impl Store {
    /// Opens the store in this folder, or makes one. `told` hears of every commit's events, in order, on the
    /// writer's thread: it must not wait.
    ///
    /// # Errors
    /// See [`StoreError`]; a file that is there is never replaced.
    pub fn open(
        folder: &Path,
        told: impl FnMut(CommitEvent) + Send + 'static,
    ) -> Result<Self, StoreError> {
        // One type for all who open: reading, writing and repairing are compiled once.
        Self::open_leaving(Some(ROOM), folder, Box::new(told))
    }

    fn open_leaving(room: Option<u64>, folder: &Path, told: EventSink) -> Result<Self, StoreError> {
        let lock = lock(folder)?;
        let path = folder.join(FILE);
        if !path.exists() {
            create(folder, &path)?;
        }
        let database = open_database(&path)?;
        check_schema(&database, &path)?;
        let slot = Arc::new(DatabaseFile {
            open: RwLock::new(Some(database)),
            file: path.clone(),
            room,
            counts: Default::default(),
            removed: AtomicU64::new(0),
        });
        let (jobs, queue) = mpsc::sync_channel(QUEUE);
        let (open, closed) = channel::bounded(1);
        let held = OpenStore {
            slot: slot.clone(),
            _lock: lock,
            _closed: open,
        };
        thread::Builder::new()
            .name("store".into())
            .spawn(move || write_loop(&held, queue, told))
            .map_err(|e| StoreError::Folder(path.clone(), Arc::new(e)))?;
        Ok(Self(Arc::new(Inner { slot, jobs, closed })))
    }

    /// Runs a command, see [`super::attempt`], and answers once it is durable. The closure's `Err` undoes all it did.
    ///
    /// # Errors
    /// The closure's, or why it could not be made durable.
    pub async fn write<T, E, F>(&self, run: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
        F: Fn(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
    {
        let (answer, wait) = channel::bounded(1);
        let job: WriteJob = Box::new(move |base| run_on(base, run, answer));
        let jobs = &self.0.jobs;
        match jobs.try_send(job) {
            Ok(()) => {}
            Err(mpsc::TrySendError::Full(job)) => {
                let jobs = jobs.clone();
                async_std::task::spawn_blocking(move || jobs.send(job))
                    .await
                    .map_err(|_| StoreError::Closed)?;
            }
            Err(mpsc::TrySendError::Disconnected(_)) => return Err(StoreError::Closed.into()),
        }
        wait.recv().await.unwrap_or(Err(StoreError::Closed.into()))
    }

    /// Looks at the last commit.
    ///
    /// # Errors
    /// The closure's, or why there is nothing to look at.
    pub async fn read<T, E, F>(&self, run: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
        F: Fn(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
    {
        let store = self.clone();
        async_std::task::spawn_blocking(move || store.read_now(run)).await
    }

    /// As [`Store::read`], on this thread.
    ///
    /// # Errors
    /// As [`Store::read`].
    pub fn read_now<T, E: From<StoreError>>(
        &self,
        run: impl Fn(&mut Tx<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        self.0.slot.with(|database| {
            let look = || {
                let snapshot = database.begin_read().map_err(disk)?;
                let mut table = OnDisk(snapshot.open_table(ROWS).map_err(disk)?);
                let (value, _) =
                    until_committed(&mut table, Access::Read, &Chance::default(), run)?;
                Ok(value)
            };
            // Damaged pages make the database panic.
            catch_unwind(AssertUnwindSafe(look)).unwrap_or_else(|_| Err(StoreError::GivenUp.into()))
        })
    }

    /// What it has done since it was opened.
    pub fn counts(&self) -> StoreTotals {
        let [commits, transactions, failures] =
            [0, 1, 2].map(|which: usize| self.0.slot.counts[which].load(Ordering::Relaxed));
        StoreTotals {
            commits,
            transactions,
            failures,
        }
    }

    /// Gives this clone up, and waits until the store has closed: for the other clones, too. A program that ends
    /// without it leaves a store that the next one has to repair when it opens it.
    pub async fn close(self) {
        let closing = self.closing();
        drop(self);
        closing.await;
    }

    /// Ends when the store has closed, and its folder may be opened again.
    pub fn closing(&self) -> impl Future<Output = ()> + use<> {
        let closed = self.0.closed.clone();
        async move {
            let _ = closed.recv().await;
        }
    }

    /// The size of the file in bytes.
    pub fn size(&self) -> u64 {
        fs::metadata(&self.0.slot.file).map_or(0, |found| found.len())
    }
}

/// Runs one command on an overlay of `base`.
fn run_on<T, E, F>(
    base: &mut dyn Backend,
    run: F,
    answer: channel::Sender<Result<T, E>>,
) -> Unacknowledged
where
    T: Send + 'static,
    E: From<StoreError> + Send + 'static,
    F: Fn(&mut Tx<'_>) -> Result<T, E>,
{
    let (result, events) = match until_committed(base, Access::Write, &Chance::default(), run) {
        Ok((value, events)) => (Ok(value), events),
        Err(why) => (Err(why), Vec::new()),
    };
    let answer = Box::new(move |committed: Result<(), StoreError>| {
        // Whoever asked may be gone; what was committed stays.
        let _ = answer.try_send(committed.map_err(E::from).and(result));
    });
    Unacknowledged { events, answer }
}

/// Runs until there is nobody left who could send a job. `held` is dropped after it, by the same thread.
fn write_loop(held: &OpenStore, queue: mpsc::Receiver<WriteJob>, mut told: EventSink) {
    let slot = &*held.slot;
    loop {
        let first = match queue.try_recv() {
            Ok(first) => first,
            Err(mpsc::TryRecvError::Disconnected) => return,
            Err(mpsc::TryRecvError::Empty) => {
                slot.compact();
                match queue.recv() {
                    Ok(first) => first,
                    Err(_) => return,
                }
            }
        };
        if !slot.is_open() {
            slot.reopen();
        }
        if !slot.has_room(0) {
            turn_away(slot, first);
            continue;
        }
        let mut batch = Vec::new();
        let committed = slot.with(|database| commit(slot, database, &queue, first, &mut batch));
        match &committed {
            Ok(()) => {
                slot.count(0, 1);
                slot.count(1, batch.len());
            }
            Err(why) => {
                error!("store=failed transactions={} reason={why}", batch.len());
                slot.count(2, batch.len());
                slot.reopen();
            }
        }
        for ran in batch {
            match &committed {
                Ok(()) => {
                    ran.events.into_iter().for_each(&mut told);
                    (ran.answer)(Ok(()));
                }
                Err(why) => (ran.answer)(Err(why.clone())),
            }
        }
    }
}

/// There is no room. What only wants to look sees that, and can still say why it refuses.
fn turn_away(slot: &DatabaseFile, job: WriteJob) {
    slot.count(2, 1);
    (job(&mut NoRoom).answer)(Ok(()));
}

/// Stands in for the rows while the disk is full.
struct NoRoom;

impl Rows for NoRoom {
    fn get(&self, _: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Err(StoreError::Full)
    }
    fn visit(
        &self,
        _: &[u8],
        _: &[u8],
        _: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        Err(StoreError::Full)
    }
}

impl Backend for NoRoom {
    fn rows(&self) -> &dyn Rows {
        self
    }
    fn commit(&mut self, changes: Changes) -> Result<bool, StoreError> {
        only_nothing(&changes, StoreError::Full)
    }
}

/// Where nothing can be written, nothing is committed.
fn only_nothing(changes: &Changes, why: StoreError) -> Result<bool, StoreError> {
    if changes.is_empty() {
        Ok(true)
    } else {
        Err(why)
    }
}

/// Commands that become durable together: each reads what those before it wrote. This thread alone writes, so what a
/// command has read is still so when it has run.
struct Batch<'a> {
    table: OnDisk<RowTable<'a>>,
    slot: &'a DatabaseFile,
    bytes: usize,
    changed: bool,
    /// Those that alone were not kept.
    refused: usize,
    /// A command's changes may be there in part: none of the batch can be kept.
    broken: Option<StoreError>,
}

impl Backend for Batch<'_> {
    fn rows(&self) -> &dyn Rows {
        &self.table
    }
    fn commit(&mut self, changes: Changes) -> Result<bool, StoreError> {
        if changes.is_empty() {
            return Ok(true);
        }
        let more = changes.values().flatten().map(Vec::len).sum::<usize>();
        if !self.slot.has_room(self.bytes + more) {
            self.refused += 1;
            return Err(StoreError::Full);
        }
        self.changed = true;
        match apply(self.slot, &mut self.table.0, changes) {
            Ok(bytes) => {
                self.bytes += bytes;
                Ok(true)
            }
            Err(why) => {
                self.broken = Some(why.clone());
                Err(why)
            }
        }
    }
}

/// Runs `first` and what waits behind it in one durable transaction.
fn commit(
    slot: &DatabaseFile,
    database: &Database,
    queue: &mpsc::Receiver<WriteJob>,
    first: WriteJob,
    batch: &mut Vec<Unacknowledged>,
) -> Result<(), StoreError> {
    // Should this fail, `first` is dropped, and its caller hears that the store is closed.
    let transaction = database.begin_write().map_err(disk)?;
    let (changed, refused) = {
        let mut base = Batch {
            table: OnDisk(transaction.open_table(ROWS).map_err(disk)?),
            slot,
            bytes: 0,
            changed: false,
            refused: 0,
            broken: None,
        };
        let mut next = Some(first);
        while let Some(job) = next.take() {
            batch.push(job(&mut base));
            if let Some(why) = base.broken.take() {
                return Err(why);
            }
            if batch.len() < MAX_BATCH && base.bytes < MAX_BATCH_BYTES {
                next = queue.try_recv().ok();
            }
        }
        (base.changed, base.refused)
    };
    if changed {
        transaction.commit().map_err(disk)?;
    } else {
        transaction.abort().map_err(disk)?;
    }
    slot.count(2, refused);
    Ok(())
}

fn apply(
    slot: &DatabaseFile,
    table: &mut Table<'_, &'static [u8], &'static [u8]>,
    changes: Changes,
) -> Result<usize, StoreError> {
    let (mut bytes, mut removed) = (0, 0);
    for (key, change) in &changes {
        match change {
            Some(value) => {
                bytes += key.len() + value.len();
                let old = table
                    .insert(key.as_slice(), value.as_slice())
                    .map_err(disk)?;
                removed += old.map_or(0, |old| old.value().len());
            }
            None => {
                let old = table.remove(key.as_slice()).map_err(disk)?;
                removed += old.map_or(0, |old| old.value().len());
            }
        }
    }
    slot.removed.fetch_add(removed as u64, Ordering::Relaxed);
    Ok(bytes)
}

pub(super) struct OnDisk<T>(pub(super) T);

impl<T: ReadableTable<&'static [u8], &'static [u8]>> Rows for OnDisk<T> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let found = self.0.get(key).map_err(disk)?;
        Ok(found.map(|row| row.value().to_vec()))
    }
    fn visit(
        &self,
        from: &[u8],
        until: &[u8],
        each: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        if from < until {
            for row in self.0.range(from..until).map_err(disk)? {
                let (key, value) = row.map_err(disk)?;
                if !each(key.value(), value.value()) {
                    break;
                }
            }
        }
        Ok(())
    }
}

/// A snapshot: nothing in it changes, and nothing is written to it.
impl<T: ReadableTable<&'static [u8], &'static [u8]>> Backend for OnDisk<T> {
    fn rows(&self) -> &dyn Rows {
        self
    }
    fn commit(&mut self, changes: Changes) -> Result<bool, StoreError> {
        only_nothing(&changes, StoreError::ReadOnly)
    }
}

pub(super) fn disk(why: impl std::fmt::Display) -> StoreError {
    StoreError::Disk(why.to_string())
}

/// Makes the folder (only for its user) and locks it.
pub(super) fn lock(folder: &Path) -> Result<File, StoreError> {
    let unusable = |path: &Path, e: io::Error| StoreError::Folder(path.to_owned(), Arc::new(e));
    if !folder.exists() {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|e| unusable(folder, e))?;
    } else if let Err(why) = fs::set_permissions(folder, fs::Permissions::from_mode(0o700)) {
        warn!("folder={} permissions={why}", folder.display());
    }
    let path = folder.join(LOCK);
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(|e| unusable(&path, e))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(StoreError::InUse(folder.to_owned())),
        Err(fs::TryLockError::Error(e)) => Err(unusable(&path, e)),
    }
}

/// Makes a whole new store beside the final name, then moves it there: a file under the final name is complete.
fn create(folder: &Path, path: &Path) -> Result<(), StoreError> {
    let unusable = |e: io::Error| StoreError::Folder(path.to_owned(), Arc::new(e));
    let new = folder.join(format!("{FILE}.new"));
    let _ = fs::remove_file(&new);
    let first = (vec![rows::SCHEMA], SCHEMA.to_be_bytes().to_vec());
    write_new(&new, |transaction| {
        let mut table = transaction.open_table(ROWS).map_err(disk)?;
        put(&mut table, &first.0, &first.1)
    })?;
    fs::rename(&new, path).map_err(unusable)?;
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(unusable)
}

pub(super) type RowTable<'a> = Table<'a, &'static [u8], &'static [u8]>;

pub(super) fn put(table: &mut RowTable<'_>, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
    table.insert(key, value).map(drop).map_err(disk)
}

/// Writes a new database file, readable by its user only, in one transaction.
pub(super) fn write_new(
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
    let backend = redb::backends::FileBackend::new(file).map_err(disk)?;
    let database = Database::builder()
        .set_cache_size(CACHE)
        .create_with_backend(backend)
        .map_err(disk)?;
    let transaction = database.begin_write().map_err(disk)?;
    fill(&transaction)?;
    transaction.commit().map_err(disk)
}

fn open_database(path: &Path) -> Result<Database, StoreError> {
    let damaged = |why: String| StoreError::Damaged(path.to_owned(), why);
    // An empty file would be taken for a new store; ours are never empty.
    let size = fs::metadata(path).map_err(|e| StoreError::Folder(path.to_owned(), Arc::new(e)))?;
    if size.len() == 0 {
        return Err(damaged("the file is empty".into()));
    }
    let opened = catch_unwind(|| Database::builder().set_cache_size(CACHE).open(path));
    match opened {
        Ok(Ok(database)) => Ok(database),
        Ok(Err(DatabaseError::DatabaseAlreadyOpen)) => Err(StoreError::InUse(path.to_owned())),
        Ok(Err(DatabaseError::UpgradeRequired(_))) => Err(StoreError::Newer(path.to_owned())),
        Ok(Err(DatabaseError::Storage(StorageError::Io(e))))
            if e.kind() != io::ErrorKind::InvalidData
                && e.kind() != io::ErrorKind::UnexpectedEof =>
        {
            Err(StoreError::Folder(path.to_owned(), Arc::new(e)))
        }
        Ok(Err(why)) => Err(damaged(why.to_string())),
        Err(_) => Err(damaged("its pages make no sense".into())),
    }
}

fn check_schema(database: &Database, path: &Path) -> Result<(), StoreError> {
    let damaged = |why: String| StoreError::Damaged(path.to_owned(), why);
    let found = || -> Result<Option<Vec<u8>>, StoreError> {
        let snapshot = database.begin_read().map_err(disk)?;
        OnDisk(snapshot.open_table(ROWS).map_err(disk)?).get(&[rows::SCHEMA])
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
