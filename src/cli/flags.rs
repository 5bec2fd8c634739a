//! Flags that several programs have, written once.
//!
//! argh cannot nest one set of flags in another. [`flags!`](flags) stands around a program's struct; a name without a type
//! is a set of common ones, which stand in its place before argh's derive sees the struct, so help, man pages and
//! completions know them like any other:
//!
//! ```text
//!   flags! {                              #[derive(FromArgs)]
//!       #[derive(FromArgs)]               struct Args {
//!       struct Args {                         manager: Vec<String>,
//!           manager: Vec<String>,   ─────▶    json, root, ca, keys,                  args.account()
//!           account,                          passphrase_file,
//!       }                                     quiet, verbose,                        args.output()
//!   }                                     }
//! ```
//!
//! | name | flags | whose |
//! | --- | --- | --- |
//! | `json` | `--json` | what prints a result |
//! | `output` | `json` and `--quiet`, `--verbose` | what also logs |
//! | `account` | `output` and `--root`, `--ca`, `--keys`, `--passphrase-file` | whoever acts with an atSign's keys |
//! | `network` | `--root`, `--ca` and `output` | what makes keys; its `--keys` says where they go |
//! | `peer` | `--to`, `--device`, `--via`, `--as` | what opens a session |
//! | `sandbox` | `--no-sandbox` | what serves others |
//! | `data` | `--data` and `json` | what works on an atServer's folder |

use std::{path::Path, sync::Arc};

use log::LevelFilter;

use super::{Console, Failure, Phrases, account::own_keys, network};
use crate::{
    at::{client::Network, keyfile::AtKeys},
    sys,
};

