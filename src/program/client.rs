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
//! Steps 1 to 3 are [`ask`](crate::session::ask)'s, for every kind of session; 4 and 5 are in [`login`]. For a person's ssh
//! our bridge is a task of this process; with `--print` it is a process that stays.
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
//! as `IdentityFile`, except `User`: that is the name that the device tells, unless `--user` says another. What it says about
//! `localhost` does not count, and what would lead elsewhere (`HostName`, `Port`, `ProxyJump`, `ControlPath` …) is overruled.
//! Typed behind `--` a `ControlPath` wins, the others are refused; `%h` (`%n`, `%k`, `%C`) in it stands for the device, and one
//! without any of these, which all devices would share, is refused. In its own lines ssh calls the device `::ffff:127.0.0.1`
//! ("Connection to ::ffff:127.0.0.1 closed."): that is our end of the tunnel. With `ControlPersist` ssh throws away what a
//! ProxyCommand says: `ssh -S none pi` shows why it failed.

use std::{
    future::Future,
    io,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use argh::{ArgsInfo, FromArgs};
use futures_lite::future;
use log::{LevelFilter, info, warn};

use crate::{
    classic::{
        reverse,
        two_sshs::{self, Carrier, CarrierOptions},
    },
    cli::{Console, Failure, Progress, exit, with_account},
    np::far_end::FarEnd,
    np::{
        ids::SessionId,
        session::{Generation, Terms},
        sshkey::{self, PublicKeyLine},
    },
    pipe::cipher::Side,
    session::{
        ask::{Details, OpenSession, PATIENCE, Prepared, Want, Whom, prepare},
        launch::LocalAddress,
    },
    sys::{self, signal, ssh::UserName},
    text::{
        duration::seconds,
        endpoint::Endpoint,
        port::{port, port_or_any},
    },
};

use login::{SshPath, check_words, find_ssh, free_port, in_background, print, shell, stdio};

mod login;

with_account! {
    /// Open an ssh session to a device that has no open port.
    ///
    /// Your machine and the device both connect outward to a rendezvous, which relays what they encrypt end to end. Then ssh
    /// runs as usual, with your own ssh keys.
    #[derive(FromArgs, ArgsInfo)]
    #[argh(
        example = "{command_name} --to @kitchen --device pi --via @rv_eu",
        example = "{command_name} --to @kitchen --device pi --via @rv_eu --print",
        example = "{command_name} --to @kitchen --device pi --via @rv_eu -- -L 8080:nas:80"
    )]
    struct Args {
        /// the device's atSign
        #[argh(option, arg_name = "atsign")]
        to: String,
        /// which device of that atSign (default: "default")
        #[argh(option, arg_name = "name")]
        device: Option<String>,
        /// the rendezvous' atSign (or NOPORTS_VIA)
        #[argh(option, arg_name = "atsign")]
        via: Option<String>,
        /// your atSign (or NOPORTS_AS; default: the only one with keys here)
        #[argh(option, long = "as", arg_name = "atsign")]
        as_: Option<String>,
        /// user name on the device (default: the name its daemon publishes)
        #[argh(option, arg_name = "name")]
        user: Option<String>,
        /// private key file for ssh
        #[argh(option, arg_name = "file")]
        identity: Option<String>,
        /// add this ssh public key to authorized_keys on the device, permanently; its daemon must accept keys
        #[argh(option, arg_name = "file")]
        send_key: Option<PathBuf>,
        /// carry the session on stdin and stdout, for ssh's ProxyCommand; open no port
        #[argh(switch)]
        stdio: bool,
        /// print the ssh command, keep its port open in the background, and return
        #[argh(switch)]
        print: bool,
        /// local port for ssh to connect to (default: any free one)
        #[argh(option, arg_name = "port", default = "0", from_str_fn(port_or_any))]
        local_port: u16,
        /// how long to wait for each answer (default: 20s)
        #[argh(option, arg_name = "duration", default = "PATIENCE", from_str_fn(seconds))]
        timeout: Duration,
        /// turn off end-to-end encryption of the relayed stream; ssh still encrypts (daemons before 5.0)
        #[argh(switch, hidden_help)]
        no_encrypt: bool,
        /// do not log in at the rendezvous (rendezvous before 5.0)
        #[argh(switch, hidden_help)]
        no_admit_client: bool,
        /// let the device connect to the rendezvous without logging in (daemons before 5.0)
        #[argh(switch, hidden_help)]
        no_admit_device: bool,
        /// let the device log in to an sshd on this machine for the session (daemons before 4.0)
        #[argh(switch, hidden_help)]
        legacy_daemon: bool,
        /// with --legacy-daemon: port of the sshd on this machine (default: 22)
        #[argh(option, arg_name = "port", default = "22", from_str_fn(port), hidden_help)]
        local_sshd_port: u16,
        /// where an outer ssh carries the session: port of the device's sshd (default: 22)
        #[argh(option, arg_name = "port", default = "22", from_str_fn(port), hidden_help)]
        remote_sshd_port: u16,
        /// user name on the device for the outer ssh (default: the same as for the inner one)
        #[argh(option, arg_name = "name", hidden_help)]
        tunnel_user: Option<String>,
        /// apply the forwardings given after -- to the outer ssh
        #[argh(switch, hidden_help)]
        add_forwards_to_tunnel: bool,
        /// how long the outer ssh may stay idle (default: 15s)
        #[argh(
            option,
            arg_name = "duration",
            default = "two_sshs::IDLE",
            from_str_fn(seconds),
            hidden_help
        )]
        idle_timeout: Duration,
        /// print results as JSON lines on stdout
        #[argh(switch)]
        json: bool,
        /// options for ssh, and a command to run on the device
        #[argh(positional, greedy)]
        ssh: Vec<String>,
    }
}

