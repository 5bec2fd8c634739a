//! The rendezvous' command line, and what it means.

use std::{
    env,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    process::ExitCode,
    sync::Arc,
};

use argh::FromArgs;
use log::{LevelFilter, warn};

use super::{MAX_SESSIONS, RendezvousOptions, address, serve};
#[cfg(feature = "held")]
use crate::classic::generation::Profile;
use crate::{
    at::{client::Network, keyfile::AtKeys},
    cli::{Console, Failure, with_account},
    net::dial::is_localhost,
    session::online,
    sys,
    text::host::is_host,
};

with_account! {
    /// The meeting point: joins two outbound sockets.
    #[derive(FromArgs)]
    struct Args {
        /// the rendezvous' atSign (default: the only one with keys here)
        #[argh(option, long = "as")]
        as_: Option<String>,
        /// name or address that both ends dial (default: the address from which this machine reaches the
        /// atDirectory)
        #[argh(option)]
        host: Option<String>,
        /// local address to listen on (default: loopback if --host is, else all)
        #[argh(option)]
        bind: Option<IpAddr>,
        /// who may ask for ports: an atSign (repeat it), or "open" (default)
        #[argh(option)]
        manager: Vec<String>,
        /// refuse sessions whose ends do not both say who they are, as clients before 5.0 do not
        #[argh(switch)]
        signed_only: bool,
        /// log of each connection whose it was and how much it carried; only with ENABLE_SNOOP=true in the
        /// environment
        #[argh(switch)]
        snoop: bool,
        /// sessions at a time (default: 4096)
        #[argh(option, default = "MAX_SESSIONS")]
        max_sessions: usize,
        /// say on stdout, as JSON lines, when it is ready
        #[argh(switch)]
        json: bool,
    }
}

/// Has to be `true` for --snoop.
const ENABLE_SNOOP: &str = "ENABLE_SNOOP";

/// The program.
pub fn main(mut console: Console, words: &[&str]) -> ExitCode {
    let args: Args = match console.parse(words) {
        Ok(args) => args,
        Err(code) => return code,
    };
    sys::log::start(LevelFilter::Info, args.verbose, args.quiet);
    sys::process::protect_memory();
    sys::process::raise_descriptor_limit();
    let json = args.json;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    console.finish(
        json,
        console.run(threads, online::until_told(story(&console, args))),
    )
}

impl Args {
    fn policy(&self, host: String) -> Result<RendezvousOptions, Failure> {
        if !is_host(&host) {
            return Err(Failure::misuse(format!(
                "{host:?} is no host name or address"
            )));
        }
        let words = self
            .manager
            .iter()
            .flat_map(|list| list.split(','))
            .map(str::trim);
        let managers = words
            .filter(|word| !word.is_empty() && *word != "open")
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        if self.snoop && env::var(ENABLE_SNOOP).as_deref() != Ok("true") {
            let why = format!("--snoop works only with {ENABLE_SNOOP}=true in the environment");
            return Err(Failure::misuse(why));
        }
        Ok(RendezvousOptions {
            managers,
            signed_only: self.signed_only,
            snoop: self.snoop,
            max_sessions: self.max_sessions,
            #[cfg(feature = "held")]
            habits: Profile::of_environment(|profile| profile.rendezvous)?,
            ..RendezvousOptions::for_everybody(
                &host,
                self.bind.unwrap_or_else(|| default_bind(&host)),
            )
        })
    }
}

/// Loopback stays loopback; everything else is reachable from outside.
fn default_bind(host: &str) -> IpAddr {
    match host.trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(address) if address.is_loopback() => address,
        Ok(IpAddr::V6(_)) => Ipv6Addr::UNSPECIFIED.into(),
        _ if is_localhost(host) => Ipv4Addr::LOCALHOST.into(),
        _ => Ipv4Addr::UNSPECIFIED.into(),
    }
}

/// Whether it would start with these words; for a service, before it is installed.
pub fn verify(name: &str, words: &[&str]) -> ExitCode {
    Console::new(name).verify(words, |console, args: Args| {
        // Where none is given, it is found out when the service starts.
        let host = args.host.clone().unwrap_or_else(|| "localhost".to_owned());
        args.ready(console, host).map(drop)
    })
}

impl Args {
    /// Everything that can be wrong before anybody is dialled.
    fn ready(
        &self,
        console: &Console,
        host: String,
    ) -> Result<(Network, Arc<AtKeys>, RendezvousOptions), Failure> {
        let policy = self.policy(host)?;
        let (network, keys) = self.account().load(console, self.as_.as_deref())?;
        Ok((network, keys, policy))
    }
}

async fn story(console: &Console, args: Args) -> Result<(), Failure> {
    let host = match &args.host {
        Some(host) => host.clone(),
        None => own_address(&args.account().network()?).await?,
    };
    let (network, keys, policy) = args.ready(console, host)?;
    serve(network, keys, policy, online::tell(args.json)).await
}

async fn own_address(network: &Network) -> Result<String, Failure> {
    let found = address::discover(&network.root).await?;
    if address::is_inside(found) {
        warn!(
            "host={found} discovered=inside hint=\"only neighbours can dial it; --host says the address of the outside\""
        );
    }
    Ok(match found {
        IpAddr::V6(v6) => format!("[{v6}]"),
        v4 => v4.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use crate::program::rendezvous::args::*;

    #[test]
    fn loopback_stays_loopback() {
        for (host, want) in [
            ("127.0.0.1", "127.0.0.1"),
            ("::1", "::1"),
            ("[::1]", "::1"),
            ("localhost", "127.0.0.1"),
            ("192.0.2.7", "0.0.0.0"),
            ("2001:db8::1", "::"),
            ("rv.example.org", "0.0.0.0"),
        ] {
            assert_eq!(default_bind(host).to_string(), want, "{host}");
        }
    }
}
