//! What makes the load, and the service at the far end of every path. Threads and blocking sockets, so that little of the
//! machine goes into it.
//!
//! ```text
//!   P …         ▶ the same bytes back                    ping-pong
//!   U … end     ▶ how many bytes there were (8 bytes)    up
//!   D MILLIS    ▶ as many bytes as fit into that time    down
//! ```

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Barrier},
    thread,
    time::{Duration, Instant},
};

/// One write, and one read.
const BLOCK: usize = 64 * 1024;
/// Bytes of a message.
const MESSAGE: usize = 64;
/// Messages before the first one that counts.
const WARM: usize = 50;
/// New connections of one short run: fewer than there are local ports.
const MOST_CONNECTIONS: usize = 2_000;
/// Only bounds a run in which something hangs.
const PATIENCE: Duration = Duration::from_secs(30);

/// Makes a connection through a path.
pub type Connect<'a> = dyn Fn() -> io::Result<TcpStream> + Send + Sync + 'a;

/// The service, for as long as the bench runs.
pub struct Service {
    pub port: u16,
}

impl Service {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                thread::spawn(move || serve(socket));
            }
        });
        Self { port }
    }
}

/// Serves one connection to its end. Whoever ends early has measured enough.
pub fn serve(mut socket: TcpStream) {
    let _ = socket.set_nodelay(true);
    let mut wish = [0];
    let _ = match socket.read_exact(&mut wish).map(|()| wish[0]) {
        Ok(b'P') => echo(&mut socket),
        Ok(b'U') => sink(&mut socket),
        Ok(b'D') => source(&mut socket),
        _ => Ok(()),
    };
}

fn echo(socket: &mut TcpStream) -> io::Result<()> {
    let mut buffer = [0; 4096];
    loop {
        match socket.read(&mut buffer)? {
            0 => return Ok(()),
            got => socket.write_all(&buffer[..got])?,
        }
    }
}

fn sink(socket: &mut TcpStream) -> io::Result<()> {
    let got = count(socket)?;
    socket.write_all(&got.to_be_bytes())
}

fn source(socket: &mut TcpStream) -> io::Result<()> {
    let mut millis = [0; 8];
    socket.read_exact(&mut millis)?;
    write_for(socket, Duration::from_millis(u64::from_be_bytes(millis)))
}

/// Bytes until the end.
fn count(socket: &mut TcpStream) -> io::Result<u64> {
    let (mut buffer, mut all) = (vec![0; BLOCK], 0);
    loop {
        match socket.read(&mut buffer)? {
            0 => return Ok(all),
            got => all += got as u64,
        }
    }
}

/// Writes for so long, and says that it was all.
fn write_for(socket: &mut TcpStream, time: Duration) -> io::Result<()> {
    let (block, began) = (vec![7; BLOCK], Instant::now());
    while began.elapsed() < time {
        socket.write_all(&block)?;
    }
    socket.shutdown(Shutdown::Write)
}

#[derive(Clone, Copy, PartialEq)]
pub enum Way {
    Up,
    Down,
}

/// Bytes, and in how many seconds.
pub fn bulk(
    connect: &Connect<'_>,
    way: Way,
    streams: usize,
    time: Duration,
) -> io::Result<(u64, f64)> {
    let start = Arc::new(Barrier::new(streams));
    let run = || -> io::Result<(u64, f64)> {
        let socket = opened(connect);
        // Also where there is none: the others wait.
        start.wait();
        let (mut socket, began) = (socket?, Instant::now());
        let all = match way {
            Way::Up => {
                socket.write_all(b"U")?;
                write_for(&mut socket, time)?;
                let mut all = [0; 8];
                socket.read_exact(&mut all)?;
                u64::from_be_bytes(all)
            }
            Way::Down => {
                socket.write_all(b"D")?;
                socket.write_all(&(time.as_millis() as u64).to_be_bytes())?;
                count(&mut socket)?
            }
        };
        Ok((all, began.elapsed().as_secs_f64()))
    };
    let all = at_once(streams, run);
    let (mut bytes, mut longest) = (0, 0.0f64);
    for one in all {
        let (some, seconds) = one?;
        bytes += some;
        longest = longest.max(seconds);
    }
    Ok((bytes, longest))
}

/// Round trips of messages, in microseconds, in order of size.
pub fn ping(connect: &Connect<'_>, time: Duration) -> io::Result<Vec<f64>> {
    let mut socket = opened(connect)?;
    socket.write_all(b"P")?;
    let (mut message, mut times) = ([5; MESSAGE], Vec::new());
    let mut began = Instant::now();
    while times.len() <= WARM || began.elapsed() < time {
        if times.len() == WARM {
            began = Instant::now();
        }
        let sent = Instant::now();
        socket.write_all(&message)?;
        socket.read_exact(&mut message)?;
        times.push(sent.elapsed().as_secs_f64() * 1e6);
    }
    times.drain(..WARM);
    times.sort_by(f64::total_cmp);
    Ok(times)
}

/// The same beside a stream of bytes on the same path.
pub fn ping_beside_bulk(connect: &Connect<'_>, time: Duration) -> io::Result<Vec<f64>> {
    thread::scope(|scope| {
        let bulk = scope.spawn(|| bulk(connect, Way::Up, 1, time * 3 / 2));
        let times = ping(connect, time);
        bulk.join().unwrap()?;
        times
    })
}

/// New connections a second, by so many who each make one after another and wait for its first byte.
pub fn connections(connect: &Connect<'_>, at_a_time: usize, time: Duration) -> io::Result<f64> {
    let began = Instant::now();
    let run = || -> io::Result<usize> {
        let mut made = 0;
        while began.elapsed() < time && made < MOST_CONNECTIONS / at_a_time {
            first_byte(connect)?;
            made += 1;
        }
        Ok(made)
    };
    let made: io::Result<usize> = at_once(at_a_time, run).into_iter().sum();
    Ok(made? as f64 / began.elapsed().as_secs_f64())
}

/// A connection on which one byte has come back.
pub fn first_byte(connect: &Connect<'_>) -> io::Result<TcpStream> {
    let mut socket = opened(connect)?;
    socket.write_all(b"P!")?;
    socket.read_exact(&mut [0])?;
    Ok(socket)
}

fn opened(connect: &Connect<'_>) -> io::Result<TcpStream> {
    let socket = connect()?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(socket)
}

/// What each of so many threads makes of it.
fn at_once<T: Send>(count: usize, run: impl Fn() -> T + Sync) -> Vec<T> {
    thread::scope(|scope| {
        let threads: Vec<_> = (0..count).map(|_| scope.spawn(&run)).collect();
        let ended = threads.into_iter().map(|thread| thread.join().unwrap());
        ended.collect()
    })
}
