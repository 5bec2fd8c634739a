//! What a program has done, in the three forms that somebody may want on stdout.
//!
//! ```text
//!   --json         {"event":"activated","atsign":"@alice","keys":"/home/alice/…"}
//!   a person       /home/alice/…
//!   at_activate    [Success] Your keyfile stored at path: /home/alice/…
//! ```

use crate::text::json::Object;

/// One result. What has no words for a reader is not told to them.
pub struct Outcome {
    line: Object,
    plain: Option<String>,
    classic: Option<String>,
}

impl Outcome {
    /// What happened, as the JSON line calls it.
    pub fn new(event: &str) -> Self {
        Self {
            line: Object::event(event),
            plain: None,
            classic: None,
        }
    }

    /// A member of the JSON line.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.line = self.line.text(name, value);
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

    /// The line to print. JSON is JSON under every name.
    pub(super) fn line(self, json: bool, classic: bool) -> Option<String> {
        if json {
            Some(self.line.end())
        } else if classic {
            self.classic
        } else {
            self.plain
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
        assert_eq!(Outcome::new("asked").line(false, false), None);
        assert_eq!(Outcome::new("asked").line(false, true), None);
    }
}
