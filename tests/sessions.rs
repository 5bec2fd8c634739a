//! Control sockets of bridges: what they tell, to whom, and what they do; daemons that find their sessions again.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::{
        fs::PermissionsExt,
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use async_std::task::block_on;
use miniserde::json;

use crate::{
    tunnel::{Tunnel, tunnel},
    world::{
        ALICE, DEVICE, Folder, NAME, NOPORTS, Process, World, children_of, descriptors, failure,
        output, signal, stdout, until,
    },
};

/// Gives back every byte at once.
fn echo() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for tcp in listener.incoming().flatten() {
            thread::spawn(move || {
                let (mut reader, mut writer) = (tcp.try_clone().unwrap(), tcp);
                let _ = std::io::copy(&mut reader, &mut writer);
            });
        }
    });
    port
}

/// Says so much, and hears it again.
fn says(tcp: &mut TcpStream, length: usize) {
    let said: Vec<u8> = (0..length).map(|at| (at * 31 % 251) as u8).collect();
    let mut writer = tcp.try_clone().unwrap();
    let mut heard = vec![0; length];
    thread::scope(|scope| {
        scope.spawn(|| writer.write_all(&said).unwrap());
        tcp.read_exact(&mut heard).unwrap();
    });
    assert!(heard == said);
}

/// A daemon in a process of its own that lets alice open any port here.
fn daemon(world: &World, more: &[&str]) -> Process {
    let who = ["daemon", "--as", DEVICE, "--manager", ALICE];
    let what = ["--device", NAME, "--permit-open", "*:*"];
    world.process(&[&who[..], &what, more].concat())
}

/// Somebody's sessions, as scripts see them.
async fn listed(world: &World) -> Vec<json::Object> {
    let said = stdout(world.noports(&["sessions", "--json"])).await;
    let lines = said.lines();
    lines.map(|line| json::from_str(line).unwrap()).collect()
}

fn text(row: &json::Object, name: &str) -> String {
    match row.get(name) {
        Some(json::Value::String(text)) => text.clone(),
        other => panic!("{name}: {other:?}"),
    }
}

fn number(row: &json::Object, name: &str) -> u64 {
    match row.get(name) {
        Some(json::Value::Number(json::Number::U64(number))) => *number,
        other => panic!("{name}: {other:?}"),
    }
}

fn ask(socket: &Path, request: &str) -> String {
    let mut asker = UnixStream::connect(socket).unwrap();
    asker.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    asker.read_to_string(&mut answer).unwrap();
    answer
}

/// How a bridge is, as soon as it has counted so many bytes each way.
fn tells(socket: &Path, bytes: u64) -> String {
    let carried = format!("\"up\":{bytes},\"down\":{bytes},");
    let mut state = String::new();
    let counted = || {
        state = ask(socket, "{\"do\":\"state\"}\n");
        state.contains(&carried)
    };
    block_on(until(&carried, counted));
    state
}

