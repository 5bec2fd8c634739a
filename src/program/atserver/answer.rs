//! What a request to the server gets: from the one that runs, or from one started for it alone.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::{Path, PathBuf},
};

use async_std::task;

use crate::{
    cli::Failure,
    server::{
        authority,
        control::{self, AdminAnswer, AdminError, AdminRequest, ServerStatus},
        listen::{self, RunningServer, ServerOptions, Timings},
        store::backup::Copied,
    },
};

use super::{folder::beside_store, last_time::last_time, serve::Serve};

/// The first atSign's atServer, unless --first-port says otherwise; the next ones follow.
pub(super) const FIRST_PORT: u16 = 25_000;

/// Without an authority of our own there is none to trust: clients know whoever signed.
pub(super) fn status(place: &str, ca: Option<&Path>, data: &Path) -> ServerStatus {
    ServerStatus {
        directory: place.to_owned(),
        ca: ca.map_or(String::new(), |ca| ca.display().to_string()),
        data: data.display().to_string(),
        pid: std::process::id(),
        atsigns: 0,
        version: env!("CARGO_PKG_VERSION").into(),
    }
}

/// Answers one request of the control socket.
pub(super) async fn answer(
    running: &RunningServer,
    status: &ServerStatus,
    request: AdminRequest,
) -> AdminAnswer {
    let answered = match request {
        AdminRequest::Backup(file) => match small_files(&status.data).await {
            Ok(files) => running.back_up(file, files).await.map(backup_totals),
            Err(why) => {
                return AdminAnswer::Refused {
                    error: why.message,
                    hint: why.hint,
                };
            }
        },
        AdminRequest::Add(who) => running.add(&who).await.map(AdminAnswer::Secret),
        AdminRequest::Remove(who) => running.remove(&who).await.map(|()| AdminAnswer::Done),
        AdminRequest::Quota(who, bytes) => running
            .set_quota(&who, bytes)
            .await
            .map(|()| AdminAnswer::Done),
        AdminRequest::List => running.list().await.map(AdminAnswer::List),
        AdminRequest::Status => running.list().await.map(|rows| {
            AdminAnswer::Status(ServerStatus {
                atsigns: rows.len() as u32,
                ..status.clone()
            })
        }),
    };
    answered.unwrap_or_else(|error| AdminAnswer::Refused {
        error: error.to_string(),
        hint: error.hint(),
    })
}

/// A backup's summary, as the control socket tells it.
pub(super) fn backup_totals(copied: Copied) -> AdminAnswer {
    AdminAnswer::Backup(control::BackupTotals {
        atsigns: u32::try_from(copied.atsigns.len()).unwrap_or(u32::MAX),
        rows: copied.rows,
    })
}

/// What the server grants; what it refuses is a failure.
pub(super) fn granted(answer: AdminAnswer) -> Result<AdminAnswer, Failure> {
    match answer {
        AdminAnswer::Refused { error, hint } => Err(Failure {
            hint,
            ..Failure::plain(error)
        }),
        answer => Ok(answer),
    }
}

/// An answer to another question.
pub(super) fn unexpected() -> Failure {
    AdminError::Answer.into()
}

/// Off the executor: others are being served.
async fn small_files(data: &str) -> Result<BTreeMap<String, Vec<u8>>, Failure> {
    let data = PathBuf::from(data);
    task::spawn_blocking(move || beside_store(&data)).await
}

/// Opens the data for one request, when no server is running, and listens nowhere. A new atSign gets a port as the server
/// was started last.
pub(super) async fn offline(data: &Path, request: AdminRequest) -> Result<AdminAnswer, Failure> {
    let last = last_time(data)?.unwrap_or_default();
    offline_as(&last, data, request).await
}

pub(super) async fn offline_as(
    last: &Serve,
    data: &Path,
    request: AdminRequest,
) -> Result<AdminAnswer, Failure> {
    let authority = authority::open_or_make(data)?;
    let tls = authority.leaf(&[])?.acceptor()?;
    let running = listen::open(on_loopback(last, data)?, tls).await?;
    let status = status("", Some(authority.ca_file()), data);
    let answer = answer(&running, &status, request).await;
    running.stop().await;
    Ok(answer)
}

pub(super) fn on_loopback(last: &Serve, data: &Path) -> Result<ServerOptions, Failure> {
    Ok(ServerOptions {
        data: data.to_owned(),
        listen: IpAddr::from([127, 0, 0, 1]),
        host: last.host()?,
        directory_port: 0,
        first_port: last.first_port(),
        domain: last.domain.clone(),
        timings: Timings::default(),
    })
}
