//! The daemon's command line, and what it means.

use std::{process::ExitCode, sync::Arc};

use argh::FromArgs;
use log::LevelFilter;

use super::{DaemonOptions, KeyOptions, Ssh, TemporaryKeyRule, serve};
#[cfg(feature = "held")]
use crate::classic::generation::Profile;
use crate::{
    at::{AtSign, client::Network, keyfile::AtKeys},
    cli::{Console, Failure, with_account},
    np::{ids::DeviceName, policy::DeviceGroup},
    session::{authorise::Consult, online},
    sys,
};

/// Most managers of one daemon.
const MAX_MANAGERS: usize = 1000;

with_account! {
    /// Waits on a device for sessions; opens no port.
    #[derive(FromArgs)]
    struct Args {
        /// the device's atSign (default: the only one with keys here)
        #[argh(option, long = "as")]
        as_: Option<String>,
        /// who may open sessions; repeat it, or separate with commas
        #[argh(option)]
        manager: Vec<String>,
        /// name of this device (default: "default")
        #[argh(option)]
        device: Option<String>,
        /// atSign of a policy that is asked about everybody else
        #[argh(option)]
        policy: Option<String>,
        /// group of this device, for the policy (default: none)
        #[argh(option)]
        device_group: Option<String>,
        /// what they may open: HOST:PORT,… where either may be * (default: ssh and 3389; with a policy: what it says)
        #[argh(option)]
        permit_open: Option<String>,
        /// port of the local sshd (default: 22)
        #[argh(option, default = "22")]
        sshd_port: u16,
        /// publish neither user name nor device record
        #[argh(switch)]
        hide: bool,
        /// let clients put their ssh public keys into authorized_keys
        #[argh(switch)]
        accept_keys: bool,
        /// options before each of these keys, as sshd(8) knows them
        #[argh(option, default = "String::new()")]
        key_options: String,
        /// when a session brings a temporary ssh key along: needed (where nothing else encrypts; the default), always
        /// (clients before 5.3), never
        #[argh(option, default = "TemporaryKeyRule::default()")]
        temporary_keys: TemporaryKeyRule,
        /// further options of these keys; commas separate them
        #[argh(option, default = "String::new()")]
        temporary_key_options: String,
        /// also log in to clients by ssh, as clients before 4.0 ask for it
        #[argh(switch)]
        reverse_ssh: bool,
        /// answer clients of 4.0 as its release candidate 2 wants it
        #[argh(switch)]
        bare_answers: bool,
        /// refuse sessions without encryption, or without a login at the rendezvous
        #[argh(switch)]
        require_protection: bool,
        /// say on stdout, as JSON lines, when it is ready
        #[argh(switch)]
        json: bool,
    }
}

/// The program.
pub fn main(mut console: Console, words: &[&str]) -> ExitCode {
    let args: Args = match console.parse(words) {
        Ok(args) => args,
        Err(code) => return code,
    };
    // A daemon's log is its voice: one line per session by default.
    sys::log::start(LevelFilter::Info, args.verbose, args.quiet);
    sys::process::protect_memory();
    let json = args.json;
    console.finish(
        json,
        console.run(1, online::until_told(story(&console, args))),
    )
}

/// Whether it would start with these words; for a service, before it is installed.
pub fn verify(name: &str, words: &[&str]) -> ExitCode {
    Console::new(name).verify(words, |console, args: Args| args.ready(console).map(drop))
}

impl Args {
    fn policy(&self) -> Result<DaemonOptions, Failure> {
        let misuse = |error: &dyn std::fmt::Display| Failure::misuse(error.to_string());
        let managers = self
            .manager
            .iter()
            .flat_map(|list| list.split(','))
            .map(str::trim)
            .filter(|word| !word.is_empty())
            .map(str::parse::<AtSign>)
            .collect::<Result<Vec<_>, _>>()?;
        let consult = self.consult()?;
        if (managers.is_empty() && consult.is_none()) || managers.len() > MAX_MANAGERS {
            return Err(
                Failure::misuse("a daemon needs somebody who may use it").hint("--manager @you")
            );
        }
        let permit = match (&self.permit_open, &consult) {
            (Some(list), _) => list.clone(),
            (None, Some(_)) => "*:*".to_owned(),
            (None, None) => format!("localhost:{},localhost:3389", self.sshd_port),
        };
        Ok(DaemonOptions {
            device: self
                .device
                .as_deref()
                .unwrap_or(DeviceName::DEFAULT)
                .parse()
                .map_err(|e| misuse(&e))?,
            managers,
            consult,
            permit: permit
                .parse()
                .map_err(|e| misuse(&e).hint("--permit-open localhost:22,nas:*"))?,
            sshd_port: self.sshd_port,
            hide: self.hide,
            ssh: self.ssh()?,
            require_protection: self.require_protection,
            #[cfg(feature = "held")]
            habits: Profile::of_environment(|profile| Some(profile.daemon))?,
            program: sys::process::own_executable()
                .map_err(|e| Failure::plain(format!("cannot find this program's own file: {e}")))?,
        })
    }
}

impl Args {
    fn ssh(&self) -> Result<Ssh, Failure> {
        let options = |text: &str, of: &str| {
            KeyOptions::parse(text).map_err(|bad| Failure::misuse(bad.of(of)))
        };
        let before = options(&self.key_options, "public key")?;
        let temporary_options = options(&self.temporary_key_options, "ephemeral key")?;
        Ok(Ssh {
            accept_keys: self.accept_keys.then_some(before),
            temporary_keys: self.temporary_keys,
            temporary_options,
            reverse: self.reverse_ssh,
            bare_answers: self.bare_answers,
            file: None,
        })
    }

    fn consult(&self) -> Result<Option<Consult>, Failure> {
        let group = match &self.device_group {
            Some(name) => name.parse().map_err(|e| Failure::misuse(format!("{e}")))?,
            None => DeviceGroup::default(),
        };
        let word = self.policy.as_deref().map(str::trim);
        let policy = word.filter(|w| !w.is_empty()).map(str::parse::<AtSign>);
        Ok(policy.transpose()?.map(|policy| Consult { policy, group }))
    }
}

impl Args {
    /// Everything that can be wrong before anybody is dialled.
    fn ready(&self, console: &Console) -> Result<(Network, Arc<AtKeys>, DaemonOptions), Failure> {
        let policy = self.policy()?;
        let (network, keys) = self.account().load(console, self.as_.as_deref())?;
        Ok((network, keys, policy))
    }
}

async fn story(console: &Console, args: Args) -> Result<(), Failure> {
    let (network, keys, policy) = args.ready(console)?;
    serve(network, keys, policy, online::tell(args.json)).await
}
