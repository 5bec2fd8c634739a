use super::{
    plan::{data_folder, data_in_file, environment, whole_paths},
    *,
};
use crate::sys::user::Person;
use crate::testing::Folder;
use std::{path::PathBuf, process::Command};

fn person() -> Person {
    Person {
        name: "pi".into(),
        uid: 1000,
        gid: 1000,
        home: "/home/p i".into(),
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
        name: format!("noports-{}", program.name),
        executable: "/opt/no ports/noports".into(),
        words,
        environment: vec![("NOPORTS_ROOT", value.to_owned())],
        person: person(),
        writes: vec!["/srv/a t".into()],
    }
}

#[test]
fn words_of_ours_and_words_of_the_program_are_told_apart() {
    for (words, ours, theirs) in [
        (
            &["--as", "@d", "--manager", "@m"][..],
            &[][..],
            &["--as", "@d", "--manager", "@m"][..],
        ),
        (
            &["--dry-run", "--hide", "--force"],
            &["--dry-run", "--force"],
            &["--hide"],
        ),
        (
            &["--run-as", "pi", "-v", "--json"],
            &["--run-as", "pi", "--json"],
            &["-v"],
        ),
        (
            &["--device", "help", "--print"],
            &["--print"],
            &["--device", "help"],
        ),
        (&["--", "--force", "x"], &[], &["--force", "x"]),
        (&["--init"], &["--init"], &[]),
        (&["help"], &["help"], &[]),
    ] {
        assert_eq!(split(words), (ours.to_vec(), theirs.to_vec()), "{words:?}");
    }
}

#[test]
fn every_file_says_that_it_is_ours_and_has_no_gap_left() {
    for program in &PROGRAMS {
        for (word, init) in Init::ALL {
            let (text, _) = example(program, "a value").file(init);
            assert!(render::is_ours(&text), "{word}: {text}");
            let gap = regex_lite::Regex::new("@[A-Z_]+@").unwrap();
            assert!(!gap.is_match(&text), "{word}: {text}");
        }
    }
    assert!(!render::is_ours("[Unit]\nDescription=noports\n"));
}

/// What the manager's file says, where it and its neighbours lie, and what is run when: to the byte.
#[test]
fn files_and_commands_of_every_service_manager_are_as_written_down() {
    let person = person();
    for (word, init) in Init::ALL {
        let mut told = String::new();
        for program in [&PROGRAMS[0], &PROGRAMS[3]] {
            let mut service = example(program, "it's \"a\" $HOME `id` \\ %h <&> ;");
            service.name += "-b";
            let (name, file) = (&service.name, init.file(&service.name, &person));
            let (text, mode) = service.file(init);
            told += &format!("== {} {mode:o}\n{text}", file.display());
            let state = init.state_file(name, &person);
            told += &format!("== state {}\n", state.display());
            told += &format!("== log {}\n", init.log(name, &person));
            for (what, steps) in [
                ("start", init.start(name, &file, false)),
                ("start, changed", init.start(name, &file, true)),
                ("restart", init.restart(name, &file)),
                ("stop", init.stop(name, &file)),
                ("forget", init.forget()),
            ] {
                told += &format!("== {what}\n");
                for step in steps {
                    let or_not = if step.optional { " (or not)" } else { "" };
                    told += &format!("{}{or_not}\n", step.shown());
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
    for (init, script) in [
        (Init::Procd, format!("{stubs}\n#FILE\nstart_service")),
        (
            Init::OpenRc,
            "#FILE\neval printf \"'<%s>'\" $command $command_args".to_owned(),
        ),
    ] {
        let script = script.replace("#FILE", &service.file(init).0);
        let done = Command::new("sh").args(["-c", &script]).output().unwrap();
        let said = String::from_utf8_lossy(&done.stdout);
        assert_eq!(
            said,
            want,
            "{init:?}: {}",
            String::from_utf8_lossy(&done.stderr)
        );
    }
    let (text, _) = service.file(Init::Cron);
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
    let args = |words: &[&str]| Args::from_args(&["x"], words).unwrap();
    let failure = service(
        daemon,
        &args(&[]),
        &["--device", "a\nExecStartPre=x"],
        Init::Cron,
    );
    assert_eq!(failure.unwrap_err().code, exit::MISUSE);
    let failure = service(
        daemon,
        &args(&["--run-as", "no such user"]),
        &[],
        Init::Systemd,
    );
    assert_eq!(
        failure.unwrap_err().message,
        "there is no user \"no such user\" here"
    );
    assert_eq!(
        args(&["--init", "upstart"]).init().unwrap_err().code,
        exit::MISUSE
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
    let atserver = PROGRAMS
        .iter()
        .find(|program| program.name == "atserver")
        .unwrap();
    let mut words = vec![];
    let folder = data_folder(&mut words, Init::SystemdUser, &person());
    assert_eq!(words, ["--data", "/home/p i/.local/share/noports/atserver"]);
    assert_eq!(
        folder,
        PathBuf::from("/home/p i/.local/share/noports/atserver")
    );
    let (text, _) = example(atserver, "x").file(Init::Systemd);
    for line in [
        "ReadWritePaths=\"-/srv/a t\"",
        "AmbientCapabilities=CAP_NET_BIND_SERVICE",
        "User=pi",
        "KillMode=process",
    ] {
        assert!(text.lines().any(|other| other == line), "{line}\n{text}");
    }
    let (daemon, _) = example(&PROGRAMS[0], "x").file(Init::Systemd);
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
        for init in [Init::Systemd, Init::SystemdUser] {
            let (text, _) = example(program, "x").file(init);
            for bad in REACHES_FURTHER {
                let found = text.lines().find(|line| line.starts_with(bad));
                assert_eq!(found, None, "{init:?} {}", program.name);
            }
            assert!(text.contains("\nKillMode=process\n"), "{init:?}");
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
