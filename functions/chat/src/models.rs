//! Which models can be called here, and who answers for them.

use std::{collections::HashMap, sync::Arc};

use axum::extract::State;
use serde::Serialize;
use tenantry_domain::{
    Feature,
    catalogue::{Catalogue, Model},
    plans::Plans,
    roles::Permission,
};
use tenantry_providers::{Provider, VendorKey, http::HttpClient, openai::OpenAiUpstream, sandbox::SandboxProvider};
use tenantry_web::{
    ApiError, Caller, Code, Gate, Included, Path,
    config::{self, ConfigError, Env},
    error::OpenAiError,
};
use utoipa::ToSchema;

/// The vendor whose OpenAI-compatible address may stand in for the others.
const OPENAI: &str = "openai";
/// The vendor that is made up.
const SANDBOX: &str = "sandbox";
/// `created` in answers: OpenAI's format has it, the catalogue does not; 2026-11-01, the catalogue's date.
const CREATED: u64 = 1_793_491_200;

/// The catalogue, with a provider for each vendor that is configured.
#[derive(Clone)]
pub struct Models {
    catalogue: Catalogue,
    vendors: HashMap<String, Arc<dyn Provider>>,
    /// Serves the models of vendors that have no key of their own.
    gateway: Option<Arc<dyn Provider>>,
    /// Serves keys for test mode, whatever vendors there are.
    sandbox: Arc<dyn Provider>,
}

impl Models {
    /// The catalogue with the vendors whose variables are set. `OPENAI_BASE_URL` set to something else
    /// than OpenAI (OpenRouter, LiteLLM, vLLM, …) also serves the models of vendors without a key.
    /// `SANDBOX_MODELS=true` offers the offline models when no vendor is configured at all.
    ///
    /// # Errors
    /// [`ConfigError`] that names the vendor's variable, or the model that asks for a feature that `plans` do not know.
    pub fn from_env(env: &Env, plans: &Plans) -> Result<Self, ConfigError> {
        let catalogue = config::catalogue(env)?;
        for model in catalogue.models() {
            if let Some(unknown) = model.feature.as_ref().filter(|feature| !plans.knows(feature)) {
                let why = format!("model `{}`: the plans know no feature `{unknown}`", model.id);
                return Err(ConfigError::new("CATALOGUE_TOML", why));
            }
        }
        // Vendors' addresses are the operator's input; on AWS they must not lead into the network.
        let http =
            if env.parsed("ALLOW_PRIVATE_UPSTREAMS", false)? { HttpClient::new() } else { HttpClient::public_only() };
        let mut vendors: HashMap<String, Arc<dyn Provider>> = HashMap::new();
        let mut gateway = None;
        for vendor in catalogue.vendors().filter(|vendor| vendor.id != SANDBOX) {
            let (key, base_url) = (env.optional(&vendor.api_key_env), env.optional(&vendor.base_url_env));
            if key.is_none() && base_url.is_none() {
                continue;
            }
            // A server of one's own (Ollama, vLLM) often takes any key.
            let key = VendorKey::new(key.unwrap_or("none"));
            let upstream = OpenAiUpstream::new(base_url.unwrap_or(&vendor.base_url), key, http.clone())
                .map_err(|error| ConfigError::new(&vendor.base_url_env, error))?;
            let upstream: Arc<dyn Provider> = Arc::new(upstream);
            let elsewhere = base_url.is_some_and(|url| url.trim_end_matches('/') != vendor.base_url);
            if vendor.id == OPENAI && elsewhere {
                gateway = Some(upstream.clone());
            }
            vendors.insert(vendor.id.clone(), upstream);
        }
        let sandbox: Arc<dyn Provider> = Arc::new(SandboxProvider::new());
        if vendors.is_empty() && env.parsed("SANDBOX_MODELS", false)? {
            vendors.insert(SANDBOX.to_owned(), sandbox.clone());
        }
        Ok(Self { gateway, sandbox, ..Self::new(catalogue, vendors) })
    }

    /// The catalogue with these vendors, by their ids.
    #[must_use]
    pub fn new(catalogue: Catalogue, vendors: HashMap<String, Arc<dyn Provider>>) -> Self {
        Self { catalogue, vendors, gateway: None, sandbox: Arc::new(SandboxProvider::new()) }
    }

    fn provider(&self, model: &Model) -> Option<&Arc<dyn Provider>> {
        let stand_in = || self.gateway.as_ref().filter(|_| model.vendor != SANDBOX);
        self.vendors.get(&model.vendor).or_else(stand_in)
    }

