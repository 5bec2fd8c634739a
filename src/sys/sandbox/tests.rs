use std::{
    io::ErrorKind,
    net::{TcpListener, TcpStream, UdpSocket},
    os::unix::{
        fs::symlink,
        net::{UnixDatagram, UnixListener, UnixStream},
    },
    process::Command,
    thread,
};

use crate::sys::sandbox::*;
use crate::testing::Folder;

/// In a thread of its own, which takes the limits with it when it ends.
fn inside<T: Send>(confinement: &Confinement, what: impl FnOnce(&Confined) -> T + Send) -> T {
    thread::scope(|scope| {
        let one = scope.spawn(|| what(&confinement.enter_here()));
        one.join().unwrap()
    })
}

#[test]
fn every_folder_on_the_way_to_a_file_is_found() {
    let folder = Folder::new();
    let root = fs::canonicalize(&folder.0).unwrap();
    for name in ["etc", "run", "run/resolver"] {
        fs::create_dir(root.join(name)).unwrap();
    }
    let file = root.join("etc/resolv.conf");
    let found = || folders_to(&file);
    assert_eq!(found(), [root.join("etc")]);
    // The folder of a resolver that has not started yet.
    symlink("../run/later/stub.conf", &file).unwrap();
    let ends_in = |tail: &str| {
        let last = found().pop().unwrap();
        fs::canonicalize(last).unwrap() == root.join(tail)
    };
    assert!(ends_in("run"), "{:?}", found());
    fs::create_dir(root.join("run/later")).unwrap();
    assert!(ends_in("run/later"), "{:?}", found());
    symlink(
        root.join("run/resolver/own.conf"),
        root.join("run/later/stub.conf"),
    )
    .unwrap();
    assert_eq!(found().len(), 3);
    assert!(ends_in("run/resolver"), "{:?}", found());
    // A circle ends.
    symlink("resolv.conf", root.join("run/resolver/own.conf")).unwrap();
    symlink("own.conf", root.join("run/resolver/resolv.conf")).unwrap();
    assert_eq!(found().len(), MAX_LINKS);
    assert!(folders_to(Path::new("/file")).is_empty());
}

#[test]
fn files_are_those_of_the_named_folders_whatever_is_renamed_there() {
    let (ours, other) = (Folder::new(), Folder::new());
    for path in [ours.path("file"), ours.path("new"), other.path("file")] {
        fs::write(path, "x").unwrap();
    }
    let confinement = Confinement::of(&POLICY).reads([ours.0.clone()]);
    inside(&confinement, |confined| {
        if confined.files.is_none() {
            return;
        }
        let denied = |result: std::io::Result<()>| {
            assert_eq!(result.unwrap_err().kind(), ErrorKind::PermissionDenied);
        };
        fs::read(ours.path("file")).unwrap();
        denied(fs::read(other.path("file")).map(drop));
        denied(fs::write(ours.path("file"), "y"));
        denied(fs::write(other.path("file"), "y"));
        denied(fs::rename(other.path("file"), ours.path("file")));
        denied(fs::remove_file(ours.path("file")));
        denied(Command::new("/bin/true").status().map(drop));
        // Names are still to be had, and what every program opens.
        fs::read("/etc/passwd").unwrap();
        fs::write("/dev/null", "x").unwrap();
        let out = thread::spawn(|| fs::read("/root/.profile").is_err());
        assert!(out.join().unwrap(), "threads have what their parent has");
    });
    fs::rename(ours.path("new"), ours.path("file")).unwrap();
    inside(&confinement, |_| fs::read(ours.path("file")).unwrap());
}

