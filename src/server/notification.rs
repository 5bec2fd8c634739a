//! A notification as clients are shown it: the lines of a monitor, and the answers of `notify:fetch` and `notify:list`.

use crate::{
    at::{AtSign, metadata::Item, reply::MAX_LINE},
    text::{calendar::date, json::Object},
};

use super::store::{
    notes::{DeliveryStatus, Note, NoteKind},
    records::Meta,
};

/// Longest line of a monitor. What is set later, when it is stored, makes a few bytes.
pub(super) const MAX_SHOWN: usize = MAX_LINE - 1024;
/// Bytes that JSON makes of one at most: `\u0001`.
const ESCAPED: u64 = 6;

/// A notification as a monitor sees it the moment it arrives.
pub fn live_line(note: &Note) -> String {
    let metadata = encryption(&note.meta)
        .maybe("sharedKeyEnc", text(&note.meta.items.shared_key_enc))
        .end();
    format!("notification: {}\n", json(note, &metadata))
}

/// Whether no monitor could be shown it, with all that JSON makes of it.
pub(super) fn is_too_long(note: &Note) -> bool {
    let most = note.size().saturating_mul(ESCAPED) + 64 * 1024;
    most > MAX_SHOWN as u64 && live_line(note).len().max(stored_json(note).len()) > MAX_SHOWN
}

/// The sign of life that monitors get now and then, with the newest commit id.
pub(super) fn stats_line(who: &AtSign, last_commit: Option<u64>, now: u64) -> String {
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

/// A notification as it is replayed and listed.
pub(super) fn stored_json(note: &Note) -> String {
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
pub(super) fn fetched_json(note: &Note) -> String {
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
