//! `cargo xtask bench`: what a benchmark needs, then the benchmark.

use crate::deploy;
use crate::python::HELLO;
use crate::steps::{Result, cargo, run};

/// Runs the benchmark with `arguments`. The one of the functions needs their release binaries, and those they are
/// compared with.
pub(crate) fn run_with(arguments: &[String]) -> Result {
    let mut command = cargo(["run", "--release", "--package", "tenantry-benches", "--"]);
    command.args(arguments);
    if arguments.first().is_some_and(|role| role == "functions") {
        deploy::build_with(deploy::own_architecture(), &["tenantry-hello"])?;
        command.arg("--python").arg(HELLO.prepare()?.program("python").get_program());
    }
    run(&mut command)
}
