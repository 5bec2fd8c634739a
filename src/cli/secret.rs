//! Where secrets come from: a file, the environment, stdin, the terminal. Never the command line, which
//! everybody on the machine can read.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, IsTerminal},
    os::fd::AsFd,
    path::Path,
};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use super::keystore::KeyStoreError;
use super::{Failure, print_err};
use crate::{
    at::keyfile::KeyFileError,
    secret::Secret,
    sys::file::{NamedFile, Writers},
};

/// Longest secret, in bytes; the longest real ones have 128.
const MAX_SECRET: u64 = 4096;
/// The phrase of protected key files.
const PHRASE: SecretSource = SecretSource {
    what: "pass phrase",
    flag: "--passphrase-file",
    variable: "NOPORTS_PASSPHRASE",
};
/// The one that is to take its place.
const NEW_PHRASE: SecretSource = SecretSource {
    what: "new pass phrase",
    flag: "--new-passphrase-file",
    variable: "NOPORTS_NEW_PASSPHRASE",
};

/// A secret that a program asks for.
#[derive(Clone, Copy, Debug)]
pub struct SecretSource {
    /// In messages: `secret`, `code`.
    pub what: &'static str,
    /// The option that names a file with it.
    pub flag: &'static str,
    /// The environment variable that holds it.
    pub variable: &'static str,
}

impl SecretSource {
    /// Reads the secret, without white space around it: from this file, else the environment, else stdin.
    /// On a terminal it is asked for with `prompt` and not shown.
    ///
    /// # Errors
    /// A misuse that says where it was looked for.
    pub fn read(&self, file: Option<&Path>, prompt: &str) -> Result<Secret<String>, Failure> {
        let Self {
            what,
            flag,
            variable,
        } = self;
        let (text, place) = if let Some(file) = file {
            (self.read_file(file)?, file.display().to_string())
        } else if let Ok(text) = std::env::var(variable) {
            (Secret::new(text), (*variable).to_owned())
        } else {
            let text = read_stdin(prompt).map_err(|why| {
                Failure::misuse(format!("cannot read the {what} from stdin: {why}"))
            })?;
            (text, "stdin".to_owned())
        };
        let secret = Secret::new(text.reveal().trim().to_owned());
        if secret.reveal().is_empty() {
            return Err(Failure::misuse(format!("there is no {what} in {place}"))
                .hint(format!("{flag} FILE, {variable}, or stdin")));
        }
        Ok(secret)
    }

    /// Whether [`Self::read`] would read what another program writes.
    pub fn is_piped(&self, file: Option<&Path>) -> bool {
        let is_elsewhere = file.is_some() || std::env::var_os(self.variable).is_some();
        !is_elsewhere && !io::stdin().is_terminal()
    }

    fn read_file(&self, file: &Path) -> Result<Secret<String>, Failure> {
        read_bounded(file).map_err(|why| {
            let Self { what, flag, .. } = self;
            // A name that no file has may be the secret itself, unless it begins with the name of a folder.
            let folder = file.parent().filter(|folder| *folder != Path::new(""));
            let place = if file.exists() || folder.is_some_and(Path::is_dir) {
                file.display().to_string()
            } else {
                format!("the file that {flag} names")
            };
            Failure::misuse(format!("cannot read the {what} in {place}: {why}"))
        })
    }

    /// Refuses a command line that seems to hold the secret, without repeating it. `with_value`: options that
    /// take a value; `telling`: beginnings of options that would hold the secret; `most`: how many other words
    /// there may be.
    ///
    /// # Errors
    /// A misuse.
    pub fn refuse_in(
        &self,
        args: &[&str],
        with_value: &[&str],
        telling: &[&str],
        most: usize,
    ) -> Result<(), Failure> {
        let hint = format!(
            "use {} FILE, the environment variable {}, or stdin: everybody on this machine can read a command line",
            self.flag, self.variable
        );
        let mut words = 0;
        let mut args = args.iter();
        while let Some(&arg) = args.next() {
            let flag = arg.split('=').next().unwrap_or_default();
            if with_value.contains(&arg) {
                args.next();
            } else if with_value.contains(&flag) {
                // Its value stands behind the =.
            } else if telling.iter().any(|start| arg.starts_with(start)) {
                let told = format!("the {} is never taken from the command line", self.what);
                return Err(Failure::misuse(told).hint(hint));
            } else if arg.contains('=') && arg.starts_with('-') {
                // What stands behind an unknown flag may be the secret, so it is not repeated.
                let why = "unknown flag with a value";
                return Err(Failure::misuse(why).hint(hint));
            } else if !arg.starts_with('-') {
                words += 1;
            }
        }
        if words > most {
            return Err(Failure::misuse("give one atSign and nothing else").hint(hint));
        }
        Ok(())
    }
}

