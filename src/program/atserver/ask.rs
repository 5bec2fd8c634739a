//! What people ask of a server: add, list, remove, status.

use std::{
    fs::{self, OpenOptions},
    io::{self, BufRead, IsTerminal, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use miniserde::json;

use crate::{
    at::AtSign,
    cli::{Failure, exit, print_err, print_out},
    secret::Secret,
    server::{
        authority,
        control::{self, AdminAnswer, AdminError, AdminRequest, Hosted},
        store::backup::STORE,
    },
    sys::out,
};

use super::{Add, ExportCa, List, Remove, Show, answer::offline, data_folder};

/// Longest answer to a question that is read, in bytes.
const MAX_ANSWER: u64 = 100;

/// Asks the running server; if none runs, opens the data for this one request.
pub(super) async fn request(data: &Path, request: AdminRequest) -> Result<AdminAnswer, Failure> {
    match control::ask(data, &request).await? {
        Some(answer) => Ok(answer),
        None => offline(data, request).await,
    }
}

/// The same for what makes no sense in a folder without data: it is not made for a word that was mistyped.
async fn request_known(data: &Path, asked: AdminRequest) -> Result<AdminAnswer, Failure> {
    if !data.join(STORE).exists() {
        let text = format!("no atSign has ever been hosted in {}", data.display());
        return Err(Failure::plain(text).hint("is it another folder? --data DIR"));
    }
    request(data, asked).await
}

pub(super) fn refused(error: String, hint: Option<String>) -> Failure {
    Failure {
        message: error,
        hint,
        code: exit::FAILED,
        classic: None,
    }
}

pub(super) fn unexpected() -> Failure {
    AdminError::Answer.into()
}

pub(super) async fn add(args: Add) -> Result<(), Failure> {
    let who: AtSign = args.atsign.parse()?;
    let data = data_folder(args.data)?;
    // The secret is told once: make sure first that there is a place for it.
    let file = args.secret_file.as_deref().map(new_file).transpose()?;
    let secret = match request(&data, AdminRequest::Add(who.clone())).await {
        Ok(AdminAnswer::Secret(secret)) => Ok(secret),
        Ok(AdminAnswer::Refused { error, hint }) => Err(refused(error, hint)),
        Ok(_) => Err(unexpected()),
        Err(failure) => Err(failure),
    };
    let secret = secret.inspect_err(|_| {
        if let Some(path) = &args.secret_file {
            let _ = fs::remove_file(path);
        }
    })?;
    let kept = match (file, &args.secret_file) {
        (Some(file), Some(path)) => Some(keep(file, path, &secret)?),
        _ => None,
    };
    tell_secret(&who, &secret, kept.as_deref(), args.json)?;
    tell_next(&who, &data, kept.as_deref()).await;
    Ok(())
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

/// The one-time secret: on stdout, unless a file has it.
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
    out::line(line.reveal()).map_err(|why| {
        Failure::plain(format!(
            "{who} is hosted, but its secret could not be printed: {why}"
        ))
        .hint(format!("noports atserver remove {who}, then add it again"))
    })
}

#[derive(miniserde::Serialize)]
struct Added<'a> {
    event: &'static str,
    atsign: &'a str,
    secret: Option<&'a str>,
    secret_file: Option<&'a str>,
}

/// What its owner has to run now.
async fn tell_next(who: &AtSign, data: &Path, kept: Option<&str>) {
    let (root, note) = match control::ask(data, &AdminRequest::Status).await {
        Ok(Some(AdminAnswer::Status(status))) => (status.directory, ""),
        _ => ("HOST:PORT".to_owned(), ", once the server runs"),
    };
    let ca = data.join(authority::CA_FILE);
    let from = kept.map_or(String::new(), |file| format!(" --secret-file {file}"));
    print_err(&format!("next{note}:"));
    print_err(&format!(
        "  noports activate {who} --root {root} --ca {}{from}",
        ca.display()
    ));
}

pub(super) async fn list(args: List) -> Result<(), Failure> {
    let data = data_folder(args.data)?;
    let rows = match request_known(&data, AdminRequest::List).await? {
        AdminAnswer::List(rows) => rows,
        AdminAnswer::Refused { error, hint } => return Err(refused(error, hint)),
        _ => return Err(unexpected()),
    };
    if args.json {
        print_out(&json::to_string(&rows));
        return Ok(());
    }
    for line in table(&rows) {
        print_out(&line);
    }
    if rows.is_empty() {
        print_err("none yet: noports atserver add @you");
    }
    Ok(())
}

/// One line each, in columns.
fn table(rows: &[Hosted]) -> Vec<String> {
    let cells = rows.iter().map(|row| {
        let state = if row.activated {
            "activated"
        } else {
            "waits for its activation"
        };
        (
            row.atsign.clone(),
            format!("{}:{}", row.host, row.port),
            state,
        )
    });
    let head = ("atSign".to_owned(), "atServer".to_owned(), "state");
    let all: Vec<_> = std::iter::once(head).chain(cells).collect();
    let wide = |of: fn(&(String, String, &str)) -> usize| all.iter().map(of).max().unwrap_or(0);
    let (first, second) = (wide(|c| c.0.chars().count()), wide(|c| c.1.chars().count()));
    all.iter()
        .map(|(who, at, state)| format!("{who:<first$}  {at:<second$}  {state}"))
        .collect()
}

pub(super) async fn remove(args: Remove) -> Result<(), Failure> {
    let who: AtSign = args.atsign.parse()?;
    let data = data_folder(args.data)?;
    if !args.yes {
        confirm(&who)?;
    }
    match request_known(&data, AdminRequest::Remove(who.clone())).await? {
        AdminAnswer::Done => {}
        AdminAnswer::Refused { error, hint } => {
            let list = || format!("noports atserver list --data {}", data.display());
            let unknown = error.ends_with("is not hosted here");
            return Err(refused(error, unknown.then(list).or(hint)));
        }
        _ => return Err(unexpected()),
    }
    if args.json {
        print_out(&json::to_string(&Removed {
            event: "removed",
            atsign: who.as_str(),
        }));
    } else {
        print_err(&format!("{who} is hosted no longer"));
    }
    Ok(())
}

/// Everything of this atSign goes, and its keys are worth nothing any more.
fn confirm(who: &AtSign) -> Result<(), Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::misuse("removing needs somebody to say yes")
            .hint("on a terminal; or --yes, when you are sure"));
    }
    let mut err = io::stderr().lock();
    let _ = write!(
        err,
        "  {who} and all its data will be gone. Remove it? [y/N] "
    )
    .and_then(|()| err.flush());
    let mut answer = String::new();
    let read = io::stdin().lock().take(MAX_ANSWER).read_line(&mut answer);
    match (read, answer.trim()) {
        (Ok(_), "y" | "Y" | "yes") => Ok(()),
        _ => Err(Failure::plain(format!("{who} is not removed"))),
    }
}

