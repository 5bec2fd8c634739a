//! `noports docs`: manual pages and completions, from the same words as `--help`.
//!
//! ```text
//!   noports PROGRAM --help ─▶ help (taken apart) ─┬─▶ man        roff, one page per program
//!                                                 └─▶ complete   what can come next
//!   bash, zsh, fish: scripts that ask `noports docs complete WORD …`
//! ```

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use argh::FromArgs;

use super::APPLETS;
use crate::{
    cli::{Console, Failure, exit, print_out},
    sys::{out, paths},
    text::calendar,
};

use help::Help;
use man::{Edition, Page};

mod complete;
mod help;
mod man;

const BASH: &str = include_str!("../../packaging/completions/noports.bash");
const ZSH: &str = include_str!("../../packaging/completions/_noports");
const FISH: &str = include_str!("../../packaging/completions/noports.fish");
/// Programs that can be installed as a service.
const WITH_SERVICE: [&str; 4] = ["daemon", "rendezvous", "policy", "atserver"];

/// Manual pages, and completions for shells.
#[derive(FromArgs, Debug)]
#[argh(
    example = "{command_name} all /usr/local/share",
    example = "{command_name} bash > /etc/bash_completion.d/noports"
)]
struct Args {
    #[argh(subcommand)]
    what: Subcommand,
}

#[derive(FromArgs, Debug)]
#[argh(subcommand)]
enum Subcommand {
    Man(Man),
    Bash(Bash),
    Zsh(Zsh),
    Fish(Fish),
    All(All),
}

/// Write the manual pages into a folder, and print their paths.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "man")]
struct Man {
    /// the folder
    #[argh(positional)]
    dir: PathBuf,
}

/// Print the completions for bash.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "bash")]
struct Bash {}

/// Print the completions for zsh.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "zsh")]
struct Zsh {}

/// Print the completions for fish.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "fish")]
struct Fish {}

/// Write everything below a folder such as /usr/share, where man and the shells look, and print the paths.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "all")]
struct All {
    /// the folder
    #[argh(positional)]
    dir: PathBuf,
}

/// The program.
pub fn main(mut console: Console, words: &[&str]) -> ExitCode {
    if let Some(("complete", words)) = words.split_first().map(|(first, rest)| (*first, rest)) {
        for (word, about) in complete::candidates(words, help_of) {
            print_out(format!("{word}\t{about}").trim_end());
        }
        return ExitCode::from(exit::FINE);
    }
    let args: Args = match console.parse(words) {
        Ok(args) => args,
        Err(code) => return code,
    };
    let print = |script| out::text(script).map_err(|why| Failure::plain(why.to_string()));
    let done = match args.what {
        Subcommand::Man(args) => write(pages(&args.dir)),
        Subcommand::Bash(_) => print(BASH),
        Subcommand::Zsh(_) => print(ZSH),
        Subcommand::Fish(_) => print(FISH),
        Subcommand::All(args) => write(everything(&args.dir)),
    };
    console.finish(false, done)
}

fn write(files: Vec<(PathBuf, String)>) -> Result<(), Failure> {
    for (file, text) in files {
        let folder = file.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)
            .map_err(|why| Failure::plain(format!("cannot make {}: {why}", folder.display())))?;
        paths::atomic_write(&file, text.as_bytes(), 0o644)
            .map_err(|why| Failure::plain(why.to_string()))?;
        print_out(&file.display().to_string());
    }
    Ok(())
}

fn everything(share: &Path) -> Vec<(PathBuf, String)> {
    let mut files = pages(&share.join("man/man1"));
    for (path, text) in [
        ("bash-completion/completions/noports", BASH),
        ("zsh/site-functions/_noports", ZSH),
        ("fish/vendor_completions.d/noports.fish", FISH),
    ] {
        files.push((share.join(path), text.to_owned()));
    }
    // bash looks for a file of the command's own name.
    for link in APPLETS.iter().flat_map(|applet| applet.links) {
        let file = share.join("bash-completion/completions").join(link);
        files.push((file, ". \"${BASH_SOURCE[0]%/*}/noports\"\n".to_owned()));
    }
    files
}

fn pages(folder: &Path) -> Vec<(PathBuf, String)> {
    // A package is the same whenever it is made.
    let fixed = env::var("SOURCE_DATE_EPOCH")
        .ok()
        .and_then(|text| text.parse().ok());
    let now = fixed.map_or_else(SystemTime::now, |seconds| {
        UNIX_EPOCH + Duration::from_secs(seconds)
    });
    let now = calendar::utc(now);
    let edition = Edition {
        day: now.split('T').next().unwrap_or_default(),
        version: concat!("noports ", env!("CARGO_PKG_VERSION")),
    };
    let shown = || APPLETS.iter().filter(|applet| !applet.about.is_empty());
    let programs: Vec<_> = shown().map(|a| (a.name.to_owned(), a.about)).collect();
    let mut files = vec![(folder.join("noports.1"), man::overview(&programs, edition))];
    for applet in shown() {
        let help = help_of(&[applet.name]);
        let mut words: Vec<String> = help.commands.iter().map(|row| row.0.clone()).collect();
        words.extend(words_in_notes(&help).into_iter().map(|row| row.0));
        if WITH_SERVICE.contains(&applet.name) {
            words.extend(["install", "uninstall", "status"].map(str::to_owned));
            words.dedup();
        }
        let commands = words
            .into_iter()
            .map(|word| {
                let help = help_of(&[applet.name, &word]);
                (word, help)
            })
            .collect();
        let name = format!("noports-{}", applet.name);
        let page = Page {
            name: name.clone(),
            about: applet.about,
            help,
            commands,
            links: applet.links,
        };
        files.push((folder.join(format!("{name}.1")), page.roff(edition)));
        for link in applet.links {
            files.push((folder.join(format!("{link}.1")), man::link(&name)));
        }
    }
    files
}

/// Words that a program takes and tells about in its notes: `  otp       make a code`.
fn words_in_notes(help: &Help) -> Vec<(String, String)> {
    let row = |line: &String| {
        let (word, about) = line.strip_prefix("  ")?.split_once("  ")?;
        let plain = !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase() || c == '-');
        plain.then(|| (word.to_owned(), about.trim().to_owned()))
    };
    help.notes.iter().filter_map(row).collect()
}

/// Subcommand a program of ours says about itself.
fn help_of(words: &[&str]) -> Help {
    let Ok(own) = env::current_exe() else {
        return Help::default();
    };
    let said = Command::new(own)
        .args(words)
        .arg("--help")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    let text = said.map(|said| said.stdout).unwrap_or_default();
    Help::parse(&String::from_utf8_lossy(&text))
}
