//! Subscriptions: the vendor's state brought over, and their end that a tenant wants or does not want any more.

use tenantry_domain::{
    Standing, SubscriptionStatus,
    account::{Account, Subscription},
};
use tenantry_payments::stripe::{self, OperationKey, Stripe};
use tenantry_store::TenantScope;

use crate::{
    Commerce, CommerceError, TRIES,
    changes::{only_item, paid_for, plan_of},
};

/// What became of the tenant's plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// The plan from now on.
    pub plan: String,
    /// The plan before, when it is another.
    pub before: Option<String>,
}

impl Commerce {
    /// Brings the tenant's account to where the subscription `id` is at Stripe now. `None` when it is none of ours.
    ///
    /// # Errors
    /// [`CommerceError`]; whoever told of it comes again.
    pub async fn sync_subscription(&self, id: &str) -> Result<Option<Planned>, CommerceError> {
        let stripe = self.stripe()?;
        for _ in 0..TRIES {
            let mut seen = stripe.subscription(id).await?;
            let Some(scope) = self.tenant_of(id, Some(&seen.customer), Some(&seen.metadata)).await? else {
                return Ok(None);
            };
            let account = self.store.account(&scope).await?;
            // The look comes after the state that it is written over, or an older look could undo a newer one.
            seen = stripe.subscription(id).await?;
            let Some(account) = self.with_subscription(stripe, &account, &seen).await? else {
                return self.entitle(&scope).await.map(Some);
            };
            if self.store.write_account(&scope, account).await?.is_some() {
                return self.entitle(&scope).await.map(Some);
            }
        }
        Err(CommerceError::Contention)
    }

    /// The account with what was seen of a subscription; `None` when nothing changes.
    async fn with_subscription(
        &self,
        stripe: &Stripe,
        account: &Account,
        seen: &stripe::Subscription,
    ) -> Result<Option<Account>, CommerceError> {
        let (item, plan, paid) = (only_item(seen)?, plan_of(&self.store, seen)?, paid_for(seen)?);
        let known = account.subscription.as_ref().filter(|known| known.id == seen.id);
        // A payment is late since its invoice was made, whenever we heard of it.
        let late_since = match (&seen.status, &seen.latest_invoice) {
            (SubscriptionStatus::PastDue, Some(invoice)) => stripe.invoice(invoice).await?.created,
            _ => self.store.now(),
        };
        let subscription = Subscription {
            id: seen.id.clone(),
            standing: Standing::seen(known.map(|known| &known.standing), seen.status.clone(), late_since),
            plan: plan.id.clone(),
            price: item.price.id.clone(),
            paid,
            period_start: item.period_start,
            period_end: item.period_end,
            cancel_at_period_end: seen.cancel_at_period_end,
            trial_end: seen.trial_end,
            created_at: seen.created,
        };
        if account.subscription.as_ref() == Some(&subscription) || !account.takes(&subscription) {
            return Ok(None);
        }
        if let SubscriptionStatus::Unknown(word) = &subscription.standing.status {
            tracing::error!(subscription = seen.id, word, "a status that is not known here; the plan stays");
        }
        Ok(Some(Account { subscription: Some(subscription), ..account.clone() }))
    }

    /// Gives the tenant what its account says now: writes it down, and puts the meter on that plan. It can be called at
    /// any time; what is right already costs two reads.
    ///
    /// # Errors
    /// [`CommerceError`]; the same call again goes on.
    pub async fn entitle(&self, scope: &TenantScope) -> Result<Planned, CommerceError> {
        for _ in 0..TRIES {
            let account = self.store.account(scope).await?;
            let entitled = account.entitled(self.store.plans(), self.store.now(), self.grace);
            let account = if account.plan.as_ref() == Some(&entitled.plan) && account.plan_until == entitled.until {
                account
            } else {
                let next = Account { plan: Some(entitled.plan), plan_until: entitled.until, ..account };
                let Some(written) = self.store.write_account(scope, next).await? else { continue };
                written
            };
            let plan = account.plan.unwrap_or_else(|| self.store.plans().first().id.clone());
            let put = self.store.put_on_plan(scope, &plan, account.version, account.plan_until).await?;
            match put {
                tenantry_store::Planned::Superseded => {}
                tenantry_store::Planned::Same => return Ok(Planned { plan, before: None }),
                tenantry_store::Planned::From(before) => {
                    tracing::info!(org = %scope.org(), from = before, to = plan, "the plan changed");
                    return Ok(Planned { plan, before: Some(before) });
                }
            }
        }
        Err(CommerceError::Contention)
    }

    /// The subscription that counts, as Stripe has it now.
    ///
    /// # Errors
    /// [`CommerceError::Impossible`] when there is none.
    pub async fn subscription(&self, scope: &TenantScope) -> Result<stripe::Subscription, CommerceError> {
        let account = self.store.account(scope).await?;
        let known = account.subscription.filter(|known| !known.standing.status.is_terminal());
        let known = known.ok_or(CommerceError::Impossible("there is no subscription"))?;
        let seen = self.stripe()?.subscription(&known.id).await?;
        if seen.status.is_terminal() {
            self.sync_subscription(&seen.id).await?;
            return Err(CommerceError::Impossible("the subscription has ended"));
        }
        Ok(seen)
    }

    /// Ends the subscription with its period, or now.
    ///
    /// # Errors
    /// [`CommerceError`]; `attempt` tells tries of the caller apart, so that one that got no answer can be repeated.
    pub async fn cancel(
        &self,
        scope: &TenantScope,
        now: bool,
        reason: Option<&str>,
        attempt: &str,
    ) -> Result<stripe::Subscription, CommerceError> {
        let seen = self.subscription(scope).await?;
        let stripe = self.stripe()?;
        let key = OperationKey::new(if now { "cancel_now" } else { "cancel" }, &[&seen.id, attempt]);
        let changed = if now {
            stripe.cancel_now(&seen.id, &key).await?
        } else {
            stripe.cancel_at_period_end(&seen.id, reason, &key).await?
        };
        self.sync_subscription(&changed.id).await?;
        Ok(changed)
    }

    /// Lets a subscription go on that would have ended with its period.
    ///
    /// # Errors
    /// As for [`Commerce::cancel`].
    pub async fn resume(&self, scope: &TenantScope, attempt: &str) -> Result<stripe::Subscription, CommerceError> {
        let seen = self.subscription(scope).await?;
        if !seen.cancel_at_period_end && seen.cancel_at.is_none() {
            return Err(CommerceError::Impossible("the subscription is not going to end"));
        }
        let key = OperationKey::new("resume", &[&seen.id, attempt]);
        let changed = self.stripe()?.resume(&seen, &key).await?;
        self.sync_subscription(&changed.id).await?;
        Ok(changed)
    }
}
