//! Which key counts, and what is remembered of others.

#![allow(clippy::unwrap_used)]

use std::fs;

use std::os::unix::fs::PermissionsExt;

use async_std::task::block_on;

use super::{
    file::{FILE, MODE},
    known::{MAX_NOTES, MOST_GUESTS, MOST_NOTES},
    *,
};
use crate::{at::vectors::keys, sys::paths, testing::Folder};

const REMEMBER: FirstSight = FirstSight::Remember;

fn bob() -> AtSign {
    "@bob".parse().unwrap()
}

fn key(name: &str) -> PublicKey {
    keys(name).encryption.public().clone()
}

/// Two different keys.
fn two() -> [PublicKey; 2] {
    let pair = crate::at::crypto::KeyPair::generate().unwrap();
    [key("legacy_file"), pair.public().clone()]
}

#[test]
fn the_first_key_counts_also_after_a_restart_and_another_one_is_refused_until_it_is_trusted() {
    let folder = Folder::new();
    let [first, second] = two();
    let pins = || Pins::new(Some(folder.path("state")), Vec::new());
    block_on(async {
        let running = pins();
        assert_eq!(running.check(&bob(), &first, REMEMBER).await, Ok(()));
        assert_eq!(running.check(&bob(), &first, REMEMBER).await, Ok(()));
        for pins in [running.clone(), pins()] {
            let changed = pins.check(&bob(), &second, REMEMBER).await.unwrap_err();
            let (known, now) = (Fingerprint::of(&first), Fingerprint::of(&second));
            let want =
                format!("the key of @bob is another one than before: {now} instead of {known}");
            assert_eq!(changed.to_string(), want);
            let way = format!(
                "noports trust @bob --fingerprint {}",
                Fingerprint::of(&second)
            );
            assert!(changed.hint().ends_with(&way), "{}", changed.hint());
        }
        let before = pins().trust(&bob(), &Fingerprint::of(&second));
        assert_eq!(before.unwrap(), Some(Fingerprint::of(&first)));
        // Without a restart.
        assert_eq!(running.check(&bob(), &second, REMEMBER).await, Ok(()));
        assert!(running.check(&bob(), &first, REMEMBER).await.is_err());
    });
    let file = folder.path("state/known_keys");
    let mode = fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let want = format!("@bob {}\n", Fingerprint::of(&second));
    assert_eq!(fs::read_to_string(&file).unwrap(), want);
}

#[test]
fn a_key_that_was_named_counts_whatever_is_remembered() {
    let folder = Folder::new();
    let [first, second] = two();
    let named = vec![(bob(), Fingerprint::of(&second))];
    block_on(async {
        let pins = Pins::new(Some(folder.path("state")), Vec::new());
        assert_eq!(pins.check(&bob(), &first, REMEMBER).await, Ok(()));
        let pins = Pins::new(Some(folder.path("state")), named);
        assert_eq!(pins.check(&bob(), &second, REMEMBER).await, Ok(()));
        let changed = pins.check(&bob(), &first, REMEMBER).await.unwrap_err();
        assert!(matches!(changed, PinError::Changed { is_named: true, .. }));
        assert!(changed.hint().contains("@bob#"));
    });
}

#[test]
fn where_nothing_can_be_written_the_memory_counts() {
    let folder = Folder::new();
    let [first, second] = two();
    fs::write(folder.path("none"), "").unwrap();
    block_on(async {
        for at in [None, Some(folder.path("none"))] {
            let pins = Pins::new(at, Vec::new());
            assert!(pins.can_remember().await.is_err());
            assert_eq!(pins.check(&bob(), &first, REMEMBER).await, Ok(()));
            assert!(pins.check(&bob(), &second, REMEMBER).await.is_err());
            assert_eq!(pins.check(&bob(), &first, REMEMBER).await, Ok(()));
        }
    });
}

#[test]
fn programs_that_remember_at_once_lose_nothing() {
    let folder = Folder::new();
    let key = Fingerprint::of(&two()[0]);
    std::thread::scope(|scope| {
        for n in 0..8 {
            let (pins, key) = (Pins::new(Some(folder.path("s")), Vec::new()), &key);
            scope.spawn(move || {
                for m in 0..5 {
                    let who = format!("@p{n}_{m}").parse().unwrap();
                    pins.remember(&who, key, REMEMBER).unwrap();
                }
            });
        }
    });
    let pins = Pins::new(Some(folder.path("s")), Vec::new());
    assert_eq!(pins.read().unwrap().len(), 40);
}

