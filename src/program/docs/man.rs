//! ○ Manual pages, in roff, from the same data as `--help`.
//!
//! ```text
//!   Program ─▶ Grammar of itself and of each word ─▶ NAME SYNOPSIS DESCRIPTION ARGUMENTS WORDS FLAGS … SEE ALSO
//! ```
//! Words that share their flags share a section, and a flag that most programs have stands on a page once.

use argh::FlagInfo;

use super::{
    complete::Scope,
    grammar,
    roff::{as_it_is, filled, flag_row, list, notes, paragraphs, section, text},
};
use crate::{
    cli::{
        config, exit,
        grammar::{Grammar, Program},
        help,
    },
    service,
};

/// Day and version, for every page's foot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Edition<'a> {
    /// `2026-11-22`
    pub day: &'a str,
    /// `noports 0.1.0`
    pub version: &'a str,
}

type Flag = &'static FlagInfo<'static>;

/// Words of a program whose flags and arguments are the same.
struct FlagSection {
    /// Each with a line about it.
    words: Vec<(&'static str, &'static str)>,
    grammars: Vec<Grammar>,
}

/// The page of a program.
pub(super) fn page(program: &Program, edition: Edition) -> String {
    let Some(own) = grammar(program, None) else {
        return String::new();
    };
    let groups = groups(program, &own);
    let all = || {
        [&own]
            .into_iter()
            .chain(groups.iter().flat_map(|group| &group.grammars))
    };
    let common = common(&own, &groups);
    let mut page = head(&format!("noports-{}", program.name), program.about, edition);
    page += &section("SYNOPSIS", &synopsis(&own));
    page += &section(
        "DESCRIPTION",
        &(paragraphs(own.about()) + &classic(program)),
    );
    page += &section("ARGUMENTS", &arguments(&own));
    let told: Vec<Flag> = own.flags().chain(common.iter().copied()).collect();
    let words: String = groups.iter().map(|group| group.roff(&told)).collect();
    page += &section("WORDS", &words);
    let daily = own
        .flags()
        .filter(|flag| !flag.hidden && !common.contains(flag));
    page += &section("FLAGS", &flags(daily));
    page += &section(
        "FLAGS FOR OLDER PEERS",
        &flags(own.flags().filter(|flag| flag.hidden)),
    );
    let rows = common.into_iter().map(help::row).chain([help::help_row()]);
    page += &section("COMMON FLAGS", &rows.map(flag_row).collect::<String>());
    page += &section(
        "NOTES",
        &notes(&all().flat_map(Grammar::notes).collect::<Vec<_>>()),
    );
    let firsts = groups.iter().filter_map(|group| group.grammars.first());
    let examples: Vec<String> = own
        .examples()
        .chain(firsts.flat_map(Grammar::examples))
        .collect();
    page += &section("EXAMPLES", &as_it_is(&examples));
    // Without a network nothing can be unreachable or silent.
    let most = if page.contains("\\-\\-root") {
        u8::MAX
    } else if page.contains("\\-\\-keys") {
        exit::KEYS
    } else {
        exit::MISUSE
    };
    page += &section("EXIT STATUS", &list(exit_codes(&own, most)));
    let service = service::Program::named(program.name).is_some();
    let is_named = |name: &str| {
        page.contains(name)
            || service && name == "NOPORTS_STATE"
            || program.name == "daemon" && name == "NOPORTS_MEMORY"
            || matches!(program.name, "daemon" | "bridge" | "sessions") && name == "NOPORTS_RUNTIME"
    };
    let variables = ENVIRONMENT
        .iter()
        .filter(|row| row.0 == "NOPORTS_LOG" || is_named(row.0));
    let variables = section("ENVIRONMENT", &list(variables.map(owned)));
    let files = section("FILES", &list(files(program, page.contains("\\-\\-keys"))));
    page + &variables + &files + SEE_ALSO
}

