//! What all programs share: their common flags, the environment behind them, exit codes, progress.
//!
//! argh cannot nest one set of flags in another, so each program declares the common ones itself
//!
//! ```text
//!   --root HOST[:PORT]   --ca FILE …   --as @me   --keys FILE   --json   -q   -v
//! ```
//!
//! and hands them to the functions here, which add the environment (`NOPORTS_ROOT`, `NOPORTS_CA`,
//! `NOPORTS_AS`, `NOPORTS_KEYS`; a flag wins) and the defaults.

use std::{
    fmt::{self, Display},
    fs,
    future::Future,
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use argh::FromArgs;
use async_global_executor::GlobalExecutorConfig;

use crate::{
    at::{
        AtSign,
        atsign::BadAtSign,
        auth::AuthError,
        client::{AtError, Network},
        crypto::CryptoError,
        directory::{DEFAULT_ROOT, Root},
        fault::{Code, Fault},
        keyfile::{AtKeys, KeyFileError},
    },
    net::tls::{Connector, TlsError},
};

/// Exit codes; scripts rely on them. Once ssh has run, its own code is passed on.
pub mod exit {
    /// Done.
    pub const FINE: u8 = 0;
    /// Failed in a way that has no code of its own.
    pub const FAILED: u8 = 1;
    /// The command line was wrong.
    pub const MISUSE: u8 = 2;
    /// The key file is missing or cannot be used.
    pub const KEYS: u8 = 3;
    /// The atDirectory or an atServer cannot be reached.
    pub const UNREACHABLE: u8 = 4;
    /// No such atSign.
    pub const UNKNOWN: u8 = 5;
    /// The atServer refused the login.
    pub const LOGIN: u8 = 6;
    /// The device did not answer.
    pub const DEVICE_SILENT: u8 = 7;
    /// The device, or the policy it asked, refused.
    pub const DEVICE_REFUSED: u8 = 8;
    /// The rendezvous did not answer or cannot be reached.
    pub const RENDEZVOUS: u8 = 9;
    /// An answer cannot be trusted: wrong signature, wrong session.
    pub const NOT_TRUSTWORTHY: u8 = 10;
    /// A TLS certificate is not trusted here.
    pub const TLS: u8 = 11;
    /// The service on the device (sshd, say) cannot be reached.
    pub const SERVICE: u8 = 12;

    /// Code and meaning, for help texts.
    pub const TABLE: &[(u8, &str)] = &[
        (FINE, "done"),
        (FAILED, "failed"),
        (MISUSE, "the command line was wrong"),
        (KEYS, "the key file is missing or cannot be used"),
        (
            UNREACHABLE,
            "the atDirectory or an atServer cannot be reached",
        ),
        (UNKNOWN, "no such atSign"),
        (LOGIN, "the atServer refused the login"),
        (DEVICE_SILENT, "the device did not answer"),
        (DEVICE_REFUSED, "the device refused"),
        (
            RENDEZVOUS,
            "the rendezvous did not answer or cannot be reached",
        ),
        (NOT_TRUSTWORTHY, "an answer cannot be trusted"),
        (TLS, "a TLS certificate is not trusted here"),
        (SERVICE, "the service on the device cannot be reached"),
    ];
}

/// Why a program ends: one line what, one line what to try next, and the exit code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Lower case, no full stop, in the user's words.
    pub message: String,
    /// What to try next.
    pub hint: Option<String>,
    /// One of [`exit`].
    pub code: u8,
}

impl Failure {
    /// A failure with this exit code.
    pub fn new(code: u8, message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            hint: None,
            code,
        }
    }

    /// One without a code of its own.
    pub fn plain(message: impl Into<String>) -> Self {
        Self::new(exit::FAILED, message)
    }

    /// The command line was wrong.
    pub fn misuse(message: impl Into<String>) -> Self {
        Self::new(exit::MISUSE, message)
    }

    /// With a word on what to try next.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl From<AtError> for Failure {
    fn from(error: AtError) -> Self {
        let code = match &error {
            AtError::Directory { .. } | AtError::Unreachable { .. } | AtError::Silent(_) => {
                exit::UNREACHABLE
            }
            AtError::Unknown { .. } => exit::UNKNOWN,
            AtError::Login { .. } | AtError::Auth(_) => exit::LOGIN,
            AtError::Refused(fault) => code_of_fault(fault),
            _ => exit::FAILED,
        };
        Self {
            message: error.to_string(),
            hint: error.hint(),
            code,
        }
    }
}

