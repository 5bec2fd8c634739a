//! Asks an atDirectory where an atSign's atServer is.
//!
//! ```text
//!   ◀── @            greeting, no line end
//!   ──▶ alice\n
//!   ◀── host:port\r\n@      or   null\r\n@
//! ```
//! Answers are remembered for an hour, and forgotten at once when nobody answers there.
//!
//! Source: at_server:packages/at_root_server/lib/src/client/at_root_client.dart,
//! at_libraries:packages/at_lookup/lib/src/cache/secondary_address_finder.dart.

use std::{
    collections::HashMap,
    fmt,
    str::FromStr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use async_std::{future::timeout, task::sleep};
use futures_lite::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use log::debug;

use crate::net::{
    backoff::Backoff,
    dial::dial,
    line::read_line,
    tls::{Connector, TlsError},
};
use crate::text::duration::in_words;
use crate::text::endpoint::Endpoint;

use super::{atsign::AtSign, crypto::jitter, error::AtError};

/// Default directory.
pub const DEFAULT_ROOT: &str = "root.atsign.org:64";
/// Port of a directory, and of a proxy, when none is given.
pub const DEFAULT_PORT: u16 = 64;
/// Stands before an address that is everybody's atServer.
const PROXY: &str = "proxy:";

/// For the TCP connection of one attempt.
const CONNECT: Duration = Duration::from_secs(10);
/// For the TLS handshake of one attempt.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// For question and answer of one attempt. Directories keep back a repeated `null` for 3 s.
const ANSWER: Duration = Duration::from_secs(10);
/// For all attempts together.
const TOTAL: Duration = Duration::from_secs(30);
/// How often it is tried.
const ATTEMPTS: u32 = 5;
/// Pauses between attempts, growing.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// Longest answer in bytes: a host name has at most 253 characters.
const MAX_ANSWER: usize = 512;
/// Most bytes in front of the greeting.
const MAX_GREETING: usize = 64;
/// How long an answer is believed.
const REMEMBER: Duration = Duration::from_secs(60 * 60);
/// How many answers are remembered.
const MAX_REMEMBERED: usize = 1024;

/// Where to ask.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Root {
    /// An atDirectory.
    Directory(Endpoint),
    /// `proxy:host[:port]`: no look-up; this is everybody's atServer.
    Proxy(Endpoint),
}

impl FromStr for Root {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let (kind, address): (fn(Endpoint) -> Self, _) = match text.strip_prefix(PROXY) {
            Some(address) => (Self::Proxy, address),
            None => (Self::Directory, text),
        };
        Endpoint::parse(address, Some(DEFAULT_PORT))
            .map(kind)
            .map_err(|why| why.to_string())
    }
}

impl fmt::Display for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(at) => write!(f, "{at}"),
            Self::Proxy(at) => write!(f, "{PROXY}{at}"),
        }
    }
}

/// How to reach the atProtocol.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Network {
    pub root: Root,
    pub tls: Connector,
}

/// Looks an atSign up. `Ok(None)`: the directory says `null`.
///
/// # Errors
/// When the directory cannot be reached or does not answer within its deadline.
pub async fn find(root: &Root, tls: &Connector, who: &AtSign) -> Result<Option<Endpoint>, AtError> {
    let at = match root {
        Root::Directory(at) => at,
        Root::Proxy(at) => return Ok(Some(at.clone())),
    };
    match timeout(TOTAL, attempts(at, tls, who)).await {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(failure)) => Err(failure.into_error(root)),
        Err(_) => Err(
            DirectoryError::Io(format!("no answer within {}", in_words(TOTAL))).into_error(root),
        ),
    }
}

