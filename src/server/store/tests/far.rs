//! A store behind a network, for tests: nothing is at hand at first, each request is counted, and others write, too.
//!
//! It keeps a version with each row, and answers two requests, as a table in an SQL server would: `read`, the rows of
//! some ranges (one row is a range, too), and `commit`, changes together with the ranges they depend on.

use std::{cell::RefCell, collections::BTreeMap, ops::Bound};

use super::MemoryStore;
use crate::server::store::{
    Access, Chance, Changes, CommitEvent, EachRow, Rows, StoreError, Tx,
    attempt::{self, Backend},
};

/// Rows that one range brings at first, and how much more each time.
const PAGE: usize = 64;
const GROWTH: usize = 4;

/// From the one key up to but without the other.
type Range = (Vec<u8>, Vec<u8>);

/// What another process does at some moment.
type Deed = Box<dyn FnOnce(&mut Server)>;

/// What the server keeps, and what happens to it.
pub struct Server {
    /// Version and value.
    rows: BTreeMap<Vec<u8>, (u64, Vec<u8>)>,
    version: u64,
    /// Requests.
    pub trips: usize,
    /// So many commits are still refused, as if somebody else had been faster.
    pub refusals: usize,
    /// What somebody else does just before the next commit.
    pub meanwhile: Option<Deed>,
}

/// What was read: all rows of a range.
struct RangeRows {
    range: Range,
    rows: BTreeMap<Vec<u8>, (u64, Vec<u8>)>,
}

impl Server {
    /// One that has these rows.
    pub fn of(memory: &MemoryStore) -> Self {
        let rows = memory.rows.iter();
        Self {
            rows: rows.map(|(k, v)| (k.clone(), (1, v.clone()))).collect(),
            version: 1,
            trips: 0,
            refusals: 0,
            meanwhile: None,
        }
    }

    /// Runs a command.
    ///
    /// # Errors
    /// The command's, or why it did not get through.
    pub fn write<T, E: From<StoreError>>(
        &mut self,
        run: impl Fn(&mut Tx<'_>) -> Result<T, E>,
    ) -> Result<(T, Vec<CommitEvent>), E> {
        let chance = Chance::default();
        attempt::until_committed(&mut FarView::new(self), Access::Write, &chance, run)
    }

    /// Whether it has the same rows.
    pub fn is_like(&self, memory: &MemoryStore) -> bool {
        let ours = self.rows.iter().map(|(key, (_, value))| (key, value));
        ours.eq(memory.rows.iter())
    }

    fn between(&self, range: &Range) -> impl Iterator<Item = (&Vec<u8>, &(u64, Vec<u8>))> {
        let (from, until) = (range.0.as_slice(), range.1.as_slice());
        self.rows
            .range::<[u8], _>((Bound::Included(from), Bound::Excluded(until)))
    }

    /// Request one. A part ends early when its range has more than so many rows.
    fn read(&mut self, ranges: &[Range], most: usize) -> Vec<RangeRows> {
        self.trips += 1;
        let part = |range: &Range| {
            let found = self.between(range).take(most);
            let rows: BTreeMap<_, _> = found.map(|(k, row)| (k.clone(), row.clone())).collect();
            let mut range = range.clone();
            if rows.len() == most {
                let last = rows.last_key_value().map(|(key, _)| one(key).1);
                range.1 = last.unwrap_or(range.1);
            }
            RangeRows { range, rows }
        };
        ranges.iter().map(part).collect()
    }

    /// Request two: `false` when what was read has changed.
    fn commit(&mut self, read: &[RangeRows], changes: Changes) -> bool {
        self.trips += 1;
        if let Some(others) = self.meanwhile.take() {
            others(self);
        }
        if self.refusals > 0 {
            self.refusals -= 1;
            return false;
        }
        let is_so = |part: &RangeRows| {
            let now = self
                .between(&part.range)
                .map(|(k, (version, _))| (k, version));
            now.eq(part.rows.iter().map(|(k, (version, _))| (k, version)))
        };
        if !read.iter().all(is_so) {
            return false;
        }
        self.version += 1;
        for (key, change) in changes {
            match change {
                Some(new) => self.rows.insert(key, (self.version, new)),
                None => self.rows.remove(&key),
            };
        }
        true
    }
}

/// The range of one key.
fn one(key: &[u8]) -> Range {
    let mut behind = key.to_vec();
    behind.push(0);
    (key.to_vec(), behind)
}

/// One command's view of the server: what it has got so far, and what it still wants.
struct FarView<'a> {
    server: &'a mut Server,
    shelf: Shelf,
    page: usize,
    /// In how many requests the parts came.
    fetches: usize,
}

