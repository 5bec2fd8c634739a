//! ssh, scp and sftp through a real sshd, as their users run them.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{IpAddr, Ipv6Addr, TcpListener},
    process::{Command, Stdio},
    thread,
};

use async_std::task::{self, block_on};
use noports::sys::{
    sockets::listening_ports,
    sshd::{self, Sshd},
    user,
};

use crate::world::{
    ALICE, DEVICE, NAME, Process, World, answer_at_the_end, children_of, descriptors, output,
    sockets, stdout, until,
};

#[test]
fn ssh_runs_a_command_on_the_device() {
    block_on(async {
        let mut world = World::start().await;
        let sshd = world.sshd().await;
        world.rendezvous().await;
        world.daemon(sshd.port).await;
        let known = format!("UserKnownHostsFile={}", world.dir.text("known_hosts"));
        let identity = sshd.identity.display().to_string();
        let words = [
            "--identity",
            &identity,
            "--",
            "-F",
            "none",
            "-o",
            &known,
            "-o",
            "BatchMode=yes",
        ];
        let said = stdout(
            world.client(&[&words[..], &["echo $((6 * 7)); echo $SSH_CONNECTION"]].concat()),
        )
        .await;
        assert!(said.starts_with("42\n127.0.0.1 "), "{said}");

        // ssh's own exit code is ours.
        let output = output(world.client(&[&words[..], &["exit 77"]].concat())).await;
        assert_eq!(output.status.code(), Some(77));
    });
}

/// An atServer at `::1` said that it was ready, and nobody could use it; sshd was looked for on localhost only.
#[test]
fn everything_at_ipv6_addresses_and_sshd_elsewhere() {
    block_on(async {
        if TcpListener::bind("[::1]:0").is_err() {
            return; // no IPv6 here
        }
        let mut world = World::start_with("::1", |options| options.listen = LOOPBACK6).await;
        world
            .rendezvous_with(|options| {
                (options.host, options.bind) = ("::1".to_owned(), LOOPBACK6);
            })
            .await;
        for (host, listens) in [
            ("[0:0:0::1]", "[::1]:0"),
            ("::0.0.0.1", "[::1]:0"),
            ("127.0.0.2", "127.0.0.2:0"),
        ] {
            let sshd = TcpListener::bind(listens).unwrap();
            let port = sshd.local_addr().unwrap().port().to_string();
            let greeting = thread::spawn(move || {
                let (mut tcp, _) = sshd.accept().unwrap();
                tcp.write_all(b"SSH-2.0-here\r\n").unwrap();
            });
            let who = ["--as", DEVICE, "--manager", ALICE, "--device", NAME];
            let place = ["--sshd-host", host, "--sshd-port", &port];
            let _daemon = world.process(&[&["daemon"], &who[..], &place].concat());
            let said = stdout(world.client(&["--stdio"])).await;
            assert_eq!(said, "SSH-2.0-here\r\n", "{host}");
            greeting.join().unwrap();
        }
    });
}

const LOOPBACK6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

#[test]
fn plain_ssh_scp_and_sftp_work_through_stdio_with_host_key_checks() {
    block_on(async {
        let mut world = World::start().await;
        let sshd = world.sshd().await;
        world.rendezvous().await;
        world.daemon(sshd.port).await;
        let options = world.ssh_options(&sshd);

        let mut ssh = world.program("ssh");
        ssh.args(&options)
            .args(["device", "cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = ssh.spawn().unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(b"through stdin and back")
            .unwrap();
        let said = task::spawn_blocking(move || child.wait_with_output().unwrap()).await;
        assert_eq!(said.stdout, b"through stdin and back");

        let bytes: Vec<u8> = (0..3_000_000u32)
            .flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes())
            .collect();
        fs::write(world.dir.path("here"), &bytes).unwrap();
        let mut scp = world.program("scp");
        scp.args(&options)
            .arg(world.dir.path("here"))
            .arg(format!("device:{}", world.dir.text("there")));
        stdout(scp).await;
        assert!(
            fs::read(world.dir.path("there")).unwrap() == bytes,
            "scp up"
        );

        fs::write(
            world.dir.path("batch"),
            format!(
                "get {} {}\n",
                world.dir.text("there"),
                world.dir.text("back")
            ),
        )
        .unwrap();
        let mut sftp = world.program("sftp");
        sftp.args(&options)
            .arg("-b")
            .arg(world.dir.path("batch"))
            .arg("device");
        stdout(sftp).await;
        assert!(
            fs::read(world.dir.path("back")).unwrap() == bytes,
            "sftp down"
        );

        // Another host key under the device's name: ssh refuses, as it must.
        let other = fs::read_to_string(world.dir.path("sshd/id_ed25519.pub")).unwrap();
        fs::write(
            world.dir.path("known_hosts"),
            format!("{} {other}", world.alias()),
        )
        .unwrap();
        let mut ssh = world.program("ssh");
        ssh.args(&options).args(["device", "true"]);
        let refused = output(ssh).await;
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(255), "{said}");
        assert!(said.contains("Host key verification failed"), "{said}");
    });
}

