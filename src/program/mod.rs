//! One file per program; each reads top to bottom as its story.
//!
//! The executable acts on the name it is called by (a link called `sshnpd` is the daemon), else on its
//! first word (`noports daemon`). Names are compared whole: `sshnp` is a prefix of `sshnpd`.
//!
//! | what | programs | what they share |
//! | --- | --- | --- |
//! | sessions | [`client`] [`tunnel`] [`devices`] [`sessions`] | [`ask`](crate::session::ask), [`launch`](crate::session::launch) |
//! | the other ends | [`daemon`] [`rendezvous`] [`policy`] [`bridge`] | [`online`](crate::session::online), [`authorise`](crate::session::authorise) |
//! | keys and rights | [`activate`] [`at_activate`] [`enroll`] [`keys`] [`access`] [`trust`] | [`keystore`](crate::cli::keystore) |
//! | hosting | [`atserver`] | |
//! | this machine | [`install`] [`service`] | [`service`](crate::service) |
//! | about itself | [`docs`] [`selftest`] [`verify`] [`demo`] | |
//!
//! [`cli`] is under all of them: flags, files of flags, the environment, classic words, failures, progress.

use std::{
    ffi::{OsStr, OsString},
    path::Path,
    process::ExitCode,
};

use argh::ArgsInfo;

use crate::cli::{
    self, Console, Failure,
    grammar::{Grammar, Program, Word, word},
    misuse::{Correction, replayed},
    near::{alike, meant, nearest},
};
use crate::sys::panics;

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
mod published;
pub mod rendezvous;
pub mod selftest;
pub mod service;
pub mod sessions;
pub mod trust;
pub mod tunnel;
pub mod verify;

/// Words of a program that can be a service of the machine.
const OF_SERVICE: &[Word] = &[INSTALL, UNINSTALL, STATUS];
const INSTALL: Word = word::<install::Args>(
    "install",
    "install it as a service of this machine, and start it",
);
const UNINSTALL: Word = word::<install::Uninstall>("uninstall", "stop and remove the service");
const STATUS: Word =
    word::<service::OfProgram>("status", "show whether the service runs and is connected");

/// A row for each program: its room, names of links, words of its own, and a line about it.
macro_rules! programs {
    ($($room:ident [$($link:literal)*] $words:expr, $about:literal;)*) => {
        /// All programs, in the order a newcomer meets them.
        pub static PROGRAMS: &[Program] = &[$(Program {
            name: stringify!($room),
            links: &[$($link),*],
            about: $about,
            info: $room::Args::get_args_info,
            words: $words,
            main: $room::main,
        }),*];
    };
}

programs! {
    demo [] &[], "show all of it on this machine: atServer, device, client, ssh";
    client ["sshnp"] &[], "open an ssh session to a device";
    tunnel ["npt"] &[], "make a TCP port near a device reachable on a local port";
    daemon ["sshnpd"] OF_SERVICE, "accept sessions on a device without opening a port";
    devices [] &[], "list the devices you may use, and show which answer";
    sessions [] sessions::WORDS, "list the sessions that are open on this machine, end them";
    rendezvous ["srvd" "sshrvd"] OF_SERVICE, "relay sessions: join two outbound connections";
    policy ["npp_file" "npp_atserver"] OF_SERVICE, "decide for daemons who may use them";
    activate ["at_activate"] &[], "make the first keys of an atSign";
    enroll [] enroll::WORDS, "enrolment: keys for one more device; approve, revoke";
    keys [] keys::WORDS, "protect a key file with a pass phrase";
    access [] access::WORDS, "decide whom the atServer of your atSign lets in";
    trust [] &[], "believe a new key of somebody, show which are believed";
    atserver [] &[INSTALL, UNINSTALL], "host atSigns yourself: atDirectory and atServers";
    service [] &[], "show or restart the services of this machine";
    docs [] &[], "write manual pages and shell completions";
    bridge ["srv" "sshrv"] &[], "carry one session (client and daemon start it)";
    selftest [] &[], "";
    verify [] &[], "";
}

/// What people call programs of ours by other names.
const ALSO: &[(&str, &str)] = &[
    ("ssh", "client"),
    ("connect", "client"),
    ("sshd", "daemon"),
    ("up", "daemon"),
    ("relay", "rendezvous"),
    ("rvd", "rendezvous"),
    ("forward", "tunnel"),
    ("list", "devices"),
    ("ls", "devices"),
    ("server", "atserver"),
    ("login", "enroll"),
    ("register", "enroll"),
    ("start", "service restart"),
    ("restart", "service restart"),
    ("status", "service status"),
    ("install", "daemon install"),
    ("completion", "docs"),
    ("man", "docs man"),
    ("otp", "enroll otp"),
    ("backup", "atserver backup"),
    ("serve", "atserver serve"),
];

