//! Local programs at a port of ours.

use std::{collections::VecDeque, io, net::IpAddr, time::Duration};

use async_std::{
    net::{TcpListener, TcpStream},
    task,
};

use crate::{net::dial::tune, pipe::join::reset, sys::process::descriptors_left};

/// Between two attempts to take somebody in.
const BREATH: Duration = Duration::from_millis(200);

/// Local programs that want to the other side, in order of arrival.
#[derive(Debug)]
pub struct Visitors {
    listener: TcpListener,
    /// The listener was put where others reach it, on purpose.
    open_to_others: bool,
    put_back: VecDeque<TcpStream>,
    /// It has been said that nobody can be let in; not again before somebody is.
    pub(super) complained: bool,
}

impl Visitors {
    /// Whoever connects to this listener; only from this machine if that is where it listens.
    ///
    /// # Errors
    /// When the listener has no address.
    pub fn of(listener: TcpListener) -> io::Result<Self> {
        let open_to_others = !is_here(listener.local_addr()?.ip());
        Ok(Self {
            listener,
            open_to_others,
            put_back: VecDeque::new(),
            complained: false,
        })
    }

    /// The next one. Dropping the future loses nobody.
    pub async fn next(&mut self) -> TcpStream {
        if let Some(visitor) = self.put_back.pop_front() {
            return visitor;
        }
        loop {
            match self.listener.accept().await {
                // The connections that stand, and those on their way, need what is left.
                Ok((tcp, _)) if descriptors_left() == 0 => {
                    reset(&tcp);
                    self.complain("too few descriptors are left");
                }
                Ok((tcp, from)) if self.open_to_others || is_here(from.ip()) => {
                    let _ = tune(&tcp);
                    return tcp;
                }
                Ok((_, from)) => log::info!("refused={from} reason=not-from-this-machine"),
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    self.complain(&error.to_string());
                    task::sleep(BREATH).await;
                }
            }
        }
    }

    /// Once, and not for each of a thousand.
    pub(super) fn complain(&mut self, why: &str) {
        if !std::mem::replace(&mut self.complained, true) {
            log::warn!("refused=connection reason={why:?}");
        }
    }

    /// This one is to come again, behind those put back before: nothing of it has been read yet.
    pub fn put_back(&mut self, visitor: TcpStream) {
        self.put_back.push_back(visitor);
    }
}

/// Whether somebody comes from this machine.
pub(super) fn is_here(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}
