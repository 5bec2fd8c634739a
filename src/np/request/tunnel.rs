//! "Open a session to any port near you": `npt_request`.
//!
//! It says the same as an ssh request under partly other names, and what to open, and for how long the
//! session may stand without a connection. Nothing in it is ever null: daemons of 5.x stumble over that, so
//! what is not there is an empty text.
//!
//! Source: noports:packages/dart/noports_core/lib/src/common/types.dart and
//! noports:packages/dart/noports_core/lib/src/sshnp/impl/notification_request_message.dart.

use std::time::Duration;

use miniserde::{Deserialize, Serialize};

use super::{EPHEMERAL_TYPE, Meeting, Protection, RequestError, joined, read};
use crate::{
    at::{
        AtSign,
        crypto::{KeyPair, PublicKey},
    },
    np::{
        Message, NAMESPACE,
        envelope::{Envelope, EnvelopeError},
        ids::DeviceName,
    },
    text::host::canonical,
};

/// How long a session of a client that does not say may stand without a connection.
pub const UNSAID: Duration = Duration::from_secs(60);
/// Longest time that is asked for or granted: "for ever".
pub const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// What a client asks of a daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelRequest {
    /// Where to meet.
    pub meeting: Meeting,
    /// What to open, as seen from the device: a name or an address.
    pub target_host: String,
    /// Its port.
    pub target_port: u16,
    /// How long the session may stand without a connection.
    pub timeout: Duration,
}

#[derive(Serialize, Deserialize)]
struct Wire {
    #[serde(rename = "sessionId")]
    session: String,
    #[serde(rename = "rvdHost")]
    host: String,
    #[serde(rename = "rvdPort")]
    port: u16,
    #[serde(rename = "requestedPort")]
    target_port: u16,
    #[serde(rename = "requestedHost")]
    target_host: String,
}

/// Stands behind the protection; in milliseconds.
#[derive(Serialize, Deserialize)]
struct WireTimeout {
    timeout: Option<u64>,
}

/// `npt_request.<device>.sshnp`
pub fn tunnel_request_entity(device: &DeviceName) -> String {
    format!("npt_request.{device}.{NAMESPACE}")
}

