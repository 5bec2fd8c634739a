//! Handshakes that must work and handshakes that must not, over real loopback sockets.
#![allow(clippy::unwrap_used)]

use std::{fs, future::Future};

use async_std::task::{block_on, spawn};
use futures_lite::{AsyncReadExt, AsyncWriteExt, future::zip, io::split};
use rcgen::date_time_ymd;

use super::*;
use crate::testing::{Authority, SOON, soon, tcp_pair};

type Accepted = Result<(TlsStream, Option<String>), TlsError>;

async fn handshake(
    connector: &Connector,
    name: &str,
    acceptor: &Acceptor,
) -> (Result<TlsStream, TlsError>, Accepted) {
    let (dialled, accepted) = tcp_pair().await;
    zip(
        connector.connect(name, dialled, SOON),
        acceptor.accept(accepted, SOON),
    )
    .await
}

async fn tls_pair() -> (TlsStream, TlsStream) {
    let authority = Authority::new();
    let acceptor = authority.acceptor(&["localhost"]);
    let (client, server) = handshake(&authority.connector(), "localhost", &acceptor).await;
    (client.unwrap(), server.unwrap().0)
}

/// Ends the test instead of hanging it.
#[test]
fn names_and_addresses_are_verified_and_the_asked_name_is_told() {
    block_on(async {
        let authority = Authority::new();
        let acceptor = authority.acceptor(&["host.example", "*.wild.example", "127.0.0.1", "::1"]);
        for (name, asked) in [
            ("host.example", Some("host.example")),
            ("a.wild.example", Some("a.wild.example")),
            ("127.0.0.1", None),
            ("::1", None),
        ] {
            let (client, server) = handshake(&authority.connector(), name, &acceptor).await;
            assert!(client.is_ok(), "{name}: {:?}", client.err());
            assert_eq!(server.unwrap().1.as_deref(), asked, "{name}");
        }
    });
}

#[test]
fn refusals_say_what_is_wrong() {
    block_on(async {
        let (ours, theirs) = (Authority::new(), Authority::new());
        let connector = ours.connector();
        let (chain, key) = ours.certificate(&["host.example"], |params| {
            params.not_before = date_time_ymd(2001, 1, 1);
            params.not_after = date_time_ymd(2002, 1, 1);
        });
        let expired = Acceptor::from_pem(&chain, &key).unwrap();
        let (chain, key) = ours.certificate(&["host.example"], |params| {
            params.not_before = date_time_ymd(3001, 1, 1);
            params.not_after = date_time_ymd(3002, 1, 1);
        });
        let early = Acceptor::from_pem(&chain, &key).unwrap();
        for (acceptor, name, want) in [
            (
                &theirs.acceptor(&["host.example"]),
                "host.example",
                "host.example's certificate is signed by an authority that is not trusted here",
            ),
            (
                &ours.acceptor(&["host.example"]),
                "other.example",
                "the certificate is not for other.example",
            ),
            (
                &ours.acceptor(&["127.0.0.1"]),
                "127.0.0.2",
                "the certificate is not for 127.0.0.2",
            ),
            (
                &expired,
                "host.example",
                "the certificate of host.example has expired or is not valid yet",
            ),
            (
                &early,
                "host.example",
                "the certificate of host.example has expired or is not valid yet",
            ),
            (
                &expired,
                "not a name",
                "TLS with not a name failed: this is neither a host name nor an address",
            ),
        ] {
            let (dialled, accepted) = tcp_pair().await;
            let server = spawn({
                let acceptor = acceptor.clone();
                async move { acceptor.accept(accepted, SOON).await.map(|_| ()) }
            });
            let error = connector.connect(name, dialled, SOON).await.err().unwrap();
            assert_eq!(error.to_string(), want);
            assert!(error.hint().is_some(), "{want}");
            assert!(server.await.is_err(), "{want}");
        }
    });
}

#[test]
fn unknown_authority_advises_the_ca_flag_and_expiry_the_clock() {
    let name = || "x".to_owned();
    for (error, word) in [
        (TlsError::UnknownAuthority { name: name() }, "--ca FILE"),
        (TlsError::Expired { name: name() }, "clock"),
    ] {
        assert!(error.hint().unwrap().contains(word), "{error}");
    }
}

#[test]
fn a_peer_without_tls_is_told_apart_from_a_silent_one() {
    block_on(async {
        let connector = Authority::new().connector();
        let (dialled, mut other) = tcp_pair().await;
        other.write_all(b"SSH-2.0-OpenSSH_9.6\r\n").await.unwrap();
        let error = connector
            .connect("h.example", dialled, SOON)
            .await
            .err()
            .unwrap();
        assert_eq!(
            error.to_string(),
            "TLS with h.example failed: the other end does not speak TLS"
        );

        let (dialled, _silent) = tcp_pair().await;
        let short = Duration::from_millis(40);
        let error = connector
            .connect("h.example", dialled, short)
            .await
            .err()
            .unwrap();
        assert!(matches!(error, TlsError::TimedOut { .. }), "{error}");

        let (dialled, gone) = tcp_pair().await;
        gone.shutdown(std::net::Shutdown::Write).unwrap();
        let error = connector
            .connect("h.example", dialled, SOON)
            .await
            .err()
            .unwrap();
        assert!(
            error.to_string().ends_with("closed during the handshake"),
            "{error}"
        );
    });
}

