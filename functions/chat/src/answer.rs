//! Answers that come whole.

use std::sync::Arc;

use axum::{body::Body, response::Response};
use http::{HeaderMap, HeaderValue, header};
use tenantry_domain::usage::Status;
use tenantry_providers::{ChatCall, ChatReply, CompleteReply, EmbeddingsCall, Provider, UpstreamError};
use tenantry_web::ApiError;
use tokio::sync::oneshot;
use tracing::Instrument as _;

use crate::{
    State,
    call::{Call, Proposal},
};

/// A question whose answer comes whole.
pub(crate) enum Question {
    /// A chat completion.
    Chat(ChatCall),
    /// Embeddings.
    Embeddings(EmbeddingsCall),
}

/// Asks in a task of its own and waits for the answer. A client that leaves meanwhile is charged what the
/// vendor reports all the same: a whole answer is produced, and billed by the vendor, whoever still
/// listens.
pub(crate) async fn respond(
    state: &State,
    proposal: Proposal,
    provider: Arc<dyn Provider>,
    question: Question,
) -> Result<Response, ApiError> {
    let (tell, told) = oneshot::channel();
    let task = run(state.clone(), proposal, provider, question, tell);
    state.0.calls.spawn(task.in_current_span());
    let (headers, reply) = told.await.map_err(|_| ApiError::internal("the task of a call died"))??;
    let mut response = Response::new(Body::from(reply.body));
    *response.headers_mut() = headers;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    no_store(response.headers_mut());
    Ok(response)
}

type Told = Result<(HeaderMap, CompleteReply), ApiError>;

async fn run(
    state: State,
    proposal: Proposal,
    provider: Arc<dyn Provider>,
    question: Question,
    tell: oneshot::Sender<Told>,
) {
    let mut call = match Call::admit(&state, proposal).await {
        Ok(call) => call,
        Err(error) => {
            let _ = tell.send(Err(error));
            return;
        }
    };
    if tell.is_closed() {
        call.finish_unused(Status::ClientClosed).await;
        return;
    }
    let reply = match ask(&call, &*provider, question).await {
        Ok(reply) => reply,
        Err(error) => {
            let headers = finish_failed(call, &error).await;
            let _ = tell.send(Err(failed(&error).with_headers(headers)));
            return;
        }
    };
    call.first_byte();
    let status = if tell.is_closed() { Status::ClientClosed } else { Status::Ok };
    let headers = call.finish_used(status, reply.usage, &reply.produced).await;
    let _ = tell.send(Ok((headers, reply)));
}

async fn ask(call: &Call, provider: &dyn Provider, question: Question) -> Result<CompleteReply, UpstreamError> {
    match question {
        Question::Chat(mut upstream) => {
            upstream.max_completion_tokens = call.cap();
            upstream.timing = call.timing();
            match provider.chat(upstream).await? {
                ChatReply::Complete(reply) => Ok(reply),
                ChatReply::Stream(_) => Err(UpstreamError::Protocol("a stream that nobody asked for".into())),
            }
        }
        Question::Embeddings(mut upstream) => {
            upstream.timing = call.timing();
            provider.embeddings(upstream).await
        }
    }
}

/// Settles a call whose vendor failed before the answer began. Our own limit is no failure of the
/// vendor's: what was too large to pass on was produced.
pub(crate) async fn finish_failed(call: Call, error: &UpstreamError) -> HeaderMap {
    if matches!(error, UpstreamError::TooLarge) {
        call.finish_as_held().await
    } else {
        call.finish_unused(Status::UpstreamError).await
    }
}

/// A vendor's failure as the client gets it. What the vendor says may repeat the prompt, so the log has only
/// its class.
pub(crate) fn failed(error: &UpstreamError) -> ApiError {
    let upstream = match error {
        UpstreamError::Status(status) => Some(status.upstream_status.as_u16()),
        _ => None,
    };
    tracing::warn!(upstream, status = error.status().as_u16(), code = error.body().code, "the vendor failed");
    ApiError::upstream(error.status(), &error.body().to_json(), error.retry_after())
}

/// Answers of models belong to nobody else's cache.
pub(crate) fn no_store(headers: &mut HeaderMap) {
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
}
