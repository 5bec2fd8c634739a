//! `noports bridge`, the classic `srv`: words, environment and stdin become a [`Plan`].
//!
//! The words are taken as the classic program takes them (`--host=rv`, `-hrv`, `--no-rv-auth`), and as its
//! forerunner `sshrv` of 3.x and 4.x does: `HOST PORT [LOCAL_PORT]`. Upstream also keeps a log in
//! `/tmp/srv.<pid>.log`; ours says everything on stderr, for a name that anybody can guess in a folder where
//! anybody can write is no place for it.
//!
//! Source: noports:packages/dart/sshnoports/bin/srv.dart and, for 4.x, sshrv.dart (flags, lines on stderr,
//! exit codes).

use std::{
    env, io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use argh::{ArgsInfo, FromArgs};
use async_global_executor::GlobalExecutorConfig;
use async_std::task::block_on;
use futures_lite::future;
use log::LevelFilter;
use zeroize::Zeroizing;

use crate::{
    cli::{Console, Failure, grammar::Grammar, help, misuse::replayed, print_out},
    net::{control_socket::OpenSocket, network::NearnessSet},
    np::far_end::FarEnd,
    pipe::{cipher::Side, join::Carried},
    session::{
        bridge::{
            BadSecrets, BridgeError, BridgeNews, Greeting, LISTENING, Live, LocalEnd, Many, Plan,
            Questions, Report, STARTED, Secrets, Visitors, run_watched,
        },
        control::{self, About},
    },
    sys::{
        log as logging, out, paths, process,
        sandbox::{self, Confinement},
        signal::IgnoreHangUp,
        sockets::loopback,
    },
    text::{
        duration::seconds,
        endpoint::Endpoint,
        number::{address, whole},
        port::port_or_any,
        terminal::harmless,
    },
};

/// Runs the program with the words behind its name; 0 fine, 1 misuse, 200 failed.
pub fn main(console: Console, words: &[&str]) -> ExitCode {
    if asks_for_help(words, console.is_linked()) {
        print_out(&help::text(&Grammar::of::<Args>(console.name()), ""));
        return ExitCode::SUCCESS;
    }
    if !console.is_linked() && words.contains(&"--json") {
        let failure = Failure::plain(
            "there is no --json here: what a bridge tells is for the program that started it",
        );
        let line = words
            .iter()
            .filter(|word| **word != "--json")
            .copied()
            .collect::<Vec<_>>();
        return console.finish(true, Err(failure.hint(replayed(console.name(), &line))));
    }
    if words.is_empty() && !console.is_linked() {
        let failure = Failure::plain("--host is missing");
        return console.finish(false, Err(failure.hint("noports bridge --help")));
    }
    let Some(words) = classic(words) else {
        out::note("Usage: HOST PORT [LOCAL_PORT], or flags: see --help");
        return ExitCode::from(MISUSE);
    };
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let args = match Args::from_args(&console.name().split(' ').collect::<Vec<_>>(), &words) {
        Ok(args) => args,
        Err(exit) => {
            out::note(harmless(exit.output.trim_end()));
            return ExitCode::from(MISUSE);
        }
    };
    if !args.stdio && !args.bind_local_port {
        process::first_to_go();
    }
    process::protect_memory();
    logging::start(
        LevelFilter::Warn,
        args.verbose as u8,
        args.quiet,
        logging::Reader::Operator,
    );
    let variable = |name: &str| env::var(name).ok().map(Zeroizing::new);
    let planned = read_secrets(&args, &variable)
        .and_then(|secrets| Ok((plan(&args, &secrets)?, secrets.about.clone())));
    let (plan, about) = match planned {
        Ok(planned) => planned,
        Err(StartError::Misuse(why)) => {
            out::note(harmless(&why));
            return ExitCode::from(MISUSE);
        }
        Err(StartError::Failed(why)) => return failed(&why),
    };
    let folder = control_folder(about.as_ref());
    // No other socket of this machine's is opened from here on.
    let socket = control::open(folder.as_deref());
    if !args.no_sandbox {
        confinement(&plan, folder).enter();
    }
    // One session is one task: a thread per core would only cost memory.
    async_global_executor::init_with_config(
        GlobalExecutorConfig::default()
            .with_min_threads(1)
            .with_max_threads(1),
    );
    serve(plan, about, socket)
}

/// Where its control socket is, if there can be one.
fn control_folder(about: Option<&About>) -> Option<PathBuf> {
    match about {
        Some(about) => about.folder.as_ref().map(PathBuf::from),
        None => paths::runtime().map(|folder| paths::bridges(&folder)),
    }
}

/// What the session needs: names, the ports of its two ends, and the folder of its control socket, to remove that. Where it
/// listens it does so already.
fn confinement(plan: &Plan, control: Option<PathBuf>) -> Confinement {
    let near = match &plan.local {
        LocalEnd::Dial(service) => Some(service.port),
        LocalEnd::Listen(_) | LocalEnd::Stdio => None,
    };
    Confinement::of(&sandbox::BRIDGE)
        .writes(control)
        .dials(near.into_iter().chain([plan.far.rendezvous.port]))
        .chooses_sources(plan.source.is_some())
}

/// `-h` is a flag of its own here: the host. Under a classic name a host may be called help.
fn asks_for_help(words: &[&str], linked: bool) -> bool {
    words.contains(&"--help") || !linked && words == ["help"]
}

fn serve(plan: Plan, about: Option<About>, control: Option<OpenSocket>) -> ExitCode {
    // The daemon, or the terminal, may go; the session stays.
    let kept = (!matches!(plan.local, LocalEnd::Stdio)).then(IgnoreHangUp::new);
    if let Some(Err(error)) = &kept {
        log::debug!("hang_ups=heeded reason={error}");
    }
    if plan.many.is_some() {
        process::raise_descriptor_limit();
    }
    let has_parent = about.is_some();
    let live = Arc::new(Live::of(&plan, about.unwrap_or_default()));
    let ended = block_on(carry(plan, control, &live));
    if let Err(error) = &ended {
        out::note(BridgeNews::Failed(Report::from(error)));
    }
    let (side, totals) = (live.side(), live.totals());
    if has_parent {
        out::note(BridgeNews::Carried(totals));
    }
    match ended {
        Ok(_) => {
            log::info!("side={side} ended up={} down={}", totals.up, totals.down);
            ExitCode::SUCCESS
        }
        Err(error) => failed(&explain(&error)),
    }
}

/// The session, with its control socket, if there can be one.
async fn carry(
    plan: Plan,
    socket: Option<OpenSocket>,
    live: &Arc<Live>,
) -> Result<Carried, BridgeError> {
    let socket = socket.map(OpenSocket::listen);
    // No task of its own: while nobody asks, the second thread has nothing to do, and costs nothing.
    let asked = async {
        if let Some(socket) = socket {
            control::serve(socket, live.clone()).await;
        }
        future::pending().await
    };
    let session = run_watched(plan, live.clone(), || out::note(STARTED));
    future::or(session, asked).await
}

fn explain(error: &BridgeError) -> String {
    match error.hint() {
        Some(hint) => format!("{error}\n{hint}"),
        None => error.to_string(),
    }
}

/// Parents look for these words.
fn failed(why: &str) -> ExitCode {
    out::note(harmless(&format!("Exception running srv : {why}")));
    ExitCode::from(FAILED)
}

/// Values may stand in the same word as their flag; the forerunner has no flags at all. `None`: neither form.
fn classic(words: &[&str]) -> Option<Vec<String>> {
    let owned = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
    match words {
        [first, ..] if !first.starts_with('-') => {
            return match words {
                [host, port] => Some(owned(&["--host", host, "--port", port])),
                [host, port, local] => {
                    let words = ["--host", host, "--port", port, "--local-port", local];
                    Some(owned(&words))
                }
                _ => None,
            };
        }
        _ => {}
    }
    let mut plain: Vec<String> = Vec::new();
    for &word in words {
        if let Some(("--no", flag)) = word.split_at_checked(4) {
            // Only these two can be taken back; what was never asked for needs no answer.
            if matches!(flag, "-rv-auth" | "-rv-e2ee") {
                plain.retain(|word| word.strip_prefix('-') != Some(flag));
                continue;
            }
        }
        let long = word.strip_prefix("--").and_then(|_| word.split_once('='));
        let short = ["-h", "-p"].into_iter().find_map(|flag| {
            let value = word.strip_prefix(flag)?;
            (!value.is_empty()).then(|| (flag, value.strip_prefix('=').unwrap_or(value)))
        });
        match long.or(short) {
            Some((flag, value)) => plain.extend(owned(&[flag, value])),
            None => plain.push(word.to_owned()),
        }
    }
    Some(plain)
}

/// Carry one session between a local stream and a rendezvous.
///
/// Client and daemon start it.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(
    example = "{command_name} --host rv.example.org --port 40001 --local-port 22",
    example = "{command_name} --host rv.example.org --port 40001 --stdio",
    example = "{command_name} -h rv.example.org -p 40001 --bind-local-port --local-port 0",
    error_code(0, "done"),
    error_code(1, "the command line was wrong"),
    error_code(200, "failed")
)]
pub(crate) struct Args {
    /// host of the rendezvous
    #[argh(option, short = 'h', arg_name = "host")]
    host: String,
    /// port of the rendezvous
    #[argh(option, short = 'p', arg_name = "port", from_str_fn(port_or_any))]
    port: u16,
    /// host of the local service (default: localhost)
    #[argh(option, default = "String::from(\"localhost\")", arg_name = "host")]
    local_host: String,
    /// loopback address to reach the local service from, where that is at 127.0.0.1
    #[argh(option, arg_name = "address")]
    local_source: Option<Ipv4Addr>,
    /// port of the local service; with --bind-local-port: port to listen on (default: 22)
    #[argh(option, default = "22", arg_name = "port", from_str_fn(port_or_any))]
    local_port: u16,
    /// how long to wait for the first local connection; with --multi: idle timeout (default: 60s)
    #[argh(
        option,
        default = "TIMEOUT",
        arg_name = "duration",
        from_str_fn(seconds)
    )]
    timeout: Duration,
    /// listen on the local port for one connection from this machine instead of dialling the service
    #[argh(switch)]
    bind_local_port: bool,
    /// use stdin and stdout instead of a local socket
    #[argh(switch)]
    stdio: bool,
    /// begin with the line from RV_AUTH, which logs in at the rendezvous
    #[argh(switch)]
    rv_auth: bool,
    /// encrypt with the keys in RV_AES_C2D, RV_IV_C2D, RV_AES_D2C and RV_IV_D2C, or in RV_AES and RV_IV
    #[argh(switch)]
    rv_e2ee: bool,
    /// carry any number of connections
    #[argh(switch)]
    multi: bool,
    /// with --multi --bind-local-port: time between heartbeats, for devices that know them (default: 0, none)
    #[argh(
        option,
        default = "Duration::ZERO",
        arg_name = "duration",
        from_str_fn(seconds)
    )]
    heartbeat: Duration,
    /// with --multi --bind-local-port: milliseconds between two connections, for old devices (default: 0)
    #[argh(option, default = "0", arg_name = "milliseconds", from_str_fn(whole))]
    pace: usize,
    /// with --multi --bind-local-port: announce connections without a line end, for devices that want none
    #[argh(switch)]
    unended: bool,
    /// with --multi --bind-local-port: ask the device whether it hears us, for devices that answer
    #[argh(switch)]
    ask: bool,
    /// with --multi: how long the client may take to say its first word (default: 0, as long as the idle timeout)
    #[argh(
        option,
        default = "Duration::ZERO",
        arg_name = "duration",
        from_str_fn(seconds)
    )]
    first_word: Duration,
    /// with --bind-local-port: give up where the other end does not greet as an ssh server does
    #[argh(switch)]
    ssh: bool,
    /// with --bind-local-port: address to listen on (default: 127.0.0.1)
    #[argh(option, arg_name = "address", from_str_fn(address))]
    bind_address: Option<IpAddr>,
    /// with --bind-local-port: let other users of this machine in, too
    #[argh(switch)]
    shared: bool,
    /// dial the rendezvous only where somebody may be sent whose atDirectory is so near: world, site, link, host, or several
    /// of these with commas
    #[argh(option, arg_name = "nearness")]
    nearness: Option<NearnessSet>,
    /// read the secrets from one JSON line on stdin: auth, aesC2D, ivC2D, aesD2C, ivD2C, side
    #[argh(switch)]
    secrets_on_stdin: bool,
    /// do not confine this program to the files and system calls that it needs
    #[argh(switch)]
    no_sandbox: bool,
    /// log more to stderr; -v -v logs still more
    #[argh(switch, short = 'v')]
    verbose: i32,
    /// print nothing on stderr but errors
    #[argh(switch, short = 'q')]
    quiet: bool,
}

