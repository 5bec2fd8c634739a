//! Bytes are conserved under every order of ends, over real sockets and over streams cut at will.
#![allow(clippy::unwrap_used)]

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use async_std::task::{JoinHandle, block_on, spawn};
use futures_lite::{AsyncReadExt, AsyncWriteExt, future::zip};
use proptest::prelude::*;

use super::*;
use crate::testing::{soon, stream_key, tcp_pair};
use crate::{
    pipe::{
        cipher::{Cipher, SessionKeys, Side},
        copy::Change,
    },
    secret::Secret,
};

/// How two sockets are joined in a test.
#[derive(Clone, Copy, Debug)]
enum How {
    Splice,
    /// The same, with a text at the beginning that would be left out.
    Open,
    /// What `splice` falls back to.
    Copying,
    Join,
}

const EVERY_WAY: [How; 4] = [How::Splice, How::Open, How::Copying, How::Join];

type Joined = JoinHandle<io::Result<Carried>>;

/// a ◀─▶ joined ◀─▶ b: the two outer sockets, and the task in the middle.
async fn joined(how: How) -> (TcpStream, TcpStream, Joined) {
    let ((a, inner_a), (inner_b, b)) = (tcp_pair().await, tcp_pair().await);
    let task = spawn(async move {
        let none = Vec::new;
        match how {
            How::Splice => splice(inner_a, none(), inner_b, none()).await,
            How::Open => {
                let (a, b) = (raw(inner_a)?, raw(inner_b)?);
                let leg = |socket| Leg {
                    socket,
                    early: none(),
                    without: Some("the session's id".to_owned()),
                };
                splice_until(leg(&a), leg(&b), HALF_CLOSED, future::pending()).await
            }
            How::Copying => {
                let (a, b) = (raw(inner_a)?, raw(inner_b)?);
                let mut up = Relay::copying(&a, &b, none());
                let mut down = Relay::copying(&b, &a, none());
                let outcome = drive(HALF_CLOSED, &mut up, &mut down, None).await;
                Ok(close(outcome, &[&a, &b])?)
            }
            How::Join => {
                let write = inner_a.clone();
                let outcome = join(
                    inner_a,
                    HalfClose(write.clone()),
                    inner_b,
                    Changes::default(),
                    HALF_CLOSED,
                    &Meter::default(),
                )
                .await;
                if outcome.is_err() {
                    reset(&write);
                }
                Ok(outcome?)
            }
        }
    });
    (a, b, task)
}

/// Bytes that differ everywhere, so that a lost or repeated one shows.
fn pattern(len: usize, seed: u32) -> Vec<u8> {
    let mut state = seed | 1;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..len).map(next).collect()
}

async fn send(mut to: TcpStream, bytes: &[u8]) {
    to.write_all(bytes).await.unwrap();
    to.shutdown(Shutdown::Write).unwrap();
}

async fn receive(mut from: TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    from.read_to_end(&mut all).await.unwrap();
    all
}

#[test]
fn both_ways_at_once_with_more_than_any_buffer_holds() {
    for how in EVERY_WAY {
        let (up, down) = (pattern(9_000_001, 1), pattern(7_000_003, 2));
        soon(async {
            let (a, b, task) = joined(how).await;
            let ((heard_a, heard_b), _) = zip(
                zip(receive(a.clone()), receive(b.clone())),
                zip(send(a, &up), send(b, &down)),
            )
            .await;
            assert!(heard_b == up && heard_a == down, "{how:?}");
            let carried = task.await.unwrap();
            let sent = (up.len() as u64, down.len() as u64);
            assert_eq!((carried.up, carried.down), sent, "{how:?}");
        });
    }
}

