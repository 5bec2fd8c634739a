//! Cuts the byte stream of one connection into replies; does no I/O itself.
//!
//! ```text
//!   socket ──push(bytes)──▶ Replies ──pop()──▶ Ok(Some(Reply)) | Ok(None): push more
//!
//!   d a t a : 4 2 \n @ a l i c e @ d a t a : o k \n @ a l i c e @
//!   '── reply 1 ──'  '─ prompt ─' '── reply 2 ─'   '── kept ──'
//! ```
//!
//! A prompt (`@`, or `@alice@` once logged in) has no line end, so it sticks to the front of the
//! next reply, where it is cut off. A value may hold line ends; only the prompt tells its end.
//! A value with a line end and an `@` behind it therefore looks like two replies: whoever sends the
//! next command should first see that nothing is left over ([`Replies::pop`] gives `None`,
//! [`Replies::is_partial`] is false), else the connection is out of step.
//!
//! Every byte is looked at a fixed number of times, however the network cuts them.
//!
//! Source: at_libraries:packages/at_lookup/lib/src/connection/outbound_message_listener.dart

use super::fault::Fault;

/// Longest line either side accepts, in bytes (all Dart parties use this buffer size).
pub const MAX_LINE: usize = 10_240_000;
/// Longest prompt, in bytes: an atSign of 55 characters between two `@`, with room to spare.
const MAX_PROMPT: usize = 1024;
/// A buffer that grew above this is given back when it is empty, in bytes.
const KEEP: usize = 64 * 1024;

/// One thing a server said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// `data:…`; may hold line ends.
    Data(String),
    /// `error:…`
    Error(Fault),
    /// `notification: {json}`; holds the JSON.
    Notification(String),
    /// `stream:…`
    Stream(String),
    /// `@bob@` alone: the answer to `pol`. Only reported when asked for by [`Replies::expect_prompt`].
    Prompt(String),
}

/// Whether a line end alone finishes a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A reply ends with a line end and a prompt.
    Request,
    /// A line end finishes everything; prompts may or may not come.
    Monitor,
}

/// Why the stream cannot be read on. The connection is of no further use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A line above [`MAX_LINE`].
    #[error("the server sent a line of more than {MAX_LINE} bytes")]
    TooLong,
    /// Not UTF-8.
    #[error("the server sent bytes that are not text")]
    NotUtf8,
    /// A line that is no reply.
    #[error("the server sent something that is no reply")]
    Unknown,
}

/// The cutter.
///
/// After each [`push`](Self::push), [`pop`](Self::pop) until it gives `None`.
#[derive(Debug)]
pub struct Replies {
    /// Bytes before `start` are done with, those before `scanned` hold no line end that ends a reply.
    buf: Vec<u8>,
    start: usize,
    scanned: usize,
    mode: Mode,
    /// The line at `start` is known to be `data:` or `error:`; what follows may belong to it.
    open: bool,
    prompt_wanted: bool,
    /// Something came before, so the next prompt is no greeting.
    greeted: bool,
}

impl Replies {
    /// An empty one.
    pub fn new(mode: Mode) -> Self {
        Self {
            buf: Vec::new(),
            start: 0,
            scanned: 0,
            mode,
            open: false,
            prompt_wanted: false,
            greeted: false,
        }
    }

    /// After `monitor` was sent on this connection.
    pub fn set_mode(&mut self, mode: Mode) {
        self.mode = mode;
        self.open = false;
        self.scanned = self.start;
    }

    /// The next reply may be a prompt that comes alone: the greeting `@` when nothing came before,
    /// else `@bob@`, the answer to `pol`. An ordinary reply in its place ends the expectation.
    pub fn expect_prompt(&mut self) {
        self.prompt_wanted = true;
        if self.greeted {
            // The prompt of the reply before is not the one that is waited for.
            let left = self.rest().len() - skip_prompts(self.rest()).len();
            self.consume(left);
        }
    }

