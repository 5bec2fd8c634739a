//! `noports trust` — which keys of others are believed; a new key of somebody is the right one.
//!
//! ```text
//!   @alice has new keys ─▶ the daemon refuses her: another key than before ─▶ noports trust @alice, at the device
//!                                                   └─▶ or from afar, by another manager, whose key the daemon knows:
//!                                                       noports trust @alice --fingerprint F --at pi@device
//! ```
//! Her atServer is asked without anybody's keys. Compare the fingerprint with the one that she sees herself when she runs
//! `noports trust show @alice`: who runs her atServer could tell another one.
//!
//! From afar it is a request to open `@alice#F`, which is no host, signed as every request. A daemon does it for a manager
//! whose key it has remembered from a session before, or that its command line names; for a key of another manager; and never
//! against a key that its command line names. So whoever runs the atServer of a manager who never came can still have a session
//! first and vouch then: who wants to shut that out names all managers' keys (`--manager @alice#F`).
//!
//! A daemon or client that runs heeds what is said here from the next request on; sessions that are open stay open.

use std::{process::ExitCode, time::Duration};

use argh::{ArgsInfo, FromArgs};
use log::LevelFilter;

use super::published;
use crate::{
    at::{
        AtSign,
        client::Link,
        crypto::PublicKey,
        pins::{Fingerprint, Pins},
    },
    cli::{self, Console, Failure, Outcome, exit, flags},
    session::ask::{self, PATIENCE, Want, Whom},
    sys::paths,
    text::{endpoint::Endpoint, json::Object},
};

/// What `show` does not say.
const FROM_NOW_ON: &str = "believed from now on";
/// Only its signature counts.
const ANY_PORT: u16 = 1;

flags! {
    /// Show which keys of others are believed, believe a new one, or forget one.
    ///
    /// Run it as the user that the daemon or client runs as. The first key that these see of a manager, policy or device is
    /// remembered, and another one is refused until it is trusted here. `list`: all that are remembered. `show @alice`: the
    /// one that is remembered, and the one of now. `remove @alice`: forget it, so that the next one counts. Programs that run
    /// heed it from the next request on. With `--at`, another manager vouches from afar: one whose key the device has
    /// remembered from a session before, or that was named to it.
    ///
    /// For the day keys are lost: `noports keys reserve` makes some in reserve, which daemons believe with --recovery.
    #[derive(FromArgs, ArgsInfo, Debug)]
    #[argh(
        example = "noports trust show @alice",
        example = "noports trust @alice",
        example = "noports trust @alice --fingerprint 2jmj7l5rSw0yVb/vlWAYkK/YBwk5K4h8E1hJMfVZKxI",
        example = "noports trust list",
        example = "noports trust remove @alice",
        error_code(1, "failed"),
        error_code(2, "the command line was wrong"),
        error_code(4, "the atDirectory or the atServer cannot be reached"),
        error_code(5, "no such atSign"),
        error_code(8, "with --at: the device refuses"),
        error_code(10, "the key has another fingerprint"),
        error_code(11, "a TLS certificate is not trusted here")
    )]
    pub(crate) struct Args {
        /// list, show @alice or remove @alice; or whose key to believe
        #[argh(positional)]
        word: Vec<String>,
        /// believe it only if it has this fingerprint
        #[argh(option, arg_name = "text")]
        fingerprint: Option<String>,
        /// not here, but at this device, of which you are another manager
        #[argh(option, arg_name = "device")]
        at: Option<String>,
        /// with --at: the rendezvous' atSign (or NOPORTS_VIA)
        #[argh(option, arg_name = "atsign")]
        via: Option<String>,
        /// with --at: your atSign (or NOPORTS_AS; default: the only one with keys here)
        #[argh(option, long = "as", arg_name = "atsign")]
        as_: Option<String>,
        account,
    }
}

/// Runs the program; `args` without its name.
pub fn main(console: Console, args: &[&str]) -> ExitCode {
    console.start(args, LevelFilter::Warn, 1, run)
}

async fn run(console: &Console, args: Args) -> Result<(), Failure> {
    let pins = Pins::new(paths::memory(), Vec::new());
    let wanted = args.fingerprint.as_deref().map(str::parse::<Fingerprint>);
    let wanted = wanted.transpose().map_err(Failure::misuse)?;
    let words: Vec<_> = args.word.iter().map(String::as_str).collect();
    let is_believed = wanted.is_some() || args.at.is_some();
    match words.as_slice() {
        [] | ["list" | "show" | "remove", ..] if is_believed => {
            let failure = Failure::misuse("--fingerprint and --at are for a key to believe");
            Err(failure.hint("noports trust @alice --fingerprint F"))
        }
        [] | ["list"] => list(console, &args, &pins),
        ["show", who] => show(console, &args, &pins, &who.parse()?).await,
        ["remove", who] => remove(console, &args, &pins, &who.parse()?),
        [word @ ("show" | "remove")] => {
            let failure = Failure::misuse(format!("{word}: whose key?"));
            Err(failure.hint(format!("noports trust {word} @alice")))
        }
        [who] => believe(console, &args, &pins, &who.parse()?, wanted).await,
        [word, ..] => {
            let failure = Failure::misuse(format!("{word:?} with other words is nothing to do"));
            Err(failure.hint("noports trust list; show @alice; remove @alice; @alice"))
        }
    }
}

