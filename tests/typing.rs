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

/// What people type who know ssh, and a device by its whole name: the line that was meant, complete.
#[test]
fn a_device_in_another_words_place_is_handed_back_in_its_own() {
    each_is_handed_back(&[
        ("client pi@dev", "client --to pi@dev"),
        ("client pi@dev --via @rv", "client --to pi@dev --via @rv"),
        (
            "client root@pi@dev uptime",
            "client --user root --to pi@dev uptime",
        ),
        ("client -- pi@dev -v", "client --to pi@dev -- -v"),
        ("client pi@dev -L 1:a:2", "client --to pi@dev -- -L 1:a:2"),
        ("ssh pi@dev", "client --to pi@dev"),
        (
            "ssh root@pi@dev --via @rv -- ls",
            "client --user root --to pi@dev --via @rv -- ls",
        ),
        ("connect pi@dev --jsno", "client --to pi@dev --json"),
        (
            "tunnel -L 8080:localhost:80 pi@dev",
            "tunnel --forward 8080:localhost:80 --to pi@dev",
        ),
        (
            "tunnel pi@dev 8080:localhost:80",
            "tunnel --to pi@dev --forward 8080:localhost:80",
        ),
        (
            "forward -L 1:a:2 --to pi@dev",
            "tunnel --forward 1:a:2 --to pi@dev",
        ),
        ("devices pi@dev", "devices --to pi@dev"),
        ("client --port 2 --to @d", "client --local-port 2 --to @d"),
        ("client --to @d --jsno --json", "client --to @d --json"),
        ("client --to @d --quite -quiet", "client --to @d --quiet"),
    ]);
}

/// Each line ends as misuse, with this one as its hint.
fn each_is_handed_back(rows: &[(&str, &str)]) {
    for (typed, meant) in rows {
        let said = Command::new(NOPORTS)
            .args(typed.split(' '))
            .env_remove("NOPORTS_VIA")
            .output()
            .unwrap();
        let text = String::from_utf8(said.stderr).unwrap();
        let want = format!("\n  hint: noports {meant}\n");
        assert!(
            said.status.code() == Some(2) && text.ends_with(&want),
            "{typed}: {text}"
        );
    }
}

/// The hint was a command of another program, which happened to have that word.
#[test]
fn a_word_of_other_programs_is_what_this_one_does() {
    each_is_handed_back(&[
        ("sessions list", "sessions"),
        ("sessions ls --json", "sessions --json"),
        ("devices list --to pi@dev", "devices --to pi@dev"),
        ("rendezvous serve", "rendezvous"),
        ("daemon start --as @d", "daemon --as @d"),
        ("daemon run -v", "daemon -v"),
        ("sessions kill 3f2a", "sessions end 3f2a"),
        ("sessions stop 3f2a --now", "sessions end 3f2a --now"),
        ("atserver rm @bob", "atserver remove @bob"),
        ("atserver start --port 1", "atserver serve --port 1"),
        ("enroll ls @me", "enroll list @me"),
        ("policy test", "policy check"),
        ("devices approve @me", "enroll approve @me"),
        ("enroll request @me", "enroll @me"),
        ("enroll opt", "enroll otp"),
    ]);
}

/// What ssh means by a letter is what is meant here.
#[test]
fn letters_of_ssh_mean_what_ssh_means() {
    each_is_handed_back(&[
        ("client -l root pi@dev", "client --user root --to pi@dev"),
        (
            "client --to pi@dev -l root",
            "client --to pi@dev --user root",
        ),
        ("client -i k pi@dev", "client --identity k --to pi@dev"),
        ("client -p 2222 pi@dev", "client --to pi@dev"),
        ("client -J jump pi@dev", "client --to pi@dev"),
        ("client -N pi@dev", "client --to pi@dev -- -N"),
        ("client -L 1:a:2 pi@dev", "client --to pi@dev -- -L 1:a:2"),
        (
            "client -N -L 1:a:2 pi@dev ls",
            "client --to pi@dev -- -N -L 1:a:2 ls",
        ),
        ("client --to pi@dev -A -- ls", "client --to pi@dev -- -A ls"),
        (
            "tunnel -L 1:a:2 pi@dev",
            "tunnel --forward 1:a:2 --to pi@dev",
        ),
    ]);
}

