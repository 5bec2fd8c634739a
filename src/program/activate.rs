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
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use argh::{ArgsInfo, FromArgs};
use log::LevelFilter;

use crate::{
    at::{
        AtSign,
        client::{AtError, Client, Link, Network},
        enrolment,
        fault::Code,
        keyfile::AtKeys,
    },
    cli::{
        self, Console, DraftKeyFile, Failure, KeyFileLock, Outcome, Phrases, Progress, exit, flags,
        refuse_overwriting,
    },
    secret::Secret,
};

use super::published;

use secret::{SECRET, refuse_secrets};

mod secret;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

flags! {
    /// Make the first keys of an atSign, with its one-time activation secret.
    ///
    /// The secret is read from --secret-file, else from the environment variable NOPORTS_SECRET, else from stdin. The path
    /// of the new key file is printed on stdout. Run the same command again to resume.
    #[derive(FromArgs, ArgsInfo, Debug)]
    #[argh(
        example = "{command_name} @alice",
        example = "{command_name} @alice --secret-file secret.txt",
        example = "{command_name} @alice --root localhost:6400 --ca ca.pem",
        error_code(1, "failed, or activated already"),
        error_code(2, "the command line was wrong"),
        error_code(3, "a key file already exists, or cannot be written"),
        error_code(4, "the atDirectory or the atServer cannot be reached"),
        error_code(5, "no such atSign"),
        error_code(6, "the secret was refused"),
        error_code(11, "a TLS certificate is not trusted here")
    )]
    pub(crate) struct Args {
        /// the atSign to activate
        #[argh(positional)]
        atsign: String,
        /// file with the activation secret (or NOPORTS_SECRET, or stdin)
        #[argh(option, arg_name = "file")]
        secret_file: Option<PathBuf>,
        /// file with the pass phrase of the key file (or NOPORTS_PASSPHRASE)
        #[argh(option, arg_name = "file")]
        passphrase_file: Option<PathBuf>,
        /// key file to write, or its folder (or NOPORTS_KEYS; default: ~/.atsign/keys)
        #[argh(option, arg_name = "file")]
        keys: Option<PathBuf>,
        network,
    }
}

/// Runs the program; `args` without its name.
pub fn main(console: Console, args: &[&str]) -> ExitCode {
    if let Err(failure) = refuse_secrets(args) {
        return console.finish(args.contains(&"--json"), Err(failure));
    }
    console.start(args, LevelFilter::Warn, 1, run)
}

async fn run(console: &Console, args: Args) -> Result<(), Failure> {
    let who = cli::with_keys(&args.atsign)?;
    let network = cli::network(args.root.as_deref(), &args.ca)?;
    let file = cli::key_file(&who, args.keys.as_deref())?;
    let mut progress = console.progress(args.quiet);

    let phrases = console.phrases(args.passphrase_file.as_deref())?;
    let secret = || {
        let prompt = format!("activation secret of {who} (it is not shown):");
        let file = args.secret_file.as_deref();
        console.given().secret(&SECRET, file, &prompt)
    };
    // `atserver add @x | activate @x`: the atSign is there once its secret comes.
    let is_piped = console.given().secret.is_none() && SECRET.is_piped(args.secret_file.as_deref());
    let known = if is_piped && is_unknown(&network, &who).await {
        Some(secret()?)
    } else {
        None
    };
    let secret = || known.map_or_else(secret, Ok);
    activate(&network, &who, &file, &phrases, secret, &mut progress).await?;

    let path = file.display().to_string();
    let outcome = Outcome::new("activated")
        .with("atsign", who.as_str())
        .with("keys", &path)
        .classic(format!("[Success] Your keyfile stored at path: {path}"))
        .plain(path);
    console.tell(args.json, outcome);
    Ok(())
}

async fn is_unknown(network: &Network, who: &AtSign) -> bool {
    let link = Link::connect(network, who).await;
    matches!(link, Err(AtError::Unknown { .. }))
}

/// Activates an atSign and leaves its keys in `file` (mode 0600, its folder made if need be).
/// Where a pass phrase is known the file is protected with it.
/// `secret` is only called when it is needed: a run that goes on where another one died may do without.
///
/// # Errors
/// Names the cause, what to do about it, and the exit code. The key file's draft (`….new`) stays for
/// the next run once the server may know its keys.
pub async fn activate(
    network: &Network,
    who: &AtSign,
    file: &Path,
    phrases: &Phrases,
    secret: impl FnOnce() -> Result<Secret<String>, Failure>,
    progress: &mut Progress,
) -> Result<(), Failure> {
    let mut link = Link::connect(network, who).await?;
    progress.done(format_args!("found {who}'s atServer"));
    let _alone = KeyFileLock::take(file)?;
    let draft = DraftKeyFile::of(file).under(phrases);
    let keys = match draft.read(who)? {
        Some(keys) => {
            refuse_overwriting(file)?;
            progress.note(format_args!(
                "continuing with the keys in {}",
                draft.path.display()
            ));
            resume(network, &draft, keys, &mut link, secret, progress).await?
        }
        None => {
            if published::public_key(&mut link, who).await?.is_some() {
                return Err(already(who, file));
            }
            refuse_overwriting(file)?;
            log_in_by_secret(&mut link, who, &secret()?).await?;
            progress.done("the secret is right");
            let keys = mint(who, progress).await?;
            draft.write(&keys)?;
            let registered = register(&mut link, &draft, keys).await;
            registered.inspect_err(|failure| {
                // A definite no: the server knows nothing of these keys.
                if failure.code == exit::LOGIN {
                    draft.discard();
                }
            })?
        }
    };
    drop(link);
    let client = log_in(network, &keys).await?;
    progress.done(format_args!("logged in as {who}"));

    client.run(&enrolment::publish(&keys)).await?;
    client.run(&enrolment::forget_secret()).await?;
    progress.done("activated; the secret is no longer valid");
    draft.publish(file)
}

