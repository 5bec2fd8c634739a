//! The machine's own ssh: where it is, and the words it is started with. No shell is involved.
//!
//! The destination is the device's own name, `pi.my_device.noports`, and where that is stands beside it as options. So
//! what a person's configuration says about `localhost` has no say in it, what it says about the device has, and nothing
//! in it leads anywhere else:
//!
//! | option of ssh_config(5) | ours | or else |
//! | --- | --- | --- |
//! | HostName, Port (`-p`) | the bridge | another machine |
//! | HostKeyAlias | the device's name | the host key is looked for under an address that all devices share |
//! | ControlPath | none | `%r@%h` is the same socket for all devices: the command runs on the first one |
//! | ProxyCommand | none | another machine; with it ProxyJump, of which ssh takes whichever comes first, is off, too |
//! | AddressFamily | any | it may rule the bridge's address out |
//! | BindAddress | loopback | the bridge is not to be reached from another address; with it BindInterface is off, too |
//! | CanonicalizeHostname | no | the name is looked up, and the configuration is read once more for what was found |
//!
//! | CheckHostIP | no | the bridge's address is kept beside the alias |
//!
//! A ControlPath that was typed counts, with the device's name in the place of `%h`, `%n`, `%k` and `%C`.
//!
//! All of these are older than any ssh that we may meet. `IgnoreUnknown` is not used: it would take the place of the
//! person's. Harmless without us: NoHostAuthenticationForLocalhost (HostKeyAlias rules it out), ControlMaster and
//! ControlPersist (nothing without a ControlPath), VerifyHostKeyDNS (never for an address), UpdateHostKeys (under the
//! alias). All else is the person's business: keys, checks, forwardings, RemoteCommand.
//!
//! The bridge's address is written `::ffff:127.0.0.1`. Where a configuration has a `Match final`, as Fedora's has, ssh reads
//! all of it once more, now under the address, and a block `Host localhost 127.0.0.1` with checks off would count; no
//! other spelling of 127.0.0.1 survives until then. Without IPv6 sockets it is 127.0.0.1 all the same.

mod alias;
mod typed;

use std::{
    env,
    ffi::{OsStr, OsString},
    net::{IpAddr, UdpSocket},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    str::FromStr,
};

pub use alias::HostKeyAlias;
pub use typed::{leads_elsewhere, shares_with_others, typed_user};

use alias::{MAPPED, ONLY_V6, PLAIN};
use typed::{own_sockets, typed};

use super::sockets::loopback as loopback_address;
use crate::text::user::{MAX_USER_NAME, is_user_name};

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

/// Whether this is Dropbear's ssh. It reads no configuration file, and knows neither `HostName` nor a name of one's own.
pub fn is_dropbear(program: &Path) -> bool {
    let file = program.canonicalize();
    let last = file.as_deref().ok().and_then(Path::file_name);
    let name = last.and_then(OsStr::to_str).unwrap_or_default();
    name.starts_with("dropbear") || name.starts_with("dbclient")
}

/// A remote user's name, fit for a command line and a terminal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserName(String);

/// Not a user name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a user name: at most {MAX_USER_NAME} bytes, without control characters and signs for a shell, and not \
     beginning with -"
)]
pub struct BadUserName(String);

impl UserName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The words that say to ssh whom to log in as, and where. Behind `-l` no name can be taken for anything else;
    /// scripts take the line of the classic programs apart, so a plain name stands in it as it always did.
    pub fn at(&self, host: &str, classic: bool) -> Vec<String> {
        if classic && !self.0.contains(['@', ' ']) {
            vec![format!("{}@{host}", self.0)]
        } else {
            vec!["-l".to_owned(), self.0.clone(), host.to_owned()]
        }
    }
}

impl FromStr for UserName {
    type Err = BadUserName;

    fn from_str(typed: &str) -> Result<Self, BadUserName> {
        if is_user_name(typed) {
            Ok(Self(typed.to_owned()))
        } else {
            Err(BadUserName(typed.chars().take(MAX_USER_NAME).collect()))
        }
    }
}

