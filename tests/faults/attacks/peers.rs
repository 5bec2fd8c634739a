//! Strangers who live on a server of their own, under any number of names.

use std::{
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use async_std::task;
use noports::{
    at::{
        AtKey, AtSign,
        client::Outgoing,
        crypto::{self, KeyPair},
        directory::{self, Root},
        metadata::Metadata,
        share::{self, SharedKey},
        verb::{Notify, Operation, Subject, Verb},
    },
    np::{
        ids::{Nonce, SessionId},
        policy::{
            AuthCheck,
            rpc::{self, RequestId},
        },
        ports::{Logins, PortsRequest},
    },
    text::endpoint::Endpoint,
};

use super::{
    notes::again,
    wire::{Attacker, Went, Wire},
};
use crate::{
    random::Random,
    site::{NOBODY, PEER, PEER_PORT, POLICY},
    world::{RENDEZVOUS, ports::outgoing},
};

/// Names that introduce themselves at the same time.
const AT_ONCE: usize = 8;

/// A server of his own, where each of his names can prove who it is.
struct Home {
    own: Attacker,
    /// How its names begin.
    illness: &'static str,
    key: KeyPair,
    at: Endpoint,
    /// Where he goes.
    to: Endpoint,
}

impl Home {
    async fn of(own: Attacker, illness: &'static str, whom: &str) -> Went<Self> {
        let peer = Endpoint::parse(
            &format!("{}:{PEER_PORT}", crate::net::full_name(PEER)),
            None,
        )?;
        let directory = Root::Directory(peer);
        let name = format!("@{illness}0").parse()?;
        let at = directory::find(&directory, &own.network.tls, &name).await?;
        let home = Self {
            key: own.keys(NOBODY).encryption.clone(),
            at: at.ok_or("no home")?,
            to: own.address(whom).await?,
            own,
            illness,
        };
        let public = home.key.public().to_string();
        home.put("signing_publickey", &public).await?;
        if illness != "shy" {
            home.put("publickey", &public).await?;
        }
        Ok(home)
    }

    async fn put(&self, key: &str, value: &str) -> Went {
        let mut wire = self.own.open(&self.at, None).await?;
        wire.ask(&format!("put:{key} {value}")).await?;
        Ok(())
    }

    fn name(&self, number: usize) -> Went<AtSign> {
        Ok(format!("@{}{number}", self.illness).parse()?)
    }

    /// A connection on which one of his names has said who it is.
    async fn introduced(&self, who: &AtSign) -> Went<Wire> {
        let mut wire = self.own.open(&self.to, None).await?;
        let reply = wire.ask(&format!("from:{who}")).await?;
        let proof = reply
            .strip_prefix("data:proof:")
            .ok_or_else(|| reply.clone())?;
        let (session, nonce) = proof.split_once(&format!("{who}:")).ok_or("no nonce")?;
        let signature = self.key.sign(nonce.as_bytes())?;
        self.put(&format!("{session}{who}"), &signature).await?;
        wire.send(b"pol\n").await?;
        let mut buffer = [0; 256];
        let length = wire.sip(&mut buffer).await?;
        let reply = String::from_utf8_lossy(&buffer[..length]).into_owned();
        if reply.contains("error") || length == 0 {
            return Err(reply.into());
        }
        Ok(wire)
    }
}

/// The line for a note, sealed or not.
fn line(who: &AtSign, note: &Outgoing, (value, metadata): (String, Metadata)) -> String {
    let notify = Notify {
        id: Some(RequestId::from_random(crypto::random().unwrap_or_default()).to_string()),
        operation: Some(Operation::Update),
        priority: None,
        strategy: None,
        latest_n: None,
        notifier: Some("SYSTEM".to_owned()),
        ttln: Some(note.ttln),
        message_type: true,
        metadata,
        subject: Subject::Key {
            to: None,
            key: AtKey::shared(&note.to, &note.entity, who),
        },
        value: Some(value),
    };
    Verb::Notify(Box::new(notify)).to_string()
}

/// Ports are asked for by a new name each time, whose own server is silent when it is asked for keys.
pub async fn shy_names(own: Attacker) -> Went {
    let home = Home::of(own, "shy", RENDEZVOUS).await?;
    for number in 0.. {
        let who = home.name(number)?;
        let asked = async {
            let mut wire = home.introduced(&who).await?;
            let request = PortsRequest {
                session: SessionId::random(),
                client: who.clone(),
                daemon: "@device".parse()?,
                nonce: Nonce::random(),
                logins: Logins::BOTH,
                socket_key: None,
            };
            let note = outgoing(request.message(&RENDEZVOUS.parse()?, &"dev0".parse()?));
            let metadata = Metadata {
                is_encrypted: Some(true),
                ..Metadata::default()
            };
            wire.ask(&line(&who, &note, ("A".repeat(344), metadata)))
                .await
        };
        match asked.await {
            Ok(reply) => println!("asked {number}: {reply:.20}"),
            Err(why) => eprintln!("{number}: {why}"),
        }
        task::sleep(Duration::from_millis(700)).await;
    }
    Ok(())
}

/// Well-formed questions to a policy, each by another name.
pub async fn many_senders(own: Attacker) -> Went {
    let policy: AtSign = POLICY.parse()?;
    let holder = own.keys(POLICY).encryption.public().clone();
    let home = Home::of(own, "kin", POLICY).await?;
    let key = crypto::new_aes_key()?;
    let shared = SharedKey {
        wrapped: share::wrap(&key, &holder)?,
        key,
        holder,
    };
    let (next, random) = (
        AtomicUsize::new(0),
        std::sync::Mutex::new(Random::new(home.own.seed)),
    );
    again(AT_ONCE, async || {
        let number = next.fetch_add(1, Relaxed);
        let who = home.name(number)?;
        let mut wire = home.introduced(&who).await?;
        let question = AuthCheck {
            client: "@client0".parse()?,
            daemon: who.clone(),
            device: "dev0".parse()?,
            group: "office".parse()?,
        };
        let bytes = random
            .lock()
            .map_or(0, |mut random| random.next())
            .to_le_bytes();
        let note = outgoing(rpc::ask(
            &policy,
            RequestId::from_random(bytes),
            &question,
            None,
        ));
        let sealed = share::seal(&shared, &note.text, Metadata::default())?;
        let reply = wire.ask(&line(&who, &note, sealed)).await?;
        println!("asked {number}: {reply:.20}");
        Ok(())
    })
    .await
}
