//! The parameters of a command, taken from the left.
//!
//! ```text
//!   :ttl:60000:isEncrypted:true:@bob:x.ns@alice        rest
//!   '── item ─'── item ────────'
//! ```
//! Whatever is taken must be followed by another colon, a blank or nothing: so `llookup:all@alice`
//! asks for a key called `all`.

use super::command::{Dialect, Verb};
use crate::at::{
    atsign::AtSign,
    key::BadKey,
    metadata::{self, Metadata, Spelling, natural},
};

/// Why a reader gave up.
pub(super) enum BadParameters {
    Form,
    Key(BadKey),
}

pub(super) type Parsed = Result<Verb, BadParameters>;

/// What is left of a command: empty, or it starts with `:` or a blank.
#[derive(Clone, Copy)]
pub(super) struct Params<'a> {
    pub(super) rest: &'a str,
    pub(super) dialect: Dialect,
}

impl<'a> Params<'a> {
    pub(super) fn lenient(&self) -> bool {
        self.dialect == Dialect::Lenient
    }

    /// Takes `:word`.
    pub(super) fn word(&mut self, word: &str) -> bool {
        let Some((segment, rest)) = self.segment() else {
            return false;
        };
        let same = self.same(segment, word);
        if same {
            self.rest = rest;
        }
        same
    }

