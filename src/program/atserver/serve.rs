//! The server: from a command line to its end.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use argh::{ArgsInfo, FromArgs};
use async_std::net::TcpListener;
use futures_lite::future;
use log::{LevelFilter, info, warn};

use crate::{
    at::client::Network,
    cli::{self, Console, Failure, HasOutput, Outcome, flags, print_err},
    net::tls::Acceptor,
    secret::Secret,
    server::{
        authority,
        control::{AdminSocket, ServerStatus},
        health,
        listen::{self, RunningServer, ServerError, ServerOptions, Timings},
    },
    sys::{
        file::{self, NamedFile, Writers},
        paths, process,
        sandbox::{self, Confinement},
        signal,
        supervisor::{self, ServiceState},
    },
    text::{
        endpoint::Endpoint,
        host::{canonical, is_host_for_all},
        number::{address, socket_address},
        port::port_or_any,
    },
};

use super::{
    answer::{FIRST_PORT, answer, status},
    folder::{data_folder, elsewhere, has_data, with_folder},
    last_time::{self, Flag, last_time, whole},
};

/// Where it listens unless somebody says otherwise.
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Where unmodified clients expect an atDirectory.
const DIRECTORY_PORT: u16 = 64;

flags! {
    /// Serve the hosted atSigns until stopped.
    ///
    /// Data is kept in --data: /var/lib/noports/atserver as root, else ~/.local/share/noports/atserver. Started with no flag
    /// that says where or how to serve, it does so as it did last time.
    #[derive(FromArgs, ArgsInfo, Debug, Default)]
    #[argh(
        subcommand,
        name = "serve",
        example = "{command_name} --port 6400",
        example = "{command_name} --listen 0.0.0.0 --host at.example.org",
        example = "{command_name} --data ./atserver --port 0 --first-port 0"
    )]
    pub(super) struct Serve {
        /// data folder (or NOPORTS_DATA)
        #[argh(option, arg_name = "dir")]
        pub data: Option<PathBuf>,
        /// address to listen on (default: 127.0.0.1; with --host ::1 that)
        #[argh(option, arg_name = "address", from_str_fn(address))]
        pub listen: Option<IpAddr>,
        /// name or address of this host, as clients reach it; those before ours need a name or an IPv4 address (default:
        /// localhost, or the address listened on)
        #[argh(option, arg_name = "host")]
        pub host: Option<String>,
        /// port of the atDirectory (default: 64; 0: any free one)
        #[argh(option, arg_name = "port", from_str_fn(port_or_any))]
        pub port: Option<u16>,
        /// port of the first atServer; the others follow (default: 25000; 0: any free one)
        #[argh(option, arg_name = "port", from_str_fn(port_or_any))]
        pub first_port: Option<u16>,
        /// give each atSign a name in this domain, alice.DOMAIN; all share the first port
        #[argh(option, arg_name = "name")]
        pub domain: Option<String>,
        /// certificate chain to use instead of one by the built-in authority: a PEM file
        #[argh(option, arg_name = "file")]
        pub tls_cert: Option<PathBuf>,
        /// private key of that certificate: a PEM file
        #[argh(option, arg_name = "file")]
        pub tls_key: Option<PathBuf>,
        /// answer GET /health and GET /metrics (Prometheus) on this loopback address, such as 127.0.0.1:9464
        #[argh(option, arg_name = "host:port", from_str_fn(socket_address))]
        pub metrics: Option<SocketAddr>,
        /// also talk to other atServers, found by this atDirectory (default: only those hosted here)
        #[argh(option, arg_name = "host:port")]
        pub root: Option<String>,
        /// trust this certificate authority too: a PEM file, for other atServers
        #[argh(option, arg_name = "file")]
        pub ca: Vec<String>,
        sandbox,
        output,
    }
}

impl Serve {
    /// With the flags of last time, if it has none of them.
    pub(super) fn like_last_time(self, data: &Path) -> Result<Self, Failure> {
        if !self.flags().is_empty() {
            return Ok(self);
        }
        let last = last_time(data)?;
        Ok(last.unwrap_or_default().talking_as(&self))
    }

    fn talking_as(self, now: &Self) -> Self {
        Self {
            data: now.data.clone(),
            json: now.json,
            quiet: now.quiet,
            verbose: now.verbose,
            ..self
        }
    }

    /// Those that say where and how to serve, as they were given.
    pub(super) fn flags(&self) -> Vec<Flag> {
        let path = |path: &Option<PathBuf>| path.as_deref().map(whole);
        let one = [
            ("listen", self.listen.map(|at| at.to_string())),
            ("host", self.host.clone()),
            ("port", self.port.map(|port| port.to_string())),
            ("first-port", self.first_port.map(|port| port.to_string())),
            ("domain", self.domain.clone()),
            ("tls-cert", path(&self.tls_cert)),
            ("tls-key", path(&self.tls_key)),
            ("metrics", self.metrics.map(|at| at.to_string())),
            ("root", self.root.clone()),
        ];
        let one = one.into_iter();
        let one = one.filter_map(|(name, value)| Some((name, value?)));
        let authorities = self.ca.iter().map(|ca| ("ca", whole(Path::new(ca))));
        one.chain(authorities).collect()
    }

