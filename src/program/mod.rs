//! One file per program; each reads top to bottom as its story.
//!
//! The executable acts on the name it is called by (a link called `sshnpd` is the daemon), else on its
//! first word (`noports daemon`). Names are compared whole: `sshnp` is a prefix of `sshnpd`.
//!
//! | what | programs | what they share |
//! | --- | --- | --- |
//! | sessions | [`client`] [`tunnel`] [`devices`] | [`ask`](crate::session::ask), [`launch`](crate::session::launch) |
//! | the other ends | [`daemon`] [`rendezvous`] [`policy`] [`bridge`] | [`online`](crate::session::online), [`authorise`](crate::session::authorise) |
//! | keys and rights | [`activate`] [`at_activate`] [`enroll`] [`keys`] [`access`] | [`keystore`](crate::cli::keystore) |
//! | hosting | [`atserver`] | |
//! | this machine | [`install`] [`service`] | [`service`](crate::service) |
//! | about itself | [`docs`] [`selftest`] [`demo`] | |
//!
//! [`cli`] is under all of them: flags, files of flags, the environment, classic words, failures, progress.

use std::{
    ffi::{OsStr, OsString},
    path::Path,
    process::ExitCode,
};

use crate::cli::{self, Console};

pub mod access;
pub mod activate;
pub mod at_activate;
pub mod atserver;
pub mod bridge;
pub mod client;
mod confirm;
pub mod daemon;
pub mod demo;
pub mod devices;
pub mod docs;
pub mod enroll;
pub mod install;
pub mod keys;
pub mod policy;
pub mod rendezvous;
pub mod selftest;
pub mod service;
pub mod tunnel;

/// One program in the executable.
pub struct Applet {
    /// `noports NAME`
    pub name: &'static str,
    /// Names of links that mean this program, with the classic command line.
    pub links: &'static [&'static str],
    /// One line for the overview; empty = not shown.
    pub about: &'static str,
    main: fn(Console, &[&str]) -> ExitCode,
}

/// All programs, in the order a newcomer meets them.
pub const APPLETS: &[Applet] = &[
    Applet {
        name: "demo",
        links: &[],
        about: "the whole story on this machine: own atServer, device, client, ssh",
        main: demo::main,
    },
    Applet {
        name: "client",
        links: &["sshnp"],
        about: "open an ssh session to a device",
        main: client::main,
    },
    Applet {
        name: "tunnel",
        links: &["npt"],
        about: "open any TCP port near a device, on a port here",
        main: tunnel::main,
    },
    Applet {
        name: "daemon",
        links: &["sshnpd"],
        about: "wait on a device for sessions; opens no port",
        main: daemon::main,
    },
    Applet {
        name: "devices",
        links: &[],
        about: "list the devices you may use, and which of them answer",
        main: devices::main,
    },
    Applet {
        name: "rendezvous",
        links: &["srvd", "sshrvd"],
        about: "the meeting point: joins two outbound sockets",
        main: rendezvous::main,
    },
    Applet {
        name: "policy",
        links: &["npp_file", "npp_atserver"],
        about: "decide for daemons who may use them",
        main: policy::main,
    },
    Applet {
        name: "activate",
        links: &["at_activate"],
        about: "make the first keys of an atSign",
        main: activate::main,
    },
    Applet {
        name: "enroll",
        links: &[],
        about: "keys for one more device; codes, approvals, revocations",
        main: enroll::main,
    },
    Applet {
        name: "keys",
        links: &[],
        about: "protect a key file with a pass phrase, or take it away",
        main: keys::main,
    },
    Applet {
        name: "access",
        links: &[],
        about: "whom the atServer of your atSign lets in",
        main: access::main,
    },
    Applet {
        name: "atserver",
        links: &[],
        about: "host atSigns yourself: atDirectory and atServers",
        main: atserver::main,
    },
    Applet {
        name: "service",
        links: &[],
        about: "services of this machine; made by noports daemon install",
        main: service::main,
    },
    Applet {
        name: "docs",
        links: &[],
        about: "manual pages, and completions for shells",
        main: docs::main,
    },
    Applet {
        name: "bridge",
        links: &["srv", "sshrv"],
        about: "one end of a session (started by client and daemon)",
        main: bridge::main,
    },
    Applet {
        name: "selftest",
        links: &[],
        about: "",
        main: selftest::main,
    },
];

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
enum Invocation {
    /// A program, how many words of argv its name took, and the classic link it was called by.
    Applet {
        index: usize,
        used: usize,
        classic: Option<&'static str>,
    },
    Help,
    Version,
    Unknown(String),
}

