//! ○ How a tunnel's client talks to each daemon on the control channel.

use std::time::Duration;

use crate::{
    np::ping::Heartbeat,
    pipe::keys::TransportKeys,
    session::bridge::{Many, Questions},
};

/// How long a session may stand without a connection, unless --idle-timeout says otherwise.
pub(super) const IDLE: Duration = Duration::from_secs(30);
/// Between two signs of life on the control channel: below the patience of most middleboxes.
const HEARTBEAT: Duration = Duration::from_secs(300);
/// Between two announcements, for daemons that read one at a time.
const PACE: Duration = Duration::from_millis(50);

/// What this daemon understands on the control channel.
///
/// | daemon | its core | reads | so it gets |
/// | --- | --- | --- | --- |
/// | Dart before 5.6 | `6.0.7` | one announcement per read | pauses, no line ends |
/// | Dart 5.6 to 5.9 | `6.2.0` | splits one read at `connect:`; a line's end in it spoils an IV | the same |
/// | Dart from 5.10 | `6.5.0` | lines | lines, signs of life |
/// | C | `c0.1.0` | one line per read; a sign of life ends the session | pauses, line ends |
/// | ours | `rust-…` | lines | lines, signs of life |
///
/// A pause is no promise: what is sent apart may still be read at once. Dart then finds both announcements, for
/// there is nothing between them; C does not.
pub(super) fn talk(daemon: &Heartbeat, keys: Option<&TransportKeys>) -> Many {
    let reads_lines = daemon.features.control_heartbeats;
    let dart = daemon.core.starts_with(|c: char| c.is_ascii_digit());
    Many {
        heartbeat: reads_lines.then_some(HEARTBEAT),
        pace: if reads_lines { Duration::ZERO } else { PACE },
        unended: dart && !reads_lines,
        stands: (!daemon.features.adjustable_timeout).then_some(IDLE),
        first_word: None,
        // Where one key serves both directions an answer would be told with the key stream of the question.
        questions: (reads_lines && daemon.answers && !is_single(keys)).then_some(Questions::USUAL),
    }
}

/// Whether one key serves both directions.
pub(super) fn is_single(keys: Option<&TransportKeys>) -> bool {
    matches!(keys, Some(TransportKeys::Stream(keys)) if !keys.are_twin())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crate::program::tunnel::talk::*;

    #[test]
    fn each_daemon_is_spoken_to_as_it_understands() {
        let ours = Heartbeat::ours(&"d".parse().unwrap(), Vec::new());
        for (core, adjustable, beats, paced, unended) in [
            ("rust-1", true, true, false, false),
            ("6.5.0", true, true, false, false),
            ("6.2.0", true, false, true, true),
            ("6.0.7", false, false, true, true),
            ("c0.1.0", false, false, true, false),
            ("c0.1.0", true, false, true, false),
            ("", false, false, true, false),
        ] {
            let mut daemon = ours.clone();
            daemon.core = core.to_owned();
            daemon.features.adjustable_timeout = adjustable;
            daemon.features.control_heartbeats = beats;
            let talk = talk(&daemon, None);
            assert_eq!(!talk.pace.is_zero(), paced, "{core}");
            assert_eq!(talk.heartbeat.is_some(), beats, "{core}");
            assert_eq!(talk.unended, unended, "{core}");
            assert_eq!(talk.questions.is_some(), beats, "{core}");
        }
    }
}