    pub(super) fn address(&self) -> IpAddr {
        // Where clients are sent to the loopback address of one family, nobody would come to the other's.
        let host = self.host.as_deref().and_then(canonical);
        let told = host.and_then(|host| host.parse::<IpAddr>().ok());
        let told = told.filter(IpAddr::is_loopback);
        self.listen.or(told).unwrap_or(LOOPBACK)
    }

    /// What clients are told to connect to.
    pub(super) fn host(&self) -> Result<String, Failure> {
        for (flag, name) in [("host", &self.host), ("domain", &self.domain)] {
            if let Some(name) = name.as_deref().filter(|name| !is_host_for_all(name)) {
                return Err(Failure::misuse(format!(
                    "invalid --{flag} {name:?}: no name of a host"
                ))
                .hint(format!("--{flag} at.example.org")));
            }
        }
        match &self.host {
            Some(host) => Ok(canonical(host).unwrap_or_else(|| host.clone())),
            None => default_host(self.address()),
        }
    }

    pub(super) fn port(&self) -> u16 {
        self.port.unwrap_or(DIRECTORY_PORT)
    }

    /// The first atServer's. With `--port 0` nobody relies on fixed numbers.
    pub(super) fn first_port(&self) -> u16 {
        let usual = if self.port() == 0 { 0 } else { FIRST_PORT };
        self.first_port.unwrap_or(usual)
    }
}

pub(super) fn serve(console: &Console, args: Serve) -> Result<(), Failure> {
    args.output().start(LevelFilter::Info);
    process::raise_descriptor_limit();
    let data = data_folder(args.data.clone())?;
    let is_new = last_time(&data)?.is_none();
    let near = elsewhere(&data).filter(|_| args.data.is_none() && !has_data(&data));
    if let Some(near) = near.filter(|_| !args.quiet) {
        let line = with_folder("serve", &near);
        print_err(&format!(
            "new data in {}; to go on with the other: {line}",
            data.display()
        ));
    }
    let args = args.like_last_time(&data)?;
    let prepared = confined(&args, data, is_new)?;
    console.run(process::cores(), story(console, args, prepared))
}

/// What is known before anybody is served.
struct Prepared {
    data: PathBuf,
    /// Nobody knows of this server yet.
    is_new: bool,
    host: String,
    tls: Acceptor,
    /// Tells clients whom to trust.
    ca: Option<PathBuf>,
    peers: Option<Network>,
}

/// All that is read once is read, and from here on cannot be any more.
fn confined(args: &Serve, data: PathBuf, is_new: bool) -> Result<Prepared, Failure> {
    let host = args.host()?;
    let names = names(&host, args.domain.as_deref());
    let (chain, key) = (args.tls_cert.clone(), args.tls_key.clone());
    let (tls, ca) = certificate(&data, chain, key, &names)?;
    let peers = match &args.root {
        Some(root) => Some(cli::network(Some(root), &args.ca)?),
        None => None,
    };
    // A folder that cannot be made: the store says so, and that is the end of the server.
    if !args.no_sandbox && paths::private_folder(&data).is_ok() {
        Confinement::of(&sandbox::ATSERVER)
            .writes([data.clone()])
            .enter();
    }
    Ok(Prepared {
        data,
        is_new,
        host,
        tls,
        ca,
        peers,
    })
}

async fn story(console: &Console, args: Serve, prepared: Prepared) -> Result<(), Failure> {
    let Prepared {
        data,
        is_new,
        host,
        tls,
        ca,
        peers,
    } = prepared;
    let flags = args.flags();
    let is_far = |at: &IpAddr| !at.is_loopback() && args.address().is_loopback();
    if let Some(at) = host.parse::<IpAddr>().ok().filter(is_far) {
        warn!(
            "host={at} listen={} hint=\"clients are sent where this program does not listen: --listen {at}, unless \
             something in front of it passes them on\"",
            args.address()
        );
    }
    let health = match args.metrics {
        Some(at) => Some(health_port(at).await?),
        None => None,
    };
    let options = ServerOptions {
        data: data.clone(),
        listen: args.address(),
        host: host.clone(),
        directory_port: args.port(),
        first_port: args.first_port(),
        domain: args.domain.clone(),
        timings: Timings::default(),
    };
    crate::session::online::alone()?;
    let running = listen::start(options, tls, peers)
        .await
        .map_err(|why| cannot_start(why, is_new))?;
    if let Err(why) = last_time::keep(&data, &flags) {
        warn!(
            "kept=no file={} reason={:?}",
            last_time::FILE,
            why.to_string()
        );
    }
    let desk = AdminSocket::listen(&data)?;
    let place = Endpoint {
        host,
        port: running.directory().port(),
    };
    let place = place.to_string();
    let status = status(&place, ca.as_deref(), &data);
    let serving = async {
        // Only now, because by now a signal ends the server in good form.
        announce(console, &status, health.as_ref(), args.json, args.quiet);
        supervisor::tell(ServiceState::Connected, &format!("atDirectory {place}"));
        desk.serve(async |request| answer(&running, &status, request).await)
            .await;
        future::pending().await
    };
    let watched = watched(health.as_ref(), &running);
    let told = future::or(signal::stop(), future::or(serving, watched)).await;
    supervisor::tell(ServiceState::Stopping, "");
    match &told {
        Ok(stop) => info!("ending signal={stop}"),
        Err(why) => info!("ending reason={:?}", why.to_string()),
    }
    drop(desk);
    running.stop().await;
    Ok(())
}

