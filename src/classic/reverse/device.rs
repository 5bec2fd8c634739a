//! The device logs in to a client that asks for it, with the key that the client has sent.
//!
//! A key serves one session; upstream kept one for everybody. On disk it is only there while ssh reads it.
//!
//! Source: noports:packages/dart/noports_core/lib/src/sshnpd/sshnpd_impl.dart at v4.0.5 (words, texts).

use std::{
    collections::HashMap,
    io,
    os::unix::process::CommandExt as _,
    path::Path,
    process,
    time::{Duration, Instant},
};

use async_process::{Child, ChildStderr, Command, Stdio};
use async_std::{
    channel::{Receiver, Sender, bounded},
    future::timeout,
};
use futures_lite::AsyncReadExt;
use log::debug;

use crate::{
    at::AtSign,
    classic::tunnel_ssh::{self, Direction, IdentityFile, Tunnel},
    np::{ids::SessionId, reverse::ReverseRequest},
    secret::Secret,
    sys::ssh,
    text::endpoint::Endpoint,
};

/// Senders whose keys are kept at a time.
const MAX_SLOTS: usize = 64;
/// How long a key waits for the request that uses it.
const KEY_LIVES: Duration = Duration::from_secs(60);
/// How long a request waits for its key: the two messages may change places on their way.
const KEY_WITHIN: Duration = Duration::from_secs(3);
/// How long ssh may take until the port is there.
const LOGIN_WITHIN: Duration = Duration::from_secs(10);
/// How long an ssh that has ended may take to be heard.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Most of what ssh says that is looked at, in bytes.
const MAX_WORDS: usize = 4096;
/// The client's host key is new each time, under a name that says nothing: a port of some rendezvous. Remembered, it
/// would only stand in the way of whoever gets that port next. Nor may it go through a connection that is there already:
/// whoever has the same rendezvous would be at its other end.
const NO_MEMORY: [&str; 4] = [
    "-o",
    "UserKnownHostsFile=/dev/null",
    "-o",
    "ControlPath=none",
];
/// What a person with a client of that time may try.
const ADVICE: &str = "(use --local-port to specify unused port)";

/// The keys that have come, by sender.
#[derive(Default)]
pub struct KeySlots(HashMap<AtSign, KeySlot>);

struct KeySlot {
    put: Sender<Secret<String>>,
    take: Receiver<Secret<String>>,
    since: Instant,
}

impl KeySlots {
    /// Keeps a key instead of the one before it. `false`: too many senders.
    pub fn put(&mut self, from: &AtSign, key: Secret<String>, now: Instant) -> bool {
        let Some(slot) = self.slot(from, now) else {
            return false;
        };
        let _ = slot.take.try_recv();
        slot.since = now;
        slot.put.try_send(key).is_ok()
    }

    /// Where the sender's next key comes out, once.
    pub fn take(&mut self, from: &AtSign, now: Instant) -> Option<Receiver<Secret<String>>> {
        self.slot(from, now).map(|slot| slot.take.clone())
    }

    fn slot(&mut self, from: &AtSign, now: Instant) -> Option<&mut KeySlot> {
        self.0
            .retain(|_, slot| now.duration_since(slot.since) < KEY_LIVES);
        if self.0.len() >= MAX_SLOTS && !self.0.contains_key(from) {
            return None;
        }
        Some(self.0.entry(from.clone()).or_insert_with(|| {
            let (put, take) = bounded(1);
            KeySlot {
                put,
                take,
                since: now,
            }
        }))
    }
}

/// The key for a request, if it comes in time.
pub async fn key_of(slot: Option<Receiver<Secret<String>>>) -> Option<Secret<String>> {
    timeout(KEY_WITHIN, slot?.recv()).await.ok()?.ok()
}

/// Logs in to the client with this key; returns when its port leads to our sshd. ssh lives on in the background
/// and ends by itself.
///
/// # Errors
/// What the client is told.
pub async fn log_in(
    request: &ReverseRequest,
    session: SessionId,
    key: &Secret<String>,
    sshd: &Endpoint,
) -> Result<(), String> {
    let failed = |why: &dyn std::fmt::Display| format!("Remote SSH Client failure : {why}");
    let user = request.user.parse().map_err(|why| failed(&why))?;
    let ssh = ssh::find().ok_or_else(|| failed(&"ssh is not installed on this device"))?;
    let identity = IdentityFile::of_session(session.to_string(), key.clone())
        .await
        .map_err(|why| failed(&why))?;
    let tunnel = Tunnel {
        user: &user,
        host: &request.host,
        port: request.port,
        identity: identity.path(),
        direction: Direction::Reverse {
            listen: request.forward,
            sshd,
        },
        alias: None,
        no_input: false,
        options: &NO_MEMORY.map(str::to_owned),
        lasts: tunnel_ssh::LASTS,
    };
    let mut child = start(&ssh, &tunnel).map_err(|why| failed(&why))?;
    match timeout(LOGIN_WITHIN, ended(&mut child)).await {
        Ok(SshExit::Well) => Ok(()),
        Ok(SshExit::Badly { said, code }) => {
            debug!("session={session} ssh={said:?}");
            Err(format!("{} {ADVICE}", explain(request, &said, &code)))
        }
        Err(_) => {
            let _ = child.kill();
            Err(format!(
                "Failed to establish connection - timed out {ADVICE}"
            ))
        }
    }
}

