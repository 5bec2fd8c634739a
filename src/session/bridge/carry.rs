//! One connection, from a local stream to the rendezvous' socket.

use std::{io, net::Shutdown, time::Duration};

use async_std::{future::timeout, net::TcpStream};
use futures_lite::FutureExt;

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
            (None, work.or(let_go(live, [&near, &far])).await)
        }
        Some(keys) => {
            let ends = HalfClose(local.clone());
            let (input, output, watch) = began::watch(local, ends, greeting);
            let work = join(input, output, remote, keys.ciphers(side), &live.meter);
            let joined = work.or(let_go(live, [&near, &far])).await;
            (watch.unbegun(), joined)
        }
    };
    if let Err(failure) = &joined {
        unbegun = None;
        reset(&near);
        let by_service = side == Side::Device && failure.at == Some(End::Near);
        if by_service && !live.was_told_to_leave() {
            live.target_failed(&failure.error);
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
