//! A little network on one machine: a network namespace for each host, and a [delay line](super::line) between them.
//!
//! | a host has | |
//! | --- | --- |
//! | a namespace | of its own for the network and for mounts, without a name: two runs never meet |
//! | `net0` | a TUN device with an IPv4 and an IPv6 address; everything goes out there |
//! | a name | `atserver.test`; all hosts know each other's, by a hosts file |
//! | a keeper | a shell that waits for its stdin to end, then ends all processes of the namespace |
//!
//! So a host goes with its owner, after a panic too, and when the run itself is killed: the kernel closes the pipe. It takes
//! root, `ip`, `unshare` and `nsenter`, and Python for the one ioctl that makes a TUN device. Whatever is missing is an
//! error that says so, never a test that is skipped.

use std::{
    env, fs,
    io::{BufRead, BufReader, IoSliceMut, Read},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::PathBuf,
    process::{Child, ChildStdin, Command, Stdio},
};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use super::line::{Host, Line, Way, Wiring};
use crate::world::{Folder, Process};

/// `$0`: the hosts file; then an IPv4 and an IPv6 address.
const KEEPER: &str = r#"set -e
trap '' INT TERM HUP
ip link set lo up
ip tuntap add dev net0 mode tun
echo 1 >/proc/sys/net/ipv6/conf/net0/keep_addr_on_down
ip link set net0 up
ip addr add "$1/32" dev net0
ip addr add "$2/128" dev net0 nodad
ip route add default dev net0
ip -6 route add default dev net0
mount --bind "$0" /etc/hosts
echo ready
cat >/dev/null || :
for round in 1 2 3; do
    for process in /proc/[0-9]*; do
        id=${process#/proc/}
        if [ "$id" != $$ ] && [ "$process/ns/net" -ef /proc/$$/ns/net ]; then
            kill -9 "$id" || :
        fi
    done
done 2>/dev/null
"#;

/// Attaches to the TUN device and hands its descriptor over, on the socket that is its stdin. IFF_TUN | IFF_NO_PI.
const ATTACH: &str = r#"import fcntl, os, socket, struct
device = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(device, 0x400454CA, struct.pack("16sH22x", b"net0", 0x1001))
socket.send_fds(socket.socket(fileno=0), [b"."], [device])
"#;

/// A host that is many: all of 10.78.0.0/16 and of a /48.
const CROWD_IPV4: u8 = 78;
const CROWD_IPV6: [u16; 3] = [0x2001, 0xdb8, 0xbad];
/// Makes it so, at the host.
const CROWD: &str = "sysctl -qw net.ipv4.ip_nonlocal_bind=1 net.ipv6.ip_nonlocal_bind=1; \
     ip route add local 10.78.0.0/16 dev lo; ip -6 route add local 2001:db8:bad::/48 dev lo";

/// The hosts file, in the network's folder.
const HOSTS: &str = "hosts";

/// A host. Its processes end with it.
struct Namespace {
    keeper: Child,
    /// Its end is the keeper's.
    stdin: Option<ChildStdin>,
    /// How often its addresses have changed.
    moved: u8,
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ = self.keeper.wait();
    }
}

/// The network. Everything in it ends when it is dropped.
pub struct Net {
    // First: what is between goes before its ends.
    line: Line,
    names: Vec<String>,
    hosts: Vec<Namespace>,
    folder: Folder,
}

impl Net {
    /// Hosts of these names, everything between them open.
    ///
    /// # Errors
    /// In a sentence, when this machine cannot do it.
    pub fn of(names: &[String], seed: u64) -> Result<Self, String> {
        let folder = Folder::new();
        let file = folder.path(HOSTS);
        let written = fs::write(&file, hosts_file(names, |_| 0));
        written.map_err(|why| why.to_string())?;
        let (mut hosts, mut devices) = (Vec::new(), Vec::new());
        let mut wiring = Wiring::new(seed);
        for host in 0..names.len() {
            let addresses = addresses(host, 0);
            let namespace = Namespace::open(&file, addresses)?;
            devices.push(namespace.attach()?);
            hosts.push(namespace);
            wiring.address(host, &addresses);
        }
        let line = Line::start(wiring, devices).map_err(|why| format!("the delay line: {why}"))?;
        Ok(Self {
            line,
            names: names.to_vec(),
            hosts,
            folder,
        })
    }

