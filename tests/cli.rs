//! The command line as text.

use std::{os::unix::fs::symlink, process::Command};

use async_std::task::block_on;

use crate::world::{Folder, NOPORTS, failure, stdout};

fn noports(words: &[&str]) -> Command {
    let mut command = Command::new(NOPORTS);
    command.args(words);
    for name in [
        "NOPORTS_ROOT",
        "NOPORTS_CA",
        "NOPORTS_KEYS",
        "NOPORTS_AS",
        "NOPORTS_VIA",
    ] {
        command.env_remove(name);
    }
    command
}

#[test]
fn a_newcomer_is_told_what_there_is() {
    block_on(async {
        let overview = stdout(noports(&[])).await;
        assert!(
            overview.starts_with("noports reaches a device that has no open port.\n"),
            "{overview}"
        );
        for applet in noports::cmd::APPLETS {
            // Those without a line of their own are not shown.
            assert_eq!(
                overview.contains(&format!("\n  {:<11} {}", applet.name, applet.about)),
                !applet.about.is_empty(),
                "{}",
                applet.name
            );
            let help = stdout(noports(&[applet.name, "--help"])).await;
            assert!(
                help.starts_with(&format!("Usage: noports {}", applet.name)),
                "{help}"
            );
        }
        assert_eq!(stdout(noports(&["help"])).await, overview);
        assert_eq!(
            stdout(noports(&["--version"])).await,
            concat!("noports ", env!("CARGO_PKG_VERSION"), "\n")
        );
    });
}

#[test]
fn the_executable_finds_itself_in_order() {
    block_on(async {
        let told = stdout(noports(&["selftest", "--json"])).await;
        let lines: Vec<_> = told.lines().collect();
        for (part, line) in ["random", "aes", "rsa", "keys", "tls", "relay", "store"]
            .iter()
            .zip(&lines)
        {
            let want = format!(r#"{{"event":"selftest","part":"{part}","ok":true,"ms":"#);
            assert!(line.starts_with(&want), "{line}");
        }
        assert_eq!(lines.len(), 7, "{told}");
        let mut nowhere = noports(&["selftest"]);
        nowhere.env("TMPDIR", "/proc/nowhere");
        let refused = failure(nowhere).await;
        assert_eq!(refused.0, 1, "{}", refused.1);
        assert!(
            refused.1.contains("no temporary folder /proc/nowhere"),
            "{}",
            refused.1
        );
    });
}

#[test]
fn misuse_says_what_and_what_to_try_and_ends_with_2() {
    block_on(async {
        for (words, want) in [
            (
                &["demon"][..],
                "noports: there is no program \"demon\" in here\n  hint: noports help\n",
            ),
            (
                &["client", "--to", "@d"],
                "noports client: no rendezvous given\n  hint: --via @rendezvous, such as --via @rv_eu\n",
            ),
            (
                &["client", "--to", "@d", "--via", "@r", "--stdio", "--print"],
                "noports client: --stdio and --print exclude each other\n",
            ),
            (
                &["daemon", "--as", "@d"],
                "noports daemon: a daemon needs somebody who may use it\n  hint: --manager @you\n",
            ),
            (
                &["client", "--to", "@a@b", "--via", "@r"],
                "noports client: more than one @ in \"@a@b\"\n",
            ),
            (
                &["daemon", "--manager", "@m", "--permit-open", "x"],
                "noports daemon: \"x\" is not host:port, where either may be *\n  hint: --permit-open localhost:22,nas:*\n",
            ),
        ] {
            assert_eq!(
                failure(noports(words)).await,
                (2, want.to_owned()),
                "{words:?}"
            );
        }
    });
}

#[test]
fn the_name_of_the_link_chooses_the_program() {
    block_on(async {
        let dir = Folder::new();
        for (link, words, want) in [
            (
                "sshnp",
                &["-t", "@d"][..],
                "noports client: no rendezvous given\n",
            ),
            (
                "sshnpd",
                &["-a", "@d"],
                "noports daemon: a daemon needs somebody who may use it\n",
            ),
            ("srvd", &["-a", "@r"], "noports rendezvous: "),
            (
                "sshrvd",
                &["--nope"],
                "noports rendezvous: Could not find an option named \"nope\".\n",
            ),
        ] {
            symlink(NOPORTS, dir.path(link)).unwrap();
            let mut command = Command::new(dir.path(link));
            command.args(words).env_remove("NOPORTS_VIA");
            let (code, said) = failure(command).await;
            assert_eq!(code, 2, "{link}: {said}");
            assert!(said.starts_with(want), "{link}: {said}");
        }
    });
}