/// Lets others see how the server is: the service manager, and whoever asks its health port. Never ends.
async fn watched<T>(health: Option<&TcpListener>, running: &RunningServer) -> T {
    let port = async {
        match health {
            Some(port) => health::serve(port, running).await,
            None => future::pending().await,
        }
        future::pending().await
    };
    let manager =
        async { supervisor::keep_alive_while(async || running.health().await.is_ok()).await };
    future::or(port, manager).await
}

/// What the server shows, and the authority that clients must be told of: none with a certificate from elsewhere.
pub(super) fn certificate(
    data: &Path,
    chain: Option<PathBuf>,
    key: Option<PathBuf>,
    names: &[String],
) -> Result<(Acceptor, Option<PathBuf>), Failure> {
    let (chain, key) = match (chain, key) {
        (Some(chain), Some(key)) => (chain, key),
        (None, None) => {
            let authority = authority::open_or_make(data)?;
            let ca = authority.ca_file().to_owned();
            return Ok((authority.acceptor(names)?, Some(ca)));
        }
        _ => {
            let failure = Failure::misuse("--tls-cert and --tls-key need each other");
            return Err(failure.hint("--tls-cert FILE --tls-key FILE"));
        }
    };
    let read = |path: &Path| {
        NamedFile::open_safe(path, Writers::Group)
            .and_then(|file| file.text(file::SMALL))
            .map_err(|why| Failure::plain(format!("cannot read {}: {why}", path.display())))
    };
    let (chain_text, key_text) = (read(&chain)?, Secret::new(read(&key)?));
    let tls = Acceptor::from_pem(&chain_text, key_text.reveal()).map_err(|why| {
        Failure::plain(why.to_string()).hint(format!(
            "the key in {} must belong to the first certificate in {}",
            key.display(),
            chain.display()
        ))
    })?;
    Ok((tls, None))
}

async fn health_port(at: SocketAddr) -> Result<TcpListener, Failure> {
    health::open(at).await.map_err(|why| {
        Failure::plain(format!("cannot serve metrics on {at}: {why}"))
            .hint("choose a free port: --metrics 127.0.0.1:PORT")
    })
}

fn cannot_start(error: ServerError, is_new: bool) -> Failure {
    let why = match &error {
        ServerError::Port { why, .. } => why.kind(),
        _ => io::ErrorKind::Other,
    };
    let failure = Failure::from(error);
    match why {
        io::ErrorKind::PermissionDenied => failure
            .hint("use --port 6400, and --root HOST:6400 on the clients; or start it as root"),
        // Nobody knows it yet.
        io::ErrorKind::AddrInUse if is_new => {
            failure.hint("another program uses this port: choose another with --port")
        }
        _ => failure,
    }
}

/// What clients are told to connect to, when `--host` does not say.
pub(super) fn default_host(listen: IpAddr) -> Result<String, Failure> {
    match listen {
        address if address.is_loopback() => Ok("localhost".into()),
        IpAddr::V4(address) if !address.is_unspecified() => Ok(address.to_string()),
        // One on a link is nothing without its zone, which is another one elsewhere.
        IpAddr::V6(address) if !address.is_unspecified() && !address.is_unicast_link_local() => {
            Ok(address.to_string())
        }
        _ => Err(Failure::misuse(format!(
            "with --listen {listen}, --host must say how clients reach this host"
        ))
        .hint("--host at.example.org")),
    }
}

/// The names in the certificate, beside this machine's own.
pub(super) fn names(host: &str, domain: Option<&str>) -> Vec<String> {
    let mut names = vec![host.to_owned()];
    if let Some(domain) = domain {
        names.push(domain.to_owned());
        names.push(format!("*.{domain}"));
    }
    names
}

fn announce(
    console: &Console,
    status: &ServerStatus,
    health: Option<&TcpListener>,
    json: bool,
    quiet: bool,
) {
    let health = health.and_then(|port| Some(port.local_addr().ok()?.to_string()));
    let ca = Some(status.ca.as_str()).filter(|ca| !ca.is_empty());
    if !quiet {
        print_err(&format!("atDirectory  {}", status.directory));
        if let Some(ca) = ca {
            print_err(&format!("authority    {ca}"));
        }
        if let Some(at) = &health {
            print_err(&format!("metrics      http://{at}/metrics"));
        }
        print_err("ready");
    }
    let outcome = Outcome::new("ready")
        .with("directory", &status.directory)
        .maybe("ca", ca)
        .maybe("metrics", health.as_deref());
    console.tell(json, outcome);
}
