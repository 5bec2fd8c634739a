//! `noports client`: an ssh session to a device that has no open port.
//!
//! ```text
//!   1 log in            own atServer: one connection for commands, one for what comes back
//!   2 ask at once       daemon: who are you, what can you do?   rendezvous: two ports, please
//!   3 request           signed, with a fresh public key; the daemon starts its bridge and answers
//!   4 our bridge        dial the rendezvous, say who we are, join
//!   5 ssh               on our loopback port; or stdin and stdout are the session (--stdio)
//! ```
//!
//! Steps 1 to 3 are [`ask`](crate::session::ask)'s, for every kind of session; 4 and 5 are in [`login`]. With `--stdio` our
//! bridge is a task of this process, else one of its own: it stays as long as an ssh uses it, also one that goes to the
//! background (`-f`, `ForkAfterAuthentication`, `ControlPersist`).
//!
//! With daemons and flags of other generations, step 4 is another one:
//!
//! | session | 4 | where |
//! | --- | --- | --- |
//! | encrypted by us | our bridge | [`login`] |
//! | not encrypted, or 5.0 to 5.2 | an ssh with the device's temporary key carries the person's | [`two_sshs`] |
//! | 4.0.0-rc.2 | the same with the person's key | [`two_sshs`] |
//! | 3.x (`--legacy-daemon`) | the device's ssh carries it, from there to here | [`reverse`] |
//!
//! Sequential round trips, and why none of them can go, are listed in `tests/bench/first_byte.rs`.
//!
//! # What ssh is told
//!
//! To ssh the device's name is `pi.my_device.noports`: what `~/.ssh/config` says about that name (or `*.noports`) counts, such
//! as `IdentityFile`, except `User`: that is the name that the device tells, unless `--user` or a typed `-l` says another
//! (with `--stdio` it is `User`; a name with blanks stands in quotes there: `User "jane doe"`). What it says about
//! `localhost` does not count, and what would lead elsewhere (`HostName`, `Port`, `ProxyJump`, `ControlPath` …) is overruled.
//! Typed behind `--` a `ControlPath` wins, the others are refused; `%h` (`%n`, `%k`, `%C`) in it stands for the device, and one
//! without any of these, which all devices would share, is refused. In its own lines ssh calls the device `::ffff:127.0.0.1`
//! ("Connection to ::ffff:127.0.0.1 closed."): that is our end of the tunnel. With `ControlPersist` ssh throws away what a
//! ProxyCommand says: `ssh -S none pi` shows why it failed.

use std::{future::Future, io, process::ExitCode};

use async_std::task;
use futures_lite::future;
use log::{LevelFilter, info, warn};

use crate::{
    classic::{
        reverse,
        two_sshs::{self, Carrier},
    },
    cli::{self, Console, Failure, Progress, exit},
    np::{
        far_end::FarEnd,
        ids::SessionId,
        session::Generation,
        sshkey::{KeyFate, PublicKeyLine},
    },
    pipe::cipher::Side,
    session::{
        ask::{Details, OpenSession, Prepared, Want, prepare, tell_if_slow},
        launch::LocalAddress,
    },
    sys::{self, signal, ssh::UserName},
    text::endpoint::Endpoint,
};

use args::{Mode, Settings};
use login::{LocalEntry, find_ssh, free_port, in_background, print, shell, stdio};

mod args;
mod login;

pub(crate) use args::Args;

/// The program.
pub fn main(console: Console, words: &[&str]) -> ExitCode {
    // Two threads: one for the sockets, one so that making the ephemeral key does not hold them up.
    console.start(words, LevelFilter::Warn, 2, story)
}