#[test]
fn a_word_names_an_atsign_with_or_without_a_fingerprint() {
    let print = Fingerprint::of(&two()[0]).to_string();
    assert_eq!(print.len(), 43);
    assert_eq!(named("bob"), Ok((bob(), None)));
    let both = named(&format!("@bob#{print}")).unwrap();
    assert_eq!(both, (bob(), Some(print.parse().unwrap())));
    let short = format!("@bob#{}", &print[1..]);
    for bad in ["@bob#", "@bob#x", &*short, "@b!", "#", &format!("#{print}")] {
        assert!(named(bad).is_err(), "{bad}");
    }
}

/// It was made anew through a link: whatever the link led to was empty then.
#[test]
fn a_link_in_the_locks_place_is_not_followed_and_a_pipe_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let other = folder.path().join("other");
    fs::write(&other, "theirs").unwrap();
    let lock = folder.path().join(FILE).with_extension("lock");
    std::os::unix::fs::symlink(&other, &lock).unwrap();
    let pins = Pins::new(Some(folder.path().to_owned()), Vec::new());
    let who = "@bob".parse().unwrap();
    let key: Fingerprint = "A".repeat(43).parse().unwrap();
    assert!(pins.trust(&who, &key).is_err());
    assert_eq!(fs::read_to_string(&other).unwrap(), "theirs");
    fs::remove_file(&lock).unwrap();
    let made = std::process::Command::new("mkfifo")
        .arg(folder.path().join(FILE))
        .status();
    assert!(made.unwrap().success());
    assert!(pins.read().is_err() && pins.trust(&who, &key).is_err());
}

/// One bad line, and whatever key came next was believed.
#[test]
fn keys_that_cannot_be_read_are_no_reason_to_believe_others() {
    block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let [key, _] = two();
        for text in ["x\n", "@bob something\n", "@bob \n"] {
            fs::write(folder.path().join(FILE), text).unwrap();
            let pins = Pins::new(Some(folder.path().to_owned()), Vec::new());
            let got = pins.check(&bob(), &key, REMEMBER).await;
            assert!(
                matches!(got, Err(PinError::Unreadable(_))),
                "{text:?}: {got:?}"
            );
        }
    });
}

#[test]
fn the_table_says_what_the_constants_are() {
    let header = include_str!("mod.rs");
    for row in [
        format!("//! | keys that are remembered | {MOST} | 1 |"),
        format!("//! | of them, of clients that a policy let in | {MOST_GUESTS} | 1 |"),
        format!(
            "//! | notes: what a peer could do | {} MiB | {MOST_NOTES} |",
            MAX_NOTES >> 20
        ),
    ] {
        assert!(header.lines().any(|line| line.starts_with(&row)), "{row}");
    }
}

/// They were not remembered at all.
#[test]
fn clients_of_a_policy_are_remembered_and_a_crowd_of_them_pushes_no_manager_out() {
    let folder = Folder::new();
    let [first, second] = two();
    let pins = || Pins::new(Some(folder.path("s")), Vec::new());
    block_on(async {
        let guest = FirstSight::Guest;
        assert_eq!(pins().check(&bob(), &first, guest).await, Ok(()));
        assert!(pins().check(&bob(), &second, guest).await.is_err());
        let carol = "@carol".parse().unwrap();
        assert_eq!(pins().check(&carol, &first, REMEMBER).await, Ok(()));
    });
    let print = Fingerprint::of(&first);
    let crowd = (0..MOST_GUESTS).map(|n| format!("@g{n} {print} guest={n}\n"));
    let file = folder.path("s/known_keys");
    let text = fs::read_to_string(&file).unwrap() + &crowd.collect::<String>();
    paths::atomic_write(&file, text.as_bytes(), MODE).unwrap();
    let late = "@late".parse().unwrap();
    pins().remember(&late, &print, FirstSight::Guest).unwrap();
    let known = pins().read().unwrap();
    let has = |who: &str| known.contains_key(&who.parse().unwrap());
    assert!(has("@carol") && has("@bob") && has("@late") && has("@g2"));
    assert!(!has("@g0") && !has("@g1"));
    assert_eq!(known.len(), MOST_GUESTS + 1);
}

/// They were believed, whoever had written them.
#[test]
fn keys_that_others_can_write_are_refused_by_name() {
    let folder = Folder::new();
    let [first, _] = two();
    let pins = || Pins::new(Some(folder.path("s")), Vec::new());
    let file = folder.path("s/known_keys");
    block_on(async {
        assert_eq!(pins().check(&bob(), &first, REMEMBER).await, Ok(()));
        for (what, good) in [(&file, 0o600), (&folder.path("s"), 0o700)] {
            for bad in [0o020, 0o002, 0o022] {
                let mode = |mode| fs::set_permissions(what, fs::Permissions::from_mode(mode));
                mode(good | bad).unwrap();
                let got = pins().check(&bob(), &first, REMEMBER).await;
                let Err(PinError::Unreadable(why)) = got else {
                    panic!("{bad:o}: {got:?}");
                };
                let want = format!("others can write it: chmod go-w {}", what.display());
                assert!(why.ends_with(&want), "{why}");
                assert!(pins().trust(&bob(), &Fingerprint::of(&first)).is_err());
                mode(good).unwrap();
            }
        }
    });
}

