//! The `notify` family, the longest grammar of all.
//!
//! ```text
//!   notify:id:7f0c:update:ttln:60000:isEncrypted:true:@bob:req.dev1.sshnp@alice:Zm8=
//!         '───────── options ──────' '─ metadata ──' '───── subject ──────────' '─ value
//! ```

use super::{
    command::{Dialect, Notify, Operation, Subject, Verb},
    params::{BadParameters, Params, Parsed, atsign, id, key_error, long_enough, require, small},
};
use crate::at::{
    key::AtKey,
    metadata::{Metadata, natural},
};

pub(super) fn notify(mut params: Params<'_>) -> Parsed {
    match params.one_of(&["list", "status", "fetch", "remove", "all"]) {
        None => {}
        Some("list") => return list(params),
        Some("all") => return all(params),
        Some(word) => return about_one(word, params),
    }
    let mut options = NotifyOptions::default();
    options.read(&mut params);
    let notify = options.with_subject(params)?;
    Ok(Verb::Notify(Box::new(notify)))
}

/// What stands in front of the subject.
#[derive(Default)]
struct NotifyOptions {
    id: Option<String>,
    operation: Option<Operation>,
    message_type: Option<&'static str>,
    priority: Option<&'static str>,
    strategy: Option<&'static str>,
    latest_n: Option<u32>,
    notifier: Option<String>,
    ttln: Option<u64>,
    metadata: Metadata,
}

type OptionReader = fn(&mut NotifyOptions, &mut Params<'_>) -> bool;

/// The options in wire order.
const OPTION_READERS: [OptionReader; 8] = [
    |o, p| take(&mut o.id, || p.item("id", id)),
    |o, p| take(&mut o.operation, || operation(p)),
    |o, p| take(&mut o.message_type, || message_type(p)),
    |o, p| {
        take(&mut o.priority, || {
            p.choice("priority", &["low", "medium", "high"])
        })
    },
    |o, p| take(&mut o.strategy, || p.choice("strategy", &["all", "latest"])),
    |o, p| take(&mut o.latest_n, || p.item("latestN", small)),
    |o, p| {
        take(&mut o.notifier, || {
            p.item("notifier", |n| Some(n.to_owned()))
        })
    },
    |o, p| take(&mut o.ttln, || p.item("ttln", natural)),
];

/// Fills what is still empty; a second option of the same name is not taken.
fn take<T>(into: &mut Option<T>, read: impl FnOnce() -> Option<T>) -> bool {
    if into.is_some() {
        return false;
    }
    *into = read();
    into.is_some()
}

fn operation(params: &mut Params<'_>) -> Option<Operation> {
    params.one_of(&["update", "delete"]).map(|word| match word {
        "update" => Operation::Update,
        _ => Operation::Delete,
    })
}

fn message_type(params: &mut Params<'_>) -> Option<&'static str> {
    let kinds = ["key", "text"];
    let read = params.choice("messageType", &kinds);
    // at_c's spelling.
    if params.lenient() {
        read.or_else(|| params.choice("message_type", &kinds))
    } else {
        read
    }
}

impl NotifyOptions {
    fn read(&mut self, params: &mut Params<'_>) {
        match params.dialect {
            Dialect::Classic => {
                for step in OPTION_READERS {
                    step(self, params);
                }
                self.metadata = params.metadata();
            }
            Dialect::Lenient => {
                while OPTION_READERS.iter().any(|step| step(self, params))
                    || params.any_metadata_item(&mut self.metadata)
                {}
            }
        }
    }

    fn with_subject(self, params: Params<'_>) -> Result<Notify, BadParameters> {
        let all = params.all()?;
        let (subject, value) = match self.message_type {
            Some("text") => (text(all, params)?, None),
            _ => key(all, params)?,
        };
        Ok(self.about(subject, value))
    }

    fn about(self, subject: Subject, value: Option<&str>) -> Notify {
        Notify {
            id: self.id,
            operation: self.operation,
            priority: self.priority.map(str::to_owned),
            strategy: self.strategy.map(str::to_owned),
            latest_n: self.latest_n,
            notifier: self.notifier,
            ttln: self.ttln,
            message_type: self.message_type.is_some(),
            metadata: self.metadata,
            subject,
            value: value.map(str::to_owned),
        }
    }
}

/// `@bob:any text`
fn text(all: &str, params: Params<'_>) -> Result<Subject, BadParameters> {
    let to = all.strip_prefix('@').ok_or(BadParameters::Form)?;
    let (to, text) = to.split_once(':').ok_or(BadParameters::Form)?;
    long_enough(text, params.dialect)?;
    let classic = !text.contains('@') && !text.contains("::") && !text.starts_with(':');
    require(!text.is_empty() && (classic || params.lenient()))?;
    Ok(Subject::Text {
        to: atsign(to)?,
        text: text.to_owned(),
    })
}

/// `@bob:x.ns@alice:value`, `@bob:public:x.ns@alice`, `public:x.ns@alice`
///
/// A colon in front of the owner starts the value, as no key has one. (The original takes it into
/// the key when no owner follows.)
fn key<'a>(all: &'a str, params: Params<'_>) -> Result<(Subject, Option<&'a str>), BadParameters> {
    let (scope, rest) = all.split_once(':').ok_or(BadParameters::Form)?;
    let to = match scope.strip_prefix('@') {
        Some(to) => Some(atsign(to)?),
        None if scope == "public" => None,
        None => return Err(BadParameters::Form),
    };
    let public = rest.strip_prefix("public:");
    let (scope, name) = match (&to, public) {
        (Some(_), Some(name)) => ("public", name),
        _ => (scope, rest),
    };
    let (name, value) = name_and_value(name, params)?;
    let written = format!("{scope}:{name}");
    let key = AtKey::parse_as_written(&written).map_err(|bad| key_error(&written, bad))?;
    long_enough(&key.entity, params.dialect)?;
    Ok((Subject::Key { to, key }, value))
}

fn name_and_value<'a>(
    text: &'a str,
    params: Params<'_>,
) -> Result<(&'a str, Option<&'a str>), BadParameters> {
    match text.split_once(':') {
        None => Ok((text, None)),
        Some((_, "")) if !params.lenient() => Err(BadParameters::Form),
        Some((name, value)) => Ok((name, Some(value))),
    }
}

