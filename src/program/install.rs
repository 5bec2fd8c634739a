//! `noports daemon install`, and the same for the other programs that never end: services of this machine.
//!
//! ```text
//!   install  words ─┬─ ours: --run-as --init …
//!                   └─ the program's ─▶ verify, as whom it will run ──no──▶ the program's own error, nothing done
//!                                          │ yes
//!                     a file from packaging/services ─▶ the service manager ─▶ wait until it is connected
//!   status   file? running? since when? connected?     uninstall   stop, forget; keys, data, sessions stay
//! ```
//!
//! A file that we did not write is never replaced unasked, and the same words twice change nothing.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use argh::FromArgs;

use super::{atserver, daemon, policy, rendezvous};
use crate::{
    cli::{Console, Failure, Progress, exit, print_err, print_out},
    sys::user,
    text::json::Object,
};

use act::Change;
use host::Init;
use plan::{service, service_name, try_out};
use render::Service;

mod act;
mod host;
mod plan;
mod quote;
mod render;
mod status;

pub use status::main as services;

/// How long a new service may take until it is connected, before we say that it is not.
const CONNECTED_WITHIN: Duration = Duration::from_secs(20);
/// Flags of ours that take a value.
const WITH_VALUE: [&str; 4] = ["--run-as", "--init", "--instance", "--destdir"];
const SWITCHES: [&str; 7] = [
    "--dry-run",
    "--print",
    "--force",
    "--no-start",
    "--json",
    "--help",
    "help",
];

/// A program that can be a service.
#[derive(Debug)]
pub struct Program {
    /// Its name among all programs.
    pub name: &'static str,
    /// What stands before its flags.
    serve: &'static [&'static str],
    /// One line for people.
    about: &'static str,
    /// Its flags that name files or folders.
    files: &'static [&'static str],
    /// It serves many at a time.
    many: bool,
    /// It may be told to listen on a port below 1024.
    low_ports: bool,
    /// Whether `status` is ours; else the program has a word of its own for it.
    status: bool,
    verify: fn(&str, &[&str]) -> ExitCode,
}

const PROGRAMS: [Program; 4] = [
    Program {
        name: "daemon",
        serve: &["daemon"],
        about: "waits on this device for sessions",
        files: &["--config", "--keys", "--ca", "--passphrase-file"],
        many: false,
        low_ports: false,
        status: true,
        verify: daemon::verify,
    },
    Program {
        name: "rendezvous",
        serve: &["rendezvous"],
        about: "joins the two ends of sessions",
        files: &["--config", "--keys", "--ca", "--passphrase-file"],
        many: true,
        low_ports: false,
        status: true,
        verify: rendezvous::verify,
    },
    Program {
        name: "policy",
        serve: &["policy", "serve"],
        about: "decides who may use which device",
        files: &["--config", "--keys", "--ca", "--passphrase-file", "--rules"],
        many: false,
        low_ports: false,
        status: true,
        verify: policy::verify,
    },
    Program {
        name: "atserver",
        serve: &["atserver", "serve"],
        about: "hosts atSigns",
        files: &["--config", "--data", "--ca", "--tls-cert", "--tls-key"],
        many: true,
        low_ports: true,
        // Its own `status` asks the server itself.
        status: false,
        verify: atserver::verify,
    },
];

/// Install this program as a service, and start it.
///
/// All other flags are the program's own and are what it will be started with; they are tried before anything is
/// changed. As root it becomes a service of the machine, else one of your own.
#[derive(FromArgs, Debug)]
#[argh(
    example = "{command_name} --as @device --manager @me",
    example = "{command_name} --as @device --manager @me --dry-run",
    error_code(4, "it is installed and runs, but is not connected yet")
)]
struct Args {
    /// user to run as (default: who owns the keys that are named, else who called sudo)
    #[argh(option, arg_name = "user")]
    run_as: Option<String>,
    /// systemd, systemd-user, openrc, procd, launchd, launchd-user or cron (default: what is here)
    #[argh(option, arg_name = "kind")]
    init: Option<String>,
    /// one more service of this program, under this name
    #[argh(option, arg_name = "name")]
    instance: Option<String>,
    /// write below this folder, as for an image, and start nothing
    #[argh(option, arg_name = "dir")]
    destdir: Option<PathBuf>,
    /// say what would be done
    #[argh(switch)]
    dry_run: bool,
    /// print the service's file on stdout, do nothing
    #[argh(switch)]
    print: bool,
    /// replace a file that noports did not write
    #[argh(switch)]
    force: bool,
    /// do not start it, now or at boot
    #[argh(switch)]
    no_start: bool,
    /// one line of JSON on stdout
    #[argh(switch)]
    json: bool,
}

