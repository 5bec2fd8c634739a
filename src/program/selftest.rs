//! `noports selftest`: does this executable work on this machine? Known answers for every cipher, a TLS handshake, the
//! store and the sandbox; and how those of our programs that run here are confined. Nothing leaves the machine. Not in the
//! overview: it is for whoever builds releases, and for a bug report from an odd machine.
//!
//! ```text
//!   selftest aes     ok    0.4 ms  5541 MB/s, with instructions
//!   selftest store   FAIL  2.1 ms  no space left on device            → exit code 1
//! ```

use std::{
    env, fs,
    hint::black_box,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use argh::{ArgsInfo, FromArgs};
use async_std::net::{TcpListener, TcpStream};
use futures_lite::{AsyncReadExt, AsyncWriteExt, future};
use miniserde::json;
use ring::digest;

use crate::{
    at::{
        AtSign,
        crypto::{self, KeyPair},
        keyfile::AtKeys,
    },
    cli::{Console, Failure, Outcome, help::wrapped},
    net::tls::{Acceptor, Connector},
    pipe::{cipher::Cipher, join},
    secret::Secret,
    server::{
        authority,
        store::{StoreError, disk::Store, register},
    },
    sys::paths,
};

mod sandbox;

/// Longest wait for anything on loopback; generous, for emulated machines.
const SOON: Duration = Duration::from_secs(60);
/// Bytes sent through TLS and through the kernel, each way.
const LOAD: usize = 1 << 20;
/// An RSA-2048 key that is in every copy of this program, so it protects nothing.
const KNOWN_KEY: &str = include_str!("selftest/known.key");
/// What is signed with it.
const MESSAGE: &[u8] = b"noports selftest";
/// SHA-256 of the signature's base64 text, by OpenSSL.
const SIGNATURE: &str = "11890bc102521f0df9266cfd0078ca8c344405a5140de4cdd67ad118b46ef52d";
/// SHA-256 of 4096 bytes of key stream, by OpenSSL: key 0, 1, 2 …, first counter all ones but the last four bits.
const KEY_STREAM: &str = "d4882632fcf34aecbfe8b22e60ac76b30c5cc52e9ae5c8be6e2430cc33337f4e";
/// SHA-256 of @selftest's key file, put together with OpenSSL: the known key twice, self key 0, 1, 2 …
const KEY_FILE: &str = "5236592bd33900e249edd65dbe5b60514da3061993e9cee64f68c229f11bffc8";

/// Check that this executable works on this machine: ciphers, keys, TLS, sockets, the store.
#[derive(FromArgs, ArgsInfo)]
#[argh(example = "{command_name}", example = "{command_name} --json")]
pub(crate) struct Args {
    /// print results as JSON lines on stdout
    #[argh(switch)]
    json: bool,
}

/// What a part found out, or what is wrong.
type PartResult = Result<String, Failure>;

/// The program.
pub fn main(console: Console, words: &[&str]) -> ExitCode {
    console.act(words, |console, Args { json }| {
        console.finish(json, console.run(2, story(console, json)))
    })
}

async fn story(console: &Console, as_json: bool) -> Result<(), Failure> {
    let folder = Folder::new()?;
    let mut bad = Vec::new();
    let mut tell = |part: &'static str, began: Instant, found: PartResult| {
        let ms = began.elapsed().as_secs_f64() * 1e3;
        let ok = found.is_ok();
        let note = found.unwrap_or_else(|why| why.message);
        let word = if ok { "ok" } else { "FAIL" };
        let outcome = Outcome::new("selftest")
            .with("part", part)
            .raw("ok", ok)
            .raw("ms", json::to_string(&((ms * 100.0).round() / 100.0)))
            .with("note", &note)
            .plain(line(
                &format!("selftest {part:<7} {word:<4} {ms:8.1} ms  "),
                &note,
            ));
        console.tell(as_json, outcome);
        if !ok {
            bad.push(part);
        }
    };
    let parts: [(_, fn() -> PartResult); 4] = [
        ("random", random),
        ("aes", aes),
        ("rsa", rsa),
        ("keys", key_files),
    ];
    for (part, check) in parts {
        tell(part, Instant::now(), check());
    }
    let began = Instant::now();
    tell("tls", began, soon(tls(&folder.0)).await);
    let began = Instant::now();
    tell("relay", began, soon(relay()).await);
    let began = Instant::now();
    tell("store", began, soon(store(&folder.0.join("store"))).await);
    let began = Instant::now();
    tell("sandbox", began, sandbox::here(&folder.0));
    for running in sandbox::running() {
        tell("running", Instant::now(), Ok(running));
    }
    if bad.is_empty() {
        return Ok(());
    }
    Err(
        Failure::plain(format!("these parts do not work here: {}", bad.join(", ")))
            .hint("a bug report with these lines and the machine's kind (uname -a) is welcome"),
    )
}

