//! The limits of their own that API keys, members and models may have, as they are asked for and shown.

use std::{borrow::Cow, collections::BTreeMap};

use serde::{Deserialize, Serialize};
use tenantry_domain::{
    Resource,
    budget::{Budget, Budgets},
};
use tenantry_web::{ApiError, extract::Object};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        Ref, RefOr,
        schema::{ObjectBuilder, Schema, Type},
    },
};

/// Largest number that every JSON parser keeps exact (RFC 7493, 2.2).
const MOST: u64 = (1 << 53) - 1;

/// The rate is kept in whole milliseconds per request.
const FASTEST: u64 = 60_000;

/// Models that one owner may have budgets for.
const MODELS: usize = 50;

/// Most characters of a model's id, and what they are: as in the catalogue.
const MODEL_CHARS: usize = 64;
const MODEL_PATTERN: &str = "^[A-Za-z0-9._/:-]{1,64}$";

/// What may be used per UTC calendar month, within what the organization has left. Counted from when there first is a
/// budget or a rate. A part that is left out or `null` is limited by the plan alone.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Budget)]
pub(crate) struct MonthlyBudget {
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
    /// The same for single models, beside that.
    models: Option<ModelBudgets>,
}

/// What may be used of one model, per UTC calendar month and per minute.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ModelBudget {
    /// Chat answers.
    #[schema(maximum = 9_007_199_254_740_991_u64)]
    messages: Option<u64>,
    /// Tokens, prompt and completion together.
    #[schema(maximum = 9_007_199_254_740_991_u64, example = 1_000_000)]
    llm_tokens: Option<u64>,
    /// Generated images.
    #[schema(maximum = 9_007_199_254_740_991_u64)]
    images: Option<u64>,
    /// Calls.
    #[schema(maximum = 9_007_199_254_740_991_u64)]
    api_calls: Option<u64>,
    /// Micro-credits.
    #[schema(maximum = 9_007_199_254_740_991_u64)]
    credits: Option<u64>,
    /// Requests in a minute.
    #[schema(minimum = 1, maximum = 60_000)]
    requests_per_minute: Option<u64>,
}

/// Budgets by the ids of models.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct ModelBudgets(BTreeMap<String, Object<ModelBudget>>);

impl PartialSchema for ModelBudgets {
    /// The derived one has no pattern of names, and no largest number of them.
    fn schema() -> RefOr<Schema> {
        let name = ObjectBuilder::new().schema_type(Type::String).pattern(Some(MODEL_PATTERN)).build();
        ObjectBuilder::new()
            .schema_type(Type::Object)
            .description(Some("Budgets by the ids of models, 50 at most."))
            .property_names(Some(Schema::Object(name)))
            .additional_properties(Some(Ref::from_schema_name("ModelBudget")))
            .max_properties(Some(MODELS))
            .examples([serde_json::json!({"gpt-4.1": {"llm_tokens": 1_000_000, "requests_per_minute": 60}})])
            .into()
    }
}

impl ToSchema for ModelBudgets {
    fn name() -> Cow<'static, str> {
        "ModelBudgets".into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push(("ModelBudget".into(), ModelBudget::schema()));
    }
}

impl MonthlyBudget {
    /// As it is shown; `None` when no part of it limits anything. The rate is shown beside it.
    pub(crate) fn of(Budgets { whole, models }: &Budgets) -> Option<Self> {
        let limit = |resource| whole.limits.get(&resource).copied();
        let models = (!models.is_empty()).then(|| ModelBudgets::of(models));
        let shown = Self {
            messages: limit(Resource::Messages),
            llm_tokens: limit(Resource::LlmTokens),
            images: limit(Resource::Images),
            api_calls: limit(Resource::ApiCalls),
            credits: whole.credits,
            models,
        };
        (!whole.limits.is_empty() || whole.credits.is_some() || shown.models.is_some()).then_some(shown)
    }

    /// As it is stored, without a rate.
    fn checked(self) -> Result<Budgets, ApiError> {
        let Self { messages, llm_tokens, images, api_calls, credits, models } = self;
        let whole = ModelBudget { messages, llm_tokens, images, api_calls, credits, requests_per_minute: None };
        let models = models.map(|models| models.checked("/budget/models")).transpose()?;
        Ok(Budgets { whole: whole.checked("/budget")?, models: models.unwrap_or_default() })
    }
}

