//! What running programs may still do: the limits of every thread, files outside of what a role may use, and that a session,
//! a reverse login and an upgrade work inside.

use std::{
    fs,
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
};

use async_std::task::block_on;
use noports::{
    at::AtSign,
    np::{
        ids::{DeviceName, SessionId},
        request,
        reverse::{ReverseRequest, private_key_message},
        sshkey::PublicKeyLine,
    },
    secret::Secret,
    sys::{
        sandbox::tasks::{self, TaskLimits},
        ssh_key::SshKey,
        user,
    },
};

use crate::{
    generations::daemon::Hand,
    tunnel::Tunnel,
    world::{
        ALICE, DEVICE, NAME, NOPORTS, Process, World, answer_at_the_end, children_of, stdout,
        support, until,
    },
};

const POLICY: &str = "@policy";
/// The right to listen on a port below 1024, as the kernel numbers it.
const LOW_PORTS: u64 = 1 << 10;

/// Whether all threads of a process have these limits: a filter of system calls, no new privileges, no capabilities but
/// these.
fn is_confined(pid: u32, kept: u64) -> bool {
    let tasks = tasks::of_process(pid);
    assert!(!tasks.is_empty(), "{pid}");
    tasks.iter().all(|task| {
        task.no_new_privileges && task.filtered == has_filter() && task.capabilities & !kept == 0
    })
}

/// There is one for these machines.
fn has_filter() -> bool {
    cfg!(any(target_arch = "x86_64", target_arch = "aarch64"))
}

fn rules(world: &World) -> String {
    fs::create_dir_all(world.dir.path("rules")).unwrap();
    let text = format!(
        "userGroups:\n  ops:\n    userAtSigns: ['{ALICE}']\n    permissions:\n      daemonAtSigns: ['{DEVICE}']\n"
    );
    fs::write(world.dir.path("rules/policy.yaml"), text).unwrap();
    world.dir.text("rules/policy.yaml")
}

fn policy(world: &World, words: &[&str]) -> Process {
    let rules = world.dir.text("rules/policy.yaml");
    let base = ["policy", "serve", "--as", POLICY, "--rules", &rules];
    world.process(&[&base[..], words].concat())
}

/// A daemon whose person is at home in the world's folder.
fn daemon(world: &World, program: &Path, words: &[&str]) -> Process {
    let base = ["daemon", "--as", DEVICE, "--manager", ALICE];
    let more = ["--device", NAME, "--permit-open", "localhost:*", "--json"];
    let mut command = world.program(&program.display().to_string());
    command
        .args([&base[..], &more, words].concat())
        .env("HOME", &world.dir.0)
        .env_remove("XDG_RUNTIME_DIR");
    world.ready("daemon", command)
}

fn device() -> DeviceName {
    NAME.parse().unwrap()
}

/// What goes through comes back.
fn carries(mut tcp: TcpStream) {
    tcp.write_all(b"through the device").unwrap();
    tcp.shutdown(Shutdown::Write).unwrap();
    let mut heard = String::new();
    tcp.read_to_string(&mut heard).unwrap();
    assert_eq!(heard, "through the device");
}

/// Replaces a file by renaming another one over it.
fn replace(file: &Path, text: &str) {
    let draft = file.with_extension("draft");
    fs::write(&draft, text).unwrap();
    fs::rename(&draft, file).unwrap();
}

