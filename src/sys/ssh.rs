//! The machine's own ssh: where it is, and the words it is started with. No shell is involved.

use std::{
    env,
    ffi::{OsStr, OsString},
    fmt,
    fmt::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    str::FromStr,
};

/// The first `ssh` on the search path, else the usual place.
pub fn find() -> Option<PathBuf> {
    find_in(&env::var_os("PATH").unwrap_or_default())
}

fn find_in(path: &OsStr) -> Option<PathBuf> {
    let usual = Path::new("/usr/bin").to_owned();
    env::split_paths(path)
        // An empty entry means the current folder, where anybody may have put anything.
        .filter(|folder| folder.is_absolute())
        .chain([usual])
        .map(|folder| folder.join("ssh"))
        .find(|file| {
            file.metadata()
                .is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o111 != 0)
        })
}

/// A remote user's name, fit to stand before `@localhost`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserName(String);

/// Not a user name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a user name: letters, digits and . _ - \\ + only, not beginning with -, at most 64"
)]
pub struct BadUserName(String);

impl UserName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for UserName {
    type Err = BadUserName;

    fn from_str(typed: &str) -> Result<Self, BadUserName> {
        let inner = typed.strip_suffix('$').unwrap_or(typed);
        let fits = |c: char| c.is_ascii_alphanumeric() || "._-\\+".contains(c);
        if inner.is_empty()
            || typed.len() > MAX_USER_NAME
            || inner.starts_with('-')
            || !inner.chars().all(fits)
        {
            return Err(BadUserName(typed.chars().take(MAX_USER_NAME).collect()));
        }
        Ok(Self(typed.to_owned()))
    }
}

/// The name under which ssh remembers a device's host key: the same whatever port or relay is used.
///
/// `dev1` of `@device` is `dev1.device.noports`. Characters beyond `a-z 0-9 _ -` are written as
/// `+hex+`, so that two devices never share a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostKeyAlias(String);

impl HostKeyAlias {
    /// For a device and the atSign it belongs to.
    pub fn new(device: &str, at_sign: &str) -> Self {
        let mut alias = String::new();
        for part in [device, at_sign.trim_start_matches('@')] {
            for c in part.chars().flat_map(char::to_lowercase) {
                match c {
                    'a'..='z' | '0'..='9' | '_' | '-' => alias.push(c),
                    other => {
                        let _ = write!(alias, "+{:x}+", u32::from(other));
                    }
                }
            }
            alias.push('.');
        }
        Self(alias + "noports")
    }
}

impl fmt::Display for HostKeyAlias {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A login through a bridge that listens on this machine.
#[derive(Clone, Debug)]
pub struct Login<'a> {
    /// Where the bridge listens on the loopback address.
    pub port: u16,
    /// The device's name among the known hosts.
    pub alias: &'a HostKeyAlias,
    /// `None` leaves the choice to ssh and its settings.
    pub user: Option<&'a UserName>,
    /// A key file to use, and no other.
    pub identity: Option<&'a Path>,
    /// Further options, word by word.
    pub options: &'a [String],
    /// What to run instead of a login shell.
    pub command: &'a [String],
}

impl Login<'_> {
    /// The words behind `ssh`.
    pub fn arguments(&self) -> Vec<OsString> {
        let mut words: Vec<OsString> = Vec::new();
        let mut push = |word: &dyn AsRef<OsStr>| words.push(word.as_ref().to_owned());
        push(&"-p");
        push(&self.port.to_string());
        push(&"-o");
        push(&format!("HostKeyAlias={}", self.alias));
        if let Some(identity) = self.identity {
            push(&"-o");
            push(&"IdentitiesOnly=yes");
            push(&"-i");
            push(&identity);
        }
        self.options.iter().for_each(|word| push(word));
        match self.user {
            Some(user) => push(&format!("{}@localhost", user.as_str())),
            None => push(&"localhost"),
        }
        self.command.iter().for_each(|word| push(word));
        words
    }
}

