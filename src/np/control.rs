//! The control channel of a session that carries many connections: which keys the next one has.
//!
//! ```text
//!   client ──control socket──▶ device      connect:<key>:<iv>\n                       one key for both directions
//!                                          connect:<key>:<iv>:<key>:<iv>\n            to the device, to the client
//!                                          connect:no:encrypt\n                       in a plain session
//!                                          heartbeat:<n>\n
//!                                          ask:<n>\n                                 to devices that answer:
//!                             ◀──           heard:<n>\n
//!                                          failed:<why>\n                           to clients that have asked: a
//!                                                                                   connection's target could not be had
//! ```
//!
//! Nothing else is answered. The rendezvous knows nothing of these lines. Line *n* is for data socket *n* on
//! either side; how those find each other is told in [`super::pairs`].
//!
//! Clients before 5.6 send no LF: each of their lines has 77 bytes. Daemons of 5.6 take several of them at once,
//! with nothing between them, and an LF there for a part of a key; so ours sends them none either, nor behind
//! `connect:no:encrypt`. Lines without an LF never have twin keys: they are believed in the other two kinds of
//! session only, and only until the first LF.
//!
//! A session's kind does not change while it runs: keys in a plain session, or a plain connection in an encrypted
//! one, end it.
//!
//! Source: noports:packages/dart/noports_core/lib/src/srv/srv_impl.dart.

use crate::pipe::cipher::SessionKeys;
use crate::pipe::cipher::StreamKey;
use zeroize::{Zeroize, Zeroizing};

use crate::secret::Secret;

/// Longest line, in bytes. A twin one has 147.
pub const MAX_LINE: usize = 4096;
/// How a device begins to tell why a target could not be had.
const FAILED: &str = "failed:";
/// Bytes of `connect:<key>:<iv>`.
const UNENDED: usize = 77;
/// Bytes of a line that announces a connection without keys.
const UNENDED_PLAIN: usize = "connect:no:encrypt".len();

/// What a session's connections are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keying {
    /// Without encryption.
    Plain,
    /// With one key for both directions.
    Single,
    /// With a key per direction.
    Twin,
}

/// One line of the control channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlLine {
    /// The next connection, and its keys.
    Connect(SessionKeys),
    /// The next connection, as it is.
    ConnectPlain,
    /// The client is alive; counts from 1.
    Heartbeat(u64),
    /// The client wants to know whether the way is open in both directions.
    Ask(u64),
    /// A word of a later version. To be ignored.
    Unknown,
}

/// The peer says what makes no sense. The session cannot go on: the sockets' order is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// More than [`MAX_LINE`] without an end.
    #[error("the control channel has a line of more than {MAX_LINE} bytes")]
    TooLong,
    /// `connect:` with something else than keys.
    #[error("the control channel announces a connection without usable keys")]
    Keys,
    /// Keys in a plain session, none in an encrypted one.
    #[error("the control channel announces another kind of connection than the session's")]
    OtherKind,
}

impl ControlLine {
    /// The text, with its LF. To be sent in one piece: some devices read no further than that.
    pub fn print(&self) -> Secret<String> {
        let part = |stream: &StreamKey| {
            let [key, iv] = stream.to_base64();
            Zeroizing::new(format!("{}:{}", key.reveal(), iv.reveal()))
        };
        Secret::new(match self {
            Self::Connect(keys) => {
                let first = part(&keys.to_device);
                match keys.to_client.as_ref().map(part) {
                    None => format!("connect:{}\n", *first),
                    Some(second) => format!("connect:{}:{}\n", *first, *second),
                }
            }
            Self::ConnectPlain => "connect:no:encrypt\n".to_owned(),
            Self::Heartbeat(n) => format!("heartbeat:{n}\n"),
            Self::Ask(n) => format!("ask:{n}\n"),
            Self::Unknown => "\n".to_owned(),
        })
    }

    /// The answer to [`Self::Ask`].
    pub fn heard(n: u64) -> String {
        format!("heard:{n}\n")
    }

    /// What a client that has asked is told of a target that could not be had.
    pub fn failed(why: &str) -> String {
        format!("{FAILED}{}\n", why.replace(char::is_control, " "))
    }

