//! Cuts the byte stream of one connection into replies; does no I/O itself.
//!
//! ```text
//!   socket ──push(bytes)──▶ Replies ──pop()──▶ Ok(Some(Reply)) | Ok(None): push more
//!
//!   d a t a : 4 2 \n @ a l i c e @ d a t a : o k \n @ a l i c e @
//!   '── reply 1 ──'  '─ prompt ─' '── reply 2 ─'   '── kept ──'
//! ```

use super::fault::Fault;

/// Longest line either side accepts, in bytes (all Dart parties use this buffer size).
pub const MAX_LINE: usize = 10_240_000;

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
#[derive(Debug)]
pub struct Replies {
    _buf: Vec<u8>,
}

impl Replies {
    /// An empty one.
    pub fn new(_mode: Mode) -> Self {
        todo!()
    }
    /// After `monitor` was sent on this connection.
    pub fn set_mode(&mut self, _mode: Mode) {
        todo!()
    }
    /// The next reply may be a prompt that comes alone (`pol`, and the greeting).
    pub fn expect_prompt(&mut self) {
        todo!()
    }
    /// Takes what was read.
    pub fn push(&mut self, _bytes: &[u8]) {
        todo!()
    }
    /// The next whole reply, or `None` while more bytes are needed.
    ///
    /// # Errors
    /// See [`WireError`].
    pub fn pop(&mut self) -> Result<Option<Reply>, WireError> {
        todo!()
    }
    /// Whether a started reply waits for its end (the connection's end in this state is a loss).
    pub fn is_partial(&self) -> bool {
        todo!()
    }
    /// At the end of the stream: a last line without prompt (`error:AT0012…\n`, then closed).
    pub fn finish(&mut self) -> Result<Option<Reply>, WireError> {
        todo!()
    }
}
