//! Enrolments (APKAM): one more device of an atSign, with a key and rights of its own. No I/O: rows and rules.
//!
//! ```text
//!   request ─▶ pending ─▶ approve ─▶ approved ─▶ revoke ─▶ revoked ─▶ delete
//!                 └─▶ deny ─▶ denied ─▶ delete      └─◀─ unrevoke ─◀─┘
//! ```
//!
//! Here: the enrolments and their rows. `keys`: what the keys are called. `grant`: what a connection that came with one
//! may do.
//!
//! Source: at_server:packages/at_secondary_server/lib/src/enroll and
//! at_server:packages/at_secondary_server/lib/src/verb/handler/abstract_verb_handler.dart.

use std::collections::BTreeMap;

use miniserde::{
    Deserialize, Serialize,
    json::{self, Value},
};

use crate::at::metadata::Metadata;

use super::store::{
    Rows, StoreError, Tx,
    log::Change,
    records::{Logged, Meta, Record},
    register::Home,
};
use crate::text::json::Object;

pub use grant::{Grant, Need};
use keys::ROW;
pub use keys::{KEPT, MANAGE, default_keys_of, id_of, key_of, own_data};

mod grant;
mod keys;

/// How long a request may wait for approval, in milliseconds.
pub const PENDING_LIFE: u64 = 48 * 3600 * 1000;
/// How long it can be seen what an enrolment that has expired said about itself, in milliseconds.
const MEMORY: u64 = 30 * 24 * 3600 * 1000;
/// Most enrolments of one atSign, in any state.
pub const MAX_ENROLLMENTS: usize = 1000;

/// Moves what an enrolment says about itself, as from `a` to `r`: readers see what became of it.
///
/// # Errors
/// When the store fails.
pub fn move_data(
    tx: &mut Tx<'_>,
    home: &Home,
    id: &str,
    (from, to): (&str, &str),
    now: u64,
) -> Result<(), StoreError> {
    let mut found = Vec::new();
    home.records(tx, "", &mut |key, _| {
        if own_data(key) == Some((id, from)) {
            found.push(key.to_owned());
        }
        true
    })?;
    let (old_end, new_end) = (
        format!(".{id}.{from}.__e{}", home.who),
        format!(".{id}.{to}.__e{}", home.who),
    );
    for old in found {
        let (Some(name), Some(mut record)) = (old.strip_suffix(&old_end), home.record(tx, &old)?)
        else {
            continue;
        };
        record.meta.updated_at = now;
        if to == "d" && record.meta.expires_at.is_some() {
            // It ended with its enrolment; that it did is to be seen for a while.
            record.meta.items.ttl = Some(MEMORY);
            record.meta.expires_at = Some(now.saturating_add(MEMORY));
        }
        let new = format!("{name}{new_end}");
        home.put(tx, &new, &record, Change::Update, Logged::ByKey)?;
        home.erase(tx, &old)?;
        home.log(tx, &old, Change::Delete, now)?;
    }
    Ok(())
}

/// Where an enrolment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum EnrolmentState {
    Pending,
    Approved,
    Denied,
    Revoked,
}

impl EnrolmentState {
    const ALL: [Self; 4] = [Self::Pending, Self::Approved, Self::Denied, Self::Revoked];

    /// The wire's word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Approved => "approved",
            Self::Denied => "denied",
            Self::Revoked => "revoked",
        }
    }
    /// From the wire's word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.word() == word)
    }
}

/// One enrolment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct StoredEnrolment {
    pub id: String,
    pub app: String,
    pub device: String,
    pub namespaces: BTreeMap<String, String>,
    pub public_key: String,
    pub state: EnrolmentState,
    pub symmetric_key: Option<String>,
    /// The signing keys it publishes once approved.
    pub signing_keys: Option<String>,
    /// How `public_key` signs, in the wire's word; absent is what a login says.
    pub signing_algo: Option<String>,
    /// A JSON object that its own device writes and others of its namespaces read.
    pub metadata: Option<String>,
    /// When it was last revoked, milliseconds since 1970.
    pub revoked_at: Option<u64>,
    /// Milliseconds; 0 or absent is for ever.
    pub life: Option<u64>,
    /// Milliseconds since 1970.
    pub expires_at: Option<u64>,
}

