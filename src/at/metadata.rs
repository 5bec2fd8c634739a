//! What travels beside a value: life time, encryption, caching.
//!
//! ```text
//!   update:ttl:60000:isEncrypted:true:ivNonce:VP3U…==:@bob:x.ns@alice Zm8=
//!         '──────────────── Metadata ───────────────'
//! ```
//!
//! Source: at_libraries:packages/at_commons/lib/src/verb/syntax.dart (`metadataFragment`), as of
//! October 2024 and as of 2026.

use std::fmt;

use miniserde::json;

/// A metadata item as a command gives it: absent items keep the stored value, the word `null` clears it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// The literal text `null`: clear what is stored.
    Clear,
    /// A value.
    Set(String),
}

impl Item {
    /// From a command's text.
    pub fn new(text: &str) -> Self {
        match text {
            "null" => Self::Clear,
            text => Self::Set(text.to_owned()),
        }
    }

    /// The value, unless it is to be cleared.
    pub fn value(&self) -> Option<&str> {
        match self {
            Self::Clear => None,
            Self::Set(text) => Some(text),
        }
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.value().unwrap_or("null"))
    }
}

/// The metadata fragment of `update` and `notify`, in wire order. Absent is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // the field names are the wire's own words
pub struct Metadata {
    /// Life in milliseconds; 0 = for ever.
    pub ttl: Option<u64>,
    /// Delay before it can be seen, in milliseconds.
    pub ttb: Option<u64>,
    /// The recipient may cache; refresh every n seconds; -1 = for ever; 0 = do not cache.
    pub ttr: Option<i64>,
    /// The recipient's copy dies with ours.
    pub ccd: Option<bool>,
    /// ISO 8601 texts that servers pass on (`cAt`, `uAt`, `eAt`, `aAt`); kept as they came.
    pub times: Vec<(String, String)>,
    pub data_signature: Option<Item>,
    pub shared_key_status: Option<Item>,
    pub is_binary: Option<bool>,
    pub is_encrypted: Option<bool>,
    /// RSA of the shared key for the recipient.
    pub shared_key_enc: Option<Item>,
    /// MD5 of the recipient's public key text.
    pub pub_key_cs: Option<Item>,
    /// `pubKeyHash` and `hashingAlgo` (2024-12 and later).
    pub pub_key_hash: Option<Item>,
    pub hashing_algo: Option<Item>,
    pub encoding: Option<Item>,
    pub enc_key_name: Option<Item>,
    pub enc_algo: Option<Item>,
    /// Base64 of 16 bytes.
    pub iv_nonce: Option<Item>,
    pub ske_enc_key_name: Option<Item>,
    pub ske_enc_algo: Option<Item>,
    /// No further `update` until it has expired (2025).
    pub immutable: Option<bool>,
    /// Base64 JSON, passed through (2025).
    pub app_metadata: Option<Item>,
}

/// One item's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field<'a> {
    /// Milliseconds or seconds.
    Number(i128),
    /// Yes or no.
    Flag(bool),
    /// Anything else.
    Text(&'a str),
    /// `pubKeyHash` and `hashingAlgo`, which JSON holds as one object: `{"hash":…,"algo":…}`.
    Hash(&'a str, Option<&'a str>),
}

impl Field<'_> {
    /// The value as JSON: `60000`, `true`, `"text"`.
    pub fn json(&self) -> String {
        match self {
            Self::Number(n) => n.to_string(),
            Self::Flag(b) => b.to_string(),
            Self::Text(text) => json::to_string(*text),
            Self::Hash(hash, algo) => {
                let algo = algo.map_or_else(|| "null".to_owned(), json::to_string);
                format!(r#"{{"hash":{},"algo":{algo}}}"#, json::to_string(*hash))
            }
        }
    }
}

impl fmt::Display for Field<'_> {
    /// As a command holds it, without quotes. A hash prints without its algorithm.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(n) => n.fmt(f),
            Self::Flag(b) => b.fmt(f),
            Self::Text(text) | Self::Hash(text, _) => f.write_str(text),
        }
    }
}

/// All item names in wire order, and whether the grammar of October 2024 knows them.
pub(super) const WIRE: [(&str, bool); 24] = [
    ("ttl", true),
    ("ttb", true),
    ("ttr", true),
    ("ccd", true),
    ("cAt", false),
    ("uAt", false),
    ("eAt", false),
    ("aAt", false),
    ("dataSignature", true),
    ("sharedKeyStatus", true),
    ("isBinary", true),
    ("isEncrypted", true),
    ("sharedKeyEnc", true),
    ("pubKeyCS", true),
    ("pubKeyHash", false),
    ("hashingAlgo", false),
    ("encoding", true),
    ("encKeyName", true),
    ("encAlgo", true),
    ("ivNonce", true),
    ("skeEncKeyName", true),
    ("skeEncAlgo", true),
    ("immutable", false),
    ("appMetadata", false),
];

