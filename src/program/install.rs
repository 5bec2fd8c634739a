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
//! A file that we did not write is never replaced unasked, and the same words twice change nothing. Where a daemon's atServer
//! is left open to everybody, a line says which words would close it.
//!
//! | as | on | it becomes |
//! | --- | --- | --- |
//! | root | systemd | `/etc/systemd/system/noports-daemon.service`: sandboxed, watched by a watchdog |
//! | root | OpenRC, OpenWrt, macOS | `/etc/init.d/noports-daemon`, a launchd daemon |
//! | yourself | systemd, macOS | a service of your own; `loginctl enable-linger` lets it run without you |
//! | anybody | a machine with cron only | a line in the crontab, and a loop that starts it again; `status` says if that is lost |
//!
//! Without `--run-as`, root's services run as the owner of `--keys`, else as the user who called `sudo`; who listens to strangers
//! (rendezvous, atServer) is never root unless told so, but `noports`, if there is that account. Nothing is written where it could
//! not be started. `--dry-run` says what would be done, `--print` prints the file, `--force` replaces a file of somebody else. A session is a process of its own: it
//! outlives a restart and an upgrade of the daemon, so both can be done through the very session. A service runs once: a
//! second process of it ends at once.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use argh::{ArgsInfo, FromArgs};

use super::{atserver, daemon, policy, rendezvous, service};
use crate::{
    cli::{Console, Failure, Outcome, Progress, exit, print_err},
    service::{
        Manager, Program, Service,
        file::{self, FileChange},
        init::{self, MANAGERS},
        plan::{self, InstallRequest, service_name, try_out},
        process, quote, state,
        unit::Unit,
    },
};

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

/// Looks at a program's words and keys as its start would, and starts nothing.
type Verify = fn(Console, &[&str]) -> ExitCode;
/// That of each program that can be a service.
const VERIFY: [(&str, Verify); 4] = [
    ("daemon", daemon::verify),
    ("rendezvous", rendezvous::verify),
    ("policy", policy::verify),
    ("atserver", atserver::verify),
];

/// Install this program as a service, and start it.
///
/// All other flags are the program's own, and the service is started with them; they are tried before anything is
/// changed. As root it becomes a service of the machine, else one of your own.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(
    example = "noports daemon install --as @kitchen --device pi --manager @alice",
    example = "noports daemon install --as @kitchen --manager @alice --run-as pi --dry-run",
    example = "noports rendezvous install --as @my_rendezvous --host rv.example.org",
    example = "noports rendezvous install --as @my_rendezvous --run-as relay --dry-run",
    example = "noports policy install --as @my_policy --rules /etc/noports/rules.yaml",
    example = "noports atserver install --listen 0.0.0.0 --host at.example.org",
    example = "noports atserver install --data /srv/at --run-as house --print",
    error_code(4, "it is installed and runs, but is not connected yet")
)]
pub(crate) struct Args {
    /// user to run as (default: owner of the file that --keys or --data names, else the user who called sudo; a
    /// rendezvous and an atServer are root's only if this says so)
    #[argh(option, arg_name = "user")]
    run_as: Option<String>,
    /// systemd, systemd-user, openrc, procd, launchd, launchd-user or cron (default: what runs here)
    #[argh(option, arg_name = "kind")]
    init: Option<String>,
    /// install one more service of this program, under this name
    #[argh(option, arg_name = "name")]
    instance: Option<String>,
    /// write below this folder, as for a disk image that will start it at boot, and start nothing
    #[argh(option, arg_name = "dir")]
    destdir: Option<PathBuf>,
    /// show what would be done
    #[argh(switch)]
    dry_run: bool,
    /// print the service's file on stdout, and do nothing
    #[argh(switch)]
    print: bool,
    /// replace a file that noports did not write
    #[argh(switch)]
    force: bool,
    /// do not start the service, now or at boot
    #[argh(switch)]
    no_start: bool,
    /// print results as JSON lines on stdout
    #[argh(switch)]
    json: bool,
}

/// Stop and remove this program's service. Keys and data stay, and sessions go on.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(
    example = "{command_name}",
    example = "{command_name} --dry-run",
    example = "{command_name} --instance lab"
)]
pub(crate) struct Uninstall {
    /// remove the service of this name
    #[argh(option, arg_name = "name")]
    instance: Option<String>,
    /// look below this folder, and stop nothing
    #[argh(option, arg_name = "dir")]
    destdir: Option<PathBuf>,
    /// show what would be done
    #[argh(switch)]
    dry_run: bool,
    /// print results as JSON lines on stdout
    #[argh(switch)]
    json: bool,
}

