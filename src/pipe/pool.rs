//! What is idle between two uses. Each thread keeps a few; a session that waits holds none.

use std::cell::RefCell;

/// At most so many idle ones.
pub(super) struct Pool<T> {
    idle: RefCell<Vec<T>>,
    most: usize,
}

impl<T> Pool<T> {
    pub(super) const fn new(most: usize) -> Self {
        Self {
            idle: RefCell::new(Vec::new()),
            most,
        }
    }

    pub(super) fn take(&self) -> Option<T> {
        self.idle.borrow_mut().pop()
    }

    pub(super) fn give(&self, one: T) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() < self.most {
            idle.push(one);
        }
    }
}
