//! The table of generations, a row for each.
//!
//! What its daemons want to hear is for everybody who meets one. The other columns, what its client, daemon and
//! rendezvous say and understand, are for programs that are held to it (feature `held`, for tests):
//! `NOPORTS_GENERATION=v4.0 noports daemon …` behaves as a daemon of 4.0 towards its peers. A release neither has these
//! columns nor looks at that variable.

use crate::np::session::Generation::{self, V3, V4, V4Rc2, V5};

#[cfg(feature = "held")]
use super::habits::{ClientHabits, DaemonHabits, RendezvousHabits, client, daemon, rendezvous};

/// One generation.
#[derive(Debug)]
pub struct Profile {
    /// Its name, then others for it.
    #[cfg(feature = "held")]
    pub names: &'static [&'static str],
    /// How the versions of those of its daemons begin that must be asked in its own words.
    versions: &'static [&'static str],
    /// In whose words sessions are asked for.
    words: Generation,
    /// What its client does, if it has one.
    #[cfg(feature = "held")]
    pub client: Option<ClientHabits>,
    /// What its daemon does.
    #[cfg(feature = "held")]
    pub daemon: DaemonHabits,
    /// What its rendezvous does, if it has one.
    #[cfg(feature = "held")]
    pub rendezvous: Option<RendezvousHabits>,
}

/// Rows of the table; a macro, because one attribute then leaves a whole column out.
macro_rules! generations {
    ($($names:expr, $versions:expr, $words:expr, $client:expr, $daemon:expr, $rendezvous:expr;)*) => {
        &[$(Profile {
            #[cfg(feature = "held")]
            names: &$names,
            versions: &$versions,
            words: $words,
            #[cfg(feature = "held")]
            client: $client,
            #[cfg(feature = "held")]
            daemon: $daemon,
            #[cfg(feature = "held")]
            rendezvous: $rendezvous,
        }),*]
    };
}

/// All of them, oldest first. Release candidate 1 of 4.0 is still of 3.x.
#[rustfmt::skip]
const GENERATIONS: &[Profile] = generations! {
    // names                               versions                        words  client             daemon         rendezvous
    ["v3"],                                ["3.", "4.0.0-rc.1"],           V3,    Some(client::V3),  daemon::V3,     Some(rendezvous::OLD);
    ["v4.0-rc.2", "v4.0.0-rc.2"],          ["4.0.0-rc.2", "4.0.0-rc.3"],   V4Rc2, Some(client::RC2), daemon::RC2,    Some(rendezvous::OLD);
    ["v4.0", "v4"],                        [],                             V4,    Some(client::V4),  daemon::V4,     Some(rendezvous::OLD);
    ["v5.0"],                              [],                             V5,    Some(client::V50), daemon::V50,    Some(rendezvous::V5);
    ["v5.1"],                              [],                             V5,    Some(client::V51), daemon::V51,    Some(rendezvous::V5);
    ["v5.2"],                              [],                             V5,    Some(client::V51), daemon::V52,    Some(rendezvous::V5);
    ["v5.3", "v5.5"],                      [],                             V5,    Some(client::V53), daemon::V53,    Some(rendezvous::V5);
    ["v5.6", "v5"],                        [],                             V5,    Some(client::V56), daemon::V56,    Some(rendezvous::V5);
    ["c"],                                 [],                             V5,    None,              daemon::C,      None;
    ["python"],                            [],                             V4,    None,              daemon::PYTHON, None;
    ["ours"],                              [],                             V5,    Some(client::OURS), daemon::OURS,  Some(rendezvous::OURS);
};

/// The words that a daemon of this version understands, where they are not those of all later ones.
pub fn words_of(version: &str) -> Option<Generation> {
    let is = |beginning: &&str| {
        let behind = version.strip_prefix(*beginning);
        // "4.0.0-rc.2" is not the beginning of 4.0.0-rc.20.
        behind.is_some_and(|behind| {
            beginning.ends_with('.') || !behind.starts_with(|c: char| c.is_ascii_digit())
        })
    };
    let row = GENERATIONS.iter().find(|row| row.versions.iter().any(is))?;
    Some(row.words)
}

/// Names the generation to which a program is held.
#[cfg(feature = "held")]
pub const GENERATION: &str = "NOPORTS_GENERATION";

#[cfg(feature = "held")]
impl Profile {
    /// The generation of this name: `v3`, `v4.0-rc.2`, `v5.2`, also with what follows: `v4.0.5`.
    pub fn named(generation: &str) -> Option<&'static Self> {
        let fits = |name: &&str| {
            let behind = generation.strip_prefix(*name);
            behind.is_some_and(|behind| behind.is_empty() || behind.starts_with(['.', '-']))
        };
        GENERATIONS.iter().find(|row| row.names.iter().any(fits))
    }

    /// What a role does in the generation that the environment names; in ours when it names none.
    ///
    /// # Errors
    /// When it names one that is not known, or that has no such program.
    pub fn of_environment<H: Default>(
        role: impl FnOnce(&Self) -> Option<H>,
    ) -> Result<H, crate::cli::Failure> {
        match std::env::var(GENERATION) {
            Ok(name) if !name.is_empty() => Self::named(&name).and_then(role).ok_or_else(|| {
                crate::cli::Failure::misuse(format!("{GENERATION}={name} is not known"))
            }),
            _ => Ok(H::default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::classic::generation::*;

    #[test]
    fn daemons_that_need_other_words_are_known_by_their_version() {
        for (version, want) in [
            ("3.4.2", Some(V3)),
            ("4.0.0-rc.1", Some(V3)),
            ("4.0.0-rc.2", Some(V4Rc2)),
            ("4.0.0-rc.20", None),
            ("4.0.0-rc.4", None),
            ("4.0.5", None),
            ("5.6.1", None),
            ("0.2.0", None),
            ("", None),
        ] {
            assert_eq!(words_of(version), want, "{version}");
        }
    }

    #[cfg(feature = "held")]
    #[test]
    fn each_generation_has_names() {
        for (name, row) in [
            ("v3", "v3"),
            ("v3.4.2", "v3"),
            ("v4.0-rc.2", "v4.0-rc.2"),
            ("v4.0.0-rc.2", "v4.0-rc.2"),
            ("v4", "v4.0"),
            ("v4.0.5", "v4.0"),
            ("v5.0", "v5.0"),
            ("v5.2.0", "v5.2"),
            ("v5.5", "v5.3"),
            ("v5", "v5.6"),
            ("python", "python"),
        ] {
            let found = Profile::named(name).map(|profile| profile.names[0]);
            assert_eq!(found, Some(row), "{name}");
        }
        for unknown in ["", "v", "5", "v51", "v9", "v30", "v40", "new", "v6"] {
            assert!(Profile::named(unknown).is_none(), "{unknown}");
        }
    }
}
