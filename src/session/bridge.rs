//! One end of the pipe: a local stream on this side, the rendezvous on the other.
//!
//! ```text
//!   local service ◀─ dial ─┐                     ┌─ dial ─▶ rendezvous
//!   local program ─ listen ┼─▶ join, en/decrypt ◀┤          first our admission line, in clear;
//!   stdin, stdout ─────────┘                     └─         everything behind it is the stream
//! ```
//!
//! The device dials its local service first: a service that is not there is the likeliest failure, and
//! nobody needs to meet anybody then. The client meets the device first, and listens for its local program while
//! the session is held. One session may also carry many connections ([`Many`], `many.rs`). What others see of it while it
//! runs, and that they may end it, is [`Live`].
//!
//! Source: noports:packages/dart/noports_core/lib/src/srv/srv_impl.dart (order of steps).

use std::{io, net::Ipv4Addr, sync::Arc, time::Duration};

use async_std::{future::timeout, net::TcpStream, task};
use futures_lite::{FutureExt, future};

use crate::{
    net::{
        dial::dial_service,
        network::NearnessSet,
        stall::{Tell, watch},
    },
    np::far_end::FarEnd,
    pipe::{
        join::{Carried, JoinFailure, join},
        keys::TransportKeys,
    },
    sys::stdio,
    text::endpoint::Endpoint,
};

use carry::{ConnectionEnds, FIRST_BYTE, FLUSH, carry, let_go, stays_silent};
use dialler::{DIAL, Dialler};

pub use began::Greeting;
pub use error::{BridgeError, Report, Stage};
pub use joins::MAX_CONNECTIONS;
pub use live::Live;
pub use many::{Many, Questions};
pub use news::{BridgeNews, TargetFailure, Totals};
pub use secrets::{BadSecrets, Secrets};
pub use visitors::Visitors;

mod began;
mod carry;
mod dialler;
mod error;
mod joins;
mod live;
mod many;
mod news;
mod secrets;
mod streamed;
mod visitors;

/// What is left to do for one that was told to end, when its connections have let go.
const LAST_STEPS: Duration = Duration::from_secs(1);
/// What a parent waits for on our stderr before it counts on us.
pub const STARTED: &str = "rv started successfully";
/// What a device's parent hears on our stderr when a tunnel's client has said its first word, and a client when its ssh
/// has come.
pub const SPOKEN: &str = "rv first word";
/// Stands before the number of the loopback port on which we listen.
pub const LISTENING: &str = "listening on port ";

/// Everything one end of a session needs.
#[derive(Debug)]
pub struct Plan {
    /// Our side.
    pub local: LocalEnd,
    /// The other one.
    pub far: FarEnd,
    /// How long [`LocalEnd::Listen`] waits for somebody; with `many`, how long the session may stand without
    /// a connection.
    pub timeout: Duration,
    /// As many connections as come, instead of one.
    pub many: Option<Many>,
    /// What a single connection of a client begins with.
    pub greeting: Greeting,
    /// The rendezvous may be where somebody may be sent whose directory is so near; else anywhere.
    pub nearness: Option<NearnessSet>,
    /// From where [`LocalEnd::Dial`] reaches a service at 127.0.0.1; else from anywhere.
    pub source: Option<Ipv4Addr>,
}

/// What stands at our end of the pipe.
#[derive(Debug)]
pub enum LocalEnd {
    /// A service of this machine, or near it.
    Dial(Endpoint),
    /// Whoever connects first from this machine; nobody after that. With [`Plan::many`], everybody.
    Listen(Visitors),
    /// Our own stdin and stdout.
    Stdio,
}

/// Builds the bridge, keeps it until both directions have ended, and says how much crossed it.
///
/// `ready` is called when the rendezvous has our admission line and the local end stands, or listens.
///
/// # Errors
/// See [`BridgeError`]. All connections are closed by then.
pub async fn run(plan: Plan, ready: impl FnOnce()) -> Result<Carried, BridgeError> {
    run_watched(plan, Arc::default(), ready).await
}