    /// The models that can be called.
    pub fn available(&self) -> impl Iterator<Item = &Arc<Model>> {
        self.catalogue.models().filter(|model| self.provider(model).is_some())
    }

    /// The models that this caller can call on their plan.
    fn available_to(&self, included: &Included<CallModels>) -> impl Iterator<Item = &Arc<Model>> {
        let test = included.caller.is_test();
        let models = self.catalogue.models().filter(move |model| self.provider_for(model, test).is_some());
        models.filter(|model| included.on.includes(model.feature.as_ref()))
    }

    /// Test mode has the sandbox's models and no others; no vendor hears of it.
    fn provider_for(&self, model: &Model, test: bool) -> Option<&Arc<dyn Provider>> {
        if test { Some(&self.sandbox).filter(|_| model.vendor == SANDBOX) } else { self.provider(model) }
    }

    /// The model called `id` and its provider, for this caller.
    ///
    /// # Errors
    /// 404 `model_not_found`.
    pub(crate) fn find(&self, id: &str, caller: &Caller) -> Result<(Arc<Model>, Arc<dyn Provider>), ApiError> {
        let missing = |text: String| ApiError::field(Code::ModelNotFound, "/model", text);
        let model = self.catalogue.model(id).ok_or_else(|| {
            let id: String = id.chars().take(64).collect();
            missing(format!("There is no model `{id}` here; GET /api/v1/models lists those there are."))
        })?;
        let provider = self.provider_for(model, caller.is_test()).ok_or_else(|| {
            if caller.is_test() {
                return missing(format!(
                    "A key for test mode cannot call `{id}`; GET /api/v1/models lists what it can."
                ));
            }
            missing(format!(
                "The vendor of `{id}` is not configured here; GET /api/v1/models lists the models that are."
            ))
        })?;
        Ok((model.clone(), provider.clone()))
    }
}

/// Whoever may call models, on any plan: what it includes decides which.
pub(crate) enum CallModels {}

impl Gate for CallModels {
    const PERMISSION: Permission = Permission::CallModels;
    const FEATURE: Option<Feature> = None;
}

/// One model, in OpenAI's format.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ModelCard {
    /// The name to call it by.
    #[schema(example = "gpt-5-mini")]
    id: String,
    /// Always `model`.
    object: &'static str,
    /// Seconds since the epoch.
    created: u64,
    /// The vendor.
    owned_by: String,
    /// Largest prompt, in tokens.
    context_window: u64,
    /// Largest completion, in tokens; 0 for embeddings.
    max_output_tokens: u64,
}

impl ModelCard {
    fn of(model: &Model) -> Self {
        Self {
            id: model.id.clone(),
            object: "model",
            created: CREATED,
            owned_by: model.vendor.clone(),
            context_window: model.context_tokens,
            max_output_tokens: model.max_output_tokens,
        }
    }
}

/// Models, in OpenAI's format.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ModelList {
    /// Always `list`.
    object: &'static str,
    /// The models.
    data: Vec<ModelCard>,
}

/// List the models that can be called on the caller's plan.
#[utoipa::path(
    get, path = "/api/v1/models", tag = "models", operation_id = "list_models",
    responses((status = 200, body = ModelList), (status = 401, body = OpenAiError), (status = 403, body = OpenAiError), (status = 503, body = OpenAiError)),
)]
pub(crate) async fn list(
    State(state): State<crate::State>,
    included: Included<CallModels>,
) -> Result<axum::Json<ModelList>, ApiError> {
    let data = state.0.models.available_to(&included).map(|model| ModelCard::of(model)).collect();
    Ok(axum::Json(ModelList { object: "list", data }))
}

/// One model. A name with a slash is sent as `%2F`, as OpenAI's SDKs do. One that the plan does not include is 403
/// `upgrade_required`.
#[utoipa::path(
    get, path = "/api/v1/models/{model}", tag = "models", operation_id = "retrieve_model",
    params(("model" = String, Path, description = "The model's name", min_length = 1)),
    responses((status = 200, body = ModelCard), (status = 401, body = OpenAiError), (status = 403, body = OpenAiError), (status = 404, body = OpenAiError), (status = 503, body = OpenAiError)),
)]
pub(crate) async fn retrieve(
    State(state): State<crate::State>,
    included: Included<CallModels>,
    Path(id): Path<String>,
) -> Result<axum::Json<ModelCard>, ApiError> {
    let (model, _) = state.0.models.find(&id, &included.caller)?;
    if let Some(feature) = &model.feature {
        included.on.require(feature)?;
    }
    Ok(axum::Json(ModelCard::of(&model)))
}
