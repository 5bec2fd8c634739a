//! Where the ends of a session have logged in from: who comes from there gives way last, for the ends of a session come
//! back with more sockets. No I/O.

use std::{collections::VecDeque, net::IpAddr};

use crate::{budget::Rank, net::network::neighbourhood_of};

/// Most addresses remembered of one session's ends.
const MAX_KNOWN: usize = 32;

/// Where the ends of a session have logged in from.
#[derive(Default)]
pub(super) struct LoginAddresses(VecDeque<IpAddr>);

impl LoginAddresses {
    /// Somebody has logged in from there.
    pub(super) fn add(&mut self, address: IpAddr) {
        let address = address.to_canonical();
        if !self.0.contains(&address) {
            self.0.truncate(MAX_KNOWN - 1);
            self.0.push_front(address);
        }
    }

    pub(super) fn rank(&self, address: IpAddr) -> Rank {
        let network = neighbourhood_of(address);
        if self.0.contains(&address.to_canonical()) {
            Rank::Known
        } else if self.0.iter().any(|one| neighbourhood_of(*one) == network) {
            Rank::Neighbour
        } else {
            Rank::Stranger
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_known_and_forgotten_at_last() {
        let mut known = LoginAddresses::default();
        known.add(IpAddr::from([192, 0, 1, 1]));
        known.add("::ffff:192.0.1.1".parse().unwrap());
        assert_eq!(known.0.len(), 1);
        for last in 2..=MAX_KNOWN + 1 {
            known.add(IpAddr::from([192, 0, last as u8, 1]));
        }
        for (address, want) in [
            ([192, 0, 1, 1], Rank::Stranger),
            ([192, 0, 2, 2], Rank::Neighbour),
            ([192, 0, 2, 1], Rank::Known),
        ] {
            assert_eq!(known.rank(address.into()), want, "{address:?}");
        }
        assert_eq!(known.0.len(), MAX_KNOWN);
    }
}
