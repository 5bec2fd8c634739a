//! One bounded line from the start of a stream, and the bytes that came behind it.

use std::{io, time::Duration};

use futures_lite::AsyncRead;

/// Why there is no line.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum LineError {
    #[error("no line end within {0} bytes")]
    TooLong(usize),
    #[error("no line within {0:?}")]
    TimedOut(Duration),
    #[error("the connection ended before the line did")]
    Ended,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Reads up to the first LF. Returns the line without its end (CR LF or LF) and the bytes behind it.
///
/// # Errors
/// See [`LineError`]; the limit and the deadline cover the whole line, however it is cut.
pub async fn read_line<R: AsyncRead + Unpin>(
    _from: &mut R,
    _limit: usize,
    _within: Duration,
) -> Result<(Vec<u8>, Vec<u8>), LineError> {
    todo!()
}