#[test]
fn print_leaves_a_loopback_port_open_and_returns() {
    block_on(async {
        let mut world = World::start().await;
        let sshd = world.sshd().await;
        world.rendezvous().await;
        world.daemon(sshd.port).await;
        let identity = sshd.identity.display().to_string();
        let printed = stdout(world.client(&["--print", "--identity", &identity])).await;
        let words: Vec<&str> = printed.split_whitespace().collect();
        assert_eq!((words[0], words[1]), ("ssh", "-p"), "{printed}");
        let to = format!("@{}", world.alias());
        assert!(
            words.contains(&identity.as_str()) && printed.contains(&to),
            "{printed}"
        );

        let mut ssh = world.program("ssh");
        ssh.args(&words[1..])
            .args(["-F", "none", "-o", "BatchMode=yes", "-o"]);
        ssh.arg(format!(
            "UserKnownHostsFile={}",
            world.dir.text("known_hosts")
        ))
        .arg("echo printed");
        assert_eq!(stdout(ssh).await, "printed\n");
    });
}

/// The client, whose ssh reads this configuration and finds the device's host key in `known`.
fn configured(world: &World, sshd: &Sshd, config: &str, known: &str, words: &[&str]) -> Command {
    let file = world.dir.path("config");
    fs::write(&file, config.replace("DIR", &world.dir.text(""))).unwrap();
    let known = format!("UserKnownHostsFile={}", world.dir.text(known));
    let (file, identity) = (
        file.display().to_string(),
        sshd.identity.display().to_string(),
    );
    let base = [
        "-q",
        "--identity",
        &identity,
        "--",
        "-F",
        &file,
        "-o",
        &known,
    ];
    world.client(&[&base[..], &["-o", "BatchMode=yes"], words].concat())
}

/// What people have in their configuration for other machines. Each broke the session, or led it to another one.
#[test]
fn settings_for_other_hosts_lead_ssh_nowhere_else() {
    block_on(async {
        let mut world = World::start().await;
        let sshd = world.sshd().await;
        world.rendezvous().await;
        world.daemon(sshd.port).await;
        for config in [
            "Host localhost\nHostName 192.0.2.1\n",
            "Host localhost\nProxyCommand false\n",
            "Host *\nHostName %h.example.org\n",
            "Host *\nProxyJump bastion.invalid\n",
            "Host *\nProxyCommand false\nBindAddress 192.0.2.1\nBindInterface none0\nAddressFamily inet6\nPort 2222\n",
            "Host localhost\nUser nobody\nRequestTTY force\nRemoteCommand false\n",
            "Match host localhost\nProxyCommand false\nIdentitiesOnly yes\nPubkeyAuthentication no\n",
            "CanonicalizeHostname always\nCanonicalDomains invalid\nCanonicalizeFallbackLocal no\nMatch final all\nProxyJump x.invalid\n",
            "Host *\nNoHostAuthenticationForLocalhost yes\nCheckHostIP yes\nVerifyHostKeyDNS yes\nProxyUseFdpass yes\n",
        ] {
            let said = stdout(configured(
                &world,
                &sshd,
                config,
                "known_hosts",
                &["echo in"],
            ))
            .await;
            assert_eq!(said, "in\n", "{config}");
        }
        // What is said about the device counts; what is said about localhost does not take its host key's check away.
        let alias = world.alias();
        for (config, code) in [
            (format!("Host {alias}\nPubkeyAuthentication no\n"), 255),
            (
                "Host localhost\nStrictHostKeyChecking no\nUserKnownHostsFile DIR/new\n".to_owned(),
                255,
            ),
            (
                "Match host localhost\nStrictHostKeyChecking no\n".to_owned(),
                255,
            ),
            ("NoHostAuthenticationForLocalhost yes\n".to_owned(), 255),
            // As on Fedora, where the configuration is read twice.
            (
                "Host localhost 127.*\nStrictHostKeyChecking no\nMatch final all\nCheckHostIP yes\n"
                    .to_owned(),
                255,
            ),
            (
                format!("Host {alias}\nStrictHostKeyChecking accept-new\nCheckHostIP yes\n"),
                0,
            ),
        ] {
            let known = if config.contains("Pubkey") {
                "known_hosts"
            } else {
                "new"
            };
            let done = output(configured(&world, &sshd, &config, known, &["true"])).await;
            let said = String::from_utf8_lossy(&done.stderr).into_owned();
            assert_eq!(done.status.code(), Some(code), "{config}: {said}");
            assert_eq!(
                world.dir.path("new").exists(),
                code == 0,
                "{config}: {said}"
            );
        }
        let stored = fs::read_to_string(world.dir.path("new")).unwrap();
        assert!(stored.starts_with(&format!("{alias} ssh-")), "{stored}");
        assert!(!stored.contains("127.0.0.1"), "{stored}");
    });
}

