//! `noports tunnel`: any TCP port near a device, on a port here.
//!
//! ```text
//!   local program ─▶ BIND:PORT ─▶ bridge ══▶ rendezvous ══▶ bridge ─▶ HOST:PORT, as the device sees it
//!                                 one session per forward, as many connections as come
//! ```
//!
//! A session ends by itself after a time without connections. With `--keep-alive` the local port stays, and
//! the next connection opens the next session.
//!
//! Each `--forward [BIND:]PORT:HOST:PORT` is one session for as many connections as come (`0` is any free local port); the
//! daemon must list the target in `--permit-open`, such as `localhost:22,localhost:80,nas:*`. The program ends with its last
//! session, unless `--keep-alive` is given; then a failure of the network, too, only means that the next connection opens
//! another session. `--stdio nas:22` opens no port here: the one connection is on stdin and stdout, so that
//!
//! ```text
//! Host nas
//!     ProxyCommand noports tunnel --to pi@my_device --via @my_rendezvous --stdio %h:%p
//! ```
//!
//! in `~/.ssh/config` makes `ssh nas` one hop to what is behind the device. `--print` leaves the port open in the background and prints its number.
//!
//! A new connection that cannot get to the rendezvous, in a hole of the network or for want of descriptors, costs no other:
//! it is tried again for 25 seconds, without descriptors not at all, and then reset. A session that the other end closes
//! before its time is an error (9). A target that cannot be had is told with the reason; where nothing else has come of a
//! session, it ends with 12. `localhost` and every name that ends in `.localhost` is the device itself, whatever its
//! `/etc/hosts` and name servers say, at `127.0.0.1` or else `::1`.

use std::{
    io,
    net::SocketAddr,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use argh::{ArgsInfo, FromArgs};
use async_std::{channel, net::TcpListener, task};
use log::{LevelFilter, info, warn};

use crate::{
    at::{
        client::{Network, jitter},
        keyfile::AtKeys,
    },
    cli::{self, Console, Failure, Progress, exit, flags},
    net::backoff::Backoff,
    np::request::tunnel::LONGEST,
    pipe::join::reset,
    session::{
        ask::{self, MOST_PATIENCE, OpenSession, PATIENCE, Requirement, Want, Whom, broken},
        bridge::{self, Live, Questions, TargetFailure, Visitors},
        launch::{self, Lasting, LocalAddress, Order},
    },
    sys,
    text::{
        duration::{in_words, seconds},
        endpoint::Endpoint,
        json::Object,
        terminal::harmless,
    },
};

pub use forward::{BadForward, Forward};
use talk::{IDLE, is_single, talk};

mod forward;
mod stdio;
mod talk;

/// How long a session may stand without a connection with --keep-alive, where somebody expects the port to answer at once.
const IDLE_KEPT: Duration = Duration::from_secs(600);
/// Pauses between attempts to open a session, with --keep-alive.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A session that lasted this long was a good one.
const LASTED: Duration = Duration::from_secs(10);
/// Most forwards of one program. Each is a session of its own.
const MAX_FORWARDS: usize = 16;

flags! {
    /// Make a TCP port near a device reachable on a local port.
    ///
    /// The device opens the far end of each connection, so the target can be the device itself or any host that it
    /// reaches. A session ends after 30 seconds without a connection, and the program with it.
    #[derive(FromArgs, ArgsInfo)]
    #[argh(
        example = "{command_name} --to @kitchen --device pi --via @rv_eu --forward 8080:nas:80",
        example = "{command_name} --to @kitchen --via @rv_eu --forward 0:nas:443 --print",
        example = "{command_name} --to @kitchen --via @rv_eu --forward 5432:db:5432 --keep-alive",
        example = "{command_name} --to @kitchen --via @rv_eu --stdio nas:22"
    )]
    pub(crate) struct Args {
        peer,
        /// local port, and the target as the device sees it, such as 8080:localhost:80; local port 0: any free one;
        /// address:port:host:port listens on another address than 127.0.0.1
        #[argh(option, arg_name = "port:host:port")]
        forward: Vec<String>,
        /// carry one connection to this target on stdin and stdout, for ssh's ProxyCommand; open no port
        #[argh(option, arg_name = "host:port")]
        stdio: Option<String>,
        /// let other users of this machine use the local port, too; else it is for programs of yours (and of root)
        #[argh(switch)]
        shared: bool,
        /// keep the local port, and open a new session whenever a connection needs one
        #[argh(switch)]
        keep_alive: bool,
        /// print the local port, keep it open in the background, and return
        #[argh(switch)]
        print: bool,
        /// end a session after this time without a connection; 0: never (default: 30s, with --keep-alive 10m)
        #[argh(option, arg_name = "duration", from_str_fn(seconds))]
        idle_timeout: Option<Duration>,
        /// how long to wait for each answer (default: 20s)
        #[argh(option, arg_name = "duration", default = "PATIENCE", from_str_fn(seconds))]
        timeout: Duration,
        /// authenticated: only with a device that notices whatever somebody on the way changes
        #[argh(option, arg_name = "what")]
        require: Option<Requirement>,
        /// turn off end-to-end encryption: only for protocols that encrypt their own traffic (TLS, ssh)
        #[argh(switch)]
        no_encrypt: bool,
        account,
    }
}

