//! The client's first three steps, for every kind of session: log in, ask, request.
//!
//! ```text
//!   1 log in            own atServer: one connection for commands, one for what comes back
//!   2 ask at once       daemon: who are you, what can you do?   rendezvous: two ports, please
//!   3 request           signed, with a fresh public key; the daemon starts its bridge and answers
//! ```

use std::{sync::Arc, time::Duration};

use async_std::{future::timeout, task};
use log::{debug, info};

use super::{
    bridge::BridgeError,
    common::{Failure, Progress, classic, exit},
    launch, service,
};
use crate::{
    at::{
        AtSign,
        client::{AtError, Client, Event, Network, Subscription},
        crypto::{KeyPair, PublicKey},
        fault::Code,
        keyfile::AtKeys,
    },
    net::dial::Endpoint,
    np::{
        Message, NAMESPACE,
        ids::{DeviceName, Nonce, SessionId},
        ping::Heartbeat,
        ports::Ports,
        request::AnswerError,
        session::{Awaited, Granted, Offer, Ready, SessionError, Terms},
    },
};

/// Longest wait for the answers to one question, in seconds, unless --timeout says otherwise.
pub const PATIENCE: u64 = 20;
/// An unanswered question is asked once more after this part of the wait: some daemons lose a notification
/// that arrives while they do something else.
const ASK_AGAIN: f64 = 0.3;

/// Whom to meet, and where.
#[derive(Clone, Debug)]
pub struct Whom {
    /// The device's atSign.
    pub to: AtSign,
    /// Which of its devices.
    pub device: DeviceName,
    /// The rendezvous.
    pub via: AtSign,
    /// Longest wait for the answers to one question.
    pub patience: Duration,
}

/// What to ask for.
#[derive(Clone, Copy, Debug)]
pub enum Want<'a> {
    /// The device's sshd; and perhaps under which name.
    Ssh {
        /// Look up the user name that the daemon publishes.
        user_name: bool,
    },
    /// Any port, as the device sees it.
    Tunnel {
        /// What to open there.
        target: &'a Endpoint,
        /// How long the session may stand without a connection.
        timeout: Duration,
    },
}

/// A session that only wants bytes.
#[derive(Debug)]
pub struct Opened {
    /// Where, and with which keys.
    pub ready: Ready,
    /// What the daemon says of itself.
    pub daemon: Heartbeat,
    /// The user name, if it was asked for and is published.
    pub user: Option<String>,
}

impl Whom {
    /// From the words of a command line; the environment's `NOPORTS_VIA` stands in for the rendezvous.
    ///
    /// # Errors
    /// A misuse that names the word.
    pub fn parse(
        to: &str,
        device: Option<&str>,
        via: Option<&str>,
        timeout: u64,
    ) -> Result<Self, Failure> {
        let via = via
            .map(str::to_owned)
            .or_else(|| std::env::var("NOPORTS_VIA").ok());
        let via = via.ok_or_else(|| {
            Failure::misuse("no rendezvous given").hint("--via @rendezvous, such as --via @rv_eu")
        })?;
        let device = device.unwrap_or(DeviceName::DEFAULT).parse();
        Ok(Self {
            to: to.parse()?,
            device: device.map_err(|error| Failure::misuse(format!("{error}")))?,
            via: via.parse()?,
            patience: Duration::from_secs(timeout.clamp(1, 3600)),
        })
    }
}

