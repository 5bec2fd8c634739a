//! `enroll` and `otp`: more devices for one atSign. What a device does once it is one is in `enrolled`.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use miniserde::{
    Deserialize,
    json::{self, Value},
};

use crate::{
    at::{
        Verb,
        fault::Code,
        verb::{EnrollOperation, SigningAlgo},
    },
    secret::same,
    server::{
        enrolment::{
            self, EnrolmentState, Grant, MANAGE, MAX_ENROLLMENTS, PENDING_LIFE, StoredEnrolment,
        },
        passcode::{self, Throttle},
        refusal::{Refusal, refuse},
        store::{
            CommitEvent, Tx,
            notes::{DeliveryStatus, Note, NoteKind},
        },
    },
    text::json::Object,
};

use super::{
    auth::PKAM_KEY,
    outcome::{CommandAnswer, Handled},
    state::{Guess, Session, Trace, Who},
};

/// Most requests of one connection in an hour.
const MAX_REQUESTS: usize = 5;
const HOUR: u64 = 3600 * 1000;
const DAY: u64 = 24 * HOUR;
/// Longest text in a request, in bytes: keys are below 1 KiB.
const MAX_TEXT: usize = 4096;
/// Longest signing keys in a request, in bytes.
const MAX_SIGNING_KEYS: usize = 20 * 1024;
/// Longest metadata of an enrolment, in bytes.
const MAX_METADATA: usize = 20 * 1024;
/// Most namespaces in one request.
const MAX_NAMESPACES: usize = 50;
/// A revoked enrolment's own connection ends after this long.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// What clients send; unknown members are ignored.
#[derive(Default, Deserialize)]
pub(super) struct EnrollParams {
    #[serde(rename = "enrollmentId")]
    pub(super) id: Option<String>,
    #[serde(rename = "appName")]
    app: Option<String>,
    #[serde(rename = "deviceName")]
    device: Option<String>,
    namespaces: Option<BTreeMap<String, String>>,
    otp: Option<String>,
    #[serde(rename = "encryptedDefaultEncryptionPrivateKey")]
    private_key: Option<String>,
    #[serde(rename = "encryptedDefaultSelfEncryptionKey")]
    self_key: Option<String>,
    #[serde(rename = "encryptedAPKAMSymmetricKey")]
    symmetric_key: Option<String>,
    #[serde(rename = "apkamPublicKey")]
    pub(super) public_key: Option<String>,
    /// Signing keys to publish: JSON in the newer form, bare text in the older; not both.
    pub(super) apsk: Option<Value>,
    #[serde(rename = "apskLegacy")]
    pub(super) apsk_legacy: Option<String>,
    #[serde(rename = "enrollmentStatusFilter")]
    filter: Option<Vec<String>>,
    #[serde(rename = "apkamKeysExpiryInMillis")]
    life: Option<u64>,
    #[serde(rename = "encPrivateKeyIV")]
    private_key_iv: Option<String>,
    #[serde(rename = "selfEncKeyIV")]
    self_key_iv: Option<String>,
    #[serde(rename = "signingAlgo")]
    pub(super) signing_algo: Option<String>,
    /// Of `enroll:update`: proof of having the private half of the new `apkamPublicKey`.
    #[serde(rename = "apkamPublicKeySignature")]
    pub(super) proof: Option<String>,
    pub(super) metadata: Option<json::Object>,
}

pub(super) fn wrong(text: impl Into<String>) -> Refusal {
    refuse(Code::InternalException, text)
}

pub(super) fn status(id: &str, word: &str) -> Object {
    Object::new().text("enrollmentId", id).text("status", word)
}

