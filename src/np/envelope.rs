//! JSON signed by an atSign.
//!
//! ```text
//!   {"payload":{…},"signature":"<base64>","hashingAlgo":"sha256","signingAlgo":"rsa2048"}
//!              '─'  these bytes, compact, are what the signature covers
//! ```
//!
//! The receiver checks the payload's own text as it came, only made compact; a text that was
//! parsed and written again would come out in another order.
//!
//! Source: noports:packages/dart/noports_core/lib/src/common/mixins/at_client_bindings.dart and
//! noports:packages/dart/noports_core/lib/src/sshnp/util/sshnpd_channel (signing and verifying).

use std::collections::HashSet;

use miniserde::{Deserialize, json};

use crate::at::crypto::{KeyPair, PublicKey};

/// Longest envelope, in bytes. The longest real one (an answer with an ssh key in it) has about 5 KB.
pub const MAX_ENVELOPE: usize = 32 * 1024;

/// Why an envelope is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// Longer than [`MAX_ENVELOPE`].
    #[error("the message is longer than {MAX_ENVELOPE} bytes")]
    TooLong,
    /// Not JSON, or a member is missing, twice there (in the payload, too), or of the wrong type.
    #[error("the message is not a signed envelope")]
    Form,
    /// Signed in a way we do not know.
    #[error("the message is signed with an algorithm that is not known here")]
    Algorithm,
    /// The signature is not by the key we looked up, or not over this payload.
    #[error("the signature is not valid")]
    Signature,
    /// Our own key could not sign.
    #[error("the message could not be signed")]
    Signing,
}

/// Signs a compact JSON text and wraps both.
///
/// # Errors
/// When the key cannot sign.
pub fn seal(payload: &str, key: &KeyPair) -> Result<String, EnvelopeError> {
    let signature = key
        .sign(payload.as_bytes())
        .map_err(|_| EnvelopeError::Signing)?;
    Ok(format!(
        r#"{{"payload":{payload},"signature":"{signature}","hashingAlgo":"sha256","signingAlgo":"rsa2048"}}"#
    ))
}

/// A signed text, not yet believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    payload: String,
    signature: String,
    long_hash: bool,
}

#[derive(Deserialize)]
struct Wire {
    signature: String,
    #[serde(rename = "hashingAlgo")]
    hashing: String,
    #[serde(rename = "signingAlgo")]
    signing: String,
}

impl Envelope {
    /// Takes an envelope apart. Members we do not know are ignored.
    ///
    /// # Errors
    /// `TooLong`, `Form` or `Algorithm`.
    pub fn parse(text: &str) -> Result<Self, EnvelopeError> {
        if text.len() > MAX_ENVELOPE {
            return Err(EnvelopeError::TooLong);
        }
        let outer: Wire = json::from_str(text).map_err(|_| EnvelopeError::Form)?;
        let payload = object_member(text, "payload").ok_or(EnvelopeError::Form)?;
        if repeats_a_member(&payload) {
            return Err(EnvelopeError::Form);
        }
        let long_hash = match outer.hashing.as_str() {
            "sha256" => false,
            "sha512" => true,
            _ => return Err(EnvelopeError::Algorithm),
        };
        if outer.signing != "rsa2048" {
            return Err(EnvelopeError::Algorithm);
        }
        Ok(Self {
            payload,
            signature: outer.signature,
            long_hash,
        })
    }

    /// The payload's text, once this key is found to have signed it.
    ///
    /// # Errors
    /// `Signature`.
    pub fn verify(&self, signer: &PublicKey) -> Result<&str, EnvelopeError> {
        let bytes = self.payload.as_bytes();
        let verdict = if self.long_hash {
            signer.verify_sha512(bytes, &self.signature)
        } else {
            signer.verify(bytes, &self.signature)
        };
        verdict.map_err(|_| EnvelopeError::Signature)?;
        Ok(&self.payload)
    }

    /// The payload's text, believed by nobody. Only good for finding out whom to ask for a key.
    pub fn unverified(&self) -> &str {
        &self.payload
    }
}

/// The compact text of a top-level member that is an object. `None` when it is absent, there
/// twice, or something else. `text` must be valid JSON.
fn object_member(text: &str, name: &str) -> Option<String> {
    let compact = compact(text);
    let quoted = format!("\"{name}\"");
    let mut found = members(&compact).filter(|(name, _)| *name == quoted);
    let (_, value) = found.next()?;
    (found.next().is_none() && value.starts_with('{')).then(|| value.to_owned())
}

/// Whether an object, compact, has two members of one name, however they are escaped. Which of them counts would be
/// left to each reader.
fn repeats_a_member(object: &str) -> bool {
    let mut names = HashSet::new();
    members(object).any(|(name, _)| {
        let name = json::from_str::<String>(name);
        !name.is_ok_and(|name| names.insert(name))
    })
}

/// The members of an object, compact: names in their quotes, and values.
fn members(object: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut at = 1;
    std::iter::from_fn(move || {
        if object.as_bytes().get(at) != Some(&b'"') {
            return None;
        }
        let colon = string_end(object.as_bytes(), at);
        let comma = value_end(object.as_bytes(), colon + 1);
        let member = (object.get(at..colon)?, object.get(colon + 1..comma)?);
        at = comma + 1;
        Some(member)
    })
}