fn list(mut params: Params<'_>) -> Parsed {
    let date = |params: &mut Params<'_>| {
        let text = params.rest.strip_prefix(':')?;
        let end = text.find(':').unwrap_or(text.len());
        let date = &text[..end];
        is_date(date).then(|| {
            params.rest = &text[end..];
            date.to_owned()
        })
    };
    let from = date(&mut params);
    let to = from.is_some().then(|| date(&mut params)).flatten();
    let regex = match params.rest {
        "" => None,
        _ => Some(params.all()?),
    };
    require(params.lenient() || !regex.is_some_and(|regex| regex.contains(':')))?;
    Ok(Verb::NotifyList {
        from,
        to,
        regex: regex.map(str::to_owned),
    })
}

/// `2024-10-01`, or with single digits.
fn is_date(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let [year, month, day] = parts[..] else {
        return false;
    };
    let number = |part: &str, digits: std::ops::RangeInclusive<usize>| {
        digits.contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit())
    };
    number(year, 4..=4) && number(month, 1..=2) && number(day, 1..=2)
}

/// `status`, `fetch`, `remove`.
fn about_one(word: &str, params: Params<'_>) -> Parsed {
    let text = params.all()?;
    require(!text.contains(char::is_whitespace))?;
    match word {
        "status" => Ok(Verb::NotifyStatus {
            id: text.to_owned(),
        }),
        "fetch" => Ok(Verb::NotifyFetch {
            id: text.to_owned(),
        }),
        _ => {
            let id = id(text).ok_or(BadParameters::Form)?;
            Ok(Verb::NotifyRemove { id })
        }
    }
}

/// `notify:all:update:messageType:key:ttl:…:@bob,@carol:x.ns@alice:v`
fn all(mut params: Params<'_>) -> Parsed {
    // What stands where it belongs is no metadata, though it may be called as some: `…:ttr:0:ttl:x.ns` is for @ttl.
    if params.lenient()
        && let Ok(verb) = all(Params {
            dialect: Dialect::Classic,
            ..params
        })
    {
        return Ok(verb);
    }
    let mut options = NotifyOptions {
        operation: operation(&mut params),
        message_type: message_type(&mut params),
        ..NotifyOptions::default()
    };
    options.metadata = params.metadata();
    let metadata = &options.metadata;
    let bare = Metadata {
        ttl: metadata.ttl,
        ttb: metadata.ttb,
        ttr: metadata.ttr,
        ccd: metadata.ccd,
        ..Metadata::default()
    };
    require(params.lenient() || *metadata == bare)?;
    let (names, rest) = params.all()?.split_once(':').ok_or(BadParameters::Form)?;
    let to = names
        .split(',')
        .map(atsign)
        .collect::<Result<Vec<_>, _>>()?;
    let (name, value) = name_and_value(rest, params)?;
    let key = AtKey::parse_as_written(name).map_err(|bad| key_error(name, bad))?;
    let subject = match (options.message_type, to.first()) {
        (Some("text"), Some(first)) => Subject::Text {
            to: first.clone(),
            text: name.to_owned(),
        },
        _ => Subject::Key { to: None, key },
    };
    let notify = Box::new(options.about(subject, value));
    Ok(Verb::NotifyAll { to, notify })
}
