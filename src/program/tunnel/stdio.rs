//! `--stdio HOST:PORT`: one connection, and no port here.

use std::sync::Arc;

use async_std::task;

use super::{Args, Tunnel, no_service, talk};
use crate::{
    cli::Failure,
    session::{
        ask::{broken, tell_if_slow},
        bridge::{self, Live},
    },
    text::endpoint::Endpoint,
};

impl Args {
    /// What is to be opened on stdin and stdout.
    pub(super) fn stdio_target(&self) -> Result<Option<Endpoint>, Failure> {
        let Some(text) = &self.stdio else {
            return Ok(None);
        };
        let others = [
            (!self.forward.is_empty(), "--forward"),
            (self.print, "--print"),
            (self.keep_alive, "--keep-alive"),
            (self.shared, "--shared"),
            (self.idle_timeout.is_some(), "--idle-timeout"),
            (self.json, "--json"),
        ];
        if let Some((_, other)) = others.into_iter().find(|(given, _)| *given) {
            return Err(Failure::misuse(format!(
                "--stdio and {other} exclude each other"
            )));
        }
        let target = Endpoint::parse(text, None)
            .map_err(|why| Failure::misuse(format!("--stdio: {why}")).hint("--stdio nas:22"));
        target.map(Some)
    }
}

impl Tunnel {
    /// One connection, on stdin and stdout.
    pub(super) async fn on_stdio(&self, target: &Endpoint, quiet: bool) -> Result<(), Failure> {
        let slow = (!quiet).then(|| task::spawn(tell_if_slow("tunnel", self.whom.clone())));
        let opened = self.open_session(target, &mut self.progress()).await?;
        if let Some(slow) = slow {
            slow.cancel().await;
        }
        let many = talk(&opened.daemon, opened.ready.far.keys.as_ref());
        let live = Arc::new(Live::of_tunnel(target.to_string(), |_| {}));
        let carried = bridge::run_on_stdio(opened.ready.far, many, live.clone()).await;
        // What the device tells of its target is the better story.
        match (live.only_failed(), carried) {
            (Some(why), _) => Err(no_service(target, &why)),
            (None, carried) => carried.map(drop).map_err(|why| broken(&why)),
        }
    }
}