async fn story(console: &Console, args: Args) -> Result<ExitCode, Failure> {
    let settings = args.settings(console).await?;
    let (network, keys) = args.account().load(console, args.as_.as_deref())?;
    if settings.mode == Mode::Shell {
        find_ssh()?;
    }
    // A ProxyCommand's stderr is the screen of somebody waiting for a shell: silence unless asked.
    let mut progress =
        console.progress(args.quiet || (settings.mode == Mode::Stdio && args.verbose == 0));

    if settings.mode != Mode::Stdio {
        // A port that cannot be had is told before anybody is asked for a session.
        free_port(settings.local_port).await?;
    }
    let slow = (settings.mode == Mode::Stdio && !args.quiet && !console.is_classic())
        .then(|| task::spawn(tell_if_slow("client", settings.whom.clone())));
    // The user name: as told, else what the daemon published for us. --stdio leaves it to ssh.
    let details = Details {
        user_name: settings.user.is_none() && settings.mode != Mode::Stdio,
        features: settings.send_key.is_some(),
    };
    let want = Want::Ssh(details);
    let mut prepared = prepare(&network, keys, &settings.whom, want, &mut progress).await?;
    if let Some(key) = &settings.send_key {
        send_key(&mut prepared, key, &mut progress).await?;
    }
    let user = user(&prepared, &settings)?;
    if settings.whom.terms.generation == Generation::V3 {
        let user = user.ok_or_else(|| no_user(&settings))?;
        let reached = until_told(async {
            let port = let_the_device_in(prepared, &settings, &mut progress).await?;
            go(
                LocalEntry::Port(port),
                &settings,
                Some(&user),
                &mut progress,
            )
            .await
        });
        return reached.await;
    }
    let words = settings.whom.terms.generation;
    let opened = prepared.request(want, &mut progress).await?;
    if let Some(slow) = slow {
        slow.cancel().await;
    }
    if settings.mode == Mode::Stdio {
        return stdio(opened.ready.far).await;
    }
    if user.is_none() && settings.classic {
        return Err(no_user(&settings));
    }
    match reach(opened, words, &settings)? {
        // Without a name ssh takes its own: the person's here, or what its settings say.
        Transport::Bridge(far, session) => {
            go(
                LocalEntry::Bridge(Box::new(far), session),
                &settings,
                user.as_ref(),
                &mut progress,
            )
            .await
        }
        Transport::OuterSsh(far, session, key) => {
            let user = user.ok_or_else(|| no_user(&settings))?;
            let reached = until_told(async {
                let port = tunnel(far, session, key, &settings, &user, &mut progress).await?;
                go(
                    LocalEntry::Port(port),
                    &settings,
                    Some(&user),
                    &mut progress,
                )
                .await
            });
            reached.await
        }
    }
}

/// A key that is not let in is told in any case; another one may do.
async fn send_key(
    prepared: &mut Prepared,
    key: &PublicKeyLine,
    progress: &mut Progress,
) -> Result<(), Failure> {
    progress.classic("Sharing ssh public key");
    match prepared.send_key(key).await? {
        Some(KeyFate::Added) => progress
            .done("the device lets the ssh public key in, as the user that its daemon runs as"),
        Some(KeyFate::Known) => progress.done("the device let the ssh public key in before"),
        Some(KeyFate::Lost(why)) => {
            cli::print_err(&format!(
                "WARNING: the device does not let the ssh public key in: {why}"
            ));
        }
        None => progress.done(
            "sent the ssh public key; the device has not said what it made of it (its log tells)",
        ),
    }
    Ok(())
}

/// What leaves something on this machine for a moment, a key in a file: told to end, it is dropped, which takes that away
/// again. The signals are heard from before it begins.
async fn until_told<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let deaf = |error: io::Error| Failure::plain(format!("cannot listen for signals: {error}"));
    let mut asked = signal::StopSignals::new().map_err(deaf)?;
    let told = async {
        let how = asked.stop().await.map_err(deaf)?;
        Err(Failure::new(how.code(), format!("stopped by {how}")))
    };
    future::or(told, work).await
}

async fn go(
    reach: LocalEntry,
    settings: &Settings,
    user: Option<&UserName>,
    progress: &mut Progress,
) -> Result<ExitCode, Failure> {
    match settings.mode {
        Mode::Print => print(reach, settings, user, progress).await,
        Mode::Shell | Mode::Stdio => shell(reach, settings, user, progress).await,
    }
}

fn user(prepared: &Prepared, settings: &Settings) -> Result<Option<UserName>, Failure> {
    match &prepared.user {
        None => Ok(settings.user.clone()),
        Some(published) => published.parse().map(Some).map_err(|why| {
            let strange = format!("the device published an invalid user name: {why}");
            Failure::new(exit::NOT_TRUSTWORTHY, strange).hint("--user NAME")
        }),
    }
}

/// What carries the person's ssh in this session.
enum Transport {
    /// Our bridge.
    Bridge(FarEnd, SessionId),
    /// Another ssh, which logs in with this key.
    OuterSsh(FarEnd, SessionId, two_sshs::LoginKey),
}