    /// Takes what was read.
    pub fn push(&mut self, bytes: &[u8]) {
        // What is done with goes once it is the larger part, so that each byte moves about once.
        if self.start > self.buf.len() / 2 {
            self.buf.drain(..self.start);
            self.scanned = self.scanned.saturating_sub(self.start);
            self.start = 0;
        }
        self.buf.extend_from_slice(bytes);
    }

    /// The next whole reply, or `None` while more bytes are needed.
    ///
    /// # Errors
    /// See [`WireError`].
    pub fn pop(&mut self) -> Result<Option<Reply>, WireError> {
        loop {
            // Not only at first: blank lines may have stood in front of it.
            if self.prompt_wanted
                && self.scanned == self.start
                && let Some(answer) = self.pop_prompt()
            {
                return answer;
            }
            let unseen = &self.buf[self.scanned..];
            let Some(end) = unseen.iter().position(|&b| b == b'\n') else {
                self.scanned = self.buf.len();
                return self.within_limit(self.scanned).map(|()| None);
            };
            let end = self.scanned + end;
            self.within_limit(end)?;
            if !self.open {
                let line = skip_prompts(&self.buf[self.start..end]);
                if line.trim_ascii().is_empty() {
                    self.consume(end + 1 - self.start);
                    continue;
                }
                let kind = Kind::of(line).ok_or(WireError::Unknown)?;
                self.open = self.mode == Mode::Request && kind.may_go_on();
            }
            if self.open {
                match self.buf.get(end + 1) {
                    Some(b'@') => {}
                    Some(_) => {
                        self.scanned = end + 1;
                        continue;
                    }
                    None => {
                        self.scanned = end;
                        return Ok(None);
                    }
                }
            }
            return self.take(end).map(Some);
        }
    }

    /// Whether a started reply waits for its end (the connection's end in this state is a loss).
    pub fn is_partial(&self) -> bool {
        let rest = skip_prompts(self.rest());
        let half_a_prompt =
            rest.first() == Some(&b'@') && prompt_name(rest).len() + 1 == rest.len();
        !rest.is_empty() && !half_a_prompt
    }

    /// At the end of the stream: a last line without prompt (`error:AT0012…\n`, then closed).
    ///
    /// Call it when [`Self::pop`] has nothing more. A line that was cut off is no reply.
    ///
    /// # Errors
    /// See [`WireError`].
    pub fn finish(&mut self) -> Result<Option<Reply>, WireError> {
        let whole = self.open && self.rest().ends_with(b"\n");
        match whole {
            true => self.take(self.buf.len() - 1).map(Some),
            false => Ok(None),
        }
    }

    fn rest(&self) -> &[u8] {
        &self.buf[self.start..]
    }

    fn within_limit(&self, end: usize) -> Result<(), WireError> {
        match end - self.start > MAX_LINE {
            true => Err(WireError::TooLong),
            false => Ok(()),
        }
    }

    /// `None`: no prompt alone, read on as usual.
    fn pop_prompt(&mut self) -> Option<Result<Option<Reply>, WireError>> {
        let rest = self.rest();
        match rest.first() {
            None => return Some(Ok(None)),
            Some(b'@') => {}
            Some(_) => return None,
        }
        let name = match self.greeted {
            false => &rest[..0],
            true => prompt_name(rest),
        };
        let (name, behind) = (name.len(), rest.get(1 + name.len()));
        let len = match behind {
            _ if !self.greeted => 1,
            Some(b'@') if name > 0 => name + 2,
            None if name <= MAX_PROMPT => return Some(Ok(None)),
            None => return Some(Err(WireError::TooLong)),
            Some(_) => return None,
        };
        let prompt = str::from_utf8(&rest[..len]).map(str::to_owned);
        self.prompt_wanted = false;
        self.greeted = true;
        self.consume(len);
        let prompt = prompt.map_err(|_| WireError::NotUtf8);
        Some(prompt.map(|prompt| Some(Reply::Prompt(prompt))))
    }