/// As [`find`], but answers from memory where it can. `Err(Unknown)` takes the place of `None`.
/// Also says whether it was from memory.
///
/// # Errors
/// As [`find`], and `Unknown`.
pub async fn locate(
    root: &Root,
    tls: &Connector,
    who: &AtSign,
) -> Result<(Endpoint, bool), AtError> {
    let name = (root.clone(), who.clone());
    let now = Instant::now();
    let known = remembered()
        .as_ref()
        .and_then(|map| map.get(&name).cloned());
    if let Some((at, since)) = known
        && now.duration_since(since) < REMEMBER
    {
        return Ok((at, true));
    }
    let Some(at) = find(root, tls, who).await? else {
        return Err(AtError::Unknown {
            root: root.to_string(),
            who: who.clone(),
        });
    };
    let mut memory = remembered();
    let map = memory.get_or_insert_default();
    if map.len() >= MAX_REMEMBERED {
        map.clear();
    }
    map.insert(name, (at.clone(), now));
    Ok((at, false))
}

/// Nobody answers there any more: ask again next time.
pub fn forget(root: &Root, who: &AtSign) {
    if let Some(map) = remembered().as_mut() {
        map.remove(&(root.clone(), who.clone()));
    }
}

type AddressCache = Option<HashMap<(Root, AtSign), (Endpoint, Instant)>>;

fn remembered() -> MutexGuard<'static, AddressCache> {
    static MEMORY: Mutex<AddressCache> = Mutex::new(None);
    MEMORY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why one attempt failed.
enum DirectoryError {
    Io(String),
    Tls(TlsError),
    Nonsense(String),
}

impl DirectoryError {
    /// Whether the next attempt may do better.
    fn may_pass(&self) -> bool {
        match self {
            Self::Io(_) => true,
            Self::Tls(why) => matches!(why, TlsError::Failed { .. } | TlsError::TimedOut { .. }),
            Self::Nonsense(_) => false,
        }
    }

    fn into_error(self, root: &Root) -> AtError {
        let root = root.to_string();
        match self {
            Self::Io(why) | Self::Nonsense(why) => AtError::Directory { root, why },
            Self::Tls(source) => AtError::Tls {
                what: format!("the atDirectory at {root}"),
                source,
            },
        }
    }
}

async fn attempts(
    at: &Endpoint,
    tls: &Connector,
    who: &AtSign,
) -> Result<Option<Endpoint>, DirectoryError> {
    let mut backoff = Backoff::new(PAUSE.0, PAUSE.1);
    let mut attempt = 1;
    loop {
        match once(at, tls, who).await {
            Err(why) if why.may_pass() && attempt < ATTEMPTS => {
                debug!("directory={at} atsign={who} attempt={attempt} failed");
                attempt += 1;
                sleep(backoff.pause(jitter())).await;
            }
            outcome => return outcome,
        }
    }
}

async fn once(
    at: &Endpoint,
    tls: &Connector,
    who: &AtSign,
) -> Result<Option<Endpoint>, DirectoryError> {
    let tcp = dial(at, CONNECT)
        .await
        .map_err(|why| DirectoryError::Io(why.to_string()))?;
    let stream = tls
        .connect(&at.host, tcp, HANDSHAKE)
        .await
        .map_err(DirectoryError::Tls)?;
    timeout(ANSWER, ask(stream, who)).await.unwrap_or_else(|_| {
        Err(DirectoryError::Io(format!(
            "no answer within {}",
            in_words(ANSWER)
        )))
    })
}

/// Question and answer on a fresh connection.
async fn ask<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    who: &AtSign,
) -> Result<Option<Endpoint>, DirectoryError> {
    let io = |why: std::io::Error| DirectoryError::Io(why.to_string());
    let mut byte = [0];
    for _ in 0..MAX_GREETING {
        match stream.read(&mut byte).await.map_err(io)? {
            0 => return Err(DirectoryError::Io("it closed the connection".to_owned())),
            _ if byte == *b"@" => break,
            _ => {}
        }
    }
    if byte != *b"@" {
        return Err(DirectoryError::Nonsense(
            "it is not an atDirectory".to_owned(),
        ));
    }
    let question = format!("{}\n", who.bare());
    stream.write_all(question.as_bytes()).await.map_err(io)?;
    stream.flush().await.map_err(io)?;
    let (line, _) = read_line(&mut stream, MAX_ANSWER, ANSWER)
        .await
        .map_err(|why| DirectoryError::Io(why.to_string()))?;
    let _ = stream.close().await; // a courtesy
    read_answer(&line)
}

