//! Our programs that can be services, and what a service manager has to know of each.

/// A program that can be a service.
#[derive(Debug)]
pub struct Program {
    /// Its name among all programs.
    pub name: &'static str,
    /// What stands before its flags.
    pub serve: &'static [&'static str],
    /// One line for people.
    pub(super) about: &'static str,
    /// Its flags that name files or folders.
    pub(super) files: &'static [&'static str],
    /// It serves many at a time.
    pub(super) many: bool,
    /// It may be told to listen on a port below 1024.
    pub(super) low_ports: bool,
}

/// All programs that can be services.
pub static PROGRAMS: [Program; 4] = [
    Program {
        name: "daemon",
        serve: &["daemon"],
        about: "waits on this device for sessions",
        files: &["--config", "--keys", "--ca", "--passphrase-file"],
        many: false,
        low_ports: false,
    },
    Program {
        name: "rendezvous",
        serve: &["rendezvous"],
        about: "joins the two ends of sessions",
        files: &["--config", "--keys", "--ca", "--passphrase-file"],
        many: true,
        low_ports: false,
    },
    Program {
        name: "policy",
        serve: &["policy", "serve"],
        about: "decides who may use which device",
        files: &["--config", "--keys", "--ca", "--passphrase-file", "--rules"],
        many: false,
        low_ports: false,
    },
    Program {
        name: "atserver",
        serve: &["atserver", "serve"],
        about: "hosts atSigns",
        files: &["--config", "--data", "--ca", "--tls-cert", "--tls-key"],
        many: true,
        low_ports: true,
    },
];

impl Program {
    /// The program of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        PROGRAMS.iter().find(|program| program.name == name)
    }
}
