//! One connection to an atServer, as bytes: nothing is hidden and nothing is repeated.

use std::time::Duration;

use async_std::{future::timeout, net::TcpStream};
use futures_lite::{AsyncReadExt, AsyncWriteExt};
use noports::{
    at::crypto::KeyPair,
    net::tls::{Connector, TlsStream},
};

/// For a connection, and for a reply.
pub const SOON: Duration = Duration::from_secs(30);

/// One connection.
pub struct Line {
    stream: TlsStream,
    kept: Vec<u8>,
    /// How far `kept` has no line end.
    seen: usize,
}

impl Line {
    /// `None`: there is no server.
    pub async fn open(tls: &Connector, port: u16) -> Option<Self> {
        let tcp = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
        let stream = tls.connect("localhost", tcp, SOON).await.ok()?;
        Some(Self {
            stream,
            kept: Vec::new(),
            seen: 0,
        })
    }

    /// The same, logged in.
    pub async fn login(tls: &Connector, port: u16, who: &str, pkam: &KeyPair) -> Option<Self> {
        let mut line = Self::open(tls, port).await?;
        let challenge = line.ask(&format!("from:{who}")).await?;
        let challenge = challenge.strip_prefix("data:")?;
        let signature = pkam.sign(challenge.as_bytes()).ok()?;
        let reply = line.ask(&format!("pkam:{signature}")).await?;
        (reply == "data:success").then_some(line)
    }

    pub async fn send(&mut self, command: &str) -> Option<()> {
        let bytes = format!("{command}\n");
        self.stream.write_all(bytes.as_bytes()).await.ok()?;
        self.stream.flush().await.ok()
    }

    /// A command and its reply, without prompts. `None`: the connection broke.
    pub async fn ask(&mut self, command: &str) -> Option<String> {
        self.send(command).await?;
        timeout(SOON, self.next()).await.ok()?
    }

    /// The next line, prompts in front of it cut off.
    pub async fn next(&mut self) -> Option<String> {
        loop {
            if let Some(at) = self.kept[self.seen..].iter().position(|b| *b == b'\n') {
                let rest = self.kept.split_off(self.seen + at + 1);
                let line = std::mem::replace(&mut self.kept, rest);
                self.seen = 0;
                let line = String::from_utf8(line).ok()?;
                // In front may stand `@`, `@@` or `@alice@`.
                let kinds = ["data:", "error:", "notification:"];
                let body = kinds.iter().filter_map(|kind| line.find(kind)).min();
                return Some(line[body.unwrap_or(0)..].trim_end().to_owned());
            }
            self.seen = self.kept.len();
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer).await {
                Ok(read) if read > 0 => self.kept.extend_from_slice(&buffer[..read]),
                _ => return None,
            }
        }
    }
}

/// A member of a flat JSON object, as text.
pub fn member<'a>(json: &'a str, name: &str) -> Option<&'a str> {
    let rest = json.split_once(&format!("\"{name}\":"))?.1.trim_start();
    match rest.strip_prefix('"') {
        Some(text) => text.split('"').next(),
        None => rest.split([',', '}']).next(),
    }
}
