//! `stats`: seventeen numbers and lists, by their numbers on the wire.
//!
//! | id | what | form of the value |
//! | --- | --- | --- |
//! | 1, 2 | connections to this atSign's server, and its own to others | number in a text |
//! | 3 | newest commit id that this connection may see | number in a text, or `null` |
//! | 4, 9 | bytes kept for this atSign | number; `{"size","units"}` in a text |
//! | 5, 6 | who came, and which keys were looked up, most often first | `{"@bob":2}` in a text |
//! | 7 | version | text |
//! | 8, 10 | when somebody last came, and last logged in with a key | date, or `Not Available` |
//! | 11 | notifications by kind | object in a text |
//! | 12–14 | what compaction did: there is none, so `{}` | object in a text |
//! | 15 | newest commit of each key | `{"key":[id,"*"]}` in a text |
//! | 16, 17 | connections by kind: `self`, `other` (atSigns), `anon` | object |
//!
//! Source: at_server:packages/at_secondary_server/lib/src/verb/{handler/stats_verb_handler,metrics/metrics_impl}.dart
//! and at_server:packages/at_secondary_server/lib/src/connection/inbound/inbound_connection_pool.dart.

use crate::{
    at::fault::Code,
    server::{
        refusal::{Refusal, refuse},
        store::{Tx, notes::Tally},
    },
    text::{
        calendar::date,
        json::{Object, quote},
    },
};

use super::{
    admin::SERVER_VERSION,
    outcome::{CommandAnswer, Handled},
    pattern,
    state::Session,
    visits::{ConnectionKind, Presence},
};

/// Most bytes of statistic 15.
const MAX_COMMITS: usize = 4 << 20;

impl Session {
    pub(super) fn stats(&self, tx: &Tx<'_>, ids: &[String], regex: Option<&str>) -> Handled {
        self.owner()?;
        let all: Vec<String> = (1..=17).map(|id| id.to_string()).collect();
        let mut wanted: Vec<&String> = Vec::new();
        for id in if ids.is_empty() { &all[..] } else { ids } {
            // Each once, as in a set.
            if !wanted.contains(&id) {
                wanted.push(id);
            }
        }
        let mut shown = Vec::new();
        for id in wanted {
            let (name, value) = self.stat(tx, id, regex)?;
            let one = Object::new()
                .text("id", id)
                .text("name", name)
                .raw("value", value);
            shown.push(one.end());
        }
        Ok(CommandAnswer::Spaced(format!("[{}]", shown.join(", "))))
    }

    /// Name and value, the value as JSON.
    fn stat(
        &self,
        tx: &Tx<'_>,
        id: &str,
        regex: Option<&str>,
    ) -> Result<(&'static str, String), Refusal> {
        let facts = &self.facts;
        let text = |text: String| quote(&text);
        Ok(match id {
            "1" => (
                "activeInboundConnections",
                text(facts.connections().to_string()),
            ),
            "2" => (
                "activeOutboundConnections",
                text(facts.outbound.of(&self.home.who).to_string()),
            ),
            "3" => ("lastCommitID", text(self.last_commit(tx, regex)?)),
            "4" => ("secondaryStorageSize", self.home.weight(tx)?.to_string()),
            "5" => ("topAtSigns", text(facts.seen.visits().top_at_signs())),
            "6" => ("topKeys", text(self.top_keys())),
            "7" => ("secondaryServerVersion", text(SERVER_VERSION.into())),
            "8" => ("LastLoggedInDatetime", text(day(facts.seen.visits().last))),
            "9" => ("diskSize", text(size_json(self.home.weight(tx)?))),
            "10" => ("LastPkam", text(day(facts.seen.visits().last_pkam))),
            "11" => (
                "NotificationCount",
                text(count_json(&self.home.tally(tx)?, self.now)),
            ),
            "12" => ("CommitLogCompactionStats", text("{}".into())),
            "13" => ("AccessLogCompactionStats", text("{}".into())),
            "14" => ("NotificationCompactionStats", text("{}".into())),
            "15" => (
                "LatestCommitEntryOfEachKey",
                text(self.latest_commits(tx, regex)?),
            ),
            "16" => ("activeInboundConnectionsSummary", self.inbound(false)),
            "17" => ("activeInboundConnectionsDetailed", self.inbound(true)),
            _ => {
                let text = format!("Invalid syntax. No metric with ID {id}");
                return Err(refuse(Code::InvalidSyntax, text));
            }
        })
    }

