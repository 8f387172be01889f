//! What stands around every function's routes: request id, access log, body limit, error shape.

use std::{sync::Arc, time::Instant};

use axum::{
    Router,
    body::Body,
    extract::{DefaultBodyLimit, MatchedPath, Request},
    middleware::{self, Next},
    response::Response,
};
use http::{HeaderValue, Method, StatusCode, header};
use tenantry_domain::RequestId;
use tracing::Instrument as _;
use utoipa_axum::router::OpenApiRouter;

use crate::error::{ApiError, Code};

/// Name of the header that carries the request id, both ways.
pub const REQUEST_ID: &str = "x-request-id";

/// Largest body of routes that state no other limit, in bytes.
pub const BODY_LIMIT: usize = 256 * 1024;

/// How a router's errors look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorShape {
    /// RFC 9457 problems.
    Problem,
    /// OpenAI's errors, for the model endpoints.
    OpenAi,
}

/// The id that the response carries: the caller's `x-request-id` if well-formed, else a new one.
#[derive(Debug, Clone)]
pub struct TraceId(pub Arc<str>);

/// Finishes a function's router: `/healthz`-less, stateless, ready for Lambda, `host` and tests.
pub fn finish<S: Clone + Send + Sync + 'static>(
    routes: OpenApiRouter<S>,
    state: S,
    shape: ErrorShape,
    body_limit: usize,
) -> Router {
    let (router, _) = routes.split_for_parts();
    around(router.with_state(state).method_not_allowed_fallback(method_not_allowed), shape, body_limit)
}

/// The same for a plain router.
pub fn around(router: Router, shape: ErrorShape, body_limit: usize) -> Router {
    router
        .layer(DefaultBodyLimit::max(body_limit))
        .layer(middleware::from_fn(move |request, next| handle(request, next, shape)))
}

/// The answer to a path that no route has.
pub async fn not_found() -> ApiError {
    ApiError::not_found()
}

async fn method_not_allowed(method: Method) -> ApiError {
    ApiError::new(Code::MethodNotAllowed, format!("This path does not know {method}."))
}

async fn handle(mut request: Request, next: Next, shape: ErrorShape) -> Response {
    let started = Instant::now();
    let id = request_id(&request);
    request.extensions_mut().insert(TraceId(id.clone()));
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().map_or("-", MatchedPath::as_str).to_owned();
    let span = tracing::info_span!("request", request_id = %id, org = tracing::field::Empty);
    let mut response = next.run(request).instrument(span.clone()).await;
    let error = response.extensions_mut().remove::<Arc<ApiError>>();
    if let Some(error) = &error {
        response = render(error, &id, shape);
    }
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    // An answer is for its caller. A cache does not see that when the key came as X-API-Key (RFC 9111, 3.5).
    response.headers_mut().entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    log(&span, &method, &route, &response, error.as_deref(), started);
    response
}

/// One line per request, written here and nowhere else. For a stream it is written when it begins.
fn log(
    span: &tracing::Span,
    method: &Method,
    route: &str,
    response: &Response,
    error: Option<&ApiError>,
    started: Instant,
) {
    let _entered = span.enter();
    let status = response.status().as_u16();
    let ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let code = error.map(ApiError::code);
    match error.and_then(ApiError::internal_message) {
        Some(cause) => tracing::error!(%method, route, status, ms, ?code, cause, "request failed"),
        None => tracing::info!(%method, route, status, ms, ?code, "request"),
    }
}

fn render(error: &ApiError, request_id: &str, shape: ErrorShape) -> Response {
    let (status, kind, body) = match shape {
        ErrorShape::Problem => (
            error.status(),
            "application/problem+json",
            serde_json::to_vec(&error.to_problem(request_id)).unwrap_or_default(),
        ),
        ErrorShape::OpenAi => {
            // OpenAI knows no 422; its SDKs raise BadRequestError for 400. What else a vendor may find wrong
            // with a request is a bad request too.
            let status = match error.status() {
                StatusCode::UNPROCESSABLE_ENTITY => StatusCode::BAD_REQUEST,
                status if error.code() == Code::UpstreamError && status.is_client_error() => match status.as_u16() {
                    404 | 413 | 429 => status,
                    _ => StatusCode::BAD_REQUEST,
                },
                status => status,
            };
            (status, "application/json", error.to_openai())
        }
    };
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    error.headers(response.headers_mut());
    response
}

/// Well-formed: 8 to 64 letters, digits, `-`, `_` or `.`; anything else could forge a log line.
fn request_id(request: &Request) -> Arc<str> {
    let given = request.headers().get(REQUEST_ID).and_then(|value| value.to_str().ok());
    let fits = |id: &&str| {
        (8..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    given.filter(fits).map_or_else(|| RequestId::new().to_string().into(), Into::into)
}
