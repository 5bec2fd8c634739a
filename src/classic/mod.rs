//! Everything before NoPorts 5.0, and how the generations differ.
//!
//! | file | what |
//! | --- | --- |
//! | [`generation`] | the table of generations: how old daemons want to be asked |
//! | `habits` | its further columns: what programs of each generation say and understand; for tests only (feature `held`) |
//! | [`reverse`] | 3.x: the device logs in to the client by ssh and brings a port along |
//! | [`two_sshs`] | 4.x, and 5.x without encryption: one ssh carries another |
//! | [`tunnel_ssh`] | the words of the ssh that carries, for both of these; and the file with the key it logs in with |
//! | [`mod@keyring`] | the device's temporary keys for sessions that only ssh encrypts |
//! | `temporary` | the line that lets such a key in, here and on the device |
//!
//! Used by [`session`](crate::session) and [`program`](crate::program); uses neither. What the messages of each generation
//! look like stays with the messages, in [`np`](crate::np).
//!
//! # Which versions work together
//!
//! | | with |
//! | --- | --- |
//! | client | daemons from NoPorts 5.0, and the C daemon, as it is; 4.0, its release candidate 2, the Python daemon and 3.x with flags |
//! | tunnel | daemons from NoPorts 5.1, and the C daemon; single key where twin keys are unknown |
//! | daemon | `sshnp` from NoPorts 4.0 and `npt` from 5.1, with and without encryption and logins; 5.0–5.2 with `--temporary-keys always`; release candidate 2 of 4.0 with `--bare-answers`; 3.x with `--reverse-ssh` |
//! | rendezvous | clients and daemons from NoPorts 3.1, with and without logins |
//! | bridge | whoever starts `srv` of NoPorts 5 or `sshrv` of 3 and 4 |
//! | atServer | clients of the atProtocol as of at_client 3, at_c and atsdk |
//!
//! Covered by automated tests: the Python programs `atsdk` and `sshnpd` against our atServer and client library. Dart and C
//! programs have not been run against it; for them we hold to known messages, keys and byte streams (`tests/vectors`) and to
//! dialogs taken down from the wire. A request for a session is sent to them once, for they would open a second session for a
//! second copy; only pings are repeated, and requests to daemons of this program.
//!
//! # Flags for earlier versions, and for ssh keys
//!
//! A daemon accepts clients of NoPorts 4.0 and later. Unencrypted sessions are allowed for ssh only, which encrypts by
//! itself; the answer brings an ssh key along that sshd lets in for 15 seconds, for a way to its own port and nothing else (a
//! line in `~/.ssh/authorized_keys` that is gone after that, also after a crash; should nothing remove it, OpenSSH 7.7 and
//! later stops heeding it within three days). More has to be allowed, or can be forbidden:
//!
//! | flag of the daemon | what it does | classic |
//! | --- | --- | --- |
//! | `--accept-keys` | clients may add their public ssh keys to `authorized_keys`, for good | `-s` |
//! | `--key-options LIST` | options before such a key, such as `no-pty` | `-S` |
//! | `--temporary-keys needed\|always\|never` | when a session brings a key along; `always` for clients of 5.0 to 5.2 | |
//! | `--temporary-key-options LIST` | additional options for these keys | `--ephemeral-permissions` |
//! | `--reverse-ssh` | the device logs in to clients before 4.0, with the key that they send | |
//! | `--bare-answers` | for clients of 4.0's release candidate 2, which understand no other answer | |
//! | `--require-protection` | refuses sessions without encryption, or without a login at the rendezvous | |
//!
//! One line in the log says what each session has: `generation=5 login=yes encryption=twin temporary_key=no` (`records` with our own client).
//!
//! The client never gives up protection by itself; what a daemon or rendezvous is too old for is refused, and the refusal
//! names the flag that would do without:
//!
//! | flag of the client | for | classic |
//! | --- | --- | --- |
//! | `--no-encrypt` | daemons before 5.0; ssh alone encrypts then, and one ssh with the key from the answer carries another | `--no-et` |
//! | `--no-admit-device`, `--no-admit-client` | daemons, and rendezvous, before 5.0 | `--no-ad`, `--no-ac` |
//! | `--legacy-daemon` | daemons before 4.0; needs an sshd here, and lets the device's key into your `authorized_keys` while it logs in | `--legacy-daemon` |
//! | `--send-key FILE.pub` | daemons with `--accept-keys` | `-s` |

pub mod generation;
#[cfg(feature = "held")]
pub mod habits;
pub mod keyring;
pub mod reverse;
mod temporary;
pub mod tunnel_ssh;
pub mod two_sshs;
