//! `notify` and its relatives, and `monitor`: what clients say and see of notifications.
//!
//! Source: at_server:packages/at_secondary_server/lib/src/verb/handler/{notify_verb_handler,monitor_verb_handler}.dart.

use regex_lite::Regex;

use crate::{
    at::{
        AtSign,
        fault::Code,
        metadata::{Item, Metadata},
        verb::{Notify, Operation, Subject},
    },
    server::{
        delivery::{self, DEFAULT_LIFE, Draft, Receipt},
        enrolment::{Grant, Need},
        store::{
            Rows, StoreError, Tx,
            notes::{DeliveryStatus, Note, NoteKind},
            records::Meta,
            register::Home,
        },
    },
    text::{
        calendar::{date, parse_day},
        json::Object,
    },
};

use super::{
    CommandAnswer, FollowUp, Handled, MAX_LINE, Refusal, Session, Who, pattern, refuse, success,
};

/// Longest notification id, in bytes.
const MAX_ID: usize = 128;
/// Longest life of a notification, in milliseconds (one year).
const MAX_LIFE: u64 = 366 * 24 * 3600 * 1000;
/// Most bytes of one `notify:list` answer, so that clients read it. The oldest come first.
const MAX_LIST: usize = MAX_LINE - 64 * 1024;
/// Longest line of a monitor. What is set later, when it is stored, makes a few bytes.
const MAX_SHOWN: usize = MAX_LINE - 1024;
/// Bytes that JSON makes of one at most: `\u0001`.
const ESCAPED: u64 = 6;
/// About how many bytes of replay are read at a time.
const PAGE: u64 = 256 * 1024;
const DAY: u64 = 24 * 3600 * 1000;

impl Session {
    pub(super) fn notify(&mut self, tx: &mut Tx<'_>, given: Notify, now: u64) -> Handled {
        match &self.who {
            Who::Stranger => Err(refuse(
                Code::Unauthenticated,
                "Notify command cannot be executed without authentication",
            )),
            Who::Peer(caller) => {
                let draft = draft(tx, &given, caller, &self.home.who, now)?;
                let note = draft.note(NoteKind::Received, DeliveryStatus::Delivered);
                match delivery::receive(tx, &self.home, note, now)? {
                    Receipt::New | Receipt::Known => success(),
                    Receipt::Full => Err(refuse(
                        Code::InternalException,
                        "too many notifications are kept",
                    )),
                    Receipt::TooLong => Err(too_long()),
                    Receipt::Improper => Err(refuse(
                        Code::Unauthorized,
                        "the key is not the sender's, or not for this atSign",
                    )),
                }
            }
            Who::Owner(_) => {
                let draft = draft(tx, &given, &self.home.who, &self.home.who, now)?;
                if !draft.is_text {
                    self.owner_of(&draft.key.to_lowercase(), "notify", Need::Write)?;
                }
                delivery::queue(tx, &self.home, draft, now).map(CommandAnswer::Data)
            }
        }
    }

    pub(super) fn notify_all(
        &mut self,
        tx: &mut Tx<'_>,
        to: Vec<AtSign>,
        given: Notify,
        now: u64,
    ) -> Handled {
        self.owner()?;
        let mut ids = Object::new();
        for to in to {
            let mut draft = draft(tx, &given, &self.home.who, &self.home.who, now)?;
            // One command, many notifications: each with an id and a key of its own.
            draft.id = tx.new_id()?;
            draft.key = match draft.key.split_once(':') {
                Some((_, rest)) if !draft.is_text => format!("{to}:{rest}"),
                _ => format!("{to}:{}", draft.key),
            };
            draft.to = to;
            self.owner_of(&draft.key.to_lowercase(), "notify", Need::Write)?;
            let name = draft.to.to_string();
            let id = delivery::queue(tx, &self.home, draft, now)?;
            ids = ids.text(&name, &id);
        }
        Ok(CommandAnswer::Spaced(ids.end()))
    }

