//! One connection to the atDirectory.

use std::time::{Duration, Instant};

use async_std::{future::timeout, task};
use futures_lite::AsyncReadExt;

use crate::server::directory::{DirectoryRequest, Enquiry};

use super::{connection, gate::Standing, hub::Hub, visitor::Visitor};

pub(super) async fn serve(hub: &Hub, mut visitor: Visitor) {
    let session = hub.stoppable(talk(hub, &mut visitor));
    session.await;
    connection::close(&mut visitor.stream).await;
}

/// Ends when either side has had enough.
async fn talk(hub: &Hub, visitor: &mut Visitor) -> Option<()> {
    let timings = &hub.options.timings;
    let (stream, mut enquiry) = (&mut visitor.stream, Enquiry::new());
    visitor
        .pass
        .becomes(Standing::Enquirer, Instant::now())
        .then_some(())?;
    connection::send(stream, Enquiry::GREETING, timings.write)
        .await
        .ok()?;
    let (mut buffer, mut asked) = ([0; 1024], Instant::now());
    loop {
        // Of a line that never ends each byte is not a sign of life.
        let left = (asked + timings.directory_idle).saturating_duration_since(Instant::now());
        let in_time = timeout(left, stream.read(&mut buffer)).await;
        let read = in_time.ok()?.ok().filter(|read| *read > 0)?;
        for step in enquiry.push(&buffer[..read]) {
            asked = Instant::now();
            let DirectoryRequest::Lookup(bare) = step else {
                return None;
            };
            let found = hub.find(&bare);
            let answer = enquiry.answer(found.as_ref());
            if answer.delay > Duration::ZERO {
                task::sleep(answer.delay).await;
            }
            if !answer.bytes.is_empty() {
                connection::send(stream, &answer.bytes, timings.write)
                    .await
                    .ok()?;
            }
            if answer.close {
                return None;
            }
        }
    }
}
