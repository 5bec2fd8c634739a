//! `noop`, `info`, `config`, `sync`: everything about the server rather than its data.

use std::time::Duration;

use crate::{
    at::{
        AtSign,
        fault::Code,
        verb::{AccessList, Config},
    },
    server::{
        enrolment::{self, Need},
        refusal::refuse,
        store::{
            Rows, StoreError, Tx, lists,
            log::{Change, Commit},
        },
    },
    text::json::{Object, array},
};

use super::{
    outcome::{CommandAnswer, CommandOutcome, Handled, success},
    pattern,
    state::Session,
};

/// What we say we are. Clients of 2024 expect a version of at least 3.0.43.
pub(super) const SERVER_VERSION: &str = "3.0.52";

/// Longest pause that `noop` makes, in milliseconds.
const MAX_NOOP: u64 = 5000;
/// Most entries and bytes of one `sync` answer.
const SYNC_ENTRIES: usize = 25;
const SYNC_BYTES: usize = 5 << 20;

/// What the original lets its own tests change. Here, as in any original that is not being tested, nobody can.
const SETTINGS: [&str; 11] = [
    "inboundMaxLimit",
    "commitLogCompactionFrequencyMins",
    "accessLogCompactionFrequencyMins",
    "notificationKeyStoreCompactionFrequencyMins",
    "autoNotify",
    "maxNotificationRetries",
    "checkCertificateReload",
    "shouldReloadCertificates",
    "doCacheRefreshNow",
    "maxRequestsPerTimeFrame",
    "timeFrameInMillis",
];

impl Session {
    pub(super) fn noop(&mut self, millis: u64) -> CommandOutcome {
        if millis > MAX_NOOP {
            let text = format!("noop can wait for {MAX_NOOP} ms at most");
            return self.outcome(Err(refuse(Code::IllegalArguments, text)));
        }
        CommandOutcome {
            delay: Duration::from_millis(millis),
            ..self.outcome(Ok(CommandAnswer::Data("ok".into())))
        }
    }

    /// `enrolled`: the connection's enrolment as JSON.
    pub(super) fn info(&self, brief: bool, enrolled: Option<String>) -> Handled {
        let up = self.now.saturating_sub(self.facts.started);
        let info = Object::new().text("version", SERVER_VERSION);
        let mut info = if brief {
            info.raw("uptimeAsMillis", up)
        } else {
            info.text("uptimeAsWords", &words(up / 1000))
        };
        if let Some(enrolled) = enrolled {
            info = info.raw("apkam_metadata", enrolled);
        }
        Ok(CommandAnswer::Data(info.end()))
    }

    pub(super) fn info_of_enrollment(&self, tx: &Tx<'_>) -> Handled {
        let enrolled = match self.enrollment() {
            Some(id) => enrolment::find(tx, &self.home, id, self.now)?,
            None => None,
        };
        self.info(false, enrolled.map(|found| found.stored_json()))
    }

    pub(super) fn config(&mut self, tx: &mut Tx<'_>, config: Config) -> Handled {
        let grant = self.owner()?;
        match config {
            Config::Show(list) => {
                let names = lists::show(tx, &self.home, list)?;
                Ok(CommandAnswer::Data(if names.is_empty() {
                    "null".into()
                } else {
                    array(names.iter().map(AtSign::as_str))
                }))
            }
            Config::Setting { name, .. } => {
                let name = name.split('=').next().unwrap_or_default();
                if !SETTINGS.contains(&name) {
                    let text = "Invalid syntax. config: no such setting";
                    return Err(refuse(Code::InvalidSyntax, text));
                }
                Ok(CommandAnswer::Data(
                    "testing mode disabled by default".into(),
                ))
            }
            Config::Add(..) | Config::Remove(..) if grant.is_some_and(|grant| !grant.manages()) => {
                let text = "lists can be changed by a managing connection only";
                Err(refuse(Code::Unauthorized, text))
            }
            Config::Add(list, names) => {
                if list == AccessList::Block {
                    lists::note_block(tx, &self.home, &names, self.now)?;
                }
                self.change_list(tx, list, true, |known| {
                    let new: Vec<AtSign> = names
                        .into_iter()
                        .filter(|name| !known.contains(name))
                        .collect();
                    known.extend(new);
                })
            }
            Config::Remove(list, names) => self.change_list(tx, list, false, |known| {
                known.retain(|name| !names.contains(name))
            }),
        }
    }

