//! Public values for clients that speak HTTP: the same port, told apart by what a client offers in its TLS greeting.
//!
//! ```text
//!   GET /@alice/_apsk.primary.a.__e HTTP/1.1   ─▶ 200, the value of public:_apsk.primary.a.__e@alice as it is
//!                                                 404 there is none   405 not GET   400 not HTTP
//! ```
//!
//! One request per connection. A value is text, and is never to be taken for anything else: whoever put it there may
//! have put a page there. Who does not offer HTTP is greeted with `@` like everybody, and can make nothing of it.
//!
//! Source: at_server:packages/at_secondary_server/CHANGELOG.md (3.2, 3.6).

use std::{sync::Arc, time::Instant};

use async_std::future::timeout;
use futures_lite::AsyncReadExt;

use crate::{
    at::AtSign,
    budget::Claim,
    net::network::network_of,
    server::{clock::now, http, session::public_value, store::StoreError},
};

use super::{
    board::House,
    connection,
    gate::{LOOKS_OF_ONE, Standing},
    hub::Hub,
    load::{Load, time_for},
    visitor::Visitor,
};

/// Longest request with its head, in bytes.
const MAX_HEAD: usize = 8 * 1024;

/// Answers one request.
pub(super) async fn serve(hub: &Arc<Hub>, house: &Arc<House>, mut visitor: Visitor) {
    let served = async {
        let stranger = Standing::Stranger(house.home.who.clone());
        let fits = visitor.pass.becomes(stranger, Instant::now());
        fits.then_some(())?;
        let head = head(hub, &mut visitor).await?;
        hub.meter.commands.add(1);
        let claim = Claim::of(network_of(visitor.from), LOOKS_OF_ONE);
        let place = hub.looks.wait(claim).await;
        let answer = answer(hub, house, &head).await;
        let (mut load, whose) = (Load::default(), (visitor.from, visitor.pass.standing()));
        load.set(&hub.bytes, whose, answer.len()).ok()?;
        drop(place);
        let within = hub.options.timings.write;
        let limit = Some(time_for(answer.len(), within));
        load.send(&mut visitor.stream, answer.as_bytes(), within, limit)
            .await
            .ok()
    };
    hub.stoppable(served).await;
    connection::close(&mut visitor.stream).await;
}

/// The request up to its empty line. `None`: it did not come in time, or is too long to be one.
async fn head(hub: &Hub, visitor: &mut Visitor) -> Option<Vec<u8>> {
    let timings = &hub.options.timings;
    let until = Instant::now() + timings.handshake.min(timings.login);
    let (mut head, mut buffer) = (Vec::new(), [0; 1024]);
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let left = until.saturating_duration_since(Instant::now());
        let in_time = timeout(left, visitor.stream.read(&mut buffer)).await;
        let read = in_time.ok()?.ok().filter(|read| *read > 0)?;
        head.extend_from_slice(&buffer[..read]);
        if head.len() > MAX_HEAD {
            return None;
        }
    }
    Some(head)
}

async fn answer(hub: &Hub, house: &House, head: &[u8]) -> String {
    let (who, entity) = match target(head) {
        Ok(target) => target,
        Err(status) => return reply(status, ""),
    };
    if who != house.home.who {
        return reply("404 Not Found", "");
    }
    let (home, now) = (house.home.clone(), now());
    let found = hub
        .store
        .read(move |tx| public_value(tx, &home, &entity, now));
    match found.await {
        Ok(Some(value)) => reply("200 OK", &value),
        Ok(None) => reply("404 Not Found", ""),
        Err(why) => {
            let why: StoreError = why;
            log::warn!("to={who} http=failed reason={why}");
            reply("503 Service Unavailable", "")
        }
    }
}

fn reply(status: &str, body: &str) -> String {
    const GUARDED: &str = "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n";
    http::answer(status, "charset=utf-8", GUARDED, body)
}

