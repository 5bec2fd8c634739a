//! "Open a session" and its answer.
//!
//! ```text
//!   client ── envelope{direct, sessionId, host, port B, nonces, ephemeral public key} ─▶ daemon
//!   client ◀── envelope{status, sessionId, session keys wrapped for that public key} ──
//!         or ◀── one line of plain text: why not
//! ```
//!
//! The daemon makes the session's keys: one for both directions, or one for each (*twin keys*) when both
//! ends know them. With a single key both directions run through the same key stream, so whoever sees
//! both (the rendezvous does) can combine them; with ssh inside that gives nothing away.
//!
//! Source: noports:packages/dart/noports_core/lib/src/sshnp/impl/notification_request_message.dart and
//! noports:packages/dart/noports_core/lib/src/sshnpd/sshnpd_impl.dart.

use miniserde::{Deserialize, Serialize, json};

use super::{
    Message, NAMESPACE,
    envelope::{self, Envelope, EnvelopeError},
    ids::{BadId, DeviceName, Nonce, SessionId},
    ports::host_is_plain,
};
use crate::at::{
    AtSign,
    crypto::{self, AesKey, CryptoError, Iv, KeyPair, PublicKey},
};
use crate::secret::Secret;

pub use tunnel::{TunnelRequest, accept_tunnel, tunnel_request_entity};

pub mod tunnel;

/// What a client asks of a daemon, member by member in wire order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshRequest {
    /// The session.
    pub session: SessionId,
    /// The rendezvous.
    pub host: String,
    /// The daemon's port there (B).
    pub port: u16,
    /// The client's half of the admission line.
    pub client_nonce: Nonce,
    /// The rendezvous' half.
    pub rendezvous_nonce: Nonce,
    /// Fresh public key for the answer's session keys.
    pub ephemeral: PublicKey,
    /// Whether the client can take one key per direction.
    pub twin_keys: bool,
}

