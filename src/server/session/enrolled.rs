//! What an enrolled device does with what is its own: amending its enrolment, keeping keys here, and seeing who else
//! has its namespaces.
//!
//! ```text
//!   keys:put:private:namespace:__global:appName:a:deviceName:d:keyName:k V  ─▶ private:a.d.k.__private_keys.__global@alice
//!   keys:put:public:…      ─▶ public:k.__public_keys.__global@alice
//!   keys:put:self:…        ─▶ a.d.k.__self_keys.__global@alice               each tagged with the enrolment's id
//! ```
//!
//! A key is read, replaced and deleted by the enrolment that put it, and goes with it. The original gives any enrolment
//! any key by its name; that is not needed by anybody.
//!
//! Source: at_server:packages/at_secondary_server/lib/src/verb/handler/{enroll,keys}_verb_handler.dart.

use miniserde::json;

use crate::{
    at::{
        fault::Code,
        key::MAX_KEY,
        verb::{EnrollOperation, HashingAlgo, KeysCommand, SigningAlgo},
    },
    server::{
        enrolment::{self, Grant, Kept, MANAGE, Need, StoredEnrolment},
        refusal::{Refusal, refuse},
        store::{
            Tx,
            log::Change,
            records::{Logged, Meta, Record},
        },
    },
    text::{
        calendar::date,
        json::{Object, array},
    },
};

use super::{
    auth::verify,
    enroll::{left, status},
    enroll_params::{EnrollParams, limited, metadata, signing_algo, signing_keys, wrong},
    look::missing,
    outcome::{CommandAnswer, Handled},
    state::Session,
};

/// The namespace that every enrolment may keep keys in.
const GLOBAL: &str = "__global";
/// Most keys that one enrolment keeps here, and the longest value of one, in bytes.
const MAX_KEPT: usize = 200;
const MAX_KEPT_VALUE: usize = 64 * 1024;

impl Session {
    /// `enroll:update`: an enrolment's own device changes its login key, signing keys or metadata; nothing else.
    pub(super) fn amend(
        &mut self,
        tx: &mut Tx<'_>,
        mut found: StoredEnrolment,
        params: &EnrollParams,
    ) -> Handled {
        // Not even the owner: they could not sign for it.
        if self.enrollment() != Some(found.id.as_str()) {
            return Err(wrong("an enrollment can be updated by itself only"));
        }
        let life = left(&found, self.now);
        if let Some(key) = limited(params.public_key.as_deref()) {
            found.signing_algo = signing_algo(params)?.or(found.signing_algo);
            found.public_key = key;
            proves_possession(&found, params.proof.as_deref())?;
            self.publish_login_key(tx, &found, life)?;
        } else if params.signing_algo.is_some() {
            return Err(wrong("signingAlgo changes with apkamPublicKey only"));
        }
        if let Some(keys) = signing_keys(params)? {
            found.signing_keys = Some(keys);
            self.publish_signing_keys(tx, &found, life)?;
        }
        if let Some(given) = &params.metadata {
            let old = found.metadata.as_deref().map(json::from_str);
            let mut merged: json::Object = old.and_then(Result::ok).unwrap_or_default();
            for (name, value) in given {
                merged.insert(name.clone(), value.clone());
            }
            found.metadata = Some(metadata(&merged)?);
        }
        found.save(tx, &self.home, life, self.now)?;
        Ok(CommandAnswer::Data(status(&found.id, "approved").end()))
    }