/// Adds common flags to a struct of flags; see the head of this file.
macro_rules! flags {
    ($(#[$about:meta])* $vis:vis struct $name:ident { $($rows:tt)* }) => {
        flags! { @rows ($name $(#[$about])* $vis struct $name) [] $($rows)* }
    };
    (@rows ($name:ident $($head:tt)*) [$($done:tt)*]) => {
        $($head)* { $($done)* }
    };
    (@add $head:tt [$($done:tt)*] { $($more:tt)* } $($rest:tt)*) => {
        flags! { @rows $head [$($done)* $($more)*] $($rest)* }
    };
    (@rows $head:tt $done:tt json, $($rest:tt)*) => {
        flags! { @add $head $done {
            /// print results as JSON lines on stdout
            #[argh(switch)]
            pub(crate) json: bool,
        } $($rest)* }
    };
    (@rows ($name:ident $($head:tt)*) $done:tt how_much, $($rest:tt)*) => {
        flags! { @add ($name $($head)*) $done {
            /// print nothing on stderr but errors
            #[argh(switch, short = 'q')]
            pub(crate) quiet: bool,
            /// log more to stderr; -vv logs still more
            #[argh(switch, short = 'v')]
            pub(crate) verbose: u8,
        } $($rest)* }

        impl $crate::cli::HasOutput for $name {
            fn output(&self) -> $crate::cli::Output {
                $crate::cli::Output {
                    json: self.json,
                    quiet: self.quiet,
                    verbose: self.verbose,
                }
            }
        }
    };
    (@rows $head:tt $done:tt output, $($rest:tt)*) => {
        flags! { @rows $head $done json, how_much, $($rest)* }
    };
    (@rows $head:tt $done:tt trust, $($rest:tt)*) => {
        flags! { @add $head $done {
            /// atDirectory (or NOPORTS_ROOT; default: root.atsign.org:64)
            #[argh(option, arg_name = "host:port")]
            pub(crate) root: Option<String>,
            /// trust this certificate authority too: a PEM file (or NOPORTS_CA)
            #[argh(option, arg_name = "file")]
            pub(crate) ca: Vec<String>,
        } $($rest)* }
    };
    (@rows $head:tt $done:tt network, $($rest:tt)*) => {
        flags! { @rows $head $done trust, output, $($rest)* }
    };
    (@rows $head:tt $done:tt key_file, $($rest:tt)*) => {
        flags! { @add $head $done {
            /// key file, or folder of key files (or NOPORTS_KEYS; default: ~/.atsign/keys)
            #[argh(option, arg_name = "file")]
            pub(crate) keys: Option<std::path::PathBuf>,
            /// file with the pass phrase of the key file (or NOPORTS_PASSPHRASE)
            #[argh(option, arg_name = "file")]
            pub(crate) passphrase_file: Option<std::path::PathBuf>,
        } $($rest)* }
    };
    (@rows ($name:ident $($head:tt)*) $done:tt account, $($rest:tt)*) => {
        flags! { @rows ($name $($head)*) $done json, trust, key_file, how_much, $($rest)* }

        impl $name {
            pub(crate) fn account(&self) -> $crate::cli::Account<'_> {
                $crate::cli::Account {
                    root: self.root.as_deref(),
                    ca: &self.ca,
                    keys: self.keys.as_deref(),
                    passphrase_file: self.passphrase_file.as_deref(),
                }
            }
        }
    };
    (@rows $head:tt $done:tt peer, $($rest:tt)*) => {
        flags! { @add $head $done {
            /// the device's atSign; or the device whole, DEVICE@ATSIGN, such as pi@kitchen
            #[argh(option, arg_name = "atsign")]
            pub(crate) to: String,
            /// which device of that atSign (default: "default")
            #[argh(option, arg_name = "name")]
            pub(crate) device: Option<String>,
            /// the rendezvous' atSign (or NOPORTS_VIA)
            #[argh(option, arg_name = "atsign")]
            pub(crate) via: Option<String>,
            /// your atSign (or NOPORTS_AS; default: the only one with keys here)
            #[argh(option, long = "as", arg_name = "atsign")]
            pub(crate) as_: Option<String>,
        } $($rest)* }
    };
    (@rows $head:tt $done:tt sandbox, $($rest:tt)*) => {
        flags! { @add $head $done {
            /// do not confine this program to the files and system calls that it needs
            #[argh(switch)]
            pub(crate) no_sandbox: bool,
        } $($rest)* }
    };
    (@rows $head:tt $done:tt data, $($rest:tt)*) => {
        flags! { @add $head $done {
            /// data folder (or NOPORTS_DATA)
            #[argh(option, arg_name = "dir")]
            pub(crate) data: Option<std::path::PathBuf>,
        } json, $($rest)* }
    };
    // A flag of its own. Its type stays in sight: argh looks whether it is an Option, a Vec or a bool.
    (@rows $head:tt $done:tt
        $(#[$about:meta])* $vis:vis $field:ident : $type:ident $(<$of:ident>)?, $($rest:tt)*) => {
        flags! { @add $head $done { $(#[$about])* $vis $field : $type $(<$of>)?, } $($rest)* }
    };
}

pub(crate) use flags;

/// The words of flags that are lists: commas separate several.
pub fn separated(lists: &[String]) -> impl Iterator<Item = &str> {
    lists.iter().flat_map(|list| list.split(',')).map(str::trim)
}

/// How much a program says, and in which form.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    /// Results as JSON lines.
    pub json: bool,
    /// Only errors on stderr.
    pub quiet: bool,
    /// How often `-v` was given.
    pub verbose: u8,
}

impl Output {
    /// Starts the log, and keeps what is in memory from others: both before anything else is done.
    pub fn start(self, level: LevelFilter) {
        // Services log as they go, for whoever looks later.
        let reader = if level == LevelFilter::Warn {
            sys::log::Reader::Person
        } else {
            sys::log::Reader::Operator
        };
        sys::log::start(level, self.verbose, self.quiet, reader);
        sys::process::protect_memory();
    }
}

/// A program's flags that say how it talks.
pub trait HasOutput {
    /// What they say.
    fn output(&self) -> Output;
}

/// Whom to act as: what the flags say; the environment stands behind each.
#[derive(Clone, Copy, Debug)]
pub struct Account<'a> {
    /// The atDirectory.
    pub root: Option<&'a str>,
    /// Authorities to trust.
    pub ca: &'a [String],
    /// Key file, or folder of key files.
    pub keys: Option<&'a Path>,
    /// File with the phrase of a protected key file.
    pub passphrase_file: Option<&'a Path>,
}

impl Account<'_> {
    /// The atDirectory and the authorities to trust.
    ///
    /// # Errors
    /// As [`network`].
    pub fn network(&self) -> Result<Network, Failure> {
        network(self.root, self.ca)
    }

    /// The network, and the keys of `as_`.
    ///
    /// # Errors
    /// As [`network`], [`Phrases::new`] and [`own_keys`].
    pub fn load(
        &self,
        console: &Console,
        as_: Option<&str>,
    ) -> Result<(Network, Arc<AtKeys>), Failure> {
        let network = self.network()?;
        let phrases = console.phrases(self.passphrase_file)?;
        let keys = own_keys(as_, self.keys, &phrases)?;
        Ok((network, Arc::new(keys)))
    }

    /// The network and the keys, where a phrase may have come another way; `phrases` has looked into the file already.
    ///
    /// # Errors
    /// As [`network`] and [`own_keys`].
    pub fn load_with(
        &self,
        as_: Option<&str>,
        phrases: &Phrases,
    ) -> Result<(Network, Arc<AtKeys>), Failure> {
        let network = self.network()?;
        let keys = own_keys(as_, self.keys, phrases)?;
        Ok((network, Arc::new(keys)))
    }
}
