//! Text to [`Verb`]. Parameters are taken from the left, each only where its whole form is right;
//! what no parameter takes must be the key, so anything unknown fails there.

use super::command::{Detail, Dialect, HashingAlgo, SigningAlgo, SyntaxError, Verb};
use super::{
    manage, notify,
    params::{BadParameters, Params, Parsed, atsign, key_error, long_enough, require, small},
};
use crate::at::{
    key::{AtKey, Scope},
    metadata::natural,
};

type VerbGrammar = (&'static str, fn(Params<'_>) -> Parsed, &'static str);

/// Word, reader, and the form that is shown to whoever got it wrong.
const VERBS: [VerbGrammar; 23] = [
    ("from", from, "from:<atSign>[:clientConfig:<json>]"),
    ("to", to, "to:<atSign>"),
    ("cram", cram, "cram:<digest>"),
    (
        "pkam",
        pkam,
        "pkam:[signingAlgo:<algo>:][hashingAlgo:<algo>:][enrollmentId:<id>:]<signature>",
    ),
    ("pol", pol, "pol"),
    (
        "scan",
        scan,
        "scan[:showhidden:true][:<atSign>][:page:<n>][ <regex>]",
    ),
    (
        "lookup",
        lookup,
        "lookup:[bypassCache:true:][meta:|all:]<key>@<owner>",
    ),
    (
        "plookup",
        plookup,
        "plookup:[bypassCache:true:][meta:|all:]<key>@<owner>",
    ),
    (
        "llookup",
        llookup,
        "llookup[:meta|:all][:cached][:public|:@<for>]:<key>@<owner>",
    ),
    (
        "update",
        update,
        "update[:meta|:json][:<metadata>][:public|:@<for>]:<key>[@<owner>] <value>",
    ),
    (
        "delete",
        delete,
        "delete[:priority:<p>][:cached][:public|:@<for>]:<key>[@<owner>]",
    ),
    (
        "notify",
        notify::notify,
        "notify[:id:<id>][:update|:delete][:<parameters>][:<metadata>]:@<to>:<key>[@<owner>][:<value>]",
    ),
    (
        "monitor",
        monitor,
        "monitor[:strict][:selfNotifications][:multiplexed][:<epochMillis>][ <regex>]",
    ),
    ("noop", noop, "noop:<milliseconds>"),
    ("info", info, "info[:brief]"),
    ("stats", stats, "stats[:<id>,<id>][:<regex>]"),
    ("sync", sync, "sync:from:<n>:limit:<n>[:<regex>]"),
    (
        "config",
        manage::config,
        "config:block:add|remove|show[:<atSign> <atSign>]",
    ),
    ("batch", manage::batch, "batch:<json>"),
    (
        "enroll",
        manage::enroll,
        "enroll:request|approve|deny|revoke|unrevoke|list|fetch|delete|update[:force][:<json>]",
    ),
    (
        "otp",
        manage::otp,
        "otp:get|put[:<passcode>][:ttl:<milliseconds>]",
    ),
    (
        "keys",
        manage::keys,
        "keys:get|put|delete[:<parameters>][:keyName:<name>][ <value>]",
    ),
    ("stream", manage::stream, "stream:<operation><parameters>"),
];

impl Verb {
    /// Reads one line, without its line end.
    ///
    /// The verb is taken in any case. Names of parameters are, too, in [`Dialect::Lenient`]. Keys are
    /// made lower case, except in `notify`; values stay as they are.
    ///
    /// # Errors
    /// When the line is no command of this dialect.
    pub fn parse(line: &str, dialect: Dialect) -> Result<Self, SyntaxError> {
        let end = line.find([':', ' ']).unwrap_or(line.len());
        let (word, rest) = line.split_at(end);
        let row = VERBS
            .iter()
            .find(|(name, _, _)| word.eq_ignore_ascii_case(name))
            .filter(|(name, _, _)| *name != "to" || dialect == Dialect::Lenient);
        let Some((name, read, form)) = row else {
            return Err(SyntaxError::UnknownVerb);
        };
        read(Params { rest, dialect }).map_err(|bad| match bad {
            BadParameters::Form => SyntaxError::Parameters(name, (*form).to_owned()),
            BadParameters::Key(bad) => SyntaxError::Key(bad),
        })
    }
}

/// A key, in the words of a command that names it.
pub(super) fn key(text: &str) -> Result<AtKey, BadParameters> {
    text.parse().map_err(|bad| key_error(text, bad))
}

