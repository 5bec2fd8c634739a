//! Keys that were taken back: asked about rarely, said in plain words, and good again once they are given back.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::*;

const REVOKED: &str = "error:AT0027:enrollment_id: e1 is revoked\n@";

/// A stand that lets nobody in while `revoked`, and counts who tries.
async fn stand(revoked: &Arc<AtomicBool>, logins: &Arc<AtomicUsize>) -> Stand {
    let (revoked, logins) = (Arc::clone(revoked), Arc::clone(logins));
    Stand::new(move |_, line| {
        if !line.starts_with("pkam:") {
            return None;
        }
        logins.fetch_add(1, Ordering::SeqCst);
        let refused = revoked.load(Ordering::SeqCst);
        refused.then(|| Act::Say(REVOKED.to_owned()))
    })
    .await
}

/// Reconnects within milliseconds; `barred` is the pause after a final no.
fn hasty(barred: Duration) -> Timing {
    let millisecond = Duration::from_millis(1);
    Timing {
        retry: (millisecond, millisecond),
        settle: millisecond,
        barred,
        ..Timing::default()
    }
}

async fn lost_with(heard: &mut Subscription, word: &str) {
    loop {
        if let Some(Event::Lost(why)) = timeout(SOON, heard.next()).await.unwrap()
            && why.contains(word)
        {
            return;
        }
    }
}

#[test]
fn revoked_keys_are_tried_once_and_every_command_says_why() {
    run(async {
        let (revoked, logins) = (Arc::default(), Arc::default());
        let stand = stand(&revoked, &logins).await;
        let client = stand.client(hasty(SOON * 100)).await;
        let mut heard = client.subscribe("x", false).await.unwrap();
        revoked.store(true, Ordering::SeqCst);
        let before = logins.load(Ordering::SeqCst);
        stand.cut(1);
        stand.cut(2);
        lost_with(&mut heard, "this device's keys were revoked").await;
        assert!(
            heard.pulse().last_heard() < SOON,
            "an answer is a sign of life"
        );
        for _ in 0..20 {
            let refused = client.run(&llookup("x.sshnp")).await;
            let Err(why) = refused else {
                panic!("{refused:?}")
            };
            assert!(
                why.final_word()
                    .is_some_and(|words| words.contains("revoked")),
                "{why}"
            );
        }
        // Both connections may have asked at the same moment.
        let tried = logins.load(Ordering::SeqCst) - before;
        assert!((1..=2).contains(&tried), "{tried} logins");
    });
}

#[test]
fn keys_that_are_given_back_work_again_without_a_restart() {
    run(async {
        let (revoked, logins) = (Arc::default(), Arc::default());
        let stand = stand(&revoked, &logins).await;
        let client = stand.client(hasty(Duration::from_millis(20))).await;
        let mut heard = client.subscribe("x", false).await.unwrap();
        revoked.store(true, Ordering::SeqCst);
        stand.cut(1);
        stand.cut(2);
        lost_with(&mut heard, "revoked").await;
        revoked.store(false, Ordering::SeqCst);
        while !matches!(
            timeout(SOON, heard.next()).await.unwrap(),
            Some(Event::Back)
        ) {}
        // The monitor is back, so commands go, too: they do not wait for a turn of their own.
        let answer = client.run(&llookup("x.sshnp")).await;
        assert!(matches!(answer, Err(AtError::Refused(_))), "{answer:?}");
    });
}

#[test]
fn what_may_pass_is_tried_again_soon() {
    run(async {
        for refusal in [
            "error:AT0401-Exception: pkam authentication failed\n@",
            "error:AT0026:enrollment_id: e1 is pending\n@",
            "error:AT0012-Inbound connection limit exceeded\n@",
        ] {
            let stand = Stand::new(move |number, line| {
                let first = (3..6).contains(&number) && line.starts_with("pkam:");
                first.then(|| Act::Say(refusal.to_owned()))
            })
            .await;
            let client = stand.client(hasty(SOON * 100)).await;
            let mut heard = client.subscribe("x", false).await.unwrap();
            stand.cut(2);
            while !matches!(
                timeout(SOON, heard.next()).await.unwrap(),
                Some(Event::Back)
            ) {}
        }
    });
}
