//! Whether a session has begun: the service has said something, or our end had nothing to say to it.
//!
//! ```text
//!   byte from there ───────────────────────▶ begun            ssh's banner, say
//!   our input ends, then theirs ───────────▶ regular          a service that only listens
//!   theirs ends first, without a byte ─────▶ unbegun          nothing stands behind the rendezvous any more
//! ```
//!
//! A stream has no other sign of it: a login at the rendezvous is not answered. What is not authenticated may come from
//! the rendezvous itself, which can make up any byte, but not one that decrypts to a letter of its choice. So where ssh
//! is expected its first line has to come; for everything else only authenticated records will cure it.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};

use futures_lite::{AsyncRead, AsyncWrite};

use super::error::BridgeError;

/// What the service says first, if that is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Greeting {
    /// Whatever it likes.
    #[default]
    Any,
    /// A line `SSH-…`; others may stand before it (RFC 4253, 4.2).
    Ssh,
}

/// What has been seen of a session.
#[derive(Debug, Default)]
pub(super) struct Beginning {
    heard: AtomicBool,
    greeted: AtomicBool,
    said_all: AtomicBool,
    heard_all: AtomicBool,
    unbegun: AtomicBool,
    ended_last: AtomicBool,
}

/// Our input, watched.
pub(super) struct WatchedInput<R>(R, Arc<Beginning>);

/// Our output, watched.
pub(super) struct WatchedOutput<W> {
    output: W,
    watch: Arc<Beginning>,
    awaited: GreetingParser,
}

/// How much of a greeting has come.
enum GreetingParser {
    /// So many letters of it, at the beginning of a line.
    Letters(usize),
    /// Another line goes on.
    LineEnd,
    Nothing,
}

const SSH: &[u8] = b"SSH-";

impl GreetingParser {
    /// Whether the greeting is complete.
    fn hear(&mut self, bytes: &[u8]) -> bool {
        for &byte in bytes {
            *self = match *self {
                Self::Nothing => return true,
                Self::Letters(count) if SSH.get(count) == Some(&byte) => {
                    if count + 1 == SSH.len() {
                        Self::Nothing
                    } else {
                        Self::Letters(count + 1)
                    }
                }
                _ if byte == b'\n' => Self::Letters(0),
                _ => Self::LineEnd,
            };
        }
        matches!(self, Self::Nothing)
    }
}

/// Watches both ends of a local stream.
pub(super) fn watch<R, W>(
    input: R,
    output: W,
    greeting: Greeting,
) -> (WatchedInput<R>, WatchedOutput<W>, Arc<Beginning>) {
    let watch = Arc::new(Beginning::default());
    let heard = WatchedOutput {
        output,
        watch: watch.clone(),
        awaited: match greeting {
            Greeting::Any => GreetingParser::Nothing,
            Greeting::Ssh => GreetingParser::Letters(0),
        },
    };
    (WatchedInput(input, watch.clone()), heard, watch)
}

impl Beginning {
    /// Neither end has said a thing that counts: not a byte has come, and ours has not ended.
    pub(super) fn is_silent(&self) -> bool {
        !self.heard.load(Relaxed) && !self.said_all.load(Relaxed)
    }

    /// Whether our end went on speaking when the other one had said all.
    pub(super) fn ended_last(&self) -> bool {
        self.ended_last.load(Relaxed)
    }

    /// Why it is no session, where the other end was over first and had not greeted.
    pub(super) fn unbegun(&self) -> Option<BridgeError> {
        if !self.unbegun.load(Relaxed) {
            None
        } else if self.heard.load(Relaxed) {
            Some(BridgeError::NoGreeting)
        } else {
            Some(BridgeError::Unbegun)
        }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for WatchedInput<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let read = Pin::new(&mut self.0).poll_read(cx, buf);
        if matches!(read, Poll::Ready(Ok(0))) {
            self.1.said_all.store(true, Relaxed);
            let last = self.1.heard_all.load(Relaxed);
            self.1.ended_last.store(last, Relaxed);
        }
        read
    }
}

impl<W: AsyncWrite + Unpin> AsyncWrite for WatchedOutput<W> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let output = Pin::new(&mut self.output);
        let written = ready!(output.poll_write(cx, buf))?;
        let said = buf.get(..written).unwrap_or_default();
        self.watch.heard.store(true, Relaxed);
        if self.awaited.hear(said) {
            self.watch.greeted.store(true, Relaxed);
        }
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.output).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.watch.heard_all.store(true, Relaxed);
        if !self.watch.greeted.load(Relaxed) && !self.watch.said_all.load(Relaxed) {
            self.watch.unbegun.store(true, Relaxed);
        }
        Pin::new(&mut self.output).poll_close(cx)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn ssh_greets_with_a_line_of_its_own_however_it_comes() {
        for (said, greeted) in [
            (&["SSH-2.0-x\r\n"][..], true),
            (&["S", "SH", "-"], true),
            (&["welcome\r\n", "SSH-", "2.0-x"], true),
            (&["\n\nSSSH-\nSSH-1.99"], true),
            (&["S"], false),
            (&["\u{0}"], false),
            (&["xSSH-2.0-x\r\n"], false),
            (&["SSSH-2.0", "SSH"], false),
            (&["HTTP/1.1 400 Bad Request\r\n", "\r\n"], false),
            (&[""], false),
        ] {
            let mut awaited = GreetingParser::Letters(0);
            let mut parts = said.iter();
            let last = parts
                .by_ref()
                .fold(false, |_, part| awaited.hear(part.as_bytes()));
            assert_eq!(last, greeted, "{said:?}");
        }
        assert!(
            GreetingParser::Nothing.hear(b"x"),
            "others greet with anything"
        );
    }
}
