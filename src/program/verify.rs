//! `noports verify`: is a file signed with this key? By minisign's older form, Ed25519 over the file itself, as releases
//! are signed. `install.sh` asks the noports that is installed; not in the overview.
//!
//! ```text
//!   untrusted comment: whatever                       ┐
//!   base64("Ed", id of the key, signature)            │ FILE.minisig
//!   trusted comment: noports 1.2.3                    │
//!   base64(signature of: signature, trusted comment)  ┘
//! ```

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use argh::{ArgsInfo, FromArgs};
use base64::{Engine, engine::general_purpose::STANDARD};
use ring::signature::{ED25519, UnparsedPublicKey};

use crate::{
    cli::{Console, Failure, Outcome, exit},
    sys::file,
    text::terminal::harmless,
};

/// Most bytes of a signed text, which is held in memory: lists of checksums have some hundred.
const MAX_FILE: u64 = 1 << 20;
/// Most bytes of a signature or a key with their comments.
const MAX_WORDS: u64 = 4096;
const KEY: usize = 32;
const ID: usize = 8;
const SIGNATURE: usize = 64;
/// Ed25519 over the file, and over its BLAKE2b sum.
const WHOLE: &[u8] = b"Ed";
const SUMMED: &[u8] = b"ED";

/// Check the signature of a file, as minisign makes it with -l.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(
    example = "{command_name} SHA256SUMS --key noports.pub",
    error_code(1, "a file cannot be read"),
    error_code(10, "it is not signed with this key, or was changed")
)]
pub(crate) struct Args {
    /// the file
    #[argh(positional)]
    file: PathBuf,
    /// the public key, RW…, or the file that holds it
    #[argh(option)]
    key: String,
    /// the signature (default: the file's name and .minisig)
    #[argh(option, arg_name = "file")]
    signature: Option<PathBuf>,
}

/// The program.
pub fn main(console: Console, words: &[&str]) -> ExitCode {
    console.act(words, |console, args: Args| {
        let found = run(&args).map(|comment| {
            let words = format!("signed: {}", harmless(&comment));
            console.tell(false, Outcome::new("signed").plain(words));
        });
        console.finish(false, found)
    })
}

fn run(args: &Args) -> Result<String, Failure> {
    // A file that is called like the key that is typed is not the key.
    let key = if decoded::<{ 2 + ID + KEY }>(&args.key).is_some() {
        args.key.clone()
    } else {
        text(Path::new(&args.key), MAX_WORDS)?
    };
    let beside = || {
        let mut name = args.file.clone().into_os_string();
        name.push(".minisig");
        name.into()
    };
    let signature = args.signature.clone().unwrap_or_else(beside);
    let signature = text(&signature, MAX_WORDS)?;
    verify(&text(&args.file, MAX_FILE)?, &signature, &key)
}

fn text(path: &Path, most: u64) -> Result<String, Failure> {
    file::text_now(path, most).map_err(|why| Failure::plain(format!("{}: {why}", path.display())))
}

fn refused(why: impl Into<String>) -> Failure {
    Failure::new(exit::NOT_TRUSTWORTHY, why)
}

/// The comment that is signed along.
fn verify(signed: &str, signature: &str, key: &str) -> Result<String, Failure> {
    let words = key.trim().lines().last().unwrap_or_default();
    let key: [u8; 2 + ID + KEY] = decoded(words).ok_or_else(|| refused("that is no public key"))?;
    let bad = || refused("that is no signature of minisign");
    let lines: Vec<&str> = signature.lines().collect();
    let [_, first, comment, second] = lines[..] else {
        return Err(bad());
    };
    let comment = comment.strip_prefix("trusted comment: ").ok_or_else(bad)?;
    let of_file: [u8; 2 + ID + SIGNATURE] = decoded(first).ok_or_else(bad)?;
    let of_comment: [u8; SIGNATURE] = decoded(second).ok_or_else(bad)?;
    if of_file.starts_with(SUMMED) {
        let why = "it is signed in minisign's newer form, which is not known here";
        return Err(refused(why).hint("minisign -Vm FILE -P KEY"));
    }
    if !of_file.starts_with(WHOLE) || !key.starts_with(WHOLE) {
        return Err(bad());
    }
    let (id, of_file) = of_file[2..].split_at(ID);
    if id != &key[2..2 + ID] {
        return Err(refused("it is signed with another key"));
    }
    let key = UnparsedPublicKey::new(&ED25519, &key[2 + ID..]);
    key.verify(signed.as_bytes(), of_file)
        .map_err(|_| refused("the file is not what was signed"))?;
    key.verify(&[of_file, comment.as_bytes()].concat(), &of_comment)
        .map_err(|_| refused("the comment is not what was signed"))?;
    Ok(comment.to_owned())
}

