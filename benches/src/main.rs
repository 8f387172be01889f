//! What the gateway costs: the same calls straight to a fast mock vendor, through `tenantry` in memory, and through
//! `tenantry` on file, in one run; and, as `functions`, what Lambda functions cost: cold starts and memory.
//! `docs/benchmarks.md` has the figures.
//!
//! Four kinds of process share the machine, so that their CPU time can be told apart: this one (the load), the vendor
//! (`vendor`, this binary again), and the real `tenantry` of the same build, a fresh one for each row of the table.

mod client;
mod engine;
mod functions;
mod gateway;
mod load;
mod process;
mod report;
mod vendor;

use std::{error::Error, path::PathBuf, process::ExitCode, time::Duration};

use clap::{Parser, Subcommand};
use futures_util::future::LocalBoxFuture;

use crate::{
    client::Target,
    gateway::{Gateway, Scratch, Storage},
    load::Limits,
    process::Cpu,
    report::Row,
    vendor::Vendor,
};

/// Any failure ends the benchmark, with this text.
type Failure = Box<dyn Error + Send + Sync>;

/// Compares calls to a mock vendor with and without the gateway, and measures the embedded engine alone.
#[derive(Parser)]
struct Arguments {
    /// Calls in a row by one client, for the latencies
    #[arg(long, default_value_t = 2_000)]
    sequential: usize,
    /// Clients at once, for the throughput
    #[arg(long, default_value_t = 32)]
    clients: usize,
    /// Calls of all clients together
    #[arg(long, default_value_t = 20_000)]
    calls: usize,
    /// The clients stop after this many seconds, however many calls they have made
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// The tenantry binary; without it the one beside this binary
    #[arg(long, value_name = "FILE")]
    tenantry: Option<PathBuf>,
    /// Measure only rows whose name contains this
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
    #[command(subcommand)]
    role: Option<Role>,
}

#[derive(Subcommand)]
enum Role {
    /// Cold starts and memory of the release binaries in target/lambda, beside hello-world functions
    Functions(functions::Arguments),
    /// Be the mock vendor, until standard input ends
    #[command(hide = true)]
    Vendor,
}

/// How an answer comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Whole,
    Streamed,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Streamed => "streamed",
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // One thread: load and vendor must leave the machine to what is measured.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = runtime.map_err(Failure::from).and_then(|runtime| {
        runtime.block_on(async {
            let work: LocalBoxFuture<'_, _> = match &arguments.role {
                Some(Role::Vendor) => return vendor::serve().await,
                Some(Role::Functions(arguments)) => Box::pin(functions::run(arguments)),
                None => Box::pin(run(&arguments)),
            };
            tokio::select! {
                done = work => done,
                // Returning drops, and so ends, every child and removes the scratch folder.
                _ = tokio::signal::ctrl_c() => Err("interrupted".into()),
            }
        })
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("the benchmark failed: {failure}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &Arguments) -> Result<(), Failure> {
    let tenantry = gateway::binary(arguments.tenantry.as_deref())?;
    let scratch = Scratch::make()?;
    let engine = engine::measure(scratch.path()).await?;
    report::engine(&engine);
    report::head(arguments);
    let vendor = Vendor::start().await?;
    for (kind, storage, log) in [
        (Kind::Whole, None, ""),
        (Kind::Whole, Some(Storage::Memory), "warn"),
        (Kind::Whole, Some(Storage::File), "warn"),
        (Kind::Whole, Some(Storage::Memory), "info"),
        (Kind::Streamed, None, ""),
        (Kind::Streamed, Some(Storage::Memory), "warn"),
        (Kind::Streamed, Some(Storage::File), "warn"),
        (Kind::Streamed, Some(Storage::Memory), "info"),
    ] {
        let name = report::name(kind, storage, log);
        if !name.contains(&arguments.only) {
            continue;
        }
        let gateway = match storage {
            Some(storage) => Some(Gateway::start(&tenantry, scratch.path(), &vendor, storage, log).await?),
            None => None,
        };
        let row = measure(arguments, name, kind, &vendor, gateway.as_ref()).await?;
        report::row(&row, &engine);
    }
    Ok(())
}

/// One row: latencies first, with one client that takes turns between gateway and vendor, then throughput.
async fn measure(
    arguments: &Arguments,
    name: String,
    kind: Kind,
    vendor: &Vendor,
    gateway: Option<&Gateway>,
) -> Result<Row, Failure> {
    let direct = vendor.target(kind);
    let target = gateway.map_or_else(|| direct.clone(), |gateway| gateway.target(kind));
    let memory_at_rest = gateway.map(Gateway::peak_memory).transpose()?;
    let mut calls = load::warm_up(&target, arguments.clients).await?;
    load::warm_up(&direct, 1).await?;
    let (own, straight) = load::latencies(&target, &direct, arguments.sequential).await?;
    calls += own.count();

    let pids = Pids { load: std::process::id(), vendor: vendor.pid(), gateway: gateway.map(Gateway::pid) };
    let before = pids.cpu()?;
    let limits =
        Limits { clients: arguments.clients, calls: arguments.calls, time: Duration::from_secs(arguments.seconds) };
    let rush = load::rush(&target, limits).await?;
    calls += rush.count();
    if let Some(gateway) = gateway {
        // Only now has everything that the calls cause been done, and paid for.
        gateway.await_usage(calls).await?;
    }
    let after = pids.cpu()?;
    Ok(Row {
        name,
        added: gateway.is_some(),
        own,
        straight,
        cpu: after.since(&before, rush.count()),
        rush,
        memory_at_rest,
        memory: gateway.map(Gateway::peak_memory).transpose()?,
        calls,
    })
}

/// The processes of one row.
struct Pids {
    load: u32,
    vendor: u32,
    gateway: Option<u32>,
}

impl Pids {
    fn cpu(&self) -> Result<Cpu, Failure> {
        Ok(Cpu {
            load: process::cpu_time(self.load)?,
            vendor: process::cpu_time(self.vendor)?,
            gateway: self.gateway.map(process::cpu_time).transpose()?.unwrap_or_default(),
        })
    }
}

/// The body of every call; what the vendor answers depends on `stream` alone.
fn chat_body(kind: Kind) -> String {
    format!(
        r#"{{"model":"gpt-5-mini","messages":[{{"role":"system","content":"You are a helpful assistant."}},{{"role":"user","content":"Write one sentence about the sea."}}],"max_completion_tokens":200,"stream":{}}}"#,
        kind == Kind::Streamed
    )
}

/// A chat call as it goes over the wire.
fn chat_request(kind: Kind, authority: &str, path: &str, key: &str) -> Vec<u8> {
    let body = chat_body(kind);
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: {authority}\r\nauthorization: Bearer {key}\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

impl Vendor {
    fn target(&self, kind: Kind) -> Target {
        let request = chat_request(kind, &self.address().to_string(), "/v1/chat/completions", "none");
        Target::new(self.address(), request)
    }
}

impl Gateway {
    fn target(&self, kind: Kind) -> Target {
        let request = chat_request(kind, &self.address().to_string(), "/api/v1/chat/completions", self.api_key());
        Target::new(self.address(), request)
    }
}
