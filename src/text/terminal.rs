//! ○ Text that others chose, before it comes to a terminal or into a log.

/// Most characters of a quoted word that a message repeats.
pub const LONGEST: usize = 60;
/// Most characters of what stands without quotes and blanks, such as a path.
const LONGEST_BARE: usize = 400;
/// Stands for what is left out.
pub const LEFT_OUT: char = '…';

/// Whether a terminal obeys this character rather than show it, or shows what follows it in another order.
pub fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Has no shape of its own, or changes that of others: what [`steers`], spaces other than the plain one, marks that sit on a
/// letter, variants and tags.
pub fn is_hidden(c: char) -> bool {
    steers(c)
        || c != ' ' && c.is_whitespace()
        || matches!(u32::from(c),
            0xad | 0x300..=0x36f | 0x115f..=0x1160 | 0x17b4..=0x17b5 | 0x180b..=0x180f
            | 0x1ab0..=0x1aff | 0x1dc0..=0x1dff | 0x2000..=0x206f | 0x20d0..=0x20ff | 0x2800 | 0x3164
            | 0xfe00..=0xfe0f | 0xfe20..=0xfe2f | 0xfeff | 0xffa0 | 0xfff0..=0xfffd | 0xe0000..)
}

/// The text with these characters in the form that Rust's source code has for them.
pub fn escaped(text: &str, odd: impl Fn(char) -> bool) -> String {
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        if odd(c) {
            clean.extend(c.escape_default());
        } else {
            clean.push(c);
        }
    }
    clean
}

/// The same for a terminal: what is in it moves no cursor. Lines stay lines, and tabs tabs.
pub fn harmless(text: &str) -> String {
    escaped(text, |c| steers(c) && !matches!(c, '\n' | '\t'))
}

/// The beginning of a long text, with a sign that there was more.
pub fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some(_) => text.chars().take(most - 1).chain([LEFT_OUT]).collect(),
    }
}

/// A message in which no word goes on and on: what is quoted is cut early, anything else late.
pub fn brief(message: &str) -> String {
    let mut text = String::with_capacity(message.len());
    let mut rest = message;
    while let Some((before, behind)) = rest.split_once('"') {
        text += &short_words(before);
        let Some(end) = closing(behind) else {
            rest = &rest[before.len()..];
            break;
        };
        text += &format!("\"{}\"", cut_quoted(&behind[..end]));
        rest = &behind[end + 1..];
    }
    text + &short_words(rest)
}

/// Where the quote ends that was opened before.
fn closing(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.char_indices().find_map(|(at, c)| {
        let ends = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        ends.then_some(at)
    })
}

/// No escape is cut in two.
fn cut_quoted(text: &str) -> String {
    let mut short = cut(text, LONGEST);
    if short.len() != text.len() {
        short.pop();
        let signs = short.chars().rev().take_while(|c| *c == '\\').count();
        if signs % 2 == 1 {
            short.pop();
        }
        short.push(LEFT_OUT);
    }
    short
}

fn short_words(text: &str) -> String {
    let words = text.split_inclusive(char::is_whitespace);
    let short = words.map(|word| {
        let bare = word.trim_end();
        cut(bare, LONGEST_BARE) + &word[bare.len()..]
    });
    short.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_words_are_cut_and_short_ones_are_not() {
        let (long, path) = ("x".repeat(1000), format!("/{}", "y".repeat(300)));
        for (message, want) in [
            ("\"ab\" is wrong".to_owned(), "\"ab\" is wrong".to_owned()),
            (
                format!("{long:?} is wrong; \"b\"?"),
                format!("\"{}…\" is wrong; \"b\"?", "x".repeat(59)),
            ),
            (
                format!("cannot read {path}: no"),
                format!("cannot read {path}: no"),
            ),
            (
                format!("cannot read {long}: no"),
                format!("cannot read {}… no", "x".repeat(399)),
            ),
            (
                format!("{:?}", "\\".repeat(99)),
                format!("\"{}…\"", "\\".repeat(58)),
            ),
            (
                "a lonely \" quote".to_owned(),
                "a lonely \" quote".to_owned(),
            ),
            (
                format!("\"a \\\" {}\" b", "z".repeat(99)),
                format!("\"a \\\" {}…\" b", "z".repeat(54)),
            ),
        ] {
            assert_eq!(brief(&message), want);
        }
    }

    proptest::proptest! {
        #[test]
        fn no_message_makes_it_panic_or_grows(text in "[\\\\\"a é🦄]{0,200}") {
            proptest::prop_assert!(brief(&text).chars().count() <= text.chars().count() + 1);
        }
    }
}
