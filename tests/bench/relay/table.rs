//! What was measured, as text.

use crate::path::{BULK, Figure, Measured};

/// Of the whole path in key streams, before there were records; for the ratio that is asked for.
const CLASSIC_CPU: f64 = 1.72;

pub fn print(all: &[Measured]) {
    throughput(all);
    messages(all);
    splits(all);
    ratios(all);
    for one in all.iter().filter(|one| !one.failed.is_empty()) {
        println!("{}: failed: {}", one.path.name, one.failed.join("; "));
    }
}

fn throughput(all: &[Measured]) {
    let raw = find(all, "raw");
    println!("\nGB/s (of raw), and CPU s/GB of the path's processes");
    let names = BULK.map(|(name, ..)| format!("{name:>14}")).concat();
    println!(
        "{:<22}{names}   CPU: {}",
        "",
        BULK.map(|(name, ..)| format!("{name:>7}")).concat()
    );
    for one in all {
        let rate = BULK.map(|(name, ..)| {
            let figure = Figure::Bulk(name);
            let (own, raw) = (one.median(figure), raw.and_then(|raw| raw.median(figure)));
            format!("{:>7} ({})", text(own, 2), text(ratio(own, raw), 2))
        });
        let cpu =
            BULK.map(|(name, ..)| format!("{:>7}", text(one.median(Figure::BulkCpu(name)), 2)));
        println!(
            "{:<22}{}        {}",
            one.path.name,
            rate.concat(),
            cpu.concat()
        );
    }
}

fn messages(all: &[Measured]) {
    println!(
        "\n64 bytes and back (µs), new connections (a second), memory of an idle stream (KiB)"
    );
    let names = [
        "p50",
        "p99",
        "CPU",
        "p50 bulk",
        "p99 bulk",
        "ratio",
        "1 at once",
        "50 at once",
        "KiB",
    ];
    println!(
        "{:<22}{}",
        "",
        names.map(|name| format!("{name:>11}")).concat()
    );
    for one in all {
        let p99 = (
            one.median(Figure::BesideSlowest),
            one.median(Figure::PingSlowest),
        );
        let columns = [
            text(one.median(Figure::PingHalf), 0),
            text(p99.1, 0),
            text(one.median(Figure::PingCpu), 0),
            text(one.median(Figure::BesideHalf), 0),
            text(p99.0, 0),
            text(ratio(p99.0, p99.1), 1),
            text(one.median(Figure::One), 0),
            text(one.median(Figure::Fifty), 0),
            text(one.idle, 1),
        ];
        println!(
            "{:<22}{}",
            one.path.name,
            columns.map(|text| format!("{text:>11}")).concat()
        );
    }
}

/// Who of a path spends how much.
fn splits(all: &[Measured]) {
    println!("\nCPU s/GB, one stream up or down, by process");
    for one in all.iter().filter(|one| !one.path.parts.is_empty()) {
        let split = one.split().into_iter();
        let split: Vec<String> = split
            .map(|(name, cpu)| format!("{name} {cpu:.2}"))
            .collect();
        println!("{:<22}{}", one.path.name, split.join(", "));
    }
}

/// What is asked for, beside what came.
fn ratios(all: &[Measured]) {
    let figure = |name: &str, figure| find(all, name).and_then(|one| one.median(figure));
    println!("\nratios");
    for name in ["rendezvous, logins", "rendezvous, open"] {
        let cpu = figure(name, Figure::BulkCpu("up 1"));
        println!("{name}: {} CPU s/GB (asked: 0.30)", text(cpu, 2));
    }
    for name in ["tunnel, authenticated", "tunnel, classic", "tunnel, plain"] {
        if find(all, name).is_none() {
            println!("{name}: not in this run");
            continue;
        }
        let against = |peer: &str, what| text(ratio(figure(name, what), figure(peer, what)), 2);
        let (up, cpu) = (Figure::Bulk("up 1"), Figure::BulkCpu("up 1"));
        let beside = (
            figure(name, Figure::BesideSlowest),
            figure(name, Figure::PingSlowest),
        );
        println!(
            "{name}: throughput {} of bore, {} of rathole + Noise; CPU {} of {CLASSIC_CPU} s/GB, {} of this run's classic; \
             new connections {} and {} of rathole's (1, 50 at once); p99 beside bulk {} of alone",
            against("bore", up),
            against("rathole + Noise", up),
            text(figure(name, cpu).map(|own| own / CLASSIC_CPU), 2),
            against("tunnel, classic", cpu),
            against("rathole", Figure::One),
            against("rathole", Figure::Fifty),
            text(ratio(beside.0, beside.1), 1),
        );
    }
}

fn find<'a>(all: &'a [Measured], name: &str) -> Option<&'a Measured> {
    all.iter().find(|one| one.path.name == name)
}

fn ratio(one: Option<f64>, other: Option<f64>) -> Option<f64> {
    one.zip(other).map(|(one, other)| one / other)
}

fn text(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.digits$}"))
}
