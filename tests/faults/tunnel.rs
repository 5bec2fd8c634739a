//! A `noports tunnel` that stands, and one connection through it.

use std::{
    io::{BufRead, BufReader, Read, Write},
    process::{ChildStdin, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{
    inside::INSIDE,
    net::own_program,
    rows::{Measured, Miss},
    site::{ENDLESS, Site, client, manager},
};
use crate::world::{DEVICE, Process};

/// From the first client to the service of the first device.
pub struct Tunnel {
    tunnel: Process,
    /// Its local port at the client's host.
    at: String,
    /// A connection to that.
    talk: Talk,
}

impl Tunnel {
    /// A byte has been through it in both directions.
    ///
    /// # Errors
    /// When none has.
    pub fn open(site: &Site) -> Result<Self, Miss> {
        Self::open_with(site, &[])
    }

    /// The same with more options.
    ///
    /// # Errors
    /// The same.
    pub fn open_with(site: &Site, more: &[&str]) -> Result<Self, Miss> {
        let (host, who) = (client(0), manager(0));
        let words = ["tunnel", "--as", &who, "--to", DEVICE, "--device", "dev0"];
        let words = [&words[..], &["--json", "--forward", "0:localhost:22"], more].concat();
        let mut command = site.role(&host, &words);
        command
            .stdout(Stdio::piped())
            .stderr(site.log_file("tunnel"));
        let mut tunnel = Process(command.spawn().unwrap());
        let mut line = String::new();
        let stdout = tunnel.0.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        let digits = line.split(r#""port":"#).nth(1).unwrap_or_default();
        let port: String = digits.chars().take_while(char::is_ascii_digit).collect();
        if port.is_empty() {
            let why = site.world.log("tunnel");
            return Err(Miss::Wrong(format!("no tunnel: {why}")));
        }
        let at = format!("127.0.0.1:{port}");
        let own = own_program().display().to_string();
        let mut opened = Self {
            tunnel,
            talk: Talk::start(site.command(&host, &own, &[INSIDE, "talk", &at])),
            at,
        };
        opened.say("before")?;
        opened.hear("before", ENDLESS)?;
        Ok(opened)
    }

    /// One more connection through it; how long until a word has come back.
    ///
    /// # Errors
    /// When none has.
    pub fn next(&self, site: &Site, limit: Duration) -> Measured {
        let own = own_program().display().to_string();
        let mut talk = Talk::start(site.command(&client(0), &own, &[INSIDE, "talk", &self.at]));
        talk.say("next")?;
        talk.hear("next", limit)
    }

    pub fn say(&mut self, words: &str) -> Result<(), String> {
        self.talk.say(words)
    }

    /// How long until these words come back.
    pub fn hear(&mut self, words: &str, limit: Duration) -> Measured {
        self.talk.hear(words, limit)
    }

    pub fn has_ended(&mut self) -> bool {
        self.tunnel.0.try_wait().unwrap().is_some()
    }
}

/// A connection that a host of ours holds: what we say goes out there.
pub struct Talk {
    _process: Process,
    stdin: ChildStdin,
    stdout: ChildStdout,
}

impl Talk {
    /// `command`: this program as `talk`.
    pub fn start(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Process(command.spawn().unwrap());
        Self {
            stdin: process.0.stdin.take().unwrap(),
            stdout: process.0.stdout.take().unwrap(),
            _process: process,
        }
    }

    pub fn say(&mut self, words: &str) -> Result<(), String> {
        let said = self.stdin.write_all(words.as_bytes());
        said.map_err(|why| why.to_string())
    }

    /// How long until these words come back.
    pub fn hear(&mut self, words: &str, limit: Duration) -> Measured {
        let began = Instant::now();
        let mut heard = Vec::new();
        while heard.len() < words.len() {
            let left = limit.saturating_sub(began.elapsed());
            let timeout = Timespec {
                tv_sec: left.as_secs() as i64,
                tv_nsec: left.subsec_nanos().into(),
            };
            let mut polled = [PollFd::new(&self.stdout, PollFlags::IN)];
            if poll(&mut polled, Some(&timeout)) == Ok(0) {
                return Err(Miss::Late(format!("{words:?} has not come back")));
            }
            let mut buffer = [0; 64];
            match self.stdout.read(&mut buffer) {
                Ok(0) | Err(_) => return Err(Miss::Late("the connection has ended".to_owned())),
                Ok(length) => heard.extend_from_slice(&buffer[..length]),
            }
        }
        if heard == words.as_bytes() {
            Ok(began.elapsed())
        } else {
            let heard = String::from_utf8_lossy(&heard);
            Err(Miss::Wrong(format!("{heard:?} came back")))
        }
    }
}
