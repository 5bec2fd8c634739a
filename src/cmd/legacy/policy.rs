//! `npp_file` and `npp_atserver`: one serves rules from a file, the other from records.
//!
//! Source: noports:packages/dart/sshnoports/bin/npp_file.dart, npp_atserver.dart and
//! noports:packages/dart/noports_core/lib/src/npa/npa_params.dart.

use super::{Row, To};

pub(super) const TABLE: &[Row] = &[
    (&["atsign"], b'a', To::Value("--as")),
    (&["key-file", "keyFile"], b'k', To::Value("--keys")),
    (&["yaml"], 0, To::Value("--rules")),
    // The classic programs answer every daemon, too: the list only shapes their log.
    (&["daemon-atsigns"], 0, To::IgnoredValue),
];

/// Without a file the rules are records.
pub(super) fn finish(mut words: Vec<String>) -> Vec<String> {
    words.insert(0, "serve".to_owned());
    if !words
        .iter()
        .any(|word| word == "--rules" || word == "--help")
    {
        words.push("--records".to_owned());
    }
    words
}
