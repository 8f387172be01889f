//! `cargo xtask e2e`: the release binaries alone on Lambda's runtime protocol (`tests/tests/lambda.rs`), then with the
//! template on emulated AWS (`tests/e2e/journeys.py`), where doubles of the payment vendors bill
//! (`sandbox/examples/doubles.rs`). This builds them, deploys, and deploys again, and starts and stops what is needed.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use crate::deploy::{self, Target};
use crate::python::{EMULATOR, Environment, SAM};
use crate::steps::{Result, cannot_start, cargo, program, root, run};
use crate::{size, tools};

/// Builds, checks the binaries, deploys, checks, deploys again, checks again, wipes and restores.
pub(crate) fn run_all() -> Result {
    let (emulator, sam) = (EMULATOR.prepare()?, SAM.prepare()?);
    let architecture = deploy::own_architecture();
    deploy::build(architecture)?;
    size::check()?;
    runtime_protocol()?;

    build_doubles()?;
    let (emulator, doubles) = (Server::emulator(&emulator)?, Server::doubles()?);
    let mut target = Target::find("local", Some(emulator.url.clone()))?;
    target.set("Architecture", architecture);
    target.set("StripeBaseUrl", &doubles.url);
    deploy::stack(&sam, &target)?;
    journeys(&sam, &target, &doubles, "first")?;
    // A change of configuration: new versions of all functions, the same data.
    target.set("LogLevel", "debug");
    deploy::stack(&sam, &target)?;
    journeys(&sam, &target, &doubles, "upgraded")?;
    journeys(&sam, &target, &doubles, "restored")
}

/// The feature of the tests that need what `deploy::build` makes.
pub(crate) const RELEASE_BINARIES: &str = "tenantry-tests/release-binaries";

/// The emulator hands on answers whole, and starts functions in ways of its own. This is about what Lambda does. The whole
/// workspace, although one program is run: fewer packages would be other features, and everything built a second time.
fn runtime_protocol() -> Result {
    let nextest = tools::NEXTEST.prepare()?;
    let tests = ["nextest", "run", "--locked", "--workspace", "--test", "lambda", "--features", RELEASE_BINARIES];
    run(nextest.command().args(tests).stdin(Stdio::null()))
}

/// Where people pay, and the program that puts up for sale what they pay for. Of the whole workspace, as above.
fn build_doubles() -> Result {
    let build = ["build", "--locked", "--workspace", "--bin", "tenantry", "--example", "doubles"];
    run(cargo(build).stdin(Stdio::null()))
}

fn journeys(sam: &Environment, target: &Target, doubles: &Server, part: &str) -> Result {
    let mut command = sam.program("python");
    command.args(["-B", "tests/e2e/journeys.py", part, &target.stack]).stdin(Stdio::null());
    command.env("DOUBLES_URL", &doubles.url);
    run(target.prepare(&mut command))
        .map_err(|error| format!("{error}\nWhat the functions logged is in target/e2e/ministack.log"))
}

/// A program that listens on a free port for as long as this lives. It ends with this process, however that ends: it waits
/// for the end of its standard input.
struct Server {
    process: Child,
    url: String,
}

impl Server {
    /// ministack, by its keeper.
    fn emulator(environment: &Environment) -> Result<Self> {
        let mut command = environment.program("python");
        command.args(["-B", "tests/e2e/emulator.py"]).arg(root().join("target/e2e"));
        Self::start(command, "ministack", "; see target/e2e/ministack.log")
    }

    /// The doubles of the payment vendors.
    fn doubles() -> Result<Self> {
        let path = root().join("target/debug/examples").join(format!("doubles{}", std::env::consts::EXE_SUFFIX));
        Self::start(program(path), "the program of the payment vendors' doubles", "")
    }

    fn start(mut command: Command, name: &str, hint: &str) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let process = command.spawn().map_err(|error| cannot_start(&command, &error))?;
        let mut server = Self { process, url: String::new() };
        // One line, its address, once it answers; no line when it does not.
        if let Some(said) = server.process.stdout.take() {
            BufReader::new(said).read_line(&mut server.url).ok();
        }
        server.url.truncate(server.url.trim_end().len());
        if server.url.is_empty() {
            return Err(format!("{name} did not start{hint}"));
        }
        println!("{name} answers at {}", server.url);
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Closes its standard input first.
        self.process.wait().ok();
    }
}