/// The program.
pub fn main(console: Console, words: &[&str]) -> ExitCode {
    console.start(words, LevelFilter::Warn, 2, story)
}

/// What all forwards have in common.
#[derive(Clone)]
struct Tunnel {
    network: Network,
    keys: Arc<AtKeys>,
    whom: Whom,
    idle: Duration,
    json: bool,
    console: Console,
    quiet: bool,
    /// The local ports are for all users of this machine.
    shared: bool,
    /// The next session may be opened while this one waits.
    keep: bool,
    /// Progress of several at a time would be a jumble.
    alone: bool,
}

async fn story(console: &Console, args: Args) -> Result<(), Failure> {
    sys::process::raise_descriptor_limit();
    let (device, via) = (args.device.as_deref(), args.via.as_deref());
    if !console.is_classic() {
        check_patience(args.timeout)?;
    }
    let mut whom = Whom::parse(&args.to, device, via, args.timeout)?;
    // The login stays: whatever opens tunnels knows it, and the old way to ask for ports is for one connection.
    whom.terms = whom.terms.without(args.no_encrypt, false, false);
    whom.terms.authenticate = args.require.is_some();
    if args.require.is_some() && args.no_encrypt {
        let why = "--require and --no-encrypt exclude each other";
        return Err(Failure::misuse(why));
    }
    let stdio = args.stdio_target()?;
    let forwards = match stdio {
        Some(_) => Vec::new(),
        None => forwards(&args.forward)?,
    };
    if args.keep_alive && args.print {
        let kept = console.again(&["--keep-alive"]);
        let failure = Failure::misuse("--keep-alive and --print exclude each other");
        return Err(failure.hint(kept.replace("--keep-alive", "--idle-timeout 0")));
    }
    let idle = match args.idle_timeout {
        Some(Duration::ZERO) => LONGEST,
        Some(idle) => idle.min(LONGEST),
        None if args.keep_alive => IDLE_KEPT,
        None => IDLE,
    };
    let (network, keys) = args.account().load(console, args.as_.as_deref())?;
    let tunnel = Tunnel {
        network,
        keys,
        whom,
        idle,
        json: args.json,
        console: console.clone(),
        // A ProxyCommand's stderr is the screen of somebody waiting for a shell: silence unless asked.
        quiet: args.quiet || (stdio.is_some() && args.verbose == 0),
        shared: args.shared,
        keep: args.keep_alive,
        alone: forwards.len() <= 1,
    };
    if let Some(target) = stdio {
        return tunnel.on_stdio(&target, args.quiet).await;
    }
    if args.print {
        // A port that is taken is told before anybody is asked for a session.
        for forward in &forwards {
            drop(listen(forward).await?);
        }
        for forward in &forwards {
            tunnel.print(forward).await?;
        }
        return Ok(());
    }
    tunnel.serve(forwards, args.keep_alive).await
}