/// The member that only newer clients send, and only when they want another login at the rendezvous.
#[derive(Deserialize)]
struct LoginMode {
    #[serde(rename = "relayAuthMode")]
    mode: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Wire {
    direct: bool,
    #[serde(rename = "sessionId")]
    session: String,
    host: String,
    port: u16,
    #[serde(rename = "authenticateToRvd")]
    authenticate: Option<bool>,
    #[serde(rename = "clientNonce")]
    client_nonce: Option<String>,
    #[serde(rename = "rvdNonce")]
    rendezvous_nonce: Option<String>,
    #[serde(rename = "encryptRvdTraffic")]
    encrypt: Option<bool>,
    #[serde(rename = "clientEphemeralPK")]
    ephemeral: Option<String>,
    #[serde(rename = "clientEphemeralPKType")]
    ephemeral_type: Option<String>,
    #[serde(rename = "twinKeys")]
    twin_keys: Option<bool>,
}

/// Why a request is refused. Printed as it is to the client, if the client is allowed to hear anything.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The envelope.
    #[error("Signature not verified: {0}")]
    Envelope(#[from] EnvelopeError),
    /// A member is missing or makes no sense; holds its wire name.
    #[error("the request's {0} cannot be used")]
    Member(&'static str),
    /// The session id.
    #[error(transparent)]
    Id(#[from] BadId),
    /// Asks for something this daemon does not do.
    #[error("this daemon does not do {0}")]
    Unsupported(&'static str),
}

/// `ssh_request.<device>.sshnp`
pub fn ssh_request_entity(device: &DeviceName) -> String {
    format!("ssh_request.{device}.{NAMESPACE}")
}

/// `<session>.<device>.sshnp`: where the answer comes.
pub fn answer_entity(session: SessionId, device: &DeviceName) -> String {
    format!("{session}.{device}.{NAMESPACE}")
}

impl SshRequest {
    /// The signed message to the daemon.
    ///
    /// # Errors
    /// When the key cannot sign.
    pub fn message(
        &self,
        to: &AtSign,
        device: &DeviceName,
        key: &KeyPair,
    ) -> Result<Message, EnvelopeError> {
        let text = envelope::seal(&self.payload(), key)?;
        Ok(Message {
            to: to.clone(),
            entity: ssh_request_entity(device),
            text,
        })
    }

    fn payload(&self) -> String {
        json::to_string(&self.wire())
    }

    fn wire(&self) -> Wire {
        Wire {
            direct: true,
            session: self.session.to_string(),
            host: self.host.clone(),
            port: self.port,
            authenticate: Some(true),
            client_nonce: Some(self.client_nonce.to_string()),
            rendezvous_nonce: Some(self.rendezvous_nonce.to_string()),
            encrypt: Some(true),
            ephemeral: Some(self.ephemeral.text.clone()),
            ephemeral_type: Some("rsa2048".to_owned()),
            twin_keys: Some(self.twin_keys),
        }
    }

    /// Reads a request at the daemon. `signer` is the public key of the notification's sender.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub fn parse(text: &str, signer: &PublicKey) -> Result<Self, RequestError> {
        let envelope = Envelope::parse(text)?;
        let payload = envelope.verify(signer)?;
        let wire: Wire = json::from_str(payload).map_err(|_| RequestError::Member("form"))?;
        let login: LoginMode =
            json::from_str(payload).map_err(|_| RequestError::Member("relayAuthMode"))?;
        wire.check(login)
    }

    /// The session id a request claims, for telling the sender where its refusal belongs. Checked by nobody.
    pub fn claimed_session(text: &str) -> Option<SessionId> {
        #[derive(Deserialize)]
        struct Claim {
            #[serde(rename = "sessionId")]
            session: String,
        }
        let envelope = Envelope::parse(text).ok()?;
        json::from_str::<Claim>(envelope.unverified())
            .ok()?
            .session
            .parse()
            .ok()
    }
}

impl Wire {
    /// What every session needs, of whichever kind.
    fn check(self, login: LoginMode) -> Result<SshRequest, RequestError> {
        let session = self.session.parse()?;
        if !self.direct {
            return Err(RequestError::Unsupported("reverse ssh"));
        }
        if self.authenticate != Some(true) {
            return Err(RequestError::Unsupported(
                "sessions without a login to the rendezvous",
            ));
        }
        if login.mode.is_some_and(|mode| mode != "payload") {
            return Err(RequestError::Unsupported("that login to the rendezvous"));
        }
        if self.encrypt != Some(true) {
            return Err(RequestError::Unsupported("sessions without encryption"));
        }
        if self.ephemeral_type.as_deref() != Some("rsa2048") {
            return Err(RequestError::Member("clientEphemeralPKType"));
        }
        if !host_is_plain(&self.host) || self.port == 0 {
            return Err(RequestError::Member("host and port"));
        }
        let nonce = |text: Option<String>| text.unwrap_or_default().parse::<Nonce>();
        Ok(SshRequest {
            session,
            host: self.host,
            port: self.port,
            client_nonce: nonce(self.client_nonce)?,
            rendezvous_nonce: nonce(self.rendezvous_nonce)?,
            ephemeral: PublicKey::parse(&self.ephemeral.unwrap_or_default())
                .map_err(|_| RequestError::Member("clientEphemeralPK"))?,
            twin_keys: self.twin_keys == Some(true),
        })
    }
}

/// Key and first counter block of one direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamKey {
    /// AES-256.
    pub key: AesKey,
    /// First counter block.
    pub iv: Iv,
}

impl StreamKey {
    /// Fresh random ones.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn random() -> Result<Self, CryptoError> {
        Ok(Self {
            key: crypto::new_aes_key()?,
            iv: crypto::random()?,
        })
    }
}

/// The keys of one session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    /// Client to device; without twin keys, both directions.
    pub to_device: StreamKey,
    /// Device to client.
    pub to_client: Option<StreamKey>,
}

