//! The new device's side: ask, show, wait, write the key file.

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use argh::{ArgsInfo, FromArgs};
use async_std::{future::timeout, task};
use log::{LevelFilter, info};

use crate::{
    at::{
        AtSign,
        client::{AtError, Link, Network, Timing, jitter},
        crypto::PublicKey,
        enrolment::{self, Applicant, EnrolmentRequest, EnrolmentStatus},
        fault::{Code, Fault},
        keyfile::AtKeys,
    },
    cli::{
        self, Console, DraftKeyFile, Failure, KeyFileLock, Outcome, Phrases, Progress, exit, flags,
        keystore, refuse_overwriting,
    },
    net::backoff::Backoff,
    program::published,
    secret::Secret,
    sys::out,
    text::duration::{in_words, millis, seconds},
};

use super::{
    codes::{CODE, refuse_codes},
    show,
};

/// First and longest pause between two looks whether somebody has approved.
const POLL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));
/// For the answer to a request: servers keep the one to a wrong code back, the longer the more there were.
const REQUEST: Duration = Duration::from_secs(70);

/// How long a request waits for its approval, unless --timeout says otherwise.
const APPROVED_WITHIN: Duration = Duration::from_secs(3600);

flags! {
    /// Get keys for one more device of an atSign, or manage the enrolments of an atSign.
    ///
    /// Each device should have keys of its own: an enrolment. A new device asks with a one-time passcode, which a device
    /// with keys has made, and waits until it is approved there. The passcode is read from --code-file, else from
    /// NOPORTS_CODE, else from stdin. The path of the new key file is printed on stdout. If it is interrupted, run the same
    /// command again.
    #[derive(FromArgs, ArgsInfo, Debug)]
    #[argh(
        example = "{command_name} otp @alice",
        example = "{command_name} @alice --device pi",
        example = "{command_name} approve @alice c3a9-f7d2",
        error_code(1, "failed, or not approved in time"),
        error_code(2, "the command line was wrong"),
        error_code(3, "a key file already exists, is missing, or cannot be used"),
        error_code(4, "the atDirectory or the atServer cannot be reached"),
        error_code(5, "no such atSign"),
        error_code(6, "the passcode was refused, or the request denied"),
        error_code(10, "the keys received do not belong to the atSign"),
        error_code(11, "a TLS certificate is not trusted here")
    )]
    pub(crate) struct Args {
        /// the atSign to get keys for
        #[argh(positional)]
        atsign: String,
        /// file with the passcode (or NOPORTS_CODE, or stdin)
        #[argh(option, arg_name = "file")]
        code_file: Option<PathBuf>,
        /// name for this device among your enrolments, not the daemon's --device (default: the host's name)
        #[argh(option, arg_name = "name")]
        device: Option<String>,
        /// name for the program that asks (default: noports)
        #[argh(option, arg_name = "name", default = "\"noports\".to_owned()")]
        app: String,
        /// namespaces that the keys may read (r) or write (rw) (default: sshnp:rw,sshrvd:rw, what NoPorts needs)
        #[argh(option, arg_name = "list", default = "show::NAMESPACES.to_owned()")]
        namespaces: String,
        /// how long the keys are valid, such as 30d or 2h30m (default: until revoked)
        #[argh(option, arg_name = "duration", from_str_fn(millis))]
        life: Option<Duration>,
        /// how long to wait for approval (default: 1h)
        #[argh(
            option,
            arg_name = "duration",
            default = "APPROVED_WITHIN",
            from_str_fn(seconds)
        )]
        timeout: Duration,
        /// key file to write, or its folder (or NOPORTS_KEYS; default: ~/.atsign/keys)
        #[argh(option, arg_name = "file")]
        keys: Option<PathBuf>,
        /// file with the pass phrase of the key file (or NOPORTS_PASSPHRASE)
        #[argh(option, arg_name = "file")]
        passphrase_file: Option<PathBuf>,
        network,
    }
}

/// Runs the program for the device that asks.
pub(super) fn main(console: Console, words: &[&str]) -> ExitCode {
    if let Err(failure) = refuse_codes(words) {
        return console.finish(words.contains(&"--json"), Err(failure));
    }
    console.start(words, LevelFilter::Warn, 1, run)
}