/// What the arguments mean, complete.
struct Settings {
    whom: Whom,
    user: Option<UserName>,
    identity: Option<PathBuf>,
    mode: Mode,
    local_port: u16,
    send_key: Option<PublicKeyLine>,
    local_sshd_port: u16,
    inside: CarrierOptions,
    /// Behind `--`.
    ssh: Vec<String>,
    json: bool,
    /// Asked for by the classic program's name.
    classic: bool,
}

/// What the person gets.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Shell,
    Stdio,
    Print,
}

/// The program.
pub fn main(mut console: Console, words: &[&str]) -> ExitCode {
    let args: Args = match console.parse(words) {
        Ok(args) => args,
        Err(code) => return code,
    };
    sys::log::start(LevelFilter::Warn, args.verbose, args.quiet);
    sys::process::protect_memory();
    let json = args.json;
    // Two threads: one for the sockets, one so that making the ephemeral key does not hold them up.
    console.run_client(json, 2, story(&console, args))
}

impl Args {
    async fn settings(&self, console: &Console) -> Result<Settings, Failure> {
        let (device, via) = (self.device.as_deref(), self.via.as_deref());
        let mut whom = Whom::parse(&self.to, device, via, self.timeout)?;
        let terms = whom.terms;
        whom.terms = terms.without(self.no_encrypt, self.no_admit_client, self.no_admit_device);
        if self.legacy_daemon {
            whom.terms = Terms::of(Generation::V3);
        }
        let mode = match (self.stdio, self.print) {
            (true, true) => return Err(Failure::misuse("--stdio and --print exclude each other")),
            (true, false) => Mode::Stdio,
            (false, true) => Mode::Print,
            (false, false) => Mode::Shell,
        };
        if mode == Mode::Stdio && whom.terms.generation == Generation::V3 {
            let why = "--stdio and --legacy-daemon exclude each other";
            return Err(Failure::misuse(why).hint("leave out one of them"));
        }
        if mode != Mode::Stdio {
            check_words(&self.ssh)?;
        }
        let name = |typed: &Option<String>| typed.as_deref().map(str::parse).transpose();
        let (ssh, for_tunnel) = if self.add_forwards_to_tunnel {
            two_sshs::take_forwards(&self.ssh)
        } else {
            (self.ssh.clone(), Vec::new())
        };
        let inside = CarrierOptions {
            user: name(&self.tunnel_user).map_err(misuse)?,
            sshd: self.remote_sshd_port,
            options: [two_sshs::for_both(&self.ssh), for_tunnel].concat(),
            idle: self
                .idle_timeout
                .clamp(two_sshs::LEAST_IDLE, two_sshs::MOST_IDLE),
        };
        Ok(Settings {
            whom,
            user: name(&self.user).map_err(misuse)?,
            identity: self.identity.clone().map(PathBuf::from),
            mode,
            local_port: self.local_port,
            send_key: match &self.send_key {
                Some(file) => Some(read_key(file).await?),
                None => None,
            },
            local_sshd_port: self.local_sshd_port,
            inside,
            ssh,
            json: self.json,
            classic: console.is_classic(),
        })
    }
}

/// A public key's file. Who names the private one by mistake must not send it.
async fn read_key(file: &Path) -> Result<PublicKeyLine, Failure> {
    let failed = |why: &dyn std::fmt::Display| {
        Failure::misuse(format!("{}: {why}", file.display()))
            .hint("--send-key ~/.ssh/id_ed25519.pub")
    };
    let most = sshkey::MAX_PUBLIC_KEY as u64 + 2;
    let text = sys::file::text(file, most).await;
    let text = text.map_err(|error| failed(&error))?;
    PublicKeyLine::parse(&text).map_err(|error| failed(&error))
}

