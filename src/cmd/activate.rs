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

use ::log::LevelFilter;
use argh::FromArgs;

use crate::{
    at::{
        AtKey, AtSign, Metadata, Verb,
        client::{AtError, Client, Link, Network},
        enroll,
        fault::Code,
        key::Scope,
        keyfile::AtKeys,
        verb::Detail,
    },
    secret::Secret,
    sys::{log, process},
};

use super::common::{self, Failure, Progress, exit};

use draft::Draft;
use secret::{read_secret, refuse_secrets};

mod draft;
mod secret;

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
    /// log more; may be repeated
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
    log::start(LevelFilter::Warn, args.verbose, args.quiet);
    process::protect_memory();
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
    let mut link = Link::open(network, who).await?;
    progress.done(format_args!("found {who}'s atServer"));
    let draft = Draft::of(file);
    let keys = match draft.read(who)? {
        Some(keys) => {
            refuse_overwriting(file)?;
            progress.note(format_args!(
                "going on with the keys in {}",
                draft.0.display()
            ));
            resume(network, &draft, keys, &mut link, secret, progress).await?
        }
        None => {
            if is_activated(&mut link, who).await? {
                return Err(already(who, file));
            }
            refuse_overwriting(file)?;
            log_in_by_secret(&mut link, who, &secret()?).await?;
            progress.done("the secret is right");
            let keys = mint(who, progress).await?;
            draft.write(&keys)?;
            register(&mut link, &draft, keys).await?
        }
    };
    drop(link);
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
    if is_activated(link, &who).await? {
        let place = draft.0.display();
        return Err(Failure::plain(format!(
            "{who} is activated already, with other keys than those in {place}"
        ))
        .hint(format!("if you have the right keys, remove {place}")));
    }
    log_in_by_secret(link, &who, &secret()?).await?;
    progress.done("the secret is right");
    register(link, draft, keys).await
}