    /// Reads a line without its end.
    fn parse(text: &[u8]) -> Result<Self, ControlError> {
        let Ok(text) = std::str::from_utf8(text) else {
            return Ok(Self::Unknown);
        };
        let mut words = text.trim().split(':');
        match words.next() {
            Some("connect") => {}
            Some(word @ ("heartbeat" | "ask")) => {
                let meant = match word {
                    "ask" => Self::Ask,
                    _ => Self::Heartbeat,
                };
                let n = words.next().and_then(|n| n.parse().ok());
                return Ok(n.map_or(Self::Unknown, meant));
            }
            _ => return Ok(Self::Unknown),
        }
        let words: Vec<&str> = words.take(5).collect();
        match words[..] {
            ["no", "encrypt"] => Ok(Self::ConnectPlain),
            [key, iv] => Ok(Self::Connect(SessionKeys {
                to_device: stream(key, iv)?,
                to_client: None,
            })),
            // What a later version may put behind the four is its own matter.
            [key, iv, other_key, other_iv, ..] => Ok(Self::Connect(SessionKeys {
                to_device: stream(key, iv)?,
                to_client: Some(stream(other_key, other_iv)?),
            })),
            _ => Err(ControlError::Keys),
        }
    }
}

fn stream(key: &str, iv: &str) -> Result<StreamKey, ControlError> {
    StreamKey::from_base64(key, iv).map_err(|_| ControlError::Keys)
}

/// Cuts the control channel, decrypted, into lines; does no I/O itself.
///
/// ```text
///   socket ──push(bytes)──▶ ControlLines ──pop()──▶ Ok(Some(ControlLine)) | Ok(None): push more
/// ```
#[derive(Debug)]
pub struct ControlLines {
    buffer: Zeroizing<Vec<u8>>,
    /// Bytes at the front of `buffer` that hold no LF.
    searched: usize,
    /// Whether lines without an end are believed.
    unended: bool,
    keying: Keying,
}

impl ControlLines {
    /// For a session with these connections.
    pub fn new(keying: Keying) -> Self {
        Self {
            buffer: Zeroizing::default(),
            searched: 0,
            unended: keying != Keying::Twin,
            keying,
        }
    }

    /// Bytes that came.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next line, if it is all there.
    ///
    /// # Errors
    /// See [`ControlError`]. After an error nothing sensible comes any more.
    pub fn pop(&mut self) -> Result<Option<ControlLine>, ControlError> {
        loop {
            if let Some(length) = self.unended_line() {
                return self.take(length, length).map(Some);
            }
            let fresh = &self.buffer[self.searched..];
            let Some(end) = fresh.iter().position(|&byte| byte == b'\n') else {
                self.searched = self.buffer.len();
                if self.searched > MAX_LINE {
                    return Err(ControlError::TooLong);
                }
                return Ok(None);
            };
            let end = self.searched + end;
            if end > MAX_LINE {
                return Err(ControlError::TooLong);
            }
            // An LF alone ends a line that was taken for one without an end.
            let empty = self.buffer[..end].trim_ascii().is_empty();
            self.unended = false;
            let line = self.take(end, end + 1)?;
            if !empty {
                return Ok(Some(line));
            }
        }
    }

    /// The length of a whole line in front, if what follows is not its LF.
    fn unended_line(&self) -> Option<usize> {
        let (length, begin): (_, &[u8]) = match self.keying {
            _ if !self.unended => return None,
            Keying::Plain => (UNENDED_PLAIN, b"connect:no:encrypt"),
            Keying::Single | Keying::Twin => (UNENDED, b"connect:"),
        };
        let (line, rest) = self.buffer.split_at_checked(length)?;
        let next = rest.first();
        let whole = next.is_none_or(|byte| !b"\n\r :".contains(byte))
            && line.starts_with(begin)
            && !line.contains(&b'\n');
        whole.then_some(length)
    }

    fn take(&mut self, line: usize, with_end: usize) -> Result<ControlLine, ControlError> {
        let parsed = ControlLine::parse(&self.buffer[..line]);
        self.searched = 0;
        self.buffer[..line].zeroize();
        self.buffer.drain(..with_end);
        match (parsed, self.keying == Keying::Plain) {
            (Ok(ControlLine::Connect(_)), true) | (Ok(ControlLine::ConnectPlain), false) => {
                Err(ControlError::OtherKind)
            }
            (parsed, _) => parsed,
        }
    }
}

/// Cuts what a device says, decrypted, into lines. Of one that is too long the beginning counts.
#[derive(Debug, Default)]
pub struct DeviceLines(Vec<u8>);

