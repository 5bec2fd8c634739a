//! A peer that has the keys and keeps no rules.

use std::{
    pin::Pin,
    task::{Context, Waker},
};

use futures_lite::future;

use super::*;
use crate::pipe::{
    frame::{FIRST_CREDIT, MAX_CREDIT},
    streams::state::FULL,
};

/// The other end of the connection, in the hand of whoever has its keys.
struct Peer {
    socket: TcpStream,
    sealer: Sealer,
}

impl Peer {
    /// The client of a device's end; or the device of a client's.
    async fn of(may_open: bool) -> (Self, Arc<Streams>, Inlet) {
        let (suite, [up, down]) = (Suite::Aes256Gcm, secrets());
        let (socket, theirs) = pair().await;
        let streams = Streams::new(theirs, Sealer::new(suite, down), may_open);
        let peer = Self {
            socket,
            sealer: Sealer::new(suite, up.clone()),
        };
        (peer, streams, Inlet::new(Opener::new(suite, up)))
    }

    /// Says all these frames; DATA with its bytes.
    async fn say(&mut self, frames: impl IntoIterator<Item = Frame<'_>>) -> io::Result<()> {
        let mut content = Vec::new();
        for frame in frames {
            content.extend_from_slice(&frame.header());
            if let Frame::Data(_, bytes) = frame {
                content.extend_from_slice(bytes);
            }
        }
        let mut wire = Vec::new();
        self.sealer.seal(&content, Instant::now(), &mut wire);
        self.socket.write_all(&wire).await
    }
}