/// Words as one line that a shell reads back as the same words.
pub fn shell_line<W: AsRef<OsStr>>(words: &[W]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "@%+=:,./_-".contains(c);
    let quote = |word: &W| {
        let word = word.as_ref().to_string_lossy().into_owned();
        if !word.is_empty() && word.chars().all(plain) {
            return word;
        }
        format!("'{}'", word.replace('\'', "'\\''"))
    };
    words.iter().map(quote).collect::<Vec<_>>().join(" ")
}

/// Longer than any system's limit.
const MAX_USER_NAME: usize = 64;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::testing::Folder;

    #[test]
    fn user_names_that_ssh_cannot_take_for_something_else() {
        for (typed, fine) in [
            ("gary", true),
            ("first.last_2-x", true),
            ("DOMAIN\\user", true),
            ("machine$", true),
            (&*"u".repeat(64), true),
            (&*"u".repeat(65), false),
            ("", false),
            ("$", false),
            ("-oProxyCommand=x", false),
            ("a b", false),
            ("a@b", false),
            ("a\nb", false),
            ("a;b", false),
            ("$(x)", false),
        ] {
            assert_eq!(typed.parse::<UserName>().is_ok(), fine, "{typed}");
        }
    }

    #[test]
    fn aliases_are_stable_safe_and_never_shared() {
        for (device, at_sign, want) in [
            ("dev1", "@device", "dev1.device.noports"),
            ("My_Dev-1", "@Alice", "my_dev-1.alice.noports"),
            ("dev1", "@\u{1f6f8}x", "dev1.+1f6f8+x.noports"),
            ("a+b", "c", "a+2b+b.c.noports"),
            ("a*,!", "c", "a+2a++2c++21+.c.noports"),
            ("a.b", "c", "a+2e+b.c.noports"),
        ] {
            assert_eq!(HostKeyAlias::new(device, at_sign).to_string(), want);
        }
    }

    #[test]
    fn the_words_of_a_login() {
        let alias = HostKeyAlias::new("dev1", "@device");
        let user: UserName = "gary".parse().unwrap();
        let (options, command) = (["-v".to_owned()], ["uname".to_owned(), "-a b".to_owned()]);
        let full = Login {
            port: 2222,
            alias: &alias,
            user: Some(&user),
            identity: Some(Path::new("/k/id")),
            options: &options,
            command: &command,
        };
        assert_eq!(
            shell_line(&full.arguments()),
            "-p 2222 -o HostKeyAlias=dev1.device.noports -o IdentitiesOnly=yes -i /k/id -v gary@localhost uname '-a b'"
        );
        let bare = Login {
            user: None,
            identity: None,
            options: &[],
            command: &[],
            ..full
        };
        assert_eq!(
            shell_line(&bare.arguments()),
            "-p 2222 -o HostKeyAlias=dev1.device.noports localhost"
        );
    }

    #[test]
    fn a_printed_line_is_read_back_by_a_shell() {
        let words = [
            "printf",
            "%s|",
            "",
            "it's",
            "a  b",
            "$HOME",
            "*",
            "back\\slash",
        ];
        let output = std::process::Command::new("/bin/sh")
            .args(["-c", &shell_line(&words)])
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(text, "|it's|a  b|$HOME|*|back\\slash|");
    }

    #[test]
    fn ssh_is_looked_for_in_absolute_folders_only() {
        let folder = Folder::new();
        let file = folder.path("ssh");
        std::fs::write(&file, "").unwrap();
        let path = |text: &Path| env::join_paths([Path::new(""), Path::new("."), text]).unwrap();
        assert_ne!(
            find_in(&path(&folder.0)),
            Some(file.clone()),
            "not executable"
        );
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o755)).unwrap();
        assert_eq!(find_in(&path(&folder.0)), Some(file));
    }
}
