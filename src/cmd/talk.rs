//! A short talk with an atServer before there are keys to log in with: activation, enrolment.
//!
//! ```text
//!   Talk::open   find @alice's atServer, dial, TLS, wait for the greeting
//!   say(verb)    one command, one answer
//! ```
//!
//! With keys, use [`Client`](crate::at::client::Client) instead: it reconnects.

use std::time::Duration;

use async_std::future::timeout;
use futures_lite::{AsyncReadExt, AsyncWriteExt};

use crate::{
    at::{
        AtSign, Replies, Reply, Verb,
        client::{AtError, Network},
        directory,
        fault::Fault,
        reply::Mode,
    },
    net::{
        dial::{Endpoint, dial},
        tls::TlsStream,
    },
};

use super::common::Failure;

/// To connect; the TLS handshake has the same again.
const DIAL_TIME: Duration = Duration::from_secs(10);
/// For each answer. An enrolment makes the server write to disk, nothing slower.
const ANSWER_TIME: Duration = Duration::from_secs(30);

/// One connection to one atServer, not logged in.
pub struct Talk {
    who: AtSign,
    at: Endpoint,
    tls: TlsStream,
    replies: Replies,
}

impl Talk {
    /// Connects to this atSign's atServer.
    ///
    /// # Errors
    /// When the directory does not know it, or somebody cannot be reached.
    pub async fn open(network: &Network, who: &AtSign) -> Result<Self, Failure> {
        let found = directory::find(&network.root, &network.tls, who).await?;
        let at = found.ok_or_else(|| AtError::Unknown {
            root: network.root.to_string(),
            who: who.clone(),
        })?;
        let unreachable = |why: String| AtError::Unreachable {
            who: who.clone(),
            at: at.to_string(),
            why,
        };
        let tcp = dial(&at, DIAL_TIME)
            .await
            .map_err(|why| unreachable(why.to_string()))?;
        let tls = network.tls.connect(&at.host, tcp, DIAL_TIME).await?;
        let mut replies = Replies::new(Mode::Request);
        replies.expect_prompt();
        let mut talk = Self {
            who: who.clone(),
            at: at.clone(),
            tls,
            replies,
        };
        match talk.within(Self::next).await? {
            Reply::Prompt(_) => Ok(talk),
            Reply::Error(fault) => Err(AtError::Refused(fault).into()),
            _ => Err(AtError::Protocol(format!("{at} does not greet like an atServer")).into()),
        }
    }

    /// Sends one command: what stands behind `data:`, or the server's fault.
    ///
    /// # Errors
    /// When the connection is lost or silent.
    pub async fn say(&mut self, verb: &Verb) -> Result<Result<String, Fault>, Failure> {
        let line = crate::secret::Secret::new(format!("{verb}\n"));
        let reply = self
            .within(async |talk| {
                let sent = talk.tls.write_all(line.reveal().as_bytes()).await;
                sent.map_err(|why| talk.lost(&why.to_string()))?;
                let sent = talk.tls.flush().await;
                sent.map_err(|why| talk.lost(&why.to_string()))?;
                talk.next().await
            })
            .await?;
        match reply {
            Reply::Data(text) => Ok(Ok(text)),
            Reply::Error(fault) => Ok(Err(fault)),
            _ => Err(AtError::Protocol("the atServer's answer makes no sense".into()).into()),
        }
    }

    /// Ends the talk in good form.
    pub async fn close(mut self) {
        let _ = timeout(Duration::from_secs(1), self.tls.close()).await;
    }

    async fn within<T>(
        &mut self,
        step: impl AsyncFnOnce(&mut Self) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        match timeout(ANSWER_TIME, step(self)).await {
            Ok(done) => done,
            Err(_) => Err(AtError::Silent(ANSWER_TIME).into()),
        }
    }

    async fn next(&mut self) -> Result<Reply, Failure> {
        let mut buf = [0; 4096];
        loop {
            let popped = self.replies.pop();
            if let Some(reply) = popped.map_err(|why| self.lost(&why.to_string()))? {
                return Ok(reply);
            }
            let read = self.tls.read(&mut buf).await;
            match read.map_err(|why| self.lost(&why.to_string()))? {
                0 => {
                    let last = self.replies.finish();
                    let last = last.map_err(|why| self.lost(&why.to_string()))?;
                    return last.ok_or_else(|| self.lost("it closed the connection"));
                }
                n => self.replies.push(&buf[..n]),
            }
        }
    }

    fn lost(&self, why: &str) -> Failure {
        AtError::Unreachable {
            who: self.who.clone(),
            at: self.at.to_string(),
            why: why.to_owned(),
        }
        .into()
    }
}