/// --timeout meant the time without a connection once: what makes no sense as a wait for an answer is told apart.
fn check_patience(timeout: Duration) -> Result<(), Failure> {
    if !timeout.is_zero() && timeout <= MOST_PATIENCE {
        return Ok(());
    }
    let why = "--timeout is how long to wait for an answer (1s to 1h); to end an idle session, use --idle-timeout";
    Err(Failure::misuse(why).hint(format!("--idle-timeout {}", in_words(timeout))))
}

fn forwards(words: &[String]) -> Result<Vec<Forward>, Failure> {
    if words.is_empty() || words.len() > MAX_FORWARDS {
        let why = format!("give 1 to {MAX_FORWARDS} forwards");
        return Err(Failure::misuse(why).hint("--forward 8080:localhost:80"));
    }
    let all = words.iter().map(|word| word.parse());
    let all: Vec<Forward> = all.collect::<Result<_, _>>().map_err(|bad: BadForward| {
        let hint = format!("--forward {}", bad.meant());
        Failure::misuse(bad.to_string()).hint(hint)
    })?;
    for (at, forward) in all.iter().enumerate() {
        if all[..at].iter().any(|other| other.collides_with(forward)) {
            let why = format!("local port {} is given twice", forward.port);
            return Err(Failure::misuse(why).hint("local port 0 is any free one"));
        }
    }
    Ok(all)
}

async fn listen(forward: &Forward) -> Result<TcpListener, Failure> {
    if forward.bind.is_loopback() && !sys::sockets::leads_here(forward.bind) {
        return Err(taken(forward, &io::ErrorKind::AddrNotAvailable.into()));
    }
    let listener = TcpListener::bind((forward.bind, forward.port)).await;
    listener.map_err(|why| taken(forward, &why))
}

fn taken(forward: &Forward, why: &io::Error) -> Failure {
    let at = SocketAddr::new(forward.bind, forward.port);
    let target = &forward.target;
    if why.kind() == io::ErrorKind::AddrNotAvailable {
        let hint = if forward.bind.is_loopback() {
            format!("ip link set lo up; or use no port: --stdio {target}")
        } else {
            format!("--forward {}:{target}", forward.port)
        };
        let why = format!("cannot listen on {at}: this machine has no such address");
        return Failure::plain(why).hint(hint);
    }
    let why = format!("cannot listen on {at}: {why}; local port 0 is any free one");
    Failure::plain(why).hint(format!("--forward 0:{target}"))
}

impl Tunnel {
    /// All forwards at the same time; the first that fails ends the program.
    async fn serve(self, forwards: Vec<Forward>, keep: bool) -> Result<(), Failure> {
        let mut bound = Vec::new();
        for forward in forwards {
            let listener = listen(&forward).await?;
            let taken = |why| taken(&forward, &why);
            let here = listener.local_addr().map_err(taken)?;
            let visitors = Visitors::of(listener).map_err(taken)?;
            let visitors = visitors.shared(self.shared);
            bound.push((
                OpenPort {
                    here,
                    target: forward.target,
                },
                visitors,
            ));
        }
        let (send, ended) = channel::bounded(bound.len());
        let count = bound.len();
        for (port, mut visitors) in bound {
            let (tunnel, send) = (self.clone(), send.clone());
            task::spawn(async move {
                let outcome = if keep {
                    tunnel.keep(&port, &mut visitors).await
                } else {
                    tunnel.once(&port, &mut visitors).await
                };
                let _ = send.send(outcome).await;
            });
        }
        for _ in 0..count {
            ended.recv().await.unwrap_or(Ok(()))?;
        }
        Ok(())
    }

