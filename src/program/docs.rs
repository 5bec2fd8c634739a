//! `noports docs`: manual pages and completions, from the data that `--help` is made of.
//!
//! ```text
//!   PROGRAMS ─▶ Grammar ─┬─▶ man                 roff, one page per program
//!   classic tables ──────┴─▶ complete ◀─ values   what can come next, and which names this machine knows
//!   bash, zsh, fish: scripts that ask `noports docs complete WORD …`
//! ```

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use argh::{ArgsInfo, FromArgs};

use crate::{
    cli::{
        Console, Failure, config, exit,
        grammar::{Grammar, Program},
        print_out,
    },
    sys::{out, paths},
    text::{calendar, terminal::harmless},
};

use man::Edition;

mod complete;
mod man;
mod roff;
mod values;

const BASH: &str = include_str!("../../packaging/completions/noports.bash");
const ZSH: &str = include_str!("../../packaging/completions/_noports");
const FISH: &str = include_str!("../../packaging/completions/noports.fish");

/// Write manual pages, and completions for shells.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(
    example = "{command_name} all /usr/local/share",
    example = "{command_name} bash > /etc/bash_completion.d/noports",
    note = "There is no --json here: what is printed is paths, one a line, or a script for\na shell."
)]
pub(crate) struct Args {
    #[argh(subcommand)]
    what: Subcommand,
}

#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand)]
enum Subcommand {
    Man(Man),
    Bash(Bash),
    Zsh(Zsh),
    Fish(Fish),
    All(All),
}

/// Write the manual pages into a folder, and print their paths.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(
    subcommand,
    name = "man",
    example = "{command_name} /usr/local/share/man/man1"
)]
struct Man {
    /// the folder
    #[argh(positional)]
    dir: PathBuf,
}

/// Print the completions for bash.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "bash")]
struct Bash {}

/// Print the completions for zsh.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "zsh")]
struct Zsh {}

/// Print the completions for fish.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "fish")]
struct Fish {}

/// Write everything below a folder such as /usr/share, where man and the shells look, and print the paths.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "all", example = "{command_name} /usr/local/share")]
struct All {
    /// the folder
    #[argh(positional)]
    dir: PathBuf,
}

/// The program.
pub fn main(mut console: Console, words: &[&str]) -> ExitCode {
    if let Some(("complete", words)) = words.split_first().map(|(first, rest)| (*first, rest)) {
        let safe = complete::candidates(console.programs(), words)
            .into_iter()
            .filter(complete::is_safe);
        for (word, about) in safe {
            print_out(harmless(&format!("{word}\t{about}")).trim_end());
        }
        return ExitCode::from(exit::FINE);
    }
    let args: Args = match console.parse(words) {
        Ok(args) => args,
        Err(code) => return code,
    };
    let print = |script| out::text(script).map_err(|why| Failure::plain(why.to_string()));
    let done = match args.what {
        Subcommand::Man(args) => write(pages(console.programs(), &args.dir)),
        Subcommand::Bash(_) => print(BASH),
        Subcommand::Zsh(_) => print(ZSH),
        Subcommand::Fish(_) => print(FISH),
        Subcommand::All(args) => write(everything(console.programs(), &args.dir)),
    };
    console.finish(false, done)
}

fn write(files: Vec<(PathBuf, String)>) -> Result<(), Failure> {
    for (file, text) in files {
        let folder = file.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)
            .map_err(|why| Failure::plain(format!("cannot make {}: {why}", folder.display())))?;
        paths::replace(&file, text.as_bytes(), 0o644)
            .map_err(|why| Failure::plain(why.to_string()))?;
        print_out(&harmless(&file.display().to_string()));
    }
    Ok(())
}

fn everything(programs: &'static [Program], share: &Path) -> Vec<(PathBuf, String)> {
    let mut files = pages(programs, &share.join("man/man1"));
    for (path, text) in [
        ("bash-completion/completions/noports", BASH),
        ("zsh/site-functions/_noports", ZSH),
        ("fish/vendor_completions.d/noports.fish", FISH),
    ] {
        files.push((share.join(path), text.to_owned()));
    }
    // bash looks for a file of the command's own name.
    for link in programs.iter().flat_map(|applet| applet.links) {
        let file = share.join("bash-completion/completions").join(link);
        files.push((file, ". \"${BASH_SOURCE[0]%/*}/noports\"\n".to_owned()));
    }
    files
}

fn pages(programs: &'static [Program], folder: &Path) -> Vec<(PathBuf, String)> {
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
    let mut files = vec![(folder.join("noports.1"), man::overview(programs, edition))];
    for program in programs.iter().filter(|program| !program.about.is_empty()) {
        let name = format!("noports-{}", program.name);
        files.push((
            folder.join(format!("{name}.1")),
            man::page(program, edition),
        ));
        for link in program.links {
            files.push((
                folder.join(format!("{link}.1")),
                man::classic_page(programs, link, program, edition),
            ));
        }
    }
    files
}

/// Of a program, or of this word of it.
fn grammar(program: &Program, word: Option<&str>) -> Option<Grammar> {
    let grammar = match word {
        None => Some(Grammar::of_program(program)),
        Some(word) => Grammar::of_word(program, word),
    }?;
    Some(if config::has_file(program.name, word) {
        grammar.with_file()
    } else {
        grammar
    })
}