    /// `enroll:listns` and `enroll:infons`: who has this namespace, and when somebody last lost it.
    pub(super) fn namespace(
        &self,
        tx: &Tx<'_>,
        operation: EnrollOperation,
        namespace: &str,
    ) -> Handled {
        let grant = self.owner()?;
        if namespace.is_empty() || namespace.contains(char::is_whitespace) {
            return Err(refuse(
                Code::InvalidSyntax,
                "Invalid syntax. enroll:listns needs a namespace",
            ));
        }
        let all = enrolment::all(tx, &self.home, self.now)?;
        let asks = |grant: &Grant| all.iter().find(|found| found.id == grant.id);
        let sees = |grant| asks(grant).is_some_and(|own| own.access(namespace).is_some());
        if let Some(grant) = grant.filter(|grant| !sees(grant)) {
            let text = format!(
                "Connection with enrollment ID {} is not authorized for namespace: {namespace}",
                grant.id
            );
            return Err(refuse(Code::Unauthorized, text));
        }
        let holders = all
            .iter()
            .filter_map(|found| Some((found, found.access(namespace)?)));
        if operation == EnrollOperation::InfoNs {
            let revoked = holders.filter_map(|(found, _)| found.revoked_at);
            let last = revoked.max().map(|at| date(at).replace(' ', "T"));
            let info = Object::new().maybe("lastRevokedAt", last.as_deref());
            return Ok(CommandAnswer::Data(info.end()));
        }
        let approved =
            holders.filter(|(found, _)| found.state == enrolment::EnrolmentState::Approved);
        let shown: Vec<String> = approved
            .map(|(found, access)| {
                Object::new()
                    .text("enrollmentId", &found.id)
                    .text("access", access)
                    .text("apkamPubKey", &found.public_key)
                    .raw("metadata", found.metadata.as_deref().unwrap_or("null"))
                    .end()
            })
            .collect();
        Ok(CommandAnswer::Data(format!("[{}]", shown.join(","))))
    }

    /// Keys that devices keep here, beside the two that came with their approval.
    pub(super) fn keys(&mut self, tx: &mut Tx<'_>, given: &KeysCommand) -> Handled {
        let Some(grant) = self.owner()?.cloned() else {
            return Err(wrong(
                "Keys verb cannot be accessed without an enrollmentId",
            ));
        };
        match (given.operation.as_str(), &given.key_name) {
            ("put", Some(_)) => self.put_key(tx, given, &grant),
            ("get", Some(name)) => {
                let name = name.to_lowercase();
                let found = self.own_record(tx, &name, &grant)?;
                Ok(CommandAnswer::Data(found.value))
            }
            ("get", None) => self.own_keys(tx, given.visibility.as_deref(), &grant),
            ("delete", Some(name)) => {
                let name = name.to_lowercase();
                self.own_record(tx, &name, &grant)?;
                self.home.erase(tx, &name)?;
                Ok(CommandAnswer::Data("-1".into()))
            }
            _ => Err(refuse(Code::InvalidSyntax, "Invalid syntax. keys")),
        }
    }

    /// Somebody else's looks as if it were not there.
    fn own_record(&self, tx: &Tx<'_>, name: &str, grant: &Grant) -> Result<Record, Refusal> {
        let default = enrolment::default_keys_of(&self.home, &grant.id);
        let found = self.home.live(tx, name, self.now)?.filter(|found| {
            default.iter().any(|own| own == name) || enrolment::is_kept_by(&grant.id, name, found)
        });
        found.ok_or_else(|| missing(name))
    }

    fn own_keys(&self, tx: &Tx<'_>, visibility: Option<&str>, grant: &Grant) -> Handled {
        let part = enrolment::KEPT
            .iter()
            .find(|(word, _)| Some(*word) == visibility);
        let Some((word, part)) = part else {
            return Ok(CommandAnswer::Data(array([])));
        };
        let mut names = enrolment::kept_by(tx, &self.home, &grant.id)?;
        names.retain(|name| name.contains(part));
        let [private, own] = enrolment::default_keys_of(&self.home, &grant.id);
        let default = match *word {
            "private" => Some(private),
            "self" => Some(own),
            _ => None,
        };
        if let Some(name) = default
            && self.home.live(tx, &name, self.now)?.is_some()
        {
            names.push(name);
        }
        Ok(CommandAnswer::Data(array(names.iter().map(String::as_str))))
    }

