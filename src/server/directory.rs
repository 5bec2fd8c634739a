//! What the atDirectory says on one connection. No I/O: bytes in, look-ups out; findings in, answers out.
//!
//! ```text
//!   socket ──push(bytes)──▶ Enquiry ──▶ Lookup("alice") ──▶ (caller looks it up)
//!   socket ◀── one write ── DirectoryReply ◀── answer(found) ◀─────┘
//!
//!   S @      C alice\n      S host:25001\r\n@      C nobody\n      S null\r\n@      C @exit
//! ```
//!
//! Clients judge each TLS record alone, so an answer and the prompt behind it are one write.
//! Guessing is made slow: the second unknown name on a connection is answered after 3 s, the third
//! not at all. A blank line is no guess (some clients send one to see whether anybody is there).
//!
//! Source: at_server:packages/at_root_server/lib/src/client/at_root_client.dart.

use std::{collections::VecDeque, mem, time::Duration};

use crate::text::endpoint::Endpoint;

/// Longest line, in bytes, its end not counted. No atSign comes near it.
pub const MAX_LINE: usize = 255;
/// How long the second and third unknown name are made to wait.
pub const MISS_DELAY: Duration = Duration::from_secs(3);
/// The unknown name that ends the connection.
const LAST_MISS: u32 = 3;

const EXIT: &[u8] = b"@exit";

/// What the caller has to do next, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DirectoryRequest {
    /// Look this name up (lower case, without `@`; empty for a blank line), then call [`Enquiry::answer`].
    Lookup(String),
    /// Close the connection without a word. Nothing comes after it.
    Close,
}

/// What to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryReply {
    /// Send in one write; may be empty.
    pub bytes: Vec<u8>,
    /// Wait this long before.
    pub delay: Duration,
    /// Close afterwards.
    pub close: bool,
}

/// One connection to the atDirectory.
///
/// Call [`answer`](Self::answer) once for each [`DirectoryRequest::Lookup`], in their order.
#[derive(Debug, Default)]
pub struct Enquiry {
    line: Vec<u8>,
    /// For each look-up not answered yet: whether it was a blank line.
    asked: VecDeque<bool>,
    misses: u32,
    closed: bool,
}

impl Enquiry {
    /// Sent as soon as the connection stands.
    pub const GREETING: &'static [u8] = b"@";

    /// A fresh connection.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes what was read. How the bytes are cut makes no difference; therefore `@exit` at the
    /// start of a line closes at once, whatever would have followed.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<DirectoryRequest> {
        let mut steps = Vec::new();
        for &byte in bytes {
            if self.closed {
                break;
            }
            steps.extend(self.push_byte(byte));
        }
        steps
    }

    fn push_byte(&mut self, byte: u8) -> Option<DirectoryRequest> {
        if byte == b'\n' {
            let line = mem::take(&mut self.line);
            return Some(self.finish_line(line));
        }
        self.line.push(byte);
        let exit = self.line.trim_ascii().eq_ignore_ascii_case(EXIT);
        if exit || self.line.len() > MAX_LINE {
            return Some(self.close());
        }
        None
    }

    fn finish_line(&mut self, line: Vec<u8>) -> DirectoryRequest {
        let Ok(text) = String::from_utf8(line) else {
            return self.close();
        };
        let asked = text.trim().to_lowercase();
        let name = asked.strip_prefix('@').unwrap_or(&asked);
        self.asked.push_back(name.is_empty());
        DirectoryRequest::Lookup(name.to_owned())
    }

    fn close(&mut self) -> DirectoryRequest {
        self.closed = true;
        self.line = Vec::new();
        DirectoryRequest::Close
    }

    /// The answer to the oldest look-up: where the atServer is, or that there is none.
    /// Older clients cut at the first `:`, so for them the host must be a name or an IPv4 address.
    pub fn answer(&mut self, found: Option<&Endpoint>) -> DirectoryReply {
        let blank = self.asked.pop_front().unwrap_or(false);
        match found {
            Some(at) if !blank => DirectoryReply::now(format!("{at}\r\n@")),
            _ if blank => DirectoryReply::now("null\r\n@"),
            _ => self.miss(),
        }
    }

    fn miss(&mut self) -> DirectoryReply {
        self.misses = self.misses.saturating_add(1);
        let close = self.misses >= LAST_MISS;
        let null = DirectoryReply::now(if close { "" } else { "null\r\n@" });
        let delay = match self.misses {
            1 => Duration::ZERO,
            _ => MISS_DELAY,
        };
        self.closed |= close;
        DirectoryReply {
            delay,
            close,
            ..null
        }
    }
}

