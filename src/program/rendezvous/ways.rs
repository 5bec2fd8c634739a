//! What the rendezvous understands, and how it can be held to an older generation for tests.

use crate::np::{
    ids::Nonce,
    ports::{Form, Ports},
};

/// What a rendezvous of some generation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ways {
    /// Knows the request that names both ends, and answers with a nonce.
    logins: bool,
    /// Joins sockets by their numbers.
    numbers: bool,
}

/// (first number of the generation, what its rendezvous does)
const GENERATIONS: &[(&str, Ways)] = &[
    ("3", OLD),
    ("4", OLD),
    (
        "5",
        Ways {
            logins: true,
            numbers: false,
        },
    ),
];

const OLD: Ways = Ways {
    logins: false,
    numbers: false,
};

impl Default for Ways {
    /// Everything.
    fn default() -> Self {
        Self {
            logins: true,
            numbers: true,
        }
    }
}

impl Ways {
    /// A generation's: `v3`, `v4`, `v5`, also with what follows (`v5.3`, `v4rc2`) and without the letter.
    pub fn of(generation: &str) -> Option<Self> {
        let rest = generation.strip_prefix('v').unwrap_or(generation);
        let end = rest.find(|c: char| !c.is_ascii_digit());
        let major = &rest[..end.unwrap_or(rest.len())];
        let found = GENERATIONS.iter().find(|(name, _)| *name == major);
        found.map(|(_, ways)| *ways)
    }

    /// The generation's that the environment names; everything when it names none.
    ///
    /// # Errors
    /// When it names one that is not known.
    #[cfg(feature = "held")]
    pub fn of_environment() -> Result<Self, crate::cli::Failure> {
        crate::cli::ways_of_environment(Self::of)
    }

    /// Whether requests of this form are understood.
    pub(super) fn reads(&self, form: Form) -> bool {
        form == Form::Bare || self.logins
    }

    pub(super) fn nonce(&self) -> Nonce {
        match self.numbers {
            true => Nonce::random_numbered(),
            false => Nonce::random(),
        }
    }

    pub(super) fn print(&self, ports: &Ports) -> String {
        match self.logins {
            true => ports.print(),
            false => ports.print_old(),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::program::rendezvous::ways::*;

    #[test]
    fn each_generation_has_its_ways() {
        for (generation, logins, numbers) in [
            ("v3", false, false),
            ("v4", false, false),
            ("v4.0.0-rc.2", false, false),
            ("v4rc2", false, false),
            ("4", false, false),
            ("v5", true, false),
            ("v5.3", true, false),
        ] {
            let want = Some(Ways { logins, numbers });
            assert_eq!(Ways::of(generation), want, "{generation}");
        }
        for unknown in ["", "v", "v9", "v40", "new"] {
            assert_eq!(Ways::of(unknown), None, "{unknown}");
        }
        let all = Ways::default();
        assert!(all.nonce().takes_numbers() && all.reads(Form::Full) && all.reads(Form::Bare));
    }
}