/// The page of the whole: which programs there are.
pub(super) fn overview(programs: &[Program], edition: Edition) -> String {
    let mut page = head("noports", "reach a device that has no open port", edition);
    page +=
        ".SH SYNOPSIS\n.B noports\n.I program\n.RI [ flags ]\n.PP\n.B noports help\n.I program\n";
    page += ".SH DESCRIPTION\n";
    page += &paragraphs(
        "Ssh and any TCP service on a device that has no open port, end-to-end encrypted, with outbound \
         connections only. Each program has a page of its own.",
    );
    page += &section("TERMS", &list(TERMS.iter().map(owned)));
    page += ".SH PROGRAMS\n";
    for program in programs.iter().filter(|program| !program.about.is_empty()) {
        let (name, about) = (text(program.name), text(program.about));
        page += &format!(".TP\n.BR noports\\-{name} (1)\n{about}\n");
    }
    page += &section(
        "EXIT STATUS",
        &list(
            exit::TABLE
                .iter()
                .map(|(a, b)| (a.to_string(), (*b).to_owned())),
        ),
    );
    page += &section("ENVIRONMENT", &list(ENVIRONMENT.iter().map(owned)));
    page += &section("FILES", &list([owned(&KEYS), owned(&CONFIG)].into_iter()));
    page + ".SH SEE ALSO\n.BR ssh (1)\n"
}

/// The page of a classic name of a program.
pub(super) fn classic_page(
    programs: &'static [Program],
    link: &str,
    program: &Program,
    edition: Edition,
) -> String {
    let Some((scope, _)) = Scope::of(programs, link, &[]) else {
        return String::new();
    };
    let own = format!("noports {}", program.name);
    let mut page = head(link, &format!("{own}, with its classic options"), edition);
    let command = if scope.words.is_empty() {
        ""
    } else {
        "COMMAND "
    };
    page += &format!(".SH SYNOPSIS\n.B {link}\n{command}[options]\n.SH DESCRIPTION\n");
    page += &filled(&format!(
        "{link} is a link to noports: {own} for scripts and people that know the classic program of this name. \
         It takes that program's options; {link} {command}--help shows what each of them means here. A wrong command line \
         ends with exit status 1."
    ));
    page += &section("COMMANDS", &list(scope.words.into_iter()));
    let rows = scope
        .flags
        .into_iter()
        .map(|flag| (flag.names.join(", "), flag.about));
    page += &section("OPTIONS", &rows.map(flag_row).collect::<String>());
    page + &format!(
        ".SH SEE ALSO\n.BR noports\\-{} (1),\n.BR noports (1)\n",
        text(program.name)
    )
}

const SEE_ALSO: &str = ".SH SEE ALSO\n.BR noports (1),\n.BR ssh (1)\n";

/// What words mean that are used everywhere.
const TERMS: [(&str, &str); 9] = [
    (
        "atSign",
        "an account of the atProtocol, such as @alice, with keys of its own",
    ),
    (
        "atServer",
        "passes the encrypted messages of an atSign on; an atDirectory says where it is",
    ),
    (
        "authority",
        "the certificate by which the atServers that you host are recognised: ca.pem, for --ca",
    ),
    (
        "daemon",
        "runs on a device and waits for requests; it opens no port",
    ),
    ("manager", "an atSign that may open sessions on a device"),
    (
        "policy",
        "decides for daemons about everybody who is not a manager",
    ),
    (
        "rendezvous",
        "a relay with a public address: both ends of a session dial it, and it sees only cipher text",
    ),
    (
        "enrolment",
        "gives one more device keys of its own, which can be revoked; a new device asks with a passcode",
    ),
    (
        "namespace",
        "part of what an atSign stores and receives; keys are good for some of them, such as sshnp:rw",
    ),
];

const ENVIRONMENT: [(&str, &str); 15] = [
    ("NOPORTS_ROOT", "the atDirectory, host:port; --root wins"),
    (
        "NOPORTS_CA",
        "certificate authorities to trust too: PEM files, separated by colons; --ca wins",
    ),
    ("NOPORTS_AS", "the atSign to act as; --as wins"),
    (
        "NOPORTS_KEYS",
        "key file, or folder of key files; --keys wins",
    ),
    ("NOPORTS_VIA", "the rendezvous; --via wins"),
    (
        "NOPORTS_PASSPHRASE",
        "pass phrase of a protected key file; --passphrase-file wins",
    ),
    (
        "NOPORTS_NEW_PASSPHRASE",
        "the new pass phrase of a key file; --new-passphrase-file wins",
    ),
    (
        "NOPORTS_CODE",
        "the passcode of an enrolment request; --code-file wins",
    ),
    (
        "NOPORTS_SECRET",
        "the secret that activates an atSign; --secret-file wins",
    ),
    ("NOPORTS_DATA", "data folder of an atServer; --data wins"),
    (
        "NOPORTS_CONFIG",
        "file with further flags; --config wins; empty: none is read",
    ),
    (
        "NOPORTS_LOG",
        "what is logged: a level, or module=level,...",
    ),
    (
        "NOPORTS_MEMORY",
        "folder for what must outlive a program; ~/.local/state/noports otherwise",
    ),
    (
        "NOPORTS_RUNTIME",
        "folder for sockets of sessions; otherwise a service's own, $XDG_RUNTIME_DIR/noports or /run/noports",
    ),
    ("NOPORTS_STATE", "file to which a service writes its state"),
];
const KEYS: (&str, &str) = (
    "~/.atsign/keys/@you_key.atKeys",
    "an atSign's keys; keep them safe",
);
const CONFIG: (&str, &str) = (
    "$XDG_CONFIG_HOME/noports/PROGRAM.conf, /etc/noports/PROGRAM.conf",
    "further flags, one per line, without the --; the first that exists is read, unless --config names another",
);