#[test]
fn every_thread_of_every_role_is_confined_and_a_session_works_inside() {
    block_on(async {
        let mut world = World::start().await;
        world.activate(POLICY, "session", "@device_example").await;
        rules(&world);
        let server = world.serve_from_a_process().await;
        let (rendezvous, policy) = (world.rendezvous_process(), policy(&world, &[]));
        let daemon = daemon(&world, Path::new(NOPORTS), &[]);
        let tunnel = Tunnel::open(&world, answer_at_the_end().await, &[]);
        carries(tunnel.connect());
        let bridges = children_of(daemon.id());
        assert_eq!(bridges.len(), 1);
        let mut roles = vec![
            (rendezvous.id(), 0),
            (policy.id(), 0),
            (daemon.id(), 0),
            (server.id(), LOW_PORTS),
        ];
        roles.extend(bridges.iter().map(|bridge| (*bridge, 0)));
        for (pid, kept) in &roles {
            assert!(is_confined(*pid, *kept), "{:?}", tasks::of_process(*pid));
        }
        // The person is told of each.
        let said = stdout(world.noports(&["selftest"])).await;
        for (pid, _) in roles {
            let line = said
                .lines()
                .find(|line| line.contains(&format!(" {pid}, ")));
            let line = line.unwrap_or_else(|| panic!("{pid}: {said}"));
            assert!(!line.contains("NOT no new privileges"), "{line}");
            assert_eq!(line.contains("NOT system calls"), !has_filter(), "{line}");
        }
    });
}

/// The daemon was not allowed to choose an address to come from, so its bridges were not either, and said they had.
#[test]
fn a_confined_daemons_bridges_come_from_their_clients_address() {
    block_on(async {
        let mut world = World::start().await;
        world.rendezvous().await;
        let sshd = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = sshd.local_addr().unwrap().port().to_string();
        let (send, came) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            while let Ok((mut tcp, from)) = sshd.accept() {
                let _ = tcp.write_all(b"SSH-2.0-OpenSSH_9.8 stand-in\r\n");
                if send.send(from.ip().to_string()).is_err() {
                    return;
                }
            }
        });
        let _daemon = daemon(&world, Path::new(NOPORTS), &["--sshd-port", &port]);
        let question = came.recv().unwrap();
        let ssh = ["client", "--as", ALICE, "--to", DEVICE, "--device", NAME];
        let ssh = [&ssh[..], &["-q", "--stdio"]].concat();
        assert!(stdout(world.noports(&ssh)).await.starts_with("SSH-2.0-"));
        let session = came.recv().unwrap();
        for from in [&question, &session] {
            assert!(from.starts_with("127.") && from != "127.0.0.1", "{from}");
        }
        assert_ne!(question, session);
    });
}

#[test]
fn no_sandbox_leaves_a_daemon_and_its_bridges_as_they_were_started() {
    block_on(async {
        let mut world = World::start().await;
        world.rendezvous().await;
        let daemon = daemon(&world, Path::new(NOPORTS), &["--no-sandbox"]);
        let tunnel = Tunnel::open(&world, answer_at_the_end().await, &[]);
        carries(tunnel.connect());
        let own = tasks::of_process(std::process::id());
        let own: &TaskLimits = own.first().unwrap();
        let bridges = children_of(daemon.id());
        assert_eq!(bridges.len(), 1);
        for pid in bridges.into_iter().chain([daemon.id()]) {
            let tasks = tasks::of_process(pid);
            assert!(tasks.iter().all(|task| task == own), "{tasks:?}");
        }
    });
}

#[test]
fn rules_are_read_again_after_a_rename_and_not_through_a_link_to_elsewhere() {
    block_on(async {
        let world = World::start().await;
        world.activate(POLICY, "session", "@device_example").await;
        let file = rules(&world);
        let text = fs::read_to_string(&file).unwrap();
        fs::create_dir(world.dir.path("elsewhere")).unwrap();
        let elsewhere = world.dir.path("elsewhere/policy.yaml");
        fs::write(&elsewhere, text.replace(ALICE, "@elsewhere")).unwrap();
        for (words, reads) in [(&[][..], false), (&["--no-sandbox"], true)] {
            replace(Path::new(&file), &text);
            let before = world.log("policy").len();
            let _policy = policy(&world, words);
            let log = || world.log("policy")[before..].to_owned();
            let read = || log().matches("rules=new").count();
            replace(Path::new(&file), &text.replace(ALICE, "@renamed"));
            until("they are read again", || read() == 1).await;
            let link = world.dir.path("rules/link");
            symlink(&elsewhere, &link).unwrap();
            fs::rename(&link, &file).unwrap();
            let refused = || log().contains("Permission denied");
            if reads {
                until("the other ones are read", || read() == 2).await;
                assert!(!refused());
            } else {
                until("they are out of reach", refused).await;
            }
        }
    });
}

