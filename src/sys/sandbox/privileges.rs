//! Capabilities: what root may do beyond everybody else.

use std::io;

use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities,
};

/// To work with files of others.
const FILES: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER);

pub(super) fn needed(files_of_others: bool, low_ports: bool) -> CapabilitySet {
    let mut needed = CapabilitySet::empty();
    if files_of_others {
        needed |= FILES;
    }
    if low_ports {
        needed |= CapabilitySet::NET_BIND_SERVICE;
    }
    needed
}

/// Nobody who is not root has any; and with the bounding set they are gone for children, too.
pub(super) fn drop_all_but(kept: CapabilitySet) -> io::Result<()> {
    let has = capabilities(None)?;
    if has.effective.contains(CapabilitySet::SETPCAP) {
        for one in (!kept & CapabilitySet::all()).iter() {
            // One that this kernel does not know.
            let _ = remove_capability_from_bounding_set(one);
        }
    }
    if (has.permitted | has.effective | has.inheritable | kept) == kept {
        return Ok(());
    }
    // A kernel without such a set has nothing to clear.
    let _ = clear_ambient_capability_set();
    set_capabilities(
        None,
        CapabilitySets {
            effective: has.effective & kept,
            permitted: has.permitted & kept,
            inheritable: has.inheritable & kept,
        },
    )?;
    Ok(())
}