/// What ssh calls the host that it logs in to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// The device's name.
    Device,
    /// `localhost`, for those who read the line, and for an ssh that cannot be told where a name leads.
    Localhost,
}

/// A login through a bridge that listens on this machine.
#[derive(Clone, Debug)]
pub struct SshLogin<'a> {
    /// Where the bridge listens on the loopback address.
    pub port: u16,
    /// The device's name, among the known hosts and in the person's configuration.
    pub alias: &'a HostKeyAlias,
    /// What stands behind the user's name.
    pub destination: Destination,
    /// `None` leaves the choice to ssh and its settings.
    pub user: Option<&'a UserName>,
    /// A key file to use, and no other.
    pub identity: Option<&'a Path>,
    /// The person's own words: options, and what to run instead of a login shell.
    pub words: &'a [String],
}

impl SshLogin<'_> {
    /// The words behind `ssh`. It takes options behind the host, too, so the person's words need no sorting.
    pub fn arguments(&self) -> Vec<OsString> {
        let mut words: Vec<OsString> = Vec::new();
        let mut push = |word: &dyn AsRef<OsStr>| words.push(word.as_ref().to_owned());
        push(&"-p");
        push(&self.port.to_string());
        // Of two values ssh takes the first, and what was typed is to win.
        let typed: Vec<_> = typed(self.words)
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        // Somebody who types -4 has IPv4; and for localhost its blocks count anyway.
        let plain = self.destination == Destination::Localhost
            || typed.iter().any(|name| name == "addressfamily");
        for (name, value) in self.settings(plain) {
            if !typed.contains(&name.to_ascii_lowercase()) {
                push(&"-o");
                push(&format!("{name}={value}"));
            }
        }
        if let Some(identity) = self.identity {
            push(&"-o");
            push(&"IdentitiesOnly=yes");
            push(&"-i");
            push(&identity);
        }
        let host = match self.destination {
            Destination::Device => self.alias.to_string(),
            Destination::Localhost => "localhost".to_owned(),
        };
        let classic = self.destination == Destination::Localhost;
        let whom = self.user.map(|user| user.at(&host, classic));
        let whom = whom.unwrap_or_else(|| vec![host]);
        whom.iter().for_each(|word| push(word));
        for word in own_sockets(self.words, self.alias) {
            push(&word);
        }
        words
    }

    fn settings(&self, plain: bool) -> Vec<(&'static str, String)> {
        let mut settings = vec![("HostKeyAlias", self.alias.to_string())];
        let own = [NO_SHARED_CONNECTION].into_iter().chain(loopback(plain));
        settings.extend(own.map(|(name, value)| (name, value.to_owned())));
        settings
    }
}

