//! ○ One notification, and the row it is stored as.

use miniserde::{Deserialize, Serialize, json};

use crate::{
    at::{AtSign, verb::Operation},
    server::store::{meta::Meta, rows},
};

/// Why an atSign has this notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum NoteKind {
    Sent,
    Received,
    /// Made by the server for its own owner: enrolment requests.
    Own,
}

/// How far a sent notification is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum DeliveryStatus {
    Queued,
    Delivered,
    /// An attempt failed; there may be more.
    Errored,
}

/// One notification.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Note {
    pub id: String,
    pub from: AtSign,
    pub to: AtSign,
    /// The whole key or text: `@to:entity@from`.
    pub key: String,
    pub value: Option<String>,
    pub operation: Operation,
    pub is_text: bool,
    pub is_encrypted: bool,
    pub kind: NoteKind,
    pub status: DeliveryStatus,
    pub priority: String,
    pub strategy: String,
    pub depth: u32,
    pub notifier: String,
    /// Life in milliseconds.
    pub ttln: u64,
    /// When this server stored it; strictly increasing per receiver.
    pub epoch_millis: u64,
    pub expires_at: u64,
    pub retries: u32,
    /// The row in the outbox, while it waits.
    pub place: u64,
    pub meta: Meta,
}

/// Life of a notification that does not say, in milliseconds.
const DEFAULT_LIFE: u64 = 15 * 60 * 1000;
/// Bytes of metadata that are not counted: the usual ones have a few hundred. A sender can make them megabytes.
const USUAL: usize = 2048;

impl Note {
    /// An update about `key` that waits to be sent, with everything else as it is when a command says nothing.
    pub fn new(id: String, from: &AtSign, to: &AtSign, key: String) -> Self {
        Self {
            id,
            from: from.clone(),
            to: to.clone(),
            key,
            value: None,
            operation: Operation::Update,
            is_text: false,
            is_encrypted: true,
            kind: NoteKind::Sent,
            status: DeliveryStatus::Queued,
            priority: "low".into(),
            strategy: "all".into(),
            depth: 1,
            notifier: "SYSTEM".into(),
            ttln: DEFAULT_LIFE,
            epoch_millis: 0,
            expires_at: 0,
            retries: 0,
            place: 0,
            meta: Meta::default(),
        }
    }

    /// Whether its life is over.
    pub fn is_expired(&self, now: u64) -> bool {
        self.expires_at <= now
    }

    /// What it counts for in a box, in bytes: all that its sender chose, about.
    pub fn size(&self) -> u64 {
        let value = self.value.as_ref().map_or(0, String::len);
        let more = self.meta.text_bytes() + self.notifier.len() + self.priority.len();
        (self.key.len() + value + 512 + more.saturating_sub(USUAL)) as u64
    }

    pub(super) fn pack(&self) -> Vec<u8> {
        let head = Head {
            id: self.id.clone(),
            from: self.from.to_string(),
            to: self.to.to_string(),
            key: self.key.clone(),
            update: self.operation == Operation::Update,
            text: self.is_text,
            encrypted: self.is_encrypted,
            valued: self.value.is_some(),
            kind: self.kind,
            status: self.status,
            priority: self.priority.clone(),
            strategy: self.strategy.clone(),
            depth: self.depth,
            notifier: self.notifier.clone(),
            ttln: self.ttln,
            epoch: self.epoch_millis,
            expires: self.expires_at,
            retries: self.retries,
            place: self.place,
        };
        rows::pack(&[
            json::to_string(&head).as_bytes(),
            self.meta.to_row().as_bytes(),
            self.value.as_deref().unwrap_or_default().as_bytes(),
        ])
    }

    pub(super) fn unpack(row: &[u8]) -> Option<Self> {
        let [_, meta, value] = rows::unpack(row)?;
        let head = Head::of(row)?;
        Some(Self {
            id: head.id,
            from: head.from.parse().ok()?,
            to: head.to.parse().ok()?,
            key: head.key,
            value: if head.valued {
                Some(str::from_utf8(value).ok()?.to_owned())
            } else {
                None
            },
            operation: if head.update {
                Operation::Update
            } else {
                Operation::Delete
            },
            is_text: head.text,
            is_encrypted: head.encrypted,
            kind: head.kind,
            status: head.status,
            priority: head.priority,
            strategy: head.strategy,
            depth: head.depth,
            notifier: head.notifier,
            ttln: head.ttln,
            epoch_millis: head.epoch,
            expires_at: head.expires,
            retries: head.retries,
            place: head.place,
            meta: Meta::from_row(meta).ok()?,
        })
    }
}

/// The stored form of everything but metadata and value.
#[derive(Serialize, Deserialize)]
pub(super) struct Head {
    id: String,
    from: String,
    to: String,
    key: String,
    pub(super) update: bool,
    pub(super) text: bool,
    encrypted: bool,
    valued: bool,
    pub(super) kind: NoteKind,
    pub(super) status: DeliveryStatus,
    priority: String,
    strategy: String,
    depth: u32,
    notifier: String,
    ttln: u64,
    epoch: u64,
    expires: u64,
    retries: u32,
    place: u64,
}

impl Head {
    pub(super) fn of(row: &[u8]) -> Option<Self> {
        let [head, _, _] = rows::unpack::<3>(row)?;
        json::from_str(str::from_utf8(head).ok()?).ok()
    }
}