/// A connection to another device that is still open under `ControlPath …%h`.
#[test]
fn a_command_for_one_device_does_not_run_on_another() {
    block_on(async {
        let mut world = World::start().await;
        let sshd = world.sshd().await;
        world.rendezvous().await;
        world.daemon(sshd.port).await;
        fs::create_dir(world.dir.path("other")).unwrap();
        let other = sshd::start(&world.dir.path("other")).await.unwrap();
        let user = user::name().unwrap();
        let mut masters = Vec::new();
        for host in ["localhost", "127.0.0.1"] {
            for name in [format!("cm-{user}@{host}"), format!("cm-{host}")] {
                let mut ssh = world.program("ssh");
                let port = other.port.to_string();
                ssh.args(["-F", "none", "-N", "-M", "-p", &port, "-S"])
                    .arg(world.dir.path(&name))
                    .arg("-i")
                    .arg(&other.identity)
                    .args([
                        "-o",
                        "StrictHostKeyChecking=no",
                        "-o",
                        "UserKnownHostsFile=/dev/null",
                    ])
                    .args(["-o", "BatchMode=yes", "127.0.0.1"]);
                masters.push(Process(ssh.stderr(Stdio::null()).spawn().unwrap()));
                until("the other device's connection stands", || {
                    world.dir.path(&name).exists()
                })
                .await;
            }
        }
        let port = "echo ${SSH_CONNECTION##* }";
        for path in ["%r@%h", "%h", "%n"] {
            for persist in ["", "ControlPersist 60\n"] {
                let config =
                    format!("Host *\nControlMaster auto\nControlPath DIR/cm-{path}\n{persist}");
                let said = stdout(configured(&world, &sshd, &config, "known_hosts", &[port])).await;
                assert_eq!(said, format!("{}\n", sshd.port), "{config}");
            }
        }
    });
}

