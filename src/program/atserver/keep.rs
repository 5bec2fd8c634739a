//! Keeping a server's data: backup, restore, and a new authority now and then.

use std::{
    fs,
    path::{Path, PathBuf},
};

use argh::{ArgsInfo, FromArgs};

use crate::{
    cli::{Console, Failure, Outcome, exit, flags},
    server::{
        authority::{self, CA_FILE, KEY_FILE},
        control::{self, AdminAnswer, AdminRequest},
        store::{Store, StoreError, backup},
    },
};

use super::{
    answer::{backup_totals, granted, unexpected},
    ask::serve_again,
    folder::{FILES, beside_store, data_folder, known_folder, with_folder},
};

flags! {
    /// Copy all data into a new file, also while the server runs. The file holds private keys: keep it safe.
    #[derive(FromArgs, ArgsInfo, Debug)]
    #[argh(
        subcommand,
        name = "backup",
        example = "{command_name} atserver.backup"
    )]
    pub(super) struct Backup {
        /// the new file
        #[argh(positional)]
        file: PathBuf,
        data,
    }
}

flags! {
    /// Restore the data folder from a backup. The server must not be running.
    #[derive(FromArgs, ArgsInfo, Debug)]
    #[argh(
        subcommand,
        name = "restore",
        example = "{command_name} atserver.backup"
    )]
    pub(super) struct Restore {
        /// the backup
        #[argh(positional)]
        file: PathBuf,
        /// restore into a folder that is not empty; what it replaces is kept as *.before-restore
        #[argh(switch)]
        force: bool,
        data,
    }
}

flags! {
    /// Replace the authority in two steps: make the next one beside it, then, once all clients trust both, finish.
    #[derive(FromArgs, ArgsInfo, Debug)]
    #[argh(
        subcommand,
        name = "rotate-ca",
        example = "{command_name}",
        example = "{command_name} --finish"
    )]
    pub(super) struct RotateCa {
        /// make the new authority the only one from the next start of the server
        #[argh(switch)]
        finish: bool,
        data,
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::told(exit::FAILED, &error, error.hint())
    }
}

pub(super) async fn backup(console: &Console, args: Backup) -> Result<(), Failure> {
    let data = known_folder(console, args.data)?;
    let file = std::path::absolute(&args.file)
        .map_err(|why| Failure::misuse(format!("cannot use {}: {why}", args.file.display())))?;
    let answer = match with_server(&data, &file).await? {
        Some(answer) => answer,
        None => without_server(&data, &file).await?,
    };
    let AdminAnswer::Backup(made) = granted(answer)? else {
        return Err(unexpected());
    };
    let place = file.display().to_string();
    let outcome = outcome("backup", &place, Some(made.atsigns)).remark(format!(
        "{} in {place}, with the private key of the authority",
        are(made.atsigns)
    ));
    console.tell(args.json, outcome);
    Ok(())
}

/// A server writes into its own folder only, so the backup is made there and then brought to its place.
async fn with_server(data: &Path, file: &Path) -> Result<Option<AdminAnswer>, Failure> {
    backup::refuse_existing(file)?;
    let made = data.join(format!(".backup.{}", std::process::id()));
    // Left by somebody who was killed.
    let _ = fs::remove_file(&made);
    let Some(answer) = control::ask(data, &AdminRequest::Backup(made.clone())).await? else {
        return Ok(None);
    };
    let answer = granted(answer)?;
    let brought = backup::bring(&made, file);
    let _ = fs::remove_file(&made);
    brought?;
    Ok(Some(answer))
}

async fn without_server(data: &Path, file: &Path) -> Result<AdminAnswer, Failure> {
    let store = Store::open(data, |_| {})?;
    let files = beside_store(data);
    let copied = files.and_then(|files| Ok(backup::write(&store, file, &files)?));
    store.close().await;
    Ok(backup_totals(copied?))
}

pub(super) fn restore(console: &Console, args: Restore) -> Result<(), Failure> {
    let data = data_folder(args.data)?;
    let done = backup::restore(&args.file, &data, &FILES, args.force);
    let copied = done.map_err(|error| match &error {
        StoreError::InUse(_) => Failure::from(error).hint("stop the server first"),
        StoreError::Folder(path, _) if *path == args.file => {
            Failure::from(error).hint("check the name of the backup; nothing has been changed")
        }
        _ => Failure::from(error),
    })?;
    let count = u32::try_from(copied.atsigns.len()).unwrap_or(u32::MAX);
    let place = data.display().to_string();
    let outcome =
        outcome("restored", &place, Some(count)).remark(format!("{} back in {place}", are(count)));
    console.tell(args.json, outcome);
    Ok(())
}

pub(super) fn rotate_ca(console: &Console, args: RotateCa) -> Result<(), Failure> {
    let data = known_folder(console, args.data)?;
    if !data.join(KEY_FILE).exists() {
        let text = format!("there is no authority in {}", data.display());
        return Err(Failure::plain(text).hint(serve_again(&data)));
    }
    let ca = data.join(CA_FILE).display().to_string();
    let (event, next) = if args.finish {
        authority::finish(&data)?;
        let next =
            format!("restart the server: from then on only the new authority in {ca} is valid");
        ("finished", next)
    } else {
        authority::rotate(&data)?;
        let next = format!(
            "give {ca} to every client: it holds the old and the new authority\nthen: {}",
            with_folder("rotate-ca --finish", &data)
        );
        ("rotated", next)
    };
    console.tell(args.json, outcome(event, &ca, None).remark(next));
    Ok(())
}

fn are(count: u32) -> String {
    match count {
        1 => "1 atSign is".to_owned(),
        count => format!("{count} atSigns are"),
    }
}

fn outcome(event: &str, file: &str, atsigns: Option<u32>) -> Outcome {
    let atsigns = atsigns.map_or_else(|| "null".to_owned(), |count| count.to_string());
    Outcome::new(event)
        .with("file", file)
        .raw("atsigns", atsigns)
}
