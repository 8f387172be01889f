//! The environments in which the tests run official SDKs: OpenAI's for Python in `target/sdk/venv` and for Node in
//! `tests/sdk/node/node_modules`, Stripe's for Python in `target/sdk/stripe`. Each is made again only when what it was made from has changed.

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
