//! What careless or spiteful people put on a command line and into files: refused by name and at once, and repeated nowhere.
//!
//! Each row is a line for bash, in a folder of its own, in which `$N` is the program.

use std::{
    fs,
    os::unix::fs::symlink,
    process::{Command, Output},
};

use crate::world::{Folder, NOPORTS};

/// A folder with links by classic names, a pipe that nobody writes to, and nothing of whoever runs the tests.
fn place() -> Folder {
    let dir = Folder::new();
    for link in ["sshnp", "sshnpd", "at_activate"] {
        symlink(NOPORTS, dir.path(link)).unwrap();
    }
    run(&dir, "mkfifo pipe");
    dir
}

fn run(dir: &Folder, line: &str) -> Output {
    let mut command = Command::new("timeout");
    command
        .args(["60", "bash", "-c", line])
        .current_dir(&dir.0)
        .env("N", NOPORTS)
        .env("HOME", &dir.0)
        .env_remove("XDG_CONFIG_HOME");
    for (name, _) in std::env::vars() {
        if name.starts_with("NOPORTS_") {
            command.env_remove(name);
        }
    }
    command.env("NOPORTS_ROOT", "127.0.0.1:1").output().unwrap()
}

/// Exit code, stdout, stderr.
fn said(dir: &Folder, line: &str) -> (i32, String, String) {
    let output = run(dir, line);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let code = output.status.code().unwrap();
    (code, text(output.stdout), text(output.stderr))
}

/// Each line ends with this code, and stderr holds these words.
fn each_is_refused(dir: &Folder, rows: &[(&str, i32, &str)]) {
    for (line, want, words) in rows {
        let (code, _, err) = said(dir, line);
        assert!(code == *want && err.contains(words), "{line}: {code} {err}");
    }
}

#[test]
fn what_is_no_file_is_refused_by_name_and_at_once() {
    let dir = place();
    let pipe = "pipe: it is a pipe that nobody writes to";
    each_is_refused(
        &dir,
        &[
            ("$N client --config pipe", 2, pipe),
            ("NOPORTS_CONFIG=pipe $N client", 2, pipe),
            (
                "ln -s pipe p.yaml; $N daemon --config p.yaml",
                2,
                "p.yaml: it is a pipe",
            ),
            ("$N devices --ca pipe", 2, pipe),
            ("NOPORTS_CA=pipe $N devices", 2, pipe),
            ("$N devices --as @a --keys pipe", 3, pipe),
            ("NOPORTS_KEYS=pipe $N devices --as @a", 3, pipe),
            ("$N devices --as @a --passphrase-file pipe", 2, pipe),
            (
                "$N keys protect @a --new-passphrase-file pipe",
                3,
                "there is no key file",
            ),
            ("$N policy check @a @b pi --rules pipe", 2, pipe),
            ("$N client --to @d --via @r --send-key pipe", 2, pipe),
            (
                "$N atserver serve --data d --tls-cert pipe --tls-key pipe",
                1,
                pipe,
            ),
            ("./sshnp -f @a -t @b --config-file pipe", 1, pipe),
            ("./sshnpd -a @d -m @m --config pipe", 1, pipe),
            ("SSHNPD_CONFIG=pipe ./sshnpd -a @d -m @m", 1, pipe),
            (
                "mkdir -p .sshnp/config; ln -s $PWD/pipe .sshnp/config/x.env; ./sshnp -f @a --config-file x",
                1,
                "nobody writes to",
            ),
            ("$N devices --config .", 2, "it is a folder, not a file"),
            (
                "$N devices --config /dev/zero",
                2,
                "it is a device, not a file",
            ),
            ("$N devices --ca /dev/tty", 2, "it is a device, not a file"),
            (
                "$N policy check @a @b pi --rules /dev/random",
                2,
                "it is a device, not a file",
            ),
            (
                "$N devices --config /dev/stdin </dev/zero",
                2,
                "it is longer than",
            ),
        ],
    );
}

#[test]
fn what_a_shell_hands_over_is_read() {
    each_is_refused(
        &place(),
        &[
            (
                "$N client --config <(printf 'to @a@b\\nvia @r')",
                2,
                "line 1: invalid atSign \"@a@b\"",
            ),
            (
                "$N policy check @a @b pi --rules <(printf 'rules: [')",
                2,
                "line 2: ",
            ),
            (
                "printf 'to @a@b\\nvia @r' | $N client --config /dev/stdin",
                2,
                "\"@a@b\"",
            ),
            (
                "printf 'to @a@b\\nvia @r' > pipe & $N client --config pipe",
                2,
                "\"@a@b\"",
            ),
            ("$N devices --as @a --keys <(echo no)", 3, "not a key file"),
            ("$N devices --ca <(echo no)", 2, "no certificate in it"),
            ("$N client --config /dev/null", 2, "is missing"),
        ],
    );
}

