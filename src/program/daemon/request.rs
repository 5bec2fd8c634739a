//! One request for a session, from its text to its answer.
//!
//! ```text
//!   seen before? ──▶ the same answer again, or silence
//!   read: signature, members ─▶ judge: may it be opened? ─▶ bridge, temporary key ─▶ yes, with keys
//!                                                        └▶ ssh back to the client ─▶ connected
//!   whatever fails ─▶ the reason, in plain text
//! ```

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::{Duration, Instant},
};

use async_std::task;
use futures_lite::future;
use log::{info, warn};

use super::{
    acted::RequestMark,
    budgets::{self, FIRST_WORD},
    known::EarlierRequest,
    state::Daemon,
};
#[cfg(feature = "held")]
use crate::classic::habits::DaemonHabits;
use crate::{
    at::{AtSign, Notification, client::AtError, crypto::PublicKey},
    budget::{Claim, Hold, MustLeave},
    classic::{
        keyring::{TemporaryKey, TemporaryKeyRule},
        reverse::device,
    },
    np::{
        Message,
        envelope::EnvelopeError,
        ids::SessionId,
        permit::Permit,
        request::{self, Meeting, RequestError, RequestForm, SshRequest, Stamp, TunnelRequest},
        reverse::ReverseRequest,
    },
    pipe::cipher::SessionKeys,
    secret::Secret,
    session::{
        bridge::Many,
        launch::{self, BridgeExit, Lasting, LocalAddress, NO_BRIDGE, Order, RunningBridge},
        online,
        pins::PinError,
    },
    text::endpoint::Endpoint,
};

/// How much longer than its client the device keeps a tunnel without connections: the client knows who is
/// about to come, so it is the one to end it.
const AFTER_THE_CLIENT: Duration = Duration::from_secs(10);

/// The words that ask for a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestWord {
    Ssh,
    Tunnel,
    /// `sshd`: a line, signed by nobody.
    Reverse,
}

/// A place among the live sessions, to be left when told so.
struct SessionPlace {
    hold: Hold<AtSign>,
    must_leave: MustLeave,
    claim: Claim<AtSign>,
    is_tunnel: bool,
}

impl SessionPlace {
    /// Until the bridge ends, or has to.
    async fn kept_by(self, bridge: RunningBridge, session: SessionId) -> BridgeExit {
        let (hold, has_spoken) = (&self.hold, &AtomicBool::new(false));
        let leave = async {
            if !self.is_tunnel {
                return future::pending().await;
            }
            task::sleep(FIRST_WORD).await;
            if !has_spoken.load(Relaxed) {
                hold.change(self.claim.clone(), Instant::now());
            }
            self.must_leave.told().await;
            info!("session={session} reason=\"it has not said a word, and others want its place\"");
        };
        let spoken = || {
            has_spoken.store(true, Relaxed);
            hold.change(self.claim.clone().firm(), Instant::now());
        };
        bridge.ended(spoken, leave).await
    }
}

/// A yes: what is sent, and what ends some time after that.
struct Acceptance {
    message: Message,
    key: Option<TemporaryKey>,
}

impl Daemon {
    /// One session request, from somebody whom the policy denies: pass its reason on.
    pub(super) async fn deny(&self, note: Notification, word: RequestWord, why: &str) {
        let from = &note.from;
        let text = self.at.decrypt(&note).await.ok().flatten();
        match text.and_then(|text| claimed_session(word, &text)) {
            Some(session) => {
                info!("refused session={session} from={from} reason={why:?}");
                let answer = request::refuse(session, why, from, &self.options.device);
                online::send_or_log(&self.at, &answer).await;
            }
            None => info!("refused from={from} reason={why:?}"),
        }
    }

    /// One session request, from somebody who may ask: judge it, open the session, answer.
    pub(super) async fn serve(&self, note: Notification, word: RequestWord, permit: &Permit) {
        let from = note.from.clone();
        let text = match self.at.decrypt(&note).await {
            Ok(Some(text)) => text,
            other => return info!("refused from={from} reason={:?}", online::unread(other)),
        };
        let Some(session) = claimed_session(word, &text) else {
            return info!("refused from={from} reason=no_session");
        };
        let seen = self.known().seen(session, &from);
        match seen {
            EarlierRequest::New => {}
            EarlierRequest::InWork => return,
            EarlierRequest::Answered(message) => {
                return online::send_or_log(&self.at, &message).await;
            }
            EarlierRequest::Foreign => {
                return info!("refused session={session} from={from} reason=anothers_session");
            }
        }
        let (answer, key) = match self.open_session(&from, session, &text, word, permit).await {
            Ok(Some(accepted)) => (accepted.message, accepted.key),
            Ok(None) => {
                return info!("ignored session={session} from={from} reason=held_to_its_time");
            }
            Err(why) => {
                info!("refused session={session} from={from} reason={why:?}");
                let no = request::refuse(session, &why, &from, &self.options.device);
                (no, None)
            }
        };
        self.known().answered(session, answer.clone());
        online::send_or_log(&self.at, &answer).await;
        if let Some(key) = key {
            key.answered();
        }
    }

