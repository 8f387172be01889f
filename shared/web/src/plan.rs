//! What the tenant's plan includes, as typed values: [`Included`] for a route that is part of a plan, [`OnPlan`] for what
//! depends on the request.
//!
//! Both ask the meter, which is one consistent read: a change of plan counts with the next request. Calls of models do
//! without it, because the write that admits them has the plan in its condition (`Terms::feature` of the store).

use std::marker::PhantomData;

use axum::extract::{FromRef, FromRequestParts};
use http::request::Parts;
use tenantry_domain::{
    Feature,
    features::Counted,
    plans::{Plan, Plans},
    roles::Permission,
};
use tenantry_store::{Store, TenantScope};

use crate::{Authenticator, Caller, error::ApiError};

/// The plan that a tenant is on at this moment.
#[derive(Debug, Clone)]
pub struct OnPlan {
    plans: Plans,
    id: String,
}

impl OnPlan {
    /// Asks the tenant's meter.
    ///
    /// # Errors
    /// 503 when the database does not answer.
    pub async fn of(store: &Store, scope: &TenantScope) -> Result<Self, ApiError> {
        Ok(Self { plans: store.plans().clone(), id: store.meter(scope).await?.plan })
    }

    /// The plan.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        self.plans.get(&self.id)
    }

    /// All plans there are.
    #[must_use]
    pub const fn plans(&self) -> &Plans {
        &self.plans
    }

    /// Whether the plan includes `feature`, or none is asked for.
    #[must_use]
    pub fn includes(&self, feature: Option<&Feature>) -> bool {
        feature.is_none_or(|feature| self.plan().has(feature))
    }

    /// Refuses what the plan does not include.
    ///
    /// # Errors
    /// 403 `upgrade_required`, which names the smallest plan that does.
    pub fn require(&self, feature: &Feature) -> Result<(), ApiError> {
        self.plans.without(&self.id, feature).map_or(Ok(()), |shortfall| Err(shortfall.into()))
    }

    /// The refusal of one more of `counted`, when there are as many as the plan includes: 403 `upgrade_required`, which
    /// names the smallest plan that includes more. A plan without a limit is only full when the organization is gone.
    #[must_use]
    pub fn full(&self, counted: Counted) -> ApiError {
        self.plans.no_more(&self.id, counted).map_or_else(ApiError::not_found, Into::into)
    }
}

/// What a route asks of its callers, as a type.
pub trait Gate {
    /// What they must be allowed to do.
    const PERMISSION: Permission;
    /// What their plan must include, if anything.
    const FEATURE: Option<Feature>;
}

/// A caller who may do what the route does, on a plan that includes it. Whoever may not is told nothing of plans.
#[derive(Debug, Clone)]
pub struct Included<G> {
    /// Who calls.
    pub caller: Caller,
    /// The plan.
    pub on: OnPlan,
    scope: TenantScope,
    gate: PhantomData<fn() -> G>,
}

impl<G> Included<G> {
    /// The tenant's scope.
    #[must_use]
    pub const fn scope(&self) -> &TenantScope {
        &self.scope
    }
}

impl<S, G: Gate> FromRequestParts<S> for Included<G>
where
    S: Send + Sync,
    Authenticator: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let caller = Caller::from_request_parts(parts, state).await?;
        let scope = caller.scope(G::PERMISSION)?.clone();
        let on = OnPlan::of(&Authenticator::from_ref(state).store, &scope).await?;
        if let Some(feature) = G::FEATURE {
            on.require(&feature)?;
        }
        Ok(Self { caller, on, scope, gate: PhantomData })
    }
}
