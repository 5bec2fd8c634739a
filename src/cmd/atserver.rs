//! `noports atserver` — host atSigns: an atDirectory and one atServer for each of them.
//!
//! ```text
//!   serve   authority ─▶ certificate ─▶ atDirectory, atServers, control socket ─▶ until SIGTERM or SIGINT
//!           --metrics: health and numbers on a loopback port
//!   add     asks the running server through the control socket; if none runs, opens the data itself
//!   list  remove  status  backup         likewise
//!   restore  rotate-ca  export-ca        work on the data folder itself
//! ```
//!
//! Only this program and the rendezvous listen on ports.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
};

use ::log::{LevelFilter, info};
use argh::FromArgs;
use async_std::net::TcpListener;
use futures_lite::future;
use miniserde::json;

use crate::{
    net::tls::Acceptor,
    secret::Secret,
    server::{
        authority::{self, Authority, AuthorityError},
        control::{Answer, ControlError, Desk, Request, Row, Status},
        health,
        listen::{self, Hosted, Options, Running, ServerError, Timings},
    },
    sys::{
        log,
        notify::{self, State},
        paths, process, signal,
    },
};

use super::common::{self, Failure, exit, print_err, print_out};

use ask::{add, export_ca, list, remove, show};
use keep::{backup, restore, rotate_ca};

mod ask;
mod keep;

/// Where unmodified clients expect an atDirectory.
const DIRECTORY_PORT: u16 = 64;
/// The first atSign's atServer; the next ones follow.
const FIRST_PORT: u16 = 25_000;

/// Host atSigns: an atDirectory and one atServer for each of them.
#[derive(FromArgs, Debug)]
#[argh(
    example = "{command_name} serve --data atserver --port 6400",
    example = "{command_name} add @alice --data atserver",
    error_code(1, "failed"),
    error_code(2, "the command line was wrong"),
    error_code(4, "status: no server is running")
)]
struct Args {
    #[argh(subcommand)]
    what: What,
}

#[derive(FromArgs, Debug)]
#[argh(subcommand)]
enum What {
    Serve(Serve),
    Add(Add),
    List(List),
    Remove(Remove),
    Show(Show),
    ExportCa(ExportCa),
    Backup(Backup),
    Restore(Restore),
    RotateCa(RotateCa),
}

/// Serve until SIGTERM or SIGINT.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "serve")]
struct Serve {
    /// folder of all data (default: /var/lib/noports/atserver as root, else ~/.local/share/noports/atserver)
    #[argh(option, arg_name = "dir")]
    data: Option<PathBuf>,
    /// address to listen on (default: 127.0.0.1)
    #[argh(option, arg_name = "addr", default = "IpAddr::from([127, 0, 0, 1])")]
    listen: IpAddr,
    /// name or IPv4 address that clients reach this host by (default: localhost, or the address listened on)
    #[argh(option, arg_name = "name")]
    host: Option<String>,
    /// port of the atDirectory (default: 64; 0: any)
    #[argh(option, default = "DIRECTORY_PORT")]
    port: u16,
    /// port of the first atServer, the others follow (default: 25000; 0: any)
    #[argh(option)]
    first_port: Option<u16>,
    /// domain under which each atSign gets a name of its own: alice.DOMAIN
    #[argh(option, arg_name = "name")]
    domain: Option<String>,
    /// certificate chain to show instead of one by our own authority (PEM file)
    #[argh(option, arg_name = "file")]
    tls_cert: Option<PathBuf>,
    /// private key of that certificate (PEM file)
    #[argh(option, arg_name = "file")]
    tls_key: Option<PathBuf>,
    /// answer GET /health and GET /metrics (Prometheus) on this loopback address, such as 127.0.0.1:9464
    #[argh(option, arg_name = "addr:port")]
    metrics: Option<SocketAddr>,
    /// also talk to other atServers, found by this atDirectory (default: only those hosted here)
    #[argh(option, arg_name = "host[:port]")]
    root: Option<String>,
    /// trust this authority of other atServers too (PEM file; may be given several times)
    #[argh(option, arg_name = "file")]
    ca: Vec<String>,
    /// one line of JSON on stdout when ready
    #[argh(switch)]
    json: bool,
    /// say nothing on stderr but errors
    #[argh(switch, short = 'q')]
    quiet: bool,
    /// log more; may be repeated
    #[argh(switch, short = 'v')]
    verbose: u8,
}