/// The device that asks, and for what.
struct Applying {
    /// Name of the program.
    pub app: String,
    /// Name of the device; with the program's it must be new.
    pub device: String,
    /// Namespace → `r` or `rw`.
    pub namespaces: BTreeMap<String, String>,
    /// Milliseconds; for ever where it is absent.
    pub life: Option<u64>,
    /// How long to wait for somebody to approve.
    pub patience: Duration,
}

async fn run(console: &Console, args: Args) -> Result<(), Failure> {
    let who = cli::with_keys(&args.atsign)?;
    if args.life.is_some_and(|life| life.is_zero()) && !console.given().classic {
        return Err(Failure::misuse("--life 0s: such keys would never be valid")
            .hint("leave --life out for keys that are valid until they are revoked"));
    }
    let request = Applying {
        app: show::parse_name("program", &args.app)?,
        device: match &args.device {
            Some(name) => show::parse_name("device", name)?,
            None => host_name(),
        },
        namespaces: show::parse_namespaces(&args.namespaces)?,
        life: args.life.map(show::life),
        patience: args.timeout,
    };
    let network = cli::network(args.root.as_deref(), &args.ca)?;
    let file = cli::key_file(&who, args.keys.as_deref())?;
    let phrases = console.phrases(args.passphrase_file.as_deref())?;
    let mut progress = console.progress(args.quiet);
    let code = || {
        let prompt = format!("passcode for a request to {who} (it is not shown):");
        let file = args.code_file.as_deref();
        console.given().secret(&CODE, file, &prompt)
    };
    let told = |id: &str| {
        let outcome = Outcome::new("asked")
            .with("atsign", who.as_str())
            .with("id", id)
            .with("code", &show::code(id))
            .with("link", &show::link(&who, id))
            .classic(format!("Enrollment ID: {id}"));
        console.tell(args.json, outcome);
    };
    let id = enroll(
        &network,
        &who,
        &file,
        &phrases,
        &request,
        code,
        told,
        &mut progress,
    )
    .await?;
    let path = file.display().to_string();
    let outcome = Outcome::new("enrolled")
        .with("atsign", who.as_str())
        .with("id", &id)
        .with("keys", &path)
        .classic(format!("[Success] Your .atKeys file saved at {path}"))
        .plain(path);
    console.tell(args.json, outcome);
    Ok(())
}

/// The host's name, as far as it fits for a device.
fn host_name() -> String {
    let name = rustix::system::uname();
    let name = name.nodename().to_string_lossy().into_owned();
    show::parse_name("device", &name).unwrap_or_else(|_| "device".to_owned())
}

/// Asks, waits for the approval, and leaves the keys in `file`; returns the enrolment's id. `code` is only
/// called when there is something to ask; `told` hears the id as soon as there is one.
///
/// # Errors
/// Names the cause, what to do about it, and the exit code. The draft (`….asked`) stays for the next run, unless
/// nothing can come of it any more.
#[allow(clippy::too_many_arguments)]
async fn enroll(
    network: &Network,
    who: &AtSign,
    file: &Path,
    phrases: &Phrases,
    request: &Applying,
    code: impl FnOnce() -> Result<Secret<String>, Failure>,
    told: impl FnOnce(&str),
    progress: &mut Progress,
) -> Result<String, Failure> {
    refuse_overwriting(file)?;
    let timing = Timing {
        reply: REQUEST,
        ..Timing::default()
    };
    let mut link = Link::connect_with(network, who, timing).await?;
    let ours = published(&mut link, who).await?;
    progress.done(format_args!("found {who}'s atServer"));

    let _alone = KeyFileLock::take(file)?;
    let draft = DraftKeyFile::asked(file).under(phrases);
    let earlier = draft.read(who)?;
    let known = earlier.as_ref().and_then(|keys| keys.enrollment_id.clone());
    let (applicant, id) = match (earlier, known) {
        (Some(keys), Some(id)) => {
            // What was asked then is not kept, and the flags of now change nothing.
            let place = draft.path.display();
            progress.note(format_args!(
                "going on with the request of an earlier run as it was asked then, whatever the flags say now; for \
                 another request remove {place}"
            ));
            (resume(&keys, &draft)?, id)
        }
        (earlier, _) => {
            let wish = wish(request, code()?);
            let applicant = match &earlier {
                Some(keys) => resume(keys, &draft)?,
                None => mint(who, &draft, progress).await?,
            };
            let asked = ask(&mut link, &applicant, &wish, &ours, earlier.is_some()).await;
            let id = asked.inspect_err(|failure| {
                // A definite no: the server knows nothing of these keys.
                if earlier.is_none() && failure.code != exit::UNREACHABLE {
                    draft.discard();
                }
            })?;
            draft.write(&applicant.provisional(Some(&id)))?;
            // With keys of an earlier run it may be what that one asked.
            if earlier.is_none() {
                show_wish(&id, request, progress);
            }
            (applicant, id)
        }
    };
    drop(link);
    told(&id);
    show_request(who, &id, progress);

    progress.begin("waiting for approval");
    let granted = wait(network, &applicant, &id, request.patience).await;
    let mut link = granted.map_err(|ended| ended.tell(who, &id, &draft, request.patience))?;
    progress.done("approved");
    let keys = fetch(&mut link, applicant, &id, &ours).await?;
    refuse_overwriting(file)?;
    keystore::save(&keys, file, phrases.known())?;
    draft.discard();
    Ok(id)
}

