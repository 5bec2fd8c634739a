//! What clients send with `enroll`, and what of it is taken.

use std::collections::BTreeMap;

use miniserde::{
    Deserialize,
    json::{self, Value},
};

use crate::{
    at::{fault::Code, verb::SigningAlgo},
    server::{
        enrolment::{EnrolmentState, StoredEnrolment},
        refusal::{Refusal, refuse},
    },
};

/// Longest text in a request, in bytes: keys are below 1 KiB.
const MAX_TEXT: usize = 4096;
/// Longest signing keys in a request, in bytes.
const MAX_SIGNING_KEYS: usize = 20 * 1024;
/// Longest metadata of an enrolment, in bytes.
const MAX_METADATA: usize = 20 * 1024;
/// Most namespaces in one request.
const MAX_NAMESPACES: usize = 50;

/// What clients send; unknown members are ignored.
#[derive(Default, Deserialize)]
pub(super) struct EnrollParams {
    #[serde(rename = "enrollmentId")]
    pub id: Option<String>,
    #[serde(rename = "appName")]
    pub app: Option<String>,
    #[serde(rename = "deviceName")]
    pub device: Option<String>,
    pub namespaces: Option<BTreeMap<String, String>>,
    pub otp: Option<String>,
    #[serde(rename = "encryptedDefaultEncryptionPrivateKey")]
    pub private_key: Option<String>,
    #[serde(rename = "encryptedDefaultSelfEncryptionKey")]
    pub self_key: Option<String>,
    #[serde(rename = "encryptedAPKAMSymmetricKey")]
    pub symmetric_key: Option<String>,
    #[serde(rename = "apkamPublicKey")]
    pub public_key: Option<String>,
    /// Signing keys to publish: JSON in the newer form, bare text in the older; not both.
    pub apsk: Option<Value>,
    #[serde(rename = "apskLegacy")]
    pub apsk_legacy: Option<String>,
    #[serde(rename = "enrollmentStatusFilter")]
    pub filter: Option<Vec<String>>,
    #[serde(rename = "apkamKeysExpiryInMillis")]
    pub life: Option<u64>,
    #[serde(rename = "encPrivateKeyIV")]
    pub private_key_iv: Option<String>,
    #[serde(rename = "selfEncKeyIV")]
    pub self_key_iv: Option<String>,
    #[serde(rename = "signingAlgo")]
    pub signing_algo: Option<String>,
    /// Of `enroll:update`: proof of having the private half of the new `apkamPublicKey`.
    #[serde(rename = "apkamPublicKeySignature")]
    pub proof: Option<String>,
    pub metadata: Option<json::Object>,
}

pub(super) fn wrong(text: impl Into<String>) -> Refusal {
    refuse(Code::InternalException, text)
}

pub(super) fn limited(text: Option<&str>) -> Option<String> {
    text.filter(|text| !text.is_empty() && text.len() <= MAX_TEXT)
        .map(str::to_owned)
}

pub(super) fn new_enrollment(
    id: String,
    params: &EnrollParams,
    by_cram: bool,
) -> Result<StoredEnrolment, Refusal> {
    let text = |given: &Option<String>, name: &str| {
        limited(given.as_deref()).ok_or_else(|| wrong(format!("{name} is mandatory")))
    };
    let namespaces = params.namespaces.clone().unwrap_or_default();
    let proper = namespaces.len() <= MAX_NAMESPACES
        && namespaces.iter().all(|(name, right)| {
            (1..=100).contains(&name.len()) && matches!(right.as_str(), "r" | "rw")
        });
    if !proper || (namespaces.is_empty() && !by_cram) {
        return Err(wrong("at least one namespace with r or rw is mandatory"));
    }
    Ok(StoredEnrolment {
        id,
        app: text(&params.app, "appName")?,
        device: text(&params.device, "deviceName")?,
        namespaces,
        public_key: text(&params.public_key, "apkamPublicKey")?,
        state: EnrolmentState::Pending,
        symmetric_key: limited(params.symmetric_key.as_deref()),
        signing_keys: signing_keys(params)?,
        signing_algo: signing_algo(params)?,
        metadata: params.metadata.as_ref().map(metadata).transpose()?,
        revoked_at: None,
        life: params.life,
        expires_at: None,
    })
}

pub(super) fn signing_keys(params: &EnrollParams) -> Result<Option<String>, Refusal> {
    let keys = match (&params.apsk, &params.apsk_legacy) {
        (None, None) => return Ok(None),
        (Some(_), Some(_)) => return Err(wrong("either apsk or apskLegacy, not both")),
        (Some(Value::String(text)), None) => text.clone(),
        (Some(keys), None) => json::to_string(keys),
        (None, Some(text)) => text.clone(),
    };
    match keys.len() {
        1..=MAX_SIGNING_KEYS => Ok(Some(keys)),
        _ => Err(wrong("apsk is too long")),
    }
}

/// How the login key signs, if the request says so.
pub(super) fn signing_algo(params: &EnrollParams) -> Result<Option<String>, Refusal> {
    let Some(word) = &params.signing_algo else {
        return Ok(None);
    };
    match SigningAlgo::parse(word) {
        Some(_) => Ok(Some(word.clone())),
        None => Err(wrong(format!("signingAlgo {word} is not known here"))),
    }
}

/// The JSON of what a device says about itself.
pub(super) fn metadata(given: &json::Object) -> Result<String, Refusal> {
    let text = json::to_string(given);
    if text.len() > MAX_METADATA {
        return Err(wrong("metadata is too long"));
    }
    Ok(text)
}