    /// Everything between a request's text and the yes. `Err` is the reason, in words for the client; `None` is
    /// silence.
    async fn open_session(
        &self,
        from: &AtSign,
        session: SessionId,
        text: &str,
        word: RequestWord,
        permit: &Permit,
    ) -> Result<Option<Acceptance>, String> {
        let read = match word {
            RequestWord::Reverse => Err(RequestError::Reverse),
            RequestWord::Ssh => {
                let read =
                    |signer: &PublicKey| SshRequest::parse(text, signer).map(SessionRequest::Ssh);
                self.signed(from, read).await?
            }
            RequestWord::Tunnel => {
                let read = |signer: &PublicKey| {
                    TunnelRequest::parse(text, signer).map(SessionRequest::Tunnel)
                };
                self.signed(from, read).await?
            }
        };
        match read {
            Err(RequestError::Reverse) if self.options.ssh.reverse => {
                let asked = self.read_reverse(from, text, word).await?;
                self.log_in_to(from, session, asked, permit).await.map(Some)
            }
            Err(why) => Err(why.to_string()),
            Ok(asked) => {
                #[cfg(feature = "held")]
                let Some(asked) = asked.read_by(&self.options.habits) else {
                    return Ok(None);
                };
                self.start_session(from, &asked, permit).await.map(Some)
            }
        }
    }

    /// Reads something that its sender has signed.
    async fn signed<T>(
        &self,
        from: &AtSign,
        read: impl Fn(&PublicKey) -> Result<T, RequestError>,
    ) -> Result<Result<T, RequestError>, String> {
        let there = |found: Result<Option<PublicKey>, AtError>| match found {
            Ok(Some(key)) => Ok(key),
            Ok(None) => Err(format!("Signature not verified: {from} has no public key")),
            Err(error) => Err(format!("Signature not verified: {error}")),
        };
        let mut signer = there(self.at.public_key(from).await)?;
        let mut got = read(&signer);
        // The sender may have new keys since we looked.
        if matches!(got, Err(RequestError::Envelope(EnvelopeError::Signature))) {
            signer = there(self.at.public_key_afresh(from).await)?;
            got = read(&signer);
        }
        // Only a key that has signed is remembered; of whom a policy lets in there may be any number.
        if got.is_ok() && self.options.managers.contains(from) {
            let checked = self.pins.check(from, &signer).await;
            checked.map_err(|changed| told(&changed, "this device"))?;
        }
        Ok(got)
    }

    /// May this be opened, by the daemon's list and by the client's? Says what to dial, or why not.
    pub(super) fn judge(
        &self,
        tunnel: Option<&TunnelRequest>,
        permit: &Permit,
    ) -> Result<Endpoint, String> {
        let target = match tunnel {
            None => Endpoint {
                host: "localhost".to_owned(),
                port: self.options.sshd_port,
            },
            Some(request) => {
                let (host, port) = (&request.target_host, request.target_port);
                let host = host.trim_start_matches('[').trim_end_matches(']');
                let target = Endpoint::parse(host, Some(port))
                    .ok()
                    .filter(|target| target.host == host);
                target.ok_or_else(|| format!("{host:?} is not a host"))?
            }
        };
        let lists = [
            (&self.options.permit, "Daemon does not permit", "daemon"),
            (permit, "Client is not permitted", "POLICY"),
        ];
        for (list, ssh, whose) in lists {
            if !list.allows(&target.host, target.port) {
                let words = list.services().join(", ");
                return Err(match tunnel {
                    None => format!("{ssh} connections to {target}"),
                    Some(_) => format!(
                        "Connection to {target} denied based on {whose} --permit-open [{words}]"
                    ),
                });
            }
        }
        Ok(target)
    }

