//! Any TCP port: many connections over one session, what ends it, what it leaves behind; and listing devices.

use std::{
    fs,
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    os::unix::fs::symlink,
    process::{ChildStdout, Command, Stdio},
    thread,
    time::Duration,
};

use async_std::task::{self, block_on};
use noports::{
    at::client::{Client, Event, Outgoing, Subscription},
    np::{
        Message,
        control::{ControlLine, ControlLines, Keying},
        ping::{self, Heartbeat},
        request::{self, DeviceKeys, Encryption, TunnelRequest},
    },
    pipe::{
        cipher::{Cipher, SessionKeys, Side, StreamKey},
        frame::FIRST_CREDIT,
    },
    sys::sockets::listening_ports,
};

use crate::world::{
    ALICE, DEVICE, NAME, NOPORTS, Process, World, answer_at_the_end, children_of, descriptors,
    failure, output, signal, sockets, stdout, until,
};

/// `noports tunnel` as alice, to the device.
pub fn tunnel(world: &World, words: &[&str]) -> Command {
    tunnel_to(world, DEVICE, words)
}

fn tunnel_to(world: &World, to: &str, words: &[&str]) -> Command {
    let base = ["tunnel", "--as", ALICE, "--to", to, "--device", NAME];
    world.noports(&[&base[..], words].concat())
}

/// A tunnel that stands.
pub struct Tunnel {
    pub process: Process,
    said: BufReader<ChildStdout>,
    pub port: u16,
}

impl Tunnel {
    /// To this port of the device; returns when it listens.
    pub fn open(world: &World, port: u16, words: &[&str]) -> Self {
        Self::open_to(world, DEVICE, port, words)
    }

    fn open_to(world: &World, to: &str, port: u16, words: &[&str]) -> Self {
        Self::open_at(world, to, &format!("0:localhost:{port}"), words)
    }

    pub fn open_at(world: &World, to: &str, forward: &str, words: &[&str]) -> Self {
        let words = [&["--json", "-q", "--forward", forward], words].concat();
        Self::of(tunnel_to(world, to, &words))
    }

    /// Started so, with `--json`.
    pub fn of(mut command: Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = Process(command.spawn().unwrap());
        let said = BufReader::new(process.0.stdout.take().unwrap());
        let mut tunnel = Self {
            process,
            said,
            port: 0,
        };
        let line = tunnel.line();
        if !line.contains(r#""event":"listening""#) {
            let mut why = String::new();
            let mut stderr = tunnel.process.0.stderr.take().unwrap();
            stderr.read_to_string(&mut why).unwrap();
            panic!("{line:?}: {why}");
        }
        tunnel.port = port_of(&line);
        tunnel
    }

    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.said.read_line(&mut line).unwrap();
        line
    }

    pub fn connect(&self) -> TcpStream {
        connect(self.port)
    }

    /// Waits for its end; its exit code.
    pub fn ended(&mut self) -> i32 {
        self.process.0.wait().unwrap().code().unwrap()
    }
}

fn connect(port: u16) -> TcpStream {
    let tcp = TcpStream::connect(("127.0.0.1", port)).unwrap();
    tcp.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    tcp
}

