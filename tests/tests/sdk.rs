//! The official OpenAI SDKs, unchanged, against the whole platform: each script of `tests/sdk` runs as a child process
//! with a platform and an upstream of its own. And Stripe's, against the double of Stripe that stands in for it here.
//! `cargo xtask test` installs the SDKs at their pinned versions.

#![allow(clippy::expect_used, reason = "a test fails by panicking, also in its helpers")]

#[path = "sdk/stage.rs"]
mod stage;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use tenantry_sandbox::AheadClock;
use tenantry_sandbox::stripe::{Settings, StripeSandbox};
use tenantry_tests::upstream::Upstream;
use tokio::process::Command;

use crate::stage::Stage;

#[tokio::test(flavor = "multi_thread")]
async fn python_sdk() {
    let python = root().join("target/sdk/venv").join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" });
    must_be_installed(&python);
    let mut command = Command::new(python);
    // -B: nothing is written beside the script.
    command.arg("-B").arg(root().join("tests/sdk/python/test_openai.py"));
    run(command).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn node_sdk() {
    let folder = root().join("target/sdk/node");
    must_be_installed(&folder.join("node_modules/openai"));
    // Node looks for what a script imports beside the script.
    let script = folder.join("openai.test.mjs");
    std::fs::copy(root().join("tests/sdk/node/openai.test.mjs"), &script).expect("a copy of the script");
    let mut command = Command::new("node");
    command.args(["--test", "--test-reporter=spec"]).arg(script);
    run(command).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stripe_python_sdk() {
    let python = root().join("target/sdk/stripe").join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" });
    must_be_installed(&python);
    let sandbox =
        StripeSandbox::start(Arc::new(AheadClock::default()), Settings::default()).await.expect("a free port");
    let control = stage::deliveries(&sandbox).await;
    let status = Command::new(python)
        .arg("-B")
        .arg(root().join("tests/stripe/test_stripe.py"))
        .env("STRIPE_BASE_URL", &sandbox.base_url)
        .env("STRIPE_SECRET_KEY", &sandbox.secret_key)
        .env("STRIPE_WEBHOOK_SECRET", &sandbox.webhook_secret)
        .env("STRIPE_DELIVERIES", control)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .status()
        .await
        .expect("the SDK's interpreter starts");
    assert!(status.success(), "the SDK's tests failed ({status}); their output is above");
}

/// The workspace's folder: tests start in that of their package.
fn root() -> PathBuf {
    Path::new("..").canonicalize().expect("the folder above the package")
}

fn must_be_installed(path: &Path) {
    assert!(path.exists(), "{} is missing: run `cargo xtask test`, which installs the SDKs", path.display());
}

async fn run(mut command: Command) {
    let upstream = Upstream::start().await;
    let stage = Stage::start(&upstream).await;
    let status = command
        .env("TENANTRY_BASE_URL", &stage.base_url)
        .env("TENANTRY_API_KEY", &stage.api_key)
        .env("TENANTRY_FREE_API_KEY", &stage.free_api_key)
        .env("TENANTRY_RATE_LIMITED_API_KEY", &stage.rate_limited_api_key)
        .env("TENANTRY_CHAT_MODEL", stage::CHAT_MODEL)
        .env("TENANTRY_EMBEDDING_MODEL", stage::EMBEDDING_MODEL)
        .env("UPSTREAM_CONTROL", upstream.control_url())
        // What a developer's shell has set for the SDKs is not for these tests.
        .env_remove("OPENAI_API_KEY")
        .env_remove("OPENAI_BASE_URL")
        .env_remove("OPENAI_ORG_ID")
        .env_remove("OPENAI_PROJECT_ID")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .status()
        .await
        .expect("the SDK's interpreter starts");
    assert!(status.success(), "the SDK's tests failed ({status}); their output is above");
}
