//! Limits of the month that are nearly used up, or used up: the owners are told, and the audit log says so.
//!
//! Who finds one orders the mails first, under names that are the same whoever finds it, and notes it then: so of several
//! who are at it at the same time, or one that dies in between, one mail comes to each owner, and one row to the log.

use tenantry_domain::budget::{BudgetId, Owner};
use tenantry_store::{AuditActor, Change, LimitWarning, NewAudit, Origin, TenantScope};
use tenantry_web::mail::{LimitedBy, MailQueue};

use crate::{Commerce, CommerceError, Notice};

impl Commerce {
    /// Tells of all thresholds that were reached and nobody was told of. Returns how many there were.
    ///
    /// # Errors
    /// [`CommerceError`]; the same call again goes on.
    pub async fn warn_of_limits(&self, scope: &TenantScope, mails: &dyn MailQueue) -> Result<u64, CommerceError> {
        let mut told = 0;
        for warning in self.store.limit_warnings(scope).await? {
            told += u64::from(self.warn(scope, &warning, mails).await?);
        }
        Ok(told)
    }

    async fn warn(
        &self,
        scope: &TenantScope,
        warning: &LimitWarning,
        mails: &dyn MailQueue,
    ) -> Result<bool, CommerceError> {
        let LimitWarning { of, period, reached } = warning;
        let model = of.as_ref().and_then(|id| id.model.clone());
        let (by, target, who) = self.limited_by(scope, of.as_ref()).await?;
        let event = format!(
            "limit:{}:{period}:{by:?}:{}:{}:{}:{}:{}",
            scope.org(),
            target.as_deref().unwrap_or_default(),
            model.as_deref().unwrap_or_default(),
            reached.what.name(),
            reached.limit,
            reached.percent
        );
        let resets_at = period.end();
        let notice = Notice::LimitReached { by, who, model: model.clone(), reached: *reached, resets_at };
        self.tell(scope, &event, notice, mails).await?;
        let of_model = model.as_ref().map(|model| format!(" for {model}")).unwrap_or_default();
        let new = Some(format!("{} % of {}{of_model}", reached.percent, reached.limit));
        let origin = Origin::default();
        let audit = NewAudit {
            action: "limit.reached",
            actor: AuditActor::System,
            target: target.as_deref(),
            changes: vec![Change { field: reached.what.name(), old: None, new }],
            origin: &origin,
        };
        let noted = self.store.note_limit_warning(scope, warning, &audit).await?;
        if noted {
            tracing::info!(
                org = %scope.org(), %period, ?by, target, model, resource = reached.what.name(),
                percent = reached.percent, limit = reached.limit, used = reached.used, "a limit is nearly used up"
            );
        }
        Ok(noted)
    }

    /// Whose limit it is: the kind, the id, and what people call them.
    async fn limited_by(
        &self,
        scope: &TenantScope,
        of: Option<&BudgetId>,
    ) -> Result<(LimitedBy, Option<String>, String), CommerceError> {
        let nobody = String::new();
        Ok(match of.map(|id| &id.owner) {
            None => (LimitedBy::Plan, None, nobody),
            Some(Owner::Organization) => (LimitedBy::Organization, None, nobody),
            Some(Owner::ApiKey(id)) => {
                let key = self.store.api_key(scope, id).await?;
                (LimitedBy::ApiKey, Some(id.to_string()), key.map_or_else(|| id.to_string(), |key| key.name))
            }
            Some(Owner::Member(id)) => {
                // Of who has left the id is enough.
                let user = match self.store.member(scope, id).await? {
                    Some(_) => self.store.user(id).await?,
                    None => None,
                };
                let name = user.map(|user| user.full_name.unwrap_or_else(|| user.email.to_string()));
                (LimitedBy::Member, Some(id.to_string()), name.unwrap_or_else(|| id.to_string()))
            }
        })
    }
}
