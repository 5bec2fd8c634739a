//! What the disk keeps, and what it does with closures that fail.

use std::{pin::pin, sync::Mutex, time::Duration};

use async_std::task::{block_on, spawn};
use futures_lite::future::poll_once;

use super::*;
use crate::{
    server::store::{log::Change, register::Home, rows},
    testing::{Disk, Folder},
};

fn open(folder: &Folder) -> Store {
    Store::open(&folder.0, |_| {}).unwrap()
}

fn home() -> Home {
    Home {
        number: 1,
        who: "@alice".parse().unwrap(),
    }
}

async fn log(store: &Store, key: &str) -> i64 {
    let key = key.to_owned();
    let logged = store.write(move |tx| home().log(tx, &key, Change::Update, 1));
    logged
        .await
        .unwrap_or_else(|why: StoreError| panic!("{why}"))
}

/// The row this test wrote, if it is there.
fn row(store: &Store, key: u8) -> Option<Vec<u8>> {
    store
        .read_now(|tx| tx.get(&[200, key]))
        .unwrap_or_else(|why: StoreError| panic!("{why}"))
}

#[test]
fn what_was_acknowledged_is_there_after_a_crash_and_ids_go_on() {
    block_on(async {
        let (folder, crashed) = (Folder::new(), Folder::new());
        let store = open(&folder);
        for n in 0..50 {
            assert_eq!(log(&store, &format!("k{}@alice", n % 7)).await, n);
        }
        // The file as a crash would leave it: nobody has closed the store.
        fs::copy(folder.0.join(FILE), crashed.0.join(FILE)).unwrap();
        let again = open(&crashed);
        let last = again.read_now(|tx| home().last_commit(tx));
        assert_eq!(
            last.unwrap_or_else(|why: StoreError| panic!("{why}")),
            Some(49)
        );
        assert_eq!(log(&again, "new@alice").await, 50);
        again.close().await;
        store.close().await;
        // And closed properly, which frees the folder.
        assert_eq!(log(&open(&folder), "new@alice").await, 50);
    });
}

#[test]
fn a_closure_that_fails_or_panics_harms_nobody_else() {
    block_on(async {
        let folder = Folder::new();
        let store = open(&folder);
        let tasks: Vec<_> = (0..60u8)
            .map(|n| {
                let store = store.clone();
                spawn(async move {
                    let written: Result<u8, StoreError> = store
                        .write(move |tx| {
                            tx.put(vec![200, n], vec![n])?;
                            match n % 3 {
                                0 => Ok(n),
                                1 => Err(StoreError::Row),
                                _ => panic!("on purpose"),
                            }
                        })
                        .await;
                    (n, written)
                })
            })
            .collect();
        for task in tasks {
            let (n, written) = task.await;
            match n % 3 {
                0 => assert_eq!(written.unwrap(), n),
                1 => assert!(matches!(written, Err(StoreError::Row)), "{n}"),
                _ => assert!(matches!(written, Err(StoreError::GivenUp)), "{n}"),
            }
            assert_eq!(row(&store, n).is_some(), n % 3 == 0, "{n}");
        }
    });
}

#[test]
fn events_are_told_in_commit_order_and_only_of_what_was_committed() {
    block_on(async {
        let folder = Folder::new();
        let told = Arc::new(Mutex::new(Vec::new()));
        let hear = told.clone();
        let store = Store::open(&folder.0, move |event| {
            if let CommitEvent::Commit(_, id) = event {
                hear.lock().unwrap().push(id);
            }
        })
        .unwrap();
        let writers: Vec<_> = (0..40)
            .map(|n| {
                let store = store.clone();
                spawn(async move {
                    if n % 4 == 0 {
                        let failed = store.write(move |tx| {
                            home().log(tx, "failed@alice", Change::Update, 1)?;
                            Err::<(), _>(StoreError::Row)
                        });
                        assert!(failed.await.is_err());
                        return None;
                    }
                    Some(log(&store, &format!("k{n}@alice")).await)
                })
            })
            .collect();
        let mut ids = Vec::new();
        for writer in writers {
            ids.extend(writer.await);
        }
        ids.sort_unstable();
        let want: Vec<i64> = (0..30).collect();
        assert_eq!(ids, want);
        assert_eq!(*told.lock().unwrap(), want);
    });
}

/// A drop may run on a thread of the executor: what the writer is busy with must not hold that up.
#[test]
fn giving_the_last_clone_up_does_not_wait_for_the_writer() {
    let folder = Folder::new();
    let (hold, held) = mpsc::channel::<()>();
    let store = Store::open(&folder.0, move |_| {
        let _ = held.recv();
    })
    .unwrap();
    {
        let mut writing = pin!(store.write(|tx| home().log(tx, "k@alice", Change::Update, 1)));
        // The writer has it now, and hangs in the telling.
        let answer: Option<Result<i64, StoreError>> = block_on(poll_once(&mut writing));
        assert!(answer.is_none());
    }
    let mut closing = pin!(store.closing());
    let (say, gone) = mpsc::channel();
    let dropping = thread::spawn(move || {
        drop(store);
        say.send(()).unwrap();
    });
    gone.recv_timeout(Duration::from_secs(20))
        .expect("a drop that does not wait");
    dropping.join().unwrap();
    assert!(block_on(poll_once(&mut closing)).is_none());
    assert!(matches!(
        Store::open(&folder.0, |_| {}),
        Err(StoreError::InUse(_))
    ));
    drop(hold);
    block_on(closing);
    let again = open(&folder);
    let last = again.read_now(|tx| home().last_commit(tx));
    assert_eq!(
        last.unwrap_or_else(|why: StoreError| panic!("{why}")),
        Some(0)
    );
}

