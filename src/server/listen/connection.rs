//! One connection to an atServer: reads lines, lets the session answer, and passes on what a monitor is to see.
//!
//! ```text
//!   socket ─▶ LineBuffer ─line─▶ Session ─▶ reply ─▶ socket
//!   mailbox ───────────────────────────────▶ line ─▶ socket        one task does both: replies and news never mix
//! ```

use std::{
    future::Future,
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use async_io::Timer;
use async_std::{future::timeout, task};
use futures_lite::{AsyncReadExt, AsyncWriteExt, future::race};

use crate::{
    budget::Claim,
    net::{network::network_of, tls::TlsStream},
    server::{
        clock::now,
        notification::stats_line,
        session::{
            CommandOutcome, Errand, Fetched, FollowUp, GREETING, LineAction, Login, MonitorView,
            Session, SessionStanding, StoreCommand, UncommittedOutcome, page,
        },
        store::{StoreError, Tx},
    },
};

use super::{
    board::{Guard, House, Inbox, Push},
    gate::{LOOKS_OF_ONE, Standing},
    hub::Hub,
    line_buffer::{InputLine, LineBuffer},
    load::{Load, time_for},
    visitor::Visitor,
    writes,
};

/// Bytes read at a time: most commands are far shorter, and each idle connection keeps this much.
const READ: usize = 2 * 1024;
/// Most bytes written at a time: one TLS record.
const PIECE: usize = 16 * 1024;
/// How long a client may take to hear that we hang up.
const FAREWELL: Duration = Duration::from_secs(2);

/// Serves a connection to its end.
pub(super) async fn serve(hub: &Arc<Hub>, house: &Arc<House>, visitor: Visitor) {
    let session = Session::new(house.home.clone(), house.facts.clone()).coming_from(visitor.from);
    let guard = house.enter(session.id(), visitor.stream.socket());
    log::debug!(
        "session={} from={} to={}",
        session.id(),
        visitor.from,
        house.home.who
    );
    let now = Instant::now();
    let mut line = Connection {
        hub,
        house,
        guard,
        session,
        input: LineBuffer::default(),
        unfinished: None,
        load: Load::default(),
        live: None,
        began: now,
        active: now,
        close_at: None,
        visitor,
    };
    let ended = hub.stoppable(Box::pin(line.run())).await;
    log::debug!("session={} ended={ended:?}", line.session.id());
    close(&mut line.visitor.stream).await;
}

/// Says goodbye properly: some clients take a bare end for an empty answer.
pub(super) async fn close(stream: &mut TlsStream) {
    let _ = timeout(FAREWELL, stream.close()).await;
}

/// Writes all of it, in as few pieces as can be; each must be taken within `within`.
pub(super) async fn send(stream: &mut TlsStream, bytes: &[u8], within: Duration) -> io::Result<()> {
    for piece in bytes.chunks(PIECE) {
        in_time(within, stream.write_all(piece)).await?;
    }
    in_time(within, stream.flush()).await
}

async fn in_time(within: Duration, work: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    let late = |_| Err(io::ErrorKind::TimedOut.into());
    timeout(within, work).await.unwrap_or_else(late)
}

/// Why a connection ends.
#[derive(Debug)]
enum DisconnectReason {
    /// The client, or our answer, ended it.
    Done,
    /// It took too long to log in, or was silent for too long.
    Silent,
    /// It read too slowly what its monitor showed.
    Slow,
    /// Others needed the memory that it held.
    Crowded,
    Broken,
}

impl From<io::Error> for DisconnectReason {
    fn from(why: io::Error) -> Self {
        match why.kind() {
            io::ErrorKind::QuotaExceeded => Self::Crowded,
            _ => Self::Broken,
        }
    }
}

struct Connection<'a> {
    hub: &'a Arc<Hub>,
    house: &'a Arc<House>,
    guard: Guard,
    session: Session,
    input: LineBuffer,
    /// Since when there is an unfinished line.
    unfinished: Option<Instant>,
    load: Load,
    live: Option<LiveMonitor>,
    began: Instant,
    /// The last byte either way.
    active: Instant,
    close_at: Option<Instant>,
    visitor: Visitor,
}