fn wish(request: &Applying, otp: Secret<String>) -> EnrolmentRequest {
    EnrolmentRequest {
        app: request.app.clone(),
        device: request.device.clone(),
        namespaces: request.namespaces.clone(),
        otp,
        life: request.life.filter(|life| *life > 0),
    }
}

/// Our own atSign's public key: what the approver's answer must fit.
async fn published(link: &mut Link, who: &AtSign) -> Result<PublicKey, Failure> {
    match published::public_key(link, who).await? {
        Some(text) if !text.is_empty() => Ok(PublicKey::parse(&text)?),
        _ => Err(
            Failure::new(exit::UNKNOWN, format!("{who} has not been activated yet"))
                .hint(format!("its first keys: noports activate {who}")),
        ),
    }
}

fn resume(draft: &AtKeys, place: &DraftKeyFile) -> Result<Applicant, Failure> {
    Applicant::resume(draft).ok_or_else(|| {
        let place = place.path.display();
        Failure::new(
            exit::KEYS,
            format!("{place} does not come from an unfinished request"),
        )
        .hint("move it away, and run the same command again")
    })
}

async fn mint(
    who: &AtSign,
    draft: &DraftKeyFile,
    progress: &mut Progress,
) -> Result<Applicant, Failure> {
    progress.begin("making keys");
    let owner = who.clone();
    let applicant = task::spawn_blocking(move || Applicant::new(&owner)).await?;
    draft.write(&applicant.provisional(None))?;
    progress.done("made keys");
    Ok(applicant)
}

/// Sends the request; the new enrolment's id. `again`: an earlier run may have got through with the same keys.
async fn ask(
    link: &mut Link,
    applicant: &Applicant,
    wish: &EnrolmentRequest,
    ours: &PublicKey,
    again: bool,
) -> Result<String, Failure> {
    let answer = match link.ask(&applicant.request(wish, ours)?).await {
        Ok(answer) => answer,
        Err(AtError::Refused(fault)) => {
            let twin = enrolment::twin(&fault).filter(|_| again);
            return twin.ok_or_else(|| refused(&fault, wish, again, applicant.atsign()));
        }
        Err(error) => return Err(error.into()),
    };
    match enrolment::parse_answer(&answer) {
        Some((id, _)) => Ok(id),
        None => Err(Failure::plain(
            "the atServer's answer to the request cannot be read",
        )),
    }
}

fn refused(fault: &Fault, wish: &EnrolmentRequest, again: bool, who: &AtSign) -> Failure {
    if fault.text.contains("invalid otp") {
        let used = if again {
            "the previous run may have used it; "
        } else {
            "it is good for one request, usually within five minutes; "
        };
        return Failure::new(exit::LOGIN, "the atServer does not accept this passcode").hint(
            format!("{used}for a new one, on a device with keys: noports enroll otp {who}"),
        );
    }
    if let Some(id) = enrolment::twin(fault) {
        let (app, device) = (&wish.app, &wish.device);
        return Failure::plain(format!(
            "{app} on {device} is already enrolled: {}",
            show::code(&id)
        ))
        .hint(
            "give this device another name with --device, or deny or revoke the other enrolment",
        );
    }
    match fault.code {
        Some(Code::InvalidSyntax) => {
            Failure::plain("this atServer is too old for enrolments, or refuses this request")
                .hint("copy the key file of another device")
        }
        _ => AtError::Refused(fault.clone()).into(),
    }
}