impl Session {
    pub(super) fn enroll(
        &mut self,
        tx: &mut Tx<'_>,
        operation: EnrollOperation,
        force: bool,
        params: Option<&str>,
        now: u64,
    ) -> Handled {
        if let EnrollOperation::ListNs | EnrollOperation::InfoNs = operation {
            return self.namespace(tx, operation, params.unwrap_or_default(), now);
        }
        let params: EnrollParams = match params {
            Some(text) => json::from_str(text)
                .map_err(|_| refuse(Code::InvalidSyntax, "Invalid syntax. enroll"))?,
            None => <EnrollParams as Default>::default(),
        };
        if operation == EnrollOperation::Request {
            return self.request(tx, params, now);
        }
        self.owner()?;
        match operation {
            EnrollOperation::List => return self.list(tx, &params, now),
            EnrollOperation::Fetch => return self.fetch(tx, &params, now),
            _ => {}
        }
        let id = params
            .id
            .clone()
            .ok_or_else(|| wrong("enrollmentId is mandatory"))?;
        let found = enrolment::find(tx, &self.home, &id, now)?;
        let found = found.ok_or_else(|| Refusal::unknown_enrolment(&id))?;
        match operation {
            EnrollOperation::Approve => self.approve(tx, found, &params, now),
            EnrollOperation::Deny => self.change(tx, found, "deny", now),
            EnrollOperation::Revoke => self.revoke(tx, found, force, now),
            EnrollOperation::Unrevoke => self.change(tx, found, "unrevoke", now),
            EnrollOperation::Delete => self.forget(tx, &found, now),
            EnrollOperation::Update => self.amend(tx, found, &params, now),
            _ => Err(refuse(Code::InvalidSyntax, "invalid command")),
        }
    }

    fn request(&mut self, tx: &mut Tx<'_>, params: EnrollParams, now: u64) -> Handled {
        self.requests.retain(|at| now.saturating_sub(*at) < HOUR);
        if self.requests.len() >= MAX_REQUESTS || self.guess == Guess::TooMany {
            return Err(wrong(
                "Enrollment requests have exceeded the limit within the specified time frame",
            ));
        }
        self.requests.push(now);
        let by_cram = self.by_cram && matches!(self.who, Who::Owner(None));
        if !by_cram && !matches!(self.who, Who::Owner(_)) {
            self.use_passcode(tx, params.otp.as_deref().unwrap_or_default(), now)?;
        }
        let new = new_enrollment(tx.new_id()?, &params, by_cram)?;
        let all = enrolment::all(tx, &self.home, now)?;
        if all.len() >= MAX_ENROLLMENTS {
            return Err(wrong("there are too many enrollments"));
        }
        let active = |old: &&StoredEnrolment| {
            matches!(
                old.state,
                EnrolmentState::Pending | EnrolmentState::Approved
            )
        };
        let twin = all
            .iter()
            .filter(active)
            .find(|old| old.app == new.app && old.device == new.device);
        if let Some(twin) = twin {
            return Err(wrong(format!(
                "Another enrollment with id {} exists with the app name: {} and device name: {} in {} state",
                twin.id,
                twin.app,
                twin.device,
                twin.state.word()
            )));
        }
        if by_cram {
            return self.approve_first(tx, new, &params, now);
        }
        new.save(tx, &self.home, Some(PENDING_LIFE), now)?;
        self.tell_managers(tx, &new, now)?;
        Ok(CommandAnswer::Data(status(&new.id, "pending").end()))
    }

    /// Whoever is logged in needs no passcode, and so guesses none. Of any other a request is taken for a wrong one
    /// until it has proven right.
    pub(super) fn guess(&self, verb: &Verb, now: u64) -> Guess {
        let asks = matches!(verb, Verb::Enroll { operation, .. } if *operation == EnrollOperation::Request);
        let stranger = asks && !matches!(self.who, Who::Owner(_));
        match (self.from.filter(|_| stranger), self.facts.guesses.lock()) {
            (Some(from), Ok(mut guesses)) if guesses.may_try(from, now) => {
                guesses.wrong(from, now);
                Guess::Counted
            }
            (Some(_), Ok(_)) => Guess::TooMany,
            _ => Guess::None,
        }
    }

    /// How long whoever guessed wrong waits to hear of it.
    pub(super) fn pause(&self, now: u64) -> Duration {
        let seconds = match self.facts.throttle.lock() {
            Ok(mut throttle) => throttle.wrong(now),
            Err(_) => Throttle::MOST,
        };
        Duration::from_secs(seconds)
    }

