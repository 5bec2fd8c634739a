//! ○ Names of users as machines have them: `gary`, `jane.doe@corp.example`, `CORP\jane`, `jane doe`, `zoë`, `box$`.
//!
//! ```text
//!   -l x   a -l       could be taken for an option
//!   a;b    $(x)       a shell gives it a meaning, and ~/.ssh/config may give it to one: Match exec "… %r"
//!   ../x   a:b        a path or a list does
//!   escapes, bidirectional controls, blanks that nobody sees
//! ```
//! are none. Newer ssh refuses most of these itself.

use super::terminal::is_hidden;

/// Longest name, in bytes: `LOGIN_NAME_MAX` of Linux.
pub const MAX_USER_NAME: usize = 256;
/// What shells, paths and lists give a meaning.
const MEANING: &str = "'\"`;&<>|(){}/:";

/// Whether it is one.
///
/// ```
/// # use noports::text::user::is_user_name;
/// assert!(is_user_name("jane.doe@corp.example"));
/// assert!(!is_user_name("-oProxyCommand=x"));
/// ```
pub fn is_user_name(text: &str) -> bool {
    let is_odd = |c: char| is_hidden(c) && !is_mark(c) || MEANING.contains(c);
    // Windows' machines have a `$` at the end; elsewhere a shell would put something in its place.
    let (name, domain) = text.split_once('@').unwrap_or((text, ""));
    let name = name.strip_suffix('$').unwrap_or(name);
    let fits = !name.is_empty() && text.len() <= MAX_USER_NAME && text.trim() == text;
    fits && !text.starts_with('-')
        && !text.contains(" -")
        && !text.ends_with('\\')
        && !text.contains(is_odd)
        && ![name, domain].iter().any(|part| part.contains('$'))
}

/// Sits on a letter that is seen.
fn is_mark(c: char) -> bool {
    matches!(u32::from(c), 0x300..=0x36f | 0x1ab0..=0x1aff | 0x1dc0..=0x1dff)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mail-like names, blanks and letters beyond ASCII were refused.
    #[test]
    fn names_are_those_that_machines_have() {
        for name in [
            "gary",
            "first.last_2-x",
            "jane.doe@corp.example",
            "CORP\\jane",
            "CORP\\jane doe",
            "CORP+jane",
            "machine$",
            "svc$@corp.example",
            "jane doe",
            "zo\u{eb}",
            "zoe\u{308}",
            "\u{7530}\u{4e2d}",
            "\u{645}\u{631}\u{64a}\u{645}",
            "a@b@c",
            "50%off",
            "~me",
            "a=b,c",
            "#1!",
            &"u".repeat(256),
            &"\u{eb}".repeat(128),
        ] {
            assert!(is_user_name(name), "{name}");
        }
    }

    #[test]
    fn what_ssh_or_a_shell_could_take_for_something_else_is_no_name() {
        for text in [
            "",
            "$",
            "@",
            "@x",
            " ",
            " a",
            "a ",
            "-oProxyCommand=x",
            "a -l",
            "a\nb",
            "a\tb",
            "a\u{a0}\u{2003}b",
            "a;b",
            "$(x)",
            "a$HOME",
            "a@$x",
            "a$$",
            "`id`",
            "a|b",
            "a&b",
            "o'brien",
            "{a,b}",
            "a<b",
            "../a",
            "a:b",
            "a\\",
            "a\u{1b}[31mb",
            "a\u{9b}2Jb",
            "a\u{202e}b",
            "a\u{200b}b",
            "\u{ad}a",
            "\u{3164}",
            "\u{2800}",
            "\u{feff}root",
            "a\u{e0041}",
            "a\u{2066}b",
            "a\0",
            &"u".repeat(257),
            &"\u{eb}".repeat(129),
        ] {
            assert!(!is_user_name(text), "{text:?}");
        }
    }
}
