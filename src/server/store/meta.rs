//! The metadata beside a value: merged on every write, kept as JSON, shown in the wire's order.

use miniserde::{Deserialize, json};

use crate::at::metadata::{Field, Metadata};

use super::error::StoreError;
use crate::text::{calendar::date, json::Object};

/// Stored metadata. Times are milliseconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // the field names are the wire's own words
pub struct Meta {
    pub created_at: u64,
    pub updated_at: u64,
    pub available_at: Option<u64>,
    pub expires_at: Option<u64>,
    pub refresh_at: Option<u64>,
    pub version: u64,
    /// As commands gave them; nothing is left to be cleared.
    pub items: Metadata,
}

/// One member's value, as JSON will show it.
enum MemberValue<'a> {
    Date(u64),
    Item(Field<'a>),
}

/// The items that stand before the others in JSON.
const FIRST: [&str; 6] = ["ttl", "ttb", "ttr", "ccd", "isBinary", "isEncrypted"];
/// The items that are one member in JSON, behind the others.
const HASH: [&str; 2] = ["pubKeyHash", "hashingAlgo"];

impl Meta {
    /// What a command's metadata makes of what is stored: absent items stay, `null` clears, times are counted anew.
    /// `old` is the live record's metadata, if there is one.
    pub fn merged(old: Option<&Self>, given: &Metadata, now: u64) -> Self {
        let mut new = old.cloned().unwrap_or_default();
        new.version = old.map_or(0, |old| old.version + 1);
        new.created_at = old.map_or(now, |old| old.created_at);
        new.updated_at = now;
        new.items.change(given);
        if new.items.ttr.is_some_and(|ttr| ttr != 0) {
            new.items.ccd.get_or_insert(false);
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
        let delay = self.items.ttb.unwrap_or(0);
        self.available_at = (delay > 0).then(|| now.saturating_add(delay));
        let life = self.items.ttl.filter(|ttl| *ttl > 0);
        self.expires_at = life.map(|ttl| now.saturating_add(ttl).saturating_add(delay));
        let refresh = self.items.ttr.and_then(|ttr| u64::try_from(ttr).ok());
        self.refresh_at = refresh
            .filter(|ttr| *ttr > 0)
            .map(|ttr| now.saturating_add(ttr.saturating_mul(1000)));
    }

    /// What of it a command carries to the recipient's atServer.
    pub fn to_command(&self) -> Metadata {
        Metadata {
            data_signature: None,
            shared_key_status: None,
            is_binary: None,
            pub_key_hash: None,
            hashing_algo: None,
            encoding: None,
            immutable: None,
            app_metadata: None,
            ..self.items.clone()
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

    /// The members that all forms share, in the wire's order.
    fn members(&self) -> Vec<(&'static str, MemberValue<'_>)> {
        let dates = [
            ("createdAt", Some(self.created_at)),
            ("updatedAt", Some(self.updated_at)),
            ("availableAt", self.available_at),
            ("expiresAt", self.expires_at),
            ("refreshAt", self.refresh_at),
        ];
        let dates = dates
            .into_iter()
            .filter_map(|(name, at)| Some((name, MemberValue::Date(at?))));
        let state = [
            ("status", Field::Text("active")),
            ("version", Field::Number(self.version.into())),
        ];
        let items = self.items.items().filter(|(name, _)| !HASH.contains(name));
        let (first, others): (Vec<_>, Vec<_>) = items.partition(|(name, _)| FIRST.contains(name));
        let fields = state.into_iter().chain(first).chain(others);
        dates
            .chain(fields.map(|(name, field)| (name, MemberValue::Item(field))))
            .collect()
    }

    /// The JSON of `llookup:meta`; absent members are left out. `who` made and changed it.
    pub fn to_json(&self, who: &str) -> String {
        let mut object = Object::new().text("createdBy", who).text("updatedBy", who);
        for (name, shown) in self.members() {
            object = match shown {
                MemberValue::Date(at) => object.text(name, &date(at)),
                MemberValue::Item(field) => object.raw(name, field.json()),
            };
        }
        if let (Some(hash), Some(algo)) = (&self.items.pub_key_hash, &self.items.hashing_algo) {
            let pair = Object::new()
                .maybe("hash", hash.value())
                .maybe("algo", algo.value());
            object = object.raw("pubKeyHash", pair.end());
        }
        object.end()
    }

    /// The JSON of `sync`: every value is text.
    pub fn to_text_json(&self, who: &str) -> String {
        let mut object = Object::new().text("createdBy", who).text("updatedBy", who);
        for (name, shown) in self.members() {
            object = match shown {
                MemberValue::Date(at) => object.text(name, &date(at)),
                MemberValue::Item(field) => object.text(name, &field.to_string()),
            };
        }
        object.end()
    }

    /// Bytes of all texts.
    pub fn text_bytes(&self) -> usize {
        let texts = self.items.items().map(|(_, field)| match field {
            Field::Text(text) => text.len(),
            _ => 0,
        });
        texts.sum()
    }

    /// The stored form: as the wire's, but with times as numbers.
    pub fn to_row(&self) -> String {
        let mut object = Object::new();
        for (name, shown) in self.members() {
            object = match shown {
                MemberValue::Date(at) => object.raw(name, at),
                MemberValue::Item(field) => object.raw(name, field.json()),
            };
        }
        for (name, field) in self.items.items().filter(|(name, _)| HASH.contains(name)) {
            object = object.raw(name, field.json());
        }
        object.end()
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// When it is no such form.
    pub fn from_row(row: &[u8]) -> Result<Self, StoreError> {
        #[derive(Deserialize)]
        struct Times {
            #[serde(rename = "createdAt")]
            created_at: u64,
            #[serde(rename = "updatedAt")]
            updated_at: u64,
            #[serde(rename = "availableAt")]
            available_at: Option<u64>,
            #[serde(rename = "expiresAt")]
            expires_at: Option<u64>,
            #[serde(rename = "refreshAt")]
            refresh_at: Option<u64>,
            version: u64,
        }
        let text = str::from_utf8(row).map_err(|_| StoreError::Row)?;
        let times: Times = json::from_str(text).map_err(|_| StoreError::Row)?;
        Ok(Self {
            created_at: times.created_at,
            updated_at: times.updated_at,
            available_at: times.available_at,
            expires_at: times.expires_at,
            refresh_at: times.refresh_at,
            version: times.version,
            items: Metadata::of_row(text).map_err(|_| StoreError::Row)?,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::at::metadata::Item;

    /// Every item, as a command gives them.
    fn full() -> Metadata {
        let text = || Some(Item::new("Ab+/="));
        Metadata {
            ttl: Some(7),
            ttb: Some(7),
            ttr: Some(7),
            ccd: Some(true),
            created_at: Some("2025-01-01T10:00:00.000Z".into()),
            updated_at: Some("2025-01-01T10:00:00.000Z".into()),
            expires_at: Some("2025-01-01T10:00:00.000Z".into()),
            available_at: Some("2025-01-01T10:00:00.000Z".into()),
            data_signature: text(),
            shared_key_status: text(),
            is_binary: Some(true),
            is_encrypted: Some(true),
            shared_key_enc: text(),
            pub_key_cs: text(),
            pub_key_hash: text(),
            hashing_algo: text(),
            encoding: Some(Item::Clear),
            enc_key_name: text(),
            enc_algo: text(),
            iv_nonce: text(),
            ske_enc_key_name: text(),
            ske_enc_algo: text(),
            immutable: Some(true),
            app_metadata: text(),
        }
    }

    #[test]
    fn members_have_the_servers_order_and_kinds() {
        let meta = Meta::merged(None, &full(), 1_729_771_294_567);
        let head = concat!(
            r#"{"createdBy":"@alice","updatedBy":"@alice","createdAt":"2024-10-24 12:01:34.567Z","#,
            r#""updatedAt":"2024-10-24 12:01:34.567Z","availableAt":"2024-10-24 12:01:34.574Z","#,
            r#""expiresAt":"2024-10-24 12:01:34.581Z","refreshAt":"2024-10-24 12:01:41.567Z","#,
            r#""status":"active","version":"#
        );
        let texts = concat!(
            r#""dataSignature":"Ab+/=","sharedKeyStatus":"Ab+/=","sharedKeyEnc":"Ab+/=","pubKeyCS":"Ab+/=","#,
            r#""encKeyName":"Ab+/=","encAlgo":"Ab+/=","ivNonce":"Ab+/=","skeEncKeyName":"Ab+/=","#,
            r#""skeEncAlgo":"Ab+/=","immutable":"#
        );
        assert_eq!(
            meta.to_json("@alice"),
            format!(
                "{head}{}{texts}{}",
                r#"0,"ttl":7,"ttb":7,"ttr":7,"ccd":true,"isBinary":true,"isEncrypted":true,"#,
                r#"true,"appMetadata":"Ab+/=","pubKeyHash":{"hash":"Ab+/=","algo":"Ab+/="}}"#
            )
        );
        assert_eq!(
            meta.to_text_json("@alice"),
            format!(
                "{head}{}{texts}{}",
                r#""0","ttl":"7","ttb":"7","ttr":"7","ccd":"true","isBinary":"true","isEncrypted":"true","#,
                r#""true","appMetadata":"Ab+/="}"#
            )
        );
        let row = meta.to_row();
        assert_eq!(
            row,
            format!(
                "{}{texts}{}",
                concat!(
                    r#"{"createdAt":1729771294567,"updatedAt":1729771294567,"availableAt":1729771294574,"#,
                    r#""expiresAt":1729771294581,"refreshAt":1729771301567,"status":"active","version":0,"#,
                    r#""ttl":7,"ttb":7,"ttr":7,"ccd":true,"isBinary":true,"isEncrypted":true,"#
                ),
                r#"true,"appMetadata":"Ab+/=","pubKeyHash":"Ab+/=","hashingAlgo":"Ab+/="}"#
            )
        );
        assert_eq!(Meta::from_row(row.as_bytes()).unwrap(), meta);
    }

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
        assert_eq!(second.items.iv_nonce, None);
        assert_eq!(second.items.enc_algo, Some(Item::new("aes")));
        assert_eq!((second.created_at, second.version), (10_000, 1));
        let third = Metadata {
            ttl: Some(0),
            ..Metadata::default()
        };
        assert_eq!(Meta::merged(Some(&second), &third, 1).expires_at, None);
    }
}