/// The stored form.
#[derive(Serialize, Deserialize)]
struct Wire {
    #[serde(rename = "appName")]
    app: String,
    #[serde(rename = "deviceName")]
    device: String,
    namespaces: BTreeMap<String, String>,
    #[serde(rename = "apkamPublicKey")]
    public_key: String,
    #[serde(rename = "requestType")]
    request_type: String,
    approval: WireApproval,
    #[serde(rename = "encryptedAPKAMSymmetricKey")]
    symmetric_key: Option<String>,
    #[serde(rename = "apsk")]
    signing_keys: Option<String>,
    #[serde(rename = "apkamKeysExpiryInMillis")]
    life: Option<u64>,
    #[serde(rename = "signingAlgo")]
    signing_algo: Option<String>,
    metadata: Option<Value>,
    #[serde(rename = "revokedAt")]
    revoked_at: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct WireApproval {
    state: String,
}

impl StoredEnrolment {
    /// What connections of this enrolment may do.
    pub fn grant(&self) -> Grant {
        Grant {
            id: self.id.clone(),
            namespaces: self.namespaces.clone(),
            expires_at: self.expires_at,
        }
    }

    /// As `enroll:list` and `enroll:fetch` show it.
    pub fn to_json(&self) -> String {
        let shown = Object::new()
            .text("appName", &self.app)
            .text("deviceName", &self.device)
            .raw("namespace", json::to_string(&self.namespaces))
            .maybe("encryptedAPKAMSymmetricKey", self.symmetric_key.as_deref());
        let shown = match &self.metadata {
            Some(metadata) => shown.raw("metadata", metadata),
            None => shown,
        };
        shown.text("status", self.state.word()).end()
    }

    /// Its right in this namespace: `r` or `rw`. One that is named counts before `*`.
    pub fn access(&self, namespace: &str) -> Option<&str> {
        let named = self.namespaces.iter().find(|(granted, _)| {
            *granted == namespace
                || namespace
                    .strip_suffix(granted.as_str())
                    .is_some_and(|rest| rest.ends_with('.'))
        });
        let all = || self.namespaces.get("*").filter(|_| namespace != MANAGE);
        named
            .map(|(_, right)| right)
            .or_else(all)
            .map(String::as_str)
    }

    /// As it is stored, and as `info` shows a connection its own.
    pub fn stored_json(&self) -> String {
        json::to_string(&Wire {
            app: self.app.clone(),
            device: self.device.clone(),
            namespaces: self.namespaces.clone(),
            public_key: self.public_key.clone(),
            request_type: "newEnrollment".into(),
            approval: WireApproval {
                state: self.state.word().into(),
            },
            symmetric_key: self.symmetric_key.clone(),
            signing_keys: self.signing_keys.clone(),
            life: self.life,
            signing_algo: self.signing_algo.clone(),
            metadata: self
                .metadata
                .as_deref()
                .and_then(|text| json::from_str(text).ok()),
            revoked_at: self.revoked_at,
        })
    }

    /// Writes it, to live for `life` milliseconds from now, or for ever.
    ///
    /// # Errors
    /// When the store fails.
    pub fn save(
        &self,
        tx: &mut Tx<'_>,
        home: &Home,
        life: Option<u64>,
        now: u64,
    ) -> Result<(), StoreError> {
        let given = Metadata {
            ttl: life.filter(|life| *life > 0),
            ..Metadata::default()
        };
        let record = Record {
            value: self.stored_json(),
            meta: Meta::merged(None, &given, now),
        };
        let key = key_of(home, &self.id);
        home.put(tx, &key, &record, Change::Update, Logged::Never)?;
        Ok(())
    }
}

/// A key that a device keeps here by the `keys` command.
#[derive(Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Kept {
    pub value: Option<String>,
    #[serde(rename = "keyType")]
    pub key_type: Option<String>,
    #[serde(rename = "enrollmentId")]
    pub enrollment: Option<String>,
    #[serde(rename = "encryptionKeyName")]
    pub encryption_key_name: Option<String>,
}

