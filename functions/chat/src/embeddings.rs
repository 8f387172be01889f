//! `POST /api/v1/embeddings`.

use axum::{
    Extension,
    extract::{Request, State},
    response::Response,
};
use serde_json::Value;
use tenantry_domain::{catalogue::ModelKind, roles::Permission, usage::Operation};
use tenantry_providers::{EmbeddingsCall, Timing, tokens::count_embedding_input};
use tenantry_web::{
    ApiError, Caller,
    error::OpenAiError,
    extract::{body, require_json},
    router::TraceId,
};
use tokio::time::Instant;

use crate::{
    answer,
    call::{Call, Estimate, Proposal},
    request::EmbeddingsRequest,
};

/// Turn texts into vectors. OpenAI's request and answer.
#[utoipa::path(
    post, path = "/api/v1/embeddings", tag = "models", operation_id = "create_embeddings",
    request_body(content = serde_json::Value, description = "OpenAI's embeddings request", example = json!({
        "model": "text-embedding-3-small", "input": "Hello!"
    })),
    responses(
        (status = 200, description = "OpenAI's list of embeddings", body = serde_json::Value),
        (status = 400, description = "The request is wrong; `param` names the field", body = OpenAiError),
        (status = 401, body = OpenAiError),
        (status = 402, description = "Out of credits", body = OpenAiError),
        (status = 404, description = "No such model", body = OpenAiError),
        (status = 413, body = OpenAiError),
        (status = 415, body = OpenAiError),
        (status = 429, description = "`rate_limited`, `quota_exceeded` or `too_many_in_flight`", body = OpenAiError),
        (status = 502, description = "The vendor failed", body = OpenAiError),
        (status = 503, body = OpenAiError),
        (status = 504, description = "The vendor took too long", body = OpenAiError),
    ),
)]
pub(crate) async fn create(
    State(state): State<crate::State>,
    caller: Caller,
    Extension(trace): Extension<TraceId>,
    http_request: Request,
) -> Result<Response, ApiError> {
    let scope = caller.scope(Permission::CallModels)?;
    require_json(http_request.headers())?;
    let request = EmbeddingsRequest::parse(&body(http_request, &()).await?)?;
    let (model, provider) = state.0.models.find(&request.model)?;
    if model.kind != ModelKind::Embedding {
        return Err(ApiError::invalid("/model", "is not an embedding model; use POST /api/v1/chat/completions"));
    }
    let prompt = count_embedding_input(request.members.get("input").unwrap_or(&Value::Null));
    let estimate = Estimate { prompt, cap: 0, cap_is_fixed: true, choices: 1 };
    let proposal =
        Proposal { model: model.clone(), operation: Operation::Embeddings, streamed: false, estimate, trace };
    let call = Call::admit(&state, &caller, scope, proposal).await?;
    let waits = state.0.waits;
    let upstream = EmbeddingsCall {
        request: request.members,
        client_model: request.model,
        upstream_model: model.upstream_name().to_owned(),
        timing: Timing { first_byte: waits.first_byte, idle: waits.idle, deadline: Instant::now() + waits.call },
    };
    answer::embeddings(&state, call, provider, upstream).await
}
