//! The JSON of enrolments: what the server answers, as the client reads it, and what a client asks for.
#![no_main]

use std::{collections::BTreeMap, sync::Arc};

use libfuzzer_sys::fuzz_target;
use noports::{at::{enrolment, fault::Fault}, server::{enrolment as kept, session::{Facts, Session, LineAction}, store::{Access, Chance, StoreError, Tx, register}}};

const NOW: u64 = 1_729_771_234_567;

fuzz_target!(|text: &str| {
    if let Some((id, status)) = enrolment::parse_answer(text) {
        assert!(!id.contains(char::is_whitespace) && !status.is_empty() || status.is_empty());
    }
    for found in enrolment::parse_list(text).into_iter().flatten() {
        assert!(!found.id.contains([':', '"', '\n', ' ']), "{:?}", found.id);
    }
    let _ = enrolment::verdict(&Fault::parse(text));

    // As a row that something else wrote, and as a request of the owner.
    let rows = BTreeMap::new();
    let chance = Chance::default();
    let mut tx = Tx::new(&rows, Access::Write, &chance);
    let made = (|| {
        let home = register::add(&mut tx, &"@alice".parse().expect("an atSign"), 1, NOW)?;
        home.put_plain(&mut tx, "privatekey:at_secret", "s", None, NOW)?;
        home.put_plain(&mut tx, &kept::key_of(&home, "1"), text, None, NOW)?;
        let _ = kept::find(&tx, &home, "1", NOW);
        let _ = kept::all(&tx, &home, NOW);
        home.erase(&mut tx, &kept::key_of(&home, "1"))?;
        Ok::<_, StoreError>(home)
    })();
    let home = made.expect("a store in memory");
    let mut session = Session::new(home.clone(), Arc::new(Facts::default()));
    let challenge = said(&mut session, &mut tx, "from:@alice");
    let digest = noports::at::crypto::cram_digest("s", &challenge);
    said(&mut session, &mut tx, &format!("cram:{digest}"));
    for operation in ["request", "approve", "fetch", "list", "revoke"] {
        said(&mut session, &mut tx, &format!("enroll:{operation}:{text}"));
    }
    // Whatever was let in, the server can still list.
    let listed = said(&mut session, &mut tx, "enroll:list");
    assert!(enrolment::parse_list(&listed).is_some(), "{listed}");
    let stored = kept::all(&tx, &home, NOW).expect("own rows can be read");
    for one in stored {
        assert!(kept::find(&tx, &home, &one.id, NOW).is_ok_and(|found| found.is_some()));
    }
});

/// What it answers, without prompt; one line.
fn said(session: &mut Session, tx: &mut Tx<'_>, line: &str) -> String {
    let outcome = match session.read(line, NOW) {
        LineAction::Done(outcome) => outcome,
        LineAction::Run(job) => {
            // A refusal undoes its whole transaction, so each command has one of its own.
            let (changes, outcome) = {
                let chance = Chance::default();
                let mut inner = Tx::new(tx, Access::Write, &chance);
                let decision = session.run(&job, &mut inner, NOW);
                (inner.finish().0, session.accept(decision))
            };
            for (key, change) in changes {
                match change {
                    Some(value) => tx.put(key, value),
                    None => tx.remove(&key),
                }
                .expect("a writing transaction");
            }
            outcome
        }
    };
    let reply = String::from_utf8(outcome.reply).expect("replies are text");
    assert!(
        reply.is_empty() || reply.matches('\n').count() == 1,
        "{reply:?}"
    );
    assert!(!reply.starts_with("error:AT0002"), "{line:?}");
    let body = reply.split('\n').next().unwrap_or_default();
    body.strip_prefix("data:").unwrap_or_default().to_owned()
}
