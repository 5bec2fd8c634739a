//! ○ Text that others chose, before it comes to a terminal or into a log.

/// Moves a cursor, turns a line or its direction: control characters, and marks of writing direction.
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