/// Another device's connection may have the same socket.
pub const NO_SHARED_CONNECTION: (&str, &str) = ("ControlPath", "none");
/// What leads to a port of this machine, whatever the configuration says; `plain`, for an ssh that is kept to IPv4.
pub fn loopback(plain: bool) -> [(&'static str, &'static str); 6] {
    // What ssh is going to do.
    let usable = !plain && UdpSocket::bind((MAPPED, 0)).is_ok();
    let address = match loopback_address() {
        IpAddr::V6(_) => ONLY_V6,
        IpAddr::V4(_) if usable => MAPPED,
        IpAddr::V4(_) => PLAIN,
    };
    [
        ("HostName", address),
        ("ProxyCommand", "none"),
        ("AddressFamily", "any"),
        ("BindAddress", address),
        ("CanonicalizeHostname", "no"),
        ("CheckHostIP", "no"),
    ]
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::{typed::digest, *};
    use crate::testing::Folder;

    /// The name that the device tells took the place of a typed one.
    #[test]
    fn a_typed_user_is_found_and_a_name_is_one_word() {
        for (line, want) in [
            ("-l jane -v", Some("jane")),
            ("-vljane uname", Some("jane")),
            ("-o User=jane -l x", Some("jane")),
            ("-ouser=jane", Some("jane")),
            ("-v uname -l x", None),
            ("-L -l", None),
            ("", None),
        ] {
            assert_eq!(typed_user(&words(line)).as_deref(), want, "{line}");
        }
        for (name, device, classic) in [
            ("gary", "-l|gary|pi", "gary@pi"),
            ("CORP\\jane", "-l|CORP\\jane|pi", "CORP\\jane@pi"),
            ("jane@corp", "-l|jane@corp|pi", "-l|jane@corp|pi"),
            ("jane doe", "-l|jane doe|pi", "-l|jane doe|pi"),
        ] {
            let user: UserName = name.parse().unwrap();
            let words = [false, true].map(|classic| user.at("pi", classic).join("|"));
            assert_eq!(words, [device, classic], "{name}");
        }
        let long = "u".repeat(99_999).parse::<UserName>().unwrap_err();
        assert!(long.to_string().len() < 500);
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

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    fn guards(plain: bool) -> String {
        let address = loopback(plain)[0].1;
        format!(
            "-o ControlPath=none -o HostName={address} -o ProxyCommand=none -o AddressFamily=any \
             -o BindAddress={address} -o CanonicalizeHostname=no -o CheckHostIP=no"
        )
    }

    #[test]
    fn the_words_of_a_login() {
        let alias = HostKeyAlias::new("dev1", "@device");
        let user: UserName = "gary".parse().unwrap();
        let theirs = ["-v".to_owned(), "uname".to_owned(), "-a b".to_owned()];
        let full = SshLogin {
            port: 2222,
            alias: &alias,
            destination: Destination::Device,
            user: Some(&user),
            identity: Some(Path::new("/k/id")),
            words: &theirs,
        };
        assert_eq!(
            shell_line(&full.arguments()),
            format!(
                "-p 2222 -o HostKeyAlias=dev1.device.noports {} -o IdentitiesOnly=yes -i /k/id \
                 -l gary dev1.device.noports -v uname '-a b'",
                guards(false)
            )
        );
        let bare = SshLogin {
            destination: Destination::Localhost,
            user: None,
            identity: None,
            words: &[],
            ..full
        };
        assert_eq!(
            shell_line(&bare.arguments()),
            format!(
                "-p 2222 -o HostKeyAlias=dev1.device.noports {} localhost",
                guards(true)
            )
        );
    }

    #[test]
    fn a_typed_option_takes_the_place_of_ours() {
        let alias = HostKeyAlias::new("dev1", "@device");
        for (typed, gone) in [
            ("-o ControlPath=/x/%C", "ControlPath="),
            ("-oControlPath=/x", "ControlPath="),
            ("-S /x", "ControlPath="),
            ("-vS/x", "ControlPath="),
            ("-tto controlpath=/x uname", "ControlPath="),
            ("-o hostkeyalias=pi", "HostKeyAlias=dev1"),
            ("-4", "AddressFamily="),
        ] {
            let login = SshLogin {
                port: 1,
                alias: &alias,
                destination: Destination::Device,
                user: None,
                identity: None,
                words: &words(typed),
            };
            let line = shell_line(&login.arguments());
            let (ours, theirs) = line.split_once(" dev1.device.noports ").unwrap();
            assert!(!ours.contains(gone), "{typed}: {line}");
            assert_eq!(
                ours.contains("=127.0.0.1"),
                typed == "-4" || guards(false).contains("=127"),
                "{line}"
            );
            assert_eq!(ours.matches(" -o ").count(), 7, "{typed}: {line}");
            let theirs = theirs.replace(&digest(&alias), "DIGEST");
            assert_eq!(theirs, typed.replace("%C", "DIGEST-%r"), "{line}");
        }
    }

    #[test]
    fn a_typed_control_path_is_one_devices() {
        let alias = HostKeyAlias::new("pi", "@me");
        for (typed, want) in [
            (
                "-o ControlPath=/x/%r@%h",
                "-o ControlPath=/x/%r@pi.me.noports",
            ),
            (
                "-oControlPath=%n-%k.%r",
                "-oControlPath=pi.me.noports-pi.me.noports.%r",
            ),
            (
                "-o controlpath=~/%h:%p",
                "-o controlpath=~/pi.me.noports:%p",
            ),
            ("-tvS/x-%h uname -S %h", "-tvS/x-pi.me.noports uname -S %h"),
            (
                "-S /x-%p -S /y%h",
                "-S /x-pi.me.noports-%p -S /ypi.me.noports",
            ),
            ("-S /x%%h%h%", "-S /x%%hpi.me.noports%"),
            ("-S /x%C", "-S /xDIGEST-%r"),
            ("-S none -L %h", "-S none -L %h"),
            ("-S", "-S"),
            ("-l %h -v", "-l %h -v"),
        ] {
            let own = own_sockets(&words(typed), &alias).join(" ");
            assert_eq!(own.replace(&digest(&alias), "DIGEST"), want, "{typed}");
        }
        let quoted = ["-o".to_owned(), "ControlPath = \"/x y/%h\"".to_owned()];
        assert_eq!(
            own_sockets(&quoted, &alias)[1],
            "ControlPath = \"/x y/pi.me.noports\""
        );
        assert_ne!(digest(&alias), digest(&HostKeyAlias::new("kitchen", "@me")));
        for (typed, shared) in [
            ("-S /x", Some("/x")),
            ("-o ControlPath=/x/%r@%l", Some("/x/%r@%l")),
            ("-tS/x%%h", Some("/x%%h")),
            ("-S /y%h -S None", Some("None")),
            ("-S /x%", Some("/x%")),
            ("-S none", None),
            ("-S /x%p", None),
            ("-oControlPath=/x%C", None),
            ("-v uname -S /x", None),
            ("-S", None),
        ] {
            assert_eq!(
                shares_with_others(&words(typed)).as_deref(),
                shared,
                "{typed}"
            );
        }
    }

    #[test]
    fn typed_options_that_lead_elsewhere_are_found() {
        for (line, want) in [
            ("-v -L 1:a:2 -o ServerAliveInterval=9 uname -p 9", None),
            ("-tp 2222", Some("port 2222")),
            ("-p2222", Some("port 2222")),
            ("-o HostName=nas", Some("hostname nas")),
            ("-oProxyCommand=nc", Some("proxycommand nc")),
            ("-J bastion", Some("proxyjump bastion")),
            ("-6", Some("addressfamily inet6")),
            ("-A6v", Some("addressfamily inet6")),
            ("-b 192.0.2.1", Some("bindaddress 192.0.2.1")),
            ("-B eth0", Some("bindinterface eth0")),
            ("-o ProxyCommand=none -o proxyjump=None -4", None),
            ("-- -p 9", None),
            ("-L -p9", None),
            ("-o", None),
            ("", None),
            ("-W nas:22 -F none -i -J", None),
        ] {
            assert_eq!(leads_elsewhere(&words(line)).as_deref(), want, "{line}");
        }
        let quoted = ["-o".to_owned(), " Port = \"22\"".to_owned()];
        assert_eq!(leads_elsewhere(&quoted).as_deref(), Some("port 22"));
    }

    #[test]
    fn dropbear_is_known_by_the_file_behind_the_link() {
        let folder = env::temp_dir().join(format!("ssh-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&folder).unwrap();
        for (name, want) in [("dropbearmulti", true), ("dbclient", true), ("ssh1", false)] {
            let (file, link) = (folder.join(name), folder.join(format!("{name}.link")));
            std::fs::write(&file, "").unwrap();
            std::os::unix::fs::symlink(&file, &link).unwrap();
            assert_eq!(is_dropbear(&link), want, "{name}");
        }
        assert!(!is_dropbear(&folder.join("none")));
        std::fs::remove_dir_all(&folder).unwrap();
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