    /// Takes one of several `:word`s.
    pub(super) fn one_of(&mut self, words: &[&'static str]) -> Option<&'static str> {
        words.iter().copied().find(|word| self.word(word))
    }

    /// Takes `:name:value` when `read` makes something of the value, which has no `:`, `@` or blank.
    pub(super) fn item<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(&'a str) -> Option<T>,
    ) -> Option<T> {
        let (segment, rest) = self.segment()?;
        if !self.same(segment, name) {
            return None;
        }
        let (value, rest) = Params { rest, ..*self }.segment()?;
        let value = read(value)?;
        self.rest = rest;
        Some(value)
    }

    /// As [`Self::item`] for one of several words.
    pub(super) fn choice(&mut self, name: &str, words: &[&'static str]) -> Option<&'static str> {
        let me = *self;
        self.item(name, |value| {
            words.iter().copied().find(|word| me.same(value, word))
        })
    }

    /// As [`Self::item`] for `true` or `false`; Python writes `True`.
    pub(super) fn flag(&mut self, name: &str) -> Option<bool> {
        let word = self.choice(name, &["true", "false"])?;
        Some(word == "true")
    }

    /// Everything that is left, behind its colon. Not empty.
    pub(super) fn all(&self) -> Result<&'a str, BadParameters> {
        let all = self.rest.strip_prefix(':').ok_or(BadParameters::Form)?;
        require(!all.is_empty())?;
        Ok(all)
    }

    /// Everything that is left, behind a blank. `None` when nothing is left.
    pub(super) fn behind_blank(&self) -> Result<Option<&'a str>, BadParameters> {
        match self.rest.strip_prefix(' ') {
            Some("") => Err(BadParameters::Form),
            Some(text) => Ok(Some(text)),
            None => self.end().map(|()| None),
        }
    }

    /// Nothing is left.
    pub(super) fn end(&self) -> Result<(), BadParameters> {
        require(self.rest.is_empty())
    }

    /// `:segment`, and what follows it: nothing, `:` or a blank.
    pub(super) fn segment(&self) -> Option<(&'a str, &'a str)> {
        let text = self.rest.strip_prefix(':')?;
        let end = text
            .find(|c: char| matches!(c, ':' | '@') || c.is_whitespace())
            .unwrap_or(text.len());
        let (segment, rest) = text.split_at(end);
        (end > 0 && (rest.is_empty() || rest.starts_with([':', ' ']))).then_some((segment, rest))
    }

    fn same(&self, typed: &str, word: &str) -> bool {
        match self.dialect {
            Dialect::Classic => typed == word,
            Dialect::Lenient => typed.eq_ignore_ascii_case(word),
        }
    }

    /// Takes the metadata fragment.
    pub(super) fn metadata(&mut self) -> Metadata {
        let mut into = Metadata::default();
        match self.dialect {
            Dialect::Classic => {
                for (name, classic, spelling) in metadata::WIRE {
                    if classic {
                        self.metadata_item(name, name, spelling, &mut into);
                    }
                }
            }
            Dialect::Lenient => while self.any_metadata_item(&mut into) {},
        }
        into
    }

    /// Takes one metadata item, whichever comes.
    pub(super) fn any_metadata_item(&mut self, into: &mut Metadata) -> bool {
        // at_commons 5.0 printed these two before any grammar knew them.
        let early = [
            ("hash", "pubKeyHash", Spelling::Text),
            ("algo", "hashingAlgo", Spelling::Text),
        ];
        let all = metadata::WIRE.map(|(name, _, spelling)| (name, name, spelling));
        all.into_iter()
            .chain(early)
            .any(|(written, name, spelling)| self.metadata_item(written, name, spelling, into))
    }

    fn metadata_item(
        &mut self,
        written: &str,
        name: &str,
        spelling: Spelling,
        into: &mut Metadata,
    ) -> bool {
        let mut ahead = *self;
        let value = match spelling {
            Spelling::Flag => {
                let flag = ahead.flag(written);
                flag.map(|flag| if flag { "true" } else { "false" })
            }
            Spelling::Time => ahead.time(written),
            Spelling::Number | Spelling::Text => ahead.item(written, Some),
        };
        let took = value.is_some_and(|value| into.set(name, value));
        if took {
            *self = ahead;
        }
        took
    }

    /// Takes `:cAt:2025-01-01T10:00:00.000Z`: the one kind of value with colons in it. Any other
    /// value without colons passes too.
    pub(super) fn time(&mut self, name: &str) -> Option<&'a str> {
        let (segment, rest) = self.segment()?;
        let text = rest.strip_prefix(':')?;
        let end =
            iso_8601(text).filter(|end| matches!(text.as_bytes().get(*end), None | Some(b':')));
        let Some(end) = end else {
            return self.item(name, Some);
        };
        if !self.same(segment, name) {
            return None;
        }
        self.rest = &text[end..];
        Some(&text[..end])
    }
}

/// A command that is not in form is none.
pub(super) fn require(in_form: bool) -> Result<(), BadParameters> {
    if in_form {
        Ok(())
    } else {
        Err(BadParameters::Form)
    }
}

/// Text that is in no form a key either is a wrong command; a key with a wrong character or length
/// is a wrong key.
pub(super) fn key_error(text: &str, bad: BadKey) -> BadParameters {
    let (scope, name) = text.rsplit_once(':').unwrap_or(("", text));
    let scope = scope.strip_prefix("cached:").unwrap_or(scope);
    let known = matches!(scope, "" | "cached" | "public" | "private" | "privatekey");
    let shared = scope.starts_with('@') && !scope[1..].contains([':', '@']);
    let entity = name.rsplit_once('@').map_or(name, |(entity, _)| entity);
    let whole = !entity.is_empty() && !entity.contains('@') && !name.contains(char::is_whitespace);
    if (known || shared) && whole && entity.len() < name.len() {
        BadParameters::Key(bad)
    } else {
        BadParameters::Form
    }
}

/// Some verbs of the classic grammar want two characters.
pub(super) fn long_enough(entity: &str, dialect: Dialect) -> Result<(), BadParameters> {
    require(dialect != Dialect::Classic || entity.chars().nth(1).is_some())
}

pub(super) fn atsign(text: &str) -> Result<AtSign, BadParameters> {
    text.parse().map_err(|_| BadParameters::Form)
}

pub(super) fn small(text: &str) -> Option<u32> {
    natural(text)?.try_into().ok()
}

/// `[A-Za-z0-9_-]+`
pub(super) fn id(text: &str) -> Option<String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    (!text.is_empty() && text.chars().all(fits)).then(|| text.to_owned())
}

/// Length of the date and time at the start of the text: `2025-01-01T10:00:00[.000][Z]`.
fn iso_8601(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let head = bytes.get(..19)?;
    let fits = head
        .iter()
        .zip(b"dddd-dd-ddTdd:dd:dd")
        .all(|(b, form)| match form {
            b'd' => b.is_ascii_digit(),
            form => b == form,
        });
    if !fits {
        return None;
    }
    let digits = |from: usize| {
        bytes[from..]
            .iter()
            .take_while(|b| b.is_ascii_digit())
            .count()
    };
    let mut len = 19;
    if bytes.get(len) == Some(&b'.') && digits(len + 1) > 0 {
        len += 1 + digits(len + 1);
    }
    Some(len + usize::from(bytes.get(len) == Some(&b'Z')))
}
