//! Text to [`Verb`], of the commands that manage an atSign: lists, enrolments, codes, keys.

use super::command::{AccessList, Config, EnrollOperation, KeysCommand, Verb};
use super::params::{BadParameters, Params, Parsed, atsign, require};
use crate::at::metadata::natural;

pub(super) fn config(mut params: Params<'_>) -> Parsed {
    let list = if params.word("block") {
        AccessList::Block
    } else if params.lenient() && params.word("allow") {
        AccessList::Allow
    } else {
        let operation = params.one_of(&["set", "reset", "print"]);
        return Ok(Verb::Config(Config::Setting {
            operation: operation.ok_or(BadParameters::Form)?.to_owned(),
            name: params.all()?.to_owned(),
        }));
    };
    let operation = params.one_of(&["add", "remove", "show"]);
    if operation == Some("show") {
        require(params.rest.trim().is_empty())?;
        return Ok(Verb::Config(Config::Show(list)));
    }
    let mut names = Vec::new();
    for name in params.all()?.split(' ') {
        require(name.starts_with('@'))?;
        names.push(atsign(name)?);
    }
    match operation {
        Some("add") => Ok(Verb::Config(Config::Add(list, names))),
        Some(_) => Ok(Verb::Config(Config::Remove(list, names))),
        None => Err(BadParameters::Form),
    }
}

pub(super) fn batch(params: Params<'_>) -> Parsed {
    let json = params.all()?.to_owned();
    Ok(Verb::Batch { json })
}

pub(super) fn enroll(mut params: Params<'_>) -> Parsed {
    let all = EnrollOperation::ALL.iter();
    let known = all.filter(|(_, _, classic)| *classic || params.lenient());
    let mut ahead = params;
    let operation = known
        .into_iter()
        .find(|(_, word, _)| ahead.word(word))
        .map(|(operation, _, _)| *operation)
        .ok_or(BadParameters::Form)?;
    params = ahead;
    let force = params.word("force");
    let text = params.rest.strip_prefix(':').unwrap_or(params.rest);
    require(!params.rest.starts_with(' '))?;
    Ok(Verb::Enroll {
        operation,
        force,
        params: (!text.is_empty()).then(|| text.to_owned()),
    })
}

pub(super) fn otp(mut params: Params<'_>) -> Parsed {
    if params.word("get") {
        let ttl = params.item("ttl", natural);
        params.end()?;
        return Ok(Verb::OtpGet { ttl });
    }
    let passcode = |text: &str| {
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        (text.len() >= 6 && text.chars().all(word)).then(|| text.to_owned())
    };
    let otp = params.item("put", passcode).ok_or(BadParameters::Form)?;
    let ttl = params.item("ttl", natural);
    params.end()?;
    Ok(Verb::OtpPut { otp, ttl })
}

pub(super) fn keys(mut params: Params<'_>) -> Parsed {
    let words = |extra: &'static str| {
        move |text: &str| {
            let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || extra.contains(c);
            text.chars().all(fits).then(|| text.to_owned())
        }
    };
    let operation = params
        .one_of(&["put", "get", "delete"])
        .ok_or(BadParameters::Form)?;
    let visibility = params.one_of(&["public", "private", "self"]);
    let mut keys = KeysCommand {
        operation: operation.to_owned(),
        visibility: visibility.map(str::to_owned),
        namespace: params.item("namespace", words("")),
        app_name: params.item("appName", words("")),
        device_name: params.item("deviceName", words("")),
        key_type: params.item("keyType", words("-")),
        encryption_key_name: params.item("encryptionKeyName", words("-")),
        key_name: None,
        value: None,
    };
    let mut ahead = params;
    if ahead.word("keyName") && ahead.rest.starts_with(':') {
        // A whole key, colons and all, up to the first blank.
        let text = ahead.all()?;
        let (name, value) = text.split_once(' ').unwrap_or((text, ""));
        keys.key_name = (!name.is_empty()).then(|| name.to_owned());
        keys.value = (!value.is_empty()).then(|| value.to_owned());
        keys.key_name.as_ref().ok_or(BadParameters::Form)?;
    } else if !params.rest.is_empty() {
        keys.value = Some(params.all()?.to_owned());
    }
    Ok(Verb::Keys(keys))
}

pub(super) fn stream(params: Params<'_>) -> Parsed {
    let all = params.all()?;
    let known = ["init", "send", "receive", "done", "resume"];
    require(known.iter().any(|word| all.starts_with(word)))?;
    let rest = all.to_owned();
    Ok(Verb::Stream { rest })
}
