//! Sessions that live: their places, what their bridges say, their end; and those that were there before the daemon.
//!
//! ```text
//!   a daemon starts ─▶ each DIR/bridges/PID.sock: nobody answers ─▶ removed
//!                                                 ours ──────────▶ a place, as before; its end and its reasons are told
//!                                                 no answer ─────▶ a place of nobody's, and asked again until it answers or ends
//! ```

use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::{Duration, Instant},
};

use async_std::{future::timeout, task};
use futures_lite::future;
use log::{debug, info, warn};

use super::{
    budgets::{self, FIRST_WORD},
    state::Daemon,
};
use crate::{
    at::AtSign,
    budget::{Claim, Hold, MustLeave},
    net::control_socket::ControlError,
    np::ids::SessionId,
    session::{
        control::{self, About, SessionState},
        ignored,
        launch::{BridgeExit, RunningBridge, Said},
    },
    sys::paths,
};

/// So long a daemon that starts waits for the answers of the bridges that it finds; later ones count when they come.
const FOUND_WITHIN: Duration = Duration::from_secs(5);
/// Lines of the logs of one client's bridges that reach ours within a minute.
const BRIDGE_LINES: u64 = 100;
/// One that does not answer is asked again after this, then after twice as long, and so on; in the end as seldom as this.
const ASK_AGAIN: Duration = Duration::from_secs(1);
const ASK_SELDOM: Duration = Duration::from_secs(60);

/// A place among the live sessions, to be left when told so.
pub(super) struct SessionPlace {
    client: AtSign,
    /// Whether the log tells its beginning and its end.
    pub(super) has_lines: bool,
    hold: Hold<AtSign>,
    must_leave: MustLeave,
    claim: Claim<AtSign>,
    is_tunnel: bool,
    has_spoken: bool,
}

impl SessionPlace {
    /// Until the bridge ends, or has to; what it says goes to the log.
    pub(super) async fn kept_by(self, bridge: RunningBridge, session: String) {
        let (hold, has_spoken) = (&self.hold, &AtomicBool::new(self.has_spoken));
        let leave = async {
            if !self.is_tunnel {
                return future::pending().await;
            }
            task::sleep(FIRST_WORD).await;
            if !has_spoken.load(Relaxed) {
                hold.change(self.claim.clone(), Instant::now());
            }
            self.must_leave.told().await;
            if self.has_lines {
                info!(
                    "session={session} reason=\"it has not said a word, and others want its place\""
                );
            }
        };
        let lines = format!("bridges from={}", self.client);
        let has_line = || ignored::has_line(&lines, BRIDGE_LINES);
        let heard = |said: Said<'_>| match said {
            Said::Spoken => {
                has_spoken.store(true, Relaxed);
                hold.change(self.claim.clone().firm(), Instant::now());
            }
            Said::Target(failure) if has_line() => warn!(
                "session={session} service={} times={} reason={:?}",
                failure.service, failure.times, failure.why
            ),
            Said::Log(line) if has_line() => info!("session={session} bridge={line:?}"),
            Said::Target(_) | Said::Log(_) => {}
        };
        let exit = bridge.ended(heard, leave).await;
        if self.has_lines {
            tell_end(&session, exit);
        }
    }
}

/// How long it was, what it carried, and why it ended, as far as its bridge has said so.
fn tell_end(session: &str, exit: BridgeExit) {
    let BridgeExit { how, why, totals } = exit;
    let carried = totals.map_or_else(String::new, |totals| {
        let (seconds, up, down) = (totals.seconds, totals.up, totals.down);
        format!(" seconds={seconds} up={up} down={down}")
    });
    match why {
        // A client that is told to end by a signal says nothing either, as ssh's ProxyCommand at each ssh's end.
        Some(report) if report.tells_a_cut() => info!(
            "session={session} ended={how}{carried} reason={:?}",
            report.why
        ),
        Some(report) => warn!(
            "session={session} ended={how}{carried} reason={:?}",
            report.why
        ),
        None => info!("session={session} ended={how}{carried}"),
    }
}

