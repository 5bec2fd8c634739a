//! What people ask of a server: add, list, remove, status.

use std::{
    fs::{self, OpenOptions},
    io::{self, IsTerminal, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use argh::{ArgsInfo, FromArgs};
use miniserde::json;

use crate::{
    at::AtSign,
    cli::{self, Console, Failure, Outcome, exit, flags, print_err},
    program::confirm::is_wanted,
    secret::Secret,
    server::{
        authority,
        control::{self, AdminAnswer, AdminRequest, Hosted},
    },
    sys::{
        file::{SMALL, text_now},
        out,
        ssh::shell_line,
    },
    text::{
        columns,
        endpoint::Endpoint,
        size::{self, in_words},
    },
};

use super::{
    answer::{granted, offline, unexpected},
    folder::{data_folder, elsewhere, has_data, known_folder, with_folder},
    last_time::last_time,
};

flags! {
    /// Host one more atSign, and print its one-time activation secret.
    #[derive(FromArgs, ArgsInfo, Debug)]
    #[argh(
        subcommand,
        name = "add",
        example = "{command_name} @alice",
        example = "{command_name} @alice --secret-file alice.secret"
    )]
    pub(super) struct Add {
        /// the atSign
        #[argh(positional)]
        atsign: String,
        /// write the secret to this new file instead of stdout
        #[argh(option, arg_name = "file")]
        secret_file: Option<PathBuf>,
        /// let it keep so much, such as 500M (default: 1G)
        #[argh(option, arg_name = "size", from_str_fn(size::quota))]
        quota: Option<u64>,
        data,
    }
}

flags! {
    /// Let an atSign keep more, or less, than before.
    ///
    /// Once its quota is used up it can delete, and write nothing new. What others send it is not counted.
    #[derive(FromArgs, ArgsInfo, Debug)]
    #[argh(subcommand, name = "quota", example = "{command_name} @alice 4G")]
    pub(super) struct Quota {
        /// the atSign
        #[argh(positional)]
        atsign: String,
        /// how much, such as 500M
        #[argh(positional, from_str_fn(size::quota))]
        size: u64,
        data,
    }
}

flags! {
    /// List the hosted atSigns.
    #[derive(FromArgs, ArgsInfo, Debug)]
    #[argh(subcommand, name = "list", example = "{command_name}")]
    pub(super) struct List {
        data,
    }
}

flags! {
    /// Stop hosting an atSign. All its data is lost.
    #[derive(FromArgs, ArgsInfo, Debug)]
    #[argh(subcommand, name = "remove", example = "{command_name} @alice")]
    pub(super) struct Remove {
        /// the atSign
        #[argh(positional)]
        atsign: String,
        /// do not ask
        #[argh(switch)]
        yes: bool,
        data,
    }
}

flags! {
    /// Show whether the service runs and is connected; with --data, or without a service, whether a server runs, and where.
    #[derive(FromArgs, ArgsInfo, Debug)]
    #[argh(
        subcommand,
        name = "status",
        example = "{command_name}",
        example = "{command_name} --data /srv/at"
    )]
    pub(super) struct Show {
        data,
    }
}

flags! {
    /// Print the certificate of the authority, for --ca of clients. During a rotation, print both.
    #[derive(FromArgs, ArgsInfo, Debug)]
    #[argh(subcommand, name = "export-ca", example = "{command_name} > ca.pem")]
    pub(super) struct ExportCa {
        data,
    }
}

/// A certificate begins with it.
const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----";

/// What the server refuses, with the command that helps, complete.
fn with_data(failure: Failure, data: &Path) -> Failure {
    let message = failure.message.clone();
    let who = message.split(' ').next().unwrap_or_default();
    if message.ends_with("is not hosted here") {
        failure.hint(with_folder("list", data))
    } else if message.ends_with("is already hosted here") {
        failure.hint(format!(
            "if its activation secret is lost: {}, then add it again; all its data goes",
            with_folder(&format!("remove {who}"), data)
        ))
    } else {
        failure
    }
}

/// Asks the running server; if none runs, opens the data for this one request.
pub(super) async fn request(data: &Path, request: AdminRequest) -> Result<AdminAnswer, Failure> {
    match control::ask(data, &request).await? {
        Some(answer) => Ok(answer),
        None => offline(data, request).await,
    }
}

pub(super) async fn add(console: &Console, args: Add) -> Result<(), Failure> {
    let who = cli::with_keys(&args.atsign)?;
    let data = known_folder(console, args.data.clone())?;
    // The secret is told once: make sure first that there is a place for it.
    let file = args.secret_file.as_deref().map(new_file).transpose()?;
    let answer = request(&data, AdminRequest::Add(who.clone())).await;
    let secret = match answer.and_then(granted) {
        Ok(AdminAnswer::Secret(secret)) => Ok(secret),
        Ok(_) => Err(unexpected()),
        Err(failure) => Err(with_data(failure, &data)),
    };
    let told = match secret {
        Ok(secret) => match hand_over(&args, &who, &secret, file, &data).await {
            Ok(kept) => Ok(kept),
            Err(failure) => Err(undone(&who, &data, failure).await),
        },
        Err(failure) => Err(failure),
    };
    let kept = told.inspect_err(|_| {
        if let Some(path) = &args.secret_file {
            let _ = fs::remove_file(path);
        }
    })?;
    tell_next(&who, &data, kept.as_deref()).await
}