/// Why there is no plan; never with a secret in it.
#[derive(Debug, PartialEq, Eq)]
enum StartError {
    Misuse(String),
    Failed(String),
}

fn misuse(why: &str) -> StartError {
    StartError::Misuse(why.to_owned())
}

impl From<BadSecrets> for StartError {
    fn from(why: BadSecrets) -> Self {
        misuse(&why.to_string())
    }
}

type Variable<'a> = &'a dyn Fn(&str) -> Option<Zeroizing<String>>;

/// Only the flags make the environment count: a variable left over from another session does nothing.
fn read_secrets(args: &Args, variable: Variable<'_>) -> Result<Secrets, StartError> {
    if args.secrets_on_stdin {
        let line = read_stdin_line().map_err(|error| {
            StartError::Failed(format!("cannot read the secrets from stdin: {error}"))
        })?;
        return Ok(Secrets::parse(&line)?);
    }
    let get = |name: &str| variable(name).map(|text| String::clone(&text));
    let mut secrets = Secrets::default();
    if args.rv_auth {
        secrets.auth = get("RV_AUTH");
    }
    if args.rv_e2ee {
        let single = get("RV_AES_C2D").is_none();
        secrets.key_to_device = get(if single { "RV_AES" } else { "RV_AES_C2D" });
        secrets.iv_to_device = get(if single { "RV_IV" } else { "RV_IV_C2D" });
        if !single {
            secrets.key_to_client = get("RV_AES_D2C");
            secrets.iv_to_client = get("RV_IV_D2C");
        }
    }
    Ok(secrets)
}

