//! A reader that leaves out a text with which its stream may begin.
//!
//! ```text
//!   TEXT \n? rest      ▶ rest
//!   other bytes        ▶ other bytes
//!   TEX… and silence   ▶ TEX…, after a while: it was the stream's after all
//! ```

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use async_io::Timer;
use futures_lite::AsyncRead;

/// How long a beginning that stays alone is held back.
const HELD_FOR: Duration = Duration::from_secs(1);

/// Reads `from` without `text` and the line end behind it, if it begins with that. No more than the text
/// itself is ever held back, and nothing of what does not begin like it.
pub struct Stripped<R> {
    from: R,
    text: Vec<u8>,
    state: StripState,
}

enum StripState {
    /// So many bytes of the text have come, and nothing else.
    Matching {
        held: usize,
        since: Option<Timer>,
    },
    /// The text has come; a line end may follow.
    Behind {
        cr: bool,
    },
    /// These still have to be given.
    Give {
        bytes: Vec<u8>,
        at: usize,
    },
    Plain,
}

impl<R> Stripped<R> {
    /// An empty text leaves everything as it is.
    pub fn new(from: R, text: &str) -> Self {
        let state = if text.is_empty() {
            StripState::Plain
        } else {
            StripState::Matching {
                held: 0,
                since: None,
            }
        };
        Self {
            from,
            text: text.as_bytes().to_vec(),
            state,
        }
    }

    /// The bytes that were held back, and these.
    fn give(held: &[u8], got: &[u8]) -> StripState {
        StripState::Give {
            bytes: [held, got].concat(),
            at: 0,
        }
    }

    /// What follows from bytes that came; an empty piece is the stream's end.
    fn hear(&mut self, got: &[u8]) {
        match &mut self.state {
            StripState::Matching { held, since } => {
                let rest = &self.text[*held..];
                let like = got.iter().zip(rest).take_while(|(a, b)| a == b).count();
                if !got.is_empty() && like == rest.len() {
                    self.state = StripState::Behind { cr: false };
                    if got.len() > like {
                        self.hear(&got[like..]);
                    }
                } else if !got.is_empty() && like == got.len() {
                    *held += like;
                    *since = Some(Timer::after(HELD_FOR));
                } else {
                    self.state = Self::give(&self.text[..*held], got);
                }
            }
            StripState::Behind { cr } => {
                self.state = match (got, *cr) {
                    ([b'\r'], false) => StripState::Behind { cr: true },
                    ([b'\n', rest @ ..], _) | ([b'\r', b'\n', rest @ ..], false) => {
                        Self::give(b"", rest)
                    }
                    (_, true) => Self::give(b"\r", got),
                    (_, false) => Self::give(b"", got),
                };
            }
            StripState::Give { .. } | StripState::Plain => {}
        }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Stripped<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let this = &mut *self;
            match &mut this.state {
                StripState::Plain => return Pin::new(&mut this.from).poll_read(cx, buf),
                StripState::Give { bytes, at } => {
                    let rest = &bytes[*at..];
                    if rest.is_empty() {
                        this.state = StripState::Plain;
                        continue;
                    }
                    let some = rest.len().min(buf.len());
                    buf[..some].copy_from_slice(&rest[..some]);
                    *at += some;
                    return Poll::Ready(Ok(some));
                }
                StripState::Matching { .. } | StripState::Behind { .. } => {}
            }
            let mut chunk = [0; READ];
            match Pin::new(&mut this.from).poll_read(cx, &mut chunk) {
                Poll::Ready(got) => this.hear(&chunk[..got?]),
                Poll::Pending => {
                    let StripState::Matching {
                        held,
                        since: Some(timer),
                    } = &mut this.state
                    else {
                        return Poll::Pending;
                    };
                    if Pin::new(timer).poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                    this.state = Self::give(&this.text[..*held], b"");
                }
            }
        }
    }
}

/// One read while the beginning is looked at.
const READ: usize = 512;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use async_std::task::block_on;
    use futures_lite::{AsyncReadExt, AsyncWriteExt, io::Cursor};

    use super::*;

    /// Gives one piece per read.
    struct Pieces(Vec<Vec<u8>>);

    impl AsyncRead for Pieces {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &mut [u8],
        ) -> Poll<io::Result<usize>> {
            let piece = if self.0.is_empty() {
                Vec::new()
            } else {
                self.0.remove(0)
            };
            Pin::new(&mut Cursor::new(piece)).poll_read(cx, buf)
        }
    }

    fn read(pieces: Vec<Vec<u8>>) -> String {
        let mut all = Vec::new();
        block_on(Stripped::new(Pieces(pieces), "the-id").read_to_end(&mut all)).unwrap();
        String::from_utf8(all).unwrap()
    }

    #[test]
    fn the_text_and_one_line_end_are_left_out_and_nothing_else_however_it_is_cut() {
        for (sent, want) in [
            ("the-idSSH-2.0-x", "SSH-2.0-x"),
            ("the-id\nSSH-2.0-x", "SSH-2.0-x"),
            ("the-id\r\nSSH-2.0-x", "SSH-2.0-x"),
            ("the-id\n\nx", "\nx"),
            ("the-id\rx", "\rx"),
            ("the-id", ""),
            ("the-id\n", ""),
            ("SSH-2.0-x", "SSH-2.0-x"),
            ("the-other", "the-other"),
            ("the-", "the-"),
            ("the-the-id", "the-the-id"),
            ("the-idthe-id", "the-id"),
            ("", ""),
        ] {
            let bytes = sent.as_bytes();
            assert_eq!(read(vec![bytes.to_vec()]), want, "{sent:?} whole");
            let single = bytes.iter().map(|&byte| vec![byte]).collect();
            assert_eq!(read(single), want, "{sent:?} byte by byte");
            for at in 1..bytes.len() {
                let (one, two) = bytes.split_at(at);
                let pieces = vec![one.to_vec(), two.to_vec()];
                assert_eq!(read(pieces), want, "{sent:?} at {at}");
            }
        }
    }

    #[test]
    fn a_beginning_that_stays_alone_is_given_after_a_while() {
        block_on(async {
            let listener = async_std::net::TcpListener::bind("127.0.0.1:0")
                .await
                .unwrap();
            let here = listener.local_addr().unwrap();
            let mut near = async_std::net::TcpStream::connect(here).await.unwrap();
            let (far, _) = listener.accept().await.unwrap();
            near.write_all(b"the").await.unwrap();
            let mut stripped = Stripped::new(far, "the-id");
            let mut got = [0; 9];
            assert_eq!(stripped.read(&mut got).await.unwrap(), 3);
            near.write_all(b"-id").await.unwrap();
            assert_eq!(stripped.read(&mut got).await.unwrap(), 3);
            assert_eq!(&got[..3], b"-id");
        });
    }
}
