//! How enrolments are written and read by people: short ids, namespaces, life times, QR. No I/O.

use std::{collections::BTreeMap, time::Duration};

use qrcode::{EcLevel, QrCode, render::unicode::Dense1x2};

use crate::{
    at::{AtSign, enrolment::Enrollment},
    cli::Failure,
    text::terminal::{escaped, is_hidden},
};

/// What a device of NoPorts needs.
pub(super) const NAMESPACES: &str = "sshnp:rw,sshrvd:rw";
/// Digits of a short id: enough to tell requests of one atSign apart.
const CODE: usize = 8;
/// Longest text of others that is shown, in characters.
const SHOWN: usize = 60;
/// Longest name of a program, device or namespace, in bytes.
const MAX_NAME: usize = 100;
/// Most namespaces in one request.
const MAX_NAMESPACES: usize = 50;

/// `c3a9f7d2-0b6e-…` → `c3a9-f7d2`
pub(super) fn code(id: &str) -> String {
    let digits: Vec<char> = digits(id).take(CODE).collect();
    let (one, two) = digits.split_at(digits.len().min(CODE / 2));
    let group = |part: &[char]| part.iter().collect::<String>();
    format!("{}-{}", group(one), group(two))
}

fn digits(text: &str) -> impl Iterator<Item = char> {
    text.chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|c| c.to_ascii_lowercase())
}

/// Whether an id is meant by what somebody typed: the id, its short id with or without its hyphen, or what
/// the QR says.
pub(super) fn is_meant(typed: &str, id: &str) -> bool {
    let typed = typed.rsplit('/').next().unwrap_or(typed);
    let typed: String = digits(typed).collect();
    typed.len() >= CODE && digits(id).collect::<String>().starts_with(&typed)
}

/// What the QR holds: `noports://enroll/@alice/<id>`.
pub(super) fn link(who: &AtSign, id: &str) -> String {
    format!("noports://enroll/{who}/{id}")
}

/// A text as a QR for a terminal, black on white whatever its colours are; ends without a line end.
pub(super) fn qr(text: &str) -> Option<String> {
    let code = QrCode::with_error_correction_level(text, EcLevel::L).ok()?;
    let image = code.render::<Dense1x2>().build();
    let lines = image
        .lines()
        .map(|line| format!("\x1b[30;107m{line}\x1b[0m"));
    Some(lines.collect::<Vec<_>>().join("\n"))
}

/// A text that somebody else chose, fit for a terminal, and not to be taken for another: nothing moves the cursor, turns
/// the writing or stays invisible, and what only looks like a plain letter is told from it. In quotes where there is
/// anything odd about it.
pub(super) fn shown(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphabetic();
    let mixed = text.chars().any(plain) && text.chars().any(looks_alike);
    let shape = |c: char| is_hidden(c) || matches!(c, '"' | '\\') || mixed && looks_alike(c);
    let at_an_end = |c: Option<char>| c.is_none_or(char::is_whitespace);
    let odd = at_an_end(text.chars().next())
        || at_an_end(text.chars().next_back())
        || text.chars().any(|c| shape(c) || looks_alike(c));
    let seen: String = text.chars().take(SHOWN).collect();
    let mut clean = escaped(&seen, shape);
    if text.chars().nth(SHOWN).is_some() {
        clean.push('…');
    }
    if odd { format!("\"{clean}\"") } else { clean }
}

/// A letter or sign of a script with some that look like plain ones.
fn looks_alike(c: char) -> bool {
    matches!(u32::from(c),
        0x250..=0x2ff | 0x370..=0x58f | 0x13a0..=0x13ff | 0x1c80..=0x1c8f | 0x1d00..=0x1dbf | 0x1f00..=0x1fff
        | 0x2070..=0x209f | 0x2100..=0x23ff | 0x2460..=0x24ff | 0x2c60..=0x2cff | 0x2de0..=0x2dff | 0xa4d0..=0xa4ff
        | 0xa640..=0xa69f | 0xa720..=0xa7ff | 0xab30..=0xabbf | 0xff00..=0xff9f | 0x10280..=0x1034f
        | 0x1d400..=0x1d7ff)
}

/// `sshnp:rw, sshrvd:rw`
pub(super) fn namespaces(of: &BTreeMap<String, String>) -> String {
    let one = |(name, right): (&String, &String)| format!("{}:{}", shown(name), shown(right));
    of.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// A sentence for rights that reach far; `None` for ordinary ones.
pub(super) fn warning(about: &Enrollment) -> Option<&'static str> {
    let has = |name: &str| about.namespaces.contains_key(name);
    match (has("__manage"), has("*")) {
        (true, _) => Some("it could approve and revoke other devices"),
        (false, true) => Some("it could read and change everything this atSign stores"),
        (false, false) => None,
    }
}

