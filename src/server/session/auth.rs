//! Who is there: `from`, `cram`, `pkam`, `pol`.
//!
//! ```text
//!   from:@alice ─▶ data:_S@alice:C          ─▶ cram | pkam: signature over _S@alice:C
//!   from:@bob   ─▶ data:proof:_S@bob:C      ─▶ pol: @bob's server holds a signature over C at public:_S@bob
//! ```

use miniserde::json::{self, Value};
use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};

use crate::{
    at::{
        AtSign,
        auth::LONGEST_LINE,
        crypto::{PublicKey, cram_digest, from_base64},
        fault::Code,
        verb::{HashingAlgo, SigningAlgo},
    },
    secret::same,
    server::{
        enrolment::{self, EnrolmentState, Grant, StoredEnrolment},
        refusal::{Refusal, refuse},
        store::{Tx, lists, register},
    },
};

use super::{
    errand::Proof,
    outcome::{CommandAnswer, CommandOutcome, FollowUp, Handled, success},
    state::{Challenge, Session, Trace, Who},
};

/// How long a challenge may be answered, in milliseconds.
const CHALLENGE_LIFE: u64 = 60_000;
/// The last client version that wants errors as text.
const LAST_TEXT_VERSION: (u64, u64, u64) = (3, 0, 37);
/// Where the owner's login key is kept.
pub(in crate::server) const PKAM_KEY: &str = "privatekey:at_pkam_publickey";
/// Where the activation secret is kept until it is used up.
pub(in crate::server) const SECRET: &str = "privatekey:at_secret";
/// Set once the activation secret was deleted.
pub(in crate::server) const SECRET_DELETED: &str = "privatekey:at_secret_deleted";

/// What `pkam` claims.
pub(super) struct PkamSignature {
    pub signing: SigningAlgo,
    pub hashing: HashingAlgo,
    pub enrollment: Option<String>,
    pub signature: String,
}

impl Session {
    pub(super) fn from(&mut self, tx: &mut Tx<'_>, who: AtSign, config: Option<&str>) -> Handled {
        if let Some(config) = config {
            let config = ClientConfig::parse(config)?;
            (self.json_errors, self.longest_line) = (config.json_errors, config.longest_line);
        }
        if !lists::admits(tx, &self.home, &who)? {
            return Err(refuse(Code::Blocked, "Unable to connect"));
        }
        self.traces.push(Trace::Came(self.now));
        let nonce = tx.new_id()?;
        let text = format!("{}{who}:{nonce}", self.id);
        let answer = if who == self.home.who {
            text.clone()
        } else {
            format!("proof:{text}")
        };
        self.challenge = Some(Challenge {
            who,
            nonce,
            text,
            until: self.now.saturating_add(CHALLENGE_LIFE),
        });
        Ok(CommandAnswer::Data(answer))
    }

    /// The open challenge for the owner.
    fn own_challenge(&self) -> Option<&Challenge> {
        let open = self.challenge.as_ref()?;
        (open.who == self.home.who && self.now < open.until).then_some(open)
    }

    fn leave(&mut self) {
        self.who = Who::Stranger;
        self.by_cram = false;
    }

    pub(super) fn cram(&mut self, tx: &Tx<'_>, digest: &str) -> Handled {
        self.leave();
        let failed = || refuse(Code::Unauthenticated, "Authentication Failed");
        let Some(secret) = self.home.live(tx, SECRET, self.now)? else {
            let text = format!("{SECRET} does not exist in keystore");
            return Err(refuse(Code::KeyNotFound, text));
        };
        let challenge = self.own_challenge().ok_or_else(failed)?;
        let expected = cram_digest(&secret.value, &challenge.text);
        if !same(expected.as_bytes(), digest.as_bytes()) {
            return Err(failed());
        }
        self.who = Who::Owner(None);
        self.by_cram = true;
        success()
    }

    pub(super) fn pkam(&mut self, tx: &Tx<'_>, claim: &PkamSignature) -> Handled {
        self.leave();
        let failed = || refuse(Code::Unauthenticated, "pkam authentication failed");
        let Some(id) = &claim.enrollment else {
            let key = self.home.live(tx, PKAM_KEY, self.now)?;
            if !key.is_some_and(|key| self.is_signed(claim, claim.signing, &key.value)) {
                return Err(failed());
            }
            return self.logged_in(None);
        };
        let found = enrolment::find_or_over(tx, &self.home, id, self.now)?;
        let signed = found.as_ref().is_some_and(|(found, _)| {
            let known = found.signing_algo.as_deref().and_then(SigningAlgo::parse);
            self.is_signed(claim, known.unwrap_or(claim.signing), &found.public_key)
        });
        let usable = usable(id, found).map_err(|refusal| Refusal {
            proven: signed,
            ..refusal
        })?;
        if !signed {
            return Err(failed());
        }
        self.logged_in(Some(usable.grant()))
    }

