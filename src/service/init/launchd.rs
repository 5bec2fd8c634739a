//! launchd, macOS', for the machine and for one person.

use std::path::{Path, PathBuf};

use crate::{
    cli::Failure,
    service::{
        command::{ManagerCommand, command},
        file::{self, MARK},
        manager::{Manager, ServiceAction},
        unit::{Service, Unit, path},
    },
    sys::user::Person,
};

/// Which of the two launchd runs the service.
#[derive(Debug, PartialEq, Eq)]
pub enum Launchd {
    /// The machine's.
    Machine,
    /// One person's.
    Person,
}

impl Launchd {
    fn either<T>(&self, machine: T, person: T) -> T {
        match self {
            Self::Machine => machine,
            Self::Person => person,
        }
    }

    /// Whose services they are, in launchctl's words.
    fn domain(&self) -> String {
        let own = format!("gui/{}", rustix::process::geteuid().as_raw());
        self.either("system".to_owned(), own)
    }
}

impl Manager for Launchd {
    fn word(&self) -> &'static str {
        self.either("launchd", "launchd-user")
    }

    fn is_for_the_machine(&self) -> bool {
        *self == Self::Machine
    }

    fn is_here(&self, _uid: u32, _exists: &dyn Fn(&str) -> bool) -> bool {
        cfg!(target_os = "macos")
    }

    fn file(&self, name: &str, person: &Person) -> PathBuf {
        let own = person.home.join("Library/LaunchAgents");
        let folder = self.either(PathBuf::from("/Library/LaunchDaemons"), own);
        folder.join(format!("{}.plist", label(name)))
    }

    fn render(&self, service: &Service) -> String {
        let string = |text: &str| format!("        <string>{}</string>", xml(text));
        let command: Vec<_> = service.command().iter().map(|word| string(word)).collect();
        let environment = service.variables("\n", |name, value| {
            format!("        <key>{name}</key>\n{}", string(value))
        });
        let name = xml(&service.unit.person.name);
        let user = self.either(
            format!("    <key>UserName</key>\n    <string>{name}</string>"),
            String::new(),
        );
        let values = vec![
            ("MARK", MARK.to_owned()),
            ("LABEL", label(&service.unit.name)),
            ("COMMAND", command.join("\n")),
            ("ENVIRONMENT", environment),
            ("USER", user),
            ("STATE", xml(&path(&self.state(&service.unit)))),
            ("LOG", xml(&self.log(&service.unit))),
        ];
        service.fill(
            include_str!("../../../packaging/services/launchd.plist"),
            values,
        )
    }

    fn state(&self, unit: &Unit) -> PathBuf {
        let logs = unit.person.home.join("Library/Logs/noports");
        logs.join(format!("{}.state", unit.name))
    }

    fn leaves_state(&self) -> bool {
        true
    }

    fn log(&self, unit: &Unit) -> String {
        path(&self.state(unit).with_extension("log"))
    }

    fn commands(&self, action: ServiceAction, unit: &Unit) -> Vec<ManagerCommand> {
        let domain = self.domain();
        let target = format!("{domain}/{}", label(&unit.name));
        let bootout = command(&["launchctl", "bootout", &target]).or_not();
        let start = [
            command(&["launchctl", "enable", &target]),
            command(&["launchctl", "bootstrap", &domain, &path(&unit.file)]).or_not(),
            command(&["launchctl", "kickstart", &target]),
        ];
        match action {
            ServiceAction::Start => start.into(),
            ServiceAction::Replace => [bootout].into_iter().chain(start).collect(),
            ServiceAction::Restart => vec![command(&["launchctl", "kickstart", "-k", &target])],
            ServiceAction::Stop => vec![bootout],
            ServiceAction::Forget => Vec::new(),
        }
    }

    /// The folder of state and log: launchd makes none.
    fn prepare(&self, unit: &Unit) -> Result<(), Failure> {
        file::folder(self.state(unit).parent().unwrap_or(Path::new("/")))
    }
}

/// macOS' name of a service.
fn label(name: &str) -> String {
    format!("org.{}", name.replacen('-', ".", 1))
}

/// Text between the tags of an XML file.
fn xml(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use crate::service::init::launchd::*;

    #[test]
    fn xml_keeps_its_marks_to_itself() {
        assert_eq!(xml("<a>&amp;"), "&lt;a&gt;&amp;amp;");
    }
}