/// Item names in the order of `metaData` JSON, behind `createdBy` … `version`.
const JSON: [&str; 19] = [
    "ttl",
    "ttb",
    "ttr",
    "ccd",
    "isBinary",
    "isEncrypted",
    "dataSignature",
    "sharedKeyStatus",
    "sharedKeyEnc",
    "pubKeyCS",
    "pubKeyHash",
    "encoding",
    "encKeyName",
    "encAlgo",
    "ivNonce",
    "skeEncKeyName",
    "skeEncAlgo",
    "immutable",
    "appMetadata",
];

/// How a date item of a command is called in JSON and in notifications' metadata.
const TIMES: [&str; 4] = ["cAt", "uAt", "eAt", "aAt"];

impl Metadata {
    /// What is set, as name and value, in the order in which atServers print `metaData` JSON.
    ///
    /// Items to be cleared count as absent. Dates, status and version are the server's to add.
    pub fn items(&self) -> Vec<(&'static str, Field<'_>)> {
        let algo = self.hashing_algo.as_ref().and_then(Item::value);
        let fields = JSON.iter().filter_map(|name| {
            if self.text(name).is_some_and(|item| *item == Item::Clear) {
                return None;
            }
            let field = match self.field(name)? {
                Field::Text(hash) if *name == "pubKeyHash" => Field::Hash(hash, algo),
                field => field,
            };
            Some((*name, field))
        });
        fields.collect()
    }

    /// Whether nothing is set at all.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// One of the passed-on times (`cAt`, `uAt`, `eAt`, `aAt`), as it came.
    pub fn time(&self, name: &str) -> Option<&str> {
        let time = self.times.iter().find(|(known, _)| known == name);
        time.map(|(_, value)| value.as_str())
    }

    /// Takes one item from a command. False when it is set already, or the value is not of its kind.
    pub(super) fn set(&mut self, name: &str, value: &str) -> bool {
        if self.field(name).is_some() {
            return false;
        }
        match name {
            "ttl" => put(&mut self.ttl, natural(value)),
            "ttb" => put(&mut self.ttb, natural(value)),
            "ttr" => put(&mut self.ttr, refresh(value)),
            "ccd" => put(&mut self.ccd, value.parse().ok()),
            "isBinary" => put(&mut self.is_binary, value.parse().ok()),
            "isEncrypted" => put(&mut self.is_encrypted, value.parse().ok()),
            "immutable" => put(&mut self.immutable, value.parse().ok()),
            name if TIMES.contains(&name) => {
                self.times.push((name.to_owned(), value.to_owned()));
                true
            }
            name => match self.text_mut(name) {
                Some(item) => put(item, Some(Item::new(value))),
                None => false,
            },
        }
    }

    /// One item by its wire name.
    fn field(&self, name: &str) -> Option<Field<'_>> {
        let number = |n: Option<u64>| n.map(|n| Field::Number(n.into()));
        match name {
            "ttl" => number(self.ttl),
            "ttb" => number(self.ttb),
            "ttr" => self.ttr.map(|n| Field::Number(n.into())),
            "ccd" => self.ccd.map(Field::Flag),
            "isBinary" => self.is_binary.map(Field::Flag),
            "isEncrypted" => self.is_encrypted.map(Field::Flag),
            "immutable" => self.immutable.map(Field::Flag),
            name if TIMES.contains(&name) => self.time(name).map(Field::Text),
            name => self
                .text(name)
                .map(|item| Field::Text(item.value().unwrap_or("null"))),
        }
    }

    fn text(&self, name: &str) -> Option<&Item> {
        match name {
            "dataSignature" => &self.data_signature,
            "sharedKeyStatus" => &self.shared_key_status,
            "sharedKeyEnc" => &self.shared_key_enc,
            "pubKeyCS" => &self.pub_key_cs,
            "pubKeyHash" => &self.pub_key_hash,
            "hashingAlgo" => &self.hashing_algo,
            "encoding" => &self.encoding,
            "encKeyName" => &self.enc_key_name,
            "encAlgo" => &self.enc_algo,
            "ivNonce" => &self.iv_nonce,
            "skeEncKeyName" => &self.ske_enc_key_name,
            "skeEncAlgo" => &self.ske_enc_algo,
            "appMetadata" => &self.app_metadata,
            _ => return None,
        }
        .as_ref()
    }

    fn text_mut(&mut self, name: &str) -> Option<&mut Option<Item>> {
        Some(match name {
            "dataSignature" => &mut self.data_signature,
            "sharedKeyStatus" => &mut self.shared_key_status,
            "sharedKeyEnc" => &mut self.shared_key_enc,
            "pubKeyCS" => &mut self.pub_key_cs,
            "pubKeyHash" => &mut self.pub_key_hash,
            "hashingAlgo" => &mut self.hashing_algo,
            "encoding" => &mut self.encoding,
            "encKeyName" => &mut self.enc_key_name,
            "encAlgo" => &mut self.enc_algo,
            "ivNonce" => &mut self.iv_nonce,
            "skeEncKeyName" => &mut self.ske_enc_key_name,
            "skeEncAlgo" => &mut self.ske_enc_algo,
            "appMetadata" => &mut self.app_metadata,
            _ => return None,
        })
    }
}

