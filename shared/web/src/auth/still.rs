//! The caller as they are at this moment. An access token is good for ten minutes whatever happens meanwhile, so what
//! gives lasting power, or spends money, asks the store as well.

use tenantry_domain::roles::{Actor, Permission};
use tenantry_store::{Store, TenantScope};

use super::Caller;
use crate::error::{ApiError, Code};

impl Caller {
    /// Whether the caller is a person whose session and account are good at this moment.
    ///
    /// # Errors
    /// 401 when they are not, 403 for an API key, 503 when the store does not answer.
    pub async fn still_signed_in(&self, store: &Store) -> Result<(), ApiError> {
        let (user, session) = self.user()?;
        let (user, session) = tokio::try_join!(store.user(user), store.session(user, session))?;
        match user.zip(session) {
            Some((user, session)) if !user.disabled && user.epoch == session.epoch => Ok(()),
            _ => Err(ended()),
        }
    }

    /// The same for somebody who may do `permission` in the organization that their token acts for: its scope.
    ///
    /// # Errors
    /// As for [`Caller::still_signed_in`], and 403 when their role does not allow it, or not any more.
    pub async fn still_may(&self, store: &Store, permission: Permission) -> Result<&TenantScope, ApiError> {
        let scope = self.scope(permission)?;
        let (user, _) = self.user()?;
        self.still_signed_in(store).await?;
        let member = store.organization_of(user, scope.org()).await?.ok_or_else(ended)?;
        if Actor::User(member.role).may(permission) {
            Ok(scope)
        } else {
            Err(ApiError::new(Code::Forbidden, "Your role does not allow this; ask an owner or admin."))
        }
    }
}

fn ended() -> ApiError {
    ApiError::new(Code::Unauthenticated, "Your session has ended; sign in again.")
}
