//! Packages, images and services: who is restarted and who is left alone, what is refused before anything is written, and the
//! scripts that packages run.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use async_std::task::block_on;

use noports::{
    np::ports::Logins,
    service::process,
    sys::{supervisor, user},
};

use crate::{
    service::Cron,
    world::{
        ALICE, DEVICE, Folder, NAME, NOPORTS, Process, RENDEZVOUS, World, failure, output,
        ports::{Asker, joined},
        stdout,
        support::inside,
        until,
    },
};

const REPOSITORY: &str = env!("CARGO_MANIFEST_DIR");

/// A program in the place of another one.
fn script(path: &Path, text: &str) {
    fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn said(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr].concat();
    String::from_utf8(both).unwrap()
}

fn sessions(state: &Path) -> Option<u64> {
    supervisor::read(state)?.sessions
}

/// A session goes through the rendezvous' own process, so its restart would cut it.
#[test]
fn a_restart_leaves_a_rendezvous_that_carries_sessions_and_says_so() {
    block_on(async {
        let world = World::start().await;
        let cron = Cron::new(&world);
        let base = ["rendezvous", "install", "--init", "cron", "--instance", "a"];
        let me = user::me().unwrap().name;
        let what = ["--as", RENDEZVOUS, "--host", "127.0.0.1", "--run-as", &me];
        stdout(cron.command(&[&base[..], &what].concat())).await;
        cron.install("b").await;
        let state = cron.file("noports-rendezvous-a.state");
        let daemon = cron.file("noports-daemon-b.state");
        let pid = |state: &Path| supervisor::read(state).unwrap().pid;
        until("it says that there is none", || sessions(&state) == Some(0)).await;

        let mut asker = Asker::start(&world).await;
        let granted = asker.ask(Logins::BOTH).await;
        // Ports that nobody has come to are no session yet.
        assert_eq!(sessions(&state), Some(0));
        let ends = [granted.client(None), granted.daemon(None)];
        joined("a session", &ends[0], &ends[1]);
        until("it says that there is one", || sessions(&state) == Some(1)).await;
        let (before, daemon_before) = (pid(&state), pid(&daemon));
        let status = output(cron.command(&["rendezvous", "status"])).await;
        assert!(said(&status).contains("\n  sessions    1\n"), "{status:?}");

        for words in [
            &["service", "restart"][..],
            &["service", "restart", "rendezvous"],
        ] {
            let (code, told) = failure(cron.command(words)).await;
            let want = "noports-rendezvous-a goes on as it is: a restart would end its session\n  hint: once they are over, \
                        or to end them now: noports service restart rendezvous --force";
            assert!(code == 1 && told.contains(want), "{words:?} {told}");
        }
        assert_eq!(pid(&state), before);
        joined("the same session", &ends[0], &ends[1]);
        // A daemon's sessions are processes of their own.
        cron.one_runs("b", daemon_before).await;

        drop(ends);
        until("it is over", || sessions(&state) == Some(0)).await;
        stdout(cron.command(&["service", "restart", "rendezvous"])).await;
        let runs = || process::running(&state).is_some_and(|told| told.pid != before);
        until("another one runs", runs).await;

        // By force.
        until("it says that there is none", || sessions(&state) == Some(0)).await;
        let mut asker = Asker::start(&world).await;
        let granted = asker.ask(Logins::BOTH).await;
        let ends = [granted.client(None), granted.daemon(None)];
        joined("a session", &ends[0], &ends[1]);
        until("it says that there is one", || sessions(&state) == Some(1)).await;
        let before = pid(&state);
        stdout(cron.command(&["service", "restart", "--force"])).await;
        let runs = || process::running(&state).is_some_and(|told| told.pid != before);
        until("another one runs", runs).await;
    });
}

