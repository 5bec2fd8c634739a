//! Codes that let a device ask: one for one request, or one for many.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use argh::{ArgsInfo, FromArgs};
use log::LevelFilter;

use crate::{
    at::{AtSign, Verb, client::Link},
    cli::{Console, Failure, Given, Outcome, Progress, SecretSource, flags},
    text::duration::millis,
};

use super::{manage::refused, show};

/// The code that a request needs.
pub(super) const CODE: SecretSource = SecretSource {
    what: "passcode",
    flag: "--code-file",
    variable: "NOPORTS_CODE",
};
/// Shortest and longest code, in characters; what servers take.
const LENGTHS: std::ops::RangeInclusive<usize> = 6..=64;
/// Options that take a value, in all of these programs.
const WITH_VALUE: [&str; 14] = [
    "--code-file",
    "--device",
    "--app",
    "--namespaces",
    "--life",
    "--timeout",
    "--status",
    "--limit",
    "--ttl",
    "--passphrase-file",
    "--keys",
    "--root",
    "--ca",
    "--id",
];

flags! {
    /// Make a passcode with which a new device may ask for keys.
    ///
    /// otp (one-time passcode): the atServer makes one that is good for one request within five minutes, and it is
    /// printed on stdout. spp (semi-permanent passcode): set one of your own for many requests; it is read from
    /// --code-file, NOPORTS_CODE or stdin. A passcode only allows asking: every request must still be approved.
    #[derive(FromArgs, ArgsInfo, Debug)]
    #[argh(
        example = "noports enroll otp @alice",
        example = "noports enroll otp @alice --ttl 1h",
        example = "noports enroll spp @alice --code-file passcode.txt --ttl 7d"
    )]
    pub(crate) struct Args {
        /// your atSign
        #[argh(positional)]
        atsign: String,
        /// how long the passcode is valid, such as 1h or 2d12h (default: the atServer decides)
        #[argh(option, arg_name = "duration", from_str_fn(millis))]
        ttl: Option<Duration>,
        /// spp: file with the passcode (or NOPORTS_CODE, or stdin)
        #[argh(option, arg_name = "file")]
        code_file: Option<PathBuf>,
        account,
    }
}

/// Runs `otp`, or `spp` when the code shall stand.
pub(super) fn main(console: Console, standing: bool, words: &[&str]) -> ExitCode {
    if let Err(failure) = refuse_codes(words) {
        return console.finish(words.contains(&"--json"), Err(failure));
    }
    let story = async |console: &Console, args| run(console, standing, args).await;
    console.start(words, LevelFilter::Warn, 1, story)
}

/// Refuses command lines that seem to hold a code, without repeating it.
pub(super) fn refuse_codes(words: &[&str]) -> Result<(), Failure> {
    CODE.refuse_in(
        words,
        &WITH_VALUE,
        &["--code=", "--otp", "--pass=", "-s"],
        1,
    )
}

async fn run(console: &Console, standing: bool, args: Args) -> Result<(), Failure> {
    let ttl = args.ttl.map(show::life);
    let phrases = console.phrases(args.passphrase_file.as_deref())?;
    let who: AtSign = args.atsign.parse()?;
    let (network, keys) = args.account().load_with(Some(who.as_str()), &phrases)?;
    let mut progress = Progress::new(args.quiet);
    let verb = if standing {
        Verb::OtpPut {
            otp: standing_code(&args, console.given(), who.as_str())?,
            ttl,
        }
    } else {
        Verb::OtpGet { ttl }
    };
    let mut link = Link::connect(&network, &who).await?;
    link.login(&keys).await?;
    progress.done(format_args!("logged in as {who}"));
    let answer = link.ask(&verb).await.map_err(refused)?;
    if standing && !args.json {
        progress.done("the passcode is set");
    }
    let code = (!standing).then_some(answer);
    let outcome = Outcome::new("code")
        .with("atsign", who.as_str())
        .maybe("code", code.as_deref());
    let outcome = match code {
        Some(code) => outcome.plain(code.clone()).classic(code),
        None => outcome,
    };
    console.tell(args.json, outcome);
    Ok(())
}

fn standing_code(args: &Args, given: &Given, who: &str) -> Result<String, Failure> {
    let prompt = format!("passcode for requests to {who} (it is not shown):");
    let code = given.secret(&CODE, args.code_file.as_deref(), &prompt)?;
    let code = code.reveal();
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if LENGTHS.contains(&code.len()) && code.chars().all(word) {
        Ok(code.clone())
    } else {
        Err(Failure::misuse(
            "a passcode has 6 to 64 letters and digits, and nothing else",
        ))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crate::cli::exit;
    use crate::program::enroll::codes::*;

    #[test]
    fn a_code_in_the_command_line_is_refused_and_never_repeated() {
        for args in [
            &["@alice", "A1B2C3"][..],
            &["@alice", "--otp", "A1B2C3"],
            &["@alice", "--code=A1B2C3"],
            &["@alice", "-s", "A1B2C3"],
        ] {
            let failure = refuse_codes(args).unwrap_err();
            let told = format!("{failure} {:?}", failure.hint);
            assert!(!told.contains("A1B2C3"), "{args:?}: {told}");
            assert_eq!(failure.code, exit::MISUSE, "{args:?}");
        }
        for args in [
            &["@alice"][..],
            &["@alice", "--code-file", "f", "--device", "d", "-q"],
        ] {
            assert_eq!(refuse_codes(args), Ok(()), "{args:?}");
        }
    }
}
