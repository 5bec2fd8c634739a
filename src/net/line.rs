//! One bounded line from the start of a stream, and the bytes that came behind it.
//!
//! ```text
//!   h e l l o \r \n 0 1 2 3
//!   '─ line ─'       '─ kept ─'     what a peer sends right behind its line belongs to whoever reads next
//! ```

use crate::text::duration::in_words;
use std::{io, time::Duration};

use async_std::future::timeout;
use futures_lite::{AsyncRead, AsyncReadExt};

/// Why there is no line.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum LineError {
    #[error("no line end within {0} bytes")]
    TooLong(usize),
    #[error("no line within {}", in_words(*.0))]
    TimedOut(Duration),
    #[error("the connection ended before the line did")]
    Ended,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Reads up to the first LF. Returns the line without its end (CR LF or LF) and the bytes behind it.
///
/// * `limit` — the most bytes before the LF; memory stays below this and one read of 1 KiB.
/// * `within` — for the whole line, however it is cut: a byte now and then does not buy more time.
///
/// # Errors
/// See [`LineError`].
pub async fn read_line<R: AsyncRead + Unpin>(
    from: &mut R,
    limit: usize,
    within: Duration,
) -> Result<(Vec<u8>, Vec<u8>), LineError> {
    match timeout(within, read(from, limit)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(LineError::TimedOut(within)),
    }
}

async fn read<R: AsyncRead + Unpin>(
    from: &mut R,
    limit: usize,
) -> Result<(Vec<u8>, Vec<u8>), LineError> {
    let mut line = Vec::new();
    let mut chunk = [0; READ];
    loop {
        let got = match from.read(&mut chunk).await {
            Ok(0) => return Err(LineError::Ended),
            Ok(got) => &chunk[..got],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error.into()),
        };
        let end = got.iter().position(|&byte| byte == b'\n');
        let part = &got[..end.unwrap_or(got.len())];
        if line.len() + part.len() > limit {
            return Err(LineError::TooLong(limit));
        }
        line.extend_from_slice(part);
        if let Some(end) = end {
            if line.last() == Some(&b'\r') {
                line.pop();
            }
            return Ok((line, got[end + 1..].to_vec()));
        }
    }
}

/// One read; also the most that can come back as leftovers.
const READ: usize = 1024;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{
        pin::Pin,
        task::{Context, Poll},
    };

    use async_std::task::block_on;
    use futures_lite::io::Cursor;

    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    /// Gives `bytes` in pieces of `step`, then ends or stays silent.
    struct Pieces {
        bytes: Cursor<Vec<u8>>,
        step: usize,
        silent: bool,
    }

    impl Pieces {
        fn of(text: &str, step: usize) -> Self {
            Self {
                bytes: Cursor::new(text.as_bytes().to_vec()),
                step,
                silent: false,
            }
        }
    }

    impl AsyncRead for Pieces {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &mut [u8],
        ) -> Poll<io::Result<usize>> {
            let most = self.step.min(buf.len());
            match Pin::new(&mut self.bytes).poll_read(cx, &mut buf[..most]) {
                Poll::Ready(Ok(0)) if self.silent => Poll::Pending,
                outcome => outcome,
            }
        }
    }

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn the_line_and_what_came_behind_it() {
        for (sent, line, rest) in [
            ("hello\nSSH-2.0", "hello", "SSH-2.0"),
            ("hello\r\n", "hello", ""),
            ("\n\n", "", "\n"),
            ("a\rb\n", "a\rb", ""),
            ("a\r\r\n", "a\r", ""),
            ("123456789\nx", "123456789", "x"),
        ] {
            let (got, left) = block_on(read_line(&mut Pieces::of(sent, 99), 9, SOON)).unwrap();
            assert_eq!(
                (text(got), text(left)),
                (line.into(), rest.into()),
                "{sent:?}"
            );
        }
    }

    #[test]
    fn one_byte_at_a_time_leaves_the_rest_in_the_stream() {
        let mut pieces = Pieces::of("hello\r\nrest", 1);
        let (line, left) = block_on(read_line(&mut pieces, 100, SOON)).unwrap();
        assert_eq!((text(line), text(left)), ("hello".into(), String::new()));
        let mut rest = String::new();
        block_on(pieces.read_to_string(&mut rest)).unwrap();
        assert_eq!(rest, "rest");
    }

    #[test]
    fn a_line_beyond_the_limit_is_refused_however_it_is_cut() {
        for step in [1, 3, 5000] {
            let sent = "x".repeat(4000) + "\n";
            let outcome = block_on(read_line(&mut Pieces::of(&sent, step), 3999, SOON));
            assert!(matches!(outcome, Err(LineError::TooLong(3999))), "{step}");
            let (line, _) = block_on(read_line(&mut Pieces::of(&sent, step), 4000, SOON)).unwrap();
            assert_eq!(line.len(), 4000, "{step}");
        }
    }

    #[test]
    fn an_endless_line_is_not_collected() {
        let mut endless = futures_lite::io::repeat(b'x');
        let outcome = block_on(read_line(&mut endless, 10, SOON));
        assert!(matches!(outcome, Err(LineError::TooLong(10))));
    }

    #[test]
    fn an_early_end_is_not_a_line() {
        let outcome = block_on(read_line(&mut Pieces::of("hel", 2), 100, SOON));
        assert!(matches!(outcome, Err(LineError::Ended)));
    }

    #[test]
    fn silence_ends_at_the_deadline() {
        let mut pieces = Pieces::of("hel", 1);
        pieces.silent = true;
        let within = Duration::from_millis(30);
        let outcome = block_on(read_line(&mut pieces, 100, within));
        assert!(matches!(outcome, Err(LineError::TimedOut(w)) if w == within));
    }
}
