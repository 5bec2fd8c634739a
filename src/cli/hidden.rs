//! ○ Secrets that somebody typed where none belongs. No message repeats them: a terminal, a log and a script's output are
//! seen by others.
//!
//! ```text
//!   --secret=S   —secret=S   -passphrase S   NOPORTS_SECRET=S   pin:S   -P S        S is hidden
//!   activate, enroll, keys, at_activate:  -c S   -sS                                  S, too
//!   --passphrase-file F                                                               F is the name of a file
//! ```

use crate::{secret::Secret, text::terminal::LEFT_OUT};

/// What the name of a secret has in it.
const NAMES: [&str; 6] = ["pass", "phrase", "secret", "code", "cram", "token"];
/// The same for what other words have in them, too: how a part of the name begins.
const SHORT_NAMES: [&str; 5] = ["otp", "spp", "pin", "pwd", "pw"];
/// Words of ours that are called like a secret and are none.
const NO_NAMES: [&str; 3] = ["otp", "spp", "at_activate"];
/// Variables that hold one.
const VARIABLES: [&str; 4] = [
    "NOPORTS_SECRET",
    "NOPORTS_CODE",
    "NOPORTS_PASSPHRASE",
    "NOPORTS_NEW_PASSPHRASE",
];
/// Shorter ones are words of messages, too; in bytes.
const SHORTEST: usize = 4;
/// Programs whose people may type a secret where none belongs; none of their words is ever repeated in a command.
const WITH_SECRETS: [&str; 4] = ["activate", "enroll", "keys", "at_activate"];

/// Whether this program asks for secrets.
pub(super) fn takes_secrets(program: &str) -> bool {
    program.split(' ').any(|word| WITH_SECRETS.contains(&word))
}

/// Whether a variable of ours holds this as a secret.
pub(super) fn is_in_environment(word: &str) -> bool {
    let bare = word.trim_start_matches('@');
    let is_it = |secret: &str| secret.trim_start_matches('@').eq_ignore_ascii_case(bare);
    of_environment().any(|secret| is_it(secret.reveal()))
}

fn of_environment() -> impl Iterator<Item = Secret<String>> {
    let set = VARIABLES.iter().filter_map(|name| std::env::var(name).ok());
    set.filter(|value| value.len() >= SHORTEST).map(Secret::new)
}

/// `--passphrase` and `NOPORTS_SECRET=S`, but not `--passphrase-file`.
pub(super) fn names_secret(word: &str) -> bool {
    value(word).is_some() || is_name(word) || letter(word, false).is_some()
}

/// Parts of what was typed, or of a file, that may be secrets.
#[derive(Clone, Debug, Default)]
pub(super) struct HiddenValues(Vec<Secret<String>>);

impl HiddenValues {
    /// Looks for secrets among these words, of a program that asks for some or of another one.
    pub(super) fn add(&mut self, words: &[&str], asks: bool) {
        for (at, word) in words.iter().enumerate() {
            let next = || words.get(at + 1).copied();
            let found = match (value(word), letter(word, asks)) {
                (Some(value), _) => Some(value),
                (None, Some("")) => next(),
                (None, Some(glued)) => Some(glued),
                (None, None) if is_name(word) => {
                    let is_flag = !word.starts_with(char::is_alphanumeric);
                    next().filter(|next| is_flag || !next.starts_with('@'))
                }
                (None, None) => None,
            };
            let found = found.filter(|found| !found.is_empty() && !found.starts_with("--"));
            self.0
                .extend(found.map(|found| Secret::new(found.to_owned())));
        }
        self.0
            .sort_by_key(|hidden| std::cmp::Reverse(hidden.reveal().len()));
    }

    /// A message without them.
    pub(super) fn veil(&self, message: &str) -> String {
        let mut text = message.to_owned();
        for hidden in self.0.iter().cloned().chain(of_environment()) {
            let quoted = format!("{:?}", hidden.reveal());
            for form in [hidden.reveal(), quoted.trim_matches('"')] {
                text = without(&text, form);
            }
        }
        text
    }
}

