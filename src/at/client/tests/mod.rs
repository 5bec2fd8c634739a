//! The client against a stand-in atServer: real sockets, scripted answers.
#![allow(clippy::unwrap_used)]

mod commands;
mod listening;
mod lookups;
mod refusals;
mod secrets;
mod watching;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Mutex,
    time::Duration,
};

use async_std::{
    channel::unbounded,
    future::timeout,
    net::{TcpListener, TcpStream},
    task::{JoinHandle, block_on, sleep, spawn},
};
use futures_lite::{
    AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, future::Boxed, future::zip,
    io::BufReader,
};

use super::{
    link::{Connected, Ends},
    *,
};
use crate::{
    at::{
        crypto::{self, KeyPair},
        fault::Code,
        vectors::{at_protocol, atsign, keys},
    },
    net::tls::Acceptor,
};

/// For what must happen: as long as a busy machine may need.
const SOON: Duration = Duration::from_secs(20);

/// What the stand-in does with a line.
enum Act {
    Say(String),
    /// One byte at a time.
    Drip(String),
    Hang,
    Silence,
    /// After so long: the line is slow.
    Later(Duration, String),
}

/// Connection number and line → what to do; `None`: what an atServer would do.
type Script = Box<dyn Fn(usize, &str) -> Option<Act> + Send + Sync>;

/// An atServer of `@alice`, as far as these tests need one.
struct Stand {
    address: std::net::SocketAddr,
    heard: Receiver<(usize, String)>,
    peers: Arc<Mutex<HashMap<usize, TcpStream>>>,
    accepting: Option<JoinHandle<()>>,
}

/// In place of the line when a connection ended.
const ENDED: &str = "(ended)";

impl Stand {
    async fn new(script: impl Fn(usize, &str) -> Option<Act> + Send + Sync + 'static) -> Self {
        Self::over(None, script).await
    }

    async fn over(
        tls: Option<Acceptor>,
        script: impl Fn(usize, &str) -> Option<Act> + Send + Sync + 'static,
    ) -> Self {
        let script: Arc<Script> = Arc::new(Box::new(script));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, heard) = unbounded();
        let peers: Arc<Mutex<HashMap<usize, TcpStream>>> = Arc::default();
        let all = Arc::clone(&peers);
        let accepting = spawn(async move {
            for number in 1.. {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                all.lock().unwrap().insert(number, stream.clone());
                let (script, tell, tls) = (Arc::clone(&script), tell.clone(), tls.clone());
                spawn(async move {
                    let socket = stream.clone();
                    match tls {
                        None => serve(number, stream, script, &tell).await,
                        Some(tls) => {
                            let (stream, _) = tls.accept(stream, SOON).await.unwrap();
                            serve(number, stream, script, &tell).await;
                        }
                    }
                    let _ = socket.shutdown(std::net::Shutdown::Both);
                    let _ = tell.send((number, ENDED.to_owned())).await;
                });
            }
        });
        Self {
            address,
            heard,
            peers,
            accepting: Some(accepting),
        }
    }

    /// The next line that is no part of a login or heartbeat.
    async fn line(&self) -> (usize, String) {
        loop {
            let (number, line) = timeout(SOON, self.heard.recv()).await.unwrap().unwrap();
            let usual = ["from:", "pkam:", "noop:", ENDED];
            if !usual.iter().any(|word| line.starts_with(word)) {
                return (number, line);
            }
        }
    }

    /// Waits for this, whatever else comes before.
    async fn until(&self, expected: impl Fn(usize, &str) -> bool) -> (usize, String) {
        loop {
            let (number, line) = timeout(SOON, self.heard.recv()).await.unwrap().unwrap();
            if expected(number, &line) {
                return (number, line);
            }
        }
    }

    async fn push(&self, number: usize, text: &str) {
        let mut peer = self.peers.lock().unwrap()[&number].clone();
        peer.write_all(text.as_bytes()).await.unwrap();
    }

    fn cut(&self, number: usize) {
        let peer = self.peers.lock().unwrap()[&number].clone();
        let _ = peer.shutdown(std::net::Shutdown::Both);
    }

    async fn client(&self, timing: Timing) -> Client {
        self.client_over(Wire(self.address), timing).await
    }

    async fn client_over(&self, transport: impl Transport, timing: Timing) -> Client {
        let transport = Arc::new(transport);
        Client::login_over(transport, Arc::new(keys("legacy_file")), timing)
            .await
            .unwrap()
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        if let Some(accepting) = self.accepting.take() {
            spawn(accepting.cancel());
        }
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    number: usize,
    stream: S,
    script: Arc<Script>,
    tell: &Sender<(usize, String)>,
) {
    let mut stream = BufReader::new(stream);
    say(&mut stream, b"@").await;
    loop {
        let mut line = String::new();
        let got = stream.read_line(&mut line).await;
        if !got.is_ok_and(|count| count > 0) {
            break;
        }
        let line = line.trim_end();
        let _ = tell.send((number, line.to_owned())).await;
        match script(number, line).unwrap_or_else(|| usual(line)) {
            Act::Say(text) => say(&mut stream, text.as_bytes()).await,
            Act::Drip(text) => {
                for byte in text.bytes() {
                    say(&mut stream, &[byte]).await;
                }
            }
            Act::Later(after, text) => {
                sleep(after).await;
                say(&mut stream, text.as_bytes()).await;
            }
            Act::Hang => break,
            Act::Silence => {}
        }
    }
    let _ = stream.get_mut().close().await;
}

