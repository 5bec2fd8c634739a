//! Typing errors of a person who did not write the program: the right correction, on one line, with the right exit code.
//!
//! The list was made before anything of this was built, by somebody else; each row is a line for bash, in which `$N` is
//! the program.

use std::{fs, process::Command};

use crate::world::NOPORTS;

/// Rows that may fail, and why; no more than three.
const LEFT: &[(&str, &str)] = &[(
    "19",
    "pi1@fleet is no error any more: it means --to @fleet --device pi1",
)];

struct Row<'a> {
    id: &'a str,
    line: &'a str,
    setup: &'a str,
    pattern: &'a str,
    exit: i32,
}

fn rows(text: &str) -> Vec<Row<'_>> {
    let rows = text.lines().skip(1).map(|line| {
        let cells: Vec<&str> = line.split('\t').collect();
        let [id, line, setup, pattern, exit] = cells[..] else {
            panic!("{line}");
        };
        let exit = exit.parse().unwrap();
        Row {
            id,
            line,
            setup,
            pattern,
            exit,
        }
    });
    rows.collect()
}

#[test]
fn thirty_typing_errors_are_answered_with_what_was_meant() {
    let list = fs::read_to_string("tests/vectors/typing/thirty.tsv").unwrap();
    let rows = rows(&list);
    assert_eq!(rows.len(), 30);
    let mut wrong = Vec::new();
    for row in rows {
        let said = Command::new("bash")
            .args(["-c", &format!("{}\n{}", row.setup, row.line)])
            .env("N", NOPORTS)
            .output()
            .unwrap();
        let all = [said.stderr, said.stdout].concat();
        let all = String::from_utf8(all).unwrap();
        let pattern = regex_lite::Regex::new(row.pattern).unwrap();
        let right = all.lines().any(|line| pattern.is_match(line));
        if !right || said.status.code() != Some(row.exit) {
            wrong.push((row.id, row.line, said.status.code(), all.clone()));
        }
    }
    let unexpected: Vec<_> = wrong
        .iter()
        .filter(|row| !LEFT.iter().any(|left| left.0 == row.0))
        .collect();
    assert!(unexpected.is_empty(), "{unexpected:#?}");
    assert!(wrong.len() <= 3);
}
