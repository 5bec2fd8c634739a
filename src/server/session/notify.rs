//! `notify` and its relatives, and `monitor`: what clients say and see of notifications.
//!
//! Source: at_server:packages/at_secondary_server/lib/src/verb/handler/{notify_verb_handler,monitor_verb_handler}.dart.

use crate::{
    at::{
        AtSign,
        fault::Code,
        metadata::Metadata,
        reply::MAX_LINE,
        verb::{Notify, Operation, Subject},
    },
    server::{
        delivery::{self, Receipt},
        enrolment::Need,
        notification::{MAX_SHOWN, fetched_json, stored_json},
        refusal::{Refusal, refuse},
        store::{
            Tx,
            notes::{DeliveryStatus, Note, NoteKind},
            records::Meta,
        },
    },
    text::{calendar::parse_day, json::Object},
};

use super::{
    outcome::{CommandAnswer, FollowUp, Handled, success},
    pattern,
    state::{Session, Who},
    view::{MonitorView, PAGE, matches, may_see},
};

/// Longest notification id, in bytes.
const MAX_ID: usize = 128;
/// Longest life of a notification, in milliseconds (one year).
const MAX_LIFE: u64 = 366 * 24 * 3600 * 1000;
/// Most bytes of one `notify:list` answer, so that clients read it. The oldest come first.
const MAX_LIST: usize = MAX_LINE - 64 * 1024;
const DAY: u64 = 24 * 3600 * 1000;

impl Session {
    pub(super) fn notify(&mut self, tx: &mut Tx<'_>, given: Notify) -> Handled {
        match &self.who {
            Who::Stranger => Err(refuse(
                Code::Unauthenticated,
                "Notify command cannot be executed without authentication",
            )),
            Who::Peer(caller) => {
                let note = Note {
                    kind: NoteKind::Received,
                    status: DeliveryStatus::Delivered,
                    ..asked_for(tx, &given, caller, &self.home.who, self.now)?
                };
                match delivery::receive(tx, &self.home, note, self.now)? {
                    Receipt::New | Receipt::Known => success(),
                    Receipt::Full => Err(refuse(
                        Code::InternalException,
                        "too many notifications are kept",
                    )),
                    Receipt::TooLong => Err(Refusal::too_long_to_show()),
                    Receipt::Improper => Err(refuse(
                        Code::Unauthorized,
                        "the key is not the sender's, or not for this atSign",
                    )),
                }
            }
            Who::Owner(_) => {
                let note = asked_for(tx, &given, &self.home.who, &self.home.who, self.now)?;
                if !note.is_text {
                    self.owner_of(&note.key.to_lowercase(), "notify", Need::Write)?;
                }
                delivery::queue(tx, &self.home, note, self.now).map(CommandAnswer::Data)
            }
        }
    }

    pub(super) fn notify_all(
        &mut self,
        tx: &mut Tx<'_>,
        to: Vec<AtSign>,
        given: Notify,
    ) -> Handled {
        self.owner()?;
        let mut ids = Object::new();
        for to in to {
            let mut note = asked_for(tx, &given, &self.home.who, &self.home.who, self.now)?;
            // One command, many notifications: each with an id and a key of its own.
            note.id = tx.new_id()?;
            note.key = match note.key.split_once(':') {
                Some((_, rest)) if !note.is_text => format!("{to}:{rest}"),
                _ => format!("{to}:{}", note.key),
            };
            note.to = to;
            self.owner_of(&note.key.to_lowercase(), "notify", Need::Write)?;
            let name = note.to.to_string();
            let id = delivery::queue(tx, &self.home, note, self.now)?;
            ids = ids.text(&name, &id);
        }
        Ok(CommandAnswer::Spaced(ids.end()))
    }

    pub(super) fn notify_status(&self, tx: &Tx<'_>, id: &str) -> Handled {
        self.owner()?;
        let found = self.readable(tx, id)?;
        let status = found.first().map_or("null", |note| match note.status {
            _ if note.is_expired(self.now) => "expired",
            DeliveryStatus::Delivered => "delivered",
            DeliveryStatus::Errored => "errored",
            DeliveryStatus::Queued => "queued",
        });
        Ok(CommandAnswer::Data(status.into()))
    }

    pub(super) fn notify_fetch(&self, tx: &Tx<'_>, id: &str) -> Handled {
        self.owner()?;
        let found = self.readable(tx, id)?;
        let note = found.first().filter(|note| !note.is_expired(self.now));
        Ok(CommandAnswer::Data(note.map_or_else(
            || {
                Object::new()
                    .text("id", id)
                    .text("notificationStatus", "NotificationStatus.expired")
                    .end()
            },
            fetched_json,
        )))
    }

    /// The notes of this id that this connection may read, sent ones first.
    fn readable(&self, tx: &Tx<'_>, id: &str) -> Result<Vec<Note>, Refusal> {
        let mut found = self.home.notes(tx, id)?;
        found.retain(|note| self.grant().is_none_or(|grant| may_see(grant, note)));
        found.sort_by_key(|note| note.kind != NoteKind::Sent);
        Ok(found)
    }

    pub(super) fn notify_remove(&mut self, tx: &mut Tx<'_>, id: &str) -> Handled {
        self.owner()?;
        for note in self.home.notes(tx, id)? {
            if !note.is_text {
                self.owner_of(&note.key.to_lowercase(), "notify:remove", Need::Write)?;
            }
            self.home.drop_note(tx, &note)?;
        }
        success()
    }

