//! stdin and stdout as the only connection of a session that could carry many: whatever the device opens, not only its sshd.

use super::*;
use crate::{pipe::join::join, session::bridge::began, sys::stdio};

/// How long the device may take to deliver what we have said last, where its service has said all before: it cuts what
/// stands when the control socket ends.
const LAST_WORD: Duration = Duration::from_secs(2);

/// Carries it until both directions have ended.
///
/// # Errors
/// See [`BridgeError`]; `Unbegun` also where the device could not reach the target.
pub(in crate::session::bridge) async fn on_stdio(
    dialler: Dialler,
    keys: Option<&SessionKeys>,
    many: Many,
) -> Result<Carried, BridgeError> {
    let (input, output) = stdio::stdio().map_err(BridgeError::Accept)?;
    let mut control = Announcer::on(&dialler, keys, many).await?;
    let next = control.announce(&dialler).await?.ok_or(BridgeError::Gone)?;
    let remote = match next.remote {
        Some(remote) => remote,
        None => dialler.connect_patiently(next.number).await?,
    };
    let _watched = watch(&remote, Tell::Nobody); // the control socket tells
    let changes = next.keys.map(|keys| keys.changes(dialler.far.side));
    let (input, output, beginning) = began::watch(input, output, Greeting::Any);
    let joined = async {
        let joined = join(
            input,
            output,
            remote,
            changes.unwrap_or_default(),
            &dialler.live.meter,
        )
        .await;
        if beginning.ended_last() {
            task::sleep(LAST_WORD).await;
        }
        joined.map_err(|failure| BridgeError::Broken(failure.error))
    };
    let abandoned = async { Err(BridgeError::Broken(stdio::abandoned().await)) };
    let joined = joined.or(abandoned);
    let carried = joined.or(async { Err(control.lost().await) }).await?;
    beginning.unbegun().map_or(Ok(carried), Err)
}

impl Announcer {
    /// Keeps the session while its connection stands; why it is over.
    async fn lost(&mut self) -> BridgeError {
        loop {
            let ended = async { ControlEvent::Ended(self.ended().await) };
            let silent = async { self.is_silent().await };
            match ended.or(self.beat_is_due(true)).or(silent).await {
                ControlEvent::Beat => {
                    if let Err(error) = self.beat().await {
                        return BridgeError::Broken(error);
                    }
                }
                ControlEvent::Silence => {
                    if let Some(silent) = self.tell_silence() {
                        return silent;
                    }
                }
                ControlEvent::Ended(end) => return gone(end),
                _ => {}
            }
        }
    }
}