impl Keys {
    /// Fresh ones: two streams when the client takes twin keys, else one.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn random(twin: bool) -> Result<Self, CryptoError> {
        let to_client = if twin {
            Some(StreamKey::random()?)
        } else {
            None
        };
        Ok(Self {
            to_device: StreamKey::random()?,
            to_client,
        })
    }

    /// One key per direction?
    pub fn are_twin(&self) -> bool {
        self.to_client.is_some()
    }
}

const CONNECTED: &str = "connected";

/// The daemon's yes to an ssh session.
///
/// # Errors
/// When keys cannot be wrapped or the answer not signed.
pub fn accept(
    request: &SshRequest,
    keys: &Keys,
    to: &AtSign,
    device: &DeviceName,
    signer: &KeyPair,
) -> Result<Message, EnvelopeError> {
    answer(AnswerKind::Ssh, request, keys, to, device, signer)
}

/// What was asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum AnswerKind {
    /// Answers have a member for a temporary ssh key, which nobody needs where the stream is encrypted.
    Ssh,
    Tunnel,
}

fn answer(
    kind: AnswerKind,
    request: &SshRequest,
    keys: &Keys,
    to: &AtSign,
    device: &DeviceName,
    signer: &KeyPair,
) -> Result<Message, EnvelopeError> {
    let payload = answer_payload(kind, request, keys).map_err(|_| EnvelopeError::Signing)?;
    Ok(Message {
        to: to.clone(),
        entity: answer_entity(request.session, device),
        text: envelope::seal(&payload, signer)?,
    })
}

