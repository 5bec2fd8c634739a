//! `enroll`: more devices for one atSign. What they send is in `enroll_params`, their passcodes in `otp`; what a device
//! does once it is one is in `enrolled`.

use std::{sync::Arc, time::Duration};

use miniserde::json;

use crate::{
    at::{fault::Code, verb::EnrollOperation},
    server::{
        enrolment::{
            self, EnrolmentState, Grant, MANAGE, MAX_ENROLLMENTS, PENDING_LIFE, StoredEnrolment,
        },
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
    enroll_params::{EnrollParams, limited, new_enrollment, wrong},
    outcome::{CommandAnswer, Handled},
    state::{Guess, Session, Who},
};

/// Most requests of one connection in an hour.
const MAX_REQUESTS: usize = 5;
const HOUR: u64 = 3600 * 1000;
const DAY: u64 = 24 * HOUR;
/// A revoked enrolment's own connection ends after this long.
const LAST_WORDS: Duration = Duration::from_secs(10);

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
    ) -> Handled {
        if let EnrollOperation::ListNs | EnrollOperation::InfoNs = operation {
            return self.namespace(tx, operation, params.unwrap_or_default());
        }
        let params: EnrollParams = match params {
            Some(text) => json::from_str(text)
                .map_err(|_| refuse(Code::InvalidSyntax, "Invalid syntax. enroll"))?,
            None => <EnrollParams as Default>::default(),
        };
        if operation == EnrollOperation::Request {
            return self.request(tx, params);
        }
        self.owner()?;
        match operation {
            EnrollOperation::List => return self.list(tx, &params),
            EnrollOperation::Fetch => return self.fetch(tx, &params),
            _ => {}
        }
        let id = params
            .id
            .clone()
            .ok_or_else(|| wrong("enrollmentId is mandatory"))?;
        let found = enrolment::find(tx, &self.home, &id, self.now)?
            .ok_or_else(|| Refusal::unknown_enrolment(&id))?;
        match operation {
            EnrollOperation::Approve => self.approve(tx, found, &params),
            EnrollOperation::Deny => self.change(tx, found, "deny"),
            EnrollOperation::Revoke => self.revoke(tx, found, force),
            EnrollOperation::Unrevoke => self.change(tx, found, "unrevoke"),
            EnrollOperation::Delete => self.forget(tx, &found),
            EnrollOperation::Update => self.amend(tx, found, &params),
            _ => Err(refuse(Code::InvalidSyntax, "invalid command")),
        }
    }

    fn request(&mut self, tx: &mut Tx<'_>, params: EnrollParams) -> Handled {
        self.requests
            .retain(|at| self.now.saturating_sub(*at) < HOUR);
        if self.requests.len() >= MAX_REQUESTS || self.guess == Guess::TooMany {
            return Err(wrong(
                "Enrollment requests have exceeded the limit within the specified time frame",
            ));
        }
        self.requests.push(self.now);
        let by_cram = self.by_cram && matches!(self.who, Who::Owner(None));
        if !by_cram && !matches!(self.who, Who::Owner(_)) {
            self.use_passcode(tx, params.otp.as_deref().unwrap_or_default())?;
        }
        let new = new_enrollment(tx.new_id()?, &params, by_cram)?;
        let all = enrolment::all(tx, &self.home, self.now)?;
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
            return self.approve_first(tx, new, &params);
        }
        new.save(tx, &self.home, Some(PENDING_LIFE), self.now)?;
        self.tell_managers(tx, &new)?;
        self.enrolling = true;
        Ok(CommandAnswer::Data(status(&new.id, "pending").end()))
    }

    /// The first device of an atSign approves itself: it knows the activation secret.
    fn approve_first(
        &mut self,
        tx: &mut Tx<'_>,
        mut new: StoredEnrolment,
        params: &EnrollParams,
    ) -> Handled {
        for namespace in [MANAGE, "*"] {
            new.namespaces.insert(namespace.into(), "rw".into());
        }
        new.state = EnrolmentState::Approved;
        self.home
            .put_plain(tx, PKAM_KEY, &new.public_key, None, self.now)?;
        self.admit(tx, &mut new, params)?;
        self.who = Who::Owner(Some(new.grant()));
        Ok(CommandAnswer::Data(status(&new.id, "approved").end()))
    }

    /// Writes an approved enrolment and what its device will fetch.
    fn admit(
        &self,
        tx: &mut Tx<'_>,
        approved: &mut StoredEnrolment,
        params: &EnrollParams,
    ) -> Result<(), Refusal> {
        let life = approved.life.filter(|life| *life > 0);
        approved.expires_at = life.map(|life| self.now.saturating_add(life));
        approved.save(tx, &self.home, life, self.now)?;
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
                self.home
                    .put_plain(tx, name, &value.end(), life, self.now)?;
            }
        }
        self.publish_login_key(tx, approved, life)?;
        self.publish_signing_keys(tx, approved, life)
    }

    /// The key that others look up to check this enrolment's logins.
    pub(super) fn publish_login_key(
        &self,
        tx: &mut Tx<'_>,
        of: &StoredEnrolment,
        life: Option<u64>,
    ) -> Result<(), Refusal> {
        let public = Object::new().text("apkamPublicKey", &of.public_key).end();
        let name = self.public_name(of);
        Ok(self.home.put_plain(tx, &name, &public, life, self.now)?)
    }

    /// The keys its device signs with, as it sent them.
    pub(super) fn publish_signing_keys(
        &self,
        tx: &mut Tx<'_>,
        of: &StoredEnrolment,
        life: Option<u64>,
    ) -> Result<(), Refusal> {
        if let Some(keys) = &of.signing_keys {
            let name = format!("public:_apsk.{}.a.__e{}", of.id, self.home.who);
            self.home.put_plain(tx, &name, keys, life, self.now)?;
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
    fn tell_managers(&self, tx: &mut Tx<'_>, new: &StoredEnrolment) -> Result<(), Refusal> {
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
        if let Some(note) = self.home.take_in(tx, note, self.now)? {
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
    ) -> Handled {
        self.manages(&found)?;
        expect(&found, EnrolmentState::Pending, "approve")?;
        for key in [&params.private_key, &params.self_key] {
            let text = "encryptedDefaultEncryptionPrivateKey and encryptedDefaultSelfEncryptionKey are mandatory";
            limited(key.as_deref()).ok_or_else(|| wrong(text))?;
        }
        found.state = EnrolmentState::Approved;
        self.admit(tx, &mut found, params)?;
        Ok(decided(&found))
    }

    /// `deny` and `unrevoke`.
    fn change(&mut self, tx: &mut Tx<'_>, mut found: StoredEnrolment, verb: &str) -> Handled {
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
                left(&found, self.now),
            ),
        };
        expect(&found, from, verb)?;
        if to == EnrolmentState::Approved {
            enrolment::move_data(tx, &self.home, &found.id, ("r", "a"), self.now)?;
        }
        found.state = to;
        found.save(tx, &self.home, life, self.now)?;
        Ok(decided(&found))
    }

    fn revoke(&mut self, tx: &mut Tx<'_>, mut found: StoredEnrolment, force: bool) -> Handled {
        self.manages(&found)?;
        expect(&found, EnrolmentState::Approved, "revoke")?;
        let own = self.enrollment() == Some(found.id.as_str());
        if own && !force {
            return Err(refuse(
                Code::SelfRevoke,
                "Current client cannot revoke its own enrollment",
            ));
        }
        enrolment::move_data(tx, &self.home, &found.id, ("a", "r"), self.now)?;
        found.state = EnrolmentState::Revoked;
        found.revoked_at = Some(self.now);
        found.save(tx, &self.home, left(&found, self.now), self.now)?;
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

    fn forget(&mut self, tx: &mut Tx<'_>, found: &StoredEnrolment) -> Handled {
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
        enrolment::end(tx, &self.home, &found.id, self.now)?;
        Ok(CommandAnswer::Data(status(&found.id, "deleted").end()))
    }

    fn list(&self, tx: &Tx<'_>, params: &EnrollParams) -> Handled {
        let grant = self.owner()?;
        let mut wanted = Vec::new();
        for word in params.filter.iter().flatten() {
            wanted.push(
                EnrolmentState::parse(word).ok_or_else(|| wrong("no such enrollment status"))?,
            );
        }
        let mut all = Object::new();
        for found in enrolment::all(tx, &self.home, self.now)? {
            let readable = grant.is_none_or(|grant| sees(grant, &found.id));
            if readable && (wanted.is_empty() || wanted.contains(&found.state)) {
                all = all.raw(&enrolment::key_of(&self.home, &found.id), found.to_json());
            }
        }
        Ok(CommandAnswer::Data(all.end()))
    }

    fn fetch(&self, tx: &Tx<'_>, params: &EnrollParams) -> Handled {
        let id = params
            .id
            .as_deref()
            .ok_or_else(|| wrong("enrollmentId is mandatory"))?;
        if self.owner()?.is_some_and(|grant| !sees(grant, id)) {
            let text = format!("not authorized to fetch enrollment {id}");
            return Err(refuse(Code::Unauthorized, text));
        }
        let found = enrolment::find(tx, &self.home, id, self.now)?
            .ok_or_else(|| Refusal::unknown_enrolment(id))?;
        Ok(CommandAnswer::Data(found.to_json()))
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