#[test]
fn authorized_keys_that_somebody_renames_over_are_written_and_not_through_a_link_to_elsewhere() {
    block_on(async {
        let world = World::start().await;
        let _daemon = daemon(&world, Path::new(NOPORTS), &["--accept-keys"]);
        let (ssh, elsewhere) = (world.dir.path(".ssh"), world.dir.path("elsewhere"));
        let file = ssh.join("authorized_keys");
        let alice = Hand::of_alice(&world).await;
        let line = |name: &str| {
            let key = SshKey::generate().unwrap().public;
            PublicKeyLine::parse(&format!("{key} {name}")).unwrap()
        };
        let said = |what: &str| world.log("daemon").matches(what).count();
        for (n, before) in ["# one person\n", "# another one\n"].iter().enumerate() {
            replace(&file, before);
            let line = line("alice");
            alice
                .send(line.message(&DEVICE.parse().unwrap(), &device()))
                .await;
            let added = "public_key=added";
            until(added, || said(added) == n + 1).await;
            let now = fs::read_to_string(&file).unwrap();
            assert_eq!(now, format!("{before}{line}\n"));
        }
        fs::create_dir(&elsewhere).unwrap();
        fs::write(elsewhere.join("authorized_keys"), "").unwrap();
        fs::remove_file(&file).unwrap();
        symlink(elsewhere.join("authorized_keys"), &file).unwrap();
        let line = line("alice");
        alice
            .send(line.message(&DEVICE.parse().unwrap(), &device()))
            .await;
        until("it is refused", || said("public_key=lost") == 1).await;
        assert_eq!(
            fs::read_to_string(elsewhere.join("authorized_keys")).unwrap(),
            ""
        );
    });
}

#[test]
fn an_executable_that_was_replaced_still_starts_bridges() {
    block_on(async {
        let mut world = World::start().await;
        world.rendezvous().await;
        fs::create_dir(world.dir.path("bin")).unwrap();
        let program = world.dir.path("bin/noports");
        fs::copy(NOPORTS, &program).unwrap();
        let daemon = daemon(&world, &program, &[]);
        let service = answer_at_the_end().await;
        carries(Tunnel::open(&world, service, &[]).connect());
        // As install.sh and packages do it.
        fs::write(world.dir.path("bin/new"), "#!/bin/sh\nexit 9\n").unwrap();
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(world.dir.path("bin/new"), mode).unwrap();
        fs::rename(world.dir.path("bin/new"), &program).unwrap();
        let tunnel = Tunnel::open(&world, service, &[]);
        carries(tunnel.connect());
        for bridge in children_of(daemon.id()) {
            assert!(is_confined(bridge, 0), "{:?}", tasks::of_process(bridge));
        }
    });
}

