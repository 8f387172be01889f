//! Answers that come whole.

use std::{future::Future, sync::Arc};

use axum::{body::Body, response::Response};
use http::{HeaderMap, HeaderValue, header};
use tenantry_domain::usage::Status;
use tenantry_providers::{ChatCall, ChatReply, CompleteReply, EmbeddingsCall, Provider, UpstreamError};
use tenantry_web::ApiError;
use tokio::sync::oneshot;

use crate::{State, call::Call};

/// Asks for a chat completion that comes whole.
pub(crate) async fn chat(
    state: &State,
    call: Call,
    provider: Arc<dyn Provider>,
    upstream: ChatCall,
) -> Result<Response, ApiError> {
    run(state, call, async move {
        match provider.chat(upstream).await? {
            ChatReply::Complete(reply) => Ok(reply),
            ChatReply::Stream(_) => Err(UpstreamError::Protocol("a stream that nobody asked for".into())),
        }
    })
    .await
}

/// Asks for embeddings.
pub(crate) async fn embeddings(
    state: &State,
    call: Call,
    provider: Arc<dyn Provider>,
    upstream: EmbeddingsCall,
) -> Result<Response, ApiError> {
    run(state, call, async move { provider.embeddings(upstream).await }).await
}

/// Waits for the vendor in a task of its own. A client that leaves meanwhile is charged what the vendor
/// reports all the same: a whole answer is produced, and billed by the vendor, whoever still listens.
async fn run(
    state: &State,
    mut call: Call,
    asking: impl Future<Output = Result<CompleteReply, UpstreamError>> + Send + 'static,
) -> Result<Response, ApiError> {
    let headers = call.limit_headers();
    let (tell, told) = oneshot::channel();
    state.0.calls.spawn(async move {
        let reply = match asking.await {
            Ok(reply) => reply,
            Err(error) => {
                call.finish_unused().await;
                let _ = tell.send(Err(failed(&error)));
                return;
            }
        };
        call.first_byte();
        let status = if tell.is_closed() { Status::ClientClosed } else { Status::Ok };
        call.finish_used(status, reply.usage, &reply.produced).await;
        let _ = tell.send(Ok(reply));
    });
    let reply = told.await.map_err(|_| ApiError::internal("the task of a call died"))??;
    let mut response = Response::new(Body::from(reply.body));
    *response.headers_mut() = headers;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    no_store(response.headers_mut());
    Ok(response)
}

/// A vendor's failure as the client gets it; the whole of it goes to the log.
pub(crate) fn failed(error: &UpstreamError) -> ApiError {
    tracing::warn!(%error, "the vendor failed");
    ApiError::upstream(error.status(), &error.body().to_json(), error.retry_after())
}

/// Answers of models belong to nobody else's cache.
pub(crate) fn no_store(headers: &mut HeaderMap) {
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
}