/// Another run died. Either the server knows these keys already, or it still takes the secret.
async fn resume(
    network: &Network,
    draft: &DraftKeyFile,
    keys: AtKeys,
    link: &mut Link,
    secret: impl FnOnce() -> Result<Secret<String>, Failure>,
    progress: &mut Progress,
) -> Result<AtKeys, Failure> {
    match log_in(network, &keys).await {
        Ok(_) => return Ok(keys),
        Err(failure) if failure.code == exit::LOGIN => {}
        Err(failure) => return Err(failure),
    }
    let who = keys.atsign.clone();
    if published::public_key(link, &who).await?.is_some() {
        let place = draft.path.display();
        return Err(Failure::plain(format!(
            "{who} is activated already, with other keys than those in {place}"
        ))
        .hint(format!("if you have the right keys, remove {place}")));
    }
    log_in_by_secret(link, &who, &secret()?).await?;
    progress.done("the secret is right");
    register(link, draft, keys).await
}

fn already(who: &AtSign, file: &Path) -> Failure {
    let failure = Failure::plain(format!("{who} is activated already"));
    if file.exists() {
        failure.hint(format!("its keys seem to be in {}", file.display()))
    } else {
        failure.hint(elsewhere(who))
    }
}

fn elsewhere(who: &AtSign) -> String {
    format!("copy its key file here, or get keys for this device: noports enroll {who}")
}

async fn log_in_by_secret(
    link: &mut Link,
    who: &AtSign,
    secret: &Secret<String>,
) -> Result<(), Failure> {
    let error = match link.login_by_secret(secret).await {
        Ok(()) => return Ok(()),
        Err(error) => error,
    };
    let code = match &error {
        AtError::Login { fault, .. } => fault.code,
        _ => None,
    };
    Err(match code {
        Some(Code::KeyNotFound) => Failure::new(
            exit::LOGIN,
            format!("{who} has already been activated, so its secret is no longer valid"),
        )
        .hint(elsewhere(who)),
        Some(Code::Unauthenticated) => Failure::new(
            exit::LOGIN,
            format!("{who}'s atServer does not accept this secret"),
        )
        .hint("check that it is complete, and that it belongs to this atSign"),
        _ => error.into(),
    })
}

async fn mint(who: &AtSign, progress: &mut Progress) -> Result<AtKeys, Failure> {
    progress.begin("making keys");
    let owner = who.clone();
    let keys = async_std::task::spawn_blocking(move || enrolment::mint(&owner)).await?;
    progress.done("made keys");
    Ok(keys)
}

/// Tells the server the public half. Returns the keys as the draft has them by then.
async fn register(link: &mut Link, draft: &DraftKeyFile, keys: AtKeys) -> Result<AtKeys, Failure> {
    match link.ask(&enrolment::first_request(&keys)?).await {
        Ok(answer) => {
            let keys = AtKeys {
                enrollment_id: Some(approved(&answer)?),
                ..keys
            };
            draft.write(&keys)?;
            Ok(keys)
        }
        // A server from before enrolments: it takes the public key as it is.
        Err(AtError::Refused(fault)) if fault.code == Some(Code::InvalidSyntax) => {
            link.ask(&enrolment::store_pkam_key(&keys)).await?;
            Ok(keys)
        }
        // With another key file: somebody on another machine, say.
        Err(AtError::Refused(fault)) if enrolment::twin(&fault).is_some() => {
            let who = &keys.atsign;
            let text = format!("{who} was activated by another run at the same time");
            Err(Failure::new(exit::LOGIN, text).hint(elsewhere(who)))
        }
        Err(error) => Err(error.into()),
    }
}

fn approved(answer: &str) -> Result<String, Failure> {
    match enrolment::parse_answer(answer) {
        Some((id, status)) if status == "approved" => Ok(id),
        Some((_, status)) => Err(Failure::new(
            exit::LOGIN,
            format!("the atServer did not approve the first keys, but says: {status}"),
        )),
        None => Err(Failure::plain(
            "the atServer's answer to the first keys cannot be read",
        )),
    }
}

async fn log_in(network: &Network, keys: &AtKeys) -> Result<Client, Failure> {
    Ok(Client::login(network, Arc::new(keys.clone())).await?)
}
