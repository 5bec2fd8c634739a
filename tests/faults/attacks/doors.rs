//! Strangers at doors: connections that log in wrongly, late, or never.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use async_std::{net::TcpStream, task};
use noports::{at::crypto::KeyPair, text::endpoint::Endpoint};

use super::{
    notes::{again, rest},
    wire::{Attacker, Went, Wire, dial},
};
use crate::{net, site::NOBODY};

/// Connections made at the same time.
const AT_ONCE: usize = 16;

/// So many connections there, on which this has been said; from the address that each has.
async fn crowd(
    own: &Attacker,
    at: &Endpoint,
    many: usize,
    from: impl Fn(usize) -> Option<IpAddr>,
    word: &str,
) -> Vec<Wire> {
    let mut all = Vec::new();
    for first in (0..many).step_by(AT_ONCE) {
        let each = (first..first + AT_ONCE).map(|n| {
            let (own, at, from, word) = (own.clone(), at.clone(), from(n), word.to_owned());
            task::spawn(async move {
                let mut wire = own.open(&at, from).await?;
                wire.send(word.as_bytes()).await?;
                Went::Ok(wire)
            })
        });
        for one in each.collect::<Vec<_>>() {
            all.extend(one.await.ok());
        }
        println!("made {} of {}", all.len(), first + AT_ONCE);
    }
    all
}

/// 18 addresses, 511 connections each, one word on each.
pub async fn one_word(own: Attacker) -> Went {
    let at = own.address("@client0").await?;
    let from = |n: usize| Some(net::stranger_ipv4((n % 18) as u16).into());
    let _all = crowd(&own, &at, 18 * 511, from, "noop:0\n").await;
    rest().await
}

/// 512 to the directory from the good user's own host, one byte each.
pub async fn one_byte(own: Attacker) -> Went {
    let _all = crowd(&own, &own.directory(), 2_000, |_| None, "@").await;
    rest().await
}

/// Whoever is there proves that he is himself, on a connection to somebody.
async fn known(own: &Attacker, at: &Endpoint, home: &mut Wire, key: &KeyPair) -> Went<Wire> {
    let mut wire = own.open(at, None).await?;
    let reply = wire.ask(&format!("from:{NOBODY}")).await?;
    let proof = reply.strip_prefix("data:proof:").ok_or("no proof asked")?;
    let (session, nonce) = proof.split_once(&format!("{NOBODY}:")).ok_or("no nonce")?;
    let signature = key.sign(nonce.as_bytes())?;
    let line = format!("update:ttl:60000:public:{session}{NOBODY} {signature}");
    home.ask(&line).await?;
    wire.send(b"pol\n").await?;
    let mut buffer = [0; 256];
    let length = wire.sip(&mut buffer).await?;
    let reply = String::from_utf8_lossy(&buffer[..length]).into_owned();
    if reply.contains("error") || length == 0 {
        return Err(reply.into());
    }
    Ok(wire)
}

/// So many connections to the good user's atServer that have proved who they are; this is said on each.
async fn known_crowd(own: &Attacker, many: usize, word: &[u8]) -> Went {
    let at = own.address("@client0").await?;
    let mut home = own.login(NOBODY).await?;
    let key = home
        .ask(&format!("llookup:{NOBODY}:signing_privatekey{NOBODY}"))
        .await?;
    let key = KeyPair::parse(key.strip_prefix("data:").ok_or(key.clone())?)?;
    let mut all = Vec::new();
    for n in 0..many {
        match known(own, &at, &mut home, &key).await {
            Ok(mut wire) => {
                let said = wire.send(word);
                let _ = async_std::future::timeout(Duration::from_secs(5), said).await;
                all.push(wire);
            }
            Err(why) => eprintln!("{n}: {why}"),
        }
        println!("known {} of {}", all.len(), n + 1);
    }
    rest().await
}

/// 2,200 that proved who they are, then nothing.
pub async fn pol_house(own: Attacker) -> Went {
    known_crowd(&own, 2_200, b"").await
}

/// 60 of those, with a line of ten megabytes that does not end.
pub async fn endless_lines(own: Attacker) -> Went {
    known_crowd(&own, 60, &vec![b'x'; 10_239_000]).await
}

/// Wrong logins as the device, from its own address.
pub async fn wrong_logins(own: Attacker) -> Went {
    let at = own.address("@device").await?;
    again(2, async || {
        let mut wire = own.open(&at, None).await?;
        wire.ask("from:@device").await?;
        let reply = wire.ask("pkam:AAAA").await?;
        println!("answer {reply}");
        task::sleep(Duration::from_millis(300)).await;
        Ok(())
    })
    .await
}