/// `sshnp:rw,"sshrvd:rw"` → rights by namespace.
///
/// # Errors
/// A misuse that names the part.
pub(super) fn parse_namespaces(text: &str) -> Result<BTreeMap<String, String>, Failure> {
    let mut all = BTreeMap::new();
    for part in text.replace('"', "").split(',').map(str::trim) {
        let (name, right) = part.rsplit_once(':').unwrap_or((part, ""));
        let (name, right) = (name.trim(), right.trim());
        let proper = |c: char| c.is_ascii_alphanumeric() || "_-.*".contains(c);
        let fits = (1..=MAX_NAME).contains(&name.len()) && name.chars().all(proper);
        if !fits || !matches!(right, "r" | "rw") {
            return Err(
                Failure::misuse(format!("{part:?} is not NAMESPACE:r or NAMESPACE:rw"))
                    .hint(format!("--namespaces {NAMESPACES}")),
            );
        }
        all.insert(name.to_owned(), right.to_owned());
    }
    if all.len() <= MAX_NAMESPACES {
        Ok(all)
    } else {
        Err(Failure::misuse(format!(
            "more than {MAX_NAMESPACES} namespaces"
        )))
    }
}

/// The name of a program or device, as it goes into a request.
///
/// # Errors
/// A misuse.
pub(super) fn parse_name(what: &str, text: &str) -> Result<String, Failure> {
    let text = text.trim();
    let fits = (1..=MAX_NAME).contains(&text.len()) && !text.contains(char::is_control);
    if fits {
        Ok(text.to_owned())
    } else {
        Err(Failure::misuse(format!(
            "the name of the {what} must have 1 to {MAX_NAME} characters, and none that drives a terminal"
        )))
    }
}

/// A life time in the protocol's milliseconds; zero is for ever.
pub(super) fn life(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crate::program::enroll::show::*;

    const ID: &str = "c3a9f7d2-0b6e-4a35-8f14-6d7e8f901234";

    #[test]
    fn a_short_code_means_its_request_and_no_other() {
        assert_eq!(code(ID), "c3a9-f7d2");
        assert_eq!(code("abc"), "abc-");
        for (typed, want) in [
            (ID, true),
            ("c3a9-f7d2", true),
            ("C3A9 F7D2", true),
            ("c3a9f7d2", true),
            ("c3a9f7d2-0b6e", true),
            (
                "noports://enroll/@alice/c3a9f7d2-0b6e-4a35-8f14-6d7e8f901234",
                true,
            ),
            ("c3a9-f7d", false),
            ("c3a9-f7d3", false),
            ("", false),
        ] {
            assert_eq!(is_meant(typed, ID), want, "{typed}");
        }
    }

    #[test]
    fn a_qr_is_square_half_blocks_and_holds_the_link() {
        let text = link(&"@alice".parse().unwrap(), ID);
        assert_eq!(text, format!("noports://enroll/@alice/{ID}"));
        let image = qr(&text).unwrap();
        let lines: Vec<&str> = image.lines().collect();
        let width = |line: &str| line.chars().filter(|c| " ▀▄█".contains(*c)).count();
        assert!(lines.iter().all(|line| width(line) == width(lines[0])));
        assert_eq!(lines.len(), width(lines[0]).div_ceil(2));
        assert!(width(lines[0]) <= 60, "fits a terminal");
        assert_eq!(qr(&"x".repeat(5000)), None);
    }

    #[test]
    fn what_others_chose_cannot_steer_the_terminal() {
        for (text, want) in [
            ("dev1", "dev1"),
            ("Küche 2", "Küche 2"),
            ("台所", "台所"),
            ("the one in the kitchen", "the one in the kitchen"),
            ("a\x1b[2Jb\n", r#""a\u{1b}[2Jb\n""#),
            ("a\u{202e}b", r#""a\u{202e}b""#),
            ("garage ", r#""garage ""#),
            (" garage", r#"" garage""#),
            ("garage\u{a0}", r#""garage\u{a0}""#),
            ("g\u{430}rage", r#""g\u{430}rage""#),
            ("gar\u{ff41}ge", r#""gar\u{ff41}ge""#),
            ("garage\u{301}", r#""garage\u{301}""#),
            ("g\u{200b}arage", r#""g\u{200b}arage""#),
            ("кухня", "\"кухня\""),
            (r#"a" on "b"#, r#""a\" on \"b""#),
            ("", "\"\""),
        ] {
            assert_eq!(shown(text), want, "{text:?}");
        }
        assert_eq!(shown(&"x".repeat(100)).chars().count(), SHOWN + 1);
    }

    #[test]
    fn namespaces_are_read_or_refused() {
        let read = |text: &str| parse_namespaces(text).map(|all| namespaces(&all));
        assert_eq!(read(NAMESPACES).unwrap(), "sshnp:rw, sshrvd:rw");
        assert_eq!(read("\"a.b:r\" , *:rw").unwrap(), "*:rw, a.b:r");
        for bad in ["", "sshnp", "sshnp:w", ":rw", "a b:rw", "a:rw,,"] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn far_reaching_rights_are_named() {
        let with = |text: &str| Enrollment {
            id: ID.into(),
            app: "a".into(),
            device: "d".into(),
            namespaces: parse_namespaces(text).unwrap(),
            status: "pending".into(),
            wrapped: None,
        };
        assert_eq!(warning(&with(NAMESPACES)), None);
        assert!(warning(&with("*:r")).unwrap().contains("everything"));
        assert!(
            warning(&with("*:rw,__manage:rw"))
                .unwrap()
                .contains("approve")
        );
    }
}
