//! The file as bytes: lines go in and come out again, and everything else stays as it is, byte for byte.
//!
//! ```text
//!   somebody's line LF                      somebody's line LF
//!   somebody's line          ── add ──▶     somebody's line LF
//!                            ◀─ remove ─    … AAAA… sshnp_ephemeral_<session>
//! ```
//!
//! A file that does not end with an LF does not end with one while a session's line is its last either, so that
//! nothing has to be remembered to restore it.

use uuid::Uuid;

/// How the comment of a session's line begins; the session's id follows.
///
/// Source: noports:packages/dart/noports_core/lib/src/common/default_args.dart and
/// noports:packages/dart/noports_core/lib/src/sshnpd/sshnpd_impl.dart.
pub const MARK: &str = "sshnp_ephemeral_";

/// Length of a session's id.
const ID: usize = 36;

/// A session id in the one form that is written: lower case, with hyphens.
pub(super) fn is_session(text: &str) -> bool {
    text.len() == ID && Uuid::try_parse(text).is_ok_and(|id| id.as_hyphenated().to_string() == text)
}

/// The session a line (without its LF) belongs to, and what somebody put right behind it.
fn session_of(line: &[u8]) -> Option<(&str, &[u8])> {
    let mark = MARK.as_bytes();
    let ends = (1..line.len()).filter(|&at| {
        line[at..].starts_with(mark) && matches!(line.get(at - 1), Some(b' ' | b'\t'))
    });
    ends.map(|at| &line[at + mark.len()..]).find_map(|behind| {
        let (id, rest) = behind.split_at_checked(ID)?;
        let id = std::str::from_utf8(id).ok()?;
        is_session(id).then_some((id, rest))
    })
}

/// Whether it has exactly this line.
pub(super) fn has_line(bytes: &[u8], line: &str) -> bool {
    bytes
        .split(|&b| b == b'\n')
        .any(|found| found == line.as_bytes())
}

/// With a session's line at the end.
pub(super) fn with_session(bytes: &[u8], line: &str) -> Vec<u8> {
    let mut out = bytes.to_vec();
    if ends_whole(bytes) {
        out.extend_from_slice(line.as_bytes());
        out.push(b'\n');
    } else {
        out.push(b'\n');
        out.extend_from_slice(line.as_bytes());
    }
    out
}

/// Without the lines of the sessions that are `gone`, and how many these were.
///
/// A key that somebody appended to our line without an LF between is kept, as a line of its own.
pub(super) fn without_sessions(bytes: &[u8], gone: impl Fn(&str) -> bool) -> (Vec<u8>, usize) {
    let (mut out, mut count) = (Vec::with_capacity(bytes.len()), 0);
    for whole in bytes.split_inclusive(|&b| b == b'\n') {
        let (line, end) = match whole.strip_suffix(b"\n") {
            Some(line) => (line, &b"\n"[..]),
            None => (whole, &b""[..]),
        };
        let mut kept = line;
        while let Some((session, rest)) = session_of(kept)
            && gone(session)
        {
            count += 1;
            // White space is what editors leave at the end of a line.
            let stranger = rest.first().is_some_and(|b| !b.is_ascii_whitespace());
            kept = if stranger { rest } else { b"" };
        }
        if kept.len() == line.len() || !kept.is_empty() {
            out.extend_from_slice(kept);
            out.extend_from_slice(end);
        } else if end.is_empty() && out.last() == Some(&b'\n') {
            // The LF before an unfinished last line came with that line.
            out.pop();
        }
    }
    (out, count)
}

/// With a key on a whole line at the end; `None` when the file has that key already, with whatever options.
pub(super) fn with_key(bytes: &[u8], line: &str) -> Option<Vec<u8>> {
    let blob = blob(line)?.as_bytes();
    let has = |line: &[u8]| {
        let comment = line.trim_ascii_start().starts_with(b"#");
        !comment
            && session_of(line).is_none()
            && line.split(u8::is_ascii_whitespace).any(|word| word == blob)
    };
    if bytes.split(|&b| b == b'\n').any(has) {
        return None;
    }
    let mut out = bytes.to_vec();
    if !ends_whole(bytes) {
        out.push(b'\n');
    }
    out.extend_from_slice(line.as_bytes());
    out.push(b'\n');
    Some(out)
}

/// The key itself on a line: the word behind its type, which tells one key from another.
pub(super) fn blob(line: &str) -> Option<&str> {
    const TYPES: [&str; 5] = ["ssh-", "ecdsa-sha2-", "rsa-sha2-", "sk-ssh-", "sk-ecdsa-"];
    let is_type = |word: &str| TYPES.iter().any(|kind| word.starts_with(kind));
    let in_base64 = |c: char| c.is_ascii_alphanumeric() || "+/=".contains(c);
    let mut words = line.split_ascii_whitespace();
    let mut before = words.next()?;
    words.find(|&word| {
        let found = is_type(before) && word.starts_with("AAAA") && word.chars().all(in_base64);
        before = word;
        found
    })
}

