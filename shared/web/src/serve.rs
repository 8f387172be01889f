//! Running as a Lambda function: routers behind API Gateway, handlers behind queues and schedules.
//!
//! Nothing that can wait happens before the first request: only then are secrets fetched, clients made
//! and the router or state built. What was built serves every later request of the process. What could
//! not be built is tried again with the next request.

use std::{
    convert::Infallible,
    future::Future,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{Router, body::HttpBody, response::Response};
use futures_util::future::BoxFuture;
use http::Request;
use lambda_runtime::{LambdaEvent, service_fn};
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::OnceCell;
use tower::{BoxError, Service, ServiceExt as _};

use crate::{
    config::{ConfigError, Env},
    error::{ApiError, Code},
    front::{Front, Transport},
    router::{BODY_LIMIT, ErrorShape, around},
    secrets::{SecretsError, overlay},
    telemetry,
};

/// What callers are told to wait when the function could not be built.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(2);

/// Why a function stops, or cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Fatal {
    /// The environment is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The runtime stopped.
    #[error("the Lambda runtime stopped: {0}")]
    Runtime(String),
}

impl Fatal {
    fn runtime(error: impl ToString) -> Self {
        Self::Runtime(error.to_string())
    }
}

/// Why a function cannot answer.
#[derive(Debug, thiserror::Error)]
enum Unready {
    #[error(transparent)]
    Secrets(#[from] SecretsError),
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// Serves the router that `build` makes from the environment and its secrets; answers are buffered.
///
/// # Errors
/// [`Fatal`].
pub async fn serve<F>(shape: ErrorShape, build: impl Fn(Env) -> F + Send + Sync + 'static) -> Result<(), Fatal>
where
    F: Future<Output = Result<Router, ConfigError>> + Send + 'static,
{
    lambda_http::run(Lazy::new(start(), shape, build)).await.map_err(Fatal::runtime)
}

/// The same with answers that stream, unless `RESPONSE_MODE` is `buffered`: some front ends cannot stream.
///
/// An environment of Lambda takes one request at a time. One of Lambda Managed Instances takes as many as
/// `AWS_LAMBDA_MAX_CONCURRENCY` says while answers stream: what mostly waits for vendors can wait for many.
///
/// # Errors
/// [`Fatal`].
pub async fn serve_streaming<F>(
    shape: ErrorShape,
    build: impl Fn(Env) -> F + Send + Sync + 'static,
) -> Result<(), Fatal>
where
    F: Future<Output = Result<Router, ConfigError>> + Send + 'static,
{
    const MODE: &str = "RESPONSE_MODE";
    let env = start();
    let mode = env.optional(MODE).unwrap_or("stream").to_owned();
    let router = Lazy::new(env, shape, build);
    match mode.as_str() {
        "stream" => lambda_http::run_with_streaming_response_concurrent(router).await,
        "buffered" => lambda_http::run(router).await,
        _ => return Err(ConfigError::new(MODE, "must be `stream` or `buffered`").into()),
    }
    .map_err(Fatal::runtime)
}

/// Runs `handle` for each event of a queue or schedule, with the state that `build` makes from the
/// environment.
///
/// # Errors
/// [`Fatal`].
pub async fn consume<S, E, R, X, B, H>(
    build: impl Fn(Env) -> B,
    handle: impl Fn(Arc<S>, LambdaEvent<E>) -> H,
) -> Result<(), Fatal>
where
    B: Future<Output = Result<S, ConfigError>>,
    H: Future<Output = Result<R, X>>,
    E: DeserializeOwned,
    R: Serialize,
    X: std::fmt::Display,
{
    let env = start();
    let state: OnceCell<Arc<S>> = OnceCell::new();
    let (env, state, build, handle) = (&env, &state, &build, &handle);
    let run = lambda_runtime::run(service_fn(async |event: LambdaEvent<E>| {
        let built =
            state.get_or_try_init(async || Ok::<_, ConfigError>(Arc::new(Box::pin(build(env.clone())).await?))).await;
        let failed = |error: &dyn std::fmt::Display| {
            tracing::error!(%error, "the event was not handled");
            lambda_runtime::Error::from(error.to_string())
        };
        let state = built.map_err(|error| failed(&error))?;
        // Boxed: the layout of the whole would nest deeper than the compiler follows.
        Box::pin(handle(state.clone(), event)).await.map_err(|error| failed(&error))
    }));
    run.await.map_err(Fatal::runtime)
}

/// The same with the secrets laid over the environment; while they cannot be read, events are delivered again.
///
/// # Errors
/// [`Fatal`].
pub async fn consume_with_secrets<S, E, R, X, B, H>(
    build: impl Fn(Env) -> B,
    handle: impl Fn(Arc<S>, LambdaEvent<E>) -> H,
) -> Result<(), Fatal>
where
    B: Future<Output = Result<S, ConfigError>>,
    H: Future<Output = Result<R, X>>,
    E: DeserializeOwned,
    R: Serialize,
    X: std::fmt::Display,
{
    let build = &build;
    consume(
        async move |env: Env| {
            let env = overlay(&env).await.map_err(|error| ConfigError::new("SECRET_IDS", error))?;
            build(env).await
        },
        handle,
    )
    .await
}

fn start() -> Env {
    let env = Env::process();
    telemetry::init(&env, telemetry::Format::Json);
    env
}

type Build = dyn Fn(Env) -> BoxFuture<'static, Result<Router, ConfigError>> + Send + Sync;

/// A router that is built when the first request comes.
#[derive(Clone)]
pub struct Lazy(Arc<Inner>);

struct Inner {
    env: Env,
    shape: ErrorShape,
    build: Box<Build>,
    router: OnceCell<Router>,
}

impl Lazy {
    /// The router that `build` will make of `env` and its secrets. Until that works, requests are answered
    /// with errors of `shape`.
    pub fn new<F>(env: Env, shape: ErrorShape, build: impl Fn(Env) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Router, ConfigError>> + Send + 'static,
    {
        let build = Box::new(move |env| Box::pin(build(env)) as BoxFuture<'static, _>);
        Self(Arc::new(Inner { env, shape, build, router: OnceCell::new() }))
    }

    async fn router(&self) -> Router {
        let Inner { env, shape, build, router } = &*self.0;
        // API Gateway serves nothing in the clear.
        let front = Front::from_env(env, Transport::Https);
        let built = router.get_or_try_init(async || {
            let front = front.clone()?;
            Ok::<_, Unready>(front.before(build(overlay(env).await?).await?))
        });
        match built.await {
            Ok(router) => router.clone(),
            Err(error) => front.unwrap_or(Front::closed(Transport::Https)).before(unready(&error, *shape)),
        }
    }
}

/// Answers every request with the error, in the shape that the real routes have.
fn unready(error: &Unready, shape: ErrorShape) -> Router {
    let api = match error {
        Unready::Secrets(_) => ApiError::new(Code::Unavailable, "The service is not ready. Try again.")
            .retry_after(TRY_AGAIN_AFTER)
            .because(error.to_string()),
        Unready::Config(_) => ApiError::internal(error.to_string()),
    };
    around(Router::new().fallback(async move || api), shape, BODY_LIMIT)
}

impl<B> Service<Request<B>> for Lazy
where
    B: HttpBody<Data = axum::body::Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let lazy = self.clone();
        Box::pin(async move { lazy.router().await.oneshot(request).await })
    }
}