impl TunnelRequest {
    /// What a manager asks to open who vouches for another one's key: `@alice#FINGERPRINT`, which is no host to any daemon.
    pub fn vouches_for(&self) -> Option<&str> {
        Some(self.target_host.as_str()).filter(|host| host.starts_with('@'))
    }

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
        Message::sealed(to, tunnel_request_entity(device), &self.payload(), key)
    }

    pub(in crate::np) fn payload(&self) -> String {
        let meeting = &self.meeting;
        let [client_nonce, rendezvous_nonce] = meeting.nonces();
        let wire = Wire {
            session: meeting.session.to_string(),
            host: meeting.host.clone(),
            port: meeting.port,
            target_port: self.target_port,
            target_host: self.target_host.clone(),
        };
        let protection = Protection {
            authenticate: Some(meeting.admission.is_some()),
            client_nonce: Some(client_nonce.unwrap_or_default()),
            rendezvous_nonce: Some(rendezvous_nonce.unwrap_or_default()),
            encrypt: Some(meeting.encryption.is_some()),
            ephemeral: Some(meeting.ephemeral().unwrap_or_default()),
            ephemeral_type: Some(EPHEMERAL_TYPE.to_owned()),
        };
        let timeout = WireTimeout {
            timeout: Some(u64::try_from(self.timeout.as_millis()).unwrap_or(u64::MAX)),
        };
        meeting.with_newer(joined(&[&wire, &protection, &timeout]))
    }

    /// Reads a request at the daemon. `signer` is the public key of the notification's sender.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub fn parse(text: &str, signer: &PublicKey) -> Result<Self, RequestError> {
        let envelope = Envelope::parse(text)?;
        let payload = envelope.verify(signer)?;
        let (wire, protection): (Wire, Protection) = (read(payload)?, read(payload)?);
        let WireTimeout { timeout } = read(payload)?;
        let is_vouched = wire.target_host.starts_with('@');
        let spelt = canonical(&wire.target_host);
        let target = spelt.or_else(|| is_vouched.then_some(wire.target_host));
        let target = target.filter(|_| wire.target_port != 0);
        let target = target.ok_or(RequestError::Member("requestedHost and requestedPort"))?;
        let timeout = timeout.map_or(UNSAID, Duration::from_millis);
        Ok(Self {
            meeting: protection.meeting(payload, &wire.session, wire.host, wire.port)?,
            target_host: target,
            target_port: wire.target_port,
            timeout: timeout.min(LONGEST),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::np::{
        envelope::{self, Envelope},
        ids::BadId,
        request::{
            Answer, Encryption, accept_tunnel,
            tests::{SESSION, device_keys, meeting, read_with, vectors, vectors_2026},
        },
    };
    use crate::pipe::{cipher::SessionKeys, keys::TransportKeys};

    fn tunnel(twin_keys: bool) -> TunnelRequest {
        TunnelRequest {
            meeting: meeting(twin_keys),
            target_host: "localhost".into(),
            target_port: 3389,
            timeout: Duration::from_secs(30),
        }
    }

    #[test]
    fn our_request_is_version_5s_with_twin_keys_at_its_end() {
        let known = vectors().text(&["envelopes", "v5_npt_request", "signingInput"]);
        let want = known.strip_suffix('}').unwrap().to_owned() + r#","twinKeys":true}"#;
        assert_eq!(tunnel(true).payload(), want);
    }

    #[test]
    fn requests_of_every_encrypting_client_can_be_read() {
        let v = vectors();
        let key = v.key("@client_example");
        let text = v.text(&["envelopes", "v5_npt_request", "envelope"]);
        assert_eq!(TunnelRequest::parse(&text, key.public()), Ok(tunnel(false)));

        // Before 5.6 there is no timeout; a client may also ask for more than there is.
        let payload = v.text(&["envelopes", "v5_npt_request", "signingInput"]);
        for (said, want) in [
            ("", UNSAID),
            (r#","timeout":null"#, UNSAID),
            (r#","timeout":18446744073709551615"#, LONGEST),
            (r#","timeout":0"#, Duration::ZERO),
        ] {
            let changed = payload.replace(r#","timeout":30000"#, said);
            let sealed = envelope::seal(&changed, &key).unwrap();
            let read = TunnelRequest::parse(&sealed, key.public()).unwrap();
            assert_eq!(read.timeout, want, "{said}");
        }

        // 2026's, as it is when the login at the rendezvous is the classic one; its newer login is refused by name.
        let newest = vectors_2026().text(&["sessionRequests", "npt_request", "value"]);
        let refusal = RequestError::Unsupported("that login to the rendezvous");
        assert_eq!(TunnelRequest::parse(&newest, key.public()), Err(refusal));
        let envelope = Envelope::parse(&newest).unwrap();
        let payload = envelope.unverified().replace(r#""escr""#, r#""payload""#);
        let sealed = envelope::seal(&payload, &key).unwrap();
        let read = TunnelRequest::parse(&sealed, key.public()).unwrap();
        let twin = matches!(
            read.meeting.encryption,
            Some(Encryption::Stream {
                twin_keys: true,
                ..
            })
        );
        assert!(twin);
        assert_eq!((read.meeting.port, read.target_port), (443, 3389));
    }

    #[test]
    fn what_is_left_out_is_an_empty_text_and_never_null() {
        let key = vectors().key("@client_example");
        for (admission, encryption) in [(true, false), (false, true), (false, false)] {
            let mut asked = tunnel(false);
            asked.meeting.admission = asked.meeting.admission.filter(|_| admission);
            asked.meeting.encryption = asked.meeting.encryption.filter(|_| encryption);
            let payload = asked.payload();
            assert!(!payload.contains("null"), "{payload}");
            let sealed = envelope::seal(&payload, &key).unwrap();
            let read = TunnelRequest::parse(&sealed, key.public());
            assert_eq!(read, Ok(asked), "{admission} {encryption}");
        }
    }

    #[test]
    fn each_bad_member_is_refused_by_its_name() {
        let key = vectors().key("@client_example");
        let good = tunnel(true).payload();
        for (from, to, want) in [
            (r#""requestedPort":3389,"#, "", RequestError::Member("form")),
            (
                r#""requestedPort":3389"#,
                r#""requestedPort":70000"#,
                RequestError::Member("form"),
            ),
            (
                r#""requestedPort":3389"#,
                r#""requestedPort":0"#,
                RequestError::Member("requestedHost and requestedPort"),
            ),
            (
                r#""requestedHost":"localhost""#,
                r#""requestedHost":"a b""#,
                RequestError::Member("requestedHost and requestedPort"),
            ),
            (
                r#""rvdPort":40190"#,
                r#""rvdPort":0"#,
                RequestError::Member("host and port"),
            ),
            (SESSION, "x", RequestError::Id(BadId::Session)),
        ] {
            let sealed = envelope::seal(&good.replace(from, to), &key).unwrap();
            let verdict = TunnelRequest::parse(&sealed, key.public());
            assert_eq!(verdict, Err(want), "{from} -> {to}");
        }
    }

    /// The known keys, wrapped by us, in the members and the order of the known answers.
    #[test]
    fn our_answers_have_the_known_form_and_come_back_as_the_same_keys() {
        let v = vectors();
        let (device, ephemeral) = (v.key("@device_example"), v.key("session"));
        let (to, name) = ("@c".parse().unwrap(), "my_device".parse().unwrap());
        for twin in [false, true] {
            let keys = SessionKeys::random(twin).unwrap();
            let made = device_keys(Some(&keys));
            let message = accept_tunnel(&tunnel(twin), &made, &to, &name, &device)
                .unwrap()
                .message;
            let session = SESSION.parse().unwrap();
            let back = read_with(&message.text, session, device.public(), &ephemeral);
            let want = Answer::Signed {
                keys: Some(TransportKeys::Stream(keys)),
                ephemeral_key: None,
                takes_shares: true,
            };
            assert_eq!(back, Ok(want), "twin: {twin}");

            let ours = Envelope::parse(&message.text).unwrap();
            let known = if twin {
                vectors_2026().text(&["twinKeys", "reply_c", "signingInput"])
            } else {
                v.text(&["envelopes", "v5_npt_response", "signingInput"])
            };
            let ours = members(ours.unverified());
            let Some((&"records", ours)) = ours.split_last() else {
                panic!("what we can is not said again: {ours:?}");
            };
            assert_eq!(ours, members(&known), "twin: {twin}");
        }
    }

    /// Names of an object's members, in order.
    fn members(text: &str) -> Vec<&str> {
        let words: Vec<&str> = text.split('"').collect();
        let names = words.windows(2).filter(|pair| pair[1].starts_with(':'));
        names.map(|pair| pair[0]).collect()
    }
}
