//! `noports access` — whom an atSign's own atServer lets in.
//!
//! ```text
//!   @eve ──▶ @eve's atServer ──▶ @device's atServer ─── on the block list: refused
//!                                       │          └─── an allow list, and not on it: refused
//!                                       ▼
//!                                   the daemon        hears only of those who were let in
//! ```
//! The lists belong to the atSign and are kept by its atServer; they count for everything, not for NoPorts alone.
//! Many atServers know the block list only.
//!
//! What somebody has sent stays with the atServer until it expires, and comes to programs that were away. Who is blocked
//! is heard no more, so that goes, too, with the copies of values that came with it; `clear` does it alone.
//!
//! Our atServer also sees to it that nobody fills the place of all: what others send is kept for a day at most, each of them
//! has an eighth of the box, and when it is full the oldest of whoever has most gives way. The same holds for the copies.

use std::process::ExitCode;

use argh::{ArgsInfo, FromArgs};
use log::LevelFilter;
use miniserde::json;

use crate::{
    at::{
        AtSign, Verb,
        client::{AtError, Client},
        fault::Code,
        verb::{AccessList, Config},
    },
    cli::{
        Console, Failure, Outcome, flags,
        grammar::{Word, word},
    },
    text::json::array,
};

mod clear;

flags! {
    /// Decide whom the atServer of your atSign lets in.
    ///
    /// An atSign that is not let in can send nothing and read nothing, so its requests do not reach a daemon.
    #[derive(FromArgs, ArgsInfo, Debug)]
    #[argh(
        example = "noports access show @kitchen",
        example = "noports access allow @kitchen @alice @rv_eu",
        example = "noports access block @kitchen @eve",
        note = "Allow everybody a program talks to: for a daemon its managers, its policy and\nthe rendezvous, which looks up its public key; for a client its devices and\nrendezvous; for a rendezvous clients and devices.",
        error_code(1, "failed, or the atServer has no such list"),
        error_code(2, "the command line was wrong"),
        error_code(3, "the key file is missing or cannot be used"),
        error_code(4, "the atDirectory or the atServer cannot be reached"),
        error_code(5, "no such atSign"),
        error_code(6, "the atServer refused the login"),
        error_code(11, "a TLS certificate is not trusted here")
    )]
    pub(crate) struct Args {
        /// show, allow, disallow, block, unblock or clear
        #[argh(positional)]
        word: String,
        /// your atSign
        #[argh(positional)]
        atsign: String,
        /// atSigns to add or remove
        #[argh(positional)]
        others: Vec<String>,
        account,
    }
}

/// What a word does: to which list, and whether it adds.
const CHANGES: [(&str, Option<(AccessList, bool)>); 6] = [
    ("show", None),
    ("allow", Some((AccessList::Allow, true))),
    ("disallow", Some((AccessList::Allow, false))),
    ("block", Some((AccessList::Block, true))),
    ("unblock", Some((AccessList::Block, false))),
    (CLEAR, None),
];
const CLEAR: &str = "clear";

/// What is done with the lists.
pub(super) const WORDS: &[Word] = &[
    word::<Args>("show", "print both lists"),
    word::<Args>(
        "allow",
        "add to the allow list; once it is not empty, nobody else gets in",
    ),
    word::<Args>("disallow", "remove from the allow list"),
    word::<Args>(
        "block",
        "add to the block list, which always wins, and remove what they sent",
    ),
    word::<Args>("unblock", "remove from the block list"),
    word::<Args>(
        CLEAR,
        "remove what these atSigns have sent; without any: what all others have sent",
    ),
];

/// Runs the program; `args` without its name.
pub fn main(console: Console, args: &[&str]) -> ExitCode {
    console.start(args, LevelFilter::Warn, 1, run)
}

