#![allow(clippy::unwrap_used)]

use async_std::task::block_on;
use futures_lite::future::poll_once;

use super::{ledger::TELL_EVERY, *};

const THREE: Limits = Limits::new("places", 3).with_line(3, 2);

fn by(party: &'static str, most: u64) -> Claim<&'static str> {
    Claim::of(party, most)
}

#[test]
fn nobody_has_more_than_a_share_and_what_is_dropped_comes_back() {
    let (budget, now) = (Budget::new(THREE), Instant::now());
    let two = [(); 2].map(|()| budget.take(by("alice", 2), now).unwrap());
    assert!(budget.take(by("alice", 2), now).is_none());
    let third = budget.take(by("bob", 2), now).unwrap();
    assert!(
        budget.take(by("carol", 2), now).is_none(),
        "there are three"
    );
    drop(two);
    let both = || by("alice", 2).and("bob", 1);
    assert!(budget.take(both(), now).is_none(), "all shares count");
    drop(third);
    assert!(budget.take(both(), now).is_some());
    let usage = Usage {
        used: 0,
        refused: 3,
        evicted: 0,
    };
    assert_eq!(budget.usage(), usage);
    assert!(budget.ledger().by.is_empty() && budget.ledger().holdings.is_empty());
}

#[test]
fn amounts_are_counted_and_nothing_overflows() {
    let (budget, now) = (Budget::new(Limits::new("bytes", 100)), Instant::now());
    let held = budget.take(by("alice", 80).amount(60), now).unwrap();
    assert!(budget.take(by("alice", 80).amount(21), now).is_none());
    assert!(budget.take(by("bob", 80).amount(41), now).is_none());
    assert!(
        budget
            .take(by("bob", u64::MAX).amount(u64::MAX), now)
            .is_none()
    );
    let rest = budget.take(by("bob", 80).amount(40), now).unwrap();
    assert_eq!((budget.used_by(&"alice"), budget.usage().used), (60, 100));
    drop((held, rest));
    assert_eq!(budget.usage().used, 0);
}

#[test]
fn strangers_never_get_the_reserve() {
    let (budget, now) = (Budget::new(THREE.with_reserve(1)), Instant::now());
    let known = || by("me", 3).rank(Rank::Known);
    let two = [(); 2].map(|()| budget.take(by("eve", 9), now).unwrap());
    assert!(budget.take(by("mallory", 9), now).is_none());
    let mine = budget.take(known(), now).unwrap();
    assert!(budget.take(known(), now).is_none());
    drop(two);
    // What the known have is not the strangers' part.
    let stranger = budget.take(by("eve", 9), now);
    assert!(stranger.is_some() && budget.take(known(), now).is_some());
    drop(mine);
}

/// Who holds what, in the order in which they came; who comes; who has to leave, by their places.
#[test]
fn the_lowest_rank_goes_first_then_the_biggest_users_oldest() {
    use Rank::{Known, Neighbour, Stranger};
    let now = Instant::now();
    let limits = Limits::new("places", 4).with_chance(Duration::from_secs(1));
    type Come = (&'static str, Rank, u64);
    let rows: [([Come; 4], Come, &[usize]); 6] = [
        (
            [
                ("a", Stranger, 9),
                ("b", Stranger, 8),
                ("b", Stranger, 7),
                ("c", Stranger, 6),
            ],
            ("d", Stranger, 0),
            &[1],
        ),
        (
            [
                ("a", Known, 9),
                ("b", Neighbour, 8),
                ("c", Stranger, 7),
                ("d", Known, 6),
            ],
            ("e", Stranger, 0),
            &[2],
        ),
        (
            [
                ("a", Known, 9),
                ("b", Neighbour, 8),
                ("b", Neighbour, 7),
                ("d", Known, 6),
            ],
            ("e", Stranger, 0),
            &[],
        ),
        (
            [
                ("a", Known, 9),
                ("b", Known, 8),
                ("b", Known, 7),
                ("d", Known, 6),
            ],
            ("e", Known, 0),
            &[1],
        ),
        // Who has just come has a chance yet, unless all have.
        (
            [
                ("b", Stranger, 0),
                ("b", Stranger, 0),
                ("b", Stranger, 0),
                ("a", Stranger, 2),
            ],
            ("e", Stranger, 0),
            &[3],
        ),
        (
            [
                ("b", Stranger, 0),
                ("a", Stranger, 0),
                ("a", Stranger, 0),
                ("c", Stranger, 0),
            ],
            ("e", Stranger, 0),
            &[1],
        ),
    ];
    for (came, comes, want) in rows {
        let budget = Budget::new(limits);
        let enter = |(who, rank, ago): Come| {
            let since = now - Duration::from_secs(ago);
            budget.take_evicting(by(who, 9).rank(rank), since)
        };
        let held: Vec<_> = came.iter().map(|one| enter(*one).unwrap()).collect();
        let new = enter(comes);
        assert_eq!(new.is_some(), !want.is_empty(), "{came:?}");
        let told = |at: &usize| held[*at].1.is_told();
        assert_eq!((0..4).filter(told).collect::<Vec<_>>(), want, "{came:?}");
        assert_eq!(budget.usage().used, 4);
        drop((held, new));
        assert_eq!((budget.usage().used, budget.ledger().leaving), (0, 0));
    }
}

#[test]
fn a_full_share_makes_room_in_itself_and_who_took_without_a_bell_stays() {
    let (budget, now) = (Budget::new(Limits::new("places", 9)), Instant::now());
    let firm = budget.take(by("eve", 2), now).unwrap();
    let bob = budget.take_evicting(by("bob", 2), now).unwrap();
    let soft = budget.take_evicting(by("eve", 2), now).unwrap();
    let next = budget.take_evicting(by("eve", 2), now).unwrap();
    assert!(soft.1.is_told() && !bob.1.is_told());
    drop(next);
    let firm_too = budget.take(by("eve", 2), now).unwrap();
    assert!(
        budget.take_evicting(by("eve", 2), now).is_none(),
        "both stay"
    );
    drop((firm, firm_too));
}

#[test]
fn of_two_full_shares_the_smaller_one_makes_the_room() {
    let (budget, now) = (Budget::new(Limits::new("places", 9)), Instant::now());
    let part = || by("site", 2).and("silent", 1);
    let spoken = budget.take_evicting(by("site", 2), now).unwrap();
    let silent = budget.take_evicting(part(), now).unwrap();
    let next = budget.take_evicting(part(), now).unwrap();
    assert!(silent.1.is_told() && !spoken.1.is_told());
    drop(next);
}

/// Their sockets are there until they have really ended.
#[test]
fn those_that_do_not_leave_are_not_replaced_for_ever() {
    let (budget, now) = (Budget::new(Limits::new("places", 2)), Instant::now());
    let enter = || budget.take_evicting(by("eve", 9), now);
    let held: Vec<_> = std::iter::from_fn(enter).take(100).collect();
    assert_eq!(held.len(), 2 + 8);
    drop(held);
    assert!(enter().is_some());
}

#[test]
fn a_holder_that_is_known_counts_as_such_from_then_on() {
    let budget = Budget::new(Limits::new("places", 2).with_reserve(1));
    let now = Instant::now();
    let (hold, must_leave) = budget.take_evicting(by("198.51.100.0", 1), now).unwrap();
    assert!(hold.change(by("alice", 1).rank(Rank::Known).firm(), now));
    let stranger = budget.take_evicting(by("198.51.100.0", 1), now).unwrap();
    assert!(
        !stranger.0.change(by("alice", 1).rank(Rank::Known), now),
        "she has one"
    );
    assert_eq!(budget.used_by(&"198.51.100.0"), 1);
    let next = budget.take_evicting(by("192.0.2.0", 1), now).unwrap();
    assert!(stranger.1.is_told() && !must_leave.is_told());
    assert!(
        !stranger.0.change(by("bob", 1).rank(Rank::Known), now),
        "it has left"
    );
    drop((hold, stranger, next));
    assert!(budget.ledger().by.is_empty());
}

#[test]
fn a_flood_is_a_line_a_minute_that_names_who() {
    let (budget, now) = (Budget::new(THREE), Instant::now());
    let _held = [(); 3].map(|()| budget.take(by("eve", 3), now).unwrap());
    let news = |at| {
        let mut ledger = budget.ledger();
        ledger.refused += 1;
        ledger.news(&THREE, &by("alice", 2), at)
    };
    let want =
        "budget=places refused=1 evicted=0 used=3 of=3 from=alice has=0 of_its=2 biggest=eve has=3";
    assert_eq!(news(now).as_deref(), Some(want));
    assert!((0..1000).all(|_| news(now).is_none()));
    let later = news(now + TELL_EVERY).unwrap();
    assert!(later.starts_with("budget=places refused=1001 "), "{later}");
}

/// Takes at the moment it is called.
struct Eager(Budget<&'static str>);

impl std::task::Wake for Eager {
    fn wake(self: Arc<Self>) {
        drop(self.0.take(by("eve", 1), Instant::now()));
    }
}

/// The lock was held while somebody was called: who had given up in that moment stopped everybody for ever.
#[test]
fn nobody_is_called_under_the_lock() {
    let (done, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let budget = Budget::new(THREE);
        let held = budget.take(by("alice", 1), Instant::now());
        let mut waits = Box::pin(budget.wait(by("alice", 1)));
        let waker = Arc::new(Eager(budget.clone())).into();
        let mut context = std::task::Context::from_waker(&waker);
        assert!(waits.as_mut().poll(&mut context).is_pending());
        drop(held);
        let _ = done.send(waits.as_mut().poll(&mut context).is_ready());
    });
    assert_eq!(ended.recv_timeout(Duration::from_secs(10)), Ok(true));
}

#[test]
fn whoever_fits_goes_first_and_who_gave_up_is_passed_over() {
    block_on(async {
        let (budget, now) = (Budget::new(THREE), Instant::now());
        let mut held = Vec::from([(); 2].map(|()| budget.take(by("alice", 2), now).unwrap()));
        let mut again = Box::pin(budget.wait(by("alice", 2)));
        assert!(poll_once(again.as_mut()).await.is_none());
        let mut gone = Box::pin(budget.wait(by("alice", 2)));
        assert!(poll_once(gone.as_mut()).await.is_none());
        assert!(
            budget.wait(by("alice", 2)).await.is_none(),
            "two wait already"
        );
        let bob = budget.wait(by("bob", 1)).await.unwrap();
        drop(gone);
        held.pop();
        let third = again.await.unwrap();
        // Its place goes to the next in line, not to one that is not there any more.
        let mut next = Box::pin(budget.wait(by("alice", 2)));
        assert!(poll_once(next.as_mut()).await.is_none());
        drop((bob, third));
        assert!(next.await.is_some());
        drop(held);
        assert_eq!(budget.usage().used, 0);
    });
}

#[test]
fn a_modest_claim_takes_nothing_from_its_own_party_and_the_biggest_gives_way_to_it() {
    let (budget, now) = (Budget::new(THREE), Instant::now());
    let modest = |who| by(who, 2).modest();
    let (first, told) = budget.take_evicting(modest("alice"), now).unwrap();
    let second = budget.take_evicting(modest("alice"), now).unwrap();
    assert!(budget.take_evicting(modest("alice"), now).is_none());
    assert!(!told.is_told(), "what stands is worth as much");
    let third = budget.take_evicting(modest("bob"), now).unwrap();
    assert_eq!(budget.biggest(), Some(("alice", 2)));
    let fourth = budget.take_evicting(modest("carol"), now);
    assert!(fourth.is_some() && told.is_told(), "all is taken");
    drop((first, second, third, fourth));
    assert_eq!(budget.biggest(), None);
}

/// Starts to wait, and is not served yet.
async fn waits(
    budget: &Budget<&'static str>,
    claim: Claim<&'static str>,
) -> std::pin::Pin<Box<dyn Future<Output = Option<Hold<&'static str>>>>> {
    let budget = budget.clone();
    let mut waits: std::pin::Pin<Box<dyn Future<Output = _>>> =
        Box::pin(async move { budget.wait(claim).await });
    assert!(poll_once(&mut waits).await.is_none());
    waits
}

#[test]
fn who_comes_late_waits_behind_one_of_each_party_and_not_behind_all_of_them() {
    block_on(async {
        let budget = Budget::new(Limits::new("places", 1).with_line(100, 10));
        let mut held = budget.take(by("eve", 1), Instant::now());
        let mut line = Vec::new();
        for _ in 0..10 {
            for who in ["eve", "mallory"] {
                line.push((who, waits(&budget, by(who, 1)).await));
            }
        }
        line.push(("alice", waits(&budget, by("alice", 1)).await));
        line.push(("alice", waits(&budget, by("alice", 1)).await));
        let mut order = Vec::new();
        while !line.is_empty() {
            drop(held.take());
            for at in 0..line.len() {
                if let Some(got) = poll_once(&mut line[at].1).await {
                    order.push(line.remove(at).0);
                    held = got;
                    break;
                }
            }
        }
        let of_alice = order.iter().enumerate().filter(|(_, who)| **who == "alice");
        let turns: Vec<_> = of_alice.map(|(at, _)| at).collect();
        assert!(turns[0] <= 2 && turns[1] <= 5, "{order:?}");
        // Two parties with as many have their turns by turns.
        let rest: Vec<_> = order.iter().filter(|who| **who != "alice").collect();
        assert!(
            rest[1..].windows(2).all(|two| two[0] != two[1]),
            "{order:?}"
        );
    });
}

#[test]
fn a_full_line_has_room_for_who_has_fewer_in_it() {
    block_on(async {
        let budget = Budget::new(Limits::new("places", 1).with_line(8, 4));
        let held = budget.take(by("eve", 1), Instant::now());
        let mut line = Vec::new();
        for who in ["eve", "mallory"] {
            for _ in 0..4 {
                line.push(waits(&budget, by(who, 1)).await);
            }
        }
        let alice = waits(&budget, by("alice", 1)).await;
        assert_eq!(budget.ledger().line.len(), 8);
        let mut gone = 0;
        for one in &mut line {
            gone += usize::from(matches!(poll_once(one).await, Some(None)));
        }
        assert_eq!((gone, budget.usage().refused), (1, 1), "the newest of one");
        // Who has as many as anybody has to come again.
        assert!(budget.wait(by("mallory", 1)).await.is_none());
        // All others give up.
        drop((held, line));
        assert!(alice.await.is_some());
    });
}