/// Whether this record is a key that this enrolment keeps here.
pub fn is_kept_by(id: &str, name: &str, record: &Record) -> bool {
    KEPT.iter().any(|(_, part)| name.contains(part))
        && json::from_str::<Kept>(&record.value)
            .is_ok_and(|kept| kept.enrollment.as_deref() == Some(id))
}

/// The names of the keys that this enrolment keeps here, ascending.
///
/// # Errors
/// When the store fails.
pub fn kept_by(rows: &dyn Rows, home: &Home, id: &str) -> Result<Vec<String>, StoreError> {
    let mut names = Vec::new();
    home.records(rows, "", &mut |key, _| {
        if KEPT.iter().any(|(_, part)| key.contains(part)) {
            names.push(key.to_owned());
        }
        true
    })?;
    let mut own = Vec::new();
    for name in names {
        let record = home.record(rows, &name)?;
        if record.is_some_and(|record| is_kept_by(id, &name, &record)) {
            own.push(name);
        }
    }
    Ok(own)
}

/// An enrolment is over, deleted or expired: what it says about itself is moved there, and the keys it keeps here go.
///
/// # Errors
/// When the store fails.
pub fn end(tx: &mut Tx<'_>, home: &Home, id: &str, now: u64) -> Result<(), StoreError> {
    for from in ["a", "r"] {
        move_data(tx, home, id, (from, "d"), now)?;
    }
    for name in kept_by(tx, home, id)? {
        home.erase(tx, &name)?;
    }
    Ok(())
}

/// One that has not expired.
///
/// # Errors
/// When the store fails.
pub fn find(
    rows: &dyn Rows,
    home: &Home,
    id: &str,
    now: u64,
) -> Result<Option<StoredEnrolment>, StoreError> {
    let id = id.to_lowercase();
    match home.live(rows, &key_of(home, &id), now)? {
        Some(record) => parse(&id, &record).map(Some),
        None => Ok(None),
    }
}

/// As [`find`], with those that have expired, too, as long as the store has them; `true` beside one that has not.
///
/// # Errors
/// When the store fails.
pub fn find_or_over(
    rows: &dyn Rows,
    home: &Home,
    id: &str,
    now: u64,
) -> Result<Option<(StoredEnrolment, bool)>, StoreError> {
    let id = id.to_lowercase();
    match home.record(rows, &key_of(home, &id))? {
        Some(record) => Ok(Some((parse(&id, &record)?, record.meta.is_live(now)))),
        None => Ok(None),
    }
}

/// All that have not expired, by id.
///
/// # Errors
/// When the store fails.
pub fn all(rows: &dyn Rows, home: &Home, now: u64) -> Result<Vec<StoredEnrolment>, StoreError> {
    let end = format!("{ROW}{}", home.who);
    let mut ids = Vec::new();
    home.records(rows, "", &mut |key, meta| {
        if let Some(id) = key.strip_suffix(&end).filter(|_| meta.is_live(now)) {
            ids.push(id.to_owned());
        }
        true
    })?;
    let found = ids.iter().map(|id| find(rows, home, id, now));
    Ok(found
        .collect::<Result<Vec<_>, _>>()?
        .into_iter()
        .flatten()
        .collect())
}

fn parse(id: &str, record: &Record) -> Result<StoredEnrolment, StoreError> {
    let row: Wire = json::from_str(&record.value).map_err(|_| StoreError::Row)?;
    Ok(StoredEnrolment {
        id: id.to_owned(),
        app: row.app,
        device: row.device,
        namespaces: row.namespaces,
        public_key: row.public_key,
        state: EnrolmentState::parse(&row.approval.state).ok_or(StoreError::Row)?,
        symmetric_key: row.symmetric_key,
        signing_keys: row.signing_keys,
        life: row.life,
        signing_algo: row.signing_algo,
        metadata: row.metadata.map(|metadata| json::to_string(&metadata)),
        revoked_at: row.revoked_at,
        expires_at: record.meta.expires_at,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
