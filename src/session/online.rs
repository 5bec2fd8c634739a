//! What all services share: logging in however long it takes, sending a message, ending on a
//! signal.

use std::{
    future::Future,
    io,
    ops::RangeInclusive,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use futures_lite::future;
use log::{error, info, warn};

use super::ignored;
use crate::{
    at::{
        Notification,
        client::{
            AtError, Client, Event, Network, Outgoing, RESTART, Subscription, Timing, jitter,
        },
        fault::Code,
        keyfile::AtKeys,
        metadata::Metadata,
        pins::PinError,
    },
    cli::{self, Failure},
    net::backoff::Backoff,
    np::{self, Message},
    sys::{
        signal::{self, Stop},
        supervisor::{self, ServiceState},
    },
    text::duration::{in_words, seconds},
};

/// A service that has neither heard its atServer nor tried to reach it for so long is given up: whoever
/// watches over it starts it again. Longer than most outages, because a new start does not end those.
const GIVE_UP: Duration = Duration::from_secs(900);
/// First pause after a login that did not work.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// Longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

/// Shortest and longest time for `--proof`, in seconds: an answer takes seconds on a slow line; after 10 minutes an outage
/// is none that anybody waits for.
const PROOF_SECONDS: RangeInclusive<u64> = 10..=600;

/// The value of `--proof`.
///
/// # Errors
/// What is possible, when it is something else.
pub fn proof_time(text: &str) -> Result<Duration, String> {
    let time = seconds(text)?;
    if PROOF_SECONDS.contains(&time.as_secs()) {
        return Ok(time);
    }
    Err(format!("{text:?} is not between 10s and 10m"))
}

/// Logs in and subscribes; where nobody can be reached, tries again with growing pauses. From then on a connection that
/// has died in silence is replaced within about `proof`.
///
/// # Errors
/// When trying again cannot help: the login is refused, there is no such atSign. Keys that were revoked, denied
/// or have expired end a service that somebody started by hand; one that is watched over asks again, rarely.
pub async fn log_in(
    network: &Network,
    keys: &Arc<AtKeys>,
    watch: &str,
    proof: Duration,
) -> Result<(Client, Subscription), Failure> {
    alone()?;
    supervisor::tell(
        ServiceState::Starting,
        &format!("logging in as {}", keys.atsign),
    );
    let tried = Mutex::new(Instant::now());
    let silence = || {
        let tried = tried.lock().unwrap_or_else(PoisonError::into_inner);
        tried.elapsed()
    };
    let trying = log_in_again(network, keys, watch, Timing::proving(proof), &tried);
    let both = future::or(trying, supervisor::keep_alive(silence, GIVE_UP)).await?;
    supervisor::tell(ServiceState::Connected, &format!("as {}", keys.atsign));
    Ok(both)
}

/// Two of one service would answer everybody twice.
///
/// # Errors
/// When the service runs already.
pub fn alone() -> Result<(), Failure> {
    supervisor::be_alone().map_err(|_| {
        let words = "noports service status; noports service restart";
        let hint = match supervisor::who_is_there() {
            Some(who) => format!("{who} holds its lock; {words}"),
            None => words.to_owned(),
        };
        Failure::plain("this service is already running, or another program holds its lock")
            .hint(hint)
    })
}

async fn log_in_again(
    network: &Network,
    keys: &Arc<AtKeys>,
    watch: &str,
    timing: Timing,
    tried: &Mutex<Instant>,
) -> Result<(Client, Subscription), Failure> {
    let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    loop {
        *tried.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        let limit = np::MAX_NOTE_LINE;
        let both = Client::login_and_subscribe(network, keys.clone(), watch, limit, timing);
        let error = match both.await {
            Ok((client, inbox)) => {
                client.serve_others();
                return Ok((client, inbox));
            }
            Err(error) => error,
        };
        let reason = error.to_string();
        if let Some(words) = error.final_word().filter(|_| supervisor::is_watched()) {
            // Whoever watches over it would start it again every few seconds. The keys may be given back.
            supervisor::tell(ServiceState::Lost, words);
            let again = timing.barred;
            error!(
                "as={} reason={words:?} again_in={} hint={RESTART:?}",
                keys.atsign,
                in_words(again)
            );
            async_std::task::sleep(again).await;
            continue;
        }
        supervisor::tell(ServiceState::Lost, &reason);
        if !error.may_pass() {
            return Err(error.into());
        }
        let pause = backoff.pause(jitter());
        // Only what somebody may have to mend: the network comes back by itself.
        let hint = match &error {
            AtError::Tls { .. } => error.hint().map(|hint| format!(" hint={hint:?}")),
            _ => None,
        };
        warn!(
            "as={} reason={reason:?} again_in={:.1}s{}",
            keys.atsign,
            pause.as_secs_f64(),
            hint.unwrap_or_default()
        );
        async_std::task::sleep(pause).await;
    }
}

/// This machine's clock; before 1970 counts as 1970.
pub fn since_1970() -> Duration {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default()
}

/// Why a notification that was to be opened holds no text; as a log says it.
pub fn unread(opened: Result<Option<String>, AtError>) -> String {
    match opened {
        Err(error) => error.to_string(),
        Ok(_) => "it holds no text".to_owned(),
    }
}

/// Encrypts and sends one message.
///
/// # Errors
/// When our own atServer does not take it.
pub async fn send(at: &Client, message: &Message) -> Result<(), AtError> {
    send_for(at, message, np::NOTE_TTL).await
}

/// The same for a notification that lives this many milliseconds.
async fn send_for(at: &Client, message: &Message, ttln: u64) -> Result<(), AtError> {
    at.notify(&note(message, ttln)).await.map(drop)
}

fn note(message: &Message, ttln: u64) -> Outgoing {
    Outgoing {
        to: message.to.clone(),
        entity: message.entity.clone(),
        text: message.text.clone(),
        ttl: Some(np::VALUE_TTL),
        ttln,
        metadata: Metadata::default(),
    }
}

/// Sends; where the receiver's key is refused, sends what is made of that instead: whoever has new keys has to learn why
/// nothing comes. It goes to the refused key, so there must be nothing in it that others may not know.
pub async fn send_or_refuse(
    at: &Client,
    message: &Message,
    refusal: impl FnOnce(&PinError) -> Message,
) {
    let outcome = match send(at, message).await {
        Err(AtError::Pin(changed)) => {
            let refusal = note(&refusal(&changed), np::NOTE_TTL);
            at.notify_anybody(&refusal).await.map(drop)
        }
        outcome => outcome,
    };
    log_unsent(message, outcome);
}

/// Sends, and leaves it at a line in the log when that fails: the peer asks again.
pub async fn send_or_log(at: &Client, message: &Message) {
    send_living(at, message, np::NOTE_TTL).await;
}

/// The same for a notification that lives this many milliseconds.
pub async fn send_living(at: &Client, message: &Message, ttln: u64) {
    log_unsent(message, send_for(at, message, ttln).await);
}

fn log_unsent(message: &Message, outcome: Result<(), AtError>) {
    let Err(error) = outcome else { return };
    let (to, entity) = (&message.to, &message.entity);
    if ignored::has_line(&format!("not_sent to={to}"), ignored::FEW) {
        let reason = if is_no_atsign(&error) {
            format!("there is no atSign {to}")
        } else {
            error.to_string()
        };
        warn!("not_sent to={to} entity={entity} reason={reason:?}");
    }
}

/// The atDirectory knows no such name.
pub fn is_no_atsign(why: &AtError) -> bool {
    matches!(why, AtError::Refused(fault) if fault.code == Some(Code::NoAtServer))
}

/// Hands every notification to `hear`, for as long as the client lives; its connection may come and go.
///
/// # Errors
/// Always: services do not end by themselves.
pub async fn listen(
    mut inbox: Subscription,
    mut hear: impl FnMut(Notification),
) -> Result<(), Failure> {
    let pulse = inbox.pulse();
    let listening = async {
        while let Some(event) = inbox.next().await {
            match event {
                Event::Note(note) => hear(*note),
                Event::Lost(why) => {
                    supervisor::tell(ServiceState::Lost, &why);
                    warn!("monitor=lost reason={why:?}");
                }
                Event::Back => {
                    supervisor::tell(ServiceState::Connected, "again");
                    info!("monitor=back");
                }
            }
        }
        Err(Failure::plain("the connection to the atServer has ended"))
    };
    future::or(
        listening,
        supervisor::keep_alive(|| pulse.last_heard(), GIVE_UP),
    )
    .await
}

/// Prints the line that says a service is ready, where a script waits for it.
pub fn tell(json: bool) -> impl FnOnce(&str) {
    move |line| {
        if json {
            cli::print_out(line);
        }
    }
}

/// Runs a service until it fails or the process is told to end. Being told is no failure.
///
/// # Errors
/// The service's.
pub async fn until_told<F>(service: F) -> Result<(), Failure>
where
    F: Future<Output = Result<(), Failure>>,
{
    until(signal::stop(), service).await
}

/// The same, for a service that says itself which signals end it.
///
/// # Errors
/// The service's.
pub async fn until(
    told: impl Future<Output = io::Result<Stop>>,
    service: impl Future<Output = Result<(), Failure>>,
) -> Result<(), Failure> {
    let told = async {
        let stop = told
            .await
            .map_err(|error| Failure::plain(format!("cannot listen for signals: {error}")))?;
        supervisor::tell(ServiceState::Stopping, "");
        info!("ending signal={stop}");
        Ok(())
    };
    future::or(service, told).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_takes_between_ten_seconds_and_ten_minutes() {
        for (text, time) in [("10", Some(10)), ("20s", Some(20)), ("10m", Some(600))] {
            assert_eq!(
                proof_time(text).ok(),
                time.map(Duration::from_secs),
                "{text}"
            );
        }
        for text in ["9", "0", "601", "1h", "-20", "soon", "10500ms", ""] {
            assert!(proof_time(text).is_err(), "{text}");
        }
    }
}
