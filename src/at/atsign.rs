//! One account name.
//!
//! ```text
//!   typed      Alice   @colin.constable   @@alice    al ice
//!   becomes   @alice   @colinconstable    refused    refused
//! ```

use std::{fmt, str::FromStr};

/// Longest name without its `@`, in characters.
pub const MAX_ATSIGN: usize = 55;

/// An account name in canonical form: leading `@`, lower case, no dots — `@alice`.
///
/// The only way in is [`FromStr`], so a function that takes an `AtSign` never checks it again.
///
/// Source: at_libraries:packages/at_utils/lib/src/atsign_util.dart
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AtSign(String);

impl AtSign {
    /// With the `@`: `@alice`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Without the `@`: `alice`.
    pub fn bare(&self) -> &str {
        &self.0[1..]
    }
}

impl fmt::Display for AtSign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text is no atSign.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAtSign {
    /// Nothing is left after normalising.
    #[error("an atSign needs a name, such as @alice")]
    Empty,
    /// More than one `@`.
    #[error("invalid atSign {0:?}: it has more than one @")]
    TwoAts(String),
    /// One of ``! * ' ` ( ) ; : & = + $ , / ? # [ ] { }``.
    #[error("invalid atSign {0:?}: it contains a character that is not allowed")]
    Reserved(String),
    /// White space.
    #[error("invalid atSign {0:?}: it contains white space")]
    WhiteSpace(String),
    /// A control character.
    #[error("invalid atSign {0:?}: it contains a control character")]
    Control(String),
    /// More than [`MAX_ATSIGN`] characters.
    #[error("invalid atSign: it has more than {MAX_ATSIGN} characters")]
    TooLong,
}

impl FromStr for AtSign {
    type Err = BadAtSign;

    fn from_str(typed: &str) -> Result<Self, BadAtSign> {
        // Checked before anything is copied, and before the text can end up in a message.
        // Dots are not counted in the end, hence the room for them.
        if typed.chars().take(4 * MAX_ATSIGN).count() == 4 * MAX_ATSIGN {
            return Err(BadAtSign::TooLong);
        }
        let lower = typed.to_lowercase();
        let name = lower.strip_prefix('@').unwrap_or(&lower);
        if name.contains('@') {
            return Err(BadAtSign::TwoAts(typed.to_owned()));
        }
        let name = name.replace('.', "");
        if name.is_empty() {
            return Err(BadAtSign::Empty);
        }
        if name.contains(is_reserved) {
            return Err(BadAtSign::Reserved(typed.to_owned()));
        }
        if name.contains(char::is_whitespace) {
            return Err(BadAtSign::WhiteSpace(typed.to_owned()));
        }
        if name.contains(is_control) {
            return Err(BadAtSign::Control(typed.to_owned()));
        }
        if name.chars().count() > MAX_ATSIGN {
            return Err(BadAtSign::TooLong);
        }
        Ok(Self(format!("@{name}")))
    }
}

fn is_reserved(c: char) -> bool {
    "!*'`();:&=+$,/?#[]{}".contains(c)
}

/// Control characters and the pictures of them. The C1 block is our addition: a terminal may obey it.
fn is_control(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2400}'..='\u{2421}' | '\u{2424}' | '\u{2425}')
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use miniserde::{Deserialize, json};
    use proptest::prelude::*;

    use super::*;

    #[derive(Deserialize)]
    struct Vectors {
        atsign_normalisation: Section,
    }
    #[derive(Deserialize)]
    struct Section {
        cases: Vec<Case>,
    }
    #[derive(Deserialize)]
    struct Case {
        input: String,
        output: Option<String>,
        error: Option<String>,
    }

    fn error_name(error: &BadAtSign) -> &'static str {
        match error {
            BadAtSign::Empty => "noAtSign",
            BadAtSign::TwoAts(_) => "moreThanOneAt",
            BadAtSign::Reserved(_) => "reservedCharacterUsed",
            BadAtSign::WhiteSpace(_) => "whiteSpaceNotAllowed",
            BadAtSign::Control(_) => "controlCharacter",
            BadAtSign::TooLong => "tooLong",
        }
    }

    #[test]
    fn normalises_as_every_other_client_does() {
        let all = include_str!("../../tests/vectors/atprotocol.json");
        let vectors: Vectors = json::from_str(all).unwrap();
        let cases = vectors.atsign_normalisation.cases;
        assert_eq!(cases.len(), 21);
        for case in cases {
            let got = case.input.parse::<AtSign>();
            let (name, error) = match &got {
                Ok(atsign) => (Some(atsign.to_string()), None),
                Err(error) => (None, Some(error_name(error).to_owned())),
            };
            assert_eq!((name, error), (case.output, case.error), "{:?}", case.input);
        }
    }

    #[test]
    fn the_longest_name_has_55_characters() {
        for (count, fits) in [(55, true), (56, false), (100_000, false)] {
            let plain = "a".repeat(count).parse::<AtSign>();
            assert_eq!(plain.is_ok(), fits, "{count}");
            let emoji = "😀".repeat(count).parse::<AtSign>();
            assert_eq!(emoji.is_ok(), fits, "{count} emoji");
        }
    }

    proptest! {
        #[test]
        fn what_parsing_gives_parses_to_itself(typed in "\\PC{0,20}") {
            if let Ok(atsign) = typed.parse::<AtSign>() {
                prop_assert_eq!(atsign.to_string().parse::<AtSign>(), Ok(atsign.clone()));
                prop_assert_eq!(format!("@{}", atsign.bare()), atsign.as_str());
            }
        }
    }
}