/// Everything up to a session that only wants bytes.
///
/// # Errors
/// With the exit code of whatever stood in the way.
pub async fn open(
    network: &Network,
    keys: Arc<AtKeys>,
    whom: &Whom,
    want: Want<'_>,
    progress: &mut Progress,
) -> Result<Opened, Failure> {
    // Takes a tenth of a second and longer: it runs while the first questions travel.
    let ephemeral = task::spawn_blocking(KeyPair::generate);
    let offer = Offer::new(
        &keys.atsign,
        &whom.to,
        &whom.device,
        &whom.via,
        SessionId::random(),
        Nonce::random(),
        Terms::default(),
    );
    info!(
        "session={} to={} device={} via={}",
        offer.id(),
        whom.to,
        whom.device,
        whom.via
    );

    progress.begin(format!("logging in as {}", keys.atsign));
    let (at, inbox) = Client::login_and_subscribe(network, keys, &offer.watch()).await?;
    progress.done(format!("logged in as {}", at.atsign()));

    let mut talk = Talk {
        at: &at,
        inbox,
        offer: &offer,
        patience: whom.patience,
    };
    progress.begin(format!("asking {} and {}", whom.to, whom.via));
    progress.classic("Sending daemon feature check request");
    if matches!(want, Want::Ssh { .. }) {
        progress.classic("Resolving remote username for user session");
        progress.classic("Resolving remote username for tunnel session");
    }
    progress.classic("Fetching host and port from srvd");
    let questions = [
        (offer.ping(), Awaited::Heartbeat),
        (offer.ask_ports(), Awaited::Ports),
    ];
    for (message, _) in &questions {
        service::send(&at, message)
            .await
            .map_err(|error| about(error, &message.to))?;
    }
    // While they think: who signs the device's answers, and what is our name there?
    let (user, device_key) = (
        user_name(&at, whom, want).await?,
        device_key(&at, &whom.to).await?,
    );
    let answers = talk
        .wait(&questions)
        .await
        .map_err(|missing| missing.explain(whom))?;
    progress.classic("Received host and port from srvd");
    progress.classic("Waiting for daemon feature check response");
    progress.classic("Received daemon feature check response");
    let [heartbeat, ports] = answers.as_slice() else {
        return Err(Failure::plain("two questions did not get two answers"));
    };
    let heartbeat = Heartbeat::parse(heartbeat).map_err(|why| untrusted(&why))?;
    let ports =
        Ports::parse(ports).map_err(|why| Failure::new(exit::RENDEZVOUS, why.to_string()))?;
    progress.done(format!(
        "{} {} is there; meeting at {}",
        whom.to, whom.device, ports.host
    ));

    let granted = offer
        .clone()
        .granted(ports, Some(&heartbeat))
        .map_err(too_old)?;
    info!("session={} {granted}", offer.id());
    let ephemeral = ephemeral.await?;
    let (twin, daemon) = (granted.twin_keys(), granted.daemon().clone());
    progress.begin("asking for the session");
    progress.classic("Required daemon features are supported");
    progress.classic("Sending session request to the device daemon");
    let request = request(&granted, want, ephemeral.public(), &at.keys().encryption)?;
    service::send(&at, &request).await?;
    progress.classic("Waiting for response from the device daemon");
    let answers = talk
        .wait(&[(request, Awaited::Answer)])
        .await
        .map_err(|missing| missing.explain(whom))?;
    progress.classic("Received response from the device daemon");
    let answer = answers.first().map(String::as_str).unwrap_or_default();
    let ready = granted
        .accepted(answer, &device_key, Some(&ephemeral), &at.keys().encryption)
        .map_err(|why| refused(&why, whom, want))?;
    progress.done(if twin {
        "session open, one key per direction"
    } else {
        "session open; this daemon knows no twin keys, both directions share one"
    });
    Ok(Opened {
        ready,
        daemon,
        user,
    })
}

fn request(
    granted: &Granted,
    want: Want<'_>,
    ephemeral: &PublicKey,
    signer: &KeyPair,
) -> Result<Message, Failure> {
    match want {
        Want::Ssh { .. } => granted.request(Some(ephemeral), signer),
        Want::Tunnel { target, timeout } => {
            let to = (target.host.as_str(), target.port);
            granted.tunnel_request(to, timeout, Some(ephemeral), signer)
        }
    }
    .map_err(too_old)
}

/// Our half of a conversation by notifications.
struct Talk<'a> {
    at: &'a Client,
    inbox: Subscription,
    offer: &'a Offer,
    patience: Duration,
}

/// Why a question has no answer.
enum Missing {
    Silent(Awaited),
    NoPorts(String),
    Connection,
}

impl Talk<'_> {
    /// Waits for one answer to each question, in their order; asks once more what stays unanswered.
    async fn wait(&mut self, questions: &[(Message, Awaited)]) -> Result<Vec<String>, Missing> {
        let mut answers: Vec<Option<String>> = vec![None; questions.len()];
        let first = self.patience.mul_f64(ASK_AGAIN);
        for (attempt, patience) in [first, self.patience - first].into_iter().enumerate() {
            if attempt > 0 {
                for ((message, _), _) in questions
                    .iter()
                    .zip(&answers)
                    .filter(|(_, answer)| answer.is_none())
                {
                    debug!("session={} again={}", self.offer.id(), message.entity);
                    service::send_or_log(self.at, message).await;
                }
            }
            match timeout(patience, self.collect(questions, &mut answers)).await {
                Ok(Ok(())) => return Ok(answers.into_iter().flatten().collect()),
                Ok(Err(missing)) => return Err(missing),
                Err(_) => {}
            }
        }
        let first = answers.iter().position(Option::is_none).unwrap_or_default();
        Err(Missing::Silent(questions[first].1))
    }

    async fn collect(
        &mut self,
        questions: &[(Message, Awaited)],
        answers: &mut [Option<String>],
    ) -> Result<(), Missing> {
        while answers.iter().any(Option::is_none) {
            let note = match self.inbox.next().await.ok_or(Missing::Connection)? {
                Event::Note(note) => note,
                other => {
                    debug!("monitor={other:?}");
                    continue;
                }
            };
            // Only what an awaited sender sent under an awaited key is ever decrypted.
            let Some(kind) = self.offer.recognise(&note.from, note.entity()) else {
                continue;
            };
            let text = match self.at.open(&note).await {
                Ok(text) => text.unwrap_or_default(),
                Err(error) => {
                    debug!(
                        "from={} entity={} error={error:?}",
                        note.from,
                        note.entity()
                    );
                    continue;
                }
            };
            if kind == Awaited::NoPorts {
                return Err(Missing::NoPorts(text));
            }
            if let Some(i) = questions.iter().position(|(_, awaited)| *awaited == kind) {
                answers[i].get_or_insert(text);
            }
        }
        Ok(())
    }
}

