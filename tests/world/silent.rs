//! An atDirectory by hand, whose atServers mean no good or are not well.
//!
//! | atSigns | their atServer |
//! | --- | --- |
//! | `@tar…` | takes no connection from the kernel |
//! | `@mute…` | takes it, makes TLS of it, and says nothing |
//! | `@drip…` | says a byte a second |
//! | `@off…` | is not there: the port is closed |
//! | `@well…` | has a public key, and one for everything that is looked up |
//! | `@big…` | has one of [`BIG`] bytes |
//! | `@kin…` | says what has been put there, by `put:KEY VALUE` of anybody: it can prove who it is |
//! | `@shy…` | the same, and says nothing at all where nothing has been put |

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_std::{
    io::{ReadExt, WriteExt},
    net::{TcpListener, TcpStream},
    task,
};
use noports::{
    net::tls::{Acceptor, TlsStream},
    server::authority,
};

use super::World;

const SOON: Duration = Duration::from_secs(30);
/// Of a public key that is none.
const BIG: usize = 9_900_000;

/// The directory and the atServers; they end with it.
pub struct Silent {
    /// `localhost:PORT`
    pub root: String,
    tasks: Vec<task::JoinHandle<()>>,
    _never_accepts: TcpListener,
}

impl Drop for Silent {
    fn drop(&mut self) {
        for task in self.tasks.drain(..) {
            task::block_on(task.cancel());
        }
    }
}

impl Silent {
    /// Its certificates are of this world's authority. `others`: name without `@` → `host:port`.
    pub async fn start(world: &World, others: HashMap<String, String>) -> Self {
        Self::start_at(&world.dir.path("at"), "localhost", 0, others).await
    }

    /// The same at the host of this name, with certificates of the authority in this folder.
    pub async fn start_at(
        authority: &Path,
        host: &str,
        port: u16,
        others: HashMap<String, String>,
    ) -> Self {
        let authority = authority::open_or_make(authority).unwrap();
        let tls = || {
            let leaf = authority.leaf(&[host.to_owned()]).unwrap();
            leaf.acceptor().unwrap()
        };
        let door = async |port: u16| TcpListener::bind((host, port)).await.unwrap();
        let place = |door: &TcpListener| format!("{host}:{}", door.local_addr().unwrap().port());
        let (tar, off) = (door(0).await, door(0).await);
        let (mute, drip, directory) = (door(0).await, door(0).await, door(port).await);
        let (well, big) = (door(0).await, door(0).await);
        let (kin, shy) = (door(0).await, door(0).await);
        let records = Records::default();
        let known: Vec<(&str, String)> = [
            ("tar", &tar),
            ("mute", &mute),
            ("drip", &drip),
            ("off", &off),
            ("well", &well),
            ("big", &big),
            ("kin", &kin),
            ("shy", &shy),
        ]
        .map(|(name, door)| (name, place(door)))
        .into();
        let root = place(&directory);
        let find = Arc::new(move |name: &str| {
            let ill = known.iter().find(|(start, _)| name.starts_with(start));
            ill.map(|(_, at)| at.clone())
                .or_else(|| others.get(name).cloned())
        });
        let tasks = vec![
            task::spawn(each(mute, tls(), async |_stream| {
                futures_lite::future::pending::<()>().await;
            })),
            task::spawn(each(drip, tls(), async |mut stream| {
                while stream.write_all(b"@").await.is_ok() && stream.flush().await.is_ok() {
                    task::sleep(Duration::from_secs(1)).await;
                }
            })),
            task::spawn(each(well, tls(), |stream| keyed(stream, 392))),
            task::spawn(each(big, tls(), |stream| keyed(stream, BIG))),
            task::spawn(each(kin, tls(), told(&records, false))),
            task::spawn(each(shy, tls(), told(&records, true))),
            task::spawn(each(directory, tls(), move |stream| {
                let find = find.clone();
                async move {
                    let _ = answer(stream, &find).await;
                }
            })),
        ];
        Self {
            root,
            tasks,
            _never_accepts: tar,
        }
    }
}