#[derive(Default)]
struct Shelf {
    parts: Vec<RangeRows>,
    wants: RefCell<Vec<Range>>,
}

impl<'a> FarView<'a> {
    /// A command begins.
    fn new(server: &'a mut Server) -> Self {
        Self {
            server,
            shelf: Shelf::default(),
            page: PAGE,
            fetches: 0,
        }
    }
}

impl Shelf {
    /// The part that goes furthest from this key.
    fn part(&self, key: &[u8]) -> Option<&RangeRows> {
        let covers = |part: &&RangeRows| {
            let (from, until) = &part.range;
            from.as_slice() <= key && key < until.as_slice()
        };
        let parts = self.parts.iter().filter(covers);
        parts.max_by(|one, other| one.range.1.cmp(&other.range.1))
    }

    fn want(&self, range: Range) {
        let mut wants = self.wants.borrow_mut();
        if !wants.contains(&range) {
            wants.push(range);
        }
    }
}

impl Rows for Shelf {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(part) = self.part(key) else {
            self.want(one(key));
            return Ok(None);
        };
        Ok(part.rows.get(key).map(|(_, value)| value.clone()))
    }

    fn visit(&self, from: &[u8], until: &[u8], each: &mut EachRow<'_>) -> Result<(), StoreError> {
        let mut at = from.to_vec();
        while at.as_slice() < until {
            let Some(part) = self.part(&at) else {
                self.want((at, until.to_vec()));
                break;
            };
            let end = until.min(&part.range.1).to_vec();
            let here = (Bound::Included(at.as_slice()), Bound::Excluded(&end[..]));
            for (key, (_, value)) in part.rows.range::<[u8], _>(here) {
                if !each(key, value)? {
                    return Ok(());
                }
            }
            at = end;
        }
        Ok(())
    }
}

impl Backend for FarView<'_> {
    fn rows(&self) -> &dyn Rows {
        &self.shelf
    }

    fn fetch(&mut self) -> Result<bool, StoreError> {
        let wants = self.shelf.wants.take();
        if wants.is_empty() {
            return Ok(false);
        }
        self.shelf.parts.extend(self.server.read(&wants, self.page));
        self.page *= GROWTH;
        self.fetches += 1;
        Ok(true)
    }

    fn commit(&mut self, changes: Changes) -> Result<bool, StoreError> {
        // What came in one answer was so at one time.
        let looked = changes.is_empty() && self.fetches < 2;
        if looked || self.server.commit(&self.shelf.parts, changes) {
            return Ok(true);
        }
        let old = std::mem::take(&mut self.shelf.parts);
        let ranges: Vec<Range> = old.into_iter().map(|part| part.range).collect();
        self.shelf.parts = self.server.read(&ranges, usize::MAX);
        self.fetches = 1;
        Ok(false)
    }
}

/// Commits that are refused at first, to see that a command may run again.
const REFUSALS: usize = 2;

/// Runs a command on a store behind a network, too: left alone, and with others in its way. Its answer, its events and
/// the rows must be those of the near one. Also tells how many requests it cost when it was left alone.
pub fn same_as_near<T: std::fmt::Debug>(
    near: &mut MemoryStore,
    writes: bool,
    run: impl Fn(&mut Tx<'_>) -> T,
) -> ((T, Vec<CommitEvent>), usize) {
    let (chance, access) = (
        Chance::default(),
        if writes { Access::Write } else { Access::Read },
    );
    let run = |tx: &mut Tx<'_>| Ok::<_, StoreError>(run(tx));
    let mut servers = [0, REFUSALS].map(|refusals| Server {
        refusals,
        ..Server::of(near)
    });
    let want = attempt::until_committed(near, access, &chance, run);
    for server in &mut servers {
        let mut far = FarView::new(server);
        let found = attempt::until_committed(&mut far, access, &chance, run);
        assert_eq!(format!("{found:?}"), format!("{want:?}"));
        assert!(server.is_like(near), "other rows than {want:?} left near");
    }
    let [alone, crowded] = servers.map(|server| server.trips);
    // Each time it was too late it reads again what it had read, and commits if it must.
    let most = alone + 2 * REFUSALS;
    assert!(crowded <= most, "{crowded} requests, {most} at most");
    let done = want.unwrap_or_else(|why| panic!("{why}"));
    (done, alone)
}
