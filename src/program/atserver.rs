//! `noports atserver` — host atSigns: an atDirectory and one atServer for each of them.
//!
//! ```text
//!   serve   authority ─▶ certificate ─▶ atDirectory, atServers, control socket ─▶ until SIGTERM or SIGINT   serve
//!           --metrics: health and numbers on a loopback port
//!   add     asks the running server through the control socket; if none runs, opens the data itself          ask
//!   list  quota  remove  status  backup  likewise; what they are told: answer                          ask, keep
//!   restore  rotate-ca  export-ca        work on the data folder itself                                ask, keep
//! ```
//!
//! Here: the command line, and which file does what it says.
//!
//! Only this program and the rendezvous listen on ports.
//!
//! A backup is taken while the server runs, and holds private keys. A restore needs the server stopped, and checks the file
//! whole before it replaces anything (`--force`). After `rotate-ca` the file `ca.pem` holds the old and the new authority; once
//! every client has it, `rotate-ca --finish` and a restart end the old one. `serve --tls-cert FILE --tls-key FILE` shows a
//! certificate from elsewhere, and `serve --metrics 127.0.0.1:9464` answers `/health` and `/metrics` (Prometheus) on this
//! machine. All of them take `--json`.

use std::{path::Path, process::ExitCode};

use argh::{ArgsInfo, FromArgs};

use crate::{
    cli::{self, Console, Failure, exit},
    server::{
        authority::AuthorityError,
        control::{self, AdminError},
        listen::ServerError,
    },
};

use ask::{Add, ExportCa, List, Quota, Remove, Show, add, export_ca, list, quota, remove, show};
use folder::data_folder;
use keep::{Backup, Restore, RotateCa, backup, restore, rotate_ca};
use serve::{Serve, certificate, serve};

mod answer;
mod ask;
mod folder;
mod keep;
mod last_time;
mod serve;

/// Host atSigns yourself: one atDirectory, and one atServer for each atSign.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(
    example = "{command_name} serve --port 6400",
    example = "{command_name} add @alice",
    example = "{command_name} install --listen 0.0.0.0 --host at.example.org",
    error_code(1, "failed"),
    error_code(2, "the command line was wrong"),
    error_code(4, "status: no server is running")
)]
pub(crate) struct Args {
    #[argh(subcommand)]
    what: Subcommand,
}

#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand)]
enum Subcommand {
    Serve(Serve),
    Add(Add),
    List(List),
    Quota(Quota),
    Remove(Remove),
    Show(Show),
    ExportCa(ExportCa),
    Backup(Backup),
    Restore(Restore),
    RotateCa(RotateCa),
}

/// Runs the program; `args` without its name.
pub fn main(mut console: Console, args: &[&str]) -> ExitCode {
    let args: Args = match console.parse(args) {
        Ok(args) => args,
        Err(code) => return code,
    };
    let (json, result) = match args.what {
        Subcommand::Serve(args) => (args.json, serve(&console, args)),
        Subcommand::Add(args) => (args.json, console.run(1, add(&console, args))),
        Subcommand::List(args) => (args.json, console.run(1, list(&console, args))),
        Subcommand::Quota(args) => (args.json, console.run(1, quota(&console, args))),
        Subcommand::Remove(args) => (args.json, console.run(1, remove(&console, args))),
        Subcommand::Show(args) => (args.json, console.run(1, show(&console, args))),
        Subcommand::ExportCa(args) => (args.json, export_ca(&console, args)),
        Subcommand::Backup(args) => (args.json, console.run(1, backup(&console, args))),
        Subcommand::Restore(args) => (args.json, restore(&console, args)),
        Subcommand::RotateCa(args) => (args.json, rotate_ca(&console, args)),
    };
    console.finish(json, result)
}

/// Whether it would start with these words; for a service, before it is installed. Changes nothing.
pub fn verify(console: Console, words: &[&str]) -> ExitCode {
    console.verify(words, |_, args: Args| {
        let Subcommand::Serve(args) = args.what else {
            return Ok(());
        };
        let data = data_folder(args.data.clone())?;
        let args = args.like_last_time(&data)?;
        args.host()?;
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
        Self::told(exit::FAILED, &error, error.hint())
    }
}

impl From<ServerError> for Failure {
    fn from(error: ServerError) -> Self {
        Self::told(exit::FAILED, &error, error.hint())
    }
}

impl From<AdminError> for Failure {
    fn from(error: AdminError) -> Self {
        Self::told(exit::FAILED, &error, control::hint(&error))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
