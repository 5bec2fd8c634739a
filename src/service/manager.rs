//! What every service manager can do; what most do in the same way stands here.

use std::path::{Path, PathBuf};

use super::{
    command::{ManagerCommand, run},
    file,
    process::{self, end_lost, running},
    unit::{Service, Unit},
};
use crate::{cli::Failure, sys::user::Person};

/// What a service manager is told to do, by commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceAction {
    /// Start it, now and at every boot; one that runs goes on.
    Start,
    /// Start it with a file that has changed; one that runs is started anew.
    Replace,
    /// Start it anew, and nothing else.
    Restart,
    /// End it, and start it no more at boot.
    Stop,
    /// What remains to be done when the file is gone.
    Forget,
}

impl ServiceAction {
    /// What starts a service.
    pub fn start(changed: bool) -> Self {
        if changed { Self::Replace } else { Self::Start }
    }
}

/// Something that starts services. Whatever it stops, sessions are processes of their own and live on.
pub trait Manager: Sync {
    /// The word of `--init`.
    fn word(&self) -> &'static str;

    /// For the machine, with an account to run as; else for whoever asks.
    fn is_for_the_machine(&self) -> bool;

    /// Whether it runs on this machine, for the person of this number. `exists` looks at files.
    fn is_here(&self, uid: u32, exists: &dyn Fn(&str) -> bool) -> bool;

    /// Whether it can start a service here and now.
    ///
    /// # Errors
    /// When not, with what helps.
    fn works_here(&self, person: &Person) -> Result<(), Failure> {
        if self.is_here(person.uid, &|path| Path::new(path).exists()) {
            return Ok(());
        }
        let text = format!(
            "{} does not start services here; nothing was written",
            self.word()
        );
        let image = "for an image: --destdir DIR; for the file alone: --no-start";
        Err(
            Failure::plain(text).hint(if self.is_for_the_machine() || person.uid == 0 {
                image.to_owned()
            } else {
                let who = &person.name;
                format!(
                    "log in as {who} (not by su), or let root install it: --run-as {who}; {image}"
                )
            }),
        )
    }

    /// The link that starts it at boot, for an image where no command can make it.
    fn boot_link(&self, _unit: &Unit) -> Option<PathBuf> {
        None
    }

    /// Where the file of a service of this name belongs.
    fn file(&self, name: &str, person: &Person) -> PathBuf;

    /// What that file says.
    fn render(&self, service: &Service) -> String;

    /// Whether a file of ours in its place is its own: two managers share `/etc/init.d`.
    fn is_its_own(&self, _text: &str) -> bool {
        true
    }

    /// Where the running service tells its state.
    fn state(&self, unit: &Unit) -> PathBuf;

    /// Whether that file outlives the service.
    fn leaves_state(&self) -> bool {
        false
    }

    /// How to read its log.
    fn log(&self, unit: &Unit) -> String;

    /// The commands for it.
    fn commands(&self, action: ServiceAction, unit: &Unit) -> Vec<ManagerCommand>;

    /// What a start would do, a line each.
    fn plan(&self, unit: &Unit, changed: bool) -> Vec<String> {
        let commands = self.commands(ServiceAction::start(changed), unit);
        let lines = commands
            .iter()
            .map(|command| format!("would run {}", command.shown()));
        lines.collect()
    }

    /// What must be there before a start.
    ///
    /// # Errors
    /// With the path.
    fn prepare(&self, _unit: &Unit) -> Result<(), Failure> {
        Ok(())
    }

    /// Starts the service, now and at every boot.
    ///
    /// # Errors
    /// The service manager's, in its words.
    fn start(&self, unit: &Unit, changed: bool) -> Result<(), Failure> {
        let state = self.state(unit);
        let before = running(&state).filter(|_| changed);
        if changed {
            let _ = std::fs::remove_file(&state);
            self.prepare(unit)?;
        }
        run(&self.commands(ServiceAction::start(changed), unit))
            .map_err(|failure| failure.hint(format!("the log may say more: {}", self.log(unit))))?;
        end_lost(before, &state)
    }

    /// Starts the service anew, and nothing else.
    ///
    /// # Errors
    /// The service manager's, in its words.
    fn restart(&self, unit: &Unit) -> Result<(), Failure> {
        let state = self.state(unit);
        let before = running(&state);
        run(&self.commands(ServiceAction::Restart, unit))?;
        end_lost(before, &state)
    }

    /// Ends the service and takes it from what is started at boot.
    ///
    /// # Errors
    /// The service manager's, in its words.
    fn stop(&self, unit: &Unit) -> Result<(), Failure> {
        run(&self.commands(ServiceAction::Stop, unit))
    }

    /// Ends the service and removes its file. Keys and data stay.
    ///
    /// # Errors
    /// When its file cannot be removed, or it does not end.
    fn remove(&self, unit: &Unit) -> Result<(), Failure> {
        let state = self.state(unit);
        self.stop(unit)?;
        end_lost(running(&state), &state)?;
        file::remove(&unit.file)?;
        if self.leaves_state() {
            process::forget(&state);
        }
        run(&self.commands(ServiceAction::Forget, unit))
    }

    /// Whether somebody starts it again when it ends.
    fn is_watched(&self, _unit: &Unit, _pid: u32) -> bool {
        true
    }

    /// Why it does not run, as far as the manager, or its log, knows.
    fn why_down(&self, unit: &Unit) -> String {
        process::last_failure(Path::new(&self.log(unit))).unwrap_or_default()
    }

    /// What a person should know once it is started.
    fn note(&self, _person: &Person) -> Option<String> {
        None
    }
}
