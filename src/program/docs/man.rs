//! ○ Manual pages, in roff, from what `--help` says.

use super::help::{Help, HelpFlag};
use crate::cli::exit;

/// What a page is about.
#[derive(Debug)]
pub(super) struct Page<'a> {
    /// `noports-client`
    pub name: String,
    /// One line.
    pub about: &'a str,
    /// Its own help.
    pub help: Help,
    /// Help of the words behind it: `serve`, `install`.
    pub commands: Vec<(String, Help)>,
    /// Classic names of the same program.
    pub links: &'a [&'a str],
}

/// Day and version, for every page's foot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Edition<'a> {
    /// `2026-11-22`
    pub day: &'a str,
    /// `noports 0.1.0`
    pub version: &'a str,
}

impl Page<'_> {
    /// The page.
    pub(super) fn roff(&self, edition: Edition) -> String {
        let mut page = head(&self.name, self.about, edition);
        page += ".SH SYNOPSIS\n";
        page += &synopsis(&self.help.usage);
        page += ".SH DESCRIPTION\n";
        page += &paragraphs(&self.help.about);
        page += &self.classic();
        page += &section("ARGUMENTS", &list(&self.help.positional));
        page += &section("OPTIONS", &flags(&self.help.flags));
        for (name, help) in &self.commands {
            page += &format!(".SH {}\n", text(&name.to_uppercase()));
            page += &synopsis(&help.usage);
            page += ".PP\n";
            page += &paragraphs(&help.about);
            page += &list(&help.positional);
            page += &flags(&help.flags);
            page += &set_off(&examples(&help.examples));
        }
        page += &section("NOTES", &as_it_is(&self.help.notes));
        page += &section("EXAMPLES", &examples(&self.help.examples));
        page += &section("EXIT STATUS", &self.codes());
        page + SEE_ALSO
    }

    fn classic(&self) -> String {
        if self.links.is_empty() {
            return String::new();
        }
        format!(
            ".PP\nCalled as {} it takes that program's classic flags instead.\n",
            text(&self.links.join(", "))
        )
    }

    fn codes(&self) -> String {
        let own = &self.help.codes;
        let common = exit::TABLE
            .iter()
            .map(|(code, meaning)| (code.to_string(), (*meaning).to_owned()));
        let all: Vec<_> = common
            .map(|row| {
                own.iter()
                    .find(|own| own.0 == row.0)
                    .cloned()
                    .unwrap_or(row)
            })
            .collect();
        list(&all)
    }
}

/// The page of the whole: which programs there are.
pub(super) fn overview(programs: &[(String, &str)], edition: Edition) -> String {
    let mut page = head("noports", "reaches a device that has no open port", edition);
    page += ".SH SYNOPSIS\n.B noports\n.I program\n.RI [ flags ]\n.SH DESCRIPTION\n";
    page += &paragraphs(
        "Ssh and any TCP service on a device that has no open port, end-to-end encrypted, with outbound \
         connections only. The device waits for notifications of its atServer; both ends then meet at a \
         rendezvous, which sees only cipher text.\n\nEach program has a page of its own.",
    );
    page += ".SH PROGRAMS\n";
    for (name, about) in programs {
        let name = text(name);
        page += &format!(".TP\n.BR noports\\-{name} (1)\n{}\n", text(about));
    }
    page += &section(
        "ENVIRONMENT",
        &list(&ENVIRONMENT.map(|(a, b)| (a.into(), b.into()))),
    );
    page += &section("FILES", &list(&FILES.map(|(a, b)| (a.into(), b.into()))));
    let codes: Vec<_> = exit::TABLE
        .iter()
        .map(|(a, b)| (a.to_string(), (*b).to_owned()))
        .collect();
    page + &section("EXIT STATUS", &list(&codes)) + ".SH SEE ALSO\n.BR ssh (1)\n"
}

/// A page that is another one's.
pub(super) fn link(to: &str) -> String {
    format!(".so man1/{to}.1\n")
}

const SEE_ALSO: &str = ".SH SEE ALSO\n.BR noports (1),\n.BR ssh (1)\n";

