//! Attacks as scripts: what strangers, neighbours and other managers do, who suffers, and when it counts as held.
//!
//! | file | what |
//! | --- | --- |
//! | `attacks.md` | what each attack is, by its number, and what came of it |
//! | this one | each as data: who, where, for how long, what else happens, its own criterion |
//! | [`notes`], [`doors`], [`meetings`], [`peers`] | what the attackers do, in a process at their host |
//! | [`wire`] | their connections |
//! | [`siege`] | one attack, with a good user before, during and after it; what is measured |
//! | [`outcome`] | the criteria that all attacks share, and a line for each |

mod doors;
mod meetings;
mod notes;
mod outcome;
mod peers;
mod siege;
mod table;
mod wire;

use std::{pin::Pin, time::Duration};

use super::setup::Setup;
use super::site::{ATSERVER, POLICY_HOST, RENDEZVOUS_HOST, STRANGER, client, device};
pub use outcome::{Outcome, TABLE};
pub use siege::{Times, besiege};
pub use table::ATTACKS;
use wire::{Attacker, Went};

/// Where an atServer tells about its health, in attacks on that.
const METRICS: u16 = 9464;

/// Whose memory, descriptors and log are watched.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Victim {
    Atserver,
    Rendezvous,
    Daemon,
    Policy,
}

impl Victim {
    /// Its host, and its log's name.
    pub fn host(self) -> String {
        match self {
            Self::Atserver => ATSERVER.to_owned(),
            Self::Rendezvous => RENDEZVOUS_HOST.to_owned(),
            Self::Daemon => device(0),
            Self::Policy => POLICY_HOST.to_owned(),
        }
    }
}

/// Where the attacker sits.
#[derive(Clone, Copy, Debug)]
pub enum Place {
    Stranger,
    /// The good user's own host.
    User,
    /// Another manager's.
    Manager,
    Device,
    Atserver,
}

impl Place {
    fn host(self) -> String {
        match self {
            Self::Stranger => STRANGER.to_owned(),
            Self::User => client(0),
            Self::Manager => client(1),
            Self::Device => device(0),
            Self::Atserver => ATSERVER.to_owned(),
        }
    }
}

/// What else happens meanwhile.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Besides {
    Nothing,
    /// Device and rendezvous are cut from the atServer until the attacker has done all he wants; what stood is reset.
    Outage,
    /// The device's line carries 1 Mbit/s.
    NarrowLine,
    /// Nothing gets from the client to the rendezvous for 13 s; new connections are made in a tunnel, and the good user is
    /// another one.
    Hole,
    /// The daemon is killed and started again.
    Restart,
    /// Half a minute later the policy is, and its line carries 2 Mbit/s.
    PolicyRestart,
    /// The attacker knows the ports of the standing session, and first lines that were seen on the wire; new connections
    /// are made in it.
    LooksOn,
}

impl Besides {
    /// Whether new connections are made in a tunnel that stands.
    fn dials(self) -> bool {
        matches!(self, Self::Hole | Self::LooksOn)
    }
}

type Running = Pin<Box<dyn Future<Output = Went>>>;

/// One attack.
pub struct Attack {
    pub name: &'static str,
    /// In `attacks.md`: A… of the first afternoon, N… of the list.
    pub number: &'static str,
    pub what: &'static str,
    pub victim: Victim,
    pub place: Place,
    pub besides: Besides,
    /// How long, in seconds.
    pub seconds: u64,
    /// Short enough for CI, and how long there.
    pub quick: Option<u64>,
    /// What it takes besides a device and two managers.
    pub setup: fn(&mut Setup),
    /// What the attacker does.
    pub run: Option<fn(Attacker) -> Running>,
    /// What it must not come to, besides what all attacks must not.
    pub own: fn(&Outcome) -> Result<(), String>,
}

/// The attacker's process.
pub fn attack(name: &str, seed: &str, told: &[&str]) {
    let attack = ATTACKS.iter().find(|attack| attack.name == name).unwrap();
    let told = told.iter().map(|word| (*word).to_owned()).collect();
    noports::sys::process::raise_descriptor_limit();
    let attacker = Attacker::new(seed.parse().unwrap(), told);
    if let Some(run) = attack.run
        && let Err(why) = async_std::task::block_on(run(attacker))
    {
        println!("ended by {why}");
        // Whoever is told no goes on holding what he has.
        std::thread::sleep(Duration::from_secs(3600));
    }
}

/// `@aaa` tells somebody of so many devices that are none.
pub fn invent(whom: &str, count: usize) {
    let own = Attacker::new(0, Vec::new());
    async_std::task::block_on(notes::invent(own, whom, count)).unwrap();
}

/// Somebody writes a record of his own.
pub fn record(who: &str, key: &str, text: &str) {
    let own = Attacker::new(0, Vec::new());
    let written = async_std::task::block_on(async {
        let mut wire = own.login(who).await?;
        wire.ask(&format!("update:{key}{who} {text}")).await
    });
    let reply = written.unwrap();
    assert!(reply.starts_with("data:"), "{reply}");
}
