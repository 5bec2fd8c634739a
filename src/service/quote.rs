//! ○ Words as shells need them, so that what is read there is the word again; and templates. What only one service
//! manager reads is quoted in its own file.
//!
//! Words with control characters never get here: [`plain`] is the gate. All that is left to quote is
//! spaces, quotes, backslashes and what each format takes for itself.

/// Whether a word can stand in all of the formats: no line ends, no other control characters.
pub fn plain(word: &str) -> bool {
    !word.chars().any(char::is_control)
}

/// A word of a POSIX shell; harmless ones stay as they are.
pub fn shell(word: &str) -> String {
    let harmless = |c: char| c.is_ascii_alphanumeric() || "@%_+=:,./-".contains(c);
    // Else a `=` could make the first word of a command an assignment.
    let first = |c: char| c.is_ascii_alphanumeric() || "@/_.-".contains(c);
    if word.starts_with(first) && word.chars().all(harmless) && !word.contains('=') {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// A variable and its value in a POSIX shell.
pub fn assignment(name: &str, value: &str) -> String {
    format!("{name}={}", shell(value))
}

/// Joins quoted words with blanks.
pub fn line<S: AsRef<str>>(words: &[S], quote: fn(&str) -> String) -> String {
    let words: Vec<_> = words.iter().map(|word| quote(word.as_ref())).collect();
    words.join(" ")
}

/// Puts values in the places of a template's `@NAME@`, in one pass: what a value holds is not looked at again.
/// A line that consists of one empty value vanishes.
pub fn fill<V: AsRef<str>>(template: &str, values: &[(&str, V)]) -> String {
    let mut text = String::with_capacity(template.len() * 2);
    for line in template.lines() {
        let filled = fill_line(line, values);
        if filled.is_empty() && !line.is_empty() {
            continue;
        }
        text += &filled;
        text.push('\n');
    }
    text
}

fn fill_line<V: AsRef<str>>(line: &str, values: &[(&str, V)]) -> String {
    let mut text = String::new();
    let mut rest = line;
    while let Some(at) = rest.find('@') {
        let (before, from) = rest.split_at(at);
        text += before;
        let name = from[1..].split('@').next().unwrap_or_default();
        match values.iter().find(|row| row.0 == name) {
            Some((_, value)) if from[1 + name.len()..].starts_with('@') => {
                text += value.as_ref();
                rest = &from[name.len() + 2..];
            }
            _ => {
                text.push('@');
                rest = &from[1..];
            }
        }
    }
    text + rest
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use std::process::Command;

    use crate::service::quote::*;

    /// What people and others could put into a name or a path.
    pub(in crate::service) const HOSTILE: &[&str] = &[
        "",
        " ",
        "plain",
        "@device",
        "a b",
        "it's",
        "'; touch x; '",
        "\"quoted\"",
        r"back\slash\n",
        r"\",
        "$HOME ${HOME} $(id) `id` $$",
        "%h %% %",
        "# no comment",
        ";",
        "&& || | > <",
        "*?[a-z]~",
        "a=b",
        "~/x",
        "-flag",
        "<string>&amp;</string> ]]>",
        "--><!--",
        "ü 🙂 \u{202e}",
        "@NAME@",
    ];

    #[test]
    fn a_shell_reads_the_same_words_also_when_it_reads_twice() {
        for shells in ["sh", "dash", "bash"] {
            let script = |words: String| {
                let script = format!("printf '<%s>' {words}");
                Command::new(shells).args(["-c", &script]).output()
            };
            let Ok(once) = script(line(HOSTILE, shell)) else {
                continue;
            };
            let want: String = HOSTILE.iter().map(|word| format!("<{word}>")).collect();
            assert_eq!(String::from_utf8(once.stdout).unwrap(), want, "{shells}");
            let again = format!("eval \"printf '<%s>' \" {}", shell(&line(HOSTILE, shell)));
            let twice = Command::new(shells).args(["-c", &again]).output().unwrap();
            assert_eq!(String::from_utf8(twice.stdout).unwrap(), want, "{shells}");
        }
    }

    #[test]
    fn words_of_two_lines_are_turned_away() {
        for word in ["a\nb", "a\r", "\0", "\u{7f}", "\u{1b}[2J", "\u{85}"] {
            assert!(!plain(word), "{word:?}");
        }
        assert!(HOSTILE.iter().all(|word| plain(word)));
    }

    #[test]
    fn a_template_is_filled_once() {
        for (template, want) in [
            ("a @NAME@ b", "a @OTHER@ b\n"),
            ("@NAME@@OTHER@@", "@OTHER@x@\n"),
            ("@EMPTY@\n\nx@EMPTY@", "\nx\n"),
            (
                "@system-service @UNKNOWN@ @",
                "@system-service @UNKNOWN@ @\n",
            ),
            ("~@NAME@", "~@OTHER@\n"),
        ] {
            let values = [("NAME", "@OTHER@"), ("OTHER", "x"), ("EMPTY", "")];
            assert_eq!(fill(template, &values), want, "{template}");
        }
    }
}
