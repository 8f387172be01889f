//! A Lambda function as a process: a bootstrap with a runtime API of its own, as in an environment of Lambda.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Instant,
};

use serde_json::Value;
use tokio::{process::Command, sync::oneshot, task::JoinHandle};

use crate::{
    platform::Reply,
    runtime_api::{FunctionError, HttpResponse, RuntimeApi},
};

/// What is to be started.
#[derive(Debug, Clone)]
pub struct Program {
    command: Vec<PathBuf>,
    variables: Vec<(String, String)>,
    silent: bool,
}

impl Program {
    /// The release binary of a package, as `cargo lambda build` leaves it.
    ///
    /// # Panics
    /// When it has not been built.
    #[must_use]
    pub fn release(package: &str) -> Self {
        let path = folder().join(package).join("bootstrap");
        assert!(path.exists(), "{} is missing: `cargo xtask e2e` builds it, and runs this", path.display());
        Self::new([path])
    }

    /// A program, with its arguments.
    #[must_use]
    pub fn new(command: impl IntoIterator<Item = PathBuf>) -> Self {
        Self { command: command.into_iter().collect(), variables: vec![], silent: false }
    }

    /// With a variable of the environment; it has no other than these and Lambda's own.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With variables of the environment.
    #[must_use]
    pub fn variables(mut self, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        self.variables.extend(variables);
        self
    }

    /// With as many invocations at once as an environment of Lambda Managed Instances may have.
    #[must_use]
    pub fn concurrency(self, most: usize) -> Self {
        self.variable("AWS_LAMBDA_MAX_CONCURRENCY", &most.to_string())
    }

    /// With its output thrown away; otherwise it goes to this process's standard error.
    #[must_use]
    pub fn silent(mut self) -> Self {
        self.silent = true;
        self
    }
}

/// Where `cargo lambda build` leaves the functions: `target/lambda`, beside the profile that this program is of.
#[must_use]
pub fn folder() -> PathBuf {
    let program = std::env::current_exe().expect("a path");
    let mut folder = program.parent().expect("a folder");
    // Tests are in `target/<profile>/deps`, programs in `target/<profile>`.
    if folder.ends_with("deps") {
        folder = folder.parent().expect("target/<profile>");
    }
    folder.parent().unwrap_or(Path::new("")).join("lambda")
}

/// A running function. It is killed when this is dropped.
#[derive(Debug)]
pub struct Function {
    api: RuntimeApi,
    started: Instant,
    id: u32,
    stop: Option<oneshot::Sender<()>>,
    watcher: JoinHandle<()>,
}

impl Function {
    /// Starts the process. It may take events at once: those that it has not asked for yet wait.
    ///
    /// # Panics
    /// When there is no such program.
    pub async fn start(program: &Program) -> Self {
        let api = RuntimeApi::start().await;
        let (path, arguments) = program.command.split_first().expect("a program");
        let mut command = Command::new(path);
        command
            .args(arguments)
            .env_clear()
            .envs([
                ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128"),
                ("AWS_LAMBDA_FUNCTION_NAME", "test"),
                ("AWS_LAMBDA_FUNCTION_VERSION", "1"),
                ("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand"),
                ("AWS_LAMBDA_LOG_GROUP_NAME", "/aws/lambda/test"),
                ("AWS_LAMBDA_LOG_STREAM_NAME", "test"),
            ])
            .env("AWS_LAMBDA_RUNTIME_API", api.authority())
            .envs(program.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .kill_on_drop(true);
        for output in [Command::stdout, Command::stderr] {
            output(&mut command, if program.silent { Stdio::null() } else { std::io::stderr().into() });
        }
        let started = Instant::now();
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{} does not start: {error}", path.display()));
        let id = child.id().expect("it was just started");
        let (stop, stopped) = oneshot::channel();
        let ended = api.ended();
        let watcher = tokio::spawn(async move {
            tokio::select! {
                _ = child.wait() => {}
                // Also when the other end is dropped.
                _ = stopped => drop(child.kill().await),
            }
            ended();
        });
        Self { api, started, id, stop: Some(stop), watcher }
    }

    /// When the process was started.
    #[must_use]
    pub const fn started(&self) -> Instant {
        self.started
    }

    /// The process's id.
    #[must_use]
    pub const fn id(&self) -> u32 {
        self.id
    }

    /// Puts an event before it; returns what it answers, JSON.
    ///
    /// # Errors
    /// [`FunctionError`].
    pub async fn invoke(&self, event: &Value) -> Result<Value, FunctionError> {
        self.api.invoke(event).await?.json()
    }

    /// Puts a request before it, an event of [`crate::event::request`]; returns the response as soon as it begins.
    ///
    /// # Errors
    /// [`FunctionError`].
    pub async fn begin(&self, event: &Value) -> Result<HttpResponse, FunctionError> {
        self.api.invoke(event).await?.http()
    }

    /// The same, read to its end.
    ///
    /// # Errors
    /// [`FunctionError`].
    pub async fn request(&self, event: &Value) -> Result<Reply, FunctionError> {
        self.begin(event).await?.whole().await
    }

    /// Kills it and waits until it is gone.
    pub async fn stop(mut self) {
        drop(self.stop.take());
        (&mut self.watcher).await.ok();
    }
}
