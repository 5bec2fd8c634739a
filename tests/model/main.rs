//! Checks the models: what must hold holds, and every planted fault is found by the query that is there for it.
//!
//! A fault is one change of a model's text, so that it cannot grow away from the model.

use std::{env, fs, path::PathBuf, process::ExitCode};

/// A model's text with something changed, and what then has an attack.
struct Case {
    name: &'static str,
    model: &'static str,
    /// Each stands exactly once in the model.
    changes: &'static [(&'static str, &'static str)],
    /// The beginnings of the queries that fail, and no others do.
    attacked: &'static [&'static str],
}

const HANDSHAKE: &str = include_str!("handshake.vp");
const DOWNGRADE: &str = include_str!("downgrade.vp");

const KEYS: &str = "equivalence? up_c, up_d";
const QUESTION: &str = "confidentiality? question";
const REPLY: &str = "confidentiality? reply";
const FROM_DEVICE: &str = "authentication? Device -> Client: down";

/// The answer says nothing of what the device can do.
const UNREPEATED: &[(&str, &str)] = &[
    (
        "SIGN(sk_device, CONCAT(sid, asked, can))",
        "SIGN(sk_device, CONCAT(sid, asked))",
    ),
    (
        "SIGNVERIF(pk_device, CONCAT(sid, asked, can), answer_sig)",
        "SIGNVERIF(pk_device, CONCAT(sid, asked), answer_sig)",
    ),
];

const CASES: [Case; 11] = [
    Case {
        name: "the handshake",
        model: HANDSHAKE,
        changes: &[],
        attacked: &[],
    },
    Case {
        name: "ML-KEM's private key becomes known later",
        model: HANDSHAKE,
        changes: &[("leaks sk_client", "leaks sk_client, dk")],
        attacked: &[],
    },
    // The bytes stay secret. The same request given to a second session of the device has other keys, and that is why a daemon
    // answers a request once.
    Case {
        name: "X25519's secrets become known later",
        model: HANDSHAKE,
        changes: &[
            ("leaks sk_client", "leaks sk_client, x"),
            ("leaks sk_device", "leaks sk_device, y"),
        ],
        attacked: &[KEYS],
    },
    // Nothing could help; shows that a secret is asked for that can be lost.
    Case {
        name: "both become known later",
        model: HANDSHAKE,
        changes: &[("leaks sk_client", "leaks sk_client, x, dk")],
        attacked: &[QUESTION, REPLY],
    },
    Case {
        name: "fault: the ML-KEM key is not signed",
        model: HANDSHAKE,
        changes: &[
            ("request = CONCAT(sid, gx, ek)", "request = CONCAT(sid, gx)"),
            (
                "request_d = CONCAT(sid, gx, ek)",
                "request_d = CONCAT(sid, gx)",
            ),
        ],
        attacked: &[KEYS],
    },
    Case {
        name: "fault: the answer is bound to no request",
        model: HANDSHAKE,
        changes: &[
            ("answer = CONCAT(sid, gy, ct)", "answer = CONCAT(gy, ct)"),
            (
                "answer_c = CONCAT(sid, gy, ct)",
                "answer_c = CONCAT(gy, ct)",
            ),
            ("(parties_c, HASH(request), ", "(parties_c, "),
            ("(parties_d, HASH(request_d), ", "(parties_d, "),
        ],
        attacked: &[KEYS],
    },
    Case {
        name: "fault: the client does not verify the answer",
        model: HANDSHAKE,
        changes: &[("_ = SIGNVERIF(pk_device, answer_c, answer_sig)?", "")],
        attacked: &[QUESTION, FROM_DEVICE, KEYS],
    },
    Case {
        name: "no downgrade of a device that is known",
        model: DOWNGRADE,
        changes: &[],
        attacked: &[],
    },
    Case {
        name: "no downgrade of a device that is met for the first time",
        model: DOWNGRADE,
        changes: &[("_ = ASSERT(can, remembered)?", "")],
        attacked: &[],
    },
    Case {
        name: "no downgrade of a known device whose answer repeats nothing",
        model: DOWNGRADE,
        changes: UNREPEATED,
        attacked: &[],
    },
    Case {
        name: "fault: what a device offers is not remembered, and not repeated",
        model: DOWNGRADE,
        changes: &[
            UNREPEATED[0],
            UNREPEATED[1],
            ("_ = ASSERT(can, remembered)?", ""),
        ],
        attacked: &["equivalence? taken, offered"],
    },
];

fn main() -> ExitCode {
    let folder = env::args().nth(1).map_or_else(env::temp_dir, PathBuf::from);
    verifpal::set_verbosity(verifpal::Verbosity::Silent);
    let (mut right, mut queries) = (0, 0);
    for (number, case) in CASES.iter().enumerate() {
        let file = folder.join(format!("{number}.vp"));
        match case.check(&file) {
            Ok(count) => {
                right += 1;
                queries += count;
                println!("as expected  {}", case.name);
            }
            Err(why) => println!("NOT          {}: {why}", case.name),
        }
    }
    if right < CASES.len() {
        println!(
            "the model does not hold: {} of {} cases",
            CASES.len() - right,
            CASES.len()
        );
        return ExitCode::FAILURE;
    }
    println!("model checked: {right} cases, {queries} queries, each to the end of its search");
    ExitCode::SUCCESS
}

impl Case {
    /// How many queries there were, or what is not as it should be.
    fn check(&self, file: &std::path::Path) -> Result<usize, String> {
        let mut text = self.model.to_owned();
        for (old, new) in self.changes {
            if text.matches(old).count() != 1 {
                return Err(format!("{old:?} is not there once"));
            }
            text = text.replace(old, new);
        }
        fs::write(file, text).map_err(|why| format!("{}: {why}", file.display()))?;
        let verified = verifpal::verify(&file.display().to_string());
        let (results, _) = verified.map_err(|why| why.to_string())?;
        let mut missing = self.attacked.to_vec();
        for result in &results {
            let query = result.query.to_string();
            if !result.envelope.exhausted() {
                return Err(format!("{query}: {}", result.envelope.summary()));
            }
            let expected = missing.iter().position(|start| query.starts_with(start));
            match (result.resolved, expected) {
                (true, Some(at)) => drop(missing.remove(at)),
                (false, None) => {}
                (true, None) => return Err(format!("{query} has an attack:{}", result.summary)),
                (false, Some(_)) => return Err(format!("no attack on {query} was found")),
            }
        }
        if results.is_empty() || !missing.is_empty() {
            return Err(format!("no query {missing:?}"));
        }
        Ok(results.len())
    }
}
