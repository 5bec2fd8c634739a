//! Services: their files, and what a running one tells whoever started it. Manual pages and completions.

use std::{
    fs,
    os::unix::net::UnixDatagram,
    process::{Command, Stdio},
    time::Duration,
};

use async_std::task::block_on;

use crate::world::{ALICE, DEVICE, Folder, NAME, NOPORTS, Process, World, failure, stdout};

/// What a service's datagrams say, up to the first that `good` likes.
fn heard(socket: &UnixDatagram, good: impl Fn(&str) -> bool) -> Vec<String> {
    let mut all = Vec::new();
    loop {
        let mut bytes = [0; 1024];
        let length = socket
            .recv(&mut bytes)
            .unwrap_or_else(|why| panic!("{why}: {all:?}"));
        all.push(String::from_utf8_lossy(&bytes[..length]).into_owned());
        if all.last().is_some_and(|last| good(last)) {
            return all;
        }
    }
}

#[test]
fn a_service_tells_how_it_is_and_answers_the_watchdog() {
    block_on(async {
        let mut world = World::start().await;
        let server = world.serve_from_a_process().await;
        let (name, state) = (world.dir.path("notify"), world.dir.path("state"));
        let socket = UnixDatagram::bind(&name).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        let mut daemon = world.noports(&[
            "daemon",
            "--as",
            DEVICE,
            "--manager",
            ALICE,
            "--device",
            NAME,
        ]);
        daemon
            .env("NOTIFY_SOCKET", &name)
            .env("WATCHDOG_USEC", "200000")
            .env("NOPORTS_STATE", &state)
            .stderr(Stdio::null());
        let daemon = Process(daemon.spawn().unwrap());
        let told = heard(&socket, |said| said == "READY=1\nSTATUS=as @device");
        assert_eq!(told[0], "READY=1\nSTATUS=logging in as @device");
        let text = fs::read_to_string(&state).unwrap();
        let pid = daemon.id();
        assert!(
            text.contains(&format!(r#""pid":{pid}"#)) && text.contains(r#""state":"connected""#),
            "{text}"
        );
        heard(&socket, |said| said == "WATCHDOG=1");
        drop(server);
        heard(&socket, |said| {
            said.starts_with("READY=1\nSTATUS=") && !said.contains("as @device")
        });
        assert!(
            fs::read_to_string(&state)
                .unwrap()
                .contains(r#""state":"lost""#)
        );
        // It tries again, which is all that can be asked of it.
        heard(&socket, |said| said == "WATCHDOG=1");
        let _server = world.serve();
        heard(&socket, |said| said == "READY=1\nSTATUS=again");
        let ended = Command::new("kill").arg(pid.to_string()).status();
        assert!(ended.unwrap().success());
        heard(&socket, |said| said == "STOPPING=1\nSTATUS=stopping");
    });
}

#[test]
fn a_file_is_written_once_and_nobody_elses_is_replaced() {
    block_on(async {
        let world = World::start().await;
        let image = Folder::new();
        let dir = image.text("");
        let install = |more: &[&str]| {
            let words = [
                "daemon",
                "install",
                "--init",
                "systemd",
                "--destdir",
                &dir,
                "--as",
                DEVICE,
            ];
            let mut command = world.noports(&[&words[..], &["--manager", ALICE], more].concat());
            command.env_remove("SUDO_USER");
            command
        };
        let file = image.path("etc/systemd/system/noports-daemon.service");
        let line = stdout(install(&["--json"])).await;
        assert!(line.contains(r#""changed":true"#), "{line}");
        let text = fs::read_to_string(&file).unwrap();
        let keys = world.dir.text("keys");
        for part in [
            format!(
                "\nExecStart=\"{NOPORTS}\" \"daemon\" \"--as\" \"@device\" \"--manager\" \"@alice\"\n"
            ),
            format!("\nEnvironment=\"NOPORTS_KEYS={keys}\"\n"),
            "\nType=notify\n".to_owned(),
        ] {
            assert!(text.contains(&part), "{part}\n{text}");
        }
        let line = stdout(install(&["--json"])).await;
        assert!(line.contains(r#""changed":false"#), "{line}");
        assert_eq!(stdout(install(&["--print"])).await, text);

        // Other flags, another file; what is only looked at changes nothing.
        stdout(install(&["--hide", "--dry-run"])).await;
        assert_eq!(fs::read_to_string(&file).unwrap(), text);
        stdout(install(&["--hide"])).await;
        assert!(fs::read_to_string(&file).unwrap().contains("\"--hide\""));

        fs::write(&file, "[Service]\nExecStart=/usr/bin/mine\n").unwrap();
        let (code, said) = failure(install(&[])).await;
        assert!(
            code == 1 && said.contains("was not written by noports\n  hint: look at it; --force"),
            "{said}"
        );
        assert!(fs::read_to_string(&file).unwrap().contains("mine"));
        let uninstall = ["daemon", "uninstall", "--destdir", &dir];
        stdout(world.noports(&uninstall)).await;
        assert!(file.exists(), "not ours to remove");
        stdout(install(&["--force"])).await;
        stdout(world.noports(&uninstall)).await;
        assert!(!file.exists());
    });
}

#[test]
fn what_would_not_start_is_refused_with_the_programs_own_words() {
    block_on(async {
        let dir = Folder::new();
        let target = dir.text("image");
        for (words, want) in [
            (
                &["daemon", "--as", "@d"][..],
                (2, "a daemon needs somebody who may use it"),
            ),
            (
                &["daemon", "--as", "@d", "--manager", "@m", "--nope"],
                (2, "Unrecognized argument: --nope"),
            ),
            (
                &["rendezvous", "--as", "@r", "--host", "a b"],
                (2, "\"a b\" is no host name or address"),
            ),
            (&["policy", "--as", "@p"], (2, "where are the rules?")),
            (
                &["policy", "--as", "@p", "--rules", "none.yaml"],
                (2, "cannot read "),
            ),
            (
                &["atserver", "--listen", "0.0.0.0"],
                (2, "under which name do clients reach this host?"),
            ),
            (
                &["atserver", "--tls-cert", "x"],
                (2, "a certificate needs its key"),
            ),
            (
                &["daemon", "--as", "a\nb", "--manager", "@m"],
                (2, "cannot stand in a service's file"),
            ),
        ] {
            let mut command = Command::new(NOPORTS);
            command
                .args([
                    words[0],
                    "install",
                    "--init",
                    "openrc",
                    "--destdir",
                    &target,
                ])
                .args(&words[1..])
                .env("HOME", &dir.0)
                .stdin(Stdio::null());
            for name in [
                "NOPORTS_ROOT",
                "NOPORTS_CA",
                "NOPORTS_KEYS",
                "NOPORTS_AS",
                "SUDO_USER",
            ] {
                command.env_remove(name);
            }
            let (code, said) = failure(command).await;
            assert_eq!(code, want.0, "{words:?}: {said}");
            assert!(said.contains(want.1), "{words:?}: {said}");
            assert!(!dir.path("image").exists(), "{words:?}");
        }
    });
}

#[test]
fn every_program_has_a_page_and_shells_can_read_their_scripts() {
    block_on(async {
        let dir = Folder::new();
        let told = stdout({
            let mut command = Command::new(NOPORTS);
            command.args(["docs", "all", &dir.text("share")]);
            command
        })
        .await;
        for applet in noports::program::APPLETS
            .iter()
            .filter(|a| !a.about.is_empty())
        {
            let page = dir.path(&format!("share/man/man1/noports-{}.1", applet.name));
            assert!(told.contains(&page.display().to_string()), "{told}");
            let text = fs::read_to_string(&page).unwrap();
            assert!(text.contains(&applet.about.replace('-', "\\-")), "{text}");
            assert!(
                text.contains("\\fB\\-\\-help\\fR\n"),
                "{}: {text}",
                applet.name
            );
            for link in applet.links {
                let link = fs::read_to_string(dir.path(&format!("share/man/man1/{link}.1")));
                assert_eq!(
                    link.unwrap(),
                    format!(".so man1/noports-{}.1\n", applet.name)
                );
            }
        }
        let page = fs::read_to_string(dir.path("share/man/man1/noports-enroll.1")).unwrap();
        assert!(
            page.contains(".SH APPROVE\n") && page.contains("\\fB\\-\\-existing\\fR\n"),
            "{page}"
        );
        for (shell, file) in [
            ("bash", "bash-completion/completions/noports"),
            ("bash", "bash-completion/completions/sshnp"),
            ("zsh", "zsh/site-functions/_noports"),
            ("fish", "fish/vendor_completions.d/noports.fish"),
        ] {
            // Not everybody has all of them.
            if let Ok(status) = Command::new(shell)
                .arg("-n")
                .arg(dir.path("share").join(file))
                .status()
            {
                assert!(status.success(), "{file}");
            }
        }
        let mut ask = Command::new("bash");
        ask.args(["-c", ". \"$0\"; COMP_LINE='noports client --to @a'; COMP_POINT=${#COMP_LINE}; compopt() { :; }; _noports; echo \"${COMPREPLY[@]}\""])
            .arg(dir.path("share/bash-completion/completions/noports"));
        fs::create_dir_all(dir.path(".atsign/keys")).unwrap();
        fs::write(dir.path(".atsign/keys/@alice_key.atKeys"), "").unwrap();
        let folder = std::path::Path::new(NOPORTS)
            .parent()
            .unwrap()
            .display()
            .to_string();
        ask.env("HOME", &dir.0)
            .env("PATH", format!("{folder}:/usr/bin:/bin"));
        assert_eq!(stdout(ask).await, "alice\n");
    });
}
