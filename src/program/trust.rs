//! `noports trust` — a new key of somebody is the right one; what is remembered of whom.
//!
//! ```text
//!   @alice has new keys ─▶ the daemon refuses her: another key than before ─▶ noports trust @alice, at the device
//! ```
//! Her atServer is asked without anybody's keys. Compare the fingerprint with the one that she sees herself when she runs
//! `noports trust @alice`: who runs her atServer could tell another one.

use std::process::ExitCode;

use argh::{ArgsInfo, FromArgs};
use log::LevelFilter;

use super::published;
use crate::{
    at::{AtSign, client::Link, crypto::PublicKey},
    cli::{self, Console, Failure, Outcome, exit, flags},
    session::pins::{Fingerprint, Pins},
    sys::paths,
};

flags! {
    /// Believe a new key of an atSign, or show which keys are believed.
    ///
    /// Run it as the user that the daemon or client runs as. The first key that these see of a manager, policy or device is
    /// remembered, and another one is refused until it is trusted here.
    #[derive(FromArgs, ArgsInfo, Debug)]
    #[argh(
        example = "noports trust @alice",
        example = "noports trust @alice --fingerprint 2jmj7l5rSw0yVb/vlWAYkK/YBwk5K4h8E1hJMfVZKxI",
        example = "noports trust",
        error_code(1, "failed"),
        error_code(2, "the command line was wrong"),
        error_code(4, "the atDirectory or the atServer cannot be reached"),
        error_code(5, "no such atSign"),
        error_code(10, "the key has another fingerprint"),
        error_code(11, "a TLS certificate is not trusted here")
    )]
    pub(crate) struct Args {
        /// whose key; without one: print all that are remembered
        #[argh(positional)]
        atsign: Option<String>,
        /// believe it only if it has this fingerprint
        #[argh(option, arg_name = "text")]
        fingerprint: Option<String>,
        network,
    }
}

/// Runs the program; `args` without its name.
pub fn main(console: Console, args: &[&str]) -> ExitCode {
    console.start(args, LevelFilter::Warn, 1, run)
}

async fn run(console: &Console, args: Args) -> Result<(), Failure> {
    let pins = Pins::new(paths::memory(), Vec::new());
    let Some(who) = &args.atsign else {
        return list(console, &args, &pins);
    };
    let who: AtSign = who.parse()?;
    let wanted = args.fingerprint.as_deref().map(str::parse::<Fingerprint>);
    let wanted = wanted.transpose().map_err(Failure::misuse)?;
    let network = cli::network(args.root.as_deref(), &args.ca)?;
    let mut link = Link::connect(&network, &who).await?;
    let text = published::public_key(&mut link, &who).await?;
    let text = text.ok_or_else(|| {
        Failure::new(exit::UNKNOWN, format!("{who} has no public key yet"))
            .hint(format!("activate it first: noports activate {who}"))
    })?;
    let now = Fingerprint::of(&PublicKey::parse(text.trim())?);
    if let Some(wanted) = wanted.filter(|wanted| *wanted != now) {
        let why = format!("the key of {who} is {now}, and not {wanted}");
        return Err(Failure::new(exit::NOT_TRUSTWORTHY, why).hint("nothing has been changed"));
    }
    let trusted = pins.trust(&who, &now);
    let before = trusted
        .map_err(|why| Failure::plain(format!("the key cannot be remembered: {why}")))?
        .map(|before| before.to_string());
    let words = match &before {
        Some(before) if *before != now.to_string() => format!("{who} {now}\nbefore: {before}"),
        _ => format!("{who} {now}"),
    };
    let outcome = Outcome::new("trusted")
        .with("atsign", who.as_str())
        .with("fingerprint", &now.to_string())
        .maybe("before", before.as_deref())
        .plain(words);
    console.tell(args.json, outcome);
    Ok(())
}

fn list(console: &Console, args: &Args, pins: &Pins) -> Result<(), Failure> {
    if args.fingerprint.is_some() {
        return Err(Failure::misuse("--fingerprint: of whose key?").hint("noports trust @alice"));
    }
    let all = pins
        .read()
        .map_err(|why| Failure::plain(format!("the keys cannot be read: {why}")))?;
    for (who, key) in all {
        let outcome = Outcome::new("known")
            .with("atsign", who.as_str())
            .with("fingerprint", &key.to_string())
            .plain(format!("{who} {key}"));
        console.tell(args.json, outcome);
    }
    Ok(())
}
