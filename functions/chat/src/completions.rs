//! `POST /api/v1/chat/completions`.

use axum::{
    Extension,
    extract::{Request, State},
    response::Response,
};
use tenantry_domain::{
    catalogue::{self, Model, ModelKind},
    roles::Permission,
    usage::Operation,
};
use tenantry_providers::{CapField, ChatCall, Timing, tokens::count_prompt_map};
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
    request::ChatRequest,
    stream,
};

/// Ask a model. OpenAI's request and answer, streamed when `stream` is true; members that are not known
/// here reach the vendor as they are.
#[utoipa::path(
    post, path = "/api/v1/chat/completions", tag = "models", operation_id = "create_chat_completion",
    request_body(content = serde_json::Value, description = "OpenAI's chat completion request", example = json!({
        "model": "gpt-5-mini", "messages": [{"role": "user", "content": "Hello!"}]
    })),
    responses(
        (status = 200, description = "OpenAI's chat completion, or its chunks as server-sent events", body = serde_json::Value),
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
    let request = ChatRequest::parse(&body(http_request, &()).await?)?;
    let (model, provider) = state.0.models.find(&request.model)?;
    if model.kind != ModelKind::Chat {
        return Err(ApiError::invalid("/model", "is not a chat model; use POST /api/v1/embeddings"));
    }
    let prompt = count_prompt_map(&request.members);
    let estimate = estimate(&model, &request, prompt);
    let proposal =
        Proposal { model: model.clone(), operation: Operation::Chat, streamed: request.stream, estimate, trace };
    let call = Call::admit(&state, &caller, scope, proposal).await?;
    let waits = state.0.waits;
    let upstream = ChatCall {
        request: request.members,
        client_model: request.model,
        upstream_model: model.upstream_name().to_owned(),
        max_completion_tokens: call.cap(),
        cap_field: match model.cap_field {
            catalogue::CapField::MaxTokens => CapField::MaxTokens,
            catalogue::CapField::MaxCompletionTokens => CapField::MaxCompletionTokens,
        },
        stream: request.stream,
        timing: Timing { first_byte: waits.first_byte, idle: waits.idle, deadline: Instant::now() + waits.call },
    };
    if request.stream {
        stream::respond(&state, call, provider, upstream).await
    } else {
        answer::chat(&state, call, provider, upstream).await
    }
}

/// The most that this request can use: what the client asked for, or the model's cap within its window.
fn estimate(model: &Model, request: &ChatRequest, prompt: u64) -> Estimate {
    let cap = match request.cap {
        Some(cap) => cap.min(model.max_output_tokens),
        // Several vendors refuse a cap that the window cannot hold behind the prompt.
        None => model.max_output_tokens.min(model.context_tokens.saturating_sub(prompt)).max(1),
    };
    Estimate { prompt, cap, cap_is_fixed: request.cap.is_some(), choices: request.choices }
}
