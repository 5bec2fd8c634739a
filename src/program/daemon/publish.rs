//! What the daemon says of itself: to whoever pings, to its managers as records, to its policy.

use std::time::Duration;

use async_std::task;
use log::error;

use super::state::Daemon;
use crate::{
    at::{AtKey, AtSign, Notification, Verb, client::AtError, metadata::Metadata},
    np::{
        Message, NAMESPACE,
        ping::{self, Heartbeat},
    },
    session::{ignored, online},
    sys,
};

/// How often the policy is told that the device is there.
const SHOW_EVERY: Duration = Duration::from_secs(300);
/// How often the device record is published again.
const RECORD_EVERY: Duration = Duration::from_secs(3600);
/// Life of the device record, in milliseconds (30 days).
const RECORD_TTL: u64 = 30 * 24 * 3600 * 1000;

impl Daemon {
    fn heartbeat(&self) -> Heartbeat {
        let mut ours = Heartbeat::ours(&self.options.device, self.options.permit.services());
        ours.features.public_keys = self.options.ssh.accept_keys.is_some();
        if let Some(consult) = &self.options.consult {
            ours.group = consult.group.to_string();
        }
        #[cfg(feature = "held")]
        let ours = self.options.habits.say(ours);
        ours
    }

    fn heartbeat_message(&self, to: &AtSign, heartbeat: &Heartbeat) -> Message {
        Message {
            text: self.text(heartbeat),
            ..ping::answer(to, &self.options.device, heartbeat)
        }
    }

    fn text(&self, heartbeat: &Heartbeat) -> String {
        #[cfg(feature = "held")]
        return self.options.habits.print(heartbeat);
        #[cfg(not(feature = "held"))]
        heartbeat.print()
    }

    /// Whoever is denied learns that the device is there, so that its client goes on to ask, and hears why
    /// not; but not what others may open.
    pub(super) async fn answer_ping(self, note: Notification, allowed: bool) {
        if !allowed {
            let nothing = Heartbeat {
                services: Vec::new(),
                ..self.heartbeat()
            };
            let answer = self.heartbeat_message(&note.from, &nothing);
            return online::send_or_log(&self.at, &answer).await;
        }
        match self.at.decrypt(&note).await {
            Ok(Some(text)) if text == ping::PING => {
                let heartbeat = Heartbeat {
                    run: Some(self.run.clone()),
                    ..self.heartbeat()
                };
                let answer = self.heartbeat_message(&note.from, &heartbeat);
                online::send_or_log(&self.at, &answer).await;
            }
            other => ignored::note(
                &note.from,
                format_args!("word=ping reason={:?}", online::unread(other)),
            ),
        }
    }

    /// A sign of life for the policy, now and every few minutes.
    pub(super) async fn show_for_ever(&self) {
        while self.options.consult.is_some() {
            self.doorman.show(&self.heartbeat()).await;
            task::sleep(SHOW_EVERY).await;
        }
    }

    /// User name and device record, now and every hour; what cannot be published is tried again.
    pub(super) async fn publish_for_ever(&self) {
        loop {
            let pause = match self.publish().await {
                Ok(()) => RECORD_EVERY,
                Err(why) => {
                    error!("publish=failed reason={:?}", why.to_string());
                    Duration::from_secs(30)
                }
            };
            task::sleep(pause).await;
        }
    }

    async fn publish(&self) -> Result<(), AtError> {
        let device = &self.options.device;
        let (name, info) = (
            format!("username.{device}.{NAMESPACE}"),
            format!("device_info.{device}.{NAMESPACE}"),
        );
        for manager in &self.options.managers {
            if self.options.hide {
                for entity in [&name, &info] {
                    let key = AtKey::shared(manager, entity, self.at.atsign());
                    self.at
                        .run(&Verb::Delete {
                            key,
                            priority: None,
                        })
                        .await?;
                }
                continue;
            }
            let metadata = Metadata {
                ttr: Some(-1),
                ccd: Some(true),
                ..Metadata::default()
            };
            if let Some(user) = sys::user::name() {
                self.at
                    .put_shared(manager, &name, &user, metadata.clone())
                    .await?;
            }
            let metadata = Metadata {
                ttl: Some(RECORD_TTL),
                ..metadata
            };
            self.at
                .put_shared(manager, &info, &self.text(&self.heartbeat()), metadata)
                .await?;
        }
        Ok(())
    }
}
