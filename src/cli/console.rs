//! Whoever started a program: what they call it, how it answers them, and what they said besides its flags.
//!
//! ```text
//!   argv ──▶ Console ──parse──▶ flags ──▶ story ──▶ finish ──▶ exit code
//!            name, voice, secrets of a classic command line, the file that flags came from
//! ```
//! It is made once, where argv is looked at, and handed down: no program asks the process who it is.

use std::{future::Future, path::Path, pin::Pin, process::ExitCode};

use argh::FromArgs;
use async_global_executor::GlobalExecutorConfig;

use super::{
    Failure, Given, Outcome, Phrases, Progress, Voice, classic,
    classic::Meaning,
    config::{self, Origin},
    exit, print_err, print_out,
};

/// Whoever started the program, and how it answers them.
#[derive(Clone, Debug, Default)]
pub struct Console {
    name: String,
    voice: Option<Voice>,
    given: Given,
    /// The file that some of the flags came from.
    origin: Option<Origin>,
}

impl Console {
    /// For a program that help calls `name`, word by word: `noports activate`.
    pub fn new(name: impl Into<String>) -> Self {
        let name = name.into();
        Self {
            name,
            ..Self::default()
        }
    }

    /// For a program that was called by a classic name; which of ours that is, and its words.
    ///
    /// # Errors
    /// `Err` holds the exit code when there is nothing left to do: something was told, or a misuse named.
    pub fn classic(
        link: &'static str,
        words: &[&str],
    ) -> Result<(Self, &'static str, Vec<String>), ExitCode> {
        let mut console = Self {
            voice: classic::voice(link, words),
            ..Self::new(link)
        };
        match classic::understand(link, words) {
            Ok(Meaning::Run(run)) => {
                run.remarks.iter().for_each(|remark| print_err(remark));
                console.name = format!("noports {}", run.program);
                console.given = run.given;
                console.origin = run.origin;
                Ok((console, run.program, run.words))
            }
            Ok(Meaning::Tell(text)) => {
                print_out(&text);
                Err(ExitCode::from(exit::FINE))
            }
            Err(failure) => Err(console.finish(false, Err(failure))),
        }
    }

    /// For a word of the program's that has flags of its own.
    #[must_use]
    pub fn word(mut self, word: &str) -> Self {
        self.name = format!("{} {word}", self.name);
        self
    }

    /// With what a classic command line holds besides flags.
    #[must_use]
    pub fn with(mut self, given: Given) -> Self {
        self.given = given;
        self
    }

    /// What help calls the program.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What came besides flags.
    pub fn given(&self) -> &Given {
        &self.given
    }

    /// Whether a classic program is to be imitated, its failures and progress, too.
    pub fn is_classic(&self) -> bool {
        self.voice.is_some()
    }

    /// Tells on stderr how far the program is.
    pub fn progress(&self, quiet: bool) -> Progress {
        match self.voice {
            Some(_) => Progress::classic_only(quiet),
            None => Progress::new(quiet),
        }
    }

    /// Prints a result on stdout, for whoever reads it.
    pub fn tell(&self, json: bool, outcome: Outcome) {
        outcome.print(json, self.given.classic);
    }

    /// The phrase that was given, else what [`Phrases::new`] finds.
    ///
    /// # Errors
    /// As [`Phrases::new`].
    pub fn phrases(&self, file: Option<&Path>) -> Result<Phrases, Failure> {
        self.given.phrases(file)
    }

