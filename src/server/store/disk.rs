//! The store on disk: redb in one file, private to its user, locked against a second process.

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

pub(super) mod database;

use std::{
    fs::{self, File},
    future::Future,
    io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::Path,
    sync::{Arc, mpsc},
    thread,
    time::Instant,
};

use async_std::channel;
use log::{error, warn};
use redb::{Database, ReadableDatabase, ReadableTable};

use crate::sys::{panics, paths};

use database::{
    DatabaseFile, FILE, OnDisk, PageCacheAge, REST, ROWS, RowTable, apply, create, failed,
    senseless,
};

use super::{
    attempt::{Backend, until_committed},
    error::StoreError,
    tx::{Access, Chance, Changes, CommitEvent, EachRow, Rows, Tx},
};

/// Most transactions of one commit: bounds how long the first of them waits.
pub const WRITES_AT_ONCE: usize = 256;
/// Most changed bytes of one commit, for the same reason.
const MAX_BATCH_BYTES: usize = 16 << 20;
/// Transactions waiting for the writer; above this, callers wait in line.
const QUEUE: usize = 1024;
/// Room that must be left on the disk before anything is written, bytes. Running out in the middle of a commit
/// would lose nothing either, but the file would have to be opened again.
const ROOM: u64 = 4 << 20;
/// Name of the file that is locked while the store is open.
pub const LOCK: &str = "lock";

/// Hears of every event, on the writer's thread.
type EventSink = Box<dyn FnMut(CommitEvent) + Send>;

/// The store. Cheap to clone; the last clone to go closes it, which takes a moment: see [`Store::close`].
#[derive(Clone)]
pub struct Store(Arc<Inner>);

/// Dropped in this order: once the writer hears that there are no more jobs, it alone holds the database. So it is
/// the writer that closes it, and nobody waits for the disk in a drop, which may run on the executor.
struct Inner {
    file: Arc<DatabaseFile>,
    jobs: mpsc::SyncSender<WriteJob>,
    /// Nothing comes through; the writer holds the other end until the store is closed.
    closed: channel::Receiver<()>,
}

/// What the writer holds as long as the store is open. Dropped in this order.
struct OpenStore {
    file: Arc<DatabaseFile>,
    _lock: File,
    /// Goes last: whoever listens at the other end hears that the store is closed.
    _closed: channel::Sender<()>,
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
        let file = Arc::new(DatabaseFile::open(&path, room)?);
        let (jobs, queue) = mpsc::sync_channel(QUEUE);
        let (open, closed) = channel::bounded(1);
        let store = OpenStore {
            file: file.clone(),
            _lock: lock,
            _closed: open,
        };
        thread::Builder::new()
            .name("store".into())
            .spawn(move || panics::caught(move || write_loop(&store, queue, told)))
            .map_err(|e| StoreError::Folder(path.clone(), Arc::new(e)))?;
        Ok(Self(Arc::new(Inner { file, jobs, closed })))
    }

    /// Whether there is room on the disk to write.
    pub fn has_room(&self) -> bool {
        self.0.file.has_room(0)
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
        self.0.file.with(|database| {
            let look = || {
                let snapshot = database.begin_read().map_err(failed)?;
                let mut table = OnDisk(snapshot.open_table(ROWS).map_err(failed)?);
                let (value, _) =
                    until_committed(&mut table, Access::Read, &Chance::default(), run)?;
                Ok(value)
            };
            // Damaged pages make the database panic.
            panics::caught(look).unwrap_or_else(|| Err(senseless(&self.0.file.path).into()))
        })
    }

    /// What it has done since it was opened.
    pub fn totals(&self) -> StoreTotals {
        let file = &self.0.file;
        StoreTotals {
            commits: file.commits.get(),
            transactions: file.transactions.get(),
            failures: file.failures.get(),
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
        fs::metadata(&self.0.file.path).map_or(0, |found| found.len())
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

/// Runs until there is nobody left who could send a job. `store` is dropped after it, by the same thread.
fn write_loop(store: &OpenStore, queue: mpsc::Receiver<WriteJob>, mut told: EventSink) {
    let file = &*store.file;
    let mut pages = PageCacheAge::new(Instant::now());
    loop {
        let first = match queue.try_recv() {
            Ok(first) => first,
            Err(mpsc::TryRecvError::Disconnected) => return,
            Err(mpsc::TryRecvError::Empty) => {
                file.compact();
                file.rest(&mut pages, Instant::now());
                match queue.recv_timeout(REST) {
                    Ok(first) => first,
                    Err(mpsc::RecvTimeoutError::Timeout) if file.is_open() => continue,
                    Err(mpsc::RecvTimeoutError::Timeout) => {
                        file.reopen();
                        continue;
                    }
                    Err(mpsc::RecvTimeoutError::Disconnected) => return,
                }
            }
        };
        if !file.is_open() {
            file.reopen();
        }
        if !file.has_room(0) {
            turn_away(file, first);
            continue;
        }
        let mut batch = Vec::new();
        let committed = file.with(|database| {
            panics::caught(|| commit(file, database, &queue, first, &mut batch))
                .unwrap_or_else(|| Err(senseless(&file.path)))
        });
        match &committed {
            Ok(()) => {
                file.commits.add(1);
                file.transactions.add(batch.len());
            }
            Err(why) => {
                error!("store=failed transactions={} reason={why}", batch.len());
                file.failures.add(batch.len());
                file.reopen();
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
fn turn_away(file: &DatabaseFile, job: WriteJob) {
    file.failures.add(1);
    (job(&mut FullDisk).answer)(Ok(()));
}

/// Stands in for the rows while the disk is full.
struct FullDisk;

impl Rows for FullDisk {
    fn get(&self, _: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Err(StoreError::Full)
    }
    fn visit(&self, _: &[u8], _: &[u8], _: &mut EachRow<'_>) -> Result<(), StoreError> {
        Err(StoreError::Full)
    }
}

impl Backend for FullDisk {
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
    file: &'a DatabaseFile,
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
        if !self.file.has_room(self.bytes + more) {
            self.refused += 1;
            return Err(StoreError::Full);
        }
        self.changed = true;
        match apply(self.file, &mut self.table.0, changes) {
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
    file: &DatabaseFile,
    database: &Database,
    queue: &mpsc::Receiver<WriteJob>,
    first: WriteJob,
    batch: &mut Vec<Unacknowledged>,
) -> Result<(), StoreError> {
    // Should this fail, `first` is dropped, and its caller hears that the store is closed.
    let transaction = database.begin_write().map_err(failed)?;
    let (changed, refused) = {
        let mut base = Batch {
            table: OnDisk(transaction.open_table(ROWS).map_err(failed)?),
            file,
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
            if batch.len() < WRITES_AT_ONCE && base.bytes < MAX_BATCH_BYTES {
                next = queue.try_recv().ok();
            }
        }
        (base.changed, base.refused)
    };
    if changed {
        transaction.commit().map_err(failed)?;
    } else {
        transaction.abort().map_err(failed)?;
    }
    file.failures.add(refused);
    Ok(())
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
    // The folder is ours alone; an administrator may look after the data of a service's user.
    let file = paths::open_lock_of_anybody(&path).map_err(|e| unusable(&path, e))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(StoreError::InUse(folder.to_owned())),
        Err(fs::TryLockError::Error(e)) => Err(unusable(&path, e)),
    }
}
