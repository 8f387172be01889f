//! Subscriptions: the vendor's state brought over, and changes that a tenant wants.

use tenantry_domain::{
    Millis, Standing, SubscriptionStatus,
    account::{Account, Subscription},
    plans,
};
use tenantry_payments::stripe::{self, OperationKey, PaymentBehavior, Preview, PriceChange, Proration, Stripe};
use tenantry_store::TenantScope;

use crate::{Commerce, CommerceError, Mismatch, TRIES};

/// What became of the tenant's plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// The plan from now on.
    pub plan: String,
    /// The plan before, when it is another.
    pub before: Option<String>,
}

/// A change of price that a tenant wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change<'a> {
    /// The new plan.
    pub plan: &'a str,
    /// The vendor's id of its price.
    pub price: &'a str,
    /// From when the rest of the period is reckoned: the moment of the preview that the tenant agreed to.
    pub as_of: Option<Millis>,
}

/// What came of a change.
#[derive(Debug, Clone, PartialEq)]
pub struct Upgraded {
    /// The subscription after it.
    pub subscription: stripe::Subscription,
    /// Whether it is for another price than it was as far as we knew.
    pub is_news: bool,
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
        let mismatch = |why| Mismatch::of(&seen.id, why);
        // Ours have one item; a second one was put there by hand.
        let [item] = seen.items.as_slice() else { return Err(mismatch("has not one item").into()) };
        let plan = self.store.plans().all().iter().find(|plan| plans::plan_product_id(&plan.id) == item.price.product);
        let plan = plan.ok_or_else(|| mismatch("is for no plan of the catalogue"))?;
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

    /// What a change would cost now.
    ///
    /// # Errors
    /// [`CommerceError`].
    pub async fn preview(&self, scope: &TenantScope, change: &Change<'_>) -> Result<Preview, CommerceError> {
        let seen = self.subscription(scope).await?;
        let item = only_item(&seen)?;
        Ok(self.stripe()?.preview_change(&price_change(&seen, item, change)).await?)
    }

    /// Changes the plan now. The difference is charged at once; a change that is not paid is not made. A trial ends with it.
    ///
    /// # Errors
    /// [`CommerceError`]; `attempt` tells tries of the caller apart, so that one that got no answer can be repeated.
    pub async fn upgrade(
        &self,
        scope: &TenantScope,
        change: &Change<'_>,
        attempt: &str,
    ) -> Result<Upgraded, CommerceError> {
        let known = self.store.account(scope).await?.subscription;
        let seen = self.subscription(scope).await?;
        let item = only_item(&seen)?;
        // It was asked for before, and the answer was lost: it may be repeated, like everything here.
        if item.price.id == change.price && seen.pending_update.is_none() {
            self.sync_subscription(&seen.id).await?;
            let is_news = known.is_some_and(|known| known.price != change.price);
            return Ok(Upgraded { subscription: seen, is_news });
        }
        let key = OperationKey::new("upgrade", &[&seen.id, change.price, attempt]);
        let price = price_change(&seen, item, change);
        let changed = self.stripe()?.change_price(&price, PaymentBehavior::Pending, &key).await?;
        self.sync_subscription(&changed.id).await?;
        Ok(Upgraded { is_news: changed.pending_update.is_none(), subscription: changed })
    }

    /// Ends the subscription with its period, or now.
    ///
    /// # Errors
    /// As for [`Commerce::upgrade`].
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
    /// As for [`Commerce::upgrade`].
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

fn only_item(seen: &stripe::Subscription) -> Result<&stripe::SubscriptionItem, CommerceError> {
    match seen.items.as_slice() {
        [item] => Ok(item),
        _ => Err(Mismatch::of(&seen.id, "has not one item").into()),
    }
}

fn price_change<'a>(
    seen: &'a stripe::Subscription,
    item: &'a stripe::SubscriptionItem,
    change: &Change<'a>,
) -> PriceChange<'a> {
    // A trial is of the plan that it was begun with. What comes after it is paid for, whole and at once, so no moment matters.
    let ends_trial = seen.status == SubscriptionStatus::Trialing;
    PriceChange {
        subscription: &seen.id,
        item: &item.id,
        price: change.price,
        proration: Proration::Now,
        proration_date: change.as_of.filter(|_| !ends_trial),
        ends_trial,
        metadata: &[],
    }
}