fn misuse(error: impl std::fmt::Display) -> Failure {
    Failure::misuse(error.to_string())
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

    // The user name: as told, else what the daemon published for us. --stdio leaves it to ssh.
    let details = Details {
        user_name: settings.user.is_none() && settings.mode != Mode::Stdio,
        features: settings.send_key.is_some(),
    };
    let want = Want::Ssh(details);
    let prepared = prepare(&network, keys, &settings.whom, want, &mut progress).await?;
    if let Some(key) = &settings.send_key {
        progress.classic("Sharing ssh public key");
        prepared.send_key(key).await?;
        progress.done("the ssh public key is on its way");
    }
    let user = user(&prepared, &settings)?;
    if settings.whom.terms.generation == Generation::V3 {
        let user = user.ok_or_else(|| no_user(&settings))?;
        let reached = until_told(async {
            let port = let_the_device_in(prepared, &settings, &mut progress).await?;
            go(SshPath::Port(port), &settings, &user, &mut progress).await
        });
        return reached.await;
    }
    let words = settings.whom.terms.generation;
    let opened = prepared.request(want, &mut progress).await?;
    if settings.mode == Mode::Stdio {
        return stdio(opened.ready.far).await;
    }
    let user = user.ok_or_else(|| no_user(&settings))?;
    match reach(opened, words, &settings)? {
        Route::Straight(far) => go(SshPath::Pipe(far), &settings, &user, &mut progress).await,
        Route::Within(far, session, key) => {
            let reached = until_told(async {
                let port = tunnel(far, session, key, &settings, &user, &mut progress).await?;
                go(SshPath::Port(port), &settings, &user, &mut progress).await
            });
            reached.await
        }
    }
}

/// What leaves something on this machine for a moment, a key in a file: told to end, it is dropped, which takes that away
/// again. The signals are heard from before it begins.
async fn until_told<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let deaf = |error: io::Error| Failure::plain(format!("no signals: {error}"));
    let mut asked = signal::StopSignals::new().map_err(deaf)?;
    let told = async {
        asked.stop().await.map_err(deaf)?;
        Err(Failure::plain("told to end"))
    };
    future::or(told, work).await
}

async fn go(
    reach: SshPath,
    settings: &Settings,
    user: &UserName,
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
            let strange = format!("the device published a strange user name: {why}");
            Failure::new(exit::NOT_TRUSTWORTHY, strange).hint("--user NAME")
        }),
    }
}

/// How the person's ssh gets to the device in this session.
enum Route {
    /// Through our bridge.
    Straight(FarEnd),
    /// Through another ssh, which logs in with this key.
    Within(FarEnd, SessionId, two_sshs::LoginKey),
}

fn reach(opened: OpenSession, words: Generation, settings: &Settings) -> Result<Route, Failure> {
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
                Failure::misuse("this device's daemon wants your own key for the tunnel")
                    .hint("--identity ~/.ssh/id_ed25519")
            })?;
            two_sshs::LoginKey::Own(own)
        }
        None => {
            say(session, "single", encrypted);
            if settings.inside.sshd != DEFAULT_SSHD {
                warn!(
                    "--remote-sshd-port counts only where one ssh carries another; here the daemon decides"
                );
            }
            return Ok(Route::Straight(far));
        }
    };
    say(session, "double", encrypted);
    Ok(Route::Within(far, session, key))
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
    let me = sys::user::name()
        .ok_or_else(|| Failure::plain("this machine does not know who you are"))?;
    let forward = free_port(settings.local_port).await?;
    progress.begin("letting the device log in here for this session");
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
        let bridge = in_background(&far, LocalAddress::Service(&sshd)).await;
        bridge.map_err(|failure| {
            failure.hint(format!(
                "--legacy-daemon needs an sshd here, at {sshd}: --local-sshd-port"
            ))
        })?;
        prepared.reverse(forward, &me, &key).await
    };
    reverse::client::let_in(session, sshd.port, log_in).await?;
    progress.done(format!(
        "the device has logged in; it is behind port {forward}"
    ));
    Ok(forward)
}

fn say(session: SessionId, ssh: &str, encrypted: bool) {
    info!("session={session} ssh={ssh} encrypted={encrypted}");
}

fn no_user(settings: &Settings) -> Failure {
    Failure::misuse(format!(
        "{}{} does not publish a user name for you",
        settings.whom.device, settings.whom.to
    ))
    .hint("--user NAME")
    .classic("Remote username record not shared with the client")
}

/// Where sshd listens unless somebody says otherwise.
const DEFAULT_SSHD: u16 = 22;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{fs, pin::pin};

    use async_std::task::block_on;
    use futures_lite::future::poll_once;

    use super::*;
    use crate::testing::named_pipe;

    #[test]
    fn a_key_that_comes_through_a_pipe_holds_nobody_up_and_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = named_pipe(folder.path());
        let mut key = pin!(read_key(&pipe));
        // Before anybody writes, others have their turn.
        assert!(block_on(poll_once(&mut key)).is_none());
        let line =
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f me\n";
        fs::write(&pipe, line).unwrap();
        assert_eq!(block_on(key).unwrap(), PublicKeyLine::parse(line).unwrap());
    }

    #[test]
    fn what_is_no_key_is_refused_however_long_it_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        for device in [
            Path::new("/dev/zero"),
            Path::new("/dev/null"),
            folder.path(),
        ] {
            let refused = block_on(read_key(device)).err().unwrap();
            assert_eq!(refused.code, exit::MISUSE, "{}", refused.message);
        }
    }
}