#[test]
fn the_answer_comes_after_the_question_has_ended_from_either_side() {
    for how in EVERY_WAY {
        for a_asks in [true, false] {
            soon(async {
                let (a, b, task) = joined(how).await;
                let (asks, answers) = if a_asks { (a, b) } else { (b, a) };
                send(asks.clone(), b"question").await;
                assert_eq!(
                    receive(answers.clone()).await,
                    b"question",
                    "{how:?} {a_asks}"
                );
                send(answers, b"answer").await;
                assert_eq!(receive(asks).await, b"answer", "{how:?} {a_asks}");
                let carried = task.await.unwrap();
                assert_eq!(carried.up + carried.down, 14, "{how:?} {a_asks}");
            });
        }
    }
}

#[test]
fn nothing_said_and_both_ended_is_a_regular_end() {
    for how in EVERY_WAY {
        soon(async {
            let (a, b, task) = joined(how).await;
            drop((a, b));
            assert_eq!(task.await.unwrap(), Carried::default(), "{how:?}");
        });
    }
}

#[test]
fn early_bytes_come_first() {
    soon(async {
        let ((a, inner_a), (inner_b, b)) = (tcp_pair().await, tcp_pair().await);
        let (early_a, early_b) = (pattern(300_000, 3), b"SSH-2.0-early\r\n".to_vec());
        let task = spawn(splice(inner_a, early_a.clone(), inner_b, early_b));
        let ((heard_b, heard_a), _) = zip(
            zip(receive(b.clone()), receive(a.clone())),
            zip(send(a, b" then this"), send(b, b"late")),
        )
        .await;
        assert!(heard_b == [&early_a[..], b" then this"].concat());
        assert_eq!(heard_a, b"SSH-2.0-early\r\nlate");
        assert_eq!(task.await.unwrap().up, 300_010);
    });
}

#[test]
fn a_reset_of_one_side_resets_the_other() {
    for how in EVERY_WAY {
        for a_resets in [true, false] {
            soon(async {
                let (a, b, task) = joined(how).await;
                let (resets, mut other) = if a_resets { (a, b) } else { (b, a) };
                (&resets).write_all(b"half a sent").await.unwrap();
                other.read_exact(&mut [0; 11]).await.unwrap();
                reset(&resets);
                let error = other.read(&mut [0; 9]).await.unwrap_err();
                assert_eq!(
                    error.kind(),
                    io::ErrorKind::ConnectionReset,
                    "{how:?} {a_resets}"
                );
                assert!(task.await.is_err(), "{how:?} {a_resets}");
            });
        }
    }
}

/// A server that refuses an upload: it answers, closes, and does not read what still comes.
#[test]
fn the_last_words_of_a_side_that_went_while_being_written_to_still_arrive() {
    for how in EVERY_WAY {
        soon(async {
            let (a, mut b, task) = joined(how).await;
            let mut uploads = a.clone();
            let upload = spawn(async move {
                let block = vec![1; 100_000];
                while uploads.write_all(&block).await.is_ok() {}
            });
            b.read_exact(&mut [0; 100]).await.unwrap();
            b.write_all(b"too large").await.unwrap();
            drop(b);
            let mut answer = [0; 9];
            (&a).read_exact(&mut answer).await.unwrap();
            assert_eq!(&answer, b"too large", "{how:?}");
            assert!(task.await.is_err(), "{how:?}");
            upload.await;
        });
    }
}

