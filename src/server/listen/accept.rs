//! Accept loops. The handshake is each connection's own business: a slow one holds nobody up. Whoever has to give way to
//! others is cut off wherever it is.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use async_std::{
    channel,
    net::{TcpListener, TcpStream},
    task,
};
use futures_lite::future::or;

use crate::at::AtSign;

use super::{
    board::{House, lock},
    connection, directory,
    gate::{ConnectionGate, Pass},
    hub::Hub,
    visitor::Visitor,
    web,
};

/// Rest after a failed accept: the system is short of something (descriptors, memory).
const SHORTAGE: Duration = Duration::from_millis(100);

/// The atDirectory's port.
pub(super) fn directory(hub: &Arc<Hub>, door: TcpListener, alive: channel::Sender<()>) {
    let what = "the atDirectory".to_owned();
    accept_loop(
        hub,
        what,
        enquiries,
        door,
        alive,
        |hub, visitor| async move {
            directory::serve(&hub, visitor).await;
        },
    );
}

/// The port of one atSign.
pub(super) fn one(hub: &Arc<Hub>, who: AtSign, door: TcpListener, alive: channel::Sender<()>) {
    let what = who.to_string();
    accept_loop(hub, what, houses, door, alive, move |hub, visitor| {
        let house = hub.board.house(&who);
        async move {
            if let Some(house) = house {
                welcome(&hub, &house, visitor).await;
            }
        }
    });
}

/// The port that all atSigns share.
pub(super) fn shared(hub: &Arc<Hub>, door: TcpListener, alive: channel::Sender<()>) {
    let what = "all atSigns".to_owned();
    accept_loop(hub, what, houses, door, alive, |hub, visitor| async move {
        let house = visitor.wish.name.as_deref().and_then(|name| {
            let name = name.to_ascii_lowercase();
            let domain = hub.options.domain.as_deref()?;
            let bare = name.strip_suffix(domain)?.strip_suffix('.')?;
            hub.board.house(&bare.parse().ok()?)
        });
        match house {
            Some(house) => welcome(&hub, &house, visitor).await,
            None => log::debug!("from={} name={:?} nobody", visitor.from, visitor.wish.name),
        }
    });
}

fn houses(hub: &Hub) -> &ConnectionGate {
    &hub.gate
}

fn enquiries(hub: &Hub) -> &ConnectionGate {
    &hub.directory_gate
}

/// Two kinds of clients come to the same port, and say so before anything else.
async fn welcome(hub: &Arc<Hub>, house: &Arc<House>, visitor: Visitor) {
    if visitor.wish.http {
        // In a box: those that stay are of the other kind.
        Box::pin(web::serve(hub, house, visitor)).await;
    } else {
        connection::serve(hub, house, visitor).await;
    }
}

fn accept_loop<F, S>(
    hub: &Arc<Hub>,
    what: String,
    gate: fn(&Hub) -> &ConnectionGate,
    door: TcpListener,
    alive: channel::Sender<()>,
    serve: S,
) where
    F: Future<Output = ()> + Send + 'static,
    S: Fn(Arc<Hub>, Visitor) -> F + Send + Sync + 'static,
{
    // The loop itself keeps neither the hub nor `alive`: cancelling it must not be needed for either to end.
    let (hub_now, serve) = (Arc::downgrade(hub), Arc::new(serve));
    let task = task::spawn(async move {
        loop {
            let accepted = door.accept().await;
            let Some(hub) = hub_now.upgrade() else { break };
            match accepted {
                Ok((tcp, from)) => admit(hub, gate, tcp, from, alive.clone(), serve.clone()),
                Err(why) if is_passing(&why) => {}
                Err(why) => {
                    if lock(&hub.shortage).is_new(&(), Instant::now()) {
                        log::warn!("accept reason={why}");
                    }
                    drop(hub);
                    task::sleep(SHORTAGE).await;
                }
            }
        }
    });
    hub.keep(what, task);
}

/// The client went away before we looked.
fn is_passing(why: &io::Error) -> bool {
    matches!(
        why.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}

fn admit<F, S>(
    hub: Arc<Hub>,
    gate: fn(&Hub) -> &ConnectionGate,
    tcp: TcpStream,
    from: SocketAddr,
    alive: channel::Sender<()>,
    serve: Arc<S>,
) where
    F: Future<Output = ()> + Send + 'static,
    S: Fn(Arc<Hub>, Visitor) -> F + Send + Sync + 'static,
{
    let Some((pass, must_leave)) = gate(&hub).enter(from.ip(), Instant::now()) else {
        log::debug!("from={from} refused: too many connections");
        return;
    };
    hub.meter.accepted.add(1);
    task::spawn(async move {
        let sent_away = async {
            must_leave.told().await;
            log::debug!("from={from} gave way");
        };
        or(shake_hands(hub, tcp, from, pass, serve), sent_away).await;
        drop(alive);
    });
}

async fn shake_hands<F, S>(
    hub: Arc<Hub>,
    tcp: TcpStream,
    from: SocketAddr,
    pass: Pass,
    serve: Arc<S>,
) where
    F: Future<Output = ()>,
    S: Fn(Arc<Hub>, Visitor) -> F,
{
    let within = hub.options.timings.handshake;
    // In boxes: a connection keeps no room for what is over, or has not begun.
    match Box::pin(hub.tls.accept_with_extensions(tcp, within)).await {
        Ok((stream, wish)) => {
            let visitor = Visitor {
                stream,
                from: from.ip(),
                wish,
                pass,
            };
            Box::pin(serve(hub, visitor)).await;
        }
        Err(why) => {
            hub.meter.handshakes_failed.add(1);
            log::debug!("from={from} handshake={why}");
        }
    }
}
