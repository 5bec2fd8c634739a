//! ○ How much one atSign keeps on the disk, and how much it may.
//!
//! The disk itself counts, as rows are written and removed ([`super::disk`]): into a counter that is made when the atSign
//! moves in. What others send and what is copied from them has limits of its own, and takes nothing of the quota.

use crate::{
    at::fault::Code,
    server::refusal::{Refusal, refuse},
    text::size::in_words,
};

use super::{
    error::StoreError,
    register::Home,
    rows,
    tx::{Rows, Tx},
};

/// What an atSign may keep unless it was given another quota.
pub const DEFAULT: u64 = 1 << 30;
/// The counter of all its bytes, kept by the disk.
pub(super) const USED: &str = "disk bytes";
/// What it was given; 0: the default.
const GIVEN: &str = "quota";

impl Home {
    /// Begins to count, where an earlier version did not.
    ///
    /// # Errors
    /// When the store fails.
    pub fn ready_quota(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        if tx
            .get(&self.key(rows::COUNTER, &[USED.as_bytes()]))?
            .is_none()
        {
            let used = self.weight(tx)?;
            self.set_counter(tx, USED, used)?;
        }
        Ok(())
    }

    /// How many bytes it may keep.
    ///
    /// # Errors
    /// When the store fails.
    pub fn quota(&self, rows: &dyn Rows) -> Result<u64, StoreError> {
        Ok(match self.counter(rows, GIVEN)? {
            0 => DEFAULT,
            given => given,
        })
    }

    /// Gives it another quota.
    ///
    /// # Errors
    /// When the store fails.
    pub fn set_quota(&self, tx: &mut Tx<'_>, bytes: u64) -> Result<(), StoreError> {
        self.set_counter(tx, GIVEN, bytes)
    }

    /// How many of its quota it keeps.
    ///
    /// # Errors
    /// When the store fails.
    pub fn used(&self, rows: &dyn Rows) -> Result<u64, StoreError> {
        let others = self.counter(rows, "inbox bytes")? + self.copied_bytes(rows)?;
        Ok(self.counter(rows, USED)?.saturating_sub(others))
    }

    /// Refuses what would make more of it, once the quota is used up.
    pub(in crate::server) fn within_quota(&self, rows: &dyn Rows) -> Result<(), Refusal> {
        let (used, quota) = (self.used(rows)?, self.quota(rows)?);
        if used < quota {
            return Ok(());
        }
        let text = format!(
            "the quota of {} for {} is used up: delete something, or ask whoever runs this atServer for more",
            in_words(quota),
            self.who
        );
        Err(refuse(Code::IllegalArguments, text))
    }
}