/// Byte by byte: what comes behind the line may be the session itself.
fn read_stdin_line() -> io::Result<Zeroizing<Vec<u8>>> {
    let stdin = io::stdin();
    let mut line = Zeroizing::new(Vec::with_capacity(MOST_SECRETS));
    let mut byte = [0];
    while line.len() < MOST_SECRETS {
        match rustix::io::read(&stdin, &mut byte) {
            Ok(0) => return Ok(line),
            Ok(_) if byte == *b"\n" => return Ok(line),
            Ok(_) => line.extend_from_slice(&byte),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidData,
        "the line is too long",
    ))
}

fn plan(args: &Args, secrets: &Secrets) -> Result<Plan, StartError> {
    if args.multi && args.stdio {
        return Err(misuse("--stdio and --multi exclude each other"));
    }
    if args.stdio && args.bind_local_port {
        return Err(misuse("--stdio and --bind-local-port exclude each other"));
    }
    let (keys, admission) = (secrets.keys()?, secrets.admission()?);
    let socket_key = secrets.socket_key()?;
    // Asked to protect and not able to: never go on without.
    if args.rv_e2ee && keys.is_none() {
        return Err(misuse("--rv-e2ee needs session keys, and there are none"));
    }
    if args.rv_auth && admission.is_none() {
        return Err(misuse("--rv-auth needs a login line, and there is none"));
    }
    let side = if args.stdio || args.bind_local_port {
        Side::Client
    } else {
        Side::Device
    };
    Ok(Plan {
        far: FarEnd {
            rendezvous: endpoint(&args.host, args.port)?,
            admission,
            socket_key,
            keys,
            side: secrets.side()?.unwrap_or(side),
        },
        local: local(args)?,
        timeout: args.timeout.min(LONGEST_WAIT),
        many: args.multi.then(|| Many {
            heartbeat: Some(args.heartbeat.min(LONGEST_WAIT)).filter(|beat| !beat.is_zero()),
            pace: Duration::from_millis((args.pace as u64).min(LONGEST_PACE)),
            unended: args.unended,
            stands: None,
            first_word: Some(args.first_word.min(LONGEST_WAIT)).filter(|time| !time.is_zero()),
            questions: args.ask.then_some(Questions::USUAL),
        }),
        greeting: if args.ssh {
            Greeting::Ssh
        } else {
            Greeting::Any
        },
        nearness: args.nearness,
        source: args.local_source.filter(Ipv4Addr::is_loopback),
    })
}

