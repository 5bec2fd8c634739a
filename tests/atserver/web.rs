//! Public values over HTTP, on the same port.

use std::{
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use async_std::{future::timeout, task::block_on};
use futures_lite::{AsyncReadExt, AsyncWriteExt};
use noports::net::dial::dial;
use rustls::{Certificate, ClientConfig, RootCertStore};

use super::{SOON, Wire, address};
use crate::world::{ALICE, DEVICE, World};

/// One request as web clients make it: they say in their TLS greeting what they speak.
async fn ask(world: &World, who: &str, request: &str) -> String {
    let pem = fs::read(world.dir.path("at/ca.pem")).unwrap();
    let mut roots = RootCertStore::empty();
    for one in rustls_pemfile::certs(&mut pem.as_slice()).unwrap() {
        roots.add(&Certificate(one)).unwrap();
    }
    let mut config = ClientConfig::builder()
        .with_safe_defaults()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let tcp = dial(&address(world, who).await, SOON).await.unwrap();
    let connector = async_tls::TlsConnector::from(Arc::new(config));
    let mut stream = connector.connect("localhost", tcp).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let mut all = Vec::new();
    let read = timeout(SOON, stream.read_to_end(&mut all)).await;
    read.expect("an end").unwrap();
    String::from_utf8(all).unwrap()
}

async fn get(world: &World, path: &str) -> (String, String) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n");
    let all = ask(world, ALICE, &request).await;
    let (head, body) = all.split_once("\r\n\r\n").unwrap();
    let status = head.lines().next().unwrap();
    (status["HTTP/1.1 ".len()..].to_owned(), body.to_owned())
}

#[test]
fn a_request_that_never_ends_is_not_waited_for() {
    block_on(async {
        let world = World::start_with("localhost", |options| {
            options.timings.login = Duration::from_millis(1500);
        })
        .await;
        let began = Instant::now();
        let half = ask(&world, ALICE, "GET /@alice/publickey HTTP/1.1\r\n").await;
        assert_eq!(half, "");
        assert!(began.elapsed() >= Duration::from_secs(1));
        Wire::login(&world, ALICE).await;
    });
}

#[test]
fn public_values_are_there_for_web_clients_and_others_are_not() {
    block_on(async {
        let world = World::start().await;
        let mut owner = Wire::login(&world, ALICE).await;
        for command in [
            "update:public:card.ns@alice data: \u{1f512} for all",
            "update:public:_apsk.primary.a.__e@alice KEY",
            "update:public:place.ns@alice atsign://card.ns@alice",
            "update:ttl:1:public:short.ns@alice v",
            "update:diary.ns@alice for me",
            "update:@device:shared.ns@alice for one",
        ] {
            owner.data(command).await;
        }
        let signing = owner.data("llookup:public:signing_publickey@alice").await;
        let ok = |body: &str| ("200 OK".to_owned(), body.to_owned());
        let missing = ("404 Not Found".to_owned(), String::new());
        for (path, want) in [
            ("/@alice/card.ns", ok("data: \u{1f512} for all")),
            ("/%40ALICE/Card.ns?x", ok("data: \u{1f512} for all")),
            ("/@alice/place.ns", ok("data: \u{1f512} for all")),
            ("/@alice/_apsk.primary.a.__e", ok("KEY")),
            ("/@alice/signing_publickey", ok(&signing)),
            ("/@alice/short.ns", missing.clone()),
            ("/@alice/diary.ns", missing.clone()),
            ("/@alice/shared.ns", missing.clone()),
            ("/@alice/none.ns", missing.clone()),
            ("/@alice/at_secret", missing.clone()),
            // Whose server this is not.
            ("/@device/publickey", missing.clone()),
            ("/", missing),
        ] {
            assert_eq!(get(&world, path).await, want, "{path}");
        }
        // Such a client has nothing else here.
        for (request, status) in [
            ("POST /@alice/card.ns HTTP/1.1\r\n\r\n", "HTTP/1.1 405 "),
            ("from:@alice\r\n\r\n", "HTTP/1.1 400 "),
        ] {
            let all = ask(&world, ALICE, request).await;
            assert!(all.starts_with(status), "{request:?}: {all}");
        }
        let endless = "GET /".to_owned() + &"a".repeat(20_000);
        assert_eq!(ask(&world, DEVICE, &endless).await, "");
        // And the others have what they always had.
        assert_eq!(owner.data("noop:0").await, "ok");
    });
}