/// An activated atSign has a public encryption key.
async fn is_activated(link: &mut Link, who: &AtSign) -> Result<bool, Failure> {
    let published = Verb::Lookup {
        key: AtKey::own("publickey", who),
        detail: Detail::Value,
        bypass_cache: false,
    };
    match link.ask(&published).await {
        Ok(text) => Ok(text.trim() != "null"),
        Err(AtError::Refused(fault)) if fault.is_key_not_found() => Ok(false),
        Err(error) => Err(error.into()),
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
            format!("{who}'s atServer takes no secret any more: it was activated before"),
        )
        .hint(elsewhere(who)),
        Some(Code::Unauthenticated) => Failure::new(
            exit::LOGIN,
            format!("{who}'s atServer does not accept this secret"),
        )
        .hint("was all of it copied, and is it the one for this atSign?"),
        _ => error.into(),
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
async fn register(link: &mut Link, draft: &Draft, keys: AtKeys) -> Result<AtKeys, Failure> {
    match link.ask(&enroll::first_request(&keys)?).await {
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
            let old = Verb::Update {
                key: reserved("at_pkam_publickey"),
                metadata: Metadata::default(),
                value: keys.pkam.public().text.clone(),
            };
            link.ask(&old).await?;
            Ok(keys)
        }
        Err(error) => Err(error.into()),
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::{fs, future::Future, net::IpAddr, os::unix::fs::PermissionsExt};

    use crate::{
        at::directory::Root,
        net::{dial::Endpoint, tls::Connector},
        server::{
            authority,
            listen::{self, Options, Running, Timings},
        },
    };

    /// A folder, a server in this process, and how to reach it.
    struct World {
        folder: PathBuf,
        running: Running,
        network: Network,
    }

    impl World {
        async fn start() -> Self {
            let folder = std::env::temp_dir().join(format!("np-act-{}", uuid::Uuid::new_v4()));
            let data = folder.join("data");
            let authority = authority::open_or_make(&data).unwrap();
            let options = Options {
                data,
                listen: IpAddr::from([127, 0, 0, 1]),
                host: "localhost".into(),
                directory_port: 0,
                first_port: 0,
                domain: None,
                timings: Timings::default(),
            };
            let acceptor = authority.leaf(&[]).unwrap().acceptor().unwrap();
            let running = listen::start(options, acceptor).await.unwrap();
            let network = Network {
                root: Root::Directory(Endpoint {
                    host: "localhost".into(),
                    port: running.directory().port(),
                }),
                tls: Connector::new(&[authority.ca_file()]).unwrap(),
            };
            Self {
                folder,
                running,
                network,
            }
        }

        fn file(&self, who: &AtSign) -> PathBuf {
            self.folder.join("keys").join(AtKeys::file_name(who))
        }

        async fn activate(&self, who: &AtSign, secret: &Secret<String>) -> Result<(), Failure> {
            let mut quiet = Progress::new(true);
            let secret = || Ok(secret.clone());
            activate(&self.network, who, &self.file(who), secret, &mut quiet).await
        }
    }

    /// Runs a story in a world of its own.
    fn in_world<F: Future<Output = ()>>(story: impl FnOnce(Arc<World>) -> F) {
        async_std::task::block_on(async {
            let world = Arc::new(World::start().await);
            story(world.clone()).await;
            let world = Arc::into_inner(world).unwrap();
            world.running.stop().await;
            fs::remove_dir_all(&world.folder).unwrap();
        });
    }

    fn at(text: &str) -> AtSign {
        text.parse().unwrap()
    }

    fn mode(file: &Path) -> u32 {
        fs::metadata(file).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn an_activation_leaves_a_working_key_file_and_happens_once() {
        in_world(async |world| {
            let alice = at("@alice");
            let secret = world.running.add(&alice).await.unwrap();
            let wrong = Secret::new("0".repeat(secret.reveal().len()));
            let failure = world.activate(&alice, &wrong).await.unwrap_err();
            assert!(
                failure.message.contains("does not accept this secret"),
                "{failure}"
            );
            assert_eq!(failure.code, exit::LOGIN);
            assert!(
                !Draft::of(&world.file(&alice)).0.exists(),
                "no keys for a wrong secret"
            );

            world.activate(&alice, &secret).await.unwrap();
            let file = world.file(&alice);
            assert_eq!(mode(&file), 0o600);
            assert_eq!(
                fs::read_dir(file.parent().unwrap()).unwrap().count(),
                1,
                "no drafts"
            );
            let keys = common::read_keys(&alice, &file).unwrap();
            assert!(keys.enrollment_id.is_some());
            let client = log_in(&world.network, &keys).await.unwrap();
            let published = client.public_key(&alice).await.unwrap();
            assert_eq!(published.as_ref(), Some(keys.encryption.public()));
            assert!(world.running.list().await.unwrap()[0].activated);

            let again = world.activate(&alice, &secret).await.unwrap_err();
            assert!(again.message.contains("activated already"), "{again}");
            assert!(again.hint.unwrap().contains("seem to be here"));
            fs::remove_file(&file).unwrap();
            let again = world.activate(&alice, &secret).await.unwrap_err();
            assert!(again.hint.unwrap().contains("noports enroll @alice"));
        });
    }

    #[test]
    fn an_atsign_that_is_not_hosted_is_unknown() {
        in_world(async |world| {
            let failure = world
                .activate(&at("@nobody"), &Secret::new("s".into()))
                .await
                .unwrap_err();
            assert_eq!(failure.code, exit::UNKNOWN, "{failure}");
        });
    }

    #[test]
    fn a_key_file_is_never_overwritten() {
        in_world(async |world| {
            let alice = at("@alice");
            let secret = world.running.add(&alice).await.unwrap();
            let file = world.file(&alice);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, "precious").unwrap();
            let failure = world.activate(&alice, &secret).await.unwrap_err();
            assert_eq!(failure.code, exit::KEYS, "{failure}");
            assert_eq!(fs::read(&file).unwrap(), b"precious");
        });
    }

    /// How far the run came that died.
    #[derive(Clone, Copy, Debug)]
    enum Died {
        Unheard,
        IdNotNoted,
        NotLoggedIn,
        NotRenamed,
    }

    /// Does what a run does up to there; returns its keys.
    async fn die(world: &World, who: &AtSign, secret: &Secret<String>, when: Died) -> AtKeys {
        let file = world.file(who);
        let draft = Draft::of(&file);
        if let Died::NotRenamed = when {
            world.activate(who, secret).await.unwrap();
            fs::rename(&file, &draft.0).unwrap();
            return draft.read(who).unwrap().unwrap();
        }
        let mut link = Link::open(&world.network, who).await.unwrap();
        log_in_by_secret(&mut link, who, secret).await.unwrap();
        let keys = enroll::mint(who).unwrap();
        draft.write(&keys).unwrap();
        assert_eq!(mode(&draft.0), 0o600);
        if let Died::Unheard = when {
            return keys;
        }
        register(&mut link, &draft, keys.clone()).await.unwrap();
        if let Died::IdNotNoted = when {
            draft.write(&keys).unwrap();
        }
        keys
    }

    #[test]
    fn a_run_that_died_is_finished_with_the_same_keys() {
        in_world(async |world| {
            let rows = [
                ("@a", Died::Unheard),
                ("@b", Died::IdNotNoted),
                ("@c", Died::NotLoggedIn),
                ("@d", Died::NotRenamed),
            ];
            for (who, when) in rows {
                let who = at(who);
                let secret = world.running.add(&who).await.unwrap();
                let before = die(&world, &who, &secret, when).await;
                let finished = world.activate(&who, &secret).await;
                assert_eq!(finished, Ok(()), "{when:?}");
                let after = common::read_keys(&who, &world.file(&who)).unwrap();
                assert_eq!(
                    before.encryption.public(),
                    after.encryption.public(),
                    "{when:?}"
                );
                log_in(&world.network, &after).await.unwrap();
            }
        });
    }
}
