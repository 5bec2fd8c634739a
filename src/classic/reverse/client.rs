//! `--legacy-daemon`: the device logs in to us by ssh, for which a key of this session stands in our `authorized_keys`.
//!
//! Whoever has that key for these seconds can do nothing here but forward ports to our sshd.

use std::{future::Future, io};

use async_std::task;
use log::warn;

use crate::{
    classic::temporary,
    cli::Failure,
    net::ssh_server::SshServer,
    np::ids::SessionId,
    secret::Secret,
    sys::{authorized_keys::AuthorizedKeys, ssh_key::SshKey},
    text::endpoint::Endpoint,
};

/// Lets a fresh key in to this sshd of ours, has the device `log_in` with it, and takes the key out again.
///
/// Dropped at any moment, this takes the key out before it is gone. So whoever may be told to end has to hear that
/// from before this begins, and then to drop it.
///
/// # Errors
/// When the key cannot be let in; else what `log_in` says.
pub async fn let_in<F>(
    session: SessionId,
    sshd: &Endpoint,
    log_in: impl FnOnce(Secret<String>) -> F,
) -> Result<(), Failure>
where
    F: Future<Output = Result<(), Failure>>,
{
    let key = SshKey::generate().map_err(|error| Failure::plain(error.to_string()))?;
    let failed = |error: io::Error| Failure::plain(format!("cannot let the device in: {error}"));
    let guest = Guest(AuthorizedKeys::of_this_user().map_err(failed)?);
    let written = guest.write(sshd, key.public, session).await;
    written.map_err(failed)?;
    let outcome = log_in(key.private).await;
    guest.show_out().await;
    outcome
}

/// A key in our own `authorized_keys`, no longer than this lives.
struct Guest(AuthorizedKeys);

impl Guest {
    async fn write(&self, sshd: &Endpoint, public: String, session: SessionId) -> io::Result<()> {
        let (keys, sshd) = (self.0.clone(), sshd.clone());
        task::spawn_blocking(move || {
            // What an earlier one that crashed left behind.
            keys.remove_stale()?;
            let server = SshServer::ask(&sshd, None).map(|(server, _)| server);
            let line = temporary::line(sshd.port, server, "", &public)?;
            keys.add_session_key(&line, &session.to_string())
        })
        .await
    }

    async fn show_out(self) {
        task::spawn_blocking(move || drop(self)).await;
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // The key may just be on its way into the file, in another thread.
        if let Err(error) = self.0.close() {
            warn!("authorized_keys=not_restored reason={error}");
        }
    }
}
