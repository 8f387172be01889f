//! `cargo xtask test`: every check there is, the cheap ones first and the tests last, so that their summary is what one
//! sees at the end.

use std::process::Stdio;

use crate::steps::{Result, Steps, cannot_start, cargo, run};
use crate::{contracts, e2e, fuzz_api, infra, openapi, sdk, tools};

/// Everything.
pub(crate) fn full() -> Result {
    let mut steps = Steps::new();
    format(&mut steps)?;
    steps.step("contracts", "Each line above names a file and what is wrong with it.", contracts::check)?;
    clippy(&mut steps)?;
    let nextest = prepare(&mut steps, &tools::NEXTEST)?;
    let deny = prepare(&mut steps, &tools::DENY)?;
    steps.step("licences, bans and sources", "deny.toml says what is allowed, and why.", || {
        run(deny.command().args(["--locked", "check", "--hide-inclusion-graph", "bans", "licenses", "sources"]))
    })?;
    steps.step(
        "advisories",
        "Update the crate that the advisory names, or record in deny.toml why it does not apply.",
        || advisories(&deny),
    )?;
    steps.step("build", "The compiler's message is above.", || {
        run(cargo(["build", "--workspace", "--all-targets", "--locked"]).stdin(Stdio::null()))
    })?;
    steps.step("API document", "Look at the difference before you commit it.", || {
        openapi::check(&openapi::built_document()?)
    })?;
    steps.step(
        "API by its document",
        "Each failure above ends in a curl line and in how to ask again.",
        fuzz_api::check,
    )?;
    steps.step(
        "SDKs of OpenAI and Stripe",
        "The tests need Python 3.11, Node 20 and their package registries.",
        sdk::prepare,
    )?;
    steps.step("documentation tests", "`cargo test --doc --package <crate>` runs those of one crate.", || {
        run(cargo(["test", "--doc", "--workspace", "--locked"]).stdin(Stdio::null()))
    })?;
    steps.step("template", "infra/checkov.yaml has checkov's exceptions, with reasons.", infra::check)?;
    steps.step("deployment to emulated AWS", "`cargo xtask e2e` runs this alone.", e2e::run_all)?;
    steps.step("tests", TESTS_ADVICE, || run(nextest.command().args(RUN_TESTS).stdin(Stdio::null())))?;
    steps.finish();
    Ok(())
}

/// What is worth knowing every few minutes.
pub(crate) fn quick() -> Result {
    let mut steps = Steps::new();
    format(&mut steps)?;
    clippy(&mut steps)?;
    let nextest = prepare(&mut steps, &tools::NEXTEST)?;
    steps.step("tests without the SDKs", TESTS_ADVICE, || {
        run(nextest.command().args(RUN_TESTS).args(["-E", "not binary(sdk)"]).stdin(Stdio::null()))
    })?;
    steps.finish();
    Ok(())
}

const RUN_TESTS: [&str; 4] = ["nextest", "run", "--workspace", "--locked"];
const TESTS_ADVICE: &str =
    "What a test printed stands above, at its FAIL line; `cargo nextest run -p <crate> <test>` runs it alone.";

fn format(steps: &mut Steps) -> Result {
    steps.step("formatting", "Run `cargo fmt --all`.", || run(cargo(["fmt", "--all", "--check"]).stdin(Stdio::null())))
}

fn clippy(steps: &mut Steps) -> Result {
    steps.step(
        "lints",
        "Mend what is shown above; `cargo clippy --workspace --all-targets --fix` mends some of it.",
        || {
            let lint = ["clippy", "--workspace", "--all-targets", "--locked", "--features", e2e::RELEASE_BINARIES];
            run(cargo(lint).args(["--", "-D", "warnings"]).stdin(Stdio::null()))
        },
    )
}

fn prepare(steps: &mut Steps, tool: &tools::Tool) -> Result<tools::Installed> {
    let advice = format!("Is crates.io within reach? `cargo install {}` by hand does as well.", tool.name);
    steps.step(tool.name, &advice, || tool.prepare())
}

/// A known vulnerability fails; a database that cannot be fetched is said plainly and passes, because work offline must
/// be possible.
fn advisories(deny: &tools::Installed) -> Result {
    let mut command = deny.command();
    command.args(["--locked", "check", "--hide-inclusion-graph", "advisories"]).stdin(Stdio::null());
    let output = command.output().map_err(|error| cannot_start(&command, &error))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        print!("{}{said}", String::from_utf8_lossy(&output.stdout));
        return Ok(());
    }
    if said.contains("failed to fetch advisory database") {
        println!("NOT CHECKED: the RustSec advisory database cannot be fetched from here.");
        return Ok(());
    }
    eprint!("{said}");
    Err(format!("cargo-deny found advisories ({})", output.status))
}
