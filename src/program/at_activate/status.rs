//! `at_activate status -a @x`: how far an atSign is, as an exit code of its own kind.

use std::process::ExitCode;

use argh::{ArgsInfo, FromArgs};

use crate::{
    at::{
        AtSign,
        client::{AtError, Link},
    },
    cli::{self, Console, Failure},
    program::published,
};

/// How far is an atSign? The exit code tells.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    error_code(0, "activated"),
    error_code(1, "its atServer is there, but has no keys yet"),
    error_code(2, "its atServer cannot be reached"),
    error_code(3, "the atDirectory does not know it"),
    error_code(4, "the atDirectory cannot be reached")
)]
pub(crate) struct Args {
    /// the atSign
    #[argh(positional)]
    atsign: String,
    /// the atDirectory (default: root.atsign.org:64)
    #[argh(option)]
    root: Option<String>,
    /// not needed here
    #[argh(option, long = "keys")]
    _keys: Option<String>,
    /// log more
    #[argh(switch, short = 'v', long = "verbose")]
    _verbose: u8,
}

/// Runs it; `words` are ours.
pub(super) fn main(words: &[&str]) -> ExitCode {
    let mut console = Console::new("at_activate status");
    let args: Args = match console.parse(words) {
        Ok(args) => args,
        Err(code) => return code,
    };
    match console.run(1, look(&args)) {
        Ok((code, text)) => {
            cli::print_out(&format!("{} {text}", args.atsign));
            ExitCode::from(code)
        }
        Err(failure) => console.finish(false, Err(failure)),
    }
}

async fn look(args: &Args) -> Result<(u8, &'static str), Failure> {
    let who: AtSign = args.atsign.parse()?;
    let network = cli::network(args.root.as_deref(), &[])?;
    let answer = async {
        let mut link = Link::connect(&network, &who).await?;
        published::public_key(&mut link, &who).await
    };
    Ok(match answer.await {
        Ok(Some(_)) => (0, "is activated"),
        Ok(None) => (1, "is not activated yet"),
        Err(AtError::Unknown { .. }) => (3, "does not exist"),
        Err(AtError::Directory { .. }) => {
            (4, "cannot be looked up: no answer from the atDirectory")
        }
        Err(_) => (2, "has an atServer that cannot be reached"),
    })
}
