//! `noports enroll @alice` — keys of its own for one more device of an atSign, as far as somebody allows.
//!
//! ```text
//!   new device                          atServer                     a device that has keys
//!                                                  ◀── enroll otp ──  a code for one request
//!   enroll: keys ─▶ @alice_key.atKeys.asked
//!           request with the code ────▶ pending    ── enroll list ─▶
//!           shows c3a9-f7d2, and a QR              ◀─ enroll approve ─ compares, says yes
//!           pkam, again and again ────▶ approved
//!           fetches alice's keys, encrypted for it
//!           @alice_key.atKeys
//! ```
//!
//! The key pair is on disk before the server hears of it, so a run that was killed is gone on with by the
//! next one. The code comes from a file, the environment or stdin, never from the command line.

use std::{path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use ::log::LevelFilter;
use argh::FromArgs;

use crate::{
    at::{AtSign, client::Network, keyfile::AtKeys},
    cli::{Account, Console, Failure, Phrases, Progress, SecretSource, with_account},
    sys::{log, process},
    text::duration::{millis, seconds},
};

use decide::Action;

mod ask;
mod auto;
mod codes;
mod decide;
mod show;
mod told;

/// The code that a request needs.
const CODE: SecretSource = SecretSource {
    what: "code",
    flag: "--code-file",
    variable: "NOPORTS_CODE",
};
/// How long a request waits for its approval, unless --timeout says otherwise.
const APPROVED_WITHIN: Duration = Duration::from_secs(3600);
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

/// Get keys of its own for this device, with a one-time code and somebody's approval.
///
/// The code is read from --code-file, else from the environment variable NOPORTS_CODE, else from stdin. The
/// new key file's path is printed on stdout. A run that was ended goes on where it was.
#[derive(FromArgs, Debug)]
#[argh(
    example = "{command_name} @alice --device kitchen",
    example = "{command_name} otp @alice",
    example = "{command_name} approve @alice c3a9-f7d2",
    note = "On a device that has keys, {command_name} WORD @alice, where WORD is\n  otp       make a code for one request\n  spp       set a code for many requests\n  list      show enrolments\n  approve   show what a device asks for, and grant it\n  auto      wait for requests, and approve those that fit\n  deny      refuse a request\n  revoke    take an enrolment back\n  unrevoke  give it back\n  delete    forget a denied or revoked one\n{command_name} WORD --help tells its flags.",
    error_code(1, "failed, or nobody approved in time"),
    error_code(2, "the command line was wrong"),
    error_code(3, "a key file is in the way, missing, or cannot be used"),
    error_code(4, "the atDirectory or the atServer cannot be reached"),
    error_code(5, "no such atSign"),
    error_code(6, "the code was refused, or the request denied"),
    error_code(10, "the keys that came do not belong to the atSign"),
    error_code(11, "a TLS certificate is not trusted here")
)]
struct Ask {
    /// the atSign to get keys for
    #[argh(positional)]
    atsign: String,
    /// file with the code
    #[argh(option, arg_name = "file")]
    code_file: Option<PathBuf>,
    /// name of this device (default: the host's name)
    #[argh(option)]
    device: Option<String>,
    /// name of the program that asks (default: noports)
    #[argh(option, default = "\"noports\".to_owned()")]
    app: String,
    /// what the keys shall be good for (default: sshnp:rw,sshrvd:rw)
    #[argh(option, default = "show::NAMESPACES.to_owned()")]
    namespaces: String,
    /// how long they shall be good, such as 30d or 2h,30m (default: until revoked)
    #[argh(option, arg_name = "time", from_str_fn(millis))]
    life: Option<Duration>,
    /// how long to wait for approval (default: 1h)
    #[argh(option, default = "APPROVED_WITHIN", from_str_fn(seconds))]
    timeout: Duration,
    /// where to write the keys (default: ~/.atsign/keys/@you_key.atKeys)
    #[argh(option, arg_name = "file")]
    keys: Option<PathBuf>,
    /// file with a pass phrase to protect the new key file with (or NOPORTS_PASSPHRASE)
    #[argh(option, arg_name = "file")]
    passphrase_file: Option<PathBuf>,
    /// the atDirectory (default: root.atsign.org:64)
    #[argh(option, arg_name = "host[:port]")]
    root: Option<String>,
    /// trust this authority too (PEM file; may be given several times)
    #[argh(option, arg_name = "file")]
    ca: Vec<String>,
    /// print results as lines of JSON
    #[argh(switch)]
    json: bool,
    /// no progress on stderr
    #[argh(switch, short = 'q')]
    quiet: bool,
    /// log more; may be repeated
    #[argh(switch, short = 'v')]
    verbose: u8,
}