/// With the note in a column of its own.
fn line(head: &str, note: &str) -> String {
    let text = wrapped(note, head.len(), head.len());
    format!("{head}{}", text.trim())
}

async fn soon(part: impl Future<Output = PartResult>) -> PartResult {
    let late = || failed("it took too long");
    async_std::future::timeout(SOON, part)
        .await
        .unwrap_or_else(|_| Err(late()))
}

fn failed(why: impl std::fmt::Display) -> Failure {
    Failure::plain(why.to_string())
}

fn check(fits: bool, what: &str) -> Result<(), Failure> {
    if fits { Ok(()) } else { Err(failed(what)) }
}

fn sha256(bytes: &[u8]) -> String {
    let hash = digest::digest(&digest::SHA256, bytes);
    hash.as_ref().iter().map(|b| format!("{b:02x}")).collect()
}

fn counting() -> Secret<[u8; 32]> {
    Secret::new(std::array::from_fn(|at| at as u8)) // 0..=31
}

fn random() -> PartResult {
    let (one, other) = (crypto::random::<32>()?, crypto::random::<32>()?);
    check(one != other, "the system gives the same bytes twice")?;
    Ok(String::new())
}

fn aes() -> PartResult {
    let key = counting();
    let mut start = [0xff; 16];
    start[15] = 0xf0;
    let mut whole = vec![0; 4096];
    Cipher::new(&key, &start).apply(&mut whole);
    check(sha256(&whole) == KEY_STREAM, "the key stream is wrong")?;
    // Bytes come in any pieces.
    let (mut pieces, mut cipher) = (vec![0; 4096], Cipher::new(&key, &start));
    for piece in pieces.chunks_mut(61) {
        cipher.apply(piece);
    }
    check(pieces == whole, "the key stream depends on the pieces")?;
    let kind = if noports_ciphers::hardware_accelerated() {
        "with instructions"
    } else {
        "in software"
    };
    Ok(format!("{:.0} MB/s, {kind}", speed(cipher)))
}

/// Bytes per microsecond, of the best of several runs that take 2 ms or more each.
fn speed(mut cipher: Cipher) -> f64 {
    let mut bytes = vec![0; 16 * 1024];
    let mut best = 0.0_f64;
    for _ in 0..5 {
        let (began, mut done) = (Instant::now(), 0.0);
        while began.elapsed() < Duration::from_millis(2) {
            cipher.apply(black_box(&mut bytes));
            done += bytes.len() as f64;
        }
        best = best.max(done / began.elapsed().as_secs_f64() / 1e6);
    }
    best
}

fn rsa() -> PartResult {
    let key = KeyPair::parse(KNOWN_KEY.trim())?;
    let began = Instant::now();
    let signature = key.sign(MESSAGE)?;
    let signed = began.elapsed();
    check(
        sha256(signature.as_bytes()) == SIGNATURE,
        "the signature is wrong",
    )?;
    key.public().verify(MESSAGE, &signature)?;
    check(
        key.public().verify(b"another message", &signature).is_err(),
        "a signature fits another message",
    )?;
    let wrapped = key.public().wrap("a session key")?;
    let began = Instant::now();
    let text = key.unwrap(&wrapped)?;
    let opened = began.elapsed();
    check(text.reveal() == "a session key", "decryption is wrong")?;
    Ok(format!("signed in {signed:.1?}, decrypted in {opened:.1?}"))
}

fn key_files() -> PartResult {
    let pair = KeyPair::parse(KNOWN_KEY.trim())?;
    let who: AtSign = "@selftest".parse().map_err(failed)?;
    let keys = AtKeys {
        atsign: who.clone(),
        pkam: pair.clone(),
        encryption: pair.clone(),
        self_key: counting(),
        apkam_symmetric: None,
        enrollment_id: None,
    };
    let text = keys.print();
    check(
        sha256(text.reveal().as_bytes()) == KEY_FILE,
        "the key file is wrong",
    )?;
    let read = AtKeys::parse(&who, text.reveal()).map_err(failed)?;
    check(
        read.pkam.public() == pair.public(),
        "the key file reads back wrong",
    )?;
    Ok(format!("{} bytes", text.reveal().len()))
}

