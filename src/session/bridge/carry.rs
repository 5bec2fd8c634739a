//! One connection, from a local stream to the rendezvous' socket.

use std::{future::Future, io, net::Shutdown, os::fd::AsFd, sync::Arc, time::Duration};

use async_std::{future::timeout, net::TcpStream, task::sleep};
use futures_lite::{FutureExt, future};
use socket2::SockRef;

use super::{
    began::{self, Greeting},
    dialler::Dialler,
    error::BridgeError,
    live::Live,
};
use crate::{
    net::stall::{Tell, watch, watch_any},
    pipe::{
        cipher::Side,
        join::{Carried, Changes, End, HalfClose, JoinFailure, join, raw, reset, splice_metered},
    },
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

/// The two ends of one connection here, and how it is carried.
pub(super) struct ConnectionEnds {
    pub(super) local: TcpStream,
    pub(super) remote: TcpStream,
    /// `None`: what passes is not encrypted.
    pub(super) changes: Option<Changes>,
    pub(super) greeting: Greeting,
    /// Whether somebody is told when the rendezvous is silent.
    pub(super) tell: Tell,
}

/// Joins both ends, until `stop` cuts them; one that fails resets the local one.
pub(super) async fn carry(
    dialler: &Dialler,
    mut ends: ConnectionEnds,
    stop: impl Future<Output = ()>,
) -> Result<Carried, BridgeError> {
    let (live, side, greeting) = (&*dialler.live, dialler.far.side, ends.greeting);
    let _standing = live.stands();
    let (unbegun, joined) = match ends.changes.take() {
        None => (None, carry_plain(dialler, ends, stop).await),
        Some(changes) => {
            let (near, far) = (ends.local.clone(), ends.remote.clone());
            let _watched = watch(&far, ends.tell);
            let output = HalfClose(near.clone());
            let (input, output, began) = began::watch(ends.local, output, greeting);
            let work = join(
                input,
                output,
                ends.remote,
                changes,
                dialler.half_closed,
                &live.meter,
            );
            let joined = until_told(live, work, greeting, stop, [&near, &far]).await;
            let by_far_end = match &joined {
                Ok(_) => began.unbegun().is_some(),
                Err(failure) => failure.at == Some(End::Far) && began.is_silent(),
            };
            if by_far_end && live.guesses() {
                live.target_failed(NO_BYTE);
            }
            (began.unbegun().filter(|_| joined.is_ok()), joined)
        }
    };
    if let Err(failure) = &joined {
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

/// As they are. Each end has one descriptor: what is watched is what is joined.
async fn carry_plain(
    dialler: &Dialler,
    ends: ConnectionEnds,
    stop: impl Future<Output = ()>,
) -> Result<Carried, JoinFailure> {
    let live = &*dialler.live;
    let (near, far) = (raw(ends.local)?, Arc::new(raw(ends.remote)?));
    let _watched = watch_any(far.clone(), ends.tell);
    let work = splice_metered(&near, &far, dialler.half_closed, &live.meter);
    until_told(live, work, ends.greeting, stop, [&near, &far]).await
}

/// Until it has ended, or is told to, or is cut, or never begins.
async fn until_told<S: AsFd>(
    live: &Live,
    work: impl Future<Output = Result<Carried, JoinFailure>>,
    greeting: Greeting,
    stop: impl Future<Output = ()>,
    ends: [&S; 2],
) -> Result<Carried, JoinFailure> {
    let cut = async {
        stop.await;
        ends.into_iter().for_each(reset);
        Err(io::Error::other("the session has ended").into())
    };
    let silent = stays_silent(live, greeting, FIRST_BYTE);
    let joined = work.or(let_go(live, ends)).or(cut).or(silent).await;
    joined.inspect_err(|_| reset(ends[0]))
}

/// Once the session is told to end: nothing more is read at these ends, so that what has been read goes on and ends in
/// good form; who does not take it in time, or where it is to be at once, is reset.
pub(super) async fn let_go<T, S: AsFd, const N: usize>(
    live: &Live,
    ends: [&S; N],
) -> Result<T, JoinFailure> {
    live.lets_go().await;
    for end in ends {
        let _ = SockRef::from(end).shutdown(Shutdown::Read);
    }
    let _ = timeout(FLUSH, live.at_once()).await;
    ends.into_iter().for_each(reset);
    Err(io::Error::other("it was told to end").into())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crate::pipe::keys::TransportKeys;
    use std::{fs, os::fd::AsFd};

    use futures_lite::{
        AsyncReadExt,
        future::{poll_once, zip},
    };

    use crate::{
        np::far_end::FarEnd,
        session::bridge::carry::*,
        testing::{every_kind_of_keys, listen, soon},
    };

    /// The two ends of a connection.
    async fn pair() -> [TcpStream; 2] {
        let (listener, at) = listen().await;
        let (near, far) = zip(TcpStream::connect(at.to_string()), listener.accept()).await;
        [near.unwrap(), far.unwrap().0]
    }

    /// How many descriptors of this process are the socket with this number.
    fn descriptors_of(socket: u64) -> usize {
        let name = format!("socket:[{socket}]");
        let all = fs::read_dir("/proc/self/fd").unwrap().flatten();
        all.filter_map(|fd| fs::read_link(fd.path()).ok())
            .filter(|link| link.as_os_str() == name.as_str())
            .count()
    }

    fn dialler(keys: Option<TransportKeys>) -> Dialler {
        Dialler::new(FarEnd {
            rendezvous: "localhost:1".parse().unwrap(),
            admission: None,
            socket_key: None,
            keys,
            side: Side::Device,
        })
    }

    fn ends(local: TcpStream, remote: TcpStream, keys: &Option<TransportKeys>) -> ConnectionEnds {
        ConnectionEnds {
            local,
            remote,
            changes: keys.as_ref().map(|keys| keys.changes(Side::Device)),
            greeting: Greeting::Any,
            tell: Tell::Nobody,
        }
    }

    /// There were two of the rendezvous' end: one was watched, and another one joined.
    #[test]
    fn an_end_has_one_descriptor_with_and_without_encryption_and_one_that_is_cut_is_reset() {
        soon(async {
            for keys in every_kind_of_keys() {
                let ([local, person], [remote, rendezvous]) = (pair().await, pair().await);
                let number = |tcp: &TcpStream| rustix::fs::fstat(tcp.as_fd()).unwrap().st_ino;
                let numbers = [number(&local), number(&remote)];
                let (dialler, ends) = (dialler(keys.clone()), ends(local, remote, &keys));
                let (stop, stopped) = async_std::channel::bounded::<()>(1);
                let stopped = async move {
                    let _ = stopped.recv().await;
                };
                let mut work = Box::pin(carry(&dialler, ends, stopped));
                assert!(poll_once(&mut work).await.is_none());
                assert_eq!(numbers.map(descriptors_of), [1, 1], "{}", keys.is_some());
                stop.close();
                assert!(work.await.is_err());
                for mut end in [&person, &rendezvous] {
                    // Records have begun with one that says hello.
                    let reset = end.read_to_end(&mut Vec::new()).await.unwrap_err();
                    assert_eq!(reset.kind(), io::ErrorKind::ConnectionReset);
                }
            }
        });
    }

    /// Of a session whose other end leaves every stream open nothing was seen but that its connections stay.
    #[test]
    fn a_peer_that_never_closes_is_named_once_in_a_session() {
        soon(async {
            for keys in every_kind_of_keys() {
                let live = Live::of_tunnel("localhost:80".to_owned(), |_| {});
                let dialler = Dialler {
                    half_closed: Duration::from_millis(50),
                    ..dialler(keys.clone()).watched_by(live.into())
                };
                for _ in 0..2 {
                    let ([local, person], [remote, _stays_open]) = (pair().await, pair().await);
                    person.shutdown(Shutdown::Write).unwrap();
                    let carried = carry(&dialler, ends(local, remote, &keys), future::pending());
                    let BridgeError::Broken(why) = carried.await.unwrap_err() else {
                        panic!("it was begun");
                    };
                    assert_eq!(why.to_string(), "half closed, and silent for 50ms");
                }
                let again = io::Error::from(io::ErrorKind::TimedOut).into();
                assert_eq!(
                    dialler.live.news_of_peer(&again),
                    None,
                    "it was told before"
                );
                let new = Live::of_tunnel("localhost:80".to_owned(), |_| {});
                assert_eq!(new.news_of_peer(&again), Some("never closes"));
                assert_eq!(new.news_of_peer(&again), None);
            }
        });
    }

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
