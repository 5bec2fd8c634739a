//! sshnpd 0.4.16 as the device, on our atServers.
//!
//! ```text
//!   this test ── ssh_request{host, port B} ──▶ sshnpd ──▶ sshd
//!             ◀── {connected, private key} ──    │
//!   ssh ══════▶ A ═══════════════ B ◀════════════┘     nothing encrypted but ssh itself, nobody says who he is at A or B
//! ```
//!
//! This daemon is older than heartbeats, than logins to a rendezvous and than encrypted legs. Our client asks for all
//! three, so it says that the daemon does not answer; the session here is driven by a client of that age, made
//! of our types, and a meeting place that lets anybody in, as the rendezvous of that age did.

use std::{
    fs,
    io::Write,
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    os::unix::fs::{OpenOptionsExt, symlink},
    path::Path,
    process::{Command, Stdio},
    thread,
};

use async_std::task::block_on;
use miniserde::{Deserialize, json};
use noports::{
    at::{
        AtSign, Verb,
        client::{AtError, Client, Event, Outgoing},
        crypto::{ZERO_IV, aes_key_from_base64, decrypt},
        metadata::Metadata,
        verb::Dialect,
    },
    np::{
        NOTE_TTL, VALUE_TTL,
        envelope::{self, Envelope},
        ids::SessionId,
        request::{answer_entity, ssh_request_entity},
    },
    sys::sshd::Sshd,
};

use super::{SCRIPTS, SSHNPD, directory, environment, python, world};
use crate::world::{ALICE, DEVICE, NAME, Process, World, failure, stdout, until};

/// The daemon, once it listens for requests.
pub async fn start(world: &World, mut command: Command, sshd: &Sshd) -> Process {
    let ssh = world.dir.path("home/.ssh");
    fs::create_dir_all(&ssh).unwrap();
    // It lets its guests in by adding a line here.
    let file = sshd.identity.with_file_name("authorized_keys");
    symlink(file, ssh.join("authorized_keys")).unwrap();
    let log = fs::File::create(world.dir.path("sshnpd.log")).unwrap();
    command
        .args(["-m", ALICE, "-a", DEVICE, "-d", NAME, "-u"])
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log);
    let daemon = Process(command.spawn().unwrap());
    until("sshnpd listens", || {
        world.log("sshnpd").contains("Monitor started")
    })
    .await;
    daemon
}

/// What the daemon answers.
#[derive(Deserialize)]
struct Answer {
    status: String,
    #[serde(rename = "sessionId")]
    session: String,
    #[serde(rename = "ephemeralPrivateKey")]
    private_key: String,
}

