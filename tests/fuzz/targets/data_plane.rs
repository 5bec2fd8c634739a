//! What comes through a rendezvous: bytes of nobody into records and frames, and frames of somebody who has the keys and
//! keeps no rules into the streams of a session. How the network cuts the bytes must not matter, and nothing may grow.
//!
//! ```text
//!   input   first byte   0: bytes for an Opener, cut as the second says      1: one byte of what was sealed is changed
//!                        2: frames                                           3…: content of records, to a whole session
//! ```
#![no_main]

use std::{sync::OnceLock, time::Instant};

use async_std::net::{TcpListener, TcpStream};
use futures_lite::{AsyncWriteExt, future};
use libfuzzer_sys::fuzz_target;
use noports::{
    pipe::{
        frame::{self, Frame, MAX_DATA, Reason},
        join::Meter,
        record::{MAX_CONTENT, OVERHEAD, Opener, RecordError, Sealer, Suite},
        streams::{Event, Inlet, Streams},
    },
    secret::Secret,
};

/// More than the kernel takes, so that there is always something behind.
const LONGEST: usize = 8192;

fuzz_target!(|data: &[u8]| {
    let Some((kind, rest)) = data.split_first() else {
        return;
    };
    match kind % 4 {
        0 => opener(rest),
        1 => changed(rest),
        2 => frames(rest),
        _ => future::block_on(session(rest)),
    }
});

fn secret(number: u8) -> Secret<[u8; 32]> {
    Secret::new([number; 32])
}

/// Everything that opens, and what is at fault.
fn opened(suite: Suite, wire: &[u8], size: usize) -> (Vec<u8>, Result<bool, RecordError>) {
    let mut opener = Opener::new(suite, secret(1));
    let (mut heard, mut held) = (Vec::new(), Vec::new());
    for piece in wire.chunks(size) {
        held.extend_from_slice(piece);
        match opener.open(&mut held) {
            Ok(opened) => {
                heard.extend_from_slice(&held[..opened.content]);
                held = held[opened.rest].to_vec();
                assert!(
                    held.len() < MAX_CONTENT + OVERHEAD,
                    "a record is opened when it is there"
                );
            }
            Err(error) => {
                assert!(opener.open(&mut held).is_err(), "nothing opens any more");
                return (heard, Err(error));
            }
        }
    }
    (heard, Ok(opener.has_ended()))
}

/// Nobody without the keys makes a record.
fn opener(data: &[u8]) {
    let Some((size, wire)) = data.split_first() else {
        return;
    };
    for suite in [Suite::Aes256Gcm, Suite::ChaCha20Poly1305] {
        let by_byte = opened(suite, wire, 1);
        assert!(by_byte.0.is_empty() && by_byte.1 != Ok(true));
        assert_eq!(opened(suite, wire, 1 + usize::from(*size)).1, by_byte.1);
    }
}

/// What was sealed, with one byte changed, gives a beginning of it and never its end.
fn changed(data: &[u8]) {
    let Some((&[at, bits, size], said)) = data.split_first_chunk() else {
        return;
    };
    let (suite, mut wire) = (Suite::fastest(), Vec::new());
    let mut sealer = Sealer::new(suite, secret(1));
    for piece in said.chunks(1 + usize::from(size)) {
        sealer.seal(piece, Instant::now(), &mut wire);
    }
    sealer.end(Instant::now(), &mut wire);
    let whole = opened(suite, &wire, 1 + usize::from(size));
    assert_eq!(whole, (said.to_vec(), Ok(true)));
    let at = usize::from(at) * wire.len() / 256;
    wire[at] ^= bits.max(1);
    let (heard, end) = opened(suite, &wire, 1 + usize::from(size));
    assert!(said.starts_with(&heard) && end != Ok(true), "{end:?}");
}

/// What is taken off is what was put there.
fn frames(mut content: &[u8]) {
    while !content.is_empty() {
        let before = content;
        let Ok(frame) = frame::take(&mut content) else {
            return;
        };
        let mut bytes = frame.header().to_vec();
        if let Frame::Data(_, data) = frame {
            assert!(data.len() <= MAX_DATA);
            bytes.extend_from_slice(data);
        }
        assert_eq!(bytes, before[..before.len() - content.len()]);
    }
}

/// Both ends of a connection, again and again.
async fn pair() -> (TcpStream, TcpStream) {
    static LISTENER: OnceLock<TcpListener> = OnceLock::new();
    let listener = match LISTENER.get() {
        Some(listener) => listener,
        None => {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            LISTENER.get_or_init(|| listener)
        }
    };
    let at = listener.local_addr().expect("it has one");
    let (ours, theirs) = future::zip(TcpStream::connect(at), listener.accept()).await;
    (ours.expect("it listens"), theirs.expect("somebody came").0)
}

/// The device's end of a session, whose client says whatever it likes. First byte: how long each record is.
async fn session(data: &[u8]) {
    let Some((size, content)) = data.split_first() else {
        return;
    };
    let (mut peer, theirs) = pair().await;
    let suite = Suite::fastest();
    let streams = Streams::new(theirs, Sealer::new(suite, secret(2)), false);
    let mut inlet = Inlet::new(Opener::new(suite, secret(1)));
    let (mut sealer, mut wire) = (Sealer::new(suite, secret(1)), Vec::new());
    let size = (1 + usize::from(*size)) * 32;
    for piece in content[..content.len().min(LONGEST)].chunks(size) {
        sealer.seal(piece, Instant::now(), &mut wire);
    }
    sealer.end(Instant::now(), &mut wire);
    peer.write_all(&wire)
        .await
        .expect("the kernel takes so much");
    let (mut opened, mut latest) = (0, 0);
    while let Ok(event) = inlet.next(&streams).await {
        match event {
            Event::Opened(id) => {
                assert!(id > latest, "never again");
                (opened, latest) = (opened + 1, id);
                serve(&streams, id).await;
            }
            Event::Met => assert_eq!(latest, 0, "first of all"),
            Event::Ended => break,
        }
    }
    assert!(opened * frame::HEADER <= content.len());
    assert_eq!(streams.open(None), None, "it is over");
}

/// Some are refused, some say something and go at once.
async fn serve(streams: &Streams, id: u32) {
    if id % 2 == 0 {
        return streams.refuse(id, Reason::Refused);
    }
    let (meter, output) = (Meter::default(), futures_lite::io::sink());
    let carried = streams.carry_ends(id, &b"said"[..], output, &meter);
    let _ = future::poll_once(std::pin::pin!(carried)).await;
}