/// Stop this program's service and remove it. Keys and data stay, and so do sessions.
#[derive(FromArgs, Debug)]
struct Uninstall {
    /// the service of this name
    #[argh(option, arg_name = "name")]
    instance: Option<String>,
    /// look below this folder, stop nothing
    #[argh(option, arg_name = "dir")]
    destdir: Option<PathBuf>,
    /// say what would be done
    #[argh(switch)]
    dry_run: bool,
    /// one line of JSON on stdout
    #[argh(switch)]
    json: bool,
}

/// Whether the words of this program ask for its service; if so, does what they ask.
pub fn main(applet: &str, words: &[&str]) -> Option<ExitCode> {
    let program = PROGRAMS.iter().find(|program| program.name == applet)?;
    let (word, rest) = words.split_first()?;
    let name = format!("noports {applet} {word}");
    Some(match *word {
        "install" => install_main(&name, program, rest),
        "uninstall" => uninstall_main(&name, program, rest),
        "status" if program.status => status::of_program(&name, program, rest),
        "verify" => {
            let words = [&program.serve[1..], rest].concat();
            (program.verify)(&format!("noports {applet}"), &words)
        }
        _ => return None,
    })
}

fn install_main(name: &str, program: &'static Program, words: &[&str]) -> ExitCode {
    let mut console = Console::new(name);
    let (ours, theirs) = split(words);
    let args: Args = match console.parse(&ours) {
        Ok(args) => args,
        Err(code) => return code,
    };
    let json = args.json;
    console.finish(json, install(program, &args, &theirs))
}

/// Our words, and the program's.
fn split<'a>(words: &[&'a str]) -> (Vec<&'a str>, Vec<&'a str>) {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let mut words = words.iter().copied();
    while let Some(word) = words.next() {
        if word == "--" {
            theirs.extend(words.by_ref());
        } else if WITH_VALUE.contains(&word) {
            ours.push(word);
            ours.extend(words.next());
        } else if SWITCHES.contains(&word) {
            ours.push(word);
        } else {
            theirs.push(word);
            // What follows a flag may be its value, even if it looks like a word of ours.
            let next = words.clone().next();
            if word.starts_with('-') && next.is_some_and(|next| !next.starts_with('-')) {
                theirs.extend(words.next());
            }
        }
    }
    (ours, theirs)
}

fn install(program: &'static Program, args: &Args, words: &[&str]) -> Result<(), Failure> {
    let init = args.init()?;
    let service = service(program, args, words, init)?;
    let (text, mode) = service.file(init);
    let file = below(
        args.destdir.as_deref(),
        &init.file(&service.name, &service.person),
    );
    let progress = &mut Progress::new(args.print);
    match try_out(&service) {
        // An image gets its keys later.
        Err(failure) if args.destdir.is_none() || failure.code != exit::KEYS => {
            return Err(failure);
        }
        _ => {}
    }
    if args.print {
        return crate::sys::out::text(text).map_err(|why| Failure::plain(why.to_string()));
    }
    let change = act::compare(&file, &text, args.force)?;
    if args.dry_run {
        tell_plan(init, &service, &file, change, args);
        return Ok(());
    }
    if change == Change::None {
        progress.done(format!("{} is as it should be", file.display()));
    } else {
        if args.destdir.is_none() {
            for folder in &service.writes {
                act::folder_for(folder, &service.person)?;
            }
        }
        act::write(&file, &text, mode)?;
        progress.done(format!("wrote {}", file.display()));
    }
    let begun = args.destdir.is_none() && !args.no_start;
    let state = match begun {
        true => Some(begin(
            init,
            &service,
            &file,
            change != Change::None,
            progress,
        )?),
        false => None,
    };
    if args.json {
        print_out(&miniserde::json::to_string(&Installed {
            event: "installed",
            service: &service.name,
            init: init.word(),
            file: &file.display().to_string(),
            user: &service.person.name,
            changed: change != Change::None,
            state: state.as_deref(),
        }));
    }
    Ok(())
}

#[derive(miniserde::Serialize)]
struct Installed<'a> {
    event: &'static str,
    service: &'a str,
    init: &'a str,
    file: &'a str,
    user: &'a str,
    changed: bool,
    state: Option<&'a str>,
}

