//! What a program has done, in the three forms that somebody may want on stdout.
//!
//! ```text
//!   --json         {"event":"activated","atsign":"@alice","keys":"/home/alice/…"}
//!   a person       /home/alice/…
//!   at_activate    [Success] Your keyfile stored at path: /home/alice/…
//! ```
//!
//! # The two shapes of `--json`
//!
//! Every line on stdout is one JSON object, and its first member says which of the two it is:
//!
//! ```text
//!   {"event":"listening","address":"127.0.0.1","port":8080,"target":"nas:80"}       something has happened, or is so
//!   {"event":"failed","error":"there is no atSign @bbo","hint":"is it …","code":5}    why it ends
//! ```
//! A result has a word for what happened and behind it the members that belong to it; there may be several lines. A
//! failure is always the last line; `error` and `hint` are what stderr says, `hint` may be `null`, and `code` is the
//! exit code. Wrong command lines fail in this shape, too, with code 2. New members may be added to either.

use super::{print_err, print_out};
use crate::text::{
    json::{self, Object},
    terminal::harmless,
};

/// One result. What has no words for a reader is not told to them.
pub struct Outcome {
    json: JsonLine,
    plain: Option<String>,
    classic: Option<String>,
    remark: Option<String>,
}

/// The line for scripts: of this program's making, or in the form that others read already.
enum JsonLine {
    Members(Object),
    Whole(String),
}

impl Outcome {
    /// What happened, as the JSON line calls it.
    pub fn new(event: &str) -> Self {
        Self::of(JsonLine::Members(Object::event(event)))
    }

    /// A result whose JSON is written elsewhere, in the same shape; several lines, where it has several.
    pub fn json(text: String) -> Self {
        Self::of(JsonLine::Whole(text))
    }

    fn of(json: JsonLine) -> Self {
        Self {
            json,
            plain: None,
            classic: None,
            remark: None,
        }
    }

    /// A member of the JSON line.
    #[must_use]
    pub fn with(self, name: &str, value: &str) -> Self {
        self.member(|line| line.text(name, value))
    }

    /// A member of the JSON line, `null` where there is nothing to tell.
    #[must_use]
    pub fn maybe(self, name: &str, value: Option<&str>) -> Self {
        self.member(|line| line.maybe(name, value))
    }

    /// A member of the JSON line that is JSON already: a number, a truth value, a list.
    #[must_use]
    pub fn raw(self, name: &str, value: impl std::fmt::Display) -> Self {
        self.member(|line| line.raw(name, value))
    }

    fn member(mut self, add: impl FnOnce(Object) -> Object) -> Self {
        // JSON that was written elsewhere is complete.
        if let JsonLine::Members(line) = self.json {
            self.json = JsonLine::Members(add(line));
        }
        self
    }

    /// In words for a person.
    #[must_use]
    pub fn plain(mut self, words: impl Into<String>) -> Self {
        self.plain = Some(words.into());
        self
    }

    /// In the words of the classic program.
    #[must_use]
    pub fn classic(mut self, words: impl Into<String>) -> Self {
        self.classic = Some(words.into());
        self
    }

    /// For whoever does not read JSON, on stderr and before the rest.
    #[must_use]
    pub fn remark(mut self, words: impl Into<String>) -> Self {
        self.remark = Some(words.into());
        self
    }

    /// Tells it. JSON is JSON under every name.
    pub(super) fn print(mut self, json: bool, classic: bool) {
        if let Some(remark) = self.remark.take().filter(|_| !json) {
            print_err(&remark);
        }
        if let Some(line) = self.line(json, classic) {
            print_out(&line);
        }
    }

    fn line(self, json: bool, classic: bool) -> Option<String> {
        if json {
            Some(match self.json {
                JsonLine::Members(line) => line.end(),
                JsonLine::Whole(text) => json::harmless(text),
            })
        } else {
            let words = if classic { self.classic } else { self.plain };
            words.map(|words| harmless(&words))
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::cli::outcome::*;

    #[test]
    fn a_result_is_told_in_three_forms() {
        let whole = || {
            Outcome::new("activated")
                .with("atsign", "@a")
                .with("keys", "/k\"1")
                .plain("/k\"1")
                .classic("[Success] /k\"1")
        };
        let json = r#"{"event":"activated","atsign":"@a","keys":"/k\"1"}"#;
        for (as_json, classic, want) in [
            (true, false, json),
            (true, true, json),
            (false, false, "/k\"1"),
            (false, true, "[Success] /k\"1"),
        ] {
            assert_eq!(whole().line(as_json, classic).as_deref(), Some(want));
        }
        // Names of other people's services, in a table.
        let odd = || Outcome::json("[\"\u{9b}2J\"]".to_owned()).plain("\u{1b}[2J\u{202e}\n\tä");
        for (as_json, want) in [
            (true, r#"["\u009b2J"]"#),
            (false, "\\u{1b}[2J\\u{202e}\n\tä"),
        ] {
            assert_eq!(odd().line(as_json, false).as_deref(), Some(want));
        }
        assert_eq!(Outcome::new("asked").line(false, false), None);
        assert_eq!(Outcome::new("asked").line(false, true), None);
    }
}
