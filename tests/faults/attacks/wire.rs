//! An attacker's connections to atServers: errors are what he expects, and he goes on.

use std::{
    error::Error,
    fs,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    path::Path,
    sync::Arc,
    time::Duration,
};

use async_std::net::TcpStream;
use futures_lite::{AsyncReadExt, AsyncWriteExt};
use noports::{
    at::{
        client::Network,
        directory::{self, Root},
        keyfile::AtKeys,
    },
    net::tls::{Connector, TlsStream},
    text::endpoint::Endpoint,
};

/// What came of a step.
pub type Went<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

/// For a connection, and for each answer.
const SOON: Duration = Duration::from_secs(20);

/// Whoever attacks: where the directory is, and keys. All of it is in the environment, as for the programs.
#[derive(Clone)]
pub struct Attacker {
    pub network: Network,
    /// A number that is another one in each run.
    pub seed: u64,
    /// What the harness has told: ports, a line that was seen.
    pub told: Arc<Vec<String>>,
}

impl Attacker {
    pub fn new(seed: u64, told: Vec<String>) -> Self {
        let variable = |name| std::env::var(name).unwrap();
        let root = Endpoint::parse(&variable("NOPORTS_ROOT"), None).unwrap();
        let network = Network {
            root: Root::Directory(root),
            tls: Connector::new(&[variable("NOPORTS_CA")]).unwrap(),
        };
        let told = Arc::new(told);
        Self {
            network,
            seed,
            told,
        }
    }

    pub fn keys(&self, who: &str) -> Arc<AtKeys> {
        let who = who.parse().unwrap();
        let folder = std::env::var("NOPORTS_KEYS").unwrap();
        let text = fs::read_to_string(Path::new(&folder).join(AtKeys::file_name(&who)));
        Arc::new(AtKeys::parse(&who, &text.unwrap()).unwrap())
    }

    pub async fn address(&self, who: &str) -> Went<Endpoint> {
        let found = directory::find(&self.network.root, &self.network.tls, &who.parse()?).await?;
        found.ok_or_else(|| format!("{who} is nowhere").into())
    }

    /// The directory's own.
    pub fn directory(&self) -> Endpoint {
        match &self.network.root {
            Root::Directory(at) | Root::Proxy(at) => at.clone(),
        }
    }

    /// A connection there, from this address if one is named.
    pub async fn open(&self, at: &Endpoint, from: Option<IpAddr>) -> Went<Wire> {
        let tcp = dial(at, from).await?;
        let mut stream = self.network.tls.connect(&at.host, tcp, SOON).await?;
        within(stream.read(&mut [0; 8])).await??;
        Ok(Wire { stream })
    }

    /// Logged in as the owner.
    pub async fn login(&self, who: &str) -> Went<Wire> {
        let mut wire = self.open(&self.address(who).await?, None).await?;
        let challenge = wire.ask(&format!("from:{who}")).await?;
        let challenge = challenge.strip_prefix("data:").ok_or("no challenge")?;
        let signature = self.keys(who).pkam.sign(challenge.as_bytes())?;
        let reply = wire.ask(&format!("pkam:{signature}")).await?;
        if reply == "data:success" {
            Ok(wire)
        } else {
            Err(reply.into())
        }
    }
}

/// From one of many addresses, as fast as that goes.
pub async fn dial(at: &Endpoint, from: Option<IpAddr>) -> Went<TcpStream> {
    let all: Vec<SocketAddr> = (&*at.host, at.port).to_socket_addrs()?.collect();
    let is_ours = |to: &&SocketAddr| from.is_none_or(|from| from.is_ipv4() == to.is_ipv4());
    let to = *all.iter().find(is_ours).ok_or("no address")?;
    let Some(from) = from else {
        return Ok(within(TcpStream::connect(to)).await??);
    };
    let connected = async_std::task::spawn_blocking(move || -> std::io::Result<_> {
        let kind = socket2::Type::STREAM;
        let socket = socket2::Socket::new(socket2::Domain::for_address(to), kind, None)?;
        socket.bind(&SocketAddr::from((from, 0)).into())?;
        socket.connect_timeout(&to.into(), SOON)?;
        Ok(std::net::TcpStream::from(socket))
    });
    Ok(connected.await?.into())
}

async fn within<T>(what: impl Future<Output = T>) -> Went<T> {
    Ok(async_std::future::timeout(SOON, what).await?)
}

/// One connection to an atServer.
pub struct Wire {
    stream: TlsStream,
}

impl Wire {
    pub async fn send(&mut self, bytes: &[u8]) -> Went {
        self.stream.write_all(bytes).await?;
        Ok(self.stream.flush().await?)
    }

    /// Reads until so many lines have ended; all of it.
    pub async fn lines(&mut self, count: usize) -> Went<String> {
        let (mut heard, mut buffer) = (Vec::new(), vec![0; 64 * 1024]);
        let mut ended = 0;
        while ended < count {
            let read = within(self.stream.read(&mut buffer)).await??;
            if read == 0 {
                let heard = String::from_utf8_lossy(&heard).into_owned();
                return Err(format!("the end, after {heard:?}").into());
            }
            ended += buffer[..read].iter().filter(|byte| **byte == b'\n').count();
            heard.extend_from_slice(&buffer[..read]);
        }
        Ok(String::from_utf8_lossy(&heard).into_owned())
    }

    /// A command and the line it is answered with, without the prompt of the one before.
    pub async fn ask(&mut self, line: &str) -> Went<String> {
        self.send(format!("{line}\n").as_bytes()).await?;
        let heard = self.lines(1).await?;
        let line = heard.lines().next().unwrap_or_default();
        let start = ["data:", "error:"].iter().find_map(|word| line.find(word));
        Ok(line[start.unwrap_or_default()..].to_owned())
    }

    /// One piece of what is being said.
    pub async fn sip(&mut self, buffer: &mut [u8]) -> Went<usize> {
        Ok(within(self.stream.read(buffer)).await??)
    }

    /// These lines one behind the other; how many were not refused.
    pub async fn pipeline(&mut self, lines: &[String]) -> Went<usize> {
        self.send(lines.concat().as_bytes()).await?;
        let heard = self.lines(lines.len()).await?;
        Ok(heard.matches("data:").count())
    }
}
