//! `noports atserver` — host atSigns: an atDirectory and one atServer for each of them.
//!
//! ```text
//!   serve   authority ─▶ certificate ─▶ atDirectory, atServers, control socket ─▶ until SIGTERM or SIGINT   serve
//!           --metrics: health and numbers on a loopback port
//!   add     asks the running server through the control socket; if none runs, opens the data itself          ask
//!   list  remove  status  backup         likewise; what they are told: answer                          ask, keep
//!   restore  rotate-ca  export-ca        work on the data folder itself                                ask, keep
//! ```
//!
//! Here: the command line, and which file does what it says.
//!
//! Only this program and the rendezvous listen on ports.

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
};

use argh::FromArgs;

use crate::{
    cli::{self, Console, Failure, exit},
    server::{authority::AuthorityError, control::AdminError, listen::ServerError},
    sys::paths,
};

use ask::{add, export_ca, list, remove, show};
use keep::{backup, restore, rotate_ca};
use serve::{certificate, default_host, serve};

mod answer;
mod ask;
mod keep;
mod serve;

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
pub fn main(mut console: Console, args: &[&str]) -> ExitCode {
    let args: Args = match console.parse(args) {
        Ok(args) => args,
        Err(code) => return code,
    };
    let (json, result) = match args.what {
        What::Serve(args) => {
            let threads = thread::available_parallelism().map_or(1, usize::from);
            (args.json, console.run(threads, serve(args)))
        }
        What::Add(args) => (args.json, console.run(1, add(args))),
        What::List(args) => (args.json, console.run(1, list(args))),
        What::Remove(args) => (args.json, console.run(1, remove(args))),
        What::Show(args) => (args.json, console.run(1, show(args))),
        What::ExportCa(args) => (args.json, export_ca(args)),
        What::Backup(args) => (args.json, console.run(1, backup(args))),
        What::Restore(args) => (args.json, restore(args)),
        What::RotateCa(args) => (args.json, rotate_ca(args)),
    };
    console.finish(json, result)
}

/// Whether it would start with these words; for a service, before it is installed. Changes nothing.
pub fn verify(name: &str, words: &[&str]) -> ExitCode {
    Console::new(name).verify(words, |_, args: Args| {
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
            Some(root) => cli::network(Some(root), &args.ca).map(drop),
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

impl From<AdminError> for Failure {
    fn from(error: AdminError) -> Self {
        let failure = Self::plain(error.to_string());
        match error.hint() {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
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
mod tests;
