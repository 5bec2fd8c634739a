//! The client's command line, and what it means.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use argh::{ArgsInfo, FromArgs};

use crate::{
    classic::two_sshs::{self, CarrierOptions},
    cli::{Console, Failure, flags},
    np::{
        session::{Generation, Terms},
        sshkey::{self, PublicKeyLine},
    },
    session::ask::{PATIENCE, Requirement, Whom},
    sys::{
        self,
        file::{NamedFile, Writers},
        ssh::{self, UserName},
    },
    text::{
        duration::seconds,
        port::{port, port_or_any},
    },
};

flags! {
    /// Open an ssh session to a device that has no open port.
    ///
    /// Your machine and the device both connect outward to a rendezvous, which relays what they encrypt end to end. Then ssh
    /// runs as usual, with your own ssh keys.
    #[derive(FromArgs, ArgsInfo)]
    #[argh(
        example = "{command_name} --to @kitchen --device pi --via @rv_eu",
        example = "{command_name} --to @kitchen --device pi --via @rv_eu --print",
        example = "{command_name} --to @kitchen --device pi --via @rv_eu -- -L 8080:nas:80"
    )]
    pub(crate) struct Args {
        peer,
        /// user name on the device (default: the name its daemon publishes)
        #[argh(option, arg_name = "name")]
        user: Option<String>,
        /// private key file for ssh
        #[argh(option, arg_name = "file")]
        identity: Option<String>,
        /// add this ssh public key to authorized_keys on the device, permanently; its daemon must accept keys
        #[argh(option, arg_name = "file")]
        send_key: Option<PathBuf>,
        /// carry the session on stdin and stdout, for ssh's ProxyCommand; open no port
        #[argh(switch)]
        stdio: bool,
        /// print the ssh command, keep its port open in the background, and return
        #[argh(switch)]
        print: bool,
        /// local port for ssh to connect to (default: any free one)
        #[argh(option, arg_name = "port", default = "0", from_str_fn(port_or_any))]
        local_port: u16,
        /// how long to wait for each answer (default: 20s)
        #[argh(option, arg_name = "duration", default = "PATIENCE", from_str_fn(seconds))]
        timeout: Duration,
        /// authenticated: only with a device that notices whatever somebody on the way changes
        #[argh(option, arg_name = "what")]
        require: Option<Requirement>,
        /// turn off end-to-end encryption of the relayed stream; ssh still encrypts (daemons before 5.0)
        #[argh(switch, hidden_help)]
        no_encrypt: bool,
        /// do not log in at the rendezvous (rendezvous before 5.0)
        #[argh(switch, hidden_help)]
        no_admit_client: bool,
        /// let the device connect to the rendezvous without logging in (daemons before 5.0)
        #[argh(switch, hidden_help)]
        no_admit_device: bool,
        /// let the device log in to an sshd on this machine for the session (daemons before 4.0)
        #[argh(switch, hidden_help)]
        legacy_daemon: bool,
        /// with --legacy-daemon: port of the sshd on this machine (default: 22)
        #[argh(option, arg_name = "port", default = "22", from_str_fn(port), hidden_help)]
        local_sshd_port: u16,
        /// where an outer ssh carries the session: port of the device's sshd (default: 22)
        #[argh(option, arg_name = "port", default = "22", from_str_fn(port), hidden_help)]
        remote_sshd_port: u16,
        /// user name on the device for the outer ssh (default: the same as for the inner one)
        #[argh(option, arg_name = "name", hidden_help)]
        tunnel_user: Option<String>,
        /// apply the forwardings given after -- to the outer ssh
        #[argh(switch, hidden_help)]
        add_forwards_to_tunnel: bool,
        /// how long the outer ssh may stay idle (default: 15s)
        #[argh(
            option,
            arg_name = "duration",
            default = "two_sshs::IDLE",
            from_str_fn(seconds),
            hidden_help
        )]
        idle_timeout: Duration,
        account,
        /// options for ssh, and a command to run on the device
        #[argh(positional, greedy)]
        ssh: Vec<String>,
    }
}

/// What the arguments mean, complete.
pub(super) struct Settings {
    pub whom: Whom,
    pub user: Option<UserName>,
    pub identity: Option<PathBuf>,
    pub mode: Mode,
    pub local_port: u16,
    pub send_key: Option<PublicKeyLine>,
    pub local_sshd_port: u16,
    pub inside: CarrierOptions,
    /// Behind `--`.
    pub ssh: Vec<String>,
    pub json: bool,
    /// Asked for by the classic program's name.
    pub classic: bool,
}

/// What the person gets.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Shell,
    Stdio,
    Print,
}

