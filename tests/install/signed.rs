//! Releases that are signed: by whom, with what it is checked, and what happens when it is not.

use ring::signature::{Ed25519KeyPair, KeyPair};

use base64::{Engine, engine::general_purpose::STANDARD};

use crate::install::*;

/// Whoever releases.
struct Signer {
    pair: Ed25519KeyPair,
    id: [u8; 8],
}

impl Signer {
    fn new(seed: u8) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
        Self {
            pair,
            id: [seed; 8],
        }
    }

    fn public(&self) -> String {
        STANDARD.encode([b"Ed", &self.id[..], self.pair.public_key().as_ref()].concat())
    }

    /// As minisign -l does it.
    fn signature(&self, signed: &[u8]) -> String {
        let of_file = self.pair.sign(signed);
        let comment = "noports of a test";
        let second = self
            .pair
            .sign(&[of_file.as_ref(), comment.as_bytes()].concat());
        format!(
            "untrusted comment: of a test\n{}\ntrusted comment: {comment}\n{}\n",
            STANDARD.encode([b"Ed", &self.id[..], of_file.as_ref()].concat()),
            STANDARD.encode(second.as_ref()),
        )
    }
}

impl Place {
    fn sign(&self, signer: &Signer) {
        let sums = fs::read(self.dir.path("www/SHA256SUMS")).unwrap();
        let to = self.dir.path("www/SHA256SUMS.minisig");
        fs::write(to, signer.signature(&sums)).unwrap();
    }

    /// Only busybox, and this program where the machine has it.
    fn with_tool(tool: &str) -> Option<Self> {
        let place = Self::new(Shell::Busybox);
        let all = std::env::var_os("PATH").unwrap();
        let found = std::env::split_paths(&all)
            .map(|folder| folder.join(tool))
            .find(|file| file.exists())?;
        symlink(found, place.dir.path("tools").join(tool)).unwrap();
        Some(place)
    }

    fn remembered(&self) -> Option<String> {
        fs::read_to_string(self.dir.path("prefix/lib/noports/public-key")).ok()
    }
}

/// With each program that can check one; packaging/test.sh installs minisign.
#[test]
fn a_release_with_a_good_signature_is_installed_and_any_other_is_not() {
    let (signer, other) = (Signer::new(7), Signer::new(8));
    let mut with = Vec::new();
    for tool in ["minisign", "signify-openbsd", "openssl"] {
        let Some(place) = Place::with_tool(tool) else {
            continue;
        };
        let key = ["--public-key", &signer.public()];
        place.fails(&key, "minisig");
        place.sign(&signer);
        place.fails(&["--public-key", &other.public()], "is not good");
        let said = place.installs(&key);
        assert!(
            said.contains(&format!("the signature is good, says {tool}")),
            "{said}"
        );
        // An old signature on a new list, and the list of another.
        place.release("1.1.0", "");
        place.fails(&key, "is not good");
        place.sign(&other);
        place.fails(&key, "is not good");
        place.sign(&signer);
        place.installs(&key);
        with.push(tool);
    }
    assert!(with.contains(&"minisign"), "{with:?}");
}

#[test]
fn the_noports_that_is_here_checks_what_comes_next() {
    let signer = Signer::new(7);
    let place = Place::new(Shell::Busybox);
    let here = env!("CARGO_PKG_VERSION");
    place.release_of(here, &format!("#!/bin/sh\nexec '{NOPORTS}' \"$@\"\n"));
    place.sign(&signer);
    let key = ["--public-key", &signer.public()];
    place.fails(&key, "nothing here can check a signature");
    let said = place.installs(&[&key[..], &["--no-signature"]].concat());
    assert!(said.contains("the signature is not looked at"), "{said}");
    assert_eq!(place.remembered(), None);
    place.release("1.0.1", "");
    place.fails(&key, "is not good");
    place.sign(&signer);
    let said = place.installs(&key);
    assert!(said.contains("says the noports that is here"), "{said}");
}

/// The script may come from the server that was taken over, and then names the taker's key.
#[test]
fn the_key_of_the_last_release_counts_until_another_is_named() {
    let (signer, other) = (Signer::new(7), Signer::new(8));
    let place = Place::with_tool("minisign").expect("packaging/test.sh installs minisign");
    place.sign(&signer);
    place.installs(&["--public-key", &signer.public()]);
    assert_eq!(place.remembered().unwrap().trim(), signer.public());
    place.release("1.1.0", "");
    place.sign(&other);
    let script = SCRIPT.replace(
        "\nPUBLIC_KEY=\n",
        &format!("\nPUBLIC_KEY={}\n", other.public()),
    );
    assert_ne!(script, SCRIPT);
    fs::write(place.dir.path("install.sh"), script).unwrap();
    place.fails(&[], "is not good");
    fs::remove_file(place.dir.path("www/SHA256SUMS.minisig")).unwrap();
    place.fails(&[], "minisig");
    place.sign(&other);
    place.installs(&["--public-key", &other.public()]);
    assert_eq!(place.remembered().unwrap().trim(), other.public());
    // An older release, signed in its time, is a downgrade that is said.
    place.release("1.0.5", "");
    place.sign(&other);
    place.fails(&[], "1.0.5 is older than 1.1.0");
}

#[test]
fn an_archive_at_hand_has_its_signature_looked_at_where_there_is_a_key() {
    let signer = Signer::new(7);
    let place = Place::with_tool("minisign").expect("packaging/test.sh installs minisign");
    let archive = place.archive("1.0.0");
    let words = ["--local", &archive, "--public-key", &signer.public()];
    place.fails(&words, "there is no signature");
    place.sign(&signer);
    place.installs(&words);
}

#[test]
fn what_is_no_public_key_is_refused_by_name() {
    let place = Place::new(Shell::Busybox);
    let public = Signer::new(7).public();
    let secret = "untrusted comment: minisign encrypted secret key\nRWRTY0Iy\n";
    fs::write(place.dir.path("noports.key"), secret).unwrap();
    fs::write(place.dir.path("@me_key.atKeys"), "{}".repeat(2000)).unwrap();
    for (key, want) in [
        (place.dir.text("noports.key"), "is a secret key"),
        (place.dir.text("@me_key.atKeys"), "is no public key"),
        ("/no/such/file".to_owned(), "no public key of minisign"),
        (public[..55].to_owned(), "no public key of minisign"),
        (format!("{public}A"), "no public key of minisign"),
        (public.replace("RW", "RU"), "no public key of minisign"),
        (
            format!("RW{}", "$(id)".repeat(11)),
            "no public key of minisign",
        ),
    ] {
        place.fails(&["--public-key", &key], want);
        assert!(!place.bin("noports").exists(), "{key}");
    }
}

/// On Debian signify is a program that puts words under letters, and ends well whatever it is asked.
#[test]
fn another_program_of_the_name_signify_vouches_for_nothing() {
    let signer = Signer::new(7);
    let place = Place::new(Shell::Busybox);
    place.sign(&signer);
    for says in ["echo hello", "exit 0", "echo Not Signature Verified"] {
        place.tool("signify", says);
        let key = ["--public-key", &signer.public()];
        place.fails(&key, "nothing here can check a signature");
    }
}
