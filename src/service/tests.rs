use std::{os::unix::fs::PermissionsExt, path::PathBuf, process::Command};

use super::{
    file::{self, is_ours},
    init::{MANAGERS, cron::Cron, openrc::OpenRc, procd::Procd, systemd::Systemd},
    manager::{Manager, ServiceAction},
    plan::{
        InstallRequest, data_folder, data_in_file, environment, service, service_name, whole_paths,
    },
    programs::{PROGRAMS, Program},
    unit::{Service, Unit},
};
use crate::{cli::exit, sys::user::Person, testing::Folder};

fn person() -> Person {
    Person {
        name: "pi".into(),
        uid: 1000,
        gid: 1000,
        home: "/home/p i".into(),
    }
}

fn unit(name: &str, file: impl Into<PathBuf>) -> Unit {
    Unit {
        name: name.into(),
        person: person(),
        file: file.into(),
    }
}

fn example(program: &'static Program, value: &str) -> Service {
    let mut words: Vec<String> = program
        .serve
        .iter()
        .map(|word| (*word).to_owned())
        .collect();
    words.extend(["--device".to_owned(), value.to_owned()]);
    Service {
        program,
        unit: unit(&format!("noports-{}", program.name), "/f"),
        executable: "/opt/no ports/noports".into(),
        words,
        environment: vec![("NOPORTS_ROOT", value.to_owned())],
        writes: vec!["/srv/a t".into()],
    }
}

#[test]
fn every_file_says_that_it_is_ours_and_has_no_gap_left() {
    for program in &PROGRAMS {
        for manager in MANAGERS {
            let word = manager.word();
            let text = manager.render(&example(program, "a value"));
            assert!(is_ours(&text), "{word}: {text}");
            let gap = regex_lite::Regex::new("@[A-Z_]+@").unwrap();
            assert!(!gap.is_match(&text), "{word}: {text}");
        }
    }
    assert!(!is_ours("[Unit]\nDescription=noports\n"));
}

/// What the manager's file says, where it and its neighbours lie, and what is run when: to the byte.
#[test]
fn files_and_commands_of_every_service_manager_are_as_written_down() {
    for manager in MANAGERS {
        let word = manager.word();
        let mut told = String::new();
        for program in [&PROGRAMS[0], &PROGRAMS[3]] {
            let name = format!("noports-{}-b", program.name);
            let file = manager.file(&name, &person());
            let mut service = example(program, "it's \"a\" $HOME `id` \\ %h <&> ;");
            service.unit = unit(&name, file);
            let unit = &service.unit;
            let text = manager.render(&service);
            let folder = Folder::new();
            let written = folder.path("file");
            file::write(&written, &text).unwrap();
            let mode = std::fs::metadata(&written).unwrap().permissions().mode() & 0o777;
            told += &format!("== {} {mode:o}\n{text}", unit.file.display());
            told += &format!("== state {}\n", manager.state(unit).display());
            told += &format!("== log {}\n", manager.log(unit));
            for (what, action) in [
                ("start", ServiceAction::Start),
                ("start, changed", ServiceAction::Replace),
                ("restart", ServiceAction::Restart),
                ("stop", ServiceAction::Stop),
                ("forget", ServiceAction::Forget),
            ] {
                told += &format!("== {what}\n");
                for command in manager.commands(action, unit) {
                    let or_not = if command.optional { " (or not)" } else { "" };
                    told += &format!("{}{or_not}\n", command.shown());
                }
            }
        }
        let me = rustix::process::geteuid().as_raw();
        let told = told.replace(&format!("gui/{me}"), "gui/UID");
        let pinned = format!(
            "{}/tests/vectors/service/{word}.txt",
            env!("CARGO_MANIFEST_DIR")
        );
        assert_eq!(told, std::fs::read_to_string(pinned).unwrap(), "{word}");
    }
}

