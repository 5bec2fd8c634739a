//! What holds for the executable as it is released, without the feature `held`: `cargo test --locked --test released`.
#![cfg(not(feature = "held"))]
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "world/mod.rs"]
#[allow(dead_code)]
mod world;

use std::fs;

use async_std::task::block_on;
use world::{ALICE, DEVICE, NAME, NOPORTS, RENDEZVOUS, World, output};

/// It would hold a program to an older generation, were that possible.
const VARIABLE: &str = "NOPORTS_GENERATION";

#[test]
fn no_variable_takes_the_protection_away() {
    block_on(async {
        for value in ["v4.0", "v3", "no such generation"] {
            let world = World::start().await;
            let sshd = world.sshd().await;
            let held = [(VARIABLE, value)];
            let words = ["rendezvous", "--as", RENDEZVOUS, "--host", "127.0.0.1"];
            let _rendezvous = world.process_with(&words, &held);
            let port = sshd.port.to_string();
            let who = ["daemon", "--as", DEVICE, "--manager", ALICE];
            let what = ["--device", NAME, "--sshd-port", &port];
            let _daemon = world.process_with(&[&who[..], &what].concat(), &held);
            let mut ssh = world.program("ssh");
            ssh.args(world.ssh_options(&sshd)).env(VARIABLE, value);
            ssh.args(["device", "echo $((6 * 7))"]);
            let done = output(ssh).await;
            let said = String::from_utf8_lossy(&done.stderr).into_owned();
            assert_eq!(done.stdout, b"42\n", "{value}: {said}");
            let log = world.log("daemon");
            assert!(
                log.contains("login=yes encryption=records"),
                "{value}: {log}"
            );
        }
    });
}

#[test]
fn the_executable_does_not_know_the_variable() {
    let bytes = fs::read(NOPORTS).unwrap();
    let is_there = bytes
        .windows(VARIABLE.len())
        .any(|some| some == VARIABLE.as_bytes());
    assert!(!is_there);
}
