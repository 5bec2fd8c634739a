//! Where the rules come from, and when they have changed.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use log::error;
use miniserde::json;

use super::{Failure, read_rules};
use crate::{
    at::{
        AtKey,
        client::{AtError, Client},
        key::Scope,
        verb::Verb,
    },
    np::policy::{
        GROUPS,
        group::{self, MAX_GROUPS},
        rules::{Combine, Group, Rules},
    },
};

/// Where the rules are.
#[derive(Clone, Debug)]
pub enum Source {
    /// In a YAML file.
    File(PathBuf),
    /// On the policy's own atServer.
    Records,
}

/// How often a file is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How often records are read again even if nobody told us that they have changed.
const READ_EVERY: Duration = Duration::from_secs(60);

/// What a file looks like from outside; another one means another content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Look(Option<(u64, u64, i64, i64)>);

impl Source {
    pub(super) fn pause(&self) -> Duration {
        match self {
            Self::File(_) => LOOK_EVERY,
            Self::Records => READ_EVERY,
        }
    }

    /// `None`: from outside nothing can be seen.
    pub(super) fn look(&self) -> Option<Look> {
        match self {
            Self::File(file) => Some(look(file)),
            Self::Records => None,
        }
    }

    pub(super) async fn read(&self, at: &Client) -> Result<Rules, Failure> {
        match self {
            Self::File(file) => read_rules(file),
            Self::Records => Ok(records(at).await?),
        }
    }
}

fn look(file: &Path) -> Look {
    let about = fs::metadata(file).ok();
    Look(about.map(|a| (a.ino(), a.size(), a.mtime(), a.mtime_nsec())))
}

/// The groups among our own records. One that cannot be read is left out, with a line in the log.
async fn records(at: &Client) -> Result<Rules, AtError> {
    let scan = Verb::Scan {
        show_hidden: false,
        of: None,
        page: None,
        regex: Some(format!(r"\.{}@", GROUPS.replace('.', r"\."))),
    };
    let keys: Vec<String> = json::from_str(&at.run(&scan).await?)
        .map_err(|_| AtError::Protocol("a list of keys that cannot be read".to_owned()))?;
    let mut ids: Vec<(u64, String)> = keys.iter().filter_map(|key| own_group(at, key)).collect();
    ids.sort_unstable();
    if ids.len() > MAX_GROUPS {
        error!("groups={} used={MAX_GROUPS}", ids.len());
        ids.truncate(MAX_GROUPS);
    }
    let mut groups: Vec<Group> = Vec::new();
    for (_, entity) in ids {
        let Some(text) = at.get_own(&entity).await? else {
            continue;
        };
        match group::parse(&text) {
            Ok(group) => groups.push(group),
            Err(why) => error!("record={entity} not_used={:?}", why.to_string()),
        }
    }
    Ok(Rules {
        groups,
        combine: Combine::Both,
    })
}

/// Id and entity, if a key is that of a group of ours. What others share with us is none.
fn own_group(at: &Client, key: &str) -> Option<(u64, String)> {
    let key: AtKey = key.parse().ok()?;
    let ours = key.scope == Scope::Own && key.owner.as_ref() == Some(at.atsign());
    let id = group::id(&key.entity).filter(|_| ours && !key.cached)?;
    Some((id.parse().unwrap_or(u64::MAX), key.entity.clone()))
}
