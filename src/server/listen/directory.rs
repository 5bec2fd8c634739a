//! One connection to the atDirectory.

use std::time::Duration;

use async_std::{future::timeout, task};
use futures_lite::AsyncReadExt;

use crate::server::directory::{DirectoryRequest, Enquiry};

use super::{connection, hub::Hub, visitor::Visitor};

pub(super) async fn serve(hub: &Hub, mut visitor: Visitor) {
    let session = hub.stoppable(talk(hub, &mut visitor));
    session.await;
    connection::close(&mut visitor.stream).await;
}

/// Ends when either side has had enough.
async fn talk(hub: &Hub, visitor: &mut Visitor) -> Option<()> {
    let timings = &hub.options.timings;
    let (stream, mut enquiry) = (&mut visitor.stream, Enquiry::new());
    connection::send(stream, Enquiry::GREETING, timings.write)
        .await
        .ok()?;
    let mut buffer = [0; 1024];
    loop {
        let in_time = timeout(timings.directory_idle, stream.read(&mut buffer)).await;
        let read = in_time.ok()?.ok().filter(|read| *read > 0)?;
        visitor.pass.spoke();
        for step in enquiry.push(&buffer[..read]) {
            let DirectoryRequest::Lookup(bare) = step else {
                return None;
            };
            let found = hub.find(&bare);
            let answer = enquiry.answer(found.as_ref().map(|(host, port)| (host.as_str(), *port)));
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
