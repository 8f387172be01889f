//! `cargo xtask fuzz-api`: requests that the API document allows and forbids, to the platform of `cargo run`, by every kind
//! of caller. No answer may be a 5xx or undocumented, and what the document forbids is refused. The program is
//! `tests/schemathesis/run.py`.

use std::process::Stdio;

use crate::python::SCHEMATHESIS;
use crate::steps::{Result, cargo, root, run};

/// Examples and seed are those of `run.py`: a run like every other.
pub(crate) fn check() -> Result {
    run_with(&[])
}

/// With more examples, another seed, one caller, one operation: what `run.py --help` lists.
pub(crate) fn run_with(arguments: &[String]) -> Result {
    let environment = SCHEMATHESIS.prepare()?;
    // As the suite builds it, with the features of the whole workspace: else half of it would be built once more.
    run(cargo(["build", "--workspace", "--all-targets", "--locked", "--quiet"]).stdin(Stdio::null()))?;
    let binary = root().join("target/debug").join(format!("tenantry{}", std::env::consts::EXE_SUFFIX));
    let mut command = environment.program("python");
    command.args(["-B", "tests/schemathesis/run.py", "--folder"]).arg(root().join("target/schemathesis"));
    command.arg("--binary").arg(binary).args(arguments).stdin(Stdio::null());
    run(&mut command)
}
