//! Bytes in work: lines that are not finished yet, commands that are being run, and replies that are being taken.
//!
//! A stranger's line may have ten megabytes once it has shown another atSign's name, and so may a public value. What is
//! in work is counted; whoever is in the way of others, by whom most is in work, is cut off.

use std::{
    future::{self, Future},
    io,
    net::IpAddr,
    time::{Duration, Instant},
};

use async_std::future::timeout;
use futures_lite::future::or;

use crate::{
    budget::{Budget, Hold, Limits, MustLeave},
    net::tls::TlsStream,
};

use super::{
    connection::send,
    gate::{ConnectionParty, Shares, Standing},
};

const MIB: u64 = 1 << 20;
/// All bytes in work of this process. Strangers have little: notifications and public keys are short.
pub(in crate::server) const BYTES: Limits =
    Limits::new("bytes_in_work", 256 * MIB).with_reserve(208 * MIB);
/// Each share has room for one of the longest lines.
pub(in crate::server) const SHARES: Shares = Shares {
    network: 12 * MIB,
    range: 24 * MIB,
    house: 24 * MIB,
    visitor: 12 * MIB,
    owner: 96 * MIB,
    owners: 208 * MIB,
    handshakes_of_network: 0,
    handshakes: 0,
};
/// So much every connection has, and it is not counted. What is more is counted in pieces of this.
const FREE: usize = 16 * 1024;
/// Who is not the owner sends and takes no slower than this, in bytes a second, once some time has passed.
const LEAST_SPEED: u64 = 64 * 1024;

pub(super) type Bytes = Budget<ConnectionParty>;

/// What one connection holds of the bytes in work.
#[derive(Default)]
pub(super) struct Load {
    held: Option<(Hold<ConnectionParty>, MustLeave)>,
    amount: u64,
}

impl Load {
    /// So many bytes are in work from now on. An error: there is no room, or others needed it.
    pub(super) fn set(
        &mut self,
        budget: &Bytes,
        (from, standing): (IpAddr, &Standing),
        bytes: usize,
    ) -> io::Result<()> {
        let amount = if bytes <= FREE {
            0
        } else {
            bytes.next_multiple_of(FREE) as u64
        };
        if amount == self.amount {
            return Ok(());
        }
        let (claim, now) = (SHARES.claim(from, standing).amount(amount), Instant::now());
        let fits = match &self.held {
            _ if amount == 0 => {
                self.held = None;
                true
            }
            Some((hold, _)) => hold.change(claim, now),
            None => {
                self.held = budget.take_evicting(claim, now);
                self.held.is_some()
            }
        };
        self.amount = amount;
        fits.then_some(()).ok_or_else(crowded)
    }

    /// Ends when others need the room.
    pub(super) async fn gave_way(&self) {
        match &self.held {
            Some((_, must_leave)) => must_leave.told().await,
            None => future::pending().await,
        }
    }

    /// Sends all of it, unless others need the room, or it takes longer than `limit`.
    pub(super) async fn send(
        &self,
        stream: &mut TlsStream,
        bytes: &[u8],
        within: Duration,
        limit: Option<Duration>,
    ) -> io::Result<()> {
        let gave_way = async {
            self.gave_way().await;
            Err(crowded())
        };
        let sent = or(send(stream, bytes, within), gave_way);
        match limit {
            Some(limit) => at_most(limit, sent).await,
            None => sent.await,
        }
    }
}

fn crowded() -> io::Error {
    io::ErrorKind::QuotaExceeded.into()
}

async fn at_most(limit: Duration, work: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    let late = |_| Err(io::ErrorKind::TimedOut.into());
    timeout(limit, work).await.unwrap_or_else(late)
}

/// How long so many bytes may take for one who is not the owner.
pub(super) fn time_for(bytes: usize, within: Duration) -> Duration {
    within + Duration::from_secs(bytes as u64 / LEAST_SPEED)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::at::AtSign;

    #[test]
    fn who_holds_most_gives_way_and_owners_have_their_own() {
        let budget = Bytes::new(BYTES);
        let house: AtSign = "@alice".parse().unwrap();
        let (stranger, owner) = (Standing::Stranger(house.clone()), Standing::Owner(house));
        let at = |n: u8| IpAddr::from([10, n, 0, 1]);
        let ten = 10 * MIB as usize;
        let mut loads = Vec::new();
        for n in 0..50 {
            let mut load = Load::default();
            load.set(&budget, (at(n), &stranger), ten).unwrap();
            loads.push(load);
        }
        let left = loads
            .iter()
            .filter(|load| !load.held.as_ref().unwrap().1.is_told());
        assert_eq!(left.count(), 2, "the strangers of one house");
        assert!(
            loads[0]
                .set(&budget, (at(0), &stranger), ten + FREE)
                .is_err()
        );
        for _ in 0..9 {
            let mut load = Load::default();
            load.set(&budget, (at(0), &owner), ten).unwrap();
            assert!(!load.held.as_ref().unwrap().1.is_told());
            loads.push(load);
        }
        drop(loads);
        assert_eq!(budget.usage().used, 0);
    }

    #[test]
    fn short_lines_are_not_counted_and_long_ones_grow() {
        let budget = Bytes::new(BYTES);
        let from = IpAddr::from([10, 0, 0, 1]);
        let standing = Standing::Stranger("@alice".parse().unwrap());
        let mut load = Load::default();
        for (bytes, counted) in [(0, 0), (FREE, 0), (FREE + 1, 2), (3 * FREE, 3), (9, 0)] {
            load.set(&budget, (from, &standing), bytes).unwrap();
            assert_eq!(budget.usage().used, counted * FREE as u64, "{bytes}");
        }
    }
}
