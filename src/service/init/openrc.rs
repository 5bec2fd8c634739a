//! OpenRC (Alpine, Gentoo).

use std::path::PathBuf;

use crate::{
    service::{
        command::{ManagerCommand, command},
        manager::{Manager, ServiceAction},
        process::stat,
        quote::{line, shell},
        unit::{Service, Unit, path},
    },
    sys::user::Person,
};

use super::procd::Procd;

/// There is one, for the machine.
#[derive(Debug)]
pub struct OpenRc;

impl Manager for OpenRc {
    fn word(&self) -> &'static str {
        "openrc"
    }

    fn is_for_the_machine(&self) -> bool {
        true
    }

    fn is_here(&self, uid: u32, exists: &dyn Fn(&str) -> bool) -> bool {
        exists("/run/openrc") && !Procd.is_here(uid, exists)
    }

    fn file(&self, name: &str, _person: &Person) -> PathBuf {
        format!("/etc/init.d/{name}").into()
    }

    fn boot_link(&self, unit: &Unit) -> Option<PathBuf> {
        let etc = unit.file.parent()?.parent()?;
        Some(etc.join("runlevels/default").join(&unit.name))
    }

    fn render(&self, service: &Service) -> String {
        let values = vec![
            ("TITLE", shell(&service.title())),
            // Read by the shell as a value, then once more as a command line.
            ("EXECUTABLE", shell(&shell(&path(&service.executable)))),
            ("ARGUMENTS", shell(&line(&service.words, shell))),
            ("VERIFY", shell(&line(&service.verify(), shell))),
            ("ENVIRONMENT", service.exports()),
        ];
        service.fill(
            include_str!("../../../packaging/services/openrc.sh"),
            values,
        )
    }

    fn is_its_own(&self, text: &str) -> bool {
        text.starts_with("#!/sbin/openrc-run")
    }

    fn state(&self, unit: &Unit) -> PathBuf {
        format!("/run/{}/state", unit.name).into()
    }

    fn log(&self, unit: &Unit) -> String {
        format!("/var/log/{}.log", unit.name)
    }

    fn commands(&self, action: ServiceAction, unit: &Unit) -> Vec<ManagerCommand> {
        let name = unit.name.as_str();
        let enable = command(&["rc-update", "--quiet", "add", name, "default"]);
        match action {
            ServiceAction::Start => vec![enable, command(&["rc-service", name, "start"])],
            ServiceAction::Replace => vec![enable, command(&["rc-service", name, "restart"])],
            ServiceAction::Restart => vec![command(&["rc-service", name, "restart"])],
            ServiceAction::Stop => vec![
                command(&["rc-service", "--quiet", "--ifstarted", name, "stop"]).or_not(),
                command(&["rc-update", "--quiet", "delete", name]).or_not(),
            ],
            ServiceAction::Forget => Vec::new(),
        }
    }

    /// A program without OpenRC's supervisor runs on by itself.
    fn is_watched(&self, _unit: &Unit, pid: u32) -> bool {
        stat(pid).is_none_or(|stat| stat.parent != 1)
    }
}
