//! Whose turn it is among the store's writes.

use std::net::IpAddr;

use super::gate::{CONNECTIONS, ConnectionParty};
use crate::{
    at::AtSign,
    budget::{Claim, Limits},
    net::network::network_of,
    server::{session::SessionStanding, store::disk::WRITES_AT_ONCE},
};

/// Writes that wait for the store, or are in it: as many as one commit takes. Whoever comes then, waits.
pub(in crate::server) const WRITES: Limits = Limits::new("writes", WRITES_AT_ONCE as u64)
    .with_line(CONNECTIONS.total as usize, CONNECTIONS.total as usize);
/// Of one atSign at a time, or of one network's strangers: a flood of one's rows leaves room in every commit.
pub(in crate::server) const WRITES_OF_ONE: u64 = 16;

/// A write by a connection of this atSign's server.
pub(super) fn claim(
    home: &AtSign,
    by: SessionStanding<'_>,
    from: IpAddr,
) -> Claim<ConnectionParty> {
    let party = match by {
        SessionStanding::Owner => ConnectionParty::Owner(home.clone()),
        SessionStanding::Visitor(caller) => ConnectionParty::Visitor(caller.clone()),
        _ => ConnectionParty::Network(network_of(from)),
    };
    Claim::of(party, WRITES_OF_ONE)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use futures_lite::future::{block_on, poll_once};

    use super::*;
    use crate::budget::Budget;

    /// All stood in one queue: one sender's thousands of rows, and then everybody else's.
    #[test]
    fn one_senders_rows_leave_room_for_anothers_in_the_next_commit() {
        let writes = Budget::new(WRITES);
        let claim =
            |who: &str| Claim::of(ConnectionParty::Owner(who.parse().unwrap()), WRITES_OF_ONE);
        let ask = |who| Box::pin(writes.wait(claim(who)));
        block_on(async {
            let mut flood: Vec<_> = (0..1000).map(|_| ask("@eve")).collect();
            let mut held = Vec::new();
            for one in &mut flood {
                held.extend(poll_once(one).await.flatten());
            }
            assert_eq!(held.len() as u64, WRITES_OF_ONE);
            assert!(poll_once(ask("@alice")).await.flatten().is_some());
            // Where many atSigns flood at once, whoever has nothing there is next.
            let crowd = (0..WRITES.total).map(|n| format!("@eve{n}"));
            let mut floods: Vec<_> = crowd
                .flat_map(|who| (0..WRITES_OF_ONE).map(move |_| who.clone()))
                .map(|who| Box::pin(writes.wait(claim(&who))))
                .collect();
            for one in &mut floods {
                held.extend(poll_once(one).await.flatten());
            }
            let mut alice = ask("@alice");
            assert!(poll_once(&mut alice).await.is_none());
            // Not before all of the others that had nothing either, but before the seconds of any.
            let mut turns = 0;
            while poll_once(&mut alice).await.is_none() {
                drop(held.pop());
                turns += 1;
            }
            assert!(turns <= WRITES.total, "{turns}");
        });
    }
}
