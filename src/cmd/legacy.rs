//! The classic command lines (`sshnp`, `npt`, `sshnpd`, `srvd`, `at_activate`) → our words.
//!
//! A table per program. Words are taken as upstream's parser takes them: `--name value`, `--name=value`,
//! `-n value`, `-nvalue`, bundled switches (`-su`), empty words, and one word that holds flag and value
//! (`"-p @x"`), because the shipped launch scripts write all of these. A single-valued option given twice
//! keeps its last value.
//!
//! `srv` needs no translation: our bridge takes its flags as they are. `at_activate` is several programs in one;
//! its table is in [`at_activate`].
//!
//! Source: noports:packages/dart/noports_core/lib/src/sshnp/models/sshnp_arg.dart,
//! noports:packages/dart/noports_core/lib/src/sshnpd/sshnpd_params.dart and
//! noports:packages/dart/noports_core/lib/src/srvd/srvd_params.dart.

use super::common::{Failure, Given};
use crate::secret::Secret;

pub mod at_activate;
mod policy;
mod status;

/// What becomes of a classic option.
#[derive(Clone, Copy, Debug)]
enum To {
    /// Ours, with a value.
    Value(&'static str),
    /// Ours, with a value, as often as it is given.
    Values(&'static str),
    /// Ours, without a value.
    Switch(&'static str),
    /// A switch that asks for what we do anyway.
    Given,
    /// Asks for what we do not do: plain sessions, another sshd port, pushing keys.
    Never,
    /// Takes a value that means nothing here.
    IgnoredValue,
    /// Takes a value that stands behind `--` for ssh; commas separate several.
    Ssh,
    /// A secret in the open: an activation secret or a code.
    Secret,
    /// A secret in the open: the phrase of key files.
    Phrase,
}

/// (long names, short name or 0, what becomes of it)
type Row = (&'static [&'static str], u8, To);

const COMMON: &[Row] = &[
    (
        &["root-domain", "root-server", "rootServer"],
        0,
        To::Value("--root"),
    ),
    (&["verbose"], b'v', To::Switch("--verbose")),
    (&["storage-path"], 0, To::IgnoredValue),
    (&["help"], 0, To::Switch("--help")),
];

const CLIENT: &[Row] = &[
    (&["from"], b'f', To::Value("--as")),
    (&["to"], b't', To::Value("--to")),
    (&["device"], b'd', To::Value("--device")),
    (&["srvd"], b'r', To::Value("--via")),
    (&["host"], b'h', To::Value("--via")),
    (&["key-file", "keyFile"], b'k', To::Value("--keys")),
    (&["identity-file"], b'i', To::Value("--identity")),
    (&["remote-user-name"], b'u', To::Value("--user")),
    (&["tunnel-user-name"], b'U', To::IgnoredValue),
    (&["local-ssh-options"], b'o', To::Ssh),
    (&["output-execution-command"], b'x', To::Switch("--print")),
    (&["quiet"], b'q', To::Switch("--quiet")),
    (&["authenticate-client-to-rvd", "ac"], 0, To::Given),
    (&["authenticate-device-to-rvd", "ad"], 0, To::Given),
    (&["encrypt-rvd-traffic", "et"], 0, To::Given),
    (&["no-authenticate-client-to-rvd", "no-ac"], 0, To::Never),
    (&["no-authenticate-device-to-rvd", "no-ad"], 0, To::Never),
    (&["no-encrypt-rvd-traffic", "no-et"], 0, To::Never),
    (&["daemon-ping-timeout", "dpt"], 0, To::IgnoredValue),
    (&["idle-timeout"], 0, To::IgnoredValue),
    (&["ssh-algorithm"], 0, To::IgnoredValue),
    (&["ssh-client"], 0, To::IgnoredValue),
    (&["local-port"], b'l', To::Value("--local-port")),
    (&["remote-sshd-port"], 0, To::Never),
    (&["send-ssh-public-key"], b's', To::Never),
];

/// What makes up a `--forward`; joined at the end.
const REMOTE_PORT: &str = "remote-port";
const REMOTE_HOST: &str = "remote-host";
const LOCAL_PORT: &str = "local-port";
const LOCAL_HOST: &str = "local-host";

const TUNNEL: &[Row] = &[
    (&["from"], b'f', To::Value("--as")),
    (&["to"], b't', To::Value("--to")),
    (&["device"], b'd', To::Value("--device")),
    (&["srvd"], b'r', To::Value("--via")),
    (&["remote-port", "rp"], b'p', To::Value(REMOTE_PORT)),
    (&["remote-host", "rh"], b'h', To::Value(REMOTE_HOST)),
    (&["local-port", "lp"], b'l', To::Value(LOCAL_PORT)),
    (&["local-host", "lh"], 0, To::Value(LOCAL_HOST)),
    (&["key-file", "keyFile"], b'k', To::Value("--keys")),
    (&["exit-when-connected"], b'x', To::Switch("--print")),
    (&["keep-alive"], b'K', To::Switch("--keep-alive")),
    (&["timeout"], b'T', To::Value("--timeout")),
    (&["daemon-ping-timeout", "dpt"], 0, To::Value("--wait")),
    (&["quiet"], b'q', To::Switch("--quiet")),
    (&["encrypt-rvd-traffic", "et"], 0, To::Given),
    (&["no-encrypt-rvd-traffic", "no-et"], 0, To::Never),
    (&["per-session-storage", "pss"], 0, To::Given),
    (&["no-per-session-storage", "no-pss"], 0, To::Given),
    (&["heartbeat"], b'H', To::IgnoredValue),
];

/// `sshnp --list-devices`: of a client's flags only these matter.
const DEVICES: &[Row] = &[
    (&["list-devices", "ls"], 0, To::Given),
    (&["from"], b'f', To::Value("--as")),
    (&["to"], b't', To::Value("--to")),
    (&["key-file", "keyFile"], b'k', To::Value("--keys")),
    (&["quiet"], b'q', To::Switch("--quiet")),
    (&["daemon-ping-timeout", "dpt"], 0, To::Value("--wait")),
    (&["device"], b'd', To::IgnoredValue),
    (&["srvd"], b'r', To::IgnoredValue),
    (&["host"], b'h', To::IgnoredValue),
];

const DAEMON: &[Row] = &[
    (&["atsign"], b'a', To::Value("--as")),
    (&["managers", "manager"], b'm', To::Values("--manager")),
    (&["device"], b'd', To::Value("--device")),
    (&["key-file", "keyFile"], b'k', To::Value("--keys")),
    (&["permit-open", "po"], 0, To::Value("--permit-open")),
    (&["local-sshd-port"], 0, To::Value("--sshd-port")),
    (&["hide"], b'h', To::Switch("--hide")),
    (&["un-hide", "username"], b'u', To::Given),
    (&["ssh-client"], 0, To::IgnoredValue),
    (&["ssh-algorithm"], 0, To::IgnoredValue),
    (
        &["ephemeral-permissions", "ephemeral-permission"],
        0,
        To::IgnoredValue,
    ),
    (&["policy-manager"], b'p', To::Value("--policy")),
    (&["device-group", "dg"], 0, To::Value("--device-group")),
];

const RENDEZVOUS: &[Row] = &[
    (&["atsign"], b'a', To::Value("--as")),
    (&["ip"], b'i', To::Value("--host")),
    (&["manager"], b'm', To::Values("--manager")),
    (&["key-file", "keyFile"], b'k', To::Value("--keys")),
    (&["snoop"], b's', To::Switch("--snoop")),
];

/// Whether a classic client is only asked which devices there are.
pub fn asks_for_devices(words: &[&str]) -> bool {
    words
        .iter()
        .any(|word| matches!(word.trim(), "--ls" | "--list-devices"))
}

/// Our words for a classic command line.
///
/// # Errors
/// A misuse that names the word: an unknown option, or one that asks for what this version does not do.
pub fn translate(program: &str, words: &[&str]) -> Result<Vec<String>, Failure> {
    let table = match program {
        "client" => CLIENT,
        "tunnel" => TUNNEL,
        "devices" => DEVICES,
        "daemon" => DAEMON,
        "rendezvous" => RENDEZVOUS,
        "policy" => policy::TABLE,
        _ => return Ok(words.iter().map(|&w| w.to_owned()).collect()),
    };
    let bare = |word: &str| match program {
        "client" => Err(Failure::misuse(format!("Unparsed args [{word}]"))),
        _ => Ok(()),
    };
    let mut read = read(&[table, COMMON], words, bare)?;
    if program == "tunnel" {
        read.join_forward()?;
    }
    let ours = read.print();
    Ok(if program == "policy" {
        policy::finish(ours)
    } else {
        ours
    })
}

/// Reads a classic command line by these tables; `bare` hears the words that are no option.
fn read(
    tables: &[&[Row]],
    words: &[&str],
    mut bare: impl FnMut(&str) -> Result<(), Failure>,
) -> Result<Translated, Failure> {
    let mut out = Translated::default();
    // The launch scripts pass empty words where a setting is empty.
    let mut rest = words.iter().map(|w| w.trim()).filter(|w| !w.is_empty());
    while let Some(word) = rest.next() {
        if word == "--" {
            out.ssh.extend(rest.by_ref().map(str::to_owned));
        } else if let Some(long) = word.strip_prefix("--") {
            let (name, value) = long
                .split_once('=')
                .map_or((long, None), |(n, v)| (n, Some(v)));
            let to = find(tables, |row| row.0.contains(&name)).ok_or_else(|| unknown(word))?;
            out.take(to, word, value, &mut rest)?;
        } else if let Some(letters) = word.strip_prefix('-').filter(|l| !l.is_empty()) {
            out.letters(tables, word, letters, &mut rest)?;
        } else {
            bare(word)?;
        }
    }
    Ok(out)
}

fn find(tables: &[&[Row]], fits: impl Fn(&Row) -> bool) -> Option<To> {
    tables
        .iter()
        .flat_map(|table| table.iter())
        .find(|row| fits(row))
        .map(|row| row.2)
}

fn unknown(word: &str) -> Failure {
    Failure::misuse(format!(
        "Could not find an option named \"{}\".",
        word.trim_start_matches('-')
    ))
    .hint("call the program by its own name for its own flags: noports help")
}

#[derive(Default)]
struct Translated {
    /// In order of first mention; single values are replaced.
    ours: Vec<(&'static str, Option<String>)>,
    ssh: Vec<String>,
    given: Given,
}

impl Translated {
    fn letters<'a>(
        &mut self,
        tables: &[&[Row]],
        word: &str,
        letters: &'a str,
        rest: &mut impl Iterator<Item = &'a str>,
    ) -> Result<(), Failure> {
        for (i, letter) in letters.bytes().enumerate() {
            let to = find(tables, |row| row.1 == letter).ok_or_else(|| unknown(word))?;
            let behind = letters.get(i + 1..).unwrap_or_default();
            if matches!(
                to,
                To::Value(_) | To::Values(_) | To::IgnoredValue | To::Ssh | To::Secret | To::Phrase
            ) {
                // `-p@x`, `-p=@x`, and the scripts' `"-p @x"` as one word.
                let value = Some(behind.trim_start_matches('=').trim()).filter(|v| !v.is_empty());
                return self.take(to, word, value, rest);
            }
            self.take(to, word, None, rest)?;
        }
        Ok(())
    }

    fn take<'a>(
        &mut self,
        to: To,
        word: &str,
        value: Option<&'a str>,
        rest: &mut impl Iterator<Item = &'a str>,
    ) -> Result<(), Failure> {
        let mut value = || {
            value.or_else(|| rest.next()).ok_or_else(|| {
                Failure::misuse(format!(
                    "Missing argument for \"{}\".",
                    word.trim_start_matches('-')
                ))
            })
        };
        match to {
            To::Value(ours) => {
                let value = Some(value()?.to_owned());
                self.ours.retain(|(name, _)| *name != ours);
                self.ours.push((ours, value));
            }
            To::Values(ours) => self.ours.push((ours, Some(value()?.to_owned()))),
            To::Switch(ours) => self.ours.push((ours, None)),
            To::Given => {}
            To::Never => {
                return Err(Failure::misuse(format!(
                    "{word}: this version does not do that"
                )));
            }
            To::IgnoredValue => {
                value()?;
            }
            To::Secret => self.given.secret = Some(Secret::new(value()?.to_owned())),
            To::Phrase => self.given.phrase = Some(Secret::new(value()?.to_owned())),
            To::Ssh => self.ssh.extend(
                value()?
                    .split(',')
                    .flat_map(str::split_whitespace)
                    .map(str::to_owned),
            ),
        }
        Ok(())
    }

    /// `-p 80 -h nas -l 8080` → `--forward 127.0.0.1:8080:nas:80`
    fn join_forward(&mut self) -> Result<(), Failure> {
        let mut part = |wanted: &str| {
            let at = self.ours.iter().position(|(name, _)| *name == wanted)?;
            self.ours.remove(at).1
        };
        let (port, host) = (part(REMOTE_PORT), part(REMOTE_HOST));
        let (here, bind) = (part(LOCAL_PORT), part(LOCAL_HOST));
        if self.ours.iter().any(|(name, _)| *name == "--help") {
            return Ok(());
        }
        let port = port.ok_or_else(|| Failure::misuse("Option remote-port is mandatory."))?;
        let forward = format!(
            "{}:{}:{}:{port}",
            bind.as_deref().unwrap_or("localhost"),
            here.as_deref().unwrap_or("0"),
            host.as_deref().unwrap_or("localhost")
        );
        self.ours.push(("--forward", Some(forward)));
        Ok(())
    }

    fn print(self) -> Vec<String> {
        let mut words = Vec::new();
        for (name, value) in self.ours {
            words.extend(Some(name.to_owned()).filter(|n| !n.is_empty()));
            words.extend(value);
        }
        if !self.ssh.is_empty() {
            words.push("--".to_owned());
            words.extend(self.ssh);
        }
        words
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn classic_words_become_ours() {
        for (program, words, want) in [
            (
                "client",
                &["-f", "@me", "-t", "@dev", "-d", "pi", "-r", "@rv_eu"][..],
                "--as @me --to @dev --device pi --via @rv_eu",
            ),
            (
                "client",
                &["--from=@me", "-t@dev", "-h", "@rv", "-xq"],
                "--as @me --to @dev --via @rv --print --quiet",
            ),
            ("client", &["-t", "@a", "-t", "@b"], "--to @b"),
            (
                "client",
                &["-o", "-L 80:x:80,-v", "--et", "--ac"],
                "-- -L 80:x:80 -v",
            ),
            ("client", &["-t", "@a", "--", "-p", "x"], "--to @a -- -p x"),
            (
                "tunnel",
                &["-f@me", "-t@dev", "-r", "@rv", "-d", "pi", "-p", "80", "-x"],
                "--as @me --to @dev --via @rv --device pi --print --forward localhost:0:localhost:80",
            ),
            (
                "tunnel",
                &[
                    "--rp=443", "--rh", "nas", "--lp", "8443", "-K", "-T", "0", "--pss",
                ],
                "--keep-alive --timeout 0 --forward localhost:8443:nas:443",
            ),
            (
                "devices",
                &["--ls", "-f", "@me", "-t", "@dev", "-r", "@rv"],
                "--as @me --to @dev",
            ),
            (
                "daemon",
                &["-a", "@dev", "-m", "@me", "-d", "pi", "", "", "-u", "-v"],
                "--as @dev --manager @me --device pi --verbose",
            ),
            (
                "daemon",
                &["-a @dev", "-uv", "-m@me"],
                "--as @dev --verbose --manager @me",
            ),
            (
                "daemon",
                &["-m", "@a", "--managers", "@b,@c"],
                "--manager @a --manager @b,@c",
            ),
            (
                "daemon",
                &["-a", "@dev", "-p @policy", "--dg", "office"],
                "--as @dev --policy @policy --device-group office",
            ),
            (
                "policy",
                &[
                    "-a",
                    "@p",
                    "--yaml",
                    "p.yaml",
                    "--daemon-atsigns",
                    "@d",
                    "-v",
                ],
                "serve --as @p --rules p.yaml --verbose",
            ),
            ("policy", &["-a", "@p"], "serve --as @p --records"),
            (
                "rendezvous",
                &["-a", "@rv", "-i", "192.0.2.1", "-m", "open"],
                "--as @rv --host 192.0.2.1 --manager open",
            ),
            ("bridge", &["-h", "x", "--rv-auth"], "-h x --rv-auth"),
        ] {
            assert_eq!(
                translate(program, words).unwrap().join(" "),
                want,
                "{program} {words:?}"
            );
        }
    }

    #[test]
    fn words_nobody_knows_are_refused_by_name() {
        for (program, words, want) in [
            (
                "client",
                &["--nope"][..],
                "Could not find an option named \"nope\".",
            ),
            ("client", &["-t", "@a", "left"], "Unparsed args [left]"),
            ("client", &["-t"], "Missing argument for \"t\"."),
            ("tunnel", &["-t", "@a"], "Option remote-port is mandatory."),
            (
                "tunnel",
                &["--no-et", "-p", "1"],
                "--no-et: this version does not do that",
            ),
            (
                "client",
                &["--no-et"],
                "--no-et: this version does not do that",
            ),
            (
                "daemon",
                &["-P", "secret"],
                "Could not find an option named \"P\".",
            ),
        ] {
            assert_eq!(
                translate(program, words).unwrap_err().message,
                want,
                "{program} {words:?}"
            );
        }
    }

    proptest::proptest! {
        #[test]
        fn no_words_make_it_panic(words in proptest::collection::vec("[-=a-z@ ,é]{0,8}", 0..6)) {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            for program in ["client", "tunnel", "devices", "daemon", "rendezvous"] {
                let _ = translate(program, &words);
            }
        }
    }
}
