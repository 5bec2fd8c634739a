//! The flags of whoever acts with an atSign's keys, written once.
//!
//! argh cannot nest one set of flags in another. [`with_account!`](with_account) stands around a program's
//! struct and adds the common ones before argh's derive sees it, so help, man pages and completions know
//! them like any other:
//!
//! ```text
//!   with_account! {                       #[derive(FromArgs)]
//!       #[derive(FromArgs)]               struct Args {
//!       struct Args {                         to: String,                            its own come first
//!           to: String,          ──────▶      root, ca, keys, passphrase_file,       args.account()
//!       }                                     quiet, verbose,                        how much it says
//!   }                                     }
//! ```
//!
//! `--as` and `--json` stay with each program: whose atSign it is, and what is printed, differ. Programs
//! that write a key file (activate, enroll) have flags of their own: theirs say where it goes.

use std::{path::Path, sync::Arc};

use super::{Console, Failure, Phrases, account::own_keys, network};
use crate::at::{client::Network, keyfile::AtKeys};

/// Adds the common flags to a struct of flags; see the head of this file.
macro_rules! with_account {
    ($(#[$about:meta])* struct $name:ident { $($own:tt)* }) => {
        $(#[$about])*
        struct $name {
            $($own)*
            /// the atDirectory (or NOPORTS_ROOT; default: root.atsign.org:64)
            #[argh(option, arg_name = "host[:port]")]
            root: Option<String>,
            /// trust one more certificate authority, a PEM file; repeat it (or NOPORTS_CA)
            #[argh(option, arg_name = "file")]
            ca: Vec<String>,
            /// key file or folder (or NOPORTS_KEYS; default: ~/.atsign/keys)
            #[argh(option)]
            keys: Option<String>,
            /// file with the pass phrase of a protected key file (or NOPORTS_PASSPHRASE)
            #[argh(option, arg_name = "file")]
            passphrase_file: Option<std::path::PathBuf>,
            /// say nothing on stderr but errors
            #[argh(switch, short = 'q')]
            quiet: bool,
            /// log more; may be repeated
            #[argh(switch, short = 'v')]
            verbose: u8,
        }

        impl $name {
            fn account(&self) -> $crate::cli::Account<'_> {
                $crate::cli::Account {
                    root: self.root.as_deref(),
                    ca: &self.ca,
                    keys: self.keys.as_deref(),
                    passphrase_file: self.passphrase_file.as_deref(),
                }
            }
        }
    };
}

pub(crate) use with_account;

/// What these flags say; the environment stands behind each.
#[derive(Clone, Copy, Debug)]
pub struct Account<'a> {
    /// The atDirectory.
    pub root: Option<&'a str>,
    /// Authorities to trust.
    pub ca: &'a [String],
    /// Key file, or folder of key files.
    pub keys: Option<&'a str>,
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