#[test]
fn a_reverse_login_runs_ssh_with_its_configuration_inside() {
    block_on(async {
        let world = World::start().await;
        let sshd = world.sshd().await;
        // The person's settings lead through a program of theirs, which leaves a trace where it may.
        let (ssh, bin) = (world.dir.path(".ssh"), world.dir.path("bin"));
        fs::create_dir(&ssh).unwrap();
        fs::create_dir(&bin).unwrap();
        let hop = bin.join("hop");
        let script = format!(
            "#!/bin/sh\necho through >>{0}/hops\ncat /proc/self/status >{0}/limits\nexec \"{NOPORTS}\" bridge --no-sandbox --host \"$1\" --port \"$2\" --stdio\n",
            ssh.display()
        );
        fs::write(&hop, script).unwrap();
        fs::set_permissions(&hop, fs::Permissions::from_mode(0o755)).unwrap();
        let config = format!("Host 127.0.0.1\n  ProxyCommand {} %h %p\n", hop.display());
        fs::write(ssh.join("config"), &config).unwrap();
        // ssh asks the list of users where home is, not the environment: so that it finds this one, it is named.
        let wrapper = bin.join("ssh");
        let text = format!(
            "#!/bin/sh\nexec /usr/bin/ssh -F {}/config \"$@\"\n",
            ssh.display()
        );
        fs::write(&wrapper, text).unwrap();
        fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).unwrap();
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
        let port = answer_at_the_end().await.to_string();
        let base = [
            "daemon",
            "--as",
            DEVICE,
            "--manager",
            ALICE,
            "--device",
            NAME,
        ];
        let more = ["--sshd-port", &port, "--reverse-ssh", "--json"];
        let mut command = world.noports(&[&base[..], &more].concat());
        command
            .env("HOME", &world.dir.0)
            .env("PATH", path)
            .env_remove("XDG_RUNTIME_DIR");
        let daemon = world.ready("daemon", command);
        let mut alice = Hand::of_alice(&world).await;
        let pem = Secret::new(fs::read_to_string(&sshd.identity).unwrap());
        let to: AtSign = DEVICE.parse().unwrap();
        let (id, forward) = (SessionId::random(), free_port());
        let request = ReverseRequest {
            forward,
            host: "127.0.0.1".into(),
            port: sshd.port,
            user: user::name().unwrap(),
            session: Some(id),
        };
        alice.send(private_key_message(&pem, &to, &device())).await;
        alice.send(request.message(&to, &device())).await;
        let answer = alice.hear(&request::answer_entity(id, &device())).await;
        assert_eq!(answer, "connected", "{}", world.log("daemon"));
        carries(TcpStream::connect(("127.0.0.1", forward)).unwrap());
        assert_eq!(fs::read_to_string(ssh.join("hops")).unwrap(), "through\n");
        let limits = fs::read_to_string(ssh.join("limits")).unwrap();
        assert!(limits.contains("NoNewPrivs:\t1"), "{limits}");
        assert!(is_confined(daemon.id(), 0));
    });
}

fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.local_addr().unwrap().port()
}

#[test]
fn names_that_somebody_renames_into_place_are_found_by_a_daemon_that_runs() {
    let folder = support::Folder::new();
    let etc = folder.path("etc");
    fs::create_dir(&etc).unwrap();
    for file in ["passwd", "group", "ld.so.cache"] {
        let _ = fs::copy(Path::new("/etc").join(file), etc.join(file));
    }
    fs::write(etc.join("nsswitch.conf"), "hosts: files\n").unwrap();
    fs::write(etc.join("hosts"), "127.0.0.1 localhost\n").unwrap();
    let namespaces = match rustix::process::geteuid().is_root() {
        true => &["--mount"][..],
        false => &["--mount", "--map-root-user"],
    };
    let test = "sandbox::names_that_somebody_renames_into_place_are_found_by_a_daemon_that_runs";
    let script = "mount --bind \"$0/etc\" /etc && exec \"$@\"";
    if support::inside(test, namespaces, script, &folder).is_none() {
        return;
    }
    block_on(async {
        let mut world = World::start().await;
        world.rendezvous().await;
        let etc = Path::new("/etc/hosts");
        let words = ["--permit-open", "nas.test:*"];
        let base = [
            "daemon",
            "--as",
            DEVICE,
            "--manager",
            ALICE,
            "--device",
            NAME,
        ];
        let daemon = world.process(&[&base[..], &words].concat());
        let service = answer_at_the_end().await;
        let forward = format!("0:nas.test:{service}");
        let open = || Tunnel::open_at(&world, DEVICE, &forward, &[]);
        let (tunnel, mut heard) = (open(), Vec::new());
        let ended = tunnel.connect().read_to_end(&mut heard);
        assert!(ended.is_err() || heard.is_empty(), "nobody has that name");
        replace(etc, "127.0.0.1 localhost nas.test\n");
        let tunnel = open();
        carries(tunnel.connect());
        assert!(is_confined(daemon.id(), 0));
    });
}
