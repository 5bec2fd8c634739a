//! The client's first three steps, for every kind of session: log in, ask, request.
//!
//! ```text
//!   1 log in            own atServer: one connection for commands, one for what comes back
//!   2 ask at once       daemon: who are you, what can you do?   rendezvous: two ports, please
//!   3 request           signed, with a fresh public key; the daemon starts its bridge and answers
//! ```

use std::{sync::Arc, time::Duration};

use async_std::{
    future::timeout,
    task::{self, JoinHandle},
};
use log::{info, warn};

use super::online;
use crate::{
    at::{
        AtSign,
        client::{AtError, Client, Network, Timing},
        crypto::{CryptoError, KeyPair, PublicKey},
        keyfile::AtKeys,
        pins::{FirstSight, Pins},
    },
    classic::generation,
    cli::{self, Failure, Progress, exit},
    np::{
        MAX_CLIENT_LINE, Message, NAMESPACE,
        agreement::Agreement,
        envelope::EnvelopeError,
        ids::{DeviceName, Nonce, SessionId},
        permit::Permit,
        ping::{self, Heartbeat},
        ports::Ports,
        proof::SocketKey,
        request::{self, AnswerError, ClientKeys},
        session::{Awaited, Generation, Granted, Offer, Ready},
        sshkey::{KeyFate, PublicKeyLine},
    },
    pipe::keys::TransportKeys,
    secret::Secret,
    sys::paths,
    text::endpoint::Endpoint,
};

use explain::{RefusedRequest, refused, too_old, untrusted};
pub use explain::{about, broken, broken_off};
use talk::{Question, Talk};
pub use wanted::{
    Details, LEAST_PATIENCE, MOST_PATIENCE, PATIENCE, Requirement, Want, Whom, device_at,
};

mod explain;
mod refusals;
mod talk;
mod wanted;

/// A session that only wants bytes.
#[derive(Debug)]
pub struct OpenSession {
    /// Where, and with which keys.
    pub ready: Ready,
    /// What the daemon says of itself.
    pub daemon: Heartbeat,
    /// Its id.
    pub session: SessionId,
}

/// Everything up to a session that only wants bytes.
///
/// # Errors
/// With the exit code of whatever stood in the way.
pub async fn open_session(
    network: &Network,
    keys: Arc<AtKeys>,
    whom: &Whom,
    want: Want<'_>,
    progress: &mut Progress,
) -> Result<OpenSession, Failure> {
    let prepared = prepare(network, keys, whom, want, progress).await?;
    prepared.request(want, progress).await
}

/// ssh says nothing while its ProxyCommand has no connection: whoever waits for it is told for whom.
pub async fn tell_if_slow(program: &'static str, whom: Whom) {
    task::sleep(SLOW).await;
    let (device, to) = (&whom.device, &whom.to);
    cli::print_err(&format!(
        "noports {program}: still waiting for {device}{to}"
    ));
}

/// How long a daemon may take to say what it made of a key; one of an earlier version says nothing.
const KEY_FATE: Duration = Duration::from_secs(8);
/// After this time.
const SLOW: Duration = Duration::from_secs(2);

/// Steps 1 and 2: we are logged in, the daemon has said what it can do, the rendezvous has two ports.
pub struct Prepared {
    talk: Talk,
    whom: Whom,
    granted: Granted,
    device_key: PublicKey,
    pins: Pins,
    ephemeral: Option<JoinHandle<Result<KeyPair, CryptoError>>>,
    /// Whether the daemon says that it sends records. Nobody has signed that.
    says_records: bool,
    /// What the daemon says of itself, if it says anything.
    pub heartbeat: Option<Heartbeat>,
    /// The user name, if it was asked for and is published.
    pub user: Option<String>,
}

