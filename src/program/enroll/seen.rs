//! Enrolments as they were last seen, for completions, which must not wait for a server.
//!
//! ```text
//!   ~/.cache/noports/enrolments/@alice      pending <tab> c3a9f7d2-… <tab> noports on kitchen
//! ```
//! Only a help for whoever types: nothing is decided by it, and losing it does no harm.

use std::{env, path::PathBuf};

use super::{action::Action, show};
use crate::{
    at::{AtSign, enrolment::Enrollment},
    sys::{file::text_now, paths},
};

/// Most enrolments of one atSign that are kept.
const MOST: usize = 200;
/// Longest file that is read, in bytes.
const MAX_FILE: u64 = 64 * 1024;

/// Keeps what a server listed; `status`: it was asked for these only, and the others stay as they were.
pub(super) fn keep(who: &AtSign, status: Option<&str>, listed: &[Enrollment]) {
    let mut rows = match status {
        Some(status) => rows(who)
            .into_iter()
            .filter(|row| row.0 != status)
            .collect(),
        None => Vec::new(),
    };
    rows.extend(listed.iter().map(|one| {
        let about = format!("{} on {}", show::shown(&one.app), show::shown(&one.device));
        (one.status.clone(), one.id.clone(), about)
    }));
    write(who, rows);
}

/// Forgets one about which something was decided.
pub(super) fn forget(who: &AtSign, id: &str) {
    let mut rows = rows(who);
    rows.retain(|row| row.1 != id);
    write(who, rows);
}

/// Short ids of those that `noports enroll WORD` can be about, and what each is.
pub(in crate::program) fn codes(who: &AtSign, word: &str) -> Vec<(String, String)> {
    let states = Action::named(word).map_or(&[][..], Action::applies_to);
    let fits = |status: &str| states.is_empty() || states.contains(&status);
    rows(who)
        .into_iter()
        .filter(|row| fits(&row.0))
        .map(|(_, id, about)| (show::code(&id), about))
        .collect()
}

/// Status, id and what it is.
type Row = (String, String, String);

fn rows(who: &AtSign) -> Vec<Row> {
    let row = |line: &str| {
        let mut columns = line.split('\t').map(str::to_owned);
        Some((columns.next()?, columns.next()?, columns.next()?))
    };
    let text = file(who).and_then(|path| text_now(&path, MAX_FILE).ok());
    let text = text.unwrap_or_default();
    text.lines().filter_map(row).collect()
}

fn write(who: &AtSign, mut rows: Vec<Row>) {
    let clean = |text: &str| !text.chars().any(char::is_control);
    rows.retain(|row| clean(&row.0) && clean(&row.1) && clean(&row.2));
    rows.truncate(MOST);
    let lines = rows
        .iter()
        .map(|(status, id, about)| format!("{status}\t{id}\t{about}\n"));
    let text: String = lines.collect();
    if let Some(path) = file(who)
        && let Some(folder) = path.parent()
        && paths::private_folder(folder).is_ok()
        && let Err(why) = paths::atomic_write(&path, text.as_bytes(), 0o600)
    {
        log::debug!("seen=\"{why}\"");
    }
}

fn file(who: &AtSign) -> Option<PathBuf> {
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.filter(|folder| folder.is_absolute());
    let cache = cache.or_else(|| Some(paths::home()?.join(".cache")))?;
    Some(cache.join("noports/enrolments").join(who.as_str()))
}
