//! The classic program `srv`, and its forerunner `sshrv`, as their callers run them: words, environment, lines
//! on stderr, exit codes.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    os::unix::fs::symlink,
    process::{Child, ChildStderr, Command, Stdio},
    time::Duration,
};

use noports::{
    at::crypto::{aes_key_to_base64, to_base64},
    np::control::{ControlLine, ControlLines, Keying},
    pipe::cipher::SessionKeys,
    pipe::cipher::Side,
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::world::{Folder, NOPORTS, Process};

/// A bridge under this name, with these words and variables, and no others.
struct Classic {
    process: Process,
    stderr: BufReader<ChildStderr>,
    _dir: Folder,
}

impl Classic {
    fn start(name: &str, words: &[&str], variables: &[(&str, &str)]) -> Self {
        let dir = Folder::new();
        symlink(NOPORTS, dir.path(name)).unwrap();
        let mut command = Command::new(dir.path(name));
        command.args(words).envs(variables.iter().copied());
        command.stdin(Stdio::null()).stderr(Stdio::piped());
        let mut child: Child = command.spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        Self {
            process: Process(child),
            stderr,
            _dir: dir,
        }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stderr.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn is_ready(&mut self) {
        assert_eq!(self.line(), "rv started successfully");
    }

    fn ended(mut self) -> (i32, String) {
        let mut rest = String::new();
        self.stderr.read_to_string(&mut rest).unwrap();
        (self.process.0.wait().unwrap().code().unwrap(), rest)
    }
}

fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    (listener, port)
}

fn accept(listener: &TcpListener) -> TcpStream {
    // The deadline only bounds a failing test.
    let deadline = Timespec::try_from(Duration::from_secs(20)).unwrap();
    let mut asked = [PollFd::new(listener, PollFlags::IN)];
    assert_eq!(poll(&mut asked, Some(&deadline)), Ok(1), "the bridge comes");
    let (tcp, _) = listener.accept().unwrap();
    tcp.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    tcp
}

fn hears(mut tcp: &TcpStream, want: &[u8]) {
    let mut got = vec![0; want.len()];
    tcp.read_exact(&mut got).unwrap();
    assert_eq!(got, want);
}

#[test]
fn the_forerunner_of_4_x_joins_a_local_port_with_the_rendezvous_as_it_is() {
    let ((relay, port), (service, local)) = (listen(), listen());
    let mut bridge = Classic::start("sshrv", &["127.0.0.1", &port, &local], &[]);
    let (mut far, mut near) = (accept(&relay), accept(&service));
    bridge.is_ready();
    near.write_all(b"SSH-2.0-server\r\n").unwrap();
    hears(&far, b"SSH-2.0-server\r\n");
    far.write_all(b"SSH-2.0-client\r\n").unwrap();
    far.shutdown(Shutdown::Write).unwrap();
    let mut heard = String::new();
    near.read_to_string(&mut heard).unwrap();
    assert_eq!(heard, "SSH-2.0-client\r\n");
    drop((near, far));
    assert_eq!(bridge.ended(), (0, String::new()));
}

#[test]
fn srv_5_takes_its_secrets_from_the_environment() {
    let keys = SessionKeys::random(false).unwrap();
    let key = aes_key_to_base64(&keys.to_device.key);
    let iv = to_base64(&keys.to_device.iv);
    let variables = [
        ("RV_AUTH", "{the line}"),
        ("RV_AES", key.reveal()),
        ("RV_IV", &iv),
    ];
    let ((relay, port), (service, local)) = (listen(), listen());
    let words = ["-h", "127.0.0.1", "-p", &port, "--local-port", &local];
    let words = [
        &words[..],
        &["--local-host", "localhost", "--rv-auth", "--rv-e2ee"],
    ]
    .concat();
    let mut bridge = Classic::start("srv", &words, &variables);
    let (far, mut near) = (accept(&relay), accept(&service));
    bridge.is_ready();
    hears(&far, b"{the line}\n");
    near.write_all(b"banner").unwrap();
    let mut banner = *b"banner";
    keys.ciphers(Side::Device).outbound.apply(&mut banner);
    hears(&far, &banner);
    drop((far, near));
    assert_eq!(bridge.ended().0, 0);
}

#[test]
fn both_ends_of_a_session_without_keys_are_this_program() {
    let ((relay_a, port_a), (relay_b, port_b), (service, local)) = (listen(), listen(), listen());
    let words = [
        "-h",
        "127.0.0.1",
        "-p",
        &port_b,
        "--local-port",
        &local,
        "--multi",
    ];
    let mut device = Classic::start("srv", &words, &[]);
    let words = [
        "-h",
        "127.0.0.1",
        "-p",
        &port_a,
        "--local-port",
        "0",
        "--multi",
    ];
    let words = [&words[..], &["--bind-local-port", "--timeout", "1"]].concat();
    let mut client = Classic::start("srv", &words, &[]);
    let listening = client.line();
    let door = listening.strip_prefix("listening on port ").unwrap();
    let (mut client_control, mut device_control) = (accept(&relay_a), accept(&relay_b));
    client.is_ready();
    device.is_ready();
    let door: u16 = door.parse().unwrap();
    let mut visitor = TcpStream::connect(("127.0.0.1", door)).unwrap();
    let announced = b"connect:no:encrypt\n";
    hears(&client_control, announced);
    device_control.write_all(announced).unwrap();
    let (mut a, b, near) = (accept(&relay_a), accept(&relay_b), accept(&service));
    visitor.write_all(b"as it is").unwrap();
    hears(&a, b"as it is");
    a.write_all(b"answer").unwrap();
    hears(&visitor, b"answer");
    (&near).write_all(b"hello").unwrap();
    hears(&b, b"hello");
    drop((visitor, a, b, near));
    // A second without a connection: the client goes, and says so by closing.
    assert_eq!(client_control.read(&mut [0; 1]).unwrap(), 0);
    assert_eq!(client.ended().0, 0);
    drop(device_control);
    assert_eq!(device.ended().0, 0);
}

#[test]
fn a_client_of_5_1_sends_77_bytes_without_an_end() {
    let keys = SessionKeys::random(false).unwrap();
    let key = aes_key_to_base64(&keys.to_device.key);
    let iv = to_base64(&keys.to_device.iv);
    let variables = [("RV_AES", key.reveal().as_str()), ("RV_IV", &iv)];
    let ((relay, port), (service, local)) = (listen(), listen());
    let words = [
        "-h",
        "127.0.0.1",
        "-p",
        &port,
        "--local-port",
        &local,
        "--multi",
        "--rv-e2ee",
    ];
    let mut bridge = Classic::start("srv", &words, &variables);
    let mut control = accept(&relay);
    bridge.is_ready();
    let mut cipher = keys.ciphers(Side::Client).outbound;
    for _ in 0..2 {
        let fresh = SessionKeys::random(false).unwrap();
        let line = ControlLine::Connect(fresh.clone()).print().reveal().clone();
        let mut bytes = line.trim_end().as_bytes().to_vec();
        assert_eq!(bytes.len(), 77);
        let mut known = ControlLines::new(Keying::Single);
        known.push(&bytes);
        assert!(matches!(known.pop(), Ok(Some(ControlLine::Connect(_)))));
        cipher.apply(&mut bytes);
        control.write_all(&bytes).unwrap();
        let (mut far, near) = (accept(&relay), accept(&service));
        let mut hello = *b"hello";
        fresh.ciphers(Side::Client).outbound.apply(&mut hello);
        far.write_all(&hello).unwrap();
        hears(&near, b"hello");
    }
    drop(control);
    assert_eq!(bridge.ended().0, 0);
}

#[test]
fn failures_have_the_words_and_codes_that_callers_look_for() {
    let (listener, port) = listen();
    drop(listener);
    let bridge = Classic::start(
        "srv",
        &["-h", "127.0.0.1", "-p", "1", "--local-port", &port],
        &[],
    );
    let (code, said) = bridge.ended();
    assert_eq!(code, 200, "{said}");
    assert!(said.contains("Exception running srv : "), "{said}");
    for words in [
        &["--nonsense"][..],
        &["rv"],
        &["-h", "rv", "-p", "1", "--rv-auth"],
    ] {
        let (code, said) = Classic::start("srv", words, &[]).ended();
        assert_eq!(code, 1, "{words:?}: {said}");
    }
}