#[test]
fn a_key_that_was_given_for_recovery_takes_the_place_of_the_one_before() {
    let folder = Folder::new();
    let [first, second] = two();
    fs::write(folder.path("none"), "").unwrap();
    block_on(async {
        for at in [folder.path("s"), folder.path("none")] {
            let recovery = vec![Fingerprint::of(&second)];
            let pins = Pins::with_recovery(Some(at), Vec::new(), recovery);
            assert_eq!(pins.check(&bob(), &first, REMEMBER).await, Ok(()));
            // Nothing is signed with it yet: it may be told, and takes no place.
            assert_eq!(pins.check(&bob(), &second, FirstSight::Pass).await, Ok(()));
            assert_eq!(pins.check(&bob(), &first, REMEMBER).await, Ok(()));
            assert_eq!(pins.check(&bob(), &second, REMEMBER).await, Ok(()));
            assert!(pins.check(&bob(), &first, REMEMBER).await.is_err());
            let named = vec![(bob(), Fingerprint::of(&first))];
            let recovery = vec![Fingerprint::of(&second)];
            let pins = Pins::with_recovery(None, named, recovery);
            assert_eq!(pins.check(&bob(), &second, REMEMBER).await, Ok(()));
            assert_eq!(pins.check(&bob(), &first, REMEMBER).await, Ok(()));
        }
    });
}

#[test]
fn what_is_only_heeded_is_not_remembered_and_what_is_forgotten_counts_no_more() {
    let folder = Folder::new();
    let [first, second] = two();
    let pins = Pins::new(Some(folder.path("s")), Vec::new());
    block_on(async {
        for key in [&first, &second] {
            assert_eq!(pins.check(&bob(), key, FirstSight::Pass).await, Ok(()));
        }
        assert_eq!(pins.check(&bob(), &first, REMEMBER).await, Ok(()));
        assert!(pins.check(&bob(), &second, FirstSight::Pass).await.is_err());
        assert_eq!(pins.forget(&bob()).unwrap(), Some(Fingerprint::of(&first)));
        assert_eq!(pins.forget(&bob()).unwrap(), None);
        // Without a restart.
        assert_eq!(pins.check(&bob(), &second, REMEMBER).await, Ok(()));
    });
}

#[test]
fn what_a_peer_could_do_is_noted_until_it_is_trusted_anew_and_its_notes_are_bounded() {
    let folder = Folder::new();
    let [first, _] = two();
    let pins = || Pins::new(Some(folder.path("s")), Vec::new());
    let note = |what: &str| vec![what.to_owned()];
    block_on(async {
        // Of whom no key is known, nothing is noted.
        assert!(pins().note(&bob(), note("a=1")).await.is_empty());
        assert_eq!(pins().check(&bob(), &first, REMEMBER).await, Ok(()));
        assert!(pins().note(&bob(), note("a=1")).await.is_empty());
        assert!(pins().note(&bob(), Vec::new()).await.contains("a=1"));
        let many: Vec<_> = (0..2 * MOST_NOTES).map(|n| format!("b={n}")).collect();
        pins().note(&bob(), many).await;
        let notes = pins().note(&bob(), Vec::new()).await;
        assert!(notes.contains("a=1") && notes.len() == MOST_NOTES);
        pins().trust(&bob(), &Fingerprint::of(&first)).unwrap();
        assert!(pins().note(&bob(), Vec::new()).await.is_empty());
    });
}

/// The shortcut for a key that had been seen never looked at the file: the old key got in until the new one came.
#[test]
fn what_a_person_says_counts_at_once_in_a_program_that_runs() {
    let folder = Folder::new();
    let [first, second] = two();
    let pins = || Pins::new(Some(folder.path("s")), Vec::new());
    let file = folder.path("s/known_keys");
    block_on(async {
        let running = pins();
        let check = async |key| running.check(&bob(), key, REMEMBER).await;
        assert_eq!(check(&first).await, Ok(()));
        pins().trust(&bob(), &Fingerprint::of(&second)).unwrap();
        assert!(check(&first).await.is_err());
        assert_eq!(check(&second).await, Ok(()));
        // Forgotten: the next one counts, whichever it is, also for what is sent to it.
        pins().forget(&bob()).unwrap();
        assert_eq!(
            running.check(&bob(), &first, FirstSight::Pass).await,
            Ok(())
        );
        assert_eq!(check(&first).await, Ok(()));
        assert!(check(&second).await.is_err());
        // An editor's change, of the same length.
        let text = fs::read_to_string(&file).unwrap();
        let [old, new] = [&first, &second].map(|key| Fingerprint::of(key).to_string());
        paths::atomic_write(&file, text.replace(&old, &new).as_bytes(), MODE).unwrap();
        assert!(check(&first).await.is_err());
        // The whole file is removed, spoilt, or opened to others.
        fs::remove_file(&file).unwrap();
        assert_eq!(check(&first).await, Ok(()));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o620)).unwrap();
        assert!(matches!(check(&first).await, Err(PinError::Unreadable(_))));
        paths::atomic_write(&file, b"x\n", MODE).unwrap();
        assert!(matches!(check(&first).await, Err(PinError::Unreadable(_))));
    });
}