/// The key of a look-up: with owner.
fn owned_key(text: &str) -> Result<AtKey, BadParameters> {
    let key = key(text)?;
    require(key.owner.is_some())?;
    Ok(key)
}

fn from(params: Params<'_>) -> Parsed {
    let all = params.all()?;
    let (who, config) = match all.split_once(':') {
        Some((who, config)) => (who, Some(config)),
        None => (all, None),
    };
    let config = config
        .map(|text| {
            let text = text
                .strip_prefix("clientConfig:")
                .ok_or(BadParameters::Form)?;
            let short = !params.lenient() && text.len() < 3;
            require(text.starts_with('{') && text.ends_with('}') && !short)?;
            Ok(text.to_owned())
        })
        .transpose()?;
    let who = atsign(who)?;
    Ok(Verb::From { who, config })
}

fn to(params: Params<'_>) -> Parsed {
    let who = atsign(params.all()?)?;
    Ok(Verb::To { who })
}

fn cram(params: Params<'_>) -> Parsed {
    let digest = params.all()?.to_owned();
    Ok(Verb::Cram { digest })
}

fn pkam(mut params: Params<'_>) -> Parsed {
    let signing = params.choice("signingAlgo", &["rsa2048", "ecc_secp256r1"]);
    let hashing = params.choice("hashingAlgo", &["sha256", "sha512"]);
    let enrollment = params.item("enrollmentId", |id| Some(id.to_owned()));
    Ok(Verb::Pkam {
        signing: signing.and_then(SigningAlgo::parse),
        hashing: hashing.map(|word| match word {
            "sha256" => HashingAlgo::Sha256,
            _ => HashingAlgo::Sha512,
        }),
        enrollment,
        signature: params.all()?.to_owned(),
    })
}

fn pol(params: Params<'_>) -> Parsed {
    params.end()?;
    Ok(Verb::Pol)
}

fn scan(mut params: Params<'_>) -> Parsed {
    let show_hidden = params.flag("showhidden").unwrap_or(false);
    let mut of = None;
    if let Some(name) = params.rest.strip_prefix(":@") {
        let end = name.find([':', ' ']).unwrap_or(name.len());
        of = Some(atsign(&name[..end])?);
        params.rest = &name[end..];
    }
    let page = params.item("page", small);
    let regex = params.behind_blank()?;
    require(!regex.is_some_and(|regex| regex.contains(char::is_whitespace)))?;
    Ok(Verb::Scan {
        show_hidden,
        of,
        page,
        regex: regex.map(str::to_owned),
    })
}

fn detail(params: &mut Params<'_>) -> Detail {
    match params.one_of(&["meta", "all"]) {
        Some("meta") => Detail::Meta,
        Some(_) => Detail::All,
        None => Detail::Value,
    }
}

fn lookup(mut params: Params<'_>) -> Parsed {
    let bypass_cache = params.flag("bypassCache").unwrap_or(false);
    let detail = detail(&mut params);
    let key = owned_key(params.all()?)?;
    long_enough(&key.entity, params.dialect)?;
    Ok(Verb::Lookup {
        key,
        detail,
        bypass_cache,
    })
}

fn plookup(mut params: Params<'_>) -> Parsed {
    let bypass_cache = params.flag("bypassCache").unwrap_or(false);
    let detail = detail(&mut params);
    let key = owned_key(params.all()?)?;
    Ok(Verb::Plookup {
        key,
        detail,
        bypass_cache,
    })
}

fn llookup(mut params: Params<'_>) -> Parsed {
    let detail = detail(&mut params);
    let key = owned_key(params.all()?)?;
    long_enough(&key.entity, params.dialect)?;
    Ok(Verb::Llookup { key, detail })
}

fn update(mut params: Params<'_>) -> Parsed {
    if params.lenient() {
        // "No commit entry": the entry we write all the same harms nobody.
        params.word("nc");
    }
    let mut ahead = params;
    if ahead.word("json") && ahead.rest.starts_with(':') {
        let json = ahead.all()?.to_owned();
        return Ok(Verb::UpdateJson { json });
    }
    if ahead.word("meta") && ahead.rest.starts_with(':') {
        return update_meta(ahead);
    }
    let (head, value) = params.rest.split_once(' ').ok_or(BadParameters::Form)?;
    params.rest = head;
    let metadata = params.metadata();
    let key = key(params.all()?)?;
    require(!value.is_empty() && may_change(&key, "at_pkam_publickey") && !key.cached)?;
    Ok(Verb::Update {
        key,
        metadata,
        value: value.to_owned(),
    })
}

