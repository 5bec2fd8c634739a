//! Asking a rendezvous for two ports, and its answer.
//!
//! ```text
//!   client ── {"sessionId",…} ─▶ rendezvous      opens port A for the client, port B for the daemon
//!   client ◀── host,A,B,nonce ──
//!
//!   client ── session id alone ─▶ rendezvous     before 5.0, and later where nobody is to log in:
//!   client ◀── host,A,B,null ──                  anybody may use either port
//! ```
//!
//! Source: noports:packages/dart/noports_core/lib/src/srvd/srvd_impl.dart and srvd_session_params.dart.

use crate::text::endpoint::Endpoint;
use miniserde::{Deserialize, Serialize, json};

use super::{
    Message, RENDEZVOUS_NAMESPACE,
    ids::{BadId, DeviceName, Nonce, SessionId},
    proof::SocketKey,
};
use crate::{
    at::AtSign,
    text::{host::canonical, port::port_or_any},
};

/// Longest request or answer, in bytes.
pub const MAX_PORTS_MESSAGE: usize = 8 * 1024;

/// Port numbers are granted in pairs, for one session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ports {
    /// Where both ends dial.
    pub host: String,
    /// Port A.
    pub client: u16,
    /// Port B.
    pub daemon: u16,
    /// The rendezvous' half of what both ends sign. Old ones (3.x, 4.x) have none.
    pub nonce: Option<Nonce>,
}

impl Ports {
    /// Where the client dials.
    pub fn at_client(&self) -> Endpoint {
        Endpoint {
            host: self.host.clone(),
            port: self.client,
        }
    }
}

/// Why a message about ports is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortsError {
    /// Not the form we know.
    #[error("the rendezvous' message about ports cannot be read")]
    Form,
    /// One of its names.
    #[error(transparent)]
    Id(#[from] BadId),
    /// `atSignA` is not who sent it: somebody asks in another's name.
    #[error("asked in the name of {0}")]
    NotTheSender(String),
}

#[derive(Serialize, Deserialize)]
struct Wire {
    #[serde(rename = "sessionId")]
    session: String,
    #[serde(rename = "atSignA")]
    client: String,
    #[serde(rename = "atSignB")]
    daemon: String,
    #[serde(rename = "authenticateSocketA")]
    authenticate_client: bool,
    #[serde(rename = "authenticateSocketB")]
    authenticate_daemon: bool,
    #[serde(rename = "clientNonce")]
    nonce: String,
}

/// What the client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortsRequest {
    /// The session the ports are for.
    pub session: SessionId,
    /// Who dials port A: the sender of the request.
    pub client: AtSign,
    /// Who dials port B.
    pub daemon: AtSign,
    /// The client's half of what both ends sign.
    pub nonce: Nonce,
    /// Who has to say who it is.
    pub logins: Logins,
    /// Proves the numbers of sockets, where the rendezvous can check that ([`super::proof`]).
    pub socket_key: Option<SocketKey>,
}

/// Which ends of a session begin with an admission line. Whose does not is open to anybody who finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Logins {
    pub client: bool,
    pub daemon: bool,
}

impl Logins {
    /// What we ask for, unless somebody insists.
    pub const BOTH: Self = Self {
        client: true,
        daemon: true,
    };
    /// As before 5.0.
    pub const NONE: Self = Self {
        client: false,
        daemon: false,
    };
}

/// What a rendezvous is asked, in either form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RendezvousRequest {
    /// A session id alone; both ports are open to anybody.
    Bare(SessionId),
    /// Who comes to which port, and who has to log in.
    Full(PortsRequest),
}

/// The key a request came under tells its form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortsForm {
    /// `<device>.sshrvd`
    Bare,
    /// `<device>.request_ports.sshrvd`
    Full,
}

impl PortsForm {
    /// The form of a notification with this key; `None` when it asks for no ports.
    pub fn of(entity: &str) -> Option<Self> {
        let rest = entity
            .strip_suffix(RENDEZVOUS_NAMESPACE)?
            .strip_suffix('.')?;
        match rest.split_once('.') {
            None if !rest.is_empty() => Some(Self::Bare),
            Some((_, "request_ports")) => Some(Self::Full),
            _ => None,
        }
    }
}