/// Behind the closing quote of the string that starts at `at`.
fn string_end(bytes: &[u8], at: usize) -> usize {
    let mut i = at + 1;
    while i < bytes.len() && bytes[i] != b'"' {
        i += if bytes[i] == b'\\' { 2 } else { 1 };
    }
    (i + 1).min(bytes.len())
}

/// Behind the value that starts at `at`: where a comma or the bracket of what is around it stands.
fn value_end(bytes: &[u8], at: usize) -> usize {
    let (mut depth, mut at) = (0usize, at);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => {
                at = string_end(bytes, at);
                continue;
            }
            b',' | b'}' | b']' if depth == 0 => return at,
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            _ => {}
        }
        at += 1;
    }
    bytes.len()
}

/// The same JSON without white space between its parts.
fn compact(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] == b'"' {
            let end = string_end(bytes, at);
            out.push_str(&text[at..end]);
            at = end;
            continue;
        }
        if !matches!(bytes[at], b' ' | b'\t' | b'\n' | b'\r') {
            out.push(char::from(bytes[at]));
        }
        at += 1;
    }
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::np::request::tests::vectors;

    #[test]
    fn every_known_envelope_verifies_and_is_made_again_byte_for_byte() {
        let vectors = vectors();
        for name in vectors.names("envelopes") {
            let case = |member: &str| vectors.text(&["envelopes", &name, member]);
            let text = case("envelope");
            let envelope = Envelope::parse(&text).unwrap();
            assert_eq!(envelope.unverified(), case("signingInput"), "{name}");
            let signer = ["@client_example", "@device_example"]
                .iter()
                .find(|who| envelope.verify(&vectors.key(who).public().clone()).is_ok())
                .unwrap_or_else(|| panic!("{name}: signed by nobody we know"));
            assert_eq!(
                seal(envelope.unverified(), &vectors.key(signer)).unwrap(),
                text,
                "{name}"
            );
        }
    }

    #[test]
    fn white_space_between_the_parts_does_not_matter_and_inside_strings_does() {
        let vectors = vectors();
        let key = vectors.key("@client_example");
        let sealed = seal(r#"{"a":"x y","b":[1,{"payload":2}]}"#, &key).unwrap();
        let spaced = sealed
            .replace(r#"{"a":"#, "{ \"a\" :\n\t")
            .replace("[1,", "[ 1 , ");
        assert!(
            Envelope::parse(&spaced)
                .unwrap()
                .verify(key.public())
                .is_ok()
        );
        let altered = sealed.replace("x y", "xy");
        assert_eq!(
            Envelope::parse(&altered).unwrap().verify(key.public()),
            Err(EnvelopeError::Signature)
        );
    }

    #[test]
    fn a_payload_that_is_not_one_object_is_refused() {
        let tail = r#""signature":"AA==","hashingAlgo":"sha256","signingAlgo":"rsa2048"}"#;
        for head in [
            "{",
            r#"{"payload":[],"#,
            r#"{"payload":"x","#,
            r#"{"payload":null,"#,
            r#"{"payload":{},"payload":{},"#,
            r#"{"payload":{},"payload":1,"#,
            r#"{"payload":1,"payload":{},"#,
            r#"{"inner":{"payload":{}},"#,
            r#"{"payload":{"a":1,"a":1},"#,
            r#"{"payload":{"a":1,"b":{},"\u0061":2},"#,
            r#"{"x":"\"payload\":{}","#,
        ] {
            assert_eq!(
                Envelope::parse(&format!("{head}{tail}")),
                Err(EnvelopeError::Form),
                "{head}"
            );
        }
    }

    #[test]
    fn missing_null_and_wrong_type_are_refused_alike() {
        let whole =
            r#"{"payload":{},"signature":"AA==","hashingAlgo":"sha256","signingAlgo":"rsa2048"}"#;
        assert!(Envelope::parse(whole).is_ok());
        let inner = whole.replace(
            "{}",
            r#"{"a":{"a":1,"b":[{"a":1},{"a":1}]},"b":"\",\"a\":1"}"#,
        );
        assert!(Envelope::parse(&inner).is_ok(), "names of other objects");
        for (from, to) in [
            (r#","signature":"AA==""#, ""),
            (r#""AA==""#, "null"),
            (r#""AA==""#, "7"),
            (r#","hashingAlgo":"sha256""#, ""),
            (r#","signingAlgo":"rsa2048""#, ""),
            (r#""rsa2048""#, "null"),
        ] {
            assert_eq!(
                Envelope::parse(&whole.replace(from, to)),
                Err(EnvelopeError::Form),
                "{from} -> {to}"
            );
        }
        for (from, to) in [("sha256", "md5"), ("rsa2048", "none")] {
            assert_eq!(
                Envelope::parse(&whole.replace(from, to)),
                Err(EnvelopeError::Algorithm),
                "{to}"
            );
        }
        let long = format!(r#"{{"payload":{{"x":"{}"}}}}"#, "y".repeat(MAX_ENVELOPE));
        assert_eq!(Envelope::parse(&long), Err(EnvelopeError::TooLong));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_parsed_without_panic(text in ".{0,200}") {
            let _ = Envelope::parse(&text);
            let _ = object_member(&text, "payload");
        }
    }
}
