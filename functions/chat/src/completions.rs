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
use tenantry_providers::{CapField, ChatCall, tokens::count_prompt_map};
use tenantry_web::{
    ApiError, Caller,
    extract::{body, require_json},
    router::TraceId,
};
use tokio::time::Instant;

use crate::{
    answer::{self, Question},
    call::{Estimate, Proposal},
    document::ChatCompletionRequest,
    errors::ModelErrors,
    request::ChatRequest,
    stream,
};

/// Ask a model. OpenAI's request and answer, streamed when `stream` is true; members that are not known
/// here reach the vendor as they are.
#[utoipa::path(
    post, path = "/api/v1/chat/completions", tag = "models", operation_id = "create_chat_completion",
    request_body(content = ChatCompletionRequest, description = "OpenAI's chat completion request", example = json!({
        "model": "gpt-5-mini", "messages": [{"role": "user", "content": "Hello!"}]
    })),
    responses(
        (
            status = 200,
            description = "OpenAI's chat completion, or its chunks as server-sent events",
            content((serde_json::Value = "application/json"), (serde_json::Value = "text/event-stream")),
        ),
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
    let request = ChatRequest::parse(&body)?;
    let (model, provider) = state.0.models.find(&request.model, &caller)?;
    if model.kind != ModelKind::Chat {
        return Err(ApiError::invalid("/model", "is not a chat model; use POST /api/v1/embeddings"));
    }
    let (members, image_tokens) = (request.members.clone(), model.image_tokens);
    let prompt = state.count(body.len(), move || count_prompt_map(&members, image_tokens)).await?;
    let estimate = estimate(&model, &request, prompt);
    let proposal = Proposal::new(&caller, trace, model.clone(), Operation::Chat, request.stream, estimate)?;
    let upstream = ChatCall {
        request: request.members,
        client_model: request.model,
        upstream_model: model.upstream_name().to_owned(),
        max_completion_tokens: estimate.cap,
        cap_field: match model.cap_field {
            catalogue::CapField::MaxTokens => CapField::MaxTokens,
            catalogue::CapField::MaxCompletionTokens => CapField::MaxCompletionTokens,
        },
        stream: request.stream,
        timing: state.0.waits.from(Instant::now()),
    };
    if request.stream {
        stream::respond(&state, proposal, provider, upstream).await
    } else {
        answer::respond(&state, proposal, provider, Question::Chat(upstream)).await
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
