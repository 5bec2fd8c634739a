//! Our atServer over TLS, line by line: what clients rely on, and what the original server's own tests assert.
//!
//! ```text
//!   Wire ── one command ──▶ atServer
//!        ◀── one reply ────     the whole of it is compared: line and prompt
//! ```
//!
//! Source of many of the cases: at_server:tests/at_functional_test/test and at_server:tests/at_end2end_test/test.

mod auth;
mod enrol;
mod framing;
mod notes;
mod peers;
mod values;
mod web;

use std::time::Duration;

use async_std::{future::timeout, net::TcpStream, task};
use futures_lite::{AsyncReadExt, AsyncWriteExt};
use miniserde::json::{self, Value};
use noports::{
    at::{directory, keyfile::AtKeys},
    net::{dial::dial, tls::TlsStream},
    text::endpoint::Endpoint,
};

use crate::world::World;

const SOON: Duration = Duration::from_secs(30);

/// One connection to an atServer.
pub struct Wire {
    stream: TlsStream,
    kept: String,
    /// What a reply ends with.
    prompt: String,
}

impl Wire {
    /// As a stranger.
    pub async fn open(world: &World, who: &str) -> Self {
        let tcp = dial(&address(world, who).await, SOON).await.unwrap();
        Self::over(world, tcp).await
    }

    /// Over a connection that is there already.
    pub async fn over(world: &World, tcp: TcpStream) -> Self {
        let tls = &world.network.tls;
        let mut wire = Self {
            stream: tls.connect("localhost", tcp, SOON).await.unwrap(),
            kept: String::new(),
            prompt: "@".to_owned(),
        };
        let greeting = wire.read().await;
        assert_eq!(greeting.as_deref(), Some("@"), "the greeting");
        wire
    }

    /// Logged in with the keys of the world.
    pub async fn login(world: &World, who: &str) -> Self {
        let mut wire = Self::open(world, who).await;
        let keys = world.keys(who);
        assert_eq!(wire.pkam(&keys).await, "data:success");
        wire
    }

    /// The same; errors come as JSON, as to newer clients.
    pub async fn login_for_json(world: &World, who: &str) -> Self {
        let mut wire = Self::open(world, who).await;
        let from = format!(r#"from:{who}:clientConfig:{{"version":"3.0.60"}}"#);
        let challenge = wire.ask(&from).await;
        let reply = wire.prove(&world.keys(who), &challenge, "").await;
        assert_eq!(reply, "data:success");
        wire
    }

    /// `from` and `pkam`.
    pub async fn pkam(&mut self, keys: &AtKeys) -> String {
        self.pkam_with(keys, "").await
    }

    /// The same with something in front of the signature.
    pub async fn pkam_with(&mut self, keys: &AtKeys, parameters: &str) -> String {
        let challenge = self.ask(&format!("from:{}", keys.atsign)).await;
        self.prove(keys, &challenge, parameters).await
    }

    async fn prove(&mut self, keys: &AtKeys, challenge: &str, parameters: &str) -> String {
        let challenge = challenge.strip_prefix("data:").unwrap();
        let signature = keys.pkam.sign(challenge.as_bytes()).unwrap();
        let reply = self.ask_any(&format!("pkam:{parameters}{signature}")).await;
        let (reply, prompt) = reply.split_once('\n').unwrap();
        self.prompt = prompt.to_owned();
        reply.to_owned()
    }

    /// From now on replies end with this.
    pub fn expect_prompt(&mut self, prompt: &str) {
        self.prompt = prompt.to_owned();
    }

    pub async fn send(&mut self, line: &str) {
        self.send_raw(format!("{line}\n").as_bytes()).await;
    }

    pub async fn send_raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// What one read gives; `None` at the end.
    pub async fn read(&mut self) -> Option<String> {
        let mut buffer = vec![0; 64 * 1024];
        let read = timeout(SOON, self.stream.read(&mut buffer)).await;
        let read = read.expect("silence").unwrap_or(0);
        (read > 0).then(|| String::from_utf8(buffer[..read].to_vec()).unwrap())
    }

    /// A command and its reply, prompt included, whatever it is.
    pub async fn ask_any(&mut self, line: &str) -> String {
        self.send(line).await;
        let mut reply = self.read().await.expect("a reply");
        while !reply.contains('\n') {
            reply += &self.read().await.expect("the rest of a reply");
        }
        reply
    }

    /// A command and the line it is answered with; the prompt behind it must be the right one.
    pub async fn ask(&mut self, line: &str) -> String {
        let end = format!("\n{}", self.prompt);
        self.send(line).await;
        let mut reply = String::new();
        while !reply.ends_with(&end) {
            let more = self.read().await;
            reply += &more.unwrap_or_else(|| panic!("{line:.200} was answered with {reply:?}"));
        }
        reply.truncate(reply.len() - end.len());
        assert!(!reply.contains('\n'), "{line:.200} → {reply:?}");
        reply
    }

    /// What stands behind `data:`.
    pub async fn data(&mut self, line: &str) -> String {
        let reply = self.ask(line).await;
        let data = reply.strip_prefix("data:");
        data.unwrap_or_else(|| panic!("{line} → {reply}"))
            .to_owned()
    }

    /// Commands and how their replies begin.
    pub async fn table(&mut self, rows: &[(&str, &str)]) {
        for (command, start) in rows {
            let reply = self.ask(command).await;
            assert!(reply.starts_with(start), "{command} → {reply}");
        }
    }

    /// Asks until the answer is this one.
    pub async fn until(&mut self, line: &str, want: &str) {
        let asking = async {
            while self.ask(line).await != want {
                task::yield_now().await; // asking takes its time
            }
        };
        let said = timeout(SOON, asking).await;
        said.unwrap_or_else(|_| panic!("{line} is never answered with {want}"));
    }

    /// Turns this connection into a monitor that is known to listen.
    pub async fn monitor(&mut self, command: &str) {
        self.send(command).await;
        self.prompt = String::new();
        // What is replayed may come before it.
        self.send("noop:0").await;
        self.line("data:ok").await;
    }

    /// The next line that begins so, on a monitor; signs of life are passed over.
    async fn line(&mut self, start: &str) -> String {
        let mut early = String::new();
        loop {
            while let Some((line, rest)) = self.kept.split_once('\n') {
                let line = line.to_owned();
                self.kept = rest.to_owned();
                if line.starts_with(start) {
                    self.kept = early + &self.kept;
                    return line;
                }
                assert!(line.starts_with("notification: {"), "{line}");
                early += &format!("{line}\n");
            }
            let more = self.read().await.expect("the monitor ended");
            self.kept += &more;
        }
    }

    /// The next notification that is no statistics.
    pub async fn hear(&mut self) -> json::Object {
        loop {
            let line = self.line("notification: {").await;
            let note = object(&line["notification: ".len()..]);
            if text(&note, "id") != "-1" {
                return note;
            }
        }
    }
}

/// Where somebody's atServer is.
pub async fn address(world: &World, who: &str) -> Endpoint {
    let network = &world.network;
    let found = directory::find(&network.root, &network.tls, &who.parse().unwrap()).await;
    found.unwrap().expect("an atServer")
}

/// Reads a JSON object.
pub fn object(text: &str) -> json::Object {
    json::from_str(text).unwrap_or_else(|_| panic!("no object: {text}"))
}

/// A member that is text.
pub fn text(object: &json::Object, name: &str) -> String {
    match object.get(name) {
        Some(Value::String(text)) => text.clone(),
        other => panic!("{name} is {other:?}"),
    }
}
