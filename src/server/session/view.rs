//! What a monitor is shown, live and replayed.

use regex_lite::Regex;

use crate::server::{
    enrolment::{Grant, Need},
    notification::{live_line, stored_line},
    store::{
        Rows, StoreError,
        notes::{Note, NoteKind},
        register::Home,
    },
};

use super::pattern;

/// About how many bytes of replay are read at a time.
pub(super) const PAGE: u64 = 256 * 1024;

/// What a monitor wants, and where its replay ends.
#[derive(Clone, Debug)]
pub struct MonitorView {
    pub(super) filter: Option<Regex>,
    /// Also what the server tells its own owner.
    pub(super) own: bool,
    pub(super) grant: Option<Grant>,
    /// Replay what came after this time; `None`: no replay.
    pub replay: Option<u64>,
    /// The newest time at the start. With a replay, live notifications up to it were part of the replay.
    pub until: u64,
    /// Longer lines are left out: the client would only pass them over. An earlier version of this server took in what
    /// no client can read.
    pub(super) longest: usize,
}

impl MonitorView {
    /// The line of this notification, just arrived, if it is to be shown.
    pub fn live(&self, note: &Note) -> Option<String> {
        self.wants_live(note)
            .then(|| live_line(note))
            .filter(|line| self.is_short(line))
    }

    /// Without its line end.
    fn is_short(&self, line: &str) -> bool {
        line.trim_end().len() <= self.longest
    }

    /// Whether this notification is new to this monitor and one of those it wants.
    pub fn wants_live(&self, note: &Note) -> bool {
        let replayed = self.replay.is_some() && note.epoch_millis <= self.until;
        !replayed && self.wants(note)
    }

    fn wants(&self, note: &Note) -> bool {
        let kind = match note.kind {
            NoteKind::Received => true,
            NoteKind::Own => self.own,
            NoteKind::Sent => false,
        };
        kind && matches(self.filter.as_ref(), note)
            && self.grant.as_ref().is_none_or(|grant| may_see(grant, note))
    }
}

pub(super) fn matches(filter: Option<&Regex>, note: &Note) -> bool {
    pattern::found(filter, &note.key) || pattern::found(filter, note.from.bare())
}

pub(super) fn may_see(grant: &Grant, note: &Note) -> bool {
    note.is_text || grant.covers(&note.key.to_lowercase(), Need::Read)
}

/// The next lines of a replay that has shown everything up to `after`, and from where to go on. `None`: it is over.
///
/// # Errors
/// When the store fails.
pub fn page(
    rows: &dyn Rows,
    home: &Home,
    watch: &MonitorView,
    after: u64,
    now: u64,
) -> Result<(Vec<String>, Option<u64>), StoreError> {
    let (notes, more) = home.inbox(rows, after, watch.until, PAGE)?;
    let lines = notes
        .iter()
        .filter(|note| !note.is_expired(now) && watch.wants(note))
        .map(stored_line)
        .filter(|line| watch.is_short(line))
        .collect();
    Ok((lines, more))
}
