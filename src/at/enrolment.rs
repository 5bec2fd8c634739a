//! First keys of an atSign (activation) and keys for one more device (enrolment): requests and answers, no I/O.
//!
//! ```text
//!   activation   cram login ─▶ first_request ─▶ parse_answer ─▶ pkam login with the id ─▶ publish ─▶ forget_secret
//!   (old server) cram login ─▶ store_pkam_key ─────────────────▶ pkam login ───────────▶ publish ─▶ forget_secret
//!
//!   enrolment    new device:  lookup:publickey@alice ─▶ Applicant::request ─▶ parse_answer ─▶ pkam login until approved
//!                             ─▶ fetch both keys ─▶ Applicant::complete
//!                approver:    list ─▶ approve | deny | revoke
//! ```
//! Write the key file before `forget_secret`: after it the secret is of no more use.
//!
//! Source: at_libraries:packages/at_auth/lib/src/at_auth_impl.dart,
//! at_libraries:packages/at_auth/lib/src/enroll/at_enrollment_impl.dart.

use std::collections::BTreeMap;

use miniserde::{Deserialize, Serialize, json};

use crate::secret::Secret;

use super::{
    atsign::AtSign,
    crypto::{self, AesKey, CryptoError, KeyPair, PublicKey, ZERO_IV},
    fault::{Code, Fault},
    key::AtKey,
    keyfile::AtKeys,
    metadata::Metadata,
    share,
    verb::{EnrollOperation, KeysCommand, Verb},
};

/// Makes all keys of a new atSign. Slow (two RSA pairs): call it off the executor.
///
/// # Errors
/// When the system gives no random bytes.
pub fn mint(atsign: &AtSign) -> Result<AtKeys, CryptoError> {
    Ok(AtKeys {
        atsign: atsign.clone(),
        pkam: KeyPair::generate()?,
        encryption: KeyPair::generate()?,
        self_key: crypto::new_aes_key()?,
        apkam_symmetric: Some(crypto::new_aes_key()?),
        enrollment_id: None,
    })
}

/// `enroll:request:{"appName":"firstApp",…}` on a CRAM connection; approved at once.
///
/// # Errors
/// `BadKey` when the keys have no APKAM symmetric key, as [`mint`] makes.
pub fn first_request(keys: &AtKeys) -> Result<Verb, CryptoError> {
    #[derive(Serialize)]
    struct Request<'a> {
        #[serde(rename = "appName")]
        app_name: &'a str,
        #[serde(rename = "deviceName")]
        device_name: &'a str,
        #[serde(rename = "encryptedDefaultEncryptionPrivateKey")]
        encrypted_default_encryption_private_key: String,
        #[serde(rename = "encryptedDefaultSelfEncryptionKey")]
        encrypted_default_self_encryption_key: String,
        #[serde(rename = "apkamPublicKey")]
        apkam_public_key: &'a str,
    }
    let under = keys.apkam_symmetric.as_ref().ok_or(CryptoError::BadKey)?;
    let (private, self_key) = seal_defaults(keys, under);
    Ok(command(
        EnrollOperation::Request,
        &Request {
            app_name: "firstApp",
            device_name: "firstDevice",
            encrypted_default_encryption_private_key: private,
            encrypted_default_self_encryption_key: self_key,
            apkam_public_key: &keys.pkam.public().text,
        },
    ))
}

/// `{"enrollmentId":"…","status":"approved"}` → (id, status)
pub fn parse_answer(json: &str) -> Option<(String, String)> {
    #[derive(Deserialize)]
    struct Wire {
        #[serde(rename = "enrollmentId")]
        enrollment_id: String,
        status: String,
    }
    let answer: Wire = json::from_str(json).ok()?;
    let usable = is_id(&answer.enrollment_id);
    usable.then_some((answer.enrollment_id, answer.status))
}

