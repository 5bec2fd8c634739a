//! One request for a session, from its text to its answer.
//!
//! ```text
//!   seen before? ──▶ the same answer again, or silence
//!   read: signature, members ─▶ judge: may it be opened? ─▶ bridge, temporary key ─▶ yes, with keys
//!                                                        └▶ ssh back to the client ─▶ connected
//!   whatever fails ─▶ the reason, in plain text
//! ```

use std::time::{Duration, Instant};

use async_std::task;
use futures_lite::future;
use log::{info, warn};

use super::{
    acted::RequestMark, budgets::FIRST_WORD, known::EarlierRequest, live::SessionPlace,
    state::Daemon,
};
#[cfg(feature = "held")]
use crate::classic::habits::DaemonHabits;
use crate::{
    at::{
        AtSign, Notification,
        client::AtError,
        crypto::PublicKey,
        pins::{self, FirstSight, PinError},
    },
    classic::{
        keyring::{TemporaryKey, TemporaryKeyRule},
        reverse::device,
    },
    np::{
        Message,
        envelope::EnvelopeError,
        ids::SessionId,
        permit::Permit,
        request::{
            self, Accepted, DeviceKeys, Encryption, Meeting, Parties, RequestError, RequestForm,
            SshRequest, Stamp, TunnelRequest,
        },
        reverse::ReverseRequest,
    },
    secret::Secret,
    session::{
        bridge::Many,
        ignored,
        launch::{self, Lasting, LocalAddress, NO_BRIDGE, Order},
        online,
    },
    text::{endpoint::Endpoint, host::canonical},
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
                ignored::refused(from, format_args!("session={session} reason={why:?}"));
                let answer = request::refuse(session, why, from, &self.options.device);
                self.answer(session, &answer).await;
            }
            None => ignored::refused(from, format_args!("reason={why:?}")),
        }
    }

    /// One session request, from somebody who may ask: judge it, open the session, answer.
    pub(super) async fn serve(&self, note: Notification, word: RequestWord, permit: &Permit) {
        let from = note.from.clone();
        // Whoever may ask may ask too often as well.
        let refused = |about: String| ignored::refused(&from, about);
        let text = match self.at.decrypt(&note).await {
            Ok(Some(text)) => text,
            other => return refused(format!("reason={:?}", online::unread(other))),
        };
        let Some(session) = claimed_session(word, &text) else {
            return refused("reason=no_session".to_owned());
        };
        let seen = self.known().seen(session, &from);
        match seen {
            EarlierRequest::New => {}
            EarlierRequest::InWork => return,
            EarlierRequest::Answered(message) => {
                return self.answer(session, &message).await;
            }
            EarlierRequest::Foreign => {
                return refused(format!("session={session} reason=anothers_session"));
            }
        }
        let (answer, key) = match self.open_session(&from, session, &text, word, permit).await {
            Ok(Some(accepted)) => (accepted.message, accepted.key),
            Ok(None) => return,
            Err(why) => {
                refused(format!("session={session} reason={why:?}"));
                let no = request::refuse(session, &why, &from, &self.options.device);
                (no, None)
            }
        };
        self.known().answered(session, answer.clone());
        self.answer(session, &answer).await;
        if let Some(key) = key {
            key.answered();
        }
    }

    /// Whose key is another one than before is told that, and nothing else.
    async fn answer(&self, session: SessionId, answer: &Message) {
        let refusal = |changed: &PinError| {
            let why = told(changed, "this device");
            request::refuse(session, &why, &answer.to, &self.options.device)
        };
        online::send_or_refuse(&self.at, answer, refusal).await;
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
                self.signed(from, read, |_| self.first_sight(from)).await?
            }
            RequestWord::Tunnel => {
                let read = |signer: &PublicKey| {
                    TunnelRequest::parse(text, signer).map(SessionRequest::Tunnel)
                };
                let first = |asked: &SessionRequest| match asked.vouches_for() {
                    // Whose word counts has been seen before.
                    Some(_) => FirstSight::Pass,
                    None => self.first_sight(from),
                };
                self.signed(from, read, first).await?
            }
        };
        match read {
            Err(RequestError::Reverse) if self.options.ssh.reverse => {
                let asked = self.read_reverse(from, text, word).await?;
                self.log_in_to(from, session, asked, permit).await.map(Some)
            }
            Err(why) => Err(why.to_string()),
            Ok((asked, signer)) => {
                #[cfg(feature = "held")]
                let Some(asked) = asked.read_by(&self.options.habits) else {
                    info!("ignored session={session} from={from} reason=held_to_its_time");
                    return Ok(None);
                };
                if let Some(vouched) = asked.vouches_for() {
                    return self.hear_voucher(from, &asked, vouched).await.map(Some);
                }
                if self.is_anothers(&asked) {
                    ignored::note(
                        from,
                        format_args!("session={session} reason=another_daemons"),
                    );
                    return Ok(None);
                }
                self.start_session((from, &signer), (text, &asked), permit)
                    .await
                    .map(Some)
            }
        }
    }

    /// Signed for another daemon of our name, which acts on it.
    fn is_anothers(&self, asked: &SessionRequest) -> bool {
        let stamp = asked.meeting().stamp.as_ref();
        stamp.is_some_and(|stamp| self.namesakes().contains(&stamp.run))
    }

    /// What becomes of a key that has signed something, and was never seen.
    fn first_sight(&self, from: &AtSign) -> FirstSight {
        if self.options.managers.contains(from) {
            FirstSight::Remember
        } else {
            FirstSight::Guest
        }
    }

    /// Reads something that its sender has signed, and with which key.
    async fn signed<T>(
        &self,
        from: &AtSign,
        read: impl Fn(&PublicKey) -> Result<T, RequestError>,
        first: impl Fn(&T) -> FirstSight,
    ) -> Result<Result<(T, PublicKey), RequestError>, String> {
        let there = |found: Result<Option<PublicKey>, AtError>| match found {
            Ok(Some(key)) => Ok(key),
            Ok(None) => Err(format!("Signature not verified: {from} has no public key")),
            Err(error) => Err(format!("Signature not verified: {error}")),
        };
        let mut signer = there(self.at.public_key(from).await)?;
        let mut got = read(&signer);
        // The sender may have new keys since we looked.
        if matches!(got, Err(RequestError::Envelope(EnvelopeError::Signature))) {
            signer = there(self.at.public_key_afresh(from, from).await)?;
            got = read(&signer);
        }
        // Only a key that has signed is remembered.
        if let Ok(said) = &got {
            let checked = self.pins.check(from, &signer, first(said)).await;
            checked.map_err(|changed| told(&changed, "this device"))?;
        }
        Ok(got.map(|said| (said, signer)))
    }

    /// May this be opened, by the daemon's list and by the client's? Says what to dial, or why not.
    pub(super) fn judge(
        &self,
        tunnel: Option<&TunnelRequest>,
        permit: &Permit,
    ) -> Result<Endpoint, String> {
        let target = match tunnel {
            None => self.options.sshd.clone(),
            Some(request) => {
                let host = &request.target_host;
                Endpoint {
                    host: canonical(host).ok_or_else(|| format!("{host:?} is not a host"))?,
                    port: request.target_port,
                }
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
        (from, signer): (&AtSign, &PublicKey),
        (text, asked): (&str, &SessionRequest),
        permit: &Permit,
    ) -> Result<Acceptance, String> {
        let (meeting, target) = (asked.meeting(), self.judge(asked.tunnel(), permit)?);
        let unprotected = meeting.admission.is_none() || meeting.encryption.is_none();
        if self.options.require_protection && unprotected {
            return Err("this device does not do sessions without encryption and login".to_owned());
        }
        let is_authentic = matches!(meeting.encryption, Some(Encryption::Records(_)));
        if self.options.require.is_some() && !is_authentic {
            return Err("this device only does sessions that both ends authenticate; a newer client does that by itself".to_owned());
        }
        let mut place = self.place(from, asked.tunnel().is_some())?;
        self.act_once(from, meeting.session, meeting.stamp.as_ref())
            .await?;
        let keys = self.keys(meeting)?;
        let key = if self.brings_a_key(asked) {
            let made = self.keyring.temporary(from, meeting.session).await;
            Some(made.map_err(|why| format!("{NO_BRIDGE}no temporary ssh key: {why}"))?)
        } else {
            None
        };
        let answer = self.acceptance(from, asked, &keys, key.as_ref())?;
        let source = self.sources.as_ref();
        let source = source.and_then(|sources| sources.of(from, &target));
        place.has_lines = ignored::tells_session(from);
        if place.has_lines {
            info!(
                "session={} from={from} open={target}{} rendezvous={} {}",
                meeting.session,
                source.map_or_else(String::new, |source| format!(" source={source}")),
                meeting.rendezvous(),
                agreed(asked, &keys, key.is_some())
            );
        }
        let me = &self.at.keys().encryption;
        let parties = Parties {
            client: (from, signer),
            device: (self.at.atsign(), me.public()),
            name: &self.options.device,
        };
        let keys = keys.transport(&parties, text, &answer);
        let far = meeting.far_end(keys.as_ref(), me);
        let order = Order {
            local: LocalAddress::Service(&target, source),
            far: &far.map_err(|why| why.to_string())?,
            many: asked.lasting(),
            about: Some(self.about(from, meeting.session)),
            nearness: self.nearness,
            sandbox: self.options.sandbox,
        };
        let starting = self.start_bridge(&order, meeting.session, place);
        let (started, ()) = future::zip(starting, self.acted.on_disk()).await;
        started?;
        let message = answer.message;
        Ok(Acceptance { message, key })
    }

    /// A manager, whose key was named or remembered before, says that another manager has a new one. What was named to the
    /// daemon stays. Managers are held to what the daemon permits and no less, so what they may open does not matter here.
    async fn hear_voucher(
        &self,
        from: &AtSign,
        asked: &SessionRequest,
        vouched: &str,
    ) -> Result<Acceptance, String> {
        let (who, key) = pins::named(vouched)?;
        let key = key.ok_or("without a fingerprint there is nothing to vouch for")?;
        let managers = &self.options.managers;
        if !managers.contains(from) || !managers.contains(&who) || *from == who {
            return Err(format!("only another manager can vouch for a key of {who}"));
        }
        // Else whoever runs the atServer of one who never came could put keys of his own in the places of all others.
        let knows = self.pins.knows(from).await;
        if !knows.map_err(|why| told(&why, "this device"))? {
            return Err(format!(
                "this device has not seen a key of {from} yet, so {from} cannot vouch for {who}: first open a session as {from}"
            ));
        }
        if let Some(named) = self.pins.named(&who).filter(|named| **named != key) {
            return Err(format!(
                "this device was started with --manager {who}#{named}"
            ));
        }
        let meeting = asked.meeting();
        // An old one must not bring an old key back.
        let stamp = meeting.stamp.as_ref().ok_or("the request says no time")?;
        self.act_once(from, meeting.session, Some(stamp)).await?;
        self.pins.believe(&who, &key).await;
        if ignored::has_line(&format!("vouchers from={from}"), ignored::FEW) {
            info!("key_of={who} fingerprint={key} vouched_for_by={from}");
        }
        let keys = self.keys(meeting)?;
        let answer = self.acceptance(from, asked, &keys, None)?;
        Ok(Acceptance {
            message: answer.message,
            key: None,
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

    fn keys(&self, meeting: &Meeting) -> Result<DeviceKeys, String> {
        #[cfg(feature = "held")]
        let takes_shares = self.options.habits.records();
        #[cfg(not(feature = "held"))]
        let takes_shares = true;
        let keys = DeviceKeys::new(meeting.encryption.as_ref(), takes_shares);
        keys.map_err(|why| why.to_string())
    }

    fn acceptance(
        &self,
        to: &AtSign,
        asked: &SessionRequest,
        keys: &DeviceKeys,
        key: Option<&TemporaryKey>,
    ) -> Result<Accepted, String> {
        let (me, device) = (&self.at.keys().encryption, &self.options.device);
        let answer = match asked {
            SessionRequest::Ssh(request) if self.is_bare(request) => {
                Ok(request::connected(request.meeting.session, to, device).into())
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
        order: &Order<'_>,
        session: SessionId,
        place: SessionPlace,
    ) -> Result<(), String> {
        let bridge = launch::start(&self.options.program, order)
            .await
            .map_err(|why| why.refusal())?;
        task::spawn(place.kept_by(bridge, session.to_string()));
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
                .signed(from, read, |_| self.first_sight(from))
                .await?
                .map(|(said, _)| said)
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
        if ignored::tells_session(from) {
            info!(
                "session={session} from={from} open={target} back_to={}:{} generation=3 login=none encryption=none \
                 temporary_key=no",
                request.host, request.port
            );
        }
        device::log_in(&request, session, &key, &target).await?;
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
            if ignored::has_line(&format!("key_of={who} refused=yes"), ignored::FEW) {
                warn!("key_of={who} fingerprint={now} known={known} refused=yes hint={hint:?}");
            }
        }
        PinError::Unreadable(reason) => {
            if ignored::has_line("keys_of_others=unreadable", ignored::FEW) {
                warn!("keys_of_others=unreadable reason={reason:?}");
            }
        }
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
fn agreed(asked: &SessionRequest, keys: &DeviceKeys, key: bool) -> String {
    let generation = match asked {
        SessionRequest::Ssh(request) if request.form == RequestForm::V4 => 4,
        _ => 5,
    };
    let login = if asked.meeting().admission.is_some() {
        "yes"
    } else {
        "none"
    };
    let is_single = matches!(keys, DeviceKeys::Stream(keys, _) if !keys.are_twin());
    let encryption = match keys {
        DeviceKeys::Bare => "none",
        DeviceKeys::Stream(..) if is_single => "single",
        DeviceKeys::Stream(..) => "twin",
        DeviceKeys::Records(..) => "records",
    };
    // Nothing tells those of 5.0 to 5.2 from later ones of theirs.
    let may_insist =
        matches!(asked, SessionRequest::Ssh(_)) && asked.meeting().stamp.is_none() && is_single;
    let key = match key {
        true => "yes",
        false if may_insist => {
            "no hint=\"sshnp 5.0 to 5.2 cannot do without one: --temporary-keys always\""
        }
        false => "no",
    };
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

    fn vouches_for(&self) -> Option<&str> {
        self.tunnel().and_then(TunnelRequest::vouches_for)
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
