//! Sessions of 4.0 beside a person who edits `authorized_keys`; some of them, and of their daemons, are killed.

use std::{
    fs,
    io::Write,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Stdio,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use noports::sys::user;

use super::{
    ALICE, DEVICE, NAME, Process, World,
    support::{at_a_pace, becomes, wait_until},
};

/// Somebody with a home, and in it the `authorized_keys` of the world's sshd, which does not end with an LF.
pub struct Person {
    home: PathBuf,
    file: PathBuf,
    text: String,
    /// Where clients and daemons of the world keep a session's keys.
    run: PathBuf,
}

/// What a person changes.
fn note(n: usize) -> String {
    format!("# note {n} of a person\n")
}

impl Person {
    /// After the world's sshd has been started.
    pub fn at_home(world: &World) -> Self {
        let (home, file) = (
            world.dir.path("home"),
            world.dir.path("sshd/authorized_keys"),
        );
        fs::create_dir_all(home.join(".ssh")).unwrap();
        let key = fs::read_to_string(&file).unwrap();
        let text = format!("{}{key}# the end, without an LF", note(0));
        fs::write(&file, &text).unwrap();
        symlink(&file, home.join(".ssh/authorized_keys")).unwrap();
        let run = world.dir.path("run");
        Self {
            home,
            file,
            text,
            run,
        }
    }

    /// For `HOME`.
    pub fn home(&self) -> PathBuf {
        self.home.clone()
    }

    /// The file itself.
    pub fn file(&self) -> PathBuf {
        self.file.clone()
    }

    /// Whether it is the person's text, byte for byte, and the link is one.
    pub fn is_untouched(&self) -> bool {
        let link = fs::symlink_metadata(self.home.join(".ssh/authorized_keys"));
        link.is_ok_and(|link| link.is_symlink())
            && fs::read(&self.file).unwrap() == self.text.as_bytes()
    }

    /// Private keys of sessions that lie in files.
    pub fn session_keys(&self) -> usize {
        session_keys(&self.run).len()
    }

    /// What lies about: temporary keys, locks, drafts.
    pub fn leftovers(&self) -> Vec<String> {
        let beside = self.file.parent().unwrap();
        let drafts = names_in(beside, ".auth");
        [session_keys(&self.run), drafts].concat()
    }

    /// Edits until told to stop, by renaming and in place in turn, as editors do; looks each time before the next.
    fn edit(&mut self, done: &AtomicBool) -> usize {
        let mut edits = 0;
        while !done.load(Ordering::SeqCst) {
            let now = fs::read_to_string(&self.file).unwrap();
            let text = now.replace(&note(edits), &note(edits + 1));
            assert_ne!(now, text, "{} is lost: {now:?}", note(edits));
            if edits.is_multiple_of(2) {
                let draft = self.file.with_extension("draft");
                fs::write(&draft, text).unwrap();
                fs::rename(&draft, &self.file).unwrap();
            } else {
                // Not emptied first: an sshd that looks just then would let nobody in.
                let mut file = fs::File::options().write(true).open(&self.file).unwrap();
                file.write_all(text.as_bytes()).unwrap();
                file.set_len(text.len() as u64).unwrap();
            }
            self.text = self.text.replace(&note(edits), &note(edits + 1));
            edits += 1;
            let last = note(edits);
            wait_until(&last, || {
                fs::read_to_string(&self.file).unwrap().contains(&last)
            });
            at_a_pace(Duration::from_millis(150 + 37 * (edits as u64 % 7)));
        }
        edits
    }
}

/// The private keys of sessions in that folder.
pub fn session_keys(folder: &Path) -> Vec<String> {
    names_in(folder, "ephemeral_")
}

fn names_in(folder: &Path, beginning: &str) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with(beginning)).collect()
}

