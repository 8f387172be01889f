//! `docs/openapi.json`, the API document that the code generates, and `infra/api.yaml`, API Gateway's part of it. Both are
//! checked in, so that a change of the API is reviewed.

use std::path::PathBuf;
use std::process::Command;

use crate::gateway;
use crate::steps::{Result, cannot_start, cargo, root, shown};

/// The document.
const DOCUMENT: &str = "docs/openapi.json";
/// API Gateway's part of it.
const GATEWAY: &str = "infra/api.yaml";

/// The document, from a build of its own.
pub(crate) fn document() -> Result<String> {
    output(&mut cargo(["run", "--quiet", "--locked", "--package", "tenantry-host", "--example", "openapi"]))
}

/// The document, from the build of the whole workspace that has just been made: `cargo run` would resolve the features of
/// one package and compile half of it again.
pub(crate) fn built_document() -> Result<String> {
    let own = std::env::current_exe().map_err(|error| format!("where this program lies is unknown: {error}"))?;
    let name = format!("openapi{}", std::env::consts::EXE_SUFFIX);
    output(&mut Command::new(own.with_file_name("examples").join(name)))
}

/// Fails when a file is not what the code says.
pub(crate) fn check(document: &str) -> Result {
    is_current(DOCUMENT, document)?;
    is_current(GATEWAY, &gateway::definition(document)?)
}

/// Writes the files.
pub(crate) fn write(document: &str) -> Result {
    for (name, text) in [(DOCUMENT, document), (GATEWAY, &gateway::definition(document)?)] {
        std::fs::write(file(name), text).map_err(|error| format!("{name} cannot be written: {error}"))?;
        println!("{name} is written");
    }
    Ok(())
}

fn is_current(name: &str, text: &str) -> Result {
    let written = std::fs::read_to_string(file(name)).unwrap_or_default();
    // A checkout may have turned line ends.
    if written.replace("\r\n", "\n") == text {
        return Ok(());
    }
    let line = written.lines().zip(text.lines()).take_while(|(old, new)| old == new).count() + 1;
    Err(format!("{name} is stale from line {line} on: run `cargo xtask openapi`"))
}

fn file(name: &str) -> PathBuf {
    root().join(name)
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.output().map_err(|error| cannot_start(command, &error))?;
    if !output.status.success() {
        eprint!("{}", String::from_utf8_lossy(&output.stderr));
        return Err(format!("`{}` failed ({})", shown(command), output.status));
    }
    let document = String::from_utf8(output.stdout).map_err(|_| "the API document is not UTF-8".to_owned())?;
    if !document.starts_with('{') {
        return Err("the API document is not a JSON object".to_owned());
    }
    Ok(format!("{}\n", document.trim_end()))
}