#[test]
fn a_rendezvous_of_a_version_that_tells_no_number_is_left_alone_too() {
    block_on(async {
        let world = World::start().await;
        let cron = Cron::new(&world);
        let base = ["rendezvous", "install", "--init", "cron", "--instance", "a"];
        let me = user::me().unwrap().name;
        let what = ["--as", RENDEZVOUS, "--host", "127.0.0.1", "--run-as", &me];
        stdout(cron.command(&[&base[..], &what].concat())).await;
        let state = cron.file("noports-rendezvous-a.state");
        until("it says that there is none", || sessions(&state) == Some(0)).await;
        let text = fs::read_to_string(&state).unwrap();
        fs::write(
            &state,
            text.replace(r#""sessions":0"#, r#""sessions":null"#),
        )
        .unwrap();
        assert_eq!(sessions(&state), None);
        let (code, told) = failure(cron.command(&["service", "restart"])).await;
        assert!(
            code == 1 && told.contains("would end its sessions"),
            "{told}"
        );
    });
}

/// `dpkg -r` and the like: all of this executable, and of no other.
#[test]
fn uninstall_of_all_stops_instances_and_leaves_what_starts_another_executable() {
    block_on(async {
        let world = World::start().await;
        let cron = Cron::new(&world);
        cron.install("a").await;
        cron.install("b").await;
        let other = cron.file("noports-daemon-c.sh");
        let text = fs::read_to_string(cron.file("noports-daemon-a.sh")).unwrap();
        fs::write(&other, text.replace(NOPORTS, "/opt/other/noports")).unwrap();
        let done = output(cron.command(&["service", "uninstall"])).await;
        assert!(done.status.success(), "{done:?}");
        for instance in ["a", "b"] {
            let line = format!("noports-daemon-{instance} is stopped, ");
            assert!(said(&done).contains(&line), "{done:?}");
            assert_eq!(cron.daemons(instance), [0; 0]);
            assert!(!cron.file(&format!("noports-daemon-{instance}.sh")).exists());
        }
        assert!(other.exists());
        fs::remove_file(other).unwrap();
        // Once more there is nothing to do, which is fine.
        stdout(cron.command(&["service", "uninstall"])).await;
        stdout(cron.command(&["service", "restart", "--after-upgrade"])).await;
    });
}

/// Somebody else on a machine of its own: an account, a crontab, an executable for all.
struct SharedMachine<'a> {
    world: &'a World,
    folder: PathBuf,
    person: user::Person,
}

impl<'a> SharedMachine<'a> {
    const UID: u32 = 54_321;

    fn new(world: &'a World, folder: &Path) -> Self {
        let person = user::Person {
            name: "pi".to_owned(),
            uid: Self::UID,
            gid: Self::UID,
            home: folder.join("pi"),
        };
        let machine = Self {
            world,
            folder: folder.to_owned(),
            person,
        };
        machine.new_executable();
        let keys = machine.person.home.join("keys");
        fs::create_dir_all(&keys).unwrap();
        let file = world.key_file(&DEVICE.parse().unwrap());
        let copy = keys.join(file.file_name().unwrap());
        fs::copy(file, &copy).unwrap();
        for path in [&machine.person.home, &keys, &copy] {
            chown(path, Some(Self::UID), Some(Self::UID)).unwrap();
        }
        machine
    }

    fn executable(&self) -> PathBuf {
        self.folder.join("noports")
    }

    /// As a package does: a new file in the old one's place.
    fn new_executable(&self) {
        let fresh = self.folder.join("fresh");
        fs::copy(NOPORTS, &fresh).unwrap();
        fs::rename(fresh, self.executable()).unwrap();
    }

    fn as_person(&self, words: &[&str]) -> Command {
        let mut command = self.person.command(&self.executable());
        let ca = self.folder.join("ca.pem");
        fs::copy(self.world.dir.path("at/ca.pem"), &ca).unwrap();
        command.args(words).env("NOPORTS_ROOT", self.world.root());
        command.env("NOPORTS_CA", ca);
        command.env("NOPORTS_KEYS", self.person.home.join("keys"));
        command
    }

    fn as_root(&self, words: &[&str]) -> Command {
        let mut command = Command::new(self.executable());
        command.args(words).env("HOME", self.folder.join("root"));
        command.env_remove("SUDO_USER").stdin(Stdio::null());
        command
    }
}