fn port_of(line: &str) -> u16 {
    let digits = line.split(r#""port":"#).nth(1).unwrap();
    let digits: String = digits.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap()
}

/// A daemon in a process of its own that lets alice open this port.
fn daemon(world: &World, port: u16) -> Process {
    let permit = format!("localhost:{port}");
    let who = ["daemon", "--as", DEVICE, "--manager", ALICE];
    let what = ["--device", NAME, "--permit-open", &permit];
    world.process(&[&who[..], &what].concat())
}

/// What is behind the device was two hops away: through the device's sshd.
#[test]
fn one_connection_on_stdin_and_stdout_makes_ssh_to_what_is_behind_the_device_one_hop() {
    block_on(async {
        let mut world = World::start().await;
        let sshd = world.sshd().await;
        world.rendezvous().await;
        let echo = answer_at_the_end().await;
        let closed = TcpListener::bind("127.0.0.1:0").unwrap();
        let nothing = closed.local_addr().unwrap().port();
        drop(closed);
        // Says all at once and reads on: what is said to it after that must arrive.
        let late = TcpListener::bind("127.0.0.1:0").unwrap();
        let late_port = late.local_addr().unwrap().port();
        let heard = thread::spawn(move || {
            let (mut tcp, _) = late.accept().unwrap();
            tcp.write_all(b"all").unwrap();
            tcp.shutdown(Shutdown::Write).unwrap();
            let mut heard = Vec::new();
            tcp.read_to_end(&mut heard).map(|_| heard).unwrap()
        });
        let permit = format!(
            "localhost:{},localhost:{echo},localhost:{nothing},localhost:{late_port}",
            sshd.port
        );
        let change = |policy: &mut noports::program::daemon::DaemonOptions| {
            policy.permit = permit.parse().unwrap();
        };
        world.daemon_with(1, change).await;

        let proxy = "ProxyCommand=%d -q --stdio localhost:%p";
        let words = ["tunnel", "--as", ALICE, "--to", DEVICE, "--device", NAME];
        let proxy = proxy.replace("%d", &format!("{NOPORTS} {}", words.join(" ")));
        let mut ssh = world.program("ssh");
        ssh.args(["-F", "none", "-oBatchMode=yes", "-o", &proxy, "-i"]);
        ssh.arg(&sshd.identity).args(["-p", &sshd.port.to_string()]);
        ssh.arg(format!("-oHostKeyAlias={}", world.alias()));
        ssh.arg(format!(
            "-oUserKnownHostsFile={}",
            world.dir.text("known_hosts")
        ));
        ssh.args(["nas", "echo one hop"]);
        assert_eq!(stdout(ssh).await, "one hop\n");

        let on_stdio = |port: u16, said: Vec<u8>| {
            let target = format!("localhost:{port}");
            // On a busy machine it says that it still waits, else.
            let mut tunnel = tunnel(&world, &["-q", "--stdio", &target]);
            tunnel.stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut child = tunnel.stderr(Stdio::piped()).spawn().unwrap();
            task::spawn_blocking(move || {
                let mut stdin = child.stdin.take().unwrap();
                let written = stdin.write_all(&said);
                drop(stdin);
                let done = child.wait_with_output().unwrap();
                let said = String::from_utf8(done.stderr).unwrap();
                assert!(written.is_ok(), "{written:?}: {said}");
                (done.status.code(), done.stdout, said)
            })
        };
        let all = vec![b'x'; 300_000];
        assert_eq!(
            on_stdio(echo, all.clone()).await,
            (Some(0), all.clone(), String::new())
        );
        let (code, _, said) = on_stdio(late_port, all.clone()).await;
        assert_eq!(code, Some(0), "{said}");
        assert!(heard.join().unwrap() == all);
        // Its input stays open: the other end was over first, without a word.
        let target = format!("localhost:{nothing}");
        let mut refused = tunnel(&world, &["--stdio", &target]);
        refused.stdin(Stdio::piped()).stdout(Stdio::null());
        let mut refused = Process(refused.stderr(Stdio::piped()).spawn().unwrap());
        let input = refused.0.stdin.take();
        let mut said = String::new();
        let mut stderr = refused.0.stderr.take().unwrap();
        stderr.read_to_string(&mut said).unwrap();
        // It was told in words of the bridge, and then as a session that never began.
        assert!(
            said.starts_with(&format!(
                "noports tunnel: the device cannot reach {target}: "
            )),
            "{said}"
        );
        assert_eq!(refused.0.wait().unwrap().code(), Some(12), "{said}");
        drop(input);
        for (words, want) in [
            (&["--stdio", "nas"][..], "\"nas\" is not host:port"),
            (&["--stdio", "nas:0"], "nas:0"),
            (&["--stdio", "nas:22", "--print"], "exclude each other"),
            (&["--stdio", "nas:22", "--json"], "exclude each other"),
            (
                &["--stdio", "nas:22", "--forward", "1:a:2"],
                "exclude each other",
            ),
        ] {
            let done = output(tunnel(&world, words)).await;
            let said = String::from_utf8(done.stderr).unwrap();
            assert_eq!(done.status.code(), Some(2), "{said}");
            assert!(said.contains(want), "{said}");
        }
    });
}

/// What one connection says: unlike what any other one does, and of its own length.
fn pattern(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let length = 1 + (state >> 7) % 40_000;
    let next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(length as usize).collect()
}

/// Says something, stops saying, and hears all of it again.
fn exchange(port: u16, seed: u64) -> Result<(), String> {
    let said = pattern(seed);
    let mut tcp = connect(port);
    let mut writer = tcp.try_clone().unwrap();
    let heard = thread::scope(|scope| {
        scope.spawn(|| {
            let _ = writer.write_all(&said);
            let _ = writer.shutdown(Shutdown::Write);
        });
        let mut heard = Vec::new();
        tcp.read_to_end(&mut heard).map(|_| heard)
    });
    match heard {
        Ok(heard) if heard == said => Ok(()),
        Ok(heard) => Err(format!(
            "{seed}: {} bytes instead of {}",
            heard.len(),
            said.len()
        )),
        Err(error) => Err(format!("{seed}: {error}")),
    }
}

/// That many at the same time; what went wrong.
async fn exchanges(port: u16, first: u64, count: u64) -> Vec<String> {
    task::spawn_blocking(move || {
        let all: Vec<_> = (first..first + count)
            .map(|seed| thread::spawn(move || exchange(port, seed)))
            .collect();
        let outcomes = all.into_iter().map(|one| one.join().unwrap());
        outcomes.filter_map(Result::err).collect()
    })
    .await
}

/// A web server that closes after each answer, and one that does not care what it is asked.
fn web_server() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for tcp in listener.incoming().flatten() {
            let mut request = BufReader::new(tcp.try_clone().unwrap());
            let mut first = String::new();
            let _ = request.read_line(&mut first);
            let path = first.split(' ').nth(1).unwrap_or("?").to_owned();
            let body = format!("you asked for {path}\n");
            let _ = write!(
                &tcp,
                "HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
        }
    });
    port
}

