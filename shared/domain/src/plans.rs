//! Plans: what a subscription allows. The defaults stand in `infra/plans.toml`.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize};

use crate::metering::{Allowances, Rate, Resource};

/// The default plans, compiled in.
pub const DEFAULT_PLANS: &str = include_str!("../../../infra/plans.toml");

/// A number, or `"unlimited"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// At most this many.
    Of(u64),
    /// Not counted.
    Unlimited,
}

impl Limit {
    /// The number, or `default` when there is none.
    #[must_use]
    pub const fn or(self, default: u64) -> u64 {
        match self {
            Self::Of(n) => n,
            Self::Unlimited => default,
        }
    }

    /// The number, `None` when unlimited, as answers show it (`null`).
    #[must_use]
    pub const fn number(self) -> Option<u64> {
        match self {
            Self::Of(n) => Some(n),
            Self::Unlimited => None,
        }
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Text {
            Number(u64),
            Word(String),
        }
        match Text::deserialize(deserializer) {
            // DynamoDB numbers keep 38 digits and JSON readers 53 bits; nobody needs more than 2^53.
            Ok(Text::Number(n)) if n <= 1 << 53 => Ok(Self::Of(n)),
            Ok(Text::Word(word)) if word == "unlimited" => Ok(Self::Unlimited),
            _ => Err(serde::de::Error::custom("must be a whole number from 0 to 2^53, or \"unlimited\"")),
        }
    }
}

impl Serialize for Limit {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Of(n) => serializer.serialize_u64(*n),
            Self::Unlimited => serializer.serialize_str("unlimited"),
        }
    }
}

/// The numbers of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanLimits {
    /// Chat answers a month.
    pub messages: Limit,
    /// Tokens a month.
    pub llm_tokens: Limit,
    /// Images a month.
    pub images: Limit,
    /// Calls of model endpoints a month.
    pub api_calls: Limit,
    /// Requests a minute, 1 to 60,000 or unlimited.
    pub requests_per_minute: Limit,
    /// Requests that may come at once after a quiet while; a minute's worth when absent.
    pub burst: Option<u64>,
    /// Requests in flight at the same time, 1 to 1,000.
    pub in_flight: u64,
    /// Assistants of kind bot.
    pub bots: Limit,
    /// Members of the organization.
    pub members: Limit,
    /// API keys.
    pub keys: Limit,
}

/// Prices in minor units (cents, fen); absent where the plan is not sold that way.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PlanPrice {
    /// US cents a month.
    pub usd_month: Option<u64>,
    /// US cents a year.
    pub usd_year: Option<u64>,
    /// Fen a month.
    pub cny_month: Option<u64>,
}

/// One plan.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Stable word, `free`.
    pub id: String,
    /// Name for people.
    pub name: String,
    /// The numbers.
    pub limits: PlanLimits,
    /// Features that are switched on.
    #[serde(default)]
    pub features: Vec<String>,
    /// What it costs.
    #[serde(default)]
    pub price: PlanPrice,
}

impl Plan {
    /// The monthly allowances.
    #[must_use]
    pub fn allowances(&self) -> Allowances {
        Allowances::from_fn(|resource| match resource {
            Resource::Messages => self.limits.messages,
            Resource::LlmTokens => self.limits.llm_tokens,
            Resource::Images => self.limits.images,
            Resource::ApiCalls => self.limits.api_calls,
        })
    }

