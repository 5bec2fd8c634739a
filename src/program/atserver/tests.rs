use futures_lite::future;

use super::{
    answer::{FIRST_PORT, answer, offline, offline_as, on_loopback, status},
    ask::request,
    last_time::{FILE, keep, last_time},
    serve::{default_host, names},
    *,
};
use crate::testing::Folder;
use crate::{
    at::AtSign,
    server::{
        authority,
        control::{AdminAnswer, AdminRequest, AdminSocket},
        listen::{self, RunningServer},
    },
};

#[test]
fn clients_are_told_a_name_they_can_use() {
    for (listen, want) in [
        ("127.0.0.1", Some("localhost")),
        ("::1", Some("localhost")),
        ("192.0.2.7", Some("192.0.2.7")),
        ("0.0.0.0", None),
        ("::", None),
        ("2001:db8::1", Some("2001:db8::1")),
        ("fe80::1", None),
    ] {
        let got = default_host(listen.parse().unwrap());
        assert_eq!(got.as_deref().ok(), want, "{listen}");
        if let Err(failure) = got {
            assert_eq!(failure.code, cli::exit::MISUSE, "{listen}");
        }
    }
}

#[test]
fn a_domain_brings_a_wildcard_name() {
    assert_eq!(names("h", None), ["h"]);
    assert_eq!(
        names("h", Some("at.example")),
        ["h", "at.example", "*.at.example"]
    );
}

#[test]
fn any_directory_port_means_any_ports() {
    for (port, first, want) in [
        (None, None, FIRST_PORT),
        (Some(6400), None, FIRST_PORT),
        (Some(0), None, 0),
        (Some(0), Some(7000), 7000),
    ] {
        let serve = Serve {
            port,
            first_port: first,
            ..Serve::default()
        };
        assert_eq!(serve.first_port(), want, "{port:?} {first:?}");
    }
}