fn reach(
    opened: OpenSession,
    words: Generation,
    settings: &Settings,
) -> Result<Transport, Failure> {
    let OpenSession { ready, session, .. } = opened;
    let (far, temporary) = (ready.far, ready.ephemeral_key);
    let encrypted = far.keys.is_some();
    let two = !encrypted;
    #[cfg(feature = "held")]
    let two = two || settings.whom.habits.two_sshs;
    let key = match temporary.filter(|_| two) {
        Some(pem) => two_sshs::LoginKey::Temporary(pem),
        #[cfg(feature = "held")]
        None if settings.whom.habits.two_sshs => {
            let why = "the device sent no temporary ssh key";
            return Err(Failure::new(exit::DEVICE_REFUSED, why)
                .classic("Expected an ephemeral private key from sshnpd, but it was not set"));
        }
        None if words == Generation::V4Rc2 => {
            let own = settings.identity.clone().ok_or_else(|| {
                Failure::misuse("this device's daemon needs your own ssh key for the outer ssh")
                    .hint("--identity ~/.ssh/id_ed25519")
            })?;
            two_sshs::LoginKey::Own(own)
        }
        None => {
            say(session, "single", encrypted);
            if settings.inside.sshd != DEFAULT_SSHD {
                warn!("--remote-sshd-port has no effect here: the daemon decides");
            }
            return Ok(Transport::Bridge(far, session));
        }
    };
    say(session, "double", encrypted);
    Ok(Transport::OuterSsh(far, session, key))
}

/// An ssh that carries another: opens it; returns the loopback port that leads to the device's sshd.
async fn tunnel(
    far: FarEnd,
    session: SessionId,
    key: two_sshs::LoginKey,
    settings: &Settings,
    user: &UserName,
    progress: &mut Progress,
) -> Result<u16, Failure> {
    progress.begin("opening a tunnel");
    progress.classic("Creating connection to socket rendezvous");
    let bare = far.admission.is_none() && far.keys.is_none();
    let to = if bare {
        // As the classic clients do; nothing needs to be said to this rendezvous.
        far.rendezvous
    } else {
        let local = LocalAddress::Port(0, two_sshs::BRIDGE);
        Endpoint {
            host: "localhost".to_owned(),
            port: in_background(&far, local).await?,
        }
    };
    progress.classic("Starting tunnel session");
    let carrier = Carrier {
        ssh: find_ssh()?,
        user,
        to: &to,
        alias: &login::alias(settings),
        listen: free_port(settings.local_port).await?,
        inside: &settings.inside,
    };
    carrier.connect(session, key).await?;
    let listen = carrier.listen;
    progress.done(format!("tunnel open on port {listen}"));
    Ok(listen)
}

/// `--legacy-daemon`: the device logs in here; returns the loopback port that leads to its sshd.
async fn let_the_device_in(
    mut prepared: Prepared,
    settings: &Settings,
    progress: &mut Progress,
) -> Result<u16, Failure> {
    let me =
        sys::user::name().ok_or_else(|| Failure::plain("this user has no name on this machine"))?;
    let forward = free_port(settings.local_port).await?;
    progress.begin("allowing the device to log in here for this session");
    let sshd = Endpoint {
        host: "localhost".to_owned(),
        port: settings.local_sshd_port,
    };
    let far = FarEnd {
        rendezvous: prepared.our_end(),
        admission: None,
        socket_key: None,
        keys: None,
        // Nothing is encrypted, so either would do.
        side: Side::Device,
    };
    let session = prepared.session();
    let log_in = async |key| {
        let bridge = in_background(&far, LocalAddress::Service(&sshd, None)).await;
        bridge.map_err(|failure| {
            failure.hint(format!(
                "--legacy-daemon needs an sshd here, at {sshd}: --local-sshd-port"
            ))
        })?;
        prepared.reverse(forward, &me, &key).await
    };
    reverse::client::let_in(session, &sshd, log_in).await?;
    progress.done(format!(
        "the device has logged in; local port {forward} leads to it"
    ));
    Ok(forward)
}

fn say(session: SessionId, ssh: &str, encrypted: bool) {
    info!("session={session} ssh={ssh} encrypted={encrypted}");
}

fn no_user(settings: &Settings) -> Failure {
    Failure::misuse(format!(
        "{}{} has not told you a user name",
        settings.whom.device, settings.whom.to
    ))
    .hint("--user NAME")
    .classic("Remote username record not shared with the client")
}

/// Where sshd listens unless somebody says otherwise.
const DEFAULT_SSHD: u16 = 22;