fn code_of_fault(fault: &Fault) -> u8 {
    match fault.code {
        Some(Code::NoAtServer) => exit::UNKNOWN,
        Some(Code::Unauthenticated | Code::EnrollmentDenied | Code::EnrollmentPending) => {
            exit::LOGIN
        }
        Some(Code::EnrollmentRevoked | Code::EnrollmentExpired) => exit::LOGIN,
        Some(Code::UnableToConnect | Code::Timeout | Code::Socket) => exit::UNREACHABLE,
        _ => exit::FAILED,
    }
}

impl From<AuthError> for Failure {
    fn from(error: AuthError) -> Self {
        Self::new(exit::LOGIN, error.to_string())
    }
}

impl From<CryptoError> for Failure {
    fn from(error: CryptoError) -> Self {
        let code = match error {
            CryptoError::Signature => exit::NOT_TRUSTWORTHY,
            CryptoError::BadKey => exit::KEYS,
            _ => exit::FAILED,
        };
        Self::new(code, error.to_string())
    }
}

impl From<KeyFileError> for Failure {
    fn from(error: KeyFileError) -> Self {
        Self::new(exit::KEYS, error.to_string())
    }
}

impl From<TlsError> for Failure {
    fn from(error: TlsError) -> Self {
        let code = match &error {
            TlsError::UnknownAuthority { .. }
            | TlsError::WrongName { .. }
            | TlsError::Expired { .. } => exit::TLS,
            TlsError::Authority(..) => exit::MISUSE,
            _ => exit::UNREACHABLE,
        };
        Self {
            message: error.to_string(),
            hint: error.hint().map(str::to_owned),
            code,
        }
    }
}

impl From<BadAtSign> for Failure {
    fn from(error: BadAtSign) -> Self {
        Self::misuse(error.to_string())
    }
}

/// Reads a program's arguments (without its name). `name` is what help calls it: `noports activate`.
///
/// # Errors
/// `Err` holds the exit code when there is nothing left to do: help was printed, or the misuse named.
pub fn parse<T: FromArgs>(name: &str, args: &[&str]) -> Result<T, ExitCode> {
    let words: Vec<&str> = name.split_whitespace().collect();
    T::from_args(&words, args).map_err(|early| {
        if early.status.is_ok() {
            print_out(early.output.trim_end());
            ExitCode::from(exit::FINE)
        } else {
            print_err(&format!("{name}: {}", early.output.trim_end()));
            print_err(&format!("  hint: {name} --help tells what is possible"));
            ExitCode::from(exit::MISUSE)
        }
    })
}

/// Ends a program: prints the failure, if there is one, and gives the exit code.
/// With `json` the failure is also one JSON line on stdout.
pub fn finish(name: &str, json: bool, result: Result<(), Failure>) -> ExitCode {
    let Err(failure) = result else {
        return ExitCode::from(exit::FINE);
    };
    print_err(&format!("{name}: {failure}"));
    if let Some(hint) = &failure.hint {
        print_err(&format!("  hint: {hint}"));
    }
    if json {
        print_out(&failure_line(&failure));
    }
    ExitCode::from(failure.code)
}

#[derive(miniserde::Serialize)]
struct FailureLine<'a> {
    event: &'static str,
    error: &'a str,
    hint: Option<&'a str>,
    code: u8,
}

fn failure_line(failure: &Failure) -> String {
    miniserde::json::to_string(&FailureLine {
        event: "failed",
        error: &failure.message,
        hint: failure.hint.as_deref(),
        code: failure.code,
    })
}

