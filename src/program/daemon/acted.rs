//! Requests that were acted on: each at most once, also after a restart.
//!
//! ```text
//!   a request ─▶ in the list? ─ yes ──────────────────────────────────────▶ no
//!                  │ no
//!                  ├─ signed for this run, of which nothing was forgotten ─▶ yes
//!                  ├─ signed at a time that is 3 minutes off or more ──────▶ no: ask again
//!                  ├─ signed for an earlier run, of which nothing is known ▶ no: ask again
//!                  └─ else (clients of others do not sign a time) ─────────▶ yes: into the list, then it is acted on
//! ```
//! The list is a file of 8 bytes for each request behind a line that says what it is: 64,000 of them, 0.5 MB; twice as
//! long before it is made short again. Where it cannot be kept the memory has it, which is said at the start.
//!
//! A request is in the file before its bridge is started, and on the disk before its answer is sent, so a power cut in
//! between ends the session with it. That is one small write for each session that is opened, and none for what is refused:
//! some 4 to 12 kB of flash, so 100 sessions a day wear out 1 MB of it a day, and an SD card of 8 GB after centuries.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_std::task::spawn_blocking;
use log::{info, warn};
use ring::digest::{SHA256, digest};

use crate::{
    at::AtSign,
    np::{
        ids::{Nonce, SessionId},
        request::stamp::{MAX_AGE, Stamp},
    },
    sys::{file::NamedFile, paths},
    text::duration::in_words,
};

/// Requests that are remembered; the oldest of whoever has most gives way.
pub(super) const MOST: usize = 64_000;
/// The file's first line; as long as two entries.
const HEAD: &[u8; 16] = b"noports-acted-1\n";
/// Bytes of an entry.
const ENTRY: usize = size_of::<u64>();
/// Only this program's.
const MODE: u32 = 0o600;

/// A request: two bytes that stand for its sender, six that stand for its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct RequestMark(u64);

impl RequestMark {
    /// Of a session that this atSign asks for.
    pub(super) fn new(from: &AtSign, session: SessionId) -> Self {
        let sender = u64::from_be_bytes(first_bytes(from.as_str())) >> 48;
        let both = first_bytes(&format!("{from} {session}"));
        Self(sender << 48 | u64::from_be_bytes(both) >> 16)
    }

    fn sender(self) -> u64 {
        self.0 >> 48
    }
}

fn first_bytes(text: &str) -> [u8; ENTRY] {
    let digest = digest(&SHA256, text.as_bytes());
    std::array::from_fn(|at| digest.as_ref().get(at).copied().unwrap_or_default())
}

/// The requests that were acted on; cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct ActedRequests(Arc<Mutex<RequestRecord>>);

#[derive(Debug, Default)]
struct RequestRecord {
    list: RequestList,
    disk: Option<Disk>,
    /// The list holds what earlier runs did.
    knows_earlier_runs: bool,
}

/// The file, and how many entries are in it.
#[derive(Debug)]
struct Disk {
    path: PathBuf,
    file: Arc<File>,
    entries: usize,
}

impl ActedRequests {
    /// With what is in this file, and everything else into it.
    pub(super) async fn open(path: Option<PathBuf>) -> Self {
        let kept = match path {
            Some(path) => spawn_blocking(move || RequestRecord::open(&path)).await,
            None => {
                info!("requests=in_memory reason=\"no folder to remember them in\"");
                RequestRecord::default()
            }
        };
        Self(Arc::new(Mutex::new(kept)))
    }

    fn kept(&self) -> MutexGuard<'_, RequestRecord> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on this request is one that was acted on. `Err`: it was already, or may have been, in words for the client.
    pub(super) async fn enter(
        &self,
        request: RequestMark,
        stamp: Option<&Stamp>,
        run: &Nonce,
        now: Duration,
    ) -> Result<(), String> {
        {
            let mut kept = self.kept();
            kept.judge(request, stamp, run, now)?;
            kept.list.push(request);
        }
        let all = self.clone();
        spawn_blocking(move || all.kept().write(request)).await;
        Ok(())
    }

