//! Bytes that came in, cut into lines. No I/O.

/// What came in and was not taken yet.
#[derive(Default)]
pub(super) struct LineBuffer {
    bytes: Vec<u8>,
    /// How far it was searched for a line end.
    searched: usize,
}

/// One line, or why there will be none.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum InputLine {
    Line(String),
    TooLong,
}

impl LineBuffer {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        // Not twice as much each time: what is not filled yet is held, too.
        let free = self.bytes.capacity() - self.bytes.len();
        if free < bytes.len() {
            let more = (self.bytes.len() / 4).max(bytes.len());
            self.bytes.reserve_exact(more);
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Whether there is no unfinished line.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// How many bytes of an unfinished line there are.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// How much memory it holds.
    pub(super) fn held(&self) -> usize {
        self.bytes.capacity()
    }

    /// The next whole line, of at most `limit` bytes. Bytes that are no text are replaced: no command has them.
    pub(super) fn pop(&mut self, limit: usize) -> Option<InputLine> {
        let found = self.bytes[self.searched..]
            .iter()
            .position(|byte| *byte == b'\n');
        let Some(end) = found.map(|at| at + self.searched) else {
            self.searched = self.bytes.len();
            return (self.bytes.len() > limit).then_some(InputLine::TooLong);
        };
        if end > limit {
            return Some(InputLine::TooLong);
        }
        let rest = self.bytes.split_off(end + 1);
        let mut line = std::mem::replace(&mut self.bytes, rest);
        self.searched = 0;
        line.truncate(end);
        let text = String::from_utf8(line)
            .unwrap_or_else(|bad| String::from_utf8_lossy(bad.as_bytes()).into_owned());
        Some(InputLine::Line(text))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lines(pieces: &[&[u8]], limit: usize) -> Vec<InputLine> {
        let (mut input, mut all) = (LineBuffer::default(), Vec::new());
        for piece in pieces {
            input.push(piece);
            while let Some(taken) = input.pop(limit) {
                let end = taken == InputLine::TooLong;
                all.push(taken);
                if end {
                    return all;
                }
            }
        }
        all
    }

    proptest! {
        #[test]
        fn how_bytes_are_cut_makes_no_difference(
            bytes in prop::collection::vec(prop::sample::select(b"ab\n\r\xff".to_vec()), 0..60),
            size in 1usize..9,
        ) {
            let pieces: Vec<&[u8]> = bytes.chunks(size).collect();
            prop_assert_eq!(lines(&pieces, 1000), lines(&[&bytes], 1000));
        }
    }

    #[test]
    fn lines_of_exactly_the_limit_pass_and_longer_ones_do_not() {
        let line = |text: &str| InputLine::Line(text.to_owned());
        for (bytes, want) in [
            (&b"abcd\nx\n"[..], vec![line("abcd"), line("x")]),
            (b"abcde\n", vec![InputLine::TooLong]),
            (b"abcde", vec![InputLine::TooLong]),
            (b"a\r\n\n", vec![line("a\r"), line("")]),
            (b"abc", vec![]),
        ] {
            assert_eq!(lines(&[bytes], 4), want, "{bytes:?}");
        }
    }
}