/// Answers each line with a value of this length, kept for ever by whoever asks.
async fn keyed(mut stream: TlsStream, length: usize) {
    let value = "A".repeat(length);
    let data = format!(
        "data:{{\"key\":\"public:publickey\",\"data\":\"{value}\",\"metaData\":{{\"ttr\":-1}}}}\n@"
    );
    let mut buffer = [0; 1024];
    let mut next: &[u8] = b"@";
    loop {
        if stream.write_all(next).await.is_err() || stream.flush().await.is_err() {
            return;
        }
        match stream.read(&mut buffer).await {
            Ok(1..) => next = data.as_bytes(),
            _ => return,
        }
    }
}

/// What has been put there.
type Records = Arc<Mutex<HashMap<String, String>>>;

/// A connection to those records; `is_shy`: whoever asks for what is not there hears nothing.
fn told(records: &Records, is_shy: bool) -> impl Fn(TlsStream) -> Boxed + use<> {
    let records = records.clone();
    move |stream| {
        let records = records.clone();
        Box::pin(async move {
            let _ = tell(stream, &records, is_shy).await;
        })
    }
}

type Boxed = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

async fn tell(mut stream: TlsStream, records: &Records, is_shy: bool) -> std::io::Result<()> {
    stream.write_all(b"@").await?;
    stream.flush().await?;
    let (mut kept, mut buffer) = (String::new(), [0; 4096]);
    loop {
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        kept += &String::from_utf8_lossy(&buffer[..read]);
        while let Some((line, rest)) = kept.split_once('\n') {
            let reply = reply(line.trim(), records);
            kept = rest.to_owned();
            let Some(reply) = reply else {
                if is_shy {
                    return futures_lite::future::pending().await;
                }
                stream.write_all(b"error:AT0015-key not found\n@").await?;
                stream.flush().await?;
                continue;
            };
            stream
                .write_all(format!("data:{reply}\n@").as_bytes())
                .await?;
            stream.flush().await?;
        }
    }
}

/// A key without its owner counts for all who have none of their own.
fn reply(line: &str, records: &Records) -> Option<String> {
    let mut records = records.lock().unwrap();
    if let Some((key, value)) = line
        .strip_prefix("put:")
        .and_then(|put| put.split_once(' '))
    {
        records.insert(key.to_owned(), value.to_owned());
        return Some("1".to_owned());
    }
    let key = line.strip_prefix("lookup:")?;
    let (is_whole, key) = match key.strip_prefix("all:") {
        Some(key) => (true, key),
        None => (false, key),
    };
    let of_all = key.split('@').next().unwrap_or_default();
    let value = records.get(key).or_else(|| records.get(of_all))?;
    if is_whole {
        Some(format!(
            "{{\"key\":\"public:{key}\",\"data\":\"{value}\",\"metaData\":{{}}}}"
        ))
    } else {
        Some(value.clone())
    }
}

/// Does this with every connection, once it is TLS.
async fn each<F>(door: TcpListener, tls: Acceptor, what: impl Fn(TlsStream) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    loop {
        let (tcp, _): (TcpStream, _) = door.accept().await.unwrap();
        if let Ok((stream, _)) = tls.accept(tcp, SOON).await {
            task::spawn(what(stream));
        }
    }
}

/// `name` → `host:port`
async fn answer(
    mut stream: TlsStream,
    find: &Arc<impl Fn(&str) -> Option<String>>,
) -> std::io::Result<()> {
    stream.write_all(b"@").await?;
    stream.flush().await?;
    let (mut kept, mut buffer) = (String::new(), [0; 256]);
    loop {
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        kept += &String::from_utf8_lossy(&buffer[..read]);
        while let Some((name, rest)) = kept.split_once('\n') {
            let found = find(name.trim().trim_start_matches('@'));
            let line = format!("{}\r\n@", found.unwrap_or_else(|| "null".to_owned()));
            kept = rest.to_owned();
            stream.write_all(line.as_bytes()).await?;
            stream.flush().await?;
        }
    }
}