impl Daemon {
    /// A place among the live sessions. A tunnel that has not said a word for a while gives way to others; ssh never: its
    /// server ends it when nobody logs in.
    pub(super) fn place(&self, from: &AtSign, is_tunnel: bool) -> Result<SessionPlace, String> {
        let total = self.options.max_sessions;
        let most = budgets::sessions_of_one(total);
        let claim = Claim::of(from.clone(), most);
        let firm = claim.clone().firm();
        let taken = self.sessions.take_evicting(firm, Instant::now());
        let (hold, must_leave) = taken.ok_or_else(|| {
            let has = self.sessions.used_by(from);
            format!(
                "too many sessions: {has} are yours, {most} at most, and {total} of all together"
            )
        })?;
        Ok(SessionPlace {
            client: from.clone(),
            has_lines: true,
            hold,
            must_leave,
            claim,
            is_tunnel,
            has_spoken: false,
        })
    }

    /// What the bridge of this session tells others of it.
    pub(super) fn about(&self, from: &AtSign, session: SessionId) -> About {
        About {
            session: Some(session.to_string()),
            device: Some(self.options.device.to_string()),
            atsign: Some(self.at.atsign().to_string()),
            client: Some(from.to_string()),
            folder: self
                .options
                .bridges
                .as_ref()
                .map(|folder| folder.display().to_string()),
        }
    }

    /// Gives the sessions that an earlier run has left their places again.
    pub(super) async fn find_sessions(&self) {
        let Some(folder) = &self.options.bridges else {
            return;
        };
        // What others put there would count as sessions of ours.
        if folder.exists() && !paths::is_private(folder) {
            return warn!("bridges={} reason=\"open to others\"", folder.display());
        }
        let sockets = match control::sockets(folder) {
            Ok(sockets) => sockets,
            Err(why) => return warn!("bridges={} reason=\"{why}\"", folder.display()),
        };
        let finding = sockets.into_iter().map(|socket| {
            let daemon = self.clone();
            task::spawn(async move { daemon.find_session(&socket).await })
        });
        let finding: Vec<_> = finding.collect();
        let all = async {
            for one in finding {
                one.await;
            }
        };
        if timeout(FOUND_WITHIN, all).await.is_err() {
            warn!("bridges={} reason=\"some do not answer\"", folder.display());
        }
        let found = self.sessions.usage().used;
        if found > 0 {
            info!("sessions_found={found}");
        }
    }

    /// Whoever does not answer may well be a session, stopped or out of breath: it counts, for nobody, until it says whose it
    /// is, or ends. A session of another program that is silent counts, too.
    async fn find_session(&self, socket: &Path) {
        let claim = Claim::of_nobody().firm();
        let (hold, _) = self.sessions.found(claim, Instant::now());
        if !self.is_silent(socket).await {
            return;
        }
        let name = socket.display().to_string();
        warn!("bridge={name} counted=yes client=unknown reason=\"it does not answer\"");
        let (daemon, socket) = (self.clone(), socket.to_owned());
        task::spawn(async move {
            let mut pause = ASK_AGAIN;
            task::sleep(pause).await;
            while daemon.is_silent(&socket).await {
                pause = (2 * pause).min(ASK_SELDOM);
                task::sleep(pause).await;
            }
            drop(hold);
            info!("bridge={name} counted=no_more client=unknown");
        });
    }

    /// Whether somebody is there who does not answer.
    async fn is_silent(&self, socket: &Path) -> bool {
        let met = self.meet(socket).await;
        if let Err(why) = &met {
            debug!("bridge={} reason=\"{why}\"", socket.display());
        }
        matches!(met, Err(ControlError::Silent(_)))
    }

    /// Gives it its place, if it is a session of ours and has not ended.
    async fn meet(&self, socket: &Path) -> Result<(), ControlError> {
        let ours = |state: &SessionState| {
            let own = [self.at.atsign().as_str(), self.options.device.as_str()];
            let its = [&state.atsign, &state.device].map(|one| one.as_deref().unwrap_or_default());
            state.side == "device" && its == own
        };
        let Some((state, bridge)) = RunningBridge::find(socket, ours).await? else {
            return Ok(());
        };
        let Some(Ok(from)) = state.client.as_deref().map(str::parse::<AtSign>) else {
            return Ok(());
        };
        let session = state.name();
        debug!("session={session} from={from} found=pid_{}", state.pid);
        let claim = Claim::of(
            from.clone(),
            budgets::sessions_of_one(self.options.max_sessions),
        );
        let (hold, must_leave) = self.sessions.found(claim.clone().firm(), Instant::now());
        let place = SessionPlace {
            client: from,
            // No more than there may be.
            has_lines: true,
            hold,
            must_leave,
            claim,
            is_tunnel: state.many,
            has_spoken: state.phase != "connecting",
        };
        task::spawn(place.kept_by(bridge, session));
        Ok(())
    }
}
