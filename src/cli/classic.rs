//! The classic command lines (`sshnp`, `npt`, `sshnpd`, `srvd`, `srv`, `npp_file`, `at_activate`) → our words.
//!
//! ```text
//!   words ──read, by a table per program──▶ ours ──▶ our program, which speaks in the classic voice
//!             ▲
//!   a profile (sshnp, npt) or sshnpd.yaml: further options, behind those of the command line
//! ```
//! The originals' own files are read, not ours: `--config-file FILE`, or a profile's name, for the clients;
//! `--config`, `SSHNPD_CONFIG` or `/etc/noports/sshnpd.yaml` for the daemon.
//!
//! `at_activate` is several programs in one and has its table with it. `srv` needs no translation: our bridge takes
//! its words as they are.
//!
//! They come in all the forms that launch scripts use: `--name=value`, `-su`, `""`, `"-p @x"`. `sshnp --help` shows what each
//! of them is here; an option that the original does not know gets the original's error message. The clients show the classic
//! lines of progress, and end with 1 when they fail. A profile's name is looked for in `~/.sshnp/config`; it holds lines
//! `KEY=value`.

use std::path::{Path, PathBuf};

use super::{
    Failure, Given, Voice,
    account::environment,
    config, print_err,
    settings::{Origin, Setting, Settings},
    version,
};
use crate::sys::paths;

use profile::FileOption;
use read::InfoFlag;
pub(crate) use read::{Translated, read, unknown};
pub(crate) use tables::{COMMON, ClassicOption, To};
pub(crate) use usage::meaning;

mod profile;
mod read;
mod sshnpd_yaml;
mod tables;
#[cfg(test)]
mod tests;
mod usage;

/// One classic program.
struct ClassicProgram {
    links: &'static [&'static str],
    /// Our program.
    ours: &'static str,
    /// What stands in front of the words.
    front: &'static [&'static str],
    tables: &'static [&'static [ClassicOption]],
    /// (ours, the variable that stands in for it or nothing, what is said without it)
    needs: &'static [(&'static str, &'static str, &'static str)],
    files: SettingsFile,
    /// A client: its failures are told as `Error : …`, and words that are no option are an error.
    client: bool,
}

/// What other file it reads.
#[derive(Clone, Copy, PartialEq, Eq)]
enum SettingsFile {
    None,
    Profile,
    Yaml,
}

const PROGRAMS: &[ClassicProgram] = &[
    ClassicProgram {
        links: &["sshnp"],
        ours: "client",
        front: &[],
        tables: &[tables::TOLD, tables::CLIENT, COMMON],
        needs: &[
            ("--as", "NOPORTS_AS", "from (clientAtSign) is mandatory"),
            (
                "--to",
                "",
                "Option to is mandatory, unless list-devices is passed.",
            ),
            (
                "--via",
                "NOPORTS_VIA",
                "srvdAtSign is mandatory, unless list-devices is passed.",
            ),
        ],
        files: SettingsFile::Profile,
        client: true,
    },
    ClassicProgram {
        links: &["npt"],
        ours: "tunnel",
        front: &[],
        tables: &[tables::TOLD, tables::TUNNEL, COMMON],
        needs: &[
            ("--as", "NOPORTS_AS", "Option from is mandatory."),
            ("--to", "", "Option to is mandatory."),
            ("--via", "NOPORTS_VIA", "Option srvd is mandatory."),
            ("--device", "", "Option device is mandatory."),
            ("--forward", "", "Option remote-port is mandatory."),
        ],
        files: SettingsFile::Profile,
        client: true,
    },
    ClassicProgram {
        links: &["sshnpd"],
        ours: "daemon",
        front: &[],
        tables: &[tables::TOLD, tables::DAEMON, tables::SERVICE, COMMON],
        needs: &[("--as", "NOPORTS_AS", "Option atsign is mandatory.")],
        files: SettingsFile::Yaml,
        client: false,
    },
    ClassicProgram {
        links: &["srvd", "sshrvd"],
        ours: "rendezvous",
        front: &[],
        tables: &[tables::TOLD, tables::RENDEZVOUS, tables::SERVICE, COMMON],
        needs: &[
            ("--as", "NOPORTS_AS", "Option atsign is mandatory."),
            ("--host", "", "Option ip is mandatory."),
        ],
        files: SettingsFile::None,
        client: false,
    },
    ClassicProgram {
        links: &["npp_file"],
        ours: "policy",
        front: &["serve", "--publish-log"],
        tables: &[
            tables::TOLD,
            tables::POLICY,
            tables::POLICY_FILE,
            tables::SERVICE,
            COMMON,
        ],
        needs: &[
            ("--as", "NOPORTS_AS", "Option atsign is mandatory."),
            ("--rules", "", "Option yaml is mandatory."),
        ],
        files: SettingsFile::None,
        client: false,
    },
    ClassicProgram {
        links: &["npp_atserver"],
        ours: "policy",
        front: &["serve", "--publish-log", "--records"],
        tables: &[tables::TOLD, tables::POLICY, tables::SERVICE, COMMON],
        needs: &[("--as", "NOPORTS_AS", "Option atsign is mandatory.")],
        files: SettingsFile::None,
        client: false,
    },
];

