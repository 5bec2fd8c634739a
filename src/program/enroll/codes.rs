//! Codes that let a device ask: one for one request, or one for many.

use miniserde::json;

use crate::{
    at::{Verb, client::Link},
    cli::{self, Console, Failure, Given},
};

use super::{CODE, Codes, Manager, show};

/// Shortest and longest code, in characters; what servers take.
const LENGTHS: std::ops::RangeInclusive<usize> = 6..=64;

#[derive(miniserde::Serialize)]
struct Made<'a> {
    event: &'static str,
    atsign: &'a str,
    code: Option<&'a str>,
}

/// `otp`, or `spp` when the code shall stand.
pub(super) async fn run(console: &Console, standing: bool, args: Codes) -> Result<(), Failure> {
    let ttl = args.ttl.map(show::life);
    let phrases = console.phrases(args.passphrase_file.as_deref())?;
    let mut manager = Manager::new(&args.atsign, args.account(), &phrases, args.quiet)?;
    let who = manager.keys.atsign.clone();
    let verb = if standing {
        Verb::OtpPut {
            otp: standing_code(&args, console.given(), who.as_str())?,
            ttl,
        }
    } else {
        Verb::OtpGet { ttl }
    };
    let mut link = Link::open(&manager.network, &who).await?;
    link.login(&manager.keys).await?;
    manager.progress.done(format_args!("logged in as {who}"));
    let answer = link.ask(&verb).await?;
    let code = (!standing).then_some(answer.as_str());
    match (args.json, code) {
        (true, code) => cli::print_out(&json::to_string(&Made {
            event: "code",
            atsign: who.as_str(),
            code,
        })),
        (false, Some(code)) => cli::print_out(code),
        (false, None) => manager.progress.done("the code is set"),
    }
    Ok(())
}

fn standing_code(args: &Codes, given: &Given, who: &str) -> Result<String, Failure> {
    let code = match &given.secret {
        Some(code) => code.clone(),
        None => CODE.read(
            args.code_file.as_deref(),
            &format!("the code for requests to {who} (it is not shown):"),
        )?,
    };
    let code = code.reveal();
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if LENGTHS.contains(&code.len()) && code.chars().all(word) {
        Ok(code.clone())
    } else {
        Err(Failure::misuse(
            "a code has 6 to 64 letters and digits, and nothing else",
        ))
    }
}