/// What comes with a classic command line: secrets, which it has in the open, and how to answer.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// The activation secret, or the code of an enrolment.
    pub secret: Option<Secret<String>>,
    /// The phrase of key files.
    pub phrase: Option<Secret<String>>,
    /// Scripts read stdout: results look as that command line's program wrote them.
    pub classic: bool,
}

impl Given {
    /// The secret given here, else what [`SecretSource::read`] finds.
    ///
    /// # Errors
    /// As [`SecretSource::read`].
    pub fn secret(
        &self,
        source: &SecretSource,
        file: Option<&Path>,
        prompt: &str,
    ) -> Result<Secret<String>, Failure> {
        match &self.secret {
            Some(secret) => Ok(secret.clone()),
            None => source.read(file, prompt),
        }
    }

    /// The phrase given here, unless our own flag names a `file`; else what [`Phrases::new`] finds.
    ///
    /// # Errors
    /// As [`Phrases::new`].
    pub fn phrases(&self, file: Option<&Path>) -> Result<Phrases, Failure> {
        match &self.phrase {
            Some(phrase) if file.is_none() => Ok(Phrases(Some(phrase.clone()))),
            _ => Phrases::new(file),
        }
    }
}

/// The phrase of protected key files, as far as it is known.
#[derive(Clone, Debug, Default)]
pub struct Phrases(Option<Secret<String>>);

impl Phrases {
    /// From the file that `--passphrase-file` names, else from `NOPORTS_PASSPHRASE`; a line end behind it is
    /// not part of it.
    ///
    /// # Errors
    /// A misuse when the file cannot be read or is empty.
    pub fn new(file: Option<&Path>) -> Result<Self, Failure> {
        phrase_of(file, PHRASE).map(Self)
    }

    /// The new phrase, if a file or the environment gives one.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn given(file: Option<&Path>) -> Result<Option<Secret<String>>, Failure> {
        phrase_of(file, NEW_PHRASE)
    }

    /// One that is to take the place of what protects a key file now: from the file that `--new-passphrase-file`
    /// names, else from `NOPORTS_NEW_PASSPHRASE`; else it is asked for on the terminal, twice.
    ///
    /// # Errors
    /// A misuse when there is none, or when the two are not the same.
    pub fn chosen(file: Option<&Path>, path: &Path) -> Result<Secret<String>, Failure> {
        if let Some(phrase) = phrase_of(file, NEW_PHRASE)? {
            return Ok(phrase);
        }
        let none = || {
            let SecretSource { flag, variable, .. } = NEW_PHRASE;
            Failure::misuse("there is no new pass phrase")
                .hint(format!("{flag} FILE, {variable}, or a terminal to ask on"))
        };
        let ask = |prompt: String| ask_on_terminal(&prompt).ok_or_else(none);
        let phrase = ask(format!(
            "new pass phrase for {} (it is not shown):",
            path.display()
        ))?;
        let again = ask("the same again:".to_owned())?;
        if phrase.reveal() != again.reveal() {
            return Err(Failure::misuse("the two pass phrases differ")
                .hint("nothing has been changed; try again"));
        }
        Ok(phrase)
    }

    /// What new key files are protected with. Nobody is asked for it.
    pub fn known(&self) -> Option<&Secret<String>> {
        self.0.as_ref()
    }

    /// What this key file may be opened with; asked for on the terminal when it is not known.
    ///
    /// # Errors
    /// [`exit::KEYS`](super::exit::KEYS) when there is no terminal to ask on.
    pub fn for_reading(&self, path: &Path) -> Result<Secret<String>, Failure> {
        if let Some(phrase) = &self.0 {
            return Ok(phrase.clone());
        }
        let protected = || {
            Failure::from(KeyStoreError::Content {
                path: path.to_owned(),
                source: KeyFileError::PassPhrase,
            })
        };
        ask_on_terminal(&format!(
            "pass phrase of {} (it is not shown):",
            path.display()
        ))
        .ok_or_else(protected)
    }
}

/// From a file, else the environment; a line end behind it is not part of it.
fn phrase_of(file: Option<&Path>, source: SecretSource) -> Result<Option<Secret<String>>, Failure> {
    let Some(file) = file else {
        let text = std::env::var(source.variable).ok();
        return Ok(text.filter(|text| !text.is_empty()).map(Secret::new));
    };
    let text = source.read_file(file)?;
    let phrase = Secret::new(text.reveal().trim_end_matches(['\r', '\n']).to_owned());
    if phrase.reveal().is_empty() {
        let none = format!("there is no pass phrase in {}", file.display());
        return Err(Failure::misuse(none));
    }
    Ok(Some(phrase))
}