/// The classic names of a bridge.
const BRIDGES: &[&str] = &["srv", "sshrv"];

/// `sshnp --list-devices`: of a client's flags only a few matter.
const LIST: ClassicProgram = ClassicProgram {
    links: &["sshnp"],
    ours: "devices",
    front: &[],
    tables: &[tables::TOLD, tables::DEVICES, tables::CLIENT, COMMON],
    needs: &[("--as", "NOPORTS_AS", "from (clientAtSign) is mandatory")],
    files: SettingsFile::Profile,
    client: true,
};

/// Ours that a list of devices has use for.
const OF_A_LIST: &[&str] = &[
    "--as",
    "--to",
    "--keys",
    "--root",
    "--timeout",
    "--quiet",
    "--verbose",
];

/// A daemon needs one of the two.
const NOBODY_MAY: &str =
    "At least one of --managers and --policy-manager options must be supplied.";

/// What a classic command line means.
#[derive(Debug)]
pub enum Meaning {
    /// One of our programs.
    Run(Run),
    /// Nothing but this text.
    Tell(String),
}

/// One of our programs, as a classic command line wants it.
#[derive(Debug)]
pub struct Run {
    /// Its name.
    pub program: &'static str,
    /// Its command line.
    pub words: Vec<String>,
    /// Lines for stderr before it starts.
    pub remarks: Vec<String>,
    /// What came besides flags.
    pub given: Given,
    /// What it was told, and where.
    pub settings: Settings,
}

/// What a command line is read in front of; tests bring their own.
struct Surroundings<'a> {
    variable: &'a dyn Fn(&str) -> Option<String>,
    home: Option<PathBuf>,
    yaml: PathBuf,
}

/// How the classic program of that name talks; `None`: a bridge, which has nothing to say to people.
pub fn voice(link: &str, words: &[&str]) -> Option<Voice> {
    if BRIDGES.contains(&link) {
        return None;
    }
    let program = program(link, words);
    Some(Voice {
        label: if program.client {
            "\nError : "
        } else {
            "Error: "
        },
        usage: usage::usage(link, program.ours, program.tables),
        ends_with_1: program.client,
    })
}

/// Our program and words for a classic command line.
///
/// # Errors
/// A misuse.
pub fn understand(link: &str, words: &[&str]) -> Result<Meaning, Failure> {
    if BRIDGES.contains(&link) {
        // It takes the classic words itself: what started it waits for certain lines, and no others.
        return Ok(Meaning::Run(Run {
            program: "bridge",
            words: words.iter().map(|&word| word.to_owned()).collect(),
            remarks: Vec::new(),
            given: Given::default(),
            settings: Settings::default(),
        }));
    }
    let around = Surroundings {
        variable: &environment,
        home: paths::home(),
        yaml: sshnpd_yaml::USUAL.into(),
    };
    program(link, words).meaning(link, words, &around)
}

/// Flags of ours that had another name: program, then, now.
const RENAMED: &[(&str, &str, &str)] = &[
    ("tunnel", "--wait", "--timeout"),
    ("devices", "--wait", "--timeout"),
];

/// Our flag for a classic one of the same program, or for one that we have renamed: `-f` of `sshnp` is `--as` of `client`.
pub fn ours(program: &str, word: &str) -> Option<&'static str> {
    if let Some(row) = RENAMED.iter().find(|row| (row.0, row.1) == (program, word)) {
        return Some(row.2);
    }
    let program = PROGRAMS.iter().find(|classic| classic.ours == program)?;
    let rows = program.tables.iter().flat_map(|table| table.iter());
    let name = word.trim_start_matches('-');
    let is_meant = |row: &&ClassicOption| match word.strip_prefix("--") {
        Some(long) => row.0.contains(&long),
        None => row.1 != 0 && name == char::from(row.1).to_string(),
    };
    let found: Vec<&ClassicOption> = rows.filter(is_meant).collect();
    found.iter().find_map(|row| row.2.ours())
}