/// A handshake with an authority of our own, bytes both ways, and a refusal of an authority that is not known.
async fn tls(folder: &Path) -> PartResult {
    let data = folder.join("authority");
    let ours = authority::open_or_make(&data).map_err(failed)?;
    let leaf = ours.leaf(&[]).map_err(failed)?;
    let acceptor = leaf.acceptor().map_err(failed)?;
    let knows = Connector::new(&[ours.ca_file()])?;
    let began = Instant::now();
    talk(&acceptor, &knows).await?;
    let took = began.elapsed();
    let stranger = Connector::new::<PathBuf>(&[])?;
    check(
        talk(&acceptor, &stranger).await.is_err(),
        "a server is trusted whose authority is unknown",
    )?;
    Ok(format!("{} kB there and back in {took:.1?}", LOAD / 1024))
}

async fn talk(acceptor: &Acceptor, connector: &Connector) -> Result<(), Failure> {
    let (near, far) = sockets().await?;
    let server = async {
        let (mut stream, _) = acceptor.accept(far, SOON).await?;
        let mut bytes = vec![0; LOAD];
        stream.read_exact(&mut bytes).await.map_err(failed)?;
        stream.write_all(&bytes).await.map_err(failed)?;
        stream.flush().await.map_err(failed)
    };
    let client = async {
        let mut stream = connector.connect("localhost", near, SOON).await?;
        let sent = pattern();
        stream.write_all(&sent).await.map_err(failed)?;
        stream.flush().await.map_err(failed)?;
        let mut back = vec![0; LOAD];
        stream.read_exact(&mut back).await.map_err(failed)?;
        check(back == sent, "what comes back is not what was sent")
    };
    future::try_zip(server, client).await.map(|_| ())
}

/// Two sockets joined as the rendezvous joins them.
async fn relay() -> PartResult {
    let ((mut near, a), (b, mut far)) = (sockets().await?, sockets().await?);
    let middle = async {
        let carried = join::splice(a, Vec::new(), b, Vec::new()).await;
        carried.map_err(failed)
    };
    let ends = async {
        let send = async {
            near.write_all(&pattern()).await?;
            near.shutdown(std::net::Shutdown::Write)
        };
        let mut heard = Vec::new();
        let receive = async {
            let mut reader = far.clone();
            reader.read_to_end(&mut heard).await
        };
        future::try_zip(send, receive).await.map_err(failed)?;
        check(heard == pattern(), "what arrives is not what was sent")?;
        // The other direction stays open when one has ended.
        far.write_all(b"answer").await.map_err(failed)?;
        far.shutdown(std::net::Shutdown::Write).map_err(failed)?;
        let mut answer = String::new();
        let mut reader = near.clone();
        reader.read_to_string(&mut answer).await.map_err(failed)?;
        check(answer == "answer", "the answer is lost")
    };
    let (carried, ()) = future::try_zip(middle, ends).await?;
    check(
        carried.up == LOAD as u64 && carried.down == 6,
        "bytes were lost",
    )?;
    Ok(format!("{} kB", LOAD / 1024))
}

async fn sockets() -> Result<(TcpStream, TcpStream), Failure> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(failed)?;
    let to = listener.local_addr().map_err(failed)?;
    let accept = async { listener.accept().await.map(|(socket, _)| socket) };
    let both = future::try_zip(TcpStream::connect(to), accept).await;
    both.map_err(failed)
}

fn pattern() -> Vec<u8> {
    (0..LOAD).map(|at| (at % 251) as u8).collect()
}

/// What was written is there after closing and opening; a second process would be refused.
async fn store(folder: &Path) -> PartResult {
    paths::private_folder(folder).map_err(failed)?;
    let who: Arc<AtSign> = Arc::new("@selftest".parse().map_err(failed)?);
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64); // 64 bits last for ages
    let first = Store::open(folder, |_| {}).map_err(failed)?;
    let resident = who.clone();
    let write = first.write(move |tx| {
        let home = register::add(tx, &resident, 6464, now)?;
        home.put_plain(tx, "public:selftest@selftest", "kept", None, now)
    });
    write.await.map_err(|e: StoreError| failed(e))?;
    check(
        Store::open(folder, |_| {}).is_err(),
        "the store can be opened twice",
    )?;
    first.close().await;
    let again = Store::open(folder, |_| {}).map_err(failed)?;
    let read = again.read_now(|rows| match register::find(rows, &who)? {
        Some(entry) => entry.home.live(rows, "public:selftest@selftest", now),
        None => Ok(None),
    });
    let record = read.map_err(|e: StoreError| failed(e))?;
    check(
        record.is_some_and(|record| record.value == "kept"),
        "what was written is not there any more",
    )?;
    Ok(format!("{} kB on disk", again.size() / 1024))
}

/// A folder of our own; dropping it removes it.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self, Failure> {
        let name = format!("noports-selftest-{}", uuid::Uuid::new_v4().as_simple());
        let path = env::temp_dir().join(name);
        paths::private_folder(&path)
            .map_err(|why| failed(format!("no temporary folder {}: {why}", path.display())))?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