fn owned(row: &(&str, &str)) -> (String, String) {
    (row.0.to_owned(), row.1.to_owned())
}

/// The flags that most programs have, in the form that most words of this one have them in.
fn common(own: &Grammar, groups: &[FlagSection]) -> Vec<Flag> {
    let grammars = || {
        [own]
            .into_iter()
            .chain(groups.iter().filter_map(|group| group.grammars.first()))
    };
    let all = || {
        grammars()
            .flat_map(Grammar::flags)
            .filter(|flag| help::is_common(flag))
    };
    let mut common: Vec<Flag> = Vec::new();
    for flag in all().filter(|flag| !flag.hidden) {
        let often = |flag: Flag| all().filter(|other| *other == flag).count();
        match common.iter_mut().find(|other| other.long == flag.long) {
            Some(other) if often(flag) > often(other) => *other = flag,
            Some(_) => {}
            None => common.push(flag),
        }
    }
    common
}

fn groups(program: &Program, own: &Grammar) -> Vec<FlagSection> {
    let mut groups: Vec<FlagSection> = Vec::new();
    for &(word, about) in own.words() {
        let Some(grammar) = grammar(program, Some(word)) else {
            continue;
        };
        let same = groups.iter_mut().find(|group| {
            let first = group.grammars.first();
            first.is_some_and(|first| {
                first.about() == grammar.about() && first.flags().eq(grammar.flags())
            })
        });
        match same {
            Some(group) => {
                group.words.push((word, about));
                group.grammars.push(grammar);
            }
            None => groups.push(FlagSection {
                words: vec![(word, about)],
                grammars: vec![grammar],
            }),
        }
    }
    groups
}

impl FlagSection {
    /// All about these words; flags that are `told` elsewhere are only named.
    fn roff(&self, told: &[Flag]) -> String {
        let Some(grammar) = self.grammars.first() else {
            return String::new();
        };
        let names: Vec<&str> = self.words.iter().map(|row| row.0).collect();
        let mut page = format!(".SS {}\n", text(&names.join(", ")));
        page += &self
            .grammars
            .iter()
            .map(synopsis)
            .collect::<Vec<_>>()
            .join(".br\n");
        page += ".PP\n";
        page += &paragraphs(grammar.about());
        if self.words.len() > 1 {
            page += &list(self.words.iter().map(owned));
        }
        page += &arguments(grammar);
        let (elsewhere, here): (Vec<Flag>, Vec<Flag>) =
            grammar.flags().partition(|flag| told.contains(flag));
        page += &flags(here.into_iter());
        if !elsewhere.is_empty() {
            let names: Vec<&str> = elsewhere.iter().map(|flag| flag.long).collect();
            page += &format!(
                ".PP\n{}",
                filled(&format!("Also {}: see below.", names.join(", ")))
            );
        }
        let codes: Vec<String> = grammar
            .codes()
            .map(|(code, about)| format!("{code}: {about}"))
            .collect();
        if !codes.is_empty() {
            page += &format!(
                ".PP\n{}",
                filled(&format!("Exit status {}.", codes.join("; ")))
            );
        }
        page
    }
}

fn classic(program: &Program) -> String {
    if program.links.is_empty() {
        return String::new();
    }
    let links = program.links.join(" or ");
    let called = format!("Called as {links} it takes that program's classic options instead.");
    format!(".PP\n{}", filled(&called))
}

/// Those up to `most`, and its own.
fn exit_codes(own: &Grammar, most: u8) -> impl Iterator<Item = (String, String)> {
    exit::TABLE.iter().filter_map(move |(code, common)| {
        let own = own.codes().find(|row| row.0 == i32::from(*code));
        let common = Some(*common).filter(|_| *code <= most);
        let about = own.map(|row| row.1).or(common)?;
        Some((code.to_string(), about.to_owned()))
    })
}

