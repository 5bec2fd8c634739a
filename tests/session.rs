//! ssh, scp and sftp through a real sshd, as their users run them.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{IpAddr, Ipv6Addr, TcpListener},
    process::{Command, Stdio},
    thread,
};

use async_std::task::{self, block_on};
use noports::{
    program::daemon,
    sys::{
        sockets::listening_ports,
        ssh::{self, Destination, HostKeyAlias, SshLogin},
        sshd::{self, Sshd},
        user,
    },
};

use crate::world::{
    ALICE, DEVICE, NAME, Process, World, answer_at_the_end, children_of, descriptors, output,
    signal, sockets, stdout, until,
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
        // Of its client's own address there, where sshd counts by it.
        assert!(said.starts_with("42\n127."), "{said}");

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
        let to = words.iter().position(|word| *word == world.alias());
        assert_eq!(to.map(|at| words[at - 2]), Some("-l"), "{printed}");
        assert!(words.contains(&identity.as_str()), "{printed}");

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

/// Twelve people's settings, all of them for other machines; what ssh makes of them for two devices.
#[test]
fn whatever_the_configuration_says_ssh_goes_to_the_device_and_shares_nothing() {
    let dir = tempfile::tempdir().unwrap();
    for (number, config) in [
        "Host *\nControlMaster auto\nControlPath /x/%C\nControlPersist 10m\n",
        "Host *\nControlMaster auto\nControlPath /x/%L-%d-%i\nHost *.noports\nServerAliveInterval 20\n",
        "Host *\nControlMaster autoask\nControlPath /x/%l-%u-%r-%p\nControlPersist yes\n",
        "Host *\nControlPath /x/%k-%n-%h\nHostKeyAlias gate\nPort 2222\n",
        "Host localhost\nHostName 192.0.2.7\nPort 22\nControlPath /x/%%\nHost *\nProxyJump bastion\n",
        "Host localhost 127.0.0.1 ::1\nStrictHostKeyChecking no\nUserKnownHostsFile /dev/null\nLogLevel QUIET\n",
        "Host localhost 127.* ::1\nStrictHostKeyChecking no\nMatch final all\nStrictHostKeyChecking yes\n",
        "Match host localhost exec true\nProxyCommand nc -x proxy %h %p\nMatch all\nProxyUseFdpass yes\n",
        "CanonicalizeHostname always\nCanonicalDomains example.org\nCanonicalizePermittedCNAMEs *:*\nHost *.example.org\nPort 9\n",
        "Host *\nBindAddress 192.0.2.9\nBindInterface eth9\nAddressFamily inet6\nCheckHostIP yes\n",
        "Host *,!localhost\nHostName gate\nHost * !gate\nHostName %h.corp.example\nProxyCommand sh -c 'exit 1'\n",
        "Match originalhost *.noports\nIdentitiesOnly yes\nMatch localuser *\nHostName %n.example\nPort 1\nControlPath ~/%r@%h\n",
    ]
    .iter()
    .enumerate()
    {
        let file = dir.path().join("config");
        fs::write(&file, config).unwrap();
        let file = file.display().to_string();
        let settings = |device: &str, words: &[&str]| {
            let words = [&["-F", &file], words].concat();
            let words: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
            let login = SshLogin {
                port: 40_404,
                alias: &HostKeyAlias::new(device, "@me"),
                destination: Destination::Device,
                user: None,
                identity: None,
                words: &words,
            };
            let done = Command::new("ssh").arg("-G").args(login.arguments()).output();
            let done = done.unwrap();
            let said = String::from_utf8(done.stderr).unwrap();
            assert!(done.status.success(), "{config}: {said}");
            String::from_utf8(done.stdout).unwrap()
        };
        let said = settings("pi", &[]);
        let of = |name: &str| {
            let mut lines = said.lines();
            lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
        };
        assert!(
            matches!(of("hostname"), Some("127.0.0.1" | "::ffff:127.0.0.1")),
            "{config}: {said}"
        );
        assert_eq!((of("port"), of("hostkeyalias")), (Some("40404"), Some("pi.me.noports")));
        for (name, harmless) in [
            ("controlpath", "none"),
            ("proxycommand", "none"),
            ("proxyjump", "none"),
            ("checkhostip", "no"),
        ] {
            assert!(of(name).is_none_or(|value| value == harmless), "{config}: {name}: {said}");
        }
        // Checks of the host key are the device's.
        let checks = of("stricthostkeychecking");
        assert_ne!(checks, Some("false"), "{config}");
        assert_ne!(of("userknownhostsfile"), Some("/dev/null"), "{config}");
        // A socket that is typed, with each token: one for each device, or refused.
        for token in ["%C", "%L", "%d", "%h", "%i", "%k", "%l", "%n", "%p", "%r", "%u", "%%"] {
            let path = format!("ControlPath=/x/{number}-{token}");
            let words = ["-o".to_owned(), path.clone()];
            if ssh::shares_with_others(&words).is_some() {
                assert!("LdilruC%".contains(&token[1..]), "{token}");
                continue;
            }
            let [pi, nas] = ["pi", "nas"].map(|device| {
                let said = settings(device, &["-o", &path]);
                let line = said.lines().find(|line| line.starts_with("controlpath "));
                line.unwrap_or_else(|| panic!("{config}: {said}")).to_owned()
            });
            assert_ne!(pi, nas, "{config}: {token}");
        }
    }
}

/// The processes that listen on this port.
fn listeners(port: u16) -> Vec<u32> {
    let names = fs::read_dir("/proc").unwrap().flatten();
    let pids = names.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|&pid| listening_ports(pid).is_ok_and(|all| all.contains(&port)))
        .collect()
}

