//! The rendezvous' command line, and what it means.

use std::{
    env,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use argh::{ArgsInfo, FromArgs};
use futures_lite::future;
use log::{LevelFilter, warn};

use super::{RendezvousOptions, address, budgets::MAX_SESSIONS, serve};
#[cfg(feature = "held")]
use crate::classic::generation::Profile;
use crate::{
    at::{
        client::{Network, PROOF},
        keyfile::AtKeys,
    },
    cli::{Console, Failure, flags, separated},
    net::dial::{is_localhost, resolve},
    pipe::join::HALF_CLOSED,
    session::online,
    sys::{
        self,
        sandbox::{self, Confinement},
    },
    text::{
        duration::seconds,
        endpoint::Endpoint,
        host::{canonical, is_host_for_all},
        number::{self, count},
    },
};

flags! {
    /// Relay sessions: join the outbound connections of two ends that have no open port.
    ///
    /// A rendezvous cannot read what it relays. It opens two ports for each session, so its host has to be reachable by
    /// clients and devices.
    #[derive(FromArgs, ArgsInfo)]
    #[argh(
        example = "{command_name} --as @my_rendezvous --host rv.example.org",
        example = "{command_name} --as @my_rendezvous --host rv.example.org --manager @alice",
        example = "{command_name} install --as @my_rendezvous --host rv.example.org"
    )]
    pub(crate) struct Args {
        /// the rendezvous' atSign (or NOPORTS_AS; default: the only one with keys here)
        #[argh(option, long = "as", arg_name = "atsign")]
        as_: Option<String>,
        /// name or address of this host, as both ends can reach it (default: the address from which it reaches the
        /// atDirectory)
        #[argh(option, arg_name = "host")]
        host: Option<String>,
        /// local address to listen on (default: loopback if --host is loopback, else all)
        #[argh(option, arg_name = "address", from_str_fn(number::address))]
        bind: Option<IpAddr>,
        /// atSign that may use it; commas separate several; "open" is everybody (default: open)
        #[argh(option, arg_name = "atsign")]
        manager: Vec<String>,
        /// how many sessions at the same time (default: 4096)
        #[argh(
            option,
            arg_name = "number",
            default = "MAX_SESSIONS",
            from_str_fn(count)
        )]
        max_sessions: usize,
        /// refuse sessions unless both ends authenticate; clients before 5.0 do not
        #[argh(switch)]
        signed_only: bool,
        /// how long a connection may stand with one direction closed and the other silent (default: 10m)
        #[argh(
            option,
            arg_name = "duration",
            default = "HALF_CLOSED",
            from_str_fn(seconds)
        )]
        half_closed: Duration,
        /// replace a connection to the atServer that has died in silence within about this time, 10s to 10m: the shorter,
        /// the more packets on a quiet line (default: 20s; twice the time, half of them)
        #[argh(
            option,
            arg_name = "seconds",
            default = "PROOF",
            from_str_fn(online::proof_time)
        )]
        proof: Duration,
        /// log owner and byte counts of each connection; only with ENABLE_SNOOP=true in the environment
        #[argh(switch)]
        snoop: bool,
        sandbox,
        account,
    }
}

/// Has to be `true` for --snoop.
const ENABLE_SNOOP: &str = "ENABLE_SNOOP";

/// Stands for an address that only the network knows.
const LOCALHOST: &str = "localhost";

/// For looking a name up.
const ANY_PORT: u16 = 1;

/// The program.
pub fn main(console: Console, words: &[&str]) -> ExitCode {
    let story = async |_: &Console, args, prepared| online::until_told(story(args, prepared)).await;
    let threads = sys::process::cores();
    console.serve(words, LevelFilter::Info, threads, confined, story)
}