/// What came of a run.
#[derive(Debug)]
pub struct Run {
    /// Sessions that nobody killed and that failed all the same.
    pub lost: usize,
    /// Clients or daemons that were killed.
    pub killed: usize,
    /// How often the person changed the file.
    pub edits: usize,
    /// Whether the file is what the person made of it.
    pub is_untouched: bool,
    /// What still lies about.
    pub leftovers: Vec<String>,
}

/// This many sessions one after another, of which so many are killed at some moment: in turn the client and the
/// daemon, with `kill -9`.
pub async fn old_sessions(sessions: usize, kills: usize) -> Run {
    let mut world = World::start().await;
    world.rendezvous().await;
    let sshd = world.sshd().await;
    let mut person = Person::at_home(&world);
    let (home, port) = (person.home(), sshd.port.to_string());
    let start_daemon = || daemon(&world, &home, &port);
    let mut daemon = start_daemon();
    let done = AtomicBool::new(false);
    let mut run = Run {
        lost: 0,
        killed: 0,
        edits: 0,
        is_untouched: false,
        leftovers: Vec::new(),
    };
    let every = sessions / kills.max(1);
    std::thread::scope(|scope| {
        let editing = scope.spawn(|| person.edit(&done));
        for n in 0..sessions {
            let mut client = client(&world, &home, &sshd.identity, &port);
            if n % every == every - 1 && run.killed < kills {
                // At another moment each time, over the whole length of a session.
                let moment = (run.killed as u64 * 613) % 1900;
                at_a_pace(Duration::from_millis(moment));
                if run.killed.is_multiple_of(2) {
                    client.kill();
                } else {
                    daemon.kill();
                    client.kill();
                    daemon = start_daemon();
                }
                run.killed += 1;
            } else {
                let log = world.log("old-client").len();
                if !client.0.wait().unwrap().success() {
                    run.lost += 1;
                    eprintln!("session {n}: {}", &world.log("old-client")[log..]);
                }
            }
        }
        done.store(true, Ordering::SeqCst);
        run.edits = editing.join().unwrap();
    });
    // The next ones tidy up what the killed ones left: the daemon in authorized_keys, the client its key's file.
    daemon.kill();
    let _daemon = start_daemon();
    let last = client(&world, &home, &sshd.identity, &port).0.wait();
    run.lost += usize::from(!last.unwrap().success());
    becomes(|| person.is_untouched() && person.leftovers().is_empty()).await;
    run.is_untouched = person.is_untouched();
    run.leftovers = person.leftovers();
    run
}

fn daemon(world: &World, home: &PathBuf, port: &str) -> Process {
    let words = [
        "daemon",
        "--as",
        DEVICE,
        "--manager",
        ALICE,
        "--device",
        NAME,
    ];
    let words = [&words[..], &["--sshd-port", port, "--json"]].concat();
    let mut command = world.noports(&words);
    command.env("HOME", home).env("NOPORTS_GENERATION", "v4.0");
    world.ready("daemon", command)
}

fn client(world: &World, home: &PathBuf, identity: &std::path::Path, port: &str) -> Process {
    let (user, identity) = (user::name().unwrap(), identity.display().to_string());
    let known = format!("UserKnownHostsFile={}", world.dir.text("known_hosts"));
    let who = ["--user", &user, "--identity", &identity];
    let behind = [
        "--",
        "-F",
        "none",
        "-o",
        &known,
        "-o",
        "BatchMode=yes",
        "true",
    ];
    let words = [&who[..], &["--remote-sshd-port", port, "-v"], &behind].concat();
    let log = fs::File::options()
        .create(true)
        .append(true)
        .open(world.dir.path("old-client.log"));
    let mut command = world.client(&words);
    command
        .env("HOME", home)
        .env("NOPORTS_GENERATION", "v4.0")
        .env_remove("XDG_RUNTIME_DIR")
        .stdout(Stdio::null())
        .stderr(log.unwrap());
    Process(command.spawn().unwrap())
}
