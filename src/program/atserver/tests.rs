use futures_lite::future;

use super::{
    answer::{FIRST_PORT, answer, offline_at, start_on_loopback, status},
    ask::request,
    serve::{first_port, names},
    *,
};
use crate::testing::Folder;
use crate::{
    at::AtSign,
    server::{
        authority,
        control::{AdminAnswer, AdminRequest, AdminSocket},
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
        ("2001:db8::1", None),
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
    assert_eq!(first_port(None, 64), FIRST_PORT);
    assert_eq!(first_port(None, 0), 0);
    assert_eq!(first_port(Some(7000), 0), 7000);
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
        let alice: AtSign = "@alice".parse().unwrap();
        let add = || AdminRequest::Add(alice.clone());
        let added = offline_at(0, &data, add()).await.unwrap();
        assert!(matches!(added, AdminAnswer::Secret(_)), "{added:?}");

        let authority = authority::open_or_make(&data).unwrap();
        let running = start_on_loopback(0, &data, &authority).await.unwrap();
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
            let second = start_on_loopback(0, &data, &authority).await;
            assert!(second.is_err(), "two servers with one folder");
        };
        future::or(ask, serve).await;
        drop(desk);
        running.stop().await;

        let gone = offline_at(0, &data, AdminRequest::Remove(alice.clone())).await;
        assert_eq!(gone.unwrap(), AdminAnswer::Done);
        let left = offline_at(0, &data, AdminRequest::List).await;
        assert_eq!(left.unwrap(), AdminAnswer::List(Vec::new()));
    });
}