impl fmt::Display for Metadata {
    /// Prints `:ttl:60000:isEncrypted:true…`: each item with a leading colon, in wire order.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, _) in WIRE {
            if let Some(field) = self.field(name) {
                write!(f, ":{name}:{field}")?;
            }
        }
        Ok(())
    }
}

fn put<T>(into: &mut Option<T>, value: Option<T>) -> bool {
    *into = value;
    into.is_some()
}

/// Zero or more; nothing that a signed 64-bit number cannot hold, as Dart's numbers are.
pub(super) fn natural(text: &str) -> Option<u64> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    let n: i64 = digits.then(|| text.parse().ok()).flatten()?;
    n.try_into().ok()
}

/// As [`natural`], and -1.
fn refresh(text: &str) -> Option<i64> {
    match text {
        "-1" => Some(-1),
        text => natural(text)?.try_into().ok(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn full() -> Metadata {
        let mut all = Metadata::default();
        for (name, _) in WIRE {
            let value = match name {
                "ttl" | "ttb" | "ttr" => "7",
                "ccd" | "isBinary" | "isEncrypted" | "immutable" => "true",
                "cAt" | "uAt" | "eAt" | "aAt" => "2025-01-01T10:00:00.000Z",
                _ => "Ab+/=",
            };
            assert!(all.set(name, value), "{name}");
            assert!(!all.set(name, value), "{name} twice");
        }
        all
    }

    #[test]
    fn all_items_print_in_wire_order() {
        let wire = full().to_string();
        let mut from = 0;
        for (name, _) in WIRE {
            let at = wire.find(&format!(":{name}:")).unwrap();
            assert!(at >= from, "{name} in {wire}");
            from = at;
        }
        assert!(wire.starts_with(":ttl:7:ttb:7:ttr:7:ccd:true:cAt:2025-01-01T10:00:00.000Z:uAt:"));
        assert_eq!(Metadata::default().to_string(), "");
    }

    #[test]
    fn json_members_have_the_servers_order_and_kinds() {
        let mut metadata = full();
        metadata.encoding = Some(Item::Clear);
        let members: Vec<String> = metadata
            .items()
            .iter()
            .map(|(name, field)| format!("{name}={}", field.json()))
            .collect();
        assert_eq!(
            members.join(" "),
            r#"ttl=7 ttb=7 ttr=7 ccd=true isBinary=true isEncrypted=true dataSignature="Ab+/=" sharedKeyStatus="Ab+/=" sharedKeyEnc="Ab+/=" pubKeyCS="Ab+/=" pubKeyHash={"hash":"Ab+/=","algo":"Ab+/="} encKeyName="Ab+/=" encAlgo="Ab+/=" ivNonce="Ab+/=" skeEncKeyName="Ab+/=" skeEncAlgo="Ab+/=" immutable=true appMetadata="Ab+/=""#
        );
        assert!(Metadata::default().items().is_empty());
    }

    #[test]
    fn the_word_null_clears_and_prints_again() {
        let mut metadata = Metadata::default();
        assert!(metadata.set("ivNonce", "null"));
        assert_eq!(metadata.iv_nonce, Some(Item::Clear));
        assert_eq!(metadata.to_string(), ":ivNonce:null");
        assert!(metadata.items().is_empty());
    }

    #[test]
    fn values_of_the_wrong_kind_are_refused() {
        for (name, value, fits) in [
            ("ttl", "0", true),
            ("ttl", "9223372036854775807", true),
            ("ttl", "9223372036854775808", false),
            ("ttl", "-1", false),
            ("ttl", "+1", false),
            ("ttl", "", false),
            ("ttl", "null", false),
            ("ttr", "-1", true),
            ("ttr", "-2", false),
            ("ttr", "3888000", true),
            ("ccd", "True", false),
            ("isEncrypted", "false", true),
            ("isEncrypted", "null", false),
            ("hash", "x", false),
        ] {
            let took = Metadata::default().set(name, value);
            assert_eq!(took, fits, "{name}:{value}");
        }
    }
}
