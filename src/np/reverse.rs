//! The session of before 4.0: the device logs in to the client by ssh and brings a port along.
//!
//! ```text
//!   client ── privatekey: PEM ─────────────────────────────────────▶ daemon   keeps it for what follows
//!   client ── sshd: "<forward> <port> <user> <host> <session>" ────▶ daemon
//!                       daemon: ssh -p port user@host -R forward:localhost:22
//!   client ◀── connected ── or why not ──
//!
//!   4.0 says both in one:  client ── ssh_request: envelope{"direct":false,…,"privateKey":PEM} ─▶ daemon
//! ```
//!
//! The first two are signed by nobody; that they are encrypted for the daemon is all that protects them. Every word
//! of the line becomes an argument of ssh, so none may look like an option or like more than one word.
//!
//! Source: noports:packages/dart/noports_core/lib/src/sshnpd/sshnpd_impl.dart and
//! noports:packages/dart/noports_core/lib/src/sshnp/impl/sshnp_reverse_impl.dart at v4.0.5.

use miniserde::{Deserialize, json};

use super::{
    Message, NAMESPACE,
    envelope::Envelope,
    ids::{DeviceName, SessionId},
    request::RequestError,
    sshkey,
};
use crate::{
    at::{AtSign, crypto::PublicKey},
    secret::Secret,
    text::{host::is_host, port::port_or_any, user::is_user_name},
};

/// Longest line, in bytes.
pub const MAX_LINE: usize = 512;

/// What the device is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReverseRequest {
    /// The port at the client that is to lead to the device's sshd.
    pub forward: u16,
    /// Where to log in: the client, or the rendezvous' daemon port.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// As whom.
    pub user: String,
    /// The session; clients before 2.0 have none, and hear no answer.
    pub session: Option<SessionId>,
}

/// A line that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the request's {0} cannot be used")]
pub struct BadLine(&'static str);

/// `privatekey.<device>.sshnp`
pub fn private_key_entity(device: &DeviceName) -> String {
    format!("privatekey.{device}.{NAMESPACE}")
}

/// `sshd.<device>.sshnp`
pub fn line_entity(device: &DeviceName) -> String {
    format!("sshd.{device}.{NAMESPACE}")
}

/// The message with the key for the requests that follow it.
pub fn private_key_message(key: &Secret<String>, to: &AtSign, device: &DeviceName) -> Message {
    Message::new(to, private_key_entity(device), key.reveal().clone())
}

impl ReverseRequest {
    /// `<forward> <port> <user> <host>[ <session>]`
    pub fn line(&self) -> String {
        let Self {
            forward,
            host,
            port,
            user,
            session,
        } = self;
        let id = session.map_or(String::new(), |id| format!(" {id}"));
        format!("{forward} {port} {user} {host}{id}")
    }

    /// The message with that line.
    pub fn message(&self, to: &AtSign, device: &DeviceName) -> Message {
        Message::new(to, line_entity(device), self.line())
    }

    /// Reads the line at the daemon.
    ///
    /// # Errors
    /// [`BadLine`] with the name of the word.
    pub fn parse(line: &str) -> Result<Self, BadLine> {
        if line.len() > MAX_LINE {
            return Err(BadLine("length"));
        }
        let words: Vec<&str> = line.trim().split(' ').collect();
        let (forward, port, user, host, session) = match words[..] {
            [forward, port, user, host] => (forward, port, user, host, None),
            [forward, port, user, host, session] => (forward, port, user, host, Some(session)),
            _ => return Err(BadLine("form")),
        };
        let number = |text: &str| port_or_any(text).map_err(|_| BadLine("port"));
        let session = session.map(str::parse).transpose();
        Self {
            forward: number(forward)?,
            host: host.to_owned(),
            port: number(port)?,
            user: user.to_owned(),
            session: session.map_err(|_| BadLine("session id"))?,
        }
        .check()
    }

    fn check(self) -> Result<Self, BadLine> {
        if self.forward == 0 || self.port == 0 {
            return Err(BadLine("port"));
        }
        if !is_host(&self.host) {
            return Err(BadLine("host"));
        }
        if !is_user_name(&self.user) {
            return Err(BadLine("user name"));
        }
        Ok(self)
    }

    /// Reads the signed form at the daemon; the key comes with it.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub fn parse_signed(
        text: &str,
        signer: &PublicKey,
    ) -> Result<(Self, Secret<String>), RequestError> {
        let envelope = Envelope::parse(text)?;
        let wire: Wire =
            json::from_str(envelope.verify(signer)?).map_err(|_| RequestError::Member("form"))?;
        if wire.direct {
            return Err(RequestError::Member("direct"));
        }
        let pem = Secret::new(wire.key);
        let request = Self {
            forward: wire.forward,
            host: wire.host,
            port: wire.port,
            user: wire.user,
            session: Some(wire.session.parse()?),
        }
        .check()
        .map_err(|BadLine(what)| RequestError::Member(what))?;
        let key =
            sshkey::private_key(pem.reveal()).map_err(|_| RequestError::Member("privateKey"))?;
        Ok((request, key))
    }
}