    pub(super) fn notify_status(&self, tx: &Tx<'_>, id: &str, now: u64) -> Handled {
        self.owner()?;
        let found = self.readable(tx, id)?;
        let status = found.first().map_or("null", |note| match note.status {
            _ if note.is_expired(now) => "expired",
            DeliveryStatus::Delivered => "delivered",
            DeliveryStatus::Errored => "errored",
            DeliveryStatus::Queued => "queued",
        });
        Ok(CommandAnswer::Data(status.into()))
    }

    pub(super) fn notify_fetch(&self, tx: &Tx<'_>, id: &str, now: u64) -> Handled {
        self.owner()?;
        let found = self.readable(tx, id)?;
        let note = found.first().filter(|note| !note.is_expired(now));
        Ok(CommandAnswer::Data(note.map_or_else(
            || {
                Object::new()
                    .text("id", id)
                    .text("notificationStatus", "NotificationStatus.expired")
                    .end()
            },
            fetched,
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
        now: u64,
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
                && !note.is_expired(now)
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

/// What a monitor wants, and where its replay ends.
#[derive(Clone, Debug)]
pub struct MonitorView {
    filter: Option<Regex>,
    /// Also what the server tells its own owner.
    own: bool,
    grant: Option<Grant>,
    /// Replay what came after this time; `None`: no replay.
    pub replay: Option<u64>,
    /// The newest time at the start. With a replay, live notifications up to it were part of the replay.
    pub until: u64,
    /// Longer lines are left out: the client would only pass them over. An earlier version of this server took in what
    /// no client can read.
    longest: usize,
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

fn matches(filter: Option<&Regex>, note: &Note) -> bool {
    pattern::found(filter, &note.key) || pattern::found(filter, note.from.bare())
}

fn may_see(grant: &Grant, note: &Note) -> bool {
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

/// A notification as a monitor sees it the moment it arrives.
pub fn live_line(note: &Note) -> String {
    let metadata = encryption(&note.meta)
        .maybe("sharedKeyEnc", text(&note.meta.items.shared_key_enc))
        .end();
    format!("notification: {}\n", json(note, &metadata))
}

/// Whether no monitor could be shown it, with all that JSON makes of it.
pub(in crate::server) fn is_too_long(note: &Note) -> bool {
    let most = note.size().saturating_mul(ESCAPED) + 64 * 1024;
    most > MAX_SHOWN as u64 && live_line(note).len().max(stored_json(note).len()) > MAX_SHOWN
}

/// To whoever sends such a one. The sender's server tries no more, and goes on with the next.
pub(in crate::server) fn too_long() -> Refusal {
    let text = "the notification is longer than a monitor can be shown";
    Refusal {
        close: false,
        ..refuse(Code::BufferLimit, text)
    }
}

/// The sign of life that monitors get now and then, with the newest commit id.
pub fn stats_line(who: &AtSign, last_commit: Option<u64>, now: u64) -> String {
    let last = last_commit.map_or_else(|| "-1".to_owned(), |id| id.to_string());
    let stats = Object::new()
        .text("id", "-1")
        .text("from", who.as_str())
        .text("to", who.as_str())
        .text("key", &format!("statsNotification.{who}"))
        .text("value", &last)
        .text("operation", "update")
        .raw("epochMillis", now)
        .text("messageType", "MessageType.key")
        .raw("isEncrypted", false)
        .raw("metadata", "null");
    format!("notification: {}\n", stats.end())
}

/// A notification as a monitor sees it when it is replayed.
pub fn stored_line(note: &Note) -> String {
    format!("notification: {}\n", stored_json(note))
}

/// As replayed and listed.
fn stored_json(note: &Note) -> String {
    let time = |at: Option<u64>| at.map_or_else(|| "null".to_owned(), date);
    let metadata = encryption(&note.meta)
        .text("availableAt", &time(note.meta.available_at))
        .text("expiresAt", &time(note.meta.expires_at))
        .end();
    json(note, &metadata)
}

fn encryption(meta: &Meta) -> Object {
    let items = &meta.items;
    Object::new()
        .maybe("encKeyName", text(&items.enc_key_name))
        .maybe("encAlgo", text(&items.enc_algo))
        .maybe("ivNonce", text(&items.iv_nonce))
        .maybe("skeEncKeyName", text(&items.ske_enc_key_name))
        .maybe("skeEncAlgo", text(&items.ske_enc_algo))
}

fn text(item: &Option<Item>) -> Option<&str> {
    item.as_ref().and_then(Item::value)
}

fn json(note: &Note, metadata: &str) -> String {
    Object::new()
        .text("id", &note.id)
        .text("from", note.from.as_str())
        .text("to", note.to.as_str())
        .text("key", &note.key)
        .maybe("value", note.value.as_deref())
        .text("operation", &note.operation.to_string())
        .raw("epochMillis", note.epoch_millis)
        .text("messageType", message_type(note))
        .raw("isEncrypted", note.is_encrypted)
        .raw("metadata", metadata)
        .end()
}

fn message_type(note: &Note) -> &'static str {
    if note.is_text {
        "MessageType.text"
    } else {
        "MessageType.key"
    }
}

/// The answer of `notify:fetch`: every value is text.
fn fetched(note: &Note) -> String {
    let kind = match note.kind {
        NoteKind::Sent => "NotificationType.sent",
        NoteKind::Received => "NotificationType.received",
        NoteKind::Own => "NotificationType.self",
    };
    let status = match note.status {
        DeliveryStatus::Queued => "queued",
        DeliveryStatus::Delivered => "delivered",
        DeliveryStatus::Errored => "errored",
    };
    let ttl = note
        .meta
        .items
        .ttl
        .map_or_else(|| "null".to_owned(), |ttl| ttl.to_string());
    Object::new()
        .text("id", &note.id)
        .text("fromAtSign", note.from.as_str())
        .text("notificationDateTime", &date(note.epoch_millis))
        .text("toAtSign", note.to.as_str())
        .text("notification", &note.key)
        .text("type", kind)
        .text("opType", &format!("OperationType.{}", note.operation))
        .text("messageType", message_type(note))
        .text(
            "priority",
            &format!("NotificationPriority.{}", note.priority),
        )
        .text(
            "notificationStatus",
            &format!("NotificationStatus.{status}"),
        )
        // Counted from one there.
        .text("retryCount", &(note.retries + 1).to_string())
        .text("strategy", &note.strategy)
        .text("depth", &note.depth.to_string())
        .text("notifier", &note.notifier)
        .text("expiresAt", &date(note.expires_at))
        .text("atValue", note.value.as_deref().unwrap_or("null"))
        .text("atMetadata", &note.meta.to_json(note.from.as_str()))
        .text("ttl", &ttl)
        .end()
}

/// What a `notify` command asks for. `sender` sends it; it came to `server`'s own server.
fn draft(
    tx: &mut Tx<'_>,
    given: &Notify,
    sender: &AtSign,
    server: &AtSign,
    now: u64,
) -> Result<Draft, Refusal> {
    let wrong = |why: &str| refuse(Code::InvalidSyntax, format!("Invalid syntax. {why}"));
    let (to, key, is_text) = subject(&given.subject, sender, server)?;
    let id = match &given.id {
        Some(id) if id.is_empty() || id.len() > MAX_ID => {
            return Err(wrong("notification id"));
        }
        Some(id) => id.clone(),
        None => tx.new_id()?,
    };
    let mut draft = Draft::new(id, sender, &to, key);
    draft.is_text = is_text;
    draft.operation = given.operation.unwrap_or_default();
    draft.value.clone_from(&given.value);
    if let Some(strategy) = &given.strategy {
        if strategy == "latest" && given.notifier.is_none() {
            return Err(wrong("strategy latest needs a notifier"));
        }
        draft.strategy.clone_from(strategy);
    }
    draft.depth = given.latest_n.unwrap_or(1);
    if let Some(priority) = &given.priority {
        draft.priority.clone_from(priority);
    }
    if let Some(notifier) = &given.notifier {
        draft.notifier.clone_from(notifier);
    }
    draft.ttln = given
        .ttln
        .filter(|life| *life > 0)
        .unwrap_or(DEFAULT_LIFE)
        .min(MAX_LIFE);
    let asked = given.metadata.is_encrypted;
    draft.is_encrypted = if is_text {
        asked.unwrap_or(false)
    } else {
        asked != Some(false) && !draft.key.starts_with("public")
    };
    draft.meta = meta(given, draft.is_encrypted, now)?;
    Ok(draft)
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
