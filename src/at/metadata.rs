//! What travels beside a value: life time, encryption, caching.

/// A metadata item as a command gives it: absent items keep the stored value, the word `null` clears it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// The literal text `null`: clear what is stored.
    Clear,
    /// A value.
    Set(String),
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

impl std::fmt::Display for Metadata {
    /// Prints `:ttl:60000:isEncrypted:true…`: each item with a leading colon, in wire order.
    fn fmt(&self, _f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        todo!()
    }
}