/// What a program does by itself, and people write as a word behind its name.
const BY_ITSELF: &[(&str, &str)] = &[
    ("devices", "list"),
    ("sessions", "list"),
    ("daemon", "serve"),
    ("rendezvous", "serve"),
    ("enroll", "request"),
];

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
enum Invocation {
    /// A program by its name among [`PROGRAMS`], and how many words of argv that name took.
    Own(&'static str, usize),
    /// A classic link, and the same.
    Classic(&'static str, usize),
    /// Help about a program, with the words behind its name.
    HelpOn(&'static str, Vec<String>),
    Help,
    Version,
    Unknown,
}

fn pick(argv: &[&str]) -> Invocation {
    let link = argv
        .first()
        .and_then(|path| Path::new(path).file_stem())
        .and_then(OsStr::to_str);
    if let Some(link) = link.and_then(by_link) {
        return Invocation::Classic(link, 1);
    }
    match argv.get(1).copied() {
        None | Some("--help" | "-h") => Invocation::Help,
        Some("version" | "--version" | "-V") => Invocation::Version,
        Some("help") => match argv.get(2).map(|word| (by_name(word), by_link(word))) {
            None => Invocation::Help,
            Some((Some(program), _)) => {
                // Only a word of that program has help of its own; nothing behind "help" is done.
                let own = PROGRAMS.iter().find(|one| one.name == program);
                let is_its = |word: &&&str| own.is_some_and(|program| program.takes(word));
                let more = argv.get(3).filter(is_its);
                Invocation::HelpOn(
                    program,
                    more.map(|&word| word.to_owned()).into_iter().collect(),
                )
            }
            Some((None, Some(link))) => Invocation::Classic(link, 2),
            Some((None, None)) => Invocation::Unknown,
        },
        Some(word) => match (by_name(word), by_link(word)) {
            (Some(program), _) => Invocation::Own(program, 2),
            (None, Some(link)) => Invocation::Classic(link, 2),
            (None, None) => Invocation::Unknown,
        },
    }
}

fn by_name(word: &str) -> Option<&'static str> {
    let mut names = PROGRAMS.iter().map(|program| program.name);
    names.find(|name| *name == word)
}

fn by_link(word: &str) -> Option<&'static str> {
    let mut links = PROGRAMS.iter().flat_map(|program| program.links);
    links.find(|link| **link == word).copied()
}

/// Runs the program that argv names. Nothing is fine where somebody waits for results that could not be written.
pub fn main(argv: impl Iterator<Item = OsString>) -> ExitCode {
    panics::tell_in_short();
    let code = run(&argv.collect::<Vec<_>>());
    if code == ExitCode::SUCCESS && cli::is_output_lost() {
        ExitCode::from(cli::exit::FAILED)
    } else {
        code
    }
}

fn run(argv: &[OsString]) -> ExitCode {
    let argv = match text(argv).and_then(|argv| variables_are_text().map(|()| argv)) {
        Ok(argv) => argv,
        Err(failure) => {
            let words: Vec<_> = argv.iter().map(|word| word.to_string_lossy()).collect();
            let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
            let console = Console::new("noports").heard(&words);
            return console.finish(false, Err(failure));
        }
    };
    let argv = match &argv[..] {
        // Nothing behind it is a flag anyway.
        [own, "help", "--", rest @ ..] => [&[*own, "help"], rest].concat(),
        _ => argv,
    };
    match pick(&argv) {
        Invocation::Own(name, used) => start(name, &argv[used..]),
        Invocation::Classic("at_activate", 2) if argv.get(1) == Some(&"help") => {
            at_activate::main(&[&["help"], &argv[3..]].concat())
        }
        Invocation::Classic("at_activate", used) => at_activate::main(&argv[used..]),
        Invocation::Classic(link, used) if argv.get(1) == Some(&"help") && used == 2 => {
            start_classic(link, &["--help"])
        }
        Invocation::Classic(link, used) => start_classic(link, &argv[used..]),
        Invocation::HelpOn(name, more)
            if argv
                .get(3 + more.len())
                .is_some_and(|word| !word.starts_with('-')) =>
        {
            let why = format!("{:?} is no word of this program", argv[3 + more.len()]);
            let hint = format!("noports help {name}");
            Console::new("noports help").finish(false, Err(Failure::misuse(why).hint(hint)))
        }
        Invocation::HelpOn(name, more) => {
            let more = more.iter().map(String::as_str).chain(["--help"]);
            start(name, &more.collect::<Vec<_>>())
        }
        Invocation::Help => {
            cli::print_out(&overview());
            ExitCode::from(cli::exit::FINE)
        }
        Invocation::Version => {
            cli::print_out(concat!("noports ", env!("CARGO_PKG_VERSION")));
            if matches!(argv.get(2), Some(&("--verbose" | "-v"))) {
                cli::print_out(&origin());
            }
            ExitCode::from(cli::exit::FINE)
        }
        Invocation::Unknown => {
            let words = argv.get(1..).unwrap_or_default();
            let console = Console::new("noports").heard(words);
            let named = words.strip_prefix(&["help"]).unwrap_or(words);
            console.finish(false, Err(unknown(named)))
        }
    }
}

/// What it was made of, as packaging/build-static.sh tells while it is compiled.
fn origin() -> String {
    let machine = format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS);
    let features = [
        ("inside", cfg!(feature = "inside")),
        ("held", cfg!(feature = "held")),
    ];
    let features: Vec<_> = features
        .iter()
        .filter(|row| row.1)
        .map(|row| row.0)
        .collect();
    format!(
        "commit    {}\ntarget    {}\nfeatures  {}",
        option_env!("NOPORTS_COMMIT").unwrap_or("unknown"),
        option_env!("NOPORTS_TARGET").unwrap_or(&machine),
        features.join(" "),
    )
}

