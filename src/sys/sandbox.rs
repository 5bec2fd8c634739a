//! What a running program may still do: set before its first thread, so every thread and every child has it, for good.
//!
//! ```text
//!   argv ▶ keys, rules, authorities are read ▶ confine ▶ threads, network, children
//!                                              │ no new privileges: nothing that it starts gains any (sudo, setuid)
//!                                              │ no capabilities: root is a user like any other
//!                                              │ Landlock: these files and folders, these TCP ports, no signals to others
//!                                              └ seccomp: none of the system calls in `calls`
//! ```
//! What is read once at start, key files above all, is read before and cannot be read after.
//!
//! | | reads | writes | runs | listens, dials (TCP) |
//! | --- | --- | --- | --- | --- |
//! | all of them | names of hosts and users, `/proc`, limits of memory | `/dev/null`, the terminal | – | |
//! | daemon | | `~/.ssh`, what it remembers, its state, the runtime folder | itself | no, yes |
//! | … `--reverse-ssh` | home | `~/.sshnp` | ssh and what its settings name | yes, yes |
//! | bridge | | the folder of control sockets | – | no (one that dials sshd from a client's address: on any free port), the ports of its two ends |
//! | rendezvous | | its state | – | yes, yes |
//! | atserver | | its data, its state | – | yes, yes |
//! | policy | the folder of its rules | what it remembers, its state | – | no, yes |
//!
//! Files that others replace by renaming (`resolv.conf`, `authorized_keys`, rules, an atServer's authority) are allowed with
//! their folder; and because the folder of a resolver may not be there yet when a device starts, `/run` is read as a whole.
//! The kernel still asks for the permission bits: who runs as root may read all of `/etc`, everybody else what is theirs.
//!
//! What stays open to who breaks into one: to a bridge, these two TCP ports at any host, and UDP to anywhere. On a kernel whose
//! Landlock knows no sockets by path, a program that may open local sockets reaches all that the user may (an ssh-agent, another
//! bridge's control socket); a bridge and a rendezvous may open none once they have started, where the C library is musl, as in
//! the static executable. The resolver of glibc needs them.
//!
//! Not confined: the client and the tunnel, because they run the person's ssh with the person's settings, which may well
//! use `sudo` (their bridges are); what sshd does for a session, because the system's sshd is no child of ours; words that
//! install, enrol or show something. A filter of system calls is made for `x86_64` and `aarch64`; on 32-bit ARM there is
//! none. What the kernel does not offer is left out: the program runs, and says so once.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

#[cfg(target_os = "linux")]
mod calls;
#[cfg(target_os = "linux")]
mod files;
#[cfg(target_os = "linux")]
mod privileges;
pub mod tasks;

/// Paths that a table allows.
type Paths = &'static [&'static str];

/// What one kind of program may use, apart from the folders that are known only when it starts.
#[derive(Debug)]
pub struct Role {
    name: &'static str,
    reads: &'static [Paths],
    writes: &'static [Paths],
    runs: &'static [Paths],
    /// Opens TCP ports.
    listens: bool,
    /// As root it keeps the right to listen on a port below 1024.
    low_ports: bool,
    /// Opens sockets to local programs, such as an agent's or another bridge's.
    local_sockets: bool,
}

/// glibc's resolver asks local programs (nscd, sssd, systemd-resolved), musl's asks name servers only.
const RESOLVER_IS_LOCAL: bool = !cfg!(target_env = "musl");

/// A daemon.
pub const DAEMON: Role = Role {
    name: "daemon",
    reads: &[NAMES, MACHINE],
    writes: &[DEVICES],
    // A bridge is the very file that runs, whatever has taken its name.
    runs: &[ITSELF, LOADER],
    listens: false,
    low_ports: false,
    local_sockets: true,
};

/// A daemon that also logs in to clients: ssh with its configuration, and what that starts.
pub const DAEMON_WITH_SSH: Role = Role {
    runs: &[ITSELF, LOADER, PROGRAMS],
    // Forwardings of its configuration.
    listens: true,
    ..DAEMON
};

/// One session.
pub const BRIDGE: Role = Role {
    name: "bridge",
    runs: &[],
    // Its control socket is open before.
    local_sockets: RESOLVER_IS_LOCAL,
    ..DAEMON
};

