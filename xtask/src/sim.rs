//! `cargo xtask sim`: the simulation of metering, as many seeds as wanted, on every core.

use std::{process::Stdio, time::Instant};

use crate::steps::{Result, cannot_start, cargo, program, root, run};

/// Seeds `from` to `from + seeds`, with what else the simulation takes.
pub(crate) fn seeds(from: u64, seeds: u64, more: &[String]) -> Result {
    run(cargo(["build", "--locked", "--package", "tenantry-sim"]).stdin(Stdio::null()))?;
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64).min(seeds.max(1));
    let began = Instant::now();
    let mut running = vec![];
    for core in 0..cores {
        let mut simulation = program(root().join("target/debug/sim"));
        let [first, count] = [from + core, seeds.saturating_sub(core)].map(|number| number.to_string());
        simulation.args(["--from", &first, "--seeds", &count, "--step", &cores.to_string()]).args(more);
        // What it has to say it says as an error: the functions write metrics to the other.
        simulation.stdout(Stdio::null());
        running.push(simulation.spawn().map_err(|error| cannot_start(&simulation, &error))?);
    }
    let mut held = true;
    for mut simulation in running {
        held &= simulation.wait().map_err(|error| error.to_string())?.success();
    }
    println!("{seeds} seeds from {from} in {} s on {cores} cores", began.elapsed().as_secs());
    if held { Ok(()) } else { Err("a promise was broken; what happened, and how to see it again, stands above".into()) }
}
