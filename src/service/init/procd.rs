//! procd, OpenWrt's.

use std::path::PathBuf;

use crate::{
    service::{
        Manager, Order, Service, Unit, path,
        quote::{assignment, line, shell},
        step::{Step, step},
    },
    sys::user::Person,
};

use super::openrc;

/// The manager.
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

    fn render(&self, service: &Service) -> String {
        let values = vec![
            ("COMMAND", line(&service.command(), shell)),
            ("HOME", shell(&path(&service.unit.person.home))),
            ("ENVIRONMENT", service.variables(" ", assignment)),
        ];
        service.fill(include_str!("../../../packaging/services/procd.sh"), values)
    }

    fn is_its_own(&self, text: &str) -> bool {
        !text.starts_with(openrc::FIRST_LINE)
    }

    fn state(&self, unit: &Unit) -> PathBuf {
        format!("/var/run/{}/state", unit.name).into()
    }

    fn log(&self, unit: &Unit) -> String {
        format!("logread -e {}", unit.name)
    }

    fn commands(&self, order: Order, unit: &Unit) -> Vec<Step> {
        let script = path(&unit.file);
        let run = |word| step(&[&script, word]);
        match order {
            Order::Start => vec![run("enable"), run("start")],
            Order::Replace => vec![run("enable"), run("restart")],
            Order::Restart => vec![run("restart")],
            Order::Stop => vec![run("stop").or_not(), run("disable").or_not()],
            Order::Forget => Vec::new(),
        }
    }
}
