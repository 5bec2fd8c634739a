//! What this program does as a process of a host, named by its first words `--inside ROLE`.
//!
//! | role | |
//! | --- | --- |
//! | `echo PORT [ADDRESS]` | says `ready`, then says every byte again, to everybody |
//! | `greet PORT ADDRESS` | the same, but what it says is its own |
//! | `invent ATSIGN COUNT` | so many devices that are none, made up by `@aaa` |
//! | `record ATSIGN KEY TEXT` | writes a record of its own |
//! | `talk HOST:PORT` | carries stdin and stdout to there |
//! | `dial HOST:PORT MS` | what comes of a connection within that time: `ok`, `silence` or an error |
//! | `ping HOST:PORT COUNT` | shortest, middle and longest round trip of one byte, in milliseconds |
//! | `attack NAME SEED WORD…` | attacks, until it is killed; tells on stdout how far it has come |
//! | `peer FOLDER HOST PORT` | a directory whose atServers mean no good, with certificates of the authority in that folder |
//! | `pour HOST:PORT BYTES` | bytes a second, until the last one has come back |

use std::{
    io::{ErrorKind, Read, Write},
    net::{IpAddr, Ipv6Addr, TcpListener, TcpStream, ToSocketAddrs},
    thread,
    time::{Duration, Instant},
};

use super::attacks;
use crate::world::silent::Silent;

pub const INSIDE: &str = "--inside";

pub fn main(words: &[String]) {
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["echo", port] => echo((Ipv6Addr::UNSPECIFIED.into(), port.parse().unwrap()), false),
        ["echo", port, at] => echo((at.parse().unwrap(), port.parse().unwrap()), false),
        ["greet", port, at] => echo((at.parse().unwrap(), port.parse().unwrap()), true),
        ["invent", whom, count] => attacks::invent(whom, count.parse().unwrap()),
        ["record", who, key, text] => attacks::record(who, key, text),
        ["talk", at] => talk(at),
        ["dial", at, within] => dial(at, Duration::from_millis(within.parse().unwrap())),
        ["ping", at, count] => ping(at, count.parse().unwrap()),
        ["pour", at, bytes] => pour(at, bytes.parse().unwrap()),
        ["attack", name, seed, ref told @ ..] => attacks::attack(name, seed, told),
        ["peer", authority, host, port] => peer(authority, host, port.parse().unwrap()),
        _ => panic!("{words:?}"),
    }
}

fn echo(at: (IpAddr, u16), has_words_of_its_own: bool) {
    let listener = TcpListener::bind(at).unwrap();
    println!("ready");
    for mut tcp in listener.incoming().flatten() {
        thread::spawn(move || {
            let _ = tcp.set_nodelay(true);
            if has_words_of_its_own {
                let _ = tcp.write_all(b"it is me\n");
            }
            let _ = std::io::copy(&mut &tcp, &mut &tcp);
        });
    }
}

fn peer(authority: &str, host: &str, port: u16) {
    async_std::task::block_on(async {
        let none = std::collections::HashMap::new();
        let _silent = Silent::start_at(authority.as_ref(), host, port, none).await;
        println!("ready");
        std::future::pending().await
    })
}

fn dial(at: &str, within: Duration) {
    let at = at.to_socket_addrs().unwrap().next().unwrap();
    match TcpStream::connect_timeout(&at, within) {
        Ok(_) => println!("ok"),
        Err(why) if why.kind() == ErrorKind::TimedOut => println!("silence"),
        Err(why) => println!("{:?}", why.kind()),
    }
}

fn talk(at: &str) {
    let tcp = TcpStream::connect(at).unwrap();
    tcp.set_nodelay(true).unwrap();
    let mut writer = tcp.try_clone().unwrap();
    thread::spawn(move || std::io::copy(&mut std::io::stdin(), &mut writer));
    let mut stdout = std::io::stdout();
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = (&tcp).read(&mut buffer) {
        stdout.write_all(&buffer[..length]).unwrap();
        stdout.flush().unwrap();
    }
}

fn ping(at: &str, count: usize) {
    let mut tcp = TcpStream::connect(at).unwrap();
    tcp.set_nodelay(true).unwrap();
    let mut once = || {
        let began = Instant::now();
        tcp.write_all(b".").unwrap();
        tcp.read_exact(&mut [0]).unwrap();
        began.elapsed().as_secs_f64() * 1e3
    };
    let mut all: Vec<_> = (0..count).map(|_| once()).collect();
    all.sort_by(f64::total_cmp);
    println!("{:.2} {:.2} {:.2}", all[0], all[count / 2], all[count - 1]);
}

fn pour(at: &str, bytes: usize) {
    let mut tcp = TcpStream::connect(at).unwrap();
    let mut writer = tcp.try_clone().unwrap();
    let began = Instant::now();
    let writing = thread::spawn(move || writer.write_all(&vec![7; bytes]).unwrap());
    let mut buffer = vec![0; 64 * 1024];
    let mut left = bytes;
    while left > 0 {
        left -= tcp.read(&mut buffer).unwrap();
    }
    writing.join().unwrap();
    println!("{:.0}", bytes as f64 / began.elapsed().as_secs_f64());
}
