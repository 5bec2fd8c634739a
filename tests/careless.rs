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
pub fn place() -> Folder {
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
pub fn said(dir: &Folder, line: &str) -> (i32, String, String) {
    let output = run(dir, line);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let code = output.status.code().unwrap();
    (code, text(output.stdout), text(output.stderr))
}

/// Each line ends with this code, and stderr holds these words.
pub fn each_is_refused(dir: &Folder, rows: &[(&str, i32, &str)]) {
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
        "$N activate S3X",
        "$N enroll S3X",
        "$N enroll otp S3X",
        "$N enroll approve S3X @a",
        "$N keys protect S3X",
        "NOPORTS_SECRET=abcS3X $N activate @abcS3X",
        "NOPORTS_SECRET=abc-S3X $N client --to @a --device abc-S3X --via abc-S3X",
        "echo S3X > sf; $N devices --config sf",
        "echo S3X > sf; NOPORTS_CONFIG=sf $N client",
        "echo secret=S3X > sf; $N daemon --config sf",
        "touch @k_key.atKeys; chmod 600 @k_key.atKeys; $N devices --as @k --keys @k_key.atKeys --passphrase-file S3X",
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

/// It counted as not set: the public atDirectory was asked, and the log was another one.
#[test]
fn a_variable_that_is_no_text_is_refused_by_name() {
    let dir = place();
    for name in ["ROOT", "LOG", "KEYS", "CA", "VIA", "SECRET"] {
        for program in [
            "$N devices --as @a",
            "./sshnp -f @a -t @b",
            "./at_activate otp -a @a",
        ] {
            let line = format!("NOPORTS_{name}=$'x\\xffS3X' {program}");
            let (code, out, err) = said(&dir, &line);
            let want = format!(
                "the variable NOPORTS_{name} is not UTF-8 text\n  hint: unset NOPORTS_{name}\n"
            );
            assert!(code == 2 && err.ends_with(&want), "{line}: {out}{err}");
        }
    }
}

#[test]
fn a_backup_is_a_file_with_an_end() {
    let dir = place();
    for (from, what) in [
        ("pipe", "it is a pipe, not a file"),
        ("<(echo x)", "it is a pipe, not a file"),
        ("/dev/zero", "it is a device, not a file"),
        (".", "it is a folder, not a file"),
    ] {
        let line = format!("$N atserver restore {from} --data r");
        each_is_refused(&dir, &[(line.as_str(), 1, what)]);
    }
}

#[test]
fn what_is_repeated_of_wrong_words_and_paths_drives_no_terminal() {
    let dir = place();
    symlink(NOPORTS, dir.path("srv")).unwrap();
    for line in [
        "$N bridge --host $'a\\e[31m' --port 1 --stdio",
        "$N bridge $'--\\e[31m'",
        "./srv $'\\e[31m' 3",
        "./srv --timeout $'\\e[31m' -h x -p 1",
        "$N docs man $'p/\\e[31m'",
        "$N docs all $'p/\\e[31m'",
    ] {
        let (_, out, err) = said(&dir, line);
        assert!(
            !format!("{out}{err}").contains('\u{1b}'),
            "{line}: {out}{err}"
        );
    }
    let (code, help, _) = said(&dir, "./srv --help");
    let widest = help.lines().map(|line| line.chars().count()).max();
    assert!(code == 0 && widest <= Some(80), "{widest:?} {help}");
}

/// A manager `open` was believed to be somebody called so.
#[test]
fn a_word_of_ours_is_no_atsign() {
    each_is_refused(
        &place(),
        &[
            (
                "$N daemon --as @d --manager open",
                2,
                "--manager: \"open\" is a word of noports",
            ),
            (
                "$N daemon --as @d --manager @a,all",
                2,
                "hint: if an atSign is called so: --manager @all",
            ),
            (
                "$N daemon --as @d --manager @m --policy none",
                2,
                "--policy: \"none\"",
            ),
            ("$N client --to client --via @rv", 2, "--to: \"client\""),
            (
                "echo manager open > m.conf; $N daemon --config m.conf",
                2,
                "m.conf, line 1: --manager: \"open\"",
            ),
            (
                "$N daemon --as @d --manager @open",
                3,
                "there is no key file",
            ),
            (
                "$N rendezvous --as @r --host h --manager open",
                3,
                "there is no key file",
            ),
        ],
    );
}

/// One meaning: a daemon served one, a rendezvous nobody.
#[test]
fn how_many_is_one_or_more_everywhere() {
    let dir = place();
    for program in ["daemon --as @d --manager @m", "rendezvous --as @r --host h"] {
        for (number, why) in [
            ("0", "\"0\" is too few: 1 or more"),
            ("-1", "\"-1\" is no whole number"),
            ("1.5", "\"1.5\" is no whole number"),
            ("abc", "\"abc\" is no whole number"),
        ] {
            let line = format!("$N {program} --max-sessions {number}");
            each_is_refused(
                &dir,
                &[(line.as_str(), 2, &format!("--max-sessions: {why}"))],
            );
        }
    }
    each_is_refused(
        &dir,
        &[
            (
                "$N atserver quota @a 1",
                2,
                "\"1\" is too little: 1M or more, such as 500M",
            ),
            ("$N atserver quota @a -1", 2, "\"-1\" is no size"),
            ("$N atserver add @a --quota 1G5", 2, "\"1G5\" is no size"),
        ],
    );
}

#[test]
fn where_a_value_comes_from_is_told_whatever_goes_wrong_with_it() {
    each_is_refused(
        &place(),
        &[
            (
                "NOPORTS_CA=/no/such:/x $N devices --as @a",
                2,
                "(/no/such comes from NOPORTS_CA)",
            ),
            (
                "NOPORTS_KEYS=/no/such $N devices --as @a",
                3,
                "(/no/such comes from NOPORTS_KEYS)",
            ),
            (
                "echo keys /no/keys > k.conf; $N devices --as @a --config k.conf",
                3,
                "(/no/keys comes from k.conf, line 1)",
            ),
            (
                "echo ca /no/ca > c.conf; $N devices --as @a --config c.conf",
                2,
                "(/no/ca comes from c.conf, line 1)",
            ),
            (
                "mkdir k; NOPORTS_AS=@me NOPORTS_KEYS=k $N devices",
                3,
                "comes from NOPORTS_",
            ),
        ],
    );
    let (_, _, err) = said(
        &place(),
        "NOPORTS_KEYS=/no/such $N devices --as @a --keys /no/such",
    );
    assert!(!err.contains("comes from"), "{err}");
}

/// A second house was made for a word that was mistyped.
#[test]
fn only_serve_begins_an_atservers_data() {
    let dir = place();
    let start = "$N atserver serve --data house --port 0 --host h --json > ready & \
                 until grep -qs directory ready; do sleep 0.01; done; kill $!; wait";
    let (_, _, err) = said(&dir, start);
    assert!(dir.path("house/last-start.conf").exists(), "{err}");
    for words in [
        "add @a",
        "list",
        "quota @a 5M",
        "remove @a --yes",
        "backup b",
        "rotate-ca",
    ] {
        let line = format!("$N atserver {words} --data huose");
        each_is_refused(
            &dir,
            &[
                (line.as_str(), 1, "there is no data of an atServer in "),
                (line.as_str(), 1, "/house"),
            ],
        );
        assert!(!dir.path("huose").exists(), "{words}");
    }
    let (code, _, err) = said(&dir, "$N atserver add @a --data house");
    assert!(
        code == 0 && err.contains("\n  noports atserver serve --data /"),
        "{err}"
    );
    each_is_refused(
        &dir,
        &[(
            "$N atserver add @a --data house",
            1,
            "hint: if its activation secret is lost: noports atserver remove @a --data /",
        )],
    );
    each_is_refused(
        &dir,
        &[(
            "$N atserver status --data house",
            4,
            "hint: noports atserver serve --data /",
        )],
    );
}

#[test]
fn what_was_typed_is_handed_back_whole_in_a_hint() {
    let dir = place();
    let keys = "mkdir -p k; touch k/@me_key.atKeys k/@you_key.atKeys; chmod 600 k/*; ";
    for (line, code, want) in [
        (
            "$N devices --keys k",
            3,
            "hint: noports devices --keys k --as @me\n",
        ),
        (
            "NOPORTS_KEYS=k $N devices",
            3,
            "hint: noports devices --as @me\n",
        ),
        (
            "$N client --to pi@d --via @rv --keys k -- -v",
            3,
            "hint: noports client --to pi@d --via @rv --keys k --as @me -- -v\n",
        ),
        (
            "$N client --to @d",
            2,
            "hint: noports client --to @d --via @my_rendezvous\n",
        ),
        (
            "$N tunnel --to @d --via @r --forward x:y",
            2,
            "hint: noports tunnel --to @d --via @r --forward ",
        ),
        ("$N policy serve --as @p", 2, "--rules policy.yaml"),
    ] {
        let line = format!("{keys}{line}");
        each_is_refused(&dir, &[(line.as_str(), code, want)]);
    }
}

/// A port that was taken was blamed on NOPORTS_ROOT, which `serve` does not read; and a second house began without a word.
#[test]
fn a_server_names_its_own_port_and_the_house_that_is_there() {
    let dir = place();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let serve = format!("NOPORTS_ROOT=127.0.0.1:{port} $N atserver serve --port {port}");
    let (code, _, err) = said(&dir, &format!("{serve} --data d"));
    assert!(code == 1 && !err.contains("NOPORTS_ROOT"), "{err}");
    assert!(!err.contains("new data in"), "{err}");
    let start = "$N atserver serve --data atserver --port 0 --host h --json > ready & \
                 until grep -qs directory ready; do sleep 0.01; done; kill $!; wait";
    said(&dir, start);
    let (_, _, err) = said(&dir, &format!("export NOPORTS_DATA=other; {serve}"));
    let want = "/other; to go on with the other: noports atserver serve --data /";
    assert!(err.contains(want), "{err}");
}

#[test]
fn a_local_port_that_is_taken_is_told_before_anybody_is_asked() {
    let dir = place();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let world = async_std::task::block_on(crate::world::World::start());
    for program in [
        format!("client --local-port {port}"),
        format!("client --print --local-port {port}"),
        format!("tunnel --forward {port}:localhost:22"),
        format!("tunnel --print --forward {port}:localhost:22"),
    ] {
        let words: Vec<&str> = program.split(' ').collect();
        let more = [
            "--to",
            crate::world::DEVICE,
            "--via",
            "@nobody",
            "--as",
            crate::world::ALICE,
        ];
        let output = world.noports(&[&words[..], &more].concat());
        let (code, said) = async_std::task::block_on(crate::world::failure(output));
        assert!(
            code == 1 && said.contains(&format!("cannot listen on 127.0.0.1:{port}")),
            "{said}"
        );
        assert!(!said.contains("logged in"), "{said}");
    }
    drop(dir);
}

/// It was passed over, and the flags that protect with it.
#[test]
fn whatever_is_in_the_usual_files_place_is_read_or_refused() {
    let dir = place();
    let line = |put: &str| {
        format!(
            "export XDG_CONFIG_HOME=$PWD/x; rm -rf x; mkdir -p x/noports; F=x/noports/daemon.conf; {put}; \
             $N daemon --as @d --manager @a"
        )
    };
    for (put, want) in [
        ("mkfifo $F", "it is a pipe that nobody writes to"),
        ("mkdir $F", "it is a folder, not a file"),
        ("ln -s nowhere $F", "No such file"),
        ("ln -s daemon.conf $F", "symbolic links"),
        ("ln -s /dev/zero $F", "it is a device, not a file"),
        (
            "echo hide > $F; chmod 666 $F",
            "others can write it: chmod o-w",
        ),
        ("rmdir x/noports; ln -s gone x/noports", "No such file"),
        ("rmdir x/noports; ln -s noports x/noports", "symbolic links"),
        ("rmdir x/noports x; ln -s gone x", "No such file"),
        ("printf '\\377' > $F", "it is not text"),
    ] {
        let (code, _, err) = said(&dir, &line(put));
        let named = format!("cannot use {}/x/noports/daemon.conf: ", dir.0.display());
        assert!(
            code == 2 && err.contains(&named) && err.contains(want),
            "{put}: {code} {err}"
        );
    }
    for put in ["true", "rm -r x", "HOME=/dev/null; unset XDG_CONFIG_HOME"] {
        let (code, _, err) = said(&dir, &line(put));
        assert!(code == 3 && err.contains("key file"), "{put}: {code} {err}");
    }
}

/// Only flags and remembered keys were: whoever could write the others let themselves in.
#[test]
fn what_others_can_write_decides_nothing() {
    let dir = place();
    let rows = [
        ("policy check @a @b pi --rules f", 2),
        ("policy serve --as @p --rules f", 2),
        ("devices --ca f", 2),
        ("devices --as @a --keys f", 3),
        ("devices --as @a --passphrase-file f", 2),
        ("client --to @d --via @r --send-key f", 2),
        ("client --config f", 2),
        ("client --to @d --via @r --identity f", 2),
        (
            "atserver serve --data d --port 0 --tls-cert f --tls-key f",
            1,
        ),
    ];
    for (words, want) in rows {
        let line = format!("touch f; chmod 666 f; $N {words}");
        let (code, _, err) = said(&dir, &line);
        let mend = "others can write it: chmod o-w f";
        assert!(code == want && err.contains(mend), "{words}: {code} {err}");
        let (_, _, err) = said(&dir, &format!("chmod 664 f; $N {words}"));
        assert!(!err.contains(mend), "{words}: {err}");
        // Root may be told to use a person's own file.
        let (root, _, _) = said(&dir, "exit $(id -u)");
        if root == 0 {
            let (_, _, err) = said(&dir, &format!("chown 12345 f; $N {words}"));
            assert!(!err.contains("belongs to user"), "{words}: {err}");
            said(&dir, "chown 0 f");
        }
    }
}

/// What the link led to was overwritten.
#[test]
fn pages_and_a_state_take_the_place_of_a_planted_link_and_not_of_its_target() {
    let dir = place();
    let (code, out, err) = said(
        &dir,
        "echo theirs > target; mkdir -p m s/man/man1; ln -s $PWD/target m/noports.1
         ln -s $PWD/target s/man/man1/noports-client.1; $N docs man m && $N docs all s && cat target",
    );
    assert!(code == 0 && out.ends_with("theirs\n"), "{code} {err}");
    assert!(!dir.0.join("m/noports.1").is_symlink());
    let (code, _, err) = said(
        &dir,
        "rm m/noports-keys.1; mkfifo m/noports-keys.1; $N docs man m",
    );
    assert!(
        code == 1 && err.contains("cannot write m/noports-keys.1: it is no file"),
        "{code} {err}"
    );
}

/// The dangling link was as if nothing were remembered, and was replaced.
#[test]
fn remembered_keys_behind_a_link_to_nowhere_are_not_forgotten() {
    let dir = place();
    for put in ["ln -s gone m/known_keys", "rmdir m; ln -s gone m"] {
        let line = format!("rm -rf m; mkdir m; {put}; NOPORTS_MEMORY=m $N trust list");
        let (code, _, err) = said(&dir, &line);
        assert!(
            code == 1 && err.contains("leads nowhere"),
            "{put}: {code} {err}"
        );
    }
    let (code, _, err) = said(
        &dir,
        "rm -rf m; mkdir -p m/known_keys.lock; NOPORTS_MEMORY=m $N trust remove @a",
    );
    assert!(
        code == 1 && err.contains("m/known_keys.lock: "),
        "{code} {err}"
    );
}

/// ssh did without it, or waited for the pipe; the second port was found to be taken once a session was open.
#[test]
fn what_a_session_cannot_do_with_is_refused_before_anything_starts() {
    each_is_refused(
        &place(),
        &[
            (
                "$N client --to @d --via @r --identity pipe",
                2,
                "--identity: cannot use pipe: ",
            ),
            (
                "$N client --to @d --via @r --identity none",
                2,
                "--identity: cannot use none: ",
            ),
            (
                "$N client --to @d --via @r --identity .",
                2,
                "it is a folder",
            ),
            (
                "$N tunnel --to @d --via @r --forward 5577:a:1 --forward 5577:b:2 --print",
                2,
                "local port 5577 is given twice",
            ),
            (
                "$N tunnel --to @d --via @r --forward 5577:a:1 --forward '*:5577:a:1'",
                2,
                "local port 5577 is given twice",
            ),
            (
                "$N tunnel --to @d --via @r --forward 5577:a:1 --forward 127.0.0.2:5577:a:1 --forward 0:a:1 --forward 0:a:1",
                3,
                "no key file",
            ),
            (
                "$N access allow @alice @bob alice",
                2,
                "@alice, whose atServer it is, is on no list",
            ),
        ],
    );
}

/// What was pasted failed again, or went elsewhere.
#[test]
fn a_hint_can_be_pasted_and_keeps_what_was_given() {
    let dir = place();
    for (line, want) in [
        (
            "$N client --to pi@kitchen --device pi2 --via @rv",
            "hint: noports client --via @rv --to @kitchen --device pi2\n",
        ),
        (
            "$N client --to @d --via @r --send-key pipe",
            "such as ~/.ssh/id_ed25519.pub\n",
        ),
        (
            "touch @a_key.atKeys; $N keys unprotect @a --out @a_key.atKeys",
            "elsewhere with --out FILE\n",
        ),
        (
            "$N docs man",
            "hint: noports docs man /usr/local/share/man/man1\n",
        ),
        ("$N docs all", "hint: noports docs all /usr/local/share\n"),
        (
            "$N policy check @a --rules f.yaml",
            "hint: noports policy check @a --rules f.yaml @kitchen pi\n",
        ),
        (
            "$N policy check",
            "hint: noports policy check @alice @kitchen pi --rules policy.yaml\n",
        ),
        (
            "$N policy serve --as @p --rules f --records",
            "--rules and --records exclude each other\n",
        ),
        (
            "$N policy install --init cron --as @p --rule /f --dry-run",
            "hint: noports policy install --as @p --rules /f",
        ),
    ] {
        let (_, _, err) = said(&dir, line);
        let tail: String = err.lines().map(|line| format!("{line}\n")).collect();
        assert!(tail.contains(want) && !tail.contains("'~"), "{line}: {err}");
    }
}

#[test]
fn no_value_is_passed_over_in_silence() {
    each_is_refused(
        &place(),
        &[
            ("$N daemon --as @d --manager '@a,,@b'", 2, "atSign"),
            ("$N daemon --as @d --manager '@a,'", 2, "atSign"),
            (
                "$N policy serve --as @p --records --daemon ,@d",
                2,
                "atSign",
            ),
            (
                "$N daemon --as @d --manager @a --permit-open ,",
                2,
                "--permit-open \",\" permits nothing",
            ),
            ("$N docs all ''", 2, "<dir> is empty"),
            ("$N docs man ''", 2, "<dir> is empty"),
            (
                "$N client --to @d --via @r --stdio -- foo",
                2,
                "--stdio starts no ssh",
            ),
            (
                "$N help client extra",
                2,
                "\"extra\" is no word of this program",
            ),
            (
                "$N help policy check extra",
                2,
                "\"extra\" is no word of this program",
            ),
            (
                "$N enroll list @a --status bogus",
                2,
                "\"bogus\" is none of pending, approved",
            ),
            (
                "$N enroll list @a --status Pending",
                2,
                "\"Pending\" is none of pending, approved",
            ),
            ("$N bridge", 1, "hint: noports bridge --help"),
            (
                "$N bridge --host h --port 1 --pace 99999999999999999999999",
                1,
                "is too large a number",
            ),
        ],
    );
}

/// The variable was not named, and neither was the line with quotes.
#[test]
fn a_variable_that_names_no_file_and_a_value_in_quotes_are_named() {
    each_is_refused(
        &place(),
        &[
            (
                "NOPORTS_CONFIG=/none $N devices",
                2,
                "cannot use /none: No such file or directory (os error 2) (it is named by NOPORTS_CONFIG)",
            ),
            ("NOPORTS_CA=/none $N devices", 2, "NOPORTS_CA"),
            ("NOPORTS_KEYS=/none $N devices --as @a", 3, "NOPORTS_KEYS"),
            ("NOPORTS_AS='a b' $N devices", 2, "NOPORTS_AS"),
            ("NOPORTS_ROOT=a:b:c $N devices", 2, "NOPORTS_ROOT"),
            (
                "printf 'via @r\nto \"@device\"' > q; $N client --config q",
                2,
                "q, line 2: write the value of to without quotes",
            ),
            (
                "printf \"via '@r'\" > q; $N client --config q",
                2,
                "q, line 1: write the value of via without quotes",
            ),
            (
                "printf 'to @d\nvia @r\ndevice \"pi\"' > q; $N client --config q",
                2,
                "q, line 3: write the value of device without quotes",
            ),
        ],
    );
}

/// It listed what only programs of a network end with.
#[test]
fn a_page_lists_the_codes_that_its_program_ends_with() {
    let dir = place();
    for (page, has, has_not) in [
        ("docs", ".B 2\n", ".B 3\n"),
        ("keys", ".B 3\n", ".B 4\n"),
        ("client", ".B 12\n", "\0"),
    ] {
        let line = format!("$N docs man m >&2; cat m/noports-{page}.1");
        let (_, out, _) = said(&dir, &line);
        assert!(out.contains(has) && !out.contains(has_not), "{page}: {out}");
    }
}