    /// A session at a rendezvous.
    async fn start_session(
        &self,
        from: &AtSign,
        asked: &SessionRequest,
        permit: &Permit,
    ) -> Result<Acceptance, String> {
        let (meeting, target) = (asked.meeting(), self.judge(asked.tunnel(), permit)?);
        let unprotected = meeting.admission.is_none() || meeting.encryption.is_none();
        if self.options.require_protection && unprotected {
            return Err("this device does not do sessions without encryption and login".to_owned());
        }
        let place = self.place(from, asked)?;
        self.act_once(from, meeting.session, meeting.stamp.as_ref())
            .await?;
        let keys = match &meeting.encryption {
            Some(wanted) => {
                let made = SessionKeys::random(wanted.twin_keys);
                Some(made.map_err(|why| why.to_string())?)
            }
            None => None,
        };
        let key = if self.brings_a_key(asked) {
            let made = self.keyring.temporary(from, meeting.session).await;
            Some(made.map_err(|why| format!("{NO_BRIDGE}no temporary ssh key: {why}"))?)
        } else {
            None
        };
        let message = self.acceptance(from, asked, keys.as_ref(), key.as_ref())?;
        info!(
            "session={} from={from} open={target} rendezvous={}:{} {}",
            meeting.session,
            meeting.host,
            meeting.port,
            agreed(asked, keys.as_ref(), key.is_some())
        );
        let starting = self.start_bridge(asked, keys.as_ref(), target, place);
        let (started, ()) = future::zip(starting, self.acted.on_disk()).await;
        started?;
        Ok(Acceptance { message, key })
    }

    /// A place among the live sessions. A tunnel that has not said a word for a while gives way to others; ssh never: its
    /// server ends it when nobody logs in.
    fn place(&self, from: &AtSign, asked: &SessionRequest) -> Result<SessionPlace, String> {
        let total = self.options.max_sessions;
        let most = budgets::sessions_of_one(total);
        let claim = Claim::of(from.clone(), most);
        let firm = claim.clone().firm();
        let taken = self.sessions.take_evicting(firm, Instant::now());
        let (hold, must_leave) = taken.ok_or_else(|| {
            let has = self.sessions.used_by(from);
            format!(
                "too many sessions: {has} are yours, {most} at most, and {total} of all together"
            )
        })?;
        Ok(SessionPlace {
            hold,
            must_leave,
            claim,
            is_tunnel: asked.tunnel().is_some(),
        })
    }

    /// From here on a session is being opened: for each request once. `Err`: it was acted on before, in words for the
    /// client.
    async fn act_once(
        &self,
        from: &AtSign,
        session: SessionId,
        stamp: Option<&Stamp>,
    ) -> Result<(), String> {
        let request = RequestMark::new(from, session);
        let now = online::since_1970();
        self.acted.enter(request, stamp, &self.run, now).await
    }

    /// Whether an answer brings a temporary ssh key along: where nothing but ssh encrypts, unless we are told otherwise.
    fn brings_a_key(&self, asked: &SessionRequest) -> bool {
        let SessionRequest::Ssh(request) = asked else {
            return false;
        };
        if self.is_bare(request) {
            return false;
        }
        let when = self.options.ssh.temporary_keys;
        #[cfg(feature = "held")]
        let when = self.options.habits.temporary_keys(when);
        match when {
            TemporaryKeyRule::Needed => request.meeting.encryption.is_none(),
            TemporaryKeyRule::Always => true,
            TemporaryKeyRule::Never => false,
        }
    }

    fn is_bare(&self, request: &SshRequest) -> bool {
        let told = self.options.ssh.bare_answers;
        #[cfg(feature = "held")]
        let told = told || self.options.habits.bare;
        request.form == RequestForm::V4 && told
    }

    fn acceptance(
        &self,
        to: &AtSign,
        asked: &SessionRequest,
        keys: Option<&SessionKeys>,
        key: Option<&TemporaryKey>,
    ) -> Result<Message, String> {
        let (me, device) = (&self.at.keys().encryption, &self.options.device);
        let answer = match asked {
            SessionRequest::Ssh(request) if self.is_bare(request) => {
                Ok(request::connected(request.meeting.session, to, device))
            }
            SessionRequest::Ssh(request) => {
                request::accept(request, keys, key.map(|key| &key.private), to, device, me)
            }
            SessionRequest::Tunnel(request) => {
                request::accept_tunnel(request, keys, to, device, me)
            }
        };
        answer.map_err(|why| why.to_string())
    }

    /// Starts the session's own process and waits until both its connections stand.
    async fn start_bridge(
        &self,
        asked: &SessionRequest,
        keys: Option<&SessionKeys>,
        target: Endpoint,
        place: SessionPlace,
    ) -> Result<(), String> {
        let meeting = asked.meeting();
        let far = meeting.far_end(keys, &self.at.keys().encryption);
        let order = Order {
            local: LocalAddress::Service(&target),
            far: &far.map_err(|why| why.to_string())?,
            many: asked.lasting(),
        };
        let bridge = launch::start(&self.options.program, &order)
            .await
            .map_err(|why| why.refusal())?;
        let session = meeting.session;
        task::spawn(async move {
            let BridgeExit { how, why } = place.kept_by(bridge, session).await;
            match why {
                Some(report) => warn!("session={session} ended={how} reason={:?}", report.why),
                None => info!("session={session} ended={how}"),
            }
        });
        Ok(())
    }

