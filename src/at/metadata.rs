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

use miniserde::{
    Deserialize, de,
    json::{self, Number, Object},
    make_place,
};

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

make_place!(Place);

impl de::Visitor for Place<Item> {
    fn string(&mut self, text: &str) -> miniserde::Result<()> {
        self.out = Some(Item::Set(text.to_owned()));
        Ok(())
    }
}

/// As servers keep it: what was to be cleared is not there.
impl Deserialize for Item {
    fn begin(out: &mut Option<Self>) -> &mut dyn de::Visitor {
        Place::new(out)
    }
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
}

impl Field<'_> {
    /// The value as JSON: `60000`, `true`, `"text"`.
    pub fn json(&self) -> String {
        match self {
            Self::Number(n) => n.to_string(),
            Self::Flag(b) => b.to_string(),
            Self::Text(text) => json::to_string(*text),
        }
    }
}

impl fmt::Display for Field<'_> {
    /// As a command holds it, without quotes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(n) => n.fmt(f),
            Self::Flag(b) => b.fmt(f),
            Self::Text(text) => f.write_str(text),
        }
    }
}

/// How an item's value is written in a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spelling {
    Number,
    Flag,
    Text,
    Time,
}

/// What an item can hold.
trait Content: Sized {
    const SPELLING: Spelling;
    /// From a command.
    fn read(text: &str) -> Option<Self>;
    /// From a member of a JSON object; numbers and flags may be texts there.
    fn of_json(json: &json::Value) -> Option<Self>;
    fn field(&self) -> Field<'_>;
    /// Whether a server keeps it.
    fn lasts(&self) -> bool {
        true
    }
}

/// Milliseconds.
impl Content for u64 {
    const SPELLING: Spelling = Spelling::Number;

    fn read(text: &str) -> Option<Self> {
        natural(text)
    }

    fn of_json(json: &json::Value) -> Option<Self> {
        i64::of_json(json)?.try_into().ok()
    }

    fn field(&self) -> Field<'_> {
        Field::Number((*self).into())
    }
}

/// Seconds, or -1.
impl Content for i64 {
    const SPELLING: Spelling = Spelling::Number;

    fn read(text: &str) -> Option<Self> {
        match text {
            "-1" => Some(-1),
            text => natural(text)?.try_into().ok(),
        }
    }

    fn of_json(json: &json::Value) -> Option<Self> {
        match json {
            json::Value::Number(Number::U64(n)) => (*n).try_into().ok(),
            json::Value::Number(Number::I64(n)) => Some(*n),
            json::Value::String(text) => text.parse().ok(),
            _ => None,
        }
    }

    fn field(&self) -> Field<'_> {
        Field::Number((*self).into())
    }
}

impl Content for bool {
    const SPELLING: Spelling = Spelling::Flag;

    fn read(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn of_json(json: &json::Value) -> Option<Self> {
        flag_of_json(json)
    }

    fn field(&self) -> Field<'_> {
        Field::Flag(*self)
    }
}

impl Content for Item {
    const SPELLING: Spelling = Spelling::Text;

    fn read(text: &str) -> Option<Self> {
        Some(Self::new(text))
    }

    fn of_json(json: &json::Value) -> Option<Self> {
        match json {
            json::Value::String(text) => Some(Self::Set(text.clone())),
            _ => None,
        }
    }

    fn field(&self) -> Field<'_> {
        Field::Text(self.value().unwrap_or("null"))
    }

    fn lasts(&self) -> bool {
        *self != Self::Clear
    }
}

/// An ISO 8601 time of another server, passed on as it came.
impl Content for String {
    const SPELLING: Spelling = Spelling::Time;

    fn read(text: &str) -> Option<Self> {
        Some(text.to_owned())
    }

    fn of_json(_: &json::Value) -> Option<Self> {
        None
    }

    fn field(&self) -> Field<'_> {
        Field::Text(self)
    }

    fn lasts(&self) -> bool {
        false
    }
}