#[test]
fn a_client_without_tls_or_without_words_is_refused() {
    block_on(async {
        let authority = Authority::new();
        let acceptor = authority.acceptor(&["localhost"]);
        let (mut dialled, accepted) = tcp_pair().await;
        dialled.write_all(b"from:@alice\n").await.unwrap();
        let error = acceptor.accept(accepted, SOON).await.err().unwrap();
        assert!(matches!(error, TlsError::Failed { .. }), "{error}");

        let (dialled, accepted) = tcp_pair().await;
        let short = Duration::from_millis(40);
        let error = acceptor.accept(accepted, short).await.err().unwrap();
        let name = dialled.local_addr().unwrap().to_string();
        assert_eq!(
            error.to_string(),
            format!("TLS with {name} did not finish in time")
        );
    });
}

/// Some clients put an IP address where only names belong. The handshake goes on without a name.
#[test]
fn an_address_in_place_of_the_asked_name_is_not_fatal() {
    block_on(async {
        let authority = Authority::new();
        let acceptor = authority.acceptor(&["127.0.0.1"]);
        let name = rustls::ServerName::try_from("abcdefghi").unwrap();
        let mut client = rustls::ClientConnection::new(authority.connector().0, name).unwrap();
        let mut hello = Vec::new();
        client.write_tls(&mut hello).unwrap();
        let at = hello
            .windows(9)
            .position(|part| part == b"abcdefghi")
            .unwrap();
        hello[at..at + 9].copy_from_slice(b"127.0.0.1");

        let (mut dialled, accepted) = tcp_pair().await;
        let server = spawn(async move { acceptor.accept(accepted, SOON).await.map(|_| ()) });
        dialled.write_all(&hello).await.unwrap();
        let mut kind = [0; 1];
        dialled.read_exact(&mut kind).await.unwrap();
        assert_eq!(kind, [22], "a handshake record, not an alert (21)");
        drop(dialled);
        assert!(server.await.is_err());
    });
}

/// The mark of some editors hid the first certificate.
#[test]
fn an_authority_is_read_as_editors_of_windows_save_it() {
    block_on(async {
        let authority = Authority::new();
        let acceptor = authority.acceptor(&["h.example"]);
        let text = fs::read_to_string(&authority.file).unwrap();
        let wide = |bytes: fn(u16) -> [u8; 2]| {
            let marked = format!("\u{feff}{text}");
            marked.encode_utf16().flat_map(bytes).collect::<Vec<u8>>()
        };
        for (how, content) in [
            ("mark", format!("\u{feff}{text}").into_bytes()),
            ("CRLF", text.replace('\n', "\r\n").into_bytes()),
            (
                "mark and CRLF",
                format!("\u{feff}{text}").replace('\n', "\r\n").into_bytes(),
            ),
            ("UTF-16", wide(u16::to_le_bytes)),
            ("UTF-16, the other", wide(u16::to_be_bytes)),
            ("Latin-1", [b"# caf\xe9\n", text.as_bytes()].concat()),
        ] {
            fs::write(&authority.file, content).unwrap();
            let met = handshake(&authority.connector(), "h.example", &acceptor).await;
            assert!(met.0.is_ok(), "{how}");
        }
        // Without a mark it could be either.
        fs::write(&authority.file, &wide(u16::to_le_bytes)[2..]).unwrap();
        let error = Connector::new(&[&authority.file]).err().unwrap();
        assert!(error.to_string().contains("is it UTF-16?"), "{error}");
        // What is not there has no form that could be wrong.
        assert_eq!(error.hint(), None);
    });
}