/// A key that could not be written gave way to the one before as soon as that came again.
#[test]
fn where_the_file_cannot_be_written_what_was_said_last_counts_until_somebody_changes_the_file() {
    let folder = Folder::new();
    let [first, second] = two();
    let pins = Pins::new(Some(folder.path("s")), Vec::new());
    let file = folder.path("s/known_keys");
    block_on(async {
        assert_eq!(pins.check(&bob(), &first, REMEMBER).await, Ok(()));
        // A lock that is a folder: nothing is written any more.
        let lock = file.with_extension("lock");
        fs::remove_file(&lock).unwrap();
        fs::create_dir(&lock).unwrap();
        pins.believe(&bob(), &Fingerprint::of(&second)).await;
        assert!(pins.check(&bob(), &first, REMEMBER).await.is_err());
        assert_eq!(pins.check(&bob(), &second, REMEMBER).await, Ok(()));
        let text = fs::read(&file).unwrap();
        paths::atomic_write(&file, &text, MODE).unwrap();
        assert_eq!(pins.check(&bob(), &first, REMEMBER).await, Ok(()));
    });
}

/// A thousand guests of a policy pushed a manager out who had been one of them.
#[test]
fn a_guest_who_is_made_a_manager_is_a_guest_no_more() {
    let folder = Folder::new();
    let [first, second] = two();
    let pins = || Pins::new(Some(folder.path("s")), Vec::new());
    let is_guest = || pins().read().unwrap()[&bob()].guest_since().is_some();
    block_on(async {
        let running = pins();
        for (pins, first_sight, guest) in [
            (&running, FirstSight::Guest, true),
            (&running, FirstSight::Pass, true),
            (&pins(), FirstSight::Guest, true),
            (&running, REMEMBER, false),
            (&pins(), FirstSight::Guest, false),
        ] {
            assert_eq!(pins.check(&bob(), &first, first_sight).await, Ok(()));
            assert_eq!(is_guest(), guest, "{first_sight:?}");
        }
        // Not by another key than the guest's.
        pins().forget(&bob()).unwrap();
        assert_eq!(
            running.check(&bob(), &first, FirstSight::Guest).await,
            Ok(())
        );
        assert!(pins().check(&bob(), &second, REMEMBER).await.is_err());
        assert!(is_guest());
    });
}

/// The last one by the alphabet gave way: of a fleet, what was noted of some devices, or that it is a guest.
#[test]
fn the_notes_of_a_fleet_stay_and_the_new_one_is_not_noted() {
    let folder = Folder::new();
    let print = Fingerprint::of(&two()[0]);
    let pins = Pins::new(Some(folder.path("s")), Vec::new());
    let fleet = |devices| -> Vec<String> {
        let both = |n| [format!("signed-time=d{n}"), format!("twin-keys=d{n}")];
        (0..devices).flat_map(both).collect()
    };
    block_on(async {
        pins.remember(&bob(), &print, FirstSight::Guest).unwrap();
        pins.note(&bob(), fleet(1023)).await;
        pins.note(&bob(), fleet(1024)).await;
        pins.note(&bob(), vec!["a=1".to_owned(), "guest=1".to_owned()])
            .await;
        let known = pins.read().unwrap()[&bob()].clone();
        assert!(fleet(1023).iter().all(|note| known.notes.contains(note)));
        assert!(!known.notes.contains("a=1"));
        assert!(known.guest_since().is_some_and(|since| since > 1));
        // Of everybody together no more than fits beside the keys.
        for n in 0..7 {
            let who: AtSign = format!("@p{n}").parse().unwrap();
            pins.remember(&who, &print, REMEMBER).unwrap();
            let long = |m| format!("{m}={}", "x".repeat(90));
            pins.note(&who, (0..MOST_NOTES).map(long).collect()).await;
        }
        let all = pins.read().unwrap();
        let bytes: usize = all.values().map(KnownKey::bytes_of_notes).sum();
        assert!(bytes <= MAX_NOTES && bytes > MAX_NOTES - 100, "{bytes}");
        assert_eq!(all[&bob()], known);
        assert_eq!(all.len(), 8);
    });
}