/// `host:port` or `null`, perhaps behind a prompt.
fn read_answer(line: &[u8]) -> Result<Option<Endpoint>, DirectoryError> {
    let nonsense = || DirectoryError::Nonsense("its answer is not an address".to_owned());
    let text = str::from_utf8(line).map_err(|_| nonsense())?;
    match text.trim().trim_start_matches('@') {
        "null" => Ok(None),
        address => Endpoint::parse(address, None)
            .map(Some)
            .map_err(|_| nonsense()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use async_std::{
        net::{TcpListener, TcpStream},
        task::{block_on, spawn},
    };

    use super::*;
    use crate::at::vectors::atsign;

    #[test]
    fn a_root_is_a_directory_or_a_proxy() {
        for (text, expected) in [
            ("root.atsign.org", "root.atsign.org:64"),
            ("localhost:6464", "localhost:6464"),
            ("[::1]:64", "[::1]:64"),
            ("proxy:gate.example", "proxy:gate.example:64"),
            ("proxy:gate.example:443", "proxy:gate.example:443"),
        ] {
            let root: Root = text.parse().unwrap();
            assert_eq!(root.to_string(), expected, "{text}");
            assert_eq!(root.to_string().parse(), Ok(root), "{text}");
        }
        for text in ["", "proxy:", "host:port", "host:70000"] {
            assert!(text.parse::<Root>().is_err(), "{text}");
        }
    }

    /// One connection to a directory that says these chunks, each after a read when `None` stands before it.
    async fn dialog(
        says: Vec<&'static [u8]>,
        after: &'static [u8],
    ) -> Result<Option<Endpoint>, DirectoryError> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let peer = spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            for chunk in says {
                stream.write_all(chunk).await.unwrap();
            }
            let mut heard = vec![0; 64];
            let count = stream.read(&mut heard).await.unwrap();
            for byte in after {
                stream.write_all(&[*byte]).await.unwrap();
            }
            String::from_utf8(heard[..count].to_vec()).unwrap()
        });
        let stream = TcpStream::connect(address).await.unwrap();
        let found = ask(stream, &atsign("@alice")).await;
        if found.is_ok() {
            assert_eq!(peer.await, "alice\n");
        }
        found
    }

    #[test]
    fn the_answer_is_an_address_or_null() {
        let host = Endpoint {
            host: "a.example".to_owned(),
            port: 1234,
        };
        for (answer, expected) in [
            (&b"a.example:1234\r\n@"[..], Some(Some(host.clone()))),
            (b"a.example:1234\n@", Some(Some(host.clone()))),
            (b"@a.example:1234\r\n", Some(Some(host))),
            (b"null\r\n@", Some(None)),
            (b"a.example\r\n@", None),
            (b"\r\n", None),
            (b"\xff\xfe\n", None),
            (b"a.example:12", None), // and then the end
        ] {
            let got = block_on(dialog(vec![b"@"], answer));
            assert_eq!(got.ok(), expected, "{answer:?}");
        }
    }

    #[test]
    fn nothing_is_asked_before_the_greeting() {
        let silent = block_on(dialog(
            vec![b"220 mail.example ESMTP hello, this is not what you want here at all\r\n"],
            b"",
        ));
        assert!(matches!(silent, Err(DirectoryError::Nonsense(_))));
        let late = block_on(dialog(vec![b"\r", b"\n", b"@"], b"null\n"));
        assert!(matches!(late, Ok(None)));
    }

    #[test]
    fn long_answers_are_cut_off() {
        static LONG: [u8; MAX_ANSWER + 2] = [b'a'; MAX_ANSWER + 2];
        assert!(block_on(dialog(vec![b"@"], &LONG)).is_err());
    }

    #[test]
    fn a_proxy_needs_no_question_and_what_is_forgotten_is_asked_again() {
        let tls = Connector::new::<&str>(&[]).unwrap();
        let root: Root = "proxy:127.0.0.1:1".parse().unwrap();
        let who = atsign("@proxied");
        let known = || block_on(locate(&root, &tls, &who)).unwrap().1;
        assert_eq!((known(), known()), (false, true));
        forget(&root, &who);
        assert!(!known());
    }
}
