//! A bridge as a process of its own, so that the session outlives the daemon that opened it.
//!
//! ```text
//!   daemon ── words: no secret in them ──▶ noports bridge …
//!          ── stdin: one line of JSON ───▶
//!          ◀── stderr: started, or a report of what failed
//! ```

use std::{fmt::Write, io, time::Duration};

use async_std::future::timeout;
use base64::{Engine, engine::general_purpose::STANDARD};
use futures_lite::{AsyncBufReadExt, AsyncRead, AsyncReadExt, StreamExt, io::BufReader};
use zeroize::Zeroizing;

use super::{Local, Plan, Report, STARTED};
use crate::{
    pipe::cipher::{KeyAndIv, Side},
    secret::Secret,
    sys::process,
};

/// Why a bridge process did not get ready.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ChildError {
    #[error("cannot start a bridge: {0}")]
    Start(io::Error),
    #[error("{}", .0.why)]
    Reported(Report),
    #[error("the bridge ended before it was ready")]
    Ended,
    #[error("the bridge was not ready within {0:?}")]
    TimedOut(Duration),
}

/// Starts a bridge process for a plan that dials its local service, and waits until it is ready.
/// From then on it needs nobody.
///
/// # Errors
/// See [`ChildError`]; a process that is not ready in time is ended.
pub async fn start(plan: &Plan, within: Duration) -> Result<(), ChildError> {
    let words = words(plan).map_err(ChildError::Start)?;
    let secrets = secrets(plan);
    let readied = async {
        let child = process::spawn_own(&words, secrets.reveal().as_bytes()).await;
        let mut child = child.map_err(ChildError::Start)?;
        let stderr = child.stderr.take().ok_or(ChildError::Ended)?;
        Ok((child, stderr))
    };
    let (mut child, stderr) = readied.await?;
    let outcome = until_started(stderr, within).await;
    if outcome.is_err() {
        let _ = child.kill();
    }
    outcome
}

/// The words behind the program's name.
fn words(plan: &Plan) -> io::Result<Vec<String>> {
    let Local::Dial(service) = &plan.local else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "only a plan that dials can be handed over",
        ));
    };
    let mut words = vec!["bridge".to_owned(), "--secrets-on-stdin".to_owned()];
    let mut option = |name: &str, value: String| words.extend([name.to_owned(), value]);
    option("--host", plan.rendezvous.host.clone());
    option("--port", plan.rendezvous.port.to_string());
    option("--local-host", service.host.clone());
    option("--local-port", service.port.to_string());
    option("--timeout", plan.timeout.as_secs().to_string());
    if plan.admission.is_some() {
        words.push("--rv-auth".to_owned());
    }
    if plan.keys.is_some() {
        words.push("--rv-e2ee".to_owned());
    }
    Ok(words)
}

