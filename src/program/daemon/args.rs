//! The daemon's command line, and what it means.

use std::{env, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use argh::{ArgsInfo, FromArgs};
use log::{LevelFilter, debug, warn};

use super::{
    ClientSource, KeyOptions, TemporaryKeyRule, budgets,
    options::{DaemonOptions, Ssh},
    serve,
};
#[cfg(feature = "held")]
use crate::classic::generation::Profile;
use crate::{
    at::{
        AtSign,
        client::{Network, PROOF},
        keyfile::AtKeys,
        pins::{self, Fingerprint},
    },
    cli::{Console, Failure, flags, separated},
    np::{ids::DeviceName, policy::DeviceGroup},
    session::{ask::Requirement, authorise::Consult, launch, online},
    sys::{
        memory, paths, process,
        sandbox::{self, Confinement},
    },
    text::{endpoint::Endpoint, host::canonical, number::count, port::port},
};

/// Where an sshd listens, most of the time.
const LOCALHOST: &str = "localhost";
/// Most managers of one daemon.
const MAX_MANAGERS: usize = 1000;

flags! {
    /// Accept sessions on a device without opening a port.
    ///
    /// The daemon only connects outward: to the device's atServer, where requests arrive, and to a rendezvous for each
    /// session. Managers may always open sessions; a policy can decide about everybody else.
    #[derive(FromArgs, ArgsInfo)]
    #[argh(
        example = "{command_name} --as @kitchen --device pi --manager @alice",
        example = "{command_name} --as @kitchen --manager @alice --permit-open localhost:22,nas:*",
        example = "{command_name} install --as @kitchen --device pi --manager @alice"
    )]
    pub(crate) struct Args {
        /// the device's atSign (or NOPORTS_AS; default: the only one with keys here)
        #[argh(option, long = "as", arg_name = "atsign")]
        as_: Option<String>,
        /// atSign that may open sessions; commas separate several; @alice#FINGERPRINT: only with this key
        #[argh(option, arg_name = "atsign")]
        manager: Vec<String>,
        /// also believe a manager's key with this fingerprint, in the place of the one before (`noports keys reserve` makes
        /// such keys and shows it); commas separate several
        #[argh(option, arg_name = "fingerprint")]
        recovery: Vec<String>,
        /// name of this device, up to 36 of a-z, 0-9, _ and - (default: "default")
        #[argh(option, arg_name = "name")]
        device: Option<String>,
        /// what may be opened: host:port,... where either may be * (default: ssh and port 3389 of this device; with
        /// --policy: what the policy allows)
        #[argh(option, arg_name = "list")]
        permit_open: Option<String>,
        /// host at which the sshd of this device listens, where that is not localhost: name or address
        #[argh(option, arg_name = "host", default = "LOCALHOST.to_owned()")]
        sshd_host: String,
        /// port of the sshd on this device (default: 22)
        #[argh(option, arg_name = "port", default = "22", from_str_fn(port))]
        sshd_port: u16,
        /// whether each client reaches an sshd of OpenSSH 9.8 and later from a loopback address of its own, 127.x.y.z, so
        /// that one's failed logins shut out no other: auto (the default) or off
        #[argh(option, arg_name = "when", default = "ClientSource::default()")]
        client_source: ClientSource,
        /// atSign of the policy that decides about everybody who is not a manager
        #[argh(option, arg_name = "atsign")]
        policy: Option<String>,
        /// group of this device, for the policy (default: none)
        #[argh(option, arg_name = "name")]
        device_group: Option<String>,
        /// let clients add their ssh public keys to authorized_keys
        #[argh(switch)]
        accept_keys: bool,
        /// options to write before each added key, as in sshd(8)
        #[argh(option, arg_name = "list", default = "String::new()")]
        key_options: String,
        /// other daemons with this atSign and device name are intended: whoever answers a client first serves it
        #[argh(switch)]
        shared_name: bool,
        /// publish neither the user name nor a record of this device
        #[argh(switch)]
        hide: bool,
        /// let nobody else reach this atSign's atServer: managers, policy and the rendezvous behind --rendezvous
        #[argh(switch)]
        only_managers: bool,
        /// with --only-managers: the rendezvous that sessions may meet at; commas separate several
        #[argh(option, arg_name = "atsign")]
        rendezvous: Vec<String>,
        /// refuse sessions without encryption or without login at the rendezvous
        #[argh(switch)]
        require_protection: bool,
        /// authenticated: only sessions in which both ends notice whatever somebody on the way changes
        #[argh(option, arg_name = "what")]
        require: Option<Requirement>,
        /// most sessions at a time (default: as many as fit into half of the memory)
        #[argh(option, arg_name = "number", from_str_fn(count))]
        max_sessions: Option<usize>,
        /// dial a rendezvous at an inner address (192.168.0.7, 127.0.0.1), too, though the atDirectory is not at one: only
        /// where whoever names rendezvous may send this device around its own network
        #[argh(switch)]
        allow_inner: bool,
        /// replace a connection to the atServer that has died in silence within about this time, 10s to 10m: the shorter,
        /// the more packets on a quiet line (default: 20s; twice the time, half of them)
        #[argh(
            option,
            arg_name = "seconds",
            default = "PROOF",
            from_str_fn(online::proof_time)
        )]
        proof: Duration,
        /// when to make a temporary ssh key for a session: needed (the default: where nothing else encrypts), always
        /// (clients before 5.3) or never
        #[argh(option, arg_name = "when", default = "TemporaryKeyRule::default()", hidden_help)]
        temporary_keys: TemporaryKeyRule,
        /// additional options for these keys; commas separate several
        #[argh(option, arg_name = "list", default = "String::new()", hidden_help)]
        temporary_key_options: String,
        /// also log in to clients by ssh when they ask for it (clients before 4.0)
        #[argh(switch, hidden_help)]
        reverse_ssh: bool,
        /// answer clients of 4.0 release candidate 2 in their form
        #[argh(switch, hidden_help)]
        bare_answers: bool,
        sandbox,
        account,
    }
}