#[test]
fn root_reaches_peoples_own_services_and_names_what_it_cannot_reach() {
    if !rustix::process::geteuid().is_root() {
        return; // Nobody else can become somebody else.
    }
    let test = "packages::root_reaches_peoples_own_services_and_names_what_it_cannot_reach";
    let folder = Folder::new();
    // Of this machine's accounts and tools nothing changes.
    let prepare = format!(
        r#"chmod 755 "$0" && {{ cat /etc/passwd; echo "pi:x:{uid}:{uid}::$0/pi:/bin/sh"; }} >"$0/passwd" &&
        mount --bind "$0/passwd" /etc/passwd && mount -t tmpfs -o mode=755 tmpfs /usr/local/bin &&
        printf '#!/bin/sh\ncase $1 in -l) cat ~/table ;; -) cat >~/table ;; esac\n' >/usr/local/bin/crontab &&
        chmod 755 /usr/local/bin/crontab && exec "$@""#,
        uid = SharedMachine::UID
    );
    let Some(folder) = inside(test, &["--mount"], &prepare, &folder) else {
        return;
    };
    block_on(async {
        let world = World::start().await;
        let machine = SharedMachine::new(&world, &folder);
        let device = ["--as", DEVICE, "--manager", ALICE, "--device"];
        let install = ["daemon", "install", "--init", "cron"];
        stdout(machine.as_person(&[&install[..], &device, &["own"]].concat())).await;
        let mut by_hand = machine.as_person(&[&["daemon"], &device[..], &["by_hand"]].concat());
        let by_hand = Process(by_hand.stderr(Stdio::null()).spawn().unwrap());
        let state = machine
            .person
            .home
            .join(".local/share/noports/noports-daemon.state");
        let before = supervisor::read(&state).unwrap().pid;

        machine.new_executable();
        // Only named.
        let only_own = ["service", "restart", "--after-upgrade", "--own"];
        let told = said(&output(machine.as_root(&only_own)).await);
        for pid in [before, by_hand.id()] {
            let left = format!("the daemon of pi, process {pid}, still runs");
            assert!(told.contains(&left), "{told}");
        }
        assert_eq!(supervisor::read(&state).unwrap().pid, before, "{told}");
        assert!(process::is_alive(before), "{told}");

        let done = output(machine.as_root(&["service", "restart", "--after-upgrade"])).await;
        let told = said(&done);
        assert!(told.contains("pi: noports-daemon is restarted\n"), "{told}");
        let left = format!("the daemon of pi, process {}, still runs", by_hand.id());
        assert!(told.contains(&left), "{told}");
        assert_eq!(told.matches("still runs").count(), 1, "{told}");
        let runs = || process::running(&state).is_some_and(|told| told.pid != before);
        until("another one runs", runs).await;
        let now = supervisor::read(&state).unwrap().pid;
        let status = fs::read_to_string(format!("/proc/{now}/status")).unwrap();
        let uid = format!("\nUid:\t{}\t", SharedMachine::UID);
        assert!(status.contains(&uid), "{status}");
        assert_eq!(
            fs::read_link(format!("/proc/{now}/exe")).unwrap(),
            machine.executable()
        );

        let (code, told) = failure(machine.as_root(&["service", "uninstall", "--own"])).await;
        let refused = "nothing was removed, for this runs from here: the daemon of pi, process ";
        assert!(code == 1 && told.contains(refused), "{told}");
        for pid in [now, by_hand.id()] {
            assert!(told.contains(&format!("process {pid}")), "{told}");
        }
        stdout(machine.as_root(&["service", "uninstall", "--own", "--force"])).await;
        assert!(process::running(&state).is_some(), "{told}");

        let done = output(machine.as_root(&["service", "uninstall"])).await;
        let told = said(&done);
        assert!(told.contains("pi: noports-daemon is stopped, "), "{told}");
        let left = format!("process {}, is no service and still runs", by_hand.id());
        assert!(told.contains(&left), "{told}");
        assert!(process::running(&state).is_none(), "{told}");
        assert_eq!(
            fs::read_to_string(machine.person.home.join("table")).unwrap(),
            ""
        );
    });
}