/// Of the server's own keys a client may name just one.
fn may_change(key: &AtKey, private_key: &str) -> bool {
    match key.scope {
        Scope::Private => false,
        Scope::PrivateKey => key.entity == private_key,
        _ => true,
    }
}

fn update_meta(mut params: Params<'_>) -> Parsed {
    let all = params.all()?;
    // The key ends where its owner ends: at the first colon behind the `@` behind the scope.
    let scope = if all.starts_with('@') {
        all.find(':').ok_or(BadParameters::Form)?
    } else {
        0
    };
    let owner = scope + all[scope..].find('@').ok_or(BadParameters::Form)?;
    let end = owner + all[owner..].find(':').unwrap_or(all.len() - owner);
    let key = owned_key(&all[..end])?;
    long_enough(&key.entity, params.dialect)?;
    params.rest = &all[end..];
    let metadata = params.metadata();
    params.end()?;
    require(!key.cached && may_change(&key, ""))?;
    Ok(Verb::UpdateMeta { key, metadata })
}

fn delete(mut params: Params<'_>) -> Parsed {
    let mut force = false;
    if params.lenient() {
        params.time("dAt");
        params.word("nc");
        force = params.word("force");
    }
    let priority = params.choice("priority", &["low", "medium", "high"]);
    let key = key(params.all()?)?;
    require(may_change(&key, "at_secret"))?;
    if force {
        return Ok(Verb::ForceDelete { key });
    }
    Ok(Verb::Delete {
        key,
        priority: priority.map(str::to_owned),
    })
}

fn monitor(mut params: Params<'_>) -> Parsed {
    let strict = params.word("strict");
    let self_notifications = params.word("selfNotifications");
    let multiplexed = params.word("multiplexed");
    let mut since = None;
    if let Some((digits, rest)) = params.segment() {
        since = Some(natural(digits).ok_or(BadParameters::Form)?);
        params.rest = rest;
    }
    Ok(Verb::Monitor {
        strict,
        self_notifications,
        multiplexed,
        since,
        regex: params.behind_blank()?.map(str::to_owned),
    })
}

fn noop(params: Params<'_>) -> Parsed {
    let millis = natural(params.all()?).ok_or(BadParameters::Form)?;
    Ok(Verb::Noop { millis })
}

fn info(mut params: Params<'_>) -> Parsed {
    let brief = params.word("brief");
    params.end()?;
    Ok(Verb::Info { brief })
}

fn stats(params: Params<'_>) -> Parsed {
    if params.rest.is_empty() {
        let (ids, regex) = (Vec::new(), None);
        return Ok(Verb::Stats { ids, regex });
    }
    let all = params.all()?;
    let (list, regex) = match all.split_once(':') {
        Some((list, regex)) => (list, Some(regex.to_owned())),
        None => (all, None),
    };
    let is_id = |id: &str| !id.is_empty() && id.bytes().all(|b| b.is_ascii_digit());
    let ids: Vec<String> = list.split(',').map(str::to_owned).collect();
    let sound = ids.iter().all(|id| is_id(id)) && !list.starts_with('0');
    let filtered = regex.as_ref().is_none_or(|regex| {
        // Only these two statistics take a filter.
        !regex.is_empty() && matches!(list, "3" | "15")
    });
    require(sound && filtered)?;
    Ok(Verb::Stats { ids, regex })
}

fn sync(mut params: Params<'_>) -> Parsed {
    let commit = |text: &str| match text {
        "-1" => Some(-1),
        text => natural(text)?.try_into().ok(),
    };
    let (from, limit) = match params.item("from", commit) {
        Some(from) => {
            let limit = params.item("limit", |text| {
                let limit = natural(text)?;
                Some(limit.try_into().unwrap_or(u32::MAX))
            });
            if params.lenient() {
                // Deletes that the client could do without; it gets them all the same.
                params.item("skipDeletesUntil", natural);
            } else {
                require(limit.is_some())?;
            }
            (from, limit)
        }
        None => {
            let (from, rest) = params.segment().ok_or(BadParameters::Form)?;
            params.rest = rest;
            (commit(from).ok_or(BadParameters::Form)?, None)
        }
    };
    let regex = match params.rest {
        "" => None,
        _ => Some(params.all()?.to_owned()),
    };
    Ok(Verb::Sync { from, limit, regex })
}