impl RendezvousRequest {
    /// Reads a request at the rendezvous; see [`PortsRequest::parse`].
    ///
    /// # Errors
    /// See [`PortsError`].
    pub fn parse(form: PortsForm, from: &AtSign, text: &str) -> Result<Self, PortsError> {
        match form {
            PortsForm::Bare => Ok(Self::Bare(text.trim().parse()?)),
            PortsForm::Full => PortsRequest::parse(from, text).map(Self::Full),
        }
    }

    /// The session the ports are for.
    pub fn session(&self) -> SessionId {
        match self {
            Self::Bare(session) => *session,
            Self::Full(request) => request.session,
        }
    }

    /// Who has to say who it is.
    pub fn logins(&self) -> Logins {
        match self {
            Self::Bare(_) => Logins::NONE,
            Self::Full(request) => request.logins,
        }
    }
}

/// The old request: `<device>.sshrvd`, and the session id as its whole text.
pub fn bare_request(rendezvous: &AtSign, device: &DeviceName, session: SessionId) -> Message {
    Message::new(
        rendezvous,
        format!("{device}.{RENDEZVOUS_NAMESPACE}"),
        session.to_string(),
    )
}

impl PortsRequest {
    /// The message to the rendezvous.
    pub fn message(&self, rendezvous: &AtSign, device: &DeviceName) -> Message {
        let text = json::to_string(&Wire {
            session: self.session.to_string(),
            client: self.client.to_string(),
            daemon: self.daemon.to_string(),
            authenticate_client: self.logins.client,
            authenticate_daemon: self.logins.daemon,
            nonce: self.nonce.to_string(),
        });
        let text = with_key(text, self.socket_key.as_ref());
        Message::new(
            rendezvous,
            format!("{device}.request_ports.{RENDEZVOUS_NAMESPACE}"),
            text,
        )
    }

    /// Reads a request at the rendezvous. `from` is the notification's sender, vouched for by the
    /// atServer; the JSON may not claim another (upstream believed it).
    ///
    /// # Errors
    /// See [`PortsError`].
    pub fn parse(from: &AtSign, text: &str) -> Result<Self, PortsError> {
        if text.len() > MAX_PORTS_MESSAGE {
            return Err(PortsError::Form);
        }
        let wire: Wire = json::from_str(text).map_err(|_| PortsError::Form)?;
        let client: AtSign = wire.client.parse().map_err(|_| PortsError::Form)?;
        if client != *from {
            return Err(PortsError::NotTheSender(client.to_string()));
        }
        Ok(Self {
            session: wire.session.parse()?,
            client,
            daemon: wire.daemon.parse().map_err(|_| PortsError::Form)?,
            nonce: wire.nonce.parse()?,
            logins: Logins {
                client: wire.authenticate_client,
                daemon: wire.authenticate_daemon,
            },
            socket_key: key_of(text),
        })
    }
}