#[derive(miniserde::Serialize)]
struct Removed<'a> {
    event: &'static str,
    atsign: &'a str,
}

pub(super) async fn show(args: Show) -> Result<(), Failure> {
    let data = data_folder(args.data)?;
    let status = match control::ask(&data, &AdminRequest::Status).await? {
        Some(AdminAnswer::Status(status)) => status,
        Some(AdminAnswer::Refused { error, hint }) => return Err(refused(error, hint)),
        Some(_) => return Err(unexpected()),
        None => {
            return Err(Failure::new(
                exit::UNREACHABLE,
                format!("no server is running with {}", data.display()),
            )
            .hint(format!(
                "noports atserver serve --data {0}; or is it another folder? --data DIR",
                data.display()
            )));
        }
    };
    if args.json {
        print_out(&json::to_string(&status));
        return Ok(());
    }
    print_out(&format!(
        "running      process {}, version {}",
        status.pid, status.version
    ));
    print_out(&format!("atDirectory  {}", status.directory));
    if !status.ca.is_empty() {
        print_out(&format!("authority    {}", status.ca));
    }
    print_out(&format!("atSigns      {}", status.atsigns));
    Ok(())
}

pub(super) fn export_ca(args: ExportCa) -> Result<(), Failure> {
    let file = data_folder(args.data)?.join(authority::CA_FILE);
    let pem = fs::read_to_string(&file).map_err(|why| {
        Failure::plain(format!("cannot read {}: {why}", file.display()))
            .hint("the first start of the server makes it: noports atserver serve")
    })?;
    if args.json {
        print_out(&json::to_string(&Exported {
            event: "exported",
            ca: &pem,
        }));
    } else {
        print_out(pem.trim_end());
    }
    Ok(())
}

#[derive(miniserde::Serialize)]
struct Exported<'a> {
    event: &'static str,
    ca: &'a str,
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
                "@bo\u{f6}b12  h:25000          waits for its activation",
            ]
        );
        assert_eq!(table(&[]), ["atSign  atServer  state"]);
    }
}