/// All key members hold base64 texts, each wrapped on its own.
fn answer_payload(
    kind: AnswerKind,
    request: &SshRequest,
    keys: &Keys,
) -> Result<String, CryptoError> {
    let session = request.session.to_string();
    let mut text = format!(r#"{{"status":"{CONNECTED}","sessionId":"{session}""#);
    if kind == AnswerKind::Ssh {
        text += r#","ephemeralPrivateKey":null"#;
    }
    let mut add = |stream: &StreamKey, names: [&str; 2]| -> Result<(), CryptoError> {
        let key = crypto::aes_key_to_base64(&stream.key);
        let iv = crypto::to_base64(&stream.iv);
        for (name, value) in names.into_iter().zip([key.reveal(), &iv]) {
            let wrapped = request.ephemeral.wrap(value)?;
            text += &format!(r#","{name}":"{wrapped}""#);
        }
        Ok(())
    };
    match &keys.to_client {
        None => add(&keys.to_device, ["sessionAESKey", "sessionIV"])?,
        Some(to_client) => {
            add(&keys.to_device, ["aesKeyC2D", "ivC2D"])?;
            add(to_client, ["aesKeyD2C", "ivD2C"])?;
        }
    }
    Ok(text + "}")
}

/// The daemon's no: plain text, which no generation takes for an envelope.
pub fn refuse(session: SessionId, why: &str, to: &AtSign, device: &DeviceName) -> Message {
    let text = why.trim_start_matches('{').replace(['\r', '\n'], " ");
    Message {
        to: to.clone(),
        entity: answer_entity(session, device),
        text,
    }
}

/// Why the daemon's answer cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// The daemon said no, in its own words.
    #[error("the device refused: {0}")]
    Refused(String),
    /// Not signed by the device's atSign, or not an envelope.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// For another session.
    #[error("the device answered for another session")]
    OtherSession,
    /// A status that is not `connected`.
    #[error("the device answered with status {0:?}")]
    Status(String),
    /// Members are missing or cannot be unwrapped.
    #[error("the device's session keys cannot be used")]
    Keys,
}

/// Longest refusal that is shown, in characters.
const MAX_REFUSAL: usize = 300;

#[derive(Deserialize)]
struct AnswerWire {
    status: Option<String>,
    #[serde(rename = "sessionId")]
    session: String,
    #[serde(rename = "sessionAESKey")]
    key: Option<String>,
    #[serde(rename = "sessionIV")]
    iv: Option<String>,
    #[serde(rename = "aesKeyC2D")]
    key_to_device: Option<String>,
    #[serde(rename = "ivC2D")]
    iv_to_device: Option<String>,
    #[serde(rename = "aesKeyD2C")]
    key_to_client: Option<String>,
    #[serde(rename = "ivD2C")]
    iv_to_client: Option<String>,
}

/// Reads the daemon's answer at the client.
///
/// # Errors
/// See [`AnswerError`]. Upstream compares neither session nor status; both count here.
pub fn read_answer(
    text: &str,
    session: SessionId,
    signer: &PublicKey,
    ephemeral: &KeyPair,
) -> Result<Keys, AnswerError> {
    if !text.starts_with('{') {
        let shown = text
            .chars()
            .filter(|c| !c.is_control())
            .take(MAX_REFUSAL)
            .collect();
        return Err(AnswerError::Refused(shown));
    }
    let envelope = Envelope::parse(text)?;
    let wire: AnswerWire =
        json::from_str(envelope.verify(signer)?).map_err(|_| AnswerError::Keys)?;
    if wire.session != session.to_string() {
        return Err(AnswerError::OtherSession);
    }
    let status = wire.status.unwrap_or_default();
    if status != CONNECTED {
        return Err(AnswerError::Status(status.chars().take(32).collect()));
    }
    let to_device = unwrap(
        wire.key.or(wire.key_to_device),
        wire.iv.or(wire.iv_to_device),
        ephemeral,
    )?;
    let to_client = match (wire.key_to_client, wire.iv_to_client) {
        (Some(key), Some(iv)) => Some(unwrap(Some(key), Some(iv), ephemeral)?),
        _ => None,
    };
    Ok(Keys {
        to_device,
        to_client,
    })
}

fn unwrap(
    key: Option<String>,
    iv: Option<String>,
    ephemeral: &KeyPair,
) -> Result<StreamKey, AnswerError> {
    let open = |text: Option<String>| -> Result<Secret<String>, AnswerError> {
        ephemeral
            .unwrap(&text.ok_or(AnswerError::Keys)?)
            .map_err(|_| AnswerError::Keys)
    };
    Ok(StreamKey {
        key: crypto::aes_key_from_base64(open(key)?.reveal()).map_err(|_| AnswerError::Keys)?,
        iv: crypto::iv_from_base64(open(iv)?.reveal()).map_err(|_| AnswerError::Keys)?,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use super::*;

    /// The known answers, by path.
    pub(in crate::np) struct Vectors(json::Value);

    pub(in crate::np) fn vectors() -> Vectors {
        Vectors(json::from_str(include_str!("../../tests/vectors/noports.json")).unwrap())
    }

    pub(in crate::np) fn vectors_2026() -> Vectors {
        Vectors(json::from_str(include_str!("../../tests/vectors/noports-2026.json")).unwrap())
    }

    impl Vectors {
        fn at(&self, path: &[&str]) -> &json::Value {
            path.iter().fold(&self.0, |value, name| match value {
                json::Value::Object(members) => &members[*name],
                _ => panic!("{path:?}: no object at {name}"),
            })
        }

        pub(in crate::np) fn text(&self, path: &[&str]) -> String {
            match self.at(path) {
                json::Value::String(text) => text.clone(),
                other => panic!("{path:?}: {}", json::to_string(other)),
            }
        }

        pub(in crate::np) fn names(&self, section: &str) -> Vec<String> {
            match self.at(&[section]) {
                json::Value::Object(members) => members.keys().cloned().collect(),
                _ => panic!("{section}"),
            }
        }

        pub(in crate::np) fn key(&self, who: &str) -> KeyPair {
            KeyPair::parse(&self.text(&["keys", who, "privateKeyPkcs8Base64"])).unwrap()
        }
    }

    pub(super) const SESSION: &str = "6f1c1c1e-6d0a-4a53-9d0a-0d4f7a2b9c11";

    pub(super) fn request(twin_keys: bool) -> SshRequest {
        SshRequest {
            session: SESSION.parse().unwrap(),
            host: "127.0.0.1".into(),
            port: 40190,
            client_nonce: "2024-10-24T10:15:30.123456".parse().unwrap(),
            rendezvous_nonce: "2024-10-24T10:15:31.654321".parse().unwrap(),
            ephemeral: vectors().key("session").public().clone(),
            twin_keys,
        }
    }

    #[test]
    fn our_request_is_version_5s_with_twin_keys_at_its_end() {
        let known = vectors().text(&["envelopes", "v5_ssh_request", "signingInput"]);
        let want = known.strip_suffix('}').unwrap().to_owned() + r#","twinKeys":true}"#;
        assert_eq!(request(true).payload(), want);
    }

    #[test]
    fn requests_of_every_direct_encrypting_client_can_be_read() {
        let v = vectors();
        let signer = v.key("@client_example").public().clone();
        let text = v.text(&["envelopes", "v5_ssh_request", "envelope"]);
        assert_eq!(SshRequest::parse(&text, &signer), Ok(request(false)));
        assert_eq!(
            SshRequest::claimed_session(&text),
            Some(request(false).session)
        );

        // 2026's, as it is when the login at the rendezvous is the classic one; its newer login is refused by name.
        let newest = vectors_2026().text(&["sessionRequests", "ssh_request", "value"]);
        let refusal = RequestError::Unsupported("that login to the rendezvous");
        assert_eq!(SshRequest::parse(&newest, &signer), Err(refusal));
        let payload = Envelope::parse(&newest)
            .unwrap()
            .unverified()
            .replace(r#""escr""#, r#""payload""#);
        let sealed = envelope::seal(&payload, &v.key("@client_example")).unwrap();
        assert!(SshRequest::parse(&sealed, &signer).unwrap().twin_keys);
    }

    #[test]
    fn each_bad_member_is_refused_by_its_name() {
        let v = vectors();
        let key = v.key("@client_example");
        let good = request(true).payload();
        for (from, to, want) in [
            (
                r#""direct":true"#,
                r#""direct":false"#,
                RequestError::Unsupported("reverse ssh"),
            ),
            (r#""direct":true,"#, "", RequestError::Member("form")),
            (
                r#""port":40190"#,
                r#""port":"40190""#,
                RequestError::Member("form"),
            ),
            (
                r#""port":40190"#,
                r#""port":0"#,
                RequestError::Member("host and port"),
            ),
            (
                r#""host":"127.0.0.1""#,
                r#""host":"a b""#,
                RequestError::Member("host and port"),
            ),
            (
                r#""encryptRvdTraffic":true"#,
                r#""encryptRvdTraffic":null"#,
                RequestError::Unsupported("sessions without encryption"),
            ),
            (
                r#""authenticateToRvd":true,"#,
                "",
                RequestError::Unsupported("sessions without a login to the rendezvous"),
            ),
            (SESSION, "../../etc", RequestError::Id(BadId::Session)),
            (
                "2024-10-24T10:15:30.123456",
                "",
                RequestError::Id(BadId::Nonce),
            ),
            (
                "rsa2048",
                "rsa1024",
                RequestError::Member("clientEphemeralPKType"),
            ),
            ("MIIB", "AAAA", RequestError::Member("clientEphemeralPK")),
        ] {
            let sealed = envelope::seal(&good.replace(from, to), &key).unwrap();
            assert_eq!(
                SshRequest::parse(&sealed, key.public()),
                Err(want),
                "{from} -> {to}"
            );
        }
    }

    #[test]
    fn a_request_signed_by_somebody_else_is_refused() {
        let v = vectors();
        let sealed = envelope::seal(&request(true).payload(), &v.key("@device_example")).unwrap();
        let verdict = SshRequest::parse(&sealed, v.key("@client_example").public());
        assert_eq!(
            verdict,
            Err(RequestError::Envelope(EnvelopeError::Signature))
        );
    }

    #[test]
    fn every_generations_answer_gives_the_known_keys() {
        let v = vectors();
        let (device, ephemeral) = (v.key("@device_example"), v.key("session"));
        let wrap = |member: &str| v.text(&["sessionKeyWrap", member]);
        for (name, twin) in [
            ("v5_ssh_response_c_daemon", false),
            ("v5_npt_response", false),
            ("v58_twin_response", true),
        ] {
            let text = v.text(&["envelopes", name, "envelope"]);
            let keys =
                read_answer(&text, SESSION.parse().unwrap(), device.public(), &ephemeral).unwrap();
            assert_eq!(
                crypto::aes_key_to_base64(&keys.to_device.key).reveal(),
                &wrap("aesKeyBase64"),
                "{name}"
            );
            assert_eq!(
                crypto::to_base64(&keys.to_device.iv),
                wrap("ivBase64"),
                "{name}"
            );
            assert_eq!(keys.are_twin(), twin, "{name}");
        }
    }

    #[test]
    fn our_answers_come_back_as_the_same_keys() {
        let v = vectors();
        let (device, ephemeral) = (v.key("@device_example"), v.key("session"));
        let (to, name) = (
            "@client_example".parse().unwrap(),
            "my_device".parse().unwrap(),
        );
        for twin in [false, true] {
            let keys = Keys::random(twin).unwrap();
            let message = accept(&request(twin), &keys, &to, &name, &device).unwrap();
            assert_eq!(message.entity, format!("{SESSION}.my_device.sshnp"));
            let back = read_answer(
                &message.text,
                SESSION.parse().unwrap(),
                device.public(),
                &ephemeral,
            );
            assert_eq!(back, Ok(keys), "twin: {twin}");
        }
    }

    #[test]
    fn an_answer_for_another_session_or_of_another_status_or_signer_is_refused() {
        let v = vectors();
        let (device, ephemeral) = (v.key("@device_example"), v.key("session"));
        let text = v.text(&["envelopes", "v5_npt_response", "envelope"]);
        let session: SessionId = SESSION.parse().unwrap();
        let read = |text: &str, session| read_answer(text, session, device.public(), &ephemeral);
        assert_eq!(
            read(&text, SessionId::random()),
            Err(AnswerError::OtherSession)
        );
        let other_signer = read_answer(
            &text,
            session,
            v.key("@client_example").public(),
            &ephemeral,
        );
        assert_eq!(
            other_signer,
            Err(AnswerError::Envelope(EnvelopeError::Signature))
        );
        let payload = v.text(&["envelopes", "v5_npt_response", "signingInput"]);
        for (from, to, want) in [
            (
                r#""connected""#,
                r#""failed""#,
                AnswerError::Status("failed".into()),
            ),
            (r#""sessionIV""#, r#""sessionXX""#, AnswerError::Keys),
            (
                r#""sessionAESKey":"VW"#,
                r#""sessionAESKey":"AA"#,
                AnswerError::Keys,
            ),
        ] {
            let sealed = envelope::seal(&payload.replace(from, to), &device).unwrap();
            assert_eq!(read(&sealed, session), Err(want), "{from} -> {to}");
        }
    }

    #[test]
    fn a_refusal_is_shown_and_cannot_pass_for_an_envelope() {
        let v = vectors();
        let no = refuse(
            SESSION.parse().unwrap(),
            "{not\nhere",
            &"@c".parse().unwrap(),
            &"d".parse().unwrap(),
        );
        assert_eq!(no.text, "not here");
        let verdict = read_answer(
            "Daemon does not permit\x1b[2J",
            SESSION.parse().unwrap(),
            v.key("@device_example").public(),
            &v.key("session"),
        );
        assert_eq!(
            verdict,
            Err(AnswerError::Refused("Daemon does not permit[2J".into()))
        );
    }
}
