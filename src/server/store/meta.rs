//! The metadata beside a value: merged on every write, kept as JSON, shown in the wire's order.

use miniserde::{Deserialize, json};

use crate::at::metadata::{Item, Metadata};

use super::StoreError;
use crate::text::{calendar::date, json::Object};

/// Stored metadata. Times are milliseconds since 1970; the rest is as the wire has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[allow(missing_docs)] // the field names are the wire's own words
pub struct Meta {
    #[serde(rename = "createdAt")]
    pub created_at: u64,
    #[serde(rename = "updatedAt")]
    pub updated_at: u64,
    #[serde(rename = "availableAt")]
    pub available_at: Option<u64>,
    #[serde(rename = "expiresAt")]
    pub expires_at: Option<u64>,
    #[serde(rename = "refreshAt")]
    pub refresh_at: Option<u64>,
    pub version: u64,
    pub ttl: Option<u64>,
    pub ttb: Option<u64>,
    pub ttr: Option<i64>,
    pub ccd: Option<bool>,
    #[serde(rename = "isBinary")]
    pub is_binary: Option<bool>,
    #[serde(rename = "isEncrypted")]
    pub is_encrypted: Option<bool>,
    #[serde(rename = "dataSignature")]
    pub data_signature: Option<String>,
    #[serde(rename = "sharedKeyStatus")]
    pub shared_key_status: Option<String>,
    #[serde(rename = "sharedKeyEnc")]
    pub shared_key_enc: Option<String>,
    #[serde(rename = "pubKeyCS")]
    pub pub_key_cs: Option<String>,
    #[serde(rename = "pubKeyHash")]
    pub pub_key_hash: Option<String>,
    #[serde(rename = "hashingAlgo")]
    pub hashing_algo: Option<String>,
    pub encoding: Option<String>,
    #[serde(rename = "encKeyName")]
    pub enc_key_name: Option<String>,
    #[serde(rename = "encAlgo")]
    pub enc_algo: Option<String>,
    #[serde(rename = "ivNonce")]
    pub iv_nonce: Option<String>,
    #[serde(rename = "skeEncKeyName")]
    pub ske_enc_key_name: Option<String>,
    #[serde(rename = "skeEncAlgo")]
    pub ske_enc_algo: Option<String>,
    pub immutable: Option<bool>,
    #[serde(rename = "appMetadata")]
    pub app_metadata: Option<String>,
}

/// One member's value, as JSON will show it.
enum Shown<'a> {
    Text(&'a str),
    Int(i128),
    Bool(bool),
    Date(u64),
    Hash(&'a str, &'a str),
}

impl Meta {
    /// What a command's metadata makes of what is stored: absent items stay, `null` clears, times are counted anew.
    /// `old` is the live record's metadata, if there is one.
    pub fn merged(old: Option<&Self>, given: &Metadata, now: u64) -> Self {
        let mut new = old.cloned().unwrap_or_default();
        new.version = old.map_or(0, |old| old.version + 1);
        new.created_at = old.map_or(now, |old| old.created_at);
        new.updated_at = now;
        new.ttl = given.ttl.or(new.ttl);
        new.ttb = given.ttb.or(new.ttb);
        new.ttr = given.ttr.or(new.ttr);
        new.ccd = given.ccd.or(new.ccd);
        if new.ttr.is_some_and(|ttr| ttr != 0) {
            new.ccd.get_or_insert(false);
        }
        new.is_binary = given.is_binary.or(new.is_binary);
        new.is_encrypted = given.is_encrypted.or(new.is_encrypted);
        new.immutable = given.immutable.or(new.immutable);
        for (stored, item) in new.texts_mut().into_iter().zip(items(given)) {
            match item {
                Some(Item::Set(value)) => *stored = Some(value.clone()),
                Some(Item::Clear) => *stored = None,
                None => {}
            }
        }
        new.count_times(now);
        new
    }

    /// This metadata for our own copy, made now in place of `old`.
    pub fn copied(&self, old: Option<&Self>, now: u64) -> Self {
        let mut new = self.clone();
        new.version = old.map_or(0, |old| old.version + 1);
        new.created_at = old.map_or(now, |old| old.created_at);
        new.updated_at = now;
        new.count_times(now);
        new
    }

    fn count_times(&mut self, now: u64) {
        let delay = self.ttb.unwrap_or(0);
        self.available_at = (delay > 0).then(|| now.saturating_add(delay));
        let life = self.ttl.filter(|ttl| *ttl > 0);
        self.expires_at = life.map(|ttl| now.saturating_add(ttl).saturating_add(delay));
        let refresh = self.ttr.and_then(|ttr| u64::try_from(ttr).ok());
        self.refresh_at = refresh
            .filter(|ttr| *ttr > 0)
            .map(|ttr| now.saturating_add(ttr.saturating_mul(1000)));
    }