#[test]
fn one_file_may_hold_several_authorities_and_bad_files_are_named() {
    block_on(async {
        let (one, two) = (Authority::new(), Authority::new());
        let both = fs::read_to_string(&one.file).unwrap() + &fs::read_to_string(&two.file).unwrap();
        fs::write(&one.file, both).unwrap();
        let connector = one.connector();
        for authority in [&one, &two] {
            let acceptor = authority.acceptor(&["h.example"]);
            assert!(
                handshake(&connector, "h.example", &acceptor)
                    .await
                    .0
                    .is_ok()
            );
        }
        for (content, why) in [
            (Some("nothing here"), "no certificate in it"),
            (
                Some("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
                "certificate 1: ",
            ),
            (None, "No such file"),
        ] {
            match content {
                Some(text) => fs::write(&two.file, text).unwrap(),
                None => fs::remove_file(&two.file).unwrap(),
            }
            let error = Connector::new(&[&two.file]).err().unwrap().to_string();
            let begin = format!(
                "cannot read the authority file {}: {why}",
                two.file.display()
            );
            assert!(error.starts_with(&begin), "{error}");
        }
    });
}

#[test]
fn an_own_certificate_that_cannot_be_used_is_refused_without_its_key() {
    let authority = Authority::new();
    let (chain, key) = authority.certificate(&["localhost"], |_| ());
    for (chain, key) in [("", &*key), (&*chain, ""), (&*chain, &*chain)] {
        let error = Acceptor::from_pem(chain, key).err().unwrap().to_string();
        assert!(
            error.starts_with("TLS with our own certificate failed: no "),
            "{error}"
        );
    }
}

#[test]
fn closing_ends_one_direction_and_the_answer_still_comes() {
    soon(async {
        let (mut client, mut server) = tls_pair().await;
        let (question, answer) = zip(
            async {
                let mut question = String::new();
                server.read_to_string(&mut question).await.unwrap();
                server.write_all(b"answer").await.unwrap();
                server.close().await.unwrap();
                question
            },
            async {
                client.write_all(b"question").await.unwrap();
                client.close().await.unwrap();
                let mut answer = String::new();
                client.read_to_string(&mut answer).await.unwrap();
                answer
            },
        )
        .await;
        assert_eq!((&*question, &*answer), ("question", "answer"));
        assert!(client.close().await.is_ok(), "closing twice is fine");
    });
}

#[test]
fn a_connection_cut_without_a_closing_message_reads_as_its_end() {
    soon(async {
        let (mut client, mut server) = tls_pair().await;
        server.write_all(b"bye").await.unwrap();
        server.flush().await.unwrap();
        server.socket().shutdown(std::net::Shutdown::Both).unwrap();
        let mut all = String::new();
        client.read_to_string(&mut all).await.unwrap();
        assert_eq!(all, "bye");
    });
}

/// The writer of one side pulls in what the reader of the same side waits for. Without the wake-up
/// after writes this sleeps for ever, usually within the first hundred rounds.
#[test]
fn a_reader_is_woken_for_bytes_that_the_writer_pulled_in() {
    const ROUNDS: u32 = 3000;
    const CHATTER: [u8; 4] = [0xff; 4];
    soon(async {
        let (mut client, server) = tls_pair().await;
        let (mut server_reads, mut server_writes) = split(server);
        let (asked, to_answer) = async_std::channel::bounded::<[u8; 4]>(1);
        let hears = spawn(async move {
            let mut question = [0; 4];
            while server_reads.read_exact(&mut question).await.is_ok() {
                asked.send(question).await.unwrap();
            }
        });
        let answers = spawn(async move {
            while let Ok(question) = to_answer.recv().await {
                // Still writing on the same connection just when the next question comes in.
                for message in [question, CHATTER, CHATTER, CHATTER, CHATTER, CHATTER] {
                    server_writes.write_all(&message).await.unwrap();
                    server_writes.flush().await.unwrap();
                }
            }
        });
        for round in 0..ROUNDS {
            let question = round.to_be_bytes();
            client.write_all(&question).await.unwrap();
            client.flush().await.unwrap();
            let mut answer = CHATTER;
            while answer == CHATTER {
                client.read_exact(&mut answer).await.unwrap();
            }
            assert_eq!(answer, question);
        }
        client.close().await.unwrap();
        // The chatter behind the last answer; then the server ends as well.
        zip(client.read_to_end(&mut Vec::new()), zip(hears, answers))
            .await
            .0
            .unwrap();
    });
}

/// A full socket must put both tasks to sleep, not have them wake each other.
#[test]
fn a_waiting_reader_and_a_blocked_writer_do_not_keep_each_other_awake() {
    soon(async {
        let (mut client, server) = tls_pair().await;
        let (mut reads, mut writes) = split(server);
        let polls = Arc::new(std::sync::atomic::AtomicU64::new(0));
        let counted = polls.clone();
        let writer = spawn(async move {
            let block = vec![7; 1 << 20];
            let mut sending = std::pin::pin!(async {
                for _ in 0..32 {
                    writes.write_all(&block).await.unwrap();
                }
                writes.close().await.unwrap();
            });
            std::future::poll_fn(|cx| {
                counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                sending.as_mut().poll(cx)
            })
            .await;
        });
        let reader = spawn(async move { reads.read(&mut [0; 1]).await.unwrap() });
        // Time is what is measured here: how often the blocked writer is polled while nothing happens.
        async_io::Timer::after(Duration::from_millis(300)).await;
        let awake = polls.load(std::sync::atomic::Ordering::Relaxed);
        assert!(awake < 2000, "polled {awake} times");
        let mut all = Vec::new();
        client.read_to_end(&mut all).await.unwrap();
        assert_eq!(all.len(), 32 << 20);
        client.close().await.unwrap();
        assert_eq!(reader.await, 0);
        writer.await;
    });
}
