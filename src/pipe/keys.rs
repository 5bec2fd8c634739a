//! What protects what passes the rendezvous.

use super::{
    cipher::{SessionKeys, Side},
    copy::Change,
    record::RecordKeys,
};

/// The keys of a session, and what is done with them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransportKeys {
    /// A key stream: secret, and not authenticated. What every NoPorts knows.
    Stream(SessionKeys),
    /// Records: secret, authenticated, and later keys open nothing. Between two ends of this program.
    Records(RecordKeys),
}

/// What happens to the bytes of both directions.
#[derive(Debug, Default)]
pub struct Changes {
    /// From the local stream to the remote one.
    pub outbound: Change,
    /// From the remote stream to the local one.
    pub inbound: Change,
}

impl TransportKeys {
    /// From the beginning.
    pub fn changes(&self, side: Side) -> Changes {
        match self {
            Self::Stream(keys) => keys.changes(side),
            Self::Records(keys) => {
                let (sealer, opener) = keys.ends(side);
                Changes {
                    outbound: Change::Seal(Some(Box::new(sealer))),
                    inbound: Change::Open(Box::new(opener), Vec::new()),
                }
            }
        }
    }
}

impl SessionKeys {
    /// Two key streams, each at its beginning.
    pub fn changes(&self, side: Side) -> Changes {
        let ciphers = self.ciphers(side);
        Changes {
            outbound: Change::Cipher(Box::new(ciphers.outbound)),
            inbound: Change::Cipher(Box::new(ciphers.inbound)),
        }
    }
}