    fn put_key(&self, tx: &mut Tx<'_>, given: &KeysCommand, grant: &Grant) -> Handled {
        let name = self.name_of(given)?;
        let namespace = given.namespace.as_deref().unwrap_or_default();
        let allowed = match namespace {
            GLOBAL => true,
            MANAGE => grant.manages(),
            _ => grant.has(namespace, Need::Write) || grant.has("*", Need::Write),
        };
        let old = self.home.record(tx, &name)?;
        let foreign = old.is_some_and(|old| !enrolment::is_kept_by(&grant.id, &name, &old));
        if !allowed || foreign {
            let text = format!(
                "Connection with enrollment ID {} is not authorized to put key: {name}",
                grant.id
            );
            return Err(refuse(Code::Unauthorized, text));
        }
        let value = given.value.clone().unwrap_or_default();
        if value.is_empty() || value.len() > MAX_KEPT_VALUE {
            let text = format!("a value has 1 to {MAX_KEPT_VALUE} bytes");
            return Err(refuse(Code::IllegalArguments, text));
        }
        let own = enrolment::kept_by(tx, &self.home, &grant.id)?;
        if own.len() >= MAX_KEPT && !own.contains(&name) {
            return Err(refuse(Code::IllegalArguments, "too many keys are kept"));
        }
        let kept = Kept {
            value: Some(value),
            key_type: given.key_type.clone(),
            enrollment: Some(grant.id.clone()),
            encryption_key_name: given.encryption_key_name.clone(),
        };
        let record = Record {
            value: json::to_string(&kept),
            meta: Meta::merged(None, &Default::default(), self.now),
        };
        self.home
            .put(tx, &name, &record, Change::Update, Logged::Never)?;
        Ok(CommandAnswer::Data("-1".into()))
    }

    /// Where a key is kept.
    fn name_of(&self, given: &KeysCommand) -> Result<String, Refusal> {
        let unusable = |why: &str| refuse(Code::InvalidSyntax, format!("Invalid syntax. {why}"));
        let proper = |word: &Option<String>| {
            let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
            let word = word.as_deref().unwrap_or_default();
            (!word.is_empty() && word.chars().all(fits)).then(|| word.to_lowercase())
        };
        let key = proper(&given.key_name).ok_or_else(|| unusable("keyName"))?;
        let namespace = proper(&given.namespace).ok_or_else(|| unusable("namespace"))?;
        let end = format!("{namespace}{}", self.home.who);
        let device = || {
            let (app, device) = (proper(&given.app_name), proper(&given.device_name));
            let both = app.zip(device);
            both.ok_or_else(|| unusable("appName and deviceName are needed"))
        };
        let name = match given.visibility.as_deref() {
            Some("public") => format!("public:{key}.__public_keys.{end}"),
            Some("private") => {
                let (app, device) = device()?;
                format!("private:{app}.{device}.{key}.__private_keys.{end}")
            }
            Some("self") => {
                let (app, device) = device()?;
                format!("{app}.{device}.{key}.__self_keys.{end}")
            }
            _ => return Err(unusable("keys:put needs public, private or self")),
        };
        if name.len() > MAX_KEY {
            let text = format!(
                "key length {} is greater than max allowed {MAX_KEY} chars",
                name.len()
            );
            return Err(refuse(Code::InvalidKey, text));
        }
        Ok(name)
    }
}

/// A new login key is signed with its private half: nobody is locked out by a key that nobody has.
fn proves_possession(of: &StoredEnrolment, signature: Option<&str>) -> Result<(), Refusal> {
    let algo = of.signing_algo.as_deref();
    let signed = format!("{}|{}|{}", of.id, of.public_key, algo.unwrap_or("null"));
    let how = algo.and_then(SigningAlgo::parse).unwrap_or_default();
    let good = signature.is_some_and(|signature| {
        verify(
            (how, HashingAlgo::Sha256),
            &of.public_key,
            signed.as_bytes(),
            signature,
        )
    });
    if good {
        return Ok(());
    }
    Err(wrong(
        "apkamPublicKeySignature is not the signature of the new apkamPublicKey",
    ))
}
