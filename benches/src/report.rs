//! The table, in Markdown, so that it can go into a document as it is.

use std::time::Duration;

use crate::{
    Arguments, Kind,
    engine::Cost,
    gateway::Storage,
    load::{Latencies, Rush},
    process::Cpu,
};

/// What was measured of one way to the vendor.
pub(crate) struct Row {
    pub(crate) name: String,
    /// Whether there is a gateway on the way, so that something is added.
    pub(crate) added: bool,
    /// One client's latencies this way, and in the same minutes straight to the vendor.
    pub(crate) own: Latencies,
    pub(crate) straight: Latencies,
    pub(crate) rush: Rush,
    /// For each call of the rush.
    pub(crate) cpu: Cpu,
    /// Peak memory of the gateway before the first call, and at the end.
    pub(crate) memory_at_rest: Option<u64>,
    pub(crate) memory: Option<u64>,
    /// All calls, each of which was found in the records.
    pub(crate) calls: usize,
}

pub(crate) fn name(kind: Kind, storage: Option<Storage>, log: &str) -> String {
    let way = match storage {
        None => return format!("{}, direct", kind.name()),
        Some(Storage::Memory) => "in memory",
        Some(Storage::File) => "on file",
    };
    format!("{}, {way}, log {log}", kind.name())
}

pub(crate) fn engine(costs: &[Cost]) {
    println!("| one metered call in the store, without HTTP | CPU µs | engine's share of the time | took µs |");
    println!("|---|--:|--:|--:|");
    for cost in costs {
        let (cpu, share, took) = (cost.cpu.as_micros(), 100.0 * cost.engine, cost.took.as_micros());
        println!("| {} | {cpu} | {share:.0} % | {took} |", cost.name);
    }
}

pub(crate) fn head(arguments: &Arguments) {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!(
        "\n{cores} cores; {} calls in a row by one client, then up to {} calls in up to {} s by {} clients\n",
        arguments.sequential, arguments.calls, arguments.seconds, arguments.clients
    );
    println!(
        "| way | p50 µs | p99 µs | added p50 µs | added p99 µs | calls/s | p99 of those ms | CPU/call µs: gateway \
         | engine's share | vendor | load | peak MB: start | end | calls recorded |"
    );
    println!("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|");
}

pub(crate) fn row(row: &Row, engine: &[Cost; 3]) {
    let Row { name, own, straight, rush, cpu, .. } = row;
    let added = |percent| {
        if row.added { signed(own.percentile(percent), straight.percentile(percent)) } else { "–".to_owned() }
    };
    let gateway = |text: String| if row.added { text } else { "–".to_owned() };
    let share = 100.0 * engine[1].engine_cpu().as_secs_f64() / cpu.gateway.as_secs_f64();
    println!(
        "| {name} | {} | {} | {} | {} | {:.0} | {:.1} | {} | {} | {} | {} | {} | {} | {} |",
        own.percentile(50).as_micros(),
        own.percentile(99).as_micros(),
        added(50),
        added(99),
        rush.per_second(),
        rush.latencies.percentile(99).as_secs_f64() * 1000.0,
        gateway(cpu.gateway.as_micros().to_string()),
        gateway(format!("{share:.0} %")),
        cpu.vendor.as_micros(),
        cpu.load.as_micros(),
        megabytes(row.memory_at_rest),
        megabytes(row.memory),
        gateway(row.calls.to_string()),
    );
}

fn signed(own: Duration, straight: Duration) -> String {
    match own.checked_sub(straight) {
        Some(more) => more.as_micros().to_string(),
        None => format!("−{}", (straight - own).as_micros()),
    }
}

fn megabytes(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "–".to_owned(), |bytes| format!("{}", bytes >> 20))
}
