//! Situations of the field: targets that fail, portals at the start, two daemons of one name, old clients of others.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use async_std::task::{self, block_on};
use futures_lite::{AsyncReadExt, AsyncWriteExt, future};
use noports::{net::tls::Acceptor, pipe::join::reset};

use crate::{
    tunnel::Tunnel,
    world::{
        ALICE, DEVICE, NAME, Process, RENDEZVOUS, World, answer_at_the_end, output, stdout, until,
    },
};

/// A service that resets whoever comes.
fn resets() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for mut tcp in listener.incoming().flatten() {
            let _ = tcp.read(&mut [0; 1]);
            reset(&tcp);
        }
    });
    port
}

fn closed_port() -> u16 {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    free.local_addr().unwrap().port()
}

#[test]
fn a_target_that_fails_is_told_at_the_client_and_ends_with_12_where_nothing_else_came() {
    block_on(async {
        let mut world = World::start().await;
        world.rendezvous().await;
        let who = ["daemon", "--as", DEVICE, "--manager", ALICE];
        let _daemon =
            world.process(&[&who[..], &["--device", NAME, "--permit-open", "*:*"]].concat());
        let closed = closed_port();
        let targets = [
            (format!("localhost:{closed}"), "refused"),
            (format!("127.0.0.1:{closed}"), "refused"),
            (format!("[::1]:{closed}"), ""),
            ("no-such-name.invalid:80".to_owned(), "no-such-name.invalid"),
            (format!("localhost:{}", resets()), "reset"),
        ];
        let open = |(target, why)| {
            let words = ["--idle-timeout", "1s"];
            let tunnel = Tunnel::open_at(&world, DEVICE, &format!("0:{target}"), &words);
            // At once: it waits no longer than that for somebody.
            let mut visitor = tunnel.connect();
            let _ = visitor.write_all(b"x");
            (tunnel, visitor, target, why)
        };
        let opened: Vec<_> = targets.into_iter().map(open).collect();
        let mut tunnels = Vec::new();
        for (tunnel, mut visitor, target, why) in opened {
            let _ = visitor.read_to_end(&mut Vec::new());
            tunnels.push((tunnel, target, why));
        }
        for (tunnel, target, why) in &mut tunnels {
            let line = tunnel.line();
            let want =
                format!(r#"{{"event":"target_failed","target":"{target}","times":1,"error":""#);
            assert!(line.starts_with(&want) && line.contains(*why), "{line}");
            assert!(line.ends_with(",\"code\":12}\n"), "{line}");
            assert_eq!(tunnel.ended(), 12, "{target}");
            let mut said = String::new();
            let mut stderr = tunnel.process.0.stderr.take().unwrap();
            stderr.read_to_string(&mut said).unwrap();
            let told = format!("{target} failed at the device: ");
            assert!(said.starts_with(&told), "{said}");
            assert!(
                said.contains(&format!("the device cannot reach {target}: ")),
                "{said}"
            );
        }
        // In the background nobody reads stderr: the bridge's control socket tells.
        let forward = format!("0:localhost:{closed}");
        let words = [
            "tunnel", "--as", ALICE, "--to", DEVICE, "--device", NAME, "-q", "--print",
        ];
        let more = ["--forward", &forward, "--idle-timeout", "10s"];
        let port = stdout(world.noports(&[&words[..], &more].concat())).await;
        let port: u16 = port.trim().parse().unwrap();
        let mut visitor = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        let _ = visitor.read_to_end(&mut Vec::new());
        loop {
            let listed = stdout(world.noports(&["sessions", "--json"])).await;
            let ours = listed
                .lines()
                .find(|line| line.contains(r#""side":"client""#));
            let ours = ours.unwrap_or_else(|| panic!("it has ended: {listed}"));
            if ours.contains(r#""failures":1"#) {
                assert!(ours.contains("refused"), "{ours}");
                break;
            }
        }
    });
}

/// Stands before the atDirectory, and answers with a certificate of its own until it is open.
async fn portal(world: &World) -> (String, Arc<AtomicBool>) {
    use rcgen::{CertificateParams, KeyPair};
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(["localhost".to_owned()]).unwrap();
    let leaf = leaf.self_signed(&key).unwrap();
    let acceptor = Acceptor::from_pem(&leaf.pem(), &key.serialize_pem()).unwrap();
    let listener = async_std::net::TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap();
    let here = format!("localhost:{}", listener.local_addr().unwrap().port());
    let (open, root) = (Arc::new(AtomicBool::new(false)), world.root());
    let is_open = open.clone();
    task::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            if !is_open.load(Relaxed) {
                let _ = acceptor.accept(socket, Duration::from_secs(5)).await;
                continue;
            }
            let mut there = async_std::net::TcpStream::connect(&root).await.unwrap();
            task::spawn(async move {
                let (mut up, mut down) = ([0; 4096], [0; 4096]);
                loop {
                    let from_here = async { (true, socket.clone().read(&mut up).await) };
                    let from_there = async { (false, there.clone().read(&mut down).await) };
                    let (is_up, got) = future::or(from_here, from_there).await;
                    let got = got.unwrap_or(0);
                    let sent = match is_up {
                        true => there.write_all(&up[..got]).await,
                        false => socket.write_all(&down[..got]).await,
                    };
                    if got == 0 || sent.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (here, open)
}

#[test]
fn a_portal_at_the_start_ends_no_service_and_no_kept_port() {
    block_on(async {
        let mut world = World::start().await;
        let (here, open) = portal(&world).await;
        let started = |name: &str, words: &[&str]| {
            let log = fs::File::create(world.dir.path(&format!("{name}.log"))).unwrap();
            let mut command = world.noports(&[&[name][..], words, &["--json"]].concat());
            command.env("NOPORTS_ROOT", &here);
            command.stdout(Stdio::piped()).stderr(log);
            Process(command.spawn().unwrap())
        };
        let echo = answer_at_the_end().await;
        let permit = format!("localhost:{echo}");
        let what = ["--device", NAME, "--permit-open", &permit, "--allow-inner"];
        let mut services = [
            (
                "daemon",
                started(
                    "daemon",
                    &[&["--as", DEVICE, "--manager", ALICE][..], &what].concat(),
                ),
            ),
            (
                "rendezvous",
                started("rendezvous", &["--as", RENDEZVOUS, "--host", "127.0.0.1"]),
            ),
        ];
        let peer = ["tunnel", "--as", ALICE, "--to", DEVICE, "--device", NAME];
        let forward = format!("0:localhost:{echo}");
        let kept = ["--json", "-q", "--keep-alive", "--forward", &forward];
        let mut command = world.noports(&[&peer[..], &kept].concat());
        command.env("NOPORTS_ROOT", &here);
        let mut tunnel = Tunnel::of(command);
        for _ in 0..2 {
            let gone = tunnel.connect().read(&mut [0; 1]);
            assert!(
                gone.is_err() || matches!(gone, Ok(0)),
                "the portal carries nothing"
            );
        }
        for (name, _) in &services {
            until("it has tried, and said why not", || {
                let log = world.log(name);
                log.contains("not trusted here")
                    && log.contains(" again_in=")
                    && log.contains("--ca FILE")
            })
            .await;
        }
        open.store(true, Relaxed);
        for (name, service) in &mut services {
            let mut line = String::new();
            let mut said = BufReader::new(service.0.stdout.take().unwrap());
            said.read_line(&mut line).unwrap();
            assert!(
                line.contains(r#""event":"ready""#),
                "{name}: {}",
                world.log(name)
            );
        }
        let mut visitor = tunnel.connect();
        visitor.write_all(b"behind the portal").unwrap();
        visitor.shutdown(std::net::Shutdown::Write).unwrap();
        let mut heard = String::new();
        visitor.read_to_string(&mut heard).unwrap();
        assert_eq!(heard, "behind the portal");
        tunnel.process.kill();
        world.end_services().await;
    });
}

#[test]
fn of_two_daemons_of_one_name_one_acts_and_everybody_is_told_unless_it_is_intended() {
    block_on(async {
        let mut world = World::start().await;
        world.rendezvous().await;
        let echo = answer_at_the_end().await.to_string();
        for shared in [false, true] {
            let flags: &[&str] = if shared { &["--shared-name"] } else { &[] };
            let base = [
                "daemon",
                "--as",
                DEVICE,
                "--manager",
                ALICE,
                "--device",
                NAME,
            ];
            let words = [&base[..], &["--sshd-port", &echo], flags].concat();
            let log_before = world.log("daemon").len();
            let log = || world.log("daemon")[log_before..].to_owned();
            // As on cloned cards each has a memory of its own.
            let daemon = |memory: &str| {
                world.process_with(&words, &[("NOPORTS_MEMORY", &world.dir.text(memory))])
            };
            let both = [daemon("memory-1"), daemon("memory-2")];
            let devices = ["devices", "--as", ALICE, "--to", DEVICE, "--json", "-q"];
            let mut listed = output(world.noports(&devices)).await;
            until("they have heard of each other", || {
                shared || log().matches(" other_run=").count() == 2
            })
            .await;
            // One of them may answer too late, and is listed by what it has published.
            let instances = |listed: &std::process::Output| {
                let rows = String::from_utf8_lossy(&listed.stdout);
                rows.matches(r#""instance":""#).count()
            };
            while instances(&listed) < 2 {
                listed = output(world.noports(&devices)).await;
            }
            let rows = String::from_utf8(listed.stdout).unwrap();
            assert_eq!(rows.matches(r#""state":"active""#).count(), 2, "{rows}");
            assert_eq!(rows.matches(r#""instance":""#).count(), 2, "{rows}");
            let warned = String::from_utf8(listed.stderr).unwrap();
            let two = format!("two daemons answer as {NAME}{DEVICE}");
            assert_eq!(warned.contains(&two), !shared, "{warned}");
            let mut told = 0;
            for _ in 0..3 {
                let session = output(world.client(&["--stdio"])).await;
                let said = String::from_utf8(session.stderr).unwrap();
                assert!(session.status.success(), "{said}");
                told += said.matches(&two).count();
            }
            assert_eq!(told > 0, !shared, "{told}");
            until("each session is one daemon's, and the other's no", || {
                let log = log();
                let acted = log.matches(" open=localhost:").count();
                acted == 3 && log.matches("reason=another_daemons").count() == 3
            })
            .await;
            assert_eq!(
                log().contains("another daemon of this atSign"),
                !shared,
                "{}",
                log()
            );
            drop(both);
        }
    });
}

#[test]
fn a_client_that_may_insist_on_a_temporary_key_is_told_of_with_the_flag() {
    block_on(async {
        let mut world = World::start().await;
        world.rendezvous().await;
        let echo = answer_at_the_end().await;
        let _daemon = world.daemon_process(echo);
        let hint = "temporary_key=no hint=\"sshnp 5.0 to 5.2 cannot do without one: --temporary-keys always\"";
        for (generation, insists) in [("", false), ("v5.0", true), ("v5.1", true), ("v5.3", true)] {
            let before = world.log("daemon").len();
            let mut client = world.client(&["--stdio", "-q"]);
            client.env("NOPORTS_GENERATION", generation);
            output(client).await;
            let log = || world.log("daemon")[before..].to_owned();
            until("the session is told of", || {
                log().contains("temporary_key=")
            })
            .await;
            assert_eq!(log().contains(hint), insists, "{generation}: {}", log());
        }
    });
}
