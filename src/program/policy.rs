//! `noports policy`: decides for daemons who may use them. A process of its own, with an atSign of its own.
//!
//! ```text
//!   daemon ── request: client, device, group ──▶ serve ──▶ rules (a file, or records) ──▶ one line in the log
//!   daemon ◀── ack, success: yes or no, why, what may be opened ──┘
//!
//!   check   the same decision here and now, without any network: which rule says so, or why none does
//! ```
//! The policy sees who wants to use what, and nothing of the session.
//!
//! The file of rules is read again when it changes; one that cannot be read changes nothing, and the log names the line.
//! `deviceGroupNames` in it counts for devices whose name is not listed and that say they are in that group
//! (`--device-group`). `--records` takes the rules from the policy's own atServer, as `np_admin` or the newer `npp` write
//! them; with `--shared` two processes may serve the same atSign, and one of them answers. `check --open nas:80` asks about one
//! connection.
//!
//! The daemon asks about everybody who is not its `--manager`, and may be stricter still: what is opened has to be in its
//! `--permit-open`, too. It remembers an answer for 15 seconds. No answer within 10 seconds is a no. Whoever is denied is
//! told why (exit code 8); without a policy strangers meet silence. A policy answers the daemons that its rules name, about
//! their own devices only; or those of `--daemon`. It remembers their keys as a daemon remembers its managers'.

use std::{path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use argh::{ArgsInfo, FromArgs};
use log::LevelFilter;

use crate::{
    at::{
        client::{Network, PROOF},
        keyfile::AtKeys,
        pins,
    },
    cli::{Console, Failure, HasOutput, exit, flags, separated},
    session::online,
    sys::{
        self, paths,
        sandbox::{self, Confinement},
        signal::{self, HangUps},
    },
};

use serve::PolicyOptions;
use source::{RuleSource, read_rules_now};

mod check;
mod serve;
mod source;

/// Decide for daemons who may use them, by rules in one place.
///
/// A daemon with --policy asks about everybody who is not its manager. The policy sees who wants to use what, and
/// nothing of the session.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    example = "{command_name} check @alice @kitchen pi --rules policy.yaml",
    example = "{command_name} serve --as @policy --rules policy.yaml",
    example = "{command_name} install --as @policy --rules policy.yaml",
    error_code(2, "the command line or the rules are wrong"),
    error_code(8, "check: it is not allowed")
)]
pub(crate) struct Args {
    #[argh(subcommand)]
    what: Subcommand,
}

#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand)]
enum Subcommand {
    Serve(ServeRules),
    Check(check::Args),
}

flags! {
    /// Answer daemons until stopped.
    ///
    /// A changed file of rules is read again within seconds, after SIGHUP at once.
    #[derive(FromArgs, ArgsInfo)]
    #[argh(
        subcommand,
        name = "serve",
        example = "{command_name} --as @policy --rules policy.yaml",
        example = "{command_name} --as @policy --rules policy.yaml --daemon @kitchen",
        example = "{command_name} --as @policy --records"
    )]
    pub(crate) struct ServeRules {
        /// the policy's atSign (or NOPORTS_AS; default: the only one with keys here)
        #[argh(option, long = "as", arg_name = "atsign")]
        as_: Option<String>,
        /// file with the rules
        #[argh(option, arg_name = "file")]
        rules: Option<PathBuf>,
        /// read the rules from records on the policy's own atServer, as np_admin and npp write them
        #[argh(switch)]
        records: bool,
        /// answer only these daemons, each with or without the fingerprint of its key (@kitchen#FINGERPRINT); commas separate
        /// several (default: those that the rules name)
        #[argh(option, arg_name = "atsign")]
        daemon: Vec<String>,
        /// also notify the policy's own atSign of each decision, for np_admin
        #[argh(switch)]
        publish_log: bool,
        /// share the atSign with other policy processes: one of them answers each question
        #[argh(switch)]
        shared: bool,
        /// replace a connection to the atServer that has died in silence within about this time, 10s to 10m: the shorter,
        /// the more packets on a quiet line (default: 20s; twice the time, half of them)
        #[argh(
            option,
            arg_name = "seconds",
            default = "PROOF",
            from_str_fn(online::proof_time)
        )]
        proof: Duration,
        sandbox,
        account,
    }
}