/// A rendezvous.
pub const RENDEZVOUS: Role = Role {
    name: "rendezvous",
    listens: true,
    ..BRIDGE
};

/// An atDirectory and its atServers.
pub const ATSERVER: Role = Role {
    name: "atserver",
    listens: true,
    local_sockets: true,
    low_ports: true,
    ..BRIDGE
};

/// A policy.
pub const POLICY: Role = Role {
    name: "policy",
    local_sockets: true,
    ..BRIDGE
};

/// Who is where: `resolv.conf`, `hosts`, `passwd` and what they are links to.
const NAMES: Paths = &["/etc", "/run"];
/// Files in these may be links to anywhere.
const LINKED: Paths = &["/etc/resolv.conf", "/etc/hosts", "/etc/passwd"];
/// Processes, limits of memory, processors; libraries that a resolver may bring along.
const MACHINE: Paths = &[
    "/proc",
    "/sys/fs/cgroup",
    "/sys/devices/system/cpu",
    #[cfg(target_env = "gnu")]
    "/lib",
    #[cfg(target_env = "gnu")]
    "/lib64",
    #[cfg(target_env = "gnu")]
    "/usr",
    #[cfg(target_env = "gnu")]
    "/nix/store",
    #[cfg(target_env = "gnu")]
    "/var/lib/sss",
];
const DEVICES: Paths = &[
    "/dev/null",
    "/dev/zero",
    "/dev/random",
    "/dev/urandom",
    "/dev/tty",
];
const ITSELF: Paths = &["/proc/self/exe"];
/// What starts an executable that is not static.
const LOADER: Paths = &[
    #[cfg(target_env = "gnu")]
    "/lib",
    #[cfg(target_env = "gnu")]
    "/lib64",
    #[cfg(target_env = "gnu")]
    "/nix/store",
];
/// Where programs of the system are. `/etc`: some settings call scripts there.
const PROGRAMS: Paths = &[
    "/bin",
    "/sbin",
    "/usr",
    "/lib",
    "/lib32",
    "/lib64",
    "/opt",
    "/etc",
    "/nix/store",
    "/gnu/store",
    "/snap",
];

/// DNS over TCP, for long answers.
const DNS: u16 = 53;
/// Most symbolic links that are followed.
const MAX_LINKS: usize = 16;

/// What one process may use.
#[derive(Debug)]
pub struct Confinement {
    role: &'static Role,
    reads: Vec<PathBuf>,
    writes: Vec<PathBuf>,
    runs: Vec<PathBuf>,
    dials: Option<Vec<u16>>,
    /// It chooses the address that it dials from, which means that it binds sockets, to whichever port is free.
    chooses_sources: bool,
}

/// What the kernel took on.
#[derive(Clone, Debug, Default)]
pub struct Confined {
    /// The generation of Landlock that guards files.
    pub files: Option<u8>,
    /// A filter of system calls.
    pub calls: bool,
    /// Children gain no privileges.
    pub no_new_privileges: bool,
    /// None is left but what the role needs.
    pub capabilities_dropped: bool,
    /// What could not be had, and why.
    pub missing: Vec<String>,
}

impl Confinement {
    /// By the role's table, and with the folder of the service's state.
    pub fn of(role: &'static Role) -> Self {
        let listed =
            |table: &[Paths]| -> Vec<PathBuf> { table.concat().iter().map(Into::into).collect() };
        let mut reads = listed(role.reads);
        reads.extend(LINKED.iter().flat_map(|file| folders_to(Path::new(file))));
        Self {
            role,
            reads,
            writes: listed(role.writes),
            runs: listed(role.runs),
            dials: None,
            chooses_sources: false,
        }
        .writes(super::supervisor::folder())
    }

    /// It may read what is in this folder.
    #[must_use]
    pub fn reads(mut self, folders: impl IntoIterator<Item = PathBuf>) -> Self {
        self.reads.extend(folders);
        self
    }

    /// It may do in this folder what it likes; make it first.
    #[must_use]
    pub fn writes(mut self, folders: impl IntoIterator<Item = PathBuf>) -> Self {
        self.writes.extend(folders);
        self
    }

    /// It may run what is in this folder.
    #[must_use]
    pub fn runs(mut self, folders: impl IntoIterator<Item = PathBuf>) -> Self {
        self.runs.extend(folders);
        self
    }

