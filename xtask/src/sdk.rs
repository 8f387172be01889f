//! The environments in which the tests run the official OpenAI SDKs: Python's in `target/sdk/venv`, Node's in
//! `tests/sdk/node/node_modules`. Each is made again only when what it was made from has changed.

use std::path::Path;
use std::process::Stdio;

use crate::steps::{Result, program, root, run};

/// Makes both environments.
pub(crate) fn prepare() -> Result {
    python()?;
    node()
}

fn python() -> Result {
    let venv = root().join("target/sdk/venv");
    let requirements = root().join("tests/sdk/python/requirements.txt");
    let made_from = format!("{}\n{}", version("python3")?, read(&requirements)?);
    let stamp = root().join("target/sdk/python.made-from");
    if venv.exists() && is_current(&stamp, &made_from) {
        println!("Python SDK: as before");
        return Ok(());
    }
    std::fs::remove_file(&stamp).ok();
    run(program("python3").args(["-m", "venv", "--clear"]).arg(&venv).stdin(Stdio::null()))?;
    let python = venv.join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" });
    run(program(python)
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes", "--requirement"])
        .arg(&requirements)
        .stdin(Stdio::null()))?;
    write(&stamp, &made_from)
}

fn node() -> Result {
    let folder = root().join("tests/sdk/node");
    let made_from = format!("{}\n{}", version("node")?, read(&folder.join("package-lock.json"))?);
    let stamp = root().join("target/sdk/node.made-from");
    if folder.join("node_modules/openai").exists() && is_current(&stamp, &made_from) {
        println!("Node SDK: as before");
        return Ok(());
    }
    std::fs::remove_file(&stamp).ok();
    let npm = if cfg!(windows) { "npm.cmd" } else { "npm" };
    run(program(npm)
        .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
        .current_dir(&folder)
        .stdin(Stdio::null()))?;
    write(&stamp, &made_from)
}

fn is_current(stamp: &Path, made_from: &str) -> bool {
    std::fs::read_to_string(stamp).is_ok_and(|text| text == made_from)
}

fn version(name: &str) -> Result<String> {
    let output = program(name).arg("--version").stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("`{name}` cannot be started ({error}); install it"))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|error| format!("{} cannot be read: {error}", path.display()))
}

fn write(path: &Path, text: &str) -> Result {
    std::fs::write(path, text).map_err(|error| format!("{} cannot be written: {error}", path.display()))
}
