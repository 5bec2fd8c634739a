//! Is it well, and what has it done? HTTP on a loopback port, for supervisors and Prometheus.
//!
//! ```text
//!   GET /health  ─▶ 200 ok | 503 and why
//!   GET /metrics ─▶ 200, one number a line
//! ```
//!
//! One request per connection. Nothing here is secret, but it is nobody else's business: only loopback addresses.
//! Other users of this machine can connect, so there are few places, and who asks nothing gives way to who comes.

use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use async_std::{
    future::timeout,
    net::{TcpListener, TcpStream},
    task,
};
use futures_lite::{AsyncReadExt, AsyncWriteExt, future::or};

use super::{http, listen::RunningServer};
use crate::{
    budget::{Claim, Hold, Limits, Rank},
    net::line::read_line,
};

/// Askers at a time; some of the places are for those that have asked.
pub(super) const ASKERS: Limits = Limits::new("health", 12).with_reserve(2);
/// Who asks: one address, this machine's.
const LOCAL: &str = "local";
/// For the request to come.
const REQUEST: Duration = Duration::from_secs(1);

/// Longest request line, in bytes.
const MAX_LINE: usize = 1024;
/// For the check and the answer together.
const WITHIN: Duration = Duration::from_secs(5);
/// Rest after a failed accept.
const SHORTAGE: Duration = Duration::from_millis(200);

/// Opens the port.
///
/// # Errors
/// When the address is not a loopback address, or the port is taken.
pub async fn open(at: SocketAddr) -> io::Result<TcpListener> {
    if !at.ip().is_loopback() {
        let why = format!("{} is not a loopback address", at.ip());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    TcpListener::bind(at).await
}

/// Answers for ever.
pub async fn serve(listener: &TcpListener, running: &RunningServer) {
    loop {
        match listener.accept().await {
            Ok((socket, _)) => {
                let claim = Claim::of(LOCAL, ASKERS.total);
                let Some((place, must_leave)) =
                    running.askers().take_evicting(claim, Instant::now())
                else {
                    continue;
                };
                let running = running.clone();
                task::spawn(async move {
                    let sent_away = async {
                        must_leave.told().await;
                        Ok(())
                    };
                    or(answer(socket, &place, &running), sent_away).await
                });
            }
            Err(_) => task::sleep(SHORTAGE).await,
        }
    }
}

async fn answer(
    mut socket: TcpStream,
    place: &Hold<&'static str>,
    running: &RunningServer,
) -> io::Result<()> {
    let Ok((line, _)) = read_line(&mut socket, MAX_LINE, REQUEST).await else {
        return Ok(());
    };
    let claim = Claim::of(LOCAL, ASKERS.total).rank(Rank::Known);
    if place.change(claim, Instant::now()) {
        let _ = timeout(WITHIN, reply(socket, &line, running)).await;
    }
    Ok(())
}

async fn reply(mut socket: TcpStream, line: &[u8], running: &RunningServer) -> io::Result<()> {
    let (status, body) = match target(line) {
        Some("/health") => match running.health().await {
            Ok(()) => ("200 OK", "ok\n".to_owned()),
            Err(why) => ("503 Service Unavailable", format!("{why}\n")),
        },
        Some("/metrics") => ("200 OK", running.metrics()),
        Some(_) => ("404 Not Found", "/health or /metrics\n".to_owned()),
        None => ("405 Method Not Allowed", "GET only\n".to_owned()),
    };
    // The version is that of the numbers' text format.
    let answer = http::answer(status, "version=0.0.4", "", &body);
    socket.write_all(answer.as_bytes()).await?;
    socket.shutdown(std::net::Shutdown::Write)?;
    // What else the asker sends is read, so that the answer is not lost to a reset.
    let mut rest = [0; MAX_LINE];
    while socket.read(&mut rest).await? > 0 {}
    Ok(())
}

/// What is asked for; `None`: not with GET.
fn target(line: &[u8]) -> Option<&str> {
    let line = str::from_utf8(line).ok()?;
    let target = line.strip_prefix("GET ")?.split(' ').next()?;
    target.split('?').next()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_get_is_understood_and_queries_do_not_matter() {
        for (line, want) in [
            (&b"GET /metrics HTTP/1.1"[..], Some("/metrics")),
            (b"GET /health?x=1 HTTP/1.0", Some("/health")),
            (b"POST /health HTTP/1.1", None),
            (b"\xff\xfe", None),
            (b"", None),
        ] {
            assert_eq!(target(line), want, "{line:?}");
        }
    }

    #[test]
    fn the_port_is_for_this_machine_only() {
        for at in ["0.0.0.0:0", "192.0.2.1:0", "[::]:0"] {
            let refused = task::block_on(open(at.parse().unwrap()));
            assert!(
                refused.is_err_and(|why| why.to_string().contains("loopback")),
                "{at}"
            );
        }
        assert!(task::block_on(open("127.0.0.1:0".parse().unwrap())).is_ok());
    }
}