    /// The request rate as the meter keeps it.
    #[must_use]
    pub fn rate(&self) -> Rate {
        let Limit::Of(per_minute) = self.limits.requests_per_minute else {
            return Rate { interval: 0, burst: 0 };
        };
        Rate::per_minute(per_minute, self.limits.burst.unwrap_or(per_minute))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    plan: Vec<Plan>,
}

/// All plans, from the smallest to the largest. New organizations start on the first. There is at least one.
#[derive(Debug, Clone)]
pub struct Plans(Arc<[Plan]>);

/// A plans file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PlansError {
    /// Not the TOML that is wanted; the text names line and column.
    #[error("{0}")]
    Syntax(#[from] toml::de::Error),
    /// Well-formed but wrong.
    #[error("plan `{plan}`: {why}")]
    Invalid {
        /// The plan's id.
        plan: String,
        /// What is wrong.
        why: &'static str,
    },
    /// No plan at all.
    #[error("there must be at least one [[plan]]")]
    Empty,
}

impl Plans {
    /// The plans in `text` (the format of `infra/plans.toml`).
    ///
    /// # Errors
    /// [`PlansError`], which names the line or the plan.
    pub fn parse(text: &str) -> Result<Self, PlansError> {
        let file: File = toml::from_str(text)?;
        let mut plans: Vec<Plan> = vec![];
        for plan in file.plan {
            let invalid = |why| Err(PlansError::Invalid { plan: plan.id.clone(), why });
            let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
            if plan.id.is_empty() || plan.id.len() > 32 || !plan.id.chars().all(word) {
                return invalid("id must be 1 to 32 lower-case letters, digits, _ or -");
            }
            if !matches!(plan.limits.requests_per_minute, Limit::Unlimited | Limit::Of(1..=60_000)) {
                return invalid("requests_per_minute must be 1 to 60000, or \"unlimited\"");
            }
            if !(1..=1_000).contains(&plan.limits.in_flight) {
                return invalid("in_flight must be 1 to 1000");
            }
            if plan.limits.burst.is_some_and(|burst| !(1..=60_000).contains(&burst)) {
                return invalid("burst must be 1 to 60000");
            }
            if plans.iter().any(|other| other.id == plan.id) {
                return invalid("this id stands twice");
            }
            plans.push(plan);
        }
        if plans.is_empty() { Err(PlansError::Empty) } else { Ok(Self(plans.into())) }
    }

    /// The plan called `id`; the first plan when it is gone, so that a tenant is never without limits.
    #[must_use]
    pub fn get(&self, id: &str) -> &Plan {
        self.find(id).unwrap_or_else(|| self.first())
    }

    /// The plan called `id`, if there is one.
    #[must_use]
    pub fn find(&self, id: &str) -> Option<&Plan> {
        self.0.iter().find(|plan| plan.id == id)
    }

    /// The plan that new organizations get.
    #[must_use]
    pub fn first(&self) -> &Plan {
        &self.0[0]
    }

    /// All of them, from the smallest to the largest.
    #[must_use]
    pub fn all(&self) -> &[Plan] {
        &self.0
    }

    /// The larger of two plans; one that is gone is smaller than any.
    #[must_use]
    pub fn larger<'a>(&self, one: &'a str, other: &'a str) -> &'a str {
        let place = |id| self.0.iter().position(|plan| plan.id == id);
        if place(other) > place(one) { other } else { one }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_plans_are_those_of_the_design() {
        let plans = Plans::parse(DEFAULT_PLANS).unwrap();
        let free = plans.first();
        assert_eq!(free.id, "free");
        assert_eq!(free.limits.messages, Limit::Of(1_000));
        assert_eq!(free.rate(), Rate { interval: 6_000, burst: 54_000 });
        assert_eq!(plans.get("team").limits.messages, Limit::Unlimited);
        assert_eq!(plans.get("pro").price.usd_year, Some(19_000));
        assert_eq!(plans.get("gone").id, "free");
    }

    #[test]
    fn a_wrong_file_names_what_is_wrong() {
        let good = DEFAULT_PLANS;
        for (from, to, says) in [
            ("in_flight = 2", "in_flight = 0", "in_flight"),
            ("messages = 1_000", "messages = -1", "messages"),
            ("messages = 1_000", "messages = \"many\"", "unlimited"),
            ("messages = 1_000", "mesages = 1_000", "mesages"),
            ("id = \"pro\"", "id = \"free\"", "twice"),
            ("requests_per_minute = 10", "requests_per_minute = 0", "requests_per_minute"),
        ] {
            let error = Plans::parse(&good.replacen(from, to, 1)).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        assert!(matches!(Plans::parse("plan = []"), Err(PlansError::Empty)));
    }
}
