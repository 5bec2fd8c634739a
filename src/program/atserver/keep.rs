//! Keeping a server's data: backup, restore, and a new authority now and then.

use std::{collections::BTreeMap, fs, io, path::Path};

use miniserde::json;

use crate::{
    cli::{Failure, exit, print_err, print_out},
    server::{
        authority::{self, CA_FILE, KEY_FILE, NEXT_KEY_FILE},
        control::{self, AdminAnswer, AdminRequest},
        store::{
            Store, StoreError,
            backup::{self, Copied},
        },
    },
};

use super::{Backup, Restore, RotateCa, ask, data_folder};

/// What a backup holds beside the store.
const FILES: [&str; 3] = [KEY_FILE, NEXT_KEY_FILE, CA_FILE];

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let failure = Self::plain(error.to_string());
        match error.hint() {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

/// The small files of a data folder.
pub(super) fn beside_store(data: &Path) -> Result<BTreeMap<String, Vec<u8>>, Failure> {
    let mut files = BTreeMap::new();
    for name in FILES {
        let path = data.join(name);
        match fs::read(&path) {
            Ok(content) => drop(files.insert(name.to_owned(), content)),
            Err(why) if why.kind() == io::ErrorKind::NotFound => {}
            Err(why) => {
                let text = format!("cannot read {}: {why}", path.display());
                return Err(Failure::plain(text));
            }
        }
    }
    Ok(files)
}

/// A backup's summary, as the control socket tells it.
pub(super) fn told(copied: Copied) -> AdminAnswer {
    AdminAnswer::Backup(control::BackupTotals {
        atsigns: u32::try_from(copied.atsigns.len()).unwrap_or(u32::MAX),
        rows: copied.rows,
    })
}

pub(super) async fn backup(args: Backup) -> Result<(), Failure> {
    let data = data_folder(args.data)?;
    let file = std::path::absolute(&args.file)
        .map_err(|why| Failure::misuse(format!("cannot use {}: {why}", args.file.display())))?;
    let answer = match control::ask(&data, &AdminRequest::Backup(file.clone())).await? {
        Some(answer) => answer,
        None => without_server(&data, &file).await?,
    };
    let made = match answer {
        AdminAnswer::Backup(made) => made,
        AdminAnswer::Refused { error, hint } => return Err(ask::refused(error, hint)),
        _ => return Err(ask::unexpected()),
    };
    let place = file.display().to_string();
    tell(
        args.json,
        "backup",
        Some(&place),
        Some(made.atsigns),
        || {
            format!(
                "{} in {place}, with the private key of the authority",
                are(made.atsigns)
            )
        },
    );
    Ok(())
}

async fn without_server(data: &Path, file: &Path) -> Result<AdminAnswer, Failure> {
    if !data.join(backup::STORE).exists() {
        let text = format!("there is no store in {}", data.display());
        return Err(Failure::plain(text).hint("--data DIR"));
    }
    let store = Store::open(data, |_| {})?;
    let files = beside_store(data);
    let copied = files.and_then(|files| Ok(backup::write(&store, file, &files)?));
    store.close().await;
    Ok(told(copied?))
}

pub(super) fn restore(args: Restore) -> Result<(), Failure> {
    let data = data_folder(args.data)?;
    let done = backup::restore(&args.file, &data, &FILES, args.force);
    let copied = done.map_err(|error| match &error {
        StoreError::InUse(_) => Failure::from(error).hint("stop the server first"),
        _ => Failure::from(error),
    })?;
    let count = u32::try_from(copied.atsigns.len()).unwrap_or(u32::MAX);
    let place = data.display().to_string();
    tell(args.json, "restored", Some(&place), Some(count), || {
        format!("{} back in {place}", are(count))
    });
    Ok(())
}

pub(super) fn rotate_ca(args: RotateCa) -> Result<(), Failure> {
    let data = data_folder(args.data)?;
    if !data.join(KEY_FILE).exists() {
        let text = format!("there is no authority in {}", data.display());
        return Err(Failure::new(exit::FAILED, text).hint("--data DIR"));
    }
    let ca = data.join(CA_FILE).display().to_string();
    let event = match args.finish {
        true => authority::finish(&data).map(|_| "finished")?,
        false => authority::rotate(&data).map(|_| "rotated")?,
    };
    tell(args.json, event, Some(&ca), None, || match args.finish {
        true => format!("restart the server: from then on only the new authority in {ca} counts"),
        false => format!(
            "give {ca} to every client: it holds the old and the new authority\nthen: noports atserver rotate-ca --finish --data {}",
            data.display()
        ),
    });
    Ok(())
}

fn are(count: u32) -> String {
    match count {
        1 => "1 atSign is".to_owned(),
        count => format!("{count} atSigns are"),
    }
}

#[derive(miniserde::Serialize)]
struct Told<'a> {
    event: &'a str,
    file: Option<&'a str>,
    atsigns: Option<u32>,
}

fn tell(
    json: bool,
    event: &str,
    file: Option<&str>,
    atsigns: Option<u32>,
    text: impl FnOnce() -> String,
) {
    match json {
        true => print_out(&json::to_string(&Told {
            event,
            file,
            atsigns,
        })),
        false => print_err(&text()),
    }
}
