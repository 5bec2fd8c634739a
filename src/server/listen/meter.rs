//! What the server counts.

use crate::server::count::Count;

/// What has happened since the start.
#[derive(Default)]
pub(super) struct ServerMeter {
    pub accepted: Count,
    pub handshakes_failed: Count,
    pub commands: Count,
    pub logins: Count,
    pub logins_failed: Count,
    pub pushed: Count,
}
