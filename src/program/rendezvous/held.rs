//! What both ports of one session know of it: who asked, what its sockets hold, what the log says.

use std::{
    net::SocketAddr,
    sync::{
        self, Arc, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Instant,
};

use async_std::{
    net::{TcpListener, TcpStream},
    task,
};
use log::info;

use crate::{
    at::AtSign,
    net::dial::tune,
    np::{ids::SessionId, pairs::Dialer},
    session::ignored,
};

use super::{
    budgets::{Budgets, NoRoom, Seat},
    crowd::LoginAddresses,
    entrance::{A_MOMENT, ADMISSION_TIME, BREATH},
};

/// What both ports know of their session.
pub(super) struct JoinState {
    pub(super) session: SessionId,
    /// Who asked for it.
    pub client: AtSign,
    daemon: Option<AtSign>,
    pub(super) budgets: Budgets,
    /// What the log says of it once somebody comes; taken then.
    begins: sync::Mutex<Option<String>>,
    /// It has said so, and says how it ends.
    is_told: AtomicBool,
    /// The first socket of this end has come.
    first_came: [AtomicBool; 2],
    /// A pair stands.
    pub stands: AtomicBool,
    /// A socket without a number was let in: the order of arrival counts.
    pub(super) in_order: AtomicBool,
    known: sync::Mutex<LoginAddresses>,
}

impl JoinState {
    pub(super) fn of(
        session: SessionId,
        (client, daemon): (AtSign, Option<AtSign>),
        begins: String,
        budgets: Budgets,
    ) -> Arc<Self> {
        Arc::new(Self {
            session,
            client,
            daemon,
            budgets,
            begins: sync::Mutex::new(Some(begins)),
            is_told: AtomicBool::new(false),
            first_came: Default::default(),
            stands: AtomicBool::new(false),
            in_order: AtomicBool::new(false),
            known: sync::Mutex::default(),
        })
    }

    pub(super) fn known(&self) -> MutexGuard<'_, LoginAddresses> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn accept(&self, listener: &TcpListener) -> (TcpStream, SocketAddr) {
        loop {
            match listener.accept().await {
                Ok((socket, from)) => {
                    let _ = tune(&socket);
                    return (socket, from);
                }
                Err(error) => {
                    let (session, reason) = (self.session, error.to_string());
                    let biggest = self.budgets.descriptors.biggest();
                    let (biggest, has) =
                        biggest.map_or((String::new(), 0), |(who, has)| (who.to_string(), has));
                    let about = format!("session={session} biggest={biggest} has={has}");
                    ignored::of_kind(&format!("accept=failed reason={reason:?}"), 1, about);
                    task::sleep(BREATH).await;
                }
            }
        }
    }

    /// What this one holds from now on. The first of either end has its descriptor from the session. It waits while others
    /// leave for it: an end's socket is not dropped for that.
    pub(super) async fn seat(
        &self,
        end: Dialer,
        number: Option<u64>,
    ) -> Result<Option<Seat>, String> {
        self.began();
        let first = &self.first_came[usize::from(end == Dialer::Daemon)];
        if !first.swap(true, Relaxed) {
            return Ok(None);
        }
        let (control, until) = (number == Some(0), Instant::now() + ADMISSION_TIME);
        loop {
            let (client, daemon, now) = (&self.client, self.daemon.as_ref(), Instant::now());
            match self.budgets.seat(client, daemon, control, now) {
                Ok(seat) => return Ok(Some(seat)),
                Err(NoRoom::NotYet) if now < until => task::sleep(A_MOMENT).await,
                Err(_) => return Err("no descriptors are left for it".to_owned()),
            }
        }
    }

    fn begins(&self) -> Option<String> {
        let mut begins = self.begins.lock().unwrap_or_else(PoisonError::into_inner);
        begins.take()
    }

    /// Somebody has come.
    fn began(&self) {
        if let Some(begins) = self.begins()
            && ignored::tells_session(&self.client)
        {
            self.is_told.store(true, Relaxed);
            info!("session={} {begins}", self.session);
        }
    }

    /// It is over. Ports that nobody comes to cost whoever asks for them nothing, so there is a count of them.
    pub(super) fn ended(&self, pairs: usize) {
        let session = self.session;
        if let Some(ports) = self.begins() {
            let kind = format!("unused from={}", self.client);
            ignored::of_kind(&kind, 1, format_args!("session={session} {ports}"));
        } else if self.is_told.load(Relaxed) {
            info!("session={session} ended pairs={pairs}");
        }
    }

    pub(super) fn refused(&self, port_of: &str, from: SocketAddr, why: &str) {
        let session = self.session;
        let kind = format!("not_admitted port_of={port_of} reason={why:?}");
        ignored::of_kind(&kind, 1, format_args!("session={session} from={from}"));
    }
}