/// The same, watched by others, who may tell it to end: that is no error.
///
/// # Errors
/// As [`run`].
pub async fn run_watched(
    plan: Plan,
    live: Arc<Live>,
    ready: impl FnOnce(),
) -> Result<Carried, BridgeError> {
    let dialler = Dialler::new(plan.far)
        .nowhere_nearer(plan.nearness)
        .dialling_from(plan.source)
        .watched_by(live.clone());
    let work = run_with(
        dialler,
        plan.local,
        plan.many,
        plan.timeout,
        plan.greeting,
        ready,
    );
    match work.or(told_to_leave(&live)).await {
        Err(_) if live.was_told_to_leave() => Ok(live.meter.carried()),
        ended => ended,
    }
}

/// Whatever it was at: its connections have had time to let go.
async fn told_to_leave<T>(live: &Live) -> Result<T, BridgeError> {
    live.lets_go().await;
    let _ = timeout(FLUSH, live.at_once()).await;
    task::sleep(LAST_STEPS).await;
    Err(BridgeError::Gone)
}

/// Each kind of session in memory of its own: a future is as large as its largest part.
async fn run_with(
    dialler: Dialler,
    local: LocalEnd,
    many: Option<Many>,
    timeout: Duration,
    greeting: Greeting,
    ready: impl FnOnce(),
) -> Result<Carried, BridgeError> {
    match (local, many) {
        (local, None) => Box::pin(one(dialler, local, timeout, greeting, ready)).await,
        (LocalEnd::Dial(service), Some(many)) => {
            let keys = dialler.far.keys.clone();
            let dialler = Arc::new(dialler);
            match &keys {
                Some(TransportKeys::Records(keys)) => {
                    Box::pin(streamed::device(
                        dialler, keys, service, many, timeout, ready,
                    ))
                    .await
                }
                Some(TransportKeys::Stream(keys)) => {
                    Box::pin(many::device(
                        dialler,
                        Some(keys),
                        service,
                        many,
                        timeout,
                        ready,
                    ))
                    .await
                }
                None => Box::pin(many::device(dialler, None, service, many, timeout, ready)).await,
            }
        }
        (LocalEnd::Listen(mut visitors), Some(many)) => {
            client(dialler, &mut visitors, many, timeout, ready).await
        }
        (LocalEnd::Stdio, Some(_)) => Err(BridgeError::Accept(io::Error::other(
            "stdin and stdout are one connection",
        ))),
    }
}

/// The client's end of a session with many connections, for visitors that outlive it: whoever came too late
/// for this session is the next one's first. It may stand `idle` without a connection.
///
/// # Errors
/// See [`BridgeError`].
pub async fn run_for(
    visitors: &mut Visitors,
    far: FarEnd,
    many: Many,
    idle: Duration,
    live: Arc<Live>,
    ready: impl FnOnce(),
) -> Result<Carried, BridgeError> {
    let dialler = Dialler::new(far).watched_by(live);
    client(dialler, visitors, many, idle, ready).await
}

async fn client(
    dialler: Dialler,
    visitors: &mut Visitors,
    many: Many,
    idle: Duration,
    ready: impl FnOnce(),
) -> Result<Carried, BridgeError> {
    let keys = dialler.far.keys.clone();
    let dialler = Arc::new(dialler);
    match &keys {
        Some(TransportKeys::Records(keys)) => {
            Box::pin(streamed::client(dialler, keys, visitors, many, idle, ready)).await
        }
        Some(TransportKeys::Stream(keys)) => {
            Box::pin(many::client(
                dialler,
                Some(keys),
                visitors,
                many,
                idle,
                ready,
            ))
            .await
        }
        None => Box::pin(many::client(dialler, None, visitors, many, idle, ready)).await,
    }
}