/// Logs in, and asks daemon and rendezvous at once.
///
/// # Errors
/// With the exit code of whatever stood in the way.
pub async fn prepare(
    network: &Network,
    keys: Arc<AtKeys>,
    whom: &Whom,
    want: Want<'_>,
    progress: &mut Progress,
) -> Result<Prepared, Failure> {
    let terms = whom.terms;
    let pins = Pins::new(paths::memory(), Vec::new());
    // Takes a tenth of a second and longer: it runs while the first questions travel, unless it will not be needed.
    let had_records = pins
        .note(&whom.to, Vec::new())
        .await
        .contains(&records(whom));
    let ephemeral =
        (terms.encrypt && !had_records).then(|| task::spawn_blocking(KeyPair::generate));
    let (me, id, nonce) = (&keys.atsign, SessionId::random(), Nonce::random());
    let offer = Offer::new(me, &whom.to, &whom.device, &whom.via, id, nonce, terms);
    let offer =
        offer.with_socket_key(SocketKey::random().map_err(|why| Failure::plain(why.to_string()))?);
    let (to, device, via) = (&whom.to, &whom.device, &whom.via);
    info!("session={id} to={to} device={device} via={via}");

    let mut talk = log_in(network, keys, offer, whom, progress).await?;
    talk.at.heed(pins.clone(), Some(via));
    if device.as_str() == DeviceName::DEFAULT {
        progress.note(format!("no device is named: asking for {device}{to}"));
    }
    progress.begin(format!("asking {to} and {via}"));
    let details = want.details();
    let about_user: &[&str] = match want {
        Want::Ssh(_) => &[
            "Resolving remote username for user session",
            "Resolving remote username for tunnel session",
        ],
        Want::Tunnel { .. } => &[],
    };
    progress.classic("Sending daemon feature check request");
    about_user.iter().for_each(|step| progress.classic(step));
    progress.classic("Fetching host and port from srvd");
    let questions = ask_both(&talk, terms.need_heartbeat() || details.features).await?;
    // While they think: who signs the device's answers, and what is our name there?
    let user = user_name(&talk.at, whom, details, progress).await?;
    let device_key = device_key(talk.at.public_key(to).await, to, &pins).await?;
    if let Ok(Some(key)) = talk.at.public_key(via).await
        && let Err(changed) = pins.check(via, &key, FirstSight::Remember).await
    {
        progress.note(&changed);
    }
    let answers = talk.wait(&questions).await;
    let answers = answers.map_err(|missing| missing.explain(whom, want))?;
    let (heartbeat, ports) = read(&answers, progress)?;
    can_no_less(&pins, whom, heartbeat.as_ref(), &ports).await?;
    let says_records = heartbeat.as_ref().is_some_and(|said| said.records);
    // What it said, not what a client of another time makes of it, is what it can do.
    #[cfg(feature = "held")]
    let heartbeat = heartbeat.map(|said| whom.habits.hear(said));
    progress.done(match &heartbeat {
        Some(_) => format!("{to} {device} answered; meeting at {}", ports.host),
        None => format!("meeting at {}", ports.host),
    });
    talk.offer = in_its_words(talk.offer, heartbeat.as_ref())?;
    let granted = talk.offer.clone().granted(ports, heartbeat.as_ref());
    let granted = granted
        .map_err(|error| too_old(error, heartbeat.as_ref()))?
        .signed_at(online::since_1970());
    let version = &granted.daemon().version;
    info!("session={id} {granted} daemon_version={version}");
    Ok(Prepared {
        talk,
        whom: whom.clone(),
        granted,
        device_key,
        pins,
        ephemeral,
        says_records,
        heartbeat,
        user,
    })
}

/// Step 1.
async fn log_in(
    network: &Network,
    keys: Arc<AtKeys>,
    offer: Offer,
    whom: &Whom,
    progress: &mut Progress,
) -> Result<Talk, Failure> {
    progress.begin(format!("logging in as {}", keys.atsign));
    let (at, inbox) = Client::login_and_subscribe(
        network,
        keys,
        &offer.watch(),
        MAX_CLIENT_LINE,
        Timing::default(),
    )
    .await?;
    progress.done(format!("logged in as {}", at.atsign()));
    Ok(Talk {
        at,
        inbox,
        offer,
        patience: whom.patience,
        runs: Vec::new(),
    })
}

/// Step 2: the questions to daemon and rendezvous, sent.
async fn ask_both(talk: &Talk, need_heartbeat: bool) -> Result<[Question; 2], Failure> {
    let mut ping = Question::new(talk.offer.ping(), Awaited::Heartbeat)
        .again(ping::AGAIN.map(Duration::from_secs));
    ping.needed = need_heartbeat;
    // A second pair of ports costs the rendezvous half a minute of waiting, and nobody a session.
    let ports = Question::new(talk.offer.ask_ports(), Awaited::Ports).again([talk.later()]);
    let questions = [ping, ports];
    for message in questions.iter().flat_map(|question| &question.messages) {
        let sent = online::send(&talk.at, message).await;
        sent.map_err(|error| about(error, &message.to))?;
    }
    Ok(questions)
}

