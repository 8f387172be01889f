//! The bodies of the model endpoints, for the API document: the members that are looked at here. All others, which
//! OpenAI's reference describes, reach the vendor as they are.

use serde_json::Value;
use utoipa::ToSchema;

/// OpenAI's chat completion request.
#[derive(ToSchema)]
#[allow(dead_code, reason = "only its shape is read, by the API document")]
pub(crate) struct ChatCompletionRequest {
    /// A model of `GET /api/v1/models`.
    #[schema(example = "gpt-5-mini")]
    model: String,
    /// The conversation so far.
    #[schema(min_items = 1, max_items = 2048)]
    messages: Vec<ChatMessage>,
    /// Whether the answer comes in pieces, as server-sent events.
    stream: Option<bool>,
    /// What a stream has beside the answer.
    #[schema(value_type = Option<Object>)]
    stream_options: Option<Value>,
    /// Largest completion, in tokens, reasoning included.
    #[schema(minimum = 1)]
    max_completion_tokens: Option<u64>,
    /// The same by its older name.
    #[schema(minimum = 1)]
    max_tokens: Option<u64>,
    /// How many answers.
    #[schema(minimum = 1, maximum = 128)]
    n: Option<u64>,
}

/// A message of a conversation.
#[derive(ToSchema)]
#[allow(dead_code, reason = "only its shape is read, by the API document")]
pub(crate) struct ChatMessage {
    /// Who said it.
    #[schema(example = "user")]
    role: String,
    /// What was said: a text, or parts.
    #[schema(required = false)]
    content: Value,
}

/// OpenAI's embeddings request.
#[derive(ToSchema)]
#[allow(dead_code, reason = "only its shape is read, by the API document")]
pub(crate) struct EmbeddingsRequest {
    /// A model of `GET /api/v1/models`.
    #[schema(example = "text-embedding-3-small")]
    model: String,
    /// A text, up to 2048 of them, or tokens.
    input: EmbeddingsInput,
}

/// What to turn into vectors.
#[derive(ToSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "only its shape is read, by the API document")]
pub(crate) enum EmbeddingsInput {
    /// One text.
    One(String),
    /// Texts, or the tokens of one or several.
    Several(SeveralInputs),
}

/// Texts, or tokens.
#[derive(ToSchema)]
#[schema(min_items = 1)]
#[allow(dead_code, reason = "only its shape is read, by the API document")]
pub(crate) struct SeveralInputs(Vec<Value>);
