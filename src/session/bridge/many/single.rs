//! stdin and stdout as the only connection of a session that could carry many: whatever the device opens, not only its sshd.

use super::*;
use crate::{
    pipe::join::join,
    session::bridge::{Live, began},
    sys::stdio,
};

/// How long the device may take to deliver what we have said last, where its service has said all before: it cuts what
/// stands when the control socket ends.
const LAST_WORD: Duration = Duration::from_secs(2);

/// Carries it until both directions have ended.
///
/// # Errors
/// See [`BridgeError`]; `Unbegun` also where the device could not reach the target.
pub async fn run_on_stdio(
    far: FarEnd,
    many: Many,
    live: Arc<Live>,
) -> Result<Carried, BridgeError> {
    let (input, output) = stdio::stdio().map_err(BridgeError::Accept)?;
    let dialler = Dialler::new(far).watched_by(live);
    let mut control = Announcer::on(&dialler, many).await?;
    let next = control.announce(&dialler).await?.ok_or(BridgeError::Gone)?;
    let remote = match next.remote {
        Some(remote) => remote,
        None => dialler.connect_patiently(next.number).await?,
    };
    let _watched = watch(&remote, Tell::Nobody); // the control socket tells
    let keys = next.keys.as_ref();
    let ciphers = keys.map_or_else(Ciphers::default, |keys| keys.ciphers(dialler.far.side));
    let (input, output, beginning) = began::watch(input, output, Greeting::Any);
    let joined = async {
        let joined = join(
            input,
            output,
            remote,
            ciphers,
            dialler.half_closed,
            &dialler.live.meter,
        )
        .await;
        if beginning.ended_last() {
            task::sleep(LAST_WORD).await;
        }
        joined.map_err(|failure| BridgeError::Broken(failure.error))
    };
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
