//! What a [site](super::site) is made of.

use std::time::Duration;

use crate::world::NOPORTS;

/// The atServer's disk where a row may fill it, in megabytes.
const DISK: u32 = 24;

/// What a world is made of.
#[derive(Clone)]
pub struct Setup {
    pub devices: usize,
    /// Managers, each at a host of its own.
    pub clients: usize,
    /// atSigns that are nobody's manager, all at one host.
    pub strangers: usize,
    /// More of them, with these names.
    pub others: &'static [&'static str],
    /// What all its programs are: this one, or an older one.
    pub program: String,
    /// The atServer's disk, in megabytes.
    pub disk: u32,
    /// The first manager is none: a policy lets him in.
    pub has_policy: bool,
    /// Its rules are records on its atServer.
    pub has_records: bool,
    /// The atServer looks for others at a directory of somebody who means no good.
    pub is_federated: bool,
    /// Options that a role has besides; older programs that do not know one go without it.
    pub more: Vec<(&'static str, &'static [&'static str])>,
    /// Descriptors that a role may have.
    pub descriptors: Option<(&'static str, u32)>,
    /// Bytes of memory that a role and its children may have.
    pub memory: Option<(&'static str, u64)>,
    /// How far managers and devices are from the rendezvous, one way.
    pub away: Duration,
}

impl Setup {
    pub fn of(devices: usize, clients: usize) -> Self {
        Self {
            devices,
            clients,
            strangers: 1,
            others: &[],
            program: NOPORTS.to_owned(),
            disk: DISK,
            has_policy: false,
            has_records: false,
            is_federated: false,
            more: Vec::new(),
            descriptors: None,
            memory: None,
            away: Duration::ZERO,
        }
    }
}