/// What a process with these words and this line on stdin would do.
#[cfg(test)]
pub(crate) fn read_plan(words: &[&str], line: &[u8]) -> Option<Plan> {
    let args = Args::from_args(&["bridge"], words).ok()?;
    plan(&args, &Secrets::parse(line).ok()?).ok()
}

fn local(args: &Args) -> Result<LocalEnd, StartError> {
    if args.stdio {
        return Ok(LocalEnd::Stdio);
    }
    if !args.bind_local_port {
        return Ok(LocalEnd::Dial(endpoint(&args.local_host, args.local_port)?));
    }
    let here = args.bind_address.unwrap_or_else(loopback);
    let at = SocketAddr::new(here, args.local_port);
    let listener = std::net::TcpListener::bind(at)
        .map_err(|error| StartError::Failed(format!("cannot listen on {at}: {error}")))?;
    if let Ok(addr) = listener.local_addr() {
        out::note(format_args!("{LISTENING}{}", addr.port()));
    }
    let visitors = Visitors::of(listener.into());
    let visitors = visitors.map_err(|why| StartError::Failed(why.to_string()))?;
    Ok(LocalEnd::Listen(visitors.shared(args.shared)))
}

fn endpoint(host: &str, port: u16) -> Result<Endpoint, StartError> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Endpoint::parse(host, Some(port))
        .ok()
        .filter(|endpoint| endpoint.host == host)
        .ok_or_else(|| misuse(&format!("{host:?} and {port} are not a host and a port")))
}

/// Exit codes of the classic program.
const MISUSE: u8 = 1;
const FAILED: u8 = 200;
/// An admission line is below 4 KiB, the keys below 200 bytes.
const MOST_SECRETS: usize = 16 * 1024;
/// Milliseconds between two connections.
const LONGEST_PACE: u64 = 10_000;
/// A year.
const LONGEST_WAIT: Duration = Duration::from_secs(365 * 24 * 3600);
/// The classic program's.
const TIMEOUT: Duration = Duration::from_secs(60);

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
