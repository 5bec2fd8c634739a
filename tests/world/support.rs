//! What unit tests and whole worlds both need: folders, small disks, namespaces, and how to wait for what tells nobody.
//! Nothing of the program is used here.
#![allow(dead_code, clippy::unwrap_used)] // The unit tests have it, too (`src/testing.rs`); each uses a part.

use std::{
    env, fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

/// A folder that goes with its owner.
pub struct Folder(pub PathBuf, tempfile::TempDir);

impl Folder {
    pub fn new() -> Self {
        let own = tempfile::tempdir().unwrap();
        // Not through links: some compare whole paths with what the kernel says.
        Self(fs::canonicalize(own.path()).unwrap(), own)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// What is in it, in order.
    pub fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

/// How often to look for what tells nobody that it has changed: files, and the processes of others.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// Only bounds a test that fails.
const DEADLINE: Duration = Duration::from_secs(60);

/// Waits until something is so.
pub async fn until(what: &str, so: impl FnMut() -> bool) {
    assert!(becomes(so).await, "never: {what}");
}

/// The same, and says whether it ever was.
pub async fn becomes(mut so: impl FnMut() -> bool) -> bool {
    let began = Instant::now();
    while !so() {
        if began.elapsed() > DEADLINE {
            return false;
        }
        async_io::Timer::after(LOOK_AGAIN).await;
    }
    true
}

/// The same, on this thread.
pub fn wait_until(what: &str, so: impl FnMut() -> bool) {
    async_io::block_on(until(what, so));
}

/// Set inside: the folder that the outer run has made.
const INSIDE: &str = "NOPORTS_TEST_INSIDE";

/// Whether this is the run inside.
pub fn is_inside() -> bool {
    env::var_os(INSIDE).is_some()
}

/// Runs a test of this executable once more, in these namespaces, after a script that may use them as root (`$0` is
/// `folder`). The folder, in that other run; `None` once the other run has passed.
pub fn inside(test: &str, namespaces: &[&str], script: &str, folder: &Folder) -> Option<PathBuf> {
    if let Some(folder) = env::var_os(INSIDE) {
        return Some(folder.into());
    }
    let output = Command::new("unshare")
        .args(namespaces)
        .args(["sh", "-c", script])
        .arg(&folder.0)
        .arg(env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, &folder.0)
        .output()
        .expect("unshare, of util-linux");
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(
        output.status.success(),
        "{}; this test needs namespaces of its own ({namespaces:?}): root, or user namespaces for everybody\n{said}",
        output.status,
    );
    assert!(said.contains("1 passed"), "{test} is the test's name");
    None
}

/// A small disk of its own.
pub struct Disk(pub PathBuf);

impl Disk {
    /// One of so many megabytes: only in another run of the calling test, where mounting is allowed and nobody else
    /// sees it. `None` once that run has passed.
    pub fn of(test: &str, megabytes: u32) -> Option<Self> {
        let namespaces = match rustix::process::geteuid().is_root() {
            true => &["--mount"][..],
            false => &["--mount", "--map-root-user"],
        };
        let script = format!("mount -t tmpfs -o size={megabytes}m tmpfs \"$0\" && exec \"$@\"");
        inside(test, namespaces, &script, &Folder::new()).map(Self)
    }

    /// From now on nothing can be written to it.
    pub fn make_read_only(&self) {
        let mut command = Command::new("mount");
        // Of this mount alone: an ordinary user's namespace may not change the file system itself.
        command.args(["-o", "remount,bind,ro"]).arg(&self.0);
        assert!(command.status().unwrap().success());
    }

    /// Takes all room but so many bytes.
    pub fn fill(&self, left: u64) {
        let found = rustix::fs::statvfs(&self.0).unwrap();
        let free = found.f_bavail * found.f_frsize;
        let mut file = fs::File::create(self.filler()).unwrap();
        let piece = vec![1u8; 64 * 1024];
        for _ in 0..free.saturating_sub(left) / piece.len() as u64 {
            file.write_all(&piece).unwrap();
        }
        // To the last byte.
        while left == 0 && file.write_all(&[1; 4096]).is_ok() {}
    }

    pub fn make_room(&self) {
        fs::remove_file(self.filler()).unwrap();
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }
}

/// A pipe with a name: whoever opens it the usual way waits for the other end.
pub fn named_pipe(folder: &Path) -> PathBuf {
    use rustix::fs::{CWD, FileType, Mode};
    let path = folder.join("pipe");
    rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    path
}

/// As fast as somebody or something that is played here. Never to wait for something.
pub fn at_a_pace(pause: Duration) {
    thread::sleep(pause);
}

/// Sends a signal, such as `STOP`, to a process that a test started.
pub fn signal(pid: u32, name: &str) {
    let status = Command::new("kill")
        .args([format!("-{name}"), pid.to_string()])
        .status();
    assert!(status.unwrap().success());
}
