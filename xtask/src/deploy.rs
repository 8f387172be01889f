//! `cargo xtask deploy`: the functions are built, the stack is deployed by the SAM CLI as `samconfig.toml` says, and empty
//! secrets are filled in. It may be run as often as one likes: what is as it should be stays.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::Path;
use std::process::{Command, Stdio};

use toml::{Table, Value};

use crate::python::{Environment, LAMBDA, SAM};
use crate::steps::{Result, program, read, root, run, write};

/// The target that is no AWS account.
const EMULATED: &str = "local";

/// Where to, as `samconfig.toml` says.
pub(crate) struct Target {
    name: String,
    pub(crate) stack: String,
    region: String,
    /// `Name=value`, for the template.
    parameters: Vec<String>,
    /// An emulator's address.
    endpoint: Option<String>,
}

impl Target {
    /// The target called `name`. One that is emulated needs an `endpoint`.
    pub(crate) fn find(name: &str, endpoint: Option<String>) -> Result<Self> {
        let config: Table = read(&root().join("samconfig.toml"))?
            .parse()
            .map_err(|error| format!("samconfig.toml is not TOML: {error}"))?;
        let parameters = config.get(name).and_then(|target| target.get("deploy")?.get("parameters"));
        let parameters = parameters.and_then(Value::as_table).ok_or_else(|| {
            let targets: Vec<_> =
                config.iter().filter(|(_, value)| value.is_table()).map(|(name, _)| &**name).collect();
            format!("samconfig.toml knows no target `{name}`, only {}", targets.join(", "))
        })?;
        let text = |key: &str| {
            let value = parameters.get(key).and_then(Value::as_str);
            value.map(str::to_owned).ok_or_else(|| format!("samconfig.toml: the target `{name}` has no {key}"))
        };
        if name == EMULATED && endpoint.is_none() {
            return Err("where is the emulator? Name it with --endpoint or AWS_ENDPOINT_URL".to_owned());
        }
        let overrides = parameters.get("parameter_overrides").and_then(Value::as_array);
        let overrides = overrides.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
        Ok(Self {
            name: name.to_owned(),
            stack: text("stack_name")?,
            region: text("region")?,
            parameters: overrides,
            endpoint,
        })
    }

    /// Sets a parameter of the template.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.parameters.retain(|parameter| parameter.split('=').next() != Some(name));
        self.parameters.push(format!("{name}={value}"));
    }

    fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find_map(|parameter| parameter.strip_prefix(name)?.strip_prefix('='))
    }

    /// The environment of programs that talk to AWS. With an emulator, no account of yours is in reach.
    pub(crate) fn prepare<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.env("SAM_CLI_TELEMETRY", "0").env("AWS_REGION", &self.region).env("AWS_DEFAULT_REGION", &self.region);
        if let Some(endpoint) = &self.endpoint {
            command.env("AWS_ENDPOINT_URL", endpoint);
        }
        if self.name == EMULATED {
            command.env("AWS_ACCESS_KEY_ID", "test").env("AWS_SECRET_ACCESS_KEY", "test").env_remove("AWS_PROFILE");
            command.env_remove("AWS_SESSION_TOKEN");
            for file in ["AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"] {
                command.env(file, root().join("target/no-aws-account"));
            }
        }
        command
    }
}

/// Builds and deploys.
pub(crate) fn deploy(target: &Target) -> Result {
    let architecture = target.parameter("Architecture").unwrap_or("arm64");
    build(architecture)?;
    let sam = SAM.prepare()?;
    stack(&sam, target)
}

/// Deploys what has been built.
pub(crate) fn stack(sam: &Environment, target: &Target) -> Result {
    // Beside the original, because what it refers to is found from there.
    let copy = root().join("infra/.deployed.yaml");
    write(&copy, &marked(&read(&root().join("infra/template.yaml"))?, &target.parameters)?)?;
    let deployed = deploy_template(sam, target, &copy);
    std::fs::remove_file(&copy).ok();
    deployed?;
    // Without a byte-code cache: the folder is read by everybody.
    let mut fill = sam.program("python");
    run(target.prepare(fill.args(["-B", "infra/fill_secrets.py", &target.stack]).stdin(Stdio::null())))
}

