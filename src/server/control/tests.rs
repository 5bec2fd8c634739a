use super::*;
use crate::testing::Folder;
use async_std::task::block_on;
use futures_lite::future;

fn alice() -> AtSign {
    "@alice".parse().unwrap()
}

fn status() -> Status {
    Status {
        directory: "localhost:6400".into(),
        ca: "/d/ca.pem".into(),
        data: "/d".into(),
        pid: 7,
        atsigns: 2,
        version: "0".into(),
    }
}

/// Runs the desk beside a story and ends with the story.
async fn beside<T>(desk: &Desk, story: impl Future<Output = T>) -> T {
    let serve = async {
        desk.serve(async |request| match request {
            Request::Add(who) => Answer::Secret(Secret::new(format!("secret of {who}"))),
            Request::Status => Answer::Status(status()),
            Request::List => Answer::List(Vec::new()),
            Request::Remove(_) | Request::Backup(_) => Answer::Done,
        })
        .await;
        unreachable!("a desk serves for ever")
    };
    future::or(story, serve).await
}

#[test]
fn lines_read_back_as_what_was_printed() {
    for request in [
        Request::Add(alice()),
        Request::List,
        Request::Remove(alice()),
        Request::Status,
        Request::Backup("/b/file".into()),
    ] {
        assert_eq!(Request::parse(&request.print()), Some(request));
    }
    let row = Row {
        atsign: "@alice".into(),
        host: "localhost".into(),
        port: 25000,
        activated: true,
    };
    for answer in [
        Answer::Secret(Secret::new("s".into())),
        Answer::List(vec![row]),
        Answer::List(vec![]),
        Answer::Status(status()),
        Answer::Done,
        Answer::Backup(Backup {
            atsigns: 2,
            rows: 77,
        }),
        Answer::Refused {
            error: "no".into(),
            hint: None,
        },
    ] {
        assert_eq!(Answer::parse(&answer.print()), Some(answer));
    }
    for line in [
        "",
        "{}",
        r#"{"do":"add"}"#,
        r#"{"do":"add","atsign":"a b"}"#,
        r#"{"do":"fly"}"#,
    ] {
        assert_eq!(Request::parse(line), None, "{line}");
    }
}

#[test]
fn a_request_is_answered_by_the_running_server() {
    let folder = Folder::new();
    block_on(async {
        assert_eq!(
            ask(&folder.0, &Request::List).await.unwrap(),
            None,
            "nobody runs"
        );
        let desk = Desk::open(&folder.0).unwrap();
        let mode = fs::metadata(&desk.path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        beside(&desk, async {
            let got = ask(&folder.0, &Request::Add(alice())).await.unwrap();
            assert_eq!(
                got,
                Some(Answer::Secret(Secret::new("secret of @alice".into())))
            );
            let got = ask(&folder.0, &Request::Status).await.unwrap();
            assert_eq!(got, Some(Answer::Status(status())));
        })
        .await;
        drop(desk);
        assert_eq!(
            ask(&folder.0, &Request::List).await.unwrap(),
            None,
            "it ended"
        );
    });
}

#[test]
fn hostile_requests_do_not_stop_the_desk() {
    let folder = Folder::new();
    block_on(async {
        let desk = Desk::open(&folder.0).unwrap();
        let long = vec![b'x'; MAX_REQUEST + 10];
        for bytes in [b"\n".as_slice(), b"{}\n", b"\xff\n", &long, b""] {
            beside(&desk, async {
                let mut socket = UnixStream::connect(&desk.path).await.unwrap();
                // The desk may hang up before it has read all of it.
                let _ = socket.write_all(bytes).await;
                drop(socket);
                let got = ask(&folder.0, &Request::Remove(alice())).await.unwrap();
                assert_eq!(got, Some(Answer::Done), "after {} bytes", bytes.len());
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
    let desk = Desk::open(&folder.0).unwrap();
    let second = Desk::open(&folder.0).err();
    assert!(
        matches!(second, Some(ControlError::Running(_))),
        "{second:?}"
    );
    drop(desk);
    fs::write(&path, "a file").unwrap();
    let third = Desk::open(&folder.0).err();
    assert!(
        matches!(third, Some(ControlError::NoSocket(_))),
        "{third:?}"
    );
    let deep = folder.0.join("x".repeat(100));
    assert!(matches!(
        Desk::open(&deep).err(),
        Some(ControlError::PathTooLong(_))
    ));
}
