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
    os::unix::{fs::MetadataExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::Duration,
};

use argh::FromArgs;

use super::{
    atserver,
    common::{self, Failure, Progress, exit, print_err, print_out},
    daemon, policy, rendezvous,
};
use crate::sys::{user, user::Person};

use act::Change;
use host::Init;
use render::Service;

mod act;
mod host;
mod quote;
mod render;
mod status;

pub use status::main as services;

/// How long a new service may take until it is connected, before we say that it is not.
const CONNECTED_WITHIN: Duration = Duration::from_secs(20);
/// What a service would not inherit from the person who installs it, and needs.
const VARIABLES: [&str; 5] = [
    "NOPORTS_ROOT",
    "NOPORTS_CA",
    "NOPORTS_AS",
    "NOPORTS_KEYS",
    "NOPORTS_CONFIG",
];
/// Those of them that are paths.
const PATHS: [&str; 3] = ["NOPORTS_CA", "NOPORTS_KEYS", "NOPORTS_CONFIG"];
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
    let (ours, theirs) = split(words);
    let args: Args = match common::parse(name, &ours) {
        Ok(args) => args,
        Err(code) => return code,
    };
    let json = args.json;
    common::finish(name, json, install(program, &args, &theirs))
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
    if changed {
        let _ = std::fs::remove_file(&state);
    }
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

/// The service that the words ask for.
fn service(
    program: &'static Program,
    args: &Args,
    words: &[&str],
    init: Init,
) -> Result<Service, Failure> {
    let mut words = whole_paths(program, words)?;
    let person = person(program, args.run_as.as_deref(), &words, init)?;
    let mut writes = Vec::new();
    match program.name {
        "atserver" => writes.push(data_folder(&mut words, init, &person)),
        // Sessions may bring keys for authorized_keys along.
        "daemon" => writes.push(person.home.join(".ssh")),
        _ => {}
    }
    // A home that is not there is not made either: such a user has no sshd to let anybody in for.
    if program.name == "daemon" && person.home.is_dir() {
        // Keys of sessions, in authorized_keys; and those to log in to clients with.
        writes.push(person.home.join(".ssh"));
        if words.iter().any(|word| word == "--reverse-ssh") {
            writes.push(person.home.join(".sshnp"));
        }
    }
    let executable = std::env::current_exe()
        .map_err(|why| Failure::plain(format!("cannot find this program's own file: {why}")))?;
    let environment = environment(|name| std::env::var(name).ok());
    let serve = program.serve.iter().map(|word| (*word).to_owned());
    let service = Service {
        program,
        name: service_name(program, args.instance.as_deref())?,
        executable,
        words: serve.chain(words).collect(),
        environment,
        person,
        writes,
    };
    let values = service.environment.iter().map(|row| &row.1);
    let command = service.command();
    if let Some(word) = command
        .iter()
        .chain(values)
        .find(|word| !quote::plain(word))
    {
        return Err(Failure::misuse(format!(
            "{word:?} cannot stand in a service's file"
        )));
    }
    Ok(service)
}

/// What the service would not inherit; with whole paths, as its words.
fn environment(env: impl Fn(&str) -> Option<String>) -> Vec<(&'static str, String)> {
    let whole = |list: String| {
        let paths = std::env::split_paths(&list).filter(|path| !path.as_os_str().is_empty());
        let paths = paths.map(|path| std::path::absolute(&path).unwrap_or(path));
        let joined = std::env::join_paths(paths).ok();
        joined.map_or(list.clone(), |all| all.to_string_lossy().into_owned())
    };
    let set = |name: &&'static str| {
        let value = env(name).filter(|value| !value.is_empty())?;
        Some((
            *name,
            if PATHS.contains(name) {
                whole(value)
            } else {
                value
            },
        ))
    };
    VARIABLES.iter().filter_map(set).collect()
}

fn service_name(program: &Program, instance: Option<&str>) -> Result<String, Failure> {
    let name = format!("noports-{}", program.name);
    let Some(instance) = instance else {
        return Ok(name);
    };
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if instance.is_empty() || instance.len() > 32 || !instance.chars().all(fits) {
        return Err(
            Failure::misuse(format!("{instance:?} is no name for a service"))
                .hint("--instance takes up to 32 of a-z, 0-9 and _"),
        );
    }
    Ok(format!("{name}-{instance}"))
}

/// A service starts in another folder, so paths are made whole.
fn whole_paths(program: &Program, words: &[&str]) -> Result<Vec<String>, Failure> {
    let mut path = false;
    let mut whole = Vec::new();
    for word in words {
        whole.push(match path {
            true => std::path::absolute(word)
                .map_err(|why| Failure::misuse(format!("{word:?} is no path: {why}")))?
                .display()
                .to_string(),
            false => (*word).to_owned(),
        });
        path = !path && program.files.contains(word);
    }
    Ok(whole)
}

fn value_of<'a>(words: &'a [String], flag: &str) -> Option<&'a str> {
    let at = words.iter().position(|word| word == flag)?;
    words.get(at + 1).map(String::as_str)
}

