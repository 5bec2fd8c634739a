//! ○ The form of manual pages: sections, lists and text in roff.

/// Longest line of a page, in bytes.
const WIDTH: usize = 78;

pub(super) fn section(title: &str, body: &str) -> String {
    if body.is_empty() {
        String::new()
    } else {
        format!(".SH {title}\n{body}")
    }
}

pub(super) fn paragraphs(body: &str) -> String {
    body.split("\n\n")
        .map(filled)
        .collect::<Vec<_>>()
        .join(".PP\n")
}

/// Text that is filled anyway, in lines as roff wants them: short, and each sentence begins one.
pub(super) fn filled(plain: &str) -> String {
    let (mut lines, mut line) = (String::new(), String::new());
    let mut ended = false;
    for word in plain.split_whitespace() {
        if !line.is_empty() && (ended || text(&line).len() + 1 + text(word).len() > WIDTH) {
            lines += &(text(&line) + "\n");
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line += word;
        ended = word.ends_with(['.', '?', '!']);
    }
    lines + &text(&line) + "\n"
}

pub(super) fn list(rows: impl Iterator<Item = (String, String)>) -> String {
    rows.map(|(name, about)| format!(".TP\n.B {}\n{}", text(&name), filled(&about)))
        .collect()
}

/// `--ca <file>` and what it is, as `--help` has it.
pub(super) fn flag_row((names, about): (String, String)) -> String {
    let (names, value) = match names.split_once(" <") {
        Some((names, value)) => (
            names,
            format!(" \\fI{}\\fR", text(value.trim_end_matches('>'))),
        ),
        None => (names.as_str(), String::new()),
    };
    format!(".TP\n\\fB{}\\fR{value}\n{}", text(names), filled(&about))
}

/// Paragraphs; those of several lines stay as they are.
pub(super) fn notes(notes: &[String]) -> String {
    let one = |note: &String| {
        if note.contains('\n') || note.starts_with(' ') {
            as_it_is(std::slice::from_ref(note))
        } else {
            filled(note)
        }
    };
    notes.iter().map(one).collect::<Vec<_>>().join(".PP\n")
}

pub(super) fn as_it_is(lines: &[String]) -> String {
    if lines.is_empty() {
        return String::new();
    }
    let lines: Vec<_> = lines.iter().map(|line| text(line)).collect();
    format!(".nf\n{}\n.fi\n", lines.join("\n"))
}

/// Text in which roff finds nothing to do.
pub(super) fn text(plain: &str) -> String {
    let mut safe = String::new();
    for (number, line) in plain.lines().enumerate() {
        if number > 0 {
            safe.push('\n');
        }
        if line.starts_with(['.', '\'', '…']) {
            safe += "\\&";
        }
        for letter in line.chars() {
            match letter {
                '\\' => safe += "\\e",
                '-' => safe += "\\-",
                '\'' => safe += "\\(aq",
                '`' => safe += "\\(ga",
                '^' => safe += "\\(ha",
                '~' => safe += "\\(ti",
                '"' => safe += "\\(dq",
                '…' => safe += "...",
                _ => safe.push(letter),
            }
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use crate::program::docs::roff::*;

    #[test]
    fn roff_finds_nothing_to_do_in_our_text() {
        for (plain, want) in [
            (".TH x", r"\&.TH x"),
            ("'br", r"\&\(aqbr"),
            (r"a\fB", r"a\efB"),
            ("--ca ~/x", r"\-\-ca \(ti/x"),
            ("a\n.b", "a\n\\&.b"),
        ] {
            assert_eq!(text(plain), want, "{plain}");
        }
    }
}