/// Shows on the device what its owner has to approve.
fn show_wish(id: &str, request: &Applying, progress: &Progress) {
    info!(
        "enrolment={id} app={} device={}",
        request.app, request.device
    );
    let names = show::namespaces(&request.namespaces);
    progress.note(format_args!(
        "asked for {names}, as {} on {}",
        request.app, request.device
    ));
}

/// How its owner knows and approves it.
fn show_request(who: &AtSign, id: &str, progress: &Progress) {
    let code = show::code(id);
    if !progress.is_silent()
        && io::stderr().is_terminal()
        && let Some(image) = show::qr(&show::link(who, id))
    {
        // In colours, which are ours.
        out::note(image);
    }
    progress.note(format_args!("the short id of this request is {code}"));
    progress.note(format_args!(
        "on a device with keys: noports enroll approve {who} {code}"
    ));
}

/// Why waiting ended without keys.
enum NotGranted {
    Said(EnrolmentStatus),
    Late,
    Failed(Failure),
}

impl From<AtError> for NotGranted {
    fn from(error: AtError) -> Self {
        Self::Failed(error.into())
    }
}

impl NotGranted {
    /// In words; where nothing can come of it any more, the draft goes.
    fn tell(self, who: &AtSign, id: &str, draft: &DraftKeyFile, patience: Duration) -> Failure {
        let code = show::code(id);
        let said = match self {
            Self::Failed(failure) => return failure,
            Self::Late => {
                let late = format!(
                    "nobody approved the request {code} within {}",
                    in_words(patience)
                );
                return Failure::plain(late).hint(
                    "the request stays open for two days; run the same command again to keep waiting",
                );
            }
            Self::Said(verdict) => verdict,
        };
        draft.discard();
        let what = match said {
            EnrolmentStatus::Denied => format!("the request {code} was denied"),
            EnrolmentStatus::Revoked => format!("the enrolment {code} was revoked"),
            _ => format!("the request {code} has expired, or was deleted"),
        };
        Failure::new(exit::LOGIN, what).hint(format!(
            "ask a device with keys of {who}; a new request needs a new passcode"
        ))
    }
}

/// Tries to log in until somebody has decided.
async fn wait(
    network: &Network,
    applicant: &Applicant,
    id: &str,
    patience: Duration,
) -> Result<Link, NotGranted> {
    let keys = applicant.provisional(Some(id));
    let mut backoff = Backoff::new(POLL.0, POLL.1);
    let decided = async {
        loop {
            match try_login(network, &keys).await {
                Ok(link) => return Ok(link),
                Err(AtError::Login { fault, .. }) if enrolment::verdict(&fault).is_some() => {
                    match enrolment::verdict(&fault) {
                        Some(EnrolmentStatus::Pending) | None => {}
                        Some(verdict) => return Err(NotGranted::Said(verdict)),
                    }
                }
                Err(error) if error.may_pass() => {
                    info!("waiting reason={:?}", error.to_string());
                }
                Err(error) => return Err(error.into()),
            }
            task::sleep(backoff.pause(jitter())).await;
        }
    };
    timeout(patience, decided)
        .await
        .unwrap_or(Err(NotGranted::Late))
}

async fn try_login(network: &Network, keys: &AtKeys) -> Result<Link, AtError> {
    let mut link = Link::connect(network, &keys.atsign).await?;
    link.login(keys).await?;
    Ok(link)
}

/// Fetches alice's keys, which the approver left encrypted for us. They must fit `ours`, her public one.
async fn fetch(
    link: &mut Link,
    applicant: Applicant,
    id: &str,
    ours: &PublicKey,
) -> Result<AtKeys, Failure> {
    let who = applicant.atsign().clone();
    let private = link.ask(&enrolment::fetch_private_key(&who, id)).await?;
    let self_key = link.ask(&enrolment::fetch_self_key(&who, id)).await?;
    let keys = applicant.complete(id, &private, &self_key).map_err(|_| {
        Failure::new(
            exit::NOT_TRUSTWORTHY,
            "the keys that the approver encrypted for this device cannot be opened",
        )
        .hint("ask again, and have the request approved by another program or device")
    })?;
    if keys.encryption.public().is_same_key(ours) {
        return Ok(keys);
    }
    let others = format!("the keys received are not those of {who}");
    Err(Failure::new(exit::NOT_TRUSTWORTHY, others)
        .hint("the approver may have acted for another atSign; ask again"))
}
