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
//! A monitor's line that is longer than its reader wants, or no text, is passed over up to its end without being kept:
//! strangers decide how long those are ([`Reply::Skipped`]).
//!
//! Every byte is looked at a fixed number of times, however the network cuts them.
//!
//! Source: at_libraries:packages/at_lookup/lib/src/connection/outbound_message_listener.dart

use super::fault::Fault;

mod skipped;

pub use skipped::Skipped;

use skipped::Skipping;

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
    /// A monitor's line that was passed over: too long, or no text.
    Skipped(Skipped),
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
    #[error("the server sent something that is not a reply")]
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
    /// A monitor's lines above this are passed over.
    limit: usize,
    /// The line that is being passed over; none of it is in `buf`.
    skipping: Option<Skipping>,
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
            limit: MAX_LINE,
            skipping: None,
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

    /// The longest line of a monitor that is wanted, in bytes as they are sent, escapes and all.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit.min(MAX_LINE);
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
    pub fn push(&mut self, mut bytes: &[u8]) {
        if let Some(skipping) = &mut self.skipping {
            bytes = skipping.take(bytes);
        }
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
        if let Some(skipping) = &self.skipping {
            let Some(skipped) = skipping.ended() else {
                return Ok(None);
            };
            self.skipping = None;
            return Ok(Some(Reply::Skipped(skipped)));
        }
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
                if self.passes_over(self.scanned) {
                    self.skip_the_rest();
                    return Ok(None);
                }
                return self.within_limit(self.scanned).map(|()| None);
            };
            let end = self.scanned + end;
            if self.passes_over(end) {
                return Ok(Some(self.skip(end)));
            }
            self.within_limit(end)?;
            if !self.open {
                let line = skip_prompts(&self.buf[self.start..end]);
                if line.trim_ascii().is_empty() {
                    self.consume(end + 1 - self.start);
                    continue;
                }
                let kind = ReplyKind::of(line).ok_or(WireError::Unknown)?;
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
            return match self.take(end) {
                Err(WireError::NotUtf8) if self.mode == Mode::Monitor => Ok(Some(self.skip(end))),
                taken => taken.map(Some),
            };
        }
    }

    /// Whether a started reply waits for its end (the connection's end in this state is a loss).
    pub fn is_partial(&self) -> bool {
        if self.skipping.is_some() {
            return true;
        }
        let rest = skip_prompts(self.rest());
        let half_a_prompt =
            rest.first() == Some(&b'@') && prompt_name(rest).len() + 1 == rest.len();
        !rest.is_empty() && !half_a_prompt
    }

    /// Bytes of the line that is being passed over; `None` when there is none.
    pub fn skipping(&self) -> Option<u64> {
        self.skipping.as_ref().map(Skipping::bytes)
    }

    /// At the end of the stream: a last line without prompt (`error:AT0012…\n`, then closed).
    ///
    /// Call it when [`Self::pop`] has nothing more. A line that was cut off is no reply.
    ///
    /// # Errors
    /// See [`WireError`].
    pub fn finish(&mut self) -> Result<Option<Reply>, WireError> {
        if self.open && self.rest().ends_with(b"\n") {
            return self.take(self.buf.len() - 1).map(Some);
        }
        Ok(None)
    }

    fn rest(&self) -> &[u8] {
        &self.buf[self.start..]
    }

    fn passes_over(&self, end: usize) -> bool {
        self.mode == Mode::Monitor && end - self.start > self.limit
    }

    /// Passes over the line whose end is at `end`.
    fn skip(&mut self, end: usize) -> Reply {
        let skipped = Skipped::of(&self.buf[self.start..end]);
        self.consume(end + 1 - self.start);
        Reply::Skipped(skipped)
    }

    /// Passes over the line whose end has not come yet.
    fn skip_the_rest(&mut self) {
        let mut skipping = Skipping::default();
        skipping.take(self.rest());
        self.skipping = Some(skipping);
        self.consume(self.buf.len() - self.start);
    }

    fn within_limit(&self, end: usize) -> Result<(), WireError> {
        if end - self.start > MAX_LINE {
            return Err(WireError::TooLong);
        }
        Ok(())
    }

    /// `None`: no prompt alone, read on as usual.
    fn pop_prompt(&mut self) -> Option<Result<Option<Reply>, WireError>> {
        let rest = self.rest();
        match rest.first() {
            None => return Some(Ok(None)),
            Some(b'@') => {}
            Some(_) => return None,
        }
        let name = prompt_name(rest).len();
        let len = match rest.get(1 + name) {
            // The greeting has no name.
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
        let kind = ReplyKind::of(line).ok_or(WireError::Unknown)?;
        let whole = str::from_utf8(&line[kind.token().len()..]).map_err(|_| WireError::NotUtf8)?;
        let text = whole.strip_suffix('\r').unwrap_or(whole);
        let reply = match kind {
            ReplyKind::Data => Reply::Data(text.to_owned()),
            ReplyKind::Error => Reply::Error(Fault::parse(text)),
            ReplyKind::Notification => Reply::Notification(text.trim().to_owned()),
            ReplyKind::Stream => Reply::Stream(text.to_owned()),
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
enum ReplyKind {
    Data,
    Error,
    Notification,
    Stream,
}

impl ReplyKind {
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
mod tests;