    /// The newest commit whose key this connection may see and the expression matches.
    fn last_commit(&self, tx: &Tx<'_>, regex: Option<&str>) -> Result<String, Refusal> {
        let filter = pattern::compile(regex)?;
        let mut last = match (&filter, self.grant()) {
            (None, None) => self.home.last_commit(tx)?,
            _ => None,
        };
        if filter.is_some() || self.grant().is_some() {
            self.home.commits(tx, -1, &mut |commit| {
                let seen = self.grant().is_none_or(|grant| grant.shows(&commit.key));
                if seen && pattern::found(filter.as_ref(), &commit.key) {
                    last = Some(commit.id);
                }
                Ok(true)
            })?;
        }
        Ok(last.map_or_else(|| "null".to_owned(), |id| id.to_string()))
    }

    fn latest_commits(&self, tx: &Tx<'_>, regex: Option<&str>) -> Result<String, Refusal> {
        let filter = pattern::compile(regex)?;
        let (mut all, mut bytes) = (Some(Object::new()), 0);
        self.home.commits(tx, -1, &mut |commit| {
            let seen = self.grant().is_none_or(|grant| grant.shows(&commit.key));
            if seen && pattern::found(filter.as_ref(), &commit.key) {
                bytes += commit.key.len() + 16;
                let entry = format!("[{},\"{}\"]", commit.id, commit.change.sign());
                all = all.take().map(|all| all.raw(&commit.key, entry));
            }
            Ok(bytes < MAX_COMMITS)
        })?;
        Ok(all.map_or_else(String::new, Object::end))
    }

    /// An enrolment learns of its own namespaces only.
    fn top_keys(&self) -> String {
        let shows = |key: &str| self.grant().is_none_or(|grant| grant.shows(key));
        self.facts.seen.visits().top_keys(shows)
    }

    fn inbound(&self, detailed: bool) -> String {
        let present = self.facts.seen.present();
        let mut all = Object::new().raw("total", present.len());
        for (name, kind) in [
            ("self", ConnectionKind::Own),
            ("other", ConnectionKind::Peer),
            ("anon", ConnectionKind::Anon),
        ] {
            let found = present.values().filter(|one| one.kind == kind);
            let list: Vec<String> = found.map(Presence::to_json).collect();
            let value = if detailed {
                Object::new()
                    .raw("count", list.len())
                    .raw("list", format!("[{}]", list.join(",")))
                    .end()
            } else {
                list.len().to_string()
            };
            all = all.raw(name, value);
        }
        all.end()
    }
}

fn day(at: Option<u64>) -> String {
    at.map_or_else(|| "Not Available".to_owned(), date)
}

/// `{"size":"1.50","units":"KB"}`
fn size_json(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KB", "MB", "GB", "TB"];
    let mut unit = 0;
    let (mut whole, mut hundredths) = (bytes, 0);
    while whole >= 1024 && unit + 1 < UNITS.len() {
        hundredths = whole % 1024 * 100 / 1024;
        whole /= 1024;
        unit += 1;
    }
    Object::new()
        .text("size", &format!("{whole}.{hundredths:02}"))
        .text("units", UNITS[unit])
        .end()
}

/// Statistic 11; its value is JSON in a text.
fn count_json(tally: &Tally, now: u64) -> String {
    let group = |names: &[(&str, u64)]| {
        let named = |group: Object, (name, n): &(&str, u64)| group.raw(name, n);
        names.iter().fold(Object::new(), named).end()
    };
    Object::new()
        .raw("total", tally.total)
        .raw(
            "type",
            group(&[("sent", tally.sent), ("received", tally.received)]),
        )
        .raw(
            "status",
            group(&[
                ("delivered", tally.delivered),
                ("failed", tally.errored),
                ("queued", tally.queued),
            ]),
        )
        .raw(
            "operations",
            group(&[("update", tally.updates), ("delete", tally.deletes)]),
        )
        .raw(
            "messageType",
            group(&[("key", tally.keys), ("text", tally.texts)]),
        )
        .raw("createdOn", now)
        .end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_told_in_the_largest_unit_that_fits() {
        for (bytes, want) in [
            (0, r#"{"size":"0.00","units":"B"}"#),
            (1023, r#"{"size":"1023.00","units":"B"}"#),
            (1536, r#"{"size":"1.50","units":"KB"}"#),
            (5 << 20, r#"{"size":"5.00","units":"MB"}"#),
            (u64::MAX, r#"{"size":"16777215.99","units":"TB"}"#),
        ] {
            assert_eq!(size_json(bytes), want, "{bytes}");
        }
    }
}
