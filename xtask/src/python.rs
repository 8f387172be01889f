//! Python programs at pinned versions, each set of them in an environment of its own: their dependencies contradict each
//! other. An environment is made again only when what it was made from has changed.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::steps::{Result, program, read, root, run, write};

/// The SAM CLI, with cfn-lint, boto3 and cryptography.
pub(crate) const SAM: Set = Set { folder: "target/tools/sam", requirements: "tests/e2e/requirements-sam.txt" };
/// cargo-lambda and the C compiler and linker it builds with.
pub(crate) const LAMBDA: Set = Set { folder: "target/tools/lambda", requirements: "tests/e2e/requirements-lambda.txt" };
/// ministack, which emulates AWS.
pub(crate) const EMULATOR: Set = Set { folder: "target/tools/ministack", requirements: "tests/e2e/requirements.txt" };
/// checkov, which reads templates for what is unsafe.
pub(crate) const CHECKOV: Set =
    Set { folder: "target/tools/checkov", requirements: "tests/e2e/requirements-checkov.txt" };
/// schemathesis, which sends what the API document allows and forbids.
pub(crate) const SCHEMATHESIS: Set =
    Set { folder: "target/tools/schemathesis", requirements: "tests/schemathesis/requirements.txt" };

/// AWS's own client of Lambda's runtime API, for the hello-world function in Python.
pub(crate) const HELLO: Set =
    Set { folder: "target/tools/hello", requirements: "benches/hello/python/requirements.txt" };

/// Programs that live together.
pub(crate) struct Set {
    /// Where the environment is.
    pub(crate) folder: &'static str,
    /// Pinned with hashes.
    pub(crate) requirements: &'static str,
}

/// An environment that is there.
pub(crate) struct Environment(PathBuf);

impl Set {
    /// Makes the environment, unless it is as it should be.
    pub(crate) fn prepare(&self) -> Result<Environment> {
        let folder = root().join(self.folder);
        let requirements = root().join(self.requirements);
        let made_from = format!("{}\n{}", version("python3")?, read(&requirements)?);
        let stamp = folder.join("made-from");
        let environment = Environment(folder.join(if cfg!(windows) { "Scripts" } else { "bin" }));
        if is_current(&stamp, &made_from) {
            println!("{}: as before", self.folder);
            return Ok(environment);
        }
        println!("{}: being made, once", self.folder);
        run(program("python3").args(["-m", "venv", "--clear"]).arg(&folder).stdin(Stdio::null()))?;
        // Everything is pinned, what others need too; resolving once more would only take time.
        run(environment
            .program("python")
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes"])
            .arg("--requirement")
            .arg(&requirements)
            .stdin(Stdio::null()))?;
        write(&stamp, &made_from)?;
        Ok(environment)
    }
}

impl Environment {
    /// One of its programs, to run in the workspace's folder.
    pub(crate) fn program(&self, name: &str) -> Command {
        program(self.0.join(format!("{name}{}", std::env::consts::EXE_SUFFIX)))
    }

    /// The PATH with its programs first.
    pub(crate) fn path(&self) -> Result<OsString> {
        #[allow(clippy::disallowed_methods, reason = "it is handed on, not configuration")]
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::join_paths(std::iter::once(self.0.clone()).chain(std::env::split_paths(&path)))
            .map_err(|error| format!("{} cannot stand in a PATH: {error}", self.0.display()))
    }
}

/// Whether what a stamp says something was made from is still so.
pub(crate) fn is_current(stamp: &Path, made_from: &str) -> bool {
    std::fs::read_to_string(stamp).is_ok_and(|text| text == made_from)
}

/// What a program says its version is.
pub(crate) fn version(name: &str) -> Result<String> {
    let output = program(name).arg("--version").stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("`{name}` cannot be started ({error}); install it"))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