/// Host one more atSign; prints its one-time activation secret.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "add")]
struct Add {
    /// the atSign
    #[argh(positional)]
    atsign: String,
    /// folder of all data
    #[argh(option, arg_name = "dir")]
    data: Option<PathBuf>,
    /// write the secret to this new file instead of stdout
    #[argh(option, arg_name = "file")]
    secret_file: Option<PathBuf>,
    /// print one line of JSON
    #[argh(switch)]
    json: bool,
}

/// List the hosted atSigns.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "list")]
struct List {
    /// folder of all data
    #[argh(option, arg_name = "dir")]
    data: Option<PathBuf>,
    /// print one line of JSON
    #[argh(switch)]
    json: bool,
}

/// Host an atSign no longer. All its data is lost.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "remove")]
struct Remove {
    /// the atSign
    #[argh(positional)]
    atsign: String,
    /// folder of all data
    #[argh(option, arg_name = "dir")]
    data: Option<PathBuf>,
    /// do not ask
    #[argh(switch)]
    yes: bool,
    /// print one line of JSON
    #[argh(switch)]
    json: bool,
}

/// Tell whether a server runs, and where.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "status")]
struct Show {
    /// folder of all data
    #[argh(option, arg_name = "dir")]
    data: Option<PathBuf>,
    /// print one line of JSON
    #[argh(switch)]
    json: bool,
}

/// Print the certificate of the authority, for clients' --ca; during a rotation, of both.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "export-ca")]
struct ExportCa {
    /// folder of all data
    #[argh(option, arg_name = "dir")]
    data: Option<PathBuf>,
    /// print one line of JSON
    #[argh(switch)]
    json: bool,
}

/// Copy everything into a new file, also while the server runs. It holds private keys: keep it safe.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "backup")]
struct Backup {
    /// the new file
    #[argh(positional)]
    file: PathBuf,
    /// folder of all data
    #[argh(option, arg_name = "dir")]
    data: Option<PathBuf>,
    /// print one line of JSON
    #[argh(switch)]
    json: bool,
}

/// Make the data folder what it was at the backup. The server must not be running.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "restore")]
struct Restore {
    /// the backup
    #[argh(positional)]
    file: PathBuf,
    /// folder of all data
    #[argh(option, arg_name = "dir")]
    data: Option<PathBuf>,
    /// also when the folder is not empty; what is replaced is kept as *.before-restore
    #[argh(switch)]
    force: bool,
    /// print one line of JSON
    #[argh(switch)]
    json: bool,
}

/// Replace the authority: first make the next one beside it, then, once all clients have both, finish.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "rotate-ca")]
struct RotateCa {
    /// folder of all data
    #[argh(option, arg_name = "dir")]
    data: Option<PathBuf>,
    /// from the next start of the server the new authority is the only one
    #[argh(switch)]
    finish: bool,
    /// print one line of JSON
    #[argh(switch)]
    json: bool,
}

/// Runs the program; `args` without its name.
pub fn main(name: &str, args: &[&str]) -> ExitCode {
    let args: Args = match common::parse(name, args) {
        Ok(args) => args,
        Err(code) => return code,
    };
    let (json, result) = match args.what {
        What::Serve(args) => {
            let threads = thread::available_parallelism().map_or(1, usize::from);
            (args.json, common::run(threads, serve(args)))
        }
        What::Add(args) => (args.json, common::run(1, add(args))),
        What::List(args) => (args.json, common::run(1, list(args))),
        What::Remove(args) => (args.json, common::run(1, remove(args))),
        What::Show(args) => (args.json, common::run(1, show(args))),
        What::ExportCa(args) => (args.json, export_ca(args)),
        What::Backup(args) => (args.json, common::run(1, backup(args))),
        What::Restore(args) => (args.json, restore(args)),
        What::RotateCa(args) => (args.json, rotate_ca(args)),
    };
    common::finish(name, json, result)
}