impl DeviceLines {
    /// Of the lines that end with these bytes: why targets could not be had.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut failures = Vec::new();
        for &byte in bytes {
            if byte != b'\n' {
                if self.0.len() < MAX_LINE {
                    self.0.push(byte);
                }
                continue;
            }
            let line = String::from_utf8_lossy(&self.0);
            failures.extend(line.strip_prefix(FAILED).map(str::to_owned));
            self.0.clear();
        }
        failures
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::np::request::tests::{vectors, vectors_2026};

    fn read(
        kind: Keying,
        pieces: impl IntoIterator<Item = Vec<u8>>,
    ) -> Result<Vec<ControlLine>, ControlError> {
        let (mut lines, mut all) = (ControlLines::new(kind), Vec::new());
        for piece in pieces {
            lines.push(&piece);
            while let Some(line) = lines.pop()? {
                all.push(line);
            }
        }
        Ok(all)
    }

    #[test]
    fn a_device_tells_of_targets_and_of_nothing_else() {
        let said = |why: &str| ControlLine::failed(why);
        let long = "x".repeat(2 * MAX_LINE);
        let cut = "x".repeat(MAX_LINE - FAILED.len());
        for (text, want) in [
            (said("nas:80: refused"), vec!["nas:80: refused"]),
            (said("two\nlines\u{7}"), vec!["two lines "]),
            (
                ControlLine::heard(7) + &said("a") + &said("b"),
                vec!["a", "b"],
            ),
            (
                "heard:1\nlater:word\n\nfailed\nfailed:half".to_owned(),
                vec![],
            ),
            (
                said(&long) + &said("after it"),
                vec![cut.as_str(), "after it"],
            ),
        ] {
            let mut whole = DeviceLines::default();
            assert_eq!(whole.push(text.as_bytes()), want);
            let mut bytewise = DeviceLines::default();
            let each: Vec<String> = text
                .bytes()
                .flat_map(|byte| bytewise.push(&[byte]))
                .collect();
            assert_eq!(each, want);
        }
    }

    fn whole(kind: Keying, text: &str) -> Result<Vec<ControlLine>, ControlError> {
        read(kind, [text.as_bytes().to_vec()])
    }

    fn known(name: &str) -> String {
        vectors().text(&["controlChannel", name])
    }

    #[test]
    fn every_known_line_is_read_and_printed_as_it_came() {
        for name in [
            "message",
            "plainMessageNoEncrypt",
            "twinMessage",
            "heartbeat",
        ] {
            let text = known(name);
            let keying = if text.contains("no:encrypt") {
                Keying::Plain
            } else {
                Keying::Twin
            };
            let lines = whole(keying, &text).unwrap();
            assert_eq!(lines.len(), 1, "{name}");
            assert_ne!(lines[0], ControlLine::Unknown, "{name}");
            assert_eq!(lines[0].print().reveal(), &text, "{name}");
        }
        assert_eq!(known("message").len(), UNENDED + 1);
        assert_eq!(known("twinMessage").len(), 148);
    }

    #[test]
    fn the_2026_twin_line_is_the_same() {
        let v = vectors_2026();
        let of = |name: &str| v.text(&["twinKeys", "sessionKeys", name]);
        let want = format!(
            "connect:{}:{}:{}:{}\n",
            of("aesKeyC2D"),
            of("ivC2D"),
            of("aesKeyD2C"),
            of("ivD2C")
        );
        let lines = whole(Keying::Twin, &want).unwrap();
        let [ControlLine::Connect(keys)] = &lines[..] else {
            panic!("{lines:?}");
        };
        assert!(keys.are_twin());
        assert_eq!(lines[0].print().reveal(), &want);
    }

    #[test]
    fn two_encrypted_lines_are_one_stream() {
        let hex = |text: String| -> Vec<u8> {
            let digit = |at| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
            (0..text.len()).step_by(2).map(digit).collect()
        };
        let key = crate::at::crypto::aes_key_from_base64(&known("sessionAesKeyBase64")).unwrap();
        let iv = crate::at::crypto::iv_from_base64(&known("sessionIvBase64")).unwrap();
        let mut cipher = noports_ciphers::Keystream::new(key.reveal(), &iv);
        let mut lines = ControlLines::new(Keying::Single);
        for name in ["message1CipherHex", "message2CipherHex"] {
            let mut bytes = hex(known(name));
            cipher.apply(&mut bytes);
            lines.push(&bytes);
            let line = lines.pop().unwrap().unwrap();
            assert_eq!(line.print().reveal(), &known("message"), "{name}");
        }
        assert_eq!(lines.pop(), Ok(None));
    }