#[test]
fn names_in_files_and_of_files_drive_no_terminal() {
    let dir = place();
    fs::write(
        dir.path("e.yaml"),
        "\"a\\e[31mX\": 1\ndevice:\n  \"b\\e[2Jc\": 2\n  colour\u{202e}: 1\n",
    )
    .unwrap();
    fs::create_dir(dir.path("keys")).unwrap();
    for name in ["@ok", "@a\u{202e}b", "@x|id", "@y\"z"] {
        fs::write(dir.path(&format!("keys/{name}_key.atKeys")), "").unwrap();
    }
    for line in [
        "$N daemon --config e.yaml",
        "./sshnpd --config e.yaml -a @d -m @m -d a.b",
        "$N client --to @d --via @r --as @a --keys $'k\\e[31m'",
        "./sshnp -f @a -t @b -r @r -d d -k $'k\\e[31m'",
        "NOPORTS_KEYS=keys $N docs complete noports client --as @",
        "NOPORTS_KEYS=keys $N docs complete sshnp --from @",
        "NOPORTS_KEYS=keys $N devices",
        "env $'NOPORTS_X\\e[31m=1' $N devices",
        "NOPORTS_LOG=$'\\e[31m' $N devices",
    ] {
        let (_, out, err) = said(&dir, line);
        let driven = |c: char| c.is_control() && c != '\n' && c != '\t' || c == '\u{202e}';
        assert!(
            !format!("{out}{err}").contains(driven),
            "{line}: {out}{err}"
        );
    }
    let (_, offered, _) = said(
        &dir,
        "NOPORTS_KEYS=keys $N docs complete noports client --as @",
    );
    assert_eq!(offered, "@ok\thas keys here\n");
}

#[test]
fn a_secret_that_stands_in_the_wrong_place_is_not_repeated() {
    let dir = place();
    for line in [
        "$N daemon \u{2014}secret=S3X",
        "$N client --to @d --via @r \u{2014}secret S3X",
        "$N activate NOPORTS_SECRET=S3X",
        "$N activate \u{2014}secret=S3X",
        "$N activate @a -c S3X -x",
        "$N \u{2014}secret=S3X",
        "$N NOPORTS_SECRET=S3X activate @a",
        "$N keys S3X @a",
        "$N keys protect @a -P S3X",
        "$N enroll @a -s S3X",
        "$N client --to @d -P S3X",
        "$N client --password S3X --to @d --devcie x",
        "$N client --to @d --via @r --as pin:S3X",
        "$N client --json --as=secret=S3X --to @d --via @r",
        "$N devices --device token=S3X --to @d",
        "$N daemon install --cramkey S3X",
        "NOPORTS_AS=secret=S3X $N devices",
        "printf 'as passphrase=S3X' > s.conf; $N devices --config s.conf",
        "printf 'passphrase S3X' > s.conf; $N devices --config s.conf",
        "./sshnp -P S3X -f @a",
        "./sshnp -PS3X -f @a",
        "./sshnp -f @a passphrase S3X",
        "./sshnpd -a @d -m @m -d secret=S3X",
        "./at_activate S3X",
        "./at_activate onboard -a @x S3X",
        "./at_activate enroll -s S3X --passcod S3X",
        "./at_activate -c S3X -a 'a b'",
        "./at_activate --cramkey=S3X --nope=S3X",
        "./at_activate otp -a secret=S3X",
        "$N devices $'--secret=S3X\\xff'",
    ] {
        let (code, out, err) = said(&dir, line);
        assert!(
            code != 0 && !format!("{out}{err}").contains("S3X"),
            "{line}: {out}{err}"
        );
    }
}