#[test]
fn a_file_of_a_later_version_is_refused() {
    let folder = Folder::new();
    block_on(open(&folder).close());
    let database = Database::open(folder.0.join(FILE)).unwrap();
    let transaction = database.begin_write().unwrap();
    let later = 99u64.to_be_bytes();
    transaction
        .open_table(ROWS)
        .unwrap()
        .insert(&[rows::SCHEMA][..], &later[..])
        .unwrap();
    transaction.commit().unwrap();
    drop(database);
    let refused = Store::open(&folder.0, |_| {});
    assert!(matches!(refused, Err(StoreError::Newer(_))));
}

#[test]
fn damage_in_the_middle_of_a_file_is_no_panic_at_opening() {
    let folder = Folder::new();
    block_on(open(&folder).close());
    let file = folder.0.join(FILE);
    let good = fs::read(&file).unwrap();
    for at in [64, 128, 4096, good.len() / 2] {
        let mut bad = good.clone();
        bad[at..at + 32].fill(0xa5);
        fs::write(&file, &bad).unwrap();
        // Either the damage is where nothing is kept, or it is told; never a crash, never a new store.
        match Store::open(&folder.0, |_| {}) {
            Ok(store) => block_on(store.close()),
            Err(why) => assert!(
                matches!(why, StoreError::Damaged(..) | StoreError::Newer(_)),
                "{at}: {why}"
            ),
        }
    }
    fs::write(&file, &good[..good.len() / 2]).unwrap();
    assert!(matches!(
        Store::open(&folder.0, |_| {}),
        Err(StoreError::Damaged(..))
    ));
}

/// The next test's name.
const FILLS_UP: &str =
    "server::store::disk::tests::a_disk_that_fills_up_in_a_commit_costs_that_commit_alone";

#[test]
fn a_disk_that_fills_up_in_a_commit_costs_that_commit_alone() {
    let Some(disk) = Disk::of(FILLS_UP, 12) else {
        return;
    };
    // No room is kept: the disk is found full where it hurts most.
    let store = Store::open_leaving(None, &disk.0, Box::new(|_| {})).unwrap();
    let write = |key: u8, size: usize| {
        let value = vec![key; size];
        let written = store.write(move |tx| tx.put(vec![rows::RECORD, key], value.clone()));
        block_on(written)
    };
    let read = |key: u8| store.read_now(|tx| tx.get(&[rows::RECORD, key]));
    write(1, 100_000).unwrap();
    // Until nothing more fits.
    disk.fill(0);
    let mut failed = 0;
    for key in 2..30 {
        failed += usize::from(write(key, 500_000).is_err());
    }
    assert!(failed > 0, "it never was full");
    disk.make_room();
    write(40, 10).unwrap();
    assert_eq!(read(1).unwrap(), Some(vec![1; 100_000]));
    assert_eq!(read(40).unwrap(), Some(vec![40; 10]));
    assert!(store.totals().failures >= failed as u64);
}

#[test]
fn the_file_gets_small_again_when_what_was_large_is_gone() {
    block_on(async {
        const LARGE: usize = 5 << 20;
        let folder = Folder::new();
        let store = open(&folder);
        let put =
            |key: u8, bytes: usize| store.write(move |tx| tx.put(vec![200, key], vec![key; bytes]));
        let done = |outcome: Result<(), StoreError>| outcome.unwrap_or_else(|why| panic!("{why}"));
        for n in 0..20 {
            done(put(n, LARGE).await);
        }
        // The newest is likely to lie at the end of the file, and holds what is free before it.
        done(put(100, 1000).await);
        let large = store.size();
        assert!(large > 100 << 20, "{large}");
        for n in 0..19 {
            done(store.write(move |tx| tx.remove(&[200, n]).map(drop)).await);
        }
        let mut waited = 0;
        while store.size() > large / 4 {
            waited += 1;
            assert!(waited < 100_000, "{} of {large}", store.size());
            // The writer looks when it has nothing to do.
            done(put(101, 1).await);
        }
        assert_eq!(row(&store, 19), Some(vec![19; LARGE]));
        assert_eq!(row(&store, 100), Some(vec![100; 1000]));
        assert_eq!(row(&store, 0), None);
        store.close().await;
        let again = open(&folder);
        assert_eq!(row(&again, 19), Some(vec![19; LARGE]));
        again.close().await;
    });
}

/// Up to 32 MiB of pages stayed for as long as the server ran.
#[test]
fn what_a_burst_has_read_is_given_back_and_nobody_waits_for_a_reader_for_it() {
    block_on(async {
        let folder = Folder::new();
        let store = open(&folder);
        for n in 0..3 {
            log(&store, &format!("k{n}@alice")).await;
        }
        (0..2000).for_each(|_| drop(row(&store, 1)));
        let (file, now) = (store.0.file.clone(), Instant::now());
        let mut age = PageCacheAge::new(now);
        file.rest(&mut age, now + REST);
        // A long look: it is left for later.
        let looked: Result<(), StoreError> = file.with(|_| {
            file.rest(&mut age, now + 2 * REST);
            Ok(())
        });
        assert!(looked.is_ok() && age.emptied == 0);
        file.rest(&mut age, now + 3 * REST);
        assert!(age.emptied > 0 && file.is_open());
        drop(file);
        assert_eq!(log(&store, "k4@alice").await, 3);
        store.close().await;
        assert_eq!(log(&open(&folder), "k5@alice").await, 4);
    });
}