    pub(super) fn notify_list(
        &self,
        tx: &Tx<'_>,
        from: Option<&str>,
        to: Option<&str>,
        regex: Option<&str>,
    ) -> Handled {
        self.owner()?;
        let filter = pattern::compile(regex)?;
        let day = |text: Option<&str>| match text {
            Some(text) => parse_day(text)
                .map(Some)
                .ok_or_else(|| refuse(Code::InvalidSyntax, "Invalid syntax. notify:list")),
            None => Ok(None),
        };
        let after = day(from)?.map_or(0, |first| first.saturating_sub(1));
        let until = day(to)?.map_or(u64::MAX - 1, |last| last + DAY - 1);
        let listed = |note: &Note| {
            note.kind == NoteKind::Received
                && !note.is_expired(self.now)
                && self.grant().is_none_or(|grant| may_see(grant, note))
                && matches(filter.as_ref(), note)
        };
        let (mut shown, mut from) = (String::new(), Some(after));
        while let Some(after) = from {
            let (notes, more) = self.home.inbox(tx, after, until, PAGE)?;
            from = more;
            for json in notes.iter().filter(|note| listed(note)).map(stored_json) {
                if json.len() > MAX_SHOWN {
                    continue;
                }
                if shown.len() + json.len() > MAX_LIST {
                    from = None;
                    break;
                }
                let comma = if shown.is_empty() { "" } else { "," };
                shown = shown + comma + &json;
            }
        }
        Ok(CommandAnswer::Data(if shown.is_empty() {
            "null".into()
        } else {
            format!("[{shown}]")
        }))
    }

    pub(super) fn monitor(
        &mut self,
        tx: &Tx<'_>,
        own: bool,
        since: Option<u64>,
        regex: Option<&str>,
    ) -> Handled {
        self.owner()?;
        let watch = MonitorView {
            filter: pattern::compile(regex)?,
            own,
            grant: self.grant().cloned(),
            replay: since,
            until: self.home.last_epoch(tx)?,
            longest: self
                .longest_line
                .map_or(MAX_LINE, |most| most.min(MAX_LINE)),
        };
        self.watching = true;
        Ok(CommandAnswer::Next(FollowUp::Watch(Box::new(watch))))
    }
}

/// What a `notify` command asks for. `sender` sends it; it came to `server`'s own server.
fn asked_for(
    tx: &mut Tx<'_>,
    given: &Notify,
    sender: &AtSign,
    server: &AtSign,
    now: u64,
) -> Result<Note, Refusal> {
    let wrong = |why: &str| refuse(Code::InvalidSyntax, format!("Invalid syntax. {why}"));
    let (to, key, is_text) = subject(&given.subject, sender, server)?;
    let id = match &given.id {
        Some(id) if id.is_empty() || id.len() > MAX_ID => {
            return Err(wrong("notification id"));
        }
        Some(id) => id.clone(),
        None => tx.new_id()?,
    };
    let mut note = Note::new(id, sender, &to, key);
    note.is_text = is_text;
    note.operation = given.operation.unwrap_or_default();
    note.value.clone_from(&given.value);
    if let Some(strategy) = &given.strategy {
        if strategy == "latest" && given.notifier.is_none() {
            return Err(wrong("strategy latest needs a notifier"));
        }
        note.strategy.clone_from(strategy);
    }
    note.depth = given.latest_n.unwrap_or(1);
    if let Some(priority) = &given.priority {
        note.priority.clone_from(priority);
    }
    if let Some(notifier) = &given.notifier {
        note.notifier.clone_from(notifier);
    }
    if let Some(life) = given.ttln.filter(|life| *life > 0) {
        note.ttln = life.min(MAX_LIFE);
    }
    let asked = given.metadata.is_encrypted;
    note.is_encrypted = if is_text {
        asked.unwrap_or(false)
    } else {
        asked != Some(false) && !note.key.starts_with("public")
    };
    note.meta = meta(given, note.is_encrypted, now)?;
    Ok(note)
}

fn meta(given: &Notify, is_encrypted: bool, now: u64) -> Result<Meta, Refusal> {
    if given.metadata.ttr.is_some_and(|ttr| ttr < -1) {
        return Err(refuse(Code::InvalidSyntax, "Invalid syntax. ttr"));
    }
    let operation = given.operation.unwrap_or_default();
    let caches = operation == Operation::Delete || given.value.is_some();
    let metadata = Metadata {
        is_encrypted: Some(is_encrypted),
        ttr: given.metadata.ttr.filter(|_| caches),
        ..given.metadata.clone()
    };
    Ok(Meta::merged(None, &metadata, now))
}

/// Whom it goes to, what it is called, and whether it is a text.
fn subject(
    subject: &Subject,
    sender: &AtSign,
    server: &AtSign,
) -> Result<(AtSign, String, bool), Refusal> {
    match subject {
        Subject::Text { to, text } => {
            // Some clients sign a text like a key.
            let bare = text.strip_suffix(sender.as_str()).unwrap_or(text);
            let text = if bare.is_empty() { text } else { bare };
            Ok((to.clone(), format!("{to}:{text}"), true))
        }
        Subject::Key { to, key } => {
            let key = key.clone().owned_by(sender);
            if let Some(owner) = key.owner.as_ref().filter(|owner| *owner != sender) {
                let text = format!("{owner} is not authorized to send notification as {sender}");
                return Err(refuse(Code::Unauthorized, text));
            }
            let to = to.as_ref().or(key.with()).unwrap_or(server);
            Ok((to.clone(), key.to_string(), false))
        }
    }
}
