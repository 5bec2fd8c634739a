//! One connection, from a local stream to the rendezvous' socket.

use async_std::net::TcpStream;

use super::{
    began::{self, Greeting},
    error::BridgeError,
};
use crate::pipe::{
    cipher::{SessionKeys, Side},
    join::{Carried, HalfClose, join, reset, splice},
};

/// Joins both ends; one that fails resets the local one.
pub(super) async fn carry(
    local: TcpStream,
    remote: TcpStream,
    keys: Option<&SessionKeys>,
    side: Side,
    greeting: Greeting,
) -> Result<Carried, BridgeError> {
    let outcome = match keys {
        None => splice(local, Vec::new(), remote, Vec::new()).await,
        Some(keys) => {
            let ends = HalfClose(local.clone());
            let (input, output, watch) = began::watch(local.clone(), ends, greeting);
            let outcome = join(input, output, remote, keys.ciphers(side)).await;
            if outcome.is_err() {
                reset(&local);
            } else if greeting == Greeting::Ssh
                && let Some(unbegun) = watch.unbegun()
            {
                return Err(unbegun);
            }
            outcome
        }
    };
    outcome.map_err(BridgeError::Broken)
}