fn decoded<const N: usize>(line: &str) -> Option<[u8; N]> {
    STANDARD.decode(line.trim_end()).ok()?.try_into().ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crate::program::verify::*;

    const KEY: &str = "RWSaHiYtZvdgPbYrCQgE5Y5noH6IpBpnuEkRsRUIhQNxyXCFtlA2wo7b";
    /// Made by minisign 0.11 with -l.
    const SIGNATURE: &str = "untrusted comment: signature from minisign secret key\n\
        RWSaHiYtZvdgPePsN4c0jwe5JqgIP82crGl0EuyGVQBWbTxGvhVom2efHK5lKd5+z3K1kb7pGtYPaxUZNxAsC1lBPHNjnq52Kw0=\n\
        trusted comment: noports 1\n\
        3xv2OOgkLBzhbdLCDb/uMG/a15gtk0Ksd1tkEYId7MII9J9rtv+dybE9L+kEAo//lbjFO5CvbCLCSzGr16MGBg==\n";
    /// The same without -l.
    const NEWER: &str = "untrusted comment: signature from minisign secret key\n\
        RUSaHiYtZvdgPZA/tS9tHx0hotHkp5B8ZDjNPxMk78VbIBn9EI4HWtLCgkFF9vAj51CWF5cAVmia8Rx2IlUqynB+2DMBfedn/wI=\n\
        trusted comment: x\n\
        08Zm4by/xxOEzDULaK35QJK9PX+z7NXgdh2hpHBpy29Gb1rBoYnutswBXJa8emA3K+HyeTkFo7jaUacBU013Bg==\n";

    #[test]
    fn a_signature_of_minisign_is_good_for_its_file_comment_and_key_alone() {
        let file = format!("untrusted comment: of a file\n{KEY}\n");
        for key in [KEY, &file] {
            assert_eq!(verify("hello\n", SIGNATURE, key).unwrap(), "noports 1");
        }
        let other_key = KEY.replace("bYrC", "bYrD");
        let other_id = KEY.replace("SaHi", "SaHj");
        let other_comment = SIGNATURE.replace("noports 1", "noports 2");
        let rest = SIGNATURE.split_once('\n').unwrap().1;
        for (file, signature, key, want) in [
            ("hello", SIGNATURE, KEY, "not what was signed"),
            ("", SIGNATURE, KEY, "not what was signed"),
            ("hello\n", SIGNATURE, &other_key, "not what was signed"),
            ("hello\n", SIGNATURE, &other_id, "another key"),
            ("hello\n", &other_comment, KEY, "comment"),
            ("hello\n", NEWER, KEY, "newer form"),
            ("hello\n", rest, KEY, "no signature"),
            ("hello\n", "", KEY, "no signature"),
            ("hello\n", &SIGNATURE.repeat(2), KEY, "no signature"),
            (
                "hello\n",
                &SIGNATURE.replace("RWSa", "RXSa"),
                KEY,
                "no signature",
            ),
            ("hello\n", SIGNATURE, "", "no public key"),
            ("hello\n", SIGNATURE, &KEY[..52], "no public key"),
            ("hello\n", SIGNATURE, &KEY.repeat(2), "no public key"),
        ] {
            let failure = verify(file, signature, key).unwrap_err();
            assert_eq!(failure.code, exit::NOT_TRUSTWORTHY, "{want}");
            assert!(
                failure.message.contains(want),
                "{want}: {}",
                failure.message
            );
        }
    }
}