    /// When everything that was entered is on the disk.
    pub(super) async fn on_disk(&self) {
        let file = self.kept().disk.as_ref().map(|disk| disk.file.clone());
        if let Some(file) = file
            && let Err(error) = spawn_blocking(move || file.sync_data()).await
        {
            warn!("requests=not_on_disk reason=\"{error}\"");
        }
    }
}

impl RequestRecord {
    fn open(path: &Path) -> Self {
        let opened = match read(path) {
            Ok(read) => Disk::open(path, read.as_ref()).map(|disk| (read, disk)),
            Err(error) => Err(error),
        };
        match opened {
            Ok((read, disk)) => Self {
                knows_earlier_runs: read.is_some(),
                list: read.unwrap_or_default(),
                disk: Some(disk),
            },
            Err(error) => {
                let file = path.display();
                warn!(
                    "requests=in_memory file={file} reason=\"{error}\": after a restart only those that are signed with a \
                     time are known to be new"
                );
                Self::default()
            }
        }
    }

    fn judge(
        &self,
        request: RequestMark,
        stamp: Option<&Stamp>,
        run: &Nonce,
        now: Duration,
    ) -> Result<(), String> {
        if self.list.all.contains(&request) {
            return Err("this request was acted on already; ask again".to_owned());
        }
        let Some(stamp) = stamp else { return Ok(()) };
        let forgot = self.list.forgot.contains(&request.sender());
        if stamp.run == *run && !forgot {
            return Ok(());
        }
        let age = stamp.age(now);
        if age >= MAX_AGE {
            let age = in_words(Duration::from_secs(age.as_secs()));
            return Err(format!(
                "this request was signed {age} ago, or a clock is wrong; ask again"
            ));
        }
        if stamp.run != *run && !self.knows_earlier_runs {
            return Err(
                "this device has been started anew since this request was signed; ask again"
                    .to_owned(),
            );
        }
        Ok(())
    }

    /// Into the file. One that cannot be written is given up: the memory has it.
    fn write(&mut self, request: RequestMark) {
        let Some(disk) = &mut self.disk else { return };
        let written = if disk.entries < 2 * MOST {
            disk.append(request)
        } else {
            Disk::open(&disk.path, Some(&self.list)).map(|shorter| *disk = shorter)
        };
        if let Err(error) = written {
            warn!(
                "requests=in_memory file={} reason=\"{error}\"",
                disk.path.display()
            );
            self.disk = None;
        }
    }
}

impl Disk {
    /// The file with these entries in it: written anew where it holds more, or is not there.
    fn open(path: &Path, list: Option<&RequestList>) -> io::Result<Self> {
        let bytes = list.map_or(HEAD.to_vec(), RequestList::bytes);
        let len = fs::metadata(path).map(|about| about.len()).ok();
        if len != u64::try_from(bytes.len()).ok() {
            if let Some(folder) = path.parent() {
                paths::private_folder(folder)?;
            }
            paths::atomic_write(path, &bytes, MODE)?;
        }
        let file = File::options().append(true).mode(MODE).open(path)?;
        Ok(Self {
            path: path.to_owned(),
            file: Arc::new(file),
            entries: (bytes.len() - HEAD.len()) / ENTRY,
        })
    }

    fn append(&mut self, request: RequestMark) -> io::Result<()> {
        self.entries += 1;
        let written = (&*self.file).write(&request.0.to_be_bytes())?;
        if written < ENTRY {
            return Err(io::ErrorKind::WriteZero.into());
        }
        Ok(())
    }
}