/// What daemon and rendezvous have answered.
fn read(
    answers: &[Option<String>],
    progress: &Progress,
) -> Result<(Option<Heartbeat>, Ports), Failure> {
    progress.classic("Received host and port from srvd");
    progress.classic("Waiting for daemon feature check response");
    progress.classic("Received daemon feature check response");
    let [heartbeat, Some(ports)] = answers else {
        return Err(Failure::plain("two questions did not get two answers"));
    };
    let heartbeat = heartbeat.as_deref().map(Heartbeat::parse).transpose();
    let heartbeat = heartbeat.map_err(|why| untrusted(&why))?;
    let ports =
        Ports::parse(ports).map_err(|why| Failure::new(exit::RENDEZVOUS, why.to_string()))?;
    Ok((heartbeat, ports))
}

/// Where no protection is asked for, the few daemons that need other words are spoken to in theirs.
fn in_its_words(offer: Offer, daemon: Option<&Heartbeat>) -> Result<Offer, Failure> {
    let terms = offer.terms();
    let version = daemon.map_or("", |daemon| daemon.version.as_str());
    let protected = terms.encrypt || terms.admit_client || terms.admit_device;
    match generation::words_of(version) {
        _ if protected || terms.generation != Generation::V5 => Ok(offer),
        None => Ok(offer),
        Some(Generation::V3) => Err(Failure::new(
            exit::DEVICE_REFUSED,
            "this daemon is so old that the device must log in to you",
        )
        .hint("update it; or use --legacy-daemon, with an sshd running here")),
        Some(words) => Ok(offer.in_words_of(words)),
    }
}

impl Prepared {
    /// The session's id.
    pub fn session(&self) -> SessionId {
        self.talk.offer.id()
    }

    /// Asks the daemon to let an ssh key in for good. What it made of it, if it says so: ours does.
    ///
    /// # Errors
    /// When it does not say that it does that.
    pub async fn send_key(&mut self, key: &PublicKeyLine) -> Result<Option<KeyFate>, Failure> {
        let takes = |daemon: &Heartbeat| daemon.features.public_keys;
        if !self.heartbeat.as_ref().is_some_and(takes) {
            let who = format!("{}{}", self.whom.device, self.whom.to);
            let why = format!("the daemon of {who} does not accept ssh public keys");
            return Err(Failure::new(exit::DEVICE_REFUSED, why)
                .hint(
                    "add the key to authorized_keys there, or start its daemon with --accept-keys",
                )
                .classic("This device daemon does not accept public keys sent by client"));
        }
        let message = key.message(&self.whom.to, &self.whom.device);
        online::send(&self.talk.at, &message).await?;
        if !self.heartbeat.as_ref().is_some_and(Heartbeat::is_ours) {
            return Ok(None);
        }
        let told = async {
            loop {
                let question = Question::new(message.clone(), Awaited::KeyFate);
                let answers = self.talk.wait(&[question]).await.ok()?;
                if let Some(fate) = answers.iter().flatten().find_map(|text| key.fate(text)) {
                    return Some(fate);
                }
            }
        };
        Ok(timeout(KEY_FATE, told).await.unwrap_or_default())
    }

