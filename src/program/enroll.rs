//! `noports enroll @alice` — keys of its own for one more device of an atSign, as far as somebody allows.
//!
//! ```text
//!   new device                          atServer                     a device that has keys
//!                                                  ◀── enroll otp ──  a code for one request
//!   enroll: keys ─▶ @alice_key.atKeys.asked
//!           request with the code ────▶ pending    ── enroll list ─▶
//!           shows c3a9-f7d2, and a QR              ◀─ enroll approve ─ compares, says yes
//!           pkam, again and again ────▶ approved
//!           fetches alice's keys, encrypted for it
//!           @alice_key.atKeys
//! ```
//!
//! The key pair is on disk before the server hears of it, so a run that was killed is gone on with by the
//! next one. The code comes from a file, the environment or stdin, never from the command line.
//!
//! `--device kitchen` in place of the short id means the device with exactly that name, and `--device-pattern 'pi[0-9]+'`
//! all whose whole name fits. `enroll auto` waits for a request and grants it, `approve --yes` does so without asking; neither
//! grants more than `sshnp:rw,sshrvd:rw` unless it is named (`--grant '*:rw'`), and `__manage`, with which a device approves
//! and revokes others, only when it is named itself. Without `--namespaces` the keys are good for what NoPorts needs
//! (`sshnp:rw,sshrvd:rw`) and for nothing else of that atSign.

use std::process::ExitCode;

use crate::cli::{
    Console,
    grammar::{Word, word},
};

use action::Action;

mod action;
mod ask;
mod auto;
mod codes;
mod decide;
mod grant;
mod manage;
mod results;
pub(super) mod seen;
mod selection;
mod show;

pub(crate) use ask::Args;

/// Words for a device that has keys; the flags of each.
pub(super) const WORDS: &[Word] = &[
    word::<codes::Args>("otp", "make a passcode for one request"),
    word::<codes::Args>("spp", "set a passcode for many requests"),
    word::<decide::Args>("list", "list enrolments"),
    word::<decide::Args>("approve", "show what a device asks for, and approve it"),
    word::<decide::Args>("auto", "wait for requests, and approve those that match"),
    word::<decide::Args>("deny", "refuse a request"),
    word::<decide::Args>("revoke", "revoke an enrolment: its keys stop working"),
    word::<decide::Args>("unrevoke", "restore a revoked enrolment"),
    word::<decide::Args>("delete", "delete a denied or revoked enrolment"),
];

/// Runs the program; `args` without its name.
pub fn main(console: Console, args: &[&str]) -> ExitCode {
    let (word, rest) = args
        .split_first()
        .map_or(("", args), |(word, rest)| (*word, rest));
    if matches!(word, "otp" | "spp") {
        return codes::main(console.word(word), word == "spp", rest);
    }
    match Action::named(word) {
        Some(action) => decide::main(console.word(word), action, rest),
        None => ask::main(console, args),
    }
}