/// The line on stdin, with its LF.
fn secrets(plan: &Plan) -> Secret<String> {
    let side = match plan.side {
        Side::Client => "client",
        Side::Device => "device",
    };
    // Never grows, so that no copy of a secret is left behind.
    let admission = plan.admission.as_ref().map_or("", |line| line.reveal());
    let mut text = String::with_capacity(6 * admission.len() + ROOM_FOR_KEYS);
    let _ = write!(text, r#"{{"side":"{side}""#);
    if plan.admission.is_some() {
        let quoted = Zeroizing::new(miniserde::json::to_string(admission));
        let _ = write!(text, r#","auth":{}"#, *quoted);
    }
    let mut pair = |way: &str, (key, iv): &KeyAndIv| {
        let key = Zeroizing::new(STANDARD.encode(key.reveal()));
        let iv = STANDARD.encode(iv);
        let _ = write!(text, r#","aes{way}":"{}","iv{way}":"{iv}""#, *key);
    };
    if let Some(keys) = &plan.keys {
        pair("C2D", &keys.c2d);
        if let Some(d2c) = &keys.d2c {
            pair("D2C", d2c);
        }
    }
    text.push_str("}\n");
    Secret::new(text)
}

async fn until_started<R: AsyncRead + Unpin>(
    stderr: R,
    within: Duration,
) -> Result<(), ChildError> {
    let mut lines = BufReader::new(stderr.take(MOST_WORDS)).lines();
    let started = async {
        while let Some(Ok(line)) = lines.next().await {
            if line == STARTED {
                return Ok(());
            }
            if let Ok(report) = line.parse() {
                return Err(ChildError::Reported(report));
            }
        }
        Err(ChildError::Ended)
    };
    timeout(within, started)
        .await
        .unwrap_or(Err(ChildError::TimedOut(within)))
}

/// What a bridge may say before it is ready.
const MOST_WORDS: u64 = 64 * 1024;
/// Four base64 texts with their names.
const ROOM_FOR_KEYS: usize = 512;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use async_std::task::block_on;
    use futures_lite::io::Cursor;

    use super::*;
    use crate::{
        cmd::bridge::{Step, argv},
        pipe::cipher::SessionKeys,
    };

    const SOON: Duration = Duration::from_secs(10);

    fn plan(admission: Option<&str>, keys: Option<SessionKeys>) -> Plan {
        Plan {
            local: Local::Dial("[::1]:22".parse().unwrap()),
            rendezvous: "rv.example:40189".parse().unwrap(),
            admission: admission.map(|line| Secret::new(line.to_owned())),
            keys,
            side: Side::Device,
            timeout: Duration::from_secs(9),
        }
    }

    #[test]
    fn a_plan_survives_being_handed_over() {
        let pair = |byte| (Secret::new([byte; 32]), [byte; 16]);
        let keys = |d2c| SessionKeys { c2d: pair(1), d2c };
        let line = "{\"payload\":{\"a\":\"\u{e9}\\\"\"}}";
        for (admission, keys) in [
            (None, None),
            (Some(line), None),
            (None, Some(keys(None))),
            (Some(line), Some(keys(Some(pair(2))))),
        ] {
            let sent = plan(admission, keys);
            let (words, secrets) = (words(&sent).unwrap(), secrets(&sent));
            let words: Vec<&str> = words.iter().skip(1).map(String::as_str).collect();
            let got = argv::read_plan(&words, secrets.reveal().trim_end().as_bytes()).unwrap();
            let Local::Dial(service) = &got.local else {
                panic!("{got:?}");
            };
            assert_eq!(service.to_string(), "[::1]:22");
            assert_eq!(got.rendezvous, sent.rendezvous);
            assert_eq!(got.admission, sent.admission);
            assert_eq!((got.side, got.timeout), (sent.side, sent.timeout));
            let both = |keys: Option<SessionKeys>| keys.map(|keys| (keys.c2d, keys.d2c));
            assert_eq!(both(got.keys), both(sent.keys));
        }
    }

    #[test]
    fn no_secret_is_among_the_words() {
        let keys = SessionKeys::parse((KEY, IV), None).unwrap();
        let words = words(&plan(Some("the line"), Some(keys)))
            .unwrap()
            .join(" ");
        assert_eq!(
            words,
            "bridge --secrets-on-stdin --host rv.example --port 40189 --local-host ::1 --local-port 22 --timeout 9 --rv-auth --rv-e2ee"
        );
    }

    const KEY: &str = "oKGio6SlpqeoqaqrrK2ur7CxsrO0tba3uLm6u7y9vr8=";
    const IV: &str = "AQIDBAUGBwgJCgsMDQ4PEA==";

    #[test]
    fn what_a_bridge_says_decides() {
        let refused = Report {
            step: Step::Local,
            why: "connection refused".to_owned(),
        };
        let hear = |said: String| block_on(until_started(Cursor::new(said.into_bytes()), SOON));
        assert!(hear(format!("some log line\n{STARTED}\n")).is_ok());
        let error = hear(format!("{refused}\nException running srv : x\n")).unwrap_err();
        assert!(matches!(&error, ChildError::Reported(report) if *report == refused));
        assert_eq!(error.to_string(), "connection refused");
        for said in ["", "rv started", "x\n"] {
            let error = hear(said.to_owned()).unwrap_err();
            assert!(matches!(error, ChildError::Ended), "{said}");
        }
        let endless = futures_lite::io::repeat(b'x');
        assert!(matches!(
            block_on(until_started(endless, SOON)),
            Err(ChildError::Ended)
        ));
    }

    #[test]
    fn a_bridge_that_says_nothing_is_not_waited_for() {
        let (_kept, silent) = async_std::os::unix::net::UnixStream::pair().unwrap();
        let short = Duration::from_millis(30);
        let error = block_on(until_started(silent, short)).unwrap_err();
        assert!(matches!(error, ChildError::TimedOut(_)));
    }
}
