//! Who acts in an organization, as they are at this moment. An access token is good for ten minutes whatever happens
//! meanwhile, so what manages an organization asks the store instead.

use std::str::FromStr;

use axum::extract::{FromRequestParts, RawPathParams};
use http::request::Parts;
use tenantry_domain::{
    OrgId, UserId,
    roles::{Actor, Permission, Role},
};
use tenantry_store::{AuditActor, Change, NewAudit, Organization, Origin, TenantScope};
use tenantry_web::{ApiError, Caller, Code};

use crate::State;

/// The ids in a path, not looked at yet: who may not do a thing learns nothing from how an id is written.
pub(crate) struct Ids(Vec<String>);

impl Ids {
    /// The id at this place of the path. What is no id names nothing, like an unknown one.
    pub(crate) fn at<T: FromStr>(&self, place: usize) -> Result<T, ApiError> {
        self.0.get(place).and_then(|id| id.parse().ok()).ok_or_else(ApiError::not_found)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Ids {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        // Bytes that are no text name nothing.
        let ids = RawPathParams::from_request_parts(parts, state).await.ok();
        Ok(Self(ids.iter().flatten().map(|(_, id)| id.to_owned()).collect()))
    }
}

/// A person in one of their organizations, whichever their token acts for.
pub(crate) struct Acting {
    /// The person.
    pub(crate) user: UserId,
    /// What they are there, by now.
    pub(crate) role: Role,
    /// The organization.
    pub(crate) organization: Organization,
    /// The right to its data.
    pub(crate) scope: TenantScope,
}

impl Acting {
    /// The caller in the organization that the path names first, if they may do `permission` there.
    pub(crate) async fn reading(
        state: &State,
        caller: &Caller,
        ids: &Ids,
        permission: Permission,
    ) -> Result<Self, ApiError> {
        Self::find(state, caller, ids, permission, false).await
    }

    /// The same for a change: the session and the person still have to be good.
    pub(crate) async fn changing(
        state: &State,
        caller: &Caller,
        ids: &Ids,
        permission: Permission,
    ) -> Result<Self, ApiError> {
        caller.still_signed_in(&state.store).await?;
        Self::find(state, caller, ids, permission, false).await
    }

    /// The same for what may be done to an organization that is being deleted as well.
    pub(crate) async fn deciding(
        state: &State,
        caller: &Caller,
        ids: &Ids,
        permission: Permission,
    ) -> Result<Self, ApiError> {
        caller.still_signed_in(&state.store).await?;
        Self::find(state, caller, ids, permission, true).await
    }

    async fn find(
        state: &State,
        caller: &Caller,
        ids: &Ids,
        permission: Permission,
        in_any_state: bool,
    ) -> Result<Self, ApiError> {
        let (user, _) = caller.user()?;
        let org: OrgId = ids.at(0)?;
        let member = state.store.organization_of_in_any_state(user, &org).await?;
        let member = member.filter(|member| in_any_state || member.organization.deletes_at.is_none());
        let member = member.ok_or_else(ApiError::not_found)?;
        if !Actor::User(member.role).may(permission) {
            return Err(forbidden());
        }
        let scope = member.scope().clone();
        Ok(Self { user: user.clone(), role: member.role, organization: member.organization, scope })
    }

    /// A row of the audit log about something that this person does.
    pub(crate) fn audit<'a>(
        &self,
        action: &'static str,
        target: &'a str,
        changes: Vec<Change>,
        origin: &'a Origin,
    ) -> NewAudit<'a> {
        NewAudit { action, actor: AuditActor::User(self.user.clone()), target: Some(target), changes, origin }
    }
}

/// The role does not allow it, or not any more.
pub(crate) fn forbidden() -> ApiError {
    ApiError::new(Code::Forbidden, "Your role does not allow this; ask an owner or admin.")
}

/// One changed value, for the audit log.
pub(crate) fn change(field: &'static str, old: Option<impl Into<String>>, new: Option<impl Into<String>>) -> Change {
    Change { field, old: old.map(Into::into), new: new.map(Into::into) }
}
