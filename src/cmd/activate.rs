//! `noports activate @alice` — the first keys of an atSign.
//!
//! ```text
//!   secret ─▶ from, cram ──────────────┐ is it the right one, and still in force?
//!   make keys ─▶ @alice_key.atKeys.new ┤ on disk before the server hears of them
//!   enroll:request (or, on an old server, update:privatekey:at_pkam_publickey)
//!   from, pkam   with the new keys ────┤ do they work?
//!   update:public:publickey ───────────┤ now others can write to @alice
//!   delete:privatekey:at_secret ───────┘ the secret is worth nothing from here on
//!   @alice_key.atKeys.new ─▶ @alice_key.atKeys
//! ```
//!
//! Whenever this dies, running it again finds the `.new` file and goes on with the same keys: no
//! step is repeated that cannot be, and no key is lost that the server already trusts.
//!
//! The secret comes from a file, the environment or stdin. Never from the command line, which
//! everybody on the machine can read.

use std::{
    fs::{self, OpenOptions},
    io::{self, BufRead, IsTerminal, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use argh::FromArgs;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::{
    at::{
        AtKey, AtSign, Metadata, Verb, auth,
        client::{AtError, Client, Network},
        enroll,
        fault::Code,
        key::Scope,
        keyfile::AtKeys,
        verb::Detail,
    },
    secret::Secret,
};

use super::{
    common::{self, Failure, Progress, exit},
    talk::Talk,
};

/// Longest activation secret, in bytes; real ones have 128.
const MAX_SECRET: u64 = 4096;
/// Where the secret may come from, beside a file and stdin.
const SECRET_VARIABLE: &str = "NOPORTS_SECRET";
const SECRET_HINT: &str = "use --secret-file FILE, the environment variable NOPORTS_SECRET, or stdin: \
     everybody on this machine can read a command line";

/// Make the first keys of an atSign, with the one-time secret its atServer was given.
///
/// The secret is read from --secret-file, else from the environment variable NOPORTS_SECRET, else
/// from stdin. The key file's path is printed on stdout.
#[derive(FromArgs, Debug)]
struct Args {
    /// the atSign to activate
    #[argh(positional)]
    atsign: String,
    /// file with the one-time secret
    #[argh(option, arg_name = "file")]
    secret_file: Option<PathBuf>,
    /// where to write the keys (default: ~/.atsign/keys/@you_key.atKeys)
    #[argh(option, arg_name = "file")]
    keys: Option<PathBuf>,
    /// the atDirectory (default: root.atsign.org:64)
    #[argh(option, arg_name = "host[:port]")]
    root: Option<String>,
    /// trust this authority too (PEM file; may be given several times)
    #[argh(option, arg_name = "file")]
    ca: Vec<String>,
    /// print the result as one line of JSON
    #[argh(switch)]
    json: bool,
    /// no progress on stderr
    #[argh(switch, short = 'q')]
    quiet: bool,
    /// log more (twice: everything)
    #[argh(switch, short = 'v')]
    verbose: u8,
}

/// Runs the program; `args` without its name.
pub fn main(name: &str, args: &[&str]) -> ExitCode {
    if let Err(failure) = refuse_secrets(args) {
        return common::finish(name, args.contains(&"--json"), Err(failure));
    }
    let args: Args = match common::parse(name, args) {
        Ok(args) => args,
        Err(code) => return code,
    };
    let json = args.json;
    common::finish(name, json, common::run(1, run(args)))
}

async fn run(args: Args) -> Result<(), Failure> {
    let who: AtSign = args.atsign.parse()?;
    let network = common::network(args.root.as_deref(), &args.ca)?;
    let file = common::key_file(&who, args.keys.as_deref())?;
    let mut progress = Progress::new(args.quiet);

    let secret = || read_secret(args.secret_file.as_deref(), &who);
    activate(&network, &who, &file, secret, &mut progress).await?;

    let path = file.display().to_string();
    common::print_out(&if args.json {
        miniserde::json::to_string(&Activated {
            event: "activated",
            atsign: who.as_str(),
            keys: &path,
        })
    } else {
        path
    });
    Ok(())
}

#[derive(miniserde::Serialize)]
struct Activated<'a> {
    event: &'static str,
    atsign: &'a str,
    keys: &'a str,
}

/// Activates an atSign and leaves its keys in `file` (mode 0600, its folder made if need be).
/// `secret` is only called when it is needed: a run that goes on where another one died may do without.
///
/// # Errors
/// Names the cause, what to do about it, and the exit code. The key file's draft (`….new`) stays for
/// the next run once the server may know its keys.
pub async fn activate(
    network: &Network,
    who: &AtSign,
    file: &Path,
    secret: impl FnOnce() -> Result<Secret<String>, Failure>,
    progress: &mut Progress,
) -> Result<(), Failure> {
    let mut talk = Talk::open(network, who).await?;
    progress.done(format_args!("found {who}'s atServer"));
    let draft = Draft::of(file);
    let keys = match draft.read(who)? {
        Some(keys) => {
            refuse_overwriting(file)?;
            progress.note(format_args!(
                "going on with the keys in {}",
                draft.0.display()
            ));
            resume(network, &draft, keys, &mut talk, secret, progress).await?
        }
        None => {
            if is_activated(&mut talk, who).await? {
                return Err(already(who, file));
            }
            refuse_overwriting(file)?;
            log_in_by_secret(&mut talk, who, &secret()?).await?;
            progress.done("the secret is right");
            let keys = mint(who, progress).await?;
            draft.write(&keys)?;
            register(&mut talk, &draft, keys).await?
        }
    };
    talk.close().await;
    let client = log_in(network, &keys).await?;
    progress.done(format_args!("logged in as {who}"));

    publish(&client, &keys).await?;
    client.run(&forget_secret()).await?;
    progress.done("activated; the secret is no longer valid");
    draft.publish(file)
}

/// Another run died. Either the server knows these keys already, or it still takes the secret.
async fn resume(
    network: &Network,
    draft: &Draft,
    keys: AtKeys,
    talk: &mut Talk,
    secret: impl FnOnce() -> Result<Secret<String>, Failure>,
    progress: &mut Progress,
) -> Result<AtKeys, Failure> {
    match log_in(network, &keys).await {
        Ok(_) => return Ok(keys),
        Err(failure) if failure.code == exit::LOGIN => {}
        Err(failure) => return Err(failure),
    }
    let who = keys.atsign.clone();
    if is_activated(talk, &who).await? {
        let place = draft.0.display();
        return Err(Failure::plain(format!(
            "{who} is activated already, with other keys than those in {place}"
        ))
        .hint(format!("if you have the right keys, remove {place}")));
    }
    log_in_by_secret(talk, &who, &secret()?).await?;
    progress.done("the secret is right");
    register(talk, draft, keys).await
}

/// An activated atSign has a public encryption key.
async fn is_activated(talk: &mut Talk, who: &AtSign) -> Result<bool, Failure> {
    let published = Verb::Lookup {
        key: AtKey::own("publickey", who),
        detail: Detail::Value,
        bypass_cache: false,
    };
    match talk.say(&published).await? {
        Ok(text) => Ok(text.trim() != "null"),
        Err(fault) if fault.is_key_not_found() => Ok(false),
        Err(fault) => Err(AtError::Refused(fault).into()),
    }
}

fn already(who: &AtSign, file: &Path) -> Failure {
    let failure = Failure::plain(format!("{who} is activated already"));
    if file.exists() {
        failure.hint(format!("its keys seem to be here: {}", file.display()))
    } else {
        failure.hint(elsewhere(who))
    }
}

fn elsewhere(who: &AtSign) -> String {
    format!("copy its key file here, or get keys for this device: noports enroll {who}")
}

fn refuse_overwriting(file: &Path) -> Result<(), Failure> {
    if !file.exists() {
        return Ok(());
    }
    Err(Failure::new(
        exit::KEYS,
        format!("there is a key file already: {}", file.display()),
    )
    .hint("move it away, or write the new one elsewhere: --keys FILE"))
}

async fn log_in_by_secret(
    talk: &mut Talk,
    who: &AtSign,
    secret: &Secret<String>,
) -> Result<(), Failure> {
    let challenge = talk.say(&auth::ask(who)).await?.map_err(AtError::Refused)?;
    let proof = auth::prove_by_secret(who, secret.reveal(), &challenge)?;
    let Err(fault) = talk.say(&proof).await? else {
        return Ok(());
    };
    Err(match fault.code {
        Some(Code::KeyNotFound) => Failure::new(
            exit::LOGIN,
            format!("{who}'s atServer takes no secret any more: it was activated before"),
        )
        .hint(elsewhere(who)),
        Some(Code::Unauthenticated) => Failure::new(
            exit::LOGIN,
            format!("{who}'s atServer does not accept this secret"),
        )
        .hint("was all of it copied, and is it the one for this atSign?"),
        _ => AtError::Login {
            who: who.clone(),
            fault,
        }
        .into(),
    })
}

async fn mint(who: &AtSign, progress: &mut Progress) -> Result<AtKeys, Failure> {
    progress.begin("making keys");
    let owner = who.clone();
    let keys = async_std::task::spawn_blocking(move || enroll::mint(&owner)).await?;
    progress.done("made keys");
    Ok(keys)
}

/// Tells the server the public half. Returns the keys as the draft has them by then.
async fn register(talk: &mut Talk, draft: &Draft, keys: AtKeys) -> Result<AtKeys, Failure> {
    match talk.say(&enroll::first_request(&keys)?).await? {
        Ok(answer) => {
            let id = approved(&answer)?;
            let keys = AtKeys {
                enrollment_id: Some(id),
                ..keys
            };
            draft.write(&keys)?;
            Ok(keys)
        }
        Err(fault) if fault.code == Some(Code::InvalidSyntax) => {
            let old = Verb::Update {
                key: reserved("at_pkam_publickey"),
                metadata: Metadata::default(),
                value: keys.pkam.public().text.clone(),
            };
            talk.say(&old).await?.map_err(AtError::Refused)?;
            Ok(keys)
        }
        Err(fault) => Err(AtError::Refused(fault).into()),
    }
}

fn approved(answer: &str) -> Result<String, Failure> {
    match enroll::parse_answer(answer) {
        Some((id, status)) if status == "approved" => Ok(id),
        Some((_, status)) => Err(Failure::new(
            exit::LOGIN,
            format!("the atServer did not approve the first keys: they are {status}"),
        )),
        None => Err(Failure::plain(
            "the atServer's answer to the first keys cannot be read",
        )),
    }
}

async fn log_in(network: &Network, keys: &AtKeys) -> Result<Client, Failure> {
    Ok(Client::login(network, Arc::new(keys.clone())).await?)
}

async fn publish(client: &Client, keys: &AtKeys) -> Result<(), Failure> {
    let metadata = Metadata {
        is_encrypted: Some(false),
        ..Metadata::default()
    };
    let verb = Verb::Update {
        key: AtKey::public("publickey", &keys.atsign),
        metadata,
        value: keys.encryption.public().text.clone(),
    };
    client.run(&verb).await?;
    Ok(())
}

fn forget_secret() -> Verb {
    Verb::Delete {
        key: reserved("at_secret"),
        priority: None,
    }
}

/// `privatekey:<entity>`
fn reserved(entity: &str) -> AtKey {
    AtKey {
        cached: false,
        scope: Scope::PrivateKey,
        entity: entity.to_owned(),
        owner: None,
    }
}

/// The key file before it has its name: `@alice_key.atKeys.new`.
struct Draft(PathBuf);

impl Draft {
    fn of(file: &Path) -> Self {
        let mut name = file.as_os_str().to_owned();
        name.push(".new");
        Self(name.into())
    }

    fn read(&self, who: &AtSign) -> Result<Option<AtKeys>, Failure> {
        if !self.0.exists() {
            return Ok(None);
        }
        common::read_keys(who, &self.0)
            .map(Some)
            .map_err(|failure| {
                // A draft is renamed into place whole, so this is not one of ours that was cut off.
                failure.hint("if it holds nothing you need, remove it and start again")
            })
    }

    /// All or nothing: a crash leaves the old draft, the new one, or none.
    fn write(&self, keys: &AtKeys) -> Result<(), Failure> {
        let cannot = |why: io::Error| cannot_write(&self.0, &why);
        let folder = folder_of(&self.0);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(cannot)?;
        let mut name = self.0.as_os_str().to_owned();
        name.push(format!(".{}", std::process::id()));
        let half = PathBuf::from(name);
        let _ = fs::remove_file(&half); // of a process that died and had the same number
        let written = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&half)
            .and_then(|mut out| {
                out.write_all(keys.print().reveal().as_bytes())?;
                out.sync_all()
            })
            .and_then(|()| fs::rename(&half, &self.0))
            .and_then(|()| fs::File::open(folder)?.sync_all());
        if written.is_err() {
            let _ = fs::remove_file(&half);
        }
        written.map_err(cannot)
    }

    /// The draft becomes the key file.
    fn publish(&self, file: &Path) -> Result<(), Failure> {
        fs::rename(&self.0, file)
            .and_then(|()| fs::File::open(folder_of(file))?.sync_all())
            .map_err(|why| {
                cannot_write(file, &why).hint(format!("the keys are in {}", self.0.display()))
            })
    }
}