/// The program.
pub fn main(console: Console, words: &[&str]) -> ExitCode {
    console.act(words, |console, args: Args| match args.what {
        Subcommand::Serve(args) => {
            args.output().start(LevelFilter::Info);
            match confined(console, &args) {
                Ok(ready) => {
                    console.tell_story(args.json, sys::process::cores(), story(args.json, ready))
                }
                Err(failure) => console.finish(args.json, Err(failure)),
            }
        }
        Subcommand::Check(args) => match check::check(console, &args) {
            Ok(true) => ExitCode::from(exit::FINE),
            Ok(false) => ExitCode::from(exit::DEVICE_REFUSED),
            Err(failure) => console.finish(args.json, Err(failure)),
        },
    })
}

/// Whether it would start with these words; for a service, before it is installed.
pub fn verify(console: Console, words: &[&str]) -> ExitCode {
    console.verify(words, |console, args: Args| match args.what {
        Subcommand::Serve(args) => prepare(console, &args).map(drop),
        Subcommand::Check(_) => Ok(()),
    })
}

type Prepared = (Network, Arc<AtKeys>, PolicyOptions);

/// All that is read once is read, and from here on cannot be any more. Rules are read again, from whatever file has their
/// name then.
fn confined(console: &Console, args: &ServeRules) -> Result<Prepared, Failure> {
    let prepared = prepare(console, args)?;
    if !args.no_sandbox {
        let rules = args.rules.iter().flat_map(|file| sandbox::folders_to(file));
        let memory = paths::memory();
        // What is not there cannot be allowed. Where it cannot be made, that is said once keys are remembered.
        let _ = memory.as_deref().map(paths::private_folder);
        Confinement::of(&sandbox::POLICY)
            .reads(rules)
            .writes(memory)
            .enter();
    }
    Ok(prepared)
}

/// Everything that can be wrong before anybody is dialled.
fn prepare(console: &Console, args: &ServeRules) -> Result<Prepared, Failure> {
    let options = args.options()?;
    if let RuleSource::File(file) = &options.source {
        read_rules_now(file)?;
    }
    let (network, keys) = args.account().load(console, args.as_.as_deref())?;
    Ok((network, keys, options))
}

async fn story(json: bool, (network, keys, options): Prepared) -> Result<(), Failure> {
    let hang_ups = HangUps::new()
        .map_err(|why| Failure::plain(format!("cannot listen for signals: {why}")))?;
    let ready = online::tell(json);
    // Unlike elsewhere a hang-up is no end: it means "read the rules again".
    let told = signal::stop_but_for_hang_ups();
    online::until(told, serve::serve(network, keys, options, hang_ups, ready)).await
}

impl ServeRules {
    fn options(&self) -> Result<PolicyOptions, Failure> {
        let source = match (&self.rules, self.records) {
            (Some(file), false) => RuleSource::File(file.clone()),
            (None, true) => RuleSource::Records,
            (Some(_), true) => {
                let why = "--rules and --records exclude each other";
                return Err(Failure::misuse(why).hint("leave out one of them"));
            }
            _ => {
                let why =
                    "no rules given: a file, or --records for those on the policy's own atServer";
                return Err(Failure::misuse(why).hint("--rules policy.yaml"));
            }
        };
        let named = pins::all_named(separated(&self.daemon));
        let (daemons, pins) = named.map_err(Failure::misuse)?;
        Ok(PolicyOptions {
            source,
            daemons,
            pins,
            memory: paths::memory(),
            publish_log: self.publish_log,
            shared: self.shared,
            proof: self.proof,
        })
    }
}