    fn logged_in(&mut self, grant: Option<Grant>) -> Handled {
        self.traces.push(Trace::LoggedIn(self.now));
        self.who = Who::Owner(grant);
        success()
    }

    /// Whether the open challenge was signed with this key.
    fn is_signed(&self, claim: &PkamSignature, signing: SigningAlgo, key: &str) -> bool {
        let how = (signing, claim.hashing);
        self.own_challenge()
            .is_some_and(|open| verify(how, key, open.text.as_bytes(), &claim.signature))
    }

    pub(super) fn pol(&mut self, tx: &Tx<'_>) -> Handled {
        self.leave();
        let open = self.challenge.as_ref();
        let Some(open) = open.filter(|open| open.who != self.home.who && self.now < open.until)
        else {
            let refusal = refuse(Code::InternalException, "from must come before pol");
            return Err(refusal.closing());
        };
        let proof = Proof {
            signature_at: format!("{}{}", self.id, open.who),
            key_at: format!("signing_publickey{}", open.who),
            caller: open.who.clone(),
            nonce: open.nonce.clone(),
        };
        // The caller may live in the same process: then the answers are at hand.
        let Some(entry) = register::find(tx, &proof.caller)? else {
            return Ok(CommandAnswer::Next(FollowUp::Prove(Box::new(proof))));
        };
        let look = |key: &str| {
            let found = entry.home.live(tx, &format!("public:{key}"), self.now);
            found.map(|found| found.map(|found| found.value))
        };
        let found = look(&proof.signature_at)?.zip(look(&proof.key_at)?);
        self.judge(&proof, found)
    }

    /// Goes on after [`FollowUp::Prove`]: the signature and the signing key that the caller's server showed, if it did.
    pub fn proven(&mut self, proof: &Proof, found: Option<(String, String)>) -> CommandOutcome {
        let handled = self.judge(proof, found);
        self.outcome(handled)
    }

    fn judge(&mut self, proof: &Proof, found: Option<(String, String)>) -> Handled {
        let good = found.is_some_and(|(signature, key)| {
            PublicKey::parse(&key)
                .is_ok_and(|key| key.verify(proof.nonce.as_bytes(), &signature).is_ok())
        });
        if !good {
            return Err(refuse(Code::Unauthenticated, "Pol Authentication Failed"));
        }
        self.traces.push(Trace::Proved(proof.caller.clone()));
        self.who = Who::Peer(proof.caller.clone());
        Ok(CommandAnswer::Prompt)
    }
}

/// An enrolment that may be used, or why not. `true` beside one: it has not expired.
fn usable(id: &str, found: Option<(StoredEnrolment, bool)>) -> Result<StoredEnrolment, Refusal> {
    let Some((found, true)) = found else {
        return Err(Refusal::unknown_enrolment(id));
    };
    let (code, state) = match found.state {
        EnrolmentState::Approved => return Ok(found),
        EnrolmentState::Denied => (Code::EnrollmentDenied, "denied"),
        EnrolmentState::Pending => (Code::EnrollmentPending, "pending"),
        EnrolmentState::Revoked => (Code::EnrollmentRevoked, "revoked"),
    };
    Err(Refusal::state(
        code,
        format!("enrollment_id: {id} is {state}"),
    ))
}

/// What a client tells of itself behind `clientConfig:`.
#[derive(Debug, PartialEq, Eq)]
struct ClientConfig {
    /// Its version wants errors as JSON.
    json_errors: bool,
    /// The longest line that its monitor is to be sent, in bytes.
    longest_line: Option<usize>,
}

impl ClientConfig {
    fn parse(config: &str) -> Result<Self, Refusal> {
        let unreadable = || refuse(Code::InvalidSyntax, "Invalid syntax. clientConfig");
        let Ok(Value::Object(config)) = json::from_str::<Value>(config) else {
            return Err(unreadable());
        };
        let Some(Value::String(version)) = config.get("version") else {
            return Err(unreadable());
        };
        let longest_line = match config.get(LONGEST_LINE) {
            Some(Value::String(bytes)) => bytes.parse().ok(),
            _ => None,
        };
        Ok(Self {
            json_errors: wants_json(version).ok_or_else(unreadable)?,
            longest_line,
        })
    }
}

