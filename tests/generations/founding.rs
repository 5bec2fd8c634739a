//! The two "under the hood" documents that this project began with, arrow by arrow.
//!
//! Version 4.0.0-rc.2:
//!
//! | arrow | test |
//! | --- | --- |
//! | client → rendezvous: two ports, for this session | [`rc2_1_the_client_asks_for_two_ports_by_the_sessions_id`] |
//! | rendezvous: opens both, one socket each, joins them; → client: host and ports | [`rc2_2_the_rendezvous_opens_both_ports_for_one_socket_each_and_joins_them`] |
//! | client → daemon: session, host and port 1 | [`rc2_3_the_client_tells_the_daemon_the_session_the_host_and_port_1`] |
//! | daemon: port 1 ⇄ its sshd; → client: `connected` | [`rc2_4_the_daemon_joins_port_1_with_its_sshd_and_answers`] |
//! | client: the ssh that forwards a local port | [`rc2_5_the_tunnel_is_the_documents_own_command`] |
//! | client: shows `ssh -p …`, and exits; the data plane needs neither program | [`rc2_6_the_client_shows_a_command_and_exits_and_the_data_plane_needs_nobody`] |
//! | requests of others are ignored | `refuse::an_unknown_caller_meets_silence_and_a_line_in_the_log`; by the atServer itself: `access` |
//! | the authorisation controller is a process of its own | `policy` |
//!
//! Version 3.5 (never released as such: what shipped under that number was 4.0):
//!
//! | arrow | test |
//! | --- | --- |
//! | client ⇄ rendezvous: a host and port for this session | as above |
//! | daemon → rendezvous: a socket, and the session's id on it | [`v35_3_the_daemon_writes_the_sessions_id_on_its_socket`] |
//! | daemon: that socket ⇄ its sshd; → client | the same |
//! | client: shows `ssh -p $port $user@$host`, and exits | [`v35_5_ssh_to_the_rendezvous_itself_is_ssh_to_the_device`] |

use std::{
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    time::Duration,
};

use async_std::task::block_on;
use noports::{
    classic::{
        generation::Profile,
        tunnel_ssh::{Direction, LASTS, Tunnel},
    },
    np::{
        envelope::Envelope,
        ports::{self, Ports},
        request,
        session::{Generation, Terms},
    },
    program::daemon::DaemonOptions,
    sys::{ssh::shell_line, sshd::Sshd, user},
};

use super::daemon::{Hand, device, meet};
use crate::world::{
    ALICE, DEVICE, NAME, RENDEZVOUS, World, children_of, known_pair,
    ports::{Asker, joined, said},
    stdout,
};

/// A rendezvous, a real sshd, and a daemon of the document's time in front of it.
async fn of_its_time() -> (World, Sshd) {
    let mut world = World::start().await;
    world.rendezvous().await;
    let sshd = world.sshd().await;
    let rc2 =
        |policy: &mut DaemonOptions| policy.habits = Profile::named("v4.0-rc.2").unwrap().daemon;
    world.daemon_with(sshd.port, rc2).await;
    (world, sshd)
}

fn rc2() -> Terms {
    Terms::of(Generation::V4Rc2)
}

/// What an ssh server says first.
fn banner(mut socket: &TcpStream) -> String {
    let mut banner = [0; 8];
    socket.read_exact(&mut banner).unwrap();
    String::from_utf8(banner.to_vec()).unwrap()
}

#[test]
fn rc2_1_the_client_asks_for_two_ports_by_the_sessions_id() {
    block_on(async {
        let mut world = World::start().await;
        world.rendezvous().await;
        let [to, device] = [RENDEZVOUS, NAME];
        let session = "6f1c1c1e-6d0a-4a53-9d0a-0d4f7a2b9c11".parse().unwrap();
        let asked = ports::bare_request(&to.parse().unwrap(), &device.parse().unwrap(), session);
        assert_eq!(asked.entity, format!("{NAME}.sshrvd"));
        assert_eq!(asked.text, session.to_string());

        let (session, answer) = Asker::start(&world).await.ask_bare().await;
        let ports =
            Ports::parse(&answer).unwrap_or_else(|why| panic!("{session}: {answer}: {why}"));
        assert_eq!(ports.host, "127.0.0.1");
        assert_ne!(ports.client, ports.daemon);
    });
}

