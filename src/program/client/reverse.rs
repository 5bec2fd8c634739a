//! `--legacy-daemon`: the device logs in to us by ssh and brings a port along, as before 4.0.
//!
//! ```text
//!   1 a fresh ssh key; its public half into our own authorized_keys, for this session
//!   2 our bridge: rendezvous ◀─▶ our sshd
//!   3 privatekey, sshd ──▶ device: ssh -R LP:localhost:22, through the rendezvous, to our sshd
//!   4 connected ◀── ; the key comes out of authorized_keys again, whatever happened
//!   5 person's ssh ─▶ localhost:LP ─▶ our sshd ═▶ device's ssh ─▶ its sshd
//! ```
//!
//! Whoever has that key for these seconds can do nothing here but forward ports to our sshd.

use async_std::task;
use futures_lite::future;
use log::warn;

use super::{Wish, login::in_background, tunnelled::free_port};
use crate::{
    cli::{Failure, Progress},
    net::dial::Endpoint,
    np::session::Ready,
    session::{ask::Met, launch::Local},
    sys::{self, authorized_keys::AuthorizedKeys, signal, ssh_key::SshKey},
};

/// What the key may do here: hold a forwarding open for some seconds, and nothing else.
///
/// Source: noports:packages/sshnoports/lib/sshnp/sshnp_impl.dart at v3.4.2.
const MAY: &str = r#"command="echo \"ssh session complete\";sleep 20",no-agent-forwarding,no-X11-forwarding,no-user-rc"#;

/// Opens the session; returns our loopback port that leads to the device's sshd.
pub(super) async fn open(
    mut met: Met,
    wish: &Wish,
    progress: &mut Progress,
) -> Result<u16, Failure> {
    let me = sys::user::name()
        .ok_or_else(|| Failure::plain("this machine does not know who you are"))?;
    let key = SshKey::generate().map_err(|error| Failure::plain(error.to_string()))?;
    let forward = free_port(wish.local_port).await?;
    progress.begin("letting the device log in here, for a moment");
    let at = met.our_end();
    let service = Endpoint {
        host: "localhost".to_owned(),
        port: wish.local_sshd_port,
    };
    let ours = Ready {
        host: at.host,
        port: at.port,
        admission: None,
        keys: None,
        ephemeral_key: None,
    };
    let session = met.session().to_string();
    let line = format!(
        r#"{MAY},PermitOpen="localhost:{}" {}"#,
        service.port, key.public
    );
    let mut guest = Guest::let_in(line, session).await?;
    let wished = async {
        bridge(&ours, &service).await?;
        met.reverse(forward, &me, &key.private).await
    };
    let told = async {
        let _ = signal::stop().await;
        Err(Failure::plain(
            "told to end before the device had logged in",
        ))
    };
    let outcome = future::or(wished, told).await;
    guest.show_out().await;
    outcome?;
    progress.done(format!(
        "the device has logged in; it is behind port {forward}"
    ));
    Ok(forward)
}

async fn bridge(ours: &Ready, sshd: &Endpoint) -> Result<(), Failure> {
    let started = in_background(ours, Local::Service(sshd)).await;
    started.map(drop).map_err(|failure| {
        failure.hint(format!(
            "--legacy-daemon needs an sshd here, at {sshd}: --local-sshd-port"
        ))
    })
}

/// A key in our own `authorized_keys`, as long as we live.
struct Guest {
    keys: AuthorizedKeys,
    session: Option<String>,
}

impl Guest {
    async fn let_in(line: String, session: String) -> Result<Self, Failure> {
        let let_in = task::spawn_blocking(move || {
            let keys = AuthorizedKeys::of_this_user()?;
            // What an earlier one that crashed left behind.
            keys.remove_stale()?;
            keys.add_session_key(&line, &session)?;
            Ok::<_, std::io::Error>(Self {
                keys,
                session: Some(session),
            })
        });
        let failed = |error| Failure::plain(format!("cannot let the device in: {error}"));
        let_in.await.map_err(failed)
    }

    async fn show_out(&mut self) {
        if let Some(session) = self.session.take() {
            let keys = self.keys.clone();
            let gone = task::spawn_blocking(move || keys.remove_session(&session));
            if let Err(error) = gone.await {
                warn!("authorized_keys=not_restored reason={error}");
            }
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if let Some(session) = self.session.take()
            && let Err(error) = self.keys.remove_session(&session)
        {
            warn!("authorized_keys=not_restored reason={error}");
        }
    }
}