    fn host(&self, name: &str) -> Host {
        let host = self.names.iter().position(|one| one == name);
        host.unwrap_or_else(|| panic!("no host {name}"))
    }

    /// Makes a command one that runs at this host: its first words.
    pub fn at(&self, name: &str) -> [String; 4] {
        let keeper = self.hosts[self.host(name)].keeper.id();
        let target = format!("--target={keeper}");
        ["nsenter", &target, "--net", "--mount"].map(str::to_owned)
    }

    /// The files of this host, as we see them from outside.
    pub fn root(&self, name: &str) -> PathBuf {
        let keeper = self.hosts[self.host(name)].keeper.id();
        PathBuf::from(format!("/proc/{keeper}/root"))
    }

    /// Runs a shell's commands at this host.
    pub fn sh(&self, name: &str, script: &str) {
        let words = self.at(name);
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).args(["sh", "-ec", script]);
        let status = command.status().unwrap();
        assert!(status.success(), "{name}: {script}: {status}");
    }

    /// Changes both ways between two hosts.
    pub fn between(&self, one: &str, other: &str, change: impl Fn(&mut Way)) {
        let (one, other) = (self.host(one), self.host(other));
        let mut wiring = self.line.wiring();
        wiring.change(one, other, &change);
        wiring.change(other, one, &change);
    }

    /// Changes all ways from and to this host.
    pub fn around(&self, name: &str, change: impl Fn(&mut Way)) {
        for other in self.names.iter().filter(|other| *other != name) {
            self.between(name, other, &change);
        }
    }

    /// Changes all ways there are.
    pub fn everywhere(&self, change: impl Fn(&mut Way)) {
        for one in 0..self.names.len() {
            for other in (0..self.names.len()).filter(|other| *other != one) {
                self.line.wiring().change(one, other, &change);
            }
        }
    }

    /// This host has thousands of addresses besides its own.
    pub fn make_crowd(&self, name: &str) {
        self.sh(name, CROWD);
        self.line.wiring().crowd = Some(self.host(name));
    }

    /// From now on first words on connections are noted.
    pub fn listen_in(&self) {
        self.line.wiring().overheard = Some(Vec::new());
    }

    /// What they were.
    pub fn overheard(&self) -> Vec<String> {
        self.line.wiring().overheard.take().unwrap_or_default()
    }

    /// All ways are open again, at full speed.
    pub fn heal(&self) {
        self.line.wiring().heal();
    }

    /// This host's router forgets all connections.
    pub fn forget(&self, name: &str) {
        self.line.wiring().forget(self.host(name));
    }

    /// This host's own end is down, and it knows.
    pub fn unplug(&self, name: &str) {
        self.sh(name, "ip link set net0 down");
    }

    pub fn plug(&self, name: &str) {
        self.sh(
            name,
            "ip link set net0 up; ip route add default dev net0; ip -6 route replace default dev net0",
        );
    }

    /// This host gets other addresses, and loses those it had. Its name is that of the new ones at once.
    pub fn renumber(&mut self, name: &str) {
        let host = self.host(name);
        let moved = self.hosts[host].moved;
        let (old, new) = (addresses(host, moved), addresses(host, moved ^ 1));
        self.hosts[host].moved ^= 1;
        self.sh(
            name,
            &format!(
                "ip addr add {}/32 dev net0; ip addr add {}/128 dev net0 nodad; \
                 ip addr del {}/32 dev net0; ip addr del {}/128 dev net0",
                new[0], new[1], old[0], old[1]
            ),
        );
        self.line.wiring().address(host, &new);
        // In place: it is mounted as it is.
        let text = hosts_file(&self.names, |host| self.hosts[host].moved);
        fs::write(self.folder.path(HOSTS), text).unwrap();
    }

    /// Packets taken, and those of them that went nowhere.
    pub fn packets(&self) -> (u64, u64) {
        let wiring = self.line.wiring();
        (wiring.taken, wiring.dropped)
    }
}