/// Whether it would start with these words; for a service, before it is installed. Changes nothing.
pub fn verify(name: &str, words: &[&str]) -> ExitCode {
    common::verify(name, words, |args: Args| {
        let What::Serve(args) = args.what else {
            return Ok(());
        };
        if args.host.is_none() {
            default_host(args.listen)?;
        }
        if let (Some(_), _) | (_, Some(_)) = (&args.tls_cert, &args.tls_key) {
            certificate(Path::new(""), args.tls_cert, args.tls_key, &[])?;
        }
        match &args.root {
            Some(root) => common::network(Some(root), &args.ca).map(drop),
            None => Ok(()),
        }
    })
}

impl From<AuthorityError> for Failure {
    fn from(error: AuthorityError) -> Self {
        let failure = Self::plain(error.to_string());
        match error.hint() {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

impl From<ServerError> for Failure {
    fn from(error: ServerError) -> Self {
        Self {
            message: error.to_string(),
            hint: error.hint(),
            code: exit::FAILED,
            classic: None,
        }
    }
}

impl From<ControlError> for Failure {
    fn from(error: ControlError) -> Self {
        let failure = Self::plain(error.to_string());
        match error.hint() {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

async fn serve(args: Serve) -> Result<(), Failure> {
    log::start(LevelFilter::Info, args.verbose, args.quiet);
    process::protect_memory();
    process::raise_descriptor_limit();
    let data = data_folder(args.data)?;
    let host = match args.host {
        Some(host) => host,
        None => default_host(args.listen)?,
    };
    let names = names(&host, args.domain.as_deref());
    let (tls, ca) = certificate(&data, args.tls_cert, args.tls_key, &names)?;
    let health = match args.metrics {
        Some(at) => Some(health_port(at).await?),
        None => None,
    };
    let options = Options {
        data: data.clone(),
        listen: args.listen,
        host: host.clone(),
        directory_port: args.port,
        first_port: first_port(args.first_port, args.port),
        domain: args.domain,
        timings: Timings::default(),
    };
    let peers = match &args.root {
        Some(root) => Some(common::network(Some(root), &args.ca)?),
        None => None,
    };
    let running = listen::start_with_peers(options, tls, peers)
        .await
        .map_err(cannot_start)?;
    let desk = Desk::open(&data)?;
    let place = format!("{host}:{}", running.directory().port());
    let status = status(&place, ca.as_deref(), &data);
    let serving = async {
        // Only now, because by now a signal ends the server in good form.
        announce(&status, health.as_ref(), args.json, args.quiet);
        notify::tell(State::Connected, &format!("atDirectory {place}"));
        desk.serve(async |request| answer(&running, &status, request).await)
            .await;
        future::pending().await
    };
    let watched = async {
        match &health {
            Some(port) => health::serve(port, &running).await,
            None => future::pending().await,
        }
        future::pending().await
    };
    let watched = future::or(watched, async {
        notify::keep_alive_while(async || running.health().await.is_ok()).await
    });
    let told = future::or(signal::stop(), future::or(serving, watched)).await;
    notify::tell(State::Stopping, "");
    info!("ending told={told:?}");
    drop(desk);
    running.stop().await;
    Ok(())
}

/// What the server shows, and the authority that clients must be told of: none with a certificate from elsewhere.
fn certificate(
    data: &Path,
    chain: Option<PathBuf>,
    key: Option<PathBuf>,
    names: &[String],
) -> Result<(Acceptor, Option<PathBuf>), Failure> {
    let (chain, key) = match (chain, key) {
        (Some(chain), Some(key)) => (chain, key),
        (None, None) => {
            let authority = authority::open_or_make(data)?;
            let ca = authority.ca_file().to_owned();
            return Ok((authority.acceptor(names)?, Some(ca)));
        }
        _ => {
            let failure = Failure::misuse("a certificate needs its key, and a key its certificate");
            return Err(failure.hint("--tls-cert FILE --tls-key FILE"));
        }
    };
    let read = |file: &Path| {
        std::fs::read_to_string(file)
            .map_err(|why| Failure::plain(format!("cannot read {}: {why}", file.display())))
    };
    let (chain_text, key_text) = (read(&chain)?, Secret::new(read(&key)?));
    let tls = Acceptor::from_pem(&chain_text, key_text.reveal()).map_err(|why| {
        Failure::plain(why.to_string()).hint(format!(
            "does the key in {} belong to the first certificate in {}?",
            key.display(),
            chain.display()
        ))
    })?;
    Ok((tls, None))
}

async fn health_port(at: SocketAddr) -> Result<TcpListener, Failure> {
    health::open(at).await.map_err(|why| {
        Failure::plain(format!("cannot offer metrics on {at}: {why}"))
            .hint("--metrics 127.0.0.1:PORT, with a port that is free")
    })
}

fn cannot_start(error: ServerError) -> Failure {
    let privileged = matches!(&error, ServerError::Port { why, .. } if why.kind() == io::ErrorKind::PermissionDenied);
    let failure = Failure::from(error);
    if privileged {
        return failure.hint("--port 6400, and clients say --root HOST:6400; or start it as root");
    }
    failure
}

/// With `--port 0` nobody relies on fixed numbers.
fn first_port(given: Option<u16>, directory: u16) -> u16 {
    given.unwrap_or(if directory == 0 { 0 } else { FIRST_PORT })
}

/// What clients are told to connect to, when `--host` does not say.
fn default_host(listen: IpAddr) -> Result<String, Failure> {
    match listen {
        address if address.is_loopback() => Ok("localhost".into()),
        IpAddr::V4(address) if !address.is_unspecified() => Ok(address.to_string()),
        _ => Err(Failure::misuse(format!(
            "listening on {listen}, but under which name do clients reach this host?"
        ))
        .hint("--host NAME, or its IPv4 address")),
    }
}

/// The names in the certificate, beside this machine's own.
fn names(host: &str, domain: Option<&str>) -> Vec<String> {
    let mut names = vec![host.to_owned()];
    if let Some(domain) = domain {
        names.push(domain.to_owned());
        names.push(format!("*.{domain}"));
    }
    names
}

fn announce(status: &Status, health: Option<&TcpListener>, json: bool, quiet: bool) {
    let health = health.and_then(|port| Some(port.local_addr().ok()?.to_string()));
    let ca = Some(status.ca.as_str()).filter(|ca| !ca.is_empty());
    if !quiet {
        print_err(&format!("atDirectory  {}", status.directory));
        if let Some(ca) = ca {
            print_err(&format!("authority    {ca}"));
        }
        if let Some(at) = &health {
            print_err(&format!("metrics      http://{at}/metrics"));
        }
        print_err("ready");
    }
    if json {
        print_out(&json::to_string(&Ready {
            event: "ready",
            directory: &status.directory,
            ca,
            metrics: health.as_deref(),
        }));
    }
}

/// The line that scripts wait for.
#[derive(miniserde::Serialize)]
struct Ready<'a> {
    event: &'static str,
    directory: &'a str,
    ca: Option<&'a str>,
    metrics: Option<&'a str>,
}

/// Without an authority of our own there is none to trust: clients know whoever signed.
fn status(place: &str, ca: Option<&Path>, data: &Path) -> Status {
    Status {
        directory: place.to_owned(),
        ca: ca.map_or(String::new(), |ca| ca.display().to_string()),
        data: data.display().to_string(),
        pid: std::process::id(),
        atsigns: 0,
        version: env!("CARGO_PKG_VERSION").into(),
    }
}

/// Answers one request of the control socket.
async fn answer(running: &Running, status: &Status, request: Request) -> Answer {
    let answered = match request {
        Request::Backup(file) => match keep::beside_store(Path::new(&status.data)) {
            Ok(files) => running.back_up(file, files).await.map(keep::told),
            Err(why) => {
                return Answer::Refused {
                    error: why.message,
                    hint: why.hint,
                };
            }
        },
        Request::Add(who) => running.add(&who).await.map(Answer::Secret),
        Request::Remove(who) => running.remove(&who).await.map(|()| Answer::Done),
        Request::List => rows(running).await.map(Answer::List),
        Request::Status => rows(running).await.map(|rows| {
            Answer::Status(Status {
                atsigns: rows.len() as u32,
                ..status.clone()
            })
        }),
    };
    answered.unwrap_or_else(|error| Answer::Refused {
        error: error.to_string(),
        hint: error.hint(),
    })
}

async fn rows(running: &Running) -> Result<Vec<Row>, ServerError> {
    Ok(running.list().await?.iter().map(row).collect())
}

fn row(hosted: &Hosted) -> Row {
    Row {
        atsign: hosted.who.to_string(),
        host: hosted.host.clone(),
        port: hosted.port,
        activated: hosted.activated,
    }
}

/// Starts the server on loopback for one request, when none is running.
async fn offline(data: &Path, request: Request) -> Result<Answer, Failure> {
    offline_at(FIRST_PORT, data, request).await
}

async fn offline_at(first_port: u16, data: &Path, request: Request) -> Result<Answer, Failure> {
    let authority = authority::open_or_make(data)?;
    let running = start_on_loopback(first_port, data, &authority).await?;
    let status = status("", Some(authority.ca_file()), data);
    let answer = answer(&running, &status, request).await;
    running.stop().await;
    Ok(answer)
}

async fn start_on_loopback(
    first_port: u16,
    data: &Path,
    authority: &Authority,
) -> Result<Running, Failure> {
    let options = Options {
        data: data.to_owned(),
        listen: IpAddr::from([127, 0, 0, 1]),
        host: "localhost".into(),
        directory_port: 0,
        first_port,
        domain: None,
        timings: Timings::default(),
    };
    Ok(listen::start(options, authority.leaf(&[])?.acceptor()?).await?)
}

/// The flag, else `NOPORTS_DATA`, else the place that fits the user.
fn data_folder(flag: Option<PathBuf>) -> Result<PathBuf, Failure> {
    let named = std::env::var_os("NOPORTS_DATA").filter(|value| !value.is_empty());
    let folder = match flag.or_else(|| named.map(PathBuf::from)) {
        Some(folder) => folder,
        None if rustix::process::geteuid().is_root() => "/var/lib/noports/atserver".into(),
        None => {
            let home = paths::home()
                .ok_or_else(|| Failure::misuse("no home folder for the data").hint("--data DIR"))?;
            home.join(".local/share/noports/atserver")
        }
    };
    // Whole, because its files are named to people who may stand in another folder.
    std::path::absolute(&folder)
        .map_err(|why| Failure::misuse(format!("cannot use {}: {why}", folder.display())))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::{ask::request, *};
    use crate::at::AtSign;

    #[test]
    fn clients_are_told_a_name_they_can_use() {
        for (listen, want) in [
            ("127.0.0.1", Some("localhost")),
            ("::1", Some("localhost")),
            ("192.0.2.7", Some("192.0.2.7")),
            ("0.0.0.0", None),
            ("::", None),
            ("2001:db8::1", None),
        ] {
            let got = default_host(listen.parse().unwrap());
            assert_eq!(got.as_deref().ok(), want, "{listen}");
            if let Err(failure) = got {
                assert_eq!(failure.code, exit::MISUSE, "{listen}");
            }
        }
    }

    #[test]
    fn a_domain_brings_a_wildcard_name() {
        assert_eq!(names("h", None), ["h"]);
        assert_eq!(
            names("h", Some("at.example")),
            ["h", "at.example", "*.at.example"]
        );
    }

    #[test]
    fn any_directory_port_means_any_ports() {
        assert_eq!(first_port(None, 64), FIRST_PORT);
        assert_eq!(first_port(None, 0), 0);
        assert_eq!(first_port(Some(7000), 0), 7000);
    }

    #[test]
    fn command_lines_are_read() {
        let rows: &[&[&str]] = &[
            &["serve"],
            &[
                "serve", "--data", "/d", "--listen", "::1", "--host", "h", "--port", "0", "--json",
            ],
            &[
                "serve",
                "--domain",
                "at.example",
                "--first-port",
                "7000",
                "-v",
                "-v",
            ],
            &[
                "add",
                "@alice",
                "--data",
                "/d",
                "--secret-file",
                "/s",
                "--json",
            ],
            &["list", "--json"],
            &["remove", "@alice", "--yes"],
            &["status"],
            &["export-ca", "--json"],
            &["backup", "/f", "--json"],
            &["restore", "/f", "--force"],
            &["rotate-ca", "--finish"],
            &[
                "serve",
                "--tls-cert",
                "/c",
                "--tls-key",
                "/k",
                "--metrics",
                "127.0.0.1:0",
            ],
        ];
        for args in rows {
            let read = Args::from_args(&["noports", "atserver"], args);
            assert!(read.is_ok(), "{args:?}: {read:?}");
        }
        let help = Args::from_args(&["noports", "atserver"], &["--help"]);
        let text = help.unwrap_err().output;
        for word in [
            "export-ca",
            "noports atserver add @alice",
            "no server is running",
        ] {
            assert!(text.contains(word), "{word}: {text}");
        }
        for args in [&[][..], &["fly"], &["add"], &["serve", "--port", "99999"]] {
            let read = Args::from_args(&["noports", "atserver"], args);
            assert!(read.is_err_and(|early| early.status.is_err()), "{args:?}");
        }
    }

    /// What a server that runs and a folder without one answer, in turn.
    #[test]
    fn requests_are_answered_with_and_without_a_running_server() {
        async_std::task::block_on(async {
            let data = std::env::temp_dir().join(format!("np-atserver-{}", uuid::Uuid::new_v4()));
            let alice: AtSign = "@alice".parse().unwrap();
            let add = || Request::Add(alice.clone());
            let added = offline_at(0, &data, add()).await.unwrap();
            assert!(matches!(added, Answer::Secret(_)), "{added:?}");

            let authority = authority::open_or_make(&data).unwrap();
            let running = start_on_loopback(0, &data, &authority).await.unwrap();
            let desk = Desk::open(&data).unwrap();
            let status = status("localhost:1", Some(authority.ca_file()), &data);
            let serve = async {
                desk.serve(async |request| answer(&running, &status, request).await)
                    .await;
                unreachable!("a desk serves for ever")
            };
            let ask = async {
                let again = request(&data, add()).await.unwrap();
                assert!(
                    matches!(&again, Answer::Refused { hint: Some(_), .. }),
                    "{again:?}"
                );
                let Answer::List(rows) = request(&data, Request::List).await.unwrap() else {
                    panic!("no list");
                };
                assert_eq!(
                    (rows[0].atsign.as_str(), rows[0].activated),
                    ("@alice", false)
                );
                let Answer::Status(told) = request(&data, Request::Status).await.unwrap() else {
                    panic!("no status");
                };
                assert_eq!((told.atsigns, told.pid), (1, std::process::id()));
                let second = start_on_loopback(0, &data, &authority).await;
                assert!(second.is_err(), "two servers with one folder");
            };
            future::or(ask, serve).await;
            drop(desk);
            running.stop().await;

            let gone = offline_at(0, &data, Request::Remove(alice.clone())).await;
            assert_eq!(gone.unwrap(), Answer::Done);
            let left = offline_at(0, &data, Request::List).await;
            assert_eq!(left.unwrap(), Answer::List(Vec::new()));
            std::fs::remove_dir_all(&data).unwrap();
        });
    }
}