    /// Takes a passcode: the standing one stays, any other is used up.
    fn use_passcode(&mut self, tx: &mut Tx<'_>, code: &str, now: u64) -> Result<(), Refusal> {
        let standing = passcode::standing_key(&self.home);
        let standing = self.home.live(tx, &standing, now)?;
        let code = code.to_lowercase();
        if standing.is_some_and(|known| same(known.value.as_bytes(), code.as_bytes())) {
            return Ok(());
        }
        let fits = (6..=64).contains(&code.len()) && code.chars().all(char::is_alphanumeric);
        let key = passcode::key_of(&self.home, &code);
        if fits && self.home.live(tx, &key, now)?.is_some() {
            self.home.erase(tx, &key)?;
            return Ok(());
        }
        self.traces.push(Trace::WrongPasscode(now));
        Err(wrong("invalid otp. Cannot process enroll request"))
    }

    /// The first device of an atSign approves itself: it knows the activation secret.
    fn approve_first(
        &mut self,
        tx: &mut Tx<'_>,
        mut new: StoredEnrolment,
        params: &EnrollParams,
        now: u64,
    ) -> Handled {
        for namespace in [MANAGE, "*"] {
            new.namespaces.insert(namespace.into(), "rw".into());
        }
        new.state = EnrolmentState::Approved;
        self.home
            .put_plain(tx, PKAM_KEY, &new.public_key, None, now)?;
        self.admit(tx, &mut new, params, now)?;
        self.who = Who::Owner(Some(new.grant()));
        Ok(CommandAnswer::Data(status(&new.id, "approved").end()))
    }

    /// Writes an approved enrolment and what its device will fetch.
    fn admit(
        &self,
        tx: &mut Tx<'_>,
        approved: &mut StoredEnrolment,
        params: &EnrollParams,
        now: u64,
    ) -> Result<(), Refusal> {
        let life = approved.life.filter(|life| *life > 0);
        approved.expires_at = life.map(|life| now.saturating_add(life));
        approved.save(tx, &self.home, life, now)?;
        let names = enrolment::default_keys_of(&self.home, &approved.id);
        let keys = [
            (&params.private_key, &params.private_key_iv),
            (&params.self_key, &params.self_key_iv),
        ];
        for (name, (key, iv)) in names.iter().zip(keys) {
            if let Some(key) = key {
                let value = Object::new().text("value", key);
                let value = match iv {
                    Some(iv) => value.text("iv", iv),
                    None => value,
                };
                self.home.put_plain(tx, name, &value.end(), life, now)?;
            }
        }
        self.publish_login_key(tx, approved, life, now)?;
        self.publish_signing_keys(tx, approved, life, now)
    }

    /// The key that others look up to check this enrolment's logins.
    pub(super) fn publish_login_key(
        &self,
        tx: &mut Tx<'_>,
        of: &StoredEnrolment,
        life: Option<u64>,
        now: u64,
    ) -> Result<(), Refusal> {
        let public = Object::new().text("apkamPublicKey", &of.public_key).end();
        let name = self.public_name(of);
        Ok(self.home.put_plain(tx, &name, &public, life, now)?)
    }

    /// The keys its device signs with, as it sent them.
    pub(super) fn publish_signing_keys(
        &self,
        tx: &mut Tx<'_>,
        of: &StoredEnrolment,
        life: Option<u64>,
        now: u64,
    ) -> Result<(), Refusal> {
        if let Some(keys) = &of.signing_keys {
            let name = format!("public:_apsk.{}.a.__e{}", of.id, self.home.who);
            self.home.put_plain(tx, &name, keys, life, now)?;
        }
        Ok(())
    }

    fn public_name(&self, of: &StoredEnrolment) -> String {
        format!(
            "public:{}.{}.pkam.__pkams.__public_keys{}",
            of.app, of.device, self.home.who
        )
        .to_lowercase()
        .replace(' ', "")
    }