/// Wrong logins under made-up names, one behind the other.
pub async fn made_up_logins(own: Attacker) -> Went {
    let at = own.address("@device").await?;
    let said = std::sync::atomic::AtomicUsize::new(0);
    again(10, async || {
        let mut wire = own.open(&at, None).await?;
        loop {
            let next = said.fetch_add(100, std::sync::atomic::Ordering::Relaxed);
            let lines = (next..next + 100).map(|n| format!("from:@a{n}\npkam:x\n"));
            wire.send(lines.collect::<String>().as_bytes()).await?;
            wire.lines(200).await?;
            println!("tried {next}");
        }
    })
    .await
}

/// Before any login: whose atServer is silent is asked for a proof.
pub async fn proofs(own: Attacker) -> Went {
    let at = own.address("@device").await?;
    let next = std::sync::atomic::AtomicUsize::new(0);
    again(260, async || {
        let n = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let mut wire = own.open(&at, None).await?;
        wire.ask(&format!("from:@tar{n}")).await?;
        wire.ask("pol").await?;
        println!("asked {n}");
        Ok(())
    })
    .await
}

/// Another user of the atServer's machine: sockets to the port for its health, nothing said.
pub async fn health_port(_: Attacker) -> Went {
    let mut held = std::collections::VecDeque::new();
    for n in 0_usize.. {
        let socket = TcpStream::connect((Ipv4Addr::LOCALHOST, super::METRICS)).await;
        held.extend(socket.ok());
        held.drain(..held.len().saturating_sub(15_000));
        if n.is_multiple_of(100) {
            println!("dialled {n}");
            task::sleep(Duration::from_millis(20)).await;
        }
    }
    Ok(())
}

/// Silent sockets to both ports of a session, as many as fit.
pub async fn silent_sockets(own: Attacker) -> Went {
    let mut held = std::collections::VecDeque::new();
    let ports: Vec<u16> = own
        .told
        .iter()
        .filter_map(|port| port.parse().ok())
        .collect();
    loop {
        for port in &ports {
            let at = Endpoint {
                host: net::full_name("rendezvous"),
                port: *port,
            };
            held.extend(dial(&at, None).await.ok());
        }
        held.drain(..held.len().saturating_sub(300 * ports.len().max(1)));
        println!("held {}", held.len());
        if held.len() >= 300 * ports.len() {
            task::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// The same, each socket from another /64.
pub async fn many_networks(own: Attacker) -> Went {
    let ports: Vec<u16> = own
        .told
        .iter()
        .filter_map(|port| port.parse().ok())
        .collect();
    let mut held = std::collections::VecDeque::new();
    let mut random = crate::random::Random::new(own.seed);
    for n in 0_usize.. {
        let from: Ipv6Addr = net::stranger_ipv6(random.next() as u16);
        let at = Endpoint {
            host: net::full_name("rendezvous"),
            port: ports[n % ports.len()],
        };
        held.extend(dial(&at, Some(from.into())).await.ok());
        held.drain(..held.len().saturating_sub(4_000));
        if n.is_multiple_of(100) {
            println!("dialled {n}");
        }
    }
    Ok(())
}

/// A line that was seen on the wire, with 399 other numbers.
pub async fn replayed_login(own: Attacker) -> Went {
    let (ports, lines): (Vec<_>, Vec<_>) = own
        .told
        .iter()
        .partition(|told| told.parse::<u16>().is_ok());
    let mut held = Vec::new();
    for line in &lines {
        for number in 0..400 {
            for port in &ports {
                let at = Endpoint {
                    host: net::full_name("rendezvous"),
                    port: port.parse()?,
                };
                let Ok(mut socket) = dial(&at, None).await else {
                    continue;
                };
                let line = renumbered(line, number);
                let _ = futures_lite::AsyncWriteExt::write_all(&mut socket, line.as_bytes()).await;
                held.push(socket);
            }
            println!("said {}", held.len());
        }
    }
    rest().await
}

/// The line with another number; one that has none gets one.
fn renumbered(line: &str, number: usize) -> String {
    let rest = match line.split_once("\"pair\":") {
        Some((before, after)) => {
            let after = after.trim_start_matches(|c: char| c.is_ascii_digit());
            format!("{before}\"pair\":{number}{after}")
        }
        None => line.replacen('{', &format!("{{\"pair\":{number},"), 1),
    };
    format!("{}\n", rest.trim_end())
}