/// The options of the classic program of that name, and which of ours it is; `None`: it has none of its own.
pub(crate) fn options(
    link: &str,
) -> Option<(&'static str, impl Iterator<Item = &'static ClassicOption>)> {
    let program = PROGRAMS.iter().find(|own| own.links.contains(&link))?;
    Some((program.ours, program.tables.iter().copied().flatten()))
}

fn program(link: &str, words: &[&str]) -> &'static ClassicProgram {
    const FIRST: &ClassicProgram = &PROGRAMS[0];
    let lists = |word: &&str| matches!(word.trim(), "--ls" | "--list-devices");
    if link == "sshnp" && words.iter().take_while(|w| **w != "--").any(lists) {
        return &LIST;
    }
    let found = PROGRAMS
        .iter()
        .find(|program| program.links.contains(&link));
    found.unwrap_or(FIRST)
}

/// What a YAML file of the classic daemon says, as flags of ours; what is no flag goes to `given`.
///
/// # Errors
/// A misuse that names file, line and what is wrong there.
pub fn yaml_settings(path: &Path, text: &str, given: &mut Given) -> Result<Vec<Setting>, Failure> {
    let name = path.display();
    let bad = |why: &dyn std::fmt::Display| Failure::misuse(format!("{name}, {why}"));
    let (words, remarks) = sshnpd_yaml::read(text).map_err(|why| bad(&why))?;
    for remark in remarks {
        print_err(&format!("{name}, {remark}"));
    }
    settings(
        &[tables::DAEMON, tables::SERVICE, COMMON],
        path,
        &words,
        given,
    )
    .map_err(|(line, why)| bad(&format!("line {line}: {}", why.message)))
}

/// Each word alone, in our terms. A phrase is kept aside.
fn settings(
    tables: &[&[ClassicOption]],
    path: &Path,
    words: &[FileOption],
    given: &mut Given,
) -> Result<Vec<Setting>, (usize, Failure)> {
    let mut all = Vec::new();
    for word in words {
        let at_line = |failure| (word.line, failure);
        let mut read = read(tables, &[&word.text], |_| Ok(())).map_err(at_line)?;
        if let Some(phrase) = read.given.phrase.take() {
            given.phrase = Some(phrase);
        }
        all.extend(read.ours.into_iter().map(|(name, value)| Setting {
            name: name.trim_start_matches('-').to_owned(),
            value,
            origin: Origin::File(path.to_owned(), word.line),
        }));
    }
    Ok(all)
}

impl ClassicProgram {
    fn meaning(
        &self,
        link: &str,
        words: &[&str],
        around: &Surroundings,
    ) -> Result<Meaning, Failure> {
        let tables = self.tables_here(around);
        let mut left = Vec::new();
        let line = read(&tables, words, |word| {
            left.push(word.to_owned());
            Ok(())
        })?;
        match line.info {
            Some(InfoFlag::Help) => {
                let usage = usage::usage(link, self.ours, &tables);
                return Ok(Meaning::Tell(format!("{}\n{usage}", version())));
            }
            Some(InfoFlag::Version) => return Ok(Meaning::Tell(version())),
            None => {}
        }
        if link == "sshnp" && !left.is_empty() {
            let why = format!("Unparsed args [{}]", left.join(", "));
            return Err(Failure::misuse(why).hint("what is for ssh stands behind --"));
        }
        let mut remarks = Vec::new();
        let (mut all, mut settings) = (Translated::default(), Settings::default());
        if let Some((path, of_file)) = self.file(line.config.as_deref(), around, &mut remarks)? {
            (all, settings.inherited) = behind_a_file(&tables, &path, &of_file)?;
            let is_new = |setting: &Setting| !line.has(&format!("--{}", setting.name));
            settings.inherited.retain(is_new);
            let values = line.ours.iter().filter_map(|(_, value)| value.as_deref());
            let typed = words.iter().copied().chain(values).map(str::to_owned);
            settings.typed = typed.collect();
        }
        all.read(&tables, words, |_| Ok(()))?;
        remarks.extend(self.remarks(link, &line, &all));
        if self.ours == "tunnel" {
            all.join_forward();
        }
        if !all.join_key(around.home.as_deref()) {
            remarks.push(format!("{link}: no public key is sent: -s needs -i"));
        }
        self.complete(&all, around)?;
        if self.ours == "devices" {
            all.ours.retain(|(name, _)| OF_A_LIST.contains(name));
            all.ssh.clear();
        }
        let given = std::mem::take(&mut all.given);
        let front = self.front.iter().map(|&word| word.to_owned());
        Ok(Meaning::Run(Run {
            program: self.ours,
            words: front.chain(all.print()).collect(),
            remarks,
            given,
            settings,
        }))
    }

