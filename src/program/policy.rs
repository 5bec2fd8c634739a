//! `noports policy`: decides for daemons who may use them. A process of its own, with an atSign of its own.
//!
//! ```text
//!   daemon ── request: client, device, group ──▶ serve ──▶ rules (a file, or records) ──▶ one line in the log
//!   daemon ◀── ack, success: yes or no, why, what may be opened ──┘
//!
//!   check   the same decision here and now, without any network: which rule says so, or why none does
//! ```
//! The policy sees who wants to use what, and nothing of the session.

use std::{
    io,
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
};

use argh::FromArgs;
use log::LevelFilter;
use miniserde::json;

use crate::{
    at::AtSign,
    cli::{Console, Failure, exit, print_out, with_account},
    np::policy::{
        DeviceGroup, Question,
        rules::{Decision, Rules},
        yaml,
    },
    sys,
    text::endpoint::Endpoint,
};

use serve::{PolicyOptions, RuleSource};

mod serve;
mod source;

/// Decides for daemons who may use them.
#[derive(FromArgs)]
#[argh(
    example = "{command_name} serve --as @policy --rules policy.yaml",
    example = "{command_name} check @alice @my_device pi --rules policy.yaml",
    error_code(2, "the command line or the rules are wrong"),
    error_code(8, "check: it is not allowed")
)]
struct Args {
    #[argh(subcommand)]
    what: Subcommand,
}

#[derive(FromArgs)]
#[argh(subcommand)]
enum Subcommand {
    Serve(Serve),
    Check(Check),
}

with_account! {
    /// Answer daemons until told to end; a changed file is read again, SIGHUP reads at once.
    #[derive(FromArgs)]
    #[argh(subcommand, name = "serve")]
    struct Serve {
        /// the policy's atSign (default: the only one with keys here)
        #[argh(option, long = "as")]
        as_: Option<String>,
        /// file with the rules
        #[argh(option, arg_name = "file")]
        rules: Option<PathBuf>,
        /// the rules are records on the policy's own atServer, as np_admin or npp write them
        #[argh(switch)]
        records: bool,
        /// answer these daemons only (repeat it, or separate with commas; default: all)
        #[argh(option)]
        daemon: Vec<String>,
        /// also notify the policy's own atSign of each decision, for np_admin
        #[argh(switch)]
        publish_log: bool,
        /// another process may serve the same atSign: one of them answers each question
        #[argh(switch)]
        shared: bool,
        /// say on stdout, as JSON lines, when it is ready
        #[argh(switch)]
        json: bool,
    }
}

/// Explain a decision, without any network.
#[derive(FromArgs)]
#[argh(subcommand, name = "check")]
struct Check {
    /// who wants to use the device
    #[argh(positional)]
    client: String,
    /// the device's atSign
    #[argh(positional)]
    daemon: String,
    /// which device of that atSign
    #[argh(positional)]
    device: String,
    /// the group the device says it is in (default: none)
    #[argh(option)]
    group: Option<String>,
    /// HOST:PORT: whether just that may be opened
    #[argh(option, arg_name = "host:port")]
    open: Option<String>,
    /// file with the rules
    #[argh(option, arg_name = "file")]
    rules: PathBuf,
    /// one line of JSON
    #[argh(switch)]
    json: bool,
}

/// The program.
pub fn main(mut console: Console, words: &[&str]) -> ExitCode {
    let args: Args = match console.parse(words) {
        Ok(args) => args,
        Err(code) => return code,
    };
    match args.what {
        Subcommand::Serve(args) => {
            sys::log::start(LevelFilter::Info, args.verbose, args.quiet);
            sys::process::protect_memory();
            let json = args.json;
            let threads = thread::available_parallelism().map_or(1, usize::from);
            console.finish(json, console.run(threads, serve::story(&console, args)))
        }
        Subcommand::Check(args) => match check(&args) {
            Ok(true) => ExitCode::from(exit::FINE),
            Ok(false) => ExitCode::from(exit::DEVICE_REFUSED),
            Err(failure) => console.finish(args.json, Err(failure)),
        },
    }
}

/// Whether it would start with these words; for a service, before it is installed.
pub fn verify(name: &str, words: &[&str]) -> ExitCode {
    Console::new(name).verify(words, |console, args: Args| match args.what {
        Subcommand::Serve(args) => serve::prepare(console, &args).map(drop),
        Subcommand::Check(_) => Ok(()),
    })
}

/// Prints the decision and what it rests on; says whether it is a yes.
fn check(args: &Check) -> Result<bool, Failure> {
    let misuse = |error: &dyn std::fmt::Display| Failure::misuse(error.to_string());
    let question = Question {
        client: args.client.parse()?,
        daemon: args.daemon.parse()?,
        device: args.device.parse().map_err(|e| misuse(&e))?,
        group: match &args.group {
            Some(name) => name.parse().map_err(|e| misuse(&e))?,
            None => DeviceGroup::default(),
        },
    };
    let open = args.open.as_deref().map(|text| Endpoint::parse(text, None));
    let open = open
        .transpose()
        .map_err(|e| misuse(&e).hint("--open localhost:22"))?;
    let mut decision = read_rules_now(&args.rules)?.decide(&question);
    if let Some(open) = &open {
        only(&mut decision, open);
    }
    print_out(&if args.json {
        as_json(&question, &decision)
    } else {
        as_text(&question, &decision, open.as_ref())
    });
    Ok(decision.answer.authorized)
}