/// Whether the words of this program ask for its service; if so, does what they ask.
pub fn main(console: &Console, applet: &str, words: &[&str]) -> Option<ExitCode> {
    let program = Program::named(applet)?;
    let (word, rest) = words.split_first()?;
    let console = console.clone();
    Some(match *word {
        "install" => install_main(console.word(word), program, rest),
        "uninstall" => uninstall_main(console.word(word), program, rest),
        // With a folder, and where it is no service, the atServer's own `status` asks the server itself.
        "status" if applet != "atserver" || service::is_known(program, rest) => {
            service::of_program(console.word(word), program, rest)
        }
        "verify" => {
            let (_, verify) = VERIFY.iter().find(|row| row.0 == applet)?;
            let words = [&program.serve[1..], rest].concat();
            verify(console, &words)
        }
        _ => return None,
    })
}

fn install_main(console: Console, program: &'static Program, words: &[&str]) -> ExitCode {
    let (ours, theirs) = split(words);
    console.act(&ours, |console, args: Args| {
        let installed = install(console, program, &args, &theirs);
        let does_run = installed.is_ok() && !args.print && !args.dry_run;
        if let Some(proposal) = proposal(program, words).filter(|_| does_run) {
            Progress::new(false).note(proposal);
        }
        console.finish(args.json, installed)
    })
}

/// How to keep everybody else away from a device, unless that is done.
fn proposal(program: &Program, words: &[&str]) -> Option<String> {
    let is_open = !words.iter().any(|word| word.starts_with("--only-managers"));
    (program.name == "daemon" && is_open).then(|| {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        format!(
            "anybody may write to this device's atServer; to its managers and your rendezvous only it listens, where it keeps \
             an allow list, with: noports daemon install {} --only-managers --rendezvous @RENDEZVOUS",
            quote::line(&words, quote::shell)
        )
    })
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

fn install(
    console: &Console,
    program: &'static Program,
    args: &Args,
    words: &[&str],
) -> Result<(), Failure> {
    let manager = args.manager()?;
    let service = plan::service(&InstallRequest {
        program,
        words,
        manager,
        run_as: args.run_as.as_deref(),
        instance: args.instance.as_deref(),
        destdir: args.destdir.as_deref(),
    })?;
    let text = manager.render(&service);
    let file = service.unit.file.display();
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
    if args.destdir.is_none() && !args.no_start {
        manager.works_here(&service.unit.person)?;
    }
    let change = file::compare(&service.unit.file, &text, args.force)?;
    let changed = change != FileChange::None;
    let outcome = |event| {
        Outcome::new(event)
            .with("service", &service.unit.name)
            .with("init", manager.word())
            .with("file", &file.to_string())
            .with("user", &service.unit.person.name)
            .raw("changed", changed)
    };
    if args.dry_run {
        tell_plan(manager, &service, change, args);
        if args.json {
            console.tell(true, outcome("planned"));
        }
        return Ok(());
    }
    if changed {
        if args.destdir.is_none() {
            for folder in &service.writes {
                file::folder_for(folder, &service.unit.person)?;
            }
        }
        file::write(&service.unit.file, &text)?;
        progress.done(format!("wrote {file}"));
    } else {
        progress.done(format!("{file} is up to date"));
    }
    if args.destdir.is_some() && !args.no_start {
        at_boot(manager, &service.unit, progress)?;
    }
    let state = if args.destdir.is_none() && !args.no_start {
        Some(begin(manager, &service, changed, progress)?)
    } else {
        None
    };
    let outcome = outcome("installed").maybe("state", state.as_deref());
    console.tell(args.json, outcome);
    Ok(())
}

/// Lets an image start it.
fn at_boot(
    manager: &'static dyn Manager,
    unit: &Unit,
    progress: &mut Progress,
) -> Result<(), Failure> {
    let Some(link) = manager.boot_link(unit) else {
        // launchd starts what lies there.
        if manager.word() == "cron" {
            let file = manager.file(&unit.name, &unit.person);
            progress.note(format!(
                "to start it at boot, its crontab needs: @reboot /bin/sh {}",
                quote::shell(&file.display().to_string())
            ));
        }
        return Ok(());
    };
    file::link(&link, &manager.file(&unit.name, &unit.person))?;
    progress.done(format!("linked {}: it starts at boot", link.display()));
    Ok(())
}

/// Starts it and waits until it is connected.
fn begin(
    manager: &'static dyn Manager,
    service: &Service,
    changed: bool,
    progress: &mut Progress,
) -> Result<String, Failure> {
    let unit = &service.unit;
    let name = &unit.name;
    let there = state::InstalledService {
        unit: unit.clone(),
        manager,
    };
    if let Some(what) = there.would_end().filter(|_| changed) {
        progress.note(format!("{name} is started anew, which ends {what}"));
    }
    manager.start(unit, changed)?;
    progress.done(format!("{name} is started, and will start at every boot"));
    if let Some(note) = manager.note(&unit.person) {
        progress.note(note);
    }
    progress.begin("waiting until it is connected");
    let told = process::wait(&manager.state(unit), CONNECTED_WITHIN);
    let (program, log) = (service.program.name, manager.log(unit));
    let more = format!("noports {program} status; its log: {log}");
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
            let text = format!("{name} is installed, but keeps stopping");
            Err(Failure::plain(text).hint(more))
        }
    }
}