#[test]
fn rc2_2_the_rendezvous_opens_both_ports_for_one_socket_each_and_joins_them() {
    block_on(async {
        let mut world = World::start().await;
        world.rendezvous().await;
        let (_, answer) = Asker::start(&world).await.ask_bare().await;
        let ports = Ports::parse(&answer).unwrap();
        let (one, other) = (said(ports.client, ""), said(ports.daemon, ""));
        joined("port 1 and port 2", &one, &other);
        for port in [ports.client, ports.daemon] {
            // Refused, or closed without a word: not let in.
            let heard = TcpStream::connect(("127.0.0.1", port)).and_then(|mut third| {
                third.set_read_timeout(Some(Duration::from_secs(20)))?;
                third.read(&mut [0])
            });
            assert!(!matches!(heard, Ok(1..)), "{port}: {heard:?}");
        }
        joined("still", &one, &other);
    });
}

#[test]
fn rc2_3_the_client_tells_the_daemon_the_session_the_host_and_port_1() {
    block_on(async {
        let mut world = World::start().await;
        world.rendezvous().await;
        let mut alice = Hand::of_alice(&world).await;
        let (session, granted) = alice.granted(rc2()).await;
        let asked = granted
            .request(None, &known_pair("@client_example"))
            .unwrap();
        assert_eq!(asked.entity, format!("ssh_request.{NAME}.sshnp"));
        assert_eq!(asked.to.as_str(), DEVICE);
        let envelope = Envelope::parse(&asked.text).unwrap();
        let payload = envelope
            .verify(known_pair("@client_example").public())
            .unwrap();
        let front =
            format!(r#"{{"direct":true,"sessionId":"{session}","host":"127.0.0.1","port":"#);
        let port = payload
            .strip_prefix(&front)
            .and_then(|rest| rest.strip_suffix('}'));
        let port: u16 = port.unwrap_or_else(|| panic!("{payload}")).parse().unwrap();
        assert_ne!(port, 0);
    });
}

#[test]
fn rc2_4_the_daemon_joins_port_1_with_its_sshd_and_answers() {
    block_on(async {
        let (world, _sshd) = of_its_time().await;
        let mut alice = Hand::of_alice(&world).await;
        let (ready, answer) = alice.session(rc2()).await;
        assert_eq!(answer, "connected");
        assert_eq!(banner(&meet(&ready)), "SSH-2.0-", "sshd, on port 2");
    });
}

#[test]
fn rc2_5_the_tunnel_is_the_documents_own_command() {
    let words = Tunnel {
        user: &"gary".parse().unwrap(),
        host: "rv.example",
        port: 40189,
        identity: Path::new("/Users/gary/.ssh/noports"),
        direction: Direction::Local {
            listen: 58358,
            sshd: 22,
        },
        alias: None,
        no_input: false,
        options: &[],
        lasts: LASTS,
    };
    // The document has -f among its first words; ssh does not mind where it stands.
    assert_eq!(
        shell_line(&words.arguments()),
        "gary@rv.example -p 40189 -i /Users/gary/.ssh/noports -L 58358:localhost:22 \
         -o LogLevel=VERBOSE -t -t -o StrictHostKeyChecking=accept-new -o IdentitiesOnly=yes \
         -o BatchMode=yes -o ExitOnForwardFailure=yes -f sleep 15"
    );
}

#[test]
fn rc2_6_the_client_shows_a_command_and_exits_and_the_data_plane_needs_nobody() {
    block_on(async {
        let mut world = World::start().await;
        world.rendezvous().await;
        let sshd = world.sshd().await;
        let port = sshd.port.to_string();
        let base = [
            "daemon",
            "--as",
            DEVICE,
            "--manager",
            ALICE,
            "--device",
            NAME,
            "--sshd-port",
            &port,
        ];
        let mut command = world.noports(&[&base[..], &["--json"]].concat());
        command
            .env("NOPORTS_GENERATION", "v4.0-rc.2")
            .env("HOME", &world.dir.0);
        let mut daemon = world.ready("daemon", command);

        let (user, identity) = (user::name().unwrap(), sshd.identity.display().to_string());
        // ssh's own files are this user's: not for a test.
        let known = format!("UserKnownHostsFile={}", world.dir.text("known"));
        let first = "StrictHostKeyChecking=accept-new";
        let mine = [
            "-F",
            "none",
            "-o",
            &known,
            "-o",
            first,
            "-o",
            "BatchMode=yes",
        ];
        let mut client = world.client(&["--print", "--user", &user, "--identity", &identity]);
        client.args(["--remote-sshd-port", &port, "--"]).args(mine);
        client.env("NOPORTS_GENERATION", "v4.0-rc.2");
        client
            .env("HOME", &world.dir.0)
            .env_remove("XDG_RUNTIME_DIR");
        let shown = stdout(client).await;
        let words: Vec<&str> = shown.split_whitespace().collect();
        assert_eq!(words[..2], ["ssh", "-p"], "{shown}");
        let login = format!("-l {user} {}", world.alias());
        assert!(shown.contains(&login), "{shown}");

        // One process of the daemon's carries it, and needs its parent no more.
        assert_eq!(children_of(daemon.id()).len(), 1);
        daemon.kill();
        let mut ssh = world.program("ssh");
        ssh.args(&words[1..]).arg("echo reached");
        assert_eq!(stdout(ssh).await, "reached\n");
    });
}

#[test]
fn v35_3_the_daemon_writes_the_sessions_id_on_its_socket() {
    block_on(async {
        let mut world = World::start().await;
        world.rendezvous().await;
        let sshd = world.sshd().await;
        let (session, answer) = Asker::start(&world).await.ask_bare().await;
        let ports = Ports::parse(&answer).unwrap();
        // The document's daemon, by hand: its socket, the id, then its sshd's bytes.
        let mut daemon = said(ports.client, &session.to_string());
        let mut service = TcpStream::connect(("127.0.0.1", sshd.port)).unwrap();
        let client = said(ports.daemon, "SSH-2.0-client\r\n");
        let mut first = [0; 255];
        let length = service.read(&mut first).unwrap();
        daemon.write_all(&first[..length]).unwrap();
        assert_eq!(banner(&client), "SSH-2.0-", "without the id before it");
    });
}

#[test]
fn v35_5_ssh_to_the_rendezvous_itself_is_ssh_to_the_device() {
    block_on(async {
        let (world, sshd) = of_its_time().await;
        let mut alice = Hand::of_alice(&world).await;
        let (session, granted) = alice.granted(rc2()).await;
        let me = known_pair("@client_example");
        let asked = granted.request(None, &me).unwrap();
        alice.send(asked.clone()).await;
        let answer = alice
            .hear(&request::answer_entity(session, &device()))
            .await;
        let signer = known_pair("@device_example").public().clone();
        let ready = granted
            .accepted((&asked.text, &answer), &signer, &mut None, &me)
            .unwrap();
        let mut ssh = world.program("ssh");
        let known = format!("UserKnownHostsFile={}", world.dir.text("known"));
        ssh.args(["-F", "none", "-o", "BatchMode=yes", "-o", &known]);
        ssh.args(["-o", "StrictHostKeyChecking=accept-new", "-i"])
            .arg(&sshd.identity);
        ssh.args(["-p", &ready.far.rendezvous.port.to_string()]);
        ssh.args([
            &format!("{}@{}", user::name().unwrap(), ready.far.rendezvous.host),
            "echo the device",
        ]);
        assert_eq!(stdout(ssh).await, "the device\n");
    });
}