/// Whose value is asked for, and which; or the status to answer with.
fn target(head: &[u8]) -> Result<(AtSign, String), &'static str> {
    const BAD: &str = "400 Bad Request";
    let head = str::from_utf8(head).map_err(|_| BAD)?;
    let mut words = head.lines().next().unwrap_or_default().split(' ');
    let (method, target, version) = (words.next(), words.next(), words.next());
    if !version.is_some_and(|version| version.starts_with("HTTP/1.")) || words.next().is_some() {
        return Err(BAD);
    }
    if method != Some("GET") {
        return Err("405 Method Not Allowed");
    }
    let target = target.unwrap_or_default();
    let path = target.split(['?', '#']).next().unwrap_or_default();
    let missing = "404 Not Found";
    let (who, entity) = path
        .strip_prefix('/')
        .and_then(|path| path.split_once('/'))
        .ok_or(missing)?;
    let (who, entity) = (decoded(who).ok_or(BAD)?, decoded(entity).ok_or(BAD)?);
    let bare = who.strip_prefix('@').ok_or(missing)?;
    let who: AtSign = bare.parse().map_err(|_| missing)?;
    let plain = |c: char| !matches!(c, ':' | '@' | '/') && !c.is_whitespace() && !c.is_control();
    if entity.is_empty() || !entity.chars().all(plain) {
        return Err(missing);
    }
    Ok((who, entity))
}

/// Undoes `%40`. `None`: what comes of it is no text.
fn decoded(text: &str) -> Option<String> {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        let byte = match first {
            b'%' => {
                let (digits, tail) = tail.split_at_checked(2)?;
                rest = tail;
                let digits = str::from_utf8(digits).ok()?;
                // A sign would be read as part of a number.
                let hex = digits.bytes().all(|b| b.is_ascii_hexdigit());
                u8::from_str_radix(digits, 16).ok().filter(|_| hex)?
            }
            byte => *byte,
        };
        bytes.push(byte);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_request_names_an_atsign_and_a_key_and_nothing_else_passes() {
        let bad = Err("400 Bad Request");
        let missing = Err("404 Not Found");
        for (line, want) in [
            ("GET /@alice/card.ns HTTP/1.1", Ok(("@alice", "card.ns"))),
            (
                "GET /%40Alice/card.ns?x=1 HTTP/1.0",
                Ok(("@alice", "card.ns")),
            ),
            (
                "GET /@alice%F0%9F%9B%A0/_apsk.primary.a.__e HTTP/1.1",
                Ok(("@alice\u{1f6e0}", "_apsk.primary.a.__e")),
            ),
            ("GET / HTTP/1.1", missing),
            ("GET /alice/card HTTP/1.1", missing),
            ("GET /@alice/ HTTP/1.1", missing),
            ("GET /@alice/a/b HTTP/1.1", missing),
            ("GET /@alice/a%3Ab HTTP/1.1", missing),
            ("GET /@alice/x%40bob HTTP/1.1", missing),
            ("GET /@alice/a%0Ab HTTP/1.1", missing),
            ("GET /@al%2/x HTTP/1.1", bad),
            ("GET /@alice/%+1 HTTP/1.1", bad),
            ("GET /@alice/%ff HTTP/1.1", bad),
            ("GET /@alice/x", bad),
            ("GET /@alice/x y HTTP/1.1", bad),
            ("from:@alice", bad),
            ("", bad),
            ("POST /@alice/x HTTP/1.1", Err("405 Method Not Allowed")),
        ] {
            let got = target(format!("{line}\r\nHost: x\r\n\r\n").as_bytes());
            let got = got.as_ref().map(|(who, key)| (who.as_str(), key.as_str()));
            assert_eq!(got.map_err(|status| *status), want, "{line}");
        }
        assert!(target(b"\xff\xfe\r\n\r\n").is_err());
    }

    #[test]
    fn a_value_is_counted_in_bytes_and_never_a_page() {
        let reply = reply("200 OK", "<b>\u{1f512}");
        assert!(reply.contains("Content-Length: 7\r\n"), "{reply}");
        assert!(
            reply.contains("text/plain") && reply.contains("nosniff"),
            "{reply}"
        );
    }
}
