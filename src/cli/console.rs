//! Whoever started a program: what they call it, how it answers them, and what they said besides its flags.
//!
//! ```text
//!   argv ──▶ Console ──parse──▶ flags ──▶ story ──▶ finish ──▶ exit code
//!            name, voice, secrets of a classic command line, the file that flags came from
//! ```
//! It is made once, where argv is looked at, and handed down: no program asks the process who it is.

use std::{
    future::Future,
    path::Path,
    pin::Pin,
    process::{ExitCode, Termination},
};

use argh::{ArgsInfo, FromArgs};
use async_global_executor::GlobalExecutorConfig;
use log::LevelFilter;

use super::{
    Failure, Given, HasOutput, Outcome, Phrases, Progress, Voice, classic,
    classic::Meaning,
    config, exit,
    grammar::{Grammar, Program},
    help,
    hidden::{HiddenValues, takes_secrets},
    misuse::{self, Correction, replayed, unknown_variables},
    print_err, print_out,
    settings::{Origin, Setting, Settings},
    words::CommandLine,
};

/// Whoever started the program, and how it answers them.
#[derive(Clone, Debug, Default)]
pub struct Console {
    name: String,
    voice: Option<Voice>,
    given: Given,
    /// What it was told, and where.
    settings: Settings,
    programs: &'static [Program],
    /// Called by a classic name.
    linked: bool,
    /// Scripts read what happens: failures are one line of JSON, too.
    json: bool,
    /// What no message repeats.
    hidden: HiddenValues,
}

/// Why a program ends before it begins.
enum Early {
    /// It was asked what it can do.
    Help(String),
    /// It was asked for something that cannot be.
    Misuse(Failure),
}