fn get(port: u16, path: &str) -> String {
    let mut tcp = connect(port);
    write!(tcp, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    tcp.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_web_server_near_the_device_is_here_and_two_forwards_are_two_sessions() {
    block_on(async {
        let mut world = World::start().await;
        let (web, echo) = (web_server(), answer_at_the_end().await);
        world.rendezvous().await;
        world
            .daemon_with(web, |policy| {
                policy.permit = format!("localhost:{web},localhost:{echo}").parse().unwrap();
            })
            .await;
        let second = format!("127.0.0.1:0:localhost:{echo}");
        let mut tunnel = Tunnel::open(&world, web, &["--forward", &second]);
        let line = tunnel.line();
        assert!(
            line.contains(r#""event":"listening","address":"127.0.0.1""#),
            "{line}"
        );
        let mut doors = [tunnel.port, port_of(&line)];
        if line.contains(&format!("localhost:{web}")) {
            doors.reverse();
        }
        for path in ["/", "/one", "/two"] {
            let answer = get(doors[0], path);
            assert!(
                answer.ends_with(&format!("\r\n\r\nyou asked for {path}\n")),
                "{answer}"
            );
        }
        exchange(doors[1], 1).unwrap();
        let mut ours = listening_ports(tunnel.process.id()).unwrap();
        ours.sort_unstable();
        doors.sort_unstable();
        assert_eq!(ours, doors, "nothing else is open");
    });
}

#[test]
fn sixty_connections_at_once_three_times_over_one_session() {
    block_on(async {
        let world = World::start().await;
        let echo = answer_at_the_end().await;
        let (rendezvous, daemon) = (world.rendezvous_process(), daemon(&world, echo));
        let mut tunnel = Tunnel::open(&world, echo, &["--idle-timeout", "2s"]);
        let bridges = children_of(daemon.id());
        assert_eq!(bridges.len(), 1, "one bridge for the session");
        assert_eq!(exchanges(tunnel.port, 0, 1).await, Vec::<String>::new());
        let idle = (descriptors(bridges[0]), sockets(rendezvous.id()));
        // `cargo bench --features held --bench soak -- tunnel` does it with two hundred, fifty times.
        for round in 1..=3 {
            let wrong = exchanges(tunnel.port, round * 1000, 60).await;
            assert_eq!(wrong, Vec::<String>::new(), "round {round}");
            assert_eq!(
                children_of(daemon.id()),
                bridges,
                "round {round}: the same session"
            );
        }
        until("the connections' descriptors are back", || {
            descriptors(bridges[0]) <= idle.0 && sockets(rendezvous.id()) <= idle.1
        })
        .await;

        // Nobody comes any more: the session ends, and nothing is left of it.
        assert_eq!(task::spawn_blocking(move || tunnel.ended()).await, 0);
        until("the bridge has ended", || {
            children_of(daemon.id()).is_empty()
        })
        .await;
        until("the rendezvous has closed its ports", || {
            listening_ports(rendezvous.id()).unwrap().is_empty()
        })
        .await;
    });
}

#[test]
fn one_side_may_stop_writing_and_a_server_may_speak_first() {
    block_on(async {
        let mut world = World::start().await;
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            for mut tcp in listener.incoming().flatten() {
                tcp.write_all(b"welcome\n").unwrap();
                let mut said = Vec::new();
                tcp.read_to_end(&mut said).unwrap();
                writeln!(tcp, "{} bytes", said.len()).unwrap();
            }
        });
        world.rendezvous().await;
        world.daemon(port).await;
        let tunnel = Tunnel::open(&world, port, &[]);
        let mut tcp = tunnel.connect();
        let mut reader = BufReader::new(tcp.try_clone().unwrap());
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        assert_eq!(line, "welcome\n");
        tcp.write_all(&vec![b'x'; 300_000]).unwrap();
        tcp.shutdown(Shutdown::Write).unwrap();
        line.clear();
        reader.read_line(&mut line).unwrap();
        assert_eq!(line, "300000 bytes\n");
        assert_eq!(reader.read_line(&mut line).unwrap(), 0);
    });
}

#[test]
fn a_service_that_is_not_there_costs_its_connections_and_not_the_session() {
    block_on(async {
        let mut world = World::start().await;
        let free = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        world.rendezvous().await;
        world.daemon(port).await;
        let tunnel = Tunnel::open(&world, port, &[]);
        for _ in 0..3 {
            let mut nothing = Vec::new();
            let _ = tunnel.connect().read_to_end(&mut nothing);
            assert_eq!(nothing, b"");
        }
        // Had the device met fewer sockets than we have sent, these would be joined with their neighbours.
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        thread::spawn(move || {
            for mut tcp in listener.incoming().flatten() {
                thread::spawn(move || {
                    let mut all = Vec::new();
                    tcp.read_to_end(&mut all).unwrap();
                    tcp.write_all(&all).unwrap();
                });
            }
        });
        assert_eq!(exchanges(tunnel.port, 1, 10).await, Vec::<String>::new());
    });
}

#[test]
fn connections_that_are_given_up_at_once_do_not_disturb_the_others() {
    block_on(async {
        let mut world = World::start().await;
        let echo = answer_at_the_end().await;
        world.rendezvous().await;
        world.daemon(echo).await;
        let tunnel = Tunnel::open(&world, echo, &[]);
        for round in 0..20 {
            drop(tunnel.connect());
            let abrupt = tunnel.connect();
            noports::pipe::join::reset(&abrupt);
            exchange(tunnel.port, round).unwrap();
        }
        assert_eq!(exchanges(tunnel.port, 100, 20).await, Vec::<String>::new());
    });
}

/// As few other streams have at a time.
const HALF: usize = 12_347;

/// Whether a socket at a port of this process holds these bytes that it has not read, and maybe what came before them: `half`,
/// and the line that logs the socket in. It may not even have been accepted.
fn is_unread(process: u32, bytes: usize) -> bool {
    const LISTENS: &str = "0A";
    let sockets: Vec<String> = std::fs::read_dir(format!("/proc/{process}/fd"))
        .unwrap()
        .filter_map(|fd| {
            let target = std::fs::read_link(fd.ok()?.path()).ok()?;
            Some(target.display().to_string())
        })
        .collect();
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let rows: Vec<Vec<&str>> = table
        .lines()
        .map(|line| line.split_whitespace().collect())
        .filter(|row: &Vec<&str>| row.len() > 9)
        .collect();
    let is_its =
        |row: &&Vec<&str>| row[3] == LISTENS && sockets.contains(&format!("socket:[{}]", row[9]));
    let ports: Vec<&str> = rows.iter().filter(is_its).map(|row| row[1]).collect();
    rows.iter().any(|row| {
        let unread = row[4]
            .split_once(':')
            .map(|(_, unread)| usize::from_str_radix(unread, 16));
        let is_enough = |unread| (bytes..bytes + 1024).contains(&unread);
        ports.contains(&row[1]) && matches!(unread, Some(Ok(unread)) if is_enough(unread))
    })
}

#[test]
fn a_kept_port_opens_the_next_session_by_itself() {
    block_on(async {
        let world = World::start().await;
        let echo = answer_at_the_end().await;
        let daemon = daemon(&world, echo);
        let mut rendezvous = world.rendezvous_process();
        let mut tunnel = Tunnel::open(&world, echo, &["--keep-alive"]);
        assert!(children_of(daemon.id()).is_empty(), "nobody has come yet");
        exchange(tunnel.port, 1).unwrap();
        assert!(tunnel.line().contains(r#""event":"open""#));

        // A connection that is open when the rendezvous goes is cut, and not taken for one that ended well.
        // The rendezvous holds bytes that it has not read when it dies, so the kernel resets that socket: without them its
        // end would look like the stream's, if it is seen before the control socket's.
        let mut open = tunnel.connect();
        open.write_all(b"half").unwrap();
        signal(rendezvous.id(), "STOP");
        open.write_all(&[0; HALF]).unwrap();
        until("the rendezvous has something to read", || {
            // No more than the device has allowed is sent, and the rest waits at the client.
            is_unread(rendezvous.id(), FIRST_CREDIT as usize)
        })
        .await;
        rendezvous.kill();
        assert!(tunnel.line().contains(r#""event":"ended""#));
        let cut = open.read(&mut [0; 1]);
        assert_eq!(cut.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
        until("the bridge has ended", || {
            children_of(daemon.id()).is_empty()
        })
        .await;

        let _next = world.rendezvous_process();
        exchange(tunnel.port, 2).unwrap();
        assert!(tunnel.line().contains(r#""event":"open""#));
        assert_eq!(exchanges(tunnel.port, 3, 20).await, Vec::<String>::new());
    });
}

#[test]
fn a_kept_port_survives_what_may_pass_and_ends_with_what_may_not() {
    block_on(async {
        let mut world = World::start().await;
        let echo = answer_at_the_end().await;
        let mut tunnel = Tunnel::open(&world, echo, &["--keep-alive", "--timeout", "1"]);
        let mut first = tunnel.connect();
        assert!(first.read(&mut [0; 1]).is_err(), "there is no device yet");
        world.rendezvous().await;
        world.daemon(echo).await;
        exchange(tunnel.port, 1).unwrap();
        drop(tunnel.process.0.stderr.take());

        let mut hopeless = Tunnel::open_to(&world, "@nobody", echo, &["--keep-alive"]);
        let _visitor = hopeless.connect();
        assert_eq!(task::spawn_blocking(move || hopeless.ended()).await, 5);
    });
}

#[test]
fn a_session_ends_when_nobody_comes() {
    block_on(async {
        let world = World::start().await;
        let echo = answer_at_the_end().await;
        let (_rendezvous, daemon) = (world.rendezvous_process(), daemon(&world, echo));
        let mut tunnel = Tunnel::open(&world, echo, &["--idle-timeout", "1s"]);
        let mut open = tunnel.connect();
        open.write_all(b"as long as this is open").unwrap();
        // Time is the subject: twice what it may be idle. A session that ended would cut this connection.
        open.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let silence = open.read(&mut [0; 1]).unwrap_err();
        assert_eq!(silence.kind(), ErrorKind::WouldBlock);
        open.set_read_timeout(None).unwrap();
        exchange(tunnel.port, 1).unwrap();
        open.shutdown(Shutdown::Write).unwrap();
        let mut heard = String::new();
        open.read_to_string(&mut heard).unwrap();
        assert_eq!(heard, "as long as this is open");
        assert!(tunnel.line().contains(r#""event":"ended""#));
        assert_eq!(tunnel.ended(), 0);
        until("the bridge has ended", || {
            children_of(daemon.id()).is_empty()
        })
        .await;
    });
}

#[test]
fn a_port_that_is_not_permitted_is_refused_with_the_reason() {
    block_on(async {
        let mut world = World::start().await;
        world.rendezvous().await;
        world.daemon(22).await;
        for (target, code) in [("localhost:23", 8), ("127.0.0.1:22", 8)] {
            let forward = format!("0:{target}");
            let (ended, said) = failure(tunnel(&world, &["-q", "--forward", &forward])).await;
            let want = format!(
                "noports tunnel: the device permits no connections to {target}\n  hint: start the daemon on {NAME} with --permit-open localhost:22,{target}\n"
            );
            assert_eq!((ended, said), (code, want));
        }
    });
}

#[test]
fn misuse_is_named() {
    block_on(async {
        let world = World::start().await;
        let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let taken = taken.local_addr().unwrap().port();
        let busy = format!("{taken}:localhost:80");
        for (words, code, want) in [
            (&[][..], 2, "give 1 to 16 forwards"),
            (
                &["--forward", "80"],
                2,
                "\"80\" is not [BIND:]PORT:HOST:PORT",
            ),
            (
                &["--forward", "0:h:1", "--idle-timeout", "soon"],
                2,
                "--idle-timeout: invalid duration \"soon\": such as",
            ),
            (
                &["--forward", "0:h:1", "--print", "--keep-alive"],
                2,
                "--keep-alive and --print exclude each other",
            ),
            (&["--forward", &busy], 1, "cannot listen on 127.0.0.1:"),
        ] {
            let hold = TcpListener::bind(("127.0.0.1", taken));
            let (ended, said) = failure(tunnel(&world, words)).await;
            drop(hold);
            assert_eq!(ended, code, "{words:?}: {said}");
            assert!(
                said.starts_with(&format!("noports tunnel: {want}")),
                "{words:?}: {said}"
            );
        }
    });
}

#[test]
fn the_classic_program_prints_its_port_and_leaves() {
    block_on(async {
        let mut world = World::start().await;
        let echo = answer_at_the_end().await;
        world.rendezvous().await;
        world.daemon(echo).await;
        let npt = world.dir.path("npt");
        symlink(NOPORTS, &npt).unwrap();
        let port = echo.to_string();
        let mut command = world.program(&npt.display().to_string());
        command.args(["-f", ALICE, "-t", DEVICE, "-d", NAME, "-p", &port]);
        command.args(["-r", crate::world::RENDEZVOUS, "-T", "1s", "-x"]);
        let printed = stdout(command).await;
        let port: u16 = printed.trim_end().parse().unwrap();
        assert_eq!(printed, format!("{port}\n"));
        assert_eq!(exchanges(port, 1, 10).await, Vec::<String>::new());
        // Asked for in a way that is no visit.
        let is_free = || TcpListener::bind(("127.0.0.1", port)).is_ok();
        until("it ends when nobody comes", is_free).await;
    });
}

/// A device of before twin keys, played by the test.
struct OldDevice {
    at: Client,
    inbox: Subscription,
    /// What it is built on.
    core: &'static str,
    /// Pings that it loses before it answers one.
    deaf_for: usize,
    /// What it says that it permits.
    permits: &'static [&'static str],
    /// Whether its ping says that it sends records.
    records: bool,
}

impl OldDevice {
    async fn start(world: &World, core: &'static str) -> Self {
        let at = Client::login(&world.network, world.keys(DEVICE)).await;
        let at = at.unwrap();
        let inbox = at
            .subscribe(&format!(r"\.{NAME}\.sshnp@"), false)
            .await
            .unwrap();
        Self {
            at,
            inbox,
            core,
            deaf_for: 0,
            permits: &[],
            records: false,
        }
    }

    async fn send(&self, message: Message) {
        let note = Outgoing {
            to: message.to,
            entity: message.entity,
            text: message.text,
            ttl: None,
            ttln: 60_000,
            metadata: Default::default(),
        };
        self.at.notify(&note).await.unwrap();
    }

    /// The next message: its key and its text.
    async fn hear(&mut self) -> (String, String) {
        loop {
            let Some(Event::Note(note)) = self.inbox.next().await else {
                continue;
            };
            let text = self.at.decrypt(&note).await.unwrap().unwrap();
            return (note.entity().to_owned(), text);
        }
    }

    async fn answer_ping(&mut self) {
        if self.deaf_for > 0 {
            self.deaf_for -= 1;
            return;
        }
        let (alice, device) = (ALICE.parse().unwrap(), NAME.parse().unwrap());
        let permits = self.permits.iter().map(|&one| one.to_owned());
        let mut about = Heartbeat::ours(&device, permits.collect());
        about.core = self.core.to_owned();
        about.features.twin_keys = false;
        about.records = self.records;
        about.features.control_heartbeats = false;
        self.send(ping::answer(&alice, &device, &about)).await;
    }

    /// Answers pings until somebody wants a tunnel.
    async fn request(&mut self) -> TunnelRequest {
        loop {
            let (entity, text) = self.hear().await;
            if entity.starts_with("ping.") {
                self.answer_ping().await;
            } else if entity.starts_with("npt_request.") {
                let alice = ALICE.parse().unwrap();
                let signer = self.at.public_key(&alice).await.unwrap().unwrap();
                return TunnelRequest::parse(&text, &signer).unwrap();
            }
        }
    }

    /// A session with one key: the control socket, and what it says, in clear.
    async fn accept(&mut self, request: &TunnelRequest) -> (TcpStream, Cipher) {
        let keys = SessionKeys::random(false).unwrap();
        let made = DeviceKeys::Stream(keys.clone(), false);
        let control = self.meet(request);
        let (alice, name) = (ALICE.parse().unwrap(), NAME.parse().unwrap());
        let us = &self.at.keys().encryption;
        let answer = request::accept_tunnel(request, &made, &alice, &name, us).unwrap();
        self.send(answer.message).await;
        (control, keys.ciphers(Side::Device).inbound)
    }

    /// One more socket at the rendezvous, with our admission line on its way.
    fn meet(&self, request: &TunnelRequest) -> TcpStream {
        let meeting = &request.meeting;
        let nonces = meeting.admission.as_ref().unwrap();
        let admission = nonces.admission(meeting.session);
        let line = admission.line(&self.at.keys().encryption).unwrap();
        let mut tcp = connect(meeting.port);
        writeln!(tcp, "{line}").unwrap();
        tcp
    }
}

/// A tunnel that waits for a device played by the test.
fn tunnel_to_nas(world: &World) -> Process {
    let mut tunnel = tunnel(world, &["--json", "-q", "--forward", "0:nas:443"]);
    tunnel.stdout(Stdio::piped()).stderr(Stdio::piped());
    Process(tunnel.spawn().unwrap())
}

fn listens_at(tunnel: &mut Process) -> u16 {
    let mut line = String::new();
    let mut stdout = BufReader::new(tunnel.0.stdout.take().unwrap());
    stdout.read_line(&mut line).unwrap();
    port_of(&line)
}

/// A ping is signed by nobody.
#[test]
fn what_was_taken_out_of_a_ping_is_missed_and_what_was_put_in_opens_nothing() {
    for (says, takes, code, why) in [
        (false, true, 10, "somebody has taken that out of its answer"),
        (true, false, 10, "keys"),
    ] {
        block_on(async {
            let mut world = World::start().await;
            world.rendezvous().await;
            let mut device = OldDevice::start(&world, "c0.1.0").await;
            device.records = says;
            let mut tunnel = tunnel(&world, &["-q", "--forward", "0:nas:443"]);
            tunnel.stderr(Stdio::piped());
            let tunnel = tunnel.spawn().unwrap();
            let mut request = device.request().await;
            let keys = match request.meeting.encryption {
                // It sees a request without any key that it knows.
                Some(Encryption::Records(_)) => {
                    request.meeting.encryption = None;
                    DeviceKeys::Bare
                }
                _ => DeviceKeys::Stream(SessionKeys::random(false).unwrap(), takes),
            };
            let (alice, name) = (ALICE.parse().unwrap(), NAME.parse().unwrap());
            let us = &device.at.keys().encryption;
            let answer = request::accept_tunnel(&request, &keys, &alice, &name, us).unwrap();
            device.send(answer.message).await;
            let ended = task::spawn_blocking(move || tunnel.wait_with_output()).await;
            let ended = ended.unwrap();
            let said = String::from_utf8(ended.stderr).unwrap();
            assert_eq!(ended.status.code(), Some(code), "{said}");
            assert!(said.contains(why), "{said}");
            let known = fs::read_to_string(world.dir.path("memory/known_keys")).unwrap();
            assert!(!known.contains("records="), "{known}");
        });
    }
}

#[test]
fn an_old_device_gets_one_key_for_both_directions_and_the_person_a_warning() {
    block_on(async {
        let mut world = World::start().await;
        world.rendezvous().await;
        let mut device = OldDevice::start(&world, "c0.1.0").await;
        let mut tunnel = tunnel_to_nas(&world);

        let request = device.request().await;
        assert_eq!((&*request.target_host, request.target_port), ("nas", 443));
        let encryption = request.meeting.encryption.as_ref();
        assert!(matches!(
            encryption,
            Some(Encryption::Stream {
                twin_keys: false,
                ..
            })
        ));
        let (mut control, mut cipher) = device.accept(&request).await;

        let mut visitor = connect(listens_at(&mut tunnel));
        visitor.write_all(b"hello").unwrap();

        // 77 bytes and an LF, in one piece.
        let mut said = [0; 78];
        control.read_exact(&mut said).unwrap();
        cipher.apply(&mut said);
        let mut lines = ControlLines::new(Keying::Single);
        lines.push(&said);
        let Ok(Some(ControlLine::Connect(fresh))) = lines.pop() else {
            panic!("no announcement");
        };
        assert!(!fresh.are_twin());
        let mut socket = device.meet(&request);
        let mut bytes = [0; 5];
        socket.read_exact(&mut bytes).unwrap();
        fresh.ciphers(Side::Device).inbound.apply(&mut bytes);
        assert_eq!(&bytes, b"hello");

        // It ends with a connection that stands, and nobody has asked for that.
        drop((control, socket));
        assert_eq!(tunnel.0.wait().unwrap().code(), Some(9));
        let mut warned = String::new();
        let mut stderr = tunnel.0.stderr.take().unwrap();
        stderr.read_to_string(&mut warned).unwrap();
        let want = format!("WARNING: {NAME}{DEVICE} is older than twin keys: ");
        assert!(warned.starts_with(&want), "{warned}");
        let lines: Vec<&str> = warned.lines().skip(1).collect();
        let why = "noports tunnel: the session was closed by the other end";
        assert_eq!((lines[0], lines.len()), (why, 2), "{warned}");
        assert!(lines[1].starts_with("  hint: "), "{warned}");
    });
}

#[test]
fn a_classic_devices_target_that_says_nothing_is_told_as_that() {
    block_on(async {
        let mut world = World::start().await;
        world.rendezvous().await;
        for (core, says_all) in [("c0.1.0", false), ("6.2.0", false), ("c0.1.0", true)] {
            let mut device = OldDevice::start(&world, core).await;
            let words = [
                "--json",
                "-q",
                "--forward",
                "0:nas:443",
                "--idle-timeout",
                "1s",
            ];
            let mut tunnel = tunnel(&world, &words);
            tunnel.stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut tunnel = Process(tunnel.spawn().unwrap());
            let request = device.request().await;
            let (mut control, _) = device.accept(&request).await;
            let mut visitor = connect(listens_at(&mut tunnel));
            visitor.write_all(b"hello").unwrap();
            control.read_exact(&mut [0; 77]).unwrap();
            let mut socket = device.meet(&request);
            socket.read_exact(&mut [0; 5]).unwrap();
            if says_all {
                // Our program ends first: nothing has failed.
                visitor.shutdown(Shutdown::Write).unwrap();
                assert_eq!(socket.read(&mut [0; 1]).unwrap(), 0);
            }
            drop(socket);
            let _ = visitor.read_to_end(&mut Vec::new());
            drop(visitor);
            let mut said = String::new();
            let mut stderr = tunnel.0.stderr.take().unwrap();
            stderr.read_to_string(&mut said).unwrap();
            let want = "nas:443 failed at the device: it was closed before a byte came";
            assert_eq!(said.contains(want), !says_all, "{core}: {said}");
            let code = if says_all { 0 } else { 12 };
            assert_eq!(tunnel.0.wait().unwrap().code(), Some(code), "{core}");
        }
    });
}

#[test]
fn what_a_classic_device_says_that_it_permits_is_used_at_once() {
    block_on(async {
        let mut world = World::start().await;
        world.rendezvous().await;
        let asking = || tunnel(&world, &["-q", "--forward", "0:nas:443", "--timeout", "60"]);
        for (core, permits, hint) in [
            ("c0.1.0", &["localhost:22"][..], "localhost:22,nas:443"),
            (
                "c1.0.20",
                &["*:80", "localhost:0"],
                "'*:80,localhost:*,nas:443'",
            ),
            (
                "6.2.0",
                &["localhost:22", "nas:80"],
                "localhost:22,nas:80,nas:443",
            ),
            ("6.2.0", &["nas:0"], ""),
            ("c0.1.0", &["nas:0"], ""),
            ("6.2.0", &["*:443"], ""),
            ("c0.1.0", &[], ""),
            ("rust-0.1.0", &["localhost:22"], ""),
        ] {
            let mut device = OldDevice::start(&world, core).await;
            device.permits = permits;
            if hint.is_empty() {
                let _asking = Process(asking().stderr(Stdio::null()).spawn().unwrap());
                assert_eq!(
                    device.request().await.target_port,
                    443,
                    "{core} {permits:?}"
                );
                continue;
            }
            let requested = async {
                let request = device.request().await;
                panic!(
                    "{core} {permits:?}: it is asked for {}",
                    request.target_port
                )
            };
            let (code, said) = futures_lite::future::or(failure(asking()), requested).await;
            let want = format!(
                "the device permits no connections to nas:443\n  hint: start the daemon on {NAME} with --permit-open {hint}\n"
            );
            assert!(
                code == 8 && said.contains(&want),
                "{permits:?}: {code} {said}"
            );
        }
    });
}

#[test]
fn connections_at_the_same_time_do_not_kill_a_dart_5_6_daemon() {
    const MANY: usize = 6;
    block_on(async {
        let mut world = World::start().await;
        world.rendezvous().await;
        let mut device = OldDevice::start(&world, "6.2.0").await;
        let mut tunnel = tunnel_to_nas(&world);
        let request = device.request().await;
        let (mut control, mut cipher) = device.accept(&request).await;
        let port = listens_at(&mut tunnel);
        let visitors: Vec<_> = (0..MANY).map(|_| connect(port)).collect();
        for (visitor, seed) in visitors.iter().zip(b'a'..) {
            (&*visitor).write_all(&[seed; 100]).unwrap();
        }

        // One read, as late as can be: everything has come.
        let mut said = vec![0; MANY * 77];
        control.read_exact(&mut said).unwrap();
        cipher.apply(&mut said);
        let said = String::from_utf8(said).unwrap();
        let parts = said
            .trim()
            .split("connect:")
            .filter(|part| !part.is_empty());
        for (part, seed) in parts.zip(b'a'..) {
            let (key, iv) = part.split_once(':').unwrap();
            let to_device = StreamKey::from_base64(key, iv).unwrap();
            let keys = SessionKeys {
                to_device,
                to_client: None,
            };
            let (mut socket, mut bytes) = (device.meet(&request), [0; 100]);
            socket.read_exact(&mut bytes).unwrap();
            keys.ciphers(Side::Device).inbound.apply(&mut bytes);
            assert_eq!(bytes, [seed; 100]);
        }
        assert_eq!(said.matches("connect:").count(), MANY);
    });
}

#[test]
fn only_our_own_daemons_get_a_second_copy_of_a_request() {
    block_on(async {
        let mut world = World::start().await;
        world.rendezvous().await;
        let tunnel = || tunnel(&world, &["-q", "--forward", "0:nas:443", "--timeout", "3"]);
        let ssh = || world.client(&["-q", "--stdio", "--timeout", "3"]);
        for (core, asking, copies) in [
            ("c1.0.20", tunnel(), 1),
            ("6.2.0", tunnel(), 1),
            ("", tunnel(), 1),
            ("rust-0.1.0", tunnel(), 2),
            ("c0.1.0", ssh(), 1),
            ("rust-0.1.0", ssh(), 2),
        ] {
            let mut device = OldDevice::start(&world, core).await;
            // A third of the wait passes, then the request would be repeated.
            let asking = task::spawn(failure(asking));
            let mut heard = 0;
            let listening = async {
                loop {
                    let (entity, _) = device.hear().await;
                    if entity.contains("_request.") {
                        heard += 1;
                    } else {
                        device.answer_ping().await;
                    }
                }
            };
            let ended = futures_lite::future::or(asking, listening).await;
            assert_eq!(ended.0, 7, "{core}: {}", ended.1);
            // A ping that comes behind everything that was sent before it.
            let words = ["devices", "--as", ALICE, "--to", DEVICE, "--device", NAME];
            let last = task::spawn(output(world.noports(&words)));
            loop {
                let (entity, _) = device.hear().await;
                if entity.starts_with("ping.") {
                    break;
                }
                heard += 1;
            }
            device.answer_ping().await;
            last.await;
            assert_eq!(heard, copies, "{core:?}");
        }
    });
}

#[test]
fn a_daemon_that_loses_pings_is_asked_again() {
    block_on(async {
        let mut world = World::start().await;
        world.rendezvous().await;
        let mut device = OldDevice::start(&world, "c0.1.0").await;
        device.deaf_for = 2;
        let words = ["devices", "--as", ALICE, "--to", DEVICE, "--device", NAME];
        let listed = task::spawn(output(world.noports(&words)));
        let listening = async {
            loop {
                device.hear().await;
                device.answer_ping().await;
            }
        };
        let listed = futures_lite::future::or(listed, listening).await.stdout;
        let listed = String::from_utf8(listed).unwrap();
        // It answers, and keeps no record.
        assert!(listed.contains("hidden"), "{listed}");

        device.deaf_for = 1;
        let asking = tunnel(&world, &["-q", "--forward", "0:nas:443"]);
        let _asking = task::spawn(failure(asking));
        assert_eq!(device.request().await.target_port, 443);
    });
}

#[test]
fn devices_are_listed_for_people_and_for_scripts() {
    block_on(async {
        let world = World::start().await;
        let devices = |words: &[&str]| {
            world.noports(&[&["devices", "--as", ALICE, "--timeout", "3"], words].concat())
        };
        let none = output(devices(&["-q"])).await;
        assert_eq!((none.status.code(), none.stdout), (Some(0), Vec::new()));

        let mut daemon = world.daemon_process(2222);
        let version = env!("CARGO_PKG_VERSION");
        let both = "localhost:2222 localhost:3389";
        let want = format!(
            "DEVICE  ATSIGN   STATE   VERSION  SERVICES{}LAST SEEN\n{NAME}    {DEVICE}  active  {version}    {both}  now\n",
            " ".repeat(both.len() - 6)
        );
        let mut listed = String::new();
        for _ in 0..50 {
            listed = stdout(devices(&["--to", DEVICE])).await;
            if listed.contains("active") {
                break;
            }
        }
        assert_eq!(listed, want);
        assert_eq!(stdout(devices(&[])).await, want, "from what we were told");
        let own = stdout(devices(&["--to", ALICE])).await;
        assert_eq!(own, "", "those of others were listed");

        let json = stdout(devices(&["--json", "-q"])).await;
        assert_eq!(
            json,
            format!(
                "{{\"event\":\"device\",\"device\":\"{NAME}\",\"atsign\":\"{DEVICE}\",\"state\":\"active\",\"version\":\"{version}\",\"services\":[\"localhost:2222\",\"localhost:3389\"],\"lastSeen\":\"now\"}}\n"
            )
        );

        daemon.kill();
        let json = stdout(devices(&["--json", "-q"])).await;
        assert!(json.contains(r#""state":"silent","version":""#), "{json}");
        assert!(json.contains(r#""lastSeen":"20"#), "{json}");

        let link = world.dir.path("sshnp");
        symlink(NOPORTS, &link).unwrap();
        let mut classic = world.program(&link.display().to_string());
        classic.args(["-f", ALICE, "-t", DEVICE, "--ls", "--dpt", "1"]);
        let listed = String::from_utf8(output(classic).await.stderr).unwrap();
        let want = format!("\nInactive Devices:\n  {NAME} - v{version} (core v");
        assert!(listed.contains(&want), "{listed}");
    });
}