    /// Reads the program's arguments, and those of its file of flags.
    ///
    /// # Errors
    /// `Err` holds the exit code when there is nothing left to do: help was printed, or the misuse named.
    pub fn parse<T: FromArgs>(&mut self, args: &[&str]) -> Result<T, ExitCode> {
        let name = self.name.clone();
        let name: Vec<&str> = name.split_whitespace().collect();
        let mut args: Vec<String> = args.iter().map(|&word| word.to_owned()).collect();
        // A classic program has read its own files already.
        if !self.is_classic()
            && let Err(failure) = self.extend::<T>(&name, &mut args)
        {
            return Err(self.finish(false, Err(failure)));
        }
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        T::from_args(&name, &args).map_err(|early| {
            let text = early.output.trim_end();
            if early.status.is_err() {
                return self.refuse(text);
            }
            let files = match self.voice {
                Some(_) => String::new(),
                None => config::help(&name, &args),
            };
            print_out(&format!("{text}{files}"));
            ExitCode::from(exit::FINE)
        })
    }

    fn extend<T: FromArgs>(
        &mut self,
        name: &[&str],
        args: &mut Vec<String>,
    ) -> Result<(), Failure> {
        let given = &mut self.given;
        let mut yaml = |path: &Path, text: &str| classic::yaml_settings(path, text, given);
        self.origin = config::extend::<T>(name, args, &mut yaml)?;
        Ok(())
    }

    /// What argh has to say against the command line.
    fn refuse(&self, text: &str) -> ExitCode {
        let text = self.with_place(text);
        if let Some(voice) = &self.voice {
            return voice.misuse(&text);
        }
        let name = &self.name;
        print_err(&format!("{name}: {text}"));
        print_err(&format!("  hint: {name} --help tells what is possible"));
        ExitCode::from(exit::MISUSE)
    }

    fn with_place(&self, message: &str) -> String {
        let place = self.origin.as_ref().and_then(|file| file.place(message));
        match place {
            Some(place) => format!("{place}: {message}"),
            None => message.to_owned(),
        }
    }

    /// Ends a program: prints the failure, if there is one, and gives the exit code.
    /// With `json` the failure is also one JSON line on stdout.
    pub fn finish(&self, json: bool, result: Result<(), Failure>) -> ExitCode {
        let Err(mut failure) = result else {
            return ExitCode::from(exit::FINE);
        };
        if failure.code == exit::MISUSE {
            failure.message = self.with_place(&failure.message);
        }
        if let Some(voice) = &self.voice {
            return voice.fail(&failure);
        }
        print_err(&format!("{}: {failure}", self.name));
        if let Some(hint) = &failure.hint {
            print_err(&format!("  hint: {hint}"));
        }
        if json {
            print_out(&failure.to_json());
        }
        ExitCode::from(failure.code)
    }

    /// Looks at a service's arguments with `look`, which starts nothing, and says what would keep it from starting.
    pub fn verify<T: FromArgs>(
        mut self,
        words: &[&str],
        look: impl FnOnce(&Self, T) -> Result<(), Failure>,
    ) -> ExitCode {
        match self.parse(words) {
            Ok(args) => self.finish(false, look(&self, args)),
            Err(code) => code,
        }
    }

    /// [`Self::run`] and [`Self::finish`] for a client, which under a classic name ends as scripts know it when it is told
    /// to end.
    pub fn run_client<F>(&self, json: bool, threads: usize, story: F) -> ExitCode
    where
        F: Future<Output = Result<ExitCode, Failure>>,
    {
        let story = async {
            match &self.voice {
                Some(voice) => voice.until_told(story).await,
                None => story.await,
            }
        };
        match self.run(threads, story) {
            Ok(code) => code,
            Err(failure) => self.finish(json, Err(failure)),
        }
    }

    /// Runs a program's story on this many executor threads. Call it before anything else touches the
    /// runtime: its size is fixed by the first use.
    pub fn run<F: Future>(&self, threads: usize, story: F) -> F::Output {
        let threads = threads.max(1);
        async_global_executor::init_with_config(
            GlobalExecutorConfig::default()
                .with_min_threads(threads)
                .with_max_threads(threads),
        );
        // One type for all programs: the runtime's own loop is compiled once.
        let story: Pin<Box<dyn Future<Output = _> + '_>> = Box::pin(story);
        async_std::task::block_on(story)
    }
}
