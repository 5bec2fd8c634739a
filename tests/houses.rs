//! An atServer's folder, and files that several runs want at once: damaged, taken, planted.

use std::fs;

use crate::{
    careless::{each_is_refused, place, said},
    world::Folder,
};

/// The data of a server that ran once, in `d`, with the atSign @a.
fn house() -> Folder {
    let dir = place();
    let line = "$N atserver serve --data d --port 0 --first-port 0 --json >o & p=$!
        until grep -q ready o; do sleep 0.05; done
        $N atserver add @a --data d; kill $p; wait $p; cp -r d good";
    let (code, _, err) = said(&dir, line);
    assert_eq!(code, 0, "{err}");
    dir
}

#[test]
fn a_damaged_store_is_told_in_one_line() {
    let dir = house();
    let whole = fs::read(dir.path("d/atserver.redb")).unwrap();
    for (from, step) in [(4096, 7), (4096, 31), (8192, 13), (65536, 101), (4096, 0)] {
        let mut bytes = whole.clone();
        for (at, byte) in bytes.iter_mut().enumerate().skip(from) {
            *byte = (at * step / 3 + at / 256) as u8;
        }
        fs::write(dir.path("d/atserver.redb"), bytes).unwrap();
        for line in [
            "$N atserver list --data d",
            "$N atserver add @b --data d",
            "$N atserver backup b --data d",
            "$N atserver serve --data d --port 0",
        ] {
            let (code, _, err) = said(&dir, line);
            assert!(code == 1 && err.contains("  hint: "), "{line}: {err}");
            for no in ["panicked", ".cargo", "internal error"] {
                assert!(!err.contains(no), "{line}: {err}");
            }
        }
    }
}

#[test]
fn a_lock_of_a_data_folder_that_is_no_file_is_refused_and_not_followed() {
    let dir = house();
    each_is_refused(
        &dir,
        &[
            (
                "rm d/lock; mkfifo d/lock; $N atserver list --data d",
                1,
                "lock",
            ),
            ("$N atserver serve --data d --port 0", 1, "lock"),
            (
                "$N atserver restore good/atserver.redb --force --data d",
                1,
                "lock",
            ),
            (
                "rm d/lock; ln -s ../outside d/lock; $N atserver list --data d",
                1,
                "lock",
            ),
            (
                "rm d/lock; mkdir d/lock; $N atserver list --data d",
                1,
                "lock",
            ),
            ("ls outside", 2, ""),
        ],
    );
}

#[test]
fn what_is_wrong_in_the_flags_of_last_time_is_named() {
    let dir = house();
    for (text, want) in [
        ("port=99999", "line 1: "),
        ("listen 127.0.0.1\\nverbose", "line 2: verbose is not kept"),
        ("data /x", "line 1: data is not kept"),
        ("json", "line 1: json is not kept"),
        ("no-sandbox", "line 1: no-sandbox is not kept"),
        ("port 99999", "line 1: port is not kept, or not like this"),
        ("port", "line 1: port needs a value"),
        ("prot 7", "line 1: unknown flag"),
        ("config /x", "line 1: config is for the command line only"),
        ("port 7\\nport 8", "line 2: port is already set on line 1"),
    ] {
        let line = format!("printf '{text}' >d/last-start.conf; $N atserver list --data d");
        each_is_refused(&dir, &[(&line, 1, want)]);
        let (_, _, err) = said(&dir, &line);
        assert!(err.contains("hint: rm "), "{err}");
    }
    each_is_refused(
        &dir,
        &[
            (
                "echo port 0 >d/last-start.conf; chmod 666 d/last-start.conf; $N atserver list --data d",
                1,
                "others can write it",
            ),
            (
                "mv d/last-start.conf x; chmod 600 x; ln -s ../x d/last-start.conf; $N atserver list --data d",
                1,
                "it is a link",
            ),
            (
                "rm d/last-start.conf; mkfifo d/last-start.conf; $N atserver list --data d",
                1,
                "it is a pipe",
            ),
            (
                "rm d/last-start.conf; printf '# mine\\nport 0\\n' >d/last-start.conf; NOPORTS_ROOT=x:1 $N atserver list --data d",
                0,
                "",
            ),
        ],
    );
}