/// What a file holds; `None`: there is none. An entry that is not whole was being written at a power cut.
fn read(path: &Path) -> io::Result<Option<RequestList>> {
    let file = match NamedFile::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let bytes = file.bytes((HEAD.len() + (2 * MOST + 1) * ENTRY) as u64)?;
    let entries = bytes
        .strip_prefix(HEAD)
        .ok_or_else(|| io::Error::other("it is no list of requests"))?;
    let mut list = RequestList::default();
    for entry in entries.chunks_exact(ENTRY) {
        let number = <[u8; ENTRY]>::try_from(entry).map_err(io::Error::other)?;
        list.push(RequestMark(u64::from_be_bytes(number)));
    }
    Ok(Some(list))
}

/// So many requests of all senders, the oldest of each first.
#[derive(Debug, Default)]
struct RequestList {
    all: HashSet<RequestMark>,
    by: HashMap<u64, VecDeque<RequestMark>>,
    /// Senders of whom some are forgotten.
    forgot: HashSet<u64>,
}

impl RequestList {
    fn push(&mut self, request: RequestMark) {
        if self.all.len() >= MOST
            && let Some((sender, biggest)) = self.by.iter_mut().max_by_key(|(_, one)| one.len())
            && let Some(oldest) = biggest.pop_front()
        {
            self.forgot.insert(*sender);
            self.all.remove(&oldest);
        }
        if self.all.insert(request) {
            self.by
                .entry(request.sender())
                .or_default()
                .push_back(request);
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let entries = self.by.values().flatten();
        let mut bytes = HEAD.to_vec();
        entries.for_each(|entry| bytes.extend(entry.0.to_be_bytes()));
        bytes
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use async_std::task::block_on;

    use super::*;
    use crate::testing::Folder;

    const NOW: Duration = Duration::from_secs(1_800_000_000);

    fn mark(who: &str, n: u128) -> RequestMark {
        let session = uuid::Uuid::from_u128(n).to_string().parse().unwrap();
        RequestMark::new(&who.parse().unwrap(), session)
    }

    fn run(name: &str) -> Nonce {
        name.parse().unwrap()
    }

    fn stamp(name: &str, at: Duration) -> Stamp {
        Stamp { run: run(name), at }
    }

    async fn opened(folder: &Folder) -> ActedRequests {
        ActedRequests::open(Some(folder.path("state/acted"))).await
    }

    #[test]
    fn a_request_is_acted_on_once_also_after_a_restart() {
        let folder = Folder::new();
        block_on(async {
            let first = opened(&folder).await;
            let (alices, bobs) = (mark("@alice", 1), mark("@bob", 1));
            for (request, stamp) in [(alices, None), (bobs, Some(stamp("one", NOW)))] {
                let stamp = stamp.as_ref();
                assert_eq!(first.enter(request, stamp, &run("one"), NOW).await, Ok(()));
                let again = first.enter(request, stamp, &run("one"), NOW).await;
                assert!(again.unwrap_err().contains("acted on already"));
            }
            first.on_disk().await;
            drop(first);
            let second = opened(&folder).await;
            for (request, stamp) in [(alices, None), (bobs, Some(stamp("one", NOW)))] {
                let again = second
                    .enter(request, stamp.as_ref(), &run("two"), NOW)
                    .await;
                assert!(again.unwrap_err().contains("acted on already"));
            }
            let new = second
                .enter(mark("@alice", 2), None, &run("two"), NOW)
                .await;
            assert_eq!(new, Ok(()));
        });
        let about = fs::metadata(folder.path("state/acted")).unwrap();
        assert_eq!(about.permissions().mode() & 0o777, 0o600);
        assert_eq!(about.len(), 16 + 3 * 8);
    }

    #[test]
    fn where_nothing_can_be_kept_the_signed_time_and_the_run_decide() {
        let folder = Folder::new();
        // A file where the folder should be: as on a disk that can only be read, also for root.
        fs::write(folder.path("state"), "").unwrap();
        block_on(async {
            let acted = opened(&folder).await;
            let (now_old, minute) = (NOW - MAX_AGE, Duration::from_secs(60));
            for (n, stamp, want) in [
                (1, None, ""),
                (2, Some(stamp("two", NOW)), ""),
                // A clock that is wrong does no harm as long as the run is known.
                (3, Some(stamp("two", now_old)), ""),
                (4, Some(stamp("one", NOW - minute)), "started anew"),
                (5, Some(stamp("one", now_old)), "signed 3m ago"),
                (6, Some(stamp("one", NOW + MAX_AGE)), "a clock is wrong"),
                (2, Some(stamp("two", NOW)), "acted on already"),
            ] {
                let request = mark("@alice", n);
                let got = acted.enter(request, stamp.as_ref(), &run("two"), NOW).await;
                let got = got.err().unwrap_or_default();
                assert!(
                    got.contains(want) && got.is_empty() == want.is_empty(),
                    "{n}: {got}"
                );
            }
        });
    }

    #[test]
    fn a_request_for_an_earlier_run_is_served_where_the_list_knows_that_run() {
        let folder = Folder::new();
        block_on(async {
            let first = opened(&folder).await;
            let under_way = stamp("one", NOW);
            first
                .enter(mark("@alice", 1), Some(&under_way), &run("one"), NOW)
                .await
                .unwrap();
            let second = opened(&folder).await;
            let (stamp, two, later) = (Some(&under_way), run("two"), NOW + MAX_AGE);
            let late = second.enter(mark("@alice", 2), stamp, &two, NOW);
            assert_eq!(late.await, Ok(()));
            let old = second.enter(mark("@alice", 3), stamp, &two, later);
            assert!(old.await.unwrap_err().contains("signed 3m ago"));
        });
    }

    #[test]
    fn a_flood_of_one_manager_forgets_its_own_and_the_file_stays_short() {
        let mut list = RequestList::default();
        list.push(mark("@alice", 0));
        for n in 0..MOST as u128 + 100 {
            list.push(mark("@bob", n));
        }
        assert!(list.all.contains(&mark("@alice", 0)));
        assert_eq!((list.all.len(), list.bytes().len()), (MOST, 16 + 8 * MOST));
        assert_eq!(list.forgot.len(), 1);
        let kept = RequestRecord {
            list,
            disk: None,
            knows_earlier_runs: true,
        };
        // What is forgotten may be a replay: the time decides.
        let old = stamp("one", NOW - MAX_AGE);
        let judge = |who, stamp| kept.judge(mark(who, 1 << 100), stamp, &run("one"), NOW);
        assert!(judge("@bob", Some(&old)).is_err());
        assert_eq!(judge("@alice", Some(&old)), Ok(()));

        let folder = Folder::new();
        let path = folder.path("acted");
        let mut disk = Disk::open(&path, Some(&kept.list)).unwrap();
        disk.entries = 2 * MOST;
        let mut full = RequestRecord {
            disk: Some(disk),
            ..kept
        };
        full.write(mark("@alice", 1));
        assert_eq!(full.disk.unwrap().entries, MOST);
    }

    #[test]
    fn half_an_entry_is_left_out_and_something_else_is_left_alone() {
        let folder = Folder::new();
        let path = folder.path("acted");
        let whole = mark("@alice", 1).0.to_be_bytes();
        fs::write(&path, [&HEAD[..], &whole, &whole[..5]].concat()).unwrap();
        let kept = RequestRecord::open(&path);
        assert!(kept.list.all.contains(&mark("@alice", 1)) && kept.disk.is_some());
        assert_eq!(fs::read(&path).unwrap(), [&HEAD[..], &whole].concat());
        for other in [
            &b"noports-acted-2\n"[..],
            b"",
            b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        ] {
            fs::write(&path, other).unwrap();
            let kept = RequestRecord::open(&path);
            assert!(kept.disk.is_none() && !kept.knows_earlier_runs);
            assert_eq!(fs::read(&path).unwrap(), other);
        }
        // It was waited for.
        fs::remove_file(&path).unwrap();
        fs::rename(crate::testing::named_pipe(&folder.0), &path).unwrap();
        assert!(RequestRecord::open(&path).disk.is_none());
    }
}
