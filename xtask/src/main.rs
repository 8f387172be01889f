//! The project's commands: `cargo xtask test`, `e2e`, `deploy`, `openapi`, `bench`, `dev`, `fuzz-api`, `reconcile`,
//! `sim`.
//!
//! This crate depends on no other of the workspace. It is built in seconds, and it can say what is wrong when the rest
//! does not build.

mod bench;
mod contracts;
mod deploy;
mod e2e;
mod fuzz_api;
mod gateway;
mod infra;
mod openapi;
mod python;
mod reconcile;
mod sdk;
mod sim;
mod size;
mod steps;
mod suite;
mod tools;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

use crate::steps::{Result, cargo, run};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The project's commands")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Check and test everything; installs the tools it needs into target/
    Test {
        /// Only formatting, lints and the tests without the SDKs, for work in progress
        #[arg(long)]
        quick: bool,
    },
    /// Lint infra/template.yaml
    Template,
    /// Deploy the release binaries to emulated AWS and use them there
    E2e,
    /// Build, deploy to AWS, and make the keys that are missing
    Deploy {
        /// A target of samconfig.toml: local, staging, prod
        #[arg(long, default_value = "staging")]
        target: String,
        /// Address of an emulator, for the target `local`
        #[arg(long, env = "AWS_ENDPOINT_URL")]
        endpoint: Option<String>,
        /// Parameters of the template beside those of the target, `Name=value`
        parameters: Vec<String>,
    },
    /// Take the key of access tokens one step further, as docs/operations.md says
    Rotate {
        /// A target of samconfig.toml: local, staging, prod
        #[arg(long, default_value = "staging")]
        target: String,
        /// Address of an emulator, for the target `local`
        #[arg(long, env = "AWS_ENDPOINT_URL")]
        endpoint: Option<String>,
        /// Do not wait for the tokens of the step before: the key is in the wrong hands
        #[arg(long)]
        now: bool,
    },
    /// Write docs/openapi.json and infra/api.yaml
    Openapi {
        /// Write nothing; fail when a file is stale
        #[arg(long)]
        check: bool,
    },
    /// Send what the API document allows and forbids, as every kind of caller, and check each answer against it
    FuzzApi {
        /// Arguments of tests/schemathesis/run.py: --examples, --seed, --role, --operation
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Run the benchmark with the arguments that follow; `functions` is about cold starts and memory on Lambda
    Bench {
        /// Arguments of the benchmark
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Simulate metering under faults, seed after seed, and check the books after each
    Sim {
        /// The first seed
        #[arg(long, default_value_t = 1)]
        from: u64,
        /// How many
        #[arg(long, default_value_t = 1_000)]
        seeds: u64,
        /// --rough for more faults at once, --trace to see everything that happens, --sabotage to break the protocol on purpose
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Have the platform that `cargo run` runs check its books, and repair sums that are wrong
    Reconcile {
        /// The platform's folder for data
        #[arg(long, default_value = ".tenantry")]
        data_dir: PathBuf,
        /// Where it answers, like http://127.0.0.1:8787, instead of where its folder says
        #[arg(long)]
        url: Option<String>,
    },
    /// Run the platform on this machine with the arguments that follow, like `cargo run`
    Dev {
        /// Arguments of the platform
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

fn main() -> ExitCode {
    match execute(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("\ncargo xtask: {message}");
            ExitCode::FAILURE
        }
    }
}

fn execute(command: Command) -> Result {
    match command {
        Command::Test { quick: true } => suite::quick(),
        Command::Test { quick: false } => suite::full(),
        Command::Template => infra::check(),
        Command::E2e => e2e::run_all(),
        Command::Deploy { target, endpoint, parameters } => {
            let mut target = deploy::Target::find(&target, endpoint)?;
            for parameter in &parameters {
                let (name, value) =
                    parameter.split_once('=').ok_or_else(|| format!("`{parameter}` is not like Name=value"))?;
                target.set(name, value);
            }
            deploy::deploy(&target)
        }
        Command::Rotate { target, endpoint, now } => deploy::rotate(&deploy::Target::find(&target, endpoint)?, now),
        Command::Openapi { check } => {
            let document = openapi::document()?;
            if check { openapi::check(&document) } else { openapi::write(&document) }
        }
        Command::FuzzApi { arguments } => fuzz_api::run_with(&arguments),
        Command::Bench { arguments } => bench::run_with(&arguments),
        Command::Sim { from, seeds, arguments } => sim::seeds(from, seeds, &arguments),
        Command::Reconcile { data_dir, url } => reconcile::reconcile(&data_dir, url.as_deref()),
        Command::Dev { arguments } => run(cargo(["run", "--package", "tenantry-host", "--"]).args(arguments)),
    }
}