    /// It dials only these TCP ports, and those of the resolver.
    #[must_use]
    pub fn dials(mut self, ports: impl IntoIterator<Item = u16>) -> Self {
        self.dials = Some(ports.into_iter().chain([DNS]).collect());
        self
    }

    /// It may choose the address that it dials from.
    #[must_use]
    pub fn chooses_sources(mut self, chooses: bool) -> Self {
        self.chooses_sources = chooses;
        self
    }

    /// Confines this process, which has one thread, and with it all that it starts from now on. What the kernel does not offer is left out and
    /// said in the log.
    pub fn enter(&self) -> Confined {
        let mut confined = self.enter_here();
        let threads = tasks::of_process(std::process::id()).len();
        if threads > 1 {
            confined.lacks("all", format_args!("{threads} threads run already"));
        }
        let role = self.role.name;
        if confined.missing.is_empty() {
            log::debug!("sandbox=active role={role} {confined}");
        } else {
            log::info!("sandbox=partial role={role} {confined}");
        }
        confined
    }

    /// The same for a thread beside others, which stay as they are; nothing is said.
    #[cfg(target_os = "linux")]
    pub fn enter_here(&self) -> Confined {
        let mut confined = Confined::default();
        match rustix::thread::set_no_new_privs(true) {
            Ok(()) => confined.no_new_privileges = true,
            Err(why) => confined.lacks("no_new_privileges", why),
        }
        match privileges::drop_all_but(self.kept_capabilities()) {
            Ok(()) => confined.capabilities_dropped = true,
            Err(why) => confined.lacks("capabilities", why),
        }
        match files::confine(self) {
            Ok(generation) => confined.files = Some(generation),
            Err(why) => confined.lacks("files", why),
        }
        match calls::confine(self.role.local_sockets) {
            Ok(()) => confined.calls = true,
            Err(why) => confined.lacks("calls", why),
        }
        confined
    }

    /// Nothing can be taken on.
    #[cfg(not(target_os = "linux"))]
    pub fn enter_here(&self) -> Confined {
        let mut confined = Confined::default();
        confined.lacks("all", "this system has no Landlock and no seccomp");
        confined
    }

    /// Root that works in a folder of somebody else's needs its right to do so.
    #[cfg(target_os = "linux")]
    fn kept_capabilities(&self) -> rustix::thread::CapabilitySet {
        use std::os::unix::fs::MetadataExt;
        let is_foreign = |folder: &PathBuf| {
            folder.is_dir() && fs::metadata(folder).is_ok_and(|about| about.uid() != 0)
        };
        let foreign = rustix::process::geteuid().is_root() && self.writes.iter().any(is_foreign);
        privileges::needed(foreign, self.role.low_ports)
    }
}

impl Confined {
    fn lacks(&mut self, what: &str, why: impl fmt::Display) {
        self.missing.push(format!("{what} ({why})"));
    }
}

/// For a log, and for the person: `files=landlock_7 calls=seccomp …`.
impl fmt::Display for Confined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(generation) = self.files {
            write!(f, "files=landlock_{generation} ")?;
        }
        if self.calls {
            f.write_str("calls=seccomp ")?;
        }
        if self.capabilities_dropped {
            f.write_str("capabilities=dropped ")?;
        }
        let privileges = if self.no_new_privileges {
            "none_new"
        } else {
            "any"
        };
        write!(f, "privileges={privileges}")?;
        if !self.missing.is_empty() {
            write!(f, " missing={:?}", self.missing.join(", "))?;
        }
        Ok(())
    }
}

/// The folders that lead to a file, one for each symbolic link on the way: another file may take its name in any of them.
/// Of a folder that is not there, the one above it.
pub fn folders_to(file: &Path) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    let Ok(mut here) = std::path::absolute(file) else {
        return folders;
    };
    for _ in 0..MAX_LINKS {
        let Some(folder) = here.ancestors().skip(1).find(|folder| folder.is_dir()) else {
            break;
        };
        // Everything is below the root.
        if folder.parent().is_some() {
            folders.push(folder.to_owned());
        }
        match fs::read_link(&here) {
            Ok(target) => here = here.with_file_name("").join(target),
            Err(_) => break,
        }
    }
    folders
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