    /// Step 3: the request, and the daemon's yes.
    ///
    /// # Errors
    /// With the exit code of whatever stood in the way.
    pub async fn request(
        mut self,
        want: Want<'_>,
        progress: &mut Progress,
    ) -> Result<OpenSession, Failure> {
        let mut keys = self.fresh_keys().await?;
        self.is_listed(want)?;
        progress.begin("asking for the session");
        progress.classic("Required daemon features are supported");
        progress.classic("Sending session request to the device daemon");
        let signer = &self.talk.at.keys().encryption;
        let message = self.words(want, keys.as_ref(), signer)?;
        let request_text = message.text.clone();
        online::send(&self.talk.at, &message).await?;
        progress.classic("Waiting for response from the device daemon");
        let mut question = Question::new(message, Awaited::Answer);
        // Daemons of others start a second bridge for a second copy, and the first one's sockets are joined with it.
        if self.heartbeat.as_ref().is_some_and(Heartbeat::is_ours) {
            question = question.again([self.talk.later()]);
        }
        let answer = self.answer(question, want).await?;
        progress.classic("Received response from the device daemon");
        let signer = &self.talk.at.keys().encryption;
        let daemon = self.granted.daemon().clone();
        let request = refused_request(&self.talk, &self.whom, self.heartbeat.as_ref(), want);
        let mut accept = |key: &PublicKey| {
            let granted = self.granted.clone();
            granted.accepted((&request_text, &answer), key, &mut keys, signer)
        };
        let mut ready = accept(&self.device_key);
        // The device may have new keys since we looked, or our atServer's copy may be an old one.
        if matches!(ready, Err(AnswerError::Envelope(EnvelopeError::Signature))) {
            let (at, to) = (&self.talk.at, &self.whom.to);
            let key = device_key(at.public_key_afresh(to, to).await, to, &self.pins);
            ready = accept(&key.await?);
        }
        let ready = ready.map_err(|why| refused(&why, &request))?;
        let (to, device) = (&self.whom.to, &self.whom.device);
        if ready.takes_shares && !self.says_records {
            return Err(untrusted(&format!(
                "{device}{to} can authenticate what passes the rendezvous, and somebody has taken that out of its answer to our ping"
            )));
        }
        progress.done(match &ready.far.keys {
            Some(TransportKeys::Records(_)) => {
                self.pins.note(to, vec![records(&self.whom)]).await;
                "session open, authenticated end to end"
            }
            Some(TransportKeys::Stream(keys)) if keys.are_twin() => {
                "session open, one key per direction"
            }
            Some(TransportKeys::Stream(_)) => {
                "session open, one key for both directions (the daemon is older than twin keys)"
            }
            None => "session open, without end-to-end encryption",
        });
        let session = self.talk.offer.id();
        Ok(OpenSession {
            ready,
            daemon,
            session,
        })
    }

    /// Our part of the session's keys, of the kind that the daemon takes.
    async fn fresh_keys(&mut self) -> Result<Option<ClientKeys>, Failure> {
        if !self.granted.terms().encrypt {
            return Ok(None);
        }
        if self.granted.records() {
            let agreement = Agreement::new().map_err(|why| Failure::plain(why.to_string()))?;
            return Ok(Some(ClientKeys::Shares(Box::new(agreement))));
        }
        let made = match self.ephemeral.take() {
            Some(made) => made.await?,
            None => task::spawn_blocking(KeyPair::generate).await?,
        };
        Ok(Some(ClientKeys::Rsa(Box::new(made))))
    }

    /// Other daemons may say nothing at all to what they do not permit, or only late. Ours asks its policy, too.
    fn is_listed(&self, want: Want<'_>) -> Result<(), Failure> {
        let (Want::Tunnel { target, .. }, Some(said)) = (want, &self.heartbeat) else {
            return Ok(());
        };
        let list = said.services.join(",").parse::<Permit>();
        let denies = list.is_ok_and(|list| !list.allows(&target.host, target.port));
        if said.is_ours() || said.services.is_empty() || !denies {
            return Ok(());
        }
        let why = AnswerError::Refused(format!("Daemon does not permit connections to {target}"));
        let request = refused_request(&self.talk, &self.whom, Some(said), want);
        Err(refused(&why, &request))
    }

    fn words(
        &self,
        want: Want<'_>,
        keys: Option<&ClientKeys>,
        signer: &KeyPair,
    ) -> Result<Message, Failure> {
        let granted = &self.granted;
        match want {
            Want::Ssh(_) => granted.request(keys, signer),
            Want::Tunnel { target, timeout } => {
                let to = (target.host.as_str(), target.port);
                granted.tunnel_request(to, timeout, keys, signer)
            }
        }
        .map_err(|error| too_old(error, self.heartbeat.as_ref()))
    }

    /// Where we, and our own sshd, are met by a device that logs in to us.
    pub fn our_end(&self) -> Endpoint {
        self.granted.ports().at_client()
    }

    /// The other way round: the device is to log in here as `user` with `key`, and to lead our port `forward` to
    /// its sshd. Returns when it has.
    ///
    /// # Errors
    /// When it refuses, or says nothing.
    pub async fn reverse(
        &mut self,
        forward: u16,
        user: &str,
        key: &Secret<String>,
    ) -> Result<(), Failure> {
        let messages = self.granted.reverse_requests(forward, user, key);
        for message in &messages {
            online::send(&self.talk.at, message).await?;
        }
        let want = Want::Ssh(Details::default());
        // Asked again, it would log in twice.
        let question = Question {
            messages: Vec::new(),
            awaited: Awaited::Answer,
            needed: true,
            again: Vec::new(),
        };
        let answer = self.answer(question, want).await?;
        let id = self.session();
        let read = request::read_answer(&answer, id, &self.device_key, None);
        let request = refused_request(&self.talk, &self.whom, self.heartbeat.as_ref(), want);
        read.map(drop).map_err(|why| refused(&why, &request))
    }