/// The words as text; the first that is none is named by its place.
fn text(argv: &[OsString]) -> Result<Vec<&str>, Failure> {
    let words = argv.iter().enumerate().map(|(at, word)| {
        let shown = word.to_string_lossy();
        word.to_str()
            .ok_or_else(|| Failure::misuse(format!("word {at} is not UTF-8 text: {shown:?}")))
    });
    words.collect()
}

/// One that is no text would count as not set, and another directory be asked, or another key taken.
fn variables_are_text() -> Result<(), Failure> {
    let mut all = std::env::vars_os();
    let broken = all.find(|(name, value)| {
        name.as_encoded_bytes().starts_with(b"NOPORTS_") && value.to_str().is_none()
    });
    broken.map_or(Ok(()), |(name, _)| {
        let name = name.to_string_lossy();
        Err(
            Failure::misuse(format!("the variable {name} is not UTF-8 text"))
                .hint(format!("unset {name}")),
        )
    })
}

fn start(name: &'static str, words: &[&str]) -> ExitCode {
    let Some(program) = PROGRAMS.iter().find(|program| program.name == name) else {
        return ExitCode::from(cli::exit::FAILED);
    };
    let console = Console::new(format!("noports {name}"))
        .among(PROGRAMS)
        .heard(words);
    if let Some(failure) = wrong_word(program, words) {
        return console.finish(false, Err(failure));
    }
    install::main(&console, name, words).unwrap_or_else(|| (program.main)(console, words))
}

/// A first word that is none of this program's, but means what it does, is near to one, or is one of another program.
fn wrong_word(program: &'static Program, words: &[&str]) -> Option<Failure> {
    let (first, rest) = words.split_first()?;
    if first.starts_with(['-', '@']) || program.takes(first) || *first == "help" {
        return None;
    }
    let grammar = Grammar::of_program(program);
    let failure = Failure::misuse(format!("this program has no word {first:?}"));
    let by_itself = |row: &(&str, &str)| row.0 == program.name && alike(first).contains(&row.1);
    if BY_ITSELF.iter().any(by_itself) {
        return Some(failure.hint(correction(&grammar, program).named(rest)));
    }
    if let Some(own) = meant(first, program.words.iter().map(|word| word.name)) {
        return Some(failure.hint(replayed(&format!("{} {own}", grammar.name), rest)));
    }
    // Whoever takes plain words may mean this one.
    let known = grammar.words().iter().map(|row| row.0);
    if grammar.positionals().next().is_some() || meant(first, known).is_some() {
        return None;
    }
    let is_other = |other: &&Program| !other.about.is_empty() && other.takes(first);
    let mut others = PROGRAMS.iter().filter(is_other);
    let other = others.next().filter(|_| others.next().is_none())?;
    let why = format!("{first:?} belongs to another program");
    let line = replayed(&format!("noports {} {first}", other.name), rest);
    Some(Failure::misuse(why).hint(line))
}

