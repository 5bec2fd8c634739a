//! `noports keys` — a pass phrase for a key file that is there: set it, change it, take it away; and keys in reserve.
//!
//! ```text
//!   @alice_key.atKeys ─ open, with the phrase if it has one ─▶ text ─ the new phrase, or none ─▶ temporary file
//!        ▲                                                                                           │
//!        └────────────────────── fsync, rename: the old file or the new one, never half ─────────────┘
//! ```
//! Nothing here needs a network. The text inside is kept to the letter, so nothing that other programs keep in
//! it is lost; a phrase that does not open the file changes nothing.
//!
//! `noports keys protect @me` and `noports keys unprotect @me`. Where `--passphrase-file` or `NOPORTS_PASSPHRASE` gives a
//! phrase, new key files are protected with it from the start. The form is the one that all atProtocol programs share; its
//! salt is the phrase itself, so choose a long one.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use argh::{ArgsInfo, FromArgs};
use log::LevelFilter;

use crate::{
    at::{AtSign, enrolment, pins::Fingerprint},
    cli::{
        self, Console, DraftKeyFile, Failure, KeyFileLock, Outcome, Phrases, exit, flags,
        grammar::{Word, word},
        keystore, refuse_overwriting,
    },
};

/// A shorter phrase gets a word of warning: it is its own salt, and guessing is cheap.
const SHORT: usize = 12;

flags! {
    /// Protect a key file with a pass phrase, change the phrase, or remove it; or make keys in reserve.
    ///
    /// Needs no network. A pass phrase that does not open the file changes nothing. `reserve` writes new keys into a file
    /// that nobody uses yet, and shows their fingerprint: with --recovery daemons let you in with them after you lost yours.
    #[derive(FromArgs, ArgsInfo, Debug)]
    #[argh(
        example = "noports keys protect @alice",
        example = "noports keys protect @alice --new-passphrase-file phrase.txt",
        example = "noports keys unprotect @alice --out plain.atKeys",
        example = "noports keys reserve @alice --out spare.atKeys",
        error_code(1, "failed"),
        error_code(2, "the command line was wrong, or there is no new pass phrase"),
        error_code(
            3,
            "the key file is missing, the pass phrase does not open it, or it cannot be written"
        )
    )]
    pub(crate) struct Args {
        /// protect, unprotect or reserve
        #[argh(positional)]
        word: String,
        /// your atSign
        #[argh(positional)]
        atsign: String,
        /// protect, reserve: file with the new pass phrase (or NOPORTS_NEW_PASSPHRASE; protect: else asked for)
        #[argh(option, arg_name = "file")]
        new_passphrase_file: Option<PathBuf>,
        /// write a new file, and leave the old one as it is
        #[argh(option, arg_name = "file")]
        out: Option<PathBuf>,
        key_file,
        output,
    }
}

/// What is done with a key file.
pub(super) const WORDS: &[Word] = &[
    word::<Args>("protect", "set a pass phrase, or change it"),
    word::<Args>(
        "unprotect",
        "remove the pass phrase; with --out only from a copy",
    ),
    word::<Args>("reserve", "make keys for the day the ones of now are lost"),
];

/// Runs the program; `args` without its name.
pub fn main(mut console: Console, args: &[&str]) -> ExitCode {
    match console.begin::<Args>(args, LevelFilter::Warn) {
        Ok(args) => console.finish(args.json, run(&args, &console)),
        Err(code) => code,
    }
}

fn run(args: &Args, console: &Console) -> Result<(), Failure> {
    let protect = match args.word.as_str() {
        "protect" => true,
        "unprotect" => false,
        "reserve" => return reserve(args, console),
        // It may be a pass phrase.
        _ => {
            return Err(Failure::misuse(
                "the first word is neither protect, unprotect nor reserve",
            )
            .hint(format!("noports keys protect {}", args.atsign)));
        }
    };
    let who: AtSign = args.atsign.parse()?;
    let file = cli::key_file(&who, args.keys.as_deref())?;
    if let Some(out) = &args.out {
        let elsewhere = "move it away, or write the new one elsewhere with --out FILE";
        refuse_overwriting(out).map_err(|taken| taken.hint(elsewhere))?;
    }
    let to = args.out.as_ref().unwrap_or(&file);
    let phrases = console.phrases(args.passphrase_file.as_deref())?;
    // From reading to writing. Where there is nothing to read no folder is made.
    let lock = || KeyFileLock::take(to);
    let _alone = file.exists().then(lock).transpose()?;
    let opened = keystore::unlock_file(&file, &who, || phrases.for_reading(&file))?;
    let phrase = if protect {
        // A plain file has no phrase to open it, so the one that is named is meant for it.
        Some(match phrases.known() {
            Some(known) if !opened.protected && args.new_passphrase_file.is_none() => known.clone(),
            _ => Phrases::chosen(args.new_passphrase_file.as_deref(), &file)?,
        })
    } else if opened.protected || args.out.is_some() {
        None
    } else {
        let text = format!("{} is not protected", file.display());
        return Err(Failure::new(exit::KEYS, text));
    };
    keystore::save_text(opened.text, to, phrase.as_ref())?;
    if !args.quiet
        && let Some(phrase) = &phrase
        && phrase.reveal().chars().count() < SHORT
    {
        cli::print_err("the pass phrase is short and easy to guess");
    }
    tell(args, console, &who, to, protect);
    Ok(())
}

/// Keys that no atServer knows; `activate` takes them from the place of its own draft.
fn reserve(args: &Args, console: &Console) -> Result<(), Failure> {
    let who: AtSign = args.atsign.parse()?;
    let out = args.out.as_ref().ok_or_else(|| {
        Failure::misuse("where to?").hint(format!("noports keys reserve {who} --out spare.atKeys"))
    })?;
    refuse_overwriting(out)?;
    let draft = DraftKeyFile::of(&cli::key_file(&who, args.keys.as_deref())?).path;
    let keys = enrolment::mint(&who)?;
    let phrase = Phrases::given(args.new_passphrase_file.as_deref())?;
    keystore::save_text(keys.print(), out, phrase.as_ref())?;
    let (path, key) = (
        out.display().to_string(),
        Fingerprint::of(keys.encryption.public()),
    );
    let words = format!(
        "reserved {path}\nfingerprint: {key}\nKeep the file elsewhere. On each device: noports daemon … --recovery {key}\nTo \
         use it, once the atSign can be activated anew: copy it to {}, and noports activate {who}",
        draft.display()
    );
    let outcome = Outcome::new("reserved")
        .with("atsign", who.as_str())
        .with("keys", &path)
        .with("fingerprint", &key.to_string());
    console.tell(args.json, outcome.plain(words));
    Ok(())
}

fn tell(args: &Args, console: &Console, who: &AtSign, to: &Path, protect: bool) {
    let event = if protect { "protected" } else { "unprotected" };
    let path = to.display().to_string();
    let outcome = Outcome::new(event)
        .with("atsign", who.as_str())
        .with("keys", &path)
        .plain(format!("{event} {path}"))
        .classic(format!("[Success] Decrypted atKeys file stored at {path}"));
    console.tell(args.json, outcome);
}