#[test]
fn two_joins_with_twin_keys_understand_each_other() {
    soon(async {
        let keys = SessionKeys {
            to_device: stream_key(1),
            to_client: Some(stream_key(3)),
        };
        let ((client, near), (far, device)) = (tcp_pair().await, tcp_pair().await);
        let (left, right) = tcp_pair().await;
        let at_client = keys.changes(Side::Client);
        let at_device = keys.changes(Side::Device);
        let meters = [Meter::default(), Meter::default()].map(std::sync::Arc::new);
        let [meter, other] = meters.clone();
        let one = spawn(async move {
            join(
                near.clone(),
                HalfClose(near),
                left,
                at_client,
                HALF_CLOSED,
                &meter,
            )
            .await
        });
        let two = spawn(async move {
            join(
                far.clone(),
                HalfClose(far),
                right,
                at_device,
                HALF_CLOSED,
                &other,
            )
            .await
        });
        let (up, down) = (pattern(3_000_001, 5), pattern(2_000_001, 6));
        let ((heard_client, heard_device), _) = zip(
            zip(receive(client.clone()), receive(device.clone())),
            zip(send(client, &up), send(device, &down)),
        )
        .await;
        assert!(heard_device == up && heard_client == down);
        assert_eq!(one.await.unwrap().up, 3_000_001);
        assert_eq!(two.await.unwrap().up, 2_000_001);
        for (meter, (up, down)) in meters
            .iter()
            .zip([(3_000_001, 2_000_001), (2_000_001, 3_000_001)])
        {
            assert_eq!(meter.carried(), Carried { up, down });
            assert!(meter.quiet_for().is_some());
        }
    });
}

/// Yields and accepts bytes in pieces of the given sizes, pending in between.
struct Cut {
    bytes: Vec<u8>,
    at: usize,
    sizes: std::iter::Cycle<std::vec::IntoIter<usize>>,
    pause: bool,
    closed: bool,
}

impl Cut {
    fn new(bytes: Vec<u8>, sizes: Vec<usize>) -> Self {
        Self {
            bytes,
            at: 0,
            sizes: sizes.into_iter().cycle(),
            pause: false,
            closed: false,
        }
    }

    /// How much of `most` goes now.
    fn piece(&mut self, most: usize, cx: &Context<'_>) -> Poll<usize> {
        self.pause = !self.pause;
        if self.pause {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(self.sizes.next().unwrap_or(1).min(most))
    }
}

impl AsyncRead for Cut {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let most = buf.len().min(self.bytes.len() - self.at);
        self.piece(most, cx).map(|size| {
            buf[..size].copy_from_slice(&self.bytes[self.at..self.at + size]);
            self.at += size;
            Ok(size)
        })
    }
}

impl AsyncWrite for &mut Cut {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.piece(buf.len(), cx).map(|size| {
            self.bytes.extend_from_slice(&buf[..size]);
            Ok(size)
        })
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.closed = true;
        Poll::Ready(Ok(()))
    }
}

fn sizes() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(1usize..5000, 1..6)
}

proptest! {
    #[test]
    fn cutting_never_changes_what_arrives(
        (up_len, down_len, early_len) in (0usize..40_000, 0usize..40_000, 0usize..300),
        (in_up, out_up, in_down, out_down) in (sizes(), sizes(), sizes(), sizes()),
    ) {
        let (up, down) = (pattern(up_len, 7), pattern(down_len, 8));
        let early_len = early_len.min(down.len());
        let cipher = || Cipher::new(&Secret::new([5; 32]), &[6; 16]);
        let mut down_sent = down.clone();
        cipher().apply(&mut down_sent);
        let (early, later) = down_sent.split_at(early_len);
        let mut up_arrived = Cut::new(Vec::new(), out_up);
        let mut down_arrived = Cut::new(Vec::new(), out_down);
        let source_up = Cut::new(up.clone(), in_up);
        let source_down = Cut::new(later.to_vec(), in_down);
        let mut pump_up = Copy::new(source_up, &mut up_arrived, Vec::new(), Change::None);
        let mut pump_down = Copy::new(source_down, &mut down_arrived, early.to_vec(), Change::Cipher(Box::new(cipher())));
        let carried = block_on(drive(HALF_CLOSED, &mut pump_up, &mut pump_down, None)).unwrap();
        prop_assert_eq!((carried.up, carried.down), (up.len() as u64, down.len() as u64));
        prop_assert!(up_arrived.closed && down_arrived.closed);
        prop_assert!(up_arrived.bytes == up && down_arrived.bytes == down);
    }
}
