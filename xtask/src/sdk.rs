//! The environments in which the tests run official SDKs: OpenAI's for Python in `target/sdk/venv` and for Node in
//! `target/sdk/node`, Stripe's for Python in `target/sdk/stripe`. Each is made again only when what it was made from has changed.

use std::process::Stdio;

use crate::python::{Set, is_current, version};
use crate::steps::{Result, program, read, root, run, write};

const PYTHON: Set = Set { folder: "target/sdk/venv", requirements: "tests/sdk/python/requirements.txt" };

/// Stripe's SDK.
const STRIPE: Set = Set { folder: "target/sdk/stripe", requirements: "tests/stripe/requirements.txt" };

/// Makes all environments.
pub(crate) fn prepare() -> Result {
    PYTHON.prepare()?;
    STRIPE.prepare()?;
    node()
}

fn node() -> Result {
    let (pinned, folder) = (root().join("tests/sdk/node"), root().join("target/sdk/node"));
    let (package, lock) = (read(&pinned.join("package.json"))?, read(&pinned.join("package-lock.json"))?);
    let made_from = format!("{}\n{lock}", version("node")?);
    let stamp = folder.join("made-from");
    if folder.join("node_modules/openai").exists() && is_current(&stamp, &made_from) {
        println!("Node SDK: as before");
        return Ok(());
    }
    std::fs::remove_file(&stamp).ok();
    std::fs::create_dir_all(&folder).map_err(|error| format!("{} cannot be made: {error}", folder.display()))?;
    // npm installs beside the package that asks.
    write(&folder.join("package.json"), &package)?;
    write(&folder.join("package-lock.json"), &lock)?;
    let npm = if cfg!(windows) { "npm.cmd" } else { "npm" };
    run(program(npm)
        .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
        .current_dir(&folder)
        .stdin(Stdio::null()))?;
    write(&stamp, &made_from)
}
