//! What starts services: one file each, its quoting included.

use super::manager::Manager;

pub mod cron;
pub mod launchd;
pub mod openrc;
pub mod procd;
pub mod systemd;

use cron::Cron;
use launchd::Launchd;
use openrc::OpenRc;
use procd::Procd;
use systemd::Systemd;

/// All managers; the first that is here is taken.
pub static MANAGERS: [&dyn Manager; 7] = [
    &Systemd::Machine,
    &Systemd::Person,
    &OpenRc,
    &Procd,
    &Launchd::Machine,
    &Launchd::Person,
    &Cron,
];

/// The one of this word of `--init`.
pub fn named(word: &str) -> Option<&'static dyn Manager> {
    MANAGERS.into_iter().find(|manager| manager.word() == word)
}

/// The one that is here, for root or for somebody else. `exists` looks at files.
pub fn detect(root: bool, uid: u32, exists: impl Fn(&str) -> bool) -> &'static dyn Manager {
    let mut fitting = MANAGERS
        .into_iter()
        .filter(|manager| manager.is_for_the_machine() == root);
    let here = fitting.find(|manager| manager.is_here(uid, &exists));
    here.unwrap_or(&Cron)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use crate::service::init::*;

    #[test]
    fn what_starts_services_is_found_by_what_runs() {
        for (root, there, want) in [
            (true, &["/run/systemd/system"][..], "systemd"),
            (true, &["/etc/openwrt_release", "/sbin/procd"], "procd"),
            (true, &["/run/openrc"], "openrc"),
            (
                true,
                &["/run/openrc", "/etc/openwrt_release", "/sbin/procd"],
                "procd",
            ),
            (true, &["/run/openrc", "/run/systemd/system"], "systemd"),
            (true, &[], "cron"),
            (false, &["/run/systemd/system"], "cron"),
            (
                false,
                &["/run/systemd/system", "/run/user/7/systemd/private"],
                "systemd-user",
            ),
            (false, &["/run/openrc"], "cron"),
        ] {
            let found = detect(root, 7, |path| there.contains(&path));
            assert_eq!(found.word(), want, "{root} {there:?}");
        }
    }
}
