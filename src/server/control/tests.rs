use std::{
    fs,
    future::Future,
    os::unix::{fs::PermissionsExt, net::UnixListener as StdListener},
};

use async_std::{os::unix::net::UnixStream, task::block_on};
use futures_lite::{AsyncWriteExt, future};

use super::*;
use crate::{
    net::control_socket::{MAX_REQUEST, QUEUE},
    testing::Folder,
};

fn alice() -> AtSign {
    "@alice".parse().unwrap()
}

fn status() -> ServerStatus {
    ServerStatus {
        directory: "localhost:6400".into(),
        ca: "/d/ca.pem".into(),
        data: "/d".into(),
        pid: 7,
        atsigns: 2,
        version: "0".into(),
    }
}

/// Runs the desk beside a story and ends with the story.
async fn beside<T>(desk: &AdminSocket, story: impl Future<Output = T>) -> T {
    let serve = async {
        desk.serve(async |request| match request {
            AdminRequest::Add(who) => AdminAnswer::Secret(Secret::new(format!("secret of {who}"))),
            AdminRequest::Status => AdminAnswer::Status(status()),
            AdminRequest::List => AdminAnswer::List(Vec::new()),
            AdminRequest::Remove(_) | AdminRequest::Backup(_) | AdminRequest::Quota(..) => {
                AdminAnswer::Done
            }
        })
        .await;
        unreachable!("a desk serves for ever")
    };
    future::or(story, serve).await
}

#[test]
fn lines_read_back_as_what_was_printed() {
    for request in [
        AdminRequest::Add(alice()),
        AdminRequest::List,
        AdminRequest::Remove(alice()),
        AdminRequest::Quota(alice(), 2 << 30),
        AdminRequest::Status,
        AdminRequest::Backup("/b/file".into()),
    ] {
        assert_eq!(AdminRequest::parse(&request.print()), Some(request));
    }
    let row = Hosted {
        atsign: "@alice".into(),
        host: "localhost".into(),
        port: 25000,
        activated: true,
    };
    for answer in [
        AdminAnswer::Secret(Secret::new("s".into())),
        AdminAnswer::List(vec![row]),
        AdminAnswer::List(vec![]),
        AdminAnswer::Status(status()),
        AdminAnswer::Done,
        AdminAnswer::Backup(BackupTotals {
            atsigns: 2,
            rows: 77,
        }),
        AdminAnswer::Refused {
            error: "no".into(),
            hint: None,
        },
    ] {
        assert_eq!(AdminAnswer::parse(&answer.print()), Some(answer));
    }
    for line in [
        "",
        "{}",
        r#"{"do":"add"}"#,
        r#"{"do":"add","atsign":"a b"}"#,
        r#"{"do":"fly"}"#,
    ] {
        assert_eq!(AdminRequest::parse(line), None, "{line}");
    }
}

#[test]
fn a_request_is_answered_by_the_running_server() {
    let folder = Folder::new();
    block_on(async {
        assert_eq!(
            ask(&folder.0, &AdminRequest::List).await.unwrap(),
            None,
            "nobody runs"
        );
        let desk = AdminSocket::listen(&folder.0).unwrap();
        let mode = fs::metadata(folder.0.join(SOCKET))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        beside(&desk, async {
            let got = ask(&folder.0, &AdminRequest::Add(alice())).await.unwrap();
            assert_eq!(
                got,
                Some(AdminAnswer::Secret(Secret::new("secret of @alice".into())))
            );
            let got = ask(&folder.0, &AdminRequest::Status).await.unwrap();
            assert_eq!(got, Some(AdminAnswer::Status(status())));
        })
        .await;
        drop(desk);
        assert_eq!(
            ask(&folder.0, &AdminRequest::List).await.unwrap(),
            None,
            "it ended"
        );
    });
}

#[test]
fn hostile_requests_do_not_stop_the_desk() {
    let folder = Folder::new();
    block_on(async {
        let desk = AdminSocket::listen(&folder.0).unwrap();
        let long = vec![b'x'; MAX_REQUEST + 10];
        for bytes in [b"\n".as_slice(), b"{}\n", b"\xff\n", &long, b""] {
            beside(&desk, async {
                let mut socket = UnixStream::connect(&folder.0.join(SOCKET)).await.unwrap();
                // The desk may hang up before it has read all of it.
                let _ = socket.write_all(bytes).await;
                drop(socket);
                let got = ask(&folder.0, &AdminRequest::Remove(alice()))
                    .await
                    .unwrap();
                assert_eq!(got, Some(AdminAnswer::Done), "after {} bytes", bytes.len());
            })
            .await;
        }
    });
}

#[test]
fn a_dead_servers_socket_is_replaced_and_a_living_ones_is_not() {
    let folder = Folder::new();
    let path = folder.0.join(SOCKET);
    drop(StdListener::bind(&path).unwrap()); // the file stays behind
    let desk = AdminSocket::listen(&folder.0).unwrap();
    let second = AdminSocket::listen(&folder.0).err();
    assert!(matches!(second, Some(AdminError::Running(_))), "{second:?}");
    drop(desk);
    fs::write(&path, "a file").unwrap();
    let third = AdminSocket::listen(&folder.0).err();
    assert!(matches!(third, Some(AdminError::NoSocket(_))), "{third:?}");
    let deep = folder.0.join("x".repeat(100));
    assert!(matches!(
        AdminSocket::listen(&deep).err(),
        Some(AdminError::PathTooLong(_))
    ));
}

/// "Transport endpoint is not connected": a queue of 16 was full.
#[test]
fn more_askers_than_the_queue_holds_are_all_answered() {
    let folder = Folder::new();
    let desk = AdminSocket::listen(&folder.0).unwrap();
    let ask_all = async {
        let data = folder.0.clone();
        let asking = (0..2 * QUEUE).map(|_| {
            let data = data.clone();
            async_std::task::spawn(async move { ask(&data, &AdminRequest::Status).await })
        });
        let mut answers = Vec::new();
        for one in asking.collect::<Vec<_>>() {
            answers.push(one.await);
        }
        answers
    };
    let answers = block_on(beside(&desk, ask_all));
    let good = |one: &Result<_, _>| matches!(one, Ok(Some(AdminAnswer::Status(_))));
    assert_eq!(
        answers.iter().filter(|one| good(one)).count(),
        2 * QUEUE as usize
    );
}