/// A request's text with this key as its last member, which others pass over.
pub(super) fn with_key(text: String, key: Option<&SocketKey>) -> String {
    match (text.strip_suffix('}'), key) {
        (Some(open), Some(key)) => format!(r#"{open},"socketKey":"{}"}}"#, key.text().reveal()),
        _ => text,
    }
}

/// The key in a request. One that cannot be read is none.
pub(super) fn key_of(text: &str) -> Option<SocketKey> {
    #[derive(Deserialize)]
    struct Newer {
        #[serde(rename = "socketKey")]
        key: Option<json::Value>,
    }
    match json::from_str::<Newer>(text).ok()?.key? {
        json::Value::String(key) => SocketKey::parse(&key),
        _ => None,
    }
}

/// `<session>.sshrvd`: where the answer comes.
pub fn answer_entity(session: SessionId) -> String {
    format!("{session}.{RENDEZVOUS_NAMESPACE}")
}

/// `nack.<session>.sshrvd`: where a refusal comes (2025 and later).
pub fn refusal_entity(session: SessionId) -> String {
    format!("nack.{session}.{RENDEZVOUS_NAMESPACE}")
}

#[derive(Deserialize)]
struct WirePorts {
    address: String,
    #[serde(rename = "portA")]
    client: u16,
    #[serde(rename = "portB")]
    daemon: u16,
    #[serde(rename = "rvdNonce")]
    nonce: Option<String>,
}

impl Ports {
    /// `host,A,B,nonce`
    pub fn print(&self) -> String {
        let nonce = self.nonce.as_ref().map_or("null", Nonce::as_str);
        format!("{},{},{},{nonce}", self.host, self.client, self.daemon)
    }

    /// `host,A,B`, as before 5.0. There the daemon has the first port.
    #[cfg(any(test, feature = "held"))]
    pub fn print_old(&self) -> String {
        format!("{},{},{}", self.host, self.daemon, self.client)
    }

    /// Reads an answer: CSV of every generation, or the JSON of 2025. Rendezvous before 5.0 send no
    /// nonce, and there the *second* port is the client's.
    ///
    /// # Errors
    /// `PortsForm`, or the nonce's error.
    pub fn parse(text: &str) -> Result<Self, PortsError> {
        if text.len() > MAX_PORTS_MESSAGE {
            return Err(PortsError::Form);
        }
        let ports = if text.starts_with('{') {
            Self::parse_json(text)?
        } else {
            Self::parse_csv(text)?
        };
        match canonical(&ports.host) {
            Some(host) if ports.client != 0 && ports.daemon != 0 => Ok(Self { host, ..ports }),
            _ => Err(PortsError::Form),
        }
    }

    fn parse_json(text: &str) -> Result<Self, PortsError> {
        let wire: WirePorts = json::from_str(text).map_err(|_| PortsError::Form)?;
        let nonce = wire.nonce.map(|n| n.parse()).transpose()?;
        Ok(Self {
            host: wire.address,
            client: wire.client,
            daemon: wire.daemon,
            nonce,
        })
    }

    fn parse_csv(text: &str) -> Result<Self, PortsError> {
        let fields: Vec<&str> = text.split(',').collect();
        let port = |field: &str| port_or_any(field).map_err(|_| PortsError::Form);
        match fields[..] {
            [host, a, b, nonce] => Ok(Self {
                host: host.to_owned(),
                client: port(a)?,
                daemon: port(b)?,
                nonce: Some(nonce.parse()?),
            }),
            [host, a, b] => Ok(Self {
                host: host.to_owned(),
                client: port(b)?,
                daemon: port(a)?,
                nonce: None,
            }),
            _ => Err(PortsError::Form),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::np::request::tests::vectors;

    fn request() -> PortsRequest {
        PortsRequest {
            session: "6f1c1c1e-6d0a-4a53-9d0a-0d4f7a2b9c11".parse().unwrap(),
            client: "@client_example".parse().unwrap(),
            daemon: "@device_example".parse().unwrap(),
            nonce: "2024-10-24T10:15:30.123456".parse().unwrap(),
            logins: Logins::BOTH,
            socket_key: None,
        }
    }

    #[test]
    fn the_request_is_pinned() {
        let vectors = vectors();
        let message = request().message(
            &"@relay_example".parse().unwrap(),
            &"my_device".parse().unwrap(),
        );
        assert_eq!(message.text, vectors.text(&["relayRequest", "v5_value"]));
        let key = format!("{}:{}{}", message.to, message.entity, "@client_example");
        assert_eq!(key, vectors.text(&["relayRequest", "v5_key"]));
        assert_eq!(PortsForm::of(&message.entity), Some(PortsForm::Full));
        assert_eq!(
            PortsRequest::parse(&request().client, &message.text).unwrap(),
            request()
        );
    }

    #[test]
    fn the_old_request_is_pinned() {
        let (vectors, request) = (vectors(), request());
        let name = "my_device".parse().unwrap();
        let message = bare_request(&"@relay_example".parse().unwrap(), &name, request.session);
        assert_eq!(
            message.text,
            vectors.text(&["relayRequest", "legacy_value"])
        );
        let key = format!("{}:{}{}", message.to, message.entity, "@client_example");
        assert_eq!(key, vectors.text(&["relayRequest", "legacy_key"]));
        let form = PortsForm::of(&message.entity).unwrap();
        let asked = RendezvousRequest::parse(form, &request.client, &message.text);
        assert_eq!(asked, Ok(RendezvousRequest::Bare(request.session)));
        assert_eq!(asked.unwrap().logins(), Logins::NONE);
    }

    #[test]
    fn the_key_tells_the_form() {
        for (entity, want) in [
            ("dev1.sshrvd", Some(PortsForm::Bare)),
            ("dev1.request_ports.sshrvd", Some(PortsForm::Full)),
            ("x.dev1.request_ports.sshrvd", None),
            (".sshrvd", None),
            ("sshrvd", None),
            ("nack.6f1c.sshrvd", None),
            ("dev1.sshnp", None),
            ("dev1.xsshrvd", None),
        ] {
            assert_eq!(PortsForm::of(entity), want, "{entity}");
        }
    }

    #[test]
    fn each_end_may_come_without_saying_who_it_is() {
        for (client, daemon) in [(true, true), (true, false), (false, true), (false, false)] {
            let logins = Logins { client, daemon };
            let request = PortsRequest {
                logins,
                ..request()
            };
            let text = request
                .message(&"@r".parse().unwrap(), &"d".parse().unwrap())
                .text;
            let asked = RendezvousRequest::parse(PortsForm::Full, &request.client, &text).unwrap();
            assert_eq!((asked.logins(), asked.session()), (logins, request.session));
        }
    }

    #[test]
    fn requests_of_2026_can_be_read_too() {
        let text = crate::np::request::tests::vectors_2026()
            .text(&["relayMessages", "request_default_6.16"]);
        assert!(
            PortsRequest::parse(&request().client, &text).is_ok(),
            "{text}"
        );
    }

    #[test]
    fn nobody_asks_in_anothers_name() {
        let text = request()
            .message(&"@r".parse().unwrap(), &"d".parse().unwrap())
            .text;
        let mallory: AtSign = "@mallory".parse().unwrap();
        let verdict = PortsRequest::parse(&mallory, &text);
        assert_eq!(
            verdict,
            Err(PortsError::NotTheSender("@client_example".into()))
        );
    }

    #[test]
    fn bad_members_are_refused() {
        let text = request()
            .message(&"@r".parse().unwrap(), &"d".parse().unwrap())
            .text;
        for (from, to, want) in [
            (r#""authenticateSocketA":true,"#, "", PortsError::Form),
            (
                r#""authenticateSocketA":true"#,
                r#""authenticateSocketA":null"#,
                PortsError::Form,
            ),
            ("6f1c1c1e-", "", PortsError::Id(BadId::Session)),
            ("2024-10-24T", "a,b", PortsError::Id(BadId::Nonce)),
            ("@device_example", "@", PortsError::Form),
        ] {
            let verdict = PortsRequest::parse(&request().client, &text.replace(from, to));
            assert_eq!(verdict, Err(want), "{from} -> {to}");
        }
    }

    #[test]
    fn answers_of_every_generation_can_be_read() {
        let v = vectors();
        let at = |host: &str, client, daemon, nonce: Option<&str>| Ports {
            host: host.into(),
            client,
            daemon,
            nonce: nonce.map(|n| n.parse().unwrap()),
        };
        let nonce = "2024-10-24T10:15:31.654321";
        for (name, want) in [
            ("response_v5", at("127.0.0.1", 40189, 40190, Some(nonce))),
            ("response_v4", at("127.0.0.1", 40190, 40189, None)),
            (
                "response_v5_to_legacy_request",
                at("127.0.0.1", 40189, 40190, Some("null")),
            ),
        ] {
            assert_eq!(
                Ports::parse(&v.text(&["relayRequest", name])).unwrap(),
                want,
                "{name}"
            );
        }
        let newer = crate::np::request::tests::vectors_2026();
        for name in ["response_csv", "response_json_5.14", "response_json_6.16"] {
            let text = newer.text(&["relayMessages", name]);
            assert!(
                Ports::parse(&text).unwrap().nonce.is_some(),
                "{name}: {text}"
            );
        }
        let ours = at("rv.example.org", 1, 65535, Some(nonce));
        assert_eq!(Ports::parse(&ours.print()).unwrap(), ours);
        let old = at("rv.example.org", 1, 65535, None);
        assert_eq!(Ports::parse(&old.print_old()).unwrap(), old);
    }

    #[test]
    fn answers_that_make_no_sense_are_refused() {
        for bad in [
            "",
            "h",
            "h,1",
            "h,1,x,n",
            "h,0,2,n",
            "h,1,65536,n",
            "h,+1,2,n",
            ",1,2,n",
            "h,1,2,n,m",
            "h h,1,2,n",
            "{}",
            r#"{"address":"h","portA":"1","portB":2}"#,
        ] {
            assert!(Ports::parse(bad).is_err(), "{bad:?}");
        }
    }
}