#[derive(Deserialize)]
struct Wire {
    direct: bool,
    #[serde(rename = "sessionId")]
    session: String,
    host: String,
    port: u16,
    #[serde(rename = "username")]
    user: String,
    #[serde(rename = "remoteForwardPort")]
    forward: u16,
    #[serde(rename = "privateKey")]
    key: String,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::np::{
        envelope,
        request::{
            SshRequest,
            tests::{SESSION, vectors},
        },
    };

    fn request() -> ReverseRequest {
        ReverseRequest {
            forward: 58358,
            host: "127.0.0.1".into(),
            port: 40189,
            user: "gary".into(),
            session: Some(SESSION.parse().unwrap()),
        }
    }

    #[test]
    fn the_line_is_pinned() {
        let line = format!("58358 40189 gary 127.0.0.1 {SESSION}");
        assert_eq!(request().line(), line);
        assert_eq!(ReverseRequest::parse(&line), Ok(request()));
        let without = ReverseRequest {
            session: None,
            ..request()
        };
        assert_eq!(
            ReverseRequest::parse("58358 40189 gary 127.0.0.1"),
            Ok(without)
        );
        let (to, device) = (
            "@device_example".parse().unwrap(),
            "my_device".parse().unwrap(),
        );
        assert_eq!(
            request().message(&to, &device).entity,
            "sshd.my_device.sshnp"
        );
        let key = Secret::new("x".to_owned());
        let message = private_key_message(&key, &to, &device);
        assert_eq!(message.entity, "privatekey.my_device.sshnp");
    }

    #[test]
    fn no_word_can_be_taken_for_something_else() {
        let good = request().line();
        for (from, to, what) in [
            ("58358", "0", "port"),
            ("58358", "58358:x:22", "port"),
            ("58358", "-58358", "port"),
            ("40189", "65536", "port"),
            ("40189", "+22", "port"),
            ("40189", "", "port"),
            ("gary", "-oProxyCommand=id", "user name"),
            ("gary", "a;b", "user name"),
            ("gary", "a b", "form"),
            ("gary", "$(id)", "user name"),
            ("gary", "", "user name"),
            ("gary", &"u".repeat(257), "user name"),
            ("127.0.0.1", "-oProxyCommand=id", "host"),
            ("127.0.0.1", "-x", "host"),
            ("127.0.0.1", "h;id", "host"),
            ("127.0.0.1", "h\nid", "host"),
            (SESSION, "../../x", "session id"),
            (SESSION, "x y", "form"),
            (&good, "", "form"),
            (&good, "1 2 3", "form"),
            (SESSION, &"x".repeat(MAX_LINE), "length"),
        ] {
            let line = good.replace(from, to);
            assert_eq!(ReverseRequest::parse(&line), Err(BadLine(what)), "{line:?}");
        }
    }

    #[test]
    fn the_signed_form_is_pinned_and_is_no_direct_request() {
        let v = vectors();
        let signer = v.key("@client_example");
        let text = v.text(&["envelopes", "v4rc_ssh_request_reverse", "envelope"]);
        let (read, _) = ReverseRequest::parse_signed(&text, signer.public()).unwrap();
        let want = ReverseRequest {
            host: "192.0.2.10".into(),
            port: 22,
            ..request()
        };
        assert_eq!(read, want);
        let direct = SshRequest::parse(&text, signer.public());
        assert_eq!(direct, Err(RequestError::Reverse));
    }

    #[test]
    fn each_bad_member_of_the_signed_form_is_refused() {
        let v = vectors();
        let key = v.key("@client_example");
        let good = v.text(&["envelopes", "v4rc_ssh_request_reverse", "signingInput"]);
        for (from, to, want) in [
            (
                r#""direct":false"#,
                r#""direct":true"#,
                RequestError::Member("direct"),
            ),
            (r#""direct":false,"#, "", RequestError::Member("form")),
            (r#","port":22"#, "", RequestError::Member("form")),
            (
                r#""port":22"#,
                r#""port":null"#,
                RequestError::Member("form"),
            ),
            (r#""port":22"#, r#""port":0"#, RequestError::Member("port")),
            ("58358", "0", RequestError::Member("port")),
            ("58358", "\"58358\"", RequestError::Member("form")),
            ("gary", "-x", RequestError::Member("user name")),
            ("192.0.2.10", "-x", RequestError::Member("host")),
            ("AAAA", "A A", RequestError::Member("privateKey")),
            (
                r#","privateKey""#,
                r#","key""#,
                RequestError::Member("form"),
            ),
            (
                SESSION,
                "",
                RequestError::Id(crate::np::ids::BadId::Session),
            ),
        ] {
            let sealed = envelope::seal(&good.replace(from, to), &key).unwrap();
            let verdict = ReverseRequest::parse_signed(&sealed, key.public());
            assert_eq!(verdict.map(drop), Err(want), "{from} -> {to}");
        }
    }
}