fn files(program: &Program, keys: bool) -> impl Iterator<Item = (String, String)> {
    let serves = service::Program::named(program.name).and_then(|own| own.serve.get(1).copied());
    let config = config::has_file(program.name, serves);
    let config = config.then(|| {
        (
            CONFIG.0.replace("PROGRAM", program.name),
            CONFIG.1.to_owned(),
        )
    });
    keys.then(|| owned(&KEYS)).into_iter().chain(config)
}

fn head(name: &str, about: &str, edition: Edition) -> String {
    let version = text(edition.version);
    let title = text(&name.to_uppercase());
    let name = filled(&format!("{name} - {about}"));
    format!(
        ".TH {title} 1 \"{}\" \"{version}\"\n.SH NAME\n{name}",
        edition.day
    )
}

fn synopsis(grammar: &Grammar) -> String {
    let usage = help::usage(grammar);
    let rest = usage.strip_prefix(&grammar.name).unwrap_or(&usage);
    let (name, rest) = (text(&grammar.name), text(rest.trim()));
    format!(".nh\n.B {name}\n{rest}\n.hy\n")
}

fn arguments(grammar: &Grammar) -> String {
    let rows = grammar.positionals();
    let rows = rows.filter(|row| {
        !row.description.is_empty() && (row.name != "word" || grammar.words().is_empty())
    });
    list(rows.map(|row| (row.name.to_owned(), row.description.to_owned())))
}

fn flags(flags: impl Iterator<Item = Flag>) -> String {
    flags.map(help::row).map(flag_row).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crate::program::{PROGRAMS, docs::man::*};

    /// Sections are there, in the order in which people look for them.
    #[test]
    fn a_page_has_what_the_help_has() {
        let edition = Edition {
            day: "2026-11-22",
            version: "noports 1.0",
        };
        for (name, parts) in [
            (
                "client",
                &[
                    ".TH NOPORTS\\-CLIENT 1 \"2026-11-22\" \"noports 1.0\"\n.SH NAME\nnoports\\-client \\- ",
                    ".SH SYNOPSIS\n.nh\n.B noports client\n\\-\\-to <",
                    ".SH DESCRIPTION\n",
                    "Called as sshnp it takes",
                    ".SH FLAGS\n.TP\n\\fB\\-\\-to\\fR \\fI",
                    ".SH COMMON FLAGS\n",
                    "\\fB\\-q, \\-\\-quiet\\fR\n",
                    "\\fB\\-h, \\-\\-help\\fR\n",
                    ".SH EXIT STATUS\n",
                    ".B 12\n",
                    ".SH ENVIRONMENT\n",
                    ".SH FILES\n",
                    ".B $XDG_CONFIG_HOME/noports/client.conf",
                    ".SH SEE ALSO\n",
                ][..],
            ),
            (
                "enroll",
                &[
                    ".SH ARGUMENTS\n.TP\n.B atsign\n",
                    ".SH WORDS\n.SS otp, spp\n",
                    ".SS list, approve, auto, deny, revoke, unrevoke, delete\n",
                    ".B noports enroll revoke\n",
                    "\\fB\\-\\-existing\\fR\n",
                    ".SH FLAGS\n",
                    ".SH EXAMPLES\n.nf\n",
                    ".B NOPORTS_CODE\n",
                ],
            ),
            (
                "daemon",
                &[
                    ".SS install\n",
                    "\\-\\-run\\-as",
                    "Exit status 4: ",
                    "NOPORTS_STATE",
                ],
            ),
            (
                "policy",
                &[
                    ".SS serve\n",
                    "\\-\\-rules",
                    ".SS check\n",
                    "/etc/noports/policy.conf",
                ],
            ),
        ] {
            let program = PROGRAMS.iter().find(|own| own.name == name).unwrap();
            let page = page(program, edition);
            let mut rest = page.as_str();
            for part in parts {
                let at = rest.find(part).unwrap_or_else(|| panic!("{part}\n{page}"));
                rest = &rest[at..];
            }
        }
    }

    /// Nine words of `enroll` have two sets of flags, and each of these is told once.
    #[test]
    fn no_flag_is_told_twice_under_words_that_share_it() {
        let edition = Edition {
            day: "2026-11-22",
            version: "noports 1.0",
        };
        let program = PROGRAMS.iter().find(|own| own.name == "enroll").unwrap();
        let page = page(program, edition);
        for flag in ["existing", "app\\-pattern", "limit"] {
            let row = format!("\\fB\\-\\-{flag}\\fR");
            assert_eq!(page.matches(&row).count(), 1, "{flag}: {page}");
        }
    }
}