fn sockets_in(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    entries.map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn the_listing_shows_the_bytes_that_really_passed() {
    block_on(async {
        let mut world = World::start().await;
        world.rendezvous().await;
        let _daemon = daemon(&world, &[]);
        let port = echo();
        // Through the cipher, and spliced by the kernel.
        for more in [&[][..], &["--no-encrypt"]] {
            let mut tunnel = Tunnel::open(&world, port, more);
            let (mut one, mut other) = (tunnel.connect(), tunnel.connect());
            let mut sum = 0;
            for length in [1, 4096, 300_001] {
                says(&mut one, length);
                says(&mut other, length + 1);
                sum += 2 * length as u64 + 1;
                // Both ends may have heard a byte a moment before it is counted.
                let mut rows = listed(&world).await;
                while number(&rows[0], "up") < sum || number(&rows[0], "down") < sum {
                    rows = listed(&world).await;
                }
                let [row] = &rows[..] else {
                    panic!("{rows:?}");
                };
                assert_eq!((number(row, "up"), number(row, "down")), (sum, sum));
                assert_eq!(number(row, "connections"), 2);
                assert_eq!(text(row, "phase"), "paired");
                assert_eq!(
                    (text(row, "client"), text(row, "as")),
                    (ALICE.into(), DEVICE.into())
                );
                assert_eq!(text(row, "target"), format!("localhost:{port}"));
            }
            drop(one);
            let mut rows = Vec::new();
            while rows
                .first()
                .is_none_or(|row| number(row, "connections") != 1)
            {
                rows = listed(&world).await;
            }
            tunnel.process.kill();
            until("it is gone", || sockets_in(&world.bridges()).is_empty()).await;
            let carried = format!(" up={sum} down={sum}");
            // Records tell a client that was killed from one that has ended.
            let ended = if more.is_empty() {
                " ended=200 "
            } else {
                " ended=0 "
            };
            let is_told = |line: &str| line.contains(ended) && line.contains(&carried);
            until("its end is told", || {
                world.log("daemon").lines().any(is_told)
            })
            .await;
        }
    });
}

/// A daemon that has room for one session; that one, which has carried 1000 bytes each way, its connection and its id.
async fn only_session(world: &World, port: u16) -> (Process, Tunnel, TcpStream, String) {
    let daemon = daemon(world, &["--max-sessions", "1"]);
    let session = Tunnel::open(world, port, &[]);
    let mut tcp = session.connect();
    says(&mut tcp, 1000);
    let id = text(&listed(world).await[0], "session");
    (daemon, session, tcp, id)
}

#[test]
fn a_restarted_daemon_counts_a_session_again_hears_its_first_word_and_tells_its_end() {
    block_on(async {
        let mut world = World::start().await;
        world.rendezvous().await;
        let port = echo();
        let (mut first, _session, mut tcp, id) = only_session(&world, port).await;
        first.kill();
        says(&mut tcp, 1000);
        let second = daemon(&world, &["--max-sessions", "1"]);
        assert!(world.log("daemon").contains("sessions_found=1"));
        let forward = format!("0:localhost:{port}");
        let (code, why) = failure(tunnel(&world, &["-q", "--forward", &forward])).await;
        assert!(
            code != 0 && why.contains("too many sessions: 1 are yours, 1 at most"),
            "{why}"
        );
        // What its bridge has to say reaches the new daemon.
        says(&mut tcp, 500);
        stdout(world.noports(&["sessions", "end", &id[..8]])).await;
        let ended = format!("session={id} ended=unknown seconds=");
        until("its end is told", || world.log("daemon").contains(&ended)).await;
        let log = world.log("daemon");
        let line = log.lines().find(|line| line.contains(&ended)).unwrap();
        assert!(line.ends_with(" up=2500 down=2500"), "{line}");
        // Its place is free again, also for who asks the daemon that has found it.
        let next = Tunnel::open(&world, port, &[]);
        says(&mut next.connect(), 100);
        drop(second);
    });
}

/// It was not counted, then or later, and nobody heard of its end.
#[test]
fn a_bridge_that_is_stopped_while_its_daemon_starts_counts_at_once_and_is_followed_when_it_goes_on()
{
    block_on(async {
        let mut world = World::start().await;
        world.rendezvous().await;
        let port = echo();
        let (mut first, _session, mut tcp, id) = only_session(&world, port).await;
        let bridge = children_of(first.id())[0];
        first.kill();
        signal(bridge, "STOP");
        let _second = daemon(&world, &["--max-sessions", "1"]);
        let forward = format!("0:localhost:{port}");
        let (code, why) = failure(tunnel(&world, &["-q", "--forward", &forward])).await;
        let full = "too many sessions: 0 are yours, 1 at most, and 1 of all together";
        assert!(code != 0 && why.contains(full), "{why}");
        signal(bridge, "CONT");
        let known = || {
            world
                .log("daemon")
                .contains("counted=no_more client=unknown")
        };
        until("it has answered", known).await;
        let (code, why) = failure(tunnel(&world, &["-q", "--forward", &forward])).await;
        assert!(code != 0 && why.contains("1 are yours"), "{why}");
        says(&mut tcp, 500);
        stdout(world.noports(&["sessions", "end", &id[..8]])).await;
        let ended = format!("session={id} ended=unknown seconds=");
        until("its end is told", || world.log("daemon").contains(&ended)).await;
        let next = Tunnel::open(&world, port, &[]);
        says(&mut next.connect(), 100);
    });
}

#[test]
fn sockets_of_dead_bridges_are_removed_and_those_of_other_devices_are_left_alone() {
    block_on(async {
        let mut world = World::start().await;
        world.rendezvous().await;
        let port = echo();
        let mut first = daemon(&world, &[]);
        let _session = Tunnel::open(&world, port, &[]);
        let bridge = children_of(first.id())[0];
        first.kill();
        signal(bridge, "KILL");
        until("the bridge is dead", || descriptors(bridge) == 0).await;
        let left = world.bridges().join(format!("{bridge}.sock"));
        assert!(left.exists());
        // One that does not answer, and one who answers nonsense.
        let _silent = UnixListener::bind(world.bridges().join("1.sock")).unwrap();
        let mad = UnixListener::bind(world.bridges().join("2.sock")).unwrap();
        thread::spawn(move || {
            for mut asker in mad.incoming().flatten() {
                let _ = asker.write_all(b"{\"state\":{\"pid\":7}}\n");
            }
        });
        fs::write(world.bridges().join("3.sock"), "a file").unwrap();
        let _second = daemon(&world, &[]);
        assert!(!left.exists());
        assert_eq!(sockets_in(&world.bridges()).len(), 3);
        // The silent one may be a session, for all that can be known.
        let log = world.log("daemon");
        assert!(log.contains("sessions_found=1"), "{log}");
        assert_eq!(
            log.matches("counted=yes client=unknown").count(),
            1,
            "{log}"
        );
        assert!(listed(&world).await.is_empty());
    });
}

#[test]
fn ending_a_session_delivers_what_was_read_and_ends_it_at_the_other_end() {
    block_on(async {
        let mut world = World::start().await;
        world.rendezvous().await;
        let _daemon = daemon(&world, &[]);
        let port = echo();
        for now in [false, true] {
            let mut tunnel = Tunnel::open(&world, port, &[]);
            let mut tcp = tunnel.connect();
            says(&mut tcp, 70_000);
            let id = text(&listed(&world).await[0], "session");
            let words = ["sessions", "end", &id, "--now"];
            let said = stdout(world.noports(&words[..if now { 4 } else { 3 }])).await;
            assert_eq!(said, format!("ended {id}\n"));
            let end = tcp.read(&mut [0; 10]);
            if now {
                assert!(end.is_err(), "{end:?}");
            } else {
                assert_eq!(end.unwrap(), 0);
            }
            assert_eq!(tunnel.ended(), 9);
            assert!(listed(&world).await.is_empty());
        }
        for (id, why) in [
            ("nosuchid", "there is no session"),
            ("../../x", "there is no session"),
            ("0", "there is no session"),
        ] {
            let (code, said) = failure(world.noports(&["sessions", "end", id])).await;
            assert!(code == 5 && said.contains(why), "{id}: {code} {said}");
        }
    });
}

#[test]
fn why_a_target_cannot_be_had_reaches_the_daemons_log_and_the_listing() {
    block_on(async {
        let mut world = World::start().await;
        world.rendezvous().await;
        let _daemon = daemon(&world, &[]);
        let nobody = {
            let gone = TcpListener::bind(("127.0.0.1", 0)).unwrap();
            gone.local_addr().unwrap().port()
        };
        let resets = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let resetting = resets.local_addr().unwrap().port();
        thread::spawn(move || {
            for mut tcp in resets.incoming().flatten() {
                let _ = tcp.read(&mut [0; 1]);
                let end = socket2::SockRef::from(&tcp).set_linger(Some(Duration::ZERO));
                end.unwrap();
            }
        });
        for (target, why) in [
            (format!("localhost:{nobody}"), "Connection refused"),
            (
                "nosuch.invalid:80".to_owned(),
                "cannot resolve nosuch.invalid",
            ),
            (format!("localhost:{resetting}"), "Connection reset"),
        ] {
            let forward = format!("0:{target}");
            let mut command = tunnel(&world, &["--json", "-q", "--forward", &forward]);
            command.stdout(Stdio::piped());
            let tunnel = Tunnel::of(command);
            for _ in 0..3 {
                let mut tcp = tunnel.connect();
                let _ = tcp.write_all(b"xx");
                let _ = tcp.read(&mut [0; 9]);
            }
            let told = format!("service={target} times=1 reason=");
            let is_told = |log: String| {
                let mut lines = log.lines().filter(|line| line.contains(&told));
                // The other two are counted, and not told again for a minute.
                lines.next().is_some_and(|line| line.contains(why)) && lines.next().is_none()
            };
            until(&told, || is_told(world.log("daemon"))).await;
            let mut row = listed(&world).await.remove(0);
            while number(&row, "failures") < 3 {
                row = listed(&world).await.remove(0);
            }
            assert!(text(&row, "reason").contains(why), "{row:?}");
            drop(tunnel);
            until("it is gone", || sockets_in(&world.bridges()).is_empty()).await;
        }
    });
}

/// A bridge as somebody types it, between a service and a rendezvous that are both played here.
struct Alone {
    bridge: Process,
    near: TcpStream,
    far: TcpStream,
}

impl Alone {
    fn start(runtime: &Path, words: &[&str]) -> Self {
        let (service, rendezvous) = (listener(), listener());
        let port = |of: &TcpListener| of.local_addr().unwrap().port().to_string();
        let mut command = Command::new(NOPORTS);
        command
            .args([
                "bridge",
                "--host",
                "127.0.0.1",
                "--port",
                &port(&rendezvous),
            ])
            .args(["--local-host", "127.0.0.1", "--local-port", &port(&service)])
            .args(words)
            .env("NOPORTS_RUNTIME", runtime)
            .env("NOPORTS_DEBUG", "1")
            .env_remove("NOPORTS_LOG")
            .stdin(Stdio::null())
            .stderr(Stdio::piped());
        let bridge = Process(command.spawn().unwrap());
        let (near, far) = (service.accept().unwrap().0, rendezvous.accept().unwrap().0);
        for tcp in [&near, &far] {
            tcp.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        }
        Self { bridge, near, far }
    }

    /// So many bytes, from one end to the other and back.
    fn carries(&mut self, length: usize) {
        for there in [true, false] {
            let (from, to) = if there {
                (&mut self.near, &mut self.far)
            } else {
                (&mut self.far, &mut self.near)
            };
            let said = vec![7; length];
            let mut heard = vec![0; length];
            thread::scope(|scope| {
                scope.spawn(|| from.write_all(&said).unwrap());
                to.read_exact(&mut heard).unwrap();
            });
            assert!(said == heard);
        }
    }

    fn socket(&self, runtime: &Path) -> PathBuf {
        runtime.join(format!("bridges/{}.sock", self.bridge.id()))
    }

    /// Lets go of both ends; what it said on stderr.
    fn said(mut self) -> String {
        drop((self.near, self.far));
        let mut said = String::new();
        let mut stderr = self.bridge.0.stderr.take().unwrap();
        stderr.read_to_string(&mut said).unwrap();
        said
    }
}

fn listener() -> TcpListener {
    TcpListener::bind(("127.0.0.1", 0)).unwrap()
}

#[test]
fn a_bridge_on_its_own_tells_what_it_carries_and_works_where_there_can_be_no_socket() {
    let folder = Folder::new();
    let mut alone = Alone::start(&folder.0, &[]);
    let socket = alone.socket(&folder.0);
    block_on(until("its socket is there", || socket.exists()));
    alone.carries(200_000);
    assert!(tells(&socket, 200_000).contains(r#""session":null"#));
    assert_eq!(alone.said(), "rv started successfully\n");
    assert!(!socket.exists());

    let file = folder.path("file");
    fs::write(&file, "").unwrap();
    let open = folder.path("open");
    fs::create_dir_all(open.join("bridges")).unwrap();
    fs::set_permissions(open.join("bridges"), fs::Permissions::from_mode(0o777)).unwrap();
    for (runtime, why) in [
        (PathBuf::from("/proc/nowhere"), "control=none"),
        (file, "control=none"),
        (open, "is open to others"),
        (folder.path(&"x".repeat(200)), ""),
    ] {
        let mut alone = Alone::start(&runtime, &["-v", "-v"]);
        alone.carries(1000);
        let said = alone.said();
        assert!(said.contains(why), "{}: {said}", runtime.display());
        assert!(said.contains("rv started successfully\n"), "{said}");
    }
}

#[test]
fn a_path_longer_than_a_sockets_name_is_gone_all_the_same() {
    let folder = Folder::new();
    let runtime = folder.path(&"x".repeat(200));
    let alone = Alone::start(&runtime, &[]);
    let socket = alone.socket(&runtime);
    block_on(until("its socket is there", || socket.exists()));
    let mut sessions = Command::new(NOPORTS);
    let words = ["sessions", "--json"];
    sessions.args(words).env("NOPORTS_RUNTIME", &runtime);
    let said = block_on(stdout(sessions));
    assert!(
        said.contains(&format!(r#""pid":{},"#, alone.bridge.id())),
        "{said}"
    );
}

#[test]
fn nobody_else_can_ask_a_bridge_even_where_the_files_let_them() {
    let folder = Folder::new();
    let alone = Alone::start(&folder.0, &[]);
    let socket = alone.socket(&folder.0);
    block_on(until("its socket is there", || socket.exists()));
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&socket), 0o600);
    assert_eq!(mode(socket.parent().unwrap()), 0o700);
    if !rustix::process::geteuid().is_root() {
        return;
    }
    // As if somebody had opened all of it.
    let program = folder.path("noports");
    fs::copy(NOPORTS, &program).unwrap();
    for (path, mode) in [
        (folder.0.as_path(), 0o755),
        (socket.parent().unwrap(), 0o755),
        (&socket, 0o666),
    ] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    for (uid, want) in [("65534", 0), ("0", 1)] {
        let mut other = Command::new("setpriv");
        other
            .args(["--reuid", uid, "--clear-groups"])
            .arg(&program)
            .args(["sessions", "--json"])
            .env("NOPORTS_RUNTIME", &folder.0);
        let said = block_on(output(other));
        let rows = String::from_utf8(said.stdout).unwrap().lines().count();
        let stderr = String::from_utf8_lossy(&said.stderr).into_owned();
        assert_eq!(rows, want, "{uid}: {stderr}");
        assert_eq!(stderr.contains("reason="), want == 0, "{uid}: {stderr}");
    }
}

#[test]
fn hostile_askers_hold_neither_the_session_nor_others_up() {
    let folder = Folder::new();
    let mut alone = Alone::start(&folder.0, &[]);
    let socket = alone.socket(&folder.0);
    block_on(until("its socket is there", || socket.exists()));
    let connect = || {
        let asker = UnixStream::connect(&socket).unwrap();
        asker.set_nonblocking(true).unwrap();
        asker
    };
    // Silence, one byte at a time, a line without an end, nonsense; some leave at once.
    let mut held = Vec::new();
    for at in 0..1000 {
        let mut asker = connect();
        match at % 5 {
            0 => {}
            1 => drop(asker.write(b"{")),
            2 => drop(asker.write(&[b'x'; 9000])),
            3 => drop(
                asker.write(b"\xff{}\n{\"do\":\"fly\"}\n{\"do\":\"log\",\"level\":\"loud\"}\n"),
            ),
            _ => continue,
        }
        // So that this process needs no more descriptors than it has.
        if held.len() < 200 {
            held.push(asker);
        }
        if at % 100 == 0 {
            alone.carries(100_000);
        }
    }
    alone.carries(1_000_000);
    tells(&socket, 2_000_000);
    for bad in ["\n", "{}\n", "{\"do\":\"log\"}\n", "[]\n"] {
        assert!(
            ask(&socket, bad).contains("\"error\":\"this bridge does not"),
            "{bad}"
        );
    }
    drop(held);
}

#[test]
fn a_log_level_can_be_changed_and_its_lines_reach_the_daemons_log() {
    block_on(async {
        let mut world = World::start().await;
        world.rendezvous().await;
        let _daemon = daemon(&world, &[]);
        let session = Tunnel::open(&world, echo(), &["--timeout", "1h"]);
        says(&mut session.connect(), 10);
        let id = text(&listed(&world).await[0], "session");
        let (code, why) = failure(world.noports(&["sessions", "log", &id, "loud"])).await;
        assert!(code == 2 && why.contains("loud"), "{why}");
        assert!(!world.log("daemon").contains(" bridge="));
        stdout(world.noports(&["sessions", "log", &id, "debug"])).await;
        stdout(world.noports(&["sessions", "end", &id])).await;
        let line = format!("session={id} bridge=");
        until("a line of it", || world.log("daemon").contains(&line)).await;
    });
}