    /// A reverse request in either form, and its key.
    async fn read_reverse(
        &self,
        from: &AtSign,
        text: &str,
        word: RequestWord,
    ) -> Result<(ReverseRequest, Secret<String>), String> {
        if word == RequestWord::Ssh {
            let read = |signer: &PublicKey| ReverseRequest::parse_signed(text, signer);
            return self
                .signed(from, read)
                .await?
                .map_err(|why| why.to_string());
        }
        let request = ReverseRequest::parse(text).map_err(|why| why.to_string())?;
        let slot = self.slots().take(from, Instant::now());
        match device::key_of(slot).await {
            Some(key) => Ok((request, key)),
            None => Err("Failed to authenticate: no private key has come".to_owned()),
        }
    }

    /// A session in which we log in to the client.
    async fn log_in_to(
        &self,
        from: &AtSign,
        session: SessionId,
        (request, key): (ReverseRequest, Secret<String>),
        permit: &Permit,
    ) -> Result<Acceptance, String> {
        let target = self.judge(None, permit)?;
        self.act_once(from, session, None).await?;
        info!(
            "session={session} from={from} open={target} back_to={}:{} generation=3 login=none encryption=none \
             temporary_key=no",
            request.host, request.port
        );
        device::log_in(&request, session, &key, target.port).await?;
        Ok(Acceptance {
            message: request::connected(session, from, &self.options.device),
            key: None,
        })
    }
}

/// A key that changed, in words for the client and for the log.
fn told(why: &PinError, whose: &str) -> String {
    let hint = why.hint();
    match why {
        PinError::Changed {
            who, known, now, ..
        } => {
            warn!("key_of={who} fingerprint={now} known={known} refused=yes hint={hint:?}");
        }
        PinError::Unreadable(reason) => warn!("keys_of_others=unreadable reason={reason:?}"),
    }
    format!("{why}; at {whose}, {hint}")
}

/// The session a request claims. Lines of before 2.0 have none, and get one that nobody asks for.
fn claimed_session(word: RequestWord, text: &str) -> Option<SessionId> {
    match word {
        RequestWord::Ssh | RequestWord::Tunnel => request::claimed_session(text),
        RequestWord::Reverse => match ReverseRequest::parse(text) {
            Ok(request) => Some(request.session.unwrap_or_else(SessionId::random)),
            // Some other word of it may be wrong, and then its sender hears so.
            Err(_) => text.trim().rsplit(' ').next()?.parse().ok(),
        },
    }
}

/// What a session has, as fields for the log.
fn agreed(asked: &SessionRequest, keys: Option<&SessionKeys>, key: bool) -> String {
    let generation = match asked {
        SessionRequest::Ssh(request) if request.form == RequestForm::V4 => 4,
        _ => 5,
    };
    let login = if asked.meeting().admission.is_some() {
        "yes"
    } else {
        "none"
    };
    let encryption = match keys.map(SessionKeys::are_twin) {
        None => "none",
        Some(false) => "single",
        Some(true) => "twin",
    };
    let key = if key { "yes" } else { "no" };
    format!("generation={generation} login={login} encryption={encryption} temporary_key={key}")
}

/// What a client may ask for, at a rendezvous.
enum SessionRequest {
    Ssh(SshRequest),
    Tunnel(TunnelRequest),
}

impl SessionRequest {
    /// What a daemon with these habits makes of it; `None` when it takes no notice.
    #[cfg(feature = "held")]
    fn read_by(mut self, habits: &DaemonHabits) -> Option<Self> {
        let noticed = match &mut self {
            Self::Ssh(request) => habits.read_ssh(request),
            Self::Tunnel(request) => habits.read_tunnel(request),
        };
        noticed.then_some(self)
    }

    fn meeting(&self) -> &Meeting {
        match self {
            Self::Ssh(request) => &request.meeting,
            Self::Tunnel(request) => &request.meeting,
        }
    }

    fn tunnel(&self) -> Option<&TunnelRequest> {
        match self {
            Self::Ssh(_) => None,
            Self::Tunnel(request) => Some(request),
        }
    }

    fn lasting(&self) -> Option<Lasting> {
        // Clients that sign a time say their first word at once; others when somebody comes.
        let first_word = self.meeting().stamp.as_ref().map(|_| FIRST_WORD);
        self.tunnel().map(|request| Lasting {
            idle: request.timeout + AFTER_THE_CLIENT,
            talk: Many {
                first_word,
                ..Many::default()
            },
        })
    }
}