impl From<Failure> for Early {
    fn from(failure: Failure) -> Self {
        Self::Misuse(failure)
    }
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
            linked: true,
            ..Self::new(link).heard(words)
        };
        match classic::understand(link, words) {
            Ok(Meaning::Run(run)) => {
                run.remarks.iter().for_each(|remark| print_err(remark));
                console.name = format!("noports {}", run.program);
                console.given = run.given;
                console.settings = run.settings;
                console.heed_inherited();
                Ok((console, run.program, run.words))
            }
            Ok(Meaning::Tell(text)) => {
                print_out(&text);
                Err(ExitCode::from(exit::FINE))
            }
            Err(failure) => Err(console.finish(false, Err(failure))),
        }
    }

    /// For somebody who typed this; it is read later.
    #[must_use]
    pub fn heard(mut self, words: &[&str]) -> Self {
        self.listen(words);
        self
    }

    fn listen(&mut self, words: &[&str]) {
        let mut flags = words.iter().take_while(|word| **word != "--");
        self.json |= flags.any(|word| *word == "--json");
        self.hidden.add(words, takes_secrets(&self.name));
    }

    /// For one of these programs.
    #[must_use]
    pub fn among(mut self, programs: &'static [Program]) -> Self {
        self.programs = programs;
        self
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

    /// All programs of the executable.
    pub fn programs(&self) -> &'static [Program] {
        self.programs
    }

    /// What help calls the program.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What came besides flags.
    pub fn given(&self) -> &Given {
        &self.given
    }

    /// The command that was typed, with these flags, and without what was typed for them.
    pub fn again(&self, flags: &[&str]) -> String {
        let is_given_anew = |word: &str| word.starts_with("--") && flags.contains(&word);
        let mut words: Vec<&str> = Vec::new();
        let mut typed = self.settings.typed.iter().map(String::as_str).peekable();
        while let Some(word) = typed.next() {
            if word == "--" {
                words.extend(flags.iter().copied().chain([word]).chain(typed));
                return replayed(&self.name, &words);
            } else if is_given_anew(word) {
                typed.next_if(|value| !value.starts_with("--"));
            } else if !word.split('=').next().is_some_and(is_given_anew) {
                words.push(word);
            }
        }
        replayed(&self.name, &[&words, flags].concat())
    }

    /// A hint that is nothing but flags becomes the whole command.
    fn whole(&self, hint: String) -> String {
        let flags: Vec<&str> = hint.split(' ').collect();
        let is_value = |word: &&str| !word.starts_with("--");
        let is_prose = flags.windows(2).any(|two| two.iter().all(is_value));
        let is_flags = hint.starts_with("--") && !hint.contains([';', '=']) && !is_prose;
        let is_bare = self.voice.is_some() || takes_secrets(&self.name);
        if is_bare || !is_flags {
            return hint;
        }
        self.again(&flags)
    }

    /// The rendezvous of our examples is in nobody's own atDirectory.
    fn at_home(&self, hint: String) -> String {
        let mut inherited = self.settings.inherited.iter();
        let mut typed = self.settings.typed.iter();
        let is_own = inherited.any(|setting| setting.name == "root")
            || typed.any(|word| word.split('=').next() == Some("--root"));
        if is_own {
            hint.replace("@rv_eu", "@my_rendezvous")
        } else {
            hint
        }
    }

    /// Whether a classic program is to be imitated, its failures and progress, too.
    pub fn is_classic(&self) -> bool {
        self.voice.is_some()
    }

    /// Whether it was called by a classic name, also by one that has nothing to say to people.
    pub fn is_linked(&self) -> bool {
        self.linked
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
    pub fn parse<T: FromArgs + ArgsInfo>(&mut self, words: &[&str]) -> Result<T, ExitCode> {
        self.listen(words);
        let read = if self.is_classic() {
            // Our words, made of classic ones, with their files read already.
            self.build(words)
        } else {
            self.read(words)
        };
        read.map_err(|early| match early {
            Early::Help(text) => {
                print_out(&text);
                ExitCode::from(exit::FINE)
            }
            Early::Misuse(failure) => self.end(false, failure),
        })
    }

    fn read<T: FromArgs + ArgsInfo>(&mut self, words: &[&str]) -> Result<T, Early> {
        self.settings.typed = words.iter().map(|&word| word.to_owned()).collect();
        let mut grammar = self.grammar(Grammar::of::<T>(&self.name));
        let (mut below, mut rest) = (None, words);
        if grammar.needs_word() {
            let (word, its) = self.word_below(&grammar, words)?;
            (grammar, below, rest) = (its, Some(word), words.get(1..).unwrap_or_default());
        }
        let name = self.program().map_or("", |program| program.name);
        let has_file = config::has_file(name, below) && self.name.split(' ').count() == 2;
        if has_file {
            grammar = grammar.with_file();
        }
        let mut line = self.line(&grammar, name, has_file, rest)?;
        if line.help {
            let files = if has_file {
                config::help(name)
            } else {
                String::new()
            };
            return Err(Early::Help(help::text(&grammar, &files)));
        }
        if !line.has("quiet") {
            for remark in unknown_variables() {
                print_err(&format!("{}: {remark}", self.name));
            }
        }
        self.inherit(name, &grammar, has_file, &mut line)?;
        let correction = self.correction(&grammar, name);
        if !self.given.classic {
            correction.check_atsigns(&line, &self.settings)?;
            correction.check_devices(rest, &line)?;
            // A ProxyCommand's stderr is the screen of somebody waiting for a shell.
            if !line.has("quiet") && !line.has("stdio") {
                for remark in correction.folded(&line) {
                    print_err(&format!("{}: {remark}", self.name));
                }
            }
        }
        correction.complete(rest, &line, &self.settings)?;
        let canonical = self.with_those_of_files(line).canonical();
        let words = below
            .into_iter()
            .chain(canonical.iter().map(String::as_str));
        self.build(&words.collect::<Vec<_>>())
    }

    /// With the words that a program itself looks for.
    fn grammar(&self, grammar: Grammar) -> Grammar {
        match self.program() {
            Some(program) if self.name == format!("noports {}", program.name) => {
                grammar.with_words(program)
            }
            _ => grammar,
        }
    }

    /// The words taken apart, or what may have been meant.
    fn line(
        &mut self,
        grammar: &Grammar,
        name: &'static str,
        has_file: bool,
        words: &[&str],
    ) -> Result<CommandLine, Failure> {
        CommandLine::read(grammar, words).map_err(|bad| {
            self.json |= has_file && config::asks_for_json(name, grammar, words);
            self.correction(grammar, name).failure(words, &bad)
        })
    }

    fn correction<'a>(&self, grammar: &'a Grammar, program: &'static str) -> Correction<'a> {
        Correction {
            grammar,
            programs: self.programs,
            program,
        }
    }

    /// Flags of a file stand in front of what was typed. Those of the environment have a place where they are looked up.
    fn with_those_of_files(&self, mut line: CommandLine) -> CommandLine {
        let is_of_file = |setting: &&Setting| matches!(setting.origin, Origin::File(..));
        let of_file = self.settings.inherited.iter().filter(is_of_file);
        let mut all: Vec<_> = of_file.cloned().collect();
        all.append(&mut line.settings);
        CommandLine {
            settings: all,
            ..line
        }
    }

    /// Which of our programs it is.
    fn program(&self) -> Option<&'static Program> {
        let own = self.name.split(' ').nth(1)?;
        self.programs.iter().find(|program| program.name == own)
    }

    /// The word that has to stand first, and what follows it.
    fn word_below<'a>(
        &self,
        grammar: &Grammar,
        words: &[&'a str],
    ) -> Result<(&'a str, Grammar), Early> {
        let first = words.first().copied();
        match first {
            Some("--help" | "-h" | "help") => return Err(Early::Help(help::text(grammar, ""))),
            Some(word) if word.starts_with("--help=") => {
                return Err(misuse::value_of_help(&grammar.name).into());
            }
            Some(word) => {
                if let Some(below) = grammar.below(word) {
                    return Ok((word, below));
                }
            }
            None => {}
        }
        Err(misuse::no_word(grammar, words).into())
    }

    /// What stands in a file or in the environment.
    fn inherit(
        &mut self,
        program: &str,
        grammar: &Grammar,
        has_file: bool,
        line: &mut CommandLine,
    ) -> Result<(), Failure> {
        self.settings.empty = config::empty_variables(grammar);
        let (settings, wrong) = if has_file {
            let given = &mut self.given;
            let mut yaml = |path: &Path, text: &str| classic::yaml_settings(path, text, given);
            config::inherited(program, grammar, line, &mut yaml)
        } else {
            let mut variables = config::variables(grammar);
            variables.retain(|setting| !line.has(&setting.name));
            (variables, None)
        };
        self.settings.inherited = settings;
        self.heed_inherited();
        wrong.map_or(Ok(()), Err)
    }

    /// What stands in files and variables decides how it answers, too.
    fn heed_inherited(&mut self) {
        for setting in &self.settings.inherited {
            self.json |= setting.name == "json";
            let flag = format!("--{}", setting.name);
            let value = setting.value.as_deref().unwrap_or_default();
            self.hidden.add(&[&flag, value], false);
        }
    }

    /// Lets argh make the struct, from words that are each a flag, a value or an argument.
    fn build<T: FromArgs>(&self, words: &[&str]) -> Result<T, Early> {
        let name: Vec<&str> = self.name.split_whitespace().collect();
        T::from_args(&name, words).map_err(|early| {
            let text = early.output.trim_end();
            if early.status.is_ok() {
                return Early::Help(text.to_owned());
            }
            let text = self.with_place(text);
            let told = if self.is_classic() {
                text
            } else {
                misuse::plain(&text, words)
            };
            Failure::misuse(told)
                .hint(format!("{} --help", self.name))
                .into()
        })
    }

    fn with_place(&self, message: &str) -> String {
        match self.settings.place(message) {
            Some(place) => format!("{place}: {message}"),
            None => message.to_owned(),
        }
    }

    /// Ends a program: prints the failure, if there is one, and gives the exit code.
    /// With `json` the failure is also one JSON line on stdout.
    pub fn finish(&self, json: bool, result: Result<(), Failure>) -> ExitCode {
        match result {
            Ok(()) => ExitCode::from(exit::FINE),
            Err(mut failure) => {
                failure.message = match self.settings.place(&failure.message) {
                    Some(place) if failure.code == exit::MISUSE => {
                        format!("{place}: {}", failure.message)
                    }
                    _ if self.is_classic() => failure.message,
                    _ => self.settings.with_origin(&failure.message),
                };
                self.end(json, failure)
            }
        }
    }

    fn end(&self, json: bool, mut failure: Failure) -> ExitCode {
        if failure.code == exit::MISUSE {
            failure.message = self.settings.with_empty(&failure);
        }
        failure.hint = failure.hint.map(|hint| self.at_home(self.whole(hint)));
        let failure = failure.veiled(&self.hidden);
        // Every classic program ends so.
        let is_misuse = failure.code == exit::MISUSE && self.given.classic;
        let ends_with = if is_misuse || self.voice.is_some() {
            exit::FAILED
        } else {
            failure.code
        };
        let as_json = (json || self.json).then(|| failure.to_json(ends_with));
        let failure = failure.harmless();
        if let Some(line) = as_json {
            print_out(&line);
        }
        if let Some(voice) = &self.voice {
            return voice.fail(&failure);
        }
        print_err(&format!("{}: {failure}", self.name));
        if let Some(hint) = &failure.hint {
            print_err(&format!("  hint: {hint}"));
        }
        ExitCode::from(ends_with)
    }

    /// Looks at a service's arguments with `look`, which starts nothing, and says what would keep it from starting.
    pub fn verify<T: FromArgs + ArgsInfo>(
        self,
        words: &[&str],
        look: impl FnOnce(&Self, T) -> Result<(), Failure>,
    ) -> ExitCode {
        self.act(words, |console, args| {
            console.finish(false, look(console, args))
        })
    }

    /// Reads the arguments, and does with them what the program is for.
    pub fn act<T: FromArgs + ArgsInfo>(
        mut self,
        words: &[&str],
        act: impl FnOnce(&Self, T) -> ExitCode,
    ) -> ExitCode {
        self.parse(words)
            .map_or_else(|code| code, |args| act(&self, args))
    }

    /// What every program does first: reads its arguments, starts the log, and keeps what is in memory from others.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn begin<T>(&mut self, words: &[&str], level: LevelFilter) -> Result<T, ExitCode>
    where
        T: FromArgs + ArgsInfo + HasOutput,
    {
        let args: T = self.parse(words)?;
        args.output().start(level);
        Ok(args)
    }

    /// A program whole: [`Self::begin`], its story on this many threads, and its end.
    pub fn start<T, R: Termination>(
        self,
        words: &[&str],
        level: LevelFilter,
        threads: usize,
        story: impl AsyncFnOnce(&Self, T) -> Result<R, Failure>,
    ) -> ExitCode
    where
        T: FromArgs + ArgsInfo + HasOutput,
    {
        let story = async |console: &Self, args, ()| story(console, args).await;
        self.serve(words, level, threads, |_, _| Ok(()), story)
    }

    /// A program that serves others: [`Self::begin`]; then `prepare`, in which everything that can be wrong is found and the
    /// program confines itself, before there is a second thread; its story on this many threads, and its end.
    pub fn serve<T, P, R: Termination>(
        mut self,
        words: &[&str],
        level: LevelFilter,
        threads: usize,
        prepare: impl FnOnce(&Self, &T) -> Result<P, Failure>,
        story: impl AsyncFnOnce(&Self, T, P) -> Result<R, Failure>,
    ) -> ExitCode
    where
        T: FromArgs + ArgsInfo + HasOutput,
    {
        let args: T = match self.begin(words, level) {
            Ok(args) => args,
            Err(code) => return code,
        };
        let json = args.output().json;
        match prepare(&self, &args) {
            Ok(prepared) => self.tell_story(json, threads, story(&self, args, prepared)),
            Err(failure) => self.finish(json, Err(failure)),
        }
    }

    /// [`Self::run`] and [`Self::finish`]. A client ends under a classic name as scripts know it when it is told to end.
    pub fn tell_story<R: Termination>(
        &self,
        json: bool,
        threads: usize,
        story: impl Future<Output = Result<R, Failure>>,
    ) -> ExitCode {
        let story = async { story.await.map(Termination::report) };
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
