//! The same programs unchanged: they know one directory, `root.atsign.org:64`, and one sshd, on port 22.
//!
//! ```text
//!   test ─▶ unshare ─▶ sh: loopback up, own /etc/hosts ─▶ this test binary again, the same test, now inside
//! ```
//! Nothing outside the namespace is touched or reachable.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener, TcpStream},
    thread,
};

use async_std::task::block_on;

use super::{ATSDK, Agent, SSHNPD, daemon, environment};
use crate::world::{ALICE, DEVICE, Folder, World, support};

const ROOT: &str = "root.atsign.org";

/// Runs the calling test once more, in namespaces where this host has that name and low ports are free.
/// `true`: this is that run.
fn inside(test: &str) -> bool {
    if !support::is_inside() {
        // There is no index to ask from inside.
        environment(ATSDK);
        environment(SSHNPD);
    }
    let folder = Folder::new();
    fs::write(
        folder.path("hosts"),
        format!("127.0.0.1 localhost {ROOT}\n"),
    )
    .unwrap();
    // Mapped to root first, to set things up; then back to whom we were, because sshd treats root differently.
    const AS_ROOT: &str = "ip link set lo up && mount --bind \"$0/hosts\" /etc/hosts";
    let (namespaces, script) = match rustix::process::geteuid().as_raw() {
        0 => (
            &["--net", "--mount"][..],
            format!("{AS_ROOT} && exec \"$@\""),
        ),
        user => (
            &["--map-root-user", "--net", "--mount"][..],
            format!(
                "{AS_ROOT} && echo 0 > /proc/sys/net/ipv4/ip_unprivileged_port_start && exec unshare --user --map-user={user} --map-group={} \"$@\"",
                rustix::process::getegid().as_raw()
            ),
        ),
    };
    support::inside(test, namespaces, &script, &folder).is_some()
}

/// sshd insists on nothing, but the daemon insists on port 22.
fn forward(from: u16, to: u16) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, from)).unwrap();
    thread::spawn(move || {
        for one in listener.incoming().map_while(Result::ok) {
            let other = TcpStream::connect((Ipv4Addr::LOCALHOST, to)).unwrap();
            let back = (other.try_clone().unwrap(), one.try_clone().unwrap());
            thread::spawn(move || daemon::pour(back.0, back.1));
            thread::spawn(move || daemon::pour(one, other));
        }
    });
}

#[test]
fn unchanged_programs_find_us_where_they_always_look() {
    if !inside("foreign::namespace::unchanged_programs_find_us_where_they_always_look") {
        return;
    }
    block_on(async {
        let world = World::start_with(ROOT, |options| options.directory_port = 64).await;
        let mut agent = Agent::start_at(&world, &[]);
        agent.ask(&["login", ALICE]);
        agent.ask(&["put", "public", "card", "wf", ALICE, DEVICE, "text"]);
        assert_eq!(
            agent.ask(&["run", "llookup:public:card.wf@alice"]),
            ["text"]
        );

        let sshd = world.sshd().await;
        forward(22, sshd.port);
        let command = daemon::as_installed(&world);
        let _daemon = daemon::start(&world, command, &sshd).await;
        assert_eq!(daemon::session(&world).await, "hello from the device\n");
    });
}