/// What somebody types who is not shown it. `None`: there is nobody, or nothing was typed.
fn ask_on_terminal(prompt: &str) -> Option<Secret<String>> {
    // Somebody has to see the question; and stdin may be the session.
    if !io::stderr().is_terminal() {
        return None;
    }
    let terminal = File::options()
        .read(true)
        .write(true)
        .open("/dev/tty")
        .ok()?;
    let phrase = read_hidden(&terminal, BufReader::new(&terminal), prompt).ok()?;
    Some(phrase).filter(|phrase| !phrase.reveal().is_empty())
}

fn read_bounded(file: &Path) -> io::Result<Secret<String>> {
    let file = NamedFile::open_safe(file, Writers::Group)?;
    file.text(MAX_SECRET).map(Secret::new)
}

/// One line from stdin; on a terminal it is asked for and not shown.
fn read_stdin(prompt: &str) -> io::Result<Secret<String>> {
    let stdin = io::stdin();
    if stdin.is_terminal() {
        read_hidden(&stdin, stdin.lock(), prompt)
    } else {
        read_line(stdin.lock())
    }
}

fn read_line(from: impl BufRead) -> io::Result<Secret<String>> {
    let mut line = String::new();
    let read = from.take(MAX_SECRET).read_line(&mut line);
    let line = Secret::new(line);
    read?;
    // Some shells put a mark in front of what they pipe.
    let typed = line.reveal().trim_start_matches('\u{feff}');
    Ok(Secret::new(typed.trim_end_matches(['\r', '\n']).to_owned()))
}

/// One line from a terminal that does not show what is typed.
fn read_hidden(
    terminal: &impl AsFd,
    from: impl BufRead,
    prompt: &str,
) -> io::Result<Secret<String>> {
    // Before the prompt: whoever answers quickly shall not be seen, nor lost with what was typed before it.
    let _hidden = Hidden::new(terminal);
    print_err(prompt);
    read_line(from)
}

/// Switches a terminal's echo off, and on again when dropped.
struct Hidden<'a, T: AsFd>(&'a T, Option<Termios>);

impl<'a, T: AsFd> Hidden<'a, T> {
    fn new(terminal: &'a T) -> Self {
        let Ok(before) = tcgetattr(terminal) else {
            return Self(terminal, None);
        };
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        let switched = tcsetattr(terminal, OptionalActions::Flush, &quiet);
        Self(terminal, switched.is_ok().then_some(before))
    }
}

impl<T: AsFd> Drop for Hidden<'_, T> {
    fn drop(&mut self) {
        if let Some(before) = &self.1 {
            let _ = tcsetattr(self.0, OptionalActions::Flush, before);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;

    use crate::cli::secret::*;
    use crate::testing::Folder;

    const CODE: SecretSource = SecretSource {
        what: "code",
        flag: "--code-file",
        variable: "NOPORTS_NO_SUCH_CODE",
    };

    #[test]
    fn a_secret_file_is_trimmed_and_bounded() {
        let folder = Folder::new();
        let file = folder.path("secret");
        let long = "x".repeat(MAX_SECRET as usize + 1);
        for (text, want) in [
            ("abc\n", Ok("abc")),
            ("  abc \r\n\n", Ok("abc")),
            ("\n", Err("no code")),
            (&long, Err("it is longer than 4096 bytes")),
        ] {
            fs::write(&file, text).unwrap();
            match (CODE.read(Some(&file), ""), want) {
                (Ok(secret), Ok(want)) => assert_eq!(secret.reveal(), want),
                (Err(failure), Err(want)) => {
                    assert!(failure.message.contains(want), "{failure}");
                }
                (got, want) => panic!("{got:?} instead of {want:?}"),
            }
        }
        fs::remove_file(&file).unwrap();
        let missing = CODE.read(Some(&file), "").unwrap_err();
        let name = file.display().to_string();
        assert!(missing.message.contains(&name), "{missing}");
    }

    #[test]
    fn a_phrase_keeps_its_blanks_but_not_the_line_end() {
        let folder = Folder::new();
        let file = folder.path("phrase");
        fs::write(&file, " a b \r\n").unwrap();
        let phrases = Phrases::new(Some(&file)).unwrap();
        assert_eq!(phrases.known().unwrap().reveal(), " a b ");
        assert_eq!(phrases.for_reading(&file).unwrap().reveal(), " a b ");
        fs::write(&file, "\n").unwrap();
        let empty = Phrases::new(Some(&file)).unwrap_err();
        assert_eq!(empty.code, super::super::exit::MISUSE);
    }
}