    /// The same items as a command carries them, for the recipient's atServer.
    pub fn to_command(&self) -> Metadata {
        let set = |text: &Option<String>| text.clone().map(Item::Set);
        Metadata {
            ttl: self.ttl,
            ttb: self.ttb,
            ttr: self.ttr,
            ccd: self.ccd,
            is_encrypted: self.is_encrypted,
            shared_key_enc: set(&self.shared_key_enc),
            pub_key_cs: set(&self.pub_key_cs),
            enc_key_name: set(&self.enc_key_name),
            enc_algo: set(&self.enc_algo),
            iv_nonce: set(&self.iv_nonce),
            ske_enc_key_name: set(&self.ske_enc_key_name),
            ske_enc_algo: set(&self.ske_enc_algo),
            ..Metadata::default()
        }
    }

    /// Whether the value can be seen now: born and not expired.
    pub fn is_live(&self, now: u64) -> bool {
        self.available_at.is_none_or(|at| at <= now) && !self.is_expired(now)
    }

    /// Whether its life is over.
    pub fn is_expired(&self, now: u64) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }

    fn texts_mut(&mut self) -> [&mut Option<String>; 13] {
        [
            &mut self.data_signature,
            &mut self.shared_key_status,
            &mut self.shared_key_enc,
            &mut self.pub_key_cs,
            &mut self.pub_key_hash,
            &mut self.hashing_algo,
            &mut self.encoding,
            &mut self.enc_key_name,
            &mut self.enc_algo,
            &mut self.iv_nonce,
            &mut self.ske_enc_key_name,
            &mut self.ske_enc_algo,
            &mut self.app_metadata,
        ]
    }

    /// The members both forms share, in the wire's order.
    fn members(&self) -> Vec<(&'static str, Shown<'_>)> {
        let mut all: Vec<(&'static str, Option<Shown<'_>>)> = vec![
            ("createdAt", Some(Shown::Date(self.created_at))),
            ("updatedAt", Some(Shown::Date(self.updated_at))),
            ("availableAt", self.available_at.map(Shown::Date)),
            ("expiresAt", self.expires_at.map(Shown::Date)),
            ("refreshAt", self.refresh_at.map(Shown::Date)),
            ("status", Some(Shown::Text("active"))),
            ("version", Some(Shown::Int(self.version.into()))),
            ("ttl", self.ttl.map(|n| Shown::Int(n.into()))),
            ("ttb", self.ttb.map(|n| Shown::Int(n.into()))),
            ("ttr", self.ttr.map(|n| Shown::Int(n.into()))),
            ("ccd", self.ccd.map(Shown::Bool)),
            ("isBinary", self.is_binary.map(Shown::Bool)),
            ("isEncrypted", self.is_encrypted.map(Shown::Bool)),
        ];
        for (name, text) in [
            ("dataSignature", &self.data_signature),
            ("sharedKeyStatus", &self.shared_key_status),
            ("sharedKeyEnc", &self.shared_key_enc),
            ("pubKeyCS", &self.pub_key_cs),
            ("encoding", &self.encoding),
            ("encKeyName", &self.enc_key_name),
            ("encAlgo", &self.enc_algo),
            ("ivNonce", &self.iv_nonce),
            ("skeEncKeyName", &self.ske_enc_key_name),
            ("skeEncAlgo", &self.ske_enc_algo),
        ] {
            all.push((name, text.as_deref().map(Shown::Text)));
        }
        all.push(("immutable", self.immutable.map(Shown::Bool)));
        all.push(("appMetadata", self.app_metadata.as_deref().map(Shown::Text)));
        all.into_iter()
            .filter_map(|(name, shown)| Some((name, shown?)))
            .collect()
    }

    /// The JSON of `llookup:meta`; absent members are left out. `who` made and changed it.
    pub fn to_json(&self, who: &str) -> String {
        let mut object = Object::new().text("createdBy", who).text("updatedBy", who);
        let hash = self
            .pub_key_hash
            .as_deref()
            .zip(self.hashing_algo.as_deref());
        let hash = hash.map(|(hash, algo)| ("pubKeyHash", Shown::Hash(hash, algo)));
        for (name, shown) in self.members().into_iter().chain(hash) {
            object = match shown {
                Shown::Text(text) => object.text(name, text),
                Shown::Int(n) => object.raw(name, n),
                Shown::Bool(b) => object.raw(name, b),
                Shown::Date(at) => object.text(name, &date(at)),
                Shown::Hash(hash, algo) => {
                    let pair = Object::new().text("hash", hash).text("algo", algo);
                    object.raw(name, pair.end())
                }
            };
        }
        object.end()
    }

    /// The same with every value as text, as `sync` shows it.
    pub fn to_text_json(&self, who: &str) -> String {
        let mut object = Object::new().text("createdBy", who).text("updatedBy", who);
        for (name, shown) in self.members() {
            object = match shown {
                Shown::Text(text) => object.text(name, text),
                Shown::Int(n) => object.text(name, &n.to_string()),
                Shown::Bool(b) => object.text(name, &b.to_string()),
                Shown::Date(at) => object.text(name, &date(at)),
                Shown::Hash(..) => object,
            };
        }
        object.end()
    }

    /// Bytes of all texts.
    pub fn text_bytes(&self) -> usize {
        [
            &self.data_signature,
            &self.shared_key_status,
            &self.shared_key_enc,
            &self.pub_key_cs,
            &self.pub_key_hash,
            &self.hashing_algo,
            &self.encoding,
            &self.enc_key_name,
            &self.enc_algo,
            &self.iv_nonce,
            &self.ske_enc_key_name,
            &self.ske_enc_algo,
            &self.app_metadata,
        ]
        .into_iter()
        .flatten()
        .map(String::len)
        .sum()
    }

    /// The stored form: as the wire's, but with times as numbers.
    pub fn to_row(&self) -> String {
        let mut object = Object::new();
        for (name, shown) in self.members() {
            object = match shown {
                Shown::Text(text) => object.text(name, text),
                Shown::Int(n) => object.raw(name, n),
                Shown::Bool(b) => object.raw(name, b),
                Shown::Date(at) => object.raw(name, at),
                Shown::Hash(..) => object,
            };
        }
        for (name, text) in [
            ("pubKeyHash", &self.pub_key_hash),
            ("hashingAlgo", &self.hashing_algo),
        ] {
            if let Some(text) = text {
                object = object.text(name, text);
            }
        }
        object.end()
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// When it is no such form.
    pub fn from_row(row: &[u8]) -> Result<Self, StoreError> {
        let text = str::from_utf8(row).map_err(|_| StoreError::Row)?;
        json::from_str(text).map_err(|_| StoreError::Row)
    }
}