/// It said that all is well, and its connection was cut when the client ended.
#[test]
fn an_ssh_in_the_background_keeps_its_session_and_ends_it() {
    block_on(async {
        let mut world = World::start().await;
        let sshd = world.sshd().await;
        world.rendezvous().await;
        let daemon = world.daemon_process(sshd.port);
        let socket = world.dir.text("cm-%h");
        let persist = [
            "-o",
            "ControlMaster=auto",
            "-o",
            "ControlPersist=60",
            "-S",
            &socket,
            "exit 7",
        ];
        let stay = "Host *.noports\nForkAfterAuthentication yes\n";
        for (config, words) in [
            ("", &["-f", "-N"][..]),
            ("", &["-fnNT"]),
            ("", &["-o", "ForkAfterAuthentication=yes", "sleep 600"]),
            (stay, &["-N"]),
            ("", &persist),
        ] {
            let here = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let port = here.local_addr().unwrap().port();
            drop(here);
            let forward = format!("{port}:127.0.0.1:{}", sshd.port);
            let words = [&["-L", &forward], words].concat();
            let mut client = configured(&world, &sshd, config, "known_hosts", &words);
            // What stays in the background would keep pipes open.
            client.stdout(Stdio::null()).stderr(Stdio::null());
            let ended = task::spawn_blocking(move || client.status().unwrap()).await;
            let code = if words.contains(&"exit 7") { 7 } else { 0 };
            assert_eq!(ended.code(), Some(code), "{words:?}");
            let mut greeting = [0; 8];
            let mut tcp = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
            tcp.read_exact(&mut greeting).unwrap();
            assert_eq!(&greeting, b"SSH-2.0-", "{words:?}");
            drop(tcp);
            let ssh = listeners(port);
            assert_eq!(ssh.len(), 1, "{words:?}");
            signal(ssh[0], "TERM");
            until("its session has ended", || {
                children_of(daemon.id()).is_empty()
            })
            .await;
        }
        // An ssh that never comes leaves no session behind.
        for words in [&["-V"][..], &["-o", "nosuch=1", "true"]] {
            output(configured(&world, &sshd, "", "known_hosts", words)).await;
            until("the session has ended", || {
                children_of(daemon.id()).is_empty()
            })
            .await;
        }
    });
}

/// Somebody's failed logins shut out everybody, because all came from one address.
#[test]
fn each_client_has_a_source_of_its_own_at_an_sshd_that_counts_by_it() {
    block_on(async {
        let mut world = World::start().await;
        world.rendezvous().await;
        for (greeting, choice) in [
            (
                "SSH-2.0-OpenSSH_9.8 stand-in\r\n",
                daemon::ClientSource::Auto,
            ),
            (
                "SSH-2.0-OpenSSH_9.8 stand-in\r\n",
                daemon::ClientSource::Off,
            ),
            (
                "SSH-2.0-OpenSSH_9.7 stand-in\r\n",
                daemon::ClientSource::Auto,
            ),
        ] {
            let service = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
            let port = service.local_addr().unwrap().port();
            let (send, came) = std::sync::mpsc::channel();
            std::thread::spawn(move || {
                while let Ok((mut tcp, from)) = service.accept() {
                    let _ = tcp.write_all(greeting.as_bytes());
                    if send.send(from.ip().to_string()).is_err() {
                        return;
                    }
                }
            });
            let name = format!("{choice:?}-{port}").to_lowercase();
            let device = name.parse().unwrap();
            world
                .daemon_with(port, |policy| {
                    (policy.client_source, policy.device) = (choice, device);
                })
                .await;
            if choice == daemon::ClientSource::Auto {
                // Asked at the start, from nobody's address.
                assert_ne!(came.recv().unwrap(), "127.0.0.1");
            }
            let has_own = choice == daemon::ClientSource::Auto && greeting.contains("9.8");
            let target = format!("localhost:{port}");
            let base = ["--as", ALICE, "--to", DEVICE, "--device", &name, "-q"];
            let ssh = [&["client"], &base[..], &["--stdio"]].concat();
            let tunnel = [&["tunnel"], &base[..], &["--stdio", &target]].concat();
            let mut sources = Vec::new();
            for words in [&ssh, &ssh, &tunnel] {
                assert_eq!(stdout(world.noports(words)).await, greeting);
                sources.push(came.recv().unwrap());
            }
            let first = sources[0].clone();
            assert_eq!(first != "127.0.0.1", has_own, "{greeting}: {first}");
            assert!(first.starts_with("127."), "{first}");
            assert!(sources.iter().all(|source| *source == first), "{sources:?}");
        }
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
