//! JSON with members in a given order.

use std::fmt::Write as _;

use miniserde::json;

use super::terminal::steers;

/// Writes one JSON object, member by member.
///
/// ```
/// # use noports::text::json::Object;
/// assert_eq!(Object::new().text("a", "x\"y").raw("n", 1).end(), r#"{"a":"x\"y","n":1}"#);
/// ```
pub struct Object(String);

impl Default for Object {
    fn default() -> Self {
        Self::new()
    }
}

impl Object {
    /// An empty one.
    pub fn new() -> Self {
        Self("{".into())
    }
    /// A line of results: what happened, and behind that what belongs to it.
    pub fn event(name: &str) -> Self {
        Self::new().text("event", name)
    }
    /// A member that is text.
    #[must_use]
    pub fn text(self, name: &str, value: &str) -> Self {
        let quoted = quote(value);
        self.raw(name, quoted)
    }
    /// A member that is text, or `null`.
    #[must_use]
    pub fn maybe(self, name: &str, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.text(name, value),
            None => self.raw(name, "null"),
        }
    }
    /// A member whose value is JSON already: a number, a truth value, an object.
    #[must_use]
    pub fn raw(mut self, name: &str, value: impl std::fmt::Display) -> Self {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        // Writing to a String cannot fail.
        let _ = write!(self.0, "{}:{value}", quote(name));
        self
    }
    /// The whole object.
    pub fn end(mut self) -> String {
        self.0.push('}');
        harmless(self.0)
    }
}

/// The same JSON, in which nothing moves a terminal's cursor: JSON lets some characters stand that terminals obey.
pub fn harmless(json: String) -> String {
    // There may be several lines.
    let is_odd = |c: char| steers(c) && c != '\n';
    if !json.contains(is_odd) {
        return json;
    }
    json.chars().fold(String::new(), |mut safe, c| {
        // Writing to a String cannot fail. All of them have four digits.
        let _ = if is_odd(c) {
            write!(safe, "\\u{:04x}", u32::from(c))
        } else {
            safe.write_char(c)
        };
        safe
    })
}

/// A JSON string with its quotes.
pub fn quote(text: &str) -> String {
    json::to_string(text)
}

/// A JSON array of texts.
pub fn array<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = texts.into_iter().map(quote).collect();
    format!("[{}]", quoted.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_and_null_members_are_json() {
        assert_eq!(array(["a", "b\n"]), r#"["a","b\n"]"#);
        assert_eq!(array([]), "[]");
        let ready = Object::event("ready").text("as", "@d").raw("n", 1).end();
        assert_eq!(ready, r#"{"event":"ready","as":"@d","n":1}"#);
        // A terminal obeyed the second and showed what follows the third in another order.
        let odd = Object::new().text("a", "\u{1b}[2J\u{9b}2J\u{202e}\u{2066}\u{7f}é");
        let want = r#"{"a":"\u001b[2J\u009b2J\u202e\u2066\u007fé"}"#;
        assert_eq!(odd.end(), want);
        let lines = "{\"a\":\"\u{9b}\"}\n{}".to_owned();
        assert_eq!(harmless(lines), "{\"a\":\"\\u009b\"}\n{}");
        assert_eq!(Object::new().maybe("a", None).end(), r#"{"a":null}"#);
    }
}