/// Ids go into commands and key names: nothing but letters, digits and hyphens.
fn is_id(text: &str) -> bool {
    (1..=MAX_ID).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// Longest enrolment id: a UUID has 36 characters.
const MAX_ID: usize = 64;

/// Activation at a server without enrolment: `update:privatekey:at_pkam_publickey <key>` in place of [`first_request`].
pub fn store_pkam_key(keys: &AtKeys) -> Verb {
    Verb::Update {
        key: AtKey::private_key("at_pkam_publickey"),
        metadata: Metadata::default(),
        value: keys.pkam.public().text.clone(),
    }
}

/// `update:isEncrypted:false:public:publickey@alice <key>`: from now on others can encrypt to us.
pub fn publish(keys: &AtKeys) -> Verb {
    Verb::Update {
        key: AtKey::public("publickey", &keys.atsign),
        metadata: Metadata {
            is_encrypted: Some(false),
            ..Metadata::default()
        },
        value: keys.encryption.public().text.clone(),
    }
}

/// `delete:privatekey:at_secret`: ends the use of the secret for good.
pub fn forget_secret() -> Verb {
    Verb::Delete {
        key: AtKey::private_key("at_secret"),
        priority: None,
    }
}

/// A device that asks for keys of its own.
#[derive(Clone, Debug)]
pub struct Applicant {
    atsign: AtSign,
    pkam: KeyPair,
    symmetric: AesKey,
}

/// What an applicant asks for.
#[derive(Clone, Debug)]
pub struct EnrolmentRequest {
    /// Name of the program: `noports`.
    pub app: String,
    /// Name of the device; with the program's it must be new.
    pub device: String,
    /// Namespace → `r` or `rw`.
    pub namespaces: BTreeMap<String, String>,
    /// The pass code that somebody with keys handed over.
    pub otp: Secret<String>,
    /// How long the keys are to be good for, in milliseconds; for ever where it is absent.
    pub life: Option<u64>,
}

impl Applicant {
    /// Makes the keys. Slow (one RSA pair): call it off the executor.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn new(atsign: &AtSign) -> Result<Self, CryptoError> {
        Ok(Self {
            atsign: atsign.clone(),
            pkam: KeyPair::generate()?,
            symmetric: crypto::new_aes_key()?,
        })
    }

    /// `enroll:request:{…}`, before any login. `ours` is our own atSign's `publickey`. The line holds the pass code.
    ///
    /// # Errors
    /// When that key cannot encrypt.
    pub fn request(
        &self,
        request: &EnrolmentRequest,
        ours: &PublicKey,
    ) -> Result<Verb, CryptoError> {
        Ok(self.request_with(request, &share::wrap(&self.symmetric, ours)?))
    }

    fn request_with(&self, request: &EnrolmentRequest, wrapped: &str) -> Verb {
        #[derive(Serialize)]
        struct Request<'a> {
            #[serde(rename = "appName")]
            app_name: &'a str,
            #[serde(rename = "deviceName")]
            device_name: &'a str,
            namespaces: &'a BTreeMap<String, String>,
            otp: &'a str,
            #[serde(rename = "encryptedAPKAMSymmetricKey")]
            encrypted_apkam_symmetric_key: &'a str,
            #[serde(rename = "apkamPublicKey")]
            apkam_public_key: &'a str,
        }
        let mut params = json::to_string(&Request {
            app_name: &request.app,
            device_name: &request.device,
            namespaces: &request.namespaces,
            otp: request.otp.reveal(),
            encrypted_apkam_symmetric_key: wrapped,
            apkam_public_key: &self.pkam.public().text,
        });
        if let Some(life) = request.life {
            params.truncate(params.len() - 1);
            params += &format!(r#","apkamKeysExpiryInMillis":{life}}}"#);
        }
        enroll(EnrollOperation::Request, Some(params))
    }

    /// Whose keys it asks for.
    pub fn atsign(&self) -> &AtSign {
        &self.atsign
    }

    /// The applicant that wrote [`Applicant::provisional`] keys. `None`: those are somebody's real ones.
    pub fn resume(draft: &AtKeys) -> Option<Self> {
        let stand_in = draft.encryption.public() == draft.pkam.public();
        Some(Self {
            atsign: draft.atsign.clone(),
            pkam: draft.pkam.clone(),
            symmetric: draft.apkam_symmetric.clone().filter(|_| stand_in)?,
        })
    }

    /// Keys good enough to try the login with once the request has its id, and to go on with after a crash:
    /// the encryption pair is still our own stand-in.
    pub fn provisional(&self, id: Option<&str>) -> AtKeys {
        AtKeys {
            atsign: self.atsign.clone(),
            pkam: self.pkam.clone(),
            encryption: self.pkam.clone(),
            self_key: self.symmetric.clone(),
            apkam_symmetric: Some(self.symmetric.clone()),
            enrollment_id: id.map(str::to_owned),
        }
    }

    /// After approval: the answers to [`fetch_private_key`] and [`fetch_self_key`] → all keys.
    ///
    /// # Errors
    /// `BadKey` or `Decrypt` when the approver sent something else.
    pub fn complete(self, id: &str, private: &str, self_key: &str) -> Result<AtKeys, CryptoError> {
        #[derive(Deserialize)]
        struct Stored {
            value: String,
        }
        let open = |answer: &str| {
            let stored: Stored = json::from_str(answer).map_err(|_| CryptoError::BadKey)?;
            crypto::decrypt(&self.symmetric, &ZERO_IV, &stored.value).map(Secret::new)
        };
        let encryption = KeyPair::parse(open(private)?.reveal())?;
        let self_key = crypto::aes_key_from_base64(open(self_key)?.reveal())?;
        Ok(AtKeys {
            atsign: self.atsign,
            pkam: self.pkam,
            encryption,
            self_key,
            apkam_symmetric: Some(self.symmetric),
            enrollment_id: Some(id.to_owned()),
        })
    }
}

