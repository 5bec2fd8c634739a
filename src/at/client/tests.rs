//! The client against a stand-in atServer: real sockets, scripted answers.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, HashMap};

use async_std::{
    channel::unbounded,
    net::{TcpListener, TcpStream},
    task::block_on,
};
use futures_lite::{
    AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, future::Boxed, future::zip,
    io::BufReader,
};

use super::{link::Stream, *};
use crate::{
    at::{
        crypto::KeyPair,
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
        let reach = Arc::new(Wire(self.address));
        Client::login_over(reach, Arc::new(keys("legacy_file")), timing)
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

impl Reach for Wire {
    fn reach(self: Arc<Self>) -> Boxed<Result<Stream, AtError>> {
        Box::pin(async move {
            let tcp = TcpStream::connect(self.0).await;
            let tcp = tcp.map_err(|why| AtError::Protocol(why.to_string()))?;
            tcp.set_nodelay(true).unwrap();
            Ok(Box::new(tcp) as Stream)
        })
    }
}

fn llookup(entity: &str) -> Verb {
    Verb::Llookup {
        key: AtKey::own(entity, &atsign("@alice")),
        detail: Detail::Value,
    }
}

fn run<T>(test: impl Future<Output = T>) -> T {
    block_on(timeout(3 * SOON, test)).expect("the test hangs")
}

#[test]
fn answers_are_whole_however_they_are_cut() {
    run(async {
        let stand = Stand::new(|_, line| {
            Some(match line.split(':').next().unwrap() {
                "from" => Act::Drip("data:_0a1b@alice:2c3d\n@".to_owned()),
                "pkam" => Act::Drip("data:success\n@alice@".to_owned()),
                _ => Act::Drip("data:two\nlines é\n@alice@".to_owned()),
            })
        })
        .await;
        let client = stand.client(Timing::default()).await;
        for _ in 0..3 {
            let answer = client.run(&llookup("x.ns")).await.unwrap();
            assert_eq!(answer, "two\nlines é");
        }
        let (_, from) = stand.heard.recv().await.unwrap();
        assert_eq!(from, "from:@alice");
        let (_, pkam) = stand.heard.recv().await.unwrap();
        assert!(pkam.starts_with("pkam:signingAlgo:rsa2048:hashingAlgo:sha256:"));
        assert_eq!(stand.line().await, (1, "llookup:x.ns@alice".to_owned()));
    });
}

#[test]
fn many_callers_get_their_own_answers() {
    run(async {
        let stand = Stand::new(|_, line| {
            line.strip_prefix("llookup:")
                .map(|key| match key.contains("missing") {
                    true => error("AT0015-key not found : missing"),
                    false => data(key),
                })
        })
        .await;
        let client = stand.client(Timing::default()).await;
        let calls: Vec<_> = (0..100)
            .map(|n| {
                let client = client.clone();
                spawn(async move { client.run(&llookup(&format!("k{n}.ns"))).await.unwrap() })
            })
            .collect();
        for (n, call) in calls.into_iter().enumerate() {
            assert_eq!(call.await, format!("k{n}.ns@alice"));
        }
        match client.run(&llookup("missing.ns")).await {
            Err(AtError::Refused(fault)) => assert!(fault.is_key_not_found()),
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn a_lost_command_is_repeated_once_if_it_may_be() {
    run(async {
        let stand = Stand::new(|number, line| {
            let word = line.split(':').next().unwrap();
            match (number, word) {
                (1 | 3 | 4 | 5, "llookup" | "enroll" | "update") => Some(Act::Hang),
                (_, "llookup") => Some(data("value")),
                _ => None,
            }
        })
        .await;
        let client = stand.client(Timing::default()).await;
        assert_eq!(client.run(&llookup("x.ns")).await.unwrap(), "value");
        assert_eq!(stand.line().await.0, 1);
        assert_eq!(stand.line().await.0, 2);

        // From now on every connection dies under its first command.
        stand.cut(2);
        stand
            .until(|number, line| number == 3 && line.starts_with("pkam"))
            .await;
        let lost = client.run(&llookup("y.ns")).await;
        assert!(matches!(lost, Err(AtError::Lost { .. })), "{lost:?}");
        assert_eq!(stand.line().await, (3, "llookup:y.ns@alice".to_owned()));
        assert_eq!(stand.line().await, (4, "llookup:y.ns@alice".to_owned()));

        let approve = Verb::Enroll {
            operation: crate::at::verb::EnrollOperation::Approve,
            force: false,
            params: Some("{}".to_owned()),
        };
        let lost = client.run(&approve).await;
        assert!(matches!(lost, Err(AtError::Lost { .. })), "{lost:?}");
        assert_eq!(stand.line().await.0, 5);
    });
}

#[test]
fn a_silent_server_costs_its_connection_and_the_deadline() {
    run(async {
        let stand = Stand::new(|number, line| match (number, line) {
            (_, "llookup:slow@alice") => Some(Act::Silence),
            (2, line) if line.starts_with("llookup") => Some(data("second")),
            _ => None,
        })
        .await;
        let timing = Timing {
            reply: Duration::from_millis(200),
            ..Timing::default()
        };
        let client = stand.client(timing).await;
        let silent = client.run(&llookup("slow")).await;
        assert!(matches!(silent, Err(AtError::Silent(_))), "{silent:?}");
        // The answer of the first command, late: nobody may take it for that of the second.
        let mut late = stand.peers.lock().unwrap()[&1].clone();
        let _ = late.write_all(b"data:late\n@alice@").await;
        assert_eq!(client.run(&llookup("quick")).await.unwrap(), "second");
    });
}

#[test]
fn what_nobody_asked_for_is_taken_for_no_answer() {
    run(async {
        let stand = Stand::new(|number, line| {
            line.starts_with("llookup")
                .then(|| data(&format!("from {number}")))
        })
        .await;
        let client = stand.client(Timing::default()).await;
        assert_eq!(client.run(&llookup("a.ns")).await.unwrap(), "from 1");
        stand.push(1, "data:unasked\n@alice@").await;
        stand
            .until(|number, line| number == 1 && line == ENDED)
            .await;
        assert_eq!(client.run(&llookup("b.ns")).await.unwrap(), "from 2");
    });
}

#[test]
fn a_forgotten_login_is_made_again() {
    run(async {
        let stand = Stand::new(|number, line| {
            line.starts_with("enroll").then(|| match number {
                1 => error("AT0401-Exception: Command cannot be executed without auth"),
                _ => data("{}"),
            })
        })
        .await;
        let client = stand.client(Timing::default()).await;
        let list = crate::at::enroll::list(None);
        assert_eq!(client.run(&list).await.unwrap(), "{}");
    });
}

#[test]
fn a_quiet_connection_is_proved_and_replaced() {
    run(async {
        let stand = Stand::new(|_, _| None).await;
        let timing = Timing {
            idle: Duration::from_millis(50),
            retry: (Duration::from_millis(10), Duration::from_millis(50)),
            ..Timing::default()
        };
        let client = stand.client(timing).await;
        stand.until(|_, line| line == "noop:0").await;
        stand.cut(1);
        stand
            .until(|number, line| number == 2 && line.starts_with("pkam"))
            .await;
        drop(client);
        stand
            .until(|number, line| number == 2 && line == ENDED)
            .await;
    });
}

#[test]
fn refused_logins_say_why() {
    run(async {
        for (answer, expected) in [
            (
                "error:AT0401-Exception: pkam authentication failed\n@",
                Code::Unauthenticated,
            ),
            (
                "error:AT0027:enrollment_id: x is revoked\n@",
                Code::EnrollmentRevoked,
            ),
        ] {
            let stand = Stand::new(move |_, line| {
                line.starts_with("pkam")
                    .then(|| Act::Say(answer.to_owned()))
            })
            .await;
            let reach = Arc::new(Wire(stand.address));
            let keys = Arc::new(keys("legacy_file"));
            let refused = Client::login_over(reach, keys, Timing::default()).await;
            match refused {
                Err(AtError::Login { fault, .. }) => assert_eq!(fault.code, Some(expected)),
                other => panic!("{other:?}"),
            }
        }
        let full = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let reach = Arc::new(Wire(full.local_addr().unwrap()));
        let closing = spawn(async move {
            let (mut stream, _) = full.accept().await.unwrap();
            let words = b"error:AT0012-Inbound connection limit exceeded\n";
            stream.write_all(words).await.unwrap();
            // Reads what comes, so that closing is no reset.
            let mut line = String::new();
            BufReader::new(&mut stream)
                .read_line(&mut line)
                .await
                .unwrap();
        });
        let refused =
            Client::login_over(reach, Arc::new(keys("legacy_file")), Timing::default()).await;
        closing.await;
        match refused {
            Err(why @ AtError::Login { .. }) => assert!(why.may_pass(), "{why}"),
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn lines_that_are_two_lines_are_not_sent() {
    run(async {
        let stand = Stand::new(|_, _| None).await;
        let client = stand.client(Timing::default()).await;
        let update = Verb::Update {
            key: AtKey::own("x.ns", &atsign("@alice")),
            metadata: Metadata::default(),
            value: "a\ndelete:y.ns@alice".to_owned(),
        };
        for verb in [update, Verb::Pol] {
            let refused = client.run(&verb).await;
            assert!(matches!(refused, Err(AtError::Protocol(_))), "{refused:?}");
        }
        client.close().await;
        let closed = client.run(&llookup("x.ns")).await;
        assert!(matches!(closed, Err(AtError::Closed)), "{closed:?}");
        stand
            .until(|number, line| number == 1 && line == ENDED)
            .await;
    });
}

fn note(id: &str, millis: u64) -> String {
    format!(
        r#"notification: {{"id":"{id}","from":"@bob","to":"@alice","key":"@alice:x.dev1.sshnp@bob","value":"v","operation":"update","epochMillis":{millis},"messageType":"MessageType.key","isEncrypted":false,"metadata":null}}{}"#,
        "\n"
    )
}

async fn next(subscription: &mut Subscription) -> Event {
    timeout(SOON, subscription.next()).await.unwrap().unwrap()
}

async fn next_id(subscription: &mut Subscription) -> String {
    match next(subscription).await {
        Event::Note(note) => note.id,
        other => panic!("{other:?}"),
    }
}

/// Waits for the first note, through reconnections.
async fn next_note(subscription: &mut Subscription) -> String {
    loop {
        if let Event::Note(note) = next(subscription).await {
            return note.id;
        }
    }
}

#[test]
fn a_monitor_delivers_once_and_survives_rubbish() {
    run(async {
        let stand = Stand::new(|number, line| {
            let glued = format!("{}data:ok\n@alice@{}", note("early", 4), note("glued", 5));
            (number == 2 && line.starts_with("noop")).then(|| Act::Say(glued.clone()))
        })
        .await;
        let client = stand.client(Timing::default()).await;
        let mut heard = client.subscribe(r"dev1\.sshnp@").await.unwrap();
        assert_eq!(stand.line().await, (2, r"monitor dev1\.sshnp@".to_owned()));
        assert_eq!(next_id(&mut heard).await, "early");
        assert_eq!(next_id(&mut heard).await, "glued");
        let stats = r#"notification: {"id":"-1","from":"@alice","to":"@alice","key":"statsNotification.@alice","value":"42","operation":"update","epochMillis":6,"messageType":"MessageType.key","isEncrypted":false,"metadata":null}"#;
        let shared = note("s", 7).replace("x.dev1.sshnp", "shared_key");
        let again = note("glued", 8);
        let rubbish = format!("{stats}\nnotification: {{}}\nnotification: oops\n{shared}{again}");
        stand.push(2, &rubbish).await;
        stand.push(2, &note("last", 9)).await;
        assert_eq!(next_id(&mut heard).await, "last");
        drop(heard);
        stand
            .until(|number, line| number == 2 && line == ENDED)
            .await;
    });
}

#[test]
fn a_silent_monitor_comes_back_where_it_was() {
    run(async {
        let stand = Stand::new(|number, line| match (number, line.split(':').next()) {
            // Proves itself once, then says nothing more.
            (2, Some("noop")) => Some(Act::Silence),
            (3.., Some("noop")) => Some(Act::Say(format!(
                "{}{}data:ok\n@alice@",
                note("one", 1000),
                note("two", 2000)
            ))),
            _ => None,
        })
        .await;
        let timing = Timing {
            silence: Duration::from_millis(300),
            retry: (Duration::from_millis(10), Duration::from_millis(50)),
            ..Timing::default()
        };
        let client = stand.client(timing).await;
        let answered = async {
            stand
                .until(|number, line| number == 2 && line == "noop:0")
                .await;
            let first = format!(
                "data:ok\n@alice@{}notification: {{\"half",
                note("one", 1000)
            );
            stand.push(2, &first).await;
        };
        let (subscribed, ()) = zip(client.subscribe("a:B"), answered).await;
        let mut heard = subscribed.unwrap();
        assert_eq!(next_id(&mut heard).await, "one");
        assert!(matches!(next(&mut heard).await, Event::Lost(_)));
        assert!(matches!(next(&mut heard).await, Event::Back));
        assert_eq!(next_note(&mut heard).await, "two");
        assert!(heard.last_heard() < SOON);
        let (_, resumed) = stand
            .until(|number, line| number == 3 && line.starts_with("monitor"))
            .await;
        assert_eq!(resumed, "monitor:999 a:B");
        drop(client);
        while timeout(SOON, heard.next()).await.unwrap().is_some() {}
    });
}

#[test]
fn a_monitor_that_never_heard_anything_asks_for_nothing_old() {
    run(async {
        let stand = Stand::new(|_, _| None).await;
        let timing = Timing {
            retry: (Duration::from_millis(10), Duration::from_millis(50)),
            ..Timing::default()
        };
        let client = stand.client(timing).await;
        let mut heard = client.subscribe("a:b").await.unwrap();
        let first = stand.line().await;
        assert_eq!(first, (2, "monitor:selfNotifications a:b".to_owned()));
        stand.cut(2);
        assert!(matches!(next(&mut heard).await, Event::Lost(_)));
        assert!(matches!(next(&mut heard).await, Event::Back));
        assert_eq!(stand.line().await, (3, first.1));
    });
}

#[test]
fn a_monitor_read_together_with_its_proof_is_tried_again() {
    run(async {
        let stand = Stand::new(|number, line| {
            (number == 2 && line.starts_with("noop"))
                .then(|| error("AT0003-invalid syntax : Syntax Exception"))
        })
        .await;
        let client = stand.client(Timing::default()).await;
        let _heard = client.subscribe("x").await.unwrap();
        assert_eq!(stand.line().await.0, 2);
        assert_eq!(stand.line().await.0, 3);

        let stand = Stand::new(|_, line| {
            let refused = "error:AT0003-invalid syntax : no such regex\n";
            line.starts_with("monitor")
                .then(|| Act::Say(refused.to_owned()))
        })
        .await;
        let timing = Timing {
            settle: Duration::from_millis(1),
            ..Timing::default()
        };
        let refused = stand.client(timing).await.subscribe("(").await;
        assert!(matches!(refused, Err(AtError::Refused(_))), "{refused:?}");
    });
}

#[test]
fn a_slow_consumer_loses_nothing() {
    run(async {
        let stand = Stand::new(|_, _| None).await;
        let client = stand.client(Timing::default()).await;
        let mut heard = client.subscribe("x").await.unwrap();
        let count = 3 * monitor::QUEUE;
        let all: String = (0..count)
            .map(|n| note(&format!("n{n}"), n as u64))
            .collect();
        stand.push(2, &all).await;
        for n in 0..count {
            assert_eq!(next_id(&mut heard).await, format!("n{n}"));
        }
    });
}

/// A stand that stores, and knows bob's public key.
async fn storing() -> (Stand, Arc<Mutex<BTreeMap<String, String>>>) {
    let store: Arc<Mutex<BTreeMap<String, String>>> = Arc::default();
    store
        .lock()
        .unwrap()
        .insert("publickey@bob".to_owned(), bob().public().text.clone());
    let inner = Arc::clone(&store);
    let stand = Stand::new(move |_, line| {
        let mut store = inner.lock().unwrap();
        let (word, rest) = line.split_once(':')?;
        let missing = || error("AT0015-key not found : it does not exist");
        let key = rest.strip_prefix("bypassCache:true:").unwrap_or(rest);
        let key = key.strip_prefix("all:").unwrap_or(key);
        Some(match word {
            "llookup" | "plookup" | "lookup" => match store.get(key) {
                Some(value) => data(value),
                None => missing(),
            },
            "delete" => {
                store.remove(rest);
                data("1")
            }
            "update" => {
                let (key, value) = rest.split_once(' ').unwrap();
                let key = key
                    .rsplit_once("isEncrypted:false:")
                    .map_or(key, |(_, key)| key);
                store.insert(key.to_owned(), value.to_owned());
                data("2")
            }
            "notify" => data(rest.split(':').nth(1).unwrap()),
            _ => return None,
        })
    })
    .await;
    (stand, store)
}

fn bob() -> KeyPair {
    let key = at_protocol().text("keys.bob_encryption.private_pkcs8_base64");
    KeyPair::parse(&key).unwrap()
}

fn outgoing(text: &str) -> Outgoing {
    Outgoing {
        to: atsign("@bob"),
        entity: "Req.dev1.sshnp".to_owned(),
        text: text.to_owned(),
        ttl: None,
        ttln: 60_000,
        metadata: Metadata::default(),
    }
}

/// Verb and key of a line, without values.
fn gist(line: &str) -> String {
    line.split(' ').next().unwrap().to_owned()
}

#[test]
fn first_contact_makes_both_copies_and_the_second_message_costs_one_line() {
    run(async {
        let (stand, store) = storing().await;
        let client = stand.client(Timing::default()).await;
        let id = client.notify(&outgoing("hello")).await.unwrap();
        let mut lines = Vec::new();
        for _ in 0..7 {
            lines.push(gist(&stand.line().await.1));
        }
        assert_eq!(
            lines,
            [
                "llookup:shared_key.bob@alice",
                "llookup:@bob:shared_key@alice",
                "plookup:publickey@bob",
                "delete:@bob:shared_key@alice",
                "update:shared_key.bob@alice",
                "llookup:shared_key.bob@alice",
                "update:ttr:3888000:isEncrypted:false:@bob:shared_key@alice",
            ]
        );
        let (_, notify) = stand.line().await;
        let theirs = store.lock().unwrap()["@bob:shared_key@alice"].clone();
        let key = share::unwrap(&bob(), &theirs).unwrap();
        let head = format!(
            "notify:id:{id}:update:messageType:key:priority:low:strategy:all:latestN:1:notifier:SYSTEM:ttln:60000:isEncrypted:true:sharedKeyEnc:{theirs}:pubKeyCS:{}:ivNonce:",
            bob().public().checksum()
        );
        let rest = notify.strip_prefix(&head).unwrap();
        let (iv, value) = rest.split_once(":@bob:req.dev1.sshnp@alice:").unwrap();
        assert_eq!(share::open(&key, value, Some(iv)).unwrap(), "hello");

        client.prepare(&atsign("@bob")).await.unwrap();
        let note = Outgoing {
            ttl: Some(5),
            ..outgoing("again")
        };
        client.notify(&note).await.unwrap();
        let (_, again) = stand.line().await;
        assert!(
            again.contains(":ttln:60000:ttl:5:isEncrypted:true:"),
            "{again}"
        );
        assert!(!again.contains(iv));
    });
}

#[test]
fn stored_keys_are_used_and_a_missing_copy_is_made_good() {
    run(async {
        let (stand, store) = storing().await;
        let own = at_protocol().text("shared_key_end_to_end.update_own_copy");
        let own = own.split_once(' ').unwrap().1.to_owned();
        store
            .lock()
            .unwrap()
            .insert("shared_key.bob@alice".to_owned(), own);
        let client = stand.client(Timing::default()).await;
        let bob_sign = atsign("@bob");
        // Two at once: the second waits for what the first finds.
        let (first, second) = zip(client.prepare(&bob_sign), client.prepare(&bob_sign)).await;
        first.unwrap();
        second.unwrap();
        client
            .put_shared(&bob_sign, "x.sshnp", "text", Metadata::default())
            .await
            .unwrap();
        let theirs = store.lock().unwrap()["@bob:shared_key@alice"].clone();
        let key = share::unwrap(&bob(), &theirs).unwrap();
        let expected = at_protocol().text("keys.shared_key_alice_to_bob_base64");
        assert_eq!(*crypto::aes_key_to_base64(&key).reveal(), expected);
        let mut lines = Vec::new();
        for _ in 0..5 {
            lines.push(gist(&stand.line().await.1));
        }
        assert_eq!(
            lines[3],
            "update:ttr:3888000:isEncrypted:false:@bob:shared_key@alice"
        );
        let put = format!("update:isEncrypted:true:sharedKeyEnc:{theirs}:pubKeyCS:");
        assert!(lines[4].starts_with(&put) && lines[4].ends_with(":@bob:x.sshnp@alice"));
    });
}

#[test]
fn a_recipient_with_new_keys_gets_a_new_shared_key() {
    run(async {
        let (stand, store) = storing().await;
        let timing = Timing {
            remember: Duration::ZERO,
            ..Timing::default()
        };
        let client = stand.client(timing).await;
        client.prepare(&atsign("@bob")).await.unwrap();
        let before = store.lock().unwrap()["shared_key.bob@alice"].clone();
        client.prepare(&atsign("@bob")).await.unwrap();
        assert_eq!(store.lock().unwrap()["shared_key.bob@alice"], before);

        let reborn = keys("legacy_file").pkam;
        let text = reborn.public().text.clone();
        store
            .lock()
            .unwrap()
            .insert("publickey@bob".to_owned(), text);
        client.prepare(&atsign("@bob")).await.unwrap();
        let store = store.lock().unwrap();
        let own = share::unwrap(
            &keys("legacy_file").encryption,
            &store["shared_key.bob@alice"],
        );
        let theirs = share::unwrap(&reborn, &store["@bob:shared_key@alice"]);
        assert_eq!(own.unwrap(), theirs.unwrap());
        assert_ne!(store["shared_key.bob@alice"], before);
    });
}

#[test]
fn a_failed_look_up_makes_no_new_key() {
    run(async {
        let stand = Stand::new(|_, line| {
            line.starts_with("llookup")
                .then(|| error("AT0001-server exception : busy"))
        })
        .await;
        let client = stand.client(Timing::default()).await;
        let refused = client.notify(&outgoing("x")).await;
        assert!(matches!(refused, Err(AtError::Refused(_))), "{refused:?}");
        for _ in 0..3 {
            assert!(stand.line().await.1.contains("lookup:"));
        }
        assert!(client.run(&llookup("end")).await.is_err());
        assert_eq!(stand.line().await.1, "llookup:end@alice");
    });
}

/// A notification from bob, encrypted with a key that is wrapped for alice.
fn sealed(key: &crypto::AesKey, wrapped: Option<&str>) -> Notification {
    let iv = crypto::random().unwrap();
    let wrapped = wrapped.map_or("null".to_owned(), |text| format!("{text:?}"));
    let value = crypto::encrypt(key, &iv, "secret");
    let json = note("id", 1)
        .replace("notification: ", "")
        .replace("\"value\":\"v\"", &format!("\"value\":\"{value}\""))
        .replace("\"isEncrypted\":false", "\"isEncrypted\":true")
        .replace(
            "\"metadata\":null",
            &format!(
                r#""metadata":{{"ivNonce":"{}","sharedKeyEnc":{wrapped}}}"#,
                crypto::to_base64(&iv)
            ),
        );
    Notification::parse(json.trim()).unwrap()
}

#[test]
fn notifications_are_opened_with_the_key_that_came_or_the_stored_one() {
    run(async {
        let (stand, store) = storing().await;
        let client = stand.client(Timing::default()).await;
        let wrap =
            |key: &crypto::AesKey| share::wrap(key, client.keys().encryption.public()).unwrap();
        let key = crypto::new_aes_key().unwrap();
        let wrapped = wrap(&key);
        let open = async |note: Notification| client.open(&note).await;
        let came = open(sealed(&key, Some(&wrapped))).await;
        assert_eq!(came.unwrap().as_deref(), Some("secret"));

        // Nothing is stored anywhere: one answer for all failures.
        let nowhere = open(sealed(&key, None)).await;
        assert!(matches!(nowhere, Err(AtError::Crypto(_))), "{nowhere:?}");

        // An old copy here, the new key at its source.
        let old = wrap(&crypto::new_aes_key().unwrap());
        let put = |name: &str, value: &str| {
            store
                .lock()
                .unwrap()
                .insert(name.to_owned(), value.to_owned())
        };
        put("cached:@alice:shared_key@bob", &old);
        put("shared_key@bob", &wrapped);
        let second = open(sealed(&key, None)).await;
        assert_eq!(second.unwrap().as_deref(), Some("secret"));
        let mut lines = Vec::new();
        for _ in 0..4 {
            lines.push(stand.line().await.1);
        }
        assert_eq!(
            lines,
            [
                "llookup:cached:@alice:shared_key@bob",
                "lookup:shared_key@bob",
                "llookup:cached:@alice:shared_key@bob",
                "lookup:bypassCache:true:shared_key@bob",
            ]
        );
        // And now it is known: no more look-ups.
        let third = open(sealed(&key, None)).await;
        assert_eq!(third.unwrap().as_deref(), Some("secret"));
        assert!(stand.heard.try_recv().is_err());

        let plain = Notification::parse(note("p", 1)["notification: ".len()..].trim()).unwrap();
        assert_eq!(open(plain).await.unwrap().as_deref(), Some("v"));
    });
}

#[test]
fn looked_up_values_are_decrypted_when_they_are_encrypted() {
    run(async {
        let (stand, store) = storing().await;
        let client = stand.client(Timing::default()).await;
        let key = crypto::new_aes_key().unwrap();
        let wrapped = share::wrap(&key, client.keys().encryption.public()).unwrap();
        let value = crypto::encrypt(&key, &crypto::ZERO_IV, "text");
        let put = |name: &str, value: String| store.lock().unwrap().insert(name.to_owned(), value);
        put("shared_key@bob", wrapped);
        put(
            "sealed.ns@bob",
            format!(r#"{{"key":"k","data":"{value}","metaData":{{"isEncrypted":true,"ttl":5}}}}"#),
        );
        put(
            "plain.ns@bob",
            r#"{"key":"k","data":"as it is"}"#.to_owned(),
        );
        put("gone.ns@bob", "null".to_owned());
        for (name, expected) in [
            ("sealed.ns", Some("text")),
            ("plain.ns", Some("as it is")),
            ("gone.ns", None),
            ("missing.ns", None),
        ] {
            let got = client.get_shared(&atsign("@bob"), name).await.unwrap();
            assert_eq!(got.as_deref(), expected, "{name}");
        }
    });
}

#[test]
fn public_keys_are_remembered_until_asked_afresh() {
    run(async {
        let (stand, store) = storing().await;
        let client = stand.client(Timing::default()).await;
        for _ in 0..2 {
            let key = client.public_key(&atsign("@bob")).await.unwrap();
            assert_eq!(key.as_ref(), Some(bob().public()));
        }
        assert_eq!(stand.line().await.1, "plookup:publickey@bob");
        let text = keys("legacy_file").pkam.public().text.clone();
        store
            .lock()
            .unwrap()
            .insert("publickey@bob".to_owned(), text.clone());
        let fresh = client.public_key_afresh(&atsign("@bob")).await.unwrap();
        assert_eq!(fresh.unwrap().text, text);
        assert_eq!(
            stand.line().await.1,
            "plookup:bypassCache:true:publickey@bob"
        );
        assert_eq!(
            client
                .public_key(&atsign("@bob"))
                .await
                .unwrap()
                .unwrap()
                .text,
            text
        );
        assert!(
            client
                .public_key(&atsign("@nobody"))
                .await
                .unwrap()
                .is_none()
        );
        let own = client.public_key(&atsign("@alice")).await.unwrap().unwrap();
        assert_eq!(&own, client.keys().encryption.public());
    });
}

/// A certificate for 127.0.0.1 that is its own authority.
fn certificate() -> (Acceptor, Connector) {
    let names = vec!["127.0.0.1".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let file = std::env::temp_dir().join(format!("ca-{}.pem", uuid::Uuid::new_v4()));
    std::fs::write(&file, made.cert.pem()).unwrap();
    let connector = Connector::new(&[&file]).unwrap();
    std::fs::remove_file(&file).unwrap();
    let key = made.signing_key.serialize_pem();
    (
        Acceptor::from_pem(&made.cert.pem(), &key).unwrap(),
        connector,
    )
}

#[test]
fn the_whole_way_over_directory_and_tls_and_after_the_server_has_moved() {
    run(async {
        let (acceptor, tls) = certificate();
        let script = |_: usize, line: &str| line.starts_with("llookup").then(|| data("value"));
        let first = Stand::over(Some(acceptor.clone()), script).await;
        let at = Arc::new(Mutex::new(first.address.to_string()));
        let answer = Arc::clone(&at);
        let directory = Stand::over(Some(acceptor.clone()), move |_, line| {
            Some(Act::Drip(match line {
                "alice" => format!("{}\r\n@", answer.lock().unwrap()),
                _ => "null\r\n@".to_owned(),
            }))
        })
        .await;
        let network = Network {
            root: directory.address.to_string().parse().unwrap(),
            tls,
        };
        let keys = Arc::new(keys("apkam_file"));
        let client = Client::login(&network, Arc::clone(&keys)).await.unwrap();
        assert_eq!(client.run(&llookup("x.ns")).await.unwrap(), "value");
        let mut link = Link::open(&network, client.atsign()).await.unwrap();
        assert_eq!(link.ask(&Verb::Noop { millis: 0 }).await.unwrap(), "ok");
        let asked = || {
            let lines = std::iter::from_fn(|| directory.heard.try_recv().ok());
            lines.filter(|(_, line)| line == "alice").count()
        };
        assert_eq!(asked(), 1, "the second time it is remembered");

        let second = Stand::over(Some(acceptor), script).await;
        *at.lock().unwrap() = second.address.to_string();
        drop(first);
        client.close().await;
        drop(link);
        let client = loop {
            // The first one's socket closes a moment after its task has been told to.
            let client = Client::login(&network, Arc::clone(&keys)).await.unwrap();
            if !second.heard.is_empty() {
                break client;
            }
        };
        assert_eq!(client.run(&llookup("x.ns")).await.unwrap(), "value");
        assert_eq!(asked(), 1, "the remembered address was dead");

        let nobody = Link::open(&network, &atsign("@nobody")).await;
        assert!(matches!(nobody, Err(AtError::Unknown { .. })), "{nobody:?}");
    });
}