    /// One session, now.
    async fn once(&self, port: &OpenPort, visitors: &mut Visitors) -> Result<(), Failure> {
        let mut progress = self.progress();
        let opened = self.open_session(&port.target, &mut progress).await?;
        progress.classic(format!("Will use local port {}", port.here.port()));
        progress.classic("Creating connection to socket rendezvous");
        let ready = || {
            self.tell("listening", port);
            self.say(&mut progress, format!("listening on {port}"));
            progress.classic(port.classic());
        };
        self.carry(&port.target, visitors, opened, ready).await?;
        self.tell("ended", port);
        progress.classic("Session ended");
        self.say(
            &mut progress,
            format!(
                "session ended: idle for {}, or for as long as the device allows",
                in_words(self.idle)
            ),
        );
        Ok(())
    }

    /// The port for ever, a session whenever somebody comes. Ends only where trying again cannot help.
    async fn keep(&self, port: &OpenPort, visitors: &mut Visitors) -> Result<(), Failure> {
        let mut progress = self.progress();
        self.tell("listening", port);
        progress.classic(port.classic());
        self.say(
            &mut progress,
            format!("listening on {port}; the first connection opens a session"),
        );
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        loop {
            let visitor = visitors.next().await;
            let began = Instant::now();
            let failure = match self.open_session(&port.target, &mut progress).await {
                Ok(opened) => {
                    visitors.put_back(visitor);
                    self.session(port, visitors, opened, &mut progress)
                        .await
                        .err()
                }
                Err(failure) if is_final(&failure) => return Err(failure),
                Err(failure) => {
                    reset(&visitor);
                    Some(failure)
                }
            };
            if began.elapsed() > LASTED {
                backoff.reset();
            }
            if let Some(failure) = failure {
                cli::print_err(&format!("{port}: {failure}"));
                let pause = backoff.pause(jitter());
                info!(
                    "again_in={:.1}s reason={:?}",
                    pause.as_secs_f64(),
                    failure.message
                );
                task::sleep(pause).await;
            }
        }
    }

    async fn session(
        &self,
        port: &OpenPort,
        visitors: &mut Visitors,
        opened: OpenSession,
        progress: &mut Progress,
    ) -> Result<(), Failure> {
        let outcome = self
            .carry(&port.target, visitors, opened, || {
                self.tell("open", port);
            })
            .await;
        self.tell("ended", port);
        outcome?;
        progress.classic("Session ended, keep-alive is set: the next connection opens another one");
        self.say(
            progress,
            format!("{port}: session ended, the next connection opens another one"),
        );
        Ok(())
    }

    /// A bridge in the background keeps the local port open; we print it and go.
    async fn print(&self, forward: &Forward) -> Result<(), Failure> {
        let mut progress = self.progress();
        let opened = self.open_session(&forward.target, &mut progress).await?;
        match forward.port {
            0 => progress.classic("Finding an available local port"),
            port => progress.classic(format!("Will use local port {port}")),
        }
        progress.classic("Creating connection to socket rendezvous");
        let order = Order {
            local: LocalAddress::Listen {
                at: SocketAddr::new(forward.bind, forward.port),
                shared: self.shared,
            },
            far: &opened.ready.far,
            many: Some(Lasting {
                idle: self.idle,
                talk: talk(&opened.daemon, opened.ready.far.keys.as_ref()),
            }),
            about: None,
            nearness: None,
            sandbox: true,
        };
        let port = OpenPort {
            here: SocketAddr::new(forward.bind, launch::in_background(&order).await?),
            target: forward.target.clone(),
        };
        progress.classic(port.classic());
        self.say(
            &mut progress,
            format!("listening on {port}, in the background; how it is: noports sessions"),
        );
        if self.json {
            self.tell("listening", &port);
        } else {
            cli::print_out(&port.here.port().to_string());
        }
        Ok(())
    }

