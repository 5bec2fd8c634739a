//! ○ Frames: what many streams say to each other on one connection. A record's content is whole frames, one or more.
//!
//! ```text
//!   kind (1) │ stream (3, big-endian) │ number (4, big-endian) │ bytes, only in DATA: as many as number says
//! ```
//! | kind | stream | number | who | meaning |
//! | --- | --- | --- | --- | --- |
//! | 1 OPEN | new | 0 | client | a connection has come |
//! | 2 DATA | its | 1 … 16,376 | both | its bytes, of which no more may come than there is credit for |
//! | 3 CREDIT | its | 1 … 2³¹ − 1 | both | so many bytes more may come |
//! | 4 END | its | 0 | both | no byte comes any more in this direction |
//! | 5 RESET | its | a [`Reason`] | both | over in both directions, at once |
//! | 6 PING | 0 | any | both | is answered by PONG with the same number |
//! | 7 PONG | 0 | the ping's | both | |
//!
//! Streams count up from 1, and a number is never used again. Each direction of a new stream begins with a credit of
//! [`FIRST_CREDIT`], so that its first words need not wait.

use super::record::MAX_CONTENT;

/// Bytes before those of DATA.
pub const HEADER: usize = 8;
/// Most bytes in one DATA.
pub const MAX_DATA: usize = MAX_CONTENT - HEADER;
/// What either side may send on a new stream.
pub const FIRST_CREDIT: u32 = 4 * 1024;
/// Credit never comes to more.
pub const MAX_CREDIT: u32 = i32::MAX as u32;
/// The last stream of a session.
pub const LAST_STREAM: u32 = (1 << 24) - 1;

/// Why a stream is over at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// The program at the sender's end reset it, or went away.
    #[error("Connection reset by peer")]
    Gone,
    /// The target refuses connections.
    #[error("Connection refused")]
    Refused,
    /// The target's name is not known.
    #[error("its name is not known there")]
    Unresolved,
    /// The target does not answer.
    #[error("it does not answer")]
    TimedOut,
    /// The target cannot be reached.
    #[error("it cannot be reached from there")]
    Unreachable,
    /// There are too many at a time.
    #[error("too many connections at once")]
    TooMany,
    /// The session ends.
    #[error("the session ends")]
    SessionEnds,
    /// One that is not known here.
    #[error("reason {0}")]
    Other(u32),
}

const REASONS: [Reason; 7] = [
    Reason::Gone,
    Reason::Refused,
    Reason::Unresolved,
    Reason::TimedOut,
    Reason::Unreachable,
    Reason::TooMany,
    Reason::SessionEnds,
];

impl Reason {
    fn number(self) -> u32 {
        match self {
            Self::Gone => 1,
            Self::Refused => 2,
            Self::Unresolved => 3,
            Self::TimedOut => 4,
            Self::Unreachable => 5,
            Self::TooMany => 6,
            Self::SessionEnds => 7,
            Self::Other(number) => number,
        }
    }

    fn from_number(number: u32) -> Self {
        let known = REASONS.into_iter().find(|reason| reason.number() == number);
        known.unwrap_or(Self::Other(number))
    }
}

/// One frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A new stream.
    Open(u32),
    /// A stream's bytes.
    Data(u32, &'a [u8]),
    /// A stream may send so much more.
    Credit(u32, u32),
    /// A stream's end in this direction.
    End(u32),
    /// A stream's end.
    Reset(u32, Reason),
    /// A question.
    Ping(u32),
    /// Its answer.
    Pong(u32),
}

/// What no peer of ours sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the other end sent a frame that means nothing here")]
pub struct BadFrame;

