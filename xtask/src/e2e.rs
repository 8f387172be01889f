//! `cargo xtask e2e`: the release binaries alone on Lambda's runtime protocol (`tests/tests/lambda.rs`), then with the
//! template on emulated AWS (`tests/e2e/journeys.py`). This builds them, deploys, and deploys again, and starts and stops
//! what is needed.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};

use crate::deploy::{self, Target};
use crate::python::{EMULATOR, Environment, SAM};
use crate::steps::{Result, cannot_start, root, run};
use crate::{size, tools};

/// Builds, checks the binaries, deploys, checks, deploys again, checks again, wipes and restores.
pub(crate) fn run_all() -> Result {
    let (emulator, sam) = (EMULATOR.prepare()?, SAM.prepare()?);
    let architecture = deploy::own_architecture();
    deploy::build(architecture)?;
    size::check()?;
    runtime_protocol()?;

    let emulator = Emulator::start(&emulator)?;
    let mut target = Target::find("local", Some(emulator.url.clone()))?;
    target.set("Architecture", architecture);
    deploy::stack(&sam, &target)?;
    journeys(&sam, &target, "first")?;
    // A change of configuration: new versions of all functions, the same data.
    target.set("LogLevel", "debug");
    deploy::stack(&sam, &target)?;
    journeys(&sam, &target, "upgraded")?;
    journeys(&sam, &target, "restored")
}

/// The emulator hands on answers whole, and starts functions in ways of its own. This is about what Lambda does. The whole
/// workspace, although one program is run: fewer packages would be other features, and everything built a second time.
fn runtime_protocol() -> Result {
    let nextest = tools::NEXTEST.prepare()?;
    let tests = ["nextest", "run", "--locked", "--workspace", "--run-ignored", "only"];
    run(nextest.command().args(tests).args(["-E", "binary(lambda)"]).stdin(Stdio::null()))
}

fn journeys(sam: &Environment, target: &Target, part: &str) -> Result {
    let mut command = sam.program("python");
    command.args(["-B", "tests/e2e/journeys.py", part, &target.stack]).stdin(Stdio::null());
    run(target.prepare(&mut command))
        .map_err(|error| format!("{error}\nWhat the functions logged is in target/e2e/ministack.log"))
}

/// ministack on a free port, for as long as this lives. It ends with this process, however that ends: its keeper
/// (`tests/e2e/emulator.py`) waits for the end of its standard input.
struct Emulator {
    keeper: Child,
    url: String,
}

impl Emulator {
    fn start(environment: &Environment) -> Result<Self> {
        let folder = root().join("target/e2e");
        let mut command = environment.program("python");
        command.args(["-B", "tests/e2e/emulator.py"]).arg(&folder).stdin(Stdio::piped()).stdout(Stdio::piped());
        let keeper = command.spawn().map_err(|error| cannot_start(&command, &error))?;
        let mut emulator = Self { keeper, url: String::new() };
        // One line, its address, once it answers; no line when it does not.
        if let Some(said) = emulator.keeper.stdout.take() {
            BufReader::new(said).read_line(&mut emulator.url).ok();
        }
        emulator.url.truncate(emulator.url.trim_end().len());
        if emulator.url.is_empty() {
            return Err("ministack did not start; see target/e2e/ministack.log".to_owned());
        }
        println!("ministack answers at {}", emulator.url);
        Ok(emulator)
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        // Closes its standard input first.
        self.keeper.wait().ok();
    }
}