/// No program has this name: which one may be meant?
fn unknown(words: &[&str]) -> Failure {
    let Some((first, rest)) = words.split_first() else {
        return Failure::misuse("no program given").hint("noports help");
    };
    if ["--help=", "--version="]
        .iter()
        .any(|flag| first.starts_with(flag))
    {
        let flag = first.split('=').next().unwrap_or_default();
        return Failure::misuse(format!("{flag} takes no value")).hint(format!("noports {flag}"));
    }
    if first.starts_with('-') {
        let failure = Failure::misuse(format!("a program's name must come before {first}"));
        let at = words.iter().position(|word| by_name(word).is_some());
        return match at {
            Some(at) => {
                let flags = [&words[..at], &words[at + 1..]].concat();
                failure.hint(replayed(&format!("noports {}", words[at]), &flags))
            }
            None => failure.hint("noports help"),
        };
    }
    let failure = Failure::misuse(format!("there is no program {first:?}"));
    let also = ALSO.iter().find(|row| row.0 == *first).map(|row| row.1);
    // Who knows ssh names the device first.
    let (also, rest) = if first.contains('@') {
        (Some("client"), words)
    } else {
        (also, rest)
    };
    let shown = PROGRAMS.iter().filter(|program| !program.about.is_empty());
    let near = nearest(first, shown.map(|program| program.name));
    match also.or_else(|| near.first().copied()) {
        Some("client") if rest.is_empty() => failure.hint("noports client --to @device"),
        Some(name) => match PROGRAMS.iter().find(|program| program.name == name) {
            Some(program) => {
                failure.hint(correction(&Grammar::of_program(program), program).named(rest))
            }
            None => failure.hint(format!("noports {name}")),
        },
        None => failure.hint("noports help"),
    }
}

fn correction<'a>(grammar: &'a Grammar, program: &'static Program) -> Correction<'a> {
    Correction {
        grammar,
        programs: PROGRAMS,
        program: program.name,
    }
}

fn start_classic(link: &'static str, words: &[&str]) -> ExitCode {
    let (console, program, words) = match Console::classic(link, words) {
        Ok(understood) => understood,
        Err(code) => return code,
    };
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match PROGRAMS.iter().find(|own| own.name == program) {
        Some(own) => (own.main)(console.among(PROGRAMS), &words),
        None => ExitCode::from(cli::exit::FAILED),
    }
}

fn overview() -> String {
    let mut text = String::from(
        "noports reaches a device that has no open port.\n\n\
         Usage: noports PROGRAM [flags]      noports help PROGRAM shows its flags\n\n",
    );
    for program in PROGRAMS.iter().filter(|own| !own.about.is_empty()) {
        let links = if program.links.is_empty() {
            String::new()
        } else {
            format!("  [{}]", program.links.join(", "))
        };
        text += &format!("  {:<11} {}{links}\n", program.name, program.about);
    }
    text + "\nAn atSign, such as @alice, is an account; its atServer passes messages on. A\n\
            rendezvous is a relay that both ends of a session dial. More: man noports\n\n\
            A name in brackets starts the same program, with the flags of the original.\n\
            Start with: noports demo"
}

#[cfg(test)]
mod tests {
    use crate::program::*;

    #[test]
    fn link_name_wins_then_first_word() {
        let own = Invocation::Own;
        let classic = Invocation::Classic;
        for (argv, want) in [
            (&["/usr/bin/noports", "daemon"][..], own("daemon", 2)),
            (&["/usr/bin/sshnpd", "client"], classic("sshnpd", 1)),
            (&["sshnp"], classic("sshnp", 1)),
            (&["./sshrvd"], classic("sshrvd", 1)),
            (&["srvd"], classic("srvd", 1)),
            (&["srv"], classic("srv", 1)),
            (&["sshrv", "-h", "x"], classic("sshrv", 1)),
            (&["at_activate"], classic("at_activate", 1)),
            (&["npp_atserver"], classic("npp_atserver", 1)),
            (&["noports", "sshnpd"], classic("sshnpd", 2)),
            (&["npt"], classic("npt", 1)),
            (&["noports", "tunnel"], own("tunnel", 2)),
            (&["noports"], Invocation::Help),
            (&["noports", "--version"], Invocation::Version),
            (&["noports", "demon"], Invocation::Unknown),
            (&["sshnpx", "client"], own("client", 2)),
            (&[], Invocation::Help),
        ] {
            assert_eq!(pick(argv), want, "{argv:?}");
        }
    }

    #[test]
    fn no_name_is_used_twice() {
        let names: Vec<_> = PROGRAMS
            .iter()
            .flat_map(|a| a.links.iter().chain([&a.name]))
            .collect();
        let mut once = names.clone();
        once.sort();
        once.dedup();
        assert_eq!(once.len(), names.len(), "{names:?}");
    }
}
