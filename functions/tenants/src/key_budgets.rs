//! The limits of its own that an API key may have, as they are asked for and shown.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tenantry_domain::{Resource, budget::Budget};
use tenantry_web::ApiError;
use utoipa::ToSchema;

/// Largest number that every JSON parser keeps exact (RFC 7493, 2.2).
const MOST: u64 = (1 << 53) - 1;

/// The rate is kept in whole milliseconds per request.
const FASTEST: u64 = 60_000;

/// What an API key may use per UTC calendar month, within what its organization has left. Counted from when the key
/// first has a budget or a rate. A part that is left out or `null` is limited by the plan alone.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeyBudget {
    /// Chat answers.
    #[schema(maximum = 9_007_199_254_740_991_u64)]
    messages: Option<u64>,
    /// Tokens of language models, prompt and completion together.
    #[schema(maximum = 9_007_199_254_740_991_u64, example = 1_000_000)]
    llm_tokens: Option<u64>,
    /// Generated images.
    #[schema(maximum = 9_007_199_254_740_991_u64)]
    images: Option<u64>,
    /// Calls of any model endpoint.
    #[schema(maximum = 9_007_199_254_740_991_u64)]
    api_calls: Option<u64>,
    /// Micro-credits.
    #[schema(maximum = 9_007_199_254_740_991_u64)]
    credits: Option<u64>,
}

impl KeyBudget {
    /// As it is shown; `None` when nothing is limited.
    pub(crate) fn of(budget: &Budget) -> Option<Self> {
        let limit = |resource| budget.limits.get(&resource).copied();
        let shown = Self {
            messages: limit(Resource::Messages),
            llm_tokens: limit(Resource::LlmTokens),
            images: limit(Resource::Images),
            api_calls: limit(Resource::ApiCalls),
            credits: budget.credits,
        };
        (!budget.limits.is_empty() || budget.credits.is_some()).then_some(shown)
    }

    /// As it is stored.
    ///
    /// # Errors
    /// 422 for a number that not every client could read back.
    pub(crate) fn checked(self) -> Result<Budget, ApiError> {
        let mut limits = BTreeMap::new();
        for resource in Resource::ALL {
            let limit = match resource {
                Resource::Messages => self.messages,
                Resource::LlmTokens => self.llm_tokens,
                Resource::Images => self.images,
                Resource::ApiCalls => self.api_calls,
            };
            if let Some(limit) = limit {
                limits.insert(resource, at_most(resource.name(), limit)?);
            }
        }
        let credits = self.credits.map(|credits| at_most("credits", credits)).transpose()?;
        Ok(Budget { limits, credits, requests_per_minute: None })
    }
}

fn at_most(name: &str, number: u64) -> Result<u64, ApiError> {
    if number <= MOST {
        Ok(number)
    } else {
        Err(ApiError::invalid(format!("/budget/{name}"), format!("must be at most {MOST}")))
    }
}

/// A rate as it may be asked for.
///
/// # Errors
/// 422 when it is none, or faster than can be kept.
pub(crate) fn per_minute(rate: u64) -> Result<u64, ApiError> {
    if (1..=FASTEST).contains(&rate) {
        Ok(rate)
    } else {
        Err(ApiError::invalid("/requests_per_minute", format!("must be between 1 and {FASTEST}")))
    }
}