fn tell_plan(manager: &dyn Manager, service: &Service, change: FileChange, args: &Args) {
    let unit = &service.unit;
    let shown = unit.file.display();
    print_err(&match change {
        FileChange::New => format!("would write {shown}"),
        FileChange::Other => format!("would replace {shown}"),
        FileChange::None => format!("{shown} is up to date"),
    });
    print_err(&format!(
        "to run as {}: {}",
        unit.person.name,
        quote::line(&service.command(), quote::shell)
    ));
    if args.no_start || args.destdir.is_some() {
        return;
    }
    for line in manager.plan(unit, change != FileChange::None) {
        print_err(&line);
    }
}

impl Args {
    fn manager(&self) -> Result<&'static dyn Manager, Failure> {
        let me = rustix::process::geteuid();
        let Some(word) = &self.init else {
            return Ok(init::detect(me.is_root(), me.as_raw(), |path| {
                Path::new(path).exists()
            }));
        };
        let manager = init::named(word).ok_or_else(|| {
            let words = MANAGERS.map(Manager::word);
            Failure::misuse(format!("unknown service manager {word:?}"))
                .hint(format!("--init takes {}", words.join(", ")))
        })?;
        let dry = self.print || self.dry_run || self.destdir.is_some();
        if manager.is_for_the_machine() && !me.is_root() && !dry {
            return Err(Failure::misuse(format!("only root can install for {word}"))
                .hint("run it with sudo, or without --init for a service of your own"));
        }
        Ok(manager)
    }
}

fn uninstall_main(console: Console, program: &'static Program, words: &[&str]) -> ExitCode {
    console.act(words, |console, args: Uninstall| {
        console.finish(args.json, uninstall(console, program, &args))
    })
}

fn uninstall(
    console: &Console,
    program: &'static Program,
    args: &Uninstall,
) -> Result<(), Failure> {
    let name = service_name(program, args.instance.as_deref())?;
    let mut found = state::installed(args.destdir.as_deref());
    found.retain(|found| found.unit.name == name);
    let progress = &mut Progress::new(false);
    if found.is_empty() {
        progress.done(format!("{name} is not installed"));
    }
    for state::InstalledService { unit, manager } in &found {
        let file = unit.file.display();
        if args.dry_run {
            print_err(&format!("would stop {name} and remove {file}"));
            continue;
        }
        if args.destdir.is_some() {
            file::remove(&unit.file)?;
            let _ = manager.boot_link(unit).map(std::fs::remove_file);
        } else {
            manager.remove(unit)?;
        }
        progress.done(format!("{name} is stopped, {file} removed"));
    }
    let outcome = Outcome::new("uninstalled")
        .with("service", &name)
        .raw("removed", found.len());
    console.tell(args.json, outcome);
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crate::{program::install::*, service::programs::PROGRAMS};

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
    fn a_device_that_is_open_to_all_is_told_the_command_that_closes_it() {
        let named = |name| Program::named(name).unwrap();
        let words = ["--run-as", "pi", "--as", "@d", "--manager", "@m,@n o"];
        let told = proposal(named("daemon"), &words).unwrap();
        let want = "noports daemon install --run-as pi --as @d --manager '@m,@n o' --only-managers --rendezvous @RENDEZVOUS";
        assert!(told.ends_with(want), "{told}");
        let closed = [&words[..], &["--only-managers"]].concat();
        assert_eq!(proposal(named("daemon"), &closed), None);
        assert_eq!(proposal(named("rendezvous"), &words), None);
    }

    #[test]
    fn every_service_can_be_verified() {
        let names = PROGRAMS.each_ref().map(|program| program.name);
        assert_eq!(VERIFY.map(|row| row.0), names);
    }

    #[test]
    fn a_service_manager_that_is_none_is_turned_away() {
        let args = Args::from_args(&["x"], &["--init", "upstart"]).unwrap();
        let failure = args.manager().err().unwrap();
        assert_eq!(failure.code, exit::MISUSE);
        let all = "--init takes systemd, systemd-user, openrc, procd, launchd, launchd-user, cron";
        assert_eq!(failure.hint.as_deref(), Some(all));
    }
}