/// Gives a new atSign its quota, and its owner the secret; the file that has it.
async fn hand_over(
    args: &Add,
    who: &AtSign,
    secret: &Secret<String>,
    file: Option<fs::File>,
    data: &Path,
) -> Result<Option<String>, Failure> {
    if let Some(bytes) = args.quota {
        set_quota(data, who, bytes).await?;
    }
    let kept = match (file, &args.secret_file) {
        (Some(file), Some(path)) => Some(keep(file, path, secret)?),
        _ => None,
    };
    tell_secret(who, secret, kept.as_deref(), args.json)?;
    Ok(kept)
}

/// Without its secret, which is told once, an atSign is of no use to anybody.
async fn undone(who: &AtSign, data: &Path, failure: Failure) -> Failure {
    match request(data, AdminRequest::Remove(who.clone())).await {
        Ok(AdminAnswer::Done) => Failure {
            message: format!("{who} is not hosted: {}", failure.message),
            ..failure
        },
        _ => failure.hint(format!(
            "{}, then add it again",
            with_folder(&format!("remove {who}"), data)
        )),
    }
}

fn new_file(path: &Path) -> Result<fs::File, Failure> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(|why| cannot_write(path, &why))
}

fn keep(mut file: fs::File, path: &Path, secret: &Secret<String>) -> Result<String, Failure> {
    let line = Secret::new(format!("{}\n", secret.reveal()));
    file.write_all(line.reveal().as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(|why| cannot_write(path, &why))?;
    Ok(path.display().to_string())
}

fn cannot_write(path: &Path, why: &io::Error) -> Failure {
    Failure::plain(format!("cannot write {}: {why}", path.display()))
}

/// The one-time secret: on stdout, unless a file has it. No [`Outcome`]: nothing of it stays in memory, and a stdout that
/// cannot be written is a failure here.
fn tell_secret(
    who: &AtSign,
    secret: &Secret<String>,
    kept: Option<&str>,
    json: bool,
) -> Result<(), Failure> {
    let line = match (json, kept) {
        (true, _) => json::to_string(&Added {
            event: "added",
            atsign: who.as_str(),
            secret: kept.is_none().then(|| secret.reveal().as_str()),
            secret_file: kept,
        }),
        (false, None) => secret.reveal().clone(),
        (false, Some(_)) => return Ok(()),
    };
    let line = Secret::new(line);
    out::line(line.reveal())
        .map_err(|why| Failure::plain(format!("its secret could not be printed: {why}")))
}

#[derive(miniserde::Serialize)]
struct Added<'a> {
    event: &'static str,
    atsign: &'a str,
    secret: Option<&'a str>,
    secret_file: Option<&'a str>,
}

/// What its owner has to run now.
async fn tell_next(who: &AtSign, data: &Path, kept: Option<&str>) -> Result<(), Failure> {
    let (root, start) = match control::ask(data, &AdminRequest::Status).await {
        Ok(Some(AdminAnswer::Status(status))) => (status.directory, false),
        _ => (last_place(data)?, true),
    };
    let ca = data.join(authority::CA_FILE);
    let words = ["--root", &root, "--ca", &ca.display().to_string()].map(str::to_owned);
    let from = kept.map(|file| ["--secret-file", file].map(str::to_owned));
    let words: Vec<_> = words
        .into_iter()
        .chain(from.into_iter().flatten())
        .collect();
    print_err("next:");
    if start {
        print_err(&format!("  {}", serve_again(data)));
    }
    print_err(&format!("  noports activate {who} {}", shell_line(&words)));
    Ok(())
}

/// Where the atDirectory will be, as far as that is known.
fn last_place(data: &Path) -> Result<String, Failure> {
    let last = last_time(data)?.unwrap_or_default();
    Ok(match last.port() {
        0 => "HOST:PORT".to_owned(),
        port => place(last.host()?, port),
    })
}

fn place(host: String, port: u16) -> String {
    Endpoint { host, port }.to_string()
}

/// The command that starts it as last time.
pub(super) fn serve_again(data: &Path) -> String {
    with_folder("serve", data)
}

pub(super) async fn list(console: &Console, args: List) -> Result<(), Failure> {
    let data = known_folder(console, args.data)?;
    let AdminAnswer::List(rows) = granted(request(&data, AdminRequest::List).await?)? else {
        return Err(unexpected());
    };
    let outcome = Outcome::new("atsigns")
        .raw("atsigns", json::to_string(&rows))
        .plain(table(&rows).join("\n"));
    console.tell(args.json, outcome);
    if rows.is_empty() && !args.json {
        print_err(&format!("none yet: {}", with_folder("add @you", &data)));
    }
    Ok(())
}

