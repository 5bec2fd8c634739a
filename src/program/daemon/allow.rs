//! `--only-managers`: nobody else reaches this device's atServer.
//!
//! The list is the atServer's own (`noports access show`), and counts for everything that this atSign does. Who is on it
//! stays: somebody may have been allowed by hand.

use std::time::Duration;

use async_std::task;
use log::{error, info};
use miniserde::json;

use super::state::Daemon;
use crate::at::{
    AtSign, Verb,
    client::AtError,
    verb::{AccessList, Config},
};

/// Between two attempts.
const AGAIN: Duration = Duration::from_secs(60);

impl Daemon {
    /// Sees to it that the allow list holds those that this daemon has to do with; tries until it does.
    pub(super) async fn allow_only_ours(&self) {
        let Some(rendezvous) = &self.options.only_managers else {
            return;
        };
        let policy = self.options.consult.iter().map(|consult| &consult.policy);
        let managers = self.options.managers.iter();
        let ours: Vec<&AtSign> = managers.chain(policy).chain(rendezvous).collect();
        loop {
            match self.allow(&ours).await {
                Ok(added) => return info!("allow_list=set added={added}"),
                Err(why) => error!("allow_list=not_set reason={:?}", why.to_string()),
            }
            task::sleep(AGAIN).await;
        }
    }

    /// How many were not on the list yet.
    async fn allow(&self, ours: &[&AtSign]) -> Result<usize, AtError> {
        let list = Verb::Config(Config::Show(AccessList::Allow));
        let before = listed(&self.at.run(&list).await?)?;
        let missing = missing(ours, &before);
        let count = missing.len();
        if count > 0 {
            let add = Verb::Config(Config::Add(AccessList::Allow, missing));
            self.at.run(&add).await?;
        }
        Ok(count)
    }
}

fn listed(answer: &str) -> Result<Vec<AtSign>, AtError> {
    let names: Vec<String> = match answer.trim() {
        "" | "null" => Vec::new(),
        text => json::from_str(text)
            .map_err(|_| AtError::Protocol("a list of atSigns that cannot be read".to_owned()))?,
    };
    Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
}

fn missing(ours: &[&AtSign], before: &[AtSign]) -> Vec<AtSign> {
    let mut missing: Vec<AtSign> = Vec::new();
    for who in ours {
        if !before.contains(who) && !missing.contains(who) {
            missing.push((*who).clone());
        }
    }
    missing
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_those_are_added_that_are_missing_and_each_once() {
        let at = |name: &str| name.parse::<AtSign>().unwrap();
        let (alice, bob, rv) = (at("@alice"), at("@bob"), at("@rv"));
        let ours = [&alice, &bob, &rv, &bob];
        assert_eq!(
            missing(&ours, &[]),
            [alice.clone(), bob.clone(), rv.clone()]
        );
        let before = listed(r#"["@bob","eve"]"#).unwrap();
        assert_eq!(missing(&ours, &before), [alice, rv]);
        for nothing in ["null", "", "[]"] {
            assert_eq!(listed(nothing).unwrap(), []);
        }
        assert!(listed("{").is_err());
    }
}