#[test]
fn every_failure_is_a_line_of_json_for_whoever_wants_it() {
    let dir = place();
    fs::write(dir.path("bad.conf"), "bad 1\njson\n").unwrap();
    fs::write(dir.path("json.conf"), "json\n").unwrap();
    for (line, code) in [
        ("$N client --json $'\\xff'", 2),
        ("$N --json", 2),
        ("$N bogus --json", 2),
        ("$N help bogus --json", 2),
        ("$N policy --json", 2),
        ("$N enroll aprove --json", 2),
        ("$N docs man /x --json", 2),
        ("$N demo --json", 2),
        ("$N client --json --bogus", 2),
        ("$N client --json --config pipe", 2),
        ("$N client --config bad.conf", 2),
        ("$N client --config json.conf --to @d", 2),
        ("$N client --config=json.conf --bogus", 2),
        ("NOPORTS_CONFIG=json.conf $N devices --to", 2),
        ("NOPORTS_CONFIG=json.conf $N devices", 3),
    ] {
        let (ended, out, err) = said(&dir, line);
        let begin = "{\"event\":\"failed\",\"error\":\"";
        let end = format!(",\"code\":{code}}}\n");
        assert!(
            ended == code
                && out.starts_with(begin)
                && out.ends_with(&end)
                && out.lines().count() == 1,
            "{line}: {ended} {out}{err}"
        );
    }
    let (_, out, _) = said(&dir, "$N help bogus --json");
    assert!(out.contains("there is no program \\\"bogus\\\""), "{out}");
    // What is for somebody else asks for nothing.
    let (_, out, _) = said(&dir, "$N client --to @d -- ls --json");
    assert_eq!(out, "");
}

#[test]
fn files_of_other_editors_are_read_or_named() {
    let dir = place();
    let wide = |text: &str| {
        text.encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect::<Vec<u8>>()
    };
    let two_ats = "line 1: invalid atSign \"@a@b\"";
    for (name, bytes) in [
        (
            "bom.conf",
            "\u{feff}to @a@b\r\nvia @r\r\n".as_bytes().to_vec(),
        ),
        ("wide.conf", wide("\u{feff}to @a@b\r\nvia @r\r\n")),
        ("bare.conf", wide("to @a@b\n")),
        ("mac.conf", b"to @a\rvia @r\r".to_vec()),
        (
            "bom.yaml",
            "\u{feff}atsign:\r\n  atsign: a b\r\n".as_bytes().to_vec(),
        ),
        (
            "bom.env",
            "\u{feff}FROM=@a b\r\nTO=@d\r\nSRVD=@r\r\n"
                .as_bytes()
                .to_vec(),
        ),
        ("gap.env", b"FROM @a\nTO=@d\n".to_vec()),
        ("nested.conf", b"config other.conf\n".to_vec()),
        ("wait.conf", b"wait 3\n".to_vec()),
        ("sign.conf", b"timeout = 3\n".to_vec()),
        ("classic.conf", b"srvd @r\n".to_vec()),
        (
            "rules.yaml",
            "\u{feff}userGroups: [\r\n".as_bytes().to_vec(),
        ),
    ] {
        fs::write(dir.path(name), bytes).unwrap();
    }
    each_is_refused(
        &dir,
        &[
            ("$N client --config bom.conf", 2, two_ats),
            ("$N client --config wide.conf", 2, two_ats),
            (
                "$N client --config bare.conf",
                2,
                "is it UTF-16? save it as UTF-8",
            ),
            (
                "$N client --config mac.conf",
                2,
                "mac.conf, line 1: a carriage return",
            ),
            (
                "$N daemon --manager @m --config bom.yaml",
                2,
                "bom.yaml, line 2: invalid atSign \"a b\"",
            ),
            (
                "./sshnp --config-file ./bom.env",
                1,
                "bom.env, line 1: invalid atSign \"@a b\"",
            ),
            (
                "./sshnp --config-file ./gap.env",
                1,
                "gap.env, line 1: left out, for there is no = behind FROM",
            ),
            (
                "$N client --config nested.conf",
                2,
                "nested.conf, line 1: config is for the command line only",
            ),
            (
                "$N tunnel --config wait.conf",
                2,
                "unknown flag \"wait\"; did you mean timeout?",
            ),
            (
                "$N tunnel --config sign.conf",
                2,
                "write timeout 3, without the =",
            ),
            (
                "$N client --config classic.conf",
                2,
                "unknown flag \"srvd\"; did you mean via?",
            ),
            (
                "$N client --config bom.conf --config=wide.conf",
                2,
                "--config is given twice: bom.conf and wide.conf",
            ),
            (
                "$N policy check @a @b pi --rules rules.yaml",
                2,
                "rules.yaml, line ",
            ),
        ],
    );
}