/// The program.
pub fn main(console: Console, words: &[&str]) -> ExitCode {
    process::sessions_go_first();
    // A daemon's log is its voice: one line per session by default.
    console.serve(words, LevelFilter::Info, 1, confined, story)
}

/// Whether it would start with these words; for a service, before it is installed.
pub fn verify(console: Console, words: &[&str]) -> ExitCode {
    console.verify(words, |console, args: Args| args.ready(console).map(drop))
}

impl Args {
    fn options(&self) -> Result<DaemonOptions, Failure> {
        let misuse = |error: &dyn std::fmt::Display| Failure::misuse(error.to_string());
        let named = pins::all_named(separated(&self.manager));
        let (managers, pins) = named.map_err(Failure::misuse)?;
        let recovery = separated(&self.recovery).map(str::parse::<Fingerprint>);
        let recovery = recovery.collect::<Result<_, _>>();
        let consult = self.consult()?;
        if (managers.is_empty() && consult.is_none()) || managers.len() > MAX_MANAGERS {
            return Err(
                Failure::misuse("no manager: give at least one --manager or a --policy")
                    .hint("--manager @alice"),
            );
        }
        let sshd = Endpoint {
            host: canonical(&self.sshd_host).ok_or_else(|| {
                Failure::misuse(format!(
                    "invalid --sshd-host {:?}: no name of a host",
                    self.sshd_host
                ))
                .hint("--sshd-host 192.168.0.1")
            })?,
            port: self.sshd_port,
        };
        let permit = match (&self.permit_open, &consult) {
            (Some(list), _) if list.split(',').all(|word| word.trim().is_empty()) => {
                let why = format!("--permit-open {list:?} permits nothing");
                return Err(Failure::misuse(why).hint("--permit-open localhost:22,nas:*"));
            }
            (Some(list), _) => list.clone(),
            (None, Some(_)) => "*:*".to_owned(),
            (None, None) => format!("{sshd},localhost:3389"),
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
            sshd,
            client_source: self.client_source,
            shared_name: self.shared_name,
            hide: self.hide,
            ssh: self.ssh()?,
            require_protection: self.require_protection,
            require: self.require,
            proof: self.proof,
            #[cfg(feature = "held")]
            habits: Profile::of_environment(|profile| Some(profile.daemon))?,
            program: launch::program()?,
            memory: paths::memory(),
            bridges: paths::runtime().map(|folder| paths::bridges(&folder)),
            pins,
            recovery: recovery.map_err(Failure::misuse)?,
            only_managers: self.only_managers()?,
            allow_inner: self.allow_inner,
            sandbox: !self.no_sandbox,
            max_sessions: match self.max_sessions {
                Some(most) => most as u64,
                None => budgets::fitting(memory::limit()),
            },
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

    /// A rendezvous looks this device's key up, so it has to be let in.
    fn only_managers(&self) -> Result<Option<Vec<AtSign>>, Failure> {
        let rendezvous = separated(&self.rendezvous).map(str::parse::<AtSign>);
        let rendezvous = rendezvous.collect::<Result<Vec<_>, _>>()?;
        match (self.only_managers, rendezvous.is_empty()) {
            (false, true) => Ok(None),
            (true, false) => Ok(Some(rendezvous)),
            (true, true) => Err(
                Failure::misuse("--only-managers shuts out the rendezvous, too")
                    .hint("--rendezvous @rv"),
            ),
            (false, false) => {
                Err(Failure::misuse("--rendezvous without --only-managers").hint("--only-managers"))
            }
        }
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
        let options = self.options()?;
        let (network, keys) = self.account().load(console, self.as_.as_deref())?;
        Ok((network, keys, options))
    }
}

type Prepared = (Network, Arc<AtKeys>, DaemonOptions);

/// All that is read once is read, and from here on cannot be any more.
fn confined(console: &Console, args: &Args) -> Result<Prepared, Failure> {
    let prepared = args.ready(console)?;
    if !args.no_sandbox {
        confinement(&prepared.2).enter();
    }
    Ok(prepared)
}

/// Folders that are not there are made: none can be allowed later.
fn confinement(options: &DaemonOptions) -> Confinement {
    let made = |folder: &PathBuf| {
        if let Err(why) = paths::private_folder(folder) {
            debug!("folder={} reason={why}", folder.display());
        }
    };
    let (home, ssh) = (paths::home().filter(|home| home.is_dir()), &options.ssh);
    let mut writes: Vec<_> = options.memory.iter().cloned().collect();
    writes.extend(home.as_ref().map(|home| home.join(".ssh")));
    // Control sockets of bridges, keys to log in to clients with.
    writes.extend(paths::runtime());
    writes.iter().for_each(made);
    // It may be a link to a file elsewhere.
    let linked = home.as_ref().map(|home| home.join(".ssh/authorized_keys"));
    writes.extend(linked.iter().flat_map(|file| sandbox::folders_to(file)));
    // What a daemon may not do its bridges may not either.
    let chooses = options.client_source == ClientSource::Auto;
    if !ssh.reverse {
        return Confinement::of(&sandbox::DAEMON)
            .writes(writes)
            .chooses_sources(chooses);
    }
    let path = env::var_os("PATH").unwrap_or_default();
    Confinement::of(&sandbox::DAEMON_WITH_SSH)
        .writes(writes)
        .chooses_sources(chooses)
        .runs(env::split_paths(&path).chain(home))
}

async fn story(
    console: &Console,
    args: Args,
    (network, keys, options): Prepared,
) -> Result<(), Failure> {
    // The classic programs change it without a word.
    if let Some(typed) = args
        .device
        .filter(|typed| *typed != options.device.as_str())
        && !console.is_classic()
    {
        warn!(
            "device={} typed={typed:?} hint=\"names of devices have small letters and no blanks: clients reach this one \
             as {}\"",
            options.device, options.device
        );
    }
    online::until_told(serve(network, keys, options, online::tell(args.json))).await
}