/// What becomes of these frames, at a device's end that refuses what is opened, or at a client's with stream 1.
fn verdict(may_open: bool, frames: &[Frame<'_>]) -> Result<Event, String> {
    block_on(async {
        let (mut peer, streams, mut inlet) = Peer::of(may_open).await;
        if may_open {
            streams.open(None).unwrap();
        }
        peer.say(frames.iter().copied()).await.unwrap();
        let mut end = Vec::new();
        peer.sealer.end(Instant::now(), &mut end);
        peer.socket.write_all(&end).await.unwrap();
        loop {
            match inlet.next(&streams).await {
                Ok(Event::Opened(_) | Event::Met) => {}
                Ok(event) => return Ok(event),
                Err(error) => {
                    assert!(streams.state().is_over);
                    return Err(error.to_string());
                }
            }
        }
    })
}

#[test]
fn frames_that_are_not_due_end_the_session_with_an_error() {
    let (open, data) = (Frame::Open(1), Frame::Data(1, b"x"));
    let much = vec![0; FIRST_CREDIT as usize];
    let all_of_it = Frame::Data(1, &much);
    let gone = Frame::Reset(1, Reason::Gone);
    let bad = Err(BadFrame.to_string());
    for (why, frames) in [
        ("opened twice", &[open, open][..]),
        ("opened out of order", &[Frame::Open(2), open]),
        ("opened again after its reset", &[open, gone, open]),
        ("bytes of a stream to come", &[data]),
        ("the end of a stream to come", &[Frame::End(1)]),
        ("the reset of a stream to come", &[gone]),
        ("credit for a stream to come", &[Frame::Credit(1, 1)]),
        ("bytes behind the end", &[open, Frame::End(1), data]),
        ("two ends", &[open, Frame::End(1), Frame::End(1)]),
        ("more than there is credit for", &[open, all_of_it, data]),
        (
            "more than there is credit for, after a reset",
            &[open, gone, all_of_it, data],
        ),
        (
            "more credit than there is",
            &[open, Frame::Credit(1, MAX_CREDIT)],
        ),
    ] {
        assert_eq!(verdict(false, frames), bad, "{why}");
    }
    for (why, frames) in [
        ("the device opens", &[Frame::Open(2)][..]),
        ("bytes of a stream to come", &[Frame::Data(2, b"x")]),
        ("more than there is credit for", &[all_of_it, data]),
    ] {
        assert_eq!(verdict(true, frames), bad, "{why}");
    }
    for (why, frames) in [
        ("numbers left out", &[Frame::Open(7), Frame::Open(9)][..]),
        (
            "as much as there is credit for",
            &[open, all_of_it, Frame::End(1)],
        ),
        ("reset twice", &[open, gone, gone]),
        (
            "pongs that nobody asked for",
            &[Frame::Pong(1), Frame::Pong(0)],
        ),
    ] {
        assert_eq!(verdict(false, frames), Ok(Event::Ended), "{why}");
    }
}

/// What this end made of forty thousand rounds, each with a new stream, by a peer that never reads.
fn flood(
    frames: fn(u32) -> Vec<Frame<'static>>,
    mut serve: impl FnMut(&Arc<Streams>, u32),
) -> (Result<(), String>, Arc<Streams>) {
    /// So few come with one read that there are never too many streams.
    const AT_ONCE: u32 = 100;
    const ROUNDS: u32 = 40_000 / AT_ONCE;
    block_on(async {
        let (mut peer, streams, mut inlet) = Peer::of(false).await;
        peer.say([Frame::Ping(0)]).await.unwrap();
        assert_eq!(inlet.next(&streams).await.unwrap(), Event::Met);
        // As if the connection took nothing: there is as much to be written as there may be, and nobody does.
        streams.say(|state, _| (state.out, state.writing) = (vec![0; FULL], true));
        for round in 0..ROUNDS {
            let ids = round * AT_ONCE + 1..=(round + 1) * AT_ONCE;
            peer.say(ids.flat_map(frames)).await.unwrap();
            while let Some(heard) = future::poll_once(inlet.next(&streams)).await {
                match heard {
                    Ok(Event::Opened(id)) => serve(&streams, id),
                    Ok(event) => panic!("{event:?}"),
                    Err(error) => return (Err(error.to_string()), streams),
                }
            }
        }
        (Ok(()), streams)
    })
}

/// Each was owed one, and nothing limited how many were where a target refuses.
#[test]
fn resets_that_nobody_takes_end_the_session() {
    let refuses = |streams: &Arc<Streams>, id| streams.refuse(id, Reason::Refused);
    let (outcome, streams) = flood(|id| vec![Frame::Open(id)], refuses);
    assert_eq!(outcome, Err(BadFrame.to_string()));
    let owed = streams.state().owed.resets.len();
    assert!(owed <= MAX_OWED + MAX_STREAMS, "{owed}");
}

#[test]
fn pings_credits_and_resets_without_end_are_held_in_no_memory() {
    let frames = |id| {
        vec![
            Frame::Open(id),
            Frame::Ping(id),
            Frame::Credit(id, 1),
            Frame::Reset(id, Reason::Gone),
        ]
    };
    let ends = |streams: &Arc<Streams>, id| streams.say(|state, _| state.remove(id));
    let (outcome, streams) = flood(frames, ends);
    assert_eq!(outcome, Ok(()));
    let state = streams.state();
    assert!(state.out.capacity() <= 2 * FULL, "{}", state.out.capacity());
    assert!(state.owed.resets.len() + state.owed.credits.len() <= MAX_OWED);
    assert!(state.urgent.len() + state.bulk.len() <= MAX_STREAMS);
}

/// Each END was sealed at once, however much there was that the peer had not taken.
#[test]
fn ends_of_streams_wait_where_nothing_is_taken() {
    let mut waiting = Vec::new();
    let ends = |streams: &Arc<Streams>, id| {
        let streams = streams.clone();
        let mut carried = Box::pin(async move {
            let nowhere = futures_lite::io::sink();
            let meter = Meter::default();
            let _ = streams.carry_ends(id, &b""[..], nowhere, &meter).await;
        });
        if block_on(future::poll_once(&mut carried)).is_none() {
            waiting.push(carried);
        }
    };
    let frames = |id| vec![Frame::Open(id), Frame::End(id)];
    let (outcome, streams) = flood(frames, ends);
    assert_eq!(outcome, Err(BadFrame.to_string()), "too many streams");
    assert!(waiting.len() <= MAX_STREAMS);
    let backlog = streams.state().out.capacity();
    assert!(backlog <= 2 * FULL, "{backlog}");
}

/// What it had taken stayed in memory as long as something was held for it: all that ever came.
#[test]
fn a_reader_that_is_always_a_little_behind_makes_nothing_grow() {
    /// Takes no more than this.
    struct Takes(usize);
    impl AsyncWrite for Takes {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            let took = bytes.len().min(self.0);
            self.0 -= took;
            match took {
                0 => Poll::Pending,
                took => Poll::Ready(Ok(took)),
            }
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }
    let (mut stream, size) = (Stream::new(None, Instant::now()), FIRST_CREDIT as usize);
    let nobody = &mut Context::from_waker(Waker::noop());
    stream.hold(&[7]);
    for _ in 0..1000 {
        stream.hold(&vec![7; size]);
        assert_eq!(stream.poll_give(&mut Takes(size), nobody).0, size);
    }
    assert_eq!(stream.held.len() - stream.at, 1);
    assert!(
        stream.held.capacity() <= 4 * size,
        "{}",
        stream.held.capacity()
    );
}

/// A record that is not authentic is left out, and all behind it is what was sealed: none of that may be heard either.
#[test]
fn after_a_record_that_was_changed_nothing_is_heard_any_more() {
    block_on(async {
        let (mut peer, streams, mut inlet) = Peer::of(false).await;
        peer.say([Frame::Open(1)]).await.unwrap();
        for event in [Event::Met, Event::Opened(1)] {
            assert_eq!(inlet.next(&streams).await.unwrap(), event);
        }
        let mut wire = Vec::new();
        let changed = Frame::Open(2).header();
        peer.sealer.seal(&changed, Instant::now(), &mut wire);
        wire[10] ^= 1;
        peer.socket.write_all(&wire).await.unwrap();
        for _ in 0..2 {
            let heard = inlet.next(&streams).await.unwrap_err().to_string();
            assert_eq!(heard, RecordError::Changed.to_string());
            peer.say([Frame::Open(3)]).await.unwrap();
        }
    });
}