/// Takes the key of access tokens one step further; `at_once` without waiting for the tokens of the step before.
pub(crate) fn rotate(target: &Target, at_once: bool) -> Result {
    let sam = SAM.prepare()?;
    let mut rotate = sam.program("python");
    rotate.args(["-B", "infra/fill_secrets.py", &target.stack, "rotate"]);
    if at_once {
        rotate.arg("now");
    }
    run(target.prepare(rotate.stdin(Stdio::null())))
}

/// The template with a mark of the parameters' values in every function: SAM publishes a new version, which `live` then
/// points at, only when the text of a function has changed.
fn marked(template: &str, parameters: &[String]) -> Result<String> {
    const PLACE: &str = "Tags: { Parameters: as-written }";
    if template.matches(PLACE).count() != 1 {
        return Err(format!("infra/template.yaml has no line `{PLACE}`, or several"));
    }
    let mut sorted = parameters.to_vec();
    sorted.sort();
    let mut hasher = DefaultHasher::new();
    sorted.hash(&mut hasher);
    Ok(template.replace(PLACE, &format!("Tags: {{ Parameters: \"{:016x}\" }}", hasher.finish())))
}

fn deploy_template(sam: &Environment, target: &Target, template: &Path) -> Result {
    let mut command = sam.program("sam");
    command.args(["deploy", "--no-progressbar", "--template-file"]).arg(template);
    command.args(["--config-file", &root().join("samconfig.toml").to_string_lossy(), "--config-env", &target.name]);
    command.arg("--parameter-overrides").args(&target.parameters);
    run(target.prepare(&mut command))
}

/// Builds the release binaries of all functions, for `arm64` or `x86_64`, into `target/lambda`.
pub(crate) fn build(architecture: &str) -> Result {
    build_with(architecture, &[])
}

/// The same with packages that are not deployed.
pub(crate) fn build_with(architecture: &str, more: &[&str]) -> Result {
    let lambda = LAMBDA.prepare()?;
    let mut command = program("cargo");
    command.args(["lambda", "build", "--release", "--locked"]);
    command.arg(if architecture == "arm64" { "--arm64" } else { "--x86-64" });
    for package in packages()?.iter().map(String::as_str).chain(more.iter().copied()) {
        command.args(["--package", package]);
    }
    command.env("PATH", lambda.path()?);
    // Without this aws-lc spends up to a second of a cold start on gathering entropy of its own; the kernel's is good.
    command.env("AWS_LC_SYS_NO_JITTER_ENTROPY", "1");
    run(command.stdin(Stdio::null()))
}

/// This machine's architecture, in the template's word.
pub(crate) const fn own_architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "x86_64" }
}

/// The functions' packages.
pub(crate) fn packages() -> Result<Vec<String>> {
    let folder = root().join("functions");
    let unreadable = |error: std::io::Error| format!("{} cannot be read: {error}", folder.display());
    let mut packages = Vec::new();
    for entry in std::fs::read_dir(&folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        if entry.path().join("Cargo.toml").exists() {
            packages.push(format!("tenantry-{}", entry.file_name().to_string_lossy()));
        }
    }
    packages.sort();
    Ok(packages)
}

#[cfg(test)]
mod tests {
    use super::{Target, marked};

    #[test]
    fn a_parameter_is_set_once() {
        let mut target = Target::find("local", Some("http://127.0.0.1:1".to_owned())).unwrap();
        assert_eq!(target.parameter("Stage"), Some("local"));
        target.set("Stage", "other");
        assert_eq!(target.parameter("Stage"), Some("other"));
        assert_eq!(target.parameters.iter().filter(|parameter| parameter.starts_with("Stage=")).count(), 1);
    }

    #[test]
    fn another_value_is_another_text() {
        let template = "a\n    Tags: { Parameters: as-written }\nb\n";
        let with = |values: &[&str]| {
            marked(template, &values.iter().map(|value| (*value).to_owned()).collect::<Vec<_>>()).unwrap()
        };
        assert_ne!(with(&["A=1"]), with(&["A=2"]));
        assert_eq!(with(&["A=1", "B=2"]), with(&["B=2", "A=1"]));
        assert!(marked("a\n", &[]).is_err());
    }

    #[test]
    fn an_unknown_target_is_named() {
        let error = Target::find("moon", None).err().unwrap();
        assert!(error.contains("`moon`") && error.contains("staging"), "{error}");
    }
}
