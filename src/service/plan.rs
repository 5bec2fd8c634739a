//! From words to a service: whom it runs as, where it writes, what it would not inherit; and whether the program
//! would start like that.

use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::{
    file::below,
    manager::Manager,
    others,
    programs::Program,
    quote,
    unit::{Service, Unit},
};
use crate::{
    cli::{Failure, exit},
    sys::{
        file, paths,
        user::{self, Person},
    },
};

/// What a service would not inherit from the person who installs it, and needs.
const VARIABLES: [&str; 6] = [
    "NOPORTS_ROOT",
    "NOPORTS_CA",
    "NOPORTS_AS",
    "NOPORTS_KEYS",
    "NOPORTS_CONFIG",
    paths::MEMORY,
];
/// Those of them that are paths.
const PATHS: [&str; 4] = [
    "NOPORTS_CA",
    "NOPORTS_KEYS",
    "NOPORTS_CONFIG",
    paths::MEMORY,
];

/// What a person asks for.
#[derive(Clone, Copy)]
pub struct InstallRequest<'a> {
    /// Which of our programs.
    pub program: &'static Program,
    /// Its flags.
    pub words: &'a [&'a str],
    /// What shall start it.
    pub manager: &'static dyn Manager,
    /// The user that it shall run as.
    pub run_as: Option<&'a str>,
    /// One more service of this program, under this name.
    pub instance: Option<&'a str>,
    /// The folder below which its file is written.
    pub destdir: Option<&'a Path>,
}

/// The service that the words ask for.
///
/// # Errors
/// When there is no such user, or a word cannot stand in a file.
pub fn service(request: &InstallRequest) -> Result<Service, Failure> {
    let InstallRequest {
        program, manager, ..
    } = *request;
    let mut words = whole_paths(program, request.words)?;
    let person = person(program, request.run_as, &words, manager)?;
    let mut writes = Vec::new();
    if program.name == "atserver" {
        writes.push(data_folder(&mut words, manager, &person));
    }
    // A home that is not there is not made either: such a user has no sshd to let anybody in for.
    if program.name == "daemon" && person.home.is_dir() {
        // Keys of sessions, in authorized_keys; and those to log in to clients with.
        writes.push(person.home.join(".ssh"));
        // Requests that were acted on, and keys of others.
        writes.push(memory(&person));
        if words.iter().any(|word| word == "--reverse-ssh") {
            writes.push(person.home.join(".sshnp"));
        }
    }
    let executable = others::own_file()?;
    let environment = environment(|name| std::env::var(name).ok());
    let serve = program.serve.iter().map(|word| (*word).to_owned());
    let name = service_name(program, request.instance)?;
    let service = Service {
        program,
        unit: Unit {
            file: below(request.destdir, &manager.file(&name, &person)),
            name,
            person,
        },
        executable,
        words: serve.chain(words).collect(),
        environment,
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
            "{word:?} cannot be written into a service's file"
        )));
    }
    Ok(service)
}

/// Where the service remembers what must outlive it.
fn memory(person: &Person) -> PathBuf {
    let named = std::env::var_os(paths::MEMORY).filter(|value| !value.is_empty());
    match named {
        Some(folder) => std::path::absolute(&folder).unwrap_or_else(|_| folder.into()),
        None => person.home.join(paths::MEMORY_AT_HOME),
    }
}

/// What the service would not inherit; with whole paths, as its words.
pub(super) fn environment(env: impl Fn(&str) -> Option<String>) -> Vec<(&'static str, String)> {
    let whole = |list: String| {
        let paths = std::env::split_paths(&list).filter(|path| !path.as_os_str().is_empty());
        let whole = paths.map(|path| std::path::absolute(&path).unwrap_or(path));
        let joined = std::env::join_paths(whole).ok();
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

/// What the service manager calls it.
///
/// # Errors
/// When the instance's name does not fit.
pub fn service_name(program: &Program, instance: Option<&str>) -> Result<String, Failure> {
    let name = format!("noports-{}", program.name);
    let Some(instance) = instance else {
        return Ok(name);
    };
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if instance.is_empty() || instance.len() > 32 || !instance.chars().all(fits) {
        return Err(
            Failure::misuse(format!("{instance:?} is not a valid name for a service"))
                .hint("--instance takes up to 32 of a-z, 0-9 and _"),
        );
    }
    Ok(format!("{name}-{instance}"))
}

/// A service starts in another folder, so paths are made whole.
pub(super) fn whole_paths(program: &Program, words: &[&str]) -> Result<Vec<String>, Failure> {
    let mut path = false;
    let mut whole = Vec::new();
    for word in words {
        whole.push(if path {
            std::path::absolute(word)
                .map_err(|why| Failure::misuse(format!("{word:?} is not a path: {why}")))?
                .display()
                .to_string()
        } else {
            (*word).to_owned()
        });
        path = !path && program.files.contains(word);
    }
    Ok(whole)
}

fn value_of<'a>(words: &'a [String], flag: &str) -> Option<&'a str> {
    let at = words.iter().position(|word| word == flag)?;
    words.get(at + 1).map(String::as_str)
}

/// Whom root's services for strangers run as, where there is this account and nobody else was named.
const ACCOUNT: &str = "noports";