fn invocation(argv: &[&str]) -> Invocation {
    let link = argv
        .first()
        .and_then(|path| Path::new(path).file_stem())
        .and_then(OsStr::to_str);
    let by_link = |word: &str| {
        APPLETS.iter().enumerate().find_map(|(index, applet)| {
            let link = applet.links.iter().find(|link| **link == word)?;
            Some((index, Some(*link)))
        })
    };
    if let Some((index, classic)) = link.and_then(by_link) {
        return Invocation::Applet {
            index,
            used: 1,
            classic,
        };
    }
    match argv.get(1).copied() {
        None | Some("help" | "--help" | "-h") => Invocation::Help,
        Some("version" | "--version" | "-V") => Invocation::Version,
        Some(word) => {
            let by_name = APPLETS.iter().position(|applet| applet.name == word);
            match by_name.map(|index| (index, None)).or_else(|| by_link(word)) {
                Some((index, classic)) => Invocation::Applet {
                    index,
                    used: 2,
                    classic,
                },
                None => Invocation::Unknown(word.to_owned()),
            }
        }
    }
}

/// Runs the program that argv names.
pub fn main(argv: impl Iterator<Item = OsString>) -> ExitCode {
    let Ok(argv) = argv
        .map(OsString::into_string)
        .collect::<Result<Vec<_>, _>>()
    else {
        cli::print_err("noports: the command line is not UTF-8 text");
        return ExitCode::from(cli::exit::MISUSE);
    };
    let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
    match invocation(&argv) {
        Invocation::Applet {
            index,
            used,
            classic,
        } => match classic {
            None => {
                let (applet, words) = (&APPLETS[index], &argv[used..]);
                install::main(applet.name, words).unwrap_or_else(|| start(applet, words))
            }
            Some("at_activate") => at_activate::main(&argv[used..]),
            Some(link) => start_classic(link, &argv[used..]),
        },
        Invocation::Help => {
            cli::print_out(&overview());
            ExitCode::from(cli::exit::FINE)
        }
        Invocation::Version => {
            cli::print_out(concat!("noports ", env!("CARGO_PKG_VERSION")));
            ExitCode::from(cli::exit::FINE)
        }
        Invocation::Unknown(word) => {
            cli::print_err(&format!("noports: there is no program {word:?} in here"));
            cli::print_err("  hint: noports help");
            ExitCode::from(cli::exit::MISUSE)
        }
    }
}

fn start(applet: &Applet, words: &[&str]) -> ExitCode {
    (applet.main)(Console::new(format!("noports {}", applet.name)), words)
}

fn start_classic(link: &'static str, words: &[&str]) -> ExitCode {
    let (console, program, words) = match Console::classic(link, words) {
        Ok(understood) => understood,
        Err(code) => return code,
    };
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match APPLETS.iter().find(|applet| applet.name == program) {
        Some(applet) => (applet.main)(console, &words),
        None => ExitCode::from(cli::exit::FAILED),
    }
}

fn overview() -> String {
    let mut text = String::from(
        "noports reaches a device that has no open port.\n\n\
         usage: noports PROGRAM [flags]      (noports PROGRAM --help tells its flags)\n\n",
    );
    for applet in APPLETS.iter().filter(|a| !a.about.is_empty()) {
        let links = if applet.links.is_empty() {
            String::new()
        } else {
            format!("  [{}]", applet.links.join(", "))
        };
        text += &format!("  {:<11} {}{links}\n", applet.name, applet.about);
    }
    text + "\nNames in brackets are links that mean the same program, with its classic flags.\n\
            Start with: noports demo"
}

#[cfg(test)]
mod tests {
    use crate::program::*;

    #[test]
    fn link_name_wins_then_first_word() {
        let applet = |name: &str, used, classic| Invocation::Applet {
            index: APPLETS
                .iter()
                .position(|a| a.name == name)
                .expect("a program of that name"),
            used,
            classic,
        };
        for (argv, want) in [
            (
                &["/usr/bin/noports", "daemon"][..],
                applet("daemon", 2, None),
            ),
            (
                &["/usr/bin/sshnpd", "client"],
                applet("daemon", 1, Some("sshnpd")),
            ),
            (&["sshnp"], applet("client", 1, Some("sshnp"))),
            (&["./sshrvd"], applet("rendezvous", 1, Some("sshrvd"))),
            (&["srvd"], applet("rendezvous", 1, Some("srvd"))),
            (&["srv"], applet("bridge", 1, Some("srv"))),
            (&["sshrv", "-h", "x"], applet("bridge", 1, Some("sshrv"))),
            (&["at_activate"], applet("activate", 1, Some("at_activate"))),
            (&["npp_atserver"], applet("policy", 1, Some("npp_atserver"))),
            (&["noports", "sshnpd"], applet("daemon", 2, Some("sshnpd"))),
            (&["npt"], applet("tunnel", 1, Some("npt"))),
            (&["noports", "tunnel"], applet("tunnel", 2, None)),
            (&["noports"], Invocation::Help),
            (&["noports", "--version"], Invocation::Version),
            (&["noports", "demon"], Invocation::Unknown("demon".into())),
            (&["sshnpx", "client"], applet("client", 2, None)),
            (&[], Invocation::Help),
        ] {
            assert_eq!(invocation(argv), want, "{argv:?}");
        }
    }

    #[test]
    fn no_name_is_used_twice() {
        let names: Vec<_> = APPLETS
            .iter()
            .flat_map(|a| a.links.iter().chain([&a.name]))
            .collect();
        let mut once = names.clone();
        once.sort();
        once.dedup();
        assert_eq!(once.len(), names.len(), "{names:?}");
    }
}
