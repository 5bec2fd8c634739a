use std::net::Shutdown;

use async_std::{net::TcpListener, task};
use futures_lite::{AsyncReadExt, AsyncWriteExt, FutureExt, future::block_on};

use super::*;
use crate::{
    pipe::record::{Opener, Suite},
    secret::Secret,
};

mod hostile;

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let (ours, theirs) = futures_lite::future::zip(TcpStream::connect(at), listener.accept()).await;
    let (ours, theirs) = (ours.unwrap(), theirs.unwrap().0);
    ours.set_nodelay(true).unwrap();
    theirs.set_nodelay(true).unwrap();
    (ours, theirs)
}

fn secrets() -> [Secret<[u8; 32]>; 2] {
    [Secret::new([1; 32]), Secret::new([2; 32])]
}

/// Both ends of a session; the device's serves each stream with a socket from `dial`.
struct World {
    client: Arc<Streams>,
    device: Arc<Streams>,
}

fn run(streams: Arc<Streams>, mut inlet: Inlet, dial: Option<async_std::net::SocketAddr>) {
    task::spawn(async move {
        let writer = streams.write();
        let reader = async {
            loop {
                match inlet.next(&streams).await {
                    Ok(Event::Opened(id)) => {
                        let streams = streams.clone();
                        task::spawn(async move {
                            match TcpStream::connect(dial.unwrap()).await {
                                Ok(local) => {
                                    local.set_nodelay(true).unwrap();
                                    let end = streams.carry(id, &local, &Meter::default()).await;
                                    if end.is_err() {
                                        let _ = rustix::net::connect_unspec(&local);
                                    }
                                }
                                Err(_) => streams.refuse(id, Reason::Refused),
                            }
                        });
                    }
                    Ok(Event::Met) => {}
                    other => return other,
                }
            }
        };
        writer.or(reader).await
    });
}

async fn world(service: async_std::net::SocketAddr) -> World {
    let (a, b) = pair().await;
    let suite = Suite::Aes256Gcm;
    let [up, down] = secrets();
    let client = Streams::new(a, Sealer::new(suite, up), true);
    let device = Streams::new(b, Sealer::new(suite, down), false);
    let [up, down] = secrets();
    run(client.clone(), Inlet::new(Opener::new(suite, down)), None);
    run(
        device.clone(),
        Inlet::new(Opener::new(suite, up)),
        Some(service),
    );
    World { client, device }
}

impl World {
    /// A local program's end of a new stream.
    async fn visit(&self) -> TcpStream {
        let (visitor, local) = pair().await;
        let client = self.client.clone();
        let id = client.open(Some(local.clone())).unwrap();
        task::spawn(async move {
            if client.carry(id, &local, &Meter::default()).await.is_err() {
                let _ = rustix::net::connect_unspec(&local);
            }
        });
        visitor
    }
}

/// Serves each connection with this.
async fn service<F: Future<Output = ()> + Send + 'static>(
    serve: impl Fn(TcpStream) -> F + Send + 'static,
) -> async_std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    task::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            stream.set_nodelay(true).unwrap();
            task::spawn(serve(stream));
        }
    });
    at
}

async fn echo(mut stream: TcpStream) {
    let mut bytes = vec![0; 8192];
    while let Ok(got @ 1..) = stream.read(&mut bytes).await {
        if stream.write_all(&bytes[..got]).await.is_err() {
            return;
        }
    }
    let _ = stream.shutdown(Shutdown::Write);
}

#[test]
fn many_streams_each_come_back_whole_and_in_order() {
    block_on(async {
        let world = world(service(echo).await).await;
        let mut all = Vec::new();
        for seed in 0..50u32 {
            let visitor = world.visit().await;
            all.push(task::spawn(async move {
                let sent: Vec<u8> = (0..200_000u32)
                    .map(|n| (n.wrapping_mul(seed + 1) >> 3) as u8)
                    .collect();
                let (mut tx, mut rx, said) = (visitor.clone(), visitor, sent.clone());
                let send = async {
                    tx.write_all(&said).await.unwrap();
                    tx.shutdown(Shutdown::Write).unwrap();
                };
                let mut heard = Vec::new();
                let hear = async { rx.read_to_end(&mut heard).await.unwrap() };
                futures_lite::future::zip(send, hear).await;
                assert!(heard == sent, "stream {seed}");
            }));
        }
        for one in all {
            one.await;
        }
        let left = |streams: &Streams| streams.state().streams.len();
        while left(&world.client) + left(&world.device) > 0 {
            task::yield_now().await;
        }
        let state = world.client.state();
        assert_eq!(state.growth.left(), crate::pipe::credit::BUDGET);
    });
}

/// Windows stayed at their first 4 KiB on every line of more than two milliseconds: 80 kB/s at 50 ms, for the device for ever.
#[test]
fn both_ends_know_the_round_trip_as_soon_as_they_have_met() {
    block_on(async {
        let world = world(service(echo).await).await;
        let is_known = |streams: &Streams| !streams.state().growth.is_stale(Instant::now());
        while !is_known(&world.client) || !is_known(&world.device) {
            task::yield_now().await;
        }
    });
}

#[test]
fn a_target_that_refuses_resets_its_stream_alone() {
    block_on(async {
        let closed = TcpListener::bind("127.0.0.1:0")
            .await
            .unwrap()
            .local_addr()
            .unwrap();
        let world = world(closed).await;
        for _ in 0..3 {
            let mut visitor = world.visit().await;
            let end = visitor.read(&mut [0]).await;
            assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        }
        assert!(!world.client.state().is_over);
    });
}

#[test]
fn readers_that_take_nothing_stop_only_themselves() {
    block_on(async {
        async fn source(mut stream: TcpStream) {
            let bytes = vec![7; 65536];
            while stream.write_all(&bytes).await.is_ok() {}
        }
        let world = world(service(source).await).await;
        let mut stalled = Vec::new();
        for _ in 0..8 {
            stalled.push(world.visit().await);
        }
        let mut live = world.visit().await;
        let mut bytes = vec![0; 65536];
        let mut got = 0;
        while got < 50_000_000 {
            got += live.read(&mut bytes).await.unwrap();
        }
        let held: usize = world
            .client
            .state()
            .streams
            .values()
            .map(|s| s.held.len())
            .sum();
        assert!(held <= crate::pipe::credit::BUDGET as usize, "{held}");
    });
}

#[test]
fn a_connection_that_is_cut_resets_every_stream() {
    block_on(async {
        let world = world(service(echo).await).await;
        let mut visitors = Vec::new();
        for _ in 0..5 {
            let mut visitor = world.visit().await;
            visitor.write_all(b"x").await.unwrap();
            visitor.read_exact(&mut [0]).await.unwrap();
            visitors.push(visitor);
        }
        world.device.socket.shutdown(Shutdown::Both).unwrap();
        for mut visitor in visitors {
            let end = visitor.read(&mut [0]).await;
            assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        }
    });
}