    /// Devices that may approve hear of the request at once.
    fn tell_managers(
        &self,
        tx: &mut Tx<'_>,
        new: &StoredEnrolment,
        now: u64,
    ) -> Result<(), Refusal> {
        let who = &self.home.who;
        let about = enrolment::key_of(&self.home, &new.id);
        let mut note = Note::new(tx.new_id()?, who, who, about);
        let key = new.symmetric_key.as_deref();
        note.value = Some(
            Object::new()
                .maybe("encryptedApkamSymmetricKey", key)
                .maybe("encryptedAPKAMSymmetricKey", key)
                .text("appName", &new.app)
                .text("deviceName", &new.device)
                .raw("namespace", json::to_string(&new.namespaces))
                .end(),
        );
        note.is_encrypted = false;
        note.ttln = DAY;
        (note.kind, note.status) = (NoteKind::Own, DeliveryStatus::Delivered);
        if let Some(note) = self.home.take_in(tx, note, now)? {
            tx.emit(CommitEvent::Note(Arc::new(note)));
        }
        Ok(())
    }

    /// Whether this connection may decide about an enrolment.
    fn manages(&self, of: &StoredEnrolment) -> Result<(), Refusal> {
        match self.owner()? {
            Some(grant) if !grant.can_approve(&of.namespaces) => Err(refuse(
                Code::Unauthorized,
                format!(
                    "Connection with enrollment ID {} is not authorized to manage enrollment: {}",
                    grant.id, of.id
                ),
            )),
            _ => Ok(()),
        }
    }

    fn approve(
        &mut self,
        tx: &mut Tx<'_>,
        mut found: StoredEnrolment,
        params: &EnrollParams,
        now: u64,
    ) -> Handled {
        self.manages(&found)?;
        expect(&found, EnrolmentState::Pending, "approve")?;
        for key in [&params.private_key, &params.self_key] {
            let text = "encryptedDefaultEncryptionPrivateKey and encryptedDefaultSelfEncryptionKey are mandatory";
            limited(key.as_deref()).ok_or_else(|| wrong(text))?;
        }
        found.state = EnrolmentState::Approved;
        self.admit(tx, &mut found, params, now)?;
        Ok(decided(&found))
    }

    /// `deny` and `unrevoke`.
    fn change(
        &mut self,
        tx: &mut Tx<'_>,
        mut found: StoredEnrolment,
        verb: &str,
        now: u64,
    ) -> Handled {
        self.manages(&found)?;
        let (from, to, life) = match verb {
            "deny" => (
                EnrolmentState::Pending,
                EnrolmentState::Denied,
                Some(PENDING_LIFE),
            ),
            _ => (
                EnrolmentState::Revoked,
                EnrolmentState::Approved,
                left(&found, now),
            ),
        };
        expect(&found, from, verb)?;
        if to == EnrolmentState::Approved {
            enrolment::move_data(tx, &self.home, &found.id, ("r", "a"), now)?;
        }
        found.state = to;
        found.save(tx, &self.home, life, now)?;
        Ok(decided(&found))
    }

    fn revoke(
        &mut self,
        tx: &mut Tx<'_>,
        mut found: StoredEnrolment,
        force: bool,
        now: u64,
    ) -> Handled {
        self.manages(&found)?;
        expect(&found, EnrolmentState::Approved, "revoke")?;
        let own = self.enrollment() == Some(found.id.as_str());
        if own && !force {
            return Err(refuse(
                Code::SelfRevoke,
                "Current client cannot revoke its own enrollment",
            ));
        }
        enrolment::move_data(tx, &self.home, &found.id, ("a", "r"), now)?;
        found.state = EnrolmentState::Revoked;
        found.revoked_at = Some(now);
        found.save(tx, &self.home, left(&found, now), now)?;
        tx.emit(CommitEvent::Withdrawn {
            of: self.home.who.clone(),
            enrollment: found.id.clone(),
            by: self.id.clone(),
        });
        if own {
            let text = "Enrollment is revoked. Closing the connection in 10 seconds";
            let answer = Object::new()
                .text("status", "revoked")
                .text("enrollmentId", &found.id)
                .text("message", text);
            return Ok(CommandAnswer::Last(answer.end(), LAST_WORDS));
        }
        Ok(decided(&found))
    }

