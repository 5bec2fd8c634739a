//! How long the client waits for what.

use std::time::Duration;

/// Every wait of the client. The default is meant for real networks; tests use milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// For TCP, and again for the TLS handshake.
    pub connect: Duration,
    /// For `from` and `pkam` together.
    pub login: Duration,
    /// For the answer to one command. Servers wait up to 10 s for other servers.
    pub reply: Duration,
    /// For one command with everything it may need: waiting in line, reconnecting, one repetition.
    pub call: Duration,
    /// A quiet command connection is proved with `noop:0` after this long, so that the next command finds it alive.
    /// One for look-ups is closed.
    pub idle: Duration,
    /// A monitor that heard no byte for this long asks `noop:0`. A little more than half of the 15 s after which atServers tell
    /// their statistics: one question between two of these, and a server whose name has moved is left within 10 s.
    pub silence: Duration,
    /// A connection that is asked `noop:0` and says nothing for this long is dead. Where answers take longer nobody could
    /// log in, either.
    pub proof: Duration,
    /// One that says nothing for this long is doubted: the client's others are proved too, and whether the server's name
    /// leads elsewhere by now is looked up.
    pub doubt: Duration,
    /// A monitor that waits this long for the rest of a line is dead, however many bytes drip in.
    pub line: Duration,
    /// As `proof`, when there is a reason of ours to doubt: an address that is gone, a sleep. With 5 s until that is seen and
    /// a new login it makes less than 10 s.
    pub prompt: Duration,
    /// First and longest pause before reconnecting. Whoever waits for a server that restarts is back with it in
    /// under ten seconds, however often it does.
    pub retry: (Duration, Duration),
    /// Between `monitor` and the `noop:0` that proves it: servers read what comes together as one command.
    pub settle: Duration,
    /// Between two logins with keys that the server will not have any more: revoked, denied, expired.
    pub barred: Duration,
    /// For another atSign's key, where others wait for theirs.
    pub lookup: Duration,
    /// How long keys of others, looked up once, are believed.
    pub remember: Duration,
}

/// Within this a connection that has died in silence is replaced, unless somebody chose another time. NATs that forget
/// are common, and whoever waits for a device gives up after 20 to 30 s.
pub const PROOF: Duration = Duration::from_secs(20);

impl Timing {
    /// A connection that has died in silence is replaced within about this time. What it costs: see `--proof`.
    pub fn proving(within: Duration) -> Self {
        Self {
            silence: within * 38 / 100,
            proof: within / 5,
            idle: within * 3 / 2,
            ..Self::default()
        }
    }
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            login: Duration::from_secs(10),
            reply: Duration::from_secs(15),
            call: Duration::from_secs(30),
            idle: Duration::from_secs(30),
            silence: Duration::from_millis(7_600),
            proof: Duration::from_secs(4),
            doubt: Duration::from_millis(500),
            prompt: Duration::from_secs(2),
            line: Duration::from_secs(120),
            retry: (Duration::from_secs(1), Duration::from_secs(8)),
            settle: Duration::from_millis(50),
            barred: Duration::from_secs(120),
            lookup: Duration::from_secs(3),
            remember: Duration::from_secs(5 * 60),
        }
    }
}