const ENVIRONMENT: [(&str, &str); 8] = [
    ("NOPORTS_ROOT", "the atDirectory, HOST:PORT; --root wins"),
    (
        "NOPORTS_CA",
        "further certificate authorities, PEM files, separated by colons; --ca wins",
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
    ("NOPORTS_LOG", "what is logged: a level, or module=level,…"),
    ("NOPORTS_STATE", "file in which a service tells its state"),
];
const FILES: [(&str, &str); 1] = [(
    "~/.atsign/keys/@you_key.atKeys",
    "an atSign's keys; keep them safe",
)];

fn head(name: &str, about: &str, edition: Edition) -> String {
    let version = text(edition.version);
    let title = text(&name.to_uppercase());
    format!(
        ".TH {title} 1 \"{}\" \"{version}\"\n.SH NAME\n{} \\- {}\n",
        edition.day,
        text(name),
        text(about)
    )
}

fn section(title: &str, body: &str) -> String {
    if body.is_empty() {
        String::new()
    } else {
        format!(".SH {title}\n{body}")
    }
}

/// The same within a section, set off from what stands before.
fn set_off(body: &str) -> String {
    if body.is_empty() {
        String::new()
    } else {
        format!(".PP\n{body}")
    }
}

fn synopsis(usage: &str) -> String {
    let (name, rest) = match usage.find(|c| "-[<".contains(c)) {
        Some(at) => usage.split_at(at),
        None => (usage, ""),
    };
    let rest = text(rest.trim());
    let name = text(name.trim());
    format!(".nh\n.B {name}\n{rest}\n.hy\n").replace("\n\n", "\n")
}

fn paragraphs(body: &str) -> String {
    let parts: Vec<_> = body.split("\n\n").map(text).collect();
    parts.join("\n.PP\n") + "\n"
}

fn list(rows: &[(String, String)]) -> String {
    let rows = rows.iter();
    rows.map(|(name, about)| format!(".TP\n.B {}\n{}\n", text(name), text(about)))
        .collect()
}

fn flags(flags: &[HelpFlag]) -> String {
    let row = |flag: &HelpFlag| {
        let short = flag
            .short
            .as_deref()
            .map_or(String::new(), |short| format!("{short}, "));
        let names = text(&format!("{short}{}", flag.long));
        let value = match &flag.value {
            Some(value) => format!(" \\fI{}\\fR", text(value.trim_end_matches("..."))),
            None => String::new(),
        };
        format!(".TP\n\\fB{names}\\fR{value}\n{}\n", text(&flag.about))
    };
    flags.iter().map(row).collect()
}

fn as_it_is(lines: &[String]) -> String {
    if lines.is_empty() {
        return String::new();
    }
    let lines: Vec<_> = lines.iter().map(|line| text(line)).collect();
    format!(".nf\n{}\n.fi\n", lines.join("\n"))
}

fn examples(lines: &[String]) -> String {
    if lines.is_empty() {
        return String::new();
    }
    let lines: Vec<_> = lines.iter().map(|line| text(line)).collect();
    format!(".nf\n{}\n.fi\n", lines.join("\n"))
}

/// Text in which roff finds nothing to do.
fn text(plain: &str) -> String {
    let mut safe = String::new();
    for (number, line) in plain.lines().enumerate() {
        if number > 0 {
            safe.push('\n');
        }
        if line.starts_with(['.', '\'']) {
            safe += "\\&";
        }
        for letter in line.chars() {
            match letter {
                '\\' => safe += "\\e",
                '-' => safe += "\\-",
                '\'' => safe += "\\(aq",
                '`' => safe += "\\(ga",
                '^' => safe += "\\(ha",
                '~' => safe += "\\(ti",
                '"' => safe += "\\(dq",
                '…' => safe += "...",
                _ => safe.push(letter),
            }
        }
    }
    safe
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crate::program::docs::man::*;

    #[test]
    fn roff_finds_nothing_to_do_in_our_text() {
        for (plain, want) in [
            (".TH x", r"\&.TH x"),
            ("'br", r"\&\(aqbr"),
            (r"a\fB", r"a\efB"),
            ("--ca ~/x", r"\-\-ca \(ti/x"),
            ("a\n.b", "a\n\\&.b"),
        ] {
            assert_eq!(text(plain), want, "{plain}");
        }
    }

    #[test]
    fn a_page_has_what_the_help_has() {
        let help = Help::parse(
            "Usage: noports x --to <who> [-q]\n\nDoes.\n\nOptions:\n  --to              who\n  -q, --quiet       less\n",
        );
        let page = Page {
            name: "noports-x".into(),
            about: "does it",
            help,
            commands: vec![],
            links: &["sshx"],
        };
        let roff = page.roff(Edition {
            day: "2026-11-22",
            version: "noports 1.0",
        });
        for part in [
            ".TH NOPORTS\\-X 1 \"2026-11-22\" \"noports 1.0\"\n",
            "noports\\-x \\- does it\n",
            ".B noports x\n\\-\\-to <who> [\\-q]\n",
            ".TP\n\\fB\\-\\-to\\fR \\fIwho\\fR\nwho\n",
            ".TP\n\\fB\\-q, \\-\\-quiet\\fR\nless\n",
            "Called as sshx it takes",
            ".B 12\n",
        ] {
            assert!(roff.contains(part), "{part}\n{roff}");
        }
    }
}