/// The text items of a command, in the order of [`Meta::texts_mut`].
fn items(given: &Metadata) -> [&Option<Item>; 13] {
    [
        &given.data_signature,
        &given.shared_key_status,
        &given.shared_key_enc,
        &given.pub_key_cs,
        &given.pub_key_hash,
        &given.hashing_algo,
        &given.encoding,
        &given.enc_key_name,
        &given.enc_algo,
        &given.iv_nonce,
        &given.ske_enc_key_name,
        &given.ske_enc_algo,
        &given.app_metadata,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_shown_in_wire_order_without_nulls() {
        let given = Metadata {
            ttl: Some(1000),
            ttr: Some(-1),
            is_binary: Some(false),
            is_encrypted: Some(true),
            iv_nonce: Some(Item::Set("iv".into())),
            ..Metadata::default()
        };
        let meta = Meta::merged(None, &given, 1_729_771_294_567);
        assert_eq!(
            meta.to_json("@alice"),
            concat!(
                r#"{"createdBy":"@alice","updatedBy":"@alice","createdAt":"2024-10-24 12:01:34.567Z","#,
                r#""updatedAt":"2024-10-24 12:01:34.567Z","expiresAt":"2024-10-24 12:01:35.567Z","#,
                r#""status":"active","version":0,"ttl":1000,"ttr":-1,"ccd":false,"isBinary":false,"#,
                r#""isEncrypted":true,"ivNonce":"iv"}"#
            )
        );
    }

    #[test]
    fn absent_items_stay_null_clears_and_times_are_counted_anew() {
        let first = Metadata {
            ttl: Some(1000),
            ttb: Some(500),
            iv_nonce: Some(Item::Set("iv".into())),
            enc_algo: Some(Item::Set("aes".into())),
            ..Metadata::default()
        };
        let first = Meta::merged(None, &first, 10_000);
        assert_eq!(first.available_at, Some(10_500));
        assert_eq!(first.expires_at, Some(11_500));
        assert!(!first.is_live(10_499) && first.is_live(10_500) && !first.is_live(11_500));
        let second = Metadata {
            ttb: Some(0),
            iv_nonce: Some(Item::Clear),
            ..Metadata::default()
        };
        let second = Meta::merged(Some(&first), &second, 20_000);
        assert_eq!(second.expires_at, Some(21_000));
        assert_eq!(second.available_at, None);
        assert_eq!(second.iv_nonce, None);
        assert_eq!(second.enc_algo.as_deref(), Some("aes"));
        assert_eq!((second.created_at, second.version), (10_000, 1));
        let third = Metadata {
            ttl: Some(0),
            ..Metadata::default()
        };
        assert_eq!(Meta::merged(Some(&second), &third, 1).expires_at, None);
    }
}