impl Args {
    fn options(&self, host: String) -> Result<RendezvousOptions, Failure> {
        // Other programs dial it as it is written here, without brackets.
        let spelt = canonical(&host).filter(|_| is_host_for_all(&host));
        let host = spelt
            .ok_or_else(|| Failure::misuse(format!("{host:?} is not a host name or address")))?;
        let managers = separated(&self.manager).filter(|word| *word != "open");
        let managers = managers.map(str::parse).collect::<Result<_, _>>()?;
        if self.snoop && env::var(ENABLE_SNOOP).as_deref() != Ok("true") {
            let why = format!("--snoop works only with {ENABLE_SNOOP}=true in the environment");
            return Err(Failure::misuse(why));
        }
        Ok(RendezvousOptions {
            managers,
            signed_only: self.signed_only,
            snoop: self.snoop,
            max_sessions: self.max_sessions,
            proof: self.proof,
            half_closed: self.half_closed,
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
    match host.parse::<IpAddr>() {
        Ok(address) if address.is_loopback() => address,
        Ok(IpAddr::V6(_)) => Ipv6Addr::UNSPECIFIED.into(),
        _ if is_localhost(host) => Ipv4Addr::LOCALHOST.into(),
        _ => Ipv4Addr::UNSPECIFIED.into(),
    }
}

/// Whether it would start with these words; for a service, before it is installed.
pub fn verify(console: Console, words: &[&str]) -> ExitCode {
    console.verify(words, |console, args: Args| {
        // Where none is given, it is found out when the service starts.
        let host = args.host.clone().unwrap_or_else(|| LOCALHOST.to_owned());
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
        let options = self.options(host)?;
        let (network, keys) = self.account().load(console, self.as_.as_deref())?;
        Ok((network, keys, options))
    }
}

type Prepared = (Network, Arc<AtKeys>, RendezvousOptions);

/// All that is read once is read, and from here on cannot be any more.
fn confined(console: &Console, args: &Args) -> Result<Prepared, Failure> {
    sys::process::raise_descriptor_limit();
    // Where none is given, the network has to be asked.
    let host = args.host.clone().unwrap_or_else(|| LOCALHOST.to_owned());
    let prepared = args.ready(console, host)?;
    if !args.no_sandbox {
        Confinement::of(&sandbox::RENDEZVOUS).enter();
    }
    Ok(prepared)
}

async fn story(args: Args, (network, keys, mut options): Prepared) -> Result<(), Failure> {
    if args.host.is_none() {
        options = args.options(own_address(&network).await?)?;
    }
    let checking = async {
        if let Some(host) = &args.host {
            tell_unknown_host(host).await;
        }
        future::pending().await
    };
    let serving = serve(network, keys, options, online::tell(args.json));
    future::or(serving, checking).await
}

/// It may be a name that only others know, or one to come: nothing that ends us.
async fn tell_unknown_host(host: &str) {
    let Ok(at) = Endpoint::parse(host, Some(ANY_PORT)) else {
        return;
    };
    if let Err(why) = resolve(&at).await {
        warn!(
            "host={host} reason={:?} hint=\"both ends of each session dial this name: check its spelling, and DNS\"",
            why.to_string()
        );
    }
}

async fn own_address(network: &Network) -> Result<String, Failure> {
    let found = address::discover(&network.root).await?;
    if address::is_inside(found) {
        warn!(
            "host={found} discovered=inside hint=\"only machines on the same network can reach it; give the public name or address with --host\""
        );
    }
    Ok(found.to_string())
}

#[cfg(test)]
mod tests {
    use crate::program::rendezvous::args::*;

    #[test]
    fn loopback_stays_loopback() {
        for (host, want) in [
            ("127.0.0.1", "127.0.0.1"),
            ("::1", "::1"),
            ("localhost", "127.0.0.1"),
            ("192.0.2.7", "0.0.0.0"),
            ("2001:db8::1", "::"),
            ("rv.example.org", "0.0.0.0"),
        ] {
            assert_eq!(default_bind(host).to_string(), want, "{host}");
        }
    }
}
