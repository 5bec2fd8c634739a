//! Regular expressions that clients send, with limits.

use regex_lite::{Regex, RegexBuilder};

use crate::{
    at::fault::Code,
    server::refusal::{Refusal, refuse},
};

/// Longest expression, in bytes.
const MAX_PATTERN: usize = 2048;
/// Largest compiled expression, in bytes.
const MAX_PROGRAM: usize = 256 * 1024;
/// Deepest nesting.
const MAX_NEST: u32 = 32;

/// Compiles one; `None` stays `None`, as does what matches everything.
pub(super) fn compile(pattern: Option<&str>) -> Result<Option<Regex>, Refusal> {
    let Some(pattern) = pattern.filter(|pattern| !matches!(*pattern, "" | ".*")) else {
        return Ok(None);
    };
    let unusable = || refuse(Code::InvalidSyntax, "Invalid syntax. Not a usable regex");
    if pattern.len() > MAX_PATTERN {
        return Err(unusable());
    }
    RegexBuilder::new(pattern)
        .size_limit(MAX_PROGRAM)
        .nest_limit(MAX_NEST)
        .build()
        .map(Some)
        .map_err(|_| unusable())
}

/// Whether it is found anywhere; no expression finds everything.
pub(super) fn found(pattern: Option<&Regex>, text: &str) -> bool {
    pattern.is_none_or(|pattern| pattern.is_match(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_limited_and_most_match_anywhere() {
        let matches = |pattern: &str, text: &str| {
            compile(Some(pattern)).ok().map(|p| found(p.as_ref(), text))
        };
        assert_eq!(matches(".dev1.sshnp", "@a:x.dev1.sshnp@b"), Some(true));
        assert_eq!(matches("dev2", "@a:x.dev1.sshnp@b"), Some(false));
        assert_eq!(matches("", "anything"), Some(true));
        for hostile in ["(", "((((a{99}){99}){99}){99})", &"(".repeat(3000)] {
            assert_eq!(matches(hostile, "a"), None, "{}", &hostile[..1]);
        }
    }
}