/// The client may be gone already; then the next read tells.
async fn say<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut BufReader<S>, bytes: &[u8]) {
    let _ = stream.get_mut().write_all(bytes).await;
    let _ = stream.get_mut().flush().await;
}

fn usual(line: &str) -> Act {
    match line.split(':').next().unwrap() {
        "from" => Act::Say("data:_0a1b@alice:2c3d\n@".to_owned()),
        "pkam" => data("success"),
        "noop" => data("ok"),
        word if word.starts_with("monitor") => Act::Silence,
        _ => error("AT0003-invalid syntax : Syntax Exception"),
    }
}

fn data(text: &str) -> Act {
    Act::Say(format!("data:{text}\n@alice@"))
}

fn error(text: &str) -> Act {
    Act::Say(format!("error:{text}\n@alice@"))
}

/// Plain TCP: what TLS adds is tested where it is made, and once more at the end of this file.
struct Wire(std::net::SocketAddr);

impl Transport for Wire {
    fn connect(self: Arc<Self>) -> Boxed<Result<Connected, AtError>> {
        Box::pin(async move {
            let tcp = TcpStream::connect(self.0).await;
            let tcp = tcp.map_err(|why| AtError::Protocol(why.to_string()))?;
            tcp.set_nodelay(true).unwrap();
            let ends = Ends::of(&tcp);
            let stream = Box::new(tcp);
            Ok(Connected { stream, ends })
        })
    }

    /// The silent ones are one server's.
    fn host_of(self: Arc<Self>, who: AtSign) -> Boxed<Option<String>> {
        let host = match who.as_str() {
            name if name.starts_with("@tar") => "tarpit",
            name => name,
        };
        Box::pin(std::future::ready(Some(host.to_owned())))
    }
}

fn llookup(entity: &str) -> Verb {
    Verb::Llookup {
        key: AtKey::own(entity, &atsign("@alice")),
        detail: Detail::Value,
    }
}

fn run<T>(test: impl Future<Output = T>) -> T {
    // In a box: it is moved dozens of times, and unoptimized each of them takes room on a stack of 2 MB.
    block_on(timeout(3 * SOON, Box::pin(test))).expect("the test hangs")
}

/// A monitor's line about a plain value from bob.
fn note(id: &str, millis: u64) -> String {
    format!(
        r#"notification: {{"id":"{id}","from":"@bob","to":"@alice","key":"@alice:x.dev1.sshnp@bob","value":"v","operation":"update","epochMillis":{millis},"messageType":"MessageType.key","isEncrypted":false,"metadata":null}}{}"#,
        "\n"
    )
}