/// A session as clients of version 4 made it; returns what the device said through ssh.
pub async fn session(world: &World) -> String {
    let alice = Client::login(&world.network, world.keys(ALICE))
        .await
        .unwrap();
    let device: AtSign = DEVICE.parse().unwrap();
    let name = NAME.parse().unwrap();
    let id = SessionId::random();
    let mut inbox = alice.subscribe(&id.to_string(), false).await.unwrap();
    let user = user_name(&alice).await;

    let (a, b) = meeting_place();
    let payload = format!(r#"{{"direct":true,"sessionId":"{id}","host":"127.0.0.1","port":{b}}}"#);
    let request = Outgoing {
        to: device.clone(),
        entity: ssh_request_entity(&name),
        text: envelope::seal(&payload, &alice.keys().encryption).unwrap(),
        ttl: Some(VALUE_TTL),
        ttln: NOTE_TTL,
        metadata: Metadata::default(),
    };
    alice.notify(&request).await.unwrap();
    let answer = loop {
        let Some(Event::Note(note)) = inbox.next().await else {
            panic!("the monitor ended");
        };
        if note.from == device && note.entity() == answer_entity(id, &name) {
            break alice.decrypt(&note).await.unwrap().unwrap();
        }
    };
    let signer = alice.public_key(&device).await.unwrap().unwrap();
    let envelope = Envelope::parse(&answer).unwrap();
    let answer: Answer = json::from_str(envelope.verify(&signer).unwrap()).unwrap();
    assert_eq!(answer.status, "connected");
    assert_eq!(answer.session, id.to_string());
    stdout(ssh(world, &user, a, &answer.private_key)).await
}

/// What the daemon publishes for its manager. The atsdk it pins names an IV there and encrypts with none, so nobody
/// who believes the name can read it.
async fn user_name(alice: &Client) -> String {
    let device = DEVICE.parse().unwrap();
    let read = alice.get_shared(&device, "username.dev1.sshnp").await;
    assert!(matches!(read, Err(AtError::Crypto(_))), "{read:?}");
    let ask = async |line: &str| {
        let verb = Verb::parse(line, Dialect::Classic).unwrap();
        alice.run(&verb).await.unwrap()
    };
    let wrapped = ask("lookup:shared_key@device").await;
    let key = alice.keys().encryption.unwrap(&wrapped).unwrap();
    let key = aes_key_from_base64(key.reveal()).unwrap();
    let value = ask("lookup:username.dev1.sshnp@device").await;
    decrypt(&key, &ZERO_IV, &value).unwrap()
}

/// Lets anybody in; what comes to one port leaves through the other.
fn meeting_place() -> (u16, u16) {
    let listen = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
    let (a, b) = (listen(), listen());
    let ports = (port(&a), port(&b));
    thread::spawn(move || {
        let (a, b) = (a.accept().unwrap().0, b.accept().unwrap().0);
        let back = (b.try_clone().unwrap(), a.try_clone().unwrap());
        thread::spawn(move || pour(back.0, back.1));
        pour(a, b);
    });
    ports
}

pub fn pour(mut from: TcpStream, mut to: TcpStream) {
    let _ = std::io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}

fn ssh(world: &World, user: &str, port: u16, private_key: &str) -> Command {
    let identity = world.dir.path("ephemeral");
    let mut file = fs::File::options();
    file.write(true).create(true).truncate(true).mode(0o600);
    let mut file = file.open(&identity).unwrap();
    file.write_all(private_key.as_bytes()).unwrap();
    let mut command = world.program("ssh");
    command.args(["-F", "none", "-T", "-p", &port.to_string(), "-l", user]);
    for option in [
        format!("IdentityFile={}", identity.display()),
        format!("HostKeyAlias={}", world.alias()),
        format!("UserKnownHostsFile={}", world.dir.text("known_hosts")),
        "IdentitiesOnly=yes".to_owned(),
        "StrictHostKeyChecking=yes".to_owned(),
        "BatchMode=yes".to_owned(),
    ] {
        command.args(["-o", &option]);
    }
    command.args(["127.0.0.1", "echo hello from the device"]);
    command
}

/// With a directory and an sshd on ports of their own.
fn launched(world: &World, sshd: &Sshd) -> Command {
    let mut command = python(world, &environment(SSHNPD), &format!("{SCRIPTS}/daemon.py"));
    command.args(directory(world)).arg(sshd.port.to_string());
    command
}

/// As its package installs it.
pub fn as_installed(world: &World) -> Command {
    let environment = environment(SSHNPD);
    let script = environment.join("bin/sshnpd");
    python(
        world,
        &environment,
        &Path::new(&script).display().to_string(),
    )
}

#[test]
fn a_session_of_version_4_reaches_an_sshd_through_sshnpd() {
    block_on(async {
        let world = world().await;
        let sshd = world.sshd().await;
        let command = launched(&world, &sshd);
        let _daemon = start(&world, command, &sshd).await;
        assert_eq!(session(&world).await, "hello from the device\n");

        // What our own client makes of a daemon without heartbeats.
        let (code, said) = failure(world.client(&["--stdio", "-q", "--timeout", "1"])).await;
        assert_eq!(code, 7, "{said}");
        assert!(
            said.contains("dev1@device did not answer within 1 s"),
            "{said}"
        );
    });
}