/// One line of results on stdout. A reader that went away is no error.
pub fn print_out(line: &str) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// One line on stderr.
pub fn print_err(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Runs a program's story on this many executor threads. Call it before anything else touches the
/// runtime: its size is fixed by the first use.
pub fn run<F: Future>(threads: usize, story: F) -> F::Output {
    let threads = threads.max(1);
    async_global_executor::init_with_config(
        GlobalExecutorConfig::default()
            .with_min_threads(threads)
            .with_max_threads(threads),
    );
    async_std::task::block_on(story)
}

/// The atDirectory and the authorities to trust: flags, else `NOPORTS_ROOT` and `NOPORTS_CA` (files
/// separated by `:`), else the public directory and the bundled authorities.
///
/// # Errors
/// [`exit::MISUSE`] when the address or a file cannot be read.
pub fn network(root: Option<&str>, ca: &[String]) -> Result<Network, Failure> {
    network_in(&environment, root, ca)
}

/// The atSign to act as: the flag, else `NOPORTS_AS`.
///
/// # Errors
/// [`exit::MISUSE`] when the text is no atSign.
pub fn acting_as(flag: Option<&str>) -> Result<Option<AtSign>, Failure> {
    acting_as_in(&environment, flag)
}

/// The keys to act with. `keys` is a file, or a folder of files; else `NOPORTS_KEYS`, else
/// `~/.atsign/keys`. In a folder: the file of `as_`, or the only one there is.
///
/// # Errors
/// [`exit::KEYS`] with what was looked for and where.
pub fn identity(as_: Option<&AtSign>, keys: Option<&Path>) -> Result<AtKeys, Failure> {
    identity_in(&environment, as_, keys)
}

/// Where an atSign's key file is, or will be: `keys` (a file, or an existing folder), else
/// `NOPORTS_KEYS`, else `~/.atsign/keys/@alice_key.atKeys`.
///
/// # Errors
/// [`exit::KEYS`] when there is no home folder to look in.
pub fn key_file(who: &AtSign, keys: Option<&Path>) -> Result<PathBuf, Failure> {
    key_file_in(&environment, who, keys)
}

/// The process' environment; tests bring their own.
type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn network_in(env: Environment, root: Option<&str>, ca: &[String]) -> Result<Network, Failure> {
    let text = root
        .map(str::to_owned)
        .or_else(|| env("NOPORTS_ROOT"))
        .unwrap_or_else(|| DEFAULT_ROOT.to_owned());
    let root: Root = text.parse().map_err(|why: String| {
        Failure::misuse(format!("{text:?} is no atDirectory: {why}"))
            .hint("--root HOST[:PORT], such as --root localhost:6400")
    })?;
    let files = authorities(env, ca);
    Ok(Network {
        root,
        tls: Connector::new(&files)?,
    })
}

fn authorities(env: Environment, ca: &[String]) -> Vec<PathBuf> {
    if !ca.is_empty() {
        return ca.iter().map(PathBuf::from).collect();
    }
    env("NOPORTS_CA")
        .map(|list| {
            std::env::split_paths(&list)
                .filter(|p| !p.as_os_str().is_empty())
                .collect()
        })
        .unwrap_or_default()
}

fn acting_as_in(env: Environment, flag: Option<&str>) -> Result<Option<AtSign>, Failure> {
    let text = flag.map(str::to_owned).or_else(|| env("NOPORTS_AS"));
    Ok(text.map(|text| text.parse()).transpose()?)
}

fn keys_path(env: Environment, keys: Option<&Path>) -> Result<PathBuf, Failure> {
    if let Some(path) = keys {
        return Ok(path.to_owned());
    }
    if let Some(path) = env("NOPORTS_KEYS") {
        return Ok(path.into());
    }
    let home = env("HOME").ok_or_else(|| {
        Failure::new(exit::KEYS, "no home folder to look for a key file in")
            .hint("name it: --keys FILE")
    })?;
    Ok(Path::new(&home).join(".atsign/keys"))
}

fn key_file_in(env: Environment, who: &AtSign, keys: Option<&Path>) -> Result<PathBuf, Failure> {
    let path = keys_path(env, keys)?;
    let by_default = keys.is_none() && env("NOPORTS_KEYS").is_none();
    Ok(if by_default || path.is_dir() {
        path.join(AtKeys::file_name(who))
    } else {
        path
    })
}

fn identity_in(
    env: Environment,
    as_: Option<&AtSign>,
    keys: Option<&Path>,
) -> Result<AtKeys, Failure> {
    let from_env = acting_as_in(env, None)?;
    let as_ = as_.or(from_env.as_ref());
    let path = keys_path(env, keys)?;
    let by_default = keys.is_none() && env("NOPORTS_KEYS").is_none();
    let (who, file) = if by_default || path.is_dir() {
        choose(&path, as_)?
    } else {
        (owner_of(&path, as_)?, path)
    };
    read_keys(&who, &file)
}

/// Whose keys a file holds: as told, else as its name says.
fn owner_of(file: &Path, as_: Option<&AtSign>) -> Result<AtSign, Failure> {
    as_.cloned()
        .or_else(|| named_in(file.file_name()?.to_str()?))
        .ok_or_else(|| {
            Failure::misuse(format!(
                "{} does not say whose keys it holds",
                file.display()
            ))
            .hint("add --as @you")
        })
}

/// `@alice_key.atKeys` → `@alice`.
fn named_in(file_name: &str) -> Option<AtSign> {
    let name = file_name.strip_suffix("_key.atKeys")?;
    name.starts_with('@').then(|| name.parse().ok()).flatten()
}

fn choose(folder: &Path, as_: Option<&AtSign>) -> Result<(AtSign, PathBuf), Failure> {
    if let Some(who) = as_ {
        return Ok((who.clone(), folder.join(AtKeys::file_name(who))));
    }
    let mut found = key_files(folder);
    found.sort();
    match found.as_slice() {
        [one] => Ok(one.clone()),
        [] => Err(Failure::new(
            exit::KEYS,
            format!("there is no key file in {}", folder.display()),
        )
        .hint("noports activate @you, or noports enroll @you; or name a file: --keys FILE")),
        several => {
            let names: Vec<_> = several.iter().map(|(who, _)| who.as_str()).collect();
            Err(Failure::new(
                exit::KEYS,
                format!(
                    "there are several key files in {}: {}",
                    folder.display(),
                    names.join(", ")
                ),
            )
            .hint(format!("say which: --as {}", names[0])))
        }
    }
}

fn key_files(folder: &Path) -> Vec<(AtSign, PathBuf)> {
    fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((named_in(entry.file_name().to_str()?)?, entry.path())))
        .collect()
}

