//! Running a router as a Lambda function.

use std::future::Future;

use axum::Router;

use crate::{
    config::{ConfigError, Env},
    telemetry,
};

/// Why a function cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Fatal {
    /// The environment is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The runtime stopped.
    #[error("the Lambda runtime stopped: {0}")]
    Runtime(String),
}

/// Serves the router that `build` makes from the environment; answers are buffered.
///
/// # Errors
/// [`Fatal`].
pub async fn serve<F: Future<Output = Result<Router, ConfigError>>>(build: impl FnOnce(Env) -> F) -> Result<(), Fatal> {
    let router = start(build).await?;
    lambda_http::run(router).await.map_err(|error| Fatal::Runtime(error.to_string()))
}

/// The same with answers that stream.
///
/// # Errors
/// [`Fatal`].
pub async fn serve_streaming<F: Future<Output = Result<Router, ConfigError>>>(
    build: impl FnOnce(Env) -> F,
) -> Result<(), Fatal> {
    let router = start(build).await?;
    lambda_http::run_with_streaming_response(router).await.map_err(|error| Fatal::Runtime(error.to_string()))
}

async fn start<F: Future<Output = Result<Router, ConfigError>>>(build: impl FnOnce(Env) -> F) -> Result<Router, Fatal> {
    let env = Env::process();
    telemetry::init(&env, telemetry::Format::Json);
    Ok(build(env).await?)
}