#[test]
fn a_copy_beside_a_running_server_is_looked_after_without_ports() {
    let dir = house();
    let line = "$N atserver serve --data good --port 0 --json >o & p=$!
        until grep -q ready o; do sleep 0.05; done
        port() { $N atserver list --data $1 | grep -o 'localhost:[0-9]*'; }
        test \"$(port good)\" = \"$(port d)\" && $N atserver add @b --data d && $N atserver quota @a 2G --data d &&
        $N atserver remove @a --yes --data d && $N atserver list --data d; code=$?
        kill $p; wait $p; exit $code";
    let (code, out, err) = said(&dir, line);
    assert!(code == 0 && out.contains("@b "), "{out}{err}");
}

#[test]
fn an_atsign_that_can_own_no_key_is_refused_where_it_would_be_made() {
    let dir = house();
    for who in ["@ünïcode", "@ÅNG", "'@a|b'", "@a%b", "'@a\"b'", "@a~b"] {
        for program in [
            "atserver add {} --data d",
            "activate {}",
            "enroll {}",
            "./at_activate onboard -a {}",
        ] {
            let line = program.replace("{}", who);
            let line = match line.strip_prefix("./") {
                Some(_) => line,
                None => format!("$N {line} </dev/null"),
            };
            let (code, _, err) = said(&dir, &line);
            assert!(
                [1, 2].contains(&code) && err.contains("cannot be the owner of a key"),
                "{line}: {err}"
            );
        }
    }
    let (code, _, err) = said(&dir, "$N atserver add @🦀 --data d");
    assert_eq!(code, 0, "{err}");
}

#[test]
fn an_atsign_whose_secret_cannot_be_handed_over_is_not_hosted() {
    let dir = house();
    let test = "houses::an_atsign_whose_secret_cannot_be_handed_over_is_not_hosted";
    each_is_refused(
        &dir,
        &[(
            "$N atserver add @de --data d >/dev/full",
            1,
            "@de is not hosted: its secret could not be printed",
        )],
    );
    let Some(disk) = crate::world::support::Disk::of(test, 1) else {
        return;
    };
    disk.fill(0);
    let full = disk.0.display();
    each_is_refused(
        &dir,
        &[
            (
                &format!("$N atserver add @de --data d --secret-file {full}/s"),
                1,
                "@de is not hosted: cannot write",
            ),
            (&format!("ls {full}/s"), 2, ""),
            (
                "$N atserver remove @de --yes --data d",
                1,
                "@de is not hosted here",
            ),
            (
                &format!("$N atserver backup {full}/b --data d"),
                1,
                "hint: make room on the disk",
            ),
            (
                &format!("$N atserver serve --port 0 --data {full}/d"),
                1,
                "hint: make room on the disk",
            ),
        ],
    );
}

#[test]
fn a_restore_that_fails_leaves_no_folder_and_names_the_backup() {
    let dir = house();
    let name = "hint: check the name of the backup";
    each_is_refused(
        &dir,
        &[
            ("$N atserver restore none --data new/er", 1, name),
            ("$N atserver restore o --data new/er", 1, "not a complete"),
            ("$N atserver restore d --data new", 1, "not a complete"),
            (
                "mkfifo p; $N atserver restore p --data new",
                1,
                "it is a pipe",
            ),
            ("ls new", 2, ""),
            (
                ": >d/ca.pem; $N atserver export-ca --data d",
                1,
                "there is no certificate in",
            ),
            (
                "echo x >d/ca.pem; $N atserver export-ca --data d",
                1,
                "no certificate",
            ),
        ],
    );
}

#[test]
fn a_host_that_is_none_is_not_served() {
    let dir = place();
    for (flag, value) in [
        ("host", "$'a\\e'"),
        ("host", "'a b'"),
        ("host", "u@h"),
        ("host", "a:7"),
        ("domain", "a/b"),
        ("domain", "a..b"),
    ] {
        let line = format!("$N atserver serve --data h --port 0 --{flag} {value}");
        each_is_refused(&dir, &[(&line, 2, &format!("invalid --{flag}"))]);
    }
    assert!(!dir.path("h").exists());
}
