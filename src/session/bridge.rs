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
//! the session is held. One session may also carry many connections ([`Many`], `multi.rs`).
//!
//! Source: noports:packages/dart/noports_core/lib/src/srv/srv_impl.dart (order of steps).

use std::{fmt, io, net::IpAddr, str::FromStr, sync::Arc, time::Duration};

use async_std::{
    future::timeout,
    net::{TcpListener, TcpStream},
};
use futures_lite::{AsyncWriteExt, FutureExt, future};

use crate::{
    net::dial::{dial, tune},
    np::admit,
    pipe::{
        cipher::{Ciphers, SessionKeys, Side},
        join::{Carried, HalfClose, join, reset, splice},
    },
    secret::Secret,
    sys::stdio,
    text::endpoint::Endpoint,
};

pub use began::Greeting;
pub use many::{MAX_CONNECTIONS, Many, Visitors};

mod began;
mod many;

/// What a parent waits for on our stderr before it counts on us.
pub const STARTED: &str = "rv started successfully";
/// Stands before the number of the loopback port on which we listen.
pub const LISTENING: &str = "listening on port ";

/// Everything one end of a session needs.
#[derive(Debug)]
pub struct Plan {
    /// Our side.
    pub local: Local,
    /// Where the other end is met.
    pub rendezvous: Endpoint,
    /// The line that gets us in, without its LF; `None` where anybody is let in.
    pub admission: Option<Secret<String>>,
    /// `None` sends everything as it is.
    pub keys: Option<SessionKeys>,
    /// Which of the keys are ours to encrypt with.
    pub side: Side,
    /// How long [`Local::Listen`] waits for somebody; with `many`, how long the session may stand without
    /// a connection.
    pub timeout: Duration,
    /// As many connections as come, instead of one.
    pub many: Option<Many>,
    /// What a single connection of a client begins with.
    pub greeting: Greeting,
}

/// What a client needs for one session with many connections.
#[derive(Debug)]
pub struct Visit {
    /// Where the other end is met.
    pub rendezvous: Endpoint,
    /// The line that gets us in, without its LF; `None` where anybody is let in.
    pub admission: Option<Secret<String>>,
    /// For the control channel; each connection has its own. `None` sends everything as it is.
    pub keys: Option<SessionKeys>,
    /// How long the session may stand without a connection.
    pub timeout: Duration,
    /// How we talk there.
    pub many: Many,
}

/// What stands at our end of the pipe.
#[derive(Debug)]
pub enum Local {
    /// A service of this machine, or near it.
    Dial(Endpoint),
    /// Whoever connects first from this machine; nobody after that. With [`Plan::many`], everybody.
    Listen(TcpListener),
    /// Our own stdin and stdout.
    Stdio,
}

/// Why a bridge did not stand, or fell.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum BridgeError {
    #[error("cannot reach the local service {at}: {source}")]
    Local { at: Endpoint, source: io::Error },
    #[error("nobody connected within {0:?}")]
    NobodyCame(Duration),
    #[error("cannot take the local connection: {0}")]
    Accept(io::Error),
    #[error("cannot reach the rendezvous at {at}: {source}")]
    Rendezvous { at: Endpoint, source: io::Error },
    #[error("the session broke off: {0}")]
    Broken(io::Error),
    #[error("the session ended before a byte came from the other end")]
    Unbegun,
    #[error("the session ended before an ssh server at the other end had greeted")]
    NoGreeting,
    #[error("the session was closed by the other end")]
    Gone,
}

impl BridgeError {
    /// What to try next.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::Local { .. } => "is the service running there, on that port?",
            Self::NobodyCame(_) => {
                "start the local program within that time, or allow more with --timeout"
            }
            Self::Rendezvous { .. } => "is outbound TCP to that port allowed from here?",
            Self::Unbegun | Self::NoGreeting => {
                "is the service on the device in order? did the rendezvous let both ends in (its log tells), and is it still up? then try again"
            }
            Self::Gone => {
                "the device's bridge or the rendezvous has ended: open it again, or let --keep-alive do so"
            }
            Self::Broken(_) => {
                "is the service on the device in order? did the rendezvous let both ends in (its log tells), and is it still up? does the network stand? then try again"
            }
            Self::Accept(_) => return None,
        })
    }

    /// Which step failed, for the machine at the other end of stderr.
    pub fn step(&self) -> Step {
        match self {
            Self::Local { .. } | Self::NobodyCame(_) | Self::Accept(_) => Step::Local,
            Self::Rendezvous { .. } => Step::Rendezvous,
            Self::Broken(_) | Self::Unbegun | Self::NoGreeting | Self::Gone => Step::Session,
        }
    }
}