fn as_root(program: &Program, manager: &dyn Manager) -> Failure {
    let name = program.name;
    let hint = if manager.is_for_the_machine() {
        format!(
            "--run-as USER names another one; or make an account that is taken by itself: useradd --system --create-home {ACCOUNT}"
        )
    } else {
        format!("let another user install it: su USER -c 'noports {name} install …'")
    };
    Failure::misuse(format!("noports {name} would run as root")).hint(hint)
}

fn named(name: &str, me: &Person, manager: &dyn Manager) -> Result<Person, Failure> {
    let own = || (name == me.name).then(|| me.clone());
    let listed = || user::by_name(name);
    // For a service of one's own: where one's home is the list of users may know less well.
    let found = if manager.is_for_the_machine() {
        listed().or_else(own)
    } else {
        own().or_else(listed)
    };
    found.ok_or_else(|| Failure::misuse(format!("there is no user {name:?} on this machine")))
}

/// Whom the service runs as: a daemon's clients log in as that user. Who listens to strangers is root only if told so.
fn person(
    program: &Program,
    flag: Option<&str>,
    words: &[String],
    manager: &dyn Manager,
) -> Result<Person, Failure> {
    let nobody =
        || Failure::misuse("this account is not in the list of users").hint("--run-as USER");
    let me = user::me().ok_or_else(nobody)?;
    let person = match flag {
        Some(name) => named(name, &me, manager)?,
        None if !manager.is_for_the_machine() && me.uid == 0 && program.many => {
            return Err(as_root(program, manager));
        }
        None if !manager.is_for_the_machine() || me.uid != 0 => me.clone(),
        None => {
            let flags = ["--keys", "--data"];
            let file = flags.iter().find_map(|flag| value_of(words, flag));
            let about = file.and_then(|file| std::fs::metadata(file).ok());
            let owner = about.and_then(|about| user::by_number(about.uid()));
            let caller = std::env::var("SUDO_USER")
                .ok()
                .and_then(|name| user::by_name(&name));
            if program.many {
                let own = user::by_name(ACCOUNT);
                let fitting = [owner, caller, own].into_iter().flatten();
                let not_root = fitting.into_iter().find(|person| person.uid != 0);
                not_root.ok_or_else(|| as_root(program, manager))?
            } else {
                owner.or(caller).unwrap_or_else(|| me.clone())
            }
        }
    };
    if !manager.is_for_the_machine() && person.uid != me.uid {
        return Err(Failure::misuse(format!(
            "a service of {}'s own must be installed by {}",
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
            "{:?} is not a user name that can be written into the file",
            person.name
        )));
    }
    Ok(person)
}

/// Where the atServer's data are: said in so many words, so that the service may write there and nowhere else.
pub(super) fn data_folder(
    words: &mut Vec<String>,
    manager: &dyn Manager,
    person: &Person,
) -> PathBuf {
    if let Some(folder) = value_of(words, "--data") {
        return folder.into();
    }
    if let Some(folder) = data_in_file(words, person) {
        return folder;
    }
    let named = std::env::var_os("NOPORTS_DATA").filter(|value| !value.is_empty());
    let folder = match named {
        Some(folder) => std::path::absolute(&folder).unwrap_or_else(|_| folder.into()),
        None if manager.is_for_the_machine() => "/var/lib/noports/atserver".into(),
        None => person.home.join(".local/share/noports/atserver"),
    };
    words.extend(["--data".to_owned(), folder.display().to_string()]);
    folder
}

/// The data folder that a file of flags names.
pub(super) fn data_in_file(words: &[String], person: &Person) -> Option<PathBuf> {
    let flag = value_of(words, "--config").map(PathBuf::from);
    let named = flag.or_else(|| std::env::var_os("NOPORTS_CONFIG").map(PathBuf::from));
    let file = "noports/atserver.conf";
    let usual = [
        person.home.join(".config").join(file),
        Path::new("/etc").join(file),
    ];
    let path = named.or_else(|| usual.into_iter().find(|file| file.exists()))?;
    let text = file::text_now(&path, file::SMALL).ok()?;
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
///
/// # Errors
/// The program's own.
pub fn try_out(service: &Service) -> Result<(), Failure> {
    let person = &service.unit.person;
    let mut command = person.command(&service.executable);
    command.args(service.verify()).envs(
        service
            .environment
            .iter()
            .map(|(name, value)| (*name, value)),
    );
    let who = &person.name;
    let done = command.output().map_err(|why| {
        let file = service.executable.display();
        Failure::plain(format!("{who} cannot run {file}: {why}"))
            .hint("install noports for everybody: sudo sh install.sh")
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
    let as_whom = if user::me().is_some_and(|me| me.uid == person.uid) {
        String::new()
    } else {
        format!(" (it would run as {who}; --run-as USER)")
    };
    let hint = hint.unwrap_or("nothing was installed");
    let started = format!("noports {} ", service.program.serve.join(" "));
    let hint = match hint.strip_prefix(&started) {
        Some(words) => format!("noports {} install {words}", service.program.name),
        None => hint.to_owned(),
    };
    Err(failure.hint(format!("{hint}{as_whom}")))
}