/// Whom the service runs as: a daemon's clients log in as that user.
fn person(
    program: &Program,
    flag: Option<&str>,
    words: &[String],
    init: Init,
) -> Result<Person, Failure> {
    let nobody =
        || Failure::misuse("this account is not in the list of users").hint("--run-as USER");
    let me = user::me().ok_or_else(nobody)?;
    let known = |name: &str| {
        user::by_name(name)
            .or_else(|| (name == me.name).then(|| me.clone()))
            .ok_or_else(|| Failure::misuse(format!("there is no user {name:?} here")))
    };
    let person = match flag {
        Some(name) => known(name)?,
        None if !init.is_for_the_machine() || me.uid != 0 => me.clone(),
        None => {
            let flags = ["--keys", "--data"];
            let file = flags.iter().find_map(|flag| value_of(words, flag));
            let owner = file.and_then(|file| std::fs::metadata(file).ok());
            let owner = owner.and_then(|owner| user::by_number(owner.uid()));
            let caller = std::env::var("SUDO_USER")
                .ok()
                .and_then(|name| user::by_name(&name));
            owner.or(caller).unwrap_or_else(|| me.clone())
        }
    };
    if !init.is_for_the_machine() && person.uid != me.uid {
        return Err(Failure::misuse(format!(
            "a service of {}'s own is installed by {}",
            person.name, person.name
        ))
        .hint(format!(
            "su {} -c 'noports {} install …'",
            person.name, program.name
        )));
    }
    let fits = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    if !person.name.chars().all(fits) || person.name.starts_with('-') {
        return Err(Failure::misuse(format!(
            "{:?} is no user name we can write down",
            person.name
        )));
    }
    Ok(person)
}

/// Where the atServer's data are: said in so many words, so that the service may write there and nowhere else.
fn data_folder(words: &mut Vec<String>, init: Init, person: &Person) -> PathBuf {
    if let Some(folder) = value_of(words, "--data") {
        return folder.into();
    }
    if let Some(folder) = data_in_file(words, person) {
        return folder;
    }
    let named = std::env::var_os("NOPORTS_DATA").filter(|value| !value.is_empty());
    let folder = match named {
        Some(folder) => std::path::absolute(&folder).unwrap_or_else(|_| folder.into()),
        None if init.is_for_the_machine() => "/var/lib/noports/atserver".into(),
        None => person.home.join(".local/share/noports/atserver"),
    };
    words.extend(["--data".to_owned(), folder.display().to_string()]);
    folder
}

/// The same where a file of flags says it.
fn data_in_file(words: &[String], person: &Person) -> Option<PathBuf> {
    let named = value_of(words, "--config").map(PathBuf::from);
    let named = named.or_else(|| std::env::var_os("NOPORTS_CONFIG").map(PathBuf::from));
    let file = "noports/atserver.conf";
    let usual = [
        person.home.join(".config").join(file),
        Path::new("/etc").join(file),
    ];
    let file = named.or_else(|| usual.into_iter().find(|file| file.exists()))?;
    let text = std::fs::read_to_string(file).ok()?;
    let mut lines = text
        .lines()
        .map(|line| line.trim().split_once(char::is_whitespace));
    let value = lines
        .find_map(|line| line.filter(|(name, _)| *name == "data"))?
        .1
        .trim();
    Some(match value.strip_prefix("~/") {
        Some(rest) => person.home.join(rest),
        None => value.into(),
    })
}

/// Lets the program itself look at its words and keys, as whom it will run.
fn try_out(service: &Service) -> Result<(), Failure> {
    let mut command = Command::new(&service.executable);
    let skip = service.program.serve.len();
    command
        .args([service.program.name, "verify"])
        .args(&service.words[skip..])
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("HOME", &service.person.home)
        .env("USER", &service.person.name)
        .envs(
            service
                .environment
                .iter()
                .map(|(name, value)| (*name, value)),
        )
        .current_dir("/")
        .stdin(Stdio::null());
    if rustix::process::geteuid().is_root() && service.person.uid != 0 {
        command.uid(service.person.uid).gid(service.person.gid);
    }
    let who = &service.person.name;
    let done = command.output().map_err(|why| {
        let file = service.executable.display();
        Failure::plain(format!("{who} cannot run {file}: {why}"))
            .hint("install noports for everybody, into /usr/local/bin")
    })?;
    if done.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&done.stderr);
    let mut lines = said.lines();
    let prefix = format!("noports {}: ", service.program.name);
    let message = lines.find_map(|line| line.strip_prefix(&prefix));
    let hint = lines.find_map(|line| line.strip_prefix("  hint: "));
    let code = done.status.code().and_then(|code| u8::try_from(code).ok());
    let failure = Failure::new(
        code.unwrap_or(exit::FAILED),
        message.unwrap_or("it cannot be started with these flags"),
    );
    let as_whom = match user::me().is_some_and(|me| me.uid == service.person.uid) {
        true => String::new(),
        false => format!(" (it would run as {who}; --run-as USER)"),
    };
    let hint = hint.unwrap_or("nothing has been installed");
    Err(failure.hint(format!("{hint}{as_whom}")))
}

fn uninstall_main(name: &str, program: &'static Program, words: &[&str]) -> ExitCode {
    let args: Uninstall = match common::parse(name, words) {
        Ok(args) => args,
        Err(code) => return code,
    };
    common::finish(name, args.json, uninstall(program, &args))
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
        print_out(&format!(
            r#"{{"event":"uninstalled","service":"{name}","removed":{removed}}}"#
        ));
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