    fn change_list(
        &self,
        tx: &mut Tx<'_>,
        list: AccessList,
        adds: bool,
        change: impl FnOnce(&mut Vec<AtSign>),
    ) -> Handled {
        let mut names = lists::show(tx, &self.home, list)?;
        if names.is_empty() && !adds {
            return Ok(CommandAnswer::Data("null".into()));
        }
        change(&mut names);
        // The owner is never shut out.
        names.retain(|name| *name != self.home.who);
        if names.len() > lists::MAX_LIST {
            return Err(refuse(Code::IllegalArguments, "the list is full"));
        }
        lists::save(tx, &self.home, list, &names, self.now)?;
        success()
    }

    pub(super) fn sync(
        &self,
        tx: &Tx<'_>,
        from: i64,
        limit: Option<u32>,
        regex: Option<&str>,
    ) -> Handled {
        self.owner()?;
        let Some(limit) = limit else {
            return Err(refuse(
                Code::InvalidSyntax,
                "Invalid syntax. sync needs a limit",
            ));
        };
        let filter = pattern::compile(regex)?;
        let most = usize::try_from(limit)
            .unwrap_or(SYNC_ENTRIES)
            .min(SYNC_ENTRIES);
        let (mut entries, mut bytes) = (Vec::new(), 0);
        self.home.commits(tx, from, &mut |commit| {
            let seen = self.grant().is_none_or(|grant| {
                is_everybodys(&commit.key) || grant.covers(&commit.key, Need::Read)
            });
            let wanted = is_everybodys(&commit.key) || pattern::found(filter.as_ref(), &commit.key);
            if seen && wanted && entries.len() < most {
                let entry = self.entry(tx, &commit)?;
                bytes += entry.len();
                entries.push(entry);
            }
            Ok(entries.len() < most && bytes < SYNC_BYTES)
        })?;
        Ok(CommandAnswer::Data(format!("[{}]", entries.join(","))))
    }

    fn entry(&self, tx: &dyn Rows, commit: &Commit) -> Result<String, StoreError> {
        let found = match commit.change {
            Change::Delete => None,
            _ => self.home.live(tx, &commit.key, self.now)?,
        };
        let metadata = found.as_ref().map_or_else(
            || "null".to_owned(),
            |found| found.meta.to_text_json(self.home.who.as_str()),
        );
        Ok(Object::new()
            .text("atKey", &commit.key)
            .maybe("value", found.as_ref().map(|found| found.value.as_str()))
            .raw("metadata", metadata)
            .raw("commitId", commit.id)
            .text("operation", &commit.change.sign().to_string())
            .end())
    }
}

/// Keys that every device needs, whatever it asks for.
fn is_everybodys(key: &str) -> bool {
    key.contains("shared_key")
        || key.starts_with("public:publickey")
        || (key.starts_with("public:") && !key.contains('.'))
}

fn words(seconds: u64) -> String {
    let parts = [
        (seconds / 86_400, "days"),
        (seconds / 3600 % 24, "hours"),
        (seconds / 60 % 60, "minutes"),
        (seconds % 60, "seconds"),
    ];
    let shown: Vec<String> = parts
        .iter()
        .skip_while(|(n, name)| *n == 0 && *name != "seconds")
        .map(|(n, name)| format!("{n} {name}"))
        .collect();
    shown.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn up_time_reads_from_its_largest_part() {
        for (seconds, text) in [
            (0, "0 seconds"),
            (62, "1 minutes 2 seconds"),
            (3600, "1 hours 0 minutes 0 seconds"),
            (90_061, "1 days 1 hours 1 minutes 1 seconds"),
        ] {
            assert_eq!(words(seconds), text);
        }
    }
}
