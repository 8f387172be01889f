//! `GET /features`: what the caller's plan includes.

use axum::Json;
use serde::Serialize;
use tenantry_domain::{Feature, roles::Permission};
use tenantry_web::{ApiError, Gate, Included, error::Problem};
use utoipa::ToSchema;

/// Whoever may see what is left, on any plan.
pub(crate) enum ReadFeatures {}

impl Gate for ReadFeatures {
    const PERMISSION: Permission = Permission::ReadUsage;
    const FEATURE: Option<Feature> = None;
}

/// A feature.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FeatureState {
    /// Its word.
    #[schema(example = "advanced_models")]
    id: String,
    /// Whether the plan includes it.
    enabled: bool,
    /// Id of the smallest plan that includes it; `null` when no plan on offer does.
    #[schema(required, example = "pro")]
    cheapest_plan: Option<String>,
}

/// What a plan includes.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PlanFeatures {
    /// Id of the plan.
    #[schema(example = "free")]
    plan: String,
    /// Every feature there is.
    features: Vec<FeatureState>,
}

/// Features of the plan
///
/// Every feature there is, whether the organization's plan includes it, and which is the smallest plan that does. A
/// change of plan counts at once.
#[utoipa::path(
    get,
    path = "/api/v1/features",
    tag = "usage",
    operation_id = "get_features",
    responses(
        (status = 200, description = "The features.", body = PlanFeatures),
        (status = 401, description = "No valid credentials.", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The API key lacks the scope `usage`.", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Busy; try again after `Retry-After`.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn features(included: Included<ReadFeatures>) -> Result<Json<PlanFeatures>, ApiError> {
    let (plan, plans) = (included.on.plan(), included.on.plans());
    let features = plans.features().map(|feature| FeatureState {
        id: feature.name().to_owned(),
        enabled: plan.has(feature),
        cheapest_plan: plans.cheapest_with(feature).map(|plan| plan.id.clone()),
    });
    Ok(Json(PlanFeatures { plan: plan.id.clone(), features: features.collect() }))
}