#[test]
fn command_lines_are_read() {
    let rows: &[&[&str]] = &[
        &["serve"],
        &[
            "serve", "--data", "/d", "--listen", "::1", "--host", "h", "--port", "0", "--json",
        ],
        &[
            "serve",
            "--domain",
            "at.example",
            "--first-port",
            "7000",
            "-v",
            "-v",
        ],
        &[
            "add",
            "@alice",
            "--data",
            "/d",
            "--secret-file",
            "/s",
            "--json",
        ],
        &["add", "@alice", "--quota", "500M"],
        &["quota", "@alice", "4G"],
        &["list", "--json"],
        &["remove", "@alice", "--yes"],
        &["status"],
        &["export-ca", "--json"],
        &["backup", "/f", "--json"],
        &["restore", "/f", "--force"],
        &["rotate-ca", "--finish"],
        &[
            "serve",
            "--tls-cert",
            "/c",
            "--tls-key",
            "/k",
            "--metrics",
            "127.0.0.1:0",
        ],
    ];
    for args in rows {
        let read = Args::from_args(&["noports", "atserver"], args);
        assert!(read.is_ok(), "{args:?}: {read:?}");
    }
    let help = Args::from_args(&["noports", "atserver"], &["--help"]);
    let text = help.unwrap_err().output;
    for word in [
        "export-ca",
        "noports atserver add @alice",
        "no server is running",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
    for args in [&[][..], &["fly"], &["add"], &["serve", "--port", "99999"]] {
        let read = Args::from_args(&["noports", "atserver"], args);
        assert!(read.is_err_and(|early| early.status.is_err()), "{args:?}");
    }
}

/// What a server that runs and a folder without one answer, in turn.
#[test]
fn requests_are_answered_with_and_without_a_running_server() {
    async_std::task::block_on(async {
        let folder = Folder::new();
        let data = folder.path("data");
        let any = any_ports();
        let alice: AtSign = "@alice".parse().unwrap();
        let add = || AdminRequest::Add(alice.clone());
        let added = offline_as(&any, &data, add()).await.unwrap();
        assert!(matches!(added, AdminAnswer::Secret(_)), "{added:?}");

        let authority = authority::open_or_make(&data).unwrap();
        let running = served(&any, &data).await.unwrap();
        let desk = AdminSocket::listen(&data).unwrap();
        let status = status("localhost:1", Some(authority.ca_file()), &data);
        let serve = async {
            desk.serve(async |request| answer(&running, &status, request).await)
                .await;
            unreachable!("a desk serves for ever")
        };
        let ask = async {
            let again = request(&data, add()).await.unwrap();
            assert!(
                matches!(&again, AdminAnswer::Refused { hint: Some(_), .. }),
                "{again:?}"
            );
            let AdminAnswer::List(rows) = request(&data, AdminRequest::List).await.unwrap() else {
                panic!("no list");
            };
            assert_eq!(
                (rows[0].atsign.as_str(), rows[0].activated),
                ("@alice", false)
            );
            let AdminAnswer::Status(told) = request(&data, AdminRequest::Status).await.unwrap()
            else {
                panic!("no status");
            };
            assert_eq!((told.atsigns, told.pid), (1, std::process::id()));
            let second = served(&any, &data).await;
            assert!(second.is_err(), "two servers with one folder");
        };
        future::or(ask, serve).await;
        drop(desk);
        running.stop().await;

        let gone = offline_as(&any, &data, AdminRequest::Remove(alice.clone())).await;
        assert_eq!(gone.unwrap(), AdminAnswer::Done);
        let left = offline_as(&any, &data, AdminRequest::List).await;
        assert_eq!(left.unwrap(), AdminAnswer::List(Vec::new()));
    });
}

async fn served(like: &Serve, data: &Path) -> Result<RunningServer, Failure> {
    let tls = authority::open_or_make(data)?.leaf(&[])?.acceptor()?;
    Ok(listen::start(on_loopback(like, data)?, tls, None).await?)
}

fn any_ports() -> Serve {
    Serve {
        port: Some(0),
        ..Serve::default()
    }
}

/// An atSign that was added while no server ran got port 25000, whatever the server's own first port was; where another
/// program had that one, the server did not start for anybody any more.
#[test]
fn an_atsign_added_without_a_server_gets_a_port_as_the_server_was_started_last() {
    async_std::task::block_on(async {
        let folder = Folder::new();
        let data = folder.path("data");
        std::fs::create_dir(&data).unwrap();
        let last = Serve {
            host: Some("at.example.org".into()),
            ..any_ports()
        };
        keep(&data, &last.flags()).unwrap();
        let alice: AtSign = "@alice".parse().unwrap();
        let added = offline(&data, AdminRequest::Add(alice)).await.unwrap();
        assert!(matches!(added, AdminAnswer::Secret(_)), "{added:?}");
        let listed = offline(&data, AdminRequest::List).await.unwrap();
        let AdminAnswer::List(rows) = listed else {
            panic!("{listed:?}");
        };
        assert_eq!(rows[0].host, "at.example.org");
        assert_ne!(rows[0].port, FIRST_PORT);
    });
}

#[test]
fn a_start_without_flags_is_one_like_last_time() {
    let folder = Folder::new();
    let data = folder.path("");
    assert!(last_time(&data).unwrap().is_none());
    let first = Serve {
        listen: Some("0.0.0.0".parse().unwrap()),
        host: Some("h".into()),
        port: Some(6400),
        first_port: Some(7000),
        domain: Some("at.example".into()),
        tls_cert: Some("/a b/c".into()),
        tls_key: Some("/k".into()),
        metrics: Some("127.0.0.1:9".parse().unwrap()),
        root: Some("r:64".into()),
        ca: vec!["/x".into(), "/y".into()],
        ..Serve::default()
    };
    keep(&data, &first.flags()).unwrap();
    let talk = Serve {
        json: true,
        ..Serve::default()
    };
    let again = talk.like_last_time(&data).unwrap();
    assert_eq!((again.flags(), again.json), (first.flags(), true));
    // With one of them it is as it was typed.
    let typed = any_ports().like_last_time(&data).unwrap();
    assert_eq!(typed.flags(), any_ports().flags());
    for (text, fine) in [
        ("", true),
        ("port 7\n", true),
        ("port many\n", false),
        ("prot 7\n", false),
        ("port 7\nport 8\n", false),
    ] {
        std::fs::write(data.join(FILE), text).unwrap();
        assert_eq!(last_time(&data).is_ok(), fine, "{text:?}");
    }
}
