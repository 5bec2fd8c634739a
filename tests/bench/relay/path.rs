//! One way to the service, and what was measured on it.

use std::{any::Any, collections::BTreeMap, io, net::TcpStream, time::Duration};

use crate::{
    load::{self, Connect, Way},
    process,
};

/// A short run.
const SHORT: Duration = Duration::from_millis(400);
/// Connections that stand and are silent.
const IDLE: usize = 200;

/// One way to the service.
pub struct Path {
    pub name: String,
    pub connect: Box<Connect<'static>>,
    /// The processes on it, each with its descendants. None: nothing is between.
    pub parts: Vec<(&'static str, u32)>,
    /// What ends with it.
    pub _held: Box<dyn Any>,
}

/// Connects to a local port.
pub fn to_port(port: u16) -> Box<Connect<'static>> {
    Box::new(move || TcpStream::connect(("127.0.0.1", port)))
}

/// A figure of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Figure {
    /// GB/s.
    Bulk(&'static str),
    /// CPU seconds a GB.
    BulkCpu(&'static str),
    /// Microseconds.
    PingHalf,
    PingSlowest,
    BesideHalf,
    BesideSlowest,
    /// CPU microseconds a message and its answer.
    PingCpu,
    /// A second.
    One,
    Fifty,
}

/// The streams of each way of moving bytes.
pub const BULK: [(&str, Way, usize); 4] = [
    ("up 1", Way::Up, 1),
    ("up 8", Way::Up, 8),
    ("down 1", Way::Down, 1),
    ("down 8", Way::Down, 8),
];

/// A path, and all that came of it.
pub struct Measured {
    pub path: Path,
    all: BTreeMap<Figure, Vec<f64>>,
    /// CPU seconds of each part and GB, in streams one at a time.
    spent: (Vec<f64>, f64),
    /// KiB that one idle stream costs all parts.
    pub idle: Option<f64>,
    /// What went wrong.
    pub failed: Vec<String>,
}

impl Measured {
    pub fn of(path: Path) -> Self {
        let parts = path.parts.len();
        Self {
            path,
            all: BTreeMap::new(),
            spent: (vec![0.0; parts], 0.0),
            idle: None,
            failed: Vec::new(),
        }
    }

    /// The median of a figure.
    pub fn median(&self, figure: Figure) -> Option<f64> {
        let mut all = self.all.get(&figure)?.clone();
        all.sort_by(f64::total_cmp);
        Some(all[all.len() / 2])
    }

    /// Of each part, CPU seconds a GB in one stream up or down.
    pub fn split(&self) -> Vec<(&'static str, f64)> {
        let (spent, bytes) = &self.spent;
        let each = self.path.parts.iter().zip(spent);
        each.map(|((name, _), cpu)| (*name, cpu / bytes)).collect()
    }

    /// One short run of everything.
    pub fn round(&mut self) {
        for (name, way, streams) in BULK {
            self.bulk(name, way, streams);
        }
        let before = self.cpu();
        let alone = load::ping(&self.path.connect, SHORT);
        let spent = self.cpu().iter().sum::<f64>() - before.iter().sum::<f64>();
        if let Some(times) = self.done("ping", alone) {
            self.note(Figure::PingCpu, spent * 1e6 / times.len() as f64);
            self.note(Figure::PingHalf, part(&times, 50));
            self.note(Figure::PingSlowest, part(&times, 99));
        }
        let beside = load::ping_beside_bulk(&self.path.connect, SHORT);
        if let Some(times) = self.done("ping beside bulk", beside) {
            self.note(Figure::BesideHalf, part(&times, 50));
            self.note(Figure::BesideSlowest, part(&times, 99));
        }
        for (figure, at_a_time) in [(Figure::One, 1), (Figure::Fifty, 50)] {
            let rate = load::connections(&self.path.connect, at_a_time, SHORT);
            if let Some(rate) = self.done(&format!("new connections, {at_a_time} at once"), rate) {
                self.note(figure, rate);
            }
        }
    }

    fn bulk(&mut self, name: &'static str, way: Way, streams: usize) {
        let before = self.cpu();
        let moved = load::bulk(&self.path.connect, way, streams, SHORT);
        let spent: Vec<f64> = self
            .cpu()
            .iter()
            .zip(before)
            .map(|(now, then)| now - then)
            .collect();
        let Some((bytes, seconds)) = self.done(name, moved) else {
            return;
        };
        let gb = bytes as f64 / 1e9;
        self.note(Figure::Bulk(name), gb / seconds);
        self.note(Figure::BulkCpu(name), spent.iter().sum::<f64>() / gb);
        if streams == 1 {
            self.spent.1 += gb;
            for (all, some) in self.spent.0.iter_mut().zip(spent) {
                *all += some;
            }
        }
    }

    /// Many streams that stand and say nothing.
    pub fn hold_idle_streams(&mut self) {
        let memory =
            |path: &Path| -> f64 { path.parts.iter().map(|part| process::private(part.1)).sum() };
        let before = memory(&self.path);
        let opened = (0..IDLE).map(|_| load::first_byte(&self.path.connect));
        let opened: io::Result<Vec<TcpStream>> = opened.collect();
        if let Some(held) = self.done("idle streams", opened) {
            self.idle = Some((memory(&self.path) - before) / held.len() as f64);
        }
    }

    fn cpu(&self) -> Vec<f64> {
        let parts = self.path.parts.iter();
        parts.map(|(_, pid)| process::cpu(*pid)).collect()
    }

    fn note(&mut self, figure: Figure, value: f64) {
        self.all.entry(figure).or_default().push(value);
    }

    fn done<T>(&mut self, what: &str, outcome: io::Result<T>) -> Option<T> {
        outcome
            .map_err(|why| self.failed.push(format!("{what}: {why}")))
            .ok()
    }
}

/// What so many of a hundred are not above; of values in order.
fn part(values: &[f64], percent: usize) -> f64 {
    values[(values.len() * percent / 100).min(values.len() - 1)]
}