/// In a process group of its own: it outlives us.
fn start(ssh: &Path, tunnel: &Tunnel<'_>) -> io::Result<Child> {
    let mut command = process::Command::new(ssh);
    command
        .args(tunnel.arguments())
        .process_group(0)
        .env_remove("NOPORTS_PASSPHRASE");
    Command::from(command)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
}

/// ssh goes to the background once the port is there; its stderr stays open then, so nobody waits for the end of that.
async fn ended(child: &mut Child) -> SshExit {
    let mut stderr = child.stderr.take();
    let mut said = Vec::new();
    let status = {
        let listen = async {
            listen(&mut stderr, &mut said).await;
            std::future::pending().await
        };
        futures_lite::future::or(child.status(), listen).await
    };
    if !matches!(&status, Ok(status) if status.success()) {
        // Its last words may still be on their way.
        let _ = timeout(LAST_WORDS, listen(&mut stderr, &mut said)).await;
    }
    let code = match status {
        Ok(status) if status.success() => return SshExit::Well,
        Ok(status) => status
            .code()
            .map_or("none".to_owned(), |code| code.to_string()),
        Err(error) => error.to_string(),
    };
    SshExit::Badly {
        said: String::from_utf8_lossy(&said).into_owned(),
        code,
    }
}

/// Everything until the pipe's end. Dropping the future loses nothing.
async fn listen(stderr: &mut Option<ChildStderr>, said: &mut Vec<u8>) {
    let mut chunk = [0; 512];
    while let Some(pipe) = stderr {
        match pipe.read(&mut chunk).await {
            Ok(got @ 1..) if said.len() < MAX_WORDS => said.extend_from_slice(&chunk[..got]),
            Ok(1..) => {}
            _ => break,
        }
    }
}

/// How ssh left the foreground.
enum SshExit {
    Well,
    Badly { said: String, code: String },
}

/// What went wrong, in the words that clients know.
fn explain(request: &ReverseRequest, said: &str, code: &str) -> String {
    let ReverseRequest {
        forward,
        host,
        port,
        user,
        ..
    } = request;
    if said.contains("remote port forwarding failed") {
        format!("Failed to forward remote port {forward}")
    } else if said.contains("Permission denied") {
        format!("Failed to authenticate as {user}@{host}")
    } else if said.contains("connect to host") {
        format!("Failed to open socket to {host}:{port}")
    } else {
        format!("Failed to establish connection - exit code {code}")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use async_std::task::block_on;

    use crate::classic::reverse::device::*;

    fn key(text: &str) -> Secret<String> {
        Secret::new(text.to_owned())
    }

    #[test]
    fn a_key_is_its_senders_and_serves_once() {
        block_on(async {
            let (mut slots, now) = (KeySlots::default(), Instant::now());
            let (alice, bob): (AtSign, AtSign) =
                ("@alice".parse().unwrap(), "@bob".parse().unwrap());
            assert!(slots.put(&alice, key("first"), now));
            assert!(slots.put(&alice, key("second"), now));
            let bobs = slots.take(&bob, now).unwrap();
            assert!(bobs.try_recv().is_err(), "alice's key is not bob's");
            let got = key_of(slots.take(&alice, now)).await.unwrap();
            assert_eq!(got.reveal(), "second");
            let again = slots.take(&alice, now).unwrap();
            assert!(again.try_recv().is_err(), "used up");
            // The other way round: the request is there first.
            let waiting = key_of(slots.take(&bob, now));
            assert!(slots.put(&bob, key("late"), now));
            assert_eq!(waiting.await.unwrap().reveal(), "late");
            // Too late is too late.
            assert!(slots.put(&alice, key("old"), now));
            let later = slots.take(&alice, now + KEY_LIVES).unwrap();
            assert!(later.try_recv().is_err());
        });
    }

    #[test]
    fn keys_of_strangers_do_not_pile_up() {
        let (mut slots, now) = (KeySlots::default(), Instant::now());
        for i in 0..MAX_SLOTS {
            assert!(slots.put(&format!("@a{i}").parse().unwrap(), key("x"), now));
        }
        let one_more: AtSign = "@more".parse().unwrap();
        assert!(!slots.put(&one_more, key("x"), now));
        assert!(slots.put(&one_more, key("x"), now + KEY_LIVES));
    }

    #[test]
    fn failures_have_the_words_that_clients_know() {
        let request = ReverseRequest::parse("58358 40189 gary h").unwrap();
        for (said, want) in [
            (
                "Warning: remote port forwarding failed for listen port 58358\n",
                "Failed to forward remote port 58358",
            ),
            (
                "gary@h: Permission denied (publickey).\n",
                "Failed to authenticate as gary@h",
            ),
            (
                "ssh: connect to host h port 40189: Connection refused\n",
                "Failed to open socket to h:40189",
            ),
            ("", "Failed to establish connection - exit code 255"),
        ] {
            assert_eq!(explain(&request, said, "255"), want, "{said:?}");
        }
    }
}
