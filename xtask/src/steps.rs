//! Running programs and telling how it went.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// An error is the sentence that the developer reads.
pub(crate) type Result<T = ()> = std::result::Result<T, String>;

/// The workspace's folder.
pub(crate) fn root() -> PathBuf {
    // What `cargo run` says now: what it said at compile time may be another checkout with the same target folder.
    #[allow(clippy::disallowed_methods, reason = "a variable of cargo's, not configuration")]
    let xtask = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&xtask).parent().map(Path::to_owned).unwrap_or_default()
}

/// A program that will run in the workspace's folder.
pub(crate) fn program(name: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(name);
    command.current_dir(root());
    command
}

/// Cargo with these arguments, in the workspace's folder.
pub(crate) fn cargo<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Command {
    let mut command = program("cargo");
    command.args(arguments);
    command
}

/// Runs a program; what it prints is seen as it comes.
pub(crate) fn run(command: &mut Command) -> Result {
    let status = command.status().map_err(|error| cannot_start(command, &error))?;
    if status.success() { Ok(()) } else { Err(format!("`{}` failed ({status})", shown(command))) }
}

/// A file's text.
pub(crate) fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|error| format!("{} cannot be read: {error}", path.display()))
}

/// Writes a file.
pub(crate) fn write(path: &Path, text: &str) -> Result {
    std::fs::write(path, text).map_err(|error| format!("{} cannot be written: {error}", path.display()))
}

/// Why a program did not start.
pub(crate) fn cannot_start(command: &Command, error: &std::io::Error) -> String {
    format!("`{}` cannot be started: {error}", shown(command))
}

/// A command as one would type it.
pub(crate) fn shown(command: &Command) -> String {
    let name = Path::new(command.get_program()).file_name().unwrap_or_default();
    let words: Vec<_> = std::iter::once(name).chain(command.get_args()).map(OsStr::to_string_lossy).collect();
    words.join(" ")
}

/// A sequence of steps; each is announced, timed, and the first failure ends the sequence.
pub(crate) struct Steps {
    started: Instant,
    done: u32,
}

impl Steps {
    pub(crate) fn new() -> Self {
        Self { started: Instant::now(), done: 0 }
    }

    /// Runs one step. `advice` says what to do when it fails.
    pub(crate) fn step<T>(&mut self, name: &str, advice: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        println!("\n── {name}");
        let started = Instant::now();
        let made = work().map_err(|error| format!("{name} failed: {error}\n{advice}"))?;
        println!("── {name}: ok, {}", seconds(started.elapsed()));
        self.done += 1;
        Ok(made)
    }

    /// The last line of a sequence that went well.
    pub(crate) fn finish(&self) {
        println!("\ncargo xtask test: {} steps passed in {}", self.done, seconds(self.started.elapsed()));
    }
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}