/// What the scripts of a package run, and that a failure of it does not stop the package.
#[test]
fn the_scripts_of_the_deb_restart_what_runs_and_remove_all_services() {
    let folder = Folder::new();
    let tree = folder.path("tree");
    fs::create_dir_all(tree.join("packaging/licences")).unwrap();
    for name in [
        "Cargo.toml",
        "LICENSE",
        "packaging/deb.sh",
        "packaging/licences/crates.txt",
        "packaging/licences/musl-and-zig.txt",
    ] {
        fs::copy(Path::new(REPOSITORY).join(name), tree.join(name)).unwrap();
    }
    // Prints its manual pages, and notes what it is asked for.
    let log = folder.text("log");
    script(
        &tree.join("noports"),
        &format!(
            "[ \"$1\" != docs ] || {{ mkdir -p \"$3/zsh/site-functions\" \"$3/man/man1\"
            : >\"$3/zsh/site-functions/_noports\"; : >\"$3/man/man1/noports.1\"; exit; }}
            echo \"$*\" >>'{log}'; echo 'noports-daemon is told'; exit 1"
        ),
    );
    let run = |program: &str, words: &[&str]| {
        let mut command = Command::new(program);
        let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", tree.display());
        command.args(words).current_dir(&tree).env("PATH", path);
        let done = command.stdin(Stdio::null()).output().unwrap();
        assert!(
            done.status.success(),
            "{program} {words:?}: {}",
            said(&done)
        );
        said(&done)
    };
    run("sh", &["packaging/deb.sh", "x86_64", "./noports", "out"]);
    let package = fs::read_dir(tree.join("out")).unwrap().next().unwrap();
    let package = package.unwrap().path().display().to_string();
    run("dpkg-deb", &["--control", &package, "control"]);
    for (words, want) in [
        (&["control/postinst", "configure"][..], ""),
        (
            &["control/postinst", "configure", "0.0.9"],
            "service restart --after-upgrade\n",
        ),
        (&["control/prerm", "upgrade", "0.2.0"], ""),
        (&["control/prerm", "remove"], "service uninstall\n"),
    ] {
        fs::write(&log, "").unwrap();
        let told = run("sh", words);
        assert_eq!(fs::read_to_string(&log).unwrap(), want, "{words:?}");
        // Whoever upgrades sees it.
        assert_eq!(
            told.contains("noports-daemon is told"),
            !want.is_empty(),
            "{words:?}"
        );
    }
}

/// As somebody without cron, or who may not use it: nothing is written, and a dry run says the same.
#[test]
fn a_service_that_could_not_be_started_is_refused_before_anything_is_written() {
    block_on(async {
        let world = World::start().await;
        let home = Folder::new();
        let tools = home.path("tools");
        fs::create_dir(&tools).unwrap();
        let crontab = tools.join("crontab");
        for (answer, want) in [
            (None, "cron cannot be used: "),
            (
                Some("echo 'You (pi) are not allowed to use this program (crontab)' >&2; exit 1"),
                "cron cannot be used: You (pi) are not allowed",
            ),
            (
                Some("echo 'crontab: must be suid to work properly' >&2; exit 1"),
                "cron cannot be used: crontab: must be suid",
            ),
            (
                Some("echo 'crontab: Permission denied' >&2; exit 126"),
                "cron cannot be used: crontab: Permission denied",
            ),
        ] {
            if let Some(answer) = answer {
                script(&crontab, answer);
            }
            for more in [&[][..], &["--dry-run"]] {
                let words = ["daemon", "install", "--init", "cron", "--as", DEVICE];
                let mut command =
                    world.noports(&[&words[..], &["--manager", ALICE], more].concat());
                command.env("HOME", &home.0).env("PATH", &tools);
                command.env_remove("SUDO_USER");
                let (code, told) = failure(command).await;
                assert!(code == 1 && told.contains(want), "{more:?} {told}");
                assert!(!home.path(".local").exists(), "{more:?} {told}");
            }
        }
        if !rustix::process::geteuid().is_root() || Path::new("/sbin/procd").exists() {
            return;
        }
        for more in [&[][..], &["--dry-run"]] {
            let words = ["daemon", "install", "--init", "procd", "--as", DEVICE];
            let words = [&words[..], &["--manager", ALICE], more].concat();
            let (code, told) = failure(world.noports(&words)).await;
            let want = "procd does not start services here; nothing was written";
            assert!(code == 1 && told.contains(want), "{more:?} {told}");
            assert!(!Path::new("/etc/init.d/noports-daemon").exists());
        }
    });
}