with_account! {
    /// Make a code with which a new device may ask for keys.
    ///
    /// otp: the atServer makes it, for one request, good for five minutes; it is printed on stdout.
    /// spp: sets a code for many requests; it is read from --code-file, NOPORTS_CODE or stdin.
    /// A code allows nothing but to ask: every request still has to be approved.
    #[derive(FromArgs, Debug)]
    struct Codes {
        /// the atSign
        #[argh(positional)]
        atsign: String,
        /// spp: file with the code
        #[argh(option, arg_name = "file")]
        code_file: Option<PathBuf>,
        /// how long it is good for, such as 1h or 2d,12h
        #[argh(option, arg_name = "time", from_str_fn(millis))]
        ttl: Option<Duration>,
        /// print the result as one line of JSON
        #[argh(switch)]
        json: bool,
    }
}

with_account! {
    /// Look at the enrolments of an atSign, and decide about them.
    ///
    /// Which one is said by its id, or by the short code that the new device shows. Nothing beyond --grant is
    /// granted unless somebody looks at it and says yes: * and __manage reach all of the atSign.
    #[derive(FromArgs, Debug)]
    struct Decide {
        /// the atSign
        #[argh(positional)]
        atsign: String,
        /// id or short code
        #[argh(positional)]
        which: Vec<String>,
        /// instead: those of the program with this name, the whole of it
        #[argh(option, arg_name = "name")]
        app: Option<String>,
        /// instead: those of the device with this name, the whole of it
        #[argh(option, arg_name = "name")]
        device: Option<String>,
        /// instead: those of programs whose whole name this regular expression fits
        #[argh(option, arg_name = "regex")]
        app_pattern: Option<String>,
        /// instead: those of devices whose whole name this regular expression fits
        #[argh(option, arg_name = "regex")]
        device_pattern: Option<String>,
        /// auto, and approve --yes: the most that is granted without anybody looking (default: sshnp:rw,sshrvd:rw)
        #[argh(option, default = "show::NAMESPACES.to_owned()")]
        grant: String,
        /// list: only pending, approved, denied, revoked or expired ones
        #[argh(option)]
        status: Option<String>,
        /// approve: do not ask; deny, revoke, unrevoke, delete: also when several fit
        #[argh(switch)]
        yes: bool,
        /// revoke: also our own, which ends our access
        #[argh(switch)]
        force: bool,
        /// auto: end after so many approvals (default: 1)
        #[argh(option, default = "1")]
        limit: usize,
        /// auto: approve also what is waiting already
        #[argh(switch)]
        existing: bool,
        /// print results as lines of JSON
        #[argh(switch)]
        json: bool,
    }
}

/// Runs the program; `args` without its name.
pub fn main(console: Console, args: &[&str]) -> ExitCode {
    let (word, rest) = match args.split_first() {
        Some((word, rest)) => (*word, rest),
        None => ("", args),
    };
    if matches!(word, "otp" | "spp") {
        return codes_main(console.word(word), word == "spp", rest);
    }
    match Action::named(word) {
        Some(action) => decide_main(console.word(word), action, rest),
        None => ask_main(console, args),
    }
}

fn ask_main(mut console: Console, args: &[&str]) -> ExitCode {
    let json = args.contains(&"--json");
    if let Err(failure) = refuse_codes(args) {
        return console.finish(json, Err(failure));
    }
    match console.parse::<Ask>(args) {
        Ok(args) => {
            prepare(args.verbose, args.quiet);
            console.finish(json, console.run(1, ask::run(&console, args)))
        }
        Err(code) => code,
    }
}

fn codes_main(mut console: Console, standing: bool, args: &[&str]) -> ExitCode {
    let json = args.contains(&"--json");
    if let Err(failure) = refuse_codes(args) {
        return console.finish(json, Err(failure));
    }
    match console.parse::<Codes>(args) {
        Ok(args) => {
            prepare(args.verbose, args.quiet);
            console.finish(json, console.run(1, codes::run(&console, standing, args)))
        }
        Err(code) => code,
    }
}

fn decide_main(mut console: Console, action: Action, args: &[&str]) -> ExitCode {
    match console.parse::<Decide>(args) {
        Ok(args) => {
            prepare(args.verbose, args.quiet);
            let json = args.json;
            console.finish(json, console.run(1, decide::run(&console, action, args)))
        }
        Err(code) => code,
    }
}

fn prepare(verbose: u8, quiet: bool) {
    log::start(LevelFilter::Warn, verbose, quiet);
    process::protect_memory();
}

fn refuse_codes(args: &[&str]) -> Result<(), Failure> {
    CODE.refuse_in(args, &WITH_VALUE, &["--code=", "--otp", "--pass=", "-s"], 1)
}

/// Whose keys, where, and the keys.
struct Manager {
    network: Network,
    keys: Arc<AtKeys>,
    progress: Progress,
}

impl Manager {
    fn new(
        atsign: &str,
        account: Account,
        phrases: &Phrases,
        quiet: bool,
    ) -> Result<Self, Failure> {
        let who: AtSign = atsign.parse()?;
        let (network, keys) = account.load_with(Some(who.as_str()), phrases)?;
        Ok(Self {
            network,
            keys,
            progress: Progress::new(quiet),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crate::cli::exit;
    use crate::program::enroll::*;

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