/// The same decision about one thing to open. A daemon looks for it in the answer's list, so what the daemon is
/// told stays as it is.
fn only(decision: &mut Decision, open: &Endpoint) {
    let answer = &mut decision.answer;
    if !answer.authorized {
        return;
    }
    let host = open.host.trim_matches(['[', ']']);
    let allowed = answer.permit().allows(host, open.port);
    let list = answer.permit_open.join(", ");
    decision.why = match (allowed, list.as_str()) {
        (true, _) => format!("{}: {list}", decision.why),
        (false, "") => format!("{} lets nothing be opened", decision.why),
        (false, _) => format!("{} lets only {list} be opened, not {open}", decision.why),
    };
    answer.authorized = allowed;
    answer.permit_open = allowed.then(|| open.to_string()).into_iter().collect();
}

/// Rules from a file.
async fn read_rules(file: &Path) -> Result<Rules, Failure> {
    rules(file, sys::file::text(file, MAX_RULES).await)
}

/// The same where there is nothing else to do meanwhile.
fn read_rules_now(file: &Path) -> Result<Rules, Failure> {
    rules(file, sys::file::text_now(file, MAX_RULES))
}

/// One byte more than may be in it, so that too long is seen.
const MAX_RULES: u64 = yaml::MAX_FILE as u64 + 1;

fn rules(file: &Path, text: io::Result<String>) -> Result<Rules, Failure> {
    let name = file.display();
    let text = text.map_err(|why| Failure::misuse(format!("cannot read {name}: {why}")))?;
    yaml::parse(&text).map_err(|why| {
        Failure::misuse(format!("{name}, {why}")).hint("noports policy check tells what rules mean")
    })
}

/// `asked`: what the question was about, where it was not about everything.
fn as_text(q: &Question, decision: &Decision, asked: Option<&Endpoint>) -> String {
    let (answer, groups) = (&decision.answer, decision.groups.join(", "));
    let place = format!("on {} of {}", q.device, q.daemon);
    let why = &decision.why;
    let mut text = match (answer.authorized, answer.permit_open.as_slice()) {
        (false, _) => {
            let not =
                asked.map_or_else(|| "open nothing".to_owned(), |at| format!("not open {at}"));
            format!("no: {} may {not} {place}\n  because {why}", q.client)
        }
        (true, []) => format!(
            "yes, but {} may open nothing {place}\n  because of {why}, which is empty",
            q.client
        ),
        (true, list) => format!(
            "yes: {} may open {} {place}\n  because of {why}",
            q.client,
            list.join(", ")
        ),
    };
    if !groups.is_empty() {
        text += &format!("\n  groups: {groups}");
    }
    if let Some(message) = &answer.message {
        text += &format!("\n  the daemon is told: {message}");
    }
    text
}

#[derive(miniserde::Serialize)]
struct Explained<'a> {
    client: &'a str,
    daemon: &'a str,
    device: &'a str,
    #[serde(rename = "deviceGroup")]
    group: &'a str,
    authorized: bool,
    message: Option<&'a str>,
    #[serde(rename = "permitOpen")]
    permit_open: &'a [String],
    rule: Option<&'static str>,
    groups: &'a [String],
    why: &'a str,
}

fn as_json(q: &Question, decision: &Decision) -> String {
    json::to_string(&Explained {
        client: q.client.as_str(),
        daemon: q.daemon.as_str(),
        device: q.device.as_str(),
        group: q.group.as_str(),
        authorized: decision.answer.authorized,
        message: decision.answer.message.as_deref(),
        permit_open: &decision.answer.permit_open,
        rule: decision.by.map(|by| by.word()),
        groups: &decision.groups,
        why: &decision.why,
    })
}

impl Serve {
    fn plan(&self) -> Result<PolicyOptions, Failure> {
        let source = match (&self.rules, self.records) {
            (Some(file), false) => RuleSource::File(file.clone()),
            (None, true) => RuleSource::Records,
            _ => {
                return Err(Failure::misuse("where are the rules?")
                    .hint("--rules FILE, or --records for those on the policy's own atServer"));
            }
        };
        let words = self.daemon.iter().flat_map(|list| list.split(','));
        let daemons = words
            .map(str::trim)
            .filter(|word| !word.is_empty())
            .map(str::parse::<AtSign>)
            .collect::<Result<_, _>>()?;
        Ok(PolicyOptions {
            source,
            daemons,
            publish_log: self.publish_log,
            shared: self.shared,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{fs, pin::pin};

    use async_std::task::block_on;
    use futures_lite::future::poll_once;

    use super::*;
    use crate::testing::named_pipe;

    #[test]
    fn rules_that_come_through_a_pipe_hold_nobody_up_and_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = named_pipe(folder.path());
        let mut rules = pin!(read_rules(&pipe));
        // Before anybody writes, questions are answered.
        assert!(block_on(poll_once(&mut rules)).is_none());
        fs::write(&pipe, "rules: [\n").unwrap();
        let refused = block_on(rules).err().unwrap();
        assert!(refused.message.contains("line"), "{}", refused.message);
    }

    #[test]
    fn a_device_without_an_end_is_no_rules() {
        for device in ["/dev/zero", "/dev/full"] {
            let refused = read_rules_now(Path::new(device)).err().unwrap();
            assert_eq!(refused.code, exit::MISUSE, "{}", refused.message);
        }
    }
}
