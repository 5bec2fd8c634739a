//! Services: their files, and what a running one tells whoever started it.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, net::UnixDatagram},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use async_std::task::block_on;

use noports::{service::process, sys::supervisor};

use crate::world::{
    ALICE, DEVICE, Folder, NAME, NOPORTS, Process, World, failure, output, stdout, until,
};

/// What a service's datagrams say, up to the first that `good` likes.
fn heard(socket: &UnixDatagram, good: impl Fn(&str) -> bool) -> Vec<String> {
    let mut all = Vec::new();
    loop {
        let mut bytes = [0; 1024];
        let length = socket
            .recv(&mut bytes)
            .unwrap_or_else(|why| panic!("{why}: {all:?}"));
        all.push(String::from_utf8_lossy(&bytes[..length]).into_owned());
        if all.last().is_some_and(|last| good(last)) {
            return all;
        }
    }
}

#[test]
fn a_service_tells_how_it_is_and_answers_the_watchdog() {
    block_on(async {
        let mut world = World::start().await;
        let server = world.serve_from_a_process().await;
        let (name, state) = (world.dir.path("notify"), world.dir.path("state"));
        let socket = UnixDatagram::bind(&name).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        let mut daemon = world.noports(&[
            "daemon",
            "--as",
            DEVICE,
            "--manager",
            ALICE,
            "--device",
            NAME,
        ]);
        daemon
            .env("NOTIFY_SOCKET", &name)
            .env("WATCHDOG_USEC", "200000")
            .env("NOPORTS_STATE", &state)
            .stderr(Stdio::null());
        let daemon = Process(daemon.spawn().unwrap());
        let told = heard(&socket, |said| said == "READY=1\nSTATUS=as @device");
        assert_eq!(told[0], "READY=1\nSTATUS=logging in as @device");
        let text = fs::read_to_string(&state).unwrap();
        let pid = daemon.id();
        assert!(
            text.contains(&format!(r#""pid":{pid}"#)) && text.contains(r#""state":"connected""#),
            "{text}"
        );
        heard(&socket, |said| said == "WATCHDOG=1");
        drop(server);
        heard(&socket, |said| {
            said.starts_with("READY=1\nSTATUS=") && !said.contains("as @device")
        });
        assert!(
            fs::read_to_string(&state)
                .unwrap()
                .contains(r#""state":"lost""#)
        );
        // It tries again, which is all that can be asked of it.
        heard(&socket, |said| said == "WATCHDOG=1");
        let _server = world.serve();
        heard(&socket, |said| said == "READY=1\nSTATUS=again");
        let ended = Command::new("kill").arg(pid.to_string()).status();
        assert!(ended.unwrap().success());
        heard(&socket, |said| said == "STOPPING=1\nSTATUS=stopping");
    });
}

#[test]
fn a_file_is_written_once_and_nobody_elses_is_replaced() {
    block_on(async {
        let world = World::start().await;
        let image = Folder::new();
        let dir = image.text("");
        let install = |more: &[&str]| {
            let words = [
                "daemon",
                "install",
                "--init",
                "systemd",
                "--destdir",
                &dir,
                "--as",
                DEVICE,
            ];
            let mut command = world.noports(&[&words[..], &["--manager", ALICE], more].concat());
            command.env_remove("SUDO_USER");
            command
        };
        let file = image.path("etc/systemd/system/noports-daemon.service");
        let line = stdout(install(&["--json"])).await;
        assert!(line.contains(r#""changed":true"#), "{line}");
        let text = fs::read_to_string(&file).unwrap();
        let keys = world.dir.text("keys");
        for part in [
            format!(
                "\nExecStart=\"{NOPORTS}\" \"daemon\" \"--as\" \"@device\" \"--manager\" \"@alice\"\n"
            ),
            format!("\nEnvironment=\"NOPORTS_KEYS={keys}\"\n"),
            "\nType=notify\n".to_owned(),
        ] {
            assert!(text.contains(&part), "{part}\n{text}");
        }
        let line = stdout(install(&["--json"])).await;
        assert!(line.contains(r#""changed":false"#), "{line}");
        assert_eq!(stdout(install(&["--print"])).await, text);

        // Other flags, another file; what is only looked at changes nothing.
        stdout(install(&["--hide", "--dry-run"])).await;
        assert_eq!(fs::read_to_string(&file).unwrap(), text);
        stdout(install(&["--hide"])).await;
        assert!(fs::read_to_string(&file).unwrap().contains("\"--hide\""));

        fs::write(&file, "[Service]\nExecStart=/usr/bin/mine\n").unwrap();
        let (code, said) = failure(install(&[])).await;
        assert!(
            code == 1 && said.contains("was not written by noports\n  hint: look at it; --force"),
            "{said}"
        );
        assert!(fs::read_to_string(&file).unwrap().contains("mine"));
        let uninstall = ["daemon", "uninstall", "--destdir", &dir];
        stdout(world.noports(&uninstall)).await;
        assert!(file.exists(), "not ours to remove");
        stdout(install(&["--force"])).await;
        stdout(world.noports(&uninstall)).await;
        assert!(!file.exists());
    });
}

#[test]
fn what_would_not_start_is_refused_with_the_programs_own_words() {
    block_on(async {
        let dir = Folder::new();
        let target = dir.text("image");
        for (words, want) in [
            (
                &["daemon", "--as", "@d"][..],
                (2, "no manager: give at least one --manager or a --policy"),
            ),
            (
                &["daemon", "--as", "@d", "--manager", "@m", "--nope"],
                (2, "unknown flag \"--nope\""),
            ),
            (
                &["rendezvous", "--as", "@r", "--host", "a b"],
                (2, "\"a b\" is not a host name or address"),
            ),
            (&["policy", "--as", "@p"], (2, "no rules given")),
            (
                &["policy", "--as", "@p", "--rules", "none.yaml"],
                (2, "cannot read "),
            ),
            (
                &["atserver", "--listen", "0.0.0.0"],
                (2, "--host must say how clients reach this host"),
            ),
            (
                &["atserver", "--tls-cert", "x"],
                (2, "--tls-cert and --tls-key need each other"),
            ),
            (
                &["daemon", "--as", "a\nb", "--manager", "@m"],
                (2, "cannot be written into a service's file"),
            ),
        ] {
            let mut command = Command::new(NOPORTS);
            command
                .args([
                    words[0],
                    "install",
                    "--init",
                    "openrc",
                    "--destdir",
                    &target,
                ])
                .args(&words[1..])
                .args(["--run-as", &noports::sys::user::name().unwrap()])
                .env("HOME", &dir.0)
                .stdin(Stdio::null());
            for name in [
                "NOPORTS_ROOT",
                "NOPORTS_CA",
                "NOPORTS_KEYS",
                "NOPORTS_AS",
                "SUDO_USER",
            ] {
                command.env_remove(name);
            }
            let (code, said) = failure(command).await;
            assert_eq!(code, want.0, "{words:?}: {said}");
            assert!(said.contains(want.1), "{words:?}: {said}");
            assert!(!dir.path("image").exists(), "{words:?}");
        }
    });
}

/// A person's machine with nothing but cron.
pub struct Cron<'a> {
    world: &'a World,
    pub home: Folder,
}

impl<'a> Cron<'a> {
    pub fn new(world: &'a World) -> Self {
        let home = Folder::new();
        let (tool, table) = (home.path("crontab"), home.text("table"));
        let script =
            format!("#!/bin/sh\ncase $1 in -l) cat '{table}' ;; -) cat >'{table}' ;; esac\n");
        fs::write(&tool, script).unwrap();
        fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).unwrap();
        Self { world, home }
    }

    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = self.world.noports(words);
        let path = format!("{}:/usr/bin:/bin", self.home.text(""));
        command.env("HOME", &self.home.0).env("PATH", path);
        command.env_remove("SUDO_USER");
        command
    }

    /// Under a device's name of its own.
    pub async fn install(&self, instance: &str) {
        let base = [
            "daemon",
            "install",
            "--init",
            "cron",
            "--instance",
            instance,
        ];
        let what = ["--as", DEVICE, "--manager", ALICE, "--device", instance];
        stdout(self.command(&[&base[..], &what].concat())).await;
    }

    async fn uninstall(&self, instance: &str) {
        stdout(self.command(&["daemon", "uninstall", "--instance", instance])).await;
    }

    pub fn file(&self, name: &str) -> std::path::PathBuf {
        self.home.path(".local/share/noports").join(name)
    }

    /// The loop's number.
    fn of_loop(&self, instance: &str) -> u32 {
        let text = fs::read_to_string(self.file(&format!("noports-daemon-{instance}.pid")));
        text.unwrap().trim().parse().unwrap()
    }

    /// The program's number.
    fn program(&self, instance: &str) -> u32 {
        let state = self.file(&format!("noports-daemon-{instance}.state"));
        supervisor::read(&state).unwrap().pid
    }

    async fn status(&self) -> String {
        let told = output(self.command(&["service", "status", "--json"])).await;
        String::from_utf8(told.stdout).unwrap()
    }

    /// Waits until one daemon of this device runs, has told so, and is another one than before.
    pub async fn one_runs(&self, instance: &str, before: u32) {
        let state = self.file(&format!("noports-daemon-{instance}.state"));
        until("one daemon runs, and another one than before", || {
            let now = self.daemons(instance);
            let told = supervisor::read(&state).map(|told| told.pid);
            now.len() == 1 && now[0] != before && told == Some(now[0])
        })
        .await;
    }

    /// All processes whose command line names this machine's daemons of a device.
    pub fn daemons(&self, device: &str) -> Vec<u32> {
        let words = [
            "daemon",
            "--as",
            DEVICE,
            "--manager",
            ALICE,
            "--device",
            device,
        ];
        let home = self.home.0.display().to_string();
        let numbers = fs::read_dir("/proc").unwrap().flatten();
        let numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let ours = |pid: &u32| {
            let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line: Vec<&str> = line.split_terminator('\0').skip(1).collect();
            let environment = fs::read_to_string(format!("/proc/{pid}/environ"));
            line == words && environment.is_ok_and(|all| all.contains(&home))
        };
        numbers.filter(ours).collect()
    }
}

impl Drop for Cron<'_> {
    /// Nothing of it stays, whatever happened.
    fn drop(&mut self) {
        for instance in ["a", "b"] {
            for program in ["daemon", "rendezvous", "atserver"] {
                let mut last = self.command(&[program, "uninstall", "--instance", instance]);
                let _ = last.stderr(Stdio::null()).status();
            }
        }
    }
}

async fn kill(pids: &[u32]) {
    for pid in pids {
        let killed = Command::new("kill").args(["-9", &pid.to_string()]).status();
        assert!(killed.unwrap().success());
    }
    until("they have ended", || pids.iter().all(|pid| !is_alive(*pid))).await;
}

/// Whether there is such a process, and not only what its parent has not asked about yet.
fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| {
        !stat
            .rsplit(')')
            .next()
            .is_some_and(|rest| rest.starts_with(" Z"))
    })
}

/// The loop is gone (out of memory, say) and the daemon still serves.
#[test]
fn a_daemon_whose_loop_is_lost_is_started_anew_once_and_stopped_all_the_same() {
    block_on(async {
        let world = World::start().await;
        let cron = Cron::new(&world);
        cron.install("a").await;
        cron.install("b").await;
        let (first, other) = (cron.program("a"), cron.program("b"));
        assert_eq!(cron.status().await.matches(r#""watched":true"#).count(), 2);
        kill(&[cron.of_loop("a")]).await;
        let told = cron.status().await;
        assert!(told.contains(r#""running":true,"watched":false"#), "{told}");

        stdout(cron.command(&["service", "restart", "daemon"])).await;
        cron.one_runs("a", first).await;
        cron.one_runs("b", other).await;
        assert!(!is_alive(first) && !is_alive(other));
        assert_eq!(cron.status().await.matches(r#""watched":true"#).count(), 2);

        // Lost once more: the same words as before find it, and what is said to be stopped is.
        kill(&[cron.of_loop("a")]).await;
        let lost = cron.program("a");
        cron.install("a").await;
        assert!(!is_alive(lost) && cron.daemons("a").len() == 1);
        kill(&[cron.of_loop("a")]).await;
        cron.uninstall("a").await;
        assert_eq!(cron.daemons("a"), [0; 0]);
        assert_eq!(cron.daemons("b").len(), 1, "another instance");

        // Both are lost.
        let both = [cron.of_loop("b"), cron.program("b")];
        kill(&both).await;
        stdout(cron.command(&["service", "restart"])).await;
        cron.one_runs("b", both[1]).await;
        cron.uninstall("b").await;
        assert_eq!(cron.daemons("b"), [0; 0]);
        let left = fs::read_dir(cron.file("")).unwrap().flatten();
        let left: Vec<_> = left.map(|entry| entry.file_name()).collect();
        let logs = |name: &std::ffi::OsString| name.to_string_lossy().contains(".log");
        assert!(left.iter().all(logs), "{left:?}");
    });
}

/// After a crash and a new start of the machine, the numbers in the files are those of other programs.
#[test]
fn a_number_that_belongs_to_another_program_by_now_is_left_alone() {
    block_on(async {
        let world = World::start().await;
        let cron = Cron::new(&world);
        cron.install("a").await;
        // They look like ours: one names the loop's file, one is a shell that runs a file of nearly that name.
        let script = cron.file("noports-daemon-b.sh");
        let nearly = cron.home.path("noports-daemon-b.sh.sh");
        fs::write(&nearly, "read x\n").unwrap();
        let start = |program: &str, words: &[&Path]| {
            let mut command = Command::new(program);
            command.args(words).stdin(Stdio::piped());
            command.stdout(Stdio::null()).stderr(Stdio::null());
            Process(command.spawn().unwrap())
        };
        let others = [
            start("tail", &[Path::new("-F"), &script]),
            start("sh", &[&nearly]),
            start("cat", &[]),
        ];
        let numbers = others.iter().map(Process::id);
        for number in numbers.chain([cron.of_loop("a"), cron.program("a")]) {
            cron.install("b").await;
            let state = cron.file("noports-daemon-b.state");
            let was = cron.program("b");
            kill(&[cron.of_loop("b"), was]).await;
            fs::write(cron.file("noports-daemon-b.pid"), format!("{number}\n")).unwrap();
            let text = fs::read_to_string(&state).unwrap();
            let text = text.replace(&format!(":{was},"), &format!(":{number},"));
            fs::write(&state, text).unwrap();
            let status = cron.status().await;
            assert_eq!(status.matches(r#""running":true"#).count(), 1, "{status}");
            cron.uninstall("b").await;
            assert!(is_alive(number), "{number}");
            assert_eq!(cron.daemons("a").len(), 1);
        }
    });
}

/// Two of one service would answer everybody twice.
#[test]
fn a_second_process_of_one_service_ends_at_once() {
    block_on(async {
        let world = World::start().await;
        let state = world.dir.path("state");
        let daemon = |device: &str| {
            let base = [
                "daemon",
                "--as",
                DEVICE,
                "--manager",
                ALICE,
                "--device",
                device,
            ];
            let mut command = world.noports(&base);
            command.env("NOPORTS_STATE", &state).stderr(Stdio::null());
            command
        };
        let mut first = Process(daemon(NAME).spawn().unwrap());
        until("the first one is there", || {
            supervisor::read(&state).is_some()
        })
        .await;
        let (code, said) = failure(daemon(NAME)).await;
        assert!(
            code == 1
                && said.contains(
                    "this service is already running, or another program holds its lock\n  hint: "
                ),
            "{code} {said}"
        );
        assert_eq!(supervisor::read(&state).unwrap().pid, first.id());
        // The lock goes with its process, however that ends.
        first.kill();
        let second = Process(daemon(NAME).spawn().unwrap());
        until("the next one is there", || {
            supervisor::read(&state).is_some_and(|told| told.pid == second.id())
        })
        .await;
    });
}

#[cfg(target_os = "linux")]
#[test]
fn a_service_that_was_stopped_is_frozen_and_connected_when_it_goes_on() {
    block_on(async {
        let mut world = World::start().await;
        let _server = world.serve_from_a_process().await;
        let state = world.dir.path("state");
        let mut daemon = world.noports(&["daemon", "--as", DEVICE, "--manager", ALICE]);
        daemon.env("NOPORTS_STATE", &state).stderr(Stdio::null());
        let daemon = Process(daemon.spawn().unwrap());
        let is = |word: &str| process::running(&state).is_some_and(|told| told.state == word);
        let signal = |name: &str| {
            let kill = Command::new("kill")
                .args([name, &daemon.id().to_string()])
                .status();
            assert!(kill.unwrap().success());
        };
        until("it is connected", || is("connected")).await;
        signal("-STOP");
        until("it is frozen", || is("frozen")).await;
        signal("-CONT");
        until("it is connected again", || is("connected")).await;
    });
}