    async fn answer(&mut self, question: Question, want: Want<'_>) -> Result<String, Failure> {
        let answers = self.talk.wait(&[question]).await;
        let answers = answers.map_err(|missing| missing.explain(&self.whom, want))?;
        Ok(answers.into_iter().flatten().next().unwrap_or_default())
    }
}

fn refused_request<'a>(
    talk: &'a Talk,
    whom: &'a Whom,
    heartbeat: Option<&'a Heartbeat>,
    want: Want<'a>,
) -> RefusedRequest<'a> {
    let services = heartbeat.map(|said| said.services.as_slice());
    RefusedRequest {
        client: &talk.at.keys().atsign,
        whom,
        want,
        services: services.filter(|list| !list.is_empty()),
    }
}

async fn device_key(
    found: Result<Option<PublicKey>, AtError>,
    of: &AtSign,
    pins: &Pins,
) -> Result<PublicKey, Failure> {
    let key = found.map_err(|error| about(error, of))?.ok_or_else(|| {
        Failure::new(exit::UNKNOWN, format!("{of} has no public key yet")).hint(format!(
            "activate it on the device first: noports activate {of}"
        ))
    })?;
    let known = pins.check(of, &key, FirstSight::Remember).await;
    known.map_err(AtError::from)?;
    Ok(key)
}

/// What they say they can do is signed by nobody. Whoever could do more before is not believed that it can no longer.
async fn can_no_less(
    pins: &Pins,
    whom: &Whom,
    heartbeat: Option<&Heartbeat>,
    ports: &Ports,
) -> Result<(), Failure> {
    let (to, device, via) = (&whom.to, &whom.device, &whom.via);
    let takes_proofs = ports.nonce.as_ref().is_some_and(Nonce::takes_proofs);
    if lost(pins, via, "proofs".to_owned(), takes_proofs).await {
        warn!(
            "{via} could prove sockets before, and does no longer; if an older program runs there: noports trust {via}"
        );
    }
    let Some(said) = heartbeat else { return Ok(()) };
    let twin = format!("twin-keys={device}");
    if whom.terms.encrypt && lost(pins, to, twin, said.features.twin_keys).await {
        let why = format!(
            "{device}{to} could encrypt with one key per direction before, and says that it cannot"
        );
        return Err(untrusted(&why).hint(format!(
            "if an older program runs there: noports trust {to}"
        )));
    }
    let had_records = pins.note(to, Vec::new()).await.contains(&records(whom));
    if whom.terms.encrypt && had_records && !said.records {
        let why = format!(
            "{device}{to} could authenticate what passes the rendezvous before, and says that it cannot"
        );
        return Err(untrusted(&why).hint(format!(
            "if an older program runs there: noports trust {to}"
        )));
    }
    let time = format!("signed-time={device}");
    if lost(pins, to, time, said.run.is_some()).await {
        warn!(
            "{device}{to} could tell old requests by their time before, and does no longer; if an older program runs there: \
             noports trust {to}"
        );
    }
    Ok(())
}

/// A device that has sent records.
fn records(whom: &Whom) -> String {
    format!("records={}", whom.device)
}

/// Whether that peer could do this before, and cannot any more.
async fn lost(pins: &Pins, who: &AtSign, what: String, can: bool) -> bool {
    let new = can.then(|| what.clone());
    let before = pins.note(who, new.into_iter().collect()).await;
    !can && before.contains(&what)
}

/// What the daemon published for us. What is for other keys of ours is no reason to stop: asked, the device tells more.
async fn user_name(
    at: &Client,
    whom: &Whom,
    details: Details,
    progress: &Progress,
) -> Result<Option<String>, Failure> {
    if !details.user_name {
        return Ok(None);
    }
    let (to, device) = (&whom.to, &whom.device);
    let entity = format!("username.{device}.{NAMESPACE}");
    match at.get_shared(to, &entity).await {
        Err(AtError::Crypto(_)) => {
            let me = at.atsign();
            progress.note(format!(
                "the user name that {to} keeps for {me} ({entity}) is not for these keys of {me}: ssh takes its own \
                 (--user NAME)"
            ));
            Ok(None)
        }
        found => Ok(found?),
    }
}