/// Sockets that people type. `%h` was the same for all devices: what was meant for the second ran on the first.
#[test]
fn a_typed_control_path_is_one_devices_and_one_for_all_is_refused() {
    block_on(async {
        let mut world = World::start().await;
        let sshd = world.sshd().await;
        fs::create_dir(world.dir.path("other")).unwrap();
        let other = sshd::start(&world.dir.path("other")).await.unwrap();
        world.rendezvous().await;
        world.daemon(sshd.port).await;
        let kitchen = |policy: &mut noports::program::daemon::DaemonOptions| {
            policy.device = "kitchen".parse().unwrap();
        };
        world.daemon_with(other.port, kitchen).await;
        // Both let the same person in.
        let known = format!("UserKnownHostsFile={}", world.dir.text("new"));
        for (number, path) in ["cm-%r@%h", "%n", "%k-x", "%C"].into_iter().enumerate() {
            let path = world.dir.text(&format!("{number}{path}"));
            let (option, joined) = (
                format!("ControlPath={path}"),
                format!("-oControlPath={path}"),
            );
            let forms = [vec!["-o", &option], vec!["-S", &path], vec![&joined]];
            let typed = &forms[number % forms.len()];
            let client = |device: &str, sshd: &Sshd, words: &[&str]| {
                let identity = sshd.identity.display().to_string();
                let base = ["client", "--as", ALICE, "--to", DEVICE, "--device", device];
                let mut client = world.noports(&base);
                client.args([
                    "-q",
                    "--identity",
                    &identity,
                    "--",
                    "-F",
                    "none",
                    "-o",
                    &known,
                ]);
                client.args(["-oBatchMode=yes", "-oStrictHostKeyChecking=accept-new"]);
                client.arg("-oControlMaster=auto").args(typed).args(words);
                client.stderr(Stdio::null());
                client
            };
            let ask = "echo ${SSH_CONNECTION#* }";
            let hold = format!("{ask}; cat");
            let mut first = client(NAME, &sshd, &[&hold]);
            let mut first = Process(
                first
                    .stdin(Stdio::piped())
                    .stdout(Stdio::piped())
                    .spawn()
                    .unwrap(),
            );
            let mut line = String::new();
            let mut stdout_of_first = BufReader::new(first.0.stdout.take().unwrap());
            stdout_of_first.read_line(&mut line).unwrap();
            let second = stdout(client("kitchen", &other, &[ask])).await;
            assert!(
                second.ends_with(&format!(" {}\n", other.port)),
                "{path}: {second}"
            );
            // The same device's goes through the connection that stands.
            assert_eq!(stdout(client(NAME, &sshd, &[ask])).await, line, "{path}");
        }
        for path in ["/tmp/cm", "/tmp/cm-%r", "%%h", "~/x-%i"] {
            let refused = output(world.client(&["-q", "--", "-S", path, "true"])).await;
            let said = String::from_utf8(refused.stderr).unwrap();
            assert_eq!(refused.status.code(), Some(2), "{said}");
            let why = format!("ssh's ControlPath \"{path}\" is the same for all devices");
            assert!(
                said.contains(&why) && said.contains("hint: put %h"),
                "{said}"
            );
        }
    });
}

/// What lies behind the port accepts and resets, or ends at once.
#[test]
fn a_service_that_resets_is_named_first_and_the_daemons_log_has_the_reason() {
    block_on(async {
        let mut world = World::start().await;
        world.rendezvous().await;
        let service = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = service.local_addr().unwrap().port();
        let _daemon = world.daemon_process(port);
        std::thread::spawn(move || {
            while let Ok((mut tcp, _)) = service.accept() {
                tcp.read_exact(&mut [0]).unwrap();
                let tcp = socket2::Socket::from(tcp);
                tcp.set_linger(Some(std::time::Duration::ZERO)).unwrap();
            }
        });
        let client = world.client(&["--stdio", "-q"]);
        let (ended, _, said) = held_open_saying("SSH-2.0-me\r\n", client).await;
        assert_eq!(ended, Some(9), "{said}");
        let hint = "\n  hint: is the service on the device running? is the rendezvous still running, and did it let both ends in";
        assert!(said.contains(hint), "{said}");
        until("the daemon says why", || {
            let log = world.log("daemon");
            let line = log
                .lines()
                .find(|line| line.contains(" ended=200 ") && line.contains(" reason=\""));
            line.is_some_and(|line| line.contains(" warn ") && line.contains("broke off"))
        })
        .await;
    });
}

#[test]
fn one_side_may_stop_writing_and_still_gets_the_answer() {
    block_on(async {
        let mut world = World::start().await;
        let port = answer_at_the_end().await;
        world.rendezvous().await;
        world.daemon(port).await;
        let mut client = world.client(&["--stdio"]);
        client.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = client.spawn().unwrap();
        let said = task::spawn_blocking(move || {
            let mut stdin = child.stdin.take().unwrap();
            stdin.write_all(&vec![b'x'; 300_000]).unwrap();
            drop(stdin);
            child.wait_with_output().unwrap()
        })
        .await;
        assert!(said.status.success());
        assert_eq!(said.stdout.len(), 300_000);
    });
}

/// A session whose input stays open: its exit code and what it said.
async fn held_open(client: std::process::Command) -> (Option<i32>, Vec<u8>, String) {
    held_open_saying("", client).await
}

