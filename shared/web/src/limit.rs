//! A metered call that a limit stands in the way of, as it is answered: which limit, and what is left of it.

use std::time::Duration;

use serde::Serialize;
use tenantry_domain::{
    Millis,
    budget::{BudgetId, Owner},
    metering::Refusal,
    time::rfc3339,
};
use utoipa::ToSchema;

use crate::error::{ApiError, Code};

/// The limit that stood in the way of a metered call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct LimitReached {
    /// Whose limit it is.
    pub of: LimitOf,
    /// The model that the limit is for; absent where it is for all together.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "gpt-4.1")]
    pub model: Option<String>,
    /// What is limited: a resource, `credits`, `requests_per_minute` or `requests_in_flight`.
    #[schema(example = "llm_tokens")]
    pub resource: String,
    /// The limit; absent for credits that were bought, of which there are as many as are left.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = 1_000_000)]
    pub limit: Option<u64>,
    /// What is left of it.
    pub left: u64,
    /// When it starts afresh, where it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    pub resets_at: Option<String>,
}

/// Whose a limit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LimitOf {
    /// The plan's.
    Plan,
    /// What the organization set itself, for a model.
    Organization,
    /// The member's who calls, or who made the key.
    Member,
    /// The API key's.
    ApiKey,
}

impl LimitOf {
    const fn words(self) -> &'static str {
        match self {
            Self::Plan => "The plan's",
            Self::Organization => "The organization's",
            Self::Member => "This member's",
            Self::ApiKey => "This API key's",
        }
    }
}

impl From<&Owner> for LimitOf {
    fn from(owner: &Owner) -> Self {
        match owner {
            Owner::Organization => Self::Organization,
            Owner::Member(_) => Self::Member,
            Owner::ApiKey(_) => Self::ApiKey,
        }
    }
}

/// ` for <model>`, where the limit is one of a model.
fn for_model(model: Option<&String>) -> String {
    model.map(|model| format!(" for {model}")).unwrap_or_default()
}