impl DirectoryReply {
    fn now(text: impl Into<String>) -> Self {
        Self {
            bytes: text.into().into_bytes(),
            delay: Duration::ZERO,
            close: false,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lookup(name: &str) -> DirectoryRequest {
        DirectoryRequest::Lookup(name.to_owned())
    }

    #[test]
    fn lines_become_lookups() {
        let long = "a".repeat(MAX_LINE);
        let too_long = "a".repeat(MAX_LINE + 1);
        let full = format!("{long}\n");
        let rows: &[(&[u8], &[DirectoryRequest])] = &[
            (b"alice\n", &[lookup("alice")]),
            (b"alice\r\n", &[lookup("alice")]),
            (b"@Alice\n", &[lookup("alice")]),
            (b" alice \n", &[lookup("alice")]),
            (b"alice", &[]),
            (b"\n", &[lookup("")]),
            (b"\r\n", &[lookup("")]),
            (b"@\n", &[lookup("")]),
            (b"alice\nbob\ncar", &[lookup("alice"), lookup("bob")]),
            (
                "ali\u{1f6e0}\n".as_bytes(),
                &[DirectoryRequest::Lookup("ali\u{1f6e0}".into())],
            ),
            (b"@exit", &[DirectoryRequest::Close]),
            (b"@exit\n", &[DirectoryRequest::Close]),
            (b" @EXIT\r\n", &[DirectoryRequest::Close]),
            (
                b"alice\n@exit\nbob\n",
                &[lookup("alice"), DirectoryRequest::Close],
            ),
            (b"ali\xff\n", &[DirectoryRequest::Close]),
            (
                b"alice\n\xff\xfe\nbob\n",
                &[lookup("alice"), DirectoryRequest::Close],
            ),
            (full.as_bytes(), &[DirectoryRequest::Lookup(long.clone())]),
            (too_long.as_bytes(), &[DirectoryRequest::Close]),
        ];
        for (bytes, want) in rows {
            let got = Enquiry::new().push(bytes);
            assert_eq!(&got, want, "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn found_is_one_write_with_its_prompt() {
        let mut enquiry = Enquiry::new();
        enquiry.push(b"alice\n");
        let answer = enquiry.answer(Some(&at("host.example:25001")));
        assert_eq!(answer, DirectoryReply::now("host.example:25001\r\n@"));
        enquiry.push(b"alice\n");
        let answer = enquiry.answer(Some(&at("[::1]:25001")));
        assert_eq!(answer, DirectoryReply::now("[::1]:25001\r\n@"));
    }

    fn at(text: &str) -> Endpoint {
        text.parse().unwrap()
    }

    #[test]
    fn misses_are_slowed_down_and_the_third_closes() {
        let mut enquiry = Enquiry::new();
        let null = b"null\r\n@".as_slice();
        for (row, bytes, secs, close) in [
            (1, null, 0, false),
            (2, null, 3, false),
            (3, b"".as_slice(), 3, true),
        ] {
            assert_eq!(enquiry.push(b"nobody\n").len(), 1, "miss {row}");
            let got = enquiry.answer(None);
            assert_eq!(got.bytes, bytes, "miss {row}");
            assert_eq!(got.delay, Duration::from_secs(secs), "miss {row}");
            assert_eq!(got.close, close, "miss {row}");
        }
        assert_eq!(enquiry.push(b"alice\n"), [], "after the close");
    }

    #[test]
    fn blank_lines_are_answered_but_never_counted() {
        let mut enquiry = Enquiry::new();
        for _ in 0..20 {
            enquiry.push(b"\r\n");
            assert_eq!(enquiry.answer(None), DirectoryReply::now("null\r\n@"));
        }
        enquiry.push(b"nobody\n");
        assert_eq!(
            enquiry.answer(None).delay,
            Duration::ZERO,
            "first real miss"
        );
    }

    #[test]
    fn a_hit_between_does_not_forgive_misses() {
        let mut enquiry = Enquiry::new();
        enquiry.push(b"no\nalice\nno\n");
        assert_eq!(enquiry.answer(None).delay, Duration::ZERO);
        assert_eq!(
            enquiry.answer(Some(&at("h:1"))).bytes,
            b"h:1\r\n@".as_slice()
        );
        assert_eq!(enquiry.answer(None).delay, MISS_DELAY);
    }

    /// Everything a connection is told when its bytes come in these pieces.
    fn dialog<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Vec<DirectoryReply> {
        let mut enquiry = Enquiry::new();
        let mut told = Vec::new();
        for piece in pieces {
            for step in enquiry.push(piece) {
                match step {
                    DirectoryRequest::Lookup(name) => {
                        let found = name.starts_with('a').then(|| at("host:25000"));
                        told.push(enquiry.answer(found.as_ref()));
                    }
                    DirectoryRequest::Close => told.push(DirectoryReply {
                        close: true,
                        ..DirectoryReply::now("")
                    }),
                }
                if told.last().is_some_and(|answer| answer.close) {
                    return told;
                }
            }
        }
        told
    }

    proptest! {
        #[test]
        fn chunking_never_changes_the_answers(
            words in prop::collection::vec("(alice|bob|@exit|\r|@|[a-z]{0,3}|é|\u{1f6e0}){0,3}\r?\n?", 0..12),
            junk in prop::collection::vec(any::<u8>(), 0..20),
            size in 1usize..9,
        ) {
            let mut stream = words.concat().into_bytes();
            stream.extend(junk);
            stream.extend(b"alice\n");
            prop_assert_eq!(dialog(stream.chunks(size)), dialog(std::iter::once(&stream[..])));
        }
    }
}
