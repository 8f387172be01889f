//! Sums as answers show them.

use std::collections::BTreeMap;

use serde::Serialize;
use tenantry_domain::{Amounts, Resource};
use tenantry_store::{RollUp, Sums};
use utoipa::ToSchema;

/// Something that a plan allows a number of per month.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = Resource)]
pub(crate) enum ResourceName {
    /// Chat answers.
    Messages,
    /// Tokens of language models, prompt and completion together.
    LlmTokens,
    /// Generated images.
    Images,
    /// Calls of any model endpoint.
    ApiCalls,
}

impl From<Resource> for ResourceName {
    fn from(resource: Resource) -> Self {
        match resource {
            Resource::Messages => Self::Messages,
            Resource::LlmTokens => Self::LlmTokens,
            Resource::Images => Self::Images,
            Resource::ApiCalls => Self::ApiCalls,
        }
    }
}

/// What was taken from the plan's allowances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Charged {
    /// Chat answers.
    pub(crate) messages: u64,
    /// Tokens of language models.
    pub(crate) llm_tokens: u64,
    /// Generated images.
    pub(crate) images: u64,
    /// Calls of model endpoints.
    pub(crate) api_calls: u64,
}

impl From<Amounts> for Charged {
    fn from(amounts: Amounts) -> Self {
        Self {
            messages: amounts.get(Resource::Messages),
            llm_tokens: amounts.get(Resource::LlmTokens),
            images: amounts.get(Resource::Images),
            api_calls: amounts.get(Resource::ApiCalls),
        }
    }
}

/// What was recorded of a resource of the organization's own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct OwnFigures {
    /// How many records there are.
    records: u64,
    /// What they add up to.
    amount: u64,
}

/// Roll-ups being added up. What the organization recorded itself is no request, and kept apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) sums: Sums,
    recorded: BTreeMap<String, OwnFigures>,
}

impl Totals {
    pub(crate) fn add(&mut self, RollUp { key, sums }: &RollUp) {
        if key.own_resource().is_none() {
            return self.sums.add(sums);
        }
        let own = self.recorded.entry(key.model.clone()).or_default();
        own.records = own.records.saturating_add(sums.requests);
        own.amount = own.amount.saturating_add(sums.amount);
    }
}

/// Sums over requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Figures {
    /// Admitted requests.
    requests: u64,
    /// Those that did not end well: the vendor failed, or the client left.
    errors: u64,
    /// Prompt tokens, cached ones included.
    prompt_tokens: u64,
    /// Prompt tokens that the vendor had cached.
    cached_tokens: u64,
    /// Completion tokens, reasoning included.
    completion_tokens: u64,
    /// Completion tokens that were reasoning.
    reasoning_tokens: u64,
    /// What was taken from the allowances.
    charged: Charged,
    /// Micro-credits that were taken.
    credits: u64,
    /// What the organization recorded of resources of its own, by their names.
    recorded: BTreeMap<String, OwnFigures>,
}

impl From<Totals> for Figures {
    fn from(Totals { sums, recorded }: Totals) -> Self {
        Self {
            requests: sums.requests,
            errors: sums.errors,
            prompt_tokens: sums.tokens.prompt,
            cached_tokens: sums.tokens.cached,
            completion_tokens: sums.tokens.completion,
            reasoning_tokens: sums.tokens.reasoning,
            charged: sums.charged.into(),
            credits: sums.credits,
            recorded,
        }
    }
}