/// `of` names the limit as the others do.
fn too_fast(of: LimitOf, model: Option<String>, limit: u64, retry_after: Millis) -> ApiError {
    let text = format!(
        "{} rate of {limit} requests a minute{} is reached. Try again in {retry_after} ms.",
        of.words(),
        for_model(model.as_ref())
    );
    let resource = "requests_per_minute".to_owned();
    ApiError::new(Code::RateLimited, text)
        .retry_after(Duration::from_millis(retry_after.unsigned_abs()))
        .limited(LimitReached { of, model, resource, limit: Some(limit), left: 0, resets_at: None })
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let plan = |resource: &str, limit, left, resets_at: Option<Millis>| LimitReached {
            of: LimitOf::Plan,
            model: None,
            resource: resource.to_owned(),
            limit,
            left,
            resets_at: resets_at.map(rfc3339),
        };
        match refusal {
            Refusal::NotIncluded(shortfall) => (*shortfall).into(),
            Refusal::QuotaExceeded { resource, limit, left, resets_at } => ApiError::new(
                Code::QuotaExceeded,
                format!(
                    "The plan's monthly allowance of {name} does not cover this request: {left} of {limit} left. \
                     It starts afresh at {at}; a larger plan helps at once.",
                    name = resource.name(),
                    at = rfc3339(resets_at),
                ),
            )
            .waiting_is_useless()
            .limited(plan(resource.name(), Some(limit), left, Some(resets_at))),
            Refusal::BudgetExceeded { of, what, limit, left, resets_at } => {
                let BudgetId { owner, model } = *of;
                let of = LimitOf::from(&owner);
                let text = format!(
                    "{whose} monthly budget of {name}{of_model} does not cover this request: {left} of {limit} left. \
                     It starts afresh at {at}; an owner or admin can raise it at once.",
                    whose = of.words(),
                    name = what.name(),
                    of_model = for_model(model.as_ref()),
                    at = rfc3339(resets_at),
                );
                let (resource, resets_at) = (what.name().to_owned(), Some(rfc3339(resets_at)));
                let reached = LimitReached { of, model, resource, limit: Some(limit), left, resets_at };
                ApiError::new(Code::QuotaExceeded, text).waiting_is_useless().limited(reached)
            }
            Refusal::OutOfCredits { left, needed } => ApiError::new(
                Code::InsufficientCredits,
                format!(
                    "This request may cost {needed} micro-credits and {left} are left. Buy credits, or ask for less."
                ),
            )
            .limited(plan("credits", None, left, None)),
            Refusal::TooManyInFlight { limit } => ApiError::new(
                Code::TooManyInFlight,
                format!("{limit} requests are in flight, as many as the plan allows. Try again when one has ended."),
            )
            .retry_after(Duration::from_secs(1))
            .limited(plan("requests_in_flight", Some(limit), 0, None)),
            Refusal::RateLimited { limit, retry_after } => too_fast(LimitOf::Plan, None, limit, retry_after),
            Refusal::BudgetRateLimited { of, limit, retry_after } => {
                let BudgetId { owner, model } = *of;
                too_fast(LimitOf::from(&owner), model, limit, retry_after)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use tenantry_domain::{
        KeyId, Resource, UserId,
        budget::{BudgetId, Budgeted, Owner},
    };

    use super::*;

    /// What both shapes say of the limit.
    fn limit(refusal: Refusal) -> Value {
        let error = ApiError::from(refusal);
        let problem = serde_json::to_value(error.to_problem("r")).unwrap();
        let openai: Value = serde_json::from_slice(&error.to_openai()).unwrap();
        assert_eq!(problem["limit"], openai["error"]["limit"], "{problem} {openai}");
        assert_eq!(problem["code"], openai["error"]["code"]);
        problem["limit"].clone()
    }

    #[test]
    fn every_refusal_names_its_limit_in_both_shapes() {
        let of = |owner, model: Option<&str>| Box::new(BudgetId { owner, model: model.map(Into::into) });
        let exceeded = |owner, model| Refusal::BudgetExceeded {
            of: of(owner, model),
            what: Budgeted::Credits,
            limit: 9,
            left: 2,
            resets_at: 0,
        };
        let (member, key) = (Owner::Member(UserId::new()), Owner::ApiKey(KeyId::new()));
        let at = "1970-01-01T00:00:00.000Z";
        for (refusal, expected) in [
            (
                Refusal::QuotaExceeded { resource: Resource::Images, limit: 5, left: 1, resets_at: 0 },
                json!({"of": "plan", "resource": "images", "limit": 5, "left": 1, "resets_at": at}),
            ),
            (
                exceeded(member, None),
                json!({"of": "member", "resource": "credits", "limit": 9, "left": 2, "resets_at": at}),
            ),
            (
                exceeded(key.clone(), Some("m")),
                json!({"of": "api_key", "model": "m", "resource": "credits", "limit": 9, "left": 2, "resets_at": at}),
            ),
            (
                Refusal::BudgetRateLimited { of: of(Owner::Organization, Some("m")), limit: 3, retry_after: 1 },
                json!({"of": "organization", "model": "m", "resource": "requests_per_minute", "limit": 3, "left": 0}),
            ),
            (
                Refusal::RateLimited { limit: 3, retry_after: 1 },
                json!({"of": "plan", "resource": "requests_per_minute", "limit": 3, "left": 0}),
            ),
            (
                Refusal::TooManyInFlight { limit: 2 },
                json!({"of": "plan", "resource": "requests_in_flight", "limit": 2, "left": 0}),
            ),
            (Refusal::OutOfCredits { left: 4, needed: 5 }, json!({"of": "plan", "resource": "credits", "left": 4})),
        ] {
            assert_eq!(limit(refusal), expected);
        }
        // Who it is stands nowhere: a key's holder need not know the member who made it.
        let error = ApiError::from(exceeded(key.clone(), None)).to_problem("r");
        assert!(!serde_json::to_string(&error).unwrap().contains("key_"));
    }
}