/// Largest key file read, in bytes; real ones have about 5 000.
const MAX_KEY_FILE: u64 = 1 << 20;

/// Reads one key file.
///
/// # Errors
/// [`exit::KEYS`] with the file's name.
pub fn read_keys(who: &AtSign, file: &Path) -> Result<AtKeys, Failure> {
    let cannot = |why: &dyn Display| {
        Failure::new(
            exit::KEYS,
            format!("cannot read the key file {}: {why}", file.display()),
        )
    };
    let size = fs::metadata(file).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Failure::new(
            exit::KEYS,
            format!("there is no key file {}", file.display()),
        )
        .hint(format!(
            "noports activate {who}, or noports enroll {who}; or name another: --keys FILE"
        )),
        _ => cannot(&error),
    })?;
    if size.len() > MAX_KEY_FILE {
        return Err(cannot(&"it is too large to be one"));
    }
    let text = fs::read_to_string(file).map_err(|error| cannot(&error))?;
    let text = crate::secret::Secret::new(text);
    AtKeys::parse(who, text.reveal())
        .map_err(|error| Failure::new(exit::KEYS, format!("{}: {error}", file.display())))
}

/// Tells on stderr how far a program is.
///
/// ```text
///   on a terminal            elsewhere                 with -q
///   ✓ logged in as @alice    0.12 s          logged in as @alice       nothing
/// ```
#[derive(Debug)]
pub struct Progress {
    look: Look,
    since: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    Silent,
    Plain,
    Terminal,
}

