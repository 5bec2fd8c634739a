//! What a classic program says it understands, and what that is in our words.

use super::tables::{ClassicOption, SEND_KEY, To};

/// One line per option.
pub(super) fn usage(name: &str, ours: &str, tables: &[&[ClassicOption]]) -> String {
    let mut text = format!(
        "{name} is noports {ours}. After each option: what it means there.\nMore: noports {ours} --help\n"
    );
    let mut told: Vec<&str> = Vec::new();
    for row in tables.iter().flat_map(|table| table.iter()) {
        let Some(first) = row.0.first() else { continue };
        if told.contains(first) {
            continue;
        }
        told.push(first);
        let short = match row.1 {
            0 => "    ".to_owned(),
            letter => format!("-{}, ", char::from(letter)),
        };
        let long: Vec<String> = row.0.iter().map(|name| format!("--{name}")).collect();
        let line = format!("{short}{:<44} {}", long.join(", "), meaning(row.2));
        text += &format!("\n  {}", line.trim_end());
    }
    text
}

/// What an option is in our words.
pub(crate) fn meaning(to: To) -> String {
    match to {
        To::Value(SEND_KEY) => "--send-key ~/.ssh/…".to_owned(),
        To::Value(ours) | To::Number(ours) | To::Values(ours) | To::List(ours) => {
            let dashes = if ours.starts_with("--") {
                ""
            } else {
                "part of --forward: "
            };
            format!("{dashes}{ours} …")
        }
        To::Switch(ours) => ours.to_owned(),
        To::Unset(ours) => format!("not {ours}"),
        To::Given => "(always on)".to_owned(),
        To::Key => "--send-key IDENTITY.pub".to_owned(),
        To::IgnoredValue => "… (no effect)".to_owned(),
        To::Choice(all) => format!("{} (no effect)", all.join("|")),
        To::Ssh => "-- … (for ssh; commas separate)".to_owned(),
        To::Secret => "… (better in a file: others can read a command line)".to_owned(),
        To::Phrase => "… (better --passphrase-file)".to_owned(),
        To::Config => "… (a file with further settings)".to_owned(),
        To::Help | To::Version => String::new(),
    }
}