/// "--user is a flag of noports client" was glued into the command.
#[test]
fn a_hint_is_a_command() {
    each_is_handed_back(&[
        (
            "tunnel --to pi@dev --forward 1:a:2 --user root",
            "tunnel --help",
        ),
        ("devices --stdio", "devices --help"),
        ("client --to @d --via @r --keep-alive", "client --help"),
        (
            "tunnel --to pi@d --via @r --forward 1:a:2 --print --keep-alive",
            "tunnel --to pi@d --via @r --forward 1:a:2 --print --idle-timeout 0",
        ),
        ("enroll unrevoke @me", "enroll list @me --status revoked"),
        ("enroll auto @me", "enroll list @me --status pending"),
        (
            "client --to @d --root localhost:1",
            "client --to @d --root localhost:1 --via @my_rendezvous",
        ),
        ("client --to @d", "client --to @d --via @rv_eu"),
    ]);
}

/// A device's name where an atSign is asked for, in all the ways people write it.
/// Whoever typed one that is somebody else's without its dots had no way to see it.
#[test]
fn an_atsign_with_dots_is_shown_as_what_it_is_taken_for() {
    for (words, want) in [
        (
            &["client", "--to", "@john.doe", "--via", "@rv"][..],
            "@john.doe is taken as @johndoe",
        ),
        (
            &["client", "--to", "pi@john.doe", "--via", "@rv"],
            "@john.doe is taken as @johndoe",
        ),
        (
            &[
                "tunnel",
                "--to",
                "@me",
                "--via",
                "r.v",
                "--forward",
                "1:h:2",
            ],
            "@r.v is taken as @rv",
        ),
        (
            &["daemon", "--as", "@me", "--manager", "@a,@b.c"],
            "@b.c is taken as @bc",
        ),
        (&["client", "--to", "@john.doe", "--via", "@rv", "-q"], ""),
        (&["client", "--to", "@johndoe", "--via", "@rv"], ""),
    ] {
        let said = Command::new(NOPORTS)
            .args(words)
            .env("NOPORTS_CONFIG", "")
            .env("NOPORTS_KEYS", "/nonexistent")
            .output()
            .unwrap();
        let said = String::from_utf8(said.stderr).unwrap();
        let told = said.lines().find(|line| line.contains(" is taken as "));
        match told {
            Some(line) => assert!(!want.is_empty() && line.contains(want), "{words:?}: {said}"),
            None => assert_eq!(want, "", "{words:?}: {said}"),
        }
    }
}

#[test]
fn a_device_in_an_atsigns_place_is_told_apart() {
    each_is_handed_back(&[
        (
            "client --to root@pi@dev --via @r",
            "client --user root --to pi@dev --via @r",
        ),
        (
            "client --via @r --to=root@pi@dev",
            "client --via @r --user root --to pi@dev",
        ),
        ("client --to @dev/pi", "client --to pi@dev"),
        ("client @dev/pi", "client --to pi@dev"),
        ("tunnel --to root@pi@dev --forward 1:a:2", "tunnel --help"),
        (
            "daemon --as pi@dev --manager @me",
            "daemon --as @dev --device pi --manager @me",
        ),
        ("daemon --as @dev/pi -v", "daemon --as @dev --device pi -v"),
        (
            "client --to pi@dev --via rv@r",
            "client --to pi@dev --via @r",
        ),
        ("rendezvous --as x@rv", "rendezvous --as @rv"),
        ("atserver add pi@dev", "atserver add @dev"),
        ("pi@dev", "client --to pi@dev"),
        ("root@pi@dev -v", "client --user root --to pi@dev -v"),
    ]);
}

#[test]
fn help_is_found_by_every_name_and_behind_two_dashes() {
    for (words, begin) in [
        (&["help", "at_activate"][..], "Usage: at_activate COMMAND"),
        (&["help", "--", "client"], "Open an ssh session"),
        (&["help", "--"], "noports reaches a device"),
        (&["help", "tunnel"], "Make a TCP port"),
    ] {
        let said = Command::new(NOPORTS).args(words).output().unwrap();
        let text = String::from_utf8(said.stdout).unwrap();
        assert!(
            said.status.success() && text.starts_with(begin),
            "{words:?}: {text}"
        );
    }
    for words in [
        &["client", "--help"][..],
        &["tunnel", "--help"],
        &["policy", "check", "--help"],
    ] {
        let said = Command::new(NOPORTS).args(words).output().unwrap();
        let text = String::from_utf8(said.stdout).unwrap();
        assert!(text.contains("DEVICE@ATSIGN"), "{words:?}: {text}");
    }
}
