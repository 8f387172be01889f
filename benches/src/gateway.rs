//! The real `tenantry`, as a child with a scratch folder of its own.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde::Deserialize;

use crate::{Failure, client::Target, process, process::Child, vendor::Vendor};

/// How long a start, and the last usage, may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// The demo organization is on `team`. All resources are counted down, from allowances that no run uses up; there is no
/// limit of rate, or it would be what is measured.
pub(crate) const PLANS: &str = r#"
[[plan]]
id = "team"
name = "Team"
features = ["all"]
[plan.limits]
messages = 1_000_000_000_000
llm_tokens = 1_000_000_000_000_000
images = 1_000
api_calls = 1_000_000_000_000
requests_per_minute = "unlimited"
in_flight = 1_000
bots = 1
members = 1
keys = 2
"#;

/// Where the gateway keeps its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Storage {
    Memory,
    File,
}

/// A folder that is removed when it is dropped. It lies beside the binary, on a disk: `/tmp` is often memory.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn make() -> Result<Self, Failure> {
        let folder = beside_us(&format!("bench-{}", std::process::id()))?;
        fs::create_dir_all(&folder)?;
        Ok(Self(folder))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn beside_us(name: &str) -> Result<PathBuf, Failure> {
    Ok(std::env::current_exe()?.parent().ok_or("this binary lies in no folder")?.join(name))
}

/// The binary to measure.
pub(crate) fn binary(given: Option<&Path>) -> Result<PathBuf, Failure> {
    let path = match given {
        Some(path) => path.to_owned(),
        None => beside_us("tenantry")?,
    };
    if path.is_file() {
        return Ok(path);
    }
    let path = path.display();
    Err(format!("there is no {path}. Build it with `cargo build --release -p tenantry-host`.").into())
}

/// What is read of `dev.json`.
#[derive(Deserialize)]
struct Demo {
    base_url: String,
    api_key: String,
}

/// A running gateway.
pub(crate) struct Gateway {
    child: Child,
    address: SocketAddr,
    api_key: String,
}

impl Gateway {
    pub(crate) async fn start(
        tenantry: &Path,
        scratch: &Path,
        vendor: &Vendor,
        storage: Storage,
        log: &str,
    ) -> Result<Self, Failure> {
        let folder = scratch.join("data");
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder)?;
        let plans = scratch.join("plans.toml");
        fs::write(&plans, PLANS)?;
        let log_file = scratch.join("tenantry.log");
        let mut command = Command::new(tenantry);
        command
            .args(["--port", "0", "--data-dir"])
            .arg(&folder)
            .arg("--plans")
            .arg(&plans)
            .args((storage == Storage::Memory).then_some("--in-memory"))
            .env_clear()
            .env("OPENAI_BASE_URL", format!("http://{}/v1", vendor.address()))
            .env("OPENAI_API_KEY", "none")
            .env("RUST_LOG", log)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log_file)?);
        let mut child = Child::spawn(&mut command)?;
        let started = Instant::now();
        let demo: Demo = loop {
            if let Ok(text) = fs::read_to_string(folder.join("dev.json")) {
                break serde_json::from_str(&text)?;
            }
            if child.has_ended() || started.elapsed() > PATIENCE {
                return Err(format!("tenantry did not start: {}", fs::read_to_string(&log_file)?).into());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        let authority = demo.base_url.trim_start_matches("http://").trim_end_matches("/api/v1");
        Ok(Self { child, address: authority.parse()?, api_key: demo.api_key })
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn api_key(&self) -> &str {
        &self.api_key
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.pid()
    }

    pub(crate) fn peak_memory(&self) -> Result<u64, Failure> {
        process::peak_memory(self.pid())
    }

    /// Waits until the roll-ups know of as many requests as were made.
    ///
    /// # Errors
    /// When they never do, or know of more, or when something is still held.
    pub(crate) async fn await_usage(&self, calls: usize) -> Result<(), Failure> {
        let request = format!(
            "GET /api/v1/usage/stats HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\n\r\n",
            self.address, self.api_key
        );
        let mut connection = Target::new(self.address, request.into_bytes()).connect().await?;
        let started = Instant::now();
        loop {
            let stats: serde_json::Value = serde_json::from_slice(connection.call().await?)?;
            let requests = stats["totals"]["requests"].as_u64().ok_or("stats without totals.requests")?;
            if requests == calls as u64 {
                return check_meter(&stats, calls);
            }
            if requests > calls as u64 || started.elapsed() > PATIENCE {
                return Err(format!("{calls} calls were made, {requests} were recorded").into());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// The meter agrees with the records, and holds nothing any more.
fn check_meter(stats: &serde_json::Value, calls: usize) -> Result<(), Failure> {
    let resources = stats["resources"].as_array().ok_or("stats without resources")?;
    let used =
        |name| resources.iter().find(|r| r["resource"] == name).map(|r| (r["used"].as_u64(), r["held"].as_u64()));
    let calls = calls as u64;
    for (name, expected) in [("messages", calls), ("api_calls", calls), ("llm_tokens", calls * 64)] {
        if used(name) != Some((Some(expected), Some(0))) {
            return Err(format!("{calls} calls were made, and the meter says of {name}: {:?}", used(name)).into());
        }
    }
    match stats["totals"]["errors"].as_u64() {
        Some(0) => Ok(()),
        errors => Err(format!("the records have errors: {errors:?}").into()),
    }
}
