//! Strangers at a rendezvous, and managers who mean no good.

use std::{
    io::Write,
    net::Ipv6Addr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use async_std::task;
use noports::{
    at::{AtSign, client::Client, keyfile::AtKeys},
    np::{
        Message,
        ids::{DeviceName, SessionId},
        pairs::Dialer,
        ping,
        policy::{
            AuthCheck,
            rpc::{self, RequestId},
        },
        ports::Logins,
        request::{Meeting, RequestForm, SshRequest, TunnelRequest},
    },
};

use super::{
    notes::rest,
    wire::{Attacker, Went},
};
use crate::{
    net::full_name,
    random::Random,
    site::{NOBODY, POLICY, client, stranger},
    world::{
        RENDEZVOUS,
        ports::{Asker, outgoing},
    },
};

/// Where somebody takes connections and says nothing, at this manager's own host.
const SILENT_PORT: u16 = 6500;
/// Where nobody is, so that nothing comes back.
const NOWHERE: &str = "2001:db8::dead";

/// Ports for a session with somebody whose atServer has this name's illness; a new name each time.
async fn ask_for(own: Attacker, illness: &str, pause: Duration) -> Went {
    let keys = own.keys(NOBODY);
    let asker = Asker::start_with(&own.network, [keys.clone(), keys]).await;
    for n in 0.. {
        let mut request = asker.request(Logins::BOTH);
        request.daemon = format!("@{illness}{n}").parse()?;
        let message = request.message(&RENDEZVOUS.parse()?, &"dev0".parse()?);
        asker.send(message).await;
        println!("asked {n}");
        task::sleep(pause).await;
    }
    Ok(())
}

/// Its atServer takes no connection.
pub async fn tarpit(own: Attacker) -> Went {
    ask_for(own, "tar", Duration::from_secs(1)).await
}

/// Its public key has ten megabytes.
pub async fn big_key(own: Attacker) -> Went {
    ask_for(own, "big", Duration::from_millis(250)).await
}

/// Sessions of one atSign, with as many idle pairs as it gets.
pub async fn idle_pairs(own: Attacker) -> Went {
    let keys = own.keys(NOBODY);
    let mut asker = Asker::start_with(&own.network, [keys.clone(), keys]).await;
    let mut held = Vec::new();
    let dial = |port| std::net::TcpStream::connect((&*full_name("rendezvous"), port));
    for _ in 0..6 {
        let granted = asker.ask(Logins::BOTH).await;
        for number in 0..500 {
            let ends = [
                (Dialer::Client, granted.ports.client),
                (Dialer::Daemon, granted.ports.daemon),
            ];
            for (end, port) in ends {
                let Ok(mut socket) = dial(port) else { continue };
                let _ = socket.write_all(granted.line(end, Some(number), 0).as_bytes());
                held.push(socket);
            }
        }
        println!("sockets {}", held.len());
    }
    rest().await
}

/// Ports that nobody uses, as many as are granted, again and again.
pub async fn unused_grants(own: Attacker) -> Went {
    again_please_by(own, 8, true).await
}

/// Eight strangers, each with one request, said 300 times a second.
pub async fn again_please(own: Attacker) -> Went {
    again_please_by(own, 8, false).await
}

async fn again_please_by(own: Attacker, strangers: usize, is_new: bool) -> Went {
    let mut all = Vec::new();
    for number in 0..strangers {
        let keys = own.keys(&stranger(number));
        all.push(Asker::start_with(&own.network, [keys.clone(), keys]).await);
    }
    let (to, device) = (RENDEZVOUS.parse()?, "dev0".parse()?);
    let first: Vec<_> = all.iter().map(|one| one.request(Logins::BOTH)).collect();
    let tasks = all.into_iter().zip(first).map(|(one, first)| {
        let (to, device) = (AtSign::clone(&to), DeviceName::clone(&device));
        task::spawn(async move {
            for n in 0_usize.. {
                let request = if is_new {
                    one.request(Logins::BOTH)
                } else {
                    first.clone()
                };
                one.send(request.message(&to, &device)).await;
                println!("asked {n}");
            }
        })
    });
    for one in tasks.collect::<Vec<_>>() {
        one.await;
    }
    Ok(())
}

/// Eight strangers who ask a policy whether somebody may use their device.
pub async fn questions(own: Attacker) -> Went {
    let mut tasks = Vec::new();
    for number in 0..8 {
        let who = stranger(number);
        let hand = Hand::login(&own, &who).await?;
        let mut random = Random::new(own.seed + number as u64);
        tasks.push(task::spawn(async move {
            for n in 0_usize.. {
                let question = AuthCheck {
                    client: "@client0".parse()?,
                    daemon: who.parse()?,
                    device: "dev0".parse()?,
                    group: "office".parse()?,
                };
                let id = RequestId::from_random(random.next().to_le_bytes());
                hand.send(rpc::ask(&POLICY.parse()?, id, &question, None))
                    .await?;
                println!("asked {n}");
            }
            Went::Ok(())
        }));
    }
    for task in tasks {
        task.await?;
    }
    Ok(())
}

/// Another manager of the device.
const MANAGER: &str = "@client1";

/// Somebody who sends what he likes.
struct Hand {
    at: Client,
}

impl Hand {
    async fn login(own: &Attacker, who: &str) -> Went<Self> {
        let at = Client::login(&own.network, own.keys(who)).await?;
        Ok(Self { at })
    }

    async fn send(&self, message: Message) -> Went {
        let note = outgoing(message);
        self.at.notify(&note).await?;
        Ok(())
    }

    /// A session at a rendezvous that says nothing.
    async fn ask(&self, host: &str, timeout: Duration) -> Went {
        let request = TunnelRequest {
            meeting: meeting(host),
            target_host: "localhost".to_owned(),
            target_port: 22,
            timeout,
        };
        let key = &self.at.keys().encryption;
        let message = request.message(&"@device".parse()?, &"dev0".parse()?, key)?;
        self.send(message).await
    }
}

/// At a port of this host, in the clear.
fn meeting(host: &str) -> Meeting {
    Meeting {
        session: SessionId::random(),
        host: host.to_owned(),
        port: SILENT_PORT,
        admission: None,
        encryption: None,
        socket_key: None,
        stamp: None,
    }
}

/// Several at once, each as often as it goes; at most so many a second together.
async fn managers(own: Attacker, host: String, rate: u64, timeout: Duration) -> Went {
    let hands = if rate > 20 { 4 } else { 1 };
    let mut tasks = Vec::new();
    for _ in 0..hands {
        let (manager, host) = (Hand::login(&own, MANAGER).await?, host.clone());
        tasks.push(task::spawn(async move {
            let pause = Duration::from_millis(1000 * hands / rate);
            for n in 0_u64.. {
                let began = std::time::Instant::now();
                if let Err(why) = manager.ask(&host, timeout).await {
                    eprintln!("{why}");
                }
                println!("asked {}", n * hands);
                task::sleep(pause.saturating_sub(began.elapsed())).await;
            }
        }));
    }
    for task in tasks {
        task.await;
    }
    Ok(())
}

/// Takes connections, at our own host, and says nothing.
fn silent_rendezvous() -> Went<std::net::TcpListener> {
    Ok(std::net::TcpListener::bind((
        Ipv6Addr::UNSPECIFIED,
        SILENT_PORT,
    ))?)
}

/// 200 sessions a second at a rendezvous that is silent, for a year each.
pub async fn dead_sessions(own: Attacker) -> Went {
    let listener = silent_rendezvous()?;
    std::thread::spawn(move || {
        let mut held = Vec::new();
        held.extend(listener.incoming().flatten());
    });
    managers(
        own,
        full_name(&client(1)),
        200,
        Duration::from_secs(365 * 24 * 3600),
    )
    .await
}

/// 12 a second where nobody is.
pub async fn dead_starts(own: Attacker) -> Went {
    managers(own, NOWHERE.to_owned(), 12, Duration::from_secs(60)).await
}

/// The operator of another manager's atServer puts a key of his own in the place of the manager's, and asks with that.
pub async fn new_key(own: Attacker) -> Went {
    let served = Arc::new(AtomicUsize::new(0));
    let (listener, counted) = (silent_rendezvous()?, served.clone());
    std::thread::spawn(move || {
        let mut held = Vec::new();
        for tcp in listener.incoming().flatten() {
            held.push(tcp);
            counted.fetch_add(1, Relaxed);
        }
    });
    let (here, minute) = (full_name(&client(1)), Duration::from_secs(60));
    // The device knows the manager.
    Hand::login(&own, MANAGER).await?.ask(&here, minute).await?;
    while served.load(Relaxed) == 0 {
        task::sleep(Duration::from_millis(50)).await;
    }
    let (keys, other) = (own.keys(MANAGER), own.keys(NOBODY));
    let public = other.encryption.public().to_string();
    let mut wire = own.login(MANAGER).await?;
    for line in [
        format!("update:public:publickey{MANAGER} {public}"),
        format!("delete:shared_key.device{MANAGER}"),
        format!("delete:@device:shared_key{MANAGER}"),
    ] {
        wire.ask(&line).await?;
    }
    let thief = AtKeys {
        atsign: keys.atsign.clone(),
        pkam: keys.pkam.clone(),
        encryption: other.encryption.clone(),
        self_key: keys.self_key.clone(),
        apkam_symmetric: None,
        enrollment_id: None,
    };
    let thief = Hand {
        at: Client::login(&own.network, Arc::new(thief)).await?,
    };
    let before = served.load(Relaxed);
    loop {
        if let Err(why) = thief.ask(&here, minute).await {
            eprintln!("{why}");
        }
        task::sleep(Duration::from_secs(1)).await;
        println!("served {}", served.load(Relaxed) - before);
    }
}

/// Five ssh sessions a second for which the device makes a key each, and nobody comes.
pub async fn temporary_keys(own: Attacker) -> Went {
    let manager = Hand::login(&own, MANAGER).await?;
    for n in 0.. {
        let request = SshRequest {
            meeting: meeting(NOWHERE),
            form: RequestForm::V5,
        };
        let key = &manager.at.keys().encryption;
        let message = request.message(&"@device".parse()?, &"dev0".parse()?, key)?;
        manager.send(message).await?;
        println!("asked {n}");
        task::sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

/// 500 pings a second.
pub async fn pings(own: Attacker) -> Went {
    let mut tasks = Vec::new();
    for _ in 0..8 {
        let manager = Hand::login(&own, MANAGER).await?;
        tasks.push(task::spawn(async move {
            for n in 0_u64.. {
                let (to, device) = ("@device".parse().unwrap(), "dev0".parse().unwrap());
                let ping = ping::ask(&to, &device);
                let _ = manager.send(ping).await;
                println!("pinged {}", n * 8);
            }
        }));
    }
    for task in tasks {
        task.await;
    }
    Ok(())
}