impl Missing {
    fn explain(self, whom: &Whom) -> Failure {
        let (to, device, via) = (&whom.to, &whom.device, &whom.via);
        let waited = whom.patience.as_secs();
        match self {
            Self::Silent(Awaited::Ports | Awaited::NoPorts) => {
                Failure::new(exit::RENDEZVOUS, format!("the rendezvous {via} did not answer within {waited} s"))
                    .hint("is it running, and does it serve your atSign? another one: --via")
                    .classic(format!("TimeoutException: Connection timeout to srvd {via} service"))
            }
            Self::Silent(awaited) => {
                Failure::new(exit::DEVICE_SILENT, format!("{device}{to} did not answer within {waited} s")).hint(
                    "is its daemon running under that device name, and is your atSign among its managers?",
                )
                .classic(silence(awaited))
            }
            Self::NoPorts(why) => {
                let why: String = why.chars().filter(|c| !c.is_control()).take(300).collect();
                Failure::new(exit::RENDEZVOUS, format!("the rendezvous {via} refused: {why}"))
            }
            Self::Connection => Failure::new(exit::UNREACHABLE, "the connection to your atServer was lost")
                .hint("check the network and try again"),
        }
    }
}

/// How the classic clients say that a device is silent.
fn silence(awaited: Awaited) -> &'static str {
    match (awaited, classic().map(|voice| voice.name)) {
        (Awaited::Heartbeat, Some("npt")) => "TimeoutException: Ping to NoPorts daemon timed out",
        (Awaited::Heartbeat, _) => "TimeoutException: Daemon feature check timed out",
        _ => "No response from the device daemon",
    }
}

/// An atServer's refusal, told as what it means for this peer.
pub fn about(error: AtError, who: &AtSign) -> Failure {
    let code = match &error {
        AtError::Refused(fault) => fault.code,
        _ => None,
    };
    match code {
        Some(Code::NoAtServer) => Failure::new(exit::UNKNOWN, format!("there is no atSign {who}"))
            .hint("is it spelled right, and is this the right atDirectory (--root)?"),
        Some(Code::Handshake | Code::Blocked) => Failure::new(
            exit::DEVICE_REFUSED,
            format!("{who}'s atServer does not let you in"),
        )
        .hint("its owner may have blocked your atSign, or allowed others only"),
        _ => error.into(),
    }
}

async fn device_key(at: &Client, of: &AtSign) -> Result<PublicKey, Failure> {
    at.public_key(of)
        .await
        .map_err(|error| about(error, of))?
        .ok_or_else(|| {
            Failure::new(exit::UNKNOWN, format!("{of} has no public key yet"))
                .hint("activate it on the device first")
        })
}

/// What the daemon published for us.
async fn user_name(at: &Client, whom: &Whom, want: Want<'_>) -> Result<Option<String>, Failure> {
    if !matches!(want, Want::Ssh { user_name: true }) {
        return Ok(None);
    }
    let entity = format!("username.{}.{NAMESPACE}", whom.device);
    Ok(at.get_shared(&whom.to, &entity).await?)
}

fn too_old(error: SessionError) -> Failure {
    Failure::new(exit::DEVICE_REFUSED, error.to_string()).hint("update the older program")
}

fn untrusted(error: &dyn std::fmt::Display) -> Failure {
    Failure::new(exit::NOT_TRUSTWORTHY, error.to_string())
}

fn refused(error: &AnswerError, whom: &Whom, want: Want<'_>) -> Failure {
    let AnswerError::Refused(why) = error else {
        return untrusted(error);
    };
    refusal(error, why, whom, want).classic("Received error response from the device daemon")
}

fn refusal(error: &AnswerError, why: &str, whom: &Whom, want: Want<'_>) -> Failure {
    let message = error.to_string();
    if launch::is_service_failure(why) {
        Failure::new(exit::SERVICE, message)
            .hint("is sshd running there? the daemon's --sshd-port must be its port")
    } else if ["No permissions for", "is not permitted", "based on POLICY"]
        .iter()
        .any(|words| why.contains(words))
    {
        Failure::new(exit::DEVICE_REFUSED, message)
            .hint("the device asks a policy; whoever runs it can see why: noports policy check")
    } else if why.contains("does not permit") || why.contains("--permit-open") {
        let what = match want {
            Want::Ssh { .. } => String::new(),
            Want::Tunnel { target, .. } => format!(" {target}"),
        };
        Failure::new(exit::DEVICE_REFUSED, message).hint(format!(
            "start the daemon on {} with --permit-open{what}",
            whom.device
        ))
    } else {
        Failure::new(exit::DEVICE_REFUSED, message)
    }
}

/// A bridge that fell, told to the person.
pub fn broken(error: &BridgeError) -> Failure {
    let failure = Failure::new(exit::RENDEZVOUS, error.to_string());
    match error.hint() {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}