/// Column of the times, and width that a started line is padded to.
const WIDTH: usize = 36;

impl Progress {
    /// Starts the clock of the first step.
    pub fn new(quiet: bool) -> Self {
        let look = match (quiet, io::stderr().is_terminal()) {
            (true, _) => Look::Silent,
            (false, true) => Look::Terminal,
            (false, false) => Look::Plain,
        };
        Self {
            look,
            since: Instant::now(),
        }
    }

    /// A step that takes a while begins: `making keys…`. [`Progress::done`] takes its line's place.
    pub fn begin(&mut self, what: impl Display) {
        self.since = Instant::now();
        let text = match self.look {
            Look::Silent => return,
            Look::Plain => format!("{what}…\n"),
            Look::Terminal => format!("  … {what}"),
        };
        let mut err = io::stderr().lock();
        let _ = err.write_all(text.as_bytes()).and_then(|()| err.flush());
    }

    /// A step is finished; the next one's clock starts.
    pub fn done(&mut self, what: impl Display) {
        let line = line(
            self.look,
            &what.to_string(),
            self.since.elapsed().as_secs_f64(),
        );
        self.since = Instant::now();
        if let Some(line) = line {
            print_err(&line);
        }
    }

    /// A remark that is no step.
    pub fn note(&self, what: impl Display) {
        match self.look {
            Look::Silent => {}
            Look::Plain => print_err(&what.to_string()),
            Look::Terminal => print_err(&format!("\r\x1b[K    {what}")),
        }
    }
}

