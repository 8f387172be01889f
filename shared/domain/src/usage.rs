//! The usage event: what one admitted request used, said once.

use serde::{Deserialize, Serialize};

use crate::{
    ids::{KeyId, OrgId, RequestId, UserId},
    metering::Amounts,
    own::Own,
    time::{Millis, Period},
};

/// Which endpoint was called, or that the tenant counted something of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// `POST /chat/completions`.
    Chat,
    /// `POST /embeddings`.
    Embeddings,
    /// `POST /usage/record`: a resource of the tenant's own.
    Record,
}

impl Operation {
    /// The stored and shown word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Embeddings => "embeddings",
            Self::Record => "record",
        }
    }

    /// The operation called `name`.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Chat, Self::Embeddings, Self::Record].into_iter().find(|operation| operation.name() == name)
    }
}

/// How the request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// The whole answer was delivered.
    Ok,
    /// The client left; charged is what was produced until then.
    ClientClosed,
    /// The vendor failed before the first token; nothing is charged.
    UpstreamError,
    /// The vendor failed, or time ran out, in the middle; charged is what was produced until then.
    Interrupted,
    /// The gateway died; nobody reported the usage, so what was held is charged.
    Expired,
}

impl Status {
    /// The stored and shown word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::ClientClosed => "client_closed",
            Self::UpstreamError => "upstream_error",
            Self::Interrupted => "interrupted",
            Self::Expired => "expired",
        }
    }

    /// The status called `name`.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Ok, Self::ClientClosed, Self::UpstreamError, Self::Interrupted, Self::Expired]
            .into_iter()
            .find(|status| status.name() == name)
    }
}

/// Tokens as the vendor counts them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tokens {
    /// Prompt tokens, cached ones included.
    pub prompt: u64,
    /// Of these, read from the vendor's cache.
    pub cached: u64,
    /// Completion tokens, reasoning included.
    pub completion: u64,
    /// Of these, reasoning.
    pub reasoning: u64,
}

impl Tokens {
    /// Prompt and completion together.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.prompt.saturating_add(self.completion)
    }
}

/// One admitted request, or a record of the tenant's own. `id` is also the key that makes a second delivery harmless.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageEvent {
    /// The request, and the name of its hold.
    pub id: RequestId,
    /// The tenant.
    pub org: OrgId,
    /// When it was admitted.
    pub at: Millis,
    /// The period whose allowances it used, as [`Period::index`].
    pub period: i64,
    /// The API key, when one was used.
    pub key: Option<KeyId>,
    /// The user, when a person called; for a key, the member who made it.
    pub member: Option<UserId>,
    /// The endpoint.
    pub operation: Operation,
    /// The model as the client named it; of a record of the tenant's own its resource.
    pub model: String,
    /// How it ended.
    pub status: Status,
    /// What the vendor reported, or what was counted locally.
    pub tokens: Tokens,
    /// What was taken from the allowances.
    pub charged: Amounts,
    /// What was taken from the credits, in micro-credits.
    pub credits: u64,
    /// What the vendor charges for it, in micro-dollars.
    pub cost: u64,
    /// Version of the price rule that priced reservation and settlement.
    pub price_version: u32,
    /// The vendor reported no usable usage and it was counted locally.
    pub estimated: bool,
    /// Tokens beyond what was held: paid by the platform.
    pub overrun: u64,
    /// Whether the answer was streamed.
    pub streamed: bool,
    /// Milliseconds from admission to the end.
    pub latency_ms: u64,
    /// Milliseconds from admission to the first byte of the answer, when there was one.
    pub first_byte_ms: Option<u64>,
    /// `x-request-id` of the answer, which the caller may have chosen.
    pub request_id: String,
    /// The shard of the meter that its hold was in: of no other one is anything charged for it.
    #[serde(default, skip_serializing_if = "is_main")]
    pub shard: u8,
    /// What the tenant recorded itself, with [`Operation::Record`] and no other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own: Option<Own>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
const fn is_main(shard: &u8) -> bool {
    *shard == 0
}

impl UsageEvent {
    /// The period whose allowances were used.
    #[must_use]
    pub fn period(&self) -> Period {
        Period::from_index(self.period).unwrap_or_else(|| Period::of(self.at))
    }
}