impl Namespace {
    fn open(hosts: &PathBuf, addresses: [IpAddr; 2]) -> Result<Self, String> {
        let mut command = Command::new("unshare");
        command
            .args(["--net", "--mount", "sh", "-c", KEEPER])
            .arg(hosts);
        command.args(addresses.map(|address| address.to_string()));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        command.stderr(Stdio::piped());
        let mut keeper = command
            .spawn()
            .map_err(|why| missing(&format!("unshare: {why}")))?;
        let stdin = keeper.stdin.take();
        let (stdout, stderr) = (keeper.stdout.take().unwrap(), keeper.stderr.take());
        let mut line = String::new();
        let _ = BufReader::new(stdout).read_line(&mut line);
        if line == "ready\n" {
            return Ok(Self {
                keeper,
                stdin,
                moved: 0,
            });
        }
        drop(stdin);
        let mut why = String::new();
        let _ = stderr.unwrap().read_to_string(&mut why);
        let _ = keeper.wait();
        Err(missing(why.trim()))
    }

    /// Its TUN device.
    fn attach(&self) -> Result<OwnedFd, String> {
        let (ours, theirs) = UnixStream::pair().map_err(|why| why.to_string())?;
        let net = format!("--net=/proc/{}/ns/net", self.keeper.id());
        let mut command = Command::new("nsenter");
        command.args([&net, "python3", "-c", ATTACH]);
        command.stdin(OwnedFd::from(theirs)).stderr(Stdio::piped());
        let output = command
            .output()
            .map_err(|why| missing(&format!("nsenter: {why}")))?;
        let why = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            return Err(missing(why.trim()));
        }
        received(&ours).ok_or_else(|| missing("no TUN device came"))
    }
}

fn received(from: &UnixStream) -> Option<OwnedFd> {
    let mut room = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut beside = RecvAncillaryBuffer::new(&mut room);
    let mut byte = [0];
    let mut bytes = [IoSliceMut::new(&mut byte)];
    recvmsg(from, &mut bytes, &mut beside, RecvFlags::CMSG_CLOEXEC).ok()?;
    beside.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    })
}

fn missing(why: &str) -> String {
    format!(
        "this bench needs root, network namespaces, /dev/net/tun, iproute2, util-linux and Python, and does not skip where \
         one is missing: {why}"
    )
}

fn addresses(host: Host, moved: u8) -> [IpAddr; 2] {
    let number = host as u8 + 1;
    let four = Ipv4Addr::new(10, 77, moved, number);
    // For documents, which no rule of choice between addresses puts last: IPv6 is what programs try first.
    let six = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, moved.into(), number.into());
    [four.into(), six.into()]
}

/// The third and fourth byte of the many IPv4 addresses that one host may have besides.
pub fn stranger_ipv4(number: u16) -> Ipv4Addr {
    let [high, low] = number.to_be_bytes();
    Ipv4Addr::new(10, CROWD_IPV4, high, low)
}

/// An IPv6 address of this /64, of those that one host may have besides.
pub fn stranger_ipv6(network: u16) -> Ipv6Addr {
    let [one, two, three] = CROWD_IPV6;
    Ipv6Addr::new(one, two, three, network, 0, 0, 0, 1)
}

/// Whether it is one of these.
pub fn is_of_crowd(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(four) => four.octets()[..2] == [10, CROWD_IPV4],
        IpAddr::V6(six) => six.segments()[..3] == CROWD_IPV6,
    }
}

/// The name of a host, for whoever dials it.
pub fn full_name(host: &str) -> String {
    format!("{host}.test")
}

/// `moved`: where each host has its addresses.
fn hosts_file(names: &[String], moved: impl Fn(Host) -> u8) -> String {
    let mut text = "127.0.0.1 localhost\n::1 localhost\n".to_owned();
    for (host, name) in names.iter().enumerate() {
        for address in addresses(host, moved(host)) {
            text += &format!("{address} {}\n", full_name(name));
        }
    }
    text
}

/// This program, for another role of it in a namespace.
pub fn own_program() -> PathBuf {
    env::current_exe().unwrap()
}

/// Waits for the word of a process whose stdout is piped.
pub fn wait_for_ready(process: &mut Process) {
    let mut line = String::new();
    let stdout = process.0.stdout.take().unwrap();
    BufReader::new(stdout).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
}