/// stdin and stdout as the only connection of a session that could carry many: whatever the device opens, not only its
/// sshd.
///
/// # Errors
/// See [`BridgeError`]; `Unbegun` also where the device could not reach the target.
pub async fn run_on_stdio(
    far: FarEnd,
    many: Many,
    live: Arc<Live>,
) -> Result<Carried, BridgeError> {
    let keys = far.keys.clone();
    let dialler = Dialler::new(far).watched_by(live);
    match &keys {
        Some(TransportKeys::Records(keys)) => {
            Box::pin(streamed::on_stdio(dialler, keys, many)).await
        }
        Some(TransportKeys::Stream(keys)) => {
            Box::pin(many::on_stdio(dialler, Some(keys), many)).await
        }
        None => Box::pin(many::on_stdio(dialler, None, many)).await,
    }
}

async fn one(
    dialler: Dialler,
    local: LocalEnd,
    wait: Duration,
    greeting: Greeting,
    ready: impl FnOnce(),
) -> Result<Carried, BridgeError> {
    match local {
        LocalEnd::Dial(at) => {
            let local = match dial_service(&at, dialler.source, DIAL).await {
                Ok(local) => local,
                Err(source) => return Err(BridgeError::Local { at, source }),
            };
            let remote = dialler.connect().await?;
            ready();
            carry_one(&dialler, local, remote, Greeting::Any).await
        }
        LocalEnd::Listen(visitors) => {
            // First the rendezvous: it waits for a session's two ends half a minute, a person may take longer.
            let remote = dialler.connect().await?;
            let watched = watch(&remote, Tell::Aloud);
            ready();
            // The listener ends with this: whoever comes next is refused instead of waiting for nothing.
            let visitor = first_visitor(visitors, wait);
            let told = async {
                dialler.live.lets_go().await;
                Err(BridgeError::Gone)
            };
            let local = visitor.or(far_end_gone(&remote)).or(told).await?;
            drop(watched);
            dialler.live.used();
            carry_one(&dialler, local, remote, greeting).await
        }
        LocalEnd::Stdio => {
            let (input, output) = stdio::stdio().map_err(BridgeError::Accept)?;
            let remote = dialler.connect().await?;
            let _watched = watch(&remote, Tell::Aloud);
            ready();
            let (input, output, watch) = began::watch(input, output, greeting);
            let (live, far) = (&dialler.live, remote.clone());
            let _standing = live.stands();
            let changes = dialler.changes().unwrap_or_default();
            let half_closed = dialler.half_closed;
            let joined = join(input, output, remote, changes, half_closed, &live.meter);
            let joined = joined.or(let_go(live, [&far]));
            let joined = joined.or(async { Err(stdio::abandoned().await.into()) });
            let joined = joined.or(stays_silent(live, greeting, FIRST_BYTE)).await;
            let broken = |failure: JoinFailure| BridgeError::Broken(failure.error);
            match (joined.map_err(broken), watch.unbegun()) {
                (Err(changed), _) if changed.is_change() => Err(changed),
                (_, Some(unbegun)) => Err(unbegun),
                (joined, None) => joined,
            }
        }
    }
}

/// The only connection of a session, which ends with it.
async fn carry_one(
    dialler: &Dialler,
    local: TcpStream,
    remote: TcpStream,
    greeting: Greeting,
) -> Result<Carried, BridgeError> {
    let ends = ConnectionEnds {
        local,
        remote,
        changes: dialler.changes(),
        greeting,
        tell: Tell::Aloud,
    };
    carry(dialler, ends, future::pending()).await
}

/// Ends when the far end has gone without a word; never, when it has said something.
async fn far_end_gone<T>(remote: &TcpStream) -> Result<T, BridgeError> {
    match remote.peek(&mut [0]).await {
        Ok(0) => Err(BridgeError::Unbegun),
        Ok(_) => future::pending().await,
        Err(error) => Err(BridgeError::Broken(error)),
    }
}

/// Whoever gets here is let through to the device.
async fn first_visitor(mut visitors: Visitors, within: Duration) -> Result<TcpStream, BridgeError> {
    let came = timeout(within, visitors.next()).await;
    came.map_err(|_| BridgeError::NobodyCame(within))
}

#[cfg(test)]
mod tests;