    async fn open_session(
        &self,
        target: &Endpoint,
        progress: &mut Progress,
    ) -> Result<OpenSession, Failure> {
        let want = Want::Tunnel {
            target,
            timeout: self.idle,
        };
        let keys = Arc::clone(&self.keys);
        let opened = ask::open_session(&self.network, keys, &self.whom, want, progress).await?;
        // Not a matter of progress: it is said even with -q.
        match &opened.ready.far.keys {
            None => cli::print_err(
                "WARNING: this tunnel is not encrypted: the rendezvous, and anybody on the path, can read and change \
                 its traffic. Use it only for protocols that encrypt their own traffic (TLS, ssh)",
            ),
            keys if is_single(keys.as_ref()) => cli::print_err(&format!(
                "WARNING: {}{} is older than twin keys: whoever sees both directions at the rendezvous can combine \
                 them. Use this tunnel only for protocols that encrypt their own traffic (TLS, ssh)",
                self.whom.device, self.whom.to
            )),
            Some(_) => {}
        }
        if !opened.daemon.features.adjustable_timeout && self.idle != IDLE {
            warn!(
                "this daemon ends a session that is idle for 30 s; --idle-timeout has no effect on it"
            );
        }
        Ok(opened)
    }

    /// Carries whoever comes, until the session ends.
    async fn carry(
        &self,
        target: &Endpoint,
        visitors: &mut Visitors,
        opened: OpenSession,
        ready: impl FnOnce(),
    ) -> Result<(), Failure> {
        let mut many = talk(&opened.daemon, opened.ready.far.keys.as_ref());
        many.questions = many.questions.map(|questions| Questions {
            moves_on: self.keep,
            ..questions
        });
        let tell = if self.json { tell_json } else { tell_failure };
        let live = Arc::new(Live::of_tunnel(target.to_string(), tell));
        let (far, idle) = (opened.ready.far, self.idle);
        let carried = bridge::run_for(visitors, far, many, idle, live.clone(), ready).await;
        carried.map_err(|why| broken(&why))?;
        match live.only_failed() {
            Some(why) => Err(no_service(target, &why)),
            None => Ok(()),
        }
    }

    fn progress(&self) -> Progress {
        self.console.progress(self.quiet || !self.alone)
    }

    fn say(&self, progress: &mut Progress, what: String) {
        if self.alone {
            progress.done(what);
        } else if !self.quiet {
            cli::print_err(&what);
        }
    }

    fn tell(&self, event: &str, port: &OpenPort) {
        if self.json {
            let line = Object::event(event)
                .text("address", &port.here.ip().to_string())
                .raw("port", port.here.port())
                .text("target", &port.target.to_string());
            cli::print_out(&line.end());
        }
    }
}

/// A local port, and what is behind it.
struct OpenPort {
    here: SocketAddr,
    target: Endpoint,
}

impl OpenPort {
    /// As the classic client says where it listens.
    fn classic(&self) -> String {
        let host = match self.here.ip() {
            ip if ip.is_loopback() => "localhost".to_owned(),
            ip => ip.to_string(),
        };
        format!("npt is listening on {host}:{}", self.here.port())
    }
}

impl std::fmt::Display for OpenPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} for {}", self.here, self.target)
    }
}

/// A target that fails, for a person. It is said even with -q.
fn tell_failure(failure: &TargetFailure) {
    let TargetFailure {
        service,
        times,
        why,
    } = failure;
    let times = match times {
        1 => String::new(),
        more => format!(" {more} times"),
    };
    cli::print_err(&harmless(&format!(
        "{service} failed{times} at the device: {why}"
    )));
}

/// The same for a script, too.
fn tell_json(failure: &TargetFailure) {
    tell_failure(failure);
    let line = Object::event("target_failed")
        .text("target", &failure.service)
        .raw("times", failure.times)
        .text("error", &failure.why)
        .raw("code", exit::SERVICE);
    cli::print_out(&line.end());
}

/// Nothing has come from there in a whole session.
fn no_service(target: &Endpoint, why: &str) -> Failure {
    let hint = if why.starts_with("cannot resolve") {
        "check the name: it is the device that looks it up"
    } else {
        "check that it runs there, on that port"
    };
    let why = format!("the device cannot reach {target}: {why}");
    Failure::new(exit::SERVICE, why).hint(hint)
}

/// Whether trying again is useless. A certificate may be that of a portal, or the clock wrong.
fn is_final(failure: &Failure) -> bool {
    matches!(
        failure.code,
        exit::MISUSE | exit::KEYS | exit::UNKNOWN | exit::LOGIN
    )
}