    fn forget(&mut self, tx: &mut Tx<'_>, found: &StoredEnrolment, now: u64) -> Handled {
        self.manages(found)?;
        if !matches!(
            found.state,
            EnrolmentState::Denied | EnrolmentState::Revoked
        ) {
            return Err(wrong(format!(
                "Failed to delete enrollment id: {}. Cannot delete a {} enrollment. Only denied or revoked enrollments can be deleted",
                found.id,
                found.state.word()
            )));
        }
        self.home
            .erase(tx, &enrolment::key_of(&self.home, &found.id))?;
        for name in enrolment::default_keys_of(&self.home, &found.id) {
            self.home.erase(tx, &name)?;
        }
        self.home.erase(tx, &self.public_name(found))?;
        enrolment::end(tx, &self.home, &found.id, now)?;
        Ok(CommandAnswer::Data(status(&found.id, "deleted").end()))
    }

    fn list(&self, tx: &Tx<'_>, params: &EnrollParams, now: u64) -> Handled {
        let grant = self.owner()?;
        let mut wanted = Vec::new();
        for word in params.filter.iter().flatten() {
            wanted.push(
                EnrolmentState::parse(word).ok_or_else(|| wrong("no such enrollment status"))?,
            );
        }
        let mut all = Object::new();
        for found in enrolment::all(tx, &self.home, now)? {
            let readable = grant.is_none_or(|grant| sees(grant, &found.id));
            if readable && (wanted.is_empty() || wanted.contains(&found.state)) {
                all = all.raw(&enrolment::key_of(&self.home, &found.id), found.to_json());
            }
        }
        Ok(CommandAnswer::Data(all.end()))
    }

    fn fetch(&self, tx: &Tx<'_>, params: &EnrollParams, now: u64) -> Handled {
        let id = params
            .id
            .as_deref()
            .ok_or_else(|| wrong("enrollmentId is mandatory"))?;
        if self.owner()?.is_some_and(|grant| !sees(grant, id)) {
            let text = format!("not authorized to fetch enrollment {id}");
            return Err(refuse(Code::Unauthorized, text));
        }
        let found = enrolment::find(tx, &self.home, id, now)?;
        let found = found.ok_or_else(|| Refusal::unknown_enrolment(id))?;
        Ok(CommandAnswer::Data(found.to_json()))
    }

    pub(super) fn otp_get(&mut self, tx: &mut Tx<'_>, ttl: Option<u64>, now: u64) -> Handled {
        self.managing("otp:get")?;
        let code = passcode::make(|| tx.draw().ok())
            .ok_or_else(|| refuse(Code::Internal, "the system gave no random bytes"))?;
        let key = passcode::key_of(&self.home, &code);
        let life = ttl.filter(|ttl| *ttl > 0).unwrap_or(passcode::OTP_LIFE);
        self.home.put_plain(tx, &key, "otp", Some(life), now)?;
        Ok(CommandAnswer::Data(code))
    }

    pub(super) fn otp_put(
        &mut self,
        tx: &mut Tx<'_>,
        code: &str,
        ttl: Option<u64>,
        now: u64,
    ) -> Handled {
        self.managing("otp:put")?;
        if !(6..=64).contains(&code.len()) {
            return Err(wrong("a passcode has 6 to 64 characters"));
        }
        let key = passcode::standing_key(&self.home);
        self.home
            .put_plain(tx, &key, &code.to_lowercase(), ttl, now)?;
        Ok(CommandAnswer::Data("ok".into()))
    }

    fn managing(&self, verb: &str) -> Result<(), Refusal> {
        match self.owner()? {
            Some(grant) if !grant.manages() => Err(refuse(
                Code::Unauthorized,
                format!("enrollment {} is not authorized to use {verb}", grant.id),
            )),
            _ => Ok(()),
        }
    }
}