    #[test]
    fn lines_without_an_end_are_believed_until_the_first_lf_and_never_with_twin_keys() {
        let ended = known("message");
        let bare = ended.trim_end();
        for (kind, text, want) in [
            (Keying::Single, format!("{bare}{bare}"), 2),
            (Keying::Single, format!("{bare}{ended}{ended}"), 3),
            (Keying::Single, format!("{ended}{bare}"), 1),
            (Keying::Twin, format!("{bare}{bare}"), 0),
            (Keying::Plain, format!("{bare}{bare}"), 0),
            (Keying::Plain, "connect:no:encrypt".repeat(3), 3),
            (Keying::Plain, "connect:no:encrypt\n".repeat(3), 3),
            (Keying::Twin, format!("{ended}{ended}"), 2),
            (Keying::Single, known("twinMessage"), 1),
        ] {
            assert_eq!(whole(kind, &text).unwrap().len(), want, "{kind:?} {text}");
        }
    }

    #[test]
    fn a_connection_of_another_kind_than_the_sessions_ends_it() {
        let (keys, plain) = (known("message"), known("plainMessageNoEncrypt"));
        for (kind, text, want) in [
            (Keying::Plain, &plain, Ok(1)),
            (Keying::Single, &plain, Err(ControlError::OtherKind)),
            (Keying::Twin, &plain, Err(ControlError::OtherKind)),
            (Keying::Plain, &keys, Err(ControlError::OtherKind)),
            (Keying::Single, &keys, Ok(1)),
        ] {
            let lines = whole(kind, text).map(|lines| lines.len());
            assert_eq!(lines, want, "{kind:?} {text}");
        }
    }

    #[test]
    fn words_of_others_are_passed_over_and_half_a_connection_ends_it() {
        for (text, want) in [
            ("\n\r\n", Ok(vec![])),
            ("hello:1:2\n", Ok(vec![ControlLine::Unknown])),
            ("heartbeat:x\n", Ok(vec![ControlLine::Unknown])),
            ("heartbeat:7\r\n", Ok(vec![ControlLine::Heartbeat(7)])),
            ("connect\n", Err(ControlError::Keys)),
            ("connect:x\n", Err(ControlError::Keys)),
            ("connect:x:y\n", Err(ControlError::Keys)),
            ("connect:a:b:c\n", Err(ControlError::Keys)),
        ] {
            assert_eq!(whole(Keying::Twin, text), want, "{text:?}");
        }
    }

    #[test]
    fn a_line_without_an_end_is_not_collected_for_ever() {
        let endless = std::iter::repeat_n(vec![b'x'; 100], 1000);
        assert_eq!(read(Keying::Single, endless), Err(ControlError::TooLong));
        let long = "x".repeat(MAX_LINE + 1) + "\n";
        assert_eq!(whole(Keying::Single, &long), Err(ControlError::TooLong));
        assert_eq!(
            whole(Keying::Single, &long[1..]),
            Ok(vec![ControlLine::Unknown])
        );
    }

    proptest! {
        #[test]
        fn chunking_never_changes_the_lines(
            kinds in prop::collection::vec(0usize..4, 0..6),
            unended in 0usize..4,
            twin in any::<bool>(),
            cuts in prop::collection::vec(1usize..200, 0..30),
        ) {
            let of = ["message", "twinMessage", "heartbeat"].map(known);
            let session = if twin { Keying::Twin } else { Keying::Single };
            let mut text = String::new();
            if !twin {
                text += &of[0].trim_end().repeat(unended);
            }
            for kind in kinds {
                // A single key before a single-key session's first LF, for both rules meet there.
                let line = if twin || kind != 1 { of.get(kind) } else { of.first() };
                text += line.map_or("later:word\n", String::as_str);
            }
            let wanted = whole(session, &text).unwrap();
            let mut rest = text.as_bytes();
            let mut pieces = Vec::new();
            for cut in cuts {
                let (piece, behind) = rest.split_at(cut.min(rest.len()));
                pieces.push(piece.to_vec());
                rest = behind;
            }
            pieces.push(rest.to_vec());
            prop_assert_eq!(read(session, pieces).unwrap(), wanted.clone());
            let single = text.bytes().map(|byte| vec![byte]);
            prop_assert_eq!(read(session, single).unwrap(), wanted);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = read(Keying::Single, [bytes.clone()]);
            let _ = read(Keying::Twin, [bytes]);
        }
    }
}
