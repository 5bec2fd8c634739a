//! Landlock: files by folder, TCP by port, signals and nameless sockets by who is confined likewise.

use std::{
    env,
    path::{Path, PathBuf},
};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, LandlockStatus, NetPort, PathBeneath, PathFd,
    Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};

use super::Confinement;

/// The newest that this file knows all rights of; on an older kernel those that it has.
const KNOWN: ABI = ABI::V6;
/// Named by systemd where to tell it how a service is.
const NOTIFY: &str = "NOTIFY_SOCKET";

/// Returns the generation in effect.
pub(super) fn confine(wanted: &Confinement) -> Result<u8, String> {
    let told = |error: RulesetError| error.to_string();
    let mut rules = ruleset(wanted).map_err(told)?;
    let reads = AccessFs::ReadFile | AccessFs::ReadDir;
    let all = AccessFs::from_all(KNOWN);
    for (paths, access) in [
        (&wanted.reads, reads),
        (&wanted.writes, all & !AccessFs::Execute),
        (&wanted.runs, reads | AccessFs::Execute),
    ] {
        for path in paths {
            allow(&mut rules, path, access);
        }
    }
    for port in wanted.dials.iter().flatten() {
        (&mut rules)
            .add_rule(NetPort::new(*port, AccessNet::ConnectTcp))
            .map_err(told)?;
    }
    if wanted.chooses_sources && !wanted.role.listens {
        // 0 is whichever port the kernel picks.
        (&mut rules)
            .add_rule(NetPort::new(0, AccessNet::BindTcp))
            .map_err(told)?;
    }
    let status = rules.restrict_self().map_err(told)?;
    match (status.ruleset, status.landlock) {
        (RulesetStatus::NotEnforced, LandlockStatus::NotEnabled) => {
            Err("Landlock is switched off".to_owned())
        }
        (_, LandlockStatus::Available { effective_abi, .. }) => Ok(effective_abi as u8),
        _ => Err("this kernel has no Landlock".to_owned()),
    }
}

fn ruleset(wanted: &Confinement) -> Result<RulesetCreated, RulesetError> {
    let mut rules = Ruleset::default().handle_access(AccessFs::from_all(KNOWN))?;
    if !wanted.role.listens {
        rules = rules.handle_access(AccessNet::BindTcp)?;
    }
    if wanted.dials.is_some() {
        rules = rules.handle_access(AccessNet::ConnectTcp)?;
    }
    rules = rules.scope(Scope::Signal)?;
    // An older systemd listens where no file is.
    if !env::var_os(NOTIFY).is_some_and(|name| name.as_encoded_bytes().starts_with(b"@")) {
        rules = rules.scope(Scope::AbstractUnixSocket)?;
    }
    rules.create()
}

/// A path that is not there, or on no file system of its own (a pipe), is left out.
fn allow(rules: &mut RulesetCreated, path: &Path, access: BitFlags<AccessFs>) {
    let Ok(place) = PathFd::new(path) else { return };
    let access = if path.is_dir() {
        access
    } else {
        access & AccessFs::from_file(KNOWN)
    };
    if let Err(why) = rules.add_rule(PathBeneath::new(place, access)) {
        log::debug!(
            "sandbox=left_out path={:?} reason={why}",
            PathBuf::from(path)
        );
    }
}