/// The text without this word; what is only a part of another word stays.
fn without(text: &str, word: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(word).filter(|_| !word.is_empty()) {
        let (before, behind) = (&rest[..at], &rest[at + word.len()..]);
        clean += before;
        let alone =
            !clean.ends_with(char::is_alphanumeric) && !behind.starts_with(char::is_alphanumeric);
        if alone {
            clean.push(LEFT_OUT);
        } else {
            clean += word;
        }
        rest = behind;
    }
    clean + rest
}

/// What stands behind the name of a secret, in the same word.
fn value(word: &str) -> Option<&str> {
    const ENDS: [char; 3] = ['=', ':', ' '];
    let mut begin = 0;
    while let Some(length) = word[begin..].find(ENDS) {
        let behind = begin + length + 1;
        if is_name(&word[begin..begin + length]) {
            return Some(&word[behind..]);
        }
        begin = behind;
    }
    None
}

fn is_name(word: &str) -> bool {
    let name = word.to_lowercase();
    if NO_NAMES.contains(&name.as_str())
        || name.ends_with("file")
        || word.starts_with(['@', '/', '.'])
    {
        return false;
    }
    let mut parts = name.split(|c: char| !c.is_alphanumeric());
    parts
        .any(|part| NAMES.iter().any(|secret| part.contains(secret)) || SHORT_NAMES.contains(&part))
}

/// What is glued to a letter that stands for a secret: `-PS`; nothing for `-P`.
fn letter(word: &str, asks: bool) -> Option<&str> {
    let letters = word
        .strip_prefix('-')
        .filter(|rest| !rest.starts_with('-'))?;
    let secrets: &[char] = if asks { &['P', 'c', 's'] } else { &['P'] };
    let glued = letters.strip_prefix(secrets)?;
    Some(glued.strip_prefix('=').unwrap_or(glued))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_known_by_its_name_and_hidden_wherever_it_stands() {
        let all = "the S is \"S\", not --to=S or Sam";
        let none = "the … is \"…\", not --to=… or Sam";
        for (words, asks, hidden) in [
            (&["--secret=S"][..], false, true),
            (&["\u{2014}secret=S"], false, true),
            (&["\u{2014}secret", "S"], false, true),
            (&["-passphrase", "S"], false, true),
            (&["NOPORTS_SECRET=S"], false, true),
            (&["NOPORTS_PASSPHRASE", "S"], false, true),
            (&["--as=noports_code=S"], false, true),
            (&["pin:S"], false, true),
            (&["pass phrase: S"], false, false),
            (&["--cramkey", "S"], false, true),
            (&["-P", "S"], false, true),
            (&["-PS"], false, true),
            (&["-P=S"], false, true),
            (&["-c", "S"], true, true),
            (&["-sS"], true, true),
            (&["-c", "S"], false, false),
            (&["--passphrase-file", "S"], false, false),
            (&["--passphrase-file=S"], false, false),
            (&["otp", "S"], true, false),
            (&["--ping", "S"], false, false),
            (&["--to", "S"], false, false),
        ] {
            let mut values = HiddenValues::default();
            values.add(words, asks);
            let want = if hidden { none } else { all };
            assert_eq!(values.veil(all), want, "{words:?}");
        }
    }

    #[test]
    fn an_atsign_behind_a_word_is_no_secret() {
        let mut values = HiddenValues::default();
        values.add(&["secret", "@a", "--code", "@b"], false);
        assert_eq!(values.veil("@a @b"), "@a …");
    }

    #[test]
    fn a_secret_with_signs_in_it_is_hidden_in_quotes_as_well() {
        let mut values = HiddenValues::default();
        values.add(&["--secret=a\"\\b"], false);
        assert_eq!(values.veil("x a\"\\b y \"a\\\"\\\\b\""), "x … y \"…\"");
    }
}