#[test]
fn who_listens_to_strangers_is_root_only_if_told_so() {
    if !rustix::process::geteuid().is_root() || user::by_name("noports").is_some() {
        return;
    }
    block_on(async {
        let world = World::start().await;
        let image = Folder::new();
        let root_file = image.path("data");
        fs::create_dir(&root_file).unwrap();
        assert_eq!(root_file.metadata().unwrap().uid(), 0);
        let base = ["install", "--init", "openrc", "--destdir"];
        for (program, words) in [
            ("rendezvous", &["--as", RENDEZVOUS, "--host", "rv"][..]),
            ("atserver", &["--port", "6400"]),
            (
                "atserver",
                &["--port", "6400", "--data", &image.text("data")],
            ),
        ] {
            let command = |more: &[&str]| {
                let target = image.text("target");
                let all = [&[program], &base[..], &[&target], words, more].concat();
                let mut command = world.noports(&all);
                command.env("SUDO_USER", "root");
                command
            };
            let (code, told) = failure(command(&[])).await;
            let want = format!("noports {program} would run as root\n  hint: --run-as USER");
            assert!(code == 2 && told.contains(&want), "{told}");
            assert!(!image.path("target").exists(), "{told}");
            stdout(command(&["--run-as", "root"])).await;
            fs::remove_dir_all(image.path("target")).unwrap();

            // cron's are those of whoever installs them.
            for init in ["cron", "systemd-user"] {
                let print = |more: &[&str]| {
                    let all = [
                        &[program, "install", "--init", init, "--print"],
                        words,
                        more,
                    ];
                    world.noports(&all.concat())
                };
                let (code, told) = failure(print(&[])).await;
                let want = format!(
                    "noports {program} would run as root\n  hint: let another user install it: su USER -c 'noports {program} install"
                );
                assert!(code == 2 && told.contains(&want), "{init} {told}");
                stdout(print(&["--run-as", "root"])).await;
            }
        }
    });
}

#[test]
fn an_image_starts_its_services_at_boot() {
    block_on(async {
        let world = World::start().await;
        for (init, file, link) in [
            (
                "systemd",
                "/etc/systemd/system/noports-daemon.service",
                "etc/systemd/system/multi-user.target.wants/noports-daemon.service",
            ),
            (
                "openrc",
                "/etc/init.d/noports-daemon",
                "etc/runlevels/default/noports-daemon",
            ),
            (
                "procd",
                "/etc/init.d/noports-daemon",
                "etc/rc.d/S95noports-daemon",
            ),
        ] {
            let image = Folder::new();
            let target = image.text("");
            let command = |word: &str, more: &[&str]| {
                let mut command =
                    world.noports(&[&["daemon", word, "--destdir", &target], more].concat());
                command.env_remove("SUDO_USER");
                command
            };
            let install = ["--init", init, "--as", DEVICE, "--manager", ALICE];
            stdout(command(
                "install",
                &[&install[..], &["--no-start"]].concat(),
            ))
            .await;
            assert!(fs::symlink_metadata(image.path(link)).is_err(), "{init}");
            for _ in 0..2 {
                stdout(command("install", &install)).await;
                assert_eq!(fs::read_link(image.path(link)).unwrap(), Path::new(file));
            }
            stdout(command("uninstall", &[])).await;
            assert!(fs::symlink_metadata(image.path(link)).is_err(), "{init}");
        }
    });
}

/// An image has no service manager: its engine asks the program itself.
#[test]
fn status_in_a_container_is_what_its_program_tells() {
    block_on(async {
        let world = World::start().await;
        let state = world.dir.path("state");
        let status = |program: &str| {
            let mut command = world.noports(&[program, "status"]);
            command.env("NOPORTS_STATE", &state);
            command
        };
        for program in ["daemon", "rendezvous", "policy", "atserver"] {
            let done = output(status(program)).await;
            assert_eq!(done.status.code(), Some(1), "{done:?}");
            assert!(said(&done).contains("  running     no"), "{done:?}");
        }
        let mut daemon = world.noports(&[
            "daemon",
            "--as",
            DEVICE,
            "--manager",
            ALICE,
            "--device",
            NAME,
        ]);
        daemon.env("NOPORTS_STATE", &state).stderr(Stdio::null());
        let mut daemon = Process(daemon.spawn().unwrap());
        let is = |word: &str| process::running(&state).is_some_and(|told| told.state == word);
        until("it is connected", || is("connected")).await;
        let done = output(status("daemon")).await;
        assert!(
            done.status.success() && said(&done).contains("as @device"),
            "{done:?}"
        );
        daemon.kill();
        assert_eq!(output(status("daemon")).await.status.code(), Some(1));
    });
}