/// The key that its atServer tells.
async fn key_of(args: &Args, who: &AtSign) -> Result<Fingerprint, Failure> {
    let network = cli::network(args.root.as_deref(), &args.ca)?;
    let mut link = Link::connect(&network, who).await?;
    let text = published::public_key(&mut link, who).await?;
    let text = text.ok_or_else(|| {
        Failure::new(exit::UNKNOWN, format!("{who} has no public key yet"))
            .hint(format!("activate it first: noports activate {who}"))
    })?;
    Ok(Fingerprint::of(&PublicKey::parse(text.trim())?))
}

fn unwritten(why: impl std::fmt::Display) -> Failure {
    Failure::plain(format!("the key cannot be remembered: {why}"))
}

fn remembered(pins: &Pins, who: &AtSign) -> Result<Option<String>, Failure> {
    let all = pins.read();
    let mut all = all.map_err(|why| Failure::plain(format!("the keys cannot be read: {why}")))?;
    Ok(all.remove(who).map(|known| known.key.to_string()))
}

async fn believe(
    console: &Console,
    args: &Args,
    pins: &Pins,
    who: &AtSign,
    wanted: Option<Fingerprint>,
) -> Result<(), Failure> {
    if let Some(device) = &args.at {
        return vouch(console, args, who, wanted, device).await;
    }
    let now = key_of(args, who).await?;
    if let Some(wanted) = wanted.filter(|wanted| *wanted != now) {
        let why = format!("the key of {who} is {now}, and not {wanted}");
        return Err(Failure::new(exit::NOT_TRUSTWORTHY, why).hint("nothing has been changed"));
    }
    let before = pins.trust(who, &now).map_err(unwritten)?;
    let before = before.map(|before| before.to_string());
    let words = match &before {
        Some(before) if *before == now.to_string() => {
            format!("{who} {now}\nbelieved as before; what its program could do is forgotten")
        }
        Some(before) => format!("{who} {now}\n{FROM_NOW_ON}\nbefore: {before}"),
        None => format!("{who} {now}\n{FROM_NOW_ON}"),
    };
    let outcome = Outcome::new("trusted")
        .with("atsign", who.as_str())
        .with("fingerprint", &now.to_string())
        .maybe("before", before.as_deref());
    console.tell(args.json, outcome.plain(words));
    Ok(())
}

/// Somebody else's daemon is told, as a manager of it.
async fn vouch(
    console: &Console,
    args: &Args,
    who: &AtSign,
    key: Option<Fingerprint>,
    device: &str,
) -> Result<(), Failure> {
    let key = key.ok_or_else(|| {
        Failure::misuse("--at without --fingerprint").hint(format!(
            "ask {who} for it, who sees it with: noports trust show {who}"
        ))
    })?;
    let whom = Whom::parse(device, None, args.via.as_deref(), PATIENCE)?;
    let (network, keys) = args.account().load(console, args.as_.as_deref())?;
    let mut progress = console.progress(args.quiet);
    let target = Endpoint {
        host: format!("{who}#{key}"),
        port: ANY_PORT,
    };
    let want = Want::Tunnel {
        target: &target,
        timeout: Duration::ZERO,
    };
    ask::open_session(&network, keys, &whom, want, &mut progress).await?;
    let outcome = Outcome::new("trusted")
        .with("atsign", who.as_str())
        .with("fingerprint", &key.to_string())
        .with("at", device);
    console.tell(
        args.json,
        outcome.plain(format!("{who} {key}\n{FROM_NOW_ON}\nat: {device}")),
    );
    Ok(())
}

/// Changes nothing.
async fn show(console: &Console, args: &Args, pins: &Pins, who: &AtSign) -> Result<(), Failure> {
    let (known, now) = (remembered(pins, who)?, key_of(args, who).await?.to_string());
    let words = match &known {
        Some(known) if *known == now => format!("{who} {now}\nremembered: the same"),
        Some(known) => format!("{who} {now}\nremembered: {known}"),
        None => format!("{who} {now}\nremembered: none"),
    };
    let outcome = Outcome::new("key")
        .with("atsign", who.as_str())
        .with("fingerprint", &now)
        .maybe("remembered", known.as_deref());
    console.tell(args.json, outcome.plain(words));
    Ok(())
}

fn remove(console: &Console, args: &Args, pins: &Pins, who: &AtSign) -> Result<(), Failure> {
    let before = pins
        .forget(who)
        .map_err(unwritten)?
        .map(|key| key.to_string());
    let words = match &before {
        Some(before) => format!("{who} {before} is forgotten: the next key that is seen counts"),
        None => format!("no key of {who} is remembered"),
    };
    let outcome = Outcome::new("forgotten")
        .with("atsign", who.as_str())
        .maybe("before", before.as_deref());
    console.tell(args.json, outcome.plain(words));
    Ok(())
}

fn list(console: &Console, args: &Args, pins: &Pins) -> Result<(), Failure> {
    let all = pins.read();
    let all = all.map_err(|why| Failure::plain(format!("the keys cannot be read: {why}")))?;
    let lines: Vec<_> = all
        .iter()
        .map(|(who, known)| format!("{who} {}", known.key))
        .collect();
    let members = all.iter().map(|(who, known)| {
        let key = known.key.to_string();
        Object::new()
            .text("atsign", who.as_str())
            .text("fingerprint", &key)
            .end()
    });
    let keys = members.collect::<Vec<_>>().join(",");
    let outcome = Outcome::new("keys").raw("keys", format_args!("[{keys}]"));
    if args.json || !lines.is_empty() {
        console.tell(args.json, outcome.plain(lines.join("\n")));
    }
    Ok(())
}
