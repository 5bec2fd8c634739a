//! OpenRC (Alpine, Gentoo).

use std::path::PathBuf;

use crate::{
    service::{
        Manager, Order, Service, Unit, path,
        process::stat,
        quote::{line, shell},
        step::{Step, step},
    },
    sys::user::Person,
};

use super::procd::Procd;

/// How its scripts begin.
pub const FIRST_LINE: &str = "#!/sbin/openrc-run";

/// The manager.
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

    fn render(&self, service: &Service) -> String {
        let values = vec![
            ("TITLE", shell(&service.title())),
            // Read by the shell as a value, then once more as a command line.
            ("EXECUTABLE", shell(&shell(&path(&service.executable)))),
            ("ARGUMENTS", shell(&line(&service.words, shell))),
            ("ENVIRONMENT", service.exports()),
        ];
        service.fill(
            include_str!("../../../packaging/services/openrc.sh"),
            values,
        )
    }

    fn is_its_own(&self, text: &str) -> bool {
        text.starts_with(FIRST_LINE)
    }

    fn state(&self, unit: &Unit) -> PathBuf {
        format!("/run/{}/state", unit.name).into()
    }

    fn log(&self, unit: &Unit) -> String {
        format!("/var/log/{}.log", unit.name)
    }

    fn commands(&self, order: Order, unit: &Unit) -> Vec<Step> {
        let name = unit.name.as_str();
        let enable = step(&["rc-update", "--quiet", "add", name, "default"]);
        match order {
            Order::Start => vec![enable, step(&["rc-service", name, "start"])],
            Order::Replace => vec![enable, step(&["rc-service", name, "restart"])],
            Order::Restart => vec![step(&["rc-service", name, "restart"])],
            Order::Stop => vec![
                step(&["rc-service", "--quiet", "--ifstarted", name, "stop"]).or_not(),
                step(&["rc-update", "--quiet", "delete", name]).or_not(),
            ],
            Order::Forget => Vec::new(),
        }
    }

    /// A program without OpenRC's supervisor runs on by itself.
    fn is_watched(&self, _unit: &Unit, pid: u32) -> bool {
        stat(pid).is_none_or(|stat| stat.parent != 1)
    }
}
