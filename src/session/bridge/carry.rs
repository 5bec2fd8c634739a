//! One connection, from a local stream to the rendezvous' socket.

use std::{io, net::Shutdown, time::Duration};

use async_std::{future::timeout, net::TcpStream, task::sleep};
use futures_lite::{FutureExt, future};

use super::{
    began::{self, Greeting},
    dialler::Dialler,
    error::BridgeError,
    live::Live,
};
use crate::pipe::{
    cipher::{SessionKeys, Side},
    join::{Carried, End, HalfClose, JoinFailure, join, reset, splice_metered},
};

/// What has been read when a session is told to end has this long to be delivered.
pub(super) const FLUSH: Duration = Duration::from_secs(5);

/// An ssh server greets at once. The rendezvous has given up a lonely end by then ([`COUNTERPART_TIME`](crate::np::pairs)).
pub(super) const FIRST_BYTE: Duration = Duration::from_secs(60);

/// All that can be known of a target where the device tells nothing.
const NO_BYTE: &str = "it was closed before a byte came: is the service there?";

/// Ends where a greeting is due and nothing at all has come: the rendezvous takes everything and carries nothing.
pub(super) async fn stays_silent<T>(
    live: &Live,
    greeting: Greeting,
    patience: Duration,
) -> Result<T, JoinFailure> {
    if greeting == Greeting::Ssh {
        sleep(patience).await;
        if live.meter.carried().down == 0 {
            let silent = BridgeError::Silent(patience).to_string();
            return Err(io::Error::new(io::ErrorKind::TimedOut, silent).into());
        }
    }
    future::pending().await
}

/// Joins both ends; one that fails resets the local one.
pub(super) async fn carry(
    dialler: &Dialler,
    local: TcpStream,
    remote: TcpStream,
    keys: Option<&SessionKeys>,
    greeting: Greeting,
) -> Result<Carried, BridgeError> {
    let (live, side) = (&*dialler.live, dialler.far.side);
    let (near, far) = (local.clone(), remote.clone());
    let _standing = live.stands();
    let (mut unbegun, joined) = match keys {
        None => {
            let work = splice_metered(local, remote, &live.meter);
            let joined = work.or(let_go(live, [&near, &far]));
            (
                None,
                joined.or(stays_silent(live, greeting, FIRST_BYTE)).await,
            )
        }
        Some(keys) => {
            let ends = HalfClose(local.clone());
            let (input, output, watch) = began::watch(local, ends, greeting);
            let work = join(input, output, remote, keys.ciphers(side), &live.meter);
            let joined = work.or(let_go(live, [&near, &far]));
            let joined = joined.or(stays_silent(live, greeting, FIRST_BYTE)).await;
            let by_far_end = match &joined {
                Ok(_) => watch.unbegun().is_some(),
                Err(failure) => failure.at == Some(End::Far) && watch.is_silent(),
            };
            if by_far_end && live.guesses() {
                live.target_failed(NO_BYTE);
            }
            (watch.unbegun(), joined)
        }
    };
    if let Err(failure) = &joined {
        unbegun = None;
        reset(&near);
        if !live.was_told_to_leave() {
            live.peer_failed(failure);
        }
        let by_service = side == Side::Device && failure.at == Some(End::Near);
        if by_service && !live.was_told_to_leave() {
            live.target_failed(&failure.error.to_string());
        }
    }
    match unbegun.filter(|_| greeting == Greeting::Ssh) {
        Some(unbegun) => Err(unbegun),
        None => joined.map_err(|failure| BridgeError::Broken(failure.error)),
    }
}

/// Once the session is told to end: nothing more is read at these ends, so that what has been read goes on and ends in
/// good form; who does not take it in time, or where it is to be at once, is reset.
pub(super) async fn let_go<T, const N: usize>(
    live: &Live,
    ends: [&TcpStream; N],
) -> Result<T, JoinFailure> {
    live.lets_go().await;
    for end in ends {
        let _ = end.shutdown(Shutdown::Read);
    }
    let _ = timeout(FLUSH, live.at_once()).await;
    ends.into_iter().for_each(reset);
    Err(io::Error::other("it was told to end").into())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crate::{session::bridge::carry::*, testing::soon};

    #[test]
    fn an_ssh_session_without_a_first_byte_is_told_and_another_one_waits() {
        soon(async {
            let short = Duration::from_millis(20);
            let live = Live::default();
            let end = stays_silent::<()>(&live, Greeting::Ssh, short).await;
            let said = end.unwrap_err().error.to_string();
            assert!(
                said.starts_with("nothing has come through the rendezvous"),
                "{said}"
            );
            let other = stays_silent::<()>(&live, Greeting::Any, short);
            assert!(timeout(5 * short, other).await.is_err());
        });
    }
}