impl Args {
    pub(super) async fn settings(&self, console: &Console) -> Result<Settings, Failure> {
        let (device, via) = (self.device.as_deref(), self.via.as_deref());
        let mut whom = Whom::parse(&self.to, device, via, self.timeout)?;
        let terms = whom.terms;
        whom.terms = terms.without(self.no_encrypt, self.no_admit_client, self.no_admit_device);
        whom.terms.authenticate = self.require.is_some();
        if self.require.is_some() && (self.no_encrypt || self.legacy_daemon) {
            let other = if self.no_encrypt {
                "--no-encrypt"
            } else {
                "--legacy-daemon"
            };
            return Err(Failure::misuse(format!(
                "--require and {other} exclude each other"
            )));
        }
        if self.legacy_daemon {
            whom.terms = Terms::of(Generation::V3);
        }
        let mode = match (self.stdio, self.print) {
            (true, true) => return Err(Failure::misuse("--stdio and --print exclude each other")),
            (true, false) => Mode::Stdio,
            (false, true) => Mode::Print,
            (false, false) => Mode::Shell,
        };
        if mode == Mode::Stdio && whom.terms.generation == Generation::V3 {
            let why = "--stdio and --legacy-daemon exclude each other";
            return Err(Failure::misuse(why).hint("leave out one of them"));
        }
        if mode == Mode::Stdio && !self.ssh.is_empty() {
            let why = "--stdio starts no ssh that these words could be for";
            return Err(Failure::misuse(why).hint("give them to the ssh that starts this program"));
        }
        check_words(&self.ssh)?;
        let name = |typed: &Option<String>| typed.as_deref().map(str::parse).transpose();
        let user = self.user.clone().or_else(|| ssh::typed_user(&self.ssh));
        let (ssh, for_tunnel) = if self.add_forwards_to_tunnel {
            two_sshs::take_forwards(&self.ssh)
        } else {
            (self.ssh.clone(), Vec::new())
        };
        let inside = CarrierOptions {
            user: name(&self.tunnel_user).map_err(misuse)?,
            sshd: self.remote_sshd_port,
            options: [two_sshs::for_both(&self.ssh), for_tunnel].concat(),
            idle: self
                .idle_timeout
                .clamp(two_sshs::LEAST_IDLE, two_sshs::MOST_IDLE),
        };
        Ok(Settings {
            whom,
            user: name(&user).map_err(misuse)?,
            identity: self.identity()?,
            mode,
            local_port: self.local_port,
            send_key: match &self.send_key {
                Some(file) => Some(read_key(file).await?),
                None => None,
            },
            local_sshd_port: self.local_sshd_port,
            inside,
            ssh,
            json: self.json,
            classic: console.is_classic(),
        })
    }
}

impl Args {
    /// ssh would do without one that is not there, and wait for a pipe.
    fn identity(&self) -> Result<Option<PathBuf>, Failure> {
        let Some(file) = self.identity.as_ref().map(PathBuf::from) else {
            return Ok(None);
        };
        let found = NamedFile::open_safe(&file, Writers::Group);
        let found = found.and_then(NamedFile::into_whole_file);
        let bad =
            |why| Failure::misuse(format!("--identity: cannot use {}: {why}", file.display()));
        found.map_err(bad)?;
        Ok(Some(file))
    }
}

/// Words for ssh that would lead it elsewhere are a mistake that it would not notice.
fn check_words(words: &[String]) -> Result<(), Failure> {
    if let Some(option) = ssh::leads_elsewhere(words) {
        return Err(Failure::misuse(format!(
            "the ssh option \"{option}\" would not lead to the device"
        ))
        .hint("to choose the sshd, use the daemon's --sshd-host and --sshd-port; to set up ssh yourself, use --stdio as its ProxyCommand"));
    }
    match ssh::shares_with_others(words) {
        None => Ok(()),
        Some(path) => Err(Failure::misuse(format!(
            "ssh's ControlPath \"{path}\" is the same for all devices: a command for one would run on another"
        ))
        .hint("put %h in it for the device and %r for the user")),
    }
}

/// A public key's file. Who names the private one by mistake must not send it.
async fn read_key(file: &Path) -> Result<PublicKeyLine, Failure> {
    let failed = |why: &dyn std::fmt::Display| {
        Failure::misuse(format!("{}: {why}", file.display()))
            .hint("it is the public key's file, such as ~/.ssh/id_ed25519.pub")
    };
    let most = sshkey::MAX_PUBLIC_KEY as u64 + 2;
    let text = sys::file::safe_text(file, most).await;
    let text = text.map_err(|error| failed(&error))?;
    PublicKeyLine::parse(&text).map_err(|error| failed(&error))
}

fn misuse(error: impl std::fmt::Display) -> Failure {
    Failure::misuse(error.to_string())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{fs, io::Write, pin::pin};

    use async_std::task::block_on;
    use futures_lite::future::poll_once;

    use super::*;
    use crate::{cli::exit, testing::named_pipe};

    #[test]
    fn a_key_that_comes_through_a_pipe_holds_nobody_up_and_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = named_pipe(folder.path());
        // Both directions: this opens without another end.
        let writer = fs::File::options().read(true).write(true).open(&pipe);
        let mut writer = writer.unwrap();
        let mut key = pin!(read_key(&pipe));
        // Before the end comes, others have their turn.
        assert!(block_on(poll_once(&mut key)).is_none());
        let line =
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f me\n";
        writer.write_all(line.as_bytes()).unwrap();
        let key = block_on(async {
            while rustix::io::ioctl_fionread(&writer).unwrap() != 0 {
                assert!(poll_once(&mut key).await.is_none());
            }
            drop(writer);
            key.await
        });
        assert_eq!(key.unwrap(), PublicKeyLine::parse(line).unwrap());
    }

    #[test]
    fn what_is_no_key_is_refused_however_long_it_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        for device in [
            Path::new("/dev/zero"),
            Path::new("/dev/null"),
            folder.path(),
        ] {
            let refused = block_on(read_key(device)).err().unwrap();
            assert_eq!(refused.code, exit::MISUSE, "{}", refused.message);
        }
    }
}
