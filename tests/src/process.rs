//! The real `tenantry` binary as a child process, for what only a process can show: being killed.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

/// A folder that is removed with its value.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// A new, empty folder.
    #[must_use]
    pub fn new() -> Self {
        let name = format!("tenantry-test-{}", tenantry_domain::RequestId::new().short());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).expect("a temporary folder");
        Self(path)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Default for Folder {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A running `tenantry`.
#[derive(Debug)]
pub struct Process {
    child: Child,
    demo: Value,
    /// Kept open: a program whose output nobody takes any more may be ended by writing it.
    _output: Lines<BufReader<ChildStdout>>,
}

impl Process {
    /// Starts it on a free port with its data in `folder`, and waits until it serves.
    ///
    /// # Panics
    /// When the binary has not been built, or does not start.
    pub async fn start(folder: &Path, variables: &[(&str, &str)], arguments: &[&str]) -> Self {
        let mut command = Command::new(binary());
        command.args(["--port", "0", "--data-dir"]).arg(folder).args(arguments);
        // What a developer's shell has set is not for this process.
        command.env_clear().envs(variables.iter().copied());
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("the binary starts");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        while let Some(line) = lines.next_line().await.expect("text") {
            if line.starts_with("Make the first call") {
                let text = std::fs::read_to_string(folder.join("dev.json")).expect("dev.json is written");
                let demo = serde_json::from_str(&text).expect("dev.json is JSON");
                return Self { child, demo, _output: lines };
            }
        }
        panic!("tenantry ended before it served: {:?}", child.wait().await);
    }

    /// A member of `dev.json`.
    #[must_use]
    pub fn demo(&self, name: &str) -> &str {
        self.demo[name].as_str().unwrap_or_default()
    }

    /// `kill -9`.
    pub async fn kill(mut self) {
        self.child.kill().await.expect("a process that can be killed");
    }

    /// Ctrl-C's friendlier sibling, SIGTERM; waits for the end. True when it ended well.
    pub async fn terminate(mut self) -> bool {
        let id = self.child.id().expect("it runs").to_string();
        let sent = Command::new("kill").args(["-TERM", &id]).status().await.expect("kill is there");
        assert!(sent.success());
        self.child.wait().await.expect("it ends").success()
    }
}

/// Beside the test's own executable: `target/<profile>/deps/<test>` and `target/<profile>/tenantry`.
fn binary() -> PathBuf {
    let test = std::env::current_exe().expect("a path");
    let profile = test.parent().and_then(Path::parent).expect("target/<profile>/deps");
    let binary = profile.join(format!("tenantry{}", std::env::consts::EXE_SUFFIX));
    assert!(binary.exists(), "{} is missing: run `cargo build`, or `cargo xtask test`", binary.display());
    binary
}