async fn run(console: &Console, args: Args) -> Result<(), Failure> {
    let change = change(&args)?;
    let who: AtSign = args.atsign.parse()?;
    let (network, keys) = args.account().load(console, Some(who.as_str()))?;
    let mut progress = console.progress(args.quiet);
    let at = Client::login(&network, keys).await?;
    progress.done(format_args!("logged in as {who}"));

    let mut doomed = clears(&args)?;
    if let Some((list, adds, others)) = change {
        if (list, adds) == (AccessList::Block, true) {
            doomed = Some(others.clone());
        }
        let before = names(&at, list).await?;
        let news = changes(&before, &others, adds);
        let command = if adds {
            Config::Add(list, others)
        } else {
            Config::Remove(list, others)
        };
        at.run(&Verb::Config(command))
            .await
            .map_err(|error| refused(error, at.atsign()))?;
        progress.done(if news {
            "list changed"
        } else {
            "nothing to change"
        });
        if (list, adds) == (AccessList::Allow, true) && before.is_empty() {
            progress.note("from now on nobody else is let in; also add the rendezvous");
        }
    }
    let removed = match doomed {
        Some(senders) => Some(clear::clear(&at, &senders).await?),
        None => None,
    };
    let allowed = match names(&at, AccessList::Allow).await {
        Err(failure) if failure.message == NO_ALLOW_LIST => None,
        names => Some(names?),
    };
    let blocked = names(&at, AccessList::Block).await?;
    console.tell(
        args.json,
        outcome(&args, &who, (allowed.as_deref(), &blocked), removed),
    );
    Ok(())
}

/// Whose notifications are to go; an empty list: everybody else's.
fn clears(args: &Args) -> Result<Option<Vec<AtSign>>, Failure> {
    if args.word != CLEAR {
        return Ok(None);
    }
    let others = args.others.iter().map(|name| name.parse());
    Ok(Some(others.collect::<Result<_, _>>()?))
}

/// To which list these are added, or taken from it.
type ListChange = (AccessList, bool, Vec<AtSign>);

/// What the words ask for.
fn change(args: &Args) -> Result<Option<ListChange>, Failure> {
    let found = CHANGES.iter().find(|row| row.0 == args.word);
    let (word, change) = found.ok_or_else(|| {
        let words: Vec<_> = CHANGES.iter().map(|row| row.0).collect();
        let why = format!("there is no {:?}; choose {}", args.word, words.join(", "));
        Failure::misuse(why).hint(format!("noports access show {}", args.atsign))
    })?;
    let others = args.others.iter().map(|name| name.parse());
    let named: Vec<AtSign> = others.collect::<Result<_, _>>()?;
    // Not every atServer sees to it that nobody is in a list twice.
    let mut others: Vec<AtSign> = Vec::new();
    for other in named {
        if !others.contains(&other) {
            others.push(other);
        }
    }
    match (change, others.is_empty()) {
        _ if *word == CLEAR => Ok(None),
        (None, true) => Ok(None),
        (None, false) => Err(Failure::misuse("show takes one atSign: yours")),
        (Some(_), true) => Err(Failure::misuse(format!("{word}: no atSign given"))
            .hint(format!("noports access {word} {} @bob", args.atsign))),
        (Some((_, true)), false) if others.contains(&args.atsign.parse()?) => {
            let why = format!("{}, whose atServer it is, is on no list", args.atsign);
            Err(Failure::misuse(why).hint("leave it out: it is always let in"))
        }
        (Some((list, adds)), false) => Ok(Some((*list, *adds, others))),
    }
}

/// Whether adding or removing these makes a difference.
fn changes(before: &[String], others: &[AtSign], adds: bool) -> bool {
    let before: Vec<AtSign> = before.iter().filter_map(|name| name.parse().ok()).collect();
    others.iter().any(|other| before.contains(other) != adds)
}

/// The names in a list.
async fn names(at: &Client, list: AccessList) -> Result<Vec<String>, Failure> {
    let answer = at.run(&Verb::Config(Config::Show(list))).await;
    let answer = answer.map_err(|error| match list {
        AccessList::Allow => refused(error, at.atsign()),
        AccessList::Block => error.into(),
    })?;
    match answer.trim() {
        "null" | "" => Ok(Vec::new()),
        text => {
            json::from_str(text).map_err(|_| Failure::plain("the atServer's list cannot be read"))
        }
    }
}

const NO_ALLOW_LIST: &str = "this atServer has no allow list";

fn refused(error: AtError, who: &AtSign) -> Failure {
    match &error {
        AtError::Refused(fault) if fault.code == Some(Code::InvalidSyntax) => {
            Failure::plain(NO_ALLOW_LIST)
                .hint(format!("to keep out single atSigns: noports access block {who} @somebody"))
        }
        AtError::Refused(fault) if fault.code == Some(Code::Unauthorized) => Failure::from(error)
            .hint("these keys may not change the lists; use the device on which the atSign was activated"),
        _ => error.into(),
    }
}