    /// The reply from `start` to the line end at `end`.
    fn take(&mut self, end: usize) -> Result<Reply, WireError> {
        let line = skip_prompts(&self.buf[self.start..end]);
        let kind = Kind::of(line).ok_or(WireError::Unknown)?;
        let text = str::from_utf8(&line[kind.token().len()..]).map_err(|_| WireError::NotUtf8)?;
        let text = text.strip_suffix('\r').unwrap_or(text);
        let reply = match kind {
            Kind::Data => Reply::Data(text.to_owned()),
            Kind::Error => Reply::Error(Fault::parse(text)),
            Kind::Notification => Reply::Notification(text.trim().to_owned()),
            Kind::Stream => Reply::Stream(text.to_owned()),
        };
        self.open = false;
        self.prompt_wanted = false;
        self.greeted = true;
        self.consume(end + 1 - self.start);
        Ok(reply)
    }

    fn consume(&mut self, len: usize) {
        self.start += len;
        self.scanned = self.start;
        if self.start == self.buf.len() {
            self.buf.clear();
            self.start = 0;
            self.scanned = 0;
            if self.buf.capacity() > KEEP {
                self.buf = Vec::new();
            }
        }
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Data,
    Error,
    Notification,
    Stream,
}

impl Kind {
    fn of(line: &[u8]) -> Option<Self> {
        let all = [Self::Data, Self::Error, Self::Notification, Self::Stream];
        all.into_iter()
            .find(|kind| line.starts_with(kind.token().as_bytes()))
    }

    fn token(self) -> &'static str {
        match self {
            Self::Data => "data:",
            Self::Error => "error:",
            Self::Notification => "notification:",
            Self::Stream => "stream:",
        }
    }

    /// May hold line ends when somebody stored a value with line ends.
    fn may_go_on(self) -> bool {
        matches!(self, Self::Data | Self::Error)
    }
}

/// Cuts leading prompts off: any number of `@` and `@name@`.
fn skip_prompts(mut line: &[u8]) -> &[u8] {
    while line.first() == Some(&b'@') {
        let name = prompt_name(line).len();
        line = match line.get(1 + name) {
            Some(b'@') if name > 0 => &line[name + 2..],
            // Half a prompt, or a lone `@` in front of something.
            None if name > 0 => return line,
            _ => &line[1..],
        };
    }
    line
}

