//! ○ A line that is passed over: its length is counted and its time is read, nothing of it is kept.

/// Behind this name stands when the server stored a notification. A sender cannot write it into a value: there each
/// quote has a backslash in front.
const STAMP: &[u8] = br#""epochMillis":"#;
/// Where a text that looked like the name may start anew: at its second quote.
const SECOND_QUOTE: usize = STAMP.len() - 1;

/// What is known of a line that was passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Its length, line end left out.
    pub bytes: u64,
    /// The server's time of it, in milliseconds since 1970, if it said so.
    pub epoch_millis: Option<u64>,
}

impl Skipped {
    /// What is to be known of a whole line.
    pub fn of(line: &[u8]) -> Self {
        let mut skipping = Skipping::default();
        skipping.look(line);
        skipping.skipped()
    }
}

/// A line that is being passed over.
#[derive(Debug, Default)]
pub(super) struct Skipping {
    bytes: u64,
    stamp: Stamp,
    ended: bool,
}

impl Skipping {
    /// Takes what belongs to the line; returns what follows it.
    pub(super) fn take<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        if self.ended {
            return bytes;
        }
        let (line, rest) = match bytes.iter().position(|&byte| byte == b'\n') {
            Some(end) => {
                self.ended = true;
                (&bytes[..end], &bytes[end + 1..])
            }
            None => (bytes, &bytes[bytes.len()..]),
        };
        self.look(line);
        rest
    }

    fn look(&mut self, line: &[u8]) {
        self.bytes += line.len() as u64;
        line.iter().for_each(|&byte| self.stamp.see(byte));
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Known once its end has come.
    pub(super) fn ended(&self) -> Option<Skipped> {
        self.ended.then(|| self.skipped())
    }

    fn skipped(&self) -> Skipped {
        Skipped {
            bytes: self.bytes,
            epoch_millis: self.stamp.number,
        }
    }
}

/// Finds the first number behind [`STAMP`], one byte at a time.
#[derive(Debug, Default)]
struct Stamp {
    /// How many bytes of the name have come.
    matched: usize,
    number: Option<u64>,
    done: bool,
}

impl Stamp {
    fn see(&mut self, byte: u8) {
        if self.done {
            return;
        }
        if self.matched < STAMP.len() {
            return self.see_name(byte);
        }
        match (byte, self.number) {
            (b'0'..=b'9', _) => {
                let digit = u64::from(byte - b'0');
                let longer = self.number.unwrap_or(0).checked_mul(10);
                self.number = longer.and_then(|tens| tens.checked_add(digit));
                // Too large to be a time.
                self.done = self.number.is_none();
            }
            (b' ' | b'"', None) => {}
            _ => self.done = true,
        }
    }

    fn see_name(&mut self, byte: u8) {
        if self.matched == SECOND_QUOTE && byte != STAMP[SECOND_QUOTE] {
            self.matched = 1;
        }
        self.matched = match byte {
            byte if byte == STAMP[self.matched] => self.matched + 1,
            b'"' => 1,
            _ => 0,
        };
    }
}