#[test]
fn a_bridge_dials_its_two_ends_and_opens_no_port() {
    let [one, other] = [(); 2].map(|()| TcpListener::bind(("127.0.0.1", 0)).unwrap());
    let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
    let (one, other) = (port(&one), port(&other));
    let confinement = Confinement::of(&BRIDGE).dials([one]);
    inside(&confinement, |confined| {
        // Ports are known to Landlock since its fourth generation.
        if confined.files.is_none_or(|generation| generation < 4) {
            return;
        }
        let denied = |kind| assert_eq!(kind, Some(ErrorKind::PermissionDenied));
        TcpStream::connect(("127.0.0.1", one)).unwrap();
        let refused = TcpStream::connect(("127.0.0.1", other));
        denied(refused.err().map(|why| why.kind()));
        let refused = TcpListener::bind(("127.0.0.1", 0));
        denied(refused.err().map(|why| why.kind()));
    });
    inside(&Confinement::of(&RENDEZVOUS), |_| {
        TcpListener::bind(("127.0.0.1", 0)).unwrap();
        TcpStream::connect(("127.0.0.1", other)).unwrap();
    });
}

/// Whoever had broken into one reached the person's ssh-agent, and other bridges' control sockets.
#[test]
fn a_bridge_opens_no_socket_to_local_programs_and_its_open_ones_work_on() {
    static STRICT: Role = Role {
        local_sockets: false,
        ..BRIDGE
    };
    let (control, other) = (Folder::new(), Folder::new());
    let at = control.path("1.sock");
    let open = UnixListener::bind(&at).unwrap();
    let (datagrams, agent) = (UnixDatagram::unbound().unwrap(), other.path("agent"));
    let _agent = UnixListener::bind(&agent).unwrap();
    let heard = UnixDatagram::bind(other.path("notify")).unwrap();
    let asker = UnixStream::connect(&at).unwrap();
    inside(
        &Confinement::of(&STRICT).writes([control.0.clone()]),
        |confined| {
            if !confined.calls {
                return;
            }
            let denied = |kind| assert_eq!(kind, Some(ErrorKind::PermissionDenied));
            for to in [&agent, &at, &other.path("none")] {
                denied(UnixStream::connect(to).err().map(|why| why.kind()));
            }
            denied(UnixDatagram::unbound().err().map(|why| why.kind()));
            let mine = UnixListener::bind(control.path("2.sock"));
            denied(mine.err().map(|why| why.kind()));
            // Of what it has: whoever asks is heard, and the service manager told.
            open.accept().unwrap();
            datagrams.send_to(b"READY=1", other.path("notify")).unwrap();
            UnixStream::pair().unwrap();
            UdpSocket::bind(("127.0.0.1", 0)).unwrap();
            fs::remove_file(&at).unwrap();
        },
    );
    drop((asker, heard));
    for role in [&DAEMON, &POLICY, &ATSERVER] {
        inside(&Confinement::of(role), |_| {
            UnixDatagram::unbound().unwrap();
        });
    }
    assert_eq!(BRIDGE.local_sockets, !cfg!(target_env = "musl"));
    assert_eq!(RENDEZVOUS.local_sockets, BRIDGE.local_sockets);
}

#[test]
fn system_calls_that_nobody_needs_fail_and_threads_still_start() {
    inside(&Confinement::of(&DAEMON), |confined| {
        assert!(confined.no_new_privileges && confined.capabilities_dropped);
        let known = cfg!(any(target_arch = "x86_64", target_arch = "aarch64"));
        assert_eq!(confined.calls, known, "{confined}");
        if !known {
            return;
        }
        use rustix::{io::Errno, net};
        let kind = net::AddressFamily::from_raw(libc::AF_ALG as u16);
        let socket = net::socket(kind, net::SocketType::SEQPACKET, None);
        assert_eq!(socket.unwrap_err(), Errno::PERM);
        for kind in [net::AddressFamily::INET6, net::AddressFamily::UNIX] {
            net::socket(kind, net::SocketType::STREAM, None).unwrap();
        }
        // clone3 is not there; clone is.
        thread::spawn(|| ()).join().unwrap();
        let task = tasks::of_process(std::process::id());
        assert!(
            task.iter()
                .any(|task| task.filtered && task.no_new_privileges)
        );
    });
}
