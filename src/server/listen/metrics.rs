//! Is the server well, and what has it done? As Prometheus text.

use std::fmt::Write;

use crate::{
    budget::Usage,
    server::{clock::now, health, peer::PROOFS, session::OUTGOING, store::StoreError},
};

use super::{RunningServer, courier, gate, hub::Hub, load, writes::WRITES};

impl RunningServer {
    /// Whether the store can be read: a server that is alive but cannot do that is of no use.
    ///
    /// # Errors
    /// Why it cannot.
    pub async fn health(&self) -> Result<(), StoreError> {
        if !self.hub.store.has_room() {
            return Err(StoreError::Full);
        }
        self.hub.store.read(|_| Ok(())).await
    }

    /// All numbers, one a line, with their types: Prometheus' text format 0.0.4. No names, no addresses.
    pub fn metrics(&self) -> String {
        let hub = &self.hub;
        let houses = hub.board.everybody();
        let (open, strangers) = hub.gate.occupancy();
        let places = hub.gate.usage();
        let monitors = houses.iter().map(|house| house.monitors()).sum::<usize>();
        let store = hub.store.totals();
        let since = now().saturating_sub(hub.started) / 1000;
        let gauges = [
            ("uptime_seconds", since),
            ("atsigns", houses.len() as u64),
            ("connections", open),
            ("connections_not_logged_in", strangers),
            ("monitors", monitors as u64),
            ("store_bytes", hub.store.size()),
        ];
        let meter = &hub.meter;
        let counters = [
            ("connections_total", meter.accepted.get()),
            ("connections_refused_total", places.refused),
            ("connections_evicted_total", places.evicted),
            ("handshakes_failed_total", meter.handshakes_failed.get()),
            ("commands_total", meter.commands.get()),
            ("logins_total", meter.logins.get()),
            ("logins_failed_total", meter.logins_failed.get()),
            ("notifications_shown_total", meter.pushed.get()),
            ("store_commits_total", store.commits),
            ("store_transactions_total", store.transactions),
            ("store_failures_total", store.failures),
        ];
        let mut text = String::new();
        let kinds = gauges.iter().map(|g| ("gauge", g));
        for (kind, (name, value)) in kinds.chain(counters.iter().map(|c| ("counter", c))) {
            let _ = write!(
                text,
                "# TYPE noports_atserver_{name} {kind}\nnoports_atserver_{name} {value}\n"
            );
        }
        self.add_budgets(&mut text);
        text
    }

    /// What others use up, by budget.
    fn add_budgets(&self, text: &mut String) {
        let budgets = self.hub.budgets();
        for (part, kind) in [
            ("used", "gauge"),
            ("refused_total", "counter"),
            ("evicted_total", "counter"),
        ] {
            let _ = writeln!(text, "# TYPE noports_atserver_budget_{part} {kind}");
            for (name, usage) in &budgets {
                let value = match part {
                    "used" => usage.used,
                    "refused_total" => usage.refused,
                    _ => usage.evicted,
                };
                let _ = writeln!(
                    text,
                    "noports_atserver_budget_{part}{{budget=\"{name}\"}} {value}"
                );
            }
        }
    }
}

impl Hub {
    fn budgets(&self) -> Vec<(&'static str, Usage)> {
        let mut all = vec![
            (gate::CONNECTIONS.name, self.gate.usage()),
            (gate::ENQUIRIES.name, self.directory_gate.usage()),
            (gate::CHECKS.name, self.failures.checks()),
            (gate::LOOKS.name, self.looks.usage()),
            (WRITES.name, self.writes.usage()),
            (load::BYTES.name, self.bytes.usage()),
            (courier::DELIVERIES.name, self.deliveries.usage()),
            (health::ASKERS.name, self.askers.usage()),
            (OUTGOING.name, self.outbound.usage()),
        ];
        if let Some(peers) = &self.peers {
            all.push((PROOFS.name, peers.proofs_usage()));
        }
        all
    }
}