fn ends_whole(bytes: &[u8]) -> bool {
    bytes.last().is_none_or(|&b| b == b'\n')
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: &str = "6f1c1c1e-6d0a-4a53-9d0a-0d4f7a2b9c11";
    const B: &str = "0b6a6a52-9a56-4a0e-8a55-1f0ed1c4a0b2";

    /// The sessions that have a line.
    fn sessions(bytes: &[u8]) -> Vec<String> {
        let mut found = Vec::new();
        for line in bytes.split(|&b| b == b'\n') {
            let mut line = line;
            while let Some((session, rest)) = session_of(line) {
                found.push(session.to_owned());
                line = rest;
            }
        }
        found
    }

    fn ours(session: &str) -> String {
        format!("command=\"echo \\\"x\\\";sleep 20\" ssh-ed25519 AAAAC3 {MARK}{session}")
    }

    #[test]
    fn what_was_there_comes_back_byte_for_byte() {
        for original in [
            &b""[..],
            b"\n",
            b"a",
            b"a\n",
            b"a\n\n",
            b"\na",
            b"a\r\n",
            b"a\r",
            b"\xff\xfe\x00\n\x00",
            b"# sshnp_ephemeral_\n",
        ] {
            let one = with_session(original, &ours(A));
            let two = with_session(&one, &ours(B));
            assert_eq!(sessions(&two), [A, B], "{original:?}");
            for order in [[A, B], [B, A]] {
                let (less, n) = without_sessions(&two, |s| s == order[0]);
                assert_eq!((sessions(&less), n), (vec![order[1].to_owned()], 1));
                let (none, n) = without_sessions(&less, |s| s == order[1]);
                assert_eq!((&none[..], n), (original, 1), "{original:?} {order:?}");
            }
            assert_eq!(without_sessions(&two, |_| true), (original.to_vec(), 2));
        }
    }

    #[test]
    fn only_lines_that_end_with_a_sessions_name_are_ours() {
        let id = A.to_uppercase();
        for stranger in [
            "ssh-ed25519 AAAA me@host".to_owned(),
            format!("ssh-ed25519 AAAA {A}"),
            format!("ssh-ed25519 AAAA {MARK}"),
            format!("ssh-ed25519 AAAA {MARK}{}", &A[1..]),
            format!("ssh-ed25519 AAAA {MARK}{id}"),
            format!("ssh-ed25519 AAAA x{MARK}{A}"),
            format!("{MARK}{A}"),
        ] {
            let (left, n) = without_sessions(stranger.as_bytes(), |_| true);
            assert_eq!((left, n), (stranger.clone().into_bytes(), 0), "{stranger}");
        }
        for (line, kept) in [
            (ours(A), ""),
            (ours(A) + " \t", ""),
            (ours(A) + "\r", ""),
            (ours(A) + " and a note", ""),
            (format!("# {}", ours(A)), ""),
            (ours(A) + "ssh-rsa AAAA joined", "ssh-rsa AAAA joined"),
            (ours(A) + &ours(B), ""),
        ] {
            let (left, _) = without_sessions((line.clone() + "\n").as_bytes(), |_| true);
            let want = if kept.is_empty() {
                String::new()
            } else {
                format!("{kept}\n")
            };
            assert_eq!(String::from_utf8(left).unwrap(), want, "{line}");
        }
    }

    #[test]
    fn a_key_is_added_once_and_on_a_line_of_its_own() {
        let key = "ssh-ed25519 AAAAC3Nz me@host";
        for (before, after) in [
            ("", Some("ssh-ed25519 AAAAC3Nz me@host\n")),
            ("a\n", Some("a\nssh-ed25519 AAAAC3Nz me@host\n")),
            ("a", Some("a\nssh-ed25519 AAAAC3Nz me@host\n")),
            ("ssh-ed25519 AAAAC3Nz", None),
            (
                "restrict,command=\"x y\" ssh-ed25519 AAAAC3Nz other\n",
                None,
            ),
            (
                "#ssh-ed25519 AAAAC3Nz\n",
                Some("#ssh-ed25519 AAAAC3Nz\nssh-ed25519 AAAAC3Nz me@host\n"),
            ),
            (
                "ssh-ed25519 AAAAC3NzX\n",
                Some("ssh-ed25519 AAAAC3NzX\nssh-ed25519 AAAAC3Nz me@host\n"),
            ),
        ] {
            let got = with_key(before.as_bytes(), key);
            assert_eq!(
                got.map(|b| String::from_utf8(b).unwrap()).as_deref(),
                after,
                "{before:?}"
            );
        }
        // A session's line is no lasting one.
        let session = format!("ssh-ed25519 AAAAC3Nz {MARK}{A}\n");
        assert!(with_key(session.as_bytes(), key).is_some());
    }

    #[test]
    fn the_key_on_a_line_is_found_behind_its_type() {
        for (line, want) in [
            ("ssh-ed25519 AAAAC3 me", Some("AAAAC3")),
            ("from=\"a b\",restrict ssh-rsa AAAAB3== x", Some("AAAAB3==")),
            ("sk-ssh-ed25519@openssh.com AAAAGn", Some("AAAAGn")),
            ("ecdsa-sha2-nistp256 AAAAE2", Some("AAAAE2")),
            ("ssh-ed25519", None),
            ("AAAAC3", None),
            ("ssh-ed25519 hello", None),
            ("ssh-ed25519 AAAA\"x", None),
            ("", None),
        ] {
            assert_eq!(blob(line), want, "{line}");
        }
    }

    /// What may happen to the file. Numbers choose a session or one of the person's lines.
    #[derive(Clone, Debug)]
    enum Step {
        Open(u8),
        Close(u8),
        CloseAll,
        PersonAppends(String),
        PersonDeletes(u8),
        Key(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            any::<u8>().prop_map(Step::Open),
            any::<u8>().prop_map(Step::Close),
            Just(Step::CloseAll),
            "[ -~]{0,12}".prop_map(Step::PersonAppends),
            any::<u8>().prop_map(Step::PersonDeletes),
            any::<u8>().prop_map(Step::Key),
        ]
    }

    fn id(n: u8) -> String {
        format!("6f1c1c1e-6d0a-4a53-9d0a-0d4f7a2b9c{:02x}", n % 5)
    }

    /// The person's text, as if there never were sessions.
    fn person(bytes: &[u8]) -> Vec<u8> {
        without_sessions(bytes, |_| true).0
    }

    proptest! {
        /// The model is the file without any sessions: each step must do to it what it does alone.
        #[test]
        fn sessions_and_a_persons_edits_do_not_disturb_each_other(
            original in proptest::collection::vec(any::<u8>(), 0..40),
            steps in proptest::collection::vec(step(), 0..40),
        ) {
            let (mut file, mut model) = (original.clone(), original);
            let mut open: Vec<String> = Vec::new();
            for step in steps {
                match step {
                    Step::Open(n) if !open.contains(&id(n)) => {
                        file = with_session(&file, &ours(&id(n)));
                        open.push(id(n));
                    }
                    Step::Open(_) => {}
                    Step::Close(n) => {
                        let (less, count) = without_sessions(&file, |s| s == id(n));
                        prop_assert_eq!(count, usize::from(open.contains(&id(n))));
                        file = less;
                        open.retain(|s| *s != id(n));
                    }
                    Step::CloseAll => {
                        file = person(&file);
                        open.clear();
                    }
                    // As a careful person does: on a line of its own.
                    Step::PersonAppends(text) => for bytes in [&mut file, &mut model] {
                        if !ends_whole(bytes) { bytes.push(b'\n'); }
                        bytes.extend(text.bytes());
                        bytes.push(b'\n');
                    },
                    Step::PersonDeletes(n) => {
                        let lines: Vec<_> = model.split_inclusive(|&b| b == b'\n').map(<[u8]>::to_vec).collect();
                        let Some(line) = lines.get(n as usize % lines.len().max(1)) else { continue };
                        // Whole lines only: an unfinished one has its LF taken over by a session's.
                        if !line.ends_with(b"\n") { continue }
                        for bytes in [&mut file, &mut model] {
                            let mut lines: Vec<_> = bytes.split_inclusive(|&b| b == b'\n').map(<[u8]>::to_vec).collect();
                            let at = lines.iter().position(|l| l == line).unwrap();
                            lines.remove(at);
                            *bytes = lines.concat();
                        }
                    }
                    Step::Key(n) => {
                        let key = format!("ssh-ed25519 AAAA{n} k");
                        let (in_file, in_model) = (with_key(&file, &key), with_key(&model, &key));
                        prop_assert_eq!(in_file.is_some(), in_model.is_some());
                        if let (Some(one), Some(other)) = (in_file, in_model) { (file, model) = (one, other); }
                    }
                }
                let mut there = sessions(&file);
                there.sort();
                open.sort();
                prop_assert_eq!(&there, &open);
                prop_assert_eq!(person(&file), model.clone());
            }
        }
    }
}