/// The name behind the leading `@`, as far as it is there.
fn prompt_name(line: &[u8]) -> &[u8] {
    let name = &line[1..];
    let end = name
        .iter()
        .position(|b| matches!(b, b'@' | b':') || b.is_ascii_whitespace());
    &name[..end.unwrap_or(name.len())]
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use miniserde::{
        Deserialize,
        json::{self, Value},
    };
    use proptest::prelude::*;

    use super::*;
    use crate::at::fault::Code;

    #[derive(Deserialize)]
    struct Vectors {
        framing: Section,
    }
    #[derive(Deserialize)]
    struct Section {
        cases: Vec<Case>,
    }
    #[derive(Deserialize)]
    struct Case {
        #[serde(rename = "case")]
        name: String,
        state: String,
        bytes_utf8: Option<String>,
        chunks_utf8: Option<Vec<String>>,
        messages: Vec<Value>,
    }

    impl Case {
        fn mode(&self) -> Mode {
            match self.state.starts_with("monitor") {
                true => Mode::Monitor,
                false => Mode::Request,
            }
        }
        fn chunks(&self) -> Vec<Vec<u8>> {
            match (&self.bytes_utf8, &self.chunks_utf8) {
                (Some(bytes), _) => vec![bytes.clone().into_bytes()],
                (None, Some(chunks)) => chunks.iter().map(|c| c.clone().into_bytes()).collect(),
                (None, None) => panic!("{}", self.name),
            }
        }
        /// The wanted messages in the vectors' own form.
        fn want(&self) -> Vec<String> {
            self.messages.iter().map(json::to_string).collect()
        }
    }

    /// All but the two of the atDirectory, which speaks without `data:`; [`crate::at::directory`] reads it.
    fn cases() -> Vec<Case> {
        let all = include_str!("../../tests/vectors/atprotocol.json");
        let vectors: Vectors = json::from_str(all).unwrap();
        let mut cases = vectors.framing.cases;
        assert_eq!(cases.len(), 16);
        cases.retain(|case| case.state != "atDirectory");
        assert_eq!(cases.len(), 14);
        cases
    }

    fn read(mode: Mode, chunks: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Vec<Reply> {
        let mut replies = Replies::new(mode);
        let mut all = Vec::new();
        for chunk in chunks {
            replies.push(chunk.as_ref());
            all.extend(std::iter::from_fn(|| replies.pop().unwrap()));
        }
        all.extend(replies.finish().unwrap());
        assert!(!replies.is_partial(), "{all:?}");
        all
    }

    fn vector_form(reply: &Reply) -> String {
        let pair = |kind: &str, text: &str| json::to_string(&vec![kind, text]);
        match reply {
            Reply::Data(text) => pair("data", text),
            Reply::Error(fault) => json::to_string(&vec![
                Some("error"),
                fault.code.map(Code::number),
                Some(&fault.text),
            ]),
            Reply::Notification(text) => {
                // Through the same reader as the vectors, so that members have one order.
                let value: Value = json::from_str(text).unwrap();
                format!(r#"["notification",{}]"#, json::to_string(&value))
            }
            Reply::Stream(text) => pair("stream", text),
            Reply::Prompt(text) => pair("prompt", text),
        }
    }

    fn vector_forms(replies: &[Reply]) -> Vec<String> {
        replies.iter().map(vector_form).collect()
    }

    #[test]
    fn a_blank_line_before_the_greeting_is_passed_over_however_the_bytes_are_cut() {
        for pieces in [&["\n@"][..], &["\n", "@"], &["\r\n", "\n@"]] {
            let mut replies = Replies::new(Mode::Request);
            replies.expect_prompt();
            let mut seen = Vec::new();
            for piece in pieces {
                replies.push(piece.as_bytes());
                seen.extend(replies.pop().unwrap());
            }
            assert_eq!(seen, [Reply::Prompt("@".into())], "{pieces:?}");
        }
    }

    #[test]
    fn every_stream_of_the_vectors_gives_its_messages() {
        for case in cases() {
            // The one error without prompt has no separate description.
            let got = vector_forms(&read(case.mode(), case.chunks()));
            assert_eq!(got, case.want(), "{}", case.name);
        }
    }

    #[test]
    fn every_cut_in_two_and_single_bytes_give_the_same() {
        for case in cases() {
            let bytes = case.chunks().concat();
            let want = case.want();
            let single = read(case.mode(), bytes.chunks(1));
            assert_eq!(vector_forms(&single), want, "{}, single bytes", case.name);
            for at in 0..=bytes.len() {
                let got = read(case.mode(), [&bytes[..at], &bytes[at..]]);
                assert_eq!(vector_forms(&got), want, "{}, cut at {at}", case.name);
            }
        }
    }

    #[test]
    fn a_whole_dialogue_keeps_its_step() {
        let stream = "@data:_s@alice:c\n@data:success\n@alice@data:null\n@alice@error:AT0015-key not found : x\n@alice@data:a\r\n@alice@";
        let want = [
            "_s@alice:c",
            "success",
            "null",
            "AT0015: key not found : x",
            "a",
        ];
        for size in 1..stream.len() {
            let got: Vec<String> = read(Mode::Request, stream.as_bytes().chunks(size))
                .into_iter()
                .map(|reply| match reply {
                    Reply::Data(text) => text,
                    Reply::Error(fault) => fault.to_string(),
                    other => panic!("{other:?}"),
                })
                .collect();
            assert_eq!(got, want, "chunks of {size}");
        }
    }

    #[test]
    fn a_lone_prompt_between_replies_is_dropped() {
        let chunks = ["@", "data:a\n@", "@alice@", "@alice@", "data:b\n@alice@"];
        let want = [Reply::Data("a".into()), Reply::Data("b".into())];
        assert_eq!(read(Mode::Request, chunks), want);
    }

    #[test]
    fn what_looks_like_a_reply_inside_a_value_stays_inside() {
        let stream = "data:x\ndata:evil\nerror:AT0401-no\nnotification: {}\n@alice@";
        let value = "x\ndata:evil\nerror:AT0401-no\nnotification: {}";
        assert_eq!(read(Mode::Request, [stream]), [Reply::Data(value.into())]);
    }

    #[test]
    fn a_line_end_finishes_everything_on_a_monitor() {
        let mut replies = Replies::new(Mode::Request);
        replies.push(b"@alice@data:ok\n");
        assert_eq!(replies.pop(), Ok(None));
        assert!(replies.is_partial());
        replies.set_mode(Mode::Monitor);
        assert_eq!(replies.pop(), Ok(Some(Reply::Data("ok".into()))));
        replies.push(b"@alice@notification: {\"a\":1} \r\n\r\n@\nstream:done x\n");
        assert_eq!(
            replies.pop(),
            Ok(Some(Reply::Notification("{\"a\":1}".into())))
        );
        assert_eq!(replies.pop(), Ok(Some(Reply::Stream("done x".into()))));
        assert_eq!(replies.pop(), Ok(None));
        assert!(!replies.is_partial());
    }

    #[test]
    fn prompts_that_come_alone_are_told_when_asked_for() {
        // What was read before asking, what comes then, what is told, what is left.
        let prompt = |text: &str| Some(Reply::Prompt(text.into()));
        for (before, then, told) in [
            ("", "@", prompt("@")),
            ("", "", None),
            ("@data:proof:x\n@", "@bob@", prompt("@bob@")),
            ("@data:proof:x\n@", "@bo", None),
            ("@data:proof:x\n@", "@", None),
            (
                "@data:proof:x\n@",
                "error:AT0401-Exception: no\n@",
                Some(Reply::Error(Fault::new(
                    Code::Unauthenticated,
                    "Exception: no",
                ))),
            ),
            (
                "@data:proof:x\n@",
                "@data:x\n@",
                Some(Reply::Data("x".into())),
            ),
        ] {
            for size in 1..=then.len().max(1) {
                let mut replies = Replies::new(Mode::Request);
                replies.push(before.as_bytes());
                while replies.pop().unwrap().is_some() {}
                replies.expect_prompt();
                let mut got = None;
                for chunk in then.as_bytes().chunks(size) {
                    replies.push(chunk);
                    got = got.or(replies.pop().unwrap());
                }
                assert_eq!(got, told, "{before:?} {then:?} in {size}");
                assert!(!replies.is_partial(), "{before:?} {then:?} in {size}");
            }
        }
    }

    #[test]
    fn the_greeting_is_told_even_when_it_came_first() {
        let mut replies = Replies::new(Mode::Request);
        replies.push(b"@");
        replies.expect_prompt();
        assert_eq!(replies.pop(), Ok(Some(Reply::Prompt("@".into()))));
        replies.push(b"data:a\n@");
        assert_eq!(replies.pop(), Ok(Some(Reply::Data("a".into()))));
    }

    #[test]
    fn an_end_in_the_middle_is_a_loss() {
        for (stream, partial, last) in [
            ("", false, None),
            ("@", false, None),
            ("@ali", false, None),
            ("@alice@", false, None),
            ("@alice@da", true, None),
            ("data:a", true, None),
            ("data:a\nb", true, None),
            ("data:a\n", true, Some(Reply::Data("a".into()))),
        ] {
            let mut replies = Replies::new(Mode::Request);
            replies.push(stream.as_bytes());
            assert_eq!(replies.pop(), Ok(None), "{stream:?}");
            assert_eq!(replies.is_partial(), partial, "{stream:?}");
            assert_eq!(replies.finish(), Ok(last), "{stream:?}");
        }
    }

    #[test]
    fn what_is_no_reply_ends_the_connection() {
        for (stream, mode, error) in [
            (
                &b"HTTP/1.1 400 Bad Request\r\n"[..],
                Mode::Request,
                WireError::Unknown,
            ),
            (b"hello\n@", Mode::Request, WireError::Unknown),
            (b"second line\n", Mode::Monitor, WireError::Unknown),
            (b"@alice@ data:x\n@", Mode::Request, WireError::Unknown),
            (b"data:\xff\n@", Mode::Request, WireError::NotUtf8),
        ] {
            let mut replies = Replies::new(mode);
            replies.push(stream);
            assert_eq!(replies.pop(), Err(error), "{stream:?}");
        }
    }

    #[test]
    fn the_longest_line_passes_and_one_more_byte_does_not() {
        for (len, fits) in [(MAX_LINE, true), (MAX_LINE + 1, false)] {
            let mut replies = Replies::new(Mode::Request);
            let mut sent = 0;
            replies.push(b"data:");
            sent += 5;
            let mut error = None;
            while sent < len && error.is_none() {
                let size = 1024.min(len - sent);
                replies.push(&[b'x'; 1024][..size]);
                sent += size;
                error = replies.pop().err();
            }
            replies.push(b"\n@");
            let got = replies.pop();
            match fits {
                true => {
                    let Ok(Some(Reply::Data(text))) = got else {
                        panic!("{error:?}");
                    };
                    assert_eq!(text.len() + 5, MAX_LINE);
                    assert!(replies.buf.capacity() > KEEP, "one prompt is left in it");
                    replies.push(b"data:a\n@");
                    assert!(replies.pop().unwrap().is_some());
                }
                false => assert_eq!(error, Some(WireError::TooLong)),
            }
        }
    }

    /// Passes at once, or not within any patience.
    #[test]
    fn hostile_streams_take_linear_time() {
        let lines = "\n".repeat(2_000_000);
        let prompts = "@".repeat(2_000_000);
        for stream in [
            format!("{prompts}data:{lines}@"),
            format!("data:{}@", "x\n".repeat(1_000_000)),
            "data:\n@".repeat(500_000),
            "@a".repeat(1_000_000),
        ] {
            let mut replies = Replies::new(Mode::Request);
            for chunk in stream.as_bytes().chunks(1000) {
                replies.push(chunk);
                while let Ok(Some(_)) = replies.pop() {}
            }
            assert!(replies.buf.len() <= stream.len());
        }
    }

    proptest! {
        #[test]
        fn how_the_network_cuts_never_matters(
            texts in proptest::collection::vec(("data|error", "[ -~é😀]{0,12}(\n[a-z: ]{0,9})?"), 0..5),
            alice: bool,
            cuts in proptest::collection::vec(1..40usize, 1..20),
        ) {
            let prompt = if alice { "@alice@" } else { "@" };
            let replies: String = texts.iter().map(|(kind, text)| format!("{kind}:{text}\n{prompt}")).collect();
            let stream = format!("@{replies}");
            let mut rest = stream.as_bytes();
            let mut chunks = Vec::new();
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (chunk, behind) = rest.split_at((*cut).min(rest.len()));
                chunks.push(chunk);
                rest = behind;
            }
            let whole = read(Mode::Request, [&stream]);
            prop_assert_eq!(whole.len(), texts.len());
            prop_assert_eq!(read(Mode::Request, chunks), whole);
        }

        #[test]
        fn no_bytes_make_it_panic(
            chunks in proptest::collection::vec("[@a:\n\r ]{0,6}|data:|notification:|error:|\\PC", 0..30),
            monitor: bool,
            prompts in 0..30usize,
        ) {
            let mut replies = Replies::new(if monitor { Mode::Monitor } else { Mode::Request });
            for (at, chunk) in chunks.iter().enumerate() {
                if at == prompts {
                    replies.expect_prompt();
                }
                replies.push(chunk.as_bytes());
                while let Ok(Some(_)) = replies.pop() {}
                replies.is_partial();
            }
            let _ = replies.finish();
        }
    }
}