#[test]
fn status_of_an_atserver_is_the_services_and_with_a_folder_the_servers() {
    block_on(async {
        let world = World::start().await;
        let cron = Cron::new(&world);
        let data = cron.home.text("house");
        let base = [
            "atserver",
            "install",
            "--init",
            "cron",
            "--instance",
            "a",
            "--data",
            &data,
        ];
        let me = user::me().unwrap().name;
        let ports = ["--port", "0", "--first-port", "0", "--run-as", &me];
        stdout(cron.command(&[&base[..], &ports].concat())).await;
        let done = output(cron.command(&["atserver", "status"])).await;
        assert!(
            said(&done).starts_with("noports-atserver-a  (cron, "),
            "{done:?}"
        );
        let done = output(cron.command(&["atserver", "status", "--data", &data])).await;
        assert!(said(&done).starts_with("running      process "), "{done:?}");
        stdout(cron.command(&["atserver", "uninstall", "--instance", "a"])).await;
        let done = output(cron.command(&["atserver", "status", "--data", &data])).await;
        assert_eq!(done.status.code(), Some(4), "{done:?}");
    });
}

#[test]
fn help_on_install_shows_examples_of_its_own_program() {
    for program in ["daemon", "rendezvous", "policy", "atserver"] {
        let done = Command::new(NOPORTS)
            .args([program, "install", "--help"])
            .output();
        let text = said(&done.unwrap());
        let examples = text.lines().filter(|line| line.starts_with("  noports "));
        let examples: Vec<_> = examples.collect();
        let own = format!("  noports {program} install ");
        assert!(
            !examples.is_empty() && examples.iter().all(|line| line.starts_with(&own)),
            "{program} {examples:?}"
        );
    }
}

/// Engines differ: there may be no `compose cp`, and no answer at all.
#[test]
fn first_keys_come_by_words_that_every_engine_has_and_a_silent_one_is_no_endless_wait() {
    let folder = Folder::new();
    let place = folder.path("containers");
    fs::create_dir(&place).unwrap();
    let name = "packaging/containers/first-keys.sh";
    fs::copy(
        Path::new(REPOSITORY).join(name),
        place.join("first-keys.sh"),
    )
    .unwrap();
    let (tools, log) = (folder.path("tools"), folder.text("log"));
    fs::create_dir(&tools).unwrap();
    script(&tools.join("sleep"), "");
    script(&tools.join("noports"), "cat >/dev/null; : >\"${8}\"");
    let run = |engine: &str| {
        script(&tools.join("engine"), engine);
        let mut command = Command::new("sh");
        command
            .arg(place.join("first-keys.sh"))
            .env("COMPOSE", "engine compose");
        let path = format!("{}:/usr/bin:/bin", tools.display());
        command
            .env("PATH", path)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    };
    let silent = run("case \"$*\" in *export-ca*) echo 'no such container' >&2; exit 1 ;; esac");
    assert_eq!(silent.status.code(), Some(1));
    let want = "first-keys: the atServer does not answer: no such container\n";
    assert!(said(&silent).contains(want), "{silent:?}");

    let works = run(&format!(
        "echo \"$*\" >>'{log}'; case \"$*\" in *' cp '*) exit 1 ;; *export-ca*) echo PEM ;; *'atserver add'*) echo secret ;; \
         *' run '*) cat >/dev/null ;; esac"
    ));
    assert!(works.status.success(), "{works:?}");
    assert_eq!(fs::read_to_string(place.join("ca.pem")).unwrap(), "PEM\n");
    let asked = fs::read_to_string(&log).unwrap();
    for (service, who) in [("daemon", "my_device"), ("rendezvous", "my_rendezvous")] {
        let want = format!("compose run --rm -T --no-deps {service} activate @{who} ");
        assert!(asked.contains(&want), "{asked}");
    }
    let mut names: Vec<_> = fs::read_dir(&place)
        .unwrap()
        .flatten()
        .map(|one| one.file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["ca.pem", "first-keys.sh", "keys"]);
}