/// Starts it and waits until it is connected.
fn begin(
    init: Init,
    service: &Service,
    file: &Path,
    changed: bool,
    progress: &mut Progress,
) -> Result<String, Failure> {
    let name = &service.name;
    let state = init.state_file(name, &service.person);
    act::start(init, service, file, changed)?;
    progress.done(format!("{name} is started, now and at every boot"));
    if init == Init::SystemdUser && !host::lingers(&service.person) {
        let who = &service.person.name;
        progress.note(format!(
            "it runs while {who} is logged in; for always: sudo loginctl enable-linger {who}"
        ));
    }
    progress.begin("waiting until it is connected");
    let told = act::wait(&state, CONNECTED_WITHIN);
    let more = format!(
        "noports {} status; the log: {}",
        service.program.name,
        init.log(name, &service.person)
    );
    match told {
        Some(told) if told.state == "connected" => {
            progress.done(format!("connected {}", told.text));
            Ok(told.state)
        }
        Some(told) => {
            let text = format!("{name} runs, but is not connected yet: {}", told.text);
            Err(Failure::new(exit::UNREACHABLE, text).hint(more))
        }
        None => {
            let text = format!("{name} is installed, but does not stay up");
            Err(Failure::plain(text).hint(more))
        }
    }
}

fn tell_plan(init: Init, service: &Service, file: &Path, change: Change, args: &Args) {
    let shown = file.display();
    print_err(&match change {
        Change::New => format!("would write {shown}"),
        Change::Other => format!("would replace {shown}"),
        Change::None => format!("{shown} is as it should be"),
    });
    print_err(&format!(
        "to run, as {}: {}",
        service.person.name,
        quote::line(&service.command(), quote::shell)
    ));
    if args.no_start || args.destdir.is_some() {
        return;
    }
    for step in init.start(&service.name, file, change != Change::None) {
        print_err(&format!("would run {}", step.shown()));
    }
    if init == Init::Cron {
        print_err(&format!(
            "would add it to your crontab and start it: sh {shown}"
        ));
    }
}

impl Args {
    fn init(&self) -> Result<Init, Failure> {
        let me = rustix::process::geteuid();
        let Some(word) = &self.init else {
            return Ok(Init::detect(me.is_root(), me.as_raw(), |path| {
                Path::new(path).exists()
            }));
        };
        let row = Init::ALL.iter().find(|row| row.0 == word);
        let init = row.map(|row| row.1).ok_or_else(|| {
            let words: Vec<_> = Init::ALL.iter().map(|row| row.0).collect();
            Failure::misuse(format!("{word:?} starts no services that we know"))
                .hint(format!("--init {}", words.join(", ")))
        })?;
        let dry = self.print || self.dry_run || self.destdir.is_some();
        if init.is_for_the_machine() && !me.is_root() && !dry {
            return Err(Failure::misuse(format!("only root can install for {word}"))
                .hint("sudo, or without --init for a service of your own"));
        }
        Ok(init)
    }
}

fn uninstall_main(name: &str, program: &'static Program, words: &[&str]) -> ExitCode {
    let mut console = Console::new(name);
    let args: Uninstall = match console.parse(words) {
        Ok(args) => args,
        Err(code) => return code,
    };
    console.finish(args.json, uninstall(program, &args))
}

fn uninstall(program: &'static Program, args: &Uninstall) -> Result<(), Failure> {
    let name = service_name(program, args.instance.as_deref())?;
    let found: Vec<_> = status::installed(args.destdir.as_deref())
        .into_iter()
        .filter(|found| found.name == name)
        .collect();
    let progress = &mut Progress::new(false);
    if found.is_empty() {
        progress.done(format!("{name} is not installed"));
    }
    for found in &found {
        let file = found.file.display();
        if args.dry_run {
            print_err(&format!("would stop {name} and remove {file}"));
            continue;
        }
        if args.destdir.is_some() {
            std::fs::remove_file(&found.file)
                .map_err(|why| Failure::plain(format!("cannot remove {file}: {why}")))?;
        } else {
            let me = user::me().ok_or_else(|| Failure::plain("who are you?"))?;
            act::remove(found.init, &name, &found.file, &me)?;
        }
        progress.done(format!("{name} is stopped, {file} removed"));
    }
    if args.json {
        let removed = found.len();
        let line = Object::event("uninstalled").text("service", &name);
        print_out(&line.raw("removed", removed).end());
    }
    Ok(())
}

/// A path below another one.
fn below(folder: Option<&Path>, path: &Path) -> PathBuf {
    match folder {
        Some(folder) => folder.join(path.strip_prefix("/").unwrap_or(path)),
        None => path.to_owned(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