/// `keys:get:keyName:<id>.default_enc_private_key.__manage@alice`
pub fn fetch_private_key(who: &AtSign, id: &str) -> Verb {
    fetch(who, id, "default_enc_private_key")
}

/// `keys:get:keyName:<id>.default_self_enc_key.__manage@alice`
pub fn fetch_self_key(who: &AtSign, id: &str) -> Verb {
    fetch(who, id, "default_self_enc_key")
}

fn fetch(who: &AtSign, id: &str, name: &str) -> Verb {
    Verb::Keys(KeysCommand {
        operation: "get".to_owned(),
        key_name: Some(format!("{id}.{name}.__manage{who}")),
        ..KeysCommand::default()
    })
}

/// What a refused login says about an enrolment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnrolmentStatus {
    /// Ask again later.
    Pending,
    /// Somebody said no.
    Denied,
    /// It was taken back.
    Revoked,
    /// Too old, or never heard of.
    Expired,
}

/// Reads a refused login. `None`: it is about something else.
pub fn verdict(fault: &Fault) -> Option<EnrolmentStatus> {
    match fault.code? {
        // Servers say "not authenticated" until the request has reached all of their parts.
        Code::EnrollmentPending | Code::Unauthenticated => Some(EnrolmentStatus::Pending),
        Code::EnrollmentDenied => Some(EnrolmentStatus::Denied),
        Code::EnrollmentRevoked => Some(EnrolmentStatus::Revoked),
        Code::EnrollmentExpired => Some(EnrolmentStatus::Expired),
        _ => None,
    }
}

/// Reads a refused request: the enrolment that has these names already, `Another enrollment with id <id> exists …`.
pub fn twin(fault: &Fault) -> Option<String> {
    let (_, rest) = fault.text.split_once("Another enrollment with id ")?;
    let id = rest.split_whitespace().next()?;
    uuid::Uuid::try_parse(id).ok().map(|_| id.to_owned())
}

/// An enrolment as the server lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enrollment {
    /// Its id.
    pub id: String,
    /// Name of the program.
    pub app: String,
    /// Name of the device.
    pub device: String,
    /// Namespace → `r` or `rw`.
    pub namespaces: BTreeMap<String, String>,
    /// `pending`, `approved`, `denied`, `revoked` or `expired`.
    pub status: String,
    /// The applicant's key, encrypted to our public key; absent for the first program of an atSign.
    pub wrapped: Option<String>,
}

/// `enroll:list`, of one status or of all.
pub fn list(status: Option<&str>) -> Verb {
    #[derive(Serialize)]
    struct Filter<'a> {
        #[serde(rename = "enrollmentStatusFilter")]
        enrollment_status_filter: Vec<&'a str>,
    }
    match status {
        Some(status) => command(
            EnrollOperation::List,
            &Filter {
                enrollment_status_filter: vec![status],
            },
        ),
        None => enroll(EnrollOperation::List, None),
    }
}