/// The line of a finished step.
fn line(look: Look, what: &str, seconds: f64) -> Option<String> {
    match look {
        Look::Silent => None,
        Look::Plain => Some(what.to_owned()),
        Look::Terminal => Some(format!("\r\x1b[K  ✓ {what:<WIDTH$} {seconds:>6.2} s")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    struct Folder(PathBuf);
    impl Folder {
        /// A folder with these (empty) files.
        fn with(files: &[&str]) -> Self {
            let path = std::env::temp_dir().join(format!("np-common-{}", uuid::Uuid::new_v4()));
            fs::create_dir(&path).unwrap();
            for file in files {
                fs::write(path.join(file), "").unwrap();
            }
            Self(path)
        }
    }
    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn at(text: &str) -> AtSign {
        text.parse().unwrap()
    }

    #[test]
    fn every_exit_code_is_in_the_table_once() {
        let codes: Vec<u8> = exit::TABLE.iter().map(|row| row.0).collect();
        assert_eq!(codes, (0..=12).collect::<Vec<u8>>());
    }

    #[test]
    fn the_only_key_file_is_the_default_identity() {
        let rows: &[(&[&str], Option<&str>, Result<&str, &str>)] = &[
            (&["@a_key.atKeys"], None, Ok("@a")),
            (
                &["@a_key.atKeys", "notes.txt", "@b_key.atKeys.new"],
                None,
                Ok("@a"),
            ),
            (&["@a_key.atKeys", "@b_key.atKeys"], Some("@b"), Ok("@b")),
            (&[], Some("@c"), Ok("@c")),
            (&[], None, Err("no key file")),
            (
                &["@a_key.atKeys", "@b_key.atKeys"],
                None,
                Err("several key files"),
            ),
        ];
        for (files, as_, want) in rows {
            let folder = Folder::with(files);
            let got = choose(&folder.0, as_.map(at).as_ref());
            match (got, want) {
                (Ok((who, file)), Ok(want)) => {
                    assert_eq!(who, at(want), "{files:?}");
                    assert_eq!(file, folder.0.join(AtKeys::file_name(&who)), "{files:?}");
                }
                (Err(failure), Err(want)) => {
                    assert!(failure.message.contains(want), "{files:?}: {failure}");
                    assert_eq!(failure.code, exit::KEYS, "{files:?}");
                    assert!(failure.hint.is_some(), "{files:?}");
                }
                (got, want) => panic!("{files:?}: {got:?} instead of {want:?}"),
            }
        }
    }

    #[test]
    fn a_flag_wins_over_the_environment() {
        let env = |name: &str| match name {
            "NOPORTS_ROOT" => Some("from.env:6400".to_owned()),
            "NOPORTS_AS" => Some("@env".to_owned()),
            "NOPORTS_CA" => Some("/a/ca.pem:/b/ca.pem".to_owned()),
            _ => None,
        };
        let none = |_: &str| None;
        for (root, want) in [(None, "from.env:6400"), (Some("flag:1"), "flag:1")] {
            let network = network_in(
                &|name| env(name).filter(|_| name != "NOPORTS_CA"),
                root,
                &[],
            );
            assert_eq!(network.unwrap().root.to_string(), want);
        }
        assert_eq!(
            network_in(&none, None, &[]).unwrap().root.to_string(),
            DEFAULT_ROOT
        );
        assert_eq!(acting_as_in(&env, None).unwrap(), Some(at("@env")));
        assert_eq!(acting_as_in(&env, Some("Flag")).unwrap(), Some(at("@flag")));
        assert_eq!(acting_as_in(&none, None).unwrap(), None);
        assert_eq!(authorities(&env, &[]).len(), 2);
        assert_eq!(authorities(&env, &["x".into()]), [PathBuf::from("x")]);
    }

    #[test]
    fn bad_input_is_misuse_with_a_word_of_advice() {
        let none = |_: &str| None;
        let bad_root = network_in(&none, Some("a:b:c"), &[]).unwrap_err();
        let no_ca = network_in(&none, None, &["/no/such/file".into()]).unwrap_err();
        let bad_name = acting_as_in(&none, Some("a b")).unwrap_err();
        for failure in [bad_root, no_ca, bad_name] {
            assert_eq!(failure.code, exit::MISUSE, "{failure}");
        }
    }

    #[test]
    fn key_files_are_found_or_missed_by_name() {
        let folder = Folder::with(&["odd.json", "@a_key.atKeys"]);
        let home = folder.0.display().to_string();
        let env = |name: &str| (name == "HOME").then(|| home.clone());
        let alice = at("@alice");
        let standard = folder.0.join(".atsign/keys/@alice_key.atKeys");
        assert_eq!(key_file_in(&env, &alice, None).unwrap(), standard);
        let file = folder.0.join("some.file");
        assert_eq!(key_file_in(&env, &alice, Some(&file)).unwrap(), file);
        let inside = folder.0.join("@alice_key.atKeys");
        assert_eq!(key_file_in(&env, &alice, Some(&folder.0)).unwrap(), inside);

        let missing = identity_in(&env, Some(&alice), None).unwrap_err();
        assert!(
            missing.message.contains(".atsign/keys/@alice_key"),
            "{missing}"
        );
        let empty = identity_in(&env, None, Some(&folder.0)).unwrap_err();
        assert!(empty.message.contains("@a_key.atKeys"), "{empty}");
        assert_eq!((missing.code, empty.code), (exit::KEYS, exit::KEYS));
        let whose = identity_in(&env, None, Some(&folder.0.join("odd.json"))).unwrap_err();
        assert!(whose.message.contains("whose keys"), "{whose}");
    }

    #[test]
    fn progress_fits_where_it_goes() {
        let what = "logged in as @alice";
        assert_eq!(line(Look::Silent, what, 0.1), None);
        assert_eq!(line(Look::Plain, what, 0.1).unwrap(), what);
        let shown = line(Look::Terminal, what, 0.124).unwrap();
        assert!(shown.ends_with("  0.12 s"), "{shown}");
        assert!(shown.contains("✓ logged in as @alice  "), "{shown}");
    }

    #[test]
    fn a_failure_is_one_line_of_json() {
        let failure = Failure::new(exit::KEYS, "no \"keys\"").hint("make some");
        assert_eq!(
            failure_line(&failure),
            r#"{"event":"failed","error":"no \"keys\"","hint":"make some","code":3}"#
        );
    }
}