/// What a bridge does one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Our end of the pipe.
    Local,
    /// The meeting point.
    Rendezvous,
    /// Carrying bytes.
    Session,
}

/// How a bridge tells its parent that it failed: one line on stderr,
/// `bridge=failed step=local why=cannot reach …`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// What it was at.
    pub step: Step,
    /// The error's text.
    pub why: String,
}

impl From<&BridgeError> for Report {
    fn from(error: &BridgeError) -> Self {
        Self {
            step: error.step(),
            why: error.to_string(),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let step = match self.step {
            Step::Local => "local",
            Step::Rendezvous => "rendezvous",
            Step::Session => "session",
        };
        let why = self.why.replace(char::is_control, " ");
        write!(f, "{REPORT}step={step} why={why}")
    }
}

/// Some other line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a bridge's report")]
pub struct NoReport;

impl FromStr for Report {
    type Err = NoReport;

    fn from_str(line: &str) -> Result<Self, NoReport> {
        let rest = line.trim_end().strip_prefix(REPORT).ok_or(NoReport)?;
        let (step, why) = rest.split_once(" why=").ok_or(NoReport)?;
        let step = match step {
            "step=local" => Step::Local,
            "step=rendezvous" => Step::Rendezvous,
            "step=session" => Step::Session,
            _ => return Err(NoReport),
        };
        let why = why.to_owned();
        Ok(Self { step, why })
    }
}

/// Builds the bridge, keeps it until both directions have ended, and says how much crossed it.
///
/// `ready` is called when the rendezvous has our admission line and the local end stands, or listens.
///
/// # Errors
/// See [`BridgeError`]. All connections are closed by then.
pub async fn run(plan: Plan, ready: impl FnOnce()) -> Result<Carried, BridgeError> {
    let far = Far {
        rendezvous: plan.rendezvous,
        admission: plan.admission,
        keys: plan.keys,
        side: plan.side,
        patience: many::PATIENCE,
    };
    match (plan.local, plan.many) {
        (local, None) => one(far, local, plan.timeout, plan.greeting, ready).await,
        (Local::Dial(service), Some(_)) => {
            many::device(Arc::new(far), service, plan.timeout, ready).await
        }
        (Local::Listen(listener), Some(many)) => {
            let mut visitors = Visitors::of(listener).map_err(BridgeError::Accept)?;
            many::client(Arc::new(far), &mut visitors, many, plan.timeout, ready).await
        }
        (Local::Stdio, Some(_)) => Err(BridgeError::Accept(io::Error::other(
            "stdin and stdout are one connection",
        ))),
    }
}

/// The client's end of a session with many connections, for visitors that outlive it: whoever came too late
/// for this session is the next one's first. `plan.local` does not matter.
///
/// # Errors
/// See [`BridgeError`].
pub async fn run_for(
    visitors: &mut Visitors,
    plan: Visit,
    ready: impl FnOnce(),
) -> Result<Carried, BridgeError> {
    let far = Far {
        rendezvous: plan.rendezvous,
        admission: plan.admission,
        keys: plan.keys,
        side: Side::Client,
        patience: many::PATIENCE,
    };
    many::client(Arc::new(far), visitors, plan.many, plan.timeout, ready).await
}

async fn one(
    far: Far,
    local: Local,
    wait: Duration,
    greeting: Greeting,
    ready: impl FnOnce(),
) -> Result<Carried, BridgeError> {
    match local {
        Local::Dial(at) => {
            let local = match dial(&at, DIAL).await {
                Ok(local) => local,
                Err(source) => return Err(BridgeError::Local { at, source }),
            };
            let remote = far.meet().await?;
            ready();
            carry(local, remote, far.keys.as_ref(), far.side, Greeting::Any).await
        }
        Local::Listen(listener) => {
            // First the rendezvous: it waits for a session's two ends half a minute, a person may take longer.
            let remote = far.meet().await?;
            ready();
            // The listener ends with this: whoever comes next is refused instead of waiting for nothing.
            let visitor = first_visitor(listener, wait);
            let local = visitor.or(far_end(&remote)).await?;
            carry(local, remote, far.keys.as_ref(), far.side, greeting).await
        }
        Local::Stdio => {
            let (input, output) = stdio::stdio().map_err(BridgeError::Accept)?;
            let remote = far.meet().await?;
            ready();
            let (input, output, watch) = began::watch(input, output, greeting);
            let joined = join(input, output, remote, far.ciphers()).await;
            watch
                .unbegun()
                .map_or(joined.map_err(BridgeError::Broken), Err)
        }
    }
}

/// Ends when the far end has gone without a word; never, when it has said something.
async fn far_end<T>(remote: &TcpStream) -> Result<T, BridgeError> {
    match remote.peek(&mut [0]).await {
        Ok(0) => Err(BridgeError::Unbegun),
        Ok(_) => future::pending().await,
        Err(error) => Err(BridgeError::Broken(error)),
    }
}

/// Only from this machine: whoever gets here is let through to the device.
async fn first_visitor(listener: TcpListener, within: Duration) -> Result<TcpStream, BridgeError> {
    let visitor = async {
        loop {
            match listener.accept().await {
                Ok((tcp, from)) if is_here(from.ip()) => return Ok(tcp),
                Ok((_, from)) => log::info!("refused={from} reason=not-from-this-machine"),
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => return Err(BridgeError::Accept(error)),
            }
        }
    };
    let Ok(outcome) = timeout(within, visitor).await else {
        return Err(BridgeError::NobodyCame(within));
    };
    let tcp = outcome?;
    let _ = tune(&tcp);
    Ok(tcp)
}

fn is_here(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

/// The half of a plan that lies beyond this machine.
#[derive(Debug)]
struct Far {
    rendezvous: Endpoint,
    admission: Option<Secret<String>>,
    keys: Option<SessionKeys>,
    side: Side,
    /// How long one of many sockets is tried again.
    patience: Duration,
}

impl Far {
    /// A connection to the rendezvous with our admission line on its way.
    async fn meet(&self) -> Result<TcpStream, BridgeError> {
        self.meet_with(self.admission.as_ref().map(|line| line.reveal().as_str()))
            .await
    }

    /// The same for one of many sockets, 0 being the control socket: the rendezvous is told its number, if it
    /// takes numbers.
    async fn meet_as(&self, number: u64) -> Result<TcpStream, BridgeError> {
        match &self.admission {
            Some(line) if self.takes_numbers() => {
                let line = Secret::new(admit::numbered(line.reveal(), number));
                self.meet_with(Some(line.reveal())).await
            }
            _ => self.meet().await,
        }
    }

    /// Whether sockets find their counterparts in whatever order they come.
    fn takes_numbers(&self) -> bool {
        let line = self.admission.as_ref();
        line.is_some_and(|line| admit::takes_numbers(line.reveal()))
    }

    async fn meet_with(&self, admission: Option<&str>) -> Result<TcpStream, BridgeError> {
        let failed = |source| BridgeError::Rendezvous {
            at: self.rendezvous.clone(),
            source,
        };
        let mut remote = dial(&self.rendezvous, DIAL).await.map_err(failed)?;
        if let Some(line) = admission {
            let line = Secret::new(format!("{line}\n").into_bytes());
            let sent = timeout(DIAL, remote.write_all(line.reveal())).await;
            sent.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
                .map_err(failed)?;
        }
        Ok(remote)
    }

    fn ciphers(&self) -> Ciphers {
        match &self.keys {
            Some(keys) => keys.ciphers(self.side),
            None => Ciphers::default(),
        }
    }
}

/// Joins both ends; one that fails resets the local one.
async fn carry(
    local: TcpStream,
    remote: TcpStream,
    keys: Option<&SessionKeys>,
    side: Side,
    greeting: Greeting,
) -> Result<Carried, BridgeError> {
    let outcome = match keys {
        None => splice(local, Vec::new(), remote, Vec::new()).await,
        Some(keys) => {
            let ends = HalfClose(local.clone());
            let (input, output, watch) = began::watch(local.clone(), ends, greeting);
            let outcome = join(input, output, remote, keys.ciphers(side)).await;
            if outcome.is_err() {
                reset(&local);
            } else if greeting == Greeting::Ssh
                && let Some(unbegun) = watch.unbegun()
            {
                return Err(unbegun);
            }
            outcome
        }
    };
    outcome.map_err(BridgeError::Broken)
}

/// For one connection, from resolving its name to sending the first line.
const DIAL: Duration = Duration::from_secs(10);
/// How a report begins.
const REPORT: &str = "bridge=failed ";

#[cfg(test)]
mod tests;