/// The lists, and how many notifications were removed.
fn outcome(
    args: &Args,
    who: &AtSign,
    (allowed, blocked): (Option<&[String]>, &[String]),
    removed: Option<usize>,
) -> Outcome {
    let list = |names: &[String]| array(names.iter().map(String::as_str));
    let or_null = |text: Option<String>| text.unwrap_or_else(|| "null".to_owned());
    let mut words = Vec::new();
    if args.word != CLEAR {
        words.extend(lines(allowed, blocked));
    }
    words.extend(removed.map(|removed| format!("removed  {removed}")));
    Outcome::new("access")
        .with("atsign", who.as_str())
        .raw("allow", or_null(allowed.map(list)))
        .raw("block", list(blocked))
        .raw(
            "removed",
            or_null(removed.map(|removed| removed.to_string())),
        )
        .plain(words.join("\n"))
}

fn lines(allowed: Option<&[String]>, blocked: &[String]) -> [String; 2] {
    let or = |names: &[String], nobody: &str| {
        if names.is_empty() {
            nobody.to_owned()
        } else {
            names.join(" ")
        }
    };
    [
        format!(
            "allowed  {}",
            allowed.map_or_else(
                || "everybody (this atServer has no allow list)".to_owned(),
                |names| or(names, "everybody")
            )
        ),
        format!("blocked  {}", or(blocked, "nobody")),
    ]
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crate::{cli::exit, program::access::*};

    #[test]
    fn words_become_commands_or_are_refused_by_name() {
        for (words, want) in [
            ("show @a", Ok("")),
            ("allow @a bob @Carol", Ok("Allow true @bob @carol")),
            ("disallow @a @b", Ok("Allow false @b")),
            ("block @a @b", Ok("Block true @b")),
            ("unblock @a @b", Ok("Block false @b")),
            (
                "block @a @b @A",
                Err("@a, whose atServer it is, is on no list"),
            ),
            ("block a a", Err("a, whose atServer it is, is on no list")),
            ("block @a @b b @B", Ok("Block true @b")),
            ("unblock @a @a", Ok("Block false @a")),
            ("block @a", Err("block: no atSign given")),
            ("show @a @b", Err("show takes one atSign")),
            (
                "permit @a @b",
                Err("there is no \"permit\"; choose show, allow"),
            ),
            ("allow @a @b!", Err("@b!")),
            ("clear @a", Ok("")),
            ("clear @a @b", Ok("")),
        ] {
            let split: Vec<&str> = words.split(' ').collect();
            let args = Args::from_args(&["noports", "access"], &split).unwrap();
            let got = change(&args).map(|change| {
                change.map_or(String::new(), |(list, adds, others)| {
                    let others: Vec<_> = others.iter().map(AtSign::as_str).collect();
                    format!("{list:?} {adds} {}", others.join(" "))
                })
            });
            match (got, want) {
                (Ok(got), Ok(want)) => assert_eq!(got, want, "{words}"),
                (Err(failure), Err(want)) => {
                    assert!(failure.message.contains(want), "{words}: {failure}");
                    assert_eq!(failure.code, exit::MISUSE, "{words}");
                }
                (got, want) => panic!("{words}: {got:?} instead of {want:?}"),
            }
        }
    }

    #[test]
    fn what_was_so_already_is_no_change() {
        let before = ["@a".to_owned(), "b".to_owned()];
        let others = |names: &str| {
            let names = names.split(' ').map(|name| name.parse().unwrap());
            names.collect::<Vec<AtSign>>()
        };
        for (names, adds, want) in [
            ("@a", true, false),
            ("@A b @a", true, false),
            ("@a @c", true, true),
            ("@c", false, false),
            ("@c @b", false, true),
        ] {
            assert_eq!(
                changes(&before, &others(names), adds),
                want,
                "{names} {adds}"
            );
        }
        assert!(!changes(&[], &others("@me"), false));
    }

    #[test]
    fn lists_are_told_in_words() {
        let names = |names: &[&str]| names.iter().map(|&n| n.to_owned()).collect::<Vec<_>>();
        assert_eq!(
            lines(Some(&[]), &[]),
            ["allowed  everybody", "blocked  nobody"]
        );
        assert_eq!(
            lines(Some(&names(&["@a", "@b"])), &names(&["@c"])),
            ["allowed  @a @b", "blocked  @c"]
        );
        assert!(lines(None, &[])[0].contains("no allow list"));
    }
}