/// A monitor at work.
struct LiveMonitor {
    watch: Box<MonitorView>,
    inbox: Inbox,
    next_stats: Instant,
}

/// What woke us.
enum Wake {
    Read(io::Result<usize>),
    Push(Option<Push>),
    Crowded,
    Time,
}

impl Connection<'_> {
    async fn run(&mut self) -> Option<DisconnectReason> {
        match self.talk().await {
            Ok(()) => Some(DisconnectReason::Done),
            Err(end) => Some(end),
        }
    }

    async fn talk(&mut self) -> Result<(), DisconnectReason> {
        if !self.is_counted() {
            return self.turn_away().await;
        }
        self.send(GREETING).await?;
        let mut buffer = vec![0; READ];
        loop {
            while let Some(line) = self.input.pop(self.session.max_line()) {
                self.hub.meter.commands.add(1);
                self.unfinished = None;
                // In a box: room for a command is kept only while there is one.
                if Box::pin(self.line(line)).await? {
                    return Ok(());
                }
            }
            self.count_bytes(self.input.held())?;
            match self.wait(&mut buffer).await {
                Wake::Read(read) => match read? {
                    0 => return Ok(()),
                    read => {
                        self.active = Instant::now();
                        self.unfinished.get_or_insert(self.active);
                        self.input.push(&buffer[..read]);
                    }
                },
                Wake::Crowded => return Err(DisconnectReason::Crowded),
                Wake::Push(Some(push)) => self.pass_on(push).await?,
                Wake::Push(None) => return Err(DisconnectReason::Slow),
                Wake::Time => self.tick().await?,
            }
        }
    }

    /// Counts the connection as what it is by now; `false`: there is no room for that.
    fn is_counted(&mut self) -> bool {
        let house = self.house.home.who.clone();
        let standing = match self.session.standing() {
            SessionStanding::Owner => Standing::Owner(house),
            SessionStanding::Visitor(who) => Standing::Visitor(house, who.clone()),
            SessionStanding::Enrolling | SessionStanding::Stranger => Standing::Stranger(house),
        };
        self.visitor.pass.becomes(standing, Instant::now())
    }

    async fn turn_away(&mut self) -> Result<(), DisconnectReason> {
        self.send(b"error:AT0012-Inbound connection limit exceeded\n")
            .await
    }

    /// Waits for bytes, news, or the next time something is due.
    async fn wait(&mut self, buffer: &mut [u8]) -> Wake {
        let due = self.due();
        let stream = &mut self.visitor.stream;
        let read = async { Wake::Read(stream.read(buffer).await) };
        let time = async {
            Timer::at(due).await;
            Wake::Time
        };
        let crowded = async {
            self.load.gave_way().await;
            Wake::Crowded
        };
        let time = race(time, crowded);
        match &self.live {
            Some(live) => {
                let push = async { Wake::Push(live.inbox.next().await) };
                race(race(read, push), time).await
            }
            None => race(read, time).await,
        }
    }

    fn due(&self) -> Instant {
        let timings = &self.hub.options.timings;
        let silent = match self.session.standing() {
            SessionStanding::Owner => self.active + timings.idle,
            SessionStanding::Visitor(_) => self.active + timings.visitor_idle,
            SessionStanding::Enrolling => self.began + timings.enrolling,
            SessionStanding::Stranger => self.began + timings.login,
        };
        let stats = self.live.as_ref().map(|live| live.next_stats);
        let line = self.line_due();
        [stats, self.close_at, line]
            .into_iter()
            .flatten()
            .fold(silent, Instant::min)
    }

    /// Until when a line must be finished. The owner's may take as long as it takes.
    fn line_due(&self) -> Option<Instant> {
        let since = self.unfinished.filter(|_| !self.input.is_empty())?;
        let within = self.hub.options.timings.write;
        (!self.is_owner()).then(|| since + time_for(self.input.len(), within))
    }

    fn is_owner(&self) -> bool {
        self.session.standing() == SessionStanding::Owner
    }

    /// So many bytes are in work for this connection.
    fn count_bytes(&mut self, bytes: usize) -> io::Result<()> {
        let whose = (self.visitor.from, self.visitor.pass.standing());
        self.load.set(&self.hub.bytes, whose, bytes)
    }

    async fn tick(&mut self) -> Result<(), DisconnectReason> {
        let now = Instant::now();
        if self.close_at.is_some_and(|at| at <= now) {
            return Err(DisconnectReason::Done);
        }
        if self
            .live
            .as_ref()
            .is_some_and(|live| live.next_stats <= now)
        {
            return self.pass_on(Push::Stats).await;
        }
        if self.due() <= now {
            return Err(DisconnectReason::Silent);
        }
        Ok(())
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), DisconnectReason> {
        self.count_bytes(bytes.len())?;
        let within = self.hub.options.timings.write;
        let limit = (!self.is_owner()).then(|| time_for(bytes.len(), within));
        let stream = &mut self.visitor.stream;
        self.load.send(stream, bytes, within, limit).await?;
        self.active = Instant::now();
        Ok(())
    }

    async fn pass_on(&mut self, push: Push) -> Result<(), DisconnectReason> {
        let Some(live) = &mut self.live else {
            return Ok(());
        };
        let line = match push {
            Push::Note(note) => match live.watch.live(&note) {
                Some(line) => line,
                None => return Ok(()),
            },
            Push::Stats => {
                live.next_stats = Instant::now() + self.hub.options.timings.stats;
                stats_line(&self.house.home.who, self.house.last_commit(), now())
            }
        };
        self.hub.meter.pushed.add(1);
        self.send(line.as_bytes()).await
    }

    /// Answers one line; `true`: the connection is to be closed.
    async fn line(&mut self, line: InputLine) -> Result<bool, DisconnectReason> {
        let text = match line {
            InputLine::Line(text) => text,
            InputLine::TooLong => {
                let refusal = self.session.too_long();
                return self.give(refusal).await;
            }
        };
        let action = self.session.read(&text, now());
        drop(text);
        match action {
            LineAction::Done(outcome) => self.give(outcome).await,
            LineAction::Run(job) => {
                let watches = job.watches();
                // Until the answer is known; it is only looked at here, so nobody holds a place for long.
                let place = if job.proves() {
                    self.hub.failures.place(self.visitor.from).await
                } else {
                    None
                };
                // Before the transaction looks: what comes in from now on is either seen by it or caught here.
                let inbox = watches.then(|| self.guard.open_mailbox());
                let outcome = self.run_job(job).await?;
                drop(place);
                self.after(outcome, inbox).await
            }
        }
    }

    async fn run_job(&mut self, job: StoreCommand) -> Result<CommandOutcome, DisconnectReason> {
        let (session, now, writes) = (self.session.clone(), now(), job.writes());
        let run = move |tx: &mut Tx<'_>| Ok::<_, StoreError>(session.run(&job, tx, now));
        let ran = if writes {
            self.write(run).await
        } else if self.is_owner() {
            self.hub.store.read(run).await
        } else {
            let claim = Claim::of(network_of(self.visitor.from), LOOKS_OF_ONE);
            let _place = self.hub.looks.wait(claim).await;
            self.hub.store.read(run).await
        };
        self.keep(ran)
    }

    async fn write(
        &self,
        run: impl Fn(&mut Tx<'_>) -> Result<UncommittedOutcome, StoreError> + Send + 'static,
    ) -> Result<UncommittedOutcome, StoreError> {
        let (home, from) = (&self.house.home.who, self.visitor.from);
        let turn = writes::claim(home, self.session.standing(), from);
        let _turn = self.hub.writes.wait(turn).await;
        self.hub.store.write(run).await
    }

    /// Does what the session asks for, then gives its answer.
    async fn after(
        &mut self,
        mut outcome: CommandOutcome,
        inbox: Option<Inbox>,
    ) -> Result<bool, DisconnectReason> {
        if let Some(login) = outcome.login {
            outcome.delay += self.came_of_login(login);
        }
        match std::mem::take(&mut outcome.next) {
            FollowUp::Nothing => {}
            FollowUp::Watch(watch) => {
                if let Some(inbox) = inbox {
                    self.start_watch(watch, inbox).await?;
                }
            }
            FollowUp::Prove(proof) => {
                let found = match &self.hub.peers {
                    Some(peers) => peers.proof(&proof, self.visitor.from).await,
                    None => None,
                };
                outcome = self.session.proven(&proof, found);
            }
            FollowUp::Fetch(errand) => outcome = self.fetch(*errand).await?,
        }
        self.guard.lives_by(self.session.enrollment());
        if !self.is_counted() {
            return self.turn_away().await.map(|()| true);
        }
        self.give(outcome).await
    }

    /// If the store failed, the session stays as it was before the command.
    fn keep(
        &mut self,
        ran: Result<UncommittedOutcome, StoreError>,
    ) -> Result<CommandOutcome, DisconnectReason> {
        match ran {
            Ok(decision) => Ok(self.session.accept(decision)),
            Err(StoreError::Closed) => Err(DisconnectReason::Broken),
            Err(why) => Ok(self.session.failed(why)),
        }
    }

    async fn fetch(&mut self, errand: Errand) -> Result<CommandOutcome, DisconnectReason> {
        let found = match &self.hub.peers {
            Some(peers) => peers.fetch(&self.house.home, &errand).await,
            None => Fetched::Unknown,
        };
        let (session, now) = (self.session.clone(), now());
        let ran = self.write(move |tx| Ok(session.fetched(&errand, &found, tx, now)));
        let ran = ran.await;
        self.keep(ran)
    }

    /// Takes note of it; says how long the answer is to be kept back. Only a refusal ever is: whoever is right may
    /// share an address with whoever guesses. The connection of a guess that waits keeps its place among the strangers,
    /// gone or not, so its network's share of the connections bounds how fast an address may guess.
    fn came_of_login(&self, login: Login) -> Duration {
        let Some(who) = self.session.claims() else {
            return Duration::ZERO;
        };
        let (id, from, now) = (self.session.id(), self.visitor.from, Instant::now());
        let failures = &self.hub.failures;
        match login {
            Login::Good => {
                failures.note(from, who, true, now);
                self.hub.meter.logins.add(1);
                log::info!("session={id} from={from} login={who}");
            }
            Login::Wrong => {
                self.hub.meter.logins_failed.add(1);
                if failures.are_news(from, now) {
                    log::warn!("session={id} from={from} login={who} failed quiet=60s");
                }
                // Some other name cannot be guessed at here.
                if *who != self.house.home.who {
                    return Duration::ZERO;
                }
                let wait = failures.wait(from, who, now);
                failures.note(from, who, false, now);
                return wait;
            }
            Login::Barred => {
                self.hub.meter.logins_failed.add(1);
                // Such a device asks again and again.
                if failures.is_news(from, who, now) {
                    log::info!("session={id} from={from} login={who} enrolment=not_in_force");
                }
            }
        }
        Duration::ZERO
    }

    /// Replays, then lets the mailbox through.
    async fn start_watch(
        &mut self,
        watch: Box<MonitorView>,
        inbox: Inbox,
    ) -> Result<(), DisconnectReason> {
        let mut from = watch.replay;
        while let Some(after) = from {
            let (home, asked, now) = (self.house.home.clone(), watch.clone(), now());
            let read = self
                .hub
                .store
                .read(move |tx| page(tx, &home, &asked, after, now));
            let (lines, more) = read.await.map_err(|_| DisconnectReason::Broken)?;
            for line in lines {
                self.send(line.as_bytes()).await?;
            }
            from = more;
        }
        self.live = Some(LiveMonitor {
            watch,
            inbox,
            next_stats: Instant::now() + self.hub.options.timings.stats,
        });
        Ok(())
    }

    async fn give(&mut self, outcome: CommandOutcome) -> Result<bool, DisconnectReason> {
        if outcome.delay > Duration::ZERO {
            task::sleep(outcome.delay).await;
        }
        if !outcome.reply.is_empty() {
            self.send(&outcome.reply).await?;
        }
        if let Some(after) = outcome.close_in {
            self.close_at = Some(Instant::now() + after);
        }
        Ok(outcome.close)
    }
}
