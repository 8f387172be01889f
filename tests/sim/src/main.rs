//! `cargo xtask sim`: as many seeds as wanted.

#![allow(clippy::expect_used, clippy::panic, reason = "a tool of the tests")]

use std::process::ExitCode;

use clap::Parser;
use tenantry_sim::{Sabotage, Scenario, run};

/// Runs the real handlers under faults, seed after seed, and says which broke a promise.
#[derive(Parser)]
struct Arguments {
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// How many.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// Only every so many-th of them: for several processes.
    #[arg(long, default_value_t = 1)]
    step: u64,
    /// Much at once, at the turn of the month, and everything goes wrong often.
    #[arg(long, conflicts_with = "unheard")]
    rough: bool,
    /// Nothing goes wrong but that reservations are not heard of, or that reads fail.
    #[arg(long)]
    unheard: bool,
    /// Break the protocol in this way.
    #[arg(long)]
    sabotage: Option<Sabotage>,
    /// Print everything that happens.
    #[arg(long)]
    trace: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let (mut broken, mut ran, mut calls, mut requests) = (0_u64, 0_u64, 0, 0);
    for seed in (arguments.from..arguments.from + arguments.seeds).step_by(usize::try_from(arguments.step).unwrap_or(1))
    {
        let scenario = match (arguments.rough, arguments.unheard) {
            (true, _) => Scenario::rough(seed),
            (_, true) => Scenario::unheard(seed),
            _ => Scenario::seeded(seed),
        };
        let run = run(scenario, arguments.sabotage);
        (ran, calls, requests) = (ran + 1, calls + run.calls, requests + run.requests);
        if arguments.trace {
            eprintln!("{}", run.trace.join("\n"));
        }
        if !run.violations.is_empty() {
            broken += 1;
            eprintln!("{run}");
        }
    }
    // Standard output has the metrics that functions write there.
    eprintln!("{ran} seeds, {calls} calls, {requests} requests to the database, {broken} seeds with a violation");
    if broken == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
