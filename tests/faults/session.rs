//! One session of somebody, as its client's process.

use std::{
    io::{Read, Write},
    time::{Duration, Instant},
};

use super::site::{ENDLESS, LOOK_AGAIN};
use crate::world::{Process, support::at_a_pace};

/// What a session says, and hears again.
const WORDS: &[u8] = b"said, and heard again\n";

/// A session that somebody has begun to open.
pub struct Session {
    process: Process,
    pub began: Instant,
}

impl Session {
    /// Of this process, which has just been started; what is to come back is said.
    pub fn of(mut process: Process) -> Self {
        // Both ends of what is said end here: the session is over once it has come back.
        let mut stdin = process.0.stdin.take().unwrap();
        // One that has ended already says why.
        let _ = stdin.write_all(WORDS);
        Self {
            process,
            began: Instant::now(),
        }
    }

    /// How it ended, if it has: what was said came back, or why not.
    pub fn ended(&mut self) -> Option<Result<(), String>> {
        let status = self.process.0.try_wait().unwrap()?;
        let (mut heard, mut why) = (Vec::new(), String::new());
        let child = &mut self.process.0;
        let _ = child.stdout.take()?.read_to_end(&mut heard);
        let _ = child.stderr.take()?.read_to_string(&mut why);
        if status.success() && heard == WORDS {
            return Some(Ok(()));
        }
        let says = |line: &&str| !line.trim_start().starts_with("hint:");
        let last = why.lines().rfind(says).unwrap_or_default();
        Some(Err(format!(
            "{status}, {} bytes heard: {last}",
            heard.len()
        )))
    }

    /// Waits for its end; how long it took, or why it was none.
    pub fn wait(mut self) -> Result<Duration, String> {
        while self.began.elapsed() < ENDLESS {
            if let Some(ended) = self.ended() {
                return ended.map(|()| self.began.elapsed());
            }
            at_a_pace(LOOK_AGAIN);
        }
        Err(format!("it still waits after {ENDLESS:?}"))
    }
}