impl Frame<'_> {
    /// The first eight bytes; of DATA the others have to follow.
    pub fn header(&self) -> [u8; HEADER] {
        let (kind, stream, number) = match *self {
            Self::Open(stream) => (1, stream, 0),
            Self::Data(stream, bytes) => (2, stream, bytes.len() as u32),
            Self::Credit(stream, more) => (3, stream, more),
            Self::End(stream) => (4, stream, 0),
            Self::Reset(stream, reason) => (5, stream, reason.number()),
            Self::Ping(number) => (6, 0, number),
            Self::Pong(number) => (7, 0, number),
        };
        let [_, a, b, c] = stream.to_be_bytes();
        let [d, e, f, g] = number.to_be_bytes();
        [kind, a, b, c, d, e, f, g]
    }
}

/// Takes the first frame off.
///
/// # Errors
/// Unless a whole and sensible frame stands there.
pub fn take<'a>(content: &mut &'a [u8]) -> Result<Frame<'a>, BadFrame> {
    let (&[kind, a, b, c, d, e, f, g], rest) = content.split_first_chunk().ok_or(BadFrame)?;
    let (stream, number) = (
        u32::from_be_bytes([0, a, b, c]),
        u32::from_be_bytes([d, e, f, g]),
    );
    *content = rest;
    match (kind, stream, number) {
        (1, 1.., 0) => Ok(Frame::Open(stream)),
        (2, 1.., 1..) if number as usize <= MAX_DATA => {
            let (bytes, rest) = content.split_at_checked(number as usize).ok_or(BadFrame)?;
            *content = rest;
            Ok(Frame::Data(stream, bytes))
        }
        (3, 1.., 1..=MAX_CREDIT) => Ok(Frame::Credit(stream, number)),
        (4, 1.., 0) => Ok(Frame::End(stream)),
        (5, 1.., _) => Ok(Frame::Reset(stream, Reason::from_number(number))),
        (6, 0, _) => Ok(Frame::Ping(number)),
        (7, 0, _) => Ok(Frame::Pong(number)),
        _ => Err(BadFrame),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn each_frame_comes_back_and_the_bytes_are_as_the_table_says() {
        let frames = [
            (Frame::Open(1), "0100000100000000"),
            (Frame::Data(LAST_STREAM, b"ab"), "02ffffff000000026162"),
            (Frame::Credit(2, MAX_CREDIT), "030000027fffffff"),
            (Frame::End(3), "0400000300000000"),
            (Frame::Reset(4, Reason::TooMany), "0500000400000006"),
            (Frame::Reset(4, Reason::Other(99)), "0500000400000063"),
            (Frame::Ping(5), "0600000000000005"),
            (Frame::Pong(u32::MAX), "07000000ffffffff"),
        ];
        let mut all = Vec::new();
        for (frame, hex) in frames {
            let mut bytes = frame.header().to_vec();
            if let Frame::Data(_, data) = frame {
                bytes.extend_from_slice(data);
            }
            let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(text, hex);
            all.extend(bytes);
        }
        let mut rest = &all[..];
        for (frame, _) in frames {
            assert_eq!(take(&mut rest), Ok(frame));
        }
        assert!(rest.is_empty());
        for reason in REASONS {
            assert_eq!(Reason::from_number(reason.number()), reason);
        }
    }

    #[test]
    fn frames_that_mean_nothing_are_refused() {
        for bytes in [
            &[0, 0, 0, 1, 0, 0, 0, 0][..],
            &[8, 0, 0, 1, 0, 0, 0, 0],
            &[1, 0, 0, 0, 0, 0, 0, 0],
            &[1, 0, 0, 1, 0, 0, 0, 1],
            &[2, 0, 0, 1, 0, 0, 0, 0],
            &[2, 0, 0, 1, 0, 0, 0, 2, 9],
            &[2, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 9],
            &[3, 0, 0, 1, 0, 0, 0, 0],
            &[3, 0, 0, 1, 0x80, 0, 0, 0],
            &[3, 0, 0, 0, 0, 0, 0, 1],
            &[6, 0, 0, 1, 0, 0, 0, 0],
            &[6, 0, 0, 0, 0, 0, 0],
        ] {
            assert_eq!(take(&mut &bytes[..]), Err(BadFrame), "{bytes:?}");
        }
    }
}