/// Whether a client of this version wants errors as JSON.
fn wants_json(version: &str) -> Option<bool> {
    let core = version.split(['-', '+']).next().unwrap_or_default();
    let mut parts = core.splitn(3, '.').map(|part| part.parse::<u64>().ok());
    let mut part = || parts.next().flatten();
    Some((part()?, part()?, part()?) > LAST_TEXT_VERSION)
}

/// Whether this signature over the message is the key's.
pub(super) fn verify(
    how: (SigningAlgo, HashingAlgo),
    key: &str,
    message: &[u8],
    signature: &str,
) -> bool {
    match how {
        (SigningAlgo::Rsa2048, hashing) => PublicKey::parse(key).is_ok_and(|key| match hashing {
            HashingAlgo::Sha256 => key.verify(message, signature).is_ok(),
            HashingAlgo::Sha512 => key.verify_sha512(message, signature).is_ok(),
        }),
        (SigningAlgo::EccSecp256r1, HashingAlgo::Sha256) => {
            verify_ecc(key, message, signature).is_some()
        }
        (SigningAlgo::EccSecp256r1, HashingAlgo::Sha512) => false,
    }
}

/// The key is the uncompressed point in hex; the signature is base64 of the hex of `r ‖ s`.
fn verify_ecc(key: &str, message: &[u8], signature: &str) -> Option<()> {
    let point = from_hex(key)?;
    let hex = from_base64(signature).ok()?;
    let signature = from_hex(str::from_utf8(&hex).ok()?)?;
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
        .verify(message, &signature)
        .ok()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let bytes = text.trim().as_bytes();
    if !bytes.len().is_multiple_of(2) || !bytes.is_ascii() {
        return None;
    }
    let digit = |c: u8| char::from(c).to_digit(16);
    bytes
        .chunks(2)
        .map(|pair| u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).ok())
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use ring::{
        rand::SystemRandom,
        signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
    };

    #[test]
    fn versions_decide_the_form_of_errors() {
        for (config, json) in [
            (r#"{"version":"3.0.37"}"#, Some(false)),
            (r#"{"version":"3.0.38","clientId":"x"}"#, Some(true)),
            (r#"{"version":"3.1.0-dev+1"}"#, Some(true)),
            (r#"{"version":"2.9.99"}"#, Some(false)),
            (r#"{"version":"new"}"#, None),
            (r#"{"clientId":"x"}"#, None),
            ("[]", None),
            ("{", None),
        ] {
            let parsed = ClientConfig::parse(config).ok();
            assert_eq!(parsed.map(|one| one.json_errors), json, "{config}");
        }
    }

    #[test]
    fn the_longest_line_of_a_monitor_is_read_and_nonsense_is_none() {
        for (limit, want) in [
            (r#""65536""#, Some(65536)),
            (r#""0""#, Some(0)),
            ("65536", None),
            (r#""-1""#, None),
            (r#""99999999999999999999999""#, None),
            ("null", None),
        ] {
            let config = format!(r#"{{"version":"3.0.37","{LONGEST_LINE}":{limit}}}"#);
            let parsed = ClientConfig::parse(&config).unwrap();
            assert_eq!((parsed.json_errors, parsed.longest_line), (false, want));
        }
        let ours = crate::at::auth::ask_with_limit(&"@alice".parse().unwrap(), 7).to_string();
        let config = ours.strip_prefix("from:@alice:clientConfig:").unwrap();
        assert_eq!(ClientConfig::parse(config).unwrap().longest_line, Some(7));
    }

    #[test]
    fn ecc_signatures_are_hex_in_base64() {
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let random = SystemRandom::new();
        let kind = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let pair = EcdsaKeyPair::generate_pkcs8(kind, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(kind, pair.as_ref(), &random).unwrap();
        let signature = pair.sign(&random, b"text").unwrap();
        let signature = crate::at::crypto::to_base64(hex(signature.as_ref()).as_bytes());
        let key = hex(pair.public_key().as_ref());
        assert!(verify_ecc(&key, b"text", &signature).is_some());
        assert!(verify_ecc(&key, b"other", &signature).is_none());
        assert!(verify_ecc("04zz", b"text", &signature).is_none());
        assert!(verify_ecc(&key, b"text", "AAAA").is_none());
    }
}
