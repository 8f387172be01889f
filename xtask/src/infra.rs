//! Checks of `infra/template.yaml` that need no deployment.

use std::process::Stdio;

use crate::python::{CHECKOV, SAM};
use crate::steps::{Result, program, root, run};

/// cfn-lint, the SAM CLI's own validation, and checkov with the exceptions of `infra/checkov.yaml`; and whether
/// `docs/scale.md` states the costs that follow from the template.
pub(crate) fn check() -> Result {
    run(program("python3").args(["-B", "infra/cost.py", "--check", "docs/scale.md"]).stdin(Stdio::null())).map_err(
        |error| format!("{error}\n`python3 infra/cost.py --write docs/scale.md` puts the new figures there"),
    )?;
    let sam = SAM.prepare()?;
    let checkov = CHECKOV.prepare()?;
    run(sam
        .program("cfn-lint")
        .args(["--non-zero-exit-code", "informational", "infra/template.yaml"])
        .stdin(Stdio::null()))?;
    println!("cfn-lint: clean");
    run(sam
        .program("sam")
        .args(["validate", "--lint", "--template-file", "infra/template.yaml", "--region", "us-east-1"])
        .args(["--config-file", &root().join("samconfig.toml").to_string_lossy(), "--config-env", "local"])
        .env("SAM_CLI_TELEMETRY", "0")
        .stdin(Stdio::null()))?;
    run(checkov
        .program("checkov")
        .args(["--config-file", "infra/checkov.yaml", "--file", "infra/template.yaml"])
        .stdin(Stdio::null()))
}