async fn held_open_saying(
    first: &'static str,
    mut client: std::process::Command,
) -> (Option<i32>, Vec<u8>, String) {
    client.stdin(Stdio::piped()).stdout(Stdio::piped());
    client.stderr(Stdio::piped());
    let mut child = client.spawn().unwrap();
    task::spawn_blocking(move || {
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(first.as_bytes()).unwrap();
        let said = child.wait_with_output().unwrap();
        let stderr = String::from_utf8(said.stderr).unwrap();
        (said.status.code(), said.stdout, stderr)
    })
    .await
}

#[test]
fn a_session_that_ends_before_a_byte_came_is_an_error_and_one_that_ends_later_is_none() {
    block_on(async {
        let mut world = World::start().await;
        world.rendezvous().await;
        let service = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        world.daemon(service.local_addr().unwrap().port()).await;
        // What the service says before it closes.
        for (says, code) in [
            ("", 9),
            // A rendezvous can make up as much.
            ("x", 9),
            ("HTTP/1.1 400 Bad Request\r\n\r\n", 9),
            ("SSH", 9),
            ("SSH-2.0-goodbye\r\n", 0),
            ("welcome\r\nSSH-2.0-goodbye\r\n", 0),
        ] {
            let service = service.try_clone().unwrap();
            std::thread::spawn(move || {
                let (mut tcp, _) = service.accept().unwrap();
                tcp.write_all(says.as_bytes()).unwrap();
            });
            let (ended, heard, said) = held_open(world.client(&["--stdio", "-q"])).await;
            assert_eq!((ended, heard), (Some(code), says.into()), "{said}");
            let why = match says {
                "" => "a byte came from the other end",
                _ => "an ssh server at the other end had greeted",
            };
            let why = format!(
                "noports client: the session ended before {why}\n  hint: is the service on the device in order?"
            );
            assert_eq!(said.starts_with(&why), code == 9, "{said}");
            assert_eq!(said.is_empty(), code == 0, "{said}");
        }
    });
}

#[test]
fn device_and_stdio_client_listen_on_nothing_during_a_session() {
    block_on(async {
        let mut world = World::start().await;
        let sshd = world.sshd().await;
        world.rendezvous().await;
        let daemon = world.daemon_process(sshd.port);

        let mut ssh = world.program("ssh");
        ssh.args(world.ssh_options(&sshd))
            .args(["device", "echo up; cat"]);
        ssh.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut ssh = Process(ssh.spawn().unwrap());
        let mut first = [0u8; 3];
        ssh.0
            .stdout
            .as_mut()
            .unwrap()
            .read_exact(&mut first)
            .unwrap();
        assert_eq!(&first, b"up\n", "the session is open");

        let bridges = children_of(daemon.id());
        assert_eq!(bridges.len(), 1, "one bridge per session");
        let clients = children_of(ssh.id());
        assert_eq!(clients.len(), 1, "the ProxyCommand");
        for pid in [&[daemon.id()][..], &bridges, &clients].concat() {
            assert_eq!(
                listening_ports(pid).unwrap(),
                Vec::<u16>::new(),
                "process {pid}"
            );
        }
        drop(ssh.0.stdin.take());
        assert!(ssh.0.wait().unwrap().success());
        until("the bridge has ended", || {
            bridges.iter().all(|&pid| descriptors(pid) == 0)
        })
        .await;
    });
}

#[test]
fn sessions_leave_nothing_behind() {
    block_on(async {
        let world = World::start().await;
        let port = answer_at_the_end().await;
        let (rendezvous, daemon) = (world.rendezvous_process(), world.daemon_process(port));
        // The first one makes shared keys and caches; the descriptors are counted from then on.
        assert_eq!(stdout(world.client(&["--stdio"])).await, "");
        until("the first bridge has ended", || {
            children_of(daemon.id()).is_empty()
        })
        .await;
        let before = (sockets(rendezvous.id()), descriptors(daemon.id()));
        for _ in 0..5 {
            assert_eq!(stdout(world.client(&["--stdio"])).await, "");
        }
        let at_once: Vec<_> = (0..5)
            .map(|_| task::spawn(output(world.client(&["--stdio"]))))
            .collect();
        for session in at_once {
            assert!(session.await.status.success());
        }
        until("bridges have ended", || children_of(daemon.id()).is_empty()).await;
        until("descriptors are back", || {
            sockets(rendezvous.id()) <= before.0 && descriptors(daemon.id()) <= before.1
        })
        .await;
        assert_eq!(
            listening_ports(rendezvous.id()).unwrap(),
            Vec::<u16>::new(),
            "no port left"
        );
    });
}