fn folder_of(file: &Path) -> &Path {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

fn cannot_write(file: &Path, why: &io::Error) -> Failure {
    Failure::new(
        exit::KEYS,
        format!("cannot write the key file {}: {why}", file.display()),
    )
    .hint("choose another place: --keys FILE")
}

/// Options of this program that take a value.
const WITH_VALUE: [&str; 4] = ["--secret-file", "--keys", "--root", "--ca"];

/// Refuses command lines that seem to hold the secret, without repeating it.
fn refuse_secrets(args: &[&str]) -> Result<(), Failure> {
    let mut words = 0;
    let mut args = args.iter();
    while let Some(&arg) = args.next() {
        if WITH_VALUE.contains(&arg) {
            args.next();
        } else if arg.starts_with("--secret") || arg.starts_with("--cram") || arg.starts_with("-c")
        {
            return Err(
                Failure::misuse("the secret is never taken from the command line")
                    .hint(SECRET_HINT),
            );
        } else if arg.contains('=') && arg.starts_with('-') {
            return Err(
                Failure::misuse("an option and its value are two words here")
                    .hint("--keys FILE, not --keys=FILE"),
            );
        } else if !arg.starts_with('-') {
            words += 1;
        }
    }
    if words > 1 {
        return Err(Failure::misuse("one atSign is expected, and nothing else").hint(SECRET_HINT));
    }
    Ok(())
}

fn read_secret(file: Option<&Path>, who: &AtSign) -> Result<Secret<String>, Failure> {
    let (text, place) = if let Some(file) = file {
        let text = fs::File::open(file).and_then(read_bounded).map_err(|why| {
            Failure::misuse(format!(
                "cannot read the secret in {}: {why}",
                file.display()
            ))
        })?;
        (text, file.display().to_string())
    } else if let Ok(text) = std::env::var(SECRET_VARIABLE) {
        (Secret::new(text), SECRET_VARIABLE.to_owned())
    } else {
        let text = read_typed(who)
            .map_err(|why| Failure::misuse(format!("cannot read the secret from stdin: {why}")))?;
        (text, "stdin".to_owned())
    };
    let secret = Secret::new(text.reveal().trim().to_owned());
    if secret.reveal().is_empty() {
        return Err(Failure::misuse(format!("there is no secret in {place}"))
            .hint("--secret-file FILE, NOPORTS_SECRET, or stdin"));
    }
    Ok(secret)
}

fn read_bounded(from: impl Read) -> io::Result<Secret<String>> {
    let mut text = String::new();
    let read = from.take(MAX_SECRET + 1).read_to_string(&mut text);
    let text = Secret::new(text);
    if read? as u64 > MAX_SECRET {
        return Err(io::Error::other("it is too long to be one"));
    }
    Ok(text)
}

/// One line from stdin; on a terminal it is asked for and not shown.
fn read_typed(who: &AtSign) -> io::Result<Secret<String>> {
    let stdin = io::stdin();
    let hidden = stdin.is_terminal().then(|| {
        common::print_err(&format!("the one-time secret of {who} (it is not shown):"));
        Hidden::new()
    });
    let mut line = String::new();
    let read = stdin.lock().take(MAX_SECRET).read_line(&mut line);
    drop(hidden);
    let line = Secret::new(line);
    read.map(|_| line)
}

/// Switches the terminal's echo off, and on again when dropped.
struct Hidden(Option<Termios>);

impl Hidden {
    fn new() -> Self {
        let Ok(before) = tcgetattr(io::stdin()) else {
            return Self(None);
        };
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        let switched = tcsetattr(io::stdin(), OptionalActions::Flush, &quiet);
        Self(switched.is_ok().then_some(before))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = tcsetattr(io::stdin(), OptionalActions::Flush, before);
        }
    }
}