/// One line each, in columns.
fn table(rows: &[Hosted]) -> Vec<String> {
    let cells = rows.iter().map(|row| {
        let state = if row.activated {
            "activated"
        } else {
            "not activated yet"
        };
        let at = place(row.host.clone(), row.port);
        [row.atsign.clone(), at, state.to_owned()]
    });
    let head = ["atSign", "atServer", "state"].map(str::to_owned);
    let all: Vec<_> = std::iter::once(head).chain(cells).collect();
    columns::lines(&all, &[])
}

pub(super) async fn quota(console: &Console, args: Quota) -> Result<(), Failure> {
    let who: AtSign = args.atsign.parse()?;
    let data = known_folder(console, args.data)?;
    set_quota(&data, &who, args.size).await?;
    let words = if args.size.is_multiple_of(1024) {
        in_words(args.size)
    } else {
        format!("{} bytes", args.size)
    };
    let outcome = Outcome::new("quota")
        .with("atsign", who.as_str())
        .with("bytes", &args.size.to_string())
        .remark(format!("{who} may keep {words}"));
    console.tell(args.json, outcome);
    Ok(())
}

async fn set_quota(data: &Path, who: &AtSign, bytes: u64) -> Result<(), Failure> {
    let answer = request(data, AdminRequest::Quota(who.clone(), bytes)).await?;
    match granted(answer).map_err(|failure| with_data(failure, data))? {
        AdminAnswer::Done => Ok(()),
        _ => Err(unexpected()),
    }
}

pub(super) async fn remove(console: &Console, args: Remove) -> Result<(), Failure> {
    let who: AtSign = args.atsign.parse()?;
    let data = known_folder(console, args.data)?;
    if !args.yes {
        confirm(&who)?;
    }
    let answer = request(&data, AdminRequest::Remove(who.clone())).await?;
    let answer = granted(answer).map_err(|failure| with_data(failure, &data))?;
    if answer != AdminAnswer::Done {
        return Err(unexpected());
    }
    let outcome = Outcome::new("removed")
        .with("atsign", who.as_str())
        .remark(format!("{who} is no longer hosted"));
    console.tell(args.json, outcome);
    Ok(())
}

/// Everything of this atSign goes, and its keys are worth nothing any more.
fn confirm(who: &AtSign) -> Result<(), Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::misuse("removing needs a confirmation")
            .hint("run it in a terminal; or add --yes, if you are sure"));
    }
    let question = format!("{who} and all its data will be deleted. Remove it?");
    if is_wanted(&question) {
        Ok(())
    } else {
        Err(Failure::plain(format!("{who} is not removed")))
    }
}

pub(super) async fn show(console: &Console, args: Show) -> Result<(), Failure> {
    let data = data_folder(args.data)?;
    let answer = control::ask(&data, &AdminRequest::Status).await?;
    let answer = answer.ok_or_else(|| {
        let text = format!("no server is running with {}", data.display());
        let failure = Failure::new(exit::UNREACHABLE, text);
        match elsewhere(&data) {
            Some(near) if !has_data(&data) => failure.hint(with_folder("status", &near)),
            _ => failure.hint(serve_again(&data)),
        }
    })?;
    let AdminAnswer::Status(status) = granted(answer)? else {
        return Err(unexpected());
    };
    let mut words = vec![
        format!(
            "running      process {}, version {}",
            status.pid, status.version
        ),
        format!("atDirectory  {}", status.directory),
    ];
    if !status.ca.is_empty() {
        words.push(format!("authority    {}", status.ca));
    }
    words.push(format!("atSigns      {}", status.atsigns));
    let outcome = Outcome::new("status")
        .raw("server", json::to_string(&status))
        .plain(words.join("\n"));
    console.tell(args.json, outcome);
    Ok(())
}

pub(super) fn export_ca(console: &Console, args: ExportCa) -> Result<(), Failure> {
    let data = data_folder(args.data)?;
    let file = data.join(authority::CA_FILE);
    let pem = text_now(&file, SMALL).map_err(|why| {
        let failure = Failure::plain(format!("cannot read {}: {why}", file.display()));
        match elsewhere(&data) {
            Some(near) => failure.hint(with_folder("export-ca", &near)),
            None => failure.hint(format!(
                "the server makes it when it starts for the first time: {}",
                serve_again(&data)
            )),
        }
    })?;
    if !pem.contains(CERTIFICATE) {
        let text = format!("there is no certificate in {}", file.display());
        return Err(Failure::plain(text).hint("restore it from a backup"));
    }
    let outcome = Outcome::new("exported")
        .with("ca", &pem)
        .plain(pem.trim_end());
    console.tell(args.json, outcome);
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::program::atserver::ask::*;

    #[test]
    fn the_table_has_columns() {
        let row = |atsign: &str, host: &str, activated| Hosted {
            atsign: atsign.into(),
            host: host.into(),
            port: 25000,
            activated,
        };
        let rows = [
            row("@alice", "localhost", true),
            row("@bo\u{f6}b12", "h", false),
        ];
        assert_eq!(
            table(&rows),
            [
                "atSign   atServer         state",
                "@alice   localhost:25000  activated",
                "@bo\u{f6}b12  h:25000          not activated yet",
            ]
        );
        assert_eq!(table(&[]), ["atSign  atServer  state"]);
    }
}
