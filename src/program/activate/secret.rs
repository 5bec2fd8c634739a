//! Where the activation secret comes from, and where it must not.

use crate::cli::{Failure, SecretSource};

/// The one-time secret of an atSign.
pub(super) const SECRET: SecretSource = SecretSource {
    what: "secret",
    flag: "--secret-file",
    variable: "NOPORTS_SECRET",
};

/// Options of this program that take a value.
const WITH_VALUE: [&str; 5] = [
    "--secret-file",
    "--keys",
    "--root",
    "--ca",
    "--passphrase-file",
];

/// Refuses command lines that seem to hold the secret, without repeating it.
pub(super) fn refuse_secrets(args: &[&str]) -> Result<(), Failure> {
    SECRET.refuse_in(args, &WITH_VALUE, &["--secret", "--cram", "-c"], 1)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crate::cli::exit;
    use crate::program::activate::secret::*;

    #[test]
    fn a_secret_in_the_command_line_is_refused_and_never_repeated() {
        for args in [
            &["@alice", "--secret", "TOPSECRET"][..],
            &["@alice", "--secret=TOPSECRET"],
            &["@alice", "-c", "TOPSECRET"],
            &["@alice", "-cTOPSECRET"],
            &["@alice", "--cramkey", "TOPSECRET"],
            &["@alice", "TOPSECRET"],
            &["TOPSECRET", "--json", "@alice"],
            &["@alice", "--root", "localhost:6400", "TOPSECRET"],
            &["@alice", "--pass=TOPSECRET"],
        ] {
            let failure = refuse_secrets(args).unwrap_err();
            let told = format!("{failure} {:?}", failure.hint);
            assert!(!told.contains("TOPSECRET"), "{args:?}: {told}");
            assert_eq!(failure.code, exit::MISUSE, "{args:?}");
            assert!(failure.hint.is_some(), "{args:?}");
        }
    }

    #[test]
    fn honest_command_lines_pass() {
        for args in [
            &["@alice"][..],
            &["@alice", "--secret-file", "s", "--json", "-q"],
            &[
                "--root",
                "localhost:6400",
                "--ca",
                "ca.pem",
                "--ca",
                "b.pem",
                "alice",
            ],
            &["@alice", "--secret-file=s", "--keys=k"],
            &["--help"],
        ] {
            assert_eq!(refuse_secrets(args), Ok(()), "{args:?}");
        }
    }
}