    /// Its options, as far as they are taken here.
    fn tables_here(&self, around: &Surroundings) -> Vec<&'static [ClassicOption]> {
        let mut tables = self.tables.to_vec();
        let snoop = (around.variable)("ENABLE_SNOOP");
        if self.ours == "rendezvous" && snoop.as_deref() == Some("true") {
            tables.push(tables::SNOOP);
        }
        tables
    }

    /// The file with further options, if there is one.
    fn file(
        &self,
        named: Option<&str>,
        around: &Surroundings,
        remarks: &mut Vec<String>,
    ) -> Result<Option<(PathBuf, Vec<FileOption>)>, Failure> {
        match self.files {
            SettingsFile::None => Ok(None),
            SettingsFile::Profile => {
                let home = around.home.as_deref();
                named
                    .map(|named| profile::read(named, home, self.tables))
                    .transpose()
            }
            SettingsFile::Yaml => {
                let named = named.map(str::to_owned);
                let path = named.or_else(|| (around.variable)(sshnpd_yaml::VARIABLE));
                let path = path.map_or_else(|| around.yaml.clone(), PathBuf::from);
                // As with the original, a file that is not there is fine, even if somebody names it.
                if !path.exists() {
                    return Ok(None);
                }
                let name = path.display();
                let (words, left_out) = sshnpd_yaml::read(&config::text(&path)?)
                    .map_err(|why| Failure::misuse(format!("{name}, {why}")))?;
                remarks.extend(left_out.iter().map(|what| format!("{name}, {what}")));
                Ok(Some((path, words)))
            }
        }
    }

    /// What the originals say before they start.
    fn remarks(&self, link: &str, line: &Translated, all: &Translated) -> Vec<String> {
        let mut remarks = Vec::new();
        if link == "sshnp" && !all.has("--device") {
            remarks.push(
                "Warning: Using default value of \"default\" for optional arg \"--device\"."
                    .to_owned(),
            );
        }
        if link == "sshnpd" && line.seen.contains(&"un-hide") {
            remarks.push("[WARN] -u, --un-hide is the default; --hide is its opposite".to_owned());
        }
        if line.given.phrase.is_some() {
            remarks.push(format!(
                "{link}: everybody on this machine can read a secret in the command line"
            ));
        }
        remarks
    }

    /// What has to be there is there.
    fn complete(&self, all: &Translated, around: &Surroundings) -> Result<(), Failure> {
        for (ours, variable, why) in self.needs {
            let outside = !variable.is_empty() && (around.variable)(variable).is_some();
            if !all.has(ours) && !outside {
                return Err(Failure::misuse(*why));
            }
        }
        if self.ours == "daemon" && !all.has("--manager") && !all.has("--policy") {
            return Err(Failure::misuse(NOBODY_MAY));
        }
        if self.ours == "tunnel" && all.has("--keep-alive") && all.has("--print") {
            return Err(Failure::misuse(
                "--keep-alive and --exit-when-connected are mutually exclusive",
            ));
        }
        Ok(())
    }
}

/// What a file says, to be read before the command line; and its lines.
fn behind_a_file(
    tables: &[&[ClassicOption]],
    path: &Path,
    words: &[FileOption],
) -> Result<(Translated, Vec<Setting>), Failure> {
    let name = path.display();
    let in_file = |line: usize, why: Failure| Failure {
        message: format!("{name}, line {line}: {}", why.message),
        ..why
    };
    let mut all = Translated::default();
    for word in words {
        let read = all.read_on(tables, &[&word.text]);
        read.map_err(|why| in_file(word.line, why))?;
    }
    let settings = settings(tables, path, words, &mut Given::default());
    let settings = settings.map_err(|(line, why)| in_file(line, why))?;
    Ok((all, settings))
}