/// Reads the answer to [`list`]. Entries without a usable id are left out. `None`: it is no list.
pub fn parse_list(json: &str) -> Option<Vec<Enrollment>> {
    #[derive(Deserialize)]
    struct Wire {
        #[serde(rename = "appName")]
        app_name: Option<String>,
        #[serde(rename = "deviceName")]
        device_name: Option<String>,
        namespace: Option<BTreeMap<String, String>>,
        #[serde(rename = "encryptedAPKAMSymmetricKey")]
        encrypted_apkam_symmetric_key: Option<String>,
        status: Option<String>,
    }
    let entries: BTreeMap<String, Wire> = json::from_str(json).ok()?;
    let read = |(key, entry): (String, Wire)| {
        let id = key.split('.').next().filter(|id| is_id(id))?;
        Some(Enrollment {
            id: id.to_owned(),
            app: entry.app_name.unwrap_or_default(),
            device: entry.device_name.unwrap_or_default(),
            namespaces: entry.namespace.unwrap_or_default(),
            status: entry.status.unwrap_or_default(),
            wrapped: entry.encrypted_apkam_symmetric_key,
        })
    };
    Some(entries.into_iter().filter_map(read).collect())
}

/// `enroll:approve:{…}`: hands our keys over, encrypted under the applicant's key. Decrypts RSA: off the executor.
///
/// # Errors
/// `Decrypt` when the applicant's key was not encrypted to ours.
pub fn approve(keys: &AtKeys, id: &str, wrapped: &str) -> Result<Verb, CryptoError> {
    #[derive(Serialize)]
    struct Approval<'a> {
        #[serde(rename = "enrollmentId")]
        enrollment_id: &'a str,
        #[serde(rename = "encryptedDefaultEncryptionPrivateKey")]
        encrypted_default_encryption_private_key: String,
        #[serde(rename = "encryptedDefaultSelfEncryptionKey")]
        encrypted_default_self_encryption_key: String,
    }
    let under = share::unwrap(&keys.encryption, wrapped)?;
    let (private, self_key) = seal_defaults(keys, &under);
    Ok(command(
        EnrollOperation::Approve,
        &Approval {
            enrollment_id: id,
            encrypted_default_encryption_private_key: private,
            encrypted_default_self_encryption_key: self_key,
        },
    ))
}

/// `enroll:deny:{…}`
pub fn deny(id: &str) -> Verb {
    by_id(EnrollOperation::Deny, id, false)
}

/// `enroll:revoke[:force]:{…}`; `force` is needed for our own.
pub fn revoke(id: &str, force: bool) -> Verb {
    by_id(EnrollOperation::Revoke, id, force)
}

/// `enroll:unrevoke:{…}`
pub fn unrevoke(id: &str) -> Verb {
    by_id(EnrollOperation::Unrevoke, id, false)
}

/// `enroll:delete:{…}`: only what was denied or revoked.
pub fn delete(id: &str) -> Verb {
    by_id(EnrollOperation::Delete, id, false)
}

fn by_id(operation: EnrollOperation, id: &str, force: bool) -> Verb {
    #[derive(Serialize)]
    struct Which<'a> {
        #[serde(rename = "enrollmentId")]
        enrollment_id: &'a str,
    }
    Verb::Enroll {
        operation,
        force,
        params: Some(json::to_string(&Which { enrollment_id: id })),
    }
}

fn command<T: Serialize>(operation: EnrollOperation, params: &T) -> Verb {
    enroll(operation, Some(json::to_string(params)))
}

fn enroll(operation: EnrollOperation, params: Option<String>) -> Verb {
    Verb::Enroll {
        operation,
        force: false,
        params,
    }
}

/// Encryption private key and self key, both under an APKAM symmetric key with the zero IV.
fn seal_defaults(keys: &AtKeys, under: &AesKey) -> (String, String) {
    let self_key = crypto::aes_key_to_base64(&keys.self_key);
    (
        crypto::encrypt(under, &ZERO_IV, keys.encryption.private_text().reveal()),
        crypto::encrypt(under, &ZERO_IV, self_key.reveal()),
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