#[test]
fn variables_that_mean_nothing_or_are_empty_are_named() {
    each_is_refused(
        &place(),
        &[
            (
                "NOPORTS_BOGUS=1 $N client",
                2,
                "NOPORTS_BOGUS means nothing here\n  behind NOPORTS_ there can be AS, CA, ",
            ),
            (
                "NOPORTS_RV=1 $N client",
                2,
                "NOPORTS_RV means nothing here; NOPORTS_VIA?",
            ),
            ("NOPORTS_KEY=1 $N client", 2, "NOPORTS_KEYS?"),
            (
                "NOPORTS_LOG=zzz $N devices",
                3,
                "NOPORTS_LOG=\"zzz\" is not heeded: \"zzz\" is no level; there are off, error, ",
            ),
            (
                "NOPORTS_LOG=info,noports=loud $N devices",
                3,
                "\"noports=loud\" is no level",
            ),
            ("$N client --to=", 2, "--to needs a value that is not empty"),
            (
                "$N client --to @d --via=",
                2,
                "--via needs a value that is not empty",
            ),
            (
                "$N daemon --as ''",
                2,
                "--as needs a value that is not empty",
            ),
            (
                "NOPORTS_VIA= $N client --to @d",
                2,
                "no rendezvous given (NOPORTS_VIA is empty)",
            ),
        ],
    );
}

#[test]
fn words_that_go_on_and_on_are_cut_and_help_takes_no_value() {
    let dir = place();
    let long = "x".repeat(3000);
    for line in [
        "$N L",
        "$N client --bogusL",
        "$N client --bogus=L",
        "$N client --to @d --via @r --device L",
        "NOPORTS_VIA=@a@L $N client --to @d",
        "$N devices --config L",
        "$N devices L",
        "$N devices --timeout L",
        "$N --L",
        "./sshnpd -a @d -m @m -d L",
    ] {
        let (code, _, err) = said(&dir, &line.replace('L', &long));
        let longest = err
            .split_whitespace()
            .map(|word| word.chars().count())
            .max();
        assert!(code != 0 && longest <= Some(400), "{line}: {longest:?}");
    }
    each_is_refused(
        &dir,
        &[
            (
                "$N client --help=x",
                2,
                "--help takes no value\n  hint: noports client --help\n",
            ),
            (
                "$N policy --help=x",
                2,
                "--help takes no value\n  hint: noports policy --help\n",
            ),
            (
                "$N --help=x",
                2,
                "--help takes no value\n  hint: noports --help\n",
            ),
            (
                "$N --version=x",
                2,
                "--version takes no value\n  hint: noports --version\n",
            ),
        ],
    );
}

#[test]
fn results_that_cannot_be_written_are_a_failure() {
    let dir = place();
    for line in [
        "$N",
        "$N client --help",
        "$N --version",
        "$N bridge --help",
        "$N docs bash",
        "$N docs complete noports cli",
        "./sshnp --help",
        "./at_activate --help",
    ] {
        let (code, _, err) = said(&dir, &format!("{line} >/dev/full"));
        assert!(
            code == 1 && err.contains("No space left on device"),
            "{line}: {code} {err}"
        );
        let (code, _, err) = said(&dir, &format!("set -o pipefail; {line} | true"));
        assert_eq!((code, err.as_str()), (0, ""), "{line}");
    }
}

/// As under every classic name; `status` means other things by 2.
#[test]
fn a_wrong_command_line_of_at_activate_ends_with_1() {
    each_is_refused(
        &place(),
        &[
            ("./at_activate", 1, "You must supply a command."),
            ("./at_activate bogus", 1, "Unknown command"),
            ("./at_activate aprove", 1, "hint: at_activate approve"),
            ("./at_activate otp --nope", 1, "Could not find an option"),
            ("./at_activate otp -a x@y@z", 1, "more than one @"),
            ("./at_activate onboard", 1, "<atsign> is missing"),
            ("./at_activate status", 1, "<atsign> is missing"),
            ("./at_activate otp -a @x", 3, "there is no key file"),
        ],
    );
}

#[test]
fn a_bridge_explains_itself_as_the_others_do_and_numbers_are_refused_in_our_words() {
    let dir = place();
    let (code, help, _) = said(&dir, "$N bridge --help");
    assert_eq!(code, 0);
    for part in [
        "\nUsage: noports bridge --host <host>",
        "\nFlags:\n",
        "\nExit codes:\n",
    ] {
        assert!(help.contains(part), "{help}");
    }
    let (_, docs, _) = said(&dir, "$N docs --help");
    assert!(docs.contains("There is no --json here"), "{docs}");
    each_is_refused(
        &dir,
        &[
            (
                "$N rendezvous --max-sessions many",
                2,
                "--max-sessions: \"many\" is no whole number",
            ),
            (
                "$N enroll auto @a --limit -1",
                2,
                "--limit: \"-1\" is no whole number",
            ),
            (
                "$N rendezvous --bind \"x': y\"",
                2,
                "--bind: \"x': y\" is no IP address",
            ),
            (
                "$N atserver serve --metrics x",
                2,
                "--metrics: \"x\" is no address and port",
            ),
            (
                "$N atserver serve --listen 1.2.3",
                2,
                "--listen: \"1.2.3\" is no IP address",
            ),
        ],
    );
}
