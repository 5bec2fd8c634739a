//! The store on disk: redb in one file, private to its user, locked against a second process.

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread,
};

use async_std::channel;
use log::{error, warn};
use redb::{
    Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, Table, TableDefinition,
};

use super::{Changes, Event, Rows, StoreError, Tx, rows};

/// Version of the row layout in this file.
const SCHEMA: u64 = 1;
/// Most transactions of one commit: bounds how long the first of them waits.
const MAX_BATCH: usize = 256;
/// Most changed bytes of one commit, for the same reason.
const MAX_BATCH_BYTES: usize = 16 << 20;
/// Transactions waiting for the writer; above this, callers wait in line.
const QUEUE: usize = 1024;
/// Memory that the database may use for pages, bytes.
const CACHE: usize = 32 << 20;
const FILE: &str = "atserver.redb";
const LOCK: &str = "lock";
const ROWS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("rows");

/// The store. Cheap to clone; the last clone to go closes it.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    /// Emptied first when the store closes: that ends the writer.
    jobs: Option<mpsc::SyncSender<Job>>,
    writer: Option<thread::JoinHandle<()>>,
    database: Arc<Database>,
    file: PathBuf,
    /// Held for as long as the store is open.
    _lock: File,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

/// One transaction on its way through the writer thread.
type Job = Box<dyn FnOnce(&dyn Rows) -> Ran + Send>;

/// What a transaction did, and how to tell its caller.
struct Ran {
    changes: Changes,
    events: Vec<Event>,
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
        told: impl FnMut(Event) + Send + 'static,
    ) -> Result<Self, StoreError> {
        let lock = lock(folder)?;
        let path = folder.join(FILE);
        if !path.exists() {
            create(folder, &path)?;
        }
        let database = Arc::new(open_database(&path)?);
        check_schema(&database, &path)?;
        let (jobs, queue) = mpsc::sync_channel(QUEUE);
        let writers = database.clone();
        let writer = thread::Builder::new()
            .name("store".into())
            .spawn(move || write_loop(&writers, &queue, told))
            .map_err(|e| StoreError::Folder(path.clone(), Arc::new(e)))?;
        Ok(Self(Arc::new(Inner {
            jobs: Some(jobs),
            writer: Some(writer),
            database,
            file: path,
            _lock: lock,
        })))
    }

    /// Runs a transaction and answers once it is durable. The closure's `Err` undoes all it did.
    ///
    /// # Errors
    /// The closure's, or why it could not be made durable.
    pub async fn write<T, E, F>(&self, run: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
        F: FnOnce(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
    {
        let (answer, wait) = channel::bounded(1);
        let job: Job = Box::new(move |base| run_on(base, run, answer));
        let jobs = self.0.jobs.as_ref().ok_or(StoreError::Closed)?;
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
        F: FnOnce(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
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
        run: impl FnOnce(&mut Tx<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let snapshot = self.0.database.begin_read().map_err(disk)?;
        let table = snapshot.open_table(ROWS).map_err(disk)?;
        run(&mut Tx::reading(&OnDisk(table)))
    }

    /// The size of the file in bytes.
    pub fn size(&self) -> u64 {
        fs::metadata(&self.0.file).map_or(0, |found| found.len())
    }
}

/// Runs one closure on an overlay of `base`.
fn run_on<T, E, F>(base: &dyn Rows, run: F, answer: channel::Sender<Result<T, E>>) -> Ran
where
    T: Send + 'static,
    E: From<StoreError> + Send + 'static,
    F: FnOnce(&mut Tx<'_>) -> Result<T, E>,
{
    let mut tx = Tx::writing(base);
    let result = catch_unwind(AssertUnwindSafe(|| run(&mut tx)))
        .unwrap_or_else(|_| Err(StoreError::GivenUp.into()));
    if result.is_err() {
        tx.discard();
    }
    let (changes, events) = tx.finish();
    let answer = Box::new(move |committed: Result<(), StoreError>| {
        // Whoever asked may be gone; what was committed stays.
        let _ = answer.try_send(committed.map_err(E::from).and(result));
    });
    Ran {
        changes,
        events,
        answer,
    }
}

fn write_loop(
    database: &Database,
    queue: &mpsc::Receiver<Job>,
    mut told: impl FnMut(Event) + Send,
) {
    while let Ok(first) = queue.recv() {
        let mut batch = Vec::new();
        let committed = commit(database, queue, first, &mut batch);
        if let Err(why) = &committed {
            error!("store=failed transactions={} why={why}", batch.len());
        }
        for ran in batch {
            if committed.is_ok() {
                ran.events.into_iter().for_each(&mut told);
            }
            (ran.answer)(committed.clone());
        }
    }
}

/// Runs `first` and what waits behind it in one durable transaction.
fn commit(
    database: &Database,
    queue: &mpsc::Receiver<Job>,
    first: Job,
    batch: &mut Vec<Ran>,
) -> Result<(), StoreError> {
    // Should this fail, `first` is dropped, and its caller hears that the store is closed.
    let transaction = database.begin_write().map_err(disk)?;
    let mut bytes = 0;
    let mut changed = false;
    {
        let mut table = OnDisk(transaction.open_table(ROWS).map_err(disk)?);
        let mut next = Some(first);
        while let Some(job) = next.take() {
            let mut ran = job(&table);
            let changes = std::mem::take(&mut ran.changes);
            changed |= !changes.is_empty();
            // In the batch before it is applied: should that fail, its caller hears of it too.
            batch.push(ran);
            bytes += apply(&mut table.0, changes)?;
            if batch.len() < MAX_BATCH && bytes < MAX_BATCH_BYTES {
                next = queue.try_recv().ok();
            }
        }
    }
    if changed {
        transaction.commit().map_err(disk)
    } else {
        transaction.abort().map_err(disk)
    }
}

fn apply(
    table: &mut Table<'_, &'static [u8], &'static [u8]>,
    changes: Changes,
) -> Result<usize, StoreError> {
    let mut bytes = 0;
    for (key, change) in &changes {
        match change {
            Some(value) => {
                bytes += key.len() + value.len();
                table
                    .insert(key.as_slice(), value.as_slice())
                    .map_err(disk)?;
            }
            None => {
                table.remove(key.as_slice()).map_err(disk)?;
            }
        }
    }
    Ok(bytes)
}

struct OnDisk<T>(T);

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

fn disk(why: impl std::fmt::Display) -> StoreError {
    StoreError::Disk(why.to_string())
}

/// Makes the folder (only for its user) and locks it.
fn lock(folder: &Path) -> Result<File, StoreError> {
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
    let file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .read(true)
        .write(true)
        .mode(0o600)
        .open(&new)
        .map_err(unusable)?;
    let backend = redb::backends::FileBackend::new(file).map_err(disk)?;
    let database = Database::builder()
        .create_with_backend(backend)
        .map_err(disk)?;
    let transaction = database.begin_write().map_err(disk)?;
    {
        let mut table = transaction.open_table(ROWS).map_err(disk)?;
        let schema = SCHEMA.to_be_bytes();
        table
            .insert(&[rows::SCHEMA][..], &schema[..])
            .map_err(disk)?;
    }
    transaction.commit().map_err(disk)?;
    drop(database);
    fs::rename(&new, path).map_err(unusable)?;
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(unusable)
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
