//! Sessions between clients and daemons of each generation, through a real sshd.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, fs::symlink, process::ExitStatusExt},
    process::{Command, Stdio},
    thread,
};

use async_std::task::block_on;
use noports::{
    classic::generation::Profile,
    program::daemon,
    sys::{sshd::Sshd, user},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::world::{
    ALICE, DEVICE, NOPORTS, Process, RENDEZVOUS, World, answer_at_the_end, children_of, failure,
    output, sessions::Person, stdout, until,
};

/// Flags for sessions with whoever knows no protection.
const BARE: &[&str] = &["--no-encrypt", "--no-admit-client", "--no-admit-device"];

/// A world with an sshd that lets in whoever stands in the home's `authorized_keys`.
struct Scene {
    world: World,
    sshd: Sshd,
    person: Person,
}

impl Scene {
    async fn start(generation: Option<&str>) -> Self {
        let mut world = World::start().await;
        let habits = generation.map(|name| Profile::named(name).unwrap().rendezvous.unwrap());
        world
            .rendezvous_with(|policy| policy.habits = habits.unwrap_or_default())
            .await;
        let sshd = world.sshd().await;
        let person = Person::at_home(&world);
        Self {
            world,
            sshd,
            person,
        }
    }

    /// A daemon of this generation (none: ours), under its own name.
    async fn daemon(&mut self, name: &str, change: impl FnOnce(&mut daemon::DaemonOptions)) {
        let file = self.person.file();
        self.world
            .daemon_with(self.sshd.port, |policy| {
                policy.device = name.parse().unwrap();
                policy.ssh.file = Some(file);
                policy.client_source = daemon::ClientSource::Auto;
                change(policy);
            })
            .await;
    }

    /// `noports client` of a generation (empty: ours) to a device.
    fn client(&self, generation: &str, device: &str, flags: &[&str], ssh: &[&str]) -> Command {
        let (port, known) = (self.sshd.port.to_string(), self.world.dir.text("known"));
        let (identity, user) = (self.sshd.identity.display().to_string(), user::name());
        let known = format!("UserKnownHostsFile={known}");
        let who = ["client", "--as", ALICE, "--to", DEVICE, "--device", device];
        let how = ["--user", user.as_deref().unwrap(), "--identity", &identity];
        let ports = ["--remote-sshd-port", &port, "--local-sshd-port", &port];
        let behind = ["--", "-F", "none", "-o", &known, "-o", "BatchMode=yes"];
        let host = ["-o", "StrictHostKeyChecking=accept-new"];
        let words = [&who[..], &how, &ports, flags, &["-v"], &behind, &host, ssh];
        let mut command = self.world.noports(&words.concat());
        command
            .env("NOPORTS_GENERATION", generation)
            .env("HOME", self.person.home())
            .env_remove("XDG_RUNTIME_DIR");
        command
    }

    /// The same session as the classic client asks for it.
    fn classic(&self, device: &str, flags: &[&str]) -> Command {
        let link = self.world.dir.path("sshnp");
        if !link.exists() {
            symlink(NOPORTS, &link).unwrap();
        }
        let mut command = self.world.program(&link.display().to_string());
        let (user, port) = (user::name().unwrap(), self.sshd.port.to_string());
        command
            .args(["-f", ALICE, "-t", DEVICE, "-d", device, "-r", RENDEZVOUS])
            .args(["-u", &user, "--local-sshd-port", &port])
            .arg("-i")
            .arg(&self.sshd.identity)
            .args(flags)
            .env("HOME", self.person.home())
            .env_remove("XDG_RUNTIME_DIR");
        command
    }

    /// Starts a program, sends it these signals once it is `so`, and waits until it has ended; its exit code.
    fn told(
        &self,
        mut command: Command,
        signals: &[Signal],
        so: impl Fn(u32) -> bool,
    ) -> Option<i32> {
        let log = fs::File::create(self.world.dir.path("told.log")).unwrap();
        command.stdout(Stdio::null()).stderr(log);
        let mut process = Process(command.spawn().unwrap());
        while !so(process.id()) {
            if let Some(status) = process.0.try_wait().unwrap() {
                panic!("{status}: {}", self.world.log("told"));
            }
            thread::yield_now();
        }
        let pid = Pid::from_raw(process.id().try_into().unwrap()).unwrap();
        for &signal in signals {
            kill_process(pid, signal).unwrap();
        }
        let status = process.0.wait().unwrap();
        // A shell would say the same of a program that was ended by a signal before it heard any.
        status.code().or(status.signal().map(|number| 128 + number))
    }

    /// Runs a command there; what the client logged.
    async fn works(&self, row: &str, generation: &str, device: &str, flags: &[&str]) -> String {
        let command = self.client(generation, device, flags, &["echo $((6 * 7))"]);
        let done = output(command).await;
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(done.stdout, b"42\n", "{row}: {said}");
        said
    }

    /// Everything that sessions let in is out again, and nothing lies about.
    async fn is_clean(&self) {
        until("the temporary keys are out, and nothing lies about", || {
            self.person.is_untouched() && self.person.leftovers().is_empty()
        })
        .await;
    }
}

#[test]
fn each_client_reaches_each_daemon_that_its_time_knew() {
    block_on(async {
        let mut scene = Scene::start(None).await;
        for (name, generation) in [
            ("v3", "v3"),
            ("rc2", "v4.0-rc.2"),
            ("v4", "v4.0"),
            ("v50", "v5.0"),
            ("v53", "v5.3"),
            ("c", "c"),
            ("python", "python"),
        ] {
            let habits = Profile::named(generation).unwrap().daemon;
            let change = |policy: &mut daemon::DaemonOptions| {
                policy.habits = habits;
                policy.ssh.reverse = true;
            };
            scene.daemon(name, change).await;
        }
        scene.daemon("ours", |_| {}).await;
        const DEVICE_BARE: &[&str] = &["--no-encrypt", "--no-admit-device"];
        for (client, device, flags, want) in [
            ("", "ours", &[][..], "ssh=single encrypted=true"),
            ("", "v53", &[], "ssh=single encrypted=true"),
            ("", "v50", &[], "ssh=single encrypted=true"),
            ("", "c", &[], "ssh=single encrypted=true"),
            ("", "ours", &["--no-encrypt"], "ssh=double encrypted=false"),
            ("", "v53", BARE, "ssh=double encrypted=false"),
            (
                "",
                "v4",
                DEVICE_BARE,
                "generation=5 login=client encryption=none",
            ),
            ("", "v4", BARE, "ssh=double encrypted=false"),
            ("", "python", BARE, "ssh=double encrypted=false"),
            (
                "",
                "rc2",
                BARE,
                "generation=4rc2 login=none encryption=none",
            ),
            (
                "",
                "v3",
                &["--legacy-daemon"],
                "generation=3 login=none encryption=none",
            ),
            ("v5.3", "ours", &[], "encryption=single"),
            ("v5.3", "v4", BARE, "ssh=double encrypted=false"),
            ("v5.0", "v50", &[], "ssh=double encrypted=true"),
            ("v5.0", "v53", &[], "ssh=double encrypted=true"),
            ("v4.0", "v4", &[], "ssh=double encrypted=false"),
            ("v4.0", "ours", &[], "ssh=double encrypted=false"),
            ("v4.0", "v53", &[], "ssh=double encrypted=false"),
            ("v4.0-rc.2", "rc2", &[], "ssh=double encrypted=false"),
            ("v3", "v3", &[], "generation=3"),
            ("v3", "v4", &[], "generation=3"),
        ] {
            let row = format!("{client:?} to {device} with {flags:?}");
            let said = scene.works(&row, client, device, flags).await;
            assert!(said.contains(want), "{row}: {want}\n{said}");
        }
        scene.is_clean().await;
    });
}

#[test]
fn a_rendezvous_before_5_0_takes_sessions_that_ask_for_no_check() {
    block_on(async {
        let mut scene = Scene::start(Some("v4")).await;
        let v4 = Profile::named("v4.0").unwrap().daemon;
        scene.daemon("v4", |policy| policy.habits = v4).await;
        scene
            .daemon("ours", |policy| policy.ssh.reverse = true)
            .await;
        for (client, device, flags) in [
            ("v4.0", "v4", &[][..]),
            ("v4.0", "ours", &[]),
            ("", "ours", BARE),
            // What is not checked may still be encrypted.
            ("", "ours", &["--no-admit-client", "--no-admit-device"]),
            ("v3", "ours", &[]),
        ] {
            let row = format!("{client:?} to {device} with {flags:?}");
            scene.works(&row, client, device, flags).await;
        }
        let silent = scene.client("", "ours", &["--timeout", "2"], &["true"]);
        let (code, said) = failure(silent).await;
        assert_eq!(code, 9, "{said}");
        assert!(said.contains("--no-admit-client"), "{said}");
        scene.is_clean().await;
    });
}

#[test]
fn a_refusal_names_the_flag_that_would_allow_it() {
    block_on(async {
        let mut scene = Scene::start(None).await;
        for (name, generation) in [("v3", "v3"), ("v4", "v4.0"), ("rc2", "v4.0-rc.2")] {
            let habits = Profile::named(generation).unwrap().daemon;
            scene.daemon(name, |policy| policy.habits = habits).await;
        }
        scene.daemon("ours", |_| {}).await;
        let key = scene.sshd.identity.with_extension("pub");
        let (key, private) = (
            key.display().to_string(),
            scene.sshd.identity.display().to_string(),
        );
        for (client, device, flags, code, want) in [
            ("", "v4", &[][..], 8, "--no-admit-device"),
            ("", "v4", &["--no-admit-device"], 8, "--no-encrypt"),
            ("", "v3", BARE, 8, "--legacy-daemon"),
            ("", "ours", &["--send-key", &key], 8, "--accept-keys"),
            ("", "ours", &["--send-key", &private], 2, "id_ed25519.pub"),
            (
                "",
                "v3",
                &["--legacy-daemon", "--stdio"],
                2,
                "--stdio and --legacy-daemon exclude each other",
            ),
            ("v5.0", "ours", &[], 8, "no temporary ssh key"),
            ("v9", "ours", &[], 2, "v9 is not known"),
        ] {
            let row = format!("{client:?} to {device} with {flags:?}");
            let flags = [flags, &["--timeout", "8"]].concat();
            let (got, said) = failure(scene.client(client, device, &flags, &["true"])).await;
            assert_eq!(got, code, "{row}: {said}");
            assert!(said.contains(want), "{row}: {want}\n{said}");
        }
        scene.is_clean().await;
    });
}

#[test]
fn a_key_that_is_sent_is_let_in_for_good() {
    block_on(async {
        let mut scene = Scene::start(None).await;
        let options = daemon::KeyOptions::default();
        let change = |policy: &mut daemon::DaemonOptions| policy.ssh.accept_keys = Some(options);
        scene.daemon("takes", change).await;
        let key = noports::sys::ssh_key::SshKey::generate().unwrap();
        let file = scene.world.dir.path("new.pub");
        fs::write(&file, format!("{} alice@laptop\n", key.public)).unwrap();
        let flags = ["--send-key", file.to_str().unwrap()];
        for _ in 0..2 {
            scene.works("send a key", "", "takes", &flags).await;
            let text = fs::read_to_string(scene.person.file()).unwrap();
            assert_eq!(text.matches(&key.public).count(), 1, "before ssh logs in");
        }
    });
}

/// It was "sent", and whether it was let in stood in the device's log only.
#[test]
fn what_a_device_made_of_a_key_is_told_to_its_sender() {
    block_on(async {
        let mut scene = Scene::start(None).await;
        let dir = scene.world.dir.text("");
        fs::create_dir(scene.world.dir.path("taken")).unwrap();
        fs::write(scene.world.dir.path("plain"), "").unwrap();
        for (device, file) in [
            ("takes", "free"),
            ("no-file", "taken"),
            ("no-folder", "plain/authorized_keys"),
        ] {
            let file = std::path::Path::new(&dir).join(file);
            let change = |policy: &mut daemon::DaemonOptions| {
                policy.ssh.accept_keys = Some(daemon::KeyOptions::default());
                policy.ssh.file = Some(file);
            };
            scene.daemon(device, change).await;
        }
        let key = scene.world.dir.path("new.pub");
        let public = noports::sys::ssh_key::SshKey::generate().unwrap().public;
        fs::write(&key, format!("{public} alice@laptop\n")).unwrap();
        let flags = ["--send-key", key.to_str().unwrap()];
        let lost = "WARNING: the device does not let the ssh public key in: ";
        for (device, want) in [
            (
                "takes",
                "the device lets the ssh public key in, as the user that its daemon runs as\n",
            ),
            ("takes", "the device let the ssh public key in before\n"),
            ("no-file", lost),
            ("no-folder", lost),
        ] {
            // Another key of alice's opens the session in any case.
            let done = output(scene.client("", device, &flags, &["true"])).await;
            let said = String::from_utf8(done.stderr).unwrap();
            assert!(said.contains(want), "{device}: {said}");
            assert_eq!(done.status.code(), Some(0), "{device}: {said}");
        }
    });
}

#[test]
fn a_tunnel_without_encryption_says_so() {
    block_on(async {
        let mut world = World::start().await;
        world.rendezvous().await;
        let echo = answer_at_the_end().await;
        world.daemon(echo).await;
        let forward = format!("0:localhost:{echo}");
        let words = ["tunnel", "--as", ALICE, "--to", DEVICE, "--device", "dev1"];
        for (flags, warned) in [(&[][..], false), (&["--no-encrypt"], true)] {
            let more = ["-q", "--print", "--forward", &forward];
            let done = output(world.noports(&[&words[..], &more, flags].concat())).await;
            let said = String::from_utf8_lossy(&done.stderr).into_owned();
            let port: u16 = String::from_utf8_lossy(&done.stdout)
                .trim()
                .parse()
                .unwrap_or_else(|_| panic!("{flags:?}: {said}"));
            assert_eq!(
                said.contains("this tunnel is not encrypted"),
                warned,
                "{said}"
            );
            let talk = async_std::task::spawn_blocking(move || {
                use std::io::{Read, Write};
                let mut tcp = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
                tcp.write_all(b"there and back").unwrap();
                tcp.shutdown(std::net::Shutdown::Write).unwrap();
                let mut heard = String::new();
                tcp.read_to_string(&mut heard).unwrap();
                heard
            });
            assert_eq!(talk.await, "there and back", "{flags:?}");
        }
    });
}

#[test]
fn print_gives_the_command_for_a_port_that_a_tunnel_holds() {
    block_on(async {
        let mut scene = Scene::start(None).await;
        let v4 = Profile::named("v4.0").unwrap().daemon;
        scene.daemon("v4", |policy| policy.habits = v4).await;
        let flags = [BARE, &["--print"]].concat();
        let printed = stdout(scene.client("", "v4", &flags, &[])).await;
        let mut words = printed.split_whitespace();
        assert_eq!(words.next(), Some("ssh"), "{printed}");
        let mut ssh = scene.world.program("ssh");
        ssh.args(words).arg("echo printed");
        assert_eq!(stdout(ssh).await, "printed\n");
        scene.is_clean().await;
    });
}

#[test]
fn authorized_keys_is_what_it_was_after_sessions_that_were_killed() {
    block_on(async {
        let run = crate::world::sessions::old_sessions(8, 3).await;
        assert!(run.is_untouched, "{run:?}");
        assert_eq!((run.lost, run.leftovers.len()), (0, 0), "{run:?}");
        assert!(run.killed == 3 && run.edits > 0, "{run:?}");
    });
}

/// The usual ways to end a program, also for the impatient.
const SIGNALS: [&[Signal]; 4] = [
    &[Signal::TERM],
    &[Signal::INT],
    &[Signal::HUP],
    &[Signal::INT, Signal::INT, Signal::TERM],
];

/// The classic programs end with 1, ours as if the signal itself had ended them.
fn is_end_by(signals: &[Signal], classic: bool, code: Option<i32>) -> bool {
    let codes = signals.iter().map(|signal| 128 + signal.as_raw());
    if classic {
        code == Some(1)
    } else {
        codes.map(Some).any(|one| one == code)
    }
}

#[test]
fn a_signal_at_any_moment_leaves_no_key_in_authorized_keys() {
    block_on(async {
        let scene = Scene::start(None).await;
        let file = scene.person.file();
        let text = || fs::read_to_string(&file).unwrap();
        let is_written = || text().contains("sshnp_ephemeral_");
        let is_about_to = || !scene.person.leftovers().is_empty() || is_written();
        let moments: [(&str, &dyn Fn(u32) -> bool); 4] = [
            ("before anything", &|_| true),
            ("while the line is written", &|_| is_about_to()),
            ("right after that", &|_| is_written()),
            ("when the bridge is started", &|pid| {
                !children_of(pid).is_empty()
            }),
        ];
        for (moment, so) in moments {
            for signals in SIGNALS {
                for classic in [false, true] {
                    let command = if classic {
                        scene.classic("nosuch", &["--legacy-daemon"])
                    } else {
                        scene.client("", "nosuch", &["--legacy-daemon", "--print"], &[])
                    };
                    let code = scene.told(command, signals, so);
                    let row = format!("{moment}, {signals:?}, classic={classic}");
                    let said = scene.world.log("told");
                    assert!(scene.person.is_untouched(), "{row}: {}\n{said}", text());
                    assert_eq!(scene.person.leftovers(), [""; 0], "{row}: {said}");
                    if moment != "before anything" {
                        assert!(is_end_by(signals, classic, code), "{row}: {code:?} {said}");
                    }
                }
            }
        }
    });
}

#[test]
fn a_line_that_is_left_behind_dies_by_itself() {
    block_on(async {
        let scene = Scene::start(None).await;
        let file = scene.person.file();
        let line = || {
            let text = fs::read_to_string(&file).unwrap();
            let line = text.lines().find(|line| line.contains("sshnp_ephemeral_"));
            line.map(str::to_owned)
        };
        let command = scene.client("", "nosuch", &["--legacy-daemon"], &[]);
        let limits = |line: &str| line.contains(",expiry-time=\"20") && line.contains(",restrict,");
        // This sshd knows expiry times; `the_line_of_a_temporary_key_has_only_options_that_its_sshd_knows` has those that do not.
        let code = scene.told(command, &[Signal::KILL], |_| line().is_some());
        assert_eq!(code, Some(128 + 9));
        let left = line().expect("kill -9 leaves it");
        assert!(limits(&left), "{left}");
        // And the next one takes it out.
        let command = scene.client("", "nosuch", &["--legacy-daemon"], &[]);
        scene.told(command, &[Signal::TERM], |_| {
            line().is_some_and(|line| line != left)
        });
        assert!(scene.person.is_untouched());
    });
}

#[test]
fn a_signal_leaves_no_private_key_of_a_session_in_a_file() {
    block_on(async {
        let mut scene = Scene::start(None).await;
        scene.daemon("ours", |_| {}).await;
        // An ssh that never gets through: it says so, and stays.
        let bin = scene.world.dir.path("stuck");
        fs::create_dir(&bin).unwrap();
        fs::write(bin.join("ssh"), "#!/bin/sh\nexec sleep 600\n").unwrap();
        fs::set_permissions(bin.join("ssh"), fs::Permissions::from_mode(0o755)).unwrap();
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
        let keys = || scene.person.session_keys();
        for signals in SIGNALS {
            for classic in [false, true] {
                let mut command = if classic {
                    scene.classic("ours", &["--no-et", "--no-ad", "--no-ac"])
                } else {
                    scene.client("", "ours", BARE, &[])
                };
                command.env("PATH", &path);
                let code = scene.told(command, signals, |_| keys() > 0);
                let row = format!("{signals:?}, classic={classic}");
                let said = scene.world.log("told");
                assert!(is_end_by(signals, classic, code), "{row}: {code:?} {said}");
                assert_eq!(keys(), 0, "{row}: {said}");
            }
        }
    });
}
