//! procd, OpenWrt's.

use std::path::PathBuf;

use crate::{
    service::{
        command::{ManagerCommand, command},
        manager::{Manager, ServiceAction},
        quote::{assignment, line, shell},
        unit::{Service, Unit, path},
    },
    sys::user::Person,
};

/// There is one, for the machine.
#[derive(Debug)]
pub struct Procd;

impl Manager for Procd {
    fn word(&self) -> &'static str {
        "procd"
    }

    fn is_for_the_machine(&self) -> bool {
        true
    }

    fn is_here(&self, _uid: u32, exists: &dyn Fn(&str) -> bool) -> bool {
        exists("/etc/openwrt_release") && exists("/sbin/procd")
    }

    fn file(&self, name: &str, _person: &Person) -> PathBuf {
        format!("/etc/init.d/{name}").into()
    }

    fn boot_link(&self, unit: &Unit) -> Option<PathBuf> {
        let etc = unit.file.parent()?.parent()?;
        Some(etc.join("rc.d").join(format!("S95{}", unit.name)))
    }

    fn render(&self, service: &Service) -> String {
        let values = vec![
            ("COMMAND", line(&service.command(), shell)),
            ("HOME", shell(&path(&service.unit.person.home))),
            ("ENVIRONMENT", service.variables(" ", assignment)),
        ];
        service.fill(include_str!("../../../packaging/services/procd.sh"), values)
    }

    fn is_its_own(&self, text: &str) -> bool {
        text.starts_with("#!/bin/sh /etc/rc.common")
    }

    fn state(&self, unit: &Unit) -> PathBuf {
        format!("/var/run/{}/state", unit.name).into()
    }

    fn log(&self, unit: &Unit) -> String {
        format!("logread -e {}", unit.name)
    }

    fn commands(&self, action: ServiceAction, unit: &Unit) -> Vec<ManagerCommand> {
        let script = path(&unit.file);
        let run = |word| command(&[&script, word]);
        match action {
            ServiceAction::Start => vec![run("enable"), run("start")],
            ServiceAction::Replace => vec![run("enable"), run("restart")],
            ServiceAction::Restart => vec![run("restart")],
            ServiceAction::Stop => vec![run("stop").or_not(), run("disable").or_not()],
            ServiceAction::Forget => Vec::new(),
        }
    }
}