/// A truth value of a JSON object, which may be a text there.
pub fn flag_of_json(json: &json::Value) -> Option<bool> {
    match json {
        json::Value::Bool(flag) => Some(*flag),
        json::Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

/// Makes [`Metadata`] and all that goes through its items one by one from the one table of them.
macro_rules! items {
    ($($(#[$doc:meta])* $name:literal $classic:literal $member:ident: $kind:ty,)*) => {
        /// The metadata fragment of `update` and `notify`, in wire order. Absent is `None`.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        #[allow(missing_docs)] // the names are the wire's own words
        pub struct Metadata {
            $($(#[$doc])* pub $member: Option<$kind>,)*
        }

        /// All item names in wire order, and whether the grammar of October 2024 knows them.
        pub(super) const WIRE: [(&str, bool, Spelling); 24] =
            [$(($name, $classic, <$kind as Content>::SPELLING)),*];

        impl Metadata {
            /// What is set, as name and value, in wire order.
            pub fn items(&self) -> impl Iterator<Item = (&'static str, Field<'_>)> {
                let all = [$(($name, self.$member.as_ref().map(Content::field))),*];
                all.into_iter().filter_map(|(name, field)| Some((name, field?)))
            }

            /// Takes one item from a command. False when it is set already, or the value is not of its kind.
            pub(super) fn set(&mut self, name: &str, value: &str) -> bool {
                match name {
                    $($name => put(&mut self.$member, Content::read(value)),)*
                    _ => false,
                }
            }

            /// The items that have one of these names in a JSON object, whatever they are there.
            fn members_of(object: &Object) -> Self {
                Self { $($member: object.get($name).and_then(Content::of_json),)* }
            }

            /// Reads the items in a row of a server's store.
            ///
            /// # Errors
            /// When it is no JSON object, or holds one of them as something else.
            pub fn of_row(json: &str) -> miniserde::Result<Self> {
                #[derive(Deserialize)]
                struct Row {
                    $(#[serde(rename = $name)] $member: Option<$kind>,)*
                }
                let row: Row = json::from_str(json)?;
                Ok(Self { $($member: row.$member,)* })
            }

            /// What a server makes of the items it keeps when a command gives these: absent ones stay, `null` clears,
            /// and times are only passed on.
            pub fn change(&mut self, given: &Self) {
                $(
                    let new = given.$member.clone().or_else(|| self.$member.take());
                    self.$member = new.filter(Content::lasts);
                )*
            }
        }
    };
}

// In wire order: name; whether the grammar of October 2024 knows it; what it holds.
items! {
    /// Life in milliseconds; 0 = for ever.
    "ttl" true ttl: u64,
    /// Delay before it can be seen, in milliseconds.
    "ttb" true ttb: u64,
    /// The recipient may cache; refresh every n seconds; -1 = for ever; 0 = do not cache.
    "ttr" true ttr: i64,
    /// The recipient's copy dies with ours.
    "ccd" true ccd: bool,
    "cAt" false created_at: String,
    "uAt" false updated_at: String,
    "eAt" false expires_at: String,
    "aAt" false available_at: String,
    "dataSignature" true data_signature: Item,
    "sharedKeyStatus" true shared_key_status: Item,
    "isBinary" true is_binary: bool,
    "isEncrypted" true is_encrypted: bool,
    /// RSA of the shared key for the recipient.
    "sharedKeyEnc" true shared_key_enc: Item,
    /// MD5 of the recipient's public key text.
    "pubKeyCS" true pub_key_cs: Item,
    /// `pubKeyHash` and `hashingAlgo` (2024-12 and later).
    "pubKeyHash" false pub_key_hash: Item,
    "hashingAlgo" false hashing_algo: Item,
    "encoding" true encoding: Item,
    "encKeyName" true enc_key_name: Item,
    "encAlgo" true enc_algo: Item,
    /// Base64 of 16 bytes.
    "ivNonce" true iv_nonce: Item,
    "skeEncKeyName" true ske_enc_key_name: Item,
    "skeEncAlgo" true ske_enc_algo: Item,
    /// No further `update` until it has expired (2025).
    "immutable" false immutable: bool,
    /// Base64 JSON, passed through (2025).
    "appMetadata" false app_metadata: Item,
}

impl Metadata {
    /// The items in a JSON object, as a command would carry them.
    pub fn of_json(object: &Object) -> Self {
        Self {
            // Of no use away from where they were made; and the hash is no text in JSON.
            shared_key_status: None,
            pub_key_hash: None,
            hashing_algo: None,
            ..Self::members_of(object)
        }
    }
}

impl fmt::Display for Metadata {
    /// Prints `:ttl:60000:isEncrypted:true…`: each item with a leading colon, in wire order.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, field) in self.items() {
            write!(f, ":{name}:{field}")?;
        }
        Ok(())
    }
}

fn put<T>(into: &mut Option<T>, value: Option<T>) -> bool {
    let is_free = into.is_none();
    if is_free {
        *into = value;
    }
    is_free && into.is_some()
}

/// Zero or more; nothing that a signed 64-bit number cannot hold, as Dart's numbers are.
pub(super) fn natural(text: &str) -> Option<u64> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    let n: i64 = digits.then(|| text.parse().ok()).flatten()?;
    n.try_into().ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn full() -> Metadata {
        let mut all = Metadata::default();
        for (name, ..) in WIRE {
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
        for (name, ..) in WIRE {
            let at = wire.find(&format!(":{name}:")).unwrap();
            assert!(at >= from, "{name} in {wire}");
            from = at;
        }
        assert!(wire.starts_with(":ttl:7:ttb:7:ttr:7:ccd:true:cAt:2025-01-01T10:00:00.000Z:uAt:"));
        assert_eq!(Metadata::default().to_string(), "");
    }

    #[test]
    fn the_word_null_clears_and_prints_again() {
        let mut metadata = Metadata::default();
        assert!(metadata.set("ivNonce", "null"));
        assert_eq!(metadata.iv_nonce, Some(Item::Clear));
        assert_eq!(metadata.to_string(), ":ivNonce:null");
        let mut kept = full();
        kept.change(&metadata);
        assert_eq!(kept.iv_nonce, None);
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
