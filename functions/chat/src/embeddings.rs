//! `POST /api/v1/embeddings`.

use axum::{
    Extension,
    extract::{Request, State},
    response::Response,
};
use serde_json::Value;
use tenantry_domain::{catalogue::ModelKind, roles::Permission, usage::Operation};
use tenantry_providers::{EmbeddingsCall, tokens::count_embedding_input};
use tenantry_web::{
    ApiError, Caller,
    extract::{body, require_json},
    router::TraceId,
};
use tokio::time::Instant;

use crate::{
    answer::{self, Question},
    call::{Estimate, Proposal},
    document,
    errors::ModelErrors,
    request::EmbeddingsRequest,
};

/// Turn texts into vectors. OpenAI's request and answer.
#[utoipa::path(
    post, path = "/api/v1/embeddings", tag = "models", operation_id = "create_embeddings",
    request_body(content = document::EmbeddingsRequest, description = "OpenAI's embeddings request", example = json!({
        "model": "text-embedding-3-small", "input": "Hello!"
    })),
    responses(
        (status = 200, description = "OpenAI's list of embeddings", body = serde_json::Value),
        ModelErrors,
    ),
)]
pub(crate) async fn create(
    State(state): State<crate::State>,
    caller: Caller,
    Extension(trace): Extension<TraceId>,
    http_request: Request,
) -> Result<Response, ApiError> {
    caller.scope(Permission::CallModels)?;
    require_json(http_request.headers())?;
    let body = body(http_request, &()).await?;
    let request = EmbeddingsRequest::parse(&body)?;
    let (model, provider) = state.0.models.find(&request.model, &caller)?;
    if model.kind != ModelKind::Embedding {
        return Err(ApiError::invalid("/model", "is not an embedding model; use POST /api/v1/chat/completions"));
    }
    let members = request.members.clone();
    let count = move || count_embedding_input(members.get("input").unwrap_or(&Value::Null));
    let prompt = state.count(body.len(), count).await?;
    let estimate = Estimate { prompt, cap: 0, cap_is_fixed: true, choices: 1 };
    let proposal = Proposal::new(&caller, trace, model.clone(), Operation::Embeddings, false, estimate)?;
    let upstream = EmbeddingsCall {
        request: request.members,
        client_model: request.model,
        upstream_model: model.upstream_name().to_owned(),
        timing: state.0.waits.from(Instant::now()),
    };
    answer::respond(&state, proposal, provider, Question::Embeddings(upstream)).await
}
