//! The beginning of a stream, as long as it may be a text that is left out.
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
    task::{Context, Poll, ready},
    time::Duration,
};

use async_io::Timer;
use futures_lite::AsyncRead;

/// How long a beginning that stays alone is held back.
const HELD_FOR: Duration = Duration::from_secs(1);
/// One read while the beginning is looked at.
const READ: usize = 512;

/// What has come of a stream that may begin with a text. No more than the text and its line end is ever held back, and
/// nothing of what does not begin like it.
pub(super) struct Beginning {
    text: String,
    seen: Vec<u8>,
    since: Option<Timer>,
}

impl Beginning {
    /// Nothing has come.
    pub(super) fn new(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            seen: Vec::new(),
            since: None,
        }
    }

    /// What `from` begins with, without the text. If `from` has ended, whoever reads on sees it again.
    pub(super) fn poll<R: AsyncRead + Unpin>(
        &mut self,
        mut from: R,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Vec<u8>>> {
        loop {
            let mut chunk = [0; READ];
            if let Poll::Ready(got) = Pin::new(&mut from).poll_read(cx, &mut chunk)? {
                self.seen.extend_from_slice(&chunk[..got]);
                if got > 0 && self.is_open() {
                    let holds = self.skipped() < self.seen.len();
                    self.since = holds.then(|| Timer::after(HELD_FOR));
                    continue;
                }
            } else if let Some(timer) = &mut self.since {
                ready!(Pin::new(timer).poll(cx));
            } else {
                return Poll::Pending;
            }
            let skipped = self.skipped();
            return Poll::Ready(Ok(self.seen.split_off(skipped)));
        }
    }

    /// What has come behind the text, if that has come.
    fn behind(&self) -> Option<&[u8]> {
        self.seen.strip_prefix(self.text.as_bytes())
    }

    /// Whether what comes next may be the text's, or its line end's.
    fn is_open(&self) -> bool {
        match self.behind() {
            Some(rest) => matches!(rest, b"" | b"\r"),
            None => self.text.as_bytes().starts_with(&self.seen),
        }
    }

    /// How much of what has come is left out.
    fn skipped(&self) -> usize {
        match self.behind() {
            Some([b'\n', ..]) => self.text.len() + 1,
            Some([b'\r', b'\n', ..]) => self.text.len() + 2,
            Some(_) => self.text.len(),
            None => 0,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use async_std::task::block_on;
    use futures_lite::{AsyncWriteExt, future::poll_fn};

    use super::*;

    use crate::testing::tcp_pair;

    const TEXT: &str = "the-id";

    /// One piece per read, and in between nothing.
    struct Pieces(Vec<Vec<u8>>, bool);

    impl AsyncRead for Pieces {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &mut [u8],
        ) -> Poll<io::Result<usize>> {
            self.1 = !self.1;
            if self.1 {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let piece = if self.0.is_empty() {
                Vec::new()
            } else {
                self.0.remove(0)
            };
            buf[..piece.len()].copy_from_slice(&piece);
            Poll::Ready(Ok(piece.len()))
        }
    }

    /// All that is given of a stream that comes in these pieces.
    fn read(pieces: Vec<Vec<u8>>) -> String {
        let mut from = Pieces(pieces, false);
        let mut beginning = Beginning::new(TEXT);
        let begins = block_on(poll_fn(|cx| beginning.poll(&mut from, cx))).unwrap();
        String::from_utf8([begins, from.0.concat()].concat()).unwrap()
    }

    #[test]
    fn the_text_and_one_line_end_are_left_out_and_nothing_else_however_it_is_cut() {
        for (sent, want) in [
            ("the-idSSH-2.0-x", "SSH-2.0-x"),
            ("the-id\nSSH-2.0-x", "SSH-2.0-x"),
            ("the-id\r\nSSH-2.0-x", "SSH-2.0-x"),
            ("the-id\n\nx", "\nx"),
            ("the-id\rx", "\rx"),
            ("the-id\r\r\n", "\r\r\n"),
            ("the-id\r", "\r"),
            ("the-id", ""),
            ("the-id\n", ""),
            ("SSH-2.0-x", "SSH-2.0-x"),
            ("the-other", "the-other"),
            ("THE-ID\nx", "THE-ID\nx"),
            ("\nthe-id", "\nthe-id"),
            ("the-", "the-"),
            ("the-the-id", "the-the-id"),
            ("the-idthe-id", "the-id"),
            ("the-\0id", "the-\0id"),
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
        for (sent, want) in [("the", "the"), ("the-id\r", "\r")] {
            block_on(async {
                let (mut near, far) = tcp_pair().await;
                near.write_all(sent.as_bytes()).await.unwrap();
                let mut beginning = Beginning::new(TEXT);
                let begins = poll_fn(|cx| beginning.poll(&far, cx)).await.unwrap();
                assert_eq!(begins, want.as_bytes(), "{sent:?}");
            });
        }
    }
}
