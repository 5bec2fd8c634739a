//! A question to the person at the terminal, before something is done that cannot be undone.

use std::io::{self, BufRead, Read, Write};

/// Longest answer that is read, in bytes.
const MAX_ANSWER: u64 = 100;

/// Asks on stderr, so that stdout holds results only; whether the answer is a yes.
pub(super) fn is_wanted(question: &str) -> bool {
    let mut err = io::stderr().lock();
    let _ = write!(err, "  {question} [y/N] ").and_then(|()| err.flush());
    let mut answer = String::new();
    let read = io::stdin().lock().take(MAX_ANSWER).read_line(&mut answer);
    read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes")
}