fn sees(grant: &Grant, id: &str) -> bool {
    grant.manages() || grant.id == id
}

/// How much longer an enrolment lives, in milliseconds.
pub(super) fn left(of: &StoredEnrolment, now: u64) -> Option<u64> {
    of.expires_at.map(|at| at.saturating_sub(now).max(1))
}

fn decided(about: &StoredEnrolment) -> CommandAnswer {
    let answer = Object::new()
        .text("status", about.state.word())
        .text("enrollmentId", &about.id);
    CommandAnswer::Data(answer.end())
}

fn expect(found: &StoredEnrolment, state: EnrolmentState, verb: &str) -> Result<(), Refusal> {
    if found.state == state {
        return Ok(());
    }
    Err(wrong(format!(
        "Failed to {verb} enrollment id: {}. Cannot {verb} a {} enrollment. Only {} enrollments can be {}",
        found.id,
        found.state.word(),
        state.word(),
        match verb {
            "approve" => "approved",
            "deny" => "denied",
            "revoke" => "revoked",
            _ => "unrevoked",
        }
    )))
}

pub(super) fn limited(text: Option<&str>) -> Option<String> {
    text.filter(|text| !text.is_empty() && text.len() <= MAX_TEXT)
        .map(str::to_owned)
}

fn new_enrollment(
    id: String,
    params: &EnrollParams,
    by_cram: bool,
) -> Result<StoredEnrolment, Refusal> {
    let text = |given: &Option<String>, name: &str| {
        limited(given.as_deref()).ok_or_else(|| wrong(format!("{name} is mandatory")))
    };
    let namespaces = params.namespaces.clone().unwrap_or_default();
    let proper = namespaces.len() <= MAX_NAMESPACES
        && namespaces.iter().all(|(name, right)| {
            (1..=100).contains(&name.len()) && matches!(right.as_str(), "r" | "rw")
        });
    if !proper || (namespaces.is_empty() && !by_cram) {
        return Err(wrong("at least one namespace with r or rw is mandatory"));
    }
    Ok(StoredEnrolment {
        id,
        app: text(&params.app, "appName")?,
        device: text(&params.device, "deviceName")?,
        namespaces,
        public_key: text(&params.public_key, "apkamPublicKey")?,
        state: EnrolmentState::Pending,
        symmetric_key: limited(params.symmetric_key.as_deref()),
        signing_keys: signing_keys(params)?,
        signing_algo: signing_algo(params)?,
        metadata: params.metadata.as_ref().map(metadata).transpose()?,
        revoked_at: None,
        life: params.life,
        expires_at: None,
    })
}

pub(super) fn signing_keys(params: &EnrollParams) -> Result<Option<String>, Refusal> {
    let keys = match (&params.apsk, &params.apsk_legacy) {
        (None, None) => return Ok(None),
        (Some(_), Some(_)) => return Err(wrong("either apsk or apskLegacy, not both")),
        (Some(Value::String(text)), None) => text.clone(),
        (Some(keys), None) => json::to_string(keys),
        (None, Some(text)) => text.clone(),
    };
    match keys.len() {
        1..=MAX_SIGNING_KEYS => Ok(Some(keys)),
        _ => Err(wrong("apsk is too long")),
    }
}

/// How the login key signs, if the request says so.
pub(super) fn signing_algo(params: &EnrollParams) -> Result<Option<String>, Refusal> {
    let Some(word) = &params.signing_algo else {
        return Ok(None);
    };
    match SigningAlgo::parse(word) {
        Some(_) => Ok(Some(word.clone())),
        None => Err(wrong(format!("signingAlgo {word} is not known here"))),
    }
}

/// The JSON of what a device says about itself.
pub(super) fn metadata(given: &json::Object) -> Result<String, Refusal> {
    let text = json::to_string(given);
    if text.len() > MAX_METADATA {
        return Err(wrong("metadata is too long"));
    }
    Ok(text)
}