impl ModelBudgets {
    pub(crate) fn of(models: &BTreeMap<String, Budget>) -> Self {
        let shown = |budget: &Budget| {
            let limit = |resource| budget.limits.get(&resource).copied();
            Object(ModelBudget {
                messages: limit(Resource::Messages),
                llm_tokens: limit(Resource::LlmTokens),
                images: limit(Resource::Images),
                api_calls: limit(Resource::ApiCalls),
                credits: budget.credits,
                requests_per_minute: budget.requests_per_minute,
            })
        };
        Self(models.iter().map(|(model, budget)| (model.clone(), shown(budget))).collect())
    }

    /// As they are stored: those that limit something.
    ///
    /// # Errors
    /// 422 for what no model can be called, for too many, and as [`ModelBudget::checked`].
    pub(crate) fn checked(self, at: &str) -> Result<BTreeMap<String, Budget>, ApiError> {
        if self.0.len() > MODELS {
            return Err(ApiError::invalid(at, format!("must be of {MODELS} models at most")));
        }
        let mut models = BTreeMap::new();
        for (model, Object(budget)) in self.0 {
            let fits = |c: char| c.is_ascii_alphanumeric() || "._/:-".contains(c);
            if model.is_empty() || model.len() > MODEL_CHARS || !model.chars().all(fits) {
                return Err(ApiError::invalid(at, "must be named by ids of models"));
            }
            // RFC 6901, 3: the slash of a name.
            let budget = budget.checked(&format!("{at}/{}", model.replace('/', "~1")))?;
            if !budget.is_empty() {
                models.insert(model, budget);
            }
        }
        Ok(models)
    }
}

impl ModelBudget {
    /// As it is stored.
    ///
    /// # Errors
    /// 422 for a number that not every client could read back, and for a rate that cannot be kept.
    fn checked(self, at: &str) -> Result<Budget, ApiError> {
        let mut limits = BTreeMap::new();
        for resource in Resource::ALL {
            let limit = match resource {
                Resource::Messages => self.messages,
                Resource::LlmTokens => self.llm_tokens,
                Resource::Images => self.images,
                Resource::ApiCalls => self.api_calls,
            };
            if let Some(limit) = limit {
                limits.insert(resource, at_most(at, resource.name(), limit)?);
            }
        }
        let credits = self.credits.map(|credits| at_most(at, "credits", credits)).transpose()?;
        let rate = self.requests_per_minute.map(|rate| per_minute(&format!("{at}/requests_per_minute"), rate));
        Ok(Budget { limits, credits, requests_per_minute: rate.transpose()? })
    }
}

/// A change of budgets as bodies ask for it; what is not named stays.
#[derive(Debug, Default)]
pub(crate) struct BudgetChange {
    budget: Option<Budgets>,
    rate: Option<Option<u64>>,
}

impl BudgetChange {
    /// What a body says of `budget` and `requests_per_minute`; each is nothing when it is not named.
    ///
    /// # Errors
    /// 422 for what cannot be kept.
    pub(crate) fn checked(
        budget: Option<Option<Object<MonthlyBudget>>>,
        rate: Option<Option<u64>>,
    ) -> Result<Self, ApiError> {
        let budget = budget.map(|budget| match budget {
            Some(Object(budget)) => budget.checked(),
            None => Ok(Budgets::default()),
        });
        let rate = rate.map(|rate| rate.map(|rate| per_minute("/requests_per_minute", rate)).transpose());
        Ok(Self { budget: budget.transpose()?, rate: rate.transpose()? })
    }

    /// The budgets after it; `None` when it names none.
    pub(crate) fn of(&self, before: &Budgets) -> Option<Budgets> {
        if self.budget.is_none() && self.rate.is_none() {
            return None;
        }
        // The budget is replaced whole, with those of models; the rate stands beside it.
        let mut after = self.budget.clone().unwrap_or_else(|| before.clone());
        after.whole.requests_per_minute = self.rate.unwrap_or(before.whole.requests_per_minute);
        Some(after)
    }
}

fn at_most(at: &str, name: &str, number: u64) -> Result<u64, ApiError> {
    if number <= MOST {
        Ok(number)
    } else {
        Err(ApiError::invalid(format!("{at}/{name}"), format!("must be at most {MOST}")))
    }
}

fn per_minute(at: &str, rate: u64) -> Result<u64, ApiError> {
    if (1..=FASTEST).contains(&rate) {
        Ok(rate)
    } else {
        Err(ApiError::invalid(at, format!("must be between 1 and {FASTEST}")))
    }
}

/// For the audit log.
pub(crate) fn in_words(budgets: &impl Serialize) -> String {
    serde_json::to_string(budgets).unwrap_or_default()
}
