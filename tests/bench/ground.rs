//! What the benches of processes share: an atServer with many atSigns, and the memory of a process.

use std::{fs, net::TcpListener};

use async_std::task;
use noports::{
    at::{AtSign, crypto::KeyPair},
    net::tls::Connector,
    server::store::{Store, StoreError, register},
};

use super::{
    line::Line,
    world::{Process, World, known_pair},
};

/// What an atServer in another process is reached with.
pub struct Ground {
    pub tls: Connector,
    pub keys: KeyPair,
    /// By number of the atSign.
    pub ports: Vec<u16>,
}

pub fn name(number: usize) -> String {
    format!("@load{number}")
}

impl Ground {
    /// So many atSigns, for an atServer that has not started yet.
    pub async fn of(world: &mut World, count: usize) -> Self {
        world.stop().await;
        let ground = Self {
            tls: world.network.tls.clone(),
            keys: known_pair("session"),
            ports: free_ports(count),
        };
        ground.settle_in(world);
        ground
    }

    /// Writes the atSigns straight into the store: a thousand key pairs would take minutes.
    fn settle_in(&self, world: &World) {
        let store = Store::open(&world.dir.path("at"), |_| {}).unwrap();
        let (ports, public) = (self.ports.clone(), self.keys.public().text.clone());
        let written = store.write(move |tx| {
            for (number, port) in ports.iter().copied().enumerate() {
                let who: AtSign = name(number).parse().unwrap();
                let home = register::add(tx, &who, port, 1)?;
                for key in [
                    "privatekey:at_pkam_publickey".to_owned(),
                    format!("public:signing_publickey{who}"),
                    format!("public:publickey{who}"),
                ] {
                    home.put_plain(tx, &key, &public, None, 1)?;
                }
            }
            Ok::<_, StoreError>(())
        });
        task::block_on(written).unwrap();
        task::block_on(store.close());
    }

    pub async fn login(&self, number: usize) -> Line {
        let line = Line::login(&self.tls, self.ports[number], &name(number), &self.keys).await;
        line.expect("a login")
    }
}

/// Ports that were free a moment ago, all different.
fn free_ports(count: usize) -> Vec<u16> {
    let doors: Vec<_> = (0..count)
        .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
        .collect();
    let port = |door: &TcpListener| door.local_addr().unwrap().port();
    doors.iter().map(port).collect()
}

/// KiB of a process that are in memory.
pub fn resident(process: &Process) -> f64 {
    let status = fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS"));
    line.unwrap()
        .split_whitespace()
        .nth(1)
        .unwrap()
        .parse()
        .unwrap()
}