#[test]
fn shells_read_the_words_of_a_service_as_they_were() {
    let value = "it's \"a\" $HOME `id` \\ %h @NAME@ ;";
    let service = example(&PROGRAMS[0], value);
    let stubs = "procd_open_instance() { :; }; procd_close_instance() { :; }; mkdir() { :; }; chown() { :; }
        procd_set_param() { [ \"$1\" != command ] || { shift; printf '<%s>' \"$@\"; }; }";
    let want = format!("</opt/no ports/noports><daemon><--device><{value}>");
    let managers: [(&dyn Manager, String); 2] = [
        (&Procd, format!("{stubs}\n#FILE\nstart_service")),
        (
            &OpenRc,
            "#FILE\neval printf \"'<%s>'\" $command $command_args".to_owned(),
        ),
    ];
    for (manager, script) in managers {
        let script = script.replace("#FILE", &manager.render(&service));
        let done = Command::new("sh").args(["-c", &script]).output().unwrap();
        let said = String::from_utf8_lossy(&done.stdout);
        assert_eq!(
            said,
            want,
            "{}: {}",
            manager.word(),
            String::from_utf8_lossy(&done.stderr)
        );
    }
    let text = Cron.render(&service);
    let run = text
        .lines()
        .find(|line| line.trim_start().starts_with("exec "))
        .unwrap();
    let script = format!(
        "set -- {}; printf '<%s>' \"$@\"",
        run.trim().trim_start_matches("exec ")
    );
    let done = Command::new("sh").args(["-c", &script]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&done.stdout), want);
}

/// Its supervisor starts again whatever ends, also what ends with 2 because of a wrong flag.
#[test]
fn openrc_does_not_start_what_would_end_with_wrong_use() {
    let value = "it's \"a\" $HOME";
    let text = OpenRc.render(&example(&PROGRAMS[3], value));
    for (verdict, starts) in [(0, true), (2, false), (3, true), (1, true)] {
        let stubs = format!(
            "checkpath() {{ echo made; }}; su() {{ eval \"set -- ${{5#exec }}\"; printf '<%s>' \"$@\" >&2; return {verdict}; }}"
        );
        let script = format!("{stubs}\n{text}\nstart_pre");
        let done = Command::new("sh").args(["-c", &script]).output().unwrap();
        assert_eq!(done.status.success(), starts, "{verdict}");
        assert_eq!(!done.stdout.is_empty(), starts, "{verdict}");
        assert_eq!(
            String::from_utf8_lossy(&done.stderr),
            format!("</opt/no ports/noports><atserver><verify><--device><{value}>")
        );
    }
}

#[test]
fn names_and_paths_that_do_not_fit_are_turned_away() {
    let daemon = &PROGRAMS[0];
    assert_eq!(
        service_name(daemon, Some("b_2")).unwrap(),
        "noports-daemon-b_2"
    );
    for bad in ["", "A", "a b", "../x", "a-b", &"a".repeat(33)] {
        assert_eq!(
            service_name(daemon, Some(bad)).unwrap_err().code,
            exit::MISUSE,
            "{bad:?}"
        );
    }
    let request = InstallRequest {
        program: daemon,
        words: &["--device", "a\nExecStartPre=x"],
        manager: &Cron,
        run_as: None,
        instance: None,
        destdir: None,
    };
    assert_eq!(service(&request).unwrap_err().code, exit::MISUSE);
    let request = InstallRequest {
        words: &[],
        manager: &Systemd::Machine,
        run_as: Some("no such user"),
        ..request
    };
    assert_eq!(
        service(&request).unwrap_err().message,
        "there is no user \"no such user\" on this machine"
    );
}

#[test]
fn paths_are_made_whole_and_nothing_else() {
    let words = ["--ca", "ca.pem", "--as", "ca.pem", "--keys", "/k", "--ca"];
    let whole = whole_paths(&PROGRAMS[0], &words).unwrap();
    let here = std::env::current_dir()
        .unwrap()
        .join("ca.pem")
        .display()
        .to_string();
    assert_eq!(
        whole,
        ["--ca", &here, "--as", "ca.pem", "--keys", "/k", "--ca"]
    );
}

#[test]
fn an_at_server_may_write_to_its_data_and_open_low_ports() {
    let atserver = Program::named("atserver").unwrap();
    let mut words = vec![];
    let folder = data_folder(&mut words, &Systemd::Person, &person());
    assert_eq!(words, ["--data", "/home/p i/.local/share/noports/atserver"]);
    assert_eq!(
        folder,
        PathBuf::from("/home/p i/.local/share/noports/atserver")
    );
    let text = Systemd::Machine.render(&example(atserver, "x"));
    for line in [
        "ReadWritePaths=\"-/srv/a t\"",
        "AmbientCapabilities=CAP_NET_BIND_SERVICE",
        "User=pi",
        "KillMode=process",
    ] {
        assert!(text.lines().any(|other| other == line), "{line}\n{text}");
    }
    let daemon = Systemd::Machine.render(&example(&PROGRAMS[0], "x"));
    assert!(
        daemon.contains("\nCapabilityBoundingSet=\nPrivateUsers=yes\n"),
        "{daemon}"
    );
}

/// `RemoveIPC` takes the shared memory of all programs of that user away; others give his files to somebody else, or end
/// what is not the service's.
#[test]
fn a_restart_leaves_the_persons_other_programs_alone() {
    const REACHES_FURTHER: [&str; 7] = [
        "RemoveIPC=yes",
        "DynamicUser=",
        "StateDirectory=",
        "LogsDirectory=",
        "ProtectHome=tmpfs",
        "KillMode=control-group",
        "KillMode=mixed",
    ];
    for program in &PROGRAMS {
        for manager in [Systemd::Machine, Systemd::Person] {
            let text = manager.render(&example(program, "x"));
            for bad in REACHES_FURTHER {
                let found = text.lines().find(|line| line.starts_with(bad));
                assert_eq!(found, None, "{manager:?} {}", program.name);
            }
            assert!(text.contains("\nKillMode=process\n"), "{manager:?}");
        }
    }
}

#[test]
fn a_file_of_flags_says_where_the_data_are() {
    let folder = Folder::new();
    let file = folder.path("at.conf");
    for (text, want) in [
        ("listen 0.0.0.0\ndata   ~/at\n", Some("/home/p i/at")),
        ("data /srv/a t\n", Some("/srv/a t")),
        ("# data /x\ndatas /y\n", None),
    ] {
        std::fs::write(&file, text).unwrap();
        let words = ["--config".to_owned(), file.display().to_string()];
        let found = data_in_file(&words, &person());
        assert_eq!(found, want.map(PathBuf::from), "{text}");
    }
}

#[test]
fn variables_go_with_the_service_as_whole_paths() {
    let here = std::env::current_dir().unwrap().join("ca.pem");
    let env = |name: &str| match name {
        "NOPORTS_CA" => Some("ca.pem:/b.pem".to_owned()),
        "NOPORTS_ROOT" => Some("ca.pem".to_owned()),
        "NOPORTS_AS" => Some(String::new()),
        "NOPORTS_PASSPHRASE" => Some("secret".to_owned()),
        _ => None,
    };
    let want = format!("{}:/b.pem", here.display());
    let set = environment(env);
    assert_eq!(
        set,
        [("NOPORTS_ROOT", "ca.pem".to_owned()), ("NOPORTS_CA", want)]
    );
}
