//! One connection to another server: a command goes out, its reply comes back.

use std::{io, time::Duration};

use async_std::future::timeout;
use futures_lite::{AsyncReadExt, AsyncWriteExt, future::poll_once};

use crate::{
    at::{
        AtKey, AtSign, Metadata, Replies, Reply, Verb,
        client::AtError,
        fault::{Code, Fault},
        reply::{MAX_LINE, Mode, WireError},
        verb::{Notify, Subject},
    },
    budget::Hold,
    net::tls::{TlsError, TlsStream},
    server::{
        session::OutgoingParty,
        store::{StoreError, notes::Note},
    },
};

/// Why another server could not be asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum PeerError {
    #[error(transparent)]
    Directory(#[from] AtError),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0}")]
    Refused(Fault),
    #[error("{0} did not let us in")]
    Handshake(AtSign),
    #[error("too many connections to other servers")]
    TooMany,
    #[error("it was silent within the last minute")]
    SilentLately,
    #[error("no answer in time")]
    TimedOut(#[from] async_std::future::TimeoutError),
}

impl PeerError {
    /// The other side has gone, in one way or another: not an answer.
    pub(super) fn is_a_closed_connection(&self) -> bool {
        matches!(
            self,
            Self::Io(_) | Self::Tls(_) | Self::Wire(_) | Self::TimedOut(_)
        )
    }
}

/// Longest answer that is a key or a proof, in bytes.
pub(super) const MAX_SHORT: usize = 64 * 1024;

/// One connection to another server.
pub(super) struct PeerConnection {
    stream: TlsStream,
    replies: Replies,
    within: Duration,
    /// Longest answer that is read, in bytes.
    most: usize,
    /// Used before: the other side may have closed it without our knowing yet.
    pub is_old: bool,
    _place: Option<Hold<OutgoingParty>>,
}

impl PeerConnection {
    pub(super) fn new(
        stream: TlsStream,
        within: Duration,
        place: Option<Hold<OutgoingParty>>,
    ) -> Self {
        Self {
            stream,
            replies: Replies::new(Mode::Request),
            within,
            most: MAX_LINE,
            is_old: false,
            _place: place,
        }
    }

    /// Whether nothing has come that nobody asked for: not even the end.
    pub(super) async fn is_quiet(&mut self) -> bool {
        poll_once(self.stream.read(&mut [0; 1])).await.is_none()
    }

    /// Delivers those that have not been yet, in order. One that is too long for the other server, or that no command
    /// can carry, stays so: it is not tried again, and does not stop those behind it.
    pub(super) async fn hand_over(
        &mut self,
        notes: &[Note],
        sent: &mut Vec<bool>,
    ) -> Result<(), PeerError> {
        for note in notes.iter().skip(sent.len()) {
            let Some(line) = command(note).and_then(|command| command.line().ok()) else {
                let (from, to) = (&note.from, &note.to);
                log::warn!("from={from} to={to} reason=\"no command can carry it\"");
                sent.push(false);
                continue;
            };
            let too_long = |fault: &Fault| fault.code == Some(Code::BufferLimit);
            match self.data(&line).await {
                Ok(_) => sent.push(true),
                Err(PeerError::Refused(fault)) if too_long(&fault) => sent.push(false),
                Err(why) => return Err(why),
            }
        }
        Ok(())
    }

    /// Sends a command, returns the text behind `data:`.
    pub(super) async fn data(&mut self, line: &str) -> Result<String, PeerError> {
        match self.ask(line).await? {
            Reply::Data(text) => Ok(text),
            Reply::Error(fault) => Err(PeerError::Refused(fault)),
            _ => Err(WireError::Unknown.into()),
        }
    }

    /// Sends `pol` and waits for the prompt that says who we are.
    pub(super) async fn pol(&mut self, me: &AtSign) -> Result<(), PeerError> {
        self.replies.expect_prompt();
        match self.ask(&Verb::Pol.to_string()).await? {
            Reply::Prompt(prompt) if prompt.trim_matches('@') == me.bare() => Ok(()),
            Reply::Error(fault) => Err(PeerError::Refused(fault)),
            _ => Err(PeerError::Handshake(me.clone())),
        }
    }

    /// The same, when all that is wanted is short: what is longer is not read.
    pub(super) async fn short_data(&mut self, line: &str) -> Result<String, PeerError> {
        self.most = MAX_SHORT;
        let data = self.data(line).await;
        self.most = MAX_LINE;
        data
    }

    async fn ask(&mut self, line: &str) -> Result<Reply, PeerError> {
        let within = self.within;
        timeout(within, self.exchange(line)).await?
    }

    async fn exchange(&mut self, line: &str) -> Result<Reply, PeerError> {
        let mut all = 0;
        self.stream
            .write_all(format!("{line}\n").as_bytes())
            .await?;
        self.stream.flush().await?;
        let mut buffer = [0; 4096];
        loop {
            if let Some(reply) = self.replies.pop()? {
                return Ok(reply);
            }
            let read = self.stream.read(&mut buffer).await?;
            if read == 0 {
                return match self.replies.finish()? {
                    Some(reply) => Ok(reply),
                    None => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                };
            }
            all += read;
            // Prompts come with it.
            if all > self.most + buffer.len() {
                return Err(WireError::TooLong.into());
            }
            self.replies.push(&buffer[..read]);
        }
    }

    pub(super) async fn close(mut self) {
        let _ = timeout(Duration::from_secs(1), self.stream.close()).await;
    }
}

/// The command that hands a note to the recipient's server, in the order that servers of 2024 read. `None`: its key is
/// none.
pub(super) fn command(note: &Note) -> Option<Verb> {
    let subject = if note.is_text {
        let to = note.to.clone();
        let text = note.key.strip_prefix(to.as_str())?.strip_prefix(':')?;
        Subject::Text {
            text: text.to_owned(),
            to,
        }
    } else {
        let key = AtKey::parse_as_written(&note.key).ok()?;
        Subject::Key { to: None, key }
    };
    let metadata = Metadata {
        is_encrypted: Some(note.is_encrypted),
        ..note.meta.to_command()
    };
    Some(Verb::Notify(Box::new(Notify {
        id: Some(note.id.clone()),
        operation: Some(note.operation),
        priority: None,
        strategy: None,
        latest_n: None,
        notifier: Some(note.notifier.clone()),
        ttln: Some(note.ttln),
        message_type: true,
        metadata,
        subject,
        value: note.value.clone(),
    })))
}
