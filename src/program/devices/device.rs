//! One device, and what is known of it.

use crate::{
    at::{AtSign, client::AtError, fault::Code},
    np::{ids::DeviceName, ping::Heartbeat},
};

/// A device's name and its atSign.
pub(super) type DeviceAddress = (AtSign, DeviceName);

/// What is known of one device.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Device {
    pub name: DeviceAddress,
    pub active: bool,
    /// From its heartbeat, else from its record.
    pub about: Option<Heartbeat>,
    /// When its record was written, as its atServer says; silent devices only.
    pub last_seen: Option<String>,
    /// It answers, and keeps no record.
    pub hidden: bool,
    /// Why it could not be asked.
    pub trouble: Option<Trouble>,
}

/// Why a device could not be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Its atServer does not let us in.
    Refused,
    /// The question could not be sent.
    NotAsked,
}

impl Trouble {
    pub(super) fn of(error: &AtError) -> Self {
        match error {
            AtError::Refused(fault)
                if matches!(fault.code, Some(Code::Handshake | Code::Blocked)) =>
            {
                Self::Refused
            }
            _ => Self::NotAsked,
        }
    }
}
