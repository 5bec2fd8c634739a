//! The decision here and now, without any network: which rule says so, or why none does.

use std::path::PathBuf;

use argh::{ArgsInfo, FromArgs};

use crate::{
    cli::{Console, Failure, Outcome},
    np::policy::{AuthCheck, DeviceGroup, rules::Decision},
    session::ask::device_at,
    text::{
        endpoint::Endpoint,
        json::{Object, array},
    },
};

use super::source::read_rules_now;

/// Explain a decision, without any network.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "check",
    example = "{command_name} @alice @kitchen pi --rules policy.yaml",
    example = "{command_name} @alice @kitchen pi --rules policy.yaml --open nas:443",
    example = "{command_name} @alice @kitchen pi --rules policy.yaml --group lab"
)]
pub(super) struct Args {
    /// atSign of the client
    #[argh(positional)]
    client: String,
    /// the device's atSign; or the device whole, DEVICE@ATSIGN, such as pi@kitchen
    #[argh(positional)]
    daemon: String,
    /// which device of that atSign (default: "default")
    #[argh(positional)]
    device: Option<String>,
    /// file with the rules
    #[argh(option, arg_name = "file")]
    rules: PathBuf,
    /// show whether this may be opened
    #[argh(option, arg_name = "host:port")]
    open: Option<String>,
    /// the group that the device says it is in (default: none)
    #[argh(option, arg_name = "name")]
    group: Option<String>,
    /// print results as JSON lines on stdout
    #[argh(switch)]
    pub json: bool,
}

/// Prints the decision and what it rests on; says whether it is a yes.
pub(super) fn check(console: &Console, args: &Args) -> Result<bool, Failure> {
    let misuse = |error: &dyn std::fmt::Display| Failure::misuse(error.to_string());
    let (daemon, device) = device_at(&args.daemon, args.device.as_deref())?;
    let question = AuthCheck {
        client: args.client.parse()?,
        daemon,
        device,
        group: match &args.group {
            Some(name) => name.parse().map_err(|e| misuse(&e))?,
            None => DeviceGroup::default(),
        },
    };
    let open = args.open.as_deref().map(|text| Endpoint::parse(text, None));
    let open = open
        .transpose()
        .map_err(|e| misuse(&e).hint("--open localhost:22"))?;
    // It is this program that others are sent to.
    let rules = read_rules_now(&args.rules).map_err(|failure| Failure {
        hint: None,
        ..failure
    })?;
    let mut decision = rules.decide(&question);
    if let Some(open) = &open {
        only(&mut decision, open);
    }
    let outcome = Outcome::json(as_json(&question, &decision)).plain(as_text(
        &question,
        &decision,
        open.as_ref(),
    ));
    console.tell(args.json, outcome);
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
        (false, "") => format!("{} allows nothing", decision.why),
        (false, _) => format!("{} allows only {list}, not {open}", decision.why),
    };
    answer.authorized = allowed;
    answer.permit_open = allowed.then(|| open.to_string()).into_iter().collect();
}

/// `asked`: what the question was about, where it was not about everything.
fn as_text(q: &AuthCheck, decision: &Decision, asked: Option<&Endpoint>) -> String {
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

fn as_json(q: &AuthCheck, decision: &Decision) -> String {
    let answer = &decision.answer;
    let texts = |list: &[String]| array(list.iter().map(String::as_str));
    Object::event("decision")
        .text("client", q.client.as_str())
        .text("daemon", q.daemon.as_str())
        .text("device", q.device.as_str())
        .text("deviceGroup", q.group.as_str())
        .raw("authorized", answer.authorized)
        .maybe("message", answer.message.as_deref())
        .raw("permitOpen", texts(&answer.permit_open))
        .maybe("rule", decision.by.map(|by| by.word()))
        .raw("groups", texts(&decision.groups))
        .text("why", &decision.why)
        .end()
}
